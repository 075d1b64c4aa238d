"""Programs out of Debian packages, with an apt that is a script."""

from __future__ import annotations

from pathlib import Path

import pytest

from cos_testbed.errors import PrerequisiteError, TestbedError
from cos_testbed.packages import ensure_packaged
from cos_testbed.progress import Progress

APT_CACHE = """#!/bin/sh
test -e "$APT/updated" && grep -qx "$2" "$APT/known" && echo "Package: $2"
"""
APT_GET = """#!/bin/sh
echo "$@" >> "$APT/calls"
case $2 in
update) touch "$APT/updated" ;;
download) touch "$3.deb" ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/bin"
touch "$3/usr/bin/prometheus"
case $2 in */prometheus.deb) grep -qx promtool "$APT/known" || touch "$3/usr/bin/promtool" ;; esac
case $2 in */promtool.deb) touch "$3/usr/bin/promtool" ;; esac
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("APT", str(tmp_path))
    monkeypatch.setenv("COS_TESTBED_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("known", "package"), [("prometheus\n", "prometheus"), ("prometheus\npromtool\n", "promtool")]
)
def test_it_is_fetched_once_from_the_package_that_holds_it(apt: Path, known: str, package: str) -> None:
    (apt / "known").write_text(known)
    for _ in range(2):
        assert ensure_packaged("promtool", Progress()).is_file()
    assert (apt / "calls").read_text() == f"-q update\n-q download {package}\n"
    assert not list((apt / "cache" / "bin").glob(".*")), "nothing temporary is left"


def test_an_unknown_package_is_named(apt: Path) -> None:
    (apt / "known").write_text("other\n")
    with pytest.raises(PrerequisiteError, match="no package promtool or prometheus, which holds promtool"):
        ensure_packaged("promtool", Progress())


def test_a_package_without_the_program_is_not_kept(apt: Path) -> None:
    (apt / "known").write_text("promtool\n")
    (apt / "programs" / "dpkg-deb").write_text('#!/bin/sh\nmkdir -p "$3/usr/bin"\n')
    with pytest.raises(TestbedError, match="promtool does not hold promtool"):
        ensure_packaged("promtool", Progress())
    assert not (apt / "cache" / "bin" / "debian-promtool").exists()


def test_without_apt_it_says_so(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(apt / "nothing"))
    with pytest.raises(PrerequisiteError, match="apt is needed"):
        ensure_packaged("promtool", Progress())

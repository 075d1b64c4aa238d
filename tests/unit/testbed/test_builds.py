"""Pins, the cache's names and the toolchain's check."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cos_testbed import build
from cos_testbed.errors import PrerequisiteError, TestbedError
from cos_testbed.images_infra import DOCKERFILES, INFRA_IMAGES
from cos_testbed.pins import GO_MODULES, PROGRAMS, GoModule
from cos_testbed.progress import Progress


@pytest.mark.parametrize("module", GO_MODULES, ids=lambda module: module.name)
def test_the_table_says_what_go_mod_says(module: GoModule) -> None:
    text = (module.source / "go.mod").read_text()
    required = re.findall(rf"^(?:require)?\s*{re.escape(module.module)} (\S+)", text, re.MULTILINE)
    assert required == [module.version]
    tools = set(re.findall(r"^(?:tool)?\s+(\S+)$", text, re.MULTILINE)) | set(
        re.findall(r"^tool (\S+)$", text, re.MULTILINE)
    )
    own = (
        set(re.findall(r"^module (\S+)$", text, re.MULTILINE))
        if (module.source / "main.go").is_file()
        else set()
    )
    assert set(module.programs.values()) <= tools | own
    assert (module.source / "go.sum").is_file()


def test_every_wrapper_module_is_in_the_table() -> None:
    folders = {path.parent.name for path in GO_MODULES[0].source.parent.glob("*/go.mod")}
    assert folders == {module.name for module in GO_MODULES}


def test_every_infrastructure_image_has_a_dockerfile_that_copies_its_program() -> None:
    assert {image.name for image in INFRA_IMAGES} == {path.name for path in DOCKERFILES.iterdir()}
    for image in INFRA_IMAGES:
        assert f"COPY {image.program} " in (DOCKERFILES / image.name / "Dockerfile").read_text()


def test_the_kubernetes_version_is_stamped_into_all_of_its_programs() -> None:
    flags = PROGRAMS["kubectl"].ldflags
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "-X k8s.io/component-base/version.gitMinor=36" in flags


def test_the_hash_changes_with_sources_tags_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = PROGRAMS["containerd"]
    shutil.copytree(module.source, tmp_path / module.name)
    monkeypatch.setattr("cos_testbed.pins.GO_MODULES_DIR", tmp_path)
    before = build.pin_hash(module)
    assert before == build.pin_hash(replace(module))
    assert before != build.pin_hash(replace(module, tags=""))
    assert before != build.pin_hash(replace(module, stamps=()))
    with (module.source / "go.sum").open("a") as f:
        f.write("\n")
    assert before != build.pin_hash(module)


def test_the_build_does_not_depend_on_the_users_go_environment() -> None:
    env = build.go_environment({"GOFLAGS": "-mod=vendor", "GOOS": "plan9", "HOME": "/root", "GOPROXY": "x"})
    assert (env["GOFLAGS"], env["CGO_ENABLED"], env["GOWORK"]) == ("", "0", "off")
    assert "GOOS" not in env
    assert env["GOPROXY"] == "x"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"COS_TESTBED_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/cos-testbed"),
        ({"HOME": "/h"}, "/h/.cache/cos-testbed"),
    ],
)
def test_where_the_cache_is(environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COS_TESTBED_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert build.cache_dir() == Path(expected)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.27rc1 linux/arm64", (1, 27)),
        ("go version devel +abc", (0, 0)),
    ],
)
def test_go_version_is_parsed(line: str, version: tuple[int, int]) -> None:
    assert build.parse_go_version(line) == version


def test_an_old_go_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda _: "/usr/bin/go")
    monkeypatch.setattr(build, "output", lambda _: "go version go1.19.8 linux/amd64\n")
    with pytest.raises(PrerequisiteError, match=r"Go 1\.26 or newer .* found: go version go1\.19\.8"):
        build.require_go()


def test_a_machine_without_go_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with pytest.raises(PrerequisiteError, match="no 'go' in PATH"):
        build.require_go()


def test_what_is_in_the_cache_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COS_TESTBED_CACHE", str(tmp_path))
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    folder = build.bin_dir(PROGRAMS["helm"])
    folder.mkdir(parents=True)
    (folder / "helm").touch()
    assert build.ensure_binary("helm", Progress(quiet=True)) == folder / "helm"


def test_an_unknown_program_is_refused_by_name() -> None:
    with pytest.raises(TestbedError, match="no pinned program is named 'kubectx'; known: bridge, "):
        build.ensure_binary("kubectx")

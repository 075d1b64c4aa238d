"""The table of images, their Dockerfiles and pins, and when an image is built and pushed."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from cos_testbed import images
from cos_testbed.errors import TestbedError
from cos_testbed.images import BY_NAME, IMAGES, REPOSITORY, Image, build_images, source_files, source_hash
from cos_testbed.instance import REGISTRY_NAME
from cos_testbed.pins import PROGRAMS
from cos_testbed.progress import Progress

OPERATOR = BY_NAME["cos-operator"]


def instructions(image: Image, keyword: str) -> list[str]:
    """The arguments of each instruction of that name, with continued lines joined."""
    text = (image.directory / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(None, 1)[1] for line in text.splitlines() if line.startswith(f"{keyword} ")]


# --- the table and the Dockerfiles ---


def test_every_dockerfile_of_the_repository_is_in_the_table() -> None:
    found = {path.parent for path in (REPOSITORY / "images").glob("*/Dockerfile")} | {REPOSITORY}
    assert {image.directory for image in IMAGES} == found


def test_an_image_comes_after_its_base() -> None:
    names = [image.name for image in IMAGES]
    assert len(set(names)) == len(names)
    for image in IMAGES:
        assert image.base is None or names.index(image.base) < names.index(image.name)


def test_references_are_those_of_the_testbed() -> None:
    assert BY_NAME["elasticsearch"].reference == f"{REGISTRY_NAME}/elasticsearch/elasticsearch:8.19.5"
    assert len({image.reference for image in IMAGES}) == len(IMAGES)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_a_dockerfile_takes_its_base_as_an_argument_with_a_public_default(image: Image) -> None:
    stages = {name for line in instructions(image, "FROM") for name in line.split(" AS ")[1:]}
    bases = {line.split(" AS ")[0] for line in instructions(image, "FROM")}
    if image.base is None:
        assert bases == {"scratch"}
        return
    assert bases <= {"${BASE}"} | stages
    defaults = [line.partition("=")[2] for line in instructions(image, "ARG") if line.startswith("BASE")]
    assert len(defaults) == 1
    assert re.fullmatch(r"[a-z]+:[a-z0-9.-]+", defaults[0]), "not an official image of the public registry"


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("python", "python:3.13-slim-trixie"),
        ("redis", "redis:8.0"),
        ("postgres-official", "postgres:17"),
        ("elasticsearch", "docker.elastic.co/elasticsearch/elasticsearch:8.19.5"),
        ("neo4j", "neo4j:5.26-community"),
        ("traefik", f"traefik:{PROGRAMS['traefik'].version}"),
    ],
)
def test_a_stand_in_says_for_what_it_stands(name: str, official: str) -> None:
    labels = " ".join(instructions(BY_NAME[name], "LABEL"))
    assert f"Stands for {official} in the testbed of cos-operator; not the official image" in labels


def test_postgres_is_stopped_by_its_fast_shutdown() -> None:
    assert instructions(BY_NAME["postgres-official"], "STOPSIGNAL") == ["SIGINT"]


def test_the_operator_runs_as_a_number_and_stops_on_sigterm() -> None:
    assert instructions(OPERATOR, "USER") == ["65532:65532"]
    assert instructions(OPERATOR, "STOPSIGNAL") == ["SIGTERM"]
    assert instructions(OPERATOR, "ENTRYPOINT") == ['["cos-operator"]']


def test_what_the_operators_build_copies_is_what_is_hashed_and_what_the_context_holds() -> None:
    copied = {
        source
        for line in instructions(OPERATOR, "COPY")
        if not line.startswith("--from=")
        for source in line.split()[:-1]
    }
    assert copied == set(OPERATOR.sources) - {"Dockerfile", ".dockerignore"}
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignore.index("*") < min(ignore.index(f"!{name}") for name in copied)
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied


# --- pins ---


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_every_requirement_has_a_hash(name: str) -> None:
    pins = _pins((REPOSITORY / name).read_text())
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)


def test_the_build_backend_is_pinned_with_all_that_it_needs() -> None:
    pins = _pins((REPOSITORY / "requirements-build.txt").read_text())
    assert {pin.split("==")[0] for pin in pins} >= {"hatchling", "packaging", "pathspec", "pluggy"}


def test_the_sums_of_neo4j_are_of_the_version_that_the_pom_names() -> None:
    folder = BY_NAME["neo4j"].directory
    version = re.search(r"<neo4j.version>(.+)</neo4j.version>", (folder / "pom.xml").read_text())
    assert version
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert all(re.fullmatch(r"[0-9a-f]{64}  [\w.+-]+\.jar", line) for line in lines)
    assert any(line.endswith(f"  neo4j-server-{version[1]}.jar") for line in lines)


def test_what_is_fetched_is_of_the_version_that_the_tag_names() -> None:
    arguments = instructions(BY_NAME["elasticsearch"], "ARG")
    assert f"VERSION={BY_NAME['elasticsearch'].path.rpartition(':')[2]}" in arguments
    pom = (BY_NAME["neo4j"].directory / "pom.xml").read_text()
    assert f"<neo4j.version>{BY_NAME['neo4j'].path.rpartition(':')[2].removesuffix('-community')}." in pom


def _pins(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [
        " ".join(line.split()) for line in joined.splitlines() if "==" in line and not line.startswith("#")
    ]


# --- the hash of an image's sources ---


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a base and an image on it, and a cache of its own."""
    repository = tmp_path / "repository"
    for name in ("base", "top"):
        (repository / name).mkdir(parents=True)
        (repository / name / "Dockerfile").write_text(f"FROM scratch\n# {name}\n")
    table = (Image("base", "base", "base:1"), Image("top", "top", "some/top:2", base="base", args={"A": "1"}))
    monkeypatch.setattr(images, "REPOSITORY", repository)
    monkeypatch.setattr(images, "IMAGES", table)
    monkeypatch.setattr(images, "BY_NAME", {image.name: image for image in table})
    monkeypatch.setenv("COS_TESTBED_CACHE", str(tmp_path / "cache"))
    return repository


def top() -> Image:
    return images.BY_NAME["top"]


def test_the_hash_ignores_times_and_bytecode(sandbox: Path) -> None:
    before = source_hash(top())
    os.utime(sandbox / "top/Dockerfile", (0, 0))
    (sandbox / "top/__pycache__").mkdir()
    (sandbox / "top/__pycache__/a.cpython-313.pyc").write_bytes(b"x")
    (sandbox / "top/b.pyc").write_bytes(b"x")
    assert source_hash(top()) == before


def test_the_hash_follows_everything_that_an_image_is_made_of(sandbox: Path) -> None:
    seen = [source_hash(top())]

    (sandbox / "top/file").write_text("a")
    seen.append(source_hash(top()))
    (sandbox / "top/file").write_text("b")
    seen.append(source_hash(top()))
    (sandbox / "top/file").chmod(0o755)
    seen.append(source_hash(top()))
    (sandbox / "top/file").rename(sandbox / "top/other")
    seen.append(source_hash(top()))
    (sandbox / "base/file").write_text("in the base")
    seen.append(source_hash(top()))
    seen.append(source_hash(replace(top(), args={"A": "2"})))
    seen.append(source_hash(replace(top(), program="traefik")))

    assert len(set(seen)) == len(seen)


def test_only_the_named_sources_count(sandbox: Path) -> None:
    image = replace(top(), sources=("Dockerfile", "code"))
    (sandbox / "top/code/inner").mkdir(parents=True)
    (sandbox / "top/code/inner/a.py").write_text("1")
    (sandbox / "top/unrelated").write_text("1")
    assert [path.name for path in source_files(image)] == ["Dockerfile", "a.py"]


def test_a_source_that_does_not_exist_is_named(sandbox: Path) -> None:
    with pytest.raises(TestbedError, match=str(sandbox / "top/gone")):
        source_hash(replace(top(), sources=("gone",)))


# --- building and pushing, with a program in buildah's place ---

# Keeps an image as a file with its labels; a push copies that into the folder that the registry serves.
BUILDAH = f"""#!{sys.executable} -IS
import json, os, pathlib, sys
home = pathlib.Path(os.environ["FAKE_BUILDAH"])
options = [a for a in sys.argv[1:] if a.startswith("--")]
words = [a for a in sys.argv[1:] if not a.startswith("-")]
value = lambda name: [a.partition("=")[2] for a in options if a.startswith(name + "=")]
stored = lambda reference: home / "stored" / reference.replace("/", "_")
with (home / "calls").open("a") as calls:
    print(words[0], value("--tag")[0] if words[0] == "bud" else words[1] if words[1:] else "", file=calls)
if words[0] == "bud":
    if (home / "broken").exists():
        sys.exit("no space left on device")
    stored(value("--tag")[0]).write_text(json.dumps(dict(label.split("=") for label in value("--label"))))
elif words[0] == "inspect":
    path = stored(words[1])
    if not path.exists():
        sys.exit(125)
    template = value("--format")[0]
    labels = json.loads(path.read_text())
    print(path.stat().st_mtime_ns if "FromImageID" in template else labels[{images.SOURCE_LABEL!r}])
elif words[0] == "push":
    registry, _, path = words[2].removeprefix("docker://").partition("/")
    target = home / "registry" / path.replace("/", "_")
    target.write_bytes(stored(words[1]).read_bytes())
"""


class Bench:
    """The fake storage, and a registry that serves what was pushed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in ("stored", "registry"):
            (home / name).mkdir(parents=True)
        self.registry = ""
        self.status: int | None = None

    def calls(self) -> list[str]:
        """The builds and pushes since the last look."""
        path = self.home / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line for line in lines if line.split()[0] in ("bud", "push")]

    def build(self, *names: str) -> list[str]:
        return build_images(names or None, registry=self.registry, progress=Progress(StringIO()))


@pytest.fixture
def bench(sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    del sandbox
    bench = Bench(tmp_path / "fake")
    program = tmp_path / "bin/buildah"
    program.parent.mkdir()
    program.write_text(BUILDAH)
    program.chmod(0o755)
    monkeypatch.setenv("FAKE_BUILDAH", str(bench.home))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(images, "TOOLS", {"buildah": "buildah"})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            repository, kind, name = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+)", self.path).groups()  # type: ignore[union-attr]
            if kind == "manifests":
                path = bench.home / "registry" / f"{repository}:{name}".replace("/", "_")
                body: object = {"config": {"digest": path.name}}
            else:
                path = bench.home / "registry" / name
                body = {"config": {"Labels": json.loads(path.read_text())}} if path.exists() else {}
            self.send_response(bench.status or (200 if path.exists() else 404))
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    bench.registry = f"127.0.0.1:{server.server_port}"
    yield bench
    server.shutdown()
    thread.join(5)
    server.server_close()


def ref(path: str) -> str:
    return f"{REGISTRY_NAME}/{path}"


def test_images_are_built_and_pushed_in_order_and_once(bench: Bench) -> None:
    assert bench.build() == [ref("base:1"), ref("some/top:2")]
    assert bench.calls() == [
        f"bud {ref('base:1')}",
        f"push {ref('base:1')}",
        f"bud {ref('some/top:2')}",
        f"push {ref('some/top:2')}",
    ]
    assert bench.build() == [ref("base:1"), ref("some/top:2")]
    assert bench.calls() == []


def test_an_image_brings_its_base_into_storage_but_not_into_the_registry(bench: Bench) -> None:
    assert bench.build("top") == [ref("some/top:2")]
    assert bench.calls() == [f"bud {ref('base:1')}", f"bud {ref('some/top:2')}", f"push {ref('some/top:2')}"]


def test_what_the_registry_lost_is_pushed_without_a_build(bench: Bench) -> None:
    bench.build()
    bench.calls()
    (bench.home / "registry/some_top:2").unlink()
    bench.build()
    assert bench.calls() == [f"push {ref('some/top:2')}"]


def test_a_cleared_storage_is_not_filled_again_for_what_the_registry_has(bench: Bench) -> None:
    bench.build()
    bench.calls()
    shutil.rmtree(bench.home / "stored")
    bench.build()
    assert bench.calls() == []


def test_a_change_of_an_image_rebuilds_that_image(bench: Bench, sandbox: Path) -> None:
    bench.build()
    bench.calls()
    (sandbox / "top/Dockerfile").write_text("FROM scratch\n# changed\n")
    bench.build()
    assert bench.calls() == [f"bud {ref('some/top:2')}", f"push {ref('some/top:2')}"]


def test_a_change_of_a_base_rebuilds_what_stands_on_it(bench: Bench, sandbox: Path) -> None:
    bench.build()
    bench.calls()
    (sandbox / "base/Dockerfile").write_text("FROM scratch\n# changed\n")
    bench.build("top")
    assert bench.calls() == [f"bud {ref('base:1')}", f"bud {ref('some/top:2')}", f"push {ref('some/top:2')}"]


def test_a_failed_build_shows_its_log_and_is_tried_again(bench: Bench) -> None:
    (bench.home / "broken").touch()
    with pytest.raises(TestbedError, match="no space left on device"):
        bench.build("base")
    (bench.home / "broken").unlink()
    bench.calls()
    assert bench.build("base") == [ref("base:1")]
    assert bench.calls() == [f"bud {ref('base:1')}", f"push {ref('base:1')}"]


def test_an_unknown_name_is_refused_with_the_known_ones(bench: Bench) -> None:
    with pytest.raises(TestbedError, match="no image is named nonsense; known: base, top"):
        bench.build("top", "nonsense")
    assert bench.calls() == []


def test_a_registry_that_is_down_or_fails_is_named(bench: Bench) -> None:
    bench.status = 500
    with pytest.raises(TestbedError, match=f"{bench.registry} answered 500"):
        bench.build()
    with pytest.raises(TestbedError, match=r"127.0.0.1:1 does not answer"):
        build_images(None, registry="127.0.0.1:1", progress=Progress(StringIO()))
    assert bench.calls() == []


def test_a_build_names_its_base_and_arguments_and_pulls_nothing(sandbox: Path) -> None:
    command = images.build_command(top(), sandbox / "top", "abc")
    assert f"--build-arg=BASE={ref('base:1')}" in command
    assert "--build-arg=A=1" in command
    assert f"--label={images.SOURCE_LABEL}=abc" in command
    assert "--pull-never" in command
    assert command[-1] == str(sandbox / "top")


def test_local_authorities_are_mounted_read_only_where_there_are_any(
    sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "LOCAL_AUTHORITIES", tmp_path)
    assert not [word for word in images.build_command(top(), sandbox, "abc") if word.startswith("--volume")]
    (tmp_path / "office.crt").touch()
    assert f"--volume={tmp_path}:{tmp_path}:ro" in images.build_command(top(), sandbox, "abc")

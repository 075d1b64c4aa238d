"""Builds the images that stacks run, and the operator's, and pushes them to the testbed's registry.

Every image carries the hash of what it was made of as a label: an image whose label in the registry is right costs
two small requests, one that only the registry lacks a push, and anything else is built from cached layers.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cos_testbed.build import NICENESS, bin_dir, cache_dir, ensure_binary
from cos_testbed.errors import TestbedError
from cos_testbed.instance import REGISTRY_NAME, RUN_ROOT
from cos_testbed.locks import exclusive
from cos_testbed.pins import PROGRAMS
from cos_testbed.prereqs import install_tools
from cos_testbed.process import output, run
from cos_testbed.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE_LABEL = "dev.cos.testbed.source"
TOOLS: Mapping[str, str] = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
# Certificate authorities that Debian's ca-certificates adds to its own: without them a machine behind a proxy that
# re-signs TLS could not reach the package registries from inside a build.
LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")

BUILD_TIMEOUT_SECONDS = 1800.0
PUSH_TIMEOUT_SECONDS = 300.0
STORAGE_TIMEOUT_SECONDS = 120.0
REGISTRY_TIMEOUT_SECONDS = 10.0
LOCK_TIMEOUT_SECONDS = 3600.0

_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True)
class Image:
    """One row of the table of images.

    `path` is the repository and tag without the registry; `base` the name of the image that its `ARG BASE` takes;
    `sources` what its build reads, relative to its folder, the Dockerfile included. `program` names a pinned Go
    program that becomes the build context, `rootfs` a script that writes `rootfs.tar` into one.
    """

    name: str
    folder: str
    path: str
    base: str | None = None
    sources: tuple[str, ...] = (".",)
    args: Mapping[str, str] = field(default_factory=dict)
    program: str | None = None
    rootfs: str | None = None

    @property
    def reference(self) -> str:
        """As pods and local storage name it."""
        return f"{REGISTRY_NAME}/{self.path}"

    @property
    def directory(self) -> Path:
        """The folder, as an absolute path."""
        return REPOSITORY / self.folder


def operator_version() -> str:
    """The version in pyproject.toml, which is the tag of the operator's image."""
    with (REPOSITORY / "pyproject.toml").open("rb") as f:
        return str(tomllib.load(f)["project"]["version"])


def operator_values() -> str:
    """Values (for Helm's --set) with which the operator's chart runs the image of this very source.

    A rebuilt image keeps its tag: the annotation replaces the pod when, and only when, the source has changed.
    """
    image = BY_NAME["cos-operator"]
    repository, _, tag = image.reference.rpartition(":")
    values = {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": "Always",
        "podAnnotations.source": f"s-{source_hash(image)[:12]}",
    }
    return ",".join(f"{name}={value}" for name, value in values.items())


def _operator() -> Image:
    version = operator_version()
    return Image(
        "cos-operator",
        ".",
        f"cos-operator:{version}",
        base="python",
        args={"VERSION": version},
        sources=(
            "Dockerfile",
            ".dockerignore",
            "LICENSE",
            "README.md",
            "controllers",
            "operator",
            "pyproject.toml",
            "requirements-build.txt",
            "requirements.txt",
        ),
    )


# Each after its base.
IMAGES: tuple[Image, ...] = (
    Image("debian", "images/debian", "debian:trixie-slim", rootfs="make-rootfs"),
    Image("python", "images/python", "python:3.13-slim-trixie", base="debian"),
    Image("redis", "images/redis", "redis:8.0", base="debian"),
    Image("postgres-official", "images/postgres-official", "postgres-official:17", base="debian"),
    Image("postgres", "images/postgres", "postgres:17", base="postgres-official"),
    Image("elasticsearch", "images/elasticsearch", "elasticsearch/elasticsearch:8.19.5", base="debian"),
    Image("neo4j", "images/neo4j", "neo4j:5.26-community", base="debian"),
    Image(
        "traefik",
        "images/traefik",
        f"traefik:{PROGRAMS['traefik'].version}",
        base="debian",
        program="traefik",
    ),
    _operator(),
)
BY_NAME: Mapping[str, Image] = {image.name: image for image in IMAGES}


def build_images(names: Sequence[str] | None, *, registry: str, progress: Progress) -> list[str]:
    """Bring the named images, all if None, up to date into the registry at `registry` (host:port, plain HTTP).

    Returns the references by which pods name them. Raises TestbedError for an unknown name, a failed build or a
    registry that does not answer.
    """
    wanted = select(names)
    if all(_is_pushed(image, registry) for image in wanted):
        progress.info("The images in the registry are up to date")
    else:
        install_tools(TOOLS, progress)
        with exclusive(cache_dir() / "images.lock", timeout=LOCK_TIMEOUT_SECONDS):
            # What a killed build left: its working container holds layers, mounts and images.
            run(
                [*_buildah(), "rm", "--all"],
                log=cache_dir() / "log" / "images.log",
                timeout=STORAGE_TIMEOUT_SECONDS,
            )
            for image in wanted:
                _ensure_pushed(image, registry, progress)
    return [image.reference for image in wanted]


def select(names: Sequence[str] | None) -> list[Image]:
    """The named images, in the order in which they are built."""
    if names is None:
        return list(IMAGES)
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown:
        raise TestbedError(f"no image is named {', '.join(unknown)}; known: {', '.join(BY_NAME)}")
    return [image for image in IMAGES if image.name in names]


def source_hash(image: Image) -> str:
    """Changes with the files that an image is built from, its arguments, its program, and all of that of its base."""
    digest = hashlib.sha256()
    for path in source_files(image):
        name = path.relative_to(image.directory).as_posix()
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{name}\0{os.access(path, os.X_OK)}\0{content}\n".encode())
    digest.update(json.dumps(dict(image.args), sort_keys=True).encode())
    if image.program is not None:
        # The folder's name has the pin's hash.
        digest.update(bin_dir(PROGRAMS[image.program]).name.encode())
    if image.base is not None:
        digest.update(source_hash(BY_NAME[image.base]).encode())
    return digest.hexdigest()


def source_files(image: Image) -> list[Path]:
    """What `sources` names, sorted; Python's bytecode left out, as .dockerignore does."""
    found: set[Path] = set()
    for source in image.sources:
        path = image.directory / source
        if not path.exists():
            raise TestbedError(f"the image {image.name} is built from {path}, which does not exist")
        found.update([path] if path.is_file() else (child for child in path.rglob("*") if child.is_file()))
    return sorted(path for path in found if "__pycache__" not in path.parts and path.suffix != ".pyc")


def _ensure_pushed(image: Image, registry: str, progress: Progress) -> None:
    if _is_pushed(image, registry):
        return
    _ensure_built(image, progress)
    with progress.step(f"Pushing {image.reference}"):
        destination = f"docker://{registry}/{image.path}"
        push = ["push", "--tls-verify=false", image.reference, destination]
        run([*_buildah(), *push], log=_log(image), timeout=PUSH_TIMEOUT_SECONDS)


def _is_pushed(image: Image, registry: str) -> bool:
    return pushed_source(image, registry) == source_hash(image)


def _ensure_built(image: Image, progress: Progress) -> None:
    wanted = source_hash(image)
    if _local(image, f'{{{{index .OCIv1.Config.Labels "{SOURCE_LABEL}"}}}}') == wanted:
        return
    if image.base is not None:
        _ensure_built(BY_NAME[image.base], progress)
    if image.program is not None:
        ensure_binary(image.program, progress)
    replaced = _local(image, "{{.FromImageID}}")
    with progress.step(f"Building {image.reference}"), _context(image) as context:
        run(build_command(image, context, wanted), log=_log(image), timeout=BUILD_TIMEOUT_SECONDS)
    if replaced and replaced != _local(image, "{{.FromImageID}}"):
        _remove_replaced(image, replaced)


def _remove_replaced(image: Image, replaced: str) -> None:
    """Free the disk space of the image that a build has replaced, save the layers that are still used."""
    # It may be gone already, as the last layer of an image removed before it.
    output([*_buildah(), "rmi", replaced], timeout=STORAGE_TIMEOUT_SECONDS, check=False)
    if image.base is None:
        # No build can use the cached layers above the old base again.
        run([*_buildah(), "rmi", "--prune"], log=_log(image), timeout=STORAGE_TIMEOUT_SECONDS)


def build_command(image: Image, context: Path, source: str) -> list[str]:
    """A chroot instead of a container: it needs no container runtime, and has the host's network."""
    command = [
        *_buildah(),
        "bud",
        "--isolation=chroot",
        "--pull-never",
        "--layers",
        f"--file={image.directory / 'Dockerfile'}",
        f"--tag={image.reference}",
        f"--label={SOURCE_LABEL}={source}",
    ]
    if image.base is not None:
        command.append(f"--build-arg=BASE={BY_NAME[image.base].reference}")
    command += [f"--build-arg={name}={value}" for name, value in image.args.items()]
    if any(LOCAL_AUTHORITIES.glob("*.crt")):
        command.append(f"--volume={LOCAL_AUTHORITIES}:{LOCAL_AUTHORITIES}:ro")
    return ["nice", "-n", str(NICENESS), *command, str(context)]


@contextmanager
def _context(image: Image) -> Iterator[Path]:
    if image.rootfs is not None:
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=f".{image.name}-") as temporary:
            script = [str(image.directory / image.rootfs), str(Path(temporary) / "rootfs.tar")]
            run(script, log=_log(image), timeout=BUILD_TIMEOUT_SECONDS)
            yield Path(temporary)
    elif image.program is not None:
        yield bin_dir(PROGRAMS[image.program])
    else:
        yield image.directory


def pushed_source(image: Image, registry: str) -> str | None:
    """The hash that the registry's image of this tag was made of; None if it has none."""
    repository, _, tag = image.path.rpartition(":")
    manifest = _get(registry, f"/v2/{repository}/manifests/{tag}", accept=_MANIFEST_TYPES)
    if manifest is None:
        return None
    config = _get(registry, f"/v2/{repository}/blobs/{manifest['config']['digest']}")
    if config is None:
        return None
    labels = config.get("config", {}).get("Labels") or {}
    return labels.get(SOURCE_LABEL)


def _get(registry: str, path: str, accept: str = "*/*") -> dict[str, Any] | None:
    """A JSON document of the registry, None if it does not exist."""
    connection = http.client.HTTPConnection(registry, timeout=REGISTRY_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise TestbedError(f"the registry at {registry} does not answer: {error}") from error
    finally:
        connection.close()
    if response.status == http.HTTPStatus.NOT_FOUND:
        return None
    if response.status != http.HTTPStatus.OK:
        raise TestbedError(f"the registry at {registry} answered {response.status} to GET {path}")
    document: dict[str, Any] = json.loads(body)
    return document


def _local(image: Image, template: str) -> str:
    """A field of the image in local storage; empty if it is not there."""
    command = [*_buildah(), "inspect", "--type=image", f"--format={template}", image.reference]
    return output(command, check=False).strip()


def _buildah() -> list[str]:
    """With a storage of the testbed's own: nothing of it stays mounted, and it goes with the cache."""
    root = cache_dir() / "containers"
    run_root = RUN_ROOT / "containers" / hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return [
        "buildah",
        f"--root={root}",
        f"--runroot={run_root}",
        "--storage-driver=overlay",
        "--storage-opt=overlay.skip_mount_home=true",
    ]


def _log(image: Image) -> Path:
    return cache_dir() / "log" / f"image-{image.name}.log"

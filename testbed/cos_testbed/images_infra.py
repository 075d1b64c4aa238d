"""Images of the cluster's own pods: static programs on `FROM scratch`, imported into each node.

They do not come from the registry, so the cluster's DNS and volumes work also when a test takes it away.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cos_testbed.build import bin_dir, cache_dir, pin_hash
from cos_testbed.errors import TestbedError
from cos_testbed.instance import REGISTRY_NAME, Node
from cos_testbed.pins import PROGRAMS
from cos_testbed.process import output, run
from cos_testbed.progress import Progress

DOCKERFILES = Path(__file__).resolve().parents[1] / "images"
BUILD_TIMEOUT_SECONDS = 300.0
IMPORT_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class InfraImage:
    """`program` is a pinned Go program or a static program in PATH, copied into the build context."""

    name: str
    tag: str
    program: str

    @property
    def reference(self) -> str:
        """The name by which pods ask for it."""
        return f"{REGISTRY_NAME}/infra/{self.name}:{self.tag}"

    @property
    def source(self) -> Path:
        """The program on this machine."""
        if self.program in PROGRAMS:
            return bin_dir(PROGRAMS[self.program]) / self.program
        found = shutil.which(self.program)
        if found is None:
            raise TestbedError(f"{self.program} is not in PATH: the image {self.name} is made of it")
        return Path(found)

    @property
    def content_hash(self) -> str:
        """Changes with the program, the Dockerfile and the name."""
        digest = hashlib.sha256(self.reference.encode())
        digest.update((DOCKERFILES / self.name / "Dockerfile").read_bytes())
        module = PROGRAMS.get(self.program)
        digest.update(pin_hash(module).encode() if module else self.source.read_bytes())
        return digest.hexdigest()[:16]

    @property
    def archive(self) -> Path:
        """A docker archive in the cache; its name changes with its content."""
        return cache_dir() / "images" / f"{self.name}-{self.content_hash}.tar"


COREDNS = InfraImage("coredns", PROGRAMS["coredns"].version, "coredns")
PROVISIONER = InfraImage(
    "local-path-provisioner", PROGRAMS["local-path-provisioner"].version, "local-path-provisioner"
)
# The provisioner makes and removes volumes by short-lived pods that run a shell script.
HELPER = InfraImage("helper", "1", "busybox")
SANDBOX = InfraImage("sandbox", "1", "catatonit")
INFRA_IMAGES = (SANDBOX, COREDNS, PROVISIONER, HELPER)


def ensure_archives(progress: Progress) -> None:
    """Build the archives that the cache lacks."""
    for image in INFRA_IMAGES:
        archive = image.archive
        if not archive.exists():
            with progress.step(f"Building image {image.reference}"):
                _build(image, archive)


def import_into(node: Node, ctr: Path) -> None:
    """Import into a node's containerd what it does not have, or has in an older build."""
    marker = node.state / "infra-images"
    wanted = {image.reference: image.archive for image in INFRA_IMAGES}
    seen = "\n".join(map(str, wanted.values()))
    command = [str(ctr), f"--address={node.containerd_socket}", "--namespace=k8s.io", "images"]
    present = output([*command, "list", "-q"]).split()
    if marker.exists() and marker.read_text() == seen and set(wanted) <= set(present):
        return
    _import(command, wanted, node)
    marker.write_text(seen)


def _import(command: list[str], wanted: Mapping[str, Path], node: Node) -> None:
    log = node.instance.logs / f"{node.name}-import.log"
    for archive in wanted.values():
        run([*command, "import", "--local", str(archive)], log=log, timeout=IMPORT_TIMEOUT_SECONDS)


def _build(image: InfraImage, archive: Path) -> None:
    """With a storage of its own that is thrown away: nothing stays mounted or stored."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    log = cache_dir() / "log" / f"image-{image.name}.log"
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{image.name}-") as temporary:
        work = Path(temporary)
        context = work / "context"
        context.mkdir()
        shutil.copy2(image.source, context / image.program)
        buildah = [
            "buildah",
            f"--root={work / 'root'}",
            f"--runroot={work / 'run'}",
            "--storage-driver=vfs",
        ]
        dockerfile = DOCKERFILES / image.name / "Dockerfile"
        bud = ["bud", "--isolation=chroot", f"--file={dockerfile}", f"--tag={image.reference}", str(context)]
        run([*buildah, *bud], log=log, timeout=BUILD_TIMEOUT_SECONDS)
        made = work / "image.tar"
        push = ["push", image.reference, f"docker-archive:{made}:{image.reference}"]
        run([*buildah, *push], log=log, timeout=BUILD_TIMEOUT_SECONDS)
        made.rename(archive)

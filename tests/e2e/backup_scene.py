"""What the tests of backups share: an S3 server, and the objects that ask for copies and restores."""

from __future__ import annotations

import base64
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness import Cluster, run_testbed, wait_for

from cos_testbed.instance import instance_from
from cos_testbed.pki import Authority
from processes_of_tests import ending

SPACE = "e2e-backups"
#: Seconds for one copy: the pod, the server's five seconds of patience with replicas, restic.
LIMIT = 120.0
KEY = "a key that the user has written down"
ACCESS, SECRET = "cos-test", "cos-test-secret"  # pragma: allowlist secret


class Bucket(NamedTuple):
    """An S3 server that serves a folder, and the authority of its certificate."""

    endpoint: str
    authority: str
    folder: Path


@contextmanager
def s3(folder: Path) -> Iterator[Bucket]:
    """versitygw on the address at which pods reach this machine."""
    program, host = run_testbed("path", "versitygw", timeout=3000), str(instance_from().host_address)
    authority = Authority(folder / "pki", "s3-ca")
    pair = authority.leaf("s3", "s3", hosts=[host], server=True)
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    # What it knows of parts of large files, which the file system may have no room for, lies beside the data.
    data, known = folder / "data", folder / "known"
    data.mkdir()
    known.mkdir()
    command = [program, "--port", f"{host}:{port}", "--cert", str(pair.certificate), "--key", str(pair.key)]
    command += ["--region", "us-east-1", "--health", "/healthz", "--quiet", "posix"]
    command += ["--sidecar", str(known), str(data)]
    secrets = {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=secrets)

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex((host, port)) == 0

    with ending(process):
        wait_for("the S3 server listens", answers, 20)
        yield Bucket(f"https://{host}:{port}", authority.files.certificate.read_text(), data)


def secret(name: str, space: str = SPACE, **values: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": space}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def secret_value(cluster: Cluster, name: str, key: str, space: str = SPACE) -> str:
    found = cluster.get("secret", name, space)
    assert found
    return base64.b64decode(found["data"][key]).decode()


def create(
    cluster: Cluster,
    name: str,
    labels: dict[str, str] | None = None,
    stack: str = "cos",
    space: str = SPACE,
    **spec: Any,
) -> None:
    cluster.apply(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackBackup",
            "metadata": {"name": name, "namespace": space, "labels": labels or {}},
            "spec": {"stackRef": {"name": stack}, **spec},
        }
    )


def restore(cluster: Cluster, name: str, stack: str = "cos", space: str = SPACE, **spec: Any) -> None:
    cluster.apply(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackRestore",
            "metadata": {"name": name, "namespace": space},
            "spec": {"stackRef": {"name": stack}, **spec},
        }
    )


def status(cluster: Cluster, name: str, kind: str = "stackbackup", space: str = SPACE) -> dict[str, Any]:
    found = cluster.get(kind, name, space)
    return dict((found or {}).get("status") or {})


def ended(
    cluster: Cluster,
    name: str,
    seconds: float = LIMIT,
    kind: str = "stackbackup",
    space: str = SPACE,
) -> dict[str, Any]:
    """The status of a backup or a restore once it has ended."""

    def done() -> dict[str, Any] | None:
        found = status(cluster, name, kind, space)
        return found if found.get("completionTime") else None

    try:
        return wait_for(f"{kind} {name} has ended", done, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {status(cluster, name, kind, space)}") from error

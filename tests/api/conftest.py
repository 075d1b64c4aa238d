"""A real kube-apiserver with our CRDs: the contract tests speak to it, never to a fake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from cos_operator.kube import Kube

CRDS = Path(__file__).parents[2] / "crds"

#: Runs kubectl with the administrator's rights: ``kubectl(*arguments, stdin="")`` returns its output.
Kubectl = Callable[..., str]


def _run(*command: str, stdin: str = "", seconds: float = 60) -> str:
    """Output of a command; its standard error is the test's. Raises if it fails or takes too long."""
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, text=True, timeout=seconds, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="session")
def apiserver() -> str:
    """Path of the administrator's kubeconfig (JSON) for a running API server that serves our CRDs.

    The testbed's first start builds Kubernetes, which takes minutes; later ones take under a second.
    """
    testbed = partial(_run, sys.executable, "-m", "cos_testbed")
    testbed("up", "--control-plane-only", seconds=1800)
    kubeconfig = testbed("kubeconfig")
    kubectl = partial(_run, testbed("path", "kubectl", seconds=1800), "--kubeconfig", kubeconfig)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
    return kubeconfig


@pytest.fixture(scope="session")
def kubectl(apiserver: str) -> Kubectl:
    """What a person types."""
    path = _run(sys.executable, "-m", "cos_testbed", "path", "kubectl")
    return partial(_run, path, "--kubeconfig", apiserver, "--request-timeout=30s")


@pytest.fixture
async def kube(apiserver: str) -> AsyncIterator[Kube]:
    """A client with the administrator's rights."""
    async with Kube.connect(apiserver) as client:
        yield client


@pytest.fixture
async def namespace(kube: Kube) -> AsyncIterator[str]:
    """A fresh namespace of the test's own."""
    created = await kube.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "cos-api-"}}
    )
    name = str(created["metadata"]["name"])
    yield name
    kube.write_guard = None
    await kube.delete("Namespace", "", name)


@pytest.fixture
def kubeconfig_with(apiserver: str, tmp_path: Path) -> Callable[..., str]:
    """``kubeconfig_with(token=…, server=…)``: path of a kubeconfig for the same server, other in these points."""

    def write(*, token: str | None = None, **cluster: str) -> str:
        config = json.loads(Path(apiserver).read_text())
        config["clusters"][0]["cluster"].update(cluster)
        if token is not None:
            config["users"][0]["user"] = {"token": token}
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        return str(path)

    return write

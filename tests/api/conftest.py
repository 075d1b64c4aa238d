"""A real kube-apiserver with our CRDs: the contract tests speak to it, never to a fake."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

import pytest

from cos_operator.kube import Kube

CRDS = Path(__file__).parents[2] / "crds"

#: Runs kubectl with the administrator's rights: ``kubectl(*arguments, stdin="")`` returns its output.
Kubectl = Callable[..., str]

#: Testbeds of these tests, one for each process that runs them side by side; the end-to-end tests have others.
INSTANCES = {"master": 7, "gw0": 7, "gw1": 4}


def _run(*command: str, stdin: str = "", seconds: float = 60) -> str:
    """Output of a command; its standard error is the test's. Raises if it fails or takes too long."""
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, text=True, timeout=seconds, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="session")
def apiserver(worker_id: str) -> Iterator[str]:
    """Path of the administrator's kubeconfig (JSON) for a running API server that serves our CRDs.

    A testbed of its own, without nodes: no operator but the tests' writes there. Its first start builds Kubernetes,
    which takes minutes; later ones take seconds.
    """
    testbed = partial(_run, sys.executable, "-m", "cos_testbed", f"--instance={INSTANCES[worker_id]}")
    testbed("up", "--control-plane-only", seconds=1800)
    try:
        yield _serve_definitions(testbed)
    finally:
        testbed("clean")


def _serve_definitions(testbed: Callable[..., str]) -> str:
    kubeconfig = testbed("kubeconfig")
    kubectl = partial(_run, testbed("path", "kubectl", seconds=1800), "--kubeconfig", kubeconfig)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    # A definition so new that it has no conditions yet is an error to `kubectl wait`.
    kubectl("wait", "--for=jsonpath={.status.conditions}", "--timeout=30s", "-f", str(CRDS))
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


class Cable:
    """A TCP proxy to the API server that can be cut (connections end) or silenced (no byte passes any more)."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Let nothing pass any more, without ending a connection."""
        self._passing.clear()

    def mend(self) -> None:
        """Let everything pass again."""
        self._refusing = False
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer))
                group.create_task(self._pump(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(scope="session")
def address(apiserver: str) -> SplitResult:
    """Where the API server listens."""
    config = json.loads(Path(apiserver).read_text())
    return urlsplit(str(config["clusters"][0]["cluster"]["server"]))


@pytest.fixture
async def cable(address: SplitResult) -> AsyncIterator[Cable]:
    """The only way to the API server for clients whose kubeconfig names its port on localhost."""
    async with Cable(str(address.hostname), address.port or 443) as proxy:
        yield proxy


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

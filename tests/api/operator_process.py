"""Real operator processes beside the API server of these tests, with the chart's rights and users of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import yaml

T = TypeVar("T")
Manifest = dict[str, Any]
Kubectl = Callable[..., str]

CHART = Path(__file__).parents[2] / "charts" / "cos-operator"
#: The entry point of the operator's image.
PROGRAM = (str(Path(sys.executable).with_name("cos-operator")), "run")
#: The chart's name for everything that it makes, the Lease included.
RELEASE = "cos-operator"
#: Pods that no node takes: these tests have no nodes, and need none.
NOWHERE = {"nodeSelector": {"no-such-label": "none"}}
_STOP_SECONDS = 20.0
_POLL = 0.2


async def eventually(
    what: str, probe: Callable[[], Awaitable[T | None]] | Callable[[], T | None], seconds: float
) -> T:
    """Ask until the answer is true; past the deadline fail with the last one."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        found: T | None = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last answer: {found!r}")
        await asyncio.sleep(_POLL)


@dataclass(frozen=True)
class Account:
    """A ServiceAccount: a user of its own in the audit log."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """As the API server calls it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


@cache
def _rendered_rights(home: str, namespaces: tuple[str, ...]) -> str:
    """Roles and bindings of the chart that serves `namespaces` from `home`, as Helm renders them."""
    helm = [sys.executable, "-m", "cos_testbed", "path", "helm"]
    path = subprocess.run(helm, stdout=subprocess.PIPE, text=True, check=True, timeout=1800).stdout.strip()
    values = json.dumps({"watch": {"namespaces": namespaces}})
    command = [path, "template", RELEASE, str(CHART), f"--namespace={home}", "--values=-"]
    return subprocess.run(
        command, input=values, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout


def chart_rights(home: str, namespaces: Sequence[str], accounts: Sequence[Account]) -> list[Manifest]:
    """The Roles and RoleBindings of an installation in `home` that serves `namespaces`, for these accounts."""
    rights = [
        obj
        for obj in yaml.safe_load_all(_rendered_rights(home, tuple(namespaces)))
        if obj and obj["kind"] in {"Role", "RoleBinding"}
    ]
    subjects = [{"kind": "ServiceAccount", "namespace": a.namespace, "name": a.name} for a in accounts]
    for obj in rights:
        if obj["kind"] == "RoleBinding":
            obj["subjects"] = subjects
    return rights


def rules_of(rights: Sequence[Manifest], namespace: str, name: str = RELEASE) -> list[Manifest]:
    """The rules, to be read or changed, of one Role."""
    (role,) = (
        obj
        for obj in rights
        if obj["kind"] == "Role"
        and (obj["metadata"]["namespace"], obj["metadata"]["name"]) == (namespace, name)
    )
    rules: list[Manifest] = role["rules"]
    return rules


def small_stack(namespace: str, name: str, **redis: Any) -> Manifest:
    """A stack of one Redis whose pod no node takes."""
    return {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"redis": {"scheduling": NOWHERE, **redis}},
    }


def apply_all(kubectl: Kubectl, objects: Sequence[Mapping[str, Any]]) -> None:
    """What a person does with a file of manifests."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "-f", "-", stdin=json.dumps(listed))


def create_accounts(kubectl: Kubectl, *accounts: Account) -> None:
    """Accounts without any rights yet."""
    apply_all(
        kubectl,
        [
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"namespace": account.namespace, "name": account.name},
            }
            for account in accounts
        ],
    )


def token_of(kubectl: Kubectl, account: Account) -> str:
    """A token by TokenRequest, good for an hour."""
    return kubectl("-n", account.namespace, "create", "token", account.name)


def write_kubeconfig(apiserver: str, path: Path, **user: str) -> str:
    """A kubeconfig like the administrator's for another user, given as `token=` or `tokenFile=`."""
    config = json.loads(Path(apiserver).read_text())
    config["users"][0]["user"] = user
    path.write_text(json.dumps(config))
    return str(path)


@dataclass
class OperatorProcess:
    """The operator as a process of its own: ``with OperatorProcess(…) as operator``.

    `directory` gets its log, `environment` is added to what it needs anyway. On the way out it is killed, unless it
    has ended.
    """

    name: str
    directory: Path
    kubeconfig: str
    home: str
    namespaces: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = PROGRAM

    def __enter__(self) -> Self:
        self.log = self.directory / f"{self.name}.log"
        own = {
            "COS_NAMESPACES": ",".join(self.namespaces),
            "COS_KUBECONFIG": self.kubeconfig,
            "COS_LEASE_NAMESPACE": self.home,
            "COS_LEASE_NAME": RELEASE,
            "COS_IDENTITY": self.name,
            "COS_HTTP_HOST": "127.0.0.1",
            "COS_HTTP_PORT": "0",
        }
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                self.program, stderr=out, stdout=out, env={**os.environ, **own, **self.environment}
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a frozen process has not."""
        return self.process.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether it is stopped, by the kernel's account."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def freeze(self) -> None:
        """Stop it where it is; the kernel goes on with what it has sent."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        self.process.send_signal(signal.SIGCONT)

    async def ends(self, seconds: float = _STOP_SECONDS) -> int:
        """Wait for its end; the exit code."""
        await eventually(f"{self.name} ends", lambda: not self.alive, seconds)
        return self.process.wait()

    def lines(self) -> Iterator[Manifest]:
        """What it has logged so far; raw text (a traceback of the interpreter) as the event of a line."""
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                yield {"event": line}

    def said(self, *words: str) -> list[str]:
        """Its log lines, as JSON text, that have all these words."""
        found = (json.dumps(line) for line in self.lines())
        return [line for line in found if all(word in line for word in words)]

    async def says(self, *words: str, seconds: float) -> str:
        """Wait for a log line with all these words."""
        found = await eventually(f"{self.name} says {words}", lambda: self.said(*words), seconds)
        return found[0]

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of its own endpoint; 0 while it does not answer."""
        port = next((line["port"] for line in self.lines() if "health and metrics" in line["event"]), None)
        if port is None:
            return 0, ""
        limit = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(f"http://127.0.0.1:{port}{path}") as response,
            ):
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def readiness(self) -> tuple[int, Manifest]:
        """Status and body of `/readyz`."""
        status, body = await self.get("/readyz")
        return status, json.loads(body or "{}")

    async def metric(self, name: str) -> float | None:
        """The value of a metric without labels."""
        _, body = await self.get("/metrics")
        values = [line.split()[1] for line in body.splitlines() if line.startswith(f"{name} ")]
        return float(values[0]) if values else None

    async def is_ready_as(self, role: str) -> bool:
        """Whether it is ready, and says that it leads or stands by: ``leader`` or ``standby``."""
        status, body = await self.readiness()
        return status == 200 and body["role"] == role

"""What the shell observed, as frozen data: the input of every decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from cos_controllers.api.backup import StackBackup
from cos_controllers.api.probe import StackProbe
from cos_controllers.api.restore import StackRestore
from cos_controllers.api.status import GateName, Reason
from cos_controllers.credentials import Credentials
from cos_controllers.hashing import digest
from cos_controllers.k8s import Manifest


class Ref(NamedTuple):
    """An object of the stack's namespace."""

    kind: str
    name: str


def ref_of(obj: Manifest) -> Ref:
    """The reference of an object that carries its kind."""
    return Ref(obj["kind"], obj["metadata"]["name"])


class Problem(NamedTuple):
    """Why something cannot be as the spec asks, in words that name the fix."""

    reason: Reason
    message: str


class Outcome(StrEnum):
    """What an engine answered to its own protocol, with the application's credentials."""

    SERVING = "Serving"
    READ_ONLY = "ReadOnly"
    """It answers and refuses writes."""
    CREDENTIALS_REFUSED = "CredentialsRefused"
    """It answers and does not know the application's user, password or database."""
    NOT_ANSWERING = "NotAnswering"
    """No answer within the time limit, or not the engine's protocol."""


@dataclass(frozen=True)
class CheckResult:
    """Answer of one engine; `message` is for a person and holds no secret."""

    outcome: Outcome
    message: str = ""


class Usage(NamedTuple):
    """How much of something is taken, and of how much: connections, or bytes."""

    used: int
    limit: int


@dataclass(frozen=True)
class Facts:
    """What an engine was found to be like. None: it was not asked, or did not say; then `unknown` may say why.

    `serving`: "" if it does what it is for (a value was written, read back and deleted; every pod of a proxy
    answered), else what it said.
    `troubles`: what is wrong by the engine's own account, nothing if it is healthy.
    `configuration`: what it reports of `Expectation.configuration`.
    `connections`: those of applications, against how many they may have; `storage`: bytes of its volume.
    `routes`: by route, "" if it answered, else what came instead; None if it waits for its component.
    `archive`: "" if its log reaches its repository in time, else since when it does not.
    """

    serving: str | None = None
    troubles: tuple[str, ...] | None = None
    configuration: Mapping[str, str] | None = None
    connections: Usage | None = None
    storage: Usage | None = None
    routes: Mapping[str, str | None] | None = None
    archive: str | None = None
    unknown: str = ""


class RouteTarget(NamedTuple):
    """A route to try: by its `host` ("" for any) and `path`. `component`: the store behind it, "" if none."""

    name: str
    host: str
    path: str
    component: str


@dataclass(frozen=True)
class Expectation:
    """What an engine is to be like: the gates that it has, and what is known of them beforehand.

    `configuration`: values by name, as the engine writes them; `reloads`: whether it reads them while it runs.
    `otherwise`: why it cannot have them in force, "" if it can. `capacity`: bytes of its volume.
    """

    gates: tuple[GateName, ...] = ()
    configuration: Mapping[str, str] = field(default_factory=dict)
    reloads: bool = False
    otherwise: str = ""
    capacity: int | None = None
    routes: tuple[RouteTarget, ...] = ()

    @property
    def rendering(self) -> str:
        """A hash of the configuration."""
        return digest(dict(self.configuration))


@dataclass(frozen=True)
class CheckTarget:
    """An engine to ask: `host` is an IP address, so that cluster DNS has no part in the answer.

    `credentials` is None for engines without accounts; `database` is the application's own, "" without. `pods`: the
    addresses of the pods that are ready, by UID.
    """

    component: str
    engine: str
    host: str
    port: int
    credentials: Credentials | None = None
    database: str = ""
    pods: Mapping[str, str] = field(default_factory=dict)
    expected: Expectation = field(default_factory=Expectation)


class WarningEvent(NamedTuple):
    """A warning that Kubernetes wrote about an object."""

    reason: str
    message: str


@dataclass(frozen=True)
class Snapshot:
    """Everything that was read about one stack, at about one time.

    `objects`: live objects of the names that the stack needs or that carry its labels, foreign ones included.
    `references`: Secrets that the spec names, by name; a missing one is absent here.
    `checks`: protocol answers by component; absent where no check was due.
    `facts`: what the pods that are ready were last found to be like, by component; absent if nobody has looked yet.
    `probes`: of the stack; read only if it has objectives; None if they could not be. `backups`: likewise, with
    `spec.backup`; `restores`: with `spec.backup.verification`.
    `jobs`: of backups; read only while something is stopped for one.
    `warnings`: newest warning Event by object; read only while something is not ready.
    `logs`: the last lines of the log of an engine that is starting, by component.
    `entropy`: fresh random bytes (≥ 32) from which passwords of this pass derive, if any are needed.
    """

    objects: Mapping[Ref, Manifest] = field(default_factory=dict)
    references: Mapping[str, Manifest] = field(default_factory=dict)
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    facts: Mapping[str, Facts] = field(default_factory=dict)
    probes: Sequence[StackProbe] | None = ()
    backups: Sequence[StackBackup] | None = ()
    restores: Sequence[StackRestore] | None = ()
    jobs: Sequence[Manifest] = ()
    warnings: Mapping[Ref, WarningEvent] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    entropy: bytes = b""

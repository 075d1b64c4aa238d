"""What the shell observed, as frozen data: the input of every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from cos_controllers.api.status import Reason
from cos_controllers.credentials import Credentials
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


@dataclass(frozen=True)
class CheckTarget:
    """An engine to ask: `host` is an IP address, so that cluster DNS has no part in the answer.

    `credentials` is None for engines without accounts; `database` is the application's own, "" without.
    """

    component: str
    engine: str
    host: str
    port: int
    credentials: Credentials | None = None
    database: str = ""


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
    `warnings`: newest warning Event by object; read only while something is not ready.
    `logs`: the last lines of the log of an engine that is starting, by component.
    `entropy`: fresh random bytes (≥ 32) from which passwords of this pass derive, if any are needed.
    """

    objects: Mapping[Ref, Manifest] = field(default_factory=dict)
    references: Mapping[str, Manifest] = field(default_factory=dict)
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    warnings: Mapping[Ref, WarningEvent] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    entropy: bytes = b""

"""One component as it should be: what the core decides about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cos_controllers.api.stack import EngineSpec, StoreSpec
from cos_controllers.components.assemble import Instance
from cos_controllers.components.base import Engine
from cos_controllers.credentials import Credentials
from cos_controllers.history import Failure
from cos_controllers.names import ANNOTATION_REVISION
from cos_controllers.observation import Problem, Ref, Snapshot


class Halt(NamedTuple):
    """What a component is stopped for. `backup`: name of the StackBackup, `since`: RFC 3339; "" if they are not known.

    `uid`: of the StackBackup.
    """

    uid: str
    backup: str = ""
    since: str = ""


@dataclass(frozen=True)
class Wanted:
    """One component as it should be.

    `desired` is the revision that the spec asks for, `revision` the one that is to run: an earlier one once a
    change has been taken back, for the reason in `failure`, or while the component waits for its turn. `version` is
    what is in its image. `instance` is None while a `blocker` keeps the component from being rendered; then what exists
    is left as it is. `shortfall` is a part of the spec that cannot be met while the component serves otherwise;
    `no_way_back` says why a change cannot be taken back. `halt`: what it is stopped for,
    which is no part of its revision.
    """

    engine: Engine
    component: str
    name: str
    spec: EngineSpec
    version: str
    desired: str
    revision: str
    claim: str = ""
    credentials: Credentials | None = None
    instance: Instance | None = None
    blocker: Problem | None = None
    shortfall: Problem | None = None
    failure: Failure | None = None
    no_way_back: Problem | None = None
    halt: Halt | None = None


def workload_ref(wanted: Wanted) -> Ref:
    """The StatefulSet of a component with data, the Deployment of one without."""
    return Ref("StatefulSet" if isinstance(wanted.spec, StoreSpec) else "Deployment", wanted.name)


def written_revision(wanted: Wanted, snapshot: Snapshot) -> str | None:
    """The revision of the pods that the component's workload makes; None if there is no workload."""
    workload = snapshot.objects.get(workload_ref(wanted))
    if workload is None:
        return None
    found: str | None = (workload["spec"]["template"]["metadata"].get("annotations") or {}).get(
        ANNOTATION_REVISION
    )
    return found


def is_written(wanted: Wanted, snapshot: Snapshot) -> bool:
    """Whether the component's workload makes pods of the wanted revision."""
    return written_revision(wanted, snapshot) == wanted.revision

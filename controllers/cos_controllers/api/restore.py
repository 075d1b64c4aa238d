"""`StackRestore`: data of a backup on new volumes, in the place of those that a stack has."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cos_controllers.api.backup import MAX_BACKUP_NAME, CopyStatus, Time
from cos_controllers.api.common import (
    MAX_STACK_NAME,
    ComponentName,
    OptionalComponentName,
    Sql,
    StackReference,
)
from cos_controllers.api.metadata import Metadata
from cos_controllers.api.model import ApiModel, Rule
from cos_controllers.api.status import Condition

_TIME = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"


#: To the end of the log that is kept.
LATEST = "Latest"


def _is_time(text: str) -> bool:
    """Whether it is a moment in RFC 3339 that Python reads too."""
    try:
        return re.fullmatch(_TIME, text) is not None and datetime.fromisoformat(text).timestamp() > 0
    except (ValueError, OverflowError):
        return False


class ExistingData(StrEnum):
    """What becomes of the data that a component has."""

    REFUSE = "Refuse"
    SET_ASIDE = "SetAside"


class Into(StrEnum):
    """What is filled."""

    STACK = "Stack"
    THROWAWAY = "Throwaway"


class RestoreSource(ApiModel):
    """A copy that a repository has, whoever knows of it: after the loss of a namespace, or of another stack."""

    repository: Annotated[str, Field(max_length=20)] = ""
    """Repository of the stack's `spec.backup.repositories`; the first when empty."""
    namespace: Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", max_length=63)] = ""
    """Namespace of the stack that the copy is of; that of the restore when empty."""
    stack: Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=MAX_STACK_NAME)] = ""
    """Name of the stack that the copy is of; that of `stackRef` when empty."""
    component: OptionalComponentName = ""
    """Component that the copy is of, for one restored component alone: postgres-prod, to refresh postgres-dev. That
    component itself when empty."""
    backup: Annotated[str, Field(max_length=MAX_BACKUP_NAME)] = ""
    """Name of the `StackBackup` that made it. When empty the newest that has all components, or without such a one the
    newest copy of each."""
    before: Annotated[str, Field(max_length=35)] | None = None
    """No copy of a later moment, for example 2026-11-27T14:00:00Z (RFC 3339). None that is later than the restore
    itself in any case."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            # The conversion fails on what is no time.
            cel=f"!has(self.before) || (self.before.matches('{_TIME}') && timestamp(self.before) > timestamp(0))",
            message="before must be a moment, for example 2026-11-27T14:00:00Z",
            holds=lambda self: self.before is None or _is_time(self.before),
            field_path=".before",
        ),
    )


class StackRestoreSpec(ApiModel):
    """One restore. It does not change: create another one."""

    stack_ref: StackReference
    """The `CosStack` of this namespace."""
    backup: Annotated[str, Field(max_length=MAX_BACKUP_NAME)] = ""
    """Name of the `StackBackup` of this namespace, of the same stack, whose copies are restored."""
    source: RestoreSource | None = None
    """Where to look for copies instead: in a repository, which the stack has and can decrypt. `source: {}` takes the
    newest of this very stack."""
    components: Annotated[
        list[ComponentName], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Components to restore, for example redis; all of the backup when empty."""
    into: Into = Into.STACK
    """`Stack`: new volumes of the stack, which come into use. `Throwaway`: volumes that go with the Job, for proof that
    the copies can be restored, and how long it takes: nothing of the stack changes."""
    existing_data: ExistingData = ExistingData.REFUSE
    """`SetAside`: the component's volume is exchanged for the restored one, and kept. What was written since the copy
    is on it alone. `Refuse`: a component that has run on its volume is left as it is."""
    point_in_time: Annotated[str, Field(max_length=35)] = ""
    """Of components whose log is kept (Postgres with `archive`): the moment to bring them to, for example
    2026-11-27T14:00:00Z (RFC 3339), by their log from the newest copy before it on, or from the copy of `backup`.
    `Latest`: as far as the log goes. The moment of the copy when empty."""
    sql: Sql | None = None
    """What a restored Postgres runs and is asked before it is used."""
    starting_deadline_seconds: Annotated[int, Field(ge=30, le=86400)] = 900
    """Seconds from creation until the restore of each component must have begun."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 3600
    """Seconds that each half of filling a volume may take: fetching the copy, and loading it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(has(self.backup) && self.backup != '') != has(self.source)",
            message="a restore needs exactly one of backup or source: set one and remove the other",
            holds=lambda self: bool(self.backup) != (self.source is not None),
        ),
        Rule(
            cel="!has(self.source) || !has(self.source.component) || self.source.component == '' || "
            "(has(self.components) && size(self.components) == 1)",
            message="source.component is for one component: name in components the one that is to have its data",
            holds=lambda self: self.source is None or not self.source.component or len(self.components) == 1,
            field_path=".source.component",
        ),
        Rule(
            cel="!has(self.pointInTime) || self.pointInTime == '' || self.pointInTime == 'Latest' || "
            f"(self.pointInTime.matches('{_TIME}') && timestamp(self.pointInTime) > timestamp(0))",
            message="pointInTime must be a moment, for example 2026-11-27T14:00:00Z, or Latest",
            holds=lambda self: self.point_in_time in {"", LATEST} or _is_time(self.point_in_time),
            field_path=".pointInTime",
        ),
        Rule(
            cel="self == oldSelf",
            message="a restore does not change: delete it, or create another one",
            holds=lambda _: True,
        ),
    )


class RestorePhase(StrEnum):
    """How far a restore or that of a component is, or how it ended."""

    PENDING = "Pending"
    """It waits; the message says for what."""
    RUNNING = "Running"
    """A new volume is filled, and the engine tried on it. The stack serves as before."""
    SWITCHING = "Switching"
    """The component is restarted on the new volume, and its gates are awaited."""
    SUCCEEDED = "Succeeded"
    """The component serves what was restored, and the volume before it is kept; or, into `Throwaway`, the engine was
    proved on it."""
    FAILED = "Failed"
    """It does not: the message says why. The component runs on the volume that it had."""


class RestoredStatus(ApiModel):
    """The restore of one component."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the component."""
    phase: RestorePhase = RestorePhase.PENDING
    """How far it is."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for a person, unless all is well."""
    source: CopyStatus | None = None
    """The copy that is restored, once it is chosen."""
    start_time: Time | None = None
    """When its Job was created (RFC 3339)."""
    switch_time: Time | None = None
    """When the new volume was ready to be used (RFC 3339)."""
    completion_time: Time | None = None
    """When it had ended (RFC 3339); into `Throwaway`, from `startTime` on that is how long a restore takes."""
    claim: Annotated[str, Field(max_length=253)] = ""
    """The new volume's PersistentVolumeClaim."""
    previous_claim: Annotated[str, Field(max_length=253)] = ""
    """The one before it, which is kept: delete it when nothing of it is needed any more."""
    point_in_time: Time | None = None
    """The moment of which the data is (RFC 3339)."""
    entries: int | None = None
    """How many entries the engine found on the new volume: of Redis, keys; of Elasticsearch, documents; of Neo4j, the
    number of the last transaction; of Postgres, the position in its log (LSN)."""
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """How much of the copy has been fetched, while it runs."""


class StackRestoreStatus(ApiModel):
    """The observed state of a restore."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status speaks of."""
    phase: RestorePhase = RestorePhase.PENDING
    """How far it is: as far as the component that is least so."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for a person."""
    repository: Annotated[str, Field(max_length=20)] = ""
    """The repository in which the copies are."""
    start_time: Time | None = None
    """When the first Job was created (RFC 3339)."""
    completion_time: Time | None = None
    """When all had ended (RFC 3339)."""
    conditions: Annotated[
        list[Condition], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["type"]})
    ] = []
    """`Complete`: it has ended, in whatever phase."""
    components: Annotated[
        list[RestoredStatus], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """A row per component."""


class StackRestore(ApiModel):
    """Puts a `CosStack` back to the data of a `StackBackup`: on new volumes; those that it has are kept."""

    api_version: str
    kind: Literal["StackRestore"]
    metadata: Metadata
    spec: StackRestoreSpec
    status: StackRestoreStatus = StackRestoreStatus()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"size(self.metadata.name) <= {MAX_BACKUP_NAME}",
            message=f"metadata.name must be at most {MAX_BACKUP_NAME} characters: it labels Jobs",
            holds=lambda self: len(self.metadata.name) <= MAX_BACKUP_NAME,
        ),
    )

"""Status of a `CosStack`: conditions in the kstatus convention and a row per component."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cos_controllers.api.model import ApiModel


class ConditionStatus(StrEnum):
    """Whether a condition holds. Silence is `Unknown`, never `True`."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """What `kubectl wait --for=condition=…` can wait for."""

    READY = "Ready"
    """Every component serves what the spec asks for."""
    AVAILABLE = "Available"
    """Every component serves, perhaps still with an earlier configuration."""
    RECONCILING = "Reconciling"
    """A change is under way."""
    STALLED = "Stalled"
    """Nothing will change until a person acts; the message says what to do."""
    GATES_PASSED = "GatesPassed"
    """Every gate of every component passes. It decides neither Ready nor Available."""
    SLO_MET = "SLOMet"
    """Every objective of `spec.slo` is met; absent without that."""
    BACKUP_HEALTHY = "BackupHealthy"
    """Every component with data has a good copy, the newest attempt succeeded, and the key is kept elsewhere; absent
    without `spec.backup`."""
    COMPLETE = "Complete"
    """Of a `StackProbe`, `StackBackup` or `StackRestore`: it has ended, in whatever phase."""


class Verdict(StrEnum):
    """What a gate says."""

    PASSED = "Passed"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    """Not asked, not answered, or not to be known yet: the message says which. Silence never passes."""


class GateName(StrEnum):
    """What the operator asks a component again and again. The docs are made from the meanings here."""

    SERVING = "Serving"
    """The engine answers with the application's credentials, and a value that the operator writes is read back and
    deleted."""
    HEALTH = "Health"
    """What the engine says of its own state: databases online, the log written, no corruption met, primaries
    assigned."""
    CONFIGURATION_IN_FORCE = "ConfigurationInForce"
    """The engine reports the configuration that was rendered for it: what it runs with, not what was written."""
    CONNECTION_HEADROOM = "ConnectionHeadroom"
    """Less than 80 % of the connections for applications are taken. Once failed it passes again below 75 %."""
    STORAGE_HEADROOM = "StorageHeadroom"
    """Less than 80 % of the volume is taken, as far as the engine knows. Once failed it passes again below 75 %."""
    ROUTES_ANSWER = "RoutesAnswer"
    """Each route answers a request through Traefik: neither 502, 503 nor 504, and within four seconds. Asked after
    the stores: a route to one that does not serve waits for it."""


class Reason(StrEnum):
    """Why a component or a condition is as it is. Each has its meaning here, from which the docs are made."""

    SERVING = "Serving"
    """The engine answers its own protocol with its credentials."""
    CREATING = "Creating"
    """Objects of the component are being made."""
    STARTING = "Starting"
    """The pod runs and the engine is not ready yet."""
    NOT_STARTING = "NotStarting"
    """The engine has not served within `progressDeadlineSeconds`: see the message and the pod's log."""
    RESTARTING = "Restarting"
    """The pod is being replaced, to bring a change into force."""
    PROVISIONING = "Provisioning"
    """The engine serves; its application user or database is being made."""
    BACKING_UP = "BackingUp"
    """The engine is stopped while a backup reads its data, as `allowDowntime` of the backup says; or starts again after
    that."""
    WAITING = "Waiting"
    """A change is under way, or waits until another component serves: one is restarted at a time."""
    PAUSED = "Paused"
    """`spec.paused` stops all changes."""
    UNSCHEDULABLE = "Unschedulable"
    """No node can take the pod: compare its requests and scheduling with the nodes."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The image cannot be pulled: check version, image, registry and pull secrets."""
    CRASH_LOOPING = "CrashLooping"
    """The engine ends again and again: see its log."""
    CONTAINER_FAILED = "ContainerFailed"
    """The container cannot be started: see the message of kubelet."""
    POD_REFUSED = "PodRefused"
    """The pod cannot be created: admission (Pod Security, quota, a webhook) refuses it."""
    VOLUME_PENDING = "VolumePending"
    """The volume is not bound: check storageClassName and the provisioner."""
    VOLUME_RESIZING = "VolumeResizing"
    """The volume grows; the engine serves meanwhile."""
    GROWTH_REFUSED = "GrowthRefused"
    """The volume's StorageClass does not let it grow: write the old size back."""
    VOLUME_LOST = "VolumeLost"
    """The data volume is gone: restore it, or delete the StatefulSet to begin with an empty one."""
    VOLUME_TERMINATING = "VolumeTerminating"
    """The data volume is deleted as soon as its pod ends, so the pod is left alone: copy the data away now."""
    STORAGE_CLASS_FIXED = "StorageClassFixed"
    """A volume keeps its StorageClass: write the old one back."""
    SHRINK_REFUSED = "ShrinkRefused"
    """A volume cannot shrink: write the old size back, or a larger one."""
    HELD_BACK = "HeldBack"
    """The component runs as before: another one did not serve with its part of this spec, which must be corrected
    first."""
    NOT_ANSWERING = "NotAnswering"
    """The pod is ready and the engine does not answer through its Service."""
    CREDENTIALS_REFUSED = "CredentialsRefused"
    """The engine refuses the operator's credentials: someone changed them behind its back."""
    READ_ONLY = "ReadOnly"
    """The engine answers and refuses writes."""
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
    """A Secret that the spec names does not exist: create it."""
    SECRET_INVALID = "SecretInvalid"  # noqa: S105 - a reason
    """A Secret that the spec names lacks a key or holds an unusable value."""
    ROLLED_BACK = "RolledBack"
    """A change did not serve in time and the last good revision runs again: correct the spec, or write the old one
    back."""
    ROLLBACK_REFUSED = "RollbackRefused"
    """A change does not serve, and the last good revision may not run on the volume any more: see the message."""
    VERSION_REFUSED = "VersionRefused"
    """The version may not run on the volume as it is: the message names the way out."""
    NAME_CONFLICT = "NameConflict"
    """An object of a name that the stack needs belongs to someone else: rename or remove it."""
    APPLY_REFUSED = "ApplyRefused"
    """The API server refuses an object: the message says which and why."""
    INVALID_SPEC = "InvalidSpec"
    """The stored spec breaks a rule that is newer than it: the message names the field."""
    API_UNAVAILABLE = "ApiUnavailable"
    """The API server could not be read or written; tried again."""
    GATES_PASSED = "GatesPassed"
    """Every gate of every component passes."""
    GATE_FAILED = "GateFailed"
    """A gate of a component fails: the message names it and says why."""
    GATE_UNKNOWN = "GateUnknown"
    """No gate fails, and one is not known: the message names it and says what it waits for."""
    OBJECTIVES_MET = "ObjectivesMet"
    """Every objective of `spec.slo` is met by the newest measurements."""
    OBJECTIVE_MISSED = "ObjectiveMissed"
    """An objective of `spec.slo` is missed in too many of the newest measurements: the message has the figures."""
    OBJECTIVE_UNKNOWN = "ObjectiveUnknown"
    """No objective is missed, and of one it is not known: the message says why."""
    BACKED_UP = "BackedUp"
    """Every component with data has a good copy, and the key is kept elsewhere."""
    NOT_BACKED_UP = "NotBackedUp"
    """A component has no good copy, or is of an engine of which there are none: the message says which."""
    BACKUP_FAILED = "BackupFailed"
    """The newest copy of a component failed: the message says why."""
    ARCHIVING_FAILED = "ArchivingFailed"
    """The log of a component has not reached its repository for five minutes: the message says what is kept back. It
    fills the volume, and nothing after that moment can be restored."""
    BACKUP_LATE = "BackupLate"
    """Two times of a schedule, or of the verification, have passed since its newest that succeeded: the message says
    which."""
    VERIFICATION_FAILED = "VerificationFailed"
    """The newest verification did not find that the newest copies can be restored: the message says why."""
    REPOSITORY_UNSOUND = "RepositoryUnsound"
    """A repository was not found whole, or could not be looked after: the message says why."""
    BACKUP_UNKNOWN = "BackupUnknown"
    """The backups of the stack could not be read."""
    KEY_NOT_ESCROWED = "KeyNotEscrowed"
    """The key that encrypts the backups was generated and is nowhere else: keep a copy outside of the cluster, and say
    so by the command in the message."""


class Condition(ApiModel):
    """A condition in the shape of metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """Type of the condition."""
    status: ConditionStatus
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=1024)]
    """One word for why."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """A sentence for a person."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec that was judged."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When `status` changed last (RFC 3339)."""


class Binding(ApiModel):
    """Where applications find their credentials."""

    name: str
    """Name of the Secret (Service Binding layout)."""


class GateStatus(ApiModel):
    """What a gate said last."""

    name: GateName
    """Name of the gate."""
    verdict: Verdict
    """Whether it passes."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for a person, unless it passes. It holds no figures that move: those are metrics."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the verdict changed last (RFC 3339)."""


class ComponentStatus(ApiModel):
    """What one component is like."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the component, for example postgres-prod."""
    ready: bool = False
    """Whether it serves what the spec asks for."""
    version: str | None = None
    """Version of the engine in the spec."""
    endpoint: str | None = None
    """Host and port of its Service."""
    binding: Binding | None = None
    """The Secret for applications."""
    desired_revision: str | None = None
    """Revision that the spec asks for: a hash of all that makes the component's pod."""
    effective_revision: str | None = None
    """Revision of the pod that runs."""
    serving_since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Since when `effectiveRevision` has served, as far as the operator has seen (RFC 3339); absent while it does
    not. After ten seconds it is known to be good."""
    last_good_revision: str | None = None
    """Newest revision that served, to which a failed change is taken back."""
    failed_revision: str | None = None
    """Revision that was taken back, as long as the spec asks for it."""
    taken_back_revisions: Annotated[list[str], Field(max_length=256)] = []
    """Revisions that were taken back, of those in the history: nothing is compared with them."""
    last_progress_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When the component last got on with a revision that does not serve yet (RFC 3339): the deadline counts
    from here."""
    progress: str | None = None
    """How far the engine says that it is, for example the position in the log that it replays."""
    reason: str
    """One word for why."""
    message: str = ""
    """A sentence for a person."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When `reason` changed last (RFC 3339)."""
    gates: Annotated[
        list[GateStatus], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """What is asked of the component beyond whether it answers."""


class ObjectiveStatus(ApiModel):
    """How it stands with one objective."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the objective."""
    verdict: Verdict
    """Whether it is met."""
    target: str
    """The objective in words."""
    measured: str = ""
    """The newest measurement; "" without one."""
    probe: str = ""
    """The `StackProbe` that measured it."""
    failures: int = 0
    """How many of the measurements that count miss it."""
    measurements: int = 0
    """How many measurements count, at most those of its window."""
    dry_run: bool = False
    """Whether it has no part in `SLOMet`."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for a person, unless it is met."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the verdict changed last (RFC 3339)."""


class RetainedVolume(ApiModel):
    """A volume that is kept although nothing runs on it."""

    component: Annotated[str, Field(max_length=63)]
    """The component, which is not in the spec any more, or was restored to another volume."""
    claim: Annotated[str, Field(max_length=253)]
    """Name of the PersistentVolumeClaim."""


class CosStackStatus(ApiModel):
    """The observed state of a stack."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status speaks of."""
    revision: int | None = None
    """Number of the ControllerRevision that holds the present spec."""
    summary: str | None = None
    """Ready components of all, for example 6/6."""
    conditions: Annotated[
        list[Condition], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["type"]})
    ] = []
    """Ready, Available, Reconciling, Stalled, GatesPassed; SLOMet with `spec.slo`, BackupHealthy with `spec.backup`."""
    components: Annotated[
        list[ComponentStatus], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """A row per component."""
    objectives: Annotated[
        list[ObjectiveStatus], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """A row per objective of `spec.slo`."""
    retained: Annotated[
        list[RetainedVolume], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["claim"]})
    ] = []
    """Volumes kept of removed components, and of restored ones those that they had."""

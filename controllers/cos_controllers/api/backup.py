"""`spec.backup` of a stack, and `StackBackup`: one copy of the data of its components in a repository."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cos_controllers.api.common import (
    ComponentName,
    LocalReference,
    ResourceList,
    Resources,
    StackReference,
    Storage,
)
from cos_controllers.api.metadata import Metadata
from cos_controllers.api.model import ApiModel, Rule
from cos_controllers.api.schedule import Maintenance, Schedule, Verification
from cos_controllers.api.status import Condition

#: The value of a label.
MAX_BACKUP_NAME = 63

_ENDPOINT = "^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$"
_BUCKET = "^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$"
_PREFIX = "^([A-Za-z0-9_][-A-Za-z0-9._]*(/[A-Za-z0-9_][-A-Za-z0-9._]*)*)?$"
_REGION = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

RepositoryName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$", max_length=20)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class S3(ApiModel):
    """A bucket of a service that speaks S3. Make it beforehand where it is to keep anything of Postgres."""

    endpoint: Annotated[str, Field(max_length=270)]
    """URL of the service without a path, for example https://s3.eu-central-1.amazonaws.com."""
    bucket: Annotated[str, Field(max_length=63)]
    """Name of the bucket."""
    region: Annotated[str, Field(max_length=63)] = "us-east-1"
    """Region that requests are signed for."""
    prefix: Annotated[str, Field(max_length=256)] = ""
    """Path in the bucket below which everything is kept."""
    credentials_secret_ref: LocalReference
    """Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and with `ca.crt` where the service's certificate
    is of an authority of your own."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.endpoint.matches('{_ENDPOINT}')",
            message="endpoint must be a URL of scheme, host and port only, for example https://s3.example.com:9000",
            holds=lambda self: re.fullmatch(_ENDPOINT, self.endpoint) is not None,
            field_path=".endpoint",
        ),
        Rule(
            cel=f"self.bucket.matches('{_BUCKET}')",
            message="bucket must be 3 to 63 lower-case letters, digits, dots and dashes",
            holds=lambda self: re.fullmatch(_BUCKET, self.bucket) is not None,
            field_path=".bucket",
        ),
        Rule(
            cel=f"!has(self.region) || self.region.matches('{_REGION}')",
            message="region must be lower-case letters, digits and dashes, for example eu-central-1",
            holds=lambda self: re.fullmatch(_REGION, self.region) is not None,
            field_path=".region",
        ),
        Rule(
            cel=f"!has(self.prefix) || self.prefix.matches('{_PREFIX}')",
            message="prefix must be a path without / at its ends, for example backups/prod",
            holds=lambda self: re.fullmatch(_PREFIX, self.prefix) is not None,
            field_path=".prefix",
        ),
    )


class Repository(ApiModel):
    """A place that keeps backups, always encrypted."""

    name: RepositoryName
    """Name of the repository."""
    volume: Storage | None = None
    """Volumes of this cluster, one for each component: they survive the stack, and not their storage."""
    s3: S3 | None = None
    """A bucket."""
    encryption_key_secret_ref: LocalReference | None = None
    """Secret whose key `key` encrypts everything, at least 16 characters; one that is generated when absent. Without it
    no backup can be read."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.volume) != has(self.s3)",
            message="a repository needs exactly one of volume or s3: set one and remove the other",
            holds=lambda self: (self.volume is None) != (self.s3 is None),
        ),
    )


def named(repositories: Sequence[Repository], name: str) -> Repository | None:
    """The repository of this name, the first for ""; None if there is none."""
    return next((item for item in repositories if not name or item.name == name), None)


class Archive(ApiModel):
    """Where the log of an instance goes while it serves, which its backups need and which leads to any moment."""

    repository: Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?)?$", max_length=20)] = ""
    """Repository of `spec.backup.repositories` that keeps the log and the backups of this instance; the first when
    empty. A bucket must be reached by https, and have no dots in its name."""
    timeout_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """Seconds after which a part of the log is sent that is not full yet: with the volume, so much is lost at most."""


class Backup(ApiModel):
    """Where backups of the stack are kept, and what they may take."""

    repositories: Annotated[
        list[Repository],
        Field(min_length=1, max_length=4, json_schema_extra={"x-list-map-keys": ["name"]}),
    ]
    """Repositories. A `StackBackup` that names none is kept in the first."""
    schedules: Annotated[
        list[Schedule], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """Backups that are made by themselves, and how long they are kept."""
    maintenance: Maintenance = Maintenance()
    """When repositories are looked after."""
    verification: Verification | None = None
    """When the newest copies are restored for proof, and thrown away again; never when absent."""
    resources: Resources = Resources(
        requests=ResourceList(cpu="10m", memory="128Mi"), limits=ResourceList(memory="512Mi")
    )
    """Compute resources of what stores and fetches. The engine's own tools have those of the engine, and request of the
    processor what is requested here: little, so that a copy takes what others leave."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.schedules) || self.schedules.all(s, !has(s.repository) || s.repository == '' || "
            "self.repositories.exists(r, r.name == s.repository))",
            message="a schedule names a repository that is not in repositories: add it or change the schedule",
            holds=lambda self: (
                {item.repository for item in self.schedules}
                <= {"", *(item.name for item in self.repositories)}
            ),
            field_path=".schedules",
        ),
        Rule(
            cel="!has(self.verification) || !has(self.verification.repository) || "
            "self.verification.repository == '' || self.repositories.exists(r, r.name == self.verification.repository)",
            message="verification names a repository that is not in repositories: add it or change verification",
            holds=lambda self: (
                self.verification is None
                or self.verification.repository in {"", *(item.name for item in self.repositories)}
            ),
            field_path=".verification",
        ),
    )


class StackBackupSpec(ApiModel):
    """One backup. It does not change: create another one."""

    stack_ref: StackReference
    """The `CosStack` of this namespace."""
    repository: Annotated[str, Field(max_length=20)] = ""
    """Repository of `spec.backup.repositories`; the first when empty."""
    components: Annotated[
        list[ComponentName], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Components to back up, for example redis; all that can be when empty."""
    allow_downtime: bool = False
    """Whether components may be stopped for as long as they are read: Neo4j Community cannot be copied otherwise."""
    starting_deadline_seconds: Annotated[int, Field(ge=30, le=86400)] = 900
    """Seconds from creation until the copy of each component must have begun: until it serves, and nothing else is done
    to its data."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 3600
    """Seconds that each half of a copy may take: reading the data from the engine, and storing it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self == oldSelf",
            message="a backup does not change: delete it, or create another one",
            holds=lambda _: True,
        ),
    )


class BackupPhase(StrEnum):
    """How far a backup or the copy of a component is, or how it ended."""

    PENDING = "Pending"
    """It waits; the message says for what."""
    RUNNING = "Running"
    """Its Job copies the data."""
    SUCCEEDED = "Succeeded"
    """All of it is in the repository."""
    FAILED = "Failed"
    """It is not, or not all of it: the message says why."""
    EXPIRED = "Expired"
    """Its schedule keeps it no longer: it is removed from the repository with the next copy, and then itself."""


class CopyStatus(ApiModel):
    """The copy of one component."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the component."""
    phase: BackupPhase = BackupPhase.PENDING
    """How far it is."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for a person, unless all is well."""
    start_time: Time | None = None
    """When its Job was created (RFC 3339)."""
    halt_time: Time | None = None
    """Since when the component was stopped for it (RFC 3339); absent if it serves meanwhile."""
    resume_time: Time | None = None
    """When all of its data had been read, so that it could be started again (RFC 3339)."""
    completion_time: Time | None = None
    """When it had ended (RFC 3339)."""
    lineage: Annotated[str, Field(max_length=63)] = ""
    """UID of the data volume, below whose name everything of it is kept: a volume that was restored begins another
    lineage."""
    path: Annotated[str, Field(max_length=1024)] = ""
    """Where in the repository it is."""
    place: Annotated[str, Field(max_length=1024)] = ""
    """Which repository it is in, whatever the stack calls it: endpoint, bucket and prefix, or the UID of a claim."""
    snapshot: Annotated[str, Field(max_length=64)] = ""
    """What the tool calls it: of restic, the snapshot's id; of pgBackRest, the backup's label."""
    engine_version: Annotated[str, Field(max_length=32)] = ""
    """Version of the engine that the data is of."""
    point_in_time: Time | None = None
    """The moment of which the data is (RFC 3339)."""
    bytes: int | None = None
    """Size of the data as it was copied."""
    stored_bytes: int | None = None
    """What it added to the repository, compressed and encrypted."""
    entries: int | None = None
    """How many entries it holds: of Redis, keys; of Elasticsearch, documents, counted once it was made; of Neo4j, the
    number of its last transaction; of Postgres, the position in its log (LSN) at its end."""
    sha256: Annotated[str, Field(max_length=64)] = ""
    """Checksum of the data; of Postgres none, since pgBackRest has one of each file."""
    key_fingerprint: Annotated[str, Field(max_length=64)] = ""
    """Names the key that encrypts it, and does not tell it: compare it with that of another copy."""
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """How much of it has been read, while it runs."""
    remaining_seconds: int | None = None
    """How long the rest may take at the rate so far, while it runs."""
    removed: int | None = None
    """How many copies were removed from the repository with it, which their schedules keep no longer."""
    maintained: Time | None = None
    """When this component's part of the repository was last found whole, and space was given back (RFC 3339); with this
    copy or an earlier one."""
    read_part: int = 0
    """The part of the repository's data that was last read and found whole, by this copy or an earlier one."""
    maintenance_failure: Annotated[str, Field(max_length=1024)] = ""
    """Why the newest attempt to remove copies or to look after the repository failed. The copy is good all the same."""


class StackBackupStatus(ApiModel):
    """The observed state of a backup."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status speaks of."""
    phase: BackupPhase = BackupPhase.PENDING
    """How far it is. It has succeeded once every component of it is copied, and never before."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for a person."""
    repository: Annotated[str, Field(max_length=20)] = ""
    """The repository in which it is kept."""
    stack_revision: int | None = None
    """Number of the stack's ControllerRevision when it began."""
    start_time: Time | None = None
    """When the first copy began (RFC 3339)."""
    completion_time: Time | None = None
    """When the last one had ended (RFC 3339)."""
    skew_seconds: int | None = None
    """Between the earliest and the latest moment of which its data is."""
    conditions: Annotated[
        list[Condition], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["type"]})
    ] = []
    """`Complete`: it has ended, in whatever phase."""
    components: Annotated[
        list[CopyStatus], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """A row per component."""


class StackBackup(ApiModel):
    """A copy of the data of a `CosStack` in one of its repositories: all of its components, or some."""

    api_version: str
    kind: Literal["StackBackup"]
    metadata: Metadata
    spec: StackBackupSpec
    status: StackBackupStatus = StackBackupStatus()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"size(self.metadata.name) <= {MAX_BACKUP_NAME}",
            message=f"metadata.name must be at most {MAX_BACKUP_NAME} characters: it labels Jobs",
            holds=lambda self: len(self.metadata.name) <= MAX_BACKUP_NAME,
        ),
    )

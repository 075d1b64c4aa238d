"""`CosStack`: the six services of one stack, each optional."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cos_controllers.api import reserved
from cos_controllers.api.backup import Archive, Backup, Repository, named
from cos_controllers.api.common import (
    IMAGE_FORM,
    MAX_STACK_NAME,
    Images,
    LocalReference,
    Parameters,
    PodMetadata,
    ResourceList,
    Resources,
    Storage,
    StringMap,
)
from cos_controllers.api.metadata import Metadata
from cos_controllers.api.model import ApiModel, Rule
from cos_controllers.api.probe import Probes
from cos_controllers.api.quantity import is_positive_quantity, parse_quantity
from cos_controllers.api.scheduling import Scheduling
from cos_controllers.api.slo import Slo
from cos_controllers.api.status import CosStackStatus

HOST_FORM = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
#: The name of a StatefulSet, ``<stack>-postgres-<name>``, must leave room for a hash in a label of its pods: 52.
MAX_NAME_WITH_POSTGRES = 42
ENGINES = ("postgres", "redis", "elasticsearch", "neo4j", "traefik")


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def _reserved_rule(field: str, names: Sequence[str], prefixes: Sequence[str] = ()) -> Rule:
    """No key of the map `field` may be one that the operator owns."""
    listed = ", ".join(f"'{name}'" for name in names)
    starts = "".join(f" || k.startsWith('{prefix}')" for prefix in prefixes)
    said = ", ".join([*names, *(f"{prefix}*" for prefix in prefixes)])
    return Rule(
        cel=f"!has(self.{field}) || !self.{field}.exists(k, k in [{listed}]{starts})",
        message=f"{field} must not set what the operator owns; remove any of: {said}",
        holds=lambda self: (
            not any(key in names or key.startswith(tuple(prefixes)) for key in getattr(self, field))
        ),
        field_path=f".{field}",
    )


def _shape_rule(field: str, pattern: str, example: str) -> Rule:
    """Keys of the map `field` are names as the engine writes them; values stay on one line."""
    form = re.compile(pattern)
    return Rule(
        cel=f"!has(self.{field}) || self.{field}.all(k, k.matches('{pattern}') && "
        f"self.{field}[k].matches('^[^[:cntrl:]]*$'))",
        message=f"{field} must be names in lower case with values on one line, for example {example}",
        holds=lambda self: all(
            form.fullmatch(key) and re.fullmatch(r"[^\x00-\x1f\x7f]*", value)
            for key, value in getattr(self, field).items()
        ),
        field_path=f".{field}",
    )


def _memory_rule(minimum: str, reason: str) -> Rule:
    """`resources.limits.memory` is set and large enough for what derives from it."""
    return Rule(
        cel="has(self.resources.limits.memory) && (!isQuantity(string(self.resources.limits.memory)) || "
        f"quantity(string(self.resources.limits.memory)).compareTo(quantity('{minimum}')) >= 0)",
        message=f"resources.limits.memory must be set to {minimum} or more: {reason}",
        holds=lambda self: (
            self.resources.limits.memory is not None
            and is_positive_quantity(self.resources.limits.memory)
            and parse_quantity(self.resources.limits.memory) >= parse_quantity(minimum)
        ),
        field_path=".resources.limits.memory",
    )


class EngineSpec(ApiModel):
    """What every engine instance has."""

    image: Annotated[str, Field(max_length=512)] | None = None
    """Image (by tag or digest) in place of the one that `version` names. Unless its tag is a version of the engine,
    write in `version` what is in it: what may run on the volume is decided by that."""
    resources: Resources
    """Compute resources of the engine's container."""
    scheduling: Scheduling = Scheduling()
    """Where the pod may run."""
    pod_metadata: PodMetadata = PodMetadata()
    """Labels and annotations added to the pod."""

    version: str

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!has(self.image) || self.image.matches('{IMAGE_FORM}')",
            message="image must be a reference such as registry.example.com/redis:8.0, or be left out",
            holds=lambda self: self.image is None or _matches(IMAGE_FORM, self.image),
            field_path=".image",
        ),
    )

    live_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that come into force without a new pod: they are no part of a component's revision."""


class StoreSpec(EngineSpec):
    """What every engine with data of its own has."""

    live_fields: ClassVar[frozenset[str]] = frozenset({"storage", "auth_secret_ref"})

    storage: Storage
    """The data volume."""
    auth_secret_ref: LocalReference | None = None
    """Secret whose key `password` becomes the application's password; generated when absent."""


class PostgresSpec(StoreSpec):
    """One Postgres instance."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]{1,15}$", max_length=15)]
    """Name of the instance: lower-case letters and digits."""
    version: Annotated[str, Field(pattern=r"^17(\.[0-9]+)?$", max_length=16)] = "17"
    """Postgres version: 17, or a minor of it such as 17.5."""
    storage: Storage = Storage(size="1Gi")
    """The data volume."""
    resources: Resources = Resources(
        requests=ResourceList(cpu="100m", memory="256Mi"), limits=ResourceList(memory="512Mi")
    )
    """Compute resources; `shared_buffers` derives from the memory limit."""
    parameters: Parameters = {}
    """Settings for postgresql.conf, for example `max_connections: "100"`."""
    archive: Archive | None = None
    """Keep its log elsewhere too, so that there are backups of it; `archive: {}` in the first repository. Its image
    needs pgBackRest."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EngineSpec.rules,
        _memory_rule("128Mi", "shared_buffers derives from it"),
        _shape_rule("parameters", "^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)?$", 'max_connections: "100"'),
        _reserved_rule("parameters", reserved.POSTGRES, reserved.POSTGRES_PREFIXES),
        Rule(
            cel="!has(self.parameters) || !('max_connections' in self.parameters) || "
            "self.parameters['max_connections'].matches('^([2-9][0-9]|[1-9][0-9]{2,5})$')",
            message="parameters.max_connections must be a number from 20 on: 8 are reserved for probes, the "
            "operator and superusers",
            holds=lambda self: _matches(
                r"^([2-9][0-9]|[1-9][0-9]{2,5})$", self.parameters.get("max_connections", "100")
            ),
            field_path=".parameters",
        ),
        Rule(
            cel="!has(self.archive) || !has(self.parameters) || !('wal_level' in self.parameters) || "
            "self.parameters['wal_level'] in ['replica', 'logical']",
            message="parameters.wal_level must be replica or logical with archive: change it, or remove one of them",
            holds=lambda self: (
                self.archive is None or self.parameters.get("wal_level", "replica") in {"replica", "logical"}
            ),
            field_path=".parameters",
        ),
        Rule(
            cel=f"!(self.name in [{', '.join(repr(e) for e in ENGINES)}])",
            message="name must not be the name of an engine: choose for example prod",
            holds=lambda self: self.name not in ENGINES,
            field_path=".name",
        ),
    )


class RedisSpec(StoreSpec):
    """The Redis instance."""

    version: Annotated[str, Field(pattern=r"^8\.[0-9]+(\.[0-9]+)?$", max_length=16)] = "8.0"
    """Redis version: a minor of 8 such as 8.0, or a patch of one."""
    storage: Storage = Storage(size="1Gi")
    """The data volume (append-only file)."""
    resources: Resources = Resources(
        requests=ResourceList(cpu="50m", memory="64Mi"), limits=ResourceList(memory="256Mi")
    )
    """Compute resources; `maxmemory` derives from the memory limit."""
    max_clients: Annotated[int, Field(ge=1, le=10000)] = 100
    """Connections that applications may hold at once."""
    parameters: Parameters = {}
    """Directives for redis.conf, for example `appendfsync: always`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EngineSpec.rules,
        _memory_rule("32Mi", "maxmemory derives from it"),
        _shape_rule("parameters", "^[a-z][a-z0-9-]*$", "appendfsync: always"),
        _reserved_rule("parameters", reserved.REDIS, reserved.REDIS_PREFIXES),
    )


class ElasticsearchSpec(StoreSpec):
    """The Elasticsearch instance."""

    version: Annotated[str, Field(pattern=r"^8\.(1[89])\.[0-9]+$", max_length=16)] = "8.19.5"
    """Elasticsearch version: a patch of 8.18 or 8.19."""
    storage: Storage = Storage(size="5Gi")
    """The data volume."""
    resources: Resources = Resources(
        requests=ResourceList(cpu="200m", memory="1Gi"), limits=ResourceList(memory="1Gi")
    )
    """Compute resources; the JVM's heap derives from the memory limit."""
    settings: Parameters = {}
    """Settings for elasticsearch.yml, for example `action.auto_create_index: "false"`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EngineSpec.rules,
        _memory_rule("768Mi", "the JVM's heap derives from it"),
        _shape_rule("settings", "^[a-z][a-z0-9_.]*$", 'action.auto_create_index: "false"'),
        _reserved_rule("settings", reserved.ELASTICSEARCH, reserved.ELASTICSEARCH_PREFIXES),
    )


class Neo4jSpec(StoreSpec):
    """The Neo4j Community instance."""

    version: Annotated[str, Field(pattern=r"^5\.26(\.[0-9]+)?$", max_length=16)] = "5.26"
    """Neo4j version: 5.26 (long-term support), or a patch of it."""
    storage: Storage = Storage(size="2Gi")
    """The data volume."""
    resources: Resources = Resources(
        requests=ResourceList(cpu="200m", memory="1Gi"), limits=ResourceList(memory="1Gi")
    )
    """Compute resources; the JVM's heap and the page cache derive from the memory limit."""
    settings: Parameters = {}
    """Settings for neo4j.conf, for example `db.transaction.timeout: 30s`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EngineSpec.rules,
        _memory_rule("768Mi", "the JVM's heap and the page cache derive from it"),
        _shape_rule("settings", "^[a-z][a-z0-9_.]*$", "db.transaction.timeout: 30s"),
        _reserved_rule("settings", reserved.NEO4J, reserved.NEO4J_PREFIXES),
    )


class ServiceType(StrEnum):
    """How Traefik's Service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class TraefikService(ApiModel):
    """The Service in front of Traefik."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """How the Service is reached."""
    annotations: StringMap = {}
    """Annotations, for example for a cloud's load balancer."""


class ServiceBackend(ApiModel):
    """A Service in the stack's namespace."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
    """Name of the Service."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Port of the Service."""


class WhenGatesFail(StrEnum):
    """What becomes of requests for a component of which a gate fails."""

    FORWARD = "Forward"
    REFUSE = "Refuse"


class Route(ApiModel):
    """HTTP requests that match `host` and `path` go to one backend."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$", max_length=40)]
    """Name of the route: lower-case letters, digits and dashes."""
    host: Annotated[str, Field(max_length=253)] | None = None
    """Host name that a request must ask for; any when absent."""
    path: Annotated[str, Field(max_length=512)] = "/"
    """Prefix of the request's path, by whole segments: /api matches /api and /api/v1, and not /apis."""
    component: Literal["elasticsearch", "neo4j"] | None = None
    """HTTP component of this stack to send requests to."""
    service: ServiceBackend | None = None
    """Service of this namespace to send requests to."""
    when_gates_fail: WhenGatesFail = WhenGatesFail.FORWARD
    """Whether requests are sent to a component of which a gate fails (`Forward`), or get 503 as long as it does
    (`Refuse`)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.component) != has(self.service)",
            message="a route needs exactly one of component or service: set one and remove the other",
            holds=lambda self: (self.component is None) != (self.service is None),
        ),
        Rule(
            cel="self.whenGatesFail == 'Forward' || has(self.component)",
            message="whenGatesFail: Refuse is for a route to a component: a Service of your own has no gates, "
            "write Forward",
            holds=lambda self: self.when_gates_fail is WhenGatesFail.FORWARD or self.component is not None,
            field_path=".whenGatesFail",
        ),
        Rule(
            cel="self.path.matches('^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$')",
            message="path must start with /, not end with one, and hold only letters, digits and / . _ ~ -, "
            "for example /api",
            holds=lambda self: _matches(r"^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$", self.path),
            field_path=".path",
        ),
        Rule(
            cel=f"!has(self.host) || self.host.matches('{HOST_FORM}')",
            message="host must be a host name in lower case, for example search.example.com",
            holds=lambda self: self.host is None or _matches(HOST_FORM, self.host),
            field_path=".host",
        ),
    )


class TraefikSpec(EngineSpec):
    """The Traefik proxy in front of the stack."""

    version: Annotated[str, Field(pattern=r"^v3\.[0-9]+\.[0-9]+$", max_length=16)] = "v3.6.12"
    """Traefik version: a full version of 3, such as v3.6.12."""
    replicas: Annotated[int, Field(ge=1, le=10)] = 1
    """Number of pods."""
    resources: Resources = Resources(
        requests=ResourceList(cpu="50m", memory="64Mi"), limits=ResourceList(memory="256Mi")
    )
    """Compute resources of each pod."""
    service: TraefikService = TraefikService()
    """The Service in front of Traefik."""
    routes: Annotated[list[Route], Field(max_length=50, json_schema_extra={"x-list-map-keys": ["name"]})] = []
    """Routes; a change is served without a restart."""

    live_fields: ClassVar[frozenset[str]] = frozenset({"replicas", "service", "routes"})

    rules: ClassVar[tuple[Rule, ...]] = (
        *EngineSpec.rules,
        Rule(
            cel="self.routes.all(r, self.routes.exists_one(q, q.path == r.path && "
            "(has(q.host) ? q.host : '') == (has(r.host) ? r.host : '')))",
            message="routes must not repeat a host and path: give each route its own",
            holds=lambda self: len({(r.host, r.path) for r in self.routes}) == len(self.routes),
            field_path=".routes",
        ),
    )


class DeletionPolicy(StrEnum):
    """What becomes of volumes and credentials when the stack is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class RollbackMode(StrEnum):
    """Whether a change that does not serve in time is taken back."""

    AUTOMATIC = "Automatic"
    OFF = "Off"


class Rollback(ApiModel):
    """What becomes of a change that does not serve in time."""

    mode: RollbackMode = RollbackMode.AUTOMATIC
    """`Automatic`: the component's last good revision runs again. `"Off"` (in quotes: YAML reads a bare Off as
    false): the change stays, and is tried again if it was taken back."""


_ARCHIVED_IN = (
    "(!has(p.archive.repository) || p.archive.repository == '' || "
    "self.spec.backup.repositories.exists(r, r.name == p.archive.repository))"
)


def _archive_of(spec: CosStackSpec, instance: PostgresSpec) -> Repository | None:
    """The repository that an instance's log goes to; None if there is none."""
    if instance.archive is None or spec.backup is None:
        return None
    return named(spec.backup.repositories, instance.archive.repository)


class CosStackSpec(ApiModel):
    """The wanted state of a stack. Every component is optional; at least one is named."""

    paused: bool = False
    """Stop all changes by the operator; status stays live."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What becomes of volumes and credentials when the stack is deleted."""
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=86400)] = 600
    """Seconds that a changed component may take to serve; they begin anew while the engine shows progress, such
    as the replay of its log."""
    rollback: Rollback = Rollback()
    """What becomes of a change that does not serve in time."""
    revision_history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """Earlier revisions that are kept, besides those in which a component last served."""
    images: Images = Images()
    """Where images come from."""
    probes: Probes = Probes()
    """When load is made to measure the stack: `StackProbe` objects that the operator creates by itself."""
    backup: Backup | None = None
    """Where backups are kept. What is backed up, and when, `StackBackup` objects say."""
    slo: Slo | None = None
    """What the stack is to reach, by what its probes measure. `slo: {}` asks for what a COS stack is to reach."""
    postgres: Annotated[
        list[PostgresSpec], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """Postgres instances, for example prod and dev."""
    redis: RedisSpec | None = None
    """Redis."""
    elasticsearch: ElasticsearchSpec | None = None
    """Elasticsearch."""
    neo4j: Neo4jSpec | None = None
    """Neo4j Community."""
    traefik: TraefikSpec | None = None
    """Traefik."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="size(self.postgres) > 0 || has(self.redis) || has(self.elasticsearch) || has(self.neo4j) || "
            "has(self.traefik)",
            message="a stack needs at least one component: add for example redis: {}",
            holds=lambda self: bool(
                self.postgres or self.redis or self.elasticsearch or self.neo4j or self.traefik
            ),
        ),
        Rule(
            cel="!has(self.traefik) || self.traefik.routes.all(r, !has(r.component) || "
            "(r.component == 'elasticsearch' && has(self.elasticsearch)) || "
            "(r.component == 'neo4j' && has(self.neo4j)))",
            message="a route names a component that the stack does not have: add the component or change the route",
            holds=lambda self: (
                self.traefik is None
                or all(r.component is None or getattr(self, r.component) for r in self.traefik.routes)
            ),
            field_path=".traefik.routes",
        ),
    )


class CosStack(ApiModel):
    """Creative Operating System stack: Postgres, Redis, Elasticsearch, Neo4j and Traefik as one resource."""

    api_version: str
    kind: Literal["CosStack"]
    metadata: Metadata
    spec: CosStackSpec
    status: CosStackStatus = CosStackStatus()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"size(self.metadata.name) <= {MAX_STACK_NAME} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            message=f"metadata.name must be at most {MAX_STACK_NAME} lower-case letters, digits and dashes, starting "
            "with a letter: it begins the names of Services",
            holds=lambda self: (
                len(self.metadata.name) <= MAX_STACK_NAME
                and _matches(r"^[a-z]([-a-z0-9]*[a-z0-9])?$", self.metadata.name)
            ),
        ),
        Rule(
            cel="self.spec.postgres.all(p, size(self.metadata.name) + size(p.name) <= "
            f"{MAX_NAME_WITH_POSTGRES})",
            message=f"metadata.name and the name of a postgres instance must be at most {MAX_NAME_WITH_POSTGRES} "
            "characters together: shorten one of them",
            holds=lambda self: all(
                len(self.metadata.name) + len(item.name) <= MAX_NAME_WITH_POSTGRES
                for item in self.spec.postgres
            ),
        ),
        Rule(
            cel=f"self.spec.postgres.all(p, !has(p.archive) || (has(self.spec.backup) && {_ARCHIVED_IN}))",
            message="archive needs a repository of spec.backup: add spec.backup, or correct archive.repository",
            holds=lambda self: all(
                _archive_of(self.spec, item) for item in self.spec.postgres if item.archive
            ),
            field_path=".spec.postgres",
        ),
        Rule(
            cel="!has(self.spec.backup) || self.spec.postgres.all(p, !has(p.archive) || "
            "self.spec.backup.repositories.all(r, !has(r.s3) || "
            "(r.s3.endpoint.startsWith('https://') && !r.s3.bucket.contains('.')) || "
            "r.name != (has(p.archive.repository) && p.archive.repository != '' ? p.archive.repository : "
            "self.spec.backup.repositories[0].name)))",
            message="archive needs a repository that is reached by https, in a bucket without dots in its name: "
            "pgBackRest can do no other",
            holds=lambda self: (
                not any(
                    found.s3 and (not found.s3.endpoint.startswith("https://") or "." in found.s3.bucket)
                    for item in self.spec.postgres
                    if (found := _archive_of(self.spec, item))
                )
            ),
            field_path=".spec.postgres",
        ),
    )

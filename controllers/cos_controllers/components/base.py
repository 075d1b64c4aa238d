"""What an engine is to the rest of the core: a renderer from one instance's context to a blueprint.

`assemble` turns the blueprint into objects; the engine's client in the shell speaks its protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cos_controllers.api.backup import Repository
from cos_controllers.api.stack import CosStackSpec, EngineSpec
from cos_controllers.credentials import Credentials, Login
from cos_controllers.k8s import V1Container, V1Volume, V1VolumeMount
from cos_controllers.observation import Expectation


@dataclass(frozen=True)
class Accounts:
    """User names of an engine. `database` is the application's own, where the engine has such.

    `backup`: the user that reads all data for a backup, and may do nothing else; "" where none is needed.
    """

    admin: str
    app: str
    probe: str
    database: str = ""
    backup: str = ""


@dataclass(frozen=True)
class Port:
    """A port of the instance's Service, and the container's port behind it (`target`; the same when 0)."""

    name: str
    number: int
    target: int = 0


@dataclass(frozen=True)
class Archive:
    """Where an instance's log goes while it serves.

    `repository`, `region`: the place as restic is told it. `place`: what tells it from any other. `lineage`: UID of the
    data volume, "" while it is not known. `volumes` and `mounts`: what a pod needs to reach it; `mounted`: a hash of
    them.
    """

    repository: str
    region: str
    place: str
    lineage: str
    volumes: tuple[V1Volume, ...]
    mounts: tuple[V1VolumeMount, ...]
    mounted: str


@dataclass(frozen=True)
class Context:
    """One instance to render.

    `name` is the child's name (``cos-redis``), `component` the row in status (``redis``). `credentials` is None
    for engines without accounts; `version` is what is in the image. `claim` is the PersistentVolumeClaim of the data,
    "" without data. `failing`: the components of the stack of which a gate failed when its status was written.
    `archive`: None if the instance keeps its log to itself.
    """

    name: str
    component: str
    namespace: str
    spec: EngineSpec
    version: str
    stack: CosStackSpec
    stack_name: str
    credentials: Credentials | None = None
    claim: str = ""
    failing: frozenset[str] = frozenset()
    archive: Archive | None = None

    @property
    def host(self) -> str:
        """Name of the instance's Service, as applications in any namespace resolve it."""
        return f"{self.name}.{self.namespace}.svc"

    def login(self) -> Credentials:
        """The credentials of an engine that has accounts."""
        if self.credentials is None:
            raise ValueError(f"{self.component} has no accounts")
        return self.credentials


#: Volume names that `assemble` provides: the files of `Blueprint.config`, of `Blueprint.files`, the data volume.
CONFIG_VOLUME = "config"
FILES_VOLUME = "files"
DATA_VOLUME = "data"


@dataclass(frozen=True)
class Blueprint:
    """What is particular to an engine's instance; everything common is added by `assemble`.

    `config`: files of the ConfigMap, mounted by the containers as volume `config`; a change replaces the pod,
    unless the name is in `reloaded`. `files`: files with hashes or passwords, a Secret, volume `files`; the
    engine reloads them, so that a change touches the pod's annotation and does not replace it. A container that
    needs neither leaves the mount out. `volumes`: further ones (emptyDir with a sizeLimit). Containers carry
    command, env, ports, probes, resources and mounts; `assemble` adds image, pull policy and security context.
    `expected`: the gates of the engine, and what it reports once this configuration is in force.
    With `replicas` the workload is a Deployment without data; without, a StatefulSet of one pod.
    """

    uid: int
    gid: int
    containers: tuple[V1Container, ...]
    init_containers: tuple[V1Container, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    reloaded: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[V1Volume, ...] = ()
    grace_seconds: int = 30
    replicas: int | None = None
    service_type: str = "ClusterIP"
    service_annotations: Mapping[str, str] = field(default_factory=dict)
    expected: Expectation = field(default_factory=Expectation)


@dataclass(frozen=True)
class Dump:
    """How a copy of an engine's data comes to a folder, or where it lies.

    `container`: named `dump`, of the engine's own image, so of its version. It writes the data into the folder `$DATA`,
    and what there is to know of it to the file `$FACTS` (see `backups.report.Facts`); it logs in as `Accounts.backup`
    by the files `username` and `password` in `$LOGIN`, unless the engine is stopped for it. `size`: what the data may
    take, a quantity. `source`: the folder in which it finds the data volume, "" if it does without: read-only, on the
    node of the engine's pod; of an engine that is stopped, to write its locks to. The container has the engine's own
    resources unless it says which. None if what keeps copies reads the data itself: in `Dumper.folder` below `source`.
    """

    container: V1Container | None
    size: str
    source: str = ""


@dataclass(frozen=True)
class Copied:
    """A copy that is to be loaded: what is known of it, and where it came from, as restic is told it.

    `until`: of an engine whose log is kept, the moment to go on to: RFC 3339, `Latest`, or "" for that of the copy.
    `run` and `check`: see `api.common.Sql`.
    """

    entries: int
    sha256: str
    lineage: str
    repository: str
    region: str
    until: str = ""
    run: str = ""
    check: str = ""


class Engine(Protocol):
    """An engine: names, facts and the renderer. Implementations are stateless."""

    @property
    def kind(self) -> str:
        """Name of the engine and of its field in the spec, for example ``redis``."""

    @property
    def ports(self) -> tuple[Port, ...]:
        """Ports of the Service; the first is the one in endpoint and binding."""

    @property
    def ops_port(self) -> int | None:
        """Port of the pod that the operator asks for health; None: it asks the Service's first port."""

    @property
    def accounts(self) -> Accounts | None:
        """The engine's users; None for an engine without any."""

    @property
    def repository(self) -> str:
        """Repository of the default image, for example ``docker.elastic.co/elasticsearch/elasticsearch``."""

    @property
    def progress(self) -> re.Pattern[str] | None:
        """What a starting engine's log says of how far it is: hexadecimal numbers, the most significant first.

        None if it says nothing that rises for as long as it gets on.
        """

    def tag(self, version: str) -> str:
        """Tag of the default image for a version of the spec."""

    def may_open(self, data: str, target: str) -> str:
        """Why version `target` may not run on a volume that `data` has run on, with the way out; "" if it may."""

    def instances(self, spec: CosStackSpec) -> Mapping[str, EngineSpec]:
        """The instances that a spec asks for, by component name."""

    def uri(self, host: str, login: Login) -> str:
        """Connection URI for applications, the password percent-encoded."""

    def render(self, context: Context) -> Blueprint:
        """The particular parts of one instance."""


class Dumper(Protocol):
    """An engine of which there are backups."""

    @property
    def uid(self) -> int:
        """User and group that own the engine's data."""

    @property
    def offline(self) -> bool:
        """Whether the engine must be stopped while its data is read."""

    @property
    def keeps_log(self) -> bool:
        """Whether pgBackRest keeps its copies, and its log: else restic does."""

    def kept_in(self, spec: EngineSpec, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """Those of the stack's repositories that copies of an instance can be in; none if there are none of it."""

    def why_not(self, spec: EngineSpec) -> str:
        """Why there are no copies of an instance, with the way out; "" if there can be."""

    def folder(self, spec: EngineSpec) -> str:
        """Where on its volume the data is that pgBackRest reads and writes as it lies; "" if restic keeps copies."""

    def dump(self, host: str, spec: EngineSpec, limit: int) -> Dump:
        """How to copy the data of the instance that serves at `host`.

        `limit`: seconds within which the container ends by itself.
        """

    def load(self, name: str, spec: EngineSpec, copy: Copied, limit: int) -> V1Container:
        """How a copy comes onto an empty volume of the instance `name`: a container of its image, named `load`.

        It finds the copy in the folder `$DATA`, compares it with what is known of it, brings it to the folder `$TARGET`
        in the form in which the engine keeps its data, starts the engine on it without a network, and writes what that
        found to its termination message (see `backups.report.Loaded`). It ends by itself within `limit` seconds, and
        never writes to a volume that is not empty. Of an engine that `keeps_log` the copy is in `$TARGET` already, and
        the container can reach the repository.
        """


class Snapshots:
    """What is common to engines whose copies restic keeps: in any repository, and no log beside them."""

    keeps_log = False

    def kept_in(self, spec: EngineSpec, repositories: Sequence[Repository]) -> Sequence[Repository]:  # noqa: ARG002
        """All of them."""
        return repositories

    def why_not(self, spec: EngineSpec) -> str:  # noqa: ARG002
        """There always can be."""
        return ""

    def folder(self, spec: EngineSpec) -> str:  # noqa: ARG002
        """The engine's own tools know."""
        return ""

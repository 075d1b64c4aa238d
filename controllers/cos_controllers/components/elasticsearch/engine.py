"""Elasticsearch as an engine: names, and the pod that runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from cos_controllers.api.stack import CosStackSpec, ElasticsearchSpec, EngineSpec
from cos_controllers.api.status import GateName
from cos_controllers.components.base import (
    CONFIG_VOLUME,
    DATA_VOLUME,
    FILES_VOLUME,
    Accounts,
    Blueprint,
    Context,
    Copied,
    Dump,
    Port,
    Snapshots,
)
from cos_controllers.components.elasticsearch.config import (
    LOG4J2,
    MARKER,
    PROBE_SCRIPT,
    ROLES,
    START_SCRIPT,
    elasticsearch_yml,
    jvm_options,
    marker_line,
    probe_curl,
    users,
    users_roles,
)
from cos_controllers.components.elasticsearch.dump import (
    DUMP_SCRIPT,
    INSTEAD,
    LOAD_SCRIPT,
    LOGGING,
    OVERRIDES,
    REPOSITORY,
    SNAPSHOT,
)
from cos_controllers.components.parts import (
    COMMAND_LIMIT_SECONDS,
    env,
    literal,
    liveness_probe,
    mount,
    readiness_probe,
    requirements,
    run,
    scratch,
    startup_probe,
    within,
)
from cos_controllers.components.versions import is_older, parts
from cos_controllers.credentials import Login
from cos_controllers.hashing import digest
from cos_controllers.k8s import V1Container, V1ContainerPort, V1ResourceRequirements
from cos_controllers.observation import Expectation

CONFIG_DIR = "/etc/cos/config"
FILES_DIR = "/etc/cos/files"
#: ES_PATH_CONF, which the server must be able to write: it makes its keystore there.
CONF_DIR = "/etc/cos/elasticsearch"
PORT = 9200
#: uid of `elasticsearch` in the official image; its files are readable by everyone.
ELASTICSEARCH_UID = 1000
ACCOUNTS = Accounts(admin="cos-admin", app="app", probe="cos-probe", backup="cos-backup")

#: Folders of the data volume.
DATA_DIR = "/data"
NODE = "node"
SNAPSHOTS = "snapshots"

#: Opening many or large indices, and upgrading their metadata, comes before the first HTTP answer.
STARTUP_LIMIT_SECONDS = 900
#: Under kubelet's 5 s for a liveness probe.
LIVENESS_LIMIT_SECONDS = "4.5"


@dataclass(frozen=True)
class Elasticsearch(Snapshots):
    """See `base.Engine`."""

    kind: str = "elasticsearch"
    ports: tuple[Port, ...] = (Port("http", PORT),)
    ops_port: int | None = None
    accounts: Accounts = ACCOUNTS
    progress: re.Pattern[str] | None = None
    repository: str = "docker.elastic.co/elasticsearch/elasticsearch"
    uid: int = ELASTICSEARCH_UID
    offline: bool = False

    def tag(self, version: str) -> str:
        """The version is the tag."""
        return version

    def may_open(self, data: str, target: str) -> str:
        """A node refuses data of any newer version, patches included; 8 reads what 7.17 wrote, and nothing older."""
        if is_older(target, data, precision=3):
            return (
                f"Elasticsearch {target} refuses data that {data} has opened: write {data} or newer, or restore a "
                "snapshot to an empty volume"
            )
        if parts(target)[:1] != parts(data)[:1] and parts(data)[:2] not in {(), (7, 17)}:
            return (
                f"Elasticsearch {target} cannot open data of {data}: upgrade it to the last minor of its major "
                "first, or restore a snapshot to an empty volume"
            )
        return ""

    def instances(self, spec: CosStackSpec) -> Mapping[str, ElasticsearchSpec]:
        """At most one instance."""
        return {self.kind: spec.elasticsearch} if spec.elasticsearch else {}

    def uri(self, host: str, login: Login) -> str:
        """``http://user:password@host:port``."""
        return f"http://{login.username}:{quote(login.password, safe='')}@{host}:{PORT}"

    def render(self, context: Context) -> Blueprint:
        """One node; its data, and later its snapshots, are folders of the volume."""
        spec = context.spec
        assert isinstance(spec, ElasticsearchSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        login = context.login()
        conf = elasticsearch_yml(
            context.name,
            spec,
            data=f"{DATA_DIR}/{NODE}",
            snapshots=f"{DATA_DIR}/{SNAPSHOTS}",
            port=PORT,
        )
        options = jvm_options(spec)
        marker = digest([conf, options])
        probe = f"{CONFIG_DIR}/probe.sh"
        server = V1Container(
            name="elasticsearch",
            command=["bash", f"{CONFIG_DIR}/start.sh"],
            env=env(ES_PATH_CONF=CONF_DIR, ES_TMPDIR="/tmp"),  # noqa: S108 - a path in the container
            ports=[V1ContainerPort(name="http", container_port=PORT)],
            resources=requirements(spec.resources),
            startup_probe=startup_probe(
                run("bash", probe, "alive", COMMAND_LIMIT_SECONDS), limit_seconds=STARTUP_LIMIT_SECONDS
            ),
            readiness_probe=readiness_probe(run("bash", probe, "ready", COMMAND_LIMIT_SECONDS)),
            liveness_probe=liveness_probe(run("bash", probe, "alive", LIVENESS_LIMIT_SECONDS)),
            volume_mounts=[
                mount(CONFIG_VOLUME, CONFIG_DIR),
                mount(FILES_VOLUME, FILES_DIR),
                mount("conf", CONF_DIR, read_only=False),
                mount(DATA_VOLUME, DATA_DIR, read_only=False),
                mount("tmp", "/tmp", read_only=False),  # noqa: S108 - a path in the container
            ],
        )
        return Blueprint(
            uid=ELASTICSEARCH_UID,
            gid=ELASTICSEARCH_UID,
            containers=(server,),
            config={
                "elasticsearch.yml": conf + marker_line(marker),
                "container.options": options,
                "log4j2.properties": LOG4J2,
                "roles.yml": ROLES,
                "start.sh": START_SCRIPT,
                "probe.sh": PROBE_SCRIPT,
            },
            # The server reads roles again when they change.
            reloaded=frozenset({"roles.yml"}),
            files={
                "users": users(login),
                "users_roles": users_roles(login),
                "probe.curl": probe_curl(login.probe),
            },
            volumes=(scratch("conf", "16Mi"), scratch("tmp", "256Mi")),
            # A flush of every shard; usually a few seconds.
            grace_seconds=120,
            expected=Expectation(
                gates=(
                    GateName.SERVING,
                    GateName.HEALTH,
                    GateName.CONFIGURATION_IN_FORCE,
                    GateName.STORAGE_HEADROOM,
                ),
                configuration={MARKER: marker},
            ),
        )

    def dump(self, host: str, spec: EngineSpec, limit: int) -> Dump:
        """A snapshot beside the data, so of at most half of the volume; this container only copies and counts."""
        assert isinstance(spec, ElasticsearchSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        container = V1Container(
            name="dump",
            command=within(limit, "bash", "-c", DUMP_SCRIPT),
            env=env(
                URL=f"http://{host}:{PORT}",
                SOURCE=f"{DATA_DIR}/{SNAPSHOTS}",
                REPOSITORY=REPOSITORY,
                SNAPSHOT=SNAPSHOT,
                LIMIT=str(limit),
            ),
            # Of its own: there may be no room for a second server on the node of the first.
            resources=V1ResourceRequirements(
                requests={"cpu": "100m", "memory": "64Mi"}, limits={"memory": "256Mi"}
            ),
        )
        return Dump(container, spec.storage.size, DATA_DIR)

    def load(self, name: str, spec: EngineSpec, copy: Copied, limit: int) -> V1Container:
        """The server restores the snapshot by itself; its next start on what came of that is the proof."""
        assert isinstance(spec, ElasticsearchSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        settings = elasticsearch_yml(
            name,
            spec,
            data=f"${{TARGET}}/{NODE}",
            snapshots="${DATA}/" + REPOSITORY,
            port=PORT,
            instead=INSTEAD,
        )
        return V1Container(
            name="load",
            command=within(limit, "bash", "-c", LOAD_SCRIPT),
            env=env(
                URL=f"http://127.0.0.1:{PORT}",
                ENTRIES=str(copy.entries),
                SHA256=copy.sha256,
                REPOSITORY=REPOSITORY,
                SNAPSHOT=SNAPSHOT,
                SETTINGS=literal(settings),
                OPTIONS=literal(jvm_options(spec)),
                LOGGING=LOGGING,
                OVERRIDES=json.dumps({"transient": OVERRIDES}),
                LIMIT=str(limit),
            ),
        )

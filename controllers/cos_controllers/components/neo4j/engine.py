"""Neo4j Community as an engine: names, and the pod that runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cos_controllers.api.stack import CosStackSpec, EngineSpec, Neo4jSpec
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
from cos_controllers.components.neo4j.config import (
    LOGS_XML,
    MARKER,
    PROBE_SCRIPT,
    START_SCRIPT,
    initial_user,
    marker_line,
    memory,
    neo4j_conf,
    probe_authorization,
)
from cos_controllers.components.neo4j.dump import DUMP_SCRIPT, INSTEAD, LOAD_SCRIPT, PLACE
from cos_controllers.components.parts import (
    COMMAND_LIMIT_SECONDS,
    env,
    lines,
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
from cos_controllers.k8s import (
    V1Container,
    V1ContainerPort,
    V1ExecAction,
    V1ResourceRequirements,
    V1SecurityContext,
)
from cos_controllers.observation import Expectation

CONFIG_DIR = "/etc/cos/config"
#: Of a Job, which writes it.
JOB_CONFIG_DIR = "/tmp/conf"  # noqa: S108 - a path in the container
DATA_DIR = "/data"
#: Of the tool that reads all data; it goes through it once.
DUMP_HEAP = "256m"
FILES_DIR = "/etc/cos/files"
BOLT_PORT = 7687
HTTP_PORT = 7474
#: uid and gid of `neo4j` in the official image.
NEO4J_UID = 7474
ACCOUNTS = Accounts(admin="neo4j", app="app", probe="cos-probe", database="neo4j")

#: The server opens its ports after it has recovered its databases from their transaction logs.
STARTUP_LIMIT_SECONDS = 900
#: Under kubelet's 5 s for a liveness probe; three waits of `LIVENESS_WAIT_SECONDS` fit.
LIVENESS_LIMIT_SECONDS = "4.5"
LIVENESS_WAIT_SECONDS = "1.4"
#: Within `COMMAND_LIMIT_SECONDS`: the one wait of readiness, and the two of the start.
READINESS_WAIT_SECONDS = "1.2"
STARTUP_WAIT_SECONDS = "0.6"


def _probe(mode: str, limit: str, wait: str) -> V1ExecAction:
    """The limit is for a connect that hangs, which the shell cannot bound."""
    return run("timeout", "-s", "KILL", limit, "bash", f"{CONFIG_DIR}/probe.sh", mode, wait)


@dataclass(frozen=True)
class Neo4j(Snapshots):
    """See `base.Engine`. The Community Edition has users, and no roles: every user may do everything."""

    kind: str = "neo4j"
    ports: tuple[Port, ...] = (Port("bolt", BOLT_PORT), Port("http", HTTP_PORT))
    ops_port: int | None = None
    accounts: Accounts = ACCOUNTS
    progress: re.Pattern[str] | None = None
    repository: str = "neo4j"
    uid: int = NEO4J_UID
    offline: bool = True

    def tag(self, version: str) -> str:
        """The Community Edition of a version."""
        return f"{version}-community"

    def may_open(self, data: str, target: str) -> str:
        """A minor version migrates the system database, once and for all; majors need `neo4j-admin migrate`."""
        if is_older(target, data, precision=2):
            return (
                f"Neo4j {target} may not open data that {data} has opened: write {data} or newer, or load a dump "
                "into an empty volume"
            )
        if parts(data) and parts(target)[:1] != parts(data)[:1]:
            return (
                f"Neo4j {target} cannot open data of {data}: migrate a dump of it with neo4j-admin and load it into "
                "an empty volume"
            )
        return ""

    def instances(self, spec: CosStackSpec) -> Mapping[str, Neo4jSpec]:
        """At most one instance."""
        return {self.kind: spec.neo4j} if spec.neo4j else {}

    def uri(self, host: str, login: Login) -> str:  # noqa: ARG002 - drivers take no credentials from a URI
        """``neo4j://host:port``: Neo4j's drivers take user and password apart from the URI."""
        return f"neo4j://{host}:{BOLT_PORT}"

    def render(self, context: Context) -> Blueprint:
        """One server process; the data directory is the volume."""
        spec = context.spec
        assert isinstance(spec, Neo4jSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        login = context.login()
        conf = neo4j_conf(context.host, spec, config_dir=CONFIG_DIR)
        marker = digest(conf)
        server = V1Container(
            name="neo4j",
            command=["bash", f"{CONFIG_DIR}/start.sh"],
            env=env(NEO4J_CONF=CONFIG_DIR),
            ports=[
                V1ContainerPort(name="bolt", container_port=BOLT_PORT),
                V1ContainerPort(name="http", container_port=HTTP_PORT),
            ],
            resources=requirements(spec.resources),
            startup_probe=startup_probe(
                _probe("started", COMMAND_LIMIT_SECONDS, STARTUP_WAIT_SECONDS),
                limit_seconds=STARTUP_LIMIT_SECONDS,
            ),
            readiness_probe=readiness_probe(_probe("ready", COMMAND_LIMIT_SECONDS, READINESS_WAIT_SECONDS)),
            liveness_probe=liveness_probe(_probe("alive", LIVENESS_LIMIT_SECONDS, LIVENESS_WAIT_SECONDS)),
            volume_mounts=[
                mount(CONFIG_VOLUME, CONFIG_DIR),
                mount(FILES_VOLUME, FILES_DIR),
                mount(DATA_VOLUME, DATA_DIR, read_only=False),
                mount("tmp", "/tmp", read_only=False),  # noqa: S108 - a path in the container
            ],
        )
        return Blueprint(
            uid=NEO4J_UID,
            gid=NEO4J_UID,
            containers=(server,),
            config={
                "neo4j.conf": conf + marker_line(marker),
                "logs.xml": LOGS_XML,
                "start.sh": START_SCRIPT,
                "probe.sh": PROBE_SCRIPT,
            },
            files={
                "auth.ini": initial_user(login.admin),
                "probe-authorization": probe_authorization(login.probe),
            },
            volumes=(scratch("tmp", "256Mi"),),
            # The last checkpoint; without it the next start replays transaction logs.
            grace_seconds=120,
            expected=Expectation(
                gates=(GateName.SERVING, GateName.HEALTH, GateName.CONFIGURATION_IN_FORCE),
                configuration={MARKER: marker},
            ),
        )

    def dump(self, host: str, spec: EngineSpec, limit: int) -> Dump:  # noqa: ARG002 - nobody is there to be asked
        """All databases by `neo4j-admin`, which takes the server's locks; compressed, so no larger than the volume."""
        assert isinstance(spec, Neo4jSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        settings = lines(
            [
                f"server.directories.data={PLACE}",
                "server.directories.logs=/tmp/logs",
                "server.memory.pagecache.size=8m",
            ]
        )
        container = V1Container(
            name="dump",
            command=within(limit, "bash", "-c", DUMP_SCRIPT),
            env=env(SOURCE=DATA_DIR, SETTINGS=settings, HEAP_SIZE=DUMP_HEAP),
            # Of its own: the server starts again while its pod is still there, to store what was read.
            resources=V1ResourceRequirements(
                requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "768Mi"}
            ),
            # Files of the server's, whoever the pod is otherwise.
            security_context=V1SecurityContext(run_as_user=NEO4J_UID),
        )
        return Dump(container, spec.storage.size, DATA_DIR)

    def load(self, name: str, spec: EngineSpec, copy: Copied, limit: int) -> V1Container:  # noqa: ARG002 - it has no name
        """`neo4j-admin` loads and checks the database; that the server counts what is in it is the proof."""
        assert isinstance(spec, Neo4jSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        share = memory(spec)
        settings = neo4j_conf("localhost", spec, config_dir=JOB_CONFIG_DIR, instead=INSTEAD)
        return V1Container(
            name="load",
            command=within(limit, "bash", "-c", LOAD_SCRIPT),
            env=env(
                ENTRIES=str(copy.entries),
                SHA256=copy.sha256,
                SETTINGS=literal(settings),
                LOGGING=LOGS_XML,
                HEAP_SIZE=f"{share.heap}m",
                OFF_HEAP=f"{share.pagecache}m",
                LIMIT=str(limit),
            ),
        )

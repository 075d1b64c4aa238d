"""Postgres as an engine: names, and the pod that runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from cos_controllers.api.backup import Repository, named
from cos_controllers.api.restore import LATEST
from cos_controllers.api.stack import CosStackSpec, EngineSpec, PostgresSpec
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
)
from cos_controllers.components.parts import (
    env,
    literal,
    liveness_probe,
    memory_limit_mib,
    mount,
    readiness_probe,
    requirements,
    run,
    scratch,
    startup_probe,
    within,
)
from cos_controllers.components.postgres import paths
from cos_controllers.components.postgres.accounts import ADMIN, APP, BACKUP, DATABASE, PROBE, accounts_sql
from cos_controllers.components.postgres.config import (
    MARKER,
    PORT,
    derived_settings,
    hba_conf,
    ident_conf,
    marker_line,
    postgresql_conf,
)
from cos_controllers.components.postgres.dump import LOAD_SCRIPT, PUSH_FILE, push_script
from cos_controllers.components.postgres.scripts import INIT_SCRIPT, PROBE_SCRIPT, RUN_SCRIPT
from cos_controllers.components.versions import parts
from cos_controllers.credentials import Login
from cos_controllers.hashing import digest
from cos_controllers.k8s import V1Container, V1ContainerPort
from cos_controllers.mounts import TARGET_DIR
from cos_controllers.observation import Expectation
from cos_controllers.pgbackrest import variables

#: uid and gid of `postgres` in the official image (Debian variant).
POSTGRES_UID = 999

ACCOUNTS = Accounts(admin=ADMIN, app=APP, probe=PROBE, database=DATABASE, backup=BACKUP)

#: Crash recovery says every ten seconds how far it is (`log_startup_progress_interval`).
REDO = re.compile(r"redo in progress, elapsed time: .*, current LSN: ([0-9A-F]+/[0-9A-F]+)")

#: Prepared transactions that a server which follows a log has room for, whatever the one that wrote it had.
_PREPARED = 200
#: Share of the memory limit that parallel queries may take in /dev/shm.
_SHM_PERCENT = 25


@dataclass(frozen=True)
class Postgres:
    """See `base.Engine`. A stack has any number of instances, each its own server."""

    kind: str = "postgres"
    ports: tuple[Port, ...] = (Port("postgres", PORT),)
    ops_port: int | None = None
    accounts: Accounts = ACCOUNTS
    progress: re.Pattern[str] | None = REDO
    repository: str = "postgres"
    uid: int = POSTGRES_UID
    offline: bool = False
    keeps_log: bool = True

    def tag(self, version: str) -> str:
        """The version is the tag (Debian variant: bash, and `postgres` with uid 999)."""
        return version

    def may_open(self, data: str, target: str) -> str:
        """Minors share their files in both directions; a major needs pg_upgrade, which the operator does not run."""
        if parts(data)[:1] in {(), parts(target)[:1]}:
            return ""
        return (
            f"Postgres {target} cannot open data of Postgres {data}, and the operator has no pg_upgrade: write "
            f"version {data}, or add an instance of another name and copy the data with pg_dump"
        )

    def instances(self, spec: CosStackSpec) -> Mapping[str, PostgresSpec]:
        """``postgres-<name>`` for each."""
        return {f"{self.kind}-{item.name}": item for item in spec.postgres}

    def uri(self, host: str, login: Login) -> str:
        """``postgresql://user:password@host:port/database``."""
        return f"postgresql://{login.username}:{quote(login.password, safe='')}@{host}:{PORT}/{DATABASE}"

    def render(self, context: Context) -> Blueprint:
        """An init container that makes or examines the cluster, and the server."""
        spec = context.spec
        assert isinstance(spec, PostgresSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        major = _major(spec)
        archive = context.archive
        conf = postgresql_conf(spec, name=context.name, major=major, archived=archive is not None)
        hba, ident = hba_conf(), ident_conf()
        marker = digest([conf, hba, ident])
        probe = f"{paths.CONFIG_DIR}/probe.sh"
        mounts = [
            mount(CONFIG_VOLUME, paths.CONFIG_DIR),
            mount(DATA_VOLUME, paths.VOLUME_DIR, read_only=False),
            mount("run", paths.SOCKET_DIR, read_only=False),
            mount("shm", "/dev/shm", read_only=False),  # noqa: S108 - a path in the container
            mount("tmp", "/tmp", read_only=False),  # noqa: S108 - likewise
        ]
        init = V1Container(
            name="init",
            command=["bash", f"{paths.CONFIG_DIR}/init.sh", major],
            resources=requirements(spec.resources),
            volume_mounts=[*mounts, mount(FILES_VOLUME, paths.FILES_DIR)],
        )
        server = V1Container(
            name="postgres",
            command=["bash", f"{paths.CONFIG_DIR}/run.sh", paths.data(major)],
            ports=[V1ContainerPort(name="postgres", container_port=PORT)],
            resources=requirements(spec.resources),
            # The server answers, if only to reject, from its first second on: the replay of a long log takes
            # nothing from the budget of the start, and readiness waits for its end.
            startup_probe=startup_probe(run("bash", probe, "alive")),
            readiness_probe=readiness_probe(run("bash", probe, "ready")),
            liveness_probe=liveness_probe(run("bash", probe, "alive")),
            # Which volume and which repository it has, for a script that may be of another moment.
            env=env(CLAIM=context.claim, MOUNTED=archive.mounted) if archive else None,
            volume_mounts=[*mounts, *(archive.mounts if archive else ())],
        )
        return Blueprint(
            uid=POSTGRES_UID,
            gid=POSTGRES_UID,
            init_containers=(init,),
            containers=(server,),
            config={
                "postgresql.conf": conf + marker_line(marker),
                "pg_hba.conf": hba,
                "pg_ident.conf": ident,
                "init.sh": INIT_SCRIPT,
                "run.sh": RUN_SCRIPT,
                "probe.sh": PROBE_SCRIPT,
                **({PUSH_FILE: push_script(archive, context.claim, major)} if archive else {}),
            },
            reloaded=frozenset({PUSH_FILE}),
            files={"accounts.sql": accounts_sql(context.login(), archived=archive is not None)},
            volumes=(
                scratch("run", "1Mi"),
                scratch("shm", f"{memory_limit_mib(spec.resources) * _SHM_PERCENT // 100}Mi", memory=True),
                scratch("tmp", "16Mi"),
                *(archive.volumes if archive else ()),
            ),
            # The checkpoint of a fast shutdown, on a slow disk. If it is cut short, the next start replays the log.
            grace_seconds=120,
            expected=Expectation(
                gates=(
                    GateName.SERVING,
                    GateName.HEALTH,
                    GateName.CONFIGURATION_IN_FORCE,
                    GateName.CONNECTION_HEADROOM,
                    GateName.STORAGE_HEADROOM,
                ),
                configuration={MARKER: marker},
            ),
        )

    def kept_in(self, spec: EngineSpec, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """The one that its log goes to: a copy is of no use without it."""
        assert isinstance(spec, PostgresSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        found = named(repositories, spec.archive.repository) if spec.archive else None
        return (found,) if found else ()

    def why_not(self, spec: EngineSpec) -> str:
        """Its copies need its log."""
        assert isinstance(spec, PostgresSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        if spec.archive:
            return ""
        return "its log is kept nowhere else: write archive: {} (its image needs pgBackRest)"

    def folder(self, spec: EngineSpec) -> str:
        """PGDATA."""
        assert isinstance(spec, PostgresSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        return paths.folder(_major(spec))

    def dump(self, host: str, spec: EngineSpec, limit: int) -> Dump:  # noqa: ARG002 - pgBackRest has its own
        """PgBackRest reads the volume, between two statements that tell the server so."""
        return Dump(None, "16Mi", source=paths.VOLUME_DIR)

    def load(self, name: str, spec: EngineSpec, copy: Copied, limit: int) -> V1Container:  # noqa: ARG002 - it has no name
        """The server follows its log to the moment that is asked for; its own check of all pages is the proof."""
        assert isinstance(spec, PostgresSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        data = f"{TARGET_DIR}/{paths.folder(_major(spec))}"
        derived = derived_settings(spec)
        return V1Container(
            name="load",
            command=within(limit, "bash", "-c", LOAD_SCRIPT),
            env=env(
                **variables(copy.repository, copy.region, lineage=copy.lineage, data=data),
                ENTRIES=str(copy.entries),
                UNTIL=_target(copy.until),
                SHARED_BUFFERS=derived["shared_buffers"],
                MAX_WAL=derived.get("max_wal_size", "1GB"),
                # Replay fails where the source had more of them; each takes some hundred bytes.
                PREPARED=str(max(_PREPARED, int(spec.parameters.get("max_prepared_transactions", "0")))),
                COMMIT_TIMES=spec.parameters.get("track_commit_timestamp", "off"),
                RUN=literal(copy.run),
                CHECK=literal(copy.check),
                OWNER=APP,
                DATABASE=DATABASE,
                LIMIT=str(limit),
            ),
        )


def _target(until: str) -> str:
    """A moment as the server reads it before it knows the names of time zones."""
    if until in {"", LATEST}:
        return until
    return f"{datetime.fromisoformat(until).astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"


def _major(spec: PostgresSpec) -> str:
    return spec.version.partition(".")[0]

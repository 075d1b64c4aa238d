"""Redis as an engine: names, and the pod that runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from cos_controllers.api.stack import CosStackSpec, EngineSpec, RedisSpec
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
from cos_controllers.components.parts import (
    env,
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
from cos_controllers.components.redis.config import (
    PROBE_SCRIPT,
    marker_line,
    redis_conf,
    reported,
    users_acl,
)
from cos_controllers.components.redis.dump import DUMP_SCRIPT, LOAD_SCRIPT
from cos_controllers.components.versions import is_older
from cos_controllers.credentials import Login
from cos_controllers.hashing import digest
from cos_controllers.k8s import V1Container, V1ContainerPort
from cos_controllers.observation import Expectation

CONFIG_DIR = "/etc/cos/config"
FILES_DIR = "/etc/cos/files"
PORT = 6379
#: uid and gid of `redis` in the official image.
REDIS_UID = 999

ACCOUNTS = Accounts(admin="cos-admin", app="default", probe="cos-probe", database="0", backup="cos-backup")


@dataclass(frozen=True)
class Redis(Snapshots):
    """See `base.Engine`. Applications are the user `default`, so that a bare password works everywhere."""

    kind: str = "redis"
    ports: tuple[Port, ...] = (Port("redis", PORT),)
    ops_port: int | None = None
    accounts: Accounts = ACCOUNTS
    progress: re.Pattern[str] | None = None
    repository: str = "redis"
    uid: int = REDIS_UID
    offline: bool = False

    def tag(self, version: str) -> str:
        """The version is the tag (Debian variant: it has bash, which the probes need)."""
        return version

    def may_open(self, data: str, target: str) -> str:
        """A minor version may raise the version of the dump format, which older servers refuse to load."""
        if is_older(target, data, precision=2):
            return (
                f"Redis {target} may not read what Redis {data} has written: write {data} or newer, or begin with "
                "an empty volume and load the data anew"
            )
        return ""

    def instances(self, spec: CosStackSpec) -> Mapping[str, RedisSpec]:
        """At most one instance."""
        return {self.kind: spec.redis} if spec.redis else {}

    def uri(self, host: str, login: Login) -> str:
        """``redis://user:password@host:port/database``."""
        return f"redis://{login.username}:{quote(login.password, safe='')}@{host}:{PORT}/0"

    def render(self, context: Context) -> Blueprint:
        """One server process; the data directory is the volume."""
        spec = context.spec
        assert isinstance(spec, RedisSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        login = context.login()
        conf = redis_conf(spec, acl_file=f"{FILES_DIR}/users.acl", port=PORT)
        marker = digest(conf)
        probe = f"{CONFIG_DIR}/probe.sh"
        server = V1Container(
            name="redis",
            command=["redis-server", f"{CONFIG_DIR}/redis.conf"],
            working_dir="/data",
            ports=[V1ContainerPort(name="redis", container_port=PORT)],
            resources=requirements(spec.resources),
            # Alive is enough: loading a large file may take longer than any limit.
            startup_probe=startup_probe(run("bash", probe, "alive")),
            readiness_probe=readiness_probe(run("bash", probe, "ready")),
            liveness_probe=liveness_probe(run("bash", probe, "alive")),
            volume_mounts=[
                mount(CONFIG_VOLUME, CONFIG_DIR),
                mount(FILES_VOLUME, FILES_DIR),
                mount(DATA_VOLUME, "/data", read_only=False),
                mount("tmp", "/tmp", read_only=False),  # noqa: S108 - a path in the container
            ],
        )
        return Blueprint(
            uid=REDIS_UID,
            gid=REDIS_UID,
            containers=(server,),
            config={
                "redis.conf": conf + marker_line(marker),
                "probe.sh": PROBE_SCRIPT,
            },
            files={"users.acl": users_acl(login), "probe-password": login.probe.password},
            volumes=(scratch("tmp", "16Mi"),),
            # The last fsync of the append-only file on a slow disk; a healthy stop takes well under a second.
            grace_seconds=60,
            expected=Expectation(
                gates=(
                    GateName.SERVING,
                    GateName.HEALTH,
                    GateName.CONFIGURATION_IN_FORCE,
                    GateName.CONNECTION_HEADROOM,
                    GateName.STORAGE_HEADROOM,
                ),
                configuration=reported(spec, marker),
            ),
        )

    def dump(self, host: str, spec: EngineSpec, limit: int) -> Dump:
        """A file of the server's memory takes no more than that."""
        container = V1Container(
            name="dump",
            command=within(limit, "bash", "-c", DUMP_SCRIPT),
            env=env(HOST=host, PORT=str(PORT)),
        )
        return Dump(container, f"{memory_limit_mib(spec.resources)}Mi")

    def load(self, name: str, spec: EngineSpec, copy: Copied, limit: int) -> V1Container:  # noqa: ARG002
        """The server's own start on the data is the proof."""
        assert isinstance(spec, RedisSpec)  # noqa: S101 - narrows the type; `instances` gives no other
        databases = spec.parameters.get("databases", "16")
        return V1Container(
            name="load",
            command=within(limit, "bash", "-c", LOAD_SCRIPT),
            env=env(ENTRIES=str(copy.entries), SHA256=copy.sha256, DATABASES=databases),
        )

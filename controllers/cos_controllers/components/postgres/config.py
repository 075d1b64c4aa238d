"""The files that Postgres is configured by."""

from __future__ import annotations

from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.stack import PostgresSpec
from cos_controllers.components.parts import lines, memory_limit_mib
from cos_controllers.components.postgres import paths
from cos_controllers.components.postgres.accounts import PROBE, SUPERUSER
from cos_controllers.components.postgres.dump import PUSH_COMMAND

PORT = 5432

#: Connections that only members of `pg_use_reserved_connections` get: the probes and the operator still enter
#: when applications hold all others. Three more are for superusers: a person with psql at night.
RESERVED_CONNECTIONS = 5
SUPERUSER_CONNECTIONS = 3

#: A setting without a meaning to the server: a hash of its configuration, so that it can tell which is in force.
MARKER = "cos.config"

#: Shares of the memory limit. A quarter for shared_buffers is the manual's start value ("19.4. Resource
#: Consumption"); the page cache counts towards the container's limit too, and gets most of the rest.
SHARED_BUFFERS_PERCENT = 25
CACHE_PERCENT = 75
MAINTENANCE_PERCENT = 6
_MAINTENANCE_MAX_MIB = 1024

#: Below this size of volume the write-ahead log is kept to `_SMALL_MAX_WAL`: the server's default of 1 GB would
#: fill a small volume, and a full volume stops the server.
_SMALL_VOLUME = parse_quantity("8Gi")
_SMALL_MAX_WAL = "256MB"


def quoted(value: str) -> str:
    """A value as postgresql.conf reads it: in single quotes, on one line."""
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def derived_settings(spec: PostgresSpec) -> dict[str, str]:
    """Settings that users may override by `parameters`."""
    memory = memory_limit_mib(spec.resources)
    small = parse_quantity(spec.storage.size) < _SMALL_VOLUME
    return {
        "shared_buffers": f"{memory * SHARED_BUFFERS_PERCENT // 100}MB",
        "effective_cache_size": f"{memory * CACHE_PERCENT // 100}MB",
        "maintenance_work_mem": f"{min(memory * MAINTENANCE_PERCENT // 100, _MAINTENANCE_MAX_MIB)}MB",
        **({"max_wal_size": _SMALL_MAX_WAL} if small else {}),
        # A node with huge pages does not mean that the container may use any: it would die of SIGBUS.
        "huge_pages": "off",
        # Pods vanish without a goodbye; the system's default holds their connections for two hours.
        "tcp_keepalives_idle": "60",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "6",
        "default_text_search_config": "pg_catalog.english",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }


def _owned(major: str, name: str) -> dict[str, str]:
    """Settings that the operator owns (`api.reserved` refuses them in `parameters`)."""
    return {
        "cluster_name": name,
        "data_directory": paths.data(major),
        "hba_file": paths.HBA,
        "ident_file": paths.IDENT,
        "listen_addresses": "*",
        "port": str(PORT),
        "unix_socket_directories": paths.SOCKET_DIR,
        "reserved_connections": str(RESERVED_CONNECTIONS),
        "superuser_reserved_connections": str(SUPERUSER_CONNECTIONS),
        "password_encryption": "scram-sha-256",  # nosec B105 - a method
        "ssl": "off",
        "log_destination": "stderr",
        "logging_collector": "off",
        # The operator reads the reason of a refused connection, for which the protocol library gives only text.
        "lc_messages": "C",
        # After a failed fsync the kernel may have dropped the pages: crash and replay, never retry.
        "data_sync_retry": "off",
        # Settings come from the CosStack only; ALTER SYSTEM would override them unseen.
        "allow_alter_system": "off",
    }


def _archiving(spec: PostgresSpec) -> dict[str, str]:
    """Settings by which the log is kept elsewhere too."""
    return {
        "archive_mode": "on",
        "archive_command": PUSH_COMMAND,
        "archive_timeout": str(spec.archive.timeout_seconds if spec.archive else 0),
    }


def postgresql_conf(spec: PostgresSpec, *, name: str, major: str, archived: bool = False) -> str:
    """postgresql.conf. The last line of a name wins: derived settings, then `parameters`, then the operator's."""
    settings = [
        *derived_settings(spec).items(),
        *sorted(spec.parameters.items()),
        *_owned(major, name).items(),
        *(_archiving(spec).items() if archived else ()),
    ]
    return lines([f"{key} = {quoted(value)}" for key, value in settings])


def marker_line(marker: str) -> str:
    """The line of postgresql.conf by which the server reports `marker`."""
    return lines([f"{MARKER} = {quoted(marker)}"])


def hba_conf() -> str:
    """pg_hba.conf: the superuser and the probes by the socket as the container's user, all others by password."""
    return lines(
        [
            f"local all {SUPERUSER},{PROBE} peer map=cos",
            "local all all scram-sha-256",
            f"host all {SUPERUSER},{PROBE} all reject",
            "host replication all all reject",
            "host all all all scram-sha-256",
        ]
    )


def ident_conf() -> str:
    """pg_ident.conf: the operating system's `postgres` may be the superuser and the probes' role."""
    return lines([f"cos postgres {SUPERUSER}", f"cos postgres {PROBE}"])

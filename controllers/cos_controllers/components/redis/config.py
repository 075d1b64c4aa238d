"""The files that Redis is configured by."""

from __future__ import annotations

import hashlib

from cos_controllers.api.quantity import MI
from cos_controllers.api.stack import RedisSpec
from cos_controllers.components.parts import lines, memory_limit_mib
from cos_controllers.credentials import Credentials, Login

#: Connections above `maxClients`: kubelet's probes, the operator's checks, and a person with redis-cli at night.
RESERVED_CLIENTS = 10

#: The name under which Redis would speak to a syslog, which no container has. It can be read back: it holds a hash of
#: the configuration.
MARKER = "syslog-ident"

#: Share of the memory limit that the data set may take; the rest is for buffers, fragmentation and the
#: copy-on-write pages of an AOF rewrite.
MAXMEMORY_PERCENT = 75

# Probes speak RESP by shell built-ins: no client process that could hang (redis-cli would), and 40 ms of CPU.
# A server at its client limit refuses or closes a new connection: it lives and serves those it has. One that was made a
# replica takes no writes, and is not ready. What comes after the first answer comes with it.
PROBE_SCRIPT = r"""# usage: probe.sh ready|alive
trap '' PIPE
mode=$1
saturated() { case $1 in "-ERR max number of clients"*) exit 0 ;; esac; }
exec 3<>/dev/tcp/127.0.0.1/6379 || exit 1
printf 'AUTH cos-probe %s\r\nPING\r\nINFO replication\r\n' "$(</etc/cos/files/probe-password)" >&3 2>/dev/null
IFS= read -r -t 1.2 auth <&3 || { [ $? -le 128 ] && exit 0; exit 1; }
saturated "$auth"
[ "$mode" = alive ] && exit 0
IFS= read -r -t 0.3 pong <&3 || exit 1
case $auth in +OK*) ;; *) echo "$auth"; exit 1 ;; esac
case $pong in +PONG*) ;; *) echo "$pong"; exit 1 ;; esac
while IFS= read -r -t 0.3 line <&3; do
  case $line in role:master*) exit 0 ;; role:*) echo "$line"; exit 1 ;; -*) echo "$line"; exit 1 ;; esac
done
exit 1
"""


def _quoted(value: str) -> str:
    """A value as redis.conf reads it: in double quotes with backslash escapes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def redis_conf(spec: RedisSpec, *, acl_file: str, port: int) -> str:
    """redis.conf. The operator's lines come last, so that they win over `parameters`."""
    return lines(
        [
            # The append-only file keeps the data; a snapshot beside it would fork every hour, and take as much room.
            'save ""',
            *(f"{name} {_quoted(value)}" for name, value in sorted(spec.parameters.items())),
            "bind * -::*",
            f"port {port}",
            "protected-mode no",
            "daemonize no",
            'logfile ""',
            "dir /data",
            "appendonly yes",
            "aof-load-truncated yes",
            f"aclfile {acl_file}",
            f"maxclients {spec.max_clients + RESERVED_CLIENTS}",
            f"maxmemory {_maxmemory_mib(spec)}mb",
            "enable-debug-command no",
            "enable-module-command no",
        ]
    )


def _maxmemory_mib(spec: RedisSpec) -> int:
    return memory_limit_mib(spec.resources) * MAXMEMORY_PERCENT // 100


def reported(spec: RedisSpec, marker: str) -> dict[str, str]:
    """What ``CONFIG GET`` says once the configuration is in force, in the server's own form.

    Beside the marker that which the server itself changes (it lowers `maxclients` to the files that it may open), or
    an administrator may while it runs.
    """
    return {
        MARKER: marker,
        "appendonly": "yes",
        "maxclients": str(spec.max_clients + RESERVED_CLIENTS),
        "maxmemory": str(_maxmemory_mib(spec) * MI),
    }


def marker_line(marker: str) -> str:
    """The line of redis.conf by which the server reports `marker`."""
    return lines([f"{MARKER} {_quoted(marker)}"])


def _user(login: Login, rights: str) -> str:
    return f"user {login.username} on #{hashlib.sha256(login.password.encode()).hexdigest()} {rights}"


def users_acl(credentials: Credentials) -> str:
    """The ACL file: SHA-256 hashes of the passwords, as `ACL SETUSER #hash` takes them.

    Applications get every command but the administrative and dangerous ones (CONFIG, FLUSHALL, KEYS, …), and of
    those INFO and SORT, which client libraries use.
    """
    # As a replica would, and nothing else: no command, no channel.
    backup = [_user(credentials.backup, "resetchannels -@all +sync +replconf")] if credentials.backup else []
    return lines(
        [
            _user(credentials.app, "~* &* +@all -@admin -@dangerous +info +sort +sort_ro"),
            _user(credentials.admin, "~* &* +@all"),
            _user(credentials.probe, "resetchannels -@all +ping +info +hello"),
            *backup,
        ]
    )

"""The files that Elasticsearch is configured by."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from cos_controllers.api.stack import ElasticsearchSpec
from cos_controllers.components.parts import lines, memory_limit_mib
from cos_controllers.credentials import Credentials, Login

#: What a container needs besides the heap, in MiB. Measured idle on OpenJDK: 100 for the launcher's own JVM, which
#: stays, and 240 for the server's classes, code and threads; the rest is for the modules of a full distribution
#: and for direct buffers.
OVERHEAD_MIB = 576
#: Below this the server does not get through its own start.
MINIMUM_HEAP_MIB = 256
#: From 32 GiB on, the JVM's object pointers double in size.
MAXIMUM_HEAP_MIB = 31 * 1024

#: An attribute of the node without a meaning to it: a hash of the configuration, so that it can tell which is in force.
MARKER = "cos_config"

#: Elasticsearch's own default for `{PBKDF2}`; a cost must be one of those that it knows.
PBKDF2_ITERATIONS = 10_000
PBKDF2_BYTES = 32

#: Settings that a user may override.
DEFAULTS: Mapping[str, str] = {
    # Its native processes live outside the heap, where a container of this size has no memory for them.
    "xpack.ml.enabled": "false",
    # How soon a rotated password is in force, once kubelet has refreshed the mount.
    "resource.reload.interval.high": "1s",
}

# No role may touch what begins with a dot: system indices, and other products' own. Backups copy and count all there is
# and read none of it.
ROLES = """\
cos_app:
  cluster: [monitor]
  indices:
    - names: ["/[^.].*/"]
      privileges: [all]
cos_probe:
  cluster: ["cluster:monitor/state"]
cos_backup:
  cluster:
    - create_snapshot
    - cluster:admin/snapshot/delete
    - cluster:admin/repository/put
    - cluster:admin/repository/delete
    - cluster:monitor/nodes/info
  indices:
    - names: ["*"]
      privileges: ["indices:monitor/stats*"]
      allow_restricted_indices: true
"""

# Console only: the container's log is rotated by the node. Slow logs pass whatever level an index asks for.
# What ends the server goes into the container's termination message in one line, its root cause first: the log's end is
# the end of a stack trace.
LOG4J2 = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = ECSJsonLayout
appender.console.layout.dataset = elasticsearch.server
appender.header_warning.type = HeaderWarningAppender
appender.header_warning.name = header_warning
appender.termination.type = File
appender.termination.name = termination
appender.termination.fileName = /dev/termination-log
appender.termination.append = false
appender.termination.layout.type = PatternLayout
appender.termination.layout.pattern = %m: %rEx{1}%n
appender.termination.filter.threshold.type = ThresholdFilter
appender.termination.filter.threshold.level = error
logger.bootstrap.name = org.elasticsearch.bootstrap
logger.bootstrap.level = info
logger.bootstrap.appenderRef.termination.ref = termination
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
logger.deprecation.name = org.elasticsearch.deprecation
logger.deprecation.level = warn
logger.deprecation.appenderRef.header_warning.ref = header_warning
logger.search_slowlog.name = index.search.slowlog
logger.search_slowlog.level = trace
logger.indexing_slowlog.name = index.indexing.slowlog.index
logger.indexing_slowlog.level = trace
"""

# The image's own JVM options fit its version (workarounds for its Java among them), save the log of garbage
# collections, which names a file under a read-only path. The directory is filled anew at each start, because a
# keystore that a killed process left half-written would stop the next one. Users and roles are links into the
# mounts, so that the server sees kubelet replace them.
START_SCRIPT = """\
set -eu
rm -rf "${ES_PATH_CONF:?}"/*
grep -v Xlog:gc /usr/share/elasticsearch/config/jvm.options > "$ES_PATH_CONF/jvm.options"
mkdir "$ES_PATH_CONF/jvm.options.d"
ln -s /etc/cos/config/container.options "$ES_PATH_CONF/jvm.options.d/"
ln -s /etc/cos/config/{elasticsearch.yml,log4j2.properties,roles.yml} "$ES_PATH_CONF/"
ln -s /etc/cos/files/{users,users_roles} "$ES_PATH_CONF/"
exec tini -- /usr/share/elasticsearch/bin/elasticsearch
"""

# Alive is any HTTP answer, also 401 or 429. Ready is a cluster state without a block: recovered, and writable.
PROBE_SCRIPT = """\
# usage: probe.sh ready|alive SECONDS
limit=$2
if [ "$1" = alive ]; then
  exec timeout -s KILL "$limit" curl --silent --show-error --output /dev/null http://127.0.0.1:9200/
fi
answer=$(timeout -s KILL "$limit" curl --config /etc/cos/files/probe.curl) || exit 1
[ "$answer" = "{}" ] && exit 0
printf '%.300s\\n' "$answer"
exit 1
"""

PROBE_URL = "http://127.0.0.1:9200/_cluster/state/blocks?local=true&filter_path=blocks.global"


def heap_mib(spec: ElasticsearchSpec) -> int:
    """Size of the heap: at most half of the memory limit, so that the file system cache has room too."""
    limit = memory_limit_mib(spec.resources)
    return min(max(min(limit // 2, limit - OVERHEAD_MIB), MINIMUM_HEAP_MIB), MAXIMUM_HEAP_MIB)


def jvm_options(spec: ElasticsearchSpec) -> str:
    """Options after the image's own: without a writable place for dumps, a crash report goes to the log."""
    heap = heap_mib(spec)
    return lines(
        [
            f"-Xms{heap}m",
            f"-Xmx{heap}m",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-HeapDumpOnOutOfMemoryError",
            "-XX:+ErrorFileToStdout",
        ]
    )


def elasticsearch_yml(
    name: str,
    spec: ElasticsearchSpec,
    *,
    data: str,
    snapshots: str,
    port: int,
    instead: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """elasticsearch.yml. Every value is a quoted string: Elasticsearch reads types from text.

    A JSON string in ASCII is a YAML scalar that nothing in it can end. The operator's settings win, and `instead` over
    all.
    """
    settings = {
        **DEFAULTS,
        **spec.settings,
        "cluster.name": name,
        "node.name": name,
        "discovery.type": "single-node",
        "network.host": "0.0.0.0",  # noqa: S104 - the Service is what is reached; NetworkPolicies bound it
        "http.port": str(port),
        "transport.host": "127.0.0.1",
        "path.data": data,
        "path.logs": "/tmp",  # noqa: S108 - required, and nothing logs to files
        "path.repo": snapshots,
        "xpack.security.enabled": "true",
        "xpack.security.autoconfiguration.enabled": "false",
        "xpack.security.http.ssl.enabled": "false",
        "xpack.security.transport.ssl.enabled": "false",
        # No `elastic` user with a bootstrap password: all users are those of the file realm.
        "xpack.security.authc.reserved_realm.enabled": "false",
        **instead,
    }
    return lines([f"{key}: {json.dumps(value)}" for key, value in sorted(settings.items())])


def marker_line(marker: str) -> str:
    """The line of elasticsearch.yml by which the node reports `marker`."""
    return lines([f"node.attr.{MARKER}: {json.dumps(marker)}"])


@lru_cache(maxsize=8192)
def password_hash(login: Login) -> str:
    """The hash for the file realm; the same login gives the same salt and hash."""
    password = login.password.encode()
    return pbkdf2(
        password, hmac.new(password, f"elasticsearch/{login.username}".encode(), hashlib.sha256).digest()
    )


def pbkdf2(password: bytes, salt: bytes) -> str:
    """PBKDF2 with HMAC-SHA-512, written as ``elasticsearch-users`` writes it. The salt has 32 bytes."""
    key = hashlib.pbkdf2_hmac("sha512", password, salt, PBKDF2_ITERATIONS, PBKDF2_BYTES)
    return f"{{PBKDF2}}{PBKDF2_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def users(credentials: Credentials) -> str:
    """The file realm's users, with hashes of their passwords."""
    logins = (credentials.admin, credentials.app, credentials.probe, credentials.backup)
    return lines([f"{login.username}:{password_hash(login)}" for login in logins if login])


def users_roles(credentials: Credentials) -> str:
    """Which user has which role."""
    return lines(
        [
            f"superuser:{credentials.admin.username}",
            f"cos_app:{credentials.app.username}",
            f"cos_probe:{credentials.probe.username}",
            *([f"cos_backup:{credentials.backup.username}"] if credentials.backup else []),
        ]
    )


def probe_curl(probe: Login) -> str:
    """Curl's configuration of the readiness probe: credentials stay out of process arguments."""
    user = f"{probe.username}:{probe.password}".replace("\\", "\\\\").replace('"', '\\"')
    return lines(["silent", "show-error", f'user = "{user}"', f'url = "{PROBE_URL}"'])

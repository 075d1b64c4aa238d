"""The files that Neo4j is configured by."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from cos_controllers.api.stack import Neo4jSpec
from cos_controllers.components.parts import lines, memory_limit_mib
from cos_controllers.credentials import Login

#: What the JVM needs besides heap, page cache and direct buffers, in MiB. Measured: 236 idle and 290 after bulk writes,
#: for classes, compiled code and threads.
OVERHEAD_MIB = 320
#: One part in so many of the memory limit is for direct buffers (Bolt's and HTTP's sockets).
DIRECT_SHARE = 8
#: The page cache's share of what remains is half, but of little memory the heap gets more: queries fail without it.
MINIMUM_PAGECACHE_MIB = 128
COMFORTABLE_HEAP_MIB = 512
#: From 32 GiB on, the JVM's object pointers double in size.
MAXIMUM_HEAP_MIB = 31 * 1024

#: How Neo4j 5 itself stores a password (its `SecureHasherConfigurations`, version 1).
HASH_ITERATIONS = 1024

#: Settings that a user may override.
DEFAULTS: Mapping[str, str] = {"dbms.usage_report.enabled": "false"}

#: A system property without a meaning to the server: a hash of its configuration, by which it tells which is in force.
MARKER = "cos.config"

#: The options of Neo4j's own neo4j.conf, which this configuration replaces, save those for profilers.
JVM_OPTIONS = (
    "-XX:+UseG1GC",
    "-XX:-OmitStackTraceInFastThrow",
    "-XX:+AlwaysPreTouch",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:+TrustFinalNonStaticFields",
    "-XX:+DisableExplicitGC",
    "-Djdk.nio.maxCachedBufferSize=1024",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Djdk.tls.ephemeralDHKeySize=2048",
    "-Djdk.tls.rejectClientInitiatedRenegotiation=true",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--enable-native-access=ALL-UNNAMED",
    "-Dlog4j2.disable.jmx=true",
    "-Dlog4j.layout.jsonTemplate.maxStringLength=32768",
    # A JVM that ran out of memory is not to be trusted, and there is no writable place for a crash report.
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:+ErrorFileToStdout",
)

# Console only: the container's log is rotated by the node. One file serves Neo4j's two configurations, for users'
# and for debug messages.
LOGS_XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR" packages="org.neo4j.logging.log4j">
  <Appenders>
    <Console name="Console" target="SYSTEM_OUT">
      <JsonTemplateLayout eventTemplateUri="classpath:org/neo4j/logging/StructuredLayoutWithMessage.json"/>
    </Console>
  </Appenders>
  <Loggers>
    <Root level="INFO"><AppenderRef ref="Console"/></Root>
  </Loggers>
</Configuration>
"""

# `neo4j console --dry-run` prints the server's command line for this configuration (`set -f` keeps its `*`); run by
# exec, no launcher JVM stays. It refuses to while a pid file is there, which a killed server leaves behind.
# auth.ini is the initial user, read while there is none; the link keeps the hash out of the volume.
# A first start that is cut off between the making of a store and of its transaction log can never be resumed
# ("Transaction logs are missing"): as long as nothing was served, which the start-up probe tells, the next start
# begins anew.
START_SCRIPT = """\
set -euf
mkdir -p /tmp/logs /tmp/run /data/dbms /data/import /data/dumps
rm -f /tmp/run/neo4j.pid
[ -e /data/databases ] || : > /data/first-start
[ ! -e /data/first-start ] || rm -rf /data/databases /data/transactions
ln -sf /etc/cos/files/auth.ini /data/dbms/auth.ini
command=$(neo4j console --dry-run)
exec tini -g -- $command
"""

# A Bolt handshake needs no account and no worker thread, so a saturated server passes it and a hung one does not.
# HTTP alone could not tell: its few threads wait with the transactions that they run.
# `started` wants any answer to a query too, so that the first clients do not wait for Cypher's compiler to be loaded;
# nobody else can keep HTTP busy then, because the Service has no endpoint yet. For `alive` one answer counts against
# the server: after a failed write (a full disk) it keeps running, and refuses every transaction until a restart.
# Before the account exists, and after its loss, the answer is 401 and counts as any other.
PROBE_SCRIPT = r"""# usage: probe.sh started|ready|alive SECONDS (of each wait for an answer)
trap '' PIPE
exec 3<>/dev/tcp/127.0.0.1/7687 || exit 1
printf '\x60\x60\xb0\x17\x00\x00\x04\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00' >&3 2>/dev/null
IFS= read -r -d '' -t "$2" version <&3 || exit 1
[ -z "$version" ] || exit 1
exec 3>&-
[ "$1" = ready ] && exit 0
[ "$1" = started ] && unanswered=1 || unanswered=0
body='{"statements":[{"statement":"RETURN 1"}]}'
exec 3<>/dev/tcp/127.0.0.1/7474 || exit $unanswered
printf '%s\r\n' 'POST /db/neo4j/tx/commit HTTP/1.1' 'Host: localhost' 'Connection: close' \
  "Authorization: Basic $(</etc/cos/files/probe-authorization)" 'Content-Type: application/json' \
  "Content-Length: ${#body}" '' >&3 2>/dev/null
printf %s "$body" >&3 2>/dev/null
while IFS= read -r -t "$2" line <&3 || [ -n "$line" ]; do
  unanswered=0
  case $line in *"needs to be restarted"*) printf '%.300s\n' "$line"; exit 1 ;; esac
done
# On disk before anything is served: a file that came back after a power loss would delete what was.
if [ "$1" = started ] && [ $unanswered = 0 ] && [ -e /data/first-start ]; then
  rm -f /data/first-start && sync /data/ || exit 1
fi
exit $unanswered
"""


class Memory(NamedTuple):
    """How the memory limit is divided, in MiB."""

    heap: int
    pagecache: int
    direct: int


def memory(spec: Neo4jSpec) -> Memory:
    """Heap, page cache and direct buffers; together with `OVERHEAD_MIB` they are the memory limit."""
    limit = memory_limit_mib(spec.resources)
    direct = limit // DIRECT_SHARE
    rest = limit - OVERHEAD_MIB - direct
    heap = max(rest // 2, min(rest - MINIMUM_PAGECACHE_MIB, COMFORTABLE_HEAP_MIB))
    heap = min(heap, MAXIMUM_HEAP_MIB)
    return Memory(heap=heap, pagecache=rest - heap, direct=direct)


def property_value(value: str) -> str:
    """A value as `java.util.Properties` reads it, in ASCII: nothing in it can end its line."""

    def escaped(character: str) -> str:
        if character == "\\":
            return "\\\\"
        if " " < character <= "~":
            return character
        units = character.encode("utf-16-be")
        return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))

    return "".join(escaped(character) for character in value)


def neo4j_conf(
    host: str,
    spec: Neo4jSpec,
    *,
    config_dir: str,
    instead: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """neo4j.conf. The operator's settings win; a setting that is there twice would be refused.

    `instead`: of what the server is told in the stack.
    """
    share = memory(spec)
    settings = {
        **DEFAULTS,
        **spec.settings,
        "initial.dbms.default_database": "neo4j",
        "dbms.security.auth_enabled": "true",
        "server.directories.data": "/data",
        "server.directories.import": "/data/import",
        "server.directories.dumps.root": "/data/dumps",
        "server.directories.logs": "/tmp/logs",  # noqa: S108 - a path in the container
        "server.directories.run": "/tmp/run",  # noqa: S108 - likewise
        "server.default_listen_address": "0.0.0.0",  # noqa: S104 - the Service is what is reached
        "server.default_advertised_address": host,
        "server.bolt.enabled": "true",
        "server.http.enabled": "true",
        "server.https.enabled": "false",
        "server.logs.config": f"{config_dir}/logs.xml",
        "server.logs.user.config": f"{config_dir}/logs.xml",
        "server.memory.heap.initial_size": f"{share.heap}m",
        "server.memory.heap.max_size": f"{share.heap}m",
        "server.memory.pagecache.size": f"{share.pagecache}m",
        **instead,
    }
    options = (*JVM_OPTIONS, f"-XX:MaxDirectMemorySize={share.direct}m")
    return lines(
        [
            *(f"{name}={property_value(value)}" for name, value in sorted(settings.items())),
            *(f"server.jvm.additional={option}" for option in options),
        ]
    )


def marker_line(marker: str) -> str:
    """The line of neo4j.conf by which the server reports `marker`."""
    return lines([f"server.jvm.additional=-D{MARKER}={marker}"])


@lru_cache(maxsize=8192)
def initial_user(login: Login) -> str:
    """The file auth.ini; the same login gives the same salt and hash.

    Because the operator writes it, neither a process argument nor a file in the pod holds the password.
    """
    password = login.password.encode()
    salt = hmac.new(password, f"neo4j/{login.username}".encode(), hashlib.sha256).digest()
    return lines([f"{login.username}:{salted_hash(password, salt)}:"])


def salted_hash(password: bytes, salt: bytes) -> str:
    """SHA-256 iterated, written as ``neo4j-admin dbms set-initial-password`` writes it. The salt has 32 bytes."""
    digest = salt + password
    for _ in range(HASH_ITERATIONS):
        digest = hashlib.sha256(digest).digest()
    return f"SHA-256,{digest.hex()},{salt.hex()},{HASH_ITERATIONS}"


def probe_authorization(probe: Login) -> str:
    """Value of HTTP's basic authorization."""
    return base64.b64encode(f"{probe.username}:{probe.password}".encode()).decode()

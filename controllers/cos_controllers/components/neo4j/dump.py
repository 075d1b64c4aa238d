"""How Neo4j's data is copied and loaded: by its own tools, which need the server to be stopped."""

from __future__ import annotations

#: In a configuration: the folder that holds the data.
PLACE = "@DATA@"
#: Instead of what a server in the stack is told: nobody reaches it, and it makes no accounts.
INSTEAD = {
    "dbms.security.auth_enabled": "false",
    "server.default_listen_address": "127.0.0.1",
    "server.directories.data": PLACE,
    "server.directories.dumps.root": "/tmp/dumps",  # noqa: S108 - a path in the container
    "server.directories.import": "/tmp/import",  # noqa: S108 - likewise
}

# `last` reads the number of the last transaction, and whether the server was stopped in order: without a network and
# without a change.
_COMMON = r"""set -euo pipefail
shopt -s dotglob nullglob
export NEO4J_CONF=/tmp/conf
say() { echo "$@" >&2; }
configure() {
  mkdir -p "$NEO4J_CONF" /tmp/logs /tmp/run
  printf '%s' "${SETTINGS//@DATA@/$1}" >"$NEO4J_CONF/neo4j.conf"
}
last() {
  local told
  told=$(neo4j-admin database info neo4j --format=json 2>/tmp/said) || { tail -n 5 /tmp/said >&2; return 1; }
  [[ $told == *'"recoveryRequired":"false"'* ]] || { say "the server has not ended in order: ${told:0:400}"; return 1; }
  [[ $told =~ \"lastCommittedTransaction\":\"([0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}
"""

# All databases in one go, since each start of a JVM is time that the server does not serve. That of users (`system`) is
# for a person; what is restored is `neo4j`. What stores the copy is another user of the same group. The moment is that
# of the server's last write: nobody has written since.
DUMP_SCRIPT = (
    _COMMON
    + r"""umask 002
mkdir -p "$DATA"
configure "$SOURCE"
moment=$(find "$SOURCE/databases/neo4j" "$SOURCE/transactions/neo4j" -type f -printf '%Ts\n' | sort -n | tail -n 1)
entries=$(last)
neo4j-admin database dump '*' --to-path="$DATA" >/tmp/said 2>&1 || { tail -n 5 /tmp/said >&2; exit 1; }
for jar in "$NEO4J_HOME"/lib/neo4j-kernel-[0-9]*.jar; do version=${jar##*-} version=${version%.jar}; done
bytes=0
for file in neo4j system; do bytes=$((bytes + $(stat -c %s "$DATA/$file.dump"))); done
sum=$(sha256sum <"$DATA/neo4j.dump")
printf '{"entries":%s,"moment":%s,"version":"%s","bytes":%s,"sha256":"%s"}' \
  "$entries" "$moment" "$version" "$bytes" "${sum%% *}" >"$FACTS"
echo "transaction $entries of Neo4j $version"
"""
)

# The server is started as the stack will start it, with nobody to reach it and without accounts; what it makes of
# `system` then is taken away, so that the stack's own start makes it with the stack's accounts. A question over HTTP
# needs no client.
LOAD_SCRIPT = (
    _COMMON
    + r"""trap 'ended=$?; kill $(jobs -p) 2>/dev/null || true; exit $ended' EXIT
for found in "$TARGET"/*; do
  [ "${found##*/}" = lost+found ] || { say "the volume is not empty: ${found##*/}"; exit 1; }
done
sum=$(sha256sum <"$DATA/neo4j.dump")
[ "${sum%% *}" = "$SHA256" ] || { say "the copy has another checksum than was recorded"; exit 1; }
configure "$TARGET"
printf '%s' "$LOGGING" >"$NEO4J_CONF/logs.xml"
neo4j-admin database load neo4j --from-path="$DATA" >/tmp/said 2>&1 || { tail -n 5 /tmp/said >&2; exit 1; }
found=$(last)
[ "$found" = "$ENTRIES" ] || { say "the last transaction is $found, and $ENTRIES was that of the copy"; exit 1; }
neo4j-admin database check neo4j --report-path=/tmp --max-off-heap-memory="$OFF_HEAP" >/tmp/said 2>&1 || {
  tail -n 5 /tmp/said >&2
  exit 1
}
ask() {
  local body='{"statements":[{"statement":"MATCH (n) RETURN count(n)"},'
  body+='{"statement":"MATCH ()-[r]->() RETURN count(r)"}]}'
  exec 3<>/dev/tcp/127.0.0.1/7474 || return 1
  printf '%s\r\n' 'POST /db/neo4j/tx/commit HTTP/1.1' 'Host: localhost' 'Connection: close' \
    'Content-Type: application/json' "Content-Length: ${#body}" '' >&3
  printf %s "$body" >&3
  timeout 10 cat <&3
}
failed() { { grep -v '"level":"INFO"' /tmp/said || cat /tmp/said; } | tail -n 5 | cut -c 1-300 >&2; say "$1"; exit 1; }
command=$(neo4j console --dry-run)
set -f
$command >/tmp/said 2>&1 &
server=$!
answer=
until [[ $answer == *'"errors":[]'* ]]; do
  kill -0 "$server" 2>/dev/null || failed "Neo4j does not start"
  sleep 0.5
  answer=$(ask 2>/dev/null) || true
done
[[ $answer =~ \"row\":\[([0-9]+)\].*\"row\":\[([0-9]+)\] ]] || failed "Neo4j does not count: ${answer:0:300}"
nodes=${BASH_REMATCH[1]} relationships=${BASH_REMATCH[2]} ended=0
kill "$server"
wait "$server" || ended=$?
[[ $ended = 0 || $ended = 143 ]] && grep -q '"message":"Stopped\."' /tmp/said || failed "Neo4j did not end well: $ended"
rm -rf "$TARGET/databases/system" "$TARGET/transactions/system"
sync
echo "transaction $found: $nodes nodes, $relationships relationships"
printf '{"entries":%s}' "$found" >/dev/termination-log
"""
)

"""How Elasticsearch's data is copied and loaded: by a snapshot in a folder of its own, which is kept nowhere else."""

from __future__ import annotations

#: Name of the repository and of its folder below `path.repo`, and of the one snapshot that is ever in it.
REPOSITORY = "cos-backup"
SNAPSHOT = "copy"

# What both scripts need. `ask` leaves what the server said in `answer` and its status in `status`; a question may be
# asked again, an order may not. `each` runs a command on all files below a folder, in the order of their bytes; the
# checksum of a folder is that of the lines of sha256sum for all of them. `documents` counts those of the commits on
# disk, which is what a snapshot holds: hidden indices and nested documents count too.
_COMMON = r"""set -euo pipefail
export LC_ALL=C
shopt -s globstar dotglob nullglob inherit_errexit
say() { echo "$@" >&2; }
ask() {
  local said again=()
  [ "$2" != GET ] || again=(--retry 5 --retry-delay 2 --retry-connrefused)
  said=$(curl --config <(login) --silent --show-error --max-time "$1" --request "$2" "${again[@]}" \
    --header 'Content-Type: application/json' ${4:+--data "$4"} --write-out '%{http_code}' "$URL$3" 2>&1) || true
  status=${said: -3} answer=${said%???}
  [[ $status == 2?? ]]
}
reason() { if [[ $answer =~ \"reason\":\"([^\"]*) ]]; then echo "${BASH_REMATCH[1]}"; else echo "${answer:0:300}"; fi; }
must() { ask "$@" || { say "$2 ${3%%\?*}: $status: $(reason)"; exit 1; }; }
number() { [[ $answer =~ \"$1\":([0-9]+) ]] && echo "${BASH_REMATCH[1]}"; }
each() (
  cd "$1"
  shift
  mapfile -t names < <(for name in **; do [ ! -f "$name" ] || printf '%s\n' "$name"; done | sort)
  for ((first = 0; first < ${#names[@]}; first += 500)); do "$@" -- "${names[@]:first:500}"; done
)
checksum() { each "$1" sha256sum | sha256sum | cut -c 1-64; }
documents() {
  local item sum=0
  must 60 GET "/_stats/docs?level=shards&expand_wildcards=all&forbid_closed_indices=false\
&filter_path=indices.*.shards.*.commit.num_docs"
  for item in $(grep -o '"num_docs":[0-9]*' <<<"$answer" || true); do sum=$((sum + ${item#*:})); done
  echo "$sum"
}
"""

# The snapshot lies on the data volume, beside the data, for as long as it is copied. Whatever an attempt that was
# killed has left there is removed first, a snapshot that still runs too. Above the high watermark (90 % of the volume,
# or all but 150 GiB) Elasticsearch would place no more shards. A snapshot of which a shard is missing is none
# (`partial`). While it is copied the repository is not registered, so that the server does not write to it; what it
# tidied up last may come a moment later, and then it is copied again. `bytes` is what the files take in blocks of
# 4 KiB: there are many small ones.
DUMP_SCRIPT = (
    _COMMON
    + r"""login() { printf 'user = "%s:%s"\n' "$(<"$LOGIN/username")" "$(<"$LOGIN/password")"; }
remove() {
  ask "$LIMIT" DELETE "/_snapshot/$REPOSITORY/*" || [ "$status" = 404 ] || return 1
  ask 60 DELETE "/_snapshot/$REPOSITORY" || [ "$status" = 404 ]
}
register() {
  must 60 PUT "/_snapshot/$REPOSITORY" "{\"type\":\"fs\",\"settings\":{\"location\":\"$REPOSITORY\"}}"
}
clear() { remove && register && remove || { say "no snapshot can be removed: $status: $(reason)"; exit 1; }; }
trap 'ended=$?; [ "$ended" = 0 ] || (clear) >/dev/null 2>&1 || true; exit "$ended"' EXIT
trap 'trap "" TERM; exit 143' TERM
clear
must 60 GET "/_nodes/_local?filter_path=nodes.*.version"
[[ $answer =~ \"version\":\"([0-9A-Za-z.-]+) ]] && version=${BASH_REMATCH[1]}
must 60 GET "/_stats/store?expand_wildcards=all&forbid_closed_indices=false\
&filter_path=_all.primaries.store.size_in_bytes"
size=$(number size_in_bytes || echo 0)
read -r total free < <(df -B1 --output=size,avail "$SOURCE" | tail -n 1)
keep=$((total / 10 < 161061273600 ? total / 10 : 161061273600))
[ $((free - size)) -ge "$keep" ] || {
  say "no room for a snapshot on the data volume: it may take $((size >> 20)) MiB of $((free >> 20)) that are free," \
    "and $((keep >> 20)) must stay so"
  exit 1
}
register
must 60 PUT "/_snapshot/$REPOSITORY/$SNAPSHOT" \
  '{"indices":"*","expand_wildcards":"all","include_global_state":true,"partial":false}'
state=IN_PROGRESS
while [ "$state" = IN_PROGRESS ]; do
  sleep 1
  must 60 GET "/_snapshot/$REPOSITORY/$SNAPSHOT?filter_path=snapshots.state,snapshots.reason,\
snapshots.failures.reason,snapshots.start_time_in_millis"
  [[ $answer =~ \"state\":\"([A-Z_]+) ]] && state=${BASH_REMATCH[1]}
done
[ "$state" = SUCCESS ] || { say "the snapshot ended with $state: $(reason)"; exit 1; }
moment=$(($(number start_time_in_millis) / 1000))
entries=$(documents)
must 60 DELETE "/_snapshot/$REPOSITORY"
from=$SOURCE/$REPOSITORY folder=$DATA/$REPOSITORY bytes=0
while read -r size; do bytes=$((bytes + (size + 8191) / 4096 * 4096)); done < <(each "$from" stat -c %s)
free=$(df -B1 --output=avail "$(dirname "$DATA")" | tail -n 1)
[ "$free" -ge "$bytes" ] || {
  say "no room for the copy on the node: it takes $((bytes >> 20)) MiB of $((free >> 20)) that are free"
  exit 1
}
mkdir -p "$DATA"
for attempt in 1 2 3 4 5; do
  rm -rf "$folder"
  before=$(each "$from" stat -c '%n %s %Y')
  cp -r "$from" "$folder" && [ "$before" = "$(each "$from" stat -c '%n %s %Y')" ] && break
  [ "$attempt" -lt 5 ] || { say "the snapshot changes while it is copied: who else writes to $from?"; exit 1; }
  sleep 1
done
clear
sum=$(checksum "$folder")
printf '{"entries":%s,"moment":%s,"version":"%s","bytes":%s,"sha256":"%s"}' \
  "$entries" "$moment" "$version" "$bytes" "$sum" >"$FACTS"
echo "$entries documents of Elasticsearch $version"
"""
)

# The server is started as the stack will start it, on a volume in the same layout, with nobody to reach and nobody to
# reach it. (Elasticsearch refuses a configuration below its folder for temporary files.) What it has made for itself by
# then would be in the way of what is restored. The settings that are set until its end win over those that come with
# the snapshot, some of which would keep its shards from being placed. Then it is started again: what it finds without
# the repository is what the stack will find.
LOAD_SCRIPT = (
    _COMMON
    + r"""login() { :; }
trap 'ended=$?; kill $(jobs -p) 2>/dev/null || true; exit $ended' EXIT
for found in "$TARGET"/*; do
  [ "${found##*/}" = lost+found ] || { say "the volume is not empty: ${found##*/}"; exit 1; }
done
folder=$DATA/$REPOSITORY
[ "$(checksum "$folder")" = "$SHA256" ] || { say "the copy has another checksum than was recorded"; exit 1; }
export ES_PATH_CONF=${DATA%/*}/conf ES_TMPDIR=/tmp
failed() {
  { grep -E '^(WARN|ERROR|FATAL) |^Caused by: ' /tmp/said || cat /tmp/said; } | tail -n 5 | cut -c 1-300 >&2
  say "$1"
  exit 1
}
start() {
  rm -rf "$ES_PATH_CONF"
  mkdir -p "$ES_PATH_CONF/jvm.options.d"
  grep -v Xlog:gc /usr/share/elasticsearch/config/jvm.options >"$ES_PATH_CONF/jvm.options"
  printf '%s' "$OPTIONS" >"$ES_PATH_CONF/jvm.options.d/container.options"
  printf '%s' "$SETTINGS" >"$ES_PATH_CONF/elasticsearch.yml"
  printf '%s' "$LOGGING" >"$ES_PATH_CONF/log4j2.properties"
  /usr/share/elasticsearch/bin/elasticsearch >/tmp/said 2>&1 &
  server=$!
  until curl --silent --fail --max-time 5 --output /dev/null "$URL/_cluster/health"; do
    kill -0 "$server" 2>/dev/null || failed "Elasticsearch does not start"
    sleep 0.5
  done
}
stop() {
  local ended=0
  kill "$server"
  wait "$server" || ended=$?
  # Of a JVM that was told to end, once it has.
  [ "$ended" = 143 ] && grep -q 'Node: closed' /tmp/said || failed "Elasticsearch did not end well: $ended"
}
start
must 60 PUT /_cluster/settings "$OVERRIDES"
must 60 PUT "/_snapshot/$REPOSITORY" "{\"type\":\"fs\",\"settings\":{\"location\":\"$folder\",\"readonly\":true}}"
must 60 GET "/_snapshot/$REPOSITORY/$SNAPSHOT?filter_path=snapshots.shards.total"
shards=$(number total)
for attempt in 1 2 3 4 5; do
  ask 60 DELETE "/_data_stream/*?expand_wildcards=all" || true
  ask 60 DELETE "/*?expand_wildcards=all" || true
  ask "$LIMIT" POST "/_snapshot/$REPOSITORY/$SNAPSHOT/_restore?wait_for_completion=true" \
    '{"include_global_state":true}' && break
  [[ $attempt -lt 5 && $answer == *"already exists"* ]] || failed "nothing was restored: $status: $(reason)"
done
[ "$(number successful)" = "$shards" ] || failed "of $shards shards $(number successful) could be restored"
must "$LIMIT" POST "/_flush?expand_wildcards=all&force=true&wait_if_ongoing=true"
written=$(documents)
must 60 DELETE "/_snapshot/$REPOSITORY"
stop
start
ask "$LIMIT" GET "/_cluster/health?wait_for_status=yellow&timeout=${LIMIT}s&filter_path=status" \
  && [[ $answer == *yellow* || $answer == *green* ]] || failed "a shard does not come back: $status: $answer"
found=$(documents)
stop
# Its own lifecycles may remove what is too old.
[ "$found" -le "$written" ] || { say "there are $found documents, more than the $written that were restored"; exit 1; }
sync
echo "$found documents in $shards shards; $ENTRIES were counted when they were copied"
printf '{"entries":%s}' "$found" >/dev/termination-log
"""
)

#: Console only, one line an event with its root cause, and the line by which it is known that the node has closed.
LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %c{1}: %m %rEx{1}%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.node.name = org.elasticsearch.node.Node
logger.node.level = info
logger.deprecation.name = org.elasticsearch.deprecation
logger.deprecation.level = off
# It speaks of TLS, which there is none of, and takes the last lines of what may be of use.
logger.ssl.name = org.elasticsearch.xpack.core.ssl.SSLService
logger.ssl.level = off
"""

#: What may come with a snapshot and would keep a node by itself from taking it, and limits that spare others.
OVERRIDES = {
    "cluster.blocks.read_only": "false",
    "cluster.blocks.read_only_allow_delete": "false",
    "cluster.max_shards_per_node": "1000000",
    "cluster.routing.allocation.disk.threshold_enabled": "false",
    "cluster.routing.allocation.enable": "all",
    "indices.recovery.max_bytes_per_sec": "-1",
}

#: Instead of what a node in the stack is told: nobody reaches it, it acts on nobody, and a pattern may empty it.
INSTEAD = {
    "action.destructive_requires_name": "false",
    "network.host": "127.0.0.1",
    "xpack.security.enabled": "false",
    "xpack.watcher.enabled": "false",
}

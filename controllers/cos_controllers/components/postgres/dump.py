"""How Postgres' log is kept while it serves, and how a copy comes to life again: by pgBackRest, in the engine's image.

The copy itself is made and fetched by the operator's image, where pgBackRest is too (see `cos_operator.backup`).
"""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote

from cos_controllers.components.base import Archive
from cos_controllers.components.postgres import paths
from cos_controllers.mounts import AUTHORITY, CREDENTIALS_DIR, KEY_DIR
from cos_controllers.pgbackrest import AUTHORITY_VARIABLE, KEY_VARIABLE, S3_VARIABLES, variables

#: Name of the script that pushes the log. pgBackRest takes no backup of a server whose `archive_command` does not name
#: it.
PUSH_FILE = "pgbackrest-push.sh"
_PUSH_PATH = f"{paths.CONFIG_DIR}/{PUSH_FILE}"
#: Without the file, which goes with `spec.backup`, the server keeps what it has; bash itself would end the archiver.
PUSH_COMMAND = f'test -e {_PUSH_PATH} && bash {_PUSH_PATH} "%p"'

#: For one file of the log; and for each of the three attempts that a server waits for which stops: without a repository
#: it would be down for so much longer.
_PUSH_SECONDS = 60
_LAST_PUSH_SECONDS = 3

# Secrets as people paste them, and as Jobs read them (`str.strip`): blanks at the ends are none of it.
_SECRETS = (
    f"""secret() {{
  local text
  text=$(<"$2") || return
  text=${{text#"${{text%%[![:space:]]*}}"}}
  text=${{text%"${{text##*[![:space:]]}}"}}
  export "$1=$text"
}}
secrets() {{
  secret {KEY_VARIABLE} {KEY_DIR}/key || return
  [ -d {CREDENTIALS_DIR} ] || return 0
"""
    + "".join(
        f"""  secret {variable} {CREDENTIALS_DIR}/{name} || return
"""
        for name, variable in S3_VARIABLES.items()
    )
    + f"""  [ ! -e {CREDENTIALS_DIR}/{AUTHORITY} ] || export {AUTHORITY_VARIABLE}={CREDENTIALS_DIR}/{AUTHORITY}
}}
"""
)

# The file is read anew for each part of the log, so it may say something else while the server runs: the pod may be on
# another volume, or have another repository mounted, than whoever wrote this file believed. As long as a volume has no
# stanza there is no copy of it that the log could complete, and none of it is kept, whatever is missing: a backup that
# is not set up is not to fill the volume. The mark beside the data says that there was one, and from then on all of
# that is a failure. An exit code above 125 would end the archiver. A server that stops waits for what is being pushed,
# and for three attempts more; one that begins to is seen each second.
_PUSH = r"""
[ "$CLAIM $MOUNTED" = "$claim $mounted" ] && [ -n "$PGBACKREST_STANZA" ] || {
  echo "nobody has said yet where the log of $CLAIM goes" >&2
  exit 1
}
[ -e "$mark" ] && [ "$(<"$mark")" = "$place" ] && began=1 || began=
failed() { printf '%s\n' "$2" >&2; [ -n "$began" ] || exit 0; [ "$1" -le 125 ] || exit 125; exit "$1"; }
secrets 2>/dev/null || failed 1 "the Secrets of the repository are not there"
command -v pgbackrest >/dev/null || failed 1 "the image has no pgBackRest, which archive needs: no copy can be made"
stopping() { grep -q '^stopping' "$PGBACKREST_PG1_PATH/postmaster.pid"; }
watch() {
  while sleep 1; do
    stopping && { sleep "$last"; kill "$1"; return; }
  done
}
stopping && limit=$last
out=/tmp/pgbackrest-push.$$
timeout -k 1 "$limit" pgbackrest archive-push "$1" >"$out" 2>&1 &
pushing=$!
watch "$pushing" >/dev/null 2>&1 &
wait "$pushing"
code=$?
kill $! 2>/dev/null
said=$(<"$out")
rm -f "$out"
if [ "$code" = 0 ]; then
  [ -n "$began" ] || printf '%s' "$place" >"$mark"
  exit 0
fi
[ "$code" = 124 ] && said+="pgbackrest archive-push had not ended within $limit s"
[[ $said == *FileMissingError*archive.info* ]] || began=1
failed "$code" "$said"
"""


def exports(values: Mapping[str, str]) -> str:
    """Lines of a shell script that set variables of the environment."""
    return "".join(f"export {name}={quote(value)}\n" for name, value in values.items())


def push_script(archive: Archive, claim: str, major: str) -> str:
    """What the server runs for each part of its log that is complete."""
    known = variables(archive.repository, archive.region, lineage=archive.lineage, data=paths.data(major))
    place = f"{archive.place} {archive.repository} {archive.lineage}"
    return (
        f"# usage: {PUSH_FILE} FILE\n"
        + exports(known)
        + f"claim={quote(claim)}\nplace={quote(place)}\nmark={paths.mark(major)}\n"
        + f"mounted={archive.mounted}\n"
        + f"limit={_PUSH_SECONDS}\nlast={_LAST_PUSH_SECONDS}\n"
        + _SECRETS
        + _PUSH
    )


# The server replays the log apart from the network and from any archive: what it would write there belongs to the
# volume that it is restored onto, which has a stanza of its own. It is not asked anything before it has left recovery,
# so that its limits need not be those of the source, but for that of prepared transactions. Whatever an older server
# was told by ALTER SYSTEM goes. To fetch a part of the log that is not there ends the replay, and must never be
# mistaken for a repository that fails: above 125 the server gives up. Where all of the log is asked for, its last part
# must have been reached: one that is missing in between would end it too.
_LOAD = r"""say() { echo "$@" >&2; }
trap 'ended=$?; kill $(jobs -p) 2>/dev/null || true; exit $ended' EXIT
secrets || { say "the Secrets of the repository are not there"; exit 1; }
server=$(command -v postgres) && PATH=${server%/*}:$PATH
[ -f "$PGBACKREST_PG1_PATH/backup_label" ] || { say "the volume holds no copy: backup_label is missing"; exit 1; }
cat >/tmp/fetch.sh <<'FETCH'
timeout -k 5 300 pgbackrest archive-get "$1" "$2"
code=$?
[ "$code" -le 1 ] || code=255
exit "$code"
FETCH
: >"$PGBACKREST_PG1_PATH/postgresql.auto.conf"
: >"$PGBACKREST_PG1_PATH/recovery.signal"
: >/tmp/postgresql.conf
echo "local all postgres,$OWNER trust" >/tmp/pg_hba.conf
settings=(config_file=/tmp/postgresql.conf hba_file=/tmp/pg_hba.conf listen_addresses= unix_socket_directories=/tmp
  "shared_buffers=$SHARED_BUFFERS" "max_wal_size=$MAX_WAL" huge_pages=off lc_messages=C log_timezone=UTC timezone=UTC
  hot_standby=off archive_mode=on archive_command=false 'restore_command=bash /tmp/fetch.sh %f "%p"'
  recovery_target_action=promote "max_prepared_transactions=$PREPARED" "track_commit_timestamp=$COMMIT_TIMES")
last=
case $UNTIL in
'') settings+=(recovery_target=immediate) ;;
Latest)
  told=$(pgbackrest --output=json info) || { say "the repository does not say what it has"; exit 1; }
  [[ $told =~ \"max\":\"[0-9A-F]{8}([0-9A-F]{16})\" ]] && last=${BASH_REMATCH[1]}
  ;;
*) settings+=("recovery_target_time=$UNTIL") ;;
esac
failed() {
  grep -E 'FATAL|PANIC|ERROR|last completed transaction' /tmp/said | grep -v 'not accepting connections' |
    sed -E 's/^[^[]*\[[0-9]+\] //' | tail -n 5 | cut -c 1-300 >&2
  say "$1"
  exit 1
}
postgres -D "$PGBACKREST_PG1_PATH" "${settings[@]/#/--}" >/tmp/said 2>&1 &
server=$!
ask() { timeout 10 psql -h /tmp -U postgres -d postgres -XAtqw -c "$1" 2>/dev/null; }
until [ "$(ask 'SELECT pg_is_in_recovery()')" = f ]; do
  kill -0 "$server" 2>/dev/null || failed "the copy could not be brought to ${UNTIL:-the moment of its end}"
  sleep 0.3
done
found=$(ask "SELECT pg_current_wal_lsn() - '0/0'")
reached=$(ask "SELECT coalesce(floor(extract(epoch FROM pg_last_xact_replay_timestamp()))::bigint, 0)")
segment=$(ask "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 9)")
[ "$found" -ge "$ENTRIES" ] || failed "the log ends at $found, and the copy at $ENTRIES"
[[ ! $segment < $last ]] || failed "the log has a gap: it was followed to $segment, and the repository has it to $last"
owner() { timeout "$LIMIT" psql -h /tmp -U "$OWNER" -d "$DATABASE" -XAtq -v ON_ERROR_STOP=1 "$@" 2>/tmp/said.sql; }
refused() { tail -n 5 /tmp/said.sql | cut -c 1-300 >&2; say "$1"; exit 1; }
if [ -n "$RUN" ]; then
  owner --single-transaction --file=- <<<"$RUN" >/dev/null || refused "what was to be run could not be (sql.run)"
fi
if [ -n "$CHECK" ]; then
  answer=$(owner --command="$CHECK") || refused "the check could not be made (sql.check)"
  [ "$answer" = t ] || refused "the check says ${answer:0:100}, not t (sql.check)"
fi
pg_ctl -D "$PGBACKREST_PG1_PATH" stop -m fast -w -s -t "$LIMIT" || failed "the server does not stop"
wait "$server" || failed "the server did not end well"
pg_checksums --check -D "$PGBACKREST_PG1_PATH" >/tmp/checked 2>&1 || { tail -n 5 /tmp/checked >&2; exit 1; }
sync
echo "the log is followed to $found, which is $(date -u -d "@$reached" +%FT%TZ)"
printf '{"entries":%s,"moment":%s}' "$found" "$reached" >/dev/termination-log
"""

LOAD_SCRIPT = f"set -euo pipefail\n{_SECRETS}{_LOAD}"

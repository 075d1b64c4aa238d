"""The shell scripts of the Postgres pod."""

from __future__ import annotations

from cos_controllers.components.postgres import paths
from cos_controllers.components.postgres.accounts import PROBE, SUPERUSER

# Makes the cluster if the volume is empty, and refuses to go on where the server would fail or harm data. Nothing
# that looks like a cluster is left by an interruption: initdb works in a sibling folder, which is renamed at last.
INIT_SCRIPT = (
    f"""# usage: init.sh MAJOR
volume={paths.VOLUME_DIR}
conf={paths.CONF}
accounts={paths.ACCOUNTS}
superuser={SUPERUSER}
"""
    r"""
major=$1
home=$volume/$major
data=$home/data
umask 077
shopt -s nullglob dotglob

refuse() {
    local text
    text=$(printf '%s' "$2" | LC_ALL=C tr '\n\t"\\' "  ''" | LC_ALL=C tr -cd ' -~' | cut -c 1-1000)
    printf '{"reason":"%s","message":"%s"}\n' "$1" "$text" >/dev/termination-log
    printf '%s: %s\n' "$1" "$2" >&2
    exit 1
}

# Messages of the server without time and process.
plain() { sed -E 's/^[^[]*\[[0-9]+\] //' <<<"$1"; }

version=$(postgres --version) || refuse ImageUnusable "the image has no postgres program that runs"
found=${version#*PostgreSQL) }
found=${found%%[!0-9]*}
[ "$found" = "$major" ] ||
    refuse ImageOfAnotherMajor "the image holds Postgres $found and the spec asks for $major: change one of them"

foreign() {
    refuse ForeignFiles "the volume holds $1, which is not a Postgres $major of this operator: use an empty volume"
}

other_major() {
    refuse DataOfAnotherMajor "the volume holds data of Postgres $1 and the spec asks for $major: write the version \
that it holds, or use an empty volume"
}

for entry in "$volume"/*; do
    name=${entry##*/}
    case $name in
    "$major" | lost+found) ;;
    *)
        [ -e "$entry/data/PG_VERSION" ] && other_major "$name"
        foreign "$name"
        ;;
    esac
done

if [ -e "$data" ]; then
    [ -f "$data/PG_VERSION" ] || foreign "$major/data without PG_VERSION"
    held=$(<"$data/PG_VERSION")
    [ "$held" = "$major" ] || other_major "$held"
else
    rm -rf "$home/init"
    for entry in "$home"/*; do foreign "$major/${entry##*/}"; done
    mkdir -p "$home" || refuse VolumeNotWritable "the folder $home cannot be made on the volume"
    output=$(initdb --pgdata "$home/init" --username "$superuser" --auth-local peer --auth-host reject \
        --encoding UTF8 --locale-provider builtin --builtin-locale C.UTF-8 --locale C --data-checksums 2>&1) ||
        refuse InitdbFailed "$(printf '%s\n' "$output" | grep -E 'error|FATAL|PANIC' || printf '%s' "$output")"
    sync "$home/init" && mv -T "$home/init" "$data" && sync "$home" "$volume" ||
        refuse VolumeNotWritable "the new cluster cannot be moved to $data"
    echo "made a cluster of $version in $data"
fi
# A volume's fsGroup may have widened the mode, which the server refuses.
chmod 0700 "$data" || refuse VolumeNotWritable "the mode of $data cannot be set"

output=$(postgres -D "$data" -c config_file="$conf" -C data_directory 2>&1 >/dev/null) ||
    refuse ConfigurationRefused "$(plain "$output")"

# Passwords of the operator's roles are set without a server, so that they come right also on a volume that was
# made under others. Single-user mode replays the log first, if it must.
applied=$data/cos_accounts.sql
if ! cmp -s "$accounts" "$applied"; then
    output=$(postgres --single -D "$data" -c config_file="$conf" -c exit_on_error=on \
        -c log_min_error_statement=panic -j "$superuser" <"$accounts" 2>&1 >/dev/null) ||
        refuse AccountsFailed "$(plain "$output")"
    install -m 0600 "$accounts" "$applied.new" && sync "$applied.new" && mv -T "$applied.new" "$applied" ||
        refuse VolumeNotWritable "$applied cannot be written"
    echo "set the operator's roles"
fi
"""
)

# Process 1 must reap processes that others leave behind, and the server must not be it: the postmaster takes the
# death of any child for a crash of its own and restarts everything (a probe that was killed would be enough).
RUN_SCRIPT = (
    f"""# usage: run.sh PGDATA
conf={paths.CONF}
"""
    r"""
# SIGINT is the fast shutdown. SIGTERM, which kubelet sends, would wait for every client to leave.
stop() {
    stopping=1
    [ -z "$server" ] || kill -INT "$server" 2>/dev/null
}
trap stop TERM INT
postgres -D "$1" -c config_file="$conf" &
server=$!
[ -z "$stopping" ] || stop
while :; do
    wait "$server"
    status=$?
    # A trapped signal ends `wait` early.
    kill -0 "$server" 2>/dev/null && continue
    # The server may have ended right after it: then its own status is still to be had.
    wait "$server" 2>/dev/null
    last=$?
    [ "$last" = 127 ] || status=$last
    exit "$status"
done
"""
)

PROBE_SCRIPT = (
    f"""# usage: probe.sh ready|alive
as_probe=(-h {paths.SOCKET_DIR} -U {PROBE} -d {SUPERUSER})
"""
    r"""
# Debian has clients in /usr/bin that are Perl, which costs more than the probe itself; the real ones are beside
# the server.
server=$(command -v postgres) && PATH=${server%/*}:$PATH
if [ "$1" = alive ]; then
    # 0: accepts connections; 1: rejects them, while it starts, stops or replays its log.
    timeout --foreground -s KILL 2.5 pg_isready -q "${as_probe[@]}"
    [ $? -le 1 ]
    exit
fi
state=$(timeout --foreground -s KILL 1.5 psql -XAtqw "${as_probe[@]}" -c 'SHOW transaction_read_only' 2>&1)
[ "$state" = off ] && exit 0
echo "transaction_read_only: ${state:-no answer}"
exit 1
"""
)

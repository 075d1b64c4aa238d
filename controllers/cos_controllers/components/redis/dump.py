"""How Redis' data is copied: as a replica gets it, into a file that is then checked."""

from __future__ import annotations

# The server forks and sends its data as to a replica: of one moment, and without a file on its own volume. With a file
# as its target redis-cli leaves out the mark of 40 bytes that ends such a stream. The check reads all of the file, the
# checksum at its end too, and prints how many keys there are.
DUMP_SCRIPT = r"""set -euo pipefail
mkdir -p "$DATA"
file=$DATA/redis.rdb
export REDISCLI_AUTH="$(<"$LOGIN/password")"
redis-cli -h "$HOST" -p "$PORT" --user "$(<"$LOGIN/username")" --rdb "$file" >/tmp/said 2>&1 || {
  cat /tmp/said
  exit 1
}
redis-check-rdb "$file" >/tmp/checked || { tail -n 5 /tmp/checked; exit 1; }
said() { sed -n "s/$1/\1/p" /tmp/checked | head -n 1; }
entries=$(said '.*\[info\] \([0-9]*\) keys read.*')
moment=$(said ".*AUX FIELD ctime = '\([0-9]*\)'.*")
version=$(said ".*AUX FIELD redis-ver = '\([0-9A-Za-z.]*\)'.*")
sum=$(sha256sum <"$file")
printf '{"entries":%s,"moment":%s,"version":"%s","bytes":%s,"sha256":"%s"}' \
  "$entries" "$moment" "$version" "$(stat -c %s "$file")" "${sum%% *}" >"$FACTS"
echo "$entries keys of Redis $version"
"""

# An append-only file whose base is the copy: with `appendonly yes` Redis ignores a dump.rdb without a word. The server
# is then started as the stack will start it, apart from the network, and asked for what it has.
LOAD_SCRIPT = r"""set -euo pipefail
trap 'code=$?; kill $(jobs -p) 2>/dev/null || true; exit $code' EXIT
file=$DATA/redis.rdb
for found in "$TARGET"/* "$TARGET"/.[!.]*; do
  [ ! -e "$found" ] || [ "${found##*/}" = lost+found ] || { echo "the volume is not empty: ${found##*/}"; exit 1; }
done
sum=$(sha256sum <"$file")
[ "${sum%% *}" = "$SHA256" ] || { echo "the copy has another checksum than was recorded"; exit 1; }
folder=$TARGET/appendonlydir
mkdir "$folder"
cp "$file" "$folder/appendonly.aof.1.base.rdb"
echo "file appendonly.aof.1.base.rdb seq 1 type b" >"$folder/appendonly.aof.manifest"
redis-check-aof "$folder/appendonly.aof.manifest" >/tmp/checked || { tail -n 5 /tmp/checked; exit 1; }
redis-server --dir "$TARGET" --appendonly yes --save '' --databases "$DATABASES" --port 0 --unixsocket /tmp/redis.sock \
  >/tmp/said 2>&1 &
ask() { timeout 5 redis-cli -s /tmp/redis.sock "$@" 2>/dev/null || true; }
until [ "$(ask ping)" = PONG ]; do
  kill -0 $! 2>/dev/null || { tail -n 5 /tmp/said; exit 1; }
  sleep 0.2
done
found=0
for count in $(ask info keyspace | sed -n 's/^db[0-9]*:keys=\([0-9]*\),.*/\1/p'); do found=$((found + count)); done
# Those whose time has come since are gone.
[ "$found" -le "$ENTRIES" ] || { echo "there are $found keys, more than the $ENTRIES of the copy"; exit 1; }
ask shutdown
wait $! || { tail -n 5 /tmp/said; exit 1; }
sync
printf '{"entries":%s}' "$found" >/dev/termination-log
"""

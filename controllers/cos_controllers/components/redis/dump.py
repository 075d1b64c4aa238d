"""How Redis' data is copied: as a replica gets it, into a file that is then checked."""

from __future__ import annotations

# The server forks and sends its data as to a replica: of one moment, and without a file on its own volume. With a file
# as its target redis-cli leaves out the mark of 40 bytes that ends such a stream. The check reads all of the file, the
# checksum at its end too, and prints how many keys there are.
DUMP_SCRIPT = r"""set -euo pipefail
mkdir -p "$DATA"
file=$DATA/redis.rdb
export REDISCLI_AUTH="$(<"$LOGIN/password")"
timeout -k 5 "$LIMIT" redis-cli -h "$HOST" -p "$PORT" --user "$(<"$LOGIN/username")" --rdb "$file" >/tmp/said 2>&1 || {
  [ $? = 124 ] && echo "the data was not copied within $LIMIT s"
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

#!/bin/bash
# A data directory on a file system that is mounted for reading only: what each program says, and that
# none dies of it or is started again and again. In a mount namespace of its own; without the right to
# make one it is skipped, and says so. Needs AZOTH_BUILD and jq.
set -u
BUILD=$(realpath "${AZOTH_BUILD:?set AZOTH_BUILD to the directory of the programs}")
if [ -z "${AZOTH_TEST_NAMESPACE:-}" ]; then
    if ! unshare -m true 2>/dev/null; then
        echo "skip - no right to mount: programs on a directory that may only be read"
        exit 0
    fi
    AZOTH_TEST_NAMESPACE=1 exec unshare -m --propagation private bash "$0"
fi
AZOTH=$BUILD/azoth
TMP=$(mktemp -d "${TMPDIR:-/tmp}/azro.XXXXXX")
unset AZOTH_DIR
failed=0 passed=0 writer=
db=$TMP/db live=$TMP/live

clean_up() {
    [ -n "$writer" ] && kill -9 "$writer" 2>/dev/null && wait "$writer" 2>/dev/null
    umount "$db" "$TMP/empty" "$live" 2>/dev/null
    "$AZOTH" status --dir "$live" --json 2>/dev/null | jq -r '.shm, .shm_gauges' |
        while read -r name; do rm -f "/dev/shm$name"; done
    rm -rf "$TMP"
}
trap clean_up EXIT

ok() { passed=$((passed + 1)); echo "ok - $1"; }
not_ok() { failed=$((failed + 1)); echo "not ok - $1"; echo "#   $2"; }
# exits SENTENCE CODE PATTERN COMMAND...: exit code, and a pattern in what it writes.
exits() {
    local sentence=$1 code=$2 pattern=$3 got
    shift 3
    timeout 20 "$@" >"$TMP/out" 2>&1 </dev/null
    got=$?
    if [ $got -ne "$code" ]; then
        not_ok "$sentence" "exit code $got, not $code: $(head -c 300 "$TMP/out")"
    elif ! grep -q -- "$pattern" "$TMP/out"; then
        not_ok "$sentence" "no '$pattern' in: $(head -c 300 "$TMP/out")"
    else
        ok "$sentence"
    fi
}
read_only() { mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"; }

make() {
    "$AZOTH" init "$1" >/dev/null && mkdir "$1/run" &&
        printf '[writer]\nreserve = 1M\n[segment]\nslots = 16\nblocks = 80\n' >"$1/azoth.conf" &&
        "$AZOTH" tx --embedded --dir "$1" \
            '{"set":{"a":5},"events":[{"type":"added","data":{"n":1}}]}' >/dev/null
}
mkdir "$TMP/empty"
make "$db"
cat >"$db/projections/counts.sql" <<'S'
-- azoth: projection counts
-- azoth: migration 1 create
CREATE TABLE seen (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
-- azoth: on added
INSERT INTO seen VALUES (@id, :n);
S
"$BUILD/azoth-feed" --dir "$db" 2>"$TMP/feed.log" &
feed=$!
timeout 20 "$BUILD/azoth-projector" --dir "$db" --once counts 2>"$TMP/projector.log" || cat "$TMP/projector.log"
kill "$feed" && wait "$feed"
read_only "$db" && read_only "$TMP/empty" || exit 1

denied=AZOTH_ERR_PERMISSION
exits "init says that it may not write" 4 $denied "$AZOTH" init "$TMP/empty"
exits "init says that it may not make the directory" 4 $denied "$AZOTH" init "$TMP/empty/new"
exits "init says that there is a database, where there is one" 1 AZOTH_ERR_DATABASE_EXISTS "$AZOTH" init "$db"
exits "the writer stops for good" 100 $denied "$BUILD/azoth-writer" --dir "$db"
exits "the writer that makes a database stops for good" 100 $denied "$BUILD/azoth-writer" --dir "$TMP/empty" --create
exits "the feed stops for good" 100 $denied "$BUILD/azoth-feed" --dir "$db"
exits "the projector stops for good" 100 $denied "$BUILD/azoth-projector" --dir "$db" --once counts
exits "azoth run says so and ends" 4 $denied "$AZOTH" run "$db"
exits "azoth tx --embedded is refused" 4 $denied "$AZOTH" tx --embedded --dir "$db" '{"set":{"a":6}}'
exits "azoth tx finds no writer" 3 AZOTH_ERR_NO_WRITER "$AZOTH" tx --dir "$db" '{"set":{"a":6}}'
exits "azoth get reads" 0 '^5$' "$AZOTH" get a --dir "$db"
exits "azoth scan reads" 0 '^a' "$AZOTH" scan --dir "$db"
exits "azoth events reads" 0 added "$AZOTH" events --dir "$db"
exits "azoth status reads, and knows that there is no writer" 3 '1 keys, 1 events' "$AZOTH" status --dir "$db"
exits "azoth query reads" 0 '^1$' "$AZOTH" query counts 'SELECT n FROM seen' --dir "$db"

# Mounted for reading only here, while a writer that came before goes on writing there.
make "$live"
"$BUILD/azoth-writer" --dir "$live" 2>"$TMP/writer.log" &
writer=$!
"$AZOTH" tx --dir "$live" '{"set":{"a":6}}' >"$TMP/out" 2>&1 || not_ok "the writer answers" "$(cat "$TMP/out")"
read_only "$live" || exit 1
exits "azoth get does not read beside a writer that cannot see it" 4 "$denied" "$AZOTH" get a --dir "$live"
exits "azoth tx is refused there" 4 $denied "$AZOTH" tx --dir "$live" '{"set":{"a":7}}'
exits "a worker stops for good there" 100 $denied "$BUILD/azoth-worker" --dir "$live" --name 1
kill "$writer"
if wait "$writer"; then ok "the writer ends in order"; else not_ok "the writer ends in order" "$(cat "$TMP/writer.log")"; fi
writer=
exits "azoth get reads when the writer has gone" 0 '^6$' "$AZOTH" get a --dir "$live"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

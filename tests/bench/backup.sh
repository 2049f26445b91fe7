#!/bin/bash
# backup.sh [EVENTS [PAIRS]]: what backups and restores cost beside cp and zstd of the same data, in turn, as the median
# of neighbours; and what a backup costs those who write meanwhile. Default: a million events, 100,000 keys, 5 pairs.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
events=${1:-1000000} pairs=${2:-5} level=3
command -v zstd >/dev/null || { echo "skip - zstd is not there"; exit 0; }
TMP=$(mktemp -d "${TMPDIR:-/var/tmp}/azoth-bench-backup-XXXXXX")
pids=()
finish() { [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || :; wait 2>/dev/null || :; rm -rf "$TMP"; }
trap finish EXIT
azoth() { "$BUILD/azoth" "$@"; }
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
transactions() { # FROM TO: each an event, a key of 100,000 and an id
    awk -v from="$1" -v to="$2" 'BEGIN { srand(from); for (i = from; i <= to; i++) { k = int(rand() * 100000)
        printf "{\"set\":{\"account/%06d\":%d},\"events\":[{\"type\":\"deposited\",\"key\":\"account/%06d\",\"data\":{\"account\":%d,\"amount\":%d,\"reference\":\"%08x%08x%08x\",\"note\":\"a deposit of customer %d, made at a branch\"}}]}\n", k, i, k, k, int(rand() * 100000), rand() * 2147483648, rand() * 2147483648, rand() * 2147483648, k } }'
}
transactions 1 "$events" | AZOTH_WRITER_SYNC=none azoth tx --embedded - >/dev/null
seconds() { local t=$EPOCHREALTIME; "$@" >/dev/null 2>&1; echo "$t $EPOCHREALTIME" | awk '{ print $2 - $1 }'; }
median() { sort -n | awk '{ a[NR] = $1 } END { print (NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2) }'; }

# --- beside cp and zstd ---
by_hand() { cp "$AZOTH_DIR/data.mdb" "$TMP/cp" && zstd -q -$level "$TMP/cp" -o "$TMP/cp.zst" && sync "$TMP/cp.zst"; }
back_by_hand() { zstd -q -d "$TMP/cp.zst" -o "$TMP/cp" && cp "$TMP/cp" "$TMP/cp2" && sync "$TMP/cp2"; }
for ((i = 0; i < pairs; i++)); do
    rm -rf "$TMP"/cp* "$TMP/dest" "$TMP/new"; sync -f "$TMP"
    a=$(seconds by_hand); rm "$TMP/cp"; sync -f "$TMP"
    b=$(seconds azoth backup --level $level "$TMP/dest")
    sync -f "$TMP"; c=$(seconds back_by_hand); rm "$TMP"/cp "$TMP"/cp2; sync -f "$TMP"
    d=$(seconds azoth restore "$TMP/dest" "$TMP/new")
    echo "$a $b" >>"$TMP/backup"; echo "$c $d" >>"$TMP/restore"; echo "$a $d" >>"$TMP/literal"
done
least() { cut -d' ' -f"$1" "$2" | sort -n | head -1; }
# Where others work meanwhile, the best of each says more than what lies between.
row() {
    printf '%-46s %6.2f s beside %6.2f s   ratio %.2f, of the best %.2f\n' "$1" "$(cut -d' ' -f2 "$2" | median)" "$(cut -d' ' -f1 "$2" | median)" \
        "$(awk '{ print $1 / $2 }' "$2" | median)" "$(echo "$(least 1 "$2") $(least 2 "$2")" | awk '{ print $1 / $2 }')"
}
echo "$events events, 100000 keys, data.mdb of $(($(stat -c %s "$AZOTH_DIR/data.mdb") >> 20)) MiB, zstd -$level, $pairs pairs"
row "hot backup beside cp and zstd" "$TMP/backup"
row "restore, all checked, beside zstd -d and cp" "$TMP/restore"
row "restore, all checked, beside cp and zstd" "$TMP/literal"

# --- what writers notice ---
"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>/dev/null & pids+=($!)
until azoth tx '{"set":{"k":1}}' >/dev/null 2>&1; do :; done
for ((i = 1; i <= 8; i++)); do
    "$BUILD/azoth" tx - < <(transactions $((i * 10000000)) $((i * 10000000 + 9999999))) >/dev/null 2>&1 & pids+=($!)
done
head_now() { azoth status --json | jq .store.events; }
rate() { # while the command runs, or for two seconds
    local from=$(head_now) t=$EPOCHREALTIME
    "$@" >/dev/null 2>&1
    echo "$from $(head_now) $t $EPOCHREALTIME" | awk '{ print ($2 - $1) / ($4 - $3) }'
}
# Processors that sleep between two commits are slower to wake than a backup is in the way: writers are up to twice as
# fast beside one. What runs only when nobody else wants to keeps them awake, and what is measured is the backup.
for ((i = 0; i < $(nproc); i++)); do chrt --idle 0 sh -c 'while :; do :; done' & pids+=($!); done
rm -rf "$TMP/dest"
before=$(rate sleep 3)
for ((i = 0; i < pairs; i++)); do
    for how in 0 10; do
        beside=$(rate nice -n $how "$BUILD/azoth" backup --level $level "$TMP/dest")
        after=$(rate sleep 3)
        echo "$before $after $beside" | awk '{ print ($1 + $2) / 2, $3 }' >>"$TMP/writes-$how"
        before=$after
        rm -rf "$TMP/dest"
    done
done
writes() { printf '%-46s %6.0f/s beside %5.0f/s   ratio %.2f\n' "$1" "$(cut -d' ' -f2 "$2" | median)" "$(cut -d' ' -f1 "$2" | median)" "$(awk '{ print $2 / $1 }' "$2" | median)"; }
writes "durable transactions of 8 clients beside a backup" "$TMP/writes-0"
writes "the same, beside one as the units run it (nice 10)" "$TMP/writes-10"

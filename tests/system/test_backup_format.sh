#!/bin/bash
# Backups of a store that was of format 1: as it is, and after a writer has made it format 2, whose chain, redo records and segments then
# begin in the middle of the log. What is restored has the content of the original, at each moment, and its projections are those of the log.
. "$(dirname "$0")/checks.sh"
. "$(dirname "$0")/backups.sh"
lines() { # N: so many transactions more, each with a sum, a key, two events and an id; every third deletes a key
    local i gone
    for ((i = n + 1; i <= n + $1; i++)); do
        gone=; [ $((i % 3)) != 0 ] || gone=",\"delete\":[\"key/$((40 + (i + 5) * 31 % 40))\"]"
        printf '{"id":"%032x","add":{"sum":1},"set":{"key/%d":%d,"other/%d":"%0200d"}%s,"events":[{"type":"a","key":"k","data":{"v":%d}},{"type":"b","data":%d}]}\n' $i $((40 + i * 7919 % 40)) $i $i $i "$gone" $i $i
    done
}
commit() { lines "$@" >"$TMP/lines"; azoth tx - <"$TMP/lines" >"$TMP/out" 2>&1; n=$((n + $1)); }
project() { azoth projection rebuild p --quiet >"$TMP/out" 2>&1; }
remember() { digests[n]=$(azoth digest --with-times); }
format() { azoth status --dir "$1" --json | jq -r 'if .store.chain == null then "no chain" else "chain" end'; }
is_whole() { # SENTENCE DIR DIGEST
    says "$1: its content is that of the original" "$3" "$(azoth digest --with-times --dir "$2")"
    exits "$1: it is whole" 0 "whole" azoth verify --dir "$2"
    exits "$1: its projections are those of the log, row by row" 0 "rows in 1 tables are those of the log" azoth verify --all-projections --replay --dir "$2"
}
declare -a digests

lines 60 | azoth tx --embedded - >"$TMP/out"; n=60
check "there are rows" project
"$BUILD/tests/system/damage" "$AZOTH_DIR" format1
says "a store of format 1" "no chain" "$(format "$AZOTH_DIR")"
remember

# --- as it is ---
exits "is backed up as it is" 0 "full backup" azoth backup "$TMP/dest"
exits "and restored" 0 "events 1 to 120, transactions 1 to 60, all checked" azoth restore "$TMP/dest" "$TMP/old"
is_whole "of format 1" "$TMP/old" "${digests[60]}"
says "it is of format 1 still" "no chain" "$(format "$TMP/old")"
exits "until it is written" 0 "event 121" azoth tx --embedded --dir "$TMP/old" '{"events":[{"type":"a","data":{"v":1}}]}'
says "then it has a chain" "chain" "$(format "$TMP/old")"
exits "which is recomputed" 0 "at event 121, recomputed" azoth verify --dir "$TMP/old"

# --- made format 2 ---
"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & writer=$!; pids+=($writer)
check "a writer runs" until_true 20 grep -q ready "$TMP/writer.log"
says "and has made it format 2" "chain" "$(format "$AZOTH_DIR")"
says "with the same content" "${digests[60]}" "$(azoth digest --with-times)"
exits "its first incremental backup is a full one" 0 "does not know this directory" azoth backup --incremental "$TMP/dest"
commit 20; remember
exits "the next one has what is new" 0 "incremental backup" azoth backup --incremental "$TMP/dest"
check "rows are made" project
exits "events of both formats are archived" 0 "events up to 140 are archived" azoth archive --before 141 --segment-events 50
commit 15; remember
exits "another one follows" 0 "transactions 81 to 95" azoth backup --incremental "$TMP/dest"
exits "a full one has the segments" 0 "segments, events 1 to 140" azoth backup "$TMP/dest"
commit 5; remember
exits "and is followed" 0 "transactions 96 to 100" azoth backup --incremental "$TMP/dest"
says "these are there" "full full increment increment full increment" "$(azoth backup list "$TMP/dest" --json | jq -r 'map(.kind) | join(" ")')"

restored() { rm -rf "$TMP/new"; exits "to event $((2 * $1)) it is restored" 0 "events 1 to $((2 * $1)), transactions 1 to $1, all checked" azoth restore "$TMP/dest" "$TMP/new" "${@:2}"; }
for at in 60 80 95; do
    restored $at --to-event $((2 * at)); is_whole "at event $((2 * at))" "$TMP/new" "${digests[$at]}"
done
restored 100; is_whole "the newest" "$TMP/new" "${digests[100]}"
says "with the segments" 140 "$(azoth archive list --json --dir "$TMP/new" | jq .last_archived)"
says "and the chain that began in between" "$(azoth status --json | jq -c .store.chain)" "$(azoth status --dir "$TMP/new" --json | jq -c .store.chain)"
rm -r "$TMP/new"; azoth restore --same-uuid "$TMP/dest" "$TMP/new" >"$TMP/out"
sealed() { azoth backup --sealed --without-projections --dir "$1" - 2>/dev/null; }
check "a sealed backup of it is that of the original, byte by byte" cmp <(sealed "$AZOTH_DIR") <(sealed "$TMP/new")
exits "all of them are restored by verify --deep" 0 "000002-full.azb and 2 incremental backups: restored from event 120 to event 190, transaction 95, all checked" azoth backup verify --deep --tmp "$TMP" "$TMP/dest"
check "that of format 1 too" grep -q "000001-full.azb: restored to event 120" "$TMP/out"
kill $writer; wait $writer
checks_end

#!/bin/bash
# azoth archive: what is read through segments, what is refused, and files that are damaged, missing, moved or in the way.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
projections=$AZOTH_DIR/projections
sent=0
commit() { # HOW MANY: transactions of 50 events with their own numbers
    local i n list
    for ((n = 0; n < $1; n += 50)); do
        list=
        for ((i = 0; i < 50; i++)); do sent=$((sent + 1)); list+=",{\"type\":\"$([ $((sent % 2)) = 0 ] && echo even || echo odd)\",\"key\":\"k$((sent % 7))\",\"data\":{\"v\":$sent}}"; done
        echo "{\"events\":[${list:1}]}" | azoth tx - >"$TMP/out" 2>&1 || return 1
    done
}
define() { # NAME
    printf -- '-- azoth: projection %s\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER);\n-- azoth: on odd\nINSERT INTO t VALUES (@id, :v);\n' "$1" >"$projections/$1.sql"
}
archive() { azoth archive "$@"; }
ids() { azoth events --json "$@" | jq -rs 'if all(.[]; .id == .data.v) then "\(.[0].id) \(.[-1].id) \(length)" else "other content" end'; }
rows() { azoth query "$1" 'SELECT count(*), sum(v = id), max(id) FROM t' | sed 1d | tr '\t' ' '; }
caught_up() { azoth lag "$1" --wait --timeout 30 >"$TMP/out" 2>&1; }
first_in_store() { archive list --json | jq .first_in_store; }
writer() { "$BUILD/azoth-writer" --dir "$AZOTH_DIR" --writer-sync none 2>>"$TMP/writer.log" & w=$!; pids+=($w); until_true 20 azoth tx '{"set":{"there":{"i64":1}}}'; }
writer

# ---- without projections ----
check "events are committed" commit 500
exits "which ones has to be said" 2 "which events?" archive
exits "once" 2 "which events?" archive --before 3 --keep-events 3
exits "moving is not tried" 2 "--move takes none of the flags of a run that archives" archive --move "$TMP/elsewhere" --dry-run
exits "and has one directory" 2 "what is list for, beside --move?" archive list --move "$TMP/elsewhere"
exits "a list has no level" 2 "list takes none" archive list --level 3
exits "not beyond the newest" 2 "the newest event is 500" archive --before 502
exits "what would be done is told" 0 "events up to 100 would lie in $AZOTH_DIR/archive" archive --before 120 --dry-run
check "and not done" [ ! -e "$AZOTH_DIR/archive" ]
exits "a transaction is not cut in two" 0 "event 119 is of the same transaction as those behind it and stays" archive --before 120
says "its events are in one file" "1 100 archive/events-00000000000000000001-00000000000000000100.azs" \
    "$(archive list --json | jq -r '.segments[] | "\(.first) \(.last) \(.path)"')"
says "which nobody may write" 440 "$(stat -c %a "$AZOTH_DIR"/archive/*)"
says "LMDB begins behind them" 101 "$(first_in_store)"
says "the log is one" "1 500 500" "$(ids)"
says "from anywhere" "77 103 27" "$(ids --from 77 --to 104)"
says "at the border" "100 101 2" "$(ids --from 100 --to 102)"
says "behind it" "101 500 400" "$(ids --from 101)"
says "by type" 50 "$(azoth events --type even --to 101 | wc -l)"
says "status counts all of them" "500 100" "$(azoth status --json | jq -r '.store | "\(.events) \(.events_archived)"')"
exits "once more there is nothing to do" 0 "0 events in 0 segments; events up to 100 are archived" archive --before 120
exits "nor for fewer" 0 "0 events in 0 segments; events up to 100 are archived" archive --before 20
exits "which is told before, too" 0 "events up to 100 are archived: there is nothing to do" archive --before 20 --dry-run
exits "more goes into more files" 0 "300 events in 3 segments" archive --keep-events 100 --segment-events 75
says "one behind the other" "1-100 101-200 201-300 301-400" "$(archive list --json | jq -r '[.segments[] | "\(.first)-\(.last)"] | join(" ")')"
says "the log is one still" "1 500 500" "$(ids)"
exits "all may go" 0 "events up to 500 are archived" archive --keep-events 0
says "the chain's last value is the last segment's" "$(azoth status | awk '$1 == "chain" { print $2 }')" \
    "$(archive list --json | jq -r '.segments[-1].chain')"
check "and more may come" commit 100
says "in one log" "1 600 600" "$(ids)"
"$BUILD/azoth-worker" --dir "$AZOTH_DIR" --name 1 2>"$TMP/worker.log" & pids+=($!)
check "a worker comes" until_true 20 sh -c "'$BUILD/azoth' events --at ipc://$AZOTH_DIR/run/worker-1.sock --last 1 >/dev/null"
says "and has one log too" "1 600 600" "$(ids --at "ipc://$AZOTH_DIR/run/worker-1.sock")"
exits "days count from now" 0 "0 events in 0 segments" archive --keep-days 1
exits "all segments are good" 0 "good" archive verify
azoth archive --keep-days 0 --json >"$TMP/json" 2>&1
says "a run as JSON" "true 600 1 100" "$(jq -r '"\(.ok) \(.end) \(.segments | length) \(.events)"' "$TMP/json")"

# ---- with projections ----
define p
exits "what a projection has not applied is refused, and it is named" 1 "projection p has applied events up to 0 only" archive --keep-events 0
feed() { "$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>>"$TMP/feed.log" & f=$!; pids+=($f); }
feed
projector() { "$BUILD/azoth-projector" --dir "$AZOTH_DIR" "$1" 2>>"$TMP/$1.log" & p=$!; pids+=($p); }
projector p
check "a new projection is fed from segments" caught_up p
says "from event 1 on" "300 300 599" "$(rows p)"
check "more events" commit 200
check "are applied" caught_up p
exits "and go" 0 "events up to 700 are archived" archive --keep-events 100
check "a rebuild reads through segments" azoth projection rebuild p --quiet
says "and finds the same" "400 400 799" "$(rows p)"
exits "an account is proved through segments" 0 "events 1 to 800: its 400 handled" azoth verify --projection p
exits "definitions are tried over segments" 0 "events 1 to 800" azoth projection try "$projections/p.sql"
exits "and checked against the log" 0 "" azoth projection check "$projections/p.sql" --against-log --events 0
kill $p; wait $p 2>/dev/null
check "more events, which it does not get" commit 50
exits "one that is away is waited for" 1 "projection p has applied events up to 800 only" archive --keep-events 0
mv "$projections/p.sql" "$TMP/p.sql"
exits "one without a definition too" 1 "is gone for good (--gone NAME)" archive --keep-events 0
exits "unless it is gone" 0 "events up to 850 are archived" archive --keep-events 0 --gone p
mv "$TMP/p.sql" "$projections/p.sql"
projector p
check "if it comes back it is fed from segments at its cursor" caught_up p
says "with each event once" "425 425 849" "$(rows p)"

# ---- under load ----
(sent=$sent; while [ ! -e "$TMP/enough" ]; do commit 100 || break; done; echo "$sent" >"$TMP/sent") & load=$!
bad=0 runs=0
for i in 1 2 3 4 5 6; do
    before=$(azoth lag p --json | jq .head)
    until_true 20 sh -c "[ \$('$BUILD/azoth' lag p --json | jq .head) -gt $((before + 300)) ]"
    archive --before "$before" --segment-events 500 >"$TMP/out" 2>&1 || { grep -q 'has applied events' "$TMP/out" || { cat "$TMP/out"; bad=1; }; }
    got=$(ids --to "$before")
    [ "$got" = "1 $((before - 1)) $((before - 1))" ] || { echo "# $got before $before"; bad=1; }
    runs=$((runs + 1))
done
touch "$TMP/enough"; wait $load; sent=$(cat "$TMP/sent")
says "while events come, the log is one after each run" "0 6" "$bad $runs"
check "the projection follows" caught_up p
exits "with each event once" 0 "events 1 to $sent: its $((sent / 2)) handled" azoth verify --projection p
says "all of the log" "1 $sent $sent" "$(ids)"
exits "all of the segments are good" 0 "good" archive verify
exits "and all of the store, with its chain from event 1 on" 0 "recomputed" azoth verify

# ---- a full disk, files in the way ----
commit 100; azoth lag p --wait --timeout 20 >"$TMP/out"
list=$(archive list --json | jq -c '.segments'); files=$(ls "$AZOTH_DIR/archive")
if [ -e "$BUILD/tests/fault/fail_io.so" ] && ! ldd "$BUILD/azoth" | grep -q 'lib[at]san'; then
    touch "$TMP/full"
    full() { LD_PRELOAD=$BUILD/tests/fault/fail_io.so AZOTH_FAIL_DIR=$AZOTH_DIR/archive AZOTH_FAIL_FULL=$TMP/full "$BUILD/azoth" archive --keep-events 0; }
    exits "a full disk" 4 "AZOTH_ERR_NOSPACE" full
    says "changes nothing" "$list $files" "$(archive list --json | jq -c '.segments') $(ls "$AZOTH_DIR/archive")"
else
    echo "skip - no disk can be made to look full here"
fi
next=$(($(archive list --json | jq .last_archived) + 1))
name=$(printf 'events-%020d-%020d.azs' $next $sent)
echo "none of ours" >"$AZOTH_DIR/archive/$name"
exits "a file in the way is named, and stays" 2 "$name is there, and is not recorded" archive --keep-events 0
says "as it was" "none of ours" "$(cat "$AZOTH_DIR/archive/$name")"
rm "$AZOTH_DIR/archive/$name"
echo "of a dead one" >"$AZOTH_DIR/archive/$(printf 'events-%020d-%s.partial' $next "$(cat "$AZOTH_DIR/uuid")")"
exits "what a dead one has left is replaced" 0 "events up to $sent are archived" archive --keep-events 0
says "and nothing is left" 0 "$(ls "$AZOTH_DIR/archive" | grep -c partial)"

cp -r "$AZOTH_DIR" "$TMP/twin"
(export AZOTH_DIR=$TMP/twin; azoth tx --embedded '{"events":[{"type":"other"},{"type":"history"}]}'; azoth archive --embedded --keep-events 0 --gone p) >"$TMP/out" 2>&1
mv "$TMP/twin/archive/$(ls "$TMP/twin/archive" | tail -1)" "$AZOTH_DIR/archive/"
left=$AZOTH_DIR/archive/$(ls "$AZOTH_DIR/archive" | tail -1)
says "a file of another history lies in the way of events $((sent + 1)) and $((sent + 2))" "${left##*/}" "$(printf 'events-%020d-%020d.azs' $((sent + 1)) $((sent + 2)))"
azoth tx "{\"events\":[{\"type\":\"odd\",\"data\":{\"v\":$((sent + 1))}},{\"type\":\"even\",\"data\":{\"v\":$((sent + 2))}}]}" >"$TMP/out"; sent=$((sent + 2))
check "the projection has these" caught_up p
exits "it is not taken for what a dead run has left" 0 "2 events in 1 segments" archive --keep-events 0
says "and what was committed is what is read" "$((sent - 1)) $sent 2" "$(ids --from $((sent - 1)))"

# ---- elsewhere ----
if [ -e "$BUILD/tests/fault/fail_io.so" ] && ! ldd "$BUILD/azoth" | grep -q libasan; then
    mkdir "$TMP/elsewhere"; touch "$TMP/full"; list=$(archive list --json | jq -c '.segments'); files=$(ls "$AZOTH_DIR/archive")
    exits "to a full disk none is moved" 4 "AZOTH_ERR_NOSPACE" env LD_PRELOAD="$BUILD/tests/fault/fail_io.so" AZOTH_FAIL_DIR="$TMP/elsewhere" AZOTH_FAIL_FULL="$TMP/full" "$BUILD/azoth" archive --move "$TMP/elsewhere"
    says "nothing is there, and all where it was" " $list $files" "$(ls "$TMP/elsewhere") $(archive list --json | jq -c '.segments') $(ls "$AZOTH_DIR/archive")"
    rm "$TMP/full"
fi
exits "segments are moved" 0 "segments moved to $TMP/elsewhere" archive --move "$TMP/elsewhere"
says "all of them" "0 $(archive list --json | jq '.segments | length')" "$(ls "$AZOTH_DIR/archive" | wc -l) $(ls "$TMP/elsewhere" | wc -l)"
says "are read there" "1 $sent $sent" "$(ids)"
mv "$TMP/elsewhere" "$TMP/linked"; ln -s "$TMP/linked" "$TMP/elsewhere"; rmdir "$AZOTH_DIR/archive"; ln -s "$TMP/linked" "$AZOTH_DIR/archive"
exits "to where they are by another path" 0 "segments moved to $TMP/linked" archive --move "$TMP/elsewhere"
says "they stay" "1 $sent $sent" "$(ids)"
exits "also when nothing is to be moved" 0 "0 segments moved" archive --move "$AZOTH_DIR/archive"
says "all of them" "1 $sent $sent" "$(ids)"
rm "$AZOTH_DIR/archive" "$TMP/elsewhere"; mkdir "$AZOTH_DIR/archive" "$TMP/elsewhere"; archive --move "$TMP/elsewhere" >"$TMP/out"
check "more events" commit 50
check "that are applied" caught_up p
exits "the next one lies beside them" 0 "$TMP/elsewhere/events-" archive --keep-events 0
exits "and all come back" 0 "moved to $AZOTH_DIR/archive" archive --move "$AZOTH_DIR/archive"
mv "$AZOTH_DIR/archive" "$TMP/by-hand"
exits "what was moved by hand is recorded" 0 "segments moved to $TMP/by-hand" archive --move "$TMP/by-hand"
says "and read" "1 $sent $sent" "$(ids)"
first=$TMP/by-hand/$(ls "$TMP/by-hand" | head -1)
cp "$first" "$TMP/first"; chmod u+w "$first"
printf '\xff' | dd of="$first" bs=1 seek=200 conv=notrunc status=none
exits "one that is damaged is named where it is, and stays there" 4 "azoth: $first: the block from event 1 on" archive --move "$AZOTH_DIR/archive"
exits "which verify says" 4 "azoth: $first: the block from event 1 on" archive verify --quiet
says "and no more" 1 "$(wc -l <"$TMP/out")"
cp -p "$TMP/first" "$first"
exits "put back, it comes along" 0 "segments moved to $AZOTH_DIR/archive" archive --move "$AZOTH_DIR/archive"
cp -r "$AZOTH_DIR" "$TMP/copy"
says "a copy of the directory reads its own files" "1 $sent $sent" "$(mv "$AZOTH_DIR/archive" "$TMP/away" && AZOTH_DIR=$TMP/copy ids; mv "$TMP/away" "$AZOTH_DIR/archive")"

# ---- damage ----
segment=$AZOTH_DIR/$(archive list --json | jq -r '.segments[1].path')
mv "$segment" "$TMP/segment"
exits "a segment that is not there is an error with its name" 1 "${segment##*/}: the segment is not there (AZOTH_ERR_NOT_FOUND)" azoth events
says "what lies behind it is read" "201 $sent $((sent - 200))" "$(ids --from 201)"
check "more events" commit 50
mv "$AZOTH_DIR/archive" "$TMP/none"
says "with no segment at all, the newest are" "$((sent - 9)) $sent 10" "$(ids --last 10)"
says "through a worker, too" "$((sent - 9)) $sent 10" "$(ids --at "ipc://$AZOTH_DIR/run/worker-1.sock" --last 10)"
mv "$TMP/none" "$AZOTH_DIR/archive"
exits "verify names it" 1 "${segment##*/}" archive verify
says "and goes on" "1" "$(archive verify --json 2>/dev/null | jq '[.segments[] | select(.ok | not)] | length')"
exits "the check of the whole store finds it" 1 "azoth: segment: $segment: the segment is not there; events 101 to 200 can not be read (AZOTH_ERR_NOT_FOUND)" azoth verify
says "once, and goes on" "1 101 $((sent - 100)) false" "$(azoth verify --json 2>/dev/null | jq -r '.store | "\(.findings | length) \(.findings[0].event) \(.events) \(.chain_checked)"')"
define q
kill $f; wait $f
feed # which has no file open yet
projector q
check "a projection that comes to it is told" until_true 20 sh -c "'$BUILD/azoth' lag q --json | jq -r '.projections[0].last_failure.message' | grep -q 'is not there'"
kill $p 2>/dev/null; wait $p 2>/dev/null
check "the other one goes on" commit 50
# Unless it subscribed anew while its last event's segment was away: it was told so and ended, and what supervises it starts it again.
! tail -n 1 "$TMP/p.log" | grep -q '^<3>stopping: .* the segment is not there' || projector p
check "with new events" caught_up p
cp "$TMP/segment" "$segment"; chmod u+w "$segment"
printf '\xff' | dd of="$segment" bs=1 seek=200 conv=notrunc status=none
exits "a byte that changed is found by who reads it" 4 "the block from event 101 on fails its check (AZOTH_ERR_CORRUPT)" azoth events
exits "and by verify" 4 "fails its check" archive verify
exits "and by the check of the whole store" 1 "fails its check; events 101 to 200 can not be read (AZOTH_ERR_CORRUPT)" azoth verify
says "which tells one block once" 1 "$(azoth verify --json 2>/dev/null | jq -r '.store.findings | length')"
cp "$segment" "$TMP/other" && cp "$AZOTH_DIR/$(archive list --json | jq -r '.segments[0].path')" "$segment" 2>/dev/null
exits "another segment in its place too" 4 "is not the segment that was recorded" azoth events
rm -f "$segment"; mv "$TMP/segment" "$segment"
says "put back, it is good" "1 $sent $sent" "$(ids)"
projector q
check "and the projection goes on" caught_up q
exits "each event once" 0 "its $((sent / 2)) handled" azoth verify --projection q

if [ "$(id -u)" = 0 ]; then
    chown 65534 "$AZOTH_DIR"
    commit 50; azoth lag p q --wait --timeout 20 >"$TMP/out"
    exits "the superuser archives" 0 "100 events" archive --keep-events 50
    says "for whom the directory is" 65534 "$(stat -c %u "$AZOTH_DIR/archive/$(ls "$AZOTH_DIR/archive" | tail -1)")"
    chown 0 "$AZOTH_DIR"
fi
for pid in "${pids[@]}"; do [ "$pid" = "$w" ] || { kill "$pid"; wait "$pid"; } 2>/dev/null; done
kill $w; wait $w # the last one, which takes the shared objects away
exits "without a writer nothing is archived" 3 "AZOTH_ERR_NO_WRITER" archive --keep-events 0
exits "but by one of its own" 0 "are archived" archive --keep-events 0 --embedded

# ---- damage to what is recorded of them ----
damaged() { # SENTENCE TEXT DAMAGE...: what verify says of it
    rm -rf "$TMP/copy"; cp -r "$AZOTH_DIR" "$TMP/copy"
    "$BUILD/tests/system/damage" "$TMP/copy" "${@:3}"
    AZOTH_DIR=$TMP/copy exits "$1" 1 "$2" azoth verify
}
hex() { printf %s "$1" | od -An -tx1 | tr -d ' \n'; }
newest=$(archive list --json | jq .last_archived)
damaged "a segment's record that is damaged" "the record of the segment up to event 200 fails its check; events 101 to 200 can not be read" flip meta "$(hex segment:)$(printf %016x 200)" 20
says "what lies behind it is read" "201 $newest $((newest - 200))" "$(AZOTH_DIR=$TMP/copy ids --from 201)"
damaged "all records, without what tells of them" "azoth: segment: meta/archive knows of events up to 0, and a segment up to event 100 is recorded" delete meta "$(hex archive)"
says "is one finding, and the gap another" 2 "$(grep -cE 'is recorded|missing' "$TMP/out")"
AZOTH_DIR=$TMP/copy exits "a list says it too" 4 "is recorded (AZOTH_ERR_CORRUPT)" archive list
checks_end

#!/bin/bash
# A projector on a full disk: it waits, says so, and goes on when there is room, with each event in its rows once; one
# of effects too, whose ledger does not fit.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
if ldd "$BUILD/azoth-projector" | grep -q 'lib[at]san'; then echo "skip - what is preloaded comes before a sanitizer's runtime"; exit 0; fi
printf -- '-- azoth: projection p\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);\n-- azoth: on a\nINSERT INTO t VALUES (@id, :v);\n' >"$AZOTH_DIR/projections/p.sql"
commit() { # HOW MANY [TYPE]
    local i list=
    for ((i = 0; i < $1; i++)); do list+=",{\"type\":\"${2-a}\",\"data\":{\"v\":\"$(printf '%0900d' $i)\"}}"; done
    echo "{\"events\":[${list:1}]}" | azoth tx - >"$TMP/out" 2>&1
}
rows() { azoth query p 'SELECT count(*), count(DISTINCT id), max(id) FROM t' | sed 1d | tr '\t' ' '; }
state() { azoth lag "$1" --json 2>/dev/null | jq -r '.projections[0].state'; }
is() { [ "$(state "$1")" = "$2" ]; }
waits_again() { sed '1,/stopped projection/d' "$TMP/p.log" | grep -q waiting; }
ended() { ! kill -0 "$1" 2>/dev/null; }

"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & pids+=($!)
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
projector() { # NAME
    LD_PRELOAD=$BUILD/tests/fault/fail_io.so AZOTH_FAIL_DIR=$AZOTH_DIR/projections AZOTH_FAIL_FULL=$TMP/full \
        "$BUILD/azoth-projector" --dir "$AZOTH_DIR" "$1" 2>>"$TMP/$1.log" & p=$!
    pids+=($p)
}
projector p
check "a projector runs" until_true 20 grep -q 'ready projection=p' "$TMP/p.log"
check "events are committed" commit 100
check "and projected" azoth lag p --wait --timeout 20
touch "$TMP/full"
check "more come while its disk is full" commit 300
check "it waits, and lag says so" until_true 20 is p retrying
says "with the reason" 1 "$(azoth lag p --json | jq -r '.projections[0].error' | grep -c 'full')"
check "the log says it" grep -q 'waiting for room on the disk' "$TMP/p.log"
check "and others" commit 10
says "what was there can be read" "100 100 100" "$(rows)"
check "it is still there" kill -0 $p
rm "$TMP/full"
check "with room it goes on" azoth lag p --wait --timeout 20
says "each event is there once" "410 410 410" "$(rows)"
exits "which is proved" 0 "its 410 handled, each once" azoth verify --projection p
says "it is the same process, which was ready once" "1 1" "$(kill -0 $p && echo 1) $(grep -c 'ready projection=p' "$TMP/p.log")"
check "the log says that too" grep -q 'there is room again' "$TMP/p.log"
check "and it has nothing to say any more" until_true 10 is p idle

touch "$TMP/full"
check "a full disk again" commit 300
check "is waited for again" until_true 20 is p retrying
kill $p
check "and stopped while it waits, it ends in order" until_true 20 ended $p
wait $p; says "with exit code 0" 0 $?
projector p
check "one that starts on a full disk waits as well" until_true 20 waits_again
rm "$TMP/full"
check "and goes on" azoth lag p --wait --timeout 30
says "with all of it" "710 710 710" "$(rows)"
kill $p; wait $p

# Each run of the command is a line; that of type c ends when somebody opens the gate, that of type d fails.
mkfifo "$TMP/gate" && exec 9<>"$TMP/gate"
export GATE=$TMP/gate DONE=$TMP/done
cat >"$AZOTH_DIR/projections/e.sql" <<'S'
-- azoth: projection e
-- azoth: effects case $AZOTH_EVENT_TYPE in c) read x <$GATE ;; d) exit 1 ;; esac; echo $AZOTH_EVENT_ID >>$DONE
-- azoth: on-error dead-letter
-- azoth: on b, c, d
S
ran() { [ "$(wc -l <"$DONE")" -ge "$1" ]; }
told() { [ "$(grep -c "$2" "$TMP/$1.log")" = "$3" ]; }
given() { sqlite3 -readonly "$AZOTH_DIR/projections/e.db" 'SELECT 1 FROM azoth_effects WHERE worker IS NOT NULL' | grep -q 1; }
# What was written and is free again inside of the file would be room.
given_back() { [ ! -s "$AZOTH_DIR/projections/e.g1.db-wal" ]; }
worker() { "$BUILD/azoth-effects" --dir "$AZOTH_DIR" e 2>>"$TMP/worker.log" & w=$!; pids+=($w); }
projector e
worker
check "an event fails" azoth tx '{"events":[{"type":"d","data":{}}]}' >/dev/null
check "effects are caught up with" azoth lag e --wait --timeout 60
kill $w; wait $w # one that had asked when the disk was full would ask again some seconds later
check "nothing is left to do" until_true 10 given_back
touch "$TMP/full"
check "more events come while the ledger's disk is full" commit 50 b
check "it waits, and lag says so" until_true 20 is e retrying
says "with the reason" 1 "$(azoth lag e --json | jq -r '.projections[0].error' | grep -c 'full')"
exits "a command about its letters, for which there is no room, is refused by name" 4 AZOTH_ERR_NOSPACE \
    env LD_PRELOAD="$BUILD/tests/fault/fail_io.so" AZOTH_FAIL_DIR="$AZOTH_DIR/projections" AZOTH_FAIL_FULL="$TMP/full" \
    "$BUILD/azoth" dlq retry e 711
exits "one that finds room is done" 0 queued azoth dlq retry e 711
check "it still waits" is e retrying
rm "$TMP/full"
worker
check "with room it goes on" azoth lag e --wait --timeout 60
check "and says so" until_true 10 told e 'there is room again' 1
check "nothing is left to do" until_true 10 given_back
check "an event is given to a worker" azoth tx '{"events":[{"type":"c","data":{}}]}' >/dev/null
check "whose command runs" until_true 10 given
touch "$TMP/full"
echo >&9
check "what it reports does not fit" until_true 20 is e retrying
check "which is said" until_true 10 told e 'waiting for room on the disk' 2
rm "$TMP/full"
check "it is heard when there is room" azoth lag e --wait --timeout 20
says "each event's command was run once" "51 51" "$(wc -l <"$DONE") $(sort -u "$DONE" | wc -l)"
exits "which is proved" 0 "each once" azoth verify --projection e
says "it is the same process" "1 1" "$(kill -0 $p && echo 1) $(grep -c 'ready projection=e' "$TMP/e.log")"
check "and has nothing to say any more" until_true 10 is e idle
checks_end

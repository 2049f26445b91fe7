#!/bin/bash
# A projector on a full disk: it waits, says so, and goes on when there is room, with each event in its rows once.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
if ldd "$BUILD/azoth-projector" | grep -q libasan; then echo "skip - what is preloaded comes before a sanitizer's runtime"; exit 0; fi
printf -- '-- azoth: projection p\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);\n-- azoth: on a\nINSERT INTO t VALUES (@id, :v);\n' >"$AZOTH_DIR/projections/p.sql"
commit() { # HOW MANY
    local i list=
    for ((i = 0; i < $1; i++)); do list+=",{\"type\":\"a\",\"data\":{\"v\":\"$(printf '%0900d' $i)\"}}"; done
    echo "{\"events\":[${list:1}]}" | azoth tx - >"$TMP/out" 2>&1
}
rows() { azoth query p 'SELECT count(*), count(DISTINCT id), max(id) FROM t' | sed 1d | tr '\t' ' '; }
state() { azoth lag p --json 2>/dev/null | jq -r '.projections[0].state'; }
is() { [ "$(state)" = "$1" ]; }
waits_again() { sed '1,/stopped projection/d' "$TMP/p.log" | grep -q waiting; }
ended() { ! kill -0 "$1" 2>/dev/null; }

"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & pids+=($!)
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
projector() {
    LD_PRELOAD=$BUILD/tests/fault/fail_io.so AZOTH_FAIL_DIR=$AZOTH_DIR/projections AZOTH_FAIL_FULL=$TMP/full \
        "$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>>"$TMP/p.log" & p=$!
    pids+=($p)
}
projector
check "a projector runs" until_true 20 grep -q 'ready projection=p' "$TMP/p.log"
check "events are committed" commit 100
check "and projected" azoth lag p --wait --timeout 20
touch "$TMP/full"
check "more come while its disk is full" commit 300
check "it waits, and lag says so" until_true 20 is retrying
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
check "and it has nothing to say any more" until_true 10 is idle

touch "$TMP/full"
check "a full disk again" commit 300
check "is waited for again" until_true 20 is retrying
kill $p
check "and stopped while it waits, it ends in order" until_true 20 ended $p
wait $p; says "with exit code 0" 0 $?
projector
check "one that starts on a full disk waits as well" until_true 20 waits_again
rm "$TMP/full"
check "and goes on" azoth lag p --wait --timeout 30
says "with all of it" "710 710 710" "$(rows)"
checks_end

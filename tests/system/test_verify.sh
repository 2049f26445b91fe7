#!/bin/bash
# azoth verify --projection: that it proves what was handled, and finds each way in which it was not.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
project() { timeout 20 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" --once "$@" p >>"$TMP/projector.log" 2>&1; }
commit() { azoth tx --embedded "{\"events\":[$1]}" >/dev/null; }
event() { printf '{"type":"%s","data":{"v":%s}}' "$1" "$2"; }
define() { # MARKS TYPES
    printf -- '-- azoth: projection p\n%b-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER, v CHECK (v > 0));\n-- azoth: on %s\nINSERT INTO t VALUES (@id, :v);\n' "$1" "$2" >"$AZOTH_DIR/projections/p.sql"
}
file() { readlink -f "$AZOTH_DIR/projections/p.db"; }
sql() { sqlite3 "$(file)" "$1"; }

define '-- azoth: on-error dead-letter\n-- azoth: on-error retry 2 1ms..2ms then log-and-skip for b\n' 'a, b'
exits "a projection that has not begun" 1 "projection p has no file: no projector has begun it" azoth verify --projection p
commit "$(event a 1),$(event b 2),$(event other 3),$(event a 0),$(event b 0),$(event a 6)"
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
project
exits "applied, dead-lettered and skipped ones are handled" 0 "p: events 1 to 6: its 5 handled, each once, in order" azoth verify --projection p
says "there is a dead letter among them" "1|3" "$(sql 'SELECT (SELECT count(*) FROM azoth_dlq), (SELECT count(*) FROM t)')"
commit "$(event a 7),$(event other 8)"
exits "newer events do not matter" 0 "events 1 to 6" azoth verify --projection p
project
exits "the account goes on with the next process" 0 "p: events 1 to 8: its 6 handled" azoth verify --projection p

define '-- azoth: on-error dead-letter\n' 'a, other'
commit "$(event b 9),$(event other 10)"
project --accept-changed
exits "with other types a new span begins" 0 "p: events 1 to 10: its 7 handled" azoth verify --projection p
says "each has its own filter" "1 8 6 true 9 10 1 true" \
    "$(azoth verify --all-projections --json | jq -r '[.projections[0].spans[] | "\(.from) \(.to) \(.handled) \(.same)"] | join(" ")')"

cp "$(file)" "$TMP/keep"
restore() { rm -f "$(file)-wal" "$(file)-shm"; cp "$TMP/keep" "$(file)"; }
wrong() { # SENTENCE CODE TEXT SQL
    sql "$4"
    exits "$1" "$2" "$3" azoth verify --projection p
    restore
}
wrong "one event less was handled" 4 "of events 1 to 8 the log has 6 for it, and it has handled 5" "UPDATE azoth_coverage SET events = events - 1 WHERE from_event = 1"
wrong "another event was handled" 4 "of events 9 to 10 it has handled 1, but not those of the log" "UPDATE azoth_coverage SET hash = hash + 1 WHERE from_event = 9"
wrong "a span that is about more events" 4 "events 8 to 10 the log has 2 for it, and it has handled 1" "UPDATE azoth_coverage SET from_event = 8 WHERE from_event = 9"
wrong "the cursor is beyond the log" 4 "cursor 999 is beyond the log's head 10" "UPDATE azoth_projection SET cursor = 999"
wrong "the file follows another database" 4 "another database" "UPDATE azoth_projection SET uuid = zeroblob(16)"
wrong "a file of a version without an account" 2 "keeps no account yet" "DROP TABLE azoth_coverage"
wrong "an account that began later" 2 "begins at event 9" "DELETE FROM azoth_coverage WHERE from_event = 1"
exits "what is whole is still proved" 0 "p: events 1 to 10" azoth verify --projection p
says "JSON tells what is wrong" "false AZOTH_ERR_CORRUPT" \
    "$(sql 'UPDATE azoth_coverage SET hash = 0'; azoth verify --projection p --json 2>/dev/null | jq -r '"\(.ok) \(.projections[0].error)"')"
restore

sql 'UPDATE azoth_projection SET cursor = 999'
project
says "with a sentence about it" "1" "$(grep -c "cursor 999 is beyond the log's head 10: the rows are of another log than this.*azoth projection rebuild" "$TMP/projector.log")"
restore
exits "alone it is about the store" 0 "10 events in 3 transactions" azoth verify
check "and no projection" sh -c "! grep -q '^p:' '$TMP/out'"
exits "both are asked for by --store" 0 "10 events in 3 transactions" azoth verify --store --projection p
check "each is told" grep -q "^p: events 1 to 10" "$TMP/out"
exits "not both" 2 "which projection?" azoth verify --projection p --all-projections
exits "a bad name" 2 "no name of a projection" azoth verify --projection ../p

# ---- rows

printf -- '-- azoth: projection q\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v);\n-- azoth: on a, b, other\nINSERT INTO t VALUES (@id, :v);\n' >"$AZOTH_DIR/projections/q.sql"
exits "one that has no file has no rows to compare" 1 "projection q has no file: no projector has begun it" azoth verify --projection q --replay
timeout 20 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" --once q >>"$TMP/projector.log" 2>&1
exits "the rows of one are those of the log" 0 "q: replayed up to event 10: its 10 rows in 1 tables are those of the log" azoth verify --projection q --replay
q() { sqlite3 "$(readlink -f "$AZOTH_DIR/projections/q.db")" "$1"; }
q 'UPDATE t SET v = 99 WHERE id = 4'
exits "its account says nothing of a row that somebody changed" 0 "q: events 1 to 10: its 10 handled" azoth verify --projection q
exits "a replay of all that there is tells it, too" 4 "q: at event 10, table t: 0 rows are too many" azoth verify --replay
exits "a replay does" 4 "q: at event 10, table t: 0 rows are too many, 0 are missing, 1 are different (AZOTH_ERR_CORRUPT)" azoth verify --projection q --replay
q 'DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (77, 1)'
says "in JSON, too" "false false 1 1 0" "$(azoth verify --projection q --replay --json 2>/dev/null | jq -r '"\(.ok) \(.replays[0] | "\(.ok) \(.removed) \(.added) \(.changed)")"')"

# ---- one that runs commands

printf -- '-- azoth: projection e\n-- azoth: effects true\n-- azoth: on a\n' >"$AZOTH_DIR/projections/e.sql"
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" e 2>>"$TMP/projector.log" & pids+=($!)
check "effects are taken" until_true 20 azoth verify --projection e
exits "they are not replayed" 2 "effects run a command for each event" azoth verify --projection e --replay
rm "$AZOTH_DIR"/projections/[pq].sql
exits "among all that is told, and no failure" 0 "e: not replayed: " azoth verify --all-projections --replay
says "in JSON, too" "true e null" "$(azoth verify --all-projections --replay --json | jq -r '"\(.ok) \(.replays[0] | "\(.name) \(.ok)")"')"
# ---- all there is

says "alone it is of the store, too" "10 e" "$(azoth verify --replay --json | jq -r '"\(.store.events) \(.replays[0].name)"')"
rm "$AZOTH_DIR"/projections/e.sql
exits "without projections all is the store" 0 "10 events in 3 transactions" azoth verify --replay

checks_end

#!/bin/bash
# azoth projection try: what it counts and tells of a definition run over the log, how it compares with the live
# projection, and that it leaves nothing behind, changes nothing and waits for nothing.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db TMPDIR=$TMP/tmp
mkdir "$TMPDIR"
azoth init "$AZOTH_DIR" >/dev/null
commit() { azoth tx --embedded "{\"events\":[$1]}" >/dev/null; }
event() { printf '{"type":"%s","data":{"k":%s,"v":%s}}' "$1" "$2" "$3"; }
project() { timeout 20 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" --once "$@" >>"$TMP/projector.log" 2>&1; }
define() { # FILE MARKS [SQL...]
    local file=$1; shift
    { printf -- '-- azoth: projection p\n%b' "$1"; shift
      printf -- '-- azoth: migration 1 t\nCREATE TABLE t (k INTEGER PRIMARY KEY, v INTEGER CHECK (v > 0));\nCREATE TABLE log (type, v);\n'
      printf '%b\n' "$@"; } >"$file"
}
PUT='-- azoth: on put\nINSERT INTO t VALUES (:k, :v) ON CONFLICT (k) DO UPDATE SET v = v + excluded.v;\nINSERT INTO log VALUES (@type, :v);'
GONE='-- azoth: on gone\nDELETE FROM t WHERE k = :k;'
trial() { azoth projection try "$F" "$@"; }
F=$TMP/p.sql
live=$AZOTH_DIR/projections/p.sql
left() { ls -A "$TMPDIR" | wc -l; }

commit "$(event put 1 10),$(event put 2 20),$(event put 3 30),$(event gone 3 0),$(event put 2 2),$(event other 1 1)"
define "$F" '' "$PUT" "$GONE"
exits "all events are looked at" 0 "p: events 1 to 6 (the newest is 6) in" trial
check "handled are those of its types" grep -qE '^  put +4 +4 +0 +0 +[0-9]+  fail-fast' "$TMP/out"
exits "without a live projection that is said" 0 "not compared: there is no live projection p here" trial
says "nothing was made among the projections" "0" "$(ls "$AZOTH_DIR/projections" | grep -c '\.db')"
says "nor left where the scratch was" "0" "$(left)"

cp "$F" "$live"
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
project p
exits "the same definition makes the same rows" 0 "  t: 2 rows live, 2 here: the same" trial
check "compared at the same event" grep -qF "compared with the live projection at event 6" "$TMP/out"
check "a table without a key as well" grep -qF "  log: 4 rows live, 4 here: the same" "$TMP/out"

define "$F" '' "${PUT/v + excluded.v/v + 2 * excluded.v}\nINSERT INTO log SELECT @type, :v WHERE :v = 30;" '-- azoth: migration 2 more\nCREATE TABLE more (x);' '-- azoth: on other\nINSERT INTO t VALUES (9, :v);'
cat "$F" >"$TMP/other.sql"
exits "another definition's rows are compared by their keys" 0 "  t: 2 rows live, 4 here: 0 removed, 2 added, 1 changed" trial
says "each is shown" "    + k=3 v=30
    + k=9 v=1
    - k=2 v=22
    + k=2 v=24" "$(grep -A4 '^  t: ' "$TMP/out" | tail -4)"
check "whole rows when there is no key, and how many" grep -qF "  log: 4 rows live, 5 here: 0 removed, 1 added, 0 changed (whole rows: no primary key in common)" "$TMP/out"
check "which row" grep -qF "    + type='put' v=30" "$TMP/out"
check "a table of one alone" grep -qF "  more: 0 rows live, 0 here; the table is here alone" "$TMP/out"
says "as many rows as are wanted" "1" "$(trial --rows 1 | grep -A5 '^  t: ' | grep -c '^    ')"
says "JSON has it all" "true 6 put:4:4:0 other:1:1:0 | log:0:1:0 more:0:0:0 t:0:2:1 | +:[3,30] +:[9,1] -:[2,22] +:[2,24]" \
    "$(trial --json | jq -r '"\(.ok) \(.looked_at) \([.types[] | "\(.type):\(.events):\(.handled):\(.failed)"] | sort | reverse | join(" ")) | \([.diff.tables[] | "\(.table):\(.removed):\(.added):\(.changed)"] | join(" ")) | \([.diff.tables[2].rows[] | "\(.sign):\(.values | tostring)"] | join(" "))"')"
sed -i 's/v INTEGER CHECK (v > 0)/w INTEGER, v INTEGER/; s/INTO t VALUES (:k, :v)/INTO t (k, v) VALUES (:k, :v)/; s/INTO t VALUES (9, :v)/INTO t (k, v) VALUES (9, :v)/' "$F"
exits "columns of one alone are left out" 0 "columns of one alone are left out: +w" trial
says "and the others compared" "1" "$(grep -c "t: 2 rows live, 4 here: 0 removed, 2 added, 1 changed" "$TMP/out")"

# Failures: three of put, of two reasons; what becomes of them is the definition's.
commit "$(event put 4 0),$(event put 4 -1),"'{"type":"put","data":{"v":1}},'"$(event put 5 50)"
define "$F" '' "$PUT"
exits "what would stop it is told with its place" 1 "  failed: event 7 (put): $F:6: CHECK constraint failed: v > 0" trial
check "each of them" grep -qF "  failed: event 9 (put): $F:6: the payload has no field \"k\"" "$TMP/out"
check "how many" grep -qF "  3 would stop the projection, and were passed over" "$TMP/out"
check "and the rest was handled" grep -qE '^  put +8 +5 +3 +0' "$TMP/out"
check "the live one stands at event 6, and so far it is compared" grep -qF "compared with the live projection at event 6" "$TMP/out"
exits "--strict stops there" 1 "azoth: event 7 (put): $F:6: CHECK" trial --strict
check "having looked at what came before" grep -qF "events 1 to 6 (the newest is 10)" "$TMP/out"
define "$F" '-- azoth: on-error retry 1000 10min..10min then dead-letter\n-- azoth: order-by :k\n-- azoth: breaker 1 failures in 10min, open 10min\n' "$PUT" "$GONE"
exits "what waits between attempts and behind a breaker does not here" 0 "  2 dead letters, 1 waiting behind one, 0 skipped" timeout 20 "$BUILD/azoth" projection try "$F"
check "what follows a dead letter is parked" grep -qE '^  put +8 +5 +2 +1 +[0-9]+  retry 1000 then dead-letter' "$TMP/out"
define "$F" '-- azoth: on-error dead-letter\n-- azoth: on-error log-and-skip for put\n' "$PUT" "$GONE"
exits "what is skipped is counted" 0 "  0 dead letters, 0 waiting behind one, 3 skipped" trial
commit "$(printf "$(event put 6 0),%.0s" $(seq 100))$(event put 7 7)"
exits "of many the first are told" 0 "  and 100 more of \"put\"" trial
says "and all counted" "103" "$(trial --json | jq '.types[] | select(.type == "put").failed')"

exits "a stretch of the log begins with empty tables" 0 "  begun with empty tables at event 2" trial --from 2 --to 5
check "and is not compared" grep -qF "not compared: the scratch has nothing of the events before 2 (--diff compares)" "$TMP/out"
check "put of these" grep -qE '^  put +3 +3 +0' "$TMP/out"
exits "unless that is wanted" 0 "  t: 2 rows live, 1 here: 1 removed, 0 added, 0 changed" trial --from 2 --to 5 --diff
exits "what ends before the live one's cursor is not compared either" 0 "not compared: the live one has the events up to 6 as well (--diff compares)" trial --to 2
exits "unless wanted" 0 "compared with the live projection at event 2: the live one has the events up to 6 as well" trial --to 2 --diff
exits "--to beyond the log is its end" 0 "events 1 to 111 (the newest is 111)" trial --to 9999
exits "a stretch behind it is none" 2 "are none; the newest is 111" trial --from 200
says "nothing was left" "0" "$(left)"

exits "--keep keeps the file" 0 "kept: $TMP/kept.db" trial --keep "$TMP/kept.db"
says "with the rows, alone" "kept.db 4" "$(ls "$TMP" | grep kept | xargs) $(sqlite3 -readonly "$TMP/kept.db" 'SELECT count(*) FROM t')"
exits "it is not written over" 2 "$TMP/kept.db is there already" trial --keep "$TMP/kept.db"
project --accept-changed p
exits "the live projection was not touched" 0 "p: events 1 to 6: its 5 handled, each once, in order" azoth verify --projection p

# Decisions in C: an hour between attempts is not waited for, and what would be called in the projector is called.
cat >"$TMP/decides.c" <<'EOF'
#include "azoth_projection.h"
static enum azoth_projection_answer decide(void *state, const struct azoth_projection_event *ev,
                                           const struct azoth_projection_failure *why, uint64_t *ret_wait_ms)
{
    (void)state;
    (void)ev;
    *ret_wait_ms = 3600000;
    return why->attempts < 4 ? AZOTH_PROJECTION_RETRY : AZOTH_PROJECTION_DEAD_LETTER;
}
static const struct azoth_projection p[] = {{.name = "p", .version = 1, .on_error = decide}};
const struct azoth_projection_library *azoth_projections(void)
{
    static const struct azoth_projection_library library = {AZOTH_PROJECTION_ABI, 1, p};
    return &library;
}
EOF
cc -shared -fPIC -I"$root/client" -I"$root/core" "$TMP/decides.c" -o "$TMP/decides.so"
define "$F" '-- azoth: on-error custom\n' "$PUT" "$GONE"
exits "what decides in C must be there" 1 "on-error custom: no library" trial
exits "decisions in C are asked, and not waited for" 0 "  103 dead letters, 0 waiting behind one, 0 skipped" timeout 20 "$BUILD/azoth" projection try "$F" --load "$TMP/decides.so" --keep "$TMP/decided.db"
says "as often as they want" "4" "$(sqlite3 -readonly "$TMP/decided.db" 'SELECT min(attempts) FROM azoth_dlq')"

# Split in three, each with a cursor of its own.
define "$live" '-- azoth: on-error log-and-skip\n-- azoth: shard-by :k\n-- azoth: shards 3\n' "$PUT" "$GONE"
for i in 0 1 2; do project p "$i/3"; done
exits "the live rows of all shards are read as one" 0 "compared with the live projection at event 111" azoth projection try "$live"
says "and are the same" "log: 6 rows live, 6 here: the same t: 4 rows live, 4 here: the same" "$(grep '^  [a-z]*: [0-9]' "$TMP/out" | xargs)"
exits "what differs from them is found" 1 "  t: 4 rows live, 6 here: 0 removed, 2 added, 1 changed" azoth projection try "$TMP/other.sql"

define "$F" '' '-- azoth: on put\nINSERT INTO nowhere VALUES (1);'
exits "a definition that is wrong is refused with its place" 1 "p.sql:6:13: no such table: nowhere" trial
printf -- '-- azoth: projection p\n-- azoth: effects true\n-- azoth: on put\n' >"$F"
exits "effects are not run" 2 "effects run a command for each event: that is not tried" trial
exits "flags of try are not of others" 2 "are of try" azoth projection check "$F" --strict
exits "one file" 2 "takes the file of one definition" azoth projection try
exits "no database" 3 "AZOTH_ERR_NO_DATABASE" trial --dir "$TMP/nowhere"

# A live projection that goes on moving is compared as of one moment.
define "$AZOTH_DIR/projections/q.sql" '-- azoth: on-error dead-letter\n' "$PUT" "$GONE"
sed -i 's/projection p$/projection q/' "$AZOTH_DIR/projections/q.sql"
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" q 2>>"$TMP/projector.log" & pids+=($!)
check "a projector follows" azoth lag q --wait --timeout 20 >/dev/null
for i in $(seq 600); do printf '{"events":[%s,%s,%s]}\n' "$(event put $((i % 50)) 1)" "$(event put $i 0)" "$(event gone $((i % 7)) 0)"; done >"$TMP/more.json"
azoth tx --embedded - <"$TMP/more.json" >/dev/null & more=$!
moments=
for i in 1 2 3 4 5 6; do
    azoth projection try "$AZOTH_DIR/projections/q.sql" --json >"$TMP/out"
    moments+="$(jq -r '"\(.diff.at_event == .diff.live_cursor):\([.diff.tables[] | .removed + .added + .changed] | add) "' "$TMP/out")"
    [ $i = 1 ] && first=$(jq .diff.at_event "$TMP/out")
done
wait $more
says "each time both are at the same event, with the same rows" "true:0 true:0 true:0 true:0 true:0 true:0 " "$moments"
check "the first moment was in the middle" test "$first" -lt 1911

# A log that takes long enough to interrupt it: with many statements an event, and a look that needs no clock.
define "$F" '' "-- azoth: on filler\nINSERT INTO log WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT 1, i FROM n;"
printf '{"events":[%s]}\n' "$(printf '{"type":"filler","data":0},%.0s' $(seq 1000) | sed 's/,$//')" >"$TMP/filler.json"
azoth tx --embedded - <"$TMP/filler.json" >/dev/null
"$BUILD/azoth" projection try "$F" >"$TMP/out" 2>&1 & one=$!
while [ "$(left)" = 0 ] && kill -0 $one; do :; done
kill -INT $one
wait $one
says "interrupted it says so" "130" "$?"
says "and has left nothing" "0" "$(left)"

checks_end

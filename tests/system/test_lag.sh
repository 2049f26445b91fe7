#!/bin/bash
# azoth lag: why a projection is down, told after its process has died, after the feed was started anew and when it
# never reached the feed; that this ends when it gets on; rates; what a watcher sees.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
# Programs that end all at once, or are killed, leave their shared objects.
objects=$(azoth status --json | jq -r '"/dev/shm" + (.shm, .shm_gauges)')
trap 'finish; rm -f $objects' EXIT
sql=$AZOTH_DIR/projections/p.sql
define() { # ERRORS VALUE
    printf '%s\n' "-- azoth: projection p" "-- azoth: on-error $1" \
        "-- azoth: migration 1 make t" "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER CHECK (v < 100));" \
        "-- azoth: on put" "INSERT INTO t VALUES (@id, $2);" >"$sql"
}
lag() { azoth lag --json p | jq -r ".projections[0] | $1"; }
is() { [ "$(lag "$1")" = "$2" ]; }
put() { azoth tx "{\"events\":[{\"type\":\"put\",\"data\":{\"v\":$1}}]}" >/dev/null; }
feed() { "$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>>"$TMP/feed.log" & feed=$!; pids+=($feed); }
project() { timeout 60 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" "$@" p >"$TMP/out" 2>&1; }
gone() { kill -9 "$1"; wait "$1" 2>/dev/null; }

define fail-fast :v
"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & writer=$!; pids+=($!)
until_true 20 azoth tx '{"events":[{"type":"put","data":{"v":1}}]}'
feed
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>"$TMP/p.log" & projector=$!; pids+=($!)
check "it follows" quiet azoth lag p --wait --timeout 20
says "idle: nothing behind, nothing that failed" "idle 0 0 0 null" \
    "$(lag '"\(.state) \(.events_behind) \(.seconds_behind) \(.catch_up_s) \(.last_failure)"')"
for v in 1 2 3 4 5 6 7 8 9; do put $v; done
azoth lag p --wait --timeout 20 >"$TMP/out"
check "a rate is told, of the log as well" until_true 20 sh -c "'$BUILD/azoth' lag p --json |
    jq -e '.projections[0].events_s > 0 and .head_events_s > 0'"
says "a watcher sees it again and again" 3 "$(azoth lag --watch 10ms --json | head -3 | jq -r .projections[0].name | grep -c '^p$')"

# ---- an event that fails ----
put 500
wait $projector 2>/dev/null
says "the projector has ended" 1 $?
failing='"\(.state) \(.events_behind) \(.last_failure.event) \(.last_failure.code) \(.last_failure.times) \(.last_failure.message | test("^event 11 .put.: .*p.sql:6: CHECK constraint"))"'
check "why it is down: event, code and message" until_true 20 is "$failing" "failed 1 11 AZOTH_ERR_HANDLER 1 true"
since=$(lag .last_failure.since_ns)
now=$(date +%s%N)
check "since when" test $((now - since)) -ge 0 -a $((now - since)) -lt 60000000000
gone $feed
says "it is told when the feed has died" "failed 1 11 AZOTH_ERR_HANDLER 1 true" "$(lag "$failing")"
feed
exits "started again, it fails again" 1 "CHECK constraint" timeout 60 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" p
says "since the first time, and how often" "11 $since 2" "$(lag '"\(.last_failure.event) \(.last_failure.since_ns) \(.last_failure.times)"')"
check "the text says so" sh -c "'$BUILD/azoth' lag p | grep -q 'stands at event 11; since .*Z, 2 times'"
check "its age is that of the event" quiet sh -c "'$BUILD/azoth' lag p --json | jq -e '.projections[0].seconds_behind > 0 and .projections[0].seconds_behind < 120'"
check "it does not catch up" is .catch_up_s null

# ---- one that never reaches the feed ----
gone $feed
define fail-fast ':v + 0'
exits "another handler is refused at opening" 100 "handlers differ" timeout 60 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" p
says "why, though no feed was there to hear it" "null 1 true" \
    "$(lag '"\(.last_failure.event) \(.last_failure.times) \(.last_failure.message | contains("handlers differ"))"')"

# ---- it gets on ----
feed
define log-and-skip :v
check "with a definition that passes the event" project --accept-changed --once
check "nothing is told any more" until_true 20 is '"\(.events_behind) \(.last_failure)"' "0 null"
check "nothing is left" quiet sh -c "! ls '$AZOTH_DIR'/projections/*.last*"

# ---- one that retries ----
define 'retry 1000 30s..60s then fail-fast' :v
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" --accept-changed p 2>"$TMP/p.log" & projector=$!; pids+=($!)
check "it follows again" quiet azoth lag p --wait --timeout 20
put 600
check "one that is tried again says at which event" until_true 20 is '"\(.state) \(.stands_at_event)"' "retrying 12"
says "when it goes on, and what the failure is" "true 12 true" \
    "$(lag '"\(.next_attempt_s > 5 and .next_attempt_s <= 30) \(.last_failure.event) \(.last_failure.message | test("CHECK constraint"))"')"
gone $projector
gone $feed
says "also when projector and feed are dead" "silent 12 true" \
    "$(lag '"\(.state) \(.last_failure.event) \(.last_failure.since_ns > 0)"')"
says "who starts it again, nobody knows" null "$(lag .supervisor)"

# ---- a feed that died ----
says "azoth status does not tell what a feed said that is dead" silent "$(azoth status --json | jq -r '.projections[0].state')"
check "nor does its text" sh -c "'$BUILD/azoth' status | grep -Eq '^p +silent '"

# ---- shards of which one runs ----
rm "$AZOTH_DIR"/projections/p.*
sql=$AZOTH_DIR/projections/s.sql
define log-and-skip :v
sed -i 's/projection p/projection s\n-- azoth: shard-by :v\n-- azoth: shards 2/' "$sql"
feed
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" s 0/2 2>"$TMP/s.log" & pids+=($!)
shards() { azoth lag s --json | jq -c '[.projections[] | [.shard, .state, .events_behind]]'; }
is_shards() { [ "$(shards)" = "$1" ]; }
check "a shard that nobody runs is told of" until_true 20 is_shards '[[0,"idle",0],[1,"unseen",12]]'
exits "one that has applied nothing is over a limit" 1 "OVER" azoth lag s --max-events 11
exits "and waited for" 1 "s 1/2 has applied up to event 0, not yet event 12" azoth lag s --wait --timeout 100ms
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" s 1/2 2>"$TMP/s1.log" & pids+=($!)
check "until it runs" quiet azoth lag s --wait --timeout 20
check "then both are at the head" until_true 20 is_shards '[[0,"idle",0],[1,"idle",0]]'

# ---- flags that would say nothing ----
exits "a time to wait without waiting is refused" 2 "--timeout is how long --wait waits" azoth lag --timeout 5
exits "a watcher that never rests" 2 "every 10 ms at most" azoth lag --watch 0
exits "status: all of a segment without it" 2 "--all is of --segment" azoth status --all
exits "status: a segment that is watched" 2 "exclude each other" azoth status --watch --segment

# ---- more projections than there are rows for ----
for ((i = 0; i < 1030; i++)); do echo "-- azoth: projection m$i" >"$AZOTH_DIR/projections/m$i.sql"; done
says "so many are told of, and how many are not" "1024 9" "$(azoth lag --json | jq -r '"\(.projections | length) \(.left_out)"')"
check "the text says so" sh -c "'$BUILD/azoth' lag | tail -1 | grep -q '^9 more are not told of'"
azoth lag --max-events 1000000 >"$TMP/out" 2>&1
says "they are not known to be within limits" 1 $?
exits "nor waited for" 1 "name those that are wanted" azoth lag --wait --timeout 0
says "one is found by its name" "m1029 unseen" "$(azoth lag m1029 --json | jq -r '.projections[0] | "\(.name) \(.state)"')"
rm "$AZOTH_DIR"/projections/m*.sql

# ---- effects that nobody runs ----
printf '%s\n' "-- azoth: projection e" "-- azoth: effects true" "-- azoth: on put" >"$AZOTH_DIR/projections/e.sql"
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" e 2>"$TMP/e.log" & projector=$!; pids+=($!)
taken() { [ "$(azoth query e 'SELECT cursor FROM azoth_projection' | tail -1)" = 12 ]; }
check "all of them are taken from the feed" until_true 20 taken
gone $projector
gone $feed
says "none is settled, whatever the ledger has" "silent 0 12" "$(azoth lag e --json | jq -r '.projections[0] | "\(.state) \(.cursor) \(.events_behind)"')"
rm "$AZOTH_DIR"/projections/e.*

# ---- a log that went back ----
kill "${pids[@]}" 2>/dev/null
wait 2>/dev/null
mv "$AZOTH_DIR/data.mdb" "$TMP/data.mdb"
azoth init "$TMP/other" >/dev/null
cp "$TMP/other/data.mdb" "$AZOTH_DIR/data.mdb"
says "who is ahead of the log is told to be" '[[0,"diverged"],[1,"diverged"]]' "$(azoth lag s --json | jq -c '[.projections[] | [.shard, .state]]')"
azoth lag s --max-seconds 1h >"$TMP/out" 2>&1
says "it is not known to be within limits" 1 $?
exits "and has not applied an event of this one" 1 "follows another history" azoth lag s --wait 1 --timeout 0

# ---- under azoth run ----
mv "$TMP/data.mdb" "$AZOTH_DIR/data.mdb"
rm -f "$AZOTH_DIR"/projections/*
sql=$AZOTH_DIR/projections/p.sql
# What it is never to call, for a database that systemd has nothing to do with.
mkdir "$TMP/bin"
printf '#!/bin/sh\ntouch %s\n' "$TMP/called" >"$TMP/bin/systemctl"
chmod +x "$TMP/bin/systemctl"
PATH=$TMP/bin:$PATH
define fail-fast :v
"$BUILD/azoth" run --workers 1 --writer-sync none >"$TMP/run.out" 2>"$TMP/run.log" </dev/null & run=$!; pids+=($run)
waits='"\(.supervisor.by) \(.supervisor.unit) \(.supervisor.state) \(.supervisor.exit_code) \(.supervisor.next_start_s > 0 and .supervisor.next_start_s <= 5) \(.supervisor.starts_again > 0)"'
check "one that fails over and over: when it is started again" until_true 20 is "$waits" "azoth run projector-p waiting 1 true true"
text() { azoth lag p | grep -Eq '^ *azoth run starts projector-p again in [0-9.]+ (ms|s) \([0-9]+ times so far\)$'; }
check "in words as well" until_true 20 text
define fail-fast ':v + 0'
refused() { is '"\(.supervisor.by) \(.supervisor.state) \(.supervisor.exit_code)"' "azoth run failed 100"; }
check "one whose handlers differ is not" until_true 20 refused
check "and it says what for" sh -c "'$BUILD/azoth' lag p | grep -q 'azoth run starts it again when its definition, its file or its library has changed: exit code 100'"
define log-and-skip :v
check "it is when that has changed, and follows" until_true 20 is '"\(.state) \(.events_behind)"' "idle 0"
says "then there is nothing to say" null "$(lag .supervisor)"
check "nobody has asked systemd" test ! -e "$TMP/called"
disown $run
kill -9 $run
check "a supervisor that was killed starts nothing" until_true 20 is .supervisor null
check "the projector is gone with it" until_true 20 sh -c "! kill -0 $(grep -Eo 'started, pid [0-9]+' "$TMP/run.log" | grep -Eo '[0-9]+' | tail -1)"
checks_end

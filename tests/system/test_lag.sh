#!/bin/bash
# azoth lag: why a projection is down, told after its process has died, after the feed was started anew and when it
# never reached the feed; that this ends when it gets on; rates; what a watcher sees.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
sql=$AZOTH_DIR/projections/p.sql
define() { # ERRORS VALUE
    printf '%s\n' "-- azoth: projection p" "-- azoth: on-error $1" \
        "-- azoth: migration 1 make t" "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER CHECK (v < 100));" \
        "-- azoth: on put" "INSERT INTO t VALUES (@id, $2);" >"$sql"
}
until_true() { for ((i = 0; i < 1000; i++)); do "$@" >"$TMP/out" 2>&1 && return; read -rt 0.02 <>"$TMP/never"; done; false; }
quiet() { "$@" >"$TMP/out" 2>&1; }
mkfifo "$TMP/never"
lag() { azoth lag --json p | jq -r ".projections[0] | $1"; }
is() { [ "$(lag "$1")" = "$2" ]; }
put() { azoth tx "{\"events\":[{\"type\":\"put\",\"data\":{\"v\":$1}}]}" >/dev/null; }
feed() { "$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>>"$TMP/feed.log" & feed=$!; pids+=($feed); }
project() { timeout 60 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" "$@" p >"$TMP/out" 2>&1; }
gone() { kill -9 "$1"; wait "$1" 2>/dev/null; }

define fail-fast :v
"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & pids+=($!)
until_true azoth tx '{"events":[{"type":"put","data":{"v":1}}]}'
feed
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>"$TMP/p.log" & projector=$!; pids+=($!)
check "it follows" quiet azoth lag p --wait --timeout 20
says "idle: nothing behind, nothing that failed" "idle 0 0 0 null" \
    "$(lag '"\(.state) \(.events_behind) \(.seconds_behind) \(.catch_up_s) \(.last_failure)"')"
for v in 1 2 3 4 5 6 7 8 9; do put $v; done
azoth lag p --wait --timeout 20 >"$TMP/out"
check "a rate is told, of the log as well" until_true sh -c "'$BUILD/azoth' lag p --json |
    jq -e '.projections[0].events_s > 0 and .head_events_s > 0'"
says "a watcher sees it again and again" 3 "$(azoth lag --watch 10ms --json | head -3 | jq -r .projections[0].name | grep -c '^p$')"

# ---- an event that fails ----
put 500
wait $projector 2>/dev/null
says "the projector has ended" 1 $?
failing='"\(.state) \(.events_behind) \(.last_failure.event) \(.last_failure.code) \(.last_failure.times) \(.last_failure.message | test("^event 11 .put.: .*p.sql:6: CHECK constraint"))"'
check "why it is down: event, code and message" until_true is "$failing" "failed 1 11 AZOTH_ERR_HANDLER 1 true"
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
check "nothing is told any more" until_true is '"\(.events_behind) \(.last_failure)"' "0 null"
check "nothing is left" quiet sh -c "! ls '$AZOTH_DIR'/projections/*.last*"

# ---- one that retries ----
define 'retry 1000 30s..60s then fail-fast' :v
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" --accept-changed p 2>"$TMP/p.log" & projector=$!; pids+=($!)
check "it follows again" quiet azoth lag p --wait --timeout 20
put 600
check "one that is tried again says at which event" until_true is '"\(.state) \(.stands_at_event)"' "retrying 12"
says "when it goes on, and what the failure is" "true 12 true" \
    "$(lag '"\(.next_attempt_s > 5 and .next_attempt_s <= 30) \(.last_failure.event) \(.last_failure.message | test("CHECK constraint"))"')"
gone $projector
gone $feed
says "also when projector and feed are dead" "silent 12 true" \
    "$(lag '"\(.state) \(.last_failure.event) \(.last_failure.since_ns > 0)"')"
checks_end

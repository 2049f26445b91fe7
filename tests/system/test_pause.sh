#!/bin/bash
# azoth pause, resume, seal, unseal: in the foreground, around a command, held; what status and lag say of them; seals that
# wait for projections, and that outlive a restart of everything.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
printf -- '-- azoth: projection seen\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY);\n-- azoth: on a\nINSERT INTO t VALUES (@id);\n' \
    >"$AZOTH_DIR/projections/seen.sql"
start() { "$BUILD/azoth-$1" --dir "$AZOTH_DIR" "${@:2}" 2>>"$TMP/$1.log" & pids+=($!); }
writes() { azoth status --json | jq -r .writes; }
is() { [ "$(writes)" = "$1" ]; }
add() { azoth tx '{"events":[{"type":"a"}],"set":{"k":1}}'; }
log_has() { grep -q "$1" "$TMP/$2.log"; }
start writer
writer=${pids[-1]}
check "a writer runs" until_true 20 is open

# ---- a command ----
exits "a command runs while writes are paused" 0 "writes        PAUSED" azoth pause -- "$BUILD/azoth" status
says "then they go on" open "$(writes)"
exits "its exit code is ours" 7 "said" azoth pause -- sh -c 'echo said; exit 7'
exits "a signal that ended it is told as shells do" 143 "said" azoth pause -- sh -c 'echo said; kill -TERM $$'
exits "a command that is not there is told" 127 "no-such-command: No such file or directory" azoth pause -- no-such-command
says "and nothing stays paused" open "$(writes)"
exits "a command that outlasts the pause is told" 1 "the pause ended after its 0.2 s" azoth pause --timeout 200ms -- \
    sh -c 'until [ "$('"$BUILD"'/azoth status --json | jq -r .writes)" = open ]; do :; done; echo over'
check "but runs to its end" grep -q over "$TMP/out"
exits "nothing after -- is a usage error" 2 "there is no command after --" azoth pause --
exits "so is a command beside --hold" 2 "with --hold" azoth pause --hold -- true
"$BUILD/azoth" pause -- bash -c 'trap "echo told >'"$TMP"'/told; exit 3" TERM; echo >'"$TMP"'/runs; while :; do read -rt 0.05 <> <(:); done' 2>/dev/null &
command=$!
pids+=("$command")
check "a command is told" until_true 20 test -e "$TMP/runs"
kill -TERM $command
wait $command
says "of SIGTERM, and its exit code is waited for" "3 told" "$? $(cat "$TMP/told")"

# ---- in the foreground ----
"$BUILD/azoth" pause --json >"$TMP/paused" & first=$!
pids+=($first)
check "a pause stays" until_true 20 is paused
says "and says so" '[true,false,60000]' "$(jq -c '[.ok, .held, .timeout_ms]' "$TMP/paused")"
exits "writes are refused" 1 "(AZOTH_ERR_PAUSED)" add
says "status tells whose it is" "[\"pause\",\"azoth pause\",$first,false,false,true]" \
    "$(azoth status --json | jq -c '.pauses[] | [.kind, .by, .pid, .held, .durable, .in_force]')"
exits "and shows it" 0 "a pause by azoth pause, pid $first" azoth status
exits "lag too" 0 "writes: PAUSED, for" azoth lag
says "also in JSON" "paused 1" "$(azoth lag --json | jq -r '"\(.writes) \(.pauses | length)"')"
exits "resume ends no living one's" 0 "a pause by azoth pause, pid $first" azoth resume
says "it stands" paused "$(writes)"
says "in JSON likewise" '["paused",1]' "$(azoth resume --json | jq -c '[.writes, (.pauses | length)]')"
kill -INT $first
wait $first
says "Ctrl-C ends it, and that is no failure" "0 open" "$? $(writes)"
"$BUILD/azoth" pause >"$TMP/paused" 2>&1 & first=$!
pids+=($first)
until_true 20 is paused
exits "resume --all ends a living one's" 0 "resumed" azoth resume --all
wait $first
says "which is told, and fails" "1 1" "$? $(grep -c 'ended by somebody else' "$TMP/paused")"
exits "one whose time is over has done what it was asked for" 0 "the time is over" azoth pause --timeout 100ms
exits "a held one returns" 0 "azoth resume ends it" azoth pause --hold
says "and stands" "paused true" "$(azoth status --json | jq -r '"\(.writes) \(.pauses[0].held)"')"
exits "until resume" 0 "resumed" azoth resume
says "writes go on" open "$(writes)"
check "the log has said it" until_true 5 log_has 'paused: writes wait.*by="azoth pause"' writer

# ---- seals ----
add >/dev/null
# shellcheck disable=SC2016
exits "a command finds the event that it is sealed at" 0 "1 1" azoth seal -- sh -c 'echo $AZOTH_SEAL_EVENT $AZOTH_SEAL_TXN'
exits "writes are refused meanwhile" 1 "(AZOTH_ERR_SEALED)" azoth seal -- "$BUILD/azoth" tx '{"set":{"k":1}}'
"$BUILD/azoth" seal --json >"$TMP/sealed" & first=$!
pids+=($first)
until_true 20 is sealed
says "a seal tells event, transaction and time" '[true,1,1,true]' "$(jq -c '[.ok, .event, .txn, (.time | startswith("20"))]' "$TMP/sealed")"
exits "top shows it" 0 "writes SEALED" azoth top --once
exits "unseal ends no living one's" 0 "a seal by azoth seal, pid $first" azoth unseal
exits "resume does not at all" 0 "SEALED" azoth resume --all
exits "unseal --all does" 0 "unsealed" azoth unseal --all
wait $first

# Nothing projects yet.
exits "with a projection that lags it is not sealed" 1 "not sealed: 1 of 1 projections lack event 1: seen (at 0)" \
    azoth seal --with-projections --timeout 300ms
exits "a held one neither" 1 "not sealed: 1 of 1 projections" azoth seal --with-projections --timeout 300ms --hold
says "nothing stays sealed" "open null" "$(azoth status --json | jq -r '"\(.writes) \(.store.seal)"')"
start feed
start projector seen
projector=${pids[-1]}
exits "it waits for one that comes" 0 "sealed at event 1 " azoth seal --with-projections --timeout 30s --hold
exits "a sealed database is backed up" 0 "full backup" azoth backup "$TMP/backups"
exits "and restored" 0 "restored" azoth restore "$TMP/backups" "$TMP/restored"
says "without its seal" "null" "$(azoth status --dir "$TMP/restored" --json | jq .store.seal)"
exits "so that it may be written" 0 "committed" azoth tx --dir "$TMP/restored" --embedded '{"set":{"restored":1}}'
says "which has the event then" 1 "$(azoth query seen 'SELECT count(*) AS n FROM t' --json | jq .n)"
exits "unseal ends it" 0 "unsealed" azoth unseal
add >/dev/null
until_true 20 azoth lag --wait --timeout 1
kill -STOP "$projector"
add >/dev/null
exits "a projector that stands is named" 1 "lack event 3: seen (at 2)" azoth seal --with-projections --timeout 300ms -- true
says "and writes go on" open "$(writes)"
kill -CONT "$projector"

# ---- a durable one ----
exits "a held seal" 0 "azoth unseal ends it" azoth seal --hold
check "the log warns of it" until_true 5 log_has '^<4>sealed: writes wait.*durable=1' writer
kill -TERM "$writer" "${pids[@]}" 2>/dev/null
wait
says "is there when nothing runs" 3 "$(azoth status --json | jq .store.seal.event)"
exits "and shown" 3 "seal          at event 3 (transaction 3)" azoth status
pids=()
: >"$TMP/run.log"
"$BUILD/azoth" run "$AZOTH_DIR" >"$TMP/run.log" 2>&1 & run=$!
pids+=($run)
check "azoth run starts" until_true 20 is sealed
exits "the whole system refuses" 1 "(AZOTH_ERR_SEALED)" add
"$BUILD/azoth" tx --wait-paused --deadline 30 '{"events":[{"type":"a"}]}' >"$TMP/waiter" 2>&1 & waiter=$!
pids+=($waiter)
exits "unseal ends it" 0 "unsealed" azoth unseal
wait $waiter
says "who waited goes on" "0 1" "$? $(grep -c 'event 4' "$TMP/waiter")"
kill -INT $run
wait $run
checks_end

# azoth run with the real programs; sourced by test_cli.sh, which has the helpers.

rdb=$TMP/rdb
export AZOTH_DIR=$rdb
"$AZOTH" init >/dev/null
cat >"$rdb/projections/accounts.sql" <<'END'
-- azoth: projection accounts
-- azoth: on-error fail-fast

-- azoth: migration 1 create accounts
CREATE TABLE accounts (account TEXT PRIMARY KEY, balance INTEGER NOT NULL, note BLOB) WITHOUT ROWID;
-- azoth: undo
DROP TABLE accounts;

-- azoth: on deposited
INSERT INTO accounts (account, balance) VALUES (:account, :amount)
  ON CONFLICT (account) DO UPDATE SET balance = balance + excluded.balance;
END
sed 's/accounts/broken/; s/INSERT INTO/INSRT INTO/' "$rdb/projections/accounts.sql" >"$TMP/broken.sql"

exits "projection check accepts a good file" 0 "" "$AZOTH" projection check "$rdb/projections/accounts.sql"
exits "projection check names file and line" 1 "broken.sql:[0-9]*:.*(AZOTH_ERR_PROJECTION)" \
    "$AZOTH" projection check "$TMP/broken.sql"
"$AZOTH" projection check --json "$rdb/projections/accounts.sql" "$TMP/broken.sql" >"$TMP/out" 2>/dev/null
says "projection check --json tells of each file" "1 true false" "$? $(jq .ok "$TMP/out" | xargs)"
exits "projection check wants a file" 2 "check takes a file" "$AZOTH" projection check
exits "there is nothing but check" 2 "there is no projection frob" "$AZOTH" projection frob x

load=()
if cc -shared -fPIC -I"$root/client" -I"$root/core" "$root/examples/commands/transfer.c" \
    -o "$TMP/transfer.so" 2>"$TMP/err"; then
    load=(--load "$TMP/transfer.so")
else
    not_ok "the example of a command compiles" "$(head -3 "$TMP/err")"
fi
log=$TMP/real.log
start_real() {
    "$AZOTH" run --workers 2 --progress --writer-sync none "${load[@]}" "$@" \
        >"$TMP/real.out" 2>"$log" </dev/null &
    run_pid=$!
    pids+=($run_pid)
    until_true 30 logged '\| running: .*, 5 of 5 processes ready'
}
deposit() { # ACCOUNT AMOUNT
    "$AZOTH" tx --deadline 20 "{\"add\":{\"acct/$1\":$2},\"events\":[{\"type\":\"deposited\",
        \"data\":{\"account\":\"$1\",\"amount\":$2}}]}" >/dev/null
}
balance() { "$AZOTH" query accounts "SELECT balance FROM accounts WHERE account = '$1'" | sed 1d; }

check "azoth run starts the system" start_real
exits "a running system commits" 0 "" deposit 1 100
exits "lag --wait returns when it is projected" 0 "" "$AZOTH" lag accounts --wait --timeout 20
says "query reads the projection" 100 "$(balance 1)"
says "query --json is one object a line" '{"account":"1","balance":100,"note":null}' \
    "$("$AZOTH" query accounts 'SELECT * FROM accounts' --json)"
exits "query refuses SQL that is none" 2 "(AZOTH_ERR_USAGE)" "$AZOTH" query accounts 'SELEC 1'
exits "query does not write" 2 "(AZOTH_ERR_USAGE)" "$AZOTH" query accounts 'DELETE FROM accounts'
says "nothing was deleted" 100 "$(balance 1)"
exits "query of no projection is exit code 1" 1 "(AZOTH_ERR_NOT_FOUND)" "$AZOTH" query nobody 'SELECT 1'
says "lag is right when idle" "1 1 0 0.000" "$("$AZOTH" lag --json |
    jq -r '.projections[0] | "\(.cursor) \(.head) \(.events_behind) \(.seconds_behind | tostring |
        if . == "0" then "0.000" else . end)"')"
until_state() { until_true "$2" sh -c "'$AZOTH' lag --json | jq -e '.projections[0].state == \"$1\"'"; }
check "its state is idle" until_state idle 10
says "status lists workers and writer" "worker worker writer" "$("$AZOTH" status --json |
    jq -r '.participants[].kind' | grep -v feed | sort | xargs)"
says "status shows the feed" true "$("$AZOTH" status --json | jq .feed.alive)"

one=ipc://$rdb/run/worker-1.sock
exits "tx --to sends to a worker" 0 "" "$AZOTH" tx --to "$one" '{"add":{"acct/2":5}}'
says "get --at asks a worker" 5 "$("$AZOTH" get acct/2 --at "$one")"
says "scan --at asks a worker" "acct/1 acct/2" "$("$AZOTH" scan acct/ --at "$one" | cut -f1 | xargs)"
says "events --at asks a worker" deposited "$("$AZOTH" events --at "$one" | cut -f3)"
rid=a0112233445566778899aabbccddeeff
exits "an id goes to a worker" 0 "" "$AZOTH" tx --to "$one" --id $rid '{"add":{"acct/2":1}}'
exits "outcome --to asks a worker" 0 "" "$AZOTH" tx outcome $rid --to "$one"
if [ ${#load[@]} -gt 0 ]; then
    exits "call finds the workers of the database" 0 "" "$AZOTH" call transfer '{"from":"1","to":"2","amount":30}'
    says "the command was executed" "70 36" "$("$AZOTH" get acct/1) $("$AZOTH" get acct/2)"
    says "call --json answers JSON" true "$("$AZOTH" call transfer '{"from":"1","to":"2","amount":1}' \
        --to "$one" --json | jq .ok)"
    exits "a command that refuses is exit code 1" 1 "(AZOTH_ERR_" "$AZOTH" call transfer \
        '{"from":"1","to":"2","amount":100000}'
    exits "a command that nobody has is refused" 2 "(AZOTH_ERR_NO_COMMAND)" "$AZOTH" call nothing '{}'
fi
check "--progress shows the projection" until_true 5 grep -q "head .* tx/s .*accounts -0" "$TMP/real.out"

total=100
for victim in projector-accounts feed worker-1 writer; do
    old=$(pid_of "$victim")
    kill -9 "$old"
    check "$victim is started again after kill -9" until_true 20 logged \
        "$victim \(pid $old\) was ended by signal 9"
    again() { new=$(pid_of "$victim"); [ "$new" != "$old" ] && logged "$victim ready" &&
        [ "$(grep -c "| $victim ready" "$log")" -ge 2 ]; }
    check "$victim is ready again" until_true 30 again
    exits "after the death of $victim the system commits" 0 "" deposit 1 10
    exits "after the death of $victim the system projects" 0 "" "$AZOTH" lag --wait --timeout 30
    total=$((total + 10))
    says "after the death of $victim every event counts once" $total "$(balance 1)"
done

kill -INT $run_pid
wait $run_pid
says "Ctrl-C stops the system with exit code 0" 0 $?
check "nobody had to be killed" sh -c "! grep -q 'did not stop in time' '$log'"
head=$("$AZOTH" events --last 1 | cut -f1)
says "lag is right when everything is stopped" "$head 0" "$("$AZOTH" lag --json |
    jq -r '.projections[0] | "\(.cursor) \(.events_behind)"')"
check "a projection that ran is not unseen then" sh -c "'$AZOTH' lag | grep -Eq 'accounts +(silent|stopped)'"
"$AZOTH" tx --embedded '{"events":[{"type":"deposited","data":{"account":"1","amount":1}}]}' >/dev/null
says "lag sees what nobody projects" "$head 1 true" "$("$AZOTH" lag --json |
    jq -r '.projections[0] | "\(.cursor) \(.events_behind) \(.seconds_behind > 0)"')"
says "query reads a stopped projection" $total "$(balance 1)"

trap '' HUP # as nohup starts it
check "azoth run starts again" start_real
trap - HUP
kill -HUP $run_pid
seconds=$(wc -l <"$TMP/real.out")
goes_on() { [ "$(wc -l <"$TMP/real.out")" -gt $((seconds + 1)) ]; }
check "under nohup it outlives the terminal" until_true 10 goes_on
check "and does not stop" sh -c "! grep -q 'stopping: ' '$log'"
exits "it catches up" 0 "" "$AZOTH" lag --wait --timeout 30
left=$(grep -Eo 'started, pid [0-9]+' "$log" | grep -Eo '[0-9]+')
feed=$(pid_of feed)
kill -STOP "$feed"
deposit 1 1
says "lag sees a projection that a stopped feed holds back" 1 "$("$AZOTH" lag --json |
    jq '.projections[0].events_behind')"
kill -CONT "$feed"
disown $run_pid
kill -9 $run_pid
check "killing azoth run with SIGKILL leaves none of them" until_true 30 all_gone
check "azoth run starts after that" start_real
"$AZOTH" lag --wait >/dev/null
check "the projection is idle" until_state idle 10
disown $run_pid
kill -9 $run_pid $(grep -Eo 'started, pid [0-9]+' "$log" | grep -Eo '[0-9]+')
check "killing everything at once makes projections silent" until_state silent 5

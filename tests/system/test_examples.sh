#!/bin/bash
# The small programs below examples/library, and the projection with handlers in C, run as their comments say.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/azoth-examples-XXXXXX")
trap 'rm -rf "$dir"' EXIT
ex=$build/examples/library failed=0
check() { # SENTENCE WANT GOT
    if [ "$2" = "$3" ]; then echo "ok - $1"; else echo "not ok - $1: $3"; failed=1; fi
}
check "a first transaction commits and is read back" "transaction 1 logged event 1
acct/1 holds 500" "$("$ex/first_transaction" "$dir/a" 2>&1)"
check "the second time its requirement refuses it" "refused: requirement absent on key acct/1: it is there (since transaction 1, event 1)
acct/1 holds 500" "$("$ex/first_transaction" "$dir/a" 2>&1)"
check "callbacks refuse, then pay interest" "refused: no interest under 100
acct/1 holds 1030" "$("$ex/callbacks" "$dir/b" 2>&1)"
check "two thousand in flight are all committed" "2000 committed" "$("$ex/in_flight" "$dir/c" 2000 2>&1)"
check "following reads what is there" "1 opened {\"account\":1,\"amount\":500}" "$("$ex/follow" "$dir/a" 1 1 2>&1)"
"$ex/follow" "$dir/a" 2 1 >"$dir/out" 2>&1 &
"$build/azoth" --dir "$dir/a" tx --embedded '{"events":[{"type":"late","data":1}]}' >/dev/null
wait $!
check "following goes on with what is committed later" "2 late 1" "$(cat "$dir/out")"
check "a transaction, its projection and a SELECT in one process" "projected up to event 1
account 1: -30
account 2: 30" "$("$ex/embedded_projection" "$dir/d" 1 2 30 2>&1)"
check "the next one goes on there" "projected up to event 2
account 1: -35
account 2: 30
account 3: 5" "$("$ex/embedded_projection" "$dir/d" 1 3 5 2>&1)"

# examples/projections: built by the line of its comment, with nothing but what is installed.
db=$dir/p/db
mkdir -p "$dir/p/include"
cp "$root/client/azoth_projection.h" "$root/core/azoth_base.h" "$dir/p/include"
cp "$root"/examples/projections/* "$dir/p"
"$build/azoth" init "$db" >/dev/null
line=$(sed -n 's/^ \*   \(cc .*\)/\1/p' "$dir/p/amounts.c" | sed "s#/usr/local/include/azoth#include#; s#DIR#$db#")
check "the line that builds the handlers is there" "cc -O2 -shared -fPIC" "${line%% -I*}"
(cd "$dir/p" && $line && cp amounts.sql "$db/projections/")
check "they are checked only when they are given" "$db/projections/amounts.sql: ok, but what is in C was not checked (--load)
$db/projections/amounts.sql: ok" "$("$build/azoth" projection check "$db/projections/amounts.sql" 2>&1
    "$build/azoth" projection check "$db/projections/amounts.sql" --load "$db/projections/amounts.so" 2>&1)"
export AZOTH_DIR=$db
"$build/azoth" run --writer-sync none >/dev/null 2>"$dir/log" &
run=$!
trap 'kill $run 2>/dev/null; wait; rm -rf "$dir"' EXIT
pay() { # ACCOUNT AMOUNT...: transfers, in one transaction
    local from=$1 events=; shift
    for amount in "$@"; do events+=",{\"type\":\"transferred\",\"data\":{\"from\":$from,\"amount\":$amount}}"; done
    "$build/azoth" tx --deadline 20 "{\"events\":[${events#,}]}" >/dev/null
}
pay 1 $(seq 1 50)
pay 2 7 -1 7
pay '"nobody"' 5
pay 1 $(seq 51 100)
"$build/azoth" lag --wait --timeout 30 >/dev/null || cat "$dir/log"
check "percentiles are those of the amounts, a negative one is skipped" "account transfers p50 p90 p99
1 100 48 88 96
2 2 7 7 7" "$("$build/azoth" query amounts 'SELECT account, transfers, p50, p90, p99 FROM amounts' | xargs -n 5)"
check "what is no transfer is a dead letter" "1 event 54 (transferred): from and amount are not both integers" \
    "$("$build/azoth" query amounts "SELECT code, substr(error, 1, 24) || substr(error, instr(error, 'from and'))
        FROM azoth_dlq" | sed 1d | xargs)"
check "every event was handled once" 0 "$("$build/azoth" verify --projection amounts >"$dir/out" 2>&1; echo $?)"
# The handlers change while the projector has the old ones loaded: their version tells, a rebuild takes them.
sed -i 's/\.version = 1/.version = 2/; s/percents\[\] = {50,/percents[] = {10,/' "$dir/p/amounts.c"
(cd "$dir/p" && $line)
check "rows of older handlers are told" other "$("$build/azoth" projection generations amounts | awk 'NR > 1 {print $5}')"
"$build/azoth" projection rebuild amounts --quiet >"$dir/out" 2>&1 || cat "$dir/out"
check "a rebuild makes the rows with the new library" "1 100 10 88 96
2 2 7 7 7" "$("$build/azoth" query amounts 'SELECT account, transfers, p50, p90, p99 FROM amounts' | sed 1d | xargs -n 5)"
pay 2 7
"$build/azoth" lag --wait --timeout 30 >/dev/null || cat "$dir/log"
check "and the projector goes on with it" "3 7" "$("$build/azoth" query amounts \
    'SELECT transfers, p50 FROM amounts WHERE account = 2' | sed 1d | xargs)"
kill -TERM $run
wait $run
check "the system stops in order" 0 $?
exit $failed

#!/bin/bash
# The small programs below examples/library, run as their comments say.
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
check "the second time its requirement refuses it" "refused: requirement absent on key acct/1: it is there
acct/1 holds 500" "$("$ex/first_transaction" "$dir/a" 2>&1)"
check "callbacks refuse, then pay interest" "refused: no interest under 100
acct/1 holds 1030" "$("$ex/callbacks" "$dir/b" 2>&1)"
check "two thousand in flight are all committed" "2000 committed" "$("$ex/in_flight" "$dir/c" 2000 2>&1)"
check "following reads what is there" "1 opened {\"account\":1,\"amount\":500}" "$("$ex/follow" "$dir/a" 1 1 2>&1)"
"$ex/follow" "$dir/a" 2 1 >"$dir/out" 2>&1 &
"$build/azoth" --dir "$dir/a" tx --embedded '{"events":[{"type":"late","data":1}]}' >/dev/null
wait $!
check "following goes on with what is committed later" "2 late 1" "$(cat "$dir/out")"
exit $failed

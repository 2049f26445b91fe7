#!/bin/bash
# The same transfer from the shell, Perl and Python, through a real worker; each id applied once.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/azoth-clients-XXXXXX")
pids=() failed=0
finish() { kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"; }
trap finish EXIT
export AZOTH_DIR=$dir/db
"$build/azoth" init "$AZOTH_DIR" >/dev/null
"$build/azoth-writer" --dir "$AZOTH_DIR" 2>"$dir/writer.log" & pids+=($!)
"$build/azoth-worker" --dir "$AZOTH_DIR" --name 1 2>"$dir/worker.log" & pids+=($!)
endpoint=ipc://$AZOTH_DIR/run/worker-1.sock
"$build/azoth" tx --to "$endpoint" --deadline 10 '{"id":"ffffffffffffffffffffffffffffffff","set":{"acct/1":1000,"acct/2":0}}' >/dev/null ||
    { echo "not ok - the worker answers"; cat "$dir"/*.log; exit 1; }
n=0
try() { # NAME COMMAND...
    local name=$1 id answer; shift
    n=$((n + 1))
    id=$(printf '%032x' "$n")
    answer=$(timeout 20 "$@" "$endpoint" "$id" 2>&1)
    if [ "$(jq -r .ok <<<"$answer" 2>/dev/null)" = true ]; then echo "ok - a transfer from $name is answered"; else echo "not ok - a transfer from $name is answered: $answer"; failed=1; fi
    answer=$(timeout 20 "$@" "$endpoint" "$id" 2>&1)
    if [ "$(jq -r .duplicate <<<"$answer" 2>/dev/null)" = true ]; then echo "ok - the same id again from $name commits nothing"; else echo "not ok - the same id again from $name commits nothing: $answer"; failed=1; fi
    done_by=$((done_by + 1))
}
done_by=0
if command -v nanocat >/dev/null; then try "the shell" sh "$root/examples/clients/transfer.sh"; else echo "skip - nanocat is not installed"; fi
if /usr/bin/perl -MNanoMsg::Raw -e1 2>/dev/null; then try Perl /usr/bin/perl "$root/examples/clients/transfer.pl"; else echo "skip - NanoMsg::Raw is not installed"; fi
if command -v python3 >/dev/null; then try Python python3 "$root/examples/clients/transfer.py"; else echo "skip - python3 is not installed"; fi
check() { # KEY WANT
    local have
    have=$("$build/azoth" get "$1" --at "$endpoint" --json | jq .value)
    if [ "$have" = "$2" ]; then echo "ok - the worker says that $1 holds $2"; else echo "not ok - the worker says that $1 holds $2: $have"; failed=1; fi
}
check acct/1 $((1000 - done_by * 100))
check acct/2 $((done_by * 100))
have=$("$build/azoth" events --json | jq -s length)
if [ "$have" = "$done_by" ]; then echo "ok - each transfer was applied once"; else echo "not ok - each transfer was applied once: $have events"; failed=1; fi
exit $failed

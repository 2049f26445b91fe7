#!/bin/bash
# azoth bench, whole, refused and interrupted. Figures of so short runs mean nothing and are not looked
# at. Needs AZOTH_BUILD (on a disk: memory is refused) and jq.
TMPDIR=$(realpath "${AZOTH_BUILD:?set AZOTH_BUILD to the directory of the programs}")
. "$(dirname "$0")/checks.sh"
unset AZOTH_DIR
mkdir "$TMP/data"
bench() { "$BUILD/azoth" bench --dir "$TMP/data" --keys 1000 "$@"; }

if [ "$(stat -f -c %T "$TMP")" = tmpfs ]; then
    echo "skip - azoth bench on a disk (the build directory lies in memory)"
    exit 0
fi
bench --seconds 300ms --json --quiet >"$TMP/j" 2>"$TMP/err"
says "azoth bench succeeds" 0 $?
check "it prints product, floor and ratio for 1, 64 and 256 in flight" quiet jq -e 'map(.in_flight) == [1,64,256] and
    all(.[]; .product > 0 and .floor > 0 and .pairs > 0 and .ratio > 0 and .ratio_low <= .ratio_high
        and .p99_ns >= .p50_ns and .p50_ns > 0)' "$TMP/j"
says "--quiet says nothing" "" "$(cat "$TMP/err")"
says "its database is removed" "" "$(ls "$TMP/data")"

bench --seconds 100ms --in-flight 8 >"$TMP/t" 2>"$TMP/err"
check "--in-flight 8 measures just that" grep -qE '^ +8 +[0-9]+/s +[0-9]+/s' "$TMP/t"
says "and nothing else" 1 "$(grep -cE '^ +[0-9]+ +[0-9]+/s' "$TMP/t")"
check "it says where it works" grep -qF "below $TMP/data/azoth-bench-" "$TMP/err"
bench --in-flight 1025 >/dev/null 2>&1
says "--in-flight 1025 is a usage error" 2 $?
bench --seconds 100ms --in-flight 8 --value-bytes 65536 >"$TMP/t" 2>"$TMP/err"
says "--value-bytes 65536 succeeds" 0 $?
check "and is told" grep -qF 'one value of 65536 bytes set, one event of 65536 bytes logged' "$TMP/t"
for n in 0 65537 99999999999; do
    bench --value-bytes $n >/dev/null 2>"$TMP/err"
    says "--value-bytes $n is a usage error" 2 $?
    check "and named" grep -q 'value-bytes is 1 to 65536.*(AZOTH_ERR_USAGE)' "$TMP/err"
done
"$BUILD/azoth" bench --dir "$TMP/nowhere" >/dev/null 2>"$TMP/err"
says "a directory that is not there is an input error" 4 $?
if [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ]; then
    "$BUILD/azoth" bench --dir /dev/shm >/dev/null 2>"$TMP/err"
    says "memory is refused as a usage error" 2 $?
    check "and the reason is told" grep -q 'is memory' "$TMP/err"
fi

# Interrupted while it measures: there are more events than those it was filled with. The name of the shared
# objects is what `azoth status` tells.
"$BUILD/azoth" bench --dir "$TMP/data" --keys 1000 --seconds 300 --quiet >"$TMP/t" 2>&1 &
pid=$!
name=
named() {
    name=$("$BUILD/azoth" status --dir "$TMP"/data/azoth-bench-*/db --json |
        jq -r 'select(.store.events > 1000) | .shm // empty')
    [ -n "$name" ]
}
until_true 30 named
check "while it runs it is a database like any other" test -n "$name" -a -e "/dev/shm$name"
kill -INT $pid
(read -rt 60 <> <(:); kill -9 $pid 2>/dev/null) & # it would go on for five minutes
killer=$!
wait $pid
says "interrupted, it ends in order" 0 $?
check "and prints the figures it has" grep -qE '^ +1 +[0-9]+/s +[0-9]+/s' "$TMP/t"
kill $killer 2>/dev/null
wait $killer 2>/dev/null
says "interrupted, it removes its database" "" "$(ls "$TMP/data")"
says "interrupted, it removes its shared objects" "" "$(ls /dev/shm | grep -F "${name#/}")"

# Interrupted while it fills: a hundred million keys take far longer than this waits.
while_filling() { # SIGNAL CODE
    : >"$TMP/err" # the shell in the background empties it too late: the last run's word would count
    "$BUILD/azoth" bench --dir "$TMP/data" --keys 100000000 --seconds 1 --json >"$TMP/t" 2>"$TMP/err" &
    pid=$!
    until_true 30 grep -q filling "$TMP/err"
    kill -$1 $pid
    (read -rt 60 <> <(:); kill -9 $pid 2>/dev/null) &
    killer=$!
    wait $pid
    says "ended by $1 while it fills, it says so as shells do" $2 $?
    kill $killer 2>/dev/null
    wait $killer 2>/dev/null
    says "and prints no empty list" "" "$(cat "$TMP/t")"
    check "but says why" grep -q 'interrupted before the first figure' "$TMP/err"
    says "and removes its database" "" "$(ls "$TMP/data")"
}
while_filling INT 130
while_filling TERM 143
while_filling HUP 129
# In a mount namespace of its own: nothing stays mounted, however this ends.
mkdir "$TMP/ram"
if unshare -m mount -t ramfs none "$TMP/ram" 2>/dev/null; then
    unshare -m sh -c 'mount -t ramfs none "$1" && exec "$2" bench --dir "$1"' - "$TMP/ram" "$BUILD/azoth" >/dev/null 2>"$TMP/err"
    says "ramfs is memory too" 2 $?
    check "and the reason is told" grep -q 'is memory' "$TMP/err"
else
    echo "skip - ramfs is memory too (needs root)"
fi

checks_end

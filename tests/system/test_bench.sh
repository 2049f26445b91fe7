#!/bin/bash
# The benchmark program: what it writes, refuses and leaves behind. Its figures of so short runs mean
# nothing and are not looked at, nor whether rows are met. Needs AZOTH_BUILD (on a disk) and jq.
set -u
BUILD=$(realpath "${AZOTH_BUILD:?set AZOTH_BUILD to the directory of the programs}")
TMP=$(mktemp -d "$BUILD/tbp.XXXXXX")
trap 'rm -rf "$TMP"' EXIT
passed=0 failed=0
check() { # SENTENCE COMMAND...
    local sentence=$1
    shift
    if "$@" >"$TMP/check" 2>&1; then
        passed=$((passed + 1))
        echo "ok - $sentence"
    else
        failed=$((failed + 1))
        echo "not ok - $sentence"
        head -c 2000 "$TMP/check" | sed 's/^/#   /'
    fi
}
says() { check "$1" [ "$2" = "$3" ]; } # SENTENCE WANTED GOT

if [ "$(stat -f -c %T "$TMP")" = tmpfs ]; then
    echo "skip - the benchmark program on a disk (the build directory lies in memory)"
    exit 0
fi
# Results go beside the programs: a directory of its own with links to them.
mkdir "$TMP/b"
ln -s "$BUILD"/azoth* "$TMP/b/"
bench() { AZOTH_BUILD=$TMP/b "$BUILD/tests/bench/bench" "$@"; }
left() { ls "$TMP/b" | grep azoth-test; }

bench --pairs 1 --rows 8b,3a,1,plot >"$TMP/out" 2>"$TMP/err"
check "it ends with 0, or 1 when a row is missed" test $? -le 1
check "bench.json lists the rows that were asked for, by number" jq -e 'map(.row) == ["1","3a","8b"]' "$TMP/b/bench.json"
check "each with its fields" jq -e 'all(.[]; (.name | length) > 0 and (.unit | length) > 0 and .product > 0 and
    .floor > 0 and .ratio > 0 and (.reach | type) == "number" and (.least | type) == "number" and .pairs == 1 and
    (.met | type) == "boolean" and ((.ratio - .product / .floor) | fabs) < 0.01)' "$TMP/b/bench.json"
says "the table has the same rows" "1 3a 8b" "$(grep -oE '^(1|3a|8b) ' "$TMP/out" | tr -d ' ' | paste -sd' ')"
check "and becomes the README's" sh -c "tools/bench-table '$TMP/b/bench.json' | grep -c '^| [138]' | grep -qx 3"
for plot in throughput latency; do
    check "the plot of $plot is well-formed, with its axis and both ends of it" python3 -c '
import sys, xml.etree.ElementTree as e
texts = [t.text for t in e.parse(sys.argv[1]).iter("{http://www.w3.org/2000/svg}text")]
assert "transactions in flight" in texts and "1" in texts and "1024" in texts, texts' "$TMP/b/bench-$plot.svg"
done
says "nothing is left of its databases" "" "$(left)"

cp "$TMP/b/bench.json" "$TMP/before"
bench --pairs 1 --rows 99 >/dev/null 2>"$TMP/err"
says "a row that there is not is a usage error" 2 $?
check "and the rows that there are are told" grep -q '99 names no row; there are 1 to 19' "$TMP/err"
check "and the results of before stay" cmp "$TMP/b/bench.json" "$TMP/before"

AZOTH_BUILD=$TMP/b "$BUILD/tests/bench/bench" --pairs 100 --rows 1 >/dev/null 2>"$TMP/err" &
pid=$!
end=$((SECONDS + 60))
until grep -q '^1 ' "$TMP/err" || [ $SECONDS -ge $end ]; do read -rt 0.05 <> <(:); done
kill -INT $pid
(read -rt 60 <> <(:); kill -9 $pid 2>/dev/null) &
killer=$!
wait $pid
says "interrupted, it ends as a shell expects" 130 $?
kill $killer 2>/dev/null
wait $killer 2>/dev/null
check "and the results of before stay" cmp "$TMP/b/bench.json" "$TMP/before"
says "and nothing is left of its databases" "" "$(left)"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]

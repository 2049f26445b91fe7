#!/bin/bash
# The benchmark program: what it writes, refuses and leaves behind. Its figures of so short runs mean
# nothing and are not looked at, nor whether rows are met. Needs AZOTH_BUILD (on a disk) and jq.
TMPDIR=$(realpath "${AZOTH_BUILD:?set AZOTH_BUILD to the directory of the programs}")
. "$(dirname "$0")/checks.sh"

if [ "$(stat -f -c %T "$TMP")" = tmpfs ]; then
    echo "skip - the benchmark program on a disk (the build directory lies in memory)"
    exit 0
fi
# Results go beside the programs: a directory of its own with links to them.
mkdir "$TMP/b"
ln -s "$BUILD"/azoth* "$TMP/b/"
bench() { AZOTH_BUILD=$TMP/b "$BUILD/tests/bench/bench" "$@"; }
left() { find "$TMP/b" "$TMP/data" -mindepth 1 -type d; }
# The processes whose arguments name the directory of the data: the pattern does not match itself.
processes() { grep -laE "[/]${TMP#/}/data/bench-" /proc/[0-9]*/cmdline 2>/dev/null; }
child_of() { awk -v parent="$1" '{ pid = $1; sub(/.*\) /, ""); if ($2 == parent) print pid }' /proc/[0-9]*/stat 2>/dev/null; }
mkdir "$TMP/data"
export AZOTH_BENCH_DIR=$TMP/data
# Starts the program on a row of few processes, and waits until its writer serves the database: the name
# of the shared objects is what `azoth status` tells. (The bare LMDB beside it is no database.)
start() { # ROWS
    AZOTH_BUILD=$TMP/b "$BUILD/tests/bench/bench" --pairs 100 --rows "$1" >/dev/null 2>"$TMP/err" &
    pid=$! shm=
    until_true 60 writer_serves
}
writer_serves() {
    local writer
    writer=$(processes | head -1) && [ -n "$writer" ] &&
        shm=$("$BUILD/azoth" status --dir "$(tr '\0' '\n' <"$writer" | grep -F "$TMP/data/")" --json | jq -er .shm)
}
# Its exit code, or 137 when it goes on for a minute.
ended() {
    (read -rt 60 <> <(:); kill -9 $pid 2>/dev/null) &
    local killer=$! code
    wait $pid
    code=$?
    kill $killer 2>/dev/null
    wait $killer 2>/dev/null
    return $code
}
nothing_left() { # OF WHAT
    says "$1: nothing is left of its databases" "" "$(left)"
    says "$1: no process of it is left" "" "$(processes)"
    check "$1: nor its shared objects" test -n "$shm" -a ! -e "/dev/shm$shm"
}

bench --pairs 1 --rows 8b,3a,1,plot >"$TMP/table" 2>"$TMP/err"
check "it ends with 0, or 1 when a row is missed" test $? -le 1
check "bench.json lists the rows that were asked for, by number" quiet jq -e 'map(.row) == ["1","3a","8b"]' "$TMP/b/bench.json"
check "each with its fields" quiet jq -e 'all(.[]; (.name | length) > 0 and (.unit | length) > 0 and .product > 0 and
    .floor > 0 and .ratio > 0 and (.reach | type) == "number" and (.least | type) == "number" and .pairs == 1 and
    (.met | type) == "boolean" and ((.ratio - .product / .floor) | fabs) < 0.01)' "$TMP/b/bench.json"
says "the table has the same rows" "1 3a 8b" "$(grep -oE '^(1|3a|8b) ' "$TMP/table" | tr -d ' ' | paste -sd' ')"
check "and becomes the README's" sh -c "tools/bench-table '$TMP/b/bench.json' | grep -c '^| [138]' | grep -qx 3"
jq '.[0].least = 1500000' "$TMP/b/bench.json" >"$TMP/least.json"
check "with the bar that is no ratio" sh -c "tools/bench-table '$TMP/least.json' | grep -qE '^\| 1 \|.* \| 0.90 and 1,500,000 /s \|'"
cat >"$TMP/plot.py" <<'PY'
import sys, xml.etree.ElementTree as e
tree, y_label = e.parse(sys.argv[1]), sys.argv[2]
texts = list(tree.iter("{http://www.w3.org/2000/svg}text"))
said = [t.text for t in texts]
of = lambda kind: [t.text for t in texts if t.get("class") == kind]
assert "transactions in flight (logarithmic)" in said and y_label in said, said
assert of("x") == ["1", "8", "64", "256", "1,024"], of("x")
ticks = [float(t.replace(",", "")) for t in of("y")]
assert len(ticks) >= 3 and ticks == sorted(ticks), ticks
assert of("legend") == ["azoth, through the segment", "raw LMDB, as many a transaction"], of("legend")
points = list(tree.iter("{http://www.w3.org/2000/svg}circle"))
assert len(points) == 10 and all(0 < float(p.get("cx")) < 800 and 0 < float(p.get("cy")) < 460 for p in points)
PY
check "the plot of throughput is well-formed, its axes have units and its lines names" \
    python3 "$TMP/plot.py" "$TMP/b/bench-throughput.svg" "transactions per second (logarithmic)"
check "and so is that of latency" \
    python3 "$TMP/plot.py" "$TMP/b/bench-latency.svg" "microseconds (logarithmic)"
says "nothing is left of its databases" "" "$(left)"

cp "$TMP/b/bench.json" "$TMP/before"
bench --pairs 1 --rows 1,99 >"$TMP/table" 2>"$TMP/err"
says "a row that there is not is a usage error" 2 $?
check "and the rows that there are are told, and nothing measured" \
    grep -qzx 'bench: there is no row 99; there are 1, 2, 3a, .*, 20, plot.' "$TMP/err"
check "and the results of before stay" cmp "$TMP/b/bench.json" "$TMP/before"
for wrong in "--rows 1," "--rows 3c" "--pairs 0" "--pairs 1x" "--events 20000" "--growth --rows 1"; do
    AZOTH_BUILD=$TMP/b timeout -k 5 20 "$BUILD/tests/bench/bench" $wrong >/dev/null 2>&1
    says "$wrong is a usage error" 2 $?
done

if [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ]; then
    AZOTH_BENCH_DIR=/dev/shm bench --pairs 1 --rows 1 >/dev/null 2>"$TMP/err"
    says "memory is not measured as a disk" 4 $?
    check "and the reason is told" grep -q 'the data would lie in memory' "$TMP/err"
    check "and the results of before stay" cmp "$TMP/b/bench.json" "$TMP/before"
fi
start plot
kill -TERM $pid
ended
says "ended by SIGTERM between its pairs, it dies of it" 143 $?
nothing_left "ended by SIGTERM"
check "and the results of before stay" cmp "$TMP/b/bench.json" "$TMP/before"
says "and a plot is not written half" "" "$(find "$TMP/b" -name 'bench-*.svg*' -newer "$TMP/before")"
start 12
kill -INT $pid
ended
says "interrupted while it fills, it ends as a shell expects" 130 $?
nothing_left "interrupted"
start 3b
kill -KILL $(child_of $pid)
ended
says "when its measuring process is killed, it fails" 4 $?
check "and tells why" grep -q 'was ended by a signal: Killed' "$TMP/err"
nothing_left "killed"

checks_end

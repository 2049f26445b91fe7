#!/bin/bash
# This machine's own dpkg log through the example: what the projection says is installed is what dpkg says,
# for the packages whose installation the log shows.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
if [ ! -s /var/log/dpkg.log ]; then echo "skip - there is no dpkg log here"; exit 0; fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/azoth-packages-XXXXXX")
pids=() failed=0
finish() { [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"; }
trap finish EXIT
check() { if [ "$2" = "$3" ]; then echo "ok - $1"; else echo "not ok - $1: $2 against $3"; failed=1; fi; }
cp /var/log/dpkg.log "$dir/log" # other programs may add to it meanwhile
dpkg-query -W -f='${Package}:${Architecture} ${db:Status-Status} ${Version}\n' | sort >"$dir/dpkg"
mkdir -p "$dir/db/projections"
printf '[writer]\nsync = none\n' >"$dir/db/azoth.conf"
cp "$root/examples/packages/packages.sql" "$dir/db/projections/"
out=$("$build/examples/packages/packages" "$dir/db" "$dir/log" 2>"$dir/err")
rc=$?
[ $rc = 0 ] || cat "$dir/err"
check "the log is read to its end" $rc 0
read -r _ lines _ committed _ refused <<<"$out"
check "every line became one transaction" "$((committed + refused))" "$lines"
check "no line contradicts the one before it" "$refused" 0
"$build/azoth-feed" --dir "$dir/db" 2>"$dir/feed.log" & pids+=($!)
timeout 60 "$build/azoth-projector" --dir "$dir/db" --once packages 2>"$dir/projector.log"
check "the projection reaches the end" $? 0
"$build/azoth" --dir "$dir/db" query packages \
    "SELECT p.package || ' ' || status || ' ' || version FROM packages p JOIN installs USING (package)
     WHERE status = 'installed'" | tail -n +2 | sort >"$dir/sql"
"$build/azoth" --dir "$dir/db" query packages "SELECT package FROM installs" | tail -n +2 | sort >"$dir/covered"
awk 'NR == FNR {covered[$1] = 1; next} $2 == "installed" && ($1 in covered)' "$dir/covered" "$dir/dpkg" >"$dir/want"
if [ -s "$dir/covered" ] && diff "$dir/want" "$dir/sql" >"$dir/diff"; then
    echo "ok - $(wc -l <"$dir/sql") packages that the log covers are as dpkg says"
else
    echo "not ok - the packages that the log covers are as dpkg says"
    head -20 "$dir/diff"
    failed=1
fi
check "the history counts every event" "$("$build/azoth" --dir "$dir/db" query packages \
    "SELECT sum(events) FROM history" | tail -n +2)" "$committed"
# A log that contradicts itself: the upgrade of what was removed, and a version that ends like another. What
# is behind an unfinished step, or mentioned for the first time, is let through.
cat >"$dir/bad" <<'LOG'
2026-01-01 00:00:00 upgrade first:all 1.0 2.0
2026-01-01 00:00:00 status installed gone:all 1.0
2026-01-01 00:00:01 install gone:all <none> 1.0
2026-01-01 00:00:01 remove gone:all 1.1 <none>
2026-01-01 00:00:02 remove gone:all 1.0 <none>
2026-01-01 00:00:02 status not-installed gone:all <none>
2026-01-01 00:00:03 upgrade gone:all 1.0 2.0
2026-01-01 00:00:04 status half-configured tail:all 11.2
2026-01-01 00:00:04 status installed tail:all 1.2
2026-01-01 00:00:05 install gone:all <none> 2.0
2026-01-01 00:00:05 status half-configured gone:all 2.0
2026-01-01 00:00:06 remove gone:all 2.0 <none>
LOG
check "lines that contradict those before them are refused, and no others" \
    "$("$build/examples/packages/packages" "$dir/bad.db" "$dir/bad" 2>"$dir/err")" "lines 12 committed 8 refused 4"
check "a refusal names the key" "$(grep -c '^refused: .*ver/gone:all' "$dir/err")" 3
printf '2026-01-02 00:00:00 status installed late:all 1.0\n' >"$dir/day1"
printf '2026-01-03 00:00:00 upgrade late:all 0.9 2.0\n' >"$dir/day2"
"$build/examples/packages/packages" "$dir/bad.db" "$dir/day1" >"$dir/out" 2>&1
check "what an earlier run has read counts" \
    "$("$build/examples/packages/packages" "$dir/bad.db" "$dir/day2" 2>"$dir/err")" "lines 1 committed 0 refused 1"
exit $failed

#!/bin/bash
# azoth backup --incremental, and azoth restore to an event or a time: a database is given back as it was at each moment that
# its backups lead to; and what a gap, a flipped bit, a full disk or a mark that was given up does.
. "$(dirname "$0")/checks.sh"
. "$(dirname "$0")/backups.sh"
remember() { digests[n]=$(azoth digest --with-times); times[n]=$(date +%s.%N); }
kinds() { azoth backup list "$1" --json | jq -r 'map(.kind[:1]) | join("")'; }
newest() { ls "$1"/*.azb | sort -t- -k2n | tail -1; }
restored() { rm -rf "$TMP/new"; azoth restore "$TMP/dest" "$TMP/new" "$@" >"$TMP/out" 2>&1 && azoth digest --with-times --dir "$TMP/new"; }
declare -a digests times

check "a writer runs" begin_writer
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>"$TMP/p.log" & pids+=($!)
check "and a projector" until_true 20 grep -q 'ready projection=p' "$TMP/p.log"
commit 20; remember
azoth lag p --wait --timeout 20 >"$TMP/out"
exits "the first increment is a full backup, and says why" 0 "does not know this directory" azoth backup --incremental "$TMP/dest"
says "which has a mark from then on, confirmed by it" "20 false true" "$(azoth status --json | jq -r '.store.marks[0] | "\(.txn) \(.broken) \(.confirmed)"')"
exits "what is not new is not written" 0 "nothing was written" azoth backup --incremental "$TMP/dest"
commit 5; remember
exits "the next one has what is new" 0 "events 41 to 50, transactions 21 to 25" azoth backup --incremental "$TMP/dest"
commit 5; remember
says "as JSON tells, too" "increment 25 30 null" "$(azoth backup --incremental "$TMP/dest" --json | jq -r '"\(.kind) \(.from_transaction) \(.transaction) \(.why_full)"')"
says "the mark has moved with it" 30 "$(azoth status --json | jq '.store.marks[0].txn')"
commit 5; remember
exits "a full one between" 0 "leads on to it" azoth backup "$TMP/dest"
commit 5; remember
check "does not interrupt the increments" azoth backup --incremental "$TMP/dest"
says "list tells their kinds" "full incremental incremental full incremental incremental" "$(azoth backup list "$TMP/dest" | awk 'NR > 1 {print $2}' | paste -sd' ')"
says "list has them in order" fiifii "$(kinds "$TMP/dest")"
says "and what builds on what" "null 1 2 null 4 4" "$(azoth backup list "$TMP/dest" --json | jq -r '[.[].builds_on] | map(tostring) | join(" ")')"
exits "all of them are whole" 0 "events 71 to 80" azoth backup verify "$TMP/dest"

# --- restoring ---
says "the newest state is restored" "${digests[40]}" "$(restored)"
check "from the newest full one" grep -q '000004-full.azb and 1 incremental backup:' "$TMP/out"
azoth backup --sealed --without-projections --dir "$AZOTH_DIR" - 2>/dev/null >"$TMP/a.azb"
rm -r "$TMP/new"; azoth restore --same-uuid "$TMP/dest" "$TMP/new" >/dev/null; azoth backup --sealed --without-projections --dir "$TMP/new" - 2>/dev/null >"$TMP/b.azb"
check "byte by byte, with its request ids" cmp "$TMP/a.azb" "$TMP/b.azb"
mkdir "$TMP/loose" && cp "$TMP"/dest/*.azb "$TMP/loose"; rm -r "$TMP/new"
exits "files that were put elsewhere, as a command puts them, are restored from there" 0 "and 1 increment" azoth restore "$TMP/loose" "$TMP/new"
says "to the newest" "${digests[40]}" "$(azoth digest --with-times --dir "$TMP/new")"
exits "and are checked there" 0 "000006-increment.azb: whole" azoth backup verify "$TMP/loose"
for at in 20 25 30 35 40; do
    says "at event $((2 * at)) it was this" "${digests[$at]}" "$(restored --to-event $((2 * at)))"
    [ $at = 20 ] || [ $at = 40 ] || says "and at that time" "${digests[$at]}" "$(restored --to-time "@${times[$at]}")"
done
for event in 43 58 64 71; do
    restored --to-event $event >/dev/null
    says "event $event is inside a transaction, which is there whole" "$(((event + 1) / 2)) $((event + event % 2))" "$(azoth digest --dir "$TMP/new" --json | jq -r '"\(.transaction) \(.event)"')"
    [ $((event % 2)) = 0 ] || check "which is said" grep -q "inside transaction $(((event + 1) / 2)), which is there whole" "$TMP/out"
    says "state and log agree" $(((event + 1) / 2)) "$(azoth get sum --dir "$TMP/new")"
done
says "the projection of the full one is there, behind the target" 40 "$(restored --to-event 44 >/dev/null; azoth query p 'SELECT count(*) * 2 FROM t' --dir "$TMP/new" | tail -1)"
"$BUILD/azoth-feed" --dir "$TMP/new" 2>"$TMP/feed2.log" & feed=$!
check "and goes on from there" timeout 20 "$BUILD/azoth-projector" --dir "$TMP/new" --once p
says "to the target" 22 "$(azoth query p 'SELECT count(*) FROM t' --dir "$TMP/new" | tail -1)"
kill $feed; wait $feed
exits "verify finds nothing" 0 "" azoth verify --dir "$TMP/new"
rm -rf "$TMP/new"
exits "before the oldest there is nothing" 1 "from event 40 on" azoth restore "$TMP/dest" "$TMP/new" --to-event 39
exits "nor before its time" 1 "before the oldest full backup" azoth restore "$TMP/dest" "$TMP/new" --to-time 2001-01-01T00:00:00Z
exits "behind the newest neither" 1 "is at event 80" azoth restore "$TMP/dest" "$TMP/new" --to-event 81
exits "nor after its time" 1 "no backup leads so far" azoth restore "$TMP/dest" "$TMP/new" --to-time "2199-01-01 00:00"
exits "what is no time is refused" 2 "a time is" azoth restore "$TMP/dest" "$TMP/new" --to-time 2026-02-31T00:00:00Z
exits "two targets are one too many" 2 "not both" azoth restore "$TMP/dest" "$TMP/new" --to-event 1 --to-time @1
exits "a file alone has one moment" 2 "directory of backups" azoth restore "$(newest "$TMP/dest")" "$TMP/new" --to-event 80
exits "an increment alone is none" 1 "AZOTH_ERR_BACKUP_MISSING" azoth restore "$(newest "$TMP/dest")" "$TMP/new"
at=$(date -u -d "@${times[30]}" +%Y-%m-%dT%H:%M:%S.%N)
for text in "${at}Z" "$(TZ=Asia/Kolkata date -d "@${times[30]}" +%Y-%m-%dT%H:%M:%S.%N+05:30)" "$(date -d "@${times[30]}" '+%F %T.%N')"; do
    says "a time is understood as $text" "${digests[30]}" "$(restored --to-time "$text")"
done
rm -rf "$TMP/new"

# --- what is damaged ---
cp -r "$TMP/dest" "$TMP/bad"
rm "$TMP"/bad/*-000004-* "$TMP"/bad/*-000003-*
exits "a missing increment is named by its transactions" 1 "transactions 26 to 30 are missing" azoth restore "$TMP/bad" "$TMP/new"
says "before it all can be restored" "${digests[25]}" "$(azoth restore "$TMP/bad" "$TMP/new" --to-event 50 >"$TMP/out" && azoth digest --with-times --dir "$TMP/new")"
rm -rf "$TMP/new"; cp "$TMP"/dest/*-000003-* "$TMP/bad"
says "with it the full ones are not even needed" "${digests[40]}" "$(azoth restore "$TMP/bad" "$TMP/new" >"$TMP/out" && azoth digest --with-times --dir "$TMP/new")"
rm -rf "$TMP/new"
file=$(ls "$TMP"/bad/*-000003-*); size=$(stat -c %s "$file")
printf "\\x$(printf %02x $(($(od -An -tu1 -j $((size / 2)) -N1 "$file") ^ 4)))" | dd of="$file" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
exits "a flipped bit in the middle one is found, in the file that is named" 4 "000003-increment.azb" azoth restore "$TMP/bad" "$TMP/new"
says "as damage, and nothing is left" "1 0" "$(grep -c AZOTH_ERR_CORRUPT "$TMP/out") $(ls -d "$TMP"/new* 2>/dev/null | wc -l)"
head -c $((size / 2)) "$(ls "$TMP"/dest/*-000003-*)" >"$file"
exits "one that was cut too" 4 "000003-increment.azb" azoth restore "$TMP/bad" "$TMP/new"
check "as such" grep -q AZOTH_ERR_TRUNCATED "$TMP/out"
(umask 077; azoth key make "$TMP/key" >"$TMP/out"; azoth key make "$TMP/other" >"$TMP/out")
azoth backup --incremental --key-file "$TMP/key" "$TMP/secret" >"$TMP/out" 2>&1; commit 3
exits "encrypted increments" 0 "incremental backup" azoth backup --incremental --key-file "$TMP/key" "$TMP/secret"
exits "are not restored with another key" 1 "AZOTH_ERR_WRONG_KEY" azoth restore --key-file "$TMP/other" "$TMP/secret" "$TMP/new"
exits "but with theirs" 0 "and 1 incremental backup:" azoth restore --key-file "$TMP/key" "$TMP/secret" "$TMP/new"
says "to the newest" "$(azoth digest)" "$(azoth digest --dir "$TMP/new")"; rm -r "$TMP/new"
exits "what is not encrypted is not taken for what is" 1 "it is not encrypted, so anybody may have made it" azoth restore --key-file "$TMP/key" "$(newest "$TMP/loose")" "$TMP/new"
exits "by no check either" 1 "AZOTH_ERR_WRONG_KEY" azoth backup verify --key-file "$TMP/key" "$(newest "$TMP/loose")"
azoth backup --quiet --incremental "$TMP/mixed"
exits "and no encrypted increment builds on it" 0 "full backup $TMP/mixed" azoth backup --incremental --key-file "$TMP/key" "$TMP/mixed"
check "as is said" grep -q 'it is not encrypted' "$TMP/out"
azoth backup forget "$TMP/mixed" >"$TMP/out"
exits "with another key the next one is a full one" 0 "a full backup: " azoth backup --incremental --key-file "$TMP/other" "$TMP/secret"

# --- a full disk, two at once, marks ---
if ldd "$BUILD/azoth" | grep -q 'lib[at]san'; then echo "skip - what is preloaded comes before a sanitizer's runtime"; else
    mkdir -p "$TMP/above/mid"
    exits "a new directory of backups is on the disk before anything in it" 4 "the directory of $TMP/above/mid/dest" env LD_PRELOAD="$BUILD/tests/fault/fail_io.so" AZOTH_FAIL_DIR="$TMP/above" AZOTH_FAIL=sync,1,5 "$BUILD/azoth" backup "$TMP/above/mid/dest"
    before=$(ls "$TMP/dest"); touch "$TMP/full"
    exits "a full disk: there is no increment" 4 "AZOTH_ERR_NOSPACE" env LD_PRELOAD="$BUILD/tests/fault/fail_io.so" AZOTH_FAIL_DIR="$TMP/dest" AZOTH_FAIL_FULL="$TMP/full" "$BUILD/azoth" backup --incremental "$TMP/dest"
    says "and nothing of it" "$before" "$(ls "$TMP/dest")"
    says "the mark has not moved" 40 "$(azoth status --json | jq "[.store.marks[] | select(.place == \"$(cat "$TMP/dest/place")\")][0].txn")"
fi
exits "afterwards there is one, with all" 0 "transactions 41 to 43" azoth backup --incremental "$TMP/dest"
commit 1
exec 9<"$TMP/dest/place"; flock 9
exits "two at once are one too many" 1 "AZOTH_ERR_BUSY" azoth backup --incremental "$TMP/dest"
exec 9<&-
kill $writer; wait $writer
exits "without a writer there is an increment, and the mark stays" 0 "the mark stays at transaction 43" azoth backup --incremental "$TMP/dest"
check "a writer that keeps little redo" begin_writer --writer-redo-keep 1M
big=$(printf '%060000d' 1)
for ((i = 0; i < 40; i++)); do echo "{\"set\":{\"big$i\":\"$big\"}}"; done | azoth tx - >"$TMP/out"
commit 2
exits "breaks the mark, and the next one is a full one, which says so" 0 "were given up" azoth backup --incremental "$TMP/dest"
says "and has its mark again" "false" "$(azoth status --json | jq "[.store.marks[] | select(.place == \"$(cat "$TMP/dest/place")\")][0].broken")"
says "from which it is restored" "$(azoth digest --with-times)" "$(restored)"
commit 2
exits "and increments follow" 0 "incremental backup" azoth backup --incremental "$TMP/dest"
rm -r "$TMP/new"
exits "between the chains nothing is known" 1 "are missing: nothing leads from" azoth restore "$TMP/dest" "$TMP/new" --to-event 90
exits "a place that is forgotten" 0 "keeps nothing" azoth backup forget "$TMP/dest"
exits "one that is gone, by its identity" 0 "keeps nothing" azoth backup forget --place "$(cat "$TMP/secret/place")"
exits "which it does not know any more" 1 "knows no such place of backups" azoth backup forget --place "$(cat "$TMP/secret/place")"
says "has no mark" 0 "$(azoth status --json | jq '.store.marks | length')"
exits "and begins with a full one" 0 "does not know this directory" azoth backup --incremental "$TMP/dest"
# --- beside archiving ---
commit 2
check "an increment before archiving" azoth backup --incremental "$TMP/dest"
exits "what backups have is archived" 0 "" azoth archive --before $((2 * n - 3)) "$TMP/segments"
commit 2
exits "an increment after it" 0 "incremental backup" azoth backup --incremental "$TMP/dest"
exits "and a full one with what leads on to it" 0 "full backup" azoth backup "$TMP/dest"
commit 1; azoth backup --incremental "$TMP/dest" >"$TMP/out"
says "to the newest" "$(azoth digest --with-times)" "$(restored)"
says "and to an event in what was archived since" $((2 * n - 10)) "$(restored --to-event $((2 * n - 10)) >/dev/null; azoth digest --dir "$TMP/new" --json | jq .event)"
# --- another history ---
kill $writer; wait $writer
rm -rf "$TMP/new"; azoth restore --same-uuid --to-event 60 "$TMP/dest" "$TMP/new" >"$TMP/out"
azoth tx --embedded --dir "$TMP/new" '{"events":[{"type":"a"}]}' >"$TMP/out"
exits "a restored database begins anew in the same directory" 0 "a full backup" azoth backup --incremental --dir "$TMP/new" "$TMP/dest"
exits "of which the newest is restored" 0 "events 1 to 61" azoth restore "$TMP/dest" "$TMP/new2"
checks_end

#!/bin/bash
# azoth backup prune and --keep: what a rule keeps stays, with all that it builds on, and is restored.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
trap leave EXIT
azoth init "$AZOTH_DIR" >/dev/null
"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & pids+=($!)
check "a writer runs" until_true 20 grep -q ready "$TMP/writer.log"
tx() { azoth tx '{"add":{"n":1},"events":[{"type":"a"}]}' >"$TMP/out"; }
kinds() { azoth backup list "$1" --json | jq -r 'map("\(.kind[:1])\(.number)") | join(" ")'; }
restores() { rm -rf "$TMP/new"; azoth restore "$1" "$TMP/new" "${@:2}" >"$TMP/out" 2>&1 && azoth get n --dir "$TMP/new"; }
increment() { tx; azoth backup --incremental "$TMP/dest" "$@" >"$TMP/out" 2>&1; }
for i in 1 2 3; do increment; done
tx; azoth backup "$TMP/dest" >"$TMP/out"
increment
tx; azoth backup "$TMP/dest" >"$TMP/out"
for i in 1 2; do increment; done
says "there are these" "f1 i2 i3 f4 i5 i6 f7 i8 i9 i10" "$(kinds "$TMP/dest")"
cp -r "$TMP/dest" "$TMP/all"
exits "a dry run says what would go" 0 "7 would be removed" azoth backup prune "$TMP/dest" --keep "1 last" --dry-run
says "and takes nothing" "f1 i2 i3 f4 i5 i6 f7 i8 i9 i10" "$(kinds "$TMP/dest")"
exits "one stays with what it builds on" 0 "7 removed" azoth backup prune "$TMP/dest" --keep "1 last"
says "which are these" "f7 i9 i10" "$(kinds "$TMP/dest")"
says "from which the newest is restored" 8 "$(restores "$TMP/dest")"
says "and what is between" 7 "$(restores "$TMP/dest" --to-event 7)"
exits "not what was before" 1 "before the oldest full backup" azoth restore "$TMP/dest" "$TMP/other" --to-event 5
check "increments go on" increment
says "from there" 9 "$(restores "$TMP/dest")"
says "JSON says which and why" "7 f7 needed, i9 needed, i10 last" "$(azoth backup prune "$TMP/all" --keep "1 last, 1 daily" --json | jq -r '"\(.removed) \([.backups[] | select(.kept) | "\(.file | capture("-0*(?<n>[0-9]+)-(?<k>.)") | .k + .n) \(.why)"] | join(", "))"')"
check "a backup prunes, when it is asked to" increment --keep "2 last"
says "and keeps chains" "f7 i9 i10 i11 i12" "$(kinds "$TMP/dest")"
tx; azoth backup "$TMP/dest" --keep "1 last" --json >"$TMP/out"
says "a full one and what leads on to it stay, and the chain before goes" "f13 i14" "$(kinds "$TMP/dest")"
tx; azoth backup --incremental "$TMP/dest" --keep "1 last" >"$TMP/out"
says "with the next increment what led on to it goes" "f13 i15" "$(kinds "$TMP/dest")"
says "and the newest is restored" 12 "$(restores "$TMP/dest")"
touch "$TMP/dest/notes.txt"; : >"$TMP/dest/20260101T000000Z-000099-full.azb.partial"
azoth backup prune "$TMP/dest" --keep "3 last" >"$TMP/out"
says "what a dead one left goes, what is no backup stays" "notes.txt place" "$(ls "$TMP/dest" | grep -v azb$ | tr '\n' ' ' | sed 's/ $//')"
file=$(ls "$TMP"/dest/*-000013-*); cp "$file" "$TMP/keep"; head -c 100 "$file" >"$TMP/cut"; cp "$TMP/cut" "$file"
exits "while one can not be read nothing is removed" 4 "nothing is removed while" azoth backup prune "$TMP/dest" --keep "1 last"
cp "$TMP/keep" "$file"
exits "a rule that nobody understands" 2 "" azoth backup prune "$TMP/dest" --keep "1 fortnightly"
exits "is refused before a backup is made" 2 "" azoth backup "$TMP/dest" --keep "many"
exits "prune wants a rule" 2 "prune --keep what" azoth backup prune "$TMP/dest"
exits "and a directory of backups" 1 "AZOTH_ERR_NOT_FOUND" azoth backup prune "$TMP/db" --keep "1 last"
azoth backup --sealed --quiet "$TMP/set-back"; touch -d 2050-01-01 "$TMP"/set-back/*sealed.azb
exits "after a clock was set back the backup that was just made stays" 0 "1 older ones removed" azoth backup "$TMP/set-back" --keep "1 last"
says "and what goes is the one before" f2 "$(kinds "$TMP/set-back")"
exec 9<"$TMP/dest/place"; flock 9
exits "it does not remove under another one's hands" 1 "AZOTH_ERR_BUSY" azoth backup prune "$TMP/dest" --keep "1 last"
exec 9<&-
checks_end

#!/bin/bash
# azoth backup --follow: each commit is in a backup soon after, whoever is killed meanwhile, also through a command.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
trap leave EXIT
azoth init "$AZOTH_DIR" >/dev/null
begin_writer() { "$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & writer=$!; pids+=($writer); until_true 20 grep -q ready "$TMP/writer.log"; }
begin_follower() { "$BUILD/azoth" backup --follow --interval 50ms "$@" 2>>"$TMP/follow.log" & follower=$!; pids+=($follower); }
tx() { azoth tx '{"add":{"n":1},"events":[{"type":"a"}]}' >"$TMP/out" 2>&1; }
there() { azoth backup list "$1" --json | jq 'map(select(.complete) | .to_event) | max // 0'; }
reaches() { [ "$(there "$1")" -ge "$2" ]; } # DEST EVENT
head_event() { azoth status --json | jq '.head.event // .event'; }
rows() { azoth lag --json | jq -r '.backups[] | "\(.state) \(.behind)"'; }

"$BUILD/azoth" backup --follow --interval 50ms "$TMP/dest" 2>>"$TMP/follow.log" & follower=$!; pids+=($follower)
check "a writer runs" begin_writer
check "the follower has waited for it" until_true 20 grep -q "ready to=" "$TMP/follow.log"
says "and made a full backup" 1 "$(ls "$TMP/dest"/*-full.azb | wc -l)"
tx
check "a commit is shipped" until_true 20 reaches "$TMP/dest" 1
before=$(ls "$TMP/dest" | wc -l)
for i in 1 2 3; do tx; until_true 20 reaches "$TMP/dest" $((i + 1)); done
says "each by an increment" $((before + 3)) "$(ls "$TMP/dest" | wc -l)"
check "lag tells of it" until_true 20 eval '[ "$(rows)" = "following 0" ]'
exits "and is content" 0 "following" azoth lag --max-events 0
kill -9 $follower; wait $follower 2>/dev/null
tx; tx
says "lag tells when nobody follows" "silent 2" "$(rows)"
exits "and by how much it is behind" 1 "OVER" azoth lag --max-events 1
exits "the limit is in time, too" 1 "OVER" azoth lag --max-seconds 0.001
begin_follower "$TMP/dest"
check "another one goes on where it was" until_true 20 reaches "$TMP/dest" 6
says "without another full one" 1 "$(ls "$TMP/dest"/*-full.azb | wc -l)"
kill -9 $writer; wait $writer 2>/dev/null
check "the writer is killed, and there is another" begin_writer
tx
check "which is followed as well" until_true 20 reaches "$TMP/dest" 7
exits "another backup is made into the same place meanwhile" 0 "full backup" azoth backup "$TMP/dest"
tx
check "and is followed by increments" until_true 20 reaches "$TMP/dest" 8

# --- its place is forgotten, or another one ---
exits "a place that is followed is forgotten" 0 "keeps nothing" azoth backup forget "$TMP/dest"
tx
check "the next commit makes a full backup" until_true 20 reaches "$TMP/dest" 9
check "and is followed as before" until_true 20 eval '[ "$(rows)" = "following 0" ]'
kill -9 $follower; wait $follower 2>/dev/null
says "so lag tells when nobody does" "silent 0" "$(rows)"
begin_follower "$TMP/dest"
check "another one follows" until_true 20 eval '[ "$(rows)" = "following 0" ]'
mv "$TMP/dest" "$TMP/dest.gone"
exits "what it was for is forgotten" 0 "keeps nothing" azoth backup forget "$TMP/dest.gone"
tx
check "its directory is gone: it makes another one" until_true 20 eval '[ "$(rows)" = "following 0" ]'
check "with all in it" reaches "$TMP/dest" 10

# --- under load, with deaths ---
(while "$BUILD/azoth" tx - < <(for i in {1..200}; do echo '{"add":{"n":1},"events":[{"type":"a"}]}'; done) >/dev/null 2>&1; do :; done) & load=$!
for i in 1 2 3; do
    event=$(head_event)
    check "it keeps up" until_true 20 reaches "$TMP/dest" $((event + 200))
    kill -9 $follower; wait $follower 2>/dev/null; begin_follower "$TMP/dest"
done
kill $load; wait $load 2>/dev/null
# What the machine of the writer takes with it is at most what came after the last file.
kill -9 $writer $follower; wait $writer $follower 2>/dev/null
last=$(there "$TMP/dest")
check "the machine is gone: the newest file is restored" azoth restore "$TMP/dest" "$TMP/new"
says "whole, and the sum is that of its events" "$last $last" "$(azoth get n --dir "$TMP/new") $(azoth digest --dir "$TMP/new" --json | jq .event)"
check "verify finds nothing" azoth verify --dir "$TMP/new" >"$TMP/out"
check "a writer runs again" begin_writer
begin_follower "$TMP/dest"
check "what had not been shipped is" until_true 20 reaches "$TMP/dest" "$(head_event)"
kill $follower; wait $follower
says "it ends when it is told to" 0 $?
says "and lag says so" silent "$(rows | cut -d" " -f1)"
says "without anything half done" 0 "$(ls "$TMP/dest" | grep -c partial)"

# --- a full disk ---
if ldd "$BUILD/azoth" | grep -q libasan; then echo "skip - what is preloaded comes before a sanitizer's runtime"; else
    : >"$TMP/follow.log"
    LD_PRELOAD=$BUILD/tests/fault/fail_io.so AZOTH_FAIL_DIR=$TMP/dest AZOTH_FAIL_FULL=$TMP/full begin_follower "$TMP/dest"
    check "one has begun" until_true 20 grep -q "ready to=" "$TMP/follow.log"
    before=$(ls "$TMP/dest"); event=$(head_event); touch "$TMP/full"; tx
    check "a full disk is told" until_true 20 grep -q "tried again: .*AZOTH_ERR_NOSPACE" "$TMP/follow.log"
    says "nothing half done lies there" "$before" "$(ls "$TMP/dest")"
    says "lag says what is not shipped" 1 "$(azoth lag --json | jq '[.backups[] | select(.state == "following")][0].behind')"
    rm "$TMP/full"
    check "with room it is shipped" until_true 20 reaches "$TMP/dest" $((event + 1))
    kill $follower; wait $follower
    says "by the same process, which ends in order" 0 $?
fi

# --- in pieces ---
some() { head -c 30000 /dev/urandom | base64 -w0 | jq -Rc '{add: {n: 1}, events: [{type: "a", data: {x: .}}]}' | azoth tx - >"$TMP/out" 2>&1; }
: >"$TMP/follow.log"
begin_follower "$TMP/pieces" --max-bytes 64K --interval 1h
check "one that cuts has begun" until_true 20 grep -q "ready to=" "$TMP/follow.log"
kill $follower; wait $follower
for i in 1 2 3 4 5; do some; done; tx
begin_follower "$TMP/pieces" --max-bytes 64K --interval 1h
check "what has gathered is shipped at once, in pieces" until_true 20 reaches "$TMP/pieces" "$(head_event)"
kill $follower; wait $follower
# A transaction has 41 kB: the fifth leaves room for the sixth, which is small.
says "of as much as is allowed" "1 1 1 1 2" "$(azoth backup list "$TMP/pieces" --json | jq -r '[.[] | select(.kind == "increment") | .to_event - .from_event] | join(" ")')"
says "without another full one" 1 "$(ls "$TMP/pieces"/*-full.azb | wc -l)"
check "they are restored" azoth restore "$TMP/pieces" "$TMP/new3"
says "to the newest" "$(azoth digest)" "$(azoth digest --dir "$TMP/new3")"
exits "a piece is no less than 64 KiB" 2 "at least 64K" azoth backup --follow --max-bytes 1K "$TMP/pieces"
exits "and is of following" 2 "are for --follow" azoth backup --incremental --max-bytes 1M "$TMP/pieces"
exits "a size is a size" 2 "is no size" azoth backup --follow --max-bytes much "$TMP/pieces"

# --- through a command ---
mkdir "$TMP/far"
cat >"$TMP/ship" <<'S'
[ ! -e "$FAR/refuse" ] || { cat >/dev/null; exit 7; }
cat >"$FAR/.$AZOTH_BACKUP_NAME" && mv "$FAR/.$AZOTH_BACKUP_NAME" "$FAR/$AZOTH_BACKUP_NAME"
echo "$AZOTH_BACKUP_KIND $AZOTH_BACKUP_FROM $AZOTH_BACKUP_TO" >>"$FAR/log"
S
export FAR=$TMP/far
: >"$TMP/follow.log"
begin_follower "$TMP/sent" --exec "sh $TMP/ship"
check "a command gets the backups" until_true 20 grep -q "ready to=" "$TMP/follow.log"
event=$(head_event); tx
check "each of them" until_true 20 reaches "$TMP/far" $((event + 1))
says "and is told which it is" "increment" "$(tail -1 "$TMP/far/log" | cut -d' ' -f1)"
touch "$TMP/far/refuse"; tx
check "one that refuses is told of" until_true 20 grep -q "ended with exit code 7" "$TMP/follow.log"
says "and the mark has not moved" $((event + 1)) "$(azoth status --json | jq "[.store.marks[] | select(.place == \"$(cat "$TMP/sent/place")\")][0].event")"
rm "$TMP/far/refuse"
check "it is tried again" until_true 20 reaches "$TMP/far" $((event + 2))
kill -9 $follower; wait $follower 2>/dev/null; tx
begin_follower "$TMP/sent" --exec "sh $TMP/ship"
check "another one goes on" until_true 20 reaches "$TMP/far" $((event + 3))
says "with one full backup in all" 1 "$(ls "$TMP"/far/*-full.azb | wc -l)"
kill $follower; wait $follower
cp "$TMP/sent/place" "$TMP/far/"
check "what has come there is restored" azoth restore "$TMP/far" "$TMP/new2"
says "to the newest" "$(azoth digest)" "$(azoth digest --dir "$TMP/new2")"
exits "its directory is for nothing else" 2 "is for that alone" azoth backup --incremental "$TMP/sent"
exits "what a command has had is no place for files" 2 "what a command has had" timeout 20 "$BUILD/azoth" backup --follow "$TMP/sent"
exits "a command is for following" 2 "are for --follow" azoth backup --exec cat "$TMP/sent"
checks_end

#!/bin/bash
# Backups of a database whose old events lie in segment files: it is restored with them, and what is missing or damaged is named.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
printf '[writer]\nreserve = 1M\n' >"$AZOTH_DIR/azoth.conf"
printf -- '-- azoth: projection p\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v);\n-- azoth: on a\nINSERT INTO t VALUES (@id, :v);\n' >"$AZOTH_DIR/projections/p.sql"
commit() { # FROM TO: transactions with a key and two events each
    local i
    for ((i = $1; i <= $2; i++)); do
        printf '{"set":{"key/%d":%d},"events":[{"type":"a","data":{"v":%d}},{"type":"b","key":"k%d","data":{"v":%d}}]}\n' $((i % 50)) $i $i $((i % 9)) $i
    done | azoth tx - >"$TMP/out" 2>&1
}
digest() { azoth digest --with-times "$@" 2>&1; }
events() { azoth events --json "$@" | b2sum; }
sealed() { azoth backup --sealed --without-projections - "$@" 2>/dev/null | b2sum; }
segments() { azoth archive list --json "$@" | jq -r '[.segments[] | "\(.first)-\(.last)"] | join(" ")'; }
left() { find "$TMP" -maxdepth 1 \( -name '*.restoring-*' -o -name never -o -name 'azoth-verify*' -o -name 'azoth-backup*' \) | wc -l; }
none() { # SENTENCE CODE TEXT COMMAND...: and there is no backup in $TMP/none
    exits "$1" "$2" "$3" "${@:4}"
    says "and no backup" "place" "$(ls "$TMP/none")"
}

"$BUILD/azoth-writer" --dir "$AZOTH_DIR" --writer-sync none 2>"$TMP/writer.log" & pids+=($!)
writer=$!
check "a writer runs" until_true 20 grep -q ready "$TMP/writer.log"
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
feed=$!
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>"$TMP/p.log" & pids+=($!)
projector=$!
check "a projector runs" until_true 20 grep -q 'ready projection=p' "$TMP/p.log"
check "events are committed" commit 1 300
check "and a value that is longer than what a stream holds back" eval 'printf "{\"set\":{\"large\":\"%s\"}}\n" "$(head -c 400000 /dev/urandom | base64 -w0)" | azoth tx - >"$TMP/out" 2>&1'
check "and projected" azoth lag p --wait --timeout 20

# --- the same content, archived or not ---
was="$(digest) $(events) $(sealed)"
check "a backup of before" azoth backup "$TMP/before" --json
exits "some are archived" 0 "events up to 200 are archived" azoth archive --before 201 --segment-events 80
exits "and some more" 0 "events up to 400 are archived" azoth archive --before 401
says "there are segments" "1-80 81-160 161-200 201-400" "$(segments)"
says "digest, events and a sealed backup are what they were" "$was" "$(digest) $(events) $(sealed)"

# --- every kind of backup ---
same() { # SENTENCE DIR: restored, with all of it
    says "$1: it is the same" "$was" "$(digest --dir "$2") $(events --dir "$2") $(sealed --dir "$2")"
    exits "$1: all of it is whole" 0 "whole" azoth verify --dir "$2"
    [ ! -e "$2/projections/p.db" ] || exits "$1: its projection, too" 0 "each once" azoth verify --projection p --dir "$2"
}
exits "a hot backup" 0 "4 segments, events 1 to 400" azoth backup "$TMP/dest"
exits "is restored" 0 "archive    4 segments, events 1 to 400" azoth restore "$TMP/dest" "$TMP/hot" --same-uuid
same "from a file" "$TMP/hot"
says "its segments are its own" "$(segments) archive" "$(segments --dir "$TMP/hot") $(azoth archive list --json --dir "$TMP/hot" | jq -r '[.segments[].path | split("/")[0]] | unique | .[]')"
says "and nobody writes into them" "440" "$(stat -c %a "$TMP/hot/archive"/* | sort -u)"
exits "they are good" 0 "good" azoth archive verify --dir "$TMP/hot"
exits "one from before archiving" 0 "restored" azoth restore "$TMP/before" "$TMP/old" --same-uuid
same "archived between backup and restore" "$TMP/old"
says "its events are in LMDB" "" "$(segments --dir "$TMP/old")"
(umask 077; head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$TMP/key")
check "an encrypted stream" eval 'azoth backup --key-file "$TMP/key" - 2>/dev/null | azoth restore --key-file "$TMP/key" - "$TMP/piped" --same-uuid >/dev/null'
same "from a stream" "$TMP/piped"
exits "a plain directory" 0 "4 segments" azoth backup --plain "$TMP/plain"
says "has them as files" "$(cd "$AZOTH_DIR/archive" && b2sum *)" "$(cd "$TMP/plain/archive" && b2sum *)"
check "and is restored" azoth restore "$TMP/plain" "$TMP/fromplain" --same-uuid
same "from a directory" "$TMP/fromplain"
check "a sealed one" azoth backup --sealed "$TMP/seal"
exits "is restored" 0 "restored" azoth restore "$TMP/seal" "$TMP/unsealed" --same-uuid
same "from a sealed one" "$TMP/unsealed"
says "all its events are in LMDB" "" "$(segments --dir "$TMP/unsealed")"
exits "which has them all in any case" 2 "--sealed has every event" azoth backup --sealed --without-archive "$TMP/seal"
says "list tells of them" "4 false" "$(azoth backup list "$TMP/dest" --json | jq -r '.[0] | "\(.segments) \(.without_archive)"')"
exits "verify --deep reads them" 0 "whole" azoth backup verify --deep --tmp "$TMP" "$TMP/dest"

# --- a restored database goes on ---
azoth restore "$TMP/dest" "$TMP/new" >/dev/null
check "with an identity of its own" eval '! cmp -s "$TMP/new/uuid" "$AZOTH_DIR/uuid"'
says "it reads the segments of the one that made them" "$(digest)" "$(digest --dir "$TMP/new")"
exits "archives behind them" 0 "events up to 500 are archived" azoth archive --embedded --before 501 --dir "$TMP/new" --gone p
exits "moves them" 0 "5 segments moved" azoth archive --embedded --move "$TMP/moved" --dir "$TMP/new"
says "and has all" "$(digest)" "$(digest --dir "$TMP/new")"
check "its own backup" azoth backup --dir "$TMP/new" "$TMP/again"
mv "$TMP/moved" "$TMP/away"
check "has those that lie elsewhere" azoth restore "$TMP/again" "$TMP/third"
says "and they lie in its own directory" "$(digest) 5 archive" "$(digest --dir "$TMP/third") $(ls "$TMP/third/archive" | wc -l) $(azoth archive list --json --dir "$TMP/third" | jq -r '[.segments[].path | split("/")[0]] | unique | .[]')"
exits "which is whole" 0 "whole" azoth verify --dir "$TMP/third"

# --- while events come and are archived ---
(i=301; while [ ! -e "$TMP/enough" ]; do commit $i $((i + 19)) || break; i=$((i + 20)); done) & load=$!
(while [ ! -e "$TMP/enough" ]; do azoth archive --keep-events 60 --segment-events 50 >>"$TMP/archived" 2>&1; done) & runs=$!
bad=0 archived=0
for i in 1 2 3 4; do
    head=$(azoth archive list --json | jq .last_archived)
    until_true 20 sh -c "[ \$('$BUILD/azoth' archive list --json | jq .last_archived) -gt $((head + 40)) ]" || bad=1
    azoth backup "$TMP/load" --json >"$TMP/made.json" 2>"$TMP/out" || { cat "$TMP/out"; bad=1; }
    azoth restore "$TMP/load" "$TMP/r$i" >"$TMP/out" 2>&1 || { cat "$TMP/out"; bad=1; }
    { azoth verify --dir "$TMP/r$i" && azoth verify --projection p --dir "$TMP/r$i"; } >"$TMP/out" 2>&1 || { cat "$TMP/out"; bad=1; }
    event=$(jq .event "$TMP/made.json")
    [ "$(events --to $((event + 1)))" = "$(events --dir "$TMP/r$i")" ] || { echo "# events up to $event differ"; bad=1; }
    archived=$((archived + $(jq .segments "$TMP/made.json")))
done
touch "$TMP/enough"; wait $load $runs
says "backups under load, between runs of archiving, are each of one moment" 0 "$bad"
check "of which each has more segments" [ "$archived" -gt 20 ]

# --- without them ---
azoth lag p --wait --timeout 20 >"$TMP/out"; azoth archive --keep-events 10 >"$TMP/out" 2>&1
first=$(ls "$AZOTH_DIR/archive" | head -1) third=$(ls "$AZOTH_DIR/archive" | sed -n 3p)
exits "a backup without its archive" 0 "not in it: $(ls "$AZOTH_DIR/archive" | wc -l) segments" azoth backup --without-archive "$TMP/slim"
says "list says so" true "$(azoth backup list "$TMP/slim" --json | jq '.[0].without_archive')"
exits "it is whole as it is" 0 "whole" azoth backup verify "$TMP/slim"
exits "a restore wants them" 1 "the first segment that it wants is $first" azoth restore "$TMP/slim" "$TMP/never"
check "and says what is missing" grep -q AZOTH_ERR_BACKUP_MISSING "$TMP/out"
head -c 300000 "$TMP/slim"/*.azb >"$TMP/cut.azb"
exits "before it reads the rest" 1 "AZOTH_ERR_BACKUP_MISSING" azoth restore "$TMP/cut.azb" "$TMP/never"
exits "verify --deep, too" 1 "AZOTH_ERR_BACKUP_MISSING" azoth backup verify --deep --tmp "$TMP" "$TMP/slim"
exits "with them it does it" 0 "whole" azoth backup verify --deep --tmp "$TMP" --archive "$AZOTH_DIR/archive" "$TMP/slim"
exits "as a restore" 0 "restored" azoth restore "$TMP/slim" "$TMP/filled" --archive "$AZOTH_DIR/archive"
says "which has all" "$(digest)" "$(digest --dir "$TMP/filled")"
check "in files of its own" [ "$(stat -c %h "$TMP/filled/archive/$first")" = 1 ]
cp -r "$AZOTH_DIR/archive" "$TMP/cold"; rm -f "$TMP/cold/$third"
exits "one that is not there is named" 1 "$third: the backup was made without its archive, and this segment is not there (AZOTH_ERR_BACKUP_MISSING)" azoth restore "$TMP/slim" "$TMP/never" --archive "$TMP/cold"
cp "$TMP/cold/$first" "$TMP/cold/$third"
exits "another in its place is none" 4 "$third is not the segment of the backup" azoth restore "$TMP/slim" "$TMP/never" --archive "$TMP/cold"
cp -f "$AZOTH_DIR/archive/$third" "$TMP/cold/$third"; chmod u+w "$TMP/cold/$third"
printf '\xff' | dd of="$TMP/cold/$third" bs=1 seek=120 conv=notrunc status=none
exits "nor is a damaged one" 4 "$third: its digest fails its check" azoth restore "$TMP/slim" "$TMP/never" --archive "$TMP/cold"
says "nothing is left of these" 0 "$(left)"

# --- missing and damaged ones ---
azoth backup "$TMP/none" >"$TMP/out"; rm "$TMP/none"/*.azb
mv "$AZOTH_DIR/archive/$third" "$TMP/kept"
none "a segment that is missing is an error with its name" 1 "$third: the segment is not there" azoth backup "$TMP/none"
exits "of a stream" 1 "$third: the segment is not there" sh -c "'$BUILD/azoth' backup --level 0 - >'$TMP/stream'"
says "nothing is written then" 0 "$(stat -c %s "$TMP/stream")"
exits "of a directory" 1 "$third: the segment is not there" azoth backup --plain "$TMP/never"
exits "without the archive it is not missed" 0 "full backup" azoth backup --without-archive "$TMP/slim"
exits "a sealed one misses it" 1 "$third: the segment is not there" azoth backup --sealed --without-projections "$TMP/none"
cp "$TMP/kept" "$AZOTH_DIR/archive/$third"; chmod u+w "$AZOTH_DIR/archive/$third"
printf '\xff' | dd of="$AZOTH_DIR/archive/$third" bs=1 seek=120 conv=notrunc status=none
none "a damaged one is, too" 4 "$third: its digest fails its check" azoth backup "$TMP/none"
check "of a stream there is no end" eval '! azoth backup - 2>/dev/null | azoth restore - "$TMP/never" >"$TMP/out" 2>&1'
check "which is noticed" grep -q AZOTH_ERR_TRUNCATED "$TMP/out"
cp -f "$AZOTH_DIR/archive/$first" "$AZOTH_DIR/archive/$third"
none "so is another in its place" 4 "$third is not the segment that was recorded" azoth backup "$TMP/none"
rm -f "$AZOTH_DIR/archive/$third"; mv "$TMP/kept" "$AZOTH_DIR/archive/$third"
exits "put back, there is a backup" 0 "full backup" azoth backup "$TMP/none"
says "nothing is left of those" 0 "$(left)"

# --- a backup that lies about them: whoever can write it can write its manifest ---
forge() { # SENTENCE CODE TEXT: the plain backup as it was changed
    local name n
    for name in about.json "${@:4}"; do
        n=$(stat -c %s "$TMP/plain/$name")
        sed -i -E "s|(\"name\":\"$name\",\"bytes\":)[0-9]+,\"blake2b\":\"[0-9a-f]+\"|\1$n,\"blake2b\":\"$(b2sum -l 256 "$TMP/plain/$name" | cut -d' ' -f1)\"|" "$TMP/plain/manifest.json"
    done
    exits "$1" "$2" "$3" azoth restore "$TMP/plain" "$TMP/never"
    rm -rf "$TMP/plain"; cp -r "$TMP/true" "$TMP/plain"
}
cp -r "$TMP/plain" "$TMP/true"
about() { jq -c "$1" "$TMP/true/about.json" | tr -d '\n' >"$TMP/plain/about.json"; }
last=events-00000000000000000201-00000000000000000400.azs
about 'del(.archive)'; forge "segments that nobody has told of" 4 "is in no backup"
about 'del(.archive.segments[3])'; sed -i "/archive.$last/d" "$TMP/plain/manifest.json"; sed -i -z 's/},\n\]}/}\n]}/' "$TMP/plain/manifest.json"
forge "one that the store has, and not the backup" 4 "the store's segment up to event 400 is not in the backup"
sed -i "/archive.$last/d" "$TMP/plain/manifest.json"; about .; forge "one that the backup does not have" 4 "does not have archive/$last"
azoth init "$TMP/other" >/dev/null
printf '{"events":[{"type":"x"}]}\n%.0s' {1..400} | azoth tx --embedded --dir "$TMP/other" - >"$TMP/out"
azoth archive --embedded --dir "$TMP/other" --before 201 >"$TMP/out"; azoth archive --embedded --dir "$TMP/other" --before 401 >"$TMP/out"
cp -f "$TMP/other/archive/$last" "$TMP/plain/archive/$last"; about .; forge "one of another history" 4 "is not the segment that was recorded" "archive/$last"
cp -f "$TMP/other/archive/$last" "$TMP/plain/archive/$last"
about ".archive.segments[3].digest = \"$(azoth archive list --dir "$TMP/other" --json | jq -r '.segments[1].digest')\""
forge "which about.json calls its own" 4 "the store's segment up to event 400 is not in the backup" "archive/$last"
says "nothing is left of a lie" 0 "$(left)"
check "the truth is restored" azoth restore "$TMP/plain" "$TMP/truth"

# --- increments, from a full one with segments on; events that a place does not have yet stay ---
azoth lag p --wait --timeout 20 >"$TMP/out"; azoth archive --keep-events 0 >"$TMP/out" 2>&1
point() { azoth digest --json | jq .event; }
exits "the first of a directory of increments is a full one" 0 "full backup" azoth backup --incremental "$TMP/steps"
says "which confirms its mark, though nothing was written meanwhile" "true" "$(azoth status --json | jq -c '.store.marks[0].confirmed')"
check "events behind it" commit 5000 5040
a=$(point) digest_a=$(digest)
azoth lag p --wait --timeout 20 >"$TMP/out"
exits "are not archived before they are backed up" 1 "have events up to $((a - 82)) only" azoth archive --keep-events 0
exits "an increment has them" 0 "" azoth backup --incremental "$TMP/steps"
exits "then they are" 0 "events up to $a are archived" azoth archive --keep-events 0
check "and more" commit 5041 5060
azoth lag p --wait --timeout 20 >"$TMP/out"; azoth backup --incremental "$TMP/steps" >"$TMP/out"; azoth archive --keep-events 7 >"$TMP/out"
exits "full and increments are restored" 0 "2 incremental backups:" azoth restore "$TMP/steps" "$TMP/stepped"
says "with all of it" "$(digest)" "$(digest --dir "$TMP/stepped")"
exits "which is whole" 0 "whole" azoth verify --dir "$TMP/stepped"
exits "to an event between" 0 "events 1 to $a," azoth restore "$TMP/steps" "$TMP/between" --to-event "$a"
says "it is as it was then" "$digest_a" "$(digest --dir "$TMP/between")"
exits "to one that lies in segments of the full one" 1 "before the oldest full backup" azoth restore "$TMP/steps" "$TMP/never" --to-event 100
exits "or in LMDB of it" 1 "before the oldest full backup" azoth restore "$TMP/steps" "$TMP/never" --to-event $((a - 83))
azoth backup --without-archive "$TMP/steps" >"$TMP/out"
exits "a full one without its archive leads on as well" 0 "restored" azoth restore "$TMP/steps" "$TMP/stepped2" --archive "$AZOTH_DIR/archive"
says "with all of it, too" "$(digest)" "$(digest --dir "$TMP/stepped2")"
says "nothing is left of what was refused" 0 "$(left)"

# --- large ones come in parts; and a transaction may have more blocks than any cache ---
azoth init "$TMP/large" >/dev/null
for i in 1 2 3 4; do
    printf '{"events":['
    for k in 1 2 3 4 5 6 7 8 9 10 11 12 13; do printf '%s{"type":"large","data":"%s"}' "$([ $k = 1 ] || echo ,)" "$(head -c 200000 /dev/urandom | base64 -w0)"; done
    printf ']}\n'
done >"$TMP/large.json"
check "large events" eval 'azoth tx --embedded --dir "$TMP/large" - <"$TMP/large.json" >"$TMP/out" 2>&1'
check "in one file" azoth archive --embedded --dir "$TMP/large" --keep-events 0
check "are backed up" azoth backup --dir "$TMP/large" --plain "$TMP/parts"
says "in parts" "00000001 00000002" "$(cd "$TMP/parts/archive"/*/ && echo *)"
check "are restored" azoth restore "$TMP/parts" "$TMP/whole"
says "with the same content" "$(digest --dir "$TMP/large")" "$(digest --dir "$TMP/whole")"
says "and are whole" "$(cd "$TMP/large/archive" && b2sum *)" "$(cd "$TMP/whole/archive" && b2sum *)"

kill $feed $projector; wait $feed $projector
kill $writer; wait $writer # the last one, which takes the shared objects away
checks_end

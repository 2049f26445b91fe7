#!/bin/bash
# azoth backup, restore and digest: what is backed up under load comes back whole, as a database of its own; what was damaged does not.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
printf '[writer]\nreserve = 1M\n' >"$AZOTH_DIR/azoth.conf"
printf -- '-- azoth: projection p\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v);\n-- azoth: on a\nINSERT INTO t VALUES (@id, :v);\n' >"$AZOTH_DIR/projections/p.sql"
sed 's/projection p/projection q/' "$AZOTH_DIR/projections/p.sql" >"$AZOTH_DIR/projections/q.sql"
commit() { # FROM TO [DIR]: transactions, each with a key, an event and an id; standard input to azoth tx
    local i
    for ((i = $1; i <= $2; i++)); do
        printf '{"id":"%032x","add":{"sum":1},"set":{"key/%d":%d},"events":[{"type":"a","key":"k%d","data":{"v":%d}}]}\n' $i $((i * 7919 % 500)) $i $((i % 9)) $i
    done
}
rows() { azoth query p 'SELECT count(*), max(id), sum(id) FROM t' "$@" | sed 1d | tr '\t' ' '; }
left() { find "$TMP" -maxdepth 1 -name '*.restoring-*' | wc -l; }
newest() { ls "$1"/*.azb | sort -t- -k2n | tail -1; }

"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & pids+=($!)
writer=$!
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
feed=$!
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>"$TMP/p.log" & pids+=($!)
projector=$!
check "a projector runs" until_true 20 grep -q 'ready projection=p' "$TMP/p.log"
commit 1 40 | azoth tx - >"$TMP/out"
for i in 41 42 43; do printf '{"set":{"big/%d":{"bytes":"%s"}},"add":{"sum":1},"events":[{"type":"a","data":{"v":%d}}]}\n' $i "$(head -c 600000 /dev/urandom | base64 -w0)" $i; done | azoth tx - >"$TMP/out"
commit 44 60 | azoth tx - >"$TMP/out"
check "events are projected" azoth lag p --wait --timeout 20

# --- a hot backup, while transactions and projections go on ---
"$BUILD/azoth" tx - < <(commit 61 100000) >"$TMP/load" 2>&1 & load=$!
pids+=($load)
check "a backup is made while others write" azoth backup "$TMP/dest" --json
event=$(jq .event "$(azoth backup "$TMP/dest" --json >"$TMP/made.json"; echo "$TMP/made.json")")
kill $load; wait $load 2>/dev/null
check "they have written meanwhile and since" [ "$(azoth status --json | jq '.store.events')" -ge "$event" ]
says "it tells what is not in it" "q it has no file yet" "$(jq -r '.absent[] | "\(.name) \(.why)"' "$TMP/made.json")"
says "two are there, and nothing else" "2 0" "$(ls "$TMP/dest"/*-full.azb | wc -l) $(find "$TMP/dest" -name '*partial*' -o -name 'azoth-backup-*' | wc -l)"
check "the newest one is restored" azoth restore "$TMP/dest" "$TMP/new"
says "up to its event" "$event" "$(azoth digest --dir "$TMP/new" --json | jq .event)"
says "state and log are of one commit" "$event $event" "$(azoth get sum --dir "$TMP/new") $(azoth digest --dir "$TMP/new" --json | jq .transaction)"
cursor=$(jq '.projections[0].cursor' "$TMP/made.json")
check "no projection is beyond it" [ "$cursor" -le "$event" ]
says "and its rows are those up to its cursor" "$cursor $cursor $((cursor * (cursor + 1) / 2))" "$(rows --dir "$TMP/new")"
exits "it has handled each event once" 0 "each once, in order" azoth verify --projection p --dir "$TMP/new"
check "it has an identity of its own" eval '! cmp -s "$TMP/new/uuid" "$AZOTH_DIR/uuid"'
check "and the configuration" cmp "$TMP/new/azoth.conf" "$AZOTH_DIR/azoth.conf"
says "its reserve is there" 1048576 "$(stat -c %s "$TMP/new/reserve")"
exits "it can be written" 0 "event $((event + 1))" azoth tx --embedded --dir "$TMP/new" '{"events":[{"type":"a","data":{"v":0}}]}'
"$BUILD/azoth-feed" --dir "$TMP/new" 2>"$TMP/feed2.log" & pids+=($!)
check "the projection goes on where it was" timeout 20 "$BUILD/azoth-projector" --dir "$TMP/new" --once p
says "with all events" "$((event + 1)) $((event + 1))" "$(rows --dir "$TMP/new" | cut -d' ' -f1,2)"
exits "the request that it remembers is not done twice" 0 "transaction 7" azoth tx --embedded --dir "$TMP/new" "$(commit 7 7)"
exits "a database that is there is not overwritten" 1 "there is a database" azoth restore "$TMP/dest" "$TMP/new"
mkdir "$TMP/some" "$TMP/empty"; touch "$TMP/some/thing"
exits "nor is anything else" 2 "thing is there" azoth restore "$TMP/dest" "$TMP/some"
check "an empty directory is taken" azoth restore "$TMP/dest" "$TMP/empty" --same-uuid --without-projections
check "with the same identity when that is wanted" cmp "$TMP/empty/uuid" "$AZOTH_DIR/uuid"
says "projections without rows are made anew" "" "$(ls "$TMP/empty/projections" | grep -v sql)"

# --- what is there, and whether it is whole ---
says "list tells of each" "1 full $(jq -r .id "$TMP/made.json")" "$(azoth backup list "$TMP/dest" --json | jq -r '"\(.[0].number) \(.[1].kind) \(.[1].id)"')"
exits "verify reads them" 0 "whole, events 1 to $event" azoth backup verify "$TMP/dest"
says "or nothing, when it is to be quiet" "" "$(azoth backup verify --quiet "$TMP/dest" 2>&1)"
exits "and restores them when asked to" 0 "whole, events 1 to $event" azoth backup verify --deep --tmp "$TMP" "$TMP/dest"
says "of which nothing is left" 0 "$(find "$TMP" -name 'azoth-verify*' | wc -l)"
mkdir "$TMP/bad"
cp "$TMP/dest/place" "$TMP/bad/"
file=$(newest "$TMP/dest"); bad=$TMP/bad/$(basename "$file")
size=$(stat -c %s "$file")
flip() { cp "$file" "$bad"; printf "\\x$(printf %02x $(($(od -An -tu1 -j $1 -N1 "$file") ^ 4)))" | dd of="$bad" bs=1 seek=$1 conv=notrunc 2>/dev/null; }
refused() { # SENTENCE CODE TEXT...: verify and restore answer with it, and nothing is left
    local what=$1 code=$2 text=$3; shift 3
    exits "$what: verify says so" $code "$text" azoth backup verify "$bad" "$@"
    exits "$what: it is not restored" $code "$text" azoth restore "$bad" "$TMP/never" "$@"
    says "and nothing is left of it" "0 0" "$(left) $(ls -d "$TMP/never" 2>/dev/null | wc -l)"
}
flip $((size / 2)); refused "a flipped bit" 4 "AZOTH_ERR_CORRUPT"
check "which names the member" grep -qE 'data.mdb/0000000|projections/' "$TMP/out"
head -c $((size / 2)) "$file" >"$bad"; refused "a file that was cut" 4 "AZOTH_ERR_TRUNCATED"
exits "list says so, too" 0 "" azoth backup list "$TMP/bad"
printf '%0500d' 1 >"$bad"; refused "another file" 4 "AZOTH_ERR_FORMAT"
rm "$bad"; refused "none" 1 "AZOTH_ERR_NOT_FOUND"
exits "a directory without backups" 1 "AZOTH_ERR_BACKUP_MISSING" azoth restore "$TMP/bad" "$TMP/never"

# --- encrypted and signed ---
azoth key make "$TMP/key" >/dev/null; azoth key make "$TMP/other" >/dev/null; azoth key make --sign "$TMP/sign" >/dev/null; azoth key make --sign "$TMP/forger" >/dev/null
(umask 077; echo "a long sentence" >"$TMP/words")
check "copies of projections lie beside the backup" env TMPDIR="$TMP/nowhere" "$BUILD/azoth" backup --quiet "$TMP/dest3"
exits "but not where only encrypted ones are to lie" 4 "$TMP/nowhere/azoth-backup-" env TMPDIR="$TMP/nowhere" "$BUILD/azoth" backup --key-file "$TMP/key" "$TMP/secret"
says "where nothing of them is" place "$(ls "$TMP/secret")"
exits "an encrypted one" 0 "full backup" azoth backup --key-file "$TMP/key" "$TMP/secret"
says "says nothing without its key" "true null" "$(azoth backup list "$TMP/secret" --json | jq -r '"\(.[0].encrypted) \(.[0].to_event)"')"
check "and its events with it" [ "$(azoth backup list --key-file "$TMP/key" "$TMP/secret" --json | jq '.[0].to_event')" -ge "$event" ]
check "no name can be read in it" eval '! grep -qE "data.mdb|projections|about.json" "$TMP"/secret/*.azb'
bad=$(newest "$TMP/secret")
refused "without a key" 1 "AZOTH_ERR_WRONG_KEY"
refused "with another" 1 "AZOTH_ERR_WRONG_KEY" --key-file "$TMP/other"
check "with its key it is restored" azoth restore --key-file "$TMP/key" "$TMP/secret" "$TMP/opened"
check "a signed one" azoth backup --sign-key "$TMP/sign" "$TMP/signed"
bad=$(newest "$TMP/signed")
exits "is known by who signed it" 0 "whole" azoth backup verify --signed-by "$TMP/sign.pub" "$TMP/signed"
refused "and not by another" 4 "AZOTH_ERR_CORRUPT" --signed-by "$TMP/forger.pub"
bad=$(newest "$TMP/dest"); refused "nor is one that was not signed" 1 "AZOTH_ERR_NOT_FOUND" --signed-by "$TMP/sign.pub"
file=$(newest "$TMP/secret"); bad=$TMP/bad/secret.azb; size=$(stat -c %s "$file"); flip $((size / 2)); refused "a flipped bit in it" 4 "AZOTH_ERR_CORRUPT" --key-file "$TMP/key"
check "a passphrase through a pipe" eval 'azoth backup --passphrase-file "$TMP/words" - 2>/dev/null | azoth restore --passphrase-file "$TMP/words" - "$TMP/piped" >/dev/null'
says "gives the same content" "$(azoth digest)" "$(azoth digest --dir "$TMP/piped")"
exits "a plain directory" 0 "full backup" azoth backup --plain "$TMP/plain"
check "is restored as well" azoth restore "$TMP/plain" "$TMP/fromplain"
exits "two kinds of keys are one too many" 2 "not both" azoth backup --key-file "$TMP/key" --passphrase-file "$TMP/words" "$TMP/dest"

# --- a full disk ---
if ldd "$BUILD/azoth" | grep -q 'lib[at]san'; then echo "skip - what is preloaded comes before a sanitizer's runtime"; else
    full() { touch "$TMP/full"; LD_PRELOAD=$BUILD/tests/fault/fail_io.so AZOTH_FAIL_DIR=$1 AZOTH_FAIL_FULL=$TMP/full "$BUILD/azoth" "${@:2}"; local rc=$?; rm "$TMP/full"; return $rc; }
    before=$(ls "$TMP/dest")
    exits "a full disk: there is no backup" 4 "AZOTH_ERR_NOSPACE" full "$TMP/dest" backup "$TMP/dest"
    says "and nothing of it" "$before" "$(ls "$TMP/dest")"
    exits "nor a restored database" 4 "AZOTH_ERR_NOSPACE" full "$TMP" restore "$TMP/dest" "$TMP/never"
    says "nor anything of that" "0 0" "$(left) $(ls -d "$TMP/never" 2>/dev/null | wc -l)"
fi

# --- content by its meaning ---
exits "a sealed one of a running database" 0 "sealed backup" azoth backup --sealed "$TMP/sealed" --without-projections
exits "which is not paused any more" 0 "committed" azoth tx "$(commit 200001 200001)"
exits "with its projections, which are waited for" 0 "projection p.g1.db at event $(azoth status --json | jq .store.events)" azoth backup --sealed "$TMP/sealed"
kill -STOP $projector
azoth tx "$(commit 200002 200002)" >/dev/null
before=$(ls "$TMP/sealed")
exits "with one that does not come there is none" 1 "projection p has not come to event" azoth backup --sealed --timeout 500ms "$TMP/sealed"
says "and nothing of it" "$before" "$(ls "$TMP/sealed")"
"$BUILD/azoth" backup --sealed --timeout 60s "$TMP/sealed" >"$TMP/out" 2>&1 & waiting=$!
check "while one waits, writes are paused" until_true 5 eval 'azoth status | grep -q "pause by azoth backup, pid $waiting"'
kill $waiting
check "a signal ends it at once" until_true 5 eval "! kill -0 $waiting"
kill -KILL $waiting 2>/dev/null
wait $waiting
says "without a word" "143 " "$? $(cat "$TMP/out")"
exits "and the pause with it" 0 "committed" azoth tx "$(commit 200004 200004)"
kill -CONT $projector
exits "and writes go on" 0 "committed" azoth tx "$(commit 200003 200003)"
azoth restore "$TMP/dest" "$TMP/twin" --same-uuid >/dev/null
azoth backup --sealed --dir "$TMP/twin" - 2>/dev/null >"$TMP/twin.azb"
rm -r "$TMP/empty"; azoth restore "$(newest "$TMP/dest")" "$TMP/empty" --same-uuid >/dev/null
azoth backup --sealed --dir "$TMP/empty" - 2>/dev/null >"$TMP/again.azb"
check "the same content is the same file" cmp "$TMP/twin.azb" "$TMP/again.azb"
azoth restore "$TMP/twin.azb" "$TMP/fresh" --same-uuid >/dev/null
bytes() { azoth backup --sealed --without-projections --dir "$1" - 2>/dev/null | b2sum; }
says "whatever the pages are" "$(bytes "$TMP/twin")" "$(bytes "$TMP/fresh")"
check "which differ" eval '! cmp -s "$TMP/twin/data.mdb" "$TMP/fresh/data.mdb"'
says "and the same digest" "$(azoth digest --dir "$TMP/twin" --with-times)" "$(azoth digest --dir "$TMP/fresh" --with-times)"
kill $feed $projector; wait $feed $projector
kill $writer; wait $writer # the last one, which takes the shared objects away
export AZOTH_WRITER_SYNC=none
for db in one two; do azoth init "$TMP/$db" >/dev/null; done
commit 1 50 | azoth tx --embedded --dir "$TMP/one" - >/dev/null; commit 1 50 | azoth tx --embedded --dir "$TMP/two" - >/dev/null
says "databases of the same transactions have the same digest" "$(azoth digest --dir "$TMP/one")" "$(azoth digest --dir "$TMP/two")"
check "but with times another" [ "$(azoth digest --with-times --dir "$TMP/one")" != "$(azoth digest --with-times --dir "$TMP/two")" ]
azoth tx --embedded --dir "$TMP/one" '{"events":[{"type":"a","data":{"v":1}}]}' >/dev/null; azoth tx --embedded --dir "$TMP/two" '{"events":[{"type":"a","data":{"v":2}}]}' >/dev/null
check "of others another" [ "$(azoth digest --dir "$TMP/one")" != "$(azoth digest --dir "$TMP/two")" ]
exits "a stopped database is backed up as well" 0 "full backup" azoth backup "$TMP/dest"
exits "a directory of other things is none of backups" 2 "other things" azoth backup "$TMP/some"
checks_end

#!/bin/bash
# azoth verify: a whole store is whole, at rest and while it is written; and each kind of damage, done behind its back
# through LMDB, is found and named. A store of format 1 becomes one of format 2.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db AZOTH_WRITER_RESERVE=0
trap leave EXIT
damage() { "$BUILD/tests/system/damage" "$@"; }
commit() { azoth tx --embedded "$1" >/dev/null || echo "commit: $1" >&2; }
field() { azoth verify --json 2>/dev/null | jq -r "$1"; }
hex() { printf %s "$1" | od -An -tx1 | tr -d ' \n'; }
place=000102030405060708090a0b0c0d0e0f

# ---- a store with something of everything

azoth init "$AZOTH_DIR" >/dev/null
printf '[writer]\nsync = none\n' >"$AZOTH_DIR/azoth.conf"
exits "an empty store is whole" 0 "whole" azoth verify
big=$(printf '%09000d' 1)
commit '{"set":{"a":1,"b":"text","c":[]},"events":[{"type":"opened","data":{"n":1}}]}'
damage "$AZOTH_DIR" mark $place 1 1
for i in 2 3 4 5; do
    commit "{\"set\":{\"k$i\":$i,\"big$i\":\"$big\"},\"delete\":[\"c\"],\"events\":[{\"type\":\"moved\",\"data\":{\"n\":$i}},{\"type\":\"moved\",\"data\":{\"n\":$i}}]}"
done
commit "{\"events\":[$(for i in $(seq 400); do printf '{"type":"many","data":{"n":%d}},' "$i"; done) {\"type\":\"last\"}]}"
exits "so is one with events, keys, ids and redo" 0 "410 events in 6 transactions, 10 keys, 6 request ids, 5 redo records" azoth verify
check "which its chain says too" grep -qE '^chain: [0-9a-f]{64} at event 410, recomputed' "$TMP/out"
says "the same in JSON" "true true 410 6 0" "$(field '[.ok, .store.chain_checked, .store.events, .store.redo_records + 1, (.store.findings | length)] | join(" ")')"
says "the head that status shows is the one that is recomputed" "$(azoth status --json | jq -r '.store.chain | "\(.value) \(.event)"')" "$(field '"\(.store.chain) \(.store.event)"')"
says "status shows the mark and its redo" "$place 1 5 false 5" "$(azoth status --json | jq -r '.store as $s | $s.marks[0] | "\(.place) \(.txn) \(.transactions_behind) \(.broken) \($s.redo_records)"')"
says "and says so in words" 2 "$(azoth status | grep -cE "^redo +5 records|^backups +$place has all up to transaction 1, 5 behind")"

# ---- damage, each in a copy

whole=$AZOTH_DIR
first() { damage "$whole" keys "$1" | head -1 | cut -d' ' -f1; }
last() { damage "$whole" keys "$1" | tail -1 | cut -d' ' -f1; }
damaged() { # SENTENCE KIND TEXT DAMAGE...
    local what=$1 kind=$2 text=$3; shift 3
    rm -rf "$TMP/copy"; cp -r "$whole" "$TMP/copy"
    damage "$TMP/copy" "$@" || { check "$what: damaging" false; return; }
    AZOTH_DIR=$TMP/copy exits "$what" 1 "azoth: $kind: $text" azoth verify
}
alone() { says "nothing else tells of it" 1 "$(grep -c '^azoth: ' "$TMP/out")"; }
at_event() { printf '%016x' "$1"; }
for offset in 0 5 8 40 60; do
    damaged "a flipped byte $offset of an event" event "event 1: the stored record fails its check" flip events "$(at_event 1)" $offset
done
check "its chain is not recomputed then" grep -q "^chain: not recomputed" "$TMP/out"
damaged "an event that is changed, with a checksum that fits" chain "events up to 410 do not give the chain's value at event 410" forge 4; alone
damaged "the time of one" event "event 5 has another time than its transaction 3" retime 4 1900000000000000000
damaged "the time of a transaction" event "event 2 is older than the one before it" retime 2 1
damaged "an event that is missing" event "event 5 is missing: 6 follows" delete events "$(at_event 5)"
damage "$TMP/copy" delete events "$(at_event 6)"
AZOTH_DIR=$TMP/copy exits "two of them" 1 "event 5 is missing: 7 follows" azoth verify
says "are told once" 1 "$(grep -c 'is missing' "$TMP/out")"
damaged "the last one missing" event "events 410 to 410 are missing at the end" delete events "$(at_event 410)"
damaged "one that is put in" event "event 411: the stored record fails its check" put events "$(at_event 411)" 00000000
damaged "one under another id" event "event 411: the stored record fails its check" move events "$(at_event 410)" "$(at_event 411)"
for key in a big3; do
    damaged "a flipped byte of key $key" state "key $key: the stored record fails its check" flip state "$(hex $key)" 17; alone
done
damaged "a state record under another key" state "key z: the stored record fails its check" move state "$(hex a)" "$(hex z)"; alone
damaged "a version of the future" state "key a: its version 999 is beyond the head, transaction 6" state "$(hex a)" 999 1 0100000000000000; alone
damaged "a number of seven bytes" state "key a: a value is not in its type's canonical encoding" state "$(hex a)" 1 1 01000000000000; alone
damaged "text that is no UTF-8" state "key a: a string is not valid UTF-8" state "$(hex a)" 1 6 ff; alone
damaged "a set out of order" state "key a: a value is not in its type's canonical encoding" state "$(hex a)" 1 3 02000000010000006201000000"61"; alone
id=$(first ids)
damaged "a flipped byte of a request id's record" id "request id $id: the stored record fails its check" flip ids "$id" 20; alone
damaged "a request id that is gone" id "request id $id: ids_age has it, ids has not" delete ids "$id"
oldest=$(damage "$whole" get ids_age "$(first ids_age)" | cut -c1-32)
damaged "its age that is gone" id "request id $oldest: ids_age has none of its age" delete ids_age "$(first ids_age)"
damaged "an age of another id" id "request id $oldest: ids_age has another id of its age" flip ids_age "$(first ids_age)" 3
damaged "an age out of the range" id "request id $oldest: its age is out of the range" move ids_age "$(first ids_age)" 00000000000000ff
damaged "a time of another order" id "request id $oldest: its time is before that" flip ids_age "$(first ids_age)" 23
damaged "a flipped byte of a redo record" redo "the redo record of transaction 2 fails its check" flip redo "$(first redo)" 30; alone
damaged "a redo record that is missing" redo "the redo records of transactions 2 to 2 are missing" delete redo "$(first redo)"; alone
damaged "the last one missing" redo "the redo records of transactions 6 to 6 are missing" delete redo "$(last redo)"; alone
damaged "a flipped byte of a mark" mark "meta/mark:$place fails its check" flip meta "$(hex mark:$place)" 12; alone
damaged "a mark beyond the head" mark "meta/mark:$place is beyond the head" mark $place 7 410; alone
damaged "the start of the chain" chain "meta/chain fails its check" flip meta "$(hex chain)" 20
damaged "a store whose chain was taken away" chain "the head has a chain, and meta/chain is not there" delete meta "$(hex chain)"; alone
says "JSON names it" "state AZOTH_ERR_CORRUPT 61 false" \
    "$(damage "$whole" keys state >/dev/null; rm -rf "$TMP/copy"; cp -r "$whole" "$TMP/copy"; damage "$TMP/copy" flip state "$(hex a)" 17; AZOTH_DIR=$TMP/copy field '.store.findings[0] as $f | "\($f.kind) \($f.error) \($f.key_hex) \(.ok)"')"
rm -rf "$TMP/copy"; cp -r "$whole" "$TMP/copy"; damage "$TMP/copy" flip meta "$(hex head)" 30
AZOTH_DIR=$TMP/copy exits "a head that is damaged" 4 "meta/head fails its check" azoth verify

# The counts that LMDB keeps of a tree, wherever a copy of them lies: behind its name branch, leaf, overflow pages, entries.
if command -v python3 >/dev/null; then
    miscounted() { # SENTENCE TEXT DB OFFSET
        rm -rf "$TMP/copy"; cp -r "$whole" "$TMP/copy"
        python3 - "$TMP/copy/data.mdb" "$3" "$4" <<'P'
import sys
name, offset = sys.argv[2].encode(), int(sys.argv[3])
data = bytearray(open(sys.argv[1], 'rb').read())
at = data.find(name)
while at >= 0:
    if data[at - 2] == len(name) and data[at - 4] == 2:  # a node whose data is a tree
        data[at + len(name) + offset] ^= 1
    at = data.find(name, at + 1)
open(sys.argv[1], 'wb').write(data)
P
        AZOTH_DIR=$TMP/copy exits "$1" 1 "$2" azoth verify
    }
    miscounted "a tree with another number of entries" "azoth: page: state: 10 entries were met, and there should be 11" state 32
    miscounted "with another number of leaves" "leaf pages were met, and there should be" events 16
    miscounted "with other overflow pages" "azoth: page: state: 12 overflow pages were met, and there should be 13" state 24
    miscounted "with another branch page" "azoth: page: events: 1 branch pages were met, and there should be 0" events 8
    # The first list of free pages is changed: a page's number is made that of the root of the tree of names, or it is one shorter.
    free() { # HOW
        rm -rf "$TMP/copy"; cp -r "$whole" "$TMP/copy"
        python3 - "$TMP/copy/data.mdb" "$1" <<'P'
import struct, sys
data = bytearray(open(sys.argv[1], 'rb').read())
u64 = lambda at: struct.unpack_from('<Q', data, at)[0]
u16 = lambda at: struct.unpack_from('<H', data, at)[0]
meta = max((16, 4112), key=lambda m: u64(m + 24 + 96 + 8))
free, names = u64(meta + 24 + 40), u64(meta + 24 + 48 + 40)
node = free * 4096 + u16(free * 4096 + 16)
at = node + 8 + u16(node + 6)
if sys.argv[2] == 'other':
    struct.pack_into('<Q', data, at + 8, names)
else:
    struct.pack_into('<Q', data, at, u64(at) - 1)
open(sys.argv[1], 'wb').write(data)
P
    }
    free other
    AZOTH_DIR=$TMP/copy exits "a page that is free and in a tree" 1 "the list of free pages: page" azoth verify
    check "belongs to something else" grep -q "belongs to something else, too" "$TMP/out"
    free less
    AZOTH_DIR=$TMP/copy exits "a page that is nowhere" 1 "azoth: page: data.mdb: the file has" azoth verify
    # LMDB would end the process, or go round in a circle, on many of these: each is told, and verify comes to its end.
    rm -rf "$TMP/copy"; cp -r "$whole" "$TMP/copy"
    says "whichever page is overwritten, of $(field .store.free_pages) free ones nobody tells" "zeroed 0 $(field .store.free_pages) moved 0 cut 0 turned 0" "$(
        AZOTH_DIR=$TMP/copy python3 - "$BUILD/azoth" "$TMP/copy/data.mdb" "$whole/data.mdb" <<'P'
import subprocess, sys
azoth, path, whole = sys.argv[1], sys.argv[2], open(sys.argv[3], 'rb').read()
SIZE, pages = 4096, len(whole) // 4096
def verify(data):
    open(path, 'wb').write(data)
    try:
        done = subprocess.run([azoth, 'verify'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode if b'azoth: ' in done.stdout or done.returncode == 0 else None
def put(page, at, new):
    data = bytearray(whole)
    data[page * SIZE + at:page * SIZE + at + len(new)] = new
    return data
def bad(codes):
    return sum(code not in (0, 1, 4) for code in codes)
zeroed = [verify(put(p, 0, bytes(SIZE))) for p in range(pages)]
moved = [verify(put(p, 0, whole[(p - 1) * SIZE:p * SIZE])) for p in range(3, pages)]
cut = [verify(whole[:p * SIZE]) for p in range(1, pages - 1, 3)]
turned = [verify(put(p, at, b'\xff')) for p in range(2, pages, 3) for at in (10, 13, 15, 17)]
print('zeroed', bad(zeroed), zeroed.count(0), 'moved', bad(moved), 'cut', bad(cut), 'turned', bad(turned))
P
    )"
    truncate -s 8192 "$TMP/copy/data.mdb"
    AZOTH_DIR=$TMP/copy exits "a file that was cut" 1 "the file ends before it, at byte 8192" azoth verify
    says "JSON says so too" "page AZOTH_ERR_CORRUPT false" "$(AZOTH_DIR=$TMP/copy field '"\(.store.findings[0] | "\(.kind) \(.error)") \(.ok)"')"
    # Records that are good, in the place of others: LMDB numbers the pages anew when it copies them for a backup.
    AZOTH_DIR=$TMP/keys azoth init "$TMP/keys" >/dev/null
    AZOTH_DIR=$TMP/keys commit "{\"set\":{$(seq -f '"key/%04.0f":"some text"' -s , 1000 1600)}}"
    python3 - "$TMP/keys/data.mdb" <<'P'
import sys
data = bytearray(open(sys.argv[1], 'rb').read())
leaves = [at for at in range(0, len(data), 4096) if data[at + 10] == 2 and data.count(b'key/', at, at + 4096) > 9]
data[leaves[2] + 8:leaves[2] + 4096] = data[leaves[1] + 8:leaves[1] + 4096]
open(sys.argv[1], 'wb').write(data)
P
    AZOTH_DIR=$TMP/keys exits "a page of state in the place of another" 1 "is out of order: a read may not find it" azoth verify
    AZOTH_DIR=$TMP/keys exits "a scan ends there" 4 "is out of order (AZOTH_ERR_CORRUPT)" azoth scan key/
    AZOTH_DIR=$TMP/keys exits "so does a digest" 4 "is out of order (AZOTH_ERR_CORRUPT)" azoth digest
    check "a backup that copies pages" azoth backup --quiet --dir "$TMP/keys" "$TMP/backups"
    exits "is not restored" 4 "is out of order (AZOTH_ERR_CORRUPT)" azoth restore "$TMP/backups" "$TMP/restored"
else
    echo "skip - python3 is not installed: LMDB's own counts were not falsified"
fi

# ---- while it is written

"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & writer=$!; pids+=("$writer")
until_true 10 sh -c "'$BUILD/azoth' status --json | jq -e '.writer.state == \"running\"'"
load() { for ((n = 0; n < 400; n++)); do azoth tx "{\"add\":{\"n\":1},\"set\":{\"w$n\":$n},\"events\":[{\"type\":\"w\",\"data\":{\"n\":$n}}]}" >/dev/null || return; done; }
load & loader=$!; pids+=("$loader")
looks=0 bad=0
while kill -0 "$loader" 2>/dev/null && [ $looks -lt 12 ]; do
    azoth verify >"$TMP/out" 2>&1 || { bad=$((bad + 1)); cat "$TMP/out"; }
    looks=$((looks + 1))
done
says "a store is whole at each moment of being written" 0 "$bad"
check "which was looked at more than once" test "$looks" -ge 3
kill "$loader" 2>/dev/null; wait "$loader" 2>/dev/null
kill "$writer"; wait "$writer"
exits "and afterwards" 0 "whole" azoth verify

# ---- a writer that is killed behind a large batch: its record's chain ends before that

azoth init "$TMP/large" >/dev/null
"$BUILD/azoth-writer" --dir "$TMP/large" 2>"$TMP/large.log" & writer=$!; pids+=("$writer")
until_true 20 grep -q ready "$TMP/large.log"
echo "{\"set\":{\"a\":1},\"events\":[$(for i in 1 2 3 4 5; do printf '{"type":"large","data":"%s"},' "$big"; done) {\"type\":\"last\"}]}" | azoth tx --dir "$TMP/large" - >/dev/null
kill -9 "$writer"; wait "$writer" 2>/dev/null
says "status has the chain with that" 6 "$(azoth status --dir "$TMP/large" --json | jq .store.chain.event)"
damage "$TMP/large" flip events "$(at_event 6)" 17
says "an event of it is damaged: the chain is not known, and the rest is told" "null event 6 of the newest batch fails its check 1" \
    "$(azoth status --dir "$TMP/large" --json | jq -r '.store | "\(.chain) \(.chain_error) \(.state_keys)"')"
check "in words, too" eval 'azoth status --dir "$TMP/large" | grep -q "^chain  *not known: event 6 of the newest batch fails"'

# ---- format 1

events=$(field .store.events)
damage "$AZOTH_DIR" format1
damage "$AZOTH_DIR" delete meta "$(hex mark:$place)"
exits "a store of format 1 is read, and has no chain" 0 "chain: none" azoth verify
says "status says the same" null "$(azoth status --json | jq -r .store.chain)"
"$BUILD/azoth" events --follow --from "$events" --json >"$TMP/follower" 2>&1 & follower=$!; pids+=("$follower")
until_true 10 test -s "$TMP/follower"
commit '{"set":{"new":1},"events":[{"type":"new"}]}'
exits "a writer makes it format 2, whose chain begins there" 0 "at event $((events + 1)), recomputed" azoth verify
check "who has read it before goes on" until_true 10 grep -q '"new"' "$TMP/follower"
kill "$follower"; wait "$follower" 2>/dev/null
rm -rf "$TMP/copy"; cp -r "$AZOTH_DIR" "$TMP/copy"; damage "$TMP/copy" forge 2
AZOTH_DIR=$TMP/copy exits "what is before it is not in it" 0 "whole" azoth verify
damage "$TMP/copy" retime $((events + 1)) 1990000000000000000
AZOTH_DIR=$TMP/copy exits "what is after it is" 1 "azoth: chain: " azoth verify
AZOTH_DIR=$TMP/plain exits "a database may be made without a chain" 0 "made an empty database" azoth init --chain off "$TMP/plain"
AZOTH_DIR=$TMP/plain commit '{"set":{"a":1},"events":[{"type":"e"}]}'
AZOTH_DIR=$TMP/plain exits "and has none" 0 "chain: none" azoth verify
exits "a chain is on or off" 2 "--chain is on or off" azoth init --chain maybe "$TMP/other"

checks_end

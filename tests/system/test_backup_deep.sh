#!/bin/bash
# azoth backup verify --deep: what the files of a directory lead to together is restored, each stretch of it, and what is found by that
# alone; and that of the restored nothing is left, whatever ends it.
. "$(dirname "$0")/checks.sh"
. "$(dirname "$0")/backups.sh"
increment() { commit "$1"; azoth backup --incremental "${@:3}" "$2" >"$TMP/out" 2>&1; }
numbered() { ls -d "$1"/*-00000"$2"-*; } # DEST NUMBER
deep() { azoth backup verify --deep --tmp "$TMP/t" "$@"; }
deeply() { deep --json "$@" 2>/dev/null >"$TMP/deep.json"; jq -r "$filter" "$TMP/deep.json"; }
left() { ls -A "$TMP/t" | wc -l; }
flip() { local at=$(($(stat -c %s "$1") / 2)); printf "\\x$(printf %02x $(($(od -An -tu1 -j $at -N1 "$1") ^ 4)))" | dd of="$1" bs=1 seek=$at conv=notrunc 2>/dev/null; }
mkdir "$TMP/t"

check "a writer runs" begin_writer
commit 20
exits "there are rows" 0 "1 to 40" azoth projection rebuild p --quiet
for i in 1 2 3; do increment 5 "$TMP/dest"; done
commit 5; azoth backup "$TMP/dest" >"$TMP/out"
increment 5 "$TMP/dest"
says "two stretches" "full increment increment full increment increment" "$(azoth backup list "$TMP/dest" --json | jq -r 'map(.kind) | join(" ")')"

# --- what is whole ---
exits "each stretch is restored to its end" 0 "000001-full.azb and 3 incremental backups: restored from event 50 to event 80, transaction 40, all checked" deep "$TMP/dest"
check "also the newest" grep -q "000004-full.azb and 1 incremental backup: restored from event 80 to event 90, transaction 45, all checked" "$TMP/out"
says "and each file is told of" 6 "$(grep -c ': whole, events' "$TMP/out")"
filter='"\(type) \(.ok) \(.files | length) \(.not_restored | length) \([.stretches[] | "\(.ok) \(.increments) \(.from_event)-\(.to_event) \(.to_transaction) \(.last | capture("Z-0*(?<n>[0-9]+)-").n)"] | join(", "))"'
says "as JSON it is one object" "object true 6 0 true 3 50-80 40 5, true 1 80-90 45 6" "$(deeply "$TMP/dest")"
says "nothing is left" 0 "$(left)"
says "an increment alone is restored with what it builds on" "object true 1 0 true 2 50-70 35 3" "$(deeply "$(numbered "$TMP/dest" 3)")"
exits "so it is from within its directory" 0 "1 incremental backup: restored from event 50 to event 60" eval 'cd "$TMP/dest"; deep "$(basename "$(numbered . 2)")"'
exits "a full one by itself" 0 "000004-full.azb: restored to event 80" deep "$(numbered "$TMP/dest" 4)"
exits "one from a pipe as well" 0 "restored to event 80" eval 'deep - <"$(numbered "$TMP/dest" 4)"'
cp "$(numbered "$TMP/dest" 3)" "$TMP/lone.azb"
exits "an increment that lies elsewhere is restored upon nothing" 1 "AZOTH_ERR_BACKUP_MISSING" deep "$TMP/lone.azb"
mkdir "$TMP/empty"; cp "$TMP/dest/place" "$TMP/empty/"
exits "where there are none, none is whole" 1 "AZOTH_ERR_BACKUP_MISSING" deep "$TMP/empty"
azoth backup --sealed --without-projections "$TMP/sealed" >"$TMP/out"
exits "a sealed one is restored, too" 0 "sealed.azb: restored to event 90" deep "$TMP/sealed"

# --- what is missing ---
cp -r "$TMP/dest" "$TMP/bad"; rm "$(numbered "$TMP/bad" 2)"
exits "a missing one is no matter of the others' files" 0 "whole" azoth backup verify "$TMP/bad"
exits "but of where they lead to" 1 "transactions 26 to 30 are missing: nothing leads from $(basename "$(numbered "$TMP/bad" 1)") to $(basename "$(numbered "$TMP/bad" 3)") (AZOTH_ERR_BACKUP_MISSING)" deep "$TMP/bad"
filter='"\(.ok) \([.stretches[] | "\(.ok) \(.to_event)"] | join(", ")) \([.not_restored[] | .error // "-"] | join(" "))"'
says "the stretches are told all the same" "false true 50, true 90 AZOTH_ERR_BACKUP_MISSING -" "$(deeply "$TMP/bad")"
exits "nothing leads to the one behind it" 1 "what it builds on is not there" deep "$(numbered "$TMP/bad" 3)"
head -c 200 "$(numbered "$TMP/dest" 6)" >"$(numbered "$TMP/bad" 6)"
exits "of several failures the worst is the exit code" 4 "AZOTH_ERR_BACKUP_MISSING" deep "$TMP/bad"
cp "$(numbered "$TMP/dest" 6)" "$(numbered "$TMP/dest" 2)" "$TMP/bad/"; rm "$(numbered "$TMP/bad" 3)"
exits "what a prune may have taken is said" 0 "increment.azb: not restored: what it has is in the full backup before it" deep "$TMP/bad"
azoth backup prune --keep "1 last" "$TMP/bad" >"$TMP/out"
says "as nothing is missing then" "true true 90 " "$(deeply "$TMP/bad")"
rm "$(numbered "$TMP/bad" 4)"
exits "without a full one there is none" 1 "transactions 1 to 40 are missing: nothing leads from a full backup to" deep "$TMP/bad"
rm -r "$TMP/bad"

# --- what is damaged ---
cp -r "$TMP/dest" "$TMP/bad"; flip "$(numbered "$TMP/bad" 3)"
exits "a flipped bit in one is found in it" 4 "000003-increment.azb: " deep "$TMP/bad"
says "once, and as that" "1 0" "$(grep -c AZOTH_ERR_CORRUPT "$TMP/out") $(grep -c AZOTH_ERR_BACKUP_MISSING "$TMP/out")"
says "what is before it is restored, and what a full one has behind it" "false true 60, true 90 -" "$(deeply "$TMP/bad")"
cp "$(numbered "$TMP/dest" 3)" "$TMP/bad/"; flip "$(numbered "$TMP/bad" 4)"
says "the increments lead over a damaged full one" "false true 90 " "$(deeply "$TMP/bad")"
cp "$(numbered "$TMP/dest" 4)" "$TMP/bad/"; head -c 200 "$(numbered "$TMP/dest" 6)" >"$(numbered "$TMP/bad" 6)"
exits "one that was cut" 4 "AZOTH_ERR_TRUNCATED" deep "$TMP/bad"
says "nothing is left of these either" 0 "$(left)"
rm -r "$TMP/bad"

# --- what each file alone does not show ---
kill $writer; wait $writer
cp -r "$TMP/db" "$TMP/as-it-was"; cp -r "$TMP/dest" "$TMP/bad"
check "a history goes on" eval 'begin_writer && increment 2 "$TMP/dest"'
check "by two increments" increment 2 "$TMP/dest"
kill $writer; wait $writer
rm -r "$TMP/db"; cp -r "$TMP/as-it-was" "$TMP/db"; n=$((n - 4))
check "from the same moment another one does" eval 'begin_writer && commit 1 && increment 1 "$TMP/bad"'
cp "$(numbered "$TMP/dest" 8)" "$TMP/bad/"
exits "whose files are whole" 0 "whole" azoth backup verify "$TMP/bad"
exits "and do not go together" 4 "it is of another history: the chains differ at transaction 47 (AZOTH_ERR_DIVERGED)" deep "$TMP/bad"
says "which is told of the stretch" "false true 80, false 0 " "$(deeply "$TMP/bad")"
commit 4
says "in the directory of the first nothing can lead on to it, so a full one has all" "full 0 0 null" "$(azoth backup --incremental --json "$TMP/dest" 2>"$TMP/out" | jq -r '"\(.kind) \(.from_transaction) \(.from_event) \(.parent)"')"
check "which is said" grep -q "a full backup: the events do not lead from the newest backup" "$TMP/out"
# A file may be a directory with its members, whose manifest whoever can write it can write.
forge() { # NUMBER SED: what about.json of that increment says, with a manifest that fits
    local file name n
    file=$(numbered "$TMP/bad" "$1"); rm -rf "$file"; mkdir "$file"
    zstd -dqc "$(numbered "$TMP/dest" "$1")" 2>/dev/null | tar x -C "$file"
    sed -i -E "$2" "$file/about.json"
    n=$(stat -c %s "$file/about.json")
    sed -i -E "s|(\"name\":\"about.json\",\"bytes\":)[0-9]+,\"blake2b\":\"[0-9a-f]+\"|\1$n,\"blake2b\":\"$(b2sum -l 256 "$file/about.json" | cut -d' ' -f1)\"|" "$file/manifest.json"
}
rm -r "$TMP/bad"; cp -r "$TMP/dest" "$TMP/bad"
forge 3 ''
exits "an increment is taken as its members, too" 0 "000001-full.azb and 3 incremental backups: restored" deep "$TMP/bad"
another() { echo "s/(\"$1\":\{\"value\":\")[0-7]/\\18/; t; s/(\"$1\":\{\"value\":\")[8-f]/\\10/"; }
forge 3 's/("to":\{"transaction":35,"event":)70/\171/'
exits "one that ends elsewhere than it says is found" 4 "000003-increment.azb: it ends at transaction 35, event 70, and should at 35, 71 (AZOTH_ERR_CORRUPT)" deep "$TMP/bad"
check "as a restore finds it" eval '! azoth restore --to-event 70 "$TMP/bad" "$TMP/never" >"$TMP/out" 2>&1'
forge 3 "$(another chain)"
exits "one that ends with another chain" 4 "000003-increment.azb: it is of another history: the chains differ at transaction 35" deep "$TMP/bad"
forge 3 "$(another chain_from)"
exits "and one that begins with another" 4 "000003-increment.azb: it is of another history: the chains differ at transaction 30" deep "$TMP/bad"
exits "by themselves they are whole" 0 "000003-increment.azb: whole" azoth backup verify "$TMP/bad"
kill $writer; wait $writer
mkdir "$TMP/both"; cp "$TMP/dest/place" "$(numbered "$TMP/dest" 4)" "$TMP/both/"
azoth restore --same-uuid "$(numbered "$TMP/dest" 1)" "$TMP/earlier" >"$TMP/out"
check "a database that was restored to before a backup" eval 'AZOTH_DIR=$TMP/earlier begin_writer && AZOTH_DIR=$TMP/earlier azoth backup --incremental "$TMP/both" >"$TMP/out" 2>&1'
for i in {1..20}; do echo '{"events":[{"type":"c"}]}'; done | AZOTH_DIR=$TMP/earlier azoth tx - >"$TMP/out"
check "has increments of its own behind it" env AZOTH_DIR="$TMP/earlier" "$BUILD/azoth" backup --incremental --quiet "$TMP/both"
says "each history is a stretch" "true true 80, true 70 " "$(deeply "$TMP/both")"
kill $writer; wait $writer
"$BUILD/tests/system/damage" "$AZOTH_DIR" forge 3
azoth backup "$TMP/forged" >"$TMP/out" 2>&1
exits "a backup of a log that was changed is whole" 0 "whole" azoth backup verify "$TMP/forged"
exits "but the log is not" 4 "the events up to 102 do not give the chain's value" deep "$TMP/forged"
says "nothing is left of it" 0 "$(left)"

# --- keys ---
(umask 077; azoth key make "$TMP/key" >"$TMP/out"; azoth key make "$TMP/other" >"$TMP/out")
azoth init "$TMP/plain" >/dev/null
check "encrypted ones" eval 'AZOTH_DIR=$TMP/plain begin_writer && AZOTH_DIR=$TMP/plain azoth backup --incremental --key-file "$TMP/key" "$TMP/secret" >"$TMP/out" 2>&1'
for i in 1 2; do AZOTH_DIR=$TMP/plain azoth tx '{"events":[{"type":"a"}]}' >"$TMP/out"; AZOTH_DIR=$TMP/plain azoth backup --incremental --key-file "$TMP/key" "$TMP/secret" >"$TMP/out" 2>&1; done
kill $writer; wait $writer
exits "are not verified with another key" 1 "AZOTH_ERR_WRONG_KEY" deep --key-file "$TMP/other" "$TMP/secret"
says "each says so, and nothing else is said" "3 3" "$(grep -c AZOTH_ERR_WRONG_KEY "$TMP/out") $(wc -l <"$TMP/out")"
exits "but with theirs" 0 "and 2 incremental backups: restored from event 0 to event 2" deep --key-file "$TMP/key" "$TMP/secret"

# --- what ends it ---
mkfifo "$TMP/pipe"
azoth init "$TMP/large" >/dev/null
printf '{"set":{"large":{"bytes":"%s"}}}\n' "$(head -c 700000 /dev/urandom | base64 -w0)" | azoth tx --embedded --dir "$TMP/large" - >"$TMP/out"
azoth backup --dir "$TMP/large" --level 0 - 2>"$TMP/out" >"$TMP/large.azb"
begin_half() { # one that has half of a backup, and waits for the rest
    exec 9<>"$TMP/pipe"
    TMPDIR=$TMP/t "$BUILD/azoth" backup verify --deep - <"$TMP/pipe" >"$TMP/stuck" 2>&1 9>&- & deep=$!
    pids+=($deep)
    head -c 400000 "$TMP/large.azb" >&9
    until_true 20 eval '[ -n "$(find "$TMP/t" -name data.mdb.new)" ]'
}
end_half() { kill -"$1" $deep; wait $deep 2>/dev/null; code=$?; exec 9>&-; } # SIGNAL
for signal in "INT 130" "TERM 143" "HUP 129"; do
    check "one waits for the rest of a backup, with half of it restored below TMPDIR" begin_half
    end_half "${signal% *}"
    says "SIG${signal% *} ends it, and nothing is left" "${signal#* } 0" "$code $(left)"
done
check "one is there" begin_half
exits "which another one does not hurt" 0 "restored to event 80" deep "$(numbered "$TMP/dest" 4)"
says "what it has stays" 1 "$(left)"
end_half KILL
says "what a killed one has left" 1 "$(left)"
mkdir -m 755 "$TMP/t/azoth-verify-others"; touch "$TMP/t/azoth-verify-others/file"
exits "goes with the next run" 0 "restored to event 80" deep "$(numbered "$TMP/dest" 4)"
says "what is not of such a run stays" "azoth-verify-others" "$(ls -A "$TMP/t")"
rm -r "$TMP/t/azoth-verify-others"
if ldd "$BUILD/azoth" | grep -q 'lib[at]san'; then echo "skip - what is preloaded comes before a sanitizer's runtime"; else
    touch "$TMP/full"
    exits "a full disk is told" 4 "AZOTH_ERR_NOSPACE" env LD_PRELOAD="$BUILD/tests/fault/fail_io.so" AZOTH_FAIL_DIR="$TMP/t" AZOTH_FAIL_FULL="$TMP/full" "$BUILD/azoth" backup verify --deep --tmp "$TMP/t" "$TMP/dest"
    says "and takes nothing away from others" 0 "$(left)"
fi
exits "a directory that is not there is named" 4 "$TMP/nowhere/azoth-verify-" azoth backup verify --deep --tmp "$TMP/nowhere" "$TMP/dest"
checks_end

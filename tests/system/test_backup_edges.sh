#!/bin/bash
# azoth backup and restore at their edges: pipes that nobody empties, places where no backup belongs, disks that are read
# only or too small, other users, and versions to come. Mounts are in a namespace of their own.
if [ -z "${AZOTH_TEST_NAMESPACE:-}" ] && unshare -m true 2>/dev/null; then
    AZOTH_TEST_NAMESPACE=1 exec unshare -m --propagation private bash "$0"
fi
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
printf '[writer]\nreserve = 1M\n' >"$AZOTH_DIR/azoth.conf"
printf -- '-- azoth: projection p\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v);\n-- azoth: on a\nINSERT INTO t VALUES (@id, :v);\n' >"$AZOTH_DIR/projections/p.sql"
for ((i = 1; i <= 300; i++)); do printf '{"add":{"k%d":1},"events":[{"type":"a","data":{"v":"%s"}}]}\n' $i "$(head -c 600 /dev/urandom | base64 -w0)"; done | azoth tx --embedded - >/dev/null
check "there are rows" azoth projection rebuild p --quiet

# --- where no backup belongs ---
for to in db/b db db/projections/b; do
    exits "a place in $to is refused" 2 "in the database's own directory" azoth backup "$TMP/$to"
done
exits "so is a plain one" 2 "would be lost with it" azoth backup --plain "$AZOTH_DIR/b"
exits "and one that is followed into" 2 "would be lost with it" timeout 20 "$BUILD/azoth" backup --follow "$AZOTH_DIR/b"
ln -s "$AZOTH_DIR" "$TMP/link"
exits "by another name, too" 2 "would be lost with it" azoth backup "$TMP/link/b"
says "nothing was made of them" 0 "$(find "$AZOTH_DIR" -name 'b' | wc -l)"
mkdir "$TMP/dbx"
check "a name that only begins so is none" azoth backup --quiet "$TMP/dbx"

exits "nor does a name that is a pipe's elsewhere" 2 "would be lost with it" eval 'cd "$AZOTH_DIR" && azoth backup --plain -'

# --- flags that would do nothing ---
check "a place with two backups" eval 'azoth backup --quiet "$TMP/two" && azoth backup --quiet "$TMP/two"'
refused() { exits "$1 is refused where it would do nothing" 2 "$1 is not for azoth backup $2" azoth backup "${@:3}"; }
refused --dry-run DEST "$TMP/two" --keep "1 last" --dry-run
refused --signed-by DEST --signed-by x.pub "$TMP/two"
refused --place DEST "$TMP/two" --place 00
refused --sealed --follow --follow "$TMP/two" --sealed
refused --keep list list "$TMP/two" --keep "1 last"
refused --deep prune prune "$TMP/two" --keep "1 last" --deep
refused --sign-key verify verify "$TMP/two" --sign-key s
refused --incremental verify verify "$TMP/two" --incremental
refused --key-file forget forget "$TMP/two" --key-file k
exits "so is a level where nothing is compressed" 2 "not compressed" azoth backup --plain "$TMP/p" --level 9
says "and none of them has made or removed one" 2 "$(ls "$TMP/two" | grep -c azb)"

# --- what a death left of a place's identity ---
touch "$TMP/dbx/place.0123456789abcdef0123456789abcdef"
check "another backup is made" azoth backup --quiet "$TMP/dbx"
says "which has removed it" "place" "$(ls "$TMP/dbx" | grep -v azb)"

# --- names ---
file=$(basename "$TMP"/dbx/*-000001-full.azb)
cp "$TMP/dbx/$file" "$TMP/dbx/${file/000001/18446744073709551615}"
check "a number that nobody counted to is no backup's" azoth backup --quiet "$TMP/dbx"
says "and the next one goes on from the last" 1 "$(ls "$TMP"/dbx/*-000003-full.azb | wc -l)"
mkdir "$TMP/files"; cp "$TMP/dbx/$file" "$TMP/files"
exits "backups without their directory's identity are not added to" 2 "azoth restore reads them" azoth backup "$TMP/files"

# --- pipes ---
mkfifo "$TMP/pipe"
exec 9<>"$TMP/pipe" # somebody has both ends, and does nothing with them
waits() { # PID: until it waits in a system call
    until_true 20 eval "[ \"\$(cut -d' ' -f1 /proc/$1/syscall)\" = $2 ]"
}
stuck() { # SENTENCE SYSCALL COMMAND...
    local what=$1 call=$2 pid rc; shift 2
    "$BUILD/azoth" "$@" <"$TMP/pipe" >"$TMP/stuck" 2>&1 & pid=$!
    check "$what waits for a pipe" waits $pid $call
    kill -INT $pid
    until_true 20 eval "! kill -0 $pid" || kill -KILL $pid
    wait $pid
    rc=$?
    says "and ends when it is interrupted, without a word" "130 " "$rc $(cat "$TMP/stuck")"
}
if [ -r /proc/$$/syscall ] && [ "$(uname -m)" = x86_64 ]; then
    # The number of x86-64: 7 is poll().
    "$BUILD/azoth" backup --quiet - >"$TMP/pipe" 2>"$TMP/stuck" & pid=$!
    check "a backup waits for a pipe" waits $pid 7
    kill -INT $pid
    until_true 20 eval "! kill -0 $pid" || kill -KILL $pid
    wait $pid
    says "and ends when it is interrupted, without a word" "130 " "$? $(cat "$TMP/stuck")"
    exec 9>&-
    exec 9<>"$TMP/pipe" # empty again
    stuck "a restore" 7 restore --quiet - "$TMP/new"
    says "which leaves nothing" 0 "$(find "$TMP" -maxdepth 1 -name 'new*' | wc -l)"
    stuck "the check of a backup" 7 backup verify --quiet -
else
    echo "skip - the kernel does not say which system call a process waits in"
fi
exec 9>&-
"$BUILD/azoth" backup - 2>"$TMP/err" > >(head -c 10 >/dev/null); rc=$?
says "a reader that has enough is told once" "4 1" "$rc $(grep -c 'Broken pipe' "$TMP/err")"

# --- what comes of it is for whom it is for ---
check "one with nothing to wait for" azoth backup --quiet "$TMP/dest"
if [ "$(id -u)" = 0 ] && runuser -u nobody true 2>/dev/null; then
    chmod 755 "$TMP"
    mkdir -m 1777 "$TMP/theirs"
    nobody() { (cd / && runuser -u nobody -- "$BUILD/azoth" "$@"); }
    if nobody --version >/dev/null 2>&1; then
        mkdir -m 711 "$TMP/hidden" && mkdir -m 777 "$TMP/hidden/dest" && azoth restore --quiet "$TMP/dest" "$TMP/hidden/db" >"$TMP/out" && chown -R nobody "$TMP/hidden/db"
        check "a directory of backups may be in one that may not be listed" nobody backup --quiet --tmp "$TMP/theirs" --dir "$TMP/hidden/db" "$TMP/hidden/dest"
        exits "backups are not for everybody" 4 "Permission denied" nobody restore "$TMP/dest" "$TMP/theirs/new"
        exits "nor is the database" 4 "Permission denied" nobody backup --dir "$AZOTH_DIR" "$TMP/theirs/dest"
        chmod -R go+rX "$TMP/dest"
        check "who may read one can restore it" nobody restore --quiet "$TMP/dest" "$TMP/theirs/new"
        exits "and has a database" 0 "event 301" nobody tx --embedded --dir "$TMP/theirs/new" '{"events":[{"type":"a","data":{"v":0}}]}'
        mkdir "$TMP/theirs/own"; chown nobody "$TMP/theirs/own"; chmod 750 "$TMP/theirs/own"
        check "the superuser restores for whom the place belongs to" azoth restore --quiet "$TMP/dest" "$TMP/theirs/own"
        says "all of it" "nobody" "$(find "$TMP/theirs/own" -printf '%u\n' | sort -u)"
    else
        echo "skip - another user does not reach the programs"
    fi
else
    echo "skip - no right to be another user"
fi

# --- on a terminal ---
azoth init "$TMP/large" >/dev/null
awk 'BEGIN { for (t = 0; t < 60; t++) { printf "{\"set\":{"; for (i = 0; i < 1000; i++) printf "%s\"key %d %d\":\"%060d\"", i ? "," : "", t, i, i; print "}}" } }' |
    AZOTH_WRITER_SYNC=none azoth tx --embedded --dir "$TMP/large" - >"$TMP/out"
if script --version >"$TMP/out" 2>&1; then
    bar() { # LABEL ARG...: what it shows meanwhile
        local label=$1; shift
        script -qec "$(printf '%q ' "$BUILD/azoth" "$@")" /dev/null </dev/null >"$TMP/out" 2>&1 && grep -qE "$label: \[[#.]{20}\] +[0-9]+ %  " "$TMP/out"
    }
    check "a backup shows how far it is" bar backup backup --dir "$TMP/large" "$TMP/shown"
    check "its check" bar verify backup verify "$TMP/shown"
    check "a restore" bar restore restore "$TMP/shown" "$TMP/restored"
    check "and the check of a database" bar store verify --dir "$TMP/restored"
    check "not when it is to be quiet" eval '! bar verify backup verify --quiet "$TMP/shown"'
else
    echo "skip - script is not here: what is shown on a terminal"
fi

# --- a copy that takes long ---
if [ -r /proc/$$/syscall ] && [ "$(uname -m)" = x86_64 ]; then
    exec 9<>"$TMP/pipe"
    "$BUILD/azoth" backup --dir "$TMP/large" --level 0 - >"$TMP/pipe" 2>"$TMP/stuck" 9<&- & pid=$!
    check "a backup has begun its copy" waits $pid 7
    for i in 1 2 3 4 5 6; do printf '{"set":{"more":{"bytes":"%s"}}}\n' "$(head -c 900000 /dev/urandom | base64 -w0)"; done | azoth tx --embedded --dir "$TMP/large" - >"$TMP/out"
    cat <"$TMP/pipe" >"$TMP/late.azb" 9<&- & cat=$!
    exec 9<&-
    wait $pid; says "it ends well" 0 $?; wait $cat
    check "and tells by how much it has made the store grow" grep -qE 'data.mdb grew by [1-9][0-9.]* [KM]iB meanwhile' "$TMP/stuck"
    says "what it has is of its moment" 60 "$(azoth restore "$TMP/late.azb" "$TMP/late" >"$TMP/out" && azoth digest --dir "$TMP/late" --json | jq .transaction)"
else
    echo "skip - the kernel does not say which system call a process waits in"
fi

# --- a backup is only read ---
frozen() { (cd "$TMP/frozen" && find . -printf '%p %m %u %T@ %C@ %s\n' | sort | b2sum); }
cp -r "$TMP/two" "$TMP/frozen" # backups of the same day
find "$TMP/frozen" -type f -exec chmod 0444 {} +; chmod 0555 "$TMP/frozen"
was=$(frozen)
if [ "$(id -u)" = 0 ] && [ -d "$TMP/theirs" ] && nobody --version >/dev/null 2>&1; then
    check "from a directory that nobody may write in it is restored" nobody restore --quiet "$TMP/frozen" "$TMP/theirs/thawed"
    check "and checked, also by restoring it" nobody backup verify --deep --quiet --tmp "$TMP/theirs" "$TMP/frozen"
else
    echo "skip - no right to be a user who may not write"
fi
if [ -n "${AZOTH_TEST_NAMESPACE:-}" ]; then
    mount --bind "$TMP/frozen" "$TMP/frozen" && mount -o remount,ro,bind "$TMP/frozen"
    check "so it is from a file system that may only be read" azoth restore --quiet "$TMP/frozen" "$TMP/thawed"
    exits "to which nothing is added" 4 "Read-only file system" azoth backup "$TMP/frozen"
    exits "and of which nothing is removed" 4 "Read-only file system" azoth backup prune "$TMP/frozen" --keep "7 daily, 4 weekly"
    umount "$TMP/frozen"
fi
says "it is as it was" "$was" "$(frozen)"

# --- the same content on another machine ---
sealed() { azoth backup --sealed --without-projections "$@" - 2>/dev/null | b2sum; }
was=$(sealed)
check "the same content in other pages" eval 'azoth backup --quiet --sealed "$TMP/seal" && azoth restore --quiet --same-uuid "$TMP/seal" "$TMP/other" && ! cmp -s "$AZOTH_DIR/data.mdb" "$TMP/other/data.mdb"'
says "with another zone, language and mask is the same sealed file" "$was" "$(umask 0; TZ=Asia/Kolkata LC_ALL=C.UTF-8 sealed --dir "$TMP/other")"
says "and a year later" "$was" "$(touch -d '1 year' "$TMP"/other/* "$TMP"/other/projections/*; umask 077; TZ=America/St_Johns LC_ALL=POSIX sealed --dir "$TMP/other")"
if [ "$(id -u)" = 0 ] && [ -d "$TMP/theirs" ] && nobody --version >/dev/null 2>&1; then
    mv "$TMP/other" "$TMP/theirs/other"; chown -R nobody "$TMP/theirs/other"
    says "and for another user" "$was" "$(nobody backup --sealed --without-projections --dir "$TMP/theirs/other" - 2>/dev/null | b2sum)"
fi
check "of other content it is another" [ "$(sealed --dir "$TMP/thawed" 2>/dev/null)" != "$was" ]

# --- a link ---
mkdir "$TMP/other-disk"; ln -s other-disk "$TMP/here"; ln -s nowhere "$TMP/dangling"
check "a restore goes where a link leads to" azoth restore --quiet "$TMP/dest" "$TMP/here/"
says "which stays" "other-disk $(azoth digest)" "$(readlink "$TMP/here") $(azoth digest --dir "$TMP/other-disk")"
exits "a second one finds the database there" 1 "AZOTH_ERR_DATABASE_EXISTS" azoth restore "$TMP/dest" "$TMP/here"
exits "a link to nowhere is told before anything is read" 4 "dangling: a link" azoth restore "$TMP/dest" "$TMP/dangling"

# --- disks ---
if [ -n "${AZOTH_TEST_NAMESPACE:-}" ]; then
    mkdir "$TMP/small" "$TMP/ro"
    wrong=
    # Each of the sizes ends at another step: pages, rows, the configuration, the lock file, the reserve.
    for kib in 8 200 400 600 700 800 1000 1200 1600; do
        mount -t tmpfs -o size=${kib}k tmpfs "$TMP/small"
        azoth restore --quiet "$TMP/dest" "$TMP/small/new" >"$TMP/out" 2>&1; rc=$?
        [ "$rc $(ls "$TMP/small" | wc -l) $(grep -c NOSPACE "$TMP/out")" = "4 0 1" ] || wrong+="$kib: $rc $(ls "$TMP/small") $(tail -1 "$TMP/out");"
        umount "$TMP/small"
    done
    says "a disk that is too small for a restore is told, and nothing is left on it" "" "$wrong"
    mount -t tmpfs -o size=4M tmpfs "$TMP/small"
    check "one that is not is another file system, too" azoth restore --quiet "$TMP/dest" "$TMP/small/new"
    check "and takes backups" azoth backup --quiet "$TMP/small/dest"
    says "of the same" "$(azoth digest)" "$(azoth digest --dir "$TMP/small/new")"
    umount "$TMP/small"

    mount --bind "$AZOTH_DIR" "$TMP/ro" && mount -o remount,ro,bind "$TMP/ro"
    check "what may only be read is backed up, without a writer" azoth backup --quiet --dir "$TMP/ro" "$TMP/of-ro"
    check "and comes back" azoth restore --quiet "$TMP/of-ro" "$TMP/from-ro"
    says "as it was" "$(azoth digest)" "$(azoth digest --dir "$TMP/from-ro")"
    exits "with its rows" 0 "its 300 rows in 1 tables are those of the log" azoth verify --dir "$TMP/from-ro" --all-projections --replay
    umount "$TMP/ro"
else
    echo "skip - no right to mount: disks that are too small, or only to be read"
fi

# --- the pages ---
check "a plain one" azoth backup --quiet --plain "$TMP/as-is"
exits "--compact is taken" 0 "full backup" azoth backup --compact --plain "$TMP/compact"
check "and changes nothing" diff -r "$TMP/as-is/data.mdb" "$TMP/compact/data.mdb"
check "since there are no free pages in any" [ "$(cat "$TMP"/as-is/data.mdb/* | wc -c)" -lt "$(($(stat -c %s "$AZOTH_DIR/data.mdb") * 9 / 10))" ]
says "with it there is one directory of backups, too" "full" "$(azoth backup --compact --json "$TMP/packed" | jq -r .kind)"

# --- versions to come ---
check "a plain one is made" azoth backup --quiet --plain "$TMP/plain"
sed -i 's/^{"format":1,/{"format":2,/' "$TMP/plain/about.json"
exits "a backup of a format to come is not believed" 4 "AZOTH_ERR_FORMAT" azoth restore "$TMP/plain" "$TMP/new"
says "and nothing is made of it" 0 "$(find "$TMP" -maxdepth 1 -name 'new*' | wc -l)"

# --- what a stranger has written ---
forged() { # JQ: the plain backup with about.json changed, and a manifest that agrees
    rm -rf "$TMP/forged"; cp -r "$TMP/plain" "$TMP/forged"
    jq -c "$1" "$TMP/plain/about.json" >"$TMP/forged/about.json" || printf '%s' "$1" >"$TMP/forged/about.json"
    agree about.json
}
agree() { # MEMBER: the manifest says what it is
    sed -i -E "s#(\"$1\",\"bytes\":)[0-9]+(,\"blake2b\":\")[0-9a-f]+#\1$(stat -c %s "$TMP/forged/$1")\2$(b2sum -l 256 "$TMP/forged/$1" | cut -d' ' -f1)#" "$TMP/forged/manifest.json"
}
sed -i 's/^{"format":2,/{"format":1,/' "$TMP/plain/about.json"
forged .
check "a backup that is made by hand is one" azoth restore --quiet "$TMP/forged" "$TMP/new"
rm -r "$TMP/new"
forged '.absent = [{"name": "p", "why": "\u001b[2Jall is well"}]'
exits "what it says of itself does nothing to a terminal" 4 "AZOTH_ERR_FORMAT" azoth restore "$TMP/forged" "$TMP/new"
check "and is not told" eval '! grep -q "all is well" "$TMP/out"'
forged '.created_ns = 99999999999999999999'
exits "a number that is too great is no mistake of the command's line" 4 "AZOTH_ERR_FORMAT" azoth restore "$TMP/forged" "$TMP/new"
forged '{"format":1' 2>/dev/null
exits "nor is what is no JSON" 4 "AZOTH_ERR_FORMAT" azoth backup verify "$TMP/forged"
forged .
for page in 2 3 4 5 6 7 8; do # the place of the first node of each
    printf '\377\177' | dd of="$TMP/forged/data.mdb/00000001" bs=1 seek=$((page * 4096 + 16)) conv=notrunc status=none
done
agree data.mdb/00000001
exits "pages that lead out of themselves end no process" 4 "AZOTH_ERR_CORRUPT" azoth restore "$TMP/forged" "$TMP/new"
says "nothing was made of them" 0 "$(find "$TMP" -maxdepth 1 -name 'new*' | wc -l)"
checks_end

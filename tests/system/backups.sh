# Sourced behind checks.sh by tests of backups: a database in TMP/db with a projection p of what is committed to it; n transactions
# were. What a writer leaves in shared memory goes at the end, too.
export AZOTH_DIR=$TMP/db
trap leave EXIT
azoth init "$AZOTH_DIR" >/dev/null
printf '[writer]\nreserve = 1M\n' >"$AZOTH_DIR/azoth.conf"
printf -- '-- azoth: projection p\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v);\n-- azoth: on a\nINSERT INTO t VALUES (@id, :v);\n' >"$AZOTH_DIR/projections/p.sql"
n=0
commit() { # N: so many transactions, each with a sum, a key, two events and an id
    local i
    for ((i = n + 1; i <= n + $1; i++)); do
        printf '{"id":"%032x","add":{"sum":1},"set":{"key/%d":%d},"events":[{"type":"a","key":"k","data":{"v":%d}},{"type":"b","data":%d}]}\n' $i $((i * 7919 % 50)) $i $i $i
    done | azoth tx - >"$TMP/out" || check "$1 transactions are committed" false
    n=$((n + $1))
}
begin_writer() { # FLAGS: and waits for it
    "$BUILD/azoth-writer" --dir "$AZOTH_DIR" "$@" 2>"$TMP/writer.log" & writer=$!
    pids+=($writer)
    until_true 20 grep -q ready "$TMP/writer.log"
}

# Sourced by the tests of azoth-exporter, after checks.sh: a database in $db, its programs, and what the exporter
# says. Ends everything it started and removes the shared memory of $db.
db=$TMP/db
unset AZOTH_DIR
leave() {
    [ ${#pids[@]} = 0 ] || kill -CONT "${pids[@]}" 2>/dev/null
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null
    [ ! -d "$db" ] || azoth status --dir "$db" --json 2>/dev/null | jq -r '.shm, .shm_gauges' |
        while read -r name; do rm -f "/dev/shm$name"; done
    finish
}
trap leave EXIT

# start NAME PROGRAM ARG...: its pid is in $started, its log in $TMP/NAME.log.
start() {
    local name=$1; shift
    "$BUILD/$1" --dir "$db" "${@:2}" 2>>"$TMP/$name.log" &
    started=$!
    pids+=("$started")
}
start_exporter() {
    : >"$TMP/exporter.log"
    start exporter azoth-exporter --exporter-listen 127.0.0.1:0 "$@"
    exporter=$started
    until_true 10 grep -q 'ready listen=' "$TMP/exporter.log" || { cat "$TMP/exporter.log"; return 1; }
    port=$(grep -o 'listen=127.0.0.1:[0-9]*' "$TMP/exporter.log" | cut -d: -f2)
}
# get PATH: the status; the body goes to $TMP/body.
get() {
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
    cat <&3 >"$TMP/answer"
    exec 3>&-
    sed '1,/^\r$/d' "$TMP/answer" >"$TMP/body"
    head -1 "$TMP/answer" | cut -d' ' -f2
}
# metric LINE: the value of the line that begins so; nothing when there is none.
metric() { get /metrics >/dev/null; awk -v line="$1" 'index($0, line " ") == 1 {print $NF}' "$TMP/body"; }
is() { [ "$(metric "$1")" = "$2" ]; }
ready_says() { get /readyz >/dev/null; grep -qE "$1" "$TMP/body"; }
make_database() {
    azoth init "$db" >/dev/null
    printf '[writer]\nsync = none\nreserve = 1M\n[segment]\nslots = 64\nblocks = 80\n[feed]\nlapse = 1s\n' >"$db/azoth.conf"
    cat >"$db/projections/seen.sql" <<'S'
-- azoth: projection seen
-- azoth: on-error dead-letter
-- azoth: migration 1 create
CREATE TABLE seen (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
-- azoth: on added
INSERT INTO seen VALUES (@id, :n);
S
}
add() { azoth tx --dir "$db" --deadline 20 "{\"add\":{\"a\":1},\"events\":[{\"type\":\"added\",\"data\":{\"n\":${1:-1}}}]}"; }

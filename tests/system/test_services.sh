#!/bin/bash
# What the services do for who looks after them, without a systemd: settings read again on SIGHUP, shared objects
# that somebody took away, and what a killed one's successor says of it. Needs AZOTH_BUILD and jq.
. "$(dirname "$0")/checks.sh"
db=$TMP/db
export AZOTH_DIR=$db
unset NOTIFY_SOCKET WATCHDOG_USEC

logged() { grep -qE -- "$2" "$TMP/$1.log"; }
start() { # NAME PROGRAM ARGUMENTS...: its pid in $pid
    local name=$1; shift
    "$BUILD/$@" >>"$TMP/$name.log" 2>&1 &
    pid=$!
    pids+=($pid)
}
# exit_of PID: its status; one that does not end is killed.
exit_of() {
    gone() { ! kill -0 "$1" 2>/dev/null; }
    until_true 15 gone $1 || kill -KILL $1
    wait $1
}
objects() { azoth status --json | jq -r '.shm, .shm_gauges'; }
attached() { azoth status --json | jq -e --arg k "$1" 'any(.participants[]; .kind == $k)' >/dev/null; }

azoth init "$db" >/dev/null
mkdir -p "$db/run" "$db/projections"
cat >"$db/projections/seen.sql" <<'S'
-- azoth: projection seen
-- azoth: migration 1 create
CREATE TABLE seen (id INTEGER PRIMARY KEY);
-- azoth: on e
INSERT INTO seen VALUES (@id);
S
one='{"add":{"n":1},"events":[{"type":"e","data":{}}]}'
start writer azoth-writer --dir "$db"; writer=$pid
start feed azoth-feed --dir "$db"; feed=$pid
start worker azoth-worker --dir "$db"; worker=$pid
start projector azoth-projector --dir "$db" seen; projector=$pid
start exporter azoth-exporter --dir "$db" --exporter-listen 127.0.0.1:0; exporter=$pid
for p in writer feed worker projector exporter; do until_true 20 logged $p 'ready '; done
check "a transaction through a worker" quiet azoth tx --to "ipc://$db/run/worker-1.sock" '{"set":{"n":0},"events":[{"type":"e","data":{}}]}'

shm=$(objects)
trap 'finish; for o in $shm; do rm -f "/dev/shm$o"; done' EXIT

# --- settings ---
printf '[log]\nlevel = err\n' >"$db/azoth.conf"
kill -HUP $writer $feed $worker $projector $exporter
for p in writer feed worker projector exporter; do
    check "$p reads its settings again on SIGHUP" until_true 10 logged $p 'settings read again log_level=err'
done
printf '[log]\nlevel = info\n[writer]\nbatch_bytes = many\n' >"$db/azoth.conf"
kill -HUP $writer $feed $worker $projector $exporter
for p in writer feed worker projector exporter; do
    check "$p keeps its settings when the file has a mistake, and names the line" until_true 10 logged $p '^<3>.*azoth.conf:4:.*error=AZOTH_ERR_CONFIG'
done
rm "$db/azoth.conf"
kill -HUP $writer $feed $worker $projector $exporter
for p in writer feed worker projector exporter; do until_true 10 logged $p 'settings read again log_level=info'; done
check "all of them go on" quiet azoth tx --to "ipc://$db/run/worker-1.sock" "$one"
check "and the projection follows" quiet azoth lag --wait --timeout 20

# --- a killed one ---
kill -STOP $writer
azoth tx --deadline 30s "$one" >"$TMP/late" 2>&1 & late=$!
pids+=($late)
submitted() { azoth status --json | jq -e '.segment.slots.submitted == 1' >/dev/null; }
check "a transaction waits for a stopped writer" until_true 10 submitted
kill -KILL $writer $feed $projector $worker
wait $writer $feed $projector $worker 2>/dev/null
start writer azoth-writer --dir "$db"; writer=$pid
start feed azoth-feed --dir "$db"; feed=$pid
start worker azoth-worker --dir "$db"; worker=$pid
start projector azoth-projector --dir "$db" seen; projector=$pid
check "a killed writer's successor says what it took over" until_true 20 logged writer '^<5>ready .*epoch=[0-9]+ .*answered=0 requeued=1 retired=0'
check "and who waited has an answer" wait $late
check "it says that it repaired what the dead worker left" until_true 20 logged writer '^<5>repaired what dead participants left participants=[0-9]+'
check "a killed feed's successor says who subscribed again, and where" until_true 20 eval '[ "$(grep -c "^<6>subscribed projection=seen shard=0/1 cursor=" "$TMP/feed.log")" = 2 ]'
check "a killed projector's says at which event it goes on" until_true 20 eval '[ "$(grep -c "^<5>ready projection=seen shard=0/1 cursor=" "$TMP/projector.log")" = 2 ]'
check "nothing is missing" quiet azoth lag --wait --timeout 20
says "and nothing is there twice" '{"n":3}' "$(azoth query seen 'SELECT count(*) AS n FROM seen' --json)"

# --- shared objects that are taken away ---
for which in segment gauges; do
    old=$(azoth status --json | jq -r .incarnation)
    name=$(azoth status --json | jq -r "if \"$which\" == \"segment\" then .shm else .shm_gauges end")
    rm "/dev/shm$name"
    exit_of $writer; says "a writer whose $which was removed exits with the temporary code" 75 $?
    check "and says so" logged writer '^<3>stopping: the shared objects /azoth-.* were removed.* error=AZOTH_ERR_RETIRED'
    exit_of $worker; says "a worker with it" 75 $?
    start writer azoth-writer --dir "$db"; writer=$pid
    start worker azoth-worker --dir "$db"; worker=$pid
    attached_to_new() { attached feed && attached worker; }
    check "the next ones make and use a new segment, and the feed with them" until_true 20 attached_to_new
    check "transactions go on" quiet azoth tx "$one"
    check "the projection follows" quiet azoth lag --wait --timeout 20
done
# Nobody is left to retire it when the writer is killed before it looks.
kill -STOP $writer
rm "/dev/shm$(objects | head -1)"
kill -KILL $writer
wait $writer 2>/dev/null
exit_of $worker; says "a worker finds by itself that its segment was removed" 75 $?

for p in $feed $projector; do kill $p; wait $p; done
start writer azoth-writer --dir "$db"; writer=$pid
until_true 20 azoth tx "$one"
kill $writer; wait $writer
says "each line has a priority, and a sentence before its first key" "" "$(cat "$TMP"/{writer,feed,worker,projector}.log | grep -vE '^<[3-7]>[a-zA-Z][^=]* [a-z_]+=|^<5>stopped$')"
# --- a feed that is there before its writer, and finds a dead one's segment, of a file that was here before ---
start writer azoth-writer --dir "$db"; writer=$pid
until_true 20 azoth tx "$one"
kill -KILL $writer; wait $writer 2>/dev/null
cp "$db/data.mdb" "$TMP/data.mdb"; mv "$TMP/data.mdb" "$db/data.mdb"
: >"$TMP/feed.log"
start feed azoth-feed --dir "$db"; feed=$pid
start projector azoth-projector --dir "$db" seen; projector=$pid
check "the projector asks it" until_true 20 logged feed 'subscribed projection=seen'
check "it waits for the next writer" kill -0 $feed
start writer azoth-writer --dir "$db"; writer=$pid
check "and attaches to that one's" until_true 20 logged feed 'attached incarnation='
check "whose events it sends" sh -c "'$BUILD/azoth' tx '$one' >/dev/null && '$BUILD/azoth' lag --wait --timeout 20 >/dev/null"
for p in $projector $feed $writer; do kill $p; wait $p; done

# --- what is asked for in vain ---
for p in writer feed worker projector exporter; do
    exits "azoth-$p wants the directory that it is told of" 100 "--dir needs a value" timeout 20 "$BUILD/azoth-$p" --dir
    exits "azoth-$p: an instance too" 100 "--instance needs a value" timeout 20 "$BUILD/azoth-$p" --instance
    exits "azoth-$p leaves no second name aside" 100 "AZOTH_ERR_USAGE" timeout 20 "$BUILD/azoth-$p" --dir "$db" seen other
done
exits "the feed has no name" 100 "a database is all that is wanted" timeout 20 "$BUILD/azoth-feed" --dir "$db" seen
exits "the writer takes --dir=DIR as the others do" 75 "AZOTH_ERR_NO_DATABASE" timeout 20 "$BUILD/azoth-writer" --dir="$TMP/none"
says "no object is left behind" "" "$(ls /dev/shm | grep -F "$(basename "$name" -gauges | tr -d /)")"
checks_end

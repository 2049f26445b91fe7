#!/bin/bash
# The azoth command: every command, its errors and exit codes; azoth run with real programs and with
# programs that misbehave on purpose. Needs AZOTH_BUILD (the directory of the programs), jq, python3.
# Prints "ok - sentence" or "not ok - sentence" and a count at the end.
. "$(dirname "$0")/checks.sh"
AZOTH=$BUILD/azoth
unset AZOTH_DIR

# Only what this test started, by pid; the shared objects of its own databases.
clean_up() {
    for pid in "${pids[@]:-}"; do
        [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    # Children of a run that failed to take them along: only what still has our directory in its line.
    for pid in $(grep -hEo 'started, pid [0-9]+' "$TMP"/*.log 2>/dev/null | grep -Eo '[0-9]+'); do
        grep -qF "$TMP" "/proc/$pid/cmdline" 2>/dev/null && kill -9 "$pid" 2>/dev/null
    done
    for dir in "$TMP"/*/; do
        [ -e "$dir/data.mdb" ] && forget_shm "$dir"
    done
    rm -rf "$TMP"
}
forget_shm() {
    "$AZOTH" status --dir "$1" --json 2>/dev/null | jq -r '.shm, .shm_gauges' |
        while read -r name; do rm -f "/dev/shm$name"; done
}
trap clean_up EXIT

ok() {
    passed=$((passed + 1))
    echo "ok - $1"
}
not_ok() {
    failed=$((failed + 1))
    echo "not ok - $1"
    [ -z "${2:-}" ] || echo "#   $2"
}
# Stricter than that of checks.sh: exits SENTENCE CODE PATTERN COMMAND...: exit code, and a pattern on standard error, which
# has nothing to say when that is ''.
exits() {
    local sentence=$1 code=$2 pattern=$3 got
    shift 3
    "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
    got=$?
    if [ $got -ne "$code" ]; then
        not_ok "$sentence" "exit code $got, not $code: $(head -c 300 "$TMP/err")"
    elif [ -n "$pattern" ] && ! grep -q -- "$pattern" "$TMP/err"; then
        not_ok "$sentence" "no '$pattern' in: $(head -c 300 "$TMP/err")"
    elif [ -z "$pattern" ] && [ -s "$TMP/err" ]; then
        not_ok "$sentence" "unexpected: $(head -c 300 "$TMP/err")"
    else
        ok "$sentence"
    fi
}
# Dead, whether or not somebody has looked after the body yet.
gone() { ! grep -Eq "^State:\s+[^ZX]" "/proc/$1/status" 2>/dev/null; }

# ---- usage ----------------------------------------------------------------------------------------

commands=$("$AZOTH" help | awk '/^  [a-z]/ {print $1}')
says "help lists the commands" "init run tx call get scan events status lag top query projection dlq pause \
resume seal unseal config bench verify archive scale backup restore digest key help version" "$(echo $commands)"
for c in $commands; do
    exits "$c --help succeeds" 0 "" "$AZOTH" "$c" --help
    check "$c --help shows its form" grep -q "^usage: azoth $c" "$TMP/out"
    check "$c --help has an example" grep -q "^  azoth $c" "$TMP/out"
    exits "$c refuses an unknown flag" 2 "there is no flag --nonsense.*(AZOTH_ERR_USAGE)" \
        "$AZOTH" "$c" --nonsense
done
exits "no command is a usage error" 2 "usage: azoth" "$AZOTH"
exits "an unknown command is named" 2 "there is no command frob" "$AZOTH" frob
exits "--version succeeds" 0 "" "$AZOTH" --version
check "--version says the version" grep -Eq '^azoth [0-9]' "$TMP/out"
exits "help of an unknown command fails" 2 "no command frob" "$AZOTH" help frob
exits "no directory is a usage error" 2 "give --dir DIR or set AZOTH_DIR" "$AZOTH" get k
exits "a full standard output is told" 4 "(AZOTH_ERR_IO)" sh -c "'$AZOTH' help > /dev/full"

# ---- without a writer -----------------------------------------------------------------------------

db=$TMP/db
exits "a directory that is none has no database" 3 "(AZOTH_ERR_NO_DATABASE)" "$AZOTH" get k --dir "$db"
mkdir "$TMP/empty"
for c in "status" "lag" "top --once" "tx {}" "scan" "events" "pause" "run"; do
    exits "$c says that there is no database" 3 "(AZOTH_ERR_NO_DATABASE)" "$AZOTH" $c --dir "$TMP/empty"
done
exits "init makes a database" 0 "" "$AZOTH" init "$db"
check "init says the identity" grep -q "$(cat "$db/uuid")" "$TMP/out"
exits "init refuses a second time" 1 "(AZOTH_ERR_DATABASE_EXISTS)" "$AZOTH" init "$db"
exits "init --json is JSON" 0 "" "$AZOTH" init --dir "$TMP/other" --json
says "init --json names the directory" "$TMP/other" "$(jq -r .dir "$TMP/out")"
exits "init fails where it may not write" 4 "(AZOTH_ERR_" "$AZOTH" init /proc/azoth-test
exits "status without a writer exits with 3" 3 "" "$AZOTH" status --dir "$db"
check "status says so" grep -q "not running" "$TMP/out"
says "status --json says so" false "$("$AZOTH" status --json --dir "$db" | jq .writer.alive)"
exits "tx needs a writer" 3 "(AZOTH_ERR_NO_WRITER)" "$AZOTH" tx '{"set":{"a":1}}' --dir "$db"
says "scale --dry-run prints the commands" "systemctl enable azoth-worker@cli-test:1.service azoth-worker@cli-test:2.service" \
    "$("$AZOTH" scale workers 2 --instance cli-test --dry-run)"
says "the database's name may come from the directory" "systemctl enable azoth-effects@cli-test:mails:1.service" \
    "$("$AZOTH" scale effects mails 1 --dir /var/lib/azoth/cli-test/ --dry-run)"
exits "a database that is not there yet is told of" 0 "there is no /var/lib/azoth/cli-test yet" "$AZOTH" scale workers 2 --instance cli-test --dry-run
says "0 are none" "" "$("$AZOTH" scale projector accounts 0 --instance cli-test --dry-run)"
exits "a projector wants its definition" 1 "(AZOTH_ERR_PROJECTION)" "$AZOTH" scale projector accounts --instance cli-test --dry-run
exits "scale is for databases of the units" 2 "is no database of the units" "$AZOTH" scale workers 2 --dir "$db" --dry-run
for words in "workers" "workers two" "workers 65" "workers 1 2" "effects mails" "effects ../x 1" "writers 2" "projector accounts 11"; do
    # shellcheck disable=SC2086
    exits "scale $words is refused" 2 "(AZOTH_ERR_USAGE)" "$AZOTH" scale $words --instance cli-test --dry-run
done
exits "pause needs a writer" 3 "(AZOTH_ERR_NO_WRITER)" "$AZOTH" pause --dir "$db"
exits "status --segment needs a segment" 3 "(AZOTH_ERR_NO_WRITER)" "$AZOTH" status --segment --dir "$db"

export AZOTH_DIR=$db
exits "config lists settings" 0 "" "$AZOTH" config
check "config shows a default" grep -Eq '^writer.sync +full +default' "$TMP/out"
says "a flag wins in config" "none flag" "$("$AZOTH" config --writer-sync none --json |
    jq -r '.[] | select(.key == "writer.sync") | .value + " " + .source')"
says "the environment is a source" "environment" "$(AZOTH_LOG_LEVEL=debug "$AZOTH" config --json |
    jq -r '.[] | select(.key == "log.level") | .source')"
printf '[writer]\nsync = meta-lazy\n' >"$db/azoth.conf"
says "the file is a source" "meta-lazy file" "$("$AZOTH" config --json |
    jq -r '.[] | select(.key == "writer.sync") | .value + " " + .source')"
printf '[writer]\nsink = full\n' >"$db/azoth.conf"
exits "a wrong line is named" 2 "azoth.conf:2: .*(AZOTH_ERR_CONFIG)" "$AZOTH" config
rm "$db/azoth.conf"
for section in $("$AZOTH" config --json | jq -r '.[].key'); do
    check "azoth.conf.5 has $section" sh -c "sed -n '/^\.Sh $(echo "${section%%.*}" | tr a-z A-Z)/,/^\.Sh /p' \
        '$root/client/man/azoth.conf.5' | sed 1d | grep -q 'Li ${section#*.}$'"
done

# ---- transactions and reads -----------------------------------------------------------------------

exits "tx --embedded commits without a writer" 0 "" "$AZOTH" tx --embedded \
    '{"set":{"acct/1":100,"acct/2":5},"events":[{"type":"opened","data":{"n":1}}]}'
check "tx says what was committed" grep -q "^committed: transaction 1, event 1, 2 keys written" "$TMP/out"
exits "a requirement that fails is exit code 1" 1 "acct/1.*(AZOTH_ERR_PREFLIGHT_FAILED)" \
    "$AZOTH" tx --embedded '{"require":[{"key":"acct/1","min":1000}]}'
exits "JSON that is none is exit code 2" 2 "(AZOTH_ERR_BAD_JSON)" "$AZOTH" tx --embedded 'rubbish'
exits "--to and --embedded exclude each other" 2 "exclude" "$AZOTH" tx --embedded --to ipc:///x '{}'
exits "an id has 32 digits" 2 "32 hex digits" "$AZOTH" tx --embedded --id 12 '{}'
exits "a deadline is a time" 2 "is no time" "$AZOTH" tx --embedded --deadline soon '{}'
id=00112233445566778899aabbccddeeff
exits "tx takes an id" 0 "" "$AZOTH" tx --embedded --id $id '{"add":{"acct/1":1}}'
says "the id again commits nothing" "true 2" "$("$AZOTH" tx --embedded --json --id $id \
    '{"add":{"acct/1":1}}' | jq -r '"\(.duplicate) \(.txn)"')"
exits "the id with another content is refused" 2 "(AZOTH_ERR_ID_REUSED)" "$AZOTH" tx --embedded --id $id \
    '{"add":{"acct/1":2}}'
exits "outcome tells of a commit" 0 "" "$AZOTH" tx outcome $id
check "outcome names the transaction" grep -q "transaction 2" "$TMP/out"
exits "outcome of an unknown id is exit code 1" 1 "(AZOTH_ERR_NOT_FOUND)" "$AZOTH" tx outcome \
    ffffffffffffffffffffffffffffffff
exits "outcome wants an id" 2 "outcome takes an id" "$AZOTH" tx outcome 12

cat >"$TMP/requests" <<'END'
{"set":{"name":"Ada","tags":{"set":["b","a"]},"blob":{"bytes":"AAEC"}}}
{"require":[{"key":"acct/1","min":1000}]}

rubbish
{"add":{"acct/2":1},"events":[{"type":"moved","key":"acct/2","data":"text"},{"type":"raw","bytes":"AAEC"}]}
END
"$AZOTH" tx --embedded --json - <"$TMP/requests" >"$TMP/answers" 2>"$TMP/err"
says "the exit code of many is the greatest" 2 $?
says "each request has one answer" "true false false true" "$(jq -r .ok "$TMP/answers" | xargs)"
check "failures name the line" grep -q "^azoth: line 4: " "$TMP/err"
says "standard input is read without an argument too" true "$(echo '{"add":{"acct/2":1}}' |
    "$AZOTH" tx --embedded --json | jq .ok)"

says "get prints the value" 101 "$("$AZOTH" get acct/1)"
says "--dir may come first" 101 "$(AZOTH_DIR=/nowhere "$AZOTH" --dir "$db" get acct/1)"
says "get --json has key, version and value" "acct/1 2 101" \
    "$("$AZOTH" get acct/1 --json | jq -r '"\(.key) \(.version) \(.value)"')"
says "get --raw prints a string as it is" Ada "$("$AZOTH" get name --raw)"
exits "get --raw refuses a number" 1 "(AZOTH_ERR_TYPE)" "$AZOTH" get acct/1 --raw
exits "a missing key is exit code 1" 1 "nope.*(AZOTH_ERR_NOT_FOUND)" "$AZOTH" get nope
exits "get wants a key" 2 "azoth get KEY" "$AZOTH" get
exits "get refuses an empty key" 2 "(AZOTH_ERR_KEY_SIZE)" "$AZOTH" get ''
says "scan lists by key" "acct/1 acct/2 blob name tags" "$("$AZOTH" scan | cut -f1 | xargs)"
says "scan takes a prefix" "acct/1 acct/2" "$("$AZOTH" scan acct/ | cut -f1 | xargs)"
says "scan takes bounds" "acct/2 blob" "$("$AZOTH" scan --from acct/2 --to name | cut -f1 | xargs)"
says "scan takes a limit" "acct/1" "$("$AZOTH" scan --limit 1 | cut -f1 | xargs)"
says "scan --json is one object a line" '{"set":["a","b"]}' \
    "$("$AZOTH" scan --json tags | jq -c .value)"
says "events lists by id" "1 opened 2 moved 3 raw" "$("$AZOTH" events | cut -f1,3 | xargs)"
says "events takes a type" 2 "$("$AZOTH" events --type moved --json | jq .id)"
says "events takes bounds" "2" "$("$AZOTH" events --from 2 --to 3 | cut -f1 | xargs)"
says "events takes a limit" "1 2" "$("$AZOTH" events --limit 2 | cut -f1 | xargs)"
says "events --last begins at the tail" "2 3" "$("$AZOTH" events --last 2 | cut -f1 | xargs)"
says "events shows the stream key" "acct/2" "$("$AZOTH" events --type moved | cut -f4)"
says "bytes that are no text are base64" "base64:AAEC" "$("$AZOTH" events --type raw | cut -f5)"
exits "event ids start at 1" 2 "start at 1" "$AZOTH" events --from 0
exits "a limit is a number" 2 "is no number" "$AZOTH" events --limit many

for i in $(seq 2300); do
    printf '{"set":{"many/%05d":%d},"events":[{"type":"many","data":%d}]}\n' "$i" "$i" "$i"
done | AZOTH_WRITER_SYNC=none "$AZOTH" tx --embedded - >/dev/null
says "scan goes over pages" "2300 2300" "$("$AZOTH" scan many/ | wc -l) $("$AZOTH" scan many/ | sort -u | wc -l)"
says "scan's limit goes over pages" 1500 "$("$AZOTH" scan many/ --limit 1500 | wc -l)"
says "events goes over pages" "2303 2303" \
    "$("$AZOTH" events --json | jq .id | sort -nu | wc -l) $("$AZOTH" events | tail -1 | cut -f1)"

# ---- with a writer --------------------------------------------------------------------------------

start_writer() {
    "$BUILD/azoth-writer" --dir "$db" --writer-sync none >"$TMP/writer.log" 2>&1 &
    writer=$!
    pids+=($writer)
    until_true 10 sh -c "'$AZOTH' status --json | jq -e '.writer.state == \"running\"'"
}
check "a writer starts" start_writer
exits "status exits with 0" 0 "" "$AZOTH" status
check "status shows the writer's pid" grep -q "running, pid $writer" "$TMP/out"
says "status --json shows the writer" "true $writer running none" "$("$AZOTH" status --json |
    jq -r '.writer | "\(.alive) \(.pid) \(.state) \(.sync)"')"
says "status --json shows head and store" "2303 2303" "$("$AZOTH" status --json |
    jq -r '"\(.head.event) \(.store.events)"')"
says "status lists the participants" "writer true" "$("$AZOTH" status --json |
    jq -r '.participants[] | "\(.kind) \(.alive)"')"
exits "tx goes to the writer" 0 "" "$AZOTH" tx '{"add":{"acct/1":1}}'
exits "tx --embedded uses a writer that runs" 0 "" "$AZOTH" tx --embedded '{"add":{"acct/1":1}}'
exits "status --segment dumps the segment" 0 "" "$AZOTH" status --segment
for field in magic fingerprint head_event writer_pid pause_until_ns free_bits wants_release; do
    check "the dump has $field" grep -q "^  $field " "$TMP/out"
done
says "the dump is JSON too" "live $writer 1024" "$("$AZOTH" status --segment --all --json |
    jq -r '"\(.prefix.state_name) \(.header.writer_pid) \(.slots | length)"')"

"$AZOTH" events --last 1 --follow --json >"$TMP/followed" 2>"$TMP/follow.err" &
follower=$!
pids+=($follower)
has_lines() { [ "$(wc -l <"$1")" -ge "$2" ]; }
check "follow begins with what is there" until_true 5 has_lines "$TMP/followed" 1
"$AZOTH" tx '{"events":[{"type":"new","data":{"x":7}}]}' >/dev/null
check "follow shows what is committed" until_true 5 has_lines "$TMP/followed" 2
says "it is the new event" 7 "$(tail -1 "$TMP/followed" | jq .data.x)"
kill -INT $follower
wait $follower
says "Ctrl-C ends follow cleanly" 0 $?

exits "pause pauses" 0 "" "$AZOTH" pause --hold --timeout 1min
says "status shows the pause" paused "$("$AZOTH" status --json | jq -r .writes)"
exits "a paused database refuses" 1 "(AZOTH_ERR_PAUSED)" "$AZOTH" tx '{"add":{"acct/1":1}}'
exits "a paused database can be read" 0 "" "$AZOTH" get acct/1
"$AZOTH" tx --wait-paused --deadline 20 '{"add":{"acct/1":1}}' >/dev/null 2>&1 &
waiter=$!
pids+=($waiter)
exits "resume ends the pause" 0 "" "$AZOTH" resume
wait $waiter
says "a transaction that waits is committed then" 0 $?
says "status shows that writes are open" open "$("$AZOTH" status --json | jq -r .writes)"
exits "a pause is no longer than 1 h" 2 "1 ms to 1 h" "$AZOTH" pause --timeout 2h
exits "resume of what is not paused is no error" 0 "" "$AZOTH" resume

timeout -s INT 1.5 "$AZOTH" status --watch --json >"$TMP/watched"
says "status --watch --json shows rates" true "$(tail -1 "$TMP/watched" | jq 'has("rates")')"

exits "call without a worker is exit code 3" 3 "no worker listens.*(AZOTH_ERR_UNREACHABLE)" "$AZOTH" call x '{}'
exits "call wants a name" 2 "azoth call NAME" "$AZOTH" call
exits "call refuses arguments that are no JSON" 2 "(AZOTH_ERR_BAD_JSON)" "$AZOTH" call x '{{' \
    --to "ipc://$TMP/nobody.sock"
exits "an endpoint where nobody is is exit code 3" 3 "(AZOTH_ERR_" "$AZOTH" tx --deadline 2 \
    --to "ipc://$TMP/nobody.sock" '{"op":"ping"}'

# ---- lag without a feed ---------------------------------------------------------------------------

exits "lag without projections says so" 0 "" "$AZOTH" lag
check "lag names the absence" grep -q "no projection is defined" "$TMP/out"
exits "lag --wait has nothing to wait for" 1 "(AZOTH_ERR_NOT_FOUND)" "$AZOTH" lag --wait
exits "lag of an unknown projection is refused" 1 "no projection nobody" "$AZOTH" lag nobody
cp /dev/null "$db/projections/accounts.sql"
says "a definition nobody runs is unseen and behind" "unseen true" "$("$AZOTH" lag --json |
    jq -r '.projections[0] | "\(.state) \(.events_behind == .head and .seconds_behind >= 0)"')"
exits "lag over its limit is exit code 1" 1 "" "$AZOTH" lag --max-events 10
exits "lag over its age is exit code 1" 1 "" "$AZOTH" lag --max-seconds 0
exits "lag within its limits is exit code 0" 0 "" "$AZOTH" lag --max-events 1000000 --max-seconds 24h
exits "lag --wait times out" 1 "accounts has applied up to event 0.*(AZOTH_ERR_TIMEOUT)" \
    "$AZOTH" lag --wait --timeout 100ms
rm "$db/projections/accounts.sql"

# ---- after the writer's death ---------------------------------------------------------------------

# A transaction whose outcome nobody can tell yet: the writer is stopped, then dies.
rid=b0112233445566778899aabbccddeeff
kill -STOP $writer
exits "a deadline after submission is exit code 5" 5 "azoth tx outcome $rid tells later (AZOTH_ERR_OUTCOME_UNKNOWN)" \
    "$AZOTH" tx --id $rid --deadline 300ms '{"add":{"acct/1":1}}'
exits "outcome tells that the writer has it" 1 "the writer has it.*(AZOTH_ERR_BUSY)" "$AZOTH" tx outcome $rid
says "status shows it in the queue" 1 "$("$AZOTH" status --json | jq .segment.queue_depth)"
check "the dump shows its slot" sh -c "'$AZOTH' status --segment | grep -q '^slot .*submitted, given up to the writer'"
disown $writer
kill -9 $writer
until_true 10 gone $writer
exits "outcome tells that it waits for a writer" 1 "it lies in the queue.*(AZOTH_ERR_BUSY)" "$AZOTH" tx outcome $rid
check "a writer starts again" start_writer
exits "the next writer has committed it" 0 "" "$AZOTH" tx outcome $rid
says "it counts once" 105 "$("$AZOTH" get acct/1)"
disown $writer
kill -9 $writer
until_true 10 gone $writer
exits "status of a dead writer exits with 3" 3 "" "$AZOTH" status
says "status of a dead writer knows it, and that nothing can be written" "false none" \
    "$("$AZOTH" status --json | jq -r '"\(.writer.alive) \(.writes)"')"
check "its text too" sh -c "'$AZOTH' status | grep -q '^writes  *none'"
check "and azoth top" sh -c "'$AZOTH' top --once --interval 100ms | grep -q 'writer NOT RUNNING .* writes none'"
exits "the segment of a dead writer can be dumped" 0 "" "$AZOTH" status --segment
check "the dump names the dead writer" grep -q "writer_pid *$writer " "$TMP/out"
says "reads go on" 105 "$("$AZOTH" get acct/1)"
exits "tx says that nobody writes" 3 "(AZOTH_ERR_NO_WRITER)" "$AZOTH" tx '{}'

# ---- azoth run with programs that misbehave -------------------------------------------------------

fake=$TMP/bin
mkdir "$fake"
cp "$AZOTH" "$fake/azoth"
cat >"$fake/program" <<'END'
#!/usr/bin/env python3
# Says READY=1 and waits; a file FAKE/NAME.mode makes it fail: exit CODE, silent, deaf.
import os, signal, socket, sys, time
bin = os.environ["FAKE"]
name = os.path.basename(sys.argv[0])
if "--name" in sys.argv:
    name += "-" + sys.argv[sys.argv.index("--name") + 1]
try:
    mode = open(bin + "/" + name + ".mode").read().split()
except OSError:
    mode = ["good"]
print("<6>hello from", name, os.environ.get("AZOTH_LOG_LEVEL", "-"), flush=True)
if mode[0] == "exit":
    sys.exit(int(mode[1]))
def stop(*_):
    open(bin + "/stopped", "a").write(name + "\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode[0] == "deaf" else stop)
if mode[0] != "silent":
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(b"READY=1\nSTATUS=up", os.environ["NOTIFY_SOCKET"])
while True:
    time.sleep(10)
END
chmod +x "$fake/program"
for p in azoth-writer azoth-worker azoth-feed azoth-projector azoth-effects; do
    ln -s program "$fake/$p"
done
export FAKE=$fake
fdb=$TMP/fdb
"$AZOTH" init "$fdb" >/dev/null
cp /dev/null "$fdb/projections/accounts.sql"
cp /dev/null "$fdb/projections/orders.sql"
log=$TMP/run.log
run_pid=
start_run() { # ARGUMENTS...
    "$fake/azoth" run "$fdb" "$@" >"$TMP/run.out" 2>"$log" </dev/null &
    run_pid=$!
    pids+=($run_pid)
}
pid_of() { grep -Eo "\| $1 started, pid [0-9]+" "$log" | tail -1 | grep -Eo '[0-9]+$'; }
logged() { grep -Eq -- "$1" "$log"; }
started_twice() { [ "$(grep -c "| $1 started" "$log")" -ge 2 ]; }

start_run --workers 2 --log-level debug
check "run starts everything" until_true 20 logged '\| running: .*, 6 of 6 processes ready'
says "it starts them in order" "writer worker-1 worker-2 feed projector-accounts projector-orders" \
    "$(grep -Eo '\| [a-z0-9-]+ started' "$log" | cut -d' ' -f2 | xargs)"
check "it shows a child's lines with its name, without their numbers" \
    logged '^projector-orders +\| hello from azoth-projector-orders'
check "settings given as flags reach the children" logged 'hello from azoth-writer debug'
exits "a second run on the database is refused" 3 "another azoth run" "$fake/azoth" run "$fdb"
old=$(pid_of worker-2)
kill -9 "$old"
check "what is killed is started again" until_true 10 started_twice worker-2
check "it is said" logged 'worker-2 \(pid [0-9]+\) was ended by signal 9'
kill -TERM $run_pid
wait $run_pid
says "SIGTERM stops it with exit code 0" 0 $?
says "projectors stop first, then feed, workers, writer" "azoth-projector azoth-feed azoth-worker azoth-writer" \
    "$(sed 's/-accounts//;s/-orders//;s/-[12]$//' "$fake/stopped" | uniq | xargs)"
says "its sockets are gone" "" "$(ls "$fdb/run" | grep notify)"

printf -- '-- azoth: projection mails\n-- azoth: effects true\n' >"$fdb/projections/mails.sql"
: >"$fake/stopped"
start_run --workers 0 --projection mails --effects-workers 2
check "an effects projection has its workers" until_true 20 logged '\| running: .*, 5 of 5 processes ready'
check "they are named by projection and number" logged '\| effects-mails:2 started'
kill -TERM $run_pid
wait $run_pid
says "they stop before their projector" "azoth-effects azoth-projector azoth-feed azoth-writer" \
    "$(sed 's/-mails.*//;s/-[12]$//' "$fake/stopped" | uniq | xargs)"
rm "$fdb/projections/mails.sql"

echo "exit 100" >"$fake/azoth-projector-orders.mode"
start_run --workers 1
check "exit code 100 is not restarted, and said" until_true 20 \
    logged 'projector-orders is not started again'
check "the others run" until_true 10 logged '\| running: .*, 4 of 5 processes ready'
kill -INT $run_pid
wait $run_pid
says "what failed for good makes the exit code 1" 1 $?

echo "exit 1" >"$fake/azoth-projector-orders.mode"
start_run --workers 0 --progress
check "a crash loop backs off" until_true 20 logged 'projector-orders is started again in 0\.4 s'
check "--progress prints a line" until_true 10 has_lines "$TMP/run.out" 1
kill -INT $run_pid
wait $run_pid
says "a crash loop does not make it fail" 0 $?
rm "$fake/azoth-projector-orders.mode"

echo "exit 100" >"$fake/azoth-writer.mode"
exits "a writer that failed for good ends the run" 1 "the writer failed for good" \
    timeout 30 "$fake/azoth" run "$fdb" --workers 1
rm "$fake/azoth-writer.mode"

mv "$fake/azoth-feed" "$fake/azoth-feed.away"
exits "a program that is missing is said" 1 "azoth-feed: No such file" env PATH=/usr/bin:/bin \
    timeout 30 "$fake/azoth" run "$fdb" --workers 0 --projection accounts --seconds 3
mv "$fake/azoth-feed.away" "$fake/azoth-feed"
exits "--projection must be defined" 4 "nowhere.sql" "$fake/azoth" run "$fdb" --projection nowhere

echo "deaf" >"$fake/azoth-worker-1.mode"
start_run --workers 1
until_true 20 logged '\| running:'
deaf=$(pid_of worker-1)
kill -INT $run_pid
until_true 10 logged 'feed stopped'
kill -INT $run_pid
wait $run_pid
check "a second Ctrl-C kills what does not stop" gone "$deaf"
rm "$fake/azoth-worker-1.mode"

start_run --workers 2
until_true 20 logged '\| running:'
left=$(grep -Eo 'started, pid [0-9]+' "$log" | grep -Eo '[0-9]+')
disown $run_pid
kill -9 $run_pid
all_gone() { for p in $left; do gone "$p" || return 1; done; }
check "killing azoth run leaves no children" until_true 10 all_gone
start_run --workers 1 --seconds 1s
wait $run_pid
says "--seconds stops it; a killed run leaves nothing in the way" 0 $?
unset FAKE

# ---- azoth run with the real programs -------------------------------------------------------------

have_all() { for p in writer worker feed projector; do [ -x "$BUILD/azoth-$p" ] || return 1; done; }
if have_all; then
    . "$root/tests/system/cli_run.sh"
else
    not_ok "the programs of the system are there" "in $BUILD: $(ls "$BUILD" | xargs)"
fi

checks_end

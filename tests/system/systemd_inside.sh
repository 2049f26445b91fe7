#!/bin/bash
# What test_systemd.sh runs inside the booted systemd, as root: one database from its first start to its last stop,
# under load. Prints ok and not ok; what it leaves goes with the namespaces.
export AZOTH_DIR=/var/lib/azoth/main AZOTH_BUILD=/usr/local/bin SYSTEMD_PAGER= SYSTEMD_COLORS=0
. "$(dirname "$0")/checks.sh"
prop() { systemctl show -p "$2" --value "$1"; }
is() { [ "$(prop "$1" "$2")" = "$3" ]; } # UNIT PROPERTY VALUE
matches() { [[ $(prop "$1" "$2") =~ $3 ]]; }
in_journal() { journalctl -q -o cat -u "$1" | grep -qE -- "$2"; }
active() { local u; for u; do systemctl is-active -q "$u" || return 1; done; }
restarts() { local n=0 u; for u in "${members[@]}"; do n=$((n + $(prop "$u" NRestarts))); done; echo $n; }
value() { azoth get "$1" --json | jq .value; }
main_files=/etc/systemd/system/azoth-writer@main.service.d
writer=azoth-writer@main.service feed=azoth-feed@main.service

# --- the first start ---
units=/usr/local/lib/systemd/system
for u in "$units"/azoth*; do
    check "systemd-analyze verify has nothing to say of ${u##*/}" eval "! systemd-analyze verify --recursive-errors=one '$u' 2>&1 | grep . || false"
done
# A drop-in, as people write them; and settings where they expect them.
mkdir -p $main_files
printf '[Service]\nWatchdogSec=2\n' >$main_files/watchdog.conf
printf '[writer]\nbatch_transactions = 500\n[segment]\nslots = 64\nblocks = 80\n' >/etc/azoth/main.conf
systemctl daemon-reload
check "the target of a new database starts" systemctl start azoth@main.target
check "writer and feed run" until_true 10 active $writer $feed
check "the feed begins when the writer is ready, not before" \
    [ "$(prop $feed ExecMainStartTimestampMonotonic)" -ge "$(prop $writer ActiveEnterTimestampMonotonic)" ]
says "a drop-in counts" 2s "$(prop $writer WatchdogUSec)"
says "settings of /etc/azoth/main.conf are in force at the first start" 500 "$(azoth config --json | jq -r '.. | objects | select(.name? == "writer.batch_transactions" or .key? == "writer.batch_transactions") | .value')"
says "the segment is made by them" 64 "$(azoth status --json | jq .segment.slots.total)"

# --- scaling ---
cat >$AZOTH_DIR/projections/seen.sql <<'S'
-- azoth: projection seen
-- azoth: shards 2
-- azoth: migration 1 create
CREATE TABLE t (id INTEGER PRIMARY KEY);
-- azoth: on e
INSERT INTO t VALUES (@id);
S
cat >$AZOTH_DIR/projections/told.sql <<'S'
-- azoth: projection told
-- azoth: effects echo $AZOTH_EVENT_ID >>/var/lib/azoth/main/told
-- azoth: on told
S
says "azoth scale --dry-run prints what it would do" \
    "systemctl enable --now azoth-worker@main:1.service azoth-worker@main:2.service" "$(azoth scale workers 2 --dry-run)"
check "and does nothing" [ ! -e /etc/systemd/system/azoth-members.target.wants ]
check "azoth scale workers" azoth scale workers 2
check "azoth scale projector starts a process for each shard of the definition" azoth scale projector seen
check "and refuses another number" eval 'azoth scale projector seen 3 2>&1 | grep "says 2 shards"'
check "a projector enabled by systemctl alone" systemctl enable --now azoth-projector@main:told
check "azoth scale effects" azoth scale effects told 1
members=(azoth-worker@main:{1,2}.service azoth-projector@main:seen:{0-2,1-2}.service azoth-projector@main:told.service azoth-effects@main:told:1.service)
check "all of them run" active "${members[@]}"
for u in "${members[@]}"; do check "$u belongs to the target" matches "$u" PartOf '(^| )azoth@main.target( |$)'; done

# --- load: two clients, one attached to the segment, one over the workers' sockets ---
touch $TMP/on
requests() { while [ -e $TMP/on ]; do echo '{"add":{"n":1},"events":[{"type":"e","data":{}}]}'; done; }
azoth tx '{"set":{"n":0},"events":[{"type":"told","data":{}}]}' >/dev/null
requests | azoth tx - --json --deadline 20s >$TMP/direct 2>&1 &
direct=$!
requests | azoth tx - --json --deadline 20s --to ipc:///run/azoth/main/worker-1.sock,ipc:///run/azoth/main/worker-2.sock >$TMP/remote 2>&1 &
remote=$!
answers() { wc -l <$TMP/"$1"; }
goes_on() { # SENTENCE: both clients get answers from now on
    local a b
    a=$(answers direct) b=$(answers remote)
    more() { [ "$(answers direct)" -gt $((a + 5)) ] && [ "$(answers remote)" -gt $((b + 5)) ]; }
    check "$1" until_true 20 more
}
goes_on "two clients are served"

# --- each service is killed ---
for u in $writer $feed "${members[@]}"; do
    before=$(prop "$u" NRestarts) others=$(restarts)
    systemctl kill -s KILL "$u"
    restarted() { [ "$(prop "$u" NRestarts)" = $((before + 1)) ] && active "$u"; }
    check "$u is started again after SIGKILL" until_true 15 restarted
    [[ " ${members[*]} " == *" $u "* ]] && others=$((others + 1))
    says "and no worker or projector with it" "$others" "$(restarts)"
    goes_on "and the clients go on"
done
check "the writer said what it took over" in_journal $writer '^ready .*epoch=2 .*answered=[0-9]+ requeued=[0-9]+ retired=0'
check "it said what was repaired for the dead" until_true 10 in_journal $writer '^repaired what dead participants left participants=[1-9]'
check "the feed said who came back" in_journal $feed '^subscribed projection=seen shard=1/2 cursor=[1-9]'
says "a line's priority is the journal's" 5 "$(journalctl -q -o json -u $writer | jq -r 'select(.MESSAGE | startswith("ready ")) | .PRIORITY' | head -1)"

# --- one that hangs ---
others=$(restarts) before=$(prop $writer NRestarts)
systemctl kill -s STOP $writer
restarted() { [ "$(prop $writer NRestarts)" = $((before + 1)) ] && active $writer; }
check "a writer that is stopped misses its watchdog, and is killed and started again" until_true 20 restarted
check "by the watchdog" eval "journalctl -q -u $writer | grep -q 'Watchdog timeout'"
says "no worker or projector is" "$others" "$(restarts)"
goes_on "and the clients go on"

# --- each is restarted in turn, as for an upgrade ---
for u in $writer $feed "${members[@]}"; do
    check "$u is restarted" systemctl restart "$u"
    goes_on "and the clients go on"
done

# --- scaling under load ---
check "four workers" azoth scale workers 4
check "run" active azoth-worker@main:{1,2,3,4}
goes_on "the clients go on"
check "a fifth that is only started" systemctl start azoth-worker@main:5
check "serves" azoth tx --to ipc:///run/azoth/main/worker-5.sock '{"set":{"m":0}}'
check "and one with a name of somebody's own" systemctl start azoth-worker@main:1-2
check "one worker" azoth scale workers 1
check "what has no number for a name is left alone" active azoth-worker@main:1-2
systemctl stop azoth-worker@main:1-2
check "the others are stopped" eval '! active azoth-worker@main:2 && ! active azoth-worker@main:3 && ! active azoth-worker@main:4'
check "and do not come back with the next boot" eval '! systemctl is-enabled azoth-worker@main:2'
says "none of them failed" "" "$(systemctl list-units --failed --plain --no-legend)"
goes_on "the clients go on"
members=(azoth-worker@main:1.service "${members[@]:2}")

# --- what is seen, and settings ---
check "the writer's status has head and rate" until_true 10 matches $writer StatusText '^head [1-9][0-9]*, [1-9][0-9]* transactions/s, [1-9]'
check "the feed's has head and lag" until_true 10 matches $feed StatusText '^head [1-9][0-9]*, 3 projectors, [1-9][0-9]* events/s sent, (no lag|[a-z]+ is [0-9]+ events behind)$'
check "a worker's has head and rate" until_true 10 matches azoth-worker@main:1 StatusText '^head [1-9][0-9]*, [0-9]+ requests, [1-9][0-9]*/s'
check "a projector's has its event, rate and lag" until_true 10 matches azoth-projector@main:seen:0-2 StatusText '^event [1-9][0-9]* of [1-9][0-9]*, [1-9][0-9]* events/s, [0-9]+ behind, (running|idle)$'
check "an effects worker's has what it did" until_true 10 matches azoth-effects@main:told:1 StatusText '^[0-9]+ events done, [0-9.]+/s, 0 attempts failed'
check "azoth projection rebuild finds the running projectors" azoth projection rebuild seen --timeout 30
says "and azoth call the workers" 1 "$(azoth call nothing 2>&1 | grep -c AZOTH_ERR_NO_COMMAND)"
printf '[log]\nlevel = debug\n' >>/etc/azoth/main.conf
pid=$(prop $writer MainPID)
check "systemctl reload" systemctl reload $writer $feed azoth-worker@main:1 azoth-projector@main:told azoth-effects@main:told:1
for u in $writer $feed azoth-worker@main:1 azoth-projector@main:told azoth-effects@main:told:1; do
    check "has $u read its settings again" until_true 10 in_journal "$u" 'settings read again log_level=debug'
done
check "in the same process, which runs" eval "until_true 5 is $writer ActiveState active && is $writer MainPID $pid"

# --- what somebody removed ---
# The last line may be in the making.
for c in direct remote; do says "until here the $c client saw no error" "" "$(head -n -1 $TMP/$c | grep -v '"ok":true' | head -3)"; done
before=$(prop $writer NRestarts)
rm /dev/shm/azoth-*
check "a writer whose shared objects were removed exits to be started again" until_true 20 restarted
check "with the temporary code" until_true 5 eval "journalctl -q -u $writer | grep -q 'status=75'"
# What was submitted may be of unknown outcome, which is said: this client's part of the load ends here.
rm $TMP/on
wait $direct $remote
touch $TMP/on
check "all is active again" until_true 20 active $writer $feed "${members[@]}"
check "and transactions are committed" until_true 20 azoth tx --to ipc:///run/azoth/main/worker-1.sock '{"set":{"m":1}}'
for c in direct remote; do
    says "each answer to the $c client is a commit" "" "$(grep -v '"ok":true' $TMP/$c | grep -vE 'AZOTH_ERR_(OUTCOME_UNKNOWN|RETIRED)' | head -3)"
done

# --- what all of it led to ---
commits=$(cat $TMP/direct $TMP/remote | grep -c '"ok":true')
unknown=$(cat $TMP/direct $TMP/remote | grep -c 'AZOTH_ERR_OUTCOME_UNKNOWN')
check "of unknown outcome is at most what each client had in flight" [ "$unknown" -le 2 ]
n=$(value n)
check "what was committed was committed once: $commits answers, $unknown unknown, $n in the state" \
    [ "$n" -ge "$commits" -a "$n" -le $((commits + unknown)) ]
check "projections reach the head" azoth lag --wait --timeout 30
says "and have each event once" "$n" "$(azoth query seen 'SELECT count(*) AS n FROM t' --json | jq -s 'map(.n) | add')"
check "azoth verify agrees" azoth verify --projection seen
says "the effect ran" 1 "$(sort -u $AZOTH_DIR/told | wc -l)"
says "what it wrote is not for others" 660 "$(stat -c %a $AZOTH_DIR/told)"

# --- who may read ---
mkdir -p /etc/sysusers.d
printf 'u reader - "Reads"\nm reader azoth-read\nu stranger -\nu operator -\nm operator azoth\n' >/etc/sysusers.d/people.conf
systemd-sysusers 2>/dev/null
as() { local who=$1; shift; setpriv --reuid "$who" --regid "$who" --init-groups env AZOTH_DIR=$AZOTH_DIR "$@"; }
db=$AZOTH_DIR/projections/seen.0of2.db
check "there are people" eval 'as reader id && as stranger id && as operator id'
check "azoth-read reads a projection with sqlite3 -readonly" as reader sqlite3 -readonly $db 'SELECT count(*) FROM t'
check "and with azoth query" as reader azoth query seen 'SELECT count(*) FROM t'
check "azoth lag" eval 'as reader azoth lag --max-events 0 | grep "^told *idle"'
check "azoth status" eval 'as reader azoth status | grep -i head'
for c in "azoth tx {\"set\":{\"a\":1}}" "azoth get n" "azoth events" "azoth pause" "azoth tx --to ipc:///run/azoth/main/worker-1.sock {\"set\":{\"a\":1}}" \
    "head -c1 $AZOTH_DIR/data.mdb" "head -c1 $AZOTH_DIR/lock.mdb" "head -c1 $AZOTH_DIR/participants.lock" "touch $AZOTH_DIR/projections/x.sql" \
    "touch $AZOTH_DIR/x" "sqlite3 $db DELETE_FROM_t" "ls /run/azoth/main"; do
    # shellcheck disable=SC2046
    check "azoth-read may not: $c" eval "! as reader $(printf '%q ' $(echo "$c")) 2>&1"
done
check "azoth-read may not open the segment" eval '! as reader head -c1 /dev/shm/$(basename $(azoth status --json | jq -r .shm))'
check "nor write the gauges" eval '! as reader sh -c "echo >>/dev/shm/$(basename $(azoth status --json | jq -r .shm_gauges))"'
says "nothing of it changed anything" "$n" "$(value n)"
check "others read nothing" eval '! as stranger sqlite3 -readonly $db "SELECT 1 FROM t" && ! as stranger azoth lag && ! as stranger ls $AZOTH_DIR/projections'
check "azoth uses the database" as operator azoth tx '{"set":{"m":2}}'

# --- metrics ---
says "nobody started an exporter" inactive "$(prop azoth-exporter@main ActiveState)"
check "one is enabled" systemctl enable --now azoth-exporter@main
check "and answers on this host" bash -c 'exec 3<>/dev/tcp/127.0.0.1/7109; printf "GET /healthz HTTP/1.0\r\n\r\n" >&3; grep -q " 200 " <&3'
# A reader of another user's unit: the exporter may not look for it, the writer does.
mkfifo $TMP/questions
systemd-run -q --unit=a-reader sh -c "exec sqlite3 -readonly $db <$TMP/questions >$TMP/answers"
exec 5>$TMP/questions
echo 'BEGIN; SELECT count(*) FROM t;' >&5
until_true 10 [ -s $TMP/answers ]
azoth tx "{\"events\":[$(printf '{"type":"e","key":"%d","data":{}},' {1..20})$(echo '{"type":"e","data":{}}')]}" >/dev/null
metrics() { exec 3<>/dev/tcp/127.0.0.1/7109; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3; exec 3>&-; }
check "a metric names the unit of a reader that holds a projection's WAL" until_true 10 eval \
    "metrics | grep -q '^azoth_projection_wal_reader_frames{projection=\"seen\",.*,program=\"sqlite3\",unit=\"a-reader.service\"} [1-9]'"
exec 5>&-

# --- backups ---
backup=azoth-backup@main
check "azoth-backup can be started" systemctl start $backup.service
says "and makes a backup" 1 "$(ls /var/backups/azoth/main/*-full.azb | wc -l)"
check "which it tells in the journal" in_journal $backup.service 'full backup'
check "azoth lists it" eval '[ "$(azoth backup list /var/backups/azoth/main --json | jq ".[0].to_event")" -gt 0 ]'
check "and verifies it" azoth backup verify /var/backups/azoth/main
check "it is restored" azoth restore /var/backups/azoth/main /var/lib/azoth/look
says "as the user's whose directory it is in" "azoth azoth" "$(stat -c '%U %G' /var/lib/azoth/look/data.mdb)"
says "with the same state" "$(value n)" "$(azoth get n --dir /var/lib/azoth/look --json | jq .value)"
check "and all that was projected" azoth verify --all-projections --dir /var/lib/azoth/look
check "its target starts" systemctl start azoth@look.target
check "and it can be written" azoth tx --dir /var/lib/azoth/look --deadline 20 '{"set":{"look":1},"events":[{"type":"e","data":{}}]}'
check "its projections run under units" systemctl start azoth-projector@look:{seen:0-2,seen:1-2,told}
check "and follow" quiet azoth lag --dir /var/lib/azoth/look --wait --timeout 20
check "each event once" quiet azoth verify --dir /var/lib/azoth/look --all-projections
check "it is stopped again" systemctl stop azoth@look.target 'azoth-*@look*'
rm -r /var/lib/azoth/look
check "of a database that is not there" systemctl start azoth-backup@nothing.service
says "there is none" 1 "$(journalctl -q -o cat -u azoth-backup@nothing.service | grep -c "Skipped due to 'exec-condition'")"
says "which is no failure" "" "$(systemctl list-units --failed --plain --no-legend)"
mkdir -p /etc/systemd/system/$backup.service.d
cat >/etc/systemd/system/$backup.service.d/copy.conf <<'S'
[Service]
ExecCondition=
ExecCondition=/bin/true
ExecStart=
ExecStart=/bin/sh -c 'azoth get n --dir /var/lib/azoth/%i >/var/backups/azoth/%i/n && ! touch /var/backups/x'
S
systemctl daemon-reload
check "what it runs reads the database and writes into the directory of backups, and nowhere beside it" systemctl start $backup.service
check "there it is" [ -s /var/backups/azoth/main/n ]
says "for the group alone" "azoth azoth 770" "$(stat -c '%U %G %a' /var/backups/azoth/main)"
check "not for azoth-read" eval '! as reader ls /var/backups/azoth'
rm -r /var/backups/azoth
check "a directory of backups that is missing fails it: it is not skipped" eval "! systemctl start $backup.service && is $backup.service Result exit-code"
systemctl reset-failed $backup.service
systemd-tmpfiles --create azoth.conf
check "its timer can be enabled" systemctl enable --now $backup.timer
check "and knows when it is the next time" matches $backup.timer NextElapseUSecRealtime '[0-9]'
follow=azoth-backup-follow@main checkpoint=azoth-checkpoint@main
# One file of flags for the three units, as the guide has it, and keys that they may read.
rm -r /etc/systemd/system/$backup.service.d
key=/etc/azoth/backup.key
quiet azoth key make $key && quiet azoth key make --sign /etc/azoth/sign.key
echo "BACKUP_FLAGS=--key-file $key --sign-key /etc/azoth/sign.key --keep '7 daily, 4 weekly'" >/etc/azoth/main.backup
systemctl daemon-reload
check "a key of root alone is not for the unit" eval "! systemctl start $backup.service 2>/dev/null && in_journal $backup.service '$key: Permission denied'"
chgrp azoth /etc/azoth/*.key && chmod 640 /etc/azoth/*.key
systemctl reset-failed $backup.service
newest() { azoth backup list --key-file $key /var/backups/azoth/main --json | jq 'map(.to_event // 0) | max'; }
shipped() { [ "$(newest)" = "$(azoth status --json | jq .head.event)" ]; }
check "backups commit by commit can be enabled" systemctl enable --now $follow
check "they are ready when there is a full one" eval 'ls /var/backups/azoth/main/*-full.azb'
azoth tx --deadline 20 '{"events":[{"type":"e","data":{}}]}' >/dev/null
check "a commit is shipped" until_true 20 shipped
check "which the status says" until_true 10 matches $follow StatusText 'At event [0-9]+ .*files'
says "and azoth lag" "following 0" "$(azoth lag --json | jq -r '.backups[0] | "\(.state) \(.behind)"')"
check "one that is killed is started again" eval "systemctl kill -s KILL $follow && until_true 30 eval '[ \$(prop $follow NRestarts) = 1 ] && active $follow'"
azoth tx --deadline 20 '{"events":[{"type":"e","data":{}}]}' >/dev/null
check "and goes on" until_true 20 shipped
check "beside it a full one is made" systemctl start $backup.service
check "a metric tells of the place that is followed" eval "metrics | grep -q '^azoth_backup_followed{.*} 1'"
check "they can be disabled" systemctl disable --now $follow
says "and have ended well" success "$(prop $follow Result)"
check "which a metric tells" until_true 10 eval "metrics | grep -q '^azoth_backup_state{.*state=\"silent\"} 1'"
hangs=/etc/systemd/system/$follow.service.d
mkdir -p $hangs
printf '#!/bin/sh\ncat >/dev/null\n[ "$AZOTH_BACKUP_KIND" = full ] || sleep 1000\n' >/usr/local/bin/ship
chmod +x /usr/local/bin/ship
printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/azoth backup --dir %s --follow /var/backups/azoth/main.sent --exec /usr/local/bin/ship\n' $AZOTH_DIR >$hangs/exec.conf
systemctl daemon-reload
check "they may go to a command" systemctl start $follow
azoth tx --deadline 20 '{"events":[{"type":"e","data":{}}]}' >/dev/null
check "the status tells of one that hangs" until_true 20 matches $follow StatusText 'The command has had .*-increment.azb for'
began=${EPOCHREALTIME/[.,]/}
check "they are stopped all the same" systemctl stop $follow
took=$(((${EPOCHREALTIME/[.,]/} - began) / 1000))
check "soon, although the command has its time" [ $took -ge 1500 -a $took -lt 10000 ]
says "which is no failure" success "$(prop $follow Result)"
says "and leaves nothing" "" "$(pgrep -f 'sleep 1000')"
check "nobody needs that any more" azoth backup forget /var/backups/azoth/main.sent
rm -r $hangs
systemctl daemon-reload
check "a backup at the stop can be enabled" systemctl enable --now $checkpoint
azoth tx --deadline 20 '{"events":[{"type":"e","data":{}}]}' >/dev/null
head=$(azoth status --json | jq .head.event)

# --- the end, and again ---
systemctl stop azoth@main.target
check "all stops with the target" until_true 30 eval "! active $writer && [ -z \"\$(systemctl list-units --plain --no-legend 'azoth-*@main*.service')\" ]"
stopped_at() { journalctl -q -o json | jq -r --arg u "$1" 'select(.UNIT == $u and (.MESSAGE | startswith("Stopped "))) | .__MONOTONIC_TIMESTAMP' | tail -1; }
says "what was committed last is in a backup then" "$head" "$(newest)"
says "each backup of the three units is encrypted" true "$(azoth backup list /var/backups/azoth/main --json | jq 'length > 1 and all(.encrypted)')"
check "and signed, and can be restored" quiet azoth backup verify --deep --key-file $key --signed-by /etc/azoth/sign.key.pub /var/backups/azoth/main
check "which was made before the writer stopped" eval "! journalctl -q -o cat -u $checkpoint | grep 'mark stays'"
systemctl disable $checkpoint >/dev/null 2>&1
for u in "${members[@]}"; do check "$u before the feed" [ "$(stopped_at "$u")" -le "$(stopped_at $feed)" ]; done
check "the feed before the writer" [ "$(stopped_at $feed)" -le "$(stopped_at $writer)" ]
says "without a failure" "" "$(systemctl list-units --failed --plain --no-legend 'azoth*')"
says "no shared object is left" "" "$(ls /dev/shm)"
check "a copy is made" cp -a $AZOTH_DIR /var/backups/azoth/main.copy
check "azoth-read still reads" as reader sqlite3 -readonly $db 'SELECT count(*) FROM t'
check "the target starts again" systemctl start azoth@main.target
check "with all that is enabled" until_true 20 active $writer $feed azoth-exporter@main "${members[@]}"

# --- an older log is put back: alone, and then the whole copy ---
stop_all() { systemctl stop azoth@main.target 'azoth-*@main*' && ! active $writer; }
check "a transaction is committed that the copy has not" azoth tx --deadline 20 '{"events":[{"type":"e","data":{}}]}'
check "and projected" azoth lag --wait --timeout 30
check "all is stopped and waited for" stop_all
check "the copy's log alone is put back" cp -a /var/backups/azoth/main.copy/data.mdb $AZOTH_DIR/
check "with it the target starts" systemctl start azoth@main.target
check "and the timer of backups, which was stopped with all" active $backup.timer
check "which can be disabled" systemctl disable --now $backup.timer
for u in azoth-projector@main:seen:{0-2,1-2} azoth-projector@main:told; do
    check "$u does not go on" until_true 20 is "$u" ActiveState failed
    says "for good" 100 "$(prop "$u" ExecMainStatus)"
done
says "azoth lag says that systemd does not start it again, and how it is" \
    "systemd azoth-projector@main:seen:0-2.service failed 100 true" "$(azoth lag seen --json | jq -r '.projections[0].supervisor |
        "\(.by) \(.unit) \(.state) \(.exit_code) \(.advice | test("systemctl reset-failed azoth-projector@main:seen:0-2.service"))"')"
check "azoth lag says that it diverged" eval 'azoth lag seen | grep -q "^seen 0/2 *diverged"'
check "and what to do" eval 'azoth lag seen | grep -q "azoth projection rebuild seen"'
check "of effects it is something else" eval 'azoth lag told | grep -q "put it back with that copy" && ! azoth projection rebuild told'
check "which is done" azoth projection rebuild seen
systemctl reset-failed 'azoth-*@main*'
check "and the target, which is active, is started" systemctl start azoth@main.target
check "which starts those members that do not run" until_true 10 active azoth-projector@main:seen:{0-2,1-2}
check "they follow" azoth lag seen --wait --timeout 30
check "azoth verify agrees" azoth verify --projection seen
check "all is stopped again" stop_all
check "the whole copy is put back" eval "mv $AZOTH_DIR $AZOTH_DIR.broken && cp -a /var/backups/azoth/main.copy $AZOTH_DIR"
systemctl reset-failed 'azoth-*@main*' 2>/dev/null
check "the target starts with it" systemctl start azoth@main.target
check "and all that is enabled" until_true 20 active $writer $feed "${members[@]}"
check "projections have nothing to complain of" eval 'azoth lag --wait --timeout 30 && azoth verify --all-projections'
says "the state is that of the copy" "$n" "$(value n)"
check "and another database beside it" systemctl start azoth@other.target
check "whose writer and feed run" until_true 10 active azoth-writer@other azoth-feed@other
says "and no exporter that would want the first one's address" inactive "$(prop azoth-exporter@other ActiveState)"
check "with a store of its own" azoth tx --dir /var/lib/azoth/other '{"set":{"a":1}}'

# --- a disk for backups that is full; old events where units do not look ---
other=/var/lib/azoth/other other_backups=/var/backups/azoth/other
mkdir $other_backups && mount -t tmpfs -o "size=4k,mode=770,uid=$(id -u azoth),gid=$(id -g azoth)" tmpfs $other_backups
check "a backup that has no room fails" eval "! systemctl start azoth-backup@other 2>/dev/null"
check "by name" in_journal azoth-backup@other AZOTH_ERR_NOSPACE
says "and leaves nothing" place "$(ls $other_backups)"
umount $other_backups
rmdir $other_backups
mkdir -m 750 /home/events && chown azoth:azoth /home/events
azoth tx --dir $other '{"events":[{"type":"f","data":{}}]}' >/dev/null
azoth tx --dir $other '{"events":[{"type":"f","data":{}}]}' >/dev/null
check "old events are moved below /home" quiet azoth archive --dir $other --before 2 /home/events
check "there a backup does not find them" eval "! systemctl start azoth-backup@other 2>/dev/null"
check "which it says with the file's name" in_journal azoth-backup@other '/home/events/events-.*azs: Permission denied'
printf '%s\n' '-- azoth: projection late' '-- azoth: migration 1 create' 'CREATE TABLE t (id INTEGER PRIMARY KEY);' \
    '-- azoth: on f' 'INSERT INTO t VALUES (@id);' >$other/projections/late.sql
systemctl start azoth-projector@other:late
check "nor does a projector, which gives up" until_true 10 is azoth-projector@other:late ExecMainStatus 100
check "and azoth lag says why" eval "azoth lag late --dir $other | grep -q '/home/events/events-.*azs: Permission denied'"
for u in feed projector backup; do
    mkdir -p /etc/systemd/system/azoth-$u@.service.d
    printf '[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=/home/events\n' >/etc/systemd/system/azoth-$u@.service.d/events.conf
done
systemctl daemon-reload
systemctl reset-failed 'azoth-*@other*'
check "with a drop-in they are started again" systemctl restart azoth-feed@other azoth-projector@other:late
check "and have what was archived" quiet azoth lag late --dir $other --wait --timeout 20
check "so has a backup" systemctl start azoth-backup@other
systemctl stop azoth-projector@other:late
rm $other/projections/late.* /etc/systemd/system/azoth-*@.service.d/events.conf

# --- what systemd means to do with a projector that fails ---
odd=azoth-projector@other:odd.service
printf '%s\n' '-- azoth: projection odd' '-- azoth: on-error fail-fast' '-- azoth: migration 1 create' \
    'CREATE TABLE t (id INTEGER CHECK (id < 1));' '-- azoth: on e' 'INSERT INTO t VALUES (@id);' >$other/projections/odd.sql
drop_in() { mkdir -p /etc/systemd/system/$odd.d; printf '%s\n' "$@" >/etc/systemd/system/$odd.d/odd.conf; systemctl daemon-reload; }
drop_in '[Service]' RestartSec=100s
azoth tx --dir $other '{"events":[{"type":"e","data":{}}]}' >/dev/null
supervisor() { [ "$(azoth lag odd --dir $other --json | jq -r ".projections[0].supervisor | $1")" = "$2" ]; }
check "one that was never started" supervisor '"\(.state) \(.advice)"' "stopped it does not run: systemctl start $odd"
systemctl start $odd
check "one that ended waits to be started again" until_true 10 \
    supervisor '"\(.by) \(.state) \(.exit_code) \(.next_start_s > 50 and .next_start_s <= 100)"' "systemd waiting 1 true"
check "in words" eval "azoth lag odd --dir $other | grep -q '^ *systemd starts $odd again in '"
drop_in '[Unit]' StartLimitBurst=3 '[Service]' RestartSec=10ms
systemctl restart $odd
check "until systemd gives up" until_true 20 supervisor '"\(.by) \(.state) \(.exit_code) \(.next_start_s)"' "systemd failed 1 null"
check "which is told with what to do" eval "azoth lag odd --dir $other | grep -q 'systemd does not start it again (.*): systemctl reset-failed $odd; systemctl start $odd'"

# --- the network, where a drop-in gives it ---
printf '[feed]\nlisten = tcp://127.0.0.1:7101\n' >/etc/azoth/other.conf
systemctl restart azoth-feed@other 2>/dev/null
check "a feed that listens on TCP without the drop-in fails for good" until_true 10 is azoth-feed@other ActiveState failed
says "with the code for it" 100 "$(prop azoth-feed@other ExecMainStatus)"
mkdir -p /etc/systemd/system/azoth-feed@.service.d
printf '[Service]\nPrivateNetwork=no\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\nIPAddressAllow=localhost\n' >/etc/systemd/system/azoth-feed@.service.d/tcp.conf
systemctl daemon-reload
check "with it the feed starts" systemctl restart azoth-feed@other 2>/dev/null
check "and is reached" bash -c 'exec 3<>/dev/tcp/127.0.0.1/7101'

# --- configuration that no restart mends ---
printf '[writer]\nsync = perhaps\n' >/etc/azoth/bad.conf
systemctl start azoth@bad.target
check "a mistake in the configuration fails the writer" until_true 10 is azoth-writer@bad ActiveState failed
says "with the code for it" 100 "$(prop azoth-writer@bad ExecMainStatus)"
says "and it is not started again" 0 "$(prop azoth-writer@bad NRestarts)"
check "the journal names the line" in_journal azoth-writer@bad 'azoth.conf:2: .*perhaps'

# --- the machine stops ---
# What a shutdown stops, it stops by this target; what would come behind it is not to be had here.
printf '[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\n' >/etc/systemd/system/machine-stops.target
systemctl daemon-reload
check "a follower and a backup at the stop are enabled both" systemctl enable --now $follow $checkpoint
azoth tx --deadline 20 '{"events":[{"type":"e","data":{}}]}' >/dev/null
head=$(azoth status --json | jq .head.event)
check "the machine stops" systemctl start machine-stops.target --job-mode=replace-irreversibly
check "and the writer" until_true 10 eval "! active $writer"
says "what was committed last is in a backup" "$head" "$(newest)"
checks_end

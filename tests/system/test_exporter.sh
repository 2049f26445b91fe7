#!/bin/bash
# azoth-exporter beside the real programs: what it says before there is a database, while things are done, when
# processes die, and to clients that mean it ill. Needs AZOTH_BUILD, jq and python3.
. "$(dirname "$0")/checks.sh"
. "$(dirname "$0")/exporter.sh"

# ---- before there is a database ----
start_exporter || exit 1
says "without a database it says that nothing is up" 0 "$(metric azoth_up)"
says "and lives" "200 ok" "$(get /healthz) $(cat "$TMP/body")"
says "and is not ready, and why" "503 writer: not running" "$(get /readyz) $(cat "$TMP/body")"
says "the page is there" "200 <!doctype html>" "$(get /) $(head -1 "$TMP/body")"
says "its JSON says so too" "200 false none" "$(get /status.json) $(jq -r '"\(.up) \(.writes)"' "$TMP/body")"
check "nothing was made" test ! -e "$db"

# ---- a database, and its programs ----
make_database
size=$(stat -f -c '%b %S' "$db" | awk '{printf "%.0f", $1 * $2}')
check "a database that was made is found" until_true 10 is azoth_disk_size_bytes "$size"
says "without a writer" 0 "$(metric azoth_up)"
start writer azoth-writer; writer=$started
start feed azoth-feed; feed=$started
start projector azoth-projector seen; projector=$started
start worker azoth-worker --name 1; worker=$started
check "a writer that came is seen" until_true 20 is azoth_up 1
check "and the feed" until_true 20 is azoth_feed_up 1
seen='{projection="seen",shard="0",shards="1"'
check "and the projector" until_true 20 is "azoth_projection_state$seen,state=\"idle\"}" 1
check "then it is ready" until_true 20 ready_says '^ready$'
says "it is no participant" "feed worker writer" "$(azoth status --dir "$db" --json | jq -r '.participants[].kind' | sort | xargs)"
holds_nothing() { ! { ls -l "/proc/$exporter/fd"; cat "/proc/$exporter/maps"; } | grep -qE "$db|/dev/shm/azoth-"; }
check "it holds nothing of the database between its looks" until_true 5 holds_nothing

# effect SENTENCE DELTA METRIC COMMAND...: what the command adds to a metric.
effect() {
    local what=$1 delta=$2 line=$3 before; shift 3
    before=$(metric "$line")
    "$@" >"$TMP/out" 2>&1
    check "$what: ${line%%\{*} $delta" until_true 20 is "$line" $((before + delta))
}
refused() { azoth tx --dir "$db" --to "ipc://$db/run/worker-1.sock" '{"require":[{"key":"a","min":1000000}],"add":{"a":1}}'; }
until_true 20 test -S "$db/run/worker-1.sock"
row=$(azoth status --dir "$db" --json | jq '.participants[] | select(.kind == "worker") | .row')
# What the action before it did must have arrived: the projection is at the head, and what is told is of a later look.
caught_up() { get /metrics >/dev/null; [ "$(awk -v c="azoth_projection_cursor$seen}" '$1 == "azoth_head_event" {h = $2} $1 == c {print $2 == h}' "$TMP/body")" = 1 ]; }
later_look() { ! is azoth_exporter_requests_total "$1"; }
settle() { until_true 20 caught_up; until_true 20 later_look "$(metric azoth_exporter_requests_total)"; }
while IFS='|' read -r what delta line command; do
    settle
    effect "$what" "$delta" "$line" $command
done <<END
a transaction|1|azoth_transactions_total|add
a transaction|1|azoth_commits_total|add
a transaction|1|azoth_commit_duration_seconds_count|add
a transaction|1|azoth_commit_transactions_bucket{le="1"}|add
a transaction|1|azoth_head_transaction|add
an event|1|azoth_events_total|add
an event|1|azoth_head_event|add
an event|1|azoth_feed_events_total|add
an event|1|azoth_projection_cursor$seen}|add
an event|1|azoth_projection_sent_events_total$seen}|add
an event whose handler fails|1|azoth_projection_errors_total$seen}|add null
an event whose handler fails|1|azoth_projection_dead_letters$seen,state="waiting"}|add null
a transaction|1|azoth_preflight_duration_seconds_count|add
an event|1|azoth_apply_duration_seconds_count|add
an event|1|azoth_apply_lag_seconds_count|add
a refused request|1|azoth_refusals_total{reason="min"}|refused
a refused request|1|azoth_process_refused_total{kind="worker",name="1",row="$row"}|refused
a pause|1|azoth_paused|azoth pause --hold --dir $db
its end|-1|azoth_paused|azoth resume --dir $db
END

# ---- a reader that stands ----
# It opens a snapshot, says so, and keeps it until it is killed. A sanitizer's runtime has to be in python before the library is.
runtime=$(ldd "$BUILD/libazoth.so.0" | grep -oE '/[^ ]*/lib[at]san\.so[^ ]*')
LD_PRELOAD=$runtime python3 - "$BUILD/libazoth.so.0" "$db" >"$TMP/reader" 2>&1 <<'P' &
import ctypes, signal, sys
azoth = ctypes.CDLL(sys.argv[1])
db, snapshot = ctypes.c_void_p(), ctypes.c_void_p()
if azoth.azoth_open(sys.argv[2].encode(), None, ctypes.byref(db), None) or azoth.azoth_snapshot(db, ctypes.byref(snapshot), None):
    sys.exit("no snapshot")
print("open", flush=True)
signal.pause()
P
reader=$!
pids+=("$reader")
check "a reader opens a snapshot" until_true 20 grep -qx open "$TMP/reader"
for _ in 1 2 3; do add >/dev/null; done
check "one whose snapshot commits have gone past is counted" until_true 20 is azoth_pins 1
check "with the commits since" until_true 20 is azoth_pin_oldest_commits 3
ages() { metric azoth_pin_oldest_age_seconds | awk '{exit !($1 >= 1 && $1 < 60)}'; }
check "and its age" until_true 20 ages
says "the JSON names it" "$reader $(cat /proc/$reader/comm)" "$(get /status.json >/dev/null; jq -r --arg pid "$reader" '.pins[] | select(.pid == ($pid | tonumber)) | "\(.pid) \(.program)"' "$TMP/body")"
# As status, which may look itself, sees it.
named() { azoth status --dir "$db" --json | jq -r --argjson pid "$reader" '.pins[] | select(.pid == $pid) | "{pid=\"\(.pid)\",program=\"\(.program)\",unit=\"\(.unit // "")\"}"'; }
check "and so does a metric, with the commits" is "azoth_pinned_snapshot_commits$(named)" 3
kill -9 "$reader"
wait "$reader" 2>/dev/null
check "until it goes" until_true 20 is azoth_pins 0
mkfifo "$TMP/questions"
sqlite3 -readonly "$db/projections/seen.db" <"$TMP/questions" >"$TMP/out" 2>&1 &
reader=$!
pids+=("$reader")
exec 4>"$TMP/questions"
echo 'BEGIN; SELECT max(id) FROM seen;' >&4
until_true 20 test -s "$TMP/out"
add >/dev/null
check "a reader that holds a projection's WAL is named" until_true 20 is "azoth_projection_wal_reader_frames$seen,$(named | tail -c +2)" \
    "$(azoth status --dir "$db" --json | jq --argjson pid "$reader" '.pins[] | select(.pid == $pid) | .frames_behind')"
held() { metric "azoth_projection_wal_pinned_seconds$seen}" | awk '{exit !($1 > 0 && $1 < 60)}'; }
check "and its projector says since when" until_true 20 held
says "with the size that ls tells" "$(stat -L -c %s "$(readlink -f "$db/projections/seen.db")-wal")" "$(metric "azoth_projection_wal_bytes$seen}")"
exec 4>&-
wait "$reader"
check "until that goes" until_true 20 is "azoth_projection_wal_pinned_seconds$seen}" 0
check "which gives its space back" until_true 20 is "azoth_projection_wal_bytes$seen}" 0

# ---- lag, and readiness ----
kill -9 "$projector"
for _ in 1 2 3; do add >/dev/null; done
check "what nobody projects is lag" until_true 20 is "azoth_projection_lag_events$seen}" 3
check "a projector that died falls silent" until_true 20 is "azoth_projection_state$seen,state=\"silent\"}" 1
older() { metric "azoth_projection_lag_seconds$seen}" | awk '{exit !($1 >= 1 && $1 < 60)}'; }
check "its age grows" until_true 20 older
says "within the limits it is ready all the same" 200 "$(get /readyz)"
printf '[exporter]\nmax_lag_events = 2\n' >>"$db/azoth.conf"
kill -HUP "$exporter"
check "limits are read again on SIGHUP, and named" until_true 10 ready_says '^projection seen: 3 events behind, the limit is 2$'
says "and the status says it" 503 "$(get /readyz)"
printf 'nonsense\n' >>"$db/azoth.conf"
kill -HUP "$exporter"
check "settings that are none change nothing" until_true 10 grep -q 'settings are as before.*azoth.conf:[0-9]' "$TMP/exporter.log"
says "nothing at all" 503 "$(get /readyz)"
sed -i '$d; s/^max_lag_events.*/max_lag_seconds = 1/' "$db/azoth.conf"
kill -HUP "$exporter"
check "an age over its limit is named" until_true 10 ready_says '^projection seen: [0-9.]+ s behind, the limit is 1$'
start projector azoth-projector seen; projector=$started
check "what is projected is no lag any more" until_true 20 is "azoth_projection_lag_events$seen}" 0
says "and has no age" 0 "$(metric "azoth_projection_lag_seconds$seen}")"
check "then it is ready again" until_true 20 ready_says '^ready$'

# ---- places of backups ----
start follower azoth backup --follow --interval 50ms "$TMP/dest"; follower=$started
check "a place of backups is followed" until_true 20 grep -q "ready to=" "$TMP/follower.log"
place="{place=\"$(cat "$TMP/dest/place")\""
check "and told of" until_true 20 is "azoth_backup_state$place,state=\"following\"}" 1
says "as one that has to come close" 1 "$(metric "azoth_backup_followed$place}")"
now=$(date +%s)
add >/dev/null
check "it is not behind" until_true 20 is "azoth_backup_lag_events$place}" 0
says "and lacks nothing of any age" 0 "$(metric "azoth_backup_lag_seconds$place}")"
success() { metric "azoth_backup_last_success_timestamp_seconds$place}" | awk -v now="$now" '{exit !($1 >= now && $1 < now + 60)}'; }
check "its last backup was just now" until_true 20 success
later() { awk -v a="$(metric azoth_head_timestamp_seconds)" -v b="$(metric "azoth_backup_last_success_timestamp_seconds$place}")" 'BEGIN {exit !(a > 0 && b > a)}'; }
check "when it was durable, not when that was committed which it has" until_true 20 later
kill "$follower"
wait "$follower"
add >/dev/null; add >/dev/null
check "without a follower it is silent" until_true 20 is "azoth_backup_state$place,state=\"silent\"}" 1
says "and behind, as azoth lag says" "$(azoth lag --dir "$db" --json | jq '.backups[0].behind')" "$(metric "azoth_backup_lag_events$place}")"
lacks() { metric "azoth_backup_lag_seconds$place}" | awk '{exit !($1 >= 1 && $1 < 60)}'; }
check "what it lacks grows old" until_true 20 lacks
before=$(metric "azoth_backup_last_success_timestamp_seconds$place}") starts=$(grep -c ready "$TMP/writer.log")
kill -9 "$writer"; wait "$writer" 2>/dev/null
start writer azoth-writer; writer=$started
started_anew() { [ "$(grep -c ready "$TMP/writer.log")" -gt "$starts" ]; }
check "another writer tells the same" until_true 20 started_anew
says "of the place" "2 $before" "$(metric "azoth_backup_lag_events$place}") $(metric "azoth_backup_last_success_timestamp_seconds$place}")"
azoth backup forget --dir "$db" "$TMP/dest" >"$TMP/out"
check "one that is forgotten is not told of any more" until_true 20 is "azoth_backup_lag_events$place}" ""

# ---- deaths ----
effect "a worker that died is cleaned up after" 1 azoth_participants_reaped_total kill -9 "$worker"
total=$(metric azoth_transactions_total) epoch=$(metric azoth_writer_epoch)
kill -9 "$writer"
check "a writer that died is down" until_true 10 is azoth_up 0
says "what it left is still told" "$total" "$(metric azoth_transactions_total)"
says "and it is not ready" "503 writer: not running" "$(get /readyz) $(cat "$TMP/body")"
says "the JSON says so" "false false" "$(get /status.json >/dev/null; jq -r '"\(.up) \(.writer.alive)"' "$TMP/body")"
start writer azoth-writer; writer=$started
check "another writer is up" until_true 20 is azoth_up 1
check "it is another start" until_true 10 is azoth_writer_epoch $((epoch + 1))
kill -STOP "$writer"
check "one that was stopped hangs, and is named" until_true 30 ready_says '^writer: no heartbeat for 1[0-9] s$'
kill -CONT "$writer"
check "until it goes on" until_true 10 ready_says '^ready$'
kill "$projector" "$feed" "$writer"
wait "$projector" "$feed" "$writer" 2>/dev/null
check "a feed that went is down" until_true 10 is azoth_feed_up 0
# Files put back from a copy: the writer retires the segment and makes another.
cp "$db/data.mdb" "$db/copy" && mv "$db/copy" "$db/data.mdb"
start writer azoth-writer; writer=$started
check "a segment that was made anew is found" until_true 20 is azoth_segment_incarnation 2
check "with its writer" until_true 20 is azoth_up 1
effect "and follows it" 1 azoth_transactions_total add

# ---- HTTP of those who mean it ill ----
python3 - "$port" >"$TMP/hostile" 2>&1 <<'P'
import socket, sys, threading, time
port = int(sys.argv[1])
lock = threading.Lock()
def tell(good, sentence, got=""):
    with lock: print("ok - " + sentence if good else f"not ok - {sentence}: {got!r}", flush=True)
def connect(timeout=30):
    return socket.create_connection(("127.0.0.1", port), timeout)
def ask(data, most=1 << 20):
    with connect() as s:
        try:
            s.sendall(data)
        except OSError:
            pass # closed before all was sent: what it answered counts
        got = b""
        try:
            while len(got) < most:
                part = s.recv(65536)
                if not part: break
                got += part
        except ConnectionResetError:
            pass
        return got
def status(got):
    return got.split(b" ", 2)[1].decode() if got.startswith(b"HTTP/1.") else "none"
CLOSE = b"Host: localhost\r\nConnection: close\r\n\r\n"
head = ask(b"HEAD /metrics HTTP/1.1\r\n" + CLOSE)
tell(status(head) == "200" and head.endswith(b"\r\n\r\n") and b"Content-Length: " in head, "HEAD tells the length and sends no body", head)
for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"NONSENSE"):
    got = ask(method + b" /metrics HTTP/1.1\r\n" + CLOSE)
    tell(status(got) == "405" and b"Allow: GET, HEAD" in got, f"{method.decode()} is not allowed", got)
got = ask(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100000)
tell(status(got) in ("405", "413", "none"), "a large body is not waited for", got)
got = ask(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
tell(status(got) == "421", "another site's name for this address is refused", got)
for host in (b"127.0.0.1:80", b"[::1]:7109", b"localhost", b"LOCALHOST:1"):
    got = ask(b"GET /healthz HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    tell(status(got) == "200", f"{host.decode()} is taken for its own", got)
for path in (b"/nothing", b"/../metrics", b"/metrics/", b"//metrics", b"/metrics%00x", b"*"):
    got = ask(b"GET " + path + b" HTTP/1.1\r\n" + CLOSE)
    tell(status(got) in ("404", "400"), f"{path.decode()} is no page", got[:100])
got = ask(b"GET /metrics?name=a HTTP/1.1\r\n" + CLOSE)
tell(status(got) == "200", "a query is left aside", got[:200])
got = ask(b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n" + CLOSE)
tell(status(got) in ("414", "431", "400", "none"), "a long path is refused", got)
got = ask(b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: %s\r\n" % (i, b"v" * 100) for i in range(1000)) + CLOSE)
tell(status(got) in ("413", "431", "400", "none"), "many headers are refused", got)
got = ask(bytes(range(256)) * 16 + b"\r\n\r\n")
tell(status(got) in ("400", "404", "405", "413", "431", "505", "none"), "what is no HTTP is refused", got)

# These take until the deadline: all at once. Fewer than the connections there are.
def slow():
    began, n = time.monotonic(), 0
    with connect() as s:
        s.settimeout(0.5)
        for c in b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 30:
            try:
                s.sendall(bytes([c]))
                if s.recv(1) == b"": break
            except socket.timeout: n += 1
            except OSError: break
    took = time.monotonic() - began
    tell(9 < took < 20, "who sends a byte now and then is cut off", took)
def deaf():
    began = time.monotonic()
    with connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(1)
        sent = 0
        while time.monotonic() - began < 25:
            try:
                sent += s.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
            except socket.timeout: continue
            except OSError: break
    took = time.monotonic() - began
    tell(8 < took < 24, "who takes no answers is cut off", took)
def silent(sentence):
    began = time.monotonic()
    with connect() as s:
        end = s.recv(1)
    took = time.monotonic() - began
    tell(end == b"" and 8 < took < 20, sentence, took)
threads = [threading.Thread(target=f, args=a) for f, a in ((slow, ()), (deaf, ()), (silent, ("who says nothing is cut off",)))]
for t in threads: t.start()
got = ask(b"GET /healthz HTTP/1.1\r\n" + CLOSE)
tell(status(got) == "200", "others are answered meanwhile", got)
for t in threads: t.join()

# More than there is room for: the next one waits until they are cut off, which is sooner then.
began = time.monotonic()
crowd = [connect() for _ in range(60)]
got = ask(b"GET /healthz HTTP/1.1\r\n" + CLOSE)
took = time.monotonic() - began
tell(status(got) == "200" and 0.5 < took < 8, "a crowd is survived, and holds nobody up for long", (took, got))
for s in crowd: s.close()
with connect() as s:
    for _ in range(3):
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = s.recv(4096)
tell(status(got) == "200", "a connection serves one request after the other", got)
print("end")
P
cat "$TMP/hostile"
says "the hostile ones came to their end" end "$(tail -1 "$TMP/hostile")"
passed=$((passed + $(grep -c '^ok - ' "$TMP/hostile"))) failed=$((failed + $(grep -c '^not ok - ' "$TMP/hostile")))
says "the exporter is the same process, and well" "200 1" "$(get /healthz) $(grep -c 'ready listen' "$TMP/exporter.log")"
if [ -n "$runtime" ]; then echo "skip - what a sanitizer keeps of freed memory is not the exporter's"; else
check "its memory is bounded" sh -c "awk '/VmRSS/ {exit \$2 > 65536}' /proc/$exporter/status"
fi

# ---- under a supervisor ----
python3 - "$BUILD/azoth-exporter" "$TMP" >"$TMP/notify" 2>&1 <<'P'
import os, socket, subprocess, sys
program, tmp = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(tmp + "/notify.sock")
s.settimeout(20)
p = subprocess.Popen([program, "--dir", tmp + "/none", "--exporter-listen", "[::1]:0" if os.path.exists("/proc/net/if_inet6") and os.path.getsize("/proc/net/if_inet6") else "127.0.0.1:0"],
    env=dict(os.environ, NOTIFY_SOCKET=tmp + "/notify.sock", WATCHDOG_USEC="400000"), stderr=subprocess.DEVNULL)
first = s.recv(4096).decode()
heard = [s.recv(4096).decode() for _ in range(4)]
p.terminate()
while "STOPPING=1" not in heard[-1]: heard.append(s.recv(4096).decode())
print(first.startswith("READY=1\nSTATUS=http://"), sum("WATCHDOG=1" in h for h in heard) >= 2, any("STATUS=" in h and "writer is down" in h for h in heard), p.wait())
P
says "it is ready, beats the watchdog, says its status, and ends in order" "True True True 0" "$(cat "$TMP/notify")"

# ---- what it refuses ----
exits "an address that is none is a mistake of the settings" 100 "exporter.listen" "$BUILD/azoth-exporter" --dir "$db" --exporter-listen nonsense
exits "so is a name for an address" 100 "exporter.listen" "$BUILD/azoth-exporter" --dir "$db" --exporter-listen localhost:7109
exits "so is a port that is none" 100 "exporter.listen" "$BUILD/azoth-exporter" --dir "$db" --exporter-listen 127.0.0.1:http
exits "and a number that is no port's" 100 "is not an address and a port" "$BUILD/azoth-exporter" --dir "$db" --exporter-listen 127.0.0.1:99999
exits "a port that is taken is named" 1 "127.0.0.1:$port" "$BUILD/azoth-exporter" --dir "$db" --exporter-listen "127.0.0.1:$port"
exits "there is one database" 100 "AZOTH_ERR_USAGE" "$BUILD/azoth-exporter" --instance main:1
kill "$exporter"
wait "$exporter"
says "SIGTERM ends it in order" 0 $?
checks_end

#!/bin/bash
# azoth backup --follow --exec with commands that do not do what they should: each is told of by what it did, and none holds up
# who ends the follower. Needs AZOTH_BUILD, jq and python3.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
# Its number may be another one's by now.
runs() { grep -qzs "^FAR=$TMP/" "/proc/$1/environ"; } # PID
# With what is left of the commands, where the test is not passed.
leave_none() {
    local pid
    for pid in $(cat "$TMP"/*/pids 2>/dev/null); do ! runs "$pid" || kill -9 "$pid"; done
    leave
}
trap leave_none EXIT
azoth init "$AZOTH_DIR" >/dev/null
"$BUILD/azoth-writer" --dir "$AZOTH_DIR" 2>"$TMP/writer.log" & pids+=($!)
until_true 20 grep -q ready "$TMP/writer.log" || { cat "$TMP/writer.log"; exit 1; }
# Does what the file `do` beside what it has taken says at that moment.
cat >"$TMP/ship" <<'S'
echo $$ >>"$FAR/pids"
what=$(cat "$FAR/do")
echo "$what" >>"$FAR/ran"
case $what in
take) cat >"$FAR/.$AZOTH_BACKUP_NAME" && mv "$FAR/.$AZOTH_BACKUP_NAME" "$FAR/$AZOTH_BACKUP_NAME" ;;
slow) cat >"$FAR/.$AZOTH_BACKUP_NAME"; read -r _ <"$FAR/go"; mv "$FAR/.$AZOTH_BACKUP_NAME" "$FAR/$AZOTH_BACKUP_NAME" ;;
hang) sleep 1000 & echo $! >>"$FAR/pids"; wait ;;
deaf) trap '' TERM; cat >/dev/null; sleep 1000 & echo $! >>"$FAR/pids"; while :; do wait; done ;;
none) exit 0 ;;
half) head -c 100000 >/dev/null; exit 0 ;;
refuse) cat >/dev/null; exit 7 ;;
killed) kill -9 $$ ;;
esac
S
declare -A follower
does() { echo "$2" >"$TMP/$1/do"; } # NAME WHAT
# NAME ARG...: one of its own place, TMP/NAME.sent, whose command takes what comes into TMP/NAME.
begin_follower() {
    local name=$1; shift
    [ -d "$TMP/$name" ] || { mkdir "$TMP/$name"; does "$name" take; }
    FAR=$TMP/$name "$BUILD/azoth" backup --follow --interval 50ms --exec "exec sh $TMP/ship" "$@" "$TMP/$name.sent" 2>"$TMP/$name.log" &
    follower[$name]=$!; pids+=($!)
}
tx() { azoth tx '{"add":{"n":1},"events":[{"type":"a"}]}' >"$TMP/out" 2>&1; }
# What zstd cannot make small: a transaction of 750 kB, more than a pipe takes.
big() { head -c 560000 /dev/urandom | base64 -w0 | jq -Rc '{add: {n: 1}, events: [{type: "a", data: {x: .}}]}' | azoth tx - >"$TMP/out" 2>&1; }
ran() { grep -qx "$2" "$TMP/$1/ran"; }             # NAME WHAT
told() { grep -qE -- "$2" "$TMP/$1.log"; }         # NAME PATTERN
times() { grep -c -- "$2" "$TMP/$1.log"; }         # NAME PATTERN
reaches() { [ "$(azoth backup list "$TMP/$1" --json | jq 'map(select(.complete) | .to_event) | max // 0')" -ge "$2" ]; }
mark_event() { azoth status --json | jq "[.store.marks[] | select(.place == \"$(cat "$TMP/$1.sent/place")\")][0].event"; }
# NAME: its exit code, when it has ended in bounded time.
ends() { until_true 20 eval "! kill -0 ${follower[$1]}" || kill -9 "${follower[$1]}"; wait "${follower[$1]}" 2>/dev/null; }
none_left() { # NAME
    local pid
    for pid in $(cat "$TMP/$1/pids"); do ! runs "$pid" || { ps -p "$pid" -o pid,stat,args >"$TMP/out"; return 1; }; done
}

# ---- what a command may do wrong ----
wrong="refuse killed none half" stuck="hang deaf full"
for name in $wrong $stuck; do begin_follower $name; done
for name in $wrong $stuck; do check "a follower has begun ($name)" until_true 20 told $name "ready to="; done
for name in $wrong; do does $name $name; done
big
# None of them, when it has ended before the first one was there.
not_read="exit code 0 before it had read its input to the end, [0-9]+ bytes were left and more was to come"
check "a command that refuses is told of" until_true 20 told refuse "ended with exit code 7"
check "one that is killed is told of" until_true 20 told killed "killed by signal 9 \(SIGKILL\)"
check "one that reads nothing and says that all is well is told of" until_true 20 told none "$not_read"
check "one that reads half likewise" until_true 20 told half "$not_read"
for name in $wrong; do
    says "nothing counts as taken ($name)" 0 "$(mark_event $name)"
    does $name take
done
for name in $wrong; do
    check "it gets it again ($name)" until_true 20 reaches $name 1
    check "and goes on" until_true 20 told $name "backups go on event=1"
done
does none none; tx
check "what a pipe holds counts neither when it is not read" until_true 20 told none "read its input to the end, [1-9][0-9]* bytes were left"
says "so the mark stays" 1 "$(mark_event none)"
for name in $wrong; do kill "${follower[$name]}"; ends $name; says "it ends when it is told to ($name)" 0 $?; done
begin_follower absent --exec /nonexistent/ship
check "a command that is none is told of" until_true 20 told absent "exit code 127, sh has not found it"
kill "${follower[absent]}"; ends absent

# ---- ending while a command does not ----
check "others have all so far" until_true 20 eval 'reaches hang 2 && reaches deaf 2 && reaches full 2'
for name in $stuck; do does $name ${name/full/hang}; done
big # hang and full: its input is full, too
for name in $stuck; do check "a command hangs ($name)" until_true 20 ran $name ${name/full/hang}; done
began=${EPOCHREALTIME/[.,]/}
kill -TERM "${follower[hang]}" "${follower[full]}"
kill -INT "${follower[deaf]}"
for name in hang full deaf; do ends $name; says "the follower ends in order ($name)" 0 $?; done
took=$(((${EPOCHREALTIME/[.,]/} - began) / 1000)) # ms: a grace of 2 s, and as much again before SIGKILL
says "within the time that it has" yes "$([ $took -ge 1900 ] && [ $took -le 8000 ] && echo yes || echo $took)"
for name in $stuck; do
    check "nothing of the command is left ($name)" none_left $name
    says "that is said, and is no failure" "1 0" "$(times $name 'left a backup unfinished') $(times $name 'backup failed')"
    says "the mark has stayed" 2 "$(mark_event $name)"
    does $name take
    begin_follower $name
done
for name in $stuck; do check "the next follower ships it ($name)" until_true 20 reaches $name 3; done
mkfifo "$TMP/hang/go"
does hang slow; tx
check "a command is slow" until_true 20 ran hang slow
exec 5<>"$TMP/hang/go"
kill "${follower[hang]}"; echo >&5; ends hang
says "but takes it in time: its follower ends" 0 $?
says "and it counts" 4 "$(mark_event hang)"
check "what the others had is whole, too" until_true 20 eval 'reaches deaf 4 && reaches full 4'
for name in deaf full; do kill "${follower[$name]}"; ends $name; done
for name in $stuck; do
    cp "$TMP/$name.sent/place" "$TMP/$name/"
    check "all that came is restored ($name)" eval "azoth restore $TMP/$name $TMP/$name.new >$TMP/out 2>&1"
    says "to the newest, with nothing lost" "$(azoth digest)" "$(azoth digest --dir "$TMP/$name.new")"
done

# ---- a full one, and the supervisor ----
mkdir "$TMP/first"; does first hang
cat >"$TMP/notify.py" <<'P'
# A follower under a supervisor: says when its status tells of the command, then ends it.
import os, signal, socket, subprocess, sys
program, tmp = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(tmp + "/notify.sock")
s.settimeout(20)
p = subprocess.Popen([program, "backup", "--follow", "--exec", "exec sh " + tmp + "/ship", tmp + "/first.sent"], stderr=subprocess.DEVNULL,
    env=dict(os.environ, FAR=tmp + "/first", NOTIFY_SOCKET=tmp + "/notify.sock", WATCHDOG_USEC="400000"))
beats, heard = 0, ""
while "The command has had" not in heard:
    heard = s.recv(4096).decode()
    beats += "WATCHDOG=1" in heard
p.send_signal(signal.SIGTERM)
try:
    code = p.wait(10)
except subprocess.TimeoutExpired:
    p.kill()
    code = p.wait()
print(beats >= 2, "-full.azb for" in heard, code)
P
says "a command that hangs over a full one is seen in the status, not by the watchdog, and left" "True True 0" \
    "$(python3 "$TMP/notify.py" "$BUILD/azoth" "$TMP" 2>&1 | tail -1)"
check "again without leaving anything" none_left first
checks_end

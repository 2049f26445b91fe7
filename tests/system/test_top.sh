#!/bin/bash
# azoth top on a terminal of 80 by 24: what is shown, that a load and a stopped projector change it, keys, other
# sizes and terminals, and that the terminal is as it was after every way out. The terminal is tmux's.
. "$(dirname "$0")/checks.sh"
if ! command -v tmux >/dev/null; then
    echo "skip - the screen of azoth top is not looked at: tmux is not installed"
    exit 0
fi
export AZOTH_DIR=$TMP/db AZOTH=$BUILD/azoth LC_ALL=C.UTF-8
unset TMUX NO_COLOR
tm() { tmux -u -S "$TMP/tmux" -f /dev/null "$@"; }
# The writer last: with nobody attached it takes its shared objects away.
stop() {
    tm kill-server 2>/dev/null
    [ ${#pids[@]} -le 1 ] || { kill "${pids[@]:1}"; wait "${pids[@]:1}"; } 2>/dev/null
    [ ${#pids[@]} = 0 ] || { kill "${pids[0]}"; wait; } 2>/dev/null
    rm -rf "$TMP"
}
trap stop EXIT
screen() { tm capture-pane -p -t top; }
shows() { screen | grep -Eq -- "$1"; }
lacks() { ! shows "$1"; }
# What the shell says behind it: the terminal has lines and echo again, no other screen, and a cursor.
top() { # ENVIRONMENT
    tm kill-session -t top 2>/dev/null
    tm new-session -d -s top -x 80 -y 24 "env $1 sh -c 'trap : INT; \"$AZOTH\" top --interval 100ms; code=\$?; stty -a; echo code \$code; exec sleep 1000'"
}
restored() { shows '(^| )icanon' && shows ' echo ' && [ "$(tm display-message -p -t top '#{alternate_on} #{cursor_flag}')" = "0 1" ]; }
pid_of_top() { pgrep -f "^$AZOTH top --interval" | while read -r p; do grep -qz "^AZOTH_DIR=$AZOTH_DIR\$" "/proc/$p/environ" && echo "$p"; done; }

azoth init "$AZOTH_DIR" >/dev/null
mkdir -p "$AZOTH_DIR/projections"
for p in first second; do
    printf '%s\n' "-- azoth: projection $p" "-- azoth: migration 1 t" "CREATE TABLE t (id INTEGER PRIMARY KEY);" \
        "-- azoth: on put" "INSERT INTO t VALUES (@id);" >"$AZOTH_DIR/projections/$p.sql"
done
for s in "azoth-writer" "azoth-feed" "azoth-worker 1" "azoth-projector first"; do
    set -- $s
    "$BUILD/$1" --dir "$AZOTH_DIR" ${2+"$2"} 2>>"$TMP/log" & pids+=($!)
    last=$!
done
put() { azoth tx '{"add":{"n":1},"events":[{"type":"put","data":{}}]}' >/dev/null 2>&1; }
until_true 30 put
load() { while [ ! -e "$TMP/enough" ]; do put; done; }

# ---- what is shown ----
tm new-session -d -s keep "exec sleep 1000" # a server without a session would end
top ""
check "it shows the database and who runs" until_true 30 shows "^writer running   feed running   writes open   head [1-9]"
check "its title is the directory" shows "^azoth top  $AZOTH_DIR .*20[0-9-]+T"
for text in '^txn/s ' '^commit +p50 .* p99 .*preflight +p50' '^queue +p50 .*projected +p50' '^batch size .*queue depth 0, 1024 of 1024' \
    '^stripes 0 held, .*waits/s +refused/s .*disk .* free'; do
    check "a line is $text" until_true 30 shows "$text"
done
check "a projection that follows" until_true 30 shows '^first +idle +0 +0 '
check "one that nobody runs" shows '^second +unseen +[1-9]'
check "the processes" shows '^[0-9]+ +writer +azoth-writer +yes'
check "the keys, on the last line" sh -c "[ -n \"\$(tmux -u -S '$TMP/tmux' capture-pane -p -t top | sed -n '24s/^q quit  p pause  s sort: name.*/y/p')\" ]"

# ---- a load ----
load & pids+=($!)
check "a load shows as throughput" until_true 30 shows '^txn/s +[1-9]'
check "as latencies" until_true 30 shows '^commit +p50 [0-9.]+ [um]s +p99 [0-9.]+ [um]s +preflight +p50 [0-9]'
check "from commit to projection" until_true 30 shows 'projected +p50 [0-9.]+ [um]s'
check "as a curve" until_true 30 shows '^txn/s .*[▁▂▃▄▅▆▇█]'
check "the projection's rate" until_true 30 shows '^first .* [0-9.]+ +0 '
kill -STOP "$last"
check "a stopped projector falls behind" until_true 30 shows '^first +[a-z]+ +[1-9][0-9]* .*[▁▂▃▄▅▆▇█]'
kill -CONT "$last"
check "and catches up" until_true 30 shows '^first +[a-z]+ +[0-9] '

# ---- keys ----
first_row() { screen | grep -A1 '^PROJECTION' | tail -1 | cut -d' ' -f1; }
first_is() { [ "$(first_row)" = "$1" ]; }
check "they are sorted by name" until_true 30 first_is first
tm send-keys -t top l
check "l sorts by lag: the one behind comes first" until_true 30 first_is second
check "and says so" shows 's sort: lag'
tm send-keys -t top r
check "r turns it round" until_true 30 first_is first
tm send-keys -t top s
check "s takes the next order" until_true 30 shows 's sort: rate  r reverse '
tm send-keys -t top p
check "p pauses" until_true 30 shows '\[PAUSED\]'
head() { screen | sed -n 's/.*head //p'; }
at=$(head)
ahead() { [ "$(azoth status --json | jq .head.event)" -gt $((at + 20)) ]; }
until_true 30 ahead
says "nothing moves while the log goes on" "$at" "$(head)"
tm send-keys -t top p
moved() { [ "$(head)" -gt "$at" ]; }
check "p goes on" until_true 30 moved
tm send-keys -t top h
check "h tells the keys" until_true 30 shows 'HELD UP: the same of others'
tm send-keys -t top x
check "any key leaves that" until_true 30 shows '^PROJECTION'
tm send-keys -t top -
tm send-keys -t top +
tm send-keys -t top +
check "+ looks less often" until_true 30 shows 'every 0.4 s'

# ---- sizes ----
tm resize-window -t top -x 120 -y 40
last_line() { [ "$(screen | grep -n '^q quit' | cut -d: -f1)" = "$1" ]; }
check "a larger window is used" until_true 30 last_line 40
tm resize-window -t top -x 60 -y 12
check "a smaller one too" until_true 30 last_line 12
check "the totals are still there" until_true 30 shows '^txn/s '
tm resize-window -t top -x 80 -y 24

# ---- ways out ----
tm send-keys -t top q
check "q ends it" until_true 30 shows '^code 0'
check "the terminal is as it was" until_true 30 restored
top ""
until_true 30 shows '^txn/s '
kill -TERM "$(pid_of_top)"
check "a signal ends it" until_true 30 shows '^code 0'
check "and the terminal is as it was" until_true 30 restored
top ""
until_true 30 shows '^txn/s '
tm send-keys -t top C-c
check "Ctrl-C ends it" until_true 30 shows '^code 0'
check "and leaves the terminal as it was" until_true 30 restored
top ""
until_true 30 shows '^txn/s '
kill -SEGV "$(pid_of_top)"
check "a crash ends it" until_true 30 shows '^code 139'
check "and leaves the terminal as it was, too" until_true 30 restored

# ---- other terminals ----
coloured() { tm capture-pane -p -e -t top | grep -q $'\e\\[[0-9;]*3[0-7]m'; }
top ""
until_true 30 shows '^PROJECTION'
check "headings have a colour" until_true 30 coloured
for plain in NO_COLOR=1 TERM=vt100; do
    top "$plain LC_ALL=C"
    check "$plain: it is all there" until_true 30 shows '^first +[a-z]+ +[0-9]+ '
    check "$plain: without colours" sh -c "! tmux -u -S '$TMP/tmux' capture-pane -p -e -t top | grep -q '\\[[0-9;]*3[0-7]m'"
    check "$plain: curves are ASCII there" until_true 30 shows '^txn/s .*[.:=+*%#-]$'
done
tm kill-session -t top

# A dumb one has no screen: nothing is written but what to do.
for none in TERM=dumb TERM=nonsense; do
    top "$none"
    check "$none: it says what to do" until_true 30 shows '^azoth: top: the terminal (dumb|nonsense) has no screen'
    check "$none: and that is all" until_true 30 shows '^code 2'
    check "$none: no frame was begun" lacks '^txn/s'
done

# ---- stopped by its shell ----
tm kill-session -t top
tm new-session -d -s top -x 80 -y 24 "env PS1='at rest> ' bash --norc -i"
tm send-keys -t top "'$AZOTH' top --interval 100ms" Enter
until_true 30 shows '^txn/s '
tm send-keys -t top C-z
check "Ctrl-Z gives the terminal back" until_true 30 shows '^at rest> '
check "as it was" [ "$(tm display-message -p -t top '#{alternate_on} #{cursor_flag}')" = "0 1" ]
tm send-keys -t top fg Enter
check "fg goes on" until_true 30 shows '^q quit'
tm resize-window -t top -x 200 -y 60
check "and with another window" until_true 30 last_line 60
tm send-keys -t top q
until_true 30 lacks '^q quit'
tm kill-session -t top

# ---- as text ----
exits "without a terminal it says what to do" 2 "--once prints one frame" azoth top
COLUMNS=100 azoth top --once --interval 300ms >"$TMP/once"
check "--once prints a frame" grep -q '^first ' "$TMP/once"
check "with rates" grep -Eq '^txn/s [1-9]' "$TMP/once"
check "no wider than it was told" sh -c "[ \$(COLUMNS=60 '$AZOTH' top --once --interval 100ms | wc -L) -le 60 ]"
check "as plain text" sh -c "! grep -q '[[:cntrl:]]' '$TMP/once'"
touch "$TMP/enough"
checks_end

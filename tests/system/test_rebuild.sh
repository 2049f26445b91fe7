#!/bin/bash
# azoth projection rebuild, generations, rollback --generation, prune: with a projector and without.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
projections=$AZOTH_DIR/projections
commit() { azoth tx --embedded "{\"events\":[$1]}" >/dev/null; }
event() { printf '{"type":"%s","key":"k%s","data":{"v":%s}}' "$1" "$2" "$2"; }
define() { # FACTOR MARKS
    printf -- '-- azoth: projection p\n%b-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER NOT NULL CHECK (v > 0));\n-- azoth: on a\nINSERT INTO t VALUES (@id, :v * %s);\n' "${2:-}" "$1" >"$projections/p.sql"
}
once() { timeout 20 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" --once p "$@" >>"$TMP/projector.log" 2>&1; }
rows() { azoth query p 'SELECT count(*), sum(v) FROM t' --json | jq -r 'map(.) | join(" ")' 2>/dev/null ||
    azoth query p 'SELECT count(*), sum(v) FROM t' | sed 1d | tr '\t' ' '; }
generation() { readlink "$projections/p.db"; }
rebuild() { azoth projection rebuild p "$@"; }
files() { (cd "$projections" && echo *) ; }

# ---- without a projector ----
define 1
commit "$(event a 1),$(event b 2),$(event a 3)"
exits "what has no file yet is built as well" 0 "p: generation 1 serves: events 1 to 3" rebuild
says "its log lies beside it, for those who may not make one" 0 "$(stat -c %s "$projections/p.g1.db-wal")"
says "with the rows of the log" "2 4" "$(rows)"
exits "and is what a projector goes on with" 0 "events 1 to 3: its 2 handled" azoth verify --projection p
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
commit "$(event a 5)"
check "a projector follows it" once
says "at the next event" "3 9" "$(rows)"

define 10
once
says "changed handlers are refused, with what to do" "100 1" \
    "$? $(grep -c 'azoth projection rebuild p makes them anew beside these' "$TMP/projector.log")"
exits "a rebuild makes the rows anew" 0 "p: generation 2 serves: events 1 to 4" rebuild
says "as the new handlers do" "3 90 p.g2.db" "$(rows) $(generation)"
says "the account is the new file's" '[true,4,3]' "$(azoth verify --projection p --json | jq -c '.projections[0] | [.ok, .cursor, .handled]')"
says "the old one is kept" "p.db p.g1.db p.g2.db p.last p.lock p.rebuild.lock p.sql" "$(files | tr ' ' '\n' | grep -v -e '-wal$' -e '-shm$' | xargs)"
check "a projector goes on with the new file" once
says "generations lists both" '[[1,false,false,4],[2,true,true,4]]' \
    "$(azoth projection generations p --json | jq -c '[.generations[] | [.generation, .serves, .current_handlers, .cursor]]')"
exits "generations for people" 0 "p                             2 serves            4 current" azoth projection generations p

exits "going back to other handlers' rows is refused" 1 "put the definition of that time back first" azoth projection rollback p --generation
says "and changes nothing" "p.g2.db" "$(generation)"
define 1
exits "with their definition it is done" 0 "p: generation 1 serves" azoth projection rollback p --generation
says "the rows of that time are back" "3 9 p.g1.db" "$(rows) $(generation)"
exits "to one that is not there" 1 "(AZOTH_ERR_NOT_FOUND)" azoth projection rollback p --generation 7
exits "before the first there is none" 1 "there is no generation before 1" azoth projection rollback p --generation
exits "prune removes what does not serve" 0 "1 removed" azoth projection prune p
says "and nothing else" "p.db p.g1.db" "$(files | tr ' ' '\n' | grep '\.db$' | xargs)"
touch "$projections/p.g18446744073709551615.db" # none of ours: there is no number after it
check "a log is left of a generation that was pruned" sh -c "sqlite3 '$TMP/stranger.db' \"PRAGMA journal_mode = WAL; CREATE TABLE stranger (x);\" '.shell cp $TMP/stranger.db-wal $projections/p.g2.db-wal' >/dev/null"
exits "numbers go on where they were" 0 "generation 2 serves" rebuild
says "without what is in that log" "3 9" "$(rows)"

if [ "$(id -u)" = 0 ]; then
    chown 65534 "$projections" && rm "$projections/p.rebuild.lock"
    exits "the superuser rebuilds it" 0 "generation 3 serves" rebuild
    says "for whom the directory is" "65534" "$(stat -c %u "$projections"/p.g3.db* "$projections/p.rebuild.lock" | sort -u)"
    exits "and goes back" 0 "generation 2 serves" azoth projection rollback p --generation
    exits "and prunes" 0 "2 removed" azoth projection prune p
    chown 0 "$projections"
fi

# ---- a mistake, an interruption ----
define 1 '-- azoth: on-error fail-fast\n'
commit "$(event a 0),$(event a 6)"
exits "a handler that fails ends it, the old file serves" 1 "event 5 (a): " rebuild
says "and what is built stays" "p.g2.db 1" "$(generation) $(ls "$projections/p.rebuild.db" | wc -l)"
exits "which is no generation to go back to" 2 "--generation is a number from 1" azoth projection rollback p --generation 0
ln "$projections/p.rebuild.db" "$projections/p.g3.db" # as one that dies while it adopts leaves it
exits "nor is it under the name that it was to get" 1 "is not built to its end yet" azoth projection rollback p --generation 3
rm "$projections/p.g3.db"
define nonsense
exits "a mistake in the definition is told before anything is done" 1 "p.sql:5:" rebuild
says "what was built is still there" 1 "$(ls "$projections/p.rebuild.db" | wc -l)"
exits "abort wants no valid definition, and removes it" 0 "what was being built is removed" rebuild --abort
exits "once" 0 "nothing was being built" rebuild --abort
define 1 '-- azoth: on-error dead-letter\n'
exits "another strategy gets past it" 0 "p: generation 3 serves: events 1 to 6" rebuild
says "with its dead letter" "1" "$(azoth dlq list p --json | wc -l)"
exits "effects are not done again" 2 "effects are not rebuilt" sh -c "printf -- '-- azoth: projection e\n-- azoth: effects true\n-- azoth: on a\n' >'$projections/e.sql'; '$BUILD/azoth' projection rebuild e"
rm -f "$projections/e.sql"
printf -- '-- azoth: projection g\n-- azoth: target postgresql\n-- azoth: on a\nSELECT 1;\n' >"$projections/g.sql"
exits "nor are rows in PostgreSQL beside others" 2 "only SQLite files are filled" azoth projection rebuild g
says "and nothing is left of trying" "g.sql" "$(cd "$projections" && echo g.*)"
exits "which have no generations" 2 "keeps no generations" azoth projection generations g
exits "to remove or go back to" 2 "keeps no generations" azoth projection prune g
rm -f "$projections/g.sql"
exits "abort is of all shards" 2 "of all shards" rebuild --abort --shards 2
exits "of nothing" 1 "(AZOTH_ERR_PROJECTION)" azoth projection rebuild nobody
exits "flags of others are refused" 2 "are of rebuild" azoth projection history p --abort

# ---- beside a projector that runs ----
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>>"$TMP/live.log" & live=$!; pids+=($live)
check "the projector runs" until_true 20 grep -q 'ready projection=p' "$TMP/live.log"
sqlite3 -readonly "$projections/p.db" >"$TMP/reader.out" 2>&1 <<END & reader=$!
BEGIN;
SELECT count(*) FROM t;
.shell touch $TMP/reading; while [ ! -e $TMP/swapped ]; do sleep 0.02; done
SELECT count(*) FROM t;
COMMIT;
END
pids+=($reader)
check "a reader has the old file open" until_true 20 test -e "$TMP/reading"
define 100 '-- azoth: on-error dead-letter\n'
exits "the projector adopts the new file" 0 "p: generation 4 serves: events 1 to 6" rebuild --timeout 20
commit "$(event a 7)"
check "and follows it with the new definition" until_true 20 sh -c "[ \"\$('$BUILD/azoth' query p 'SELECT max(v) FROM t' | sed 1d)\" = 700 ]"
touch "$TMP/swapped"; wait $reader
says "the reader went on with the old one" "4 4" "$(xargs <"$TMP/reader.out")"
says "it is the same process" "1 2" "$(kill -0 $live && echo 1) $(grep -c 'ready projection=p' "$TMP/live.log")"
exits "its rows are proved" 0 "p: events 1 to 7: its 6 handled" azoth verify --projection p
exits "rollback asks it too" 1 "put the definition of that time back first" azoth projection rollback p --generation 3
exits "and prune" 0 "removed" azoth projection prune p
says "json tells of the generation" '[5,1,7]' "$(rebuild --json | jq -c '.shards[0] | [.generation, .from, .cursor]')"
check "it has opened the fifth" until_true 20 sh -c "[ \$(grep -c 'ready projection=p' '$TMP/live.log') = 3 ]"
kill -STOP $live
exits "a projector that does not answer is told of, with nothing unknown" 3 "the projector does not answer" rebuild --timeout 0.3
kill -CONT $live
exits "it adopts when it does again" 0 "serves at event 7" rebuild
cat >"$TMP/waits.py" <<'P' # LOCK MARK: has the lock as soon as it is left, and until it is killed
import fcntl, os, struct, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, 38, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 1, 0)) # F_OFD_SETLKW
open(sys.argv[2], 'w')
time.sleep(60)
P
python3 "$TMP/waits.py" "$projections/p.lock" "$TMP/locked" & waits=$!; pids+=($waits)
rebuild_until_locked() { rebuild --quiet >"$TMP/out" 2>&1 || return 1; until_true 1 test -e "$TMP/locked"; }
check "somebody takes the lock while the projector opens the new file" until_true 20 rebuild_until_locked
check "which waits for it" until_true 20 grep -q 'waiting: .*p.lock: another process projects into it' "$TMP/live.log"
before=$(grep -c 'ready projection=p' "$TMP/live.log")
kill $waits; wait $waits 2>/dev/null
ready_again() { [ "$(grep -c 'ready projection=p' "$TMP/live.log")" -gt "$before" ]; }
check "and goes on" until_true 20 ready_again
exits "one at a time" 1 "another process rebuilds it" sh -c "exec 9<>'$projections/p.rebuild.lock'; python3 - '$BUILD/azoth' <<'P'
import fcntl, struct, subprocess, sys
fcntl.fcntl(9, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 1, 0)) # F_OFD_SETLK
sys.exit(subprocess.call([sys.argv[1], 'projection', 'rebuild', 'p'], close_fds=True))
P"
kill $live; wait $live 2>/dev/null

# ---- a projector that starts while a command has the lock ----
rm "$TMP/locked"
python3 "$TMP/waits.py" "$projections/p.lock" "$TMP/locked" & waits=$!; pids+=($waits)
check "a command has the lock" until_true 20 test -e "$TMP/locked"
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" p 2>"$TMP/starts.log" & live=$!; pids+=($live)
check "a projector that starts waits for it" until_true 20 grep -q 'waiting: .*p.lock: another process projects into it' "$TMP/starts.log"
kill $waits; wait $waits 2>/dev/null
check "and starts" until_true 20 grep -q 'ready projection=p' "$TMP/starts.log"
kill $live; wait $live 2>/dev/null

# ---- a projector that goes away while it is asked ----
cat >"$TMP/goes.py" <<'P' # SOCKET MARK [ANSWER]: hears one command, answers or not, and is gone
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1])
s.listen(1)
open(sys.argv[2], 'w')
c = s.accept()[0]
c.recv(1000)
if sys.argv[3:]: c.send(sys.argv[3].encode())
os.unlink(sys.argv[1])
P
goes() { rm -f "$TMP/listens"; python3 "$TMP/goes.py" "$AZOTH_DIR/run/dlq-p.sock" "$TMP/listens" "$@" & pids+=($!); until_true 20 test -e "$TMP/listens"; }
exits "what holds the lock and cannot be asked is waited for as long as is said" 3 "who projects p does not listen in" \
    timeout 10 python3 - "$BUILD/azoth" "$projections/p.lock" <<'P'
import fcntl, os, struct, subprocess, sys
fcntl.fcntl(os.open(sys.argv[2], os.O_RDWR), 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 1, 0)) # F_OFD_SETLK
sys.exit(subprocess.call([sys.argv[1], 'projection', 'rebuild', 'p', '--timeout', '1']))
P
check "one goes" goes
exits "a rebuild goes on without it" 0 "serves at event 7: nothing was left to apply" rebuild
check "one goes" goes
exits "prune as well" 0 " removed" azoth projection prune p
check "one opens another file, and goes" goes "refused -5 another file serves: ask again"
exits "a dead letter is dropped without it" 0 "event 5: dropped" azoth dlq drop p 5

# ---- shards ----
define 200 '-- azoth: on-error dead-letter\n'
exits "into three files" 0 "these are other files than the 1" rebuild --shards 3
says "each with its own" "p.0of3.g1.db p.1of3.g1.db p.2of3.g1.db" "$(cd "$projections" && readlink p.?of3.db | xargs)"
says "which are read as one" "5 4400" "$(rows)"
touch "$projections/$(generation)" # as a projector of the old one that gives back its log's space
says "also when the old file is written to" "5 4400" "$(rows)"
exits "and proved one by one" 0 "p.2of3: events 1 to 7" azoth verify --projection p
exits "rebuilt in as many" 0 "p.0of3: generation 2 serves" rebuild
python3 "$TMP/waits.py" "$projections/p.1of3.lock" "$TMP/locked1" & waits=$!; pids+=($waits)
check "somebody holds the second of them" until_true 20 test -e "$TMP/locked1"
exits "a rebuild that ends between two says which went over" 3 "p.0of3: generation 3 serves already" rebuild --timeout 0.1
kill $waits; wait $waits 2>/dev/null
exits "the next one takes over the others, too" 0 "p.2of3: generation 3 serves" rebuild
says "which are read as one again" "5 4400" "$(rows)"
exits "too many" 2 "--shards is 1 to 10" rebuild --shards 11
define 1 '-- azoth: shards 2\n'
exits "another number than the definition's" 1 "says 2 shards" rebuild --shards 3

# ---- handlers in C ----
cat >"$TMP/times.c" <<'C'
#include "azoth_projection.h"
#include <sqlite3.h>
static int put(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev, struct azoth_projection_fail *f)
{
    char sql[100];
    (void)state;
    sqlite3_snprintf(sizeof sql, sql, "INSERT INTO t VALUES (%lld, %d)", (long long)ev->id, VERSION);
    return sqlite3_exec(db, sql, 0, 0, 0) ? f->sqlite(f) : 0;
}
static const struct azoth_projection_handler handlers[] = {{.type = "a", .event = put}};
static const struct azoth_projection projections[] = {{.name = "c", .version = VERSION, .handlers = 1, .handler = handlers}};
const struct azoth_projection_library *azoth_projections(void)
{
    static const struct azoth_projection_library library = {AZOTH_PROJECTION_ABI, 1, projections};
    return &library;
}
C
library() { cc -shared -fPIC -DVERSION="$1" -I"$root/client" -I"$root/core" "$TMP/times.c" -o "$TMP/new.so" && mv "$TMP/new.so" "$projections/times.so"; }
printf -- '-- azoth: projection c\n-- azoth: load times.so\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER);\n-- azoth: on a in C\n' >"$projections/c.sql"
check "a library of handlers" library 1
"$BUILD/azoth-projector" --dir "$AZOTH_DIR" c 2>>"$TMP/c.log" & live=$!; pids+=($live)
check "its projector runs" until_true 20 grep -q 'ready projection=c' "$TMP/c.log"
check "and is at the head" azoth lag c --wait --timeout 20
check "another version of it" library 2
says "generations knows that other handlers made the rows" false "$(azoth projection generations c --json | jq '.generations[0].current_handlers')"
exits "is what a rebuild uses" 0 "c: generation 2 serves" azoth projection rebuild c --timeout 20
commit "$(event a 9)"
check "and then the projector that runs" until_true 20 sh -c "[ \"\$('$BUILD/azoth' query c 'SELECT min(v), max(v), max(id) FROM t' --json)\" = '{\"min(v)\":2,\"max(v)\":2,\"max(id)\":8}' ]"
kill $live; wait $live 2>/dev/null
exits "back to rows of other handlers is refused" 1 "put the definition of that time back first" azoth projection rollback c --generation

# ---- under azoth run ----
kill "${pids[0]}"; wait "${pids[0]}" 2>/dev/null
rm "$projections"/*
define 1 '-- azoth: on-error dead-letter\n'
"$BUILD/azoth" run --workers 1 2>"$TMP/run.log" >/dev/null </dev/null & run=$!; pids+=($run)
check "azoth run starts it" until_true 30 grep -q 'running: .*4 of 4 processes ready' "$TMP/run.log"
check "it is projected" azoth lag p --wait --timeout 20
kill $run; wait $run 2>/dev/null
define 1000 '-- azoth: on-error dead-letter\n'
"$BUILD/azoth" run --workers 1 2>"$TMP/run.log" >/dev/null </dev/null & run=$!; pids+=($run)
check "with other handlers its projector fails for good" until_true 30 grep -q 'projector-p is not started again' "$TMP/run.log"
exits "a rebuild under it" 0 "p: generation 2 serves" rebuild
check "and the projector is started again by itself" until_true 20 grep -q 'projector-p is started again: its files have changed' "$TMP/run.log"
azoth tx "{\"events\":[$(event a 11)]}" >/dev/null
check "which follows" azoth lag p --wait --timeout 20
says "with the new handlers" "11000" "$(azoth query p 'SELECT max(v) FROM t' | sed 1d)"
kill $run; wait $run; rc=$?
says "azoth run ends in order" 0 $rc

checks_end

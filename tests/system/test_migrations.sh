#!/bin/bash
# azoth projection new, history, plan, migrate, rollback: what they do, what they refuse, and that what is
# refused or tried has changed nothing.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
sql=$AZOTH_DIR/projections/p.sql
project() { timeout 20 "$BUILD/azoth-projector" --dir "$AZOTH_DIR" --once "$@" p; }
versions() { azoth projection history p | tail -n +2 | cut -f1 | xargs; }
define() { # MIGRATIONS
    { echo '-- azoth: projection p'; printf '%b' "$1"
      printf -- '-- azoth: on put\nINSERT INTO t (id) VALUES (@id);\n'; } >"$sql"
}
ONE='-- azoth: migration 1 make t\nCREATE TABLE t (id INTEGER PRIMARY KEY);\n'
TWO='-- azoth: migration 2 index it\nCREATE INDEX t_id ON t (id);\n-- azoth: undo\nDROP INDEX t_id;\n'
FOUR='-- azoth: migration 4 one more column\nALTER TABLE t ADD COLUMN v;\n-- azoth: undo\nALTER TABLE t DROP COLUMN v;\n'

exits "new writes a definition" 0 "projections/first-one.sql" azoth projection new first-one
exits "it is valid" 0 "ok" azoth projection check "$AZOTH_DIR/projections/first-one.sql"
exits "it is not written over" 2 "is there already" azoth projection new first-one
exits "a bad name is refused" 2 "no name of a projection" azoth projection new 1/2
rm "$AZOTH_DIR/projections/first-one.sql"

define "$ONE$TWO"
exits "nothing is planned for a file that is not there yet" 1 "there is no such file yet" azoth projection plan p
azoth tx --embedded '{"events":[{"type":"put","data":{}},{"type":"put","data":{}}]}' >/dev/null
"$BUILD/azoth-feed" --dir "$AZOTH_DIR" 2>"$TMP/feed.log" & pids+=($!)
check "the projector applies them" project 2>"$TMP/out"
says "history tells both" "1 2" "$(versions)"
says "with title, time and checksum" "index it true 16" \
    "$(azoth projection history p --json | tail -1 | jq -r '"\(.title) \(.applied | test("^20[0-9-]+T[0-9:]+Z$")) \(.checksum | length)"')"
exits "nothing is pending" 0 "nothing is pending" azoth projection plan p

define "$ONE$TWO$FOUR"
exits "plan tells what is pending" 0 "would apply migration 4 one more column" azoth projection plan p
says "and applies nothing" "1 2" "$(versions)"
define "$ONE$TWO$FOUR-- azoth: migration 5 no such table\nDROP TABLE nowhere;\n"
exits "plan finds what fails, with its line" 1 "p.sql:13:12: no such table: nowhere" azoth projection plan p
says "and nothing was changed" "1 2" "$(versions)"
exits "migrate applies what comes before it" 1 "applied migration 4" azoth projection migrate p
says "each is a transaction of its own" "1 2 4" "$(versions)"
define "$ONE$TWO-- azoth: migration 3 late\nCREATE TABLE late (x);\n$FOUR"
exits "a lower one that is new is refused by its number" 1 "migration 3 comes late: 4 has been applied" azoth projection migrate p
define "$ONE${TWO/t_id ON/t_ie ON}$FOUR"
exits "a changed one is refused by its number" 1 "migration 2 was changed after it had been applied" azoth projection migrate p
define "$ONE$TWO$TWO$FOUR"
exits "one that is there twice is refused" 1 "migration 2 is there twice" azoth projection migrate p

define "$ONE$TWO$FOUR"
exits "a rollback over one without undo is refused" 1 "migration 1 has no undo" azoth projection rollback p --to 0
says "before anything is undone" "1 2 4" "$(versions)"
exits "rollback undoes the newest" 0 "undone: migration 4" azoth projection rollback p
says "with its history" "1 2" "$(versions)"
exits "the projector does not go on over it" 100 "handlers differ" project
exits "as long as it is not told to" 0 "stopped" project --accept-changed
says "it has applied the migration again" "1 2 4" "$(versions)"
says "the rows are there once" 2 "$(azoth query p 'SELECT count(*) FROM t' | tail -1)"
exits "--to undoes all above" 0 "undone: migration 2" azoth projection rollback p --to 1
says "in one call" "1" "$(versions)"
exits "there is nothing above" 1 "nothing to roll back" azoth projection rollback p --to 1
says "JSON tells what was done" '["2","4"] true' \
    "$(azoth projection migrate p --json | jq -rc '"\(.applied | map(.version | tostring)) \(.ok)"')"

"$BUILD/azoth-projector" --dir "$AZOTH_DIR" --accept-changed p 2>"$TMP/projector.log" & pids+=($!)
check "a projector follows" azoth lag p --wait --timeout 20 >"$TMP/out"
exits "beside a projector that runs nothing is migrated" 2 "its projector runs: stop it first" azoth projection migrate p
exits "--to is of rollback alone" 2 "--to is of rollback" azoth projection plan p --to 1
exits "another word is no command" 2 "there is no projection frob" azoth projection frob p

checks_end

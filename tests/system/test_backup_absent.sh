#!/bin/bash
# What a backup can not have is named where somebody looks: rows on a PostgreSQL server, of which the definition alone tells, and which is
# not asked, and projections without a file.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
printf '[writer]\nreserve = 1M\n' >"$AZOTH_DIR/azoth.conf"
define() { printf -- '-- azoth: projection %s\n%s-- azoth: migration 1 t\nCREATE TABLE t (id bigint);\n-- azoth: on a\nINSERT INTO t VALUES (:v);\n' "$1" "$2" >"$AZOTH_DIR/projections/$1.sql"; }
define reports $'-- azoth: target postgresql host=/nowhere/at/all password=secret77\n'
define q ""
define p ""
for i in 1 2 3; do echo '{"add":{"n":1},"events":[{"type":"a","data":{"v":1}}]}'; done | azoth tx --embedded - >/dev/null
exits "one has rows" 0 "events 1 to 3" azoth projection rebuild p --quiet
why="its rows are in PostgreSQL: keep a pg_dump of its schema, or let its projector make them anew from the log after a restore"
absent='.absent | map("\(.name): \(.why)") | sort | join("\n")'
all=$(printf 'q: it has no file yet\nreports: %s' "$why")

exits "a backup says what is not in it" 0 "not in it: reports: $why" azoth backup "$TMP/dest"
check "of another one likewise" grep -qF "not in it: q: it has no file yet" "$TMP/out"
says "as JSON does" "$all" "$(azoth backup --json "$TMP/dest" | jq -r "$absent")"
azoth backup --plain "$TMP/plain" >"$TMP/out"
says "so it stands in the backup" "$all" "$(jq -r "$absent" "$TMP/plain/about.json")"
says "with the definition" "$(b2sum <"$AZOTH_DIR/projections/reports.sql")" "$(b2sum <"$TMP/plain/projections/reports.sql")"
newest=$(ls "$TMP/dest"/*-000002-*)
exits "list says it of the newest" 0 "not in $(basename "$newest"): reports: $why" azoth backup list "$TMP/dest"
says "of that alone" 2 "$(grep -c '^not in' "$TMP/out")"
says "as JSON of each" "$all"$'\n'"$all" "$(azoth backup list --json "$TMP/dest" | jq -r ".[] | $absent")"
exits "a restore says it" 0 "not in it  reports: $why" azoth restore "$TMP/dest" "$TMP/new"
says "and its JSON" "$all" "$(azoth restore --json "$TMP/dest" "$TMP/new2" | jq -r "$absent")"
says "the definition comes back" "$(b2sum <"$AZOTH_DIR/projections/reports.sql")" "$(b2sum <"$TMP/new/projections/reports.sql")"
exits "which is all that verify --deep wants" 0 "restored to event 3" azoth backup verify --deep --tmp "$TMP" "$TMP/dest"
exits "a sealed one says it, too" 0 "not in it: reports: $why" azoth backup --sealed "$TMP/sealed"
says "what a server is reached with is told nowhere" 0 "$( (azoth backup list --json "$TMP/dest"; azoth backup list "$TMP/dest"; cat "$TMP/plain/about.json" "$TMP/out") | grep -c secret77)"
checks_end

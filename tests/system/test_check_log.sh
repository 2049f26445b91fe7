#!/bin/bash
# azoth projection check --against-log: that each way in which a definition and the log do not fit is told at its
# place, that what fits is accepted, and that it looks at the newest events and no further than it must.
. "$(dirname "$0")/checks.sh"
export AZOTH_DIR=$TMP/db
azoth init "$AZOTH_DIR" >/dev/null
commit() { azoth tx --embedded "{\"events\":[$1]}" >/dev/null; }
event() { printf '{"type":"%s","data":%s}' "$1" "$2"; }
many() { # N TYPE DATA
    local one list
    one=$(event "$2" "$3")
    list=$(printf "$one,%.0s" $(seq "$1"))
    commit "${list%,}"
}
F=$TMP/p.sql
define() { # MARKS TYPES SQL
    printf -- '-- azoth: projection p\n%b-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER, v);\n-- azoth: on %s\n%b\n' "$1" "$2" "$3" >"$F"
}
compare() { azoth projection check "$F" --against-log "$@"; }

define '' 'created' 'INSERT INTO t VALUES (@id,\n  :amount);'
exits "of a type without an event that is said" 0 "p.sql:4:14: warning: there is no \"created\" in the log so far" compare
says "and it is in order all the same" "$F: ok, with 1 warning" "$(compare 2>/dev/null)"
many 20 created '{"amount":5,"account":"a"}'
exits "fields that all have are accepted" 0 "$F: ok" compare
says "with nothing more to say" "$F: ok" "$(compare 2>&1)"
define '' 'created' "-- :amont\nINSERT INTO t VALUES (@id, /* :amont */ ':amont');\nINSERT INTO t VALUES (@id,\n  :amont);"
exits "a field that none has is an error, at its place" 1 \
    "p.sql:8:3: no \"created\" of 20 looked at has a field \"amont\"; they have account, amount; is amount meant? (AZOTH_ERR_PROJECTION)" compare
exits "without the log there is nothing wrong" 0 "$F: ok" azoth projection check "$F"
says "JSON has the place" "false p.sql 8 3 error" \
    "$(compare --json 2>/dev/null | jq -r '"\(.ok) \(.findings[0] | "\(.file | sub(".*/"; "")) \(.line) \(.column) \(.severity)")"')"

define '' 'created' 'INSERT INTO t VALUES (@id, :amount), (:account, 1);'
commit "$(event created '{"amount":"7","account":"b"}'),$(event created '{"amount":null}'),$(event created '[1]'),$(event created '{"amount":1.5,"account":"c"}')"
exits "a field that some have not is a warning with the newest of them" 0 \
    "p.sql:5:39: warning: 1 of 23 \"created\" looked at (4.3 %) have no field \"account\", the newest is event 22: the handler fails there" compare
exits "a field of two kinds is a warning" 0 "p.sql:5:28: warning: field \"amount\" of \"created\" is a string in 1, a number in 21 of the events looked at" compare
exits "payloads that are no object are one" 0 "p.sql:5:28: warning: the payload of 1 of 24 \"created\" looked at is no JSON object, the newest is event 23" compare
exits "of the newest alone" 0 "no JSON object" compare --events 2
says "and of no older ones" "1" "$(compare --events 2 2>&1 >/dev/null | wc -l)"
says "of none when the newest has all" "$F: ok" "$(compare --events 1 2>&1)"
exits "0 is all" 0 "1 of 23" compare --events 0

commit "$(event raw '"text"'),$(event raw 1)"
define '' 'raw' 'INSERT INTO t VALUES (@id, :v);'
exits "payloads of which none is an object are an error" 1 "p.sql:5:28: the payload of 2 of 2 \"raw\" looked at is no JSON object" compare
define '' 'raw' 'INSERT INTO t VALUES (@id, @payload);'
exits "unless no field is read" 0 "$F: ok" compare

define '' 'Created, creatde, raw' 'INSERT INTO t VALUES (@id, 1);'
exits "a type that differs by case is told" 0 "p.sql:4:14: hint: the log has \"created\" (24 seen), which no handler takes: is it meant by \"Created\"?" compare
exits "and one with swapped letters" 0 "p.sql:4:23: hint: the log has \"created\" (24 seen), which no handler takes: is it meant by \"creatde\"?" compare
many 2 raw2 '{}'
says "a number more is meant" "0" "$(compare 2>&1 | grep -c raw2)"

define '-- azoth: order-by :accoun\n-- azoth: shard-by :account\n' 'created, raw2' 'INSERT INTO t VALUES (@id, 1);'
exits "order-by has a field that none has" 1 "p.sql:2:20: no \"created\" of 23 looked at has a field \"accoun\"" compare
exits "shard-by one that some types have not" 1 "p.sql:3:20: warning: no \"raw2\" of 2 looked at has a field \"account\"; they have no fields" compare
define '' 'created, raw2' 'INSERT INTO t VALUES (@id, :amount);'
exits "each type of a handler is looked at by itself" 1 "p.sql:5:28: no \"raw2\" of 2 looked at has a field \"amount\"" compare

printf -- '-- azoth: projection p\n-- azoth: effects true\n-- azoth: order-by :accoun\n' >"$F"
exits "effects that take every type are compared with all" 1 "p.sql:3:20: no \"event\" of " compare
sed -i 's/:accoun$/:account/' "$F"
exits "what the newest have not is a warning" 0 "p.sql:3:20: warning: " compare

define '' 'created' 'INSERT INTO t VALUES (@id, :amont);\nINSERT INTO u VALUES (@what);'
compare >"$TMP/out" 2>&1
says "both kinds of errors are told, in order" "5:28 5:28 6:13" "$(grep -o 'p.sql:[0-9]*:[0-9]*' "$TMP/out" | cut -d: -f2- | xargs)"
exits "a file that is not there" 1 "there is no such file" azoth projection check "$TMP/q.sql" --against-log
exits "no database" 3 "AZOTH_ERR_NO_DATABASE" azoth projection check "$F" --against-log --dir "$TMP/nowhere"
exits "--events alone" 2 "--events goes with --against-log" azoth projection check "$F" --events 3
exits "of check alone" 2 "--against-log, --events and --target are of check" azoth projection plan p --against-log

# The stretches that it reads are of 10,000: events of a rare type lie in the oldest, and one more behind them.
define '' 'created' 'INSERT INTO t VALUES (@id, :amount);'
printf '{"events":[%s]}' "$(printf '{"type":"filler","data":0},%.0s' $(seq 12000) | sed 's/,$//')" >"$TMP/filler.json"
for i in 1 2; do azoth tx --embedded - <"$TMP/filler.json" >/dev/null; done
says "the filler is there" "24028" "$(azoth events --json 2>/dev/null | wc -l)"
commit "$(event created '{"amount":1}')"
exits "events far back are found" 0 "a string in 1, a number in 22" compare
says "but not when the newest are enough" "$F: ok" "$(compare --events 1 2>&1)"

checks_end

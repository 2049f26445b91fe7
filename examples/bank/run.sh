#!/bin/bash
# The whole system for ten seconds: a new database, `azoth run` with two workers and the bank's two
# projections, transfers from several clients, a live line, then an audit that compares what the
# clients were told with the store and with SQL. Exits non-zero when anything differs.
#   run.sh [SECONDS] [CLIENTS] [ACCOUNTS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${AZOTH_BUILD:-build}" && pwd)
seconds=${1:-10} clients=${2:-3} accounts=${3:-1000}
dir=$(mktemp -d "${TMPDIR:-/tmp}/azoth-bank-XXXXXX")
azoth="$build/azoth" bank="$build/examples/bank/bank"
system=
finish() {
    if [ -n "$system" ]; then kill "$system" 2>/dev/null || true; wait "$system" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT
export AZOTH_DIR=$dir

"$azoth" init "$dir"
mkdir -p "$dir/projections"
cp "$here"/accounts.sql "$here"/daily_totals.sql "$dir/projections/"
if [ -t 1 ]; then progress=; else progress=--progress; fi
"$azoth" run "$dir" --workers 2 $progress &
system=$!
endpoints="ipc://$dir/run/worker-1.sock,ipc://$dir/run/worker-2.sock"
"$bank" open "$endpoints" "$accounts"

loads=()
for i in $(seq "$clients"); do
    "$bank" load "$endpoints" "$accounts" "$seconds" 64 "$i" >"$dir/told-$i" &
    loads+=($!)
done
failed=0
for pid in "${loads[@]}"; do wait "$pid" || failed=1; done
"$azoth" lag --wait --timeout 30

told=$(cat "$dir"/told-* | awk '{n += $2} END {print n}')
refused=$(cat "$dir"/told-* | awk '{n += $4} END {print n}')
rate=$(cat "$dir"/told-* | awk '{r += $2 / $6} END {printf "%d", r}')
read -r _ sum _ count _ lowest _ events < <("$bank" audit "$dir")
sql_sum=$("$azoth" query accounts 'SELECT sum(balance) AS s FROM accounts' --json | jq -s 'flatten | .[0].s // .[0].rows[0].s // .[0].rows[0][0]')
sql_transfers=$("$azoth" query daily_totals 'SELECT sum(transfers) AS s FROM daily_totals' --json | jq -s 'flatten | .[0].s // .[0].rows[0].s // .[0].rows[0][0]')
echo
echo "a few rows of the projections:"
"$azoth" query accounts 'SELECT account, balance FROM accounts ORDER BY balance DESC LIMIT 5'
"$azoth" query daily_totals 'SELECT * FROM daily_totals'
echo
echo "transfers answered: $told committed ($rate a second), $refused refused for lack of money"

check() { # SENTENCE LEFT RIGHT
    if [ "$2" = "$3" ]; then echo "ok - $1 ($2)"; else echo "not ok - $1: $2 against $3"; failed=1; fi
}
check "the store holds every account" "$count" "$accounts"
check "the sum in the store is what was opened" "$sum" $((accounts * 1000))
check "the sum in SQL equals the store's" "$sql_sum" "$sum"
check "no account is below zero" "$((lowest >= 0))" 1
check "the log has one event for each answer" "$events" $((told + accounts))
check "SQL counted each transfer once" "$sql_transfers" "$told"
exit $failed

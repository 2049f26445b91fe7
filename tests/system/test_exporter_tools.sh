#!/bin/bash
# azoth-exporter with the programs that people use it with: promtool, Prometheus and a browser. Needs AZOTH_BUILD, jq
# and python3; what else is missing is skipped.
. "$(dirname "$0")/checks.sh"
. "$(dirname "$0")/exporter.sh"
rules=$root/systemd/azoth.rules.yml dashboard=$root/systemd/azoth-dashboard.json

make_database
# One that fails for good, with a text that is no markup.
cat >"$db/projections/broken.sql" <<'S'
-- azoth: projection broken
-- azoth: on-error fail-fast
-- azoth: migration 1 create
CREATE TABLE broken (id INTEGER PRIMARY KEY, n INTEGER CHECK (n < 0));
-- azoth: on added
INSERT INTO broken VALUES (@id, json_extract('{}', '<b id="evil">'));
S
start_exporter || exit 1
start writer azoth-writer; writer=$started
start feed azoth-feed
start projector azoth-projector seen
start broken azoth-projector broken
until_true 20 is azoth_up 1 || { echo "not ok - the writer starts"; exit 1; }
seconds() { get /status.json >/dev/null; jq -e "$1" "$TMP/body"; }
until_true 20 seconds '.recent.transactions_s | any(. != null)'
load() { for _ in $(seq 30); do add; done >"$TMP/out" 2>&1; azoth lag --dir "$db" seen --wait --timeout 20 >"$TMP/out" 2>&1; }
check "there is something to see" load
until_true 20 is 'azoth_projection_state{projection="broken",shard="0",shards="1",state="failed"}' 1
# Two who want the same key while the writer stands: the second one waits for the first.
bump() { azoth tx --dir "$db" --deadline 60 '{"add":{"hot/key":1}}'; }
waited() { [ "$(metric azoth_stripe_waits_total)" -ge 1 ]; }
kill -STOP "$writer"
bump >"$TMP/out" 2>&1 & first=$!
bump >"$TMP/second" 2>&1 & second=$!
pids+=("$first" "$second")
check "a wait for a stripe is seen" until_true 30 waited
kill -CONT "$writer"
wait "$first" "$second"
refused() { azoth tx --dir "$db" '{"require":[{"key":"hot/key","min":1000000}],"add":{"hot/key":1}}'; }
refused >"$TMP/out" 2>&1
check "and so is a refusal" until_true 20 is 'azoth_refusals_total{reason="min"}' 1
told() { get /status.json >/dev/null; jq -r "$1" "$TMP/body"; }
says "its key, and that it took time" "hot/key 1 true" "$(told '.stripes[0] | "\(.key) \(.waits) \(.wait_s > 0)"')"
check "each step has its times" until_true 20 seconds '.times | length == 5 and all(.[]; .count > 0 and .p99_s > 0 and .p50_s <= .p99_s)'
helper_looked() { is azoth_pins 0; }
check "the writer's helper sees that nobody holds a snapshot" until_true 20 helper_looked
check "the last seconds are kept" until_true 20 seconds '.recent | (.age_s | length >= 3) and any(.transactions_s[]; . != null and . > 0)
    and any(.commit_p99_s[]; . != null and . > 0)'
get /metrics >/dev/null
cp "$TMP/body" "$TMP/metrics"

# ---- names ----
# Histograms are named by their parts.
awk '/^# TYPE/ {if ($4 == "histogram") print $3 "_bucket\n" $3 "_sum\n" $3 "_count"; else print $3}' "$TMP/metrics" | sort -u >"$TMP/names"
for file in "$rules" "$dashboard"; do
    grep -oE '\bazoth_[a-z_]+' "$file" | sort -u >"$TMP/used"
    check "$(basename "$file") uses metrics" test "$(wc -l <"$TMP/used")" -ge 10
    says "and only those that there are" "" "$(comm -23 "$TMP/used" "$TMP/names" | xargs)"
done
says "the dashboard is JSON with panels" true "$(jq '(.panels | length) > 10 and all(.panels[]; (.targets | length) > 0)' "$dashboard")"
says "the cases of the alerts name every alert" "" "$(comm -23 <(sed -n 's/ *- alert: //p' "$rules" | sort) \
    <(grep -oE 'alertname: Azoth[A-Za-z]+' "$root/tests/system/azoth.rules.test.yml" | sed 's/.* //' | sort -u) | xargs)"
# Both ways: an alert that the operations guide does not explain, and one that it explains though there is none.
guide_alerts() { sed -n '/^## Alerts/,/^## Restoring/s/^| \(Azoth[A-Za-z]*\) |.*/\1/p' "$root/systemd/README.md"; }
check "the operations guide tells what to do at alerts" test "$(guide_alerts | wc -l)" -ge 10
check "of each that there is, in their order, and of no other" diff <(sed -n 's/ *- alert: //p' "$rules") <(guide_alerts)

# ---- promtool ----
if command -v promtool >/dev/null; then
    check "promtool finds nothing in the metrics" sh -c "promtool check metrics <'$TMP/metrics' >'$TMP/out' 2>&1 && test ! -s '$TMP/out'"
    check "promtool accepts the alerts" sh -c "promtool check rules '$rules' >'$TMP/out' 2>&1"
    check "each alert fires on what it is for, and not before" sh -c "promtool test rules '$root/tests/system/azoth.rules.test.yml' >'$TMP/out' 2>&1"
else
    echo "skip - promtool is not installed: metrics and alerts"
fi

# ---- Prometheus ----
exporter_port=$port
start_prometheus() {
    local tries
    for tries in 1 2 3; do
        port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
        prometheus --config.file="$TMP/prometheus.yml" --storage.tsdb.path="$TMP/tsdb" \
            --web.listen-address="127.0.0.1:$port" >"$TMP/prometheus.log" 2>&1 &
        prometheus=$!
        pids+=("$prometheus")
        until_true 30 sh -c "grep -q 'Server is ready' '$TMP/prometheus.log' || ! kill -0 $prometheus"
        kill -0 "$prometheus" 2>/dev/null && return 0 # else the port was taken meanwhile: another
    done
    tail -3 "$TMP/prometheus.log"
    return 1
}
# asked QUERY JQ: what Prometheus answers, through a filter.
asked() { get "/api/v1/query?query=$(jq -rn --arg q "$1" '$q | @uri')" >/dev/null; jq -r "$2" "$TMP/body"; }
counts() { [ "$(asked "$1" '.data.result | length')" = "$2" ]; }
if command -v prometheus >/dev/null; then
    cat >"$TMP/prometheus.yml" <<Y
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$rules"]
scrape_configs:
  - job_name: azoth
    static_configs: [{targets: ["127.0.0.1:$exporter_port"]}]
Y
    check "Prometheus starts" start_prometheus
    check "it scrapes the exporter" until_true 30 counts 'up{job="azoth"} == 1' 1
    check "it has the lag of both projections" until_true 30 counts azoth_projection_lag_events 2
    says "with its labels" "seen 0 1" "$(asked 'azoth_projection_lag_events{projection="seen"}' '.data.result[0].metric | "\(.projection) \(.shard) \(.shards)"')"
    says "and its value" 30 "$(asked 'azoth_projection_lag_events{projection="broken"}' '.data.result[0].value[1]')"
    check "quantiles come from the histogram" until_true 30 counts 'histogram_quantile(0.99, azoth_commit_duration_seconds_bucket) > 0' 1
    check "the alert on the one that failed is on its way" until_true 30 counts 'ALERTS{alertname="AzothProjectionFailed",projection="broken"}' 1
    # What Grafana puts in for its variables.
    jq -r '.panels[].targets[].expr | gsub("\\$__rate_interval"; "1m") | gsub("\\$instance"; ".*")' "$dashboard" >"$TMP/queries"
    while read -r query; do
        asked "$query" '.status' | grep -qx success || echo "$query"
    done <"$TMP/queries" >"$TMP/bad"
    says "Prometheus understands each of the dashboard's $(wc -l <"$TMP/queries") queries" "" "$(cat "$TMP/bad")"
    get /api/v1/targets >/dev/null
    says "no scrape had an error" "" "$(jq -r '.data.activeTargets[].lastError' "$TMP/body")"
    kill "$prometheus"
    wait "$prometheus" 2>/dev/null
else
    echo "skip - prometheus is not installed: a scrape"
fi
port=$exporter_port

# ---- a browser ----
# The time of the page runs ahead: so many milliseconds of it, at most.
browse() { # ARG...
    HOME=$TMP timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-breakpad \
        --disable-background-networking --disable-component-update --disable-sync --user-data-dir="$TMP/chromium" \
        --virtual-time-budget=6000 --hide-scrollbars "$@" "http://127.0.0.1:$port/" 2>"$TMP/chromium.log"
}
# has FILTER...: the page's DOM through python's parser: ELEMENT#ID of text, or a path of a plot.
has() { python3 - "$TMP/dom" "$@" <<'P'
import html.parser, re, sys
class Page(html.parser.HTMLParser):
    void = {"meta", "link", "br", "img", "input"}
    def __init__(self):
        super().__init__()
        self.open, self.text, self.lines, self.ids = [], {}, {}, set()
    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag == "path": # M x y L x y ...: the plot it is in, its name, how many strokes
            plot = next(i for t, i in reversed(self.open) if t == "svg")
            self.lines[plot, a["data-series"]] = len(re.findall("[Lh]", a["d"] or ""))
        if "id" in a: self.ids.add(a["id"])
        if tag not in self.void: self.open.append((tag, a.get("id")))
    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag: pass
    def handle_data(self, data):
        for _, i in self.open:
            if i: self.text[i] = self.text.get(i, "") + data + "\n"
page = Page()
page.feed(open(sys.argv[1]).read())
for want in sys.argv[2:]:
    where, _, what = want.partition("=")
    if where == "line":
        plot, name = what.split(" ")
        good = page.lines.get((plot, name), 0) > 0
    elif where == "no":
        good = what not in page.ids
    else:
        good = what in page.text.get(where, "")
    if not good:
        print(want, page.lines, page.text.get(where), file=sys.stderr)
        sys.exit(1)
P
}
if command -v chromium >/dev/null; then
    browse --window-size=1280,1200 --dump-dom >"$TMP/dom"
    sees() { has "${@:2}" 2>"$TMP/out"; }
    see() { check "$1" sees "$@"; }
    see "the page knows its database and its writer" "database=$db" "up=writer up" "writes=writes open"
    see "it plots throughput" "line=throughput transactions" "line=throughput events"
    see "it plots commit latency" "line=latency p50" "line=latency p99"
    see "it plots the lag of each projection" "line=lag seen" "line=lag broken"
    see "it has a table of projections" "projections=seen" "projections=idle" "projections=failed"
    see "it has a table of processes" "processes=writer azoth-writer" "processes=feed azoth-feed"
    see "it says what there is of stripes" "stripes=hot/key"
    see "it tells times" "times=claim to submission" "times=commit to applied"
    see "it tells what preflight refused" "refusals=min"
    see "it says that nobody holds an old snapshot" "pins=Nobody holds an old snapshot."
    see "it has tiles" "tiles=Newest event" "tiles=30"
    see "texts of others are text" 'projections=<b id="evil">' "no=evil"
    check "it needs nothing from elsewhere" sh -c "! grep -oE '(src|href)=\"[a-z]*:?//' '$TMP/dom'"
    for size in 1280,1200 400,2400; do
        browse --window-size=$size --screenshot="$TMP/$size.png" >/dev/null
        says "a picture of $size is made" "$size" "$(python3 -c 'import struct, sys
print("%d,%d" % struct.unpack(">II", open(sys.argv[1], "rb").read(24)[16:]))' "$TMP/$size.png")"
    done
    [ -z "${AZOTH_SCREENSHOTS:-}" ] || cp "$TMP"/*.png "$AZOTH_SCREENSHOTS"
    kill -9 "$writer"
    until_true 10 is azoth_up 0
    browse --dump-dom >"$TMP/dom"
    see "without a writer the page says so, and shows what was left" "up=writer down" "banner=The writer is not running; the numbers" "projections=seen"
else
    echo "skip - chromium is not installed: the page"
fi
checks_end

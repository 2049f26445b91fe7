#!/bin/bash
# The units: installed into a staging tree, checked by systemd, and, where a systemd can be booted in
# namespaces of its own, started and killed there.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
stage=$(mktemp -d "${TMPDIR:-/tmp}/azoth-units-XXXXXX")
trap 'rm -rf "$stage"' EXIT
failed=0
ok() { echo "ok - $1"; }
no() { echo "not ok - $1"; failed=1; }

if (cd "$root" && make -s BUILD="$build" DESTDIR="$stage" install >"$stage.log" 2>&1); then ok "make install fills a staging tree"; else no "make install fills a staging tree"; cat "$stage.log"; fi
rm -f "$stage.log"
units=$stage/usr/local/lib/systemd/system
for u in azoth@.target azoth-writer@.service azoth-feed@.service azoth-worker@.service azoth-projector@.service azoth-effects@.service azoth-exporter@.service; do
    [ -f "$units/$u" ] || no "$u is installed"
    [ -f "$units/$u" ] && grep -q '%i' "$units/$u" && ok "$u is a template on the database's name"
done
for p in writer feed worker projector exporter; do
    s=$units/azoth-$p@.service
    if grep -q '^Type=notify' "$s" && grep -q '^WatchdogSec=' "$s" && grep -q '^RestartPreventExitStatus=100' "$s"; then
        ok "azoth-$p is notified, watched, and not restarted on 100"
    else
        no "azoth-$p is notified, watched, and not restarted on 100"
    fi
done

runner=${AZOTH_SHARED:-$root/../shared}/systemd/run-systemd.sh
if [ ! -x "$runner" ] || [ "$(id -u)" != 0 ]; then
    echo "skip - no systemd to boot here"
    exit $failed
fi
cat >"$stage/check" <<'C'
#!/bin/bash
# Inside: the target is started by the boot.
set -u
PATH=/usr/local/bin:$PATH
wait_active() { for _ in $(seq 200); do systemctl is-active -q "$1" && return 0; sleep 0.05; done; systemctl status "$1"; return 1; }
systemd-sysusers /usr/local/share/azoth/azoth.sysusers || exit 11
systemd-tmpfiles --create /usr/local/share/azoth/azoth.tmpfiles || exit 12
systemctl start azoth@main.target || exit 13
wait_active azoth-writer@main || { journalctl -u azoth-writer@main --no-pager | grep azoth-writer\\[ | tail -5; exit 23; }
systemctl start azoth-worker@main:1 || { journalctl -u azoth-worker@main:1 --no-pager | tail -5; exit 13; }
mkdir -p /var/lib/azoth/main/projections || exit 24
printf -- '-- azoth: projection seen\n-- azoth: migration 1 t\nCREATE TABLE t (id);\n-- azoth: on e\nINSERT INTO t VALUES (@id);\n' >/var/lib/azoth/main/projections/seen.sql
printf -- '-- azoth: projection told\n-- azoth: effects cat >/dev/null\n' >/var/lib/azoth/main/projections/told.sql
chown -R azoth:azoth /var/lib/azoth/main/projections
many="azoth-projector@main:seen:0-2 azoth-projector@main:seen:1-2 azoth-projector@main:told azoth-effects@main:told:1"
systemctl start $many || exit 25
for u in $many; do wait_active "$u" || exit 26; done
wait_active azoth-writer@main && wait_active azoth-feed@main && wait_active azoth-worker@main:1 || exit 14
export AZOTH_DIR=/var/lib/azoth/main
azoth tx '{"set":{"a":1},"events":[{"type":"e","data":{}}]}' || exit 15
azoth lag --wait --timeout 20 || exit 27
[ "$(azoth query seen 'SELECT count(*) AS n FROM t' --json)" = '{"n":1}' ] || exit 28
systemctl stop $many || exit 29
systemctl kill -s KILL azoth-writer@main
azoth tx '{"add":{"a":1}}' || exit 16
[ "$(systemctl show -p NRestarts --value azoth-writer@main)" = 1 ] || exit 17
[ "$(systemctl show -p NRestarts --value azoth-worker@main:1)" = 0 ] || exit 18
azoth tx --to ipc:///run/azoth/main/worker-1.sock '{"add":{"a":1}}' || exit 19
[ "$(azoth get a --json | grep -o '"value":3')" = '"value":3' ] || exit 20
systemctl stop azoth@main.target azoth-worker@main:1 || exit 21
# The target's stop takes its members along; the command waits for the target alone.
for _ in $(seq 400); do systemctl is-active -q azoth-writer@main || exit 0; sleep 0.05; done
exit 22
C
chmod +x "$stage/check"
mkdir -p "$stage/usr/local/share/azoth"
cp "$root"/systemd/azoth.sysusers "$root"/systemd/azoth.tmpfiles "$stage/usr/local/share/azoth/"
mkdir "$stage/units"
cp "$units"/* "$stage/units/"
cp "$stage/check" "$stage/usr/local/bin/azoth-check"
"$runner" -s "$stage" -t 100 "$stage/units" basic.target /usr/local/bin/azoth-check >"$stage/out" 2>&1
rc=$?
if [ $rc = 125 ]; then
    echo "skip - systemd could not be booted here"
elif [ $rc = 0 ]; then
    ok "under systemd the target, shards and effects workers start, a killed writer is restarted alone, clients see no error, and all stops"
else
    no "under systemd the target, shards and effects workers start, a killed writer is restarted alone, clients see no error, and all stops ($rc)"
    tail -40 "$stage/out"
fi
exit $failed

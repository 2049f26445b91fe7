#!/bin/bash
# The units: installed into a staging tree, rated by systemd, and, where a systemd can be booted in namespaces of its
# own, started, killed, scaled and stopped there (systemd_inside.sh).
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
stage=$(mktemp -d "${TMPDIR:-/tmp}/azoth-units-XXXXXX")
trap 'rm -rf "$stage" "$stage.log" "$stage.journal"' EXIT
failed=0
ok() { echo "ok - $1"; }
no() { echo "not ok - $1"; failed=1; }

if (cd "$root" && make -s BUILD="$build" DESTDIR="$stage" install >"$stage.log" 2>&1); then ok "make install fills a staging tree"; else no "make install fills a staging tree"; cat "$stage.log"; fi
units=$stage/usr/local/lib/systemd/system
for u in azoth@.target azoth-members.target azoth-writer@.service azoth-feed@.service azoth-worker@.service azoth-projector@.service azoth-effects@.service azoth-exporter@.service azoth-backup@.{service,timer} azoth-backup-follow@.service azoth-checkpoint@.service; do
    if [ -f "$units/$u" ]; then ok "$u is installed"; else no "$u is installed"; fi
done
for u in azoth-{writer,feed,worker,projector,effects}@.service; do
    s=$units/$u
    if grep -q '^Type=notify' "$s" && grep -q '^WatchdogSec=' "$s" && grep -q '^RestartPreventExitStatus=100' "$s" && grep -q '^ExecReload=' "$s"; then
        ok "$u is notified, watched, reloaded, and not restarted on 100"
    else
        no "$u is notified, watched, reloaded, and not restarted on 100"
    fi
done
for s in "$units"/azoth-*@.service; do
    u=${s##*/}
    # What others see of the database's shared memory, and that it stays, hangs on these.
    if grep -qE '^(PrivateIPC|RemoveIPC)=yes' "$s"; then no "$u leaves shared memory alone"; else ok "$u leaves shared memory alone"; fi
done

# 1.5 of 10: no unit may do more than it must.
if command -v systemd-analyze >/dev/null; then
    for s in "$units"/azoth-*@.service; do
        got=$(systemd-analyze security --offline=true --no-pager --threshold=15 "$s" 2>&1)
        rc=$? rating=$(sed -n 's/.*Overall exposure level for [^:]*: //p' <<<"$got")
        if [ $rc = 0 ] && [ -n "$rating" ]; then ok "${s##*/} is exposed at most 1.5: ${rating%% *}"; else
            no "${s##*/} is exposed at most 1.5: ${rating:-$got}"; fi
    done
else
    echo "skip - no systemd-analyze here: how exposed the units are"
fi

install -D -t "$stage/usr/local/libexec/azoth-check" "$root"/tests/system/{checks,systemd_inside}.sh
BOOT_JOURNAL=$stage.journal "$root/tests/system/boot-systemd" "$stage" 150 /usr/local/libexec/azoth-check/systemd_inside.sh >"$stage.log" 2>&1
rc=$?
cat "$stage.log"
case $rc in
0) ;;
125) echo "skip - no systemd can be booted here: the units at work" ;;
*)
    grep -q '^not ok - ' "$stage.log" || no "the units at work (exit status $rc)"
    failed=1
    tail -40 "$stage.journal"
    ;;
esac
exit $failed

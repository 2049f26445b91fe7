#!/bin/bash
# The Debian packages: built, looked over by lintian, and then installed, used and purged as an administrator would,
# on an overlay of this system whose writes are discarded; under a systemd of its own where one can be booted. Needs root,
# namespaces, debhelper and lintian (tools/deb-packages.list).
if [ "${1:-}" = --inner ]; then
    # PID 1 of namespaces of its own: an overlay of /, and in it the script that the outer one has written.
    set -e
    mount --make-rprivate /
    mount -t tmpfs -o mode=755 tmpfs "$2/bed"
    mkdir "$2"/bed/{up,wk,root}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$2/bed/up,workdir=$2/bed/wk" "$2/bed/root"
    r=$2/bed/root
    mount -t proc proc "$r/proc"
    mount --rbind /dev "$r/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$r/dev/shm"
    mount -t tmpfs -o mode=1777 tmpfs "$r/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$r/run"
    cp -r "$2/in" "$r/tmp/in"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive TERM=dumb \
        chroot "$r" bash /tmp/in/"$3"
fi
. "$(dirname "$0")/checks.sh"
unset AZOTH_DIR
# What it is built with is said twice, for `make` and for Debian.
says "the package is built with the libraries of packages.list" \
    "$(sed -n 's/^\(lib[^ ]*-dev\) .*/\1/p' "$root/packages.list" | grep -v cmocka | sort | paste -sd' ')" \
    "$(sed -n '/^Build-Depends/,/^Standards/p' "$root/debian/control" | tr ', ' '\n\n' | grep -x 'lib.*-dev' | sort | paste -sd' ')"
for tool in dpkg-buildpackage dh lintian; do
    command -v $tool >/dev/null || { echo "skip - $tool is not installed: the Debian packages were not built"; exit 0; }
done
if [ "$(id -u)" != 0 ] || ! unshare --mount --pid --fork --ipc --net true 2>/dev/null; then
    echo "skip - no right to make namespaces: the Debian packages were not installed"
    exit 0
fi
export TMPDIR=$TMP
mkdir "$TMP/bed" "$TMP/in" "$TMP/units"
left() { (cd "$root" && git status --porcelain --ignored 2>/dev/null || find . -path ./build -prune -o -print | sort); }
left >"$TMP/before"
build_deb() { DEB_BUILD_OPTIONS='nocheck noautodbgsym parallel=2' "$root/tools/build-deb" "$TMP/in" >"$TMP/out" 2>&1; }
check "the packages are built" build_deb
check "in a copy: the tree is as it was" diff "$TMP/before" <(left)
version=$("$BUILD/azoth" version | sed 's/^azoth //')
says "there are three, of the version that azoth says" "azoth libazoth-dev libazoth0" \
    "$(cd "$TMP/in" && for p in *_"$version"_*.deb; do echo "${p%%_*}"; done | xargs)"
# lintian takes its time beside what follows.
lintian --allow-root --fail-on error "$TMP"/in/*.changes >"$TMP/lintian" 2>&1 & lintian=$!
lint() { wait $lintian || { cat "$TMP/lintian"; false; }; }

# What is written for the beds: each line of it ends the script with a sentence when it fails.
cat >"$TMP/in/lib" <<'E2'
set -u
fails() { echo "failed: $1"; exit 1; }
files() { find /usr /lib/ /etc /var/lib /var/backups /var/spool -xdev -not -path '/var/lib/dpkg/*' 2>/dev/null |
    grep -vE '^/etc/(passwd|shadow|group|gshadow)-$|^/etc/\.pwd\.lock$|^/var/lib/systemd/|^/etc/ld\.so\.cache' | sort; }
install_() { dpkg -i /tmp/in/*.deb >/tmp/dpkg.log 2>&1 || { tail -5 /tmp/dpkg.log; fails "dpkg -i"; }; }
purge() { dpkg --purge azoth libazoth-dev libazoth0 >/tmp/dpkg.log 2>&1 || { tail -5 /tmp/dpkg.log; fails "dpkg --purge"; }; }
as_azoth() { setpriv --reuid azoth --regid azoth --clear-groups "$@"; }
projection='-- azoth: projection seen
-- azoth: migration 1 t
CREATE TABLE t (id);
-- azoth: on e
INSERT INTO t VALUES (@id);'
E2
cat >"$TMP/in/plain" <<'E2'
. /tmp/in/lib
files >/tmp/before
install_
[ "$(stat -c '%U %G %a' /var/lib/azoth)" = "azoth azoth 750" ] || fails "the data's directory is the user's"
[ "$(stat -c '%U %G %a' /var/backups/azoth)" = "azoth azoth 750" ] || fails "so is that of backups"
umask 0007
as_azoth azoth init /var/lib/azoth/main || fails "azoth init"
printf '[writer]\nsync = none\nreserve = 0\n' >/var/lib/azoth/main/azoth.conf
as_azoth mkdir -p /var/lib/azoth/main/projections && echo "$projection" >/var/lib/azoth/main/projections/seen.sql
chmod -R go+rX /var/lib/azoth/main/projections /var/lib/azoth/main/azoth.conf
export AZOTH_DIR=/var/lib/azoth/main
setpriv --reuid azoth --regid azoth --clear-groups azoth run >/tmp/run.log 2>&1 & run=$!
as_azoth azoth tx --deadline 20 '{"set":{"a":1},"events":[{"type":"e","data":{}}]}' || { cat /tmp/run.log; fails "azoth tx"; }
as_azoth azoth lag --wait --timeout 30 || { cat /tmp/run.log; fails "azoth lag"; }
[ "$(as_azoth azoth query seen 'SELECT count(*) AS n FROM t' --json)" = '{"n":1}' ] || fails "azoth query"
kill $run; wait $run || { cat /tmp/run.log; fails "azoth run ends in order"; }
cat >/tmp/user.c <<'C'
#include <azoth.h>
#include <stdio.h>
int main(void)
{
    struct azoth *db;
    struct azoth_error err;
    struct azoth_options opt = {.flags = AZOTH_READ_ONLY};
    int64_t n;
    if (azoth_open("/var/lib/azoth/main", &opt, &db, &err) || azoth_get_i64(db, AZOTH_STR("a"), &n, &err))
        return puts(err.message), 1;
    printf("a is %lld\n", (long long)n);
    azoth_close(db);
    return 0;
}
C
cc -o /usr/bin/azoth-user /tmp/user.c $(pkg-config --cflags --libs azoth) || fails "a program is built with libazoth-dev"
[ "$(as_azoth azoth-user)" = "a is 1" ] || fails "and runs with libazoth0"
rm /usr/bin/azoth-user
[ -z "$(dpkg -V azoth libazoth0 libazoth-dev)" ] || fails "what is installed is what is in the packages"
purge
[ -f /var/lib/azoth/main/data.mdb ] || fails "a purge leaves a database alone"
rm -r /var/lib/azoth
files >/tmp/after
diff /tmp/before /tmp/after || fails "a purge leaves nothing else"
install_
purge
files >/tmp/after
diff /tmp/before /tmp/after || fails "without a database it leaves nothing"
E2
bed() { unshare --mount --pid --fork --ipc --net --kill-child bash "$0" --inner "$TMP" plain >"$TMP/out" 2>&1; }
check "installed, used and purged: init, run with a projection, a program in C, and nothing is left" bed

# Under systemd: the same, with its units. What boots it copies a tree, and runs a script of it as the check.
boot=$root/tests/system/boot-systemd runner=${AZOTH_SHARED:-$root/../shared}/systemd/run-systemd.sh
if [ ! -x "$boot" ] && [ ! -x "$runner" ]; then
    echo "skip - no systemd to boot here: the package's units were not started"
    check "lintian finds no error" lint
    checks_end
    exit
fi
mkdir -p "$TMP/stage/opt" && cp -r "$TMP/in" "$TMP/stage/opt/in"
cat >"$TMP/stage/opt/in/check" <<'E2'
#!/bin/bash
ln -s /opt/in /tmp/in
. /tmp/in/lib
export DEBIAN_FRONTEND=noninteractive AZOTH_DIR=/var/lib/azoth/main
mkdir -p /etc/systemd/system/{multi-user,timers}.target.wants # every system has them
files >/tmp/before
install_
[ -z "$(systemctl list-units --plain --no-legend 'azoth*')" ] || fails "nothing is started by the installation"
until_active() { for _ in $(seq 200); do ! systemctl is-active -q "$1" || return 0; sleep 0.05; done; systemctl status "$1"; fails "$1 is active"; }
systemctl start azoth@main.target || fails "the target starts"
until_active azoth-writer@main
install -d -o azoth -g azoth /var/lib/azoth/main/projections
echo "$projection" >/var/lib/azoth/main/projections/seen.sql
azoth scale workers 2 --instance main && azoth scale projector seen --instance main || fails "workers and projector start"
for d in b c d; do { systemctl start azoth@$d.target && azoth scale workers 1 --instance $d; } || fails "another database"; done
systemctl enable -q azoth@main.target azoth-backup@main.timer || fails "the target is enabled"
azoth tx --deadline 20 '{"set":{"a":1},"events":[{"type":"e","data":{}}]}' || fails "azoth tx"
azoth lag --wait --timeout 30 || fails "azoth lag"
dpkg -i /tmp/in/*.deb >/tmp/dpkg.log 2>&1 || fails "dpkg -i once more"
systemctl is-active -q azoth-writer@main || fails "an upgrade leaves a database running"
azoth tx --deadline 20 '{"add":{"a":1}}' || fails "azoth tx after it"
purge
[ -z "$(systemctl list-units --plain --no-legend --state=active 'azoth*')" ] || fails "what runs is stopped before it is removed"
[ -z "$(ls /dev/shm)" ] || fails "the writer last, so that no shared object is left"
[ -f /var/lib/azoth/main/data.mdb ] || fails "a purge leaves a database alone"
rm -r /var/lib/azoth
files >/tmp/after
diff /tmp/before /tmp/after || fails "a purge leaves nothing else"
E2
if [ -x "$boot" ]; then
    "$boot" "$TMP/stage" 60 /bin/bash /opt/in/check >"$TMP/out" 2>&1
else
    "$runner" -s "$TMP/stage" -t 60 "$TMP/units" basic.target /bin/bash /opt/in/check >"$TMP/out" 2>&1
fi
rc=$?
if [ $rc = 125 ]; then
    echo "skip - systemd could not be booted here: the package's units were not started"
else
    check "under systemd: started by name, left running by an upgrade, stopped and purged" test $rc = 0
fi
check "lintian finds no error" lint
checks_end

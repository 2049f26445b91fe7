#!/bin/bash
# make install and uninstall: what is put where, that a program is built against it as README and manual say, and that
# nothing but it is taken away again. Needs AZOTH_BUILD, a compiler and pkg-config.
. "$(dirname "$0")/checks.sh"
unset AZOTH_DIR
make_() { make -s -C "$root" BUILD="$BUILD" "$@" >"$TMP/out" 2>&1; }
in_tree() { (cd "$1" && find . \( -type l -printf '%p -> %l\n' \) -o -printf '%p %m\n' | sort); }

# ---- two trees, and what differs between them

check "make install fills a staging tree" make_ DESTDIR="$TMP/local" install
check "and one of another prefix, with directories of its own for library and units" \
    make_ DESTDIR="$TMP/usr" PREFIX=/usr LIBDIR=/usr/lib/multi UNITDIR=/lib/systemd/system install
says "the programs are there" "azoth azoth-effects azoth-exporter azoth-feed azoth-projector azoth-worker azoth-writer" \
    "$(ls "$TMP/local/usr/local/bin" | grep -xE 'azoth(-(effects|exporter|feed|projector|worker|writer))?' | xargs)"
says "each unit starts what was installed beside it" "" \
    "$(grep -h '^ExecStart=' "$TMP"/local/usr/local/lib/systemd/system/*.service | grep -v '=/usr/local/bin/azoth')"
says "also with another prefix" "" "$(grep -h '^ExecStart=' "$TMP"/usr/lib/systemd/system/*.service | grep -v '=/usr/bin/azoth')"
says "no text of a tree for /usr speaks of /usr/local" "" \
    "$(grep -rlI '/usr/local/\(bin\|lib\|include\|share\)' "$TMP/usr")"
says "users and directories are where systemd looks" "sysusers.d/azoth.conf tmpfiles.d/azoth.conf" \
    "$(cd "$TMP/usr/usr/lib" && echo sysusers.d/*.conf tmpfiles.d/*.conf)"
for page in "$root"/client/man/*.[1-8]; do
    section=${page##*.}
    [ -f "$TMP/usr/usr/share/man/man$section/${page##*/}" ] || echo "${page##*/}"
done >"$TMP/missing"
says "each page of the manual is there" "" "$(cat "$TMP/missing")"
says "no link leads nowhere" "" "$(find "$TMP/local" "$TMP/usr" -xtype l)"
says "azoth.pc says the version that azoth says" "$(azoth version)" \
    "azoth $(PKG_CONFIG_PATH=$TMP/usr/usr/lib/multi/pkgconfig pkg-config --modversion azoth)"

# ---- uninstall

# Beside files of others in each directory, nothing but what was installed goes.
mkdir "$TMP/before"
(cd "$TMP/local" && find . -type d -not -path '*/azoth' -not -path '*/azoth/*') |
    while read -r d; do mkdir -p "$TMP/before/$d" && echo other >"$TMP/before/$d/other"; done
cp -a "$TMP/before" "$TMP/tree"
check "make install goes into a tree that is used" make_ DESTDIR="$TMP/tree" install
check "another make install changes nothing" make_ DESTDIR="$TMP/tree" install
in_tree "$TMP/tree" >"$TMP/installed"
check "something was installed" test "$(wc -l <"$TMP/installed")" -gt "$(($(in_tree "$TMP/before" | wc -l) + 40))"
check "make uninstall takes it away" make_ DESTDIR="$TMP/tree" uninstall
check "and leaves the tree as it was before" diff <(in_tree "$TMP/before") <(in_tree "$TMP/tree")
make_ DESTDIR="$TMP/mine" install
touch "$TMP/mine/usr/local/include/azoth/mine.h"
check "make uninstall works where one has put a file of one's own" make_ DESTDIR="$TMP/mine" uninstall
says "which stays, and nothing else" "./usr/local/include/azoth/mine.h" "$(cd "$TMP/mine" && find . ! -type d)"
check "make uninstall with another prefix" \
    make_ DESTDIR="$TMP/usr" PREFIX=/usr LIBDIR=/usr/lib/multi UNITDIR=/lib/systemd/system uninstall
says "leaves no file" "" "$(find "$TMP/usr" ! -type d)"
# ---- the library: what it exports, and programs that use it

lib=$TMP/local/usr/local/lib
if nm -D "$lib/libazoth.so.0" | grep -qE '__(asan|tsan|ubsan)_'; then
    echo "skip - the library is of a sanitizer build: no program was linked with it"
    checks_end
    exit
fi

grep -hoE '\bazoth_[a-z0-9_]+\(' <(cc -E -P -I"$root/core" "$root/client/azoth.h" | tr '\n' ' ' |
    grep -oE 'visibility\("default"\)\)\) [^;]*;' | sed 's/^[^ ]* //; s/__attribute__.*//' |
    sed -E 's/^[^(]*\b(azoth_[a-z0-9_]+)\(.*/\1(/') | tr -d '(' | sort -u >"$TMP/declared"
nm -D --defined-only "$lib/libazoth.so.0" | awk '$2 == "T" {print $3}' | sed 's/@.*//' | sort >"$TMP/exported"
nm -g --defined-only "$lib/libazoth.a" | awk 'NF == 3 {print $3}' | sort >"$TMP/static"
check "the header declares functions" test "$(wc -l <"$TMP/declared")" -gt 70
check "the library exports what the header declares, and nothing else" diff "$TMP/declared" "$TMP/exported"
check "so does the static one" diff "$TMP/declared" "$TMP/static"
says "every symbol has a version" "" "$(nm -D --defined-only "$lib/libazoth.so.0" | grep ' T ' | grep -v '@@AZOTH_0$')"
says "its soname has the number of its interface" libazoth.so.0 \
    "$(readelf -d "$lib/libazoth.so.0" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')"

# The README's C program: its lines as they stand, in a main, on a database of this test.
db=$TMP/db
{
    echo '#include <stdio.h>'
    awk '/^```c$/ {on = 1; next} /^```$/ {on = 0} on' "$root/README.md" | grep '^#include'
    echo 'int main(void) {'
    awk '/^```c$/ {on = 1; next} /^```$/ {on = 0} on' "$root/README.md" | grep -v '^#include' | sed "s#/var/lib/azoth/main#$db#"
    echo 'return 0; }'
} >"$TMP/readme.c"
check "the README has a program in C" grep -q azoth_commit "$TMP/readme.c"
pkg() { PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$TMP/local pkg-config "$@" azoth; }
build() { # OUT FLAGS...: with the compiler that built the library, warnings are errors
    local out=$1; shift
    # shellcheck disable=SC2046,SC2086
    cc -Wall -Wextra -Werror -o "$out" "$TMP/readme.c" $(pkg --cflags) "$@" >"$TMP/out" 2>&1
}
# shellcheck disable=SC2046
check "it is built with pkg-config's flags" build "$TMP/shared" $(pkg --libs)
# Without the shared library the linker takes the static one.
mkdir "$TMP/archive" && cp "$lib/libazoth.a" "$TMP/archive"
# shellcheck disable=SC2046
check "and with those for the static library" build "$TMP/static-program" -L"$TMP/archive" \
    $(pkg --static --libs | sed "s#-L$lib##")
says "the first needs the shared library" 1 "$(readelf -d "$TMP/shared" | grep -c 'NEEDED.*\[libazoth.so.0\]')"
says "the second does not" 0 "$(readelf -d "$TMP/static-program" | grep -c 'NEEDED.*libazoth')"
echo '#include <azoth.h>
#include <azoth_command.h>
#include <azoth_projection.h>
int main() { return azoth_code_exit(0); }' >"$TMP/headers.cc"
# shellcheck disable=SC2046
check "C++ takes the headers, too" c++ -Wall -Wextra -Werror -o "$TMP/headers" "$TMP/headers.cc" $(pkg --cflags --libs)

printf '[writer]\nsync = none\nreserve = 0\n[segment]\nslots = 16\nblocks = 80\n' >"$TMP/azoth.conf"
installed=$TMP/local/usr/local/bin
"$installed/azoth" init "$db" >"$TMP/out" && cp "$TMP/azoth.conf" "$db"
"$installed/azoth" tx --embedded --dir "$db" '{"set":{"acct/1":500,"acct/2":0}}' >"$TMP/out"
"$installed/azoth-writer" --dir "$db" 2>"$TMP/writer.log" & pids+=($!)
"$installed/azoth" tx --dir "$db" '{"set":{"seen":1}}' >"$TMP/out" # waits for the writer
LD_LIBRARY_PATH=$lib "$TMP/shared" >"$TMP/out" 2>&1
"$TMP/static-program" >>"$TMP/out" 2>&1
says "each of the two moves a hundred" "300 200" \
    "$(echo $("$installed/azoth" get acct/1 --dir "$db") $("$installed/azoth" get acct/2 --dir "$db"))"
kill "${pids[0]}"
check "the installed writer ends in order" wait "${pids[0]}"
pids=()
"$installed/azoth" status --dir "$db" --json | grep -oE '"shm(_gauges)?":"[^"]*"' | cut -d'"' -f4 |
    while read -r name; do rm -f "/dev/shm$name"; done
checks_end

#!/bin/bash
# The manual: its form, that each command, flag, mark, setting, function and error that there is has its place in it and
# nothing else has, and that its references lead somewhere and its examples work.
. "$(dirname "$0")/checks.sh"
unset AZOTH_DIR
export LC_ALL=C MANWIDTH=100
man=$root/client/man
cd "$TMP" || exit 1
sorted() { sort -u | paste -sd' '; }

# ---- form

if command -v man >/dev/null; then
    for page in "$man"/*; do man --warnings -l "$page" 2>&1 >/dev/null | sed "s#^#${page##*/}: #"; done >warnings
    says "man has no warning about a page" "" "$(cat warnings)"
else
    echo "skip - man is not installed: pages were not looked over by it"
fi
if command -v mandoc >/dev/null; then
    for page in "$man"/*; do mandoc -T lint -W warning "$page" 2>&1; done >warnings
    says "nor has mandoc" "" "$(cat warnings)"
else
    echo "skip - mandoc is not installed: pages were not looked over by it"
fi
# names PAGE: those of its NAME section.
names() { sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \([^ ]*\).*/\1/p' "$1"; }
for page in "$man"/*; do
    section=${page##*.}
    for name in $(names "$page"); do echo "$name $section ${page##*/}"; done
    [ "$(names "$page" | head -1).$section" = "${page##*/}" ] || echo "${page##*/} is called otherwise" >&2
done >pages 2>misnamed
says "each page is called as its file" "" "$(cat misnamed)"
says "no name is that of two pages" "" "$(cut -d' ' -f1,2 pages | sort | uniq -d)"
page_of() { awk -v n="$1" -v s="$2" '$1 == n && $2 == s {print $3}' pages; }

# ---- references: of pages, of the README, of help, of units

{
    sed -n 's/^\.Xr \(azoth[^ ]*\|libazoth\) \([1-8]\).*/\1 \2/p; s/^\.It Xr \([^ ]*\) \([1-8]\).*/\1 \2/p' "$man"/*
    grep -ohE '\b(lib)?azoth[a-z.-]*\([1-8]\)' "$root"/README.md "$root"/systemd/* "$root"/client/*.h "$root"/*/*.[ch] \
        "$root"/client/cmd/*.c | tr '()' '  '
} | sort -u >references
check "there are references" test "$(wc -l <references)" -gt 15
while read -r name section; do [ -n "$(page_of "$name" "$section")" ] || echo "$name($section)"; done <references >lost
says "each leads to a page" "" "$(cat lost)"

# ---- flags

# Those of a help text: of its usage, above the first empty line, and at the beginning of the lines of its lists.
said() {
    sed -n -e '1,/^$/{s/[][|]/ /g;p;}' -e '/^$/,$s/^  *\([a-z-]* NAME \)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p' |
        grep -oE '(^|[[:space:]])--[a-z][a-z-]*' | tr -d ' \t' | sorted
}
# synopsis PAGE NAME: the flags below `.Nm NAME ...`, or `.Nm` for the page's own name, in its synopsis. Capitals stand for
# flags, and are none.
synopsis() {
    awk -v name="$2" -v own="$(names "$1" | head -1)" '/^\.Sh / {on = 0; in_it = $2 == "SYNOPSIS"}
        in_it && $0 == ".Nm" {$0 = ".Nm " own}
        in_it && /^\.Nm/ {on = ($0 " ") ~ "^\\.Nm " name " "} in_it && on' "$1" | flags
}
flags() { grep -oE 'Fl -[a-z][a-z-]*' | sed 's/^Fl -/--/' | sorted; }
# Outside of the synopsis; what stands at the head of a list's entry.
body() { awk '/^\.Sh / {in_it = $2 == "SYNOPSIS"} !in_it' "$1"; }
commands=$("$BUILD/azoth" --help | awk '/^  [a-z]/ {print $1}')
check "there are commands" test "$(wc -w <<<"$commands")" -gt 15
for c in $commands; do
    page=$(page_of "azoth-$c" 1)
    case $c in help | version) page=azoth.1 ;; esac
    if [ -z "$page" ]; then says "azoth $c has a page" azoth-"$c".1 ""; continue; fi
    says "$page has the flags that azoth $c --help has" "$("$BUILD/azoth" "$c" --help | said)" \
        "$(synopsis "$man/$page" "azoth $c")"
done
programs=$(sed -n 's/^PROGRAMS := azoth //p' "$root/Makefile")
check "there are programs" test "$(wc -w <<<"$programs")" -gt 4
for p in $programs; do
    page=$(page_of "$p" 8)
    if [ -z "$page" ]; then says "$p has a page" "$p.8" ""; continue; fi
    says "$page has the flags that $p --help has" "$("$BUILD/$p" --help | said)" "$(synopsis "$man/$page" "$p")"
done
for page in "$man"/azoth-*.[18]; do
    synopsis "$page" '[a-z]*[^ ]*' | tr ' ' '\n' >in_synopsis
    body "$page" | flags | tr ' ' '\n' >in_body
    body "$page" | grep '^\.It.*Fl' | flags | tr ' ' '\n' >entries
    { comm -23 in_synopsis in_body && comm -13 in_synopsis entries; } | grep . | sed "s#^#${page##*/}: #"
done >undescribed
says "each flag of a synopsis is described, and none that is not in it" "" "$(cat undescribed)"

# The commands that the operations guide calls, with what they are to do.
# called WORDS: what follows azoth in its code, as many words.
called() { grep -E '^    |`' "$root/systemd/README.md" | grep -oE "(\`|^    |; |\| )azoth( [a-z-]+){$1}" | sed 's/.*azoth //' | sort -u; }
check "the operations guide calls commands" test "$(called 1 | wc -l)" -gt 10
says "each of them is there" "" "$(called 1 | grep -vxE "$(paste -sd'|' <<<"$commands")" | xargs)"
says "and does what it is called for" "" "$(called 2 | while read -r c what; do
    case $c in projection | dlq | scale) "$BUILD/azoth" help "$c" | sed -n '1p' | grep -qE "[ |]$what( |\|)" || echo "$c $what" ;; esac; done)"

# ---- what a definition may have

# Each word that the parser compares a mark's first word with.
sed -n '/^static int parse_mark/,/^}/p' "$root/projector/sqlfile.c" | grep -oE 'is_word\(word, "[a-z-]+"' | cut -d'"' -f2 | sorted >known
says "azoth-projection(5) has the marks that are known" "$(cat known)" \
    "$(grep -oE -- '-- azoth: [a-z-]+' "$man/azoth-projection.5" | sed 's/.*: //' | sorted)"
says "and so has the header of the parser" "$(cat known)" \
    "$(sed '/^ \*\//q' "$root/projector/sqlfile.h" | grep -oE -- '-- azoth: [a-z-]+' | sed 's/.*: //' | sorted)"
literal() { sed -n '/^\.Bd -literal/,/^\.Ed/p' "$1" | sed -e '/^\.[BE]d/d' -e 's/\\e/\\/g'; }
literal "$man/azoth-projection.5" >accounts.sql
exits "its example is valid" 0 "accounts.sql: ok" "$BUILD/azoth" projection check accounts.sql

# ---- settings

"$BUILD/azoth" config --dir / --json | jq -r '.[].key' | sort >keys
awk '/^\.Sh / {section = tolower($2)} /^\.It Li / {print section "." $3}' "$man/azoth.conf.5" | sort >described
check "there are settings" test "$(wc -l <keys)" -gt 15
check "azoth.conf(5) has the settings that azoth config has" diff keys described
mkdir example && cp "$root/systemd/azoth.conf.example" example/azoth.conf
says "the example of a configuration says what is the default anyway" "$("$BUILD/azoth" config --dir / --json | jq -c '.[] | .value')" \
    "$("$BUILD/azoth" config --dir example --json | jq -c '.[] | .value')"

# ---- the library

nm -D --defined-only "$BUILD/libazoth.so.0" | awk '$2 == "T" {print $3}' | sed 's/@.*//' | sort >functions
grep -oE 'Fn azoth_[a-z0-9_]+' "$man/libazoth.3" | cut -d' ' -f2 | sort -u >documented
check "libazoth(3) has the functions that the library has" diff functions documented
grep -oE '^ *X\([A-Z0-9_]+, [0-9]+' "$root/core/azoth_base.h" | sed 's/.*(\(.*\),.*/AZOTH_ERR_\1/' | sort >errors
grep -oE '^\.It Dv AZOTH_ERR_[A-Z0-9_]+' "$man/libazoth.3" | cut -d' ' -f3 | sort >listed
check "there are errors" test "$(wc -l <errors)" -gt 40
check "and the errors that there are" diff errors listed
if nm -D "$BUILD/libazoth.so.0" | grep -qE '__(asan|tsan|ubsan)_'; then
    echo "skip - the library is of a sanitizer build: the example of libazoth(3) was not linked with it"
    checks_end
    exit
fi
literal "$man/libazoth.3" >example.c
build() { cc -Wall -Wextra -Werror -I"$root/client" -I"$root/core" -o user example.c -L"$BUILD" -lazoth >"$TMP/out" 2>&1; }
check "its example is built without a warning" build
sed -i "s#/var/lib/azoth/main#$TMP/none#" example.c
check "also elsewhere" build
LD_LIBRARY_PATH=$BUILD exits "and says what is wrong" 1 "$TMP/none" ./user
checks_end

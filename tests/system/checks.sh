# Sourced by tests of the command: a directory of their own in TMP, removed at the end with the processes in pids; what
# is checked and counted. checks_end tells the sum.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
TMP=$(mktemp -d "${TMPDIR:-/tmp}/azoth-$(basename "$0" .sh)-XXXXXX")
pids=() passed=0 failed=0
finish() { [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$TMP"; }
trap finish EXIT
# Instead of finish, with shared objects of databases in TMP that have one: who was attached when the last writer went keeps
# a segment in the way.
leave() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null
    for db in "$TMP"/*/data.mdb; do
        azoth status --dir "${db%/*}" --json 2>/dev/null | jq -r '.shm, .shm_gauges' | sed 's#^/*#/dev/shm/#' | xargs -r rm -f
    done
    finish
}
check() { # SENTENCE COMMAND...
    local what=$1; shift
    if "$@"; then echo "ok - $what"; passed=$((passed + 1)); else echo "not ok - $what"; tail -5 "$TMP/out"; failed=$((failed + 1)); fi
}
says() { # SENTENCE WANTED GOT
    if [ "$2" = "$3" ]; then echo "ok - $1"; passed=$((passed + 1)); else printf 'not ok - %s\n# wanted %q\n# got    %q\n' "$1" "$2" "$3"; failed=$((failed + 1)); fi
}
exits() { # SENTENCE CODE TEXT COMMAND...
    local what=$1 code=$2 text=$3 rc; shift 3
    "$@" >"$TMP/out" 2>&1
    rc=$?
    if [ $rc = "$code" ] && grep -qF -- "$text" "$TMP/out"; then echo "ok - $what"; passed=$((passed + 1)); else
        echo "not ok - $what: exit code $rc"; cat "$TMP/out"; failed=$((failed + 1)); fi
}
# Looks again until it holds. What the command prints goes nowhere.
until_true() { # SECONDS COMMAND...
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; read -rt 0.02 <> <(:) || :; done
}
# For commands that check only asks for their end: what they print is shown when that was no good one.
quiet() { "$@" >"$TMP/out" 2>&1; }
azoth() { "$BUILD/azoth" "$@"; }
checks_end() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

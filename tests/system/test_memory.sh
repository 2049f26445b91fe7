#!/bin/bash
# Unit tests under valgrind, those that need neither minutes nor more of a file mapped than valgrind can
# map, nor to be told that a program is not there (its posix_spawn does not): `make test-valgrind` has them all.
set -u
cd "$(dirname "$0")/../.."
build=${AZOTH_BUILD:-build}
if [ "$(id -u)" -ne 0 ] && ! command -v valgrind >/dev/null; then
    echo "skip - no valgrind, and only root can install it"
    exit 0
fi
if nm "$build/azoth" 2>/dev/null | grep -qE '__(asan|tsan|ubsan)_'; then
    echo "skip - a sanitizer is in this build: valgrind can not run it"
    exit 0
fi
exec tests/valgrind $(ls "$build"/tests/unit/test_* | grep -vE '\.[a-z]+$|test_(table|feed|bench_load|watch|contention|archiving|ask|copy|increment|redo|supervised|backupfile|append_chain|pagecheck)$')

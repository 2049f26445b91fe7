#!/bin/bash
# Runs every shell block of the README, in its order, in an empty directory, as a reader would.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${AZOTH_BUILD:-$root/build}" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/azoth-readme-XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
ln -s "$build" build
awk '/^```sh$/ {on = 1; next} /^```$/ {on = 0} on' "$root/README.md" >block.sh
if [ "$(wc -l <block.sh)" -lt 20 ]; then echo "not ok - the README has shell blocks"; exit 1; fi
if ! command -v nanocat >/dev/null; then echo "skip - nanocat is not installed"; exit 0; fi
if timeout 120 bash -euo pipefail -m block.sh >out 2>&1; then
    echo "ok - every command of the README works in its order"
else
    echo "not ok - every command of the README works in its order"
    tail -30 out
    cat run.log 2>/dev/null | tail -20
    exit 1
fi
check() { if grep -q -- "$2" out; then echo "ok - $1"; else echo "not ok - $1"; tail -40 out; exit 1; fi; }
check "the transfer is seen by get" "100"
check "the projection holds what was paid" "150"
check "the request through nanocat is answered" '"ok":true'
check "the same id again is a duplicate" '"duplicate":true'
check "a backup is restored with the same content" "the same content"
check "the effect's command was run with the payload and what there is to know" '"to":2} [0-9]'

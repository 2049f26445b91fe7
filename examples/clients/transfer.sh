#!/bin/sh
# transfer.sh ENDPOINT ID: sends one transfer to a worker with nanocat (Debian: nanomsg-utils).
# The same ID (32 hex digits) may be sent again: it is applied once.
printf '%s' '{"id":"'"$2"'","require":[{"key":"acct/1","min":100}],"add":{"acct/1":-100,"acct/2":100},
 "events":[{"type":"transferred","data":{"from":1,"to":2,"amount":100}}]}' >"${TMPDIR:-/tmp}/transfer-$$.json"
nanocat --req --connect "$1" --file "${TMPDIR:-/tmp}/transfer-$$.json" --ascii
rm -f "${TMPDIR:-/tmp}/transfer-$$.json"

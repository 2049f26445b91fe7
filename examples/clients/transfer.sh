#!/bin/sh
# transfer.sh ENDPOINT ID: sends one transfer to a worker with nanocat (Debian: nanomsg-utils).
# The same ID (32 hex digits) may be sent again: it is applied once.
[ $# -eq 2 ] || { echo "usage: transfer.sh ENDPOINT ID" >&2; exit 2; }
answer=$(nanocat --req --connect "$1" --send-timeout 10 --recv-timeout 10 --ascii --data '{"id":"'"$2"'",
 "require":[{"key":"acct/1","min":100}],"add":{"acct/1":-100,"acct/2":100},
 "events":[{"type":"transferred","data":{"from":1,"to":2,"amount":100}}]}') || exit
# nanocat ends with 0 also when no answer came in time.
[ -n "$answer" ] || { echo "no answer from $1" >&2; exit 1; }
printf '%s\n' "$answer"

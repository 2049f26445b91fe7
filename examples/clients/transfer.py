#!/usr/bin/env python3
"""transfer.py ENDPOINT ID: sends one transfer to a worker with Python's standard library alone.

SP over a unix socket (nanomsg's ipc transport): both sides send 8 bytes, "\\0SP\\0", the protocol's
number (48 REQ, 49 REP) and two zeros; then each message is a byte 1, its length in 8 bytes
(big-endian) and the bytes. A REQ message begins with a 32-bit request id whose top bit is set; the
answer carries it back.
"""
import json
import socket
import struct
import sys


def receive(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise ConnectionError("the worker closed the connection")
        data += more
    return data


def ask(path, request):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(10)
        s.connect(path)
        s.sendall(b"\0SP\0" + struct.pack(">HH", 48, 0))
        if receive(s, 8) != b"\0SP\0" + struct.pack(">HH", 49, 0):
            raise ConnectionError("no SP REP socket listens there")
        body = struct.pack(">I", 0x80000001) + json.dumps(request).encode()
        s.sendall(b"\1" + struct.pack(">Q", len(body)) + body)
        kind, length = struct.unpack(">BQ", receive(s, 9))
        answer = receive(s, length)
        return json.loads(answer[4:])


def main():
    endpoint, request_id = sys.argv[1:3]
    answer = ask(endpoint.removeprefix("ipc://"), {
        "id": request_id,
        "require": [{"key": "acct/1", "min": 100}],
        "add": {"acct/1": -100, "acct/2": 100},
        "events": [{"type": "transferred", "data": {"from": 1, "to": 2, "amount": 100}}],
    })
    print(json.dumps(answer))


main()

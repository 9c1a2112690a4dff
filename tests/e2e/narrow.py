# SPDX-License-Identifier: BSD-3-Clause
"""A stream whose sender says how large its packets are.

    narrow.py sink ADDRESS PORT
    narrow.py source ADDRESS PORT      a line on standard input ends it: it sends as long as it takes
"""
import json
import select
import socket
import struct
import sys

BLOCK = bytes(range(251)) * 400  # whose length nothing else has
TCPI_SND_MSS = 16                # offset in struct tcp_info


def mss(s):
    return struct.unpack_from("I", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), TCPI_SND_MSS)[0]


def sink(address):
    listener = socket.create_server(address)
    s, _ = listener.accept()
    got = 0
    while data := s.recv(1 << 18):
        at = got % len(BLOCK)
        if data != (BLOCK * 4)[at:at + len(data)]:
            sys.exit(f"wrong bytes from {got} on")
        got += len(data)
    print(json.dumps({"bytes": got}))


def source(address):
    s = socket.create_connection(address)
    sent, size = 0, 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        s.sendall(BLOCK)
        sent += len(BLOCK)
        if mss(s) != size:
            size = mss(s)
            print(f"mss {size}", flush=True)
    s.shutdown(socket.SHUT_WR)
    s.recv(1)
    print(json.dumps({"bytes": sent}))


{"sink": sink, "source": source}[sys.argv[1]]((sys.argv[2], int(sys.argv[3])))

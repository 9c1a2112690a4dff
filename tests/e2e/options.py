# SPDX-License-Identifier: BSD-3-Clause
"""A server that sets and asks options of the connections it accepts, at random, and prints all answers as JSON.

options.py server PORT COUNT SEED: accepts COUNT connections
options.py visits PORT COUNT: connects COUNT times
"""
import json
import random
import struct
import sys
from socket import *

INTEGERS = [(IPPROTO_TCP, TCP_NODELAY), (IPPROTO_TCP, TCP_CORK), (IPPROTO_TCP, TCP_USER_TIMEOUT), (SOL_SOCKET, SO_KEEPALIVE),
            (IPPROTO_TCP, TCP_KEEPIDLE), (IPPROTO_TCP, TCP_KEEPINTVL), (IPPROTO_TCP, TCP_KEEPCNT)]
OTHERS = [(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 5), 8), (SOL_SOCKET, SO_RCVTIMEO, struct.pack("qq", 3, 0), 16),
          (IPPROTO_IP, IP_TOS, struct.pack("i", 16), 4), (SOL_SOCKET, SO_PRIORITY, struct.pack("i", 3), 4)]
FIXED = [(SOL_SOCKET, SO_TYPE), (SOL_SOCKET, SO_PROTOCOL), (SOL_SOCKET, SO_DOMAIN), (SOL_SOCKET, SO_ACCEPTCONN),
         (SOL_SOCKET, SO_ERROR)]
VALUES = [-1, 0, 1, 2, 75, 127, 128, 32767, 32768, 2**31 - 1]


class Answers(list):
    def tell(self, what, call, *args):
        try:
            r = call(*args)
        except OSError as e:
            r = e.errno
        self.append((what, args[:2], r.hex() if isinstance(r, bytes) else r))


def step(rng, conn, answers, may_be_special):
    kind = rng.random()
    if kind < 0.5:
        level, name = rng.choice(INTEGERS)
        value = struct.pack("i", rng.choice(VALUES))
        answers.tell("set", conn.setsockopt, level, name, rng.choice((value, value, value, value + b"1234", value[:3], b"")))
        answers.tell("get", conn.getsockopt, level, name)
    elif kind < 0.6:
        answers.tell("cut off", conn.getsockopt, *rng.choice(INTEGERS), rng.choice((1, 3, 4, 8)))
    elif kind < 0.7 and may_be_special:
        level, name, value, size = rng.choice(OTHERS)
        answers.tell("set", conn.setsockopt, level, name, value)
        answers.tell("get", conn.getsockopt, level, name, size)
    elif kind < 0.8:
        answers.tell("none such", conn.setsockopt, IPPROTO_TCP, 999, 1)
    else:
        answers.tell("get", conn.getsockopt, *rng.choice(INTEGERS + FIXED))


def server(port, count, seed):
    listener = socket()
    listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    listener.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    listener.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 77)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen()
    print("listening", flush=True)
    rng, answers = random.Random(seed), Answers()
    for _ in range(int(count)):
        conn, _ = listener.accept()
        for level, name in INTEGERS + FIXED:
            answers.tell("first", conn.getsockopt, level, name)
        for i in range(rng.choice((3, 10, 40))):
            step(rng, conn, answers, i > 5)
        conn.sendall(b"bye")
        conn.close()
    print(json.dumps(answers))


def visits(port, count):
    for _ in range(int(count)):
        with create_connection(("127.0.0.1", int(port))) as s:
            assert s.recv(10) == b"bye" and not s.recv(1)


{"server": server, "visits": visits}[sys.argv[1]](*sys.argv[2:])

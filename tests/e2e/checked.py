# SPDX-License-Identifier: BSD-3-Clause
"""Checked traffic that survives anything: servers that echo, clients that reconnect, and a word when a byte is wrong.

    checked.py serve PORT [ADDRESS]
    checked.py call PORT SECONDS        SECONDS without progress are a hang
    checked.py hold PORT SECONDS CONNECTIONS [ADDRESS]

"hold" does not survive: its connections are to last until it reads a line. It answers with how often they have been around
and the longest time that one of them stood still.
"""
import json
import os
import random
import select
import socket
import sys
import threading
import time

ADDRESS = "127.0.0.1"
PERIOD = 1 << 18
PATTERN = random.Random(1).randbytes(PERIOD) * 2
SIZES = [1, 10, 100, 1000, 10000, 60000]


def pattern(offset, size):
    offset %= PERIOD
    return PATTERN[offset:offset + size]


def give_up(what):
    print(what, flush=True)
    os._exit(9)


class Connection:
    def __init__(self, sock):
        self.sock, self.unsent, self.offset = sock, b"", 0

    def serve(self, writable):
        """False: it is over."""
        try:
            if writable and self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent):]
            if self.unsent:
                return True
            data = self.sock.recv(65536)
            if data != pattern(self.offset, len(data)):
                give_up(f"wrong bytes at the server, from {self.offset} on")
            self.offset += len(data)
            self.unsent = data
            if data:
                self.unsent = data[self.sock.send(data):]
            return bool(data)
        except BlockingIOError:
            return True
        except OSError:
            return False


def serve(port, address=ADDRESS):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(64)
    listener.setblocking(False)
    ep = select.epoll()
    ep.register(listener, select.EPOLLIN)
    connections = {}
    while True:
        for fd, events in ep.poll():
            if fd == listener.fileno():
                try:
                    sock = listener.accept()[0]
                except OSError:
                    continue
                sock.setblocking(False)
                connections[sock.fileno()] = Connection(sock)
                ep.register(sock, select.EPOLLIN)
            elif connections[fd].serve(events & select.EPOLLOUT):
                ep.modify(fd, select.EPOLLOUT if connections[fd].unsent else select.EPOLLIN)
            else:
                ep.unregister(fd)
                connections.pop(fd).sock.close()


def echo(sock, offset, size):
    """False: the other side has ended."""
    got = 0
    sock.sendall(pattern(offset, size))
    while got < size:
        data = sock.recv(size - got)
        if not data:
            return False
        if data != pattern(offset + got, len(data)):
            give_up(f"wrong bytes at the client, from {offset + got} on")
        got += len(data)
    return True


def converse(port, seconds, rng):
    with socket.create_connection((ADDRESS, port), timeout=seconds) as sock:
        offset = 0
        for _ in range(rng.randrange(1, 200)):
            size = rng.choice(SIZES)
            if not echo(sock, offset, size):
                return
            offset += size


def call(port, seconds):
    rng = random.Random(os.getpid())
    while True:
        try:
            converse(port, seconds, rng)
        except TimeoutError:
            give_up(f"nothing for {seconds} s")
        except OSError:
            time.sleep(0.02)


class Held(threading.Thread):
    def __init__(self, address, port, seconds, number):
        super().__init__(daemon=True)
        self.sock = socket.create_connection((address, port), timeout=seconds)
        self.rng, self.rounds, self.longest, self.over = random.Random(number), 0, 0, False

    def run(self):
        offset, since = 0, time.monotonic()
        try:
            while not self.over:
                size = self.rng.choice(SIZES)
                if not echo(self.sock, offset, size):
                    give_up(f"a connection has ended, after {self.rounds} rounds")
                offset += size
                self.rounds += 1
                now = time.monotonic()
                self.longest, since = max(self.longest, now - since), now
        except OSError as e:
            give_up(f"a connection was lost, after {self.rounds} rounds: {e}")


def hold(port, seconds, connections, address=ADDRESS):
    held = [Held(address, port, seconds, i) for i in range(connections)]
    for h in held:
        h.start()
    print("holding", flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            for h in held:
                h.over = True
            for h in held:
                h.join()
        longest = max(h.longest for h in held)
        for h in held:
            h.longest = 0
        print(json.dumps({"rounds": [h.rounds for h in held], "longest": longest}), flush=True)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]), *sys.argv[3:])
elif sys.argv[1] == "hold":
    hold(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
else:
    call(int(sys.argv[2]), float(sys.argv[3]))

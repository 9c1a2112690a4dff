# SPDX-License-Identifier: BSD-3-Clause
"""Checked traffic that survives anything: servers that echo, clients that reconnect, and a word when a byte is wrong.

    checked.py serve PORT
    checked.py call PORT SECONDS        SECONDS without progress are a hang
"""
import os
import random
import select
import socket
import sys
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


def serve(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ADDRESS, port))
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


def converse(port, seconds, rng):
    with socket.create_connection((ADDRESS, port), timeout=seconds) as sock:
        offset = 0
        for _ in range(rng.randrange(1, 200)):
            size, got = rng.choice(SIZES), 0
            sock.sendall(pattern(offset, size))
            while got < size:
                data = sock.recv(size - got)
                if not data:
                    return
                if data != pattern(offset + got, len(data)):
                    give_up(f"wrong bytes at the client, from {offset + got} on")
                got += len(data)
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


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    call(int(sys.argv[2]), float(sys.argv[3]))

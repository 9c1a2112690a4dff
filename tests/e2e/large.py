# SPDX-License-Identifier: BSD-3-Clause
"""Programs that send and receive much with each call, and are disturbed while they do.

    large.py sink ADDRESS PORT HOW      takes one connection, checks each byte, says what it saw as a JSON line
    large.py source ADDRESS PORT HOW    sends

Memory that a call has given back is filled with something else at once, and what lies behind the bytes that a call has
received must not change.
"""
import errno
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

MIB = 1 << 20
TOTAL = 48 * MIB
BLOCK = random.Random(1).randbytes(MIB + 13)
CANARY = 0xa5


def expected(at, size):
    at %= len(BLOCK)
    return (BLOCK * ((at + size) // len(BLOCK) + 1))[at:at + size]


def timeval(seconds):
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def every(seconds):
    """A signal whose handler does not restart calls."""
    signal.signal(signal.SIGALRM, lambda *_: count(signals=1))
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


seen = {}


def count(**what):
    for k, v in what.items():
        seen[k] = seen.get(k, 0) + v


# --- sending ---

def send(s, memory):
    """All of it; what a call has taken is overwritten as soon as the call is over."""
    view, at = memoryview(memory), 0
    while at < len(view):
        try:
            n = s.send(view[at:])
        except BlockingIOError:
            count(timeouts=1)
            continue
        if n < len(view) - at:
            count(short=1)
        view[at:at + n] = bytes(n)
        at += n
        count(bytes=n)


def whole(s):
    send(s, bytearray(expected(0, TOTAL)))


def pieces(s):
    """A header and a body with each call, of sizes around what is large."""
    sizes, at = random.Random(2), 0
    while at < TOTAL:
        size = sizes.choice([1, 5000, MIB - 21, MIB + 7, 5 * MIB])
        body = bytearray(expected(at + 20, size))
        n = s.sendmsg([expected(at, 20), body])
        body[:] = bytes(size)
        at += n
        count(bytes=n)
    count(calls=1)


def with_signals(s):
    every(0.003)
    whole(s)
    signal.setitimer(signal.ITIMER_REAL, 0)


def with_timeouts(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(0.05))
    whole(s)


def by_threads(s):
    """Each has a letter of its own."""
    def one(letter):
        for _ in range(4):
            s.sendall(bytes([letter]) * 3 * MIB)
    threads = [threading.Thread(target=one, args=(letter,)) for letter in b"abcd"]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def with_children(s):
    t = threading.Thread(target=whole, args=(s,))
    t.start()
    while t.is_alive():
        subprocess.run(["/bin/true"], check=True)
        count(children=1)
    t.join()


def shut_meanwhile(s):
    """Another thread shuts the connection while this one sends: it returns with what the peer can have."""
    memory = bytearray(expected(0, TOTAL))
    threading.Timer(0.5, lambda: s.shutdown(socket.SHUT_WR)).start()
    try:
        send(s, memory)
    except BrokenPipeError:
        count(broken=1)


def closed_meanwhile(s):
    """Another thread closes the descriptor: the call goes on."""
    memory = bytearray(expected(0, TOTAL))
    threading.Timer(0.5, lambda: os.close(s.fileno())).start()
    send(s, memory)
    s.detach()


def until_reset(s):
    try:
        while True:
            send(s, bytearray(expected(0, 8 * MIB)))
    except OSError as e:
        count(**{errno.errorcode[e.errno]: 1})


def in_two_parts(s):
    send(s, bytearray(expected(0, 5 * MIB)))
    time.sleep(1)
    send(s, bytearray(expected(5 * MIB, TOTAL - 5 * MIB)))


# --- receiving ---

def receive(s, memory, flags=0, size=None):
    """One call's bytes, checked; nothing else may have been written."""
    size = size or len(memory)
    n = s.recv_into(memory, size, flags)
    at = seen.get("bytes", 0)
    if memory[:n] != expected(at, n):
        raise ValueError(f"wrong bytes from {at} on")
    return n


def untouched(memory, n):
    if any(b != CANARY for b in memory[n:n + 65536]):
        raise ValueError(f"something was written behind {n} bytes")


def all_of_it(s, size=256 << 10, flags=0, pause=None):
    memory = bytearray(size)
    while n := receive(s, memory, flags):
        count(bytes=n, calls=1)
        if pause and seen["bytes"] > pause:
            pause = None
            time.sleep(1)


def waiting_for_all(s):
    memory = bytearray(7 * MIB)
    while n := receive(s, memory, socket.MSG_WAITALL):
        count(bytes=n, calls=1, full=n == len(memory))


def peeking(s):
    memory, peeked = bytearray(MIB), bytearray(100000)
    while n := receive(s, peeked, socket.MSG_PEEK):
        n = receive(s, memory)
        count(bytes=n)


def disturbed(s):
    """A partial result: what is behind it stays as it was, also when more comes."""
    memory = bytearray([CANARY]) * (20 * MIB)
    n = receive(s, memory, socket.MSG_WAITALL)
    count(bytes=n, partial=n < len(memory))
    time.sleep(1.5)
    untouched(memory, n)
    all_of_it(s)


def timing_out(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(0.4))
    try:
        disturbed(s)
    except BlockingIOError:
        count(timeouts=1)


def interrupted(s):
    signal.signal(signal.SIGALRM, lambda *_: count(signals=1))
    signal.setitimer(signal.ITIMER_REAL, 0.6)
    disturbed(s)


def letters(s):
    memory = bytearray(MIB)
    while n := s.recv_into(memory):
        count(bytes=n, **{letter: memory.count(letter.encode(), 0, n) for letter in "abcd"})


def leaving(s):
    memory = bytearray(4 * MIB)
    receive(s, memory, socket.MSG_WAITALL)


def non_blocking(s):
    s.setblocking(False)
    memory = bytearray(MIB)
    while True:
        try:
            n = receive(s, memory)
        except BlockingIOError:
            continue
        if not n:
            break
        count(bytes=n)


SINKS = {"plain": all_of_it, "waitall": waiting_for_all, "peek": peeking, "timeout": timing_out, "signal": interrupted,
         "letters": letters, "leave": leaving, "nonblock": non_blocking, "late": lambda s: all_of_it(s, pause=3 * MIB)}
SOURCES = {"whole": whole, "pieces": pieces, "signals": with_signals, "timeouts": with_timeouts, "threads": by_threads,
           "children": with_children, "shut": shut_meanwhile, "closed": closed_meanwhile, "reset": until_reset,
           "parts": in_two_parts}


def main():
    role, address, port, how = sys.argv[1:]
    if role == "sink":
        with socket.create_server((address, int(port))) as listener:
            s, _ = listener.accept()
        with s:
            SINKS[how](s)
    else:
        s = socket.create_connection((address, int(port)))
        SOURCES[how](s)
        s.close()
    print(json.dumps(seen), flush=True)


main()

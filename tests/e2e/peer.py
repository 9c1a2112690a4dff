# SPDX-License-Identifier: BSD-3-Clause
"""The plain sockets programs of the scenarios. They know nothing of Sandirect, and say what they saw as JSON lines."""
import argparse
import asyncio
import errno
import hashlib
import json
import os
import random
import select
import selectors
import socket
import subprocess
import sys
import threading
import time


def tell(**what):
    print(json.dumps(what), flush=True)


def name_of(e):
    return errno.errorcode.get(e.errno, str(e)) if isinstance(e, OSError) else type(e).__name__


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(o):
    s = socket.socket(family_of(o.address), socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((o.address, o.port))
    s.listen(1024)
    return s


def pattern(seed, size):
    return random.Random(seed).randbytes(size)


def recv_exactly(s, size):
    parts, left = [], size
    while left:
        b = s.recv(min(left, 1 << 20))
        if not b:
            raise EOFError
        parts.append(b)
        left -= len(b)
    return b"".join(parts)


# --- echo server, in each way of waiting ---

def echo_blocking(c):
    with c:
        try:
            while b := c.recv(1 << 16):
                c.sendall(b)
        except OSError as e:
            tell(event=name_of(e))


def serve_threads(listener, o):
    n = 0
    while not o.connections or n < o.connections:
        c, _ = listener.accept()
        n += 1
        threading.Thread(target=echo_blocking, args=(c,), daemon=not o.connections).start()


def serve_events(listener, o):
    s = {"select": selectors.SelectSelector, "poll": selectors.PollSelector, "epoll": selectors.EpollSelector}[o.wait]()
    listener.setblocking(False)
    s.register(listener, selectors.EVENT_READ)
    pending, accepted, closed = {}, 0, 0

    def drop(c):
        s.unregister(c)
        del pending[c]
        c.close()

    while not o.connections or closed < o.connections:
        for key, events in s.select():
            c = key.fileobj
            if c is listener:
                try:
                    c, _ = listener.accept()
                except BlockingIOError:
                    continue
                c.setblocking(False)
                accepted += 1
                pending[c] = bytearray()
                s.register(c, selectors.EVENT_READ)
                continue
            try:
                if events & selectors.EVENT_READ:
                    b = c.recv(1 << 16)
                    if not b:
                        drop(c)
                        closed += 1
                        continue
                    pending[c] += b
                if pending[c]:
                    n = c.send(pending[c])
                    del pending[c][:n]
            except BlockingIOError:
                pass
            except OSError as e:
                tell(event=name_of(e))
                drop(c)
                closed += 1
                continue
            # More input only once the output is out: an echo must not grow without end.
            s.modify(c, selectors.EVENT_WRITE if pending[c] else selectors.EVENT_READ)


def serve(o):
    listener = listen(o)
    tell(listening=o.port)
    (serve_threads if o.wait == "thread" else serve_events)(listener, o)


# --- clients ---

def connect_blocking(o):
    s = socket.socket(family_of(o.address), socket.SOCK_STREAM)
    s.settimeout(None)
    s.connect((o.address, o.port))
    return s


def connect_nonblocking(o):
    """As event loops do it: registered with epoll before the outcome is known."""
    s = socket.socket(family_of(o.address), socket.SOCK_STREAM)
    s.setblocking(False)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    r = s.connect_ex((o.address, o.port))
    if r not in (0, errno.EINPROGRESS):
        raise OSError(r, os.strerror(r))
    ep = select.epoll()
    ep.register(s, select.EPOLLOUT)
    if not ep.poll(20):
        raise TimeoutError
    ep.close()
    r = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if r:
        raise OSError(r, os.strerror(r))
    if s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0:
        raise ValueError("TCP_NODELAY was lost")
    s.getpeername()
    s.setblocking(True)
    return s


def ask(o):
    """Connects a few times, echoes, tells what each connect took. With --hold the last connections stay open."""
    held = []
    for i in range(o.times):
        start = time.monotonic()
        try:
            s = (connect_nonblocking if o.nonblocking else connect_blocking)(o)
        except OSError as e:
            tell(error=name_of(e), seconds=time.monotonic() - start)
            continue
        took = time.monotonic() - start
        data = pattern(i, o.bytes)
        sender = threading.Thread(target=s.sendall, args=(data,))
        sender.start()
        same = recv_exactly(s, o.bytes) == data
        sender.join()
        tell(connected=took, same=same, local=s.getsockname()[:2], peer=s.getpeername()[:2])
        if o.hold:
            held.append(s)
        else:
            s.close()
    if o.hold:
        tell(holding=len(held))
        sys.stdin.readline()
    for s in held:
        s.sendall(b"bye")
        if recv_exactly(s, 3) != b"bye":
            raise ValueError("echo")
        s.close()
    tell(done=True)


def many_client(o, index, failures, barrier):
    data = pattern(index, o.bytes)
    try:
        s = connect_blocking(o)
        barrier.wait(120)
        # The ways in which programs send and wait.
        for i in range(o.times):
            if index % 3 == 0:
                s.sendall(data)
            elif index % 3 == 1:
                while (n := s.sendmsg([data[:100], data[100:]])) != len(data):
                    s.sendall(data[n:])
                    break
            else:
                s.settimeout(60)
                s.sendall(data)
            if recv_exactly(s, len(data)) != data:
                raise ValueError("wrong bytes")
        s.close()
    except Exception as e:
        failures.append(f"{index}: {name_of(e)}")


def many(o):
    """Many connections, all open at once, each from a thread."""
    failures, barrier = [], threading.Barrier(o.connections)
    threading.stack_size(256 << 10)
    threads = [threading.Thread(target=many_client, args=(o, i, failures, barrier)) for i in range(o.connections)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    tell(connections=o.connections, failures=failures[:5], failed=len(failures))


# --- transfers that are cut off ---

def helper():
    """A program that lives on with whatever descriptors it got."""
    p = subprocess.Popen(["sleep", "300"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    tell(helper=p.pid)


def cut_off(s, o):
    """Moves bytes until the connection ends, and tells how it ended and when."""
    block, total, told = b"x" * 65536, 0, False
    try:
        while True:
            if o.direction == "send":
                total += s.send(block)
            elif o.direction == "epoll":
                ep = select.epoll()
                ep.register(s, select.EPOLLIN)
                ep.poll()
                ep.close()
                b = s.recv(65536)
                if not b:
                    raise EOFError
                total += len(b)
            else:
                b = s.recv(65536)
                if not b:
                    raise EOFError
                total += len(b)
            if not told and total > 1 << 20:
                told = True
                tell(flowing=total)
    except (OSError, EOFError) as e:
        tell(ended=name_of(e), at=time.time(), bytes=total)
    s.close()


def flow(o):
    """Again and again: a server accepts the next one, a client reconnects when it gets a line."""
    listener = None
    if o.role == "server":
        listener = listen(o)
        tell(listening=o.port)
    first = True
    while True:
        if listener:
            s, _ = listener.accept()
        else:
            if not first and not sys.stdin.readline():
                return
            start = time.monotonic()
            try:
                s = connect_blocking(o)
            except OSError as e:
                tell(error=name_of(e), seconds=time.monotonic() - start)
                first = False
                continue
        tell(connected=True)
        if first and o.helper:
            helper()
        first = False
        cut_off(s, o)


# --- the rest ---

def half_close(o):
    """Sends, shuts down, and only then reads: the server sees EOF while its own direction still works."""
    data = pattern(7, o.bytes)
    s = connect_blocking(o)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    digest = b""
    while b := s.recv(1000):
        digest += b
    try:
        s.send(b"x")
        after = None
    except OSError as e:
        after = name_of(e)
    tell(same=digest.decode() == hashlib.sha256(data).hexdigest(), after=after)


def digest_server(o):
    """Reads until EOF, answers with the digest of what came."""
    listener = listen(o)
    tell(listening=o.port)
    for _ in range(o.times):
        c, _ = listener.accept()
        h = hashlib.sha256()
        while b := c.recv(1 << 16):
            h.update(b)
        c.sendall(h.hexdigest().encode())
        c.close()


def mute(o):
    """Accepts and says nothing."""
    listener = listen(o)
    tell(listening=o.port)
    held = []
    while True:
        held.append(listener.accept())


def udp_server(o):
    s = socket.socket(family_of(o.address), socket.SOCK_DGRAM)
    s.bind((o.address, o.port))
    tell(listening=o.port)
    for _ in range(o.times):
        b, a = s.recvfrom(65536)
        s.sendto(b, a)


def udp_client(o):
    s = socket.socket(family_of(o.address), socket.SOCK_DGRAM)
    s.settimeout(10)
    good = 0
    for i in range(o.times):
        data = pattern(i, 1 + i * 37 % 1400)
        if i % 2:
            s.sendto(data, (o.address, o.port))
        else:
            s.connect((o.address, o.port))
            s.send(data)
        good += s.recv(65536) == data
    tell(good=good)


async def aio_echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def aio_serve(o):
    server = await asyncio.start_server(aio_echo, o.address, o.port, backlog=1024)
    async with server:
        await server.serve_forever()


async def aio_one(o, index):
    reader, writer = await asyncio.open_connection(o.address, o.port)
    data = pattern(index, o.bytes)
    writer.write(data)
    writer.write_eof()
    same = await reader.read(-1) == data
    writer.close()
    await writer.wait_closed()
    return same


async def aio_ask(o):
    good = sum(await asyncio.gather(*[aio_one(o, i) for i in range(o.connections)]))
    reader, writer = await asyncio.open_connection(o.address, o.port)
    timeouts = 0
    try:
        await asyncio.wait_for(reader.read(1), 0.1)
    except asyncio.TimeoutError:
        timeouts += 1
    writer.close()
    tell(good=good, timeouts=timeouts)


def aio_server(o):
    asyncio.run(aio_serve(o))


def aio_client(o):
    asyncio.run(aio_ask(o))


COMMANDS = {"serve": serve, "ask": ask, "many": many, "flow": flow, "half-close": half_close,
            "digest-server": digest_server, "aio-server": aio_server, "aio-client": aio_client, "mute": mute, "udp-server": udp_server, "udp-client": udp_client}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("command", choices=COMMANDS)
    p.add_argument("address")
    p.add_argument("port", type=int)
    p.add_argument("--wait", choices=["thread", "select", "poll", "epoll"], default="epoll")
    p.add_argument("--connections", type=int, default=0)
    p.add_argument("--times", type=int, default=1)
    p.add_argument("--bytes", type=int, default=100000)
    p.add_argument("--nonblocking", action="store_true")
    p.add_argument("--hold", action="store_true")
    p.add_argument("--role", choices=["server", "client"])
    p.add_argument("--direction", choices=["send", "recv", "epoll"])
    p.add_argument("--helper", action="store_true")
    o = p.parse_args()
    COMMANDS[o.command](o)


main()

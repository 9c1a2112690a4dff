# SPDX-License-Identifier: BSD-3-Clause
"""Programs that share sockets with others: they fork, execute, spawn, and pass descriptors. They know nothing of Sandirect.

    sharer.py COMMAND PORT [WORD...]        says what it saw as JSON lines
"""
import http.client
import json
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import socket
import socketserver
import subprocess
import sys
import time
from collections import Counter

ADDRESS = "127.0.0.1"
BLOCK = 30000  # what each of several processes handles of one connection


def tell(**what):
    print(json.dumps(what), flush=True)


def listen(port, reuse_port=False):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((ADDRESS, port))
    s.listen(512)
    return s


def connect(port):
    s = socket.create_connection((ADDRESS, port), timeout=10)
    s.settimeout(None)
    return s


def echo(c, size=None):
    """So many bytes, or until the end."""
    while size is None or size:
        b = c.recv(min(size or 65536, 65536))
        if not b:
            break
        c.sendall(b)
        size = size and size - len(b)


def exactly(c, size):
    data = b""
    while len(data) < size:
        b = c.recv(size - len(data))
        if not b:
            raise EOFError
        data += b
    return data


def rest(c):
    data = b""
    while b := c.recv(65536):
        data += b
    return data


def pattern(size):
    return bytes(i % 251 for i in range(size))


# --- clients ---

def requests(port, path, size):
    """HTTP, a connection for each, until a line comes."""
    good, failures, text = 0, [], None
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            c = http.client.HTTPConnection(ADDRESS, port, timeout=10)
            c.request("GET", path)
            r = c.getresponse()
            body = r.read()
            text = text or body
            if r.status != 200 or body != text or len(body) != int(size):
                raise ValueError(f"{r.status}, {len(body)} bytes")
            c.close()
            good += 1
        except Exception as e:
            failures.append(f"{good}: {e!r}")
    tell(good=good, failed=len(failures), failures=failures[:5])


def calls(port, count):
    """One connection after the other: says a word, reads until the end; who answered how often."""
    answers, failures = Counter(), []
    for i in range(int(count)):
        try:
            with connect(port) as c:
                c.settimeout(10)
                c.sendall(b"word %d\n" % i)
                who, word, n = rest(c).split()
                if (word, int(n)) != (b"word", i):
                    raise ValueError(f"{who} {word} {n}")
                answers[who.decode()] += 1
        except Exception as e:
            failures.append(f"{i}: {e!r}")
    tell(answers=answers, failed=len(failures), failures=failures[:5])


def until_end(port, text="hello\n"):
    """Sends, ends its direction, reads the other's: what came, and after which time the end."""
    with connect(port) as c:
        c.sendall(text.encode())
        c.shutdown(socket.SHUT_WR)
        tell(connected=True)
        start, came = time.monotonic(), []
        while b := c.recv(65536):
            came.append((time.monotonic() - start, b.decode()))
        tell(text="".join(b for _, b in came), last=came[-1][0] if came else None, end=time.monotonic() - start)


def wait_end(port):
    """Waits for whatever ends its connection, and tells when."""
    with connect(port) as c:
        tell(connected=True)
        try:
            b, how = c.recv(100), "EOF"
        except OSError as e:
            b, how = b"", type(e).__name__
        tell(ended=how, got=len(b), at=time.time())


def last_words(port, how, size):
    """Its bytes are the last that it does."""
    c = connect(port)
    c.sendall(pattern(int(size)))
    if how == "_exit":
        os._exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exec":
        os.execvp("true", ["true"])
    sys.exit()


def slow_reader(port, count):
    """Begins to read when the other has long ended."""
    s = listen(port)
    tell(listening=port)
    for _ in range(int(count)):
        c, _ = s.accept()
        time.sleep(0.5)
        try:
            b, how = rest(c), "EOF"
        except OSError as e:
            b, how = b"", type(e).__name__
        tell(bytes=len(b), same=b == pattern(len(b)), end=how)
        c.close()


# --- servers that fork ---

def answer(c):
    with c, c.makefile("rb") as f:
        c.sendall(b"%d " % os.getpid() + f.readline())


def prefork(port, count):
    s = listen(port)
    children = []
    for _ in range(int(count)):
        pid = os.fork()
        if not pid:
            while True:
                answer(s.accept()[0])
        children.append(pid)
    tell(children=children)
    signal.pause()


def reuse_port(port):
    s = listen(port, True)
    tell(pid=os.getpid())
    while True:
        answer(s.accept()[0])


class LineHandler(socketserver.BaseRequestHandler):
    def handle(self):
        answer(self.request)


class ForkingServer(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128


def forking_server(port):
    with ForkingServer((ADDRESS, port), LineHandler) as s:
        tell(listening=port)
        s.serve_forever()


connections = []


def serve_one(i):
    echo(connections[i])
    time.sleep(0.5)  # one for each worker
    connections[i].close()
    return os.getpid()


def pool_server(port, count):
    """The connections are there before the workers, who take one each."""
    s = listen(port)
    tell(listening=port)
    for _ in range(int(count)):
        connections.append(s.accept()[0])
    with multiprocessing.get_context("fork").Pool(int(count)) as pool:
        # Its own duplicates: else no peer would see an end.
        job = pool.map_async(serve_one, range(int(count)), chunksize=1)
        tell(workers=len(set(job.get(20))))


def mp_listener(port, count):
    # Its own backlog is 1: what does not find a place waits in TCP.
    with multiprocessing.connection.Listener((ADDRESS, port), backlog=16, authkey=b"key") as s:
        tell(listening=port)
        for _ in range(int(count)):
            with s.accept() as c:
                while (o := c.recv()) is not None:
                    c.send((o, sum(o)))


def mp_one(port):
    with multiprocessing.connection.Client((ADDRESS, port), authkey=b"key") as c:
        for n in (3, 70000):
            c.send(list(range(n)))
            if c.recv() != (list(range(n)), sum(range(n))):
                return False
        c.send(None)
    return True


def mp_client(port, count):
    """Each worker with a connection of its own."""
    with multiprocessing.get_context("fork").Pool(3) as pool:
        tell(good=sum(pool.map(mp_one, [port] * int(count), chunksize=1)))


def holder(port, how):
    """Its helper lives on: forked, with the connection, or executed, without."""
    s = listen(port)
    tell(listening=port)
    c, _ = s.accept()
    if how == "forked":
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
    else:
        pid = subprocess.Popen(["sleep", "60"], close_fds=False).pid
    tell(helper=pid)
    c.recv(1)
    signal.pause()


def in_child(f):
    pid = os.fork()
    if not pid:
        f()
        os._exit(0)
    return pid


def shared_by_two(port, size):
    """Parent and child write to one connection at once, and then read from it at once."""
    size = int(size)
    s = listen(port)
    tell(listening=port)
    c, _ = s.accept()
    pid = in_child(lambda: [c.sendall(b"b" * 1000) for _ in range(size // 1000)])
    for _ in range(size // 1000):
        c.sendall(b"a" * 1000)
    os.waitpid(pid, 0)
    r, w = os.pipe()

    def read():
        total = 0
        while b := c.recv(5000):
            total += len(b)
        os.write(w, b"%d\n" % total)
    pid = in_child(read)
    read()
    os.waitpid(pid, 0)
    tell(read=[int(n) for n in os.read(r, 1000).split()])


def talk_to_two(port, size):
    size = int(size)
    with connect(port) as c:
        b = exactly(c, 2 * size)
        tell(parent=b.count(b"a"), child=b.count(b"b"))
        for _ in range(2 * size // 1000):
            c.sendall(b"c" * 1000)


def executes_itself(port, *listening):
    """Accepts one connection, and becomes itself with the listener: a restart in place."""
    s = socket.socket(fileno=int(listening[0])) if listening else listen(port)
    if not listening:
        tell(listening=port)
    answer(s.accept()[0])
    os.set_inheritable(s.fileno(), True)
    os.execv(sys.executable, [sys.executable, __file__, "executes-itself", str(port), str(s.fileno())])


# --- descriptors that go over a UNIX socket ---

def meet(path, server):
    u = socket.socket(socket.AF_UNIX)
    if server:
        u.bind(path)
        u.listen(4)
        return u
    u.connect(path)
    return u


def give(u, s):
    socket.send_fds(u, [b"socket"], [s.fileno()])
    s.close()


def take(u):
    _, fds, _, _ = socket.recv_fds(u, 100, 4)
    return socket.socket(fileno=fds[0])


def giver(port, path, what):
    """Gives its connection, or its listener, away to the taker, and gets it back."""
    s = listen(port) if what != "client" else None
    tell(listening=port)
    c = s.accept()[0] if what == "server" else connect(port) if what == "client" else s
    if what == "server":
        echo(c, BLOCK)
    elif what == "client":
        c.sendall(b"giver")
        assert exactly(c, 5) == b"giver"
    u = meet(path, False)
    name = c.getsockname()
    give(u, c)
    c = take(u)
    assert c.getsockname() == name, (c.getsockname(), name)
    if what == "listener":
        c = c.accept()[0]
    if what == "client":
        c.sendall(b"again")
        assert exactly(c, 5) == b"again"
        c.close()
    else:
        echo(c)
    tell(done="giver")


def taker(port, path, what):
    u = meet(path, True)
    tell(ready=True)
    u = u.accept()[0]
    c = take(u)
    if what == "listener":
        echo(c.accept()[0])
    elif what == "server":
        tell(peer=c.getpeername()[0])
        echo(c, BLOCK)
    else:
        c.sendall(b"x" * BLOCK)
        assert exactly(c, BLOCK) == b"x" * BLOCK
    give(u, c)
    tell(done="taker")
    signal.pause()


# --- descriptors that programs are started with ---

def activate(port, *argv):
    """As systemd-socket-activate does it: becomes the program, whose descriptor 3 listens."""
    s = listen(port)
    os.dup2(s.fileno(), 3)
    if s.fileno() == 3:
        os.set_inheritable(3, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execvp(argv[0], argv)


def activated(port):
    assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
    s = socket.socket(fileno=3)
    tell(listening=s.getsockname()[1])
    while True:
        echo(s.accept()[0])


def inetd(port):
    """Starts its program for the first connection, and waits again when that has ended ("wait")."""
    s = listen(port)
    tell(listening=port)
    while True:
        p = select.poll()
        p.register(s, select.POLLIN)
        p.poll()
        subprocess.run([sys.executable, __file__, "inetd-child", str(port)], stdin=s, check=True)


def inetd_child(port):
    s = socket.socket(fileno=0)
    s.settimeout(5)
    c, _ = s.accept()
    c.settimeout(None)
    answer(c)


def spawner(port, how, *argv):
    """The program gets the connection as its input and output; nobody else keeps it."""
    s = listen(port)
    tell(listening=port)
    while True:
        c, _ = s.accept()
        if how == "vfork":
            p = subprocess.Popen(argv, stdin=c, stdout=c).pid
        elif how == "posix_spawn":
            p = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[
                (os.POSIX_SPAWN_DUP2, c.fileno(), 0), (os.POSIX_SPAWN_DUP2, c.fileno(), 1)])
        else:
            p = os.fork()
            if not p:
                os.dup2(c.fileno(), 0)
                os.dup2(c.fileno(), 1)
                os.execvp(argv[0], argv)
        c.close()
        tell(child=p)
        os.waitpid(p, 0)
        tell(ended=p, at=time.time())


def become(port, *argv):
    """Its connection is the input of a program that never looks at it."""
    s = listen(port)
    tell(listening=port)
    c, _ = s.accept()
    tell(accepted=True)
    os.dup2(c.fileno(), 0)
    os.execvp(argv[0], argv)


COMMANDS = {f.__name__.replace("_", "-"): f for f in (
    requests, calls, until_end, wait_end, last_words, slow_reader, prefork, reuse_port, forking_server, pool_server,
    shared_by_two, talk_to_two, executes_itself, mp_listener, mp_client, holder, giver, taker, activate, activated,
    inetd, inetd_child, spawner, become)}

COMMANDS[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])

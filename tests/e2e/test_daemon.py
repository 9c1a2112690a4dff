# SPDX-License-Identifier: BSD-3-Clause
"""Connections between programs of one host: they go with forks, programs that are executed, and descriptors that are passed."""
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from daemon import ADDRESS, PORT, PYTHON, SHARER, USER, Daemon, ask, calls, event, rights, serve
from harness import KERNEL_ONLY, SLOW, check, equal, main, need, say, scenario, until

OPTIONS = Path(__file__).with_name("options.py")

# --- forks ---

@scenario
def multiprocessing_pool_with_inherited_connections():
    with Daemon() as d, d.no_segments():
        server = serve(d, "pool-server", 4)
        clients = [d.peer("ask", PORT, "--bytes", 300000) for _ in range(4)]
        for c in clients:
            c.wait(15)
            check(json.loads(c.lines()[0])["same"], f"{c}: other bytes")
        server.wait(15)
        equal(server.json()["workers"], 4, "workers")
        d.check_made(4, 4)


@scenario
def multiprocessing_connection():
    with Daemon() as d, d.no_segments():
        server = serve(d, "mp-listener", 12)
        client = d.sharer("mp-client", PORT, 12)
        client.wait(15)
        equal(client.json()["good"], 12, "good connections")
        server.wait(5)
        d.check_made(12, 12)


@scenario
def socketserver_forking():
    with Daemon() as d, d.no_segments():
        serve(d, "forking-server")
        equal(len(calls(d, 50)), 50, "processes that answered")
        d.check_made(50, 50)


@scenario
def prefork():
    """Four accept from one listener; two of them are killed."""
    with Daemon() as d, d.no_segments():
        server = d.sharer("prefork", PORT, 4)
        children = event(server, "children")["children"]
        server.until_listening(PORT)
        d.until_listeners(1)
        say(calls(d, 200))
        d.check_made(200, 200)
        for pid in children[:2]:
            os.kill(pid, signal.SIGKILL)
        answers = calls(d, 100)
        say(answers)
        check(not {str(c) for c in children[:2]} & set(answers), "a dead child answered")
        d.check_made(100, 100)


@scenario
def reuse_port_group():
    with Daemon() as d:
        group = [d.sharer("reuse-port", PORT) for _ in range(3)]
        for p in group:
            event(p, "pid")
        d.until_listeners(1)
        say(calls(d, 90))
        for p in group[:2]:
            p.kill()
            time.sleep(0.3)
            say(calls(d, 40))
        d.check_made(170)


@scenario
def one_connection_in_two_processes():
    """Both write at once, and both read at once: nothing is lost or doubled."""
    size = 2000000
    with Daemon() as d, d.no_segments():
        server = serve(d, "shared-by-two", size)
        client = d.sharer("talk-to-two", PORT, size)
        client.wait(15)
        equal(client.json(), {"parent": size, "child": size}, "bytes of each")
        server.wait(15)
        say(server.json())
        equal(sum(server.json()["read"]), 2 * size, "bytes that both have read")
        d.check_made(1, 1)


# --- execve, posix_spawn, vfork ---

def activation_parent(d, *argv, how):
    """Not under Sandirect; what it becomes is."""
    p = d.run(PYTHON, SHARER, "activate", PORT, *d.through(), *argv, how=how, preload=True,
              name="activate")
    p.until_listening(PORT)
    return p


@scenario
def socket_activation():
    """The listener is older than anything of Sandirect in its process."""
    with Daemon() as d, d.no_segments():
        server = activation_parent(d, PYTHON, SHARER, "activated", PORT, how="exec")
        event(server, "listening")
        d.until_listeners(1)
        ask(d, 20)
        d.check_made(20, 20)


@scenario
def socket_activation_twice():
    """The one that binds is under Sandirect itself, and its listener goes over two programs."""
    with Daemon() as d, d.no_segments():
        server = activation_parent(d, PYTHON, SHARER, "activated", PORT, how="run")
        event(server, "listening")
        d.until_listeners(1)
        ask(d, 20)
        d.check_made(20, 20)


@scenario
def inetd_that_waits():
    with Daemon() as d, d.no_segments():
        serve(d, "inetd")
        equal(len(calls(d, 8)), 8, "processes that answered")
        d.check_made(8, 8)


@scenario
def server_that_executes_itself():
    """With its listener, which has accepted before."""
    with Daemon() as d:
        server = serve(d, "executes-itself")
        for _ in range(5):
            calls(d, 1)
            check(server.running(), "the server has ended")
        # While it begins again, they come through the kernel.
        d.check_made(1, 5)


def spawned(how):
    """Its peer sees the end when the last process has ended, not when the parent closes its own."""
    with Daemon() as d, d.no_segments():
        server = serve(d, "spawner", how, "sh", "-c", "cat; sleep 0.7; echo bye")
        for _ in range(3):
            p = d.sharer("until-end", PORT)
            p.wait(10)
            got = p.json()
            equal(got["text"], "hello\nbye\n", "what came")
            check(0.6 < got["last"] <= got["end"] < got["last"] + 1 * SLOW, f"{got}")
        say(got)
        check(server.running(), "the parent has ended")
        d.check_made(3, 3)


@scenario
def forked_and_executed():
    spawned("fork")


@scenario
def spawned_by_vfork():
    spawned("vfork")


@scenario
def spawned_by_posix_spawn():
    spawned("posix_spawn")


@scenario
def executed_without_a_look_at_it():
    """The program has the connection as its input and does not know; its end is the connection's."""
    with Daemon() as d, d.no_segments():
        p = serve(d, "become", "sleep", 1.5)
        client = d.sharer("wait-end", PORT)
        event(client, "connected")
        until(lambda: "accepted" in p.output() and os.readlink(f"/proc/{p.pid}/exe").endswith("sleep"), 5, "sleep")
        time.sleep(0.5)
        check("ended" not in client.output(), "an end while the program still ran")
        d.check_made(1, 1)
        p.wait(5)
        ended = time.time()
        client.wait(5)
        equal((client.json()["ended"], client.json()["got"]), ("EOF", 0), "the end")
        check(client.json()["at"] < ended + 1 * SLOW, "the end came late")


@scenario
def socat_forks_and_executes():
    need("socat")
    with Daemon() as d, d.no_segments():
        server = d.run("socat", f"TCP-LISTEN:{PORT},bind={ADDRESS},fork,reuseaddr", "EXEC:tr a-z A-Z")
        server.until_listening(PORT)
        d.until_listeners(1)
        for i in range(10):
            p = d.run("socat", "-t", "5", "-", f"TCP:{ADDRESS}:{PORT}", stdin=subprocess.PIPE)
            p.tell(f"line {i}")
            p.process.stdin.close()
            p.wait(10)
            equal(p.output(), f"LINE {i}\n", "what came back")
        d.check_made(10, 10)


# --- SCM_RIGHTS ---

def handed_over(what):
    """From one process to another that knows nothing of it, and back."""
    with Daemon() as d, d.no_segments():
        path = f"{d.dir}/meet"
        taker = d.sharer("taker", PORT, path, what)
        event(taker, "ready")
        if what == "client":
            serve(d)
        giver = d.sharer("giver", PORT, path, what)
        event(giver, "listening")
        for _ in range(0 if what == "client" else 2 if what == "listener" else 1):
            if what == "server":
                giver.until_listening(PORT)
            d.until_listeners(1)
            ask(d)
        giver.wait(10)
        event(taker, "done")
        d.check_made(2 if what == "listener" else 1)


@scenario
def accepted_connection_handed_over():
    handed_over("server")


@scenario
def client_connection_handed_over():
    handed_over("client")


@scenario
def listener_handed_over():
    handed_over("listener")


# --- others ---

@scenario
def clients_on_both_paths():
    """Those that do not run under Sandirect get the kernel's side of the same listener."""
    with Daemon() as d:
        server = serve(d)
        for _ in range(3):
            ask(d, 3)
            ask(d, 3, how="exec")
        d.check_made(9, 9)
        check(KERNEL_ONLY or d.stat(server)["tcp_total"] == 9, "connections on TCP")


CONNECTS_AT_ONCE = """
import select, socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[3]))]
poll = select.poll()
for s in sockets:
    s.setblocking(False)
    s.connect_ex((sys.argv[1], int(sys.argv[2])))
    poll.register(s, select.POLLOUT)
print("connecting", flush=True)
left = {s.fileno(): s for s in sockets}
while left:
    for fd, _ in poll.poll():
        error = left.pop(fd).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert not error, error
        poll.unregister(fd)
print("connected", flush=True)
sys.stdin.read()
"""


@scenario
def many_connects_while_the_daemon_is_slow():
    """More than the daemon's queue has room for: the program waits, and all take the SAN path."""
    times = 1000
    with Daemon() as d:
        serve(d)
        os.kill(d.pid, signal.SIGSTOP)
        p = d.run(PYTHON, "-c", CONNECTS_AT_ONCE, ADDRESS, PORT, times, stdin=subprocess.PIPE)
        time.sleep(0.5)
        check("connecting" not in p.output(), "the daemon's queue has room for all of them")
        os.kill(d.pid, signal.SIGCONT)
        p.until_line("connected", 20)
        equal(d.stat(p)["san_total"], times, f"connections on the SAN path; {d.stat(p)['by_reason']}")


@scenario
def stat_counts_bytes():
    with Daemon() as d:
        server = serve(d)
        client = d.peer("ask", PORT, "--hold", "--bytes", 500000, stdin=subprocess.PIPE)
        client.until_line("holding")
        for p in (server, client):
            until(lambda: all((r["bytes_in"], r["bytes_out"]) == (500000, 500000) for r in d.until_san(p)), 3,
                  lambda: f"bytes of {p} in {d.until_san(p)}")


# --- rules ---

@scenario
def rules_change_while_connections_last():
    """The daemon reads its rules again on SIGHUP: for connections from then on, of programs that run already."""
    with Daemon() as d:
        server = serve(d)
        client = d.peer("ask", PORT, "--hold", "--bytes", 100000, stdin=subprocess.PIPE)
        client.until_line("holding")
        d.until_san(client)
        d.check_made(1, 1)
        text = Path(d.config).read_text()
        Path(d.config).write_text(text + f"[rules]\nrule = tcp role=server port={PORT}\n")
        d.reload()
        ask(d, 2)
        d.check_made(0, 0)
        Path(d.config).write_text(text + "[rules]\nrule = nonsense\n")
        d.reload()
        Path(d.config).write_text(text)
        d.reload()
        ask(d, 2)
        d.check_made(2, 2)
        client.tell("go")
        client.wait(10)
        check(server.running(), "the server has ended")


# --- users ---

def opens(user, pid):
    """What of the process's files and mappings another user may open."""
    script = ("import os, sys\nfound = []\nfor d in ('fd', 'map_files'):\n    try:\n"
              "        for n in os.listdir(f'/proc/{sys.argv[1]}/{d}'):\n            try:\n"
              "                os.close(os.open(f'/proc/{sys.argv[1]}/{d}/{n}', os.O_RDWR)); found.append(n)\n"
              "            except OSError: pass\n    except OSError: pass\nprint(len(found))")
    r = subprocess.run([*rights(user), PYTHON, "-c", script, str(pid)], capture_output=True, text=True)
    equal(r.returncode, 0, r.stderr)
    return int(r.stdout)


@scenario
def memory_is_the_two_users_own():
    """Programs of two users talk; a third one, and the daemon's own user, get at none of it."""
    with Daemon() as d, d.no_segments():
        server = serve(d)
        client = d.peer("ask", PORT, "--hold", "--bytes", 100000, stdin=subprocess.PIPE, user="games")
        client.until_line("holding")
        d.until_san(client)
        mapped = Path(f"/proc/{server.pid}/maps").read_text().count("memfd:sandirect")
        check(KERNEL_ONLY or mapped >= 1, "the server has mapped no segment")
        for user in ("bin", USER, "games"):
            equal(opens(user, d.pid), 0, f"files of the daemon that {user} may open")
        equal(opens("bin", server.pid) + opens("bin", client.pid), 0, "files of the two that a third may open")
        equal(opens("games", server.pid), 0, "files of the server that the client's user may open")
        client.tell("go")
        client.wait(10, status=None)


# --- ends ---

@scenario
def last_words():
    """What was written right before the end arrives, whatever the end."""
    ways = ("_exit", "exit", "kill", "exec")
    with Daemon() as d, d.no_segments():
        reader = serve(d, "slow-reader", len(ways))
        for how in ways:
            d.sharer("last-words", PORT, how, 12000).wait(10, status=-signal.SIGKILL if how == "kill" else 0)
        reader.wait(10)
        for how, line in zip(ways, reader.lines()[1:]):
            equal(json.loads(line), {"bytes": 12000, "same": True, "end": "EOF"}, f"after {how}")
        d.check_made(len(ways), len(ways))


def flow(d, role, direction):
    p = d.peer("flow", PORT, "--role", role, "--direction", direction, stdin=subprocess.PIPE)
    if role == "server":
        p.until_listening(PORT)
        d.until_listeners(1)
    return p


@scenario
def killed_in_mid_transfer():
    """The other is told at once, whichever side and direction it is."""
    with Daemon() as d, d.no_segments():
        for victim in ("client", "server"):
            for direction, other in (("send", "recv"), ("recv", "send"), ("epoll", "send")):
                server, client = flow(d, "server", direction), flow(d, "client", other)
                for p in (server, client):
                    event(p, "flowing")
                dead, survivor = (client, server) if victim == "client" else (server, client)
                at = time.time()
                dead.kill()
                end = event(survivor, "ended", 5)
                say(f"{victim} killed, server's {direction}: {end['ended']} after {end['at'] - at:.3f} s")
                check(end["ended"] in ("ECONNRESET", "EOFError", "EPIPE"), f"{survivor} was told {end['ended']}")
                check(end["at"] - at < 1 * SLOW, "it was told late")
                survivor.kill()
                until(lambda: KERNEL_ONLY or not d.counts()["listeners"], 5, "no listener")
        d.check_made(6, 6)


@scenario
def helper_that_was_executed_holds_nothing():
    with Daemon() as d, d.no_segments():
        server = serve(d, "holder", "executed")
        client = d.sharer("wait-end", PORT)
        event(server, "helper")
        event(client, "connected")
        at = time.time()
        server.kill()
        got = event(client, "ended", 5)
        check(got["ended"] in ("EOF", "ConnectionResetError") and got["at"] - at < 1 * SLOW, f"{got}, killed at {at}")
        d.check_made(1, 1)


@scenario
def helper_that_was_forked_holds_it():
    with Daemon() as d, d.no_segments():
        server = serve(d, "holder", "forked")
        client = d.sharer("wait-end", PORT)
        helper = event(server, "helper")["helper"]
        event(client, "connected")
        server.kill()
        time.sleep(1)
        check("ended" not in client.output(), "an end, but the helper has it")
        at = time.time()
        os.kill(helper, signal.SIGKILL)
        got = event(client, "ended", 5)
        check(got["ended"] in ("EOF", "ConnectionResetError") and got["at"] - at < 1 * SLOW, f"{got}, killed at {at}")
        d.check_made(1, 1)


@scenario
def options_of_accepted_connections():
    """Any program that sets and asks them at random sees what it sees with the kernel's TCP."""
    count, seed = 40, os.environ.get("SEED", "1")
    with Daemon() as d:
        answers = []
        for how, port in (("run", PORT), ("exec", PORT + 1)):
            server = d.run(PYTHON, OPTIONS, "server", port, count, seed, how=how, preload=how == "run", name="options")
            server.until_line("listening")
            if how == "run":
                d.until_listeners(1)
            d.run(PYTHON, OPTIONS, "visits", port, count, how=how, preload=how == "run", name="visits").wait(20)
            server.wait(10)
            answers.append(json.loads(server.lines()[-1]))
        d.check_made(count, count)
        for i, (san, kernel) in enumerate(zip(*answers)):
            check(san == kernel, f"{i}: {san} instead of {kernel}")
        equal(len(answers[0]), len(answers[1]), "answers")


MANY_LISTENERS = """
import socket
held = []
for port in range(%d, %d):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.listen()
    held.append(s)
print("listening", flush=True)
held[0].accept()
"""


@scenario
def all_listeners_hear_of_a_new_daemon():
    """More of them than find room in the channel at once."""
    count = 500
    with Daemon() as d:
        p = d.run(PYTHON, "-c", MANY_LISTENERS % (PORT + 100, PORT + 100 + count), name="many")
        p.until_line("listening")
        d.until_listeners(count)
        d.kill()
        d.begin()
        until(lambda: KERNEL_ONLY or d.counts()["listeners"] == count, 35, lambda: f"{count} listeners: {d.counts()}")


@scenario
def daemon_killed_and_started_again():
    """What it made goes on; new ones take TCP until another daemon is there, and the server stays the same."""
    with Daemon() as d:
        server = serve(d)
        held = d.peer("ask", PORT, "--hold", "--times", 2, stdin=subprocess.PIPE)
        held.until_line("holding")
        d.check_made(2, 2)
        d.kill()
        ask(d, 3)
        if not KERNEL_ONLY:
            say(d.stat(server)["by_reason"])
            check(d.stat(server)["tcp_total"] >= 3, "connections on TCP without the daemon")
            d.until_san(server, 2)
        time.sleep(2)
        ask(d)
        d.begin()
        start = time.monotonic()
        until(lambda: KERNEL_ONLY or d.counts()["listeners"], 35, "the server at the new daemon")
        say(f"there after {time.monotonic() - start:.1f} s")
        ask(d, 5)
        d.check_made(5, 5)
        held.tell("go")
        held.wait(10)
        check(held.json()["done"], "a connection that is older than the daemon")
        check(server.running(), "the server has ended")


main()

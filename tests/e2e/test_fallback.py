# SPDX-License-Identifier: BSD-3-Clause
"""Whatever cannot use the SAN works over the kernel's TCP, and stat says why."""
import json
import os
import subprocess

from harness import KERNEL_ONLY, PYTHON, Lab, check, equal, main, say, scenario, until

PORT = 7000
# How a peer shows that has no program under Sandirect: its port has no link, or nobody answers.
ABSENT = ("PEER_SILENT", "PORT_DOWN")
FIND_TIMEOUT = 0.05
ENGINE_START = 1.5  # the EAL, once per process


def ask(lab, host, address, *more, how="run", port=PORT, **popen):
    return lab.peer(host, "ask", address, port, "--hold", *more, how=how, stdin=subprocess.PIPE, **popen)


def finish(*clients):
    for c in clients:
        c.tell("go")
        c.wait()
        for line in c.lines():
            check('"same": false' not in line and "error" not in line, f"{c}: {line}")


def both_kinds(lab, address, path, reason, **more):
    for kind in ((), ("--nonblocking",)):
        c = ask(lab, "h2", address, *kind, **more)
        c.until_line("holding")
        lab.until_path(c, path, reason)
        finish(c)


@scenario
def client_to_plain_server():
    with Lab() as lab:
        lab.peer("h1", "serve", "0.0.0.0", PORT, how="exec").until_listening(PORT)
        both_kinds(lab, lab.address("h1"), "TCP", ABSENT)


@scenario
def client_to_plain_server_ipv6():
    with Lab("udp") as lab:
        lab.peer("h1", "serve", "::", PORT, how="exec").until_listening(PORT)
        both_kinds(lab, lab.address("h1", 6), "TCP", ABSENT)


@scenario
def client_to_plain_server_beside_a_san_one():
    """The host is on the SAN, this port is not listened on there: TCP at once."""
    with Lab() as lab:
        other = lab.peer("h1", "serve", lab.address("h1"), PORT + 1).until_listening(PORT + 1)
        lab.peer("h1", "serve", "0.0.0.0", PORT, how="exec").until_listening(PORT)
        warm = ask(lab, "h2", lab.address("h1"), port=PORT + 1)
        warm.until_line("holding")
        lab.until_san(warm)
        finish(warm)
        both_kinds(lab, lab.address("h1"), "TCP", "PEER_NO_LISTENER")
        check(other.running(), "the SAN server has ended")


@scenario
def plain_client_to_server():
    with Lab() as lab:
        server = lab.peer("h1", "serve", "0.0.0.0", PORT).until_listening(PORT)
        for kind in ((), ("--nonblocking",)):
            c = ask(lab, "h2", lab.address("h1"), *kind, how="exec")
            c.until_line("holding")
            lab.until_path(server, "TCP", ("PEER_TCP", "BACKLOG"))
            finish(c)
        # SAN clients come in beside them.
        tcp, san = ask(lab, "h2", lab.address("h1"), how="exec"), ask(lab, "h2", lab.address("h1"))
        tcp.until_line("holding")
        san.until_line("holding")
        lab.until_san(san)
        lab.until_path(server, "TCP", ("PEER_TCP", "BACKLOG"))
        lab.until_san(server)
        finish(tcp, san)


# Connects, listens, and lets two children accept. Its port is open, and driven, but it waits for the connection only.
PRELOADS = """
import os, socket, sys
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
l = socket.create_server(("0.0.0.0", int(sys.argv[3])))
for i in range(2):
    if not os.fork():
        while True:
            a, _ = l.accept()
            a.sendall(a.recv(100))
            a.close()
c.sendall(b"x")
c.recv(1)
os.killpg(0, 9)
"""
# Has been connected to, and then asks the children.
ASKS = """
import socket, sys
l = socket.create_server((sys.argv[1], int(sys.argv[2])))
a, _ = l.accept()
a.recv(1)
for i in range(8):
    c = socket.create_connection((sys.argv[3], int(sys.argv[4])))
    c.settimeout(5)
    c.sendall(b"%d" % i)
    assert c.recv(100) == b"%d" % i
print("answered", flush=True)
sys.stdin.read()
"""


@scenario
def forked_children_accept():
    """What their parent's SAN side would take they would never see."""
    with Lab() as lab:
        client = lab.run("h2", PYTHON, "-c", ASKS, lab.address("h2"), PORT, lab.address("h1"), PORT + 1, stdin=subprocess.PIPE)
        client.until_listening(PORT)
        lab.run("h1", PYTHON, "-c", PRELOADS, lab.address("h2"), PORT, PORT + 1)
        client.until_line("answered")
        if not KERNEL_ONLY:
            equal(lab.reasons(client), {"SAN": 1, "PEER_NO_LISTENER": 8}, "what carried the connections")


@scenario
def each_way_of_waiting_serves_both():
    with Lab() as lab:
        for i, wait in enumerate(("thread", "select", "poll", "epoll")):
            server = lab.peer("h1", "serve", "0.0.0.0", PORT + i, "--wait", wait).until_listening(PORT + i)
            tcp = ask(lab, "h2", lab.address("h1"), "--times", 3, how="exec", port=PORT + i)
            san = ask(lab, "h2", lab.address("h1"), "--times", 3, port=PORT + i)
            tcp.until_line("holding")
            san.until_line("holding")
            lab.until_san(server, count=3)
            lab.until_path(server, "TCP", count=3)
            finish(tcp, san)
            server.kill()


def connect_times(lab, address, *kind):
    """Of five connects in one process, and what the process is left with."""
    c = ask(lab, "h2", address, "--times", 5, *kind)
    c.until_line("holding")
    lab.until_path(c, "TCP", ABSENT, count=5)
    took = [json.loads(line)["connected"] for line in c.lines() if "connected" in line]
    finish(c)
    say("connects took " + " ".join(f"{t * 1e3:.2f}" for t in took) + " ms")
    return took


@scenario
def second_connect_to_a_silent_host_pays_nothing():
    """h3 has no program under Sandirect; h1 has, so the SAN itself is up."""
    for link in ("veth", "udp"):
        with Lab(link, hosts=3) as lab:
            lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT)
            lab.peer("h3", "serve", "0.0.0.0", PORT, how="exec").until_listening(PORT)
            for kind in ((), ("--nonblocking",)):
                first, *others = connect_times(lab, lab.address("h3"), *kind)
                check(first < ENGINE_START + 10 * FIND_TIMEOUT, f"the first connect took {first:.3f} s")
                check(min(others) < FIND_TIMEOUT / 5, f"later connects took {others} s")
                check(sorted(others)[1] < FIND_TIMEOUT / 2, f"later connects took {others} s")


@scenario
def second_connect_without_a_link_pays_nothing():
    with Lab() as lab:
        lab.peer("h1", "serve", "0.0.0.0", PORT, how="exec").until_listening(PORT)
        first, *others = connect_times(lab, lab.address("h1"))
        check(first < ENGINE_START + 10 * FIND_TIMEOUT, f"the first connect took {first:.3f} s")
        check(sorted(others)[1] < FIND_TIMEOUT / 2, f"later connects took {others} s")


@scenario
def nobody_listens():
    """ECONNREFUSED, in both ways of connecting, whether the peer is on the SAN or not."""
    with Lab() as lab:
        for san in (False, True):
            if san:
                lab.peer("h1", "serve", lab.address("h1"), PORT + 1).until_listening(PORT + 1)
            for kind in ((), ("--nonblocking",)):
                c = lab.peer("h2", "ask", lab.address("h1"), PORT, *kind)
                c.wait()
                equal(next(iter(c.lines())).split('"')[3], "ECONNREFUSED", f"connect {kind}, peer on the SAN: {san}")


@scenario
def other_networks_and_loopback():
    with Lab() as lab:
        lab.peer("h1", "serve", "0.0.0.0", PORT).until_listening(PORT)
        both_kinds(lab, lab.address("h1", net="lan"), "TCP", "NO_ROUTE")
        server = lab.peer("h2", "serve", "0.0.0.0", PORT, how="exec").until_listening(PORT)
        both_kinds(lab, "127.0.0.1", "TCP", ("LOCAL", "NO_ROUTE"))
        both_kinds(lab, lab.address("h2"), "TCP", ("LOCAL", "NO_ROUTE"))
        check(server.running(), "the server has ended")


@scenario
def rules_and_switches():
    with Lab() as lab:
        lab.peer("h1", "serve", "0.0.0.0", PORT).until_listening(PORT)
        rule = lab.config("h2", rules=[f"rule = tcp port={PORT}"])
        both_kinds(lab, lab.address("h1"), "TCP", "RULE", config=rule)
        other = lab.config("h2", rules=[f"rule = tcp port={PORT + 1}", "rule = tcp dst=10.99.0.0/16"])
        both_kinds(lab, lab.address("h1"), "SAN", "SAN", config=other)
        env = dict(os.environ, SANDIRECT="off")
        c = ask(lab, "h2", lab.address("h1"), env=env)
        c.until_line("holding")
        if not KERNEL_ONLY and lab.stat(c):
            lab.until_path(c, "TCP", "DISABLED")
        finish(c)


@scenario
def no_port_configured():
    with Lab() as lab:
        lab.peer("h1", "serve", "0.0.0.0", PORT).until_listening(PORT)
        empty = os.path.join(lab.dir, "empty.conf")
        open(empty, "w").close()
        both_kinds(lab, lab.address("h1"), "TCP", "NO_PORT", config=empty)


@scenario
def second_process_finds_the_port_busy():
    with Lab() as lab:
        lab.peer("h1", "serve", "0.0.0.0", PORT).until_listening(PORT)
        one = ask(lab, "h2", lab.address("h1"))
        one.until_line("holding")
        lab.until_san(one)
        two = ask(lab, "h2", lab.address("h1"))
        two.until_line("holding")
        lab.until_path(two, "TCP", "PORT_BUSY")
        finish(two, one)
        three = ask(lab, "h2", lab.address("h1"))
        three.until_line("holding")
        lab.until_san(three)
        finish(three)


@scenario
def udp_program():
    with Lab() as lab:
        for family in (4, 6):
            server = lab.peer("h1", "udp-server", lab.address("h1", family), PORT, "--times", 50)
            server.until_line("listening")
            client = lab.peer("h2", "udp-client", lab.address("h1", family), PORT, "--times", 50)
            client.wait()
            equal(client.json()["good"], 50, "datagrams that came back")
            server.wait()


@scenario
def server_that_comes_later_is_found():
    """The negative answer of before is not for ever."""
    with Lab() as lab:
        config = lab.config("h2", top=["negative_ttl = 1s"])
        c = lab.peer("h2", "ask", lab.address("h1"), PORT, "--times", 1, config=config)
        c.wait()
        equal(c.json().get("done"), True, "the client's end")
        lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT)

        def on_the_san():
            c = ask(lab, "h2", lab.address("h1"), config=config)
            c.until_line("holding")
            found = KERNEL_ONLY or bool(lab.connections(c, path="SAN"))
            finish(c)
            return found
        until(on_the_san, 20, "a connection over the SAN")


main()

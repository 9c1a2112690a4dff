# SPDX-License-Identifier: BSD-3-Clause
"""Threads, and every way of waiting, with SAN connections, kernel connections and other descriptors mixed."""
import subprocess

from harness import GUEST, KERNEL_ONLY, SANITIZED, Lab, Skip, equal, check, main, scenario

PORT = 7200


def servers(lab):
    """One echo server is on the SAN; another one is reached over the ordinary network."""
    san = lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT)
    lab.peer("h1", "serve", lab.address("h1", net="lan"), PORT + 1, how="exec").until_listening(PORT + 1)
    return san


def waiting(kind):
    with Lab() as lab:
        servers(lab)
        p = lab.run("h2", GUEST, "wait", lab.address("h1"), PORT, lab.address("h1", net="lan"), PORT + 1, kind,
                    stdin=subprocess.PIPE)
        p.until_line("^holding", 90)
        lab.until_san(p, count=4)
        lab.until_path(p, "TCP", "NO_ROUTE", count=2)
        p.tell("go")
        p.wait()


@scenario
def poll():
    waiting("poll")


@scenario
def ppoll():
    waiting("ppoll")


@scenario
def select():
    waiting("select")


@scenario
def pselect():
    waiting("pselect")


@scenario
def epoll_level_triggered():
    waiting("epoll-lt")


@scenario
def epoll_edge_triggered():
    waiting("epoll-et")


@scenario
def epoll_one_shot():
    waiting("epoll-oneshot")


@scenario
def epoll_in_epoll():
    waiting("epoll-nested")


@scenario
def threads():
    """Several on one socket, on many sockets, on one epoll set; one that wakes another."""
    with Lab() as lab:
        server = servers(lab)
        p = lab.run("h2", GUEST, "threads", lab.address("h1"), PORT)
        p.wait(120)
        equal(p.lines(), ["one yes", "many yes", "set yes", "shutdown yes", "done"], "its words")
        if not KERNEL_ONLY:
            equal(lab.stat(server)["tcp_total"], 0, "connections over TCP")
            check(lab.stat(server)["san_total"] >= 18, "connections over the SAN")


@scenario
def cancelled_threads():
    if SANITIZED:
        raise Skip("the sanitizer does not understand how a cancelled thread leaves its stack")
    with Lab() as lab:
        servers(lab)
        p = lab.run("h2", GUEST, "cancel", lab.address("h1"), PORT)
        p.wait()


@scenario
def endings():
    """Half-close, SIGPIPE, timeouts, duplicates, thousands of connections."""
    with Lab() as lab:
        server = servers(lab)
        p = lab.run("h2", GUEST, "endings", lab.address("h1"), PORT, stdin=subprocess.PIPE)
        p.until_line("^holding", 60)
        if not KERNEL_ONLY:
            equal(lab.stat(server)["tcp_total"], 0, "connections over TCP")
            equal(set(lab.stat(p)["by_reason"]), {"SAN"}, "reasons")
        p.tell("go")
        p.wait()


@scenario
def python_asyncio():
    with Lab() as lab:
        server = lab.peer("h1", "aio-server", lab.address("h1"), PORT).until_listening(PORT)
        c = lab.peer("h2", "aio-client", lab.address("h1"), PORT, "--connections", 40, "--bytes", 300000)
        c.wait(60)
        equal(c.json(), {"good": 40, "timeouts": 1}, "asyncio")
        if not KERNEL_ONLY:
            p = lab.stat(server)
            equal((p["san_total"], p["tcp_total"]), (41, 0), "connections of the server")


@scenario
def python_selectors_and_many_connections():
    with Lab() as lab:
        for i, wait in enumerate(("select", "poll", "epoll", "thread")):
            port = PORT + i
            server = lab.peer("h1", "serve", lab.address("h1"), port, "--wait", wait).until_listening(port)
            c = lab.peer("h2", "many", lab.address("h1"), port, "--connections", 100, "--times", 5, "--bytes", 20000)
            c.wait(90)
            equal(c.json(), {"connections": 100, "failures": [], "failed": 0}, f"100 connections, {wait}")
            if not KERNEL_ONLY:
                p = lab.stat(server)
                equal((p["san_total"], p["tcp_total"]), (100, 0), f"connections of the server, {wait}")
            server.kill()


main()

# SPDX-License-Identifier: BSD-3-Clause
"""SIGKILL of either side in mid-transfer: the other is told in time, and both can begin again at once."""
import json
import os
import signal
import subprocess
import time

from harness import KERNEL_ONLY, LONG, SLOW, Lab, check, main, say, scenario, until

PORT = 7500
# Of one side and the other in turn.
KILLS = 10 if LONG else 2
# A sender finds out after the second of these, a receiver after both.
TIMES = ("keepalive = 500ms", "dead_timeout = 1s")
DEAD_AFTER, DEAD_AFTER_DEFAULT = 1.5, 7
# What a program may be told. A sender may also see EPIPE, when it has been told already.
ENDS = ("ECONNRESET", "EOFError", "EPIPE")


def flow(lab, host, role, direction, helper=False, **more):
    p = lab.peer(host, "flow", lab.address("h1"), PORT, "--role", role, "--direction", direction,
                 *(["--helper"] if helper else []), stdin=subprocess.PIPE, config=lab.config(host, transport=TIMES), **more)
    return p.until_listening(PORT) if role == "server" else p


def events(p, key):
    return [e for e in map(json.loads, p.lines()) if key in e]


def until_flowing(lab, *programs):
    """Each has moved a mebibyte over its newest connection, which is on the SAN."""
    for p in programs:
        n = len(events(p, "ended"))
        until(lambda: len(events(p, "flowing")) > n, 20, f"bytes at {p}")
    say("reasons:", *[lab.reasons(p) for p in programs])
    for p in programs:
        lab.until_san(p)


def helper_of(p):
    return events(p, "helper")[0]["helper"]


def kill(victim, survivor):
    """How the survivor's connection ended, and after which time."""
    n = len(events(survivor, "ended"))
    at = time.time()
    victim.kill()
    end = until(lambda: events(survivor, "ended")[n:], DEAD_AFTER + 5, f"{survivor} is told that its peer is gone")[0]
    say(f"{victim.name} on {victim.host} killed: {end['ended']} after {end['at'] - at:.3f} s")
    check(end["ended"] in ENDS, f"{survivor} was told {end['ended']}")
    check(end["at"] - at < (DEAD_AFTER + 0.5) * SLOW, f"{survivor} was told after {end['at'] - at:.1f} s")
    return end


def until_link(lab, p):
    """Until then it would take TCP, PORT_DOWN."""
    until(lambda: KERNEL_ONLY or " up " in lab.stat(p)["engine"], 3, f"the link of {p} is up again")


def alternately(direction, helper=False, link=None):
    """In turn: one side dies and starts again at once, the other goes on with a new connection."""
    other = {"send": "recv", "recv": "send", "epoll": "send"}[direction]
    helpers = []
    with Lab(link) as lab:
        try:
            server, client = flow(lab, "h1", "server", direction, helper), flow(lab, "h2", "client", other, helper)
            for i in range(KILLS):
                until_flowing(lab, server, client)
                if helper:
                    helpers += [helper_of(server), helper_of(client)] if i == 0 else []
                if i % 2 == 0:
                    kill(server, client)
                    server = flow(lab, "h1", "server", direction, helper)
                    helpers += [helper_of(server)] if helper and events(server, "helper") else []
                    until_link(lab, client)
                    client.tell("again")
                else:
                    kill(client, server)
                    client = flow(lab, "h2", "client", other, helper)
            until_flowing(lab, server, client)
            for p in (server, client):
                helpers += [e["helper"] for e in events(p, "helper")]
            if helper:
                check(all(os.path.exists(f"/proc/{h}") for h in helpers), "a helper has not lived on")
        finally:
            for h in set(helpers):
                try:
                    os.kill(h, signal.SIGKILL)
                except ProcessLookupError:
                    pass


@scenario
def server_receives():
    alternately("recv")


@scenario
def server_sends():
    alternately("send")


@scenario
def server_waits_in_epoll():
    alternately("epoll")


@scenario
def with_helpers_that_live_on():
    """Both sides have forked and executed a program, which has their descriptors."""
    alternately("recv", helper=True)


@scenario
def over_udp():
    alternately("recv", link="udp")


def idle(link=None):
    """No byte moves: the survivor finds out by keepalive, or by the link."""
    with Lab(link) as lab:
        server = lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT)
        client = lab.peer("h2", "ask", lab.address("h1"), PORT, "--hold", stdin=subprocess.PIPE)
        client.until_line("holding")
        lab.until_san(client)
        start = time.monotonic()
        client.kill()
        if not KERNEL_ONLY:
            until(lambda: not lab.connections(server, path="SAN"), DEAD_AFTER_DEFAULT + 3, "the end of an idle connection")
        say(f"gone after {time.monotonic() - start:.1f} s")


@scenario
def idle_server_is_told():
    idle()


@scenario
def idle_server_is_told_over_udp():
    idle("udp")


main()

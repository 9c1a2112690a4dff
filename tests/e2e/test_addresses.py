# SPDX-License-Identifier: BSD-3-Clause
"""Addresses and interfaces that come, go and move while programs run."""
import subprocess

from harness import EVERY_LINK, Lab, Skip, check, equal, main, scenario, until

PORT = 7800
NEW = "10.77.0.101"


def without_udp():
    if EVERY_LINK == "udp":
        raise Skip("a port on the kernel's UDP has one address of each family")


def ip(lab, host, *words):
    p = lab.exec(host, "ip", *words)
    p.wait(10)


def serve(lab, host, address, port=PORT):
    return lab.peer(host, "serve", address, port).until_listening(port, san=False)


def holding(lab, host, address, *more, port=PORT):
    """A client whose connection lasts."""
    c = lab.peer(host, "ask", address, port, "--hold", *more, stdin=subprocess.PIPE)
    c.until_line("holding", 20)
    return c


def on_san(lab, client):
    return lab.stat(client)["by_reason"] == {"SAN": 1}


def finish(client):
    client.tell("go")
    client.wait(30)
    check('"same": true' in client.output() and "error" not in client.output(), client.output())


def until_on_san(lab, host, address, seconds=15):
    """Tries until a connection takes the SAN path."""
    def tried():
        c = holding(lab, host, address)
        good = on_san(lab, c)
        finish(c)
        return good
    until(tried, seconds, f"a connection to {address} on the SAN path")


@scenario
def added():
    """Listeners at the wildcard address have it at once; a program can listen at it."""
    without_udp()
    with Lab(mode="daemon") as lab:
        serve(lab, "h1", "0.0.0.0")
        finish(holding(lab, "h2", lab.address("h1")))
        ip(lab, "h1", "addr", "add", f"{NEW}/24", "dev", "san0")
        until_on_san(lab, "h2", NEW)
        serve(lab, "h1", NEW, PORT + 1)
        c = holding(lab, "h2", NEW, port=PORT + 1)
        check(on_san(lab, c), lab.stat(c))
        finish(c)


@scenario
def removed():
    """Connections that have it go on, new ones fail as without Sandirect; when it is back, so are they."""
    without_udp()
    with Lab() as lab:
        ip(lab, "h1", "addr", "add", f"{NEW}/24", "dev", "san0")
        serve(lab, "h1", "0.0.0.0")
        until_on_san(lab, "h2", NEW)
        c = holding(lab, "h2", NEW, "--bytes", 3 << 20)
        check(on_san(lab, c), lab.stat(c))
        ip(lab, "h1", "addr", "del", f"{NEW}/24", "dev", "san0")
        finish(c)
        ip(lab, "h2", "neigh", "flush", "dev", "san0")  # else the kernel asks who has forgotten it for two minutes
        p = lab.peer("h2", "ask", NEW, PORT, stdin=subprocess.DEVNULL)
        p.wait(30, status=None)
        check('"error"' in p.output() or p.process.returncode, f"a connection to an address that is not there: {p.output()}")
        ip(lab, "h1", "addr", "add", f"{NEW}/24", "dev", "san0")
        until_on_san(lab, "h2", NEW)


@scenario
def moved_to_another_host():
    with Lab("veth", hosts=3) as lab:
        ip(lab, "h1", "addr", "add", f"{NEW}/24", "dev", "san0")
        servers = {h: serve(lab, h, "0.0.0.0") for h in ("h1", "h3")}
        until_on_san(lab, "h2", NEW)
        before = lab.stat(servers["h1"])["san_total"]
        equal(lab.stat(servers["h3"])["san_total"], 0, "connections of h3")
        ip(lab, "h1", "addr", "del", f"{NEW}/24", "dev", "san0")
        ip(lab, "h3", "addr", "add", f"{NEW}/24", "dev", "san0")

        def arrived():
            finish(holding(lab, "h2", NEW))
            return lab.stat(servers["h3"])["san_total"]
        until(arrived, 15, "connections to the address reach h3 on the SAN path")
        equal(lab.stat(servers["h1"])["san_total"], before, "connections of h1")


@scenario
def interface_down_and_up():
    """The kernel's interface stands for the port: nothing new while it is down. What there is goes on."""
    with Lab() as lab:
        serve(lab, "h1", "0.0.0.0")
        until_on_san(lab, "h2", lab.address("h1"))
        c = holding(lab, "h2", lab.address("h1"), "--bytes", 3 << 20)
        check(on_san(lab, c), lab.stat(c))
        ip(lab, "h2", "link", "set", "san0", "down")
        p = lab.peer("h2", "ask", lab.address("h1"), PORT, stdin=subprocess.DEVNULL)
        p.wait(30, status=None)
        check('"error"' in p.output() or p.process.returncode, f"a connection by an interface that is down: {p.output()}")
        ip(lab, "h2", "link", "set", "san0", "up")
        finish(c)
        until_on_san(lab, "h2", lab.address("h1"))


main()

# SPDX-License-Identifier: BSD-3-Clause
"""Stock Redis between two hosts takes the SAN, and the kernel's TCP stays still."""
import contextlib
import os
import subprocess
from pathlib import Path

from harness import (EVERY_LINK, KERNEL_ONLY, SANITIZED, Lab, Skip, check, equal, main, need, say, scenario, until)

PORT = 6379
CLIENTS = 20


def redis_server(lab, address, config=None):
    return lab.run("h1", "redis-server", "--port", PORT, "--bind", address, "--save", "", "--protected-mode", "no",
                   "--dir", lab.dir, config=config).until_listening(PORT)


def subscriber_seen(lab, address, server, config=None):
    """A client that stays for as long as we look at both ends."""
    client = lab.run("h2", "redis-cli", "-h", address, "-p", PORT, "subscribe", "news", config=config)
    client.until_line("^1$")  # it has the server's answer
    lab.until_san(client)
    if not KERNEL_ONLY:
        rows = until(lambda: [r for r in lab.connections(server) if r["bytes_in"]], 10, "bytes at the server")
        equal({(r["path"], r["provider"], r["reason"]) for r in rows}, {("SAN", "ether", "SAN")}, "the server's paths")
    client.stop()


def benchmark(lab, address, config=None, requests=100000):
    client = lab.run("h2", "redis-benchmark", "-h", address, "-p", PORT, "-t", "get,set", "-n", requests, "-c", CLIENTS,
                     "--csv", config=config)
    client.wait(240)
    rates = {}
    for line in client.lines():
        words = [w.strip('"') for w in line.split(",")]
        if words[0] in ("GET", "SET"):
            rates[words[0]] = float(words[1])
    equal(set(rates), {"GET", "SET"}, "tests that redis-benchmark ran")
    say(f"{lab.link}: " + ", ".join(f"{k} {v:.0f}/s" for k, v in rates.items()))


def redis(link=None, family=4, mtu=1500, lines=(), requests=100000):
    need("redis-server", "redis-benchmark", "redis-cli")
    with Lab(link, mtu=mtu) as lab:
        address = lab.address("h1", family)
        configs = {h: lab.config(h, lines=lines) for h in ("h1", "h2")}
        with lab.no_segments("h1", "h2"):
            server = redis_server(lab, address, configs["h1"])
            subscriber_seen(lab, address, server, configs["h2"])
            benchmark(lab, address, configs["h2"], requests)
            if not KERNEL_ONLY:
                p = lab.stat(server)
                equal(p["tcp_total"], 0, "connections that the server took over TCP")
                check(p["san_total"] > CLIENTS, f"only {p['san_total']} connections over the SAN")
            equal(server.stop(), 0, "redis-server's exit status")


@contextlib.contextmanager
def hugepages(count):
    """So many free 2 MiB pages, and afterwards as many as there were."""
    control = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    if not os.access(control, os.W_OK):
        raise Skip("no right to reserve hugepages")
    before = control.read_text()
    control.write_text(str(count))
    try:
        if int(control.read_text()) < count:
            raise Skip(f"the kernel has no {count} hugepages to spare")
        yield
    finally:
        control.write_text(before)


@scenario
def stock_redis():
    redis(requests=100000 if SANITIZED or EVERY_LINK else 1000000)


@scenario
def hugepages_on():
    with hugepages(256):
        redis(lines=["hugepages = on"])


@scenario
def hugepages_off():
    redis(lines=["hugepages = off"])


@scenario
def ipv6():
    redis(family=6)


@scenario
def mtu_9000():
    redis(mtu=9000)


@scenario
def udp():
    redis("udp", requests=50000)


@scenario
def udp_ipv6():
    redis("udp", family=6, requests=50000)


@scenario
def memif():
    redis("memif")


@scenario
def veth():
    redis("veth", requests=50000)


@scenario
def three_hosts():
    """Two clients on different hosts and one server."""
    with Lab("veth", hosts=3) as lab:
        server = lab.peer("h1", "serve", lab.address("h1"), 7000).until_listening(7000)
        with lab.no_segments("h1", "h2", "h3"):
            clients = [lab.peer(h, "ask", lab.address("h1"), 7000, "--hold", stdin=subprocess.PIPE)
                       for h in ("h2", "h3")]
            for c in clients:
                c.until_line("holding")
                lab.until_san(c)
            lab.until_san(server, count=2)
            for c in clients:
                c.tell("go")
                c.wait()


main()

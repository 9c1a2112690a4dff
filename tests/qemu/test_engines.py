# SPDX-License-Identifier: BSD-3-Clause
"""Daemons of two guests, each with an engine on each of two processors, on NICs with two pairs of queues and RSS."""
import json
import os
import subprocess

import parts  # which finds the others
import daemonlog
import tap
from machine import Machine, MultiTap
from parts import run, sandirect
from tap import check, equal, main, scenario

ADDRESSES = ["10.77.0.1", "10.77.0.2"]
CONNECTIONS = 1000


def image():
    i = parts.with_sandirect(parts.with_dpdk(parts.base_image()))
    for tool in ("redis-server", "redis-cli", "redis-benchmark"):
        i.tool(tool)
    return i


@tap.once
def guests():
    """Their NICs are tap devices on one bridge."""
    net = MultiTap.network()
    taps = [MultiTap(f"rss{i}", 2) for i in (0, 1)]
    machines = [Machine(f"guest{i}", image(), [(t, "mq=on,rss=on,vectors=8")], memory=2048, netns=net) for i, t in enumerate(taps)]
    for m in machines:
        m.boot()
    for words in ("add br0 type bridge", "set br0 up", "set rss0 master br0 up", "set rss1 master br0 up"):
        subprocess.run(["ip", "-n", net, "link", *words.split()], check=True)
    for address, m in zip(ADDRESSES, machines):
        nic, = parts.take_nics(m)
        parts.configure(m, nic, address, "daemon = /run/sandirectd.sock\ncores = 0-1\n")
        m.background(f"ulimit -n 65536; exec {os.environ['QEMU_DAEMON']} --user root --verbose --max-memory 8G", "/run/daemon.log")
        m.until("cat /run/daemon.log", "ready at", 60)
    return machines


def counts(machine):
    """Connections of each engine, and frames that were handed over."""
    return daemonlog.counts(lambda: machine.run("cat /run/daemon.log"), lambda: machine.run("kill -USR1 $(pidof sandirectd)"))


@tap.once
def redis():
    """A server in the first guest; gives the words of a benchmark in the second."""
    a, b = guests()
    server = f'redis-server --save "" --maxclients 5000 --protected-mode no --bind {ADDRESSES[0]}'
    a.background("ulimit -n 65536; exec " + run(server), "/run/redis.log")
    b.until(run(f"redis-cli -h {ADDRESSES[0]} ping"), "PONG", 60)
    return f"redis-benchmark -h {ADDRESSES[0]} -c {CONNECTIONS}"


def gone(machines):
    tap.until(lambda: all(counts(m)[0] == [0, 0] for m in machines), 30, lambda: f"connections are left: {[counts(m) for m in machines]}")


@scenario
def they_share_a_thousand_connections():
    """Those that programs make in turn, those that come by chance."""
    machines = guests()
    b = machines[1]
    b.background("ulimit -n 65536; exec " + run(redis() + " -I"), "/run/idle.log")
    tap.until(lambda: all(sum(counts(m)[0]) == CONNECTIONS for m in machines), 120, lambda: f"connections: {[counts(m) for m in machines]}")
    for m in machines:
        share, handed = counts(m)
        tap.say(f"{m.name}: engines have {share}; {handed} frames were handed over")
        check(max(share) <= 1.2 * min(share), f"connections of the engines: {share}")
    b.run("kill $(pidof redis-benchmark)")
    gone(machines)


def kernel_connections(machine):
    """Those of Redis so far."""
    return json.loads(sandirect(machine, "stat --json"))["processes"][0]["tcp_total"]


@scenario
def requests_on_a_thousand_connections():
    machines = guests()
    words = redis()
    before, by_kernel = [counts(m)[1] for m in machines], kernel_connections(machines[0])
    out = machines[1].run("ulimit -n 65536; " + run(words + " -n 40000 -t set -q"), 300)
    check("requests per second" in out and "rror" not in out, out[-500:])
    tap.say(out.replace("\r", "\n").strip().splitlines()[-1],
            *[f"{m.name}: {counts(m)[1] - n} frames handed over;" for m, n in zip(machines, before)])
    # Half of them, if the peers did not look for the right queues.
    check(all(counts(m)[1] - n < 24000 for m, n in zip(machines, before)), "too many were handed over")
    equal(kernel_connections(machines[0]), by_kernel, "connections by the kernel's TCP")
    gone(machines)


main()

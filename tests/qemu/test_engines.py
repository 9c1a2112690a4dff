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
BENCHMARK = f"redis-benchmark -h {ADDRESSES[0]} -c {CONNECTIONS}"


def image():
    i = parts.with_sandirect(parts.with_dpdk(parts.base_image("virtio_net")))
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
        start_daemon(m)
    return machines


def start_daemon(machine):
    machine.background(f"ulimit -n 65536; exec {os.environ['QEMU_DAEMON']} --user root --verbose --max-memory 8G", "/run/daemon.log")
    machine.until("cat /run/daemon.log", "ready at", 60)


def counts(machine):
    """Connections of each engine, and frames that were handed over."""
    return daemonlog.counts(lambda: machine.run("cat /run/daemon.log"), lambda: machine.run("kill -USR1 $(pidof sandirectd)"))


def start_redis(machine):
    server = f'redis-server --save "" --maxclients 5000 --protected-mode no --bind {ADDRESSES[0]}'
    machine.background("ulimit -n 65536; exec " + run(server), "/run/redis.log")


@tap.once
def redis():
    """A server in the first guest; gives the words of a benchmark in the second."""
    a, b = guests()
    start_redis(a)
    b.until(run(f"redis-cli -h {ADDRESSES[0]} ping"), "PONG", 60)
    return BENCHMARK


def engines_are_even(machine):
    share, handed = counts(machine)
    tap.say(f"{machine.name}: engines have {share}; {handed} frames were handed over")
    check(max(share) <= 1.2 * min(share), f"connections of the engines: {share}")


def until_connected(machines):
    tap.until(lambda: all(sum(counts(m)[0]) == CONNECTIONS for m in machines), 120,
              lambda: "\n".join(f"{m.name}: connections {counts(m)}; {m.run('tail -n 20 /run/daemon.log')}" for m in machines))


def gone(machines):
    tap.until(lambda: all(counts(m)[0] == [0, 0] for m in machines), 30, lambda: f"connections are left: {[counts(m) for m in machines]}")


@scenario
def they_share_a_thousand_connections():
    """Those that programs make in turn, those that come by chance."""
    machines = guests()
    b = machines[1]
    b.background("ulimit -n 65536; exec " + run(redis() + " -I"), "/run/idle.log")
    until_connected(machines)
    for m in machines:
        engines_are_even(m)
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


@scenario
def a_nic_that_comes_later_has_a_queue_for_each():
    machines = guests()
    a, b = machines
    nic, = a.nics()
    a.run("kill $(pidof redis-server) $(pidof sandirectd); while pidof sandirectd; do sleep 0.1; done")
    sandirect(a, f"ports unbind {nic}")
    start_daemon(a)
    a.until("cat /run/daemon.log", "ports bind", 20)
    start_redis(a)
    sandirect(a, f"ports bind {nic}")
    b.until(run(f"redis-cli -h {ADDRESSES[0]} ping"), "PONG", 60)
    port, = json.loads(sandirect(a, "ports --json --interval 10ms"))["ports"]
    equal(port["queues"], 2, "pairs of queues")
    b.background("ulimit -n 65536; exec " + run(BENCHMARK + " -I"), "/run/idle.log")
    until_connected(machines)
    for m in machines:
        engines_are_even(m)
    b.run("kill $(pidof redis-benchmark)")
    gone(machines)


main()

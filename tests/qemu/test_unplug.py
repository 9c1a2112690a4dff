# SPDX-License-Identifier: BSD-3-Clause
"""A guest's NIC is unplugged and plugged in again while programs use it."""
import hashlib
import json
import os
import tempfile
from pathlib import Path

import parts
import tap
from machine import Machine
from parts import run, sandirect
from tap import check, equal, main, scenario

ADDRESSES = ["10.77.0.1", "10.77.0.2"]
BLOCK, BLOCKS = 16 << 20, 64
CALL = f"redis-cli -h {ADDRESSES[0]}"


@tap.once
def guests():
    """The NIC of the first one can be taken out; Redis runs there."""
    image = parts.with_sandirect(parts.with_dpdk(parts.base_image("virtio_net")))
    for tool in ("redis-server", "redis-cli", "redis-benchmark"):
        image.tool(tool)
    machines = [Machine(f"guest{n}", image, [(end, "")], slots=not n) for n, end in enumerate(Machine.wire())]
    for address, m in zip(ADDRESSES, machines):
        m.boot()
        nic, = parts.take_nics(m)
        parts.configure(m, nic, address)
    a, b = machines
    start_redis(a)
    b.until(run(f"{CALL} ping"), "PONG", 60)
    return a, b


def start_redis(machine):
    machine.background(run(f"redis-server --save \"\" --bind {ADDRESSES[0]} --protected-mode no"), "/run/redis.log")
    machine.until(f"{CALL} ping", "PONG", 60)


def port(machine):
    found = json.loads(sandirect(machine, "ports --json --interval 10ms"))["ports"]
    return found[0] if found else {"link": "no port"}


def until_link(machine, wanted, seconds=20):
    tap.until(lambda: port(machine)["link"] == wanted, seconds, f"{machine.name}'s link is {wanted}", every=0.2)


def take_out(machine, n, nic):
    """NIC n, and waits until the kernel has let it go."""
    machine.unplug(n)
    machine.until(f"test -e /sys/bus/pci/devices/{nic} && echo there || echo gone", "^gone", 30)


def put_in(machine, n, nic):
    machine.plug(n)
    machine.until("ls /sys/bus/pci/devices", nic, 30)


def works(a, b):
    """Over the SAN, with bytes that come back as they were."""
    before = san_connections(a)
    b.run("head -c 1000000 /dev/urandom >/run/value")
    b.run(run(f"{CALL} -x set value </run/value"), 60)
    b.run(run(f"{CALL} --raw get value") + " | head -c 1000000 | cmp - /run/value", 60)
    check(san_connections(a) >= before + 2, "the connections were not on the SAN path")


def san_connections(machine):
    p, = [p for p in json.loads(sandirect(machine, "stat --json"))["processes"] if p["program"] == "redis-server"]
    return p["san_total"]


def traffic_that_fails(b):
    b.background(f"{run(f'redis-benchmark -h {ADDRESSES[0]} -n 100000000 -c 20 -t set -q')}; echo ended with $? >/run/ended", "/run/benchmark.log")
    b.run("sleep 2; ! test -e /run/ended")


def ends_with_an_error(b):
    # What its connections are given up after, and Redis' own time.
    m = b.until("cat /run/ended", r"ended with (\d+)", 60)
    check(m.group(1) != "0", "the benchmark has noticed nothing")
    b.run("rm /run/ended")


@scenario
def unplugged_under_load_and_plugged_again():
    a, b = guests()
    nic, = a.nics()
    works(a, b)
    for _ in range(3):
        traffic_that_fails(b)
        take_out(a, 0, nic)
        until_link(a, "down")
        check("PONG" in a.run(f"{CALL} ping"), "Redis serves the kernel's connections")
        equal(a.run("ls -l /proc/$(pidof redis-server)/fd | grep -c vfio-device", status=None).strip(), "0", "descriptors of the device")
        ends_with_an_error(b)
        put_in(a, 0, nic)
        check("vfio-pci has it" in sandirect(a, f"ports bind {nic}"), "bind")
        until_link(a, "up")
        works(a, b)


@scenario
def plugged_in_after_the_program_has_begun():
    """Redis has listened before there was a NIC, and is told of none."""
    a, b = guests()
    nic, = a.nics()
    take_out(a, 0, nic)
    a.run("kill $(pidof redis-server); sleep 1")
    start_redis(a)
    a.until("cat /run/redis.log", f"there is no PCI device {nic}", 20)
    until_link(a, "down")
    put_in(a, 0, nic)
    tap.until(lambda: "ports bind" in a.run("cat /run/redis.log"), 10, "another message")
    sandirect(a, f"ports bind {nic}")
    until_link(a, "up")
    works(a, b)


@scenario
def given_back_to_the_kernel_under_load():
    a, b = guests()
    nic, = a.nics()
    traffic_that_fails(b)
    sandirect(a, f"ports unbind {nic}")
    until_link(a, "down")
    check("eth0" in a.run("ls /sys/class/net"), "the kernel has it")
    ends_with_an_error(b)
    sandirect(a, f"ports bind {nic}")
    until_link(a, "up")
    works(a, b)


# --- two NICs for one port ---

def image_with_block(block):
    image = parts.with_sandirect(parts.with_dpdk(parts.base_image("virtio_net")))
    return image.tool("nc.openbsd").file(block, "/root/block")


@scenario
def one_of_two_is_unplugged_in_the_midst_of_a_transfer():
    """Nothing is lost. The far end's NIC notices nothing: its cable leads nowhere then."""
    directory = Path(tempfile.mkdtemp(prefix="sandirect-qemu-"))
    data = os.urandom(BLOCK)
    (directory / "block").write_bytes(data)
    image = image_with_block(directory / "block")
    wires = [Machine.wire() for _ in range(2)]
    machines = [Machine(f"bonded{n}", image, [(w[n], "") for w in wires], slots=not n) for n in range(2)]
    for address, m in zip(ADDRESSES, machines):
        m.boot()
        first, second = parts.take_nics(m)
        parts.configure(m, first, address, port=f"standby = {second}\n")
    a, b = machines
    nics = a.nics()
    a.background(run(f"nc.openbsd -l {ADDRESSES[0]} 7000") + " | md5sum", "/run/sum")
    a.run("sleep 3")
    b.background(f"(for i in $(seq {BLOCKS}); do cat /root/block; done) | {run(f'nc.openbsd -N {ADDRESSES[0]} 7000')}; echo sent >/run/sent",
                 "/run/send.log")
    for n in range(4):
        a.run("sleep 2")
        gone = nics[n % 2]
        take_out(a, n % 2, gone)
        equal(port(a)["link"], "up", "the port's link")
        a.run("sleep 1")
        put_in(a, n % 2, gone)
        sandirect(a, f"ports bind {gone}")
        a.run("sleep 2")
    check("yes" not in b.run("test -e /run/sent && echo yes || echo no"), "the transfer was too short for this test")
    m = a.until("cat /run/sum", r"^([0-9a-f]{32}) ", 240)
    whole = hashlib.md5()
    for _ in range(BLOCKS):
        whole.update(data)
    equal(m.group(1), whole.hexdigest(), "the digest")
    for m in machines:
        check(int(m.run("cat /sys/class/net/san0/statistics/rx_bytes")) < 1 << 20, "it went by the kernel")


main()

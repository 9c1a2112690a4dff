# SPDX-License-Identifier: BSD-3-Clause
"""Stock programs over the SAN between two guests, whose NICs our driver has, behind an IOMMU."""
import atexit
import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import parts
import tap
from machine import Machine, VhostUser
from parts import run, sandirect
from tap import check, equal, main, scenario

MIB = 1 << 20
BLOCK, GIGABYTE, FLAPPED = 16 * MIB, 64, 24  # the latter two in blocks
ADDRESSES = ["10.77.0.1", "10.77.0.2"]


def image(block):
    i = parts.with_sandirect(parts.with_dpdk(parts.base_image()))
    for tool in ("redis-server", "redis-cli", "redis-benchmark", "nc.openbsd"):
        i.tool(tool)
    return i.file(block, "/root/block")


def all_is_san(stat, program, least):
    """What the table of a program says: this many connections, and none of the kernel's."""
    p, = [p for p in json.loads(stat)["processes"] if p["program"] == program]
    check(p["san_total"] >= least and not p["tcp_total"], f"{program}: {p}")
    tap.say(p["engine"])
    return p["engine"]


def benchmark(machine, address):
    machine.until(f"{run('redis-cli -h ' + address + ' ping')}", "PONG", 60)
    out = machine.run(run(f"redis-benchmark -h {address} -n 20000 -c 20 -P 4 -t set,get -q"), 180)
    check("requests per second" in out and "rror" not in out, out)
    tap.say(*re.findall(r"\w+: [\d.]+ requests per second", out.replace("\r", "\n")))


class Transfer:
    """Blocks of random bytes and the digest of them all."""

    def __init__(self):
        self.file = Path(tempfile.mkdtemp(prefix="sandirect-qemu-")) / "block"
        self.data = os.urandom(BLOCK)
        self.file.write_bytes(self.data)

    def digest(self, blocks):
        d = hashlib.md5()
        for _ in range(blocks):
            d.update(self.data)
        return d.hexdigest()


def send(machine, blocks, address):
    machine.run(f"(for i in $(seq {blocks}); do cat /root/block; done) | {run(f'nc.openbsd -N {address} 7000')}", 600)


# --- two guests ---

@tap.once
def guests():
    transfer = Transfer()
    machines = [Machine(f"guest{n}", image(transfer.file), [(end, "packed=on" if n else "")])
                for n, end in enumerate(Machine.wire())]
    for address, m in zip(ADDRESSES, machines):
        m.boot()
        nic, = parts.take_nics(m)
        parts.configure(m, nic, address)
    return *machines, transfer


@scenario
def redis_serves_the_other_guest():
    a, b, _ = guests()
    a.background(run(f"redis-server --save \"\" --bind {ADDRESSES[0]} --protected-mode no"), "/run/redis.log")
    benchmark(b, ADDRESSES[0])
    engine = all_is_san(sandirect(a, "stat --json"), "redis-server", 40)
    check("net_sandirect_virtio_pci" in engine, engine)
    check("vfio-device" in a.run("cat /proc/$(pidof redis-server)/maps"), "redis has the NIC's registers")
    b.background(run(f"redis-benchmark -h {ADDRESSES[0]} -n 100000 -c 20 -t set -q"), "/run/benchmark.log")
    b.run("sleep 2")
    shown = json.loads(sandirect(a, "ports --json --interval 500ms"))
    port, = shown["ports"]
    check((port["driver"], port["queues"], port["link"]) == ("net_sandirect_virtio_pci", 1, "up"), port)
    check(port["rx_frames_per_second"] > 100 and port["tx_bits_per_second"] > 10000, port)
    equal([n["kernel_driver"] for n in shown["nics"]], ["vfio-pci"], "the NIC's driver")
    b.until("pidof redis-benchmark || echo none", "none", 60)
    a.run("kill $(pidof redis-server); sleep 1")


@scenario
def a_gigabyte_arrives_as_it_was():
    a, b, transfer = guests()
    a.background(run(f"nc.openbsd -l {ADDRESSES[0]} 7000") + " | md5sum", "/run/sum")
    b.run("sleep 2")
    send(b, GIGABYTE, ADDRESSES[0])
    m = a.until("cat /run/sum", r"^([0-9a-f]{32}) ", 60)
    equal(m.group(1), transfer.digest(GIGABYTE), "the digest")
    through_kernel = int(a.run("cat /sys/class/net/san0/statistics/rx_bytes"))
    check(through_kernel < MIB, f"{through_kernel} bytes went by the kernel")


@scenario
def a_link_goes_down_and_comes_back():
    """In the midst of a transfer, five times: nothing is lost."""
    a, b, transfer = guests()
    a.background(run(f"nc.openbsd -l {ADDRESSES[0]} 7000") + " | md5sum", "/run/sum2")
    b.run("sleep 2")
    b.background(f"(for i in $(seq {FLAPPED}); do cat /root/block; done) | {run(f'nc.openbsd -N {ADDRESSES[0]} 7000')}; echo sent >/run/sent",
                 "/run/send.log")
    for n in range(5):
        time.sleep(1)
        for m in (a, b)[n % 2:n % 2 + 1]:
            m.monitor("set_link", name="net0", up=False)
            until_link(m, "down")
            time.sleep(0.5)
            m.monitor("set_link", name="net0", up=True)
            until_link(m, "up")
        check(n == 4 or "yes" not in b.run("test -e /run/sent && echo yes || echo no"), "the transfer was too short for this test")
    m = a.until("cat /run/sum2", r"^([0-9a-f]{32}) ", 240)
    equal(m.group(1), transfer.digest(FLAPPED), "the digest")


def until_link(machine, wanted):
    def shown():
        port, = json.loads(sandirect(machine, "ports --json --interval 10ms"))["ports"]
        return port["link"] == wanted
    tap.until(shown, 20, f"{machine.name}'s link is {wanted}", every=0.2)


# --- a guest and this host ---

class Host:
    """A network namespace whose port is the back end of a guest's NIC."""

    def __init__(self, address):
        self.dir = tempfile.mkdtemp(prefix="sandirect-qemu-host-")
        self.netns = f"sdq-{os.getpid()}"
        self.socket, self.address = self.dir + "/nic", address
        config = Path(self.dir) / "conf"
        device = f"net_vhost0,iface={self.socket},iommu-support=1"
        config.write_text((parts.CONFIG % device).replace("[global]", f"[global]\nruntime_dir = {self.dir}/run"))
        self.env = dict(os.environ, SANDIRECT_CONFIG=str(config))
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        atexit.register(subprocess.run, ["ip", "netns", "del", self.netns], check=False)
        for words in ("link set lo up", "tuntap add san0 mode tap", f"addr add {address}/24 dev san0", "link set san0 up"):
            subprocess.run(["ip", "-n", self.netns, *words.split()], check=True)

    def command(self, *argv):
        return ["ip", "netns", "exec", self.netns, os.environ["QEMU_SANDIRECT"], *argv]

    def start(self, *argv, **popen):
        p = subprocess.Popen(self.command("run", "--", *argv), env=self.env, stdin=subprocess.DEVNULL, **popen)
        atexit.register(p.kill)
        return p

    def stat(self):
        return subprocess.run(self.command("stat", "--json"), env=self.env, capture_output=True, text=True, check=True).stdout


@scenario
def a_guest_and_a_process_of_this_host():
    """Its NIC's other side is that process itself: Redis, which keeps bytes and gives them back."""
    host, transfer = Host("10.78.0.1"), Transfer()
    redis = host.start("redis-server", "--save", "", "--bind", host.address, "--protected-mode", "no", stdout=subprocess.DEVNULL)
    # Redis opens the port when it listens. QEMU 7.2 crashes when the back end comes later than the guest.
    tap.until(lambda: os.path.exists(host.socket), 20, "the port of redis-server")
    machine = Machine("guest", image(transfer.file), [(VhostUser(host.socket), "vectors=0")]).boot()
    nic, = parts.take_nics(machine)
    parts.configure(machine, nic, "10.78.0.2")
    benchmark(machine, host.address)
    all_is_san(host.stat(), "redis-server", 40)
    client = run("redis-cli -h " + host.address)
    for n in range(4):
        machine.run(f"{client} -x set block{n} < /root/block", 120)
    got = machine.run(f"for n in 0 1 2 3; do {client} --raw get block$n | head -c {BLOCK} | md5sum; done", 240)
    equal(got.count(transfer.digest(1)), 4, f"blocks that have come back as they were ({got})")
    all_is_san(host.stat(), "redis-server", 48)
    redis.terminate()


main()

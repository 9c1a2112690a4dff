# SPDX-License-Identifier: BSD-3-Clause
"""A program in a guest that sleeps on receive interrupts, which are MSI-X messages there: on our driver, and on DPDK's."""
import os
import re
import subprocess
import time

import parts
import tap
from machine import Machine, MultiTap
from tap import check, equal, main, say, scenario

PROGRAM = "/usr/bin/rx_interrupt"
FRAMES = 20
SEND = ("import socket,sys,time\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind(('intr0',0))\n"
        f"for i in range({FRAMES}):\n  time.sleep(0.3)\n  s.send(b'\\xff'*6+b'\\2\\0\\0\\0\\0\\1\\x88\\xb5'+bytes(50))\n")


@tap.once
def guest():
    net = MultiTap.network()
    image = parts.with_dpdk(parts.base_image(), "net_virtio").program(os.environ["QEMU_RX_INTERRUPT"], PROGRAM)
    machine = Machine("guest", image, [(MultiTap("intr0", 2), "mq=on,vectors=8")], netns=net).boot()
    nic, = parts.take_nics(machine)
    subprocess.run(["ip", "netns", "exec", net, "sysctl", "-qw", "net.ipv6.conf.intr0.disable_ipv6=1"], check=True)
    subprocess.run(["ip", "-n", net, "link", "set", "intr0", "up"], check=True)
    return machine, nic, net


def woken(options):
    m, nic, net = guest()
    m.background(f"{PROGRAM} --no-telemetry {options} -a {nic} --lcores 0@0 -m 128 -- {FRAMES}", "/run/intr")
    m.until("cat /run/intr", "^ready", 60)
    time.sleep(2)
    subprocess.run(["ip", "netns", "exec", net, "python3", "-c", SEND], check=True)
    m.until("cat /run/intr", "^got|failed", 60)
    out = m.run("cat /run/intr")
    found = re.search(r"got (\d+), in vain (\d+), cpu ms (\d+)", out)
    check(found, out[-600:])
    wakes = len(re.findall("^woken", out, re.M))
    say(f"{'ours' if options else 'dpdk'}: {wakes} wake-ups, {found[2]} in vain, {found[3]} ms of CPU time in all")
    equal(int(found[1]), FRAMES, "frames")
    check(wakes >= FRAMES - 2, f"only {wakes} wake-ups")


@scenario
def ours():
    woken(f"-d {parts.OWN}")


@scenario
def dpdks():
    woken("")


main()

# SPDX-License-Identifier: BSD-3-Clause
"""A machine of two NUMA nodes, with the NIC on the second: who serves it runs there, with memory from there, or is warned."""
import os
import re

import parts
import tap
from machine import Machine
from parts import run, sandirect
from tap import check, equal, main, scenario

ADDRESS = "10.77.0.1"
DAEMON = os.environ["QEMU_DAEMON"]
REDIS = f"redis-server --save \"\" --bind {ADDRESS} --protected-mode no"
WARNING = "its device is on NUMA node 1, and this thread may not run there"


@tap.once
def guest():
    """CPUs 0 and 1 are on node 0, 2 and 3 on node 1."""
    image = parts.with_sandirect(parts.with_dpdk(parts.base_image()))
    for tool in ("redis-server", "redis-cli"):
        image.tool(tool)
    m = Machine("numa", image, [(Machine.wire()[0], "")], cpus=4, memory=1536, nodes=2, slots=True).boot()
    equal(m.run("cat /sys/devices/system/node/node1/cpulist").strip(), "2-3", "CPUs of node 1")
    m.run("for n in 0 1; do echo 96 > /sys/devices/system/node/node$n/hugepages/hugepages-2048kB/nr_hugepages; done")
    nic, = m.nics()
    equal(m.run(f"cat /sys/bus/pci/devices/{nic}/numa_node").strip(), "1", "the NIC's node")
    m.bind_vfio(nic)
    return m, nic


def start(m, nic, program, general=""):
    parts.configure(m, nic, ADDRESS, general)
    m.background(program, "/run/log")
    m.until(sandirect_ports(), "net_sandirect_virtio_pci +up", 60)
    return m.run("cat /run/log")


def sandirect_ports():
    return f"{os.environ['QEMU_SANDIRECT']} ports --interval 10ms"


def stop(m, name):
    m.run(f"kill $(pidof {name})")
    m.until(f"pidof {name} || echo none", "none", 20)
    m.run("ip link del san0", status=None)


def pages(m, name):
    """Of huge pages that the process has touched: how many on each node."""
    total = {0: 0, 1: 0}
    for line in m.run(f"grep -E ' huge|hugepages|kernelpagesize_kB=2048' /proc/$(pidof {name})/numa_maps").splitlines():
        for node, n in re.findall(r" N(\d)=(\d+)", line):
            total[int(node)] += int(n)
    return total


def cpus(m, name):
    """Where its first thread may run."""
    return m.run(f"grep Cpus_allowed_list /proc/$(pidof {name})/status").split()[-1]


@scenario
def a_daemon_goes_where_its_port_is():
    m, nic = guest()
    log = start(m, nic, f"{DAEMON} --user root", "daemon = /run/sandirectd.sock\n")
    check("NUMA" not in log, log)
    equal(cpus(m, "sandirectd"), "2-3", "the engine's CPUs")
    n = pages(m, "sandirectd")
    tap.say(f"huge pages of nodes 0 and 1: {n}")
    check(n[1] > 0 and n[0] == 0, f"memory of {n}")
    stop(m, "sandirectd")


@scenario
def a_daemon_with_cores_of_the_other_node_is_warned():
    m, nic = guest()
    log = start(m, nic, f"{DAEMON} --user root", "daemon = /run/sandirectd.sock\ncores = 0,3\n")
    equal(log.count(WARNING), 1, f"warnings in {log}")
    equal(cpus(m, "sandirectd"), "0", "the first engine's CPU")
    n = pages(m, "sandirectd")
    tap.say(f"huge pages of nodes 0 and 1: {n}")
    check(n[1] > n[0], f"the port's memory is to be where the device is: {n}")
    stop(m, "sandirectd")
    log = start(m, nic, f"{DAEMON} --user root", "daemon = /run/sandirectd.sock\ncores = 2,1\n")
    check(WARNING not in log and "engine 1 runs on core 1, and the port's device is on NUMA node 1" in log, log)
    stop(m, "sandirectd")


@scenario
def a_program_is_warned_if_it_may_not_run_there():
    m, nic = guest()
    for mask, warned in (("3", 1), ("7", 0)):
        parts.configure(m, nic, ADDRESS)
        m.background("taskset " + mask + " " + run(REDIS), "/run/redis.log")
        m.until(sandirect_ports(), "net_sandirect_virtio_pci +up", 60)
        log = m.run("cat /run/redis.log")
        equal(log.count(WARNING), warned, f"warnings with CPUs {mask}: {log}")
        check("numa_node" in sandirect(m, "ports --json --interval 10ms"), "ports")
        stop(m, "redis-server")


@scenario
def no_hugepages_on_its_node():
    """DPDK ends a process that runs on that node: it is not started."""
    m, nic = guest()
    m.run("echo 0 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages")
    parts.configure(m, nic, ADDRESS, "daemon = /run/sandirectd.sock\n")
    out = m.run(f"{DAEMON} --user root", status=1)
    check("fewer than 32 MB of free hugepages where this runs" in out, out)
    m.run("ip link del san0")
    log = start(m, nic, run(REDIS))
    check("NUMA node 1, where its device is, has no hugepages left" in log, log)
    check(pages(m, "redis-server")[0] > 0, "memory of the other node")
    stop(m, "redis-server")


main()

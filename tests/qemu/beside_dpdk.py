#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our driver beside DPDK's on the PCI bus of a guest, over the same net_vhost: frames a second, in alternation.

Usage: beside_dpdk.py [--rounds N] [--seconds S] [--options DEVICE_OPTIONS]; QEMU_DRIVER names our driver's library.

Emulated CPUs are slow and drift: only ratios within a round say anything.
"""
import argparse
import re
import statistics
import tempfile
import time

import parts
import testpmd
from machine import Machine

MEASURES = [("tx", 64), ("rx", 64), ("tx", 1500), ("rx", 1500)]


def count(t, which):
    out = t("stop")
    return int(re.findall(rf"{which}-packets: (\d+)", out[out.index("Accumulated"):])[0])


def measure(dut, far, seconds):
    got = {}
    for way, size in MEASURES:
        testpmd.settle(dut, far)
        sender, receiver = (dut, far) if way == "tx" else (far, dut)
        sender("set fwd txonly", f"set txpkts {size}")
        receiver("set fwd rxonly", "start")
        sender("start")
        time.sleep(seconds)
        # What has arrived counts, by the clock of the one under test.
        start = time.monotonic()
        if way == "tx":
            got[way, size] = count(dut, "TX")
            far("stop")
        else:
            got[way, size] = count(dut, "RX")
            far("stop")
        got[way, size] /= seconds + (time.monotonic() - start) / 2
    return got


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--seconds", type=float, default=1.0)
    p.add_argument("--options", default="packed=off")
    a = p.parse_args()
    directory = tempfile.mkdtemp(prefix="sandirect-beside-")
    paths = [f"{directory}/{i}" for i in (0, 1)]
    far = testpmd.peer(paths, iommu=True)
    image = parts.with_testpmd(parts.with_dpdk(parts.base_image(), "net_virtio"))
    machine = Machine("guest", image, [(("vhost-user", path, False, 1), a.options) for path in paths]).boot()
    nics = parts.take_nics(machine)
    rounds = []
    for n in range(a.rounds):
        result = {}
        for who in ("ours", "dpdk") if n % 2 else ("dpdk", "ours"):
            sock = machine.program(parts.testpmd_command(nics, parts.OWN if who == "ours" else None))
            dut = testpmd.Testpmd(sock, who, 60)
            testpmd.links_up(dut)
            result[who] = measure(dut, far, a.seconds)
            dut.quit()
            machine.until("pidof dpdk-testpmd || echo none", "none", 30)
            sock.close()
        rounds.append(result)
    for m in MEASURES:
        ratio = statistics.median(r["ours"][m] / r["dpdk"][m] for r in rounds)
        ours, dpdk = (statistics.median(r[w][m] for r in rounds) / 1000 for w in ("ours", "dpdk"))
        print(f"{m[0]} {m[1]:4}: ours {ours:8.1f} k/s, DPDK's {dpdk:8.1f} k/s, ratio {ratio:.2f}  "
              f"({min(r['ours'][m] / r['dpdk'][m] for r in rounds):.2f} to {max(r['ours'][m] / r['dpdk'][m] for r in rounds):.2f})")
    far.end()
    machine.end()


if __name__ == "__main__":
    main()

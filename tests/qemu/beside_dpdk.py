#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our driver beside DPDK's on the PCI bus of a guest, over the same net_vhost: frames a second, in alternation.

Usage: beside_dpdk.py [--rounds N] [--seconds S] [--options DEVICE_OPTIONS]; QEMU_DRIVER names our driver's library.

Emulated CPUs are slow and drift: only ratios within a round say anything.
"""
import argparse
import re
import statistics
import time

import parts
import testpmd

MEASURES = [("tx", 64), ("rx", 64), ("tx", 1500), ("rx", 1500)]


def measure(dut, far, seconds):
    got = {}
    for way, size in MEASURES:
        testpmd.settle(dut, far)
        sender, receiver = (dut, far) if way == "tx" else (far, dut)
        sender("set fwd txonly", f"set txpkts {size}")
        receiver("set fwd rxonly", "start")
        sender("start")
        time.sleep(seconds)
        start = time.monotonic()
        out = dut("stop")
        # The command took effect while it was waited for.
        span = seconds + (time.monotonic() - start) / 2
        far("stop")
        got[way, size] = int(re.search(rf"Accumulated.*?{way.upper()}-packets: (\d+)", out, re.S).group(1)) / span
    return got


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--seconds", type=float, default=1.0)
    p.add_argument("--options", default="packed=off")
    a = p.parse_args()
    machine, far, nics = parts.guest_of_testpmd(a.options)
    rounds = []
    for n in range(a.rounds):
        result = {}
        for who in ("own", "dpdk") if n % 2 else ("dpdk", "own"):
            dut = parts.testpmd_in(machine, nics, who)
            result[who] = measure(dut, far, a.seconds)
            dut.quit()
            machine.until("pidof dpdk-testpmd || echo none", "none", 30)
        rounds.append(result)
    for m in MEASURES:
        ratio = statistics.median(r["own"][m] / r["dpdk"][m] for r in rounds)
        own, dpdk = (statistics.median(r[w][m] for r in rounds) / 1000 for w in ("own", "dpdk"))
        print(f"{m[0]} {m[1]:4}: ours {own:8.1f} k/s, DPDK's {dpdk:8.1f} k/s, ratio {ratio:.2f}  "
              f"({min(r['own'][m] / r['dpdk'][m] for r in rounds):.2f} to {max(r['own'][m] / r['dpdk'][m] for r in rounds):.2f})")
    far.end()
    machine.end()


if __name__ == "__main__":
    main()

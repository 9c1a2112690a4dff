#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Instructions for each frame in our virtio driver and in DPDK's (its scalar paths), as callgrind counts them.

Usage: instructions.py DRIVER.so [--frames N]; fails where ours takes more.

testpmd under callgrind sends to, or receives from, a peer that is faster than it: bursts are full. What counts are the
instructions of the driver's library alone, over a whole run; setting the device up is under one to each frame.
"""
import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import testpmd
from tap import Failure

LAYOUTS = {"split": "", "packed": ",packed_vq=1"}
# The device's name, and the library whose instructions count.
DRIVERS = {"ours": ("net_sandirect_virtio", "librte_net_sandirect_virtio"), "dpdk": ("net_virtio_user", "librte_net_virtio")}


def self_cost(path, library):
    """Of callgrind's file: the instructions of functions of this library, without those that they call."""
    names, total, inside, call = {}, 0, False, False
    for line in open(path, encoding="utf-8"):
        if m := re.match(r"ob=\((\d+)\)(?: (.*))?", line):
            if m.group(2):
                names[m.group(1)] = m.group(2)
            inside = library in names[m.group(1)]
        elif m := re.match(r"cob=\((\d+)\) (.*)", line):
            names[m.group(1)] = m.group(2)
        elif line.startswith("calls="):
            call = True
        elif re.match(r"[\d+*-]", line):
            if inside and not call:
                total += int(line.split()[1])
            call = False
    return total


def count(driver, who, layout, way, frames):
    device, library = DRIVERS[who]
    out = tempfile.mkdtemp(prefix="sandirect-instructions-") + "/callgrind"
    # EAL waits for its alarm's end without a system call: the alarm's thread would not come to run.
    callgrind = ["valgrind", "-q", "--fair-sched=yes", "--tool=callgrind", f"--callgrind-out-file={out}"]
    dut, far = testpmd.beside_a_peer(driver, device, LAYOUTS[layout], "--force-max-simd-bitwidth=128", under=callgrind)
    sender, receiver = (dut, far) if way == "tx" else (far, dut)
    sender("set fwd txonly")
    receiver("set fwd rxonly", "start")
    sender("start")
    key = "TX-packets" if way == "tx" else "RX-packets"
    end = time.monotonic() + 300
    while sum(dut.counters(p)[key] for p in (0, 1)) < frames:
        if time.monotonic() > end:
            raise Failure(f"{who}: {dut.counters(0)} in 300 s")
        time.sleep(0.5)
    dut("stop")
    far("stop")
    seen = sum(dut.counters(p)[key] for p in (0, 1))
    dut.quit()
    dut.process.wait(60)
    far.end()
    return self_cost(out, library) / seen


def main():
    p = argparse.ArgumentParser()
    p.add_argument("driver")
    p.add_argument("--frames", type=int, default=2_000_000)
    a = p.parse_args()
    worst = 0
    for layout in LAYOUTS:
        for way in ("tx", "rx"):
            ours, dpdk = (count(a.driver, who, layout, way, a.frames) for who in ("ours", "dpdk"))
            print(f"{layout} {way}: ours {ours:.1f}, DPDK's {dpdk:.1f}, ratio {ours / dpdk:.2f}", flush=True)
            worst = max(worst, ours / dpdk)
    return worst > 1


if __name__ == "__main__":
    sys.exit(main())

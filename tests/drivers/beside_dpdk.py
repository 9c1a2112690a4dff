#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our virtio driver beside DPDK's net_virtio_user, over the same net_vhost: frames a second both ways, round trips.

Usage: beside_dpdk.py BUILD_DIR [--rounds N] [--seconds S] [--only split|packed]

Each round runs every contender once, in an order that changes; ratios are taken within a round. What is told is the median
of ours by DPDK's best. Over packed rings vhost takes four descriptors at once, where they begin a cache line: how many frames
went before decides whether bursts of 32 do, so there are 0 to 3 more, by the round.
"""
import argparse
import re
import statistics
import subprocess

VHOST = "net_vhost1,iface=%s/s,client=1"
DPDK = "net_virtio_user0,path=%s/s,server=1,queue_size=1024"
OWN = "net_sandirect_virtio0,path=%s/s,server=1,queue_size=1024"
CONTENDERS = {
    "split": {
        "ours": OWN,
        "dpdk": DPDK + ",in_order=0",
        "dpdk in order": DPDK + ",in_order=1",
        "dpdk single": DPDK + ",in_order=0,mrg_rxbuf=0",
        "dpdk vector": DPDK + ",in_order=0,mrg_rxbuf=0,vectorized=1",
    },
    "packed": {
        "ours": OWN + ",packed_vq=1",
        "dpdk": DPDK + ",packed_vq=1,in_order=0",
        "dpdk in order": DPDK + ",packed_vq=1,in_order=1",
        "dpdk single": DPDK + ",packed_vq=1,in_order=0,mrg_rxbuf=0",
        "dpdk vector": DPDK + ",packed_vq=1,in_order=1,mrg_rxbuf=0,vectorized=1",
    },
}
# What is asked for, and whether more is better.
MEASURES = {"RTT 66": False, "RTT 1500": False, "rx 66": True, "rx 1514": True, "tx 66": True, "tx 1514": True}


def bench(build, near, far, seconds, before, *options):
    r = subprocess.run([str(build) + "/tests/drivers/bench_port", "-t", str(seconds), "-n", str(before), "-e", "--force-max-simd-bitwidth=512", *options,
                        near, far], capture_output=True, text=True, timeout=60)
    rtt = {int(n): float(v) for n, v in re.findall(r"(\d+) bytes: RTT p50 (\d+)", r.stdout)}
    rate = {int(n): float(v) for n, v in re.findall(r"(\d+) bytes: ([\d.]+) Mpps", r.stdout)}
    if len(rate) != 2:
        raise SystemExit(f"{near} and {far}: {r.stderr}{r.stdout}")
    return rtt, rate


def one_round(build, devices, seconds, before):
    """Rates and round trips from runs of their own: after round trips buffers are in another order in memory. The contenders'
    runs of one kind are next to each other: a virtual machine's CPUs are near each other at times, and then far."""
    result = {n: {} for n in devices}
    for kind, options in (("RTT", []), ("tx", ["-r"]), ("rx", ["-r"])):
        for n, device in devices.items():
            near, far = (VHOST, device) if kind == "rx" else (device, VHOST)
            rtt, rate = bench(build, near, far, seconds, before, *options)
            result[n] |= {f"{kind} {size}": v for size, v in (rate if options else rtt).items()}
    return result


def report(layout, rounds):
    print(f"{layout}: medians of {len(rounds)} rounds; us and Mpps")
    names = list(rounds[0])
    for m, more in MEASURES.items():
        medians = {n: statistics.median(r[n][m] for r in rounds) for n in names}
        best = (max if more else min)((n for n in names if n != "ours"), key=lambda n: medians[n])
        ratio = statistics.median(r["ours"][m] / r[best][m] for r in rounds)
        scale = 1 if more else 1e-3
        print(f"  {m:8}  ours {medians['ours'] * scale:6.2f}  {best} {medians[best] * scale:6.2f}  ratio {ratio:.2f}   (" +
              ", ".join(f"{n} {medians[n] * scale:.2f}" for n in names if n not in ("ours", best)) + ")")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=8)
    p.add_argument("--seconds", type=float, default=0.2)
    p.add_argument("--only", choices=list(CONTENDERS))
    a = p.parse_args()
    for layout, contenders in CONTENDERS.items():
        if a.only and layout != a.only:
            continue
        rounds = []
        names = list(contenders)
        for i in range(a.rounds):
            first = i // 4 % len(names)
            order = names[first:] + names[:first]
            rounds.append(one_round(a.build, {n: contenders[n] for n in order}, a.seconds, i % 4))
        report(layout, rounds)


if __name__ == "__main__":
    main()

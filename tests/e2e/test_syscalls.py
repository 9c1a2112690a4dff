# SPDX-License-Identifier: BSD-3-Clause
"""A ping-pong over the SAN makes no system calls, also with a kernel descriptor in its epoll: what is left are the timers of
both sides, which do not depend on the number of messages."""
import os
import time

from harness import EVERY_LINK, KERNEL_ONLY, SANITIZED, SOCKBENCH, Lab, Skip, check, main, need, say, scenario

MAX_DIFFERENCE = 200
# Timers that look every 8 to 20 ms, and the scheduler's wish to have the core: 350 to 500 in a second.
MAX_PER_S = 800
SHORT, LONG = 100_000, 300_000
# A thread whose peer was taken off its CPU for longer than the usual spin sleeps, and the system calls of that take so
# long under strace that the peer sleeps too: what is counted is a run without sleep. Others on the machine can still
# hold one up for longer: the least of several runs is compared, and they are spread over a time.
SPIN_US = 50_000
PATIENCE_S = 150
PAUSE_S = 4


def calls_of(path):
    """The total line of strace -c, all threads."""
    with open(path) as f:
        for line in f:
            words = line.split()
            if words and words[-1] == "total":
                return int(words[3])
    return -1


def ping_pongs(lab, count, port):
    """System calls of the server and of the client in a run of so many, and its time in seconds."""
    paths = [f"{lab.dir}/strace-{side}-{port}" for side in ("server", "client")]
    # On a CPU each, as who spins would have it: two that share one have to make way for each other by system calls.
    cpus = sorted(os.sched_getaffinity(0))
    before = [["taskset", "-c", str(cpus[-i % len(cpus)]), "strace", "-f", "-c", "-o", p] for i, p in enumerate(paths)]
    server = lab.run("h1", SOCKBENCH, "server", lab.address("h1"), port, "--connections", 1, spin=SPIN_US, before=before[0])
    server.until_line("listening")
    client = lab.run("h2", SOCKBENCH, "client", lab.address("h1"), port, "--mode", "pp", "--wait", "epoll", "--kernel-fd",
                     "--count", count, spin=SPIN_US, before=before[1])
    client.wait(240)
    server.wait(30)
    result = client.json()
    say(f"{count}: p50 {result['p50_us']} us")
    return [calls_of(p) for p in paths], count * result["mean_us"] / 1e6


def least(a, b):
    return [min(x, y) for x, y in zip(a, b)] if a else b


@scenario
def epoll_with_a_kernel_fd():
    need("strace")
    if EVERY_LINK in ("veth", "xdp", "udp"):
        raise Skip("the kernel carries each packet")
    if SANITIZED:
        raise Skip("the sanitizer makes calls of its own")
    with Lab() as lab:
        short = long = None
        port = 7000
        end = time.monotonic() + PATIENCE_S
        while True:
            calls, short_s = ping_pongs(lab, SHORT, port)
            short = least(short, calls)
            calls, long_s = ping_pongs(lab, LONG, port + 1)
            long = least(long, calls)
            port += 2
            difference = [b - a for a, b in zip(short, long)]
            allowed = max(MAX_DIFFERENCE, MAX_PER_S * (long_s - short_s))
            say(f"least system calls of server and client: {SHORT}: {short}, {LONG}: {long}, difference {difference}, "
                f"allowed {allowed:.0f}")
            check(min(short + long) > 0, "strace has counted nothing")
            if KERNEL_ONLY or max(difference) < allowed:
                return
            if time.monotonic() > end:
                break
            time.sleep(PAUSE_S)
        check(False, f"{LONG - SHORT} more ping-pongs make {difference} more system calls, {allowed:.0f} are allowed")


main()

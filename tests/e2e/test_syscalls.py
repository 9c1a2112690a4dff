# SPDX-License-Identifier: BSD-3-Clause
"""A ping-pong over the SAN makes no system calls, however long it lasts, also with a kernel descriptor in its epoll."""
import os
import time

from harness import KERNEL_ONLY, SANITIZED, SOCKBENCH, Lab, Skip, check, main, need, say, scenario

MAX_DIFFERENCE = 200
SHORT, LONG = 100_000, 300_000
# Others on the machine make a thread wait past its spin, and then it sleeps: the least of several runs is compared,
# and they are spread over a time in which others may come to rest.
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
    """System calls of the server and of the client in a run of so many."""
    paths = [f"{lab.dir}/strace-{side}-{port}" for side in ("server", "client")]
    # On a CPU each, as who spins would have it: two that share one have to make way for each other by system calls.
    cpus = sorted(os.sched_getaffinity(0))
    before = [["taskset", "-c", str(cpus[-i % len(cpus)]), "strace", "-f", "-c", "-o", p] for i, p in enumerate(paths)]
    how = "exec" if KERNEL_ONLY else "run"
    server = lab.start(how, "h1", [SOCKBENCH, "server", lab.address("h1"), port, "--connections", 1], before=before[0])
    server.until_line("listening")
    client = lab.start(how, "h2", [SOCKBENCH, "client", lab.address("h1"), port, "--mode", "pp", "--wait", "epoll",
                                   "--kernel-fd", "--count", count], before=before[1])
    client.wait(240)
    server.wait(30)
    say(f"{count}: p50 {client.json()['p50_us']} us")
    return [calls_of(p) for p in paths]


def least(a, b):
    return [min(x, y) for x, y in zip(a, b)] if a else b


@scenario
def epoll_with_a_kernel_fd():
    need("strace")
    if SANITIZED:
        raise Skip("the sanitizer makes calls of its own")
    with Lab() as lab:
        short = long = None
        port = 7000
        end = time.monotonic() + PATIENCE_S
        while True:
            short = least(short, ping_pongs(lab, SHORT, port))
            long = least(long, ping_pongs(lab, LONG, port + 1))
            port += 2
            difference = [b - a for a, b in zip(short, long)]
            say(f"least system calls of server and client: {SHORT}: {short}, {LONG}: {long}, difference {difference}")
            check(min(short + long) > 0, "strace has counted nothing")
            if KERNEL_ONLY or max(difference) < MAX_DIFFERENCE:
                return
            if time.monotonic() > end:
                break
            time.sleep(PAUSE_S)
        check(False, f"{LONG - SHORT} more ping-pongs make {difference} more system calls, {MAX_DIFFERENCE} are allowed")


main()

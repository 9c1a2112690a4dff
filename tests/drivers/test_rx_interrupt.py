# SPDX-License-Identifier: BSD-3-Clause
"""A program that sleeps on receive interrupts, over a vhost-user socket: on our driver, and on DPDK's.

test_rx_interrupt.py PROGRAM DRIVER.so
"""
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import tap
import testpmd
from tap import Failure, Skip, check, equal, main, say, scenario

DRIVER = sys.argv.pop(2)
PROGRAM = sys.argv.pop(1)
FRAMES = 20


def lines_of(process, until):
    """Up to the line that matches."""
    out = []
    for line in process.stdout:
        out.append(line.rstrip())
        if re.match(until, line):
            return out
    raise Failure(f"the program has ended: {out[-5:]}")


def one_that_sends(path):
    far = testpmd.peer([path])
    far("set burst 1", "set fwd rxonly")
    return far


def woken(device, options="", restart=False):
    """The peer sends frame after frame, and perhaps is another one from the middle on. How often nothing was there."""
    if not shutil.which("dpdk-testpmd"):
        raise Skip("dpdk-testpmd is not installed")
    path = tempfile.mktemp(prefix="sandirect-rxintr-")
    far = one_that_sends(path)
    own = ["-d", DRIVER] if "sandirect" in device else []
    p = subprocess.Popen([PROGRAM, "--no-telemetry", "--no-huge", "--no-shconf", "-m", "128", "--no-pci", "--lcores", "0@1", *own,
                          "--vdev", f"{device}0,path={path}{options}", "--", str(FRAMES)], stdout=subprocess.PIPE, text=True)
    try:
        lines_of(p, "ready")
        for i in range(FRAMES):
            if restart and i == FRAMES // 2:
                far.quit()
                far.end()
                far = one_that_sends(path)
                testpmd.links_up(far, ports=(0,))
            time.sleep(0.05)
            far("start tx_first 1", "stop")
        out = lines_of(p, "got")
    finally:
        p.kill()
        p.wait()
        far.quit()
    wakes = [line for line in out if line.startswith("woken")]
    got, vain, cpu = map(int, re.match(r"got (\d+), in vain (\d+), cpu ms (\d+)", out[-1]).groups())
    say(f"{device}{options}: {len(wakes)} wake-ups, {vain} in vain, {cpu} ms of CPU time in all")
    equal(got, FRAMES, "frames")
    check(len(wakes) >= FRAMES - 2, f"only {len(wakes)} wake-ups for {FRAMES} frames")
    return vain


@scenario
def ours_split():
    check(woken("net_sandirect_virtio") <= FRAMES, "wake-ups in vain")


@scenario
def ours_split_with_event_idx():
    check(woken("net_sandirect_virtio", ",event_idx=1") <= FRAMES, "wake-ups in vain")


@scenario
def ours_when_the_peer_restarts():
    """Asleep meanwhile; told once that there is somebody again."""
    vain = woken("net_sandirect_virtio", restart=True)
    check(1 <= vain <= FRAMES, f"{vain} wake-ups in vain")


@scenario
def ours_packed():
    check(woken("net_sandirect_virtio", ",packed_vq=1") <= FRAMES, "wake-ups in vain")


@scenario
def dpdks():
    """What ours stands beside."""
    woken("net_virtio_user")


main()

# SPDX-License-Identifier: BSD-3-Clause
"""Hosts with an MTU of 9000 and a network between them that carries less, and drops the rest without a word."""
import subprocess
import time
from pathlib import Path

from harness import PYTHON, Lab, check, equal, main, scenario

PORT = 7600
NARROW = str(Path(__file__).with_name("narrow.py"))
JUMBO, USUAL, SMALLEST = 8924, 1424, 1204  # bytes of stream with an MTU of 9000, 1500 and 1280


class Network:
    """A bridge whose port to h1 can be made narrower: it drops what does not fit, as a switch does. (A veth end refuses what its
    other end does not take, and net_af_packet then offers it for ever.)"""

    def __init__(self):
        self.lab = Lab("veth", hosts=3, mtu=9000)

    def __enter__(self):
        self.lab.__enter__()
        return self

    def __exit__(self, *what):
        return self.lab.__exit__(*what)

    def carry(self, mtu):
        subprocess.run(["ip", "-n", f"sdlab-{self.lab.name}-sw", "link", "set", "sanp0-h1", "mtu", str(mtu)], check=True)

    def start(self):
        lab = self.lab
        self.sink = lab.run("h1", PYTHON, NARROW, "sink", lab.address("h1"), PORT).until_listening(PORT)
        self.source = lab.run("h2", PYTHON, NARROW, "source", lab.address("h1"), PORT, stdin=subprocess.PIPE)

    def until_mss(self, size):
        self.source.until_line(f"mss {size}")

    def end(self):
        self.source.tell("enough")
        self.source.wait(20)
        self.sink.wait(20)
        equal(self.sink.json()["bytes"], self.source.json()["bytes"], "bytes")


@scenario
def wide():
    with Network() as n:
        n.start()
        n.until_mss(JUMBO)
        n.end()


@scenario
def always_narrow():
    """Larger sizes are given up one after the other, the usual one is never in doubt."""
    with Network() as n:
        n.carry(1500)
        n.start()
        n.until_mss(USUAL)
        time.sleep(1)
        n.end()
        check("mss" not in n.source.output().split(f"mss {USUAL}")[1], "another size in the end")


@scenario
def narrower_than_usual():
    with Network() as n:
        n.carry(1290)
        n.start()
        n.until_mss(SMALLEST)
        n.end()


@scenario
def narrow_in_mid_stream():
    with Network() as n:
        n.start()
        n.until_mss(JUMBO)
        n.carry(1500)
        n.until_mss(USUAL)
        n.end()


main()

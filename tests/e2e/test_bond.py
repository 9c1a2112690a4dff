# SPDX-License-Identifier: BSD-3-Clause
"""Wires between hosts that are cut and mended under checked traffic: a second one by which it goes on, or none.

A wire is a process of its own, dpdk-testpmd, the back end of a virtio device of either host.
"""
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from harness import EVERY_LINK, KERNEL_ONLY, LONG, PYTHON, SANITIZED, SLOW, Lab, Skip, check, equal, main, say, scenario, until

PORT = 7900
CHECKED = str(Path(__file__).with_name("checked.py"))
TESTPMD = shutil.which("dpdk-testpmd")
CONNECTIONS = 8
DEAD_TIMEOUT = 5


class Wire:
    """Between the sockets a1 and a2, say. They are the hosts'; this is what connects to them."""

    def __init__(self, directory, name):
        self.directory, self.name, self.process = directory, name, None

    def mend(self):
        devices = [w for i in (1, 2) for w in ("--vdev", f"net_vhost{i},iface={self.directory}/{self.name}{i},client=1")]
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        argv = [TESTPMD, "--no-telemetry", "--no-huge", "--no-shconf", "--no-pci", "-m", "128", f"--file-prefix=wire-{self.name}",
                "--lcores", f"0@({cpus}),1@({cpus})", *devices, "--", "--forward-mode=io", "--auto-start", "--total-num-mbufs=4096"]
        log = open(f"{self.directory}/{self.name}.log", "ab")
        # It ends when there is something to read.
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log)
        log.close()
        return self

    def cut(self):
        self.process.kill()
        self.process.wait()


class Wires(Lab):
    """Two hosts, each with a daemon, joined by these wires: the first, and the standby."""

    def __init__(self, names, **options):
        if KERNEL_ONLY or EVERY_LINK:
            raise Skip("has wires of its own")
        if not TESTPMD:
            raise Skip("dpdk-testpmd is not installed")
        if SANITIZED:
            raise Skip("four processes that poll are too much for two cores")
        super().__init__(mode="daemon", **options)
        self.names = names

    def __enter__(self):
        super().__enter__()
        self.wires = [Wire(self.dir, n).mend() for n in self.names]
        self.daemons = {}
        for h in ("h1", "h2"):
            path = Path(self.daemon_config(h))
            devices = [f"net_sandirect_virtio{i},path={self.dir}/{n}{h[1]},server=1,queue_size=1024" for i, n in enumerate(self.names)]
            lines = "\n".join(f"{k} = {d}" for k, d in zip(("device", "standby"), devices))
            text = re.sub(r"^device = .*$", lines, path.read_text(), flags=re.M)
            path.write_text(f"{text}[transport]\ndead_timeout = {DEAD_TIMEOUT}s\n")
            self.daemons[h] = self.restart_daemon(h)
        return self

    def close(self):
        for w in self.wires:
            w.cut()
        return super().close()

    def serve(self):
        return self.run("h1", PYTHON, CHECKED, "serve", PORT, self.address("h1")).until_listening(PORT, san=False)

    def hold(self):
        """Traffic, all of it by the SAN."""
        def held():
            p = self.run("h2", PYTHON, CHECKED, "hold", PORT, 60, CONNECTIONS, self.address("h1"), stdin=subprocess.PIPE)
            p.until_line("holding")
            if self.reasons(p) == {"SAN": CONNECTIONS}:
                return p
            p.kill()
            return None
        return until(held, 30, "connections on the SAN path", every=0.5)


def rounds(p):
    n = len(p.lines())
    p.tell("rounds")
    until(lambda: len(p.lines()) > n or not p.running(), 30, "an answer")
    check(p.running() or len(p.lines()) > n, f"the program has ended: {p.output()[-300:]}")
    return p.json()


def keeps_going(p, what, seconds):
    """Each connection gets ahead; the longest pause of one."""
    before = rounds(p)["rounds"]
    longest = 0
    end = time.monotonic() + seconds * SLOW
    while True:
        time.sleep(0.1)
        now = rounds(p)
        longest = max(longest, now["longest"])
        if all(a > b + 10 for a, b in zip(now["rounds"], before)):
            return longest
        check(time.monotonic() < end, f"{what}: a connection stands still for {seconds * SLOW} s: {before}, {now}")


def cut_and_mend(p, wire):
    """The longest pause of a connection while it was cut."""
    wire.cut()
    pause = keeps_going(p, f"wire {wire.name} is cut", 20)
    wire.mend()
    time.sleep(1.5)  # until the back end has connected, which it tries every second
    return pause


def end(p):
    p.tell("end")
    p.process.stdin.close()
    p.wait(20)


@scenario
def a_second_wire():
    """Either is cut and mended, in turn: nothing is lost."""
    with Wires("ab") as lab:
        lab.serve()
        p = lab.hold()
        for i in range(8 if LONG else 4):
            keeps_going(p, "before", 20)
            say(f"cut {i}: stood still for {cut_and_mend(p, lab.wires[i % 2]) * 1e3:.0f} ms")
        end(p)
        check("goes on by its second device" in lab.daemons["h1"].errors(), lab.daemons["h1"].errors()[-800:])


@scenario
def daemons_take_over():
    """From daemons that have both wires, and go on by either."""
    with Wires("ab") as lab:
        lab.serve()
        p = lab.hold()
        for i in range(4):
            new = lab.start_daemon(("h1", "h2")[i % 2], "--takeover").until_error("ready at")
            check(new.running(), new.errors()[-800:])
            keeps_going(p, f"takeover {i}", 20)
            cut_and_mend(p, lab.wires[i % 2])
        end(p)


@scenario
def the_only_wire_for_a_moment():
    """A back end that is started again soon enough: nothing is lost."""
    with Wires("a") as lab:
        lab.serve()
        p = lab.hold()
        for i in range(4):
            keeps_going(p, "before", 20)
            lab.wires[0].cut()
            lab.wires[0].mend()
            say(f"restart {i}: stood still for {keeps_going(p, 'a back end that was started again', 20) * 1e3:.0f} ms")
        end(p)


@scenario
def the_only_wire_for_good():
    """Connections end with an error, new ones are the kernel's, and when it is back the SAN's again."""
    with Wires("a") as lab:
        lab.serve()
        p = lab.hold()
        lab.wires[0].cut()
        start = time.monotonic()
        equal(p.wait(20, status=None), 9, "its exit status")
        took = time.monotonic() - start
        check("a connection was lost" in p.output(), p.output()[-300:])
        check(took < 2 * DEAD_TIMEOUT + 2, f"took {took:.1f} s")
        say(f"told after {took:.1f} s: {p.lines()[-1]}")
        other = lab.run("h2", PYTHON, CHECKED, "hold", PORT, 60, 2, lab.address("h1"), stdin=subprocess.PIPE)
        other.until_line("holding")
        equal(lab.reasons(other), {"PORT_DOWN": 2}, "why connections are the kernel's")
        keeps_going(other, "kernel TCP", 20)
        lab.wires[0].mend()
        keeps_going(lab.hold(), "the SAN again", 20)
        keeps_going(other, "kernel TCP", 20)


@scenario
def a_standby_that_comes_later():
    """Somebody else has its socket when the daemons start."""
    with Wires("a") as lab:
        lab.wires.append(Wire(lab.dir, "b").mend())
        blocker = subprocess.Popen([PYTHON, "-c", "import socket, sys\nfor p in sys.argv[1:]:\n  s = socket.socket(socket.AF_UNIX)\n"
                                    "  s.bind(p)\n  s.listen()\n  globals()[p] = s\nprint(1, flush=True)\nsys.stdin.read()",
                                    f"{lab.dir}/b1", f"{lab.dir}/b2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        blocker.stdout.readline()
        for h in ("h1", "h2"):
            path = Path(lab.daemon_config(h))
            path.write_text(re.sub(r"^(device = net_sandirect_virtio)0(.*)/a(.*)$", r"\g<0>\nstandby = net_sandirect_virtio1\2/b\3",
                                   path.read_text(), flags=re.M))
            lab.daemons[h] = lab.restart_daemon(h)
        lab.serve()
        p = lab.hold()
        blocker.kill()
        blocker.wait()
        for h in ("h1", "h2"):
            lab.daemons[h].until_error("has its device now")
        time.sleep(1.5)
        keeps_going(p, "before", 20)
        lab.wires[0].cut()
        keeps_going(p, "the first wire is cut", 20)


main()

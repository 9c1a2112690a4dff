# SPDX-License-Identifier: BSD-3-Clause
"""Daemons with an engine on each of several cores."""
import json
import signal
import subprocess
from pathlib import Path

from harness import EVERY_LINK, KERNEL_ONLY, PYTHON, SANDIRECT, Lab, Skip, check, equal, main, need, say, scenario, until
import daemonlog  # which the harness finds

PORT = 7700
MIB = 1 << 20
CHECKED = str(Path(__file__).with_name("checked.py"))


class Engines(Lab):
    """Daemons that tell how many connections each of their engines has."""

    def __init__(self, link=None, cores="", **more):
        if KERNEL_ONLY:
            raise Skip("there is no daemon")
        super().__init__(link, mode="daemon", cores=cores, **more)

    def __enter__(self):
        super().__enter__()
        self.daemons = {h: self.restart_daemon(h) for h in ("h1", "h2")}
        return self

    def counts(self, host):
        """Connections of each engine, and frames that were handed over."""
        daemon = self.daemons[host]
        return daemonlog.counts(daemon.errors, lambda: daemon.signal(signal.SIGUSR1))


def talk(lab, times, size):
    """In both directions, so that each host's engines take connections and make them."""
    servers = [lab.peer(h, "serve", lab.address(h), PORT).until_listening(PORT, san=False) for h in ("h1", "h2")]
    clients = [lab.peer(a, "ask", lab.address(b), PORT, "--times", times, "--bytes", size) for a, b in (("h1", "h2"), ("h2", "h1"))]
    for p in clients:
        p.wait(90)
        equal(p.output().count('"same": true'), times, f"answers to {p}")
    for p in servers:
        equal(lab.stat(p)["by_reason"], {"SAN": times}, f"connections of {p}")


@scenario
def bytes_are_handed_over():
    with Engines(cores="0,1") as lab, lab.no_segments("h1", "h2"):
        talk(lab, 20, MIB)
        for host in ("h1", "h2"):
            until(lambda h=host: lab.counts(h)[0] == [0, 0], 15, f"the connections of {host} are gone")
            check(lab.counts(host)[1] > 100, "hardly a frame was handed over")
        queues = 1 if EVERY_LINK in ("virtio-user", "memif", "veth", "xdp", "udp") else 2
        r = subprocess.run([SANDIRECT, "ports", "--json", "--interval", "10ms"], capture_output=True, text=True, check=True)
        ports = json.loads(r.stdout)["ports"]
        equal([(p["program"], p["queues"], p["link"]) for p in ports], [("sandirectd", queues, "up")] * 2, "the daemons' ports")
        for p in ports:
            check(p["rx_frames"] > 1000 and p["tx_frames"] > 1000, p)
            check(p["rx_frames"] > p["rx_handed"] > 100, p)


@scenario
def bytes_over_a_bad_wire():
    with Engines("udp", cores="0,1", loss="1%", reorder="2%", duplicate="1%", corrupt="0.1%") as lab:
        talk(lab, 10, MIB // 4)


@scenario
def more_engines_than_cores():
    with Engines("udp", cores="0,1,700-708") as lab:
        check("cannot run on core 700" in lab.daemons["h1"].errors(), lab.daemons["h1"].errors())
        talk(lab, 22, MIB // 16)


@scenario
def they_share_the_connections():
    """Those that programs make in turn, those that come by chance."""
    total = 1000
    with Engines("udp", cores="0,1") as lab:
        lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT, san=False)
        p = lab.peer("h2", "ask", lab.address("h1"), PORT, "--hold", "--times", total, "--bytes", 2000, stdin=subprocess.PIPE)
        p.until_line("holding", 60)
        lab.until_san(p, total)
        made, _ = lab.counts("h2")
        equal(made, [total // 2] * 2, "made by the engines of h2")
        came, handed = lab.counts("h1")
        say(f"h1's engines have {came}, and {handed} frames were handed over")
        equal(sum(came), total, "connections of h1's engines")
        check(max(came) <= 1.2 * min(came), f"h1's engines have {came}")
        p.tell("go")
        p.wait(60)
        check(p.output().count('"same": true') == total, "other bytes")
        for host in ("h1", "h2"):
            until(lambda h=host: lab.counts(h)[0] == [0, 0], 15, lambda h=host: f"the connections of {h} are gone: {lab.counts(h)}")


@scenario
def the_kernel_beside_them():
    need("ping")
    with Engines(cores="0,1", miniport=True) as lab:
        def answered():
            p = lab.exec("h1", "ping", "-c", 5, "-i", 0.1, "-W", 2, lab.address("h2"))
            p.wait(20, status=None)
            return " 5 received" in p.output()
        until(answered, 20, "pings are answered")
        busy = lab.peer("h2", "serve", lab.address("h2"), PORT).until_listening(PORT, san=False)
        beside = lab.peer("h2", "serve", lab.address("h2"), PORT + 1, how="exec").until_listening(PORT + 1, san=False)
        clients = [lab.peer("h1", "ask", lab.address("h2"), port, "--times", 10, "--bytes", MIB, how=how)
                   for port, how in ((PORT, "run"), (PORT + 1, "exec"))]
        check(answered(), "a ping was lost")
        for p in clients:
            p.wait(60)
            equal(p.output().count('"same": true'), 10, f"answers to {p}")
        equal(lab.stat(busy)["by_reason"], {"SAN": 10}, "connections")
        beside.stop()


@scenario
def ends_are_noticed():
    """Whichever engine has the connection: of the program, of the other daemon, of this one."""
    with Engines(cores="0,1") as lab:
        server = lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT, san=False)
        p = lab.peer("h2", "ask", lab.address("h1"), PORT, "--hold", "--times", 8, "--bytes", 2000, stdin=subprocess.PIPE)
        p.until_line("holding")
        p.kill()
        until(lambda: lab.counts("h1")[0] == [0, 0] and lab.counts("h2")[0] == [0, 0], 15, "the connections are gone")
        p = lab.run("h2", PYTHON, CHECKED, "hold", PORT + 1, 5, 8, lab.address("h1"), stdin=subprocess.PIPE)
        p.wait(10, status=None)  # nobody listens there
        lab.run("h1", PYTHON, CHECKED, "serve", PORT + 1, lab.address("h1")).until_listening(PORT + 1, san=False)
        lab.forgets()
        p = lab.run("h2", PYTHON, CHECKED, "hold", PORT + 1, 30, 8, lab.address("h1"), stdin=subprocess.PIPE)
        p.until_line("holding")
        lab.until_san(p, 8)
        lab.daemons["h1"] = lab.restart_daemon("h1")
        until(lambda: not p.running(), 20, "the program is told that the other host's daemon has gone")
        check("was lost" in p.output() or "has ended" in p.output(), p.output())
        check(server.running(), "the server has ended")
        until(lambda: lab.stat(server) is not None, 5, "the server")
        lab.peer("h2", "ask", lab.address("h1"), PORT).wait(20)


main()

# SPDX-License-Identifier: BSD-3-Clause
"""dpdk-testpmd, and what a virtio driver has to do in it.

A device under test (two ports) has a peer: another testpmd on this host, whose two ports are DPDK's net_vhost behind the
same two sockets. Each check is a function of both; CHECKS has them by name. The same checks are made of our driver and
DPDK's, on a vhost-user socket (test_testpmd.py) and in a guest on the PCI bus (tests/qemu).
"""
import atexit
import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from tap import Failure, check

TESTPMD = shutil.which("dpdk-testpmd") or "/usr/bin/dpdk-testpmd"
# A peer that only sends would fill the device's queues faster than an emulated CPU takes them out.
INTERACTIVE = ["-i", "--no-flush-rx", "--total-num-mbufs=4096"]


class Testpmd:
    """One at whose standard input and output this socket is. What it prints is always read: else it would wait for us."""

    def __init__(self, sock, name, patience=30):
        self.sock, self.name, self.patience, self.text, self.marks, self.ended = sock, name, patience, "", 0, False
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self._do("", patience * 2)

    def _read(self):
        while True:
            try:
                data = self.sock.recv(65536)
            except OSError:
                data = b""
            with self.news:
                self.text += data.decode(errors="replace").replace("\r", "")
                self.ended = not data
                self.news.notify()
            if not data:
                return

    def _do(self, command, seconds):
        """What it prints until that is done. What comes later, of packets or links, is before the next one's output.

        Not by the prompt: it is written letter by letter, and what other threads tell can be between. The complaint of a
        file that is not there is written at once.
        """
        self.marks += 1
        file = f"no-file-{self.marks}"
        mark = f"Failed to create file based cmdline context: {file}\n"
        with contextlib.suppress(BrokenPipeError):
            self.sock.sendall(f"{command}\nload {file}\n".encode())
        with self.news:
            if not self.news.wait_for(lambda: mark in self.text or self.ended, seconds) or mark not in self.text:
                what = "has ended" if self.ended else f"gives no answer in {seconds} s"
                raise Failure(f"{self.name} {what}; it printed {self.text[-1200:]!r}")
            out, _, self.text = self.text.partition(mark)
            return out

    def __call__(self, *commands, seconds=None):
        """What the commands printed."""
        return "".join(self._do(c, seconds or self.patience) for c in commands)

    def counters(self, port):
        out = self(f"show port stats {port}")
        return {k: int(v) for k, v in re.findall(r"([RT]X-\w+): +(\d+)", out)}

    def xstats(self, port):
        return {k: int(v) for k, v in re.findall(r"^(\w+): (\d+)$", self(f"show port xstats {port}"), re.M)}

    def info(self, port):
        return self(f"show port info {port}")

    def quit(self):
        with contextlib.suppress(OSError), self.news:
            self.sock.sendall(b"stop\nquit\n")
            self.news.wait_for(lambda: self.ended or "Bye..." in self.text, self.patience)
        self.sock.close()


def here(name, cpu, *arguments, under=()):
    """Started on this host, perhaps under another program; its forwarding core is this CPU."""
    mine, its = socket.socketpair()
    prefix = tempfile.mktemp(prefix="testpmd-", dir="")
    argv = ["stdbuf", "-oL", *under, TESTPMD, "--no-telemetry", "--no-huge", "--no-shconf", "-m", "256", f"--file-prefix={prefix}",
            "--no-pci", "--lcores", f"0@{cpu},1@{cpu}", *arguments, "--", *INTERACTIVE]
    process = subprocess.Popen(argv, stdin=its, stdout=its, stderr=its, start_new_session=True)
    its.close()

    def end():
        if process.poll() is None:
            process.kill()
        process.wait()

    atexit.register(end)
    t = Testpmd(mine, name)
    t.process, t.end = process, end
    return t


def peer(sockets, iommu=False):
    """The back ends of the devices under test."""
    devices = []
    for i, path in enumerate(sockets):
        devices += ["--vdev", f"net_vhost{i},iface={path}" + (",iommu-support=1" if iommu else "")]
    return here("peer", 0, *devices)


def beside_a_peer(driver, device, options="", *arguments, under=()):
    """Two ports of this device over sockets, and the peer behind them: device under test, peer."""
    directory = tempfile.mkdtemp(prefix="sandirect-testpmd-")
    paths = [f"{directory}/{i}" for i in (0, 1)]
    far = peer(paths)
    devices = [x for i, path in enumerate(paths) for x in ("--vdev", f"{device}{i},path={path}{options}")]
    dut = here(device, 1, *arguments, "-d", driver, *devices, under=under)
    links_up(dut, 120 if under else 30)
    return dut, far


# --- what is checked ---

def links_up(dut, seconds=30, ports=(0, 1)):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all("Link status: up" in dut.info(p) for p in ports):
            return
        time.sleep(0.2)
    raise Failure(f"{dut.name}: the links do not come up: {dut.info(0)[:600]}")


def until_received(t, frames, seconds):
    end = time.monotonic() + seconds
    while min(t.counters(p)["RX-packets"] for p in (0, 1)) < frames:
        if time.monotonic() > end:
            raise Failure(f"{t.name}: {t.counters(0)} and {t.counters(1)} in {seconds} s")
        time.sleep(0.3)


def settle(*pair):
    """Queues empty, so that what comes finds room. Before, a back end behind an IOMMU learns of the pages that are in use: it
    loses frames meanwhile."""
    for mode in ("txonly", "rxonly"):
        for t in pair:
            t(f"set fwd {mode}", "start")
        time.sleep(0.3)
        for t in pair:
            t("stop")


def exchange(dut, far, mode, peer_mode="io", enough=2000, bursts=4, seconds=30):
    """Frames circle through both; none may be lost. Gives how many the device under test forwarded."""
    settle(dut, far)
    dut("clear port stats all")
    far("clear port stats all")
    dut(f"set fwd {mode}")
    far(f"set fwd {peer_mode}")
    dut("start")
    far(f"start tx_first {bursts}")
    end, last = time.monotonic() + seconds, -1
    while time.monotonic() < end:
        count = min(dut.counters(p)["RX-packets"] for p in (0, 1))
        if count >= enough:
            break
        if count == last:  # the peer has lost all of them: once more
            far("stop", f"start tx_first {bursts}")
        last = count
        time.sleep(0.3)
    far("stop")
    time.sleep(0.3)
    out = dut("stop")
    m = re.search(r"Accumulated.*?RX-packets: (\d+) +RX-dropped: (\d+).*?TX-packets: (\d+) +TX-dropped: (\d+)", out, re.S)
    check(m, f"{dut.name}: no statistics in {out!r}")
    received, dropped, sent, refused = map(int, m.groups())
    check(received >= 2 * enough, f"{dut.name}: {received} frames in {seconds} s in mode {mode}")
    check(received == sent and not dropped and not refused,
          f"{dut.name}: {received} received, {dropped} dropped, {sent} sent, {refused} refused in mode {mode}")
    return received


def io(dut, far):
    exchange(dut, far, "io")


def mac(dut, far):
    """The addresses that it writes arrive."""
    dut("set eth-peer 1 02:12:34:56:78:9a")
    exchange(dut, far, "mac")
    # What waits in its queues is forwarded later, when the peer has written its prompt and is free to tell of packets.
    settle(dut, far)
    far("set fwd txonly", "start", "stop", "set fwd rxonly", "set verbose 1", "start")
    dut("set fwd mac", "start")
    time.sleep(1)
    out = far("stop", "set verbose 0")
    dut("stop")
    own = re.search(r"MAC address: (\S+)", dut.info(1)).group(1)
    check(f"src={own} - dst=02:12:34:56:78:9A" in out, f"{dut.name}: no frame from {own} to the peer's: {out[:1000]!r}")


def swap5(dut, far):
    exchange(dut, far, "5tswap")


def csum(dut, far):
    """Checksums by the device where it offers that, else by the program."""
    dut("port stop all")
    for p in (0, 1):
        for layer in ("ip", "udp", "tcp"):
            hardware = layer != "ip" and re.search(layer.upper() + "_CKSUM", dut(f"show port {p} tx_offload capabilities"))
            dut(f"csum set {layer} {'hw' if hardware else 'sw'} {p}")
    dut("port start all")
    links_up(dut)
    exchange(dut, far, "csum")
    settle(dut, far)
    far("set fwd csum", "start")
    dut("set fwd txonly", "set txpkts 200", "start")
    time.sleep(1)
    dut("stop")
    out = far("stop")
    dut("set txpkts 64", "port stop all")
    for p in (0, 1):
        for layer in ("ip", "udp", "tcp"):
            dut(f"csum set {layer} sw {p}")
    dut("port start all")
    links_up(dut)
    bad = sum(map(int, re.findall(r"Bad-(?:ip|l4)csum: (\d+)", out)))
    check(not bad, f"{dut.name}: {bad} checksums are wrong")


def flood(sender, receiver, seconds=1):
    """All that was put into the queues arrives; the sender counts what they had no room for as dropped."""
    settle(sender, receiver)
    sender("clear port stats all", "set fwd txonly")
    receiver("clear port stats all", "set fwd rxonly", "start")
    sender("start")
    time.sleep(seconds)
    sender("stop")
    time.sleep(0.5)
    receiver("stop")
    for p in (0, 1):
        sent, got = sender.counters(p)["TX-packets"], receiver.counters(p)["RX-packets"]
        check(sent > 1000 and sent == got, f"{got} of {sent} frames of {sender.name}'s port {p} have reached {receiver.name}")


def rxonly(dut, far):
    flood(far, dut)


def txonly(dut, far):
    flood(dut, far)


def start_stop(dut, far):
    """A hundred times."""
    for _ in range(100):
        dut("port stop all", "port start all")
    links_up(dut)
    exchange(dut, far, "io")


def queue_setup(dut, far):
    for rxd, txd in ((64, 64), (128, 256), (256, 128)):
        dut("port stop all", f"port config all rxd {rxd}", f"port config all txd {txd}")
        out = dut("port start all")
        check("Fail" not in out, f"{dut.name}: {rxd} and {txd} descriptors: {out!r}")
        links_up(dut)
        exchange(dut, far, "io", bursts=1)


def mtu(dut, far):
    dut("port stop all")
    for p in (0, 1):
        if "SCATTER" in dut(f"show port {p} rx_offload capabilities"):
            dut(f"port config {p} rx_offload scatter on")
    out = dut("port config mtu 0 9000", "port config mtu 1 9000", "port start all")
    check("fail" not in out.lower(), f"{dut.name}: MTU of 9000: {out!r}")
    check("MTU: 9000" in dut.info(0), f"{dut.name}: {dut.info(0)}")
    links_up(dut)
    exchange(dut, far, "io")
    dut("port stop all", "port config mtu 0 1500", "port config mtu 1 1500", "port start all")
    check("MTU: 1500" in dut.info(0), f"{dut.name}: {dut.info(0)}")
    links_up(dut)
    exchange(dut, far, "io")


def link(dut, far):
    """Taken down and up ten times."""
    for _ in range(10):
        out = dut("set link-down port 0")
        check("fail" not in out.lower(), f"{dut.name}: {out!r}")
        check("Link status: down" in dut.info(0), f"{dut.name}: the link is up")
        dut("set link-up port 0")
        check("Link status: up" in dut.info(0), f"{dut.name}: the link is down")
    exchange(dut, far, "io")


def promiscuous(dut, far):
    for word, mode in (("off", "disabled"), ("on", "enabled")):
        dut(f"set promisc 0 {word}", f"set allmulti 0 {word}")
        i = dut.info(0)
        check(f"Promiscuous mode: {mode}" in i and f"Allmulticast mode: {mode}" in i, f"{dut.name}: {i}")
    exchange(dut, far, "io")


def xstats(dut, far):
    """They agree with the frames that there were, and can be cleared."""
    dut("clear port xstats all", "clear port stats all")
    exchange(dut, far, "io")
    for p in (0, 1):
        x, c = dut.xstats(p), dut.counters(p)
        check(len(x) > 10, f"{dut.name}: extended statistics: {x}")
        check(x["rx_good_packets"] == c["RX-packets"] and x["tx_good_packets"] == c["TX-packets"], f"{dut.name}: {x} beside {c}")
        first = x.get("rx_q0_packets", x.get("rx_q0_good_packets"))
        check(first == x["rx_good_packets"], f"{dut.name}: {x}")
    dut("clear port xstats all")
    check(dut.xstats(0)["rx_good_packets"] == 0, f"{dut.name}: {dut.xstats(0)}")


CHECKS = {
    "io": io, "mac": mac, "rxonly": rxonly, "txonly": txonly, "csum": csum, "5tswap": swap5, "start/stop 100 times": start_stop,
    "queue set-up": queue_setup, "MTU": mtu, "link": link, "promiscuous": promiscuous, "xstats": xstats,
}

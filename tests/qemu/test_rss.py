# SPDX-License-Identifier: BSD-3-Clause
"""A device with several pairs of queues that spreads frames by a hash: stock testpmd in a guest, on our driver.

The NIC is QEMU's own on a tap device with two queues; the frames come from a raw socket on this host.
"""
import re
import socket
import struct
import subprocess
import time

import parts
import tap
import testpmd
from machine import Machine, MultiTap
from tap import check, equal, main, scenario

KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
TABLE = 128
FROM, TO, PORT = "10.9.0.1", "10.9.0.2", 4791


def toeplitz(data, key=KEY):
    """The hash of the specification of RSS."""
    key_bits = int.from_bytes(key, "big")
    out = 0
    for i in range(len(data) * 8):
        if data[i // 8] & 0x80 >> i % 8:
            out ^= key_bits >> (len(key) * 8 - 32 - i) & 0xffffffff
    return out


def expected(sport, key=KEY):
    return toeplitz(socket.inet_aton(FROM) + socket.inet_aton(TO) + struct.pack(">HH", sport, PORT), key)


def frame(mac, sport):
    payload = b"x" * 30
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, socket.inet_aton(FROM), socket.inet_aton(TO))
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xffff) + (total >> 16)
    ip = ip[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xffff) + ip[12:]
    return bytes.fromhex(mac.replace(":", "")) + b"\2\0\0\0\0\1\x08\0" + ip + struct.pack(">HHHH", sport, PORT, 8 + len(payload), 0) + payload


@tap.once
def guest():
    net = MultiTap.network()
    image = parts.with_testpmd(parts.with_dpdk(parts.base_image()))
    machine = Machine("guest", image, [(MultiTap("rss0", 2), "mq=on,rss=on,vectors=8")], netns=net).boot()
    nics = parts.take_nics(machine)
    dut = parts.testpmd_in(machine, nics, "own", "--rxq=2", "--txq=2", "--rss-udp")
    dut("set fwd rxonly", "start")
    subprocess.run(["ip", "netns", "exec", net, "sysctl", "-qw", "net.ipv6.conf.rss0.disable_ipv6=1"], check=True)
    subprocess.run(["ip", "-n", net, "link", "set", "rss0", "up"], check=True)
    mac = re.search(r"MAC address: (\S+)", dut.info(0)).group(1)
    return dut, mac, net


def send(net, mac, sports):
    """From within the namespace; a namespace is a thread's."""
    script = ("import socket,sys\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind(('rss0',0))\n"
              "for l in sys.stdin: s.send(bytes.fromhex(l))\n")
    subprocess.run(["ip", "netns", "exec", net, "python3", "-c", script], check=True, text=True,
                   input="".join(frame(mac, p).hex() + "\n" for p in sports))


def counts(dut):
    x = dut.xstats(0)
    return [x[f"rx_q{i}_packets"] for i in (0, 1)]


def received(sports):
    """How many more each queue has got."""
    dut, mac, net = guest()
    before = counts(dut)
    send(net, mac, sports)
    end = time.monotonic() + 10
    while sum(counts(dut)) - sum(before) < len(sports) and time.monotonic() < end:
        time.sleep(0.1)
    return [a - b for a, b in zip(counts(dut), before)]


@scenario
def by_the_hash():
    """As the specification has it, with the usual key and each queue's share of the table."""
    sports = list(range(50000, 50200))
    second = sum(expected(p) % TABLE % 2 for p in sports)
    check(50 < second < 150, f"{second} of 200 for the second queue")
    equal(received(sports), [200 - second, second], "frames of each queue")


def set_table(dut, queue_of):
    for at in range(0, TABLE, 8):
        out = dut("port config 0 rss reta " + ",".join(f"({i},{queue_of(i)})" for i in range(at, at + 8)))
        check("Bad" not in out and "fail" not in out.lower(), out)


@scenario
def by_another_table():
    dut, *_ = guest()
    set_table(dut, lambda i: 1)
    equal(received(range(51000, 51100)), [0, 100], "frames of each queue")
    set_table(dut, lambda i: i % 2)


@scenario
def by_another_key():
    dut, *_ = guest()
    key = bytes(range(1, 41))
    dut(f"port config 0 rss-hash-key ipv4-udp {key.hex()}")
    sports = list(range(52000, 52200))
    second = sum(expected(p, key) % TABLE % 2 for p in sports)
    equal(received(sports), [200 - second, second], "frames of each queue")
    check(key.hex().upper() in dut("show port 0 rss-hash key").upper(), "another key is shown")


@scenario
def with_frames_that_come_before_it_starts():
    dut, mac, net = guest()
    dut("stop", "port stop 0")
    send(net, mac, range(54000, 54100))
    dut("port start 0", "start")
    testpmd.links_up(dut, ports=(0,))
    time.sleep(0.5)
    equal(sum(received(range(54000, 54200))), 200, "frames")


@scenario
def after_a_restart():
    """What has been set is set again when the device has been reset."""
    dut, *_ = guest()
    set_table(dut, lambda i: 0)
    dut("stop", "port stop 0", "port start 0", "start")
    testpmd.links_up(dut, ports=(0,))
    equal(received(range(53000, 53100)), [100, 0], "frames of each queue")


main()

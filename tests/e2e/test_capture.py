# SPDX-License-Identifier: BSD-3-Clause
"""Captures of real traffic: the dissector finds nothing wrong in them, and they show what the programs did."""
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "transport"))
import tshark
from harness import KERNEL_ONLY, Lab, Skip, check, equal, main, need, say, scenario, until

PORT = 6379
CLIENTS = 5
NAMES = ["type", "version", "flags.retx", "flags.fin", "sack.range", "trailer.status", "connection", "request_in", "repeats",
         "psn.relative", "dst_port"]
DATA, ACK, INIT, INIT_ACK, RESET, FIND, FIND_REPLY = 1, 2, 3, 4, 7, 8, 9


def capture(lab, interface):
    path = Path(lab.dir, "capture.pcapng")
    p = lab.exec("h2", "dumpcap", "-q", "-i", interface, "-B", "64", "-f", "udp port 7747", "-w", path)
    p.until_error("File: ")
    return p, path


def config(lab, host):
    """af_packet's frames are seen by others on their interface only if they do not go round the kernel's queue."""
    path = lab.config(host)
    text = Path(path).read_text()
    Path(path).write_text(text.replace("iface=sanp0", "iface=sanp0,qdisc_bypass=0"))
    return path


def traffic(lab, family):
    """Clients that come and go, small values and some that take many packets."""
    address, of_h1, of_h2 = lab.address("h1", family), config(lab, "h1"), config(lab, "h2")
    server = lab.run("h1", "redis-server", "--port", PORT, "--bind", address, "--save", "", "--protected-mode", "no",
                     "--dir", lab.dir, config=of_h1).until_listening(PORT)
    for size, requests in ((3, 2000), (50000, 100)):
        client = lab.run("h2", "redis-benchmark", "-h", address, "-p", PORT, "-t", "get,set", "-n", requests, "-c", CLIENTS,
                         "-d", size, "--csv", config=of_h2)
        client.wait(120)
    check(lab.stat(server)["san_total"] >= 2 * CLIENTS, "connections over the SAN")
    server.stop()


def captured(link, interface, family=4, **faults):
    need("tshark", "dumpcap", "redis-server", "redis-benchmark")
    if KERNEL_ONLY:
        raise Skip("there is no SAN traffic")
    with Lab(link, **faults) as lab:
        recorder, path = capture(lab, interface)
        traffic(lab, family)
        size = [-1]

        def quiet():
            before, size[0] = size[0], path.stat().st_size
            return before == size[0]
        until(quiet, 20, "the end of the traffic", every=0.7)
        recorder.signal(signal.SIGINT)
        recorder.wait()
        return tshark.fields(path, [*("sandirect." + n for n in NAMES), "_ws.expert.severity", "_ws.expert.message"])


def numbers(rows, name):
    return [int(v, 0) for r in rows for v in r["sandirect." + name]]


def look(rows, lossy):
    wrong = [(i, r["_ws.expert.message"]) for i, r in enumerate(rows, 1)
             if any(int(s) >= tshark.ERROR for s in r["_ws.expert.severity"])]
    equal(wrong[:3], [], f"errors in {len(rows)} packets")
    types = numbers(rows, "type")
    equal(len(types), len(rows), "packets that are dissected")
    check({DATA, ACK, INIT, INIT_ACK, FIND, FIND_REPLY} <= set(types), f"only types {sorted(set(types))}")
    equal(set(numbers(rows, "trailer.status")), {1}, "trailers")
    equal(len(numbers(rows, "trailer.status")), len(rows), "packets with a trailer")
    check(len(set(numbers(rows, "connection"))) >= 2 * CLIENTS, "connections")
    equal(set(numbers(rows, "dst_port")) & {PORT}, {PORT}, "the server's port")
    answered = [r for r in rows if r["sandirect.type"] == [str(INIT_ACK)] and r["sandirect.request_in"]]
    equal(len(answered), types.count(INIT_ACK), "INIT_ACKs whose INIT is found")
    again = [r for r in rows if r["sandirect.flags.retx"] in (["1"], ["True"])]
    sacks = [r for r in rows if r["sandirect.sack.range"]]
    say(f"{len(rows)} packets, {len(set(numbers(rows, 'connection')))} connections, {len(again)} sent again, {len(sacks)} with SACK")
    check(not lossy or (again and sacks), "a lossy network shows retransmissions and SACK words")
    # What has been lost before the capture is sent again for the first time that it sees; all else it has seen before.
    check(not lossy or any(r["sandirect.repeats"] for r in again), "first transmissions are found")


@scenario
def udp():
    look(captured("udp", "san0"), lossy=False)


@scenario
def udp_ipv6():
    look(captured("udp", "san0", family=6), lossy=False)


@scenario
def udp_that_loses():
    look(captured("udp", "san0", loss="2%", reorder="1%", duplicate="1%"), lossy=True)


@scenario
def veth():
    look(captured("veth", "sanp0"), lossy=False)


if __name__ == "__main__":
    main()

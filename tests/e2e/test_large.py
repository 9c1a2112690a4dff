# SPDX-License-Identifier: BSD-3-Clause
"""Large writes and reads, whose bytes go by the rings, and what comes in between: signals, timeouts, threads, forks, ends."""
from pathlib import Path

from harness import KERNEL_ONLY, MIB, PYTHON, Lab, check, equal, main, scenario

PORT = 7500
LARGE = str(Path(__file__).with_name("large.py"))
TOTAL = 48 * MIB


def transfer(lab, source, sink, port=[PORT]):
    """What both have seen."""
    port[0] += 1
    with lab.no_segments("h1", "h2"):
        server = lab.run("h1", PYTHON, LARGE, "sink", lab.address("h1"), port[0], sink).until_listening(port[0])
        client = lab.run("h2", PYTHON, LARGE, "source", lab.address("h1"), port[0], source)
        client.wait(60)
        server.wait(60)
    return client.json(), server.json()


def undisturbed(**lab_options):
    with Lab(**lab_options) as lab:
        for source, sink in (("whole", "plain"), ("pieces", "plain"), ("whole", "waitall"), ("whole", "peek"), ("whole", "nonblock")):
            sent, got = transfer(lab, source, sink)
            equal(got["bytes"], sent["bytes"], f"bytes from {source} to {sink}")
            check(sent["bytes"] >= TOTAL, f"{source} sent {sent['bytes']} bytes")
            check(sink != "waitall" or got["full"] == got["calls"] - 1, f"all calls but the last one were to be full: {got}")


@scenario
def whole():
    undisturbed()


@scenario
def udp():
    undisturbed(link="udp")


@scenario
def lossy():
    undisturbed(loss="1%", reorder="2%", duplicate="1%")


@scenario
def writers_disturbed():
    with Lab() as lab:
        for source, sink, sign in (("signals", "late", "signals"), ("timeouts", "late", "timeouts"), ("children", "late", "children")):
            sent, got = transfer(lab, source, sink)
            equal((sent["bytes"], got["bytes"]), (TOTAL, TOTAL), f"bytes with {source}")
            check(sent[sign] >= 1, f"{source} were to disturb: {sent}")


@scenario
def many_writers():
    with Lab() as lab:
        _, got = transfer(lab, "threads", "letters")
        equal(got, {"bytes": TOTAL, **dict.fromkeys("abcd", TOTAL // 4)}, "what came")


@scenario
def readers_disturbed():
    with Lab() as lab:
        for sink, sign in (("timeout", "timeouts"), ("signal", "signals")):
            _, got = transfer(lab, "parts", sink)
            check(got["partial"] and got["bytes"] >= 5 * MIB, f"{sink} was to end a call early: {got}")
            check(sign == "timeouts" or got["bytes"] == TOTAL, f"all bytes were to come: {got}")
            check(sign == "timeouts" or got[sign], f"{sink} was to disturb: {got}")


@scenario
def ends_from_elsewhere():
    with Lab() as lab:
        sent, got = transfer(lab, "shut", "late")
        check(sent.get("broken"), f"the writer was to fail: {sent}")
        equal(got["bytes"], sent["bytes"], "bytes before another thread shut the connection")
        sent, got = transfer(lab, "closed", "late")
        equal((sent["bytes"], got["bytes"]), (TOTAL, TOTAL), "bytes although another thread closed the descriptor")
        sent, _ = transfer(lab, "reset", "leave")
        check(sent.get("ECONNRESET") or sent.get("EPIPE"), f"the writer was to be told of the peer's end: {sent}")


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""
Where a packet's cycles go in the transport alone: bench_transport under perf(1), samples grouped by the source
line they are in. Prints the table of docs/performance.md. The build has line numbers:

    meson setup build-perf --buildtype=release -Ddebug=true
    ninja -C build-perf tests/transport/bench_transport
    tests/transport/costs.py build-perf
"""
import collections
import os
import re
import subprocess
import sys
import tempfile

ROWS = ["ping-pong of 64 bytes", "SEND of 64 bytes", "full packet of a stream", "full packet of a WRITE"]
COUNT = 8000000

BUILD, PARSE, CRC, COPY, ACK, TIME, DATA, BENCH = (
    "building", "finding and parsing", "CRC32C", "copying", "acknowledging, congestion", "timers, clock",
    "requests, rings, events", "the benchmark")
GROUPS = [BUILD, PARSE, CRC, COPY, ACK, TIME, DATA, BENCH]

# By file; headers that all use belong to the function they are inlined in.
FILES = {
    "output.c": BUILD, "requester.c": BUILD, "hold.c": BUILD, "input.c": PARSE, "wire.c": PARSE, "crc32c.c": CRC,
    "ack.c": ACK, "recovery.c": ACK, "pace.c": ACK, "repath.c": ACK, "flight.c": ACK, "cc_swift.c": ACK,
    "tp.c": TIME, "wheel.c": TIME, "clock.c": TIME, "conn.c": TIME, "pool.c": TIME, "receive.c": DATA,
    "responder.c": DATA, "region.c": DATA, "qp.c": DATA, "cq.c": DATA, "stream.c": DATA,
    "bench_transport.c": BENCH}
FUNCTIONS = [
    (r"mem(move|cpy|set)", COPY), (r"^crc_|^sd_crc32c", CRC), (r"put_message", BUILD), (r"tp_wire_crc_ok", CRC),
    (r"tp_output|send_|build|tp_requester", BUILD), (r"tp_input|decode", PARSE),
    (r"tp_ack|acked|tp_recovery|tp_pace|swift", ACK), (r"clock|wheel|timeout|timer|refill", TIME),
    (r"tp_receive|responder|step|place|tp_post|tp_cq|tp_qp|tp_read|tp_write|sge", DATA)]


def group_of(symbol, file):
    if re.search(r"mem(move|cpy|set)", symbol):
        return COPY
    if symbol == "tp_wire_put_message":
        return BUILD
    if file in FILES:
        return FILES[file]
    return next((g for pattern, g in FUNCTIONS if re.search(pattern, symbol)), BENCH)


def cycles(bench, row, crc, record=None):
    command = [bench, str(COUNT), row, crc]
    if record:
        command = ["perf", "record", "-q", "-F", "5000", "-o", record] + command
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(re.search(r"(\d+) cycles", out).group(1))


def shares(record):
    out = subprocess.run(["perf", "script", "-i", record, "-F", "ip,sym,srcline"], check=True,
        capture_output=True, text=True).stdout
    count = collections.Counter()
    symbol = None
    for line in out.splitlines():
        sample = re.match(r"\s*[0-9a-f]+ (\S+)", line)
        if sample:
            symbol = sample.group(1)
        elif symbol and line.strip():
            count[group_of(symbol, re.sub(r":\d+.*", "", line.strip()).split("/")[-1])] += 1
            symbol = None
    total = sum(count.values())
    return {g: count[g] / total for g in GROUPS}


def main():
    bench = os.path.join(sys.argv[1], "tests/transport/bench_transport")
    columns = []
    with tempfile.TemporaryDirectory() as scratch:
        record = os.path.join(scratch, "perf.data")
        for row in ROWS:
            total = cycles(bench, row, "on", record)
            columns.append((total, cycles(bench, row, "off"), shares(record)))
    print("| cycles, both sides together | " + " | ".join(ROWS) + " |")
    print("|---" * (len(ROWS) + 1) + "|")
    print("| with CRC | " + " | ".join(str(c[0]) for c in columns) + " |")
    print("| without | " + " | ".join(str(c[1]) for c in columns) + " |")
    for g in GROUPS:
        print(f"| {g} | " + " | ".join(f"{c[0] * c[2][g]:.0f}" for c in columns) + " |")


main()

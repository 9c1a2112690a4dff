# SPDX-License-Identifier: BSD-3-Clause
"""Captures that are made up, and what tshark with the dissector says of a capture."""
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tap import Skip, check

DISSECTOR = Path(__file__).resolve().parents[2] / "config" / "wireshark" / "sandirect.lua"
RAW_IP = 101  # link type: packets begin with their IP header
ERROR, WARNING, NOTE = 0x800000, 0x600000, 0x400000
LUA_ERROR = "_ws.lua.text"


def datagram(payload, forward=True):
    hosts = [bytes([10, 77, 0, 1]), bytes([10, 77, 0, 2])]
    source, destination = hosts if forward else hosts[::-1]
    udp = struct.pack(">HHHH", 50000, 7747, 8 + len(payload), 0) + payload
    return struct.pack(">BBHHHBBH", 0x45, 2, 20 + len(udp), 0, 0x4000, 64, 17, 0) + source + destination + udp


def write(path, packets, link=RAW_IP):
    """packets: bytes, or (bytes, how many of them were captured), 1 ms apart."""
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, link))
        for i, p in enumerate(packets):
            p, captured = p if isinstance(p, tuple) else (p, len(p))
            f.write(struct.pack("<IIII", 1000 + i // 1000, i % 1000 * 1000, min(captured, len(p)), len(p)) + p[:captured])


def fields(path, names, *options):
    """For each packet of a capture, a dict of lists: what the named fields have. Fails on an error of the dissector itself."""
    if not shutil.which("tshark"):
        raise Skip("tshark is not installed")
    names = [*names, LUA_ERROR]
    command = ["tshark", "-n", "-r", str(path), "-X", f"lua_script:{DISSECTOR}", *options, "-T", "fields", "-E", "separator=/t",
               "-E", "occurrence=a", "-E", "aggregator=|"] + [w for n in names for w in ("-e", n)]
    with tempfile.TemporaryDirectory(prefix="sdshark-") as home:  # nobody's settings
        env = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "LC_ALL": "C.UTF-8"}
        r = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)
    complaints = [line for line in r.stderr.splitlines() if line.strip() and not line.startswith("Running as user")]
    check(r.returncode == 0 and not complaints, f"tshark ended with {r.returncode}: {complaints[:5]}")
    rows = [dict(zip(names, ([] if v == "" else v.split("|") for v in line.split("\t")))) for line in r.stdout.splitlines()]
    for number, row in enumerate(rows, 1):
        check(not row[LUA_ERROR], f"packet {number} of {path}: {row[LUA_ERROR]}")
    return rows

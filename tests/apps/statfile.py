# SPDX-License-Identifier: BSD-3-Clause
"""Writes tables of connections as programs under Sandirect do (switch/statfile.h), to try `sandirect stat`."""
import ctypes as c
import os
import socket
from pathlib import Path

MAGIC, VERSION, RECORDS, PORTS = 0x53444354, 3, 8192, 8


class Addr(c.Structure):
    _fields_ = [("family", c.c_uint8), ("pad", c.c_uint8), ("port", c.c_uint16), ("scope", c.c_uint32), ("ip", c.c_uint8 * 16)]

    def __init__(self, ip="", port=0):
        super().__init__(family=6 if ":" in ip else 4 if ip else 0, port=port)
        if ip:
            packed = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
            self.ip[:len(packed)] = packed


class Record(c.Structure):
    _fields_ = [("seq", c.c_uint32), ("fd", c.c_int32), ("path", c.c_uint8), ("role", c.c_uint8), ("reason", c.c_uint16),
                ("provider", c.c_char * 8), ("state", c.c_char * 16), ("local", Addr), ("peer", Addr),
                *[(n, c.c_uint64) for n in ("bytes_out", "bytes_in", "packets_out", "packets_in", "retransmits", "srtt_ns",
                                            "min_rtt_ns")],
                ("cwnd", c.c_uint32), ("in_flight", c.c_uint32),
                *[(n, c.c_uint64) for n in ("send_queued", "recv_queued", "opened_ns")], ("mss", c.c_uint32), ("spare32", c.c_uint32),
                ("spare", c.c_uint64)]


class Port(c.Structure):
    _fields_ = [("name", c.c_char * 32), ("netdev", c.c_char * 16), ("device", c.c_char * 64), ("driver", c.c_char * 32),
                ("mac", c.c_uint8 * 6), ("link_up", c.c_uint8), ("spare8", c.c_uint8), ("mtu", c.c_uint16), ("queues", c.c_uint16),
                ("numa_node", c.c_int32),
                *[(n, c.c_uint64) for n in ("rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "rx_missed", "rx_errors", "tx_full",
                                            "rx_handed", "at_ns")]]


class Header(c.Structure):
    _fields_ = [(n, c.c_uint32) for n in ("magic", "version", "header_size", "record_size", "records")] + [
        ("pid", c.c_int32), ("start_time", c.c_uint64), ("netns", c.c_uint64), ("program", c.c_char * 64),
        ("refresh_wanted", c.c_uint64), ("refreshed", c.c_uint64), ("overflow", c.c_uint64), ("by_reason", c.c_uint64 * 64),
        ("san_total", c.c_uint64), ("tcp_total", c.c_uint64), ("engine", c.c_char * 96),
        ("n_ports", c.c_uint32), ("spare32", c.c_uint32), ("ports", Port * PORTS), ("spare", c.c_uint64 * 8)]


def start_time(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def header(pid, program=b"prog", records=RECORDS, **more):
    return Header(magic=MAGIC, version=VERSION, header_size=c.sizeof(Header), record_size=c.sizeof(Record), records=records,
                  pid=pid, start_time=start_time(pid), netns=os.stat("/proc/self/ns/net").st_ino, program=program, **more)


def record(fd, path=1, reason=0, role=0, **more):
    fields = {"seq": 2, "provider": b"ether" if path else b"tcp", "state": b"established", "local": Addr("10.77.0.2", 40000),
              "peer": Addr("10.77.0.1", 6379)}
    return Record(fd=fd, path=path, reason=reason, role=role, **{**fields, **more})

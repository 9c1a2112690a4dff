# SPDX-License-Identifier: BSD-3-Clause
"""Makes docs/vectors.json: packets with what they say, packets that are dropped with the reason, and keyed values.

    vectors.py [--check]      --check: is the file what this makes?

docs/protocol.md, section 13, describes the file.
"""
import json
import sys
from pathlib import Path

import codec
from codec import (ACK, ADD, COOKIE, DATA, FIND, FIND_REPLY, FLAGS, INIT, INIT_ACK, INIT_NAK, NONE, READ_REQ, READ_RESP, RESET,
                   SEND, STREAM, SWAP, WRITE, WRITE_IMM, X_ACK, X_ATOMIC, X_PIECE, X_READ_REQ, X_READ_RESP, X_SEND, X_STREAM, X_WRITE)

FILE = Path(__file__).resolve().parents[2] / "docs" / "vectors.json"

CID = "0x0123456789abcdef"
ONES = "0x" + "f" * 16
HELLO = b"hello".hex()
BASE = {"flags": 0, "opcode": STREAM, "credits": 0, "ce_count": 0x0203, "dst_cid": CID, "psn": 0xfffffffe, "ack": 0x80000001,
        "timestamp": 0x11223344, "echo": 0x55667788}
AT = {"rkey": "0xa1a2a3a4a5a6a7a8", "region_offset": "0x0000001020304050"}
IMMEDIATE = {"immediate": 0xcafebabe}
SSN, RSN = {"ssn": 0xfffffff0}, {"rsn": 0xfffffff0}
PLACE = {"message_offset": 0x10203}
TOKEN, COOKIE_BYTES = bytes(range(16)).hex(), bytes(range(0xf0, 0x100)).hex()
SETUP = {"attempt": 2, "src_port": 0xc001, "dst_port": 80, "dst_cid": "0x" + "0" * 16, "src_cid": "0x" + "1" * 16,
         "nonce": "0x" + "2" * 16, "epoch": "0x" + "3" * 16, "window": "0x0000000000010000", "isn": 0xdeadbeef,
         "max_ack_delay": 10000, "largest_packet": 1472, "features": 1, "packets": 512, "messages": 0,
         "timestamp": 0x01020304, "echo": 0x05060708, "token": TOKEN, "cookie": COOKIE_BYTES}
FOR_INITIATOR = {"dst_cid": SETUP["src_cid"], "nonce": SETUP["nonce"]}


def hex64(n):
    return f"0x{n:016x}"


def x_stream(offset=0x100000007):
    return {"type": X_STREAM, "offset": hex64(offset)}


def x_ack(*sack, window=0xfedcba9876543210, backlog=0, flags=0):
    return {"type": X_ACK, "backlog": backlog, "ack_flags": flags, "window": hex64(window), "sack": [hex64(w) for w in sack]}


def x_message(kind, *fields, flags=0):
    return {"type": kind, "flags": flags} | {k: v for f in fields for k, v in f.items()}


def x_piece(offset=0, more=True):
    return {"type": X_PIECE, "flags": int(more), "piece_offset": offset}


def data(*extensions, payload=HELLO, **fields):
    return {"type": DATA, **BASE, **fields, "extensions": list(extensions or [x_stream()]), "payload": payload}


def ack(*extensions, **fields):
    return {"type": ACK, **BASE, "opcode": NONE, **fields, "extensions": list(extensions), "payload": fields.get("payload", "")}


def message(opcode, x, payload="", **fields):
    return {"type": DATA, **BASE, "opcode": opcode, "flags": FLAGS["READY"], **fields, "extensions": [x] if x else [],
            "payload": payload}


def piece(opcode, x, offset=1152, more=True, payload=HELLO, **fields):
    """One of a packet of messages."""
    p = message(opcode, x, payload, flags=FLAGS["READY"] | FLAGS["ACKREQ"] | FLAGS["RETX"], **fields)
    return {**p, "extensions": [x_piece(offset, more), *p["extensions"]]}


def init(kind=INIT, **fields):
    return {"type": kind, **SETUP, **fields}


def nak(code=2, **fields):
    return {"type": INIT_NAK, "code": code, "lowest_version": 1, "highest_version": 1, **FOR_INITIATOR, **fields}


def cookie(**fields):
    return {"type": COOKIE, **FOR_INITIATOR, "cookie": COOKIE_BYTES, **fields}


def reset(reason, psn=0):
    return {"type": RESET, "reason": reason, "psn": psn, "src_cid": CID, "token": TOKEN}


def find(kind, address, code=0, port=6379, nonce="0x" + "4" * 16):
    return {"type": kind, "code": code, "port": port, "family": 6 if ":" in address else 4, "nonce": nonce, "address": address}


# What an atomic, a READ and a SEND are, to be spoiled below.
ATOMIC = x_message(X_ATOMIC, RSN, AT, {"operand": "0x1111111122222222", "compare": "0x3333333344444444"})
ADDEND = {**ATOMIC, "compare": hex64(0)}
READ = x_message(X_READ_REQ, RSN, AT, {"wanted": 2 ** 30})
SENT = x_message(X_SEND, SSN, PLACE)
SENT_IMMEDIATE = x_message(X_SEND, SSN, {"message_offset": 0}, IMMEDIATE, flags=1)
WRITTEN = x_message(X_WRITE, AT)
WRITTEN_IMMEDIATE = x_message(X_WRITE, AT, SSN, IMMEDIATE, flags=1)
ANSWER = x_message(X_READ_RESP, RSN, PLACE, flags=1)
UNKNOWN = {"type": 0x70, "value": "000001020304"}
CRITICAL = {**UNKNOWN, "type": 0xf0}

# name, packet. In those of the second list DATA and ACK have no trailer; nobody sends those of the third.
SENT_WITH_TRAILER = [
    ("DATA", data(flags=FLAGS["ACKREQ"] | FLAGS["LIMITED"])),
    *((f"DATA, {name}", data(flags=bit)) for name, bit in FLAGS.items() if name not in ("SE", "READY")),
    ("DATA, one byte", data(x_stream(0), payload="00", psn=0, ack=0, timestamp=1, echo=0, ce_count=0, dst_cid=hex64(1))),
    ("DATA, every field at its highest", data(x_stream(2 ** 64 - 1), psn=2 ** 32 - 1, ack=2 ** 32 - 1, timestamp=2 ** 32 - 1,
                                              echo=2 ** 32 - 1, ce_count=65535, dst_cid=ONES)),
    ("DATA, FIN without bytes", data(x_stream(9), flags=FLAGS["FIN"], payload="")),
    ("DATA, a window", data(x_stream(9), x_ack(window=0x4000))),
    ("DATA, 300 bytes", data(payload=(bytes(range(256)) + bytes(44)).hex())),
    ("DATA, whose bytes end like a trailer", data(payload=codec.seal(b"hello").hex())),
    ("ACK, no SACK words", ack(x_ack())),
    ("ACK, two SACK words", ack(x_ack(0x8000000000000001, 3), flags=FLAGS["BYE"], ce_count=0xffff, psn=7, ack=0, timestamp=1,
                                echo=0)),
    ("ACK, SACK across the end of the numbers", ack(x_ack(0xff00ff, 0, 1), ack=0xfffffff0)),
    ("ACK, 14 SACK words", ack(x_ack(*[2 ** 64 - 1] * 14))),
    ("ACK, a full queue", ack(x_ack(window=0x4000, backlog=255))),
    ("ACK, another queue", ack(x_ack(window=0x4000, flags=1))),
    ("ACK, ACKREQ", ack(x_ack(window=2 ** 64 - 1), flags=FLAGS["ACKREQ"])),
    ("ACK, READY", ack(x_ack(window=0), flags=FLAGS["READY"], credits=0xbeef)),
    ("SEND, a fragment, SE", message(SEND, SENT, HELLO, credits=0xbeef, flags=FLAGS["READY"] | FLAGS["SE"])),
    ("SEND, the last fragment", message(SEND, {**SENT, "flags": 1}, HELLO)),
    ("SEND, nothing, with immediate", message(SEND, SENT_IMMEDIATE, credits=1)),
    ("SEND, with immediate", message(SEND, SENT_IMMEDIATE, HELLO)),
    ("WRITE, a fragment", message(WRITE, WRITTEN, HELLO)),
    ("WRITE, the last fragment", message(WRITE, {**WRITTEN, "flags": 1}, HELLO, credits=2)),
    ("WRITE_IMM", message(WRITE_IMM, WRITTEN_IMMEDIATE, HELLO, credits=3)),
    ("WRITE_IMM, nothing", message(WRITE_IMM, WRITTEN_IMMEDIATE)),
    ("READ_REQ, the most", message(READ_REQ, READ, credits=4)),
    ("READ_REQ, nothing", message(READ_REQ, {**READ, "wanted": 0})),
    ("READ_RESP, a fragment", message(READ_RESP, {**ANSWER, "flags": 0}, HELLO)),
    ("READ_RESP, the last fragment", message(READ_RESP, ANSWER, HELLO, credits=5)),
    ("READ_RESP, of an atomic", message(READ_RESP, {**ANSWER, "message_offset": 0}, "0102030405060708")),
    ("SWAP", message(SWAP, ATOMIC, credits=6)),
    ("ADD", message(ADD, ADDEND, credits=7)),
    ("FIN of messages", message(NONE, None, flags=FLAGS["FIN"] | FLAGS["READY"], credits=8)),
    ("DATA, the first piece", data(x_piece(), x_stream(), flags=FLAGS["ACKREQ"] | FLAGS["RETX"])),
    ("DATA, a piece", data(x_piece(1152), x_stream(), flags=FLAGS["ACKREQ"] | FLAGS["RETX"])),
    ("DATA, the last piece", data(x_piece(2304, False), x_stream(), flags=FLAGS["ACKREQ"] | FLAGS["RETX"])),
    ("DATA, the last piece, FIN", data(x_piece(2304, False), x_stream(), flags=FLAGS["ACKREQ"] | FLAGS["RETX"] | FLAGS["FIN"])),
    ("DATA, a piece up to the end of the largest packet", data(x_piece(65530), x_stream())),
    ("ACK, of pieces", ack(x_ack(), x_piece(1152, False))),
    ("ACK, of pieces, SACK words", ack(x_ack(0x8000000000000001, 3), x_piece(65535, False))),
    ("ACK, of pieces, the longest header", ack(x_ack(*[1] * 14), x_piece(1, False), flags=FLAGS["ACKREQ"])),
    ("SEND, a piece", piece(SEND, SENT, credits=0xbeef)),
    ("SEND, the last piece of a fragment", piece(SEND, SENT, more=False)),
    ("SEND, the last piece, with immediate", piece(SEND, SENT_IMMEDIATE, more=False)),
    ("WRITE, a piece", piece(WRITE, WRITTEN, 0)),
    ("WRITE, the last piece", piece(WRITE, {**WRITTEN, "flags": 1}, more=False)),
    ("WRITE_IMM, the last piece", piece(WRITE_IMM, WRITTEN_IMMEDIATE, more=False)),
    ("READ_RESP, a piece", piece(READ_RESP, {**ANSWER, "flags": 0})),
    ("READ_RESP, the last piece", piece(READ_RESP, ANSWER, more=False)),
    ("INIT", init()),
    ("INIT, the first one", init(attempt=0, cookie="00" * 16, echo=0)),
    ("INIT, every field at its least", init(attempt=0, window=hex64(0), isn=0, max_ack_delay=0, largest_packet=256, features=0,
                                            packets=1, timestamp=1, echo=0, src_cid=hex64(1), cookie="00" * 16)),
    ("INIT, messages", init(attempt=255, features=3, messages=16, window=hex64(0))),
    ("INIT_ACK", init(INIT_ACK, attempt=0, dst_cid=SETUP["src_cid"], src_cid=CID, src_port=80, dst_port=0xc001, isn=0xfffffff0,
                      cookie="00" * 16)),
    ("INIT_ACK, no trailers", init(INIT_ACK, attempt=0, dst_cid=SETUP["src_cid"], src_cid=CID, features=0, cookie="00" * 16)),
    *((f"INIT_NAK, {name}", nak(n)) for n, name in enumerate(("NO_LISTENER", "REFUSED", "VERSION", "BUSY"), 1)),
    ("COOKIE", cookie()),
    *((f"RESET, {name}", reset(n)) for n, name in enumerate(("UNKNOWN", "ABORT", "CLOSED", "PROTOCOL", "TIMEOUT", "FINISHED"))),
    *((f"RESET, {name}", reset(n, 0xfffffffe)) for n, name in ((6, "ACCESS"), (7, "INVALID"))),
    ("RESET, FAILED", reset(8)),
    ("FIND, IPv4", find(FIND, "10.77.0.2")),
    ("FIND, IPv6", find(FIND, "fd77::2")),
    ("FIND_REPLY, a listener", find(FIND_REPLY, "10.77.0.2")),
    *((f"FIND_REPLY, {name}", find(FIND_REPLY, "fd00::2", n, 80))
      for n, name in enumerate(("NO_LISTENER", "REFUSED", "VERSION", "BUSY"), 1)),
    ("HELLO, IPv4", find(FIND_REPLY, "10.77.0.1", port=0, nonce=hex64(0))),
    ("HELLO, IPv6", find(FIND_REPLY, "fe80::1", port=0, nonce=hex64(0))),
]
SENT_WITHOUT = [
    ("DATA, no trailer", data()),
    ("DATA, a piece, no trailer", data(x_piece(1152), x_stream(), flags=FLAGS["ACKREQ"] | FLAGS["RETX"])),
    ("ACK, of pieces, no trailer", ack(x_ack(), x_piece(1152, False))),
    ("DATA, FIN, a window, no trailer", data(x_stream(9), x_ack(window=0x4000), flags=FLAGS["FIN"], ce_count=0, psn=1, ack=2,
                                             timestamp=3, echo=4, payload="")),
    ("ACK, no trailer", ack(x_ack(5))),
    ("WRITE, no trailer", message(WRITE, WRITTEN, HELLO)),
    ("FIN of messages, no trailer", message(NONE, None, flags=FLAGS["FIN"])),
]
NEVER_SENT = [
    ("DATA, an unknown extension", data(UNKNOWN, x_stream())),
    ("DATA, an unknown extension after its own", data(x_stream(), UNKNOWN)),
    ("DATA, an extension of type 0", data({**UNKNOWN, "type": 0}, x_stream())),
    ("DATA, the longest header", data({"type": 0x7f, "value": "a5" * (255 * 4 - 32 - 12 - 2)}, x_stream())),
    ("DATA, the window first", data(x_ack(window=0x4000), x_stream())),
    ("DATA, a window with SACK words", data(x_stream(), x_ack(1))),
    ("ACK, an unknown extension", ack(UNKNOWN, x_ack())),
    ("ACK, no extension", ack()),
    ("ACK, of pieces alone", ack(x_piece(7, False))),
    ("ACK, of no pieces", ack(x_ack(), x_piece(0, False))),
    ("DATA, one piece", data(x_piece(0, False), x_stream())),
    ("DATA, a piece, a window", data(x_stream(), x_ack(), x_piece())),
    ("ACK, FIN", ack(x_ack(), flags=FLAGS["FIN"])),
    ("SEND, a window", {**message(SEND, SENT, HELLO), "extensions": [x_ack(), SENT]}),
    ("READ_REQ, LAST", message(READ_REQ, {**READ, "flags": 1})),
    ("SWAP, LAST", message(SWAP, {**ATOMIC, "flags": 1})),
    ("INIT of another version", init(version=2)),
    ("INIT, fields of a later revision", init(beyond="0102030405060708")),
    ("INIT, bytes after the header", init(header_length=26, beyond="01020304")),
    ("INIT, unknown features", init(features=0xfffd)),
    ("INIT_NAK of another version's speaker", nak(3, lowest_version=2, highest_version=3)),
    ("INIT_NAK, an unknown code", nak(200)),
    ("RESET, fields of a later revision", {**reset(5), "beyond": "0102030405060708"}),
    ("RESET, an unknown reason", reset(255)),
    ("FIND, fields of a later revision", {**find(FIND, "10.77.0.2"), "beyond": "01020304"}),
]


def spoiled(p, at, *values):
    b = bytearray(codec.encode(p))
    b[at:at + len(values)] = bytes(values)
    return bytes(b)


def raw_extension(p, *pieces):
    """p, which has no extensions, with these bytes in their place."""
    b = codec.encode({**p, "extensions": [], "payload": ""})
    x = b"".join(pieces)
    return b[:3] + bytes([(len(b) + len(x)) // 4]) + b[4:] + x + bytes.fromhex(p["payload"])


def sized(x, length):
    """The extension x as if it had length bytes."""
    body = (codec.put_extension(x) + bytes(length))[:length]
    return body[:1] + bytes([length // 4]) + body[2:]


PLAIN_DATA, PLAIN_ACK = codec.encode(data()), codec.encode(ack(x_ack(0x8000000000000001, 3)))
# name, packet without trailer, why it is dropped. They get a right one, so that it is not what is wrong with them.
DROPPED = [
    ("DATA of version 0", spoiled(data(), 0, 0x01), "another version"),
    ("DATA of version 2", spoiled(data(), 0, 0x21), "another version"),
    ("ACK of version 15", spoiled(ack(x_ack()), 0, 0xf2), "another version"),
    ("INIT_ACK of version 2", codec.encode(init(INIT_ACK, version=2)), "another version"),
    ("RESET of version 2", spoiled(reset(0), 0, 0x27), "another version"),
    ("FIND of version 0", spoiled(find(FIND, "10.77.0.2"), 0, 0x08), "another version"),
    ("type 0", spoiled(data(), 0, 0x10), "an unknown type"),
    ("type 10", spoiled(reset(0), 0, 0x1a), "an unknown type"),
    ("type 15", spoiled(reset(0), 0, 0x1f), "an unknown type"),
    *((f"DATA, {n} bytes left", PLAIN_DATA[:n], "shorter than 32 bytes" if n + 4 < 32 else "a header that is longer than the packet")
      for n in (1, 4, 27, 28, 31, 32, 43)),
    ("DATA, its bytes are missing", PLAIN_DATA[:44], "neither bytes nor FIN"),
    *((f"ACK, {n} bytes left", PLAIN_ACK[:n], "a header that is longer than the packet") for n in (32, 44, 59)),
    *((f"{name}, {n} bytes left", codec.encode(p)[:n], "a header that is longer than the packet")
      for name, p, n in (("INIT", init(), 32), ("INIT", init(), 72), ("INIT", init(), 103), ("INIT_ACK", init(INIT_ACK), 100),
                         ("INIT_NAK", nak(), 31), ("COOKIE", cookie(), 39), ("RESET", reset(0), 28),
                         ("FIND_REPLY", find(FIND_REPLY, "fd00::2"), 31))),
    *((f"{name}, header length {n}", spoiled(p, 3, n), "a header length below the least")
      for name, p, n in (("DATA", data(), 0), ("DATA", data(), 7), ("INIT", init(), 25), ("INIT_NAK", nak(), 7),
                         ("COOKIE", cookie(), 9), ("RESET", reset(0), 0), ("FIND", find(FIND, "fd00::2"), 7))),
    *((f"{name}, header length {n}", spoiled(p, 3, n), "a header that is longer than the packet")
      for name, p, n in (("DATA", data(), 13), ("DATA", data(), 255), ("ACK", ack(x_ack()), 12), ("INIT", init(), 27),
                         ("RESET", reset(0), 9), ("FIND", find(FIND, "fd00::2"), 255))),
    ("DATA, no STREAM extension", spoiled(data(), 3, 8), "the opcode's extension is missing"),
    ("DATA, neither bytes nor FIN", codec.encode(data(payload="")), "neither bytes nor FIN"),
    ("DATA, STREAM twice", codec.encode(data(x_stream(), x_stream())), "an extension that is there twice"),
    ("DATA, STREAM of 8 bytes", raw_extension(data(), sized(x_stream(), 8)), "an extension of another length"),
    ("DATA, STREAM of 16 bytes", raw_extension(data(), sized(x_stream(), 16)), "an extension of another length"),
    ("DATA, SEND's extension", codec.encode(data(SENT)), "an extension of another opcode"),
    ("DATA, an unknown critical extension", codec.encode(data(CRITICAL, x_stream())), "an unknown critical extension"),
    ("ACK, an unknown critical extension", codec.encode(ack(x_ack(), CRITICAL)), "an unknown critical extension"),
    ("DATA, an extension of length 0", codec.encode(data(x_stream(), {**UNKNOWN, "length": 0})), "an extension of length 0"),
    ("DATA, an extension into the payload", codec.encode(data(x_stream(), {**UNKNOWN, "length": 3})),
     "an extension that is longer than the header"),
    ("ACK, an extension beyond the end", codec.encode(ack(x_ack(), {**UNKNOWN, "length": 255})),
     "an extension that is longer than the header"),
    ("ACK, twice the ACK extension", codec.encode(ack(x_ack(), x_ack())), "an extension that is there twice"),
    ("ACK, the STREAM extension", codec.encode(ack(x_ack(), x_stream())), "an extension of another opcode"),
    ("ACK, SEND's extension", codec.encode(ack(x_ack(), SENT)), "an extension of another opcode"),
    *((f"ACK, an ACK extension of {n} bytes", raw_extension(ack(), sized(x_ack(*[0] * 15), n)),
       "an ACK extension of this length") for n in (4, 8, 16, 12 + 8 * 15)),
    ("ACK, an opcode", codec.encode(ack(x_ack(), opcode=STREAM)), "an ACK with an opcode"),
    ("ACK, payload", codec.encode(ack(x_ack(), payload="00")), "payload where there is none"),
    ("DATA, opcode 9", codec.encode(data(opcode=9)), "an unknown opcode"),
    ("DATA, opcode 255", codec.encode(data(opcode=255)), "an unknown opcode"),
    ("DATA, no opcode and no FIN", codec.encode(message(NONE, None)), "no opcode and no FIN"),
    ("FIN of messages, payload", codec.encode(message(NONE, None, "00", flags=FLAGS["FIN"])), "payload where there is none"),
    ("FIN of messages, SEND's extension", codec.encode(message(NONE, SENT, flags=FLAGS["FIN"])),
     "an extension of another opcode"),
    *((f"{name}, FIN", codec.encode(message(op, x, flags=FLAGS["FIN"])), "FIN beside a message")
      for name, op, x in (("SEND", SEND, SENT), ("WRITE", WRITE, WRITTEN), ("READ_REQ", READ_REQ, READ), ("ADD", ADD, ADDEND))),
    *((f"{name}, payload", codec.encode(message(op, x, "00")), "payload where there is none")
      for name, op, x in (("READ_REQ", READ_REQ, READ), ("SWAP", SWAP, ATOMIC), ("ADD", ADD, ADDEND))),
    *((f"{name} without its extension", codec.encode(message(op, None)), "the opcode's extension is missing")
      for name, op in (("SEND", SEND), ("WRITE_IMM", WRITE_IMM), ("READ_REQ", READ_REQ), ("READ_RESP", READ_RESP), ("SWAP", SWAP))),
    *((f"{name} with the extension of {other}", codec.encode(message(op, x)), "an extension of another opcode")
      for name, op, other, x in (("SEND", SEND, "WRITE", WRITTEN), ("READ_REQ", READ_REQ, "READ_RESP", ANSWER),
                                 ("ADD", ADD, "STREAM", x_stream()))),
    *((f"{name}, an extension of {n} bytes", raw_extension(message(op, None), sized(x, n)), "an extension of another length")
      for name, op, x, n in (("SEND", SEND, SENT, 8), ("SEND", SEND, SENT_IMMEDIATE, 20), ("WRITE", WRITE, WRITTEN_IMMEDIATE, 28),
                             ("WRITE_IMM", WRITE_IMM, {**WRITTEN, "flags": 1}, 20), ("READ_REQ", READ_REQ, READ, 24),
                             ("READ_RESP", READ_RESP, ANSWER, 8), ("ADD", ADD, ADDEND, 32), ("SWAP", SWAP, ATOMIC, 44))),
    *((f"{name}, an unknown flag in its extension", codec.encode(message(op, {**x, "flags": flags})),
       "unknown flags in an extension")
      for name, op, x, flags in (("SEND", SEND, SENT, 2), ("WRITE", WRITE, WRITTEN, 0x8001), ("READ_REQ", READ_REQ, READ, 0x100),
                                 ("READ_RESP", READ_RESP, ANSWER, 3), ("SWAP", SWAP, ATOMIC, 4))),
    ("SEND, an immediate before the last fragment", codec.encode(message(SEND, {**SENT_IMMEDIATE, "flags": 0})),
     "an immediate before the last fragment"),
    ("WRITE_IMM, not the last fragment", codec.encode(message(WRITE_IMM, {**WRITTEN_IMMEDIATE, "flags": 0})),
     "an immediate before the last fragment"),
    ("READ_REQ, more than 2^30 bytes", codec.encode(message(READ_REQ, {**READ, "wanted": 2 ** 30 + 1})),
     "more wanted than 2^30 bytes"),
    *((f"{name}, PIECE of {n} bytes", raw_extension(p, codec.put_extension(x), sized(x_piece(0, False), n)),
       "a PIECE extension of another length")
      for name, p, x in (("DATA", data(), x_stream()), ("ACK", ack(), x_ack())) for n in (4, 12)),
    *((f"{name}, PIECE with flags {flags:#06x}", codec.encode(p({**x_piece(), "flags": flags})), "unknown flags in an extension")
      for name, p in (("DATA", lambda x: data(x, x_stream())), ("ACK", lambda x: ack(x_ack(), x))) for flags in (2, 0x100, 0x8001)),
    ("DATA, PIECE twice", codec.encode(data(x_piece(), x_stream(), x_piece())), "an extension that is there twice"),
    ("ACK, PIECE twice", codec.encode(ack(x_piece(1, False), x_ack(), x_piece(1, False))), "an extension that is there twice"),
    ("ACK, MORE", codec.encode(ack(x_ack(), x_piece(1152))), "MORE in an ACK"),
    ("ACK, of more bytes than a packet has", codec.encode(ack(x_ack(), x_piece(65536, False))), "a piece from beyond what a packet has"),
    *((f"DATA, a piece from {n} on", codec.encode(data(x_piece(n), x_stream())), "a piece from beyond what a packet has")
      for n in (65536, 2 ** 31, 2 ** 32 - 1)),
    *((f"DATA, a piece of 5 bytes from {n} on", codec.encode(data(x_piece(n), x_stream())),
       "a piece that ends beyond what a packet has") for n in (65531, 65535)),
    ("DATA, a piece, FIN", codec.encode(data(x_piece(), x_stream(), flags=FLAGS["FIN"])), "an end before the last piece"),
    *((f"{name}, a piece, LAST", codec.encode(piece(op, x)), "an end before the last piece")
      for name, op, x in (("SEND", SEND, {**SENT, "flags": 1}), ("WRITE", WRITE, {**WRITTEN, "flags": 1}),
                          ("WRITE_IMM", WRITE_IMM, WRITTEN_IMMEDIATE), ("READ_RESP", READ_RESP, ANSWER))),
    ("DATA, a piece without payload", codec.encode(data(x_piece(7), x_stream(), payload="")), "a piece of nothing"),
    ("DATA, a last piece without payload, FIN", codec.encode(data(x_piece(7, False), x_stream(), flags=FLAGS["FIN"], payload="")),
     "a piece of nothing"),
    *((f"{name}, a piece", codec.encode(piece(op, x, 0, False, "")), "a piece of nothing")
      for name, op, x in (("SEND of nothing", SEND, SENT_IMMEDIATE), ("READ_REQ", READ_REQ, READ), ("SWAP", SWAP, ATOMIC),
                          ("ADD", ADD, ADDEND))),
    ("FIN of messages, a piece", codec.encode({**message(NONE, None, flags=FLAGS["FIN"]), "extensions": [x_piece(0, False)]}),
     "a piece of nothing"),
    ("INIT, no connection id", codec.encode(init(src_cid=hex64(0))), "no connection id of the sender"),
    ("INIT, a largest packet of 255", codec.encode(init(largest_packet=255)), "a largest packet below 256"),
    ("INIT, no packets", codec.encode(init(packets=0)), "no packets are remembered"),
    ("INIT_ACK, no connection id", codec.encode(init(INIT_ACK, src_cid=hex64(0))), "no connection id of the sender"),
    ("INIT of another version, too short", codec.encode(init(version=2))[:100], "a header that is longer than the packet"),
    ("RESET, no connection id", codec.encode({**reset(0), "src_cid": hex64(0)}), "no connection id of the sender"),
    ("INIT_NAK, code 0", codec.encode(nak(0)), "an INIT_NAK without a code"),
    ("FIND, family 0", spoiled(find(FIND, "10.77.0.2"), 6, 0), "an address of another family"),
    ("FIND_REPLY, family 5", spoiled(find(FIND_REPLY, "fd00::2"), 6, 5), "an address of another family"),
]


def damaged():
    """What is wrong with these is the trailer; in the first ones the packet has been changed on its way."""
    for name, p in (("DATA", data()), ("ACK", ack(x_ack(1))), ("SEND", message(SEND, SENT, HELLO)), ("INIT", init()),
                    ("INIT_ACK", init(INIT_ACK)), ("INIT_NAK", nak()), ("COOKIE", cookie()), ("RESET", reset(5)),
                    ("FIND", find(FIND, "10.77.0.2")), ("FIND_REPLY", find(FIND_REPLY, "10.77.0.2"))):
        b = bytearray(codec.seal(codec.encode(p)))
        b[20] ^= 1
        yield f"{name}, a bit has changed", bytes(b)
    good = codec.seal(codec.encode(reset(5)))
    yield "RESET, the trailer is little-endian", good[:-4] + good[:-5:-1]
    yield "RESET, the trailer is not complemented", good[:-4] + bytes(255 - b for b in good[-4:])
    yield "COOKIE, no trailer", codec.encode(cookie())
    yield "DATA, the trailer is missing", codec.encode(data())
    yield "INIT, one byte is missing", codec.seal(codec.encode(init()))[:-1]


def keyed():
    """Values that a node makes for itself. They are opaque to others, who never need to make them."""
    key = bytes(range(16))
    cid = int(CID, 16).to_bytes(8, "little")
    yield {"name": "reset token", "key": key.hex(), "cid": CID, "input": cid.hex(), "token": codec.siphash(key, cid, 16).hex()}
    for initiator, responder in (("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")):
        now = 0x0000001122334455
        question = (codec.put_address(initiator) + codec.put_address(responder) + (0xc001).to_bytes(2, "big") + (80).to_bytes(2, "big") +
                    bytes.fromhex("11" * 8 + "22" * 8) + (now >> 32).to_bytes(8, "big"))
        yield {"name": "cookie", "key": key.hex(), "initiator": initiator, "responder": responder, "src_port": 0xc001, "dst_port": 80,
               "src_cid": SETUP["src_cid"], "nonce": SETUP["nonce"], "time": hex64(now), "input": question.hex(),
               "cookie": codec.siphash(key, question, 16).hex()}
    for address in ("10.77.0.2", "fd77::2"):
        question = bytes([6 if ":" in address else 4]) + (6379).to_bytes(2, "big") + codec.put_address(address)
        nonce = int.from_bytes(codec.siphash(key, question, 8), "little") | 1
        yield {"name": "nonce of FIND", "key": key.hex(), "port": 6379, "address": address, "input": question.hex(),
               "nonce": hex64(nonce)}


def packet_vectors():
    for group, sealed, sent in ((SENT_WITH_TRAILER, True, True), (SENT_WITHOUT, False, True), (NEVER_SENT, True, False)):
        for name, p in group:
            b = codec.encode(p)
            b = codec.seal(b) if sealed else b
            yield {"name": name, "sent": sent, "trailer": "right" if sealed else "none", "packet": b.hex(),
                   "fields": codec.decode(b, sealed)}
    for name, b, reason in DROPPED:
        yield {"name": name, "trailer": "right", "packet": codec.seal(b).hex(), "dropped": reason}
    for name, b in damaged():
        yield {"name": name, "trailer": "wrong", "packet": b.hex(), "dropped": "a wrong trailer"}


def checked(vectors):
    """Is each of them what it is meant to be?"""
    names = set()
    for v in vectors:
        assert v["name"] not in names, v["name"]
        names.add(v["name"])
        b = bytes.fromhex(v["packet"])
        if "dropped" in v:
            try:
                codec.decode(b, True)
            except codec.Malformed as e:
                assert str(e) == v["dropped"], (v["name"], str(e))
            else:
                raise AssertionError(v["name"] + " is not malformed")
        else:
            again = codec.encode(v["fields"])
            assert (codec.seal(again) if v["trailer"] == "right" else again) == b, v["name"]
        yield v


def text():
    def entry(v):
        return "  {\n" + ",\n".join(f"   {json.dumps(k)}: {json.dumps(x)}" for k, x in v.items()) + "\n  }"

    def group(name, entries):
        return f' "{name}": [\n' + ",\n".join(map(entry, entries)) + "\n ]"
    return "{\n" + ",\n".join([f' "version": {codec.VERSION}', group("packets", checked(packet_vectors())),
                               group("keyed", keyed())]) + "\n}\n"


def main():
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != text():
            sys.exit(f"{FILE} is not what {Path(__file__).name} makes: run it")
    else:
        FILE.write_text(text())


if __name__ == "__main__":
    main()

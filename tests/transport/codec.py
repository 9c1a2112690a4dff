# SPDX-License-Identifier: BSD-3-Clause
"""The packet format once more, written from docs/protocol.md and sharing nothing with transport/wire.c.

A packet is a dict of the page's fields by name. Numbers of 64 bits and rows of bytes are hexadecimal strings, all
others are numbers, addresses are as people write them: so a packet is also what docs/vectors.json has.
"""
import ipaddress

DATA, ACK, INIT, INIT_ACK, INIT_NAK, COOKIE, RESET, FIND, FIND_REPLY = range(1, 10)
FLAGS = {"ACKREQ": 1, "RETX": 2, "FIN": 4, "SE": 8, "LIMITED": 16, "BYE": 32, "LATE": 64, "READY": 128}
NONE, STREAM, SEND, WRITE, WRITE_IMM, READ_REQ, READ_RESP, SWAP, ADD = range(9)
X_STREAM, X_ACK, X_SEND, X_WRITE, X_READ_REQ, X_READ_RESP, X_ATOMIC = range(1, 8)
X_PIECE = 0x81
X_CRITICAL = 0x80
LAST = 1
MORE = 1
MOST = 65535  # bytes of a packet that comes in pieces
VERSION = 1
BASE_LENGTH = 32
TRAILER_LENGTH = 4

# (name, bytes); None: sent as 0 and ignored.
BASE = (("flags", 1), ("opcode", 1), ("header_length", 1), ("credits", 2), ("ce_count", 2), ("dst_cid", 8), ("psn", 4),
        ("ack", 4), ("timestamp", 4), ("echo", 4))
SETUP = ((None, 1), ("attempt", 1), ("header_length", 1), ("src_port", 2), ("dst_port", 2), ("dst_cid", 8), ("src_cid", 8),
         ("nonce", 8), ("epoch", 8), ("window", 8), ("isn", 4), ("max_ack_delay", 4), ("largest_packet", 2),
         ("features", 2), ("packets", 2), ("messages", 2), ("timestamp", 4), ("echo", 4), ("token", 16), ("cookie", 16))
QUESTION = ((None, 1), ("code", 1), ("header_length", 1), ("port", 2), ("family", 1), (None, 1), ("nonce", 8),
            ("address", 16))
LAYOUTS = {
    DATA: BASE, ACK: BASE, INIT: SETUP, INIT_ACK: SETUP, FIND: QUESTION, FIND_REPLY: QUESTION,
    INIT_NAK: ((None, 1), ("code", 1), ("header_length", 1), ("lowest_version", 1), ("highest_version", 1), (None, 2),
               ("dst_cid", 8), ("nonce", 8), (None, 8)),
    COOKIE: ((None, 2), ("header_length", 1), (None, 4), ("dst_cid", 8), ("nonce", 8), ("cookie", 16)),
    RESET: ((None, 1), ("reason", 1), ("header_length", 1), ("psn", 4), ("src_cid", 8), ("token", 16)),
}
# After type and length. The second one of a pair has an immediate.
EXTENSIONS = {
    X_STREAM: ((None, 2), ("offset", 8)),
    X_ACK: (("backlog", 1), ("ack_flags", 1), ("window", 8)),
    X_SEND: (("flags", 2), ("ssn", 4), ("message_offset", 4), ("immediate", 4)),
    X_WRITE: (("flags", 2), ("rkey", 8), ("region_offset", 8), ("ssn", 4), ("immediate", 4)),
    X_READ_REQ: (("flags", 2), ("rsn", 4), ("rkey", 8), ("region_offset", 8), ("wanted", 4)),
    X_READ_RESP: (("flags", 2), ("rsn", 4), ("message_offset", 4)),
    X_ATOMIC: (("flags", 2), ("rsn", 4), ("rkey", 8), ("region_offset", 8), ("operand", 8), ("compare", 8)),
    X_PIECE: (("flags", 2), ("piece_offset", 4)),
}
# The extension that an opcode has, and its length; SEND may also have an immediate.
OWN = {STREAM: (X_STREAM, 12), SEND: (X_SEND, 12), WRITE: (X_WRITE, 20), WRITE_IMM: (X_WRITE, 28), READ_REQ: (X_READ_REQ, 28),
       READ_RESP: (X_READ_RESP, 12), SWAP: (X_ATOMIC, 40), ADD: (X_ATOMIC, 40)}
SEND_IMMEDIATE_LENGTH = 16
PIECE_LENGTH = 8


class Malformed(Exception):
    """Says why a packet is dropped."""


def require(condition, otherwise):
    if not condition:
        raise Malformed(otherwise)


# --- sums ---

def crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = crc_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xffffffff


def seal(packet):
    return packet + crc32c(packet).to_bytes(TRAILER_LENGTH, "big")


def sealed(packet):
    return len(packet) > TRAILER_LENGTH and seal(packet[:-TRAILER_LENGTH]) == packet


def siphash(key, data, size):
    """SipHash-2-4 with size bytes of output, 8 or 16."""
    mask = 2 ** 64 - 1
    k = [int.from_bytes(key[i:i + 8], "little") for i in (0, 8)]
    v = [k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d, k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573]

    def rotate(x, n):
        return (x << n | x >> 64 - n) & mask

    def rounds(n):
        for _ in range(n):
            for a, b, c, d, r, s in ((0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21)):
                v[a] = (v[a] + v[b]) & mask
                v[b] = rotate(v[b], r) ^ v[a]
                v[a] = rotate(v[a], 32)
                v[c] = (v[c] + v[d]) & mask
                v[d] = rotate(v[d], s) ^ v[c]

    if size == 16:
        v[1] ^= 0xee
    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 255])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i:i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    out = b""
    for tweak in (0xee, 0xdd) if size == 16 else (0xff,):
        v[1 if out else 2] ^= tweak
        rounds(4)
        out += (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    return out


# --- fields ---

def put_address(text):
    return ipaddress.ip_address(text).packed.ljust(16, b"\0")


def get_address(raw, family):
    require(family in (4, 6), "an address of another family")
    return str(ipaddress.ip_address(raw[:4] if family == 4 else raw))


def put_field(name, size, value):
    if name == "address":
        return put_address(value)
    if size == 16:
        return bytes.fromhex(value)
    return (int(value, 16) if size == 8 else value).to_bytes(size, "big")


def get_field(raw):
    if len(raw) == 16:
        return raw.hex()
    return "0x" + raw.hex() if len(raw) == 8 else int.from_bytes(raw, "big")


def put_fields(layout, fields):
    return b"".join(put_field(name, n, fields[name]) if name else bytes(n)
                    for name, n in layout if not name or name in fields)


def get_fields(layout, raw):
    """Those that raw is long enough for."""
    out, at = {}, 0
    for name, n in layout:
        if at + n > len(raw):
            break
        if name:
            out[name] = get_field(raw[at:at + n])
        at += n
    return out


# --- packets ---

def put_extension(x):
    layout = EXTENSIONS.get(x["type"])
    body = put_fields(layout, x) if layout else bytes.fromhex(x["value"])
    body += b"".join(int(w, 16).to_bytes(8, "big") for w in x.get("sack", ()))
    return bytes([x["type"], x.get("length", (2 + len(body)) // 4)]) + body


def encode(p):
    """Without trailer. header_length, and an extension's length, only need be there if they are wrong."""
    body = b"".join(map(put_extension, p.get("extensions", ()))) + bytes.fromhex(p.get("beyond", ""))
    layout = LAYOUTS[p["type"]]
    length = 1 + sum(n for _, n in layout) + len(body)
    head = bytes([p.get("version", VERSION) << 4 | p["type"]])
    return head + put_fields(layout, {"header_length": length // 4, **p}) + body + bytes.fromhex(p.get("payload", ""))


def get_extension(kind, raw):
    x = {"type": kind, "length": len(raw) // 4}
    if kind not in EXTENSIONS:
        return {**x, "value": raw[2:].hex()}
    if kind == X_ACK:
        require(len(raw) >= 12 and (len(raw) - 12) % 8 == 0 and len(raw) <= 12 + 8 * 14, "an ACK extension of this length")
        return {**x, **get_fields(EXTENSIONS[kind], raw[2:]), "sack": [get_field(raw[i:i + 8]) for i in range(12, len(raw), 8)]}
    return {**x, **get_fields(EXTENSIONS[kind], raw[2:])}


def get_extensions(raw, own):
    out = []
    while raw:
        kind, length = raw[0], raw[1] * 4
        require(length, "an extension of length 0")
        require(length <= len(raw), "an extension that is longer than the header")
        require(kind not in EXTENSIONS or kind in (own, X_ACK, X_PIECE), "an extension of another opcode")
        require(kind not in EXTENSIONS or all(x["type"] != kind for x in out), "an extension that is there twice")
        require(kind in EXTENSIONS or not kind & X_CRITICAL, "an unknown critical extension")
        out.append(get_extension(kind, raw[:length]))
        raw = raw[length:]
    return out


def check_message(opcode, x):
    kind, length = OWN[opcode]
    last = x.get("flags", 0) & LAST
    got = x["length"] * 4
    require(got == length or (opcode == SEND and got == SEND_IMMEDIATE_LENGTH), "an extension of another length")
    require(not x.get("flags", 0) & ~LAST, "unknown flags in an extension")
    require(last or "immediate" not in x, "an immediate before the last fragment")
    require(x.get("wanted", 0) <= 2 ** 30, "more wanted than 2^30 bytes")


def piece_of(p):
    """The PIECE extension, if there is one."""
    x = next((x for x in p["extensions"] if x["type"] == X_PIECE), None)
    if x:
        require(x["length"] * 4 == PIECE_LENGTH, "a PIECE extension of another length")
        require(not x["flags"] & ~MORE, "unknown flags in an extension")
        require(x["piece_offset"] <= MOST, "a piece from beyond what a packet has")
    return x


def check_piece(p, x, ends):
    length = len(p["payload"]) // 2
    require(length, "a piece of nothing")
    require(x["piece_offset"] + length <= MOST, "a piece that ends beyond what a packet has")
    require(not x["flags"] & MORE or not ends, "an end before the last piece")


def check_data(p):
    opcode, fin, payload = p["opcode"], p["flags"] & FLAGS["FIN"], p["payload"]
    own = [x for x in p["extensions"] if opcode in OWN and x["type"] == OWN[opcode][0]]
    require(opcode == NONE or own, "the opcode's extension is missing")
    if own:
        check_message(opcode, own[0])
    piece = piece_of(p)
    if piece:
        check_piece(p, piece, fin or (own and own[0].get("flags", 0) & LAST))
    if opcode == STREAM:
        require(payload or fin, "neither bytes nor FIN")
    elif opcode == NONE:
        require(fin, "no opcode and no FIN")
        require(not payload, "payload where there is none")
    else:
        require(not fin, "FIN beside a message")
        require(opcode not in (READ_REQ, SWAP, ADD) or not payload, "payload where there is none")


def decode_base(p, packet):
    p.update(get_fields(BASE, packet[1:]))
    length = p["header_length"] * 4
    require(length >= BASE_LENGTH, "a header length below the least")
    require(length <= len(packet), "a header that is longer than the packet")
    data, opcode = p["type"] == DATA, p["opcode"]
    require(opcode in OWN or opcode == NONE, "an unknown opcode")
    require(data or opcode == NONE, "an ACK with an opcode")
    own = OWN[opcode][0] if data and opcode in OWN else None
    p["extensions"] = get_extensions(packet[BASE_LENGTH:length], own)
    p["payload"] = packet[length:].hex()
    if data:
        check_data(p)
    else:
        piece = piece_of(p)
        require(not piece or not piece["flags"] & MORE, "MORE in an ACK")
        require(not p["payload"], "payload where there is none")
    return p


def decode_control(p, packet):
    layout = LAYOUTS[p["type"]]
    least = 1 + sum(n for _, n in layout)
    require(packet[3] * 4 >= least, "a header length below the least")
    require(packet[3] * 4 <= len(packet), "a header that is longer than the packet")
    p.update(get_fields(layout, packet[1:]))
    if "address" in p:
        p["address"] = get_address(packet[16:32], p["family"])
    if packet[least:]:
        p["beyond"] = packet[least:].hex()
    require(int(p.get("src_cid", "1"), 16), "no connection id of the sender")
    if layout is SETUP:
        require(p["largest_packet"] >= 256, "a largest packet below 256")
        require(p["packets"], "no packets are remembered")
    require(p["type"] != INIT_NAK or p["code"], "an INIT_NAK without a code")
    return p


def decode(packet, trailer):
    """trailer: DATA and ACK have it. Raises Malformed."""
    require(len(packet) >= BASE_LENGTH, "shorter than 32 bytes")
    p = {"version": packet[0] >> 4, "type": packet[0] & 15}
    require(p["type"] in LAYOUTS, "an unknown type")
    require(p["version"] == VERSION or p["type"] == INIT, "another version")
    control = p["type"] not in (DATA, ACK)
    if control or trailer:
        require(sealed(packet), "a wrong trailer")
        packet = packet[:-TRAILER_LENGTH]
    # With the trailer taken off, what is left may be shorter than what every packet has.
    require(len(packet) >= BASE_LENGTH, "a header that is longer than the packet")
    return (decode_control if control else decode_base)(p, packet)

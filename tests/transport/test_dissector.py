# SPDX-License-Identifier: BSD-3-Clause
"""Wireshark's dissector against docs/vectors.json, made-up conversations, packets that are broken at random, and simulations."""
import ipaddress
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import broken
import codec
import tshark
from codec import ACK, DATA, FLAGS, INIT, INIT_ACK, READ_REQ, READ_RESP, RESET, SEND, STREAM
from tap import Skip, check, equal, main, say, scenario

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "docs" / "vectors.json").read_text())["packets"]
CID = "0x0123456789abcdef"
ONE_WORD = {"type", "length", "flags", "value"}  # of an extension; its other fields have the packet's name space
NUMBERS = {"version", "type", "ext.type", "ext.length", "ext.flags"} | {
    name for layout in [*codec.LAYOUTS.values(), *codec.EXTENSIONS.values()] for name, size in layout if name and size <= 8}
BYTES = {"token", "cookie", "payload", "beyond", "ext.value"}
ADDRESSES = {"address.ipv4", "address.ipv6"}
BOOLEANS = {"flags." + name.lower() for name in FLAGS} | {"features.crc32c", "features.messages", "ext.flags.last", "ext.flags.more"}
ALL = sorted(NUMBERS | BYTES | ADDRESSES | BOOLEANS | {"sack", "sack.range", "trailer", "trailer.status"})
EXPERT = ["_ws.expert.severity", "_ws.expert.message"]


def dissect(packets, names=(), *options):
    """packets: of datagrams, or pairs of them and how much is captured."""
    with tempfile.TemporaryDirectory(prefix="sdissect-") as d:
        path = Path(d, "made.pcap")
        tshark.write(path, packets)
        rows = tshark.fields(path, [*("sandirect." + n for n in names), *EXPERT], *options)
    equal(len(rows), len(packets), "packets that tshark tells of")
    return rows


def errors(row):
    return [m for s, m in zip(row[EXPERT[0]], row[EXPERT[1]]) if int(s) >= tshark.ERROR]


def bytes_of(v):
    return bytes.fromhex(v["packet"])


def named(name):
    return bytes_of(next(v for v in VECTORS if v["name"] == name))


# --- every field of every vector ---

def ranges(words, ack):
    """What SACK words say, as the dissector has it."""
    got = [i for i in range(64 * len(words)) if int(words[i // 64], 16) >> i % 64 & 1]
    out = []
    for i in got:
        if out and out[-1][1] == i - 1:
            out[-1][1] = i
        else:
            out.append([i, i])
    psns = [[(ack + 1 + i) % 2 ** 32 for i in r] for r in out]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in psns)


def wanted_fields(v):
    """Lists by the dissector's names."""
    out = {name: [] for name in ALL}
    f = v["fields"]
    for name, value in f.items():
        if name == "address":
            out[f"address.ipv{f['family']}"].append(value)
        elif name != "extensions" and value != "":
            out[name].append(value)
    for x in f.get("extensions", ()):
        for name, value in x.items():
            if name == "sack":
                out["sack"] += value
                out["sack.range"] += [ranges(value, f["ack"])] if value else []
            else:
                out["ext." + name if name in ONE_WORD else name].append(value)
    for name, bit in FLAGS.items():
        out["flags." + name.lower()] += [bool(n & bit) for n in out["flags"]]
    out["features.crc32c"] += [bool(n & 1) for n in out["features"]]
    out["features.messages"] += [bool(n & 2) for n in out["features"]]
    for x in f.get("extensions", ()):
        if "flags" in x:
            out["ext.flags.more" if x["type"] == codec.X_PIECE else "ext.flags.last"].append(bool(x["flags"] & 1))
    if v["trailer"] == "right":
        out["trailer"].append(int(v["packet"][-8:], 16))
        out["trailer.status"].append(1)
    return out


def in_one_form(name, value):
    if name in ADDRESSES:
        return ipaddress.ip_address(value)
    if name in BOOLEANS:
        return value in (True, "1", "True")
    if name in BYTES or name == "sack.range":
        return value.replace(":", "")
    return int(value, 0) if isinstance(value, str) else value


def compare(v, row):
    if "dropped" in v:
        equal(errors(row), ["Dropped: " + v["dropped"]], v["name"])
        return
    equal(errors(row), [], v["name"])
    for name, want in wanted_fields(v).items():
        got = [in_one_form(name, x) for x in row["sandirect." + name]]
        equal(got, [in_one_form(name, x) for x in want], f"{v['name']}, {name}")


def compare_all(vectors, before=()):
    rows = dissect([tshark.datagram(b) for b in (*before, *map(bytes_of, vectors))], ALL)
    for v, row in zip(vectors, rows[len(before):]):
        compare(v, row)
    say(len(vectors), "vectors")


@scenario
def packets_with_trailer():
    # The INIT_ACK that says otherwise comes last.
    compare_all(sorted((v for v in VECTORS if v["trailer"] != "none"), key=lambda v: v["name"] == "INIT_ACK, no trailers"),
                [named("INIT_ACK")])


@scenario
def packets_without_trailer():
    compare_all([v for v in VECTORS if v["trailer"] == "none"], [named("INIT_ACK, no trailers")])


@scenario
def packets_whose_connection_is_unknown():
    """Whether they have a trailer is seen from the first good one."""
    for trailer in ("right", "none"):
        compare_all([v for v in VECTORS if v["trailer"] == trailer and "dropped" not in v and not v["name"].startswith("INIT_ACK")])
    good, bad = named("DATA"), named("DATA, a bit has changed")
    rows = dissect([tshark.datagram(b) for b in (bad, good, bad)])
    equal([errors(r) for r in rows], [[], [], ["Dropped: a wrong trailer"]], "wrong trailers")


@scenario
def the_preference_for_trailers():
    good, without = named("DATA"), named("DATA, no trailer")
    for value, packet, dropped in (("1", without, True), ("1", good, False), ("2", without, False)):
        wish = {"1": "Always", "2": "Never"}[value]
        row = dissect([tshark.datagram(packet)], ["payload"], "-o", f"sandirect.trailer:{wish}")[0]
        equal(errors(row), ["Dropped: a wrong trailer"] if dropped else [], f"{wish}")
        if not dropped:
            equal(row["sandirect.payload"], [b"hello".hex()], wish)


# --- a conversation ---

A, B, NONCE = "0x" + "a" * 16, "0x" + "b" * 16, "0x" + "9" * 16
SETUP = next(v["fields"] for v in VECTORS if v["name"] == "INIT, the first one")


def x_stream(offset):
    return {"type": 1, "offset": f"0x{offset:016x}"}


def piece(offset, more=True):
    return {"type": codec.X_PIECE, "flags": int(more), "piece_offset": offset}


def data(cid, psn, ack, payload=b"hello", offset=0, flags=0, **more):
    extensions = more.pop("extensions", [x_stream(offset)])
    return {"type": DATA, "flags": flags, "opcode": STREAM, "credits": 0, "ce_count": 0, "dst_cid": cid, "psn": psn, "ack": ack,
            "timestamp": 1, "echo": 0, "extensions": extensions, "payload": payload.hex(), **more}


def ack(cid, psn, upto, *sack, pieces=None):
    x = {"type": 2, "backlog": 0, "ack_flags": 0, "window": "0x0000000000001000", "sack": [f"0x{w:016x}" for w in sack]}
    told = [x] if pieces is None else [x, piece(pieces, False)]
    return {**data(cid, psn, upto, b"", extensions=told), "type": ACK, "opcode": 0}


def init(kind, **fields):
    return {**{k: v for k, v in SETUP.items() if k != "header_length"}, "type": kind, "nonce": NONCE, **fields}


def message(cid, psn, opcode, x, payload=b""):
    return data(cid, psn, 0, payload, flags=FLAGS["READY"], opcode=opcode, extensions=[x])


# Forward?, packet, and what the column of information says.
I, R = 0xfffffffe, 1000
STREAM_TALK = [
    (True, init(INIT, src_cid=A, isn=I), "INIT 49153 → 80 Win=65536 [CRC32C]"),
    (True, init(INIT, src_cid=A, isn=I, attempt=1), "INIT 49153 → 80 Win=65536 [CRC32C] attempt 2"),
    (False, init(INIT_ACK, src_cid=B, dst_cid=A, isn=R, src_port=80, dst_port=49153), "INIT_ACK 80 → 49153 Win=65536 [CRC32C]"),
    (True, data(B, I, R), "49153 → 80 DATA PSN=0 Ack=0 Off=0 Len=5"),
    (True, data(B, I + 1, R, offset=5), "49153 → 80 DATA PSN=1 Ack=0 Off=5 Len=5"),
    (True, data(B, 1, R, offset=15), "49153 → 80 DATA PSN=3 Ack=0 Off=15 Len=5"),
    (False, ack(A, R, 0, 1 | 3 << 62, 1), "80 → 49153 ACK PSN=0 Ack=2 Win=4096 SACK=3, 65-67"),
    (True, data(B, 0, R, offset=10, flags=FLAGS["RETX"]), "[retransmission] 49153 → 80 DATA PSN=2 Ack=0 Off=10 Len=5 [RETX]"),
    (True, data(B, I, R, flags=FLAGS["RETX"]), "[retransmission] 49153 → 80 DATA PSN=0 Ack=0 Off=0 Len=5 [RETX]"),
    (True, data(B, I, R), "[duplicate] 49153 → 80 DATA PSN=0 Ack=0 Off=0 Len=5"),
    (True, data(B, 3, R, offset=20), "49153 → 80 DATA PSN=5 Ack=0 Off=20 Len=5"),
    (True, data(B, 2, R, offset=20), "[out of order] 49153 → 80 DATA PSN=4 Ack=0 Off=20 Len=5"),
    (True, data(B, 0, R, extensions=[piece(0), x_stream(10)], flags=FLAGS["RETX"]),
     "[retransmission] 49153 → 80 DATA piece 0-4 of PSN=2 Ack=0 Off=10 Len=5 [RETX]"),
    (False, ack(A, R, 0, pieces=5), "80 → 49153 ACK PSN=0 Ack=2 Pieces=5 Win=4096"),
    (True, data(B, 0, R, extensions=[piece(5, False), x_stream(15)], flags=FLAGS["RETX"]),
     "[retransmission] 49153 → 80 DATA last piece 5-9 of PSN=2 Ack=0 Off=15 Len=5 [RETX]"),
    (False, data(A, R, 2, b"", flags=FLAGS["FIN"] | FLAGS["BYE"]), "80 → 49153 DATA PSN=0 Ack=4 Off=0 Len=0 [FIN, BYE]"),
    (True, {"type": RESET, "reason": 1, "psn": 0, "src_cid": A, "token": "00" * 16}, "RESET ABORT"),
]


def talk(packets, names, *options):
    rows = dissect([tshark.datagram(codec.seal(codec.encode(p)), forward) for forward, p, *_ in packets],
                   ["connection", *names], *options)
    equal([m for r in rows for m in errors(r)], [], "errors")
    return rows


@scenario
def a_stream():
    rows = talk(STREAM_TALK, ["psn.relative", "ack.relative", "repeats", "request_in", "response_in", "response_time",
                              "acknowledges"], "-2")

    def column(name):
        return [",".join(r["sandirect." + name]) for r in rows]
    equal(set(column("connection")), {"0"}, "connection")
    equal(column("psn.relative"), ["", "", "", "0", "1", "3", "0", "2", "0", "0", "5", "4", "2", "0", "2", "0", ""], "relative PSN")
    equal(column("ack.relative"), ["", "", "", "0", "0", "0", "2", "0", "0", "0", "0", "0", "0", "2", "0", "4", ""], "relative ack")
    equal(column("repeats"), ["", "1", "", "", "", "", "", "", "4", "4", "", "", "8", "", "8", "", ""], "first transmission")
    equal(column("request_in"), ["", "", "1"] + [""] * 13 + ["16"], "answer to")
    equal(column("response_in"), ["3"] + [""] * 14 + ["17", ""], "answered in")
    equal(column("response_time")[2], "0.002000000", "time of the answer")
    equal([column("acknowledges")[i] for i in (6, 15)], ["5", "6"], "acknowledges")


@scenario
def the_column_of_information():
    with tempfile.TemporaryDirectory(prefix="sdissect-") as d:
        path = Path(d, "made.pcap")
        tshark.write(path, [tshark.datagram(codec.seal(codec.encode(p)), forward) for forward, p, _ in STREAM_TALK])
        rows = tshark.fields(path, ["_ws.col.Info", "_ws.col.Protocol"])
    for row, (_, _, line) in zip(rows, STREAM_TALK):
        equal(row["_ws.col.Info"], [line], "information")
        equal(row["_ws.col.Protocol"], ["Sandirect"], "protocol")


@scenario
def a_read_and_its_answer():
    read = {"type": 5, "flags": 0, "rsn": 7, "rkey": A, "region_offset": A, "wanted": 10}
    part = {"type": 6, "flags": 0, "rsn": 7, "message_offset": 0}
    rows = talk([
        (True, init(INIT, src_cid=A, features=3)), (False, init(INIT_ACK, src_cid=B, dst_cid=A, features=3)),
        (True, message(B, 10, READ_REQ, read)), (True, message(B, 11, SEND, {"type": 3, "flags": 1, "ssn": 0, "message_offset": 0})),
        (False, message(A, 0, READ_RESP, part, b"hello")),
        (False, message(A, 1, READ_RESP, {**part, "flags": 1, "message_offset": 5}, b"world")),
    ], ["request_in", "response_in"], "-2")
    equal([r["sandirect.request_in"] for r in rows], [[], ["1"], [], [], ["3"], ["3"]], "answer to")
    equal([r["sandirect.response_in"] for r in rows], [["2"], [], ["5"], [], [], []], "answered in")


@scenario
def two_connections_at_once():
    other = {"src_cid": "0x" + "c" * 16, "nonce": "0x" + "8" * 16}
    rows = talk([
        (True, init(INIT, src_cid=A)), (True, init(INIT, **other)),
        (False, init(INIT_ACK, **{**other, "src_cid": "0x" + "d" * 16, "dst_cid": other["src_cid"]})),
        (False, init(INIT_ACK, src_cid=B, dst_cid=A)), (True, data(B, 1, 1)), (True, data("0x" + "d" * 16, 1, 1)),
        (False, ack(A, 1, 2)), (True, data("0x" + "e" * 16, 1, 1)),
    ], [])
    equal([r["sandirect.connection"] for r in rows], [["0"], ["1"], ["1"], ["0"], ["0"], ["1"], ["0"], ["2"]], "connections")


@scenario
def what_icmp_quotes_is_no_transmission():
    packet = tshark.datagram(codec.seal(codec.encode(data(B, 5, 5))))
    quote = packet[:9] + b"\x01" + packet[10:20] + bytes([3, 3, 0, 0, 0, 0, 0, 0]) + packet
    quote = quote[:2] + len(quote).to_bytes(2, "big") + quote[4:]
    rows = dissect([packet, quote], ["psn", "repeats"])
    equal([r["sandirect.psn"] for r in rows], [["5"], ["5"]], "both are dissected")
    equal(rows[1]["sandirect.repeats"], [], "a transmission")


# --- broken packets ---

def verdict(b, with_trailers):
    """Why the codec drops it; None: it does not. with_trailers: ids of connections that are known to have them."""
    cid, sealed = b[8:16].hex(), codec.sealed(b)
    try:
        p = codec.decode(b, cid in with_trailers or sealed)
    except codec.Malformed as e:
        return str(e)
    if p["type"] in (DATA, ACK) and sealed:
        with_trailers.add(cid)
    return None


@scenario
def broken_packets():
    """The dissector and the codec agree about each of them."""
    seed = 20
    rng = random.Random(seed)
    packets = [bytes_of(v) for v in VECTORS]
    # Those that tell of connections come last, so that no broken one says how others are to be read.
    made = sorted((broken.packet(rng, packets) for _ in range(6000)), key=lambda b: b[0] & 15 == INIT_ACK)
    rows = dissect([tshark.datagram(b) for b in (named("INIT_ACK"), *made)])[1:]
    dropped, with_trailers = 0, {CID[2:], SETUP["src_cid"][2:]}
    for i, (b, row) in enumerate(zip(made, rows)):
        why = verdict(b, with_trailers)
        equal(errors(row), ["Dropped: " + why] if why else [], f"seed {seed}, packet {i}, {b.hex()}")
        dropped += why is not None
    say(f"seed {seed}: {dropped} of {len(made)} are dropped")
    check(500 < dropped < len(made) - 500, "both kinds are there")


@scenario
def packets_that_are_captured_in_part():
    """Cut by the capture at every byte: what is there is shown, and nothing is taken for malformed for that."""
    packets = []
    for v in VECTORS:
        whole = tshark.datagram(bytes_of(v))
        if "dropped" not in v and len(whole) < 200:
            packets += [(whole, n) for n in range(28, len(whole))]
    for row in dissect(packets):
        equal(errors(row), [], "errors")
    say(len(packets), "packets")


# --- what the transport itself sends ---

def simulated(program, case, seed):
    """A capture of one simulation."""
    if program not in os.environ:
        raise Skip(f"{program} does not name the simulation")
    with tempfile.TemporaryDirectory(prefix="sdissect-") as d:
        path = Path(d, "sent.pcap")
        env = {**os.environ, "SIM_CASE": case, "SIM_SEED": str(seed), "SIM_PCAP": str(path)}
        r = subprocess.run([os.environ[program]], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=300)
        equal(r.returncode, 0, f"{case}, seed {seed}: {r.stderr}")
        return tshark.fields(path, ["sandirect.type", "sandirect.opcode", "sandirect.sack.range", "sandirect.repeats", "sandirect.piece_offset", *EXPERT])


def look(rows, what):
    wrong = [(i, errors(r)) for i, r in enumerate(rows, 1) if errors(r)]
    equal(wrong[:3], [], f"{what}: errors in {len(rows)} packets")
    check(all(r["sandirect.type"] for r in rows), f"{what}: all packets are dissected")
    return {int(t) for r in rows for t in r["sandirect.type"]}, {int(o) for r in rows for o in r["sandirect.opcode"]}


@scenario
def simulated_streams():
    seen, sacks, repeats, pieces, packets = set(), 0, 0, 0, 0
    for case, seed in (("test_rough", 1), ("test_crowd", 6), ("test_refusals", 1), ("test_refusals", 2), ("test_refusals", 3), ("test_crash", 8), ("test_twice", 4),
                       ("test_black_hole", 3)):
        rows = simulated("SIM_STREAMS", case, seed)
        seen |= look(rows, case)[0]
        sacks += sum(bool(r["sandirect.sack.range"]) for r in rows)
        repeats += sum(bool(r["sandirect.repeats"]) for r in rows)
        pieces += sum(bool(r["sandirect.piece_offset"]) for r in rows)
        packets += len(rows)
    check({DATA, ACK, INIT, INIT_ACK, codec.INIT_NAK, RESET} <= seen, f"only types {sorted(seen)}")
    check(sacks and repeats and pieces, "SACK words, retransmissions and pieces are there")
    say(packets, "packets,", sacks, "with SACK,", repeats, "sent again,", pieces, "with PIECE")


@scenario
def simulated_messages():
    opcodes, packets = set(), 0
    for case, seed in (("calm", 3), ("bad_links", 3), ("ends_at_any_time", 4), ("regions_that_go", 5), ("a_crash", 6)):
        rows = simulated("SIM_MESSAGES", case, seed)
        opcodes |= look(rows, case)[1]
        packets += len(rows)
    equal(opcodes, set(range(9)) - {STREAM}, "opcodes")
    say(packets, "packets")


if __name__ == "__main__":
    main()

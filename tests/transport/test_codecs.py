# SPDX-License-Identifier: BSD-3-Clause
"""Packets that are broken at random, as vectors for test_wire: decoders and endpoint must take each as the other codec does."""
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
import broken
import codec
from tap import check, main, say, scenario

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "docs" / "vectors.json").read_text())
LONGEST = 2048  # that test_wire takes
COUNT = 6000


def vector(rng, number, b):
    """What the codec says of a packet, for a connection with or without trailers."""
    of_connection = len(b) >= codec.BASE_LENGTH and b[0] in (0x11, 0x12)
    trailer = "right" if codec.sealed(b) else "none" if of_connection and rng.random() < 0.5 else "wrong"
    v = {"name": f"packet {number}", "sent": False, "trailer": trailer, "packet": b.hex()}
    try:
        v["fields"] = codec.decode(b, trailer != "none")
    except codec.Malformed as e:
        v["dropped"] = str(e)
    return v


def compare(seed):
    rng = random.Random(seed)
    packets = [bytes.fromhex(v["packet"]) for v in VECTORS["packets"]]
    made = [b for b in (broken.packet(rng, packets) for _ in range(COUNT)) if len(b) <= LONGEST]
    vectors = [vector(rng, i, b) for i, b in enumerate(made)]
    dropped = sum("dropped" in v for v in vectors)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump({**VECTORS, "packets": VECTORS["packets"] + vectors}, f)
        f.flush()
        env = {**os.environ, "VECTORS": f.name}
        r = subprocess.run([os.environ["TEST_WIRE"]], env=env, capture_output=True, text=True, timeout=240)
    said = (r.stdout + r.stderr)[-1500:]
    named = next((v for v in vectors if f"{v['name']}:" in said), "")
    check(r.returncode == 0, f"SEED={seed}: {said} {named}")
    say(f"SEED={seed}: {dropped} of {len(vectors)} are dropped")
    check(500 < dropped < len(vectors) - 500, "both kinds are there")


@scenario
def broken_packets():
    """SEED picks one."""
    seeds = range(1, 21 if os.environ.get("SANDIRECT_TEST_LONG") == "1" else 3)
    for seed in [int(os.environ["SEED"])] if "SEED" in os.environ else seeds:
        compare(seed)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: BSD-3-Clause
"""Random bytes, both ways at once through socat, arrive as they were sent, whatever the network does to the packets."""
import hashlib
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

from harness import KERNEL_ONLY, LONG, MIB, SANITIZED, Lab, check, equal, main, need, say, scenario, until

PORT = 7400
SIZE = 1024 * MIB if LONG else 8 * MIB if SANITIZED else 64 * MIB


def random_file(path):
    """Its digest."""
    h = hashlib.sha256()
    with open(path, "wb") as f:
        for _ in range(SIZE // (8 * MIB)):
            block = os.urandom(8 * MIB)
            h.update(block)
            f.write(block)
    return h.hexdigest()


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def feed(path, pipe):
    with open(path, "rb") as f:
        try:
            shutil.copyfileobj(f, pipe, 1 << 20)
            pipe.flush()
        except BrokenPipeError:
            pass


def size_of(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def transfer(name, mtu, **faults):
    need("socat")
    with Lab(mtu=mtu, **faults) as lab:
        sent = {side: random_file(f"{lab.dir}/{side}") for side in ("server", "client")}
        with lab.no_segments("h1", "h2"):
            server = lab.run("h1", "socat", "-t", 60, f"TCP-LISTEN:{PORT},bind={lab.address('h1')},reuseaddr",
                             f"OPEN:{lab.dir}/server!!CREATE:{lab.dir}/at-server").until_listening(PORT)
            start = time.monotonic()
            client = lab.run("h2", "socat", "-t", 60, "STDIO", f"TCP:{lab.address('h1')}:{PORT}",
                             stdin=subprocess.PIPE)
            threading.Thread(target=feed, args=(f"{lab.dir}/client", client.process.stdin), daemon=True).start()
            until(lambda: size_of(f"{lab.dir}/at-server") == SIZE and size_of(client.out_path) == SIZE, 60 + SIZE / MIB / 4,
                  lambda: f"all bytes both ways; there are {size_of(f'{lab.dir}/at-server')} and {size_of(client.out_path)}")
            took = time.monotonic() - start
            (c,), (s,) = [lab.until_san(p) or [None] for p in (client, server)]
            client.process.stdin.close()
            client.wait()
            server.wait()
        equal(digest(f"{lab.dir}/at-server"), sent["client"], "what the server got")
        equal(digest(client.out_path), sent["server"], "what the client got")
        if not KERNEL_ONLY:
            again = c["retransmits"] + s["retransmits"]
            packets = c["packets_out"] + s["packets_out"]
            say(f"{name}, MTU {mtu}: {2 * SIZE * 8 / took / 1e9:.2f} Gbit/s goodput, {again} of {packets} packets sent again")
            gone = packets * sum(float(faults.get(f, "0%")[:-1]) / 100 for f in ("loss", "corrupt"))
            # Of few packets all may have come through.
            check(again or gone < 20, f"about {gone:.0f} packets must have been lost, but nothing was sent again")


FAULTS = {"no_faults": {}, "loss_0_1_percent": {"loss": "0.1%"}, "loss_1_percent": {"loss": "1%"},
          "loss_5_percent": {"loss": "5%"}, "reorder_5_percent": {"reorder": "5%"}, "duplicate_1_percent": {"duplicate": "1%"},
          "corrupt_0_1_percent": {"corrupt": "0.1%"}}

for fault, options in FAULTS.items():
    for size in (1500, 9000):
        def one(fault=fault, options=options, size=size):
            transfer(fault.replace("_", " "), size, **options)
        one.__name__ = f"{fault}_mtu_{size}"
        scenario(one)


@scenario
def everything_at_once():
    transfer("all faults", 1500, loss="1%", reorder="5%", duplicate="1%", corrupt="0.1%", delay="50us", jitter="20us")


main()

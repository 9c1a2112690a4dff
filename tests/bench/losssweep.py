# SPDX-License-Identifier: BSD-3-Clause
"""Goodput and request-response times at random loss: the SAN over the lab's port, and kernel TCP beside it.

    losssweep.py --build BUILD [--quick] [--loss PERCENT,...] [--json FILE]

Loss is in both directions and by chance for each packet: the lab's own of the SAN's port, nftables' on the kernel's san0.
There each segment is a packet, as veth would lose 64 KiB at once. Needs root and nft. The exit status is 0 when
everything was measured, the SAN's runs on the SAN. docs/performance.md has what came out.
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
from pathlib import Path
from string import ascii_lowercase

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import demo
from demo import Failure

MTU = 1500
LOSSES = (0, 0.01, 0.1, 1, 5)  # percent
REQUEST = 1024
HOSTS = ("h1", "h2")
DEADLINE_S = 15 * 60
CONGESTION = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
PART = 1_000_000  # nft drops so many of them
RULES = f"""add table netdev loss
add chain netdev loss in {{ type filter hook ingress device san0 priority 0; }}
add rule netdev loss in ip protocol tcp counter
add rule netdev loss in ip protocol tcp numgen random mod {PART} < %d counter drop"""


class Lab(demo.Lab):
    """Two hosts whose SAN ports and san0 lose packets."""

    def __init__(self, name, build, loss):
        self.NAME = name
        super().__init__(build, MTU, hugepages=False)
        self.options += ["--loss", f"{loss}%"] if loss else []
        self.loss = loss

    def __enter__(self):
        super().__enter__()
        try:
            for host in HOSTS:
                self.check("exec", host, "ip", "link", "set", "san0", "gso_max_segs", "1")
                if self.loss:
                    self.check("exec", host, "nft", RULES % round(self.loss / 100 * PART))
        except BaseException:
            self.down()
            raise
        return self

    def seen(self):
        """What the rules of both hosts have counted."""
        counts = {"packets": 0, "bytes": 0, "dropped": 0}
        for host in HOSTS if self.loss else ():
            listed = json.loads(self.check("exec", host, "nft", "-j", "list", "chain", "netdev", "loss", "in"))
            rules = [x["rule"]["expr"] for x in listed["nftables"] if "rule" in x]
            all_, dropped = (next(e["counter"] for e in r if "counter" in e) for r in rules)
            counts["packets"] += all_["packets"]
            counts["bytes"] += all_["bytes"]
            counts["dropped"] += dropped["packets"]
        return counts


class Over(demo.Benchmark):
    """sockbench over "san", or over kernel TCP with a congestion control."""

    def __init__(self, build, seconds, how):
        super().__init__(build, seconds)
        self.how = how
        self.path = "san" if how == "san" else "tcp"

    def sockbench(self, path, *args):
        congestion = [] if path == "san" else ["-C", self.how]
        return [self.bench, "client", demo.SERVER, str(demo.PORT), "-t", str(self.seconds), *congestion, *args]

    def parse(self, out):
        r = json.loads(out)
        return {k: r[k] for k in self.keys}


class Stream(Over):
    keys = ("gbps", "count")

    def client(self, path):
        return self.sockbench(path, "-m", "stream", "-n", "65536")


class Requests(Over):
    keys = ("p50_us", "p99_us", "p999_us", "count")

    def client(self, path):
        return self.sockbench(path, "-m", "pp", "-n", str(REQUEST), "-w", "spin")


BENCHMARKS = (Stream, Requests)


def contenders():
    available = CONGESTION.read_text().split()
    return ["san", "cubic"] + (["bbr"] if "bbr" in available else [])


def sweep(labs, build, runs, seconds):
    """A row for each loss and contender, with the values of all runs; all take turns."""
    rows = {(lab, how): {"loss": lab.loss, "over": how} for lab in labs for how in contenders()}
    proof = demo.Proof()
    for i in range(runs):
        for kind in BENCHMARKS:
            for (lab, how), row in rows.items():
                b = kind(build, seconds, how)
                for key, value in demo.measure_again(lab, b, b.path, proof, False).items():
                    row.setdefault(f"{kind.__name__.lower()}_{key}", []).append(value)
        print(f"run {i + 1} of {runs}: measured", flush=True)
    for (lab, _), row in rows.items():
        row["kernel"] = lab.seen()
    return list(rows.values())


def show(values, factor=1):
    digits = [f"{x:.3g}" if x < 1000 else f"{x:,.0f}"
              for x in (factor * f(values) for f in (statistics.median, min, max))]
    return digits[0] if len(values) == 1 else f"{digits[0]} ({digits[1]} to {digits[2]})"


def print_tables(rows):
    without = {r["over"]: r["stream_gbps"] for r in rows if not r["loss"]}
    print("\n| loss | over | Gbit/s | of that without loss, % |\n|---|---|---|---|")
    for r in rows:
        parts = [a / b for a, b in zip(r["stream_gbps"], without.get(r["over"], ()))]
        print(f"| {r['loss']} % | {r['over']} | {show(r['stream_gbps'])} | {show(parts, 100) if parts else ''} |")
    print("\n| loss | over | p50, us | p99, us | p99.9, us | requests |\n|---|---|---|---|---|---|")
    for r in rows:
        times = " | ".join(show(r[f"requests_{q}_us"]) for q in ("p50", "p99", "p999"))
        print(f"| {r['loss']} % | {r['over']} | {times} | {sum(r['requests_count']):,} |")


def parse_arguments():
    p = argparse.ArgumentParser(description="Goodput and request-response times at random loss, SAN and kernel TCP.")
    p.add_argument("--build", type=Path, default=Path("build"), help="where it was built (default build)")
    p.add_argument("--loss", metavar="PERCENT,...", default=",".join(map(str, LOSSES)),
                   help="in each direction (default %(default)s)")
    p.add_argument("--lab", metavar="NAME", default="losssweep", help="of the labs, and a letter (default %(default)s)")
    p.add_argument("--json", metavar="FILE", help="write the values of all runs there")
    p.add_argument("--quick", action="store_true", help="one short run of each kind instead of three")
    a = p.parse_args()
    try:
        a.losses = [float(x) if "." in x else int(x) for x in a.loss.split(",")]
    except ValueError:
        p.error(f"{a.loss}: must be percentages with commas between them")
    if not all(0 <= x <= 50 for x in a.losses) or len(a.losses) > len(ascii_lowercase):
        p.error(f"{a.loss}: must be 0 to 50 each, and not so many")
    return a


def what_is_missing(build):
    if os.geteuid():
        return "this needs root: the lab's hosts are network namespaces"
    if os.cpu_count() < 2:
        return "this needs two processors"
    if not shutil.which("nft"):
        return "nft is not here (Debian: nftables); it makes the kernel's loss"
    for program in ("apps/sandirect", "tests/bench/sockbench", "tests/bench/keepawake"):
        if not (build / program).exists():
            return f"{build / program} is not here: build first, or name the place with --build"
    return None


def main():
    a = parse_arguments()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = what_is_missing(a.build)
    if missing:
        sys.exit(f"losssweep: {missing}")
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(s, demo.on_signal)
    signal.alarm(DEADLINE_S)
    runs, seconds = (1, 0.3) if a.quick else (3, 1.5)
    machine = demo.Machine(a.build, want_hugepages=False)
    try:
        with contextlib.ExitStack() as stack:
            labs = [stack.enter_context(Lab(a.lab + letter, a.build, loss)) for letter, loss in zip(ascii_lowercase, a.losses)]
            rows = sweep(labs, a.build, runs, seconds)
    except Failure as e:
        sys.exit(f"losssweep: {e}")
    finally:
        machine.restore()
    print_tables(rows)
    if a.json:
        Path(a.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

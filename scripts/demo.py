# SPDX-License-Identifier: BSD-3-Clause
"""Compares kernel TCP with the SAN between two lab hosts, or inside one: the same programs, alternating runs, medians.

Called by ./demo. The exit status is 0 when every measurement ran, those of the SAN on the SAN path; whether a gate is
met is told in the table. docs/performance.md describes the method.
"""
import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PORT = 7001
SERVER = "10.77.0.1"
SERVER_CPU, CLIENT_CPU = 1, 0
DEADLINE_S = 12 * 60
HUGEPAGES = 256
ATTEMPTS = 3  # of a run on the SAN that falls back; each repetition is reported
MAX_STRAY_SEGMENTS = 50  # of a SAN run on the kernel's counters; the smallest TCP run has thousands


class Failure(Exception):
    pass


class FellBack(Failure):
    """A run on the SAN used TCP, as when a busy machine has kept the link from coming up in time."""


class Key:
    """One line of the table. gate: the ratio SAN/TCP that is to be reached, as a maximum if less is better."""

    def __init__(self, name, title, gate=None, less_is_better=False):
        self.name, self.title, self.gate, self.less_is_better = name, title, gate, less_is_better
        self.values = {"tcp": [], "san": []}

    def median(self, path):
        return statistics.median(self.values[path])

    def ratio(self):
        return self.median("san") / self.median("tcp")

    def passes(self):
        return self.ratio() <= self.gate if self.less_is_better else self.ratio() >= self.gate


BETWEEN_HOSTS = [
    Key("rtt_p50_us", "64 B ping-pong, RTT p50, us", 0.25, True),
    Key("rtt_p99_us", "64 B ping-pong, RTT p99, us", None, True),
    Key("redis_get_c1", "Redis GET/s, 1 connection", 2),
    Key("redis_set_c1", "Redis SET/s, 1 connection", 2),
    Key("redis_get_c50", "Redis GET/s, 50 connections", 2),
    Key("redis_set_c50", "Redis SET/s, 50 connections", 2),
    Key("msgs_64", "64 B messages/s, one way", 10),
    Key("bulk_1500_gbps", "bulk, MTU 1500, Gbit/s", 1),
    Key("bulk_9000_gbps", "bulk, MTU 9000, Gbit/s", 1.5),
    Key("conn_per_s", "connections/s", 3),
]
# By the daemon and shared memory, against kernel TCP over the loopback.
INSIDE_HOST = [
    Key("rtt_p50_us", "64 B ping-pong, polling, RTT p50, us", 0.1, True),
    Key("rtt_p99_us", "64 B ping-pong, polling, RTT p99, us", None, True),
    Key("rtt_asleep_us", "64 B ping-pong, both sleep, p50, us", None, True),
    Key("futex_asleep_us", "the same beside a bare futex's, us", 1.1, True),
    Key("redis_get_c1", "Redis GET/s, 1 connection"),
    Key("redis_set_c1", "Redis SET/s, 1 connection"),
    Key("redis_get_c50", "Redis GET/s, 50 connections", 2.5),
    Key("redis_set_c50", "Redis SET/s, 50 connections"),
    Key("msgs_64", "64 B messages/s, one way"),
    Key("bulk_gbps", "bulk, Gbit/s", 2),
    Key("conn_per_s", "connections/s"),
]
KEYS = BETWEEN_HOSTS
BY_NAME = {}


class Machine:
    """What is changed for all hosts alike, and undone at the end: hugepages, sleeping processors."""

    PAGES = Path("/proc/sys/vm/nr_hugepages")

    def __init__(self, build, want_hugepages):
        self.pages_before = None
        if want_hugepages:
            self.reserve_hugepages()
        self.awake = subprocess.Popen([build / "tests/bench/keepawake", str(DEADLINE_S)])

    def reserve_hugepages(self):
        try:
            before = int(self.PAGES.read_text())
            if before < HUGEPAGES:
                self.PAGES.write_text(f"{HUGEPAGES}\n")
                self.pages_before = before
                print(f"Hugepages: reserved {self.PAGES.read_text().strip()} instead of {before}, until the end")
        except OSError as e:
            print(f"Hugepages: none ({e.strerror}); going on without")

    def restore(self):
        self.awake.kill()
        self.awake.wait()
        if self.pages_before is not None:
            self.PAGES.write_text(f"{self.pages_before}\n")


class Lab:
    NAME = "demo"

    def __init__(self, build, mtu, hugepages, inside=False):
        self.build = build.resolve()
        self.command = [str(self.build / "apps/sandirect"), "lab", "--name", self.NAME]
        self.options = ["--mtu", str(mtu), "--hugepages", "auto" if hugepages else "off"]
        self.client_host = "h1" if inside else "h2"
        if inside:
            self.options += ["--mode", "daemon", "--link", "udp"]

    def __enter__(self):
        self.down()
        try:
            self.check("up", *self.options)
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_):
        self.down()

    def check(self, *args):
        r = subprocess.run(self.command + list(args), capture_output=True, text=True, timeout=60)
        if r.returncode:
            raise Failure(f"sandirect lab {' '.join(args)}: {r.stderr.strip() or r.stdout.strip()}")
        return r.stdout

    def down(self):
        self.check("down")

    def prefix(self, path, host):
        return self.command + ["exec" if path == "tcp" else "run", host]

    def segments(self):
        """TCP segments that the kernels of both hosts have sent and received."""
        total = 0
        for host in ("h1", "h2"):
            lines = [x.split() for x in self.check("exec", host, "cat", "/proc/net/snmp").splitlines()]
            names, values = [x for x in lines if x[0] == "Tcp:"]
            tcp = dict(zip(names, values))
            total += int(tcp["InSegs"]) + int(tcp["OutSegs"])
        return total

    def stat(self, pid=None):
        args = [self.command[0], "stat", "--all", "--json"] + ([str(pid)] if pid else [])
        r = subprocess.run(args, capture_output=True, text=True, timeout=20)
        return json.loads(r.stdout)["processes"] if r.returncode == 0 else []

    def stat_text(self):
        r = subprocess.run([self.command[0], "stat"], capture_output=True, text=True, timeout=20)
        return r.stdout


def pin(cpu):
    return lambda: os.sched_setaffinity(0, {cpu})


class Server:
    """A server on h1 for one run."""

    def __init__(self, lab, path, args, ready):
        handle, name = tempfile.mkstemp(prefix="sandirect-demo-")
        self.log = Path(name)
        self.lab, self.path = lab, path
        with os.fdopen(handle, "wb") as out:
            self.process = subprocess.Popen(lab.prefix(path, "h1") + args, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out, preexec_fn=pin(SERVER_CPU))
        try:
            self.wait_for(lambda: ready in self.log.read_text(errors="replace"), "did not get ready")
            if path == "san":
                self.wait_for(self.engine, "did not open its SAN port")
        except BaseException:
            self.stop()
            raise

    def wait_for(self, condition, complaint, seconds=10):
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure(f"the server {complaint}:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def stat(self):
        found = self.lab.stat(self.process.pid)
        return found[0] if found else None

    def engine(self):
        s = self.stat()
        return s and s["engine"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.unlink(missing_ok=True)


def run_client(lab, path, args, timeout):
    try:
        r = subprocess.run(lab.prefix(path, lab.client_host) + args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=timeout, preexec_fn=pin(CLIENT_CPU))
    except subprocess.TimeoutExpired as e:
        raise Failure(f"{args[0]} over {path} did not end within {timeout} s") from e
    if r.returncode:
        raise Failure(f"{args[0]} over {path} failed: {r.stderr.strip()[-2000:]}")
    return r.stdout


class Benchmark:
    """What both programs are, and how a run's output becomes values."""
    environment = {}

    def __init__(self, build, seconds):
        self.bench = str((build / "tests/bench/sockbench").resolve())
        self.seconds = seconds

    def server(self):
        return [self.bench, "server", SERVER, str(PORT)], "listening"

    def sockbench(self, path, *args):
        # BBR, which some kernels default to, is slower over veth.
        congestion = ["-C", "cubic"] if path == "tcp" else []
        return [self.bench, "client", SERVER, str(PORT), "-t", str(self.seconds), *congestion, *args]


class PingPong(Benchmark):
    keys = ("rtt_p50_us", "rtt_p99_us")

    def client(self, path):
        return self.sockbench(path, "-m", "pp", "-n", "64", "-w", "spin")

    def parse(self, out):
        r = json.loads(out)
        return r["p50_us"], r["p99_us"]


class Asleep(PingPong):
    keys = ("rtt_asleep_us",)
    environment = {"SANDIRECT_SPIN_US": "0"}

    def client(self, path):
        return self.sockbench(path, "-m", "pp", "-n", "64", "-w", "block")

    def parse(self, out):
        return (json.loads(out)["p50_us"],)


class BesideFutex(Asleep):
    """What is called TCP here is no TCP: two processes that do nothing but wake each other."""
    keys = ("futex_asleep_us",)

    def client(self, path):
        if path == "san":
            return super().client(path)
        return [self.bench.replace("sockbench", "futexbench"), str(self.seconds), str(CLIENT_CPU), str(SERVER_CPU)]


class Messages(Benchmark):
    keys = ("msgs_64",)

    def client(self, path):
        return self.sockbench(path, "-m", "stream", "-n", "64")

    def parse(self, out):
        return (json.loads(out)["msg_per_s"],)


class Bulk(Benchmark):
    def __init__(self, build, seconds, mtu=None):
        super().__init__(build, seconds)
        self.keys = (f"bulk_{mtu}_gbps" if mtu else "bulk_gbps",)

    def client(self, path):
        return self.sockbench(path, "-m", "stream", "-n", "65536")

    def parse(self, out):
        return (json.loads(out)["gbps"],)


class Connections(Benchmark):
    keys = ("conn_per_s",)

    def client(self, path):
        return self.sockbench(path, "-m", "conn", "-n", "64")

    def parse(self, out):
        return (json.loads(out)["conn_per_s"],)


class Redis(Benchmark):
    def __init__(self, build, seconds, connections):
        super().__init__(build, seconds)
        self.connections = connections
        # About as long on both paths: redis-benchmark counts milliseconds.
        requests = {"tcp": 30000, "san": 200000} if connections == 1 else {"tcp": 80000, "san": 500000}
        self.requests = {path: int(n * seconds) for path, n in requests.items()}
        self.keys = (f"redis_set_c{connections}", f"redis_get_c{connections}")

    def server(self):
        return ["redis-server", "--port", str(PORT), "--bind", SERVER, "--save", "", "--appendonly", "no",
                "--protected-mode", "no", "--daemonize", "no", "--dir", "/tmp"], "Ready to accept connections"

    def client(self, path):
        return ["redis-benchmark", "-h", SERVER, "-p", str(PORT), "-c", str(self.connections), "-n",
                str(self.requests[path]), "-t", "set,get", "--csv"]

    def parse(self, out):
        rates = {row[0]: float(row[1]) for row in csv.reader(out.splitlines()) if len(row) > 1 and row[0] in ("SET", "GET")}
        return rates["SET"], rates["GET"]


class Proof:
    """That the SAN's runs were on the SAN: what the switch says, and what the kernel has not seen."""

    def __init__(self):
        self.segments = {"tcp": 0, "san": 0}
        self.connections = 0
        self.view = ""

    def check(self, benchmark, path, segments, stat):
        if path == "tcp":
            self.segments[path] += segments
            return
        if not stat or stat["tcp_total"] or not stat["san_total"]:
            why = stat["by_reason"] if stat else "the server publishes no connections"
            raise FellBack(f"{benchmark.keys[0]}: a run that was to be on the SAN fell back to TCP: {why}")
        if segments > MAX_STRAY_SEGMENTS:
            raise Failure(f"{benchmark.keys[0]}: the kernel counted {segments} TCP segments during a run on the SAN")
        self.segments[path] += segments
        self.connections += stat["san_total"]


def measure(lab, benchmark, path, proof, look=False):
    args, ready = benchmark.server()
    os.environ.update(benchmark.environment)
    before = lab.segments()
    server = Server(lab, path, args, ready)
    try:
        if look:
            look_on(lab, benchmark, path, proof)
        out = run_client(lab, path, benchmark.client(path), timeout=60)
        stat = server.stat() if path == "san" else None
    finally:
        server.stop()
        for name in benchmark.environment:
            del os.environ[name]
    proof.check(benchmark, path, lab.segments() - before, stat)
    return benchmark.parse(out)


def measure_again(lab, benchmark, path, proof, look):
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return measure(lab, benchmark, path, proof, look)
        except FellBack as e:
            if attempt == ATTEMPTS:
                raise
            print(f"  (repeated: {e})", flush=True)
    return None


def look_on(lab, benchmark, path, proof):
    """One more run, in whose middle `sandirect stat` is called."""
    client = subprocess.Popen(lab.prefix(path, lab.client_host) + benchmark.client(path), stdout=subprocess.DEVNULL,
                              preexec_fn=pin(CLIENT_CPU))
    try:
        time.sleep(benchmark.seconds * 0.8)
        proof.view = lab.stat_text()
        client.wait(30)
    finally:
        client.kill()
        client.wait()


def alternate(lab, benchmarks, runs, proof):
    for b in benchmarks:
        for i in range(runs):
            for path in ("tcp", "san"):
                look = path == "san" and i == 0 and not proof.view
                for name, value in zip(b.keys, measure_again(lab, b, path, proof, look)):
                    BY_NAME[name].values[path].append(value)
        for name in b.keys:
            k = BY_NAME[name]
            print(f"  {k.title:<34} TCP {show(k.median('tcp')):>10}   SAN {show(k.median('san')):>10}", flush=True)


def show(v):
    return f"{v:,.0f}" if v >= 1000 else f"{v:.1f}" if v >= 100 else f"{v:.2f}"


def span(values):
    return f"{show(min(values))}-{show(max(values))}"


def print_table(runs):
    rows = [("", "kernel TCP", "SAN", "SAN/TCP", "gate", "", "range TCP", "range SAN")]
    for k in KEYS:
        gate = "" if k.gate is None else f"{'<=' if k.less_is_better else '>='} {k.gate:g}"
        verdict = "" if k.gate is None else "pass" if k.passes() else "FAIL"
        rows.append((k.title, show(k.median("tcp")), show(k.median("san")), f"{k.ratio():.2f}", gate, verdict,
                     span(k.values["tcp"]), span(k.values["san"])))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    print(f"\nMedians of {runs} alternating runs; server on CPU {SERVER_CPU}, client on CPU {CLIENT_CPU}\n")
    for n, r in enumerate(rows):
        print("  ".join(c.ljust(w) if i in (0, 5) else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip())
        if n == 0:
            print("-" * (sum(widths) + 2 * len(widths) - 2))


def print_proof(proof):
    print("\n`sandirect stat` during a ping-pong over the SAN:\n")
    print("\n".join("  " + line for line in proof.view.splitlines()))
    print(f"\nTCP segments counted by the two kernels (Tcp: InSegs, OutSegs): {proof.segments['tcp']:,} during the runs over "
          f"TCP, {proof.segments['san']:,} during the runs over the SAN,\nwhich carried {proof.connections:,} connections.")


def write_json(path):
    values = {k.name: {p: round(k.median(p), 4) for p in ("tcp", "san")} for k in KEYS}
    Path(path).write_text(json.dumps(values, indent=2) + "\n")


def parse_arguments():
    p = argparse.ArgumentParser(prog="./demo", description="Compares kernel TCP with the SAN between two hosts on this "
                                                           "machine.")
    p.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    p.add_argument("--json", metavar="FILE", help="write the medians there")
    p.add_argument("--no-hugepages", action="store_true", help="run the SAN ports without hugepages")
    p.add_argument("--runs", type=int, default=5, help="of each kind (default 5)")
    p.add_argument("--inside", action="store_true", help="inside one host, with the daemon, instead of between two")
    p.add_argument("--quick", action="store_true", help="one short run of each kind")
    return p.parse_args()


def compare_inside(a, proof, seconds, runs):
    benchmarks = [PingPong(a.build, seconds), Asleep(a.build, seconds), BesideFutex(a.build, seconds),
                  Messages(a.build, seconds), Connections(a.build, seconds), Redis(a.build, seconds, 1),
                  Redis(a.build, seconds, 50), Bulk(a.build, seconds)]
    with Lab(a.build, 1500, False, inside=True) as lab:
        alternate(lab, benchmarks, runs, proof)


def compare(a, proof):
    seconds, runs = (0.3, 1) if a.quick else (1, a.runs)
    if a.inside:
        compare_inside(a, proof, seconds, runs)
        return runs
    for mtu in (1500, 9000):
        benchmarks = [Bulk(a.build, seconds, mtu)]
        if mtu == 1500:
            benchmarks = [PingPong(a.build, seconds), Messages(a.build, seconds), Connections(a.build, seconds),
                          Redis(a.build, seconds, 1), Redis(a.build, seconds, 50)] + benchmarks
        with Lab(a.build, mtu, not a.no_hugepages) as lab:
            print(f"MTU {mtu}:", flush=True)
            alternate(lab, benchmarks, runs, proof)
    return runs


def on_signal(number, _frame):
    raise Failure("out of time" if number == signal.SIGALRM else "interrupted")


def main():
    global KEYS
    a = parse_arguments()
    KEYS = INSIDE_HOST if a.inside else BETWEEN_HOSTS
    BY_NAME.update({k.name: k for k in KEYS})
    if os.cpu_count() < 2:
        sys.exit("The demo needs two processors.")
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(s, on_signal)
    signal.alarm(DEADLINE_S)
    machine = Machine(a.build, not a.no_hugepages and not a.inside)
    proof = Proof()
    try:
        runs = compare(a, proof)
    except Failure as e:
        sys.exit(f"demo: {e}")
    finally:
        machine.restore()
    print_table(runs)
    print_proof(proof)
    if a.json:
        write_json(a.json)
    failed = [k.name for k in KEYS if k.gate is not None and not k.passes()]
    print(f"\n{'All gates passed.' if not failed else 'Gates that FAILED: ' + ', '.join(failed)}")


if __name__ == "__main__":
    main()

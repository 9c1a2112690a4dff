# SPDX-License-Identifier: BSD-3-Clause
"""The sandirect command: what it says and its exit status, also for wrong words, wrong files and hostile tables."""
import contextlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import statfile
from tap import Skip, check, equal, main, say, scenario, until

SANDIRECT = os.environ.get("E2E_SANDIRECT", "sandirect")
SANITIZED = bool(os.environ.get("E2E_SANITIZED"))
ROOT = Path(__file__).resolve().parents[2]
ENV = {k: v for k, v in os.environ.items() if not k.startswith("SANDIRECT")}


@contextlib.contextmanager
def directory():
    path = tempfile.mkdtemp(prefix="sdcmd-")
    os.chmod(path, 0o755)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)


def call(*words, status=None, env=(), **more):
    r = subprocess.run([SANDIRECT, *map(str, words)], capture_output=True, text=True, errors="replace", timeout=60,
                       env={**ENV, **dict(env)}, **more)
    what = f"{' '.join(map(str, words))}: status {r.returncode}: {r.stdout[-1500:]}{r.stderr[-1500:]}"
    check(r.returncode >= 0 and "Sanitizer" not in r.stderr, what)
    check(status is None or r.returncode == status, what)
    return r


# --- words ---

@scenario
def usage():
    for words in ((), ("fly",), ("--fly",)):
        check("Usage: sandirect COMMAND" in call(*words, status=2).stderr, f"usage after {words}")
    for word in ("--help", "-h", "help"):
        check("Usage: sandirect COMMAND" in call(word, status=0).stdout, word)
    for word in ("--version", "-V"):
        check(re.fullmatch(r"sandirect \d+\.\d+\.\d+\n", call(word, status=0).stdout), word)
    for command in ("run", "stat", "check", "lab"):
        check("Usage: sandirect " + command in call(command, "--help", status=0).stdout, f"{command} --help")
        call(command, "--no-such-option", status=64)
    call("run", status=64)
    call("lab", status=64)
    for pid in ("0", "-1", "x", "99999999999", "1 2"):
        call("stat", "--", pid, status=64)
    call("stat", "1", "2", status=64)


# --- configuration ---

# A bad line, and what the message must say besides file and line.
BAD_LINES = (
    ("enabled = perhaps", "on or off", "enabled = on"), ("spin = 50", "a time up to 10s", "spin = 50us"),
    ("spin = 11s", "a time up to 10s"), ("log = loud", "error, warn, info or debug"), ("log_file = here", "an absolute path"),
    ("log_file = /" + "x" * 300, "255 characters; shorten it"), ("tea = 1", "is no key of this section; there are: enabled log"),
    ("negative_ttl = 0", "from 1ms"), ("just words", "is no setting; write KEY = VALUE"), ("[transport", "is no section"),
    ("[tea]", "there are [global], [transport], [port NAME] and [rules]"), ("[port]", "a port needs a name"),
    ("[port a b]", "a port needs a name"), ("[port p]\nmtu = 1500", "has no netdev"),
    ("[port p]\nnetdev = a\n[port p]", "was begun on line 2 already"), ("[port p]\nmtu = 575", "from 576 to 9600"),
    ("[port p]\nmac = 01:00:00:00:00:01", "a unicast Ethernet address"), ("[port p]\nloss = 101%", "from 0% to 100%"),
    ("[port p]\nnetdev = a\ndevice = net_memif0,id=1\nstandby = net_memif0,id=2", "named twice"),
    ("[port p]\nnetdev = a\nstandby = net_memif0", "must be DPDK devices"),
    ("[port p]\nnetdev = a\ndevice = 0000:03:00.0\n[port q]\nnetdev = b\ndevice = 0000:03:00.0", "named twice"),
    ("[port p]\nhugepages = never", "auto, on, off"), ("[port p]\nrate = fast", "bits per second"),
    ("[transport]\nring_min = 5000", "a power of two"), ("[transport]\nring_min = 8M\nring_max = 4M", "raise ring_max"),
    ("[transport]\ncongestion = cubic", "swift, dctcp, fixed"), ("[transport]\nwindow_packets = 100", "from 32 to 1024"),
    ("[rules]\nrule = udp", "must begin with san, tcp or both"), ("[rules]\nrule = tcp dst=10.0.0.0/33", "no address or prefix"),
    ("[rules]\nrule = tcp port=70000", "no port or range"), ("[rules]\nrule = tcp role=both", "role=client or role=server"),
    ("[rules]\nrule = tcp when=late", "no condition of a rule"), ("[rules]\ntcp port=22", "write: rule = ACTION"),
    ("log = \0", "NUL byte"), ("#" + "x" * 1001, "shorten it"),
)


@scenario
def bad_lines_are_told_with_file_line_and_remedy():
    with directory() as d:
        conf, started = d / "a.conf", d / "started"
        for lines, *says in BAD_LINES:
            text = "[global]\n" + lines + "\n"
            conf.write_text(text)
            for words in (("run", "--config", conf, "touch", started), ("check",), ("stat",), ("lab", "status")):
                r = call(*words, env={"SANDIRECT_CONFIG": str(conf)})
                told = re.search(re.escape(str(conf)) + r":(\d+): (.*)", r.stdout + r.stderr)
                check(told, f"{words[0]} with {lines[:60]!r} does not name file and line: {r.stdout}{r.stderr}")
                check(1 < int(told.group(1)) <= text.count("\n"), f"line {told.group(1)} for {lines[:60]!r}")
                for s in says:
                    check(s in told.group(2), f"{s!r} is not in {told.group(2)!r}")
                # `stat` shows what there is all the same.
                equal(r.returncode, 0 if words[0] == "stat" else 1, f"the status of {words[0]}")
        check(not started.exists(), "`run` has started a program with a bad configuration")


@scenario
def configuration_that_cannot_be_read():
    with directory() as d:
        os.mkfifo(d / "fifo")
        (d / "huge").write_bytes(b"#\n" * (1 << 20))
        for file in (d / "missing", d, d / "huge"):
            r = call("run", "true", env={"SANDIRECT_CONFIG": str(file)}, status=1)
            check(str(file) in r.stderr, f"{file}: {r.stderr}")
        check("missing" in call("run", "--config", d / "missing", "true", status=1).stderr, "run --config")
        call("stat", env={"SANDIRECT_CONFIG": str(d / "fifo")}, status=0)


@scenario
def bad_environment():
    for name, value in (("SANDIRECT", "perhaps"), ("SANDIRECT_LOG", "loud"), ("SANDIRECT_SPIN_US", "1.5"),
                        ("SANDIRECT_SPIN_US", "10000001"), ("SANDIRECT_RUNTIME_DIR", "here"),
                        ("SANDIRECT_RUNTIME_DIR", "/" + "x" * 200)):
        r = call("run", "true", env={name: value}, status=1)
        check(f"{name}={value[:50]}" in r.stderr and "change or unset it" in r.stderr, r.stderr)
    check("SANDIRECT_LOG=loud" in call("run", "--log", "loud", "true", status=1).stderr, "run --log")
    check("SANDIRECT_SPIN_US=x" in call("run", "--spin", "x", "true", status=1).stderr, "run --spin")


@scenario
def documents_name_every_key_and_reason():
    keys = set()
    with directory() as d:
        for section in ("global", "transport", "port p"):
            (d / "a.conf").write_text(f"[{section}]\nno_such_key = 1\n")
            told = call("run", "true", env={"SANDIRECT_CONFIG": str(d / "a.conf")}, status=1).stderr
            keys |= set(told.split("there are:")[1].split())
    check(len(keys) > 25, f"keys: {keys}")
    reasons = set(re.findall(r"^\tX\(\d+, (\w+),", (ROOT / "base/reason.h").read_text(), re.M))
    guide = (ROOT / "docs/configuration.md").read_text()
    page = (ROOT / "docs/man/sandirect.conf.5").read_text()
    equal({k for k in keys | reasons if f"`{k}`" not in guide}, set(), "keys and reasons that docs/configuration.md lacks")
    equal({k for k in keys if not re.search(rf"^\.It Cm .*\b{k}\b", page, re.M)}, set(), "keys that sandirect.conf(5) lacks")
    equal({r for r in reasons if r not in (ROOT / "docs/man/sandirect.1").read_text()}, set(), "reasons that sandirect(1) lacks")


# --- stat ---

class Tables:
    """A runtime directory with tables of processes that live as long as it does."""

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="sdstat-"))
        (self.dir / "stat").mkdir()
        self.processes = []
        return self

    def __exit__(self, *_):
        for p in self.processes:
            p.kill()
            p.wait()
        shutil.rmtree(self.dir)

    def process(self, *argv):
        self.processes.append(subprocess.Popen(argv or ["sleep", "100"]))
        return self.processes[-1].pid

    def path(self, pid):
        return self.dir / "stat" / str(pid)

    def write(self, pid, header, records):
        self.path(pid).write_bytes(bytes(header) + b"".join(map(bytes, records)))

    def json(self, *words):
        r = call("stat", "--json", *words, env={"SANDIRECT_RUNTIME_DIR": str(self.dir)}, status=0)
        return json.loads(r.stdout)["processes"]

    def text(self, *words):
        return call("stat", *words, env={"SANDIRECT_RUNTIME_DIR": str(self.dir)}, status=0).stdout


@scenario
def stat_without_programs():
    with directory() as d:
        equal(call("stat", env={"SANDIRECT_RUNTIME_DIR": str(d)}, status=0).stdout, "No program runs under Sandirect.\n", "text")
        equal(json.loads(call("stat", "--json", env={"SANDIRECT_RUNTIME_DIR": str(d / "x")}).stdout), {"processes": []}, "JSON")


@scenario
def stat_shows_what_the_table_says():
    with Tables() as t:
        pid = t.process()
        h = statfile.header(pid, b"redis-server", engine=b"net_virtio_user0 up mtu 1500", san_total=1, tcp_total=1, overflow=3)
        h.by_reason[0], h.by_reason[7] = 1, 1
        t.write(pid, h, [statfile.record(9, bytes_out=5, bytes_in=1 << 40, srtt_ns=1500, retransmits=2, cwnd=64),
                         statfile.Record(), statfile.record(10, path=0, reason=7, peer=statfile.Addr("fd77::1", 80)),
                         statfile.record(11, role=2, reason=22)])
        (p,) = t.json()
        equal([p[k] for k in ("program", "pid", "host", "engine", "san_total", "tcp_total", "not_listed", "by_reason")],
              ["redis-server", pid, "-", "net_virtio_user0 up mtu 1500", 1, 1, 3, {"SAN": 1, "PEER_SILENT": 1}], "the process")
        a, b = p["connections"]
        equal([a[k] for k in ("fd", "role", "local", "peer", "path", "provider", "state", "reason", "bytes_in", "srtt_ns")],
              [9, "client", "10.77.0.2:40000", "10.77.0.1:6379", "SAN", "ether", "established", "SAN", 1 << 40, 1500], "SAN")
        equal([b[k] for k in ("fd", "peer", "path", "provider", "reason")], [10, "[fd77::1]:80", "TCP", "tcp", "PEER_SILENT"],
              "TCP")
        equal([c["role"] for c in t.json("--all")[0]["connections"]], ["client", "client", "listen"], "with --all")
        equal(len(t.json(pid)), 1, "this process alone")
        equal(t.json(pid + 1), [], "another process")
        text = t.text()
        for s in ("redis-server", "1024G", "1.5us", "PEER_SILENT", "nobody at this address answers", "3 not listed"):
            check(s in text, f"{s!r} is not in\n{text}")


def san_port(**more):
    return statfile.Port(**{"name": b"san0", "netdev": b"eth1", "device": b"0000:03:00.0", "driver": b"net_x", "link_up": 1,
                            "mtu": 9000, "queues": 2, "numa_node": 1, **more})


@scenario
def ports_are_shown():
    with Tables() as t:
        pid = t.process()
        h = statfile.header(pid, b"redis-server", n_ports=1)
        h.ports[0] = san_port(rx_frames=100, rx_bytes=6400, tx_frames=7, tx_bytes=700, rx_missed=3)
        t.write(pid, h, [])
        (p,) = t.json()[0]["ports"]
        equal([p[k] for k in ("port", "netdev", "device", "driver", "link", "mtu", "queues", "numa_node", "rx_frames", "rx_missed")],
              ["san0", "eth1", "0000:03:00.0", "net_x", "up", 9000, 2, 1, 100, 3], "the port")
        check("san0: net_x on eth1, 2 queues; received 100 frames, 6400; sent 7, 700; 3 missed" in t.text(), t.text())


@scenario
def tables_without_records_are_of_ports():
    """The daemon's: `sandirect stat` leaves them out."""
    with Tables() as t:
        pid = t.process()
        h = statfile.header(pid, b"sandirectd", records=0, n_ports=1)
        h.ports[0] = san_port(rx_frames=100, rx_handed=40)
        t.write(pid, h, [])
        equal(t.json(), [], "processes with connections")
        env = {**ENV, "SANDIRECT_RUNTIME_DIR": str(t.dir)}
        words = [SANDIRECT, "ports", "--interval", "1ms"]
        (p,) = json.loads(subprocess.run([*words, "--json"], env=env, capture_output=True, text=True, check=True).stdout)["ports"]
        equal((p["program"], p["rx_frames"], p["rx_handed"]), ("sandirectd", 100, 40), "the port")
        text = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
        check(re.search(rf"^- +sandirectd \({pid}\) +san0 .* 40 0000:03:00.0$", text, re.M), text)


@scenario
def ports_have_rates():
    with Tables() as t:
        pid = t.process()
        h = statfile.header(pid, b"redis-server", n_ports=1)
        h.ports[0] = san_port(rx_frames=100, rx_bytes=6400, tx_frames=7, tx_bytes=700, at_ns=10**9)
        t.write(pid, h, [])
        env = {**ENV, "SANDIRECT_RUNTIME_DIR": str(t.dir)}
        command = subprocess.Popen([SANDIRECT, "ports", "--json", "--interval", "2s"], env=env, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        h.ports[0] = san_port(rx_frames=1100, rx_bytes=64000 + 6400, tx_frames=8, tx_bytes=800, at_ns=10**9 * 3 // 2)
        t.write(pid, h, [])
        (p,) = json.loads(command.communicate(timeout=20)[0])["ports"]
        equal([p[k] for k in ("program", "pid", "port", "rx_frames_per_second", "rx_bits_per_second", "tx_frames_per_second",
                              "tx_bits_per_second")], ["redis-server", pid, "san0", 2000, 64000 * 16, 2, 1600], "rates")
        env["COLUMNS"] = "200"
        text = subprocess.run([SANDIRECT, "ports", "--interval", "1ms"], env=env, capture_output=True, text=True, check=True).stdout
        check(re.search(rf"^- +redis-server \({pid}\) +san0 +net_x +up +9000 +2 ", text, re.M), text)


@scenario
def ports_refuses_what_it_does_not_understand():
    for words, why in ((["bind"], "what?"), (["grab", "eth0"], "more than there should be"), (["bind", "a", "b"], "more than"),
                       (["--interval", "1h"], "a time up to 60s")):
        r = call("ports", *words, status=64)
        check(why in r.stderr, r.stderr)
    check("no such NIC" in call("ports", "bind", "none9", status=1).stderr, "a NIC that is not there")


@scenario
def stat_removes_what_is_stale():
    with Tables() as t:
        dead = subprocess.Popen(["true"])
        h = statfile.header(t.process())
        h.pid = dead.pid
        dead.wait()
        t.write(dead.pid, h, [statfile.record(3)])
        ended = t.process("true")  # and nobody has asked for its status
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        t.write(ended, statfile.header(ended), [statfile.record(3)])
        reused, living, unreadable = t.process(), t.process(), t.process()
        h = statfile.header(reused)
        h.start_time -= 1
        t.write(reused, h, [statfile.record(3)])
        t.write(living, statfile.header(living), [statfile.record(3)])
        t.path(unreadable).write_bytes(b"")
        (t.dir / "stat" / "notes").write_text("not ours")
        equal([p["pid"] for p in t.json()], [living], "processes")
        equal(sorted(os.listdir(t.dir / "stat")), sorted([str(living), str(unreadable), "notes"]), "files that stay")


@scenario
def stat_shows_who_has_ended_its_first_thread():
    program = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(100,)).start(); ctypes.CDLL(None).pthread_exit(None)"
    with Tables() as t:
        pid = t.process(sys.executable, "-c", program)
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z", 10, "its first thread has ended")
        t.write(pid, statfile.header(pid), [statfile.record(3)])
        equal([p["pid"] for p in t.json()], [pid], "processes")


@scenario
def stat_ignores_what_is_no_table():
    with Tables() as t:
        pid = t.process()
        t.write(pid, statfile.header(pid), [statfile.record(3)])
        secret = t.dir / "secret"
        shutil.copy(t.path(pid), secret)
        others = [t.process() for _ in range(4)]
        t.path(others[0]).symlink_to(secret)
        os.mkfifo(t.path(others[1]))
        t.path(others[2]).mkdir()
        shutil.copy(t.path(pid), t.path(others[3]))  # says it is of another process
        equal([p["pid"] for p in t.json()], [pid], "processes")


@scenario
def stat_does_not_believe_other_users():
    if os.geteuid():
        raise Skip("needs root")
    with Tables() as t:
        mine, theirs = t.process(), t.process()
        for pid in (mine, theirs):
            t.write(pid, statfile.header(pid), [statfile.record(3)])
        os.chown(t.path(theirs), 65534, 65534)
        equal([p["pid"] for p in t.json()], [mine], "processes")


@scenario
def stat_cleans_what_it_shows():
    with Tables() as t:
        pid = t.process()
        h = statfile.header(pid, b"a\x1b[31m\nb", engine=b"e" * 96)
        r = statfile.record(3, path=77, reason=999, role=9, provider=b"p" * 8, state=b"\xff\x01" * 8)
        r.peer.family = 5
        odd = statfile.record(4, seq=7)  # for ever being written
        t.write(pid, h, [r, odd])
        (p,) = t.json()
        equal(p["program"], "a?[31m?b", "program")
        equal(p["engine"], "e" * 95, "engine")
        (c,) = p["connections"]
        equal([c[k] for k in ("path", "reason", "role", "provider", "state", "peer")],
              ["TCP", "UNKNOWN", "client", "p" * 7, "??" * 7 + "?", "-"], "connection")
        check("\x1b" not in t.text(), "a control character gets through")


@scenario
def stat_survives_any_bytes():
    seed = int.from_bytes(os.urandom(4), "big")
    dice = random.Random(seed)
    say(f"seed {seed}")
    shown = total = 0
    with Tables() as t:
        pids = [t.process() for _ in range(40)]
        for _ in range(25):
            for pid in pids:
                records = dice.choice((0, 1, 20))
                data = bytearray(bytes(statfile.header(pid, records=dice.choice((records or 1, statfile.RECORDS))))
                                 + b"".join(bytes(statfile.record(i)) for i in range(records)))
                for _ in range(dice.choice((1, 3, 30))):
                    # The first bytes decide whether it is a table at all.
                    at = dice.randrange(dice.choice((40, len(data), len(data))))
                    data[at] = dice.choice((0, 1, 0x7f, 0x80, 0xff, dice.randrange(256)))
                t.path(pid).write_bytes(data[:dice.choice((len(data), len(data), dice.randrange(len(data) + 1)))])
            found = t.json("--all")
            total += len(pids)
            shown += len(found)
            for p in found:
                check(p["pid"] in pids, f"pid {p['pid']}")
                for c in p["connections"]:
                    check(c["path"] in ("SAN", "TCP") and c["role"] in ("client", "server", "listen"), f"connection {c}")
            t.text("--all")
    say(f"{shown} of {total} tables were still tables")
    check(total > shown > total // 4, "the bytes were too wild, or not wild enough")


# --- check ---

@scenario
def check_says_what_is_missing():
    with directory() as d:
        conf = d / "a.conf"

        def findings(text, **more):
            conf.write_text(text)
            r = call("check", "--json", env={"SANDIRECT_CONFIG": str(conf), "SANDIRECT_RUNTIME_DIR": str(d)}, **more)
            found = json.loads(r.stdout)
            equal(r.returncode, 0 if found["able"] else 1, "the status")
            equal(found["able"], not any(f["level"] == "missing" for f in found["findings"]), "able")
            for f in found["findings"]:
                check(f["level"] == "ok" or f.get("remedy"), f"no remedy: {f}")
            return [(f["name"], f["level"], f["text"]) for f in found["findings"]]

        def says(found, name, level, text):
            check(any(n == name and v == level and text in s for n, v, s in found), f"no {level} {name} {text!r} in {found}")

        says(findings(""), "configuration", "ok", str(conf))
        says(findings(""), "ports", "warn", "NO_PORT")
        says(findings("[global]\nenabled = off\n"), "configuration", "missing", "switched off")
        says(findings("[port p]\nnetdev = nosuch0\n"), "interface", "missing", "nosuch0 of [port p] does not exist here")
        says(findings("[port p]\nnetdev = lo\n"), "interface", "ok", "lo of [port p]")
        says(findings("[port p]\nnetdev = lo\ndevice = 0000:ff:1f.7\n"), "device", "missing", "0000:ff:1f.7")
        says(findings("", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))), "open files", "missing",
             "100")
        if not SANITIZED:  # its shadow memory does not fit
            says(findings("", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))), "address space",
                 "warn", "1024 MiB")
        # The text has the same lines.
        text = call("check", env={"SANDIRECT_CONFIG": str(conf), "SANDIRECT_RUNTIME_DIR": str(d)}).stdout
        for name, level, what in findings(""):
            check(re.search(rf"^{level} +{re.escape(name)} +{re.escape(what)}$", text, re.M), f"{name} is not in\n{text}")


main()

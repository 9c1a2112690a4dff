# SPDX-License-Identifier: BSD-3-Clause
"""What every end-to-end scenario stands on: a lab of its own, programs on its hosts, and a look at what carried them.

Whatever happens, the programs are killed and the lab is taken down; what a killed run left is removed by the next one.
E2E_KERNEL=1 runs everything on the kernel's sockets, to try the scenarios themselves. E2E_LINK=LINK runs those that do not need a
certain link over this one.
"""
import atexit
import contextlib
import errno
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import tap
from tap import Failure, Skip, check, equal, main, say, scenario

KERNEL_ONLY = bool(os.environ.get("E2E_KERNEL"))
EVERY_LINK = os.environ.get("E2E_LINK")
SANDIRECT = os.environ.get("E2E_SANDIRECT", "sandirect")
SOCKBENCH = os.environ.get("E2E_SOCKBENCH", "sockbench")
GUEST = os.environ.get("E2E_GUEST", "guest")
SANITIZED = bool(os.environ.get("E2E_SANITIZED"))
LONG = os.environ.get("SANDIRECT_TEST_LONG") == "1"
PEER = str(Path(__file__).with_name("peer.py"))
PYTHON = os.path.realpath(sys.executable)
MIB = 1 << 20
# Segments that may be counted beside the SAN: nothing of ours, but a stray reset or a probe of the tools.
STRAY_SEGMENTS = 20
# Of a frame in a page that AF_XDP shares with the kernel.
XDP_MTU = 1700
# How long a host that has said that nobody listens is believed.
ANSWER_TTL = 1.2
# A sanitized build, and a machine that others use, are slow.
SLOW = 5 if SANITIZED else 1
# Its programs answer late, and are not to be taken for silent ones.
PATIENCE = "[global]\nfind_timeout = 250ms\n[transport]\nconnect_timeout = 1s\n"

os.environ["PATH"] += ":/usr/sbin:/sbin"


def sanitizer_environment(directory):
    """For stock programs that load a sanitized library: the sanitizer's own must be there first, and reports go to files."""
    libraries = subprocess.run(["ldd", SANDIRECT], capture_output=True, text=True, check=True).stdout
    asan = re.search(r"\S*/libasan\.so\S*", libraries).group(0)
    return {"LD_PRELOAD": asan, "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={directory}/report",
            "ASAN_OPTIONS": f"verify_asan_link_order=0:detect_leaks=0:handle_segv=0:"
                            f"handle_sigbus=0:handle_sigfpe=0:use_sigaltstack=0:log_path={directory}/report"}


def need(*tools):
    for t in tools:
        if SANITIZED and t in ("curl", "wget"):
            raise Skip(f"{t} hangs with the sanitizer, also alone")
        if not shutil.which(t):
            raise Skip(f"{t} is not installed")


def until(condition, seconds, what, every=0.05):
    return tap.until(condition, seconds * SLOW, what, every)


class Program:
    """A program on a host. Its output goes to files, so that it never waits for us."""

    def __init__(self, lab, how, host, argv, name, popen):
        self.lab, self.how, self.host, self.name, self.argv = lab, how, host, name, argv
        base = tempfile.mktemp(prefix=f"{host}-{os.path.basename(name)}-", dir=lab.dir)
        self.out_path, self.err_path = base + ".out", base + ".err"
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            popen.setdefault("stdin", subprocess.DEVNULL)
            popen.setdefault("stdout", out)
            popen.setdefault("stderr", err)
            self.process = subprocess.Popen(argv, start_new_session=True, **popen)
        self.pid = self.process.pid

    def output(self):
        return Path(self.out_path).read_text(errors="replace")

    def errors(self):
        return Path(self.err_path).read_text(errors="replace")

    def lines(self):
        """But for one that is being written."""
        ended = not self.running()
        text = self.output()
        lines = text.splitlines()
        return lines if ended or text.endswith("\n") else lines[:-1]

    def json(self):
        """Its output's last line."""
        lines = self.lines()
        check(lines, f"{self} has printed nothing")
        return json.loads(lines[-1])

    def running(self):
        return self.process.poll() is None

    def wait(self, seconds=30, status=0):
        """Its exit status, which must be as given (None: any)."""
        try:
            got = self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self} does not end in {seconds * SLOW} s") from None
        check(status is None or got == status, f"{self} ended with {got}")
        return got

    def until_line(self, pattern, seconds=20):
        def found():
            text = self.output()
            m = re.search(pattern, text, re.M)
            if not m and not self.running() and not re.search(pattern, self.output(), re.M):
                raise Failure(f"{self} ended with {self.process.returncode} before {pattern!r} came")
            return m
        return until(found, seconds, f"{pattern!r} from {self}")

    def until_error(self, text, seconds=20):
        until(lambda: text in self.errors(), seconds, f"{text!r} from {self}")
        return self

    def until_listening(self, port, seconds=20, san=True):
        """Whoever it is in the program's namespace. Over the switch also until its SAN port, if it gets one, is open."""
        def found():
            check(self.running(), f"{self} ended with {self.process.returncode} instead of listening")
            return listens(self.pid, port)
        until(found, seconds, f"{self} listens on port {port}")
        if self.how == "run" and san:
            until(lambda: (self.lab.stat(self) or {}).get("engine", "not started") != "not started", seconds,
                  f"{self} opens its port, or has a reason not to")
        return self

    def tell(self, text):
        self.process.stdin.write((text + "\n").encode())
        self.process.stdin.flush()

    def signal(self, sig):
        if self.running():
            self.process.send_signal(sig)

    def stop(self, seconds=10):
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self} does not end after SIGTERM") from None

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def __str__(self):
        return f"{self.name} ({self.pid}, {self.host})"

    def report(self):
        for title, path in (("stdout", self.out_path), ("stderr", self.err_path)):
            data = Path(path).read_bytes()[-3000:]
            if data.strip() and data.isascii():
                say(f"--- {self}: {title}\n{data.decode().rstrip()}")


def listens(pid, port):
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rsplit(":", 1)[1], 16) == port:
                    return True
    return False


class Lab:
    """Hosts h1.. with san0 10.77.0.I and fd77::I, lan0 10.78.0.I."""

    FAULTS = ("loss", "duplicate", "reorder", "corrupt", "delay", "jitter", "rate")

    def __init__(self, link=None, hosts=2, mtu=1500, mode="embedded", miniport=False, cores=None, **faults):
        if EVERY_LINK and (link or EVERY_LINK in ("xdp", "udp") and miniport or EVERY_LINK == "xdp" and mtu > XDP_MTU):
            raise Skip(f"is not for a lab whose link is {EVERY_LINK}")
        link = link or EVERY_LINK or "vhost"
        self.link, self.mode, self.name = link, mode, f"e2e{os.getpid()}"
        self.options = ["--hosts", str(hosts), "--link", link, "--mtu", str(mtu), "--mode", mode]
        self.options += ["--miniport"] if miniport else []
        self.options += ["--cores", cores] if cores else []
        for fault, value in faults.items():
            check(fault in self.FAULTS, f"no fault: {fault}")
            if value:
                self.options += ["--" + fault, str(value)]
        self.programs = []

    def __enter__(self):
        if os.geteuid():
            raise Skip("a lab needs root")
        sweep()
        self.dir = tempfile.mkdtemp(prefix="sde2e-")
        os.chmod(self.dir, 0o755)
        os.environ["SANDIRECT_RUNTIME_DIR"] = self.dir
        atexit.register(self.close)
        r = self.command("up", *self.options)
        if r.returncode:
            self.close()
            if "Operation not permitted" in r.stderr:
                raise Skip("no right to make network namespaces")
            raise Failure(f"lab up: {r.stderr}")
        if SANITIZED:
            for conf in Path(self.dir, f"lab-{self.name}").glob("h*.conf"):
                conf.write_text(PATIENCE + conf.read_text())
        return self

    def __exit__(self, kind, value, trace):
        if kind and kind is not Skip:
            for p in self.programs:
                p.report()
            for p in self.stat(all=True):
                say(json.dumps(p)[:3000])
        problems = self.close()
        if problems and kind:
            say(problems)
        elif problems:
            raise Failure(problems)

    def close(self):
        """What was left after `down`, which should be nothing."""
        atexit.unregister(self.close)
        for p in self.programs:
            p.kill()
        r = self.command("down")
        self.programs = []
        reports = [p.read_text() for p in Path(self.dir).glob("report.*")]
        names = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
        left = [n for n in names.split() if n.startswith(f"sdlab-{self.name}-")]
        shutil.rmtree(self.dir, ignore_errors=True)
        problems = reports + ([f"lab down: {r.stderr}"] if r.returncode else [])
        return "\n".join(problems + ([f"left after lab down: {left}"] if left else []))

    def command(self, *words):
        return subprocess.run([SANDIRECT, "lab", "--name", self.name, *words], capture_output=True, text=True)

    def daemon_config(self, host):
        return str(Path(self.dir, f"lab-{self.name}", f"{host}.conf"))

    def daemon_pid(self, host):
        """Of the one that lives; None: none does."""
        conf = self.daemon_config(host).encode()
        for p in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (p / "cmdline").read_bytes().split(b"\0")
                if conf in words and words[0].endswith(b"sandirectd") and (p / "stat").read_text().split()[2] != "Z":
                    return int(p.name)
        return None

    def start_daemon(self, host, *more):
        daemon = os.environ.get("E2E_SANDIRECTD", "sandirectd")
        return self.exec(host, daemon, "--config", self.daemon_config(host), "--user", "root", "--verbose", *more)

    def restart_daemon(self, host):
        """Without a word to the one that is there."""
        pid = self.daemon_pid(host)
        fd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        # Readable when its last thread has gone and its files, with the lock of its port, are closed; its command
        # line is gone before that.
        check(select.select([fd], [], [], 10)[0], f"{pid} is gone")
        os.close(fd)
        return self.start_daemon(host).until_error("ready at")

    def address(self, host, family=4, net="san"):
        i = int(host[1:])
        return f"fd77::{i:x}" if family == 6 else f"10.{77 if net == 'san' else 78}.0.{i}"

    def forgets(self):
        """Waits until hosts that have found nobody listening ask again, if nothing else can tell them."""
        if self.link == "udp":
            time.sleep(ANSWER_TTL)

    def start(self, how, host, argv, options=(), before=(), **popen):
        argv = [str(a) for a in argv]
        line = [*before, SANDIRECT, "lab", "--name", self.name, how, *options, host, *argv]
        if SANITIZED and how == "run":
            popen["env"] = {**popen.get("env", os.environ), **sanitizer_environment(self.dir)}
        p = Program(self, how, host, line, argv[0], popen)
        self.programs.append(p)
        return p

    def exec(self, host, *argv, **popen):
        """On the host's kernel sockets."""
        return self.start("exec", host, argv, **popen)

    def run(self, host, *argv, config=None, spin=None, **popen):
        """Over the switch."""
        if KERNEL_ONLY:
            return self.start("exec", host, argv, **popen)
        options = (["--config", config] if config else []) + (["--spin", str(spin)] if spin else [])
        return self.start("run", host, argv, options, **popen)

    def peer(self, host, *words, how="run", **popen):
        return getattr(self, how)(host, PYTHON, PEER, *words, **popen)

    def config(self, host, lines=(), rules=(), transport=(), top=()):
        """A copy of the host's configuration with more lines in its sections."""
        text = (Path(self.dir) / f"lab-{self.name}" / f"{host}.conf").read_text()
        text += "".join(line + "\n" for line in lines)  # its last section is the port
        for section, more in (("global", top), ("transport", transport), ("rules", rules)):
            if more:
                text += f"[{section}]\n" + "".join(line + "\n" for line in more)
        path = tempfile.mktemp(prefix=f"{host}-", suffix=".conf", dir=self.dir)
        Path(path).write_text(text)
        return path

    def stat(self, program=None, all=False):
        """What `sandirect stat` says of the program (None: not under the switch), or a list of all."""
        words = [SANDIRECT, "stat", "--json"] + (["--all"] if all else [])
        r = subprocess.run(words, capture_output=True, text=True)
        equal(r.returncode, 0, f"sandirect stat: {r.stderr}")
        found = json.loads(r.stdout)["processes"]
        if program is None:
            return found
        return next((p for p in found if p["pid"] == program.pid), None)

    def connections(self, program, **wanted):
        """The program's connections with these properties; a tuple allows each of its values."""
        p = self.stat(program)
        rows = p["connections"] if p else []
        return [c for c in rows if all(c[k] in (v if isinstance(v, tuple) else (v,)) for k, v in wanted.items())]

    def until_path(self, program, path, reason=None, count=1, seconds=15):
        """Waits until the program shows count connections on this path, and for this reason."""
        if KERNEL_ONLY:
            return []
        wanted = {"path": path}
        if reason:
            wanted["reason"] = reason

        def found():
            running = program.running()
            rows = self.connections(program, **wanted)
            if len(rows) < count and not running:
                raise Failure(f"{program} ended with {program.process.returncode} before its connections were seen")
            return rows if len(rows) >= count else None
        try:
            return until(found, seconds, "")
        except Failure as e:
            if not program.running():
                raise e
            shown = self.stat(program)
            raise Failure(f"{program} should have {count} connections on {path} for {reason or 'any reason'}; "
                          f"stat: {json.dumps(shown)[:1500]}") from None

    def until_san(self, program, count=1, **more):
        rows = self.until_path(program, "SAN", count=count, **more)
        for r in rows:
            equal(r["provider"], "shm" if self.mode == "daemon" else "ether", f"provider of {program}")
            equal(r["reason"], "SAN", f"reason of {program}")
        return rows

    def reasons(self, program):
        """How many connections so far, by reason."""
        p = None if KERNEL_ONLY else self.stat(program)
        return p["by_reason"] if p else {}

    def segments(self, host):
        """TcpOutSegs of the host's kernel."""
        p = self.exec(host, "cat", "/proc/net/snmp")
        p.wait()
        names, values = (line.split() for line in p.lines() if line.startswith("Tcp:"))
        return int(values[names.index("OutSegs")])

    @contextlib.contextmanager
    def no_segments(self, *hosts, allow=STRAY_SEGMENTS):
        """The kernel's TCP must stay still meanwhile."""
        before = {h: self.segments(h) for h in hosts}
        yield
        for h in hosts:
            sent = self.segments(h) - before[h]
            say(f"{h}: TcpOutSegs +{sent}")
            check(KERNEL_ONLY or sent <= allow, f"{sent} TCP segments left {h} through the kernel")


def sweep():
    """Takes down labs of runs that were killed."""
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    for name, pid in set(re.findall(r"sdlab-(e2e(\d+)[a-z]?)-", names)):
        try:
            os.kill(int(pid), 0)
        except OSError as e:
            if e.errno == errno.ESRCH:
                subprocess.run([SANDIRECT, "lab", "--name", name, "down"], capture_output=True)

# SPDX-License-Identifier: BSD-3-Clause
"""A host with a daemon: a network namespace that has nothing but a loopback, and programs of a user without rights.

The namespace is the test's own and goes with it. At a scenario's end the daemon must have nothing left of what it did.
E2E_KERNEL=1 runs everything on the kernel's sockets, to try the scenarios themselves.
"""
import atexit
import contextlib
import ctypes
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import harness
from harness import (KERNEL_ONLY, PEER, SANDIRECT, SANITIZED, STRAY_SEGMENTS, Failure, Program, Skip, check,
                     equal, need, sanitizer_environment, say, until)

SANDIRECTD = os.environ.get("E2E_SANDIRECTD", "sandirectd")
SHARER = str(Path(__file__).with_name("sharer.py"))
ADDRESS, PORT = "127.0.0.1", 7600
USER = "nobody"
CLONE_NEWNET = 0x40000000
PR_SET_CHILD_SUBREAPER = 36
COUNTS = re.compile(r"(\d+) programs, (\d+) listeners, (\d+) connections; (\d+) made, (\d+) refused, (\d+) offered again, "
                    r"(\d+) bad messages")

libc = ctypes.CDLL(None, use_errno=True)


def children_of(pid):
    with contextlib.suppress(OSError):
        return [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    return []


def descendants(pid):
    return [d for c in children_of(pid) for d in (c, *descendants(c))]


def rights(user=USER):
    if user == "root":
        return ["setpriv", "--pdeathsig=KILL"]
    who = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--pdeathsig=KILL"]


def allowed(path, user=USER):
    return not subprocess.run([*rights(user), "test", "-r", path]).returncode


# root's own may be where nobody else gets to.
PYTHON = next((p for p in (harness.PYTHON, "/usr/bin/python3") if os.path.exists(p) and allowed(p)), harness.PYTHON)


def silence(log):
    return float(re.search(r"nobody was served for ([0-9.]+) ms", log)[1])


class Daemon:
    """lines: more of its programs' configuration. They run as USER unless told otherwise, and end with the scenario."""

    def __init__(self, *lines):
        self.lines, self.programs, self.allow_bad = lines, [], 0

    def __enter__(self):
        need("setpriv", "ip")
        if os.geteuid():
            raise Skip("a namespace needs root")
        if libc.unshare(CLONE_NEWNET):
            raise Skip("no right to make network namespaces")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        # What programs leave behind becomes ours, to be ended with them.
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.dir = tempfile.mkdtemp(prefix="sde2e-")
        os.chmod(self.dir, 0o1777)
        atexit.register(self.close)
        os.environ["SANDIRECT_RUNTIME_DIR"] = f"{self.dir}/run"
        os.mkdir(f"{self.dir}/run")
        os.chmod(f"{self.dir}/run", 0o1777)
        self.config, self.socket = f"{self.dir}/sandirect.conf", f"{self.dir}/s.sock"
        text = ["[global]", f"daemon = {self.socket}", f"runtime_dir = {self.dir}/run", *self.lines]
        Path(self.config).write_text("".join(line + "\n" for line in text))
        for f in (SANDIRECT, SHARER, PYTHON):
            if not allowed(f):
                self.close()
                raise Skip(f"{USER} may not read {f}")
        self.begin()
        return self

    def start(self, *more, prefix=()):
        self.log = tempfile.mktemp(prefix="daemon-", suffix=".log", dir=self.dir)
        with open(self.log, "wb") as log:
            return subprocess.Popen([*prefix, SANDIRECTD, "-c", self.config, *more], stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=log, start_new_session=True)

    def begin(self):
        """The daemon, also again."""
        self.before = 0
        self.process = self.start()
        self.pid = self.process.pid
        until(lambda: "ready at" in Path(self.log).read_text(), 10, "the daemon is ready")
        self.counts()
        # Of the first one, before there are programs.
        self.files = getattr(self, "files", None) or self.open_files()

    def reload(self):
        def answers():
            return len(re.findall(r"\d+ rules$|stay as they were$", Path(self.log).read_text(), re.M))
        before = answers()
        self.process.send_signal(signal.SIGHUP)
        until(lambda: answers() > before, 5, "the daemon has read its rules again")

    def take_over(self):
        """Another daemon goes on. How long nobody was served, in ms."""
        before, self.process = self.process, self.start("--takeover")
        self.pid = self.process.pid
        until(lambda: "ready at" in Path(self.log).read_text() or self.process.poll() is not None, 10, "the new daemon is ready")
        check(self.process.poll() is None, lambda: f"the new daemon has ended: {Path(self.log).read_text()}")
        equal(before.wait(10), 0, "how the old daemon ended")
        return silence(Path(self.log).read_text())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __exit__(self, kind, value, trace):
        problems = []
        try:
            if not kind:
                self.end_programs()
                self.check_empty()
        except Failure as e:
            problems = [str(e)]
        if problems or kind and kind is not Skip:
            self.report()
        problems += self.close()
        if problems and kind:
            say("\n".join(problems))
        elif problems:
            raise Failure("\n".join(problems))

    def report(self):
        for p in self.programs:
            p.report()
        for p in self.stat():
            say(json.dumps({k: v for k, v in p.items() if k != "connections" or len(v) < 5})[:1500])
        lines = Path(self.log).read_text().splitlines()
        counts = [line for line in lines if COUNTS.search(line)]
        say("--- daemon\n" + "\n".join([line for line in lines if line not in counts][-20:] + counts[-2:]))

    def end_programs(self):
        for p in self.programs:
            p.signal(signal.SIGTERM)
        with contextlib.suppress(Failure):
            until(lambda: not any(p.running() for p in self.programs), 2, "")
        for p in self.programs:
            p.kill()
        # Not the daemon, nor what is still a helper of this script.
        for _ in range(5):
            for c in descendants(os.getpid()):
                if c != self.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(c, signal.SIGKILL)
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(c, 0)
        self.programs = []

    def check_empty(self):
        """Nothing is left in the daemon of what its programs had."""
        if self.process.poll() is not None:
            raise Failure(f"the daemon has ended with {self.process.returncode}")

        def empty():
            c = self.counts()
            return not (c["programs"] or c["listeners"] or c["connections"]) and self.open_files() == self.files
        until(empty, 10, lambda: f"the daemon has nothing left: {self.counts()}, "
              f"{self.open_files()} descriptors instead of {self.files}", every=0.2)
        c = self.counts()
        check(c["bad"] <= self.allow_bad, f"{c['bad']} bad messages")
        say(f"daemon: {c}")

    def close(self):
        """What was wrong at the end."""
        atexit.unregister(self.close)
        self.end_programs()
        problems = []
        if getattr(self, "process", None) and self.process.poll() is None:
            self.process.terminate()
            try:
                status = self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
                status = "SIGKILL"
            problems += [f"the daemon ended with {status}"] if status else []
        problems += [p.read_text() for p in Path(self.dir).glob("report.*")]
        shutil.rmtree(self.dir, ignore_errors=True)
        return problems

    # --- what the daemon says ---

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def counts(self):
        def lines():
            return COUNTS.findall(Path(self.log).read_text())
        before = len(lines())
        self.process.send_signal(signal.SIGUSR1)
        until(lambda: len(lines()) > before, 5, "the daemon's counts", every=0.005)
        return dict(zip(("programs", "listeners", "connections", "made", "refused", "again", "bad"), map(int, lines()[-1])))

    def made(self):
        """How many connections it has joined since the last call."""
        n = self.counts()["made"]
        more, self.before = n - self.before, n
        return more

    def check_made(self, at_least, at_most=None):
        n = self.made()
        say(f"{n} connections were made")
        check(KERNEL_ONLY or at_least <= n <= (at_most or n), f"{n} connections were made instead of {at_least}")

    def until_listeners(self, count):
        """That many are known to the daemon: from then on a client is on the SAN."""
        until(lambda: KERNEL_ONLY or self.counts()["listeners"] >= count, 15,
              lambda: f"{count} listeners at the daemon: {self.counts()}")

    # --- programs ---

    def through(self):
        """What stands before a program that is to be on the SAN."""
        return [] if KERNEL_ONLY else [SANDIRECT, "run", "--config", self.config]

    def run(self, *argv, how="run", user=USER, name=None, preload=None, **popen):
        """Over the switch, or (how="exec") without it, when preload says whether what it starts is."""
        argv = [str(a) for a in argv]
        popen.setdefault("cwd", self.dir)
        env = {**popen.get("env", os.environ), "HOME": self.dir, "PYTHONDONTWRITEBYTECODE": "1"}
        if SANITIZED and (how == "run" if preload is None else preload):
            env.update(sanitizer_environment(self.dir))
        popen["env"] = env
        line = [*rights(user), *(self.through() if how == "run" else []), *argv]
        p = Program(self, "local", "host", line, name or argv[0], popen)
        self.programs.append(p)
        return p

    def exec(self, *argv, **popen):
        """On the kernel's sockets, in the same namespace."""
        return self.run(*argv, how="exec", preload=False, **popen)

    def sharer(self, command, *words, **popen):
        return self.run(PYTHON, SHARER, command, *words, name=command, **popen)

    def peer(self, command, *words, **popen):
        return self.run(PYTHON, PEER, command, ADDRESS, *words, name=command, **popen)

    def finish(self, *argv, seconds=15, **popen):
        """Its output, once it has ended well."""
        p = self.run(*argv, **popen)
        p.wait(seconds)
        return p.output()

    # --- what carried it ---

    def stat(self, program=None):
        r = subprocess.run([SANDIRECT, "stat", "--json"], capture_output=True, text=True)
        equal(r.returncode, 0, f"sandirect stat: {r.stderr}")
        found = json.loads(r.stdout)["processes"]
        if program is None:
            return found
        return next((p for p in found if p["pid"] == program.pid), None)

    def until_san(self, program, count=1, seconds=10, path="SAN"):
        if KERNEL_ONLY:
            return []

        def found():
            p = self.stat(program)
            rows = [c for c in p["connections"] if c["path"] == path and c["role"] != "listen"] if p else []
            return rows if len(rows) >= count else None
        return until(found, seconds,
                     lambda: f"{count} connections of {program} on {path}: {json.dumps(self.stat(program))[:800]}")

    def segments(self):
        names, values = (w.split() for w in Path("/proc/net/snmp").read_text().splitlines() if w.startswith("Tcp:"))
        return int(values[names.index("OutSegs")])

    @contextlib.contextmanager
    def no_segments(self, allow=STRAY_SEGMENTS):
        """The kernel's TCP must stay still meanwhile."""
        before = self.segments()
        yield
        sent = self.segments() - before
        check(KERNEL_ONLY or sent <= allow, f"{sent} TCP segments went through the kernel")


# --- servers and those who ask them ---

def serve(d, command="serve", *words, **more):
    """A server whose SAN side is open."""
    p = (d.peer if command == "serve" else d.sharer)(command, PORT, *words, **more)
    p.until_listening(PORT)
    d.until_listeners(1)
    return p


def ask(d, times=1, seconds=15, **more):
    """Echoes through whoever serves."""
    p = d.peer("ask", PORT, "--times", times, **more)
    p.wait(seconds)
    rows = [json.loads(line) for line in p.lines()]
    check(len(rows) == times + 1 and all(r.get("same") for r in rows[:-1]), f"{p}: {rows[:5]}")


def calls(d, count, seconds=15):
    """Who answered."""
    p = d.sharer("calls", PORT, count)
    p.wait(seconds)
    got = p.json()
    equal(got["failed"], 0, f"failed calls: {got['failures']}")
    equal(sum(got["answers"].values()), count, "answers")
    return got["answers"]


def event(p, key, seconds=10):
    """The first JSON line that has it."""
    def found():
        return next((e for e in map(json.loads, p.lines()) if key in e), None)
    return until(found, seconds, f"{key} from {p}")

# SPDX-License-Identifier: BSD-3-Clause
"""Explores the model of connections with spin: every run must find nothing wrong, every planted bug must be found.

    check.py MODEL_DIRECTORY quick|long [WORD...]     only what has one of the words in its name
    check.py MODEL_DIRECTORY trail RUN [BUG]          what happens up to the first thing wrong

Exit status 0: passed, 1: failed, 77: spin is not here.
"""
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAFETY, CYCLES, LTL = "safety", "cycles", "ltl"
COMPILE = {SAFETY: ["-DSAFETY", "-DNOCLAIM"], CYCLES: ["-DNP", "-DNOCLAIM"], LTL: []}
RUN = {SAFETY: [], CYCLES: ["-l"], LTL: ["-a", "-N", "ends"]}
MEMORY = 7500  # MiB
SECONDS = 1200

# What may happen (see life.pml), and what is looked for. CYCLES looks for endless executions beside all that SAFETY does.
RUNS = {
    "quick": (CYCLES, "WRITES=0 LOSSES=1"),
    "close": (CYCLES, "LOSSES=1"),
    "setup": (CYCLES, "WRITES=0 LOSSES=1 COPIES=1 ABORTS=1 UNLISTEN=1"),
    "losses": (SAFETY, "LOSSES=2 ABORTS=1"),
    "old packets": (SAFETY, "COPIES=1"),
    "hasty timers": (SAFETY, "HASTE=1"),
    "crash": (CYCLES, "CRASHES=1 COPIES=1 WRITES=0"),
    "crash with bytes": (SAFETY, "CRASHES=1"),
    "crash twice": (SAFETY, "CRASHES=2 WRITES=0"),
    "return": (SAFETY, "CRASHES=1 CONNECTS=2 WRITES=0"),
    "return without keepalive": (SAFETY, "CRASHES=1 CONNECTS=2 WRITES=0 KEEPALIVE=0 CRASHES_OF_B=0 PLACES=2"),
    "no keepalive": (SAFETY, "WRITES=0 LOSSES=1 KEEPALIVE=0"),
    "intruder": (CYCLES, "FORGERIES=2 WRITES=0"),
    "intruder with bytes": (SAFETY, "FORGERIES=1"),
    "outage": (CYCLES, "OUTAGES=1"),
    "ends": (LTL, "WRITES=0 LOSSES=1"),
}

# Which run has to see which bug.
BUGS = {
    "NO_NONCE": "intruder",
    "NO_TOKEN": "intruder",
    "FORGETS_FINISHED": "close",
    "ACCEPTS_AT_INIT": "setup",
    "HALF_FOR_EVER": "setup",
    "UNCONFIRMED": "no keepalive",
    "NO_KEEPALIVE": "crash",
    "NO_RESTART_CHECK": "return without keepalive",
    "RESET_STORM": "setup",
    "NEVER_COMPLETED": "close",
    "ANY_RESET_COMPLETES": "crash with bytes",
    "NO_BYE_NEEDED": "close",
    "OPENS_TWICE": "setup",
    "CLOSING_FOR_EVER": "close",
    "TAKES_DUPLICATES": "old packets",
    "TAKES_EARLY_FIN": "close",
    "IDS_AGAIN": "crash",
    "COOKIE_STORM": "intruder",
    "CLOSES_UNREAD": "close",
    "FIN_ONCE": "close",
    "SWALLOWS": "close",
    "NO_DEAD_TIMEOUT": "outage",
    "NO_COOKIES": "intruder",
    "KNOWN_BY_ID": "intruder",
    "SHORT_FIN": "close",
    "FIN_UNACCEPTED": "close",
    "ASKS_AFTER_END": "close",
}


class Explorer:
    def __init__(self, model, directory):
        self.model, self.dir = model, Path(directory)

    def tool(self, *command, timeout=SECONDS, status=(0,)):
        r = subprocess.run([str(x) for x in command], cwd=self.dir, capture_output=True, text=True, timeout=timeout)
        if r.returncode not in status:
            raise RuntimeError(f"{command[0]}: {(r.stdout + r.stderr)[-1000:]}")
        return r.stdout

    def generate(self, run, bug, cycles=False):
        mode, defines = RUNS[run]
        if bug and mode == LTL or cycles:
            mode = CYCLES
        self.defines = [f"-D{d}" for d in defines.split()] + ([f"-DBUG=BUG_{bug}"] if bug else [])
        self.tool("spin", "-a", *self.defines, self.model / "life.pml")
        self.tool("gcc", "-O0" if run == "quick" else "-O2", "-w", *COMPILE[mode], "-DNOREDUCE", "-DNOFAIR", "-DVECTORSZ=512", f"-DMEMLIM={MEMORY}",
                  "-o", "pan", "pan.c")
        return mode

    def explore(self, run, bug=None):
        """(what is wrong or None, states)"""
        mode = self.generate(run, bug)
        out = self.tool("./pan", "-m100000", "-w24", *RUN[mode])
        states = int(float(re.search(r"(\S+) states, stored", out).group(1)))
        wrong = re.search(r"^pan:\d+: (.*)", out, re.M)
        if not wrong and ("errors: 0" not in out or "Search not completed" in out):
            raise RuntimeError(f"the search of {run} has not ended:\n{out[-1000:]}")
        return wrong.group(1) if wrong else None, states

    def trail(self, run, bug=None):
        print(self.explore(run, bug)[0] or "nothing is wrong")
        trail = self.dir / "life.pml.trail"
        if trail.exists():
            shutil.copytree(self.model, self.dir / "copy")
            (self.dir / "copy" / trail.name).write_text(trail.read_text())
            self.dir = self.dir / "copy"
            print(story(self.tool("spin", "-t", "-g", "-p", *self.defines, "life.pml", status=(0, 1))))


TYPES = ["", "DATA", "ACK", "INIT", "INIT_ACK", "INIT_NAK", "COOKIE", "RESET"]
REASONS = ["UNKNOWN", "ABORT", "CLOSED", "TIMEOUT", "FINISHED"]


def packet(number):
    """In words; wire.pml has the format."""
    def field(at, bits):
        return number >> at & (1 << bits) - 1
    kind = TYPES[field(0, 3)]
    words = [kind, "to", "AB"[field(3, 1)], f"dcid {field(4, 3)} scid {field(7, 3)}"]
    if kind in ("DATA", "ACK"):
        words += [f"psn {field(10, 2)} ack {field(14, 2)}"]
        words += [name for name, at in (("byte", 12), ("FIN", 13), ("ACKREQ", 16), ("BYE", 17)) if field(at, 1)]
    elif kind == "RESET":
        words += [REASONS[field(15, 3)], f"key {field(13, 2)}"]
    else:
        words += [f"nonce {field(10, 3)} key {field(13, 2)} epoch {field(15, 2)} again {field(17, 1)} cookie {field(18, 2)}"]
    return " ".join(words)


def story(text):
    """What spin tells of a trail, without what says nothing."""
    lines, seen = [], {}
    for line in text.splitlines():
        variable = re.match(r"\s*(sending|arriving|held) = (\d+)", line)
        step = re.match(r"\s*\d+:\s+proc\s+\d+ \((\w+):.*?\[(.*)\]", line)
        if variable:
            name, value = variable.groups()
            if value != "0" and seen.get(name) != value:
                lines.append(f"    {name}: {packet(int(value))}")
            seen[name] = value
        elif step and re.match(r"c\[\w\]\.\w+ = (?!0)", step.group(2)):
            lines.append(f"    {step.group(2)}")
        elif step and "life.pml" in line and step.group(2)[0] == "(" and step.group(2) != "(1)":
            place = re.search(r"life\.pml:\d+", line).group(0)
            lines.append(f"{step.group(1)} ({place})")
            seen.clear()
        elif "assert" in line or "CYCLE" in line:
            lines.append(line.strip())
    return "\n".join(lines)


def main():
    model, what, words = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]
    if not shutil.which("spin") or not shutil.which("gcc"):
        print("1..0 # SKIP spin is not installed (Debian: apt-get install spin)")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="sd-model-") as directory:
        if what == "trail":
            Explorer(model, directory).trail(*words)
            return
        jobs = [("quick", None), ("quick", "FIN_ONCE")] if what == "quick" else [(r, None) for r in RUNS] + [(r, b) for b, r in BUGS.items()]
        jobs = [j for j in jobs if not words or any(w in (j[1] or j[0]) for w in words)]
        print(f"1..{len(jobs)}", flush=True)
        failed = 0
        for i, (run, bug) in enumerate(jobs, 1):
            start = time.monotonic()
            try:
                wrong, states = Explorer(model, directory).explore(run, bug)
            except (RuntimeError, subprocess.TimeoutExpired) as e:
                print("#", str(e).replace("\n", "\n# "))
                wrong, states, good = "the search failed", 0, False
            else:
                good = bool(wrong) == bool(bug)
            failed += not good
            name = f"{run}: BUG_{bug} is seen" if bug else run
            print(f"{'ok' if good else 'not ok'} {i} - {name} ({states:,} states, {time.monotonic() - start:.0f} s, "
                  f"{wrong or 'nothing wrong'})", flush=True)
    sys.exit(failed != 0)


main()

# SPDX-License-Identifier: BSD-3-Clause
"""Runs very many seeds of the simulated cases, on all CPUs, and makes what fails small.

    soak.py [--seeds N] [--first SEED] [--case NAME] [--jobs N] PROGRAM...

PROGRAM is test_sim or test_verbs_sim; N seeds are shared out among all cases of all programs. Of a seed that fails a
scenario is looked for that fails in the same way with fewer connections, fewer bytes and fewer troubles; the command
that replays it is printed.
"""
import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CHUNK = 200  # seeds of one process
PATIENCE = 300  # seconds, for a chunk
SHRINK_FOR = 180  # seconds, for a failure
FAILURES = 5  # of a case are enough
TROUBLES = ["loss", "duplicate", "reorder", "corrupt", "ce", "jitter", "rate", "queue", "mark", "mtu", "change", "lag", "burst", "clock", "isn",
            "memory", "crash", "silence", "trouble", "endings", "pauses", "settings", "crc"]
# What may be bounded, and how high it is at most.
BOUNDS = {"bytes": 1 << 21, "ops": 512, "hand-overs": 256}
PAIRS_MAX = 160


class Case:
    def __init__(self, program, name):
        self.program, self.name = program, name
        self.failures = []

    def environment(self, seed, count, trim=()):
        settings = {"SIM_CASE": self.name, "SIM_SEED": str(seed)}
        if count:
            settings["SIM_COUNT"] = str(count)
        if trim:
            settings["SIM_TRIM"] = ",".join(trim)
        return settings

    def run(self, seed, count, trim=(), patience=PATIENCE):
        """None, or what went wrong: the seed if the program said so, and its words."""
        try:
            r = subprocess.run([self.program], env={**os.environ, **self.environment(seed, count, trim)}, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", timeout=patience)
        except subprocess.TimeoutExpired:
            return None, "it does not end"
        if r.returncode == 0:
            return None
        m = re.search(r"SIM_SEED=(\d+)(?:, [^:\n]*)?: (.*)", r.stdout)
        if m:
            return int(m.group(1)), m.group(2)
        m = re.search(r"(?:ERROR: AddressSanitizer|runtime error): (.*)", r.stdout)
        return None, m.group(1) if m else f"it ended with {r.returncode}"

    def first_failure(self, seed, count):
        """(seed, words), or None. A program that dies does not say where: halves are looked through."""
        said = self.run(seed, count)
        if not said or said[0] is not None:
            return said
        if count == 1:
            return seed, said[1]
        half = count // 2
        return self.first_failure(seed, half) or self.first_failure(seed + half, count - half)

    def replay(self, seed, trim):
        words = " ".join(f"{k}={v}" for k, v in self.environment(seed, 0, trim).items())
        return f"{words} {self.program}"


def kind(words):
    """The same for failures that differ in numbers only."""
    return re.sub(r" \(\d+ packets, \w+\)$|\d+", "#", words)


class Shrinker:
    def __init__(self, case, seed, words):
        self.case, self.seed, self.kind = case, seed, kind(words)
        self.trim = {}
        self.until = time.monotonic() + SHRINK_FOR
        self.runs = 0

    def words(self, trim):
        return [f"{k}={v}" if v is not None else k for k, v in trim.items()]

    def still(self, **change):
        """Does it fail in the same way with that, too? Then it stays."""
        trim = {**self.trim, **change}
        if trim == self.trim or time.monotonic() > self.until:
            return False
        self.runs += 1
        said = self.case.run(self.seed, 1, self.words(trim), 60)
        if not said or kind(said[1]) != self.kind:
            return False
        self.trim = trim
        return True

    def fewer_pairs(self):
        size = 1
        while size < self.trim.get("pairs", PAIRS_MAX):
            start = self.trim.get("from", 0)
            for first in range(start, start + self.trim.get("pairs", PAIRS_MAX), size):
                if self.still(**{"from": first, "pairs": size}):
                    return
            size *= 2

    def lower(self, name):
        bad, good = self.trim.get(name, BOUNDS[name]), 0  # fails with the one, perhaps not with the other
        while bad - good > 1:
            middle = (bad + good) // 2
            if self.still(**{name: middle}):
                bad = middle
            else:
                good = middle

    def shrink(self):
        before = None
        while before != self.trim:
            before = dict(self.trim)
            self.fewer_pairs()
            for t in TROUBLES:
                self.still(**{f"-{t}": None})
            for b in BOUNDS:
                self.lower(b)
        return self.words(self.needed())

    def needed(self):
        """Without what makes no difference: the packets are the same."""
        trim = dict(self.trim)
        said = self.case.run(self.seed, 1, self.words(trim))
        for name in self.trim:
            rest = {k: v for k, v in trim.items() if k != name}
            if self.case.run(self.seed, 1, self.words(rest), 60) == said:
                trim = rest
        return trim


def case_names(program):
    r = subprocess.run([program], env={**os.environ, "SIM_SEED": "1", "SIM_COUNT": "0", "CMOCKA_MESSAGE_OUTPUT": "STDOUT"}, capture_output=True, text=True)
    return re.findall(r"\[ RUN +\] (\S+)", r.stdout + r.stderr)


def explore(case, first, count):
    """One chunk: what failed, made small."""
    seed, end, told = first, first + count, []
    while seed < end and len(case.failures) < FAILURES:
        failure = case.first_failure(seed, end - seed)
        if not failure:
            break
        case.failures.append(failure)
        shrinker = Shrinker(case, *failure)
        trim = shrinker.shrink()
        said = case.run(failure[0], 1, trim)
        told.append(f"# {case.name}, seed {failure[0]}: {failure[1]}\n#   after {shrinker.runs} smaller runs: {said[1] if said else 'nothing'}\n"
                    f"#   {case.replay(failure[0], trim)}")
        seed = failure[0] + 1
    return told


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seeds", type=int, default=100000)
    p.add_argument("--first", type=int, default=1)
    p.add_argument("--case")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("programs", nargs="+")
    options = p.parse_args()
    cases = [Case(os.path.abspath(x), n) for x in options.programs for n in case_names(x) if options.case in (None, n)]
    if not cases:
        sys.exit("no cases")
    each = -(-options.seeds // len(cases))
    begin = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        chunks = [(c, s, min(CHUNK, each - s + options.first)) for c in cases for s in range(options.first, options.first + each, CHUNK)]
        for told in pool.map(lambda chunk: explore(*chunk), chunks):
            print("\n".join(told), end="\n" if told else "", flush=True)
    took = time.monotonic() - begin
    for i, c in enumerate(cases, 1):
        print(f"{'not ok' if c.failures else 'ok'} {i} - {os.path.basename(c.program)} {c.name}: {each} seeds, {len(c.failures)} failed")
    print(f"1..{len(cases)}")
    print(f"# {each * len(cases)} seeds in {took:.0f} s, {each * len(cases) / took:.0f} a second, {options.jobs} at once")
    sys.exit(any(c.failures for c in cases))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: BSD-3-Clause
"""Scenarios in Python, reported as TAP lines, which scripts/test.py counts.

A script names its scenarios with @scenario and ends with main(); its arguments pick some by name. The exit status is 0:
passed, 1: failed, 77: all skipped.
"""
import signal
import sys
import time
import traceback

scenarios = {}


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def scenario(f):
    scenarios[f.__name__] = f
    return f


def check(condition, what):
    if not condition:
        raise Failure(what)


def equal(got, wanted, what):
    check(got == wanted, f"{what}: {got!r} instead of {wanted!r}")


def say(*words):
    for line in " ".join(str(w) for w in words).splitlines():
        print("#", line, flush=True)


def once(make):
    """What all scenarios share, made by the first of them that asks. If it cannot be made, it cannot for all."""
    made = []

    def get():
        if not made:
            try:
                made.append((make(), None))
            except (Failure, Skip) as e:
                made.append((None, e))
        if made[0][1]:
            raise made[0][1]
        return made[0][0]
    return get


def until(condition, seconds, what, every=0.05):
    """Waits until condition() is true and returns its value; what may be a function."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"waited {seconds} s in vain: {what() if callable(what) else what}")
        time.sleep(every)


def run_one(number, name):
    start = time.monotonic()
    title = name.replace("_", " ")
    try:
        scenarios[name]()
    except Skip as e:
        print(f"ok {number} - {title} # SKIP {e}", flush=True)
        return 77
    except Exception as e:
        print(f"not ok {number} - {title}", flush=True)
        say(e if isinstance(e, Failure) else traceback.format_exc())
        return 1
    say(f"{time.monotonic() - start:.1f} s")
    print(f"ok {number} - {title}", flush=True)
    return 0


def main():
    def ended(number, frame):
        sys.exit(1)
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(s, ended)
    names = sys.argv[1:] or list(scenarios)
    print(f"1..{len(names)}", flush=True)
    results = {run_one(i, n) for i, n in enumerate(names, 1)}
    sys.exit(1 if 1 in results else 77 if results == {77} else 0)

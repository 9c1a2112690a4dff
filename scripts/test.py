# SPDX-License-Identifier: BSD-3-Clause
"""Runs all checks and suites and counts their cases. Called by ./test after it has built.

A case is one cmocka test, one TAP line of an end-to-end script, or one check. A program that crashes or runs out of time
is one failed case more.
"""
import argparse
import base64
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAP = re.compile(r"^(not )?ok\b\s*(?:\d+)?\s*(?:- )?(.*?)(\s*#\s*skip\b.*)?$", re.IGNORECASE)


class Count:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], 0

    def line(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {self.skipped} skipped"


def tap_cases(output):
    """(passed, names of failed with what is said of them, skipped)"""
    passed, failed, skipped = 0, [], 0
    explaining = False
    for line in output.splitlines():
        m = TAP.match(line.strip())
        if not m:
            explaining = explaining and line.startswith("# ")
            if explaining:
                failed[-1] += " | " + line[2:][:300]
            continue
        explaining = bool(m.group(1)) and not m.group(3)
        if m.group(3):  # cmocka says "not ok" here too
            skipped += 1
        elif m.group(1):
            failed.append(m.group(2))
        else:
            passed += 1
    return passed, failed, skipped


def count_program(count, build, entry):
    """One line of meson's testlog.json."""
    name = f"{build.name}: {entry['name'].split(' / ')[-1]}"
    passed, failed, skipped = tap_cases(entry.get("stdout") or "")
    result = entry["result"]
    if result == "OK" and not passed and not skipped:
        passed = 1
    if result == "SKIP" and not skipped:
        skipped = 1
    if result not in ("OK", "SKIP", "EXPECTEDFAIL") and not failed:
        failed = [result]
    count.passed += passed
    count.skipped += skipped
    count.failed += [f"{name}: {f}" for f in failed]
    mark = "ok" if not failed else "FAILED"
    print(f"  {mark:<7} {name} ({passed} cases, {entry['duration']:.1f} s)", flush=True)
    if failed:
        print("\n".join("    " + x for x in output_tail(entry)))


def output_tail(entry):
    return ((entry.get("stdout") or "") + (entry.get("stderr") or "")).splitlines()[-40:]


def run_suites(count, build, options, sanitized):
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", SANDIRECT_TEST_LONG="1" if options.long else "0",
               ASAN_OPTIONS="abort_on_error=1:detect_stack_use_after_return=0", UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
    command = ["meson", "test", "-C", str(build), "--no-rebuild", "--timeout-multiplier", "4" if sanitized else "1"]
    if options.quick:
        command += ["--no-suite", "e2e"]
    if not options.long or sanitized:
        command += ["--no-suite", "long"]
    if not options.long and sanitized:
        command += ["--no-suite", "plain"]
    log = build / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    print(f"Suites in {build.name}:", flush=True)
    r = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    entries = [json.loads(x) for x in log.read_text().splitlines()] if log.exists() else []
    for entry in entries:
        count_program(count, build, entry)
    if not entries:
        count.failed.append(f"{build.name}: meson test ran nothing: {r.stderr.strip()}")


def run_check(count, name, command):
    r = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if r.returncode == 77:
        count.skipped += 1
    elif r.returncode:
        count.failed.append(name)
        print("\n".join("    " + x for x in (r.stdout + r.stderr).splitlines()[-40:]))
    else:
        count.passed += 1
    print(f"  {'ok' if r.returncode == 0 else 'skipped' if r.returncode == 77 else 'FAILED':<7} {name}", flush=True)


def run_checks(count, build):
    print("Checks:", flush=True)
    run_check(count, "layers", ["scripts/check-layers", str(build)])
    run_check(count, "headers", ["scripts/check-headers"])
    run_check(count, "format", ["scripts/check-format"])
    run_check(count, "shell syntax", ["bash", "-n", "demo", "test", "scripts/packages.sh"])


def fuzz(target, seconds):
    corpus = target.parent / (target.name + "-corpus")
    corpus.mkdir(exist_ok=True)
    command = [str(target), f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
               f"-artifact_prefix={target.parent}/", str(corpus)]
    seeds = ROOT / "tests" / target.relative_to(target.parents[1]).parent / "seeds" / target.name
    r = subprocess.run(command + ([str(seeds)] if seeds.is_dir() else []), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       text=True, errors="replace", timeout=seconds + 120)
    runs = re.search(r"number_of_executed_units: (\d+)", r.stdout)
    return target, r.returncode, int(runs.group(1)) if runs else 0, r.stdout


def fuzz_findings(output):
    """The lines that say what was found, and the input itself: where the test ran may be gone when it is looked at."""
    lines = output.splitlines()
    first = next((i for i, line in enumerate(lines) if re.search(r"ERROR|SUMMARY|runtime error", line)), len(lines))
    yield from lines[max(0, first - 5):][:60]
    for path in re.findall(r"Test unit written to (\S+)", output):
        yield f"{path}, in base64:"
        yield base64.b64encode(Path(path).read_bytes()).decode()


def run_fuzzers(count, build, seconds):
    targets = sorted(p for p in (build / "tests").rglob("fuzz_*") if p.is_file() and os.access(p, os.X_OK))
    print(f"Fuzz targets, {seconds} s each:", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for target, status, runs, output in pool.map(lambda t: fuzz(t, seconds), targets):
            if status:
                count.failed.append(f"fuzz: {target.name}")
                print("\n".join("    " + x for x in fuzz_findings(output)))
            else:
                count.passed += 1
            print(f"  {'FAILED' if status else 'ok':<7} {target.name} ({runs:,} inputs)", flush=True)
    if not targets:
        count.failed.append("fuzz: no targets were built")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--plain", type=Path)
    p.add_argument("--sanitized", type=Path)
    p.add_argument("--fuzz-build", type=Path)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--long", action="store_true")
    p.add_argument("--fuzz", action="store_true")
    options = p.parse_args()
    count, start = Count(), time.monotonic()

    if options.plain:
        run_checks(count, options.plain)
        run_suites(count, options.plain, options, False)
    if options.sanitized:
        run_suites(count, options.sanitized, options, True)
    if options.fuzz_build:
        run_fuzzers(count, options.fuzz_build, 10 if options.quick else 300 if options.long else 600 if options.fuzz else 20)
    else:
        print("Fuzz targets: clang is not here")
        count.skipped += 1
    print(f"\n{time.monotonic() - start:.0f} s")
    for f in count.failed:
        print(f"FAILED {f}")
    print(count.line())
    sys.exit(1 if count.failed else 0)


if __name__ == "__main__":
    main()

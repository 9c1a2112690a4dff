# SPDX-License-Identifier: BSD-3-Clause
"""What soak.py finds of a planted bug: it has to make the run smaller, and the command that it prints has to fail.

    test_shrink.py SOURCE_ROOT
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from mutations import MUTATIONS, Bench

BUG = "stream: the last byte of an early packet is lost"


def packets(text):
    found = re.search(r"\((\d+) packets, \w+\)", text)
    return int(found.group(1)) if found else 0


def main():
    root = Path(sys.argv[1]).resolve()
    what, file, old, new, _ = next(m for m in MUTATIONS if m[0] == BUG)
    with tempfile.TemporaryDirectory(prefix="sd-shrink-") as directory:
        bench = Bench(root, directory)
        program = bench.link("sim", bench.planted(file, old, new))
        r = subprocess.run([sys.executable, "-B", str(root / "tests/transport/soak.py"), "--seeds", "3", "--case", "test_rough", str(program)],
                           capture_output=True, text=True)
        found = re.findall(r"# \S+, seed (\d+): (.*)\n#   after \d+ smaller runs: (.*)\n#   (.*)", r.stdout)
        print("\n".join("# " + line for line in r.stdout.splitlines()))
        again = [subprocess.run(["env", *command.split()], capture_output=True, text=True) for *_, command in found]
        checks = [
            ("the bug is found", r.returncode == 1 and found),
            ("what is left fails", found and all(x.returncode for x in again)),
            ("it is smaller", found and any(packets(small) < packets(said) for _, said, small, _ in found)),
        ]
    print(f"1..{len(checks)}")
    for i, (name, ok) in enumerate(checks, 1):
        print(f"{'ok' if ok else 'not ok'} {i} - {name}")
    sys.exit(not all(ok for _, ok in checks))


main()

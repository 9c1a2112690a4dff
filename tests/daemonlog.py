# SPDX-License-Identifier: BSD-3-Clause
"""What a daemon logs when SIGUSR1 asks it."""
import re

from tap import until

ANSWER = "frames handed over"


def counts(read, ask):
    """Connections of each engine, and frames that were handed over. read gives the log, ask sends the signal."""
    before = read().count(ANSWER)
    ask()
    until(lambda: read().count(ANSWER) > before, 10, "the daemon tells")
    words = read().rsplit("programs, ", 1)[1]
    return [int(n) for n in re.findall(r"engine \d+: (\d+)", words)], int(re.search(rf"(\d+) {ANSWER}", words)[1])

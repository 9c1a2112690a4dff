# SPDX-License-Identifier: BSD-3-Clause
"""Programs and the daemon are killed and stopped at any moment: no wrong byte, no hang, and nothing left behind.

`./test --long` does it 2,000 times.
"""
import os
import random
import signal
import time
from pathlib import Path

from daemon import PORT, PYTHON, Daemon
from harness import LONG, SLOW, check, main, say, scenario

TIMES = 2000 if LONG else 150
SERVERS, CLIENTS = 3, 5
HANG = 15
CHECKED = str(Path(__file__).with_name("checked.py"))


class Chaos:
    def __init__(self, d):
        self.d, self.rng = d, random.Random(time.time_ns())
        self.counts = dict.fromkeys(("clients killed", "servers killed", "daemons killed", "stopped"), 0)
        self.servers = [self.server(i) for i in range(SERVERS)]
        d.until_listeners(SERVERS)
        self.clients = [self.client(i) for i in range(CLIENTS)]

    def server(self, i):
        return self.d.run(PYTHON, CHECKED, "serve", PORT + i, name=f"server {i}")

    def client(self, i):
        return self.d.run(PYTHON, CHECKED, "call", PORT + i % SERVERS, HANG * SLOW, name=f"client {i}")

    def replace(self, programs, make):
        i = self.rng.randrange(len(programs))
        programs[i].kill()
        self.d.programs.remove(programs[i])
        programs[i] = make(i)

    def stop_somebody(self):
        pids = [p.pid for p in (*self.servers, *self.clients)] + [self.d.pid]
        pid = self.rng.choice(pids)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self.rng.random() * 0.05)
        os.kill(pid, signal.SIGCONT)

    def once(self):
        dice = self.rng.random()
        time.sleep(self.rng.random() * 0.08)
        if dice < 0.05:
            self.counts["daemons killed"] += 1
            self.d.kill()
            time.sleep(self.rng.random() * 0.05)
            self.d.begin()
        elif dice < 0.35:
            self.counts["clients killed"] += 1
            self.replace(self.clients, self.client)
        elif dice < 0.55:
            self.counts["servers killed"] += 1
            self.replace(self.servers, self.server)
        else:
            self.counts["stopped"] += 1
            self.stop_somebody()
        for p in (*self.servers, *self.clients):
            check(p.running(), f"{p} has ended: {p.output()}")


@scenario
def killed_and_stopped_at_any_moment():
    with Daemon() as d:
        chaos = Chaos(d)
        for _ in range(TIMES):
            chaos.once()
        say(f"{chaos.counts}")
        # They find each other again.
        time.sleep(1)
        d.made()
        time.sleep(2)
        d.check_made(1)


main()

# SPDX-License-Identifier: BSD-3-Clause
"""The ends of a site.

    site.py fill                    the table that site_app.py reads
    site.py ask ADDRESS PORT N      N requests by four threads; says how many were right, and how often Redis counted
"""
import http.client
import json
import sys
import threading

from site_app import ROWS, database, text_of

THREADS = 4


def fill():
    with database().cursor() as c:
        c.execute("create table t (id int primary key, v text)")
        for i in range(1, ROWS + 1):
            c.execute("insert into t values (%s, %s)", (i, text_of(i)))


class Asker(threading.Thread):
    def __init__(self, address, port, first, count):
        super().__init__()
        self.address, self.first, self.count = (address, port), first, count
        self.right, self.hits, self.failures = 0, set(), []

    def run(self):
        c = http.client.HTTPConnection(*self.address, timeout=20)
        for n in range(self.count):
            i = (self.first + n) % ROWS + 1
            try:
                c.request("GET", f"/?i={i}")
                r = c.getresponse()
                got, text, hit = r.read().split()
                if r.status != 200 or (int(got), text.decode()) != (i, text_of(i)):
                    raise ValueError(f"{r.status} {got} {text}")
                self.right += 1
                self.hits.add(int(hit))
            except Exception as e:
                self.failures.append(repr(e))
                c.close()


def ask(address, port, count):
    askers = [Asker(address, port, i * count // THREADS, count // THREADS) for i in range(THREADS)]
    for a in askers:
        a.start()
    for a in askers:
        a.join()
    failures = [f for a in askers for f in a.failures]
    print(json.dumps({"right": sum(a.right for a in askers), "hits": len(set().union(*(a.hits for a in askers))),
                      "failed": len(failures), "failures": failures[:5]}))


if sys.argv[1] == "fill":
    fill()
else:
    ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

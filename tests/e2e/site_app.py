# SPDX-License-Identifier: BSD-3-Clause
"""The middle tier of a site, for any WSGI server: a row of PostgreSQL's and a counter of Redis's for each request."""
import hashlib
import os
from urllib.parse import parse_qs

import psycopg2
import redis

ROWS = 1000


def text_of(i):
    return hashlib.md5(str(i).encode()).hexdigest()


def database():
    db = psycopg2.connect(host=os.environ["SITE_DATA"], port=int(os.environ["SITE_PORT"]), user="pg", dbname="postgres")
    db.autocommit = True
    return db


class Data:
    """Connected when it is first used: after the server has forked."""

    def __init__(self):
        self.db = None

    def get(self, i):
        if not self.db:
            self.db = database()
            self.redis = redis.Redis(host=os.environ["SITE_DATA"], port=int(os.environ["SITE_PORT"]) + 1)
        with self.db.cursor() as c:
            c.execute("select v from t where id = %s", (i,))
            row = c.fetchone()[0]
        return f"{i} {row} {self.redis.incr('hits')}\n"


data = Data()


def app(env, start):
    body = data.get(int(parse_qs(env["QUERY_STRING"])["i"][0])).encode()
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

# SPDX-License-Identifier: BSD-3-Clause
"""Stock servers that fork, reload and hand over, with clients on the same host, all over shared memory."""
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from daemon import ADDRESS, USER, Daemon
from harness import KERNEL_ONLY, SANITIZED, Skip, check, equal, main, need, say, scenario, until

PORT = 7650


def directory(d, name):
    path = Path(d.dir, name)
    path.mkdir(mode=0o700)
    shutil.chown(path, USER)
    return path


# --- nginx ---

NGINX = """
worker_processes 4; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
server {{ listen {address}:{port}{options}; root {dir}; }} }}
"""


def reloads(options):
    """Three times, while clients keep calling; each request is a connection of its own."""
    need("nginx")
    with Daemon() as d, d.no_segments():
        www = directory(d, "nginx")
        Path(www, "file").write_bytes(os.urandom(20000))
        os.chmod(www / "file", 0o644)
        Path(www, "nginx.conf").write_text(NGINX.format(dir=www, address=ADDRESS, port=PORT, options=options))
        os.chmod(www / "nginx.conf", 0o644)
        nginx = d.run("nginx", "-c", www / "nginx.conf", "-e", www / "error.log", "-g", "daemon off;")
        nginx.until_listening(PORT)
        d.until_listeners(1)
        client = d.sharer("requests", PORT, "/file", 20000, stdin=subprocess.PIPE)
        load = None
        if shutil.which("wrk") and not SANITIZED:
            # One that ends before it has its answer is counted as bad.
            d.allow_bad = 2
            load = d.run("wrk", "-t", 2, "-c", 20, "-d", "5s", "-H", "Connection: close", f"http://{ADDRESS}:{PORT}/file")
        for _ in range(3):
            time.sleep(1)
            nginx.signal(signal.SIGHUP)
        time.sleep(1)
        client.tell("end")
        client.wait(10)
        got = client.json()
        say(got)
        equal(got["failed"], 0, f"failed requests: {got['failures']}")
        check(got["good"] > 50, "few requests")
        total = got["good"]
        if load:
            load.wait(15)
            text = load.output()
            check("Socket errors" not in text and "Non-2xx" not in text, text)
            total += int(text.split(" requests in")[0].split()[-1])
        d.check_made(total)
        nginx.signal(signal.SIGQUIT)
        nginx.wait(10)


@scenario
def nginx_reloads():
    reloads("")


@scenario
def nginx_reloads_with_reuseport():
    reloads(" reuseport")


# --- PostgreSQL ---

def postgres_tools():
    if shutil.which("initdb"):
        return Path(shutil.which("initdb")).resolve().parent
    need("pg_config")
    tools = Path(subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip())
    if not os.access(tools / "initdb", os.X_OK):
        raise Skip("initdb is not installed")
    return tools


def start_postgres(d, tools):
    data = directory(d, "data")
    d.finish(tools / "initdb", "-D", data, "-A", "trust", "-U", "pg", "-N", how="exec", seconds=60)
    with open(data / "postgresql.conf", "a") as f:
        f.write(f"listen_addresses = '{ADDRESS}'\nport = {PORT}\nunix_socket_directories = '{data}'\n"
                "fsync = off\nsynchronous_commit = off\n")
    p = d.run(tools / "postgres", "-D", data, name="postgres")
    p.until_listening(PORT)
    until(lambda: not subprocess.run([tools / "pg_isready", "-q", "-h", data, "-p", str(PORT)]).returncode, 20, "PostgreSQL")
    d.until_listeners(1)
    return p


@scenario
def postgresql_with_pgbench():
    """A backend for each connection, forked by the postmaster that has accepted it."""
    if SANITIZED:
        raise Skip("postgres hangs with the sanitizer, also alone")
    tools = postgres_tools()
    with Daemon() as d:
        server = start_postgres(d, tools)

        def bench(*words):
            more = [] if "-i" in words else ["-n"]
            text = d.finish(tools / "pgbench", "-h", ADDRESS, "-p", PORT, "-U", "pg", *words, *more, "postgres", seconds=30)
            say(*[line for line in text.splitlines() if line.startswith(("tps", "number of transactions actually"))])
            return text

        with d.no_segments():
            bench("-i", "-q")
            d.check_made(1)
            check("number of failed transactions: 0 " in bench("-S", "-c", 8, "-j", 2, "-t", 500), "failed transactions")
            d.check_made(8)
            check("number of failed transactions: 0 " in bench("-c", 4, "-j", 2, "-t", 200), "failed transactions")
            d.check_made(4)
            check("number of failed transactions: 0 " in bench("-S", "-C", "-c", 4, "-t", 30), "failed transactions")
            d.check_made(120)

            def ask(sql):
                return d.finish(tools / "psql", "-h", ADDRESS, "-p", PORT, "-U", "pg", "-Atc", sql, "postgres").strip()
            # What tpcb does is a sum that must be right in four tables.
            sums = [ask(f"select sum({c}) from pgbench_{t}") for c, t in
                    (("abalance", "accounts"), ("bbalance", "branches"), ("tbalance", "tellers"), ("delta", "history"))]
            equal(len(set(sums)), 1, f"different sums {sums}")
            equal(ask("select count(*) from pgbench_history"), "800", "transactions")
            # A long result, and a backend that is ended in the middle of one.
            equal(len(ask("select string_agg(repeat('x', 1000), '') from generate_series(1, 3000)")), 3000000, "bytes")
            p = d.run(tools / "psql", "-h", ADDRESS, "-p", PORT, "-U", "pg", "-Atc", "select pg_sleep(60)", "postgres")
            d.until_san(p)
            equal(ask("select pg_terminate_backend(pid) from pg_stat_activity where query like 'select pg_sleep%' "
                      "and pid <> pg_backend_pid()"), "t", "pg_terminate_backend")
            p.wait(5, status=None)
            check("terminating connection due to administrator command" in p.errors(), p.errors())
            server.signal(signal.SIGINT)
            server.wait(10)


# --- Redis ---

def redis(port, words, refusal=None):
    """Replies of the server, over the kernel's TCP: this script is no part of the test. No error but "refusal" is allowed."""
    with socket.create_connection((ADDRESS, port), timeout=10) as s, s.makefile("rb") as f:
        s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words)))
        line = f.readline().rstrip().decode()
        if line[0] == "$":
            return f.read(int(line[1:])).decode() if line[1] != "-" else None
        check(line[0] != "-" or line[1:] == refusal, line)
        return line[1:]


def starts_saving(port):
    """Refused while the replica's copy is in the making ("schedule" helps with a rewrite of the log only)."""
    return "Background saving started" in redis(port, ["bgsave"], "ERR Background save already in progress")


def start_redis(d, port, *words):
    p = d.run("redis-server", "--port", port, "--bind", ADDRESS, "--dir", directory(d, f"redis{port}"), "--save", "",
              "--enable-debug-command", "local", *words)
    return p.until_listening(port)


@scenario
def redis_with_bgsave_and_a_replica():
    need("redis-server", "redis-benchmark")
    with Daemon() as d:
        master = start_redis(d, PORT, "--repl-diskless-sync-delay", 0)
        d.until_listeners(1)
        load = d.run("redis-benchmark", "-h", ADDRESS, "-p", PORT, "-t", "set", "-r", 5000, "-n", 20000, "-c", 10,
                     "-d", 1000)
        replica = start_redis(d, PORT + 1, "--replicaof", f"{ADDRESS} {PORT}")
        for _ in range(2):
            until(lambda: starts_saving(PORT), 10, "bgsave")
            until(lambda: "rdb_bgsave_in_progress:0" in redis(PORT, ["info", "persistence"]), 10, "the end of bgsave")
            check("rdb_last_bgsave_status:ok" in redis(PORT, ["info", "persistence"]), "bgsave has failed")
        load.wait(15)
        until(lambda: "master_link_status:up" in redis(PORT + 1, ["info", "replication"]), 10, "the replica's link")
        equal(redis(PORT, ["set", "last", "word"]), "OK", "set")
        until(lambda: redis(PORT + 1, ["get", "last"]) == "word", 10, "the last word at the replica")
        check(int(redis(PORT + 1, ["dbsize"])) > 1000, "keys")
        equal(redis(PORT + 1, ["debug", "digest"]), redis(PORT, ["debug", "digest"]), "digest")
        rows = d.until_san(replica)
        check(KERNEL_ONLY or any(r["peer"].endswith(f":{PORT}") for r in rows), f"{rows}")
        d.check_made(11)
        # The replica finds its master again.
        master.stop()
        until(lambda: "master_link_status:down" in redis(PORT + 1, ["info", "replication"]), 10, "the link's end")
        shutil.rmtree(f"{d.dir}/redis{PORT}")
        start_redis(d, PORT, "--repl-diskless-sync-delay", 0)
        until(lambda: "master_link_status:up" in redis(PORT + 1, ["info", "replication"]), 15, "the replica's link")
        d.check_made(1)


# --- OpenSSH ---

def start_sshd(d, listeners):
    """As root: without rights it finds every account locked. The shell is of no matter to its own sftp server."""
    keys = directory(d, "ssh")
    for name in ("host", "user"):
        d.finish("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name, how="exec")
    shutil.copy(keys / "user.pub", keys / "authorized")
    os.chmod(keys / "authorized", 0o644)
    key = (keys / "host.pub").read_text().split()
    (keys / "known").write_text(f"[{ADDRESS}]:{PORT} {key[0]} {key[1]}\n")
    (keys / "sshd").write_text(f"ListenAddress {ADDRESS}:{PORT}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\n"
                               f"PidFile none\nUsePAM no\nStrictModes no\nSubsystem sftp internal-sftp\nUseDNS no\n")
    (keys / "ssh").write_text(f"Host *\nIdentityFile {keys}/user\nIdentitiesOnly yes\nUserKnownHostsFile {keys}/known\n"
                              f"User {USER}\nPort {PORT}\nBatchMode yes\n")
    for name in ("known", "sshd", "ssh"):
        os.chmod(keys / name, 0o644)
    p = d.run(shutil.which("sshd"), "-D", "-e", "-f", keys / "sshd", name="sshd", user="root")
    p.until_listening(PORT)
    d.until_listeners(listeners)
    return p, keys / "ssh"


def copies(d, listeners):
    need("sshd", "ssh-keygen", "scp", "sftp")
    if not os.access(pwd.getpwnam(USER).pw_shell, os.X_OK):
        raise Skip(f"{USER} has no shell")
    server, config = start_sshd(d, listeners)
    data = os.urandom(8 << 20)
    Path(d.dir, "there").write_bytes(data)
    os.chmod(f"{d.dir}/there", 0o644)
    for i in range(2):
        d.finish("scp", "-q", "-F", config, f"{d.dir}/there", f"{ADDRESS}:{d.dir}/copy{i}")
        d.finish("scp", "-q", "-F", config, f"{ADDRESS}:{d.dir}/copy{i}", f"{d.dir}/back{i}")
        check(Path(d.dir, f"back{i}").read_bytes() == data, "other bytes")
    p = d.run("sftp", "-q", "-F", config, "-b", "-", ADDRESS, stdin=subprocess.PIPE)
    p.tell(f"get {d.dir}/copy0 {d.dir}/got\nput {d.dir}/there {d.dir}/put\nls {d.dir}")
    p.process.stdin.close()
    p.wait(15)
    check(Path(d.dir, "got").read_bytes() == data == Path(d.dir, "put").read_bytes(), "other bytes")
    server.stop()


@scenario
def openssh_copies():
    """sshd executes itself for each connection, and its child confines itself before it has read a byte."""
    if SANITIZED:
        raise Skip("a sanitizer's calls are not allowed in sshd's sandbox")
    with Daemon() as d, d.no_segments():
        copies(d, 1)
        d.check_made(5)


@scenario
def openssh_copies_by_rule():
    """What cannot be on the SAN is told to stay with TCP."""
    if SANITIZED:
        raise Skip("a sanitizer's calls are not allowed in sshd's sandbox")
    with Daemon("[rules]", "rule = tcp program=sshd") as d:
        copies(d, 0)
        d.check_made(0, 0)


main()

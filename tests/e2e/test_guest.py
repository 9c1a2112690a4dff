# SPDX-License-Identifier: BSD-3-Clause
"""Programs are as they would be without Sandirect: good guests in C, and stock ones that fork, daemonize and run short."""
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from harness import (GUEST, KERNEL_ONLY, PYTHON, SANITIZED, Lab, Skip, check, equal, main, need, say, scenario, until)

PORT = 7100


def echo_server(lab, host="h1", how="run"):
    return lab.peer(host, "serve", "0.0.0.0", PORT, how=how).until_listening(PORT)


def guest(lab, command, how="run", args=(), **popen):
    return getattr(lab, how)("h2", GUEST, command, lab.address("h1"), PORT, *args, stdin=subprocess.PIPE, **popen)


def finish(p, seconds=30):
    p.tell("go")
    p.wait(seconds)
    check(p.lines()[-1] == "done", f"{p} has not come to its end")


def as_without(lab, command, look=None, **popen):
    """Runs a command of the guest on kernel TCP and over the SAN; returns what it printed in both."""
    plain = echo_server(lab, how="exec")
    p = guest(lab, command, "exec", **popen)
    p.until_line("^holding", 60)
    finish(p)
    wanted = p.output()
    plain.kill()
    server = echo_server(lab)
    p = guest(lab, command, **popen)
    p.until_line("^holding", 60)
    (look or lab.until_san)(p)
    finish(p)
    server.kill()
    return wanted, p.output()


def same_lines(wanted, got):
    for a, b in zip(wanted.splitlines(), got.splitlines()):
        equal(b, a, "under Sandirect")
    equal(len(got.splitlines()), len(wanted.splitlines()), "lines")


@scenario
def everything_a_process_can_see_is_unchanged():
    """Affinity, signal masks and handlers, descriptors also of children, limits, timers and the rest."""
    with Lab() as lab:
        with open("/etc/passwd") as inherited:
            def one_cpu():
                os.sched_setaffinity(0, {1})
                os.dup2(inherited.fileno(), 30)
                os.nice(3)
            same_lines(*as_without(lab, "state", preexec_fn=one_cpu, close_fds=False))


@scenario
def closefrom():
    with Lab() as lab:
        same_lines(*as_without(lab, "closefrom"))


@scenario
def signals():
    with Lab() as lab:
        same_lines(*as_without(lab, "signals"))


@scenario
def pipes_and_files():
    """splice and sendfile, also as the first that happens on a connection."""
    with Lab() as lab:
        same_lines(*as_without(lab, "transfer"))


@scenario
def children():
    with Lab() as lab:
        wanted, got = as_without(lab, "forks")
        if not KERNEL_ONLY:
            equal(re.search("^child (.*)", got, re.M).group(1), "EBADF", "a child's send on its parent's connection")
        same_lines(wanted.replace("child sent", "child EBADF"), got.replace("child sent", "child EBADF"))


@scenario
def few_descriptors():
    """With RLIMIT_NOFILE 64: over the SAN, or over TCP with the reason."""
    with Lab() as lab:
        def look(p):
            rows = until(lambda: lab.connections(p) or KERNEL_ONLY, 10, "a connection")
            for r in rows if not KERNEL_ONLY else ():
                check((r["path"], r["reason"]) in (("SAN", "SAN"), ("TCP", "LIMIT_NOFILE")), f"{r}")
                say(f"{r['path']} {r['reason']}")
        for limit in (64, 20):
            same_lines(*as_without(lab, "state", look,
                                   preexec_fn=lambda n=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))))


@scenario
def little_address_space():
    if SANITIZED:
        raise Skip("its shadow memory does not fit")
    with Lab() as lab:
        def look(p):
            rows = until(lambda: lab.connections(p) or KERNEL_ONLY, 10, "a connection")
            for r in rows if not KERNEL_ONLY else ():
                check((r["path"], r["reason"]) in (("SAN", "SAN"), ("TCP", "LIMIT_AS")), f"{r}")
                say(f"{r['path']} {r['reason']}")
        for megabytes in (256, 30):
            size = megabytes << 20
            same_lines(*as_without(lab, "state", look,
                                   preexec_fn=lambda n=size: resource.setrlimit(resource.RLIMIT_AS, (n, n))))


# --- stock programs ---

def redis_cli(lab, *words, host="h2"):
    p = lab.exec(host, "redis-cli", "-h", lab.address("h1"), "-p", PORT, *words)
    p.wait()
    return p.output().strip()


@scenario
def redis_with_bgsave():
    """It forks to save while connections on the SAN are busy."""
    need("redis-server", "redis-benchmark", "redis-cli")
    with Lab() as lab:
        server = lab.run("h1", "redis-server", "--port", PORT, "--bind", lab.address("h1"), "--save", "", "--dir", lab.dir,
                         "--protected-mode", "no").until_listening(PORT)
        load = lab.run("h2", "redis-benchmark", "-h", lab.address("h1"), "-p", PORT, "-t", "set,get", "-r", 10000, "-n",
                       100000000, "-c", 10, "-d", 100, "--csv")
        lab.until_san(load, count=10)
        for _ in range(3):
            before = int(redis_cli(lab, "lastsave"))
            equal(redis_cli(lab, "bgsave"), "Background saving started", "bgsave")
            until(lambda: "rdb_bgsave_in_progress:0" in redis_cli(lab, "info", "persistence"), 20, "the end of bgsave")
            check("rdb_last_bgsave_status:ok" in redis_cli(lab, "info", "persistence"), "bgsave has failed")
            check(int(redis_cli(lab, "lastsave")) >= before, "lastsave")
            time.sleep(0.2)
        check(load.running(), f"redis-benchmark has ended: {load.output()}{load.errors()}")
        load.kill()
        check(os.path.getsize(f"{lab.dir}/dump.rdb") > 1000, "dump.rdb")
        if not KERNEL_ONLY:
            check(lab.stat(server)["san_total"] >= 10, "connections over the SAN")
        equal(redis_cli(lab, "dbsize").isdigit(), True, "dbsize")
        server.stop()


NGINX = """
daemon on; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log; user root;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
server {{ listen {address}:{port} reuseport; root {dir}/www; sendfile on; }} }}
"""


def fetch(lab, how):
    """The file that nginx serves."""
    url = f"http://{lab.address('h1')}:{PORT}/file"
    p = getattr(lab, how)("h2", PYTHON, "-c", "import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])", url,
                          f"{lab.dir}/got")
    p.wait()
    return Path(lab.dir, "got").read_bytes()


@scenario
def nginx_as_a_daemon():
    """It forks twice and execs nothing; its worker serves over the SAN, also files by sendfile."""
    need("nginx")
    with Lab() as lab:
        os.mkdir(f"{lab.dir}/www")
        data = os.urandom(3 << 20)
        Path(lab.dir, "www", "file").write_bytes(data)
        Path(lab.dir, "nginx.conf").write_text(NGINX.format(dir=lab.dir, address=lab.address("h1"), port=PORT))
        nginx = lab.run("h1", "nginx", "-c", f"{lab.dir}/nginx.conf", "-e", f"{lab.dir}/error.log")
        nginx.wait()
        pid = int(until(lambda: Path(lab.dir, "nginx.pid").exists() and Path(lab.dir, "nginx.pid").read_text(), 10, "nginx.pid"))
        try:
            for how in ("run", "exec"):
                for _ in range(3):
                    check(fetch(lab, how) == data, f"{how}: other bytes")
            workers = [p for p in lab.stat() if p["program"] == "nginx" and p["san_total"]] if not KERNEL_ONLY else []
            say(f"workers: {[(p['pid'], p['san_total'], p['tcp_total']) for p in workers]}")
            check(KERNEL_ONLY or workers and workers[0]["san_total"] >= 3 and workers[0]["pid"] != pid, "no worker on the SAN")
            # A new worker takes over.
            os.kill(pid, 1)
            time.sleep(1)
            check(fetch(lab, "run") == data, "other bytes after SIGHUP")
        finally:
            os.kill(pid, 15)
        until(lambda: not os.path.exists(f"/proc/{pid}"), 10, "nginx's end")


SUBPROCESS = r"""
import socket, subprocess, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def echo(data):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        got += s.recv(65536)
    assert got == data
for i in range(5):
    echo(b"a" * 5000)
    assert subprocess.run(["cat"], input=b"text", capture_output=True, check=True).stdout == b"text"
    assert subprocess.check_output("echo $((1+2))", shell=True) == b"3\n"
    p = subprocess.Popen(["sort"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=lambda: None, close_fds=True)
    assert p.communicate(b"b\na\n")[0] == b"a\nb\n" and p.returncode == 0
    assert subprocess.run(["sh", "-c", "exit 7"], start_new_session=True).returncode == 7
    echo(b"b" * 5000)
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, range(-50, 0)) == list(range(50, 0, -1))
echo(b"c" * 5000)
print("holding", flush=True)
sys.stdin.readline()
echo(b"d" * 5000)
print("done", flush=True)
"""


@scenario
def python_with_subprocesses():
    with Lab() as lab:
        echo_server(lab)
        p = lab.run("h2", PYTHON, "-c", SUBPROCESS, lab.address("h1"), PORT, stdin=subprocess.PIPE)
        p.until_line("^holding", 60)
        lab.until_san(p)
        finish(p)


main()

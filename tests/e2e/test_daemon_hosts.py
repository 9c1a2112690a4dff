# SPDX-License-Identifier: BSD-3-Clause
"""Programs of several hosts, each with a daemon that has the host's port."""
import json
import os
import re
import signal
import subprocess
from pathlib import Path

from harness import KERNEL_ONLY, LONG, PYTHON, SANITIZED, SLOW, Lab, Skip, check, equal, main, need, say, scenario, until

PORT = 7700
MIB = 1 << 20
REQUESTS = 100_000 if LONG else 2000
SITE = str(Path(__file__).with_name("site.py"))
SYSTEM_PYTHON = "/usr/bin/python3"  # has the distribution's modules


def talk(lab, size):
    """Several programs of either host at once, which embedded ports do not carry."""
    servers = []
    for i, host in enumerate(("h1", "h1", "h2")):
        servers.append(lab.peer(host, "serve", lab.address(host), PORT + i))
        servers[-1].until_listening(PORT + i, san=False)
    clients = [lab.peer(host, "ask", lab.address(f"h{1 + (i > 1)}"), PORT + i, "--times", 3, "--bytes", size)
               for i in range(3) for host in ("h1", "h2")]
    for p in clients:
        p.wait(60)
        check(p.output().count('"same": true') == 3, f"{p}: {p.output()}")
    for p in servers:
        if not KERNEL_ONLY:
            found = lab.stat(p)["by_reason"]
            check(found.get("SAN") == 6 and len(found) == 1, f"connections of {p}: {found}")


@scenario
def several_programs():
    with Lab(mode="daemon") as lab, lab.no_segments("h1", "h2"):
        talk(lab, MIB)


@scenario
def several_programs_over_udp():
    with Lab("udp", mode="daemon", loss="0.5%", reorder="1%") as lab:
        talk(lab, MIB // 4)


@scenario
def killed_on_the_other_host():
    """A peer's end is noticed, whichever it is, and new connections are made at once."""
    with Lab(mode="daemon") as lab:
        for i in range(3):
            server = lab.peer("h1", "serve", lab.address("h1"), PORT + i).until_listening(PORT + i, san=False)
            client = lab.peer("h2", "ask", lab.address("h1"), PORT + i, "--hold", "--bytes", 100000, stdin=subprocess.PIPE)
            client.until_line("holding")
            lab.until_san(client)
            victim, other = (server, client) if i % 2 else (client, server)
            victim.kill()
            if other is client:
                client.tell("go")
                client.wait(15, status=None)
            else:
                until(lambda: not lab.connections(server, role="server"), 15, "the server's connection is gone")
                server.signal(signal.SIGTERM)


@scenario
def a_killed_daemon_is_no_end_of_file():
    """What a program had received by then looks complete only if it is."""
    if KERNEL_ONLY:
        raise Skip("there is no daemon")
    receive = "import socket, sys\ns = socket.create_connection((sys.argv[1], int(sys.argv[2])))\nn = 0\n" \
              "try:\n  while b := s.recv(1000):\n    n += len(b)\n    print(n, flush=True)\n  print('end')\n" \
              "except OSError as e:\n  print(e.errno)"
    send = "import socket, sys\ns = socket.create_server((sys.argv[1], int(sys.argv[2])))\nc = s.accept()[0]\n" \
           "c.sendall(b'x' * 1000)\nsys.stdin.read()"
    with Lab(mode="daemon") as lab:
        for i in range(3):
            server = lab.run("h1", PYTHON, "-c", send, lab.address("h1"), PORT + i, stdin=subprocess.PIPE)
            server.until_listening(PORT + i, san=False)
            client = lab.run("h2", PYTHON, "-c", receive, lab.address("h1"), PORT + i)
            client.until_line("^1000$")
            lab.until_san(client)
            lab.restart_daemon("h2")
            client.wait(15)
            equal(client.lines()[-1], "104", "how the connection ended")
            server.signal(signal.SIGTERM)


@scenario
def closed_here_and_open_there():
    """Who has closed does not keep what it had for as long as the other end likes."""
    if KERNEL_ONLY:
        raise Skip("there is no daemon")
    serve = "import socket, sys\ns = socket.create_server((sys.argv[1], int(sys.argv[2])))\n" \
            "while True:\n  c = s.accept()[0]\n  c.recv(10)\n  c.close()"
    keep = "import socket, sys\nk = []\nfor _ in range(20):\n" \
           "  k.append(socket.create_connection((sys.argv[1], int(sys.argv[2]))))\n  k[-1].sendall(b'x')\n" \
           "  assert not k[-1].recv(1)\nprint('all', flush=True)\nsys.stdin.read()"
    with Lab("udp", mode="daemon") as lab:
        daemon = lab.restart_daemon("h1")

        def connections():
            told = len(re.findall(" connections; ", daemon.errors()))
            daemon.signal(signal.SIGUSR1)
            until(lambda: len(re.findall(" connections; ", daemon.errors())) > told, 10, "the daemon tells")
            return int(re.findall(r"(\d+) connections; ", daemon.errors())[-1])
        lab.run("h1", PYTHON, "-c", serve, lab.address("h1"), PORT).until_listening(PORT, san=False)
        client = lab.run("h2", PYTHON, "-c", keep, lab.address("h1"), PORT, stdin=subprocess.PIPE)
        client.until_line("all")
        equal(lab.stat(client)["by_reason"], {"SAN": 20}, "how they went")
        until(lambda: not connections(), 15, lambda: f"{connections()} connections are kept", every=0.5)
        check(client.running(), "the other end is open")


@scenario
def refused_again_and_again():
    """What is known of a host already is told as fast as what has to be asked for."""
    with Lab(mode="daemon") as lab:
        tries = "import socket, sys, time\nfor _ in range(6):\n  s, t = socket.socket(), time.time()\n" \
                "  e = s.connect_ex((sys.argv[1], int(sys.argv[2])))\n  print(e, time.time() - t, flush=True)\nsys.stdin.read()"
        client = lab.run("h1", PYTHON, "-c", tries, lab.address("h2"), PORT, stdin=subprocess.PIPE)
        client.until_line(r"(.*\n){6}")
        answers = [line.split() for line in client.lines()]
        check(all(e == "111" and float(t) < 0.5 * SLOW for e, t in answers), f"{answers}")
        if not KERNEL_ONLY:
            equal(lab.stat(client)["by_reason"], {"PEER_NO_LISTENER": 6}, "why they went over TCP")
        # Somebody listens now, which is announced where there is a broadcast.
        lab.peer("h2", "serve", lab.address("h2"), PORT).until_listening(PORT, san=False)
        lab.forgets()
        lab.until_san(lab.peer("h1", "ask", lab.address("h2"), PORT, "--hold", stdin=subprocess.PIPE))


@scenario
def a_silent_host_is_waited_for():
    """For longer than a daemon that does not answer: this one will."""
    with Lab("udp", mode="daemon") as lab:
        conf = Path(lab.daemon_config("h1"))
        # The sanitizers' tests have another one there.
        text = re.sub(r"^find_timeout.*\n", "", conf.read_text(), flags=re.M)
        conf.write_text("[global]\nfind_timeout = 2s\n" + text)
        lab.restart_daemon("h1")
        lab.peer("h2", "serve", lab.address("h2"), PORT, how="exec").until_listening(PORT, san=False)
        near = lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT, san=False)
        silent = lab.daemon_pid("h2")
        os.kill(silent, signal.SIGSTOP)
        try:
            far = lab.peer("h1", "ask", lab.address("h2"), PORT, "--hold", stdin=subprocess.PIPE)
            far.until_line("holding")
        finally:
            os.kill(silent, signal.SIGCONT)
        took = json.loads(far.lines()[0])["connected"]
        if not KERNEL_ONLY:
            check(2 <= took <= 4 * SLOW, f"connected after {took} s")
            equal(lab.stat(far)["by_reason"], {"PEER_SILENT": 1}, "the connection to the silent host")
        lab.peer("h1", "ask", lab.address("h1"), PORT).wait(10)
        check(KERNEL_ONLY or lab.stat(near)["by_reason"] == {"SAN": 1}, f"inside the host: {lab.stat(near)}")


@scenario
def memory_is_charged():
    """What a daemon may have to buffer for a user's connections with other hosts has a limit, beyond which they are TCP's."""
    with Lab("udp", mode="daemon") as lab:
        pid = lab.daemon_pid("h2")
        os.kill(pid, signal.SIGTERM)
        until(lambda: lab.daemon_pid("h2") is None, 10, "the daemon has ended")
        lab.start_daemon("h2", "--max-memory", "64M").until_error("ready at")
        lab.peer("h1", "serve", lab.address("h1"), PORT).until_listening(PORT, san=False)
        p = lab.peer("h2", "ask", lab.address("h1"), PORT, "--hold", "--times", 700, "--bytes", 2000, stdin=subprocess.PIPE)
        p.until_line("holding", 60)
        if not KERNEL_ONLY:
            found = lab.stat(p)["by_reason"]
            say(f"{found}")
            equal(set(found), {"SAN", "LIMIT_USER"}, "how they went")
            check(100 < found["SAN"] < 500, f"{found}")
        p.tell("go")
        p.wait(60)
        equal(p.output().count('"same": true'), 700, "answers")
        # It was given back.
        p = lab.peer("h2", "ask", lab.address("h1"), PORT, "--times", 50, "--hold", stdin=subprocess.PIPE)
        p.until_line("holding", 60)
        check(KERNEL_ONLY or lab.stat(p)["by_reason"] == {"SAN": 50}, f"{lab.stat(p)}")


# --- the kernel beside ---

def pings(lab, count=5):
    """How many of so many are answered."""
    p = lab.exec("h1", "ping", "-c", count, "-i", 0.1, "-W", 1, lab.address("h2"))
    p.wait(20, status=None)
    return int(p.output().split(" received")[0].split()[-1])


@scenario
def kernel_shares_the_port():
    """Ping and kernel TCP go by the SAN's wire, also while the SAN is busy, and again when the daemon is."""
    need("ping")
    with Lab(mode="daemon", miniport=True) as lab:
        until(lambda: pings(lab, 1) == 1, 10, "the first ping is answered")
        server = lab.peer("h2", "serve", lab.address("h2"), PORT).until_listening(PORT, san=False)
        beside = lab.peer("h2", "serve", lab.address("h2"), PORT + 1, how="exec").until_listening(PORT + 1, san=False)
        busy = lab.peer("h1", "ask", lab.address("h2"), PORT, "--times", 20, "--bytes", MIB)
        kernel = lab.peer("h1", "ask", lab.address("h2"), PORT + 1, "--times", 5, "--bytes", MIB, how="exec")
        equal(pings(lab), 5, "answered pings")
        for p in (busy, kernel):
            p.wait(60)
            check('"same": false' not in p.output(), f"{p}: {p.output()}")
        if not KERNEL_ONLY:
            equal(lab.stat(server)["by_reason"], {"SAN": 20}, "how the connections came")
        beside.stop()
        # The interface and its addresses outlive the daemon.
        lab.restart_daemon("h2")
        until(lambda: pings(lab, 1) == 1, 10, "a ping is answered by the kernel of the new daemon")


# --- a site of three tiers ---

def start_site(lab):
    pg = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not pg:
        raise Skip("postgresql is not installed")
    need("nginx", "gunicorn", "redis-server", "setpriv")
    h = {i: lab.address(f"h{i}") for i in (1, 2, 3)}
    data = f"{lab.dir}/pg"
    os.mkdir(data)
    os.chmod(lab.dir, 0o755)
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    subprocess.run(["chown", "nobody", data], check=True)
    subprocess.run([*user, str(pg[-1].with_name("initdb")), "-D", data, "-A", "trust", "-U", "pg"], check=True,
                   capture_output=True, cwd="/")
    Path(data, "postgresql.conf").write_text(f"listen_addresses = '{h[3]}'\nport = {PORT}\nunix_socket_directories = '{data}'\n"
                                             "fsync = off\n")
    with open(f"{data}/pg_hba.conf", "a") as f:
        f.write("host all all 10.77.0.0/24 trust\n")
    lab.run("h3", *user, pg[-1], "-D", data, cwd="/").until_listening(PORT, san=False)
    lab.run("h3", "redis-server", "--port", PORT + 1, "--bind", h[3], "--protected-mode", "no", "--save",
            "").until_listening(PORT + 1, san=False)
    env = {**os.environ, "SITE_DATA": h[3], "SITE_PORT": str(PORT)}
    lab.run("h2", SYSTEM_PYTHON, SITE, "fill", env=env).wait(30)
    lab.run("h2", "gunicorn", "-w", 2, "-b", f"{h[2]}:{PORT}", "--chdir", Path(SITE).parent, "site_app:app",
            env=env).until_listening(PORT, san=False)
    conf = Path(lab.dir, "nginx.conf")
    temporary = "".join(f"{n}_temp_path {lab.dir}/{n};\n" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf.write_text(f"worker_processes 2;\npid {lab.dir}/nginx.pid;\nerror_log {lab.dir}/nginx.log;\ndaemon off;\n"
                    f"events {{ worker_connections 512; }}\nhttp {{ access_log off;\n{temporary}"
                    f"server {{ listen {h[1]}:{PORT}; location / {{ proxy_pass http://{h[2]}:{PORT}; }} }} }}\n")
    lab.run("h1", "nginx", "-c", conf).until_listening(PORT, san=False)


def frames_of_lan(lab, host):
    p = lab.exec(host, "cat", "/proc/net/dev")
    p.wait()
    return next(int(line.split()[10]) for line in p.lines() if line.split()[0] == "lan0:")


@scenario
def site_of_three_tiers():
    """nginx on h1, gunicorn on h2, PostgreSQL and Redis on h3, asked from h2."""
    if SANITIZED:
        raise Skip("PostgreSQL hangs with a sanitizer preloaded, also without Sandirect")
    with Lab("veth", hosts=3, mode="daemon") as lab:
        start_site(lab)
        hosts = ("h1", "h2", "h3")
        for h in hosts:  # or the kernel looks for routers there, for as long as this takes
            lab.exec(h, "sysctl", "-q", "-w", "net.ipv6.conf.lan0.disable_ipv6=1").wait()
        lan = {h: frames_of_lan(lab, h) for h in hosts}
        with lab.no_segments(*hosts):
            p = lab.run("h2", SYSTEM_PYTHON, SITE, "ask", lab.address("h1"), PORT, REQUESTS)
            p.wait(REQUESTS / 50)
        got = p.json()
        say(f"{got}")
        check((got["right"], got["hits"], got["failed"]) == (REQUESTS, REQUESTS, 0), f"{got}")
        for h in hosts:
            sent = frames_of_lan(lab, h) - lan[h]
            check(sent <= 5, f"{sent} frames left {h} by the LAN")


main()

# SPDX-License-Identifier: BSD-3-Clause
"""Stock network programs under `sandirect run`: on the SAN when both ends are under it, on TCP with the reason when not."""
import os
import subprocess
from pathlib import Path

from harness import KERNEL_ONLY, MIB, PYTHON, Lab, Skip, check, equal, main, need, say, scenario, until

PORT = 7300
ABSENT = ("PEER_SILENT", "PORT_DOWN")  # as shown of a host without a program under Sandirect
KINDS = (("run", "run"), ("run", "exec"), ("exec", "run"))  # server, client


def data_file(lab, size=3 * MIB):
    data = os.urandom(size)
    path = Path(lab.dir, "data")
    path.write_bytes(data)
    os.chmod(path, 0o644)
    return data


def paths_of_server(lab, server, how):
    """What stat says of a server's connections with such a client."""
    if KERNEL_ONLY or server.how != "run":
        return
    p = lab.stat(server)
    if how == "run":
        check(p["san_total"] > 0 and p["tcp_total"] == 0, f"{server}: {p['by_reason']}")
    else:
        check(p["san_total"] == 0 and p["tcp_total"] > 0 and set(p["by_reason"]) <= {"PEER_TCP", "BACKLOG"},
              f"{server}: {p['by_reason']}")


def get(lab, how, words, got):
    p = getattr(lab, how)("h2", *words)
    p.wait(60)
    return Path(got).read_bytes()


@scenario
def curl_and_wget_from_python_http_server():
    need("curl", "wget")
    with Lab() as lab:
        data = data_file(lab)
        url = f"http://{lab.address('h1')}:{PORT}/data"
        for server_how, how in KINDS:
            server = lab.start(server_how, "h1", [PYTHON, "-m", "http.server", PORT, "--bind", lab.address("h1")], cwd=lab.dir)
            server.until_listening(PORT)
            for tool, words in (("curl", ["curl", "-sS", "-o", f"{lab.dir}/got", url]),
                                ("wget", ["wget", "-q", "-O", f"{lab.dir}/got", url])):
                with lab.no_segments("h1", "h2") if (server_how, how) == ("run", "run") else open(os.devnull):
                    check(get(lab, how, words, f"{lab.dir}/got") == data, f"{tool} got other bytes")
            paths_of_server(lab, server, how)
            server.kill()


@scenario
def curl_says_why_it_took_tcp():
    """Held open by a server that says nothing, so that stat can be asked."""
    need("curl")
    with Lab() as lab:
        mute = lab.peer("h1", "mute", lab.address("h1"), PORT, how="exec").until_listening(PORT)
        c = lab.run("h2", "curl", "-sS", "--max-time", 20, f"http://{lab.address('h1')}:{PORT}/")
        lab.until_path(c, "TCP", ABSENT)
        mute.kill()
        c.wait(status=None)


@scenario
def iperf3():
    need("iperf3")
    with Lab() as lab:
        for server_how, how in KINDS:
            server = lab.start(server_how, "h1", ["iperf3", "-s", "-p", PORT]).until_listening(PORT)
            for more in ((), ("-R",), ("-P", "4")):
                c = getattr(lab, how)("h2", "iperf3", "-c", lab.address("h1"), "-p", PORT, "-t", 1, "-f", "g", *more)
                c.wait(30)
                check("receiver" in c.output(), c.output())
                say(server_how, how, *more, next(x for x in c.lines() if "receiver" in x))
            paths_of_server(lab, server, how)
            server.kill()


def netcat(lab, words_of_server, words_of_client):
    data = data_file(lab)
    for server_how, how in KINDS:
        with open(f"{lab.dir}/got", "wb") as out:
            server = lab.start(server_how, "h1", words_of_server, stdout=out)
            server.until_listening(PORT)
        with open(f"{lab.dir}/data", "rb") as source:
            c = getattr(lab, how)("h2", *words_of_client, stdin=source)
            c.wait(30)
        server.wait(30)
        check(Path(lab.dir, "got").read_bytes() == data, f"{server_how} from {how}: other bytes")


@scenario
def nc():
    need("nc")
    with Lab() as lab:
        netcat(lab, ["nc", "-l", lab.address("h1"), PORT], ["nc", "-N", lab.address("h1"), PORT])


@scenario
def socat():
    need("socat")
    with Lab() as lab:
        netcat(lab, ["socat", "-u", f"TCP-LISTEN:{PORT},bind={lab.address('h1')},reuseaddr", "STDOUT"],
               ["socat", "-u", "STDIN", f"TCP:{lab.address('h1')}:{PORT}"])


@scenario
def socat_forks_for_each_connection():
    """A child that works on its parent's connection: over TCP by a rule, as the message recommends."""
    need("socat")
    with Lab() as lab:
        data = data_file(lab)
        rule = lab.config("h1", rules=["rule = tcp program=socat"])
        server = lab.run("h1", "socat", f"TCP-LISTEN:{PORT},bind={lab.address('h1')},reuseaddr,fork", "EXEC:cat",
                         config=rule).until_listening(PORT, san=False)
        for how in ("run", "exec"):
            with open(f"{lab.dir}/data", "rb") as source:
                c = getattr(lab, how)("h2", "socat", "-t", "10", "STDIO", f"TCP:{lab.address('h1')}:{PORT}", stdin=source)
                c.wait(30)
            check(Path(c.out_path).read_bytes() == data, f"{how}: other bytes")
        check(server.running(), "the server has ended")


@scenario
def ssh():
    """The server hands connections to children, so it is to use TCP. The client is free."""
    need("ssh", "sshd", "ssh-keygen")
    with Lab() as lab:
        data = data_file(lab)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{lab.dir}/{key}"], check=True)
        os.makedirs("/run/sshd", exist_ok=True)
        options = [f"HostKey={lab.dir}/host", f"AuthorizedKeysFile={lab.dir}/user.pub", "StrictModes=no", "PidFile=none",
                   "UsePAM=no", "PermitRootLogin=yes"]
        sshd = subprocess.run(["which", "sshd"], capture_output=True, text=True, check=True).stdout.strip()
        rule = lab.config("h1", rules=["rule = tcp program=sshd"])
        for server_how, how in KINDS:
            server = lab.start(server_how, "h1", [sshd, "-D", "-e", "-f", "/dev/null", "-p", PORT,
                                                  "-o", f"ListenAddress={lab.address('h1')}",
                                                  *[w for o in options for w in ("-o", o)]],
                               ["--config", rule] if server_how == "run" else []).until_listening(PORT, san=False)
            c = getattr(lab, how)("h2", "ssh", "-i", f"{lab.dir}/user", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no",
                                  "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-p", PORT,
                                  f"root@{lab.address('h1')}", f"sha256sum < {lab.dir}/data; cat {lab.dir}/data; exit 7")
            c.wait(60, status=7)
            check(Path(c.out_path).read_bytes().endswith(data), f"{server_how} to {how}: other bytes")
            server.kill()


main()

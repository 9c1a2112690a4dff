# SPDX-License-Identifier: BSD-3-Clause
"""`sandirect lab` with the kernel's programs: what it builds, what it says, and that nothing is left of it."""
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tap import Skip, check, equal, main, say, scenario, until

SANDIRECT = os.environ.get("E2E_SANDIRECT", "sandirect")
NAME = f"t{os.getpid()}"
OWN_VIRTIO = "net_sandirect_virtio" if os.environ.get("E2E_VIRTIO") else "net_virtio_user"
SAN_PORT = {"vhost": (OWN_VIRTIO, "net_vhost"), "vhost-packed": (OWN_VIRTIO, "net_vhost"),
            "virtio-user": ("net_virtio_user", "net_vhost"), "memif": ("net_memif", "net_memif"),
            "veth": ("net_af_packet", "net_af_packet"), "xdp": ("net_af_xdp", "net_af_xdp"), "udp": ("udp", "udp")}
# Sends a line each way over every address that the two hosts share.
TALK = r"""
import socket, sys
role, addresses = sys.argv[1], sys.argv[2:]
sockets = []
for i, a in enumerate(addresses):
    family = socket.AF_INET6 if ":" in a else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(10)
    if role == "server":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((a, 7000 + i))
        s.listen()
    sockets.append(s)
if role == "server":
    print("listening", flush=True)
for i, (s, a) in enumerate(zip(sockets, addresses)):
    if role == "server":
        c, _ = s.accept()
        c.sendall(c.recv(100))
    else:
        s.connect((a, 7000 + i))
        s.sendall(a.encode())
        assert s.recv(100) == a.encode()
print("done", flush=True)
"""


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True).stdout


def members(name):
    """Processes in a namespace."""
    return ip("netns", "pids", name).split()


def traces():
    """All that a lab could leave on the machine, outside its runtime directory."""
    names = {line.split()[0] for line in ip("netns").splitlines()}
    files = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    links = set(re.findall(r"^\d+: ([^@:]+)", ip("-o", "link"), re.M))
    mounts = {m for m in Path("/proc/self/mounts").read_text().splitlines() if f"sdlab-{NAME}" in m}
    return {"namespaces": {n for n in names | files if n.startswith(f"sdlab-{NAME}")}, "links": links, "mounts": mounts}


class World:
    """A runtime directory for labs, and a look at what is left at the end."""

    def __enter__(self):
        if os.geteuid():
            raise Skip("a lab needs root")
        self.top = tempfile.mkdtemp(prefix="sdlab-")
        os.chmod(self.top, 0o755)
        self.dir = self.top + "/run"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("SANDIRECT")}
        self.env["SANDIRECT_RUNTIME_DIR"] = self.dir
        self.before = traces()
        return self

    def __exit__(self, kind, *_):
        for name in (NAME, NAME + "x"):
            subprocess.run([SANDIRECT, "lab", "--name", name, "down"], capture_output=True, env=self.env)
        left = self.left()
        shutil.rmtree(self.top)
        if not kind:
            equal(left, [], "left after lab down")

    def left(self):
        after = traces()
        found = [f"{k}: {after[k] - self.before[k]}" for k in after if after[k] - self.before[k]]
        return found + ([f"files: {os.listdir(self.dir)}"] if os.path.exists(self.dir) else [])

    def lab(self, *words, name=NAME, status=0, **more):
        r = subprocess.run([SANDIRECT, "lab", "--name", name, *map(str, words)], capture_output=True, text=True,
                           env=self.env, timeout=60, **more)
        if status is not None:
            check(r.returncode == status, f"lab {' '.join(map(str, words))}: status {r.returncode}, {r.stdout}{r.stderr}")
        return r

    def start(self, *words, **more):
        return subprocess.Popen([SANDIRECT, "lab", "--name", NAME, *words], env=self.env, stdin=subprocess.DEVNULL, **more)

    def conf(self, host):
        return Path(f"{self.dir}/lab-{NAME}/{host}.conf").read_text()


def talk(w, a, b):
    n = int(a[1:])
    addresses = [f"10.77.0.{n}", f"fd77::{n:x}", f"10.78.0.{n}"]
    server = w.start("exec", a, sys.executable, "-c", TALK, "server", *addresses, stdout=subprocess.PIPE, text=True)
    equal(server.stdout.readline(), "listening\n", "the server")
    equal(w.lab("exec", b, sys.executable, "-c", TALK, "client", *addresses).stdout, "done\n", "the client")
    equal(server.wait(10), 0, "the server's status")


def interface(w, host, name):
    return w.lab("exec", host, "ip", "-o", "link", "show", name).stdout


def each_link(link, hosts):
    with World() as w:
        start = time.monotonic()
        w.lab("up", "--link", link, "--hosts", hosts, "--mtu", 3000)
        say(f"up in {time.monotonic() - start:.2f} s")
        status = w.lab("status").stdout
        check(f"{hosts} hosts, link {link}, mtu 3000" in status, f"status: {status}")
        equal(len(re.findall(r"^h\d+ +san0 10\.77\.0\.\d+ fd77::\w+ up +lan0 10\.78\.0\.\d+ up$", status, re.M)), hosts,
              f"hosts that are up in {status}")
        talk(w, "h1", f"h{hosts}")
        talk(w, f"h{hosts}", "h1")
        for host in ("h1", f"h{hosts}"):
            check(" mtu 3000 " in interface(w, host, "san0"), "the MTU of san0")
            check(" mtu 1500 " in interface(w, host, "lan0"), "the MTU of lan0")
            if link == "veth":
                check("UP" in interface(w, host, "sanp0"), "sanp0 is not up")
            check(host != "h1" or ("packed_vq=1" in w.conf(host)) == (link == "vhost-packed"), f"rings: {w.conf(host)}")
            wanted = SAN_PORT[link][host != "h1"]
            check(f"device = {wanted}" in w.conf(host) and "mtu = 3000" in w.conf(host), f"configuration: {w.conf(host)}")
        w.lab("down")
        equal(w.left(), [], "left")


@scenario
def vhost():
    each_link("vhost", 2)


@scenario
def vhost_packed():
    each_link("vhost-packed", 2)


@scenario
def virtio_user():
    each_link("virtio-user", 2)


@scenario
def memif():
    each_link("memif", 2)


@scenario
def veth_of_two():
    each_link("veth", 2)


@scenario
def veth_of_five():
    each_link("veth", 5)


@scenario
def xdp():
    each_link("xdp", 3)


@scenario
def udp_of_eighteen():
    """h17 is fd77::11."""
    each_link("udp", 18)


@scenario
def defaults():
    with World() as w:
        w.lab("up")
        check("2 hosts, link vhost, mtu 1500" in w.lab("status").stdout, "the default lab")
        check("hugepages = auto" in w.conf("h1") and "loss" not in w.conf("h1"), w.conf("h1"))
        w.lab("down")
        w.lab("up", "--hosts", 3)
        check("3 hosts, link veth, mtu 1500" in w.lab("status").stdout, "the default lab of three")


@scenario
def faults_and_hugepages_reach_the_configuration():
    faults = {"loss": "0.1%", "duplicate": "1%", "reorder": "5%", "corrupt": "0.1%", "delay": "10us", "jitter": "1.5ms",
              "rate": "2.5G", "seed": "7"}
    with World() as w:
        w.lab("up", "--hugepages", "off", *[x for k, v in faults.items() for x in ("--" + k, v)])
        for host in ("h1", "h2"):
            lines = w.conf(host).splitlines()
            for k, v in [*faults.items(), ("hugepages", "off")]:
                check(f"{k} = {v}" in lines, f"{k} = {v} is not in {lines}")
            # As the library will read it.
            r = w.lab("exec", host, "env", f"SANDIRECT_CONFIG={w.dir}/lab-{NAME}/{host}.conf", SANDIRECT, "check", status=None)
            check("1 ports" in r.stdout and "san0 of [port san0] is up" in r.stdout, f"check on {host}: {r.stdout}")


@scenario
def wrong_options():
    wrong = [("--hosts", "1"), ("--hosts", "33"), ("--hosts", "x"), ("--link", "rope"), ("--mtu", "1279"),
             ("--mtu", "9001"), ("--hugepages", "maybe"), ("--loss", "1"), ("--loss", "101%"), ("--delay", "10"),
             ("--delay", "11s"), ("--rate", "fast"), ("--seed", "-1"), ("--link", "vhost", "--hosts", "3"),
             ("--link", "memif", "--hosts", "3"), ("--tea",)]
    with World() as w:
        for words in wrong:
            r = w.lab("up", *words, status=None)
            check(r.returncode == 64 and (words[-1] in r.stderr or "two hosts" in r.stderr),
                  f"{words}: status {r.returncode}, {r.stderr}")
        w.lab("up", "sugar", status=64)
        for name in ("A", "a-b", "a" * 17, "../x"):
            check("no name for a lab" in w.lab("up", name=name, status=1).stderr, f"name {name}")
        equal(w.lab("dance", status=2).stderr.strip(),
              'sandirect: lab: "dance" is none of up, exec, run, status, down', "an unknown action")
        for action in ("exec", "run"):
            w.lab(action, status=64)
            w.lab(action, "h1", status=64)
        equal(w.left(), [], "left")


@scenario
def what_is_said_without_a_lab():
    with World() as w:
        equal(w.lab("status").stdout, "no lab\n", "status")
        for action in ("exec", "run"):
            check("sandirect lab up" in w.lab(action, "h1", "true", status=1).stderr, f"{action} without a lab")
        w.lab("down")
        equal(w.left(), [], "left")


@scenario
def up_twice_and_down_twice():
    with World() as w:
        w.lab("up")
        check("`sandirect lab down` removes it" in w.lab("up", status=1).stderr, "a second up")
        talk(w, "h1", "h2")
        w.lab("down")
        w.lab("down")
        w.lab("up")
        talk(w, "h1", "h2")


@scenario
def exec_becomes_the_program():
    with World() as w:
        w.lab("up")
        w.lab("exec", "h1", "sh", "-c", "exit 3", status=3)
        w.lab("exec", "h1", "no-such-program", status=127)
        w.lab("exec", "h1", f"{w.dir}/lab-{NAME}/h1.conf", status=126)
        w.lab("exec", "h1", "sh", "-c", "kill -9 $$", status=-9)
        # Options after the program are the program's.
        equal(w.lab("exec", "h1", "echo", "--help", "-n").stdout, "--help -n\n", "echo")
        equal(w.lab("exec", "h1", "cat", input="text").stdout, "text", "standard input")
        check("there are h1 to h2" in w.lab("exec", "h3", "true", status=1).stderr, "host h3")
        check("no host" in w.lab("exec", "h0", "true", status=1).stderr, "host h0")
        check("no host" in w.lab("exec", "1", "true", status=1).stderr, "host 1")
        p = w.start("exec", "h1", "sleep", "100")
        until(lambda: str(p.pid) in members(f"sdlab-{NAME}-h1"), 5, "the same process on the host")
        check(f"sleep ({p.pid})" in w.lab("status").stdout, "the program in status")
        p.send_signal(signal.SIGINT)
        equal(p.wait(5), -signal.SIGINT, "its end")


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(100)"


@scenario
def down_ends_the_programs():
    """Also daemons, and those that do not want to."""
    with World() as w:
        w.lab("up")
        stubborn = w.start("exec", "h1", sys.executable, "-c", STUBBORN, stdout=subprocess.PIPE)
        stubborn.stdout.readline()
        willing = w.start("exec", "h2", sys.executable, "-c", "import signal, sys, time\n"
                          "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nprint('here', flush=True)\ntime.sleep(100)",
                          stdout=subprocess.PIPE)
        willing.stdout.readline()
        w.lab("exec", "h2", "sh", "-c", "setsid sleep 100 >/dev/null 2>&1 </dev/null & exit 0")
        daemon = until(lambda: [p for p in members(f"sdlab-{NAME}-h2") if int(p) != willing.pid], 5, "the daemon")[0]
        w.lab("down")
        equal(willing.wait(5), 7, "the end of one that heeds SIGTERM")
        equal(stubborn.wait(5), -signal.SIGKILL, "the end of one that does not")
        until(lambda: not os.path.exists(f"/proc/{daemon}"), 5, "the daemon is gone")
        equal(w.left(), [], "left")


@scenario
def down_after_up_was_killed():
    seed = int.from_bytes(os.urandom(2), "big")
    dice = random.Random(seed)
    say(f"seed {seed}")
    unfinished = 0
    with World() as w:
        for i in range(30):
            hosts = dice.choice((2, 2, 4))
            up = w.start("up", "--hosts", str(hosts), "--link", "veth", stderr=subprocess.DEVNULL)
            time.sleep(dice.uniform(0, 0.03 * hosts))
            sig = dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
            up.send_signal(sig)
            unfinished += up.wait(20) != 0
            if sig == signal.SIGKILL:
                w.lab("down")
            elif up.returncode == 0:
                w.lab("down")
            equal(w.left(), [], f"left after signal {sig}, status {up.returncode}")
    say(f"{unfinished} of 30 were cut short")
    check(unfinished > 3, "too few were cut short to tell anything")


@scenario
def interrupted_at_its_first_moments():
    """SIGTERM to the command alone: from where the directory is made on, what there is of the lab goes again."""
    with World() as w:
        cut = 0
        for i in range(20):
            up = w.start("up", "--link", "veth", stderr=subprocess.DEVNULL)
            time.sleep(0.0005 * i)
            up.send_signal(signal.SIGTERM)
            cut += up.wait(20) != 0
            if up.returncode == 0:
                w.lab("down")
            equal(w.left(), [], f"left, status {up.returncode}")
        say(f"{cut} of 20 were cut short")
        check(cut > 10, "too few were cut short to tell anything")


@scenario
def up_after_up_was_killed():
    """Without a down between them: `up` removes what is not a whole lab."""
    with World() as w:
        finished = 0
        for i in range(20):
            up = w.start("up", stderr=subprocess.DEVNULL)
            time.sleep(0.002 * i)
            up.kill()
            up.wait()
            if "2 hosts" in w.lab("status").stdout:
                finished += 1
                w.lab("down")
            w.lab("up")
            talk(w, "h1", "h2")
            w.lab("down")
            equal(w.left(), [], "left")
        say(f"{20 - finished} of 20 were cut short")


@scenario
def down_after_files_are_gone():
    """Everything is found by its name."""
    with World() as w:
        w.lab("up", "--hosts", 3)
        p = w.start("exec", "h1", "sleep", "100")
        until(lambda: members(f"sdlab-{NAME}-h1"), 5, "the program on the host")
        shutil.rmtree(w.dir)
        equal(w.lab("status").stdout, "no lab\n", "status")
        w.lab("down")
        equal(p.wait(5), -signal.SIGTERM, "the program's end")
        equal(w.left(), [], "left")


@scenario
def down_after_namespaces_are_gone():
    with World() as w:
        w.lab("up")
        subprocess.run(["ip", "netns", "del", f"sdlab-{NAME}-h1"], check=True)
        check("No such file" in w.lab("status").stdout, "status of the host that is gone")
        check("No such file" in w.lab("exec", "h1", "true", status=1).stderr, "exec there")
        w.lab("down")
        equal(w.left(), [], "left")


@scenario
def a_broken_state_file():
    with World() as w:
        w.lab("up")
        state = Path(f"{w.dir}/lab-{NAME}/state")
        for text in ("", "hosts", "hosts 99 link vhost mtu 1500", "hosts 2 link rope mtu 1500", "hosts 2 link vhost mtu 99999",
                     "\0" * 100, "hosts 2 link " + "v" * 5000):
            state.write_text(text)
            check("lab down" in w.lab("status", status=1).stderr, f"status with {text[:50]!r}")
            w.lab("exec", "h1", "true", status=1)
            check("there is a lab already" in w.lab("up", status=1).stderr, "up")
        w.lab("down")
        equal(w.left(), [], "left")


@scenario
def files_that_programs_left():
    """Locks of ports and tables of programs that were killed go with the lab; those of others stay."""
    with World() as w:
        w.lab("up")
        ns = os.stat(f"/run/netns/sdlab-{NAME}-h1").st_ino
        for name in (f"port-0123456789abcdef-{ns}.lock", f"port-0123456789abcdef-9{ns}.lock"):
            Path(w.dir, name).touch()
        os.mkdir(f"{w.dir}/stat")
        dead = subprocess.Popen(["true"])
        dead.wait()
        for name in (dead.pid, os.getpid()):
            Path(f"{w.dir}/stat/{name}").write_bytes(b"x" * 100)
        w.lab("down")
        equal(sorted(os.listdir(w.dir)), [f"port-0123456789abcdef-9{ns}.lock", "stat"], "what stays")
        equal(os.listdir(f"{w.dir}/stat"), [str(os.getpid())], "tables that stay")
        shutil.rmtree(w.dir)


@scenario
def two_labs():
    """The name of one begins with the name of the other."""
    with World() as w:
        w.lab("up")
        w.lab("up", name=NAME + "x")
        w.lab("down")
        check("2 hosts" in w.lab("status", name=NAME + "x").stdout, "the other lab")
        w.lab("exec", "h1", "true", name=NAME + "x")
        w.lab("up")
        w.lab("down", name=NAME + "x")
        talk(w, "h1", "h2")


@scenario
def commands_at_the_same_time():
    with World() as w:
        for _ in range(4):
            ups = [w.start("up", stderr=subprocess.DEVNULL) for _ in range(3)]
            downs = [w.start("down") for _ in range(2)]
            for p in ups + downs:
                p.wait(30)
            equal([p.returncode for p in downs], [0, 0], "the ends of down")
            check(all(p.returncode in (0, 1) for p in ups), "the ends of up")
        w.lab("down")
        w.lab("up")
        talk(w, "h1", "h2")


@scenario
def without_root():
    with World() as w:
        os.mkdir(w.dir, 0o755)
        as_nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        w.lab("up", **as_nobody, status=1)
        equal(os.listdir(w.dir), [], "files")
        w.lab("up")
        r = w.lab("exec", "h1", "true", **as_nobody, status=1)
        check("needs root" in r.stderr, f"exec: {r.stderr}")
        w.lab("down", **as_nobody, status=1)
        talk(w, "h1", "h2")


main()

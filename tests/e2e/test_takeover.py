# SPDX-License-Identifier: BSD-3-Clause
"""A new daemon goes on with what the running one has, under load, and no program notices more than a pause.

SANDIRECT_TEST_LONG=1 does it a hundred times for each kind of port.
"""
import os
import random
import signal
import statistics
import subprocess
import time
from pathlib import Path

from daemon import PORT, PYTHON, Daemon, ask, event, rights, serve, silence
from harness import KERNEL_ONLY, LONG, SLOW, Lab, Skip, check, equal, main, need, say, scenario, until

TIMES = 100 if LONG else 6
CHECKED = str(Path(__file__).with_name("checked.py"))
SECONDS = 20  # without progress: a hang


def needs_daemon():
    if KERNEL_ONLY:
        raise Skip("there is no daemon")


def tell(p, word, key):
    """What a "hold" answers."""
    before = len(p.lines())
    if p.running():
        p.tell(word)
    until(lambda: len(p.lines()) > before or not p.running(), SECONDS, lambda: f"{p} answers: {p.output()[-500:]}")
    check(p.running(), lambda: f"{p} has ended: {p.output()[-500:]}")
    answer = p.json()
    check(key in answer, f"{p}: {answer}")
    return answer


def held(p):
    p.until_line("holding")
    return p


def keeps_going(p, what):
    """Every connection goes on; the longest pause since the last call, in ms."""
    first = tell(p, "", "rounds")
    answers = [first]

    def all_go_on():
        answers.append(tell(p, "", "rounds"))
        return all(later > before for later, before in zip(answers[-1]["rounds"], first["rounds"]))
    until(all_go_on, SECONDS, lambda: f"all connections go on after {what}: {first['rounds']}, {answers[-1]['rounds']}", every=0.05)
    return 1000 * max(a["longest"] for a in answers)


def often(p, what, take_over):
    """take_over(i) hands over for the i-th time, and says for how long nobody was served, in ms."""
    time.sleep(1)
    calm = keeps_going(p, "nothing")
    silences, pauses = [], []
    for i in range(TIMES):
        silences.append(take_over(i))
        pauses.append(keeps_going(p, f"takeover {i}"))
    say(f"{what}: {len(silences)} times, no connection lost; nobody was served for {statistics.median(silences):.1f} ms "
        f"(median), {max(silences):.1f} ms (worst); longest pause of a connection {max(pauses):.0f} ms, "
        f"{calm:.0f} ms in a second before")


# --- inside a host ---

@scenario
def programs_of_a_host():
    needs_daemon()
    with Daemon() as d:
        d.run(PYTHON, CHECKED, "serve", PORT, name="serve").until_listening(PORT)
        d.until_listeners(1)
        p = held(d.run(PYTHON, CHECKED, "hold", PORT, SECONDS, 8, stdin=subprocess.PIPE))
        d.until_san(p, 8)

        def take_over(_):
            silent = d.take_over()
            equal(d.counts()["connections"], 8, "connections")
            return silent
        often(p, "programs of one host", take_over)
        tell(p, "end", "rounds")
        p.process.stdin.close()
        p.wait()


@scenario
def what_the_new_daemon_knows():
    """Who listens; and a connection whose descriptor is on its way to another program meanwhile."""
    needs_daemon()
    with Daemon() as d:
        path = f"{d.dir}/meet"
        serve(d)
        d.take_over()
        ask(d, 3)
        taker = d.sharer("taker", PORT, path, "client")
        event(taker, "ready")
        taker.signal(signal.SIGSTOP)
        giver = d.sharer("giver", PORT, path, "client")
        event(giver, "listening")
        until(lambda: d.counts()["connections"] == 1, 10, "the connection")
        time.sleep(0.5)  # until it has been sent
        d.take_over()
        taker.signal(signal.SIGCONT)
        giver.wait(SECONDS)
        event(taker, "done")
        d.check_made(4, 4)


@scenario
def nobody_else_may():
    needs_daemon()
    with Daemon() as d:
        serve(d)
        log, process = d.log, d.start("--takeover", prefix=rights())
        equal(process.wait(10), 1, "its exit status")
        check("only root may ask, and who has started it" in Path(d.log).read_text(), Path(d.log).read_text())
        d.log = log
        ask(d)


@scenario
def one_that_fails_leaves_the_other():
    """It dies with everything in its hands, or cannot use it."""
    needs_daemon()
    with Daemon() as d:
        serve(d)
        p = held(d.peer("ask", PORT, "--hold", stdin=subprocess.PIPE))
        d.until_san(p)
        log = d.log
        # Its ports are others: the running one has none.
        config = d.config
        d.config = f"{d.dir}/other.conf"
        Path(d.config).write_text(Path(config).read_text() + "[port p]\nnetdev = lo\ndevice = udp\n")
        process = d.start("--takeover")
        equal(process.wait(10), 1, "its exit status")
        check("has ports and this one none" in Path(d.log).read_text(), Path(d.log).read_text())
        d.config, d.log = config, log
        until(lambda: "this one goes on" in Path(log).read_text(), 10, "the running daemon goes on")
        p.tell("go")
        p.wait()
        ask(d)


@scenario
def without_a_daemon():
    needs_daemon()
    with Daemon() as d:
        log, socket, config = d.log, d.socket, d.config
        d.config = f"{d.dir}/none.conf"
        Path(d.config).write_text(Path(config).read_text().replace(socket, f"{d.dir}/none.sock"))
        process = d.start("--takeover")
        equal(process.wait(10), 1, "its exit status")
        check("start without --takeover" in Path(d.log).read_text(), Path(d.log).read_text())
        d.config, d.log = config, log


# --- between hosts ---

def lab_take_over(lab, host):
    p = lab.start_daemon(host, "--takeover")
    until(lambda: "ready at" in p.errors() or not p.running(), 15, lambda: f"the new daemon is ready: {p.errors()}")
    check(p.running(), lambda: f"the new daemon has ended: {p.errors()}")
    return silence(p.errors())


def between_hosts(link=None, **more):
    needs_daemon()
    with Lab(link, mode="daemon", **more) as lab:
        address = lab.address("h1")
        lab.run("h1", PYTHON, CHECKED, "serve", PORT, address).until_listening(PORT, san=False)
        p = lab.run("h2", PYTHON, CHECKED, "hold", PORT, SECONDS, 8, address, stdin=subprocess.PIPE)
        held(p)
        lab.until_san(p)
        often(p, f"two hosts, {lab.link}", lambda i: lab_take_over(lab, ("h1", "h2")[i % 2]))
        tell(p, "end", "rounds")


def kills(rng, delay, at_most, cores):
    """Of daemons on h1 that want to take over: how often the old one went on, and the delay that was too long, or None."""
    with Lab("udp", mode="daemon", cores=cores) as lab:
        address = lab.address("h1")
        lab.run("h1", PYTHON, CHECKED, "serve", PORT, address).until_listening(PORT, san=False)
        p = held(lab.run("h2", PYTHON, CHECKED, "hold", PORT, SECONDS, 8, address, stdin=subprocess.PIPE))
        lab.until_san(p)
        for i in range(at_most):
            new = lab.start_daemon("h1", "--takeover")
            time.sleep(rng.uniform(0, delay))
            new.kill()
            until(lambda: lab.daemon_pid("h1") != new.pid, SECONDS, "the killed one is gone")
            if not lab.daemon_pid("h1"):
                return i, True
            keeps_going(p, f"kill {i}")
            delay *= 1.05
        return at_most, False


@scenario
def killed_while_it_takes_over():
    """At any moment: either has the connections, and nothing is lost while one of them lives."""
    needs_daemon()
    rng, delay, back, after = random.Random(os.environ.get("SEED")), 0.008 * SLOW, 0, 0
    for i in range(4 if TIMES < 100 else 40):
        n, had_taken_over = kills(rng, delay, 2 * TIMES, (None, "0,1")[i % 2])
        back += n
        after += had_taken_over
        delay *= 0.7 if had_taken_over else 1.3
    say(f"killed while it took over: {back} times the old daemon went on, {after} times the new one had it all")
    check(back, "the old daemon never went on")


@scenario
def hosts_over_udp():
    between_hosts("udp")


@scenario
def hosts():
    between_hosts()


@scenario
def hosts_with_several_engines_over_udp():
    between_hosts("udp", cores="0,1")


@scenario
def hosts_with_several_engines():
    between_hosts(cores="0,1", miniport=True)


@scenario
def one_with_other_engines_leaves_the_other():
    needs_daemon()
    with Lab("udp", mode="daemon", cores="0,1") as lab:
        address = lab.address("h1")
        lab.run("h1", PYTHON, CHECKED, "serve", PORT, address).until_listening(PORT, san=False)
        p = held(lab.run("h2", PYTHON, CHECKED, "hold", PORT, SECONDS, 8, address, stdin=subprocess.PIPE))
        lab.until_san(p, 8)
        conf = Path(lab.daemon_config("h1"))
        text = conf.read_text()
        conf.write_text(text.replace("cores = 0,1", "cores = 0"))
        new = lab.start_daemon("h1", "--takeover")
        new.wait(15, status=1)
        check("has 2 engines and this one 1" in new.errors(), new.errors())
        keeps_going(p, "a takeover that failed")
        conf.write_text(text)
        lab_take_over(lab, "h1")
        keeps_going(p, "one that did not")


@scenario
def what_one_has_spoilt_keeps_nobody_else():
    """A program overwrites all of its connection's memory that it can, and keeps it open."""
    needs_daemon()
    spoil = "import socket, sys\ns = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n" \
            "at = [int(l.split('-')[0], 16) for l in open('/proc/self/maps') if 'memfd:sandirect' in l]\n" \
            "m = open('/proc/self/mem', 'r+b', 0)\nfor a in at:\n  m.seek(a)\n  m.write(bytes(4096))\n" \
            "print(len(at), flush=True)\nsys.stdin.read()"
    with Lab("udp", mode="daemon") as lab:
        address = lab.address("h1")
        lab.run("h1", PYTHON, CHECKED, "serve", PORT, address).until_listening(PORT, san=False)
        p = held(lab.run("h2", PYTHON, CHECKED, "hold", PORT, SECONDS, 8, address, stdin=subprocess.PIPE))
        lab.until_san(p, 8)
        hostile = lab.run("h2", PYTHON, "-c", spoil, address, PORT, stdin=subprocess.PIPE)
        hostile.until_line(r"[1-9]")
        for _ in range(3):
            lab_take_over(lab, "h2")
            keeps_going(p, "a takeover")
        check(hostile.running(), "it is still there")


@scenario
def hosts_that_share_the_port_with_the_kernel():
    need("ping")
    between_hosts(miniport=True)


main()

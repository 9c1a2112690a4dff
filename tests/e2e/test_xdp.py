# SPDX-License-Identifier: BSD-3-Clause
"""A port on an interface that the kernel keeps: only SAN packets are taken out, by an XDP program."""
import json
import re
import shutil
import socket
import subprocess

from harness import EVERY_LINK, KERNEL_ONLY, Lab, Skip, check, equal, main, need, scenario, until

AF_XDP = 44
PORT = 7950
MIB = 1 << 20


class Shared(Lab):
    def __init__(self, **options):
        if KERNEL_ONLY or EVERY_LINK:
            raise Skip("is about a link of its own")
        try:
            socket.socket(AF_XDP, socket.SOCK_RAW).close()
        except OSError as e:
            raise Skip(f"no AF_XDP sockets here: {e}") from None
        super().__init__("xdp", **options)

    def interface(self, host):
        p = self.exec(host, "ip", "-d", "link", "show", "san0")
        p.wait()
        return p.output()

    def serve(self, port=PORT, **more):
        return self.peer("h1", "serve", self.address("h1"), port, **more).until_listening(port)

    def ask(self, *more, port=PORT, **how):
        p = self.peer("h2", "ask", self.address("h1"), port, *more, **how)
        p.wait(60)
        check('"same": true' in p.output(), p.output())
        return p

    def counts(self, server):
        found, = self.stat(server)["ports"]
        return found["rx_frames"], found["tx_frames"]


@scenario
def the_kernel_has_all_else():
    need("ping")
    with Shared() as lab:
        server = lab.serve()
        lab.serve(PORT + 1, how="exec")
        with lab.no_segments("h1", "h2"):
            lab.ask("--times", 4, "--bytes", 4 * MIB)
        equal(lab.stat(server)["by_reason"], {"SAN": 4}, "connections")
        before = lab.counts(server)
        check(before[0] > 1000 and before[1] > 1000, f"frames {before}")
        lab.ask("--times", 4, "--bytes", 4 * MIB, port=PORT + 1, how="exec")
        for address in (lab.address("h1"), lab.address("h1", 6)):
            p = lab.exec("h2", "ping", "-c", 5, "-i", 0.1, "-W", 2, address)
            p.wait(20, status=None)
            check(" 5 received" in p.output(), p.output())
        check(lab.counts(server)[0] < before[0] + 20, f"the port has taken the kernel's: {lab.counts(server)}, {before}")
        check("PROMISC" not in lab.interface("h1"), lab.interface("h1"))
        check("sandirect_steer" in lab.interface("h1"), lab.interface("h1"))


@scenario
def killed_and_started_again():
    """The kernel keeps the program of a process that was killed; the next one does not mind."""
    with Shared() as lab:
        for _ in range(5):
            server = lab.serve()
            lab.ask("--bytes", MIB)
            equal(lab.stat(server)["by_reason"], {"SAN": 1}, "connections")
            server.kill()
            check("sandirect_steer" in lab.interface("h1"), lab.interface("h1"))
        until(lambda: json.dumps(lab.stat(all=True)) == "[]", 10, "all have gone")


@scenario
def somebody_elses_program():
    """It stays, and is told of."""
    need("clang")
    with Shared() as lab:
        source, program = f"{lab.dir}/other.c", f"{lab.dir}/other.o"
        with open(source, "w") as f:
            f.write('__attribute__((section("xdp"), used)) int other(void *c) { return 2; }\n')
        subprocess.run([shutil.which("clang"), "-O2", "-target", "bpf", "-c", source, "-o", program], check=True)
        p = lab.exec("h1", "ip", "link", "set", "san0", "xdp", "obj", program, "sec", "xdp")
        if p.wait(10, status=None):
            raise Skip(f"ip cannot load it: {p.errors()[-200:]}")
        server = lab.serve()
        lab.ask("--bytes", MIB)
        check("SAN" not in lab.stat(server)["by_reason"], f"connections: {lab.stat(server)['by_reason']}")
        check("an XDP program of somebody else's" in server.errors(), server.errors())
        check(re.search(r"prog/xdp .* name other", lab.interface("h1")), lab.interface("h1"))


main()

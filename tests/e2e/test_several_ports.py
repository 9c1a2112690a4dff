# SPDX-License-Identifier: BSD-3-Clause
"""Hosts with several SAN ports: each connection takes the one that its route leads to. Ports that come later."""
import json
import subprocess
from pathlib import Path

from harness import EVERY_LINK, KERNEL_ONLY, SANDIRECT, Lab, Skip, check, equal, main, scenario, until

PORT = 7850
MIB = 1 << 20
SECOND = ["[port lan0]", "netdev = lan0", "device = udp"]
LATER = ["[port new0]", "netdev = new0", "device = udp"]


class Ports(Lab):
    """A lab whose hosts have, besides the SAN port, ports as these lines say, $DIR being the lab's."""

    def __init__(self, *ports, **options):
        if KERNEL_ONLY:
            raise Skip("the kernel has no ports")
        super().__init__(**options)
        self.ports = [line for p in ports for line in p]

    def __enter__(self):
        super().__enter__()
        self.configs = {h: self.config(h, [line.replace("$DIR", self.dir) for line in self.lines_of(h)]) for h in ("h1", "h2")}
        if self.mode == "daemon":
            for h, path in self.configs.items():
                Path(self.daemon_config(h)).write_text(Path(path).read_text())
                self.restart_daemon(h)
        return self

    def lines_of(self, host):
        return [line[3:] if line.startswith(("h1:", "h2:")) else line for line in self.ports
                if not line.startswith(("h1:", "h2:")) or line.startswith(host)]

    def only(self, host, lines):
        """A configuration with no other ports."""
        path = self.config(host)
        Path(path).write_text(Path(path).read_text().split("[port san0]")[0] + "\n".join(lines) + "\n")
        return path

    def serve(self, address="0.0.0.0", port=PORT, config=None):
        p = self.peer("h1", "serve", address, port, config=config or self.configs["h1"])
        return p.until_listening(port, san=self.mode != "daemon")

    def hold(self, address, *more, config=None):
        """A program of h2's whose connection lasts."""
        p = Lab.peer(self, "h2", "ask", address, PORT, "--hold", *more, config=config or self.configs["h2"], stdin=subprocess.PIPE)
        p.until_line("holding")
        return p


def finish(client, times=1):
    client.tell("go")
    client.wait(60)
    equal(client.output().count('"same": true'), times, f"answers to {client}")


def all_ports():
    """As `sandirect ports` shows them."""
    r = subprocess.run([SANDIRECT, "ports", "--json", "--interval", "10ms"], capture_output=True, text=True, check=True)
    return json.loads(r.stdout)["ports"]


def ports_of(program):
    return {p["port"]: p for p in all_ports() if p["pid"] == program.pid}


def until_on_san(lab, address, seconds=20):
    def tried():
        c = lab.hold(address)
        good = lab.stat(c)["by_reason"] == {"SAN": 1}
        finish(c)
        return good
    until(tried, seconds, f"a connection to {address} on the SAN path")


def each_by_its_route(mode):
    with Ports(SECOND, mode=mode) as lab, lab.no_segments("h1", "h2"):
        server = lab.serve()
        # Programs with a port of their own have those of h2 at the same time.
        only = {"san": lab.config("h2"), "lan": lab.only("h2", SECOND)} if mode == "embedded" else {}
        clients = [lab.hold(lab.address("h1", net=net), "--bytes", MIB, "--times", 3, config=only.get(net)) for net in ("san", "lan")]
        for c in clients:
            lab.until_san(c, 3)
        local = {r["local"].rsplit(":", 1)[0] for c in clients for r in lab.connections(c)}
        equal(local, {"10.77.0.2", "10.78.0.2"}, "the clients' addresses")
        if mode == "embedded":
            equal({n: p["link"] for n, p in ports_of(server).items()}, {"san0": "up", "lan0": "up"}, "the server's ports")
        for c in clients:
            finish(c, 3)
        equal(lab.stat(server)["by_reason"], {"SAN": 6}, "connections of the server")
        if mode == "embedded":
            check(min(p["rx_frames"] for p in ports_of(server).values()) > 1000, f"frames of {ports_of(server)}")


@scenario
def each_by_its_route_embedded():
    each_by_its_route("embedded")


@scenario
def each_by_its_route_with_daemons():
    each_by_its_route("daemon")


@scenario
def one_that_another_program_has():
    """The other port works meanwhile, and this one as soon as it is free: listeners at any address have it then."""
    with Ports(SECOND) as lab:
        first = lab.serve(lab.address("h1", net="lan"), PORT + 1, lab.only("h1", SECOND))
        server = lab.serve()
        equal({n: (p["driver"], p["link"]) for n, p in ports_of(server).items()}["lan0"], ("absent", "down"), "the port that is not to be had")
        until_on_san(lab, lab.address("h1"))
        c = lab.hold(lab.address("h1", net="lan"))
        check("SAN" not in lab.stat(c)["by_reason"], f"a connection by a port that nobody serves: {lab.stat(c)}")
        finish(c)
        first.kill()
        until(lambda: ports_of(server)["lan0"]["link"] == "up", 10, "the port is opened")
        until_on_san(lab, lab.address("h1", net="lan"))


def add_interface(lab):
    subprocess.run(["ip", "link", "add", "new0", "netns", f"sdlab-{lab.name}-h1", "type", "veth", "peer", "name", "new0", "netns",
                    f"sdlab-{lab.name}-h2"], check=True)
    for i in (1, 2):
        for words in (f"addr add 10.79.0.{i}/24 dev new0", "link set new0 up"):
            lab.exec(f"h{i}", "ip", *words.split()).wait()


def interface_that_comes_later(mode):
    with Ports(LATER, mode=mode) as lab:
        server = lab.serve()
        until_on_san(lab, lab.address("h1"))
        add_interface(lab)
        until_on_san(lab, "10.79.0.1")
        c = lab.hold("10.79.0.1", "--bytes", 4 * MIB)
        lab.until_san(c)
        lab.exec("h1", "ip", "link", "del", "new0").wait()
        c.kill()
        until_on_san(lab, lab.address("h1"))
        check(server.running(), "the server has ended")


@scenario
def interface_that_comes_later_embedded():
    interface_that_comes_later("embedded")


@scenario
def interface_that_comes_later_with_daemons():
    interface_that_comes_later("daemon")


@scenario
def a_pair_of_queues_for_each_engine_of_a_port_that_comes_later():
    wire = ["h1:device = net_sandirect_virtio7,path=$DIR/new.sock,server=1,queues=2", "h2:device = net_vhost7,iface=$DIR/new.sock,client=1,queues=2"]
    with Ports(LATER[:2] + wire, mode="daemon", cores="0,1") as lab:
        if "net_sandirect_virtio" not in Path(lab.configs["h1"]).read_text().split("[port new0]")[0]:
            raise Skip("other drivers that listen have one pair of queues")

        def of_the_daemons():
            return [(p["queues"], p["link"]) for p in all_ports() if p["port"] == "new0"]
        server = lab.serve()
        equal(of_the_daemons(), [(1, "down")] * 2, "the port that is not there")
        add_interface(lab)
        until(lambda: of_the_daemons() == [(2, "up")] * 2, 20, lambda: f"the port is there: {of_the_daemons()}")
        until_on_san(lab, "10.79.0.1")
        before = lab.stat(server)["by_reason"]["SAN"]
        c = lab.hold("10.79.0.1", "--bytes", MIB, "--times", 20)
        finish(c, 20)
        equal(lab.stat(server)["by_reason"]["SAN"], before + 20, "connections of the server")


@scenario
def one_link_goes_down():
    """Connections by the other one do not notice, and when it is back new ones take it."""
    with Ports() as lab:
        socket = Path(lab.dir, "second.sock")
        ends = {"h1": f"net_virtio_user7,path={socket},server=1,queue_size=1024", "h2": f"net_vhost7,iface={socket},client=1"}
        second = {h: ["[port lan0]", "netdev = lan0", f"device = {device}"] for h, device in ends.items()}
        lab.configs = {h: lab.config(h, second[h]) for h in ends}
        server = lab.serve()
        only = {"san": lab.config("h2"), "lan": lab.only("h2", second["h2"])}
        steady, doomed = (lab.hold(lab.address("h1", net=net), "--bytes", 8 * MIB, config=only[net]) for net in ("san", "lan"))
        for c in (steady, doomed):
            lab.until_san(c)
        doomed.kill()
        until(lambda: ports_of(server)["lan0"]["link"] == "down", 10, "the link is down")
        equal(ports_of(server)["san0"]["link"], "up", "the other port's link")
        again = lab.hold(lab.address("h1", net="lan"), config=only["lan"])
        lab.until_san(again)
        for c in (steady, again):
            finish(c)


main()

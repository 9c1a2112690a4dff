# SPDX-License-Identifier: BSD-3-Clause
"""`sandirect ports`: NICs of a guest go to vfio-pci and back."""
import json
import os

import parts
import tap
from machine import Machine
from tap import check, equal, main, scenario

SANDIRECT = os.environ["QEMU_SANDIRECT"]


@tap.once
def guest():
    """One whose packets leave by a VLAN of its first NIC."""
    image = parts.base_image("virtio_net", "8021q").program(SANDIRECT)
    m = Machine("guest", image, [(end, "") for end in Machine.wire()]).boot()
    m.run("ip link set eth0 up; ip link add link eth0 name vlan5 type vlan id 5; ip link set vlan5 up\n"
          "ip addr add 192.0.2.2/24 dev vlan5 && ip route add default via 192.0.2.1")
    return m, *m.nics()


def ports(m, words="", status=0):
    return m.run(f"{SANDIRECT} ports {words}", status=status)


def nics(m):
    return {n["address"]: n for n in json.loads(ports(m, "--json"))["nics"]}


@scenario
def nics_are_listed():
    m, first, second = guest()
    n = nics(m)
    equal([n[first]["interfaces"], n[second]["interfaces"]], [["eth0"], ["eth1"]], "interfaces")
    equal([n[first]["default_route"], n[second]["default_route"]], [True, False], "default routes")
    check(n[second]["iommu"] and n[second]["kernel_driver"] == "virtio-pci", n)
    check("(default route by vlan5)" in ports(m), ports(m))


@scenario
def the_one_with_the_default_route_is_not_taken():
    m, first, _ = guest()
    for name in ("eth0", first, first.removeprefix("0000:")):
        out = ports(m, f"bind {name}", 1)
        check("default route (vlan5)" in out, out)
    equal(nics(m)[first]["interfaces"], ["eth0"], "interfaces")


@scenario
def another_goes_to_vfio_and_back():
    m, _, second = guest()
    check("vfio-pci has it" in ports(m, "bind eth1"), "bind")
    equal(nics(m)[second]["kernel_driver"], "vfio-pci", "driver")
    check("already" in ports(m, f"bind {second}"), "bind again")
    check("virtio-pci has it and calls it eth1" in ports(m, f"unbind {second}"), "unbind")
    equal(nics(m)[second]["interfaces"], ["eth1"], "interfaces")


@scenario
def what_is_no_nic_is_refused():
    m, _, _ = guest()
    for name, why in (("eth9", "no such NIC"), ("lo", "not on the PCI bus"), ("0000:00:1f.0", "no network device"),
                      ("../../x", "no such NIC"), ("0000:00:02.0x", "no such NIC")):
        out = ports(m, f"bind {name}", 1)
        check(why in out, out)


main()

# SPDX-License-Identifier: BSD-3-Clause
"""Stock dpdk-testpmd in a guest, on virtio devices that vfio-pci holds: what each driver passes.

test_testpmd.py [own|dpdk [DEVICE_OPTIONS]]: with our driver, or with DPDK's; on devices with these options of QEMU's.
"""
import sys
import tempfile

import parts
import tap
import testpmd
from machine import Machine
from parts import OWN
from tap import check, main, scenario

WHICH = sys.argv.pop(1) if len(sys.argv) > 1 else "own"
OPTIONS = sys.argv.pop(1) if len(sys.argv) > 1 else ""


@tap.once
def guest_and_peer():
    directory = tempfile.mkdtemp(prefix="sandirect-testpmd-")
    paths = [f"{directory}/{i}" for i in (0, 1)]
    far = testpmd.peer(paths, iommu=True)
    # Without the kernel's virtio_net: QEMU 7.2 crashes when that takes a vhost-user device with an IOMMU.
    image = parts.with_testpmd(parts.with_dpdk(parts.base_image(), "net_virtio"))
    machine = Machine("guest", image, [(("vhost-user", p, False, 1), OPTIONS) for p in paths]).boot()
    nics = parts.take_nics(machine)
    dut = testpmd.Testpmd(machine.program(parts.testpmd_command(nics, OWN if WHICH == "own" else None)), WHICH, 60)
    testpmd.links_up(dut)
    return machine, dut, far


@scenario
def registers_belong_to_the_process():
    """No driver of the kernel's has the devices but vfio-pci, and their BARs are mapped by the process."""
    machine, dut, _ = guest_and_peer()
    wanted = "net_sandirect_virtio_pci" if WHICH == "own" else "net_virtio"
    check(f"Driver name: {wanted}\n" in dut.info(0), dut.info(0))
    bound = machine.run("lspci -k -d 1af4:1041 2>/dev/null").count("Kernel driver in use: vfio-pci")
    tap.equal(bound, 2, "devices that vfio-pci holds")
    maps = machine.run("cat /proc/$(pidof dpdk-testpmd)/maps")
    check(maps.count("vfio-device") >= 4, f"mappings of registers: {maps}")


for name, run in testpmd.CHECKS.items():
    tap.scenarios[name] = lambda run=run: run(*guest_and_peer()[1:])
main()

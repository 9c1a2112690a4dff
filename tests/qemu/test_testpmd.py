# SPDX-License-Identifier: BSD-3-Clause
"""Stock dpdk-testpmd in a guest, on virtio devices that vfio-pci holds: what each driver passes.

test_testpmd.py [own|dpdk [DEVICE_OPTIONS]]: with our driver, or with DPDK's; on devices with these options of QEMU's.
"""
import sys

import parts
import tap
import testpmd
from tap import check, main, scenario

WHICH = sys.argv.pop(1) if len(sys.argv) > 1 else "own"
OPTIONS = sys.argv.pop(1) if len(sys.argv) > 1 else ""


@tap.once
def guest_and_peer():
    machine, far, nics = parts.guest_of_testpmd(OPTIONS)
    return machine, parts.testpmd_in(machine, nics, WHICH), far


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

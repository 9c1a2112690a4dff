# SPDX-License-Identifier: BSD-3-Clause
"""What guests are made of: DPDK with the drivers that are wanted, our own programs."""
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "drivers")]
from image import Image
from machine import KERNEL, need
from tap import Failure, Skip

DRIVER = os.environ.get("QEMU_DRIVER", "")
OWN = "/usr/lib/librte_net_sandirect_virtio.so"


def dpdk_directory():
    """Where DPDK finds its drivers, and the end of their names: the version of its interface."""
    for path in sorted(Path("/usr/lib/x86_64-linux-gnu/dpdk").glob("pmds-*"), reverse=True):
        return path, path.name.removeprefix("pmds-")
    raise Failure("DPDK's drivers are not installed")


def base_image(*modules):
    need()
    image = Image()
    return image.modules(KERNEL / "modules", ["vfio-pci", "vfio_iommu_type1", "tun", "af_packet", *modules])


def with_dpdk(image, *drivers):
    directory, version = dpdk_directory()
    for name in ("bus_pci", "bus_vdev", "mempool_ring", *drivers):
        # By EAL's name for it, and by the linker's, which Sandirect asks for.
        for end in (version, version.partition(".")[0]):
            image.program(directory / f"librte_{name}.so.{end}")
    if not DRIVER:
        raise Skip("our driver was not built")
    return image.program(DRIVER, OWN)


def with_testpmd(image):
    image.tool("dpdk-testpmd").tool("stdbuf").tool("lspci").file("/usr/share/misc/pci.ids")
    return image.file("/usr/libexec/coreutils/libstdbuf.so")


def take_nics(machine, hugepages=256):
    """NICs for vfio-pci, memory for DPDK."""
    machine.run(f"echo {hugepages} > /proc/sys/vm/nr_hugepages")
    nics = machine.nics()
    machine.bind_vfio(*nics)
    return nics


def testpmd_command(nics, driver=None, arguments=""):
    devices = " ".join(f"-a {n}{arguments}" for n in nics)
    own = f"-d {driver} " if driver else ""
    return f"stdbuf -oL dpdk-testpmd --no-telemetry {own}{devices} --lcores 0@0,1@1 -m 256 -- -i --no-flush-rx --total-num-mbufs=4096"

# SPDX-License-Identifier: BSD-3-Clause
"""What guests are made of: DPDK with the drivers that are wanted, our own programs."""
import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "drivers")]
from image import Image
import testpmd
from machine import KERNEL, Machine, VhostUser, need
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
    return image.tool("dpdk-testpmd").tool("stdbuf").file("/usr/libexec/coreutils/libstdbuf.so")


def take_nics(machine):
    """NICs for vfio-pci, memory for DPDK."""
    machine.run("echo 256 > /proc/sys/vm/nr_hugepages")
    nics = machine.nics()
    machine.bind_vfio(*nics)
    return nics


# --- Sandirect in a guest ---

CONFIG = """[global]
spin = 20us
find_timeout = 500ms

[transport]
connect_timeout = 20s
dead_timeout = 20s

[port san0]
netdev = san0
device = %s
miniport = on
"""


def with_sandirect(image):
    for name in ("SANDIRECT", "DAEMON", "LIBRARY", "BACKEND"):
        image.program(os.environ["QEMU_" + name])
    return image.program(DRIVER)


def sandirect(machine, words, **kw):
    return machine.run(f"{os.environ['QEMU_SANDIRECT']} {words}", **kw)


def run(program):
    return f"{os.environ['QEMU_SANDIRECT']} run -- {program}"


def configure(machine, nic, address, general="", port=""):
    """general, port: further lines of these sections."""
    text = CONFIG.replace("[global]", "[global]\n" + general) % nic
    machine.run(f"cat > /etc/sandirect.conf <<'END'\n{text}hugepages = on\n{port}END\n"
                f"tunctl -t san0 && ip addr add {address}/24 dev san0 && ip link set san0 up")


# --- testpmd in a guest, and its peer here ---

def guest_of_testpmd(options):
    """A guest whose two NICs, with these options of QEMU's, vfio-pci has; the peer that is their back end; the NICs."""
    directory = tempfile.mkdtemp(prefix="sandirect-testpmd-")
    paths = [f"{directory}/{i}" for i in (0, 1)]
    far = testpmd.peer(paths, iommu=True)
    # Without the kernel's virtio_net: QEMU 7.2 crashes when that takes a vhost-user device with an IOMMU.
    image = with_testpmd(with_dpdk(base_image(), "net_virtio")).tool("lspci").file("/usr/share/misc/pci.ids")
    machine = Machine("guest", image, [(VhostUser(p), options) for p in paths]).boot()
    return machine, far, take_nics(machine)


def testpmd_in(machine, nics, who, *arguments):
    """who: "own" for our driver, "dpdk" for DPDK's."""
    devices = " ".join(f"-a {n}" for n in nics)
    own = f"-d {OWN} " if who == "own" else ""
    command = f"stdbuf -oL dpdk-testpmd --no-telemetry {own}{devices} --lcores 0@0,1@1 -m 256 -- {' '.join([*testpmd.INTERACTIVE, *arguments])}"
    t = testpmd.Testpmd(machine.program(command), who, 60)
    testpmd.links_up(t, ports=range(len(nics)))
    return t

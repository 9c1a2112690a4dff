# SPDX-License-Identifier: BSD-3-Clause
"""Guests under QEMU: emulated CPUs (TCG), an emulated IOMMU, virtio network devices behind it.

A guest is an Image (image.py) with the distribution's kernel (scripts/guest-kernel). The test talks to a shell on a virtio
port of its: machine.run("lspci -k") gives what it printed. Everything ends with the test.
"""
import atexit
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tap import Failure, Skip, check

KERNEL = Path(os.environ.get("QEMU_KERNEL", Path(__file__).resolve().parents[2] / ".cache/guest-kernel"))
QEMU = "qemu-system-x86_64"
# Emulated CPUs are slow, and those of a shared machine slower.
BOOT_SECONDS = 120


def need():
    if not shutil.which(QEMU):
        raise Skip(f"{QEMU} is not installed")
    if not shutil.which("busybox"):
        raise Skip("busybox-static is not installed")
    if not (KERNEL / "vmlinuz").exists():
        raise Skip(f"no kernel for guests in {KERNEL}: scripts/guest-kernel fetches one")


class Machine:
    """A guest with any number of NICs: each of `nics` is a netdev and its device's options. With slots=True they can be unplugged.

    Its CPUs and memory are those of `nodes` NUMA nodes; NICs in slots are on the last one.
    """
    started = 0

    def __init__(self, name, image, nics=(), cpus=2, memory=1024, nodes=1, netns=None, slots=False):
        need()
        self.process = self.errors = None
        self.name = name
        Machine.started += 1
        self.number = Machine.started
        self.slots, self.devices = slots, []
        self.dir = Path(tempfile.mkdtemp(prefix=f"sandirect-qemu-{name}-"))
        atexit.register(self.end)
        self.console = self.dir / "console"
        image.write(self.dir / "initramfs")
        self.errors = open(self.dir / "qemu.err", "wb")
        inside = ["ip", "netns", "exec", netns] if netns else []
        self.process = subprocess.Popen(inside + self._arguments(nics, cpus, memory, nodes), stdin=subprocess.DEVNULL,
                                        stdout=self.errors, stderr=self.errors, start_new_session=True)
        self.shell = None
        self.count = 0

    def _arguments(self, nics, cpus, memory, nodes):
        a = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "tcg,thread=multi",
             "-M", "q35,kernel-irqchip=split", "-cpu", "max,la57=off", "-smp", str(cpus), "-m", str(memory),
             "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on",
             "-kernel", str(KERNEL / "vmlinuz"), "-initrd", str(self.dir / "initramfs"),
             "-append", "console=ttyS0 panic=-1 quiet intel_iommu=on iommu=pt mitigations=off rdinit=/init",
             "-serial", f"file:{self.console}", "-qmp", f"unix:{self.dir}/monitor,server=on,wait=off", "-device", "virtio-serial-pci,disable-legacy=on",
             "-chardev", f"socket,id=shell,path={self.dir}/shell,server=on,wait=off", "-device", "virtserialport,chardev=shell",
             "-chardev", f"socket,id=program,path={self.dir}/program,server=on,wait=off", "-device", "virtserialport,chardev=program"]
        for n in range(nodes):
            a += ["-object", f"memory-backend-memfd,id=mem{n},size={memory // nodes}M,share=on", "-numa",
                  f"node,nodeid={n},memdev=mem{n},cpus={n * cpus // nodes}-{(n + 1) * cpus // nodes - 1}"]
        if self.slots and nodes > 1:
            a += ["-device", f"pxb-pcie,id=far,bus_nr=64,numa_node={nodes - 1}"]
        for n, (netdev, options) in enumerate(nics):
            a += netdev_arguments(n, netdev)
            device = {"driver": "virtio-net-pci", "id": f"nic{n}", "netdev": f"net{n}", "mac": f"52:54:00:00:{self.number:02x}:{n:02x}",
                      "disable-legacy": "on", "iommu_platform": True, "ats": True}
            device.update(typed(o) for o in options.split(",") if o)
            if self.slots:
                a += ["-device", f"pcie-root-port,id=slot{n},chassis={n + 1}" + (",bus=far" if nodes > 1 else "")]
                device["bus"] = f"slot{n}"
            self.devices.append(device)
            a += ["-device", json.dumps(device)]
        return a

    def unplug(self, n):
        """Asks the guest to let NIC n go."""
        self.monitor("device_del", id=f"nic{n}")

    def plug(self, n):
        self.monitor("device_add", **self.devices[n])

    @staticmethod
    def wire():
        """Two netdevs, of one guest or of two, with a cable between them."""
        directory = Path(tempfile.mkdtemp(prefix="sandirect-qemu-wire-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        ends = [f"{directory}/{i}" for i in (0, 1)]
        return [f"dgram,local.type=unix,local.path={a},remote.type=unix,remote.path={b}" for a, b in (ends, ends[::-1])]

    def boot(self):
        end = time.monotonic() + BOOT_SECONDS
        while self.shell is None:
            self.check_alive(end, "to be started")
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(f"{self.dir}/shell")
                self.shell = s
            except OSError:
                time.sleep(0.1)
        while True:
            self.check_alive(end, "to boot")
            self.shell.sendall(b"echo guest-is\"\"-up\n")
            if "guest-is-up" in self._read(1):
                break
        self._read(0.3)
        return self

    def check_alive(self, end, what):
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended with {self.process.returncode}: {(self.dir / 'qemu.err').read_text()[-800:]}")
        if time.monotonic() > end:
            raise Failure(f"{self.name} took too long {what}; its console: {self.console_text()[-800:]}")

    def console_text(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def _read(self, seconds, until=None):
        text = ""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.shell], [], [], left)[0]:
                try:
                    data = self.shell.recv(65536)
                except OSError:
                    data = b""
                if not data:
                    raise Failure(f"{self.name} has gone: {(self.dir / 'qemu.err').read_text()[-800:]} {self.console_text()[-800:]}")
                text += data.decode(errors="replace")
                if until and re.search(until, text):
                    break
        return text

    def run(self, command, seconds=60, status=0):
        """What a shell command printed; it must end with this status (None: any), and soon."""
        self.count += 1
        mark = f"end-of-{self.count}"
        # The mark is broken up, so that an echo of the command would not be taken for it.
        self.shell.sendall(f"(\n{command}\n) </dev/null 2>&1; s=$?; echo; echo {mark}'' $s\n".encode())
        pattern = rf"\n{mark} (\d+)\r?\n"
        text = self._read(seconds, pattern)
        m = re.search(pattern, text)
        if not m:
            raise Failure(f"{self.name}: {command!r} does not end in {seconds} s; it printed {text[-800:]!r}; "
                          f"console: {self.console_text()[-500:]!r}")
        out = text[:m.start()].replace("\r\n", "\n")
        check(status is None or int(m.group(1)) == status,
              f"{self.name}: {command!r} ended with {m.group(1)}: {out[-1500:]}")
        return out

    def background(self, command, log):
        self.run(f"setsid sh -c '{command}' >{log} 2>&1 &")

    def program(self, command):
        """A socket at a program's standard input and output. There is one at a time."""
        s = socket.socket(socket.AF_UNIX)
        s.connect(f"{self.dir}/program")
        self.run(f"{{ setsid {command} <&4 >&4 2>&1; }} 4<>/dev/vport0p2 &")
        return s

    def monitor(self, command, **arguments):
        """A command of QEMU's monitor protocol, such as set_link."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(f"{self.dir}/monitor")
            with s.makefile("rw") as f:
                for words in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    f.write(json.dumps(words) + "\n")
                    f.flush()
                    answer = {}
                    while not {"return", "error"} & answer.keys():  # a greeting, or events
                        answer = json.loads(f.readline())
        check("return" in answer, f"{self.name}: {command}: {answer}")

    def until(self, command, pattern, seconds=60):
        """Runs the command again and again until what it prints matches; gives the match."""
        end = time.monotonic() + seconds
        while True:
            out = self.run(command, status=None)
            m = re.search(pattern, out, re.M)
            if m:
                return m
            if time.monotonic() > end:
                raise Failure(f"{self.name}: waited {seconds} s for {pattern!r} of {command!r}, which printed {out[-1500:]!r}")
            time.sleep(0.3)

    def bind_vfio(self, *addresses):
        """NICs are taken from the kernel's driver; behind the emulated IOMMU."""
        for a in addresses:
            device = f"/sys/bus/pci/devices/{a}"
            self.run(f"if [ -e {device}/driver ]; then echo {a} > {device}/driver/unbind; fi\n"
                     f"echo vfio-pci > {device}/driver_override && echo {a} > /sys/bus/pci/drivers_probe")

    def nics(self):
        """PCI addresses of the network devices, in the order in which they were given."""
        out = self.run("for d in /sys/bus/pci/devices/*; do echo ${d##*/} $(cat $d/class) $(cat $d/vendor); done")
        return re.findall(r"^(\S+) 0x020000 0x1af4", out, re.M)

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        if self.errors:
            self.errors.close()
        if not os.environ.get("QEMU_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)


class VhostUser:
    """A netdev whose other side is a process of this host: what has the socket at this path open."""

    def __init__(self, path):
        self.path = path


class MultiTap:
    """A netdev with several queues: a tap device of the network namespace that QEMU runs in."""

    def __init__(self, name, queues):
        self.name, self.queues = name, queues

    @staticmethod
    def network():
        """A network namespace for this test."""
        name = f"sandirect-qemu-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        atexit.register(subprocess.run, ["ip", "netns", "del", name], check=False)
        return name


def typed(option):
    """"vectors=0" as QEMU's JSON wants it."""
    key, _, value = option.partition("=")
    return key, {"on": True, "off": False}.get(value, int(value) if value.isdigit() else value)


def netdev_arguments(n, netdev):
    """netdev: QEMU's words, a VhostUser or a MultiTap."""
    if isinstance(netdev, MultiTap):
        return ["-netdev", f"tap,id=net{n},ifname={netdev.name},queues={netdev.queues},vhost=off,script=no,downscript=no"]
    if isinstance(netdev, VhostUser):
        return ["-chardev", f"socket,id=chr{n},path={netdev.path},reconnect=1", "-netdev", f"vhost-user,id=net{n},chardev=chr{n}"]
    kind, _, rest = netdev.partition(",")
    return ["-netdev", f"{kind},id=net{n}" + ("," + rest if rest else "")]

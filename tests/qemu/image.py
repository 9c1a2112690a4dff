# SPDX-License-Identifier: BSD-3-Clause
"""The file system of a guest: an initramfs of this machine's own programs with the libraries that they need."""
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What cannot be told from a program's file: it is loaded by name.
LOADED_BY_NAME = ["libgcc_s.so.1", "libnss_files.so.2"]


class Image:
    """Files by their place in the guest; write() makes the archive (cpio's `newc` format, which the kernel takes)."""

    def __init__(self):
        self.files, self.links, self.places, self.seen = {}, {}, {}, set()
        self.program(shutil.which("busybox"), "/bin/busybox")
        self.file(HERE / "init", "/init", 0o755)
        self.text("/etc/passwd", "root::0:0:root:/root:/bin/sh\n").text("/etc/group", "root::0:\n")
        for name in LOADED_BY_NAME:
            found = Path("/lib/x86_64-linux-gnu") / name
            if found.exists():
                self.program(found)

    def file(self, source, place=None, mode=None):
        """What is one file here is one file there: a library that is loaded by two names must be the same."""
        place, real = str(place or source), Path(source).resolve()
        first = self.places.setdefault(real, place)
        if first == place:
            self.files[place] = (real, mode)
        else:
            self.links[place] = first
        return self

    def text(self, place, text, mode=0o644):
        self.files[place] = (text.encode(), mode)
        return self

    def program(self, source, place=None):
        """A program or library, and the libraries it is linked with, at the places they have here."""
        source = Path(source)
        self.file(source, place, 0o755)
        if source in self.seen:
            return self
        self.seen.add(source)
        out = subprocess.run(["ldd", str(source)], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", out):
            self.file(library, library, 0o755)
        return self

    def tool(self, name):
        path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        return self.program(path)

    def modules(self, directory, names):
        """Kernel modules, in /modules, and the order in which they can be loaded."""
        known = {p.stem.replace("-", "_"): p for p in Path(directory).rglob("*.ko")}
        order = []

        def add(name):
            path = known.get(name.replace("-", "_"))
            if not path or path.name in order:
                return
            depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
            for other in filter(None, depends.group(1).decode().split(",") if depends else []):
                add(other)
            order.append(path.name)
            self.file(path, "/modules/" + path.name)

        for name in ["virtio_pci", "virtio_console", *names]:
            add(name)
        return self.text("/modules/order", "".join(n + "\n" for n in order))

    def write(self, path):
        directories = {"/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/etc", "/mnt", "/var"}
        for place in [*self.files, *self.links]:
            parent = os.path.dirname(place)
            while parent != "/":
                directories.add(parent)
                parent = os.path.dirname(parent)
        with open(path, "wb") as out:
            for d in sorted(directories):
                self._entry(out, d, stat.S_IFDIR | 0o755, b"")
            self._entry(out, "/dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))
            for place, (source, mode) in self.files.items():
                data = source if isinstance(source, bytes) else source.read_bytes()
                self._entry(out, place, stat.S_IFREG | (mode or 0o644), data)
            for place, first in self.links.items():
                self._entry(out, place, stat.S_IFLNK | 0o777, first.encode())
            self._entry(out, "TRAILER!!!", 0, b"")

    def _entry(self, out, name, mode, data, device=(0, 0)):
        name = name.lstrip("/").encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0]
        out.write(b"070701" + b"".join(b"%08X" % f for f in fields) + name)
        out.write(b"\0" * (-out.tell() % 4) + data)
        out.write(b"\0" * (-out.tell() % 4))

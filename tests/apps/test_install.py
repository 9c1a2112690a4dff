# SPDX-License-Identifier: BSD-3-Clause
"""What `meson install` puts where, and that programs outside this tree can be built with it.

Usage: test_install.py BUILD-DIR
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tap import check, equal, main, say, scenario

BUILD = sys.argv.pop(1)
EXAMPLE = "share/doc/sandirect/examples/write.c"
NEAR, FAR = "127.0.97.1", "127.0.97.2"
root = Path(tempfile.mkdtemp(prefix="sdinstall-"))


def run(*words, **more):
    r = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60, **more)
    check(not r.returncode, f"{words[0]}: status {r.returncode}: {r.stdout[-1000:]}{r.stderr[-3000:]}")
    return r.stdout


def installed(pattern):
    found = sorted(root.glob("usr/local/" + pattern))
    equal(len(found), 1, f"files like {pattern}")
    return found[0]


def compile_and_link(source, program, package):
    where = installed("lib/**/pkgconfig/sandirect.pc").parent
    flags = run("pkg-config", "--cflags", "--libs", "--static", package,
                env={**os.environ, "PKG_CONFIG_PATH": where, "PKG_CONFIG_SYSROOT_DIR": root}).split()
    run("cc", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", source, "-o", program, *flags)


@scenario
def files():
    for pattern in ("bin/sandirect", "sbin/sandirectd", "lib/**/libsandirect.so", "share/man/man1/sandirect.1*",
                    "share/man/man5/sandirect.conf.5*", "share/man/man8/sandirectd.8*", "share/doc/sandirect/sandirect.conf",
                    "include/sandirect.h", EXAMPLE):
        installed(pattern)
    # The configuration is the operator's; what is installed anew must not replace it.
    check(not list(root.glob("**/etc/*")), "something is installed in etc")


@scenario
def a_program_for_sockets():
    source, program = root / "path.c", root / "path"
    source.write_text("#include <sandirect.h>\n#include <stdio.h>\n"
                      'int main(void)\n{\n\tprintf("%s %d\\n", sandirect_version(), sandirect_path(0));\n\treturn 0;\n}\n')
    compile_and_link(source, program, "sandirect")
    out = run(program, env={**os.environ, "LD_LIBRARY_PATH": installed("lib/**/libsandirect.so").parent})
    check(out.endswith(" -1\n"), f"it says {out!r}")


@scenario
def a_program_for_verbs():
    program = root / "write"
    compile_and_link(installed(EXAMPLE), program, "sandirect-verbs")
    far = subprocess.Popen([program, FAR, "udp"], stdout=subprocess.PIPE, text=True)
    try:
        say(run(program, NEAR, "udp", FAR))
        equal(far.communicate(timeout=30)[0], f"sum {1 << 20}\n", "what the other one has")
        equal(far.returncode, 0, "its status")
    finally:
        far.kill()


run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root)
try:
    main()
finally:
    shutil.rmtree(root)

# SPDX-License-Identifier: BSD-3-Clause
"""tests/bench/losssweep.py measures what it says: on the SAN, packet by packet, at the loss that was asked for."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from harness import PYTHON, SANDIRECT, SANITIZED, Skip, check, equal, main, need, say, scenario, sweep, until

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "losssweep.py"
BUILD = Path(SANDIRECT).parents[1]
NAME = f"e2e{os.getpid()}"  # as harness.sweep() knows them
LOSS = 5


def left():
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    return re.findall(rf"sdlab-{NAME}\S*", names)


@contextlib.contextmanager
def started(*words):
    """The script at work; at the end nothing may be left of it."""
    if os.geteuid():
        raise Skip("a lab needs root")
    if SANITIZED:
        raise Skip("it measures, and a sanitized build is slow")
    need("nft")
    sweep()
    directory = tempfile.mkdtemp(prefix="sde2e-")
    os.chmod(directory, 0o755)
    p = subprocess.Popen([PYTHON, "-B", SCRIPT, "--build", BUILD, "--lab", NAME, "--quick", "--json", directory + "/values",
                          *words], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                         env={**os.environ, "SANDIRECT_RUNTIME_DIR": directory + "/run"})
    try:
        yield p, Path(directory)
        equal(left(), [], "namespaces that are left")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        for lab in "ab":
            subprocess.run([SANDIRECT, "lab", "--name", NAME + lab, "down"], capture_output=True)
        shutil.rmtree(directory)


@scenario
def with_and_without_loss():
    with started("--loss", f"0,{LOSS}") as (p, directory):
        output = p.communicate(timeout=60)[0]
        equal(p.returncode, 0, f"its status; {output[-2000:]}")
        rows = json.loads((directory / "values").read_text())
    check({r["over"] for r in rows} >= {"san", "cubic"}, f"what was compared: {output}")
    for r in rows:
        what = f"{r['over']} at {r['loss']} %"
        # sockbench has compared what was sent with what has come
        check(min(r["stream_gbps"]) > 0 and min(r["stream_count"]) > 0, f"a stream over {what}: {r}")
        check(min(r["requests_count"]) > 0, f"requests over {what}: {r}")
        check(r["requests_p50_us"] <= r["requests_p99_us"] <= r["requests_p999_us"], f"{what}: {r}")
    lossy = next(r for r in rows if r["loss"])["kernel"]
    lost = lossy["dropped"] / lossy["packets"]
    say(f"the kernel lost {100 * lost:.2f} % of {lossy['packets']} packets")
    check(lossy["packets"] > 300 and LOSS / 100 / 4 < lost < LOSS / 100 * 3, f"kernel packets: {lossy}")
    check(lossy["bytes"] <= lossy["packets"] * 1500, f"packets of the kernel that are larger than the MTU: {lossy}")
    san = {r["loss"]: r for r in rows if r["over"] == "san"}
    check(max(san[0]["requests_p99_us"]) < min(san[LOSS]["requests_p99_us"]), f"loss is not felt on the SAN: {san}")


@scenario
def interrupted():
    """While it makes its labs, and while it measures."""
    for namespaces, pause in ((1, 0), (4, 1)):
        with started("--loss", f"0,{LOSS}") as (p, _):
            until(lambda: len(left()) >= namespaces, 20, "it makes its labs", every=0.002)
            time.sleep(pause)
            p.send_signal(signal.SIGTERM)
            output = p.communicate(timeout=20)[0]
            check("interrupted" in output and p.returncode == 1, f"status {p.returncode}: {output[-2000:]}")


@scenario
def what_is_wrong_is_said():
    for words, status, wanted in ((["--build", "/nowhere"], 1, "root" if os.geteuid() else "/nowhere"),
                                  (["--loss", "1,x"], 2, "1,x"), (["--loss", "51"], 2, "51")):
        r = subprocess.run([PYTHON, "-B", SCRIPT, *words], capture_output=True, text=True)
        check(r.returncode == status and wanted in r.stderr, f"{words}: status {r.returncode}, {r.stderr}")


if __name__ == "__main__":
    main()

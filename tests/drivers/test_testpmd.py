# SPDX-License-Identifier: BSD-3-Clause
"""Stock dpdk-testpmd on virtio drivers over a vhost-user socket: what each passes.

test_testpmd.py DRIVER.so [DEVICE[,ARGUMENTS]]; DEVICE is net_sandirect_virtio or, to compare, net_virtio_user.
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import tap
import testpmd
from tap import Skip, main, scenario

DRIVER = sys.argv.pop(1)
DEVICE, _, ARGUMENTS = (sys.argv.pop(1) if len(sys.argv) > 1 else "net_sandirect_virtio").partition(",")


@tap.once
def device_and_peer():
    if not shutil.which("dpdk-testpmd"):
        raise Skip("dpdk-testpmd is not installed")
    dut, far = testpmd.beside_a_peer(DRIVER, DEVICE, "".join("," + a for a in ARGUMENTS.split(",") if a))
    far("start", "stop")
    return dut, far


for name, run in testpmd.CHECKS.items():
    tap.scenarios[name] = lambda run=run: run(*device_and_peer())
main()

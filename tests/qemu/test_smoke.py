# SPDX-License-Identifier: BSD-3-Clause
"""A guest boots, our driver takes two PCI devices behind an IOMMU, and a thousand frames go through them."""
import parts
import testpmd
from machine import Machine
from tap import check, main, scenario


@scenario
def a_guest_forwards_a_thousand_frames():
    """One NIC is wired to the other, both of QEMU's own back end: a split ring and one that may be packed."""
    image = parts.with_testpmd(parts.with_dpdk(parts.base_image()))
    wire = Machine.wire()
    machine = Machine("smoke", image, [(wire[0], ""), (wire[1], "packed=on")]).boot()
    nics = parts.take_nics(machine)
    t = parts.testpmd_in(machine, nics, "own")
    check("net_sandirect_virtio_pci" in t.info(0), t.info(0))
    t("set fwd io", "start tx_first")
    testpmd.until_received(t, 1000, 60)
    t("stop")
    for p in (0, 1):
        x = t.xstats(p)
        check(not x["rx_q0_violations"] and not x["device_resets"] and not x["rx_errors"], x)


main()

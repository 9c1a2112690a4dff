/* SPDX-License-Identifier: BSD-3-Clause */
/* probe_pci: virtio network devices on the PCI bus, bound to vfio-pci. */
#include <errno.h>
#include <ethdev_pci.h>

#include "drivers/virtio/devargs.h"
#include "drivers/virtio/ethdev.h"
#include "drivers/virtio/pci.h"

enum {
	VENDOR = 0x1af4,
	TRANSITIONAL = 0x1000, /* which may have the 1.x interface, too */
	MODERN = 0x1041,
};

static int init(struct rte_eth_dev *eth)
{
	struct rte_pci_device *pci = RTE_ETH_DEV_TO_PCI(eth);
	const struct rte_devargs *args = pci->device.devargs;
	struct vn_dev *d = eth->data->dev_private;
	struct vn_devargs a;
	int e;

	d->eth = eth;
	d->data = eth->data;
	e = vn_devargs_parse(pci->device.name, args ? args->args : NULL, false, &a);
	if (e)
		return e;
	d->options = a.options;
	vn_device_setup(d);
	e = vn_pci_open(d, pci);
	return e ? e : vn_ethdev_init(eth);
}

static int probe(struct rte_pci_driver *driver, struct rte_pci_device *pci)
{
	if (rte_eal_process_type() != RTE_PROC_PRIMARY) {
		rte_log(RTE_LOG_ERR, vn_log_type, "%s: secondary processes cannot use it\n",
			pci->device.name);
		return -ENOTSUP;
	}
	return rte_eth_dev_pci_generic_probe(pci, sizeof(struct vn_dev), init);
}

static int remove_device(struct rte_pci_device *pci)
{
	struct rte_eth_dev *eth = rte_eth_dev_allocated(pci->device.name);

	return eth ? rte_eth_dev_close(eth->data->port_id) : 0;
}

static const struct rte_pci_id ids[] = {
	{RTE_PCI_DEVICE(VENDOR, TRANSITIONAL)},
	{RTE_PCI_DEVICE(VENDOR, MODERN)},
	{.vendor_id = 0},
};

static struct rte_pci_driver driver = {
	.id_table = ids,
	.drv_flags = RTE_PCI_DRV_INTR_LSC,
	.probe = probe,
	.remove = remove_device,
};

RTE_PMD_REGISTER_PCI(net_sandirect_virtio_pci, driver);
RTE_PMD_REGISTER_PCI_TABLE(net_sandirect_virtio_pci, ids);
RTE_PMD_REGISTER_KMOD_DEP(net_sandirect_virtio_pci, "* vfio-pci");
RTE_PMD_REGISTER_PARAM_STRING(net_sandirect_virtio_pci, VN_DEVARGS_COMMON);

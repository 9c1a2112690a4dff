/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pci: the bus whose devices are PCI functions with a virtio 1.x interface (4.1), their registers mapped into
 * the process.
 */
#ifndef SD_DRIVERS_VIRTIO_PCI_H
#define SD_DRIVERS_VIRTIO_PCI_H

#include <bus_pci_driver.h>

#include "drivers/virtio/device.h"

/* d is the device that has pci's registers. Errors: -ENODEV (it has no 1.x interface), -ENOMEM and those of
 * rte_pci_map_device. */
int vn_pci_open(struct vn_dev *d, struct rte_pci_device *pci);

#endif

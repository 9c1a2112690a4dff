/* SPDX-License-Identifier: BSD-3-Clause */
/* plug: devices on the PCI bus, which may be plugged in later than their port is opened, and be unplugged
 * while it is open. */
#ifndef SD_DRIVERS_DPDK_PLUG_H
#define SD_DRIVERS_DPDK_PLUG_H

#include <rte_dev.h>
#include <stdbool.h>
#include <stddef.h>

/* Can a driver of DPDK have device ("0000:03:00.0,args")? True for all that are not on the PCI bus. Else err
 * says what is missing. */
bool plug_is_in(const char *device, char *err, size_t err_len);
/* Sets *wanted when the machine's owner wants to take the device away: the kernel waits until it is let go
 * (vfio-pci's request). Seen by events_run. -ENOMEM. */
int plug_watch(const struct rte_device *device, bool *wanted);
void plug_unwatch(const struct rte_device *device, bool *wanted);

#endif

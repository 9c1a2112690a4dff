/* SPDX-License-Identifier: BSD-3-Clause */
/* pcidev: network devices on the PCI bus, as sysfs shows them, and which driver has them. */
#ifndef SD_APPS_PCIDEV_H
#define SD_APPS_PCIDEV_H

#include <stdbool.h>
#include <stddef.h>

#define PCIDEV_NETDEVS 8

struct pcidev {
	char address[16];		  /* "0000:03:00.0" */
	char driver[32];		  /* the kernel's; "" if none has it */
	char netdevs[PCIDEV_NETDEVS][16]; /* the interfaces that this driver has made of it */
	unsigned n_netdevs;
	bool network; /* of that class */
	bool iommu;   /* behind one */
};

/* By address or by the name of an interface. -ENODEV: there is no such; -EINVAL: an interface that is not on
 * the PCI bus. */
int pcidev_find(const char *name, struct pcidev *out);
/* Each network device, in order of addresses. 0, or the first error of see. */
int pcidev_each(int (*see)(void *ctx, const struct pcidev *d), void *ctx);
/* The interface by which this host's packets leave that no other route takes, if that is one of the device's,
 * or what has been made of one (a bridge, a bond, a VLAN): its name in out. */
bool pcidev_has_default_route(const struct pcidev *d, char *out, size_t len);
/* Takes the device from the driver that has it and lets driver have it, or, if that is NULL, whichever the
 * kernel would choose. -errno; if it was refused, the kernel's choice has it again. */
int pcidev_rebind(const struct pcidev *d, const char *driver);

#endif

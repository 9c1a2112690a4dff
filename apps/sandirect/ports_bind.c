/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect ports bind` and `unbind`: NICs go to vfio-pci and back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "pcidev.h"
#include "ports.h"

#define VFIO "vfio-pci"

static int find(const char *name, struct pcidev *d)
{
	int r = pcidev_find(name, d);

	if (r == -EINVAL)
		return command_fail("%s is not on the PCI bus; a port can use it as it is, see \"Kinds\" in "
				    "docs/ports.md",
			name);
	if (r)
		return command_fail("%s: no such NIC; `sandirect ports` lists them", name);
	if (!d->network)
		return command_fail("%s is no network device; `sandirect ports` lists them", name);
	return 0;
}

static int explain(const struct pcidev *d, const char *what, int r)
{
	if (r == -EACCES || r == -EPERM || r == -EROFS)
		return command_fail("%s: %s: %s; run as root", d->address, what, strerror(-r));
	if (r == -EIO)
		return command_fail("%s: " VFIO " does not take it; dmesg may say why", d->address);
	return command_fail("%s: %s: %s", d->address, what, strerror(-r));
}

int ports_bind(const char *name)
{
	struct pcidev d;
	char route[16];
	int r;

	if (find(name, &d))
		return 1;
	if (!strcmp(d.driver, VFIO)) {
		printf("%s has been bound to " VFIO " already\n", d.address);
		return 0;
	}
	if (!strcmp(d.driver, "mlx5_core"))
		return command_fail("%s: DPDK uses this NIC beside the kernel's %s, without " VFIO
				    "; a port's device is %s as it is",
			d.address, d.driver, d.address);
	if (!strcmp(d.driver, "mlx4_core"))
		return command_fail("%s: DPDK's driver of this NIC needs the kernel's %s, and takes all that "
				    "comes to it; use net_af_xdp on its interface",
			d.address, d.driver);
	if (pcidev_has_default_route(&d, route, sizeof route))
		return command_fail(
			"%s carries the default route (%s): this host would lose its network; use "
			"another NIC, or net_af_packet on this one",
			d.address, route);
	if (access("/sys/bus/pci/drivers/" VFIO, F_OK))
		return command_fail("the kernel has no " VFIO " driver: modprobe " VFIO);
	if (!d.iommu)
		return command_fail(
			"%s is behind no IOMMU, so a process could not be kept to its own memory: "
			"boot with intel_iommu=on (or amd_iommu=on) and enable it in the firmware",
			d.address);
	r = pcidev_rebind(&d, VFIO);
	if (r)
		return explain(&d, "bind", r);
	printf("%s: " VFIO " has it%s%s; a port's device is %s\n", d.address,
		*d.driver ? ", instead of " : "", d.driver, d.address);
	return 0;
}

int ports_unbind(const char *name)
{
	struct pcidev d;
	int r;

	if (find(name, &d))
		return 1;
	if (*d.driver && strcmp(d.driver, VFIO)) {
		printf("%s is the kernel's already (%s)\n", d.address, d.driver);
		return 0;
	}
	r = pcidev_rebind(&d, NULL);
	if (r)
		return explain(&d, "unbind", r);
	if (pcidev_find(d.address, &d) || !*d.driver)
		return command_fail("%s: the kernel has no driver for it", d.address);
	printf("%s: %s has it", d.address, d.driver);
	for (unsigned i = 0; i < d.n_netdevs; i++)
		printf("%s %s", i ? "," : " and calls it", d.netdevs[i]);
	putchar('\n');
	return 0;
}

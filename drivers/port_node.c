/* SPDX-License-Identifier: BSD-3-Clause */
/* The NUMA node of a device that need not be open. */
#include <stdio.h>
#include <string.h>

#include "base/pci.h"
#include "drivers/port.h"

static int read_node(const char *path)
{
	FILE *f = fopen(path, "re");
	int node = -1;

	if (f) {
		if (fscanf(f, "%d", &node) != 1)
			node = -1;
		fclose(f);
	}
	return node;
}

int port_numa_node(const char *device)
{
	const char *iface = strstr(device, ",iface=");
	char path[128];
	char address[SD_PCI_STRLEN];

	if (sd_pci_address(device, address))
		snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", address);
	else if (iface && (!strncmp(device, "net_af_packet", 13) || !strncmp(device, "net_af_xdp", 10)))
		snprintf(path, sizeof path, "/sys/class/net/%.*s/device/numa_node",
			(int)strcspn(iface + 7, ","), iface + 7);
	else
		return -1;
	return read_node(path);
}

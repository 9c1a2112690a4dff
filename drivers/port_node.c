/* SPDX-License-Identifier: BSD-3-Clause */
/* The NUMA node of a device that need not be open. */
#include <stdio.h>
#include <string.h>

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
	unsigned domain = 0, bus, slot, function;
	const char *iface = strstr(device, ",iface=");
	char path[128];
	int end = 0;

	if (sscanf(device, "%4x:%2x:%2x.%1x%n", &domain, &bus, &slot, &function, &end) != 4) {
		domain = 0;
		end = 0;
		if (sscanf(device, "%2x:%2x.%1x%n", &bus, &slot, &function, &end) != 3)
			end = 0;
	}
	if (end && (!device[end] || device[end] == ','))
		snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.%x/numa_node", domain, bus,
			slot, function);
	else if (iface && (!strncmp(device, "net_af_packet", 13) || !strncmp(device, "net_af_xdp", 10)))
		snprintf(path, sizeof path, "/sys/class/net/%.*s/device/numa_node",
			(int)strcspn(iface + 7, ","), iface + 7);
	else
		return -1;
	return read_node(path);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* What a device's name tells of it, open or not. */
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

/* "0000:03:00.1" or "03:00.1", perhaps with arguments behind. */
static bool parse(const char *device, unsigned address[4])
{
	int end = 0;

	if (sscanf(device, "%4x:%2x:%2x.%1x%n", &address[0], &address[1], &address[2], &address[3], &end) !=
		4) {
		address[0] = 0;
		end = 0;
		if (sscanf(device, "%2x:%2x.%1x%n", &address[1], &address[2], &address[3], &end) != 3)
			end = 0;
	}
	return end && (!device[end] || device[end] == ',');
}

bool port_is_pci(const char *device)
{
	unsigned address[4];

	return parse(device, address);
}

int port_numa_node(const char *device)
{
	const char *iface = strstr(device, ",iface=");
	char path[128];
	unsigned a[4];

	if (parse(device, a))
		snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.%x/numa_node", a[0], a[1],
			a[2], a[3]);
	else if (iface && (!strncmp(device, "net_af_packet", 13) || !strncmp(device, "net_af_xdp", 10)))
		snprintf(path, sizeof path, "/sys/class/net/%.*s/device/numa_node",
			(int)strcspn(iface + 7, ","), iface + 7);
	else
		return -1;
	return read_node(path);
}

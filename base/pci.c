/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/pci.h"

#include <stdio.h>

bool sd_pci_address(const char *device, char out[SD_PCI_STRLEN])
{
	unsigned domain, bus, slot, function;
	int end = 0;

	if (sscanf(device, "%4x:%2x:%2x.%1x%n", &domain, &bus, &slot, &function, &end) != 4) {
		domain = 0;
		end = 0;
		if (sscanf(device, "%2x:%2x.%1x%n", &bus, &slot, &function, &end) != 3)
			end = 0;
	}
	if (!end || (device[end] && device[end] != ','))
		return false;
	if (out)
		snprintf(out, SD_PCI_STRLEN, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, slot & 0xff,
			function & 0xf);
	return true;
}

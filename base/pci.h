/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses of devices on the PCI bus. */
#ifndef SD_BASE_PCI_H
#define SD_BASE_PCI_H

#include <stdbool.h>

#define SD_PCI_STRLEN 16 /* "0000:03:00.1" */

/* Does this name a device by its address, "0000:03:00.1" or "03:00.1", perhaps with ",arguments" behind? Then
 * out gets the whole of that; it may be NULL. */
bool sd_pci_address(const char *device, char out[SD_PCI_STRLEN]);

#endif

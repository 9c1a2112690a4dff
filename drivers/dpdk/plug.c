/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/dpdk/plug.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/pci.h"

#define DEVICES "/sys/bus/pci/devices/"

/* Drivers of the kernel that leave the device, or share it, with drivers in user space. */
static bool is_shared(const char *kernel_driver)
{
	static const char *const whole[] = {
		"igb_uio", "uio_pci_generic", "uio_hv_generic", "mlx4_core", "mlx5_core", "mana"};

	for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
		if (!strcmp(kernel_driver, whole[i]))
			return true;
	}
	return strstr(kernel_driver, "vfio"); /* vfio-pci, and its variants for certain devices */
}

bool plug_is_in(const char *device, char *err, size_t err_len)
{
	char address[SD_PCI_STRLEN], path[128], driver[256];
	const char *name;
	ssize_t n;

	if (!sd_pci_address(device, address))
		return true;
	snprintf(path, sizeof path, DEVICES "%s", address);
	if (access(path, F_OK)) {
		snprintf(err, err_len, "there is no PCI device %s", address);
		return false;
	}
	snprintf(path, sizeof path, DEVICES "%s/driver", address);
	n = readlink(path, driver, sizeof driver - 1);
	driver[n > 0 ? n : 0] = 0;
	name = strrchr(driver, '/');
	name = name ? name + 1 : driver;
	if (is_shared(name))
		return true;
	snprintf(err, err_len, "PCI device %s %s%s: sandirect ports bind %s", address,
		*name ? "belongs to the kernel's driver " : "has no driver", name, address);
	return false;
}

static void on_event(const char *device, enum rte_dev_event_type event, void *wanted)
{
	if (event == RTE_DEV_EVENT_REMOVE)
		*(bool *)wanted = true;
}

int plug_watch(const struct rte_device *device, bool *wanted)
{
	return rte_dev_event_callback_register(rte_dev_name(device), on_event, wanted);
}

void plug_unwatch(const struct rte_device *device, bool *wanted)
{
	rte_dev_event_callback_unregister(rte_dev_name(device), on_event, wanted);
}

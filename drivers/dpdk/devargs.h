/* SPDX-License-Identifier: BSD-3-Clause */
/* devargs: a DPDK device's name and arguments, as in "net_virtio_user0,path=/run/san,server=1". */
#ifndef SD_DRIVERS_DPDK_DEVARGS_H
#define SD_DRIVERS_DPDK_DEVARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "drivers/port.h"

/* The value of key; false when it is not there. */
bool devargs_get(const char *device, const char *key, char *out, size_t out_len);
/* Is key=1 there? */
bool devargs_is_on(const char *device, const char *key);
/* Is it a device of this driver ("net_memif")? */
bool devargs_is_driver(const char *device, const char *driver);

/* Refuses devices that do not belong into this process (-EINVAL) or whose interface is not there (-ENODEV).
 */
int devargs_check(const struct port_config *cfg, char *err, size_t err_len);
/* Writes what DPDK is to be told: cfg->device, with the arguments added that the MTU asks for. 0 or -EINVAL.
 */
int devargs_complete(const struct port_config *cfg, char *out, size_t out_len);
/* Bytes of a frame's room without which the device would refuse the memory pool; mostly 0. */
unsigned devargs_frame_room(const char *device);

#endif

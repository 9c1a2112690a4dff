/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * eal: DPDK's environment, started once per process, by the first port that needs it.
 */
#ifndef SD_DRIVERS_DPDK_EAL_H
#define SD_DRIVERS_DPDK_EAL_H

#include <stdbool.h>
#include <stddef.h>

#include "drivers/port.h"

/* Starts EAL unless it runs, and loads the driver of cfg->device. 0 or -EMFILE, -ENOMEM, -EPERM, -ENODEV,
 * -EINVAL, -EBUSY, with one line in err. Only the first port's hugepages and eal_args count. */
int eal_start(const struct port_config *cfg, char *err, size_t err_len);

/* The calling thread shares the main lcore's mempool caches from now on. A port's pool is only used by the
 * thread that holds the port, so no two threads use one cache at a time. */
void eal_adopt_thread(void);

#endif

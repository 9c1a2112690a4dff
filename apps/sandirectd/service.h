/* SPDX-License-Identifier: BSD-3-Clause */
/* What the daemon does: the broker for the programs of this host and, if there are ports, the bridge to
 * others. */
#ifndef SD_APPS_SERVICE_H
#define SD_APPS_SERVICE_H

#include <stdint.h>

#include "config/config.h"

struct service;

struct service_config {
	const struct cfg *cfg;	  /* ports and transport; its rules may change between calls of on_signals */
	uint32_t max_connections; /* of one user; 0: the broker's default */
};

/* Opens ports, while the process still has its rights. 0, or -errno after a message. */
int service_open(const struct service_config *cfg, struct service **out);
/* Serves programs at door, a listening socket that is the service's then, until on_signals, called when the
 * descriptor signals is readable, returns false. 0, or -errno after a message. */
int service_run(
	struct service *s, int door, int signals, _Bool (*on_signals)(struct service *s, int signals));
/* One line to the log: what there is. */
void service_tell(struct service *s);
void service_close(struct service *s);

#endif

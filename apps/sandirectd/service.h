/* SPDX-License-Identifier: BSD-3-Clause */
/* What the daemon does: the broker for the programs of this host and, if there are ports, the bridge to
 * others. */
#ifndef SD_APPS_SERVICE_H
#define SD_APPS_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/pack.h"
#include "config/config.h"

struct service;

struct service_config {
	const struct cfg *cfg;	  /* ports and transport; its rules may change between calls of on_signals */
	uint32_t max_connections; /* of one user; 0: the broker's default */
	uint64_t max_memory;	  /* the same, in bytes */
	uid_t owner;		  /* whose processes, beside root's, may take over */
};

/* Opens ports, while the process still has its rights; but for one that takes over, which only makes ready
 * what needs no port. 0, or -errno after a message. */
int service_open(const struct service_config *cfg, bool takes_over, struct service **out);
/* Has programs call at door, and those that want to take over at successors (takeover_listen(); -1: nowhere).
 * Both are the service's then. 0, or -errno after a message. */
int service_listen(struct service *s, int door, int successors);
/* Goes on with what another process's service has written instead: its door, its programs and their
 * connections, its ports; but sends nothing before service_taken_over(). Descriptors that are left in *u are
 * the caller's. 0, or -errno after a message: the process is to end without closing the service, as another
 * one goes on with it. */
int service_take_over(struct service *s, struct sd_unpack *u);
/* It is certain that the other one ends. */
void service_taken_over(struct service *s);
/* Of what a service writes for another. */
uint64_t service_format(void);
/* Serves until on_signals, called when the descriptor signals is readable, returns false. True: another
 * process has taken over, so that this one has to end as it is, without closing anything. */
bool service_run(struct service *s, int signals, bool (*on_signals)(struct service *s, int signals));
/* One line to the log: what there is. */
void service_tell(struct service *s);
/* The configuration's rules have. */
void service_rules_changed(struct service *s);
void service_close(struct service *s);

#endif

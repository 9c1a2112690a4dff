/* SPDX-License-Identifier: BSD-3-Clause */
/* Network namespaces by the names that iproute2 gives them under /run/netns. */
#ifndef SD_APPS_NETNS_H
#define SD_APPS_NETNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NETNS_DIR "/run/netns"

struct netns_id {
	dev_t dev;
	ino_t ino;
};

/* Which namespace a name stands for. 0, -ENOENT, or -ESTALE: the name is left over without a namespace. */
int netns_identify(const char *name, struct netns_id *out);
/* Moves the calling (single-threaded) process. */
int netns_enter(const char *name);
/* Calls fn for every name that begins with prefix. */
void netns_each(const char *prefix, void (*fn)(void *ctx, const char *name), void *ctx);
/* Removes the name; the namespace goes with its last process. */
int netns_remove(const char *name);
/* Calls fn for every process in the namespace; returns how many there are. */
unsigned netns_each_process(const struct netns_id *id, void (*fn)(void *ctx, pid_t pid), void *ctx);
/* Ends every process in the namespace except this one and its ancestors: SIGTERM, then SIGKILL. Returns how
 * many are left. */
unsigned netns_kill(const struct netns_id *id);
/* Is the interface of the calling process's namespace up, with a carrier? */
bool netns_interface_is_up(const char *ifname);

#endif

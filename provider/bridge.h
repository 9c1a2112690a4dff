/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bridge: the programs of a daemon and other hosts. What a program connects to that is not of this host, and
 * what comes for its listeners from others, goes through a couple of endpoints: one of the shm provider, one
 * of the provider that has the ports.
 *
 * It is the broker's `outside` (broker.h). One thread, the domain entered.
 */
#ifndef SD_PROVIDER_BRIDGE_H
#define SD_PROVIDER_BRIDGE_H

#include "provider/broker.h"
#include "provider/provider.h"

struct bridge;

/* san: has been started. shm: for its own ends (pv_shm_open with ""). Both belong to one domain and have
 * pv_upcall as their upcall. -ENOMEM. */
int bridge_open(struct pv *san, struct pv *shm, struct bridge **out);
/* What a broker is opened with; it is the bridge's until that is closed. */
const struct broker_outside *bridge_outside(struct bridge *b);
/* Resets its connections. The broker is closed before. */
void bridge_close(struct bridge *b);
/* Closes the ports and writes the connections, for another process's bridge, which has been told by its
 * broker, restored before, who listens. -EAGAIN: the ports are not open. */
int bridge_suspend(struct bridge *b, struct sd_pack *p);
/* Nobody else goes on. False: the ports cannot be opened, which may pass; until then the bridge may make no
 * progress. */
bool bridge_resume(struct bridge *b);
/* Opens the ports and takes all of it, but sends nothing. 0; -EIO: the ports cannot be opened, or are others;
 * -EPROTO: it makes no sense; -ENOMEM. On an error the process is to end without closing anything, as the
 * other one goes on. */
int bridge_restore(struct bridge *b, struct broker *broker, struct sd_unpack *u);
/* It is certain that this bridge goes on. */
void bridge_restored(struct bridge *b);
/* Tells versions apart whose records differ. */
uint64_t bridge_save_format(void);
/* Does what there is to do; returns how much. */
unsigned bridge_progress(struct bridge *b, struct broker *broker);

#endif

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
/* Does what there is to do; returns how much. */
unsigned bridge_progress(struct bridge *b, struct broker *broker);

#endif

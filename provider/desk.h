/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * desk: between the broker and the bridges, of which there is one for each engine. It is the broker's
 * `outside` (broker.h): what programs want from other hosts it gives to the engines in turn, and what comes
 * from there it gives to the broker. The broker's thread.
 */
#ifndef SD_PROVIDER_DESK_H
#define SD_PROVIDER_DESK_H

#include "provider/broker.h"
#include "provider/post.h"

#define DESK_ENGINES 16 /* at most */

struct desk;

struct desk_config {
	size_t size; /* sizeof(struct desk_config) */
	unsigned n_engines;
	bool bell;		     /* bridges write in other threads */
	uint32_t ring_max, ring_min; /* what an engine may buffer (broker_outside) */
};

/* -EINVAL, -ENOMEM, -EMFILE. */
int desk_open(const struct desk_config *cfg, struct desk **out);
/* Where the letters of engine i's bridge go. */
void desk_set_bridge(struct desk *d, unsigned i, struct post *letters);
/* Where theirs go; its bell ends the sleep of this thread. */
struct post *desk_post(struct desk *d);
/* What a broker is opened with; it is the desk's until that is closed. */
const struct broker_outside *desk_outside(struct desk *d);
/* Reads and answers; returns how many letters there were. */
unsigned desk_progress(struct desk *d, struct broker *broker);
/* The broker and the bridges are closed before. */
void desk_close(struct desk *d);

/* --- another process goes on --- */

/* All letters have been read. */
void desk_save(struct desk *d, struct sd_pack *p);
/* The broker has been restored. -EPROTO, -ENOMEM. */
int desk_restore(struct desk *d, struct broker *broker, struct sd_unpack *u);
uint64_t desk_save_format(void);

#endif

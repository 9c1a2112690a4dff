/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * resolver: from a peer's IP address and port to its native address, by asking the segment (FIND), with a
 * cache.
 *
 * Answers are kept per (address, port), silence per address. A negative entry costs nobody a wait: when it is
 * stale it still answers at once, and one question in the background brings it up to date. A host that
 * announces itself clears what was remembered against it.
 */
#ifndef SD_PROVIDER_RESOLVER_H
#define SD_PROVIDER_RESOLVER_H

#include <stdint.h>

#include "base/addr.h"
#include "base/list.h"
#include "transport/transport.h"

enum resolver_result {
	RESOLVER_PENDING, /* ops.resolved will tell */
	RESOLVER_FOUND,
	RESOLVER_SILENT, /* nobody answered */
	RESOLVER_NO_LISTENER,
	RESOLVER_REFUSED,
	RESOLVER_VERSION,
	RESOLVER_LINK_DOWN,
	RESOLVER_FULL, /* too many questions at once */
};

struct resolver_config {
	uint64_t timeout_ns;	  /* 0: 30 ms */
	uint64_t negative_ttl_ns; /* of silence; 0: 10 s. "No listener" is trusted for at most 1 s */
	uint64_t positive_ttl_ns; /* 0: 60 s */
};

/* Embedded in whatever waits for an answer. */
struct resolver_wait {
	struct list node;
};

struct resolver_entry;
struct engine;

#define RESOLVER_BUCKETS 256
#define RESOLVER_MAX	 4096

struct resolver {
	struct resolver_config cfg;
	struct engine *engine;
	struct list buckets[RESOLVER_BUCKETS];
	struct list by_age; /* all entries, least recently used first */
	struct list asking; /* entries with a question on its way */
	unsigned n_entries;
	uint64_t next; /* when resolver_timeout() has something to do */
};

void resolver_open(struct resolver *r, struct engine *e, const struct resolver_config *cfg);
void resolver_close(struct resolver *r);
/* Where is target, seen from local through port index? RESOLVER_FOUND fills *path; RESOLVER_PENDING queues w.
 */
enum resolver_result resolver_ask(struct resolver *r, uint64_t now, unsigned index,
	const struct sd_addr *local, const struct sd_addr *target, struct resolver_wait *w,
	struct tp_path *path);
/* An answer or announcement (target.port 0) arrived. */
void resolver_found(struct resolver *r, uint64_t now, const struct tp_found *f);
/* A connection along a cached answer failed: do not trust it any more. */
void resolver_distrust(struct resolver *r, const struct sd_addr *target);
void resolver_timeout(struct resolver *r, uint64_t now);

#endif

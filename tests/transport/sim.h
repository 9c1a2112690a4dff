/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim: a network in virtual time for tests of the transport. Hosts, each with a struct tp, are joined by
 * links (net.h) that lose, repeat, reorder, damage, mark, delay and limit; everything follows from one seed.
 * A host runs when something has arrived, a timer is due or its application wants to, and then as late as its
 * lag says. It has a clock of its own. Memory is counted, may run out, and may be asked for only where
 * transport.h allows it.
 */
#ifndef SD_TESTS_TRANSPORT_SIM_H
#define SD_TESTS_TRANSPORT_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/rng.h"
#include "monitor.h"
#include "net.h"
#include "transport/conn.h"

#define SIM_HOSTS_MAX 128

/* What runs on a host. */
struct sim_app {
	void (*event)(struct sim_host *h, struct tp_conn *c, void *user, unsigned events);
	void (*acceptable)(struct sim_host *h, struct tp_listener *l, void *user);
	void (*found)(struct sim_host *h, const struct tp_found *f);
	void (*qp_event)(struct sim_host *h, struct tp_qp *qp, void *user, unsigned events);
	void (*completion)(struct sim_host *h, struct tp_cq *cq, void *user);
	/* The host is awake. Returns when it wants to be, whatever happens. */
	uint64_t (*run)(struct sim_host *h);
};

struct sim_host {
	struct sim *sim;
	unsigned index;
	struct sd_addr addr;
	struct tp *tp; /* NULL: does not run */
	struct tp_config cfg;
	uint16_t max_payload;
	uint64_t lag;	 /* how late it may wake, ns */
	unsigned burst;	 /* packets it may send each time it is awake */
	uint64_t asleep; /* until then nothing runs here; SIM_NEVER: for ever */
	/* Its clock, which tp_* calls are given: behind (or ahead, below zero) of the simulation's, and so
	 * many millionths faster. */
	int64_t clock_behind;
	int clock_ppm;
	uint64_t wake_at;
	uint32_t check_at; /* slot of the connection that is looked at next */
	struct sim_packet *inbox, **inbox_tail;
	double alloc_fails;
	bool may_alloc;
	double in_parts;   /* of what it sends, with tp_output_parts() */
	uint64_t hold_max; /* how long memory is held, ns */
	struct nic_hold *held;
	size_t blocks, bytes;
	struct tp_stats before; /* counters of earlier incarnations */
};

struct sim {
	uint64_t seed, begin, now;
	struct sd_rng rng;
	unsigned n_hosts;
	struct sim_host hosts[SIM_HOSTS_MAX];
	struct sim_link *links[SIM_HOSTS_MAX]; /* [from][to] */
	/* NULL: links[from][to]. Else which link a packet takes, by all that its path says. */
	struct sim_link *(*route)(struct sim *s, unsigned from, const struct tp_path *path);
	const struct sim_app *app;
	void *ctx;
	struct sim_heap heap;
	struct monitor *monitor; /* of every packet; whoever needs speed frees it and sets it to NULL */
	uint64_t packets, lost, damaged, wakes;
	unsigned at_once;   /* what has happened since time last moved */
	uint32_t trace;	    /* a digest of every packet and its time */
	uint32_t isn_below; /* not 0: packet numbers begin this far below 2^32 */
	bool verbose;
	FILE *pcap;	   /* all that is sent, if SIM_PCAP names a file; the last simulation's */
	char failure[256]; /* the first thing that went wrong; empty: nothing */
};

void sim_open(struct sim *s, uint64_t seed, unsigned n_hosts, unsigned family, const struct sim_app *app,
	void *ctx);
/* Destroys what runs and checks that all memory has come back. */
void sim_close(struct sim *s);
/* Creates the host's struct tp from h->cfg with a fresh seed. */
void sim_boot(struct sim_host *h);
/* Destroys it, as a crash would. */
void sim_crash(struct sim_host *h);
/* Another process goes on with what it had: saves, destroys, boots and restores. listen() makes the listeners
 * again, owned() is tp_restore()'s. What has arrived may be lost. */
void sim_hand_over(struct sim_host *h, void (*listen)(struct sim_host *h),
	void (*owned)(void *host, uint64_t name, struct tp_conn *c));
/* Runs until the time, or until nothing is left to happen, or until something has failed. */
void sim_run(struct sim *s, uint64_t until);
/* The host's application wants to run now. */
void sim_wake(struct sim_host *h);
/* What the host's clock shows, for tp_* calls. */
uint64_t sim_clock(const struct sim_host *h);
/* Bytes that nobody else has: those of seed from off on. */
void sim_bytes(uint64_t seed, uint64_t off, uint8_t *out, size_t len);
void sim_path(struct sim_host *from, struct sim_host *to, uint16_t local_port, uint16_t peer_port,
	struct tp_path *out);
void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* All counters of all incarnations. */
void sim_stats(const struct sim_host *h, struct tp_stats *out);

static inline bool sim_chance(struct sim *s, double p)
{
	return p > 0 && sd_rng_unit(&s->rng) < p;
}

/* Uniform in [lo, hi]. */
static inline uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi)
{
	return lo + sd_rng_below(&s->rng, hi - lo + 1);
}

/* In [lo, hi], each order of magnitude as likely as the next; lo at least 1. */
uint64_t sim_scale(struct sim *s, uint64_t lo, uint64_t hi);

#endif

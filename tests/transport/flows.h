/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flows: many senders and one receiver in the simulator. Hosts 1 and up have 100 Gbit/s and one flow each;
 * all meet at one output of a switch with 25 Gbit/s, which leads to host 0. Without queues a round trip takes
 * 20 us.
 */
#ifndef SD_TESTS_TRANSPORT_FLOWS_H
#define SD_TESTS_TRANSPORT_FLOWS_H

#include "sim.h"

#define RATE	  3125000000ull	 /* bytes a second: 25 Gbit/s */
#define NIC_RATE  12500000000ull /* 100 Gbit/s */
#define RTT	  (20 * SD_US)
#define BDP	  (RATE * RTT / SD_S)
#define MARK	  BDP	       /* CE from so many bytes on, where there is ECN */
#define BUFFER	  (512u << 10) /* bytes of the shared output */
#define FLOWS_MAX 65
#define PORT	  80
#define EXCHANGE  1024u	 /* bytes of a request, and of its answer */
#define ANSWER	  65536u /* bytes of each sender in an incast */
#define SAMPLES	  100000

enum work {
	BULK,	   /* to host 0, without end */
	EXCHANGES, /* of requests to host 0, and its answers, one at a time */
	INCAST,	   /* host 0 asks all at once, and again when all have answered */
};

struct flow {
	struct sim_host *from;
	struct tp_conn *near, *far; /* its end at the sender, and at host 0 */
	bool readable, writable;
	uint64_t start;
	uint64_t to_send, received; /* of what this end has to write; by host 0 */
	uint64_t before;	    /* received when the window began */
	uint64_t asked_at;
};

struct world {
	struct sim sim;
	enum work work;
	struct sim_queue out; /* of the switch, to host 0 */
	struct tp_listener *listener;
	struct flow flows[FLOWS_MAX];
	unsigned n;
	uint32_t samples[SAMPLES]; /* ns, of exchanges */
	unsigned n_samples;
	unsigned rounds, in_round; /* begun; flows that have answered */
	uint64_t round_at;
	uint64_t late_peak; /* bytes in the queue, more than ten round trips into a round */
	double late_area, late_time;
};

extern struct world world;

/* Senders of n flows, which start at some time within the first spread ns. Links and flows may be changed
 * before it is started. */
void flows_open(enum work work, unsigned n, unsigned mtu, uint64_t spread);
void flows_start(void);
/* t: since the beginning. */
void flows_run(uint64_t t);

#endif

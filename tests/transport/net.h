/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net: what lies between the hosts of the simulator. A link leads one way from one host to another. By itself
 * it may have a rate and a queue of its own; or it leads through queues that several links share, one after
 * the other, as through the ports of switches. Then come its delay and its faults. All that is to happen
 * stands in one heap of events.
 */
#ifndef SD_TESTS_TRANSPORT_NET_H
#define SD_TESTS_TRANSPORT_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_NEVER    UINT64_MAX
#define SIM_BASE_MTU 1200 /* UDP payload that the transport takes for granted */
#define SIM_FRAMING  46	  /* bytes that a packet takes on a link and in a queue beside itself */
#define SIM_VIA_MAX  4

struct sim;
struct sim_host;
struct tp_path;

/* The output of a switch or a NIC: first in, first out, and what does not fit is dropped. Bytes count with
 * their framing. A packet's place is free when its last bit has left. */
struct sim_queue {
	uint64_t rate;	   /* bytes a second; 0: infinite, it is only counted */
	uint64_t capacity; /* bytes; 0: infinite */
	uint64_t mark; /* CE is set where more bytes are waiting when a packet arrives (DCTCP); 0: never */
	/* as it is */
	uint64_t bytes;
	uint64_t free_at, spare; /* when the last bit leaves; and parts of 1/rate ns that it is later */
	/* what has been since sim_queue_watch() */
	uint64_t since, changed;
	double area; /* bytes times ns: of the mean */
	uint64_t peak, packets, served, drops, marks;
};

struct sim_link {
	double loss, duplicate, reorder, corrupt, ce; /* probabilities */
	uint64_t delay, jitter;			      /* ns; jitter below what reorders is smoothed out */
	uint64_t reorder_delay;			      /* of a reordered packet, at most */
	uint64_t rate;				      /* bytes a second; 0: infinite */
	uint64_t queue;				      /* ns of waiting before the tail is dropped; 0: never */
	uint64_t mark;				      /* ns of waiting before CE is set; 0: never */
	struct sim_queue *via[SIM_VIA_MAX];	      /* in this order, before the delay; NULL ends them */
	uint16_t mtu; /* a UDP payload of more bytes is lost without a word; 0: none is */
	bool down;
	/* Arrivals keep their order, also when the delay changes, unless this is set to 0 then. */
	uint64_t last_arrival;
	uint64_t free_at;
};

struct sim_packet {
	struct sim_link *link;
	struct sim_queue *in; /* where it waits */
	uint8_t from, to, hop;
	bool ce;
	uint16_t len;
	struct sim_packet *next; /* in the inbox of a host */
	uint8_t data[];
};

enum sim_event_kind {
	SIM_ARRIVAL, /* of a packet, at its host */
	SIM_HOP,     /* a packet comes to its next queue, */
	SIM_SERVED,  /* and leaves it */
	SIM_CALL,
	SIM_WAKE, /* of a host: after all else that happens at that time */
};

/* The heap's key is (at, kind below SIM_WAKE or not, order). */
struct sim_event {
	uint64_t at, order;
	void *what;
	void (*call)(struct sim *s, void *what);
	enum sim_event_kind kind;
};

struct sim_heap {
	struct sim_event *events;
	size_t len, cap;
	uint64_t order;
};

void sim_heap_push(struct sim_heap *h, uint64_t at, enum sim_event_kind kind, void *what);
struct sim_event sim_heap_pop(struct sim_heap *h);
/* With the packets that are on their way. */
void sim_heap_free(struct sim_heap *h);
/* Calls f(s, what) at that time, between other things: to change links, for example. */
void sim_at(struct sim *s, uint64_t at, void (*f)(struct sim *s, void *what), void *what);

/* What becomes of a link: its delay, rate, loss, mtu and down are then those of now. */
struct sim_change {
	struct sim_link *link, now;
	bool overtake; /* what is on the old path */
};

/* c has to stay. */
void sim_change_at(struct sim *s, uint64_t at, struct sim_change *c);

/* Puts a packet on the link that leads to path. */
void sim_send(struct sim *s, unsigned from, const struct tp_path *path, const uint8_t *data, size_t len);
/* SIM_HOP and SIM_SERVED. */
void sim_hop(struct sim *s, struct sim_packet *p);
void sim_served(struct sim *s, struct sim_packet *p);
/* Says what happens to a packet, if the simulation is verbose. */
void sim_describe(const struct sim *s, const char *what, const struct sim_packet *p);

/* Begins to count anew. */
void sim_queue_watch(const struct sim *s, struct sim_queue *q);
/* Bytes in it, on average over the time since then. */
double sim_queue_mean(const struct sim *s, const struct sim_queue *q);
/* Share of that time in which it was sending. */
double sim_queue_utilisation(const struct sim *s, const struct sim_queue *q);

#endif

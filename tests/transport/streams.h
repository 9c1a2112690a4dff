/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * streams: applications in the simulator that write, read, dawdle, close and abort at random, and an oracle
 * that knows every byte. A world is drawn from its seed, changed as a case wants it, and run.
 */
#ifndef SD_TESTS_TRANSPORT_STREAMS_H
#define SD_TESTS_TRANSPORT_STREAMS_H

#include "sim.h"
#include "trim.h"

#define PAIRS_MAX   160
#define PORT_FIRST  20000
#define SERVER_PORT 80
#define STALL_MAX   (15 * SD_S) /* of ever slower retransmissions; keepalive comes later */
#define BURST_MAX   64
#define QUEUES_MAX  8
#define CHANGES_MAX 16
#define CLOSED_PORT 81

enum ending {
	END_SHUT,     /* FIN after the last byte, read to the end, close */
	END_CLOSE,    /* close after the last byte, whether or not the peer has got it */
	END_CLOSE_AT, /* close at some time, whatever there is */
	END_ABORT_AT,
};

struct pair;

/* One end of a connection and what its application will do. */
struct side {
	struct pair *pair;
	struct side *peer;
	struct sim_host *host;
	struct tp_conn *c;
	uint64_t seed, total;
	uint32_t write_max, read_max;
	uint64_t pause;	    /* ns between its actions, at most */
	uint64_t read_from; /* reads nothing before */
	uint64_t window;    /* may be so many bytes ahead of what it has read; SIM_NEVER: any */
	enum ending ending;
	uint64_t end_at;
	bool wait_drained, cork;
	bool by_the_rings; /* lands and lends at times */
	uint8_t *landing, *lent;
	uint64_t written, read, resume;
	bool can_read, can_write, open, eof, shut, drained, closed, failed;
	uint64_t name; /* of c, in what was saved */
	int error;
};

struct pair {
	struct side side[2]; /* client, server */
	uint64_t start_at;
	uint16_t port;
	bool started, may_reset;
};

struct world {
	struct sim sim;
	struct pair pairs[PAIRS_MAX];
	unsigned n_pairs;
	struct tp_listener *listeners[SIM_HOSTS_MAX];
	unsigned backlog;
	bool any_address; /* listeners on the wildcard */
	uint64_t accept_from;
	bool may_refuse, may_die, short_of_memory;
	uint64_t stall_limit, last_progress;
	/* One host crashes and comes back, or hears and says nothing for a while. */
	unsigned trouble_host;
	uint64_t crash_at, crash_for, silent_at, silent_until;
	unsigned crashes; /* more of them, each some time after the last */
	uint64_t crash_every;
	/* Any host is handed over, so many times in all. */
	uint64_t hand_over_at[SIM_HOSTS_MAX], hand_over_every;
	unsigned hand_overs;
	struct sim_queue queues[QUEUES_MAX];
	struct sim_change changes[CHANGES_MAX];
};

/* The applications. */
extern const struct sim_app streams_app;
void streams_listen(struct world *w, struct sim_host *h);
/* Frees what a run has left of its memory. */
void streams_drop(struct side *x);

/* scene.c: what a seed means. Hosts and links that work well (perfect) or as badly as they may. */
void scene_draw(struct world *w, uint64_t seed, unsigned n_hosts, bool perfect);
/* n connections, of at most so many bytes each way, that begin within so many ns. */
void scene_pairs(struct world *w, unsigned n, uint64_t most, uint64_t within);
/* Links to a host lead through a queue that they share, and now and then through one that all share. */
void scene_share(struct world *w);
/* A direction of its own kind for each link: one loses, another is slow, a third is far. */
void scene_skew(struct world *w);
/* n links become others within so many ns; what is down does not stay so for long. */
void scene_change(struct world *w, unsigned n, uint64_t within);
/* Links from one host let nothing through that is larger than some size, at least so many bytes, from some
 * time on, for so many ns. */
void scene_hole(struct world *w, unsigned host, uint16_t least, uint64_t at, uint64_t lasts);
/* Runs it to its end, for at most so many ns, and judges: sim.failure says what was wrong. */
void scene_run(struct world *w, uint64_t limit);

#endif

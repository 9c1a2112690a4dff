/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * app_verbs: the program of one endpoint with queue pairs, completion queues, and regions in two domains. It
 * does what a script says, knows what it has done, and checks what comes of it.
 */
#ifndef SD_TESTS_TRANSPORT_APP_VERBS_H
#define SD_TESTS_TRANSPORT_APP_VERBS_H

#include "ledger.h"
#include "puppet.h"

#define PAIRS	3 /* the last one is of the second domain, */
#define AREAS	6 /* and so are the last two */
#define READS	3 /* not a power of two: numbers wrap in the middle */
#define CQ_SIZE 24

/* A queue pair and its peer; qp is NULL if there is none. */
struct pair {
	struct tp_qp *qp;
	struct peer peer;
	bool waits; /* the peer has connected, and is not accepted */
	struct ledger ledger;
};

struct verbs {
	struct puppet p;
	struct pair pairs[PAIRS];
	struct area areas[AREAS];
	uint64_t old_keys[8]; /* of regions that are no more */
	unsigned n_old_keys, n_peers;
	struct tp_pd *pds[2];
	struct tp_cq *scq, *rcq; /* of all queue pairs */
	uint32_t base;		 /* where SSNs and RSNs begin */
	bool wide;		 /* messages are larger than packets */
};

static inline struct tp_conn *pair_conn(const struct pair *q)
{
	return q->qp ? q->qp->conn : NULL;
}

static inline bool pair_is_open(const struct pair *q)
{
	return pair_conn(q) && pair_conn(q)->state == CONN_OPEN && !q->qp->error;
}

/* With a listener, all regions, and queue pairs that are not connected. The script says of what kind it is;
 * wide: packets may be larger than is used untried. */
void verbs_open(struct verbs *v, struct script *s, bool wide);
/* Polls all there is, and destroys everything; nothing may be left. */
void verbs_close(struct verbs *v);
/* A fresh queue pair, whose peer would connect. */
void verbs_create(struct verbs *v, struct pair *q);
void verbs_post_send(struct verbs *v, struct script *s, struct pair *q);
void verbs_post_receive(struct verbs *v, struct script *s, struct pair *q);
/* Up to so many of each completion queue; true: there was one. */
bool verbs_poll(struct verbs *v, unsigned max);
/* Registers a region, or deregisters it. */
void verbs_region(struct verbs *v, struct script *s);
/* Is everything in all regions that ought to be there, and nothing else? */
bool verbs_memory_is_right(const struct verbs *v);

#endif

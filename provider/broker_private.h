/* SPDX-License-Identifier: BSD-3-Clause */
/* What broker.c (programs and events), broker_listen.c and broker_stream.c share. */
#ifndef SD_PROVIDER_BROKER_PRIVATE_H
#define SD_PROVIDER_BROKER_PRIVATE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/addr.h"
#include "base/list.h"
#include "provider/broker.h"
#include "provider/channel.h"
#include "provider/ledger.h"

#define BROKER_BUCKETS 1024u /* a power of two */

enum watch_kind { WATCH_DOOR, WATCH_CLIENT, WATCH_QUEUE, WATCH_LEASE, WATCH_END };

/* What an event of the broker's epoll set points to. */
struct watch {
	enum watch_kind kind;
	int fd; /* -1: closed */
};

/* What is freed after the events at hand, which may point to it. */
struct grave {
	struct list node;
	void *whole;
};

struct broker {
	struct broker_config cfg;
	int events; /* epoll */
	struct watch door;
	struct list clients, listeners;
	struct list streams[BROKER_BUCKETS]; /* end.hash, by inode */
	struct list pending;		     /* stream.pending: not accepted yet, oldest first */
	struct list graves;
	struct ledger ledger; /* connections, each end to its user */
	struct broker_stats stats;
	uint64_t instance, n_ends; /* for the names of ends */
};

struct client {
	struct watch watch;
	struct grave grave;
	struct list node;
	uid_t uid;
	bool greeted;
};

/* Programs that listen on one address. */
struct listener {
	struct list node;
	uint64_t netns; /* cookie */
	struct sd_addr local;
	uid_t uid; /* of the first; the kernel lets no other user share the port */
	struct list queues;
};

/* One listening socket of the kernel's, and whoever has it. */
struct queue {
	struct watch watch; /* our half */
	struct grave grave;
	struct list node;
	struct listener *listener;
	int half; /* the programs' */
	ino_t inode;
	struct list leases;
	uint32_t backlog, pending;
};

/* Hangs up when the program that it was given to, and its forked children, listen no more. */
struct lease {
	struct watch watch;
	struct grave grave;
	struct list node;
	struct queue *queue;
	uid_t uid;
};

struct end {
	struct watch watch; /* our half; hangs up when the program's is gone */
	struct list hash;
	struct stream *stream;
	ino_t inode; /* of the program's half */
	uid_t uid;
	bool counted; /* in the ledger */
	bool gone;
};

struct stream {
	struct end end[2];
	struct grave grave;
	int memory;
	int socket; /* of end 0: it holds the port */
	uint64_t netns;
	struct sd_addr local, peer; /* of end 0 */
	/* until it is accepted */
	struct list pending;
	struct queue *queue; /* that was offered it last; NULL: that is no more */
	int offered;	     /* end 1's half, -1 once it is accepted */
	uint64_t again_at, again_after;
};

/* --- broker.c --- */

int watch_add(struct broker *b, struct watch *w, enum watch_kind kind, int fd, uint32_t events);
void watch_end(struct broker *b, struct watch *w);
void die(struct broker *b, struct grave *g, void *whole);
/* What the program at fd is a part of; 0: unknown. */
uint64_t netns_of(int fd);
ino_t inode_of(int fd); /* 0: unknown */

/* --- broker_listen.c --- */

/* Checks the program's claim and gives it a lease of a queue. 0 and what to send in *answer, whose last
 * descriptor the caller closes when it has, or -errno. */
int listener_add(struct broker *b, const struct client *c, const struct channel_listen *m, int socket,
	struct channel_message *answer);
struct listener *listener_find(struct broker *b, uint64_t netns, const struct sd_addr *a);
/* The queue with the fewest connections that wait, NULL: all are full or there is none. */
struct queue *listener_choose(struct listener *l);
/* It says how many may wait; whatever else it says is not listened to. */
void queue_hear(struct broker *b, struct queue *q);
/* True: it was the last one, and nothing is offered to its queue any more. */
bool lease_end(struct broker *b, struct lease *l);
void queue_free(struct broker *b, struct queue *q);
/* Is the socket bound to this name (wildcards and port as the program says)? */
bool is_bound_to(int socket, const struct sd_addr *name);

/* --- broker_stream.c --- */

/* Makes a connection and offers it; the socket is the stream's then. Fills in m's descriptors for the program
 * that connects; the caller closes m->fds[0] when it has sent them. */
int stream_join(struct broker *b, const struct client *c, const struct channel_connect *m, int socket,
	uint64_t now, struct channel_message *answer);
/* The stream that a program's descriptor is an end of; NULL: none. */
struct end *stream_end_at(struct broker *b, int fd);
void stream_describe(const struct end *e, struct channel_message *m);
void end_event(struct broker *b, struct end *e, uint32_t events);
/* The queue is no more: what it was offered is offered to another. */
void streams_offer_again(struct broker *b, struct queue *gone, uint64_t now);
void streams_timeout(struct broker *b, uint64_t now);
void stream_free(struct broker *b, struct stream *s);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * post: letters between the desk, which has the broker, and the bridges, each of which has an engine and a
 * thread. They are few, when connections begin; data does not go this way.
 *
 *   desk                      bridge
 *   CONNECT             ->             a program wants to be connected with another host
 *                       <-  CONNECTED  then COUPLE or FORGET follows
 *                       <-  REFUSED    the call is over
 *   FORGET              ->             the program is gone
 *                       <-  FORGOTTEN  always, and nothing of this call after it
 *   LISTEN, UNLISTEN    ->
 *                       <-  INCOMING   another host's peer has come; COUPLE, FULL or DROP follows
 *   ROOM                ->             after FULL: what waits may ask again
 *                       <-  PARTED     ends of connections have been closed
 */
#ifndef SD_PROVIDER_POST_H
#define SD_PROVIDER_POST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/list.h"
#include "provider/registry.h"

enum letter_kind {
	LETTER_CONNECT,
	LETTER_CONNECTED,
	LETTER_REFUSED,
	LETTER_FORGET,
	LETTER_FORGOTTEN,
	LETTER_LISTEN,
	LETTER_UNLISTEN,
	LETTER_INCOMING,
	LETTER_COUPLE,
	LETTER_FULL,
	LETTER_DROP,
	LETTER_ROOM,
	LETTER_PARTED,
};

struct wire; /* the bridge's */

/* One block of malloc's, the receiver's. An answer may be written on the letter that it answers. */
struct letter {
	struct list node;
	enum letter_kind kind;
	unsigned engine;	    /* who has written it, where that is a bridge */
	uint64_t call;		    /* CONNECT and what follows: the desk's number of it */
	struct wire *wire;	    /* CONNECTED, INCOMING and what answers them: what is to be coupled */
	struct sd_addr local, peer; /* CONNECT, INCOMING; LISTEN, UNLISTEN, ROOM: local alone */
	struct sd_addr at;	    /* INCOMING: what is listened on; its IP may be any */
	unsigned backlog;	    /* LISTEN */
	int error;		    /* REFUSED */
	enum sd_reason reason;
	struct pv_shm_end end; /* COUPLE */
};

/* Where one thread gets its letters. */
struct post {
	pthread_mutex_t lock;
	struct list letters;
	_Atomic bool any;
	int bell; /* eventfd, readable from the first letter on until they are taken; -1: nobody sleeps on it
		   */
};

/* bell: the receiver sleeps, and not where the letters are written. -EMFILE, -ENFILE. */
int post_open(struct post *p, bool bell);
/* With the letters in it. No thread may use it any more. */
void post_close(struct post *p);
/* NULL: no memory. */
struct letter *letter_new(enum letter_kind kind);
/* Any thread. */
void post_send(struct post *p, struct letter *l);
/* The next letter; NULL: none. The receiver's thread. */
struct letter *post_take(struct post *p);
/* Something that is not a letter: the receiver is to wake up. Any thread. */
void post_ring(struct post *p);
/* The receiver is awake. */
void post_heed(struct post *p);

static inline bool post_is_empty(const struct post *p)
{
	return !atomic_load_explicit(&p->any, memory_order_acquire);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* What shm.c (the provider and its events) and shm_ep.c (endpoints) share. Guarded by the domain's token. */
#ifndef SD_PROVIDER_SHM_PRIVATE_H
#define SD_PROVIDER_SHM_PRIVATE_H

#include "base/list.h"
#include "base/pace.h"
#include "provider/channel.h"
#include "provider/registry.h"
#include "provider/segment.h"

struct shm_ep;

/* An index that an event carries; the generation tells a late one of an earlier tenant. */
struct shm_slot {
	struct shm_ep *ep; /* NULL: free */
	uint32_t generation;
	uint32_t next_free;
};

struct shm {
	struct pv pv;
	char *path;  /* of the daemon's socket */
	int channel; /* to the daemon, -1: none */
	int events;  /* epoll over the channel, the endpoints' descriptors and queues; -1 */
	uint32_t next_id;
	uint64_t patience_ns;		/* with an answer of the daemon's */
	uint64_t retry_at, retry_after; /* the daemon is called */
	unsigned n_listeners, n_untold; /* of those, that are still to be told the daemon */
	struct sd_pace pace;		/* when the events are looked at next */
	struct list requests;		/* shm_ep.request */
	struct list hot;		/* shm_ep.hot: looked at by their cursors */
	unsigned n_hot;
	bool confined;	       /* no system calls but read, write and poll */
	bool armed;	       /* a thread sleeps, and is to be rung for the hot ones, too */
	struct list endpoints; /* shm_ep.node */
	uint64_t trim_at;      /* memory of idle ones is given back; UINT64_MAX: there is none */
	struct shm_slot *slots;
	uint32_t n_slots, free_slot;
};

enum shm_state {
	SHM_CONNECTING, /* the daemon has been, or is to be, asked */
	SHM_LISTENING,
	SHM_OPEN,
	SHM_FAILED, /* before it was ever open */
};

struct shm_ep {
	struct pv_ep ep;
	void *user;
	struct list node, hot, request;
	uint64_t give_up_at; /* the request */
	uint32_t id;	     /* of it */
	uint32_t slot;	     /* in shm.slots */
	enum shm_state state;
	int fd; /* that stands for it, rings the other end and hangs up when that is gone; or the listener's
		   queue; -1 */
	struct sd_addr local, peer;
	/* connections */
	uint64_t cookie; /* of the end */
	struct segment seg;
	uint64_t looked_at; /* when it was last seen to change, while it is hot */
	uint64_t seen_in;   /* how many bytes there were to read in all at the last look */
	unsigned seen_flags;
	unsigned direct; /* that many sleep on its word */
	int error;
	int result; /* of the connection attempt */
	enum sd_reason reason;
	uint8_t rings;	    /* that its descriptor has not been rid of, at least */
	bool fd_taken;	    /* by the program: not ours to close */
	bool used, trimmed; /* since the last round of trimming; idle since */
	bool blocked;	    /* our last send found the ring full */
	bool ended;	    /* no process has the other end any more */
	bool net;	    /* that was the daemon's, for another host */
	bool rd_shut;
	bool doomed; /* closed while somebody sleeps on its word */
	/* listeners */
	bool queue_ready; /* something may be there */
	bool untold;	  /* the daemon, which is a new one, is to hear of it */
	unsigned backlog;
	int socket; /* the kernel's listener, -1 */
	int lease;
};

static inline struct shm *shm_of(struct shm_ep *e)
{
	return container_of(e->ep.pv, struct shm, pv);
}

extern const struct pv_ep_ops shm_ep_ops;

/* --- shm_call.c --- */

/* Calls the daemon if it has not been. */
enum sd_reason shm_call(struct shm *x);
/* All that was asked is answered: by nobody. */
void shm_hang_up(struct shm *x);
/* Sends a request of e's, whose answer will find it (shm_ep_answer). Patient: waits for room, as long as the
 * daemon is waited for; else -EAGAIN if there is none. */
int shm_ask(struct shm_ep *e, struct channel_message *m, bool patient);
/* Returns when the answer has come, or will not. */
void shm_await(struct shm_ep *e);
/* Takes what the daemon has said; how much. */
unsigned shm_hear(struct shm *x);
/* When to do something about a daemon that is silent or gone, and that. */
uint64_t shm_call_deadline(const struct shm *x);
void shm_call_timeout(struct shm *x, uint64_t now);

/* --- shm_ep.c --- */

struct shm_ep *shm_ep_new(struct shm *x, void *user);
void shm_ep_free(struct shm_ep *e);
/* An answer for it has come; takes the descriptors it keeps out of m. */
void shm_ep_answer(struct shm_ep *e, struct channel_message *m);
/* In a forked child: an open connection or a listener goes on there. */
void shm_ep_in_child(struct shm_ep *e);
/* Opens an end whose descriptors are known. 0 or -errno, and then e is of no use. */
int shm_ep_attach(struct shm_ep *e, const struct pv_shm_end *end);
/* Its descriptor has something to say. */
void shm_ep_event(struct shm_ep *e, uint32_t events);
/* It has been idle: its memory is given back. False: not all of it can be yet. *work grows by what was found.
 */
bool shm_ep_trim(struct shm_ep *e, unsigned *work);
/* Has anything changed since the last look? Raises what has. */
bool shm_ep_look(struct shm_ep *e);

/* --- shm.c --- */

#define SHM_CHANNEL_TAG UINT64_MAX /* of the events of the channel */

int shm_open_events(struct shm *x);
/* Tells a daemon that does not know them of our listeners. */
void shm_listen_again(struct shm *x);
int shm_watch(struct shm_ep *e);
void shm_unwatch(struct shm *x, int fd);
void shm_heat(struct shm_ep *e);
void shm_trim_later(struct shm *x);

#endif

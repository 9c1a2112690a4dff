/* SPDX-License-Identifier: BSD-3-Clause */
/* What broker.c (programs and events), broker_listen.c, broker_stream.c, broker_ends.c (which ends there
 * still are), broker_kernel.c (what is asked there) and broker_waste.c (what programs sent and is closed)
 * share. */
#ifndef SD_PROVIDER_BROKER_PRIVATE_H
#define SD_PROVIDER_BROKER_PRIVATE_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "base/addr.h"
#include "base/list.h"
#include "base/siphash.h"
#include "provider/broker.h"
#include "provider/channel.h"
#include "provider/ledger.h"

#define BROKER_BUCKETS 4096u /* a power of two */
#define BROKER_LOCALS  64u
#define BROKER_DELAYS  7u	 /* how long until an offer is made again */
#define BROKER_SIGNAL  SIGVTALRM /* ends waits inside system calls that a program may cause */

enum watch_kind { WATCH_DOOR, WATCH_CLIENT, WATCH_QUEUE, WATCH_LEASE };

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

/* An address that was one of its network namespace's a moment ago. */
struct local {
	uint64_t netns, since;
	struct sd_addr addr;
};

/* broker_ends.c */
struct ends {
	struct list alive;   /* end.place, in the order in which they were last seen */
	struct list doubted; /* end.place */
	int diag;	     /* NETLINK_SOCK_DIAG that lists UNIX sockets; -1: the kernel cannot */
	bool looking;	     /* the kernel is telling which there are */
	uint32_t round;	     /* of looks */
	uint64_t named;	     /* so many ends, with a new name */
	uint64_t now, judge_at, look_at;
	uint64_t rested_at;   /* no look before that */
	uint64_t pause, cost; /* until the next look; what this one has taken */
};

struct broker {
	struct broker_config cfg;
	int events; /* epoll */
	struct watch door;
	int spare; /* a descriptor that is given up to answer a call when there is no other */
	struct list clients;
	struct list stalled;		       /* client.stalled, in order of time */
	struct list listeners[BROKER_BUCKETS]; /* listener.node */
	struct list streams[BROKER_BUCKETS];   /* end.hash, by cookie */
	struct list due[BROKER_DELAYS];	       /* stream.due, each in order of time */
	struct list graves;
	struct ledger ledger; /* of connections: each end counts, of listeners and programs; of memory */
	struct broker_stats stats;
	struct sd_sipkey key; /* of listeners, and of the names of ends */
	struct ends ends;
	int diag;	/* NETLINK_SOCK_DIAG, -1: none */
	uint64_t netns; /* of diag */
	struct local locals[BROKER_LOCALS];
	struct list waste;
	timer_t timer;
	bool timed, ticks;
};

struct client {
	struct watch watch;
	struct grave grave;
	struct list node;
	uid_t uid;
	struct list calls; /* broker_call.node */
	unsigned n_calls;
	bool waits; /* is not heard until one of them has been answered */
	char program[CHANNEL_NAME_LEN];
	bool greeted, hung_up;
	/* Is not heard until it has read its answers; what it has sent may be all that keeps it from hanging
	 * up, so that has an end. */
	struct list stalled;
	uint64_t give_up_at;
};

/* A program's CONNECT that the outside has to answer. */
struct broker_call {
	struct list node;
	struct client *client;
	struct channel_connect wanted;
	uint32_t id;   /* of the request */
	int socket;    /* holds the port */
	void *user;    /* the outside's; NULL: it has been restored and not been asked for yet */
	uint64_t name; /* in what was saved */
};

/* Programs that listen on one address. */
struct listener {
	struct list node;
	uint64_t netns; /* cookie */
	struct sd_addr local;
	struct list queues;
	unsigned n_queues;
};

/* One listening socket of the kernel's, and whoever has it. */
struct queue {
	struct watch watch; /* our half */
	struct grave grave;
	struct list node;
	struct listener *listener;
	int half;   /* the programs' */
	int socket; /* where the kernel cannot be asked who listens: it shows that they still do. Or -1 */
	uint64_t cookie; /* the kernel's socket's */
	char program[CHANNEL_NAME_LEN];
	uid_t owner; /* its */
	struct list leases;
	struct list offered; /* stream.offer */
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

/* One half of a connection's pair, which a program has, the outside, or whoever it waits for. */
struct end {
	struct list hash, place;
	struct stream *stream;
	uint64_t cookie, name;
	uint32_t inode;
	uint32_t round;	      /* in which it was last seen */
	bool doubted, unseen; /* it may be gone, and was not seen in a look */
	bool gone;
};

struct stream {
	struct end end[2];
	/* Whose both ends are in the ledger: of whoever has connected, as nobody can help being connected to;
	 * when that end is gone, of the other. */
	uid_t payer, heir;
	bool paid;
	uint64_t bytes; /* of its memory and the outside's, when all is used; paid for, too */
	uint32_t ring;	/* of these, what the outside may have in each direction */
	enum channel_path path;
	int memory;
	int socket; /* of end 0: it holds the port */
	uint64_t netns;
	struct sd_addr local, peer; /* of end 0 */
	/* until it is accepted */
	struct list due, offer;
	struct queue *queue; /* that was offered it last; NULL: that is no more */
	int offered;	     /* end 1's half, -1 once it is accepted */
	uint64_t again_at;
	unsigned n_offers;
};

/* --- broker.c --- */

/* How many calls of a program may be unanswered: the answers, which come when they come, must find room. */
#define BROKER_CALLS 16u
/* Events that it is watched for from now on. */
void watch_for(struct broker *b, struct watch *w, uint32_t events);
bool is_permitted(const struct broker *b, bool server, const char *program, const struct sd_addr *addr);
/* False: the program does not read its answers, and is to be given up. */
bool answer(struct client *c, struct channel_message *m);
bool refuse(struct broker *b, struct client *c, uint32_t id, int error, enum sd_reason reason);
/* NULL: no memory, or the user has too many; the descriptor stays the caller's then. */
struct client *client_new(struct broker *b, int fd, uid_t uid);
void client_free(struct broker *b, struct client *c);
int watch_add(struct broker *b, struct watch *w, enum watch_kind kind, int fd, uint32_t events);
void watch_end(struct broker *b, struct watch *w);
/* Drops what a program has written, to the last byte: what it has passed beside one might be what keeps this
 * watch from hanging up. False: it has passed something. */
bool watch_drain(struct broker *b, struct watch *w, uid_t uid);
/* Its other half can pass no descriptors: dropping one might take long. */
void watch_refuse_fds(int fd);
void die(struct broker *b, struct grave *g, void *whole);
/* Counts that for the user. -EDQUOT: it has too much, also when all that it had and is gone is not counted;
 * -ENOMEM. */
int user_take(struct broker *b, uid_t uid, uint32_t n, uint64_t bytes);

/* --- broker_kernel.c --- */

void kernel_open(struct broker *b);
void kernel_close(struct broker *b);
/* The network namespace that a socket is in, and what tells it from all other sockets that ever were on this
 * host; 0: unknown, or no socket. */
uint64_t netns_of(int fd);
uint64_t cookie_of(int fd);
/* May kernel_listener() be asked? */
bool kernel_knows(const struct broker *b, uint64_t netns);
/* The cookie of the socket that the kernel would give a connection to; 0: none. */
uint64_t kernel_listener(struct broker *b, const struct sd_addr *local, const struct sd_addr *from);
/* Asks for all UNIX sockets of this network namespace, and then for one piece of the list after the other. 1:
 * there may be more, 0: no; -errno: it has come to nothing, and the descriptor is to be opened again. */
void kernel_unix_reopen(int *fd);
int kernel_unix_list(int fd);
int kernel_unix_next(int fd, void (*saw)(void *ctx, uint64_t cookie), void *ctx);
/* 0: there is that socket; -ENOENT: there is not; else it cannot be told. */
int kernel_unix_socket(int fd, uint32_t inode, uint64_t cookie);
/* Is it an address of the socket's network namespace? IPv6 elsewhere than in ours: unknown, so no. */
bool kernel_has_address(struct broker *b, int socket, uint64_t netns, const struct sd_addr *a, uint64_t now);

/* --- broker_waste.c --- */

struct waste {
	struct channel_waste channel;
	struct broker *broker;
	uid_t uid; /* whose it was */
};

/* For channel_recv_for(). */
struct waste waste_of(struct broker *b, uid_t uid);
/* One that is known to be a socket of this user's. */
void waste_socket(struct broker *b, uid_t uid, int fd);
/* All that is left in m. */
void waste_message(struct broker *b, uid_t uid, struct channel_message *m);
/* So much of this user's waits to be closed that nothing more is taken from it until some has been. */
bool waste_is_too_much(const struct broker *b, uid_t uid);
void waste_collect(struct broker *b);
/* From the one to the other this thread waits for nothing longer than some milliseconds. While there is much
 * to do it stays so: a signal now and then is cheaper than the timer's beginnings and ends. */
void waste_begin(struct broker *b);
void waste_idle(struct broker *b);
void waste_close(struct broker *b);

/* --- broker_outside.c --- */

/* The peer is another host's. 0: the call will be answered, and has taken the socket; -errno. */
int call_outside(struct broker *b, struct client *c, struct channel_message *m, enum sd_reason *reason);
void calls_forget(struct broker *b, struct client *c);

/* --- broker_listen.c --- */

/* The listener there, new or not; NULL: no memory. To be released if it gets no queue. */
struct listener *listener_obtain(struct broker *b, uint64_t netns, const struct sd_addr *a);
void listener_release(struct broker *b, struct listener *l);
/* The descriptors are the queue's unless it is NULL: no memory, or too many. What a claim would tell of it is
 * for the caller to fill in. */
struct queue *queue_new(struct broker *b, struct listener *l, int fd, int half);
/* For one that has no lease. Nothing is offered to it any more; then it is to be freed. */
void queue_stop(struct broker *b, struct queue *q);
void queue_set_backlog(struct broker *b, struct queue *q, uint32_t backlog);
/* Tells the outside who may be connected to there now. */
void listener_tell_outside(struct broker *b, const struct listener *l);
/* 0, and the descriptor is the lease's; -ENOMEM, -EDQUOT. */
int lease_new(struct broker *b, struct queue *q, uid_t uid, int fd);
/* Checks the program's claim and gives it a lease of a queue. 0 and what to send in *answer, whose last
 * descriptor the caller closes when it has, or -errno. The socket may be kept: it is -1 then. */
int listener_add(struct broker *b, const struct client *c, const struct channel_listen *m, int *socket,
	struct channel_message *answer);
/* The queue for a connection, that with the fewest which wait. 0; -ECONNREFUSED: nobody listens there that
 * is known here; -EAGAIN: all are full. */
int queue_choose(struct broker *b, uint64_t netns, const struct sd_addr *local, const struct sd_addr *from,
	struct queue **out);
/* Those that wait in a queue are still there; one that was taken out and not accepted needs another offer. */
bool queue_has_unread(const struct queue *q);
/* Its messages say how many may wait, and what was accepted; whatever else it says is not listened to. False:
 * it has been shut down. */
bool queue_hear(struct broker *b, struct queue *q, unsigned most);
#define QUEUE_TURN 16u
/* True: it was the last one, and nothing is offered to its queue any more. */
bool lease_end(struct broker *b, struct lease *l);
void queue_free(struct broker *b, struct queue *q);
/* Is the TCP socket bound to this name (wildcards and port as the program says)? */
bool is_bound_to(int socket, const struct sd_addr *name);
/* And does it neither listen there nor have a connection? An inherited one may have a name that its process
 * could not have got. */
bool is_idle_at(int socket, const struct sd_addr *name);

/* --- broker_stream.c --- */

/* Blank, to be given ends; NULL: no memory. */
struct stream *stream_new(struct broker *b);
/* Counts it for its payer, who may have too much: -EDQUOT, -ENOMEM. */
int stream_pay(struct broker *b, struct stream *s);
/* It has been sent to the queue. */
void stream_is_offered(struct broker *b, struct stream *s, struct queue *q, uint64_t now);
/* To be offered again after a delay. */
void stream_put_off(struct broker *b, struct stream *s, unsigned delay, uint64_t now);
/* Makes a connection and offers it; the socket is the stream's then. Fills in m's descriptors for the program
 * that connects; the caller closes m->fds[0] when it has sent them. -EHOSTUNREACH: another host's peer. */
int stream_join(struct broker *b, const struct client *c, const struct channel_connect *m, int socket,
	uint64_t now, struct channel_message *answer);
/* A stream whose ends nobody has yet: half[i] are the caller's. It counts for payer. */
int stream_make(struct broker *b, enum channel_path path, uint64_t netns, const struct sd_addr *local,
	const struct sd_addr *peer, uid_t payer, int half[2], struct stream **out);
/* Offers end 1, whose half is the stream's from then on. */
int stream_offer(struct broker *b, struct stream *s, struct queue *q, int half, uint64_t now);
/* Fills in the addresses and what names the end. */
void stream_describe(const struct end *e, struct channel_message *m);
/* The same of an end that is handed out with its half of the pair: CONNECTED or INCOMING. The descriptors
 * stay whose they are.
 */
void stream_hand_out(
	const struct stream *s, unsigned end, enum channel_type type, int half, struct channel_message *m);
/* A program says by the queue that it has accepted that end. */
void stream_accepted(struct broker *b, const struct queue *q, uint64_t cookie);
/* No process has it any more. */
void stream_end_gone(struct broker *b, const struct end *e);
/* The queue is no more: what it was offered is offered to another. */
void streams_offer_again(struct broker *b, struct queue *gone, uint64_t now);
uint64_t streams_deadline(const struct broker *b);
void streams_timeout(struct broker *b, uint64_t now);
void stream_free(struct broker *b, struct stream *s);

/* --- broker_ends.c --- */

void ends_open(struct broker *b);
void ends_close(struct broker *b);
/* Names the half, and makes it end i of s. 0, -ENOSYS, -ENOMEM. */
int end_open(struct broker *b, struct stream *s, unsigned i, int half);
/* The same for one that has its name, cookie and inode filled in. */
void end_add(struct broker *b, struct stream *s, unsigned i);
/* The end that a descriptor is, or that has this cookie; NULL: none. */
struct end *end_at(struct broker *b, int fd);
struct end *end_of_cookie(struct broker *b, uint64_t cookie);
/* Somebody says so of that one, and mostly when the other one is. */
void ends_may_be_gone(struct broker *b, uint64_t cookie);
/* There is reason to think that some are gone, or will be so long from now. */
void ends_look(struct broker *b, uint64_t after);
/* Which are gone is found out now, as somebody waits for room. */
void ends_settle(struct broker *b);
unsigned ends_progress(struct broker *b, uint64_t now);
uint64_t ends_deadline(const struct broker *b);

#endif

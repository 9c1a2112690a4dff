/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * broker: the daemon's side of channels (channel.h). It knows which programs of this host listen where, joins
 * two of them by a segment, and notices when they end. It sees no data: once two programs are joined they
 * need it no more, and they stay joined if it dies.
 *
 * A connection has a UNIX stream pair, whose halves are its ends. A half stands for the program's socket, in
 * whatever process it may get to. Writing to it rings the other end, and it hangs up when the other end is
 * gone, without the broker's help. The broker keeps none of them once both are taken, only the memory, for
 * those who adopt an end; it asks the kernel which ends there still are (broker_ends.c). A port, and what a
 * user has, are therefore free a moment after the last end is closed, and ten seconds after, where nobody
 * says so.
 *
 * A connection that nobody has accepted yet is kept here too: if the program that was offered it ends or
 * stops listening, another one that listens there is offered it. The mark in the segment sees to it that one
 * takes it.
 *
 * Programs are not trusted, and their users not with each other. A user has a number of connections; each
 * counts twice for whoever has connected and, when that end is gone, for whoever has accepted. A program
 * that is connected to the broker and one that listens count once. What counts once costs the broker at most
 * four descriptors, a connection three in all. The same user pays for the connection's memory: not what is in
 * use, which programs can change behind the broker's back, but what the rings can come to. Who has much gets
 * smaller rings.
 *
 * One thread, which gets SIGVTALRM: programs can prepare descriptors so that closing them takes long, and a
 * signal ends it. Errors are 0 or -errno.
 */
#ifndef SD_PROVIDER_BROKER_H
#define SD_PROVIDER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "provider/registry.h"

struct broker;
struct broker_call; /* a program that wants to be connected with another host */

/*
 * Who carries connections to other hosts and from them. Addresses are of the broker's own network namespace.
 * Its functions are called by the broker's, and must not call these.
 */
struct broker_outside {
	size_t size; /* sizeof(struct broker_outside) */
	void *ctx;
	/* What it can buffer of a connection, in each direction and in bytes, when a user has few; and at
	 * least. It is charged to whoever pays for the connection. */
	uint32_t ring_max, ring_min;
	/* 0: under way; broker_connected() or broker_refuse() follows, unless forget() comes first, which
	 * gets *user. -errno, with *reason: no. */
	int (*connect)(void *ctx, struct broker_call *call, const struct sd_addr *local,
		const struct sd_addr *peer, enum sd_reason *reason, void **user);
	void (*forget)(void *ctx, void *user); /* the program is gone, and so is the call */
	/* Somebody has begun to listen there, has another backlog, or has room in it again (local NULL:
	 * perhaps; something has been given back that was short); nobody listens there any more. */
	void (*listen)(void *ctx, const struct sd_addr *local, unsigned backlog);
	void (*room)(void *ctx, const struct sd_addr *local);
	void (*unlisten)(void *ctx, const struct sd_addr *local);
};

struct broker_config {
	size_t size;		  /* sizeof(struct broker_config) */
	uint32_t max_connections; /* of one user, counting each end; 0: 16384 */
	uint64_t max_memory;	  /* of one user, in bytes: what the rings of its connections can
				     come to; 0: a quarter of the machine's */
	unsigned max_class;	  /* of rings, segment.h; 0: 6 (256 KiB) */
	uint32_t outside_ms;	  /* the outside's patience with other hosts. Programs are told to have
				     CHANNEL_PATIENCE_MS more, and ten minutes at most */
	const struct broker_outside *outside; /* NULL: there are no other hosts. Outlives the broker */
	/* May this program connect to addr, or be connected to at it (server)? NULL: all may. Asked for each
	 * connection, so that the answer may change. */
	bool (*permits)(void *ctx, bool server, const char *program, const struct sd_addr *addr);
	void *ctx;
};

struct broker_stats {
	uint64_t clients, listeners, streams; /* now */
	uint64_t joined, refused, offered_again, bad_messages;
};

/* listening: a SOCK_SEQPACKET UNIX socket on which programs call; the broker's from then on. -ENOMEM,
 * -EMFILE. */
int broker_open(const struct broker_config *cfg, int listening, struct broker **out);
/* Hangs up. Connections between programs go on. */
void broker_close(struct broker *b);
/* Polls readable when there is something to do. */
int broker_fd(const struct broker *b);
/* Does what there is to do without blocking; returns how much. now: CLOCK_MONOTONIC in ns. */
unsigned broker_progress(struct broker *b, uint64_t now);
/* When it has something to do by itself; UINT64_MAX: never. */
uint64_t broker_deadline(const struct broker *b);
void broker_stats(const struct broker *b, struct broker_stats *out);

/* --- another process goes on --- */

/* The listening socket, which stays the broker's. */
int broker_door(const struct broker *b);
/* Writes all there is, but for the listening socket. From then on the broker is not to be used, nor to be
 * closed, unless it is known that nobody else goes on. */
void broker_save(struct broker *b, struct sd_pack *p);
/* Tells versions apart whose records differ. */
uint64_t broker_save_format(void);
/* b is fresh. The outside is told of listeners; calls that it had are to be claimed. Descriptors that are
 * left in *u are the caller's. -EXDEV: of another network namespace;
 * -EPROTO: it makes no sense, or there is no memory: b is only good to be closed, then. */
int broker_restore(struct broker *b, struct sd_unpack *u, uint64_t now);
/* What a call is named in that, and the call of that name, which the outside goes on with as user. NULL:
 * there is none. */
static inline uint64_t broker_call_name(const struct broker_call *call)
{
	return (uintptr_t)call;
}
struct broker_call *broker_call_named(struct broker *b, uint64_t name, void *user);
/* What the outside's descriptor fd is an end of, as broker_connected() or broker_incoming() has given it: all
 * but fd is made anew. -ENOENT, -EMFILE. */
int broker_end_again(struct broker *b, int fd, struct pv_shm_end *end);

/* --- for the outside --- */

/* It has closed an end. */
void broker_end_closed(struct broker *b);

/* It is connected: the program gets one end, the outside the other, which is to be used as end->local and
 * end->peer say. The call is over, also on an error. */
int broker_connected(struct broker *b, struct broker_call *call, struct pv_shm_end *end);
/* It is not; the call is over. */
void broker_refuse(struct broker *b, struct broker_call *call, int error, enum sd_reason reason);
/* The rules have changed. */
void broker_permits_changed(struct broker *b);
/* Another host's peer has connected to local: its end. -ECONNREFUSED: nobody listens there; -EPERM; -EAGAIN:
 * their backlog is full; -EDQUOT, -ENOMEM, -EMFILE, -ENFILE. After the latter four and -EAGAIN room() tells
 * when to try again. */
int broker_incoming(struct broker *b, const struct sd_addr *local, const struct sd_addr *peer, uint64_t now,
	struct pv_shm_end *end);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * segment: a stream in shared memory, a byte ring for each direction. Its two ends are two programs of one
 * host, or a program and the daemon. Neither end trusts the other: whatever is found in the memory is checked
 * before it is used, and a lie ends this connection (-EPROTO) and touches nothing else.
 *
 * Memory. A sealed memfd that can neither shrink nor grow. The first page has an area for each end, which
 * that end alone writes (but for `armed` and `accepted`). Then the rings. A ring has one of several sizes,
 * the classes; class c has SEGMENT_CLASS_MIN << c bytes, in a place of its own in the file, so that a ring
 * can change its class while bytes of the old one are still unread: bytes before the offset `at` are in the
 * old class, bytes from it on in the new one. Only the writer changes its class, when the reader has passed
 * the last `at`. Pages that were never touched, and those given back by segment_trim(), cost nothing. The
 * smallest rings lie together after the header; the others are mapped only while they are in use, as page
 * tables cost memory, too.
 *
 * Cursors are absolute 64-bit counts of bytes; the writer's is `tail`, the reader's `head`.
 *
 * Waiting. An end that is about to sleep says so in `armed`, then looks once more. The other end looks at
 * `armed` after each thing it publishes, and rings if it is set (segment_must_ring). How to ring is the
 * caller's.
 *
 * Sharing. After a fork both processes may use their end: segment_share() before it, then every operation is
 * under a lock in the memory, which a process that died with it gives up. Until then one thread at a time,
 * and no lock. In each process it is one thread at a time always. Who has the lock is known by its process
 * number, so they have to be of one PID namespace; a lock that a live process does not give up within two
 * seconds, or that was taken from one, ends the connection (-EPROTO). That an end is shared is also in the
 * memory, for others that have it; as the other end can write that, too, a lock is waited for only shortly
 * where this process knows nothing of sharing, and not at all at an end that is `alone`.
 *
 * Errors are 0 or -errno.
 */
#ifndef SD_PROVIDER_SEGMENT_H
#define SD_PROVIDER_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/addr.h"

#define SEGMENT_CLASS_MIN 4096u /* bytes of class 0 */
#define SEGMENT_CLASSES	  9u	/* up to 1 MiB */

/* What an end says to the other; bits are only ever added. */
enum segment_flag {
	SEGMENT_FIN = 1 << 0,	  /* nothing follows after tail */
	SEGMENT_NO_READ = 1 << 1, /* reads no more: what is written may be dropped */
	SEGMENT_RESET = 1 << 2,	  /* given up: the other end gets ECONNRESET once it has read what is there */
	SEGMENT_CLOSED = 1 << 3,  /* no descriptor refers to this end any more: writing to it gives a reset */
};

/* What a sleeping end wants to be rung for. */
enum segment_want {
	SEGMENT_WANT_DATA = 1 << 0, /* bytes, or any flag of the other end's */
	SEGMENT_WANT_ROOM =
		1 << 1, /* a writer found its ring full: segment_is_roomy(), or no reader any more */
	SEGMENT_BY_FUTEX = 1 << 2, /* it sleeps on segment_word(): that is all the ringing it wants */
};

struct segment_header; /* in the memory */

/* One end, as this process sees it. Plain data; no pointer to it is kept. */
struct segment {
	struct segment_header *header; /* the beginning of the mapping, which moves when a ring grows */
	size_t size, mapped;	       /* of the memory, and how much of it is mapped */
	unsigned end;		       /* 0: the side that connected; 1: the side that accepted */
	unsigned max_class;
	uint64_t seen_head; /* of the other end's, some time ago */
	uint32_t me;	    /* this process */
	bool shared;	    /* by this process, or before it got the end */
	bool alone;	    /* no other process has or gets this end, whatever the memory says */
	bool failed;	    /* -EPROTO from now on */
};

/* Makes the memory of a connection between a (end 0) and b (end 1); rings of up to max_class. The memfd is
 * the caller's, close-on-exec. -EMFILE, -ENOMEM, -EINVAL. */
int segment_create(const struct sd_addr *a, const struct sd_addr *b, unsigned max_class, int *memfd);
/* What that memory has when all of it is used, in bytes. */
size_t segment_memory(unsigned max_class);
/* Maps it as one of its ends. The memfd may be closed afterwards. -EPROTO: not one of ours, or not sealed. */
int segment_open(int memfd, unsigned end, struct segment *out);
void segment_close(struct segment *s);
/* Our name and the other end's. */
void segment_names(const struct segment *s, struct sd_addr *local, struct sd_addr *peer);

/* Bytes taken, fewer than asked for when the ring is full; 0: full. Grows the ring when it is. -EPROTO. */
ssize_t segment_write(struct segment *s, const struct iovec *iov, int n);
/* Bytes copied out, 0: none there. peek leaves them. -EPROTO. */
ssize_t segment_read(struct segment *s, const struct iovec *iov, int n, bool peek);
/* Reading without a copy: the first contiguous bytes there are (0: none) and, when done, how many bytes were
 * used (-EINVAL: more than there are). Not for a shared end: others could read the same. */
ssize_t segment_peek_span(struct segment *s, const uint8_t **data);
int segment_consume(struct segment *s, size_t len);
/* The same for writing: contiguous room (0: full; the ring has grown if it could), and how much was filled.
 */
ssize_t segment_room_span(struct segment *s, uint8_t **data);
int segment_produce(struct segment *s, size_t len);

ssize_t segment_readable(struct segment *s); /* bytes; -EPROTO */
ssize_t segment_writable(struct segment *s); /* bytes that would be taken now, growth included; -EPROTO */
ssize_t segment_unread(struct segment *s);   /* written by us and not yet read by the other end; -EPROTO */
/* As with TCP, room for a third of the ring, growth included: programs trust that a write of moderate size
 * does not block. True also after a lie: the write tells. */
bool segment_is_roomy(struct segment *s);
uint64_t segment_written(const struct segment *s); /* all bytes ever, for statistics */
uint64_t segment_consumed(const struct segment *s);

void segment_say(struct segment *s, unsigned flags); /* enum segment_flag */
unsigned segment_said(const struct segment *s);	     /* by us */
unsigned segment_heard(const struct segment *s);     /* by the other end */
/* Set once, by the process that takes end 1 over; true: by this call. */
bool segment_accept(struct segment *s);
bool segment_is_accepted(const struct segment *s);

/* Before sleep: says what to ring for. The caller then looks once more: what was published before is seen by
 * that look, what is published after rings. At a shared end the wants of its processes add up, and nobody
 * takes them back but the other end, which rings: a bell has to reach them all. */
void segment_arm(struct segment *s, unsigned want);
void segment_disarm(struct segment *s);
/* What segment_arm() writes. Not for a shared end to sleep on. */
_Atomic uint32_t *segment_word(struct segment *s);
/* After anything was written, read or said: must the other end be rung? Asks once: the ring is then the
 * caller's duty. Which of its wants have come true is judged here: room only when it is worth waking for.
 * True after a lie, if the other end sleeps: say SEGMENT_RESET and ring. */
bool segment_must_ring(struct segment *s); /* a futex has been woken by then, which needs no ring */

/* From now on several processes use this end. Called by the one that forks, before it does. */
void segment_share(struct segment *s);
bool segment_is_shared(const struct segment *s);
/* In the child, before anything else. */
void segment_forked(struct segment *s);
/* Gives the pages of our ring back and starts again with the smallest class, if nothing in it is unread.
 * False: there is. */
bool segment_trim(struct segment *s);

/* 64 bytes that belong to this end's processes and mean nothing here: what a program that gets the descriptor
 * later has to know of the socket. Put replaces all of it, with zeros after len. The other end can write it,
 * too: what is got has to be checked. */
#define SEGMENT_NOTE_SIZE 64u
void segment_note_put(struct segment *s, const void *note, size_t len);
void segment_note_get(const struct segment *s, void *note, size_t len);

#endif

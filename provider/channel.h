/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * channel: what a program and the daemon say to each other when connections begin. One SOCK_SEQPACKET UNIX
 * socket for each process, one message per packet, descriptors beside it. Data never goes this way.
 *
 * The fields are fixed-size and in host order: both ends are on one machine, and the version in HELLO tells
 * apart those that differ. A message that is too short, too long, of an unknown type or with a wrong number
 * of descriptors is refused as a whole, and its descriptors are closed: each side checks the other's.
 *
 * Roles of the descriptors. `socket`: the TCP socket the program has made (it holds the port). `end`: one
 * half of a UNIX stream pair, which takes the place of the program's socket; the other half is the other
 * end. A byte that is written to one's own half wakes the other end up. When the last duplicate of the other
 * one is closed, in whatever process and however it died, one's own hangs up, whether there is a daemon or
 * not. (That the other has shut its half down for writing, EPOLLRDHUP alone, says nothing.) `memory`: a
 * segment. `queue`: a SOCK_SEQPACKET socket on which INCOMING messages arrive; all processes that have the
 * kernel's listening socket get the same one, as they share its backlog. `lease`: half of a pair that says,
 * by being open anywhere, that the queue has somebody who listens; forked children keep it with the listener.
 *
 *   program                     daemon
 *   HELLO                  ->
 *                          <-   WELCOME
 *   CONNECT  (socket)      ->
 *                          <-   CONNECTED (end, memory)        or  REFUSED
 *   LISTEN   (socket)      ->
 *                          <-   LISTENING (queue, lease)       or  REFUSED
 *   ADOPT    (end)         ->                                        inherited or passed
 *                          <-   ADOPTED (memory)               or  REFUSED
 *   CLOSED                 ->                                        a hint: both ends may be gone
 *   queue:                 <-   INCOMING (end, memory)
 *   queue: ACCEPTED        ->                                        an end that was offered is taken
 *   queue: BACKLOG         ->                                        how many may wait from now on
 *
 * An end is named by its cookie, which is the kernel's (SO_COOKIE of the half). What is said of one by
 * another program than has it changes nothing.
 */
#ifndef SD_PROVIDER_CHANNEL_H
#define SD_PROVIDER_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/reason.h"

#define CHANNEL_VERSION	 3u
#define CHANNEL_FDS	 2u /* at most, in one message */
#define CHANNEL_NAME_LEN 32u
/* How long a program waits for an answer before it takes the daemon for dead; with other hosts, whose silence
 * the daemon waits for, it is told in WELCOME. */
#define CHANNEL_PATIENCE_MS	1000u
#define CHANNEL_PATIENCE_MAX_MS 600000u

enum channel_type {
	CHANNEL_HELLO = 1,
	CHANNEL_WELCOME,
	CHANNEL_CONNECT,
	CHANNEL_CONNECTED,
	CHANNEL_LISTEN,
	CHANNEL_LISTENING,
	CHANNEL_ADOPT,
	CHANNEL_ADOPTED,
	CHANNEL_REFUSED,
	CHANNEL_INCOMING,
	CHANNEL_BACKLOG,
	CHANNEL_ACCEPTED,
	CHANNEL_CLOSED,
	CHANNEL_TYPE_END
};

/* Which end of its segment a program gets, and what carries it. */
enum channel_path {
	CHANNEL_PATH_SHM, /* the other end is a program of this host */
	CHANNEL_PATH_NET, /* the other end is the daemon, which speaks to another host */
};

struct channel_hello {
	uint32_t version;
	char program[CHANNEL_NAME_LEN]; /* terminated */
};

struct channel_welcome {
	uint32_t version;	  /* the lower of the two; 0: none in common, and the daemon hangs up */
	uint32_t max_connections; /* this user's limit */
	uint32_t patience_ms;	  /* to have with later requests */
};

struct channel_connect {
	struct sd_addr local; /* family 0: the daemon's choice; port: the socket's, or 0 */
	struct sd_addr peer;
};

struct channel_listen {
	struct sd_addr local; /* IP may be any */
	uint32_t backlog;
};

struct channel_backlog {
	uint32_t backlog;
};

/* ACCEPTED, CLOSED. */
struct channel_end {
	uint64_t cookie;
};

/* CONNECTED, ADOPTED, INCOMING. */
struct channel_stream {
	uint64_t cookie; /* of the end */
	struct sd_addr local, peer;
	uint8_t path; /* enum channel_path */
	uint8_t end;  /* 0 or 1: which of the segment's */
};

struct channel_refused {
	int32_t error;	/* an errno: what the call would give if there were no TCP to fall back to */
	int32_t reason; /* enum sd_reason */
};

struct channel_message {
	uint16_t type; /* enum channel_type */
	uint32_t id;   /* a request's, chosen by the program; its answer has the same. INCOMING: 0 */
	union {
		struct channel_hello hello;
		struct channel_welcome welcome;
		struct channel_connect connect;
		struct channel_listen listen;
		struct channel_stream stream;
		struct channel_refused refused;
		struct channel_backlog backlog;
		struct channel_end end;
	};
	/* Descriptors: the receiver owns them, close-on-exec; what it does not want to keep it closes with
	 * channel_close_fds(). The sender keeps its own. In the order that the list above gives. */
	unsigned n_fds;
	int fds[CHANNEL_FDS];
};

/* Sends m without blocking. 0; -EAGAIN: the other side does not read; -EPIPE, -ECONNRESET: it is gone;
 * -EINVAL: m itself is wrong; -EBADF: one of its descriptors is not open; -ETOOMANYREFS: this user has as
 * many descriptors on their way as its RLIMIT_NOFILE allows, -ENOBUFS, -ENOMEM: no memory in the kernel;
 * these pass with time, and a poll for POLLOUT does not wait for it. Raises no signal. */
int channel_send(int fd, const struct channel_message *m);
/* Takes the next message without blocking. 0; -EAGAIN: none; -ECONNRESET: the other side has hung up, and all
 * that it said before has been taken; -EPROTO: what came is not a message (and is gone, its descriptors
 * closed); -EMFILE: it is one, but descriptors were lost. On an error *m is empty, but for the type and the
 * id with -EMFILE: the sender can be told. Descriptors get the lowest free numbers (sd_fd_raise), and may be
 * of any kind. Closing the last descriptor of a socket or file that somebody else prepared may block
 * (SO_LINGER, FUSE): whoever serves others does it where that holds up nobody. */
int channel_recv(int fd, struct channel_message *m);
/* What whoever serves others gives to have descriptors closed that are no message's. */
struct channel_waste {
	void (*close)(const struct channel_waste *w, int *fds, unsigned n);
};
/* channel_recv(), which closes nothing itself; w may be NULL. */
int channel_recv_for(int fd, struct channel_message *m, const struct channel_waste *w);
/* Takes up to most bytes (64 at once) that ring an end or come by a lease, without blocking: how many, or
 * -EAGAIN. -EBADMSG: there were descriptors beside them, which no honest program sends: w has them. */
int channel_take_rings(int fd, size_t most, const struct channel_waste *w);
/* Gives an end a name made of 42 bits of the number, by which it is known wherever it gets to, and which is
 * another's when it is gone at the earliest: -EADDRINUSE until then. */
int channel_name_end(int fd, uint64_t number);
/* Does fd look like an end? Who has given it its looks is for the daemon to say (ADOPT). errno stays. */
bool channel_is_end(int fd);
/* Is m well-formed: type, terminated texts, families and ranges, the number of descriptors? Addresses are in
 * the form that sd_addr_unmap() leaves, with zeros where they have nothing; which ones they are is not
 * judged. Names of streams, CONNECT's peer and LISTEN's socket have a port; two addresses of a message have
 * one family unless CONNECT's local is none. A reason is one of enum sd_reason: sending a new one needs a new
 * version. */
bool channel_check(const struct channel_message *m);
void channel_close_fds(struct channel_message *m);

#endif

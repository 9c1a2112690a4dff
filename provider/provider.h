/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * provider: the SPI between the switch and what carries a connection.
 *
 * A provider makes endpoints: listeners and stream connections with TCP's names (IP address and port). All
 * operations are non-blocking; waiting is the switch's, with domain.h. Everything here is called with the
 * domain entered (pv_enter), so no implementation locks. Upcalls come from within operations and pv_progress,
 * with the domain entered; they must not call operations of the same endpoint that could destroy it.
 *
 * Errors are 0 or -errno. Providers: tcp (the kernel), ether (transport over NIC ports), loop (inside a
 * process), shm (between programs of one host).
 */
#ifndef SD_PROVIDER_PROVIDER_H
#define SD_PROVIDER_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/addr.h"
#include "base/reason.h"

struct pv;
struct pv_ep;
struct pv_domain;

/* Readiness. The values are those of poll(2) and epoll(7). */
enum pv_ready {
	PV_IN = 0x001,	   /* bytes, EOF or a connection to accept */
	PV_PRI = 0x002,	   /* urgent data */
	PV_OUT = 0x004,	   /* room to send, or connect finished */
	PV_ERR = 0x008,	   /* terminal error */
	PV_HUP = 0x010,	   /* both directions are shut, or never connected */
	PV_RDHUP = 0x2000, /* the peer has shut its direction */
	PV_FAILED = PV_IN | PV_OUT | PV_ERR | PV_HUP |
		    PV_RDHUP, /* what a connection shows that has ended with an error */
};

enum pv_flags {
	PV_PEEK = 1 << 0,
	PV_MORE = 1 << 1, /* more bytes follow at once: a short packet may wait */
	PV_LEND = 1 << 2, /* send: the bytes stay where they are until settle(), and need not be copied before
			   */
};

#define PV_NOTE_SIZE 64u

enum pv_close_mode {
	PV_CLOSE_GRACEFUL, /* what was sent is delivered in the background, then FIN; unread input turns it
			      into a reset */
	PV_CLOSE_ABORT,	   /* RESET (SO_LINGER 0) */
};

/* Upcall: the readiness of an endpoint rose (edge). user is the endpoint's. */
typedef void pv_ready_fn(void *user, unsigned events);

/* For who has endpoints of several kinds: user begins with one of these, and pv_upcall is the upcall. */
struct pv_upcall {
	void (*ready)(struct pv_upcall *u, unsigned events);
};
void pv_upcall(void *user, unsigned events);

/* Options an endpoint carries. A value below zero: leave as it is. */
struct pv_options {
	size_t size;	   /* sizeof(struct pv_options) */
	int nodelay, cork; /* booleans; nodelay off is Nagle's rule */
	int keepalive;	   /* boolean */
	int keep_idle_s, keep_interval_s, keep_count;
	int user_timeout_ms;
	int64_t send_buffer, recv_buffer; /* bytes */
};
#define PV_OPTIONS_NONE                                                                                      \
	{                                                                                                    \
		sizeof(struct pv_options), -1, -1, -1, -1, -1, -1, -1, -1, -1                                \
	}

/* One endpoint, for people and for SIOCINQ and TCP_INFO. */
struct pv_info {
	struct sd_addr local, peer;
	char state[16];
	uint64_t bytes_out, bytes_in, packets_out, packets_in, retransmits;
	uint64_t srtt_ns, min_rtt_ns, rto_ns;
	uint32_t cwnd, in_flight;
	uint64_t send_queued; /* written, not acknowledged */
	uint64_t send_unsent;
	uint64_t send_room; /* bytes that send() would take now */
	uint64_t recv_queued;
	uint32_t send_buffer, recv_buffer, mss;
	bool peer_closed; /* it reads no more, either; only where that can be known */
};

struct pv_ep_ops {
	size_t size; /* sizeof(struct pv_ep_ops) */
	void (*set_user)(struct pv_ep *e, void *user);
	/* Bytes taken; -EAGAIN: full, PV_OUT follows; -EPIPE after shutdown; the terminal error otherwise
	 * (every time). */
	ssize_t (*send)(struct pv_ep *e, const struct iovec *iov, int n, unsigned flags);
	/* Bytes; 0: EOF; -EAGAIN: none yet, PV_IN follows; the terminal error once all bytes before it are
	 * read. */
	ssize_t (*recv)(struct pv_ep *e, const struct iovec *iov, int n, unsigned flags);
	/* What was sent with PV_LEND is the caller's again. */
	void (*settle)(struct pv_ep *e);
	/* For a reader that has found nothing: what comes may go straight to data, until landed() returns how
	 * much it was. PV_IN rises when it is low bytes, or will not be more. -ENOTSUP, -EBUSY: not this
	 * time. */
	int (*land)(struct pv_ep *e, void *data, size_t len, size_t low);
	size_t (*landed)(struct pv_ep *e);
	/* Level: what is ready now. A listener: PV_IN while there is a connection to accept. */
	unsigned (*state)(struct pv_ep *e);
	/* SHUT_RD, SHUT_WR, SHUT_RDWR. */
	int (*shutdown)(struct pv_ep *e, int how);
	/* For a thread that waits for few endpoints and nothing else: a word that changes, with a FUTEX_WAKE
	 * for other processes' memory, when the readiness of this one may have risen. *value: what it is now.
	 * NULL: it has none at the moment. Undone with disarm_word, also if the endpoint was closed
	 * meanwhile. The end of a process that had the other end does not change it. */
	uint32_t *(*arm_word)(struct pv_ep *e, uint32_t *value);
	void (*disarm_word)(struct pv_ep *e);
	/* -EINPROGRESS, 0: connected, or the terminal error; *reason says why not when the peer decided it.
	 * PV_OUT rises when it changes. */
	int (*connect_result)(struct pv_ep *e, enum sd_reason *reason);
	/* The oldest waiting connection, whose ready upcalls then carry user; -EAGAIN. */
	int (*accept)(struct pv_ep *listener, void *user, struct pv_ep **out);
	int (*set_backlog)(struct pv_ep *listener, unsigned backlog);
	int (*set_options)(struct pv_ep *e, const struct pv_options *o);
	void (*info)(struct pv_ep *e, struct pv_info *out);
	/* The descriptor that stands for a connection and is to take the place of the program's socket, so
	 * that other processes can be given it; -1: there is none, the socket stays. The caller's from then
	 * on. note: at most PV_NOTE_SIZE bytes that go with it, for who adopts it later. */
	int (*take_fd)(struct pv_ep *e, const void *note, size_t len);
	/* Other processes are about to get that descriptor. */
	void (*share)(struct pv_ep *e);
	/* The number at which the program now has it, -1: none; the old one is about to be closed. */
	void (*moved)(struct pv_ep *e, int fd);
	/* Ends it; e is invalid afterwards and there are no more upcalls. Listeners: what was not accepted is
	 * reset. */
	void (*close)(struct pv_ep *e, enum pv_close_mode mode);
};

/* Every endpoint begins with this. */
struct pv_ep {
	const struct pv_ep_ops *ops;
	struct pv *pv;
};

struct pv_ops {
	size_t size; /* sizeof(struct pv_ops) */
	const char *name;
	/* Can a connection to peer go this way? SD_REASON_SAN or SD_REASON_LOOP: yes, and *local is the
	 * address to use (port untouched); else why not. A bound address is given in *local (family 0: none).
	 * Cheap: no start, no I/O. */
	enum sd_reason (*route)(struct pv *p, const struct sd_addr *peer, struct sd_addr *local);
	/* Does it own local (a wildcard: any address at all)? */
	bool (*serves)(struct pv *p, const struct sd_addr *local);
	/* Makes it able to carry traffic (opens ports, starts the EAL). Idempotent; slow the first time.
	 * SD_REASON_SAN, or why not; a failure is remembered for a while. */
	enum sd_reason (*start)(struct pv *p);
	/* Registers a listener; works before start, and takes effect with it. socket: the kernel's listener,
	 * or -1. -EADDRINUSE, -ENOMEM. */
	int (*listen)(struct pv *p, int socket, const struct sd_addr *local, unsigned backlog, void *user,
		struct pv_ep **out);
	/* Starts a connection between these names. socket: the kernel's, which holds local's port, or -1. The
	 * provider has been started. */
	int (*connect)(struct pv *p, int socket, const struct sd_addr *local, const struct sd_addr *peer,
		void *user, struct pv_ep **out);
	/* A descriptor that came from another process, by execve(2) or SCM_RIGHTS, and was one that take_fd()
	 * gave. The caller's still; note gets what take_fd() was given, which others can have changed.
	 * Blocks for as long as the daemon takes to answer. -ENOTSUP, -ENOENT: not one of this provider's,
	 * -ENOTCONN: nobody can be asked. */
	int (*adopt)(struct pv *p, int fd, void *user, void *note, size_t len, struct pv_ep **out);
	/* In a forked child, when it has been added to the child's domain: goes on with the endpoints that it
	 * had, but for connections that were being made. -ENOTSUP: it cannot, and is of no more use. */
	int (*in_child)(struct pv *p);
	/* From now on this process may be forbidden (seccomp(2)) all system calls but reading, writing and
	 * polling: what it has by now goes on, and nothing begins. Or not from now on (on is false). */
	void (*confine)(struct pv *p, bool on);
	/* --- for the domain --- */
	/* Moves packets and time on; returns how much it did (0: nothing). */
	unsigned (*progress)(struct pv *p, uint64_t now);
	/* When progress is needed even if nothing arrives; UINT64_MAX: never. */
	uint64_t (*deadline)(struct pv *p);
	/* Prepares for sleep: a descriptor that polls readable when progress is needed, or -ENOTSUP with
	 * *max_sleep_ns set to how often progress must be called instead; -1 with UINT64_MAX: nothing to wait
	 * for. */
	int (*arm)(struct pv *p, uint64_t *max_sleep_ns);
	/* rang: that descriptor was readable, or may have been. */
	void (*disarm)(struct pv *p, bool rang);
	/* Housekeeping, about every 100 ms: link state, addresses. */
	void (*slow)(struct pv *p, uint64_t now);
	/* Connections closed gracefully that still have bytes to deliver. */
	unsigned (*lingering)(struct pv *p);
	void (*close)(struct pv *p);
};

/* Every provider begins with this. */
struct pv {
	const struct pv_ops *ops;
	pv_ready_fn *ready;
	struct pv_domain *domain;
};

/* What a provider without background work puts into the domain's slots, so that no caller checks for NULL. */
unsigned pv_no_progress(struct pv *p, uint64_t now);
uint64_t pv_no_deadline(struct pv *p);
int pv_no_arm(struct pv *p, uint64_t *max_sleep_ns);
void pv_no_disarm(struct pv *p, bool rang);
void pv_no_slow(struct pv *p, uint64_t now);
unsigned pv_no_lingering(struct pv *p);
uint32_t *pv_no_word(struct pv_ep *e, uint32_t *value);
void pv_no_disarm_word(struct pv_ep *e);
void pv_no_settle(struct pv_ep *e);
int pv_no_landing(struct pv_ep *e, void *data, size_t len, size_t low);
size_t pv_no_landed(struct pv_ep *e);
int pv_no_fd(struct pv_ep *e, const void *note, size_t len);
void pv_no_move(struct pv_ep *e, int fd);
int pv_no_adopt(struct pv *p, int fd, void *user, void *note, size_t len, struct pv_ep **out);
void pv_no_share(struct pv_ep *e);
int pv_no_child(struct pv *p);
void pv_no_confine(struct pv *p, bool on);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sock: a TCP socket as the switch sees it. The application's descriptor is a kernel socket; beside it hangs
 * the companion: an endpoint of a SAN provider, or listeners. Fields change with the domain entered; state
 * may be read without.
 */
#ifndef SD_SWITCH_SOCK_H
#define SD_SWITCH_SOCK_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/addr.h"
#include "base/list.h"
#include "base/reason.h"
#include "base/sockaddr.h"
#include "provider/provider.h"
#include "switch/fdtab.h"
#include "switch/runtime.h"

enum sw_state {
	SW_IDLE,       /* neither connected nor listening: the kernel answers for it */
	SW_LISTENING,  /* the kernel listens, perhaps with listeners on the SAN beside it */
	SW_CONNECTING, /* the SAN path is being tried */
	SW_CONNECTED,  /* on the SAN path */
	SW_FAILED,     /* a connect in the background failed: its error waits in so_error */
	SW_KERNEL,     /* connected, or connecting, over kernel TCP */
	SW_DEAD,       /* a SAN connection of the parent, seen from a forked child */
};

enum sw_role { SW_CLIENT, SW_SERVER, SW_LISTENER };

#define SW_MAX_LISTENERS (2 * SW_MAX_PROVIDERS) /* a dual-stack wildcard counts twice */

struct sw_wait;

struct sw_sock {
	struct sw_obj obj;
	enum sw_state state;
	int fd;		      /* one of its descriptors */
	bool placed;	      /* the connection's own descriptor has the place of the kernel's TCP socket */
	int shadow;	      /* which is this one then; -1: an accepted connection has needed none yet */
	int domain;	      /* AF_INET or AF_INET6 */
	bool nonblock;	      /* O_NONBLOCK as the application sees it */
	bool was_forked;      /* a listener that forked processes have in common */
	bool kernel_nonblock; /* a listener whose kernel socket is non-blocking behind the application's back
			       */
	bool san_only;	      /* a rule forbids the fallback */
	bool known;	      /* since its birth: options and names that were set were seen */
	bool bound;	      /* known: it has a name of its own */
	bool error_told;      /* the terminal error has been reported */
	bool pipe_told;
	bool wr_shut, rd_shut;
	bool passed;	    /* SW_DEAD until it is adopted: another process has begun it */
	bool late;	    /* listening, but not on the SAN until this process waits for it */
	bool served;	    /* listening, and this process has waited for it */
	bool first_connect; /* connected in the background, and connect() was not called again since */
	uint8_t turn;	    /* accepts in a row from the SAN side */
	unsigned connects;  /* threads blocked in connect() */
	int so_error;
	enum sd_reason reason;
	enum sw_role role;
	struct pv_ep *ep;
	struct pv_ep **listeners; /* room for SW_MAX_LISTENERS; NULL: it never had any */
	unsigned n_listeners;
	int backlog;
	struct sd_addr local, peer;
	struct list watchers; /* sw_epitem.by_target */
	struct list waiters;  /* sw_link.node */
	struct list work;     /* on sw_rt.work */
	/* options.c */
	struct pv_options options;
	struct linger linger;
	uint64_t recv_timeout_ns, send_timeout_ns; /* 0: none */
	int recv_low;
	bool kernel_bound;	      /* has an option that the SAN path does not carry */
	int stat_record;	      /* statfile.c; -1: none */
	uint64_t *stat_out, *stat_in; /* in the record, where no helper brings it up to date; or NULL */
};

static inline bool sw_sock_is_san(const struct sw_sock *s)
{
	return s->state == SW_CONNECTED || s->state == SW_CONNECTING || s->state == SW_FAILED ||
	       s->state == SW_DEAD || (s->state == SW_LISTENING && (s->n_listeners || s->late));
}

static inline struct sw_sock *sw_sock_of(struct sw_obj *o)
{
	return container_of(o, struct sw_sock, obj);
}

/* The socket at fd if the switch answers for its data; no checks but the slot. Domain entered, or only for a
 * hint. */
static inline struct sw_sock *sw_sock_hot(int fd)
{
	struct sw_obj *o = sw_fd_hot(fd);

	return o ? sw_sock_of(o) : NULL;
}

/* The tracked socket at fd, or NULL. */
static inline struct sw_sock *sw_sock_at(int fd)
{
	struct sw_obj *o = sw_fd_obj(fd);

	return o && !o->is_epset ? sw_sock_of(o) : NULL;
}

/* The socket at fd, tracked from now on if it is one of TCP. NULL: it is not, or no memory. Domain entered.
 */
struct sw_sock *sw_sock_adopt(int fd);
/* Is fd a TCP socket, as far as can be told without the domain? Costs at most one system call. */
bool sw_sock_is_tcp(int fd);
/* A new socket object in the slot of fd. */
struct sw_sock *sw_sock_new(int fd, int domain, enum sw_state state);
/* Changes state and with it the slots' tags and the registrations in epoll sets. */
void sw_sock_set_state(struct sw_sock *s, enum sw_state state);
/* Its slots' tags say again which side it is on. */
void sw_sock_retag(struct sw_sock *s);
/* The readiness of its endpoints rose: wakes who waits. */
void sw_sock_wake(struct sw_sock *s, unsigned events);
/* It has changed as a whole: wakes whoever waits, for whatever. */
static inline void sw_sock_wake_all(struct sw_sock *s)
{
	sw_sock_wake(s, PV_OUT | PV_IN | PV_HUP | PV_ERR);
}

/* A listener's endpoint that has a connection to accept, or NULL. */
struct pv_ep *sw_sock_acceptable(const struct sw_sock *s);
/* What poll(2) would report of the SAN side; who asks waits for the socket. */
unsigned sw_sock_level(struct sw_sock *s);
/* The providers' upcall. */
void sw_sock_ready(void *user, unsigned events);
/* No descriptor refers to it any more. */
void sw_sock_orphan(struct sw_sock *s);
/* Only the kernel listens from now on. */
void sw_sock_stop_listening(struct sw_sock *s);
/* The SAN side ends, and begins again when somebody waits for the listener. */
void sw_sock_listen_late(struct sw_sock *s);
/* The kernel's TCP socket, made if there is none yet; -1: that failed. */
int sw_sock_kernel_fd(struct sw_sock *s);
/* There is none, and most connections never need one. */
static inline bool sw_sock_lacks_kernel(const struct sw_sock *s)
{
	return s->placed && s->shadow < 0;
}
/* Lets the endpoint's own descriptor, if it has one, take the place of what the program has: the kernel's
 * socket, which is kept beside, or something that only holds the number. 0 or -errno. */
int sw_sock_take_place(struct sw_sock *s, bool keep);
/* The kernel's socket is what its descriptors are again. */
void sw_sock_leave_place(struct sw_sock *s);
/* The endpoint is of no more use: it is closed, and what it was remains in the record. */
void sw_sock_drop_ep(struct sw_sock *s, enum pv_close_mode mode);

/* Slot bookkeeping for any object; domain entered. drop() forgets what fd referred to; nothing: no-op. */
void sw_fd_share(int fd, struct sw_obj *o);
void sw_fd_drop(int fd);
void sw_obj_pin(struct sw_obj *o);
void sw_obj_unpin(struct sw_obj *o);
/* A wait for *s, which the call has pinned and found at fd, has ended with -EINTR. Lets handlers run with
 * nothing held, as one may leave by siglongjmp(3), and the thread be cancelled. 0: the wait is to begin anew;
 * -EINTR: not, it is no call that is restarted; -EBADF: fd is not *s any more. *s is NULL if it is not there,
 * and not pinned then; *inside: was the domain entered again? */
int sw_sock_step_out(struct sw_sock **s, int fd, const struct sw_wait *w, bool *inside);

/* accept.c: gives a listening socket its SAN side, for the first time or again after a fork. */
void sw_listen_on_san(struct sw_sock *s);

/* names.c */
bool sw_addr_from(const struct sockaddr *sa, socklen_t len, struct sd_addr *out);
/* What the kernel's socket is bound to; false: it has no name that TCP knows. */
bool sw_name_bound(int fd, struct sd_addr *out);
/* As a socket of this domain shows it (an IPv4 address on an IPv6 socket is mapped). */
socklen_t sw_addr_to(const struct sd_addr *a, int domain, union sd_sockaddr *out);
/* Copies a name as the system calls do: cut off at *len, *len the full length. */
void sw_name_give(const struct sd_addr *a, int domain, struct sockaddr *out, socklen_t *len);

#endif

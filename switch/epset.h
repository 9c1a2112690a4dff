/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * epset: an epoll set. The kernel's set keeps all members that the kernel answers for, with the application's
 * data; the switch keeps items for TCP sockets that may be on the SAN path and for nested sets, and a list of
 * those that may be ready.
 *
 * An item's socket moves between the two as its path is decided. Members with two sides (a listener, a nested
 * set) are in both; their kernel registration carries a random cookie instead of the application's data, so
 * that the two sides merge into one event. A set without a SAN side is waited for in the kernel alone; when
 * it gets one, threads that are there are called out (kick).
 *
 * Guarded by the domain; n_san and kernel_waiters are also used without.
 */
#ifndef SD_SWITCH_EPSET_H
#define SD_SWITCH_EPSET_H

#include <stdatomic.h>
#include <sys/epoll.h>

#include "base/list.h"
#include "switch/fdtab.h"
#include "switch/sock.h"
#include "switch/wait.h"

struct sw_epset {
	struct sw_obj obj;
	int fd;
	struct list items;	/* sw_epitem.by_set */
	struct list ready;	/* sw_epitem.by_ready: may be ready */
	struct list cookies;	/* sw_epitem.by_cookie: members with two sides */
	struct list waiters;	/* sw_link.node */
	struct list watchers;	/* sw_epitem.by_target: sets that contain this one */
	_Atomic unsigned n_san; /* members with a SAN side */
	unsigned n_kernel;	/* members the kernel has (closed ones may count still) */
	bool kicked;		/* the kick is in the kernel's set */
	bool kernel_turn;	/* of waits for a single event, the next is the kernel's */
	struct sw_pace pace;
	/* Threads in the kernel's epoll_wait. Last: it outlives the set (recycled_or_new). */
	_Atomic unsigned kernel_waiters;
};

struct sw_epitem {
	struct sw_epset *set;
	struct sw_obj *target; /* a socket or another set */
	int fd;		       /* it was added under this number */
	uint32_t events;
	epoll_data_t data;
	uint64_t cookie; /* its data in the kernel's set; 0: the application's */
	bool merged;	 /* while events are collected: the kernel's event has it all */
	bool in_kernel;
	bool in_san;   /* counted in n_san */
	bool disarmed; /* EPOLLONESHOT has fired */
	struct list by_set, by_target, by_ready, by_cookie;
};

static inline struct sw_epset *sw_epset_of(struct sw_obj *o)
{
	return container_of(o, struct sw_epset, obj);
}

static inline struct sw_epset *sw_epset_at(int fd)
{
	struct sw_obj *o = sw_fd_obj(fd);

	return o && o->is_epset ? sw_epset_of(o) : NULL;
}

/* The kernel has said that the set is readable: the next wait is to see it too. */
static inline void sw_epset_hurry(struct sw_epset *es)
{
	es->pace.looks.next = 0;
}

/* Starts to track the epoll descriptor fd; domain entered. NULL: no memory. */
struct sw_epset *sw_epset_new(int fd);
void sw_epset_orphan(struct sw_epset *es);
void sw_epset_free(struct sw_epset *es);
/* epoll_ctl; domain entered. 0, -errno, or SW_EPSET_PASS: it is the kernel's alone. */
#define SW_EPSET_PASS 1
int sw_epset_ctl(struct sw_epset *es, int op, int fd, struct epoll_event *ev);
/* epoll_pwait on a set with SAN members. timeout_ns may be SW_FOREVER. Outside the domain. -EAGAIN: the set
 * has no SAN member any more. */
int sw_epset_wait(int epfd, struct epoll_event *evs, int max, uint64_t timeout_ns, const sigset_t *mask);
/* Turns cookies in n events from the kernel's set to the application's data, and takes out kicks. The number
 * left. Domain entered. */
int sw_epset_translate(struct sw_epset *es, struct epoll_event *evs, int n);
/* A thread goes to the kernel's epoll_wait: true; false: the set has SAN members. Without the domain. */
bool sw_epset_kernel_enter(struct sw_epset *es);
void sw_epset_kernel_leave(struct sw_epset *es);
/* What the SAN side of a member has, of what is asked for. */
unsigned sw_epitem_level(const struct sw_epitem *it);
/* Does its SAN side have anything? POLLIN | POLLRDNORM or 0. */
unsigned sw_epset_level(struct sw_epset *es);
/* Wakes the threads that wait for the set. */
void sw_epset_ring(struct sw_epset *es);
/* One more member is in the kernel's set. */
void sw_epset_join_kernel(struct sw_epset *es);
/* The readiness of a watched object rose. */
void sw_epset_target_ready(struct list *watchers, unsigned events);
/* A socket's state changes: where its items live. */
void sw_epset_target_moves(struct sw_sock *s);
/* The object's last descriptor is gone. */
void sw_epset_target_gone(struct list *watchers);

#endif

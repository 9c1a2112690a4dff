/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Closing what programs have sent. The last close of a descriptor may take as long as whoever prepared it
 * likes: that of a TCP socket by SO_LINGER, that of a file by the program that is the file system (FUSE).
 *
 * Sockets that do not linger are closed here. They may by then, and there may be others on their way inside
 * what is closed: so a signal ends a wait that takes long. A file system's wait no signal ends: other
 * descriptors, and sockets that linger, are closed by a thread, and who has too many of them under way is not
 * heard. Nothing is changed about a socket, as the program may go on with it.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "provider/broker_private.h"

#define PATIENCE_NS (5 * SD_MS)
/* Files of one user that are being closed. */
#define TOO_MANY 256u

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum heap_state { HEAP_WAITS, HEAP_IS_CLOSED, HEAP_IS_NOBODYS };

struct heap {
	struct list node;
	uid_t uid;
	bool started;
	_Atomic int state; /* enum heap_state: who is second to change it frees it */
	unsigned n;
	int fds[];
};

static bool is_socket(int fd)
{
	int type;
	socklen_t len = sizeof type;

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
}

static bool lingers(int fd)
{
	struct linger l = {0};
	socklen_t len = sizeof l;
	struct tcp_info info = {0};
	socklen_t info_len = sizeof info;

	if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) || !l.l_onoff || !l.l_linger)
		return false;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_len) || info.tcpi_state != TCP_CLOSE;
}

static void *close_heap(void *arg)
{
	struct heap *h = arg;

	for (unsigned i = 0; i < h->n; i++)
		close(h->fds[i]);
	if (atomic_exchange(&h->state, HEAP_IS_CLOSED) == HEAP_IS_NOBODYS)
		free(h);
	return NULL;
}

static void waste_files(struct broker *b, uid_t uid, const int *fds, unsigned n)
{
	struct heap *h = calloc(1, sizeof *h + n * sizeof *fds);

	if (!h) {
		for (unsigned i = 0; i < n; i++)
			close(fds[i]);
		return;
	}
	h->uid = uid;
	h->n = n;
	memcpy(h->fds, fds, n * sizeof *fds);
	list_push_back(&b->waste, &h->node);
	h->started = !sd_thread_apart(close_heap, h);
}

void waste_socket(struct broker *b, uid_t uid, int fd)
{
	if (lingers(fd))
		waste_files(b, uid, &fd, 1);
	else
		close(fd);
}

static void waste_fds(const struct channel_waste *channel, int *fds, unsigned n)
{
	const struct waste *w = container_of(channel, const struct waste, channel);
	unsigned files = 0;

	for (unsigned i = 0; i < n; i++) {
		if (is_socket(fds[i]) && !lingers(fds[i]))
			close(fds[i]);
		else
			fds[files++] = fds[i];
	}
	if (files)
		waste_files(w->broker, w->uid, fds, files);
}

struct waste waste_of(struct broker *b, uid_t uid)
{
	return (struct waste){.channel = {waste_fds}, .broker = b, .uid = uid};
}

void waste_message(struct broker *b, uid_t uid, struct channel_message *m)
{
	const struct waste w = waste_of(b, uid);

	if (m->n_fds)
		waste_fds(&w.channel, m->fds, m->n_fds);
	m->n_fds = 0;
}

void waste_collect(struct broker *b)
{
	list_for_each (it, &b->waste) {
		struct heap *h = container_of(it, struct heap, node);

		if (!h->started) {
			h->started = !sd_thread_apart(close_heap, h);
		} else if (atomic_load(&h->state) == HEAP_IS_CLOSED) {
			list_remove(&h->node);
			free(h);
		}
	}
}

bool waste_is_too_much(const struct broker *b, uid_t uid)
{
	unsigned n = 0;

	list_for_each (it, &b->waste) {
		const struct heap *h = container_of(it, struct heap, node);

		n += h->uid == uid ? h->n : 0;
	}
	return n >= TOO_MANY;
}

/* --- waits that take long --- */

static void on_signal(int number)
{
}

static void set_timer(struct broker *b, long ns)
{
	const struct itimerspec t = {.it_value.tv_nsec = ns, .it_interval.tv_nsec = ns};

	timer_settime(b->timer, 0, &t, NULL);
	b->ticks = ns != 0;
}

void waste_begin(struct broker *b)
{
	struct sigevent e = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = BROKER_SIGNAL};
	struct sigaction action = {.sa_handler = on_signal};

	if (!b->timed) {
		e.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
		b->timed = !sigaction(BROKER_SIGNAL, &action, NULL) &&
			   !timer_create(CLOCK_MONOTONIC, &e, &b->timer);
	}
	if (b->timed && !b->ticks)
		set_timer(b, PATIENCE_NS);
}

void waste_idle(struct broker *b)
{
	if (b->ticks)
		set_timer(b, 0);
}

void waste_close(struct broker *b)
{
	struct list *it;

	if (b->timed)
		timer_delete(b->timer);
	while ((it = list_pop_front(&b->waste))) {
		struct heap *h = container_of(it, struct heap, node);

		if (!h->started || atomic_exchange(&h->state, HEAP_IS_NOBODYS) == HEAP_IS_CLOSED)
			free(h);
	}
}

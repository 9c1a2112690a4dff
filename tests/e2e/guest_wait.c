/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting for SAN connections, kernel TCP connections, a pipe, an eventfd and a timer at once, in one of the
 * ways there are. In each round some of them become ready; these are to be told, and no others.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "guest.h"

#define SAN_SOCKETS 4
#define TCP_SOCKETS 2
#define SOCKETS	    (SAN_SOCKETS + TCP_SOCKETS)
#define SOURCES	    (SOCKETS + 3)
#define ROUNDS	    300
#define PATIENCE_MS 10000

enum { PIPE = SOCKETS, EVENT, TIMER };

static struct {
	int fds[SOURCES];
	int pipe_in, ep, outer; /* outer: the set around ep when they are nested */
	bool edge, oneshot;
	unsigned seed;
} w;

static unsigned dice(unsigned sides)
{
	w.seed = w.seed * 1103515245 + 12345;
	return (w.seed >> 16) % sides;
}

static void open_all(char **argv)
{
	int pipes[2];

	for (int i = 0; i < SOCKETS; i++) {
		bool san = i < SAN_SOCKETS;

		w.fds[i] = guest_connect(argv[san ? 0 : 2], argv[san ? 1 : 3]);
		guest_check(!fcntl(w.fds[i], F_SETFL, O_NONBLOCK), "O_NONBLOCK");
	}
	guest_check(!pipe(pipes), "pipe");
	w.fds[PIPE] = pipes[0];
	w.pipe_in = pipes[1];
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	w.fds[EVENT] = eventfd(0, EFD_NONBLOCK);
	w.fds[TIMER] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
}

static void make_ready(int i)
{
	struct itimerspec soon = {.it_value.tv_nsec = 1000000};
	char block[64] = "";

	if (i < SOCKETS)
		guest_send(w.fds[i], block, 1 + dice(sizeof block));
	else if (i == PIPE)
		guest_check(write(w.pipe_in, "x", 1) == 1, "write to the pipe");
	else if (i == EVENT)
		guest_check(!eventfd_write(w.fds[EVENT], 1), "eventfd_write");
	else
		guest_check(!timerfd_settime(w.fds[TIMER], 0, &soon, NULL), "timerfd_settime");
}

/* Takes all there is; returns whether there was anything. */
static bool consume(int i)
{
	char block[4096];
	bool any = false;

	for (;;) {
		ssize_t n = read(w.fds[i], block, sizeof block);

		if (n < 0 && errno == EAGAIN)
			break;
		guest_check(n > 0, "read of source %d: %zd", i, n);
		any = true;
	}
	errno = 0;
	return any;
}

/* A set of sources, as bits. */
typedef unsigned (*wait_fn)(int timeout_ms);

static unsigned wait_poll(int timeout_ms)
{
	struct pollfd p[SOURCES];
	unsigned ready = 0;
	int n;

	for (int i = 0; i < SOURCES; i++)
		p[i] = (struct pollfd){.fd = w.fds[i], .events = POLLIN};
	n = poll(p, SOURCES, timeout_ms);
	guest_check(n >= 0, "poll");
	for (int i = 0; i < SOURCES; i++) {
		guest_check(
			!(p[i].revents & ~POLLIN), "poll says %x of source %d", (unsigned)p[i].revents, i);
		ready |= (unsigned)(p[i].revents != 0) << i;
		n -= p[i].revents != 0;
	}
	guest_check(!n, "poll counts wrongly");
	return ready;
}

static unsigned wait_ppoll(int timeout_ms)
{
	struct timespec t = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
	struct pollfd p[SOURCES + 2];
	unsigned ready = 0;

	/* Holes, and the same descriptor twice. */
	p[SOURCES] = (struct pollfd){.fd = -1, .events = POLLIN};
	p[SOURCES + 1] = (struct pollfd){.fd = w.fds[0], .events = POLLIN};
	for (int i = 0; i < SOURCES; i++)
		p[i] = (struct pollfd){.fd = w.fds[i], .events = POLLIN | POLLPRI};
	guest_check(ppoll(p, SOURCES + 2, &t, NULL) >= 0, "ppoll");
	for (int i = 0; i < SOURCES; i++)
		ready |= (unsigned)(p[i].revents == POLLIN) << i;
	guest_check(!p[SOURCES].revents && p[SOURCES + 1].revents == p[0].revents, "ppoll and its holes");
	return ready;
}

static unsigned from_set(const fd_set *set, int n)
{
	unsigned ready = 0;

	guest_check(n >= 0, "select");
	for (int i = 0; i < SOURCES; i++)
		ready |= (unsigned)(FD_ISSET(w.fds[i], set) != 0) << i;
	guest_check(__builtin_popcount(ready) == n, "select counts wrongly");
	return ready;
}

static int fill_set(fd_set *set)
{
	int max = 0;

	FD_ZERO(set);
	for (int i = 0; i < SOURCES; i++) {
		FD_SET(w.fds[i], set);
		max = w.fds[i] > max ? w.fds[i] : max;
	}
	return max + 1;
}

static unsigned wait_select(int timeout_ms)
{
	struct timeval t = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	fd_set set;
	int n = fill_set(&set);

	n = select(n, &set, NULL, NULL, &t);
	return from_set(&set, n);
}

static unsigned wait_pselect(int timeout_ms)
{
	struct timespec t = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
	sigset_t mask;
	fd_set set;
	int n = fill_set(&set);

	sigemptyset(&mask);
	n = pselect(n, &set, NULL, NULL, &t, &mask);
	return from_set(&set, n);
}

static unsigned wait_epoll(int timeout_ms)
{
	/* Fewer than there may be, so that the rest has to wait its turn. */
	struct epoll_event e[3];
	unsigned ready = 0;
	int n;

	if (w.outer) {
		n = epoll_wait(w.outer, e, 3, timeout_ms);
		guest_check(n >= 0, "epoll_wait of the outer set");
		if (!n)
			return 0;
		guest_check(
			n == 1 && e[0].data.fd == w.ep && e[0].events == EPOLLIN, "events of the outer set");
		timeout_ms = 0;
	}
	n = epoll_wait(w.ep, e, 3, timeout_ms);
	guest_check(n >= (w.outer > 0), "epoll_wait: %d", n);
	for (int i = 0; i < n; i++) {
		guest_check(e[i].events == EPOLLIN, "epoll says %x of source %u", e[i].events, e[i].data.u32);
		guest_check(!(ready & 1u << e[i].data.u32), "one source twice");
		ready |= 1u << e[i].data.u32;
	}
	return ready;
}

static void add_all(void)
{
	unsigned mode = (w.edge ? EPOLLET : 0) | (w.oneshot ? EPOLLONESHOT : 0);

	w.ep = epoll_create1(0);
	for (unsigned i = 0; i < SOURCES; i++) {
		struct epoll_event e = {.events = EPOLLIN | mode, .data.u32 = i};

		guest_check(!epoll_ctl(w.ep, EPOLL_CTL_ADD, w.fds[i], &e), "epoll_ctl");
		guest_check(epoll_ctl(w.ep, EPOLL_CTL_ADD, w.fds[i], &e) == -1 && errno == EEXIST,
			"a second EPOLL_CTL_ADD");
	}
	errno = 0;
}

static void rearm(int i)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = (unsigned)i};

	guest_check(!epoll_ctl(w.ep, EPOLL_CTL_MOD, w.fds[i], &e), "EPOLL_CTL_MOD");
}

/* Makes the sources in set ready and takes what comes until all have been told. */
static void round_of(wait_fn wait, unsigned set)
{
	unsigned told = 0;

	for (int i = 0; i < SOURCES; i++)
		if (set & 1u << i)
			make_ready(i);
	while ((told & set) != set) {
		unsigned ready = wait(PATIENCE_MS);

		guest_check(ready, "%x became ready, only %x was told", set, told);
		guest_check(!(ready & ~set), "%x became ready, %x was told", set, ready);
		for (int i = 0; i < SOURCES; i++) {
			if (!(ready & 1u << i))
				continue;
			/* Of an edge that came while the bytes before it were being taken, nothing may be
			 * left. */
			guest_check(consume(i) || w.edge || (told & 1u << i), "source %d was not ready", i);
			if (w.oneshot)
				rearm(i);
		}
		told |= ready;
	}
}

/* An echo may have come back in pieces; afterwards all is quiet. */
static void calm_down(wait_fn wait)
{
	unsigned ready;

	while ((ready = wait(20)))
		for (int i = 0; i < SOURCES; i++)
			if (ready & 1u << i) {
				consume(i);
				if (w.oneshot)
					rearm(i);
			}
}

static void check_timeout(wait_fn wait)
{
	uint64_t start, took;

	for (int ms = 0; ms <= 120; ms += 60) {
		start = guest_now_ms();
		guest_check(!wait(ms), "something is ready in the quiet");
		took = guest_now_ms() - start;
		guest_check(took + 1 >= (uint64_t)ms && took <= (uint64_t)ms + 1000, "%d ms took %d", ms,
			(int)took);
	}
}

/* Edges come once; a one-shot source stays silent until it is asked for again. */
static void check_edges(void)
{
	for (int i = 0; i < SOURCES; i++) {
		make_ready(i);
		guest_check(wait_epoll(PATIENCE_MS) == 1u << i, "the edge of source %d", i);
		guest_check(!wait_epoll(30), "the edge of source %d a second time", i);
		if (w.oneshot) {
			make_ready(i);
			guest_check(!wait_epoll(30), "source %d after its only shot", i);
			rearm(i);
			guest_check(wait_epoll(PATIENCE_MS) == 1u << i, "source %d, asked for again", i);
		} else {
			make_ready(i);
			guest_check(wait_epoll(PATIENCE_MS) == 1u << i, "another edge of source %d", i);
		}
		usleep(2000);
		consume(i);
		if (w.oneshot)
			rearm(i);
	}
}

/* Room to send is told, at first and after the peer has made some. */
static void check_output(void)
{
	static char block[65536];
	struct epoll_event e;
	int ep = epoll_create1(0), back = 0;
	size_t out = 0, in = 0;

	for (int i = 0; i < SOCKETS; i += SAN_SOCKETS) {
		e = (struct epoll_event){.events = EPOLLOUT | EPOLLIN | EPOLLET};
		guest_check(!epoll_ctl(ep, EPOLL_CTL_ADD, w.fds[i], &e), "epoll_ctl");
		for (out = in = 0; out < 64 << 20 || in < out;) {
			ssize_t n;

			guest_check(epoll_wait(ep, &e, 1, PATIENCE_MS) == 1, "%zu sent, %zu back", out, in);
			while (out < 64 << 20 && (n = send(w.fds[i], block, sizeof block, 0)) > 0)
				out += (size_t)n;
			guest_check(out >= 64 << 20 || errno == EAGAIN, "send");
			back += errno == EAGAIN;
			while ((n = recv(w.fds[i], block, sizeof block, 0)) > 0)
				in += (size_t)n;
			guest_check(n < 0 && errno == EAGAIN, "recv");
			errno = 0;
		}
		guest_check(!epoll_ctl(ep, EPOLL_CTL_DEL, w.fds[i], NULL), "EPOLL_CTL_DEL");
		guest_check(epoll_ctl(ep, EPOLL_CTL_DEL, w.fds[i], NULL) == -1 && errno == ENOENT,
			"a second EPOLL_CTL_DEL");
		errno = 0;
	}
	guest_check(back > 0, "the sender was never told to wait");
	close(ep);
}

static wait_fn choose(const char *kind)
{
	if (!strcmp(kind, "poll"))
		return wait_poll;
	if (!strcmp(kind, "ppoll"))
		return wait_ppoll;
	if (!strcmp(kind, "select"))
		return wait_select;
	if (!strcmp(kind, "pselect"))
		return wait_pselect;
	w.edge = !strcmp(kind, "epoll-et");
	w.oneshot = !strcmp(kind, "epoll-oneshot");
	add_all();
	if (!strcmp(kind, "epoll-nested")) {
		struct epoll_event e = {.events = EPOLLIN, .data.fd = w.ep};

		w.outer = epoll_create1(0);
		guest_check(!epoll_ctl(w.outer, EPOLL_CTL_ADD, w.ep, &e), "a set in a set");
	}
	return wait_epoll;
}

void guest_wait(int argc, char **argv)
{
	wait_fn wait;

	w.seed = 1;
	open_all(argv);
	wait = choose(argv[4]);
	check_timeout(wait);
	for (int i = 0; i < ROUNDS; i++) {
		/* Often one alone, of either kind; sometimes many. */
		unsigned set = dice(3) ? 1u << dice(SOURCES) : 1 + dice((1u << SOURCES) - 1);

		round_of(wait, set);
		if (i % 20 == 0 || set & 1u << TIMER)
			calm_down(wait);
	}
	calm_down(wait);
	if (w.edge || w.oneshot)
		check_edges();
	check_timeout(wait);
	if (w.edge)
		check_output();
	puts("holding");
	getchar();
}

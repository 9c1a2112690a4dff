/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads on one socket, threads on many, and threads that end each other's waiting. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

#define WRITERS	 4
#define MESSAGES 5000
#define OWNERS	 8
#define ROUNDS	 2000

struct message {
	uint32_t writer, number;
	uint8_t rest[56];
};

struct writer {
	int fd;
	uint32_t index;
};

static _Atomic unsigned messages_read;

/* Never so much on the way that a message may not fit: TCP would cut it, and another come between the parts.
 */
static void *write_messages(void *arg)
{
	struct writer *w = arg;
	struct message m = {.writer = w->index};

	for (m.number = 0; m.number < MESSAGES; m.number++) {
		while (WRITERS * m.number > messages_read + WRITERS * 8)
			sched_yield();
		memset(m.rest, (int)(m.writer + m.number), sizeof m.rest);
		guest_send(w->fd, &m, sizeof m);
	}
	return NULL;
}

/* Messages of one writer come back in order, and none is torn. */
static void read_messages(int fd)
{
	uint32_t next[WRITERS] = {0};
	struct message m;

	for (unsigned i = 0; i < WRITERS * MESSAGES; i++) {
		guest_recv(fd, &m, sizeof m);
		guest_check(m.writer < WRITERS && m.number == next[m.writer], "message %u of writer %u",
			m.number, m.writer);
		for (size_t k = 0; k < sizeof m.rest; k++)
			guest_check(m.rest[k] == (uint8_t)(m.writer + m.number), "a torn message");
		next[m.writer]++;
		messages_read++;
	}
}

static void on_one_socket(char **argv)
{
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	int fd = guest_connect(argv[0], argv[1]);

	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){fd, i};
		pthread_create(&threads[i], NULL, write_messages, &writers[i]);
	}
	read_messages(fd);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	close(fd);
	puts("one yes");
}

struct owner {
	char **argv;
	unsigned index;
};

/* Some wait in recv, some in poll, some in epoll_wait. */
static void wait_readable(int fd, unsigned how, int ep)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct epoll_event e;

	if (how % 3 == 1)
		guest_check(poll(&p, 1, 10000) == 1 && p.revents == POLLIN, "poll: %x", (unsigned)p.revents);
	else if (how % 3 == 2)
		guest_check(epoll_wait(ep, &e, 1, 10000) == 1 && e.events == EPOLLIN, "epoll_wait");
}

static void *own_socket(void *arg)
{
	struct owner *o = arg;
	struct epoll_event e = {.events = EPOLLIN};
	int fd = guest_connect(o->argv[0], o->argv[1]), ep = epoll_create1(EPOLL_CLOEXEC);
	unsigned char out[100], in[100];

	guest_check(!epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), "epoll_ctl");
	for (unsigned i = 0; i < ROUNDS; i++) {
		memset(out, (int)(i + o->index), sizeof out);
		guest_send(fd, out, sizeof out);
		wait_readable(fd, o->index, ep);
		guest_recv(fd, in, sizeof in);
		guest_check(!memcmp(in, out, sizeof in), "other bytes came back");
	}
	close(ep);
	close(fd);
	return NULL;
}

static void on_many_sockets(char **argv)
{
	struct owner owners[OWNERS];
	pthread_t threads[OWNERS];

	for (unsigned i = 0; i < OWNERS; i++) {
		owners[i] = (struct owner){argv, i};
		pthread_create(&threads[i], NULL, own_socket, &owners[i]);
	}
	for (unsigned i = 0; i < OWNERS; i++)
		pthread_join(threads[i], NULL);
	puts("many yes");
}

/* One epoll set, several threads that wait on it: each event goes to one of them. */
struct pool {
	int ep, stop;
	_Atomic unsigned served;
};

static void *serve_pool(void *arg)
{
	struct pool *p = arg;
	struct epoll_event e;
	unsigned char block[100];

	for (;;) {
		guest_check(epoll_wait(p->ep, &e, 1, 10000) == 1, "epoll_wait of a pool");
		if (e.data.fd == p->stop)
			return NULL;
		guest_recv(e.data.fd, block, sizeof block);
		p->served++;
		e.events = EPOLLIN | EPOLLONESHOT;
		guest_check(!epoll_ctl(p->ep, EPOLL_CTL_MOD, e.data.fd, &e), "EPOLL_CTL_MOD");
	}
}

static void on_one_set(char **argv)
{
	struct pool p = {.ep = epoll_create1(EPOLL_CLOEXEC), .stop = eventfd(0, EFD_CLOEXEC)};
	struct epoll_event e = {.events = EPOLLIN, .data.fd = p.stop};
	unsigned char block[100] = "";
	pthread_t threads[3];
	int fds[OWNERS];

	epoll_ctl(p.ep, EPOLL_CTL_ADD, p.stop, &e);
	for (unsigned i = 0; i < OWNERS; i++) {
		fds[i] = guest_connect(argv[0], argv[1]);
		e = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.fd = fds[i]};
		guest_check(!epoll_ctl(p.ep, EPOLL_CTL_ADD, fds[i], &e), "epoll_ctl");
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, serve_pool, &p);
	for (unsigned i = 0; i < ROUNDS; i++)
		guest_send(fds[i % OWNERS], block, sizeof block);
	for (uint64_t end = guest_now_ms() + 20000; p.served < ROUNDS; usleep(1000))
		guest_check(guest_now_ms() < end, "%u of %d were served", p.served, ROUNDS);
	guest_check(eventfd_write(p.stop, 1) == 0, "eventfd_write");
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < OWNERS; i++)
		close(fds[i]);
	close(p.ep);
	close(p.stop);
	puts("set yes");
}

static void *wait_for_end(void *arg)
{
	char c;

	return (void *)recv(*(int *)arg, &c, 1, 0);
}

/* shutdown() by another thread ends a recv(). */
static void woken_by_shutdown(char **argv)
{
	int fd = guest_connect(argv[0], argv[1]);
	pthread_t thread;
	void *got;

	pthread_create(&thread, NULL, wait_for_end, &fd);
	usleep(100000);
	guest_check(!shutdown(fd, SHUT_RDWR), "shutdown");
	pthread_join(thread, &got);
	guest_check(!got, "recv after shutdown: %zd", (ssize_t)got);
	close(fd);
	puts("shutdown yes");
}

/* pthread_cancel ends a recv(), and the library is left whole. */
void guest_cancel(int argc, char **argv)
{
	int fd = guest_connect(argv[0], argv[1]);
	pthread_t thread;
	void *got;

	for (int i = 0; i < 10; i++) {
		pthread_create(&thread, NULL, wait_for_end, &fd);
		usleep(i % 2 ? 20000 : 0);
		pthread_cancel(thread);
		pthread_join(thread, &got);
		guest_check(got == PTHREAD_CANCELED, "a cancelled recv returned %zd", (ssize_t)got);
	}
	guest_echo(fd, 1, 4000);
	close(fd);
}

void guest_threads(int argc, char **argv)
{
	on_one_socket(argv);
	on_many_sockets(argv);
	on_one_set(argv);
	woken_by_shutdown(argv);
}

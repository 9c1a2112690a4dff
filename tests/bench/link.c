/* SPDX-License-Identifier: BSD-3-Clause */
#include "link.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

void link_die(const char *what)
{
	fprintf(stderr, "%s: %s %s\n", program_invocation_short_name, what,
		what[strlen(what) - 1] == ':' ? strerror(errno) : "");
	exit(1);
}

uint64_t link_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void link_resolve(const char *ip, const char *port, struct link_addr *out)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV},
			*found;

	if (getaddrinfo(ip, port, &hints, &found))
		link_die("not an IP address and a port");
	memcpy(&out->addr, found->ai_addr, found->ai_addrlen);
	out->len = found->ai_addrlen;
	freeaddrinfo(found);
}

int link_listen(const struct link_addr *a)
{
	int one = 1, fd = socket(a->addr.ss_family, SOCK_STREAM, 0);

	if (fd < 0)
		link_die("socket:");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (const struct sockaddr *)&a->addr, a->len))
		link_die("bind:");
	if (listen(fd, 1024))
		link_die("listen:");
	return fd;
}

int link_connect(const struct link_addr *a, const char *congestion)
{
	int fd = socket(a->addr.ss_family, SOCK_STREAM, 0);

	if (fd < 0)
		link_die("socket:");
	if (congestion &&
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)))
		link_die("TCP_CONGESTION:");
	if (connect(fd, (const struct sockaddr *)&a->addr, a->len))
		link_die("connect:");
	return fd;
}

static void watch(struct link *l, int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e))
		link_die("epoll_ctl:");
}

void link_open(struct link *l, int fd, enum link_wait wait, bool kernel_fd)
{
	int one = 1;

	*l = (struct link){.fd = fd, .wait = wait, .epoll = -1, .idle = {-1, -1}};
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (wait != LINK_EPOLL)
		return;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0)
		link_die("epoll_create1:");
	watch(l, fd);
	if (!kernel_fd)
		return;
	if (pipe(l->idle))
		link_die("pipe:");
	watch(l, l->idle[0]);
}

void link_close(struct link *l)
{
	close(l->fd);
	if (l->epoll >= 0)
		close(l->epoll);
	if (l->idle[0] >= 0) {
		close(l->idle[0]);
		close(l->idle[1]);
	}
}

size_t link_recv(struct link *l, void *buf, size_t len)
{
	struct epoll_event e;

	for (;;) {
		ssize_t n;

		if (l->wait == LINK_EPOLL && epoll_wait(l->epoll, &e, 1, -1) < 1)
			continue;
		n = recv(l->fd, buf, len, l->wait == LINK_BLOCK ? 0 : MSG_DONTWAIT);
		if (n >= 0)
			return (size_t)n;
		if (errno != EAGAIN && errno != EINTR)
			link_die("recv:");
	}
}

bool link_recv_all(struct link *l, void *buf, size_t len)
{
	for (size_t got = 0; got < len;) {
		size_t n = link_recv(l, (char *)buf + got, len - got);

		if (!n && !got)
			return false;
		if (!n)
			link_die("the peer ended in the middle of a message");
		got += n;
	}
	return true;
}

void link_send_all(struct link *l, const void *buf, size_t len)
{
	int flags = MSG_NOSIGNAL | (l->wait == LINK_SPIN ? MSG_DONTWAIT : 0);

	for (size_t sent = 0; sent < len;) {
		ssize_t n = send(l->fd, (const char *)buf + sent, len - sent, flags);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			link_die("send:");
		if (n > 0)
			sent += (size_t)n;
	}
}

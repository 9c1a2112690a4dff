/* SPDX-License-Identifier: BSD-3-Clause */
/* How connections end, and what each side is told of it. The peer is this program too, by way of an echo. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

static short ready(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

	guest_check(poll(&p, 1, timeout_ms) >= 0, "poll");
	return p.revents;
}

/* The echo server closes when it sees our end. */
static void half_close(char **argv)
{
	int fd = guest_connect(argv[0], argv[1]);
	char block[3000];
	ssize_t n;

	guest_echo(fd, 1, 2000);
	memset(block, 'h', sizeof block);
	guest_send(fd, block, sizeof block);
	guest_check(!shutdown(fd, SHUT_WR), "shutdown");
	guest_check(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "send after shutdown");
	errno = 0;
	for (size_t got = 0; got < sizeof block; got += (size_t)n)
		guest_check((n = recv(fd, block, sizeof block, 0)) > 0, "the rest after shutdown: %zd", n);
	guest_check(ready(fd, 5000) & POLLRDHUP, "the peer's end in poll");
	for (int i = 0; i < 3; i++)
		guest_check(recv(fd, block, 1, 0) == 0, "EOF");
	/* Both directions are shut now. */
	guest_check(ready(fd, 0) == (POLLIN | POLLHUP | POLLRDHUP), "poll: %x", (unsigned)ready(fd, 0));
	close(fd);
	puts("half yes");
}

static void sigpipe(char **argv)
{
	int fd = guest_connect(argv[0], argv[1]);
	sigset_t pipe, pending;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigprocmask(SIG_BLOCK, &pipe, NULL);
	shutdown(fd, SHUT_WR);
	guest_check(write(fd, "x", 1) == -1 && errno == EPIPE, "write after shutdown");
	sigpending(&pending);
	guest_check(sigismember(&pending, SIGPIPE) == 1, "no SIGPIPE");
	guest_check(sigwaitinfo(&pipe, NULL) == SIGPIPE, "sigwaitinfo");
	sigprocmask(SIG_UNBLOCK, &pipe, NULL);
	errno = 0;
	close(fd);
	puts("sigpipe yes");
}

static void options_and_queues(char **argv)
{
	struct timeval tv = {0, 100000};
	int fd = guest_connect(argv[0], argv[1]), v = -1, n = 0;
	socklen_t len = sizeof v;
	char block[1000];
	uint64_t start;

	guest_check(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len) && v == 0, "SO_ERROR");
	guest_check(!getsockopt(fd, SOL_SOCKET, SO_TYPE, &v, &len) && v == SOCK_STREAM, "SO_TYPE");
	guest_check(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), "SO_RCVTIMEO");
	start = guest_now_ms();
	guest_check(recv(fd, block, 1, 0) == -1 && errno == EAGAIN, "recv with SO_RCVTIMEO");
	guest_check(guest_now_ms() - start >= 99 && guest_now_ms() - start < 300, "SO_RCVTIMEO");
	guest_check(recv(fd, block, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "MSG_DONTWAIT");
	errno = 0;
	guest_send(fd, block, sizeof block);
	for (start = guest_now_ms(); n < (int)sizeof block; usleep(1000)) {
		guest_check(!ioctl(fd, FIONREAD, &n), "FIONREAD");
		guest_check(guest_now_ms() - start < 5000, "FIONREAD says %d", n);
	}
	guest_check(recv(fd, block, 10, MSG_PEEK) == 10 && !ioctl(fd, FIONREAD, &n) && n == (int)sizeof block,
		"MSG_PEEK");
	guest_check(recv(fd, block, sizeof block, MSG_WAITALL) == sizeof block, "MSG_WAITALL");
	close(fd);
	puts("options yes");
}

/* A duplicate keeps the connection; it ends with the last one. */
static void duplicates(char **argv)
{
	int fd = guest_connect(argv[0], argv[1]), other = dup(fd);

	close(fd);
	guest_echo(other, 1, 1000);
	guest_check(dup2(other, fd) == fd, "dup2");
	close(other);
	guest_echo(fd, 2, 1000);
	/* Another socket takes its place. */
	other = guest_connect(argv[0], argv[1]);
	guest_check(dup2(other, fd) == fd, "dup2 over a connection");
	guest_echo(fd, 3, 1000);
	close(fd);
	guest_echo(other, 4, 1000);
	close(other);
	puts("duplicates yes");
}

/* Thousands of connections, one after the other, leave nothing behind. */
static void many(char **argv)
{
	int first = -1;

	for (unsigned i = 0; i < 2000; i++) {
		int fd = guest_connect(argv[0], argv[1]);

		first = first < 0 ? fd : first;
		guest_check(fd == first, "socket %d instead of %d", fd, first);
		guest_echo(fd, i, 100);
		if (i % 3 == 0) {
			struct linger hard = {1, 0};

			setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
		}
		close(fd);
	}
	puts("many yes");
}

void guest_endings(int argc, char **argv)
{
	half_close(argv);
	sigpipe(argv);
	options_and_queues(argv);
	duplicates(argv);
	many(argv);
	close(guest_connect(argv[0], argv[1]));
	puts("holding");
	getchar();
}

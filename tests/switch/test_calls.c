/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What calls do at the edges of what they are made for, alone and while another thread or a handler does
 * something to the same socket. Each case over the kernel's TCP, which says what is right, and over the SAN.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback.h"

enum {
	PATIENCE = 3000, /* ms; what should not happen takes so long */
	SOON = 500,
	ASLEEP = 200, /* ms after which a thread that waits has gone to sleep */
	STUCK = 20,   /* s of a case */
};

static enum path path;
static int pair[2];

static void pause_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static short events_of(int fd, short events, int ms)
{
	struct pollfd p = {.fd = fd, .events = events};

	assert_true(poll(&p, 1, ms) >= 0);
	return p.revents;
}

static void set_flag(int fd, int flag)
{
	assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | flag), 0);
}

static void set_option(int fd, int name, int v)
{
	assert_int_equal(setsockopt(fd, SOL_SOCKET, name, &v, sizeof v), 0);
}

/* Until no more goes. */
static size_t fill(int fd)
{
	static char block[4096];
	size_t done = 0;
	ssize_t n;

	while ((n = send(fd, block, sizeof block, MSG_DONTWAIT)) > 0 || events_of(fd, POLLOUT, 50))
		done += n > 0 ? (size_t)n : 0;
	assert_int_equal(errno, EAGAIN);
	return done;
}

static void give(int fd, size_t len)
{
	char *bytes = calloc(1, len);

	assert_int_equal(send(fd, bytes, len, 0), len);
	free(bytes);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A thread that has just been given a reason to end. */
static intptr_t join(pthread_t thread)
{
	int64_t since = now_ms();
	void *result;

	pthread_join(thread, &result);
	assert_in_range(now_ms() - since, 0, SOON);
	return (intptr_t)result;
}

/* --- waiting --- */

static void *wait_on_set(void *set)
{
	struct epoll_event ev;

	return (void *)(intptr_t)epoll_wait(*(int *)set, &ev, 1, PATIENCE);
}

static void epoll__of_what_is_added_while_it_sleeps(void **state)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int set = epoll_create1(0), tube[2];
	pthread_t thread;

	assert_int_equal(pipe(tube), 0);
	assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &ev), 0);
	assert_int_equal(pthread_create(&thread, NULL, wait_on_set, &set), 0);
	pause_ms(ASLEEP);
	assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, tube[0], &ev), 0);
	assert_int_equal(write(tube[1], "x", 1), 1);
	assert_int_equal(join(thread), 1);
	close(tube[0]);
	close(tube[1]);
	close(set);
}

static void select__of_more_than_the_set_has(void **state)
{
	struct {
		fd_set set;
		unsigned char beyond[1 << 15];
	} s;
	struct timeval none = {0};

	give(pair[1], 1);
	events_of(pair[0], POLLIN, PATIENCE);
	FD_ZERO(&s.set);
	FD_SET(pair[0], &s.set);
	memset(s.beyond, 0xff, sizeof s.beyond);
	assert_int_equal(select(1 << 18, &s.set, NULL, NULL, &none), 1);
	assert_true(FD_ISSET(pair[0], &s.set));
	for (size_t i = 0; i < sizeof s.beyond; i++)
		assert_int_equal(s.beyond[i], 0xff);
}

static void low_mark__beyond_the_buffer(void **state)
{
	set_option(pair[0], SO_RCVLOWAT, 1 << 30);
	fill(pair[1]);
	assert_int_equal(events_of(pair[0], POLLIN, PATIENCE), POLLIN);
}

static void low_mark__lowered_while_epoll_waits(void **state)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int set = epoll_create1(0);
	pthread_t thread;

	set_option(pair[0], SO_RCVLOWAT, 100);
	assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &ev), 0);
	give(pair[1], 50);
	assert_int_equal(epoll_wait(set, &ev, 1, 100), 0);
	assert_int_equal(pthread_create(&thread, NULL, wait_on_set, &set), 0);
	pause_ms(ASLEEP);
	set_option(pair[0], SO_RCVLOWAT, 1);
	assert_int_equal(join(thread), 1);
	close(set);
}

/* --- what a call returns --- */

static void peek__of_all_at_the_end(void **state)
{
	char buf[10];

	give(pair[1], 5);
	assert_int_equal(shutdown(pair[1], SHUT_WR), 0);
	assert_int_equal(recv(pair[0], buf, sizeof buf, MSG_PEEK | MSG_WAITALL), 5);
	assert_int_equal(recv(pair[0], buf, sizeof buf, MSG_WAITALL), 5);
}

static void peek__into_many_pieces(void **state)
{
	struct iovec iov[20];
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 20};
	char buf[20];

	for (unsigned i = 0; i < 20; i++)
		iov[i] = (struct iovec){buf + i, 1};
	give(pair[1], 20);
	assert_true(recvmsg(pair[0], &msg, MSG_PEEK | MSG_WAITALL) >= 16);
}

static void truncated__counts_all_that_is_there(void **state)
{
	give(pair[1], 20000);
	while (recv(pair[0], NULL, 100000, MSG_PEEK | MSG_TRUNC) < 20000)
		pause_ms(1);
	assert_int_equal(recv(pair[0], NULL, 5, MSG_PEEK | MSG_TRUNC), 5);
	assert_int_equal(recv(pair[0], NULL, 20000, MSG_TRUNC | MSG_WAITALL), 20000);
}

static void *give_the_rest(void *arg)
{
	pause_ms(100);
	give(pair[1], 20000);
	return NULL;
}

static void truncated__waits_for_all(void **state)
{
	pthread_t thread;

	give(pair[1], 20000);
	assert_int_equal(pthread_create(&thread, NULL, give_the_rest, NULL), 0);
	assert_int_equal(recv(pair[0], NULL, 40000, MSG_TRUNC | MSG_WAITALL), 40000);
	pthread_join(thread, NULL);
}

static void *read_after_a_while(void *arg)
{
	static char block[65536];

	pause_ms(300);
	while (read(pair[1], block, sizeof block) > 0)
		;
	return NULL;
}

static void messages__no_more_after_a_short_one(void **state)
{
	size_t len = 16 << 20;
	char end[] = "end";
	struct iovec iov[2] = {{calloc(1, len), len}, {end, sizeof end}};
	struct mmsghdr msgs[2] = {{.msg_hdr = {.msg_iov = &iov[0], .msg_iovlen = 1}},
		{.msg_hdr = {.msg_iov = &iov[1], .msg_iovlen = 1}}};
	struct timeval patience = {.tv_usec = 200000};
	pthread_t thread;

	assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_after_a_while, NULL), 0);
	assert_int_equal(sendmmsg(pair[0], msgs, 2, 0), 1);
	assert_true(msgs[0].msg_len < len);
	shutdown(pair[0], SHUT_WR);
	pthread_join(thread, NULL);
	free(iov[0].iov_base);
}

static void message__of_too_many_pieces(void **state)
{
	static struct iovec iov[1025];
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 1025};

	assert_int_equal(sendmsg(pair[0], &msg, 0), -1);
	assert_int_equal(errno, EMSGSIZE);
}

/* --- transfers --- */

static void splice__does_not_wait(void **state)
{
	unsigned flags = SPLICE_F_NONBLOCK;
	int tube[2], n;

	assert_int_equal(pipe(tube), 0);
	assert_int_equal(write(tube[1], "abc", 3), 3);
	fill(pair[0]);
	while (send(pair[0], "", 1, MSG_DONTWAIT) == 1)
		;
	set_flag(pair[0], O_NONBLOCK);
	for (unsigned i = 0; i < 2; i++, flags = 0) {
		assert_int_equal(splice(tube[0], NULL, pair[0], NULL, 3, flags), -1);
		assert_int_equal(errno, EAGAIN);
		assert_int_equal(ioctl(tube[0], FIONREAD, &n), 0);
		assert_int_equal(n, 3);
	}
	close(tube[0]);
	close(tube[1]);
}

/* The send says what is wrong, or the peer is gone and takes what is sent: but it is not waited for. */
static void splice__to_who_takes_no_more(void **state)
{
	int tube[2];

	assert_int_equal(pipe(tube), 0);
	assert_int_equal(write(tube[1], "abcdef", 6), 6);
	close(pair[1]);
	pair[1] = -1;
	assert_int_equal(splice(tube[0], NULL, pair[0], NULL, 3, 0), 3);
	assert_int_equal(shutdown(pair[0], SHUT_WR) && errno != ENOTCONN, 0);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(splice(tube[0], NULL, pair[0], NULL, 3, 0), -1);
	assert_true(errno == EPIPE || errno == ECONNRESET);
	close(tube[0]);
	close(tube[1]);
}

static void *send_a_file(void *arg)
{
	int fd = open("/proc/self/exe", O_RDONLY);
	ssize_t n = sendfile(pair[0], fd, NULL, 4096);

	close(fd);
	return (void *)(intptr_t)n;
}

static void sendfile__on_a_small_stack(void **state)
{
	pthread_attr_t attr;
	pthread_t thread;
	void *n;

	pthread_attr_init(&attr);
	/* The C library takes the threads' own memory from it, too. */
	assert_int_equal(pthread_attr_setstacksize(&attr, 48 << 10), 0);
	assert_int_equal(pthread_create(&thread, &attr, send_a_file, NULL), 0);
	pthread_join(thread, &n);
	assert_int_equal((intptr_t)n, 4096);
	pthread_attr_destroy(&attr);
}

/* --- beside others --- */

static void *write_much(void *arg)
{
	size_t len = 64 << 20;
	char *bytes = calloc(1, len);
	ssize_t n = send(pair[0], bytes, len, MSG_NOSIGNAL);

	free(bytes);
	return (void *)(intptr_t)(n < 0 ? -errno : n < (ssize_t)len);
}

static void shutdown__ends_another_threads_write(void **state)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, write_much, NULL), 0);
	pause_ms(ASLEEP);
	assert_int_equal(shutdown(pair[0], SHUT_WR), 0);
	assert_int_equal(join(thread), 1);
}

static sigjmp_buf way_out;

static void leave(int signal)
{
	siglongjmp(way_out, 1);
}

/* The peer hears of the end, although the call that was left has had the socket. */
static void close_and_look(void)
{
	char c;

	assert_int_equal(close(pair[0]), 0);
	pair[0] = -1;
	assert_true(events_of(pair[1], POLLIN, PATIENCE) & POLLIN);
	assert_int_equal(recv(pair[1], &c, 1, MSG_DONTWAIT), 0);
}

static void handler__leaves_a_receive(void **state)
{
	struct sigaction sa = {.sa_handler = leave}, old;
	struct itimerval timer = {.it_value.tv_usec = ASLEEP * 1000};
	char c;

	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	if (!sigsetjmp(way_out, 1)) {
		assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
		recv(pair[0], &c, 1, 0);
		fail();
	}
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
	alarm(STUCK);
	close_and_look();
}

static void *receive(void *arg)
{
	char c;

	return (void *)(intptr_t)recv(pair[0], &c, 1, 0);
}

static void cancelled__in_a_receive(void **state)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, receive, NULL), 0);
	pause_ms(ASLEEP);
	assert_int_equal(pthread_cancel(thread), 0);
	pthread_join(thread, NULL);
	close_and_look();
}

static void *sleep_long(void *arg)
{
	pause_ms(PATIENCE);
	return NULL;
}

static void *cancel_another(void *arg)
{
	pthread_t victim;

	assert_int_equal(pthread_create(&victim, NULL, sleep_long, NULL), 0);
	pause_ms(30);
	assert_int_equal(pthread_cancel(victim), 0);
	pthread_join(victim, NULL);
	return NULL;
}

/* Which is of no concern to a thread that has received some of what it waits for. */
static void cancelled__another_thread(void **state)
{
	pthread_t other, rest;
	char buf[20010];

	give(pair[1], 10);
	assert_int_equal(pthread_create(&rest, NULL, give_the_rest, NULL), 0);
	assert_int_equal(pthread_create(&other, NULL, cancel_another, NULL), 0);
	assert_int_equal(recv(pair[0], buf, sizeof buf, MSG_WAITALL), sizeof buf);
	pthread_join(other, NULL);
	pthread_join(rest, NULL);
}

static void close_it(int signal)
{
	close(pair[0]);
	pair[0] = -1;
}

static void handler__closes_what_is_received_from(void **state)
{
	struct sigaction sa = {.sa_handler = close_it}, old;
	struct itimerval timer = {.it_value.tv_usec = ASLEEP * 1000};
	char c;

	if (path == KERNEL)
		skip(); /* the call goes on with what has no descriptor any more */
	sa.sa_flags = SA_RESTART;
	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
	assert_int_equal(recv(pair[0], &c, 1, 0), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
	alarm(STUCK);
}

static void on_alarm(int signal)
{
}

/* Restarted is only what has done nothing yet. */
static void handler__ends_a_receive_that_has_some(void **state)
{
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}, old;
	struct itimerval timer = {.it_value.tv_usec = ASLEEP * 1000};
	char buf[10];

	give(pair[1], 4);
	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
	assert_int_equal(recv(pair[0], buf, sizeof buf, MSG_WAITALL), 4);
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
	alarm(STUCK);
}

/* --- again --- */

static void connect_and_reset(int listener, int fd)
{
	struct linger at_once = {.l_onoff = 1};
	int accepted;
	char c;

	loopback_connect(listener, fd);
	accepted = accept(listener, NULL, NULL);
	assert_true(accepted >= 0);
	assert_int_equal(setsockopt(accepted, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
	assert_int_equal(close(accepted), 0);
	events_of(fd, POLLIN, PATIENCE);
	assert_int_equal(recv(fd, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
}

static void disconnect__forgets_how_it_ended(void **state)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int listener = loopback_listen(path), fd = socket(AF_INET, SOCK_STREAM, 0);

	connect_and_reset(listener, fd);
	assert_int_equal(connect(fd, &none, sizeof none), 0);
	connect_and_reset(listener, fd);
	close(fd);
	close(listener);
}

/* --- */

static int setup(void **state)
{
	path = (enum path)(intptr_t)*state;
	alarm(STUCK);
	loopback_pair(path, pair);
	return 0;
}

static int teardown(void **state)
{
	alarm(0);
	if (pair[0] >= 0)
		close(pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
	return 0;
}

#define BOTH(name)                                                                                           \
	{#name ", kernel", name, setup, teardown, (void *)KERNEL},                                           \
	{                                                                                                    \
#name ", san", name, setup, teardown, (void *)SAN                                            \
	}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		BOTH(epoll__of_what_is_added_while_it_sleeps),
		BOTH(select__of_more_than_the_set_has),
		BOTH(low_mark__beyond_the_buffer),
		BOTH(low_mark__lowered_while_epoll_waits),
		BOTH(peek__of_all_at_the_end),
		BOTH(peek__into_many_pieces),
		BOTH(truncated__counts_all_that_is_there),
		BOTH(truncated__waits_for_all),
		BOTH(messages__no_more_after_a_short_one),
		BOTH(message__of_too_many_pieces),
		BOTH(splice__does_not_wait),
		BOTH(splice__to_who_takes_no_more),
		BOTH(sendfile__on_a_small_stack),
		BOTH(shutdown__ends_another_threads_write),
		BOTH(handler__leaves_a_receive),
		BOTH(cancelled__in_a_receive),
		BOTH(cancelled__another_thread),
		BOTH(handler__closes_what_is_received_from),
		BOTH(handler__ends_a_receive_that_has_some),
		BOTH(disconnect__forgets_how_it_ended),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	loopback_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

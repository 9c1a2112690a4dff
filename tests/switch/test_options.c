/* SPDX-License-Identifier: BSD-3-Clause */
/* Socket options and descriptor flags: the SAN path answers as the kernel's TCP does. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback.h"

static int get(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof v;

	assert_int_equal(getsockopt(fd, level, name, &v, &len), 0);
	assert_int_equal(len, sizeof v);
	return v;
}

static int set(int fd, int level, int name, int v)
{
	return setsockopt(fd, level, name, &v, sizeof v);
}

static unsigned now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

static void close_pair(const int fds[2])
{
	assert_int_equal(close(fds[0]), 0);
	assert_int_equal(close(fds[1]), 0);
}

/* What it waits for comes at once in memory, and nearly so through the kernel. */
static void await_events(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	assert_int_equal(poll(&p, 1, 2000), 1);
	assert_true(p.revents & events);
}

/* --- values --- */

static const struct {
	int level, name, value;
} ints[] = {
	{IPPROTO_TCP, TCP_NODELAY, 1},
	{IPPROTO_TCP, TCP_NODELAY, 0},
	{IPPROTO_TCP, TCP_CORK, 1},
	{IPPROTO_TCP, TCP_CORK, 0},
	{IPPROTO_TCP, TCP_KEEPIDLE, 11},
	{SOL_SOCKET, SO_KEEPALIVE, 1},
	{IPPROTO_TCP, TCP_KEEPINTVL, 3},
	{IPPROTO_TCP, TCP_KEEPCNT, 4},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, 12345},
	{IPPROTO_TCP, TCP_QUICKACK, 1},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, 0},
	{SOL_SOCKET, SO_SNDBUF, 100000},
	{SOL_SOCKET, SO_RCVBUF, 100000},
	{SOL_SOCKET, SO_SNDBUF, 1},
	{SOL_SOCKET, SO_RCVLOWAT, 10},
	{SOL_SOCKET, SO_REUSEADDR, 1},
	{SOL_SOCKET, SO_OOBINLINE, 1},
	{SOL_SOCKET, SO_PRIORITY, 5},
	{IPPROTO_IP, IP_TOS, 0x10},
	/* refused by both */
	{IPPROTO_TCP, TCP_KEEPIDLE, 0},
	{IPPROTO_TCP, TCP_KEEPCNT, 1000},
	{IPPROTO_TCP, 999, 1},
	{SOL_SOCKET, SO_TYPE, 1},
	{999, 1, 1},
};

static void values_are_as_with_the_kernel(void **state)
{
	int kernel[2], san[2];

	loopback_pair(KERNEL, kernel);
	loopback_pair(SAN, san);
	for (unsigned i = 0; i < sizeof ints / sizeof *ints; i++) {
		int k, s, k_errno;

		errno = 0;
		k = set(kernel[0], ints[i].level, ints[i].name, ints[i].value);
		k_errno = errno;
		errno = 0;
		s = set(san[0], ints[i].level, ints[i].name, ints[i].value);
		assert_int_equal(s, k);
		assert_int_equal(errno, k_errno);
		if (!k)
			assert_int_equal(get(san[0], ints[i].level, ints[i].name),
				get(kernel[0], ints[i].level, ints[i].name));
	}
	close_pair(kernel);
	close_pair(san);
}

static void names_of_a_connection(void **state)
{
	int san[2];

	loopback_pair(SAN, san);
	assert_int_equal(get(san[0], SOL_SOCKET, SO_TYPE), SOCK_STREAM);
	assert_int_equal(get(san[0], SOL_SOCKET, SO_DOMAIN), AF_INET);
	assert_int_equal(get(san[0], SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
	assert_int_equal(get(san[0], SOL_SOCKET, SO_ACCEPTCONN), 0);
	assert_true(get(san[0], IPPROTO_TCP, TCP_MAXSEG) >= 536);
	close_pair(san);
}

static void short_and_bad_buffers(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2];
		socklen_t len = 1;
		char one = 77;

		loopback_pair(p, fds);
		assert_int_equal(getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &one, &len), 0);
		assert_int_equal(len, 1);
		assert_int_equal(one, 0);
		len = (socklen_t)-1;
		assert_int_equal(getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &one, &len), -1);
		assert_int_equal(errno, EINVAL);
		len = (socklen_t)-1;
		assert_int_equal(getsockopt(fds[0], IPPROTO_TCP, TCP_INFO, &one, &len), -1);
		assert_int_equal(errno, EINVAL);
		len = 1;
		assert_int_equal(getsockopt(fds[0], IPPROTO_TCP, TCP_INFO, &one, &len), 0);
		assert_int_equal(len, 1);
		assert_int_equal(one, TCP_ESTABLISHED);
		close_pair(fds);
	}
}

static void accepted_sockets_inherit(void **state)
{
	struct timeval t = {.tv_sec = 3, .tv_usec = 250000}, got_t;
	struct linger l = {1, 7}, got_l;

	for (enum path p = KERNEL; p <= SAN; p++) {
		int listener = loopback_listen(p), c, a;
		socklen_t len = sizeof got_t;

		assert_int_equal(set(listener, IPPROTO_TCP, TCP_NODELAY, 1), 0);
		assert_int_equal(set(listener, IPPROTO_TCP, TCP_KEEPIDLE, 33), 0);
		assert_int_equal(set(listener, SOL_SOCKET, SO_KEEPALIVE, 1), 0);
		assert_int_equal(set(listener, SOL_SOCKET, SO_RCVBUF, 50000), 0);
		assert_int_equal(set(listener, SOL_SOCKET, SO_RCVLOWAT, 5), 0);
		assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t), 0);
		assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_LINGER, &l, sizeof l), 0);
		c = loopback_connect(listener, -1);
		a = accept(listener, NULL, NULL);
		assert_int_equal(loopback_path(a), p);
		assert_int_equal(get(a, IPPROTO_TCP, TCP_NODELAY), 1);
		assert_int_equal(get(a, IPPROTO_TCP, TCP_KEEPIDLE), 33);
		assert_int_equal(get(a, SOL_SOCKET, SO_KEEPALIVE), 1);
		assert_int_equal(get(a, SOL_SOCKET, SO_RCVBUF), get(listener, SOL_SOCKET, SO_RCVBUF));
		assert_int_equal(get(a, SOL_SOCKET, SO_RCVLOWAT), 5);
		assert_int_equal(getsockopt(a, SOL_SOCKET, SO_SNDTIMEO, &got_t, &len), 0);
		assert_int_equal(got_t.tv_sec, 3);
		assert_in_range(got_t.tv_usec, 240000, 260000);
		len = sizeof got_l;
		assert_int_equal(getsockopt(a, SOL_SOCKET, SO_LINGER, &got_l, &len), 0);
		assert_int_equal(got_l.l_linger, 7);
		assert_int_equal(get(c, IPPROTO_TCP, TCP_NODELAY), 0);
		close(listener);
		close(c);
		close(a);
	}
}

/* --- what they do --- */

static void set_receive_timeout(int fd, long us)
{
	struct timeval t = {.tv_usec = us};

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), 0);
}

static void receive_timeout(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2];
		unsigned start;
		char c;

		loopback_pair(p, fds);
		set_receive_timeout(fds[0], 60000);
		start = now_ms();
		assert_int_equal(recv(fds[0], &c, 1, 0), -1);
		assert_int_equal(errno, EAGAIN);
		/* The machine may be busy. */
		assert_in_range(now_ms() - start, 50, 10000);
		close_pair(fds);
	}
}

/* Set before the connection is made, when only the kernel's socket knows. */
static void options_from_before(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int listener = loopback_listen(p), c = socket(AF_INET, SOCK_STREAM, 0), a;
		unsigned start;
		char b;

		set_receive_timeout(c, 60000);
		set_receive_timeout(listener, 60000);
		loopback_connect(listener, c);
		a = accept(listener, NULL, NULL);
		assert_int_equal(loopback_path(c), p);
		start = now_ms();
		assert_int_equal(recv(c, &b, 1, 0), -1);
		assert_int_equal(errno, EAGAIN);
		assert_int_equal(recv(a, &b, 1, 0), -1);
		assert_int_equal(errno, EAGAIN);
		assert_in_range(now_ms() - start, 100, 10000);
		/* That of a listener is for accept. */
		assert_int_equal(accept(listener, NULL, NULL), -1);
		assert_int_equal(errno, EAGAIN);
		close(listener);
		close(c);
		close(a);
	}
}

static void low_water_mark(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		struct pollfd w;
		int fds[2];

		loopback_pair(p, fds);
		assert_int_equal(set(fds[0], SOL_SOCKET, SO_RCVLOWAT, 4), 0);
		assert_int_equal(send(fds[1], "abc", 3, 0), 3);
		w = (struct pollfd){.fd = fds[0], .events = POLLIN};
		assert_int_equal(poll(&w, 1, 50), 0);
		assert_int_equal(send(fds[1], "d", 1, 0), 1);
		assert_int_equal(poll(&w, 1, 1000), 1);
		close_pair(fds);
	}
}

static void nonblocking(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2], other, on = 1, off = 0;
		char c;

		loopback_pair(p, fds);
		other = dup(fds[0]);
		assert_false(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
		assert_int_equal(fcntl(fds[0], F_SETFL, O_RDWR | O_NONBLOCK), 0);
		assert_int_equal(recv(fds[0], &c, 1, 0), -1);
		assert_int_equal(errno, EAGAIN);
		/* A flag of the socket, not of the number. */
		assert_true(fcntl(other, F_GETFL) & O_NONBLOCK);
		assert_int_equal(read(other, &c, 1), -1);
		assert_int_equal(errno, EAGAIN);
		assert_int_equal(ioctl(other, FIONBIO, &off), 0);
		assert_false(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
		set_receive_timeout(fds[0], 30000); /* it waits again */
		assert_int_equal(recv(fds[0], &c, 1, 0), -1);
		assert_int_equal(ioctl(fds[0], FIONBIO, &on), 0);
		assert_true(fcntl(other, F_GETFL) & O_NONBLOCK);
		close(other);
		close_pair(fds);
	}
}

/* accept makes the kernel's socket non-blocking behind the program's back. */
static void a_listeners_flags_stay_true(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int listener = loopback_listen(p), c;

		set_receive_timeout(listener, 30000);
		assert_int_equal(accept(listener, NULL, NULL), -1);
		assert_false(fcntl(listener, F_GETFL) & O_NONBLOCK);
		assert_int_equal(fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK), 0);
		assert_true(fcntl(listener, F_GETFL) & O_NONBLOCK);
		assert_int_equal(accept(listener, NULL, NULL), -1);
		assert_int_equal(errno, EAGAIN);
		assert_int_equal(fcntl(listener, F_SETFL, O_RDWR), 0);
		assert_false(fcntl(listener, F_GETFL) & O_NONBLOCK);
		c = loopback_connect(listener, -1);
		assert_int_equal(close(accept(listener, NULL, NULL)), 0);
		close(c);
		close(listener);
	}
}

static void queues(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2], n = -1;
		char b[8];

		loopback_pair(p, fds);
		assert_int_equal(ioctl(fds[0], FIONREAD, &n), 0);
		assert_int_equal(n, 0);
		assert_int_equal(send(fds[1], "hello", 5, 0), 5);
		await_events(fds[0], POLLIN);
		assert_int_equal(ioctl(fds[0], FIONREAD, &n), 0);
		assert_int_equal(n, 5);
		assert_int_equal(read(fds[0], b, 2), 2);
		assert_int_equal(ioctl(fds[0], SIOCINQ, &n), 0);
		assert_int_equal(n, 3);
		assert_int_equal(ioctl(fds[1], SIOCOUTQ, &n), 0);
		assert_int_equal(n, 0);
		assert_int_equal(ioctl(fds[1], SIOCOUTQNSD, &n), 0);
		assert_int_equal(n, 0);
		assert_int_equal(ioctl(fds[1], SIOCATMARK, &n), 0);
		assert_int_equal(n, 0);
		assert_int_equal(ioctl(fds[1], 0x7777, &n), -1);
		close_pair(fds);
	}
}

/* --- the state of a connection --- */

static int tcp_state(int fd)
{
	struct tcp_info t;
	socklen_t len = sizeof t;

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &len), 0);
	assert_true(len >= 104);
	return t.tcpi_state;
}

static void states(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2];

		loopback_pair(p, fds);
		assert_int_equal(tcp_state(fds[0]), TCP_ESTABLISHED);
		assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
		await_events(fds[1], POLLRDHUP);
		/* The kernel may hold back its acknowledgement of the FIN. */
		assert_in_range(tcp_state(fds[0]), TCP_FIN_WAIT1, TCP_FIN_WAIT2);
		assert_int_equal(tcp_state(fds[1]), TCP_CLOSE_WAIT);
		close_pair(fds);
	}
}

static void reset_by_peer(int fd)
{
	struct linger l = {1, 0};

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l), 0);
	assert_int_equal(close(fd), 0);
}

static void an_error_is_told_once(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		int fds[2];
		char c;

		loopback_pair(p, fds);
		assert_int_equal(get(fds[0], SOL_SOCKET, SO_ERROR), 0);
		reset_by_peer(fds[1]);
		await_events(fds[0], POLLERR);
		assert_int_equal(get(fds[0], SOL_SOCKET, SO_ERROR), ECONNRESET);
		assert_int_equal(get(fds[0], SOL_SOCKET, SO_ERROR), 0);
		assert_int_equal(recv(fds[0], &c, 1, 0), 0);
		assert_int_equal(send(fds[0], &c, 1, MSG_NOSIGNAL), -1);
		assert_int_equal(errno, EPIPE);
		assert_int_equal(tcp_state(fds[0]), TCP_CLOSE);
		close(fds[0]);
		/* And the other way round. */
		loopback_pair(p, fds);
		reset_by_peer(fds[1]);
		await_events(fds[0], POLLERR);
		assert_int_equal(recv(fds[0], &c, 1, 0), -1);
		assert_int_equal(errno, ECONNRESET);
		assert_int_equal(get(fds[0], SOL_SOCKET, SO_ERROR), 0);
		close(fds[0]);
	}
}

/* --- what the SAN path does not carry --- */

static const struct sock_filter accept_all[] = {{BPF_RET | BPF_K, 0, 0, 0xffffffff}};
static const struct sock_fprog filter = {1, (struct sock_filter *)accept_all};

static int attach_filter(int fd)
{
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

static void kernels_own_before_connect(void **state)
{
	static const struct {
		int level, name, value;
		enum path path;
	} cases[] = {
		{SOL_SOCKET, SO_ZEROCOPY, 1, KERNEL},
		{SOL_SOCKET, SO_ZEROCOPY, 0, SAN},
		{SOL_SOCKET, SO_TIMESTAMP, 1, KERNEL},
		{IPPROTO_IP, IP_MINTTL, 1, KERNEL},
		{SOL_SOCKET, SO_MAX_PACING_RATE, 1000000, KERNEL},
		{SOL_SOCKET, SO_MAX_PACING_RATE, -1, SAN},
		{IPPROTO_TCP, TCP_INQ, 1, KERNEL},
		{IPPROTO_IP, IP_TOS, 8, SAN},
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		int listener = loopback_listen(SAN), fd = socket(AF_INET, SOCK_STREAM, 0);

		assert_int_equal(set(fd, cases[i].level, cases[i].name, cases[i].value), 0);
		loopback_connect(listener, fd);
		assert_int_equal(loopback_path(fd), cases[i].path);
		close(fd);
		close(listener);
	}
}

static void kernels_own_on_a_connection(void **state)
{
	int fds[2];
	char b[4];

	loopback_pair(SAN, fds);
	assert_int_equal(attach_filter(fds[0]), -1);
	assert_int_equal(errno, ENOPROTOOPT);
	assert_int_equal(setsockopt(fds[0], IPPROTO_TCP, TCP_ULP, "tls", 4), -1);
	assert_int_equal(send(fds[0], "abc", 3, 0), 3);
	assert_int_equal(recv(fds[1], b, sizeof b, 0), 3);
	close_pair(fds);
}

static void kernels_own_on_a_listener(void **state)
{
	int listener = loopback_listen(SAN), c, a;

	assert_int_equal(attach_filter(listener), 0);
	c = loopback_connect(listener, -1);
	a = accept(listener, NULL, NULL);
	assert_int_equal(loopback_path(c), KERNEL);
	assert_int_equal(loopback_path(a), KERNEL);
	assert_int_equal(send(c, "x", 1, 0), 1);
	await_events(a, POLLIN);
	close(c);
	close(a);
	close(listener);
}

/* lo is the SAN's interface here. */
static void bound_to_a_device(void **state)
{
	static const struct {
		const char *name;
		enum path path;
	} cases[] = {{"lo", SAN}, {"", SAN}};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		int listener = loopback_listen(SAN), fd = socket(AF_INET, SOCK_STREAM, 0);

		if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, cases[i].name,
			    (socklen_t)strlen(cases[i].name) + 1)) {
			assert_int_equal(errno, EPERM);
			skip();
		}
		loopback_connect(listener, fd);
		assert_int_equal(loopback_path(fd), cases[i].path);
		close(fd);
		close(listener);
	}
}

static void other_descriptors_are_the_kernels(void **state)
{
	int udp = socket(AF_INET, SOCK_DGRAM, 0), p[2], n;

	assert_int_equal(attach_filter(udp), 0);
	assert_int_equal(set(udp, SOL_SOCKET, SO_RCVBUF, 10000), 0);
	assert_int_equal(get(udp, SOL_SOCKET, SO_ERROR), 0);
	assert_int_equal(close(udp), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], "abc", 3), 3);
	assert_int_equal(ioctl(p[0], FIONREAD, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(set(p[0], SOL_SOCKET, SO_RCVBUF, 1), -1);
	assert_int_equal(errno, ENOTSOCK);
	close_pair(p);
	assert_int_equal(set(p[0], SOL_SOCKET, SO_RCVBUF, 1), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(fcntl(p[0], F_GETFL), -1);
	assert_int_equal(errno, EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_as_with_the_kernel),
		cmocka_unit_test(names_of_a_connection),
		cmocka_unit_test(short_and_bad_buffers),
		cmocka_unit_test(accepted_sockets_inherit),
		cmocka_unit_test(receive_timeout),
		cmocka_unit_test(options_from_before),
		cmocka_unit_test(low_water_mark),
		cmocka_unit_test(nonblocking),
		cmocka_unit_test(a_listeners_flags_stay_true),
		cmocka_unit_test(queues),
		cmocka_unit_test(states),
		cmocka_unit_test(an_error_is_told_once),
		cmocka_unit_test(kernels_own_before_connect),
		cmocka_unit_test(kernels_own_on_a_connection),
		cmocka_unit_test(kernels_own_on_a_listener),
		cmocka_unit_test(bound_to_a_device),
		cmocka_unit_test(other_descriptors_are_the_kernels),
	};

	loopback_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

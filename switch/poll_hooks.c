/* SPDX-License-Identifier: BSD-3-Clause */
/* poll, ppoll, select and pselect. Sets without a SAN descriptor go to the C library as they are. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#include "base/clock.h"
#include "switch/fdtab.h"
#include "switch/libc.h"
#include "switch/pollset.h"
#include "switch/runtime.h"
#include "switch/wait.h"

static bool pass(const struct pollfd *fds, nfds_t n)
{
	return sw_is_internal() || !sw_poll_has_san(fds, n);
}

static uint64_t ns_of_ms(int ms)
{
	return ms < 0 ? SW_FOREVER : (uint64_t)ms * SD_MS;
}

/* SW_FOREVER for NULL; false: not a time. */
static bool ns_of_timespec(const struct timespec *ts, uint64_t *ns)
{
	*ns = SW_FOREVER;
	if (!ts)
		return true;
	if (ts->tv_sec < 0 || ts->tv_nsec < 0 || ts->tv_nsec >= 1000000000)
		return false;
	if ((uint64_t)ts->tv_sec < SW_FOREVER / SD_S)
		*ns = (uint64_t)ts->tv_sec * SD_S + (uint64_t)ts->tv_nsec;
	return true;
}

/* --- poll --- */

SW_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	if (pass(fds, n))
		return sw_libc.poll(fds, n, timeout);
	return (int)sw_result(sw_poll(fds, n, ns_of_ms(timeout), NULL));
}

SW_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	uint64_t ns;

	if (pass(fds, n) || !ns_of_timespec(timeout, &ns))
		return sw_libc.ppoll(fds, n, timeout, mask);
	return (int)sw_result(sw_poll(fds, n, ns, mask));
}

int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
int __ppoll_chk(
	struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room);
void __chk_fail(void) __attribute__((noreturn));

SW_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
	if (room / sizeof *fds < n)
		__chk_fail();
	return poll(fds, n, timeout);
}

SW_EXPORT int __ppoll_chk(
	struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
	if (room / sizeof *fds < n)
		__chk_fail();
	return ppoll(fds, n, timeout, mask);
}

/* --- select --- */

/* Which poll events make which set ready: as the kernel's fs/select.c. */
#define READS  (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define WRITES (POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR)
#define EXCEPT POLLPRI

struct sets {
	int n;
	fd_set *in, *out, *ex;
	struct pollfd *fds;
	nfds_t n_fds;
};

/* The sets may be longer than fd_set: programs allocate them by themselves. */
static bool has(const fd_set *set, int fd)
{
	return set && (((const unsigned long *)set)[fd / NFDBITS] >> (fd % NFDBITS) & 1);
}

static void put(fd_set *set, int fd)
{
	((unsigned long *)set)[fd / NFDBITS] |= 1ul << (fd % NFDBITS);
}

static void empty(fd_set *set, int n)
{
	if (set)
		memset(set, 0, (size_t)(n + NFDBITS - 1) / NFDBITS * sizeof(unsigned long));
}

/*
 * The kernel looks at no more of the sets than its table of descriptors has room for, and programs count on
 * that which give it the limit of descriptors and sets of FD_SETSIZE.
 */
static int within_table(int n)
{
	char text[1024], *at;
	int fd, size, saved_errno = errno;
	ssize_t len;

	if (n <= FD_SETSIZE || sw_rt.confined)
		return n;
	fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		len = sw_libc.read(fd, text, sizeof text - 1);
		sw_libc.close(fd);
		text[len > 0 ? len : 0] = 0;
		at = strstr(text, "FDSize:");
		size = at ? atoi(at + strlen("FDSize:")) : 0;
		if (size > 0 && size < n)
			n = size;
	}
	errno = saved_errno;
	return n;
}

static bool select_has_san(const struct sets *s)
{
	for (int fd = 0; fd < s->n; fd++) {
		uintptr_t slot = sw_fd_slot(fd);

		if (slot && (!(slot & SW_SLOT_TAGS) || sw_slot_is_guard(slot) || (slot & SW_SLOT_EPSET)) &&
			(has(s->in, fd) || has(s->out, fd) || has(s->ex, fd)))
			return true;
	}
	return false;
}

static void list_fds(struct sets *s)
{
	s->n_fds = 0;
	for (int fd = 0; fd < s->n; fd++) {
		short events = (has(s->in, fd) ? POLLRDNORM | POLLIN : 0) |
			       (has(s->out, fd) ? POLLWRNORM | POLLOUT : 0) | (has(s->ex, fd) ? POLLPRI : 0);

		if (events)
			s->fds[s->n_fds++] = (struct pollfd){.fd = fd, .events = events};
	}
}

static int give_sets(struct sets *s)
{
	int n = 0;

	for (nfds_t i = 0; i < s->n_fds; i++) {
		if (s->fds[i].revents & POLLNVAL)
			return -EBADF;
	}
	/* What was asked is needed until here. */
	for (nfds_t i = 0; i < s->n_fds; i++) {
		struct pollfd *f = &s->fds[i];

		f->revents &= (short)((has(s->in, f->fd) ? READS : 0) | (has(s->out, f->fd) ? WRITES : 0) |
				      (has(s->ex, f->fd) ? EXCEPT : 0));
		f->events = (short)((has(s->in, f->fd) && (f->revents & READS) ? 1 : 0) |
				    (has(s->out, f->fd) && (f->revents & WRITES) ? 2 : 0) |
				    (has(s->ex, f->fd) && (f->revents & EXCEPT) ? 4 : 0));
	}
	empty(s->in, s->n);
	empty(s->out, s->n);
	empty(s->ex, s->n);
	for (nfds_t i = 0; i < s->n_fds; i++) {
		struct pollfd *f = &s->fds[i];

		n += __builtin_popcount((unsigned)f->events);
		if (f->events & 1)
			put(s->in, f->fd);
		if (f->events & 2)
			put(s->out, f->fd);
		if (f->events & 4)
			put(s->ex, f->fd);
	}
	return n;
}

static int select_san(struct sets *s, uint64_t timeout_ns, const sigset_t *mask)
{
	struct pollfd fixed[FD_SETSIZE > 256 ? 256 : FD_SETSIZE];
	int r;

	s->n = within_table(s->n);
	s->fds = fixed;
	if (s->n > (int)(sizeof fixed / sizeof *fixed)) {
		s->fds = malloc((size_t)s->n * sizeof *s->fds);
		if (!s->fds)
			return -ENOMEM;
	}
	list_fds(s);
	r = sw_poll(s->fds, s->n_fds, timeout_ns, mask);
	if (r >= 0)
		r = give_sets(s);
	if (s->fds != fixed)
		free(s->fds);
	return r;
}

SW_EXPORT int select(int n, fd_set *in, fd_set *out, fd_set *ex, struct timeval *timeout)
{
	struct sets s = {n, in, out, ex, NULL, 0};
	uint64_t ns = SW_FOREVER, start, left;
	int r;

	if (sw_is_internal() || n < 0 || !select_has_san(&s) ||
		(timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
		return sw_libc.select(n, in, out, ex, timeout);
	if (timeout && (uint64_t)timeout->tv_sec < SW_FOREVER / SD_S / 2)
		ns = (uint64_t)timeout->tv_sec * SD_S + (uint64_t)timeout->tv_usec * SD_US;
	start = sd_clock_ns();
	r = select_san(&s, ns, NULL);
	if (timeout && ns != SW_FOREVER) {
		/* Linux tells what was left of the time. */
		left = sd_clock_ns() - start;
		left = left < ns ? ns - left : 0;
		timeout->tv_sec = (time_t)(left / SD_S);
		timeout->tv_usec = (suseconds_t)(left % SD_S / SD_US);
	}
	return (int)sw_result(r);
}

SW_EXPORT int pselect(
	int n, fd_set *in, fd_set *out, fd_set *ex, const struct timespec *timeout, const sigset_t *mask)
{
	struct sets s = {n, in, out, ex, NULL, 0};
	uint64_t ns;

	if (sw_is_internal() || n < 0 || !select_has_san(&s) || !ns_of_timespec(timeout, &ns))
		return sw_libc.pselect(n, in, out, ex, timeout, mask);
	return (int)sw_result(select_san(&s, ns, mask));
}

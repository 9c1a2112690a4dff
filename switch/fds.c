/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The C library's functions that open and close descriptor numbers. Kernel and table change together with the
 * domain entered, so that no other thread finds a number that the two see differently.
 *
 * The library's own descriptors appear not open. dup2(2) onto one is refused with EBUSY: DPDK keeps numbers
 * in places that we cannot reach, so it cannot make room. A vfork child has a table of its own but our
 * memory: what it does goes straight to the kernel, as does what the library itself calls.
 */
#include "switch/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "switch/libc.h"
#include "switch/process.h"
#include "switch/sock.h"
#include "switch/wait.h"

/* The acknowledgement of the last byte rings nobody: it is looked for this often. */
#define LINGER_LOOK_NS (1 * SD_MS)

static bool is_ours(int fd)
{
	return __builtin_expect(sw_fd_slot(fd) != 0, 0) && !sw_is_internal() && sw_is_own_process();
}

/* Or will have: a forked child that has not used it yet. */
static bool has_engine(void)
{
	return (sw_rt.domain && pv_domain_alive(sw_rt.domain)) || (sw_rt.shm && sw_process_was_forked());
}

/* --- close --- */

static bool is_kernel_connection(const struct sw_obj *o)
{
	return !o->is_epset && container_of(o, const struct sw_sock, obj)->state == SW_KERNEL;
}

static bool lingers(const struct sw_obj *o)
{
	const struct sw_sock *s = container_of(o, const struct sw_sock, obj);

	return !o->is_epset && s->state == SW_CONNECTED && s->linger.l_onoff && s->linger.l_linger > 0;
}

static bool is_delivered(struct sw_sock *s)
{
	struct pv_info info;

	if (s->ep->ops->state(s->ep) & PV_ERR)
		return true;
	s->ep->ops->info(s->ep, &info);
	return !info.send_queued;
}

/* SO_LINGER: waits until the peer has everything, as the kernel does also for a non-blocking socket. */
static void linger(struct sw_sock *s)
{
	uint64_t end = sd_clock_ns() + (uint64_t)s->linger.l_linger * SD_S, left = end;
	struct sw_wait w;
	int r = 0;

	s->ep->ops->shutdown(s->ep, SHUT_WR);
	while (r != -EINTR && !is_delivered(s) && left) {
		sw_wait_begin(&w, left < LINGER_LOOK_NS ? left : LINGER_LOOK_NS, false);
		do
			r = sw_wait_on(&w, &s->waiters, s->ep, NULL, 0);
		while (!r && !is_delivered(s));
		left = sd_clock_ns() < end ? end - sd_clock_ns() : 0;
	}
}

/* Closes number and object; domain entered. The kernel's socket of a SAN connection has nothing to wait for.
 */
static int close_lingering(int fd, struct sw_obj *o)
{
	int r;

	sw_obj_pin(o);
	sw_fd_drop(fd);
	r = sw_libc.close(fd);
	/* Not if there is another descriptor, or another thread waits with it and will be the last. */
	if (!o->fds && o->pins == 1 && sw_sock_of(o)->state == SW_CONNECTED)
		linger(sw_sock_of(o));
	sw_obj_unpin(o);
	return r;
}

SW_EXPORT int close(int fd)
{
	struct sw_obj *o;
	int r;

	if (!is_ours(fd))
		return sw_libc.close(fd);
	if (sw_fd_is_guarded(fd))
		return (int)sw_result(-EBADF);
	/* Inherited, and of no use to this program: for that no runtime needs to be made. */
	if (!has_engine())
		sw_fd_drop(fd);
	if (!has_engine() || !sw_enter())
		return sw_libc.close(fd);
	o = sw_fd_obj(fd);
	if (o && is_kernel_connection(o)) {
		/* It may linger in the kernel, which must not keep others out. */
		sw_fd_drop(fd);
		sw_leave();
		return sw_libc.close(fd);
	}
	if (o && lingers(o)) {
		r = close_lingering(fd, o);
	} else {
		sw_fd_drop(fd);
		r = sw_libc.close(fd);
	}
	sw_leave();
	return r;
}

/* --- ranges --- */

/* Closes what lies between two guarded descriptors. */
static int close_between(unsigned first, unsigned last)
{
	int r = sw_libc.close_range(first, last, 0);

	if (r)
		return r;
	for (int fd = sw_fd_next((int)first); fd >= 0 && (unsigned)fd <= last; fd = sw_fd_next(fd + 1))
		sw_fd_drop(fd);
	return 0;
}

static int close_around_guards(unsigned first, unsigned last)
{
	int fd = sw_fd_next((int)first), r = 0;

	for (; !r && fd >= 0 && (unsigned)fd <= last; fd = sw_fd_next(fd + 1)) {
		if (!sw_fd_is_guarded(fd))
			continue;
		if ((unsigned)fd > first)
			r = close_between(first, (unsigned)fd - 1);
		first = (unsigned)fd + 1;
	}
	return r || first > last ? r : close_between(first, last);
}

SW_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	int r;

	if (sw_is_internal() || !sw_is_own_process() || !has_engine())
		return sw_libc.close_range(first, last, flags);
	/* CLOSE_RANGE_UNSHARE is for a process that makes itself ready to execute a program: nobody shares
	 * its descriptors but the engine's threads, which must go on doing so. */
	flags &= ~(int)CLOSE_RANGE_UNSHARE;
	if (flags || first > last || first > INT_MAX || !sw_enter())
		return sw_libc.close_range(first, last, flags);
	r = close_around_guards(first, last);
	sw_leave();
	return r;
}

/* Without close_range(2): a kernel before 5.9, or a sandbox. */
static void close_each(int first)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur > INT_MAX)
		limit.rlim_cur = INT_MAX;
	for (int fd = first; fd < (int)limit.rlim_cur; fd++)
		close(fd);
}

SW_EXPORT void closefrom(int first)
{
	int saved_errno = errno;

	if (first < 0)
		first = 0;
	if (close_range((unsigned)first, UINT_MAX, 0))
		close_each(first);
	errno = saved_errno;
}

/* --- duplicates --- */

/* The kernel's to is now a duplicate of from, or nothing happened. Domain entered. */
static void follow(int from, int to)
{
	struct sw_obj *o = sw_fd_obj(from);

	if (to < 0 || to == from)
		return;
	if (o)
		sw_fd_share(to, o);
	else
		sw_fd_drop(to);
}

/* A number that the C library closed by itself (fclose) may still be in the table when it comes back. */
static int follow_new(int from, int to)
{
	if (to >= 0 && sw_fd_slot(to) && is_ours(to) && !sw_fd_is_guarded(to) && sw_enter()) {
		follow(from, to);
		sw_leave();
	}
	return to;
}

int sw_fds_duplicate(int fd, int cmd, long min)
{
	int to;

	if (!is_ours(fd) || !sw_enter())
		return follow_new(fd, sw_libc.fcntl(fd, cmd, min));
	to = sw_libc.fcntl(fd, cmd, min);
	follow(fd, to);
	sw_leave();
	return to;
}

SW_EXPORT int dup(int fd)
{
	int to;

	if (sw_fds_not_open(fd))
		return (int)sw_result(-EBADF);
	if (!is_ours(fd) || !sw_enter())
		return follow_new(fd, sw_libc.dup(fd));
	to = sw_libc.dup(fd);
	follow(fd, to);
	sw_leave();
	return to;
}

static int duplicate_to(int fd, int to, int flags, bool three)
{
	return three ? sw_libc.dup3(fd, to, flags) : sw_libc.dup2(fd, to);
}

static int replace(int fd, int to, int flags, bool three)
{
	int r;

	if (!is_ours(fd) && !is_ours(to))
		return duplicate_to(fd, to, flags, three);
	if (sw_fd_is_guarded(fd))
		return (int)sw_result(-EBADF);
	if (sw_fd_is_guarded(to))
		return (int)sw_result(-EBUSY);
	if (!sw_enter())
		return duplicate_to(fd, to, flags, three);
	r = duplicate_to(fd, to, flags, three);
	follow(fd, r);
	sw_leave();
	return r;
}

SW_EXPORT int dup2(int fd, int to)
{
	return replace(fd, to, 0, false);
}

SW_EXPORT int dup3(int fd, int to, int flags)
{
	return replace(fd, to, flags, true);
}

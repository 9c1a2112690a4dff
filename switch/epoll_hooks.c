/* SPDX-License-Identifier: BSD-3-Clause */
/* epoll_create, epoll_ctl and epoll_wait with their relatives. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "switch/epset.h"
#include "switch/libc.h"

static void track(int epfd)
{
	int saved_errno = errno;

	if (epfd >= 0 && !sw_is_internal() && sw_is_own_process() && sw_enter()) {
		sw_epset_new(epfd);
		sw_leave();
	}
	errno = saved_errno;
}

SW_EXPORT int epoll_create1(int flags)
{
	int epfd = sw_libc.epoll_create1(flags);

	track(epfd);
	return epfd;
}

SW_EXPORT int epoll_create(int size)
{
	if (size > 0)
		return epoll_create1(0);
	errno = EINVAL;
	return -1;
}

/* The kernel alone has the member; it is counted. */
static int pass_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	int r = sw_libc.epoll_ctl(epfd, op, fd, ev), saved_errno = errno;
	struct sw_epset *es;

	if (!r && op != EPOLL_CTL_MOD && sw_enter()) {
		es = sw_epset_at(epfd);
		if (es && op == EPOLL_CTL_ADD)
			sw_epset_join_kernel(es);
		else if (es && es->n_kernel)
			es->n_kernel--;
		sw_leave();
	}
	errno = saved_errno;
	return r;
}

SW_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	struct sw_epset *es;
	int r = SW_EPSET_PASS;

	if (sw_is_internal() || !sw_is_own_process() || !sw_epset_at(epfd) || (!ev && op != EPOLL_CTL_DEL))
		return sw_libc.epoll_ctl(epfd, op, fd, ev);
	if (sw_fd_is_guarded(fd)) {
		errno = EBADF;
		return -1;
	}
	if (sw_enter()) {
		es = sw_epset_at(epfd);
		if (es)
			r = sw_epset_ctl(es, op, fd, ev);
		sw_leave();
	}
	return r == SW_EPSET_PASS ? pass_ctl(epfd, op, fd, ev) : (int)sw_result(r);
}

/* --- waiting --- */

static int kernel_wait(int epfd, struct epoll_event *evs, int max, uint64_t timeout_ns, const sigset_t *mask)
{
	struct timespec ts = {(time_t)(timeout_ns / SD_S), (long)(timeout_ns % SD_S)};
	int ms;

	if (timeout_ns == SW_FOREVER)
		return sw_libc.epoll_pwait(epfd, evs, max, -1, mask);
	if (timeout_ns % SD_MS == 0 && timeout_ns / SD_MS <= INT32_MAX) {
		ms = (int)(timeout_ns / SD_MS);
		return sw_libc.epoll_pwait(epfd, evs, max, ms, mask);
	}
	return sw_libc.epoll_pwait2(epfd, evs, max, &ts, mask);
}

/* In the kernel, unless or until the set has SAN members: -EAGAIN. */
static int wait_in_kernel(int epfd, struct sw_epset *es, struct epoll_event *evs, int max,
	uint64_t timeout_ns, const sigset_t *mask)
{
	int r, error;

	if (!sw_epset_kernel_enter(es))
		return -EAGAIN;
	r = kernel_wait(epfd, evs, max, timeout_ns, mask);
	error = errno;
	if (r > 0 && (es->kicked || !list_empty(&es->cookies)) && sw_enter()) {
		r = sw_epset_translate(es, evs, r);
		if (!r)
			r = -EAGAIN;
		sw_leave();
	} else if (r < 0) {
		r = -error;
	}
	sw_epset_kernel_leave(es);
	return r;
}

static int wait_anywhere(
	int epfd, struct epoll_event *evs, int max, uint64_t timeout_ns, const sigset_t *mask)
{
	uint64_t start = 0, now, left = timeout_ns;
	struct sw_epset *es;
	int r;

	for (;;) {
		es = sw_epset_at(epfd);
		if (!es) {
			r = kernel_wait(epfd, evs, max, left, mask);
			return r < 0 ? -errno : r;
		}
		if (!start && timeout_ns && timeout_ns != SW_FOREVER)
			start = sd_clock_ns();
		r = atomic_load(&es->n_san) ? sw_epset_wait(epfd, evs, max, left, mask)
					    : wait_in_kernel(epfd, es, evs, max, left, mask);
		if (r != -EAGAIN)
			return r;
		if (start) {
			now = sd_clock_ns() - start;
			left = now < timeout_ns ? timeout_ns - now : 0;
		}
	}
}

static int wait_checked(int epfd, struct epoll_event *evs, int max, uint64_t timeout_ns, const sigset_t *mask)
{
	if (max <= 0) {
		errno = EINVAL;
		return -1;
	}
	return (int)sw_result(wait_anywhere(epfd, evs, max, timeout_ns, mask));
}

SW_EXPORT int epoll_wait(int epfd, struct epoll_event *evs, int max, int timeout)
{
	if (sw_is_internal() || !sw_epset_at(epfd))
		return sw_libc.epoll_wait(epfd, evs, max, timeout);
	return wait_checked(epfd, evs, max, timeout < 0 ? SW_FOREVER : (uint64_t)timeout * SD_MS, NULL);
}

SW_EXPORT int epoll_pwait(int epfd, struct epoll_event *evs, int max, int timeout, const sigset_t *mask)
{
	if (sw_is_internal() || !sw_epset_at(epfd))
		return sw_libc.epoll_pwait(epfd, evs, max, timeout, mask);
	return wait_checked(epfd, evs, max, timeout < 0 ? SW_FOREVER : (uint64_t)timeout * SD_MS, mask);
}

SW_EXPORT int epoll_pwait2(
	int epfd, struct epoll_event *evs, int max, const struct timespec *timeout, const sigset_t *mask)
{
	uint64_t ns = SW_FOREVER;

	if (sw_is_internal() || !sw_epset_at(epfd) ||
		(timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)))
		return sw_libc.epoll_pwait2(epfd, evs, max, timeout, mask);
	if (timeout && (uint64_t)timeout->tv_sec < SW_FOREVER / SD_S)
		ns = (uint64_t)timeout->tv_sec * SD_S + (uint64_t)timeout->tv_nsec;
	return wait_checked(epfd, evs, max, ns, mask);
}

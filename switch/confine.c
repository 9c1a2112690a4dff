/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Programs that confine themselves (seccomp(2), as sshd's and browsers' children do) and go on using
 * connections that they have inherited. What the library needs for that, descriptors and registrations with
 * the kernel, has to be there before; afterwards it gets along with reading, writing and polling.
 */
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/log.h"
#include "switch/libc.h"
#include "switch/process.h"
#include "switch/sock.h"
#include "switch/statwrite.h"

static void say_nothing(void *ctx, enum sd_log_level level, const char *line)
{
}

static bool has_connections(void)
{
	return sw_rt.shm && sw_rt.n_san && !sw_is_internal() && sw_is_own_process();
}

/* A forked child has not used its connections yet, and will have no room for descriptors. */
static void make_ready(void)
{
	pv_waiter_self(sw_rt.domain);
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (s)
			sw_sock_kernel_fd(s);
	}
}

static void prepare(void)
{
	if (has_connections() && sw_enter()) {
		make_ready();
		sw_leave();
	}
}

/* True: it is now, and was not before. */
static bool confine(void)
{
	if (sw_rt.confined || !has_connections() || !sw_enter())
		return false;
	make_ready();
	sw_rt.shm->ops->confine(sw_rt.shm, true);
	sw_rt.confined = true;
	sd_log_open(SD_LOG_ERROR, say_nothing, NULL);
	sw_leave();
	return true;
}

/* It came to nothing. */
static void release(void)
{
	if (!sw_enter())
		return;
	sw_rt.shm->ops->confine(sw_rt.shm, false);
	sw_rt.confined = false;
	sw_runtime_log();
	sw_leave();
}

SW_EXPORT int prctl(int option, ...)
{
	static int (*next)(int, ...);
	bool confined = false;
	unsigned long a[4];
	va_list ap;
	int r;

	va_start(ap, option);
	for (unsigned i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	if (!next)
		*(void **)&next = sw_libc_symbol("prctl");
	if (option == PR_SET_SECCOMP)
		confined = confine();
	r = next(option, a[0], a[1], a[2], a[3]);
	if (r && confined)
		release();
	return r;
}

typedef int setrlimit_fn(__rlimit_resource_t resource, const struct rlimit *limit);

SW_EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	static setrlimit_fn *next;

	if (!next)
		*(void **)&next = sw_libc_symbol("setrlimit");
	if (resource == RLIMIT_NOFILE)
		prepare();
	return next(resource, limit);
}

SW_EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	return setrlimit(resource, (const struct rlimit *)limit);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of the C library's functions: first bare system calls, then what dlsym finds behind this library.
 */
#include "switch/libc.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

/* pselect6 takes the mask and its size through a pair. */
#define SW_SIGSET_ARG(mask)                                                                                  \
	(uintptr_t[])                                                                                        \
	{                                                                                                    \
		(uintptr_t)(mask), _NSIG / 8                                                                 \
	}

#define X(result, name, params, ...)                                                                         \
	static result bare_##name params                                                                     \
	{                                                                                                    \
		return (result)syscall(__VA_ARGS__);                                                         \
	}
SW_LIBC_CALLS(X)
#undef X

static int bare_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

static int bare_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	long arg;

	va_start(ap, request);
	arg = va_arg(ap, long);
	va_end(ap);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

struct sw_libc sw_libc = {
#define X(result, name, params, ...) .name = bare_##name,
	SW_LIBC_CALLS(X)
#undef X
		.fcntl = bare_fcntl,
	.ioctl = bare_ioctl,
};

void *sw_libc_symbol(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (!p) {
		sd_error("the C library has no %s; this build is for glibc 2.28 or later", name);
		abort();
	}
	return p;
}

/* Before the constructors of this library that need it. */
__attribute__((constructor(101))) static void find_all(void)
{
	struct sw_libc found = sw_libc;
	void *p;

#define FIND(name)                                                                                           \
	p = dlsym(RTLD_NEXT, #name);                                                                         \
	if (p)                                                                                               \
		*(void **)&found.name = p;
#define X(result, name, ...) FIND(name)
	SW_LIBC_CALLS(X)
#undef X
	FIND(fcntl)
	FIND(ioctl)
	sw_libc = found;
}

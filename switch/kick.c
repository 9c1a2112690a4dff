/* SPDX-License-Identifier: BSD-3-Clause */
/* One eventfd for the whole process, made when first needed, and again in a forked child. */
#include "switch/kick.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fd.h"
#include "switch/fdtab.h"
#include "switch/libc.h"

static int kick_fd = -1;
static pid_t owner;
static uint64_t cookie;

static bool have_kick(void)
{
	if (kick_fd >= 0 && owner == getpid())
		return true;
	kick_fd = sd_fd_raise(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
	if (kick_fd < 0)
		return false;
	owner = getpid();
	sw_fd_guard(NULL, kick_fd, PV_GUARD_OWN);
	if (!cookie && getrandom(&cookie, sizeof cookie, GRND_NONBLOCK) != sizeof cookie)
		cookie = (uint64_t)(uintptr_t)&cookie;
	return true;
}

bool sw_kick_add(int epfd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	if (!have_kick())
		return false;
	ev.data.u64 = cookie;
	return !sw_libc.epoll_ctl(epfd, EPOLL_CTL_ADD, kick_fd, &ev);
}

void sw_kick_remove(int epfd)
{
	sw_libc.epoll_ctl(epfd, EPOLL_CTL_DEL, kick_fd, NULL);
}

bool sw_kick_is(uint64_t data)
{
	return cookie && data == cookie;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* A network of the test's own: programs that run at the same time cannot take its UDP port. */
#ifndef SD_TESTS_ISOLATE_H
#define SD_TESTS_ISOLATE_H

#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Moves the process, which has no other threads yet, into a network namespace with nothing but lo. False
 * where that is not allowed; then it stays where it is. System calls, as the C library's may be hooked. */
static inline bool isolate_network(void)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	bool up;
	int fd;

	/* Without privileges, a user namespace of our own gives them. */
	if (geteuid() && unshare(CLONE_NEWUSER))
		return false;
	if (unshare(CLONE_NEWNET))
		return false;
	fd = (int)syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0);
	up = fd >= 0 && !syscall(SYS_ioctl, fd, SIOCSIFFLAGS, &lo);
	if (fd >= 0)
		syscall(SYS_close, fd);
	return up;
}

#endif

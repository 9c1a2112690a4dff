/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors, for tests and fuzz targets. */
#ifndef SD_TESTS_PROVIDER_FDS_H
#define SD_TESTS_PROVIDER_FDS_H

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#define FDS_MAX_PASSED 80u /* more than a message takes */

/* How many this process has open, the one of the count itself among them. */
static inline unsigned fds_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	if (!d)
		abort();
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Bytes and descriptors as they are, whatever a message should be. As sendmsg(2), without a wait. */
static inline ssize_t fds_pass(int to, const void *bytes, size_t len, const int *fds, unsigned n)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX_PASSED * sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		h.msg_control = control.bytes;
		h.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, n * sizeof(int));
	}
	return sendmsg(to, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/portlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fnv.h"

int portlock_take(const char *dir, const char *device)
{
	struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct stat ns = {0};
	char path[256];
	int fd;

	mkdir(dir, 0755);
	if (stat("/proc/self/ns/net", &ns))
		ns.st_ino = 0;
	if (snprintf(path, sizeof path, "%s/port-%016llx-%llu.lock", dir,
		    (unsigned long long)sd_fnv(SD_FNV_BASIS, device, strlen(device)),
		    (unsigned long long)ns.st_ino) >= (int)sizeof path)
		return -EAGAIN;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return -EAGAIN;
	/* Moved before it is locked: closing any descriptor of the file drops the lock. */
	fd = sd_fd_raise(fd);
	if (fcntl(fd, F_SETLK, &range)) {
		close(fd);
		return -EBUSY;
	}
	return fd;
}

void portlock_release(int fd)
{
	if (fd >= 0)
		close(fd);
}

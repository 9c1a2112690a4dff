/* SPDX-License-Identifier: BSD-3-Clause */
#include "door.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

#define BACKLOG 1024

static int open_socket(void)
{
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Does anybody answer there? */
static bool is_alive(const struct sockaddr_un *a)
{
	int fd = open_socket();
	bool alive = fd >= 0 && (!connect(fd, (const struct sockaddr *)a, sizeof *a) || errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return alive;
}

static int make_directory(const char *path)
{
	char copy[sizeof(((struct sockaddr_un *)0)->sun_path)];
	const char *dir;

	strcpy(copy, path);
	dir = dirname(copy);
	if (mkdir(dir, 0755) && errno != EEXIST) {
		sd_error("cannot make %s: %s", dir, strerror(errno));
		return -errno;
	}
	return 0;
}

int door_open(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, r;

	if (strlen(path) >= sizeof a.sun_path) {
		sd_error("%s is too long for a socket's name; %zu bytes are the most", path,
			sizeof a.sun_path - 1);
		return -ENAMETOOLONG;
	}
	strcpy(a.sun_path, path);
	r = make_directory(path);
	if (r)
		return r;
	if (!lstat(path, &st) && !S_ISSOCK(st.st_mode)) {
		sd_error("%s is there and no socket; remove it or choose another name", path);
		return -EEXIST;
	}
	if (is_alive(&a)) {
		sd_error("a daemon serves %s already", path);
		return -EADDRINUSE;
	}
	unlink(path);
	fd = open_socket();
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || chmod(path, 0666) || listen(fd, BACKLOG)) {
		r = -errno;
		sd_error("cannot serve %s: %s", path, strerror(-r));
		if (fd >= 0)
			close(fd);
		return r;
	}
	return fd;
}

void door_open_records(const char *runtime_dir)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof path, "%s/stat", runtime_dir);
	mkdir(runtime_dir, 0755);
	mkdir(path, 0755);
	/* Not where a link leads to. */
	if (lstat(path, &st) || !S_ISDIR(st.st_mode) || chmod(path, 01777))
		sd_warn("programs of other users cannot leave their records in %s: %s", path,
			strerror(errno));
}

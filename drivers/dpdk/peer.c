/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/dpdk/peer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "drivers/dpdk/devargs.h"

enum role { NEITHER, LISTENS, CONNECTS };

/* What device does at a socket, and where; an abstract one begins with '@'. */
static enum role role_of(const char *device, char *path, size_t len)
{
	char role[16] = "client", abstract[8] = "yes", name[256] = "/run/memif.sock";

	if (devargs_is_driver(device, "net_virtio_user")) {
		if (!devargs_get(device, "path", path, len) || !strncmp(path, "/dev/", 5))
			return NEITHER;
		return devargs_is_on(device, "server") ? LISTENS : CONNECTS;
	}
	if (devargs_is_driver(device, "net_sandirect_virtio")) /* as a client it seeks by itself */
		return devargs_get(device, "path", path, len) && devargs_is_on(device, "server") ? LISTENS
												 : NEITHER;
	if (devargs_is_driver(device, "net_vhost")) /* as a client it waits by itself */
		return devargs_get(device, "iface", path, len) && !devargs_is_on(device, "client") ? LISTENS
												   : NEITHER;
	if (!devargs_is_driver(device, "net_memif"))
		return NEITHER;
	devargs_get(device, "role", role, sizeof role);
	devargs_get(device, "socket-abstract", abstract, sizeof abstract);
	devargs_get(device, "socket", name, sizeof name);
	snprintf(path, len, "%s%s", strcmp(abstract, "no") ? "@" : "", name);
	return !strcmp(role, "server") || !strcmp(role, "master") ? LISTENS : CONNECTS;
}

static bool listed(const char *path)
{
	char line[512];
	bool found = false;
	FILE *f = fopen("/proc/net/unix", "re");

	if (!f)
		return false;
	while (!found && fgets(line, sizeof line, f)) {
		int at = 0;

		/* Num RefCount Protocol Flags Type St Inode Path */
		sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %n", &at);
		line[strcspn(line, "\n")] = 0;
		found = at && !strcmp(line + at, path);
	}
	fclose(f);
	return found;
}

/*
 * Has somebody a socket there? A connection by a socket of the wrong type is told so, if there is one, and
 * otherwise refused; the owner, who may be in another network namespace, notices nothing.
 */
static bool is_alive(const char *path)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	bool alive;
	int fd;

	if (*path == '@') /* those belong to this namespace */
		return listed(path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return listed(path);
	snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
	alive = !connect(fd, (struct sockaddr *)&name, sizeof name) || errno == EPROTOTYPE;
	close(fd);
	return alive;
}

/* Where the socket is to be made. */
static int check_directory(const char *path, char *err, size_t err_len)
{
	char dir[sizeof((struct sockaddr_un *)0)->sun_path];
	char *slash;

	snprintf(dir, sizeof dir, "%s", path);
	slash = strrchr(dir, '/');
	if (!slash)
		return 0;
	slash[1] = 0;
	if (!access(dir, W_OK))
		return 0;
	snprintf(err, err_len, "no socket can be made in %s: %s", dir, strerror(errno));
	return errno == ENOENT || errno == ENOTDIR ? -ENODEV : -EPERM;
}

static int clear_socket(const char *path, char *err, size_t err_len)
{
	struct stat st;

	if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path) {
		snprintf(err, err_len, "%s: too long for a socket's path", path);
		return -EINVAL;
	}
	if (lstat(path, &st))
		return check_directory(path, err, err_len);
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(err, err_len, "%s is not a socket; choose another path", path);
		return -EINVAL;
	}
	if (is_alive(path)) {
		snprintf(err, err_len, "another process has %s; give this one a port of its own", path);
		return -EBUSY;
	}
	if (unlink(path) && errno != ENOENT) {
		snprintf(err, err_len, "cannot remove the stale socket %s: %s", path, strerror(errno));
		return -EPERM;
	}
	return 0;
}

int peer_make_way(const char *device, char *err, size_t err_len)
{
	char path[256];

	return role_of(device, path, sizeof path) == LISTENS && *path != '@'
		       ? clear_socket(path, err, err_len)
		       : 0;
}

bool peer_is_sought(const char *device)
{
	char path[256];

	return role_of(device, path, sizeof path) == CONNECTS;
}

bool peer_is_there(const char *device)
{
	char path[256];

	return role_of(device, path, sizeof path) != CONNECTS || is_alive(path);
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "netns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
#endif

#define TERM_ROUNDS 25
#define KILL_ROUNDS 100
#define ROUND_MS    20

static void path_of(const char *name, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, NETNS_DIR "/%s", name);
}

int netns_identify(const char *name, struct netns_id *out)
{
	char path[PATH_MAX];
	struct statfs fs;
	struct stat st;

	path_of(name, path);
	if (stat(path, &st) || statfs(path, &fs))
		return -errno;
	if (fs.f_type != NSFS_MAGIC)
		return -ESTALE;
	*out = (struct netns_id){st.st_dev, st.st_ino};
	return 0;
}

int netns_enter(const char *name)
{
	char path[PATH_MAX];
	int fd, rc = 0;

	path_of(name, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (setns(fd, CLONE_NEWNET))
		rc = -errno;
	close(fd);
	return rc;
}

void netns_each(const char *prefix, void (*fn)(void *ctx, const char *name), void *ctx)
{
	DIR *dir = opendir(NETNS_DIR);
	struct dirent *e;

	if (!dir)
		return;
	while ((e = readdir(dir)))
		if (!strncmp(e->d_name, prefix, strlen(prefix)))
			fn(ctx, e->d_name);
	closedir(dir);
}

int netns_remove(const char *name)
{
	char path[PATH_MAX];

	path_of(name, path);
	/* Fails for a name that never became a mount point, which is fine. */
	umount2(path, MNT_DETACH);
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

static bool is_member(pid_t pid, const struct netns_id *id)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
	return !stat(path, &st) && st.st_dev == id->dev && st.st_ino == id->ino;
}

unsigned netns_each_process(const struct netns_id *id, void (*fn)(void *ctx, pid_t pid), void *ctx)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	unsigned n = 0;

	if (!dir)
		return 0;
	while ((e = readdir(dir))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid > 0 && is_member(pid, id)) {
			fn(ctx, pid);
			n++;
		}
	}
	closedir(dir);
	return n;
}

static pid_t parent_of(pid_t pid)
{
	char path[64], line[512];
	ssize_t n = -1;
	int fd, parent = 0;
	const char *s;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, line, sizeof line - 1);
		close(fd);
	}
	if (n <= 0)
		return 0;
	line[n] = '\0';
	s = strrchr(line, ')'); /* the name before it may hold anything */
	return s && sscanf(s + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static bool is_self_or_ancestor(pid_t pid)
{
	for (pid_t p = getpid(); p > 0; p = parent_of(p))
		if (p == pid)
			return true;
	return false;
}

struct killing {
	const struct netns_id *id;
	int signal;
	unsigned others;
};

/* The pidfd is opened before the membership is checked again, so a reused pid is never hit. */
static void kill_one(void *ctx, pid_t pid)
{
	struct killing *k = ctx;
	int fd;

	if (is_self_or_ancestor(pid))
		return;
	fd = pidfd_open(pid, 0);
	if (fd < 0)
		return;
	if (is_member(pid, k->id)) {
		k->others++;
		if (k->signal)
			pidfd_send_signal(fd, k->signal, NULL, 0);
	}
	close(fd);
}

static unsigned kill_round(const struct netns_id *id, int sig)
{
	struct killing k = {id, sig, 0};

	netns_each_process(id, kill_one, &k);
	return k.others;
}

unsigned netns_kill(const struct netns_id *id)
{
	static const struct timespec pause = {0, ROUND_MS * 1000000};
	unsigned left = kill_round(id, SIGTERM);

	for (unsigned i = 0; left && i < TERM_ROUNDS; i++) {
		nanosleep(&pause, NULL);
		left = kill_round(id, 0);
	}
	for (unsigned i = 0; left && i < KILL_ROUNDS; i++) {
		left = kill_round(id, SIGKILL);
		nanosleep(&pause, NULL);
	}
	return kill_round(id, 0);
}

bool netns_interface_is_up(const char *ifname)
{
	struct ifreq req = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool up;

	if (fd < 0)
		return false;
	strncpy(req.ifr_name, ifname, sizeof req.ifr_name - 1);
	up = !ioctl(fd, SIOCGIFFLAGS, &req) &&
	     (req.ifr_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
	close(fd);
	return up;
}

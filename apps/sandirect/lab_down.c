/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking a lab down: everything is found by its name, so it does not matter how far `up` came or what has
 * been killed since. Running it twice is no error.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "config/value.h"
#include "lab.h"
#include "netns.h"
#include "statread.h"

struct removal {
	const struct lab *lab;
	int failures;
};

/* Names are PREFIX-hN and PREFIX-sw; the prefix of another lab may begin with ours. */
static bool is_ours(const struct lab *l, const char *name)
{
	const char *rest = name + strlen(l->prefix);
	uint64_t n;

	return !strcmp(rest, "-sw") || (!strncmp(rest, "-h", 2) && cfg_value_count(rest + 2, &n));
}

/* The ports' locks (provider/portlock.h) carry the namespace's inode in their names. */
static void remove_locks(const struct lab *l, const struct netns_id *id)
{
	DIR *dir = opendir(l->runtime_dir);
	struct dirent *e;
	char end[40];
	size_t len, n;

	if (!dir)
		return;
	n = (size_t)snprintf(end, sizeof end, "-%llu.lock", (unsigned long long)id->ino);
	while ((e = readdir(dir))) {
		len = strlen(e->d_name);
		if (!strncmp(e->d_name, "port-", 5) && len > n && !strcmp(e->d_name + len - n, end))
			unlinkat(dirfd(dir), e->d_name, 0);
	}
	closedir(dir);
}

static void remove_netns(void *ctx, const char *name)
{
	struct removal *r = ctx;
	struct netns_id id;
	unsigned left;
	int rc;

	if (!is_ours(r->lab, name))
		return;
	if (!netns_identify(name, &id)) {
		left = netns_kill(&id);
		if (left) {
			command_warn("%u processes in %s do not end", left, name);
			r->failures++;
		}
		remove_locks(r->lab, &id);
	}
	rc = netns_remove(name);
	if (rc) {
		command_warn("%s: %s", name, strerror(-rc));
		r->failures++;
	}
}

/* The lab's directory holds no directories. */
static int remove_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct dirent *e;
	DIR *dir;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(dir)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			unlinkat(fd, e->d_name, 0);
	closedir(dir);
	return rmdir(path) && errno != ENOENT ? -errno : 0;
}

int lab_clear(const struct lab *l)
{
	struct removal r = {l, 0};
	int rc;

	netns_each(l->prefix, remove_netns, &r);
	rc = remove_dir(l->dir);
	if (rc) {
		command_warn("%s: %s", l->dir, strerror(-rc));
		r.failures++;
	}
	if (r.failures)
		return command_fail(
			"the lab is not gone altogether; `sandirect lab down` as root may be repeated");
	return 0;
}

int lab_down(const struct lab *l)
{
	int rc = lab_clear(l);

	stat_sweep(l->runtime_dir);
	/* Goes only when no other process uses it. */
	rmdir(l->runtime_dir);
	return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "locate.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PLACES 5

/* Relative ones are relative to the directory of this command. */
static const char *const library_places[MAX_PLACES] = {
	"libsandirect.so",
	"../switch/libsandirect.so",		   /* a build directory */
	"../" SANDIRECT_LIBDIR "/libsandirect.so", /* an installation that was moved as a whole */
	SANDIRECT_PREFIX "/" SANDIRECT_LIBDIR "/libsandirect.so",
};

static const char *const backend_places[MAX_PLACES] = {
	"libsandirect-dpdk.so",
	"../drivers/libsandirect-dpdk.so",
	"../" SANDIRECT_LIBDIR "/libsandirect-dpdk.so",
	SANDIRECT_PREFIX "/" SANDIRECT_LIBDIR "/libsandirect-dpdk.so",
};

static const char *const daemon_places[MAX_PLACES] = {
	"sandirectd",
	"../sbin/sandirectd",
	SANDIRECT_PREFIX "/sbin/sandirectd",
};

static int own_dir(char *out, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", out, len - 1);

	if (n < 0)
		return -errno;
	out[n] = '\0';
	*strrchr(out, '/') = '\0';
	return 0;
}

static int locate(const char *const places[MAX_PLACES], char *out, size_t len)
{
	char dir[PATH_MAX], path[2 * PATH_MAX], real[PATH_MAX];
	int rc = own_dir(dir, sizeof dir);

	if (rc)
		return rc;
	for (unsigned i = 0; places[i]; i++) {
		snprintf(path, sizeof path, "%s%s%s", *places[i] == '/' ? "" : dir,
			*places[i] == '/' ? "" : "/", places[i]);
		if (!realpath(path, real) || access(real, R_OK))
			continue;
		if (strlen(real) >= len)
			return -ENAMETOOLONG;
		strcpy(out, real);
		return 0;
	}
	return -ENOENT;
}

int locate_library(char *out, size_t len)
{
	int rc = locate(library_places, out, len);

	return !rc && strpbrk(out, " \t\n:") ? -EINVAL : rc;
}

int locate_backend(char *out, size_t len)
{
	return locate(backend_places, out, len);
}

int locate_daemon(char *out, size_t len)
{
	return locate(daemon_places, out, len);
}

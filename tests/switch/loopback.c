/* SPDX-License-Identifier: BSD-3-Clause */
#include "loopback.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/isolate.h"

static char dir[] = "/tmp/sandirect-switch-XXXXXX";
static pid_t owner;

static void remove_dir(void)
{
	char command[64 + sizeof dir];

	if (owner != getpid())
		return;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	if (system(command))
		perror(command);
}

/* For LeakSanitizer: what a forked child has left of the parent's engine cannot be freed there. */
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return owner != getpid();
}

void loopback_begin(void)
{
	char path[sizeof dir + 16];
	FILE *f;

	isolate_network();
	if (!mkdtemp(dir))
		abort();
	owner = getpid();
	atexit(remove_dir);
	snprintf(path, sizeof path, "%s/conf", dir);
	f = fopen(path, "w");
	if (!f)
		abort();
	fputs("[port lo]\nnetdev = lo\ndevice = udp\n", f);
	fclose(f);
	setenv("SANDIRECT_CONFIG", path, 1);
	setenv("SANDIRECT_RUNTIME_DIR", dir, 1);
}

const char *loopback_dir(void)
{
	return dir;
}

int loopback_listen(enum path p)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(p == SAN ? 0x7f000001 : 0x7f000002);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

int loopback_connect(int listener, int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;

	if (fd < 0)
		fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

/* The kernel's own view is past every hook: its socket of a SAN connection is not connected. */
enum path loopback_path(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;

	return syscall(SYS_getpeername, fd, &a, &len) ? SAN : KERNEL;
}

void loopback_pair(enum path p, int fds[2])
{
	int listener = loopback_listen(p);
	struct pollfd waited = {.fd = listener, .events = POLLIN};

	/* It is for this process, whoever forks now. */
	assert_int_equal(poll(&waited, 1, 0), 0);
	fds[0] = loopback_connect(listener, -1);
	fds[1] = accept(listener, NULL, NULL);
	assert_true(fds[1] >= 0);
	assert_int_equal(close(listener), 0);
	assert_int_equal(loopback_path(fds[0]), p);
	assert_int_equal(loopback_path(fds[1]), p);
}

void loopback_start_engine(void)
{
	int listener = loopback_listen(SAN);
	struct pollfd p = {.fd = listener, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 1), 0);
	close(listener);
}

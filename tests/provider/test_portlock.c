/* SPDX-License-Identifier: BSD-3-Clause */
/* One process at a time has a port. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hosts.h"
#include "provider/portlock.h"

static char dir[] = "/tmp/test_portlock.XXXXXX";
static bool have_hosts;

/* What another process gets: 0 or the error. */
static int taken_by_another(const char *device, int host)
{
	pid_t child = fork();
	int fd, status;

	if (!child) {
		if (host >= 0)
			hosts_enter(host);
		fd = portlock_take(dir, device);
		_exit(fd < 0 ? -fd : 0);
	}
	waitpid(child, &status, 0);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void lock__keeps_others_out(void **state)
{
	int fd = portlock_take(dir, "net_vhost0,iface=/a"), other;

	assert_true(fd >= 512);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(taken_by_another("net_vhost0,iface=/a", -1), EBUSY);
	assert_int_equal(taken_by_another("net_vhost0,iface=/b", -1), 0);
	other = portlock_take(dir, "net_vhost0,iface=/b");
	assert_true(other >= 512);
	portlock_release(other);
	assert_int_equal(taken_by_another("net_vhost0,iface=/a", -1), EBUSY);
	portlock_release(fd);
	assert_int_equal(taken_by_another("net_vhost0,iface=/a", -1), 0);
	portlock_release(-EBUSY);
}

/* Killed, with a child that lives on. */
static void lock__goes_with_its_process(void **state)
{
	int ready[2], over[2], status;
	pid_t holder;
	char c;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(over), 0);
	holder = fork();
	if (!holder) {
		close(over[1]);
		if (portlock_take(dir, "x") >= 0 && fork())
			_exit(write(ready[1], "x", 1) == 1 && pause());
		_exit(read(over[0], &c, 1)); /* the child stays until the test is over */
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(taken_by_another("x", -1), EBUSY);
	kill(holder, SIGKILL);
	waitpid(holder, &status, 0);
	assert_int_equal(taken_by_another("x", -1), 0);
	for (unsigned i = 0; i < 2; i++) {
		close(ready[i]);
		close(over[i]);
	}
}

static void lock__is_per_network_namespace(void **state)
{
	int fd;

	if (!have_hosts)
		skip();
	hosts_enter(0);
	fd = portlock_take(dir, "udp");
	assert_true(fd >= 0);
	assert_int_equal(taken_by_another("udp", 0), EBUSY);
	assert_int_equal(taken_by_another("udp", 1), 0);
	portlock_release(fd);
}

static void lock__does_without_a_directory(void **state)
{
	char path[64];
	int fd;

	assert_int_equal(portlock_take("/proc/nowhere", "x"), -EAGAIN);
	snprintf(path, sizeof path, "%s/new", dir);
	fd = portlock_take(path, "x");
	assert_true(fd >= 0);
	portlock_release(fd);
}

static int group_setup(void **state)
{
	have_hosts = hosts_open();
	return mkdtemp(dir) ? 0 : -1;
}

static int group_teardown(void **state)
{
	char command[64];

	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lock__keeps_others_out),
		cmocka_unit_test(lock__goes_with_its_process),
		cmocka_unit_test(lock__is_per_network_namespace),
		cmocka_unit_test(lock__does_without_a_directory),
	};

	return cmocka_run_group_tests_name("portlock", tests, group_setup, group_teardown);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of connections that a process publishes, and that making it never hurts the process. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback.h"
#include "switch/statfile.h"

#define CHECK(x)                                                                                             \
	do {                                                                                                 \
		if (!(x)) {                                                                                  \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #x, errno);            \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

static int open_table(int flags)
{
	char path[128];

	snprintf(path, sizeof path, "%s/stat/%d", loopback_dir(), (int)getpid());
	return open(path, flags);
}

static void read_header(struct statfile_header *h)
{
	int fd = open_table(O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, h, sizeof *h, 0), sizeof *h);
	close(fd);
}

/* The record of fd; false: there is none. */
static bool find(int fd, struct statfile_record *out)
{
	int table = open_table(O_RDONLY);
	bool found = false;

	assert_true(table >= 0);
	for (unsigned i = 0; i < STATFILE_RECORDS && !found; i++) {
		off_t at = (off_t)(sizeof(struct statfile_header) + i * sizeof *out);

		assert_int_equal(pread(table, out, sizeof *out, at), sizeof *out);
		assert_false(out->seq & 1);
		found = out->seq && out->fd == fd;
	}
	close(table);
	return found;
}

static void the_header_names_the_process(void **state)
{
	struct statfile_header h;
	struct stat st;
	unsigned long long start;
	int fds[2], table;
	FILE *f;

	loopback_pair(SAN, fds);
	read_header(&h);
	assert_int_equal(h.magic, STATFILE_MAGIC);
	assert_int_equal(h.version, STATFILE_VERSION);
	assert_int_equal(h.header_size, sizeof h);
	assert_int_equal(h.record_size, sizeof(struct statfile_record));
	assert_int_equal(h.pid, getpid());
	assert_string_equal(h.program, "test_stat");
	f = fopen("/proc/self/stat", "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f,
				 "%*d (%*[^)]) %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
				 "%*s %*s %*s %*s %llu",
				 &start),
		1);
	fclose(f);
	assert_int_equal(h.start_time, start);
	assert_int_equal(stat("/proc/self/ns/net", &st), 0);
	assert_int_equal(h.netns, st.st_ino);
	table = open_table(O_RDONLY);
	assert_int_equal(fstat(table, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	close(table);
	close(fds[0]);
	close(fds[1]);
}

static void connections_come_and_go(void **state)
{
	for (enum path p = KERNEL; p <= SAN; p++) {
		struct statfile_record c, s, gone;
		struct statfile_header before, after;
		struct sockaddr_in name;
		socklen_t len = sizeof name;
		int fds[2];

		read_header(&before);
		loopback_pair(p, fds);
		read_header(&after);
		assert_true(find(fds[0], &c));
		assert_true(find(fds[1], &s));
		assert_int_equal(c.path, p == SAN);
		assert_int_equal(s.path, p == SAN);
		assert_int_equal(c.role, 0);
		assert_int_equal(s.role, 1);
		assert_string_equal(c.provider, p == SAN ? "loop" : "tcp");
		assert_string_equal(c.state, p == SAN ? "ESTABLISHED" : "");
		assert_int_equal(c.reason, p == SAN ? SD_REASON_LOOP : SD_REASON_LOCAL);
		assert_int_equal(getsockname(fds[1], (struct sockaddr *)&name, &len), 0);
		assert_int_equal(s.local.port, ntohs(name.sin_port));
		assert_int_equal(getpeername(fds[1], (struct sockaddr *)&name, &len), 0);
		assert_int_equal(s.peer.port, ntohs(name.sin_port));
		assert_memory_equal(s.peer.ip, &name.sin_addr, 4);
		assert_true(sd_addr_equal(&c.peer, &s.local));
		assert_true(c.opened_ns > 1600000000ull * 1000000000);
		assert_int_equal(after.san_total - before.san_total, p == SAN ? 2 : 0);
		assert_int_equal(after.tcp_total - before.tcp_total, p == SAN ? 0 : 2);
		assert_int_equal(
			after.by_reason[SD_REASON_LOOP] - before.by_reason[SD_REASON_LOOP], p == SAN ? 2 : 0);
		close(fds[0]);
		assert_false(find(fds[0], &gone));
		assert_true(find(fds[1], &gone));
		close(fds[1]);
		assert_false(find(fds[1], &gone));
	}
}

static void listeners_are_there(void **state)
{
	struct statfile_record r;
	int listener = loopback_listen(SAN), plain = loopback_listen(KERNEL);

	assert_true(find(listener, &r));
	assert_int_equal(r.role, 2);
	assert_int_equal(r.path, 1);
	assert_string_equal(r.provider, "ether");
	assert_int_equal(r.reason, SD_REASON_SAN);
	assert_true(find(plain, &r));
	assert_int_equal(r.path, 0);
	assert_string_equal(r.state, "LISTEN");
	close(listener);
	close(plain);
	assert_false(find(listener, &r));
}

/* Numbers are copied when a reader asks, by the helper thread. */
static void a_reader_asks(void **state)
{
	struct statfile_record r;
	struct statfile_header h;
	int fds[2], table, waited = 0;
	uint64_t wanted;

	loopback_start_engine();
	loopback_pair(SAN, fds);
	assert_int_equal(write(fds[0], "hello", 5), 5);
	table = open_table(O_RDWR);
	read_header(&h);
	wanted = h.refresh_wanted + 1;
	assert_int_equal(
		pwrite(table, &wanted, sizeof wanted, offsetof(struct statfile_header, refresh_wanted)),
		sizeof wanted);
	do {
		usleep(10000);
		read_header(&h);
	} while (h.refreshed != wanted && ++waited < 500);
	assert_int_equal(h.refreshed, wanted);
	assert_true(find(fds[0], &r));
	assert_int_equal(r.bytes_out, 5);
	assert_true(find(fds[1], &r));
	assert_int_equal(r.recv_queued, 5);
	assert_non_null(strstr(h.engine, "udp"));
	close(table);
	close(fds[0]);
	close(fds[1]);
}

/* --- when there is no table --- */

static void in_child(void (*f)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		alarm(20);
		f();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void use_sockets(void)
{
	int fds[2];
	char c;

	loopback_pair(KERNEL, fds);
	CHECK(write(fds[0], "x", 1) == 1 && read(fds[1], &c, 1) == 1);
	close(fds[0]);
	close(fds[1]);
}

/* SIGXFSZ would end it. */
static void limited_file_size(void)
{
	struct rlimit l = {1000, 1000};

	CHECK(!setrlimit(RLIMIT_FSIZE, &l));
	use_sockets();
	CHECK(open_table(O_RDONLY) < 0);
}

static void planted_link(void)
{
	char path[128], target[128];
	struct stat st;

	snprintf(path, sizeof path, "%s/stat/%d", loopback_dir(), (int)getpid());
	snprintf(target, sizeof target, "%s/target", loopback_dir());
	CHECK(!symlink(target, path));
	use_sockets();
	CHECK(stat(target, &st) && errno == ENOENT);
	CHECK(!lstat(path, &st) && S_ISREG(st.st_mode));
}

static void mount_over(const char *options)
{
	/* The parent keeps what it sees. */
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("none", loopback_dir(), "tmpfs", 0, options))
		_exit(errno == EPERM ? 0 : 1);
}

/* Room for a few records. A page that is not there would be SIGBUS. */
static void full_file_system(void)
{
	struct statfile_header h;
	int fds[2];

	mount_over("size=16k");
	for (unsigned i = 0; i < 60; i++)
		loopback_pair(KERNEL, fds);
	read_header(&h);
	CHECK(h.overflow > 30 && h.overflow < 120);
	CHECK(h.tcp_total == 120);
}

static void no_room_at_all(void)
{
	int fd;
	char path[128];

	mount_over("size=4k");
	snprintf(path, sizeof path, "%s/full", loopback_dir());
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	CHECK(write(fd, path, sizeof path) == sizeof path);
	use_sockets();
	CHECK(open_table(O_RDONLY) < 0);
}

static void read_only(void)
{
	mount_over("size=1m");
	CHECK(!mount(NULL, loopback_dir(), NULL, MS_REMOUNT | MS_RDONLY, NULL));
	use_sockets();
	CHECK(open_table(O_RDONLY) < 0);
}

/* A program of an ordinary user, under a strict umask, in a directory that root's program made. */
static void ordinary_user(void)
{
	struct stat st;
	int table;

	if (geteuid())
		_exit(0);
	umask(077);
	CHECK(!chmod(loopback_dir(), 0755));
	CHECK(!setuid(65534));
	use_sockets();
	table = open_table(O_RDONLY);
	CHECK(table >= 0 && !fstat(table, &st));
	CHECK(st.st_uid == 65534 && (st.st_mode & 0777) == 0644);
}

static void removes_its_file(void)
{
	use_sockets();
	CHECK(open_table(O_RDONLY) >= 0);
	exit(0);
}

static void one_that_changes_root(void)
{
	char path[160];
	int fd;

	if (geteuid())
		_exit(0);
	use_sockets();
	/* The same name below the new root is another file. */
	snprintf(path, sizeof path, "mkdir -p %s/root%s/stat; touch %s/root%s/stat/%d", loopback_dir(),
		loopback_dir(), loopback_dir(), loopback_dir(), (int)getpid());
	CHECK(!system(path));
	snprintf(path, sizeof path, "%s/root%s/stat/%d", loopback_dir(), loopback_dir(), (int)getpid());
	fd = open(path, O_RDONLY);
	snprintf(path, sizeof path, "%s/root", loopback_dir());
	CHECK(fd >= 0 && !chroot(path));
	exit(0);
}

static void whatever_goes_wrong(void **state)
{
	in_child(limited_file_size);
	in_child(planted_link);
	in_child(full_file_system);
	in_child(no_room_at_all);
	in_child(read_only);
	in_child(ordinary_user);
}

static int count(const char *where)
{
	char command[160];
	int n = -1;
	FILE *f;

	snprintf(command, sizeof command, "ls %s%s/stat | wc -l", loopback_dir(), where);
	f = popen(command, "r");
	if (f && fscanf(f, "%d", &n) != 1)
		n = -1;
	if (f)
		pclose(f);
	return n;
}

static void the_file_goes_with_the_process(void **state)
{
	char inner[96];
	int n = count("");

	in_child(removes_its_file);
	assert_int_equal(count(""), n);
	snprintf(inner, sizeof inner, "/root%s", loopback_dir());
	in_child(one_that_changes_root);
	if (!geteuid())
		assert_int_equal(count(inner), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_header_names_the_process),
		cmocka_unit_test(connections_come_and_go),
		cmocka_unit_test(listeners_are_there),
		cmocka_unit_test(a_reader_asks),
		cmocka_unit_test(whatever_goes_wrong),
		cmocka_unit_test(the_file_goes_with_the_process),
	};

	loopback_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

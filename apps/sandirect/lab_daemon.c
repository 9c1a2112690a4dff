/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemons of a lab, one on each host. They end with the lab, as all that runs on its hosts does. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "lab.h"
#include "locate.h"
#include "netns.h"

#define READY_PAUSE_MS 10
#define READY_WAIT_MS  15000

static bool is_ready(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool ready;

	if (strlen(path) < sizeof a.sun_path)
		strcpy(a.sun_path, path);
	ready = fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof a);
	if (fd >= 0)
		close(fd);
	return ready;
}

/* In the child. Its rights stay: a link's other side that starts again makes new sockets and memory. */
static void become_daemon(const struct lab *l, unsigned host, const char *program)
{
	char ns[64], conf[PATH_MAX], log[PATH_MAX];
	int fd;

	lab_netns(l, host, ns);
	lab_host_file(l, host, "conf", conf);
	lab_host_file(l, host, "log", log);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0 || netns_enter(ns))
		_exit(1);
	setsid();
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(STDIN_FILENO);
	open("/dev/null", O_RDONLY);
	close_range(STDERR_FILENO + 1, ~0U, 0);
	execl(program, program, "--config", conf, "--user", "root", NULL);
	_exit(127);
}

static int wait_until_ready(const struct lab *l, unsigned host, pid_t pid)
{
	static const struct timespec pause = {0, READY_PAUSE_MS * 1000000};
	char path[PATH_MAX];

	lab_host_file(l, host, "sock", path);
	for (unsigned waited = 0; !is_ready(path); waited += READY_PAUSE_MS) {
		if (waitpid(pid, NULL, WNOHANG) == pid || waited > READY_WAIT_MS)
			return command_fail(
				"the daemon of h%u does not start; %s/h%u.log says why", host, l->dir, host);
		nanosleep(&pause, NULL);
	}
	return 0;
}

int lab_start_daemons(const struct lab *l)
{
	char program[PATH_MAX];
	pid_t pid[LAB_MAX_HOSTS + 1];

	if (locate_daemon(program, sizeof program))
		return command_fail("sandirectd is neither beside this command nor installed");
	for (unsigned i = 1; i <= l->hosts; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			return command_fail("fork: %s", strerror(errno));
		if (!pid[i])
			become_daemon(l, i, program);
	}
	for (unsigned i = 1; i <= l->hosts; i++) {
		if (wait_until_ready(l, i, pid[i]))
			return -1;
	}
	return 0;
}

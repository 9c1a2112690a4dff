/* SPDX-License-Identifier: BSD-3-Clause */
/* Children of a process with a connection: what they can do with it, and that it stays the parent's. */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

static void expect_exit(pid_t pid, int status)
{
	int got;

	guest_check(pid > 0, "fork");
	guest_check(waitpid(pid, &got, 0) == pid, "waitpid");
	guest_check(WIFEXITED(got) && WEXITSTATUS(got) == status, "a child ended with %#x instead of %d",
		(unsigned)got, status);
}

/* A child that touches the connection. On the SAN it is told that this is not possible, over TCP it works. */
static void touching(int fd)
{
	char text[40];
	int pipes[2];
	ssize_t n;
	pid_t pid;

	guest_check(!pipe(pipes), "pipe");
	pid = fork();
	if (!pid) {
		n = send(fd, "child", 5, 0);
		dprintf(pipes[1], "%s", n == 5 ? "sent" : strerrorname_np(errno));
		if (n == 5)
			guest_recv(fd, text, 5);
		/* Neither of these is to reach the parent's connection. */
		shutdown(n == 5 ? -1 : fd, SHUT_RDWR);
		close(fd);
		exit(0);
	}
	expect_exit(pid, 0);
	n = read(pipes[0], text, sizeof text - 1);
	text[n > 0 ? n : 0] = '\0';
	printf("child %s\n", text);
	close(pipes[0]);
	close(pipes[1]);
	guest_echo(fd, 1, 4000);
}

static char *true_argv[] = {(char[]){"true"}, NULL};

static pid_t borrowing_child(int fd)
{
	pid_t pid = vfork();

	if (!pid) {
		close(fd);
		execvp("true", true_argv);
		_exit(127);
	}
	return pid;
}

/* What programs do with children. */
static void executing(int fd)
{
	char line[16] = "";
	pid_t pid;
	FILE *f;

	for (unsigned i = 0; i < 5; i++) {
		guest_check(!system("exit 0"), "system");
		f = popen("echo text; exit 3", "r");
		guest_check(f && fgets(line, sizeof line, f) && !strcmp(line, "text\n"), "popen");
		guest_check(WEXITSTATUS(pclose(f)) == 3, "pclose");
		guest_check(!posix_spawnp(&pid, "true", NULL, NULL, true_argv, environ), "posix_spawn");
		expect_exit(pid, 0);
		expect_exit(borrowing_child(fd), 0);
		guest_echo(fd, i, 4000);
	}
}

static pid_t connecting_child(char **argv, int fd)
{
	pid_t pid = fork();

	if (!pid) {
		int own;

		close(fd);
		own = guest_connect(argv[0], argv[1]);
		guest_check(fd < 0 || own == fd, "socket %d instead of %d", own, fd);
		for (unsigned i = 0; i < 100; i++)
			guest_echo(own, i, 1000);
		exit(5);
	}
	return pid;
}

void guest_forks(int argc, char **argv)
{
	pid_t lives;
	int fd;

	/* Before anything has begun: a child has it all for itself. */
	expect_exit(connecting_child(argv, -1), 5);
	fd = guest_connect(argv[0], argv[1]);
	guest_echo(fd, 1, 4000);
	touching(fd);
	executing(fd);
	for (int i = 0; i < 3; i++) {
		expect_exit(connecting_child(argv, fd), 5);
		guest_echo(fd, 2, 4000);
	}
	/* One that dies at once, and one that lives on. */
	lives = fork();
	if (!lives) {
		pause();
		_exit(1);
	}
	guest_check(lives > 0, "fork");
	guest_echo(fd, 3, 4000);
	kill(lives, SIGKILL);
	guest_check(waitpid(lives, NULL, 0) == lives, "waitpid");
	guest_echo(fd, 4, 4000);
	puts("holding");
	getchar();
	guest_echo(fd, 5, 4000);
}

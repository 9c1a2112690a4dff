/* SPDX-License-Identifier: BSD-3-Clause */
/* What a process can see of itself, before and after it has used a connection. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

static void on_signal(int sig)
{
}

/* Something of everything, so that there is something to lose. */
static void set_up(void)
{
	static char stack[64 << 10];
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
	sigset_t mask;

	sigaltstack(&alt, NULL);
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGUSR2);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGRTMIN + 1, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigaddset(&mask, SIGRTMIN + 2);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	raise(SIGUSR2);
	fesetround(FE_UPWARD);
	umask(027);
	prctl(PR_SET_NAME, "visitor");
	prctl(PR_SET_PDEATHSIG, SIGHUP);
}

static void print_set(const char *name, const char *what, const sigset_t *set)
{
	printf("%s.%s", name, what);
	for (int s = 1; s < NSIG; s++)
		if (sigismember(set, s) == 1)
			printf(" %d", s);
	putchar('\n');
}

static void print_signals(const char *name)
{
	struct sigaction sa;
	sigset_t set;
	stack_t alt;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	print_set(name, "blocked", &set);
	sigpending(&set);
	print_set(name, "pending", &set);
	sigaltstack(NULL, &alt);
	printf("%s.altstack %zu %d\n", name, alt.ss_size, alt.ss_flags);
	for (int s = 1; s < NSIG; s++) {
		if (sigaction(s, NULL, &sa) || sa.sa_handler == SIG_DFL)
			continue;
		printf("%s.handler.%d %s %x", name, s,
			sa.sa_handler == SIG_IGN     ? "ignored"
			: sa.sa_handler == on_signal ? "own"
						     : "foreign",
			(unsigned)sa.sa_flags & ~0x04000000u); /* SA_RESTORER is the C library's */
		print_set("", "mask", &sa.sa_mask);
	}
}

static void print_limits(const char *name)
{
	static const int limits[] = {RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_MEMLOCK, RLIMIT_CORE, RLIMIT_STACK,
		RLIMIT_DATA, RLIMIT_NPROC, RLIMIT_NICE, RLIMIT_RTPRIO};
	struct rlimit l;

	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
		getrlimit(limits[i], &l);
		printf("%s.limit.%d %lld %lld\n", name, limits[i], (long long)l.rlim_cur,
			(long long)l.rlim_max);
	}
}

/* What the system calls say of each number. */
static void print_descriptors(const char *name)
{
	printf("%s.fds", name);
	for (int fd = 0; fd < 4096; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (flags >= 0)
			printf(" %d:%d:%x", fd, flags, (unsigned)fcntl(fd, F_GETFL));
	}
	putchar('\n');
}

/* What a program that is executed finds open. */
static void print_inherited(const char *name)
{
	char command[80];

	printf("%s.inherited", name);
	fflush(stdout);
	snprintf(command, sizeof command, "LD_PRELOAD= ls /proc/self/fd | tr '\\n' ' '; echo");
	guest_check(!system(command), "%s", command);
}

static void print_rest(const char *name)
{
	struct itimerval timer;
	cpu_set_t cpus;
	char text[4096];
	mode_t mask = umask(0);

	umask(mask);
	sched_getaffinity(0, sizeof cpus, &cpus);
	printf("%s.affinity %d %d %d\n", name, CPU_COUNT(&cpus), CPU_ISSET(0, &cpus), CPU_ISSET(1, &cpus));
	printf("%s.policy %d nice %d\n", name, sched_getscheduler(0), getpriority(PRIO_PROCESS, 0));
	printf("%s.umask %o\n", name, (unsigned)mask);
	printf("%s.round %d\n", name, fegetround());
	printf("%s.cwd %s\n", name, getcwd(text, sizeof text));
	prctl(PR_GET_NAME, text);
	printf("%s.name %s dumpable %d\n", name, text, prctl(PR_GET_DUMPABLE));
	prctl(PR_GET_PDEATHSIG, text);
	printf("%s.deathsig %d\n", name, *(int *)text);
	for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++) {
		getitimer(which, &timer);
		printf("%s.timer.%d %ld\n", name, which, (long)timer.it_value.tv_sec);
	}
	errno = 0;
	printf("%s.children %d %s\n", name, waitpid(-1, NULL, WNOHANG), strerrorname_np(errno));
}

static void print_all(const char *name)
{
	print_signals(name);
	print_limits(name);
	print_descriptors(name);
	print_rest(name);
	print_inherited(name);
}

void guest_state(int argc, char **argv)
{
	int fd;

	set_up();
	print_all("before");
	fd = guest_connect(argv[0], argv[1]);
	for (unsigned i = 0; i < 1000; i++)
		guest_echo(fd, i, 1 + i);
	printf("socket %d\n", fd);
	print_all("after");
	puts("holding");
	getchar();
	guest_echo(fd, 7, 100);
	close(fd);
	print_all("closed");
}

/* As daemons do at their start, and once more in the middle of everything. */
void guest_closefrom(int argc, char **argv)
{
	int fd, other;

	closefrom(3);
	fd = guest_connect(argv[0], argv[1]);
	printf("socket %d\n", fd);
	guest_echo(fd, 1, 1000);
	other = guest_connect(argv[0], argv[1]);
	guest_check(other == fd + 1, "the second socket is %d", other);
	closefrom(other);
	guest_echo(fd, 2, 1000);
	guest_check(close(other) == -1 && errno == EBADF, "closefrom has left a socket open");
	errno = 0;
	closefrom(3);
	guest_check(recv(fd, &other, 1, 0) == -1 && errno == EBADF, "closefrom has left the connection open");
	errno = 0;
	/* Not by number alone: nothing above may be in the way of what comes next. */
	for (int i = 3; i < 10; i++) {
		fd = guest_connect(argv[0], argv[1]);
		guest_check(fd == i, "socket %d instead of %d", fd, i);
		guest_echo(fd, (unsigned)i, 1000);
	}
	guest_check(!close_range(5, ~0u, 0), "close_range");
	guest_echo(3, 3, 1000);
	guest_check(dup2(3, 600) == 600, "dup2 to a high number");
	guest_echo(600, 4, 1000);
	guest_check(!close(3), "close");
	guest_echo(600, 5, 1000);
	puts("holding");
	getchar();
	guest_echo(600, 6, 1000);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Signals around blocking calls: they arrive in the right thread, in time, and interrupt what they should. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "guest.h"

static volatile sig_atomic_t ticks;
static pthread_t main_thread;
static volatile sig_atomic_t strangers;
static sigjmp_buf out_of_here;

static void on_tick(int sig)
{
	int saved = errno;

	ticks++;
	if (!pthread_equal(pthread_self(), main_thread))
		strangers++;
	errno = saved;
}

static void on_jump(int sig)
{
	siglongjmp(out_of_here, 1);
}

static void handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};

	guest_check(!sigaction(sig, &sa, NULL), "sigaction");
}

static void every_ms(unsigned first, unsigned interval)
{
	struct itimerval t = {{0, interval * 1000}, {0, first * 1000}};

	guest_check(!setitimer(ITIMER_REAL, &t, NULL), "setitimer");
}

/* A handler without SA_RESTART ends a blocking call with EINTR; with it, calls that the kernel restarts go
 * on. */
static void interrupted_calls(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct epoll_event e = {.events = EPOLLIN};
	int ep = epoll_create1(EPOLL_CLOEXEC);
	char c;

	guest_check(!epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), "epoll_ctl");
	/* Again and again: on a busy machine the first may come before the call. */
	every_ms(30, 30);
	for (int i = 0; i < 3; i++) {
		handle(SIGALRM, on_tick, 0);
		guest_check(recv(fd, &c, 1, 0) == -1 && errno == EINTR, "recv with a handler");
		guest_check(poll(&p, 1, 5000) == -1 && errno == EINTR, "poll with a handler");
		handle(SIGALRM, on_tick, SA_RESTART);
		guest_check(epoll_wait(ep, &e, 1, 5000) == -1 && errno == EINTR,
			"epoll_wait, which SA_RESTART does not concern");
	}
	every_ms(0, 0);
	close(ep);
	puts("interrupted EINTR");
}

static void *send_later(void *arg)
{
	usleep(200000);
	guest_send(*(int *)arg, "x", 1);
	return NULL;
}

static void restarted_call(int fd)
{
	pthread_t sender;
	sigset_t all, before;
	char c = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_create(&sender, NULL, send_later, &fd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	handle(SIGALRM, on_tick, SA_RESTART);
	ticks = 0;
	every_ms(20, 20);
	guest_check(recv(fd, &c, 1, 0) == 1 && c == 'x', "recv with SA_RESTART");
	every_ms(0, 0);
	pthread_join(sender, NULL);
	guest_check(ticks >= 3, "%d ticks only while recv waited", ticks);
	puts("restarted yes");
}

/* Handlers run all the while, and no byte is lost. */
static void busy(int fd)
{
	uint64_t start = guest_now_ms(), took;

	handle(SIGALRM, on_tick, SA_RESTART);
	ticks = 0;
	every_ms(2, 2);
	for (unsigned i = 0; guest_now_ms() < start + 500; i++)
		guest_echo(fd, i, 1 + i % 3000);
	every_ms(0, 0);
	took = guest_now_ms() - start;
	guest_check(ticks > 10, "%d ticks only in %d ms", ticks, (int)took);
	puts("busy yes");
}

/* Programs jump out of handlers; the connection works after it, and the mask is as it was. */
static void jumps(int fd)
{
	sigset_t mask;
	char c;

	handle(SIGALRM, on_jump, 0);
	for (int i = 0; i < 20; i++) {
		if (!sigsetjmp(out_of_here, 1)) {
			every_ms(5, 0);
			recv(fd, &c, 1, 0);
			guest_fail("recv has returned");
		}
	}
	sigprocmask(SIG_SETMASK, NULL, &mask);
	guest_check(sigismember(&mask, SIGALRM) == 0, "SIGALRM stays blocked");
	guest_echo(fd, 9, 4000);
	puts("jumps yes");
}

/* ppoll's mask lets a signal in that is blocked otherwise, and only there. */
static void masks(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec five = {5, 0};
	sigset_t block, none;

	handle(SIGUSR1, on_tick, 0);
	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, NULL);
	ticks = 0;
	raise(SIGUSR1);
	guest_echo(fd, 3, 100);
	guest_check(!ticks, "a blocked signal came in");
	guest_check(ppoll(&p, 1, &five, &none) == -1 && errno == EINTR && ticks == 1, "ppoll with a mask");
	sigprocmask(SIG_UNBLOCK, &block, NULL);
	puts("masks yes");
}

void guest_signals(int argc, char **argv)
{
	int fd;

	main_thread = pthread_self();
	fd = guest_connect(argv[0], argv[1]);
	guest_echo(fd, 1, 1000);
	interrupted_calls(fd);
	restarted_call(fd);
	busy(fd);
	jumps(fd);
	masks(fd);
	guest_check(!strangers, "handlers ran in %d threads that are not the program's", strangers);
	puts("holding");
	getchar();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fork and exit.
 *
 * fork happens with the domain entered and signals blocked, so that the child finds tables and lists between
 * two changes and no handler waits in both processes. The child's handler calls nothing but close(2): what
 * needs more is left to the runtime that the child makes when it first uses a socket.
 *
 * With a daemon the connections are in memory that both processes have, and go on in both.
 */
#include "switch/process.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "switch/epset.h"
#include "switch/inherit.h"
#include "switch/libc.h"
#include "switch/sock.h"
#include "switch/statwrite.h"

#define FLUSH_LOOK_NS (50 * SD_US)

static bool was_forked;
static __thread struct {
	sigset_t mask;
	bool entered;
} forking;
static void bare_exit(int status)
{
	syscall(SYS_exit_group, status);
}

static struct {
	pid_t (*fork)(void);
	void (*exit)(int status);
} next = {.exit = bare_exit};

bool sw_is_own_process(void)
{
	return !sw_rt.pid || sw_rt.pid == getpid();
}

static bool is_alive(void)
{
	return sw_rt.domain && pv_domain_alive(sw_rt.domain);
}

/* --- fork --- */

static void mark_listeners(void)
{
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (s && s->state == SW_LISTENING)
			s->was_forked = true;
	}
}

static void before_fork(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &forking.mask);
	forking.entered = is_alive() && sw_enter();
	if (forking.entered) {
		sw_share_all();
		mark_listeners();
	}
}

static void after_fork_parent(void)
{
	if (forking.entered)
		sw_leave();
	pthread_sigmask(SIG_SETMASK, &forking.mask, NULL);
}

/* Its threads, which may have waited, are not here. */
static void forget_sock(int fd, struct sw_sock *s)
{
	list_init(&s->waiters);
	list_init(&s->work);
	s->stat_record = -1;
	s->stat_out = s->stat_in = NULL;
	if (sw_rt.shm && s->state != SW_CONNECTING)
		return;
	s->ep = NULL;
	if (s->state == SW_CONNECTED || s->state == SW_CONNECTING)
		s->state = SW_DEAD;
	if (s->state == SW_DEAD || s->n_listeners || s->late)
		s->reason = SD_REASON_FORKED;
	s->n_listeners = 0;
	s->late = s->served = false;
	/* Not sw_sock_set_state: the kernel's epoll sets are the parent's too. */
	if (s->state == SW_LISTENING)
		sw_fd_store(fd, (uintptr_t)&s->obj | SW_SLOT_KERNEL);
}

static void forget_descriptors(void)
{
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_obj *o = sw_fd_obj(fd);

		if (sw_fd_slot(fd) == SW_SLOT_KEPT)
			continue;
		if (o)
			o->pins = 0; /* those of threads that are not here */
		if (sw_fd_is_guarded(fd)) {
			/* The parent's death must not go unnoticed because we hold its ends of the wires. */
			sw_libc.close(fd);
			sw_fd_store(fd, 0);
		} else if (o->is_epset) {
			list_init(&sw_epset_of(o)->waiters);
		} else {
			forget_sock(fd, sw_sock_of(o));
		}
	}
}

/* The engine cannot be started in a child of a process that has tried: DPDK's state is half here. */
static void forget_runtime(void)
{
	if (sw_rt.start_tried)
		sw_rt.off = SD_REASON_FORKED;
	sw_rt.domain = NULL;
	sw_rt.ether = sw_rt.loop = NULL;
	sw_rt.n_providers = 0;
	sw_rt.start_tried = sw_rt.started = sw_rt.exiting = false;
	if (!sw_rt.shm)
		sw_rt.n_san = sw_rt.n_listeners = 0;
	was_forked = true;
}

static void after_fork_child(void)
{
	sw_sigstate.inside = 0;
	sw_fd_after_fork();
	sw_runtime_after_fork();
	if (sw_rt.domain) {
		forget_descriptors();
		forget_runtime();
	}
	sw_rt.pid = getpid();
	pthread_sigmask(SIG_SETMASK, &forking.mask, NULL);
}

bool sw_process_was_forked(void)
{
	return was_forked;
}

void sw_process_reborn(void)
{
	was_forked = false;
	pv_enter(sw_rt.domain);
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (!s || s->fd != fd)
			continue;
		if (s->state == SW_CONNECTED || s->n_listeners) {
			stat_update(s);
			continue;
		}
		if (s->state != SW_LISTENING || !s->local.family || s->kernel_bound)
			continue;
		sw_listen_on_san(s);
		sw_sock_set_state(s, SW_LISTENING);
	}
	pv_leave(sw_rt.domain);
}

/* Runs no handlers of pthread_atfork(3). */
pid_t _Fork(void);
SW_EXPORT pid_t _Fork(void)
{
	pid_t pid;

	before_fork();
	pid = next.fork ? next.fork() : (pid_t)syscall(SYS_fork);
	if (pid)
		after_fork_parent();
	else
		after_fork_child();
	return pid;
}

/* The C library itself puts /dev/null in the place of 0, 1 and 2. */
SW_EXPORT int daemon(int nochdir, int noclose)
{
	int (*next_daemon)(int, int) = (int (*)(int, int))sw_libc_symbol("daemon");
	int r = next_daemon(nochdir, noclose);

	for (int fd = 0; !r && !noclose && fd <= STDERR_FILENO; fd++) {
		if (sw_fd_obj(fd) && sw_enter()) {
			sw_fd_drop(fd);
			sw_leave();
		}
	}
	return r;
}

/* --- exit --- */

static void end_sock(struct sw_sock *s)
{
	bool abort = s->state != SW_CONNECTED || (s->linger.l_onoff && !s->linger.l_linger);

	if (s->n_listeners)
		sw_sock_stop_listening(s);
	if (!s->ep)
		return;
	sw_sock_drop_ep(s, abort ? PV_CLOSE_ABORT : PV_CLOSE_GRACEFUL);
	sw_sock_set_state(s, SW_DEAD);
}

void sw_process_close_sockets(void)
{
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		if (sw_sock_at(fd))
			end_sock(sw_sock_at(fd));
	}
}

/* Shuts every connection; true while there are bytes to deliver. */
static bool is_flushing(void)
{
	struct pv_info info;
	bool more = false;

	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (!s || s->state != SW_CONNECTED || (s->ep->ops->state(s->ep) & PV_ERR))
			continue;
		s->ep->ops->shutdown(s->ep, SHUT_WR);
		s->ep->ops->info(s->ep, &info);
		more |= info.send_queued != 0;
	}
	return more;
}

/*
 * _exit(2) from a signal handler, which may have interrupted malloc(3): nothing is freed, as closing would.
 * What was written is delivered, and the peer reads its end.
 */
static void flush_only(void)
{
	uint64_t end = sd_clock_ns() + (is_alive() ? sw_rt.cfg->exit_linger_ns : 0);

	if (!is_alive() || !sw_is_own_process() || sw_rt.exiting || !sw_enter())
		return;
	sw_rt.exiting = true;
	while (is_flushing() && sd_clock_ns() < end) {
		pv_progress(sw_rt.domain);
		pv_leave(sw_rt.domain);
		nanosleep(&(struct timespec){.tv_nsec = FLUSH_LOOK_NS}, NULL);
		pv_enter(sw_rt.domain);
	}
	stat_close();
	sw_leave();
}

static void finish(int status)
{
	if (sw_sigstate.handling)
		flush_only();
	else
		sw_runtime_close();
	next.exit(status);
}

SW_EXPORT void _exit(int status)
{
	finish(status);
	__builtin_unreachable();
}

SW_EXPORT void _Exit(int status)
{
	finish(status);
	__builtin_unreachable();
}

/* Later than the program's own: it was there first. */
__attribute__((destructor)) static void at_exit(void)
{
	sw_runtime_close();
}

__attribute__((constructor)) static void find_and_register(void)
{
	*(void **)&next.fork = dlsym(RTLD_NEXT, "_Fork");
	*(void **)&next.exit = sw_libc_symbol("_exit");
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
	at_quick_exit(at_exit);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* Interposed signal handling: what the application sees must be what it would see without it. */
/* They are old, but programs use them. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "switch/signals.h"

sighandler_t bsd_signal(int sig, sighandler_t handler);

/* In the library this wakes a pv_sleep. */
static _Atomic unsigned interrupted;
void pv_sleep_interrupt(void);
void pv_sleep_interrupt(void)
{
	interrupted++;
}

static void enter(void)
{
	sw_sigstate.inside++;
}

static void leave(void)
{
	sw_sigstate.inside--;
	sw_signals_check();
}

/* --- what a handler saw --- */

struct seen {
	int sig, code, value;
	uint64_t mask, return_mask;
	bool on_stack, inside;
};
static struct seen log_[256];
static volatile unsigned n_log;
static char alternate[64 * 1024];

static uint64_t current_mask(void)
{
	uint64_t m = 0;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &m, sizeof m);
	return m;
}

static void record(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct seen *s = &log_[n_log % 256];
	char *here = __builtin_frame_address(0);

	*s = (struct seen){.sig = sig, .code = info->si_code, .value = info->si_value.sival_int};
	s->mask = current_mask();
	memcpy(&s->return_mask, &uc->uc_sigmask, sizeof s->return_mask);
	s->on_stack = here >= alternate && here < alternate + sizeof alternate;
	s->inside = sw_sigstate.inside;
	n_log++;
	errno = EXDEV;
}

static void plain(int sig)
{
	struct seen *s = &log_[n_log % 256];

	*s = (struct seen){.sig = sig, .mask = current_mask(), .inside = sw_sigstate.inside};
	n_log++;
}

static void set(int sig, int flags, const int *mask)
{
	struct sigaction a = {.sa_flags = flags};

	if (flags & SA_SIGINFO)
		a.sa_sigaction = record;
	else
		a.sa_handler = plain;
	for (; mask && *mask; mask++)
		sigaddset(&a.sa_mask, *mask);
	assert_int_equal(sigaction(sig, &a, NULL), 0);
}

static int reset(void **state)
{
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	n_log = 0;
	sw_sigstate = (struct sw_sigstate){0};
	return 0;
}

static void send_value(int sig, int value)
{
	assert_int_equal(sigqueue(getpid(), sig, (union sigval){.sival_int = value}), 0);
}

/* --- the application's view of its handlers --- */

static void sigaction__old_is_what_was_set(void **state)
{
	static const int flags[] = {0, SA_RESTART, SA_SIGINFO, SA_SIGINFO | SA_RESTART, SA_NODEFER,
		SA_ONSTACK, SA_RESETHAND, SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART | SA_RESETHAND,
		SA_NOCLDSTOP};

	for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
		struct sigaction a = {.sa_flags = flags[i]}, old;

		if (i % 2)
			a.sa_sigaction = record;
		else
			a.sa_handler = plain;
		sigaddset(&a.sa_mask, SIGUSR2);
		sigaddset(&a.sa_mask, SIGRTMIN + (int)i);
		assert_int_equal(sigaction(SIGCHLD, &a, NULL), 0);
		for (int again = 0; again < 2; again++) {
			assert_int_equal(sigaction(SIGCHLD, again ? &a : NULL, &old), 0);
			assert_ptr_equal(old.sa_sigaction, a.sa_sigaction);
			assert_int_equal(old.sa_flags & ~0x04000000, flags[i]);
			assert_memory_equal(&old.sa_mask, &a.sa_mask, 8);
		}
	}
	assert_ptr_equal(signal(SIGCHLD, SIG_IGN), plain);
	assert_ptr_equal(signal(SIGCHLD, SIG_DFL), SIG_IGN);
	assert_ptr_equal(signal(SIGCHLD, SIG_DFL), SIG_DFL);
}

static void sigaction__errors_are_the_kernels(void **state)
{
	struct sigaction a = {.sa_handler = plain};

	assert_int_equal(sigaction(SIGKILL, &a, NULL), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(sigaction(0, &a, NULL), -1);
	assert_int_equal(sigaction(NSIG, &a, NULL), -1);
	assert_int_equal(sigaction(-1, &a, NULL), -1);
	assert_int_equal(sigaction(32, &a, NULL), -1);
	assert_ptr_equal(signal(SIGSTOP, plain), SIG_ERR);
	assert_ptr_equal(signal(9999, plain), SIG_ERR);
	assert_ptr_equal(signal(SIGUSR1, SIG_ERR), SIG_ERR);
	assert_int_equal(errno, EINVAL);
}

static void signal__has_the_flags_of_its_standard(void **state)
{
	struct sigaction old;

	assert_ptr_equal(signal(SIGUSR1, plain), SIG_DFL);
	sigaction(SIGUSR1, NULL, &old);
	assert_true(old.sa_flags & SA_RESTART);
	assert_true(sigismember(&old.sa_mask, SIGUSR1));
	assert_int_equal(siginterrupt(SIGUSR1, 1), 0);
	sigaction(SIGUSR1, NULL, &old);
	assert_false(old.sa_flags & SA_RESTART);
	assert_ptr_equal(old.sa_handler, plain);
	signal(SIGUSR1, plain);
	sigaction(SIGUSR1, NULL, &old);
	assert_false(old.sa_flags & SA_RESTART);
	assert_int_equal(siginterrupt(SIGUSR1, 0), 0);
	assert_ptr_equal(sysv_signal(SIGUSR1, plain), plain);
	sigaction(SIGUSR1, NULL, &old);
	assert_true(old.sa_flags & SA_RESETHAND);
	assert_true(old.sa_flags & SA_NODEFER);
	assert_ptr_equal(sigset(SIGUSR1, SIG_HOLD), plain);
	assert_true(current_mask() & 1ull << (SIGUSR1 - 1));
	assert_ptr_equal(sigset(SIGUSR1, plain), SIG_HOLD);
	assert_int_equal(current_mask(), 0);
	assert_int_equal(sigignore(SIGUSR1), 0);
	assert_ptr_equal(bsd_signal(SIGUSR1, SIG_DFL), SIG_IGN);
}

static unsigned long long status_mask(const char *name)
{
	unsigned long long v = ~0ull;
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");

	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		if (!strncmp(line, name, strlen(name)))
			v = strtoull(line + strlen(name) + 1, NULL, 16);
	}
	fclose(f);
	return v;
}

static void sigaction__the_kernel_shows_what_the_application_set(void **state)
{
	unsigned long long caught = status_mask("SigCgt"), ignored = status_mask("SigIgn");

	signal(SIGUSR1, plain);
	signal(SIGUSR2, SIG_IGN);
	assert_int_equal(status_mask("SigCgt"), caught | 1ull << (SIGUSR1 - 1));
	assert_int_equal(status_mask("SigIgn"), ignored | 1ull << (SIGUSR2 - 1));
	assert_int_equal(status_mask("SigBlk"), 0);
	signal(SIGUSR1, SIG_DFL);
	assert_int_equal(status_mask("SigCgt"), caught);
}

/* --- when handlers run --- */

static void handler__outside_runs_at_once(void **state)
{
	set(SIGUSR1, 0, NULL);
	set(SIGUSR2, SA_RESTART, NULL);
	raise(SIGUSR1);
	assert_int_equal(n_log, 1);
	raise(SIGUSR2);
	assert_int_equal(sw_sigstate.delivered, 2);
	assert_int_equal(sw_sigstate.delivered_norestart, 1);
	assert_false(sw_sigstate.pending);
}

static void handler__inside_waits(void **state)
{
	unsigned before = interrupted;

	set(SIGUSR1, 0, NULL);
	enter();
	enter();
	errno = ENODEV;
	raise(SIGUSR1);
	assert_int_equal(errno, ENODEV);
	assert_int_equal(n_log, 0);
	assert_true(sw_sigstate.pending);
	assert_int_equal(sw_sigstate.delivered, 0);
	assert_int_equal(interrupted, before + 1);
	leave();
	assert_int_equal(n_log, 0);
	leave();
	assert_int_equal(n_log, 1);
	assert_int_equal(sw_sigstate.delivered_norestart, 1);
	assert_int_equal(current_mask(), 0);
	assert_false(sw_sigstate.pending);
}

static void handler__errno_survives_a_held_one(void **state)
{
	set(SIGUSR1, SA_SIGINFO, NULL);
	enter();
	raise(SIGUSR1);
	errno = ENODEV;
	leave();
	assert_int_equal(n_log, 1);
	assert_int_equal(errno, ENODEV);
}

/* Raises sigs so that the kernel delivers them together, outside or inside, and hands out what the handlers
 * saw. */
static unsigned burst(const int *sigs, bool inside, struct seen *out)
{
	sigset_t all, was;
	unsigned n;

	n_log = 0;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &was);
	for (int i = 0; sigs[i]; i++)
		send_value(sigs[i], i);
	if (inside)
		enter();
	sigprocmask(SIG_SETMASK, &was, NULL);
	if (inside) {
		assert_int_equal(n_log, 0);
		leave();
	}
	n = n_log;
	memcpy(out, log_, n * sizeof *out);
	return n;
}

static void expect_same(const int *sigs)
{
	struct seen direct[64], held[64];
	unsigned n = burst(sigs, false, direct);

	assert_int_equal(burst(sigs, true, held), n);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(held[i].sig, direct[i].sig);
		assert_int_equal(held[i].code, direct[i].code);
		assert_int_equal(held[i].value, direct[i].value);
		assert_int_equal(held[i].mask, direct[i].mask);
		assert_int_equal(held[i].return_mask, direct[i].return_mask);
		assert_int_equal(held[i].on_stack, direct[i].on_stack);
		assert_false(held[i].inside);
	}
	assert_int_equal(current_mask() & ~(1ull << (SIGWINCH - 1)), 0);
}

static void handler__held_one_sees_what_a_direct_one_sees(void **state)
{
	const int masks[][4] = {{0}, {SIGUSR2}, {SIGUSR1, SIGALRM}, {SIGSEGV, SIGRTMAX}};
	static const int one[] = {SIGUSR1, 0};
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof alternate};
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGWINCH);
	for (unsigned i = 0; i < 4 * 8; i++) {
		int flags = SA_SIGINFO;

		flags |= i & 4 ? SA_NODEFER : 0;
		flags |= i & 8 ? SA_ONSTACK : 0;
		if (i & 16)
			assert_int_equal(sigaltstack(&ss, NULL), 0);
		sigprocmask(i % 3 ? SIG_BLOCK : SIG_UNBLOCK, &blocked, NULL);
		set(SIGUSR1, flags, masks[i % 4]);
		expect_same(one);
	}
	ss.ss_flags = SS_DISABLE;
	assert_int_equal(sigaltstack(&ss, NULL), 0);
}

static void handler__alternate_stack_is_disarmed_if_asked(void **state)
{
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof alternate, .ss_flags = (int)(1u << 31)}, now;
	static const int one[] = {SIGUSR1, 0};

	if (sigaltstack(&ss, NULL))
		skip();
	set(SIGUSR1, SA_SIGINFO | SA_ONSTACK, NULL);
	expect_same(one);
	assert_int_equal(sigaltstack(NULL, &now), 0);
	assert_ptr_equal(now.ss_sp, alternate);
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
}

static void handler__several_at_once_keep_the_kernels_order(void **state)
{
	const int sigs[] = {SIGUSR2, SIGUSR1, SIGALRM, SIGRTMIN, SIGRTMIN + 3, SIGRTMIN + 1, SIGHUP, 0};
	const int mask_some[] = {SIGUSR1, SIGRTMIN, 0};

	for (unsigned i = 0; sigs[i]; i++)
		set(sigs[i], SA_SIGINFO, NULL);
	expect_same(sigs);
	set(SIGALRM, SA_SIGINFO, mask_some);
	set(SIGRTMIN + 1, SA_SIGINFO | SA_NODEFER, mask_some);
	set(SIGHUP, SA_SIGINFO, mask_some);
	expect_same(sigs);
}

static void handler__more_than_fit_come_all_the_same(void **state)
{
	int sigs[40] = {0};
	uint64_t seen = 0;
	struct seen out[64];

	for (int i = 0; i < 30; i++) {
		sigs[i] = SIGRTMIN + i;
		set(sigs[i], SA_SIGINFO, NULL);
	}
	assert_int_equal(burst(sigs, true, out), 30);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(out[i].sig, SIGRTMIN + out[i].value);
		seen |= 1ull << out[i].value;
	}
	assert_int_equal(seen, (1ull << 30) - 1);
	assert_int_equal(current_mask(), 0);
	assert_int_equal(sw_sigstate.delivered, 30);
}

static void handler__real_time_signals_stay_in_order_and_complete(void **state)
{
	set(SIGRTMIN + 2, SA_SIGINFO, NULL);
	enter();
	for (int i = 0; i < 200; i++)
		send_value(SIGRTMIN + 2, i);
	assert_int_equal(n_log, 0);
	leave();
	assert_int_equal(n_log, 200);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(log_[i].value, i);
		assert_int_equal(log_[i].code, SI_QUEUE);
	}
}

static void handler__real_time_without_defer_is_complete(void **state)
{
	uint64_t sum = 0;

	set(SIGRTMIN + 2, SA_SIGINFO | SA_NODEFER, NULL);
	enter();
	for (int i = 0; i < 200; i++)
		send_value(SIGRTMIN + 2, i);
	leave();
	assert_int_equal(n_log, 200);
	for (int i = 0; i < 200; i++)
		sum += log_[i].value;
	assert_int_equal(sum, 199 * 200 / 2);
}

static void handler__resethand_runs_once(void **state)
{
	struct sigaction old;

	set(SIGCHLD, SA_SIGINFO | SA_RESETHAND, NULL);
	enter();
	raise(SIGCHLD);
	sigaction(SIGCHLD, NULL, &old);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	raise(SIGCHLD);
	leave();
	assert_int_equal(n_log, 1);
}

static void handler__replaced_meanwhile_still_runs_the_one_that_was_due(void **state)
{
	set(SIGUSR1, SA_SIGINFO, NULL);
	enter();
	send_value(SIGUSR1, 7);
	set(SIGUSR1, 0, NULL);
	set(SIGUSR1, 0, NULL);
	leave();
	assert_int_equal(n_log, 1);
	assert_int_equal(log_[0].value, 7);
	raise(SIGUSR1);
	assert_int_equal(n_log, 2);
	assert_int_equal(log_[1].value, 0);
}

static void uses_the_library(int sig, siginfo_t *info, void *context)
{
	record(sig, info, context);
	if (sig == SIGUSR1) {
		enter();
		raise(SIGUSR2);
		leave();
	}
}

static void handler__may_enter_again(void **state)
{
	struct sigaction a = {.sa_sigaction = uses_the_library, .sa_flags = SA_SIGINFO};

	sigaction(SIGUSR1, &a, NULL);
	sigaction(SIGUSR2, &a, NULL);
	enter();
	raise(SIGUSR1);
	leave();
	assert_int_equal(n_log, 2);
	assert_int_equal(log_[1].sig, SIGUSR2);
	assert_int_equal(log_[1].return_mask, 1ull << (SIGUSR1 - 1));
	assert_int_equal(current_mask(), 0);
}

static void changes_mask(int sig, siginfo_t *info, void *context)
{
	sigaddset(&((ucontext_t *)context)->uc_sigmask, SIGWINCH);
}

static void handler__may_change_the_mask_it_returns_to(void **state)
{
	struct sigaction a = {.sa_sigaction = changes_mask, .sa_flags = SA_SIGINFO};

	sigaction(SIGUSR1, &a, NULL);
	enter();
	raise(SIGUSR1);
	leave();
	assert_int_equal(current_mask(), 1ull << (SIGWINCH - 1));
}

static sigjmp_buf jump;

static void jumps(int sig)
{
	siglongjmp(jump, sig);
}

static void handler__may_jump_out(void **state)
{
	for (volatile int i = 0; i < 3; i++) {
		signal(SIGUSR1, jumps);
		if (!sigsetjmp(jump, 1)) {
			enter();
			raise(SIGUSR1);
			leave();
			fail();
		}
		assert_int_equal(current_mask(), 0);
		assert_int_equal(sw_sigstate.inside, 0);
		assert_false(sw_sigstate.pending);
		assert_int_equal(sw_sigstate.delivered, i + 1);
	}
}

static void handler__a_fault_inside_runs_at_once(void **state)
{
	char *nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	signal(SIGSEGV, jumps);
	set(SIGUSR1, SA_SIGINFO, NULL);
	enter();
	raise(SIGUSR1);
	if (!sigsetjmp(jump, 1)) {
		*(volatile char *)nowhere = 1;
		fail();
	}
	assert_int_equal(n_log, 0);
	leave();
	assert_int_equal(n_log, 1);
	munmap(nowhere, 4096);
}

static void handler__a_fault_signal_that_was_sent_waits(void **state)
{
	set(SIGSEGV, SA_SIGINFO, NULL);
	set(SIGUSR1, SA_SIGINFO, NULL);
	enter();
	raise(SIGUSR1);
	raise(SIGSEGV);
	raise(SIGSEGV);
	assert_int_equal(n_log, 0);
	leave();
	assert_int_equal(n_log, 3);
	/* The second was blocked by the first; SIGUSR1's handler does not block it. */
	assert_int_equal(log_[0].sig + log_[1].sig + log_[2].sig, SIGUSR1 + 2 * SIGSEGV);
	assert_int_equal(current_mask(), 0);
}

/* ppoll's mask counts for the handler, the thread's own afterwards. */
static void handler__in_ppoll_has_its_mask(void **state)
{
	struct timespec ts = {.tv_sec = 10};
	struct seen direct = {0};
	sigset_t blocked, during;

	sigemptyset(&blocked);
	sigemptyset(&during);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&during, SIGWINCH);
	set(SIGUSR1, SA_SIGINFO, NULL);
	for (int inside = 0; inside < 2; inside++) {
		n_log = 0;
		sigprocmask(SIG_SETMASK, &blocked, NULL);
		raise(SIGUSR1);
		if (inside)
			enter();
		assert_int_equal(ppoll(NULL, 0, &ts, &during), -1);
		assert_int_equal(errno, EINTR);
		assert_int_equal(n_log, !inside);
		if (inside)
			leave();
		assert_int_equal(n_log, 1);
		assert_int_equal(current_mask(), 1ull << (SIGUSR1 - 1));
		if (!inside) {
			direct = log_[0];
		} else {
			assert_int_equal(log_[0].mask, direct.mask);
			assert_int_equal(log_[0].return_mask, direct.return_mask);
		}
	}
	assert_int_equal(direct.mask, 1ull << (SIGUSR1 - 1) | 1ull << (SIGWINCH - 1));
}

/* --- processes --- */

static void sigaction__a_vfork_child_changes_nothing_here(void **state)
{
	struct sigaction old;
	int status;
	pid_t pid;

	set(SIGUSR1, SA_SIGINFO, NULL);
	set(SIGUSR2, SA_SIGINFO, NULL);
	pid = vfork();
	if (!pid) {
		struct sigaction a = {.sa_handler = jumps}, back;

		sigaction(SIGUSR1, &a, &old);
		sigaction(SIGUSR1, NULL, &back);
		sigaction(SIGUSR1, &a, NULL);
		signal(SIGUSR2, SIG_DFL);
		_exit(old.sa_sigaction == record && back.sa_handler == jumps ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	sigaction(SIGUSR1, NULL, &old);
	assert_ptr_equal(old.sa_sigaction, record);
	raise(SIGUSR1);
	raise(SIGUSR2);
	assert_int_equal(n_log, 2);
}

static void sigaction__a_fork_child_goes_on_as_its_parent(void **state)
{
	int status;
	pid_t pid;

	set(SIGUSR1, SA_SIGINFO, NULL);
	pid = fork();
	if (!pid) {
		enter();
		raise(SIGUSR1);
		leave();
		set(SIGUSR2, 0, NULL);
		enter();
		raise(SIGUSR2);
		_exit(n_log == 1 && sw_sigstate.pending ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void system__leaves_handlers_alone(void **state)
{
	struct sigaction old;

	set(SIGINT, SA_SIGINFO, NULL);
	assert_int_equal(system("true"), 0);
	sigaction(SIGINT, NULL, &old);
	assert_ptr_equal(old.sa_sigaction, record);
	raise(SIGINT);
	assert_int_equal(n_log, 1);
}

/* --- storms --- */

static _Atomic bool stop;
static _Atomic unsigned handled, wrong;

/* One blocks SIGUSR2 while it runs, the other SIGWINCH: a handler with the other's mask is half an update. */
static void check(uint64_t wanted, uint64_t other)
{
	uint64_t m = current_mask();

	if (!(m & 1ull << (wanted - 1)) || (m & 1ull << (other - 1)) || sw_sigstate.inside)
		wrong++;
	handled++;
}

static void one(int sig)
{
	check(SIGUSR2, SIGWINCH);
}

static void other(int sig, siginfo_t *info, void *context)
{
	check(SIGWINCH, SIGUSR2);
}

static void *works(void *arg)
{
	while (!stop) {
		enter();
		for (volatile int i = 0; i < 50; i++)
			;
		leave();
	}
	return NULL;
}

static void *installs(void *arg)
{
	struct sigaction a = {.sa_handler = one},
			 b = {.sa_sigaction = other, .sa_flags = SA_SIGINFO | SA_RESTART}, old;

	sigaddset(&a.sa_mask, SIGUSR2);
	sigaddset(&b.sa_mask, SIGWINCH);
	for (unsigned i = 0; !stop; i++) {
		sigaction(SIGUSR1, i % 2 ? &a : &b, &old);
		if (old.sa_flags & SA_SIGINFO ? old.sa_sigaction != other : old.sa_handler != one)
			wrong++;
	}
	return NULL;
}

static void storm__handlers_and_masks_never_mix(void **state)
{
	struct sigaction a = {.sa_handler = one};
	pthread_t worker[2], installer[2];

	sigaddset(&a.sa_mask, SIGUSR2);
	sigaction(SIGUSR1, &a, NULL);
	stop = false;
	handled = wrong = 0;
	for (int i = 0; i < 2; i++) {
		pthread_create(&worker[i], NULL, works, NULL);
		pthread_create(&installer[i], NULL, installs, NULL);
	}
	for (int i = 0; i < 40000; i++) {
		pthread_kill(worker[i % 2], SIGUSR1);
		if (i % 64 == 0)
			usleep(100);
	}
	stop = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(worker[i], NULL);
		pthread_join(installer[i], NULL);
	}
	assert_int_equal(wrong, 0);
	assert_in_range(handled, 100, 40000);
}

static _Atomic unsigned ticks;

static void tick(int sig)
{
	if (sw_sigstate.inside)
		wrong++;
	ticks++;
}

static void storm__a_timer_never_gets_inside(void **state)
{
	struct itimerval t = {{0, 50}, {0, 50}};

	wrong = ticks = 0;
	signal(SIGALRM, tick);
	setitimer(ITIMER_REAL, &t, NULL);
	for (volatile unsigned i = 0; ticks < 2000; i++) {
		enter();
		for (volatile int k = 0; k < 20; k++)
			;
		leave();
	}
	setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
	assert_int_equal(wrong, 0);
	assert_int_equal(current_mask(), 0);
	assert_true(sw_sigstate.delivered >= 2000);
	assert_int_equal(sw_sigstate.delivered_norestart, 0);
}

/* Other libraries' constructors install handlers before ours has run. */
static bool early_ok;
__attribute__((constructor(101))) static void early(void)
{
	struct sigaction old;

	signal(SIGUSR1, plain);
	sigaction(SIGUSR1, NULL, &old);
	raise(SIGUSR1);
	early_ok = n_log == 1 && old.sa_handler == plain;
}

static void sigaction__works_before_constructors(void **state)
{
	assert_true(early_ok);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sigaction__works_before_constructors),
		cmocka_unit_test_setup(sigaction__old_is_what_was_set, reset),
		cmocka_unit_test_setup(sigaction__errors_are_the_kernels, reset),
		cmocka_unit_test_setup(signal__has_the_flags_of_its_standard, reset),
		cmocka_unit_test_setup(sigaction__the_kernel_shows_what_the_application_set, reset),
		cmocka_unit_test_setup(handler__outside_runs_at_once, reset),
		cmocka_unit_test_setup(handler__inside_waits, reset),
		cmocka_unit_test_setup(handler__errno_survives_a_held_one, reset),
		cmocka_unit_test_setup(handler__held_one_sees_what_a_direct_one_sees, reset),
		cmocka_unit_test_setup(handler__alternate_stack_is_disarmed_if_asked, reset),
		cmocka_unit_test_setup(handler__several_at_once_keep_the_kernels_order, reset),
		cmocka_unit_test_setup(handler__more_than_fit_come_all_the_same, reset),
		cmocka_unit_test_setup(handler__real_time_signals_stay_in_order_and_complete, reset),
		cmocka_unit_test_setup(handler__real_time_without_defer_is_complete, reset),
		cmocka_unit_test_setup(handler__resethand_runs_once, reset),
		cmocka_unit_test_setup(handler__replaced_meanwhile_still_runs_the_one_that_was_due, reset),
		cmocka_unit_test_setup(handler__may_enter_again, reset),
		cmocka_unit_test_setup(handler__may_change_the_mask_it_returns_to, reset),
		cmocka_unit_test_setup(handler__may_jump_out, reset),
		cmocka_unit_test_setup(handler__a_fault_inside_runs_at_once, reset),
		cmocka_unit_test_setup(handler__a_fault_signal_that_was_sent_waits, reset),
		cmocka_unit_test_setup(handler__in_ppoll_has_its_mask, reset),
		cmocka_unit_test_setup(sigaction__a_vfork_child_changes_nothing_here, reset),
		cmocka_unit_test_setup(sigaction__a_fork_child_goes_on_as_its_parent, reset),
		cmocka_unit_test_setup(system__leaves_handlers_alone, reset),
		cmocka_unit_test_setup(storm__handlers_and_masks_never_mix, reset),
		cmocka_unit_test_setup(storm__a_timer_never_gets_inside, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

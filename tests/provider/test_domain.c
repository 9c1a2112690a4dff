/* SPDX-License-Identifier: BSD-3-Clause */
/* Who drives and who sleeps: the domain with a provider that is nothing but an eventfd and some counters. */
#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "provider/domain.h"

#define MAX_THREADS 8
#define LONG	    (20 * SD_S) /* a sleep that lasts as long has missed its wake-up */

/* Its port is an eventfd: every count is one message, for the boxes in turn. */
struct toy {
	struct pv pv;
	int port;
	bool armed;
	unsigned next_box, n_boxes;
	uint64_t box[MAX_THREADS]; /* messages delivered and not yet taken */
	struct pv_waiter *waiting[MAX_THREADS];
	unsigned calls, slow_calls, lingering;
	uint64_t due;
	bool closed;
};

static struct pv_domain *domain;
static struct toy toy;
static _Atomic unsigned ticks, thread_starts, guarded;
static _Atomic int highest_guarded;

static unsigned toy_progress(struct pv *p, uint64_t now)
{
	uint64_t n;

	toy.calls++;
	if (now >= toy.due) {
		toy.lingering -= toy.lingering > 0;
		toy.due = toy.lingering ? now + SD_MS : UINT64_MAX;
	}
	if (read(toy.port, &n, sizeof n) != sizeof n)
		return 0;
	for (uint64_t i = 0; i < n; i++) {
		unsigned to = toy.next_box++ % toy.n_boxes;

		toy.box[to]++;
		if (toy.waiting[to])
			pv_waiter_ring(toy.waiting[to]);
	}
	return n;
}

static uint64_t toy_deadline(struct pv *p)
{
	return toy.due;
}

static int toy_arm(struct pv *p, uint64_t *max_sleep_ns)
{
	toy.armed = true;
	return toy.port;
}

static void toy_disarm(struct pv *p, bool rang)
{
	toy.armed = false;
}

static void toy_slow(struct pv *p, uint64_t now)
{
	toy.slow_calls++;
}

static unsigned toy_lingering(struct pv *p)
{
	return toy.lingering;
}

static void toy_close(struct pv *p)
{
	toy.closed = true;
}

static const struct pv_ops toy_ops = {
	.size = sizeof toy_ops,
	.name = "toy",
	.progress = toy_progress,
	.deadline = toy_deadline,
	.arm = toy_arm,
	.disarm = toy_disarm,
	.slow = toy_slow,
	.lingering = toy_lingering,
	.close = toy_close,
};

static void on_tick(void *ctx, bool resting)
{
	ticks++;
}

static void on_thread_start(void *ctx)
{
	thread_starts++;
}

static void on_fd_guard(void *ctx, int fd, enum pv_guard how)
{
	guarded += how ? 1 : -1;
	if (how)
		highest_guarded = fd;
}

static int open_domain(void **state)
{
	const struct pv_domain_config cfg = {
		.size = sizeof cfg,
		.tick = on_tick,
		.thread_start = on_thread_start,
		.fd_guard = on_fd_guard,
	};

	return pv_domain_open(&cfg, &domain);
}

static int setup(void **state)
{
	if (open_domain(state))
		return -1;
	toy = (struct toy){.pv.ops = &toy_ops, .n_boxes = 1, .due = UINT64_MAX};
	toy.port = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ticks = thread_starts = 0;
	return toy.port < 0 || pv_domain_add(domain, &toy.pv) || !pv_enter(domain) || !pv_waiter_self(domain);
}

static int teardown(void **state)
{
	if (pv_is_inside(domain))
		pv_leave(domain);
	pv_domain_drain(domain, 0);
	close(toy.port);
	return !toy.closed;
}

static void send_messages(uint64_t n)
{
	assert_int_equal(write(toy.port, &n, sizeof n), sizeof n);
}

static void nap(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_sec = ns / SD_S, .tv_nsec = ns % SD_S}, NULL);
}

/* Sleeps as this thread; token held. */
static int sleep_for(struct pollfd *fds, nfds_t n, uint64_t ns)
{
	return pv_sleep(domain, pv_waiter_self(domain), fds, n, sd_clock_ns() + ns, NULL);
}

/* Waits for a message for this box, with the token held. False: slept too long. */
static bool take(unsigned box)
{
	uint64_t end = sd_clock_ns() + LONG;

	toy.waiting[box] = pv_waiter_self(domain);
	while (!toy.box[box]) {
		pv_sleep(domain, toy.waiting[box], NULL, 0, end, NULL);
		if (sd_clock_ns() >= end)
			return false;
	}
	toy.box[box]--;
	return true;
}

static unsigned count_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

/* Outside the token, until *value has reached at_least. */
static void await(const unsigned *value, unsigned at_least)
{
	uint64_t end = sd_clock_ns() + LONG;

	while (*(const volatile unsigned *)value < at_least) {
		nap(SD_MS);
		assert_true(sd_clock_ns() < end);
	}
}

/* --- sleeping --- */

static void sleep__ends_at_its_deadline(void **state)
{
	uint64_t began = sd_clock_ns();

	while (sd_clock_ns() < began + 20 * SD_MS)
		assert_int_equal(
			pv_sleep(domain, pv_waiter_self(domain), NULL, 0, began + 20 * SD_MS, NULL), 0);
	assert_true(sd_clock_ns() - began < LONG);
	assert_false(toy.armed);
}

static void sleep__ends_when_a_provider_is_due(void **state)
{
	uint64_t began = sd_clock_ns();

	toy.due = began + 10 * SD_MS;
	while (toy.due != UINT64_MAX) {
		sleep_for(NULL, 0, LONG);
		assert_true(sd_clock_ns() - began < LONG);
	}
	assert_true(sd_clock_ns() - began >= 10 * SD_MS);
}

static void *send_later(void *arg)
{
	nap(5 * SD_MS);
	send_messages(1);
	return arg;
}

static void sleep__ends_when_the_port_has_something(void **state)
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, send_later, NULL), 0);
	assert_true(take(0));
	pthread_join(t, NULL);
}

/* What came after the last poll and before the port was armed. */
static void sleep__does_not_begin_over_waiting_work(void **state)
{
	send_messages(1);
	assert_true(take(0));
}

static void *ring_later(void *waiter)
{
	nap(5 * SD_MS);
	pv_enter(domain);
	pv_waiter_ring(waiter);
	pv_leave(domain);
	return NULL;
}

static void sleep__ends_when_rung(void **state)
{
	uint64_t began = sd_clock_ns();
	pthread_t t;

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(pthread_create(&t, NULL, ring_later, pv_waiter_self(domain)), 0);
		sleep_for(NULL, 0, LONG);
		pthread_join(t, NULL);
	}
	assert_true(sd_clock_ns() - began < LONG);
}

static void sleep__watches_descriptors_too(void **state)
{
	struct pollfd fds[100];
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	for (unsigned i = 0; i < 100; i++)
		fds[i] = (struct pollfd){.fd = ends[0], .events = POLLIN, .revents = POLLERR};
	assert_int_equal(sleep_for(fds, 1, SD_MS), 0);
	assert_int_equal(fds[0].revents, 0);
	fds[99] = (struct pollfd){.fd = ends[1], .events = POLLOUT};
	assert_int_equal(sleep_for(fds, 100, LONG), 1);
	assert_int_equal(fds[99].revents, POLLOUT);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(sleep_for(fds, 3, LONG), 3);
	assert_int_equal(fds[2].revents, POLLIN);
	close(ends[0]);
	close(ends[1]);
}

/* An endpoint with a word, and how often it was armed. */
static struct word_ep {
	struct pv_ep ep;
	_Atomic uint32_t word;
	int armed;
	bool has_none;
} word_ep[2];

static uint32_t *arm_word(struct pv_ep *e, uint32_t *value)
{
	struct word_ep *w = (struct word_ep *)e;

	if (w->has_none)
		return NULL;
	w->armed++;
	*value = 0;
	return (uint32_t *)&w->word;
}

static void disarm_word(struct pv_ep *e)
{
	((struct word_ep *)e)->armed--;
}

static const struct pv_ep_ops word_ops = {.arm_word = arm_word, .disarm_word = disarm_word};

static int sleep_on_words(uint64_t ns)
{
	struct pv_ep *eps[] = {&word_ep[0].ep, &word_ep[1].ep};
	int r = pv_sleep_on(domain, pv_waiter_self(domain), eps, 2, sd_clock_ns() + ns);

	assert_int_equal(word_ep[0].armed, 0);
	assert_int_equal(word_ep[1].armed, 0);
	return r;
}

static int setup_words(void **state)
{
	for (unsigned i = 0; i < 2; i++)
		word_ep[i] = (struct word_ep){.ep.ops = &word_ops};
	return setup(state);
}

static void *wake_word_later(void *arg)
{
	_Atomic uint32_t *word = arg;

	nap(5 * SD_MS);
	atomic_store(word, 1);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
	return NULL;
}

static void words__wake(void **state)
{
	pthread_t thread;

	for (unsigned i = 0; i < 2; i++) {
		word_ep[i].word = 0;
		assert_int_equal(pthread_create(&thread, NULL, wake_word_later, &word_ep[i].word), 0);
		assert_int_equal(sleep_on_words(LONG), 0);
		pthread_join(thread, NULL);
	}
	/* One that has changed before the sleep ends it at once. */
	assert_int_equal(sleep_on_words(LONG), 0);
}

static void words__end_at_a_deadline_and_before_long(void **state)
{
	uint64_t start = sd_clock_ns();

	assert_int_equal(sleep_on_words(3 * SD_MS), 0);
	assert_true(sd_clock_ns() - start >= 3 * SD_MS);
	assert_int_equal(sleep_on_words(LONG), -ETIMEDOUT);
}

static void words__end_when_rung(void **state)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, ring_later, pv_waiter_self(domain)), 0);
	assert_int_equal(sleep_on_words(LONG), 0);
	pv_leave(domain);
	pthread_join(thread, NULL);
	pv_enter(domain);
}

static void words__are_not_for_all_endpoints(void **state)
{
	word_ep[1].has_none = true;
	assert_int_equal(sleep_on_words(LONG), -ENOTSUP);
}

/* A handler that ran just before the sleep. */
static void words__end_after_an_interrupt(void **state)
{
	uint64_t start = sd_clock_ns();

	pv_sleep_interrupt();
	assert_int_equal(sleep_on_words(LONG), 0);
	assert_true(sd_clock_ns() - start < 15 * SD_MS);
}

static void *sleep_and_say(void *arg)
{
	pv_enter(domain);
	while (!toy.box[1]) {
		toy.waiting[1] = pv_waiter_self(domain);
		pv_sleep(domain, toy.waiting[1], NULL, 0, sd_clock_ns() + LONG, NULL);
	}
	pv_leave(domain);
	return arg;
}

/* --- signals --- */

static _Atomic unsigned signals;

static void on_signal(int sig)
{
	signals++;
}

static void on_signal_interrupt(int sig)
{
	signals++;
	pv_sleep_interrupt();
}

static void handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};

	sigaction(sig, &sa, NULL);
	signals = 0;
}

static pthread_t main_thread;

static void *signal_later(void *arg)
{
	nap(5 * SD_MS);
	pthread_kill(main_thread, SIGUSR1);
	return arg;
}

static void signal__ends_a_sleep(void **state)
{
	pthread_t t;
	int r;

	handle(SIGUSR1, on_signal, SA_RESTART);
	main_thread = pthread_self();
	assert_int_equal(pthread_create(&t, NULL, signal_later, NULL), 0);
	do
		r = sleep_for(NULL, 0, LONG);
	while (!signals);
	assert_int_equal(r, -EINTR);
	assert_true(pv_is_inside(domain));
	pthread_join(t, NULL);
}

static void signal__mask_lets_a_blocked_one_in(void **state)
{
	sigset_t block, old;

	handle(SIGUSR1, on_signal, 0);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &block, &old);
	raise(SIGUSR1);
	sleep_for(NULL, 0, SD_MS);
	assert_int_equal(signals, 0);
	assert_int_equal(
		pv_sleep(domain, pv_waiter_self(domain), NULL, 0, sd_clock_ns() + LONG, &old), -EINTR);
	assert_int_equal(signals, 1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* A handler that ran before the sleep began, and one within it. */
static void signal__handler_ends_the_next_sleep(void **state)
{
	uint64_t began = sd_clock_ns();
	pthread_t t;

	handle(SIGUSR1, on_signal_interrupt, SA_RESTART);
	pv_waiter_self(domain);
	raise(SIGUSR1);
	assert_int_equal(sleep_for(NULL, 0, LONG), 0);
	main_thread = pthread_self();
	assert_int_equal(pthread_create(&t, NULL, signal_later, NULL), 0);
	while (signals < 2)
		sleep_for(NULL, 0, LONG);
	assert_true(sd_clock_ns() - began < LONG);
	pthread_join(t, NULL);
}

/* --- many threads --- */

struct worker {
	pthread_t thread;
	unsigned box, rounds;
	bool missed;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < w->rounds && !w->missed; i++) {
		pv_enter(domain);
		w->missed = !take(w->box);
		pv_leave(domain);
	}
	/* What comes for this box later is nobody's business. */
	pv_enter(domain);
	toy.waiting[w->box] = NULL;
	pv_leave(domain);
	return NULL;
}

/* Messages come one by one and in bursts; every thread must get its own, whoever happens to drive. */
static void check_threads(unsigned n, unsigned rounds)
{
	struct worker w[MAX_THREADS];

	toy.n_boxes = n;
	pv_leave(domain);
	for (unsigned i = 0; i < n; i++) {
		w[i] = (struct worker){.box = i, .rounds = rounds};
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned sent = 0, burst; sent < n * rounds; sent += burst) {
		burst = sent % 7 ? 1 : n * rounds - sent < 13 ? 1 : 13;
		send_messages(burst);
		if (sent % 3 == 0)
			nap(sent % 5 * 50000);
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(w[i].thread, NULL);
	pv_enter(domain);
	for (unsigned i = 0; i < n; i++)
		assert_false(w[i].missed);
}

static void threads__one(void **state)
{
	check_threads(1, 3000);
	assert_int_equal(thread_starts, 0);
}

static void threads__one_and_the_helper(void **state)
{
	assert_int_equal(pv_domain_need_helper(domain), 0);
	check_threads(1, 3000);
}

/* The helper comes when there is somebody who could be left without a sentry. */
static void threads__two(void **state)
{
	check_threads(2, 2000);
	assert_int_equal(thread_starts, 1);
}

static void threads__many(void **state)
{
	check_threads(MAX_THREADS, 600);
}

/* Somebody who never sleeps is inside nearly always. */
static void *pester(void *stop)
{
	while (!atomic_load((_Atomic bool *)stop)) {
		pv_enter(domain);
		pv_progress(domain);
		pv_leave(domain);
	}
	return NULL;
}

static void threads__beside_one_that_spins(void **state)
{
	_Atomic bool stop = false;
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, pester, (void *)&stop), 0);
	check_threads(3, 300);
	atomic_store(&stop, true);
	pv_leave(domain);
	pthread_join(t, NULL);
	pv_enter(domain);
}

static void threads__cancelled_in_its_sleep(void **state)
{
	pthread_t t;

#ifdef __SANITIZE_ADDRESS__
	skip(); /* does not know that a cancelled thread leaves its frames behind */
#endif
	toy.n_boxes = 2;
	assert_int_equal(pv_domain_need_helper(domain), 0);
	pv_leave(domain);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(pthread_create(&t, NULL, sleep_and_say, NULL), 0);
		nap(i * 100000);
		pthread_cancel(t);
		pthread_join(t, NULL);
	}
	pv_enter(domain);
	toy.waiting[1] = NULL;
	send_messages(1);
	assert_true(take(0));
}

/* --- the helper --- */

static void helper__drives_when_nobody_else_does(void **state)
{
	unsigned before;

	assert_int_equal(pv_domain_need_helper(domain), 0);
	assert_int_equal(pv_domain_need_helper(domain), 0);
	pv_leave(domain);
	await((const unsigned *)&thread_starts, 1);
	await((const unsigned *)&ticks, 2);
	nap(30 * SD_MS);
	for (unsigned i = 1; i <= 3; i++) {
		before = toy.next_box;
		send_messages(1);
		await(&toy.next_box, before + 1);
	}
	toy.due = sd_clock_ns() + 20 * SD_MS;
	await(&toy.calls, toy.calls + 1);
	pv_enter(domain);
	assert_int_equal(thread_starts, 1);
	assert_int_equal(count_threads(), 2);
	assert_true(toy.slow_calls >= 2);
}

/* An application that is busy elsewhere, now and then inside but driving nothing. */
static void helper__ticks_beside_a_busy_application(void **state)
{
	uint64_t end;

	assert_int_equal(pv_domain_need_helper(domain), 0);
	for (unsigned i = 1; i <= 5; i++) {
		send_messages(1);
		end = sd_clock_ns() + LONG;
		while (toy.next_box < i) {
			pv_leave(domain);
			nap(100000);
			pv_enter(domain);
			assert_true(sd_clock_ns() < end);
		}
	}
}

static void helper__takes_no_signals(void **state)
{
	sigset_t set, old;
	struct timespec wait = {.tv_sec = 10};

	handle(SIGUSR1, on_signal, 0);
	assert_int_equal(pv_domain_need_helper(domain), 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	kill(getpid(), SIGUSR1);
	pv_leave(domain);
	nap(20 * SD_MS);
	pv_enter(domain);
	assert_int_equal(signals, 0);
	assert_int_equal(sigtimedwait(&set, NULL, &wait), SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* --- descriptors, the end, and children --- */

static void fds__are_high_and_announced(void **state)
{
	unsigned before = guarded;

	assert_int_equal(pv_domain_need_helper(domain), 0);
	assert_int_equal(guarded, before + 1);
	assert_true(highest_guarded >= 512);
	pv_leave(domain);
	pv_domain_drain(domain, 0);
	assert_int_equal(guarded, before);
	assert_int_equal(count_threads(), 1);
}

static void drain__goes_on_until_all_is_delivered(void **state)
{
	assert_int_equal(pv_domain_need_helper(domain), 0);
	toy.lingering = 20;
	toy.due = sd_clock_ns();
	send_messages(1);
	pv_leave(domain);
	pv_domain_drain(domain, LONG);
	assert_int_equal(toy.lingering, 0);
	assert_int_equal(toy.box[0], 1);
	assert_true(toy.closed);
	assert_false(pv_domain_alive(domain));
	assert_false(pv_enter(domain));
}

static void *sleep_on(void *arg)
{
	while (pv_enter(domain)) {
		sleep_for(NULL, 0, SD_MS);
		pv_leave(domain);
	}
	return NULL;
}

/* A thread that the end of the program overtakes in its sleep. */
static void drain__others_are_asleep(void **state)
{
	pthread_t t;

	pv_leave(domain);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&t, NULL, sleep_on, NULL), 0);
		nap(i * 500000);
		pv_domain_drain(domain, 0);
		pthread_join(t, NULL);
		assert_int_equal(setup(state), 0);
		pv_leave(domain);
	}
}

static void drain__gives_up(void **state)
{
	uint64_t began = sd_clock_ns();

	toy.lingering = 1000000000;
	pv_leave(domain);
	pv_domain_drain(domain, 30 * SD_MS);
	assert_in_range(sd_clock_ns() - began, 30 * SD_MS, LONG);
	assert_true(toy.closed);
	assert_false(pv_domain_alive(domain));
	assert_false(pv_enter(domain));
}

static void drain__not_from_within(void **state)
{
	pv_domain_drain(domain, 0);
	assert_false(toy.closed);
	assert_true(pv_is_inside(domain));
}

static void enter__once_per_thread(void **state)
{
	assert_true(pv_is_inside(domain));
	assert_false(pv_enter(domain));
	pv_leave(domain);
	assert_false(pv_is_inside(domain));
	assert_true(pv_enter(domain));
}

static void fork__child_sees_that_it_is_over(void **state)
{
	pid_t child;
	int status;

	assert_int_equal(pv_domain_need_helper(domain), 0);
	assert_true(pv_domain_alive(domain));
	child = fork();
	if (!child)
		_exit(pv_domain_alive(domain) ? 1 : 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_true(pv_domain_alive(domain));
	send_messages(1);
	assert_true(take(0));
}

/* A child starts afresh with a domain of its own. */
static void fork__child_opens_its_own(void **state)
{
	pid_t child;
	int status;

	assert_int_equal(pv_domain_need_helper(domain), 0);
	pv_waiter_self(domain);
	for (unsigned i = 0; i < 200; i++) { /* earn the bias, which must not be inherited */
		pv_leave(domain);
		pv_enter(domain);
	}
	child = fork();
	if (!child) {
		if (setup(NULL) || pv_domain_need_helper(domain))
			_exit(1);
		send_messages(1);
		_exit(take(0) && count_threads() == 2 ? 0 : 2);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(enter__once_per_thread),
		CASE(sleep__ends_at_its_deadline),
		CASE(sleep__ends_when_a_provider_is_due),
		CASE(sleep__ends_when_the_port_has_something),
		CASE(sleep__does_not_begin_over_waiting_work),
		CASE(sleep__ends_when_rung),
		CASE(sleep__watches_descriptors_too),
		cmocka_unit_test_setup_teardown(words__wake, setup_words, teardown),
		cmocka_unit_test_setup_teardown(
			words__end_at_a_deadline_and_before_long, setup_words, teardown),
		cmocka_unit_test_setup_teardown(words__end_when_rung, setup_words, teardown),
		cmocka_unit_test_setup_teardown(words__are_not_for_all_endpoints, setup_words, teardown),
		cmocka_unit_test_setup_teardown(words__end_after_an_interrupt, setup_words, teardown),
		CASE(signal__ends_a_sleep),
		CASE(signal__mask_lets_a_blocked_one_in),
		CASE(signal__handler_ends_the_next_sleep),
		CASE(threads__one),
		CASE(threads__one_and_the_helper),
		CASE(threads__two),
		CASE(threads__many),
		CASE(threads__beside_one_that_spins),
		CASE(threads__cancelled_in_its_sleep),
		CASE(helper__drives_when_nobody_else_does),
		CASE(helper__ticks_beside_a_busy_application),
		CASE(helper__takes_no_signals),
		CASE(fds__are_high_and_announced),
		CASE(drain__goes_on_until_all_is_delivered),
		CASE(drain__gives_up),
		CASE(drain__others_are_asleep),
		CASE(drain__not_from_within),
		CASE(fork__child_sees_that_it_is_over),
		CASE(fork__child_opens_its_own),
	};

	alarm(120); /* a hang is a failure too */
	return cmocka_run_group_tests_name("domain", tests, NULL, NULL);
}

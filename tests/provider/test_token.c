/* SPDX-License-Identifier: BSD-3-Clause */
/* The token: exclusion and progress while the bias is granted, withdrawn and lost. */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "provider/token.h"

static struct pv_token token;
/* What the token guards. visitors is atomic so that a violation is seen, not optimised away. */
static uint64_t counter;
static _Atomic unsigned visitors, violations;
static _Atomic bool stop;

static int setup(void **state)
{
	pv_token_init(&token);
	counter = 0;
	atomic_store(&visitors, 0);
	atomic_store(&violations, 0);
	atomic_store(&stop, false);
	return 0;
}

static void visit(void)
{
	if (atomic_fetch_add_explicit(&visitors, 1, memory_order_relaxed))
		atomic_fetch_add(&violations, 1);
	counter++;
	atomic_fetch_sub_explicit(&visitors, 1, memory_order_relaxed);
}

static void enter_visit_leave(void)
{
	if (!pv_token_enter(&token)) {
		atomic_fetch_add(&violations, 1);
		return;
	}
	visit();
	pv_token_leave(&token);
}

static void nap(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_sec = ns / SD_S, .tv_nsec = ns % SD_S}, NULL);
}

static void earn_bias(void)
{
	for (unsigned i = 0; i < 2 * token.bias_after + 2; i++)
		enter_visit_leave();
}

static void token__enters_once_per_thread(void **state)
{
	assert_false(pv_token_held(&token));
	for (unsigned i = 0; i < 200; i++) {
		assert_true(pv_token_enter(&token));
		assert_true(pv_token_held(&token));
		assert_false(pv_token_enter(&token));
		assert_false(pv_token_enter(&token));
		assert_true(pv_token_held(&token));
		pv_token_leave(&token);
		assert_false(pv_token_held(&token));
	}
	/* The loop was long enough for the bias, so both ways in have been tried. */
	assert_true(!token.can_bias || token.bias);
}

static void *sees_it_held(void *arg)
{
	return (void *)(uintptr_t)pv_token_held(&token);
}

static void token__is_held_by_one_thread_only(void **state)
{
	pthread_t t;
	void *held;

	for (int biased = 0; biased < 2; biased++) {
		if (biased)
			earn_bias();
		assert_true(pv_token_enter(&token));
		assert_int_equal(pthread_create(&t, NULL, sees_it_held, NULL), 0);
		pthread_join(t, &held);
		assert_null(held);
		pv_token_leave(&token);
	}
}

/* --- contention --- */

struct worker {
	pthread_t thread;
	unsigned rounds, pause_every;
	bool guest;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	pv_token_guest = w->guest;
	for (unsigned i = 0; i < w->rounds; i++) {
		enter_visit_leave();
		if (w->pause_every && i % w->pause_every == 0)
			nap(20000);
	}
	return NULL;
}

static uint64_t run_workers(struct worker *w, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	for (unsigned i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		sum += w[i].rounds;
	}
	return sum;
}

static void contention__loses_no_update(void **state)
{
	struct worker w[8];
	uint64_t done;

	for (unsigned i = 0; i < 8; i++)
		w[i] = (struct worker){.rounds = 100000};
	done = run_workers(w, 8);
	assert_int_equal(done, counter);
	assert_int_equal(violations, 0);
}

/* One thread is nearly alone, as in most programs; the others look in now and then. */
static void contention__biased_owner_and_visitors(void **state)
{
	struct worker w[5] = {{.rounds = 3000000}, {.rounds = 400, .pause_every = 1},
		{.rounds = 400, .pause_every = 1, .guest = true}, {.rounds = 6000, .pause_every = 40},
		{.rounds = 20000, .pause_every = 200}};
	uint64_t done;

	done = run_workers(w, 5);
	assert_int_equal(done, counter);
	assert_int_equal(violations, 0);
}

static void contention__without_membarrier(void **state)
{
	struct worker w[4];
	uint64_t done;

	token.can_bias = false;
	for (unsigned i = 0; i < 4; i++)
		w[i] = (struct worker){.rounds = 50000};
	done = run_workers(w, 4);
	assert_int_equal(done, counter);
	assert_int_equal(violations, 0);
	assert_null(token.bias);
}

static void *hold_long(void *arg)
{
	earn_bias();
	pv_token_enter(&token);
	atomic_fetch_add(&visitors, 1);
	atomic_store(&stop, true);
	nap(20 * SD_MS);
	atomic_fetch_sub(&visitors, 1);
	pv_token_leave(&token);
	return NULL;
}

/* The owner may be inside for as long as opening a port takes. */
static void withdrawal__waits_for_the_owner(void **state)
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, hold_long, NULL), 0);
	while (!atomic_load(&stop))
		sched_yield();
	enter_visit_leave();
	assert_int_equal(violations, 0);
	pthread_join(t, NULL);
}

static void *enter_once(void *arg)
{
	enter_visit_leave();
	return arg;
}

/* A callback or a signal handler may ask again at any time, also while another thread waits for us to leave.
 */
static void withdrawal__owner_is_still_inside(void **state)
{
	pthread_t t;

	if (!token.can_bias)
		skip();
	earn_bias();
	assert_true(pv_token_enter(&token));
	assert_int_equal(pthread_create(&t, NULL, enter_once, NULL), 0);
	while (token.bias)
		sched_yield();
	assert_true(pv_token_held(&token));
	assert_false(pv_token_enter(&token));
	pv_token_leave(&token);
	pthread_join(t, NULL);
	assert_false(pv_token_held(&token));
	assert_int_equal(violations, 0);
}

static void withdrawal__makes_the_bias_dearer(void **state)
{
	struct worker visitor = {.rounds = 1};
	uint32_t before;

	if (!token.can_bias)
		skip();
	earn_bias();
	assert_true(token.bias);
	before = token.bias_after;
	run_workers(&visitor, 1);
	assert_false(token.bias);
	assert_true(token.bias_after > before);
	earn_bias();
	assert_true(token.bias);
}

/* A helper thread that looks in every so often does not cost the program its bias. */
static void withdrawal__guests_give_the_bias_back(void **state)
{
	struct worker guest = {.rounds = 50, .pause_every = 1, .guest = true};
	struct pv_token_seat *seat;
	uint32_t before;

	if (!token.can_bias)
		skip();
	earn_bias();
	seat = token.bias;
	before = token.bias_after;
	assert_int_equal(pthread_create(&guest.thread, NULL, work, &guest), 0);
	for (unsigned i = 0; i < 1000000; i++)
		enter_visit_leave();
	pthread_join(guest.thread, NULL);
	assert_ptr_equal(token.bias, seat);
	assert_int_equal(token.bias_after, before);
	assert_int_equal(counter, 1000000 + 50 + 2 * 32 + 2);
	assert_int_equal(violations, 0);
}

/* --- a thread that is held up half way in --- */

#define TRAP_FLAG 0x100
#define MAX_STEPS 300

static unsigned steps_to_pause, steps;
static sem_t standing, go_on;

/* After every instruction of the victim. */
static void on_step(int sig, siginfo_t *si, void *context)
{
	ucontext_t *u = context;

	if (++steps < steps_to_pause)
		return;
	u->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	if (pv_token_held(&token))
		return;
	sem_post(&standing);
	while (sem_wait(&go_on))
		;
}

/* Was the bias's owner, and stops steps_to_pause instructions after it began to enter, unless it is inside
 * then. */
static void *enter_step_by_step(void *arg)
{
	earn_bias();
	steps = 0;
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
	enter_visit_leave();
	__asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
	atomic_store(&stop, true);
	sem_post(&standing);
	return NULL;
}

/* The former owner stands on its way in while another thread earns the bias and enters. Whatever the former
 * one does next must not let anybody in beside the new one. */
static void take_over(void)
{
	struct worker visitor = {.rounds = 1};

	earn_bias();
	assert_true(pv_token_enter(&token));
	if (atomic_fetch_add(&visitors, 1))
		atomic_fetch_add(&violations, 1);
	sem_post(&go_on);
	pthread_create(&visitor.thread, NULL, work, &visitor);
	nap(200000);
	atomic_fetch_sub(&visitors, 1);
	assert_true(pv_token_held(&token));
	pv_token_leave(&token);
	pthread_join(visitor.thread, NULL);
}

static void withdrawal__owner_held_up_anywhere_on_its_way(void **state)
{
	struct sigaction sa = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	unsigned taken = 0;
	pthread_t victim;

	if (!token.can_bias)
		skip();
	sem_init(&standing, 0, 0);
	sem_init(&go_on, 0, 0);
	sigaction(SIGTRAP, &sa, NULL);
	for (steps_to_pause = 1; steps_to_pause < MAX_STEPS; steps_to_pause++) {
		setup(state);
		assert_int_equal(pthread_create(&victim, NULL, enter_step_by_step, NULL), 0);
		sem_wait(&standing);
		if (!atomic_load(&stop)) {
			take_over();
			taken++;
		}
		pthread_join(victim, NULL);
		while (!sem_trywait(&standing))
			;
		if (steps < steps_to_pause) /* there is no such step any more */
			break;
	}
	assert_int_equal(violations, 0);
	assert_in_range(taken, 10, MAX_STEPS / 2);
	assert_true(steps_to_pause < MAX_STEPS);
}

/* --- threads that end --- */

static uintptr_t anchors[64];
static _Atomic unsigned n_anchors;

static void *earn_and_end(void *arg)
{
	anchors[atomic_fetch_add(&n_anchors, 1) % 64] = pv_token_self();
	earn_bias();
	return NULL;
}

/* glibc hands the stack, and with it the anchor, of an ended thread to the next one. */
static void thread_end__biased_and_address_reused(void **state)
{
	pthread_t t;
	bool reused = false;

	n_anchors = 0;
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(pthread_create(&t, NULL, earn_and_end, NULL), 0);
		pthread_join(t, NULL);
		if (i & 1)
			enter_visit_leave();
		reused |= i && anchors[i] == anchors[i - 1];
		token.bias_after = 32;
	}
	assert_true(reused);
	enter_visit_leave();
	assert_int_equal(violations, 0);
}

static void *enter_and_end(void *arg)
{
	for (unsigned i = 0; i < 300; i++)
		enter_visit_leave();
	return arg;
}

static void *churn(void *arg)
{
	pthread_t t;

	for (unsigned i = 0; i < 150; i++) {
		if (pthread_create(&t, NULL, enter_and_end, NULL))
			return arg;
		pthread_join(t, NULL);
	}
	return NULL;
}

static void thread_end__many_come_and_go(void **state)
{
	pthread_t t[4];
	void *failed = NULL, *r;

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, &token), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &r);
		failed = failed ? failed : r;
	}
	assert_null(failed);
	enter_visit_leave();
	assert_int_equal(violations, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(token__enters_once_per_thread, setup),
		cmocka_unit_test_setup(token__is_held_by_one_thread_only, setup),
		cmocka_unit_test_setup(contention__loses_no_update, setup),
		cmocka_unit_test_setup(contention__biased_owner_and_visitors, setup),
		cmocka_unit_test_setup(contention__without_membarrier, setup),
		cmocka_unit_test_setup(withdrawal__waits_for_the_owner, setup),
		cmocka_unit_test_setup(withdrawal__owner_is_still_inside, setup),
		cmocka_unit_test_setup(withdrawal__guests_give_the_bias_back, setup),
		cmocka_unit_test_setup(withdrawal__makes_the_bias_dearer, setup),
		cmocka_unit_test_setup(withdrawal__owner_held_up_anywhere_on_its_way, setup),
		cmocka_unit_test_setup(thread_end__biased_and_address_reused, setup),
		cmocka_unit_test_setup(thread_end__many_come_and_go, setup),
	};

	alarm(120); /* a hang is a failure too */
	return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}

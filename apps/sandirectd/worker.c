/* SPDX-License-Identifier: BSD-3-Clause */
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/core.h"
#include "base/log.h"
#include "node.h"
#include "provider/registry.h"
#include "switch/ports.h"

/* Having polled in vain for so long it offers its core to others, and again. */
#define YIELD_AFTER_NS (10 * SD_US)
#define YIELD_AGAIN_NS (50 * SD_US)
#define TURN_NS	       (10 * SD_MS) /* how long it may work without a look at other things */

enum wish { PARKED, GOING, QUITTING };

struct worker_thread {
	pthread_t id;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	_Atomic int wish;   /* enum wish; written under the lock */
	bool rests;	    /* it has seen that it is parked */
	_Atomic bool ended; /* it makes no progress any more */
	int (*f)(struct worker *w, void *arg);
	void *arg;
	int result;
};

/* --- what it does --- */

unsigned worker_round(struct worker *w)
{
	return pv_progress(w->domain) + (w->bridge ? bridge_progress(w->bridge) : 0);
}

bool worker_poll(struct worker *w, unsigned (*round)(void *ctx), void *ctx)
{
	uint64_t spin = w->cfg->spin_ns, now = pv_now(w->domain), until = now + spin,
		 yield_at = now + YIELD_AFTER_NS, end = now + TURN_NS;

	while (now < end) {
		/* What has more to do than one round comes first, also where nothing is polled for. */
		if (round(ctx)) {
			now = pv_now(w->domain);
			until = now + spin;
			yield_at = now + YIELD_AFTER_NS;
			continue;
		}
		now = pv_now(w->domain);
		if (!w->bridge || now >= until)
			return false;
		if (now >= yield_at) {
			if (sd_core_offer())
				return false;
			yield_at = now + YIELD_AGAIN_NS;
		}
		/* Whoever is let in may leave work behind: a round follows. */
		pv_yield(w->domain);
	}
	return true;
}

void worker_sleep(struct worker *w, struct pollfd *p, nfds_t n, uint64_t deadline)
{
	for (nfds_t i = 0; i < n; i++)
		p[i].revents = 0;
	if (!w->bridge || !bridge_is_busy(w->bridge))
		pv_sleep(w->domain, w->waiter, p, n, deadline, NULL);
}

static unsigned round_of(void *w)
{
	return worker_round(w);
}

static void go(struct worker *w)
{
	struct pollfd letters = {.fd = bridge_post(w->bridge)->bell, .events = POLLIN};

	while (w->thread->wish == GOING) {
		if (!worker_poll(w, round_of, w) && w->thread->wish == GOING)
			worker_sleep(w, &letters, 1, UINT64_MAX);
		if (letters.revents)
			post_heed(bridge_post(w->bridge));
	}
}

/* --- life --- */

static int open_providers(struct worker *w)
{
	struct bridge_config bc = {
		.size = sizeof bc, .engine = w->number, .bell = w->number > 0, .desk = w->desk};
	int r = sw_ports_open_for(w->cfg, w->crew, w->number, pv_upcall, &w->ether);

	if (!r)
		r = pv_shm_open("", pv_upcall, &w->shm);
	if (!r)
		r = pv_domain_add(w->domain, w->shm);
	if (!r)
		r = pv_domain_add(w->domain, w->ether);
	bc.san = w->ether;
	bc.shm = w->shm;
	return r ? r : bridge_open(&bc, &w->bridge);
}

/* Where it is to run; the memory it asks for comes from there, too. */
static void pin(const struct worker *w)
{
	int node = node_of_ports(w->cfg), core;
	cpu_set_t set;

	if (w->number >= w->cfg->cores.n) {
		if (node >= 0)
			node_join(node); /* if it may not run there, who opens the device says so */
		return;
	}
	core = w->cfg->cores.core[w->number];
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof set, &set))
		sd_warn("engine %u cannot run on core %d, which is not there or not allowed; it runs "
			"anywhere",
			w->number, core);
	else if (w->number && node_is_other(node, core)) /* of the first, who opens the device says so */
		sd_warn("engine %u runs on core %d, and the port's device is on NUMA node %d: every packet "
			"crosses from there; `lscpu` shows that node's cores",
			w->number, core, node);
}

static int open_here(struct worker *w)
{
	struct pv_domain_config dc = {.size = sizeof dc, .spin_ns = w->cfg->spin_ns};
	int r;

	pin(w);
	r = pv_domain_open(&dc, &w->domain);
	if (r)
		return r;
	pv_enter(w->domain);
	w->waiter = pv_waiter_self(w->domain);
	if (!w->waiter)
		return -ENOMEM;
	return w->cfg->n_ports ? open_providers(w) : 0;
}

static void close_here(struct worker *w)
{
	if (w->bridge)
		bridge_close(w->bridge);
	w->bridge = NULL;
	if (!w->domain)
		return;
	if (pv_is_inside(w->domain))
		pv_leave(w->domain);
	pv_domain_drain(w->domain, w->cfg->exit_linger_ns);
}

/* Parked: does what it is told, until it is to go or to quit. */
static void wait_for_wishes(struct worker *w)
{
	struct worker_thread *t = w->thread;

	pthread_mutex_lock(&t->lock);
	t->rests = true;
	pthread_cond_broadcast(&t->changed);
	while (t->wish == PARKED) {
		if (t->f) {
			t->result = t->f(w, t->arg);
			t->f = NULL;
			pthread_cond_broadcast(&t->changed);
		}
		pthread_cond_wait(&t->changed, &t->lock);
	}
	t->rests = false;
	pthread_mutex_unlock(&t->lock);
}

static void *run(void *arg)
{
	struct worker *w = arg;
	struct worker_thread *t = w->thread;

	while (t->wish != QUITTING) {
		wait_for_wishes(w);
		go(w);
	}
	close_here(w);
	t->ended = true;
	return NULL;
}

static int open_in_thread(struct worker *w, void *arg)
{
	return open_here(w);
}

int worker_open(struct worker *w)
{
	int r;

	if (!w->number) {
		r = open_here(w);
	} else {
		w->thread = calloc(1, sizeof *w->thread);
		if (!w->thread)
			return -ENOMEM;
		pthread_mutex_init(&w->thread->lock, NULL);
		pthread_cond_init(&w->thread->changed, NULL);
		r = -pthread_create(&w->thread->id, NULL, run, w);
		if (r) {
			free(w->thread);
			w->thread = NULL;
		} else {
			r = worker_do(w, open_in_thread, NULL);
		}
	}
	if (r)
		sd_error("engine %u cannot be set up: %s", w->number, strerror(-r));
	return r;
}

int worker_do(struct worker *w, int (*f)(struct worker *w, void *arg), void *arg)
{
	struct worker_thread *t = w->thread;
	int r;

	if (!t)
		return f(w, arg);
	pthread_mutex_lock(&t->lock);
	t->f = f;
	t->arg = arg;
	pthread_cond_broadcast(&t->changed);
	while (t->f)
		pthread_cond_wait(&t->changed, &t->lock);
	r = t->result;
	pthread_mutex_unlock(&t->lock);
	return r;
}

static void wish(struct worker *w, enum wish wish)
{
	struct worker_thread *t = w->thread;

	pthread_mutex_lock(&t->lock);
	t->wish = (int)wish;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	if (w->bridge)
		post_ring(bridge_post(w->bridge));
}

void worker_go(struct worker *w)
{
	wish(w, GOING);
}

void worker_park(struct worker *w)
{
	struct worker_thread *t = w->thread;

	wish(w, PARKED);
	pthread_mutex_lock(&t->lock);
	while (!t->rests)
		pthread_cond_wait(&t->changed, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

void worker_quit(struct worker *w)
{
	if (w->thread)
		wish(w, QUITTING);
}

bool worker_has_quit(const struct worker *w)
{
	return !w->thread || w->thread->ended;
}

void worker_close(struct worker *w)
{
	struct worker_thread *t = w->thread;

	if (!t) {
		close_here(w);
		return;
	}
	pthread_join(t->id, NULL);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
	w->thread = NULL;
}

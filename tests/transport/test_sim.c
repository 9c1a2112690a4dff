/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Simulated runs: applications that write, read, dawdle, close and abort at random over links that misbehave,
 * and an oracle that knows every byte. Each case is one kind of trouble; each of its seeds draws hosts,
 * links, settings and behaviour anew. SIM_SEED=n runs that seed of every case, in words; with SIM_COUNT=m
 * that many from there on, without a word. SIM_CASE is the one to run, SIM_TRIM makes it smaller (trim.h).
 * SANDIRECT_TEST_LONG=1 runs ten times as many; soak.py runs very many.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "streams.h"

#define SEEDS 2000 /* over all cases */

typedef void play(struct world *w, uint64_t seed);

static void seeds(const char *name, unsigned share, play *one)
{
	static struct world w;
	struct trim_seeds n = trim_seeds(SEEDS * share / 100);

	for (uint64_t seed = n.first; seed < n.first + n.count; seed++) {
		one(&w, seed);
		if (w.sim.failure[0])
			fail_msg("SIM_SEED=%llu, %s: %s (%llu packets, %08x)", (unsigned long long)seed, name,
				w.sim.failure, (unsigned long long)w.sim.packets, w.sim.trace);
	}
}

/* --- the cases --- */

static void play_calm(struct world *w, uint64_t seed)
{
	struct tp_stats st[2];
	bool prompt;

	scene_draw(w, seed, 2, true);
	prompt = !w->sim.links[0][1].rate;
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&w->sim.rng, 4), 1000000, SD_MS);
	for (unsigned i = 0; i < w->n_pairs; i++)
		w->pairs[i].side[0].cork = w->pairs[i].side[1].cork = false;
	/* less than any timeout that would mend a forgotten wake-up */
	w->stall_limit = 5 * SD_MS + 6 * w->sim.links[0][1].delay;
	scene_run(w, 100 * SD_S);
	sim_stats(&w->sim.hosts[0], &st[0]);
	sim_stats(&w->sim.hosts[1], &st[1]);
	/* a probe is no surprise where a queue has built up or an acknowledgement waits for long, and what it
	 * repeats may come when all is over */
	for (unsigned i = 0; i < 2; i++)
		prompt &=
			w->sim.hosts[i].cfg.ack_delay_ns < 100 * SD_US && w->sim.hosts[i].burst == BURST_MAX;
	if (prompt && st[0].resets_sent + st[1].resets_sent + st[0].retransmits + st[1].retransmits)
		sim_fail(&w->sim, "a RESET or a retransmission");
}

static void play_rough(struct world *w, uint64_t seed)
{
	scene_draw(w, seed, 2, false);
	w->stall_limit = STALL_MAX;
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&w->sim.rng, 4), 1000000, 5 * SD_MS);
	scene_run(w, 1000 * SD_S);
}

static void play_slow_readers(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2, false);
	w->stall_limit = STALL_MAX;
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 3), 1000000, 5 * SD_MS);
	for (unsigned i = 0; i < w->n_pairs; i++) {
		for (unsigned k = 0; k < 2; k++) {
			struct side *x = &w->pairs[i].side[k];

			if (sim_chance(s, 0.5))
				x->read_from = w->pairs[i].start_at + sim_scale(s, SD_MS, 100 * SD_S);
			if (sim_chance(s, 0.3))
				x->pause = sim_scale(s, SD_US, 5 * SD_MS);
		}
	}
	scene_run(w, 1000 * SD_S);
}

static void play_endings(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2, false);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 6), 200000, 5 * SD_MS);
	for (unsigned i = 0; i < w->n_pairs; i++) {
		struct pair *p = &w->pairs[i];

		for (unsigned k = 0; k < 2; k++) {
			struct side *x = &p->side[k];

			if (sim_chance(s, 0.4))
				continue;
			x->ending = (enum ending)sd_rng_below(&s->rng, 4);
			x->end_at = p->start_at + sim_scale(s, SD_US, SD_S);
			if (x->ending >= END_CLOSE)
				p->may_reset = true;
		}
	}
	scene_run(w, 1000 * SD_S);
}

static void play_crowd(struct world *w, uint64_t seed)
{
	scene_draw(w, seed, 3, false);
	w->stall_limit = STALL_MAX;
	scene_pairs(w, 50 + (unsigned)sd_rng_below(&w->sim.rng, PAIRS_MAX - 49), 6000, SD_MS);
	scene_run(w, 1000 * SD_S);
}

static void play_refusals(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2, false);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 40), 10000, 5 * SD_MS);
	w->may_refuse = true;
	w->backlog = 1 + (unsigned)sd_rng_below(&s->rng, 8);
	w->accept_from = s->now + sim_scale(s, SD_MS, SD_S);
	scene_run(w, 1000 * SD_S);
}

static void trouble(struct world *w, unsigned host)
{
	struct sim *s = &w->sim;

	w->trouble_host = host;
	for (unsigned i = 0; i < s->n_hosts; i++) {
		s->hosts[i].cfg.connect_timeout_ns = sim_scale(s, 200 * SD_MS, 5 * SD_S);
		s->hosts[i].cfg.dead_timeout_ns = 5 * SD_S;
		s->hosts[i].cfg.keepalive_ns = 2 * SD_S;
	}
}

static void play_crash(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2 + seed % 2, false);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 10), 200000, 10 * SD_MS);
	w->may_die = w->may_refuse = true;
	trouble(w, (unsigned)sd_rng_below(&s->rng, s->n_hosts));
	w->crash_at = s->now + sim_scale(s, SD_US, 100 * SD_MS);
	w->crash_for = sim_scale(s, SD_US, 20 * SD_S);
	scene_run(w, 300 * SD_S);
}

static void play_death(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2 + seed % 2, false);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 6), 200000, 5 * SD_MS);
	w->may_die = true;
	trouble(w, (unsigned)sd_rng_below(&s->rng, s->n_hosts));
	w->silent_at = s->now + sim_scale(s, SD_US, 100 * SD_MS);
	w->silent_until = SIM_NEVER;
	scene_run(w, 300 * SD_S);
}

/* Shorter than the dead timeout: nobody may notice. */
static void play_nap(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2 + seed % 2, false);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 6), 200000, 5 * SD_MS);
	w->trouble_host = (unsigned)sd_rng_below(&s->rng, s->n_hosts);
	w->silent_at = s->now + sim_scale(s, SD_US, 100 * SD_MS);
	w->silent_until = w->silent_at + sim_scale(s, 100 * SD_US, 10 * SD_S);
	scene_run(w, 1000 * SD_S);
}

static void play_short_of_memory(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2, false);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 40), 50000, 5 * SD_MS);
	w->short_of_memory = true;
	for (unsigned i = 0; i < 2; i++)
		s->hosts[i].alloc_fails = sd_rng_unit(&s->rng) * 0.9;
	scene_run(w, 1000 * SD_S);
}

/* The peers notice nothing but a pause, and the onlooker on the wire not even that. */
static void play_hand_over(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2 + seed % 2, false);
	w->stall_limit = STALL_MAX;
	scene_pairs(
		w, 1 + (unsigned)sd_rng_below(&s->rng, 20), sim_chance(s, 0.3) ? 2000000 : 50000, 5 * SD_MS);
	w->hand_over_every = sim_scale(s, 20 * SD_US, 20 * SD_MS);
	w->hand_overs = 200;
	w->accept_from = sim_chance(s, 0.3) ? s->now + sim_scale(s, SD_US, 50 * SD_MS) : 0;
	scene_run(w, 1000 * SD_S);
}

/* Several hosts, and at the input of each a queue that all who send to it share. */
static void play_bottleneck(struct world *w, uint64_t seed)
{
	scene_draw(w, seed, 3 + seed % 5, false);
	w->stall_limit = STALL_MAX;
	scene_share(w);
	scene_pairs(w, 2 + (unsigned)sd_rng_below(&w->sim.rng, 30), 200000, 5 * SD_MS);
	scene_run(w, 1000 * SD_S);
}

static void play_lopsided(struct world *w, uint64_t seed)
{
	scene_draw(w, seed, 2 + seed % 2, false);
	w->stall_limit = STALL_MAX;
	scene_skew(w);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&w->sim.rng, 6), 300000, 5 * SD_MS);
	scene_run(w, 1000 * SD_S);
}

static void play_path_change(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 2 + seed % 3, false);
	w->stall_limit = STALL_MAX;
	if (sim_chance(s, 0.5))
		scene_share(w);
	scene_change(w, 1 + (unsigned)sd_rng_below(&s->rng, CHANGES_MAX), sim_scale(s, SD_MS, SD_S));
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 8), 500000, 5 * SD_MS);
	scene_run(w, 1000 * SD_S);
}

/* A path that becomes too narrow for packets, or has been from the beginning, is survived unless it carries
 * not even small ones: then only if that is over before anybody may give up, else connections die in good
 * order. */
static void play_black_hole(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;
	unsigned host;

	scene_draw(w, seed, 2 + seed % 2, false);
	host = (unsigned)sd_rng_below(&s->rng, s->n_hosts);
	w->may_die = seed % 4 == 0;
	if (w->may_die)
		trouble(w, host);
	scene_hole(w, host, seed % 4 < 2 ? WIRE_MIN_PAYLOAD : SIM_BASE_MTU,
		seed % 4 == 3 ? s->now : s->now + sim_scale(s, SD_US, 20 * SD_MS),
		seed % 4 == 1 ? sim_scale(s, SD_MS, 5 * SD_S) : SIM_NEVER);
	scene_pairs(w, 1 + (unsigned)sd_rng_below(&s->rng, 6), 200000, 10 * SD_MS);
	if (!w->may_die && seed % 3 == 0) { /* also between two pieces of a packet */
		w->hand_over_every = sim_scale(s, 20 * SD_US, 20 * SD_MS);
		w->hand_overs = 200;
	}
	scene_run(w, 1000 * SD_S);
}

/* A host goes and comes again and again, while others keep asking for it. */
static void play_restarts(struct world *w, uint64_t seed)
{
	struct sim *s = &w->sim;

	scene_draw(w, seed, 3 + seed % 3, false);
	scene_share(w);
	scene_pairs(w, 10 + (unsigned)sd_rng_below(&s->rng, 30), 50000, sim_scale(s, 10 * SD_MS, 5 * SD_S));
	w->may_die = w->may_refuse = true;
	trouble(w, (unsigned)sd_rng_below(&s->rng, s->n_hosts));
	w->crash_at = s->now + sim_scale(s, SD_US, 100 * SD_MS);
	w->crash_for = sim_scale(s, SD_US, SD_S);
	w->crash_every = sim_scale(s, SD_MS, SD_S);
	w->crashes = 1 + (unsigned)sd_rng_below(&s->rng, 8);
	scene_run(w, 300 * SD_S);
}

/* The same seed gives the same packets at the same times. */
static void play_twice(struct world *w, uint64_t seed)
{
	uint32_t trace;
	uint64_t packets;

	play_rough(w, seed);
	trace = w->sim.trace;
	packets = w->sim.packets;
	play_rough(w, seed);
	if (trace != w->sim.trace || packets != w->sim.packets)
		sim_fail(&w->sim, "a second run differed");
}

static void test_calm(void **state)
{
	seeds("calm", 10, play_calm);
}

static void test_rough(void **state)
{
	seeds("rough", 25, play_rough);
}

static void test_slow_readers(void **state)
{
	seeds("slow readers", 10, play_slow_readers);
}

static void test_endings(void **state)
{
	seeds("endings", 15, play_endings);
}

static void test_crowd(void **state)
{
	seeds("crowd", 5, play_crowd);
}

static void test_refusals(void **state)
{
	seeds("refusals", 10, play_refusals);
}

static void test_crash(void **state)
{
	seeds("crash", 10, play_crash);
}

static void test_death(void **state)
{
	seeds("death", 5, play_death);
}

static void test_nap(void **state)
{
	seeds("nap", 5, play_nap);
}

static void test_hand_over(void **state)
{
	seeds("hand over", 10, play_hand_over);
}

static void test_short_of_memory(void **state)
{
	seeds("short of memory", 5, play_short_of_memory);
}

static void test_bottleneck(void **state)
{
	seeds("bottleneck", 5, play_bottleneck);
}

static void test_lopsided(void **state)
{
	seeds("lopsided", 5, play_lopsided);
}

static void test_path_change(void **state)
{
	seeds("path change", 5, play_path_change);
}

static void test_black_hole(void **state)
{
	seeds("black hole", 5, play_black_hole);
}

static void test_restarts(void **state)
{
	seeds("restarts", 5, play_restarts);
}

static void test_twice(void **state)
{
	seeds("twice", 1, play_twice);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calm),
		cmocka_unit_test(test_rough),
		cmocka_unit_test(test_slow_readers),
		cmocka_unit_test(test_endings),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_nap),
		cmocka_unit_test(test_hand_over),
		cmocka_unit_test(test_short_of_memory),
		cmocka_unit_test(test_bottleneck),
		cmocka_unit_test(test_lopsided),
		cmocka_unit_test(test_path_change),
		cmocka_unit_test(test_black_hole),
		cmocka_unit_test(test_restarts),
		cmocka_unit_test(test_twice),
	};

	cmocka_set_test_filter(getenv("SIM_CASE"));
	return cmocka_run_group_tests_name("transport_sim", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* What a bad link does to frames: as often as was asked for, the same each time, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "drivers/port.h"

enum {
	FRAMES = 20000,
	LEN = 1000,
	BURST = 16,
};

struct result {
	unsigned received, twice, late, damaged;
	uint64_t first, last; /* when they arrived */
	uint64_t faults;
	uint32_t order[FRAMES * 2];
};

static uint64_t now;

static void send_one(struct port *p, uint32_t number)
{
	struct port_frame f;

	assert_int_equal(p->ops->tx_get(p, &f, 1), 1);
	memset(f.data, (int)number, LEN);
	memcpy(f.data, &number, sizeof number);
	f.len = LEN;
	assert_int_equal(p->ops->tx(p, &f, 1), 1);
}

static void note(struct result *r, const struct port_frame *f, uint8_t seen[FRAMES])
{
	uint32_t number;

	assert_int_equal(f->len, LEN);
	memcpy(&number, f->data, sizeof number);
	for (unsigned i = sizeof number; i < LEN; i++) {
		if (f->data[i] != (uint8_t)number) {
			r->damaged++;
			return;
		}
	}
	if (number >= FRAMES) {
		r->damaged++;
		return;
	}
	if (!r->received)
		r->first = now;
	r->last = now;
	r->late += r->received && number < r->order[r->received - 1];
	r->twice += seen[number]++;
	r->order[r->received++] = number;
}

/* Sends FRAMES frames, gap apart in virtual time, and takes what arrives. */
static struct result *run(const struct port_faults *faults, uint64_t gap)
{
	struct result *r = calloc(1, sizeof *r);
	uint8_t *seen = calloc(FRAMES, 1);
	struct port_stats stats;
	struct port *a, *b;

	assert_non_null(r);
	assert_non_null(seen);
	now = SD_S;
	assert_int_equal(port_sim_open_pair(faults, 1500, &now, &a, &b), 0);
	for (uint32_t i = 0; i < FRAMES + SD_S / gap; i++, now += gap) {
		struct port_frame in[BURST];
		unsigned n;

		if (i < FRAMES)
			send_one(a, i);
		while ((n = b->ops->rx(b, in, BURST))) {
			for (unsigned k = 0; k < n; k++)
				note(r, &in[k], seen);
			b->ops->rx_done(b, in, n);
		}
	}
	a->ops->stats(a, &stats);
	r->faults = stats.faults;
	port_close(a);
	port_close(b);
	free(seen);
	return r;
}

#define GAP (100 * SD_US)

static void does_nothing_unasked(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 1}, GAP);

	assert_int_equal(r->received, FRAMES);
	assert_int_equal(r->twice + r->late + r->damaged + r->faults, 0);
	assert_int_equal(r->first, SD_S);
	free(r);
}

static void loses(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 1, .loss = 0.1}, GAP);

	assert_in_range(FRAMES - r->received, FRAMES / 10 - 200, FRAMES / 10 + 200);
	assert_int_equal(r->twice + r->late + r->damaged, 0);
	assert_int_equal(r->faults, FRAMES - r->received);
	free(r);
}

static void loses_everything(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 1, .loss = 1}, GAP);

	assert_int_equal(r->received, 0);
	free(r);
}

static void duplicates(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 2, .duplicate = 0.05}, GAP);

	assert_in_range(r->twice, FRAMES / 20 - 150, FRAMES / 20 + 150);
	assert_int_equal(r->received, FRAMES + r->twice);
	assert_int_equal(r->damaged, 0);
	free(r);
}

static void reorders(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 3, .reorder = 0.05}, 50 * SD_US);

	assert_int_equal(r->received, FRAMES);
	assert_in_range(r->late, FRAMES / 20 - 150, FRAMES / 20 + 150);
	assert_int_equal(r->damaged + r->twice, 0);
	free(r);
}

static void corrupts(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 4, .corrupt = 0.05}, GAP);

	assert_int_equal(r->received + r->damaged, FRAMES);
	assert_in_range(r->damaged, FRAMES / 20 - 150, FRAMES / 20 + 150);
	free(r);
}

static void delays(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 5, .delay_ns = 3 * SD_MS}, GAP);

	assert_int_equal(r->received, FRAMES);
	assert_int_equal(r->first, SD_S + 3 * SD_MS);
	assert_int_equal(r->last, SD_S + 3 * SD_MS + (FRAMES - 1) * GAP);
	free(r);
	r = run(&(struct port_faults){.seed = 5, .delay_ns = 3 * SD_MS, .jitter_ns = 2 * SD_MS}, GAP);
	assert_int_equal(r->received, FRAMES);
	assert_int_equal(r->late, 0); /* jitter alone keeps the order */
	assert_in_range(r->last, SD_S + 3 * SD_MS + (FRAMES - 1) * GAP, SD_S + 5 * SD_MS + FRAMES * GAP);
	free(r);
}

/* 1000 bytes at 8 Mbit/s take 1 ms. */
static void keeps_to_a_rate(void **state)
{
	struct result *r = run(&(struct port_faults){.seed = 6, .rate_bps = 8000000}, 2 * SD_MS);

	assert_int_equal(r->received, FRAMES); /* below the rate: all, a transmission time later */
	assert_true(r->first >= SD_S + SD_MS);
	free(r);
	r = run(&(struct port_faults){.seed = 6, .rate_bps = 8000000}, 500 * SD_US);
	assert_in_range(
		r->received, FRAMES / 2, FRAMES / 2 + 60); /* twice the rate: half, and what the queue held */
	assert_in_range((r->last - r->first) / (r->received - 1), 990 * SD_US, 1010 * SD_US);
	free(r);
}

static void repeats_itself(void **state)
{
	struct port_faults f = {
		.seed = 7, .loss = 0.1, .duplicate = 0.1, .reorder = 0.1, .corrupt = 0.1, .jitter_ns = SD_MS};
	struct result *a = run(&f, GAP), *b = run(&f, GAP), *c;

	assert_memory_equal(a, b, sizeof *a);
	f.seed = 8;
	c = run(&f, GAP);
	assert_memory_not_equal(a->order, c->order, sizeof a->order);
	free(a);
	free(b);
	free(c);
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(does_nothing_unasked),
		cmocka_unit_test(loses),
		cmocka_unit_test(loses_everything),
		cmocka_unit_test(duplicates),
		cmocka_unit_test(reorders),
		cmocka_unit_test(corrupts),
		cmocka_unit_test(delays),
		cmocka_unit_test(keeps_to_a_rate),
		cmocka_unit_test(repeats_itself),
	};

	return cmocka_run_group_tests_name("fault", cases, NULL, NULL);
}

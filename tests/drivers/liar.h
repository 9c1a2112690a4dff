/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * liar: a vhost-user back end for a driver to be tested against, which keeps to the rules or breaks them, as
 * a random sequence has it.
 *
 * It answers in a thread of its own; the rings are touched by liar_step alone, which the test calls between
 * the driver's bursts. So what happens on them follows from the seed.
 */
#ifndef SD_TESTS_DRIVERS_LIAR_H
#define SD_TESTS_DRIVERS_LIAR_H

#include <stdbool.h>
#include <stdint.h>

struct liar;

struct liar_config {
	const char *path;  /* of the socket on which the driver listens */
	uint64_t features; /* that it offers */
	uint64_t seed;
	/* In a million steps. */
	unsigned lies;	   /* on the rings, at least; up to 256 times as many after some starts */
	unsigned hang_ups; /* of the connection */
	unsigned bad_talk; /* wrong or missing answers, of the messages after one */
};

struct liar_counts {
	uint64_t steps, delivered, taken, lies, hang_ups, dialogues;
};

/* Connects whenever it is not connected. NULL: no memory. */
struct liar *liar_start(const struct liar_config *c);
void liar_stop(struct liar *l);
/* Uses a few buffers of one ring, or lies about them. */
void liar_step(struct liar *l);
/* Ends the connection; the next one has answers of its own. */
void liar_hang_up(struct liar *l);
/* From now on it keeps to the rules; it forgets what it has heard so far and connects anew. */
void liar_reform(struct liar *l);
struct liar_counts liar_counts(struct liar *l);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* A window that never changes. */
#include "transport/cc.h"

struct fixed {
	uint32_t window;
};

static uint32_t fixed_open(void *state, uint32_t max)
{
	struct fixed *f = state;

	f->window = max;
	return f->window;
}

static uint32_t fixed_acked(void *state, const struct tp_cc_ack *a)
{
	return ((const struct fixed *)state)->window;
}

static uint32_t fixed_lost(void *state, uint64_t now, bool persistent)
{
	return ((const struct fixed *)state)->window;
}

static uint32_t fixed_same(void *state)
{
	return ((const struct fixed *)state)->window;
}

const struct tp_cc_ops tp_cc_fixed = {
	.size = sizeof(struct tp_cc_ops),
	.name = "fixed",
	.state_size = sizeof(struct fixed),
	.open = fixed_open,
	.acked = fixed_acked,
	.lost = fixed_lost,
	.undo = fixed_same,
	.idle = fixed_same,
};

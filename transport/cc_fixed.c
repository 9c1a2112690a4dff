/* SPDX-License-Identifier: BSD-3-Clause */
/* A window that never changes. */
#include "transport/cc.h"

struct fixed {
	float window;
};

static float fixed_open(void *state, uint32_t initial, uint32_t max)
{
	struct fixed *f = state;

	f->window = (float)max;
	return f->window;
}

static float fixed_acked(void *state, const struct tp_cc_ack *a)
{
	return ((const struct fixed *)state)->window;
}

static float fixed_lost(void *state, uint64_t now, bool persistent)
{
	return ((const struct fixed *)state)->window;
}

static float fixed_same(void *state)
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

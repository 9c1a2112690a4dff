/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flight: what is remembered of packets in flight. A connection has room for one of them in itself, which is
 * all that most ever need; whoever writes more gets a block, and gives it back when nothing has moved for a
 * while.
 *
 * A lone packet is never missing among others, nor taken for lost, since nothing that was sent after it can
 * have arrived: its bits are only read.
 */
#include <errno.h>
#include <stddef.h>

#include "transport/conn.h"

static const struct tp_flight none;

static size_t size_of(uint32_t packets)
{
	return offsetof(struct tp_flight, sent) + packets * sizeof(struct tp_sent);
}

void tp_flight_init(struct tp_conn *c)
{
	c->flight = (struct tp_flight *)&none;
	c->sent = &c->lone;
	c->sent_mask = 0;
}

int tp_flight_grow(struct tp_conn *c, uint32_t packets)
{
	struct tp *t = c->tp;
	struct tp_flight *bigger = t->ops.alloc(t->ctx, size_of(packets));

	if (!bigger)
		return -ENOMEM;
	bigger->sacked = c->flight->sacked;
	bigger->lost = c->flight->lost;
	bigger->loan = c->flight->loan;
	for (uint64_t psn = c->snd_una; psn < c->snd_nxt; psn++)
		bigger->sent[psn & (packets - 1)] = c->sent[psn & c->sent_mask];
	tp_flight_drop(c);
	c->flight = bigger;
	c->sent = bigger->sent;
	c->sent_mask = packets - 1;
	return 0;
}

void tp_flight_drop(struct tp_conn *c)
{
	if (c->flight != &none)
		tp_pool_discard(c->tp, c->flight, size_of(c->sent_mask + 1));
	tp_flight_init(c);
}

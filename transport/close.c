/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * close: the ways a connection ends. A FIN ends one direction and is acknowledged like data. A connection
 * that the application has given up (CLOSING) delivers what was written, then waits for the peer's FIN with
 * its rings already returned. Once both directions are over it is gone; a peer that missed our last
 * acknowledgement and repeats its FIN is told so by RESET (FINISHED), for as long as the id is remembered.
 * Its packets carry BYE, so that a peer that closes too need not wait for an answer from somebody who may
 * have gone.
 */
#include <errno.h>

#include "transport/conn.h"

/* A FIN may leave beside a packet that is in flight; without memory it waits for that one. */
static void want_fin(struct tp_conn *c)
{
	c->fin_wanted = true;
	if (!c->sent_mask && c->snd_una != c->snd_nxt)
		(void)tp_flight_grow(c, TP_SENT_MIN);
}

void tp_shutdown(struct tp_conn *c)
{
	if (c->fin_wanted)
		return;
	want_fin(c);
	tp_output_check(c);
}

void tp_stop_reading(struct tp_conn *c, bool reset_on_data)
{
	c->read_shut = true;
	c->reset_on_data = reset_on_data;
	c->lands = false;
	c->rcv_read = c->rcv_off;
	tp_receive_window(c);
	tp_receive_drained(c);
}

static bool sending_done(const struct tp_conn *c)
{
	return c->snd_acked == c->snd_end && (c->fin_acked || (c->fin_sent && c->peer_bye));
}

bool tp_close_progress(struct tp_conn *c)
{
	struct tp *t = c->tp;

	if (!sending_done(c))
		return true;
	if (c->lingering) {
		c->lingering = false;
		t->lingering--;
		tp_pool_ring_put(t, &c->snd);
		if (c->fin_acked)
			c->probe_at = NEVER;
	}
	if (!c->rcv_fin) {
		if (c->state_until == NEVER) {
			c->state_until = t->now + t->cfg.dead_timeout_ns;
			tp_conn_timer(c, c->state_until);
		}
		return true;
	}
	if (c->ack_now)
		return true; /* the peer's FIN is not acknowledged yet */
	tp_conn_finish(c);
	return false;
}

/* The application is gone, the connection goes on without it. */
static void leave(struct tp_conn *c)
{
	struct tp *t = c->tp;

	c->owned = false;
	c->user = NULL;
	c->read_shut = c->reset_on_data = true;
	want_fin(c);
	c->cork = c->nagle = false;
	c->lingering = true;
	t->lingering++;
	if (c->reorder) {
		tp_pool_reorder_put(t, c->reorder);
		c->reorder = NULL;
	}
	if (c->state == CONN_INIT_SENT)
		return; /* becomes CLOSING when it opens */
	tp_pool_ring_put(t, &c->rcv);
	tp_conn_set_state(c, CONN_CLOSING);
	if (c->fin_sent && !c->peer_bye && !(c->fin_acked && c->rcv_fin))
		tp_ack_soon(c); /* carries the BYE that the FIN did not */
	if (tp_close_progress(c))
		tp_output_check(c);
}

void tp_close(struct tp_conn *c, uint64_t now, bool abort)
{
	struct tp *t = c->tp;
	bool unread = c->rcv_off != c->rcv_read || c->landing.done;

	t->now = now;
	c->owned = c->lands = false;
	tp_settle(c);
	if (c->state == CONN_FAILED || (c->state == CONN_INIT_SENT && !c->snd_end))
		tp_conn_free(c);
	else if (abort || unread)
		tp_conn_abort(c, WIRE_RESET_ABORT, -ECONNABORTED);
	else
		leave(c);
	tp_pool_trim(t);
}

unsigned tp_lingering(const struct tp *t)
{
	return t->lingering;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * input: the way of a packet in. A packet of a connection finds it by the index in its connection id and one
 * comparison; control packets, which are rare, are checked by their trailer first.
 */
#include "transport/qp.h"

static void note_arrival(struct tp_conn *c, uint64_t now, const struct wire_packet *p, const struct tp_rx *rx)
{
	c->last_heard = now;
	c->packets_received++;
	if (c->snd_una == c->snd_nxt)
		c->progress = now;
	c->unconfirmed = false;
	if (p->type == WIRE_DATA || p->flags & WIRE_F_ACKREQ) {
		c->ts_recent = p->ts;
		c->ts_recent_at = now;
		c->ts_late = rx->late;
	}
	if (__builtin_expect(rx->ce != c->last_ce, 0)) {
		c->last_ce = rx->ce;
		tp_ack_soon(c);
	}
	c->astray = rx->astray;
	if (p->has_window)
		c->peer_astray = p->astray;
	c->ce_count = (uint16_t)(c->ce_count + rx->ce);
	if (__builtin_expect(p->flags & (WIRE_F_LIMITED | WIRE_F_BYE), 0)) {
		c->limited |= (p->flags & WIRE_F_LIMITED) != 0;
		c->peer_bye |= (p->flags & WIRE_F_BYE) != 0;
	}
}

static void process(struct tp_conn *c, uint64_t now, const struct wire_packet *p, const struct tp_rx *rx)
{
	struct tp *t = c->tp;
	unsigned events = 0;

	note_arrival(c, now, p, rx);
	if (!tp_ack_input(c, now, p, &events)) {
		t->stats.rx_out_of_window++;
		return;
	}
	if (p->type == WIRE_DATA) {
		if (!tp_receive_data(c, p, &events))
			return;
		if (c->read_shut)
			tp_receive_window(c);
	} else if (p->flags & WIRE_F_ACKREQ) {
		tp_ack_soon(c);
	}
	if (events)
		tp_conn_event(c, events);
	if (__builtin_expect(c->state >= CONN_CLOSING, 0) && !tp_close_progress(c))
		return;
	tp_output_check(c);
}

/* Of a connection that is not open, or not any more. */
static bool may_process(struct tp_conn *c, size_t len, const struct wire_packet *p, const struct tp_rx *rx)
{
	switch (c->state) {
	case CONN_INIT_SENT:
		return false; /* overtook INIT_ACK; it will be repeated */
	case CONN_INIT_RECEIVED:
		tp_setup_validated(c, p->echo);
		return true;
	case CONN_FAILED:
		tp_control_again(c->tp, c, len, rx);
		return false;
	default:
		return true;
	}
}

static void input_conn(struct tp *t, uint64_t now, const uint8_t *pkt, size_t len, const struct tp_rx *rx)
{
	struct tp_conn *c = tp_conn_by_cid(t, tp_wire_cid(pkt));
	struct wire_packet p;

	if (__builtin_expect(!c, 0)) {
		tp_control_unknown(t, pkt, len, rx);
		return;
	}
	if (c->crc) {
		if (!tp_wire_crc_ok(pkt, len)) {
			t->stats.rx_bad_crc++;
			return;
		}
		len -= WIRE_CRC_LEN;
	}
	if (!tp_wire_decode(pkt, len, &p)) {
		t->stats.rx_bad_header++;
		return;
	}
	if (__builtin_expect(c->state == CONN_OPEN, 1) || may_process(c, len, &p, rx))
		process(c, now, &p, rx);
}

static void input_control(struct tp *t, const uint8_t *pkt, size_t len, const struct tp_rx *rx)
{
	if (!tp_wire_crc_ok(pkt, len)) {
		t->stats.rx_bad_crc++;
		return;
	}
	switch (tp_wire_type(pkt)) {
	case WIRE_INIT:
	case WIRE_INIT_ACK:
	case WIRE_INIT_NAK:
	case WIRE_COOKIE:
		tp_setup_input(t, pkt, len, rx);
		break;
	case WIRE_RESET:
		tp_control_reset_input(t, pkt, len);
		break;
	case WIRE_FIND:
	case WIRE_FIND_REPLY:
		tp_find_input(t, pkt, len, rx);
		break;
	default:
		t->stats.rx_bad_header++;
	}
}

void tp_input(struct tp *t, uint64_t now, const uint8_t *pkt, size_t len, const struct tp_rx *rx)
{
	t->now = now;
	t->late = rx->late;
	t->stats.rx_packets++;
	t->stats.rx_bytes += len;
	if (len < WIRE_BASE_LEN) {
		t->stats.rx_bad_header++;
		return;
	}
	if (__builtin_expect(
		    pkt[0] == (WIRE_VERSION << 4 | WIRE_DATA) || pkt[0] == (WIRE_VERSION << 4 | WIRE_ACK), 1))
		input_conn(t, now, pkt, len, rx);
	else if (tp_wire_version(pkt) == WIRE_VERSION || tp_wire_type(pkt) == WIRE_INIT)
		input_control(t, pkt, len, rx);
	else
		t->stats.rx_bad_header++;
}

void tp_set_backlog(struct tp *t, unsigned part)
{
	t->backlog = (uint8_t)(part < UINT8_MAX ? part : UINT8_MAX);
}

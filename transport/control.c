/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * control: packets that belong to no connection (refusals, cookies, RESET, FIND) wait, already built, in a
 * bounded queue; a full queue drops them, as the network might. RESET lives here too: sent for connections we
 * give up, sent at a limited rate for connections nobody here knows, and believed only with the token that
 * the peer gave us when the connection was set up.
 */
#include <errno.h>

#include "transport/qp.h"

#define RESETS_PER_SECOND 10000

/* An unfilled entry at the end of the queue, its path leading back to rx (if that is given); NULL: no room or
 * no way. */
struct tp_control *tp_control_new(struct tp *t, const struct tp_rx *rx)
{
	struct tp_control *e;

	if (t->control_count == TP_CONTROL_QUEUE)
		return NULL;
	e = &t->control[(t->control_head + t->control_count) % TP_CONTROL_QUEUE];
	e->path = (struct tp_path){0}; /* no ports: it belongs to no connection */
	if (rx && !t->ops.reverse(t->ctx, rx, &e->path))
		return NULL;
	t->control_count++;
	return e;
}

void tp_control_token(const struct tp *t, uint64_t cid, uint8_t out[16])
{
	sd_siphash128(&t->key_node, &cid, sizeof cid, out);
}

static void put_reset(struct tp *t, struct tp_control *e, uint64_t cid, enum wire_reset why, uint32_t psn)
{
	struct wire_reset_packet r = {.reason = (uint8_t)why, .psn = psn, .src_cid = cid};

	tp_control_token(t, cid, r.token);
	e->len = (uint16_t)tp_wire_put_reset(e->data, &r);
	t->stats.resets_sent++;
}

void tp_control_reset(struct tp *t, const struct tp_conn *c, enum wire_reset why)
{
	struct tp_control *e = tp_control_new(t, NULL);

	if (!e)
		return; /* the peer's next packet finds no connection, which has the same effect */
	e->path = c->path;
	put_reset(t, e, c->cid, why, c->nak ? (uint32_t)c->rcv_nxt : 0);
}

static bool may_reset(struct tp *t)
{
	uint64_t gain = (t->now - t->reset_refill) / (SD_S / RESETS_PER_SECOND);

	if (gain) {
		t->reset_refill = t->now;
		t->reset_tokens =
			gain < TP_RESET_BURST - t->reset_tokens ? t->reset_tokens + gain : TP_RESET_BURST;
	}
	if (!t->reset_tokens)
		return false;
	t->reset_tokens--;
	return true;
}

static bool has_finished(const struct tp *t, uint64_t cid)
{
	uint32_t index = (uint32_t)cid & ((1u << TP_CID_BITS) - 1), high = (uint32_t)(cid >> 32);

	return index < t->max_conns && high && t->finished[index] == high;
}

static bool asks_nothing(const uint8_t *pkt)
{
	return tp_wire_type(pkt) == WIRE_ACK && !(pkt[1] & WIRE_F_ACKREQ);
}

/* The answer is shorter than what it answers, and is not sent for a packet that may have been damaged. */
void tp_control_unknown(struct tp *t, const uint8_t *pkt, size_t len, const struct tp_rx *rx)
{
	struct tp_control *e;
	enum wire_reset why;

	t->stats.rx_unknown_cid++;
	if (len <= WIRE_RESET_LEN + WIRE_CRC_LEN)
		return;
	if ((t->cfg.crc || tp_wire_type(pkt) > WIRE_ACK) && !tp_wire_crc_ok(pkt, len)) {
		t->stats.rx_bad_crc++;
		return;
	}
	why = has_finished(t, tp_wire_cid(pkt)) ? WIRE_RESET_FINISHED : WIRE_RESET_UNKNOWN;
	if (why == WIRE_RESET_FINISHED ? asks_nothing(pkt) : !may_reset(t))
		return;
	e = tp_control_new(t, rx);
	if (e)
		put_reset(t, e, tp_wire_cid(pkt), why, 0);
}

void tp_control_again(struct tp *t, const struct tp_conn *c, size_t len, const struct tp_rx *rx)
{
	struct tp_control *e;

	if (len <= WIRE_RESET_LEN + WIRE_CRC_LEN || !may_reset(t))
		return;
	e = tp_control_new(t, rx);
	if (e)
		put_reset(t, e, c->cid, (enum wire_reset)c->nak, (uint32_t)c->rcv_nxt);
}

/* Which of our packets the peer could not take. */
static void note_nak(struct tp_conn *c, const struct wire_reset_packet *r)
{
	int32_t ahead = (int32_t)(r->psn - (uint32_t)c->snd_una);

	if (!c->qp || (r->reason != WIRE_RESET_ACCESS && r->reason != WIRE_RESET_INVALID))
		return;
	if (ahead < 0 || (uint64_t)ahead >= c->snd_nxt - c->snd_una)
		return;
	c->qp->nak = r->reason;
	c->qp->nak_psn = c->snd_una + (uint32_t)ahead;
}

bool tp_control_same(const uint8_t a[16], const uint8_t b[16])
{
	uint8_t diff = 0;

	for (int i = 0; i < 16; i++) /* in constant time */
		diff |= a[i] ^ b[i];
	return !diff;
}

/* Both directions have ended, and only our FIN may not have arrived, or not even that. */
static bool over_anyway(const struct tp_conn *c, enum wire_reset why)
{
	if (c->qp && (c->qp->sq.head != c->qp->sq.tail || c->qp->in_send != c->qp->in_next))
		return false; /* something is asked for that has not been done */
	return c->rcv_fin && c->fin_sent && (c->snd_acked == c->snd_end || why == WIRE_RESET_FINISHED);
}

void tp_control_reset_input(struct tp *t, const uint8_t *pkt, size_t len)
{
	struct wire_reset_packet r;
	struct tp_conn *c;

	if (!tp_wire_get_reset(pkt, len, &r) || !r.src_cid) {
		t->stats.rx_bad_header++;
		return;
	}
	for (c = tp_conn_by_peer(t, r.src_cid, NULL); c; c = tp_conn_by_peer(t, r.src_cid, c))
		if (tp_control_same(c->peer_token, r.token))
			break;
	if (!c) {
		t->stats.rx_bad_token++;
	} else if (over_anyway(c, (enum wire_reset)r.reason) && c->owned) {
		c->snd_una = c->snd_nxt;
		c->snd_acked = c->snd_end;
		c->pipe = c->lost = c->sacked = 0;
		c->probe_at = NEVER;
		c->fin_acked = true;
		if (c->qp)
			tp_responder_forget(c->qp);
		tp_conn_event(c, TP_EV_DRAINED);
	} else {
		note_nak(c, &r);
		tp_conn_fail(c, -ECONNRESET);
	}
}

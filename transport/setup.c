/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * setup: INIT and INIT_ACK, one round trip. The responder's half-open connection takes part in nothing until
 * a packet with its id proves that the initiator is where it says it is; INIT_ACK is as long as INIT, and
 * only ever an answer to one, so nothing is amplified. While many connections are half open, an INIT gets a
 * cookie instead of state until it brings that back. The initiator makes up ids and nonce, so a
 * repeated INIT is recognised however often it comes, and a new one is a new connection, whatever else the
 * same ports may still have.
 */
#include <errno.h>

#include "transport/qp.h"

#define FIRST_RETRY	   (2 * SD_MS)
#define LAST_RETRY	   (50 * SD_MS)
#define PATIENT_ATTEMPTS   4  /* INITs that a full backlog ignores before it refuses */
#define COOKIE_BUCKET_BITS 32 /* a cookie's age is counted in 2^32 ns; two buckets are good */

int tp_connect(struct tp *t, uint64_t now, const struct tp_path *path, void *user, struct tp_conn **out)
{
	struct tp_conn *c;

	t->now = now;
	tp_pool_trim(t);
	if (path->max_payload < WIRE_MIN_PAYLOAD)
		return -EINVAL;
	if (!t->free_count)
		return -ENOBUFS;
	if (tp_pool_fill(t, 1, 1))
		return -ENOMEM;
	c = tp_conn_new(t, CONN_INIT_SENT);
	c->path = *path;
	c->owned = c->initiator = true;
	c->user = user;
	c->nonce = tp_random_id(t);
	c->state_until = now + t->cfg.connect_timeout_ns;
	c->init_interval = FIRST_RETRY;
	c->init_at = now + c->init_interval;
	c->init_due = true;
	tp_conn_mark(c);
	tp_conn_timer(c, c->init_at);
	*out = c;
	return 0;
}

bool tp_setup_timeout(struct tp_conn *c, uint64_t now)
{
	if (c->state_until <= now) {
		tp_conn_fail(c, -ETIMEDOUT);
		return false;
	}
	if (c->init_at <= now) {
		c->init_interval *= 2;
		if (c->init_interval > LAST_RETRY)
			c->init_interval = LAST_RETRY;
		c->init_at = now + c->init_interval;
		c->init_due = true;
		tp_conn_mark(c);
	}
	return true;
}

/* INIT or INIT_ACK of c. */
size_t tp_setup_build(struct tp_conn *c, uint64_t now, uint8_t *buf)
{
	const struct tp *t = c->tp;
	struct wire_init i = {
		.src_port = c->path.local.port,
		.dst_port = c->path.peer.port,
		.dst_cid = c->initiator ? 0 : c->peer_cid,
		.src_cid = c->cid,
		.nonce = c->nonce,
		.epoch = t->epoch,
		.window = c->rcv_limit,
		.isn = c->isn,
		.max_ack_delay_us = (uint32_t)(t->cfg.max_ack_delay_ns / SD_US),
		.max_payload = c->path.max_payload,
		.features = (uint16_t)((c->initiator ? t->cfg.crc : c->crc) |
				       (c->messages ? WIRE_FEAT_MESSAGES : 0)),
		.window_packets = c->rcv_window,
		.reads = c->reads,
		.ts = tp_timestamp(now),
	};

	if (c->initiator && c->attempt < UINT8_MAX)
		i.attempt = c->attempt++;
	else if (!c->initiator && c->ts_recent)
		i.echo = c->ts_recent + (uint32_t)((now - c->ts_recent_at) >> 7);
	tp_control_token(t, c->cid, i.token);
	if (c->state == CONN_INIT_SENT) /* later it is something else, which is nobody's business */
		memcpy(i.cookie, c->cookie, sizeof i.cookie);
	c->init_due = false;
	return tp_wire_put_init(buf, c->initiator ? WIRE_INIT : WIRE_INIT_ACK, &i);
}

/* Takes over what the other side said about itself. */
static void learn(struct tp_conn *c, const struct wire_init *i)
{
	uint16_t max = i->max_payload < c->path.max_payload ? i->max_payload : c->path.max_payload;

	c->path.max_payload = max;
	c->crc = i->features & WIRE_FEAT_CRC || (!c->initiator && c->tp->cfg.crc);
	c->rcv_nxt = c->rcv_high = i->isn;
	c->snd_limit = i->window < TP_RING_LIMIT ? i->window : TP_RING_LIMIT;
	c->snd_window = i->window_packets < c->tp->cfg.window_packets ? i->window_packets
								      : (uint16_t)c->tp->cfg.window_packets;
	c->peer_ack_delay = i->max_ack_delay_us * SD_US;
	if (c->peer_ack_delay > TP_MAX_RTO)
		c->peer_ack_delay = TP_MAX_RTO;
	c->peer_epoch = i->epoch;
	c->peer_reads = i->reads;
	memcpy(c->peer_token, i->token, sizeof c->peer_token);
	c->ts_recent = i->ts;
	c->ts_recent_at = c->last_heard = c->progress = c->tp->now;
	tp_conn_know_peer(c, i->src_cid);
	c->landing = (struct tp_landing){0}; /* no cookie any more */
	tp_pmtu_open(c);
}

static void refuse(struct tp *t, const struct wire_init *i, enum tp_code code, const struct tp_rx *rx)
{
	struct wire_nak n = {.code = (uint8_t)code, .dst_cid = i->src_cid, .nonce = i->nonce};
	struct tp_control *e = tp_control_new(t, rx);

	t->stats.inits_refused++;
	if (e)
		e->len = (uint16_t)tp_wire_put_nak(e->data, &n);
}

static void make_cookie(const struct tp *t, const struct wire_init *i, const struct tp_rx *rx,
	uint64_t bucket, uint8_t out[16])
{
	uint8_t in[16 + 16 + 4 + 8 + 8 + 8];

	memcpy(in, rx->peer->ip, 16);
	memcpy(in + 16, rx->local->ip, 16);
	be16_put(in + 32, i->src_port);
	be16_put(in + 34, i->dst_port);
	be64_put(in + 36, i->src_cid);
	be64_put(in + 44, i->nonce);
	be64_put(in + 52, bucket);
	sd_siphash128(&t->key_cookie, in, sizeof in, out);
}

static bool cookie_good(const struct tp *t, const struct wire_init *i, const struct tp_rx *rx)
{
	uint64_t bucket = t->now >> COOKIE_BUCKET_BITS;
	uint8_t want[16];

	make_cookie(t, i, rx, bucket, want);
	if (tp_control_same(want, i->cookie))
		return true;
	make_cookie(t, i, rx, bucket - 1, want);
	return tp_control_same(want, i->cookie);
}

static void send_cookie(struct tp *t, const struct wire_init *i, const struct tp_rx *rx)
{
	struct wire_cookie k = {.dst_cid = i->src_cid, .nonce = i->nonce};
	struct tp_control *e = tp_control_new(t, rx);

	if (!e)
		return;
	make_cookie(t, i, rx, t->now >> COOKIE_BUCKET_BITS, k.cookie);
	e->len = (uint16_t)tp_wire_put_cookie(e->data, &k);
	t->stats.cookies_sent++;
}

static struct tp_conn *known_init(struct tp *t, const struct wire_init *i, const struct tp_rx *rx)
{
	struct tp_conn *c = NULL;

	while ((c = tp_conn_by_peer(t, i->src_cid, c)))
		if (!c->initiator && c->nonce == i->nonce && c->path.peer.port == i->src_port &&
			sd_addr_same_ip(&c->path.peer, rx->peer))
			return c;
	return NULL;
}

static void respond(struct tp *t, struct tp_listener *l, const struct wire_init *i, const struct tp_rx *rx)
{
	struct tp_path path = {.local.port = i->dst_port, .peer.port = i->src_port};
	struct tp_conn *c;

	if (!t->ops.reverse(t->ctx, rx, &path) || path.max_payload < WIRE_MIN_PAYLOAD)
		return;
	if (!t->free_count) {
		refuse(t, i, TP_BUSY, rx);
		return;
	}
	c = tp_conn_new(t, CONN_INIT_RECEIVED);
	if (!c)
		return; /* the initiator asks again; tp_refill comes in between */
	c->path = path;
	c->nonce = i->nonce;
	if (l->messages)
		tp_conn_for_messages(c, l->reads);
	learn(c, i);
	c->listener = l;
	list_push_back(&l->half, &c->lnode);
	l->half_count++;
	c->init_due = true;
	tp_conn_mark(c);
	c->state_until = t->now + t->cfg.connect_timeout_ns + t->cfg.dead_timeout_ns / 4;
	tp_conn_timer(c, c->state_until);
}

/* May another connection of l be half open? Beyond the first limit an address must have proved itself, so
 * that whoever makes addresses up never shuts out those who do not. */
static bool may_respond(
	struct tp *t, const struct tp_listener *l, const struct wire_init *i, const struct tp_rx *rx)
{
	if (t->half_open < TP_HALF_OPEN_MAX && l->half_count < l->backlog)
		return true;
	if (!cookie_good(t, i, rx)) {
		send_cookie(t, i, rx);
		return false;
	}
	return t->half_open < 2 * TP_HALF_OPEN_MAX && l->half_count < 2 * l->backlog;
}

static void init_input(struct tp *t, const struct wire_init *i, const struct tp_rx *rx)
{
	struct sd_addr local = *rx->local;
	struct tp_listener *l;
	struct tp_conn *c = known_init(t, i, rx);

	if (c) { /* our answer was lost */
		c->init_due = true;
		tp_conn_mark(c);
		return;
	}
	local.port = i->dst_port;
	l = tp_listener_find(t, &local, i->features & WIRE_FEAT_MESSAGES);
	if (!l) {
		refuse(t, i, TP_NO_LISTENER, rx);
		return;
	}
	if (l->ready_count >= l->backlog) {
		if (i->attempt >= PATIENT_ATTEMPTS)
			refuse(t, i, TP_REFUSED, rx);
		return;
	}
	if (may_respond(t, l, i, rx))
		respond(t, l, i, rx);
}

void tp_setup_validated(struct tp_conn *c, uint32_t echo)
{
	tp_recovery_echo(c, echo);
	tp_conn_opened(c);
	c->tp->stats.conns_opened++;
	tp_listener_ready(c);
	tp_peer_check_restart(c);
}

static void init_ack_input(
	struct tp *t, const uint8_t *pkt, size_t len, const struct wire_init *i, const struct tp_rx *rx)
{
	struct tp_conn *c = tp_conn_by_cid(t, i->dst_cid);

	if (!c) {
		tp_control_unknown(t, pkt, len, rx);
		return;
	}
	if (!c->initiator || c->nonce != i->nonce) {
		t->stats.rx_bad_token++;
		return;
	}
	if (c->state != CONN_INIT_SENT) { /* repeated: the responder may not have heard from us yet */
		if (c->peer_cid == i->src_cid)
			tp_ack_soon(c);
		return;
	}
	if (c->messages != ((i->features & WIRE_FEAT_MESSAGES) != 0)) {
		t->stats.rx_bad_header++;
		return; /* not what was asked for */
	}
	learn(c, i);
	if (c->qp)
		tp_qp_agree(c->qp);
	tp_recovery_echo(c, i->echo);
	c->unconfirmed = true;
	c->init_due = false;
	tp_conn_opened(c);
	tp_recovery_arm(c, t->now);
	tp_ack_soon(c);
	t->stats.conns_opened++;
	tp_conn_event(c, TP_EV_OPEN);
}

static void nak_input(struct tp *t, const uint8_t *pkt, size_t len)
{
	struct wire_nak n;
	struct tp_conn *c;

	if (!tp_wire_get_nak(pkt, len, &n)) {
		t->stats.rx_bad_header++;
		return;
	}
	c = tp_conn_by_cid(t, n.dst_cid);
	if (!c || c->state != CONN_INIT_SENT || c->nonce != n.nonce) {
		t->stats.rx_bad_token++;
		return;
	}
	c->refusal = n.code;
	tp_conn_fail(c, -ECONNREFUSED);
}

static void cookie_input(struct tp *t, const uint8_t *pkt, size_t len)
{
	struct wire_cookie k;
	struct tp_conn *c;

	if (!tp_wire_get_cookie(pkt, len, &k)) {
		t->stats.rx_bad_header++;
		return;
	}
	c = tp_conn_by_cid(t, k.dst_cid);
	if (!c || c->state != CONN_INIT_SENT || c->nonce != k.nonce) {
		t->stats.rx_bad_token++;
		return;
	}
	if (!memcmp(c->cookie, k.cookie, sizeof c->cookie))
		return; /* a repeated answer to our first INIT; the one with the cookie is on its way */
	memcpy(c->cookie, k.cookie, sizeof c->cookie);
	c->init_due = true;
	tp_conn_mark(c);
}

void tp_setup_input(struct tp *t, const uint8_t *pkt, size_t len, const struct tp_rx *rx)
{
	struct wire_init i;

	switch (tp_wire_type(pkt)) {
	case WIRE_INIT_NAK:
		nak_input(t, pkt, len);
		return;
	case WIRE_COOKIE:
		cookie_input(t, pkt, len);
		return;
	}
	if (!tp_wire_get_init(pkt, len, &i)) {
		t->stats.rx_bad_header++;
		return;
	}
	if (tp_wire_version(pkt) != WIRE_VERSION)
		refuse(t, &i, TP_VERSION, rx);
	else if (tp_wire_type(pkt) == WIRE_INIT)
		init_input(t, &i, rx);
	else
		init_ack_input(t, pkt, len, &i, rx);
}

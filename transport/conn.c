/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conn: birth, death and names of connections, and the one timer each of them has. Whoever may end a
 * connection says so in its return value; nothing else keeps a pointer across a call.
 */
#include "transport/qp.h"

#include <errno.h>
#include <stddef.h>

#define INITIAL_WINDOW 12288u /* bytes */
#define KEEP_STEP      (250 * SD_MS)
#define KEEP_AT_ONCE   128u
#define KEEP_GAP       (2 * SD_MS) /* until the next so many */

static const char *const state_names[] = {
	[CONN_FREE] = "FREE",
	[CONN_INIT_SENT] = "INIT_SENT",
	[CONN_INIT_RECEIVED] = "INIT_RECEIVED",
	[CONN_OPEN] = "OPEN",
	[CONN_CLOSING] = "CLOSING",
	[CONN_FAILED] = "FAILED",
};

/* A window that a rack's switch takes without a word, whatever else comes its way: RFC 6928's, about. */
static uint32_t initial_window(const struct tp_conn *c)
{
	uint32_t initial = INITIAL_WINDOW / c->mss;

	return initial > 2 ? initial : 2;
}

void tp_conn_open_window(struct tp_conn *c, uint32_t window)
{
	uint32_t initial = initial_window(c);

	c->cwnd = 0;
	c->pace_gap = 0;
	tp_pace_window(c,
		c->tp->cc->open(c->cc_state, initial > window ? initial : window, c->tp->cfg.window_packets));
}

void tp_conn_idle(struct tp_conn *c)
{
	float window = c->tp->cc->idle(c->cc_state);

	if (window > (float)initial_window(c)) /* it has been opened with more */
		tp_conn_open_window(c, 0);
	else
		tp_pace_window(c, window);
}

uint64_t tp_random_id(struct tp *t)
{
	uint64_t n = ++t->id_counter;

	return sd_siphash64(&t->key_id, &n, sizeof n);
}

static struct tp_conn **peer_bucket(struct tp *t, uint64_t peer_cid)
{
	return &t->peers[sd_siphash64(&t->key_hash, &peer_cid, sizeof peer_cid) & t->peers_mask];
}

void tp_conn_know_peer(struct tp_conn *c, uint64_t peer_cid)
{
	struct tp_conn **bucket = peer_bucket(c->tp, peer_cid);

	c->peer_cid = peer_cid;
	c->hash_next = *bucket;
	*bucket = c;
}

struct tp_conn *tp_conn_by_peer(struct tp *t, uint64_t peer_cid, struct tp_conn *after)
{
	struct tp_conn *c = after ? after->hash_next : *peer_bucket(t, peer_cid);

	while (c && c->peer_cid != peer_cid)
		c = c->hash_next;
	return c;
}

static void forget_peer(struct tp_conn *c)
{
	struct tp_conn **p;

	if (!c->peer_cid)
		return;
	for (p = peer_bucket(c->tp, c->peer_cid); *p != c;)
		p = &(*p)->hash_next;
	*p = c->hash_next;
	c->peer_cid = 0;
}

static void init_fields(struct tp_conn *c, struct tp *t)
{
	const struct tp_config *cfg = &t->cfg;

	c->tp = t;
	c->cwnd = 1; /* until it is known how large packets are */
	c->rcv_window = (uint16_t)cfg->window_packets;
	tp_flight_init(c);
	c->isn = (uint32_t)tp_random_id(t);
	c->snd_una = c->snd_nxt = c->recovery_end = c->round_end = c->ackreq_psn = c->isn;
	c->snd_max = c->rcv_max = cfg->ring_max;
	c->rcv_limit = c->rcv.size;
	c->keep_idle = cfg->keepalive_ns;
	c->keep_interval = cfg->dead_timeout_ns / 5;
	c->keep_probes = 5;
	c->user_timeout = cfg->dead_timeout_ns;
	c->probe_at = c->ack_at = c->reorder_at = c->state_until = c->init_at = c->cork_until = c->keep_at =
		c->pace_at = NEVER;
	c->probe_interval = 2 * SD_MS;
	c->last_heard = c->progress = c->last_send = c->rest_since = t->now;
	list_init(&c->out);
	list_init(&c->ack_node);
	list_init(&c->lnode);
	tp_timer_init(&c->timer);
}

struct tp_conn *tp_conn_new(struct tp *t, enum conn_state state)
{
	struct tp_ring ring;
	struct tp_conn *c;
	uint32_t index;

	if (!t->free_count)
		return NULL;
	c = t->pool.conns;
	if (!c || !tp_pool_ring(t, &ring)) {
		t->stats.pool_empty++;
		return NULL;
	}
	tp_pool_conn(t);
	index = t->free_index[t->free_head];
	t->free_head = (t->free_head + 1) % t->max_conns;
	t->free_count--;
	memset(c, 0, sizeof *c);
	c->rcv = ring;
	init_fields(c, t);
	do
		c->cid = (tp_random_id(t) & ~((1ull << (TP_CID_BITS + TP_ENGINE_BITS)) - 1)) |
			 (uint64_t)t->cfg.engine << TP_CID_BITS | index;
	while (!(c->cid >> (TP_CID_BITS + TP_ENGINE_BITS)));
	t->slots[index] = c;
	t->conn_count++;
	tp_conn_set_state(c, state);
	return c;
}

/* The one place where the state changes. */
void tp_conn_set_state(struct tp_conn *c, enum conn_state state)
{
	struct tp *t = c->tp;

	if (c->state == CONN_INIT_RECEIVED)
		t->half_open--;
	if (state == CONN_INIT_RECEIVED)
		t->half_open++;
	c->state = (uint8_t)state;
}

void tp_conn_for_messages(struct tp_conn *c, unsigned reads)
{
	c->messages = true;
	c->reads = (uint16_t)reads;
	c->rcv_limit = 0;
	tp_pool_ring_put(c->tp, &c->rcv);
}

/* Takes it off everything that packets and time can reach it by; but its peer may still ask why. */
static void detach(struct tp_conn *c, bool all)
{
	struct tp *t = c->tp;
	uint32_t index = (uint32_t)c->cid & ((1u << TP_CID_BITS) - 1);

	if (t->slots[index] == c && all) {
		t->slots[index] = NULL;
		t->free_index[(t->free_head + t->free_count++) % t->max_conns] = index;
		t->conn_count--;
	}
	forget_peer(c);
	tp_timer_set(&t->wheel, &c->timer, NEVER);
	list_remove(&c->out);
	tp_ack_cancel(c);
	c->queued = false;
	c->ack_now = c->ping_due = c->probe_due = c->init_due =
		false; /* nor do its application's calls queue it */
	if (c->lingering) {
		c->lingering = false;
		t->lingering--;
	}
	if (c->reorder) {
		tp_pool_reorder_put(t, c->reorder);
		c->reorder = NULL;
	}
	tp_pool_ring_put(t, &c->snd);
	tp_flight_drop(c);
	c->lent = false;
}

void tp_conn_free(struct tp_conn *c)
{
	struct tp *t = c->tp;

	detach(c, true);
	if (c->listener && c->state == CONN_INIT_RECEIVED)
		c->listener->half_count--;
	else if (c->listener)
		c->listener->ready_count--;
	list_remove(&c->lnode);
	tp_conn_set_state(c, CONN_FREE);
	tp_pool_ring_put(t, &c->rcv);
	tp_pool_conn_put(t, c);
}

void tp_conn_finish(struct tp_conn *c)
{
	c->tp->finished[(uint32_t)c->cid & ((1u << TP_CID_BITS) - 1)] = (uint32_t)(c->cid >> 32);
	tp_conn_free(c);
}

void tp_conn_fail(struct tp_conn *c, int error)
{
	bool held = c->owned || (c->listener && c->state != CONN_INIT_RECEIVED);

	if (c->state == CONN_FAILED)
		return;
	c->tp->stats.conns_failed++;
	if (!held) {
		tp_conn_free(c);
		return;
	}
	detach(c, !c->nak);
	tp_conn_set_state(c, CONN_FAILED);
	c->error = error;
	c->snd_acked = c->snd_sent = c->snd_end;
	if (c->qp)
		tp_qp_failed(c->qp, error);
	tp_conn_event(c, TP_EV_FAILED);
}

void tp_conn_abort(struct tp_conn *c, enum wire_reset why, int error)
{
	if (why == WIRE_RESET_ACCESS || why == WIRE_RESET_INVALID)
		c->nak = (uint8_t)why;
	if (c->peer_cid)
		tp_control_reset(c->tp, c, why);
	tp_conn_fail(c, error);
}

/*
 * Silent connections are looked at together: whoever sleeps is woken for all of them at once. A step of a
 * quarter of a second, or an eighth of the time that was asked for, is no matter. The one that has connected
 * looks a step later, when the other end has just asked whether it lives.
 */
static uint64_t keepalive_time(const struct tp_conn *c, uint64_t since)
{
	uint64_t at = since + c->keep_idle, step = c->keep_idle / 8;

	if (step > KEEP_STEP)
		step = KEEP_STEP;
	return step ? at + step - at % step + (c->initiator ? step : 0) : at;
}

/* But no more at once than find room in any queue. False: it has to wait for its turn, which is in keep_at.
 */
static bool has_its_turn(struct tp_conn *c, uint64_t now)
{
	struct tp *t = c->tp;

	if (t->keep_turn < now) {
		t->keep_turn = now;
		t->keep_turns = 0;
	}
	if (t->keep_turns++ == KEEP_AT_ONCE) {
		t->keep_turn += KEEP_GAP;
		t->keep_turns = 1;
	}
	c->keep_queued = t->keep_turn > now;
	if (c->keep_queued)
		c->keep_at = t->keep_turn;
	return !c->keep_queued;
}

void tp_conn_opened(struct tp_conn *c)
{
	c->init_at = c->state_until = NEVER;
	tp_conn_set_state(c, c->lingering ? CONN_CLOSING : CONN_OPEN);
	if (c->keep_idle) {
		c->keep_at = keepalive_time(c, c->tp->now);
		tp_conn_timer(c, c->keep_at);
	}
	tp_cork_start(c);
}

/* Nothing more is expected of the peer, and it may have forgotten us in good order. Answers may follow its
 * FIN. */
static bool expects_nothing(const struct tp_conn *c)
{
	if (!c->rcv_fin || !c->messages)
		return c->rcv_fin;
	return c->fin_acked && c->qp && c->qp->sq.head == c->qp->sq.tail;
}

/* Asks a silent peer for a sign of life; false: the peer is taken for dead and the connection has ended.
 * Hearing from it costs nothing per packet: whether anything was heard is looked up here. */
static bool keepalive(struct tp_conn *c, uint64_t now)
{
	bool waited = c->keep_queued;

	c->keep_queued = false;
	if (expects_nothing(c)) {
		c->keep_at = NEVER;
		return true;
	}
	if (c->keep_sent && c->last_heard >= c->keep_probed)
		c->keep_sent = 0;
	if (!c->keep_sent && c->last_heard + c->keep_idle > now) {
		c->keep_at = keepalive_time(c, c->last_heard);
		return true;
	}
	if (c->probe_at != NEVER) { /* data in flight is probed for faster than this */
		c->keep_at = keepalive_time(c, now);
		return true;
	}
	if (!waited && !has_its_turn(c, now))
		return true;
	if (c->keep_sent >= c->keep_probes) {
		c->tp->stats.timeouts++;
		tp_conn_abort(c, WIRE_RESET_TIMEOUT, -ETIMEDOUT);
		return false;
	}
	c->keep_sent++;
	c->keep_probed = now;
	c->keep_at = now + c->keep_interval;
	c->ping_due = true;
	tp_conn_mark(c);
	return true;
}

static bool timeout_open(struct tp_conn *c, uint64_t now)
{
	if (c->state_until <= now) { /* the peer never sent its FIN */
		tp_conn_free(c);
		return false;
	}
	if ((c->probe_at <= now || c->reorder_at <= now) && !tp_recovery_timeout(c, now))
		return false;
	if (c->pace_at <= now)
		tp_pace_timeout(c);
	if (c->cork_until <= now) {
		c->cork_until = NEVER;
		c->cork_pushed = c->snd_end != c->snd_sent;
		tp_output_check(c);
	}
	return c->keep_at > now || keepalive(c, now);
}

static uint64_t earliest(const struct tp_conn *c)
{
	const uint64_t due[] = {
		c->reorder_at, c->state_until, c->init_at, c->cork_until, c->keep_at, c->pace_at};
	uint64_t min = c->probe_at;

	for (unsigned i = 0; i < sizeof due / sizeof *due; i++)
		if (due[i] < min)
			min = due[i];
	return min;
}

void tp_conn_timeout(struct tp_conn *c, uint64_t now)
{
	bool alive = true;

	switch (c->state) {
	case CONN_INIT_SENT:
	case CONN_INIT_RECEIVED:
		alive = tp_setup_timeout(c, now);
		break;
	case CONN_OPEN:
	case CONN_CLOSING:
		alive = timeout_open(c, now);
		break;
	case CONN_FREE:
	case CONN_FAILED:
		alive = false; /* has no timer */
		break;
	}
	if (alive)
		tp_conn_timer(c, earliest(c));
}

enum tp_code tp_connect_code(const struct tp_conn *c)
{
	return (enum tp_code)c->refusal;
}

void tp_set_user(struct tp_conn *c, void *user)
{
	c->user = user;
}

bool tp_is_open(const struct tp_conn *c)
{
	return c->state == CONN_OPEN;
}

int tp_error(const struct tp_conn *c)
{
	return c->error;
}

void tp_set_keepalive(
	struct tp_conn *c, uint64_t now, uint64_t idle_ns, uint64_t interval_ns, unsigned probes)
{
	c->keep_idle = idle_ns;
	c->keep_interval = interval_ns ? interval_ns : c->tp->cfg.dead_timeout_ns / 5;
	c->keep_probes = (uint16_t)(probes > UINT16_MAX ? UINT16_MAX : probes ? probes : 1);
	c->keep_sent = 0;
	c->keep_at = NEVER;
	if (idle_ns && (c->state == CONN_OPEN || c->state == CONN_CLOSING)) {
		c->keep_at = keepalive_time(c, now);
		tp_conn_timer(c, c->keep_at);
	}
}

void tp_set_user_timeout(struct tp_conn *c, uint64_t ns)
{
	c->user_timeout = ns ? ns : c->tp->cfg.dead_timeout_ns;
}

void tp_info(const struct tp_conn *c, struct tp_info *out)
{
	*out = (struct tp_info){
		.local = c->path.local,
		.peer = c->path.peer,
		.state = state_names[c->state],
		.bytes_sent = c->snd_sent,
		.bytes_acked = c->snd_acked,
		.bytes_received = c->rcv_off,
		.packets_sent = c->packets_sent,
		.packets_received = c->packets_received,
		.retransmits = c->retransmits,
		.srtt_ns = c->srtt,
		.min_rtt_ns = c->min_rtt,
		.rto_ns = tp_recovery_rto(c, 0),
		.cwnd = c->cwnd,
		.in_flight = c->pipe,
		.mss = c->mss,
		.payload = (uint16_t)tp_payload_with(c, c->mss),
		.send_ring = c->snd.size || c->messages ? c->snd.size : c->tp->cfg.ring_min,
		.recv_ring = c->rcv.size,
		.send_queued = (uint32_t)(c->snd_end - c->snd_acked),
		.recv_queued = (uint32_t)(c->rcv_off - c->rcv_read),
	};
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * save: all connections of a struct tp, for another process to go on with. A peer notices a pause and nothing
 * else: ids, numbers, keys and timers are the same, and so are the bytes that are in the rings.
 *
 * What is saved has no version number of its own: it begins with a digest of the fields' names and sizes, and
 * a transport with others does not take it.
 */
#include <errno.h>

#include "base/fnv.h"
#include "transport/conn.h"

/* Everything in struct tp_conn but what is in memory elsewhere, or follows from the rest (LEFT_OUT). */
#define FIELDS(X)                                                                                            \
	X(cid)                                                                                               \
	X(state)                                                                                             \
	X(crc)                                                                                               \
	X(queued)                                                                                            \
	X(ack_now)                                                                                           \
	X(rcv_fin)                                                                                           \
	X(read_shut)                                                                                         \
	X(last_ce)                                                                                           \
	X(astray)                                                                                            \
	X(peer_astray)                                                                                       \
	X(astray_tries)                                                                                      \
	X(good_rounds)                                                                                       \
	X(limited)                                                                                           \
	X(ack_pending)                                                                                       \
	X(ce_count)                                                                                          \
	X(ts_recent)                                                                                         \
	X(ts_recent_at)                                                                                      \
	X(ts_late)                                                                                           \
	X(last_heard)                                                                                        \
	X(rcv_nxt)                                                                                           \
	X(rcv_off)                                                                                           \
	X(rcv_read)                                                                                          \
	X(rcv_limit)                                                                                         \
	X(rcv_window)                                                                                        \
	X(rcv_piece)                                                                                         \
	X(mss)                                                                                               \
	X(cwnd)                                                                                              \
	X(snd_una)                                                                                           \
	X(snd_nxt)                                                                                           \
	X(snd_acked)                                                                                         \
	X(snd_sent)                                                                                          \
	X(snd_end)                                                                                           \
	X(snd_limit)                                                                                         \
	X(sent_mask)                                                                                         \
	X(snd_window)                                                                                        \
	X(lost)                                                                                              \
	X(pipe)                                                                                              \
	X(sacked)                                                                                            \
	X(probes)                                                                                            \
	X(want_writable)                                                                                     \
	X(cork)                                                                                              \
	X(cork_pushed)                                                                                       \
	X(nagle)                                                                                             \
	X(fin_wanted)                                                                                        \
	X(fin_sent)                                                                                          \
	X(fin_acked)                                                                                         \
	X(probe_due)                                                                                         \
	X(ping_due)                                                                                          \
	X(init_due)                                                                                          \
	X(recovering)                                                                                        \
	X(probe_at)                                                                                          \
	X(ack_at)                                                                                            \
	X(peer_cid)                                                                                          \
	X(srtt)                                                                                              \
	X(rttvar)                                                                                            \
	X(min_rtt)                                                                                           \
	X(probe_interval)                                                                                    \
	X(round_end)                                                                                         \
	X(ackreq_psn)                                                                                        \
	X(peer_ce)                                                                                           \
	X(ask_every)                                                                                         \
	X(bad_rounds)                                                                                        \
	X(round_acked)                                                                                       \
	X(round_marked)                                                                                      \
	X(cwnd_limited)                                                                                      \
	X(owned)                                                                                             \
	X(rack_time)                                                                                         \
	X(rack_psn)                                                                                          \
	X(rack_rtt)                                                                                          \
	X(highest)                                                                                           \
	X(reorder_at)                                                                                        \
	X(min_rtt_new)                                                                                       \
	X(min_rtt_old)                                                                                       \
	X(min_rtt_since)                                                                                     \
	X(answered_probes)                                                                                   \
	X(recovery_end)                                                                                      \
	X(reorder_steps)                                                                                     \
	X(undo_left)                                                                                         \
	X(undo_possible)                                                                                     \
	X(progress)                                                                                          \
	X(last_send)                                                                                         \
	X(peer_ack_delay)                                                                                    \
	X(rcv_high)                                                                                          \
	X(cc_state)                                                                                          \
	X(state_until)                                                                                       \
	X(init_at)                                                                                           \
	X(init_interval)                                                                                     \
	X(cork_until)                                                                                        \
	X(keep_idle)                                                                                         \
	X(keep_interval)                                                                                     \
	X(newly_lost)                                                                                        \
	X(pace_gap)                                                                                          \
	X(pace_at)                                                                                           \
	X(keep_at)                                                                                           \
	X(keep_probed)                                                                                       \
	X(keep_queued)                                                                                       \
	X(user_timeout)                                                                                      \
	X(nonce)                                                                                             \
	X(peer_epoch)                                                                                        \
	X(isn)                                                                                               \
	X(snd_max)                                                                                           \
	X(rcv_max)                                                                                           \
	X(keep_probes)                                                                                       \
	X(keep_sent)                                                                                         \
	X(attempt)                                                                                           \
	X(refusal)                                                                                           \
	X(unconfirmed)                                                                                       \
	X(initiator)                                                                                         \
	X(reset_on_data)                                                                                     \
	X(peer_bye)                                                                                          \
	X(lingering)                                                                                         \
	X(rest_seen)                                                                                         \
	X(rest_since)                                                                                        \
	X(error)                                                                                             \
	X(peer_token)                                                                                        \
	X(cookie)                                                                                            \
	X(packets_sent)                                                                                      \
	X(packets_received)                                                                                  \
	X(retransmits)                                                                                       \
	X(path)

/* Queue pairs are not handed over: their memory is the process's. */
#define LEFT_OUT(X)                                                                                          \
	X(messages)                                                                                          \
	X(qp)                                                                                                \
	X(nak)                                                                                               \
	X(reads)                                                                                             \
	X(peer_reads)                                                                                        \
	X(rcv)                                                                                               \
	X(tp)                                                                                                \
	X(snd)                                                                                               \
	X(sent)                                                                                              \
	X(try_mss)                                                                                           \
	X(piece)                                                                                             \
	X(piece_due)                                                                                         \
	X(lands)                                                                                             \
	X(lent)                                                                                              \
	X(landing)                                                                                           \
	X(out)                                                                                               \
	X(user)                                                                                              \
	X(reorder)                                                                                           \
	X(timer)                                                                                             \
	X(ack_node)                                                                                          \
	X(listener)                                                                                          \
	X(lnode)                                                                                             \
	X(hash_next)                                                                                         \
	X(free_next)                                                                                         \
	X(flight)                                                                                            \
	X(rests)                                                                                             \
	X(lone)

struct field {
	const char *name;
	uint16_t at, size;
	bool is_bool;
};

#define MEMBER(f) ((struct tp_conn *)0)->f
#define FIELD(f)                                                                                             \
	{#f, offsetof(struct tp_conn, f), sizeof(MEMBER(f)),                                                 \
		_Generic(MEMBER(f), bool                                                                     \
			 : true, default                                                                     \
			 : false)},
static const struct field fields[] = {FIELDS(FIELD)}, left_out[] = {LEFT_OUT(FIELD)};

#define N_FIELDS   (sizeof fields / sizeof *fields)
#define N_LEFT_OUT (sizeof left_out / sizeof *left_out)

bool tp_save_covers(size_t at)
{
	for (unsigned i = 0; i < N_FIELDS; i++)
		if (at - fields[i].at < fields[i].size)
			return true;
	for (unsigned i = 0; i < N_LEFT_OUT; i++)
		if (at - left_out[i].at < left_out[i].size)
			return true;
	return false;
}

/* --- what both sides have to agree on --- */

#define KEYS(t)                                                                                              \
	{                                                                                                    \
		&(t)->key_id, &(t)->key_hash, &(t)->key_cookie, &(t)->key_find, &(t)->key_node               \
	}

uint64_t tp_save_format(void)
{
	const uint64_t sizes[] = {TP_BITS, TP_CID_BITS, TP_ENGINE_BITS, sizeof((struct tp *)0)->peer_hosts,
		sizeof(struct tp_stats), sizeof(struct tp_sent), sizeof(struct tp_early),
		sizeof(struct tp_control)};
	uint64_t h = sd_fnv(SD_FNV_BASIS, sizes, sizeof sizes);

	for (unsigned i = 0; i < N_FIELDS; i++) {
		h = sd_fnv(h, fields[i].name, strlen(fields[i].name) + 1);
		h = sd_fnv(h, &fields[i].size, sizeof fields[i].size);
	}
	return h;
}

struct cc_name {
	char text[16];
};

static struct cc_name name_of_cc(const struct tp *t)
{
	struct cc_name n = {{0}};

	strncpy(n.text, t->cc->name, sizeof n.text - 1);
	return n;
}

/* --- saving --- */

static void save_range(struct sd_pack *p, const struct tp_ring *r, uint64_t from, uint64_t to)
{
	size_t len = to - from, first;
	const uint8_t *at;

	if (!len)
		return;
	first = tp_ring_at(r, from, len, &at);
	sd_pack_bytes(p, at, first);
	sd_pack_bytes(p, r->data, len - first);
}

static uint64_t early_offset(const struct tp_conn *c, const struct tp_early *e)
{
	return c->rcv_off + (uint32_t)(e->off - (uint32_t)c->rcv_off);
}

/* Packets that came early; each is ahead of rcv_off. */
static void save_reorder(struct sd_pack *p, const struct tp_conn *c)
{
	const struct tp_reorder *r = c->reorder;
	uint64_t psn;

	sd_pack_u32(p, r != NULL);
	if (!r)
		return;
	sd_pack_value(p, r->have);
	for (psn = tp_bits_next(&r->have, c->rcv_nxt, c->rcv_high); psn < c->rcv_high;
		psn = tp_bits_next(&r->have, psn + 1, c->rcv_high)) {
		const struct tp_early *e = &r->early[psn % TP_BITS];

		sd_pack_value(p, *e);
		if (c->rcv.data && !c->read_shut)
			save_range(p, &c->rcv, early_offset(c, e), early_offset(c, e) + e->len);
	}
}

static void save_conn(struct sd_pack *p, const struct tp_conn *c)
{
	static const struct sd_addr none;

	for (unsigned i = 0; i < N_FIELDS; i++)
		sd_pack_bytes(p, (const char *)c + fields[i].at, fields[i].size);
	sd_pack_u64(p, c->owned ? tp_saved_name(c) : 0);
	sd_pack_u64(p, c->timer.due);
	sd_pack_value(p, *(c->listener ? &c->listener->local : &none));
	sd_pack_u32(p, c->snd.size);
	sd_pack_u32(p, c->rcv.size);
	if (c->snd.data)
		save_range(p, &c->snd, c->snd_acked, c->snd_end);
	if (c->rcv.data)
		save_range(p, &c->rcv, c->rcv_read, c->rcv_off);
	sd_pack_bytes(p, c->sent, (c->sent_mask + 1) * sizeof *c->sent);
	sd_pack_value(p, c->flight->sacked);
	sd_pack_value(p, c->flight->lost);
	save_reorder(p, c);
}

/* Packets without a connection. */
static void save_control(struct sd_pack *p, const struct tp *t)
{
	sd_pack_u32(p, t->control_count);
	for (unsigned i = 0; i < t->control_count; i++)
		sd_pack_value(p, t->control[(t->control_head + i) % TP_CONTROL_QUEUE]);
}

static void save_each(struct tp_conn *c, void *pack)
{
	if (c->messages)
		return;
	tp_settle(c);
	sd_pack_u32(pack, 1);
	save_conn(pack, c);
}

void tp_save(struct tp *t, uint64_t now, struct sd_pack *p)
{
	const struct sd_sipkey *keys[] = KEYS(t);

	sd_pack_u64(p, tp_save_format());
	sd_pack_u64(p, t->max_conns);
	sd_pack_u64(p, t->cfg.engine);
	sd_pack_bytes(p, name_of_cc(t).text, sizeof(struct cc_name));
	sd_pack_u64(p, now);
	for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
		sd_pack_value(p, *keys[i]);
	sd_pack_value(p, t->epoch);
	sd_pack_value(p, t->id_counter);
	sd_pack_value(p, t->peer_hosts);
	sd_pack_value(p, t->stats);
	sd_pack_bytes(p, t->finished, t->max_conns * sizeof *t->finished);
	/* The index that has been free for longest. */
	sd_pack_u32(p, t->free_count ? t->free_index[t->free_head] : 0);
	save_control(p, t);
	tp_pool_each(t, save_each, p);
	sd_pack_u32(p, 0);
}

/* --- restoring --- */

static uint32_t index_of(const struct tp_conn *c)
{
	return (uint32_t)c->cid & ((1u << TP_CID_BITS) - 1);
}

/* Would it be safe to go on with these? What else may be wrong does harm only to the connection. */
static bool is_sane(const struct tp *t, const struct tp_conn *c)
{
	uint64_t in_flight = c->snd_nxt - c->snd_una, room = c->sent_mask + 1ull;

	if (c->state == CONN_FREE || c->state > CONN_FAILED)
		return false;
	if ((room != 1 && room < TP_SENT_MIN) || room > TP_BITS || room & (room - 1))
		return false;
	if (c->state != CONN_FAILED && in_flight > room)
		return false;
	if (c->path.hdr_len > sizeof c->path.hdr || c->path.max_payload < WIRE_MIN_PAYLOAD)
		return false;
	if (c->rcv_window > TP_BITS || c->snd_window > TP_BITS)
		return false;
	if (c->state == CONN_FAILED)
		return true;
	/* Who connects learns the size of packets from the answer. */
	if (c->state != CONN_INIT_SENT &&
		(c->mss < WIRE_MIN_PAYLOAD / 2 || tp_payload_with(c, c->mss) > c->path.max_payload))
		return false;
	return index_of(c) < t->max_conns && !t->slots[index_of(c)];
}

static bool is_size(uint16_t payload)
{
	return !payload || payload >= WIRE_MIN_PAYLOAD;
}

/* Connections to come have packets of these sizes. */
static void restore_peers(struct tp *t, struct sd_unpack *u)
{
	sd_unpack_value(u, t->peer_hosts);
	for (unsigned i = 0; i < TP_PEER_HOSTS; i++)
		sd_unpack_check(u, is_size(t->peer_hosts[i].payload) && is_size(t->peer_hosts[i].probed));
}

static bool restore_ring(struct tp *t, struct sd_unpack *u, struct tp_ring *r, uint32_t size)
{
	if (!sd_unpack_check(u, !size || (size >= 4096 && size <= TP_RING_LIMIT && !(size & (size - 1)))))
		return false;
	if (size == t->cfg.ring_min && tp_pool_ring(t, r))
		return true;
	r->size = size;
	r->data = size ? t->ops.alloc(t->ctx, size) : NULL;
	return !size || r->data;
}

static void restore_range(struct sd_unpack *u, const struct tp_ring *r, uint64_t from, uint64_t to)
{
	const void *bytes;

	if (from == to || !sd_unpack_check(u, to - from <= r->size))
		return;
	bytes = sd_unpack_view(u, to - from);
	if (bytes)
		tp_ring_put(r, from, bytes, to - from);
}

/* False: no memory. */
static bool restore_sent(struct sd_unpack *u, struct tp_conn *c)
{
	uint32_t room = c->sent_mask + 1;
	struct tp_bits unused;

	tp_flight_init(c);
	if (room > 1 && tp_flight_grow(c, room))
		return false;
	sd_unpack_bytes(u, c->sent, room * sizeof *c->sent);
	sd_unpack_bytes(u, room > 1 ? &c->flight->sacked : &unused, sizeof unused);
	sd_unpack_bytes(u, room > 1 ? &c->flight->lost : &unused, sizeof unused);
	return true;
}

static bool restore_early(struct sd_unpack *u, struct tp_conn *c, uint64_t psn)
{
	struct tp_early *e = &c->reorder->early[psn % TP_BITS];
	uint64_t from;

	sd_unpack_value(u, *e);
	if (!c->rcv.data || c->read_shut)
		return !u->failed;
	from = early_offset(c, e);
	if (from + e->len - c->rcv_read <= c->rcv.size)
		restore_range(u, &c->rcv, from, from + e->len);
	else /* it does not fit what has come since, which ends the connection when its turn has come */
		sd_unpack_view(u, e->len);
	return !u->failed;
}

/* False: no memory. */
static bool restore_reorder(struct tp *t, struct sd_unpack *u, struct tp_conn *c)
{
	if (!sd_unpack_u32(u))
		return true;
	c->reorder = tp_pool_reorder(t);
	if (!c->reorder && !tp_pool_add_reorders(t))
		c->reorder = tp_pool_reorder(t);
	if (!c->reorder)
		return false;
	sd_unpack_value(u, c->reorder->have);
	if (!sd_unpack_check(u, c->rcv_high > c->rcv_nxt && c->rcv_high - c->rcv_nxt <= TP_BITS))
		return true;
	for (uint64_t psn = tp_bits_next(&c->reorder->have, c->rcv_nxt, c->rcv_high); psn < c->rcv_high;
		psn = tp_bits_next(&c->reorder->have, psn + 1, c->rcv_high)) {
		if (!restore_early(u, c, psn))
			break;
	}
	return true;
}

/* Where packets, time and its listener find it. */
static void attach(struct tp_conn *c, uint64_t due, const struct sd_addr *listener)
{
	struct tp *t = c->tp;
	struct tp_listener *l = listener->family ? tp_listener_find(t, listener, false) : NULL;
	uint64_t peer_cid = c->peer_cid;
	bool queued = c->queued || c->ack_at != NEVER;

	if (c->state != CONN_FAILED) {
		t->slots[index_of(c)] = c;
		t->conn_count++;
	}
	t->half_open += c->state == CONN_INIT_RECEIVED;
	t->lingering += c->lingering;
	c->peer_cid = 0;
	if (peer_cid)
		tp_conn_know_peer(c, peer_cid);
	if (due != NEVER)
		tp_timer_set(&t->wheel, &c->timer, due);
	c->ack_now |= c->ack_at != NEVER;
	c->ack_at = NEVER;
	c->queued = false;
	if (queued)
		tp_conn_mark(c);
	if (l) {
		bool half = c->state == CONN_INIT_RECEIVED;

		c->listener = l;
		list_push_back(half ? &l->half : &l->ready, &c->lnode);
		*(half ? &l->half_count : &l->ready_count) += 1;
	} else if (!c->owned && c->state == CONN_FAILED) {
		tp_conn_free(c);
	} else if (!c->owned && listener->family) {
		tp_conn_abort(c, WIRE_RESET_ABORT, -ECONNABORTED);
	}
}

/* Nothing knows it yet. */
static void drop(struct tp_conn *c)
{
	struct tp *t = c->tp;

	if (c->reorder)
		tp_pool_reorder_put(t, c->reorder);
	tp_flight_drop(c);
	tp_pool_ring_put(t, &c->snd);
	tp_pool_ring_put(t, &c->rcv);
	tp_pool_conn_put(t, c);
}

static struct tp_conn *blank(struct tp *t)
{
	struct tp_conn *c = tp_pool_fill(t, 1, 0) ? NULL : tp_pool_conn(t);

	if (!c)
		return NULL;
	memset(c, 0, sizeof *c);
	c->tp = t;
	list_init(&c->out);
	list_init(&c->ack_node);
	list_init(&c->lnode);
	tp_timer_init(&c->timer);
	tp_flight_init(c);
	return c;
}

/* What has changed since. */
struct how {
	struct cc_name cc;
	uint64_t pause; /* ns */
};

static void adapt(struct tp_conn *c, const struct how *how, uint64_t *due)
{
	const struct tp *t = c->tp;
	const struct cc_name cc = name_of_cc(t);

	if (c->mss && memcmp(&cc, &how->cc, sizeof cc)) {
		memset(c->cc_state, 0, sizeof c->cc_state);
		tp_conn_open_window(c, 0);
	}
	/* Nobody could answer meanwhile, and who connects is not patient. */
	if (c->state != CONN_INIT_SENT && c->state != CONN_INIT_RECEIVED)
		return;
	if (c->state_until != NEVER)
		c->state_until += how->pause;
	if (*due != NEVER)
		*due += how->pause;
}

static int restore_memory(struct tp *t, struct sd_unpack *u, struct tp_conn *c)
{
	uint32_t snd_size = sd_unpack_u32(u), rcv_size = sd_unpack_u32(u);

	if (!restore_ring(t, u, &c->snd, snd_size) || !restore_ring(t, u, &c->rcv, rcv_size))
		return u->failed ? -EPROTO : -ENOMEM;
	if (!sd_unpack_check(u, c->snd.data || c->snd_end == c->snd_acked) ||
		!sd_unpack_check(u, !c->rcv.data || c->rcv_limit - c->rcv_read <= c->rcv.size))
		return -EPROTO;
	if (c->snd.data)
		restore_range(u, &c->snd, c->snd_acked, c->snd_end);
	if (c->rcv.data)
		restore_range(u, &c->rcv, c->rcv_read, c->rcv_off);
	if (!restore_sent(u, c) || !restore_reorder(t, u, c))
		return -ENOMEM;
	tp_receive_drained(c);
	return u->failed ? -EPROTO : 0;
}

static int restore_conn(
	struct tp *t, struct sd_unpack *u, const struct how *how, uint64_t *name, struct tp_conn **out)
{
	struct tp_conn *c = blank(t);
	struct sd_addr listener;
	uint64_t due;
	int r;

	if (!c)
		return -ENOMEM;
	for (unsigned i = 0; i < N_FIELDS; i++) {
		if (fields[i].is_bool)
			sd_unpack_bool(u, (char *)c + fields[i].at);
		else
			sd_unpack_bytes(u, (char *)c + fields[i].at, fields[i].size);
	}
	*name = sd_unpack_u64(u);
	due = sd_unpack_u64(u);
	sd_unpack_value(u, listener);
	if (!sd_unpack_check(u, is_sane(t, c))) {
		drop(c);
		return -EPROTO;
	}
	if (c->state != CONN_INIT_SENT)
		c->landing = (struct tp_landing){0}; /* nobody waits */
	r = restore_memory(t, u, c);
	if (r) {
		drop(c);
		return r;
	}
	adapt(c, how, &due);
	attach(c, due, &listener);
	*out = c;
	return 0;
}

/* In the order of the indices, from the one that had been free for longest. */
static void count_free(struct tp *t, uint32_t first)
{
	t->free_head = t->free_count = 0;
	for (uint32_t i = 0; i < t->max_conns; i++) {
		uint32_t index = (first + i) % t->max_conns;

		if (!t->slots[index])
			t->free_index[t->free_count++] = index;
	}
}

static void restore_control(struct tp *t, struct sd_unpack *u)
{
	uint32_t n = sd_unpack_u32(u);

	for (uint32_t i = 0; sd_unpack_check(u, n <= TP_CONTROL_QUEUE) && i < n; i++) {
		sd_unpack_value(u, t->control[i]);
		if (!sd_unpack_check(u, t->control[i].len <= WIRE_CONTROL_MAX))
			return;
		t->control_count++;
	}
}

int tp_restore(struct tp *t, uint64_t now, struct sd_unpack *u,
	void (*owned)(void *ctx, uint64_t name, struct tp_conn *c), void *ctx)
{
	struct sd_sipkey *keys[] = KEYS(t);
	struct how how;
	uint32_t first;
	int r = 0;

	t->now = now;
	if (!sd_unpack_check(u, sd_unpack_u64(u) == tp_save_format() && sd_unpack_u64(u) == t->max_conns &&
					sd_unpack_u64(u) == t->cfg.engine))
		return -EPROTONOSUPPORT;
	sd_unpack_value(u, how.cc);
	how.pause = now - sd_unpack_u64(u);
	for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
		sd_unpack_value(u, *keys[i]);
	sd_unpack_value(u, t->epoch);
	sd_unpack_value(u, t->id_counter);
	restore_peers(t, u);
	sd_unpack_value(u, t->stats);
	sd_unpack_bytes(u, t->finished, t->max_conns * sizeof *t->finished);
	first = sd_unpack_u32(u);
	restore_control(t, u);
	while (!r && sd_unpack_u32(u)) {
		struct tp_conn *c;
		uint64_t name;

		r = restore_conn(t, u, &how, &name, &c);
		if (!r && name)
			owned(ctx, name, c);
	}
	count_free(t, first % t->max_conns);
	return r ? r : u->failed ? -EPROTO : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* One endpoint, and packets written by hand. */
#include "puppet.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static void *give(void *ctx, size_t size)
{
	struct puppet *p = ctx;
	void *m;

	p->broke_rules |= !p->may_alloc;
	if (p->no_memory || p->allocs_left == 1)
		return NULL;
	p->allocs_left -= p->allocs_left > 0;
	m = calloc(1, size);
	if (!m)
		abort();
	p->blocks++;
	return m;
}

static void take(void *ctx, void *m, size_t size)
{
	struct puppet *p = ctx;

	p->broke_rules |= !p->may_alloc;
	p->blocks--;
	free(m);
}

static void idle(void *ctx, void *m, size_t size)
{
	struct puppet *p = ctx;

	p->broke_rules |= !p->may_alloc;
	p->rests++;
	memset(m, 0xdb, size);
}

static void on_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
	struct puppet *p = ctx;

	p->events |= events;
}

static void on_acceptable(void *ctx, struct tp_listener *l, void *user)
{
	struct puppet *p = ctx;

	p->acceptable++;
}

static bool on_reverse(void *ctx, const struct tp_rx *rx, struct tp_path *out)
{
	struct puppet *p = ctx;
	uint16_t local = out->local.port, peer = out->peer.port;

	out->local = *rx->local;
	out->peer = *rx->peer;
	out->local.port = local;
	out->peer.port = peer;
	out->max_payload = p->max_payload;
	return true;
}

static void on_found(void *ctx, const struct tp_found *f)
{
	struct puppet *p = ctx;

	p->found++;
	p->last_found = *f;
}

static void on_repath(void *ctx, struct tp_path *path, uint16_t entropy)
{
	struct puppet *p = ctx;

	p->repaths++;
	path->hdr[0] = (uint8_t)entropy;
}

static void on_qp_event(void *ctx, struct tp_qp *qp, void *user, unsigned events)
{
	struct puppet *p = ctx;

	p->events |= events;
	p->qp_events |= events;
}

static void on_completion(void *ctx, struct tp_cq *cq, void *user)
{
	struct puppet *p = ctx;

	p->completions++;
}

static const struct tp_ops ops = {
	.size = sizeof ops,
	.event = on_event,
	.acceptable = on_acceptable,
	.reverse = on_reverse,
	.found = on_found,
	.repath = on_repath,
	.alloc = give,
	.free = take,
	.idle = idle,
	.qp_event = on_qp_event,
	.completion = on_completion,
};

void puppet_init(struct puppet *p)
{
	memset(p, 0, sizeof *p);
	p->now = 1000 * SD_S;
	p->cfg = (struct tp_config){
		.size = sizeof p->cfg, .seed = {1, 2, 3, 4}, .max_conns = 1024, .crc = true};
	p->local = (struct sd_addr){.family = 4, .ip = {10, 0, 0, 1}};
	p->peer = (struct sd_addr){.family = 4, .ip = {10, 0, 0, 2}};
	p->max_payload = 1472;
	p->may_alloc = true;
}

int puppet_create(struct puppet *p)
{
	return tp_create(&p->cfg, &ops, p, p->now, &p->tp);
}

void puppet_start(struct puppet *p)
{
	if (puppet_create(p))
		abort();
}

void puppet_listen(struct puppet *p, unsigned backlog)
{
	struct sd_addr any = {.family = p->local.family, .port = PUPPET_PORT};

	if (tp_listen(p->tp, &any, backlog, NULL, &p->listener))
		abort();
}

bool puppet_stop(struct puppet *p)
{
	tp_destroy(p->tp);
	return !p->blocks && !p->broke_rules;
}

void puppet_input(struct puppet *p, const uint8_t *pkt, size_t len)
{
	struct tp_rx rx = {
		.local = &p->local, .peer = &p->peer, .ce = p->ce, .late = p->late, .astray = p->astray};
	uint8_t *exact = malloc(len ? len : 1); /* a read past the end shall be seen */

	if (!exact)
		abort();
	memcpy(exact, pkt, len);
	p->may_alloc = false;
	tp_input(p->tp, p->now, exact, len, &rx);
	p->may_alloc = true;
	free(exact);
}

bool puppet_output(struct puppet *p)
{
	size_t len;

	p->may_alloc = false;
	len = tp_output(p->tp, p->now, p->out, p->max_payload, &p->out_path);
	p->may_alloc = true;
	if (!len)
		return false;
	p->out_len = len;
	if (tp_wire_crc_ok(p->out, len))
		len -= WIRE_CRC_LEN;
	memset(&p->w, 0, sizeof p->w);
	if (tp_wire_type(p->out) <= WIRE_ACK)
		tp_wire_decode(p->out, len, &p->w);
	return true;
}

unsigned puppet_flush(struct puppet *p)
{
	unsigned n = 0;

	while (puppet_output(p))
		n++;
	return n;
}

bool puppet_wait_output(struct puppet *p, uint64_t ns)
{
	uint64_t end = p->now + ns;

	p->may_alloc = false;
	while (!tp_output_pending(p->tp) && tp_next_timeout(p->tp) <= end) {
		if (tp_next_timeout(p->tp) > p->now)
			p->now = tp_next_timeout(p->tp);
		tp_timeout(p->tp, p->now);
	}
	p->may_alloc = true;
	if (tp_output_pending(p->tp))
		return true;
	p->now = end;
	return false;
}

void puppet_wait(struct puppet *p, uint64_t ns)
{
	uint64_t end = p->now + ns;

	p->may_alloc = false;
	while (tp_next_timeout(p->tp) <= end) {
		if (tp_next_timeout(p->tp) > p->now)
			p->now = tp_next_timeout(p->tp);
		tp_timeout(p->tp, p->now);
	}
	p->may_alloc = true;
	p->now = end;
}

/* --- peers --- */

void peer_init(struct puppet *p, struct peer *q, unsigned n)
{
	memset(q, 0, sizeof *q);
	q->cid = 0x1111111100000000 + n;
	q->nonce = 0x2222222200000000 + n;
	q->isn = q->psn = 1000 * n;
	q->window = 1 << 20;
	q->crc = p->cfg.crc;
	memset(q->token, 0x33, sizeof q->token);
	q->token[0] = (uint8_t)n;
}

static struct wire_init init_of(const struct puppet *p, const struct peer *q)
{
	return (struct wire_init){
		.src_cid = q->cid,
		.nonce = q->nonce,
		.epoch = 77,
		.window = q->window,
		.isn = q->isn,
		.max_ack_delay_us = 1000,
		.ts = tp_timestamp(p->now),
		.max_payload = p->max_payload,
		.features = (uint16_t)((q->crc ? WIRE_FEAT_CRC : 0) | (q->messages ? WIRE_FEAT_MESSAGES : 0)),
		.reads = q->reads,
		.window_packets = 512,
	};
}

size_t peer_put_init(const struct puppet *p, const struct peer *q, const uint8_t cookie[16], uint8_t *buf)
{
	struct wire_init i = init_of(p, q);

	i.src_port = (uint16_t)(40000 + q->cid % 20000);
	i.dst_port = PUPPET_PORT;
	memcpy(i.token, q->token, sizeof i.token);
	if (cookie)
		memcpy(i.cookie, cookie, sizeof i.cookie);
	return tp_wire_put_init(buf, WIRE_INIT, &i);
}

void peer_init_ack(struct puppet *p, const struct peer *q, uint16_t src_port, uint16_t dst_port)
{
	struct wire_init i = init_of(p, q);
	uint8_t buf[WIRE_CONTROL_MAX];

	i.src_port = dst_port;
	i.dst_port = src_port;
	i.dst_cid = q->their_cid;
	i.echo = q->their_ts;
	memcpy(i.token, q->token, sizeof i.token);
	puppet_input(p, buf, tp_wire_put_init(buf, WIRE_INIT_ACK, &i));
}

bool peer_learn(const struct puppet *p, struct peer *q)
{
	struct wire_init i;

	if (!p->out_len || !tp_wire_crc_ok(p->out, p->out_len) || !tp_wire_get_init(p->out, p->out_len, &i))
		return false;
	q->their_cid = i.src_cid;
	q->their_isn = q->ack = i.isn;
	q->their_ts = i.ts;
	if (tp_wire_type(p->out) == WIRE_INIT)
		q->nonce = i.nonce;
	memcpy(q->their_token, i.token, sizeof q->their_token);
	return tp_wire_type(p->out) == WIRE_INIT || (i.dst_cid == q->cid && i.nonce == q->nonce);
}

bool peer_connect(struct puppet *p, struct peer *q, unsigned n)
{
	uint8_t buf[WIRE_CONTROL_MAX];
	size_t len;

	peer_init(p, q, n);
	len = peer_put_init(p, q, NULL, buf);
	puppet_input(p, buf, len);
	if (!puppet_output(p) || tp_wire_type(p->out) != WIRE_INIT_ACK || !peer_learn(p, q))
		return false;
	peer_ack(p, q, q->ack, NULL, 0, 0);
	q->c = tp_accept(p->listener, q);
	return q->c;
}

bool peer_accept(struct puppet *p, struct peer *q, unsigned n)
{
	struct tp_path path = {.max_payload = p->max_payload, .local = p->local, .peer = p->peer};

	peer_init(p, q, n);
	path.local.port = (uint16_t)(30000 + n);
	path.peer.port = PUPPET_PORT;
	if (tp_connect(p->tp, p->now, &path, q, &q->c) || !puppet_output(p) || !peer_learn(p, q))
		return false;
	peer_init_ack(p, q, path.local.port, path.peer.port);
	puppet_flush(p);
	return tp_is_open(q->c);
}

static void put_base(struct puppet *p, struct peer *q, uint8_t *buf, enum wire_type type, unsigned flags,
	enum wire_opcode op, uint32_t psn, uint32_t ack, size_t ext)
{
	struct wire_packet w = {.psn = psn,
		.ack = ack,
		.ts = q->ts ? q->ts : tp_timestamp(p->now),
		.echo = q->their_ts,
		.credit = q->credit};

	tp_wire_put_base(buf, type, flags, op, ext, &w, q->their_cid);
}

static size_t put_piece(const struct peer *q, uint8_t *ext, bool more)
{
	if (!q->piece.is)
		return 0;
	tp_wire_put_piece(ext, q->piece.off, more);
	return WIRE_PIECE_LEN;
}

void peer_data(struct puppet *p, struct peer *q, uint32_t psn, uint64_t off, const void *data, size_t len,
	unsigned flags)
{
	uint8_t buf[65536];
	size_t ext = put_piece(q, buf + WIRE_BASE_LEN, q->piece.more) + WIRE_STREAM_LEN,
	       head = WIRE_BASE_LEN + ext;

	put_base(p, q, buf, WIRE_DATA, flags, WIRE_OP_STREAM, psn, q->ack, ext);
	tp_wire_put_stream(buf + head - WIRE_STREAM_LEN, off);
	if (len)
		memcpy(buf + head, data, len);
	puppet_input(p, buf, q->crc ? tp_wire_seal(buf, head + len) : head + len);
}

void peer_piece(struct puppet *p, struct peer *q, uint32_t psn, size_t from, bool more, uint64_t off,
	const void *data, size_t len, unsigned flags)
{
	uint8_t buf[65536];
	size_t ext = WIRE_PIECE_LEN + WIRE_STREAM_LEN, head = WIRE_BASE_LEN + ext;

	put_base(p, q, buf, WIRE_DATA, flags | WIRE_F_RETX, WIRE_OP_STREAM, psn, q->ack, ext);
	tp_wire_put_piece(buf + WIRE_BASE_LEN, from, more);
	tp_wire_put_stream(buf + WIRE_BASE_LEN + WIRE_PIECE_LEN, off);
	memcpy(buf + head, data, len);
	puppet_input(p, buf, q->crc ? tp_wire_seal(buf, head + len) : head + len);
}

void peer_send(struct puppet *p, struct peer *q, const void *data, size_t len, unsigned flags)
{
	peer_data(p, q, q->psn++, q->off, data, len, flags);
	q->off += len;
}

void peer_message(struct puppet *p, struct peer *q, uint32_t psn, const struct wire_message *m,
	const void *data, size_t len, unsigned flags)
{
	uint8_t buf[65536];
	size_t ext = put_piece(q, buf + WIRE_BASE_LEN, q->piece.more), head;

	ext += tp_wire_put_message(buf + WIRE_BASE_LEN + ext, m);
	head = WIRE_BASE_LEN + ext;
	put_base(p, q, buf, WIRE_DATA, flags, m->op, psn, q->ack, ext);
	if (len)
		memcpy(buf + head, data, len);
	puppet_input(p, buf, q->crc ? tp_wire_seal(buf, head + len) : head + len);
}

void peer_ack(
	struct puppet *p, struct peer *q, uint32_t ack, const uint64_t *sack, unsigned words, unsigned flags)
{
	uint8_t buf[WIRE_BASE_LEN + 1024];
	size_t ext = tp_wire_put_ack(buf + WIRE_BASE_LEN, q->window, words);

	for (unsigned k = 0; k < words; k++)
		tp_wire_put_sack(buf + WIRE_BASE_LEN, k, sack[k]);
	ext += put_piece(q, buf + WIRE_BASE_LEN + ext, false);
	put_base(p, q, buf, WIRE_ACK, flags, WIRE_OP_NONE, q->psn, ack, ext);
	puppet_input(p, buf, q->crc ? tp_wire_seal(buf, WIRE_BASE_LEN + ext) : WIRE_BASE_LEN + ext);
}

void peer_reset(struct puppet *p, const struct peer *q, unsigned reason, const uint8_t token[16])
{
	struct wire_reset_packet r = {.reason = (uint8_t)reason, .src_cid = q->cid};
	uint8_t buf[WIRE_CONTROL_MAX];

	memcpy(r.token, token, sizeof r.token);
	puppet_input(p, buf, tp_wire_put_reset(buf, &r));
}

void puppet_open(struct puppet *p, struct peer *q)
{
	puppet_start(p);
	puppet_listen(p, 8);
	if (!peer_connect(p, q, 1))
		abort();
	puppet_flush(p);
	p->events = 0;
}

void puppet_pattern(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
}

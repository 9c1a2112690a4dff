/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libFuzzer target: one endpoint with queue pairs, whose peers say anything. The input is a script: packets
 * that are right, nearly right or wrong, time, and what programs do with queue pairs and regions. What it
 * holds against the endpoint:
 *   - memory changes only where a packet may change it, and to what that packet says; nothing else is told;
 *   - requests leave in order, as they were posted, and complete once, in order, for a reason;
 *   - packets and posting ask for no memory, and in the end nothing is left;
 *   - output ends, and who is never answered is in error before long.
 */
#include <string.h>

#include "app_verbs.h"

#define STEPS_MAX  400
#define OUTPUT_MAX 5000
#define PAYLOAD	   300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct verbs v;

/* --- what must always hold --- */

static void check(void)
{
	require(verbs_memory_is_right(&v));
	for (uint32_t i = 0; i < v.p.tp->max_conns; i++) {
		const struct tp_conn *c = v.p.tp->slots[i];

		if (!c || c->state == CONN_FAILED)
			continue;
		require((uint64_t)c->pipe + c->lost + c->sacked == c->snd_nxt - c->snd_una);
		require(c->snd_nxt - c->snd_una <= c->sent_mask + 1u);
		require((c->cwnd || c->pace_at != NEVER) && c->cwnd <= c->tp->cfg.window_packets);
	}
	require(!v.p.broke_rules);
}

/* --- output --- */

static struct pair *pair_of(uint64_t cid)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		if (v.pairs[i].qp && v.pairs[i].peer.cid == cid)
			return &v.pairs[i];
	}
	return NULL;
}

static bool output(void)
{
	struct pair *q;

	if (!puppet_output(&v.p))
		return false;
	require(v.p.out_len <= v.p.max_payload && v.p.out_len <= v.p.out_path->max_payload);
	if (tp_wire_type(v.p.out) > WIRE_ACK)
		return true;
	require(v.p.w.type == tp_wire_type(v.p.out)); /* it has been decoded */
	q = pair_of(tp_wire_cid(v.p.out));
	if (!q || !pair_conn(q))
		return true;
	q->peer.their_ts = v.p.w.ts;
	if (v.p.w.flags & WIRE_F_READY) /* no more than there are receives for */
		require(v.p.w.credit == (uint16_t)(v.base + q->ledger.received));
	if (v.p.w.type == WIRE_DATA)
		ledger_check_sent(&q->ledger, &v.p.w);
	return true;
}

static void flush(void)
{
	for (unsigned n = 0; output(); n++)
		require(n < OUTPUT_MAX);
}

/* --- the peer's packets --- */

static bool has(const struct tp_conn *c, uint32_t psn)
{
	uint32_t ahead = psn - (uint32_t)c->rcv_nxt;

	return (int32_t)ahead < 0 ||
	       (c->reorder && ahead < TP_BITS && tp_bits_test(&c->reorder->have, c->rcv_nxt + ahead));
}

static bool is_atomic(const struct wire_message *m)
{
	return m->op == WIRE_OP_SWAP || m->op == WIRE_OP_ADD;
}

static void note_asked(struct ledger *l, uint32_t psn, const struct wire_message *m)
{
	if (m->op == WIRE_OP_READ_REQ || is_atomic(m)) {
		require(l->n_asked < LEDGER_ASKED);
		l->asked[l->n_asked++] = (struct asked){
			m->op, psn, m->number, m->op == WIRE_OP_READ_REQ ? m->len : 8, m->rkey, m->remote};
	}
}

/* A READ that is taken in its turn is one that may be answered. */
static void check_taken_read(const struct pair *q, const struct wire_message *m)
{
	if (m->op == WIRE_OP_READ_REQ)
		require(area_find(v.areas, AREAS, q->qp->pd, m->rkey, TP_REMOTE_READ, m->remote, m->len));
}

/* How many of a packet's bytes have come before, in pieces. */
static size_t known_of(const struct peer *q, const struct tp_conn *c, uint32_t psn)
{
	unsigned from = q->piece.is ? q->piece.off : 0;

	return psn == (uint32_t)c->rcv_nxt && from < c->rcv_piece ? c->rcv_piece - from : 0;
}

/* A DATA packet, which the queue pair may take if it allows it, and only then. */
static void message(struct pair *q, uint32_t psn, const struct wire_message *m, size_t len, unsigned flags)
{
	static uint8_t data[PAYLOAD];
	struct tp_conn *c = pair_conn(q);
	struct wire_message rest = *m;
	bool allowed, alone, fresh;
	struct landing to;
	uint32_t before, pieces;
	size_t known;

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(psn * 31 + i * 7);
	if (!pair_is_open(q)) {
		peer_message(&v.p, &q->peer, psn, m, data, len, flags);
		return;
	}
	before = (uint32_t)c->rcv_nxt;
	pieces = c->rcv_piece;
	known = known_of(&q->peer, c, psn);
	if (known > len)
		known = len;
	rest.offset += (uint32_t)known;
	rest.remote += known;
	allowed = ledger_allows(&q->ledger, &rest, len - known, &to);
	alone = psn == before && !c->reorder;
	fresh = !has(c, psn);
	note_asked(&q->ledger, psn, m);
	if (flags & WIRE_F_READY)
		ledger_credit(&q->ledger, q->peer.credit);
	peer_message(&v.p, &q->peer, psn, m, data, len, flags);
	if (c->state == CONN_OPEN && fresh && (has(c, psn) || c->rcv_piece != pieces)) {
		require(allowed && (has(c, psn) || (q->peer.piece.is && q->peer.piece.more)));
		require(has(c, psn) || c->rcv_piece == q->peer.piece.off + len);
		ledger_bring(&to, &rest, data + known, len - known);
	} else if (c->state != CONN_OPEN && fresh && allowed && !verbs_memory_is_right(&v)) {
		ledger_bring(&to, &rest, data + known, len - known); /* and then something else was wrong */
	}
	if (c->state == CONN_OPEN && alone && (uint32_t)c->rcv_nxt == psn + 1) {
		check_taken_read(q, m);
		if (is_atomic(m))
			ledger_execute(&q->ledger, m);
	} else {
		ledger_trust_atomics(&q->ledger, before, (uint32_t)c->rcv_nxt);
	}
}

static uint64_t some_key(struct script *s)
{
	unsigned b = script_byte(s);

	if (b < 0xe0)
		return v.areas[b % AREAS].key; /* perhaps it is closed, or of the other domain */
	if (b < 0xf0)
		return v.old_keys[b % 8];
	return v.areas[b % AREAS].key ^ 1ull << script_below(s, 64);
}

/* A region and a place in it: anywhere, or n bytes that end where it ends or next to
 * it. */
static void aim(struct script *s, struct wire_message *m, uint64_t n)
{
	unsigned b;

	m->rkey = some_key(s);
	b = script_byte(s);
	m->remote = b < 0xc0 ? b * 5u : b < 0xf0 ? 0 : script_long(s);
	for (const struct area *a = v.areas; a < v.areas + AREAS && b >= 0xc0 && b < 0xf0; a++) {
		if (a->mr && a->key == m->rkey)
			m->remote = a->len - n + script_below(s, 4) - 1;
	}
}

static size_t some_len(struct script *s)
{
	unsigned b = script_byte(s);

	return b < 0x80 ? b % 48 : b % 2 ? 0 : b;
}

/* Mostly the one that is expected; else the last one again, or another. */
static uint32_t next_psn(struct script *s, struct pair *q)
{
	const struct tp_conn *c = tp_conn_by_cid(v.p.tp, q->peer.their_cid);
	unsigned b = script_byte(s);

	if (b < 0xe0 || b >= 0xf8)
		q->peer.psn = (uint32_t)(c ? c->rcv_nxt : q->peer.psn);
	if (b >= 0xa0 && b < 0xe0)
		q->peer.psn += (b & 31) - 8;
	else if (b >= 0xf8)
		q->peer.psn += script_word(s);
	return q->peer.psn;
}

static unsigned some_flags(struct script *s)
{
	unsigned b = script_byte(s);

	return b & 1 ? WIRE_F_READY : b & (WIRE_F_READY | WIRE_F_SE | WIRE_F_ACKREQ | WIRE_F_RETX);
}

/* What a queue pair's peer says rightly, but for errors. */
static void data_packet(struct script *s, struct pair *q, enum wire_opcode op)
{
	const struct tp_qp *qp = q->qp;
	struct wire_message m = {.op = op, .last = op == WIRE_OP_WRITE_IMM || script_byte(s) & 3};
	size_t len = op == WIRE_OP_READ_REQ || op == WIRE_OP_SWAP || op == WIRE_OP_ADD || op == WIRE_OP_NONE
			     ? 0
			     : some_len(s);
	uint32_t psn = next_psn(s, q), back = 0;

	if (q->peer.piece.is)
		m.last = m.last && !q->peer.piece.more;
	if (pair_is_open(q))
		back = (uint32_t)known_of(&q->peer, pair_conn(q), psn);
	if (len && len + back <= PAYLOAD) /* what is known comes once more */
		len += back;
	switch (op) {
	case WIRE_OP_SEND:
		m.number = qp ? qp->rq.head : v.base;
		m.offset = (qp ? qp->msg_off : 0) - back + (uint32_t)script_error(s);
		m.has_imm = m.last && script_byte(s) & 1;
		break;
	case WIRE_OP_READ_RESP:
		m.number = qp ? qp->rsn_done : v.base;
		m.offset = (qp ? qp->answer_off : 0) - back + (uint32_t)script_error(s);
		break;
	case WIRE_OP_READ_REQ:
		m.len = script_byte(s) * 5u;
		m.len = m.len < 1200 ? m.len : script_word(s) % (WIRE_MAX_MESSAGE + 1);
		/* fall through */
	case WIRE_OP_SWAP:
	case WIRE_OP_ADD:
		m.number = qp ? qp->in_next : v.base;
		m.last = false;
		break;
	default:
		m.number = qp ? qp->rq.head : v.base;
		m.has_imm = op == WIRE_OP_WRITE_IMM;
		break;
	}
	m.number += (uint32_t)script_error(s);
	if (op != WIRE_OP_SEND && op != WIRE_OP_READ_RESP && op != WIRE_OP_NONE) {
		aim(s, &m, op == WIRE_OP_READ_REQ ? m.len : is_atomic(&m) ? 8 : len);
		m.operand = script_byte(s);
		m.compare = script_byte(s);
	}
	message(q, psn, &m, len, some_flags(s) | (op == WIRE_OP_NONE ? WIRE_F_FIN : 0u));
}

/* The next piece of a packet, mostly; else one that is known in part, or that leaves a gap. */
static void piece_packet(struct script *s, struct pair *q)
{
	static const enum wire_opcode ops[] = {
		WIRE_OP_SEND, WIRE_OP_WRITE, WIRE_OP_READ_RESP, WIRE_OP_WRITE_IMM};
	const struct tp_conn *c = pair_conn(q);
	unsigned b = script_byte(s);

	q->peer.piece.is = true;
	q->peer.piece.more = b & 1;
	q->peer.piece.off = (uint16_t)((c ? c->rcv_piece : 0) + (b & 8 ? script_error(s) : 0));
	data_packet(s, q, ops[(b >> 1 & 3) % (b & 1 ? 3 : 4)]);
	q->peer.piece.is = false;
}

/* Answers the oldest READ or atomic request that waits, rightly: long ones need many packets. */
static void answer(struct script *s, struct pair *q)
{
	const struct tp_qp *qp = q->qp;
	struct wire_message m = {.op = WIRE_OP_READ_RESP};
	size_t len = script_byte(s);
	uint32_t left;

	if (!pair_is_open(q) || qp->rsn_done == qp->rsn_begun)
		return;
	left = swqe_at(qp, qp->readers[qp->rsn_done & qp->readers_mask])->len - qp->answer_off;
	m.number = qp->rsn_done;
	m.offset = qp->answer_off;
	m.last = len >= left;
	q->peer.piece.is = pair_conn(q)->rcv_piece; /* the rest of it */
	q->peer.piece.more = false;
	q->peer.piece.off = pair_conn(q)->rcv_piece;
	message(q, (uint32_t)pair_conn(q)->rcv_nxt, &m, m.last ? left : len ? len : 1, WIRE_F_READY);
	q->peer.piece.is = false;
}

static void ack_packet(struct script *s, struct pair *q)
{
	const struct tp_conn *c = tp_conn_by_cid(v.p.tp, q->peer.their_cid);
	uint64_t sack[2] = {0};
	unsigned words = script_below(s, 8), flags = some_flags(s), all = script_byte(s);
	uint32_t ack =
		c ? (uint32_t)(all & 1 ? c->snd_nxt : c->snd_una) + (all & 2 ? (all >> 2) : 0) : q->peer.ack;

	q->peer.piece.is = words == 7;
	q->peer.piece.off = (uint16_t)((c ? c->piece : 0) + (words == 7 ? script_byte(s) * 8u : 0));
	if (words > 2)
		words = 0;
	for (unsigned i = 0; i < words; i++)
		sack[i] = script_byte(s);
	q->peer.ack = ack;
	q->peer.credit = (uint16_t)(q->peer.credit + script_below(s, 4) +
				    (script_byte(s) < 8 ? (uint16_t)script_word(s) : 0));
	if (pair_is_open(q) && flags & WIRE_F_READY)
		ledger_credit(&q->ledger, q->peer.credit);
	peer_ack(&v.p, &q->peer, ack + (uint32_t)script_error(s), sack, words, flags);
	q->peer.piece.is = false;
}

/* With the right token, mostly. */
static void reset(struct script *s, struct pair *q)
{
	const struct tp_conn *c = tp_conn_by_cid(v.p.tp, q->peer.their_cid);
	struct wire_reset_packet r = {
		.reason = (uint8_t)script_below(s, 10),
		.psn = (uint32_t)(c ? c->snd_una : 0) + script_below(s, 8),
		.src_cid = q->peer.cid,
	};
	uint8_t buf[WIRE_CONTROL_MAX];

	memcpy(r.token, q->peer.token, sizeof r.token);
	r.token[1] ^= script_byte(s) & 0x80;
	puppet_input(&v.p, buf, tp_wire_put_reset(buf, &r));
}

/* Bytes of the script as a packet, with id and trailer put right. */
static void raw_packet(struct script *s, const struct pair *q)
{
	uint8_t buf[256] = {0};
	size_t len = WIRE_BASE_LEN + script_below(s, 200);

	for (size_t i = 0; i < len; i++)
		buf[i] = script_byte(s);
	buf[0] = (uint8_t)(WIRE_VERSION << 4 | (WIRE_DATA + buf[0] % 2));
	be64_put(buf + 8, q->peer.their_cid);
	if (buf[2] != WIRE_OP_STREAM) /* of the others those that are well-formed come from elsewhere */
		buf[3] = 255;
	puppet_input(&v.p, buf, q->peer.crc ? tp_wire_seal(buf, len) : len);
}

/* --- life --- */

/* The peer connects; it is accepted later. */
static void call(struct pair *q)
{
	uint8_t buf[WIRE_CONTROL_MAX];

	puppet_input(&v.p, buf, peer_put_init(&v.p, &q->peer, NULL, buf));
	while (output()) {
		if (tp_wire_type(v.p.out) == WIRE_INIT_ACK && peer_learn(&v.p, &q->peer))
			q->waits = true;
	}
	if (q->waits)
		peer_ack(&v.p, &q->peer, q->peer.ack, NULL, 0, WIRE_F_READY);
	q->ledger.seen_psn = q->peer.their_isn;
}

/* Of those that wait the oldest comes first. */
static void accept_one(void)
{
	struct tp_conn *c;

	if (!tp_acceptable(v.p.listener))
		return;
	c = container_of(v.p.listener->ready.next, struct tp_conn, lnode);
	for (struct pair *q = v.pairs; q < v.pairs + PAIRS; q++) {
		if (!q->qp || !q->waits || q->peer.their_cid != c->cid)
			continue;
		q->waits = false;
		require(tp_qp_accept(q->qp, v.p.listener) == q->qp->error || q->qp->conn == c);
		if (q->qp->conn)
			return;
	}
	tp_close(tp_accept(v.p.listener, NULL), v.p.now, true); /* its queue pair is gone, or in error */
}

static void connect_out(struct pair *q)
{
	struct tp_path path = {.local = v.p.local, .peer = v.p.peer, .max_payload = v.p.max_payload};

	path.local.port = (uint16_t)(30000 + v.n_peers);
	path.peer.port = PUPPET_PORT;
	if (q->waits || q->qp->error || tp_qp_connect(q->qp, v.p.now, &path))
		return;
	while (output()) {
		if (tp_wire_type(v.p.out) == WIRE_INIT)
			peer_learn(&v.p, &q->peer);
	}
	q->ledger.seen_psn = q->peer.their_isn;
}

static void life(struct script *s, struct pair *q)
{
	unsigned what = script_below(s, 16);
	struct tp_conn *c = pair_conn(q);

	if (!q->qp) {
		verbs_create(&v, q);
	} else if (c && c->state == CONN_INIT_SENT && what < 12) {
		peer_init_ack(&v.p, &q->peer, c->path.local.port, c->path.peer.port);
	} else if (!c && !q->waits && what < 6) {
		call(q);
	} else if (!c && !q->waits && what < 12) {
		connect_out(q);
	} else if (what < 12) {
		accept_one();
	} else if (what < 14) {
		tp_qp_disconnect(q->qp);
	} else if (what == 14) {
		tp_qp_destroy(q->qp, v.p.now);
		q->qp = NULL;
	}
}

/* --- the script --- */

static void settings(struct script *s)
{
	unsigned b = script_byte(s);

	v.p.ce = b & 1;
	v.p.late = b & 2;
	if (b & 4)
		tp_refill(v.p.tp);
	if (b & 8)
		tp_cq_notify(b & 16 ? v.scq : v.rcq, b & 32);
}

static void step(struct script *s)
{
	unsigned what = script_byte(s);
	struct pair *q = &v.pairs[(what >> 5) % PAIRS];

	switch (what & 31) {
	case 0 ... 8:
		data_packet(s, q,
			(enum wire_opcode[]){WIRE_OP_SEND, WIRE_OP_SEND, WIRE_OP_WRITE, WIRE_OP_WRITE_IMM,
				WIRE_OP_READ_REQ, WIRE_OP_READ_RESP, WIRE_OP_SWAP, WIRE_OP_ADD,
				WIRE_OP_NONE}[what & 31]);
		break;
	case 9 ... 10:
		answer(s, q);
		break;
	case 11 ... 14:
		ack_packet(s, q);
		break;
	case 15:
		reset(s, q);
		break;
	case 16:
		raw_packet(s, q);
		break;
	case 17:
		puppet_wait(&v.p, script_byte(s) * SD_US);
		break;
	case 18:
		puppet_wait(&v.p, (uint64_t)script_byte(s) * script_byte(s) * SD_MS / 8);
		break;
	case 19 ... 22:
		verbs_post_send(&v, s, q);
		break;
	case 23 ... 24:
		verbs_post_receive(&v, s, q);
		break;
	case 25:
		verbs_poll(&v, script_below(s, CQ_SIZE + 1));
		break;
	case 26 ... 27:
		for (unsigned n = script_below(s, 32); n && output(); n--)
			;
		break;
	case 28:
		settings(s);
		break;
	case 29:
		verbs_region(&v, s);
		break;
	case 30:
		piece_packet(s, q);
		break;
	default:
		life(s, q);
		break;
	}
}

/* Both have disconnected, and know it: nothing is expected of the peer any more. */
static bool is_over(const struct tp_conn *c)
{
	return c->fin_acked && c->rcv_fin;
}

/* Nobody answers any more. */
static void silence(void)
{
	for (unsigned i = 0; i < 60; i++) {
		flush();
		puppet_wait(&v.p, SD_S);
		check();
	}
	for (unsigned i = 0; i < PAIRS; i++)
		require(!pair_conn(&v.pairs[i]) || v.pairs[i].qp->error || is_over(pair_conn(&v.pairs[i])));
}

/* All queue pairs are connected, in all ways. */
static void start(struct script *s, bool wide)
{
	verbs_open(&v, s, wide);
	call(&v.pairs[0]);
	accept_one();
	connect_out(&v.pairs[1]);
	peer_init_ack(&v.p, &v.pairs[1].peer, pair_conn(&v.pairs[1])->path.local.port, PUPPET_PORT);
	call(&v.pairs[2]);
	accept_one();
	flush();
	for (unsigned i = 0; i < PAIRS; i++)
		require(pair_is_open(&v.pairs[i]));
	check();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct script s = {data, data + len};
	unsigned b = script_byte(&s);
	bool quiet = b & 1;

	start(&s, b & 2);
	for (unsigned i = 0; i < STEPS_MAX && !script_over(&s); i++) {
		step(&s);
		check();
	}
	if (quiet)
		silence();
	flush();
	verbs_close(&v);
	return 0;
}

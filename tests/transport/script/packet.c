/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packet: between bytes and fields, by the transport's own codec (transport/wire.h). Packet numbers become
 * relative to the initial ones here.
 */
#include <string.h>

#include "script.h"

/* --- to bytes --- */

static uint64_t sack_word(const struct packet *p, unsigned k)
{
	uint64_t word = 0;

	for (unsigned i = 0; i < p->n_sack; i++) {
		for (uint32_t psn = p->sack[i].from; psn <= p->sack[i].to; psn++) {
			uint32_t bit = psn - (uint32_t)p->v[F_ACK] - 1;

			if (bit / 64 == k)
				word |= 1ull << bit % 64;
		}
	}
	return word;
}

static unsigned sack_words(struct script *s, const struct packet *p)
{
	uint32_t last;

	if (!p->n_sack)
		return 0;
	last = p->sack[p->n_sack - 1].to - (uint32_t)p->v[F_ACK] - 1;
	if (p->sack[0].from <= p->v[F_ACK] || last / 64 >= WIRE_SACK_WORDS)
		script_fail(s, "sack names packets from ack + 1 to ack + %d", 64 * WIRE_SACK_WORDS);
	return last / 64 + 1;
}

static size_t put_extensions(struct script *s, const struct packet *p, uint8_t *b)
{
	struct wire_message m = {.op = (enum wire_opcode)p->v[F_OP],
		.last = p->last,
		.has_imm = p->has & BIT(F_IMM),
		.number = (uint32_t)(p->has & BIT(F_RSN) ? p->v[F_RSN] : p->v[F_SSN]),
		.imm = (uint32_t)p->v[F_IMM],
		.offset = (uint32_t)p->v[F_OFF],
		.len = (uint32_t)p->v[F_LEN],
		.rkey = p->v[F_RKEY],
		.remote = p->v[F_OFF],
		.operand = p->v[F_OPERAND],
		.compare = p->v[F_COMPARE]};
	size_t n = 0;

	if (p->has & BIT(F_PIECE)) {
		tp_wire_put_piece(b, p->v[F_PIECE], p->more);
		n = WIRE_PIECE_LEN;
	}
	if (p->type == WIRE_DATA && m.op == WIRE_OP_STREAM) {
		tp_wire_put_stream(b + n, p->v[F_OFF]);
		n += WIRE_STREAM_LEN;
	} else if (p->type == WIRE_DATA) {
		n += tp_wire_put_message(b + n, &m);
	}
	if (p->has & BIT(F_WIN)) {
		unsigned words = sack_words(s, p);
		size_t ack = tp_wire_put_ack(b + n, p->v[F_WIN], words);

		for (unsigned k = 0; k < words; k++)
			tp_wire_put_sack(b + n, k, sack_word(p, k));
		n += ack;
	}
	return n;
}

static size_t put_numbered(struct script *s, const struct link *l, const struct packet *p, uint8_t *b)
{
	struct wire_packet w = {.credit = (uint16_t)p->v[F_CREDIT],
		.ce_count = (uint16_t)p->v[F_CE],
		.psn = l->q.isn + (uint32_t)p->v[F_PSN],
		.ack = l->q.their_isn + (uint32_t)p->v[F_ACK],
		.ts = (uint32_t)p->v[F_TS],
		.echo = (uint32_t)p->v[F_ECHO]};
	size_t n = put_extensions(s, p, b + WIRE_BASE_LEN);

	tp_wire_put_base(b, (enum wire_type)p->type, p->flags,
		p->type == WIRE_DATA ? (enum wire_opcode)p->v[F_OP] : WIRE_OP_NONE, n, &w, p->v[F_ID]);
	n += WIRE_BASE_LEN;
	if (p->payload_len)
		memcpy(b + n, p->payload, p->payload_len);
	return n + p->payload_len;
}

static size_t put_init(const struct link *l, const struct packet *p, uint8_t *b)
{
	struct wire_init i = {.attempt = (uint8_t)p->v[F_ATTEMPT],
		.src_port = (uint16_t)p->v[F_SPORT],
		.dst_port = (uint16_t)p->v[F_DPORT],
		.dst_cid = p->type == WIRE_INIT ? 0 : p->v[F_ID],
		.src_cid = l->q.cid,
		.nonce = p->v[F_NONCE],
		.epoch = p->v[F_EPOCH],
		.window = p->v[F_WIN],
		.isn = (uint32_t)p->v[F_ISN],
		.max_ack_delay_us = (uint32_t)(p->v[F_DELAY] / SD_US),
		.max_payload = (uint16_t)p->v[F_MAX],
		.features = (uint16_t)p->v[F_FEATURES],
		.window_packets = (uint16_t)p->v[F_PACKETS],
		.reads = (uint16_t)p->v[F_READS],
		.ts = (uint32_t)p->v[F_TS],
		.echo = (uint32_t)p->v[F_ECHO]};

	memcpy(i.token, p->token, sizeof i.token);
	memcpy(i.cookie, p->cookie, sizeof i.cookie);
	return tp_wire_put_init(b, (enum wire_type)p->type, &i);
}

static size_t put_reset(const struct link *l, const struct packet *p, uint8_t *b)
{
	struct wire_reset_packet r = {.reason = (uint8_t)p->v[F_REASON], .src_cid = p->v[F_ID]};

	if (p->has & BIT(F_PSN))
		r.psn = l->q.their_isn + (uint32_t)p->v[F_PSN];
	memcpy(r.token, p->token, sizeof r.token);
	return tp_wire_put_reset(b, &r);
}

/* A question is about the endpoint's address and an answer about the peer's, unless it says otherwise. */
static size_t put_find(const struct script *s, const struct link *l, const struct packet *p, uint8_t *b)
{
	struct wire_find f = {.code = (uint8_t)p->v[F_CODE],
		.nonce = p->v[F_NONCE],
		.target = p->type == WIRE_FIND ? s->puppet.local : l->addr};

	if (p->has & BIT(F_ADDRESS)) {
		f.target = (struct sd_addr){.family = 4};
		be32_put(f.target.ip, (uint32_t)p->v[F_ADDRESS]);
	}
	f.target.port = (uint16_t)p->v[F_PORT];
	return tp_wire_put_find(b, (enum wire_type)p->type, &f);
}

static size_t put(struct script *s, const struct link *l, const struct spec *spec, uint8_t *b)
{
	const struct packet *p = &spec->p;
	struct wire_nak n = {.code = (uint8_t)p->v[F_CODE], .dst_cid = p->v[F_ID], .nonce = p->v[F_NONCE]};
	struct wire_cookie k = {.dst_cid = p->v[F_ID], .nonce = p->v[F_NONCE]};

	switch (p->type) {
	case WIRE_DATA:
	case WIRE_ACK:
		return put_numbered(s, l, p, b);
	case WIRE_INIT:
	case WIRE_INIT_ACK:
		return put_init(l, p, b) - WIRE_CRC_LEN;
	case WIRE_INIT_NAK:
		return tp_wire_put_nak(b, &n) - WIRE_CRC_LEN;
	case WIRE_COOKIE:
		memcpy(k.cookie, p->cookie, sizeof k.cookie);
		return tp_wire_put_cookie(b, &k) - WIRE_CRC_LEN;
	case WIRE_RESET:
		return put_reset(l, p, b) - WIRE_CRC_LEN;
	}
	return put_find(s, l, p, b) - WIRE_CRC_LEN;
}

size_t packet_encode(struct script *s, const struct link *l, struct spec *spec, uint8_t *buf)
{
	size_t len = put(s, l, spec, buf);
	bool crc = spec->p.type > WIRE_ACK || l->q.crc;

	memset(buf + len, 0, spec->pad);
	len += spec->pad;
	for (unsigned i = 0; i < spec->n_patches; i++)
		if (spec->patches[i].at < len)
			buf[spec->patches[i].at] = spec->patches[i].value;
	len -= spec->cut < len ? spec->cut : len;
	if (crc && !spec->no_crc) {
		len = tp_wire_seal(buf, len);
		buf[len - 1] ^= spec->bad_crc;
	}
	return len;
}

/* --- to fields --- */

static void set(struct packet *p, enum field f, uint64_t v)
{
	p->has |= BIT(f);
	p->v[f] = v;
}

static void get_sack(const struct wire_packet *w, struct packet *out)
{
	for (unsigned i = 0; i < 64u * w->sack_words; i++) {
		uint32_t psn = (uint32_t)out->v[F_ACK] + 1 + i;

		if (!(tp_wire_get_sack(w, i / 64) >> i % 64 & 1))
			continue;
		if (out->n_sack && out->sack[out->n_sack - 1].to + 1 == psn)
			out->sack[out->n_sack - 1].to = psn;
		else if (out->n_sack < SCRIPT_RANGES)
			out->sack[out->n_sack++] = (struct range){psn, psn};
	}
}

static void get_message(const struct wire_packet *w, struct packet *out)
{
	const struct wire_message *m = &w->msg;
	bool send = m->op == WIRE_OP_SEND, write = m->op == WIRE_OP_WRITE || m->op == WIRE_OP_WRITE_IMM;
	bool answer = m->op == WIRE_OP_READ_RESP, asks = m->op == WIRE_OP_READ_REQ,
	     atomic = m->op == WIRE_OP_SWAP || m->op == WIRE_OP_ADD;

	out->last = m->last;
	set(out, F_OP, m->op);
	if (m->op == WIRE_OP_STREAM)
		set(out, F_OFF, w->offset);
	else if (m->op != WIRE_OP_NONE)
		set(out, F_OFF, send || answer ? m->offset : m->remote);
	set(out, F_LEN, asks ? m->len : w->payload_len);
	if (send || m->op == WIRE_OP_WRITE_IMM)
		set(out, F_SSN, m->number);
	if (m->has_imm)
		set(out, F_IMM, m->imm);
	if (answer || asks || atomic)
		set(out, F_RSN, m->number);
	if (write || asks || atomic)
		set(out, F_RKEY, m->rkey);
	if (atomic) {
		set(out, F_LEN, 8);
		set(out, F_OPERAND, m->operand);
		set(out, F_COMPARE, m->compare);
	}
	if (answer && w->payload_len == 8)
		set(out, F_VALUE, be64_get(w->payload));
}

static const char *get_numbered(const struct link *l, const uint8_t *pkt, size_t len, struct packet *out)
{
	struct wire_packet w = {0};

	if (!tp_wire_decode(pkt, len, &w))
		return "it is malformed";
	out->flags = w.flags;
	set(out, F_ID, tp_wire_cid(pkt));
	set(out, F_PSN, w.psn - l->q.their_isn);
	set(out, F_ACK, w.ack - l->q.isn);
	set(out, F_CE, w.ce_count);
	set(out, F_CREDIT, w.credit);
	set(out, F_TS, w.ts);
	set(out, F_ECHO, w.echo);
	if (w.has_window)
		set(out, F_WIN, w.window);
	if (w.piece)
		set(out, F_PIECE, w.piece_off);
	out->more = w.more;
	get_sack(&w, out);
	out->payload = w.payload;
	out->payload_len = w.payload_len;
	if (w.type == WIRE_DATA)
		get_message(&w, out);
	return NULL;
}

static const char *get_init(const uint8_t *pkt, size_t len, struct packet *out)
{
	struct wire_init i;

	if (!tp_wire_get_init(pkt, len, &i))
		return "it is malformed";
	set(out, F_ID, out->type == WIRE_INIT ? i.src_cid : i.dst_cid);
	set(out, F_ATTEMPT, i.attempt);
	set(out, F_SPORT, i.src_port);
	set(out, F_DPORT, i.dst_port);
	set(out, F_NONCE, i.nonce);
	set(out, F_EPOCH, i.epoch);
	set(out, F_WIN, i.window);
	set(out, F_ISN, i.isn);
	set(out, F_DELAY, i.max_ack_delay_us * SD_US);
	set(out, F_MAX, i.max_payload);
	set(out, F_FEATURES, i.features);
	set(out, F_PACKETS, i.window_packets);
	set(out, F_READS, i.reads);
	set(out, F_TS, i.ts);
	set(out, F_ECHO, i.echo);
	memcpy(out->token, i.token, sizeof out->token);
	memcpy(out->cookie, i.cookie, sizeof out->cookie);
	return NULL;
}

static const char *get_reset(const struct link *l, const uint8_t *pkt, size_t len, struct packet *out)
{
	struct wire_reset_packet r;

	if (!tp_wire_get_reset(pkt, len, &r))
		return "it is malformed";
	set(out, F_ID, r.src_cid);
	set(out, F_REASON, r.reason);
	if (r.reason == WIRE_RESET_ACCESS || r.reason == WIRE_RESET_INVALID)
		set(out, F_PSN, r.psn - l->q.isn);
	else if (r.psn)
		return "it names a PSN";
	memcpy(out->token, r.token, sizeof out->token);
	return NULL;
}

static const char *get_find(const uint8_t *pkt, size_t len, struct packet *out)
{
	struct wire_find f;

	if (!tp_wire_get_find(pkt, len, &f))
		return "it is malformed";
	if (out->type == WIRE_FIND_REPLY)
		set(out, F_CODE, f.code);
	set(out, F_PORT, f.target.port);
	set(out, F_NONCE, f.nonce);
	if (f.target.family == 4)
		set(out, F_ADDRESS, be32_get(f.target.ip));
	return NULL;
}

static const char *get_control(const struct link *l, const uint8_t *pkt, size_t len, struct packet *out)
{
	struct wire_nak n;
	struct wire_cookie k;

	switch (out->type) {
	case WIRE_INIT:
	case WIRE_INIT_ACK:
		return get_init(pkt, len, out);
	case WIRE_INIT_NAK:
		if (!tp_wire_get_nak(pkt, len, &n))
			return "it is malformed";
		set(out, F_ID, n.dst_cid);
		set(out, F_NONCE, n.nonce);
		set(out, F_CODE, n.code);
		return pkt[4] == WIRE_VERSION && pkt[5] == WIRE_VERSION ? NULL : "its versions are wrong";
	case WIRE_COOKIE:
		if (!tp_wire_get_cookie(pkt, len, &k))
			return "it is malformed";
		set(out, F_ID, k.dst_cid);
		set(out, F_NONCE, k.nonce);
		memcpy(out->cookie, k.cookie, sizeof out->cookie);
		return NULL;
	case WIRE_RESET:
		return get_reset(l, pkt, len, out);
	case WIRE_FIND:
	case WIRE_FIND_REPLY:
		return get_find(pkt, len, out);
	}
	return "there is no such type";
}

const char *packet_decode(const struct link *l, const uint8_t *pkt, size_t len, struct packet *out)
{
	bool numbered, crc;

	memset(out, 0, sizeof *out);
	if (len < WIRE_BASE_LEN)
		return "it is too short";
	out->type = (uint8_t)tp_wire_type(pkt);
	numbered = out->type <= WIRE_ACK;
	crc = !numbered || l->q.crc;
	if (tp_wire_version(pkt) != WIRE_VERSION)
		return "its version is wrong";
	if (crc && !tp_wire_crc_ok(pkt, len))
		return "its trailer is wrong";
	if (!numbered)
		return get_control(l, pkt, len, out);
	return get_numbered(l, pkt, len - (crc ? WIRE_CRC_LEN : 0), out);
}

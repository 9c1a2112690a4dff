/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wire: encoders and decoders of everything that needs more than a few stores. A decoder accepts what is
 * longer than it knows (a later minor revision), never what is shorter.
 */
#include "transport/wire.h"

#include <string.h>

#include "base/crc32c.h"

bool tp_wire_crc_ok(const uint8_t *pkt, size_t len)
{
	return len > WIRE_CRC_LEN &&
	       sd_crc32c(0, pkt, len - WIRE_CRC_LEN) == be32_get(pkt + len - WIRE_CRC_LEN);
}

size_t tp_wire_seal(uint8_t *pkt, size_t len)
{
	be32_put(pkt + len, sd_crc32c(0, pkt, len));
	return len + WIRE_CRC_LEN;
}

static bool decode_ack_ext(const uint8_t *x, size_t len, struct wire_packet *out)
{
	if (len < WIRE_ACK_LEN || (len - WIRE_ACK_LEN) % 8 || out->has_window)
		return false;
	out->has_window = true;
	out->backlog = x[2];
	out->astray = x[3] & WIRE_A_ASTRAY;
	out->window = be64_get(x + 4);
	out->sack = x + WIRE_ACK_LEN;
	out->sack_words = (uint16_t)((len - WIRE_ACK_LEN) / 8);
	return out->sack_words <= WIRE_SACK_WORDS;
}

size_t tp_wire_put_message(uint8_t *b, const struct wire_message *m)
{
	size_t len = 0;

	switch (m->op) {
	case WIRE_OP_SEND:
		b[0] = WIRE_X_SEND;
		len = m->has_imm ? WIRE_SEND_IMM_LEN : WIRE_SEND_LEN;
		be32_put(b + 4, m->number);
		be32_put(b + 8, m->offset);
		if (m->has_imm)
			be32_put(b + 12, m->imm);
		break;
	case WIRE_OP_WRITE:
	case WIRE_OP_WRITE_IMM:
		b[0] = WIRE_X_WRITE;
		len = m->op == WIRE_OP_WRITE ? WIRE_WRITE_LEN : WIRE_WRITE_IMM_LEN;
		be64_put(b + 4, m->rkey);
		be64_put(b + 12, m->remote);
		if (m->op == WIRE_OP_WRITE)
			break;
		be32_put(b + 20, m->number);
		be32_put(b + 24, m->imm);
		break;
	case WIRE_OP_READ_REQ:
		b[0] = WIRE_X_READ_REQ;
		len = WIRE_READ_REQ_LEN;
		be32_put(b + 4, m->number);
		be64_put(b + 8, m->rkey);
		be64_put(b + 16, m->remote);
		be32_put(b + 24, m->len);
		break;
	case WIRE_OP_READ_RESP:
		b[0] = WIRE_X_READ_RESP;
		len = WIRE_READ_RESP_LEN;
		be32_put(b + 4, m->number);
		be32_put(b + 8, m->offset);
		break;
	case WIRE_OP_SWAP:
	case WIRE_OP_ADD:
		b[0] = WIRE_X_ATOMIC;
		len = WIRE_ATOMIC_LEN;
		be32_put(b + 4, m->number);
		be64_put(b + 8, m->rkey);
		be64_put(b + 16, m->remote);
		be64_put(b + 24, m->operand);
		be64_put(b + 32, m->compare);
		break;
	case WIRE_OP_NONE:
	case WIRE_OP_STREAM:
		return 0;
	}
	b[1] = (uint8_t)(len / 4);
	be16_put(b + 2, m->last ? WIRE_M_LAST : 0);
	return len;
}

/* The extension that belongs to the opcode; false: it is not as it should be. */
static bool decode_message(const uint8_t *x, size_t len, struct wire_message *m)
{
	unsigned flags = be16_get(x + 2);
	bool ok = !(flags & ~WIRE_M_LAST);

	m->last = flags & WIRE_M_LAST;
	switch (m->op) {
	case WIRE_OP_SEND:
		if (!ok || (len != WIRE_SEND_LEN && (len != WIRE_SEND_IMM_LEN || !m->last)))
			return false;
		m->number = be32_get(x + 4);
		m->offset = be32_get(x + 8);
		m->has_imm = len == WIRE_SEND_IMM_LEN;
		m->imm = m->has_imm ? be32_get(x + 12) : 0;
		return true;
	case WIRE_OP_WRITE:
	case WIRE_OP_WRITE_IMM:
		m->has_imm = m->op == WIRE_OP_WRITE_IMM;
		if (!ok || len != (m->has_imm ? WIRE_WRITE_IMM_LEN : WIRE_WRITE_LEN) ||
			(m->has_imm && !m->last))
			return false;
		m->rkey = be64_get(x + 4);
		m->remote = be64_get(x + 12);
		m->number = m->has_imm ? be32_get(x + 20) : 0;
		m->imm = m->has_imm ? be32_get(x + 24) : 0;
		return true;
	case WIRE_OP_READ_REQ:
		if (!ok || len != WIRE_READ_REQ_LEN)
			return false;
		m->number = be32_get(x + 4);
		m->rkey = be64_get(x + 8);
		m->remote = be64_get(x + 16);
		m->len = be32_get(x + 24);
		return m->len <= WIRE_MAX_MESSAGE;
	case WIRE_OP_READ_RESP:
		if (!ok || len != WIRE_READ_RESP_LEN)
			return false;
		m->number = be32_get(x + 4);
		m->offset = be32_get(x + 8);
		return true;
	case WIRE_OP_SWAP:
	case WIRE_OP_ADD:
		if (!ok || len != WIRE_ATOMIC_LEN)
			return false;
		m->number = be32_get(x + 4);
		m->rkey = be64_get(x + 8);
		m->remote = be64_get(x + 16);
		m->operand = be64_get(x + 24);
		m->compare = be64_get(x + 32);
		return true;
	case WIRE_OP_NONE:
	case WIRE_OP_STREAM:
		break;
	}
	return false;
}

static bool decode_piece(const uint8_t *x, size_t len, struct wire_packet *out)
{
	unsigned flags = be16_get(x + 2);
	uint32_t off;

	if (len != WIRE_PIECE_LEN || flags & ~WIRE_P_MORE || out->piece)
		return false;
	off = be32_get(x + 4);
	out->piece = true;
	out->more = flags & WIRE_P_MORE;
	out->piece_off = (uint16_t)off;
	return off <= UINT16_MAX;
}

/* The extension that a DATA packet with this opcode has; 0: none. */
static uint8_t extension_of(uint8_t op)
{
	static const uint8_t extensions[] = {
		[WIRE_OP_STREAM] = WIRE_X_STREAM,
		[WIRE_OP_SEND] = WIRE_X_SEND,
		[WIRE_OP_WRITE] = WIRE_X_WRITE,
		[WIRE_OP_WRITE_IMM] = WIRE_X_WRITE,
		[WIRE_OP_READ_REQ] = WIRE_X_READ_REQ,
		[WIRE_OP_READ_RESP] = WIRE_X_READ_RESP,
		[WIRE_OP_SWAP] = WIRE_X_ATOMIC,
		[WIRE_OP_ADD] = WIRE_X_ATOMIC,
	};

	return op < sizeof extensions ? extensions[op] : 0;
}

/* own: the extension that the opcode wants; *found: it is there. */
static bool decode_extensions(
	const uint8_t *x, const uint8_t *end, struct wire_packet *out, uint8_t own, bool *found)
{
	while (x < end) {
		size_t len;

		if (end - x < 4)
			return false;
		len = (size_t)x[1] * 4;
		if (!len || len > (size_t)(end - x))
			return false;
		if (x[0] == WIRE_X_ACK) {
			if (!decode_ack_ext(x, len, out))
				return false;
		} else if (x[0] >= WIRE_X_STREAM && x[0] <= WIRE_X_ATOMIC) {
			if (x[0] != own || *found)
				return false;
			*found = true;
			if (own == WIRE_X_STREAM && len == WIRE_STREAM_LEN)
				out->offset = be64_get(x + 4);
			else if (own == WIRE_X_STREAM || !decode_message(x, len, &out->msg))
				return false;
		} else if (x[0] == WIRE_X_PIECE) {
			if (!decode_piece(x, len, out))
				return false;
		} else if (x[0] & WIRE_X_CRITICAL) {
			return false;
		}
		x += len;
	}
	return true;
}

/* What has bytes can come in pieces; what ends something is in the last one. */
static bool is_sound_piece(const struct wire_packet *p)
{
	if (!p->payload_len || p->piece_off + p->payload_len > UINT16_MAX)
		return false;
	return !p->more || !(p->flags & WIRE_F_FIN || p->msg.last);
}

/* DATA: does what it has fit together? */
static bool is_sound(struct wire_packet *p, uint8_t own, bool found)
{
	bool fin = p->flags & WIRE_F_FIN;

	if (p->payload_len > UINT16_MAX || found != (own != 0) || (p->piece && !is_sound_piece(p)))
		return false;
	switch (p->msg.op) {
	case WIRE_OP_STREAM:
		return p->payload_len || fin;
	case WIRE_OP_NONE:
		return fin && !p->payload_len;
	case WIRE_OP_SEND:
	case WIRE_OP_WRITE:
	case WIRE_OP_WRITE_IMM:
	case WIRE_OP_READ_RESP:
		return !fin;
	case WIRE_OP_READ_REQ:
	case WIRE_OP_SWAP:
	case WIRE_OP_ADD:
		return !fin && !p->payload_len;
	}
	return false;
}

bool tp_wire_decode(const uint8_t *pkt, size_t len, struct wire_packet *out)
{
	size_t hdr;
	bool found = false;
	uint8_t own;

	if (len < WIRE_BASE_LEN || tp_wire_version(pkt) != WIRE_VERSION)
		return false;
	hdr = (size_t)pkt[3] * 4;
	if (hdr < WIRE_BASE_LEN || hdr > len)
		return false;
	out->type = pkt[0] & 15;
	out->flags = pkt[1];
	out->credit = be16_get(pkt + 4);
	out->ce_count = be16_get(pkt + 6);
	out->psn = be32_get(pkt + 16);
	out->ack = be32_get(pkt + 20);
	out->ts = be32_get(pkt + 24);
	out->echo = be32_get(pkt + 28);
	out->has_window = out->piece = out->more = false;
	out->sack_words = 0;
	out->sack = NULL;
	out->payload = pkt + hdr;
	out->payload_len = len - hdr;
	/* nearly every packet is a DATA packet with a STREAM extension and nothing else */
	out->msg.op = (enum wire_opcode)pkt[2];
	if (out->type == WIRE_DATA && pkt[2] == WIRE_OP_STREAM && hdr == WIRE_BASE_LEN + WIRE_STREAM_LEN &&
		pkt[WIRE_BASE_LEN] == WIRE_X_STREAM) {
		out->offset = be64_get(pkt + WIRE_BASE_LEN + 4);
		return pkt[WIRE_BASE_LEN + 1] == WIRE_STREAM_LEN / 4 && out->payload_len <= UINT16_MAX &&
		       (out->payload_len || (out->flags & WIRE_F_FIN));
	}
	out->msg = (struct wire_message){.op = (enum wire_opcode)pkt[2]};
	own = out->type == WIRE_DATA ? extension_of(pkt[2]) : 0;
	if (!decode_extensions(pkt + WIRE_BASE_LEN, pkt + hdr, out, own, &found))
		return false;
	return out->type == WIRE_DATA
		       ? is_sound(out, own, found)
		       : out->type == WIRE_ACK && pkt[2] == WIRE_OP_NONE && !out->payload_len && !out->more;
}

static void put_head(uint8_t *b, enum wire_type type, unsigned code, size_t len)
{
	memset(b, 0, len);
	b[0] = (uint8_t)(WIRE_VERSION << 4 | type);
	b[2] = (uint8_t)code;
	b[3] = (uint8_t)(len / 4);
}

/* The header length of a control packet may exceed what we know, the packet may not be shorter than it. */
static bool control_fits(const uint8_t *pkt, size_t len, size_t least)
{
	return len >= least + WIRE_CRC_LEN && (size_t)pkt[3] * 4 >= least &&
	       (size_t)pkt[3] * 4 <= len - WIRE_CRC_LEN;
}

size_t tp_wire_put_init(uint8_t *b, enum wire_type type, const struct wire_init *i)
{
	put_head(b, type, i->attempt, WIRE_INIT_LEN);
	be16_put(b + 4, i->src_port);
	be16_put(b + 6, i->dst_port);
	be64_put(b + 8, i->dst_cid);
	be64_put(b + 16, i->src_cid);
	be64_put(b + 24, i->nonce);
	be64_put(b + 32, i->epoch);
	be64_put(b + 40, i->window);
	be32_put(b + 48, i->isn);
	be32_put(b + 52, i->max_ack_delay_us);
	be16_put(b + 56, i->max_payload);
	be16_put(b + 58, i->features);
	be16_put(b + 60, i->window_packets);
	be16_put(b + 62, i->reads);
	be32_put(b + 64, i->ts);
	be32_put(b + 68, i->echo);
	memcpy(b + 72, i->token, sizeof i->token);
	memcpy(b + 88, i->cookie, sizeof i->cookie);
	return tp_wire_seal(b, WIRE_INIT_LEN);
}

bool tp_wire_get_init(const uint8_t *pkt, size_t len, struct wire_init *out)
{
	if (!control_fits(pkt, len, WIRE_INIT_LEN))
		return false;
	out->attempt = pkt[2];
	out->src_port = be16_get(pkt + 4);
	out->dst_port = be16_get(pkt + 6);
	out->dst_cid = be64_get(pkt + 8);
	out->src_cid = be64_get(pkt + 16);
	out->nonce = be64_get(pkt + 24);
	out->epoch = be64_get(pkt + 32);
	out->window = be64_get(pkt + 40);
	out->isn = be32_get(pkt + 48);
	out->max_ack_delay_us = be32_get(pkt + 52);
	out->max_payload = be16_get(pkt + 56);
	out->features = be16_get(pkt + 58);
	out->window_packets = be16_get(pkt + 60);
	out->reads = be16_get(pkt + 62);
	out->ts = be32_get(pkt + 64);
	out->echo = be32_get(pkt + 68);
	memcpy(out->token, pkt + 72, sizeof out->token);
	memcpy(out->cookie, pkt + 88, sizeof out->cookie);
	return out->src_cid && out->max_payload >= WIRE_MIN_PAYLOAD && out->window_packets;
}

size_t tp_wire_put_nak(uint8_t *b, const struct wire_nak *n)
{
	put_head(b, WIRE_INIT_NAK, n->code, WIRE_NAK_LEN);
	b[4] = b[5] = WIRE_VERSION; /* lowest and highest version spoken here */
	be64_put(b + 8, n->dst_cid);
	be64_put(b + 16, n->nonce);
	return tp_wire_seal(b, WIRE_NAK_LEN);
}

bool tp_wire_get_nak(const uint8_t *pkt, size_t len, struct wire_nak *out)
{
	if (!control_fits(pkt, len, WIRE_NAK_LEN))
		return false;
	out->code = pkt[2];
	out->dst_cid = be64_get(pkt + 8);
	out->nonce = be64_get(pkt + 16);
	return out->code != 0;
}

size_t tp_wire_put_cookie(uint8_t *b, const struct wire_cookie *c)
{
	put_head(b, WIRE_COOKIE, 0, WIRE_COOKIE_LEN);
	be64_put(b + 8, c->dst_cid);
	be64_put(b + 16, c->nonce);
	memcpy(b + 24, c->cookie, sizeof c->cookie);
	return tp_wire_seal(b, WIRE_COOKIE_LEN);
}

bool tp_wire_get_cookie(const uint8_t *pkt, size_t len, struct wire_cookie *out)
{
	if (!control_fits(pkt, len, WIRE_COOKIE_LEN))
		return false;
	out->dst_cid = be64_get(pkt + 8);
	out->nonce = be64_get(pkt + 16);
	memcpy(out->cookie, pkt + 24, sizeof out->cookie);
	return true;
}

size_t tp_wire_put_reset(uint8_t *b, const struct wire_reset_packet *r)
{
	put_head(b, WIRE_RESET, r->reason, WIRE_RESET_LEN);
	be32_put(b + 4, r->psn);
	be64_put(b + 8, r->src_cid);
	memcpy(b + 16, r->token, sizeof r->token);
	return tp_wire_seal(b, WIRE_RESET_LEN);
}

bool tp_wire_get_reset(const uint8_t *pkt, size_t len, struct wire_reset_packet *out)
{
	if (!control_fits(pkt, len, WIRE_RESET_LEN))
		return false;
	out->reason = pkt[2];
	out->psn = be32_get(pkt + 4);
	out->src_cid = be64_get(pkt + 8);
	memcpy(out->token, pkt + 16, sizeof out->token);
	return true;
}

size_t tp_wire_put_find(uint8_t *b, enum wire_type type, const struct wire_find *f)
{
	put_head(b, type, f->code, WIRE_FIND_LEN);
	be16_put(b + 4, f->target.port);
	b[6] = f->target.family;
	be64_put(b + 8, f->nonce);
	memcpy(b + 16, f->target.ip, sizeof f->target.ip);
	return tp_wire_seal(b, WIRE_FIND_LEN);
}

bool tp_wire_get_find(const uint8_t *pkt, size_t len, struct wire_find *out)
{
	if (!control_fits(pkt, len, WIRE_FIND_LEN))
		return false;
	memset(&out->target, 0, sizeof out->target);
	out->code = pkt[2];
	out->target.port = be16_get(pkt + 4);
	out->target.family = pkt[6];
	out->nonce = be64_get(pkt + 8);
	if (out->target.family != 4 && out->target.family != 6)
		return false;
	memcpy(out->target.ip, pkt + 16, sd_addr_ip_len(&out->target));
	return true;
}

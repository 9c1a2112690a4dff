/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libFuzzer target: any bytes as every kind of packet. What a decoder accepts has to lie inside the packet,
 * and says the same when it has been encoded again. And the bytes as the fields of every kind of packet: what
 * is encoded has to be accepted, and to say what it was made of.
 */
#include <string.h>

#include "base/bytes.h"
#include "script.h"
#include "transport/transport.h"
#include "transport/wire.h"

#define CID 0x0123456789abcdefull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* --- DATA and ACK --- */

static bool same_message(const struct wire_message *a, const struct wire_message *b)
{
	return a->op == b->op && a->last == b->last && a->has_imm == b->has_imm && a->number == b->number &&
	       a->imm == b->imm && a->offset == b->offset && a->len == b->len && a->rkey == b->rkey &&
	       a->remote == b->remote && a->operand == b->operand && a->compare == b->compare;
}

static bool same_packet(const struct wire_packet *a, const struct wire_packet *b)
{
	if (a->type != b->type || a->flags != b->flags || a->credit != b->credit ||
		a->ce_count != b->ce_count || a->psn != b->psn || a->ack != b->ack || a->ts != b->ts ||
		a->echo != b->echo || a->has_window != b->has_window || a->sack_words != b->sack_words ||
		a->msg.op != b->msg.op || a->payload_len != b->payload_len)
		return false;
	if (a->has_window && a->window != b->window)
		return false;
	for (unsigned k = 0; k < a->sack_words; k++)
		if (tp_wire_get_sack(a, k) != tp_wire_get_sack(b, k))
			return false;
	if (a->payload_len && memcmp(a->payload, b->payload, a->payload_len))
		return false;
	if (a->type != WIRE_DATA)
		return true;
	return a->msg.op == WIRE_OP_STREAM ? a->offset == b->offset : same_message(&a->msg, &b->msg);
}

/* Encodes the packet in a block of just its length; *len gets that. To be freed. */
static uint8_t *encode(const struct wire_packet *p, size_t *len)
{
	uint8_t head[WIRE_BASE_LEN + 64 + WIRE_ACK_LEN + 8 * WIRE_SACK_WORDS], *out;
	size_t n = WIRE_BASE_LEN;

	if (p->type == WIRE_DATA && p->msg.op == WIRE_OP_STREAM) {
		tp_wire_put_stream(head + n, p->offset);
		n += WIRE_STREAM_LEN;
	} else if (p->type == WIRE_DATA) {
		n += tp_wire_put_message(head + n, &p->msg);
	}
	if (p->has_window) {
		size_t ext = tp_wire_put_ack(head + n, p->window, p->sack_words);

		for (unsigned k = 0; k < p->sack_words; k++)
			tp_wire_put_sack(head + n, k, tp_wire_get_sack(p, k));
		n += ext;
	}
	require(n <= sizeof head);
	tp_wire_put_base(head, (enum wire_type)p->type, p->flags, p->msg.op, n - WIRE_BASE_LEN, p, CID);
	*len = n + p->payload_len;
	out = malloc(*len);
	require(out);
	memcpy(out, head, n);
	if (p->payload_len)
		memcpy(out + n, p->payload, p->payload_len);
	return out;
}

static void encode_again(const struct wire_packet *p)
{
	struct wire_packet again;
	size_t len;
	uint8_t *pkt = encode(p, &len);

	require(tp_wire_cid(pkt) == CID && tp_wire_version(pkt) == WIRE_VERSION);
	require(tp_wire_decode(pkt, len, &again) && same_packet(p, &again));
	free(pkt);
}

static void check_packet(const uint8_t *data, size_t len)
{
	struct wire_packet p;

	if (!tp_wire_decode(data, len, &p))
		return;
	require(p.type == WIRE_DATA || p.type == WIRE_ACK);
	require(p.payload >= data + WIRE_BASE_LEN && p.payload + p.payload_len == data + len);
	require(p.sack_words <= WIRE_SACK_WORDS && (!p.sack_words || p.has_window));
	require(p.msg.op == WIRE_OP_STREAM || p.msg.len <= WIRE_MAX_MESSAGE);
	encode_again(&p);
}

/* --- control packets --- */

/* len bytes of a block of its own, with the trailer put right. */
static uint8_t *sealed(const uint8_t *data, size_t len)
{
	uint8_t *pkt = malloc(len + WIRE_CRC_LEN);

	require(pkt);
	memcpy(pkt, data, len);
	require(tp_wire_seal(pkt, len) == len + WIRE_CRC_LEN);
	require(tp_wire_crc_ok(pkt, len + WIRE_CRC_LEN));
	return pkt;
}

static void check_init(const uint8_t *pkt, size_t len)
{
	uint8_t once[WIRE_CONTROL_MAX], twice[WIRE_CONTROL_MAX];
	enum wire_type type = (enum wire_type)tp_wire_type(pkt);
	struct wire_init i;

	if (!tp_wire_get_init(pkt, len, &i))
		return;
	require(i.src_cid && i.max_payload >= WIRE_MIN_PAYLOAD && i.window_packets);
	require(tp_wire_put_init(once, type, &i) == sizeof once);
	require(tp_wire_get_init(once, sizeof once, &i));
	tp_wire_put_init(twice, type, &i);
	require(!memcmp(once, twice, sizeof once) && tp_wire_crc_ok(once, sizeof once));
	/* all but its length, its reserved byte and its trailer is a field */
	require(!memcmp(once + 4, pkt + 4, WIRE_INIT_LEN - 4) && once[2] == pkt[2]);
}

static void check_nak(const uint8_t *pkt, size_t len)
{
	uint8_t once[WIRE_CONTROL_MAX];
	struct wire_nak n;

	if (!tp_wire_get_nak(pkt, len, &n))
		return;
	require(n.code);
	len = tp_wire_put_nak(once, &n);
	require(tp_wire_crc_ok(once, len) && tp_wire_type(once) == WIRE_INIT_NAK && once[2] == pkt[2]);
	require(!memcmp(once + 8, pkt + 8, 16));
}

static void check_cookie(const uint8_t *pkt, size_t len)
{
	uint8_t once[WIRE_CONTROL_MAX];
	struct wire_cookie c;

	if (!tp_wire_get_cookie(pkt, len, &c))
		return;
	len = tp_wire_put_cookie(once, &c);
	require(tp_wire_crc_ok(once, len) && tp_wire_type(once) == WIRE_COOKIE);
	require(!memcmp(once + 8, pkt + 8, WIRE_COOKIE_LEN - 8));
}

static void check_reset(const uint8_t *pkt, size_t len)
{
	uint8_t once[WIRE_CONTROL_MAX];
	struct wire_reset_packet r;

	if (!tp_wire_get_reset(pkt, len, &r))
		return;
	len = tp_wire_put_reset(once, &r);
	require(tp_wire_crc_ok(once, len) && tp_wire_type(once) == WIRE_RESET && once[2] == pkt[2]);
	require(!memcmp(once + 4, pkt + 4, WIRE_RESET_LEN - 4));
}

static void check_find(const uint8_t *pkt, size_t len)
{
	uint8_t once[WIRE_CONTROL_MAX];
	struct wire_find f;

	if (!tp_wire_get_find(pkt, len, &f))
		return;
	require(f.target.family == 4 || f.target.family == 6);
	len = tp_wire_put_find(once, (enum wire_type)tp_wire_type(pkt), &f);
	require(tp_wire_crc_ok(once, len) && once[2] == pkt[2] && !memcmp(once + 4, pkt + 4, 3));
	require(!memcmp(once + 8, pkt + 8, 8u + sd_addr_ip_len(&f.target)));
}

static void check_control(const uint8_t *data, size_t len)
{
	uint8_t *pkt = sealed(data, len);

	len += WIRE_CRC_LEN;
	check_init(pkt, len);
	check_nak(pkt, len);
	check_cookie(pkt, len);
	check_reset(pkt, len);
	check_find(pkt, len);
	pkt[data[0] % len] ^= (uint8_t)(data[1] | 1); /* one byte is never damaged unseen */
	require(!tp_wire_crc_ok(pkt, len));
	free(pkt);
}

/* --- fields --- */

static struct wire_message message_of(struct script *s, enum wire_opcode op)
{
	struct wire_message m = {.op = op};
	bool asks = op == WIRE_OP_READ_REQ || op == WIRE_OP_SWAP || op == WIRE_OP_ADD;

	if (op == WIRE_OP_NONE || op == WIRE_OP_STREAM)
		return m;
	m.last = !asks && script_byte(s) & 1;
	if (op != WIRE_OP_WRITE)
		m.number = script_word(s);
	if (op == WIRE_OP_SEND || op == WIRE_OP_READ_RESP)
		m.offset = script_word(s);
	if (op == WIRE_OP_WRITE || op == WIRE_OP_WRITE_IMM || asks) {
		m.rkey = script_long(s);
		m.remote = script_long(s);
	}
	if (op == WIRE_OP_READ_REQ)
		m.len = script_word(s) % (WIRE_MAX_MESSAGE + 1);
	if (op == WIRE_OP_SWAP || op == WIRE_OP_ADD) {
		m.operand = script_long(s);
		m.compare = script_long(s);
	}
	m.last |= op == WIRE_OP_WRITE_IMM;
	m.has_imm = op == WIRE_OP_WRITE_IMM || (op == WIRE_OP_SEND && m.last && script_byte(s) & 1);
	m.imm = m.has_imm ? script_word(s) : 0;
	return m;
}

static void check_fields(struct script *s)
{
	unsigned type = 1 + script_below(s, 2), op = script_below(s, WIRE_OP_ADD + 1);
	uint8_t sack[8 * WIRE_SACK_WORDS], payload[64] = {0};
	struct wire_packet p = {.type = (uint8_t)type, .flags = script_byte(s), .payload = payload};

	p.credit = (uint16_t)script_word(s);
	p.ce_count = (uint16_t)script_word(s);
	p.psn = script_word(s);
	p.ack = script_word(s);
	p.ts = script_word(s);
	p.echo = script_word(s);
	p.has_window = script_byte(s) & 1;
	if (p.has_window) {
		p.window = script_long(s);
		p.sack_words = (uint16_t)script_below(s, WIRE_SACK_WORDS + 1);
		for (size_t i = 0; i < 8u * p.sack_words; i++)
			sack[i] = script_byte(s);
		p.sack = sack;
	}
	if (type == WIRE_DATA) {
		p.msg = message_of(s, (enum wire_opcode)op);
		p.offset = op == WIRE_OP_STREAM ? script_long(s) : 0;
		p.payload_len = op == WIRE_OP_STREAM || op == WIRE_OP_SEND || op == WIRE_OP_WRITE ||
						op == WIRE_OP_WRITE_IMM || op == WIRE_OP_READ_RESP
					? script_below(s, sizeof payload)
					: 0;
		if (op == WIRE_OP_NONE || (op == WIRE_OP_STREAM && !p.payload_len))
			p.flags |= WIRE_F_FIN;
		else if (op != WIRE_OP_STREAM)
			p.flags &= (uint8_t)~WIRE_F_FIN;
	}
	encode_again(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct script s = {data, data + len};

	check_packet(data, len);
	tp_wire_crc_ok(data, len);
	for (unsigned n = 1; n <= TP_ENGINES; n++) {
		int engine = tp_steer(data, len, n);

		require(engine == TP_FOR_ALL || (engine >= 0 && engine < (int)n));
	}
	check_fields(&s);
	if (len < WIRE_BASE_LEN) /* tp_input looks no further either */
		return 0;
	check_control(data, len);
	return 0;
}

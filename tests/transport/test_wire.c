/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packet format against docs/vectors.json, bytes laid out by another codec, so that a change of the
 * format is never an accident; and decoders against what no encoder makes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"
#include "transport/wire.h"
#include "vectors.h"

static const struct vector *now; /* the one under test, for messages */

#define expect(condition)                                                                                    \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			fail_msg("%s: not %s", now->name, #condition);                                       \
	} while (0)

/* Decodes a copy of exactly len bytes, so that a sanitizer sees a read beyond. */
static bool decode(const uint8_t *pkt, size_t len, struct wire_packet *out)
{
	static uint8_t *copy;

	free(copy); /* the previous one: what was decoded points into it */
	copy = malloc(len ? len : 1);
	memcpy(copy, pkt, len);
	memset(out, 0xa5, sizeof *out);
	return tp_wire_decode(copy, len, out);
}

static bool of_connection(const struct vector *v)
{
	unsigned type = tp_wire_type(v->pkt);

	return v->len >= WIRE_BASE_LEN && tp_wire_version(v->pkt) == WIRE_VERSION &&
	       (type == WIRE_DATA || type == WIRE_ACK);
}

static size_t without_trailer(const struct vector *v)
{
	return v->crc ? v->len - WIRE_CRC_LEN : v->len;
}

/* --- DATA and ACK --- */

static bool same_message(const struct wire_message *a, const struct wire_message *b)
{
	return a->op == b->op && a->last == b->last && a->has_imm == b->has_imm && a->number == b->number &&
	       a->imm == b->imm && a->offset == b->offset && a->len == b->len && a->rkey == b->rkey &&
	       a->remote == b->remote && a->operand == b->operand && a->compare == b->compare;
}

static void check_decoded(const struct wire_packet *want)
{
	bool stream = want->type == WIRE_DATA && want->msg.op == WIRE_OP_STREAM;
	struct wire_packet p;

	expect(decode(now->pkt, without_trailer(now), &p));
	expect(p.type == want->type && p.flags == want->flags && p.msg.op == want->msg.op);
	expect(p.credit == want->credit && p.ce_count == want->ce_count);
	expect(p.psn == want->psn && p.ack == want->ack && p.ts == want->ts && p.echo == want->echo);
	expect(tp_wire_cid(now->pkt) == vector_number(now->fields, "dst_cid"));
	expect(stream ? p.offset == want->offset : same_message(&p.msg, &want->msg));
	expect(p.piece == want->piece && p.more == want->more);
	expect(!want->piece || p.piece_off == want->piece_off);
	expect(p.has_window == want->has_window && p.sack_words == want->sack_words);
	expect(!want->has_window ||
		(p.window == want->window && p.backlog == want->backlog && p.astray == want->astray));
	expect(!want->sack_words || !memcmp(p.sack, want->sack, 8 * (size_t)want->sack_words));
	expect(p.payload_len == want->payload_len && !memcmp(p.payload, want->payload, p.payload_len));
}

static size_t put_extension(uint8_t *b, const json_t *x, const struct wire_packet *p)
{
	size_t len;

	if (vector_number(x, "type") == WIRE_X_STREAM) {
		tp_wire_put_stream(b, p->offset);
		return WIRE_STREAM_LEN;
	}
	if (vector_number(x, "type") == WIRE_X_PIECE) {
		tp_wire_put_piece(b, p->piece_off, p->more);
		return WIRE_PIECE_LEN;
	}
	if (vector_number(x, "type") != WIRE_X_ACK)
		return tp_wire_put_message(b, &p->msg);
	len = tp_wire_put_ack(b, p->window, p->sack_words);
	tp_wire_put_queue(b, p->backlog, p->astray);
	for (unsigned k = 0; k < p->sack_words; k++)
		tp_wire_put_sack(b, k, tp_wire_get_sack(p, k));
	return len;
}

static size_t encode(uint8_t *b, const struct wire_packet *p)
{
	size_t i, ext = 0, len;
	json_t *x;

	json_array_foreach(json_object_get(now->fields, "extensions"), i, x) ext +=
		put_extension(b + WIRE_BASE_LEN + ext, x, p);
	tp_wire_put_base(b, (enum wire_type)p->type, p->flags, p->msg.op, ext, p,
		vector_number(now->fields, "dst_cid"));
	len = WIRE_BASE_LEN + ext;
	memcpy(b + len, p->payload, p->payload_len);
	len += p->payload_len;
	return now->crc ? tp_wire_seal(b, len) : len;
}

/* --- control packets --- */

static size_t check_init(uint8_t *buf)
{
	struct wire_init want, got = {0};

	vector_init(now->fields, &want);
	expect(tp_wire_get_init(now->pkt, now->len, &got));
	assert_memory_equal(&got, &want, sizeof got);
	return tp_wire_put_init(buf, (enum wire_type)tp_wire_type(now->pkt), &want);
}

static size_t check_find(uint8_t *buf)
{
	struct wire_find want, got = {0};

	vector_find(now->fields, &want);
	expect(tp_wire_get_find(now->pkt, now->len, &got));
	expect(got.code == want.code && got.nonce == want.nonce);
	assert_memory_equal(&got.target, &want.target, sizeof got.target);
	return tp_wire_put_find(buf, (enum wire_type)tp_wire_type(now->pkt), &want);
}

static size_t check_nak(uint8_t *buf)
{
	struct wire_nak got = {0};

	expect(tp_wire_get_nak(now->pkt, now->len, &got));
	expect(got.code == vector_number(now->fields, "code"));
	expect(got.dst_cid == vector_number(now->fields, "dst_cid"));
	expect(got.nonce == vector_number(now->fields, "nonce"));
	return tp_wire_put_nak(buf, &got);
}

static size_t check_cookie(uint8_t *buf)
{
	struct wire_cookie got = {0};
	uint8_t cookie[16];

	vector_bytes(now->fields, "cookie", cookie, sizeof cookie);
	expect(tp_wire_get_cookie(now->pkt, now->len, &got));
	expect(got.dst_cid == vector_number(now->fields, "dst_cid"));
	expect(got.nonce == vector_number(now->fields, "nonce"));
	assert_memory_equal(got.cookie, cookie, sizeof cookie);
	return tp_wire_put_cookie(buf, &got);
}

static size_t check_reset(uint8_t *buf)
{
	struct wire_reset_packet got = {0};
	uint8_t token[16];

	vector_bytes(now->fields, "token", token, sizeof token);
	expect(tp_wire_get_reset(now->pkt, now->len, &got));
	expect(got.reason == vector_number(now->fields, "reason"));
	expect(got.psn == vector_number(now->fields, "psn"));
	expect(got.src_cid == vector_number(now->fields, "src_cid"));
	assert_memory_equal(got.token, token, sizeof token);
	return tp_wire_put_reset(buf, &got);
}

/* Decodes the vector's packet, which has to say what its fields say, and encodes it. */
static size_t check_packet(uint8_t *buf)
{
	uint8_t store[VECTOR_MAX];
	struct wire_packet want;

	switch (tp_wire_type(now->pkt)) {
	case WIRE_DATA:
	case WIRE_ACK:
		vector_packet(now->fields, &want, store);
		check_decoded(&want);
		return now->sent ? encode(buf, &want) : 0;
	case WIRE_INIT:
	case WIRE_INIT_ACK:
		return check_init(buf);
	case WIRE_INIT_NAK:
		return check_nak(buf);
	case WIRE_COOKIE:
		return check_cookie(buf);
	case WIRE_RESET:
		return check_reset(buf);
	case WIRE_FIND:
	case WIRE_FIND_REPLY:
		return check_find(buf);
	}
	fail_msg("%s: a type that is not tested", now->name);
	return 0;
}

static void good_packets(void **state)
{
	unsigned types = 0;
	size_t n;

	now = vectors(&n);
	for (const struct vector *end = now + n; now < end; now++) {
		uint8_t buf[VECTOR_MAX];
		size_t len;

		if (now->dropped)
			continue;
		memset(buf, 0xa5, sizeof buf);
		len = check_packet(buf);
		if (now->sent)
			expect(len == now->len && !memcmp(buf, now->pkt, len));
		types |= 1u << tp_wire_type(now->pkt);
	}
	assert_int_equal(types, 0x3fe);
}

/* What is counted of packets that do not get beyond the format. */
static uint64_t bad(const struct puppet *p)
{
	return p->tp->stats.rx_bad_header + p->tp->stats.rx_bad_crc;
}

/* Those of a connection by the decoder, all others by an endpoint, which looks at version and type. */
static void dropped_packets(void **state)
{
	struct puppet p;
	size_t n;

	puppet_init(&p);
	puppet_start(&p);
	now = vectors(&n);
	for (const struct vector *end = now + n; now < end; now++) {
		uint64_t before = bad(&p);
		struct wire_packet w;

		if (of_connection(now)) {
			bool whole = !now->crc || tp_wire_crc_ok(now->pkt, now->len);

			expect((whole && decode(now->pkt, without_trailer(now), &w)) == !now->dropped);
			continue;
		}
		puppet_input(&p, now->pkt, now->len);
		puppet_flush(&p);
		expect(bad(&p) == before + (now->dropped != NULL));
	}
	assert_true(puppet_stop(&p));
}

/* --- values under a key --- */

static void check_token(struct puppet *p, const json_t *o)
{
	uint8_t want[16], got[16];

	vector_bytes(o, "key", (uint8_t *)p->tp->key_node.k, 16);
	vector_bytes(o, "token", want, sizeof want);
	tp_control_token(p->tp, vector_number(o, "cid"), got);
	assert_memory_equal(got, want, sizeof got);
}

/* The second connection that is half open, of one that may be, gets a cookie. */
static void check_made_cookie(struct puppet *p, const json_t *o)
{
	struct wire_init i = {.window_packets = 1, .max_payload = 1000, .src_cid = 1};
	struct wire_cookie got;
	uint8_t buf[WIRE_CONTROL_MAX], want[16];

	vector_bytes(o, "key", (uint8_t *)p->tp->key_cookie.k, 16);
	vector_bytes(o, "cookie", want, sizeof want);
	assert_int_equal(sd_addr_parse(vector_text(o, "initiator"), &p->peer), 0);
	assert_int_equal(sd_addr_parse(vector_text(o, "responder"), &p->local), 0);
	p->now = vector_number(o, "time");
	puppet_listen(p, 1);
	i.src_port = (uint16_t)vector_number(o, "src_port");
	i.dst_port = (uint16_t)vector_number(o, "dst_port");
	puppet_input(p, buf, tp_wire_put_init(buf, WIRE_INIT, &i));
	puppet_flush(p);
	assert_int_equal(tp_wire_type(p->out), WIRE_INIT_ACK);
	i.src_cid = vector_number(o, "src_cid");
	i.nonce = vector_number(o, "nonce");
	puppet_input(p, buf, tp_wire_put_init(buf, WIRE_INIT, &i));
	puppet_flush(p);
	assert_int_equal(tp_wire_type(p->out), WIRE_COOKIE);
	assert_true(tp_wire_get_cookie(p->out, p->out_len, &got));
	assert_memory_equal(got.cookie, want, sizeof want);
}

static void check_nonce(struct puppet *p, const json_t *o)
{
	struct tp_path path = {.max_payload = 1472};
	struct sd_addr target;
	struct wire_find got;

	vector_bytes(o, "key", (uint8_t *)p->tp->key_find.k, 16);
	assert_int_equal(sd_addr_parse(vector_text(o, "address"), &target), 0);
	target.port = (uint16_t)vector_number(o, "port");
	assert_int_equal(tp_find(p->tp, &path, &target), 0);
	assert_true(puppet_output(p));
	assert_true(tp_wire_get_find(p->out, p->out_len, &got));
	assert_int_equal(got.nonce, vector_number(o, "nonce"));
}

static void keyed_values(void **state)
{
	static const struct {
		const char *name;
		void (*check)(struct puppet *p, const json_t *o);
	} kinds[] = {
		{"reset token", check_token}, {"cookie", check_made_cookie}, {"nonce of FIND", check_nonce}};
	unsigned seen = 0;
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)vectors_keyed(), i, o)
	{
		for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
			struct puppet p;

			if (strcmp(kinds[k].name, vector_text(o, "name")))
				continue;
			puppet_init(&p);
			puppet_start(&p);
			kinds[k].check(&p, o);
			assert_true(puppet_stop(&p));
			seen |= 1u << k;
		}
	}
	assert_int_equal(seen, 7);
}

/* --- every byte and every bit --- */

/* Whatever is cut off, nothing beyond the end is read and no header is taken for a whole one. */
static void truncation_at_every_byte(void **state)
{
	size_t n;

	now = vectors(&n);
	for (const struct vector *end = now + n; now < end; now++) {
		size_t len = without_trailer(now), payload = 0;
		struct wire_packet p;

		if (now->dropped || !of_connection(now))
			continue;
		expect(decode(now->pkt, len, &p));
		if (p.type == WIRE_DATA)
			payload = p.payload_len;
		for (size_t cut = 0; cut < len - payload; cut++)
			expect(!decode(now->pkt, cut, &p));
	}
}

static bool control_decodes(const uint8_t *pkt, size_t len)
{
	uint8_t *exact = malloc(len ? len : 1);
	union {
		struct wire_init init;
		struct wire_nak nak;
		struct wire_cookie cookie;
		struct wire_reset_packet reset;
		struct wire_find find;
	} u;
	bool ok;

	memcpy(exact, pkt, len);
	switch (tp_wire_type(exact)) {
	case WIRE_INIT:
	case WIRE_INIT_ACK:
		ok = tp_wire_get_init(exact, len, &u.init);
		break;
	case WIRE_INIT_NAK:
		ok = tp_wire_get_nak(exact, len, &u.nak);
		break;
	case WIRE_COOKIE:
		ok = tp_wire_get_cookie(exact, len, &u.cookie);
		break;
	case WIRE_RESET:
		ok = tp_wire_get_reset(exact, len, &u.reset);
		break;
	default:
		ok = tp_wire_get_find(exact, len, &u.find);
	}
	free(exact);
	return ok;
}

static void truncated_control_packets(void **state)
{
	size_t n;

	now = vectors(&n);
	for (const struct vector *end = now + n; now < end; now++) {
		if (now->dropped || of_connection(now))
			continue;
		for (size_t len = 4; len < now->pkt[3] * 4u + WIRE_CRC_LEN; len++)
			expect(!control_decodes(now->pkt, len));
		expect(control_decodes(now->pkt, now->len));
	}
}

static void damaged_trailer(void **state)
{
	const struct vector *v = vector_named("DATA");
	uint8_t buf[VECTOR_MAX];

	for (size_t i = 0; i < v->len * 8; i++) {
		memcpy(buf, v->pkt, v->len);
		buf[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_false(tp_wire_crc_ok(buf, v->len));
	}
	assert_false(tp_wire_crc_ok(buf, 4));
	assert_false(tp_wire_crc_ok(buf, 0));
}

/* What belongs to one opcode beside another; flags and lengths that none has. */
static void messages_that_are_none(void **state)
{
	unsigned ops = 0;
	size_t n;

	now = vectors(&n);
	for (const struct vector *end = now + n; now < end; now++) {
		unsigned own = now->pkt[2];
		bool atomic = own == WIRE_OP_SWAP || own == WIRE_OP_ADD;
		size_t len = without_trailer(now);
		uint8_t buf[VECTOR_MAX];
		struct wire_packet p;

		if (!now->sent || tp_wire_type(now->pkt) != WIRE_DATA || own == WIRE_OP_STREAM)
			continue;
		ops |= 1u << own;
		memcpy(buf, now->pkt, len);
		for (unsigned op = 0; op < 256; op++) {
			buf[2] = (uint8_t)op;
			/* Both atomics look the same. */
			expect(decode(buf, len, &p) ==
				(op == own || (atomic && (op == WIRE_OP_SWAP || op == WIRE_OP_ADD))));
		}
		buf[2] = (uint8_t)own;
		buf[1] ^= WIRE_F_FIN;
		expect(!decode(buf, len, &p));
		buf[1] ^= WIRE_F_FIN;
		for (unsigned bit = 1; bit < 16 && own != WIRE_OP_NONE; bit++) {
			buf[WIRE_BASE_LEN + 2 + !(bit / 8)] ^= (uint8_t)(1u << bit % 8);
			expect(!decode(buf, len, &p));
			buf[WIRE_BASE_LEN + 2 + !(bit / 8)] ^= (uint8_t)(1u << bit % 8);
		}
	}
	assert_int_equal(ops, 0x1fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_packets),
		cmocka_unit_test(dropped_packets),
		cmocka_unit_test(keyed_values),
		cmocka_unit_test(truncation_at_every_byte),
		cmocka_unit_test(truncated_control_packets),
		cmocka_unit_test(damaged_trailer),
		cmocka_unit_test(messages_that_are_none),
	};

	return cmocka_run_group_tests_name("transport_wire", tests, NULL, NULL);
}

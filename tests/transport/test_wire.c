/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packet format against bytes laid out by another codec, so that a change of the format is never an
 * accident; and decoders against what no encoder makes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "transport/wire.h"

#define CID 0x0123456789abcdefull

/* clang-format off */
static const uint8_t data_vector[] = {
	0x11, 0x11, 0x01, 0x0b, 0x00, 0x00, 0x02, 0x03, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
	0xff, 0xff, 0xff, 0xfe, 0x80, 0x00, 0x00, 0x01, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
	0x01, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x07, 0x68, 0x65, 0x6c, 0x6c,
	0x6f, 0x72, 0x5e, 0xd0, 0xe7,
};

static const uint8_t ack_vector[] = {
	0x12, 0x20, 0x00, 0x0f, 0x00, 0x00, 0xff, 0xff, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
	0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00,
	0x02, 0x07, 0x00, 0x00, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10, 0x80, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x98, 0x18, 0x7c, 0x92,
};

static const uint8_t window_vector[] = {
	0x11, 0x04, 0x01, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
	0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x04,
	0x01, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x02, 0x03, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00,
};

static const uint8_t init_vector[] = {
	0x13, 0x00, 0x02, 0x1a, 0xc0, 0x01, 0x00, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22,
	0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00,
	0xde, 0xad, 0xbe, 0xef, 0x00, 0x00, 0x27, 0x10, 0x05, 0xc0, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00,
	0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
	0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7,
	0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, 0x76, 0xa5, 0x42, 0x69,
};

static const uint8_t nak_vector[] = {
	0x15, 0x00, 0x02, 0x08, 0x01, 0x01, 0x00, 0x00, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
	0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x5f, 0xfa, 0xa6, 0xbf,
};

static const uint8_t cookie_vector[] = {
	0x16, 0x00, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x00, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
	0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7,
	0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, 0x1e, 0x6d, 0xc3, 0x6a,
};

static const uint8_t reset_vector[] = {
	0x17, 0x00, 0x05, 0x08, 0x00, 0x00, 0x00, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
	0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
	0x7e, 0x99, 0x98, 0x8e,
};

static const uint8_t find_vector[] = {
	0x18, 0x00, 0x00, 0x08, 0x18, 0xeb, 0x04, 0x00, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44,
	0x0a, 0x4d, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x15, 0xd5, 0xe6, 0x7e,
};

static const uint8_t reply_vector[] = {
	0x19, 0x00, 0x01, 0x08, 0x00, 0x50, 0x06, 0x00, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44,
	0xfd, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02,
	0x25, 0xb5, 0x9b, 0xe8,
};

/* The fragments of messages, without trailer. */
struct message_vector {
	const char *bytes;
	size_t len, payload;
	unsigned flags, credit;
	struct wire_message m;
};

#define SSN 0xfffffff0u
#define KEY 0xa1a2a3a4a5a6a7a8ull
#define AT  0x1020304050ull

static const struct message_vector message_vectors[] = {
	{"\x11\x88\x02\x0b\xbe\xef\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x03\x03\x00\x00\xff\xff\xff\xf0\x00\x01\x02\x03\x68\x65\x6c\x6c"
		"\x6f",
		49, 5, 0x88, 48879, {.op = WIRE_OP_SEND, .number = SSN, .offset = 0x10203}},
	{"\x11\x80\x02\x0c\x00\x01\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x03\x04\x00\x01\xff\xff\xff\xf0\x00\x00\x00\x00\xca\xfe\xba\xbe",
		48, 0, 0x80, 1, {.op = WIRE_OP_SEND, .number = SSN, .last = true, .has_imm = true, .imm = 0xcafebabe}},
	{"\x11\x80\x03\x0d\x00\x02\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x04\x05\x00\x01\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\x00\x00\x00\x10"
		"\x20\x30\x40\x50\x68\x65\x6c\x6c\x6f",
		57, 5, 0x80, 2, {.op = WIRE_OP_WRITE, .last = true, .rkey = KEY, .remote = AT}},
	{"\x11\x80\x04\x0f\x00\x03\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x04\x07\x00\x01\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\x00\x00\x00\x10"
		"\x20\x30\x40\x50\xff\xff\xff\xf0\xca\xfe\xba\xbe\x68\x65\x6c\x6c\x6f",
		65, 5, 0x80, 3, {.op = WIRE_OP_WRITE_IMM, .last = true, .has_imm = true, .rkey = KEY, .remote = AT, .number = SSN, .imm = 0xcafebabe}},
	{"\x11\x80\x05\x0f\x00\x04\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x05\x07\x00\x00\xff\xff\xff\xf0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8"
		"\x00\x00\x00\x10\x20\x30\x40\x50\x40\x00\x00\x00",
		60, 0, 0x80, 4, {.op = WIRE_OP_READ_REQ, .number = SSN, .rkey = KEY, .remote = AT, .len = 1u << 30}},
	{"\x11\x80\x06\x0b\x00\x05\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x06\x03\x00\x01\xff\xff\xff\xf0\x00\x01\x02\x03\x68\x65\x6c\x6c"
		"\x6f",
		49, 5, 0x80, 5, {.op = WIRE_OP_READ_RESP, .last = true, .number = SSN, .offset = 0x10203}},
	{"\x11\x80\x07\x12\x00\x06\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x07\x0a\x00\x00\xff\xff\xff\xf0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8"
		"\x00\x00\x00\x10\x20\x30\x40\x50\x11\x11\x11\x11\x22\x22\x22\x22\x33\x33\x33\x33\x44\x44\x44\x44",
		72, 0, 0x80, 6, {.op = WIRE_OP_SWAP, .number = SSN, .rkey = KEY, .remote = AT, .operand = 0x1111111122222222, .compare = 0x3333333344444444}},
	{"\x11\x80\x08\x12\x00\x07\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88\x07\x0a\x00\x00\xff\xff\xff\xf0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8"
		"\x00\x00\x00\x10\x20\x30\x40\x50\x11\x11\x11\x11\x22\x22\x22\x22\x00\x00\x00\x00\x00\x00\x00\x00",
		72, 0, 0x80, 7, {.op = WIRE_OP_ADD, .number = SSN, .rkey = KEY, .remote = AT, .operand = 0x1111111122222222}},
	{"\x11\x84\x00\x08\x00\x08\x02\x03\x01\x23\x45\x67\x89\xab\xcd\xef\xff\xff\xff\xfe\x80\x00\x00\x01"
		"\x11\x22\x33\x44\x55\x66\x77\x88",
		32, 0, 0x84, 8, {.op = WIRE_OP_NONE}},
};
/* clang-format on */

/* Decodes a copy of exactly len bytes, so that a sanitizer sees a read beyond. */
static bool decode(const uint8_t *pkt, size_t len, struct wire_packet *out)
{
	static uint8_t *copy;
	bool ok;

	free(copy); /* the previous one: what was decoded points into it */
	copy = malloc(len ? len : 1);
	memcpy(copy, pkt, len);
	memset(out, 0xa5, sizeof *out);
	ok = tp_wire_decode(copy, len, out);
	return ok;
}

static void data_packet(void **state)
{
	struct wire_packet p = {.ce_count = 0x0203,
		.psn = 0xfffffffe,
		.ack = 0x80000001,
		.ts = 0x11223344,
		.echo = 0x55667788};
	size_t head = WIRE_BASE_LEN + WIRE_STREAM_LEN, len;
	uint8_t buf[128];

	tp_wire_put_base(
		buf, WIRE_DATA, WIRE_F_ACKREQ | WIRE_F_LIMITED, WIRE_OP_STREAM, WIRE_STREAM_LEN, &p, CID);
	tp_wire_put_stream(buf + WIRE_BASE_LEN, 0x0000000100000007);
	memcpy(buf + head, "hello", 5);
	len = tp_wire_seal(buf, head + 5);
	assert_int_equal(len, sizeof data_vector);
	assert_memory_equal(buf, data_vector, len);
	assert_true(tp_wire_crc_ok(buf, len));
	assert_int_equal(tp_wire_cid(buf), CID);

	assert_true(decode(data_vector, len - WIRE_CRC_LEN, &p));
	assert_int_equal(p.type, WIRE_DATA);
	assert_int_equal(p.flags, WIRE_F_ACKREQ | WIRE_F_LIMITED);
	assert_int_equal(p.ce_count, 0x0203);
	assert_int_equal(p.psn, 0xfffffffe);
	assert_int_equal(p.ack, 0x80000001);
	assert_int_equal(p.ts, 0x11223344);
	assert_int_equal(p.echo, 0x55667788);
	assert_int_equal(p.offset, 0x0000000100000007);
	assert_int_equal(p.payload_len, 5);
	assert_memory_equal(p.payload, "hello", 5);
	assert_false(p.has_window);
	assert_int_equal(p.sack_words, 0);
}

static void ack_packet(void **state)
{
	struct wire_packet p = {.ce_count = 0xffff, .psn = 7, .ack = 0, .ts = 1};
	uint8_t buf[128];
	size_t ext, len;

	ext = tp_wire_put_ack(buf + WIRE_BASE_LEN, 0xfedcba9876543210, 2);
	tp_wire_put_sack(buf + WIRE_BASE_LEN, 0, 0x8000000000000001);
	tp_wire_put_sack(buf + WIRE_BASE_LEN, 1, 3);
	tp_wire_put_base(buf, WIRE_ACK, WIRE_F_BYE, WIRE_OP_NONE, ext, &p, CID);
	len = tp_wire_seal(buf, WIRE_BASE_LEN + ext);
	assert_int_equal(len, sizeof ack_vector);
	assert_memory_equal(buf, ack_vector, len);

	assert_true(decode(ack_vector, len - WIRE_CRC_LEN, &p));
	assert_int_equal(p.type, WIRE_ACK);
	assert_true(p.has_window);
	assert_int_equal(p.window, 0xfedcba9876543210);
	assert_int_equal(p.sack_words, 2);
	assert_int_equal(tp_wire_get_sack(&p, 0), 0x8000000000000001);
	assert_int_equal(tp_wire_get_sack(&p, 1), 3);
	assert_int_equal(p.payload_len, 0);
}

static void data_with_window(void **state)
{
	struct wire_packet p;

	assert_true(decode(window_vector, sizeof window_vector, &p));
	assert_int_equal(p.flags, WIRE_F_FIN);
	assert_int_equal(p.offset, 9);
	assert_true(p.has_window);
	assert_int_equal(p.window, 0x4000);
	assert_int_equal(p.payload_len, 0);
}

static void init_packet(void **state)
{
	struct wire_init i = {.attempt = 2,
				 .src_port = 0xc001,
				 .dst_port = 80,
				 .src_cid = 0x1111111111111111,
				 .nonce = 0x2222222222222222,
				 .epoch = 0x3333333333333333,
				 .window = 0x10000,
				 .isn = 0xdeadbeef,
				 .max_ack_delay_us = 10000,
				 .ts = 0x01020304,
				 .echo = 0x05060708,
				 .max_payload = 1472,
				 .features = WIRE_FEAT_CRC,
				 .window_packets = 512},
			 got;
	uint8_t buf[WIRE_CONTROL_MAX];

	for (int k = 0; k < 16; k++) {
		i.token[k] = (uint8_t)k;
		i.cookie[k] = (uint8_t)(0xf0 + k);
	}
	memset(&got, 0, sizeof got);
	assert_int_equal(tp_wire_put_init(buf, WIRE_INIT, &i), sizeof init_vector);
	assert_memory_equal(buf, init_vector, sizeof init_vector);
	assert_true(tp_wire_get_init(init_vector, sizeof init_vector, &got));
	assert_memory_equal(&got, &i, sizeof i);
}

static void init_with_impossible_values(void **state)
{
	uint8_t buf[WIRE_CONTROL_MAX];
	struct wire_init got;

	memcpy(buf, init_vector, sizeof buf);
	memset(buf + 16, 0, 8); /* no connection id */
	assert_false(tp_wire_get_init(buf, sizeof buf, &got));
	memcpy(buf, init_vector, sizeof buf);
	be16_put(buf + 56, WIRE_MIN_PAYLOAD - 1);
	assert_false(tp_wire_get_init(buf, sizeof buf, &got));
	memcpy(buf, init_vector, sizeof buf);
	be16_put(buf + 60, 0); /* no packets in flight */
	assert_false(tp_wire_get_init(buf, sizeof buf, &got));
}

static void small_control_packets(void **state)
{
	struct wire_nak nak = {.code = 2, .dst_cid = 0x1111111111111111, .nonce = 0x2222222222222222};
	struct wire_cookie cookie = {.dst_cid = nak.dst_cid, .nonce = nak.nonce};
	struct wire_reset_packet reset = {.reason = 5, .src_cid = CID};
	uint8_t buf[WIRE_CONTROL_MAX];

	for (int k = 0; k < 16; k++) {
		cookie.cookie[k] = (uint8_t)(0xf0 + k);
		reset.token[k] = (uint8_t)k;
	}
	assert_int_equal(tp_wire_put_nak(buf, &nak), sizeof nak_vector);
	assert_memory_equal(buf, nak_vector, sizeof nak_vector);
	assert_int_equal(tp_wire_put_cookie(buf, &cookie), sizeof cookie_vector);
	assert_memory_equal(buf, cookie_vector, sizeof cookie_vector);
	assert_int_equal(tp_wire_put_reset(buf, &reset), sizeof reset_vector);
	assert_memory_equal(buf, reset_vector, sizeof reset_vector);

	memset(&nak, 0, sizeof nak);
	memset(&cookie, 0, sizeof cookie);
	memset(&reset, 0, sizeof reset);
	assert_true(tp_wire_get_nak(nak_vector, sizeof nak_vector, &nak));
	assert_int_equal(nak.code, 2);
	assert_int_equal(nak.nonce, 0x2222222222222222);
	assert_true(tp_wire_get_cookie(cookie_vector, sizeof cookie_vector, &cookie));
	assert_int_equal(cookie.dst_cid, 0x1111111111111111);
	assert_int_equal(cookie.cookie[15], 0xff);
	assert_true(tp_wire_get_reset(reset_vector, sizeof reset_vector, &reset));
	assert_int_equal(reset.src_cid, CID);
	assert_int_equal(reset.reason, 5);
	assert_int_equal(reset.token[15], 15);
}

static void find_packets(void **state)
{
	struct wire_find f = {
		.nonce = 0x4444444444444444, .target = {.family = 4, .port = 6379, .ip = {10, 77, 0, 2}}};
	uint8_t buf[WIRE_CONTROL_MAX];

	assert_int_equal(tp_wire_put_find(buf, WIRE_FIND, &f), sizeof find_vector);
	assert_memory_equal(buf, find_vector, sizeof find_vector);
	memset(&f, 0xa5, sizeof f);
	assert_true(tp_wire_get_find(find_vector, sizeof find_vector, &f));
	assert_int_equal(f.target.port, 6379);
	assert_int_equal(f.target.scope, 0);
	assert_memory_equal(f.target.ip, "\x0a\x4d\0\x02\0\0\0\0\0\0\0\0\0\0\0\0", 16);

	f = (struct wire_find){.code = 1,
		.nonce = 0x4444444444444444,
		.target = {.family = 6, .port = 80, .ip = {[0] = 0xfd, [15] = 2}}};
	tp_wire_put_find(buf, WIRE_FIND_REPLY, &f);
	assert_memory_equal(buf, reply_vector, sizeof reply_vector);
	assert_true(tp_wire_get_find(reply_vector, sizeof reply_vector, &f));
	assert_int_equal(f.code, 1);
	buf[6] = 5; /* no such family */
	assert_false(tp_wire_get_find(buf, sizeof reply_vector, &f));
}

/* Whatever is cut off, nothing beyond the end is read and no header is taken for a whole one. */
static void truncation_at_every_byte(void **state)
{
	struct wire_packet p;

	for (size_t len = 0; len < sizeof data_vector - WIRE_CRC_LEN; len++)
		assert_int_equal(decode(data_vector, len, &p), len > WIRE_BASE_LEN + WIRE_STREAM_LEN);
	for (size_t len = 0; len < sizeof ack_vector - WIRE_CRC_LEN; len++)
		assert_false(decode(ack_vector, len, &p));
	for (size_t len = 0; len < sizeof window_vector; len++)
		assert_false(decode(window_vector, len, &p));
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
	bool ok = false;

	memcpy(exact, pkt, len);
	if (len >= 4) {
		switch (tp_wire_type(exact)) {
		case WIRE_INIT:
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
	}
	free(exact);
	return ok;
}

static void truncated_control_packets(void **state)
{
	static const struct {
		const uint8_t *pkt;
		size_t len;
	} all[] = {{init_vector, sizeof init_vector}, {nak_vector, sizeof nak_vector},
		{cookie_vector, sizeof cookie_vector}, {reset_vector, sizeof reset_vector},
		{find_vector, sizeof find_vector}};

	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		for (size_t len = 4; len < all[i].len; len++)
			assert_false(control_decodes(all[i].pkt, len));
		assert_true(control_decodes(all[i].pkt, all[i].len));
	}
}

/* A later minor revision may append fields; the header length says where the trailer is to be expected. */
static void longer_control_packet(void **state)
{
	uint8_t buf[sizeof reset_vector + 8] = {0};

	memcpy(buf, reset_vector, sizeof reset_vector);
	buf[3] += 2;
	assert_true(control_decodes(buf, sizeof buf));
	buf[3] += 1; /* says that it is longer than it is */
	assert_false(control_decodes(buf, sizeof buf));
}

static void damaged_trailer(void **state)
{
	uint8_t buf[sizeof data_vector];

	for (size_t i = 0; i < sizeof buf * 8; i++) {
		memcpy(buf, data_vector, sizeof buf);
		buf[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_false(tp_wire_crc_ok(buf, sizeof buf));
	}
	assert_false(tp_wire_crc_ok(buf, 4));
	assert_false(tp_wire_crc_ok(buf, 0));
}

/* A packet of type with one extension in front of the usual one. */
static bool with_extension(uint8_t type, const uint8_t *ext, size_t ext_len)
{
	const uint8_t *vector = type == WIRE_DATA ? data_vector : ack_vector;
	size_t rest = type == WIRE_DATA ? sizeof data_vector : sizeof ack_vector;
	uint8_t buf[256];
	struct wire_packet p;

	rest -= WIRE_BASE_LEN + WIRE_CRC_LEN;
	memcpy(buf, vector, WIRE_BASE_LEN);
	memcpy(buf + WIRE_BASE_LEN, ext, ext_len);
	memcpy(buf + WIRE_BASE_LEN + ext_len, vector + WIRE_BASE_LEN, rest);
	buf[3] = (uint8_t)(buf[3] + ext_len / 4);
	return decode(buf, WIRE_BASE_LEN + ext_len + rest, &p);
}

static void extensions(void **state)
{
	static const uint8_t unknown[] = {0x70, 2, 0, 0, 1, 2, 3, 4},
			     critical[] = {0xf0, 2, 0, 0, 1, 2, 3, 4};
	static const uint8_t stream[12] = {WIRE_X_STREAM, 3}, ack[12] = {WIRE_X_ACK, 3};
	static const uint8_t empty[4] = {0x70, 0}, too_long[4] = {0x70, 200}, half[16] = {WIRE_X_ACK, 4};

	assert_true(with_extension(WIRE_DATA, unknown, sizeof unknown));
	assert_true(with_extension(WIRE_ACK, unknown, sizeof unknown));
	assert_false(with_extension(WIRE_DATA, critical, sizeof critical));
	assert_false(with_extension(WIRE_ACK, critical, sizeof critical));
	assert_true(with_extension(WIRE_DATA, ack, sizeof ack));
	assert_false(with_extension(WIRE_ACK, ack, sizeof ack)); /* twice */
	assert_false(with_extension(WIRE_DATA, stream, sizeof stream));
	assert_false(with_extension(WIRE_ACK, stream, sizeof stream)); /* an ACK carries no bytes */
	assert_false(with_extension(WIRE_DATA, empty, sizeof empty));
	assert_false(with_extension(WIRE_DATA, too_long, sizeof too_long));
	assert_false(with_extension(WIRE_DATA, half, sizeof half)); /* half a SACK word */
}

static void sack_words_at_most(void **state)
{
	uint8_t buf[WIRE_BASE_LEN + WIRE_ACK_LEN + 8 * (WIRE_SACK_WORDS + 1)] = {0};
	struct wire_packet p = {0};
	size_t ext = tp_wire_put_ack(buf + WIRE_BASE_LEN, 1, WIRE_SACK_WORDS);

	tp_wire_put_base(buf, WIRE_ACK, 0, WIRE_OP_NONE, ext, &p, CID);
	assert_true(decode(buf, WIRE_BASE_LEN + ext, &p));
	assert_int_equal(p.sack_words, WIRE_SACK_WORDS);
	ext = tp_wire_put_ack(buf + WIRE_BASE_LEN, 1, WIRE_SACK_WORDS + 1);
	tp_wire_put_base(buf, WIRE_ACK, 0, WIRE_OP_NONE, ext, &p, CID);
	assert_false(decode(buf, WIRE_BASE_LEN + ext, &p));
}

static void contradictions(void **state)
{
	uint8_t buf[128];
	struct wire_packet p;
	size_t len = sizeof data_vector - WIRE_CRC_LEN;

	memcpy(buf, data_vector, sizeof data_vector);
	assert_true(decode(buf, len, &p));
	buf[2] = WIRE_OP_SEND; /* reserved */
	assert_false(decode(buf, len, &p));
	buf[2] = WIRE_OP_STREAM;
	buf[0] = 2 << 4 | WIRE_DATA; /* another version */
	assert_false(decode(buf, len, &p));
	buf[0] = WIRE_VERSION << 4 | WIRE_DATA;
	buf[3] = 7; /* a header shorter than the base */
	assert_false(decode(buf, len, &p));
	buf[3] = 8; /* no STREAM extension */
	assert_false(decode(buf, len, &p));
	buf[3] = 11;
	buf[WIRE_BASE_LEN + 1] = 2; /* a STREAM extension that is too short */
	assert_false(decode(buf, len, &p));
	buf[WIRE_BASE_LEN + 1] = 3;
	assert_false(decode(buf, len - 5, &p)); /* neither bytes nor FIN */
	buf[1] |= WIRE_F_FIN;
	assert_true(decode(buf, len - 5, &p));

	memcpy(buf, ack_vector, sizeof ack_vector);
	len = sizeof ack_vector - WIRE_CRC_LEN;
	assert_true(decode(buf, len, &p));
	assert_false(decode(buf, len + 1, &p)); /* an ACK with payload */
	buf[2] = WIRE_OP_STREAM;
	assert_false(decode(buf, len, &p));
}

static bool same_message(const struct wire_message *a, const struct wire_message *b)
{
	return a->op == b->op && a->last == b->last && a->has_imm == b->has_imm && a->number == b->number &&
	       a->imm == b->imm && a->offset == b->offset && a->len == b->len && a->rkey == b->rkey &&
	       a->remote == b->remote && a->operand == b->operand && a->compare == b->compare;
}

static void messages(void **state)
{
	for (size_t i = 0; i < sizeof message_vectors / sizeof *message_vectors; i++) {
		const struct message_vector *v = &message_vectors[i];
		const uint8_t *bytes = (const uint8_t *)v->bytes;
		struct wire_packet p = {.psn = 0xfffffffe,
			.ack = 0x80000001,
			.ts = 0x11223344,
			.echo = 0x55667788,
			.ce_count = 0x0203,
			.credit = (uint16_t)v->credit};
		uint8_t buf[128];
		size_t ext = tp_wire_put_message(buf + WIRE_BASE_LEN, &v->m);

		tp_wire_put_base(buf, WIRE_DATA, v->flags, v->m.op, ext, &p, CID);
		memcpy(buf + WIRE_BASE_LEN + ext, "hello", v->payload);
		assert_int_equal(WIRE_BASE_LEN + ext + v->payload, v->len);
		assert_memory_equal(buf, bytes, v->len);
		assert_true(decode(bytes, v->len, &p));
		assert_true(same_message(&p.msg, &v->m));
		assert_int_equal(p.credit, v->credit);
		assert_int_equal(p.payload_len, v->payload);
	}
}

/* What belongs to one opcode beside another; flags and lengths that none has. */
static void messages_that_are_none(void **state)
{
	for (size_t i = 0; i < sizeof message_vectors / sizeof *message_vectors; i++) {
		const struct message_vector *v = &message_vectors[i];
		struct wire_packet p;
		uint8_t buf[128];

		for (unsigned op = 0; op < 256; op++) {
			bool writes = v->m.op == WIRE_OP_SWAP || v->m.op == WIRE_OP_ADD;

			memcpy(buf, v->bytes, v->len);
			buf[2] = (uint8_t)op;
			/* Both atomics look the same. */
			assert_true(decode(buf, v->len, &p) ==
				    (op == v->m.op || (writes && (op == WIRE_OP_SWAP || op == WIRE_OP_ADD))));
		}
		for (unsigned cut = 0; cut < v->len; cut++) {
			bool ok = decode((const uint8_t *)v->bytes, cut, &p);

			assert_true(!ok || cut >= v->len - v->payload);
		}
		memcpy(buf, v->bytes, v->len);
		buf[1] ^= WIRE_F_FIN;
		assert_false(decode(buf, v->len, &p));
		if (v->m.op == WIRE_OP_NONE)
			continue;
		for (unsigned bit = 1; bit < 16; bit++) {
			memcpy(buf, v->bytes, v->len);
			buf[WIRE_BASE_LEN + 2 + !(bit / 8)] ^= (uint8_t)(1u << bit % 8);
			assert_false(decode(buf, v->len, &p));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages),
		cmocka_unit_test(messages_that_are_none),
		cmocka_unit_test(data_packet),
		cmocka_unit_test(ack_packet),
		cmocka_unit_test(data_with_window),
		cmocka_unit_test(init_packet),
		cmocka_unit_test(init_with_impossible_values),
		cmocka_unit_test(small_control_packets),
		cmocka_unit_test(find_packets),
		cmocka_unit_test(truncation_at_every_byte),
		cmocka_unit_test(truncated_control_packets),
		cmocka_unit_test(longer_control_packet),
		cmocka_unit_test(damaged_trailer),
		cmocka_unit_test(extensions),
		cmocka_unit_test(sack_words_at_most),
		cmocka_unit_test(contradictions),
	};

	return cmocka_run_group_tests_name("transport_wire", tests, NULL, NULL);
}

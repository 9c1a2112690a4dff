/* SPDX-License-Identifier: BSD-3-Clause */
/* vectors: from JSON to bytes and to the structs of wire.h. */
#include "vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vector *all;
static size_t count;
static json_t *file;

bool vector_has(const json_t *o, const char *name)
{
	return json_object_get(o, name) != NULL;
}

static const json_t *field(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	if (!v)
		fail_msg("there is no field %s", name);
	return v;
}

uint64_t vector_number(const json_t *o, const char *name)
{
	const json_t *v = field(o, name);

	return json_is_integer(v) ? (uint64_t)json_integer_value(v)
				  : strtoull(json_string_value(v), NULL, 16);
}

const char *vector_text(const json_t *o, const char *name)
{
	const char *s = json_string_value(field(o, name));

	assert_non_null(s);
	return s;
}

size_t vector_bytes(const json_t *o, const char *name, uint8_t *out, size_t max)
{
	const char *s = vector_text(o, name);
	size_t len = strlen(s) / 2;

	assert_int_equal(strlen(s) % 2, 0);
	assert_true(len <= max);
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)strtoul((char[]){s[2 * i], s[2 * i + 1], 0}, NULL, 16);
	return len;
}

static void load_one(const json_t *o, struct vector *v)
{
	const char *trailer = vector_text(o, "trailer");

	v->name = vector_text(o, "name");
	v->crc = strcmp(trailer, "none") != 0;
	v->len = vector_bytes(o, "packet", v->pkt, sizeof v->pkt);
	if (vector_has(o, "dropped")) {
		v->dropped = vector_text(o, "dropped");
	} else {
		v->fields = field(o, "fields");
		v->sent = json_is_true(field(o, "sent"));
	}
	assert_int_equal(strcmp(trailer, "right") == 0, tp_wire_crc_ok(v->pkt, v->len));
}

const struct vector *vectors(size_t *n)
{
	json_error_t error;

	if (!file) {
		const char *other = getenv("VECTORS"), *path = other ? other : VECTORS_FILE;
		const json_t *list;

		file = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
		if (!file)
			fail_msg("%s: %s, line %d", path, error.text, error.line);
		assert_int_equal(vector_number(file, "version"), WIRE_VERSION);
		list = field(file, "packets");
		all = calloc(json_array_size(list), sizeof *all);
		assert_non_null(all);
		for (count = 0; count < json_array_size(list); count++)
			load_one(json_array_get(list, count), &all[count]);
	}
	*n = count;
	return all;
}

const struct vector *vector_named(const char *name)
{
	size_t n;
	const struct vector *v = vectors(&n);

	for (size_t i = 0; i < n; i++)
		if (!strcmp(v[i].name, name))
			return &v[i];
	fail_msg("there is no vector %s", name);
	return NULL;
}

const json_t *vectors_keyed(void)
{
	size_t n;

	vectors(&n);
	return field(file, "keyed");
}

/* SSN or RSN, or none. */
static uint32_t number_of(const json_t *x)
{
	const char *name = vector_has(x, "rsn") ? "rsn" : "ssn";

	return vector_has(x, name) ? (uint32_t)vector_number(x, name) : 0;
}

static uint64_t number_or_0(const json_t *x, const char *name)
{
	return vector_has(x, name) ? vector_number(x, name) : 0;
}

static void message_from(const json_t *x, struct wire_message *m)
{
	m->last = vector_number(x, "flags") & WIRE_M_LAST;
	m->has_imm = vector_has(x, "immediate");
	m->number = number_of(x);
	m->imm = (uint32_t)number_or_0(x, "immediate");
	m->offset = (uint32_t)number_or_0(x, "message_offset");
	m->len = (uint32_t)number_or_0(x, "wanted");
	m->rkey = number_or_0(x, "rkey");
	m->remote = number_or_0(x, "region_offset");
	m->operand = number_or_0(x, "operand");
	m->compare = number_or_0(x, "compare");
}

static void piece_from(const json_t *x, struct wire_packet *p)
{
	p->piece = true;
	p->more = vector_number(x, "flags") & WIRE_P_MORE;
	p->piece_off = (uint16_t)vector_number(x, "piece_offset");
}

static size_t ack_from(const json_t *x, struct wire_packet *p, uint8_t *store)
{
	const json_t *words = field(x, "sack"), *word;
	size_t k;

	p->has_window = true;
	p->window = vector_number(x, "window");
	p->backlog = (uint8_t)vector_number(x, "backlog");
	p->astray = vector_number(x, "ack_flags") & WIRE_A_ASTRAY;
	p->sack_words = (uint16_t)json_array_size(words);
	p->sack = store;
	json_array_foreach((json_t *)words, k, word)
		be64_put(store + 8 * k, strtoull(json_string_value(word), NULL, 16));
	return 8 * k;
}

void vector_packet(const json_t *f, struct wire_packet *p, uint8_t store[VECTOR_MAX])
{
	const json_t *x;
	size_t i, used = 0;

	*p = (struct wire_packet){.type = (uint8_t)vector_number(f, "type"),
		.flags = (uint8_t)vector_number(f, "flags"),
		.credit = (uint16_t)vector_number(f, "credits"),
		.ce_count = (uint16_t)vector_number(f, "ce_count"),
		.psn = (uint32_t)vector_number(f, "psn"),
		.ack = (uint32_t)vector_number(f, "ack"),
		.ts = (uint32_t)vector_number(f, "timestamp"),
		.echo = (uint32_t)vector_number(f, "echo"),
		.msg.op = (enum wire_opcode)vector_number(f, "opcode")};
	json_array_foreach((json_t *)field(f, "extensions"), i, x)
	{
		uint64_t type = vector_number(x, "type");

		if (type == WIRE_X_STREAM)
			p->offset = vector_number(x, "offset");
		else if (type == WIRE_X_ACK)
			used += ack_from(x, p, store + used);
		else if (type == WIRE_X_PIECE)
			piece_from(x, p);
		else if (type > WIRE_X_ACK && type <= WIRE_X_ATOMIC)
			message_from(x, &p->msg);
	}
	p->payload = store + used;
	p->payload_len = vector_bytes(f, "payload", store + used, VECTOR_MAX - used);
}

void vector_init(const json_t *f, struct wire_init *i)
{
	*i = (struct wire_init){.attempt = (uint8_t)vector_number(f, "attempt"),
		.src_port = (uint16_t)vector_number(f, "src_port"),
		.dst_port = (uint16_t)vector_number(f, "dst_port"),
		.dst_cid = vector_number(f, "dst_cid"),
		.src_cid = vector_number(f, "src_cid"),
		.nonce = vector_number(f, "nonce"),
		.epoch = vector_number(f, "epoch"),
		.window = vector_number(f, "window"),
		.isn = (uint32_t)vector_number(f, "isn"),
		.max_ack_delay_us = (uint32_t)vector_number(f, "max_ack_delay"),
		.ts = (uint32_t)vector_number(f, "timestamp"),
		.echo = (uint32_t)vector_number(f, "echo"),
		.max_payload = (uint16_t)vector_number(f, "largest_packet"),
		.features = (uint16_t)vector_number(f, "features"),
		.window_packets = (uint16_t)vector_number(f, "packets"),
		.reads = (uint16_t)vector_number(f, "messages")};
	assert_int_equal(vector_bytes(f, "token", i->token, sizeof i->token), sizeof i->token);
	assert_int_equal(vector_bytes(f, "cookie", i->cookie, sizeof i->cookie), sizeof i->cookie);
}

void vector_find(const json_t *f, struct wire_find *out)
{
	*out = (struct wire_find){
		.code = (uint8_t)vector_number(f, "code"), .nonce = vector_number(f, "nonce")};
	assert_int_equal(sd_addr_parse(vector_text(f, "address"), &out->target), 0);
	out->target.port = (uint16_t)vector_number(f, "port");
	assert_int_equal(out->target.family, vector_number(f, "family"));
}

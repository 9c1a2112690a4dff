/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * find: who on the segment has an address, and does anybody listen there? Stateless on both sides: the
 * asker's nonce is a keyed hash of the question, so that only an answer to a question that was asked is
 * believed. An announcement (HELLO) is an answer that nobody asked for; it names no port.
 */
#include <errno.h>

#include "transport/conn.h"

static uint64_t nonce_for(const struct tp *t, const struct sd_addr *target)
{
	uint8_t in[19];

	in[0] = target->family;
	be16_put(in + 1, target->port);
	memcpy(in + 3, target->ip, 16);
	return sd_siphash64(&t->key_find, in, sizeof in) | 1; /* never that of an announcement */
}

int tp_find(struct tp *t, const struct tp_path *path, const struct sd_addr *target)
{
	struct wire_find f = {.nonce = nonce_for(t, target), .target = *target};
	struct tp_control *e = tp_control_new(t, NULL);

	if (!e)
		return -ENOBUFS;
	e->path = *path;
	e->len = (uint16_t)tp_wire_put_find(e->data, WIRE_FIND, &f);
	return 0;
}

int tp_hello(struct tp *t, const struct tp_path *path)
{
	struct wire_find f = {.code = TP_OK, .nonce = TP_HELLO_NONCE, .target = path->local};
	struct tp_control *e = tp_control_new(t, NULL);

	if (!e)
		return -ENOBUFS;
	f.target.port = 0;
	e->path = *path;
	e->len = (uint16_t)tp_wire_put_find(e->data, WIRE_FIND_REPLY, &f);
	return 0;
}

/* Answers for addresses that are ours, that is, those the question was sent to. */
static void answer(struct tp *t, struct wire_find *f, const struct tp_rx *rx)
{
	struct tp_control *e;

	if (!sd_addr_same_ip(&f->target, rx->local))
		return;
	e = tp_control_new(t, rx);
	if (!e)
		return;
	f->code = tp_listener_find(t, &f->target, false) || tp_listener_find(t, &f->target, true)
			  ? TP_OK
			  : TP_NO_LISTENER;
	e->len = (uint16_t)tp_wire_put_find(e->data, WIRE_FIND_REPLY, f);
}

void tp_find_input(struct tp *t, const uint8_t *pkt, size_t len, const struct tp_rx *rx)
{
	struct wire_find f;
	struct tp_found found;

	if (!tp_wire_get_find(pkt, len, &f)) {
		t->stats.rx_bad_header++;
		return;
	}
	if (tp_wire_type(pkt) == WIRE_FIND) {
		answer(t, &f, rx);
		return;
	}
	if (f.nonce == TP_HELLO_NONCE ? f.target.port : f.nonce != nonce_for(t, &f.target)) {
		t->stats.rx_bad_token++;
		return;
	}
	found = (struct tp_found){.target = f.target, .code = (enum tp_code)f.code, .rx = rx};
	t->ops.found(t->ctx, &found);
}

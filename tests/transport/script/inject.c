/* SPDX-License-Identifier: BSD-3-Clause */
/* inject: what the peer says. A field that a line does not name is what an honest peer would say. */
#include <stdlib.h>
#include <string.h>

#include "script.h"

#define PEER_EPOCH 77
#define FIND_NONCE 5
#define FRESH_ID   0x3333333300000000

static void otherwise(struct spec *x, enum field f, uint64_t v)
{
	if (!(x->p.has & BIT(f))) {
		x->p.has |= BIT(f);
		x->p.v[f] = v;
	}
}

/* --- DATA and ACK --- */

static bool has_payload(uint64_t op)
{
	return op == WIRE_OP_STREAM || op == WIRE_OP_SEND || op == WIRE_OP_WRITE || op == WIRE_OP_WRITE_IMM ||
	       op == WIRE_OP_READ_RESP;
}

static void fill_payload(struct script *s, const struct link *l, struct spec *x)
{
	struct packet *p = &x->p;
	uint64_t from = p->v[F_OFF];

	if (p->has & BIT(F_VALUE)) {
		if (p->v[F_OP] != WIRE_OP_READ_RESP)
			script_fail(s, "only READ_RESP has a value");
		be64_put(s->packet, p->v[F_VALUE]);
		p->v[F_LEN] = 8;
	} else if (has_payload(p->v[F_OP])) {
		if (p->v[F_LEN] > SCRIPT_PACKET - 1024)
			script_fail(s, "a packet has no room for so many bytes");
		if (p->v[F_OP] == WIRE_OP_READ_RESP)
			from += l->asks[p->v[F_RSN] % SCRIPT_REQUESTS];
		for (size_t i = 0; i < p->v[F_LEN]; i++)
			s->packet[i] = script_byte(from + i);
	} else {
		return;
	}
	p->payload = s->packet;
	p->payload_len = p->v[F_LEN];
}

static void fill_data(struct script *s, struct link *l, struct spec *x)
{
	struct packet *p = &x->p;

	otherwise(x, F_OFF, p->v[F_OP] == WIRE_OP_STREAM ? l->off : 0);
	otherwise(x, F_LEN, 0);
	if (p->v[F_OP] == WIRE_OP_NONE)
		otherwise(x, F_WIN, l->win);
	fill_payload(s, l, x);
	if (p->v[F_OP] == WIRE_OP_READ_REQ || p->v[F_OP] == WIRE_OP_SWAP || p->v[F_OP] == WIRE_OP_ADD)
		l->asked[p->v[F_RSN] % SCRIPT_REQUESTS] = p->v[F_OFF];
	if (!p->more && p->v[F_PSN] + 1 > l->psn)
		l->psn = (uint32_t)p->v[F_PSN] + 1;
	if (p->v[F_OP] == WIRE_OP_STREAM && p->v[F_OFF] + p->v[F_LEN] > l->off)
		l->off = p->v[F_OFF] + p->v[F_LEN];
}

static void fill_numbered(struct script *s, struct link *l, struct spec *x)
{
	struct packet *p = &x->p;

	if (!l->known && !(p->has & BIT(F_ID)))
		script_fail(s, "the endpoint has not told its id yet");
	otherwise(x, F_ID, l->q.their_cid);
	otherwise(x, F_PSN, l->psn);
	otherwise(x, F_ACK, l->ack);
	otherwise(x, F_CE, l->ce);
	otherwise(x, F_CREDIT, l->credit);
	otherwise(x, F_TS, tp_timestamp(s->puppet.now));
	otherwise(x, F_ECHO, l->heard);
	if (p->type == WIRE_ACK)
		otherwise(x, F_WIN, l->win);
	if (s->messages && !x->exact_flags)
		p->flags |= WIRE_F_READY;
	if (p->type == WIRE_DATA)
		fill_data(s, l, x);
	l->ack = (uint32_t)p->v[F_ACK];
	l->ce = (uint16_t)p->v[F_CE];
	l->credit = (uint16_t)p->v[F_CREDIT];
	if (p->has & BIT(F_WIN))
		l->win = p->v[F_WIN];
}

/* --- setup --- */

static void fill_init(struct script *s, struct link *l, struct spec *x)
{
	struct packet *p = &x->p;
	bool answer = p->type == WIRE_INIT_ACK;

	if (answer && !l->known)
		script_fail(s, "the endpoint has not told its id yet");
	if (x->fresh) {
		otherwise(x, F_ID, FRESH_ID + ++s->n_fresh);
		otherwise(x, F_NONCE, FRESH_ID + s->n_fresh);
	}
	otherwise(x, F_SPORT, answer ? PUPPET_PORT : 40000u + (unsigned)(l - s->links));
	otherwise(x, F_DPORT, answer ? 30000u + (unsigned)(l - s->links) : PUPPET_PORT);
	otherwise(x, F_NONCE, l->q.nonce);
	otherwise(x, F_EPOCH, PEER_EPOCH);
	otherwise(x, F_WIN, s->messages ? 0 : l->win);
	otherwise(x, F_ISN, l->q.isn);
	otherwise(x, F_DELAY, SD_MS);
	otherwise(x, F_MAX, s->puppet.max_payload);
	otherwise(x, F_FEATURES,
		(s->puppet.cfg.crc ? WIRE_FEAT_CRC : 0u) | (s->messages ? WIRE_FEAT_MESSAGES : 0u));
	otherwise(x, F_PACKETS, 512);
	otherwise(x, F_READS, s->messages ? s->peer_reads : 0);
	otherwise(x, F_TS, tp_timestamp(s->puppet.now));
	otherwise(x, F_ECHO, answer ? l->heard : 0);
	memcpy(p->token, l->q.token, sizeof p->token);
	if (answer) {
		otherwise(x, F_ID, l->q.their_cid);
		l->q.crc = p->v[F_FEATURES] & WIRE_FEAT_CRC;
		l->max =
			(uint16_t)(p->v[F_MAX] < s->puppet.max_payload ? p->v[F_MAX] : s->puppet.max_payload);
	} else {
		otherwise(x, F_ID, l->q.cid);
		l->q.cid = p->v[F_ID];
		l->q.nonce = p->v[F_NONCE];
		if (x->from.family)
			l->addr = x->from;
	}
	l->q.isn = (uint32_t)p->v[F_ISN];
	l->win = p->v[F_WIN];
}

static void fill_control(struct script *s, struct link *l, struct spec *x)
{
	switch (x->p.type) {
	case WIRE_INIT_NAK:
		otherwise(x, F_CODE, TP_NO_LISTENER);
		break;
	case WIRE_COOKIE:
		if (!x->has_cookie)
			memset(x->p.cookie, 0x44, sizeof x->p.cookie);
		break;
	case WIRE_RESET:
		otherwise(x, F_REASON, WIRE_RESET_UNKNOWN);
		otherwise(x, F_ID, l->q.cid);
		memcpy(x->p.token, l->q.token, sizeof x->p.token);
		x->p.token[15] ^= x->bad_token;
		return;
	case WIRE_FIND:
	case WIRE_FIND_REPLY:
		otherwise(x, F_NONCE, FIND_NONCE);
		otherwise(x, F_PORT, PUPPET_PORT);
		otherwise(x, F_CODE, TP_OK);
		return;
	}
	otherwise(x, F_ID, l->q.their_cid);
	otherwise(x, F_NONCE, l->q.nonce);
}

static void fill(struct script *s, struct link *l, struct spec *x)
{
	if (x->p.type <= WIRE_ACK)
		fill_numbered(s, l, x);
	else if (x->p.type <= WIRE_INIT_ACK)
		fill_init(s, l, x);
	else
		fill_control(s, l, x);
}

/* --- sending --- */

void script_remember(struct script *s, int label, const struct packet *p, const uint8_t *bytes, size_t len)
{
	struct label *b;

	if (label < 0)
		return;
	b = &s->labels[label];
	free(b->bytes);
	b->bytes = malloc(len ? len : 1);
	if (!b->bytes)
		abort();
	memcpy(b->bytes, bytes, len);
	b->len = len;
	b->p = *p;
	b->p.payload = NULL;
	b->set = true;
}

/* The initial PSN that the script wants, for connections that have said nothing yet. */
static void move_isns(struct script *s)
{
	struct tp *t = s->puppet.tp;

	for (uint32_t i = 0; i < t->max_conns; i++) {
		struct tp_conn *c = t->slots[i];

		if (!c || !c->init_due || c->packets_sent || c->attempt)
			continue;
		c->isn = s->isn;
		c->snd_una = c->snd_nxt = c->recovery_end = c->round_end = c->ackreq_psn = s->isn;
	}
}

void script_settle_isn(struct script *s)
{
	if (s->has_isn)
		move_isns(s);
}

static void note(struct script *s, const struct link *l, const struct spec *x)
{
	fprintf(s->seen, "    %-12s %s%s< ", time_text(script_now(s)), l->name, *l->name ? ": " : "");
	packet_print(s, s->seen, &x->p);
	fprintf(s->seen, "%s%s%s\n", x->ce ? " CE" : "", x->late ? " late" : "",
		x->bad_crc ? " bad_crc" : "");
}

void script_inject(struct script *s, struct link *l)
{
	static uint8_t buf[SCRIPT_PACKET + 4096];
	struct puppet *p = &s->puppet;
	const uint8_t *bytes = buf;
	struct sd_addr local = p->local, peer = p->peer;
	struct spec x;
	size_t len;

	spec_parse(s, &x, true);
	if (x.again >= 0) {
		const struct label *old = &s->labels[x.again];

		x.p = old->p;
		bytes = old->bytes;
		len = old->len;
	} else {
		fill(s, l, &x);
		len = packet_encode(s, l, &x, buf);
		script_remember(s, x.label, &x.p, buf, len);
	}
	note(s, l, &x);
	p->peer = x.from.family ? x.from : l->addr;
	if (x.to.family)
		p->local = x.to;
	p->ce = x.ce;
	p->late = x.late;
	puppet_input(p, bytes, len);
	p->local = local;
	p->peer = peer;
	p->ce = p->late = false;
	script_settle_isn(s);
}

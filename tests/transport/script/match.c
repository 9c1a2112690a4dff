/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * match: what the endpoint sends, against what the script expects. Beside the fields that a line names, what
 * holds for every packet is looked at: its trailer, whom it is for, the bytes it carries, and that a
 * retransmission is of the same PSN, offset, bytes and FIN as the first transmission.
 */
#include <stdlib.h>
#include <string.h>

#include "script.h"

/* --- time --- */

/* Takes the next packet out, and writes it down. */
static bool take(struct script *s, const struct link *l, struct packet *got, const char **wrong)
{
	struct puppet *p = &s->puppet;
	const struct link *of = l;

	if (!puppet_output(p))
		return false;
	if (p->out_len >= 16 && tp_wire_type(p->out) != WIRE_FIND && tp_wire_type(p->out) != WIRE_FIND_REPLY)
		of = script_link_by_id(s, tp_wire_cid(p->out));
	if (!of)
		of = l;
	*wrong = packet_decode(of, p->out, p->out_len, got);
	fprintf(s->seen, "    %-12s %s%s> ", time_text(script_now(s)), of->name, *of->name ? ": " : "");
	packet_print(s, s->seen, got);
	fprintf(s->seen, *wrong ? " (%s)\n" : "\n", *wrong);
	return true;
}

static void refuse_output(struct script *s)
{
	struct packet got;
	const char *wrong;

	if (take(s, &s->links[0], &got, &wrong))
		script_fail(s, "expected no packet until now; the last one below came at %s",
			time_text(script_now(s)));
}

void script_advance(struct script *s, uint64_t until)
{
	struct puppet *p = &s->puppet;

	if (until < p->now)
		script_fail(s, "%s is over: it is %s", time_text(until - s->start), time_text(script_now(s)));
	if (until == p->now)
		return;
	refuse_output(s);
	while (puppet_wait_output(p, until - p->now))
		refuse_output(s);
	p->may_alloc = false;
	tp_timeout(p->tp, p->now); /* whoever drives an endpoint keeps its clock right */
	p->may_alloc = true;
	if (tp_output_pending(p->tp))
		refuse_output(s);
}

static void no_packet(struct script *s)
{
	script_fail(s, "expected a packet; none came until %s", time_text(script_now(s)));
}

static const char *wait_packet(
	struct script *s, const struct link *l, uint64_t from, uint64_t until, struct packet *got)
{
	struct puppet *p = &s->puppet;
	const char *wrong = NULL;

	while (!take(s, l, got, &wrong)) {
		if (p->now >= until)
			no_packet(s);
		puppet_wait_output(p, until - p->now);
	}
	if (p->now < from)
		script_fail(s, "a packet came at %s, expected at %s at the earliest",
			time_text(script_now(s)), time_text(from - s->start));
	return wrong;
}

/* --- fields --- */

static void differs(struct script *s, enum field f, uint64_t is, uint64_t want)
{
	char *is_text = NULL, *want_text = NULL;
	size_t len;
	FILE *out = open_memstream(&is_text, &len);
	char a[64], b[64];

	if (!out)
		abort();
	field_print(s, out, f, is);
	fclose(out);
	out = open_memstream(&want_text, &len);
	if (!out)
		abort();
	field_print(s, out, f, want);
	fclose(out);
	snprintf(a, sizeof a, "%s", is_text);
	snprintf(b, sizeof b, "%s", want_text);
	free(is_text);
	free(want_text);
	script_fail(s, "%s is %s, expected %s", field_name(f), a, b);
}

/* A dwell time may be rounded either way. */
static bool same(enum field f, uint64_t is, uint64_t want)
{
	if ((f == F_ECHO || f == F_TS) && is && want)
		return is - want + 1 <= 2;
	return is == want;
}

static void match_fields(struct script *s, const struct spec *x, const struct packet *got)
{
	for (int f = 0; f < F_COUNT; f++) {
		if (x->absent & got->has & BIT(f))
			script_fail(s, "%s is there", field_name((enum field)f));
		if (!(x->p.has & BIT(f)))
			continue;
		if (!(got->has & BIT(f)))
			script_fail(s, "%s is not there", field_name((enum field)f));
		if (!same((enum field)f, got->v[f], x->p.v[f]))
			differs(s, (enum field)f, got->v[f], x->p.v[f]);
	}
}

static void match_flags(struct script *s, const struct spec *x, const struct packet *got)
{
	unsigned missing = x->p.flags & ~got->flags, extra = got->flags & x->not_flags;

	if (x->exact_flags)
		extra = got->flags & ~x->p.flags;
	for (const struct name *n = flags; n->name; n++) {
		if (missing & n->value)
			script_fail(s, "%s is not set", n->name);
		if (extra & n->value)
			script_fail(s, "%s is set", n->name);
	}
	if ((x->p.last && !got->last) || (x->not_last && got->last))
		script_fail(s, "LAST is%s set", got->last ? "" : " not");
	if ((x->p.more && !got->more) || (x->not_more && got->more))
		script_fail(s, "more is%s set", got->more ? "" : " not");
}

static void match_sack(struct script *s, const struct spec *x, const struct packet *got)
{
	if (x->has_sack &&
		(x->p.n_sack != got->n_sack || memcmp(x->p.sack, got->sack, got->n_sack * sizeof *got->sack)))
		script_fail(s, "the SACK words name other packets");
}

/* --- what holds always --- */

static void check_owner(
	struct script *s, const struct link *l, const struct spec *x, const struct packet *got)
{
	uint64_t id = got->type == WIRE_RESET ? l->q.their_cid : l->q.cid;

	if (x->any || got->type == WIRE_FIND || got->type == WIRE_FIND_REPLY)
		return;
	if (got->type != WIRE_INIT && !(x->p.has & BIT(F_ID)) && got->v[F_ID] != id)
		script_fail(s, "it is of another connection");
	if (!sd_addr_same_ip(&s->puppet.out_path->peer, &l->addr))
		script_fail(s, "it is sent to another address");
	if (got->type == WIRE_RESET && l->known && id == got->v[F_ID] &&
		memcmp(got->token, l->q.their_token, sizeof got->token))
		script_fail(s, "its token is wrong");
	if ((got->type == WIRE_INIT_ACK || got->type == WIRE_INIT_NAK || got->type == WIRE_COOKIE) &&
		got->v[F_NONCE] != l->q.nonce)
		script_fail(s, "its nonce is wrong");
}

static void check_payload(struct script *s, const struct link *l, const struct packet *got)
{
	uint64_t from = got->v[F_OFF];

	if (got->v[F_OP] == WIRE_OP_READ_RESP)
		from += l->asked[got->v[F_RSN] % SCRIPT_REQUESTS];
	if (got->v[F_OP] == WIRE_OP_READ_RESP && got->has & BIT(F_VALUE))
		return; /* may be an atomic's */
	if (!script_is_pattern(got->payload, got->payload_len, from))
		script_fail(s, "its bytes are wrong");
}

/* The bytes of its packet that it says it has, and what ends with the packet's last one. */
static void check_part(struct script *s, const struct link *l, unsigned i, const struct packet *got)
{
	uint64_t end = got->v[F_PIECE] + got->v[F_LEN];
	bool ends = got->v[F_OP] == WIRE_OP_WRITE_IMM || got->flags & WIRE_F_FIN;

	if (!l->first[i].sent || l->first[i].psn != got->v[F_PSN] || !(got->flags & WIRE_F_RETX))
		script_fail(s, "only a packet that was sent before is repeated in pieces");
	if (got->v[F_OFF] != l->first[i].off + got->v[F_PIECE] || end > l->first[i].len ||
		got->more != (end < l->first[i].len))
		script_fail(s, "it is no piece of what was sent with this PSN before");
	if (ends != (!got->more && (l->first[i].fin || l->first[i].op == WIRE_OP_WRITE_IMM)))
		script_fail(s, "it ends what its packet did not end, or does not end it");
}

static void check_again(struct script *s, struct link *l, const struct packet *got)
{
	unsigned fin = got->flags & WIRE_F_FIN, i = (unsigned)got->v[F_PSN] % SCRIPT_REMEMBER;
	bool again = l->first[i].sent && l->first[i].psn == got->v[F_PSN];

	if (got->has & BIT(F_PIECE)) {
		check_part(s, l, i, got);
		return;
	}
	if (again != ((got->flags & WIRE_F_RETX) != 0))
		script_fail(s, again ? "it was sent before, and has no RETX" : "RETX is set the first time");
	if (again && (l->first[i].off != got->v[F_OFF] || l->first[i].len != got->v[F_LEN] ||
			     l->first[i].fin != fin || l->first[i].op != got->v[F_OP]))
		script_fail(s, "it is not what was sent with this PSN before");
	l->first[i].sent = true;
	l->first[i].psn = (uint32_t)got->v[F_PSN];
	l->first[i].off = got->v[F_OFF];
	l->first[i].len = got->v[F_LEN];
	l->first[i].fin = fin;
	l->first[i].op = (uint8_t)got->v[F_OP];
}

static void check_always(struct script *s, struct link *l, const struct packet *got)
{
	if (got->type <= WIRE_ACK && l->max && s->puppet.out_len > l->max)
		script_fail(s, "it has %zu bytes, more than were agreed", s->puppet.out_len);
	if (got->type <= WIRE_INIT_ACK && got->v[F_TS] != tp_timestamp(s->puppet.now))
		script_fail(s, "its timestamp is not that of now");
	if (got->type != WIRE_DATA)
		return;
	check_payload(s, l, got);
	check_again(s, l, got);
	if (got->v[F_OP] == WIRE_OP_READ_REQ || got->v[F_OP] == WIRE_OP_SWAP || got->v[F_OP] == WIRE_OP_ADD)
		l->asks[got->v[F_RSN] % SCRIPT_REQUESTS] = got->v[F_OFF];
}

/* What the peer knows by it. */
static void learn(struct script *s, struct link *l, const struct packet *got)
{
	if (got->type <= WIRE_INIT_ACK && (got->type != WIRE_ACK || got->flags & WIRE_F_ACKREQ))
		l->heard = (uint32_t)got->v[F_TS];
	if (got->type != WIRE_INIT && got->type != WIRE_INIT_ACK)
		return;
	peer_learn(&s->puppet, &l->q);
	l->known = true;
	if (got->type == WIRE_INIT_ACK) {
		l->q.crc = got->v[F_FEATURES] & WIRE_FEAT_CRC;
		l->max = (uint16_t)got->v[F_MAX];
	}
}

void script_expect(struct script *s, struct link *l, uint64_t from, uint64_t until)
{
	struct packet got;
	const char *wrong;
	struct spec x;

	spec_parse(s, &x, false);
	if (x.nothing) {
		script_advance(s, from);
		refuse_output(s);
		return;
	}
	wrong = wait_packet(s, l, from, until, &got);
	if (wrong)
		script_fail(s, "a packet came, and %s", wrong);
	if (got.type != x.p.type)
		script_fail(s, "another type of packet came");
	match_fields(s, &x, &got);
	match_flags(s, &x, &got);
	match_sack(s, &x, &got);
	if (x.has_cookie && memcmp(x.p.cookie, got.cookie, sizeof got.cookie))
		script_fail(s, "its cookie is another");
	check_owner(s, l, &x, &got);
	if (x.any)
		return;
	check_always(s, l, &got);
	learn(s, l, &got);
	script_remember(s, x.label, &got, s->puppet.out, s->puppet.out_len);
}

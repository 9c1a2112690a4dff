/* SPDX-License-Identifier: BSD-3-Clause */
/* text: between a line's words and a packet's fields. One table says what the fields are called. */
#include <string.h>

#include "script.h"

enum form { NUMBER, TIME, STAMP, NONCE, RKEY, NAME, BITS, ADDRESS };

#define ON(type) (1u << (type))
#define PACKETS	 (ON(WIRE_DATA) | ON(WIRE_ACK))
#define INITS	 (ON(WIRE_INIT) | ON(WIRE_INIT_ACK))
#define FINDS	 (ON(WIRE_FIND) | ON(WIRE_FIND_REPLY))

/* F_OP, F_OFF and F_LEN have no words of their own. */
static const struct {
	const char *name;
	enum form form;
	unsigned types, width;
	const struct name *names;
} fields[F_COUNT] = {
	[F_PSN] = {"psn", NUMBER, PACKETS | ON(WIRE_RESET), 32},
	[F_ACK] = {"ack", NUMBER, PACKETS, 32},
	[F_WIN] = {"win", NUMBER, PACKETS | INITS, 64},
	[F_CREDIT] = {"credit", NUMBER, PACKETS, 16},
	[F_CE] = {"ce", NUMBER, PACKETS, 16},
	[F_SSN] = {"ssn", NUMBER, ON(WIRE_DATA), 32},
	[F_RSN] = {"rsn", NUMBER, ON(WIRE_DATA), 32},
	[F_IMM] = {"imm", NUMBER, ON(WIRE_DATA), 32},
	[F_RKEY] = {"rkey", RKEY, ON(WIRE_DATA), 64},
	[F_OPERAND] = {"operand", NUMBER, ON(WIRE_DATA), 64},
	[F_COMPARE] = {"compare", NUMBER, ON(WIRE_DATA), 64},
	[F_PIECE] = {"piece", NUMBER, PACKETS, 32},
	[F_VALUE] = {"value", NUMBER, ON(WIRE_DATA), 64},
	[F_ATTEMPT] = {"attempt", NUMBER, INITS, 8},
	[F_SPORT] = {"sport", NUMBER, INITS, 16},
	[F_DPORT] = {"dport", NUMBER, INITS, 16},
	[F_EPOCH] = {"epoch", NUMBER, INITS, 64},
	[F_ISN] = {"isn", NUMBER, INITS, 32},
	[F_DELAY] = {"delay", TIME, INITS, 42},
	[F_MAX] = {"max", NUMBER, INITS, 16},
	[F_FEATURES] = {"features", BITS, INITS, 16, features},
	[F_PACKETS] = {"packets", NUMBER, INITS, 16},
	[F_READS] = {"reads", NUMBER, INITS, 16},
	[F_CODE] = {"code", NAME, ON(WIRE_INIT_NAK) | ON(WIRE_FIND_REPLY), 8, codes},
	[F_REASON] = {"reason", NAME, ON(WIRE_RESET), 8, reasons},
	[F_PORT] = {"port", NUMBER, FINDS, 16},
	[F_ADDRESS] = {"address", ADDRESS, FINDS, 32},
	[F_NONCE] = {"nonce", NONCE, INITS | FINDS | ON(WIRE_INIT_NAK) | ON(WIRE_COOKIE), 64},
	[F_ID] = {"id", NUMBER, ~FINDS, 64},
	[F_TS] = {"ts", STAMP, PACKETS | INITS, 32},
	[F_ECHO] = {"echo", STAMP, PACKETS | INITS, 32},
};

static const struct name types[] = {
	{"ACK", WIRE_ACK},
	{"INIT", WIRE_INIT},
	{"INIT_ACK", WIRE_INIT_ACK},
	{"INIT_NAK", WIRE_INIT_NAK},
	{"COOKIE", WIRE_COOKIE},
	{"RESET", WIRE_RESET},
	{"FIND", WIRE_FIND},
	{"FIND_REPLY", WIRE_FIND_REPLY},
	NAMES_END,
};

static void put(struct spec *out, enum field f, uint64_t v)
{
	out->p.has |= BIT(f);
	out->p.v[f] = v;
}

static const struct label *label_of(struct script *s, const char *word)
{
	int i = script_label(s, word, false);

	if (i < 0 || !s->labels[i].set)
		script_fail(s, "no packet was called '%s'", word);
	return &s->labels[i];
}

/* "none", "@label", "@label+50us", or a time of the script */
static uint64_t stamp_of(struct script *s, const char *word)
{
	uint64_t dwell = 0;
	char name[32];
	size_t len = strcspn(word, "+");

	if (!strcmp(word, "none"))
		return 0;
	if (*word != '@')
		return tp_timestamp(s->start + time_of(s, word, "the timestamp"));
	if (len >= sizeof name)
		script_fail(s, "no packet was called '%s'", word);
	memcpy(name, word, len);
	name[len] = '\0';
	if (word[len])
		dwell = time_of(s, word + len + 1, "the time after it");
	return (uint32_t)(label_of(s, name)->p.v[F_TS] + (dwell >> 7));
}

static uint64_t rkey_of(struct script *s, const char *word)
{
	uint64_t v;

	for (unsigned i = 0; i < s->n_regions; i++)
		if (!strcmp(s->regions[i].name, word))
			return s->regions[i].rkey;
	if (!parse_number(word, &v))
		script_fail(s, "there is no region '%s'", word);
	return v;
}

static uint64_t value_of(struct script *s, enum field f, const char *word)
{
	uint64_t max = fields[f].width == 64 ? UINT64_MAX : (1ull << fields[f].width) - 1;
	uint64_t v;

	switch (fields[f].form) {
	case TIME:
		v = time_of(s, word, fields[f].name);
		if (v > max || v % SD_US)
			script_fail(s, "%s is in microseconds, and below 73 minutes", fields[f].name);
		return v;
	case STAMP:
		return stamp_of(s, word);
	case NONCE:
		return *word == '@' ? label_of(s, word)->p.v[F_NONCE] : number_of(s, word, "the nonce", max);
	case RKEY:
		return rkey_of(s, word);
	case NAME:
		if (find_name(fields[f].names, word, &v))
			return v;
		return number_of(s, word, fields[f].name, max);
	case BITS:
		return bits_of(s, fields[f].names, word, fields[f].name);
	case ADDRESS:
		return be32_get(address_of(s, word).ip);
	case NUMBER:
		break;
	}
	return number_of(s, word, fields[f].name, max);
}

static bool parse_field(struct script *s, struct spec *out, const char *word)
{
	for (int f = 0; f < F_COUNT; f++) {
		if (!fields[f].name || strcmp(fields[f].name, word))
			continue;
		if (!(fields[f].types & ON(out->p.type)))
			script_fail(s, "such a packet has no %s", word);
		if (out->p.has & BIT(f))
			script_fail(s, "%s is there twice", word);
		put(out, (enum field)f, value_of(s, (enum field)f, word_next(s, word)));
		return true;
	}
	return false;
}

static void parse_range(struct script *s, struct packet *p, const char *one)
{
	const char *dash = strchr(one, '-');
	char first[32];
	size_t len = dash ? (size_t)(dash - one) : strlen(one);
	struct range r;

	if (len >= sizeof first)
		script_fail(s, "'%s' is not a range of packets", one);
	memcpy(first, one, len);
	first[len] = '\0';
	r.from = r.to = (uint32_t)number_of(s, first, "a packet number", UINT32_MAX);
	if (dash)
		r.to = (uint32_t)number_of(s, dash + 1, "a packet number", UINT32_MAX);
	if (r.to < r.from || r.to - r.from > 1024 || (p->n_sack && r.from <= p->sack[p->n_sack - 1].to))
		script_fail(s, "ranges of packets are short and in their order");
	if (p->n_sack && p->sack[p->n_sack - 1].to + 1 == r.from) {
		p->sack[p->n_sack - 1].to = r.to;
		return;
	}
	if (p->n_sack == SCRIPT_RANGES)
		script_fail(s, "there are more than %d ranges of packets", SCRIPT_RANGES);
	p->sack[p->n_sack++] = r;
}

static void parse_sack(struct script *s, struct spec *out)
{
	const char *word = word_next(s, "sack");
	char one[64];

	out->has_sack = true;
	if (!strcmp(word, "none"))
		return;
	while (*word) {
		size_t len = strcspn(word, ",");

		if (len >= sizeof one)
			script_fail(s, "'%s' is not a range of packets", word);
		memcpy(one, word, len);
		one[len] = '\0';
		parse_range(s, &out->p, one);
		word += len + (word[len] != '\0');
	}
}

static void parse_cookie(struct script *s, struct spec *out)
{
	const char *word = word_next(s, "the cookie");

	out->has_cookie = true;
	if (!strcmp(word, "none"))
		memset(out->p.cookie, 0, sizeof out->p.cookie);
	else if (*word == '@')
		memcpy(out->p.cookie, label_of(s, word)->p.cookie, sizeof out->p.cookie);
	else
		memset(out->p.cookie, (int)number_of(s, word, "each byte of the cookie", 255),
			sizeof out->p.cookie);
}

static void parse_patch(struct script *s, struct spec *out)
{
	struct patch *p = &out->patches[out->n_patches];

	if (out->n_patches == sizeof out->patches / sizeof *out->patches)
		script_fail(s, "too many bytes are changed");
	p->at = (uint16_t)next_number(s, "the byte's place", UINT16_MAX);
	p->value = (uint8_t)next_number(s, "the byte's value", 255);
	out->n_patches++;
}

/* What only an injected packet can have. */
static bool parse_injected(struct script *s, struct spec *out, const char *word)
{
	if (!strcmp(word, "CE"))
		out->ce = true;
	else if (!strcmp(word, "late"))
		out->late = true;
	else if (!strcmp(word, "bad_crc"))
		out->bad_crc = true;
	else if (!strcmp(word, "no_crc"))
		out->no_crc = true;
	else if (!strcmp(word, "bad_token") && out->p.type == WIRE_RESET)
		out->bad_token = true;
	else if (!strcmp(word, "fresh") && out->p.type == WIRE_INIT)
		out->fresh = true;
	else if (!strcmp(word, "byte"))
		parse_patch(s, out);
	else if (!strcmp(word, "cut"))
		out->cut = (unsigned)next_number(s, "cut", 2048);
	else if (!strcmp(word, "pad"))
		out->pad = (unsigned)next_number(s, "pad", 2048);
	else if (!strcmp(word, "ip"))
		out->from = address_of(s, word_next(s, "the address"));
	else if (!strcmp(word, "to"))
		out->to = address_of(s, word_next(s, "the address"));
	else
		return false;
	return true;
}

static bool parse_expected(struct script *s, struct spec *out, const char *word)
{
	uint64_t v;

	if (!strcmp(word, "any"))
		out->any = true;
	else if (!strcmp(word, "!win"))
		out->absent |= BIT(F_WIN);
	else if (!strcmp(word, "!imm"))
		out->absent |= BIT(F_IMM);
	else if (!strcmp(word, "!LAST"))
		out->not_last = true;
	else if (!strcmp(word, "!piece"))
		out->absent |= BIT(F_PIECE);
	else if (!strcmp(word, "!more"))
		out->not_more = true;
	else if (*word == '!' && find_name(flags, word + 1, &v))
		out->not_flags |= (unsigned)v;
	else
		return false;
	return true;
}

static bool parse_shared(struct script *s, struct spec *out, const char *word)
{
	uint64_t a, b;

	if (find_name(flags, word, &a) && out->p.type <= WIRE_ACK) {
		out->p.flags |= (unsigned)a;
	} else if (!strcmp(word, "flags") && out->p.type <= WIRE_ACK) {
		out->exact_flags = true;
		out->p.flags |= (unsigned)bits_of(s, flags, word_next(s, "flags"), "flag");
	} else if (!strcmp(word, "LAST") && out->p.type == WIRE_DATA) {
		out->p.last = true;
	} else if (!strcmp(word, "more") && out->p.has & BIT(F_PIECE)) {
		out->p.more = true;
	} else if (!strcmp(word, "sack") && out->p.type == WIRE_ACK) {
		parse_sack(s, out);
	} else if (!strcmp(word, "cookie") && (ON(out->p.type) & (INITS | ON(WIRE_COOKIE)))) {
		parse_cookie(s, out);
	} else if (!strcmp(word, "len") && out->p.type == WIRE_DATA) {
		put(out, F_LEN, next_number(s, "len", WIRE_MAX_MESSAGE));
	} else if (out->p.type == WIRE_DATA && parse_piece(word, &a, &b)) {
		put(out, F_OFF, a);
		put(out, F_LEN, b);
	} else if (out->p.type == WIRE_INIT_NAK && find_name(codes, word, &a)) {
		put(out, F_CODE, a);
	} else if (out->p.type == WIRE_RESET && find_name(reasons, word, &a)) {
		put(out, F_REASON, a);
	} else if (*word == '@') {
		out->label = script_label(s, word, true);
	} else {
		return false;
	}
	return true;
}

/* The first word; false: nothing may follow it. */
static bool parse_type(struct script *s, struct spec *out, bool injected)
{
	const char *word = word_next(s, "the packet's type");
	uint64_t v;

	if (find_name(types, word, &v)) {
		out->p.type = (uint8_t)v;
	} else if (find_name(opcodes, word, &v)) {
		out->p.type = WIRE_DATA;
		put(out, F_OP, v);
	} else if (!strcmp(word, "HELLO")) {
		out->p.type = WIRE_FIND_REPLY;
		put(out, F_NONCE, TP_HELLO_NONCE);
		put(out, F_PORT, 0);
	} else if (!strcmp(word, "again") && injected) {
		out->again = (int)(label_of(s, word_next(s, "the packet")) - s->labels);
		out->p.type = s->labels[out->again].p.type;
	} else if (!strcmp(word, "nothing") && !injected) {
		out->nothing = true;
		return false;
	} else {
		script_fail(s, "there is no type of packet '%s'", word);
	}
	return true;
}

void spec_parse(struct script *s, struct spec *out, bool injected)
{
	memset(out, 0, sizeof *out);
	out->label = out->again = -1;
	if (!parse_type(s, out, injected)) {
		words_end(s);
		return;
	}
	while (word_peek(s)) {
		const char *word = word_next(s, "a field");
		bool ok = injected ? parse_injected(s, out, word) : parse_expected(s, out, word);

		if (ok)
			continue;
		if (out->again >= 0 || (!parse_field(s, out, word) && !parse_shared(s, out, word)))
			script_fail(s, "'%s' cannot stand in such a packet", word);
	}
}

/* --- printing --- */

static void print_stamp(const struct script *s, FILE *to, uint64_t v)
{
	uint32_t since = (uint32_t)v - tp_timestamp(s->start);

	if (!v)
		fputs("none", to);
	else if (since <= tp_timestamp(s->puppet.now) - tp_timestamp(s->start))
		fputs(time_text((uint64_t)since << 7), to);
	else
		fprintf(to, "%#llx", (unsigned long long)v);
}

static void print_rkey(const struct script *s, FILE *to, uint64_t v)
{
	for (unsigned i = 0; i < s->n_regions; i++) {
		if (s->regions[i].rkey == v) {
			fputs(s->regions[i].name, to);
			return;
		}
	}
	fprintf(to, "%#llx", (unsigned long long)v);
}

static void print_bits(FILE *to, const struct name *names, uint64_t v)
{
	const char *between = "";

	for (; names->name; names++) {
		if (v & names->value) {
			fprintf(to, "%s%s", between, names->name);
			between = ",";
		}
	}
	if (!*between)
		fputs("none", to);
}

void field_print(const struct script *s, FILE *to, enum field f, uint64_t v)
{
	const char *name = NULL;

	switch (fields[f].form) {
	case TIME:
		fputs(time_text(v), to);
		return;
	case STAMP:
		print_stamp(s, to, v);
		return;
	case RKEY:
		print_rkey(s, to, v);
		return;
	case BITS:
		print_bits(to, fields[f].names, v);
		return;
	case ADDRESS:
		fprintf(to, "%u.%u.%u.%u", (unsigned)(v >> 24), (unsigned)(v >> 16 & 255),
			(unsigned)(v >> 8 & 255), (unsigned)(v & 255));
		return;
	case NAME:
		name = name_of(fields[f].names, v);
		break;
	case NUMBER:
	case NONCE:
		break;
	}
	if (name)
		fputs(name, to);
	else
		fprintf(to, v >> 32 ? "%#llx" : "%llu", (unsigned long long)v);
}

const char *field_name(enum field f)
{
	return fields[f].name ? fields[f].name
	       : f == F_OFF   ? "the offset"
	       : f == F_LEN   ? "the length"
			      : "the opcode";
}

void packet_print(const struct script *s, FILE *to, const struct packet *p)
{
	const char *type = p->type == WIRE_DATA ? name_of(opcodes, p->v[F_OP]) : name_of(types, p->type);

	fputs(type ? type : "?", to);
	if (p->has & BIT(F_OFF))
		fprintf(to, " %llu:%llu", (unsigned long long)p->v[F_OFF], (unsigned long long)p->v[F_LEN]);
	if (p->type <= WIRE_ACK && p->flags) {
		fputs(" flags ", to);
		print_bits(to, flags, p->flags);
	}
	if (p->last)
		fputs(" LAST", to);
	if (p->more)
		fputs(" more", to);
	for (int f = 0; f < F_COUNT; f++) {
		bool dull = f == F_ID || ((f == F_CE || f == F_CREDIT) && !p->v[f]);

		if (fields[f].name && p->has & BIT(f) && !dull) {
			fprintf(to, " %s ", fields[f].name);
			field_print(s, to, (enum field)f, p->v[f]);
		}
	}
	for (unsigned i = 0; i < p->n_sack; i++) {
		fprintf(to, "%s%u", i ? "," : " sack ", p->sack[i].from);
		if (p->sack[i].to != p->sack[i].from)
			fprintf(to, "-%u", p->sack[i].to);
	}
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* checks: what the endpoint has told its application, and what it says about itself. */
#include <stddef.h>
#include <string.h>

#include "script.h"

#define TIMESTAMPS 256 /* ns: two of them are so exact */

/* What can be looked at, beside struct tp_info and struct tp_stats. */
enum view {
	V_STATE,
	V_ERROR,
	V_CODE,
	V_READABLE,
	V_EOF,
	V_UNACKED,
	V_UNSENT,
	V_WRITABLE,
	V_LINGERING,
	V_ACCEPTABLE,
	V_HALF_OPEN,
	V_FOUND,
	V_FOUND_CODE,
	V_FOUND_PORT,
	V_QP_ERROR,
	V_NOTIFIED,
};

static const struct name views[] = {
	{"state", V_STATE},
	{"error", V_ERROR},
	{"code", V_CODE},
	{"readable", V_READABLE},
	{"eof", V_EOF},
	{"unacked", V_UNACKED},
	{"unsent", V_UNSENT},
	{"is_writable", V_WRITABLE},
	{"lingering", V_LINGERING},
	{"acceptable", V_ACCEPTABLE},
	{"half_open", V_HALF_OPEN},
	{"found", V_FOUND},
	{"found_code", V_FOUND_CODE},
	{"found_port", V_FOUND_PORT},
	{"qp_error", V_QP_ERROR},
	{"notified", V_NOTIFIED},
	NAMES_END,
};

static const struct name states[] = {
	{"FREE", CONN_FREE},
	{"INIT_SENT", CONN_INIT_SENT},
	{"INIT_RECEIVED", CONN_INIT_RECEIVED},
	{"OPEN", CONN_OPEN},
	{"CLOSING", CONN_CLOSING},
	{"FAILED", CONN_FAILED},
	NAMES_END,
};

#define INFO(f)                                                                                              \
	{                                                                                                    \
#f, offsetof(struct tp_info, f), sizeof((struct tp_info *)0)->f                              \
	}
#define STAT(f)                                                                                              \
	{                                                                                                    \
#f, offsetof(struct tp_stats, f), sizeof((struct tp_stats *)0)->f                            \
	}

struct number {
	const char *name;
	size_t offset, size;
};

static const struct number infos[] = {
	INFO(bytes_sent),
	INFO(bytes_acked),
	INFO(bytes_received),
	INFO(packets_sent),
	INFO(packets_received),
	INFO(retransmits),
	{"srtt", offsetof(struct tp_info, srtt_ns), 8},
	{"min_rtt", offsetof(struct tp_info, min_rtt_ns), 8},
	{"rto", offsetof(struct tp_info, rto_ns), 8},
	INFO(cwnd),
	INFO(in_flight),
	INFO(payload),
	INFO(send_ring),
	INFO(recv_ring),
	INFO(send_queued),
	INFO(recv_queued),
	{NULL, 0, 0},
};

static const struct number stats[] = {
	STAT(rx_bad_header),
	STAT(rx_bad_crc),
	STAT(rx_unknown_cid),
	STAT(rx_bad_token),
	STAT(rx_out_of_window),
	STAT(rx_duplicate),
	STAT(spurious_retransmits),
	STAT(tail_probes),
	STAT(timeouts),
	STAT(black_holes),
	STAT(conns_opened),
	STAT(conns_accepted),
	STAT(conns_failed),
	STAT(inits_refused),
	STAT(cookies_sent),
	STAT(resets_sent),
	{NULL, 0, 0},
};

static uint64_t number_at(const void *base, const struct number *n)
{
	uint64_t v = 0;

	memcpy(&v, (const char *)base + n->offset, n->size); /* little-endian, or as wide */
	return v;
}

static const struct number *find_number(const struct number *n, const char *word)
{
	for (; n->name; n++)
		if (!strcmp(n->name, word))
			return n;
	return NULL;
}

static uint64_t view_of_conn(struct script *s, const struct link *l, enum view view)
{
	struct tp_conn *c = script_conn(s, l);

	if (view == V_STATE)
		return c ? c->state : CONN_FREE;
	if (!c)
		script_fail(s, "there is no such connection");
	switch (view) {
	case V_ERROR:
		return (uint64_t)-tp_error(c);
	case V_CODE:
		return tp_connect_code(c);
	case V_READABLE:
		return tp_readable(c);
	case V_EOF:
		return tp_at_eof(c);
	case V_UNACKED:
		return tp_unacked(c);
	case V_UNSENT:
		return tp_unsent(c);
	default:
		return tp_is_writable(c);
	}
}

static uint64_t view_of(struct script *s, const struct link *l, enum view view)
{
	struct puppet *p = &s->puppet;

	switch (view) {
	case V_LINGERING:
		return tp_lingering(p->tp);
	case V_ACCEPTABLE:
		return p->listener && tp_acceptable(p->listener);
	case V_HALF_OPEN:
		return p->tp->half_open;
	case V_FOUND:
		return p->found;
	case V_FOUND_CODE:
		return p->last_found.code;
	case V_FOUND_PORT:
		return p->last_found.target.port;
	case V_NOTIFIED:
		return p->completions;
	case V_QP_ERROR:
		if (!l->qp)
			script_fail(s, "there is no queue pair");
		return (uint64_t)-tp_qp_error(l->qp);
	default:
		return view_of_conn(s, l, view);
	}
}

static uint64_t value_now(struct script *s, const struct link *l, const char *what)
{
	const struct number *n = find_number(stats, what);
	struct tp_info info;
	uint64_t view;

	if (n)
		return number_at(tp_stats(s->puppet.tp), n);
	if (find_name(views, what, &view))
		return view_of(s, l, (enum view)view);
	n = find_number(infos, what);
	if (!n)
		script_fail(s, "there is no '%s' to be checked", what);
	if (!script_conn(s, l))
		script_fail(s, "there is no such connection");
	tp_info(script_conn(s, l), &info);
	return number_at(&info, n);
}

/* A name, a number or a time; "~" and how far it may be off, either way. */
static uint64_t wanted(struct script *s, const char *word, uint64_t *off)
{
	const char *tilde = strchr(word, '~');
	char first[48];
	size_t len = tilde ? (size_t)(tilde - word) : strlen(word);
	uint64_t v;

	*off = 0;
	if (len >= sizeof first)
		script_fail(s, "'%s' is no value", word);
	memcpy(first, word, len);
	first[len] = '\0';
	if (tilde && !parse_number(tilde + 1, off))
		*off = time_of(s, tilde + 1, "the tolerance");
	if (!strcmp(first, "GONE"))
		return CONN_FREE;
	if (find_name(states, first, &v) || find_name(errors, first, &v) || find_name(codes, first, &v) ||
		parse_number(first, &v))
		return v;
	if (!tilde)
		*off = TIMESTAMPS;
	return time_of(s, first, "the value");
}

static bool holds(uint64_t is, const char *how, uint64_t want, uint64_t off)
{
	if (!strcmp(how, "<"))
		return is < want;
	if (!strcmp(how, ">"))
		return is > want;
	if (!strcmp(how, "<="))
		return is <= want;
	if (!strcmp(how, ">="))
		return is >= want;
	return is + off >= want && is <= want + off;
}

static void check_one(struct script *s, const struct link *l)
{
	const char *what = word_next(s, "what is to be checked"), *how = "=";
	const char *word = word_next(s, "the value");
	uint64_t is, want, off;

	if (strchr("<>=", *word)) {
		how = word;
		if (strcmp(how, "<") && strcmp(how, ">") && strcmp(how, "<=") && strcmp(how, ">=") &&
			strcmp(how, "="))
			script_fail(s, "'%s' compares nothing", how);
		word = word_next(s, "the value");
	}
	is = value_now(s, l, what);
	want = wanted(s, word, &off);
	if (holds(is, how, want, off))
		return;
	if (!strcmp(what, "state"))
		script_fail(s, "the state is %s, expected %s", name_of(states, is), word);
	if (!strcmp(what, "srtt") || !strcmp(what, "min_rtt") || !strcmp(what, "rto"))
		script_fail(s, "%s is %s, expected %s %s", what, time_text(is), how, word);
	script_fail(s, "%s is %llu, expected %s %s", what, (unsigned long long)is, how, word);
}

static void events_text(char *to, size_t size, unsigned events)
{
	size_t len = 0;

	snprintf(to, size, "none");
	for (const struct name *n = event_names; n->name; n++)
		if (events & n->value)
			len += (size_t)snprintf(to + len, size - len, "%s%s", len ? "," : "", n->name);
}

static void check_events(struct script *s)
{
	const char *word = word_next(s, "the events");
	unsigned want = (unsigned)bits_of(s, event_names, word, "event"), is = s->puppet.events;
	char text[80];

	s->puppet.events = 0;
	if (is == want)
		return;
	events_text(text, sizeof text, is);
	script_fail(s, "the events are %s, expected %s", text, word);
}

bool script_check(struct script *s, struct link *l, const char *verb)
{
	if (!strcmp(verb, "events")) {
		check_events(s);
		return true;
	}
	if (strcmp(verb, "check"))
		return false;
	do
		check_one(s, l);
	while (word_peek(s));
	return true;
}

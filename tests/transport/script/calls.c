/* SPDX-License-Identifier: BSD-3-Clause */
/* calls: what the endpoint's application does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "script.h"

static int64_t result_of(struct script *s, const char *word)
{
	bool minus = *word == '-';
	uint64_t v;

	if (find_name(errors, word, &v))
		return -(int64_t)v;
	v = number_of(s, word + minus, "the result", INT64_MAX);
	return minus ? -(int64_t)v : (int64_t)v;
}

static void result_text(char *to, size_t size, int64_t v)
{
	const char *name = v < 0 ? name_of(errors, (uint64_t)-v) : NULL;

	if (name)
		snprintf(to, size, "%s", name);
	else
		snprintf(to, size, "%lld", (long long)v);
}

void call_result(struct script *s, int64_t result, int64_t usual)
{
	int64_t want = word_is(s, "=") ? result_of(s, word_next(s, "the result")) : usual;
	char is_text[32], want_text[32];

	if (result == want)
		return;
	result_text(is_text, sizeof is_text, result);
	result_text(want_text, sizeof want_text, want);
	script_fail(s, "the result is %s, expected %s", is_text, want_text);
}

static struct tp_conn *held(struct script *s, const struct link *l)
{
	struct tp_conn *c = l->qp ? tp_qp_conn(l->qp) : l->q.c;

	if (!c)
		script_fail(s, "the application has no such connection");
	return c;
}

static struct tp_path path_to(const struct script *s, const struct link *l)
{
	struct tp_path path = {
		.max_payload = s->puppet.max_payload, .local = s->puppet.local, .peer = l->addr};

	path.local.port = (uint16_t)(30000 + (l - s->links));
	path.peer.port = PUPPET_PORT;
	return path;
}

/* --- setup --- */

static void call_listen(struct script *s, struct link *l)
{
	struct sd_addr any = {.family = s->puppet.local.family, .port = PUPPET_PORT};
	unsigned backlog = word_peek(s) && strcmp(word_peek(s), "=")
				   ? (unsigned)next_number(s, "the backlog", 65536)
				   : 16;
	struct tp_listener *made = NULL;
	int r;

	if (s->messages)
		r = tp_qp_listen(s->puppet.tp, &any, backlog, s->reads, NULL, &made);
	else
		r = tp_listen(s->puppet.tp, &any, backlog, NULL, &made);
	call_result(s, r, 0);
	if (made)
		s->puppet.listener = made;
}

static struct tp_listener *listener_of(struct script *s)
{
	if (!s->puppet.listener)
		script_fail(s, "nobody listens");
	return s->puppet.listener;
}

static void call_accept(struct script *s, struct link *l)
{
	struct tp_listener *listener = listener_of(s);

	if (word_is(s, "nothing")) {
		if (tp_acceptable(listener))
			script_fail(s, "there is a connection to be accepted");
		return;
	}
	if (script_conn(s, l) && (l->qp || l->q.c))
		script_fail(s, "this connection has been accepted");
	if (s->messages) {
		requests_qp(s, l);
		call_result(s, tp_qp_accept(l->qp, listener), 0);
		return;
	}
	l->q.c = tp_accept(listener, l);
	if (!l->q.c)
		script_fail(s, "there is no connection to be accepted");
	if (l->q.c->peer_cid && l->q.c->peer_cid != l->q.cid)
		script_fail(s, "another connection has been accepted");
}

static void call_connect(struct script *s, struct link *l)
{
	struct tp_path path = path_to(s, l);
	int r;

	if (l->q.c || l->qp)
		script_fail(s, "this connection is in use");
	if (s->messages) {
		requests_qp(s, l);
		r = tp_qp_connect(l->qp, s->puppet.now, &path);
	} else {
		r = tp_connect(s->puppet.tp, s->puppet.now, &path, l, &l->q.c);
	}
	call_result(s, r, 0);
	script_settle_isn(s);
}

/* The rest of the line, but for "rtt T". */
static uint64_t parse_rest(struct script *s, char *rest, size_t size)
{
	uint64_t rtt = 0;
	size_t len = 0;

	*rest = '\0';
	while (word_peek(s)) {
		if (word_is(s, "rtt"))
			rtt = next_time(s, "rtt");
		else
			len += (size_t)snprintf(rest + len, size - len, " %s", word_next(s, "a field"));
	}
	return rtt;
}

static void call_established(struct script *s, struct link *l, bool connects)
{
	char rest[SCRIPT_LINE], of[32];
	uint64_t rtt = parse_rest(s, rest, sizeof rest);

	snprintf(of, sizeof of, "%s%s", l->name, *l->name ? ": " : "");
	if (connects) {
		script_line(s, "%sconnect", of);
		script_line(s, "%s> INIT", of);
		script_line(s, "+%s %s< INIT_ACK%s", time_text(rtt), of, rest);
		script_line(s, "%s> ACK", of);
		script_line(s, "%s< ACK", of);
		s->puppet.events = 0;
		return;
	}
	if (!s->puppet.listener)
		script_line(s, "listen");
	script_line(s, "%s< INIT%s", of, rest);
	script_line(s, "%s> INIT_ACK", of);
	script_line(s, "+%s %s< ACK", time_text(rtt), of);
	script_line(s, "%saccept", of);
}

static void call_find(struct script *s, struct link *l)
{
	struct tp_path path = path_to(s, l);
	struct sd_addr target = address_of(s, word_next(s, "the address"));

	target.port = (uint16_t)next_number(s, "the port", UINT16_MAX);
	call_result(s, tp_find(s->puppet.tp, &path, &target), 0);
}

static bool setup_call(struct script *s, struct link *l, const char *verb)
{
	if (!strcmp(verb, "listen")) {
		call_listen(s, l);
	} else if (!strcmp(verb, "unlisten")) {
		tp_listener_close(listener_of(s));
		s->puppet.listener = NULL;
	} else if (!strcmp(verb, "backlog")) {
		tp_listener_set_backlog(listener_of(s), (unsigned)next_number(s, "the backlog", 65536));
	} else if (!strcmp(verb, "accept")) {
		call_accept(s, l);
	} else if (!strcmp(verb, "connect")) {
		call_connect(s, l);
	} else if (!strcmp(verb, "established")) {
		call_established(s, l, false);
	} else if (!strcmp(verb, "connected")) {
		call_established(s, l, true);
	} else if (!strcmp(verb, "refill")) {
		tp_refill(s->puppet.tp);
	} else if (!strcmp(verb, "find")) {
		call_find(s, l);
	} else if (!strcmp(verb, "hello")) {
		struct tp_path path = path_to(s, l);

		call_result(s, tp_hello(s->puppet.tp, &path), 0);
	} else {
		return false;
	}
	return true;
}

/* --- data --- */

static void call_write(struct script *s, struct link *l)
{
	size_t len = (size_t)next_number(s, "how many bytes", 1u << 28);
	struct tp_conn *c = held(s, l);
	uint8_t *data = malloc(len ? len : 1);
	ptrdiff_t r;

	if (!data)
		abort();
	for (size_t i = 0; i < len; i++)
		data[i] = script_byte(c->snd_end + i);
	r = tp_write(c, data, len);
	free(data);
	call_result(s, r, (int64_t)len);
}

static void call_read(struct script *s, struct link *l)
{
	size_t len = (size_t)next_number(s, "how many bytes", 1u << 28);
	struct tp_conn *c = held(s, l);
	uint64_t from = c->rcv_read;
	uint8_t *data = malloc(len ? len : 1);
	ptrdiff_t r;
	bool right;

	if (!data)
		abort();
	r = tp_read(c, data, len);
	right = r <= 0 || script_is_pattern(data, (size_t)r, from);
	free(data);
	if (!right)
		script_fail(s, "the bytes that were read are wrong");
	call_result(s, r, (int64_t)len);
}

static void call_keepalive(struct script *s, struct link *l)
{
	uint64_t idle = next_time(s, "the silence before the first probe"), interval = 0;
	unsigned probes = 0;

	if (word_peek(s)) {
		interval = next_time(s, "the time between probes");
		probes = (unsigned)next_number(s, "the number of probes", UINT16_MAX);
	}
	tp_set_keepalive(held(s, l), s->puppet.now, idle, interval, probes);
}

static bool data_call(struct script *s, struct link *l, const char *verb)
{
	if (!strcmp(verb, "write")) {
		call_write(s, l);
	} else if (!strcmp(verb, "read")) {
		call_read(s, l);
	} else if (!strcmp(verb, "cork")) {
		tp_set_cork(held(s, l), s->puppet.now, next_switch(s, "cork"));
	} else if (!strcmp(verb, "nagle")) {
		tp_set_nagle(held(s, l), next_switch(s, "nagle"));
	} else if (!strcmp(verb, "buffers")) {
		uint32_t send = (uint32_t)next_number(s, "the send ring's bound", UINT32_MAX);

		tp_set_buffers(held(s, l), send, (uint32_t)next_number(s, "the other's", UINT32_MAX));
	} else if (!strcmp(verb, "keepalive")) {
		call_keepalive(s, l);
	} else if (!strcmp(verb, "user_timeout")) {
		tp_set_user_timeout(held(s, l), next_time(s, "the timeout"));
	} else {
		return false;
	}
	return true;
}

/* --- ends --- */

static void call_close(struct script *s, struct link *l, bool abort)
{
	struct tp_conn *c = held(s, l);

	if (l->qp)
		script_fail(s, "a queue pair is destroyed");
	l->q.c = NULL;
	tp_close(c, s->puppet.now, abort);
}

static bool end_call(struct script *s, struct link *l, const char *verb)
{
	if (!strcmp(verb, "shutdown"))
		tp_shutdown(held(s, l));
	else if (!strcmp(verb, "stop_reading"))
		tp_stop_reading(held(s, l), word_is(s, "reset"));
	else if (!strcmp(verb, "close"))
		call_close(s, l, false);
	else if (!strcmp(verb, "abort"))
		call_close(s, l, true);
	else
		return false;
	return true;
}

bool script_call(struct script *s, struct link *l, const char *verb)
{
	return setup_call(s, l, verb) || data_call(s, l, verb) || end_call(s, l, verb);
}

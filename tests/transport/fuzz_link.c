/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libFuzzer target: two endpoints, with streams and queue pairs between them, and a link that does what the
 * script says: it loses, repeats, reorders, delays, damages and marks, and becomes too narrow for packets.
 * Programs write, read, post and poll in between. What arrives has to be what was sent, once and in order.
 * When the script is over the link is good: then all arrives, or, if the link was to blame, both ends come to
 * know that it does not, before long; and in the end nothing is left.
 */
#include <string.h>

#include "app_message.h"
#include "app_stream.h"

#define STREAMS	  3
#define CHANNELS  2
#define LINK_MAX  192
#define WIDE	  8972 /* UDP payload that hosts take */
#define NARROW	  1200 /* and that every link does */
#define STEPS_MAX 400
#define PATIENCE  (100 * SD_MS) /* that the script may take before connections may fail */
#define LONG	  (60 * SD_S)
#define ROUNDS	  20000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct packet {
	uint16_t len;
	bool ce;
	uint8_t data[];
};

/* The way from one host to the other. */
struct way {
	struct packet *at[LINK_MAX];
	unsigned n;
	size_t widest; /* that it carries; what is larger is dropped, and that harms nobody */
};

static struct puppet host[2];
static struct way ways[2]; /* from host i */
static struct stream streams[STREAMS];
static struct channel channels[CHANNELS];
static bool to_blame; /* the link, or the clock, for whatever fails */
static uint64_t waited;

/* --- the link --- */

static bool send_one(unsigned from)
{
	struct puppet *p = &host[from];
	struct way *w = &ways[from];
	struct packet *k;

	if (!puppet_output(p))
		return false;
	require(p->out_len <= p->max_payload);
	if (p->out_len > w->widest)
		return true;
	if (w->n == LINK_MAX) {
		to_blame = true;
		return true;
	}
	k = malloc(sizeof *k + p->out_len);
	require(k);
	*k = (struct packet){.len = (uint16_t)p->out_len};
	memcpy(k->data, p->out, p->out_len);
	w->at[w->n++] = k;
	return true;
}

static void deliver(unsigned from, unsigned i)
{
	const struct packet *k = ways[from].at[i];
	struct puppet *p = &host[!from];

	p->ce = k->ce;
	puppet_input(p, k->data, k->len);
}

static void forget(unsigned from, unsigned i)
{
	struct way *w = &ways[from];

	free(w->at[i]);
	memmove(&w->at[i], &w->at[i + 1], (--w->n - i) * sizeof *w->at);
}

static void forget_all(unsigned from)
{
	struct way *w = &ways[from];

	while (w->n)
		free(w->at[--w->n]);
}

static bool deliver_all(unsigned from)
{
	unsigned n = ways[from].n;

	for (unsigned i = 0; i < n; i++)
		deliver(from, i);
	forget_all(from);
	return n;
}

/* One packet suffers. */
static void mishap(struct script *s)
{
	unsigned b = script_byte(s), from = b & 1, i;
	struct way *w = &ways[from];

	if (!w->n)
		return;
	i = script_byte(s) % w->n;
	switch (b >> 1 & 7) {
	case 0 ... 1:
		to_blame = true;
		forget(from, i);
		break;
	case 2:
		deliver(from, i); /* and again later */
		break;
	case 3 ... 4:
		deliver(from, i); /* before others */
		forget(from, i);
		break;
	case 5:
		w->at[i]->ce = true;
		break;
	case 6:
		to_blame = true;
		w->at[i]->data[(script_byte(s) * 8u + b) % w->at[i]->len] ^= (uint8_t)(script_byte(s) | 1);
		break;
	default:
		to_blame = true;
		forget_all(from);
		break;
	}
}

/* --- time and order --- */

static void pass(uint64_t ns)
{
	for (unsigned i = 0; i < 2; i++)
		puppet_wait(&host[i], ns);
}

static void wait_for(uint64_t ns)
{
	pass(ns);
	waited += ns;
	to_blame |= waited > PATIENCE;
}

static void accept_all(void)
{
	for (unsigned i = 0; i < 2; i++)
		stream_accept(&host[i], streams, STREAMS);
	for (unsigned i = 0; i < CHANNELS; i++)
		message_accept(&channels[i]);
}

/* What is on its way arrives, and what that brings about leaves. */
static bool exchange(void)
{
	bool moved = false;

	for (unsigned from = 0; from < 2; from++) {
		for (unsigned n = 0; n < LINK_MAX / 2 && send_one(from); n++)
			moved = true;
	}
	pass(5 * SD_US);
	for (unsigned from = 0; from < 2; from++) {
		moved |= deliver_all(from);
		tp_refill(host[from].tp);
	}
	return moved;
}

static void check(void)
{
	for (unsigned h = 0; h < 2; h++) {
		for (uint32_t i = 0; i < host[h].tp->max_conns; i++) {
			const struct tp_conn *c = host[h].tp->slots[i];

			if (!c || c->state == CONN_FAILED)
				continue;
			require((uint64_t)c->pipe + c->lost + c->sacked == c->snd_nxt - c->snd_una);
			require(c->snd_acked <= c->snd_sent && c->snd_sent <= c->snd_end);
			require(c->rcv_read <= c->rcv_off && (c->messages || c->rcv_off <= c->rcv_limit));
			require((c->cwnd || c->pace_at != NEVER) && c->cwnd <= c->tp->cfg.window_packets);
		}
		require(!host[h].broke_rules);
	}
}

static void step(struct script *s)
{
	unsigned b = script_byte(s), end = b >> 5 & 1, what = b & 31;

	switch (what) {
	case 0 ... 8:
		stream_step(&streams[(b >> 6) % STREAMS], end, s);
		break;
	case 9 ... 16:
		message_step(&channels[(b >> 6) % CHANNELS], end, s);
		break;
	case 17 ... 19:
		for (unsigned n = script_below(s, 64); n && send_one(end); n--)
			;
		break;
	case 20 ... 24:
		mishap(s);
		break;
	case 25:
		for (unsigned n = script_below(s, 16); n && ways[end].n; n--) {
			deliver(end, 0);
			forget(end, 0);
		}
		break;
	case 26:
		exchange();
		break;
	case 27:
		wait_for(script_byte(s) * 4 * SD_US);
		break;
	case 28:
		wait_for((uint64_t)script_byte(s) * script_byte(s) * SD_MS / 8);
		break;
	case 29:
		accept_all();
		break;
	case 30:
		tp_refill(host[end].tp);
		host[end].late = b & 64;
		if (b & 128)
			ways[end].widest = NARROW + script_byte(s) * 32u;
		break;
	default:
		pass(300 * SD_US);
		exchange();
		break;
	}
}

/* --- the end --- */

static uint64_t next_timeout(void)
{
	uint64_t a = tp_next_timeout(host[0].tp), b = tp_next_timeout(host[1].tp);

	return a < b ? a : b;
}

static bool all_over(void)
{
	for (unsigned i = 0; i < STREAMS; i++)
		if (!stream_over(&streams[i]))
			return false;
	for (unsigned i = 0; i < CHANNELS; i++)
		if (!message_over(&channels[i]))
			return false;
	return true;
}

static bool drain(void)
{
	bool moved = false;

	accept_all();
	for (unsigned i = 0; i < STREAMS; i++)
		moved |= stream_drain(&streams[i]);
	for (unsigned i = 0; i < CHANNELS; i++)
		moved |= message_drain(&channels[i]);
	return moved;
}

static bool none_left(void)
{
	return !host[0].tp->conn_count && !host[1].tp->conn_count;
}

/* Goes on until f says that it is enough, in a good world. */
static void settle(bool (*f)(void), bool (*work)(void))
{
	uint64_t until = host[0].now + LONG;

	for (unsigned n = 0; !f(); n++) {
		bool moved = work && work();

		moved |= exchange();
		check();
		require(n < ROUNDS && host[0].now < until);
		if (moved || f())
			continue;
		require(next_timeout() != UINT64_MAX);
		if (next_timeout() > host[0].now)
			pass(next_timeout() - host[0].now);
	}
}

static void finish(void)
{
	settle(all_over, drain);
	for (unsigned i = 0; i < STREAMS; i++) {
		stream_check(&streams[i], to_blame);
		stream_close(&streams[i]);
	}
	for (unsigned i = 0; i < CHANNELS; i++) {
		message_check(&channels[i], to_blame);
		message_close(&channels[i]);
	}
	for (unsigned i = 0; i < 2; i++)
		tp_listener_close(host[i].listener); /* who was not accepted is told */
	settle(none_left, NULL);
	forget_all(0);
	forget_all(1);
	require(puppet_stop(&host[0]) && puppet_stop(&host[1]));
}

static void start(struct script *s)
{
	unsigned b = script_byte(s);

	for (unsigned i = 0; i < 2; i++) {
		struct puppet *p = &host[i];

		puppet_init(p);
		p->cfg.seed[0] += 100 * i;
		p->cfg.max_conns = 32;
		p->cfg.window_packets = 32u << (b & 3);
		p->cfg.crowd = (uint32_t)__builtin_parity(b);
		p->cfg.ring_min = 4096;
		p->cfg.ring_max = b & 4 ? 4096 : 65536;
		p->cfg.cc = b & 8 ? &tp_cc_fixed : &tp_cc_swift;
		p->max_payload = b & 16 ? WIRE_MIN_PAYLOAD : b & 64 ? WIDE : 1472;
		if (b & 128)
			p->cfg.ring_min = p->cfg.ring_max = 65536;
		if (i) {
			p->local = host[0].peer;
			p->peer = host[0].local;
		}
		puppet_start(p);
		puppet_listen(p, 8);
	}
	ways[0].n = ways[1].n = 0;
	ways[0].widest = ways[1].widest = WIDE;
	to_blame = false;
	waited = 0;
	for (unsigned i = 0; i < STREAMS; i++) {
		stream_open(&streams[i], i, &host[i % 2], &host[!(i % 2)]);
		stream_connect(&streams[i]);
	}
	for (unsigned i = 0; i < CHANNELS; i++) {
		message_open(&channels[i], i, &host[i % 2], &host[!(i % 2)]);
		message_connect(&channels[i]);
	}
	if (b & 32)
		return; /* the script sees them being set up */
	while (exchange())
		accept_all();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct script s = {data, data + len};

	start(&s);
	for (unsigned i = 0; i < STEPS_MAX && !script_over(&s); i++) {
		step(&s);
		check();
	}
	finish();
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libFuzzer target: one endpoint with connections in several states. The input is a script: packets that are
 * nearly right, packets of raw bytes, questions, floods, time, what applications do, and another process that
 * goes on with it all. Ids and checksums are made right, so that the script gets past the first check.
 */
#include <errno.h>
#include <string.h>

#include "base/pack.h"
#include "puppet.h"
#include "script.h"

#define CONNS	  6
#define STEPS_MAX 500

static struct puppet p;
static struct peer peers[CONNS];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Mostly near zero, on either side; sometimes anything. */
static int64_t delta(struct script *s)
{
	unsigned b = script_byte(s);

	if (b < 0xc0)
		return (int64_t)(b & 31) - 8;
	if (b < 0xf0)
		return (int64_t)(b & 15) * 100;
	return (int32_t)script_word(s);
}

/* --- what must always hold --- */

static void check_conn(const struct tp_conn *c)
{
	require((uint64_t)c->pipe + c->lost + c->sacked == c->snd_nxt - c->snd_una);
	require(c->snd_acked <= c->snd_sent && c->snd_sent <= c->snd_end);
	require(c->snd_end - c->snd_acked <= c->snd.size || !c->snd.size);
	require(c->rcv_read <= c->rcv_off && c->rcv_off <= c->rcv_limit);
	require(!c->rcv.size || c->rcv_limit - c->rcv_read <= c->rcv.size);
	require((c->cwnd || c->pace_at != NEVER) && c->cwnd <= c->tp->cfg.window_packets);
	require(!c->piece || (c->snd_una != c->snd_nxt && c->piece < c->sent[c->snd_una & c->sent_mask].len));
}

static void check(void)
{
	for (uint32_t i = 0; i < p.tp->max_conns; i++)
		if (p.tp->slots[i])
			check_conn(p.tp->slots[i]);
	require(!p.broke_rules);
}

/* --- steps --- */

static void data_packet(struct script *s, struct peer *q)
{
	const struct tp_conn *c = q->c;
	static uint8_t zeros[2048];
	uint32_t psn = (uint32_t)(c ? c->rcv_nxt : q->psn) + (uint32_t)delta(s);
	uint64_t off = (c ? c->rcv_off : q->off) + (uint64_t)delta(s);

	q->ack = (uint32_t)(c ? c->snd_una : q->ack) + (uint32_t)delta(s);
	peer_data(&p, q, psn, off, zeros, script_byte(s) * 8u, script_byte(s));
}

/* Of the packet that comes next, mostly: what follows what has come, or is known in part, or leaves a gap. */
static void piece_packet(struct script *s, struct peer *q)
{
	static const uint8_t zeros[2048];
	const struct tp_conn *c = q->c;
	unsigned b = script_byte(s), known = c ? c->rcv_piece : 0;
	uint32_t psn = (uint32_t)(c ? c->rcv_nxt : q->psn);
	uint64_t off = c ? c->rcv_off - known : q->off;

	q->piece.is = true;
	q->piece.more = b & 1;
	q->piece.off = (uint16_t)(known + (b & 2 ? (uint64_t)delta(s) : 0));
	if (!(b & 28)) {
		psn += (uint32_t)delta(s);
		off += (uint64_t)delta(s);
	}
	peer_data(&p, q, psn, off + q->piece.off, zeros, script_byte(s) * 8u,
		b & 0xe0 ? b >> 7 : script_byte(s));
	q->piece.is = false;
}

static void ack_packet(struct script *s, struct peer *q)
{
	const struct tp_conn *c = q->c;
	uint64_t sack[WIRE_SACK_WORDS];
	unsigned words = script_byte(s) % 4;

	if (words == 3)
		words = script_byte(s) % (WIRE_SACK_WORDS + 1);
	for (unsigned i = 0; i < words; i++)
		sack[i] =
			script_byte(s) & 1 ? (uint64_t)script_word(s) << 32 | script_word(s) : script_byte(s);
	q->window += (uint64_t)delta(s);
	q->their_ts = tp_timestamp(p.now) - (uint32_t)delta(s);
	peer_ack(
		&p, q, (uint32_t)(c ? c->snd_una : q->ack) + (uint32_t)delta(s), sack, words, script_byte(s));
}

/* The oldest packet in flight comes in pieces. */
static void ack_of_pieces(struct script *s, struct peer *q)
{
	q->piece.is = true;
	q->piece.off = (uint16_t)((q->c ? q->c->piece : 0) + (uint64_t)delta(s) * (script_byte(s) & 63));
	ack_packet(s, q);
	q->piece.is = false;
}

/* Bytes of the script as a packet, with id and trailer put right. */
static void raw_packet(struct script *s, const struct peer *q)
{
	uint8_t buf[512] = {0};
	size_t len = 1 + script_byte(s) * 2u % 500u;

	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)script_byte(s);
	buf[0] = (uint8_t)(WIRE_VERSION << 4 | (buf[0] & 15));
	if (len >= 16 && buf[1] & 1)
		be64_put(buf + 8, tp_wire_type(buf) == WIRE_RESET ? q->cid : q->their_cid);
	if (len >= 32 && buf[1] & 2)
		be64_put(buf + 24, q->nonce);
	if (len >= 32 && tp_wire_type(buf) == WIRE_RESET)
		memcpy(buf + 16, q->token, 16);
	if (len >= 8 && buf[1] & 4)
		be16_put(buf + 6, PUPPET_PORT);
	puppet_input(&p, buf, tp_wire_seal(buf, len));
}

static void application(struct script *s, struct peer *q)
{
	static uint8_t buf[1 << 16], landing[CONNS][1 << 14];
	static const uint8_t loan[1 << 15];
	unsigned what = script_byte(s), n = script_byte(s) * 64u;

	if (!q->c) {
		if (what % 2 && tp_acceptable(p.listener))
			q->c = tp_accept(p.listener, q);
		return;
	}
	switch (what % 16) {
	case 0:
	case 1:
	case 2:
		tp_write(q->c, buf, n);
		break;
	case 3:
	case 4:
		tp_read(q->c, buf, n);
		break;
	case 5:
		tp_shutdown(q->c);
		break;
	case 6:
		tp_stop_reading(q->c, n & 64);
		break;
	case 7:
		tp_set_cork(q->c, p.now, n & 64);
		break;
	case 8:
		tp_set_nagle(q->c, n & 64);
		break;
	case 9:
		tp_set_buffers(q->c, n, n * 2);
		break;
	case 10:
		tp_peek(q->c, buf, n, n / 2);
		break;
	case 11:
		tp_close(q->c, p.now, n & 64);
		q->c = NULL;
		break;
	case 12:
	case 13:
		tp_lend(q->c, loan + what, n);
		break;
	case 14:
		tp_settle(q->c);
		break;
	case 15:
		if (tp_land(q->c, landing[q - peers], n, n / 2) == -EBUSY)
			tp_land_end(q->c);
		break;
	}
}

static void output(struct script *s)
{
	for (unsigned n = script_byte(s) % 32; n; n--) {
		if (!puppet_output(&p))
			return;
		require(p.out_len <= p.max_payload && p.out_len <= p.out_path->max_payload);
		if (tp_wire_type(p.out) <= WIRE_ACK)
			require(p.w.type == tp_wire_type(p.out)); /* it has been decoded */
	}
}

static void begin(struct script *s, struct peer *q)
{
	struct tp_path path = {.local = p.local, .peer = p.peer, .max_payload = p.max_payload};

	if (q->c)
		return;
	if (script_byte(s) & 1) {
		uint8_t buf[WIRE_CONTROL_MAX];

		peer_init(&p, q, script_byte(s));
		puppet_input(&p, buf, peer_put_init(&p, q, NULL, buf));
		while (puppet_output(&p))
			if (tp_wire_type(p.out) == WIRE_INIT_ACK)
				peer_learn(&p, q);
	} else if (!tp_connect(p.tp, p.now, &path, q, &q->c)) {
		while (puppet_output(&p))
			if (tp_wire_type(p.out) == WIRE_INIT)
				peer_learn(&p, q);
	}
}

/* --- before and beside connections --- */

/* Somebody asks, answers or announces. */
static void find(struct script *s)
{
	unsigned b = script_byte(s);
	struct wire_find f = {.code = script_byte(s), .target = b & 1 ? p.local : p.peer};
	struct tp_path path = {.local = p.local, .peer = p.peer, .max_payload = p.max_payload};
	uint8_t buf[WIRE_CONTROL_MAX];

	f.target.port = b & 2 ? PUPPET_PORT : b & 4 ? script_byte(s) : 0;
	if (b & 8 && !tp_find(p.tp, &path, &f.target)) {
		while (puppet_output(&p))
			if (tp_wire_type(p.out) == WIRE_FIND) /* what it wants to hear again */
				f.nonce = be64_get(p.out + 8);
	} else if (b & 16) {
		tp_hello(p.tp, &path);
	}
	f.nonce += (uint64_t)delta(s) * (b >> 6);
	puppet_input(&p, buf, tp_wire_put_find(buf, b & 32 ? WIRE_FIND : WIRE_FIND_REPLY, &f));
}

/* Initiators that never go on, some of which prove where they are. */
static void flood(struct script *s)
{
	unsigned n = script_below(s, 16), b = script_byte(s);
	uint8_t buf[WIRE_CONTROL_MAX];
	struct wire_cookie cookie;
	struct peer q;

	for (unsigned i = 0; i < n; i++) {
		size_t len;

		peer_init(&p, &q, 1000 + script_byte(s));
		len = peer_put_init(&p, &q, NULL, buf);
		buf[2] = (uint8_t)(b & 1 ? 9 : 0);		       /* asked before */
		buf[0] = (uint8_t)(b & 2 ? 0x20 | WIRE_INIT : buf[0]); /* of another version */
		be64_put(buf + 32, b >> 3);			       /* the boot epoch */
		puppet_input(&p, buf, tp_wire_seal(buf, len - WIRE_CRC_LEN));
		if (b & 4 && puppet_output(&p) && tp_wire_type(p.out) == WIRE_COOKIE &&
			tp_wire_get_cookie(p.out, p.out_len, &cookie))
			puppet_input(&p, buf, peer_put_init(&p, &q, cookie.cookie, buf));
	}
}

/* What an initiator may hear instead of INIT_ACK. */
static void discourage(struct script *s, const struct peer *q)
{
	struct wire_nak nak = {.code = script_byte(s), .dst_cid = q->their_cid, .nonce = q->nonce};
	struct wire_cookie cookie = {.dst_cid = q->their_cid, .nonce = q->nonce};
	uint8_t buf[WIRE_CONTROL_MAX];

	cookie.cookie[0] = script_byte(s);
	puppet_input(&p, buf, nak.code & 1 ? tp_wire_put_nak(buf, &nak) : tp_wire_put_cookie(buf, &cookie));
}

static void listener(struct script *s)
{
	struct tp_listener *other;
	struct sd_addr any = {.family = p.local.family, .port = PUPPET_PORT};
	unsigned b = script_byte(s);

	require(tp_listen(p.tp, &any, 1, NULL, &other) == -EADDRINUSE);
	if (b & 1) {
		tp_listener_set_backlog(p.listener, b);
		return;
	}
	tp_listener_close(p.listener);
	puppet_listen(&p, 1 + b / 16);
}

/* --- another process --- */

static uint64_t names[CONNS];

static void owned(void *ctx, uint64_t name, struct tp_conn *c)
{
	for (unsigned i = 0; i < CONNS; i++) {
		if (names[i] == name) {
			peers[i].c = c;
			tp_set_user(c, &peers[i]);
			return;
		}
	}
	abort();
}

/* It goes on with all connections, or, if what it is given is cut short, with none. */
static void hand_over(struct script *s)
{
	struct sd_pack saved = {0};
	struct sd_unpack u;
	bool had[CONNS], whole = script_byte(s) >= 32;

	for (unsigned i = 0; i < CONNS; i++) {
		had[i] = peers[i].c;
		names[i] = had[i] ? tp_saved_name(peers[i].c) : 0;
		peers[i].c = NULL;
	}
	tp_save(p.tp, p.now, &saved);
	require(!saved.failed && puppet_stop(&p));
	p.cfg.seed[0]++;
	puppet_start(&p);
	puppet_listen(&p, 4);
	u = (struct sd_unpack){saved.data, saved.data + saved.len};
	if (!whole)
		u.end = u.at + (script_word(s) % saved.len);
	require(whole == !tp_restore(p.tp, p.now, &u, owned, NULL));
	sd_pack_free(&saved);
	for (unsigned i = 0; whole && i < CONNS; i++)
		require(had[i] == (peers[i].c != NULL));
	if (whole)
		return;
	require(puppet_stop(&p));
	puppet_start(&p);
	puppet_listen(&p, 4);
	for (unsigned i = 0; i < CONNS; i++)
		peers[i].c = NULL;
}

static void beside(struct script *s, struct peer *q)
{
	switch (script_below(s, 8)) {
	case 0:
	case 1:
		find(s);
		break;
	case 2:
	case 3:
		flood(s);
		break;
	case 4:
		discourage(s, q);
		break;
	case 5:
		listener(s);
		break;
	case 6:
		hand_over(s);
		break;
	default:
		if (q->c) {
			tp_set_keepalive(q->c, p.now, script_byte(s) * SD_S / 8, script_byte(s) * SD_S / 8,
				script_byte(s));
			tp_set_user_timeout(q->c, script_byte(s) * SD_S / 8);
		}
		break;
	}
}

static void step(struct script *s)
{
	unsigned what = script_byte(s);
	struct peer *q = &peers[what / 16 % CONNS];

	switch (what % 16) {
	case 0:
	case 1:
	case 2:
		data_packet(s, q);
		break;
	case 3:
		piece_packet(s, q);
		break;
	case 4:
	case 5:
		ack_packet(s, q);
		break;
	case 6:
		ack_of_pieces(s, q);
		break;
	case 7:
	case 8:
		raw_packet(s, q);
		break;
	case 9:
		puppet_wait(&p, script_byte(s) * SD_US);
		break;
	case 10:
		puppet_wait(&p, (uint64_t)script_byte(s) * script_byte(s) * SD_MS / 8);
		break;
	case 11:
		begin(s, q);
		break;
	case 12:
		p.ce = !p.ce;
		tp_refill(p.tp);
		break;
	case 13:
		output(s);
		break;
	case 14:
		application(s, q);
		break;
	default:
		beside(s, q);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct script s = {data, data + len};
	struct tp_path path;
	unsigned b;

	puppet_init(&p);
	p.cfg.max_conns = 16;
	b = script_byte(&s);
	p.cfg.window_packets = 32u << b % 6;
	p.cfg.crowd = b >> 7;
	p.cfg.ring_min = 4096;
	p.cfg.ring_max = 65536;
	b = script_byte(&s);
	p.cfg.crc = b & 1;
	if (b & 2)
		p.max_payload = 8972;
	p.cfg.cc = script_byte(&s) & 1 ? &tp_cc_fixed : &tp_cc_swift;
	puppet_start(&p);
	puppet_listen(&p, 4);
	memset(peers, 0, sizeof peers);
	require(peer_connect(&p, &peers[0], 1) && peer_connect(&p, &peers[1], 2));
	puppet_flush(&p);
	require(peer_accept(&p, &peers[2], 3));
	path = peers[2].c->path;
	require(!tp_connect(
		p.tp, p.now, &path, &peers[3], &peers[3].c)); /* never answered, unless by chance */
	require(puppet_output(&p) && peer_learn(&p, &peers[3]));
	peers[3].cid = 4;
	check();
	for (unsigned i = 0; i < STEPS_MAX && s.at < s.end; i++) {
		step(&s);
		check();
	}
	require(puppet_stop(&p));
	return 0;
}

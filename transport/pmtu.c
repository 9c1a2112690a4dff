/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pmtu: how large packets may be, by DPLPMTUD (RFC 8899). Both ends have said what they take, but what is
 * between them may take less, and then drops without a word. Packets up to Ethernet's usual size are sent
 * untried; larger ones once a probe has arrived. A probe is a packet of data of that size: if it is lost, the
 * way is too narrow for it, and its bytes go again in pieces (output.c). What is found is remembered for the
 * host, so a connection in some hundred probes. A packet that is lost again and again while the peer is heard
 * is in a black hole: from then on packets are as small as any path takes, until a probe says otherwise.
 */
#include "transport/qp.h"

#define BASE	     1200u	   /* UDP payload that every path carries */
#define TRIES	     3		   /* probes of a size before it is too large */
#define BLACK_HOLE   5		   /* transmissions of a packet of which none arrives */
#define PROBE_WAIT   (100 * SD_MS) /* nobody else probes meanwhile */
#define RETRY	     (10 * SD_MS)
#define ASK_EVERY    12288u /* bytes: an acknowledgement makes for a burst of so many */
#define SEARCH_AGAIN (600 * SD_S)

static uint16_t payload_limit(const struct tp_conn *c)
{
	return c->path.max_payload;
}

/* The UDP payload that fits into an IP packet of this size. */
static uint16_t payload_of(const struct tp_conn *c, uint16_t mtu)
{
	return mtu - (c->path.peer.family == 6 ? 48 : 28);
}

static uint16_t mss_of(const struct tp_conn *c, uint16_t payload)
{
	return (uint16_t)(payload - tp_payload_with(c, 0));
}

static uint16_t smaller(uint16_t a, uint16_t b)
{
	return a < b ? a : b;
}

static uint16_t base_mss(const struct tp_conn *c)
{
	return mss_of(c, smaller(payload_limit(c), BASE));
}

/* The largest size below limit that a path may have been made for, as UDP payload; 0: there is none above
 * what is known. */
static uint16_t candidate(const struct tp_conn *c, const struct tp_peer *p)
{
	static const uint16_t mtus[] = {9000, 8950, 4096, 1500, 1450, 1400, 1280};
	uint16_t limit = p->limit ? smaller(p->limit, payload_limit(c)) : payload_limit(c);

	if (!p->limit)
		return limit;
	for (unsigned i = 0; i < sizeof mtus / sizeof *mtus; i++)
		if (payload_of(c, mtus[i]) < limit)
			return mss_of(c, payload_of(c, mtus[i])) > c->mss ? payload_of(c, mtus[i]) : 0;
	return 0;
}

static void resize(struct tp_conn *c, uint16_t mss)
{
	uint32_t every = ASK_EVERY / mss;

	c->mss = mss;
	c->ask_every = (uint8_t)(every > TP_ACK_EVERY ? TP_ACK_EVERY : every ? every : 1);
}

/* The window is in packets: about as many bytes as before. */
static void grow(struct tp_conn *c, uint16_t mss)
{
	uint32_t window = c->cwnd * c->mss / mss;
	bool much = mss >= 2 * c->mss;

	resize(c, mss);
	if (much)
		tp_conn_open_window(c, window);
}

/* What else is there to try? */
static void consider(struct tp_conn *c, struct tp_peer *p)
{
	uint16_t known = mss_of(c, smaller(payload_limit(c), p->payload)), size;

	if (p->payload && known > c->mss) {
		if (c->recovering || c->pace_gap)
			return; /* more bytes are not what the path is short of */
		grow(c, known);
	}
	if (c->mss >= mss_of(c, payload_limit(c)) || c->tp->now < p->probe_at)
		return;
	if (p->payload && known < c->mss)
		return; /* the search is for those who have less */
	size = candidate(c, p);
	if (size) {
		c->try_mss = mss_of(c, size);
	} else {
		p->probe_at = c->tp->now + SEARCH_AGAIN;
		p->limit = 0;
	}
}

void tp_pmtu_open(struct tp_conn *c)
{
	struct tp_peer *p = tp_peer_of(c);
	uint16_t first = p->payload ? p->payload : payload_of(c, 1500);

	resize(c, mss_of(c, smaller(payload_limit(c), first)));
	tp_conn_open_window(c, 0);
	consider(c, p);
}

void tp_pmtu_round(struct tp_conn *c)
{
	struct tp_peer *p;

	if (__builtin_expect(c->mss >= mss_of(c, payload_limit(c)) || c->try_mss, 1))
		return;
	p = tp_peer_of(c);
	if (p->prober == c->cid) {
		if (c->snd_una <= p->probe_psn)
			return;
		p->prober = 0;
		if (p->probed > p->payload)
			p->payload = p->probed;
		if (p->probed >= p->failed)
			p->failed = p->tries = 0;
		p->probe_at = 0;
	}
	consider(c, p);
}

bool tp_pmtu_may_probe(struct tp_conn *c)
{
	const struct tp_peer *p = tp_peer_of(c);

	if (c->tp->now >= p->probe_at && p->payload <= tp_payload_with(c, c->mss) &&
		c->try_mss == mss_of(c, candidate(c, p)))
		return true;
	c->try_mss = 0; /* somebody else does, or has, or has failed */
	return false;
}

void tp_pmtu_sent(struct tp_conn *c, uint64_t psn, struct tp_sent *s)
{
	struct tp_peer *p = tp_peer_of(c);

	s->flags |= SENT_PROBE;
	p->prober = c->cid;
	p->probe_psn = psn;
	p->probed = (uint16_t)tp_payload_with(c, tp_sent_size(c, s));
	p->probe_at = c->tp->now + PROBE_WAIT;
	c->try_mss = 0;
}

void tp_pmtu_unanswered(struct tp_conn *c, struct tp_sent *s)
{
	struct tp_peer *p = tp_peer_of(c);

	s->flags &= (uint8_t)~SENT_PROBE;
	if (p->prober != c->cid)
		return;
	p->prober = 0;
	p->probe_at = c->tp->now + RETRY;
	if (c->last_heard <= s->time) /* a peer that is silent says nothing of sizes */
		return;
	if (p->failed < p->probed)
		p->failed = p->probed;
	if (++p->tries < TRIES)
		return;
	p->limit = p->failed;
	p->failed = p->tries = 0;
}

void tp_pmtu_piece(struct tp_conn *c, uint16_t bytes)
{
	struct tp_sent *s = &c->sent[c->snd_una & c->sent_mask];

	if (c->snd_una == c->snd_nxt || tp_sent_size(c, s) <= c->mss || bytes <= c->piece || bytes >= s->len)
		return;
	c->piece = bytes;
	c->piece_due = true;
	s->sends = 2; /* those of the next piece count anew */
	c->probes = 0;
	c->probe_due = false;
	c->progress = c->tp->now;
	tp_recovery_arm(c, c->tp->now);
}

bool tp_pmtu_doubts(const struct tp_conn *c)
{
	return tp_sent_size(c, &c->sent[c->snd_una & c->sent_mask]) > base_mss(c);
}

/* An answer that left after the packet should have arrived: no need to wait for the next timeout. */
void tp_pmtu_answered(struct tp_conn *c, uint32_t echo)
{
	const struct tp_sent *s = &c->sent[c->snd_una & c->sent_mask];

	if (c->snd_una == c->snd_nxt || !tp_pmtu_doubts(c) || s->sends > BLACK_HOLE || !echo ||
		(int32_t)(echo - tp_timestamp(s->time)) < 0)
		return;
	c->probe_due = c->ping_due = true;
	tp_conn_mark(c);
}

/* Has one that is as large, and was sent at the same time or later, arrived? Then it was chance. */
static bool others_arrive(const struct tp_conn *c, const struct tp_sent *s)
{
	const struct tp_sent *latest = &c->sent[c->rack_psn & c->sent_mask];

	return c->rack_time >= s->time && c->rack_psn > c->snd_una && latest->time == c->rack_time &&
	       tp_sent_size(c, latest) >= tp_sent_size(c, s);
}

void tp_pmtu_suspect(struct tp_conn *c, const struct tp_sent *s)
{
	uint16_t base = base_mss(c), known;
	struct tp_peer *p;

	if (s->sends < BLACK_HOLE || c->mss <= base || tp_sent_size(c, s) <= base || c->last_heard <= s->time)
		return;
	if (others_arrive(c, s))
		return;
	p = tp_peer_of(c);
	known = mss_of(c, smaller(payload_limit(c), p->payload ? p->payload : BASE));
	if (known >= c->mss || known >= tp_sent_size(c, s) || !p->payload) { /* else others have noticed */
		p->payload = smaller(payload_limit(c), BASE);
		p->limit = p->prober = p->failed = p->tries = 0;
		p->probe_at = c->tp->now + RETRY;
		known = base;
	}
	c->tp->stats.black_holes++;
	c->try_mss = 0;
	resize(c, known);
	tp_recovery_give_up(c);
}

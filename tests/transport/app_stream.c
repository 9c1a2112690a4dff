/* SPDX-License-Identifier: BSD-3-Clause */
/* Programs that write what they know and read what they expect. */
#include "app_stream.h"

#define FIRST_PORT 1000u
#define LOAN	   16384u

static uint8_t byte_at(const struct stream *s, unsigned writer, uint64_t off)
{
	return (uint8_t)(off * 31 + (off >> 8) * 7 + (off >> 16) + s->index * 101 + writer * 53);
}

void stream_open(struct stream *s, unsigned index, struct puppet *a, struct puppet *b)
{
	*s = (struct stream){.index = index, .end = {{.host = a}, {.host = b}}};
}

void stream_connect(struct stream *s)
{
	struct puppet *p = s->end[0].host;
	struct tp_path path = {.local = p->local, .peer = p->peer, .max_payload = p->max_payload};

	path.local.port = (uint16_t)(FIRST_PORT + s->index);
	path.peer.port = PUPPET_PORT;
	require(!tp_connect(p->tp, p->now, &path, NULL, &s->end[0].c));
}

void stream_accept(struct puppet *host, struct stream *all, unsigned n)
{
	struct tp_conn *c = tp_accept(host->listener, NULL);
	struct tp_info info;
	struct stream *s;

	if (!c)
		return;
	tp_info(c, &info);
	s = &all[info.peer.port - FIRST_PORT];
	require(info.peer.port >= FIRST_PORT && s < all + n && s->end[1].host == host);
	require(!s->end[1].c && !s->end[1].closed); /* it was asked for once */
	s->end[1].c = c;
}

static void note_error(struct stream_end *e)
{
	e->failed |= tp_error(e->c) != 0;
}

static void write_some(struct stream *s, unsigned end, size_t len)
{
	struct stream_end *e = &s->end[end];
	uint8_t buf[8192];
	ptrdiff_t n;

	for (size_t i = 0; i < len; i++)
		buf[i] = byte_at(s, end, e->written + i);
	n = tp_write(e->c, buf, len);
	require(n <= (ptrdiff_t)len);
	require(n >= 0 || tp_error(e->c) || e->shut);
	if (n > 0)
		e->written += (uint64_t)n;
	note_error(e);
}

static uint8_t *memory_of(size_t size)
{
	uint8_t *memory = malloc(size ? size : 1); /* the sanitizer knows where it ends */

	require(memory);
	return memory;
}

static void drop(uint8_t **memory)
{
	free(*memory);
	*memory = NULL;
}

static void end_loan(struct stream_end *e)
{
	tp_settle(e->c);
	drop(&e->lent);
}

/* Where the last loan ends, if there is one: in memory, and perhaps in the stream. */
static void lend_some(struct stream *s, unsigned end, size_t len)
{
	struct stream_end *e = &s->end[end];
	uint8_t *at;
	ptrdiff_t n;

	if (e->lent && e->lent_len + len > LOAN)
		end_loan(e);
	if (!e->lent) {
		e->lent = memory_of(LOAN);
		e->lent_len = 0;
	}
	at = e->lent + e->lent_len;
	for (size_t i = 0; i < len; i++)
		at[i] = byte_at(s, end, e->written + i);
	n = tp_lend(e->c, at, len);
	require(n <= (ptrdiff_t)len);
	require(n >= 0 || tp_error(e->c) || e->shut);
	if (n > 0) {
		e->written += (uint64_t)n;
		e->lent_len += (size_t)n;
	}
	note_error(e);
}

static void check_bytes(const struct stream *s, unsigned end, const uint8_t *buf, ptrdiff_t n, uint64_t from)
{
	for (ptrdiff_t i = 0; i < n; i++)
		require(buf[i] == byte_at(s, !end, from + (uint64_t)i));
	require(n <= 0 || from + (uint64_t)n <= s->end[!end].written);
}

static bool end_landing(struct stream *s, unsigned end)
{
	struct stream_end *e = &s->end[end];
	size_t n;

	if (!e->landing)
		return false;
	n = tp_land_end(e->c);
	check_bytes(s, end, e->landing, (ptrdiff_t)n, e->read);
	e->read += n;
	drop(&e->landing);
	return n;
}

static void land_some(struct stream *s, unsigned end, size_t len)
{
	struct stream_end *e = &s->end[end];

	e->landing = memory_of(len);
	if (tp_land(e->c, e->landing, len, len / 2))
		drop(&e->landing);
}

static bool read_some(struct stream *s, unsigned end, size_t len)
{
	struct stream_end *e = &s->end[end];
	uint8_t buf[8192];
	ptrdiff_t n = tp_read(e->c, buf, len);

	check_bytes(s, end, buf, n, e->read);
	if (n > 0)
		e->read += (uint64_t)n;
	if (tp_at_eof(e->c)) {
		require(e->read == s->end[!end].written && s->end[!end].shut);
		e->eof = true;
	}
	note_error(e);
	return n > 0;
}

static void peek_some(struct stream *s, unsigned end, size_t skip)
{
	struct stream_end *e = &s->end[end];
	uint8_t buf[512];

	check_bytes(s, end, buf, tp_peek(e->c, buf, sizeof buf, skip), e->read + skip);
}

static void shut(struct stream_end *e)
{
	tp_shutdown(e->c);
	e->shut = true;
}

static void close_end(struct stream_end *e, bool abort)
{
	note_error(e);
	e->shut = e->closed = true;
	tp_close(e->c, e->host->now, abort);
	e->c = NULL;
	drop(&e->lent); /* a close settles it */
	drop(&e->landing);
}

void stream_step(struct stream *s, unsigned end, struct script *script)
{
	struct stream_end *e = &s->end[end];
	unsigned what = script_below(script, 32), n = script_byte(script);

	if (!e->c)
		return;
	if (what >= 12 && what < 24)
		end_landing(s, end);
	switch (what) {
	case 0 ... 8:
		write_some(s, end, n * 32u);
		break;
	case 9 ... 10:
		lend_some(s, end, n * 32u);
		break;
	case 11:
		end_loan(e);
		break;
	case 12 ... 19:
		read_some(s, end, n * 32u);
		break;
	case 20 ... 21:
		land_some(s, end, n * 32u);
		break;
	case 22 ... 23:
		peek_some(s, end, n * 4u);
		break;
	case 24:
		tp_set_cork(e->c, e->host->now, n & 1);
		break;
	case 25:
		tp_set_nagle(e->c, n & 1);
		break;
	case 26:
		tp_set_buffers(e->c, n * 512u, n * 256u);
		break;
	case 27:
		tp_grow(e->c);
		require(tp_readable(e->c) + e->c->landing.done <= s->end[!end].written - e->read);
		require(tp_unsent(e->c) <= tp_unacked(e->c) && tp_unacked(e->c) <= e->written);
		break;
	case 28 ... 29:
		shut(e);
		break;
	case 30:
		tp_set_user_timeout(e->c, n * SD_S / 16);
		break;
	default:
		if (n >= 0xe0)
			close_end(e, n & 1);
		break;
	}
}

bool stream_drain(struct stream *s)
{
	bool moved = false;

	for (unsigned i = 0; i < 2; i++) {
		struct stream_end *e = &s->end[i];

		if (!e->c)
			continue;
		moved |= end_landing(s, i);
		while (read_some(s, i, 8192))
			moved = true;
		if (!e->shut && (tp_is_open(e->c) || e->failed)) {
			shut(e);
			moved = true;
		}
	}
	return moved;
}

static bool end_over(const struct stream_end *e)
{
	return e->failed || e->closed || (e->c && e->eof && e->c->fin_acked);
}

bool stream_over(const struct stream *s)
{
	if (!s->end[1].c && !s->end[1].closed) /* nobody has come */
		return s->end[0].failed || s->end[0].closed;
	return end_over(&s->end[0]) && end_over(&s->end[1]);
}

void stream_check(const struct stream *s, bool may_fail)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct stream_end *e = &s->end[i], *far = &s->end[!i];

		require(!e->failed || may_fail || far->closed || e->closed);
		/* Who has not failed has all, whatever has become of the other. */
		require(e->failed || e->closed || e->eof || !e->c);
	}
}

void stream_close(struct stream *s)
{
	for (unsigned i = 0; i < 2; i++) {
		if (s->end[i].c)
			close_end(&s->end[i], false);
	}
}

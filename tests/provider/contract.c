/* SPDX-License-Identifier: BSD-3-Clause */
#include "contract.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"

#define PATIENCE (20 * SD_S)

/* One endpoint and what its upcalls have said. */
struct end {
	struct pv_ep *ep;
	unsigned edges;
	unsigned upcalls;
};

static struct world *world;
static uint16_t next_port = 20000;

static void on_ready(void *user, unsigned events)
{
	struct end *e = user;

	e->edges |= events;
	e->upcalls++;
}

/* --- driving --- */

static void run_for(uint64_t ns)
{
	uint64_t end = sd_clock_ns() + ns;

	do
		pv_progress(world->domain);
	while (sd_clock_ns() < end);
}

/* How long "nothing happens" is waited for. */
static void settle(void)
{
	run_for(5 * SD_MS);
}

#define until(condition)                                                                                     \
	do {                                                                                                 \
		uint64_t give_up = sd_clock_ns() + PATIENCE;                                                 \
                                                                                                             \
		while (!(condition)) {                                                                       \
			pv_progress(world->domain);                                                          \
			if (sd_clock_ns() > give_up)                                                         \
				fail_msg("waited in vain for: %s", #condition);                              \
		}                                                                                            \
	} while (0)

static struct sd_addr with_port(struct sd_addr a, uint16_t port)
{
	a.port = port;
	return a;
}

static unsigned state(const struct end *e)
{
	return e->ep->ops->state(e->ep);
}

static struct pv_info info(const struct end *e)
{
	struct pv_info i;

	e->ep->ops->info(e->ep, &i);
	return i;
}

static int result(const struct end *e)
{
	enum sd_reason reason;

	return e->ep->ops->connect_result(e->ep, &reason);
}

static ssize_t send_flags(struct end *e, const void *data, size_t len, unsigned flags)
{
	struct iovec v = {(void *)data, len};

	return e->ep->ops->send(e->ep, &v, 1, flags);
}

static ssize_t send_(struct end *e, const void *data, size_t len)
{
	return send_flags(e, data, len, 0);
}

static ssize_t recv_flags(struct end *e, void *data, size_t len, unsigned flags)
{
	struct iovec v = {data, len};

	return e->ep->ops->recv(e->ep, &v, 1, flags);
}

static ssize_t recv_(struct end *e, void *data, size_t len)
{
	return recv_flags(e, data, len, 0);
}

static void close_(struct end *e)
{
	e->ep->ops->close(e->ep, PV_CLOSE_GRACEFUL);
	e->ep = NULL;
}

static void abort_(struct end *e)
{
	e->ep->ops->close(e->ep, PV_CLOSE_ABORT);
	e->ep = NULL;
}

static void listen_on(struct end *l, unsigned family, uint16_t port, unsigned backlog)
{
	struct sd_addr local = with_port(world->server_ip[family], port);

	*l = (struct end){0};
	assert_int_equal(world->server->ops->listen(world->server, -1, &local, backlog, l, &l->ep), 0);
}

static int try_connect(struct end *c, unsigned family, uint16_t port)
{
	struct sd_addr peer = with_port(world->server_ip[family], port), local = {0};
	enum sd_reason r;

	*c = (struct end){0};
	r = world->client->ops->route(world->client, &peer, &local);
	if (r != SD_REASON_SAN && r != SD_REASON_LOOP) {
		assert_int_equal(r, world->no_listener);
		return -ECONNREFUSED;
	}
	/* A switch has bound the socket. */
	if (!world->is_tcp)
		local.port = 40000 + next_port++ % 20000;
	return world->client->ops->connect(world->client, -1, &local, &peer, c, &c->ep);
}

static void connect_to(struct end *c, unsigned family, uint16_t port)
{
	assert_int_equal(try_connect(c, family, port), 0);
}

static void accept_from(struct end *l, struct end *s)
{
	*s = (struct end){0};
	until(state(l) & PV_IN);
	assert_int_equal(l->ep->ops->accept(l->ep, s, &s->ep), 0);
}

/* A connection: client end, server end and the listener it came by. */
struct pair {
	struct end c, s, l;
};

static unsigned any_family(void)
{
	return world->families & 1u << 4 ? 4 : 6;
}

static void pair_open(struct pair *p)
{
	uint16_t port = next_port++;

	listen_on(&p->l, any_family(), port, 8);
	connect_to(&p->c, any_family(), port);
	accept_from(&p->l, &p->s);
	until(result(&p->c) != -EINPROGRESS);
	assert_int_equal(result(&p->c), 0);
	settle();
	p->c.edges = p->s.edges = 0;
}

static void pair_close(struct pair *p)
{
	if (p->c.ep)
		close_(&p->c);
	if (p->s.ep)
		close_(&p->s);
	close_(&p->l);
}

/* Receives exactly len bytes. */
static void recv_all(struct end *e, void *data, size_t len)
{
	size_t got = 0;
	ssize_t n;

	while (got < len) {
		until((n = recv_(e, (char *)data + got, len - got)) != -EAGAIN);
		assert_true(n > 0);
		got += n;
	}
}

static void exchange(struct end *from, struct end *to, const char *text)
{
	char got[64] = "";

	assert_int_equal(send_(from, text, strlen(text)), strlen(text));
	recv_all(to, got, strlen(text));
	assert_string_equal(got, text);
}

static void expect_eof(struct end *e)
{
	char byte;
	ssize_t n;

	until((n = recv_(e, &byte, 1)) != -EAGAIN);
	assert_int_equal(n, 0);
}

/* --- connecting --- */

static void check_connect(unsigned family)
{
	uint16_t port = next_port++;
	struct pair p;
	struct pv_info c, s;

	if (!(world->families & 1u << family))
		skip();
	listen_on(&p.l, family, port, 8);
	assert_int_equal(state(&p.l), 0);
	connect_to(&p.c, family, port);
	until(p.l.edges & PV_IN || result(&p.c) != -EINPROGRESS);
	if (!(p.l.edges & PV_IN))
		assert_int_equal(result(&p.c), 0);
	until(p.l.edges & PV_IN);
	accept_from(&p.l, &p.s);
	until(result(&p.c) != -EINPROGRESS);
	assert_int_equal(result(&p.c), 0);
	until(world->in_process || p.c.edges & PV_OUT);
	assert_int_equal(state(&p.c), PV_OUT);
	assert_int_equal(state(&p.s), PV_OUT);
	assert_int_equal(state(&p.l), 0);
	c = info(&p.c);
	s = info(&p.s);
	assert_true(sd_addr_equal(&c.local, &s.peer));
	assert_true(sd_addr_equal(&c.peer, &s.local));
	assert_true(sd_addr_same_ip(&c.local, &world->client_ip[family]));
	assert_true(sd_addr_same_ip(&c.peer, &world->server_ip[family]));
	assert_int_equal(c.peer.port, port);
	exchange(&p.c, &p.s, "question");
	exchange(&p.s, &p.c, "answer");
	pair_close(&p);
}

static void connect__ipv4(void **unused)
{
	check_connect(4);
}

static void connect__ipv6(void **unused)
{
	check_connect(6);
}

static void connect__nobody_listens(void **unused)
{
	uint16_t port = next_port++;
	enum sd_reason reason;
	struct end c;

	if (try_connect(&c, any_family(), port))
		return; /* known at once, and the reason was looked at */
	until(result(&c) != -EINPROGRESS);
	assert_int_equal(c.ep->ops->connect_result(c.ep, &reason), -ECONNREFUSED);
	assert_int_equal(reason, world->no_listener);
	assert_true(c.edges & PV_OUT);
	assert_int_equal(state(&c) & ~PV_ERR, PV_IN | PV_OUT | PV_HUP | PV_RDHUP);
	close_(&c);
}

static void connect__given_up_half_way(void **unused)
{
	uint16_t port = next_port++;
	struct end l, c;

	listen_on(&l, any_family(), port, 8);
	connect_to(&c, any_family(), port);
	close_(&c);
	c.upcalls = 0;
	settle();
	assert_int_equal(c.upcalls, 0);
	close_(&l);
}

static void connect__many_at_once(void **unused)
{
	enum { N = 200 };
	static struct end c[N], s[N];
	uint16_t port = next_port++;
	struct end l;
	uint16_t from;

	listen_on(&l, any_family(), port, N);
	for (unsigned i = 0; i < N; i++)
		connect_to(&c[i], any_family(), port);
	for (unsigned i = 0; i < N; i++)
		accept_from(&l, &s[i]);
	for (unsigned i = 0; i < N; i++) {
		until(result(&c[i]) != -EINPROGRESS);
		assert_int_equal(result(&c[i]), 0);
		from = info(&c[i]).local.port;
		assert_int_equal(send_(&c[i], &from, sizeof from), sizeof from);
	}
	for (unsigned i = 0; i < N; i++) {
		recv_all(&s[i], &from, sizeof from);
		assert_int_equal(from, info(&s[i]).peer.port);
	}
	for (unsigned i = 0; i < N; i++)
		close_(&c[i]);
	for (unsigned i = 0; i < N; i++) {
		expect_eof(&s[i]);
		close_(&s[i]);
	}
	close_(&l);
}

/* --- listening --- */

static void listen__address_in_use(void **unused)
{
	struct sd_addr local = with_port(world->server_ip[any_family()], next_port++);
	struct pv_ep *again;
	struct end l;

	listen_on(&l, any_family(), local.port, 8);
	assert_int_equal(world->server->ops->listen(world->server, -1, &local, 8, NULL, &again), -EADDRINUSE);
	close_(&l);
	listen_on(&l, any_family(), local.port, 8);
	close_(&l);
}

static void listen__any_address(void **unused)
{
	struct sd_addr any = {.family = any_family(), .port = next_port++};
	struct pair p = {0};
	struct pv_info i;

	assert_int_equal(world->server->ops->listen(world->server, -1, &any, 8, &p.l, &p.l.ep), 0);
	connect_to(&p.c, any_family(), any.port);
	accept_from(&p.l, &p.s);
	until(result(&p.c) == 0);
	i = info(&p.s);
	assert_true(sd_addr_same_ip(&i.local, &world->server_ip[any_family()]));
	exchange(&p.c, &p.s, "hello");
	pair_close(&p);
}

static void listen__accepts_in_order(void **unused)
{
	uint16_t port = next_port++, client_port;
	struct end l, c[4], s[4];

	listen_on(&l, any_family(), port, 8);
	assert_int_equal(l.ep->ops->accept(l.ep, &s[0], &s[0].ep), -EAGAIN);
	for (unsigned i = 0; i < 4; i++) {
		l.edges = 0;
		connect_to(&c[i], any_family(), port);
		until(l.edges & PV_IN);
		until(result(&c[i]) == 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		accept_from(&l, &s[i]);
		client_port = info(&c[i]).local.port;
		assert_int_equal(info(&s[i]).peer.port, client_port);
	}
	assert_int_equal(l.ep->ops->accept(l.ep, &s[0], &s[0].ep), -EAGAIN);
	for (unsigned i = 0; i < 4; i++) {
		close_(&c[i]);
		close_(&s[i]);
	}
	close_(&l);
}

static unsigned accept_all(struct end *l)
{
	unsigned n = 0;
	struct end s;

	while (!l->ep->ops->accept(l->ep, NULL, &s.ep)) {
		close_(&s);
		n++;
	}
	return n;
}

static void listen__keeps_to_its_backlog(void **unused)
{
	/* What waits for its user: listen(2) lets one more wait than was said. With a daemon, as many again
	 * whose user is being looked for, and those of the wire: it begins no handshake while BACKLOG wait,
	 * but twice as many may be half open by then. */
	enum { BACKLOG = 2, MOST = BACKLOG + 1 + BACKLOG + BACKLOG + 2 * BACKLOG, N = 2 * MOST };
	uint16_t port = next_port++;
	unsigned refused = 0;
	enum sd_reason reason;
	struct end l, c[N];

	listen_on(&l, any_family(), port, BACKLOG);
	for (unsigned i = 0; i < N; i++) {
		if (try_connect(&c[i], any_family(), port))
			refused++;
	}
	for (unsigned i = 0; i < N && !world->is_tcp; i++) {
		if (!c[i].ep)
			continue;
		until(result(&c[i]) != -EINPROGRESS);
		if (!result(&c[i]))
			continue;
		assert_int_equal(c[i].ep->ops->connect_result(c[i].ep, &reason), -ECONNREFUSED);
		assert_int_equal(reason, SD_REASON_PEER_REFUSED);
		refused++;
	}
	settle();
	assert_in_range(accept_all(&l), 1, MOST);
	assert_true(world->is_tcp || refused >= N - MOST);
	for (unsigned i = 0; i < N; i++) {
		if (c[i].ep)
			close_(&c[i]);
	}
	assert_int_equal(l.ep->ops->set_backlog(l.ep, 64), 0);
	for (unsigned i = 0; i < N; i++)
		connect_to(&c[i], any_family(), port);
	for (unsigned i = 0, n = 0; n < N; i++) {
		until(state(&l) & PV_IN);
		n += accept_all(&l);
	}
	for (unsigned i = 0; i < N; i++)
		close_(&c[i]);
	close_(&l);
}

static void listen__bytes_and_eof_before_accept(void **unused)
{
	uint16_t port = next_port++;
	struct end l, c, s;
	char got[5];

	listen_on(&l, any_family(), port, 8);
	connect_to(&c, any_family(), port);
	until(result(&c) == 0);
	assert_int_equal(send_(&c, "early", 5), 5);
	close_(&c);
	settle();
	accept_from(&l, &s);
	until(state(&s) & PV_RDHUP);
	recv_all(&s, got, 5);
	assert_memory_equal(got, "early", 5);
	expect_eof(&s);
	close_(&s);
	close_(&l);
}

static void listen__closed_with_connections_waiting(void **unused)
{
	uint16_t port = next_port++;
	struct end l, c;
	char byte;

	listen_on(&l, any_family(), port, 8);
	connect_to(&c, any_family(), port);
	until(result(&c) == 0);
	until(state(&l) & PV_IN);
	close_(&l);
	until(state(&c) & PV_HUP);
	assert_int_equal(recv_(&c, &byte, 1), -ECONNRESET);
	close_(&c);
}

/* --- data --- */

static void data__nothing_there(void **unused)
{
	struct pair p;
	char byte;

	pair_open(&p);
	assert_int_equal(recv_(&p.c, &byte, 1), -EAGAIN);
	assert_int_equal(recv_flags(&p.c, &byte, 1, PV_PEEK), -EAGAIN);
	assert_int_equal(send_(&p.c, "", 0), 0);
	settle();
	assert_int_equal(state(&p.s), PV_OUT);
	pair_close(&p);
}

static void data__scattered_pieces(void **unused)
{
	char text[] = "onetwothree";
	struct iovec out[] = {{text, 3}, {NULL, 0}, {text + 3, 3}, {text + 6, 5}};
	char a[2], b[4], c[16];
	struct iovec in[] = {{a, 2}, {NULL, 0}, {b, 4}, {c, 16}};
	struct pair p;

	pair_open(&p);
	assert_int_equal(p.c.ep->ops->send(p.c.ep, out, 4, 0), 11);
	until(info(&p.s).recv_queued == 11);
	assert_int_equal(p.s.ep->ops->recv(p.s.ep, in, 4, PV_PEEK), 11);
	assert_memory_equal(c, "three", 5);
	memset(a, 0, sizeof a);
	memset(b, 0, sizeof b);
	memset(c, 0, sizeof c);
	assert_int_equal(p.s.ep->ops->recv(p.s.ep, in, 4, 0), 11);
	assert_memory_equal(a, "on", 2);
	assert_memory_equal(b, "etwo", 4);
	assert_memory_equal(c, "three", 5);
	pair_close(&p);
}

static void data__peek_leaves_it(void **unused)
{
	char got[8];
	struct pair p;

	pair_open(&p);
	assert_int_equal(send_(&p.c, "peekaboo", 8), 8);
	until(info(&p.s).recv_queued == 8);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(recv_flags(&p.s, got, 4, PV_PEEK), 4);
		assert_memory_equal(got, "peek", 4);
	}
	assert_true(state(&p.s) & PV_IN);
	recv_all(&p.s, got, 8);
	assert_memory_equal(got, "peekaboo", 8);
	assert_int_equal(state(&p.s), PV_OUT);
	p.c.ep->ops->shutdown(p.c.ep, SHUT_WR);
	until(state(&p.s) & PV_RDHUP);
	assert_int_equal(recv_flags(&p.s, got, 4, PV_PEEK), 0);
	pair_close(&p);
}

/* Byte off of stream id, eight at a time. */
static uint64_t pattern_word(uint64_t word, uint64_t id)
{
	uint64_t z = (word + 1) * 0x9e3779b97f4a7c15ull ^ id << 56;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	return z ^ z >> 27;
}

static void pattern(uint8_t *out, uint64_t off, size_t len, uint64_t id)
{
	for (size_t i = 0; i < len;) {
		uint64_t word = pattern_word((off + i) / 8, id);
		size_t at = (off + i) % 8, n = 8 - at < len - i ? 8 - at : len - i;

		memcpy(out + i, (uint8_t *)&word + at, n);
		i += n;
	}
}

struct stream {
	struct end *from, *to;
	uint64_t id, total, sent, received;
	struct sd_rng sizes;
};

static uint8_t chunk[256 << 10], expected[256 << 10];

static void pump_out(struct stream *s)
{
	size_t len = 1 + sd_rng_below(&s->sizes, sizeof chunk);
	ssize_t n;

	if (len > s->total - s->sent)
		len = s->total - s->sent;
	if (!len)
		return;
	pattern(chunk, s->sent, len, s->id);
	n = send_flags(s->from, chunk, len, sd_rng_below(&s->sizes, 4) ? 0 : PV_MORE);
	if (n == -EAGAIN)
		return;
	assert_true(n > 0);
	s->sent += n;
	if (s->sent == s->total)
		assert_int_equal(s->from->ep->ops->shutdown(s->from->ep, SHUT_WR), 0);
}

/* True at the end. */
static bool pump_in(struct stream *s)
{
	ssize_t n = recv_(s->to, chunk, 1 + sd_rng_below(&s->sizes, sizeof chunk));

	if (n == -EAGAIN)
		return false;
	assert_true(n >= 0);
	pattern(expected, s->received, n, s->id);
	assert_memory_equal(chunk, expected, n);
	s->received += n;
	return n == 0;
}

static void data__much_both_ways_at_once(void **unused)
{
	uint64_t total = world->lossy ? 12 << 20 : 48 << 20, moved, last = 0, quiet = sd_clock_ns();
	struct pair p;
	struct stream s[2];
	bool done[2] = {false, false};

	pair_open(&p);
	s[0] = (struct stream){.from = &p.c, .to = &p.s, .id = 1, .total = total};
	s[1] = (struct stream){.from = &p.s, .to = &p.c, .id = 2, .total = total + 12345};
	for (unsigned i = 0; i < 2; i++)
		sd_rng_seed(&s[i].sizes, i + 1);
	while (!done[0] || !done[1]) {
		for (unsigned i = 0; i < 2; i++) {
			pump_out(&s[i]);
			if (!done[i])
				done[i] = pump_in(&s[i]);
		}
		pv_progress(world->domain);
		moved = s[0].received + s[1].received;
		if (moved != last)
			quiet = pv_now(world->domain);
		last = moved;
		assert_true(pv_now(world->domain) - quiet < PATIENCE);
	}
	assert_int_equal(s[0].received, s[0].total);
	assert_int_equal(s[1].received, s[1].total);
	assert_int_equal(info(&p.c).bytes_out, s[0].total);
	assert_int_equal(info(&p.c).bytes_in, s[1].total);
	until(state(&p.c) & PV_HUP && state(&p.s) & PV_HUP);
	pair_close(&p);
}

/* Lends what is left, and takes it back at times: then its bytes need not be there any more. */
static void lend_out(struct stream *s, uint8_t *data)
{
	struct pv_ep *ep = s->from->ep;
	ssize_t n;

	if (s->sent == s->total)
		return;
	n = send_flags(s->from, data + s->sent, s->total - s->sent, PV_LEND);
	assert_true(n > 0 || n == -EAGAIN);
	if (n > 0)
		s->sent += n;
	if (s->sent < s->total && sd_rng_below(&s->sizes, 16))
		return;
	ep->ops->settle(ep);
	memset(data, 0, s->sent);
	if (s->sent == s->total)
		assert_int_equal(ep->ops->shutdown(ep, SHUT_WR), 0);
}

/* Progress, with a reader's memory to land in. */
static void land_in(struct stream *s)
{
	struct pv_ep *ep = s->to->ep;
	size_t size = 1 + sd_rng_below(&s->sizes, sizeof chunk - 1), n;
	bool lands = !ep->ops->land(ep, chunk, size, 1);

	chunk[size] = 0xa5;
	pv_progress(world->domain);
	if (!lands)
		return;
	n = ep->ops->landed(ep);
	assert_true(n <= size);
	assert_int_equal(chunk[size], 0xa5);
	pattern(expected, s->received, n, s->id);
	assert_memory_equal(chunk, expected, n);
	s->received += n;
}

static void data__from_and_to_the_callers_memory(void **unused)
{
	uint64_t total = 8 << 20, began = sd_clock_ns();
	uint8_t *data = malloc(total);
	struct pair p;
	struct stream s;

	pair_open(&p);
	pattern(data, 0, total, 5);
	s = (struct stream){.from = &p.c, .to = &p.s, .id = 5, .total = total};
	sd_rng_seed(&s.sizes, 5);
	do {
		lend_out(&s, data);
		land_in(&s);
		assert_true(sd_clock_ns() - began < PATIENCE);
	} while (!pump_in(&s));
	assert_int_equal(s.received, total);
	assert_int_equal(info(&p.s).bytes_in, total);
	pair_close(&p);
	free(data);
}

/* Closing is no different from settling first. */
static void data__closed_with_a_loan(void **unused)
{
	uint64_t total = 100000;
	uint8_t *data = malloc(total);
	struct stream s = {.id = 6};
	struct pair p;
	ssize_t n;

	pair_open(&p);
	pattern(data, 0, total, s.id);
	n = send_flags(&p.c, data, total, PV_LEND);
	assert_true(n > 0);
	close_(&p.c);
	memset(data, 0, total);
	s.to = &p.s;
	until(pump_in(&s));
	assert_int_equal(s.received, n);
	pair_close(&p);
	free(data);
}

/* Sends until the way is full and stays so; the bytes taken. */
static uint64_t fill(struct end *e, uint64_t id)
{
	uint64_t total = 0, quiet = sd_clock_ns();
	ssize_t n;

	while (sd_clock_ns() - quiet < 60 * SD_MS) {
		pattern(chunk, total, 50000, id);
		n = send_(e, chunk, 50000);
		if (n > 0) {
			total += n;
			quiet = sd_clock_ns();
		} else {
			assert_int_equal(n, -EAGAIN);
		}
		pv_progress(world->domain);
	}
	return total;
}

static void data__full_until_the_peer_reads(void **unused)
{
	uint64_t total, got = 0;
	struct pair p;
	ssize_t n;

	pair_open(&p);
	total = fill(&p.c, 3);
	assert_true(total >= 64 << 10);
	assert_false(state(&p.c) & PV_OUT);
	settle();
	p.c.edges = 0;
	until(info(&p.s).recv_queued > 0);
	while (got < total) {
		until((n = recv_(&p.s, chunk, sizeof chunk)) != -EAGAIN);
		assert_true(n > 0);
		pattern(expected, got, n, 3);
		assert_memory_equal(chunk, expected, n);
		got += n;
	}
	until(p.c.edges & PV_OUT);
	assert_int_equal(state(&p.c), PV_OUT);
	assert_int_equal(recv_(&p.s, chunk, 1), -EAGAIN);
	exchange(&p.c, &p.s, "goes on");
	pair_close(&p);
}

/* --- readiness --- */

static void ready__every_arrival_is_an_edge(void **unused)
{
	struct pair p;

	pair_open(&p);
	for (unsigned i = 0; i < 5; i++) {
		p.s.edges = 0;
		assert_int_equal(send_(&p.c, "x", 1), 1);
		until(p.s.edges & PV_IN);
	}
	assert_false(p.c.edges & PV_IN);
	recv_all(&p.s, (char[5]){0}, 5);
	p.s.edges = 0;
	settle();
	assert_false(p.s.edges & PV_IN);
	pair_close(&p);
}

static void ready__follows_the_user(void **unused)
{
	struct end other = {0};
	struct pair p;

	pair_open(&p);
	settle();
	p.s.upcalls = 0;
	p.s.ep->ops->set_user(p.s.ep, &other);
	assert_int_equal(send_(&p.c, "x", 1), 1);
	until(other.edges & PV_IN);
	p.s.ep->ops->set_user(p.s.ep, NULL);
	assert_int_equal(send_(&p.c, "y", 1), 1);
	until(info(&p.s).recv_queued == 2);
	assert_int_equal(p.s.upcalls, 0);
	recv_all(&p.s, (char[2]){0}, 2);
	pair_close(&p);
}

static void ready__not_after_close(void **unused)
{
	struct pair p;

	pair_open(&p);
	close_(&p.s);
	p.s.upcalls = 0;
	send_(&p.c, "into the void", 13);
	settle();
	abort_(&p.c);
	p.c.upcalls = 0;
	settle();
	assert_int_equal(p.s.upcalls, 0);
	assert_int_equal(p.c.upcalls, 0);
	pair_close(&p);
}

/* --- options and views --- */

static void set(struct end *e, struct pv_options o)
{
	assert_int_equal(e->ep->ops->set_options(e->ep, &o), 0);
}

/* For 200 ms at most; a busy machine may have slept through them. */
static void expect_held_back(const struct end *to, uint64_t since)
{
	unsigned s = state(to);

	assert_true(world->in_process || s == PV_OUT || sd_clock_ns() - since > 150 * SD_MS);
}

static void options__cork_and_more_hold_back(void **unused)
{
	struct pv_options o = PV_OPTIONS_NONE;
	uint64_t began = sd_clock_ns();
	char got[8];
	struct pair p;

	pair_open(&p);
	o.cork = 1;
	set(&p.c, o);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(send_(&p.c, "ab", 2), 2);
	settle();
	expect_held_back(&p.s, began);
	o.cork = 0;
	set(&p.c, o);
	recv_all(&p.s, got, 6);
	assert_memory_equal(got, "ababab", 6);

	began = sd_clock_ns();
	assert_int_equal(send_flags(&p.c, "more", 4, PV_MORE), 4);
	settle();
	expect_held_back(&p.s, began);
	assert_int_equal(send_(&p.c, "done", 4), 4);
	recv_all(&p.s, got, 8);
	assert_memory_equal(got, "moredone", 8);
	pair_close(&p);
}

static void options__more_is_not_forever(void **unused)
{
	char got[4];
	struct pair p;

	pair_open(&p);
	assert_int_equal(send_flags(&p.c, "last", 4, PV_MORE), 4);
	recv_all(&p.s, got, 4);
	pair_close(&p);
}

static void options__buffers_bound_what_is_in_between(void **unused)
{
	struct pv_options o = PV_OPTIONS_NONE;
	struct pair p;

	if (world->in_process)
		skip();
	pair_open(&p);
	o.send_buffer = o.recv_buffer = 32 << 10;
	set(&p.c, o);
	set(&p.s, o);
	assert_in_range(fill(&p.c, 4), 16 << 10, 512 << 10);
	pair_close(&p);
}

static void options__all_are_taken(void **unused)
{
	struct pv_options o = {
		.size = sizeof o,
		.nodelay = 1,
		.cork = 0,
		.keepalive = 1,
		.keep_idle_s = 5,
		.keep_interval_s = 1,
		.keep_count = 3,
		.user_timeout_ms = 3000,
		.send_buffer = 100000,
		.recv_buffer = 100000,
	};
	struct pair p;

	pair_open(&p);
	set(&p.c, o);
	set(&p.l, o);
	exchange(&p.c, &p.s, "still works");
	o.nodelay = o.keepalive = 0;
	set(&p.c, o);
	exchange(&p.c, &p.s, "still works");
	pair_close(&p);
}

static void info__counts_and_names(void **unused)
{
	struct pair p;
	struct pv_info i;

	pair_open(&p);
	assert_string_equal(info(&p.l).state, "LISTEN");
	assert_string_equal(info(&p.c).state, "ESTABLISHED");
	assert_int_equal(send_(&p.c, chunk, 1000), 1000);
	until(info(&p.s).recv_queued == 1000);
	until(info(&p.c).send_queued == 0);
	recv_all(&p.s, chunk, 1000);
	i = info(&p.s);
	assert_int_equal(i.recv_queued, 0);
	assert_int_equal(i.bytes_in, 1000);
	assert_int_equal(info(&p.c).bytes_out, 1000);
	assert_int_equal(info(&p.c).send_unsent, 0);
	assert_true(i.mss >= 500);
	if (!world->in_process) {
		assert_in_range(info(&p.c).srtt_ns, 1, SD_S);
		assert_in_range(info(&p.c).rto_ns, 1, 3 * SD_S);
		assert_true(info(&p.c).cwnd >= 1);
	}
	p.c.ep->ops->shutdown(p.c.ep, SHUT_WR);
	until(state(&p.s) & PV_RDHUP);
	assert_string_equal(info(&p.s).state, "CLOSE_WAIT");
	assert_string_equal(info(&p.c).state, "FIN_WAIT");
	pair_close(&p);
}

/* --- ending --- */

static void end__half_closes_both_ways(void **unused)
{
	struct pair p;

	pair_open(&p);
	assert_int_equal(send_(&p.c, "last words", 10), 10);
	assert_int_equal(p.c.ep->ops->shutdown(p.c.ep, SHUT_WR), 0);
	assert_int_equal(send_(&p.c, "x", 1), -EPIPE);
	until(p.s.edges & PV_RDHUP);
	assert_true(p.s.edges & PV_IN);
	assert_int_equal(state(&p.s), PV_IN | PV_OUT | PV_RDHUP);
	recv_all(&p.s, (char[10]){0}, 10);
	expect_eof(&p.s);
	expect_eof(&p.s);
	exchange(&p.s, &p.c, "still talking");
	assert_int_equal(state(&p.c), PV_OUT);
	p.c.edges = 0;
	assert_int_equal(p.s.ep->ops->shutdown(p.s.ep, SHUT_WR), 0);
	until(p.c.edges & PV_HUP);
	expect_eof(&p.c);
	assert_int_equal(state(&p.c), PV_IN | PV_OUT | PV_RDHUP | PV_HUP);
	until(state(&p.s) == (PV_IN | PV_OUT | PV_RDHUP | PV_HUP));
	pair_close(&p);
}

static void end__reading_shut(void **unused)
{
	char got[8];
	struct pair p;

	pair_open(&p);
	assert_int_equal(send_(&p.c, "unread", 6), 6);
	until(info(&p.s).recv_queued == 6);
	assert_int_equal(p.s.ep->ops->shutdown(p.s.ep, SHUT_RD), 0);
	assert_int_equal(state(&p.s), PV_IN | PV_OUT | PV_RDHUP);
	assert_int_equal(recv_(&p.s, got, sizeof got), 6);
	assert_int_equal(recv_(&p.s, got, sizeof got), 0);
	exchange(&p.s, &p.c, "the other way");
	assert_int_equal(state(&p.c), PV_OUT);
	pair_close(&p);
}

static void end__graceful_close_delivers_everything(void **unused)
{
	uint64_t total, got = 0;
	struct pair p;
	ssize_t n;

	pair_open(&p);
	total = fill(&p.c, 5);
	close_(&p.c);
	for (;;) {
		until((n = recv_(&p.s, chunk, sizeof chunk)) != -EAGAIN);
		assert_true(n >= 0);
		if (!n)
			break;
		pattern(expected, got, n, 5);
		assert_memory_equal(chunk, expected, n);
		got += n;
	}
	assert_int_equal(got, total);
	until(!world->client->ops->lingering(world->client));
	pair_close(&p);
}

static void end__close_with_unread_bytes_resets(void **unused)
{
	struct pair p;
	char byte;

	pair_open(&p);
	assert_int_equal(send_(&p.c, "nobody reads this", 17), 17);
	until(info(&p.s).recv_queued == 17);
	settle();
	close_(&p.s);
	until(state(&p.c) & PV_ERR);
	assert_int_equal(recv_(&p.c, &byte, 1), -ECONNRESET);
	pair_close(&p);
}

static void end__writing_to_a_closed_peer(void **unused)
{
	struct pair p;
	char byte;

	pair_open(&p);
	close_(&p.s);
	until(state(&p.c) & PV_RDHUP);
	expect_eof(&p.c);
	assert_int_equal(state(&p.c), PV_IN | PV_OUT | PV_RDHUP);
	assert_int_equal(send_(&p.c, "x", 1), 1);
	until(state(&p.c) & PV_HUP);
	assert_int_equal(send_(&p.c, "x", 1), -EPIPE);
	assert_int_equal(recv_(&p.c, &byte, 1), 0);
	pair_close(&p);
}

static void end__abort_resets_the_peer(void **unused)
{
	char data[8];
	struct pair p;

	pair_open(&p);
	assert_int_equal(send_(&p.c, "before", 6), 6);
	until(state(&p.s) & PV_IN);
	p.s.edges = 0;
	abort_(&p.c);
	until(p.s.edges & PV_ERR);
	assert_int_equal(p.s.edges & (PV_IN | PV_OUT | PV_HUP), PV_IN | PV_OUT | PV_HUP);
	assert_int_equal(state(&p.s), PV_IN | PV_OUT | PV_ERR | PV_HUP | PV_RDHUP);
	assert_int_equal(recv_(&p.s, data, sizeof data), 6);
	assert_int_equal(recv_(&p.s, data, sizeof data), -ECONNRESET);
	pair_close(&p);
}

static void end__reset_fails_the_writer(void **unused)
{
	struct pair p;

	pair_open(&p);
	abort_(&p.c);
	until(state(&p.s) & PV_ERR);
	assert_int_equal(send_(&p.s, "x", 1), -ECONNRESET);
	pair_close(&p);
}

/* Whoever leaves first, both ends get rid of the connection. */
static void end__both_close_at_once(void **unused)
{
	struct pair p;

	for (unsigned i = 0; i < 50; i++) {
		pair_open(&p);
		exchange(&p.c, &p.s, "hello");
		close_(&p.c);
		if (i & 1)
			pv_progress(world->domain);
		close_(&p.s);
		pair_close(&p);
	}
	until(!world->client->ops->lingering(world->client) && !world->server->ops->lingering(world->server));
}

/* --- the suite --- */

static int setup(void **unused)
{
	const struct pv_domain_config cfg = {.size = sizeof cfg};

	if (pv_domain_open(&cfg, &world->domain) || !pv_enter(world->domain))
		return -1;
	if (!world->open(world, on_ready))
		return 0;
	print_error("cannot set up the world\n");
	return -1;
}

static int teardown(void **unused)
{
	pv_leave(world->domain);
	pv_domain_drain(world->domain, 2 * SD_S);
	return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int contract_run(struct world *w)
{
	const struct CMUnitTest cases[] = {
		CASE(connect__ipv4),
		CASE(connect__ipv6),
		CASE(connect__nobody_listens),
		CASE(connect__given_up_half_way),
		CASE(connect__many_at_once),
		CASE(listen__address_in_use),
		CASE(listen__any_address),
		CASE(listen__accepts_in_order),
		CASE(listen__keeps_to_its_backlog),
		CASE(listen__bytes_and_eof_before_accept),
		CASE(listen__closed_with_connections_waiting),
		CASE(data__nothing_there),
		CASE(data__scattered_pieces),
		CASE(data__peek_leaves_it),
		CASE(data__much_both_ways_at_once),
		CASE(data__from_and_to_the_callers_memory),
		CASE(data__closed_with_a_loan),
		CASE(data__full_until_the_peer_reads),
		CASE(ready__every_arrival_is_an_edge),
		CASE(ready__follows_the_user),
		CASE(ready__not_after_close),
		CASE(options__cork_and_more_hold_back),
		CASE(options__more_is_not_forever),
		CASE(options__buffers_bound_what_is_in_between),
		CASE(options__all_are_taken),
		CASE(info__counts_and_names),
		CASE(end__half_closes_both_ways),
		CASE(end__reading_shut),
		CASE(end__graceful_close_delivers_everything),
		CASE(end__close_with_unread_bytes_resets),
		CASE(end__writing_to_a_closed_peer),
		CASE(end__abort_resets_the_peer),
		CASE(end__reset_fails_the_writer),
		CASE(end__both_close_at_once),
	};
	char name[64];

	world = w;
	snprintf(name, sizeof name, "contract of %s", w->name);
	return _cmocka_run_group_tests(name, cases, sizeof cases / sizeof *cases, NULL, NULL);
}

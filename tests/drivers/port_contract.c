/* SPDX-License-Identifier: BSD-3-Clause */
#include "port_contract.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "probe.h"

enum {
	BURST = 32,
	WINDOW = 64, /* frames on their way: fits every ring and socket buffer */
	FRAMES_MAX = 65536,
	ANSWER_TIMEOUT = 2000, /* ms */
	LINK_TIMEOUT = 10000,
	HELD = 48,
};

static struct contract_link *subject; /* cmocka has no other way to hand it over */

struct bench {
	struct contract_link *link;
	struct probe_end end;
	uint32_t session, next_seq;
};

static struct port *port_of(struct bench *b)
{
	return b->end.port;
}

static uint32_t most_payload(const struct bench *b)
{
	return b->link->mtu - 28u;
}

/* --- sending and receiving --- */

/* Hands over everything, as long as it takes. */
static void transmit(struct bench *b, struct port_frame *frames, unsigned n)
{
	struct port *p = port_of(b);
	uint64_t give_up = sd_clock_ns() + ANSWER_TIMEOUT * SD_MS;
	unsigned sent = 0;

	while (sent < n) {
		sent += p->ops->tx(p, frames + sent, n - sent);
		assert_true(sent <= n);
		if (sent < n && sd_clock_ns() > give_up)
			fail_msg("tx took %u of %u frames", sent, n);
	}
}

static void get_frame(struct bench *b, struct port_frame *f)
{
	struct port *p = port_of(b);
	uint64_t give_up = sd_clock_ns() + ANSWER_TIMEOUT * SD_MS;

	while (!p->ops->tx_get(p, f, 1))
		if (sd_clock_ns() > give_up)
			fail_msg("no transmit frame in %d ms", ANSWER_TIMEOUT);
}

static struct probe send_probe(struct bench *b, uint8_t command, uint32_t payload, bool offload)
{
	struct probe probe = {b->session, b->next_seq++, payload, command};
	struct port_frame f;

	get_frame(b, &f);
	assert_true(f.len >= b->link->mtu + 64u);
	probe_build(&b->end, &probe, offload, &f);
	transmit(b, &f, 1);
	return probe;
}

/* Our answers among what has arrived, at most max; the rest is given back. */
static unsigned receive(struct bench *b, struct port_frame *frames, struct probe *probes, unsigned max)
{
	struct port *p = port_of(b);
	unsigned n = p->ops->rx(p, frames, max), kept = 0;

	assert_true(n <= max);
	for (unsigned i = 0; i < n; i++) {
		int e = probe_parse(&b->end, &frames[i], &probes[kept], b->end.peer_mac);

		if (!e && probes[kept].session == b->session && probes[kept].command == PROBE_ANSWER) {
			frames[kept++] = frames[i];
			continue;
		}
		if (e == -EBADMSG)
			fail_msg("frame %u of %u bytes arrived damaged", probes[kept].seq, frames[i].len);
		p->ops->rx_done(p, &frames[i], 1);
	}
	return kept;
}

static bool await_answer(struct bench *b, struct probe *answer, unsigned timeout_ms)
{
	uint64_t give_up = sd_clock_ns() + timeout_ms * SD_MS;
	struct port_frame f;

	while (sd_clock_ns() < give_up) {
		if (receive(b, &f, answer, 1)) {
			port_of(b)->ops->rx_done(port_of(b), &f, 1);
			return true;
		}
	}
	return false;
}

static void check_echo(struct bench *b, uint32_t payload, bool offload)
{
	struct probe sent = send_probe(b, PROBE_ECHO, payload, offload), answer;

	if (!await_answer(b, &answer, ANSWER_TIMEOUT))
		fail_msg("no answer to %u bytes", payload);
	assert_int_equal(answer.seq, sent.seq);
	assert_int_equal(answer.payload, payload);
}

/* Says hello, to everybody, until the far end answers: its MAC address comes with it. */
static void meet(struct bench *b)
{
	uint64_t give_up = sd_clock_ns() + LINK_TIMEOUT * SD_MS;
	struct port *p = port_of(b);
	struct probe answer;

	b->session = (uint32_t)sd_clock_ns() ^ (uint32_t)getpid() << 16;
	do {
		struct probe hello = {b->session, b->next_seq++, PROBE_MIN, PROBE_ECHO};
		struct port_frame f;

		if (sd_clock_ns() > give_up)
			fail_msg("no far end in %d ms", LINK_TIMEOUT);
		p->ops->link_poll(p);
		if (!p->ops->tx_get(p, &f, 1))
			continue;
		probe_build(&b->end, &hello, true, &f);
		if (!p->ops->tx(p, &f, 1))
			p->ops->tx_put(p, &f, 1);
	} while (!await_answer(b, &answer, 20));
	while (await_answer(b, &answer, 50)) /* to earlier hellos */
		;
}

static void open_port(struct bench *b)
{
	struct port *p;
	int e = b->link->open(b->link, &p);

	if (e)
		fail_msg("cannot open: %s", strerror(-e));
	probe_end_init(&b->end, p, false);
	meet(b);
}

static void close_port(struct bench *b)
{
	b->link->close(b->link, port_of(b));
	b->end.port = NULL;
}

/* --- the cases --- */

static void describes_itself(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	struct port_info info;

	memset(&info, 0xa5, sizeof info);
	p->ops->info(p, &info);
	assert_non_null(info.name);
	assert_non_null(info.driver);
	assert_int_equal(info.mtu, b->link->mtu);
	assert_true(info.link_up);
	assert_int_equal(info.mac[0] & 1, 0);
	assert_memory_not_equal(info.mac, "\0\0\0\0\0\0", 6);
	if (!b->link->one_interface)
		assert_memory_not_equal(info.mac, b->end.peer_mac, 6);
	assert_int_equal(p->ops->size, sizeof(struct port_ops));
}

/* Sends count probes of sizes that step through all there are, in bursts, and takes the answers in order. */
static void stream(struct bench *b, unsigned count, uint32_t payload, uint32_t step, bool offload)
{
	struct port *p = port_of(b);
	uint32_t first = b->next_seq, got = 0, sent = 0, lo = PROBE_MIN, span = most_payload(b) - lo + 1;
	uint64_t quiet = sd_clock_ns();

	while (got < count) {
		struct port_frame frames[BURST];
		struct probe probes[BURST];
		unsigned n = 0;

		while (n < BURST && sent < count && sent - got < WINDOW) {
			struct probe probe = {b->session, b->next_seq,
				lo + (payload - lo + sent * step) % span, PROBE_ECHO};

			if (!p->ops->tx_get(p, &frames[n], 1))
				break;
			probe_build(&b->end, &probe, offload, &frames[n++]);
			b->next_seq++;
			sent++;
		}
		transmit(b, frames, n);
		n = receive(b, frames, probes, BURST);
		for (unsigned i = 0; i < n; i++, got++) {
			assert_int_equal(probes[i].seq, first + got);
			assert_int_equal(probes[i].payload, lo + (payload - lo + got * step) % span);
		}
		p->ops->rx_done(p, frames, n);
		if (n)
			quiet = sd_clock_ns();
		else if (sd_clock_ns() - quiet > ANSWER_TIMEOUT * SD_MS)
			fail_msg("answer %u of %u did not come", got, count);
	}
}

static void carries_every_size(void **state)
{
	struct bench *b = *state;

	stream(b, most_payload(b) - PROBE_MIN + 1, PROBE_MIN, 1, false);
}

static void carries_mixed_sizes(void **state)
{
	struct bench *b = *state;

	stream(b, 4000, PROBE_MIN, 997, true);
}

static void carries_full_frames(void **state)
{
	struct bench *b = *state;

	stream(b, 2000, most_payload(b), 0, true);
}

static void keeps_frames_until_rx_done(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	struct port_frame held[HELD];
	struct probe probes[HELD], again;
	unsigned n = 0;
	uint64_t give_up = sd_clock_ns() + ANSWER_TIMEOUT * SD_MS;

	for (unsigned i = 0; i < HELD; i++)
		send_probe(b, PROBE_ECHO, PROBE_MIN + i * 13, false);
	while (n < HELD && sd_clock_ns() < give_up)
		n += receive(b, held + n, probes + n, HELD - n);
	assert_int_equal(n, HELD);
	stream(b, 3000, PROBE_MIN, 991, false); /* all other buffers are used several times */
	for (unsigned i = 0; i < HELD; i++) {
		assert_int_equal(probe_parse(&b->end, &held[i], &again, NULL), 0);
		assert_int_equal(again.seq, probes[i].seq);
	}
	for (unsigned i = HELD; i-- > 0;) /* in any order, in pieces */
		p->ops->rx_done(p, &held[i], 1);
	stream(b, 3000, PROBE_MIN, 991, false);
}

/* Takes all transmit frames; returns how many. */
static unsigned take_all(struct bench *b, struct port_frame *frames)
{
	struct port *p = port_of(b);
	unsigned n = 0, got;

	do {
		got = p->ops->tx_get(p, frames + n, n + BURST <= FRAMES_MAX ? BURST : FRAMES_MAX - n);
		n += got;
	} while (got);
	return n;
}

static void runs_out_of_frames(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	struct port_frame *frames = calloc(FRAMES_MAX, sizeof *frames);
	unsigned n, again;

	assert_non_null(frames);
	for (unsigned round = 0; round < 3; round++) {
		n = take_all(b, frames);
		assert_in_range(n, 256, FRAMES_MAX - 1);
		for (unsigned i = 0; i < n; i++) { /* each one's memory is its own */
			assert_true(frames[i].len >= b->link->mtu + 64u);
			memset(frames[i].data, (int)(i * 7), b->link->mtu + 64u);
			memcpy(frames[i].data, &i, sizeof i);
		}
		for (unsigned i = 0; i < n; i++) {
			memcpy(&again, frames[i].data, sizeof again);
			assert_int_equal(again, i);
			assert_int_equal(frames[i].data[b->link->mtu + 63], (uint8_t)(i * 7));
		}
		/* A port without frames neither falls over nor loses them. */
		for (unsigned i = 0; i < 100; i++) {
			struct port_frame f;

			if (p->ops->rx(p, &f, 1))
				p->ops->rx_done(p, &f, 1);
		}
		p->ops->tx_put(p, frames, n);
		again = take_all(b, frames);
		p->ops->tx_put(p, frames, again);
		assert_in_range(again, n - n / 8, n + n / 8); /* frames in the NIC's rings come and go */
		stream(b, 500, PROBE_MIN, 31, true);
	}
	free(frames);
}

/* More than any ring holds, at once: what is not taken stays ours, and nothing is lost silently at this end.
 */
static void takes_what_fits(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	struct port_stats before, after;
	unsigned taken = 0, offered = 0;

	p->ops->stats(p, &before);
	for (unsigned round = 0; round < 200; round++) {
		struct port_frame frames[BURST];
		unsigned n = p->ops->tx_get(p, frames, BURST), k;

		for (unsigned i = 0; i < n; i++) {
			struct probe probe = {b->session, b->next_seq++, most_payload(b), PROBE_SINK};

			probe_build(&b->end, &probe, false, &frames[i]);
		}
		k = p->ops->tx(p, frames, n);
		assert_true(k <= n);
		p->ops->tx_put(p, frames + k, n - k);
		offered += n;
		taken += k;
	}
	p->ops->stats(p, &after);
	assert_true(taken > 0);
	assert_int_equal(after.tx_frames - before.tx_frames, taken);
	assert_true(taken == offered || after.tx_full > before.tx_full);
	usleep(200000); /* the far end may have to catch up */
	stream(b, 500, PROBE_MIN, 31, true);
}

static void counts(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	struct port_stats before, after;
	uint64_t bytes = 0;

	p->ops->stats(p, &before);
	for (unsigned i = 0; i < 50; i++) {
		check_echo(b, PROBE_MIN + i * 11, true);
		bytes += PROBE_HEADERS + PROBE_MIN + i * 11;
	}
	p->ops->stats(p, &after);
	assert_int_equal(after.tx_frames - before.tx_frames, 50);
	assert_int_equal(after.tx_bytes - before.tx_bytes, bytes);
	assert_int_equal(after.rx_frames - before.rx_frames, 50);
	assert_int_equal(after.rx_bytes - before.rx_bytes, bytes);
	assert_int_equal(after.rx_errors, before.rx_errors);
}

static void finishes_checksums(void **state)
{
	struct bench *b = *state;

	for (uint32_t payload = PROBE_MIN; payload < PROBE_MIN + 40; payload++) {
		check_echo(b, payload, true);
		check_echo(b, payload, false);
	}
}

/* A frame whose sum is wrong must not arrive as sound: the far end, which trusts the port's flags, is silent.
 */
static void never_calls_a_bad_checksum_good(void **state)
{
	struct bench *b = *state;
	struct probe probe = {b->session, b->next_seq++, 200, PROBE_ECHO}, answer;
	struct port_frame f;

	get_frame(b, &f);
	probe_build(&b->end, &probe, false, &f);
	f.data[PROBE_HEADERS + 100] ^= 0x10;
	transmit(b, &f, 1);
	assert_false(await_answer(b, &answer, 100));
	check_echo(b, 200, false);
}

static void reaches_everybody(void **state)
{
	struct bench *b = *state;
	struct probe_end all = b->end;
	struct probe probe = {b->session, b->next_seq++, 100, PROBE_ECHO}, answer;
	struct port_frame f;

	if (!(b->end.caps & PORT_CAP_BROADCAST))
		skip();
	memset(all.peer_mac, 0xff, sizeof all.peer_mac);
	get_frame(b, &f);
	probe_build(&all, &probe, false, &f);
	transmit(b, &f, 1);
	assert_true(await_answer(b, &answer, ANSWER_TIMEOUT));
	assert_int_equal(answer.seq, probe.seq);
}

/* Takes everything that is there, as one must before one sleeps; true when there was something. */
static bool drain(struct bench *b)
{
	struct port_frame f;
	struct probe probe;
	bool any = false;

	for (; receive(b, &f, &probe, 1); any = true)
		port_of(b)->ops->rx_done(port_of(b), &f, 1);
	return any;
}

/* Sleeps until an answer that is sent later wakes us. False: it was here before we slept (a busy machine). */
static bool sleep_once(struct bench *b)
{
	struct port *p = port_of(b);
	struct pollfd fd = {.fd = p->ops->wait_fd(p), .events = POLLIN};
	uint64_t start = sd_clock_ns();
	struct probe sent = send_probe(b, PROBE_LATER, 100, true), answer;

	assert_int_equal(p->ops->arm(p), 0);
	if (drain(b)) {
		p->ops->disarm(p);
		return false;
	}
	assert_int_equal(poll(&fd, 1, ANSWER_TIMEOUT), 1);
	assert_in_range(
		sd_clock_ns() - start, PROBE_LATER_MS * SD_MS, UINT64_MAX); /* by the frame, not before */
	p->ops->disarm(p);
	assert_true(await_answer(b, &answer, ANSWER_TIMEOUT));
	assert_int_equal(answer.seq, sent.seq);
	return true;
}

static void wakes(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	bool promised = b->end.caps & PORT_CAP_RX_INTR;

	assert_int_equal(p->ops->wait_fd(p) >= 0, promised);
	if (!promised) { /* then it says so, and a timer does */
		assert_int_equal(p->ops->wait_fd(p), -ENOTSUP);
		assert_int_equal(p->ops->arm(p), -ENOTSUP);
		send_probe(b, PROBE_LATER, 100, true);
		usleep((PROBE_LATER_MS + 40) * 1000);
		assert_true(await_answer(b, &(struct probe){0}, ANSWER_TIMEOUT));
		return;
	}
	for (unsigned round = 0, slept = 0; slept < 6; round++) {
		assert_true(round < 50);
		slept += sleep_once(b);
	}
}

/* Armed, nothing comes: nothing wakes. Disarmed, something comes: the descriptor is not stuck on readable. */
static void sleeps_undisturbed(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	struct pollfd fd = {.fd = p->ops->wait_fd(p), .events = POLLIN};

	if (fd.fd < 0)
		skip();
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(p->ops->arm(p), 0);
		drain(b);
		assert_int_equal(poll(&fd, 1, 50), 0);
		p->ops->disarm(p);
		stream(b, 200, PROBE_MIN, 5, true);
	}
}

static void keeps_its_link(void **state)
{
	struct bench *b = *state;
	struct port *p = port_of(b);
	struct port_info info;

	for (unsigned i = 0; i < 200; i++)
		assert_false(p->ops->link_poll(p));
	p->ops->info(p, &info);
	assert_true(info.link_up);
	stream(b, 200, PROBE_MIN, 5, true);
}

static void opens_again(void **state)
{
	struct bench *b = *state;

	for (unsigned round = 0; round < 3; round++) {
		close_port(b);
		open_port(b);
		stream(b, 300, PROBE_MIN, 29, true);
	}
	wakes(state);
}

static int set_up(void **state)
{
	static struct bench b;

	b.link = subject;
	*state = &b;
	open_port(&b);
	return 0;
}

static int tear_down(void **state)
{
	struct bench *b = *state;

	if (b->end.port)
		close_port(b);
	return 0;
}

int port_contract_run(const char *name, struct contract_link *l)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(describes_itself),
		cmocka_unit_test(carries_every_size),
		cmocka_unit_test(carries_mixed_sizes),
		cmocka_unit_test(carries_full_frames),
		cmocka_unit_test(keeps_frames_until_rx_done),
		cmocka_unit_test(runs_out_of_frames),
		cmocka_unit_test(takes_what_fits),
		cmocka_unit_test(counts),
		cmocka_unit_test(finishes_checksums),
		cmocka_unit_test(never_calls_a_bad_checksum_good),
		cmocka_unit_test(reaches_everybody),
		cmocka_unit_test(wakes),
		cmocka_unit_test(sleeps_undisturbed),
		cmocka_unit_test(keeps_its_link),
		cmocka_unit_test(opens_again),
	};

	subject = l;
	return cmocka_run_group_tests_name(name, cases, set_up, tear_down);
}

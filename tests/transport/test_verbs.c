/* SPDX-License-Identifier: BSD-3-Clause */
/* Queue pairs, regions and completion queues, between two hosts of the simulator: each operation, each way in
 * which one is refused, and what becomes of everything else then. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sim.h"
#include "transport/verbs.h"

#define SIZE 65536u
#define PORT 7

/* One side, and what it has seen. */
struct side {
	struct sim_host *host;
	struct tp_pd *pd;
	struct tp_mr *mr; /* all rights */
	struct tp_cq *scq, *rcq;
	struct tp_qp *qp;
	unsigned events, notified;
	_Alignas(8) uint8_t mem[SIZE];
};

static struct sim sim;
static struct side side[2];
static struct tp_listener *listener;
static struct tp_qp_attr attr;

static void on_event(struct sim_host *h, struct tp_conn *c, void *user, unsigned events)
{
	sim_fail(&sim, "an event of a stream");
}

static void on_acceptable(struct sim_host *h, struct tp_listener *l, void *user)
{
}

static void on_qp_event(struct sim_host *h, struct tp_qp *qp, void *user, unsigned events)
{
	struct side *s = user;

	s->events |= events;
}

static void on_completion(struct sim_host *h, struct tp_cq *cq, void *user)
{
	struct side *s = user;

	s->notified++;
}

static uint64_t run(struct sim_host *h)
{
	return SIM_NEVER;
}

static const struct sim_app app = {.event = on_event,
	.acceptable = on_acceptable,
	.run = run,
	.qp_event = on_qp_event,
	.completion = on_completion};

/* So much later. */
static void pass(uint64_t ns)
{
	sim_wake(&sim.hosts[0]);
	sim_wake(&sim.hosts[1]);
	sim_run(&sim, sim.now + ns);
	assert_string_equal(sim.failure, "");
}

#define SOON (20 * SD_MS)

static void open_side(unsigned i)
{
	struct side *s = &side[i];

	memset(s, 0, sizeof *s);
	s->host = &sim.hosts[i];
	sim_boot(s->host);
	assert_int_equal(tp_pd_create(s->host->tp, &s->pd), 0);
	assert_int_equal(
		tp_mr_register(s->pd, s->mem, SIZE,
			TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ | TP_REMOTE_ATOMIC, &s->mr),
		0);
	assert_int_equal(tp_cq_create(s->host->tp, 64, s, &s->scq), 0);
	assert_int_equal(tp_cq_create(s->host->tp, 64, s, &s->rcq), 0);
	attr = (struct tp_qp_attr){.size = sizeof attr,
		.max_send_wr = 16,
		.max_recv_wr = 16,
		.max_inline = 64,
		.max_sge = 4,
		.max_reads = 4,
		.max_peer_reads = 4};
	attr.pd = s->pd;
	attr.send_cq = s->scq;
	attr.recv_cq = s->rcq;
	attr.user = s;
	assert_int_equal(tp_qp_create(s->host->tp, &attr, &s->qp), 0);
	for (unsigned k = 0; k < SIZE; k++)
		s->mem[k] = (uint8_t)(k * 7 + k / 251 + i * 101);
}

static void connect_them(void)
{
	struct tp_path path;

	assert_int_equal(tp_qp_listen(side[1].host->tp, &(struct sd_addr){.family = 4, .port = PORT}, 4,
				 attr.max_peer_reads, NULL, &listener),
		0);
	sim_path(side[0].host, side[1].host, 4711, PORT, &path);
	assert_int_equal(tp_qp_connect(side[0].qp, sim.now, &path), 0);
	pass(SOON);
	assert_int_equal(side[0].events, TP_EV_OPEN);
	assert_int_equal(tp_qp_accept(side[1].qp, listener), 0);
	pass(SOON);
}

static int open_hosts(void **state)
{
	sim_open(&sim, 1, 2, 4, &app, NULL);
	for (unsigned i = 0; i < 2; i++) {
		sim.links[i][!i] = (struct sim_link){.delay = 10 * SD_US};
		open_side(i);
	}
	return 0;
}

static int setup(void **state)
{
	open_hosts(state);
	connect_them();
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct side *s = &side[i];

		if (s->qp)
			tp_qp_destroy(s->qp, sim.now);
		assert_int_equal(tp_cq_destroy(s->scq), 0);
		assert_int_equal(tp_cq_destroy(s->rcq), 0);
		if (s->mr)
			tp_mr_deregister(s->mr);
		assert_int_equal(tp_pd_destroy(s->pd), 0);
	}
	pass(SD_S);
	sim_close(&sim);
	assert_string_equal(sim.failure, "");
	return 0;
}

static struct tp_sge piece(unsigned i, uint64_t offset, uint32_t len)
{
	return (struct tp_sge){side[i].mr, offset, len};
}

static int post(unsigned i, struct tp_send_wr wr)
{
	int r = tp_post_send(side[i].qp, &wr);

	sim_wake(side[i].host);
	return r;
}

static void receive(unsigned i, uint64_t id, uint64_t offset, uint32_t len)
{
	struct tp_sge sg = piece(i, offset, len);

	assert_int_equal(tp_post_recv(side[i].qp, &(struct tp_recv_wr){id, &sg, 1}), 0);
	sim_wake(side[i].host);
}

static struct tp_wc completed(struct tp_cq *cq, uint64_t id, enum tp_wc_status status, enum tp_opcode opcode)
{
	struct tp_wc wc = {0};

	assert_int_equal(tp_cq_poll(cq, &wc, 1), 1);
	assert_int_equal(wc.wr_id, id);
	assert_int_equal(wc.status, status);
	if (status == TP_WC_SUCCESS)
		assert_int_equal(wc.opcode, opcode);
	return wc;
}

static void nothing_completed(void)
{
	struct tp_wc wc;

	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tp_cq_poll(side[i].scq, &wc, 1), 0);
		assert_int_equal(tp_cq_poll(side[i].rcq, &wc, 1), 0);
	}
}

#define SIGNALED .flags = TP_SIGNALED

static void same(unsigned a, uint64_t at_a, unsigned b, uint64_t at_b, size_t len)
{
	assert_memory_equal(side[a].mem + at_a, side[b].mem + at_b, len);
}

/* --- each operation ------------------------------------------------------------------------------------- */

static void send__arrives_in_the_receive(void **state)
{
	static const uint32_t lens[] = {0, 1, 100, 1400, 1423, 1424, 1425, 5000, 20000};
	struct tp_sge sg;

	for (unsigned k = 0; k < sizeof lens / sizeof *lens; k++) {
		sg = piece(0, 3, lens[k]);
		receive(1, k, 30000, 20000);
		assert_int_equal(
			post(0,
				(struct tp_send_wr){
					.wr_id = 100 + k, .opcode = TP_SEND, SIGNALED, .sg = &sg, .n_sg = 1}),
			0);
		pass(SOON);
		assert_int_equal(completed(side[1].rcq, k, TP_WC_SUCCESS, TP_RECV).len, lens[k]);
		completed(side[0].scq, 100 + k, TP_WC_SUCCESS, TP_SEND);
		same(0, 3, 1, 30000, lens[k]);
	}
	nothing_completed();
}

static void send__of_pieces_into_pieces(void **state)
{
	const struct tp_sge from[] = {piece(0, 100, 1), piece(0, 200, 3000), piece(0, 9000, 0),
		piece(0, 50, 2000)},
			    to[] = {piece(1, 60000, 2500), piece(1, 0, 7), piece(1, 40000, 2494)};
	uint8_t sent[5001];

	memcpy(sent, side[0].mem + 100, 1);
	memcpy(sent + 1, side[0].mem + 200, 3000);
	memcpy(sent + 3001, side[0].mem + 50, 2000);
	assert_int_equal(tp_post_recv(side[1].qp, &(struct tp_recv_wr){1, to, 3}), 0);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, .sg = from, .n_sg = 4}), 0);
	pass(SOON);
	assert_int_equal(completed(side[1].rcq, 1, TP_WC_SUCCESS, TP_RECV).len, 5001);
	assert_memory_equal(side[1].mem + 60000, sent, 2500);
	assert_memory_equal(side[1].mem, sent + 2500, 7);
	assert_memory_equal(side[1].mem + 40000, sent + 2507, 2494);
	nothing_completed(); /* it was not signalled */
}

static void send__inline_and_immediate(void **state)
{
	char text[] = "hello";
	struct tp_wc wc;

	receive(1, 1, 0, 100);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND,
					 .flags = TP_INLINE | TP_HAS_IMM,
					 .data = text,
					 .len = sizeof text,
					 .imm = 0x12345678}),
		0);
	memset(text, 0, sizeof text);
	pass(SOON);
	wc = completed(side[1].rcq, 1, TP_WC_SUCCESS, TP_RECV);
	assert_true(wc.has_imm);
	assert_int_equal(wc.imm, 0x12345678);
	assert_string_equal((char *)side[1].mem, "hello");
}

/* It leaves when there is a receive for it, without being asked for again and again. */
static void send__waits_for_a_receive(void **state)
{
	struct tp_stats before, after;

	for (unsigned k = 0; k < 5; k++)
		assert_int_equal(post(0, (struct tp_send_wr){.wr_id = k, .opcode = TP_SEND, SIGNALED}), 0);
	before = *tp_stats(side[0].host->tp);
	pass(10 * SD_S);
	after = *tp_stats(side[0].host->tp);
	assert_true(after.tx_packets - before.tx_packets < 40);
	nothing_completed();
	for (unsigned k = 0; k < 3; k++)
		receive(1, k, 0, 10);
	pass(SOON);
	for (unsigned k = 0; k < 3; k++) {
		completed(side[0].scq, k, TP_WC_SUCCESS, TP_SEND);
		completed(side[1].rcq, k, TP_WC_SUCCESS, TP_RECV);
	}
	nothing_completed();
	receive(1, 3, 0, 10);
	receive(1, 4, 0, 10);
	pass(SOON);
	completed(side[1].rcq, 3, TP_WC_SUCCESS, TP_RECV);
	completed(side[1].rcq, 4, TP_WC_SUCCESS, TP_RECV);
}

static void write__lands_where_it_says(void **state)
{
	static const uint32_t lens[] = {0, 1, 1415, 1416, 1417, 30000};

	for (unsigned k = 0; k < sizeof lens / sizeof *lens; k++) {
		struct tp_sge sg = piece(0, 5, lens[k]);

		assert_int_equal(post(0, (struct tp_send_wr){.wr_id = k,
						 .opcode = TP_WRITE,
						 SIGNALED,
						 .sg = &sg,
						 .n_sg = 1,
						 .rkey = tp_mr_rkey(side[1].mr),
						 .remote_offset = SIZE - lens[k]}),
			0);
		pass(SOON);
		completed(side[0].scq, k, TP_WC_SUCCESS, TP_WRITE);
		same(0, 5, 1, SIZE - lens[k], lens[k]);
	}
	nothing_completed();
}

static void write__with_immediate(void **state)
{
	static const uint32_t lens[] = {0, 1, 1407, 1408, 1409, 1416, 30000};

	for (unsigned k = 0; k < sizeof lens / sizeof *lens; k++) {
		struct tp_sge sg = piece(1, 5, lens[k]);
		struct tp_wc wc;

		receive(0, k, 0, 0);
		assert_int_equal(post(1, (struct tp_send_wr){.wr_id = k,
						 .opcode = TP_WRITE_IMM,
						 .sg = &sg,
						 .n_sg = 1,
						 .imm = k,
						 .rkey = tp_mr_rkey(side[0].mr),
						 .remote_offset = 77}),
			0);
		pass(SOON);
		wc = completed(side[0].rcq, k, TP_WC_SUCCESS, TP_RECV_WRITE);
		assert_int_equal(wc.imm, k);
		assert_int_equal(wc.len, lens[k]);
		same(0, 77, 1, 5, lens[k]);
	}
	nothing_completed();
}

static void read__brings_it(void **state)
{
	static const uint32_t lens[] = {0, 1, 1424, 1425, 40000};

	for (unsigned k = 0; k < sizeof lens / sizeof *lens; k++) {
		const struct tp_sge to[] = {
			piece(0, 20000, lens[k] / 3), piece(0, 20000 + lens[k] / 3, lens[k] - lens[k] / 3)};

		assert_int_equal(post(0, (struct tp_send_wr){.wr_id = k,
						 .opcode = TP_READ,
						 SIGNALED,
						 .sg = to,
						 .n_sg = 2,
						 .rkey = tp_mr_rkey(side[1].mr),
						 .remote_offset = 11}),
			0);
		pass(SOON);
		assert_int_equal(completed(side[0].scq, k, TP_WC_SUCCESS, TP_READ).len, lens[k]);
		same(0, 20000, 1, 11, lens[k]);
	}
	nothing_completed();
}

/* More than the peer takes at once, in both directions, with everything else between them: in order. */
static void read__many_among_others(void **state)
{
	struct tp_sge sg[2] = {piece(0, 0, 3000), piece(1, 30000, 3000)};

	for (unsigned k = 0; k < 16; k++) {
		for (unsigned i = 0; i < 2; i++) {
			bool reads = k % 3 != 2;

			assert_int_equal(post(i, (struct tp_send_wr){.wr_id = k,
							 .opcode = reads ? TP_READ : TP_WRITE,
							 SIGNALED,
							 .sg = &sg[i],
							 .n_sg = 1,
							 .rkey = tp_mr_rkey(side[!i].mr),
							 .remote_offset = 50000}),
				0);
		}
	}
	pass(SOON);
	for (unsigned k = 0; k < 16; k++) {
		for (unsigned i = 0; i < 2; i++)
			completed(side[i].scq, k, TP_WC_SUCCESS, k % 3 != 2 ? TP_READ : TP_WRITE);
	}
	nothing_completed();
}

static uint64_t *word(unsigned i, size_t at)
{
	return (uint64_t *)(void *)(side[i].mem + at);
}

static void atomic__each(void **state)
{
	struct tp_sge to = piece(0, 8, 8);
	struct tp_send_wr wr = {.opcode = TP_FETCH_ADD,
		SIGNALED,
		.sg = &to,
		.n_sg = 1,
		.rkey = tp_mr_rkey(side[1].mr),
		.remote_offset = 64,
		.operand = 5};

	*word(1, 64) = 40;
	assert_int_equal(post(0, wr), 0);
	pass(SOON);
	completed(side[0].scq, 0, TP_WC_SUCCESS, TP_FETCH_ADD);
	assert_int_equal(*word(0, 8), 40);
	assert_int_equal(*word(1, 64), 45);
	wr.opcode = TP_COMPARE_SWAP;
	for (unsigned k = 0; k < 2; k++) {
		wr.compare = 45;
		wr.operand = 1000 + k;
		assert_int_equal(post(0, wr), 0);
		pass(SOON);
		completed(side[0].scq, 0, TP_WC_SUCCESS, TP_COMPARE_SWAP);
		assert_int_equal(*word(0, 8), k ? 1000 : 45);
		assert_int_equal(*word(1, 64), 1000);
	}
}

/* What a READ brings is there before what follows it begins, if that says so. */
static void fence(void **state)
{
	struct tp_sge to = piece(0, 0, 20000), from = piece(0, 0, 20000);

	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_READ,
					 .sg = &to,
					 .n_sg = 1,
					 .rkey = tp_mr_rkey(side[1].mr),
					 .remote_offset = 0}),
		0);
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 1,
					 .opcode = TP_WRITE,
					 .flags = TP_SIGNALED | TP_FENCE,
					 .sg = &from,
					 .n_sg = 1,
					 .rkey = tp_mr_rkey(side[1].mr),
					 .remote_offset = 30000}),
		0);
	pass(SOON);
	completed(side[0].scq, 1, TP_WC_SUCCESS, TP_WRITE);
	assert_memory_equal(side[1].mem + 30000, side[1].mem, 20000);
}

/* --- queues --------------------------------------------------------------------------------------------- */

static void queue__full(void **state)
{
	for (unsigned k = 0; k < 16; k++) {
		assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), 0);
		receive(0, k, 0, 0);
	}
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), -EAGAIN);
	assert_int_equal(tp_post_recv(side[0].qp, &(struct tp_recv_wr){0}), -EAGAIN);
	for (unsigned k = 0; k < 16; k++)
		receive(1, k, 0, 0);
	pass(SOON);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), 0);
}

/* What has completed has its place until it is polled: there is always room for what will. */
static void queue__of_completions(void **state)
{
	struct tp_wc wc[64];

	for (unsigned n = 0; n < 64; n += 16) {
		for (unsigned k = 0; k < 16; k++) {
			receive(1, k, 0, 0);
			assert_int_equal(
				post(0, (struct tp_send_wr){.wr_id = n + k, .opcode = TP_SEND, SIGNALED}), 0);
		}
		pass(SOON);
		assert_int_equal(tp_cq_poll(side[1].rcq, wc, 64), 16);
	}
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), -EAGAIN);
	assert_int_equal(tp_cq_poll(side[0].scq, wc, 1), 1);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), 0);
	assert_int_equal(tp_cq_poll(side[0].scq, wc, 64), 63);
	for (unsigned k = 0; k < 63; k++)
		assert_int_equal(wc[k].wr_id, k + 1);
}

static void queue__is_told_of(void **state)
{
	tp_cq_notify(side[1].rcq, true);
	receive(1, 0, 0, 0);
	receive(1, 1, 0, 0);
	receive(1, 2, 0, 0);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), 0);
	pass(SOON);
	assert_int_equal(side[1].notified, 0);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, .flags = TP_SOLICITED}), 0);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, .flags = TP_SOLICITED}), 0);
	pass(SOON);
	assert_int_equal(side[1].notified, 1);
}

static void post__what_makes_no_sense(void **state)
{
	struct tp_mr *deaf, *other;
	struct tp_pd *pd;
	struct tp_sge sg = piece(0, 0, 8), outside = piece(0, SIZE - 7, 8), wraps = piece(0, UINT64_MAX, 8),
		      many[5] = {sg, sg, sg, sg, sg}, one;
	uint8_t mem[8];

	assert_int_equal(tp_mr_register(side[0].pd, mem, 8, 0, &deaf), 0);
	assert_int_equal(tp_mr_register(side[0].pd, mem, 8, TP_REMOTE_WRITE, &other), -EINVAL);
	assert_int_equal(tp_pd_create(side[0].host->tp, &pd), 0);
	assert_int_equal(tp_mr_register(pd, mem, 8, TP_LOCAL_WRITE, &other), 0);
	assert_int_equal(tp_pd_destroy(pd), -EBUSY);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_RECV}), -EINVAL);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, .sg = many, .n_sg = 5}), -EINVAL);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, .sg = &outside, .n_sg = 1}), -EACCES);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, .sg = &wraps, .n_sg = 1}), -EACCES);
	assert_int_equal(
		post(0, (struct tp_send_wr){.opcode = TP_SEND, .flags = TP_INLINE, .data = mem, .len = 65}),
		-EINVAL);
	assert_int_equal(
		post(0, (struct tp_send_wr){.opcode = TP_READ, .flags = TP_INLINE, .data = mem, .len = 8}),
		-EINVAL);
	one = piece(0, 0, 9);
	assert_int_equal(
		post(0, (struct tp_send_wr){.opcode = TP_FETCH_ADD, .sg = &one, .n_sg = 1}), -EINVAL);
	one = (struct tp_sge){deaf, 0, 8};
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_READ, .sg = &one, .n_sg = 1}), -EACCES);
	assert_int_equal(tp_post_recv(side[0].qp, &(struct tp_recv_wr){0, &one, 1}), -EACCES);
	one = (struct tp_sge){other, 0, 8};
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, .sg = &one, .n_sg = 1}), -EACCES);
	assert_int_equal(tp_cq_destroy(side[0].scq), -EBUSY);
	assert_int_equal(tp_qp_connect(side[0].qp, sim.now, NULL), -EISCONN);
	tp_mr_deregister(deaf);
	tp_mr_deregister(other);
	assert_int_equal(tp_pd_destroy(pd), 0);
	nothing_completed();
}

/* --- refused by the peer -------------------------------------------------------------------------------- */

/* Of several requests the middle one may not do what it wants. */
static void refused(struct tp_send_wr wr, enum tp_wc_status status)
{
	struct tp_sge sg = piece(0, 0, 8);

	for (unsigned k = 0; k < 3; k++)
		receive(1, k, 100, 8);
	wr.wr_id = 1;
	if (!wr.sg && !(wr.flags & TP_INLINE)) {
		wr.sg = &sg;
		wr.n_sg = 1;
	}
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 0, .opcode = TP_SEND}), 0);
	assert_int_equal(post(0, wr), 0);
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 2, .opcode = TP_SEND}), 0);
	pass(SOON);
	assert_int_equal(tp_qp_error(side[0].qp), -ECONNRESET);
	assert_int_equal(tp_qp_error(side[1].qp), -ECONNRESET);
	assert_true(side[0].events & TP_EV_FAILED);
	assert_true(side[1].events & TP_EV_FAILED);
	completed(side[0].scq, 1, status, wr.opcode);
	completed(side[0].scq, 2, TP_WC_FLUSHED, TP_SEND);
	completed(side[1].rcq, 0, TP_WC_SUCCESS, TP_RECV);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), -ECONNRESET);
}

static void flushed_receives(uint64_t from)
{
	for (uint64_t k = from; k < 3; k++)
		completed(side[1].rcq, k, TP_WC_FLUSHED, TP_RECV);
	nothing_completed();
}

static void refused__by_rights(void **state)
{
	static const enum tp_opcode ops[] = {TP_WRITE, TP_READ, TP_FETCH_ADD, TP_COMPARE_SWAP, TP_WRITE_IMM};
	static const unsigned rights[] = {TP_LOCAL_WRITE | TP_REMOTE_READ | TP_REMOTE_ATOMIC,
		TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_ATOMIC,
		TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ,
		TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ,
		TP_LOCAL_WRITE | TP_REMOTE_READ | TP_REMOTE_ATOMIC};

	for (unsigned k = 0; k < 5; k++) {
		_Alignas(8) uint8_t mem[16] = {1, 2, 3};
		struct tp_mr *mr;

		if (k)
			setup(state);
		assert_int_equal(tp_mr_register(side[1].pd, mem, sizeof mem, rights[k], &mr), 0);
		refused((struct tp_send_wr){.opcode = ops[k], .rkey = tp_mr_rkey(mr)}, TP_WC_REMOTE_ACCESS);
		flushed_receives(1);
		assert_memory_equal(mem, ((uint8_t[16]){1, 2, 3}), 16);
		tp_mr_deregister(mr);
		if (k < 4)
			teardown(state);
	}
}

static void refused__by_bounds(void **state)
{
	static const enum tp_opcode ops[] = {TP_WRITE, TP_READ, TP_FETCH_ADD};
	static const uint64_t offsets[] = {SIZE - 7, SIZE, UINT64_MAX, UINT64_MAX - 7};

	for (unsigned k = 0; k < 12; k++) {
		if (k)
			setup(state);
		refused((struct tp_send_wr){.opcode = ops[k % 3],
				.rkey = tp_mr_rkey(side[1].mr),
				.remote_offset = offsets[k / 3]},
			TP_WC_REMOTE_ACCESS);
		flushed_receives(1);
		if (k < 11)
			teardown(state);
	}
}

static void refused__by_key(void **state)
{
	for (unsigned k = 0; k < 4; k++) {
		struct tp_mr *mr = NULL;
		struct tp_pd *pd = NULL;
		static uint8_t mem[64];
		uint64_t rkey;

		if (k)
			setup(state);
		rkey = tp_mr_rkey(side[1].mr);
		if (k == 0) {
			rkey ^= 1ull << 40; /* guessed */
		} else if (k == 1) {
			rkey |= TP_MAX_REGIONS - 1; /* no such index */
		} else { /* another domain's; one that is no more, and whose index is another's */
			assert_int_equal(tp_pd_create(side[1].host->tp, &pd), 0);
			assert_int_equal(tp_mr_register(k == 2 ? pd : side[1].pd, mem, sizeof mem,
						 TP_LOCAL_WRITE | TP_REMOTE_WRITE, &mr),
				0);
			rkey = tp_mr_rkey(mr);
		}
		for (unsigned i = 0; k == 3 && i < 200; i++) {
			tp_mr_deregister(mr);
			assert_int_equal(tp_mr_register(side[1].pd, mem, sizeof mem,
						 TP_LOCAL_WRITE | TP_REMOTE_WRITE, &mr),
				0);
			assert_true(tp_mr_rkey(mr) != rkey);
		}
		refused((struct tp_send_wr){.opcode = TP_WRITE, .rkey = rkey}, TP_WC_REMOTE_ACCESS);
		flushed_receives(1);
		if (mr)
			tp_mr_deregister(mr);
		if (pd)
			assert_int_equal(tp_pd_destroy(pd), 0);
		if (k < 3)
			teardown(state);
	}
}

static void refused__longer_than_the_receive(void **state)
{
	struct tp_sge sg = piece(0, 0, 9);

	refused((struct tp_send_wr){.opcode = TP_SEND, .sg = &sg, .n_sg = 1}, TP_WC_REMOTE_INVALID);
	completed(side[1].rcq, 1, TP_WC_LENGTH, TP_RECV);
	flushed_receives(2);
}

static void refused__not_aligned(void **state)
{
	refused(
		(struct tp_send_wr){
			.opcode = TP_FETCH_ADD, .rkey = tp_mr_rkey(side[1].mr), .remote_offset = 12},
		TP_WC_REMOTE_INVALID);
	flushed_receives(1);
}

/* The answer to a READ is lost when a WRITE behind it is refused: nothing between the two succeeds any more.
 */
static void refused__behind_a_read(void **state)
{
	struct tp_sge far = piece(0, 0, 60000), near = piece(0, 0, 8);

	sim.links[1][0].mtu = 200;
	receive(1, 0, 0, 8);
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 1,
					 .opcode = TP_READ,
					 SIGNALED,
					 .sg = &far,
					 .n_sg = 1,
					 .rkey = tp_mr_rkey(side[1].mr)}),
		0);
	assert_int_equal(
		post(0, (struct tp_send_wr){.wr_id = 2, .opcode = TP_SEND, SIGNALED, .sg = &near, .n_sg = 1}),
		0);
	assert_int_equal(post(0,
				 (struct tp_send_wr){
					 .wr_id = 3, .opcode = TP_WRITE, .sg = &near, .n_sg = 1, .rkey = 42}),
		0);
	pass(SOON);
	completed(side[1].rcq, 0, TP_WC_SUCCESS, TP_RECV);
	completed(side[0].scq, 1, TP_WC_FLUSHED, TP_READ);
	completed(side[0].scq, 2, TP_WC_FLUSHED, TP_SEND);
	completed(side[0].scq, 3, TP_WC_REMOTE_ACCESS, TP_WRITE);
	nothing_completed();
}

static void refused_slowly(void)
{
	struct tp_sge sg = piece(0, 0, 8);
	struct tp_wc wc;

	assert_int_equal(post(0,
				 (struct tp_send_wr){
					 .wr_id = 1, .opcode = TP_WRITE, .sg = &sg, .n_sg = 1, .rkey = 42}),
		0);
	pass(4 * SD_S);
	wc = completed(side[0].scq, 1, TP_WC_REMOTE_ACCESS, TP_WRITE);
	assert_ptr_equal(wc.qp, side[0].qp);
}

/* The peer's reason arrives, whatever the network loses. */
static void refused__over_a_bad_link(void **state)
{
	for (unsigned k = 0; k < 20; k++) {
		if (k)
			setup(state);
		sim.links[1][0].loss = sim.links[0][1].loss = 0.4;
		refused_slowly();
		if (k < 19)
			teardown(state);
	}
}

/* --- regions that go ------------------------------------------------------------------------------------ */

static void deregister__under_requests(void **state)
{
	struct tp_sge sg;
	struct tp_mr *mr;
	static uint8_t mem[20000];

	assert_int_equal(tp_mr_register(side[0].pd, mem, sizeof mem, TP_LOCAL_WRITE, &mr), 0);
	sg = (struct tp_sge){mr, 0, sizeof mem};
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 1, .opcode = TP_SEND}), 0);
	assert_int_equal(
		post(0, (struct tp_send_wr){.wr_id = 2, .opcode = TP_SEND, .sg = &sg, .n_sg = 1}), 0);
	tp_mr_deregister(mr);
	completed(side[0].scq, 1, TP_WC_FLUSHED, TP_SEND);
	completed(side[0].scq, 2, TP_WC_PROTECTION, TP_SEND);
	assert_int_equal(tp_qp_error(side[0].qp), -ECONNABORTED);
	pass(SOON);
	assert_int_equal(tp_qp_error(side[1].qp), -ECONNRESET);
}

static void deregister__under_a_receive(void **state)
{
	receive(1, 1, 0, 100);
	tp_mr_deregister(side[1].mr);
	side[1].mr = NULL;
	completed(side[1].rcq, 1, TP_WC_PROTECTION, TP_RECV);
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 3, .opcode = TP_SEND}), 0);
	pass(SOON);
	completed(side[0].scq, 3, TP_WC_REMOTE_FAILED, TP_SEND);
}

/* What it is asked for has not left yet. */
static void deregister__under_a_read_of_the_peer(void **state)
{
	struct tp_sge to = piece(0, 0, SIZE);
	struct tp_mr *mr;
	static uint8_t mem[SIZE];

	assert_int_equal(tp_mr_register(side[1].pd, mem, sizeof mem, TP_REMOTE_READ, &mr), 0);
	assert_int_equal(
		post(0,
			(struct tp_send_wr){
				.wr_id = 4, .opcode = TP_READ, .sg = &to, .n_sg = 1, .rkey = tp_mr_rkey(mr)}),
		0);
	side[1].host->burst = 1;
	pass(30 * SD_US);
	tp_mr_deregister(mr);
	assert_int_equal(tp_qp_error(side[1].qp), -ECONNABORTED);
	pass(SOON);
	completed(side[0].scq, 4, TP_WC_REMOTE_FAILED, TP_READ);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void life__posted_before_it_is_open(void **state)
{
	struct tp_sge sg = piece(0, 0, 3000);

	receive(1, 1, 10, 5000);
	assert_int_equal(
		post(0, (struct tp_send_wr){.wr_id = 2, .opcode = TP_SEND, SIGNALED, .sg = &sg, .n_sg = 1}),
		0);
	connect_them();
	completed(side[1].rcq, 1, TP_WC_SUCCESS, TP_RECV);
	completed(side[0].scq, 2, TP_WC_SUCCESS, TP_SEND);
	same(0, 0, 1, 10, 3000);
}

static void life__nobody_listens(void **state)
{
	struct tp_listener *stream;
	struct tp_path path;

	/* A stream's listener is not one of queue pairs. */
	assert_int_equal(
		tp_listen(side[1].host->tp, &(struct sd_addr){.family = 4, .port = PORT}, 4, NULL, &stream),
		0);
	receive(0, 1, 0, 10);
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 2, .opcode = TP_SEND}), 0);
	sim_path(side[0].host, side[1].host, 4711, PORT, &path);
	assert_int_equal(tp_qp_connect(side[0].qp, sim.now, &path), 0);
	pass(SOON);
	assert_int_equal(tp_qp_error(side[0].qp), -ECONNREFUSED);
	completed(side[0].scq, 2, TP_WC_REMOTE_FAILED, TP_SEND);
	completed(side[0].rcq, 1, TP_WC_FLUSHED, TP_RECV);
}

static void life__disconnect(void **state)
{
	receive(1, 1, 0, 0);
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 2, .opcode = TP_SEND, SIGNALED}), 0);
	tp_qp_disconnect(side[0].qp);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND}), -EPIPE);
	sim_wake(side[0].host);
	pass(SOON);
	completed(side[1].rcq, 1, TP_WC_SUCCESS, TP_RECV);
	completed(side[0].scq, 2, TP_WC_SUCCESS, TP_SEND);
	assert_true(side[1].events & TP_EV_READABLE);
	assert_true(side[0].events & TP_EV_DRAINED);
	/* The other direction goes on. */
	receive(0, 3, 0, 0);
	assert_int_equal(post(1, (struct tp_send_wr){.wr_id = 4, .opcode = TP_SEND, SIGNALED}), 0);
	tp_qp_disconnect(side[1].qp);
	pass(SOON);
	completed(side[0].rcq, 3, TP_WC_SUCCESS, TP_RECV);
	completed(side[1].scq, 4, TP_WC_SUCCESS, TP_SEND);
	assert_true(side[0].events & TP_EV_READABLE);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tp_qp_error(side[i].qp), 0);
		tp_qp_destroy(side[i].qp, sim.now);
		side[i].qp = NULL;
		pass(SOON);
	}
	assert_int_equal(
		tp_stats(side[0].host->tp)->conns_failed + tp_stats(side[1].host->tp)->conns_failed, 0);
}

/* The one who went first is gone when the other repeats its FIN, and says that it has ended in good order. */
static void life__the_last_acknowledgement_is_lost(void **state)
{
	tp_qp_disconnect(side[0].qp);
	pass(SOON);
	sim.links[0][1].down = true;
	tp_qp_disconnect(side[1].qp);
	pass(SD_MS / 2);
	assert_true(side[0].events & TP_EV_READABLE);
	tp_qp_destroy(side[0].qp, sim.now);
	side[0].qp = NULL;
	pass(SD_MS / 2);
	assert_false(side[1].events & TP_EV_DRAINED);
	sim.links[0][1].down = false;
	pass(10 * SD_S);
	assert_int_equal(tp_qp_error(side[1].qp), 0);
	assert_true(side[1].events & TP_EV_DRAINED);
}

/* Nobody asks whether somebody lives from whom nothing more is expected. */
static void life__ended_and_kept(void **state)
{
	tp_qp_disconnect(side[0].qp);
	tp_qp_disconnect(side[1].qp);
	pass(SOON);
	tp_qp_destroy(side[0].qp, sim.now);
	side[0].qp = NULL;
	pass(20 * SD_S);
	assert_int_equal(tp_qp_error(side[1].qp), 0);
}

/* Whoever has nothing to say may end before the other has accepted, however late that is. */
static void life__ended_before_it_is_accepted(void **state)
{
	struct tp_path path;

	assert_int_equal(tp_qp_listen(side[1].host->tp, &(struct sd_addr){.family = 4, .port = PORT}, 4,
				 attr.max_peer_reads, NULL, &listener),
		0);
	sim_path(side[0].host, side[1].host, 4711, PORT, &path);
	assert_int_equal(tp_qp_connect(side[0].qp, sim.now, &path), 0);
	tp_qp_disconnect(side[0].qp);
	pass(10 * SD_S);
	assert_int_equal(tp_qp_error(side[0].qp), 0);
	assert_int_equal(tp_qp_accept(side[1].qp, listener), 0);
	assert_true(side[1].events & TP_EV_READABLE);
	receive(0, 1, 0, 0);
	assert_int_equal(post(1, (struct tp_send_wr){.wr_id = 2, .opcode = TP_SEND, SIGNALED}), 0);
	tp_qp_disconnect(side[1].qp);
	pass(SOON);
	completed(side[0].rcq, 1, TP_WC_SUCCESS, TP_RECV);
	completed(side[1].scq, 2, TP_WC_SUCCESS, TP_SEND);
	assert_true(side[0].events & side[1].events & TP_EV_DRAINED);
}

static void life__destroyed_with_completions(void **state)
{
	receive(1, 1, 0, 0);
	receive(1, 2, 0, 0);
	assert_int_equal(post(0, (struct tp_send_wr){.opcode = TP_SEND, SIGNALED}), 0);
	pass(SOON);
	tp_qp_destroy(side[0].qp, sim.now);
	tp_qp_destroy(side[1].qp, sim.now);
	side[0].qp = side[1].qp = NULL;
	nothing_completed();
}

static void life__the_peer_is_silent(void **state)
{
	assert_int_equal(post(0, (struct tp_send_wr){.wr_id = 1, .opcode = TP_SEND}), 0);
	sim.hosts[1].asleep = SIM_NEVER;
	pass(30 * SD_S);
	completed(side[0].scq, 1, TP_WC_TIMEOUT, TP_SEND);
	assert_int_equal(tp_qp_error(side[0].qp), -ETIMEDOUT);
	sim.hosts[1].asleep = 0;
}

int main(void)
{
#define CASE(f)	  cmocka_unit_test_setup_teardown(f, setup, teardown)
#define CLOSED(f) cmocka_unit_test_setup_teardown(f, open_hosts, teardown)
	const struct CMUnitTest tests[] = {
		CASE(send__arrives_in_the_receive),
		CASE(send__of_pieces_into_pieces),
		CASE(send__inline_and_immediate),
		CASE(send__waits_for_a_receive),
		CASE(write__lands_where_it_says),
		CASE(write__with_immediate),
		CASE(read__brings_it),
		CASE(read__many_among_others),
		CASE(atomic__each),
		CASE(fence),
		CASE(queue__full),
		CASE(queue__of_completions),
		CASE(queue__is_told_of),
		CASE(post__what_makes_no_sense),
		CASE(refused__by_rights),
		CASE(refused__by_bounds),
		CASE(refused__by_key),
		CASE(refused__longer_than_the_receive),
		CASE(refused__not_aligned),
		CASE(refused__behind_a_read),
		CASE(refused__over_a_bad_link),
		CASE(deregister__under_requests),
		CASE(deregister__under_a_receive),
		CASE(deregister__under_a_read_of_the_peer),
		CLOSED(life__posted_before_it_is_open),
		CLOSED(life__nobody_listens),
		CASE(life__disconnect),
		CASE(life__the_last_acknowledgement_is_lost),
		CASE(life__ended_and_kept),
		CLOSED(life__ended_before_it_is_accepted),
		CASE(life__destroyed_with_completions),
		CASE(life__the_peer_is_silent),
	};

	alarm(100); /* a hang is a failure too */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

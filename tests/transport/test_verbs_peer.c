/* SPDX-License-Identifier: BSD-3-Clause */
/* A queue pair whose peer is made of packets: numbers that wrap, what comes late, and what no queue pair
 * would say. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "puppet.h"
#include "transport/qp.h"

#define SIZE  65536u
#define READS 3 /* not a power of two */
#define ALL   (TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ | TP_REMOTE_ATOMIC)

static struct puppet p;
static struct peer q;
static struct tp_pd *pd;
static struct tp_mr *mr;
static struct tp_cq *scq, *rcq;
static struct tp_qp *qp;
static _Alignas(8) uint8_t mem[SIZE];

static void ready(uint16_t credit)
{
	q.credit = credit;
	peer_ack(&p, &q, (uint32_t)qp->conn->snd_nxt, NULL, 0, WIRE_F_READY);
}

static int open_pair(void **state)
{
	const struct sd_addr any = {.family = 4, .port = PUPPET_PORT};
	struct tp_qp_attr attr = {.size = sizeof attr,
		.max_send_wr = 16,
		.max_recv_wr = 16,
		.max_sge = 1,
		.max_reads = READS,
		.max_peer_reads = READS,
		.signal_all = true};
	uint8_t buf[WIRE_CONTROL_MAX];

	puppet_init(&p);
	puppet_start(&p);
	assert_int_equal(tp_qp_listen(p.tp, &any, 4, READS, NULL, &p.listener), 0);
	assert_int_equal(tp_pd_create(p.tp, &pd), 0);
	memset(mem, 0, sizeof mem);
	assert_int_equal(tp_mr_register(pd, mem, SIZE, ALL, &mr), 0);
	assert_int_equal(tp_cq_create(p.tp, 32, NULL, &scq), 0);
	assert_int_equal(tp_cq_create(p.tp, 32, NULL, &rcq), 0);
	attr.pd = pd;
	attr.send_cq = scq;
	attr.recv_cq = rcq;
	assert_int_equal(tp_qp_create(p.tp, &attr, &qp), 0);
	peer_init(&p, &q, 1);
	q.messages = true;
	q.reads = READS;
	puppet_input(&p, buf, peer_put_init(&p, &q, NULL, buf));
	assert_true(puppet_output(&p) && peer_learn(&p, &q));
	peer_ack(&p, &q, q.ack, NULL, 0, 0);
	assert_int_equal(tp_qp_accept(qp, p.listener), 0);
	ready(0);
	puppet_flush(&p);
	return 0;
}

static int close_pair(void **state)
{
	tp_qp_destroy(qp, p.now);
	assert_int_equal(mr->uses, 0);
	tp_mr_deregister(mr);
	assert_int_equal(tp_cq_destroy(scq), 0);
	assert_int_equal(tp_cq_destroy(rcq), 0);
	assert_int_equal(tp_pd_destroy(pd), 0);
	assert_true(puppet_stop(&p));
	return 0;
}

static void post(uint64_t id, enum tp_opcode opcode, uint64_t offset, uint32_t len)
{
	const struct tp_sge sg = {mr, offset, len};
	const struct tp_send_wr wr = {.wr_id = id, .opcode = opcode, .sg = &sg, .n_sg = 1, .rkey = 1};

	assert_int_equal(tp_post_send(qp, &wr), 0);
}

static void say(const struct wire_message *m, const void *data, size_t len, unsigned flags)
{
	q.ack = (uint32_t)qp->conn->snd_nxt;
	peer_message(&p, &q, (uint32_t)qp->conn->rcv_nxt, m, data, len, flags | WIRE_F_READY);
}

static void completed(uint64_t id, enum tp_wc_status status)
{
	struct tp_wc wc;

	assert_int_equal(tp_cq_poll(scq, &wc, 1), 1);
	assert_int_equal(wc.wr_id, id);
	assert_int_equal(wc.status, status);
}

static void expect_reset(enum wire_reset reason)
{
	struct wire_reset_packet r;

	assert_int_equal(tp_qp_error(qp), -ECONNRESET);
	assert_true(puppet_flush(&p) > 0);
	assert_true(tp_wire_get_reset(p.out, p.out_len, &r));
	assert_int_equal(r.reason, reason);
}

/* --- numbers --- */

/* As after 2^32 of them. */
static void wrap_soon(void)
{
	qp->in_next = qp->in_send = qp->in_done = UINT32_MAX - 1;
	qp->rsn_begun = qp->rsn_done = UINT32_MAX - 1;
}

static void peers_requests__wrap(void **state)
{
	struct wire_message m = {.op = WIRE_OP_ADD, .rkey = tp_mr_rkey(mr), .operand = 1};

	wrap_soon();
	for (unsigned i = 0; i < READS; i++) {
		m.number = UINT32_MAX - 1 + i;
		say(&m, NULL, 0, 0);
	}
	for (unsigned i = 0; i < READS; i++) {
		assert_true(puppet_output(&p));
		assert_int_equal(p.w.msg.number, UINT32_MAX - 1 + i);
		assert_int_equal(p.w.payload_len, 8);
		assert_int_equal(be64_get(p.w.payload), i);
	}
}

static void own_requests__wrap(void **state)
{
	char text[8];

	wrap_soon();
	for (unsigned i = 0; i < READS; i++)
		post(i, TP_READ, 8 * i, 8);
	assert_true(puppet_flush(&p) >= READS);
	for (unsigned i = 0; i < READS; i++) {
		const struct wire_message m = {
			.op = WIRE_OP_READ_RESP, .number = UINT32_MAX - 1 + i, .last = true};

		memset(text, 'a' + (int)i, sizeof text);
		say(&m, text, sizeof text, 0);
	}
	for (unsigned i = 0; i < READS; i++)
		completed(i, TP_WC_SUCCESS);
	assert_memory_equal(mem, "aaaaaaaabbbbbbbbcccccccc", 24);
}

/* A whole queue of receives at once is heard of. */
static void credit__of_a_full_queue(void **state)
{
	post(1, TP_SEND, 0, 4);
	assert_int_equal(puppet_flush(&p), 0);
	ready(TP_MAX_WR);
	assert_true(puppet_output(&p));
	assert_int_equal(p.w.msg.op, WIRE_OP_SEND);
}

/* What has been overtaken by 32768 messages must not look like news. */
static void credit__that_comes_late(void **state)
{
	const uint32_t early = (uint32_t)qp->conn->snd_una;
	const uint32_t credit = qp->peer_credit = 50000;

	post(1, TP_WRITE, 0, 4);
	assert_true(puppet_flush(&p) > 0);
	ready((uint16_t)credit);
	q.credit = 1;
	peer_ack(&p, &q, early, NULL, 0, WIRE_F_READY);
	assert_int_equal(qp->peer_credit, credit);
}

/* --- what no queue pair would say --- */

static void atomic__answered_in_pieces(void **state)
{
	struct wire_message m = {.op = WIRE_OP_READ_RESP};

	post(1, TP_FETCH_ADD, 0, 8);
	assert_true(puppet_flush(&p) > 0);
	say(&m, "1234", 4, 0);
	expect_reset(WIRE_RESET_PROTOCOL);
	completed(1, TP_WC_REMOTE_FAILED);
}

/* Both have disconnected, and the peer has asked for so many bytes before. */
static void asked_and_over(uint32_t len)
{
	const struct wire_message read = {.op = WIRE_OP_READ_REQ, .rkey = tp_mr_rkey(mr), .len = len};
	const struct wire_message fin = {.op = WIRE_OP_NONE};

	tp_qp_disconnect(qp);
	assert_true(puppet_flush(&p) > 0);
	say(&read, NULL, 0, 0);
	say(&fin, NULL, 0, WIRE_F_FIN);
	assert_true(puppet_output(&p));
	p.qp_events = 0;
	peer_reset(&p, &q, WIRE_RESET_FINISHED, q.token);
	assert_int_equal(mr->uses, 0);
	assert_int_equal(puppet_flush(&p), 0);
}

static void finished__the_answer_had_arrived(void **state)
{
	asked_and_over(1000);
	assert_int_equal(tp_qp_error(qp), 0);
	assert_int_equal(p.qp_events, TP_EV_DRAINED);
}

/* It cannot have: most of it has not been sent, and must not be after this. */
static void finished__the_answer_had_not(void **state)
{
	asked_and_over(SIZE);
	assert_int_equal(tp_qp_error(qp), -ECONNRESET);
}

/* A READ that was not answered is not what the peer has refused. */
static void refusal__is_told_to_its_request(void **state)
{
	struct wire_reset_packet r = {.reason = WIRE_RESET_ACCESS, .src_cid = q.cid};
	uint8_t buf[WIRE_CONTROL_MAX];

	post(1, TP_READ, 0, 8);
	post(2, TP_WRITE, 0, 8);
	post(3, TP_WRITE, 0, 8);
	r.psn = (uint32_t)qp->conn->snd_nxt + 1;
	assert_int_equal(puppet_flush(&p), 3);
	memcpy(r.token, q.token, sizeof r.token);
	puppet_input(&p, buf, tp_wire_put_reset(buf, &r));
	completed(1, TP_WC_FLUSHED);
	completed(2, TP_WC_REMOTE_ACCESS);
	completed(3, TP_WC_FLUSHED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(peers_requests__wrap, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(own_requests__wrap, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(credit__of_a_full_queue, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(credit__that_comes_late, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(atomic__answered_in_pieces, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(finished__the_answer_had_arrived, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(finished__the_answer_had_not, open_pair, close_pair),
		cmocka_unit_test_setup_teardown(refusal__is_told_to_its_request, open_pair, close_pair),
	};

	return cmocka_run_group_tests_name("verbs_peer", tests, NULL, NULL);
}

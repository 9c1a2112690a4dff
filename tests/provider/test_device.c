/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices: verbs between two processes over a real port. What is written, read and sent arrives; who looks
 * for nobody is told; sleep ends with work; memory that is deregistered under traffic can be unmapped.
 *
 * test_device udp|vhost|virtio (the near end's port)
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "provider/device.h"

enum { REGION = 1 << 20, PORT = 7, DEPTH = 64, PATIENCE = 5 /* s */ };

/* What the far process shows. */
struct shared {
	_Atomic uint64_t rkey;
	_Atomic bool stop;
	uint8_t memory[REGION];
};

/* One process's side. */
struct end {
	struct pv_device *d;
	struct tp_pd *pd;
	struct tp_mr *mr;
	struct tp_cq *scq, *rcq;
	struct tp_qp *qp;
	unsigned events;
	uint8_t *memory;
};

static const char *kind;
static char dir[] = "/tmp/sandirect-device-XXXXXX";
static struct shared *shared;
static struct end end;
static pid_t far_pid;

static struct sd_addr address(unsigned which, uint16_t port)
{
	/* The udp port's are the kernel's. */
	return (struct sd_addr){.family = 4, .port = port, .ip = {127, 0, 99, (uint8_t)(which + 1)}};
}

static void on_qp_event(void *ctx, struct tp_qp *qp, void *user, unsigned events)
{
	((struct end *)ctx)->events |= events;
}

static void name_device(char *out, size_t len, unsigned which)
{
	if (!strcmp(kind, "udp"))
		snprintf(out, len, "udp");
	else if (!strcmp(kind, "vhost") == !which)
		snprintf(out, len, "net_vhost%u,iface=%s/s,client=1", which, dir);
	else
		snprintf(out, len, "net_virtio_user%u,path=%s/s,server=1,queue_size=1024", which, dir);
}

static int end_open(struct end *e, unsigned which)
{
	struct sd_addr local = address(which, 0);
	char device[256], err[256] = "";
	struct pv_device_config cfg = {.size = sizeof cfg,
		.port = {.size = sizeof cfg.port,
			.name = "test",
			.device = device,
			.mtu = 9000,
			.own_process = true},
		.addrs = &local,
		.n_addrs = 1,
		.crc = true,
		.qp_event = on_qp_event,
		.ctx = e};
	int r;

	name_device(device, sizeof device, which);
	cfg.port.udp_bind = local;
	cfg.port.udp_bind.port = TP_UDP_PORT;
	r = pv_device_open(&cfg, &e->d, err, sizeof err);
	if (r)
		fprintf(stderr, "%s: %s\n", device, err);
	return r;
}

static int post_receive(struct end *e)
{
	const struct tp_sge piece = {.mr = e->mr, .len = 64};

	return tp_post_recv(e->qp, &(struct tp_recv_wr){.sg = &piece, .n_sg = 1});
}

static int end_begin(struct end *e, uint8_t *memory)
{
	struct tp_qp_attr attr = {.size = sizeof attr,
		.max_send_wr = DEPTH,
		.max_recv_wr = DEPTH,
		.max_inline = 64,
		.max_sge = 2,
		.max_reads = 4,
		.max_peer_reads = 4};
	int r;

	e->memory = memory;
	e->events = 0;
	if (tp_pd_create(pv_device_tp(e->d), &e->pd) ||
		pv_device_register(e->d, e->pd, memory, REGION,
			TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ, &e->mr) ||
		tp_cq_create(pv_device_tp(e->d), DEPTH, NULL, &e->scq) ||
		tp_cq_create(pv_device_tp(e->d), DEPTH, NULL, &e->rcq))
		return -ENOMEM;
	attr.pd = e->pd;
	attr.send_cq = e->scq;
	attr.recv_cq = e->rcq;
	r = tp_qp_create(pv_device_tp(e->d), &attr, &e->qp);
	for (int i = 0; i < DEPTH && !r; i++)
		r = post_receive(e);
	return r;
}

/* 0, or what is not as it should be. */
static int end_finish(struct end *e)
{
	if (e->qp)
		tp_qp_destroy(e->qp, pv_device_now(e->d));
	if (e->mr && pv_device_deregister(e->d, e->mr))
		return 1;
	e->qp = NULL;
	e->mr = NULL;
	return tp_pd_destroy(e->pd) || tp_cq_destroy(e->scq) || tp_cq_destroy(e->rcq);
}

static int send_small(struct end *e, const char *text)
{
	return tp_post_send(e->qp, &(struct tp_send_wr){.opcode = TP_SEND,
					   .flags = TP_INLINE,
					   .data = text,
					   .len = (uint32_t)strlen(text) + 1});
}

/* --- the far end: answers each message --- */

static int far_renew(struct end *e, struct tp_listener *l)
{
	int r = e->mr ? end_finish(e) : 0;

	if (!r)
		r = end_begin(e, shared->memory);
	shared->rkey = r ? 0 : tp_mr_rkey(e->mr);
	return r ? r : tp_qp_accept(e->qp, l);
}

static void far_end(void)
{
	struct sd_addr local = address(1, PORT);
	struct tp_listener *l;
	struct end e = {0};
	struct tp_wc wc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (end_open(&e, 1) || tp_qp_listen(pv_device_tp(e.d), &local, 8, 4, NULL, &l))
		_exit(1);
	while (!shared->stop) {
		pv_device_wait(e.d, 10 * SD_MS);
		if (tp_acceptable(l) && far_renew(&e, l))
			_exit(2);
		while (e.mr && tp_cq_poll(e.rcq, &wc, 1)) {
			if (wc.status == TP_WC_SUCCESS && (post_receive(&e) || send_small(&e, "heard")))
				_exit(3);
		}
	}
	pv_device_close(e.d);
	_exit(0);
}

/* --- the near end --- */

/* The far process begins before DPDK does here. */
static int open_all(void **state)
{
	far_pid = fork();
	if (!far_pid)
		far_end();
	return end_open(&end, 0);
}

static int close_all(void **state)
{
	int status;

	shared->stop = true;
	pv_device_close(end.d);
	if (waitpid(far_pid, &status, 0) != far_pid || status)
		fprintf(stderr, "the far end: %#x\n", (unsigned)status);
	return status;
}

static int setup(void **state)
{
	struct sd_addr local = address(0, 1000), peer = address(1, PORT);
	uint8_t *memory = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tp_path path;
	struct sd_rng rng;

	shared->rkey = 0;
	memset(shared->memory, 0, REGION);
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(end_begin(&end, memory), 0);
	sd_rng_seed(&rng, 1);
	for (unsigned i = 0; i < REGION; i++)
		memory[i] = (uint8_t)sd_rng_next(&rng);
	assert_int_equal(pv_device_find(end.d, &local, &peer, PATIENCE * SD_S, &path), 0);
	assert_int_equal(tp_qp_connect(end.qp, pv_device_now(end.d), &path), 0);
	while (!(end.events & TP_EV_OPEN) || !shared->rkey)
		pv_device_poll(end.d);
	return 0;
}

static int teardown(void **state)
{
	bool there = end.mr;

	assert_int_equal(end_finish(&end), 0);
	if (there)
		munmap(end.memory, REGION);
	return 0;
}

/* The next completion. */
static struct tp_wc wait_for(struct tp_cq *cq)
{
	uint64_t end_at = sd_clock_ns() + PATIENCE * SD_S;
	struct tp_wc wc;

	while (!tp_cq_poll(cq, &wc, 1)) {
		assert_true(sd_clock_ns() < end_at);
		pv_device_wait(end.d, 10 * SD_MS);
	}
	return wc;
}

static void post(enum tp_opcode op, const struct tp_sge *sg, unsigned n, uint64_t remote)
{
	assert_int_equal(tp_post_send(end.qp, &(struct tp_send_wr){.opcode = op,
						      .flags = TP_SIGNALED,
						      .sg = sg,
						      .n_sg = n,
						      .rkey = shared->rkey,
						      .remote_offset = remote}),
		0);
}

static void writes_and_reads(void **state)
{
	const uint32_t half = REGION / 2;
	const struct tp_sge pieces[2] = {{end.mr, 64, 1000}, {end.mr, 4001, half - 5000}};
	const struct tp_sge back = {end.mr, half, half - 4000};

	post(TP_WRITE, pieces, 2, 8);
	assert_int_equal(wait_for(end.scq).status, TP_WC_SUCCESS);
	assert_memory_equal(shared->memory + 8, end.memory + 64, 1000);
	assert_memory_equal(shared->memory + 1008, end.memory + 4001, half - 5000);
	post(TP_READ, &back, 1, 8);
	assert_int_equal(wait_for(end.scq).status, TP_WC_SUCCESS);
	assert_memory_equal(end.memory + half, shared->memory + 8, half - 4000);
	if (!strcmp(kind, "vhost"))
		assert_true(pv_device_sent_directly(end.d) > (half - 5000) / 9000 / 2);
	else
		assert_int_equal(pv_device_sent_directly(end.d), 0);
}

static void messages(void **state)
{
	for (int i = 0; i < 100; i++) {
		assert_int_equal(send_small(&end, "hello"), 0);
		assert_int_equal(wait_for(end.rcq).status, TP_WC_SUCCESS);
		assert_string_equal((char *)end.memory, "heard");
		assert_int_equal(post_receive(&end), 0);
	}
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * SD_S + (uint64_t)t.tv_nsec;
}

static void sleeps(void **state)
{
	uint64_t cpu, start;

	for (int i = 0; i < 5; i++) /* what the setup has left to do */
		pv_device_wait(end.d, 10 * SD_MS);
	cpu = cpu_ns();
	start = sd_clock_ns();
	while (sd_clock_ns() < start + 200 * SD_MS)
		pv_device_wait(end.d, start + 200 * SD_MS - sd_clock_ns());
	assert_true(cpu_ns() - cpu < 100 * SD_MS);
	start = sd_clock_ns();
	pv_device_wait(end.d, 0);
	assert_true(sd_clock_ns() - start < SD_S);
}

static void finds_nobody(void **state)
{
	struct sd_addr local = address(0, 1001), nobody = address(7, PORT), other = address(1, PORT + 1);
	struct tp_path path;

	assert_int_equal(pv_device_find(end.d, &local, &nobody, 50 * SD_MS, &path), -EHOSTUNREACH);
	assert_int_equal(pv_device_find(end.d, &local, &other, 50 * SD_MS, &path), -ECONNREFUSED);
}

/* The port may not touch it afterwards: whoever does is killed. */
static void deregisters_under_traffic(void **state)
{
	const struct tp_sge all = {end.mr, 0, REGION};
	uint64_t end_at = sd_clock_ns() + PATIENCE * SD_S;
	unsigned completed = 0;
	struct tp_wc wc;

	for (int i = 0; i < 8; i++)
		post(TP_WRITE, &all, 1, 0);
	for (int i = 0; i < 3; i++)
		pv_device_poll(end.d);
	while (pv_device_deregister(end.d, end.mr) == -EBUSY) {
		assert_true(sd_clock_ns() < end_at);
		pv_device_poll(end.d);
	}
	assert_int_equal(munmap(end.memory, REGION), 0);
	assert_int_equal(tp_qp_error(end.qp), -ECONNABORTED);
	while (tp_cq_poll(end.scq, &wc, 1))
		completed++;
	assert_int_equal(completed, 8);
	for (int i = 0; i < 1000; i++)
		pv_device_poll(end.d);
	end.mr = NULL;
}

static void refuses_a_bad_configuration(void **state)
{
	struct sd_addr local = address(0, 0);
	struct pv_device_config cfg = {.size = sizeof cfg, .addrs = &local};
	struct pv_device *d;
	char err[256];

	assert_int_equal(pv_device_open(&cfg, &d, err, sizeof err), -EINVAL);
	cfg.n_addrs = 1;
	cfg.port = (struct port_config){.size = sizeof cfg.port, .device = ""};
	assert_int_equal(pv_device_open(&cfg, &d, err, sizeof err), -EINVAL);
}

int main(int argc, char **argv)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(writes_and_reads),
		CASE(messages),
		CASE(sleeps),
		CASE(finds_nobody),
		CASE(deregisters_under_traffic),
		cmocka_unit_test(refuses_a_bad_configuration),
	};
	char path[64];
	int failed;

	kind = argc > 1 ? argv[1] : "udp";
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || !mkdtemp(dir))
		return 1;
	alarm(100);
	failed = cmocka_run_group_tests_name(kind, tests, open_all, close_all);
	snprintf(path, sizeof path, "%s/s", dir);
	unlink(path);
	rmdir(dir);
	return failed;
}

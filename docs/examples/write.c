/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * write: memory of one host, written to by another one without its CPU's part in a receive.
 *
 *   cc write.c -o write $(pkg-config --cflags --libs --static sandirect-verbs)
 *   ./write IP NIC            lets whoever connects write, until it disconnects
 *   ./write IP NIC PEER-IP    writes 1 GiB to PEER-IP, and says how long that took
 *
 * IP is this host's address on the SAN; NIC is "udp", or a DPDK device such as 0000:03:00.1.
 */
#include <base/addr.h>
#include <errno.h>
#include <provider/device.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PORT = 7747, REGION = 1 << 20, PIECE = 64 << 10, PIECES = 16384, DEPTH = 64 };

struct host {
	struct pv_device *device;
	struct tp_pd *pd;
	struct tp_mr *mr;
	struct tp_cq *cq;
	struct tp_qp *qp;
	unsigned char *memory;
};

static void check(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-error));
	exit(1);
}

static void host_open(struct host *h, const char *ip, const char *nic, struct sd_addr *local)
{
	struct pv_device_config cfg = {.size = sizeof cfg,
		.port = {.size = sizeof cfg.port, .name = "write", .device = nic, .own_process = true},
		.addrs = local,
		.n_addrs = 1,
		.crc = true};
	struct tp_qp_attr attr = {.size = sizeof attr, .max_send_wr = DEPTH, .max_recv_wr = 4};
	char err[256];

	if (sd_addr_parse(ip, local)) {
		fprintf(stderr, "%s is no IP address\n", ip);
		exit(1);
	}
	cfg.port.udp_bind = *local; /* of no matter to other devices */
	if (pv_device_open(&cfg, &h->device, err, sizeof err)) {
		fprintf(stderr, "%s\n", err);
		exit(1);
	}
	h->memory = calloc(1, REGION);
	check(h->memory ? tp_pd_create(pv_device_tp(h->device), &h->pd) : -ENOMEM, "protection domain");
	check(pv_device_register(
		      h->device, h->pd, h->memory, REGION, TP_LOCAL_WRITE | TP_REMOTE_WRITE, &h->mr),
		"memory region");
	check(tp_cq_create(pv_device_tp(h->device), 2 * DEPTH, NULL, &h->cq), "completion queue");
	attr.pd = h->pd;
	attr.send_cq = attr.recv_cq = h->cq;
	check(tp_qp_create(pv_device_tp(h->device), &attr, &h->qp), "queue pair");
}

/* The next completion. */
static struct tp_wc completed(struct host *h)
{
	struct tp_wc wc;

	while (!tp_cq_poll(h->cq, &wc, 1))
		pv_device_wait(h->device, 1000000000);
	if (wc.status != TP_WC_SUCCESS) {
		fprintf(stderr, "a request has failed: status %d\n", wc.status);
		exit(1);
	}
	return wc;
}

static void be_written_to(struct host *h, struct sd_addr *local)
{
	struct tp_listener *l;
	uint64_t rkey = tp_mr_rkey(h->mr);
	const struct tp_sge piece = {.mr = h->mr, .len = sizeof rkey};
	const struct tp_send_wr tell = {.opcode = TP_SEND, .flags = TP_SIGNALED, .sg = &piece, .n_sg = 1};
	uint64_t sum = 0;
	int r;

	local->port = PORT;
	check(tp_qp_listen(pv_device_tp(h->device), local, 1, 0, NULL, &l), "listen");
	while ((r = tp_qp_accept(h->qp, l)) == -EAGAIN)
		pv_device_wait(h->device, 1000000000);
	check(r, "accept");
	check(tp_post_recv(h->qp, &(struct tp_recv_wr){0}),
		"receive"); /* of no bytes: the last write takes it */
	memcpy(h->memory, &rkey, sizeof rkey);
	check(tp_post_send(h->qp, &tell), "send");
	completed(h);
	if (completed(h).opcode == TP_RECV_WRITE)
		for (unsigned i = 0; i < REGION; i++)
			sum += h->memory[i];
	printf("sum %llu\n", (unsigned long long)sum);
	tp_qp_disconnect(h->qp);
	for (unsigned i = 0; i < 100; i++)
		pv_device_wait(h->device, 1000000); /* what is said last has to get there */
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void write_to(struct host *h, const struct sd_addr *local, const char *ip)
{
	const struct tp_sge key = {.mr = h->mr, .len = sizeof(uint64_t)};
	struct tp_send_wr wr = {.opcode = TP_WRITE, .flags = TP_SIGNALED, .n_sg = 1};
	struct tp_sge piece = {.mr = h->mr, .len = PIECE};
	struct sd_addr peer;
	struct tp_path path;
	double begun;

	check(sd_addr_parse(ip, &peer), ip);
	peer.port = PORT;
	check(pv_device_find(h->device, local, &peer, 5000000000ull, &path), ip);
	check(tp_post_recv(h->qp, &(struct tp_recv_wr){.sg = &key, .n_sg = 1}), "receive");
	check(tp_qp_connect(h->qp, pv_device_now(h->device), &path), "connect");
	completed(h);
	memcpy(&wr.rkey, h->memory, sizeof wr.rkey);
	memset(h->memory, 1, REGION);
	wr.sg = &piece;
	begun = now();
	for (unsigned posted = 0, done = 0; done < PIECES;) {
		piece.offset = wr.remote_offset = posted % (REGION / PIECE) * PIECE;
		if (posted == PIECES - 1)
			wr.opcode = TP_WRITE_IMM; /* tells the other side that all is there */
		if (posted < PIECES && posted - done < DEPTH && !tp_post_send(h->qp, &wr)) {
			posted++;
			continue;
		}
		completed(h);
		done++;
	}
	printf("%.1f Gbit/s\n", 8e-9 * PIECE * PIECES / (now() - begun));
	tp_qp_disconnect(h->qp);
	for (unsigned i = 0; i < 100; i++)
		pv_device_wait(h->device, 1000000);
}

int main(int argc, char **argv)
{
	struct sd_addr local;
	struct host h;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "write IP NIC [PEER-IP]\n");
		return 2;
	}
	host_open(&h, argv[1], argv[2], &local);
	if (argc == 4)
		write_to(&h, &local, argv[3]);
	else
		be_written_to(&h, &local);
	pv_device_close(h.device);
	free(h.memory);
	return 0;
}

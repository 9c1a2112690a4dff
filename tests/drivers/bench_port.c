/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a port costs without a protocol above it: two processes, one frame back and forth, then one way as
 * fast as it goes. Frames are not filled beyond their headers.
 *
 * bench_port [-m MTU] [-t SECONDS] [-g HUGEPAGES] [-e EAL-ARGUMENTS] [-n FRAMES] [-r] NEAR-DEVICE FAR-DEVICE
 * ("%s" in them is a directory for sockets; -n: one at a time before all else; -r: no round trips)
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "probe.h"

enum {
	BURST = 32,
	SMALL = PROBE_HEADERS + PROBE_MIN,
	SAMPLES_MAX = 2000000,
	LINK_POLL = 100, /* ms */
};

enum mode { ECHO, SINK, QUIT };

struct shared {
	_Atomic int mode;
	_Atomic uint64_t frames,
		busy_ns; /* that the far end has received, and the time of its calls for them */
};

struct bench {
	struct port_config cfg;
	struct shared *shared;
	uint64_t duration;
	uint64_t link_due;
	bool rates_only;
};

static struct port *open_port(const char *name, const char *device, const struct port_config *common)
{
	struct port_config cfg = *common;
	struct port *p;
	char err[256];

	cfg.name = name;
	cfg.device = device;
	sd_addr_parse(strcmp(name, "far") ? "127.0.77.1" : "127.0.77.2", &cfg.udp_bind);
	if (port_open(&cfg, &p, err, sizeof err)) {
		fprintf(stderr, "%s\n", err);
		exit(1);
	}
	return p;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

static void poll_link(struct bench *b, struct port *p, uint64_t now)
{
	if (now < b->link_due)
		return;
	p->ops->link_poll(p);
	b->link_due = now + LINK_POLL * SD_MS;
}

/* --- the far end --- */

static void swap(uint8_t *a, uint8_t *b, size_t len)
{
	uint8_t saved[6];

	memcpy(saved, a, len);
	memcpy(a, b, len);
	memcpy(b, saved, len);
}

/* Back to where it came from; checksums stay right. */
static void turn_round(uint8_t *frame)
{
	swap(frame, frame + 6, 6);
	swap(frame + 26, frame + 30, 4);
}

static void echo(struct port *p, uint32_t caps, struct port_frame *in, unsigned n)
{
	struct port_frame out[BURST];
	unsigned got = p->ops->tx_get(p, out, n), sent;

	for (unsigned i = 0; i < got; i++) {
		memcpy(out[i].data, in[i].data, in[i].len);
		turn_round(out[i].data);
		out[i].len = in[i].len;
		out[i].flags = in[i].flags & PORT_RX_CSUM_OK && caps & PORT_CAP_TX_CSUM ? PORT_TX_CSUM : 0;
	}
	sent = p->ops->tx(p, out, got);
	p->ops->tx_put(p, out + sent, got - sent);
}

static void far_end(struct bench *b, struct port *p)
{
	struct port_frame in[BURST];
	struct port_info info;
	unsigned idle = 0;

	p->ops->info(p, &info);
	while (b->shared->mode != QUIT) {
		uint64_t start = 0;
		unsigned n;

		if (b->shared->mode == SINK)
			start = sd_clock_ns();
		n = p->ops->rx(p, in, BURST);
		if (!n) {
			if (!(++idle % 1024))
				poll_link(b, p, sd_clock_ns());
			continue;
		}
		if (b->shared->mode == ECHO)
			echo(p, info.caps, in, n);
		p->ops->rx_done(p, in, n);
		if (start)
			b->shared->busy_ns += sd_clock_ns() - start;
		b->shared->frames += n;
	}
}

/* --- the near end --- */

/* Nothing is left to the NIC, as not all drivers have a virtual one finish checksums, which the other side
 * would have to do. */
static void fill(struct port *p, struct port_frame *f, uint32_t len)
{
	struct probe_end e;
	struct probe probe = {0};

	probe_end_init(&e, p, false);
	probe.payload = len - PROBE_HEADERS;
	probe_build(&e, &probe, false, f);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Sends a copy of the frame with a number of its own and waits for that to come back; ns, or 0 when it does
 * not. */
static uint64_t round_trip(struct bench *b, struct port *p, const struct port_frame *f)
{
	static uint32_t number;
	uint64_t start = sd_clock_ns(), now;
	struct port_frame out, in;

	number++;
	if (p->ops->tx_get(p, &out, 1)) {
		memcpy(out.data, f->data, f->len);
		memcpy(out.data + PROBE_HEADERS, &number, sizeof number);
		out.len = f->len;
		out.flags = f->flags;
		if (!p->ops->tx(p, &out, 1))
			p->ops->tx_put(p, &out, 1);
	}
	do {
		bool same = false;

		if (p->ops->rx(p, &in, 1)) {
			now = sd_clock_ns();
			same = !memcmp(in.data + PROBE_HEADERS, &number, sizeof number);
			p->ops->rx_done(p, &in, 1);
			if (same)
				return now - start;
		}
		now = sd_clock_ns();
		poll_link(b, p, now);
	} while (now < start + 20 * SD_MS);
	return 0;
}

static void bench_rtt(struct bench *b, struct port *p, uint32_t len)
{
	uint32_t *samples = calloc(SAMPLES_MAX, sizeof *samples), n = 0;
	struct port_frame f;
	uint64_t end;

	b->shared->mode = ECHO;
	if (!samples || !p->ops->tx_get(p, &f, 1))
		exit(1);
	fill(p, &f, len);
	while (!round_trip(b, p, &f))
		;
	for (unsigned i = 0; i < 1000; i++)
		round_trip(b, p, &f);
	end = sd_clock_ns() + b->duration;
	while (n < SAMPLES_MAX && sd_clock_ns() < end) {
		uint64_t t = round_trip(b, p, &f);

		if (t)
			samples[n++] = (uint32_t)t;
	}
	p->ops->tx_put(p, &f, 1);
	if (!n)
		exit(1);
	qsort(samples, n, sizeof *samples, by_value);
	printf("%5u bytes: RTT p50 %u ns, p99 %u ns, least %u ns (%u)\n", len, samples[n / 2],
		samples[n - 1 - n / 100], samples[0], n);
	free(samples);
}

static void bench_rate(struct bench *b, struct port *p, uint32_t len)
{
	uint64_t start, now, frames, refused = 0;
	struct port_frame model;

	if (!p->ops->tx_get(p, &model, 1))
		exit(1);
	fill(p, &model, len);
	b->shared->mode = SINK;
	usleep(10000);
	b->shared->frames = b->shared->busy_ns = 0;
	start = now = sd_clock_ns();
	while (now < start + b->duration) {
		struct port_frame out[BURST];
		unsigned n = p->ops->tx_get(p, out, BURST), sent;

		for (unsigned i = 0; i < n; i++) {
			memcpy(out[i].data, model.data, PROBE_HEADERS);
			out[i].len = len;
			out[i].flags = model.flags;
		}
		sent = p->ops->tx(p, out, n);
		p->ops->tx_put(p, out + sent, n - sent);
		refused += sent < n;
		now = sd_clock_ns();
	}
	frames = b->shared->frames;
	p->ops->tx_put(p, &model, 1);
	printf("%5u bytes: %.2f Mpps, %.1f Gbit/s; receiver %.0f ns a frame; full %llu times\n", len,
		(double)frames * 1e3 / (double)(now - start),
		(double)frames * len * 8 / (double)(now - start),
		frames ? (double)b->shared->busy_ns / (double)frames : 0.0, (unsigned long long)refused);
}

/* Until the far end answers; then as many frames as are wanted. */
static void wait_for_link(struct bench *b, struct port *p, unsigned more)
{
	struct port_frame f;

	b->shared->mode = ECHO;
	if (!p->ops->tx_get(p, &f, 1))
		exit(1);
	fill(p, &f, SMALL);
	while (!round_trip(b, p, &f))
		;
	for (unsigned i = 0; i < more; i++)
		round_trip(b, p, &f);
	p->ops->tx_put(p, &f, 1);
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/sandirect-bench-XXXXXX", device[2][256], path[64];
	struct bench b = {.cfg = {.size = sizeof b.cfg, .mtu = 1500, .own_process = true}, .duration = SD_S};
	unsigned more = 0;
	int option;
	pid_t pid;

	while ((option = getopt(argc, argv, "m:t:g:e:n:r")) != -1) {
		if (option == 'm')
			b.cfg.mtu = (uint16_t)atoi(optarg);
		else if (option == 't')
			b.duration = (uint64_t)(atof(optarg) * SD_S);
		else if (option == 'g')
			b.cfg.hugepages = optarg;
		else if (option == 'e')
			b.cfg.eal_args = optarg;
		else if (option == 'n')
			more = (unsigned)atoi(optarg);
		else if (option == 'r')
			b.rates_only = true;
		else
			return 2;
	}
	if (getenv("SANDIRECT_LOG"))
		sd_log_open(SD_LOG_DEBUG, NULL, NULL);
	if (argc - optind != 2 || !mkdtemp(dir))
		return 2;
	for (int i = 0; i < 2; i++)
		probe_device(device[i], sizeof device[i], argv[optind + i], dir);
	b.shared = mmap(NULL, sizeof *b.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b.shared == MAP_FAILED)
		return 1;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(1);
		far_end(&b, open_port("far", device[1], &b.cfg));
		_exit(0);
	}
	pin(0);
	struct port *p = open_port("near", device[0], &b.cfg);

	wait_for_link(&b, p, more);
	if (!b.rates_only) {
		bench_rtt(&b, p, SMALL);
		bench_rtt(&b, p, b.cfg.mtu);
	}
	bench_rate(&b, p, SMALL);
	bench_rate(&b, p, b.cfg.mtu + 14u);
	b.shared->mode = QUIT;
	waitpid(pid, NULL, 0);
	port_close(p);
	snprintf(path, sizeof path, "%s/s", dir);
	unlink(path);
	rmdir(dir);
	return 0;
}

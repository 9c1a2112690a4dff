/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What verbs cost over a real port, beside raw frames on the same port: two processes, each on a CPU of its
 * own, that never sleep. Raw and verbs take turns; each line has the medians and the median of the ratios.
 *
 * verbsbench [-m MTU] [-t SECONDS] [-r ROUNDS] [-s MESSAGE] [-w WINDOW] [-n CONNECTIONS] [-g HUGEPAGES] [-c]
 * [-f]
 *            [-o ROW] [-z BYTES] [NEAR-DEVICE FAR-DEVICE]
 * "%s" in a device is a directory for sockets; -c: without the CRC trailer; -f: a fixed window; -n: nothing
 * but WRITEs over so many queue pairs, by turns with few; -w: messages under way; -o: write-lat, send-lat,
 * read-lat, send-rate, write-rate or write-bw, write-copy alone; -z: frames of that many bytes are sent
 * without a copy.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "provider/device.h"
#include "rawloop.h"

enum {
	REGION = 2 << 20,
	SPAN = 1 << 20, /* of it, that bulk goes round in */
	SMALL = 64,
	DEPTH = 1024, /* of queues, if there are few */
	FEW = 16,
	BURST = 32,
	ROUNDS_MAX = 99,
	PORT = 7,
	FIRST_PORT = 1024,
	OPENING = 64, /* connections at once */
};

enum command { IDLE, RAW_ECHO, RAW_SINK, RAW_CHECKED, WRITE_ECHO, SEND_ECHO, SERVE, QUIT };

struct shared {
	_Atomic int command, doing;
	struct raw_count raw;
	_Atomic uint64_t rkey[2], messages;
};

struct options {
	struct port_config port;
	uint64_t ns;
	unsigned rounds, message, window, connections;
	uint32_t direct_min; /* of the device */
	const char *congestion;
	const char *only; /* row; NULL: all */
	bool crc;
};

/* One process's side. */
struct end {
	const struct options *o;
	struct shared *shared;
	struct port *port;
	struct pv_device *d;
	struct tp_pd *pd;
	struct tp_mr *mr;
	struct tp_cq *scq, *rcq;
	struct tp_qp **qps;
	struct tp_listener *listener;
	unsigned n_qps, depth, opened;
	uint64_t peer_rkey;
	uint8_t *memory;
};

/* What is measured, in each round by both loops. */
struct row {
	const char *key, *what;
	double (*raw)(struct end *e), (*verbs)(struct end *e);
	double target; /* of the ratio: at most, if it is a time, at least otherwise; 0: none */
	bool is_time;
	double of_raw[ROUNDS_MAX], of_verbs[ROUNDS_MAX];
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "verbsbench: %s\n", what);
	exit(1);
}

static struct sd_addr address(unsigned end, uint16_t port)
{
	return (struct sd_addr){.family = 4, .port = port, .ip = {10, 99, 0, (uint8_t)(end + 1)}};
}

/* --- both ends --- */

static void on_qp_event(void *ctx, struct tp_qp *qp, void *user, unsigned events)
{
	struct end *e = ctx;

	e->opened += (events & TP_EV_OPEN) != 0;
	if (events & TP_EV_FAILED && e->shared->command != QUIT)
		die("a queue pair has failed");
}

static void open_end(struct end *e, unsigned which, const char *device)
{
	struct sd_addr local = address(which, 0);
	struct pv_device_config cfg = {.size = sizeof cfg,
		.addrs = &local,
		.n_addrs = 1,
		.crc = e->o->crc,
		.qp_event = on_qp_event,
		.congestion = e->o->congestion,
		.direct_min = e->o->direct_min,
		.dead_timeout_ns = 60 * SD_S, /* nobody polls it in raw loops */
		.window_packets = e->o->connections > FEW ? 64 : 0,
		.ctx = e};
	struct port_config pc = e->o->port;
	char err[256];

	pc.ext_tx = true;
	pc.device = device;
	pc.name = which ? "far" : "near";
	if (port_open(&pc, &e->port, err, sizeof err))
		die(err);
	cfg.opened = e->port;
	if (pv_device_open(&cfg, &e->d, err, sizeof err))
		die(err);
	e->memory = aligned_alloc(4096, REGION);
	e->qps = calloc(e->o->connections, sizeof(struct tp_qp *));
	e->depth = e->o->connections > FEW ? 8 : DEPTH;
	if (!e->memory || !e->qps)
		die("out of memory");
	memset(e->memory, 1, REGION);
	if (tp_pd_create(pv_device_tp(e->d), &e->pd) ||
		pv_device_register(e->d, e->pd, e->memory, REGION,
			TP_LOCAL_WRITE | TP_REMOTE_WRITE | TP_REMOTE_READ, &e->mr) ||
		tp_cq_create(pv_device_tp(e->d), 1 << 18, NULL, &e->scq) ||
		tp_cq_create(pv_device_tp(e->d), 1 << 18, NULL, &e->rcq))
		die("out of memory");
	e->shared->rkey[which] = tp_mr_rkey(e->mr);
}

static void post_receive(struct end *e, struct tp_qp *qp)
{
	const struct tp_sge piece = {.mr = e->mr, .offset = SPAN, .len = SMALL};

	if (tp_post_recv(qp, &(struct tp_recv_wr){.sg = &piece, .n_sg = 1}))
		die("tp_post_recv");
}

static struct tp_qp *make_qp(struct end *e)
{
	struct tp_qp_attr attr = {.size = sizeof attr,
		.pd = e->pd,
		.send_cq = e->scq,
		.recv_cq = e->rcq,
		.max_send_wr = e->depth,
		.max_recv_wr = e->depth,
		.max_inline = SMALL,
		.max_reads = 16,
		.max_peer_reads = 16};
	struct tp_qp *qp;

	if (tp_qp_create(pv_device_tp(e->d), &attr, &qp))
		die("tp_qp_create");
	for (unsigned i = 0; i < e->depth; i++)
		post_receive(e, qp);
	return qp;
}

/* Takes completions of what has arrived; how many. */
static unsigned take_arrived(struct end *e)
{
	struct tp_wc wc[BURST];
	unsigned n = tp_cq_poll(e->rcq, wc, BURST);

	for (unsigned i = 0; i < n; i++)
		post_receive(e, wc[i].qp);
	return n;
}

/* The last eight bytes of what is written back and forth. */
static volatile uint64_t *slot(const struct end *e)
{
	return (volatile uint64_t *)(void *)(e->memory + SPAN + SMALL - 8);
}

static void post_small(struct end *e, enum tp_opcode op, uint64_t number)
{
	uint64_t bytes[SMALL / 8] = {[SMALL / 8 - 1] = number};
	const struct tp_send_wr wr = {.opcode = op,
		.flags = TP_INLINE,
		.data = bytes,
		.len = sizeof bytes,
		.rkey = e->peer_rkey,
		.remote_offset = SPAN};

	if (tp_post_send(e->qps[0], &wr))
		die("tp_post_send");
	pv_device_flush(e->d);
}

/* --- the far end --- */

static bool goes_on(const struct end *e, int mine)
{
	return atomic_load_explicit(&e->shared->command, memory_order_relaxed) == mine;
}

static void accept_all(struct end *e)
{
	while (e->n_qps < e->o->connections && tp_acceptable(e->listener)) {
		struct tp_qp *qp = make_qp(e);

		if (tp_qp_accept(qp, e->listener))
			die("tp_qp_accept");
		e->qps[e->n_qps++] = qp;
	}
}

static void write_echo(struct end *e)
{
	uint64_t last = *slot(e);

	while (goes_on(e, WRITE_ECHO)) {
		pv_device_poll(e->d);
		if (*slot(e) != last)
			post_small(e, TP_WRITE, last = *slot(e));
	}
}

static void send_echo(struct end *e)
{
	while (goes_on(e, SEND_ECHO)) {
		pv_device_poll(e->d);
		if (take_arrived(e))
			post_small(e, TP_SEND, 0);
	}
}

static void serve(struct end *e, int mine)
{
	uint64_t messages = 0;

	while (goes_on(e, mine)) {
		pv_device_poll(e->d);
		if (e->n_qps < e->o->connections)
			accept_all(e);
		messages += take_arrived(e);
		atomic_store_explicit(&e->shared->messages, messages, memory_order_relaxed);
	}
}

static void far_end(struct end *e)
{
	struct sd_addr local = address(1, PORT);
	int command;

	if (tp_qp_listen(pv_device_tp(e->d), &local, 65536, 16, NULL, &e->listener))
		die("tp_qp_listen");
	e->shared->doing = IDLE;
	while ((command = e->shared->command) != QUIT) {
		e->shared->doing = command;
		e->peer_rkey = e->shared->rkey[0];
		if (command == RAW_ECHO)
			raw_echo(e->port, &e->shared->command);
		else if (command == RAW_SINK || command == RAW_CHECKED)
			raw_sink(e->port, command == RAW_CHECKED, e->memory, SPAN, &e->shared->raw,
				&e->shared->command);
		else if (command == WRITE_ECHO)
			write_echo(e);
		else if (command == SEND_ECHO)
			send_echo(e);
		else
			serve(e, command);
	}
}

/* --- the near end --- */

/* The far end goes over to something else, or begins anew. */
static void tell(struct end *e, int command)
{
	uint64_t end = sd_clock_ns() + 2 * SD_MS;

	if (e->shared->doing == command && command != IDLE)
		tell(e, IDLE);
	e->shared->command = command;
	while (e->shared->doing != command || sd_clock_ns() < end)
		pv_device_poll(e->d);
}

static void connect_all(struct end *e)
{
	struct sd_addr local = address(0, FIRST_PORT), peer = address(1, PORT);
	struct tp_path path;

	tell(e, SERVE);
	if (pv_device_find(e->d, &local, &peer, 5 * SD_S, &path))
		die("the far end is not there");
	while (e->n_qps < e->o->connections) {
		struct tp_qp *qp = make_qp(e);

		path.local.port = (uint16_t)(FIRST_PORT + e->n_qps);
		if (tp_qp_connect(qp, pv_device_now(e->d), &path))
			die("tp_qp_connect");
		e->qps[e->n_qps++] = qp;
		while (e->n_qps - e->opened >= (e->n_qps < e->o->connections ? OPENING : 1))
			pv_device_poll(e->d);
	}
	e->peer_rkey = e->shared->rkey[1];
}

static double raw_latency(struct end *e)
{
	struct histogram *h = calloc(1, sizeof *h);
	double p50;

	tell(e, RAW_ECHO);
	raw_ping(e->port, e->o->ns, h);
	p50 = (double)histogram_quantile(h, 0.5);
	free(h);
	return p50;
}

static void write_once(struct end *e)
{
	uint64_t number = *slot(e) + 1;

	post_small(e, TP_WRITE, number);
	while (*slot(e) != number)
		pv_device_poll(e->d);
}

static void send_once(struct end *e)
{
	post_small(e, TP_SEND, 0);
	while (!take_arrived(e))
		pv_device_poll(e->d);
}

static void read_once(struct end *e)
{
	const struct tp_sge piece = {.mr = e->mr, .len = SMALL};
	const struct tp_send_wr wr = {.opcode = TP_READ,
		.flags = TP_SIGNALED,
		.sg = &piece,
		.n_sg = 1,
		.rkey = e->peer_rkey,
		.remote_offset = SPAN};
	struct tp_wc wc;

	if (tp_post_send(e->qps[0], &wr))
		die("tp_post_send");
	pv_device_flush(e->d);
	while (!tp_cq_poll(e->scq, &wc, 1))
		pv_device_poll(e->d);
}

static double latency(struct end *e, int command, void (*once)(struct end *e))
{
	struct histogram *h = calloc(1, sizeof *h);
	uint64_t now, end;
	double p50;

	tell(e, command);
	now = sd_clock_ns();
	end = now + e->o->ns;
	while (now < end) {
		uint64_t start = now;

		once(e);
		now = sd_clock_ns();
		histogram_add(h, now - start);
	}
	p50 = (double)histogram_quantile(h, 0.5);
	free(h);
	return p50;
}

/* Millions a second of small frames, or Gbit/s of checked payload. */
static double raw_rate(struct end *e, bool checked, const uint8_t *memory)
{
	tell(e, checked ? RAW_CHECKED : RAW_SINK);
	raw_send(e->port, checked ? e->o->port.mtu + 14u : RAW_SMALL, checked, memory, SPAN, e->o->ns);
	if (e->shared->raw.bad)
		die("raw frames are damaged");
	return checked ? 8 * (double)e->shared->raw.bytes / (double)e->o->ns
		       : 1e3 * (double)e->shared->raw.frames / (double)e->o->ns;
}

/* Millions a second of small messages, of which the last is signalled. */
static double message_rate(struct end *e, enum tp_opcode op)
{
	static const uint8_t bytes[SMALL];
	struct tp_send_wr wr = {.opcode = op,
		.flags = TP_INLINE,
		.data = bytes,
		.len = SMALL,
		.rkey = e->peer_rkey,
		.remote_offset = SPAN};
	uint64_t start, posted = 0, now;
	struct tp_wc wc;

	tell(e, SERVE);
	start = sd_clock_ns();
	do {
		for (int i = 0; i < BURST && !tp_post_send(e->qps[0], &wr); i++)
			posted++;
		pv_device_poll(e->d);
		now = pv_device_now(e->d);
	} while (now < start + e->o->ns);
	wr.flags |= TP_SIGNALED; /* with it all before it are over */
	while (tp_post_send(e->qps[0], &wr))
		pv_device_poll(e->d);
	while (!tp_cq_poll(e->scq, &wc, 1))
		pv_device_poll(e->d);
	return 1e3 * (double)posted / (double)(pv_device_now(e->d) - start);
}

/* Of many the next ones are in no cache. */
static void expect_post(const struct end *e, unsigned next, unsigned n)
{
	if (n <= FEW)
		return;
	tp_expect_post(e->qps[(next + 4) % n], 0);
	tp_expect_post(e->qps[(next + 2) % n], 1);
}

/* Gbit/s of WRITEs, as many messages under way as the window says, over n queue pairs by turns. */
static double write_rate(struct end *e, unsigned n)
{
	uint64_t start, now, done = 0, posted = 0;
	unsigned places = SPAN / e->o->message, next = 0;
	struct tp_wc wc[BURST];

	tell(e, SERVE);
	start = now = sd_clock_ns();
	while (now < start + e->o->ns) {
		while (posted - done < e->o->window) {
			const struct tp_sge piece = {
				.mr = e->mr, .offset = posted % places * e->o->message, .len = e->o->message};
			const struct tp_send_wr wr = {.opcode = TP_WRITE,
				.flags = TP_SIGNALED,
				.sg = &piece,
				.n_sg = 1,
				.rkey = e->peer_rkey,
				.remote_offset = piece.offset};

			expect_post(e, next, n);
			if (tp_post_send(e->qps[next], &wr))
				break;
			next = next + 1 == n ? 0 : next + 1;
			posted++;
		}
		pv_device_poll(e->d);
		done += tp_cq_poll(e->scq, wc, BURST);
		now = pv_device_now(e->d);
	}
	while (done < posted) {
		done += tp_cq_poll(e->scq, wc, BURST);
		pv_device_poll(e->d);
	}
	now = pv_device_now(e->d);
	return 8 * (double)done * e->o->message / (double)(now - start);
}

static double write_latency(struct end *e)
{
	return latency(e, WRITE_ECHO, write_once);
}

static double send_latency(struct end *e)
{
	return latency(e, SEND_ECHO, send_once);
}

static double read_latency(struct end *e)
{
	return latency(e, SERVE, read_once);
}

static double raw_frames(struct end *e)
{
	return raw_rate(e, false, NULL);
}

static double raw_bulk(struct end *e)
{
	return raw_rate(e, true, NULL);
}

static double raw_transfer(struct end *e)
{
	return raw_rate(e, true, e->memory);
}

static double sends(struct end *e)
{
	return message_rate(e, TP_SEND);
}

static double writes(struct end *e)
{
	return message_rate(e, TP_WRITE);
}

static double few(struct end *e)
{
	return write_rate(e, FEW);
}

static double all(struct end *e)
{
	return write_rate(e, e->o->connections);
}

/* --- the table --- */

static struct row rows[] = {
	{"write-lat", "64-byte WRITE ping-pong, p50, ns", raw_latency, write_latency, 2.5, true},
	{"send-lat", "64-byte SEND ping-pong, p50, ns", raw_latency, send_latency, 0, true},
	{"read-lat", "64-byte READ, p50, ns", raw_latency, read_latency, 0, true},
	{"send-rate", "64-byte SENDs, M/s", raw_frames, sends},
	{"write-rate", "64-byte WRITEs, M/s", raw_frames, writes},
	{"write-bw", "WRITE bandwidth, Gbit/s", raw_bulk, all, 0.6},
	{"write-copy", "the same, raw copies at both ends", raw_transfer, all, 0.6},
};

#define N_ROWS (sizeof rows / sizeof rows[0])

static struct row many = {"many", "WRITEs over few and all, Gbit/s", few, all, 0.8};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(const double *v, unsigned n)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, v, n * sizeof *v);
	qsort(sorted, n, sizeof *v, by_value);
	return sorted[n / 2];
}

static void print(const struct row *r, unsigned n)
{
	double ratios[ROUNDS_MAX];

	if (!n)
		return;
	for (unsigned i = 0; i < n; i++)
		ratios[i] = r->of_verbs[i] / r->of_raw[i];
	qsort(ratios, n, sizeof *ratios, by_value);
	printf("| %-38s | %9.2f | %9.2f | %5.2f | %5.2f to %5.2f |", r->what, median(r->of_raw, n),
		median(r->of_verbs, n), ratios[n / 2], ratios[0], ratios[n - 1]);
	if (r->target)
		printf(" %s %.1f |", r->is_time ? "<=" : ">=", r->target);
	printf("\n");
}

static void measure(struct end *e, struct row *r, unsigned i)
{
	if (i % 2)
		r->of_verbs[i] = r->verbs(e);
	r->of_raw[i] = r->raw(e);
	if (i % 2 == 0)
		r->of_verbs[i] = r->verbs(e);
}

static bool is_wanted(const struct options *o, const struct row *r)
{
	return !o->only || !strcmp(o->only, r->key);
}

static void near_end(struct end *e)
{
	const struct options *o = e->o;
	struct tp_info info;

	connect_all(e);
	for (unsigned i = 0; i < o->rounds; i++) {
		for (unsigned k = 0; o->connections <= FEW && k < N_ROWS; k++) {
			if (is_wanted(o, &rows[k]))
				measure(e, &rows[k], i);
		}
		if (o->connections > FEW)
			measure(e, &many, i);
	}
	for (unsigned k = 0; o->connections <= FEW && k < N_ROWS; k++) {
		if (is_wanted(o, &rows[k]))
			print(&rows[k], o->rounds);
	}
	if (o->connections > FEW)
		print(&many, o->rounds);
	tp_info(tp_qp_conn(e->qps[0]), &info);
	printf("(rtt %llu ns, cwnd %u, %llu packets out, %llu in, %llu sent again, %llu without a copy)\n",
		(unsigned long long)info.srtt_ns, info.cwnd, (unsigned long long)info.packets_sent,
		(unsigned long long)info.packets_received, (unsigned long long)info.retransmits,
		(unsigned long long)pv_device_sent_directly(e->d));
}

/* --- the program --- */

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

static void parse(struct options *o, int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "m:t:r:s:w:n:g:o:z:cf")) != -1) {
		switch (c) {
		case 'm':
			o->port.mtu = (uint16_t)atoi(optarg);
			break;
		case 't':
			o->ns = (uint64_t)(atof(optarg) * SD_S);
			break;
		case 'r':
			o->rounds = (unsigned)atoi(optarg);
			break;
		case 's':
			o->message = (unsigned)atoi(optarg);
			break;
		case 'w':
			o->window = (unsigned)atoi(optarg);
			break;
		case 'n':
			o->connections = (unsigned)atoi(optarg);
			break;
		case 'g':
			o->port.hugepages = optarg;
			break;
		case 'z':
			o->direct_min = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'o':
			o->only = optarg;
			break;
		case 'f':
			o->congestion = "fixed";
			break;
		case 'c':
			o->crc = false;
			break;
		default:
			exit(2);
		}
	}
	if (!o->rounds || o->rounds > ROUNDS_MAX || !o->message || o->message > SPAN || !o->connections ||
		(argc - optind && argc - optind != 2))
		exit(2);
}

static void name_device(char *out, size_t len, const char *device, const char *dir)
{
	const char *at = strstr(device, "%s");
	int head = at ? (int)(at - device) : (int)strlen(device);

	snprintf(out, len, "%.*s%s%s", head, device, at ? dir : "", at ? at + 2 : "");
}

int main(int argc, char **argv)
{
	static const char *const usual[2] = {
		"net_virtio_user0,path=%s/s,server=1,queue_size=1024", "net_vhost1,iface=%s/s,client=1"};
	struct options o = {.port = {.size = sizeof o.port, .mtu = 1500, .own_process = true},
		.ns = SD_S / 5,
		.rounds = 5,
		.message = 65536,
		.window = 16,
		.connections = 1,
		.crc = true};
	char dir[] = "/tmp/sandirect-verbs-XXXXXX", device[2][256], path[64];
	struct end e = {.o = &o};
	int status;
	pid_t pid;

	parse(&o, argc, argv);
	if (!mkdtemp(dir))
		die("cannot make a directory in /tmp");
	for (int i = 0; i < 2; i++)
		name_device(device[i], sizeof device[i], optind < argc ? argv[optind + i] : usual[i], dir);
	e.shared = mmap(NULL, sizeof *e.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (e.shared == MAP_FAILED)
		die("out of memory");
	e.shared->doing = -1;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "far");
		pin(1);
		open_end(&e, 1, device[1]);
		far_end(&e);
		_exit(0);
	}
	pin(0);
	open_end(&e, 0, device[0]);
	near_end(&e);
	e.shared->command = QUIT;
	waitpid(pid, &status, 0);
	pv_device_close(e.d);
	free(e.memory);
	free(e.qps);
	snprintf(path, sizeof path, "%s/s", dir);
	unlink(path);
	rmdir(dir);
	return status != 0;
}

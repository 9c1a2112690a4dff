/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_sim: two ports and the wire between them, in memory. Time is the caller's when he gives one, so that a
 * simulation is as fast as the machine and the same each time. Each port may be driven by a thread of its
 * own: a direction's wire has a lock, the ports themselves have none. The memory goes when both ends are
 * closed.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "drivers/fault.h"
#include "drivers/port.h"

enum {
	DEFAULT_MTU = 1500,
	CAPACITY_EXTRA = 64,
	WIRE_SLOTS = 4096,
	TX_FRAMES = 512,
};

struct wire {
	pthread_mutex_t lock;
	struct fault_judge judge;
	struct fault_line line;
};

struct sim_link;

struct sim_port {
	struct port base;
	struct sim_link *link;
	struct wire *out, *in;
	uint8_t mac[6];
	uint8_t *memory; /* of the frames that tx_get gives */
	uint8_t *idle[TX_FRAMES];
	unsigned idle_count;
	struct port_stats stats;
};

struct sim_link {
	struct sim_port ports[2];
	struct wire wires[2];
	uint32_t capacity;
	uint16_t mtu;
	const uint64_t *now_ns;
	_Atomic int open_ends;
};

static struct sim_port *sim_of(struct port *p)
{
	return (struct sim_port *)p;
}

static uint64_t sim_now(const struct sim_link *l)
{
	return l->now_ns ? *l->now_ns : sd_clock_ns();
}

static unsigned sim_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct sim_port *s = sim_of(p);
	struct fault_line *line = &s->in->line;
	uint64_t now = sim_now(s->link);
	unsigned n = 0;

	pthread_mutex_lock(&s->in->lock);
	while (n < max && fault_line_peek(line) && fault_line_peek(line)->due <= now) {
		struct fault_frame *f = fault_line_pop(line);

		frames[n++] = (struct port_frame){.data = f->data, .len = f->len, .handle = f};
		s->stats.rx_bytes += f->len;
	}
	pthread_mutex_unlock(&s->in->lock);
	s->stats.rx_frames += n;
	return n;
}

static void sim_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	struct wire *in = sim_of(p)->in;

	pthread_mutex_lock(&in->lock);
	for (unsigned i = 0; i < n; i++)
		fault_line_release(&in->line, frames[i].handle);
	pthread_mutex_unlock(&in->lock);
}

static unsigned sim_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct sim_port *s = sim_of(p);

	if (n > s->idle_count)
		n = s->idle_count;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *data = s->idle[--s->idle_count];

		frames[i] = (struct port_frame){.data = data, .len = s->link->capacity, .handle = data};
	}
	return n;
}

static void sim_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	struct sim_port *s = sim_of(p);

	for (unsigned i = 0; i < n; i++)
		s->idle[s->idle_count++] = frames[i].handle;
}

/* false: the wire has no room for all copies. */
static bool carry(struct sim_port *s, const struct port_frame *f, uint64_t now)
{
	struct wire *w = s->out;
	struct fault_verdict v;

	if (w->line.idle_count < 2)
		return false;
	v = fault_judge_frame(&w->judge, now, f->len);
	s->stats.faults += v.touched;
	for (unsigned i = 0; i < v.copies; i++) {
		struct fault_frame *copy = fault_line_push(&w->line, v.due, f->data, f->len, 0);

		if (copy && v.corrupt && i == 0)
			fault_judge_corrupt(&w->judge, copy->data, copy->len);
	}
	return true;
}

static unsigned sim_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct sim_port *s = sim_of(p);
	uint64_t now = sim_now(s->link);
	unsigned done = 0;

	pthread_mutex_lock(&s->out->lock);
	while (done < n && carry(s, &frames[done], now))
		s->stats.tx_bytes += frames[done++].len;
	pthread_mutex_unlock(&s->out->lock);
	sim_tx_put(p, frames, done);
	s->stats.tx_frames += done;
	s->stats.tx_full += done < n;
	return done;
}

static int sim_no_wait(struct port *p)
{
	return -ENOTSUP;
}

static void sim_disarm(struct port *p)
{
}

static bool sim_link_poll(struct port *p)
{
	return false;
}

static void sim_info(struct port *p, struct port_info *out)
{
	struct sim_port *s = sim_of(p);

	*out = (struct port_info){
		.name = s == s->link->ports ? "sim0" : "sim1",
		.driver = "sim",
		.mtu = s->link->mtu,
		.queues = 1,
		.numa_node = -1,
		.caps = PORT_CAP_BROADCAST,
		.link_up = true,
	};
	memcpy(out->mac, s->mac, sizeof out->mac);
}

static void sim_stats(struct port *p, struct port_stats *out)
{
	*out = sim_of(p)->stats;
}

static void link_free(struct sim_link *l)
{
	for (unsigned i = 0; i < 2; i++) {
		free(l->ports[i].memory);
		fault_line_close(&l->wires[i].line);
		pthread_mutex_destroy(&l->wires[i].lock);
	}
	free(l);
}

static void sim_close(struct port *p)
{
	struct sim_link *l = sim_of(p)->link;

	if (--l->open_ends == 0)
		link_free(l);
}

static const struct port_ops sim_ops = {
	.size = sizeof(struct port_ops),
	.name = "sim",
	.rx = sim_rx,
	.rx_done = sim_rx_done,
	.tx_get = sim_tx_get,
	.tx_put = sim_tx_put,
	.tx = sim_tx,
	.wait_fd = sim_no_wait,
	.arm = sim_no_wait,
	.disarm = sim_disarm,
	.link_poll = sim_link_poll,
	.info = sim_info,
	.stats = sim_stats,
	.close = sim_close,
};

static int port_init(struct sim_link *l, unsigned i)
{
	struct sim_port *s = &l->ports[i];

	s->base.ops = &sim_ops;
	s->link = l;
	s->out = &l->wires[i];
	s->in = &l->wires[!i];
	memcpy(s->mac, (uint8_t[6]){0x02, 0x53, 0x49, 0x4d, 0, (uint8_t)i}, sizeof s->mac);
	s->memory = malloc((size_t)l->capacity * TX_FRAMES);
	if (!s->memory)
		return -ENOMEM;
	for (unsigned k = 0; k < TX_FRAMES; k++)
		s->idle[s->idle_count++] = s->memory + (size_t)(TX_FRAMES - 1 - k) * l->capacity;
	return 0;
}

int port_sim_open_pair(
	const struct port_faults *f, uint16_t mtu, const uint64_t *now_ns, struct port **a, struct port **b)
{
	static const struct port_faults none;
	struct sim_link *l = calloc(1, sizeof *l);
	int err = 0;

	if (!l)
		return -ENOMEM;
	l->mtu = mtu ? mtu : DEFAULT_MTU;
	l->capacity = l->mtu + CAPACITY_EXTRA;
	l->now_ns = now_ns;
	l->open_ends = 2;
	for (unsigned i = 0; i < 2; i++) {
		pthread_mutex_init(&l->wires[i].lock, NULL);
		fault_judge_init(&l->wires[i].judge, f ? f : &none, i);
		if (!err)
			err = fault_line_open(&l->wires[i].line, WIRE_SLOTS, l->capacity);
		if (!err)
			err = port_init(l, i);
	}
	if (err) {
		link_free(l);
		return err;
	}
	*a = &l->ports[0].base;
	*b = &l->ports[1].base;
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* device: an engine with one port, whose caller is the one thread there is. */
#include "provider/device.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "provider/crew.h"
#include "provider/engine.h"
#include "transport/cc.h"

#define LINK_POLL_NS  (100 * SD_MS)
#define DOWN_POLL_NS  (20 * SD_MS) /* a port that waits for its peer learns of it by being looked at */
#define BLIND_POLL_NS (100 * SD_US)
#define DIRECT_MIN    8192u
#define NEGATIVE_TTL  (10 * SD_MS) /* whoever asks again means it */

/* Memory that the port sends from. */
struct mapping {
	struct list node;
	struct tp_mr *mr;
	void *addr;
	size_t len;
};

struct pv_device {
	struct engine engine;
	struct pv_device_config cfg;
	uint64_t link_due;
	struct list mappings;
};

/* A question to the segment that somebody waits for. */
struct query {
	struct resolver_wait wait;
	enum resolver_result result;
	struct tp_path *path;
};

/* --- upcalls --- */

static void on_event(void *ctx, struct tp_conn *c, void *user, unsigned events)
{
}

static void on_qp_event(void *ctx, struct tp_qp *qp, void *user, unsigned events)
{
	struct pv_device *d = ctx;

	if (d->cfg.qp_event)
		d->cfg.qp_event(d->cfg.ctx, qp, user, events);
}

static void on_completion(void *ctx, struct tp_cq *cq, void *user)
{
	struct pv_device *d = ctx;

	if (d->cfg.completion)
		d->cfg.completion(d->cfg.ctx, cq, user);
}

static void on_acceptable(void *ctx, void *user)
{
	struct pv_device *d = ctx;

	if (d->cfg.acceptable)
		d->cfg.acceptable(d->cfg.ctx, user);
}

static void on_resolved(
	void *ctx, struct resolver_wait *w, enum resolver_result result, const struct tp_path *path)
{
	struct query *q = container_of(w, struct query, wait);

	q->result = result;
	if (result == RESOLVER_FOUND)
		*q->path = *path;
}

/* --- life --- */

static void unmap(struct pv_device *d, struct mapping *m)
{
	struct port *port = d->engine.ports[0].port;

	port->ops->unmap(port, m->addr, m->len);
	free(m);
}

static int open_engine(struct pv_device *d)
{
	const struct pv_device_config *cfg = &d->cfg;
	struct tp_config tc = {
		.size = sizeof tc,
		.crc = cfg->crc,
		.window_packets = cfg->window_packets,
		.max_conns = cfg->max_conns,
		.max_ack_delay_ns = cfg->max_ack_delay_ns,
		.dead_timeout_ns = cfg->dead_timeout_ns,
		.cc = tp_cc_named(cfg->congestion),
	};
	const struct resolver_config rc = {.negative_ttl_ns = NEGATIVE_TTL};
	const struct engine_ops ops = {.event = on_event,
		.acceptable = on_acceptable,
		.resolved = on_resolved,
		.qp_event = on_qp_event,
		.completion = on_completion,
		.ctx = d};
	int r = crew_draw_secrets(tc.seed, tc.node_key);

	return r ? r : engine_open(&d->engine, &tc, &rc, &ops, sd_clock_ns());
}

int pv_device_open(const struct pv_device_config *cfg, struct pv_device **out, char *err, size_t err_len)
{
	struct port_config pc = cfg->port;
	struct pv_device *d;
	struct port *port;
	int r;

	if (cfg->size != sizeof *cfg || !cfg->n_addrs || cfg->n_addrs > ENGINE_MAX_ADDRS) {
		snprintf(err, err_len, "a device needs 1 to %d addresses", ENGINE_MAX_ADDRS);
		return -EINVAL;
	}
	port = cfg->opened;
	pc.ext_tx = cfg->direct_min != PV_DEVICE_NEVER;
	r = port ? 0 : port_open(&pc, &port, err, err_len);
	if (r)
		return r;
	d = calloc(1, sizeof *d);
	if (d) {
		d->cfg = *cfg;
		d->cfg.addrs = NULL;
		list_init(&d->mappings);
		r = open_engine(d);
	}
	if (!d || r) {
		snprintf(err, err_len, "no transport: %s", strerror(d ? -r : ENOMEM));
		if (!cfg->opened)
			port_close(port);
		free(d);
		return r ? r : -ENOMEM;
	}
	engine_add_port(&d->engine, port);
	d->engine.direct_min = cfg->direct_min ? cfg->direct_min : DIRECT_MIN;
	engine_set_addrs(&d->engine, 0, cfg->addrs, cfg->n_addrs);
	*out = d;
	return 0;
}

void pv_device_close(struct pv_device *d)
{
	struct list *it;

	while ((it = list_pop_front(&d->mappings)))
		unmap(d, container_of(it, struct mapping, node));
	engine_close(&d->engine);
	free(d);
}

struct tp *pv_device_tp(const struct pv_device *d)
{
	return d->engine.tp;
}

uint64_t pv_device_now(const struct pv_device *d)
{
	return d->engine.now;
}

void pv_device_port_info(const struct pv_device *d, struct port_info *out)
{
	*out = d->engine.ports[0].info;
}

uint64_t pv_device_sent_directly(const struct pv_device *d)
{
	return d->engine.stats.tx_direct;
}

/* --- memory --- */

/* No matter if it cannot: then packets are copied. */
static void map(struct pv_device *d, struct tp_mr *mr, void *addr, size_t len)
{
	struct port *port = d->engine.ports[0].port;
	struct mapping *m = d->engine.ports[0].direct ? malloc(sizeof *m) : NULL;

	if (!m)
		return;
	*m = (struct mapping){LIST_INIT(m->node), mr, addr, len};
	if (port->ops->map(port, addr, len)) {
		free(m);
		return;
	}
	list_push_back(&d->mappings, &m->node);
	tp_mr_set_direct(mr);
}

int pv_device_register(
	struct pv_device *d, struct tp_pd *pd, void *addr, size_t len, unsigned access, struct tp_mr **out)
{
	int r = tp_mr_register(pd, addr, len, access, out);

	if (!r)
		map(d, *out, addr, len);
	return r;
}

int pv_device_deregister(struct pv_device *d, struct tp_mr *mr)
{
	struct port *port = d->engine.ports[0].port;
	int r = tp_mr_deregister(mr);

	if (r) {
		port->ops->reclaim(port);
		r = tp_mr_deregister(mr);
	}
	if (r)
		return r;
	list_for_each (it, &d->mappings) {
		struct mapping *m = container_of(it, struct mapping, node);

		if (m->mr != mr)
			continue;
		list_remove(&m->node);
		unmap(d, m);
	}
	return 0;
}

/* --- driving --- */

static bool link_is_up(const struct pv_device *d)
{
	const struct port_info *i = &d->engine.ports[0].info;

	return i->link_up || !(i->caps & PORT_CAP_LINK);
}

unsigned pv_device_poll(struct pv_device *d)
{
	uint64_t now = sd_clock_ns();

	if (__builtin_expect(now >= d->link_due, 0)) {
		engine_poll_links(&d->engine, now);
		d->link_due = now + (link_is_up(d) ? LINK_POLL_NS : DOWN_POLL_NS);
	}
	return engine_progress(&d->engine, now);
}

void pv_device_flush(struct pv_device *d)
{
	engine_flush(&d->engine, sd_clock_ns());
}

/* How long it may sleep. */
static uint64_t rest_of(const struct pv_device *d, uint64_t now, uint64_t end, bool blind)
{
	uint64_t until = engine_deadline(&d->engine);

	if (until > d->link_due)
		until = d->link_due;
	if (blind && until > now + BLIND_POLL_NS)
		until = now + BLIND_POLL_NS;
	if (until > end)
		until = end;
	return until > now ? until - now : 0;
}

unsigned pv_device_wait(struct pv_device *d, uint64_t timeout_ns)
{
	struct port *port = d->engine.ports[0].port;
	uint64_t end = sd_clock_ns() + timeout_ns, now, rest;
	struct pollfd fd = {.events = POLLIN};
	unsigned work;

	while (!(work = pv_device_poll(d)) && d->engine.now < end) {
		bool armed = (fd.fd = port->ops->wait_fd(port)) >= 0 && !port->ops->arm(port);
		bool blind = !armed && fd.fd != -EAGAIN;

		work = pv_device_poll(d); /* what came before arm() does not wake */
		now = d->engine.now;
		rest = work ? 0 : rest_of(d, now, end, blind);
		if (rest) {
			struct timespec t = {(time_t)(rest / SD_S), (long)(rest % SD_S)};

			ppoll(&fd, armed, &t, NULL);
		}
		if (armed)
			port->ops->disarm(port);
		if (work)
			break;
	}
	return work;
}

/* --- peers --- */

static int error_of(enum resolver_result r)
{
	switch (r) {
	case RESOLVER_FOUND:
		return 0;
	case RESOLVER_LINK_DOWN:
		return -ENETDOWN;
	case RESOLVER_NO_LISTENER:
	case RESOLVER_REFUSED:
		return -ECONNREFUSED;
	case RESOLVER_VERSION:
		return -EPROTONOSUPPORT;
	case RESOLVER_FULL:
		return -EAGAIN;
	default:
		return -EHOSTUNREACH;
	}
}

int pv_device_find(struct pv_device *d, const struct sd_addr *local, const struct sd_addr *peer,
	uint64_t timeout_ns, struct tp_path *path)
{
	uint64_t end = sd_clock_ns() + timeout_ns;
	struct query q = {.path = path};

	do {
		pv_device_poll(d);
		q.result = RESOLVER_LINK_DOWN;
		if (!link_is_up(d))
			continue;
		q.result = resolver_ask(&d->engine.resolver, d->engine.now, 0, local, peer, &q.wait, path);
		while (q.result == RESOLVER_PENDING)
			pv_device_poll(d); /* the resolver gives up by itself */
	} while (q.result != RESOLVER_FOUND && d->engine.now < end);
	if (q.result == RESOLVER_FOUND) {
		path->local = *local;
		path->peer = *peer;
	}
	return error_of(q.result);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_late: a port whose device is not to be had yet. Until it is, its link is down and nothing goes or
 * comes; it is tried again from link_poll. Then every call goes on to the device's port.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mac.h"
#include "drivers/port.h"

#define TRY_NS	    (1 * SD_S)
#define TRY_MAX_NS  (30 * SD_S)
#define LONG_NS	    (10 * SD_MS) /* for whoever shares the thread */
#define DEFAULT_MTU 1500

struct late {
	struct port base;
	struct port *inner; /* NULL: not yet */
	port_opener *open;
	void *ctx;
	unsigned index;
	struct port_config cfg;
	uint64_t try_at, pause;
	char reason[256]; /* that was told last */
};

static struct late *of(struct port *p)
{
	return (struct late *)p;
}

static unsigned late_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct port *in = of(p)->inner;

	return in ? in->ops->rx(in, frames, max) : 0;
}

static void late_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	struct port *in = of(p)->inner;

	if (n)
		in->ops->rx_done(in, frames, n);
}

static unsigned late_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct port *in = of(p)->inner;

	return in ? in->ops->tx_get(in, frames, n) : 0;
}

static void late_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	struct port *in = of(p)->inner;

	if (n)
		in->ops->tx_put(in, frames, n);
}

static unsigned late_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct port *in = of(p)->inner;

	return n ? in->ops->tx(in, frames, n) : 0;
}

static int late_wait_fd(struct port *p)
{
	struct port *in = of(p)->inner;

	return in ? in->ops->wait_fd(in) : -EAGAIN;
}

static int late_arm(struct port *p)
{
	struct port *in = of(p)->inner;

	return in ? in->ops->arm(in) : 0;
}

static void late_disarm(struct port *p)
{
	struct port *in = of(p)->inner;

	if (in)
		in->ops->disarm(in);
}

static bool try_to_open(struct late *l)
{
	char err[sizeof l->reason] = "";
	uint64_t now = sd_clock_ns();

	if (now < l->try_at)
		return false;
	if (!l->open(l->ctx, l->index, &l->cfg, &l->inner, err, sizeof err)) {
		sd_info("SAN port %s has its device now", l->cfg.name);
		return true;
	}
	l->inner = NULL;
	if (sd_clock_ns() - now > LONG_NS)
		l->pause = l->pause * 2 < TRY_MAX_NS ? l->pause * 2 : TRY_MAX_NS;
	l->try_at = sd_clock_ns() + l->pause;
	if (strcmp(err, l->reason))
		sd_warn("SAN port %s is still without its device: %s", l->cfg.name, err);
	memcpy(l->reason, err, sizeof err);
	return false;
}

static bool late_link_poll(struct port *p)
{
	struct late *l = of(p);
	bool opened = !l->inner && try_to_open(l);

	return (l->inner && l->inner->ops->link_poll(l->inner)) || opened;
}

static void late_info(struct port *p, struct port_info *out)
{
	const struct late *l = of(p);

	if (l->inner) {
		l->inner->ops->info(l->inner, out);
		return;
	}
	*out = (struct port_info){
		.name = l->cfg.name,
		.driver = "absent",
		.mtu = l->cfg.mtu,
		.queues = 1,
		.numa_node = -1,
		.caps = PORT_CAP_BROADCAST | PORT_CAP_LINK,
	};
	memcpy(out->mac, l->cfg.mac, sizeof out->mac);
}

static void late_stats(struct port *p, struct port_stats *out)
{
	struct port *in = of(p)->inner;

	*out = (struct port_stats){0};
	if (in)
		in->ops->stats(in, out);
}

static unsigned late_backlog(struct port *p)
{
	struct port *in = of(p)->inner;

	return in && in->ops->backlog ? in->ops->backlog(in) : 0;
}

static struct port *late_queue(struct port *p, unsigned i)
{
	struct port *in = of(p)->inner;

	return in && i ? in->ops->queue(in, i) : p;
}

static void late_close(struct port *p)
{
	struct late *l = of(p);

	if (l->inner)
		port_close(l->inner);
	free(l);
}

static const struct port_ops late_ops = {
	.size = sizeof(struct port_ops),
	.name = "late",
	.rx = late_rx,
	.rx_done = late_rx_done,
	.tx_get = late_tx_get,
	.tx_put = late_tx_put,
	.tx = late_tx,
	.wait_fd = late_wait_fd,
	.arm = late_arm,
	.disarm = late_disarm,
	.link_poll = late_link_poll,
	.info = late_info,
	.stats = late_stats,
	.queue = late_queue,
	.backlog = late_backlog,
	.close = late_close,
};

int port_late_open(
	const struct port_config *cfg, port_opener *open, void *ctx, unsigned index, struct port **out)
{
	struct late *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	l->base.ops = &late_ops;
	l->open = open;
	l->ctx = ctx;
	l->index = index;
	l->pause = TRY_NS;
	l->try_at = sd_clock_ns() + TRY_NS;
	l->cfg = *cfg;
	l->cfg.ext_tx = false;
	if (!l->cfg.mtu)
		l->cfg.mtu = DEFAULT_MTU;
	if (cfg->needs_mac && sd_mac_is_none(l->cfg.mac))
		sd_mac_draw(l->cfg.mac);
	*out = &l->base;
	return 0;
}

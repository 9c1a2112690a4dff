/* SPDX-License-Identifier: BSD-3-Clause */
#include "service.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/core.h"
#include "base/log.h"
#include "provider/bridge.h"
#include "provider/broker.h"
#include "provider/domain.h"
#include "provider/registry.h"
#include "switch/ports.h"

/* How often programs are listened to while the ports keep it busy. */
#define LOOK_NS (20 * SD_US)
/* Having polled in vain for so long it offers its core to others, and again. */
#define SIGNALS_NS     (10 * SD_MS) /* how long it may work without a look at signals */
#define YIELD_AFTER_NS (10 * SD_US)
#define YIELD_AGAIN_NS (50 * SD_US)

struct service {
	struct service_config cfg;
	struct pv_domain *domain;
	struct pv_waiter *waiter;
	struct pv *ether, *shm;
	struct bridge *bridge; /* NULL: there are no ports */
	struct broker *broker;
	uint64_t look_at;
	bool stopped;
};

/* --- ports --- */

static int start_ports(struct service *s)
{
	enum sd_reason r = s->ether->ops->start(s->ether);

	if (r == SD_REASON_SAN)
		return 0;
	sd_error("the ports cannot be opened: %s; mend that, or take the [port] sections out",
		sd_reason_text(r));
	return -EIO;
}

static int open_ports(struct service *s)
{
	int r = sw_ports_open(s->cfg.cfg, pv_upcall, &s->ether);

	if (!r)
		r = pv_shm_open("", pv_upcall, &s->shm);
	if (!r)
		r = pv_domain_add(s->domain, s->shm);
	if (!r)
		r = pv_domain_add(s->domain, s->ether);
	if (!r)
		r = bridge_open(s->ether, s->shm, &s->bridge);
	if (r) {
		sd_error("the ports cannot be set up: %s", strerror(-r));
		return r;
	}
	return start_ports(s);
}

int service_open(const struct service_config *cfg, struct service **out)
{
	struct pv_domain_config dc = {.size = sizeof dc, .spin_ns = cfg->cfg->spin_ns};
	struct service *s = calloc(1, sizeof *s);
	int r = s ? pv_domain_open(&dc, &s->domain) : -ENOMEM;

	if (r) {
		sd_error("cannot start: %s", strerror(-r));
		free(s);
		return r;
	}
	s->cfg = *cfg;
	pv_enter(s->domain);
	s->waiter = pv_waiter_self(s->domain);
	r = !s->waiter ? -ENOMEM : cfg->cfg->n_ports ? open_ports(s) : 0;
	if (r) {
		service_close(s);
		return r;
	}
	*out = s;
	return 0;
}

/* --- service --- */

static unsigned work(struct service *s)
{
	unsigned n = pv_progress(s->domain);
	uint64_t now = pv_now(s->domain);

	if (now >= s->look_at) {
		n += broker_progress(s->broker, now);
		s->look_at = now + LOOK_NS;
	}
	if (s->bridge)
		n += bridge_progress(s->bridge, s->broker);
	return n;
}

/* Polls while something happens, and for a while after, unless others need the core: they may be the ones
 * that would make it happen. False: nothing happens; true: it does, and it is time to look at signals. */
static bool work_while_busy(struct service *s)
{
	uint64_t now = pv_now(s->domain), until = now + s->cfg.cfg->spin_ns, yield_at = now + YIELD_AFTER_NS,
		 end = now + SIGNALS_NS;

	while (now < end) {
		/* What has more to do than one round comes first, also where nothing is polled for. */
		if (work(s)) {
			now = pv_now(s->domain);
			until = now + s->cfg.cfg->spin_ns;
			yield_at = now + YIELD_AFTER_NS;
			continue;
		}
		now = pv_now(s->domain);
		if (!s->bridge || now >= until)
			return false;
		pv_yield(s->domain);
		if (now < yield_at)
			continue;
		if (sd_core_offer())
			return false;
		yield_at = now + YIELD_AGAIN_NS;
	}
	return true;
}

static void sleep_until_work(struct service *s, int signals, struct pollfd p[2])
{
	p[0] = (struct pollfd){.fd = broker_fd(s->broker), .events = POLLIN};
	p[1] = (struct pollfd){.fd = signals, .events = POLLIN};
	pv_sleep(s->domain, s->waiter, p, 2, broker_deadline(s->broker), NULL);
	s->look_at = 0;
}

static bool permits(void *ctx, bool server, const char *program, const struct sd_addr *addr)
{
	const struct service *s = ctx;

	return cfg_match(s->cfg.cfg, server ? CFG_SERVER : CFG_CLIENT, program, addr) != CFG_TCP;
}

int service_run(struct service *s, int door, int signals, bool (*on_signals)(struct service *s, int signals))
{
	struct broker_config bc = {.size = sizeof bc,
		.max_connections = s->cfg.max_connections,
		.outside = s->bridge ? bridge_outside(s->bridge) : NULL,
		.permits = permits,
		.ctx = s};
	struct pollfd p[2];
	int r = broker_open(&bc, door, &s->broker);

	if (r) {
		sd_error("cannot serve: %s", strerror(-r));
		return r;
	}
	for (bool more = true; more;) {
		p[1] = (struct pollfd){.fd = signals, .events = POLLIN};
		if (work_while_busy(s))
			poll(&p[1], 1, 0);
		else
			sleep_until_work(s, signals, p);
		if (p[1].revents)
			more = on_signals(s, signals);
	}
	return 0;
}

void service_tell(struct service *s)
{
	struct broker_stats b;

	broker_stats(s->broker, &b);
	sd_info("%lu programs, %lu listeners, %lu connections; %lu made, %lu refused, %lu offered again, %lu "
		"bad messages",
		b.clients, b.listeners, b.streams, b.joined, b.refused, b.offered_again, b.bad_messages);
}

void service_close(struct service *s)
{
	if (s->broker)
		broker_close(s->broker);
	if (s->bridge)
		bridge_close(s->bridge);
	if (pv_is_inside(s->domain))
		pv_leave(s->domain);
	pv_domain_drain(s->domain, s->cfg.cfg->exit_linger_ns);
	free(s);
}

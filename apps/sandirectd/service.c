/* SPDX-License-Identifier: BSD-3-Clause */
#include "service.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/core.h"
#include "base/fd.h"
#include "base/fnv.h"
#include "base/log.h"
#include "provider/bridge.h"
#include "provider/broker.h"
#include "provider/domain.h"
#include "provider/registry.h"
#include "switch/ports.h"
#include "takeover.h"

/* How often programs are listened to while the ports keep it busy. */
#define LOOK_NS (20 * SD_US)
/* Having polled in vain for so long it offers its core to others, and again. */
#define SIGNALS_NS     (10 * SD_MS) /* how long it may work without a look at signals */
#define YIELD_AFTER_NS (10 * SD_US)
#define YIELD_AGAIN_NS (50 * SD_US)
/* How often ports are tried that nobody has taken over. */
#define RESUME_NS (100 * SD_MS)

struct service {
	struct service_config cfg;
	struct pv_domain *domain;
	struct pv_waiter *waiter;
	struct pv *ether, *shm;
	struct bridge *bridge; /* NULL: there are no ports */
	struct broker *broker;
	uint64_t look_at;
	int successors; /* where they call, or -1 */
	bool suspended; /* the ports were closed for another process, which did not take them */
	uint64_t resume_at;
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

static int prepare_ports(struct service *s)
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
	return 0;
}

static int open_ports(struct service *s, bool takes_over)
{
	int r = prepare_ports(s);

	if (r)
		return r;
	if (takes_over)
		return pv_ether_prepare(s->ether) == SD_REASON_SAN ? 0 : -EIO;
	return start_ports(s);
}

/* Nobody has taken over after all. A port that is not to be had at once may be a moment later. */
static void open_ports_again(struct service *s)
{
	uint64_t now = sd_clock_ns();

	if (now < s->resume_at)
		return;
	s->suspended = !bridge_resume(s->bridge);
	s->resume_at = now + RESUME_NS;
	if (!s->suspended)
		sd_info("the ports are open again");
}

int service_open(const struct service_config *cfg, bool takes_over, struct service **out)
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
	s->successors = -1;
	pv_enter(s->domain);
	s->waiter = pv_waiter_self(s->domain);
	r = !s->waiter ? -ENOMEM : cfg->cfg->n_ports ? open_ports(s, takes_over) : 0;
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
	if (s->suspended)
		open_ports_again(s);
	else if (s->bridge)
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

/* What wants to be served, to be heard, and to take over. */
enum { BROKER, SIGNALS, SUCCESSORS, N_WATCHED };

static void sleep_until_work(struct service *s, struct pollfd p[N_WATCHED])
{
	uint64_t deadline = broker_deadline(s->broker);

	if (s->suspended && s->resume_at < deadline)
		deadline = s->resume_at;
	pv_sleep(s->domain, s->waiter, p, N_WATCHED, deadline, NULL);
	s->look_at = 0;
}

static bool permits(void *ctx, bool server, const char *program, const struct sd_addr *addr)
{
	const struct service *s = ctx;

	return cfg_match(s->cfg.cfg, server ? CFG_SERVER : CFG_CLIENT, program, addr) != CFG_TCP;
}

/* A silent host is asked who it is, and then to connect. */
static uint32_t outside_ms(const struct service *s)
{
	const struct cfg *c = s->cfg.cfg;

	return (uint32_t)((c->find_timeout_ns + c->connect_timeout_ns) / SD_MS);
}

int service_listen(struct service *s, int door, int successors)
{
	struct broker_config bc = {.size = sizeof bc,
		.max_connections = s->cfg.max_connections,
		.max_memory = s->cfg.max_memory,
		.outside_ms = s->bridge ? outside_ms(s) : 0,
		.outside = s->bridge ? bridge_outside(s->bridge) : NULL,
		.permits = permits,
		.ctx = s};
	int r = broker_open(&bc, door, &s->broker);

	s->successors = successors;
	if (r)
		sd_error("cannot serve: %s", strerror(-r));
	return r;
}

/* --- another process goes on --- */

uint64_t service_format(void)
{
	const uint64_t formats[] = {bridge_save_format(), broker_save_format()};

	return sd_fnv(SD_FNV_BASIS, formats, sizeof formats);
}

static int save(struct service *s, struct sd_pack *p)
{
	int r;

	sd_pack_fd(p, broker_door(s->broker));
	sd_pack_fd(p, s->successors);
	sd_pack_u32(p, s->bridge != NULL);
	broker_save(s->broker, p);
	if (p->failed)
		return -ENOMEM;
	r = s->bridge ? bridge_suspend(s->bridge, p) : 0;
	s->suspended = s->bridge && !r;
	return p->failed ? -ENOMEM : r;
}

/* True: somebody else has it all. */
static bool hand_over(struct service *s)
{
	int channel = takeover_accept(s->successors, s->cfg.owner, service_format()), r;
	uint64_t since = sd_clock_ns();
	struct sd_pack p = {0};

	if (channel < 0 || s->suspended) {
		sd_fd_close(&channel);
		return false;
	}
	if (s->bridge)
		bridge_progress(s->bridge, s->broker);
	r = save(s, &p);
	if (!r)
		r = takeover_give(channel, &p, since);
	sd_pack_free(&p);
	sd_fd_close(&channel);
	if (!r) {
		sd_info("another daemon has taken over");
		return true;
	}
	sd_error("a daemon that wanted to take over has not (%s); this one goes on", strerror(-r));
	s->resume_at = 0;
	if (s->suspended)
		open_ports_again(s);
	return false;
}

int service_take_over(struct service *s, struct sd_unpack *u)
{
	int door = sd_unpack_fd(u), r = -EXDEV, successors;

	successors = sd_unpack_fd(u);
	if (door >= 0 && !sd_unpack_u32(u) == !s->bridge) {
		r = service_listen(s, door, successors);
	} else {
		sd_fd_close(&door);
		sd_fd_close(&successors);
		sd_error(
			"the running daemon has ports and this one none, or the other way about; restart it");
		return r;
	}
	if (!r)
		r = broker_restore(s->broker, u, sd_clock_ns());
	if (!r && s->bridge)
		r = bridge_restore(s->bridge, s->broker, u);
	if (r)
		sd_error("cannot go on with what the running daemon has: %s", strerror(-r));
	return r;
}

void service_taken_over(struct service *s)
{
	if (s->bridge)
		bridge_restored(s->bridge);
}

/* --- serving --- */

bool service_run(struct service *s, int signals, bool (*on_signals)(struct service *s, int signals))
{
	struct pollfd p[N_WATCHED] = {[BROKER] = {.fd = broker_fd(s->broker), .events = POLLIN},
		[SIGNALS] = {.fd = signals, .events = POLLIN},
		[SUCCESSORS] = {.fd = s->successors, .events = POLLIN}};

	for (bool more = true; more;) {
		if (work_while_busy(s))
			poll(&p[SIGNALS], N_WATCHED - SIGNALS, 0);
		else
			sleep_until_work(s, p);
		if (p[SIGNALS].revents)
			more = on_signals(s, signals);
		if (p[SUCCESSORS].revents && hand_over(s))
			return true;
	}
	return false;
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
	sd_fd_close(&s->successors);
	if (s->bridge)
		bridge_close(s->bridge);
	if (pv_is_inside(s->domain))
		pv_leave(s->domain);
	pv_domain_drain(s->domain, s->cfg.cfg->exit_linger_ns);
	free(s);
}

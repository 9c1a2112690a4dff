/* SPDX-License-Identifier: BSD-3-Clause */
#include "service.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fnv.h"
#include "base/log.h"
#include "provider/broker.h"
#include "provider/desk.h"
#include "provider/registry.h"
#include "switch/stattable.h"
#include "takeover.h"
#include "worker.h"

/* How often programs are listened to while the ports keep it busy. */
#define LOOK_NS (20 * SD_US)
/* How often ports are tried that nobody has taken over. */
#define RESUME_NS (100 * SD_MS)

/* How often the table of the ports is written without being asked for. */
#define TELL_NS (500 * SD_MS)

struct service {
	struct service_config cfg;
	struct worker workers[CFG_MAX_CORES]; /* worker 0 is this thread's */
	unsigned n_workers;
	struct pv_ether_crew *crew; /* NULL: one worker */
	struct desk *desk;	    /* NULL: there are no ports */
	struct broker *broker;
	uint64_t look_at;
	int successors; /* where they call, or -1 */
	bool suspended; /* the ports were closed for another process, which did not take them */
	uint64_t resume_at;
	uint64_t tell_at;
	struct stattable table; /* of the ports, for `sandirect ports`; its programs have their own */
};

/* --- workers --- */

static int start_ports(struct worker *w, void *arg)
{
	enum sd_reason r = w->ether->ops->start(w->ether);

	if (r == SD_REASON_SAN)
		return 0;
	sd_error("the ports cannot be opened: %s; mend that, or take the [port] sections out",
		sd_reason_text(r));
	return -EIO;
}

static int prepare_ports(struct worker *w, void *arg)
{
	return pv_ether_prepare(w->ether) == SD_REASON_SAN ? 0 : -EIO;
}

/* In their order: worker 0 has the ports' devices. */
static int each_worker(struct service *s, int (*f)(struct worker *w, void *arg), void *arg)
{
	for (unsigned i = 0; i < s->n_workers; i++) {
		int r = worker_do(&s->workers[i], f, arg);

		if (r)
			return r;
	}
	return 0;
}

static void workers_go(struct service *s)
{
	for (unsigned i = 1; i < s->n_workers; i++)
		worker_go(&s->workers[i]);
}

static void workers_park(struct service *s)
{
	for (unsigned i = 1; i < s->n_workers; i++)
		worker_park(&s->workers[i]);
}

static int open_worker(struct service *s, struct worker *w)
{
	int r;

	*w = (struct worker){.number = s->n_workers,
		.cfg = s->cfg.cfg,
		.crew = s->crew,
		.desk = s->desk ? desk_post(s->desk) : NULL};
	r = worker_open(w);
	if (r)
		return r;
	s->n_workers++;
	if (s->desk)
		desk_set_bridge(s->desk, w->number, bridge_post(w->bridge));
	return 0;
}

/* One for each core; without ports there is nothing for more than one to do. */
static int open_workers(struct service *s)
{
	const struct cfg *c = s->cfg.cfg;
	unsigned n = c->n_ports && c->cores.n ? c->cores.n : 1;
	const struct desk_config dc = {.size = sizeof dc,
		.n_engines = n,
		.bell = n > 1,
		.ring_max = c->ring_max,
		.ring_min = c->ring_min};
	int r = n > 1 ? pv_ether_crew_open(n, &s->crew) : 0;

	if (!r && c->n_ports)
		r = desk_open(&dc, &s->desk);
	if (r)
		sd_error("cannot start: %s", strerror(-r));
	while (!r && s->n_workers < n)
		r = open_worker(s, &s->workers[s->n_workers]);
	return r;
}

static int resume_ports(struct worker *w, void *arg)
{
	return bridge_resume(w->bridge) ? 0 : -EIO;
}

/* Nobody has taken over after all. A port that is not to be had at once may be a moment later. */
static void open_ports_again(struct service *s)
{
	uint64_t now = sd_clock_ns();

	if (now < s->resume_at)
		return;
	s->suspended = each_worker(s, resume_ports, NULL);
	s->resume_at = now + RESUME_NS;
	if (s->suspended)
		return;
	workers_go(s);
	sd_info("the ports are open again");
}

/* --- telling of the ports --- */

static void tell_ports(struct service *s)
{
	const struct pv *ethers[CFG_MAX_CORES];

	for (unsigned i = 0; i < s->n_workers; i++)
		ethers[i] = s->workers[i].ether;
	stattable_ports(&s->table, ethers, s->suspended ? 0 : s->n_workers);
}

/* With the rights that the process began with: readers believe root's, and remove what is left of it. */
static void open_table(struct service *s)
{
	if (s->desk)
		stattable_make(&s->table, s->cfg.cfg->runtime_dir, getpid(), "sandirectd", 0);
}

/* If a reader has asked, and for those who may not ask every now and then. */
static void refresh_table(struct service *s)
{
	struct statfile_header *h = s->table.h;
	uint64_t wanted = h ? atomic_load_explicit(&h->refresh_wanted, memory_order_acquire) : 0;
	uint64_t now = pv_now(s->workers[0].domain);

	if (!h || (wanted == atomic_load_explicit(&h->refreshed, memory_order_relaxed) && now < s->tell_at))
		return;
	s->tell_at = now + TELL_NS;
	pv_ether_describe(s->workers[0].ether, h->engine, sizeof h->engine);
	tell_ports(s);
	atomic_store_explicit(&h->refreshed, wanted, memory_order_release);
}

int service_open(const struct service_config *cfg, bool takes_over, struct service **out)
{
	struct service *s = calloc(1, sizeof *s);
	int r;

	if (!s) {
		sd_error("cannot start: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	s->cfg = *cfg;
	s->successors = -1;
	r = open_workers(s);
	if (!r && s->desk)
		r = each_worker(s, takes_over ? prepare_ports : start_ports, NULL);
	if (r) {
		service_close(s);
		return r;
	}
	open_table(s);
	*out = s;
	return 0;
}

/* --- service --- */

static unsigned round_of(void *ctx)
{
	struct service *s = ctx;
	struct worker *w = &s->workers[0];
	unsigned n = pv_progress(w->domain);
	uint64_t now = pv_now(w->domain);

	if (now >= s->look_at) {
		n += broker_progress(s->broker, now);
		s->look_at = now + LOOK_NS;
	}
	if (s->suspended) {
		open_ports_again(s);
	} else if (s->desk) {
		n += bridge_progress(w->bridge);
		n += desk_progress(s->desk, s->broker);
	}
	return n;
}

/* What wants to be served, to be heard, and to take over; and the other workers' letters. */
enum { BROKER, LETTERS, SIGNALS, SUCCESSORS, N_WATCHED };

static void sleep_until_work(struct service *s, struct pollfd p[N_WATCHED])
{
	uint64_t deadline = broker_deadline(s->broker);

	if (s->suspended && s->resume_at < deadline)
		deadline = s->resume_at;
	worker_sleep(&s->workers[0], p, N_WATCHED, deadline);
	if (p[LETTERS].revents)
		post_heed(desk_post(s->desk));
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
		.outside_ms = s->desk ? outside_ms(s) : 0,
		.outside = s->desk ? desk_outside(s->desk) : NULL,
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
	const uint64_t formats[] = {bridge_save_format(), broker_save_format(), desk_save_format()};

	return sd_fnv(SD_FNV_BASIS, formats, sizeof formats);
}

static int read_letters(struct worker *w, void *n)
{
	*(unsigned *)n += bridge_read(w->bridge);
	return 0;
}

static int suspend(struct worker *w, void *p)
{
	return bridge_suspend(w->bridge, p);
}

/* Letters answer letters. */
static void read_all_letters(struct service *s)
{
	unsigned n;

	do {
		n = desk_progress(s->desk, s->broker);
		each_worker(s, read_letters, &n);
	} while (n);
}

static int save(struct service *s, struct sd_pack *p)
{
	int r = 0;

	sd_pack_fd(p, broker_door(s->broker));
	sd_pack_fd(p, s->successors);
	sd_pack_u32(p, s->desk ? s->n_workers : 0);
	broker_save(s->broker, p);
	if (s->desk)
		desk_save(s->desk, p);
	if (p->failed)
		return -ENOMEM;
	if (s->desk) {
		s->suspended = true;
		r = each_worker(s, suspend, p);
	}
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
	workers_park(s);
	if (s->desk)
		read_all_letters(s);
	r = save(s, &p);
	if (!r)
		r = takeover_give(channel, &p, since);
	sd_pack_free(&p);
	sd_fd_close(&channel);
	if (!r) {
		sd_notice("another daemon has taken over");
		return true;
	}
	sd_error("a daemon that wanted to take over has not (%s); this one goes on", strerror(-r));
	s->resume_at = 0;
	if (s->suspended)
		open_ports_again(s);
	else
		workers_go(s);
	return false;
}

struct restoring {
	struct broker *broker;
	struct sd_unpack *u;
};

static int restore_bridge(struct worker *w, void *arg)
{
	const struct restoring *r = arg;

	return bridge_restore(w->bridge, r->broker, r->u);
}

static int restore(struct service *s, struct sd_unpack *u)
{
	int r = broker_restore(s->broker, u, sd_clock_ns());

	if (!r && s->desk)
		r = desk_restore(s->desk, s->broker, u);
	if (!r && s->desk)
		r = each_worker(s, restore_bridge, &(struct restoring){s->broker, u});
	if (r)
		sd_error("cannot go on with what the running daemon has: %s", strerror(-r));
	return r;
}

int service_take_over(struct service *s, struct sd_unpack *u)
{
	int door = sd_unpack_fd(u), successors = sd_unpack_fd(u), r;
	unsigned theirs = sd_unpack_u32(u), ours = s->desk ? s->n_workers : 0;

	if (door >= 0 && theirs == ours) {
		r = service_listen(s, door, successors);
		return r ? r : restore(s, u);
	}
	sd_fd_close(&door);
	sd_fd_close(&successors);
	if (!theirs != !ours)
		sd_error(
			"the running daemon has ports and this one none, or the other way about; restart it");
	else
		sd_error("the running daemon has %u engines and this one %u; name as many cores, or restart "
			 "it",
			theirs, ours);
	return -EXDEV;
}

static int restored(struct worker *w, void *arg)
{
	bridge_restored(w->bridge);
	return 0;
}

void service_taken_over(struct service *s)
{
	if (s->desk)
		each_worker(s, restored, NULL);
}

/* --- serving --- */

bool service_run(struct service *s, int signals, bool (*on_signals)(struct service *s, int signals))
{
	struct pollfd p[N_WATCHED] = {[BROKER] = {.fd = broker_fd(s->broker), .events = POLLIN},
		[LETTERS] = {.fd = s->desk ? desk_post(s->desk)->bell : -1, .events = POLLIN},
		[SIGNALS] = {.fd = signals, .events = POLLIN},
		[SUCCESSORS] = {.fd = s->successors, .events = POLLIN}};

	workers_go(s);
	for (bool more = true; more;) {
		refresh_table(s);
		if (worker_poll(&s->workers[0], round_of, s))
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

static void tell_of_workers(struct service *s)
{
	struct bridge_stats b;

	for (unsigned i = 0; i < s->n_workers; i++) {
		bridge_stats(s->workers[i].bridge, &b);
		sd_notice("engine %u: %lu connections with other hosts; %lu made", i, b.connections, b.made);
	}
	if (s->crew)
		sd_notice("%lu frames handed over", pv_ether_crew_handed(s->crew));
}

void service_tell(struct service *s)
{
	struct broker_stats b;

	broker_stats(s->broker, &b);
	sd_notice(
		"%lu programs, %lu listeners, %lu connections; %lu made, %lu refused, %lu offered again, %lu "
		"bad messages",
		b.clients, b.listeners, b.streams, b.joined, b.refused, b.offered_again, b.bad_messages);
	if (s->desk && !s->suspended)
		tell_of_workers(s);
}

void service_rules_changed(struct service *s)
{
	broker_permits_changed(s->broker);
}

/* They still need worker 0, who receives for them or has what they receive for it. */
static void quit_workers(struct service *s)
{
	for (unsigned i = 1; i < s->n_workers; i++)
		worker_quit(&s->workers[i]);
	for (unsigned i = 1; i < s->n_workers; i++) {
		while (!worker_has_quit(&s->workers[i]))
			worker_round(&s->workers[0]);
		worker_close(&s->workers[i]);
	}
}

void service_close(struct service *s)
{
	stattable_remove(&s->table);
	if (s->broker)
		broker_close(s->broker);
	sd_fd_close(&s->successors);
	quit_workers(s);
	if (s->n_workers)
		worker_close(&s->workers[0]);
	if (s->desk)
		desk_close(s->desk);
	if (s->crew)
		pv_ether_crew_close(s->crew);
	free(s);
}

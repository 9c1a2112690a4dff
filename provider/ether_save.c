/* SPDX-License-Identifier: BSD-3-Clause */
/* What the ether provider has, for another process to go on with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fnv.h"
#include "base/log.h"
#include "provider/domain_private.h"
#include "provider/ether_private.h"

/* To be changed with what is written here. */
#define FORMAT 1u

static struct ether *of(struct pv *p)
{
	return container_of(p, struct ether, pv);
}

/* --- saving --- */

/* Connections name their port by its number, and peers know it by its address. Whoever opens it next, gives
 * it the same address and MTU: connections' headers have the one, their packets are made for the other.
 */
static void save_ports(struct sd_pack *p, struct ether *x)
{
	sd_pack_u32(p, x->engine.n_ports);
	for (unsigned i = 0; i < x->engine.n_ports; i++) {
		struct port_config *c = &x->ports[i].port;

		memcpy(c->mac, x->engine.ports[i].info.mac, sizeof c->mac);
		c->mtu = x->engine.ports[i].info.mtu;
		sd_pack_bytes(p, x->ports[i].netdev, strlen(x->ports[i].netdev) + 1);
		sd_pack_value(p, c->mac);
		sd_pack_value(p, c->mtu);
	}
}

int pv_ether_suspend(struct pv *p, struct sd_pack *pack)
{
	struct ether *x = of(p);

	if (!x->started)
		return -EAGAIN;
	engine_flush(&x->engine, sd_clock_ns());
	save_ports(pack, x);
	ether_close_ports(x);
	tp_save(x->engine.tp, sd_clock_ns(), pack);
	return 0;
}

void pv_ether_save_ep(const struct pv_ep *ep, struct sd_pack *pack)
{
	const struct ether_ep *e = container_of(ep, struct ether_ep, ep);

	sd_pack_u64(pack, e->conn ? tp_saved_name(e->conn) : 0);
	sd_pack_value(pack, e->state);
	sd_pack_value(pack, e->local);
	sd_pack_value(pack, e->peer);
	sd_pack_value(pack, e->wr_shut);
	sd_pack_value(pack, e->rd_shut);
	sd_pack_value(pack, e->more);
	sd_pack_value(pack, e->result);
	sd_pack_value(pack, e->reason);
	sd_pack_value(pack, e->options);
}

enum sd_reason pv_ether_resume(struct pv *p)
{
	struct ether *x = of(p);
	enum sd_reason r = ether_open_ports(x, false);

	if (r != SD_REASON_SAN)
		return r;
	/* Those that have come meanwhile. */
	list_for_each (it, &x->listeners) {
		struct ether_ep *e = container_of(it, struct ether_ep, node);

		if (!e->listener)
			ether_ep_listen_now(e);
	}
	engine_announce(&x->engine);
	return r;
}

/* --- restoring --- */

enum sd_reason pv_ether_prepare(struct pv *p)
{
	struct ether *x = of(p);
	char err[256] = "";

	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		if (x->given[i] || !port_prepare(&x->ports[i].port, err, sizeof err))
			continue;
		sd_error("SAN port %s cannot be used: %s", x->ports[i].port.name, err);
		if (x->cfg.n_ports == 1) /* one of several is awaited */
			return SD_REASON_START_FAILED;
	}
	return SD_REASON_SAN;
}

static bool restore_ports(struct ether *x, struct sd_unpack *u)
{
	if (sd_unpack_u32(u) != x->cfg.n_ports)
		return false;
	for (unsigned i = 0; i < x->cfg.n_ports; i++) {
		size_t len = strlen(x->ports[i].netdev) + 1;
		const char *netdev = sd_unpack_view(u, len);

		sd_unpack_value(u, x->ports[i].port.mac);
		sd_unpack_value(u, x->ports[i].port.mtu);
		if (u->failed || memcmp(netdev, x->ports[i].netdev, len))
			return false;
	}
	return true;
}

enum sd_reason pv_ether_restore(struct pv *p, struct sd_unpack *u)
{
	struct ether *x = of(p);

	if (x->started || !restore_ports(x, u)) {
		sd_error("the configured ports are not those of the process that has them");
		return SD_REASON_START_FAILED;
	}
	return ether_start_from(x, u);
}

static void on_owned(void *ctx, uint64_t name, struct tp_conn *c)
{
	struct ether *x = ctx;
	unsigned n = x->n_restored;
	struct ether_restored *more;

	if (!(n & (n - 1))) {
		more = realloc(x->restored, (n ? 2 * n : 1) * sizeof *more);
		if (!more) {
			tp_close(c, sd_clock_ns(), true);
			return;
		}
		x->restored = more;
	}
	x->restored[n] = (struct ether_restored){name, c};
	x->n_restored++;
}

static int by_name(const void *a, const void *b)
{
	const struct ether_restored *x = a, *y = b;

	return x->name < y->name ? -1 : x->name > y->name;
}

enum sd_reason ether_restore_transport(struct ether *x, struct sd_unpack *saved)
{
	int r = tp_restore(x->engine.tp, sd_clock_ns(), saved, on_owned, x);

	if (r) {
		sd_error("the connections cannot be taken over: %s", strerror(-r));
		free(x->restored);
		x->restored = NULL;
		x->n_restored = 0;
		return r == -ENOMEM ? SD_REASON_NO_MEMORY : SD_REASON_START_FAILED;
	}
	if (x->n_restored)
		qsort(x->restored, x->n_restored, sizeof *x->restored, by_name);
	return SD_REASON_SAN;
}

static struct tp_conn *claim(struct ether *x, uint64_t name)
{
	const struct ether_restored key = {.name = name};
	struct ether_restored *r =
		x->n_restored ? bsearch(&key, x->restored, x->n_restored, sizeof *r, by_name) : NULL;
	struct tp_conn *c = r ? r->conn : NULL;

	if (r)
		r->conn = NULL;
	return c;
}

/* A question on its way is asked again. */
static void ask_again(struct ether *x, struct ether_ep *e)
{
	int port;

	if (ether_find_route(x, &e->peer, &e->local, &port) == SD_REASON_SAN) {
		ether_ep_connect(e, (unsigned)port, sd_clock_ns());
		return;
	}
	e->state = ETHER_FAILED;
	e->result = -ENETUNREACH;
	e->reason = SD_REASON_NO_ROUTE;
}

int pv_ether_restore_ep(struct pv *p, struct sd_unpack *u, void *user, struct pv_ep **out)
{
	struct ether *x = of(p);
	struct ether_ep *e = ether_ep_new(x, user);
	uint64_t name = sd_unpack_u64(u);

	if (!e)
		return -ENOMEM;
	sd_unpack_value(u, e->state);
	sd_unpack_value(u, e->local);
	sd_unpack_value(u, e->peer);
	sd_unpack_value(u, e->wr_shut);
	sd_unpack_value(u, e->rd_shut);
	sd_unpack_value(u, e->more);
	sd_unpack_value(u, e->result);
	sd_unpack_value(u, e->reason);
	sd_unpack_value(u, e->options);
	e->conn = u->failed ? NULL : claim(x, name);
	sd_unpack_check(u, e->state > ETHER_LISTENING && e->state <= ETHER_FAILED && !name == !e->conn &&
				   (e->conn || e->state == ETHER_RESOLVING || e->state == ETHER_FAILED));
	if (u->failed) {
		if (e->conn)
			tp_close(e->conn, sd_clock_ns(), true);
		free(e);
		return -EPROTO;
	}
	if (e->conn)
		tp_set_user(e->conn, e);
	else if (e->state == ETHER_RESOLVING)
		list_push_back(&x->unasked, &e->wait.node);
	*out = &e->ep;
	return 0;
}

void pv_ether_restored(struct pv *p)
{
	struct ether *x = of(p);
	struct list *it;

	for (unsigned i = 0; i < x->n_restored; i++) {
		if (x->restored[i].conn)
			tp_close(x->restored[i].conn, sd_clock_ns(), true);
	}
	free(x->restored);
	x->restored = NULL;
	x->n_restored = 0;
	while ((it = list_pop_front(&x->unasked)))
		ask_again(
			x, container_of(container_of(it, struct resolver_wait, node), struct ether_ep, wait));
	engine_announce(&x->engine);
	engine_flush(&x->engine, sd_clock_ns());
}

uint64_t pv_ether_save_format(void)
{
	const uint64_t sizes[] = {
		FORMAT, sizeof(struct pv_options), sizeof(struct sd_addr), ETHER_FAILED, SD_REASON_COUNT};

	return sd_fnv(tp_save_format(), sizes, sizeof sizes);
}

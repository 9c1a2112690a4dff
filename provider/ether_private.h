/* SPDX-License-Identifier: BSD-3-Clause */
/* What ether.c (provider) and ether_ep.c (endpoints) share. All of it is guarded by the domain's token. */
#ifndef SD_PROVIDER_ETHER_PRIVATE_H
#define SD_PROVIDER_ETHER_PRIVATE_H

#include "base/list.h"
#include "drivers/netif.h"
#include "provider/engine.h"
#include "provider/registry.h"

struct ether {
	struct pv pv;
	struct pv_ether_config cfg; /* strings and ports are our copies */
	struct pv_ether_port ports[ENGINE_MAX_PORTS];
	struct port *given[ENGINE_MAX_PORTS]; /* opened by somebody else, or NULL */
	uint64_t handed;		      /* frames that others of the crew got, when last asked */
	struct netif *netif;		      /* NULL until the first question about routes */
	int netif_owner;		      /* pid that opened it: a forked child opens its own */
	uint64_t netif_seen;		      /* generation the engine's addresses come from */
	uint64_t netif_polled;
	struct engine engine; /* when started */
	bool started;
	enum sd_reason failed; /* why the last start failed */
	uint64_t retry_at;
	uint64_t poll_links_at;		/* UINT64_MAX: not before the next housekeeping */
	uint64_t link_expected;		/* until then a connect waits for the link */
	int locks[ENGINE_MAX_PORTS][2]; /* lock files, or -1: of the device and of its standby */
	int wait_set;	       /* epoll set over the ports' descriptors when there are several, or -1 */
	struct list listeners; /* ether_ep.node */
	struct ether_restored *restored; /* connections whose endpoints have not been restored yet */
	unsigned n_restored;
	struct list unasked; /* restored, ether_ep.wait.node: their question is still to be asked */
};

/* A connection of another process's, by the name it has in what that saved. */
struct ether_restored {
	uint64_t name;
	struct tp_conn *conn; /* NULL: it has its endpoint */
};

enum ether_state {
	ETHER_LISTENING,
	ETHER_RESOLVING,  /* waits for the peer's native address */
	ETHER_CONNECTING, /* INIT is on its way */
	ETHER_OPEN,
	ETHER_FAILED, /* before it was ever open; result and reason say why */
};

struct ether_ep {
	struct pv_ep ep;
	void *user;
	enum ether_state state;
	struct sd_addr local, peer;
	struct list node;	      /* listener: on ether.listeners */
	struct resolver_wait wait;    /* while resolving */
	struct tp_conn *conn;	      /* from CONNECTING on */
	struct tp_listener *listener; /* once started */
	unsigned backlog;
	bool wr_shut, rd_shut;
	bool more;  /* the last send said that more follows */
	int result; /* of the connection attempt */
	enum sd_reason reason;
	struct pv_options options; /* given before there was a connection */
};

static inline struct ether *ether_of(struct ether_ep *e)
{
	return container_of(e->ep.pv, struct ether, pv);
}

extern const struct pv_ep_ops ether_ep_ops;

/* --- ether.c --- */

/* What the kernel's interfaces have, to the engine. */
void ether_give_addrs(struct ether *x);
/* Starts; saved: going on with what another process has had (ether_save.c), or NULL. */
enum sd_reason ether_start_from(struct ether *x, struct sd_unpack *saved);
/* Which of our ports leads to peer, and from which address. */
enum sd_reason ether_find_route(
	struct ether *x, const struct sd_addr *peer, struct sd_addr *local, int *port);

/* --- ether_ports.c --- */

/* With their interfaces of the kernel's; what has failed is logged, and awaited if others have not and not
 * all have to be there. Connections stay. */
enum sd_reason ether_open_ports(struct ether *x, bool all);
void ether_close_ports(struct ether *x);
/* Its interface may have been deleted: the descriptor is readable for ever then. */
void ether_look_after_kernel(struct ether *x, struct engine_port *p);
/* Takes over port, a simulated one, say; the next start uses it for configured port i instead of opening its
 * device. */
void ether_give_port(struct pv *p, unsigned i, struct port *port);
/* Why connections use kernel TCP after this error. */
enum sd_reason ether_reason_of(int error);

/* --- ether_save.c --- */

enum sd_reason ether_restore_transport(struct ether *x, struct sd_unpack *saved);

/* --- ether_ep.c --- */

struct ether_ep *ether_ep_new(struct ether *x, void *user);
/* Puts a listener into the started engine. */
int ether_ep_listen_now(struct ether_ep *e);
/* Begins to connect; the outcome is in the endpoint. */
void ether_ep_connect(struct ether_ep *e, unsigned port_index, uint64_t now);
/* Upcalls of the engine. */
void ether_ep_event(void *ctx, struct tp_conn *c, void *user, unsigned events);
void ether_ep_acceptable(void *ctx, void *user);
void ether_ep_resolved(
	void *ctx, struct resolver_wait *w, enum resolver_result result, const struct tp_path *path);

#endif

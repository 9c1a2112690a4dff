/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chain: frames that go on in the caller's memory. Each piece is an mbuf of our pool with an external buffer
 * attached; what DPDK wants to count its references with lies in that mbuf's own buffer, which nobody uses
 * meanwhile. A frame's mbufs are freed from the first to the last, so the last piece tells for all.
 */
#include <errno.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_vfio.h>
#include <string.h>
#include <unistd.h>

#include "drivers/dpdk/ethdev.h"

enum { SEGMENTS = 8 };

/* Who refers to a piece. */
struct holder {
	struct rte_mbuf_ext_shared_info info;
	struct eth_queue *queue;
	uint64_t token;
};

/* Drivers that copy what is sent, by the CPU. */
static bool copies(const struct eth_port *e)
{
	return !strcmp(e->driver, "net_vhost") || !strcmp(e->driver, "net_memif");
}

/* Virtual devices tell their peer of DPDK's own memory only, and net_virtio_user takes frames back late and
 * on no one's word.
 */
bool eth_sends_from_anywhere(const struct eth_port *e)
{
	return strncmp(e->driver, "net_virtio_user", 15) && strcmp(e->driver, "net_sandirect_virtio");
}

/* --- memory --- */

/* What of it may be registered: whole pages. */
static void *pages(void *at, size_t *len)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)at & ~(page - 1);

	*len = ((uintptr_t)at + *len + page - 1 - from) & ~(page - 1);
	return (void *)from;
}

int eth_map(struct port *p, void *at, size_t len)
{
	struct eth_port *e = eth_of(p)->port;
	void *from = pages(at, &len);

	if (!(e->caps & PORT_CAP_EXT_TX))
		return -ENOTSUP;
	if (copies(e))
		return 0;
	if (!e->device) /* unplugged */
		return -ENOTSUP;
	if (rte_eal_iova_mode() != RTE_IOVA_VA)
		return -ENOTSUP; /* its pages are anywhere */
	if (rte_extmem_register(from, len, NULL, 0, (size_t)sysconf(_SC_PAGESIZE)))
		return -rte_errno;
	if (!rte_dev_dma_map(e->device, from, (uintptr_t)from, len))
		return 0;
	rte_extmem_unregister(from, len);
	return -ENOTSUP;
}

void eth_unmap(struct port *p, void *at, size_t len)
{
	struct eth_port *e = eth_of(p)->port;
	void *from = pages(at, &len);

	if (copies(e))
		return;
	if (e->device)
		rte_dev_dma_unmap(e->device, from, (uintptr_t)from, len);
	else /* else it would be there again with the next device */
		rte_vfio_container_dma_unmap(
			RTE_VFIO_DEFAULT_CONTAINER_FD, (uintptr_t)from, (uintptr_t)from, len);
	rte_extmem_unregister(from, len);
}

/* --- frames --- */

void eth_set_released(struct port *p, port_released *released, void *ctx)
{
	eth_of(p)->released = released;
	eth_of(p)->released_ctx = ctx;
}

static void on_free(void *at, void *opaque)
{
	struct holder *h = opaque;

	h->queue->released(h->queue->released_ctx, h->token);
}

static void on_free_quietly(void *at, void *opaque)
{
}

static void attach_piece(
	struct eth_queue *q, struct rte_mbuf *m, const struct port_piece *piece, uint64_t token, bool last)
{
	struct holder *h = (struct holder *)(void *)eth_room_of(m);

	h->queue = q;
	h->token = token;
	h->info.free_cb = last ? on_free : on_free_quietly;
	h->info.fcb_opaque = h;
	rte_mbuf_ext_refcnt_set(&h->info, 1);
	m->ol_flags = 0;
	rte_pktmbuf_attach_extbuf(
		m, (void *)(uintptr_t)piece->at, (uintptr_t)piece->at, (uint16_t)piece->len, &h->info);
	m->data_len = (uint16_t)piece->len;
}

static void write_tail(struct rte_mbuf *m, const void *tail, unsigned len)
{
	m->ol_flags = 0;
	m->data_off = RTE_PKTMBUF_HEADROOM;
	m->data_len = (uint16_t)len;
	memcpy(eth_room_of(m) + RTE_PKTMBUF_HEADROOM, tail, len);
}

int eth_tx_chain(struct port *p, struct port_frame *f, const struct port_piece *pieces, unsigned n,
	const void *tail, unsigned tail_len, uint64_t token)
{
	unsigned more = n + (tail_len > 0);
	struct rte_mbuf *head = f->handle, *last = head;
	struct eth_queue *q = eth_of(p);
	void *mbufs[SEGMENTS];

	if (more > SEGMENTS || rte_mempool_generic_get(q->pool, mbufs, more, q->cache))
		return -ENOBUFS;
	head->data_len = (uint16_t)f->len;
	head->nb_segs = (uint16_t)(1 + more);
	for (unsigned i = 0; i < more; i++) {
		struct rte_mbuf *m = mbufs[i];

		if (i < n)
			attach_piece(q, m, &pieces[i], token, i == n - 1);
		else
			write_tail(m, tail, tail_len);
		f->len += m->data_len;
		last->next = m;
		last = m;
	}
	f->flags |= PORT_TX_CHAINED;
	return 0;
}

void eth_reclaim(struct port *p)
{
	const struct eth_queue *q = eth_of(p);

	if (q->port->started)
		rte_eth_tx_done_cleanup(q->port->id, q->index, 0);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libFuzzer target: one virtqueue of ours and a device that does whatever the bytes say, between the driver's
 * bursts: it uses buffers as it should or with other ids and lengths, and writes anywhere into ring and
 * buffers. What the driver hands out has to be sound, each mbuf once, and all come back.
 */
#include <rte_eal.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <sched.h>
#include <string.h>

#include "drivers/virtio/device.h"
#include "drivers/virtio/frame.h"
#include "drivers/virtio/packed.h"
#include "drivers/virtio/split.h"
#include "tests/fuzz.h"

enum {
	MBUFS = 512,
	ROOM = 256,
	RING = 64,
	MTU = 200,
	BURST = 16,
	STEPS = 400, /* of an input that are taken */
};

static struct rte_mempool *pool;
static struct vn_queue *queues[2]; /* VN_RX, VN_TX */
static bool ours[MBUFS];	   /* by number: handed out, and not given back */
static uint8_t *base;		   /* of the pool's memory */
static size_t bytes;

struct input {
	const uint8_t *p;
	size_t left;
};

/* The device's side of the ring. */
struct device {
	struct vn_queue *q;
	uint16_t avail, used; /* split: they run freely; packed: places */
	bool avail_wrap, used_wrap;
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* --- what the rings ask of the device --- */

int vn_log_type;

void vn_device_broke(struct vn_dev *d, struct vn_queue *q, const char *what)
{
}

uint16_t vn_device_id(const struct vn_dev *d)
{
	return 0;
}

uint32_t vn_device_frame(const struct vn_dev *d)
{
	return MTU + RTE_ETHER_HDR_LEN;
}

uint32_t vn_device_longest(const struct vn_dev *d)
{
	return 4 * ROOM;
}

static void ignore(struct vn_queue *q)
{
}

static const struct vn_bus bus = {.notify = ignore};
static struct vn_dev device_of_queues = {.bus = &bus};

/* --- mbufs --- */

static void number(struct rte_mempool *p, void *arg, void *obj, unsigned index)
{
	*(uint32_t *)rte_mbuf_to_priv(obj) = index;
}

static void find_memory(struct rte_mempool *p, void *arg, struct rte_mempool_memhdr *h, unsigned index)
{
	require(!index); /* one piece */
	base = h->addr;
	bytes = h->len;
}

/* Whoever had it: nobody may have it twice. */
static void hand(struct rte_mbuf *m, bool to_us)
{
	for (; m; m = m->next) {
		uint32_t index;

		require((uint8_t *)m >= base && (uint8_t *)m < base + bytes);
		index = *(uint32_t *)rte_mbuf_to_priv(m);
		require(index < MBUFS && ours[index] != to_us);
		ours[index] = to_us;
	}
}

static uint8_t byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->p++;
}

static uint16_t word(struct input *in)
{
	uint16_t low = byte(in);

	return (uint16_t)(low | byte(in) << 8);
}

/* --- the driver's owner --- */

static void check(const struct rte_mbuf *m)
{
	uint32_t total = 0, segments = 0;

	for (const struct rte_mbuf *s = m; s; s = s->next) {
		require(s->data_off + (uint32_t)s->data_len <= s->buf_len);
		require(rte_mbuf_refcnt_read(s) == 1);
		total += s->data_len;
		require(++segments <= MBUFS);
	}
	require(total && total == m->pkt_len && segments == m->nb_segs);
}

static void receive(struct vn_queue *q, unsigned most)
{
	struct rte_mbuf *pkts[BURST];
	uint16_t n = vn_queue_burst(q, pkts, (uint16_t)most);

	require(n <= most);
	for (uint16_t i = 0; i < n; i++) {
		hand(pkts[i], true);
		check(pkts[i]);
	}
	for (uint16_t i = 0; i < n; i++) {
		hand(pkts[i], false);
		rte_pktmbuf_free(pkts[i]);
	}
}

static struct rte_mbuf *compose(struct input *in)
{
	uint8_t shape = byte(in);
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	if (!m)
		return NULL;
	if (shape & 1) /* no room for a header in front */
		m->data_off = 0;
	memset(rte_pktmbuf_append(m, 60), 0, 60);
	if (shape & 2) {
		m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
		m->l2_len = shape & 4 ? 14 : 40; /* perhaps beyond its end */
		m->l3_len = 20;
	}
	if (shape & 8)
		m->ol_flags |= RTE_MBUF_F_TX_VLAN;
	for (unsigned more = shape >> 4 == 15 ? 20 : shape >> 6; more; more--) {
		struct rte_mbuf *s = rte_pktmbuf_alloc(pool);

		if (!s)
			break;
		rte_pktmbuf_append(s, 10);
		require(!rte_pktmbuf_chain(m, s));
	}
	return m;
}

static void send_some(struct vn_queue *q, struct input *in, unsigned n)
{
	struct rte_mbuf *pkts[BURST];
	unsigned made = 0, sent;

	while (made < n && (pkts[made] = compose(in)))
		made++;
	sent = vn_queue_burst(q, pkts, (uint16_t)made);
	require(sent <= made);
	for (unsigned i = sent; i < made; i++)
		rte_pktmbuf_free(pkts[i]);
}

/* --- the device --- */

static bool packed(const struct device *d)
{
	return d->q->mode.packed;
}

/* The next buffer that the driver has given it, as the ring says. */
static bool next(struct device *d, uint16_t *id, uint64_t *addr, uint16_t *count)
{
	struct vn_queue *q = d->q;

	*count = 0;
	if (!packed(d)) {
		if (q->split.avail->idx == d->avail)
			return false;
		*id = q->split.avail->ring[d->avail++ & q->mask] & q->mask;
		*addr = q->split.desc[*id].addr;
		return true;
	}
	for (;;) {
		const struct vn_pdesc *p = &q->packed.desc[d->avail];

		if (!*count && (!(p->flags & VN_DESC_AVAIL) == d->avail_wrap ||
				       !(p->flags & VN_DESC_USED) != d->avail_wrap))
			return false;
		*addr = p->addr;
		*id = p->id;
		++*count;
		if (++d->avail == q->size) {
			d->avail = 0;
			d->avail_wrap = !d->avail_wrap;
		}
		if (!(p->flags & VN_DESC_NEXT) || *count == q->size)
			return true;
	}
}

static void use(struct device *d, uint16_t id, uint32_t len, uint16_t count)
{
	struct vn_queue *q = d->q;
	struct vn_pdesc *p = &q->packed.desc[d->used];

	if (!packed(d)) {
		q->split.used->ring[d->used++ & q->mask] = (struct vn_used_elem){id, len};
		q->split.used->idx = d->used;
		return;
	}
	p->id = id;
	p->len = len;
	p->flags = d->used_wrap ? VN_DESC_AVAIL | VN_DESC_USED : 0;
	d->used = (uint16_t)(d->used + count);
	if (d->used >= q->size) {
		d->used = (uint16_t)(d->used - q->size);
		d->used_wrap = !d->used_wrap;
	}
}

/* Into the buffer, if that is one: the bytes of the ring may be the fuzzer's. */
static void write_header(uint64_t addr, uint8_t flags, uint16_t num_buffers)
{
	struct vn_hdr h = {.flags = flags, .gso_type = flags >> 2, .num_buffers = num_buffers};
	struct rte_mbuf *m;

	if (addr < (uintptr_t)base || addr - (uintptr_t)base > bytes - sizeof h)
		return;
	for (unsigned i = 0; i < queues[VN_RX]->ring_size; i++) {
		m = queues[VN_RX]->mbufs[i];
		if (m && addr - (uintptr_t)m->buf_addr <= m->buf_len - sizeof h)
			memcpy((void *)(uintptr_t)addr, &h, sizeof h);
	}
}

enum { HONEST, OTHER_ID, OTHER_LENGTH, OTHER_COUNT };

static void use_some(struct device *d, struct input *in, unsigned n, unsigned lie)
{
	while (n--) {
		uint16_t id, count, parts = 1;
		uint32_t len = 60 + sizeof(struct vn_hdr);
		uint64_t addr;

		if (!next(d, &id, &addr, &count)) {
			if (lie == HONEST)
				return;
			id = 0;
			addr = 0;
			count = 1;
		}
		if (lie == OTHER_ID)
			id = byte(in);
		if (lie == OTHER_LENGTH)
			len = word(in);
		if (lie == OTHER_COUNT)
			parts = byte(in);
		if (d->q->kind == VN_RX)
			write_header(addr, (uint8_t)(lie ? byte(in) : 0), parts);
		use(d, id, len, count);
	}
}

static void poke(struct device *d, struct input *in)
{
	uint8_t *ring = d->q->zone->addr;
	size_t end = d->q->ring_addr[2] - d->q->ring_addr[0] +
		     (packed(d) ? sizeof(struct vn_event)
				: sizeof(struct vn_used) + d->q->size * sizeof(struct vn_used_elem) + 2);
	uint16_t at = word(in), value = word(in);

	if (at + sizeof value <= end)
		memcpy(ring + at, &value, sizeof value);
}

/* --- one input --- */

static void lay_out(struct device *d, uint8_t kind, uint8_t bits, uint8_t size)
{
	struct vn_queue_mode mode = {
		.packed = bits & 1,
		.in_order = bits & 2,
		.event_idx = bits & 4,
		.mergeable = bits & 8,
		.indirect = bits & 16,
		.rx_offload = bits & 32,
		.tx_csum = bits & 64,
		.vlan_strip = bits & 128,
	};

	d->q = queues[kind & 1 ? VN_TX : VN_RX];
	d->q->pool = d->q->kind == VN_RX ? pool : NULL;
	vn_queue_reset(d->q, (uint16_t)(4 << size % 5), &mode);
	d->avail = d->used = 0;
	d->avail_wrap = d->used_wrap = true;
	vn_queue_start(d->q);
}

static void step(struct device *d, struct input *in)
{
	uint8_t op = byte(in);
	unsigned n = op >> 4;

	switch (op & 7) {
	case 0:
	case 1:
		if (d->q->kind == VN_RX)
			receive(d->q, n + 1);
		else
			send_some(d->q, in, n + 1);
		break;
	case 2:
		use_some(d, in, n + 1, HONEST);
		break;
	case 3:
		use_some(d, in, n & 3, OTHER_ID);
		break;
	case 4:
		use_some(d, in, n & 3, OTHER_LENGTH);
		break;
	case 5:
		use_some(d, in, n & 3, OTHER_COUNT);
		break;
	case 6:
		poke(d, in);
		break;
	case 7:
		vn_queue_interrupt(d->q, n & 1);
		if (d->q->kind == VN_TX && n & 2)
			require((unsigned)vn_queue_reclaim(d->q, n) <= d->q->size);
		require(vn_queue_waiting(d->q) <= d->q->size);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	struct device d;
	uint8_t kind = byte(&in), bits = byte(&in);

	lay_out(&d, kind, bits, byte(&in));
	for (unsigned i = 0; in.left && i < STEPS; i++)
		step(&d, &in);
	vn_queue_stop(d.q);
	vn_queue_empty(d.q);
	require(rte_mempool_avail_count(pool) == MBUFS);
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	cpu_set_t cpus;
	char lcores[32];
	const char *eal[] = {(*argv)[0], "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "-m", "32",
		"--log-level=1", lcores, NULL};

	snprintf(lcores, sizeof lcores, "--lcores=0@%d", sched_getcpu());
	sched_getaffinity(0, sizeof cpus, &cpus);
	require(rte_eal_init(sizeof eal / sizeof *eal - 1, (char **)eal) >= 0);
	sched_setaffinity(0, sizeof cpus, &cpus);
	pool = rte_pktmbuf_pool_create(
		"pool", MBUFS, 0, RTE_MBUF_PRIV_ALIGN, RTE_PKTMBUF_HEADROOM + ROOM, SOCKET_ID_ANY);
	require(pool);
	rte_mempool_obj_iter(pool, number, NULL);
	rte_mempool_mem_iter(pool, find_memory, NULL);
	vn_queue_prepare();
	queues[VN_RX] = vn_queue_new(&device_of_queues, VN_RX, 0, RING, SOCKET_ID_ANY);
	queues[VN_TX] = vn_queue_new(&device_of_queues, VN_TX, 1, RING, SOCKET_ID_ANY);
	require(queues[VN_RX] && queues[VN_TX]);
	return 0;
}

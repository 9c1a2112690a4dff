/* SPDX-License-Identifier: BSD-3-Clause */
/* tp: one protocol instance: defaults, keys, tables, and the clock's way in. */
#include <errno.h>

#include "transport/qp.h"

const struct tp_cc_ops *tp_cc_named(const char *name)
{
	static const struct tp_cc_ops *const all[] = {&tp_cc_swift, &tp_cc_dctcp, &tp_cc_fixed};

	for (unsigned i = 0; name && i < sizeof all / sizeof *all; i++) {
		if (!strcmp(all[i]->name, name))
			return all[i];
	}
	return NULL;
}

static bool power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static void set_default64(uint64_t *v, uint64_t otherwise)
{
	if (!*v)
		*v = otherwise;
}

static void set_default32(uint32_t *v, uint32_t otherwise)
{
	if (!*v)
		*v = otherwise;
}

static int settle_config(struct tp_config *cfg)
{
	set_default32(&cfg->max_conns, 65536);
	set_default32(&cfg->ring_min, 16u << 10);
	set_default32(&cfg->ring_max, 4u << 20);
	set_default32(&cfg->window_packets, 512);
	set_default32(&cfg->crowd, 65);
	set_default64(&cfg->ack_delay_ns, 50 * SD_US);
	set_default64(&cfg->max_ack_delay_ns, 10 * SD_MS);
	set_default64(&cfg->connect_timeout_ns, 200 * SD_MS);
	set_default64(&cfg->dead_timeout_ns, 5 * SD_S);
	set_default64(&cfg->keepalive_ns, 2 * SD_S);
	set_default64(&cfg->rest_ns, 5 * SD_S);
	if (cfg->engine >= TP_ENGINES || cfg->max_conns > 1u << TP_CID_BITS ||
		!power_of_two(cfg->window_packets) || cfg->window_packets > TP_BITS ||
		cfg->window_packets < TP_SENT_MIN || !power_of_two(cfg->ring_min) ||
		!power_of_two(cfg->ring_max) || cfg->ring_min < 4096 || cfg->ring_max < cfg->ring_min ||
		cfg->ring_max > TP_RING_LIMIT)
		return -EINVAL;
	return 0;
}

/* Independent keys from one seed: each engine its own. To peers all of them are one host: the epoch is the
 * same. */
static void derive_keys(struct tp *t)
{
	struct sd_sipkey *keys[] = {&t->key_id, &t->key_hash, &t->key_cookie, &t->key_find};
	struct sd_sipkey root = {{t->cfg.seed[0], t->cfg.seed[1]}};
	uint64_t in[3] = {t->cfg.seed[2], t->cfg.seed[3], 0};
	uint8_t out[16];

	for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++) {
		in[2] = i + 1 + ((uint64_t)t->cfg.engine << 8);
		sd_siphash128(&root, in, sizeof in, out);
		memcpy(keys[i]->k, out, sizeof out);
	}
	in[2] = 0;
	t->epoch = sd_siphash64(&root, in, sizeof in);
	memcpy(t->key_node.k, t->cfg.node_key, sizeof t->cfg.node_key);
}

static int alloc_tables(struct tp *t)
{
	uint32_t n = t->cfg.max_conns, hash = 64;

	while (hash < n)
		hash *= 2;
	t->peers_mask = hash - 1;
	t->slots = t->ops.alloc(t->ctx, n * sizeof *t->slots);
	t->free_index = t->ops.alloc(t->ctx, n * sizeof *t->free_index);
	t->finished = t->ops.alloc(t->ctx, n * sizeof *t->finished);
	t->peers = t->ops.alloc(t->ctx, hash * sizeof *t->peers);
	if (!t->slots || !t->free_index || !t->finished || !t->peers)
		return -ENOMEM;
	t->max_conns = t->free_count = n;
	for (uint32_t i = 0; i < n; i++)
		t->free_index[i] = i;
	return 0;
}

int tp_create(const struct tp_config *cfg, const struct tp_ops *ops, void *ctx, uint64_t now, struct tp **out)
{
	struct tp_config settled = {0};
	struct tp *t;
	int err;

	memcpy(&settled, cfg, cfg->size < sizeof settled ? cfg->size : sizeof settled);
	err = settle_config(&settled);
	if (err)
		return err;
	t = ops->alloc(ctx, sizeof *t);
	if (!t)
		return -ENOMEM;
	memcpy(&t->ops, ops, ops->size < sizeof t->ops ? ops->size : sizeof t->ops);
	t->ctx = ctx;
	t->cfg = settled;
	t->cc = settled.cc ? settled.cc : &tp_cc_swift;
	t->now = t->reset_refill = now;
	t->reset_tokens = TP_RESET_BURST;
	list_init(&t->out);
	list_init(&t->ack_fifo);
	list_init(&t->holds.waiting);
	tp_wheel_init(&t->wheel, now);
	derive_keys(t);
	if (alloc_tables(t)) {
		tp_destroy(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

static void free_conn(struct tp_conn *c, void *ctx)
{
	tp_conn_free(c);
}

void tp_destroy(struct tp *t)
{
	uint32_t n = t->cfg.max_conns;

	tp_pool_each(t, free_conn, NULL);
	for (int i = 0; i < TP_PORT_BUCKETS; i++)
		while (t->listeners[i])
			tp_listener_close(t->listeners[i]);
	tp_pool_destroy(t);
	tp_regions_free(t);
	tp_holds_free(t);
	if (t->slots)
		t->ops.free(t->ctx, t->slots, n * sizeof *t->slots);
	if (t->free_index)
		t->ops.free(t->ctx, t->free_index, n * sizeof *t->free_index);
	if (t->finished)
		t->ops.free(t->ctx, t->finished, n * sizeof *t->finished);
	if (t->peers)
		t->ops.free(t->ctx, t->peers, (t->peers_mask + 1) * sizeof *t->peers);
	t->ops.free(t->ctx, t, sizeof *t);
}

static struct tp_conn *oldest_ack(const struct tp *t)
{
	return list_empty(&t->ack_fifo) ? NULL : container_of(t->ack_fifo.next, struct tp_conn, ack_node);
}

uint64_t tp_next_timeout(const struct tp *t)
{
	uint64_t next = tp_wheel_next(&t->wheel);
	const struct tp_conn *c = oldest_ack(t);

	return c && c->ack_at < next ? c->ack_at : next;
}

/* The delay is the same for all, so they come due in the order in which they began. */
static void expire_acks(struct tp *t, uint64_t now)
{
	struct tp_conn *c;

	while ((c = oldest_ack(t)) && c->ack_at <= now) {
		tp_ack_cancel(c);
		tp_ack_soon(c);
	}
}

void tp_timeout(struct tp *t, uint64_t now)
{
	struct tp_timer *timer;

	t->now = now;
	expire_acks(t, now);
	while ((timer = tp_wheel_expire(&t->wheel, now))) {
		if (__builtin_expect(tp_crowded(t), 0))
			tp_warm_timer(t);
		tp_conn_timeout(container_of(timer, struct tp_conn, timer), now);
	}
}

const struct tp_stats *tp_stats(const struct tp *t)
{
	return &t->stats;
}

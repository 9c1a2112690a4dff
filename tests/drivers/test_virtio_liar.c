/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Our virtio driver with a back end that breaks the rules: whatever it writes, the driver hands out sound
 * mbufs, each once, loses none, does not hang, and works again as soon as the back end keeps to the rules.
 *
 * test_virtio_liar DRIVER.so STEPS SEED [DEVICE-ARGUMENTS]
 */
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/virtio/spec.h"
#include "liar.h"

enum {
	MBUFS = 4096,
	ROOM = 2048,
	BURST = 32,
	RING = 256,
	SEGMENTS = 20,	 /* of a frame: more than an indirect table has */
	LOOK_EVERY = 64, /* steps, at the driver's counters */
	PATIENCE = 16,	 /* looks at a ring on which nothing goes on */
	HANG = 60,	 /* s without a step */
	HONEST = 20000,	 /* frames each way that end the test */
};

struct test {
	uint16_t port;
	struct rte_mempool *pool;
	struct liar *liar;
	uint64_t seed, received, sent, restarts, violations, refused;
	uint64_t seen[2];    /* of what was received and sent, at the last look */
	unsigned silent[2];  /* looks since */
	uint8_t ours[MBUFS]; /* by number: handed out to us */
};

#define REQUIRE(what, ...)                                                                                   \
	do {                                                                                                 \
		if (!(what)) {                                                                               \
			fprintf(stderr, "%s:%d: " #what ": ", __FILE__, __LINE__);                           \
			fprintf(stderr, __VA_ARGS__);                                                        \
			fputc('\n', stderr);                                                                 \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static unsigned below(struct test *t, unsigned n)
{
	t->seed = t->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)((t->seed >> 33) % n);
}

/* --- whose mbuf is whose --- */

static void number(struct rte_mempool *pool, void *arg, void *obj, unsigned index)
{
	*(uint32_t *)rte_mbuf_to_priv(obj) = index;
}

static uint8_t *owner(struct test *t, struct rte_mbuf *m)
{
	uint32_t index = *(uint32_t *)rte_mbuf_to_priv(m);

	REQUIRE(index < MBUFS, "mbuf number %u", index);
	return &t->ours[index];
}

static void take(struct test *t, struct rte_mbuf *m)
{
	for (; m; m = m->next) {
		REQUIRE(!*owner(t, m), "an mbuf was handed out twice");
		*owner(t, m) = 1;
	}
}

static void give(struct test *t, struct rte_mbuf *m)
{
	for (; m; m = m->next)
		*owner(t, m) = 0;
}

/* --- traffic --- */

static void check(const struct rte_mbuf *m)
{
	uint32_t total = 0, segments = 0;

	for (const struct rte_mbuf *s = m; s; s = s->next) {
		REQUIRE(s->data_off + (uint32_t)s->data_len <= s->buf_len, "%u bytes at %u of %u",
			s->data_len, s->data_off, s->buf_len);
		REQUIRE(rte_mbuf_refcnt_read(s) == 1, "%u references", rte_mbuf_refcnt_read(s));
		total += s->data_len;
		segments++;
	}
	REQUIRE(total == m->pkt_len && total, "%u bytes in all of %u", total, m->pkt_len);
	REQUIRE(segments == m->nb_segs, "%u segments of %u", segments, m->nb_segs);
}

static void receive(struct test *t)
{
	struct rte_mbuf *pkts[BURST];
	uint16_t n = rte_eth_rx_burst(t->port, 0, pkts, BURST);

	for (uint16_t i = 0; i < n; i++) {
		take(t, pkts[i]);
		check(pkts[i]);
	}
	for (uint16_t i = 0; i < n; i++) {
		give(t, pkts[i]);
		rte_pktmbuf_free(pkts[i]);
	}
	t->received += n;
}

static struct rte_mbuf *compose(struct test *t)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(t->pool);
	unsigned more = below(t, 4) ? 0 : below(t, SEGMENTS);

	if (!m)
		return NULL;
	memset(rte_pktmbuf_append(m, 60), 0, 60);
	if (!below(t, 8)) { /* a frame whose checksum is asked for */
		m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
		m->l2_len = 14;
		m->l3_len = 20;
	}
	if (!below(t, 16))
		m->ol_flags |= RTE_MBUF_F_TX_VLAN;
	while (more--) {
		struct rte_mbuf *s = rte_pktmbuf_alloc(t->pool);

		if (!s)
			break;
		rte_pktmbuf_append(s, 1 + below(t, 100));
		if (rte_pktmbuf_chain(m, s)) {
			rte_pktmbuf_free(s);
			break;
		}
	}
	return m;
}

static void send_some(struct test *t)
{
	struct rte_mbuf *pkts[4];
	uint16_t n = (uint16_t)below(t, 5), made = 0, sent;

	while (made < n && (pkts[made] = compose(t)))
		take(t, pkts[made++]);
	for (uint16_t i = 0; i < made; i++)
		give(t, pkts[i]); /* the driver may change the chain */
	sent = rte_eth_tx_burst(t->port, 0, pkts, made);
	for (uint16_t i = sent; i < made; i++)
		rte_pktmbuf_free(pkts[i]);
	t->sent += sent;
}

static uint64_t counter(struct test *t, const char *name)
{
	uint64_t id, value = 0;

	if (!rte_eth_xstats_get_id_by_name(t->port, name, &id))
		rte_eth_xstats_get_by_id(t->port, &id, &value, 1);
	return value;
}

/* A device whose answers made no sense is refused for as long as it is the same one; then once more, until
 * the alarm. */
static void start(struct test *t)
{
	while (rte_eth_dev_start(t->port)) {
		t->refused++;
		liar_hang_up(t->liar);
		usleep(1000);
	}
}

/* A lie that no driver can know for one, such as a buffer forgotten, leaves a ring on which nothing goes on.
 */
static bool is_silent(struct test *t)
{
	const uint64_t now[] = {t->received, t->sent};
	bool silent = false;

	for (unsigned i = 0; i < 2; i++) {
		t->silent[i] = now[i] == t->seen[i] ? t->silent[i] + 1 : 0;
		t->seen[i] = now[i];
		silent |= t->silent[i] >= PATIENCE;
	}
	return silent;
}

/* Resets at once, instead of in a while, for most of what the driver objects to. */
static void restart_if_broken(struct test *t)
{
	uint64_t now = counter(t, "rx_q0_violations") + counter(t, "tx_q0_violations");
	bool silent = is_silent(t);

	if (now == t->violations && !silent)
		return;
	t->violations = now;
	t->silent[0] = t->silent[1] = 0;
	if (!below(t, 50)) {
		usleep(150000); /* the driver's own reset */
		return;
	}
	REQUIRE(!rte_eth_dev_stop(t->port), "it does not stop");
	start(t);
	t->restarts++;
}

static void run(struct test *t, uint64_t steps)
{
	for (uint64_t i = 0; i < steps; i++) {
		struct rte_eth_link link;

		liar_step(t->liar);
		receive(t);
		send_some(t);
		if (!below(t, 20))
			rte_eth_tx_done_cleanup(t->port, 0, (uint32_t)below(t, RING));
		if (i % LOOK_EVERY)
			continue;
		alarm(HANG);
		restart_if_broken(t);
		if (!below(t, 100))
			rte_eth_link_get_nowait(t->port, &link);
	}
}

static void be_honest(struct test *t)
{
	uint64_t received = t->received, sent = t->sent;

	liar_reform(t->liar);
	t->received = t->sent = 0;
	while (t->received < HONEST || t->sent < HONEST) {
		liar_step(t->liar);
		receive(t);
		send_some(t);
	}
	t->received += received;
	t->sent += sent;
}

/* With no more to send, what was sent comes back for the asking. */
static void ask_back(struct test *t)
{
	int got = 0;

	while (!got || rte_mempool_in_use_count(t->pool) > RING) {
		unsigned before = rte_mempool_in_use_count(t->pool);
		int n = rte_eth_tx_done_cleanup(t->port, 0, 0);

		REQUIRE(n >= 0, "what was sent cannot be asked back");
		REQUIRE(before - rte_mempool_in_use_count(t->pool) >= (unsigned)n,
			"less came back than was said");
		got += n;
		liar_step(t->liar);
		receive(t);
	}
}

/* --- the port --- */

static void open_port(struct test *t, const char *driver, const char *dir, const char *args)
{
	char vdev[256], lcores[32];
	cpu_set_t cpus;
	const char *argv[] = {"liar", "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "-m", "64",
		"--log-level=1", "-d", driver, "--vdev", vdev, lcores, "--file-prefix", strrchr(dir, '/') + 1,
		NULL};
	struct rte_eth_conf conf = {
		.rxmode.offloads = RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_VLAN_STRIP,
		.txmode.offloads = RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_MULTI_SEGS |
				   RTE_ETH_TX_OFFLOAD_VLAN_INSERT,
	};

	snprintf(vdev, sizeof vdev, "net_sandirect_virtio0,path=%s/s,server=1%s", dir, args);
	snprintf(lcores, sizeof lcores, "--lcores=0@%d", sched_getcpu());
	sched_getaffinity(0, sizeof cpus, &cpus);
	REQUIRE(rte_eal_init(sizeof argv / sizeof *argv - 1, (char **)argv) >= 0, "no EAL");
	sched_setaffinity(0, sizeof cpus, &cpus); /* also for the back end's thread */
	REQUIRE(rte_eth_dev_count_avail() == 1, "no port");
	t->pool = rte_pktmbuf_pool_create("pool", MBUFS, 0, 8, RTE_PKTMBUF_HEADROOM + ROOM, SOCKET_ID_ANY);
	REQUIRE(t->pool, "no pool");
	rte_mempool_obj_iter(t->pool, number, NULL);
	REQUIRE(!rte_eth_dev_configure(t->port, 1, 1, &conf), "no configuration");
	REQUIRE(!rte_eth_rx_queue_setup(t->port, 0, RING, 0, NULL, t->pool), "no receive queue");
	REQUIRE(!rte_eth_tx_queue_setup(t->port, 0, RING, 0, NULL), "no transmit queue");
	start(t);
}

static void on_alarm(int signal)
{
	static const char text[] = "it hangs\n";

	if (write(2, text, sizeof text - 1) > 0)
		abort();
}

int main(int argc, char **argv)
{
	static struct test t;
	char dir[] = "/tmp/sandirect-liar-XXXXXX", path[64];
	uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
	struct liar_config c = {.path = path,
		.features = VN_BIT(VN_F_VERSION_1) | VN_BIT(VN_F_RING_PACKED) | VN_BIT(VN_F_IN_ORDER) |
			    VN_BIT(VN_F_EVENT_IDX) | VN_BIT(VN_F_INDIRECT_DESC) | VN_BIT(VN_F_MRG_RXBUF) |
			    VN_BIT(VN_F_CSUM) | VN_BIT(VN_F_GUEST_CSUM),
		.lies = 200,
		.hang_ups = 50,
		.bad_talk = 20000};
	struct liar_counts counts;

	if (argc < 4 || !mkdtemp(dir))
		return 2;
	signal(SIGALRM, on_alarm);
	alarm(HANG);
	c.seed = t.seed = strtoull(argv[3], NULL, 0);
	snprintf(path, sizeof path, "%s/s", dir);
	open_port(&t, argv[1], dir, argc > 4 ? argv[4] : "");
	t.liar = liar_start(&c);
	REQUIRE(t.liar, "no back end");
	run(&t, steps);
	be_honest(&t);
	ask_back(&t);
	counts = liar_counts(t.liar);
	printf("%s: %llu steps, %llu lies, %llu connections; received %llu of %llu frames, sent %llu; %llu "
	       "violations seen, %llu "
	       "restarts, %llu resets, refused %llu times\n",
		argc > 4 ? argv[4] : "", (unsigned long long)counts.steps, (unsigned long long)counts.lies,
		(unsigned long long)counts.dialogues, (unsigned long long)t.received,
		(unsigned long long)counts.delivered, (unsigned long long)t.sent,
		(unsigned long long)t.violations, (unsigned long long)t.restarts,
		(unsigned long long)counter(&t, "device_resets"), (unsigned long long)t.refused);
	REQUIRE(!rte_eth_dev_stop(t.port), "it does not stop");
	liar_stop(t.liar);
	REQUIRE(!rte_eth_dev_close(t.port), "it does not close");
	REQUIRE(rte_mempool_avail_count(t.pool) == MBUFS, "%u mbufs of %u are back",
		rte_mempool_avail_count(t.pool), MBUFS);
	rte_eal_cleanup();
	rmdir(dir);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a stock program does that sleeps on receive interrupts (DPDK's l3fwd-power), on port 0 of any driver,
 * as dpdk-testpmd has no mode for it:
 *
 * rx_interrupt EAL-ARGUMENTS... -- FRAMES
 *
 * prints "ready", then "woken by N frames" for each time that it wakes, and when it has got all of them its
 * CPU time and how often it looked in vain after a wake-up. Only ethdev's public interface is used.
 */
#include <inttypes.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { DESCRIPTORS = 256, BURST = 32, POOL = 2047, LINK_TRIES = 100, SLEEP_MS = 20000 };

static void fail(const char *what, int error)
{
	printf("failed: %s: %d\n", what, error);
	exit(1);
}

static void check(const char *what, int error)
{
	if (error)
		fail(what, error);
}

static void start(void)
{
	struct rte_mempool *pool =
		rte_pktmbuf_pool_create("frames", POOL, 64, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	struct rte_eth_conf conf = {.intr_conf = {.rxq = 1}};

	if (!pool)
		fail("a pool", 0);
	check("configure", rte_eth_dev_configure(0, 1, 1, &conf));
	check("a receive queue", rte_eth_rx_queue_setup(0, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL, pool));
	check("a transmit queue", rte_eth_tx_queue_setup(0, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL));
	check("start", rte_eth_dev_start(0));
	rte_eth_promiscuous_enable(0);
	check("interrupts", rte_eth_dev_rx_intr_ctl_q(0, 0, RTE_EPOLL_PER_THREAD, RTE_INTR_EVENT_ADD, NULL));
}

static void await_link(void)
{
	struct rte_eth_link link;

	for (unsigned i = 0; i < LINK_TRIES; i++) {
		if (!rte_eth_link_get_nowait(0, &link) && link.link_status)
			return;
		rte_delay_us_sleep(100000);
	}
	fail("the link stays down", 0);
}

static unsigned drain(void)
{
	struct rte_mbuf *frames[BURST];
	unsigned total = 0, n;

	while ((n = rte_eth_rx_burst(0, 0, frames, BURST))) {
		rte_pktmbuf_free_bulk(frames, n);
		total += n;
	}
	return total;
}

/* Frames that came before the interrupt was enabled need not cause one: looked for once more. */
static unsigned sleep_and_drain(unsigned *in_vain)
{
	struct rte_epoll_event event;
	unsigned n;
	int woken;

	check("enable", rte_eth_dev_rx_intr_enable(0, 0));
	n = drain();
	if (n) {
		rte_eth_dev_rx_intr_disable(0, 0);
		return n;
	}
	woken = rte_epoll_wait(RTE_EPOLL_PER_THREAD, &event, 1, SLEEP_MS);
	check("disable", rte_eth_dev_rx_intr_disable(0, 0));
	n = drain();
	if (woken < 1)
		fail(n ? "frames without an interrupt" : "no frame", woken);
	*in_vain += !n;
	if (n)
		printf("woken by %u frames\n", n);
	return n;
}

int main(int argc, char **argv)
{
	unsigned wanted, got = 0, in_vain = 0;
	int n = rte_eal_init(argc, argv);

	if (n < 0 || n + 1 >= argc || !rte_eth_dev_count_avail())
		fail("EAL, arguments or a device", n);
	wanted = (unsigned)atoi(argv[n + 1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	start();
	await_link();
	while (drain())
		;
	puts("ready");
	while (got < wanted)
		got += sleep_and_drain(&in_vain);
	printf("got %u, in vain %u, cpu ms %" PRIu64 "\n", got, in_vain,
		(uint64_t)clock() * 1000 / CLOCKS_PER_SEC);
	rte_eth_dev_stop(0);
	rte_eth_dev_close(0);
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How the transport fares where it matters: random loss, a bottleneck that flows share, and many senders at
 * once (flows.h). Every figure is the same each time. `test_congestion --table` prints them as tables and
 * judges nothing; SANDIRECT_TEST_LONG=1 measures for longer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "flows.h"

/* What the transport does not reach yet. Whoever makes it do so takes the line away. */
static const char *const not_yet[] = {
	"fairness of 2 flows and a late one, without ECN",
	"fairness of 64 flows, without ECN",
	"fairness of 64 flows and a late one, without ECN",
	"queue of an incast, buffer 524288, without ECN",
	"queue of an incast, buffer 1048576, without ECN",
	"queue of an incast, buffer 2097152, without ECN",
	NULL,
};

#define WINDOW (10 * SD_MS) /* over which fairness is measured */

static bool table;

static void lose(double loss)
{
	world.sim.links[1][0].loss = world.sim.links[0][1].loss = loss;
}

static void end(void)
{
	sim_close(&world.sim);
	if (world.sim.failure[0])
		printf("# %s\n", world.sim.failure);
	if (!table)
		assert_string_equal(world.sim.failure, "");
	else if (world.sim.failure[0])
		exit(1);
}

/* --- words --- */

static unsigned longer(unsigned n)
{
	const char *l = getenv("SANDIRECT_TEST_LONG");

	return l && atoi(l) ? 10 * n : n;
}

static void row(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void row(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf(table ? "| " : "# ");
	vprintf(fmt, ap);
	printf(table ? " |\n" : "\n");
	va_end(ap);
}

static void heads(const char *title, const char *names)
{
	printf(table ? "\n%s\n\n" : "# %s\n", title);
	row("%s", names);
	if (!table)
		return;
	printf("|---");
	for (const char *c = names; *c; c++)
		if (*c == '|')
			printf("|---");
	printf("|\n");
}

static unsigned missed;

/* A limit: is it kept, or at least known not to be? */
static void must(bool kept, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void must(bool kept, const char *fmt, ...)
{
	char what[128];
	bool known = false;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	for (unsigned i = 0; i < sizeof not_yet / sizeof *not_yet; i++)
		known |= not_yet[i] && !strcmp(not_yet[i], what);
	missed += !kept && !known;
	if (!table && (known || !kept))
		printf("# %s: %s\n",
			!known ? "MISSED"
			: kept ? "kept, and still in the list"
			       : "not yet",
			what);
}

static void judge(void)
{
	unsigned n = missed;

	missed = 0;
	if (!table)
		assert_int_equal(n, 0);
}

/* --- loss --- */

static const double losses[] = {0, 0.0001, 0.001, 0.01, 0.05};
static const double least[] = {1, 0.99, 0.97, 0.9, 0.6}; /* of the goodput without loss */
static const unsigned mtus[] = {1500, 9000};

/* Bytes that got through. */
static uint64_t bulk(unsigned mtu, double loss, uint64_t buffer, uint64_t mark)
{
	uint64_t before;

	flows_open(BULK, 1, mtu, 0);
	world.out.capacity = buffer;
	world.out.mark = mark;
	lose(loss);
	flows_start();
	flows_run(2 * SD_MS);
	before = world.flows[0].received;
	flows_run(longer(40) * SD_MS);
	return world.flows[0].received - before;
}

static double gbits(uint64_t bytes)
{
	return (double)bytes * 8 / (double)((longer(40) - 2) * SD_MS);
}

static void random_loss(void **state)
{
	heads("One stream at 25 Gbit/s, 20 us, random loss both ways",
		"MTU | loss, % | Gbit/s | of that without loss, % | sent again, % | in vain, %");
	for (unsigned m = 0; m < 2; m++) {
		uint64_t most = 0;

		for (unsigned i = 0; i < 5; i++) {
			uint64_t got = bulk(mtus[m], losses[i], 0, 0);
			struct tp_stats st;
			double share;

			if (!i)
				most = got;
			share = (double)got / (double)most;
			sim_stats(&world.sim.hosts[1], &st);
			row("%u | %g | %.2f | %.1f | %.2f | %.2f", mtus[m], 100 * losses[i], gbits(got),
				100 * share, 100 * (double)st.retransmits / (double)st.tx_packets,
				100 * (double)st.spurious_retransmits / (double)st.tx_packets);
			must(share >= least[i], "goodput at %g %% loss, MTU %u", 100 * losses[i], mtus[m]);
			end();
		}
	}
	judge();
}

static void tail_drop(void **state)
{
	heads("The same from 100 Gbit/s into an output of 25 Gbit/s that drops its tail, without ECN",
		"MTU | buffer, bytes | loss, % | Gbit/s | of that without loss, % | overflow, % | mean "
		"queue, "
		"bytes");
	for (unsigned m = 0; m < 4; m++) {
		unsigned mtu = mtus[m / 2];
		uint64_t most = 0, buffer = m % 2 ? 200ull * (mtu + 18) : BDP;

		for (unsigned i = 0; i < 5; i++) {
			uint64_t got = bulk(mtu, losses[i], buffer, 0);
			double dropped = (double)world.out.drops / (double)world.out.packets;

			if (!i)
				most = got;
			row("%u | %llu | %g | %.2f | %.1f | %.3f | %.0f", mtu, (unsigned long long)buffer,
				100 * losses[i], gbits(got), 100 * (double)got / (double)most, 100 * dropped,
				sim_queue_mean(&world.sim, &world.out));
			must(dropped < 0.01, "overflow at %g %% loss, MTU %u, buffer %llu", 100 * losses[i],
				mtu, (unsigned long long)buffer);
			end();
		}
	}
	judge();
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double percentile(double p)
{
	return world.n_samples ? world.samples[(unsigned)(p * (world.n_samples - 1))] / 1e3 : 0;
}

static void exchanges(void **state)
{
	heads("1 KiB there and 1 KiB back, 25 Gbit/s, 20 us",
		"loss, % | exchanges | p50, us | p99, us | p99.9, us | most, us");
	for (unsigned i = 0; i < 5; i++) {
		flows_open(EXCHANGES, 1, 1500, 0);
		lose(losses[i]);
		flows_start();
		flows_run(longer(400) * SD_MS);
		qsort(world.samples, world.n_samples, sizeof *world.samples, by_size);
		row("%g | %u | %.1f | %.1f | %.1f | %.1f", 100 * losses[i], world.n_samples, percentile(0.5),
			percentile(0.99), percentile(0.999), percentile(1));
		must(world.n_samples > 1000, "exchanges at %g %% loss", 100 * losses[i]);
		end();
	}
	judge();
}

/* --- fairness --- */

/* Jain's index of the flows' goodput since the last call; flows that have not begun do not count. */
static double fairness(void)
{
	double sum = 0, squares = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < world.n; i++) {
		struct flow *f = &world.flows[i];
		double got = (double)(f->received - f->before);

		f->before = f->received;
		if (f->start >= world.sim.now - WINDOW)
			continue;
		sum += got;
		squares += got * got;
		n++;
	}
	return squares > 0 ? sum * sum / (n * squares) : 0;
}

static void share(unsigned n, bool ecn)
{
	double index = 0, utilisation, first = 0, joined = 0;

	flows_open(BULK, n + 1, 1500, SD_MS);
	world.flows[n].start = world.sim.begin + 50 * SD_MS;
	world.out.mark = ecn ? MARK : 0;
	flows_start();
	for (unsigned k = 1; k <= 10; k++) {
		flows_run(k * WINDOW);
		index = fairness();
		if (k == 1)
			sim_queue_watch(&world.sim, &world.out);
		if (k == 2)
			first = index;
		if (k == 5)
			joined = index;
	}
	utilisation = sim_queue_utilisation(&world.sim, &world.out);
	row("%u | %s | %.3f | %.3f | %.3f | %.1f | %.2f | %.0f | %llu", n, ecn ? "yes" : "no", first, joined,
		index, 100 * utilisation, 100 * (double)world.out.drops / (double)world.out.packets,
		sim_queue_mean(&world.sim, &world.out), (unsigned long long)world.out.peak);
	must(joined >= 0.95, "fairness of %u flows, %s ECN", n, ecn ? "with" : "without");
	must(index >= 0.95, "fairness of %u flows and a late one, %s ECN", n, ecn ? "with" : "without");
	must(utilisation >= 0.9, "utilisation by %u flows, %s ECN", n, ecn ? "with" : "without");
	end();
}

static void sharing(void **state)
{
	heads("Flows of 100 Gbit/s senders through one output of 25 Gbit/s with 512 KiB; one more joins "
	      "after 50 "
	      "ms. Jain's index over 10 ms",
		"flows | ECN | after 20 ms | 50 ms | 50 ms with one more | utilisation, % | dropped, % | "
		"mean "
		"queue, bytes | peak");
	for (unsigned i = 0; i < 6; i++)
		share((unsigned[]){2, 8, 64}[i / 2], i % 2 == 0);
	judge();
}

/* --- incast --- */

static void watch_queue(struct sim *s, void *what)
{
	if (world.rounds && s->now > world.round_at + 10 * RTT) {
		world.late_area += (double)world.out.bytes;
		world.late_time += 1;
		if (world.out.bytes > world.late_peak)
			world.late_peak = world.out.bytes;
	}
	sim_at(s, s->now + SD_US, watch_queue, what);
}

static void incast(uint64_t buffer, bool ecn)
{
	double lost, utilisation, mean;
	unsigned rounds;

	flows_open(INCAST, 32, 1500, 100 * SD_US);
	world.out.capacity = buffer;
	world.out.mark = ecn ? MARK : 0;
	flows_start();
	flows_run(SD_MS / 2);
	sim_at(&world.sim, world.sim.now, watch_queue, NULL);
	flows_run(longer(40) * SD_MS);
	rounds = world.rounds ? world.rounds - 1 : 0;
	lost = (double)world.out.drops / (double)world.out.packets;
	utilisation = sim_queue_utilisation(&world.sim, &world.out);
	mean = world.late_time > 0 ? world.late_area / world.late_time : 0;
	row("%llu | %s | %u | %.2f | %.2f | %.1f | %.0f | %llu", (unsigned long long)buffer,
		ecn ? "yes" : "no", rounds,
		rounds ? (double)(world.round_at - world.sim.begin) / rounds / 1e6 : 0, 100 * lost,
		100 * utilisation, mean, (unsigned long long)world.late_peak);
	must(lost <= 0.01, "loss in an incast, buffer %llu, %s ECN", (unsigned long long)buffer,
		ecn ? "with" : "without");
	must(utilisation >= 0.9, "utilisation by an incast, buffer %llu, %s ECN", (unsigned long long)buffer,
		ecn ? "with" : "without");
	must(world.late_peak < 2 * BDP, "queue of an incast, buffer %llu, %s ECN", (unsigned long long)buffer,
		ecn ? "with" : "without");
	end();
}

static void incasts(void **state)
{
	heads("32 senders answer with 64 KiB each at once, again and again; one output of 25 Gbit/s",
		"buffer, bytes | ECN | rounds | ms each | dropped, % | utilisation, % | mean queue after 10 "
		"round "
		"trips, bytes | its peak");
	for (unsigned i = 0; i < 6; i++)
		incast((512ull << 10) << i / 2, i % 2 == 0);
	judge();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_loss),
		cmocka_unit_test(tail_drop),
		cmocka_unit_test(exchanges),
		cmocka_unit_test(sharing),
		cmocka_unit_test(incasts),
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	table = argc > 1 && !strcmp(argv[1], "--table");
	if (!table)
		return cmocka_run_group_tests_name("transport_congestion", tests, NULL, NULL);
	for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++)
		tests[i].test_func(NULL);
	return 0;
}

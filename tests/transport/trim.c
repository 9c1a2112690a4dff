/* SPDX-License-Identifier: BSD-3-Clause */
/* What the environment says about simulated runs. */
#include "trim.h"

#include <stdlib.h>
#include <string.h>

/* The text behind mark and name in the list; NULL: it is not there. */
static const char *find(const char *mark, const char *name)
{
	const char *at = getenv("SIM_TRIM");
	size_t m = strlen(mark), n = strlen(name);

	for (; at && *at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, mark, m) && !strncmp(at + m, name, n) && strchr("=,", at[m + n]))
			return at + m + n;
	}
	return NULL;
}

bool trim_off(const char *trouble)
{
	return find("-", trouble) != NULL;
}

uint64_t trim_value(const char *name, uint64_t n)
{
	const char *text = find("", name);

	return text && *text == '=' ? strtoull(text + 1, NULL, 10) : n;
}

uint64_t trim_bound(const char *name, uint64_t n)
{
	uint64_t bound = trim_value(name, n);

	return bound < n ? bound : n;
}

static void clear(const char *trouble, double *p)
{
	if (trim_off(trouble))
		*p = 0;
}

static void trim_link(struct sim_link *l)
{
	clear("loss", &l->loss);
	clear("duplicate", &l->duplicate);
	clear("reorder", &l->reorder);
	clear("corrupt", &l->corrupt);
	clear("ce", &l->ce);
	if (trim_off("jitter"))
		l->jitter = 0;
	if (trim_off("rate"))
		l->rate = 0;
	if (trim_off("queue"))
		l->queue = 0;
	if (trim_off("queue"))
		memset(l->via, 0, sizeof l->via);
	if (trim_off("mark"))
		l->mark = 0;
	if (trim_off("mtu"))
		l->mtu = 0;
}

static void trim_host(struct sim_host *h)
{
	if (trim_off("lag"))
		h->lag = 0;
	if (trim_off("burst"))
		h->burst = 64;
	if (trim_off("clock"))
		h->clock_behind = h->clock_ppm = 0;
	if (trim_off("memory"))
		h->alloc_fails = 0;
}

/* Without a CRC nobody can be asked to see damage. */
static void trim_crc(struct sim *s)
{
	for (unsigned i = 0; i < s->n_hosts; i++)
		for (unsigned k = 0; k < s->n_hosts; k++)
			if (s->links[i][k].corrupt > 0)
				return;
	for (unsigned i = 0; trim_off("crc") && i < s->n_hosts; i++)
		s->hosts[i].cfg.crc = false;
}

void trim_sim(struct sim *s)
{
	for (unsigned i = 0; i < s->n_hosts; i++) {
		trim_host(&s->hosts[i]);
		for (unsigned k = 0; k < s->n_hosts; k++)
			trim_link(&s->links[i][k]);
	}
	trim_crc(s);
	if (trim_off("isn"))
		s->isn_below = 0;
	for (size_t i = 0; trim_off("change") && i < s->heap.len; i++)
		if (s->heap.events[i].kind == SIM_CALL)
			s->heap.events[i].call = NULL;
}

struct trim_seeds trim_seeds(uint64_t n)
{
	const char *seed = getenv("SIM_SEED"), *count = getenv("SIM_COUNT"), *longer;

	if (seed)
		return (struct trim_seeds){
			strtoull(seed, NULL, 10), count ? strtoull(count, NULL, 10) : 1, !count};
	longer = getenv("SANDIRECT_TEST_LONG");
	if (longer && atoi(longer))
		n *= 10;
#ifdef __SANITIZE_ADDRESS__
	n = n / 3 ? n / 3 : 1; /* each takes four times as long */
#endif
	return (struct trim_seeds){1, n, false};
}

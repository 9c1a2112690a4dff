/* SPDX-License-Identifier: BSD-3-Clause */
/* nic: parts are put together at once; what is held is remembered with a copy. */
#include "nic.h"

#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "transport/qp.h"

struct nic_hold {
	struct nic_hold *next;
	uint64_t ticket, until;
	bool fixed; /* its bytes are a request's, not an answer's, which a peer may write to */
	struct tp_parts parts;
	uint8_t bytes[];
};

static size_t gather(const struct tp_parts *p, uint8_t *to)
{
	size_t n = 0;

	for (unsigned i = 0; i < p->n; i++) {
		memcpy(to + n, p->piece[i].at, p->piece[i].len);
		n += p->piece[i].len;
	}
	return n;
}

static void hold(struct sim_host *h, const struct tp_parts *parts, const uint8_t *payload, size_t len)
{
	struct nic_hold *n;
	uint64_t ticket = tp_hold(h->tp, parts);

	if (!ticket)
		return;
	n = malloc(sizeof *n + len);
	if (!n)
		abort();
	n->ticket = ticket;
	n->until = h->sim->now + sim_scale(h->sim, 1 * SD_US, h->hold_max);
	n->fixed = parts->request != NULL;
	n->parts = *parts;
	memcpy(n->bytes, payload, len);
	n->next = h->held;
	h->held = n;
}

size_t nic_output(struct sim_host *h, uint8_t *buf, const struct tp_path **path)
{
	struct tp_parts parts;
	size_t len, payload;

	if (!sim_chance(h->sim, h->in_parts))
		return tp_output(h->tp, sim_clock(h), buf, h->max_payload, path);
	memset(buf, 0xdb, TP_MAX_HEAD);
	len = tp_output_parts(h->tp, sim_clock(h), buf, &parts, path);
	if (!len)
		return 0;
	payload = gather(&parts, buf + parts.head);
	memcpy(buf + parts.head + payload, parts.trailer, parts.trailer_len);
	if (parts.head > TP_MAX_HEAD || len != parts.head + payload + parts.trailer_len)
		sim_fail(h->sim, "host %u: the parts of a packet are not what it is", h->index);
	if (parts.n && sim_chance(h->sim, 0.5))
		hold(h, &parts, buf + parts.head, payload);
	return len;
}

static void check(struct sim_host *h, const struct nic_hold *n)
{
	const uint8_t *was = n->bytes;

	for (unsigned i = 0; i < n->parts.n && n->fixed; i++) {
		if (memcmp(n->parts.piece[i].at, was, n->parts.piece[i].len))
			sim_fail(h->sim, "host %u: what is being sent has been changed", h->index);
		was += n->parts.piece[i].len;
	}
}

static void release_until(struct sim_host *h, uint64_t until)
{
	struct nic_hold **at = &h->held, *n;

	while ((n = *at)) {
		if (n->until > until) {
			at = &n->next;
			continue;
		}
		check(h, n);
		*at = n->next;
		tp_release(h->tp, n->ticket);
		free(n);
	}
}

void nic_release(struct sim_host *h)
{
	release_until(h, h->sim->now);
}

void nic_release_all(struct sim_host *h)
{
	release_until(h, SIM_NEVER);
}

uint64_t nic_next(const struct sim_host *h)
{
	uint64_t next = SIM_NEVER;

	for (const struct nic_hold *n = h->held; n; n = n->next)
		next = n->until < next ? n->until : next;
	return next;
}

void nic_forget(struct sim_host *h)
{
	struct nic_hold *n;

	while ((n = h->held)) {
		h->held = n->next;
		free(n);
	}
}

bool nic_holds(const struct sim_host *h, const uint8_t *at, size_t len)
{
	for (const struct nic_hold *n = h->held; n; n = n->next) {
		for (unsigned i = 0; i < n->parts.n; i++) {
			const struct tp_piece *p = &n->parts.piece[i];

			if (p->at < at + len && at < p->at + p->len)
				return true;
		}
	}
	return false;
}

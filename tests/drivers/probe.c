/* SPDX-License-Identifier: BSD-3-Clause */
#include "probe.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "drivers/encap.h"

enum {
	HEADROOM = 62,
	BURST = 32,
	LATER_MAX = 16,
	LINK_POLL = 5, /* ms */
	MAGIC = 0x50726f62,
};

struct wire {
	uint32_t magic, session, seq, payload;
	uint8_t command, pad[7];
};

_Static_assert(sizeof(struct wire) == PROBE_MIN, "");

void probe_end_init(struct probe_end *e, struct port *p, bool second)
{
	struct port_info info;

	p->ops->info(p, &info);
	memset(e, 0, sizeof *e);
	e->port = p;
	e->caps = info.caps;
	memcpy(e->mac, info.mac, sizeof e->mac);
	memset(e->peer_mac, 0xff, sizeof e->peer_mac);
	sd_addr_parse(second ? "127.0.77.2:7747" : "127.0.77.1:7747", &e->ip);
	sd_addr_parse(second ? "127.0.77.1:7747" : "127.0.77.2:7747", &e->peer_ip);
}

static uint8_t filler(const struct probe *p, uint32_t at)
{
	return (uint8_t)(p->seq * 131 + p->payload * 7 + at + (at >> 8) * 3);
}

void probe_build(const struct probe_end *e, const struct probe *p, bool offload, struct port_frame *frame)
{
	struct encap_flow flow = {.src = e->ip, .dst = e->peer_ip, .ecn = 2};
	struct wire w = {MAGIC, p->session, p->seq, p->payload, p->command, {0}};
	uint8_t hdr[ENCAP_MAX], *payload = frame->data + HEADROOM;
	unsigned len;

	memcpy(payload, &w, sizeof w);
	for (uint32_t i = sizeof w; i < p->payload; i++)
		payload[i] = filler(p, i);
	memcpy(flow.src_mac, e->mac, sizeof flow.src_mac);
	memcpy(flow.dst_mac, e->peer_mac, sizeof flow.dst_mac);
	len = encap_template(&flow, hdr);
	frame->data = payload - len;
	frame->len = len + p->payload;
	frame->flags = offload && e->caps & PORT_CAP_TX_CSUM ? PORT_TX_CSUM : 0;
	memcpy(frame->data, hdr, len);
	encap_finish(frame->data, len, p->payload, frame->flags);
}

int probe_parse(
	const struct probe_end *e, const struct port_frame *frame, struct probe *p, uint8_t src_mac[6])
{
	struct encap_view v;
	struct wire w;

	if (frame->flags & PORT_RX_CSUM_BAD ||
		encap_parse(frame->data, frame->len, PORT_UDP_PORT, !(frame->flags & PORT_RX_CSUM_OK), &v) ||
		v.payload_len < sizeof w || !sd_addr_same_ip(&v.flow.dst, &e->ip))
		return -EINVAL;
	memcpy(&w, v.payload, sizeof w);
	if (w.magic != MAGIC)
		return -EINVAL;
	*p = (struct probe){w.session, w.seq, w.payload, w.command};
	if (src_mac)
		memcpy(src_mac, v.flow.src_mac, 6);
	if (w.payload != v.payload_len)
		return -EBADMSG;
	for (uint32_t i = sizeof w; i < w.payload; i++)
		if (v.payload[i] != filler(p, i))
			return -EBADMSG;
	return 0;
}

void probe_device(char *out, size_t len, const char *device, const char *dir)
{
	const char *at = strstr(device, "%s");

	if (at)
		snprintf(out, len, "%.*s%s%s", (int)(at - device), device, dir, at + 2);
	else
		snprintf(out, len, "%s", device);
}

/* --- the far end --- */

struct later {
	uint64_t due;
	struct probe probe;
};

static void answer(struct probe_end *e, struct probe p, struct port_frame *out, unsigned *n)
{
	if (!e->port->ops->tx_get(e->port, &out[*n], 1))
		return;
	p.command = PROBE_ANSWER;
	probe_build(e, &p, true, &out[(*n)++]);
}

static void send_all(struct port *p, struct port_frame *frames, unsigned n)
{
	uint64_t give_up =
		sd_clock_ns() + 500 * SD_MS; /* nobody takes them: the near end is being opened again */
	unsigned sent = 0;

	do
		sent += p->ops->tx(p, frames + sent, n - sent);
	while (sent < n && sd_clock_ns() < give_up);
	p->ops->tx_put(p, frames + sent, n - sent);
}

void probe_answer(struct port *p, const atomic_bool *stop)
{
	struct probe_end e;
	struct later later[LATER_MAX];
	unsigned n_later = 0;
	uint64_t link_due = 0;

	probe_end_init(&e, p, true);
	while (!atomic_load_explicit(stop, memory_order_relaxed)) {
		struct port_frame in[BURST], out[BURST + LATER_MAX];
		uint64_t now = sd_clock_ns();
		unsigned n, n_out = 0;

		n = p->ops->rx(p, in, BURST);
		for (unsigned i = 0; i < n; i++) {
			struct probe probe;

			if (probe_parse(&e, &in[i], &probe, e.peer_mac))
				continue;
			if (probe.command == PROBE_ECHO)
				answer(&e, probe, out, &n_out);
			else if (probe.command == PROBE_LATER && n_later < LATER_MAX)
				later[n_later++] =
					(struct later){sd_clock_ns() + PROBE_LATER_MS * SD_MS, probe};
		}
		p->ops->rx_done(p, in, n);
		while (n_later && later[0].due <= now) {
			answer(&e, later[0].probe, out, &n_out);
			memmove(later, later + 1, --n_later * sizeof *later);
		}
		send_all(p, out, n_out);
		if (now >= link_due) {
			p->ops->link_poll(p);
			link_due = now + LINK_POLL * SD_MS;
		}
	}
}

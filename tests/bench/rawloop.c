/* SPDX-License-Identifier: BSD-3-Clause */
/* rawloop: bursts of 32, nothing else. */
#include "rawloop.h"

#include <string.h>

#include "base/clock.h"
#include "base/crc32c.h"

enum { BURST = 32, HEADER = 14, TRAILER = 4 };

static const uint8_t header[HEADER] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5};

/* The type says whether it is checked. */
static bool is_raw(const struct port_frame *f, bool checked)
{
	return f->len >= HEADER + 8 && f->data[12] == header[12] && f->data[13] == header[13] + checked;
}

static void send_one(struct port *p, uint64_t number)
{
	struct port_frame f;

	if (!p->ops->tx_get(p, &f, 1))
		return;
	memcpy(f.data, header, HEADER);
	memcpy(f.data + HEADER, &number, sizeof number);
	f.len = RAW_SMALL;
	f.flags = 0;
	if (!p->ops->tx(p, &f, 1))
		p->ops->tx_put(p, &f, 1);
}

/* Has the frame of this number come? */
static bool take(struct port *p, uint64_t number)
{
	struct port_frame in[BURST];
	unsigned n = p->ops->rx(p, in, BURST);
	bool found = false;

	for (unsigned i = 0; i < n; i++)
		found |= is_raw(&in[i], false) && !memcmp(in[i].data + HEADER, &number, sizeof number);
	if (n)
		p->ops->rx_done(p, in, n);
	return found;
}

void raw_ping(struct port *p, uint64_t ns, struct histogram *h)
{
	uint64_t now = sd_clock_ns(), end = now + ns, number = now;

	while (now < end) {
		uint64_t start = now;

		send_one(p, ++number);
		while (!take(p, number) && (now = sd_clock_ns()) < start + 10 * SD_MS)
			;
		now = sd_clock_ns();
		if (now - start < 10 * SD_MS)
			histogram_add(h, now - start);
	}
}

void raw_echo(struct port *p, const _Atomic int *command)
{
	int mine = *command;

	while (atomic_load_explicit(command, memory_order_relaxed) == mine) {
		struct port_frame in[BURST];
		unsigned n = p->ops->rx(p, in, BURST);

		for (unsigned i = 0; i < n; i++) {
			uint64_t number;

			if (!is_raw(&in[i], false))
				continue;
			memcpy(&number, in[i].data + HEADER, sizeof number);
			send_one(p, number);
		}
		if (n)
			p->ops->rx_done(p, in, n);
	}
}

static void fill(struct port_frame *f, unsigned len, bool checked, const uint8_t *payload)
{
	uint32_t crc;

	memcpy(f->data, header, HEADER);
	f->len = len;
	f->flags = 0;
	if (!checked)
		return;
	f->data[13]++;
	if (payload)
		memcpy(f->data + HEADER, payload, len - HEADER - TRAILER);
	crc = sd_crc32c(0, payload ? payload : f->data + HEADER, len - HEADER - TRAILER);
	memcpy(f->data + len - TRAILER, &crc, TRAILER);
}

void raw_send(struct port *p, unsigned len, bool checked, const uint8_t *memory, size_t size, uint64_t ns)
{
	uint64_t end = sd_clock_ns() + ns;
	struct port_frame out[BURST];
	unsigned kept = 0;
	size_t at = 0;

	while (sd_clock_ns() < end) {
		unsigned n = kept, sent;

		n += p->ops->tx_get(p, out + n, BURST - n);
		for (unsigned i = kept; i < n; i++) {
			fill(&out[i], len, checked, memory ? memory + at : NULL);
			at = at + 2 * len <= size ? at + len : 0;
		}
		sent = p->ops->tx(p, out, n);
		kept = n - sent;
		memmove(out, out + sent, kept * sizeof *out);
	}
	p->ops->tx_put(p, out, kept);
}

/* The payload's length; 0: it is damaged. */
static unsigned deliver(const struct port_frame *f, uint8_t *to)
{
	unsigned len = f->len - HEADER - TRAILER;
	uint32_t crc = sd_crc32c(0, f->data + HEADER, len);

	if (memcmp(&crc, f->data + f->len - TRAILER, TRAILER))
		return 0;
	memcpy(to, f->data + HEADER, len);
	return len;
}

void raw_sink(struct port *p, bool checked, uint8_t *memory, size_t size, struct raw_count *count,
	const _Atomic int *command)
{
	uint64_t frames = 0, bytes = 0;
	int mine = *command;
	size_t at = 0;

	while (atomic_load_explicit(command, memory_order_relaxed) == mine) {
		struct port_frame in[BURST];
		unsigned n = p->ops->rx(p, in, BURST), got;

		for (unsigned i = 0; i < n; i++) {
			if (!is_raw(&in[i], checked))
				continue;
			frames++;
			if (!checked)
				continue;
			if (at + in[i].len > size)
				at = 0;
			got = deliver(&in[i], memory + at);
			count->bad += !got;
			bytes += got;
			at += got;
		}
		if (!n)
			continue;
		p->ops->rx_done(p, in, n);
		atomic_store_explicit(&count->frames, frames, memory_order_relaxed);
		atomic_store_explicit(&count->bytes, bytes, memory_order_relaxed);
	}
}

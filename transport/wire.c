/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wire: encoders and decoders of everything that needs more than a few stores. A decoder accepts what is
 * longer than it knows (a later minor revision), never what is shorter.
 */
#include "transport/wire.h"

#include <string.h>

#include "base/crc32c.h"

bool tp_wire_crc_ok(const uint8_t *pkt, size_t len)
{
	return len > WIRE_CRC_LEN &&
	       sd_crc32c(0, pkt, len - WIRE_CRC_LEN) == be32_get(pkt + len - WIRE_CRC_LEN);
}

size_t tp_wire_seal(uint8_t *pkt, size_t len)
{
	be32_put(pkt + len, sd_crc32c(0, pkt, len));
	return len + WIRE_CRC_LEN;
}

static bool decode_ack_ext(const uint8_t *x, size_t len, struct wire_packet *out)
{
	if (len < WIRE_ACK_LEN || (len - WIRE_ACK_LEN) % 8 || out->has_window)
		return false;
	out->has_window = true;
	out->window = be64_get(x + 4);
	out->sack = x + WIRE_ACK_LEN;
	out->sack_words = (uint16_t)((len - WIRE_ACK_LEN) / 8);
	return out->sack_words <= WIRE_SACK_WORDS;
}

static bool decode_extensions(const uint8_t *x, const uint8_t *end, struct wire_packet *out, bool *stream)
{
	while (x < end) {
		size_t len;

		if (end - x < 4)
			return false;
		len = (size_t)x[1] * 4;
		if (!len || len > (size_t)(end - x))
			return false;
		if (x[0] == WIRE_X_STREAM) {
			if (len != WIRE_STREAM_LEN || *stream)
				return false;
			out->offset = be64_get(x + 4);
			*stream = true;
		} else if (x[0] == WIRE_X_ACK) {
			if (!decode_ack_ext(x, len, out))
				return false;
		} else if (x[0] & WIRE_X_CRITICAL) {
			return false;
		}
		x += len;
	}
	return true;
}

bool tp_wire_decode(const uint8_t *pkt, size_t len, struct wire_packet *out)
{
	size_t hdr;
	bool stream = false;

	if (len < WIRE_BASE_LEN || tp_wire_version(pkt) != WIRE_VERSION)
		return false;
	hdr = (size_t)pkt[3] * 4;
	if (hdr < WIRE_BASE_LEN || hdr > len)
		return false;
	out->type = pkt[0] & 15;
	out->flags = pkt[1];
	out->ce_count = be16_get(pkt + 6);
	out->psn = be32_get(pkt + 16);
	out->ack = be32_get(pkt + 20);
	out->ts = be32_get(pkt + 24);
	out->echo = be32_get(pkt + 28);
	out->has_window = false;
	out->sack_words = 0;
	out->sack = NULL;
	out->payload = pkt + hdr;
	out->payload_len = len - hdr;
	/* nearly every packet is a DATA packet with a STREAM extension and nothing else */
	if (out->type == WIRE_DATA && hdr == WIRE_BASE_LEN + WIRE_STREAM_LEN &&
		pkt[WIRE_BASE_LEN] == WIRE_X_STREAM) {
		out->offset = be64_get(pkt + WIRE_BASE_LEN + 4);
		stream = pkt[WIRE_BASE_LEN + 1] == WIRE_STREAM_LEN / 4;
	} else if (!decode_extensions(pkt + WIRE_BASE_LEN, pkt + hdr, out, &stream)) {
		return false;
	}
	if (out->type == WIRE_DATA)
		return pkt[2] == WIRE_OP_STREAM && stream && out->payload_len <= UINT16_MAX &&
		       (out->payload_len || (out->flags & WIRE_F_FIN));
	return out->type == WIRE_ACK && pkt[2] == WIRE_OP_NONE && !stream && !out->payload_len;
}

static void put_head(uint8_t *b, enum wire_type type, unsigned code, size_t len)
{
	memset(b, 0, len);
	b[0] = (uint8_t)(WIRE_VERSION << 4 | type);
	b[2] = (uint8_t)code;
	b[3] = (uint8_t)(len / 4);
}

/* The header length of a control packet may exceed what we know, the packet may not be shorter than it. */
static bool control_fits(const uint8_t *pkt, size_t len, size_t least)
{
	return len >= least + WIRE_CRC_LEN && (size_t)pkt[3] * 4 >= least &&
	       (size_t)pkt[3] * 4 <= len - WIRE_CRC_LEN;
}

size_t tp_wire_put_init(uint8_t *b, enum wire_type type, const struct wire_init *i)
{
	put_head(b, type, i->attempt, WIRE_INIT_LEN);
	be16_put(b + 4, i->src_port);
	be16_put(b + 6, i->dst_port);
	be64_put(b + 8, i->dst_cid);
	be64_put(b + 16, i->src_cid);
	be64_put(b + 24, i->nonce);
	be64_put(b + 32, i->epoch);
	be64_put(b + 40, i->window);
	be32_put(b + 48, i->isn);
	be32_put(b + 52, i->max_ack_delay_us);
	be16_put(b + 56, i->max_payload);
	be16_put(b + 58, i->features);
	be16_put(b + 60, i->window_packets);
	be32_put(b + 64, i->ts);
	be32_put(b + 68, i->echo);
	memcpy(b + 72, i->token, sizeof i->token);
	memcpy(b + 88, i->cookie, sizeof i->cookie);
	return tp_wire_seal(b, WIRE_INIT_LEN);
}

bool tp_wire_get_init(const uint8_t *pkt, size_t len, struct wire_init *out)
{
	if (!control_fits(pkt, len, WIRE_INIT_LEN))
		return false;
	out->attempt = pkt[2];
	out->src_port = be16_get(pkt + 4);
	out->dst_port = be16_get(pkt + 6);
	out->dst_cid = be64_get(pkt + 8);
	out->src_cid = be64_get(pkt + 16);
	out->nonce = be64_get(pkt + 24);
	out->epoch = be64_get(pkt + 32);
	out->window = be64_get(pkt + 40);
	out->isn = be32_get(pkt + 48);
	out->max_ack_delay_us = be32_get(pkt + 52);
	out->max_payload = be16_get(pkt + 56);
	out->features = be16_get(pkt + 58);
	out->window_packets = be16_get(pkt + 60);
	out->ts = be32_get(pkt + 64);
	out->echo = be32_get(pkt + 68);
	memcpy(out->token, pkt + 72, sizeof out->token);
	memcpy(out->cookie, pkt + 88, sizeof out->cookie);
	return out->src_cid && out->max_payload >= WIRE_MIN_PAYLOAD && out->window_packets;
}

size_t tp_wire_put_nak(uint8_t *b, const struct wire_nak *n)
{
	put_head(b, WIRE_INIT_NAK, n->code, WIRE_NAK_LEN);
	b[4] = b[5] = WIRE_VERSION; /* lowest and highest version spoken here */
	be64_put(b + 8, n->dst_cid);
	be64_put(b + 16, n->nonce);
	return tp_wire_seal(b, WIRE_NAK_LEN);
}

bool tp_wire_get_nak(const uint8_t *pkt, size_t len, struct wire_nak *out)
{
	if (!control_fits(pkt, len, WIRE_NAK_LEN))
		return false;
	out->code = pkt[2];
	out->dst_cid = be64_get(pkt + 8);
	out->nonce = be64_get(pkt + 16);
	return out->code != 0;
}

size_t tp_wire_put_cookie(uint8_t *b, const struct wire_cookie *c)
{
	put_head(b, WIRE_COOKIE, 0, WIRE_COOKIE_LEN);
	be64_put(b + 8, c->dst_cid);
	be64_put(b + 16, c->nonce);
	memcpy(b + 24, c->cookie, sizeof c->cookie);
	return tp_wire_seal(b, WIRE_COOKIE_LEN);
}

bool tp_wire_get_cookie(const uint8_t *pkt, size_t len, struct wire_cookie *out)
{
	if (!control_fits(pkt, len, WIRE_COOKIE_LEN))
		return false;
	out->dst_cid = be64_get(pkt + 8);
	out->nonce = be64_get(pkt + 16);
	memcpy(out->cookie, pkt + 24, sizeof out->cookie);
	return true;
}

size_t tp_wire_put_reset(uint8_t *b, const struct wire_reset_packet *r)
{
	put_head(b, WIRE_RESET, r->reason, WIRE_RESET_LEN);
	be64_put(b + 8, r->src_cid);
	memcpy(b + 16, r->token, sizeof r->token);
	return tp_wire_seal(b, WIRE_RESET_LEN);
}

bool tp_wire_get_reset(const uint8_t *pkt, size_t len, struct wire_reset_packet *out)
{
	if (!control_fits(pkt, len, WIRE_RESET_LEN))
		return false;
	out->reason = pkt[2];
	out->src_cid = be64_get(pkt + 8);
	memcpy(out->token, pkt + 16, sizeof out->token);
	return true;
}

size_t tp_wire_put_find(uint8_t *b, enum wire_type type, const struct wire_find *f)
{
	put_head(b, type, f->code, WIRE_FIND_LEN);
	be16_put(b + 4, f->target.port);
	b[6] = f->target.family;
	be64_put(b + 8, f->nonce);
	memcpy(b + 16, f->target.ip, sizeof f->target.ip);
	return tp_wire_seal(b, WIRE_FIND_LEN);
}

bool tp_wire_get_find(const uint8_t *pkt, size_t len, struct wire_find *out)
{
	if (!control_fits(pkt, len, WIRE_FIND_LEN))
		return false;
	memset(&out->target, 0, sizeof out->target);
	out->code = pkt[2];
	out->target.port = be16_get(pkt + 4);
	out->target.family = pkt[6];
	out->nonce = be64_get(pkt + 8);
	if (out->target.family != 4 && out->target.family != 6)
		return false;
	memcpy(out->target.ip, pkt + 16, sd_addr_ip_len(&out->target));
	return true;
}

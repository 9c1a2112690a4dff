/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer target: any bytes as every kind of packet. What a decoder accepts has to lie inside the packet.
 */
#include <stdlib.h>

#include "transport/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check_packet(const uint8_t *data, size_t len)
{
	struct wire_packet p;
	uint64_t bits = 0;
	uint8_t sum = 0;

	if (!tp_wire_decode(data, len, &p))
		return;
	require(p.type == WIRE_DATA || p.type == WIRE_ACK);
	require(p.payload >= data + WIRE_BASE_LEN && p.payload + p.payload_len == data + len);
	require(p.sack_words <= WIRE_SACK_WORDS && (!p.sack_words || p.has_window));
	for (unsigned k = 0; k < p.sack_words; k++)
		bits |= tp_wire_get_sack(&p, k);
	for (size_t i = 0; i < p.payload_len; i++)
		sum ^= p.payload[i];
	__asm__ volatile("" : : "r"(bits), "r"(sum)); /* read, whatever the compiler thinks of it */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct wire_reset_packet reset;
	struct wire_cookie cookie;
	struct wire_init init;
	struct wire_find find;
	struct wire_nak nak;

	check_packet(data, len);
	tp_wire_crc_ok(data, len);
	if (len < WIRE_BASE_LEN) /* tp_input looks no further either */
		return 0;
	if (tp_wire_get_init(data, len, &init))
		require(init.src_cid && init.max_payload >= WIRE_MIN_PAYLOAD && init.window_packets);
	if (tp_wire_get_find(data, len, &find))
		require(find.target.family == 4 || find.target.family == 6);
	tp_wire_get_nak(data, len, &nak);
	tp_wire_get_cookie(data, len, &cookie);
	tp_wire_get_reset(data, len, &reset);
	return 0;
}

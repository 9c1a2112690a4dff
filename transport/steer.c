/* SPDX-License-Identifier: BSD-3-Clause */
/* steer: which of a host's engines a packet is for. Nothing is checked here that the engine checks itself. */
#include "transport/conn.h"

int tp_steer(const uint8_t *pkt, size_t len)
{
	if (len < 16)
		return TP_FOR_ANY;
	switch (tp_wire_type(pkt)) {
	case WIRE_INIT: /* each engine knows all listeners; the same one has to see the repetition */
	case WIRE_FIND:
		return TP_FOR_ANY;
	case WIRE_RESET: /* names the sender's connection */
	case WIRE_FIND_REPLY:
		return TP_FOR_ALL;
	default:
		return (int)(tp_wire_cid(pkt) >> TP_CID_BITS & (TP_ENGINES - 1));
	}
}

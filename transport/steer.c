/* SPDX-License-Identifier: BSD-3-Clause */
/* steer: which of a host's engines a packet is for. Nothing is checked here that the engine checks itself. */
#include "transport/conn.h"

int tp_steer(const uint8_t *pkt, size_t len, unsigned n)
{
	uint64_t cid = len >= 24 ? tp_wire_cid(pkt) : 0;

	switch (len >= 24 ? tp_wire_type(pkt) : 0) {
	case WIRE_RESET: /* names the sender's connection */
	case WIRE_FIND_REPLY:
		return TP_FOR_ALL;
	case WIRE_FIND: /* each engine knows all listeners */
		return (int)(cid % n);
	case WIRE_INIT: /* the initiator's id, of which the low bits may be the same in all */
		return (int)((be64_get(pkt + 16) >> 32) % n);
	default: /* an id of nobody's, too: somebody has to say so */
		return (int)((cid >> TP_CID_BITS & (TP_ENGINES - 1)) % n);
	}
}

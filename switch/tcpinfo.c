/* SPDX-License-Identifier: BSD-3-Clause */
/* A file of its own because the kernel's struct tcp_info, which has grown, clashes with the C library's. */
#include "switch/tcpinfo.h"

#include <linux/tcp.h>
#include <string.h>

/* TCP's states as the kernel numbers them (tcp_states.h). */
enum { ESTABLISHED = 1, SYN_SENT, FIN_WAIT1 = 4, FIN_WAIT2, CLOSE = 7, CLOSE_WAIT, LAST_ACK };

static uint8_t state_of(const struct sw_sock *s, const struct pv_info *i)
{
	unsigned bits;

	if (s->state != SW_CONNECTED)
		return SYN_SENT;
	bits = s->ep->ops->state(s->ep);
	if (bits & PV_ERR)
		return CLOSE;
	if ((bits & PV_RDHUP) && !s->rd_shut)
		return s->wr_shut ? LAST_ACK : CLOSE_WAIT;
	if (s->wr_shut)
		return i->send_queued ? FIN_WAIT1 : FIN_WAIT2;
	return ESTABLISHED;
}

static uint32_t clip(uint64_t v)
{
	return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static uint32_t us(uint64_t ns)
{
	/* A measured time of less than a microsecond is not "none". */
	return clip((ns + 999) / 1000);
}

size_t sw_tcpinfo(const struct sw_sock *s, void *out, size_t len)
{
	struct tcp_info t = {0};
	struct pv_info i;

	s->ep->ops->info(s->ep, &i);
	t.tcpi_state = state_of(s, &i);
	t.tcpi_options = TCPI_OPT_SACK | TCPI_OPT_TIMESTAMPS;
	t.tcpi_rto = us(i.rto_ns);
	t.tcpi_rtt = us(i.srtt_ns);
	t.tcpi_min_rtt = us(i.min_rtt_ns);
	t.tcpi_snd_mss = t.tcpi_rcv_mss = t.tcpi_advmss = i.mss;
	t.tcpi_pmtu = i.mss;
	t.tcpi_snd_cwnd = i.cwnd;
	t.tcpi_unacked = i.in_flight;
	t.tcpi_total_retrans = clip(i.retransmits);
	t.tcpi_rcv_space = i.recv_buffer;
	t.tcpi_notsent_bytes = clip(i.send_unsent);
	t.tcpi_bytes_sent = i.bytes_out;
	t.tcpi_bytes_acked = i.bytes_out - (i.send_queued - i.send_unsent);
	t.tcpi_bytes_received = i.bytes_in;
	t.tcpi_segs_out = t.tcpi_data_segs_out = clip(i.packets_out);
	t.tcpi_segs_in = t.tcpi_data_segs_in = clip(i.packets_in);
	if (len > sizeof t)
		len = sizeof t;
	memcpy(out, &t, len);
	return len;
}

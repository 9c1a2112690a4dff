/* SPDX-License-Identifier: BSD-3-Clause */
/* The writer of the connection table. A forked child makes one of its own when it has something to say. */
#include "switch/statwrite.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "provider/registry.h"
#include "switch/libc.h"
#include "switch/stattable.h"

#define WORDS	(STATFILE_RECORDS / 64)
#define NO_ROOM (-2) /* sw_sock.stat_record */

struct table {
	struct statfile_header h;
	struct statfile_record records[STATFILE_RECORDS];
};

static struct {
	pid_t pid; /* whose table it is, or who failed to make one */
	struct stattable table;
	uint64_t used[WORDS]; /* records, a bit each */
	unsigned first_free;  /* no word before this has room */
} writer;

static struct table *current(void)
{
	return (struct table *)writer.table.h;
}

static void describe_engine(void)
{
	const struct pv *ether = sw_rt.ether;
	struct statfile_header *h = writer.table.h;

	if (ether)
		pv_ether_describe(ether, h->engine, sizeof h->engine);
	else
		snprintf(h->engine, sizeof h->engine, "%s", sd_reason_text(sw_rt.off));
	stattable_ports(&writer.table, &ether, ether != NULL);
}

/* This process's table, or NULL. */
static struct table *table(void)
{
	int saved_errno = errno;

	if (__builtin_expect(writer.pid != sw_rt.pid, 0)) {
		memset(&writer, 0, sizeof writer);
		writer.pid = sw_rt.pid;
		if (stattable_make(&writer.table, sw_rt.cfg->runtime_dir, sw_rt.pid, sw_program_name(),
			    STATFILE_RECORDS))
			describe_engine();
		errno = saved_errno;
	}
	return current();
}

/* --- records --- */

static int take_record(struct table *t)
{
	unsigned w = writer.first_free, i;

	while (w < WORDS && !~writer.used[w])
		w++;
	writer.first_free = w;
	if (w == WORDS)
		return -1;
	i = w * 64 + (unsigned)__builtin_ctzll(~writer.used[w]);
	if (!stattable_reach(&writer.table, offsetof(struct table, records) + (i + 1) * sizeof *t->records))
		return -1;
	writer.used[w] |= 1ull << i % 64;
	return (int)i;
}

static void put_back(unsigned i)
{
	writer.used[i / 64] &= ~(1ull << i % 64);
	if (i / 64 < writer.first_free)
		writer.first_free = i / 64;
}

static uint64_t wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * SD_S + (uint64_t)ts.tv_nsec;
}

/* The names of a connection that the kernel has made. */
static void learn_names(struct sw_sock *s)
{
	union sd_sockaddr name;
	socklen_t len = sizeof name;
	struct sd_addr local;

	if (sw_name_bound(s->fd, &local) && local.port)
		s->local = local; /* none before the connect */
	if (!sw_libc.getpeername(s->fd, &name.any, &len))
		sw_addr_from(&name.any, len, &s->peer);
}

static void describe_endpoint(const struct pv_ep *ep, struct statfile_record *r)
{
	struct pv_info i;

	ep->ops->info((struct pv_ep *)ep, &i);
	snprintf(r->provider, sizeof r->provider, "%s", ep->pv->ops->name);
	memcpy(r->state, i.state, sizeof r->state);
	r->bytes_out = i.bytes_out;
	r->bytes_in = i.bytes_in;
	r->packets_out = i.packets_out;
	r->packets_in = i.packets_in;
	r->retransmits = i.retransmits;
	r->srtt_ns = i.srtt_ns;
	r->min_rtt_ns = i.min_rtt_ns;
	r->cwnd = i.cwnd;
	r->in_flight = i.in_flight;
	r->send_queued = i.send_queued;
	r->recv_queued = i.recv_queued;
	r->mss = i.mss;
}

static const char *state_without_endpoint(const struct sw_sock *s)
{
	switch (s->state) {
	case SW_LISTENING:
		return "LISTEN";
	case SW_CONNECTING:
		return "SYN_SENT";
	case SW_CONNECTED:
	case SW_FAILED:
		return "CLOSED";
	case SW_IDLE:
	case SW_DEAD:
	case SW_KERNEL:
		break;
	}
	return "";
}

static void describe(struct sw_sock *s, struct statfile_record *r)
{
	const struct pv_ep *ep = s->ep;

	if (s->state == SW_KERNEL && s->fd >= 0 && (!s->peer.family || !s->local.family))
		learn_names(s);
	*r = (struct statfile_record){
		.fd = s->fd,
		.role = (uint8_t)s->role,
		.reason = (uint16_t)s->reason,
		.local = s->local,
		.peer = s->peer,
		.provider = "tcp",
	};
	snprintf(r->state, sizeof r->state, "%s", state_without_endpoint(s));
	/* The last one: loop stands before what it is a short cut for. */
	if (s->state == SW_LISTENING && s->n_listeners)
		ep = s->listeners[s->n_listeners - 1];
	if (!ep)
		return;
	r->path = 1;
	describe_endpoint(ep, r);
}

/* A reader that sees an odd count, or another one afterwards, looks again. */
static void publish(struct statfile_record *to, struct statfile_record *r)
{
	const size_t after_seq = offsetof(struct statfile_record, fd);
	uint32_t seq = atomic_load_explicit(&to->seq, memory_order_relaxed);

	r->opened_ns = seq ? to->opened_ns : wall_clock();
	atomic_store_explicit(&to->seq, seq + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	memcpy((char *)to + after_seq, (char *)r + after_seq, sizeof *r - after_seq);
	seq += 2;
	atomic_store_explicit(&to->seq, seq ? seq : 2, memory_order_release);
}

void stat_update(struct sw_sock *s)
{
	struct statfile_record r;
	struct table *t;

	if (s->stat_record < 0 && (s->state == SW_IDLE || s->state == SW_DEAD))
		return;
	t = table();
	if (!t || s->stat_record == NO_ROOM)
		return;
	if (s->stat_record < 0)
		s->stat_record = take_record(t);
	if (s->stat_record < 0) {
		s->stat_record = NO_ROOM;
		atomic_fetch_add_explicit(&t->h.overflow, 1, memory_order_relaxed);
		return;
	}
	describe(s, &r);
	publish(&t->records[s->stat_record], &r);
	if (sw_rt.shm) {
		s->stat_out = &t->records[s->stat_record].bytes_out;
		s->stat_in = &t->records[s->stat_record].bytes_in;
	}
}

void stat_remove(struct sw_sock *s)
{
	if (s->stat_record < 0)
		return;
	if (current() && writer.pid == sw_rt.pid) {
		atomic_store_explicit(&current()->records[s->stat_record].seq, 0, memory_order_release);
		put_back((unsigned)s->stat_record);
	}
	s->stat_record = -1;
	s->stat_out = s->stat_in = NULL;
}

void stat_count(enum sd_reason reason)
{
	struct table *t = table();
	bool san = reason == SD_REASON_SAN || reason == SD_REASON_LOOP;

	if (!t)
		return;
	atomic_fetch_add_explicit(&t->h.by_reason[reason], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(san ? &t->h.san_total : &t->h.tcp_total, 1, memory_order_relaxed);
}

void stat_refresh(bool anyway)
{
	struct table *t = writer.pid == sw_rt.pid ? current() : NULL;
	uint64_t wanted;

	if (!t)
		return;
	wanted = atomic_load_explicit(&t->h.refresh_wanted, memory_order_acquire);
	if (!anyway && wanted == atomic_load_explicit(&t->h.refreshed, memory_order_relaxed))
		return;
	for (int fd = sw_fd_next(0); fd >= 0; fd = sw_fd_next(fd + 1)) {
		struct sw_sock *s = sw_sock_at(fd);

		if (s && s->fd == fd)
			stat_update(s);
	}
	describe_engine();
	atomic_store_explicit(&t->h.refreshed, wanted, memory_order_release);
}

void stat_close(void)
{
	/* Who reads the table of a confined process finds that it is no more. */
	if (!sw_rt.confined && writer.pid == getpid())
		stattable_remove(&writer.table);
}

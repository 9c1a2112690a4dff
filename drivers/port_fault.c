/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_fault: a port in front of another one that makes its link bad. What is sent is judged; frames that are
 * to arrive now go straight through, the others are copied to a line of our own and sent when due, from
 * whichever of rx, tx and link_poll is called next. A sleeper has to wake for that: wait_fd is an epoll
 * descriptor that holds the inner port's descriptor and a timer, and arm() sets the timer to the earliest
 * held frame. Receiving is not touched. Owned by one thread at a time, as every port.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "drivers/encap.h"
#include "drivers/fault.h"
#include "drivers/port.h"

enum {
	SLOTS = 4096,
	CAPACITY_EXTRA = 64,
};

#define RETRY_TIME (100 * SD_US) /* a full inner port is tried again after this, also by sleepers */

struct fault_port {
	struct port base;
	struct port *inner;
	struct fault_judge judge;
	struct fault_line line;
	struct port_stats stats; /* what tx took, and the faults */
	int epoll_fd, timer_fd;
	int inner_fd; /* what epoll_fd holds besides the timer; -1: nothing */
	bool timer_set;
};

static struct fault_port *fault_of(struct port *p)
{
	return (struct fault_port *)p;
}

/* Sends what is due; stops when the inner port is full. */
static void release_due(struct fault_port *w, uint64_t now)
{
	struct port *in = w->inner;
	const struct fault_frame *f;

	while ((f = fault_line_peek(&w->line)) && f->due <= now) {
		struct port_frame out;

		if (!in->ops->tx_get(in, &out, 1))
			return;
		memcpy(out.data, f->data, f->len);
		out.len = f->len;
		out.flags = f->flags;
		if (!in->ops->tx(in, &out, 1)) {
			in->ops->tx_put(in, &out, 1);
			return;
		}
		fault_line_release(&w->line, fault_line_pop(&w->line));
	}
}

static void release(struct fault_port *w)
{
	if (w->line.held)
		release_due(w, sd_clock_ns());
}

static unsigned fault_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct fault_port *w = fault_of(p);

	release(w);
	return w->inner->ops->rx(w->inner, frames, max);
}

static void fault_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	struct port *in = fault_of(p)->inner;

	in->ops->rx_done(in, frames, n);
}

static unsigned fault_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct port *in = fault_of(p)->inner;

	return in->ops->tx_get(in, frames, n);
}

static void fault_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	struct port *in = fault_of(p)->inner;

	in->ops->tx_put(in, frames, n);
}

/* Damage happens on the wire, after the NIC has summed: finish its part first. */
static void corrupt(struct fault_port *w, struct port_frame *f)
{
	if (f->flags & PORT_TX_CSUM)
		encap_finish_offload(f->data, f->len);
	f->flags &= ~(uint32_t)PORT_TX_CSUM;
	fault_judge_corrupt(&w->judge, f->data, f->len);
}

/* Sends frames[from..to) untouched; returns how many the inner port took. */
static unsigned pass(struct fault_port *w, struct port_frame *frames, unsigned from, unsigned to)
{
	return from == to ? 0 : w->inner->ops->tx(w->inner, frames + from, to - from);
}

/* Does to one frame what the verdict says, if that is more than passing it on. */
static void divert(struct fault_port *w, struct port_frame *f, const struct fault_verdict *v)
{
	if (v->copies > 1)
		fault_line_push(&w->line, v->due, f->data, f->len, f->flags);
	if (v->copies && v->corrupt)
		corrupt(w, f);
	if (v->copies)
		fault_line_push(&w->line, v->due, f->data, f->len, f->flags);
	w->inner->ops->tx_put(w->inner, f, 1);
}

static unsigned take(struct fault_port *w, struct port_frame *frames, unsigned n)
{
	uint64_t now = sd_clock_ns();
	unsigned sent = 0, i;

	release_due(w, now);
	/* Frames [sent, i) are waiting to be passed on together. */
	for (i = 0; i < n; i++) {
		struct fault_verdict v;

		if (w->line.idle_count < 2)
			break;
		v = fault_judge_frame(&w->judge, now, frames[i].len);
		w->stats.faults += v.touched;
		if (!v.touched && v.due <= now && !w->line.held)
			continue;
		sent += pass(w, frames, sent, i);
		if (sent < i)
			return sent;
		divert(w, &frames[i], &v);
		sent = i + 1;
	}
	sent += pass(w, frames, sent, i);
	release_due(w, now);
	return sent;
}

static unsigned fault_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct fault_port *w = fault_of(p);
	unsigned taken = take(w, frames, n);

	for (unsigned i = 0; i < taken; i++)
		w->stats.tx_bytes += frames[i].len;
	w->stats.tx_frames += taken;
	w->stats.tx_full += taken < n;
	return taken;
}

/* --- waiting --- */

static void watch(int epoll_fd, int op, int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	epoll_ctl(epoll_fd, op, fd, &e);
}

static int fault_wait_fd(struct port *p)
{
	struct fault_port *w = fault_of(p);
	int fd = w->inner->ops->wait_fd(w->inner);

	if (fd != w->inner_fd) {
		if (w->inner_fd >= 0)
			watch(w->epoll_fd, EPOLL_CTL_DEL, w->inner_fd);
		if (fd >= 0)
			watch(w->epoll_fd, EPOLL_CTL_ADD, fd);
		w->inner_fd = fd;
	}
	return fd < 0 ? fd : w->epoll_fd;
}

static void set_timer(struct fault_port *w, uint64_t after)
{
	struct itimerspec t = {
		.it_value = {.tv_sec = (time_t)(after / SD_S), .tv_nsec = (long)(after % SD_S)}};

	w->timer_set = after != 0;
	timerfd_settime(w->timer_fd, 0, &t, NULL);
}

static int fault_arm(struct port *p)
{
	struct fault_port *w = fault_of(p);
	const struct fault_frame *f;
	uint64_t now = sd_clock_ns();

	release_due(w, now);
	f = fault_line_peek(&w->line);
	if (f)
		set_timer(w, f->due > now ? f->due - now : RETRY_TIME);
	return w->inner->ops->arm(w->inner);
}

static void fault_disarm(struct port *p)
{
	struct fault_port *w = fault_of(p);

	if (w->timer_set)
		set_timer(w, 0); /* this also takes an expiry back */
	w->inner->ops->disarm(w->inner);
}

static bool fault_link_poll(struct port *p)
{
	struct fault_port *w = fault_of(p);
	bool changed = w->inner->ops->link_poll(w->inner);

	if (changed && w->inner_fd >= 0) { /* it may be another file under the same number now */
		watch(w->epoll_fd, EPOLL_CTL_DEL, w->inner_fd);
		w->inner_fd = -1;
	}
	release(w);
	return changed;
}

/* --- the rest --- */

static void fault_info(struct port *p, struct port_info *out)
{
	struct port *in = fault_of(p)->inner;

	in->ops->info(in, out);
	out->caps &= ~(uint32_t)PORT_CAP_EXT_TX; /* held frames are copies */
}

static void fault_stats(struct port *p, struct port_stats *out)
{
	struct fault_port *w = fault_of(p);

	w->inner->ops->stats(w->inner, out);
	out->tx_frames = w->stats.tx_frames;
	out->tx_bytes = w->stats.tx_bytes;
	out->tx_full = w->stats.tx_full;
	out->faults += w->stats.faults;
}

static int own_fd(int fd)
{
	fd = sd_fd_raise(fd);
	if (fd >= 0)
		port_guard_fd(fd, true);
	return fd;
}

static void close_fd(int fd)
{
	if (fd < 0)
		return;
	port_guard_fd(fd, false);
	close(fd);
}

static void wrapper_free(struct fault_port *w)
{
	close_fd(w->timer_fd);
	close_fd(w->epoll_fd);
	fault_line_close(&w->line);
	free(w);
}

static void fault_close(struct port *p)
{
	struct fault_port *w = fault_of(p);

	w->inner->ops->close(w->inner);
	wrapper_free(w);
}

static unsigned fault_backlog(struct port *p)
{
	struct fault_port *w = fault_of(p);

	return w->inner->ops->backlog ? w->inner->ops->backlog(w->inner) : 0;
}

static const struct port_ops fault_ops = {
	.size = sizeof(struct port_ops),
	.name = "fault",
	.rx = fault_rx,
	.rx_done = fault_rx_done,
	.tx_get = fault_tx_get,
	.tx_put = fault_tx_put,
	.tx = fault_tx,
	.wait_fd = fault_wait_fd,
	.arm = fault_arm,
	.disarm = fault_disarm,
	.link_poll = fault_link_poll,
	.info = fault_info,
	.stats = fault_stats,
	.backlog = fault_backlog,
	.close = fault_close,
};

int port_fault_open(struct port *inner, const struct port_faults *f, struct port **out)
{
	struct fault_port *w = calloc(1, sizeof *w);
	struct port_info info;
	int err = 0;

	if (!w)
		return -ENOMEM;
	inner->ops->info(inner, &info);
	w->base.ops = &fault_ops;
	w->inner = inner;
	w->inner_fd = -1;
	/* Two hosts with the same configuration shall not lose the same frames. */
	fault_judge_init(&w->judge, f, info.mac[4] * 256u + info.mac[5]);
	w->epoll_fd = own_fd(epoll_create1(EPOLL_CLOEXEC));
	w->timer_fd = own_fd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
	if (w->epoll_fd < 0 || w->timer_fd < 0)
		err = -errno;
	else
		err = fault_line_open(&w->line, SLOTS, info.mtu + CAPACITY_EXTRA);
	if (err) {
		wrapper_free(w);
		return err;
	}
	watch(w->epoll_fd, EPOLL_CTL_ADD, w->timer_fd);
	*out = &w->base;
	return 0;
}

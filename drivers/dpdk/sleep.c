/* SPDX-License-Identifier: BSD-3-Clause */
/* sleep: waiting for a port's frames, by whatever its driver has for it: an event, a set of them, a socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <rte_ethdev.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/dpdk/ethdev.h"

static int intr_kind(int fd)
{
	char link[64], text[64] = "";

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	if (readlink(link, text, sizeof text - 1) <= 0)
		return INTR_OTHER;
	return strstr(text, "eventfd") ? INTR_COUNTER : strstr(text, "eventpoll") ? INTR_SET : INTR_OTHER;
}

/* Takes the wake-up back; true if there was one, or there is no way to know. */
static bool intr_consume(const struct eth_queue *q)
{
	struct epoll_event event;
	socklen_t len = sizeof(int);
	uint64_t count;
	int error;

	switch (q->intr_kind) {
	case INTR_COUNTER:
		return read(q->intr_fd, &count, sizeof count) == sizeof count;
	case INTR_SET:
		return epoll_wait(q->intr_fd, &event, 1, 0) > 0;
	case INTR_LEVEL: /* an error would wake for ever */
		getsockopt(q->intr_fd, SOL_SOCKET, SO_ERROR, &error, &len);
		return true;
	default:
		return true;
	}
}

static void find_interrupt(struct eth_queue *q)
{
	struct pollfd p = {.events = POLLIN};
	uint16_t id = q->port->id;

	q->intr_fd = -1;
	if (q->port->packet_fd >= 0) {
		q->intr_fd = q->port->packet_fd;
		q->intr_kind = INTR_LEVEL;
		return;
	}
	p.fd = rte_eth_dev_rx_intr_ctl_q_get_fd(id, q->index);
	if (q->intr_strikes >= INTR_STRIKES || p.fd < 0 || poll(&p, 1, 0) < 0 ||
		p.revents & (POLLNVAL | POLLERR))
		return;
	if (rte_eth_dev_rx_intr_enable(id, q->index) || rte_eth_dev_rx_intr_disable(id, q->index))
		return;
	q->intr_fd = p.fd;
	q->intr_kind = intr_kind(p.fd);
	if (q->intr_kind == INTR_COUNTER)
		fcntl(p.fd, F_SETFL, fcntl(p.fd, F_GETFL) | O_NONBLOCK);
}

void eth_find_interrupts(struct eth_port *e)
{
	for (unsigned i = 0; i < e->n_queues; i++)
		find_interrupt(&e->queues[i]);
}

int eth_wait_fd(struct port *p)
{
	const struct eth_queue *q = eth_of(p);

	if (!q->port->started)
		return -EAGAIN;
	return q->intr_fd < 0 ? -ENOTSUP : q->intr_fd;
}

static int switch_interrupt(const struct eth_queue *q, bool on)
{
	struct eth_port *e = q->port;
	int r;

	rte_spinlock_lock(&e->intr_lock);
	r = on ? rte_eth_dev_rx_intr_enable(e->id, q->index) : rte_eth_dev_rx_intr_disable(e->id, q->index);
	rte_spinlock_unlock(&e->intr_lock);
	return r;
}

int eth_arm(struct port *p)
{
	const struct eth_queue *q = eth_of(p);

	if (!q->port->started)
		return 0;
	if (q->intr_fd < 0)
		return -ENOTSUP;
	if (q->intr_kind == INTR_LEVEL)
		return 0;
	intr_consume(q); /* the peer may have been about to signal when we disarmed */
	return switch_interrupt(q, true) ? -ENOTSUP : 0;
}

void eth_disarm(struct port *p)
{
	struct eth_queue *q = eth_of(p);

	if (q->intr_fd < 0)
		return;
	if (q->intr_kind != INTR_LEVEL)
		switch_interrupt(q, false);
	q->intr_missed = !intr_consume(q);
	if (!q->intr_missed && q->intr_kind <= INTR_SET)
		q->intr_proven = true;
}

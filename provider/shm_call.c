/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm provider's calls to the daemon: greeting, requests and their answers. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "provider/domain_private.h"
#include "provider/shm_private.h"

#define PATIENCE_NS    (CHANNEL_PATIENCE_MS * SD_MS) /* with a greeting; others: as it says */
#define RETRY_FIRST_NS (250 * SD_MS)
#define RETRY_MAX_NS   (30 * SD_S)

void shm_hang_up(struct shm *x)
{
	struct list lost = LIST_INIT(lost), *it;
	struct channel_message m = {.type = CHANNEL_REFUSED, .refused = {ECONNREFUSED, SD_REASON_NO_DAEMON}};

	if (x->channel >= 0) {
		shm_unwatch(x, x->channel);
		pv_domain_guard_fd(x->pv.domain, x->channel, PV_GUARD_NONE);
		close(x->channel);
		x->channel = -1;
	}
	while ((it = list_pop_front(&x->requests)))
		list_push_back(&lost, it);
	while ((it = list_pop_front(&lost)))
		shm_ep_answer(container_of(it, struct shm_ep, request), &m);
}

static int wait_for(int fd, short events, uint64_t until)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now = sd_clock_ns();

	return now < until && poll(&p, 1, (int)((until - now) / SD_MS) + 1) == 1 ? 0 : -ETIMEDOUT;
}

static int greet(struct shm *x, int fd)
{
	struct channel_message m = {.type = CHANNEL_HELLO, .hello = {.version = CHANNEL_VERSION}};
	int r;

	snprintf(m.hello.program, sizeof m.hello.program, "%.31s", program_invocation_short_name);
	r = channel_send(fd, &m);
	if (!r)
		r = wait_for(fd, POLLIN, sd_clock_ns() + PATIENCE_NS);
	if (!r)
		r = channel_recv(fd, &m);
	if (!r && (m.type != CHANNEL_WELCOME || m.welcome.version != CHANNEL_VERSION))
		r = -EPROTO;
	if (!r)
		x->patience_ns = m.welcome.patience_ms * SD_MS;
	channel_close_fds(&m);
	return r;
}

static int call_daemon(struct shm *x)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = SHM_CHANNEL_TAG};
	int fd, r;

	if (strlen(x->path) >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	strcpy(a.sun_path, x->path);
	fd = sd_fd_raise(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (fd < 0)
		return -errno;
	r = connect(fd, (struct sockaddr *)&a, sizeof a) ? -errno : greet(x, fd);
	if (!r)
		r = shm_open_events(x);
	if (!r && epoll_ctl(x->events, EPOLL_CTL_ADD, fd, &ev))
		r = -errno;
	if (r) {
		close(fd);
		return r;
	}
	x->channel = fd;
	pv_domain_guard_fd(x->pv.domain, fd, PV_GUARD_OWN);
	return 0;
}

enum sd_reason shm_call(struct shm *x)
{
	uint64_t now = sd_clock_ns();
	int r;

	if (x->channel >= 0)
		return SD_REASON_SAN;
	if (now < x->retry_at || !*x->path || x->confined)
		return SD_REASON_NO_DAEMON;
	r = call_daemon(x);
	if (!r) {
		x->retry_after = 0;
		return SD_REASON_SAN;
	}
	if (!x->retry_after)
		sd_info("the daemon at %s does not answer (%s); connections use kernel TCP", x->path,
			strerror(-r));
	x->retry_after = x->retry_after ? x->retry_after * 2 : RETRY_FIRST_NS;
	if (x->retry_after > RETRY_MAX_NS)
		x->retry_after = RETRY_MAX_NS;
	x->retry_at = sd_clock_ns() + x->retry_after;
	return r == -EMFILE ? SD_REASON_LIMIT_NOFILE : SD_REASON_NO_DAEMON;
}

/*
 * A program may ask faster than the daemon listens, which a loop of connects that do not block does easily:
 * then it waits. Answers are taken meanwhile, as the daemon does not wait for anybody to do that.
 */
static int send_patiently(struct shm *x, const struct channel_message *m)
{
	uint64_t until = sd_clock_ns() + x->patience_ns;
	int r;

	/* The kernel may also have an opinion on how many descriptors of a user are on their way. */
	while ((r = channel_send(x->channel, m)) == -EAGAIN || r == -ETOOMANYREFS) {
		int heard = shm_hear(x) ? 0
					: wait_for(x->channel, POLLIN | (r == -EAGAIN ? POLLOUT : 0),
						  r == -EAGAIN ? until : sd_clock_ns() + SD_MS);

		if (x->channel < 0)
			return -ENOTCONN;
		if (heard && sd_clock_ns() >= until)
			return -EPIPE; /* it has stopped listening */
	}
	return r;
}

int shm_ask(struct shm_ep *e, struct channel_message *m, bool patient)
{
	struct shm *x = shm_of(e);
	int r = x->channel < 0 ? -ENOTCONN : 0;

	m->id = e->id = ++x->next_id;
	if (!r)
		r = patient ? send_patiently(x, m) : channel_send(x->channel, m);
	if (!r) {
		e->give_up_at = sd_clock_ns() + x->patience_ns;
		list_push_back(&x->requests, &e->request);
	} else if (r == -EPIPE || r == -ECONNRESET) {
		shm_hang_up(x);
	}
	return r;
}

void shm_await(struct shm_ep *e)
{
	struct shm *x = shm_of(e);

	while (!list_empty(&e->request) && x->channel >= 0) {
		if (wait_for(x->channel, POLLIN, e->give_up_at))
			shm_hang_up(x);
		else
			shm_hear(x);
	}
}

uint64_t shm_call_deadline(const struct shm *x)
{
	/* The first was sent first. */
	if (!list_empty(&x->requests))
		return container_of(x->requests.next, struct shm_ep, request)->give_up_at;
	return x->channel < 0 && x->n_listeners ? x->retry_at : UINT64_MAX;
}

void shm_call_timeout(struct shm *x, uint64_t now)
{
	if (x->channel >= 0) {
		sd_warn("the daemon at %s has stopped answering; connections use kernel TCP", x->path);
		shm_hang_up(x);
		x->retry_at = now + RETRY_FIRST_NS;
	} else if (shm_call(x) == SD_REASON_SAN) {
		shm_listen_again(x);
	}
}

unsigned shm_hear(struct shm *x)
{
	struct channel_message m;
	unsigned n = 0;
	int r;

	while (x->channel >= 0 && !(r = channel_recv(x->channel, &m))) {
		list_for_each (it, &x->requests) {
			struct shm_ep *e = container_of(it, struct shm_ep, request);

			if (e->id != m.id)
				continue;
			list_remove(&e->request);
			shm_ep_answer(e, &m);
			break;
		}
		channel_close_fds(&m);
		n++;
	}
	if (x->channel >= 0 && r != -EAGAIN)
		shm_hang_up(x);
	return n;
}

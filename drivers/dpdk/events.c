/* SPDX-License-Identifier: BSD-3-Clause */
/* Sources are few enough for plain arrays. No lock: the ports' thread is the only one that comes here. */
#include "drivers/dpdk/events.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>

#include "base/clock.h"
#include "drivers/dpdk/manners.h"

enum {
	SOURCES = 32,
	ALARMS = 32,
	ROUNDS = 64,	/* of handling, for a descriptor that stays readable whatever is done */
	AT_ONCE = 1000, /* us */
	PATIENCE = 100, /* ms that a new dialogue may hold the thread up while the peer answers */
};

struct source {
	const struct rte_intr_handle *handle; /* NULL: unused */
	int fd;
	rte_intr_callback_fn run;
	void *arg;
	bool active;			       /* run is being called */
	rte_intr_unregister_callback_fn after; /* to be unregistered when run returns */
	unsigned patience;		       /* ms */
};

/* Drivers set most of them for "at once, but not in here". */
struct alarm {
	rte_eal_alarm_callback run;
	void *arg;
	uint64_t due; /* ns; 0: at once */
};

static struct source sources[SOURCES];
static struct alarm alarms[ALARMS];
static unsigned n_alarms;

/* --- in place of EAL's functions --- */

static struct source *find(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg)
{
	for (unsigned i = 0; i < SOURCES; i++) {
		struct source *s = &sources[i];

		if (s->handle == handle && s->run == run && s->arg == arg)
			return s;
	}
	return NULL;
}

static int add(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg, unsigned patience)
{
	struct source *known = find(handle, run, arg);

	if (rte_intr_fd_get(handle) < 0)
		return -EINVAL;
	if (known) { /* net_virtio registers twice */
		known->fd = rte_intr_fd_get(handle);
		return 0;
	}
	for (unsigned i = 0; i < SOURCES; i++) {
		if (sources[i].handle)
			continue;
		sources[i] = (struct source){.handle = handle,
			.fd = rte_intr_fd_get(handle),
			.run = run,
			.arg = arg,
			.patience = patience};
		return 0;
	}
	return -ENOMEM;
}

int events_register(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg)
{
	return add(handle, run, arg, 0);
}

int events_register_dialogue(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg)
{
	return add(handle, run, arg, PATIENCE);
}

int events_unregister(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg)
{
	struct source *s = find(handle, run, arg);

	if (!s)
		return -ENOENT;
	if (s->active)
		return -EAGAIN;
	s->handle = NULL;
	return 1;
}

int events_unregister_pending(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg,
	rte_intr_unregister_callback_fn after)
{
	struct source *s = find(handle, run, arg);

	if (!s || !s->active)
		return -ENOENT;
	s->after = after;
	return 1;
}

void events_instance_free(struct rte_intr_handle *handle)
{
	for (unsigned i = 0; handle && i < SOURCES; i++)
		if (sources[i].handle == handle)
			sources[i].handle = NULL;
	rte_intr_instance_free(handle);
}

void events_listener_free(struct rte_intr_handle *handle)
{
	for (unsigned i = 0; handle && i < SOURCES; i++)
		if (sources[i].handle == handle)
			manners_close(sources[i].fd);
	events_instance_free(handle);
}

int events_alarm_set(uint64_t us, rte_eal_alarm_callback run, void *arg)
{
	for (unsigned i = 0; i < n_alarms; i++)
		if (alarms[i].run == run && alarms[i].arg == arg)
			return 0; /* twice would end the next connection too */
	if (n_alarms == ALARMS)
		return -ENOMEM;
	alarms[n_alarms++] = (struct alarm){run, arg, us < AT_ONCE ? 0 : sd_clock_ns() + us * 1000};
	return 0;
}

int events_alarm_cancel(rte_eal_alarm_callback run, void *arg)
{
	int cancelled = 0;

	for (unsigned i = n_alarms; i-- > 0;)
		if (alarms[i].run == run && alarms[i].arg == arg) {
			alarms[i] = alarms[--n_alarms];
			cancelled++;
		}
	return cancelled;
}

/* --- running --- */

static bool ring_alarms(void)
{
	uint64_t now = n_alarms ? sd_clock_ns() : 0;
	bool any = false;

	/* Those that are set meanwhile may be rung, too, or at the next round. */
	for (unsigned i = n_alarms; i-- > 0;) {
		struct alarm a;

		if (i >= n_alarms || alarms[i].due > now)
			continue;
		a = alarms[i];
		alarms[i] = alarms[--n_alarms];
		a.run(a.arg);
		any = true;
	}
	return any;
}

static void serve(struct source *s)
{
	s->active = true;
	s->run(s->arg);
	s->active = false;
	if (s->handle && s->after) {
		struct rte_intr_handle *handle = (struct rte_intr_handle *)s->handle;

		s->handle = NULL;
		s->after(handle, s->arg);
	}
}

/* Serves every source that has something, or will have within timeout; true if any had. */
static bool serve_all(int timeout_ms)
{
	struct pollfd fds[SOURCES];

	for (unsigned i = 0; i < SOURCES; i++)
		fds[i] = (struct pollfd){.fd = sources[i].handle ? sources[i].fd : -1, .events = POLLIN};
	if (poll(fds, SOURCES, timeout_ms) <= 0)
		return false;
	for (unsigned i = 0; i < SOURCES; i++) {
		struct source *s = &sources[i];

		if (!fds[i].revents || !s->handle || s->fd != fds[i].fd)
			continue;
		if (fds[i].revents & POLLNVAL) /* closed without a word */
			s->handle = NULL;
		else
			serve(s);
	}
	return true;
}

/* Is there a dialogue whose patience is not used up? Uses 1 ms of it. */
static bool expecting(void)
{
	bool any = false;

	for (unsigned i = 0; i < SOURCES; i++) {
		struct source *s = &sources[i];

		if (!s->handle || !s->patience)
			continue;
		s->patience--;
		any = true;
	}
	return any;
}

void events_run(void)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		bool any = ring_alarms();

		if (!serve_all(0) && !any && !(expecting() && serve_all(1)))
			return;
	}
}

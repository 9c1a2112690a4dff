/* SPDX-License-Identifier: BSD-3-Clause */
/* Birth and death of the switch in a process: configuration, log, domain and providers. */
#include "switch/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "provider/registry.h"
#include "switch/connect.h"
#include "switch/fdtab.h"
#include "switch/inherit.h"
#include "switch/libc.h"
#include "switch/ports.h"
#include "switch/process.h"
#include "switch/sock.h"
#include "switch/statwrite.h"

struct sw_runtime sw_rt = {.work = LIST_INIT(sw_rt.work)};

static pthread_mutex_t birth = PTHREAD_MUTEX_INITIALIZER;

/* --- callbacks of the domain --- */

static void thread_start(void *ctx)
{
	/* For good: whatever this thread calls goes to the C library. */
	sw_sigstate.inside = 1;
}

static void tick(void *ctx, bool resting)
{
	stat_refresh(resting);
}

/* Not program_invocation_short_name, whose text a program changes when it sets its title. */
const char *sw_program_name(void)
{
	const char *path = (const char *)getauxval(AT_EXECFN), *slash;

	if (!path)
		return program_invocation_short_name;
	slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* Not the C library's ppoll, which is a cancellation point: a cancelled thread first lets go
 * (sw_wait_restarts). */
static int bare_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	struct timespec left;

	if (timeout)
		left = *timeout; /* the kernel writes to it */
	return (int)syscall(SYS_ppoll, fds, n, timeout ? &left : NULL, mask, _NSIG / 8);
}

/* --- configuration --- */

/* Opens the file for each line: no descriptor of ours stays in the program. */
static void log_to_file(void *ctx, enum sd_log_level level, const char *line)
{
	const struct cfg *cfg = ctx;
	char text[1200];
	int n = snprintf(text, sizeof text, "%s[%d]: %s\n", sw_program_name(), (int)getpid(), line);
	int fd = (int)syscall(
		SYS_openat, AT_FDCWD, cfg->log_file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		fd = STDERR_FILENO;
	syscall(SYS_write, fd, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
	if (fd != STDERR_FILENO)
		syscall(SYS_close, fd);
}

static void log_to(struct cfg *cfg)
{
	sd_log_open(cfg->log_level, cfg->log_file[0] ? log_to_file : NULL, cfg);
}

void sw_runtime_log(void)
{
	log_to(sw_rt.cfg);
}

/* Why nothing can go over the SAN, or SD_REASON_SAN. */
static enum sd_reason load_config(struct cfg *cfg)
{
	char err[CFG_ERR_LEN];

	if (cfg_load(cfg, err, sizeof err)) {
		log_to(cfg);
		sd_error("%s; everything uses kernel TCP", err);
		return SD_REASON_DISABLED;
	}
	log_to(cfg);
	if (!cfg->enabled)
		return SD_REASON_DISABLED;
	return cfg->n_ports || cfg->daemon[0] ? SD_REASON_SAN : SD_REASON_NO_PORT;
}

/* --- birth --- */

static int open_domain(const struct cfg *cfg, struct pv_domain **out)
{
	struct pv_domain_config dc = {
		.size = sizeof dc,
		.spin_ns = cfg->spin_ns,
		.tick = tick,
		.thread_start = thread_start,
		.fd_guard = sw_fd_guard,
		.ppoll = bare_ppoll,
	};

	return pv_domain_open(&dc, out);
}

/* A port of this process's own, and what goes from it to itself. */
static int open_embedded(struct sw_runtime *rt)
{
	int r = sw_ports_open(rt->cfg, sw_sock_ready, &rt->ether);

	if (!r)
		r = pv_loop_open(rt->ether, sw_sock_ready, &rt->loop);
	if (r)
		return r;
	rt->providers[0] = rt->loop;
	rt->providers[1] = rt->ether;
	rt->n_providers = 2;
	return 0;
}

/* The daemon has the ports. */
static int open_attached(struct sw_runtime *rt)
{
	/* A forked child goes on with its parent's. */
	int r = rt->shm ? 0 : pv_shm_open(rt->cfg->daemon, sw_sock_ready, &rt->shm);

	if (r)
		return r;
	rt->providers[0] = rt->shm;
	rt->n_providers = 1;
	return 0;
}

static int open_providers(struct sw_runtime *rt)
{
	int r;

	if (rt->off != SD_REASON_SAN)
		return 0;
	r = rt->cfg->daemon[0] ? open_attached(rt) : open_embedded(rt);
	if (r)
		return r;
	for (unsigned i = 0; i < rt->n_providers; i++) {
		r = pv_domain_add(rt->domain, rt->providers[i]);
		if (r)
			return r;
	}
	return rt->shm && sw_process_was_forked() ? rt->shm->ops->in_child(rt->shm) : 0;
}

static int be_born(void)
{
	struct sw_runtime *rt = &sw_rt;
	struct pv_domain *domain;
	enum sd_reason off = rt->off;
	int r;

	if (!rt->cfg) {
		rt->cfg = calloc(1, sizeof *rt->cfg);
		if (!rt->cfg)
			return -ENOMEM;
		off = load_config(rt->cfg);
	}
	r = open_domain(rt->cfg, &domain);
	if (r)
		return r;
	rt->off = off;
	rt->pid = getpid();
	rt->domain = domain;
	rt->n_providers = 0;
	rt->start_tried = false;
	rt->started = rt->shm && rt->n_listeners; /* a forked child goes on with them */
	r = open_providers(rt);
	if (r) {
		sd_error("the SAN cannot be set up: %s; everything uses kernel TCP", strerror(-r));
		rt->off = SD_REASON_NO_MEMORY;
		rt->n_providers = 0;
	}
	return 0;
}

int sw_runtime_open(void)
{
	int r = 0, saved_errno = errno;

	sw_sigstate.inside++;
	pthread_mutex_lock(&birth);
	if (!sw_rt.domain || !pv_domain_alive(sw_rt.domain)) {
		r = be_born();
		if (!r && sw_process_was_forked())
			sw_process_reborn();
		if (!r && pv_enter(sw_rt.domain)) {
			sw_inherit_settle();
			pv_leave(sw_rt.domain);
		}
	}
	pthread_mutex_unlock(&birth);
	sw_sigstate.inside--;
	errno = saved_errno;
	return r;
}

void sw_runtime_after_fork(void)
{
	pthread_mutex_init(&birth, NULL);
	list_init(&sw_rt.work);
}

bool sw_enter_slow(void)
{
	if (sw_sigstate.inside)
		return false;
	if (sw_rt.exiting || sw_runtime_open())
		return false;
	sw_sigstate.inside++;
	if (pv_enter(sw_rt.domain)) {
		if (sw_cancel_count())
			sw_cancel_hold();
		return true;
	}
	sw_sigstate.inside--;
	return false;
}

/* --- life --- */

enum sd_reason sw_runtime_start(struct pv *p)
{
	enum sd_reason r = p->ops->start(p);

	if (p == sw_rt.ether)
		sw_rt.start_tried = true;
	if (p != sw_rt.loop)
		sw_rt.started = r == SD_REASON_SAN;
	return r;
}

void sw_runtime_start_listeners(void)
{
	if (sw_rt.n_listeners && !sw_rt.started && sw_rt.ether)
		sw_runtime_start(sw_rt.ether);
}

unsigned sw_progress(void)
{
	unsigned n = pv_progress(sw_rt.domain);
	struct list *it;

	while (__builtin_expect(!list_empty(&sw_rt.work), 0)) {
		it = list_pop_front(&sw_rt.work);
		sw_connect_settle(container_of(it, struct sw_sock, work));
		n++;
	}
	return n;
}

void sw_runtime_close(void)
{
	if (!sw_rt.domain || !pv_domain_alive(sw_rt.domain) || sw_rt.pid != getpid() || sw_rt.exiting)
		return;
	if (!sw_enter())
		return;
	sw_rt.exiting = true;
	sw_process_close_sockets();
	sw_leave();
	sw_sigstate.inside++;
	pv_domain_drain(sw_rt.domain, sw_rt.cfg->exit_linger_ns);
	stat_close();
	sw_sigstate.inside--;
}

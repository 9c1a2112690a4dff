/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port: opens a port by its name in the configuration. DPDK devices come from a shared module that is loaded
 * on first use, so programs that never open one do not carry DPDK. The module is looked for beside the
 * library that this code is part of, and is never unloaded: the EAL leaves threads behind. A lock covers the
 * loading; everything else belongs to the caller.
 */
#include "drivers/port.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mac.h"
#include "base/pci.h"
#include "drivers/fault.h"

#define BACKEND "libsandirect-dpdk.so"

typedef int open_fn(const struct port_config *cfg, struct port **out, char *err, size_t err_len);
typedef int prepare_fn(const struct port_config *cfg, char *err, size_t err_len);
typedef void set_guard_fn(port_fd_guard *guard, void *ctx);
typedef void set_log_fn(enum sd_log_level level, sd_log_sink *sink, void *ctx);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static open_fn *backend_open;
static prepare_fn *backend_prepare;
static set_guard_fn *backend_set_guard;
static port_fd_guard *fd_guard;
static void *fd_guard_ctx;

/* The backend in dir/below, if that is a file. */
static bool backend_in(const char *dir, const char *below, char *path, size_t len)
{
	int n = snprintf(path, len, "%s/%s" BACKEND, dir, below);

	return n > 0 && (size_t)n < len && !access(path, R_OK);
}

static void backend_path(char *path, size_t len)
{
	Dl_info self;
	char dir[1024], *slash;

	if (dladdr((void *)backend_path, &self) && self.dli_fname && strlen(self.dli_fname) < sizeof dir) {
		strcpy(dir, self.dli_fname);
		slash = strrchr(dir, '/');
		if (slash) {
			*slash = 0;
			/* Installed together, or in a build tree. */
			if (backend_in(dir, "", path, len) || backend_in(dir, "../drivers/", path, len) ||
				backend_in(dir, "../../drivers/", path, len))
				return;
		}
	}
	if (backend_in(SD_LIBDIR, "", path, len))
		return;
	snprintf(path, len, BACKEND);
}

/* The backend's messages join ours. */
static void relay_log(void *ctx, enum sd_log_level level, const char *line)
{
	sd_log(level, "%s", line);
}

static void connect_log(set_log_fn *set_log)
{
	enum sd_log_level level = SD_LOG_DEBUG;

	while (level > SD_LOG_ERROR && !sd_log_enabled(level))
		level--;
	set_log(level, relay_log, NULL);
}

static int load_backend(char *err, size_t err_len)
{
	char path[1280];
	set_log_fn *set_log;
	void *handle;

	if (backend_open)
		return 0;
	backend_path(path, sizeof path);
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!handle) {
		snprintf(err, err_len, "no DPDK support: %s; install it, or use device = udp", dlerror());
		return -ENOTSUP;
	}
	backend_set_guard = (set_guard_fn *)dlsym(handle, "port_ethdev_set_fd_guard");
	set_log = (set_log_fn *)dlsym(handle, "port_ethdev_set_log");
	backend_prepare = (prepare_fn *)dlsym(handle, "port_ethdev_prepare");
	backend_open = (open_fn *)dlsym(handle, "port_ethdev_open");
	if (!backend_open || !backend_prepare || !backend_set_guard || !set_log) {
		backend_open = NULL;
		snprintf(err, err_len, "%s is not a Sandirect backend of this version; install it again",
			path);
		return -ENOTSUP;
	}
	connect_log(set_log);
	backend_set_guard(fd_guard, fd_guard_ctx);
	return 0;
}

void port_set_fd_guard(port_fd_guard *guard, void *ctx)
{
	pthread_mutex_lock(&lock);
	fd_guard = guard;
	fd_guard_ctx = ctx;
	if (backend_set_guard)
		backend_set_guard(guard, ctx);
	pthread_mutex_unlock(&lock);
}

void port_guard_fd(int fd, bool own)
{
	if (fd_guard)
		fd_guard(fd_guard_ctx, fd, own);
}

/* cfg with all fields there are in this version. */
static int complete(const struct port_config *cfg, struct port_config *out, char *err, size_t err_len)
{
	memset(out, 0, sizeof *out);
	memcpy(out, cfg, cfg->size < sizeof *out ? cfg->size : sizeof *out);
	out->size = sizeof *out;
	if (out->device && *out->device)
		return 0;
	snprintf(err, err_len, "no device; say device = udp or name a DPDK device");
	return -EINVAL;
}

static bool is_udp(const struct port_config *cfg)
{
	return !strcmp(cfg->device, "udp");
}

static int need_backend(char *err, size_t err_len)
{
	int e;

	pthread_mutex_lock(&lock);
	e = load_backend(err, err_len);
	pthread_mutex_unlock(&lock);
	return e;
}

static int open_device(const struct port_config *cfg, struct port **out, char *err, size_t err_len)
{
	int e;

	if (is_udp(cfg))
		return port_udp_open(cfg, out, err, err_len);
	e = need_backend(err, err_len);
	return e ? e : backend_open(cfg, out, err, err_len);
}

static int prepare_one(const struct port_config *cfg, char *err, size_t err_len)
{
	int e;

	if (is_udp(cfg))
		return 0;
	e = need_backend(err, err_len);
	return e ? e : backend_prepare(cfg, err, err_len);
}

/* One is enough. DPDK looks for PCI devices only if it is started for one. */
static int prepare_both(const struct port_config cfg[2])
{
	bool swapped = sd_pci_address(cfg[1].device, NULL) && !sd_pci_address(cfg[0].device, NULL);
	char err[2][256];
	int e = prepare_one(&cfg[swapped], err[0], sizeof err[0]);

	return prepare_one(&cfg[!swapped], err[1], sizeof err[1]) ? e : 0;
}

int port_prepare(const struct port_config *cfg, char *err, size_t err_len)
{
	struct port_config full[2];
	int e = complete(cfg, &full[0], err, err_len);

	if (e || !full[0].standby)
		return e ? e : prepare_one(&full[0], err, err_len);
	full[1] = full[0];
	full[1].device = full[0].standby;
	e = prepare_both(full);
	if (e)
		snprintf(err, err_len, "neither %s nor %s can be used", full[0].device, full[1].device);
	return e;
}

/* A device, and the faults that it is to have. */
static int open_one(const struct port_config *cfg, struct port **out, char *err, size_t err_len)
{
	struct port_config c = *cfg;
	struct port *inner;
	int e;

	if (port_faults_any(&c.faults))
		c.queues = 1; /* the injector has but one */
	e = open_device(&c, &inner, err, err_len);
	if (e)
		return e;
	if (!port_faults_any(&c.faults)) {
		*out = inner;
		return 0;
	}
	e = port_fault_open(inner, &c.faults, out);
	if (e) {
		snprintf(err, err_len, "no fault injection: %s", strerror(-e));
		port_close(inner);
	}
	return e;
}

/* --- two devices for one port --- */

struct both {
	struct port_config cfg[2];
	struct port *port[2];
	port_opener *open;
	void *ctx;
	unsigned index;
};

/* Device i, which has the other one's address; or if that is there, a port that waits for this one. */
static int open_member(struct both *b, unsigned i, char *err, size_t err_len)
{
	struct port_config *c = &b->cfg[i];
	struct port *other = b->port[!i];
	struct port_info info;
	int e;

	if (other && sd_mac_is_none(c->mac)) {
		other->ops->info(other, &info);
		memcpy(c->mac, info.mac, sizeof c->mac);
	}
	e = b->open(b->ctx, b->index + i, c, &b->port[i], err, err_len);
	if (!e)
		return 0;
	b->port[i] = NULL;
	if (!other)
		return e;
	sd_warn("SAN port %s: %s; it is tried again", c->name, err);
	return port_late_open(c, b->open, b->ctx, b->index + i, &b->port[i]);
}

int port_open_both(const struct port_config *cfg, port_opener *open, void *ctx, unsigned index,
	struct port **out, char *err, size_t err_len)
{
	struct both b = {.cfg = {*cfg, *cfg}, .open = open, .ctx = ctx, .index = index};
	char why[256];
	int first, e;

	b.cfg[1].device = cfg->standby;
	for (unsigned i = 0; i < 2; i++) {
		b.cfg[i].standby = NULL;
		b.cfg[i].queues = 1;
		b.cfg[i].ext_tx = false;
		b.cfg[i].needs_mac = true;
	}
	prepare_both(b.cfg);
	e = first = open_member(&b, 0, err, err_len);
	if (!first || !open_member(&b, 1, why, sizeof why))
		e = open_member(&b, !first, err, err_len);
	if (!e)
		e = port_bond_open(b.port[0], b.port[1], out);
	for (unsigned i = 0; e && i < 2; i++) {
		if (b.port[i])
			port_close(b.port[i]);
	}
	return e;
}

static int open_plain(void *ctx, unsigned index, const struct port_config *cfg, struct port **out, char *err,
	size_t err_len)
{
	return open_one(cfg, out, err, err_len);
}

int port_open(const struct port_config *cfg, struct port **out, char *err, size_t err_len)
{
	struct port_config full;
	int e = complete(cfg, &full, err, err_len);

	if (e)
		return e;
	return full.standby ? port_open_both(&full, open_plain, NULL, 0, out, err, err_len)
			    : open_one(&full, out, err, err_len);
}

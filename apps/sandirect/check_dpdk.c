/* SPDX-License-Identifier: BSD-3-Clause */
/* The libraries: ours, our DPDK backend, and the poll-mode drivers that DPDK has here. */
#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "locate.h"

void check_library(struct check_report *r)
{
	char path[PATH_MAX];

	if (locate_library(path, sizeof path))
		check_add(r, CHECK_MISSING, "libsandirect.so", "build or install it beside this command",
			"neither here nor installed");
	else
		check_add(r, CHECK_OK, "libsandirect.so", NULL, "%s", path);
}

static bool wants_dpdk(const struct cfg *cfg)
{
	for (unsigned i = 0; i < cfg->n_ports; i++)
		if (strcmp(cfg->ports[i].device, "udp"))
			return true;
	return false;
}

/* Names the drivers a DPDK build has by their files in DIR/dpdk/pmds-VERSION. */
static void check_drivers(struct check_report *r, const char *eal_path)
{
	static const char *const useful[] = {"net_virtio", "net_vhost", "net_memif", "net_af_packet",
		"net_af_xdp", "net_tap", "net_ixgbe", "net_i40e", "net_ice", "net_mlx5", "net_ena"};
	char pattern[PATH_MAX + 64], list[256] = "";
	const char *slash = strrchr(eal_path, '/');
	int dir_len = slash ? (int)(slash - eal_path) : 0;
	size_t n = 0;
	glob_t g;

	for (unsigned i = 0; i < sizeof useful / sizeof *useful; i++) {
		snprintf(pattern, sizeof pattern, "%.*s/dpdk/pmds-*/librte_%s.so", dir_len, eal_path,
			useful[i]);
		if (glob(pattern, 0, NULL, &g))
			continue;
		globfree(&g);
		n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? " " : "", useful[i]);
	}
	if (n)
		check_add(r, CHECK_OK, "DPDK drivers", NULL, "%s", list);
	else
		check_add(r, CHECK_WARN, "DPDK drivers",
			"apt-get install dpdk-dev, or check where DPDK is installed",
			"no driver files beside %s", eal_path);
}

void check_dpdk(struct check_report *r, const struct cfg *cfg)
{
	enum check_level level = wants_dpdk(cfg) ? CHECK_MISSING : CHECK_WARN;
	const char *(*version)(void);
	char path[PATH_MAX];
	void *eal;
	Dl_info where;

	if (locate_backend(path, sizeof path)) {
		check_add(r, level, "DPDK backend",
			"build with -Ddpdk=enabled; without it there are only udp ports",
			"libsandirect-dpdk.so is not installed");
		return;
	}
	/* Not the backend itself: loading it would run the constructors of all drivers in this process. */
	eal = dlopen("librte_eal.so.23", RTLD_LAZY | RTLD_LOCAL);
	version = eal ? (const char *(*)(void))dlsym(eal, "rte_version") : NULL;
	if (!version || !dladdr((void *)version, &where)) {
		check_add(
			r, level, "DPDK", "apt-get install libdpdk-dev", "librte_eal.so.23 cannot be loaded");
		return;
	}
	check_add(r, CHECK_OK, "DPDK backend", NULL, "%s, %s", version(), path);
	check_drivers(r, where.dli_fname);
}

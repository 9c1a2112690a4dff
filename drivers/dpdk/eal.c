/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * eal: starts DPDK's environment as a guest: what it would take or change beyond memory and threads is either
 * kept from it (manners.c) or put back here, and limits of the process that it would run into are checked
 * before, because after a failed attempt there is no second one. A lock covers the start; afterwards nothing
 * here has state.
 */
#include "drivers/dpdk/eal.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <rte_bus.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pci.h"
#include "drivers/dpdk/manners.h"
#include "drivers/dpdk/node.h"

#define OWN_DRIVER "net_sandirect_virtio"

enum {
	FD_NEED = 96,	  /* descriptors that EAL and some ports may take */
	FD_FLOOR = 512,	  /* theirs are numbered from here on where possible: below FD_SETSIZE, above most
			     programs' */
	NO_HUGE_MB = 192, /* reserved, not touched */
	HUGE_MIN_MB = 32, /* free huge pages below this are as good as none */
	SPARE_MB = 128,	  /* stacks, libraries, the C library's arenas */
	HUGE_RESERVE_MB = 136 << 10,
	ARGS_MAX = 64,
};

struct args {
	int n;
	char *v[ARGS_MAX + 1];
	char text[4096];
	size_t used;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool running, with_pci;
static int failed; /* the one attempt's error */

void eal_adopt_thread(void)
{
	RTE_PER_LCORE(_lcore_id) = rte_get_main_lcore();
}

/* --- messages --- */

/* EAL's stream: lines become debug messages. */
static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	int n = (int)len;

	while (n > 0 && isspace((unsigned char)text[n - 1]))
		n--;
	if (n > 0)
		sd_debug("dpdk: %.*s", n, text);
	return (ssize_t)len;
}

static void divert_log(void)
{
	FILE *f = fopencookie(NULL, "w", (cookie_io_functions_t){.write = log_write});

	if (!f)
		return;
	setvbuf(f, NULL, _IOLBF, 1024);
	rte_openlog_stream(f);
}

/* --- limits --- */

static int check_nofile(char *err, size_t err_len)
{
	struct rlimit lim;
	int lowest;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return -errno;
	/* The lowest free descriptor tells how many are in use, but for holes. */
	lowest = dup(STDERR_FILENO);
	if (lowest >= 0)
		close(lowest);
	if (lowest < 0 || lim.rlim_cur < (rlim_t)lowest + FD_NEED) {
		snprintf(err, err_len,
			"RLIMIT_NOFILE is %llu; a DPDK port needs %d more than are open: ulimit -n 1024",
			(unsigned long long)lim.rlim_cur, FD_NEED);
		return -EMFILE;
	}
	manners_set_fd_floor(lim.rlim_cur / 2 < FD_FLOOR ? (int)(lim.rlim_cur / 2) : FD_FLOOR);
	return 0;
}

/* Address space that may still be mapped. */
static uint64_t address_space_left(void)
{
	unsigned long pages = 0;
	struct rlimit lim;
	FILE *f;

	if (getrlimit(RLIMIT_AS, &lim) || lim.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	f = fopen("/proc/self/statm", "re");
	if (f) {
		if (fscanf(f, "%lu", &pages) != 1)
			pages = 0;
		fclose(f);
	}
	pages *= (unsigned long)sysconf(_SC_PAGESIZE);
	return lim.rlim_cur > pages ? lim.rlim_cur - pages : 0;
}

/*
 * Are there free huge pages that we may map? Counting alone does not tell: control groups limit them too. EAL
 * takes its own from the node that the thread runs on, if it runs on one only, and ends the process when
 * there are none.
 */
static bool huge_pages_there(void)
{
	size_t bytes = (size_t)HUGE_MIN_MB << 20;
	int node = node_only();
	void *p;

	if (node >= 0 && node_free_huge(node) < bytes)
		return false;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		return false; /* mapping reserves, so no page is missing later */
	munmap(p, bytes);
	return true;
}

static int choose_memory(const char *want, bool *huge, char *err, size_t err_len)
{
	uint64_t left = address_space_left() >> 20;
	bool must = want && !strcmp(want, "on"), may = !want || strcmp(want, "off");

	*huge = may && left >= HUGE_RESERVE_MB && huge_pages_there();
	if (!*huge && must) {
		snprintf(err, err_len,
			left < HUGE_RESERVE_MB
				? "RLIMIT_AS is too small for hugepages (%d MB are reserved): "
				  "ulimit -v unlimited, or hugepages = off"
				: "fewer than %d MB of free hugepages where this runs: sysctl "
				  "vm.nr_hugepages=256 (numactl -H shows the nodes of a machine with "
				  "several), or hugepages = auto",
			left < HUGE_RESERVE_MB ? HUGE_RESERVE_MB : HUGE_MIN_MB);
		return -ENOMEM;
	}
	if (!*huge && left < NO_HUGE_MB + SPARE_MB) {
		snprintf(err, err_len,
			"RLIMIT_AS leaves %llu MB of address space; a DPDK port needs %d: ulimit -v",
			(unsigned long long)left, NO_HUGE_MB + SPARE_MB);
		return -ENOMEM;
	}
	return 0;
}

/* --- arguments --- */

__attribute__((format(printf, 2, 3))) static void add_arg(struct args *a, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (a->n == ARGS_MAX)
		return;
	va_start(ap, fmt);
	n = vsnprintf(a->text + a->used, sizeof a->text - a->used, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof a->text - a->used)
		return;
	a->v[a->n++] = a->text + a->used;
	a->v[a->n] = NULL;
	a->used += (size_t)n + 1;
}

/* One lcore that may run wherever the thread may: nothing is pinned, and CPU 0 is not taken for granted. */
static void add_lcores(struct args *a)
{
	char list[1024];
	size_t used = 0;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof set, &set))
		return;
	list[0] = 0;
	for (int cpu = 0; cpu < CPU_SETSIZE && used < sizeof list - 24; cpu++) {
		int last = cpu;

		if (!CPU_ISSET(cpu, &set))
			continue;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set))
			last++;
		used += (size_t)snprintf(
			list + used, sizeof list - used, "%s%d-%d", used ? "," : "", cpu, last);
		cpu = last;
	}
	add_arg(a, "--lcores=0@(%s)", list);
}

static void build_args(struct args *a, const struct port_config *cfg, bool huge)
{
	char buf[1024], *save = NULL;

	add_arg(a, "sandirect");
	add_lcores(a);
	add_arg(a, "--no-telemetry");
	if (huge) {
		add_arg(a, "--in-memory");
		add_arg(a, "--single-file-segments");
	} else {
		add_arg(a, "--no-huge");
		add_arg(a, "--no-shconf");
		add_arg(a, "--file-prefix=sandirect-%d", getpid());
		add_arg(a, "-m");
		add_arg(a, "%d", NO_HUGE_MB);
	}
	if (sd_pci_address(cfg->device, NULL)) {
		add_arg(a, "-a");
		add_arg(a, "%s", cfg->device);
	} else {
		add_arg(a, "--no-pci");
		add_arg(a, "--iova-mode=va");
	}
	snprintf(buf, sizeof buf, "%s", cfg->eal_args ? cfg->eal_args : "");
	for (char *word = strtok_r(buf, " \t", &save); word; word = strtok_r(NULL, " \t", &save))
		add_arg(a, "%s", word);
}

/* --- the start --- */

static int init(const struct port_config *cfg, bool huge, char *err, size_t err_len)
{
	static struct args args; /* EAL keeps pointers into it */
	cpu_set_t affinity;
	sigset_t mask;
	int n, e;

	build_args(&args, cfg, huge);
	divert_log();
	e = manners_teach();
	if (e) {
		snprintf(err, err_len, "cannot prepare DPDK's libraries: %s", strerror(-e));
		return e;
	}
	manners_enter(&mask);
	pthread_getaffinity_np(pthread_self(), sizeof affinity, &affinity);
	manners_set_starting(true);
	n = rte_eal_init(args.n, args.v);
	e = n < 0 ? -rte_errno : 0;
	manners_set_starting(false);
	pthread_setaffinity_np(pthread_self(), sizeof affinity, &affinity);
	manners_leave(&mask);
	if (!e)
		e = manners_teach();
	if (e == -EALREADY) {
		snprintf(err, err_len, "this program uses DPDK itself; only kernel UDP ports work in it");
		return -EBUSY;
	}
	if (e)
		snprintf(err, err_len, "DPDK does not start: %s; SANDIRECT_LOG=debug says why", strerror(-e));
	return e ? e : 0;
}

static int start_once(const struct port_config *cfg, char *err, size_t err_len)
{
	bool huge;
	int e;

	if (running)
		return 0;
	if (failed) {
		snprintf(err, err_len, "DPDK did not start before and cannot be tried again in this process");
		return failed;
	}
	e = check_nofile(err, err_len);
	if (!e)
		e = choose_memory(cfg->hugepages, &huge, err, err_len);
	if (e)
		return e; /* limits may be raised: this was no attempt */
	e = init(cfg, huge, err, err_len);
	failed = e;
	running = !e;
	with_pci = sd_pci_address(cfg->device, NULL);
	return e;
}

/* --- drivers --- */

/* Where DPDK's libraries are and how their names end: ".so.23". */
static const char *library_suffix(void)
{
	static char suffix[32];
	Dl_info info;
	const char *dot;

	if (!*suffix && dladdr((void *)rte_eal_init, &info) && (dot = strstr(info.dli_fname, ".so")))
		snprintf(suffix, sizeof suffix, "%s", dot);
	return suffix;
}

/* Ours is beside this library. */
static void own_directory(char *out, size_t len)
{
	Dl_info info;
	char *slash;

	*out = 0;
	if (!dladdr((void *)own_directory, &info))
		return;
	snprintf(out, len, "%s", info.dli_fname);
	slash = strrchr(out, '/');
	if (slash)
		*slash = 0;
}

static bool load_library(const char *name)
{
	char path[512], dir[256];

	if (!strcmp(name, OWN_DRIVER)) {
		own_directory(dir, sizeof dir);
		snprintf(path, sizeof path, "%s/librte_%s.so", dir, name);
	} else
		snprintf(path, sizeof path, "%s/librte_%s%s", RTE_EAL_PMD_PATH, name, library_suffix());
	if (dlopen(path, RTLD_NOW | RTLD_GLOBAL))
		return true;
	sd_debug("dpdk: %s", dlerror());
	return false;
}

/* The library of "net_virtio_user0,path=..." is net_virtio: names are tried from the longest on. */
static int load_driver(const char *device, char *err, size_t err_len)
{
	char name[64];
	size_t len = strcspn(device, ",");
	char *cut;

	if (len >= sizeof name)
		len = sizeof name - 1;
	memcpy(name, device, len);
	while (len && isdigit((unsigned char)name[len - 1]))
		len--;
	name[len] = 0;
	if (strchr(name, '/') || strncmp(name, "net_", 4)) {
		snprintf(err, err_len,
			"%s: no such device; a DPDK device is called net_virtio_user0 or 0000:03:00.1",
			device);
		return -EINVAL;
	}
	while (!load_library(name)) {
		cut = strrchr(name, '_');
		if (!cut || cut == name + 3) {
			if (!strncmp(device, OWN_DRIVER, strlen(OWN_DRIVER)))
				snprintf(err, err_len,
					"%s: Sandirect was built without its own driver: "
					"scripts/dpdk-sdk fetches what that needs",
					device);
			else
				snprintf(err, err_len, "%s: no DPDK driver of this name in %s", device,
					RTE_EAL_PMD_PATH);
			return -ENODEV;
		}
		*cut = 0;
	}
	return 0;
}

/* All drivers, as EAL itself would: only a PCI device knows which is its own. The first of two for one device
 * has it: ours, where it has been built. */
static int load_all_drivers(char *err, size_t err_len)
{
	DIR *dir = opendir(RTE_EAL_PMD_PATH);
	struct dirent *e;

	if (!dir) {
		snprintf(err, err_len, "no DPDK drivers in %s; install them", RTE_EAL_PMD_PATH);
		return -ENODEV;
	}
	load_library(OWN_DRIVER);
	while ((e = readdir(dir))) {
		size_t len = strlen(e->d_name), end = strlen(library_suffix());
		char name[256];

		if (strncmp(e->d_name, "librte_", 7) || len <= 7 + end || len >= sizeof name ||
			strcmp(e->d_name + len - end, library_suffix()))
			continue;
		snprintf(name, sizeof name, "%.*s", (int)(len - 7 - end), e->d_name + 7);
		load_library(name);
	}
	closedir(dir);
	return 0;
}

int eal_start(const struct port_config *cfg, char *err, size_t err_len)
{
	bool pci = sd_pci_address(cfg->device, NULL);
	int e = 0;

	pthread_mutex_lock(&lock);
	if (running && pci && !with_pci) {
		snprintf(err, err_len, "%s: configure PCI ports before all others", cfg->device);
		e = -EINVAL;
	}
	if (!e && pci && !running)
		e = load_all_drivers(err, err_len);
	if (!e && !pci) {
		load_library("mempool_ring");
		e = load_driver(cfg->device, err, err_len);
	}
	if (!e)
		e = start_once(cfg, err, err_len);
	if (!e)
		e = manners_teach();
	pthread_mutex_unlock(&lock);
	return e;
}

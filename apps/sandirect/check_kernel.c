/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory, limits, kernel features, the processor, device nodes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

/* The number after name in a file of "name: value" lines; -1: it is not there. */
static long long read_field(const char *file, const char *name)
{
	char line[256];
	long long v = -1;
	FILE *f = fopen(file, "re");

	if (!f)
		return -1;
	while (fgets(line, sizeof line, f)) {
		if (strncmp(line, name, strlen(name)))
			continue;
		if (sscanf(line + strlen(name), " : %lld", &v) != 1 &&
			sscanf(line + strlen(name), "%lld", &v) != 1)
			v = -1;
		break;
	}
	fclose(f);
	return v;
}

void check_memory(struct check_report *r)
{
	long long free_pages = read_field("/proc/meminfo", "HugePages_Free");
	long long kib = read_field("/proc/meminfo", "Hugepagesize");

	if (free_pages < 0 || kib <= 0)
		check_add(r, CHECK_WARN, "hugepages",
			"use a kernel with CONFIG_HUGETLBFS; ports work without, slower",
			"this kernel has none");
	else if (free_pages * kib < 32 << 10)
		check_add(r, CHECK_WARN, "hugepages",
			"as root: echo 256 > /proc/sys/vm/nr_hugepages; ports work without, slower",
			"%lld of %lld KiB are free, ports take them from 32 MiB on", free_pages, kib);
	else
		check_add(r, CHECK_OK, "hugepages", NULL, "%lld of %lld KiB are free", free_pages, kib);
}

void check_limits(struct check_report *r)
{
	struct rlimit memlock, nofile, as;

	getrlimit(RLIMIT_MEMLOCK, &memlock);
	getrlimit(RLIMIT_NOFILE, &nofile);
	getrlimit(RLIMIT_AS, &as);
	if (geteuid())
		check_add(r, CHECK_WARN, "rights",
			"run as root, or give this user the port's sockets, /dev/vfio/GROUP and "
			"/dev/hugepages",
			"user %u", geteuid());
	else
		check_add(r, CHECK_OK, "rights", NULL, "root");
	if (memlock.rlim_cur < 64 << 20 && geteuid())
		check_add(r, CHECK_WARN, "memlock",
			"ulimit -l unlimited, or memlock in /etc/security/limits.conf",
			"%llu KiB; VFIO locks all memory that a NIC may reach",
			(unsigned long long)memlock.rlim_cur >> 10);
	else
		check_add(r, CHECK_OK, "memlock", NULL, geteuid() ? "enough" : "unlimited for root");
	if (nofile.rlim_cur < 128)
		check_add(r, CHECK_MISSING, "open files", "ulimit -n 1024",
			"the limit is %llu, ports take up to 96", (unsigned long long)nofile.rlim_cur);
	else
		check_add(r, CHECK_OK, "open files", NULL, "up to %llu", (unsigned long long)nofile.rlim_cur);
	if (as.rlim_cur != RLIM_INFINITY)
		check_add(r, CHECK_WARN, "address space", "ulimit -v unlimited",
			"limited to %llu MiB; DPDK reserves more than 100 GiB without using them",
			(unsigned long long)as.rlim_cur >> 20);
}

static bool has_wipeonfork(void)
{
	long page = sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = p != MAP_FAILED && !madvise(p, (size_t)page, MADV_WIPEONFORK);

	if (p != MAP_FAILED)
		munmap(p, (size_t)page);
	return ok;
}

static bool has_memfd(void)
{
	int fd = memfd_create("sandirect-check", MFD_CLOEXEC);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

void check_kernel(struct check_report *r)
{
	static const char old[] = "use Linux 4.14 or newer, or a sandbox that allows this call";
	long barriers = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	long long seccomp = read_field("/proc/self/status", "Seccomp");

	if (barriers < 0 || !(barriers & MEMBARRIER_CMD_PRIVATE_EXPEDITED))
		check_add(r, CHECK_WARN, "membarrier", old,
			"not available: threads take turns with a lock, slower");
	else
		check_add(r, CHECK_OK, "membarrier", NULL, "expedited");
	if (has_wipeonfork())
		check_add(r, CHECK_OK, "wipe on fork", NULL, "MADV_WIPEONFORK");
	else
		check_add(r, CHECK_MISSING, "wipe on fork", old, "MADV_WIPEONFORK: %s", strerror(errno));
	if (has_memfd())
		check_add(r, CHECK_OK, "memfd", NULL, "memfd_create");
	else
		check_add(r, CHECK_MISSING, "memfd", old, "memfd_create: %s", strerror(errno));
	if (seccomp > 0)
		check_add(r, CHECK_WARN, "seccomp",
			"allow mmap, madvise, futex, membarrier, eventfd2, ppoll, memfd_create",
			"a filter is in force (mode %lld)", seccomp);
}

static bool processor_has(const char *flag)
{
	char line[8192], word[64];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "re");

	snprintf(word, sizeof word, " %s ", flag);
	while (f && !found && fgets(line, sizeof line, f)) {
		if (strncmp(line, "flags", 5))
			continue;
		line[strcspn(line, "\n")] = ' ';
		found = strstr(line, word);
		break;
	}
	if (f)
		fclose(f);
	return found;
}

static void check_quota(struct check_report *r)
{
	char quota[32] = "";
	FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");

	if (!f)
		return;
	if (fscanf(f, "%31s", quota) == 1 && strcmp(quota, "max"))
		check_add(r, CHECK_WARN, "CPU quota", "lower spin in [global]: polling uses up the quota",
			"%s us in each period", quota);
	fclose(f);
}

void check_processor(struct check_report *r)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	if (processor_has("constant_tsc") && processor_has("nonstop_tsc"))
		check_add(r, CHECK_OK, "clock", NULL, "invariant cycle counter");
	else
		check_add(r, CHECK_WARN, "clock", "none needed: clock_gettime is used, at about 25 ns a call",
			"the cycle counter is not invariant");
	if (processor_has("sse4_2"))
		check_add(r, CHECK_OK, "CRC32C", NULL, "in hardware");
	else
		check_add(r, CHECK_WARN, "CRC32C",
			"crc = off in [transport] on both ends, if the network may be trusted",
			"in software");
	if (n < 2)
		check_add(r, CHECK_WARN, "processors",
			"set spin = 0: polling takes the processor from the peer", "only one");
	else
		check_add(r, CHECK_OK, "processors", NULL, "%ld", n);
	check_quota(r);
}

static bool dir_is_empty(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	unsigned n = 0;

	if (!dir)
		return true;
	while ((e = readdir(dir)))
		n += e->d_name[0] != '.';
	closedir(dir);
	return !n;
}

void check_devices(struct check_report *r)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		check_add(r, CHECK_OK, "/dev/net/tun", NULL, "there");
	} else {
		check_add(r, CHECK_WARN, "/dev/net/tun", "modprobe tun; only net_tap ports need it", "%s",
			strerror(errno));
	}
	if (access("/dev/vfio/vfio", R_OK | W_OK))
		check_add(r, CHECK_WARN, "VFIO", "modprobe vfio-pci; only ports on PCI devices need it",
			"/dev/vfio/vfio: %s", strerror(errno));
	else
		check_add(r, CHECK_OK, "VFIO", NULL, "/dev/vfio/vfio");
	if (dir_is_empty("/sys/class/iommu"))
		check_add(r, CHECK_WARN, "IOMMU",
			"boot with intel_iommu=on or amd_iommu=on; only ports on PCI devices need it",
			"none");
	else
		check_add(r, CHECK_OK, "IOMMU", NULL, "active");
}

/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/dpdk/node.h"

#include <dirent.h>
#include <numa.h>
#include <sched.h>
#include <stdio.h>

#define NODES "/sys/devices/system/node"

/* The CPUs on which this thread may run; false: the machine has one node. */
static bool find_cpus(cpu_set_t *set)
{
	return numa_available() >= 0 && numa_num_configured_nodes() > 1 &&
	       !sched_getaffinity(0, sizeof *set, set);
}

int node_only(void)
{
	int node = -1;
	cpu_set_t set;

	if (!find_cpus(&set))
		return -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		if (node >= 0 && numa_node_of_cpu(cpu) != node)
			return -1;
		node = numa_node_of_cpu(cpu);
	}
	return node;
}

bool node_is_allowed(int node)
{
	cpu_set_t set;

	if (!find_cpus(&set))
		return true;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &set) && numa_node_of_cpu(cpu) == node)
			return true;
	}
	return false;
}

uint64_t node_free_huge(int node)
{
	char path[320];
	uint64_t bytes = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof path, NODES "/node%d/hugepages", node);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		unsigned long kb, count;
		FILE *f;

		if (sscanf(e->d_name, "hugepages-%lukB", &kb) != 1)
			continue;
		snprintf(path, sizeof path, NODES "/node%d/hugepages/hugepages-%lukB/free_hugepages", node,
			kb);
		f = fopen(path, "re");
		if (f && fscanf(f, "%lu", &count) == 1)
			bytes += (uint64_t)count * kb << 10;
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return bytes;
}

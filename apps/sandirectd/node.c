/* SPDX-License-Identifier: BSD-3-Clause */
#include "node.h"

#include <errno.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>

#include "drivers/port.h"

int node_of_ports(const struct cfg *cfg)
{
	int node = -1;

	if (numa_available() < 0 || numa_num_configured_nodes() < 2)
		return -1;
	for (unsigned i = 0; i < cfg->n_ports && node < 0; i++)
		node = port_numa_node(cfg->ports[i].device);
	return node;
}

int node_join(int node)
{
	struct bitmask *cpus = numa_allocate_cpumask();
	cpu_set_t set;

	pthread_getaffinity_np(pthread_self(), sizeof set, &set);
	if (numa_node_to_cpus(node, cpus))
		numa_bitmask_clearall(cpus);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!numa_bitmask_isbitset(cpus, (unsigned)cpu))
			CPU_CLR(cpu, &set);
	}
	numa_free_cpumask(cpus);
	if (!CPU_COUNT(&set) || pthread_setaffinity_np(pthread_self(), sizeof set, &set))
		return -EINVAL;
	numa_set_preferred(node);
	return 0;
}

bool node_is_other(int node, int cpu)
{
	return node >= 0 && numa_node_of_cpu(cpu) != node;
}

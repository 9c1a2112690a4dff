/* SPDX-License-Identifier: BSD-3-Clause */
#include "switch/ports.h"

#include <string.h>

#include "provider/registry.h"

int sw_ports_open(const struct cfg *cfg, pv_ready_fn *ready, struct pv **out)
{
	return sw_ports_open_for(cfg, NULL, 0, ready, out);
}

int sw_ports_open_for(const struct cfg *cfg, struct pv_ether_crew *crew, unsigned member, pv_ready_fn *ready,
	struct pv **out)
{
	struct pv_ether_port ports[CFG_MAX_PORTS];
	struct pv_ether_config ec = {
		.size = sizeof ec,
		.n_ports = cfg->n_ports,
		.ports = ports,
		.crew = crew,
		.member = member,
		.find_timeout_ns = cfg->find_timeout_ns,
		.negative_ttl_ns = cfg->negative_ttl_ns,
		.positive_ttl_ns = cfg->positive_ttl_ns,
		.crc = cfg->crc,
		.congestion = cfg->congestion,
		.window_packets = cfg->window_packets,
		.ring_min = cfg->ring_min,
		.ring_max = cfg->ring_max,
		.dead_timeout_ns = cfg->dead_timeout_ns,
		.keepalive_ns = cfg->keepalive_ns,
		.connect_timeout_ns = cfg->connect_timeout_ns,
	};

	for (unsigned i = 0; i < cfg->n_ports; i++) {
		const struct cfg_port *c = &cfg->ports[i];

		ports[i] = (struct pv_ether_port){
			.netdev = c->netdev,
			.lock_dir = cfg->runtime_dir,
			.miniport = c->miniport,
			.port = {.size = sizeof(struct port_config),
				.name = c->name,
				.device = c->device,
				.standby = c->standby[0] ? c->standby : NULL,
				.mtu = c->mtu,
				.rx_descriptors = c->rx_descriptors,
				.tx_descriptors = c->tx_descriptors,
				.hugepages = c->hugepages,
				.eal_args = c->eal_args[0] ? c->eal_args : NULL,
				.faults = {c->loss, c->duplicate, c->reorder, c->corrupt, c->delay_ns,
					c->jitter_ns, c->rate_bps, c->fault_seed}},
		};
		memcpy(ports[i].port.mac, c->mac, sizeof c->mac);
	}
	return pv_ether_open(&ec, ready, out);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect stat --json`. */
#include "stat_json.h"

#include <stdio.h>

#include "command.h"
#include "stat.h"

static json_t *text(const char *s)
{
	return json_string(s);
}

static json_t *number(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *connection(const struct statfile_record *r)
{
	char addr[SD_ADDR_STRLEN];
	json_t *o = json_object();

	json_object_set_new(o, "fd", json_integer(r->fd));
	json_object_set_new(o, "role", text(stat_role(r)));
	json_object_set_new(o, "local", text(stat_address(&r->local, addr)));
	json_object_set_new(o, "peer", text(stat_address(&r->peer, addr)));
	json_object_set_new(o, "path", text(r->path ? "SAN" : "TCP"));
	json_object_set_new(o, "provider", text(r->provider));
	json_object_set_new(o, "state", text(r->state));
	json_object_set_new(o, "reason", text(sd_reason_name(r->reason)));
	json_object_set_new(o, "bytes_out", number(r->bytes_out));
	json_object_set_new(o, "bytes_in", number(r->bytes_in));
	json_object_set_new(o, "packets_out", number(r->packets_out));
	json_object_set_new(o, "packets_in", number(r->packets_in));
	json_object_set_new(o, "retransmits", number(r->retransmits));
	json_object_set_new(o, "srtt_ns", number(r->srtt_ns));
	json_object_set_new(o, "min_rtt_ns", number(r->min_rtt_ns));
	json_object_set_new(o, "cwnd", number(r->cwnd));
	json_object_set_new(o, "in_flight", number(r->in_flight));
	json_object_set_new(o, "send_queued", number(r->send_queued));
	json_object_set_new(o, "recv_queued", number(r->recv_queued));
	json_object_set_new(o, "mss", number(r->mss));
	json_object_set_new(o, "opened_ns", number(r->opened_ns));
	return o;
}

static json_t *reasons(const struct statfile_header *h)
{
	json_t *o = json_object();

	for (unsigned r = 0; r < SD_REASON_COUNT; r++)
		if (h->by_reason[r])
			json_object_set_new(o, sd_reason_name(r), number(h->by_reason[r]));
	return o;
}

json_t *stat_port_json(const struct statfile_port *p)
{
	json_t *o = json_object();
	char mac[18];

	snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", p->mac[0], p->mac[1], p->mac[2], p->mac[3],
		p->mac[4], p->mac[5]);
	json_object_set_new(o, "port", text(p->name));
	json_object_set_new(o, "netdev", text(p->netdev));
	json_object_set_new(o, "device", text(p->device));
	json_object_set_new(o, "driver", text(p->driver));
	json_object_set_new(o, "mac", text(mac));
	json_object_set_new(o, "link", text(p->link_up ? "up" : "down"));
	json_object_set_new(o, "mtu", json_integer(p->mtu));
	json_object_set_new(o, "queues", json_integer(p->queues));
	json_object_set_new(o, "numa_node", p->numa_node < 0 ? json_null() : json_integer(p->numa_node));
	json_object_set_new(o, "rx_frames", number(p->rx_frames));
	json_object_set_new(o, "rx_bytes", number(p->rx_bytes));
	json_object_set_new(o, "rx_missed", number(p->rx_missed));
	json_object_set_new(o, "rx_handed", number(p->rx_handed));
	json_object_set_new(o, "rx_errors", number(p->rx_errors));
	json_object_set_new(o, "tx_frames", number(p->tx_frames));
	json_object_set_new(o, "tx_bytes", number(p->tx_bytes));
	json_object_set_new(o, "tx_full", number(p->tx_full));
	return o;
}

static json_t *process(const struct stat_file *f, bool all)
{
	const struct statfile_header *h = &f->header;
	json_t *o = json_object(), *list = json_array(), *ports = json_array();

	for (unsigned i = 0; i < h->n_ports; i++)
		json_array_append_new(ports, stat_port_json(&h->ports[i]));
	for (unsigned i = 0; i < f->n_records; i++)
		if (stat_is_shown(&f->records[i], all))
			json_array_append_new(list, connection(&f->records[i]));
	json_object_set_new(o, "program", text(h->program));
	json_object_set_new(o, "pid", json_integer(h->pid));
	json_object_set_new(o, "netns", number(h->netns));
	json_object_set_new(o, "host", text(f->host));
	json_object_set_new(o, "engine", text(h->engine));
	json_object_set_new(o, "ports", ports);
	json_object_set_new(o, "san_total", number(h->san_total));
	json_object_set_new(o, "tcp_total", number(h->tcp_total));
	json_object_set_new(o, "not_listed", number(h->overflow));
	json_object_set_new(o, "by_reason", reasons(h));
	json_object_set_new(o, "connections", list);
	return o;
}

int stat_print_json(const struct stat_file *files, unsigned n, bool all)
{
	json_t *root = json_object(), *list = json_array();
	int rc;

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, process(&files[i], all));
	rc = json_object_set_new(root, "processes", list);
	if (!rc)
		rc = json_dumpf(root, stdout, JSON_INDENT(2));
	json_decref(root);
	putchar('\n');
	return rc ? command_fail("the JSON text could not be made") : 0;
}

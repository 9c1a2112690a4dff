/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect ports --json`. */
#include <jansson.h>

#include "command.h"
#include "pcidev.h"
#include "ports.h"
#include "stat_json.h"

static json_t *port(const struct stat_file *f, const struct statfile_port *p, struct ports_rate r)
{
	json_t *o = stat_port_json(p);

	json_object_set_new(o, "program", json_string(f->header.program));
	json_object_set_new(o, "pid", json_integer(f->header.pid));
	json_object_set_new(o, "host", json_string(f->host));
	json_object_set_new(o, "rx_frames_per_second", json_real(r.rx_frames));
	json_object_set_new(o, "rx_bits_per_second", json_real(r.rx_bits));
	json_object_set_new(o, "tx_frames_per_second", json_real(r.tx_frames));
	json_object_set_new(o, "tx_bits_per_second", json_real(r.tx_bits));
	return o;
}

static int add_nic(void *ctx, const struct pcidev *d)
{
	json_t *o = json_object(), *netdevs = json_array();
	char route[16];

	for (unsigned i = 0; i < d->n_netdevs; i++)
		json_array_append_new(netdevs, json_string(d->netdevs[i]));
	json_object_set_new(o, "address", json_string(d->address));
	json_object_set_new(o, "kernel_driver", *d->driver ? json_string(d->driver) : json_null());
	json_object_set_new(o, "iommu", json_boolean(d->iommu));
	json_object_set_new(o, "interfaces", netdevs);
	json_object_set_new(
		o, "default_route", json_boolean(pcidev_has_default_route(d, route, sizeof route)));
	return json_array_append_new(ctx, o);
}

int ports_print_json(
	const struct stat_file *before, unsigned n_before, const struct stat_file *after, unsigned n)
{
	json_t *root = json_object(), *ports = json_array(), *nics = json_array();
	int rc;

	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < after[i].header.n_ports; k++) {
			const struct statfile_port *p = &after[i].header.ports[k];
			const struct statfile_port *was = ports_before(before, n_before, &after[i], p);

			json_array_append_new(ports, port(&after[i], p, ports_rate(was, p)));
		}
	}
	rc = pcidev_each(add_nic, nics);
	rc |= json_object_set_new(root, "ports", ports);
	rc |= json_object_set_new(root, "nics", nics);
	if (!rc)
		rc = json_dumpf(root, stdout, JSON_INDENT(2));
	json_decref(root);
	putchar('\n');
	return rc ? command_fail("the JSON text could not be made") : 0;
}

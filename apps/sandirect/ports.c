/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect ports`: which ports programs have open, what goes through them, and which NICs there are. */
#include "ports.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "command.h"
#include "config/value.h"
#include "pcidev.h"
#include "stat.h"

#define INTERVAL_NS SD_S

struct ports_rate ports_rate(const struct statfile_port *before, const struct statfile_port *after)
{
	double s;

	if (!before || after->at_ns <= before->at_ns || after->rx_frames < before->rx_frames ||
		after->tx_frames < before->tx_frames)
		return (struct ports_rate){0};
	s = (double)(after->at_ns - before->at_ns) / SD_S;
	return (struct ports_rate){
		.rx_frames = (double)(after->rx_frames - before->rx_frames) / s,
		.rx_bits = (double)(after->rx_bytes - before->rx_bytes) * 8 / s,
		.tx_frames = (double)(after->tx_frames - before->tx_frames) / s,
		.tx_bits = (double)(after->tx_bytes - before->tx_bytes) * 8 / s,
	};
}

const struct statfile_port *ports_before(
	const struct stat_file *before, unsigned n, const struct stat_file *f, const struct statfile_port *p)
{
	for (unsigned i = 0; i < n; i++) {
		const struct statfile_header *h = &before[i].header;

		if (h->pid != f->header.pid || h->start_time != f->header.start_time)
			continue;
		for (unsigned k = 0; k < h->n_ports; k++)
			if (!strcmp(h->ports[k].name, p->name))
				return &h->ports[k];
	}
	return NULL;
}

/* --- the table --- */

static const char *scaled(double v, char out[16])
{
	static const char units[] = " KMGT";
	unsigned u = 0;

	for (; v >= 1000 && u < sizeof units - 2; u++)
		v /= 1000;
	if (u)
		snprintf(out, 16, "%.3g%c", v, units[u]);
	else
		snprintf(out, 16, "%.0f", v);
	return out;
}

static void print_port(const struct stat_file *f, const struct statfile_port *p, struct ports_rate r)
{
	char t[4][16], owner[96];

	snprintf(owner, sizeof owner, "%.63s (%d)", f->header.program, f->header.pid);
	printf("%-10s %-24s %-12s %-24s %-4s %5u %6u %8s %8s %8s %8s %8" PRIu64 " %s\n", f->host, owner,
		p->name, p->driver, p->link_up ? "up" : "down", p->mtu, p->queues, scaled(r.rx_frames, t[0]),
		scaled(r.rx_bits, t[1]), scaled(r.tx_frames, t[2]), scaled(r.tx_bits, t[3]), p->rx_handed,
		p->device);
}

static void print_open(
	const struct stat_file *before, unsigned n_before, const struct stat_file *after, unsigned n)
{
	bool any = false;

	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < after[i].header.n_ports; k++) {
			const struct statfile_port *p = &after[i].header.ports[k];

			if (!any)
				printf("%-10s %-24s %-12s %-24s %-4s %5s %6s %8s %8s %8s %8s %8s %s\n",
					"HOST", "PROGRAM", "PORT", "DRIVER", "LINK", "MTU", "QUEUES", "RX/s",
					"RX bit/s", "TX/s", "TX bit/s", "HANDED", "DEVICE");
			any = true;
			print_port(&after[i], p, ports_rate(ports_before(before, n_before, &after[i], p), p));
		}
	}
	if (!any)
		puts("No program has a port open.");
}

static int print_nic(void *ctx, const struct pcidev *d)
{
	bool *any = ctx;
	char route[16];

	if (!*any)
		printf("\n%-14s %-16s %-6s %s\n", "NIC", "KERNEL DRIVER", "IOMMU", "INTERFACES");
	*any = true;
	printf("%-14s %-16s %-6s", d->address, *d->driver ? d->driver : "-", d->iommu ? "yes" : "no");
	for (unsigned i = 0; i < d->n_netdevs; i++)
		printf(" %s", d->netdevs[i]);
	if (pcidev_has_default_route(d, route, sizeof route))
		printf(" (default route by %s)", route);
	putchar('\n');
	return 0;
}

/* --- the command --- */

struct arguments {
	bool json;
	uint64_t interval_ns;
	const char *what, *name;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'j':
		a->json = true;
		return 0;
	case 'i':
		if (!cfg_value_time(arg, &a->interval_ns) || a->interval_ns > 60 * SD_S)
			argp_error(state, "--interval %s: a time up to 60s is wanted, such as 1s", arg);
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num == 0 && (!strcmp(arg, "bind") || !strcmp(arg, "unbind")))
			a->what = arg;
		else if (state->arg_num == 1)
			a->name = arg;
		else
			argp_error(state, "\"%s\" is more than there should be", arg);
		return 0;
	case ARGP_KEY_END:
		if (a->what && !a->name)
			argp_error(state, "%s what? A NIC is named by its address or its interface", a->what);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int show(const struct arguments *a)
{
	struct stat_file *before, *after;
	struct timespec pause = {(time_t)(a->interval_ns / SD_S), (long)(a->interval_ns % SD_S)};
	int n_before = stat_look(0, &before), n, rc = 0;
	bool any = false;

	if (n_before < 0)
		return EXIT_FAILURE;
	if (n_before)
		nanosleep(&pause, NULL);
	n = stat_look(0, &after);
	if (n < 0) {
		stat_free_all(before, (unsigned)n_before);
		return EXIT_FAILURE;
	}
	if (a->json) {
		rc = ports_print_json(before, (unsigned)n_before, after, (unsigned)n);
	} else {
		print_open(before, (unsigned)n_before, after, (unsigned)n);
		pcidev_each(print_nic, &any);
	}
	stat_free_all(before, (unsigned)n_before);
	stat_free_all(after, (unsigned)n);
	return rc;
}

int cmd_ports(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', NULL, 0, "As JSON", 0},
		{"interval", 'i', "TIME", 0, "Over which rates are measured (1s)", 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "\nbind NIC\nunbind NIC",
		.doc = "Shows the ports that programs under Sandirect have open, what goes through them, "
		       "and this machine's NICs on the PCI bus. bind gives a NIC, named by its address or "
		       "its "
		       "interface, to vfio-pci, for user-space drivers; unbind gives it back to the kernel.",
	};
	struct arguments a = {.interval_ns = INTERVAL_NS};

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (!a.what)
		return show(&a);
	return strcmp(a.what, "bind") ? ports_unbind(a.name) : ports_bind(a.name);
}

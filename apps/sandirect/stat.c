/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect stat`: the command line and the table. */
#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "config/config.h"
#include "config/value.h"
#include "stat.h"

#define COLUMNS 16

static const char *const roles[] = {"client", "server", "listen"};

const char *stat_role(const struct statfile_record *r)
{
	return roles[r->role];
}

const char *stat_address(const struct sd_addr *a, char out[SD_ADDR_STRLEN])
{
	if (!a->family)
		return "-";
	return sd_addr_format(a, out);
}

/* Without -a only connections are shown: no listeners, no sockets that are still idle. */
bool stat_is_shown(const struct statfile_record *r, bool all)
{
	return all || (r->role != 2 && r->reason != SD_REASON_NOT_YET);
}

struct table {
	char (*rows)[COLUMNS][SD_ADDR_STRLEN];
	unsigned n, width[COLUMNS];
};

static const char *const titles[COLUMNS] = {"HOST", "PROGRAM", "PID", "FD", "ROLE", "LOCAL", "PEER", "PATH",
	"PROVIDER", "STATE", "REASON", "OUT", "IN", "RTT", "RETRANS", "CWND"};

static void put_bytes(char *out, uint64_t v)
{
	static const char units[] = " KMGTPE";
	double d = (double)v;
	unsigned u = 0;

	for (; d >= 10000 && u < sizeof units - 2; u++)
		d /= 1024;
	snprintf(out, SD_ADDR_STRLEN, u ? "%.0f%c" : "%.0f", d, units[u]);
}

static void put_row(struct table *t, const struct stat_file *f, const struct statfile_record *r)
{
	char(*c)[SD_ADDR_STRLEN] = t->rows[t->n++], addr[SD_ADDR_STRLEN];

	snprintf(c[0], sizeof *c, "%s", f->host);
	snprintf(c[1], sizeof *c, "%.*s", SD_ADDR_STRLEN - 1, f->header.program);
	snprintf(c[2], sizeof *c, "%d", f->header.pid);
	snprintf(c[3], sizeof *c, "%d", r->fd);
	snprintf(c[4], sizeof *c, "%s", stat_role(r));
	snprintf(c[5], sizeof *c, "%s", stat_address(&r->local, addr));
	snprintf(c[6], sizeof *c, "%s", stat_address(&r->peer, addr));
	snprintf(c[7], sizeof *c, "%s", r->path ? "SAN" : "TCP");
	snprintf(c[8], sizeof *c, "%s", r->provider);
	snprintf(c[9], sizeof *c, "%s", *r->state ? r->state : "-");
	snprintf(c[10], sizeof *c, "%s", sd_reason_name(r->reason));
	if (!r->path) {
		for (unsigned i = 11; i < COLUMNS; i++)
			strcpy(c[i], "-");
		return;
	}
	put_bytes(c[11], r->bytes_out);
	put_bytes(c[12], r->bytes_in);
	snprintf(c[13], sizeof *c, "%.1fus", (double)r->srtt_ns / 1000);
	snprintf(c[14], sizeof *c, "%llu", (unsigned long long)r->retransmits);
	snprintf(c[15], sizeof *c, "%u", r->cwnd);
}

static void measure(struct table *t)
{
	for (unsigned c = 0; c < COLUMNS; c++) {
		t->width[c] = (unsigned)strlen(titles[c]);
		for (unsigned r = 0; r < t->n; r++)
			if (strlen(t->rows[r][c]) > t->width[c])
				t->width[c] = (unsigned)strlen(t->rows[r][c]);
	}
}

static void print_table(struct table *t)
{
	measure(t);
	for (unsigned c = 0; c < COLUMNS; c++)
		printf("%-*s%s", c + 1 < COLUMNS ? (int)t->width[c] : 0, titles[c],
			c + 1 < COLUMNS ? "  " : "\n");
	for (unsigned r = 0; r < t->n; r++)
		for (unsigned c = 0; c < COLUMNS; c++)
			printf("%-*s%s", c + 1 < COLUMNS ? (int)t->width[c] : 0, t->rows[r][c],
				c + 1 < COLUMNS ? "  " : "\n");
}

static void print_port(const struct statfile_port *p)
{
	char rx[SD_ADDR_STRLEN], tx[SD_ADDR_STRLEN];

	put_bytes(rx, p->rx_bytes);
	put_bytes(tx, p->tx_bytes);
	printf("\n  %s: %s on %s, %u queue%s; received %llu frames, %s; sent %llu, %s", p->name, p->driver,
		p->netdev, p->queues, p->queues == 1 ? "" : "s", (unsigned long long)p->rx_frames, rx,
		(unsigned long long)p->tx_frames, tx);
	if (p->rx_missed)
		printf("; %llu missed", (unsigned long long)p->rx_missed);
	if (p->rx_errors)
		printf("; %llu bad", (unsigned long long)p->rx_errors);
}

static void print_summary(const struct stat_file *files, unsigned n)
{
	uint64_t by_reason[SD_REASON_COUNT] = {0};

	for (unsigned i = 0; i < n; i++) {
		const struct statfile_header *h = &files[i].header;

		printf("\n%s (%d): port %s; connections so far: %llu SAN, %llu TCP", h->program, h->pid,
			*h->engine ? h->engine : "not started", (unsigned long long)h->san_total,
			(unsigned long long)h->tcp_total);
		if (h->overflow)
			printf(" (%llu not listed)", (unsigned long long)h->overflow);
		for (unsigned p = 0; p < h->n_ports; p++)
			print_port(&h->ports[p]);
		for (unsigned r = 0; r < SD_REASON_COUNT; r++)
			by_reason[r] += h->by_reason[r];
	}
	puts("\n");
	for (unsigned r = 0; r < SD_REASON_COUNT; r++)
		if (by_reason[r])
			printf("%8llu  %-16s %s\n", (unsigned long long)by_reason[r], sd_reason_name(r),
				sd_reason_text(r));
}

static int print_text(const struct stat_file *files, unsigned n, bool all)
{
	struct table t = {0};
	unsigned rows = 0;

	if (!n) {
		puts("No program runs under Sandirect.");
		return 0;
	}
	for (unsigned i = 0; i < n; i++)
		rows += files[i].n_records;
	t.rows = calloc(rows ? rows : 1, sizeof *t.rows);
	if (!t.rows)
		return command_fail("out of memory");
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < files[i].n_records; k++)
			if (stat_is_shown(&files[i].records[k], all))
				put_row(&t, &files[i], &files[i].records[k]);
	print_table(&t);
	print_summary(files, n);
	free(t.rows);
	return 0;
}

struct arguments {
	bool all, json;
	pid_t pid;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	uint64_t pid;

	switch (key) {
	case 'a':
		a->all = true;
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (!cfg_value_count(arg, &pid) || !pid || pid > INT32_MAX || state->arg_num)
			argp_error(state, "\"%s\" is no process id", arg);
		a->pid = (pid_t)pid;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Where programs write their tables, by the configuration. NULL: out of memory. */
static const char *runtime_dir(void)
{
	static char dir[sizeof(((struct cfg *)0)->runtime_dir)];
	struct cfg *cfg = malloc(sizeof *cfg);
	char err[CFG_ERR_LEN];

	if (!cfg)
		return NULL;
	if (cfg_load(cfg, err, sizeof err))
		command_warn("%s", err); /* and look where the defaults say */
	strcpy(dir, cfg->runtime_dir);
	free(cfg);
	return dir;
}

int stat_look(pid_t pid, struct stat_file **out)
{
	const char *dir = runtime_dir();
	int n = dir ? stat_read_all(dir, pid, out) : -ENOMEM;

	if (n < 0)
		command_fail("%s/stat: %s", dir ? dir : "", strerror(-n));
	return n;
}

int cmd_stat(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"all", 'a', NULL, 0, "Also listeners and sockets that are not connected", 0},
		{"json", 'j', NULL, 0, "As JSON", 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "[PID]",
		.doc = "Shows the connections of all programs under Sandirect (or of one), the path each "
		       "took, and why.",
	};
	struct arguments a = {0};
	struct stat_file *files;
	int n, rc;

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	n = stat_look(a.pid, &files);
	if (n < 0)
		return EXIT_FAILURE;
	n = (int)stat_with_connections(files, (unsigned)n);
	rc = a.json ? stat_print_json(files, (unsigned)n, a.all) : print_text(files, (unsigned)n, a.all);
	stat_free_all(files, (unsigned)n);
	return rc;
}

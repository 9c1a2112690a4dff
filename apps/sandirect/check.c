/* SPDX-License-Identifier: BSD-3-Clause */
/* `sandirect check`: collects findings and shows them. */
#include "check.h"

#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"

#define MAX_FINDINGS 64

struct finding {
	enum check_level level;
	const char *name, *remedy;
	char text[256];
};

struct check_report {
	struct finding findings[MAX_FINDINGS];
	unsigned n;
};

static const char *const level_names[] = {"ok", "warn", "missing"};

void check_add(struct check_report *r, enum check_level level, const char *name, const char *remedy,
	const char *fmt, ...)
{
	struct finding *f = &r->findings[r->n];
	va_list ap;

	if (r->n == MAX_FINDINGS)
		return;
	*f = (struct finding){level, name, remedy, ""};
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof f->text, fmt, ap);
	va_end(ap);
	r->n++;
}

static void check_config(struct check_report *r, struct cfg *cfg)
{
	char err[CFG_ERR_LEN];

	if (cfg_load(cfg, err, sizeof err))
		check_add(r, CHECK_MISSING, "configuration",
			"mend the line; sandirect.conf(5) describes every key", "%s", err);
	else if (!cfg->enabled)
		check_add(r, CHECK_MISSING, "configuration", "unset SANDIRECT, or set enabled = on",
			"switched off");
	else
		check_add(r, CHECK_OK, "configuration", NULL, "%s, %u ports, %u rules",
			*cfg->file ? cfg->file : "no file, defaults", cfg->n_ports, cfg->n_rules);
}

static void check_runtime_dir(struct check_report *r, const struct cfg *cfg)
{
	const char *dir = cfg->runtime_dir;
	char parent[sizeof cfg->runtime_dir];

	if (!access(dir, W_OK | X_OK)) {
		check_add(r, CHECK_OK, "runtime directory", NULL, "%s", dir);
		return;
	}
	strcpy(parent, dir);
	*strrchr(parent, '/') = '\0';
	if (errno == ENOENT && !access(*parent ? parent : "/", W_OK | X_OK))
		check_add(r, CHECK_OK, "runtime directory", NULL, "%s will be made when it is needed", dir);
	else
		check_add(r, CHECK_WARN, "runtime directory",
			"let root make it with mode 1777, or set SANDIRECT_RUNTIME_DIR; until then "
			"`sandirect stat` sees "
			"nothing",
			"%s is not writable", dir);
}

static int print_text(const struct check_report *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		const struct finding *f = &r->findings[i];

		printf("%-7s  %-18s %s\n", level_names[f->level], f->name, f->text);
		if (f->remedy)
			printf("%29s-> %s\n", "", f->remedy);
	}
	return 0;
}

static int print_json(const struct check_report *r, bool able)
{
	json_t *root = json_object(), *list = json_array();
	int rc;

	for (unsigned i = 0; i < r->n; i++) {
		const struct finding *f = &r->findings[i];
		json_t *o = json_object();

		json_object_set_new(o, "name", json_string(f->name));
		json_object_set_new(o, "level", json_string(level_names[f->level]));
		json_object_set_new(o, "text", json_string(f->text));
		if (f->remedy)
			json_object_set_new(o, "remedy", json_string(f->remedy));
		json_array_append_new(list, o);
	}
	json_object_set_new(root, "able", json_boolean(able));
	json_object_set_new(root, "findings", list);
	rc = json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return rc;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	if (key != 'j')
		return ARGP_ERR_UNKNOWN;
	*(bool *)state->input = true;
	return 0;
}

int cmd_check(int argc, char **argv)
{
	static const struct argp_option options[] = {{"json", 'j', NULL, 0, "As JSON", 0}, {0}};
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.doc = "Says what this machine lacks for the SAN and how to mend it. The exit status is 0 if "
		       "the SAN can "
		       "work here.",
	};
	struct check_report *r = calloc(1, sizeof *r);
	struct cfg *cfg = malloc(sizeof *cfg);
	bool json = false, able = true;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &json);
	if (!r || !cfg)
		return command_fail("out of memory");
	check_config(r, cfg);
	check_runtime_dir(r, cfg);
	check_library(r);
	check_dpdk(r, cfg);
	check_ports(r, cfg);
	check_memory(r);
	check_limits(r);
	check_kernel(r);
	check_processor(r);
	check_devices(r);
	check_filters(r);
	for (unsigned i = 0; i < r->n; i++)
		able = able && r->findings[i].level != CHECK_MISSING;
	rc = json ? print_json(r, able) : print_text(r);
	free(cfg);
	free(r);
	return rc || !able;
}

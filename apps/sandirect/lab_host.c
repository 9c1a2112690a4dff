/* SPDX-License-Identifier: BSD-3-Clause */
/* Programs on a lab's hosts, and what there is to see of the hosts. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "lab.h"
#include "netns.h"
#include "run.h"
#include "statread.h"

/* Moves this process to the host; its number, or 0 after a message. */
static unsigned enter(struct lab *l, const char *name)
{
	char ns[64];
	unsigned host;
	int rc = lab_state_read(l);

	if (rc) {
		command_fail("there is no lab; build one with `sandirect lab up`");
		return 0;
	}
	host = lab_host_parse(l, name);
	if (!host) {
		command_fail("\"%s\" is no host of this lab; there are h1 to h%u", name, l->hosts);
		return 0;
	}
	lab_netns(l, host, ns);
	rc = netns_enter(ns);
	if (rc) {
		command_fail("%s: %s%s", ns, strerror(-rc),
			rc == -EPERM ? "; this needs root (CAP_SYS_ADMIN)" : "");
		return 0;
	}
	return host;
}

int lab_exec(struct lab *l, const char *host, char **argv)
{
	return enter(l, host) ? run_exec(argv) : 1;
}

int lab_run(struct lab *l, const char *name, struct run_options *o, char **argv)
{
	char conf[PATH_MAX];
	unsigned host = enter(l, name);

	if (!host)
		return 1;
	lab_host_file(l, host, "conf", conf);
	if (!o->config)
		o->config = conf;
	return run_program(o, argv);
}

struct programs {
	const struct stat_file *files;
	unsigned n_files;
};

static void show_program(void *ctx, pid_t pid)
{
	const struct programs *p = ctx;
	char path[64], name[32] = "?";
	const char *engine = NULL;
	FILE *f;

	if (pid == getpid())
		return;
	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%31[^\n]", name) != 1)
			strcpy(name, "?");
		fclose(f);
	}
	for (unsigned i = 0; i < p->n_files; i++)
		if (p->files[i].header.pid == pid)
			engine = p->files[i].header.engine;
	printf("      %s (%d)%s%s\n", name, pid, engine && *engine ? ": " : "", engine ? engine : "");
}

static void show_host(const struct lab *l, unsigned host, struct programs *p)
{
	struct netns_id id;
	char ns[64];
	int rc;

	lab_netns(l, host, ns);
	rc = netns_identify(ns, &id);
	if (!rc)
		rc = netns_enter(ns);
	if (rc) {
		printf("h%u    %s: %s\n", host, ns, strerror(-rc));
		return;
	}
	printf("h%u    san0 10.77.0.%u fd77::%x %s    lan0 10.78.0.%u %s\n", host, host, host,
		netns_interface_is_up("san0") ? "up" : "down", host,
		netns_interface_is_up("lan0") ? "up" : "down");
	netns_each_process(&id, show_program, p);
}

int lab_status(struct lab *l)
{
	struct programs p;
	struct stat_file *files;
	int rc = lab_state_read(l);

	if (rc == -ENOENT) {
		puts("no lab");
		return 0;
	}
	if (rc)
		return command_fail("%s: %s; `sandirect lab down` removes it", l->dir, strerror(-rc));
	rc = stat_read_all(l->runtime_dir, 0, &files);
	if (rc < 0)
		files = NULL;
	p = (struct programs){files, rc < 0 ? 0 : (unsigned)rc};
	printf("%u hosts, link %s, mtu %u, %s, configuration in %s\n", l->hosts, lab_link_name(l->link),
		l->mtu, lab_mode_name(l->mode), l->dir);
	for (unsigned i = 1; i <= l->hosts; i++)
		show_host(l, i, &p);
	stat_free_all(files, p.n_files);
	return 0;
}

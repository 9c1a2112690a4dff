/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The port contract over pairs of DPDK ports. The far end is a process of its own, forked before there is an
 * EAL, since a process has only one.
 *
 * test_port_dpdk PAIR [mtu=N] [swap] [huge=on]
 *   PAIR is vhost, packed, memif, packet or tap; swap: test the other end.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "port_contract.h"
#include "probe.h"

enum {
	SKIPPED = 77, /* to meson */
	HUGE_PAGES = 128,
};

struct pair {
	const char *name;
	const char *near, *far; /* %s: a directory for sockets */
	const char *setup;	/* a shell command, in a network namespace of our own; or NULL */
};

static const struct pair pairs[] = {
	{"vhost", "net_virtio_user0,path=%s/s,server=1,queue_size=1024", "net_vhost1,iface=%s/s,client=1",
		NULL},
	{"packed", "net_virtio_user0,path=%s/s,server=1,queue_size=1024,packed_vq=1",
		"net_vhost1,iface=%s/s,client=1", NULL},
	{"own", "net_sandirect_virtio0,path=%s/s,server=1", "net_vhost1,iface=%s/s,client=1", NULL},
	{"own_packed", "net_sandirect_virtio0,path=%s/s,server=1,packed_vq=1",
		"net_vhost1,iface=%s/s,client=1", NULL},
	{"own_client", "net_sandirect_virtio0,path=%s/s,in_order=0,event_idx=1", "net_vhost1,iface=%s/s",
		NULL},
	{"memif", "net_memif0,role=server,socket=%s/s,socket-abstract=no",
		"net_memif1,role=client,socket=%s/s,socket-abstract=no", NULL},
	{"packet", "net_af_packet0,iface=sdnear", "net_af_packet1,iface=sdfar",
		"ip link add sdnear mtu 9000 type veth peer name sdfar mtu 9000 && ip link set sdnear up && "
		"ip link set sdfar up"},
	{"tap", "net_tap0,iface=sdtap", "net_af_packet1,iface=sdtap",
		"ip tuntap add sdtap mode tap multi_queue && ip link set sdtap mtu 9000 up"},
};

struct dpdk_link {
	struct contract_link base;
	struct port_config cfg;
};

static int open_device(const struct port_config *cfg, struct port **out)
{
	char err[256] = "";
	int e = port_open(cfg, out, err, sizeof err);

	if (e)
		fprintf(stderr, "%s: %s\n", cfg->device, err);
	return e;
}

static int open_link(struct contract_link *base, struct port **out)
{
	return open_device(&((struct dpdk_link *)base)->cfg, out);
}

static void close_link(struct contract_link *base, struct port *p)
{
	port_close(p);
}

static pid_t start_far_end(const struct port_config *cfg)
{
	static const atomic_bool never;
	struct port *p;
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (open_device(cfg, &p))
		usleep(100000); /* a device that the near end makes */
	probe_answer(p, &never);
	_exit(1);
}

/* Sets the number of huge pages; returns what it was, or -1. */
static int set_huge_pages(int n)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "r+");
	int was = -1, now = -1;

	if (!f)
		return -1;
	if (fscanf(f, "%d", &was) == 1 && was < n) {
		rewind(f);
		fprintf(f, "%d\n", n);
		fflush(f);
	}
	rewind(f);
	if (fscanf(f, "%d", &now) != 1 || now < n)
		was = -1;
	fclose(f);
	return was;
}

static void restore_huge_pages(int n)
{
	FILE *f = n < HUGE_PAGES ? fopen("/proc/sys/vm/nr_hugepages", "w") : NULL;

	if (f) {
		fprintf(f, "%d\n", n);
		fclose(f);
	}
}

static const struct pair *find_pair(const char *name)
{
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		if (name && !strcmp(pairs[i].name, name))
			return &pairs[i];
	return NULL;
}

static int prepare(const struct pair *pair)
{
	if (!pair->setup)
		return 0;
	if (unshare(CLONE_NEWNET)) {
		perror("no network namespace");
		return SKIPPED;
	}
	if (system("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1") ||
		system(pair->setup))
		return 1;
	return 0;
}

static void remove_directory(const char *dir)
{
	char path[64];

	snprintf(path, sizeof path, "%s/s", dir);
	unlink(path);
	rmdir(dir);
}

int main(int argc, char **argv)
{
	const struct pair *pair = find_pair(argv[1]);
	struct dpdk_link l = {.base = {open_link, close_link, 1500}};
	struct port_config far;
	char dir[] = "/tmp/sandirect-test-XXXXXX", near_dev[256], far_dev[256], name[64];
	bool swap = false;
	const char *huge = "off";
	int rc, status, huge_before = HUGE_PAGES;
	pid_t pid;

	if (!pair)
		return 2;
	for (int i = 2; i < argc; i++) {
		if (!strncmp(argv[i], "mtu=", 4))
			l.base.mtu = (uint16_t)atoi(argv[i] + 4);
		swap |= !strcmp(argv[i], "swap");
		if (!strncmp(argv[i], "huge=", 5))
			huge = argv[i] + 5;
	}
	if (getenv("SANDIRECT_LOG"))
		sd_log_open(SD_LOG_DEBUG, NULL, NULL);
	l.base.one_interface = !strcmp(pair->name, "tap");
	rc = prepare(pair);
	if (rc)
		return rc;
	if (!strcmp(huge, "on")) {
		huge_before = set_huge_pages(HUGE_PAGES);
		if (huge_before < 0)
			return SKIPPED;
	}
	if (!mkdtemp(dir))
		return 1;
	probe_device(near_dev, sizeof near_dev, swap ? pair->far : pair->near, dir);
	probe_device(far_dev, sizeof far_dev, swap ? pair->near : pair->far, dir);
	l.cfg = (struct port_config){.size = sizeof l.cfg,
		.name = "near",
		.device = near_dev,
		.mtu = l.base.mtu,
		.hugepages = huge,
		.own_process = true};
	far = l.cfg;
	far.name = "far";
	far.device = far_dev;
	pid = start_far_end(&far);
	snprintf(name, sizeof name, "%s-%u%s%s", pair->name, l.base.mtu, swap ? "-swapped" : "",
		strcmp(huge, "on") ? "" : "-huge");
	rc = port_contract_run(name, &l.base);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	remove_directory(dir);
	restore_huge_pages(huge_before);
	return rc;
}

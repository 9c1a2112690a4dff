/* SPDX-License-Identifier: BSD-3-Clause */
/* A lab's names and its files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "config/value.h"
#include "lab.h"

/* The driver of the virtio side. */
#ifdef SD_WITH_VIRTIO
#define OWN_VIRTIO "net_sandirect_virtio"
#else
#define OWN_VIRTIO "net_virtio_user"
#endif

static const char *const link_names[LAB_LINKS] = {
	"vhost", "vhost-packed", "virtio-user", "memif", "veth", "xdp", "udp"};
static const char *const mode_names[LAB_MODES] = {"embedded", "daemon"};

const char *lab_link_name(enum lab_link link)
{
	return link_names[link];
}

enum lab_link lab_link_parse(const char *name)
{
	unsigned i = 0;

	while (i < LAB_LINKS && strcmp(name, link_names[i]))
		i++;
	return (enum lab_link)i;
}

const char *lab_mode_name(enum lab_mode mode)
{
	return mode_names[mode];
}

enum lab_mode lab_mode_parse(const char *name)
{
	unsigned i = 0;

	while (i < LAB_MODES && strcmp(name, mode_names[i]))
		i++;
	return (enum lab_mode)i;
}

int lab_init(struct lab *l, const char *name)
{
	struct cfg *cfg = malloc(sizeof *cfg);
	char err[CFG_ERR_LEN];
	size_t len = strlen(name);

	*l = (struct lab){.hosts = 2, .link = LAB_VHOST, .mtu = 1500, .hugepages = "auto"};
	if (!cfg)
		return command_fail("out of memory");
	if (cfg_load(cfg, err, sizeof err)) {
		free(cfg);
		return command_fail("%s", err);
	}
	strcpy(l->runtime_dir, cfg->runtime_dir);
	free(cfg);
	if (len > LAB_MAX_NAME || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789") != len)
		return command_fail("\"%s\" is no name for a lab: use up to %d small letters and digits",
			name, LAB_MAX_NAME);
	snprintf(l->dir, sizeof l->dir, "%s/lab%s%s", l->runtime_dir, len ? "-" : "", name);
	snprintf(l->prefix, sizeof l->prefix, "sdlab%s%s", len ? "-" : "", name);
	return 0;
}

void lab_netns(const struct lab *l, unsigned host, char out[64])
{
	snprintf(out, 64, "%s-h%u", l->prefix, host);
}

void lab_switch_netns(const struct lab *l, char out[64])
{
	snprintf(out, 64, "%s-sw", l->prefix);
}

void lab_file(const struct lab *l, const char *file, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s/%s", l->dir, file);
}

void lab_host_file(const struct lab *l, unsigned host, const char *suffix, char out[PATH_MAX])
{
	char file[32];

	snprintf(file, sizeof file, "h%u.%s", host, suffix);
	lab_file(l, file, out);
}

unsigned lab_host_parse(const struct lab *l, const char *name)
{
	uint64_t n;

	return *name == 'h' && cfg_value_count(name + 1, &n) && n <= l->hosts ? (unsigned)n : 0;
}

/* Whoever is killed here leaves none, not half of one. */
int lab_state_write(const struct lab *l)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	FILE *f;

	lab_file(l, "state", path);
	lab_file(l, "state.new", fresh);
	f = fopen(fresh, "we");
	if (!f)
		return -errno;
	fprintf(f, "hosts %u\nlink %s\nmtu %u\nmode %s\n", l->hosts, link_names[l->link], l->mtu,
		mode_names[l->mode]);
	return fclose(f) || rename(fresh, path) ? -errno : 0;
}

int lab_state_read(struct lab *l)
{
	char path[PATH_MAX], link[16], mode[16];
	unsigned hosts, mtu;
	FILE *f;
	int n;

	lab_file(l, "state", path);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	n = fscanf(f, "hosts %u link %15s mtu %u mode %15s", &hosts, link, &mtu, mode);
	fclose(f);
	if (n != 4 || !hosts || hosts > LAB_MAX_HOSTS || mtu > UINT16_MAX ||
		lab_link_parse(link) == LAB_LINKS || lab_mode_parse(mode) == LAB_MODES)
		return -EINVAL;
	l->hosts = hosts;
	l->mtu = (uint16_t)mtu;
	l->link = lab_link_parse(link);
	l->mode = lab_mode_parse(mode);
	return 0;
}

/*
 * vhost: the virtio side is the server, because DPDK's driver lets either side restart in that arrangement
 * only. The device names carry the host's number since two processes on one machine may share EAL's runtime
 * files. A daemon with several engines has a pair of queues for each, but for net_virtio_user, which has one.
 */
static void write_device(const struct lab *l, unsigned host, FILE *f)
{
	const char *virtio = l->link == LAB_VIRTIO_USER ? "net_virtio_user" : OWN_VIRTIO;
	unsigned queues = l->n_cores && strcmp(virtio, "net_virtio_user") ? l->n_cores : 1;

	switch (l->link) {
	case LAB_VHOST:
	case LAB_VHOST_PACKED:
	case LAB_VIRTIO_USER:
		if (host == 1)
			fprintf(f, "device = %s0,path=%s/san.sock,server=1,queue_size=1024,queues=%u%s\n",
				virtio, l->dir, queues, l->link == LAB_VHOST_PACKED ? ",packed_vq=1" : "");
		else
			fprintf(f, "device = net_vhost0,iface=%s/san.sock,client=1,queues=%u\n", l->dir,
				queues);
		break;
	case LAB_MEMIF:
		fprintf(f, "device = net_memif0,role=%s,socket=%s/san.sock,socket-abstract=no\n",
			host == 1 ? "server" : "client", l->dir);
		break;
	case LAB_VETH:
		fputs("device = net_af_packet0,iface=sanp0\n", f);
		break;
	case LAB_XDP:
		fputs("device = net_af_xdp0,iface=san0\n", f);
		break;
	case LAB_UDP:
	case LAB_LINKS:
		fputs("device = udp\n", f);
		break;
	}
}

int lab_config_write(const struct lab *l, unsigned host)
{
	const struct {
		const char *key, *value;
	} faults[] = {{"loss", l->loss}, {"duplicate", l->duplicate}, {"reorder", l->reorder},
		{"corrupt", l->corrupt}, {"delay", l->delay}, {"jitter", l->jitter}, {"rate", l->rate},
		{"seed", l->seed}};
	char path[PATH_MAX], socket[PATH_MAX];
	FILE *f;

	lab_host_file(l, host, "conf", path);
	f = fopen(path, "we");
	if (!f)
		return -errno;
	fprintf(f, "# Host h%u, written by `sandirect lab up`.\n[global]\nruntime_dir = %s\n", host,
		l->runtime_dir);
	if (l->mode == LAB_DAEMON) {
		lab_host_file(l, host, "sock", socket);
		fprintf(f, "daemon = %s\n", socket);
		if (*l->cores)
			fprintf(f, "cores = %s\n", l->cores);
	}
	fprintf(f, "\n[port san0]\nnetdev = san0\nmtu = %u\nhugepages = %s\n", l->mtu, l->hugepages);
	if (l->miniport)
		fputs("miniport = on\n", f);
	write_device(l, host, f);
	for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
		if (*faults[i].value)
			fprintf(f, "%s = %s\n", faults[i].key, faults[i].value);
	return fclose(f) ? -errno : 0;
}

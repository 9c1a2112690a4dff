/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lab: N hosts on one machine, each a network namespace.
 *
 *   san0   10.77.0.I/24 fd77::I/64   kernel-owned interface of the SAN
 *   lan0   10.78.0.I/24              an ordinary network beside it
 *   the host's SAN port              what programs over the switch use, by one of LAB_LINKS
 *
 * All state is in RUNTIME_DIR/lab: the shape of the lab, each host's configuration, the ports' sockets.
 * Whatever exists can be found by name, so that `down` needs none of it.
 */
#ifndef SD_APPS_LAB_H
#define SD_APPS_LAB_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

#define LAB_MAX_HOSTS 32
#define LAB_MAX_NAME  16
#define LAB_FAULT_LEN 24

enum lab_link {
	LAB_VHOST,
	LAB_VHOST_PACKED,
	LAB_VIRTIO_USER,
	LAB_MEMIF,
	LAB_VETH,
	LAB_XDP,
	LAB_UDP,
	LAB_LINKS
};
enum lab_mode { LAB_EMBEDDED, LAB_DAEMON, LAB_MODES };

struct lab {
	char runtime_dir[128];
	char dir[160];	 /* RUNTIME_DIR/lab[-NAME] */
	char prefix[32]; /* of the namespaces: sdlab[-NAME] */
	unsigned hosts;
	enum lab_link link;
	enum lab_mode mode; /* who has a host's port: the program that uses it, or a daemon */
	bool miniport;	    /* san0 is made by the daemon, and the kernel's frames go by the SAN port */
	char cores[64];	    /* on which a daemon has engines; empty: one engine, anywhere */
	unsigned n_cores;
	uint16_t mtu;
	char hugepages[8];
	/* faults, in the notation of the configuration; empty: none */
	char loss[LAB_FAULT_LEN], duplicate[LAB_FAULT_LEN], reorder[LAB_FAULT_LEN], corrupt[LAB_FAULT_LEN];
	char delay[LAB_FAULT_LEN], jitter[LAB_FAULT_LEN], rate[LAB_FAULT_LEN], seed[LAB_FAULT_LEN];
};

/* Names after which a lab is built, empty name: the default one. 0, or 1 after a message. */
int lab_init(struct lab *l, const char *name);
const char *lab_link_name(enum lab_link link);
/* LAB_LINKS: no such link. */
enum lab_link lab_link_parse(const char *name);
const char *lab_mode_name(enum lab_mode mode);
enum lab_mode lab_mode_parse(const char *name); /* LAB_MODES: no such mode */
void lab_netns(const struct lab *l, unsigned host, char out[64]);
/* The namespace that holds the bridges of a lab with more than two hosts. */
void lab_switch_netns(const struct lab *l, char out[64]);
void lab_file(const struct lab *l, const char *file, char out[PATH_MAX]);
/* Of a host: its "conf", and its daemon's "sock" and "log". */
void lab_host_file(const struct lab *l, unsigned host, const char *suffix, char out[PATH_MAX]);
/* "h2" -> 2; 0: no host of this lab. */
unsigned lab_host_parse(const struct lab *l, const char *name);

/* The file that says a lab is up, and its shape. 0, -ENOENT, -EINVAL. */
int lab_state_write(const struct lab *l);
int lab_state_read(struct lab *l);
/* Writes hN.conf. */
int lab_config_write(const struct lab *l, unsigned host);

/* These speak to the person; 0 or 1. */
int lab_up(const struct lab *l);
/* SIGINT, SIGTERM or SIGHUP came during an `up`. */
bool lab_interrupted(void);
int lab_down(const struct lab *l);
/* The same, but keeps the runtime directory, on which the caller has the lock. */
int lab_clear(const struct lab *l);
int lab_status(struct lab *l);
/* Starts one on each host and waits until they serve. */
int lab_start_daemons(const struct lab *l);
/* Replace this process by a program on a host: on its kernel's sockets, or over the switch. */
struct run_options;
int lab_exec(struct lab *l, const char *host, char **argv);
int lab_run(struct lab *l, const char *host, struct run_options *o, char **argv);

#endif

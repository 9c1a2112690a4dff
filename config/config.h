/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config: the configuration file and its environment overrides, parsed to plain structs.
 *
 * The file is $SANDIRECT_CONFIG, else /etc/sandirect.conf; if the latter is missing, that is no error. A bad
 * line gives one message with file, line and remedy. docs/configuration.md describes every key. Only programs
 * and the preload shim read it. No state of its own, no output, no dependence on the locale: it runs inside
 * any program.
 */
#ifndef SD_CONFIG_CONFIG_H
#define SD_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/log.h"

#define CFG_MAX_PORTS 8
#define CFG_MAX_CORES 16
#define CFG_MAX_RULES 256
#define CFG_ERR_LEN   512
#define CFG_FILE      "/etc/sandirect.conf"

enum cfg_action { CFG_SAN, CFG_TCP, CFG_BOTH };
enum cfg_role { CFG_ANY_ROLE, CFG_CLIENT, CFG_SERVER };

/* rule = ACTION [program=GLOB] [role=client|server] [dst=PREFIX] [port=N[-M]]; the first match decides. */
struct cfg_rule {
	enum cfg_action
		action; /* san: no fallback to TCP after a refused or silent peer; both: SAN, else TCP */
	enum cfg_role role;
	char program[64];   /* glob (* and ?) against the program's base name; empty: any */
	struct sd_addr net; /* client: destination; server: local address. family 0: any */
	unsigned net_len;
	uint16_t port_first, port_last; /* 0, 65535: any */
	unsigned line;
};

/* The daemon's: an engine runs on each. None: one engine, anywhere. */
struct cfg_cores {
	unsigned n;
	uint16_t core[CFG_MAX_CORES];
};

struct cfg_port {
	char name[32];
	char netdev[32];   /* the kernel interface whose addresses and routes this port serves */
	char device[256];  /* "udp" or a DPDK device */
	char standby[256]; /* a second one on the same network, or empty */
	bool miniport;	   /* netdev is made by who has the port, for the kernel to share it */
	uint16_t mtu;	   /* 0: the netdev's */
	uint8_t mac[6];
	char hugepages[8]; /* auto, on, off */
	char eal_args[256];
	unsigned rx_descriptors, tx_descriptors;
	double loss, duplicate, reorder, corrupt;
	uint64_t delay_ns, jitter_ns, rate_bps, fault_seed;
	unsigned line;
};

struct cfg {
	bool enabled;		     /* enabled = on|off; SANDIRECT=off */
	enum sd_log_level log_level; /* log = error|warn|info|debug; SANDIRECT_LOG */
	char log_file[256];	     /* empty: standard error */
	char runtime_dir[128];	     /* /run/sandirect; SANDIRECT_RUNTIME_DIR */
	char daemon[108]; /* its socket; empty: this process opens ports of its own; SANDIRECT_DAEMON */
	struct cfg_cores cores;
	uint64_t spin_ns; /* spin = 50us; SANDIRECT_SPIN_US=50 */
	uint64_t find_timeout_ns, negative_ttl_ns, positive_ttl_ns;
	uint64_t exit_linger_ns;
	/* transport */
	bool crc;
	char congestion[16]; /* swift, dctcp, fixed */
	uint32_t window_packets, ring_min, ring_max;
	uint64_t dead_timeout_ns, keepalive_ns, connect_timeout_ns;
	unsigned n_ports, n_rules;
	struct cfg_port ports[CFG_MAX_PORTS];
	struct cfg_rule rules[CFG_MAX_RULES];
	char file[256]; /* where it came from; empty: defaults */
};

/* Fills *out with defaults. */
void cfg_defaults(struct cfg *out);
/* Defaults, then the file, then the environment. 0, or -EINVAL/-errno with one line in err (CFG_ERR_LEN is
 * enough); *out is then the defaults. */
int cfg_load(struct cfg *out, char *err, size_t err_len);
/* The same for one file, without the environment. */
int cfg_load_file(struct cfg *out, const char *file, char *err, size_t err_len);
/* The same for text, as if it were the file name. */
int cfg_parse(struct cfg *out, const char *name, const char *text, size_t len, char *err, size_t err_len);
/* The first matching rule's action; CFG_BOTH when none matches. */
enum cfg_action cfg_match(
	const struct cfg *c, enum cfg_role role, const char *program, const struct sd_addr *addr);

#endif

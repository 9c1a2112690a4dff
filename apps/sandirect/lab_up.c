/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Building a lab, with ip(8). Two hosts are joined by veth pairs, more by a bridge in a namespace of its own.
 * Nothing is ever made outside the lab's own namespaces and directory.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "command.h"
#include "lab.h"
#include "netns.h"
#include "spawn.h"

#define LINK_PAUSE_MS 5
#define LINK_WAIT_MS  5000
#define SANP_HEADROOM 100 /* sanp0 carries the SAN's frames, whose IP MTU is san0's */

/* An interrupt ends the work before its next step, whether or not the program of this one heard it. */
#define STEP(...) (lab_interrupted() ? -EINTR : spawn_words(__VA_ARGS__))

static int make_netns(const char *name)
{
	if (STEP("ip netns add %s", name))
		return -1;
	/* Before any interface exists, so that none announces itself or invents addresses. */
	return STEP("ip -n %s link set lo up", name);
}

/* Joins interface ifname of all hosts. */
static int make_segment(const struct lab *l, const char *ifname, unsigned mtu)
{
	char a[64], b[64];

	if (l->hosts == 2) {
		lab_netns(l, 1, a);
		lab_netns(l, 2, b);
		return STEP("ip link add %s mtu %u netns %s type veth peer name %s mtu %u netns %s", ifname,
			mtu, a, ifname, mtu, b);
	}
	lab_switch_netns(l, b);
	if (STEP("ip -n %s link add br-%s mtu %u type bridge", b, ifname, mtu) ||
		STEP("ip -n %s link set br-%s up", b, ifname))
		return -1;
	for (unsigned i = 1; i <= l->hosts; i++) {
		lab_netns(l, i, a);
		if (STEP("ip link add %s mtu %u netns %s type veth peer name %s-h%u mtu %u netns %s", ifname,
			    mtu, a, ifname, i, mtu, b) ||
			STEP("ip -n %s link set %s-h%u master br-%s up", b, ifname, i, ifname))
			return -1;
	}
	return 0;
}

static int make_addresses(const struct lab *l, unsigned host)
{
	char ns[64];

	lab_netns(l, host, ns);
	/* No address of its own: the kernel must not answer on the port's wire. */
	if (l->link == LAB_VETH && (STEP("ip -n %s link set sanp0 addrgenmode none", ns) ||
					   STEP("ip -n %s link set sanp0 up", ns)))
		return -1;
	if (STEP("ip -n %s link set lan0 up", ns) ||
		STEP("ip -n %s addr add 10.78.0.%u/24 dev lan0", ns, host))
		return -1;
	return 0;
}

static int make_san_addresses(const struct lab *l, unsigned host)
{
	char ns[64];

	lab_netns(l, host, ns);
	if (STEP("ip -n %s link set san0 up", ns) ||
		STEP("ip -n %s addr add 10.77.0.%u/24 dev san0", ns, host) ||
		STEP("ip -n %s addr add fd77::%x/64 dev san0 nodad", ns, host))
		return -1;
	return 0;
}

static int wait_for_interface(const char *ns, const char *ifname)
{
	static const struct timespec pause = {0, LINK_PAUSE_MS * 1000000};

	for (unsigned waited = 0; !netns_interface_is_up(ifname); waited += LINK_PAUSE_MS) {
		if (waited > LINK_WAIT_MS)
			return command_fail("%s: %s does not come up", ns, ifname);
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* The kernel declares a link up some time after it has its carrier, and a bridge forwards only then. Moves
 * this process. Host 0 is the bridges' namespace. */
static int wait_for_links(const struct lab *l, unsigned host)
{
	static const char *const names[] = {"san0", "lan0", "sanp0"};
	unsigned n = l->link == LAB_VETH ? 3 : 2;
	char ns[64], port[IFNAMSIZ];
	int rc;

	if (host)
		lab_netns(l, host, ns);
	else
		lab_switch_netns(l, ns);
	rc = netns_enter(ns);
	if (rc)
		return command_fail("%s: %s", ns, strerror(-rc));
	for (unsigned i = 0; !rc && i < n; i++) {
		if (host)
			rc = wait_for_interface(ns, names[i]);
		for (unsigned h = 1; !host && !rc && h <= l->hosts; h++) {
			if (l->miniport && !strcmp(names[i], "san0"))
				break;
			snprintf(port, sizeof port, "%s-h%u", names[i], h);
			rc = wait_for_interface(ns, port);
		}
	}
	return rc;
}

static int make_dirs(const struct lab *l)
{
	if (mkdir(l->runtime_dir, 0755) && errno != EEXIST)
		return command_fail("%s: %s", l->runtime_dir, strerror(errno));
	if (mkdir(l->dir, 0755))
		return command_fail("%s: %s", l->dir, strerror(errno));
	return 0;
}

static int make_configs(const struct lab *l)
{
	int rc = 0;

	for (unsigned i = 1; !rc && i <= l->hosts; i++)
		rc = lab_config_write(l, i);
	return rc ? command_fail("%s: %s", l->dir, strerror(-rc)) : 0;
}

/* From here on there is a lab. */
static int make_state(const struct lab *l)
{
	int rc = lab_state_write(l);

	return rc ? command_fail("%s: %s", l->dir, strerror(-rc)) : 0;
}

static int build(const struct lab *l)
{
	char ns[64];

	if (make_dirs(l) || make_configs(l))
		return -1;
	for (unsigned i = 1; i <= l->hosts; i++) {
		lab_netns(l, i, ns);
		if (make_netns(ns))
			return -1;
	}
	lab_switch_netns(l, ns);
	if (l->hosts != 2 && make_netns(ns))
		return -1;
	if ((!l->miniport && make_segment(l, "san0", l->mtu)) || make_segment(l, "lan0", 1500))
		return -1;
	if (l->link == LAB_VETH && make_segment(l, "sanp0", l->mtu + SANP_HEADROOM))
		return -1;
	for (unsigned i = 1; i <= l->hosts; i++)
		if (make_addresses(l, i) || (!l->miniport && make_san_addresses(l, i)))
			return -1;
	/* They make san0. */
	if (l->miniport && lab_start_daemons(l))
		return -1;
	for (unsigned i = 1; l->miniport && i <= l->hosts; i++)
		if (make_san_addresses(l, i))
			return -1;
	for (unsigned i = l->hosts == 2; i <= l->hosts; i++)
		if (wait_for_links(l, i))
			return -1;
	if (l->mode == LAB_DAEMON && !l->miniport && lab_start_daemons(l))
		return -1;
	return make_state(l);
}

int lab_up(const struct lab *l)
{
	if (!build(l) && !lab_interrupted())
		return 0;
	lab_down(l);
	if (lab_interrupted())
		return command_fail("interrupted; what there was of the lab is removed");
	return command_fail(
		"the lab could not be built; it needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and ip(8) of "
		"the package iproute2");
}

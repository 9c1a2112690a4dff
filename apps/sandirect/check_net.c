/* SPDX-License-Identifier: BSD-3-Clause */
/* The configured ports with their interfaces and devices, and the filters that will not see SAN traffic. */
#include <ctype.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "netns.h"
#include "pcidev.h"

static void check_netdev(struct check_report *r, const struct cfg_port *p)
{
	if (!if_nametoindex(p->netdev))
		check_add(r, CHECK_MISSING, "interface",
			"mend netdev in the port's section, or make the interface",
			"%s of [port %s] does not exist here", p->netdev, p->name);
	else if (!netns_interface_is_up(p->netdev))
		check_add(r, CHECK_WARN, "interface", "ip link set IFACE up, and look at the cable",
			"%s of [port %s] is down", p->netdev, p->name);
	else
		check_add(r, CHECK_OK, "interface", NULL, "%s of [port %s] is up", p->netdev, p->name);
}

/* "0000:03:00.1" or "03:00.1", perhaps with devargs behind. */
static bool is_pci(const char *device)
{
	unsigned a, b, c, d;

	return sscanf(device, "%x:%x:%x.%x", &a, &b, &c, &d) == 4 ||
	       (isxdigit((unsigned char)*device) && sscanf(device, "%x:%x.%x", &a, &b, &c) == 3);
}

static void check_device(struct check_report *r, const struct cfg_port *p, const char *device)
{
	int len = (int)strcspn(device, ",");
	struct pcidev d;
	char name[32];

	if (!is_pci(device)) {
		check_add(r, CHECK_OK, "device", NULL, "%.160s of [port %s]", device, p->name);
		return;
	}
	snprintf(name, sizeof name, "%.*s", len, device);
	if (pcidev_find(name, &d) || !*d.driver)
		check_add(r, CHECK_MISSING, "device",
			"`sandirect ports` lists NICs; `sandirect ports bind` gives this one to vfio-pci",
			"%.*s of [port %s] has no driver or does not exist", len, device, p->name);
	else
		check_add(r, CHECK_OK, "device", NULL, "%.*s of [port %s], driver %s", len, device, p->name,
			d.driver);
}

void check_ports(struct check_report *r, const struct cfg *cfg)
{
	if (!cfg->n_ports)
		check_add(r, CHECK_WARN, "ports",
			"add a [port NAME] section (sandirect.conf(5)); `sandirect lab` has hosts with ports "
			"of their own",
			"none is configured: every connection will take TCP (NO_PORT)");
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		check_netdev(r, &cfg->ports[i]);
		check_device(r, &cfg->ports[i], cfg->ports[i].device);
		if (cfg->ports[i].standby[0])
			check_device(r, &cfg->ports[i], cfg->ports[i].standby);
	}
}

static int count_table(const struct nlmsghdr *nlh, void *ctx)
{
	++*(unsigned *)ctx;
	return MNL_CB_OK;
}

/* How many nftables tables there are here (iptables-nft's included); -1: it cannot be told. */
static int count_tables(void)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	char buf[8192];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;
	unsigned n = 0;
	ssize_t got;
	int rc = -1;

	if (!nl)
		return -1;
	nlh->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = (uint32_t)time(NULL);
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof *nfg);
	nfg->nfgen_family = AF_UNSPEC;
	nfg->version = NFNETLINK_V0;
	if (!mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) && mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) >= 0) {
		do {
			got = mnl_socket_recvfrom(nl, buf, sizeof buf);
			rc = got <= 0 ? -1
				      : mnl_cb_run(buf, (size_t)got, nlh->nlmsg_seq,
						mnl_socket_get_portid(nl), count_table, &n);
		} while (rc > 0);
	}
	mnl_socket_close(nl);
	return rc < 0 ? -1 : (int)n;
}

void check_filters(struct check_report *r)
{
	static const char unseen[] = "nftables, cgroup-BPF, tcpdump, ss and conntrack do not see SAN traffic";
	int n = count_tables();

	if (n > 0)
		check_add(r, CHECK_WARN, "filters",
			"keep what they must see on TCP with rules in [rules], for instance: rule = tcp "
			"port=22",
			"%d nftables tables; %s", n, unseen);
	else
		check_add(r, CHECK_OK, "filters", NULL, "%s%s", n ? "" : "no nftables tables; ", unseen);
}

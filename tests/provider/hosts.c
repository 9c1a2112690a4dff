/* SPDX-License-Identifier: BSD-3-Clause */
#include "hosts.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int namespaces[2] = {-1, -1};

static bool new_namespace(int *fd)
{
	if (unshare(CLONE_NEWNET))
		return false;
	*fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return *fd >= 0;
}

static bool run(const char *command)
{
	return !system(command);
}

static bool configure(unsigned host)
{
	char command[512];

	hosts_enter(host);
	snprintf(command, sizeof command,
		"ip link set lo up && ip link set " HOSTS_NETDEV " up && "
		"ip addr add 10.77.0.%u/24 dev " HOSTS_NETDEV " && "
		"ip addr add fd77::%u/64 dev " HOSTS_NETDEV " nodad",
		host + 1, host + 1);
	return run(command);
}

/* The kernel brings a link's IPv6 to life some time after the link itself. */
static bool is_up(unsigned host)
{
	struct sockaddr_in6 peer = {.sin6_family = AF_INET6, .sin6_port = 1};
	struct sd_addr a = hosts_addr(!host, 6, 0);
	int fd, r;

	hosts_enter(host);
	memcpy(&peer.sin6_addr, a.ip, 16);
	fd = socket(AF_INET6, SOCK_DGRAM, 0);
	r = connect(fd, (struct sockaddr *)&peer, sizeof peer);
	close(fd);
	return !r;
}

static bool wait_until_up(unsigned host)
{
	for (unsigned i = 0; i < 500; i++) {
		if (is_up(host))
			return true;
		usleep(10000);
	}
	return false;
}

bool hosts_open(void)
{
	char command[256];

	/* Without privileges, a user namespace of our own gives them. */
	if (geteuid() && unshare(CLONE_NEWUSER))
		return false;
	if (!new_namespace(&namespaces[0]) || !new_namespace(&namespaces[1]))
		return false;
	snprintf(command, sizeof command,
		"ip link add " HOSTS_NETDEV " type veth peer name " HOSTS_NETDEV " netns /proc/%d/fd/%d",
		getpid(), namespaces[0]);
	return run(command) && configure(0) && configure(1) && wait_until_up(0) && wait_until_up(1);
}

void hosts_enter(unsigned host)
{
	if (setns(namespaces[host], CLONE_NEWNET)) {
		perror("setns");
		abort();
	}
}

struct sd_addr hosts_addr(unsigned host, unsigned family, uint16_t port)
{
	struct sd_addr a = {.family = family, .port = port};

	if (family == 4)
		memcpy(a.ip, (uint8_t[]){10, 77, 0, host + 1}, 4);
	else
		memcpy(a.ip, (uint8_t[]){0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host + 1}, 16);
	return a;
}

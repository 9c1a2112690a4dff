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

#include "base/sockaddr.h"

#define PROBE_PORT 1

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

static int bound_socket(unsigned host)
{
	struct sd_addr a = hosts_addr(host, 6, PROBE_PORT);
	union sd_sockaddr name;
	socklen_t len = sd_sockaddr_from(&name, &a);
	int fd;

	hosts_enter(host);
	fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (fd >= 0 && !bind(fd, &name.any, len))
		return fd;
	close(fd);
	return -1;
}

/* The kernel brings a link's IPv6 to life some time after the link itself: until packets come through. */
static bool wait_for_packets(unsigned from, unsigned to)
{
	struct sd_addr a = hosts_addr(to, 6, PROBE_PORT);
	union sd_sockaddr name;
	socklen_t len = sd_sockaddr_from(&name, &a);
	int in = bound_socket(to), out = bound_socket(from);
	bool came = false;
	char byte = 0;

	for (unsigned i = 0; i < 500 && !came; i++) {
		sendto(out, &byte, 1, 0, &name.any, len);
		usleep(10000);
		came = recv(in, &byte, 1, 0) == 1;
	}
	close(in);
	close(out);
	return came;
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
	return run(command) && configure(0) && configure(1) && wait_for_packets(0, 1) &&
	       wait_for_packets(1, 0);
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

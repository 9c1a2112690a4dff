/* SPDX-License-Identifier: BSD-3-Clause */
#include "pcidev.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "defroute.h"

#define DEVICES	 "/sys/bus/pci/devices"
#define PATH_LEN 320
#define DEPTH	 4 /* of what is made of an interface: a VLAN of a bridge of a bond */

/* --- sysfs --- */

static void path_of(char out[PATH_LEN], const struct pcidev *d, const char *name)
{
	snprintf(out, PATH_LEN, DEVICES "/%s/%s", d->address, name);
}

/* The last part of what a link points to; "" if there is none. */
static void link_name(const char *path, char *out, size_t len)
{
	char target[PATH_MAX], *slash;
	ssize_t n = readlink(path, target, sizeof target - 1);

	*out = '\0';
	if (n <= 0)
		return;
	target[n] = '\0';
	slash = strrchr(target, '/');
	snprintf(out, len, "%.*s", (int)len - 1, slash ? slash + 1 : target);
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static bool is_dots(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/* --- devices --- */

static void find_netdevs(struct pcidev *d, const char *folder)
{
	char path[PATH_LEN];
	struct dirent *e;
	DIR *dir;

	path_of(path, d, folder);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		char below[64];

		if (!strcmp(folder, ".") && !strncmp(e->d_name, "virtio", 6)) {
			/* A virtio device's interface belongs to the device on the bus that it makes. */
			snprintf(below, sizeof below, "%.40s/net", e->d_name);
			find_netdevs(d, below);
		}
		if (strcmp(folder, ".") && !is_dots(e->d_name) && d->n_netdevs < PCIDEV_NETDEVS)
			snprintf(d->netdevs[d->n_netdevs++], sizeof *d->netdevs, "%.15s", e->d_name);
	}
	if (dir)
		closedir(dir);
}

static int look(const char *address, struct pcidev *d)
{
	char path[PATH_LEN], group[64];
	unsigned class = 0;
	FILE *f;

	memset(d, 0, sizeof *d);
	snprintf(d->address, sizeof d->address, "%.15s", address);
	path_of(path, d, "class");
	f = fopen(path, "re");
	if (!f)
		return -ENODEV;
	if (fscanf(f, "%x", &class) != 1)
		class = 0;
	fclose(f);
	d->network = class >> 16 == 0x02;
	path_of(path, d, "driver");
	link_name(path, d->driver, sizeof d->driver);
	path_of(path, d, "iommu_group");
	link_name(path, group, sizeof group);
	d->iommu = *group;
	find_netdevs(d, "net");
	find_netdevs(d, ".");
	return 0;
}

/* The PCI device that an interface was made of. */
static int address_of(const char *netdev, char *out, size_t len)
{
	char path[PATH_LEN], real[PATH_MAX], bus[32], *slash;

	snprintf(path, sizeof path, "/sys/class/net/%s/device", netdev);
	if (!realpath(path, real))
		return access("/sys/class/net", X_OK) ? -errno : -EINVAL;
	/* Or of a device that a PCI device makes. */
	for (slash = strrchr(real, '/'); slash; slash = strrchr(real, '/')) {
		snprintf(path, sizeof path, "%.250s/subsystem", real);
		link_name(path, bus, sizeof bus);
		if (!strcmp(bus, "pci")) {
			snprintf(out, len, "%.*s", (int)len - 1, slash + 1);
			return 0;
		}
		*slash = '\0';
	}
	return -EINVAL;
}

int pcidev_find(const char *name, struct pcidev *out)
{
	char path[PATH_LEN], address[64];
	int r;

	if (!*name || strlen(name) > 15 || strchr(name, '/') || is_dots(name))
		return -ENODEV;
	snprintf(path, sizeof path, "/sys/class/net/%s", name);
	if (!access(path, F_OK)) {
		r = address_of(name, address, sizeof address);
		return r ? r : look(address, out);
	}
	snprintf(address, sizeof address, "%s%s", strchr(name, ':') == strrchr(name, ':') ? "0000:" : "",
		name);
	return look(address, out);
}

int pcidev_each(int (*see)(void *ctx, const struct pcidev *d), void *ctx)
{
	struct dirent **names;
	int n = scandir(DEVICES, &names, NULL, alphasort), r = 0;

	for (int i = 0; i < n; i++) {
		struct pcidev d;

		if (!r && !is_dots(names[i]->d_name) && !look(names[i]->d_name, &d) && d.network)
			r = see(ctx, &d);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return r;
}

/* --- routes --- */

/* What cannot be found out is taken for true: a network is lost otherwise. */
static bool carries_default(const char *netdev, unsigned depth, char *out, size_t len)
{
	unsigned ifindex;
	char path[PATH_LEN];
	struct dirent *e;
	bool does = false;
	DIR *dir;

	errno = 0;
	ifindex = if_nametoindex(netdev);
	if (ifindex ? defroute_by(ifindex) : errno != ENODEV) {
		snprintf(out, len, "%s", netdev);
		return true;
	}
	snprintf(path, sizeof path, "/sys/class/net/%s", netdev);
	dir = depth < DEPTH ? opendir(path) : NULL;
	while (dir && !does && (e = readdir(dir)))
		if (!strncmp(e->d_name, "upper_", 6))
			does = carries_default(e->d_name + 6, depth + 1, out, len);
	if (dir)
		closedir(dir);
	return does;
}

bool pcidev_has_default_route(const struct pcidev *d, char *out, size_t len)
{
	for (unsigned i = 0; i < d->n_netdevs; i++)
		if (carries_default(d->netdevs[i], 0, out, len))
			return true;
	return false;
}

/* --- drivers --- */

static int choose(const struct pcidev *d, const char *driver)
{
	char path[PATH_LEN];
	int r;

	path_of(path, d, "driver_override");
	r = put(path, driver ? driver : "\n");
	return r ? r : put("/sys/bus/pci/drivers_probe", d->address);
}

int pcidev_rebind(const struct pcidev *d, const char *driver)
{
	struct pcidev now;
	char path[PATH_LEN];
	int r = 0;

	if (*d->driver) {
		path_of(path, d, "driver/unbind");
		r = put(path, d->address);
	}
	if (!r)
		r = choose(d, driver);
	if (!r && driver && (look(d->address, &now) || strcmp(now.driver, driver)))
		r = -EIO;
	if (r && driver)
		choose(d, NULL);
	return r;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* probe_vdev: a virtual device whose back end is behind a UNIX socket. */
#include <errno.h>
#include <ethdev_vdev.h>

#include "drivers/virtio/devargs.h"
#include "drivers/virtio/ethdev.h"
#include "drivers/virtio/vhost_user.h"

static int open_device(struct rte_eth_dev *eth, const char *name, const char *args)
{
	struct vn_dev *d = eth->data->dev_private;
	struct vn_devargs a;
	int e = vn_devargs_parse(name, args, true, &a);

	if (e)
		return e;
	if (!*a.path) {
		VN_LOG(ERR, d, "no path=SOCKET is given");
		return -EINVAL;
	}
	d->options = a.options;
	vn_device_setup(d);
	if (rte_is_zero_ether_addr((struct rte_ether_addr *)d->options.mac))
		rte_eth_random_addr(d->options.mac);
	e = vn_vhost_user_open(d, a.path, a.server);
	if (e)
		VN_LOG(ERR, d, "cannot %s %s: %s", a.server ? "listen on" : "use", a.path, strerror(-e));
	return e ? e : vn_ethdev_init(eth);
}

static int probe(struct rte_vdev_device *vdev)
{
	struct rte_eth_dev *eth;
	struct vn_dev *d;
	int e;

	if (rte_eal_process_type() != RTE_PROC_PRIMARY) {
		rte_log(RTE_LOG_ERR, vn_log_type, "%s: secondary processes cannot use it\n",
			rte_vdev_device_name(vdev));
		return -ENOTSUP;
	}
	eth = rte_eth_vdev_allocate(vdev, sizeof *d);
	if (!eth)
		return -ENOMEM;
	d = eth->data->dev_private;
	d->eth = eth;
	d->data = eth->data;
	e = open_device(eth, rte_vdev_device_name(vdev), rte_vdev_device_args(vdev));
	if (e) {
		rte_eth_dev_release_port(eth);
		return e;
	}
	rte_eth_dev_probing_finish(eth);
	return 0;
}

static int remove_device(struct rte_vdev_device *vdev)
{
	struct rte_eth_dev *eth = rte_eth_dev_get_by_name(rte_vdev_device_name(vdev));

	return eth ? rte_eth_dev_close(eth->data->port_id) : 0;
}

static struct rte_vdev_driver driver = {
	.probe = probe,
	.remove = remove_device,
};

RTE_PMD_REGISTER_VDEV(net_sandirect_virtio, driver);
RTE_PMD_REGISTER_PARAM_STRING(net_sandirect_virtio, VN_DEVARGS_VDEV VN_DEVARGS_COMMON);

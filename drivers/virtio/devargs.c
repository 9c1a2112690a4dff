/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/virtio/devargs.h"

#include <errno.h>
#include <rte_kvargs.h>
#include <string.h>

struct argument {
	const char *key;
	bool vdev; /* of a virtual device only */
	unsigned long least, most;
	void (*set)(struct vn_devargs *a, unsigned long value);
};

static void set_packed(struct vn_devargs *a, unsigned long v)
{
	a->options.packed = v;
}

static void set_in_order(struct vn_devargs *a, unsigned long v)
{
	a->options.in_order = v;
}

static void set_event_idx(struct vn_devargs *a, unsigned long v)
{
	a->options.event_idx = v ? VN_ON : VN_OFF;
}

static void set_mergeable(struct vn_devargs *a, unsigned long v)
{
	a->options.mergeable = v ? VN_ON : VN_OFF;
}

static void set_queue_size(struct vn_devargs *a, unsigned long v)
{
	a->options.queue_size = (uint16_t)v;
}

static void set_queues(struct vn_devargs *a, unsigned long v)
{
	a->options.pairs = (uint16_t)v;
}

static void set_speed(struct vn_devargs *a, unsigned long v)
{
	a->options.speed = (uint32_t)v;
}

static void set_server(struct vn_devargs *a, unsigned long v)
{
	a->server = v;
}

static const struct argument numbers[] = {
	{"packed_vq", false, 0, 1, set_packed},
	{"in_order", false, 0, 1, set_in_order},
	{"event_idx", false, 0, 1, set_event_idx},
	{"mrg_rxbuf", false, 0, 1, set_mergeable},
	{"queue_size", false, 16, VN_QUEUE_MAX, set_queue_size},
	{"speed", false, 1, 1000000, set_speed},
	{"queues", true, 1, VN_PAIRS_MAX, set_queues},
	{"server", true, 0, 1, set_server},
};

static bool set_number(struct vn_devargs *a, const char *key, const char *text, bool vdev)
{
	for (unsigned i = 0; i < RTE_DIM(numbers); i++) {
		const struct argument *n = &numbers[i];
		unsigned long value;
		char *end;

		if (strcmp(n->key, key) || (n->vdev && !vdev))
			continue;
		errno = 0;
		value = strtoul(text, &end, 10);
		if (errno || end == text || *end || *text == '-' || value < n->least || value > n->most)
			return false;
		n->set(a, value);
		return true;
	}
	return false;
}

static bool set(struct vn_devargs *a, const char *key, const char *text, bool vdev)
{
	if (!text)
		return false;
	if (vdev && !strcmp(key, "path")) {
		if (!*text || strlen(text) >= sizeof a->path)
			return false;
		strcpy(a->path, text);
		return true;
	}
	if (vdev && !strcmp(key, "mac")) {
		struct rte_ether_addr mac;

		if (rte_ether_unformat_addr(text, &mac) || !rte_is_valid_assigned_ether_addr(&mac))
			return false;
		memcpy(a->options.mac, mac.addr_bytes, sizeof a->options.mac);
		return true;
	}
	return set_number(a, key, text, vdev);
}

int vn_devargs_parse(const char *name, const char *text, bool vdev, struct vn_devargs *out)
{
	struct rte_kvargs *list;
	int e = 0;

	memset(out, 0, sizeof *out);
	out->options.in_order = true;
	out->options.event_idx = out->options.mergeable = VN_AUTO;
	list = text && *text ? rte_kvargs_parse(text, NULL) : NULL;
	if (text && *text && !list)
		e = -EINVAL;
	for (unsigned i = 0; list && !e && i < list->count; i++) {
		const struct rte_kvargs_pair *p = &list->pairs[i];

		if (set(out, p->key, p->value, vdev))
			continue;
		rte_log(RTE_LOG_ERR, vn_log_type, "%s: argument %s=%s is unknown or out of range\n", name,
			p->key, p->value ? p->value : "");
		e = -EINVAL;
	}
	rte_kvargs_free(list);
	return e;
}

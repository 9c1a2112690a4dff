/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queue: one virtqueue, split or packed, and its bursts.
 *
 * The device is not trusted. All that the driver needs to know about its own descriptors (which mbuf, how
 * many descriptors, what is free) is kept here, in private memory, and never read back from the ring; what
 * the device writes (used indexes, ids, lengths, flags) is checked before it is used. A device that breaks
 * the rules has its queue stopped (vn_queue_break) until the device has been reset.
 *
 * One thread at a time runs a queue's bursts. Others, which reset the device or lay the queue out anew, keep
 * it out with vn_queue_stop.
 */
#ifndef SD_DRIVERS_VIRTIO_QUEUE_H
#define SD_DRIVERS_VIRTIO_QUEUE_H

#include <rte_mbuf.h>
#include <rte_memzone.h>
#include <stdbool.h>
#include <stdint.h>

#include "drivers/virtio/spec.h"

enum {
	VN_QUEUE_MAX = 32768, /* descriptors */
	VN_INDIRECT = 15,     /* pieces of a frame that an indirect table holds; longer ones are chains */
	VN_REFILL = 32,	      /* receive buffers that are given to the device at once */
	VN_CTRL_ROOM = 4096,  /* bytes of the control queue's for what is said */
	VN_RECLAIM = 64,      /* mbufs that go back to their pool at once */
	VN_BURST_LEAST = 8,   /* frames; with fewer a program sends one by one */
};

enum { VN_PIECES = 1 << 15 }; /* the buffer is one of queue's pieces */

enum vn_kind { VN_RX, VN_TX, VN_CTRL };

struct vn_queue;
typedef uint16_t vn_burst(struct vn_queue *q, struct rte_mbuf **pkts, uint16_t n);

/* A transmit descriptor's header and indirect table, for frames that cannot carry their header themselves. */
struct vn_aside {
	struct vn_hdr hdr;
	uint32_t unused;
	union {
		struct vn_desc split[1 + VN_INDIRECT];
		struct vn_pdesc packed[1 + VN_INDIRECT];
	} table;
};

struct vn_queue_stats {
	uint64_t packets, bytes;
	uint64_t errors;     /* receive: lengths that no frame has; transmit: frames that could not be sent */
	uint64_t no_mbufs;   /* receive buffers that could not be had */
	uint64_t full;	     /* transmit bursts that found the ring full */
	uint64_t kicks;	     /* notifications of the device */
	uint64_t violations; /* of the rules, by the device */
};

/* How a queue is driven: what has been negotiated. */
struct vn_queue_mode {
	bool packed, in_order, event_idx, mergeable, indirect;
	bool platform_order;	/* the device is reached over a bus with barriers of its own */
	bool notification_data; /* a notification says where the ring ends */
	bool rx_offload;	/* received headers say something */
	bool tx_csum;		/* the device finishes checksums */
	bool tx_seg;		/* and segments */
	bool vlan_strip;
	bool physical; /* addresses are the IOVAs of mbufs, not their virtual addresses */
};

struct vn_queue {
	/* read in each burst */
	bool live; /* written by who resets the device */
	bool busy; /* written by the burst */
	bool in_order, event_idx, platform_order, fast_free;
	uint16_t size, mask;
	vn_burst *burst;
	union {
		struct {
			struct vn_desc *desc;
			struct vn_avail *avail;
			struct vn_used *used;
		} split;
		struct {
			struct vn_pdesc *desc;
			struct vn_event *driver, *device;
		} packed;
	};
	struct rte_mbuf **mbufs; /* by descriptor id; NULL: not the device's */
	uint32_t addr_offset;	 /* of an mbuf's field that has the buffer's address for the device */
	uint16_t rx_off;	 /* receive: where in an mbuf's buffer the header begins, */
	uint32_t room;		 /* and how many bytes there are from there on */
	uint32_t longest;    /* receive: of frames in several buffers, those that are longer are dropped */
	uint64_t rearm;	     /* receive: an mbuf's first fields */
	uint64_t slow_flags; /* transmit: of mbufs that cannot go the short way */

	/* written in each burst */
	uint16_t avail_pos, used_pos;	  /* split: they run freely; packed: places in the ring */
	uint16_t used_seen;		  /* split, transmit: up to where the device is known to be done */
	uint16_t free;			  /* descriptors that the device does not have */
	uint16_t avail_flags, used_flags; /* packed: AVAIL and USED as they are in this lap */
	uint16_t first_flags;	/* packed: of the first descriptor that the device is not to see yet, */
	uint16_t first_pos;	/* its place, */
	bool hidden;		/* if there is one */
	uint16_t free_head;	/* first of the free ids, without IN_ORDER */
	uint16_t pieces;	/* transmit: buffers out that are not one mbuf in one descriptor */
	uint16_t reclaim_below; /* transmit: look for what is done when fewer are free */
	uint16_t out;		/* buffers that the device has */
	uint16_t head, tail;	/* in order: where the next buffer's descriptors go, and the oldest's are */
	uint16_t *next;		/* by id: the next free one, or of the same chain */
	uint16_t *count;	/* by id: descriptors of the buffer, and VN_PIECES */
	struct vn_queue_stats stats;

	/* slow */
	struct vn_aside *aside; /* transmit: by id; control queue: VN_CTRL_ROOM bytes */
	uint64_t aside_addr;
	struct rte_mempool *pool;
	void (*notify)(struct vn_queue *q);
	volatile void *notify_at;
	struct vn_dev *dev;
	struct vn_queue_mode mode;
	const struct rte_memzone *zone;
	uint64_t ring_addr[3]; /* for the device: descriptors, driver area, device area */
	enum vn_kind kind;
	uint16_t index;	    /* the device's */
	uint16_t ring_size; /* of the memory there is */
	uint16_t refill_below;
	int kick_fd, call_fd;
	bool broken, interrupts;
} __rte_cache_aligned;

/* Memory for a queue of up to size descriptors (a power of two), shared with the device; name is a memzone's.
 * NULL with rte_errno. */
struct vn_queue *vn_queue_new(struct vn_dev *dev, enum vn_kind kind, uint16_t index, uint16_t size, int node);
/* Frees what is in it and itself. It must be stopped. NULL is allowed. */
void vn_queue_free(struct vn_queue *q);
/* Frees the mbufs in it. It must be stopped, and its device reset. */
void vn_queue_empty(struct vn_queue *q);
/* Empties it and lays the ring out anew, for a device that knows nothing of it. */
void vn_queue_reset(struct vn_queue *q, uint16_t size, const struct vn_queue_mode *mode);

/* Lets bursts in. True: a receive interrupt has been asked for, perhaps since the ring was laid out, so that
 * the device was not told: whoever sleeps has to be woken. */
bool vn_queue_start(struct vn_queue *q);
/* Keeps bursts out; on return none is inside. */
void vn_queue_stop(struct vn_queue *q);
/* To be called once by each process, before queues are used: makes vn_queue_stop cheap for the bursts. */
void vn_queue_prepare(void);

/* The device broke the rules; bursts do nothing until it has been reset. From within a burst. */
void vn_queue_break(struct vn_queue *q, const char *what);

/* Receive interrupts: whether the device is to signal the next buffer that it uses. By the thread of the
 * bursts. */
void vn_queue_interrupt(struct vn_queue *q, bool on);
/* Frames that wait to be received. */
uint32_t vn_queue_waiting(const struct vn_queue *q);

/* Frees what has been sent, up to about so many frames (0: all; more where the device has used several
 * together); returns how many. By the thread of the bursts. */
int vn_queue_reclaim(void *queue, uint32_t want);

/* Where m's buffer begins, for the device. */
static inline uint64_t vn_buffer(const struct vn_queue *q, const struct rte_mbuf *m)
{
	uint64_t addr;

	__builtin_memcpy(&addr, (const uint8_t *)m + q->addr_offset, sizeof addr);
	return addr;
}

static inline uint64_t vn_aside_addr(const struct vn_queue *q, uint16_t id)
{
	return q->aside_addr + id * sizeof(struct vn_aside);
}

/* Without IN_ORDER: ids that the device does not have. */
static inline uint16_t vn_queue_take_id(struct vn_queue *q)
{
	uint16_t id = q->free_head;

	q->free_head = q->next[id];
	return id;
}

/* n ids, linked by next from this one on. */
static inline void vn_queue_give_ids(struct vn_queue *q, uint16_t id, uint16_t n)
{
	uint16_t last = id;

	while (--n)
		last = q->next[last];
	q->next[last] = q->free_head;
	q->free_head = id;
}

/* The ethdev's burst function, both ways: the guard around the queue's own. */
uint16_t vn_queue_burst(void *queue, struct rte_mbuf **pkts, uint16_t n);

#endif

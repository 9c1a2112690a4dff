/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * transport: a reliable, in-order byte stream (and, by its opcodes, RDMA-style writes) over UDP datagrams.
 *
 * Sans-I/O: packets, time and randomness go in; packets and events come out. Nothing here reads a clock,
 * makes a system call, takes a lock or logs, and nothing allocates while a packet is handled (memory comes
 * from pools that tp_listen, tp_connect, tp_accept and tp_write fill). The wire format is in wire.h and
 * docs/protocol.md.
 *
 * Threading: a struct tp and all that hangs on it belong to one caller at a time. Errors are 0 or -errno.
 * Times are nanoseconds of one monotonic clock of the caller's choice.
 */
#ifndef SD_TRANSPORT_TRANSPORT_H
#define SD_TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/pack.h"

struct tp;	    /* one protocol instance: the connections of one engine */
struct tp_conn;	    /* one connection */
struct tp_listener; /* one (address, port) that takes connections */
struct tp_cc_ops;   /* congestion control, cc.h */
struct tp_qp;	    /* verbs.h */
struct tp_cq;
struct tp_mr;
struct tp_swqe;

#define TP_UDP_PORT   7747 /* destination port of every packet; the source port is path entropy */
#define TP_MAX_HEADER 160  /* header, extensions and trailer never exceed this */
#define TP_ENGINES    16   /* of one host, at most */
#define TP_MAX_HEAD   512  /* tp_output_parts() */
#define TP_MAX_PIECES 16

/* How packets reach a peer. The transport reads the addresses and the size and carries the rest untouched;
 * the engine fills hdr with a ready-made Ethernet/IP/UDP header, so that sending is one copy and a patch. */
struct tp_path {
	struct sd_addr local, peer; /* IP addresses; the ports are those of the sockets (TCP's), not UDP's */
	uint16_t max_payload;	    /* largest UDP payload that fits the path's MTU */
	uint8_t port_index;	    /* the engine's: which NIC port */
	uint8_t hdr_len;
	uint8_t hdr[64];
};

/* What arrived, beside the UDP payload itself. */
struct tp_rx {
	const struct sd_addr *local, *peer; /* IP addresses of the packet; ports unused */
	const void *frame; /* opaque for tp_ops.reverse: where the engine finds the L2..L4 headers */
	uint8_t port_index;
	bool ce;     /* ECN: congestion experienced */
	bool astray; /* it came to the receive queue of another engine of this host: the peer is asked for
			another source port */
	bool late;   /* nobody had looked for packets for a while: how long this one took says nothing of the
			network */
};

enum tp_event {
	TP_EV_OPEN = 1 << 0,	 /* tp_connect completed (tp_error() == 0) */
	TP_EV_READABLE = 1 << 1, /* bytes or the peer's FIN have become readable */
	TP_EV_WRITABLE = 1 << 2, /* room in the send ring after tp_write had found it full */
	TP_EV_FAILED = 1 << 3,	 /* terminal; tp_error() says why */
	TP_EV_DRAINED = 1 << 4,	 /* all written bytes, and the FIN if one was sent, are acknowledged */
};

/* Why a connection attempt ended; carried in INIT_NAK and in FIND answers. */
enum tp_code {
	TP_OK = 0,
	TP_NO_LISTENER = 1, /* a SAN host, but nobody there listens on this port over the SAN */
	TP_REFUSED = 2,	    /* policy says no, or the backlog is full */
	TP_VERSION = 3,	    /* no common protocol version */
	TP_BUSY = 4,	    /* out of memory or connections */
};

/* An answer to tp_find(). */
struct tp_found {
	struct sd_addr target;	/* what was asked for: IP and port */
	enum tp_code code;	/* TP_OK: a listener is there */
	const struct tp_rx *rx; /* how the answer arrived, for learning the native address */
};

/* Everything the transport needs from its caller. All are called from within tp_* calls, by the same thread,
 * and must not call back into the transport unless it says so. */
struct tp_ops {
	size_t size; /* sizeof(struct tp_ops) */
	/* user is what tp_connect or tp_set_user was given; NULL until a connection is accepted (then no
	 * call). */
	void (*event)(void *ctx, struct tp_conn *c, void *user, unsigned events);
	/* A connection of l became acceptable. user is tp_listen's. */
	void (*acceptable)(void *ctx, struct tp_listener *l, void *user);
	/* Fills *out with the way back to the sender of rx (ports left alone); false: there is none. */
	bool (*reverse)(void *ctx, const struct tp_rx *rx, struct tp_path *out);
	void (*found)(void *ctx, const struct tp_found *f);
	/* Gives *path another UDP source port, made of entropy: the one it has is congested or broken. NULL:
	 * paths stay as they are. */
	void (*repath)(void *ctx, struct tp_path *path, uint16_t entropy);
	/* Memory, zeroed; may be called only from tp_create, tp_listen, tp_connect, tp_accept, tp_refill,
	 * tp_write, tp_read, tp_grow, tp_shutdown, tp_restore, tp_*close/destroy, and those of verbs.h but
	 * for posting and polling. Rings are page-multiples. */
	void *(*alloc)(void *ctx, size_t size);
	void (*free)(void *ctx, void *p, size_t size);
	/* What is in a ring does not matter until it is written again: its pages may be given back to the
	 * system. Only from tp_refill. NULL: they stay. */
	void (*idle)(void *ctx, void *p, size_t size);
	/* Of queue pairs (verbs.h); NULL if there are none. */
	void (*qp_event)(void *ctx, struct tp_qp *qp, void *user, unsigned events);
	void (*completion)(void *ctx, struct tp_cq *cq, void *user);
};

struct tp_config {
	size_t size;	      /* sizeof(struct tp_config) */
	uint64_t seed[4];     /* entropy for ids, PSNs and keys: secret and fresh in production */
	uint8_t node_key[16]; /* keys reset tokens; the same across restarts lets peers learn of a restart */
	uint8_t engine;	      /* which of those that share an address, seed and node key; below TP_ENGINES */
	uint32_t max_conns;   /* 0: 65536 */
	uint32_t ring_min, ring_max; /* bytes per direction, powers of two; 0: 16 KiB and 4 MiB */
	uint32_t window_packets;     /* largest number of packets in flight; 0: 512. At most 1024 */
	uint64_t ack_delay_ns;	     /* how long an ACK may wait for data to ride on; 0: 50 us */
	uint64_t max_ack_delay_ns;   /* told to the peer: nobody may run us for this long; 0: 10 ms */
	uint64_t connect_timeout_ns; /* INIT unanswered for this long: -ETIMEDOUT; 0: 200 ms */
	uint64_t dead_timeout_ns;    /* unacknowledged data for this long: -ETIMEDOUT; 0: 5 s */
	uint64_t keepalive_ns;	     /* idle time before the first probe; 0: 2 s. Peer is dead after 5 probes
				      * spread over dead_timeout_ns */
	uint64_t rest_ns;	     /* rings that have been empty for this long go to tp_ops.idle; 0: 5 s */
	/* So many connections are a crowd, most of which is in no cache: what is about to be used is fetched
	 * first, and a ring of the smallest size is another connection's when nothing is in it. 0: 65 */
	uint32_t crowd;
	bool crc; /* CRC32C trailer on what we send (both ends must agree; default in apps: on) */
	const struct tp_cc_ops *cc; /* NULL: tp_cc_swift */
};

/* Counters, monotonic. */
struct tp_stats {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	uint64_t rx_bad_header, rx_bad_crc, rx_unknown_cid, rx_bad_token, rx_out_of_window, rx_duplicate;
	uint64_t retransmits, spurious_retransmits, tail_probes, timeouts;
	uint64_t conns_opened, conns_accepted, conns_failed, inits_refused, cookies_sent, resets_sent;
	uint64_t pool_empty;
	uint64_t repaths;     /* another UDP source port */
	uint64_t black_holes; /* packets were too large for the path */
};

/* One connection, for people. */
struct tp_info {
	struct sd_addr local, peer;
	const char *state;
	uint64_t bytes_sent, bytes_acked, bytes_received;
	uint64_t packets_sent, packets_received, retransmits;
	uint64_t srtt_ns, min_rtt_ns, rto_ns;
	uint32_t cwnd, in_flight; /* packets */
	uint16_t payload;	  /* largest UDP payload that is sent; */
	uint16_t mss;		  /* bytes of stream in it; 0: not known yet */
	uint32_t send_ring, recv_ring, send_queued, recv_queued;
};

int tp_create(
	const struct tp_config *cfg, const struct tp_ops *ops, void *ctx, uint64_t now, struct tp **out);
/* Frees everything at once, without a word to the peers. */
void tp_destroy(struct tp *t);

/* --- packets and time ------------------------------------------------------------------------------ */

/* Takes one UDP payload. Any bytes are safe. pkt may be written to never, read until return. */
void tp_input(struct tp *t, uint64_t now, const uint8_t *pkt, size_t len, const struct tp_rx *rx);
/* Are there so many connections (tp_config.crowd) that it is worth to expect packets? */
bool tp_is_crowded(const struct tp *t);
/* This packet's turn will come. A hint, which fetches what it needs: to be given for each step from 0 on,
 * with other packets between them. Any bytes are safe. */
#define TP_WARM_STEPS 3
void tp_expect(const struct tp *t, const uint8_t *pkt, size_t len, unsigned step);
/* Of n engines that share an address: which one is to get this packet? Its number, or TP_FOR_ALL. What begins
 * a connection goes to any one, but to the same again when it is repeated. Any bytes are safe. */
#define TP_FOR_ALL -1
int tp_steer(const uint8_t *pkt, size_t len, unsigned n);
/* How much of the queue that packets wait in for tp_input() is in use, in 256ths: peers are told, and slow
 * down if it is more than half. It holds until it is said again. */
void tp_set_backlog(struct tp *t, unsigned part);
/* True if tp_output() would have something (an ACK that may still wait does not count). */
bool tp_output_pending(const struct tp *t);
/* Where the next packet will most likely go, so that the caller can have the right buffer ready; NULL:
 * nothing is pending. Valid until the next tp_* call. */
const struct tp_path *tp_output_next(const struct tp *t);
/* Builds the next due packet into buf (capacity cap >= the path's max_payload) and points *path at where to
 * send it (valid until the next tp_* call). Returns its length, or 0: nothing is due. */
size_t tp_output(struct tp *t, uint64_t now, uint8_t *buf, size_t cap, const struct tp_path **path);

/* A packet whose payload has not been copied: head bytes in the caller's buffer, then the pieces, then the
 * trailer. */
struct tp_parts {
	size_t head;
	unsigned n; /* pieces; 0: all of it is in the buffer */
	uint8_t trailer_len;
	uint8_t trailer[4];
	struct tp_piece {
		const uint8_t *at;
		uint32_t len;
	} piece[TP_MAX_PIECES];
	/* the transport's */
	struct tp_mr *mr[TP_MAX_PIECES]; /* NULL: no region's */
	struct tp_swqe *request;	 /* NULL: none of ours */
};
/* As tp_output(), but a payload of some length stays where it is, until the next tp_* call: so it can be
 * copied to its last place at once, or be sent from there (tp_hold). buf is of TP_MAX_HEAD bytes. Returns the
 * length of the whole packet. */
size_t tp_output_parts(
	struct tp *t, uint64_t now, uint8_t *buf, struct tp_parts *parts, const struct tp_path **path);
/* The pieces of the packet just built are sent without a copy: until tp_release() with what this returns the
 * requests that they belong to do not complete, nor does tp_mr_deregister(). 0: they have to be copied. */
uint64_t tp_hold(struct tp *t, const struct tp_parts *parts);
/* Nothing refers to the pieces of that packet any more. */
void tp_release(struct tp *t, uint64_t ticket);
/* When tp_timeout() wants to be called next; UINT64_MAX: never. */
uint64_t tp_next_timeout(const struct tp *t);
void tp_timeout(struct tp *t, uint64_t now);

/* --- setup ----------------------------------------------------------------------------------------- */

/* Asks the segment who has target (FIND); the answer comes through ops.found. The packet leaves by *path,
 * which may be a broadcast. One packet per call: retries and caching are the caller's. -ENOBUFS: too many
 * unsent. */
int tp_find(struct tp *t, const struct tp_path *path, const struct sd_addr *target);
/* Announces the addresses of path->local along path (often a broadcast), as after a change of MAC address;
 * peers get it through ops.found with port 0. -ENOBUFS. */
int tp_hello(struct tp *t, const struct tp_path *path);

/* Takes connections for local (IP may be any: then for every address the engine receives on). While backlog
 * (at least 1) wait to be accepted, no handshake begins; those under way may still complete. -EADDRINUSE,
 * -ENOMEM. */
int tp_listen(
	struct tp *t, const struct sd_addr *local, unsigned backlog, void *user, struct tp_listener **out);
void tp_listener_set_backlog(struct tp_listener *l, unsigned backlog);
/* Resets what was not accepted. */
void tp_listener_close(struct tp_listener *l);
/* The oldest acceptable connection, or NULL. From here on events go to user. */
struct tp_conn *tp_accept(struct tp_listener *l, void *user);
bool tp_acceptable(const struct tp_listener *l);
/* Refills the pools that incoming connections are made from and returns surplus memory, also that of idle
 * connections' rings. Call it now and then outside packet handling, and after a burst of arrivals; costs next
 * to nothing when there is nothing to do. */
void tp_refill(struct tp *t);

/* Starts a connection along path (whose local and peer carry the sockets' ports). Ends in TP_EV_OPEN or
 * TP_EV_FAILED: -ECONNREFUSED (tp_connect_code() has the peer's reason), -ETIMEDOUT, -ECONNRESET. Bytes may
 * be written before it is open. -ENOMEM, -ENOBUFS (max_conns). */
int tp_connect(struct tp *t, uint64_t now, const struct tp_path *path, void *user, struct tp_conn **out);
enum tp_code tp_connect_code(const struct tp_conn *c);
void tp_set_user(struct tp_conn *c, void *user);

/* --- data ------------------------------------------------------------------------------------------ */

/* Copies up to len bytes into the send ring (growing it when it is the limit) and marks the connection for
 * output. Returns the bytes taken; 0: the ring is full (TP_EV_WRITABLE will follow). After tp_shutdown:
 * -EPIPE; failed: tp_error(); no memory for any ring: -ENOMEM. */
ptrdiff_t tp_write(struct tp_conn *c, const void *data, size_t len);
/* The same for a writer that waits for room: the bytes taken stay where they are and are sent from there.
 * They may not change, or go, before tp_settle(), which copies into the ring what the peer does not have by
 * then, and which the next tp_lend() does if its bytes do not follow in memory and stream. */
ptrdiff_t tp_lend(struct tp_conn *c, const void *data, size_t len);
void tp_settle(struct tp_conn *c);
/* While on, packets smaller than the maximum are held back until more data, off, or 200 ms (MSG_MORE,
 * TCP_CORK). */
void tp_set_cork(struct tp_conn *c, uint64_t now, bool on);
/* Nagle's rule (RFC 896): while on, a small packet waits as long as anything is unacknowledged. Default off.
 */
void tp_set_nagle(struct tp_conn *c, bool on);
/* Copies out up to len bytes; 0 with tp_at_eof(): the peer's FIN; 0 otherwise: nothing there yet. Bytes that
 * arrived before a failure are still delivered, then tp_error(). peek leaves them and starts at skip. */
ptrdiff_t tp_read(struct tp_conn *c, void *data, size_t len);
ptrdiff_t tp_peek(const struct tp_conn *c, void *data, size_t len, size_t skip);
/* For a reader that has found nothing and waits: bytes that come go straight to data instead of through the
 * ring, and count as read. At most len; fewer if packets do not come in order, for then the ring has the next
 * ones. TP_EV_READABLE rises when low bytes have come, or when no more will. data is the transport's until
 * tp_land_end(). -EBUSY: there is something to read, another reader's landing, or no need to wait. */
int tp_land(struct tp_conn *c, void *data, size_t len, size_t low);
/* Returns how many bytes have come. */
size_t tp_land_end(struct tp_conn *c);
size_t tp_readable(const struct tp_conn *c); /* bytes */
size_t tp_writable(const struct tp_conn *c); /* bytes that tp_write would take now, growth included */
/* Is there room enough to tell a writer? TP_EV_WRITABLE rises when it becomes true. As with TCP a third of
 * the ring: programs trust that a write of moderate size does not block then. */
bool tp_is_writable(const struct tp_conn *c);
size_t tp_unacked(const struct tp_conn *c); /* bytes written but not acknowledged (SIOCOUTQ) */
size_t tp_unsent(const struct tp_conn *c);  /* bytes written but never sent (SIOCOUTQNSD) */
bool tp_at_eof(const struct tp_conn *c);    /* FIN received and everything before it read */
bool tp_peer_fin(const struct tp_conn *c);  /* FIN received in order, perhaps bytes unread */
bool tp_is_open(const struct tp_conn *c);
int tp_error(const struct tp_conn *c); /* 0, or the terminal -errno */

/* --- end ------------------------------------------------------------------------------------------- */

/* FIN after the last written byte. Idempotent. */
void tp_shutdown(struct tp_conn *c);
/* The application reads no more: later data is acknowledged and dropped if reset_on_data is false, else
 * answered with RESET (what TCP does after close). */
void tp_stop_reading(struct tp_conn *c, bool reset_on_data);
/* Gives the connection up: no more events. Graceful: written bytes and the FIN are still delivered in the
 * background, the memory goes when the peer has them or dead_timeout_ns is over. Unread received bytes turn
 * it into an abort, as in TCP (RFC 2525 section 2.17). Abort: RESET now. c is invalid afterwards. */
void tp_close(struct tp_conn *c, uint64_t now, bool abort);
/* Connections given up gracefully and not yet finished. */
unsigned tp_lingering(const struct tp *t);

/* --- handing over ----------------------------------------------------------------------------------- */

/* What a connection is called in what tp_save() writes: not 0, and no other's. */
static inline uint64_t tp_saved_name(const struct tp_conn *c)
{
	return (uintptr_t)c;
}
/* Writes all connections, with their bytes, and what peers know this transport by. It can go on afterwards:
 * unless somebody else does. Loans are settled; landings have to be over. */
void tp_save(struct tp *t, uint64_t now, struct sd_pack *p);
/* Tells versions apart whose fields differ. */
uint64_t tp_save_format(void);
/* Goes on with them. t is fresh, with the same max_conns, and has its listeners: what
 * has none any more is reset. owned() is called with each connection that an application had, whose user is
 * to be set. -EPROTONOSUPPORT: it was saved by
 * another version; -EPROTO: it makes no sense; -ENOMEM. On an error t is only good to be destroyed. */
int tp_restore(struct tp *t, uint64_t now, struct sd_unpack *u,
	void (*owned)(void *ctx, uint64_t name, struct tp_conn *c), void *ctx);

/* --- settings and views ---------------------------------------------------------------------------- */

/* Bounds of the rings in bytes (SO_SNDBUF, SO_RCVBUF); 0 leaves one as it is. Rounded up to a power of two.
 */
void tp_set_buffers(struct tp_conn *c, uint32_t send_max, uint32_t recv_max);
/* idle 0: off. */
void tp_set_keepalive(
	struct tp_conn *c, uint64_t now, uint64_t idle_ns, uint64_t interval_ns, unsigned probes);
/* TCP_USER_TIMEOUT; 0: the configuration's. */
void tp_set_user_timeout(struct tp_conn *c, uint64_t ns);
void tp_info(const struct tp_conn *c, struct tp_info *out);
const struct tp_stats *tp_stats(const struct tp *t);
/* Grows receive rings that have been the bottleneck (their reader keeps up but the window limits the sender).
 * Called by tp_read by itself; costs nothing when there is nothing to do. */
void tp_grow(struct tp_conn *c);

#endif

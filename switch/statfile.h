/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * statfile: the table of a process's connections that `sandirect stat` reads.
 *
 * One file per process, RUNTIME_DIR/stat/PID, written by the process through a shared mapping and read by
 * anyone who may open it. Records are published with a sequence count per record (odd: being written). A
 * reader checks every value: the writer is not trusted. The daemon's has no records: its ports are told, and
 * the connections are in the programs' tables. A file whose process is gone (pid and start time) is
 * stale and is removed by the reader.
 */
#ifndef SD_SWITCH_STATFILE_H
#define SD_SWITCH_STATFILE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/reason.h"

#define STATFILE_MAGIC	 0x53444354u /* "SDCT" */
#define STATFILE_VERSION 3
#define STATFILE_RECORDS 8192
#define STATFILE_PORTS	 8

struct statfile_record {
	_Atomic uint32_t seq; /* 0: free; odd: being written */
	int32_t fd;
	uint8_t path;	  /* 0: kernel TCP, 1: SAN */
	uint8_t role;	  /* 0: client, 1: server (accepted), 2: listener */
	uint16_t reason;  /* enum sd_reason */
	char provider[8]; /* "tcp", "ether", "loop" */
	char state[16];
	struct sd_addr local, peer;
	uint64_t bytes_out, bytes_in, packets_out, packets_in, retransmits;
	uint64_t srtt_ns, min_rtt_ns;
	uint32_t cwnd, in_flight;
	uint64_t send_queued, recv_queued;
	uint64_t opened_ns; /* CLOCK_REALTIME */
	uint32_t mss;	    /* bytes in a full packet */
	uint32_t spare32;
	uint64_t spare;
};

/* A port that the process has open. Counts are since then. */
struct statfile_port {
	char name[32], netdev[16], device[64], driver[32];
	uint8_t mac[6], link_up, spare8;
	uint16_t mtu, queues;
	int32_t numa_node; /* -1: unknown */
	uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
	uint64_t rx_missed, rx_errors, tx_full;
	uint64_t rx_handed; /* frames that had come to another engine's queue */
	uint64_t at_ns;	    /* when these were read (CLOCK_MONOTONIC) */
};

struct statfile_header {
	uint32_t magic, version;
	uint32_t header_size, record_size, records;
	int32_t pid;
	uint64_t start_time; /* field 22 of /proc/PID/stat: tells a reused pid */
	uint64_t netns;	     /* inode of /proc/PID/ns/net */
	char program[64];
	_Atomic uint64_t
		refresh_wanted; /* a reader increments; the process copies it to refreshed when done */
	_Atomic uint64_t refreshed;
	_Atomic uint64_t overflow;	/* connections that found no free record */
	_Atomic uint64_t by_reason[64]; /* connections so far, by reason */
	_Atomic uint64_t san_total, tcp_total;
	char engine[96]; /* "net_virtio_user0 up mtu 1500 hugepages", or why there is none */
	uint32_t n_ports, spare32;
	struct statfile_port ports[STATFILE_PORTS];
	uint64_t spare[8];
};

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * xdp: what a net_af_xdp port needs besides DPDK's driver: our program on the interface (steer.bpf.c),
 * nothing left of one that was killed, and manners for libbpf and libxdp, which the driver uses.
 */
#ifndef SD_DRIVERS_DPDK_XDP_H
#define SD_DRIVERS_DPDK_XDP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Where our program is; -ENOENT: it was not built. */
int xdp_program(char *out, size_t len);
/* Before the driver is attached to this interface, of whose port the caller is sure to be the only user:
 * takes away what one before it has left. 0; -EPERM: somebody else's program is there. */
int xdp_clear(const char *iface, char *err, size_t err_len);
/* What libbpf and libxdp make on this thread between these, descriptors and mappings, is this owner's. */
void xdp_begin(const void *owner);
void xdp_end(void);
/* Gives back what the driver has left of the owner's: it keeps the socket (22.11), so that nobody else could
 * have the interface's queue. */
void xdp_release(const void *owner);
/* The socket that was made since the last call, or -1. */
int xdp_socket(void);

/* In place of the C library's functions, in libbpf and libxdp. */
int xdp_polite_socket(int domain, int type, int protocol);
int xdp_polite_close(int fd);
void *xdp_polite_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
int xdp_polite_munmap(void *at, size_t len);
long xdp_polite_syscall(long number, long a, long b, long c, long d, long e, long f);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link: one TCP connection as the measuring programs use it. Nothing but the sockets API: the same binary
 * runs over the kernel and, preloaded, over the SAN. A failure ends the program with a message.
 */
#ifndef SD_BENCH_LINK_H
#define SD_BENCH_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum link_wait { LINK_BLOCK, LINK_SPIN, LINK_EPOLL };

struct link {
	int fd;
	enum link_wait wait;
	int epoll;   /* -1 unless LINK_EPOLL */
	int idle[2]; /* a pipe in the epoll set that never becomes ready, or -1 */
};

struct link_addr {
	struct sockaddr_storage addr;
	socklen_t len;
};

uint64_t link_now(void); /* CLOCK_MONOTONIC, ns */
void link_resolve(const char *ip, const char *port, struct link_addr *out);
int link_listen(const struct link_addr *a);
/* congestion: TCP_CONGESTION, or NULL. */
int link_connect(const struct link_addr *a, const char *congestion);
/* Takes fd over; kernel_fd: beside it, epoll watches a descriptor that only the kernel knows. */
void link_open(struct link *l, int fd, enum link_wait wait, bool kernel_fd);
void link_close(struct link *l);
/* Up to len bytes; 0: the peer has finished. */
size_t link_recv(struct link *l, void *buf, size_t len);
/* False: the peer has finished before the first byte. */
bool link_recv_all(struct link *l, void *buf, size_t len);
void link_send_all(struct link *l, const void *buf, size_t len);

/* Prints to standard error and exits with 1; with the text of errno when what ends in ':'. */
_Noreturn void link_die(const char *what);

#endif

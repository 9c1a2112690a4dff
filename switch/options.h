/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * options: socket options and descriptor flags. The kernel's socket keeps them all; what the SAN path carries
 * too is mirrored into sw_sock.options and to the endpoint. Everything that takes a sw_sock with the domain
 * entered.
 */
#ifndef SD_SWITCH_OPTIONS_H
#define SD_SWITCH_OPTIONS_H

#include "switch/sock.h"

#define SW_KERNELS 1 /* the kernel answers */

/* A value of the kernel's, of any descriptor and without the domain; -1: it has none. */
int sw_option_int(int fd, int level, int name);

/* Reads what was set on the kernel's socket before the switch looked: before a connect, and for a listener.
 * Sets kernel_bound if there is something that the SAN path does not carry. */
void sw_options_read(struct sw_sock *s);
/* An accepted socket takes over what its listener has, as in the kernel. */
void sw_options_inherit(const struct sw_sock *listener, struct sw_sock *s);
/* Sets all that is known on its kernel socket, which is fresh. */
void sw_options_to_kernel(struct sw_sock *s);
/* What a socket that has no kernel socket answers itself: 0, -EINVAL as the kernel would say, or SW_KERNELS:
 * it needs one for this. */
int sw_options_set(struct sw_sock *s, int level, int name, const void *value, socklen_t len);
int sw_options_get(struct sw_sock *s, int level, int name, int *value);
/* Gives s->options to its endpoint. */
void sw_options_apply(struct sw_sock *s);
/* The kernel's socket has a new value of this option: takes it over if the SAN path carries it. */
void sw_options_mirror(struct sw_sock *s, int level, int name);
/* Does this value ask for something that only the kernel's TCP does? Needs the configuration, not the domain.
 */
bool sw_options_bind_to_kernel(int level, int name, const void *value, socklen_t len);

#endif

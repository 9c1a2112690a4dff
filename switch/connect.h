/* SPDX-License-Identifier: BSD-3-Clause */
/* connect: see connect.c. */
#ifndef SD_SWITCH_CONNECT_H
#define SD_SWITCH_CONNECT_H

#include "switch/sock.h"

/* Decides what became of a connect under way. Domain entered; not from an upcall. */
void sw_connect_settle(struct sw_sock *s);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* kick: an always readable descriptor that calls threads out of the kernel's epoll_wait. */
#ifndef SD_SWITCH_KICK_H
#define SD_SWITCH_KICK_H

#include <stdbool.h>
#include <stdint.h>

/* Puts it into the kernel's set epfd; false: no descriptor was left. Domain entered. */
bool sw_kick_add(int epfd);
void sw_kick_remove(int epfd);
/* Does this data of an event stand for a kick? */
bool sw_kick_is(uint64_t data);

#endif

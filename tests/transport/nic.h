/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nic: how the simulator's hosts send. Some packets are built in parts, and some of those are sent from the
 * application's memory without a copy: then they are held for a while after they have left, and released in
 * another order. Whoever changes the bytes of a request meanwhile, or gives up the memory, is found out.
 */
#ifndef SD_TESTS_TRANSPORT_NIC_H
#define SD_TESTS_TRANSPORT_NIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_host;
struct tp_path;

/* As tp_output(), into a buffer of 64 KiB. */
size_t nic_output(struct sim_host *h, uint8_t *buf, const struct tp_path **path);
/* Releases what is due; all of it. */
void nic_release(struct sim_host *h);
void nic_release_all(struct sim_host *h);
/* When nic_release() has something to do next. */
uint64_t nic_next(const struct sim_host *h);
/* The host's struct tp is no more. */
void nic_forget(struct sim_host *h);
/* Is a byte of this memory held? */
bool nic_holds(const struct sim_host *h, const uint8_t *at, size_t len);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * events: what virtio drivers, net_memif and the PCI bus leave to EAL's interrupt thread, done by the thread
 * that has the port. On a thread of its own it races with the port's: net_memif unmaps rings while a burst is
 * in them and kills the process; net_virtio hangs up on a peer that has just connected. What they register
 * with EAL comes here instead (see manners.c).
 */
#ifndef SD_DRIVERS_DPDK_EVENTS_H
#define SD_DRIVERS_DPDK_EVENTS_H

#include <rte_alarm.h>
#include <rte_interrupts.h>

/* Handles what has happened; while a memif peer is being met, also waits a little for its next message. One
 * thread at a time, which may use all ports meanwhile. */
void events_run(void);

/* In place of EAL's functions. */
int events_register(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg);
/* For a channel on which the peer answers at once, as soon as it looks. */
int events_register_dialogue(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg);
int events_unregister(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg);
int events_unregister_pending(const struct rte_intr_handle *handle, rte_intr_callback_fn run, void *arg,
	rte_intr_unregister_callback_fn after);
/* Also unregisters. */
void events_instance_free(struct rte_intr_handle *handle);
/* Also closes, if it is still registered: so net_memif leaves the socket on which it listened. */
void events_listener_free(struct rte_intr_handle *handle);
/* Less than 1 ms is at once; longer ones ring when events_run is called next after it. */
int events_alarm_set(uint64_t us, rte_eal_alarm_callback run, void *arg);
int events_alarm_cancel(rte_eal_alarm_callback run, void *arg);

#endif

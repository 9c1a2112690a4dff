/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of `sandirect ports`. */
#ifndef SD_APPS_PORTS_H
#define SD_APPS_PORTS_H

#include "statread.h"

/* What a port has done in a second. */
struct ports_rate {
	double rx_frames, rx_bits, tx_frames, tx_bits;
};

/* From two looks at it. */
struct ports_rate ports_rate(const struct statfile_port *before, const struct statfile_port *after);
int ports_print_json(
	const struct stat_file *before, unsigned n_before, const struct stat_file *after, unsigned n);
/* The earlier look at a port, or NULL: it was not there. */
const struct statfile_port *ports_before(
	const struct stat_file *before, unsigned n, const struct stat_file *f, const struct statfile_port *p);
/* Gives a NIC to vfio-pci, and back to the kernel. The exit status. */
int ports_bind(const char *name);
int ports_unbind(const char *name);

#endif

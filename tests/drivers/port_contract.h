/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port_contract: what every port must do (drivers/port.h), tried through one port while a far end answers.
 */
#ifndef SD_TESTS_PORT_CONTRACT_H
#define SD_TESTS_PORT_CONTRACT_H

#include "drivers/port.h"

struct contract_link {
	/* Opens the port under test; a far end that runs probe_answer() is there or comes soon. 0 or -errno.
	 */
	int (*open)(struct contract_link *l, struct port **out);
	void (*close)(struct contract_link *l, struct port *p);
	uint16_t mtu;
	bool one_interface; /* both ends have the address of the same */
};

/* Runs the suite; returns how many cases failed. */
int port_contract_run(const char *name, struct contract_link *l);

#endif

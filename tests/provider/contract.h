/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * contract: what every provider does, as cases of one suite. The yardstick is the kernel's TCP: it passes all
 * of them, so nothing is asked that TCP does not do.
 */
#ifndef SD_TESTS_PROVIDER_CONTRACT_H
#define SD_TESTS_PROVIDER_CONTRACT_H

#include "provider/domain.h"

/* Two started providers that reach each other, or one twice; connections go from client to server. */
struct world {
	const char *name;
	int (*open)(struct world *w, pv_ready_fn *ready); /* adds the providers to domain */
	bool is_tcp;					  /* the kernel's: errors are told once only */
	bool in_process;				  /* nothing travels: no packets, no delay */
	bool keeps_backlog;				  /* refuses what the backlog cannot hold */
	bool lossy;
	unsigned families; /* bit n: IPvn */
	enum sd_reason no_listener;
	struct pv_domain *domain;
	struct pv *client, *server;
	struct sd_addr client_ip[7], server_ip[7]; /* by family */
};

/* Runs the suite; the exit status. */
int contract_run(struct world *w);

#endif

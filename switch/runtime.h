/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * runtime: the switch's state of this process: configuration, providers, domain, and how to get in and out.
 *
 * It comes to life with the first TCP socket of interest. A forked child starts with none and makes its own
 * when it needs one; if the parent had started the SAN engine, the child's has no providers (reason FORKED).
 */
#ifndef SD_SWITCH_RUNTIME_H
#define SD_SWITCH_RUNTIME_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "config/config.h"
#include "provider/domain.h"
#include "provider/provider.h"
#include "switch/cancel.h"
#include "switch/signals.h"

#define SW_MAX_PROVIDERS 2

struct sw_runtime {
	struct pv_domain *domain; /* NULL: not alive in this process (yet) */
	pid_t pid;		  /* whose memory this is: a vfork child's is another */
	enum sd_reason off;	  /* why nothing goes over the SAN; SD_REASON_SAN: it may */
	unsigned n_providers;
	struct pv *providers[SW_MAX_PROVIDERS]; /* in order of preference */
	struct pv *ether, *loop, *shm;		/* those of them that there are */
	struct cfg *cfg;
	bool start_tried; /* the engine was started, or died trying */
	bool started;
	bool exiting;
	bool confined;	      /* confine.c */
	unsigned n_san;	      /* connections on the SAN path: spinning may pay */
	unsigned n_listeners; /* sockets with listeners on the SAN */
	unsigned moves;	  /* how often a socket changed its state: waits look again at who answers for it */
	struct list work; /* sw_sock.work: connects whose outcome is to be looked at */
};
extern struct sw_runtime sw_rt;

/* The base name of the file that was executed, a script's own: what rules are matched with. */
const char *sw_program_name(void);
/* Brings the runtime to life. 0 or -errno; may be called again after a failure. Outside the domain. */
int sw_runtime_open(void);
/* Starts the SAN engine if there are listeners that need it; cheap when there is nothing to do. Domain
 * entered. */
void sw_runtime_start_listeners(void);
/* Starts provider p. Domain entered. SD_REASON_SAN/LOOP, or why not. */
enum sd_reason sw_runtime_start(struct pv *p);
/* Delivers what is left and closes the providers. At exit. */
void sw_runtime_close(void);
/* Logs as the configuration says. */
void sw_runtime_log(void);
/* In a forked child, before anything else. */
void sw_runtime_after_fork(void);
bool sw_enter_slow(void);

/* Does this code run in the process whose memory the tables are? False in a vfork child, which borrows them.
 */
bool sw_is_own_process(void);

/*
 * Takes the token; handlers of signals wait until sw_leave(). False: this thread is inside already (it runs a
 * callback, or a handler that could not be kept waiting), or there is no memory for a runtime.
 */
static inline bool sw_enter(void)
{
	if (__builtin_expect(!sw_rt.domain || !pv_domain_alive(sw_rt.domain) || sw_sigstate.inside, 0))
		return sw_enter_slow();
	sw_sigstate.inside++;
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(pv_enter(sw_rt.domain), 1)) {
		if (__builtin_expect(sw_cancel_count() != 0, 0))
			sw_cancel_hold();
		return true;
	}
	sw_sigstate.inside--;
	return false;
}

static inline void sw_leave(void)
{
	pv_leave(sw_rt.domain);
	atomic_signal_fence(memory_order_seq_cst);
	sw_sigstate.inside--;
	if (__builtin_expect(sw_cancelstate.held, 0))
		sw_cancel_release();
	sw_signals_check();
}

/* Is this thread the library's own, or inside it? Hooks then pass everything to the C library. */
static inline bool sw_is_internal(void)
{
	return __builtin_expect(sw_sigstate.inside != 0, 0);
}

/* Drives the providers and settles connects. Domain entered. */
unsigned sw_progress(void);

/* What a hook returns: -errno becomes errno and -1. */
static inline ssize_t sw_result(ssize_t r)
{
	if (__builtin_expect(r < 0, 0)) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

#define SW_EXPORT __attribute__((visibility("default")))

#endif

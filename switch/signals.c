/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * signals: interposed sigaction and its relatives, and the trampolines that keep handlers out of the engine.
 *
 * Which trampoline the kernel has for a signal says which slot holds the application's handler, and whether
 * it wanted SA_RESTART and SA_SIGINFO: so the kernel's own atomic exchange in sigaction switches the handler
 * together with its flags and mask, and a trampoline never sees half an update. A slot keeps its handler
 * until eight others have been installed for the signal. Slots are written under a lock, by threads that have
 * all signals blocked; trampolines read them without. Held signals are the thread's own; between the first
 * one and sw_signals_run_pending everything but faults is blocked, which bounds them.
 *
 * A held handler gets a ucontext of the place where it runs, not of the interrupted instruction; of changes
 * that it makes to it, that of the signal mask counts.
 */
#include "switch/signals.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "provider/domain.h"

#define EXPORT __attribute__((visibility("default")))

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

/* The kernel's signal set. The C library's is larger than what the kernel puts into a signal frame. */
typedef uint64_t mask_t;
#define MASK(sig) (1ull << ((sig)-1))
#define FAULTS	  (MASK(SIGSEGV) | MASK(SIGBUS) | MASK(SIGFPE) | MASK(SIGILL) | MASK(SIGTRAP) | MASK(SIGSYS))
/* What is blocked while a handler waits. The C library uses 32 and 33 for pthread_cancel and setuid, and
 * setuid waits for every thread. */
#define BLOCKABLE (~(FAULTS | MASK(SIGKILL) | MASK(SIGSTOP) | MASK(32) | MASK(33)))

/* A trampoline's number is a slot and two flags. */
enum { SLOTS = 8, SLOT = SLOTS - 1, RESTART = SLOTS, SIGINFO = 2 * SLOTS, TRAMPOLINES = 4 * SLOTS };
#define NO_TRAMPOLINE TRAMPOLINES

typedef void handler_fn(int sig, siginfo_t *info, void *context);
typedef int sigaction_fn(int sig, const struct sigaction *act, struct sigaction *old);

/* More than this at once go back to the kernel's queue. */
#define HELD_MAX 16

struct held {
	handler_fn *handler;
	siginfo_t info;
	mask_t run_mask;    /* while the handler runs */
	mask_t return_mask; /* afterwards */
	int sig;
	bool restart, on_stack;
};

__thread struct sw_sigstate sw_sigstate;
static __thread struct {
	unsigned first, end;
	struct held at[HELD_MAX];
} queue;

static _Atomic(handler_fn *) handlers[NSIG][SLOTS];
static unsigned char newest_slot[NSIG]; /* lock */
static sigset_t interrupting;		/* siginterrupt(3) for signal(3) */
static _Atomic pid_t owner;		/* the process whose memory this is; a vfork child is another */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* taken with signals blocked only */

static mask_t mask_change(int how, mask_t mask)
{
	mask_t old = 0;

	syscall(SYS_rt_sigprocmask, how, &mask, &old, sizeof mask);
	return old;
}

static mask_t context_mask(const ucontext_t *uc)
{
	mask_t mask;

	memcpy(&mask, &uc->uc_sigmask, sizeof mask);
	return mask;
}

static void context_set_mask(ucontext_t *uc, mask_t mask)
{
	memcpy(&uc->uc_sigmask, &mask, sizeof mask);
}

/* --- delivery --- */

static bool is_fault(int sig, const siginfo_t *info)
{
	return (MASK(sig) & FAULTS) && info->si_code > 0;
}

/*
 * The kernel stacks the frames of signals that it delivers together, and the last one runs first. Its frame
 * returns into the trampoline of the one below with everything blocked already, so that one's own mask is
 * what the former would have returned to. A signal that finds everything blocked is a fault signal sent by
 * kill(2): it follows the others.
 */
static void held_masks(struct held *h, ucontext_t *uc, mask_t blocked)
{
	const struct held *before = queue.end > queue.first ? &queue.at[queue.end - 1] : NULL;

	h->return_mask = context_mask(uc);
	if (!before) {
		h->run_mask = blocked;
	} else if ((h->return_mask & BLOCKABLE) != BLOCKABLE) {
		h->run_mask = before->return_mask;
	} else {
		h->return_mask = before->return_mask;
		h->run_mask = before->return_mask | MASK(h->sig);
	}
}

static void hold(int sig, siginfo_t *info, ucontext_t *uc, handler_fn *handler, bool restart)
{
	int saved_errno = errno;
	mask_t blocked = mask_change(SIG_BLOCK, BLOCKABLE);
	const char *here = __builtin_frame_address(0), *stack = uc->uc_stack.ss_sp;
	struct held *h;

	if (queue.end < HELD_MAX) {
		h = &queue.at[queue.end];
		*h = (struct held){.handler = handler, .info = *info, .sig = sig, .restart = restart};
		h->on_stack = uc->uc_stack.ss_size && here >= stack && here < stack + uc->uc_stack.ss_size;
		held_masks(h, uc, blocked);
		queue.end++;
	} else {
		h = &queue.at[HELD_MAX - 1];
		if ((context_mask(uc) & BLOCKABLE) != BLOCKABLE)
			h->return_mask = context_mask(uc);
		syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), sig, info);
	}
	context_set_mask(uc, context_mask(uc) | BLOCKABLE | MASK(sig));
	sw_sigstate.pending = true;
	pv_sleep_interrupt();
	errno = saved_errno;
}

static void count(bool restart)
{
	sw_sigstate.delivered++;
	if (!restart)
		sw_sigstate.delivered_norestart++;
}

static void dispatch(unsigned number, int sig, siginfo_t *info, void *context)
{
	handler_fn *handler = atomic_load_explicit(&handlers[sig][number & SLOT], memory_order_acquire);

	if (sw_sigstate.inside && !is_fault(sig, info)) {
		hold(sig, info, context, handler, number & RESTART);
		return;
	}
	count(number & RESTART);
	sw_sigstate.handling++;
	handler(sig, info, context);
	sw_sigstate.handling--;
}

#define TRAMPOLINE(n)                                                                                        \
	static void trampoline_##n(int sig, siginfo_t *info, void *context)                                  \
	{                                                                                                    \
		dispatch(0##n, sig, info, context);                                                          \
	}
#define NAME(n)	    trampoline_##n,
#define EIGHT(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
#define ALL(X)	    EIGHT(X, 0) EIGHT(X, 1) EIGHT(X, 2) EIGHT(X, 3)

ALL(TRAMPOLINE)
static handler_fn *const trampolines[TRAMPOLINES] = {ALL(NAME)};

/* --- what was held --- */

struct call {
	struct held held;
	ucontext_t context;
};

static void call_handler(struct call *c)
{
	c->held.handler(c->held.sig, &c->held.info, &c->context);
}

static void call_entry(unsigned high, unsigned low)
{
	call_handler((struct call *)((uintptr_t)high << 16 << 16 | low));
}

/* SA_ONSTACK. False: there is no other stack to go to. */
static bool call_on_alternate_stack(struct call *c)
{
	static const stack_t none = {.ss_flags = SS_DISABLE};
	uintptr_t p = (uintptr_t)c;
	ucontext_t there, back;
	stack_t ss;

	if (sigaltstack(NULL, &ss) || (ss.ss_flags & (SS_DISABLE | SS_ONSTACK)))
		return false;
	getcontext(&there);
	there.uc_stack = ss;
	there.uc_link = &back;
	makecontext(&there, (void (*)(void))call_entry, 2, (unsigned)(p >> 16 >> 16), (unsigned)p);
	if (ss.ss_flags & SS_AUTODISARM)
		sigaltstack(&none, NULL);
	swapcontext(&back, &there);
	if (ss.ss_flags & SS_AUTODISARM)
		sigaltstack(&ss, NULL);
	return true;
}

static void run_first(void)
{
	struct call c;
	/* A handler that runs between the others could use sockets and come here too. */
	mask_t mask = mask_change(SIG_BLOCK, BLOCKABLE);

	if (queue.first == queue.end) {
		mask_change(SIG_SETMASK, mask);
		return;
	}
	c.held = queue.at[queue.first++];
	if (queue.first == queue.end) {
		queue.first = queue.end = 0;
		sw_sigstate.pending = false;
	}
	mask_change(SIG_SETMASK, c.held.run_mask);
	count(c.held.restart);
	getcontext(&c.context);
	context_set_mask(&c.context, c.held.return_mask);
	if (!c.held.on_stack || !call_on_alternate_stack(&c))
		call_handler(&c);
	mask_change(SIG_SETMASK, context_mask(&c.context));
}

void sw_signals_run_pending(void)
{
	int saved_errno = errno;

	while (sw_sigstate.pending)
		run_first();
	errno = saved_errno;
}

/* --- installing --- */

static int next_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	static _Atomic(sigaction_fn *) next;
	sigaction_fn *f = atomic_load_explicit(&next, memory_order_relaxed);

	if (!f) {
		f = (sigaction_fn *)dlsym(RTLD_NEXT, "sigaction");
		atomic_store_explicit(&next, f, memory_order_relaxed);
	}
	return f(sig, act, old);
}

static unsigned trampoline_number(const struct sigaction *act)
{
	unsigned n = 0;

	while (n < TRAMPOLINES && act->sa_sigaction != trampolines[n])
		n++;
	return n;
}

/* From what the kernel has to what the application set. */
static void unwrap(int sig, struct sigaction *act)
{
	unsigned n = trampoline_number(act);

	if (n == NO_TRAMPOLINE)
		return;
	act->sa_sigaction = atomic_load_explicit(&handlers[sig][n & SLOT], memory_order_acquire);
	if (!(n & SIGINFO))
		act->sa_flags &= ~SA_SIGINFO;
}

/*
 * A vfork child shares the table with its parent but has dispositions of its own: what it installs goes to
 * the kernel as it is. So does what a child made by a bare clone(2) installs.
 */
static bool own_memory(void)
{
	pid_t pid = atomic_load_explicit(&owner, memory_order_relaxed);

	return !pid || pid == getpid();
}

/* Where the handler is or goes. Lock held. */
static unsigned slot_for(int sig, handler_fn *handler)
{
	unsigned n;

	for (n = 0; n < SLOTS; n++) {
		if (atomic_load_explicit(&handlers[sig][n], memory_order_relaxed) == handler)
			return n;
	}
	n = newest_slot[sig] = (newest_slot[sig] + 1) % SLOTS;
	atomic_store_explicit(&handlers[sig][n], handler, memory_order_release);
	return n;
}

static int install(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction wrapped = *act, was;
	mask_t mask = mask_change(SIG_BLOCK, BLOCKABLE);
	unsigned n;
	int r;

	pthread_mutex_lock(&lock);
	n = slot_for(sig, act->sa_sigaction);
	if (act->sa_flags & SA_RESTART)
		n |= RESTART;
	if (act->sa_flags & SA_SIGINFO)
		n |= SIGINFO;
	wrapped.sa_sigaction = trampolines[n];
	wrapped.sa_flags |= SA_SIGINFO;
	r = next_sigaction(sig, &wrapped, &was);
	if (!r)
		unwrap(sig, &was);
	pthread_mutex_unlock(&lock);
	mask_change(SIG_SETMASK, mask);
	if (!r && old)
		*old = was;
	return r;
}

EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	int r;

	if (act && sig > 0 && sig < NSIG && act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN &&
		trampoline_number(act) == NO_TRAMPOLINE && own_memory())
		return install(sig, act, old);
	r = next_sigaction(sig, act, old);
	if (!r && old)
		unwrap(sig, old);
	return r;
}

/* The C library's other ways to the same. They call its sigaction directly, so they have to be here. */
sighandler_t bsd_signal(int sig, sighandler_t handler);
int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);

EXPORT int __sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	return sigaction(sig, act, old);
}

static sighandler_t set_handler(int sig, sighandler_t handler, int flags, bool mask_self)
{
	struct sigaction act = {.sa_handler = handler, .sa_flags = flags}, old;

	if (handler == SIG_ERR || sig < 1 || sig >= NSIG) {
		errno = EINVAL;
		return SIG_ERR;
	}
	if (mask_self)
		sigaddset(&act.sa_mask, sig);
	return sigaction(sig, &act, &old) ? SIG_ERR : old.sa_handler;
}

EXPORT sighandler_t signal(int sig, sighandler_t handler)
{
	return set_handler(sig, handler, sigismember(&interrupting, sig) == 1 ? 0 : SA_RESTART, true);
}

EXPORT sighandler_t bsd_signal(int sig, sighandler_t handler)
{
	return signal(sig, handler);
}

EXPORT sighandler_t ssignal(int sig, sighandler_t handler)
{
	return signal(sig, handler);
}

EXPORT sighandler_t sysv_signal(int sig, sighandler_t handler)
{
	return set_handler(sig, handler, SA_RESETHAND | SA_NODEFER | SA_INTERRUPT, false);
}

EXPORT sighandler_t __sysv_signal(int sig, sighandler_t handler)
{
	return sysv_signal(sig, handler);
}

EXPORT int siginterrupt(int sig, int interrupt)
{
	struct sigaction act;

	if (sigaction(sig, NULL, &act))
		return -1;
	if (interrupt) {
		sigaddset(&interrupting, sig);
		act.sa_flags &= ~SA_RESTART;
	} else {
		sigdelset(&interrupting, sig);
		act.sa_flags |= SA_RESTART;
	}
	return sigaction(sig, &act, NULL);
}

EXPORT sighandler_t sigset(int sig, sighandler_t disposition)
{
	struct sigaction old;
	sigset_t set, was;

	sigemptyset(&set);
	if (sigaddset(&set, sig))
		return SIG_ERR;
	if (disposition == SIG_HOLD) {
		if (sigprocmask(SIG_BLOCK, &set, &was) || sigaction(sig, NULL, &old))
			return SIG_ERR;
	} else {
		struct sigaction act = {.sa_handler = disposition};

		if (disposition == SIG_ERR) {
			errno = EINVAL;
			return SIG_ERR;
		}
		if (sigaction(sig, &act, &old) || sigprocmask(SIG_UNBLOCK, &set, &was))
			return SIG_ERR;
	}
	return sigismember(&was, sig) ? SIG_HOLD : old.sa_handler;
}

/* --- start and fork --- */

static void child(void)
{
	atomic_store_explicit(&owner, getpid(), memory_order_relaxed);
	/* Another thread of the parent may have held it; an update that it had not finished is not visible.
	 */
	pthread_mutex_init(&lock, NULL);
}

__attribute__((constructor)) static void start(void)
{
	atomic_store_explicit(&owner, getpid(), memory_order_relaxed);
	pthread_atfork(NULL, NULL, child);
}

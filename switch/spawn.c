/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Children that are made to execute another program, without fork(2): they get the descriptors, too, and with
 * them connections whose ends two processes have from then on.
 */
#include <spawn.h>

#include "switch/inherit.h"
#include "switch/libc.h"

static void share(void)
{
	if ((!sw_rt.n_san && !sw_rt.n_listeners) || sw_is_internal() || !sw_is_own_process() || !sw_enter())
		return;
	sw_share_all();
	sw_leave();
}

typedef int spawn_fn(pid_t *restrict pid, const char *restrict path,
	const posix_spawn_file_actions_t *restrict actions, const posix_spawnattr_t *restrict attr,
	char *const argv[restrict], char *const envp[restrict]);

static int spawn(const char *how, pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
	const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	spawn_fn *next = (spawn_fn *)sw_libc_symbol(how);

	share();
	return next(pid, path, actions, attr, argv, envp);
}

SW_EXPORT int posix_spawn(pid_t *restrict pid, const char *restrict path,
	const posix_spawn_file_actions_t *restrict actions, const posix_spawnattr_t *restrict attr,
	char *const argv[restrict], char *const envp[restrict])
{
	return spawn("posix_spawn", pid, path, actions, attr, argv, envp);
}

SW_EXPORT int posix_spawnp(pid_t *restrict pid, const char *restrict path,
	const posix_spawn_file_actions_t *restrict actions, const posix_spawnattr_t *restrict attr,
	char *const argv[restrict], char *const envp[restrict])
{
	return spawn("posix_spawnp", pid, path, actions, attr, argv, envp);
}

/*
 * vfork(2) returns twice from one frame, so no frame of ours may be on the stack: the C library's is jumped
 * to with the caller's return address on top, as if it had been called.
 */
__attribute__((visibility("hidden"), used)) void *sw_before_vfork(void);
void *sw_before_vfork(void)
{
	static void *next;

	share();
	if (!next)
		next = sw_libc_symbol("vfork");
	return next;
}

__asm__(".pushsection .text\n"
	".globl vfork\n"
	".type vfork, @function\n"
	"vfork:\n"
	"	endbr64\n"
	"	sub $8, %rsp\n"
	"	call sw_before_vfork\n"
	"	add $8, %rsp\n"
	"	jmp *%rax\n"
	".size vfork, . - vfork\n"
	".popsection\n");

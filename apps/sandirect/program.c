/* SPDX-License-Identifier: BSD-3-Clause */
#include "program.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_SCRIPT_DEPTH 4
#define MAX_SEGMENTS	 128

/* execvp's search. */
static bool find_program(const char *name, char *out, size_t len)
{
	const char *path = getenv("PATH"), *dir;

	if (strchr(name, '/'))
		return (size_t)snprintf(out, len, "%s", name) < len && !access(out, X_OK);
	for (dir = path ? path : "/bin:/usr/bin"; dir;) {
		const char *end = strchrnul(dir, ':');
		int n = snprintf(out, len, "%.*s%s%s", (int)(end - dir), dir, end > dir ? "/" : "", name);

		if ((size_t)n < len && !access(out, X_OK))
			return true;
		dir = *end ? end + 1 : NULL;
	}
	return false;
}

/* The program interpreter is the dynamic loader; a file without one is static. */
static const char *elf_obstacle(int fd)
{
	Elf64_Ehdr e;
	Elf64_Phdr ph;
	char interp[256];

	if (pread(fd, &e, sizeof e, 0) != sizeof e || memcmp(e.e_ident, ELFMAG, SELFMAG))
		return NULL;
	if (e.e_ident[EI_CLASS] != ELFCLASS64)
		return "is a 32-bit program";
	for (unsigned i = 0; i < e.e_phnum && i < MAX_SEGMENTS; i++) {
		if (pread(fd, &ph, sizeof ph, (off_t)(e.e_phoff + i * sizeof ph)) != sizeof ph)
			return NULL;
		if (ph.p_type != PT_INTERP)
			continue;
		memset(interp, 0, sizeof interp);
		if (pread(fd, interp, sizeof interp - 1, (off_t)ph.p_offset) > 0 && strstr(interp, "ld-musl"))
			return "uses another C library than glibc";
		return NULL;
	}
	return "is linked statically";
}

static const char *rights_obstacle(int fd, const struct stat *st)
{
	if ((st->st_mode & S_ISUID && st->st_uid != geteuid()) ||
		(st->st_mode & S_ISGID && st->st_mode & S_IXGRP && st->st_gid != getegid()))
		return "is setuid or setgid";
	if (geteuid() && fgetxattr(fd, "security.capability", NULL, 0) > 0)
		return "has file capabilities";
	return NULL;
}

/* The interpreter that a #! line names; false: it is no script. */
static bool script_interpreter(int fd, char *out, size_t len)
{
	char line[256] = {0}, *s;

	if (pread(fd, line, sizeof line - 1, 0) < 3 || strncmp(line, "#!", 2))
		return false;
	s = line + 2 + strspn(line + 2, " \t");
	s[strcspn(s, " \t\n")] = '\0';
	return *s && (size_t)snprintf(out, len, "%s", s) < len;
}

const char *program_obstacle(const char *name)
{
	char path[PATH_MAX];
	const char *found = NULL;

	if (!find_program(name, path, sizeof path))
		return NULL;
	for (int depth = 0; depth < MAX_SCRIPT_DEPTH; depth++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		struct stat st;
		bool script;

		if (fd < 0)
			return NULL;
		if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
			close(fd);
			return NULL;
		}
		script = script_interpreter(fd, path, sizeof path);
		if (!script) {
			found = rights_obstacle(fd, &st);
			if (!found)
				found = elf_obstacle(fd);
		}
		close(fd);
		if (!script)
			break;
	}
	return found;
}

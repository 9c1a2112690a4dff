/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/dpdk/xdp.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "drivers/dpdk/manners.h"

#define PROGRAM	     "sandirect_xdp.o"
#define PROGRAM_NAME "sandirect_steer" /* the kernel keeps 15 characters */
#define BELONGINGS   128

/* A descriptor or, with a length, a mapping. */
struct belonging {
	const void *owner; /* NULL: unused */
	int fd;
	void *at;
	size_t len;
};

static __thread const void *attaching; /* whose are being made */
static struct belonging belongings[BELONGINGS];
static int socket_made = -1;

int xdp_program(char *out, size_t len)
{
	Dl_info self;
	char *slash;

	if (!dladdr((void *)xdp_program, &self) || strlen(self.dli_fname) + sizeof PROGRAM > len)
		return -ENOENT;
	strcpy(out, self.dli_fname);
	slash = strrchr(out, '/');
	strcpy(slash ? slash + 1 : out, PROGRAM);
	return access(out, R_OK) ? -ENOENT : 0;
}

/* --- what was left --- */

/* libbpf's, which has been loaded with the driver. Nothing else needs it. */
static int (*query_id)(int ifindex, int flags, uint32_t *id);
static int (*detach)(int ifindex, uint32_t flags, const void *options);
static void *(*set_print)(void *print);

static bool find_libbpf(void)
{
	void *lib = dlopen("libbpf.so.1", RTLD_LAZY | RTLD_NOLOAD);

	if (!lib)
		return false;
	query_id = (int (*)(int, int, uint32_t *))dlsym(lib, "bpf_xdp_query_id");
	detach = (int (*)(int, uint32_t, const void *))dlsym(lib, "bpf_xdp_detach");
	set_print = (void *(*)(void *))dlsym(lib, "libbpf_set_print");
	return query_id && detach && set_print;
}

static bool is_ours(uint32_t id)
{
	struct bpf_prog_info info = {0};
	union bpf_attr attr = {.prog_id = id};
	int fd = (int)syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &attr, sizeof attr);

	if (fd < 0)
		return false;
	attr = (union bpf_attr){
		.info = {.bpf_fd = (uint32_t)fd, .info_len = sizeof info, .info = (uintptr_t)&info}};
	if (syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof attr))
		info.name[0] = 0;
	syscall(SYS_close, fd);
	return !strncmp(info.name, PROGRAM_NAME, sizeof info.name - 1);
}

int xdp_clear(const char *iface, char *err, size_t err_len)
{
	int index = (int)if_nametoindex(iface);
	uint32_t id = 0;
	void *lib;

	if (!find_libbpf()) {
		snprintf(err, err_len, "net_af_xdp comes without libbpf.so.1; this DPDK is not supported");
		return -ENOTSUP;
	}
	/* They would write to standard error. */
	set_print(NULL);
	lib = dlopen("libxdp.so.1", RTLD_LAZY | RTLD_NOLOAD);
	set_print = lib ? (void *(*)(void *))dlsym(lib, "libxdp_set_print") : NULL;
	if (set_print)
		set_print(NULL);
	if (query_id(index, 0, &id) || !id)
		return 0;
	if (is_ours(id) && !detach(index, 0, NULL))
		return 0;
	snprintf(err, err_len,
		"%s has an XDP program of somebody else's: `ip link show %s` shows it, `ip link set %s xdp "
		"off` removes "
		"it",
		iface, iface, iface);
	return -EPERM;
}

/* --- manners --- */

void xdp_begin(const void *owner)
{
	attaching = owner;
}

void xdp_end(void)
{
	attaching = NULL;
}

void xdp_release(const void *owner)
{
	for (unsigned i = 0; i < BELONGINGS; i++) {
		struct belonging *b = &belongings[i];

		if (b->owner != owner)
			continue;
		b->owner = NULL;
		if (b->len)
			munmap(b->at, b->len);
		else
			manners_close(b->fd);
	}
}

int xdp_socket(void)
{
	int fd = socket_made;

	socket_made = -1;
	return fd;
}

static void keep(struct belonging new)
{
	for (unsigned i = 0; i < BELONGINGS; i++) {
		if (belongings[i].owner)
			continue;
		belongings[i] = new;
		return;
	}
}

static int adopt(int fd)
{
	struct belonging new = {.owner = attaching};

	if (fd < 0 || !attaching)
		return fd;
	new.fd = manners_adopt(fd);
	keep(new);
	return new.fd;
}

int xdp_polite_socket(int domain, int type, int protocol)
{
	int fd = adopt((int)syscall(SYS_socket, domain, type | SOCK_CLOEXEC, protocol));

	if (domain == AF_XDP && fd >= 0)
		socket_made = fd;
	return fd;
}

int xdp_polite_close(int fd)
{
	for (unsigned i = 0; i < BELONGINGS; i++) {
		struct belonging *b = &belongings[i];

		if (!b->owner || b->len || b->fd != fd)
			continue;
		b->owner = NULL;
		manners_close(fd);
		return 0;
	}
	return close(fd);
}

/* The socket's rings: a child that had them would keep the socket, and with it the interface's queue. */
void *xdp_polite_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
	void *p = mmap(at, len, protection, flags, fd, offset);

	if (attaching && p != MAP_FAILED) {
		madvise(p, len, MADV_DONTFORK);
		keep((struct belonging){.owner = attaching, .at = p, .len = len});
	}
	return p;
}

int xdp_polite_munmap(void *at, size_t len)
{
	for (unsigned i = 0; i < BELONGINGS; i++) {
		if (belongings[i].owner && belongings[i].len && belongings[i].at == at)
			belongings[i].owner = NULL;
	}
	return munmap(at, len);
}

/* bpf(2), which has no function of its own; most of its commands return a descriptor, or 0. */
long xdp_polite_syscall(long number, long a, long b, long c, long d, long e, long f)
{
	long r = syscall(number, a, b, c, d, e, f);

	return number == SYS_bpf && r > 0 ? adopt((int)r) : r;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory of a segment, and what its ends say to each other. The bytes are in segment_ring.c. */
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "provider/segment_private.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif

#define MAGIC	  0x6d67655374636944ull
#define VERSION	  2u
#define SEALS	  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define READ_ONLY (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

#define FLAGS		((unsigned)(SEGMENT_FIN | SEGMENT_NO_READ | SEGMENT_RESET | SEGMENT_CLOSED))
#define FLAGS_TO_WRITER ((unsigned)(SEGMENT_NO_READ | SEGMENT_RESET | SEGMENT_CLOSED))

/* The memory. */

size_t segment_memory(unsigned max_class)
{
	return SEGMENT_SMALL + 2 * large_size(max_class);
}

bool segment_remap(struct segment *s, size_t size)
{
	void *base = mremap(s->header, s->mapped, size, MREMAP_MAYMOVE);

	if (base == MAP_FAILED)
		return false;
	s->header = base;
	s->mapped = size;
	return true;
}

static int create_memfd(void)
{
	int fd = memfd_create("sandirect", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("sandirect", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

int segment_create(const struct sd_addr *a, const struct sd_addr *b, unsigned max_class, int *memfd)
{
	struct segment_header h = {
		.magic = MAGIC, .version = VERSION, .max_class = max_class, .name = {*a, *b}};
	size_t len = offsetof(struct segment_header, accepted);
	int fd, err;
	ssize_t n;

	if (max_class >= SEGMENT_CLASSES)
		return -EINVAL;
	fd = create_memfd();
	if (fd < 0)
		return fd;
	n = ftruncate(fd, (off_t)segment_memory(max_class)) ? -1 : pwrite(fd, &h, len, 0);
	if (n != (ssize_t)len || fcntl(fd, F_ADD_SEALS, SEALS)) {
		err = n < 0 || n == (ssize_t)len ? errno : ENOMEM;
		close(fd);
		return -err;
	}
	*memfd = fd;
	return 0;
}

/* Sealed and of a size that ours have: then no access to the mapping can fail later. */
static int check_file(int memfd, struct segment_header *h)
{
	size_t len = offsetof(struct segment_header, accepted);
	int seals = fcntl(memfd, F_GET_SEALS);
	struct stat st;

	if (seals < 0)
		return errno == EBADF ? -EBADF : -EPROTO;
	if ((seals & SEALS) != SEALS || seals & READ_ONLY)
		return -EPROTO;
	if (fstat(memfd, &st) || pread(memfd, h, len, 0) != (ssize_t)len)
		return -EPROTO;
	if (h->magic != MAGIC || h->version != VERSION || h->max_class >= SEGMENT_CLASSES)
		return -EPROTO;
	return st.st_size == (off_t)segment_memory(h->max_class) ? 0 : -EPROTO;
}

int segment_open(int memfd, unsigned end, struct segment *out)
{
	struct segment_header h;
	uint8_t *base;
	int err;

	memset(out, 0, sizeof *out);
	if (end > 1)
		return -EINVAL;
	err = check_file(memfd, &h);
	if (err)
		return err;
	base = mmap(NULL, SEGMENT_SMALL, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (base == MAP_FAILED)
		return errno == ENOMEM ? -ENOMEM : -EPROTO;
	*out = (struct segment){.header = (struct segment_header *)base,
		.end = end,
		.me = (uint32_t)getpid(),
		.max_class = h.max_class,
		.size = segment_memory(h.max_class),
		.mapped = SEGMENT_SMALL};
	return 0;
}

void segment_close(struct segment *s)
{
	if (s->header)
		munmap(s->header, s->mapped);
	memset(s, 0, sizeof *s);
}

/* An address out of the memory, as others expect one to be. */
static struct sd_addr tidy(const struct sd_addr *name)
{
	struct sd_addr a;

	memcpy(&a, name, sizeof a);
	__asm__ volatile("" : "+m"(a)); /* the copy is what is looked at, not the memory again */
	a.pad = 0;
	if (!sd_addr_ip_len(&a))
		return (struct sd_addr){0};
	memset(a.ip + sd_addr_ip_len(&a), 0, sizeof a.ip - sd_addr_ip_len(&a));
	return a;
}

void segment_names(const struct segment *s, struct sd_addr *local, struct sd_addr *peer)
{
	*local = tidy(&s->header->name[s->end]);
	*peer = tidy(&s->header->name[!s->end]);
}

/* Flags, waiting. */

void segment_say(struct segment *s, unsigned flags)
{
	atomic_fetch_or_explicit(&ours(s)->flags, flags & FLAGS, memory_order_release);
}

unsigned segment_said(const struct segment *s)
{
	return atomic_load_explicit(&ours(s)->flags, memory_order_relaxed) & FLAGS;
}

unsigned segment_heard(const struct segment *s)
{
	return atomic_load_explicit(&theirs(s)->flags, memory_order_acquire) & FLAGS;
}

bool segment_accept(struct segment *s)
{
	return !atomic_exchange_explicit(&s->header->accepted, 1, memory_order_acq_rel);
}

bool segment_is_accepted(const struct segment *s)
{
	return atomic_load_explicit(&s->header->accepted, memory_order_acquire);
}

void segment_arm(struct segment *s, unsigned want)
{
	/* Others may be asleep at this end already. */
	if (is_shared(s))
		atomic_fetch_or_explicit(&ours(s)->armed, want, memory_order_relaxed);
	else
		atomic_store_explicit(&ours(s)->armed, want, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

void segment_disarm(struct segment *s)
{
	/* Shared: the wants may be another process's. At worst it is rung for nothing. */
	if (!is_shared(s) && atomic_load_explicit(&ours(s)->armed, memory_order_relaxed))
		atomic_store_explicit(&ours(s)->armed, 0, memory_order_relaxed);
}

/* Which of these wants of the other end have come true? All, once this end has failed: it is told so. */
static unsigned come_true(struct segment *s, unsigned want)
{
	unsigned said = segment_said(s), come = 0;

	if (said)
		come |= SEGMENT_WANT_DATA;
	if (said & FLAGS_TO_WRITER)
		come |= SEGMENT_WANT_ROOM;
	if (want & ~come & SEGMENT_WANT_DATA && segment_unread(s))
		come |= SEGMENT_WANT_DATA;
	if (want & ~come & SEGMENT_WANT_ROOM && segment_is_peer_roomy(s))
		come |= SEGMENT_WANT_ROOM;
	return want & come;
}

_Atomic uint32_t *segment_word(struct segment *s)
{
	return &ours(s)->armed;
}

static void wake(struct segment *s)
{
	syscall(SYS_futex, &theirs(s)->armed, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool segment_must_ring(struct segment *s)
{
	unsigned want, come, was;

	atomic_thread_fence(memory_order_seq_cst);
	want = atomic_load_explicit(&theirs(s)->armed, memory_order_relaxed);
	if (__builtin_expect(!want, 1))
		return false;
	come = come_true(s, want);
	if (!come)
		return false;
	was = atomic_fetch_and_explicit(&theirs(s)->armed, ~come, memory_order_relaxed);
	if (!(was & come))
		return false;
	if (was & SEGMENT_BY_FUTEX)
		wake(s);
	return !(was & SEGMENT_BY_FUTEX);
}

void segment_share(struct segment *s)
{
	s->shared = true;
	atomic_store_explicit(&ours(s)->shared, 1, memory_order_release);
	/* The word is several processes' now; who sleeps on it looks up by itself before long. */
	atomic_fetch_and_explicit(&ours(s)->armed, ~(uint32_t)SEGMENT_BY_FUTEX, memory_order_relaxed);
}

bool segment_is_shared(const struct segment *s)
{
	return is_shared(s);
}

void segment_forked(struct segment *s)
{
	s->shared = true;
	s->me = (uint32_t)getpid();
}

/* Notes. */

void segment_note_put(struct segment *s, const void *note, size_t len)
{
	uint8_t padded[SEGMENT_NOTE_SIZE] = {0};
	int key = enter(s);

	if (key < 0)
		return;
	memcpy(padded, note, min(len, sizeof padded));
	memcpy(ours(s)->note, padded, sizeof padded);
	leave(s, key);
}

void segment_note_get(const struct segment *s, void *note, size_t len)
{
	int key = is_shared(s) ? segment_lock(s) : 0;

	memset(note, 0, len);
	memcpy(note, ours(s)->note, min(len, SEGMENT_NOTE_SIZE));
	if (key > 0)
		segment_unlock(s, (uint32_t)key);
}

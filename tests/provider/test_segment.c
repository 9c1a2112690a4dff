/* SPDX-License-Identifier: BSD-3-Clause */
/* A stream in shared memory: what is written arrives, whoever sleeps is rung, and no lie does harm. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "provider/segment.h"

#define MAX	      (SEGMENT_CLASSES - 1)
#define CLASS_SIZE(c) ((size_t)SEGMENT_CLASS_MIN << (c))

static const struct sd_addr name_a = {.family = 4, .port = 40000, .ip = {10, 77, 0, 1}};
static const struct sd_addr name_b = {.family = 6, .port = 80, .scope = 3, .ip = {0xfe, 0x80, [15] = 2}};

/* Both ends in one process; the one with number 0 writes in most tests. */
static struct segment end[2];
static int memfd = -1;

static void make(unsigned max_class)
{
	assert_int_equal(segment_create(&name_a, &name_b, max_class, &memfd), 0);
	assert_int_equal(segment_open(memfd, 0, &end[0]), 0);
	assert_int_equal(segment_open(memfd, 1, &end[1]), 0);
}

static int setup(void **state)
{
	memfd = -1;
	return 0;
}

static int teardown(void **state)
{
	segment_close(&end[0]);
	segment_close(&end[1]);
	if (memfd >= 0)
		close(memfd);
	return 0;
}

/* The byte that belongs at an offset of a stream. */
static uint8_t pattern(uint64_t offset)
{
	return (uint8_t)((offset * 0x9e3779b97f4a7c15ull) >> 56);
}

static uint8_t buffer[2][4 << 20];

static ssize_t put(struct segment *s, size_t len)
{
	uint64_t offset = segment_written(s);

	for (size_t i = 0; i < len; i++)
		buffer[s->end][i] = pattern(offset + i);
	return segment_write(s, &(struct iovec){buffer[s->end], len}, 1);
}

static bool is_pattern(const uint8_t *p, size_t len, uint64_t offset)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] != pattern(offset + i))
			return false;
	}
	return true;
}

static ssize_t get(struct segment *s, size_t len)
{
	uint64_t offset = segment_consumed(s);
	ssize_t n = segment_read(s, &(struct iovec){buffer[s->end], len}, 1, false);

	if (n > 0 && !is_pattern(buffer[s->end], (size_t)n, offset))
		return -EBADMSG;
	return n;
}

/* Names, flags, notes. */

static void names_are_seen_from_each_end(void **state)
{
	struct sd_addr local, peer;

	make(0);
	segment_names(&end[0], &local, &peer);
	assert_memory_equal(&local, &name_a, sizeof local);
	assert_memory_equal(&peer, &name_b, sizeof peer);
	segment_names(&end[1], &local, &peer);
	assert_memory_equal(&local, &name_b, sizeof local);
	assert_memory_equal(&peer, &name_a, sizeof peer);
}

static void flags_add_up(void **state)
{
	make(0);
	assert_int_equal(segment_heard(&end[1]), 0);
	segment_say(&end[0], SEGMENT_FIN);
	segment_say(&end[0], SEGMENT_CLOSED);
	segment_say(&end[1], SEGMENT_NO_READ);
	assert_int_equal(segment_said(&end[0]), SEGMENT_FIN | SEGMENT_CLOSED);
	assert_int_equal(segment_heard(&end[1]), SEGMENT_FIN | SEGMENT_CLOSED);
	assert_int_equal(segment_heard(&end[0]), SEGMENT_NO_READ);
}

static void a_fin_comes_after_the_bytes(void **state)
{
	make(0);
	assert_int_equal(put(&end[0], 10), 10);
	segment_say(&end[0], SEGMENT_FIN);
	assert_int_equal(segment_heard(&end[1]), SEGMENT_FIN);
	assert_int_equal(segment_readable(&end[1]), 10);
	assert_int_equal(get(&end[1], 100), 10);
	assert_int_equal(get(&end[1], 100), 0);
}

static void notes_stay_with_their_end(void **state)
{
	static const char zero[SEGMENT_NOTE_SIZE];
	char full[SEGMENT_NOTE_SIZE], got[SEGMENT_NOTE_SIZE + 8];

	make(0);
	segment_note_get(&end[0], got, SEGMENT_NOTE_SIZE);
	assert_memory_equal(got, zero, SEGMENT_NOTE_SIZE);
	memset(full, 'x', sizeof full);
	segment_note_put(&end[0], full, sizeof full);
	segment_note_get(&end[1], got, SEGMENT_NOTE_SIZE);
	assert_memory_equal(got, zero, SEGMENT_NOTE_SIZE);
	memset(got, 'y', sizeof got);
	segment_note_get(&end[0], got, sizeof got);
	assert_memory_equal(got, full, sizeof full);
	assert_memory_equal(got + sizeof full, zero, 8);
	segment_note_put(&end[0], "ab", 2);
	segment_note_get(&end[0], got, SEGMENT_NOTE_SIZE);
	assert_memory_equal(got, "ab", 2);
	assert_memory_equal(got + 2, zero, SEGMENT_NOTE_SIZE - 2);
	assert_int_equal(segment_readable(&end[1]), 0);
}

static pthread_barrier_t barrier;

static void *accept_it(void *arg)
{
	pthread_barrier_wait(&barrier);
	return (void *)(uintptr_t)segment_accept(arg);
}

static void one_accepts(void **state)
{
	pthread_t other;
	uintptr_t mine, theirs;

	pthread_barrier_init(&barrier, NULL, 2);
	for (unsigned i = 0; i < 300; i++) {
		make(0);
		assert_false(segment_is_accepted(&end[0]));
		pthread_create(&other, NULL, accept_it, &end[1]);
		mine = (uintptr_t)accept_it(&end[1]);
		pthread_join(other, (void **)&theirs);
		assert_int_equal(mine + theirs, 1);
		assert_true(segment_is_accepted(&end[0]));
		teardown(NULL);
	}
	pthread_barrier_destroy(&barrier);
	memfd = -1;
}

/* Bytes. */

static void bytes_arrive_in_both_directions(void **state)
{
	make(MAX);
	assert_int_equal(get(&end[1], 100), 0);
	assert_int_equal(put(&end[0], 64), 64);
	assert_int_equal(put(&end[1], 1000), 1000);
	assert_int_equal(segment_unread(&end[0]), 64);
	assert_int_equal(segment_readable(&end[1]), 64);
	assert_int_equal(segment_readable(&end[0]), 1000);
	assert_int_equal(get(&end[1], 100), 64);
	assert_int_equal(get(&end[0], 400), 400);
	assert_int_equal(get(&end[0], 4000), 600);
	assert_int_equal(segment_unread(&end[0]), 0);
	assert_int_equal(segment_written(&end[1]), 1000);
	assert_int_equal(segment_consumed(&end[0]), 1000);
}

static void a_peek_leaves_the_bytes(void **state)
{
	uint8_t first[40], second[60];
	const struct iovec iov[] = {{first, sizeof first}, {NULL, 0}, {second, sizeof second}};

	make(0);
	put(&end[0], 80);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(segment_read(&end[1], iov, 3, i == 0), 80);
		assert_true(is_pattern(first, 40, 0) && is_pattern(second, 40, 40));
	}
	assert_int_equal(segment_readable(&end[1]), 0);
	assert_int_equal(segment_read(&end[1], NULL, 0, false), 0);
	assert_int_equal(segment_write(&end[0], NULL, 0), 0);
}

static void an_absurd_length_is_a_full_ring(void **state)
{
	/* By lengths alone; the bytes exist as far as the ring has room. */
	const struct iovec iov[] = {{buffer[0], CLASS_SIZE(0)}, {buffer[0], SIZE_MAX}, {buffer[0], SIZE_MAX}};

	make(0);
	assert_int_equal(segment_write(&end[0], iov, 3), CLASS_SIZE(0));
}

/* A ring of each class, gone round several times with pieces of all sizes. */
static void every_class_wraps(void **state)
{
	uint64_t seed = (uint64_t)time(NULL);
	struct sd_rng rng;
	ssize_t writable, n;
	size_t len;

	print_message("seed %llu\n", (unsigned long long)seed);
	sd_rng_seed(&rng, seed);
	for (unsigned class = 0; class <= MAX; class ++) {
		size_t size = CLASS_SIZE(class);

		make(class);
		while (segment_consumed(&end[1]) < 5 * size) {
			len = sd_rng_below(&rng, 2) ? sd_rng_below(&rng, size) : sd_rng_below(&rng, 200);
			writable = segment_writable(&end[0]);
			n = put(&end[0], len);
			assert_int_equal(n, writable < len ? writable : len);
			assert_int_equal(segment_unread(&end[0]), segment_readable(&end[1]));
			len = sd_rng_below(&rng, 2) ? sd_rng_below(&rng, size) : sd_rng_below(&rng, 200);
			writable = segment_readable(&end[1]);
			assert_int_equal(get(&end[1], len), writable < len ? writable : len);
		}
		teardown(NULL);
	}
	memfd = -1;
}

/* Growth. */

static void a_full_ring_grows(void **state)
{
	make(MAX);
	assert_int_equal(segment_writable(&end[0]), CLASS_SIZE(0) + CLASS_SIZE(6));
	assert_int_equal(put(&end[0], CLASS_SIZE(0)), CLASS_SIZE(0));
	/* Nothing was read; a second class is there at once, a third not before the first was passed. */
	assert_int_equal(put(&end[0], 1 << 20), CLASS_SIZE(6));
	assert_int_equal(segment_writable(&end[0]), 0);
	assert_int_equal(put(&end[0], 1), 0);
	assert_int_equal(get(&end[1], CLASS_SIZE(0) - 1), CLASS_SIZE(0) - 1);
	assert_int_equal(put(&end[0], 1), 0);
	assert_int_equal(get(&end[1], 1), 1);
	assert_int_equal(segment_writable(&end[0]), CLASS_SIZE(8));
	assert_int_equal(put(&end[0], 2 << 20), CLASS_SIZE(8));
	assert_int_equal(get(&end[1], CLASS_SIZE(6)), CLASS_SIZE(6));
	assert_int_equal(segment_writable(&end[0]), 0);
	assert_int_equal(get(&end[1], 4 << 20), CLASS_SIZE(8));
	assert_int_equal(segment_writable(&end[0]), CLASS_SIZE(MAX));
}

/* From whatever offset, whatever is unread; a read crosses from the old class into the new one. */
static void growth_happens_anywhere(void **state)
{
	uint64_t seed = (uint64_t)time(NULL);
	struct sd_rng rng;

	print_message("seed %llu\n", (unsigned long long)seed);
	sd_rng_seed(&rng, seed);
	for (unsigned round = 0; round < 20; round++) {
		make(round % SEGMENT_CLASSES);
		for (unsigned i = 0; i < 40; i++) {
			ssize_t writable, readable;

			if (sd_rng_below(&rng, 8) == 0)
				segment_trim(&end[0]);
			writable = segment_writable(&end[0]);
			assert_int_equal(put(&end[0], sizeof buffer[0]), writable);
			readable = segment_readable(&end[1]);
			if (sd_rng_below(&rng, 3))
				readable = (ssize_t)sd_rng_below(&rng, (uint64_t)readable + 1);
			assert_int_equal(get(&end[1], (size_t)readable), readable);
		}
		teardown(NULL);
	}
	memfd = -1;
}

static void a_class_between_is_the_last(void **state)
{
	make(1);
	assert_int_equal(put(&end[0], 1 << 20), CLASS_SIZE(0) + CLASS_SIZE(1));
	assert_int_equal(get(&end[1], 1 << 20), CLASS_SIZE(0) + CLASS_SIZE(1));
	assert_int_equal(put(&end[0], 1 << 20), CLASS_SIZE(1));
}

/* Spans. */

static void spans_carry_a_stream(void **state)
{
	uint64_t seed = (uint64_t)time(NULL), out = 0, in = 0;
	const uint8_t *from;
	struct sd_rng rng;
	uint8_t *to;
	ssize_t n;

	print_message("seed %llu\n", (unsigned long long)seed);
	sd_rng_seed(&rng, seed);
	make(4);
	assert_int_equal(segment_peek_span(&end[1], &from), 0);
	while (in < 10 * CLASS_SIZE(4)) {
		n = segment_room_span(&end[0], &to);
		assert_in_range(n, 0, CLASS_SIZE(4));
		n = n ? (ssize_t)sd_rng_below(&rng, (uint64_t)n + 1) : 0;
		for (ssize_t i = 0; i < n; i++)
			to[i] = pattern(out + (uint64_t)i);
		assert_int_equal(segment_produce(&end[0], (size_t)n), 0);
		out += (uint64_t)n;
		n = segment_peek_span(&end[1], &from);
		assert_int_equal(n > 0, out > in);
		n = (ssize_t)sd_rng_below(&rng, (uint64_t)n + 1);
		assert_true(is_pattern(from, (size_t)n, in));
		assert_int_equal(segment_consume(&end[1], (size_t)n), 0);
		in += (uint64_t)n;
	}
	assert_int_equal(segment_written(&end[0]), out);
	assert_int_equal(segment_consumed(&end[1]), in);
}

static void spans_grow_a_full_ring(void **state)
{
	uint8_t *to;

	make(2);
	put(&end[0], CLASS_SIZE(0));
	assert_int_equal(segment_room_span(&end[0], &to), CLASS_SIZE(2) - CLASS_SIZE(0));
	assert_int_equal(segment_produce(&end[0], 0), 0);
	assert_int_equal(segment_writable(&end[0]), CLASS_SIZE(2));
	assert_int_equal(get(&end[1], 1 << 20), CLASS_SIZE(0));
	assert_int_equal(segment_produce(&end[0], CLASS_SIZE(2)), 0);
	assert_int_equal(segment_room_span(&end[0], &to), 0);
}

static void too_much_is_refused(void **state)
{
	make(0);
	put(&end[0], 100);
	assert_int_equal(segment_consume(&end[1], 101), -EINVAL);
	assert_int_equal(segment_produce(&end[0], CLASS_SIZE(0) - 99), -EINVAL);
	assert_int_equal(segment_produce(&end[0], SIZE_MAX), -EINVAL);
	assert_int_equal(segment_consume(&end[1], SIZE_MAX), -EINVAL);
	assert_int_equal(segment_unread(&end[0]), 100);
	assert_false(end[0].failed || end[1].failed);
}

/* Waiting. */

static void data_is_worth_a_ring(void **state)
{
	make(0);
	put(&end[0], 1);
	assert_false(segment_must_ring(&end[0]));
	get(&end[1], 1);
	segment_arm(&end[1], SEGMENT_WANT_DATA);
	assert_false(segment_must_ring(&end[0]));
	put(&end[0], 1);
	assert_true(segment_must_ring(&end[0]));
	assert_false(segment_must_ring(&end[0]));
	get(&end[1], 1);
	segment_arm(&end[1], SEGMENT_WANT_DATA);
	segment_disarm(&end[1]);
	put(&end[0], 1);
	assert_false(segment_must_ring(&end[0]));
}

static void a_flag_is_worth_a_ring(void **state)
{
	make(0);
	segment_arm(&end[1], SEGMENT_WANT_DATA);
	segment_say(&end[0], SEGMENT_FIN);
	assert_true(segment_must_ring(&end[0]));
	/* A writer has no use for a FIN, but for the end of its reader. */
	segment_arm(&end[1], SEGMENT_WANT_ROOM);
	put(&end[1], CLASS_SIZE(0));
	assert_false(segment_must_ring(&end[0]));
	segment_say(&end[0], SEGMENT_RESET);
	assert_true(segment_must_ring(&end[0]));
}

static void room_is_worth_a_ring_when_there_is_much(void **state)
{
	make(0);
	assert_true(segment_is_roomy(&end[0]));
	put(&end[0], CLASS_SIZE(0));
	assert_false(segment_is_roomy(&end[0]));
	segment_arm(&end[0], SEGMENT_WANT_ROOM | SEGMENT_WANT_DATA);
	get(&end[1], CLASS_SIZE(0) / 3);
	assert_false(segment_must_ring(&end[1]));
	get(&end[1], 1);
	assert_true(segment_is_roomy(&end[0]));
	assert_true(segment_must_ring(&end[1]));
	assert_false(segment_must_ring(&end[1]));
	/* The other want is still there. */
	put(&end[1], 1);
	assert_true(segment_must_ring(&end[1]));
}

static void growth_is_worth_a_ring(void **state)
{
	make(MAX);
	put(&end[0], 1 << 20);
	assert_false(segment_is_roomy(&end[0]));
	segment_arm(&end[0], SEGMENT_WANT_ROOM);
	get(&end[1], CLASS_SIZE(0) - 1);
	assert_false(segment_must_ring(&end[1]));
	get(&end[1], 1);
	assert_true(segment_is_roomy(&end[0]));
	assert_true(segment_must_ring(&end[1]));
}

static void a_shared_end_keeps_its_wants(void **state)
{
	make(0);
	segment_share(&end[1]);
	segment_arm(&end[1], SEGMENT_WANT_DATA);
	segment_arm(&end[1], SEGMENT_WANT_ROOM);
	segment_disarm(&end[1]);
	put(&end[0], 1);
	assert_true(segment_must_ring(&end[0]));
}

static void *sleep_on_the_word(void *arg)
{
	struct segment *s = arg;
	const uint32_t value = SEGMENT_WANT_DATA | SEGMENT_BY_FUTEX;
	uint64_t until = sd_clock_ns() + 5 * SD_S;

	while (!segment_readable(s) && sd_clock_ns() < until)
		syscall(SYS_futex, segment_word(s), FUTEX_WAIT, value, &(struct timespec){.tv_sec = 5}, NULL,
			0);
	return (void *)(uintptr_t)segment_readable(s);
}

static void a_futex_needs_no_ring(void **state)
{
	pthread_t thread;
	void *seen;

	make(0);
	segment_arm(&end[1], SEGMENT_WANT_DATA | SEGMENT_BY_FUTEX);
	assert_int_equal(pthread_create(&thread, NULL, sleep_on_the_word, &end[1]), 0);
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	put(&end[0], 7);
	assert_false(segment_must_ring(&end[0]));
	pthread_join(thread, &seen);
	assert_int_equal((uintptr_t)seen, 7);
}

/* Whoever gets the end next has no use for a word. */
static void sharing_ends_the_use_of_the_word(void **state)
{
	make(0);
	segment_arm(&end[1], SEGMENT_WANT_DATA | SEGMENT_BY_FUTEX);
	segment_share(&end[1]);
	put(&end[0], 1);
	assert_true(segment_must_ring(&end[0]));
}

struct sleeper {
	struct segment *s;
	int bell, other_bell;
	size_t piece;	/* at most, at a time */
	uint64_t total; /* bytes to write */
	uint64_t seed, naps;
	const char *complaint;
};

/* A bell that does not ring for so long is a lost wake-up. */
#define PATIENCE_MS 8000

static bool sleep_until_rung(struct sleeper *t)
{
	struct pollfd p = {.fd = t->bell, .events = POLLIN};
	eventfd_t count;

	t->naps++;
	if (poll(&p, 1, PATIENCE_MS) != 1) {
		t->complaint = "nobody rang";
		return false;
	}
	return !eventfd_read(t->bell, &count);
}

static void ring_if_asked(struct sleeper *t)
{
	if (segment_must_ring(t->s))
		eventfd_write(t->other_bell, 1);
}

static void *write_all(void *arg)
{
	struct sleeper *t = arg;
	struct sd_rng rng;
	ssize_t n;

	sd_rng_seed(&rng, t->seed);
	while (!t->complaint && segment_written(t->s) < t->total) {
		uint64_t left = t->total - segment_written(t->s), len = 1 + sd_rng_below(&rng, t->piece);

		n = put(t->s, len < left ? len : left);
		ring_if_asked(t);
		if (n > 0)
			continue;
		if (n < 0) {
			t->complaint = "a write failed";
			break;
		}
		segment_arm(t->s, SEGMENT_WANT_ROOM);
		if (!segment_writable(t->s) && !sleep_until_rung(t))
			break;
		segment_disarm(t->s);
	}
	segment_say(t->s, SEGMENT_FIN);
	ring_if_asked(t);
	return NULL;
}

static void *read_all(void *arg)
{
	struct sleeper *t = arg;
	struct sd_rng rng;
	unsigned heard;
	ssize_t n;

	sd_rng_seed(&rng, t->seed + 1);
	while (!t->complaint) {
		heard = segment_heard(t->s);
		n = get(t->s, 1 + sd_rng_below(&rng, t->piece));
		ring_if_asked(t);
		if (n > 0)
			continue;
		if (n < 0)
			t->complaint = n == -EBADMSG ? "a wrong byte" : "a read failed";
		if (n < 0 || heard & SEGMENT_FIN)
			break;
		segment_arm(t->s, SEGMENT_WANT_DATA);
		if (!segment_readable(t->s) && !segment_heard(t->s) && !sleep_until_rung(t))
			break;
		segment_disarm(t->s);
	}
	return NULL;
}

/* Both threads sleep whenever they can do nothing. */
static void transfer(unsigned max_class, size_t piece, uint64_t total)
{
	int bell[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
	uint64_t seed = (uint64_t)time(NULL);
	struct sleeper t[2];
	pthread_t reader;

	make(max_class);
	for (unsigned i = 0; i < 2; i++)
		t[i] = (struct sleeper){.s = &end[i],
			.bell = bell[i],
			.other_bell = bell[!i],
			.piece = piece,
			.total = total,
			.seed = seed};
	pthread_create(&reader, NULL, read_all, &t[1]);
	write_all(&t[0]);
	pthread_join(reader, NULL);
	print_message("seed %llu: the writer slept %llu times, the reader %llu\n", (unsigned long long)seed,
		(unsigned long long)t[0].naps, (unsigned long long)t[1].naps);
	assert_null(t[0].complaint);
	assert_null(t[1].complaint);
	assert_int_equal(segment_consumed(&end[1]), total);
	close(bell[0]);
	close(bell[1]);
	teardown(NULL);
	memfd = -1;
}

static void no_wake_up_is_lost_with_small_writes(void **state)
{
	transfer(0, 100, 4 << 20);
	transfer(MAX, 100, 4 << 20);
}

static void no_wake_up_is_lost_with_large_writes(void **state)
{
	transfer(0, 100000, 16 << 20);
	transfer(MAX, 300000, 64 << 20);
}

/* Several processes at one end. */

enum { RECORD = 64, RECORDS = 60000, WRITERS = 2, READERS = 2 };

struct record {
	uint32_t writer, number;
	uint8_t fill[RECORD - 8];
};

static struct record make_record(uint32_t writer, uint32_t number)
{
	struct record r = {.writer = writer, .number = number};

	for (unsigned i = 0; i < sizeof r.fill; i++)
		r.fill[i] = pattern(number * 131ull + writer + i);
	return r;
}

static bool is_record(const struct record *r)
{
	struct record right = make_record(r->writer, r->number);

	return r->writer < WRITERS && r->number < RECORDS && !memcmp(r, &right, sizeof right);
}

static void nap(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

/* Records are never split, as all sizes here are multiples of theirs. */
static void write_records(struct segment *s, uint32_t writer)
{
	struct record batch[8];
	uint32_t sent = 0;
	ssize_t n;

	while (sent < RECORDS) {
		uint32_t k = 1 + sent % 8 < RECORDS - sent ? 1 + sent % 8 : RECORDS - sent;

		for (uint32_t i = 0; i < k; i++)
			batch[i] = make_record(writer, sent + i);
		n = segment_write(s, &(struct iovec){batch, k * sizeof *batch}, 1);
		if (n < 0 || n % RECORD)
			_exit(1);
		sent += (uint32_t)(n / RECORD);
		if (!n)
			nap(20000);
	}
	_exit(0);
}

static void read_records(struct segment *s, _Atomic uint8_t *seen)
{
	uint32_t next[WRITERS] = {0};
	struct record batch[16];
	unsigned heard;
	ssize_t n;

	for (;;) {
		heard = segment_heard(s);
		n = segment_read(s, &(struct iovec){batch, sizeof batch}, 1, false);
		if (n < 0 || n % RECORD)
			_exit(2);
		if (!n && heard & SEGMENT_FIN)
			_exit(0);
		for (uint32_t i = 0; i < n / RECORD; i++) {
			if (!is_record(&batch[i]) || batch[i].number < next[batch[i].writer])
				_exit(3);
			next[batch[i].writer] = batch[i].number + 1;
			seen[batch[i].writer * RECORDS + batch[i].number]++;
		}
		if (!n)
			nap(20000);
	}
}

static int outcome(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static pid_t branch(void)
{
	pid_t pid = fork();

	for (unsigned i = 0; !pid && i < 2; i++)
		segment_forked(&end[i]);
	return pid;
}

static void four_processes_share_two_ends(void **state)
{
	size_t size = WRITERS * RECORDS;
	_Atomic uint8_t *seen = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t writer[WRITERS], reader[READERS];

	make(4);
	segment_share(&end[0]);
	segment_share(&end[1]);
	for (unsigned i = 0; i < READERS; i++) {
		reader[i] = branch();
		if (!reader[i])
			read_records(&end[1], seen);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		writer[i] = branch();
		if (!writer[i])
			write_records(&end[0], i);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		assert_int_equal(outcome(writer[i]), 0);
	segment_say(&end[0], SEGMENT_FIN);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(outcome(reader[i]), 0);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(seen[i], 1);
	assert_int_equal(segment_unread(&end[0]), 0);
	assert_int_equal(segment_written(&end[0]), size * RECORD);
	munmap((void *)seen, size);
}

/* A process that touches this is stopped in the middle of a copy, with the lock held. */
static void *tripwire;
static int tripped;

static void stop_here(int sig)
{
	eventfd_write(tripped, 1);
	for (;;)
		pause();
}

static pid_t hold_the_lock(struct segment *s)
{
	eventfd_t count;
	pid_t child;

	tripwire = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	tripped = eventfd(0, EFD_CLOEXEC);
	child = branch();
	if (!child) {
		sigaction(SIGSEGV, &(struct sigaction){.sa_handler = stop_here}, NULL);
		segment_write(s, &(struct iovec){tripwire, RECORD}, 1);
		_exit(1);
	}
	eventfd_read(tripped, &count);
	close(tripped);
	munmap(tripwire, 4096);
	return child;
}

static void a_lock_of_the_dead_is_taken(void **state)
{
	siginfo_t info;
	pid_t child;

	make(0);
	segment_share(&end[0]);
	for (unsigned reaped = 0; reaped < 2; reaped++) {
		child = hold_the_lock(&end[0]);
		kill(child, SIGKILL);
		if (reaped)
			assert_int_equal(outcome(child), 1000 + SIGKILL);
		else
			assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
		assert_int_equal(put(&end[0], 100), 100);
		assert_int_equal(get(&end[1], 200), 100);
		if (!reaped)
			assert_int_equal(outcome(child), 1000 + SIGKILL);
	}
	assert_false(end[0].failed);
}

static void a_lock_that_is_never_given_up_ends_the_connection(void **state)
{
	uint64_t start, took;
	pid_t child;

	make(0);
	segment_share(&end[0]);
	child = hold_the_lock(&end[0]);
	start = sd_clock_ns();
	assert_int_equal(put(&end[0], 100), -EPROTO);
	took = sd_clock_ns() - start;
	assert_true(took >= SD_S);
	assert_int_equal(segment_writable(&end[0]), -EPROTO);
	assert_int_equal(get(&end[1], 100), 0);
	/* The other end can be told. */
	segment_arm(&end[1], SEGMENT_WANT_DATA);
	segment_say(&end[0], SEGMENT_RESET);
	assert_true(segment_must_ring(&end[0]));
	assert_int_equal(segment_heard(&end[1]), SEGMENT_RESET);
	kill(child, SIGKILL);
	assert_int_equal(outcome(child), 1000 + SIGKILL);
}

/* The other end can write that word, at each of its connections: they do not add up. */
static void a_lie_is_not_waited_for_again_and_again(void **state)
{
	uint64_t start = sd_clock_ns();

	for (unsigned i = 0; i < 20; i++) {
		pid_t child;

		make(0);
		segment_share(&end[0]);
		child = hold_the_lock(&end[0]);
		assert_int_equal(put(&end[0], 100), -EPROTO);
		kill(child, SIGKILL);
		outcome(child);
		teardown(NULL);
	}
	make(0);
	assert_true(sd_clock_ns() - start < 8 * SD_S);
}

/* Writers die anywhere; those that are left go on, and what was read is whole. */
static void killed_writers_leave_whole_records(void **state)
{
	uint64_t seed = (uint64_t)time(NULL), until, records = 0;
	struct record batch[64];
	struct sd_rng rng;
	pid_t child;
	ssize_t n;

	print_message("seed %llu\n", (unsigned long long)seed);
	sd_rng_seed(&rng, seed);
	make(MAX);
	segment_share(&end[0]);
	for (unsigned i = 0; i < 60; i++) {
		child = branch();
		if (!child)
			write_records(&end[0], 1);
		until = sd_clock_ns() + sd_rng_below(&rng, 3 * SD_MS);
		do {
			n = segment_read(&end[1], &(struct iovec){batch, sizeof batch}, 1, false);
			assert_true(n >= 0 && n % RECORD == 0);
			for (unsigned k = 0; k < n / RECORD; k++)
				assert_true(is_record(&batch[k]));
			records += (uint64_t)n / RECORD;
		} while (sd_clock_ns() < until);
		kill(child, SIGKILL);
		batch[0] = make_record(0, i);
		assert_true(segment_write(&end[0], &(struct iovec){batch, RECORD}, 1) >= 0);
		outcome(child);
	}
	print_message("%llu records\n", (unsigned long long)records);
	assert_false(end[0].failed || end[1].failed);
}

/* Memory. */

static uint64_t blocks(void)
{
	struct stat st;

	assert_int_equal(fstat(memfd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void trim_gives_memory_back(void **state)
{
	make(MAX);
	assert_true(blocks() <= 4096);
	assert_true(segment_trim(&end[0])); /* nothing was ever written */
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 8; i++) {
			put(&end[0], 1 << 20);
			get(&end[1], 1 << 18);
		}
		assert_true(blocks() > 1 << 20);
		assert_false(segment_trim(&end[0]));
		assert_true(blocks() > 1 << 20);
		while (get(&end[1], 1 << 20) > 0)
			;
		assert_true(segment_trim(&end[0]));
		assert_true(blocks() <= 4096);
		assert_int_equal(segment_writable(&end[0]), CLASS_SIZE(0) + CLASS_SIZE(6));
		assert_true(segment_trim(&end[0]));
	}
	/* The other end's ring is its own. */
	put(&end[1], 5000);
	assert_true(segment_trim(&end[0]));
	assert_int_equal(get(&end[0], 6000), 5000);
}

static int foreign(off_t size, int seals)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *from = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memfd, 0);

	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(pwrite(fd, from, size < 1024 ? size : 1024, 0), size < 1024 ? size : 1024);
	munmap(from, 4096);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int try_to_open(int fd)
{
	struct segment s;
	int r = segment_open(fd, 0, &s);

	if (!r)
		segment_close(&s);
	close(fd);
	return r;
}

static int with_word(size_t offset, uint32_t value)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int fd = foreign((off_t)end[0].size, 0);

	assert_int_equal(pwrite(fd, &value, sizeof value, (off_t)offset), sizeof value);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, all), 0);
	return try_to_open(fd);
}

static void only_our_own_are_opened(void **state)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	char path[64];
	off_t size;
	FILE *file;
	int fd, p[2];

	make(3);
	size = (off_t)end[0].size;
	assert_int_equal(fcntl(memfd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(memfd, F_GET_SEALS) & all, all);
	assert_int_equal(ftruncate(memfd, 4096), -1);
	assert_int_equal(segment_create(&name_a, &name_b, SEGMENT_CLASSES, &fd), -EINVAL);
	assert_int_equal(segment_open(memfd, 2, &(struct segment){0}), -EINVAL);

	/* The right contents, and one thing wrong. */
	assert_int_equal(try_to_open(foreign(size, all)), 0);
	assert_int_equal(try_to_open(foreign(size, F_SEAL_GROW | F_SEAL_SEAL)), -EPROTO);
	assert_int_equal(try_to_open(foreign(size, F_SEAL_SHRINK | F_SEAL_SEAL)), -EPROTO);
	assert_int_equal(try_to_open(foreign(size, F_SEAL_SHRINK | F_SEAL_GROW)), -EPROTO);
	assert_int_equal(try_to_open(foreign(size, all | F_SEAL_WRITE)), -EPROTO);
	assert_int_equal(try_to_open(foreign(size, all | F_SEAL_FUTURE_WRITE)), -EPROTO);
	assert_int_equal(try_to_open(foreign(size - 4096, all)), -EPROTO);
	assert_int_equal(try_to_open(foreign(size + 4096, all)), -EPROTO);
	assert_int_equal(try_to_open(foreign(0, all)), -EPROTO);
	assert_int_equal(try_to_open(foreign(20, all)), -EPROTO);
	assert_int_equal(with_word(0, 1), -EPROTO);    /* magic */
	assert_int_equal(with_word(8, 1000), -EPROTO); /* version */
	assert_int_equal(with_word(12, 4), -EPROTO);   /* max_class */
	assert_int_equal(with_word(12, 31), -EPROTO);
	assert_int_equal(with_word(12, UINT32_MAX), -EPROTO);

	snprintf(path, sizeof path, "/proc/self/fd/%d", memfd);
	assert_int_equal(try_to_open(open(path, O_RDONLY | O_CLOEXEC)), -EPROTO);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(try_to_open(p[0]), -EPROTO);
	close(p[1]);
	file = tmpfile();
	assert_non_null(file);
	assert_int_equal(try_to_open(dup(fileno(file))), -EPROTO);
	fclose(file);
	assert_int_equal(segment_open(-1, 0, &(struct segment){0}), -EBADF);
}

static void a_mapping_outlives_its_descriptor(void **state)
{
	make(0);
	close(memfd);
	memfd = -1;
	put(&end[0], 10);
	assert_int_equal(get(&end[1], 10), 10);
}

/* Lies. */

static uint64_t *word_with(uint64_t value)
{
	uint64_t *w = (uint64_t *)end[0].header;

	for (unsigned i = 0; i < 512; i++) {
		if (w[i] == value)
			return &w[i];
	}
	fail_msg("no word has the value %llu", (unsigned long long)value);
	return NULL;
}

static void all_fail(struct segment *s)
{
	uint8_t *to;
	const uint8_t *from;

	assert_true(s->failed);
	assert_int_equal(put(s, 1), -EPROTO);
	assert_int_equal(get(s, 1), -EPROTO);
	assert_int_equal(segment_peek_span(s, &from), -EPROTO);
	assert_int_equal(segment_room_span(s, &to), -EPROTO);
	assert_int_equal(segment_consume(s, 0), -EPROTO);
	assert_int_equal(segment_produce(s, 0), -EPROTO);
	assert_int_equal(segment_readable(s), -EPROTO);
	assert_int_equal(segment_writable(s), -EPROTO);
	assert_int_equal(segment_unread(s), -EPROTO);
	assert_true(segment_is_roomy(s));
	assert_false(segment_trim(s));
}

static void a_lie_ends_the_connection(void **state)
{
	enum { TAIL = 30001, HEAD = 20011 };
	/* Which word holds a value, what it says then, and which end must notice. */
	const uint64_t geometry = CLASS_SIZE(0) << 8 | 4;
	const struct {
		uint64_t word, value;
		unsigned who;
	} lies[] = {
		{TAIL, HEAD - 1, 1},
		{TAIL, 0, 1},
		{TAIL, TAIL + CLASS_SIZE(4), 1},
		{TAIL, UINT64_MAX, 1},
		{TAIL, 1ull << 63, 1},
		{HEAD, TAIL + 1, 0},
		{HEAD, UINT64_MAX, 0},
		{geometry, geometry | 15, 1},
		{geometry, geometry | 15 << 4, 1},
		{geometry, (geometry & ~15ull) | 7, 1},
		{geometry, (CLASS_SIZE(0) << 8), 1}, /* a class too small for what is in it */
		{geometry, geometry | 15, 0},
		{geometry, (TAIL + 1) << 8 | 4, 0},
		{TAIL, 1ull << 60, 0},
	};

	for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
		make(4);
		assert_int_equal(put(&end[0], CLASS_SIZE(0) + 10000), CLASS_SIZE(0) + 10000);
		assert_int_equal(get(&end[1], CLASS_SIZE(0)), CLASS_SIZE(0));
		assert_int_equal(get(&end[1], HEAD - CLASS_SIZE(0)), 10000);
		assert_int_equal(put(&end[0], TAIL - CLASS_SIZE(0) - 10000), TAIL - CLASS_SIZE(0) - 10000);
		assert_int_equal(get(&end[1], HEAD - CLASS_SIZE(0) - 10000), HEAD - CLASS_SIZE(0) - 10000);
		*word_with(lies[i].word) = lies[i].value;
		if (lies[i].who == 1)
			segment_readable(&end[1]);
		else
			segment_writable(&end[0]);
		all_fail(&end[lies[i].who]);
		teardown(NULL);
	}
	memfd = -1;
}

/* A false name is a wrong name, no more. */
static void names_are_tidied(void **state)
{
	struct sd_addr local, peer;
	uint8_t *p;

	make(0);
	p = (uint8_t *)end[0].header;
	memset(p + 16, 0xff, 2 * sizeof(struct sd_addr));
	segment_names(&end[0], &local, &peer);
	assert_int_equal(local.family, 0);
	assert_int_equal(peer.family, 0);
	p[16] = 4;
	segment_names(&end[0], &local, &peer);
	assert_int_equal(local.family, 4);
	assert_int_equal(local.ip[4], 0);
}

/* A mapping between pages that nobody may touch. */
static void put_between_guards(struct segment *s)
{
	const size_t guard = 16 << 20;
	uint8_t *area = mmap(
		NULL, s->mapped + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *old = (uint8_t *)s->header, *new = area + guard;

	assert_ptr_not_equal(area, MAP_FAILED);
	assert_ptr_equal(mremap(old, s->mapped, s->mapped, MREMAP_MAYMOVE | MREMAP_FIXED, new), new);
	s->header = (struct segment_header *)new;
}

static _Atomic bool enough;

struct scribbler {
	volatile uint64_t *words;
	uint64_t seed;
};

/* Something that could be there as well as something that could not. */
static uint64_t invent(struct sd_rng *rng, uint64_t old)
{
	switch (sd_rng_below(rng, 8)) {
	case 0:
		return sd_rng_next(rng);
	case 1:
		return sd_rng_below(rng, 3 << 20);
	case 2:
		return sd_rng_below(rng, 3 << 20) << 8 | sd_rng_below(rng, 256);
	case 3:
		return sd_rng_below(rng, 8);
	case 4:
		return 0;
	case 5:
		return old ^ 1ull << sd_rng_below(rng, 64);
	default:
		return old + sd_rng_below(rng, 10000) - 5000;
	}
}

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	struct sd_rng rng;
	unsigned i;

	sd_rng_seed(&rng, s->seed);
	while (!enough) {
		/* Mostly where the cursors are; now and then all is put back. */
		i = (unsigned)sd_rng_below(&rng, sd_rng_below(&rng, 8) ? 128 : 512);
		s->words[i] = invent(&rng, s->words[i]);
		if (sd_rng_below(&rng, 300) == 0) {
			for (i = 0; i < 512; i++)
				s->words[i] = 0;
			nap(sd_rng_below(&rng, 50000));
		}
	}
	return NULL;
}

static void is_bounded(ssize_t n, size_t most)
{
	assert_true(n == -EPROTO || (n >= 0 && n <= (ssize_t)most));
}

/* Is a span of the memory, all of it? */
static void is_inside(const struct segment *s, const uint8_t *p, ssize_t len)
{
	assert_true(
		p >= (const uint8_t *)s->header + 4096 && p + len <= (const uint8_t *)s->header + s->mapped);
}

static void do_anything(struct segment *s, struct sd_rng *rng)
{
	size_t len = sd_rng_below(rng, 4) ? sd_rng_below(rng, 3000) : sd_rng_below(rng, 2 << 20);
	const size_t most = 2 * CLASS_SIZE(MAX);
	uint8_t *memory = malloc(len + 1), *to;
	const struct iovec iov[] = {{memory, len / 3}, {memory + len / 3, len - len / 3}};
	struct sd_addr local, peer;
	const uint8_t *from;
	ssize_t n;

	switch (sd_rng_below(rng, 16)) {
	case 0:
	case 1:
		memset(memory, 1, len);
		is_bounded(segment_write(s, iov, 2), len);
		break;
	case 2:
	case 3:
		is_bounded(segment_read(s, iov, 2, sd_rng_below(rng, 2)), len);
		break;
	case 4:
		n = segment_peek_span(s, &from);
		is_bounded(n, most);
		for (ssize_t i = 0; i < n; i += 64)
			memory[0] ^= from[i];
		if (n >= 0) {
			is_inside(s, from, n);
			n = segment_consume(s, sd_rng_below(rng, 2) ? (size_t)n : len);
			assert_true(n == 0 || n == -EINVAL || n == -EPROTO);
		}
		break;
	case 5:
		n = segment_room_span(s, &to);
		is_bounded(n, most);
		if (n >= 0) {
			is_inside(s, to, n);
			memset(to, 2, (size_t)n);
			n = segment_produce(s, sd_rng_below(rng, 2) ? (size_t)n : len);
			assert_true(n == 0 || n == -EINVAL || n == -EPROTO);
		}
		break;
	case 6:
		is_bounded(segment_readable(s), most);
		break;
	case 7:
		is_bounded(segment_writable(s), most);
		break;
	case 8:
		is_bounded(segment_unread(s), most);
		break;
	case 9:
		segment_is_roomy(s);
		segment_names(s, &local, &peer);
		assert_true(local.family == 0 || local.family == 4 || local.family == 6);
		break;
	case 10:
		segment_say(s, (unsigned)sd_rng_below(rng, 16));
		assert_true(segment_heard(s) < 16 && segment_said(s) < 16);
		break;
	case 11:
		segment_arm(s, 1 + (unsigned)sd_rng_below(rng, 3));
		segment_must_ring(s);
		segment_disarm(s);
		break;
	case 12:
		segment_must_ring(s);
		break;
	case 13:
		segment_trim(s);
		break;
	case 14:
		segment_note_put(s, "note", 4);
		segment_note_get(s, memory, len < 64 ? len : 64);
		break;
	default:
		segment_accept(s);
		segment_is_accepted(s);
		segment_written(s);
		segment_consumed(s);
		if (sd_rng_below(rng, 50) == 0)
			segment_share(s);
	}
	free(memory);
}

static void scribbling_does_no_harm(void **state)
{
	uint64_t seed = (uint64_t)time(NULL), until = sd_clock_ns() + 3 * SD_S, failures = 0, operations = 0;
	struct scribbler s;
	struct sd_rng rng;
	pthread_t thread;

	print_message("seed %llu\n", (unsigned long long)seed);
	make(MAX);
	put_between_guards(&end[0]);
	s = (struct scribbler){.words = (volatile uint64_t *)end[1].header, .seed = seed};
	sd_rng_seed(&rng, seed + 1);
	enough = false;
	pthread_create(&thread, NULL, scribble, &s);
	for (; sd_clock_ns() < until; operations++) {
		do_anything(&end[0], &rng);
		failures += end[0].failed;
		end[0].failed = false; /* as if nothing had happened: the more chances to go wrong */
		assert_int_equal(end[0].max_class, MAX);
	}
	enough = true;
	pthread_join(thread, NULL);
	print_message("%llu operations, %llu found a lie\n", (unsigned long long)operations,
		(unsigned long long)failures);
	assert_true(operations > 100 && failures > 10 && failures < operations);
	munmap(end[0].header, end[0].size);
	end[0].header = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_are_seen_from_each_end, setup, teardown),
		cmocka_unit_test_setup_teardown(flags_add_up, setup, teardown),
		cmocka_unit_test_setup_teardown(a_fin_comes_after_the_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(notes_stay_with_their_end, setup, teardown),
		cmocka_unit_test_setup_teardown(one_accepts, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_arrive_in_both_directions, setup, teardown),
		cmocka_unit_test_setup_teardown(a_peek_leaves_the_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(an_absurd_length_is_a_full_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(every_class_wraps, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_ring_grows, setup, teardown),
		cmocka_unit_test_setup_teardown(growth_happens_anywhere, setup, teardown),
		cmocka_unit_test_setup_teardown(a_class_between_is_the_last, setup, teardown),
		cmocka_unit_test_setup_teardown(spans_carry_a_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(spans_grow_a_full_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(too_much_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(data_is_worth_a_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(a_flag_is_worth_a_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(room_is_worth_a_ring_when_there_is_much, setup, teardown),
		cmocka_unit_test_setup_teardown(growth_is_worth_a_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(a_shared_end_keeps_its_wants, setup, teardown),
		cmocka_unit_test_setup_teardown(a_futex_needs_no_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(sharing_ends_the_use_of_the_word, setup, teardown),
		cmocka_unit_test_setup_teardown(no_wake_up_is_lost_with_small_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(no_wake_up_is_lost_with_large_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(four_processes_share_two_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lock_of_the_dead_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_lock_that_is_never_given_up_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_writers_leave_whole_records, setup, teardown),
		cmocka_unit_test_setup_teardown(trim_gives_memory_back, setup, teardown),
		cmocka_unit_test_setup_teardown(only_our_own_are_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mapping_outlives_its_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lie_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(names_are_tidied, setup, teardown),
		cmocka_unit_test_setup_teardown(scribbling_does_no_harm, setup, teardown),
		/* The last: for a minute after it this process has little patience. */
		cmocka_unit_test_setup_teardown(a_lie_is_not_waited_for_again_and_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

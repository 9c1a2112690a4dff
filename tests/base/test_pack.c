/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/pack.h"

static struct sd_unpack reader(const struct sd_pack *p)
{
	return (struct sd_unpack){p->data, p->data + p->len, p->fds, (unsigned)p->n_fds};
}

static void there_and_back(void **state)
{
	struct {
		uint8_t a;
		uint64_t b;
	} v = {.a = 7, .b = 8}, w;
	struct sd_pack p = {0};
	struct sd_unpack u;
	char text[6];

	memset(&v, 0, sizeof v);
	v.b = 9;
	sd_pack_u32(&p, 5);
	sd_pack_bytes(&p, "hello", 6);
	sd_pack_bytes(&p, NULL, 0);
	sd_pack_fd(&p, 42);
	sd_pack_fd(&p, -1);
	sd_pack_value(&p, v);
	sd_pack_fd(&p, 43);
	sd_pack_u64(&p, UINT64_MAX);
	assert_false(p.failed);
	u = reader(&p);
	assert_int_equal(sd_unpack_u32(&u), 5);
	sd_unpack_bytes(&u, text, sizeof text);
	assert_string_equal(text, "hello");
	assert_int_equal(sd_unpack_fd(&u), 42);
	assert_int_equal(sd_unpack_fd(&u), -1);
	sd_unpack_value(&u, w);
	assert_memory_equal(&v, &w, sizeof v);
	assert_int_equal(sd_unpack_fd(&u), 43);
	assert_true(sd_unpack_u64(&u) == UINT64_MAX);
	assert_false(u.failed);
	assert_ptr_equal(u.at, u.end);
	assert_int_equal(u.n_fds, 0);
	sd_pack_free(&p);
}

static void it_grows(void **state)
{
	struct sd_pack p = {0};
	struct sd_unpack u;

	for (uint32_t i = 0; i < 100000; i++) {
		sd_pack_u32(&p, i);
		if (i % 100 == 0)
			sd_pack_fd(&p, (int)i);
	}
	u = reader(&p);
	for (uint32_t i = 0; i < 100000; i++) {
		assert_int_equal(sd_unpack_u32(&u), i);
		if (i % 100 == 0)
			assert_int_equal(sd_unpack_fd(&u), i);
	}
	assert_ptr_equal(u.at, u.end);
	sd_pack_free(&p);
}

static void what_is_not_there(void **state)
{
	struct sd_pack p = {0};
	struct sd_unpack u;
	uint8_t nonsense = 2;
	bool truth = true;

	sd_pack_u32(&p, 1);
	u = reader(&p);
	assert_int_equal(sd_unpack_u64(&u), 0);
	assert_true(u.failed);
	/* It stays failed, and gives zeros. */
	assert_int_equal(sd_unpack_u32(&u), 0);
	assert_null(sd_unpack_view(&u, 1));
	assert_int_equal(sd_unpack_fd(&u), -1);

	sd_pack_value(&p, nonsense);
	u = reader(&p);
	sd_unpack_u32(&u);
	assert_int_equal(sd_unpack_fd(&u), -1);
	assert_true(u.failed);
	sd_pack_free(&p);

	sd_pack_value(&p, nonsense);
	u = reader(&p);
	sd_unpack_value(&u, truth);
	assert_true(u.failed);
	assert_false(truth);
	sd_pack_free(&p);

	/* More are spoken of than there are. */
	sd_pack_fd(&p, 3);
	u = reader(&p);
	u.n_fds = 0;
	assert_int_equal(sd_unpack_fd(&u), -1);
	assert_true(u.failed);
	sd_pack_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(it_grows),
		cmocka_unit_test(what_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

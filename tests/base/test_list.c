/* SPDX-License-Identifier: BSD-3-Clause */
/* The intrusive list: order at both ends, removal, removal while walking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/list.h"

struct item {
	char name;
	struct list link;
};

static struct item items[5];
static struct list head;

static struct list *node(char name)
{
	return &items[name - 'a'].link;
}

/* The list must be names, forwards and backwards. */
static void expect(const char *names)
{
	size_t n = strlen(names), i = 0;

	list_for_each (it, &head) {
		assert_true(i < n);
		assert_int_equal(container_of(it, struct item, link)->name, names[i++]);
	}
	assert_int_equal(i, n);
	for (struct list *it = head.prev; it != &head; it = it->prev) {
		assert_true(i > 0);
		assert_int_equal(container_of(it, struct item, link)->name, names[--i]);
	}
	assert_int_equal(i, 0);
	assert_int_equal(list_empty(&head), n == 0);
}

static int setup(void **state)
{
	list_init(&head);
	for (unsigned i = 0; i < 5; i++) {
		items[i].name = (char)('a' + i);
		list_init(&items[i].link);
	}
	return 0;
}

static void list__order(void **state)
{
	expect("");
	list_push_back(&head, node('a'));
	expect("a");
	list_push_back(&head, node('b'));
	expect("ab");
	list_push_front(&head, node('c'));
	expect("cab");
	list_push_front(&head, node('d'));
	expect("dcab");
	list_push_back(&head, node('e'));
	expect("dcabe");
}

static void list__pop(void **state)
{
	assert_null(list_pop_front(&head));
	list_push_front(&head, node('b'));
	list_push_front(&head, node('a'));
	assert_ptr_equal(list_pop_front(&head), node('a'));
	assert_true(list_empty(node('a')));
	expect("b");
	assert_ptr_equal(list_pop_front(&head), node('b'));
	assert_null(list_pop_front(&head));
	expect("");
}

static void list__remove_twice(void **state)
{
	for (char c = 'a'; c <= 'e'; c++)
		list_push_back(&head, node(c));
	list_remove(node('c'));
	expect("abde");
	list_remove(node('c'));
	expect("abde");
	assert_true(list_empty(node('c')));
	list_remove(node('a'));
	list_remove(node('e'));
	expect("bd");
	list_push_front(&head, node('c'));
	expect("cbd");
}

static void list__remove_while_walking(void **state)
{
	unsigned seen = 0;

	for (char c = 'a'; c <= 'e'; c++)
		list_push_back(&head, node(c));
	list_for_each (it, &head) {
		if (seen++ % 2 == 0)
			list_remove(it);
	}
	assert_int_equal(seen, 5);
	expect("bd");
	list_for_each (it, &head) {
		list_remove(it);
		memset(it, 0, sizeof *it); /* and may be freed */
	}
	expect("");
}

static void list__static(void **state)
{
	static struct list l = LIST_INIT(l);

	assert_true(list_empty(&l));
	assert_null(list_pop_front(&l));
	list_push_back(&l, node('a'));
	assert_ptr_equal(list_pop_front(&l), node('a'));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(list__order, setup),
		cmocka_unit_test_setup(list__pop, setup),
		cmocka_unit_test_setup(list__remove_twice, setup),
		cmocka_unit_test_setup(list__remove_while_walking, setup),
		cmocka_unit_test_setup(list__static, setup),
	};

	return cmocka_run_group_tests_name("list", tests, NULL, NULL);
}

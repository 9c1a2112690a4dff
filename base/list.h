/* SPDX-License-Identifier: BSD-3-Clause */
/* Intrusive doubly linked list. A node that is on no list points at itself, so removal is idempotent. */
#ifndef SD_BASE_LIST_H
#define SD_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(l)                                                                                         \
	{                                                                                                    \
		&(l), &(l)                                                                                   \
	}
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_push_back(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

static inline void list_push_front(struct list *head, struct list *node)
{
	list_push_back(head->next, node);
}

static inline void list_remove(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

static inline struct list *list_pop_front(struct list *head)
{
	struct list *node = head->next;

	if (node == head)
		return NULL;
	list_remove(node);
	return node;
}

/* Safe against removal of the current node. */
#define list_for_each(it, head)                                                                              \
	for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                            \
		it = it##_next, it##_next = it->next)

#endif

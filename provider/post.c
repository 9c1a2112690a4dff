/* SPDX-License-Identifier: BSD-3-Clause */
#include "provider/post.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/fd.h"

int post_open(struct post *p, bool bell)
{
	pthread_mutex_init(&p->lock, NULL);
	list_init(&p->letters);
	atomic_init(&p->any, false);
	p->bell = bell ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	return bell && p->bell < 0 ? -errno : 0;
}

void post_close(struct post *p)
{
	struct list *it;

	while ((it = list_pop_front(&p->letters))) {
		struct letter *l = container_of(it, struct letter, node);

		if (l->kind == LETTER_COUPLE)
			pv_shm_end_close(&l->end);
		free(l);
	}
	sd_fd_close(&p->bell);
	pthread_mutex_destroy(&p->lock);
}

struct letter *letter_new(enum letter_kind kind)
{
	struct letter *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	l->kind = kind;
	return l;
}

void post_ring(struct post *p)
{
	if (p->bell >= 0)
		eventfd_write(p->bell, 1);
}

void post_heed(struct post *p)
{
	eventfd_t rings;

	if (p->bell >= 0)
		eventfd_read(p->bell, &rings);
}

void post_send(struct post *p, struct letter *l)
{
	bool first;

	pthread_mutex_lock(&p->lock);
	first = list_empty(&p->letters);
	list_push_back(&p->letters, &l->node);
	atomic_store_explicit(&p->any, true, memory_order_release);
	pthread_mutex_unlock(&p->lock);
	if (first)
		post_ring(p);
}

struct letter *post_take(struct post *p)
{
	struct list *it;

	if (post_is_empty(p))
		return NULL;
	pthread_mutex_lock(&p->lock);
	it = list_pop_front(&p->letters);
	if (list_empty(&p->letters)) {
		atomic_store_explicit(&p->any, false, memory_order_release);
		post_heed(p);
	}
	pthread_mutex_unlock(&p->lock);
	return it ? container_of(it, struct letter, node) : NULL;
}

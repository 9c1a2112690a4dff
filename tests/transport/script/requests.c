/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * requests: queue pairs, regions and completions. Bytes are script_byte() of their place: in a message of
 * their offset in it, in remote memory of their offset in the region, here and at the peer.
 */
#include <stdlib.h>
#include <string.h>

#include "script.h"

static const struct name operations[] = {
	{"send", TP_SEND},
	{"write", TP_WRITE},
	{"write_imm", TP_WRITE_IMM},
	{"read", TP_READ},
	{"swap", TP_COMPARE_SWAP},
	{"add", TP_FETCH_ADD},
	{"recv", TP_RECV},
	{"recv_write", TP_RECV_WRITE},
	NAMES_END,
};

static const struct name statuses[] = {
	{"SUCCESS", TP_WC_SUCCESS},
	{"LENGTH", TP_WC_LENGTH},
	{"PROTECTION", TP_WC_PROTECTION},
	{"FLUSHED", TP_WC_FLUSHED},
	{"REMOTE_ACCESS", TP_WC_REMOTE_ACCESS},
	{"REMOTE_INVALID", TP_WC_REMOTE_INVALID},
	{"REMOTE_FAILED", TP_WC_REMOTE_FAILED},
	{"TIMEOUT", TP_WC_TIMEOUT},
	NAMES_END,
};

static const struct name rights[] = {
	{"read", TP_REMOTE_READ},
	{"write", TP_LOCAL_WRITE | TP_REMOTE_WRITE},
	{"atomic", TP_LOCAL_WRITE | TP_REMOTE_ATOMIC},
	NAMES_END,
};

static struct tp_mr *own_region(struct script *s, uint8_t *memory)
{
	struct tp_mr *mr;

	if (tp_mr_register(s->pd, memory, SCRIPT_MEMORY, TP_LOCAL_WRITE, &mr))
		abort();
	return mr;
}

void requests_begin(struct script *s)
{
	struct tp *t = s->puppet.tp;

	if (tp_pd_create(t, &s->pd) || tp_pd_create(t, &s->other_pd) ||
		tp_cq_create(t, 64 + SCRIPT_LINKS * s->queue, s, &s->cq))
		abort();
	s->source_mr = own_region(s, s->source);
	s->landing_mr = own_region(s, s->landing);
	s->receive_mr = own_region(s, s->receive);
}

void requests_qp(struct script *s, struct link *l)
{
	const struct tp_qp_attr attr = {.size = sizeof attr,
		.pd = s->pd,
		.send_cq = s->cq,
		.recv_cq = s->cq,
		.max_send_wr = s->queue,
		.max_recv_wr = s->queue,
		.max_inline = 64,
		.max_reads = (uint8_t)s->reads,
		.max_peer_reads = (uint8_t)s->reads,
		.user = l};

	if (!l->qp && tp_qp_create(s->puppet.tp, &attr, &l->qp))
		script_fail(s, "a queue pair with these settings is refused");
}

void requests_end(struct script *s)
{
	for (unsigned i = 0; i < s->n_links; i++)
		if (s->links[i].qp)
			tp_qp_destroy(s->links[i].qp, s->puppet.now);
	for (unsigned i = 0; i < s->n_regions; i++) {
		if (s->regions[i].mr)
			tp_mr_deregister(s->regions[i].mr);
		free(s->regions[i].memory);
	}
	if (!s->pd)
		return;
	tp_mr_deregister(s->source_mr);
	tp_mr_deregister(s->landing_mr);
	tp_mr_deregister(s->receive_mr);
	tp_cq_destroy(s->cq);
	tp_pd_destroy(s->pd);
	tp_pd_destroy(s->other_pd);
}

/* --- regions --- */

static struct region *region_of(struct script *s)
{
	const char *name = word_next(s, "the region");

	for (unsigned i = 0; i < s->n_regions; i++)
		if (!strcmp(s->regions[i].name, name))
			return &s->regions[i];
	script_fail(s, "there is no region '%s'", name);
}

/* region NAME SIZE RIGHTS [zero] [foreign] */
static void make_region(struct script *s)
{
	struct region *r = &s->regions[s->n_regions];
	unsigned access;
	bool zero, foreign;

	if (s->n_regions == SCRIPT_REGIONS)
		script_fail(s, "there are more than %d regions", SCRIPT_REGIONS);
	copy_name(s, r->name, sizeof r->name, word_next(s, "the region's name"));
	r->len = (size_t)next_number(s, "its size", 1u << 24);
	access = (unsigned)bits_of(s, rights, word_next(s, "its rights"), "right");
	zero = word_is(s, "zero");
	foreign = word_is(s, "foreign");
	r->memory = calloc(1, r->len + 8);
	if (!r->memory)
		abort();
	s->n_regions++;
	for (size_t i = 0; i < r->len && !zero; i++)
		r->memory[i] = script_byte(i);
	if (tp_mr_register(foreign ? s->other_pd : s->pd, r->memory, r->len, access, &r->mr))
		script_fail(s, "such a region is refused");
	r->rkey = tp_mr_rkey(r->mr);
}

static void deregister(struct script *s)
{
	struct region *r = region_of(s);

	if (!r->mr)
		script_fail(s, "it is not registered");
	tp_mr_deregister(r->mr);
	r->mr = NULL;
}

/* memory NAME OFF:LEN [zero | value N] */
static void check_memory(struct script *s)
{
	const struct region *r = region_of(s);
	uint64_t off, len, v;

	if (!parse_piece(word_next(s, "the piece"), &off, &len) || len > r->len || off > r->len - len)
		script_fail(s, "that is not a piece of it");
	if (word_is(s, "zero")) {
		for (uint64_t i = 0; i < len; i++)
			if (r->memory[off + i])
				script_fail(s, "byte %llu is not 0", (unsigned long long)(off + i));
	} else if (word_is(s, "value")) {
		if (len != 8)
			script_fail(s, "a value has 8 bytes");
		memcpy(&v, r->memory + off, 8);
		if (v != next_number(s, "the value", UINT64_MAX))
			script_fail(s, "the value is %#llx", (unsigned long long)v);
	} else if (!script_is_pattern(r->memory + off, len, off)) {
		script_fail(s, "the bytes there are wrong");
	}
}

/* memory NAME OFF = N: eight bytes */
static void set_memory(struct script *s)
{
	struct region *r = region_of(s);
	uint64_t off = next_number(s, "the place", r->len), v = next_number(s, "the value", UINT64_MAX);

	if (off + 8 > r->len)
		script_fail(s, "that is not in the region");
	memcpy(r->memory + off, &v, 8);
}

/* --- posting --- */

static struct tp_qp *queue_pair(struct script *s, const struct link *l)
{
	if (!l->qp)
		script_fail(s, "there is no queue pair");
	return l->qp;
}

static void post_recv(struct script *s, const struct link *l, uint64_t id)
{
	struct tp_sge sge = {.mr = s->receive_mr};
	struct tp_recv_wr wr = {.wr_id = id, .sg = &sge, .n_sg = 1};
	int r;

	if (!word_is(s, "len"))
		script_fail(s, "a receive has a len");
	sge.len = (uint32_t)next_number(s, "len", SCRIPT_MEMORY);
	if (sge.len > SCRIPT_MEMORY - s->receive_next)
		s->receive_next = 0;
	sge.offset = s->receive_at[id] = s->receive_next;
	s->receive_next += sge.len;
	s->puppet.may_alloc = false;
	r = tp_post_recv(queue_pair(s, l), &wr);
	s->puppet.may_alloc = true;
	call_result(s, r, 0);
}

static uint64_t parse_rkey(struct script *s)
{
	const char *word = word_next(s, "the rkey");

	for (unsigned i = 0; i < s->n_regions; i++)
		if (!strcmp(s->regions[i].name, word))
			return s->regions[i].rkey;
	return number_of(s, word, "the rkey", UINT64_MAX);
}

static void parse_wr(struct script *s, struct tp_send_wr *wr, struct tp_sge *sge)
{
	uint64_t off, len;

	while (word_peek(s) && strcmp(word_peek(s), "=")) {
		const char *word = word_next(s, "a word");

		if (!strcmp(word, "len")) {
			sge->len = (uint32_t)next_number(s, "len", SCRIPT_MEMORY);
		} else if (!strcmp(word, "rkey")) {
			wr->rkey = parse_rkey(s);
		} else if (parse_piece(word, &off, &len) && len <= SCRIPT_MEMORY) {
			wr->remote_offset = off;
			sge->len = (uint32_t)len;
		} else if (!strcmp(word, "imm")) {
			wr->imm = (uint32_t)next_number(s, "imm", UINT32_MAX);
			wr->flags |= wr->opcode == TP_SEND ? TP_HAS_IMM : 0;
		} else if (!strcmp(word, "operand")) {
			wr->operand = next_number(s, word, UINT64_MAX);
		} else if (!strcmp(word, "compare")) {
			wr->compare = next_number(s, word, UINT64_MAX);
		} else if (!strcmp(word, "fence")) {
			wr->flags |= TP_FENCE;
		} else if (!strcmp(word, "solicited")) {
			wr->flags |= TP_SOLICITED;
		} else if (!strcmp(word, "silent")) {
			wr->flags &= ~(unsigned)TP_SIGNALED;
		} else {
			script_fail(s, "'%s' cannot stand in such a request", word);
		}
	}
}

static void post_send(struct script *s, const struct link *l, uint64_t id, enum tp_opcode op)
{
	bool lands = op == TP_READ || op == TP_COMPARE_SWAP || op == TP_FETCH_ADD;
	struct tp_sge sge = {.mr = lands ? s->landing_mr : s->source_mr};
	struct tp_send_wr wr = {.wr_id = id, .opcode = op, .flags = TP_SIGNALED, .sg = &sge, .n_sg = 1};
	int r;

	if (op == TP_COMPARE_SWAP || op == TP_FETCH_ADD)
		sge.len = 8;
	parse_wr(s, &wr, &sge);
	sge.offset = wr.remote_offset < SCRIPT_MEMORY - sge.len ? wr.remote_offset : 0;
	s->landing_at[id] = (uint32_t)sge.offset;
	s->puppet.may_alloc = false;
	r = tp_post_send(queue_pair(s, l), &wr);
	s->puppet.may_alloc = true;
	call_result(s, r, 0);
}

static void post(struct script *s, const struct link *l)
{
	enum tp_opcode op = (enum tp_opcode)next_name(s, operations, "request");
	uint64_t id = next_number(s, "the request's number", SCRIPT_REQUESTS - 1);

	if (op == TP_RECV)
		post_recv(s, l, id);
	else if (op == TP_RECV_WRITE)
		script_fail(s, "that is a completion, not a request");
	else
		post_send(s, l, id, op);
}

/* --- completing --- */

static void check_bytes(struct script *s, const struct tp_wc *wc)
{
	const uint8_t *at = wc->opcode == TP_READ ? s->landing + s->landing_at[wc->wr_id]
						  : s->receive + s->receive_at[wc->wr_id];
	uint64_t from = wc->opcode == TP_READ ? s->landing_at[wc->wr_id] : 0;

	if (wc->status == TP_WC_SUCCESS && (wc->opcode == TP_READ || wc->opcode == TP_RECV) &&
		!script_is_pattern(at, wc->len, from))
		script_fail(s, "the bytes that came are wrong");
}

static void check_detail(struct script *s, const struct tp_wc *wc)
{
	const char *word = word_next(s, "a word");
	uint64_t is;

	if (!strcmp(word, "len")) {
		is = wc->len;
	} else if (!strcmp(word, "imm")) {
		if (!wc->has_imm)
			script_fail(s, "there is no immediate value");
		is = wc->imm;
	} else if (!strcmp(word, "value")) {
		memcpy(&is, s->landing + s->landing_at[wc->wr_id], 8);
	} else {
		script_fail(s, "'%s' cannot stand in a completion", word);
	}
	if (is != next_number(s, word, UINT64_MAX))
		script_fail(s, "%s is %llu", word, (unsigned long long)is);
}

/* complete OPERATION NUMBER [STATUS] [len N] [imm N] [value N], or complete nothing */
static void complete(struct script *s)
{
	uint64_t op, id, status = TP_WC_SUCCESS;
	struct tp_wc wc;

	if (word_is(s, "nothing")) {
		if (tp_cq_poll(s->cq, &wc, 1))
			script_fail(s, "there is a completion: %s %llu %s", name_of(operations, wc.opcode),
				(unsigned long long)wc.wr_id, name_of(statuses, wc.status));
		return;
	}
	op = next_name(s, operations, "operation");
	id = next_number(s, "the request's number", SCRIPT_REQUESTS - 1);
	if (word_peek(s) && find_name(statuses, word_peek(s), &status))
		s->at++;
	if (!tp_cq_poll(s->cq, &wc, 1))
		script_fail(s, "there is no completion");
	if (wc.wr_id != id || wc.status != status || wc.opcode != op)
		script_fail(s, "the completion is %s %llu %s", name_of(operations, wc.opcode),
			(unsigned long long)wc.wr_id, name_of(statuses, wc.status));
	check_bytes(s, &wc);
	while (word_peek(s))
		check_detail(s, &wc);
}

static bool region_call(struct script *s, const char *verb)
{
	if (!strcmp(verb, "region"))
		make_region(s);
	else if (!strcmp(verb, "deregister"))
		deregister(s);
	else if (!strcmp(verb, "memory"))
		check_memory(s);
	else if (!strcmp(verb, "set_memory"))
		set_memory(s);
	else
		return false;
	return true;
}

static bool queue_call(struct script *s, struct link *l, const char *verb)
{
	if (!strcmp(verb, "post")) {
		post(s, l);
	} else if (!strcmp(verb, "complete")) {
		complete(s);
	} else if (!strcmp(verb, "notify")) {
		tp_cq_notify(s->cq, word_is(s, "solicited"));
	} else if (!strcmp(verb, "disconnect")) {
		tp_qp_disconnect(queue_pair(s, l));
	} else if (!strcmp(verb, "destroy")) {
		tp_qp_destroy(queue_pair(s, l), s->puppet.now);
		l->qp = NULL;
	} else if (!strcmp(verb, "qp")) {
		requests_qp(s, l);
	} else {
		return false;
	}
	return true;
}

bool script_request(struct script *s, struct link *l, const char *verb)
{
	bool known = !strcmp(verb, "region") || !strcmp(verb, "post") || !strcmp(verb, "complete") ||
		     !strcmp(verb, "notify") || !strcmp(verb, "qp");

	if (known && !s->messages)
		script_fail(
			s, "'%s' is for connections of messages: these begin with the line 'messages'", verb);
	return region_call(s, verb) || queue_call(s, l, verb);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds of one host: a copy of the received rows with cached and with streaming stores, and combine's sums
 * over rows that are the rank's own. */
#include "bench/limits.h"

#include "bench/xfer_copies.h"
#include "kernels/combine.h"
#include "kernels/row_copy.h"

#include <stdlib.h>
#include <string.h>

struct state {
    const struct ep_exchange *exchange;
    int64_t num_rows; /* received in a dispatch */
    char *from, *to;  /* [num_rows][row_bytes] */
    char *sums;       /* [local tokens][top_k][combine_row_bytes] private results */
};

/* The loop is the transports' own, so that a difference is not one of copying. */
static enum ep_status run_cached(void *state)
{
    const struct state *s = state;
    const size_t row_bytes = (size_t)s->exchange->row_bytes;
    for (int64_t i = 0; i < s->num_rows; i++) {
        memcpy(s->to + (size_t)i * row_bytes, s->from + (size_t)i * row_bytes, row_bytes);
    }
    return EP_OK;
}

static enum ep_status run_streaming(void *state)
{
    const struct state *s = state;
    const size_t row_bytes = (size_t)s->exchange->row_bytes;
    for (int64_t i = 0; i < s->num_rows; i++) {
        ep_row_stream(s->to + (size_t)i * row_bytes, s->from + (size_t)i * row_bytes, row_bytes);
    }
    ep_row_stream_end();
    return EP_OK;
}

static enum ep_status run_sum(void *state)
{
    const struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const struct ep_routing *r = x->routing;
    for (int64_t t = 0; t < r->num_tokens; t++) {
        const void *terms[EP_TRANSPORT_MAX_TOP_K];
        float weights[EP_TRANSPORT_MAX_TOP_K];
        int64_t num = 0;
        for (int64_t i = t * r->top_k; i < (t + 1) * r->top_k; i++) {
            if (r->topk_idx[i] >= 0) {
                terms[num] = s->sums + i * x->combine_row_bytes;
                weights[num++] = r->topk_weight[i];
            }
        }
        ep_combine_row(x->combine_dtype, x->hidden, num, terms, weights,
                       x->results + t * x->combine_row_bytes);
    }
    return EP_OK;
}

static void destroy(void *state)
{
    free(state);
}

static enum ep_status take(const struct ep_exchange *x, struct state *s, bool sums)
{
    enum ep_status status = EP_OK;
    void *memory = NULL;
    const struct ep_routing *r = x->routing;
    if (sums) {
        const int64_t size_bytes = r->num_tokens * r->top_k * x->combine_row_bytes;
        EP_TRY(ep_arena_alloc(x->arena, size_bytes, "a bound", &memory));
        memset(memory, 0, (size_t)size_bytes);
        s->sums = memory;
        return EP_OK;
    }
    EP_TRY(ep_arena_alloc(x->arena, s->num_rows * x->row_bytes, "a bound", &memory));
    s->from = memory;
    EP_TRY(ep_arena_alloc(x->arena, s->num_rows * x->row_bytes, "a bound", &memory));
    s->to = memory;
    memset(s->from, 1, (size_t)(s->num_rows * x->row_bytes));
out:
    return status;
}

static enum ep_status create(const struct ep_exchange *x, bool sums, void **state)
{
    enum ep_status status = EP_OK;
    struct ep_copies copies = {0};
    struct state *s = calloc(1, sizeof *s);
    status = s != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a bound");
    EP_TRY(ep_comm_agree(x->comm, status));
    s->exchange = x;
    EP_TRY(ep_copies_init(x, &copies));
    s->num_rows = ep_copies_num_received(&copies);
    EP_TRY(ep_comm_agree(x->comm, take(x, s, sums)));
    *state = s;
    s = NULL;
out:
    ep_copies_fini(&copies);
    free(s);
    return status;
}

static enum ep_status create_copy(const struct ep_exchange *x, void **state)
{
    return create(x, false, state);
}

static enum ep_status create_sum(const struct ep_exchange *x, void **state)
{
    return create(x, true, state);
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    (void)state;
    *e = (struct ep_transport_extras){0};
}

static const struct ep_transport copy_cached = {
    .name = "bound-copy-cached",
    .summary = "all ranks copy as many bytes as they receive",
    .basis = EP_BASIS_COPIES,
    .ops = {[EP_OP_DISPATCH] = {.phases = {{"copy", run_cached, NULL}}, .num_phases = 1}},
    .create = create_copy,
    .extras = extras,
    .destroy = destroy,
};

static const struct ep_transport copy_streaming = {
    .name = "bound-copy-streaming",
    .summary = "the same with streaming stores",
    .basis = EP_BASIS_COPIES,
    .ops = {[EP_OP_DISPATCH] = {.phases = {{"copy", run_streaming, NULL}}, .num_phases = 1}},
    .create = create_copy,
    .extras = extras,
    .destroy = destroy,
};

static const struct ep_transport sum_private = {
    .name = "bound-sum",
    .summary = "all ranks sum as combine does, over rows of their own",
    .basis = EP_BASIS_COPIES,
    .ops = {[EP_OP_COMBINE] = {.phases = {{"sum", run_sum, NULL}}, .num_phases = 1}},
    .create = create_sum,
    .extras = extras,
    .destroy = destroy,
};

const struct ep_transport *const ep_limits_bounds[] = {&copy_cached, &copy_streaming, &sum_private,
                                                       NULL};

enum ep_op ep_limits_bound_op(const struct ep_transport *bound)
{
    return bound->ops[EP_OP_DISPATCH].num_phases > 0 ? EP_OP_DISPATCH : EP_OP_COMBINE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of kernel benchmarks: GEMM, expert FFN, permute, arithmetic peaks, memory streams. */
#include "bench/kernels_case.h"
#include "bench/kernels_gemm.h"
#include "bench/kernels_peaks.h"
#include "kernels/ffn.h"
#include "kernels/gemm_backends.h"
#include "kernels/permute.h"
#include "base/random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_kernels_slot_fill(struct ep_kernels_case *one,
                                    enum ep_status (*create)(struct ep_kernels_case *,
                                                             void **object),
                                    void (*destroy)(void *object))
{
    struct ep_kernels_slot *slot = one->slot;
    if (slot->object != NULL && strcmp(slot->key, one->slot_key) == 0) {
        return EP_OK;
    }
    if (slot->object != NULL) {
        slot->destroy(slot->object);
        slot->object = NULL;
    }
    const enum ep_status status = create(one, &slot->object);
    if (status == EP_OK) {
        slot->destroy = destroy;
        memcpy(slot->key, one->slot_key, sizeof slot->key);
    }
    return status;
}

static int64_t most_tokens(const struct ep_kernels_grid *grid)
{
    int64_t most = 0;
    for (int64_t i = 0; i < grid->num_tokens; i++) {
        most = grid->tokens[i] > most ? grid->tokens[i] : most;
    }
    return most;
}

/* --- GEMM ------------------------------------------------------------------------------------ */

int64_t ep_kernels_case_k(const struct ep_kernels_case *one)
{
    return one->is_w2 ? one->shape->ffn : one->shape->hidden;
}

int64_t ep_kernels_case_n(const struct ep_kernels_case *one)
{
    const int64_t inner = one->shape->gated ? 2 * one->shape->ffn : one->shape->ffn;
    return one->is_w2 ? one->shape->hidden : inner;
}

static enum ep_status gemm_create(struct ep_kernels_case *one, void **object)
{
    const struct ep_kernels_gemm_key key = {one->backend, one->dtype, ep_kernels_case_k(one),
                                            ep_kernels_case_n(one)};
    struct ep_kernels_gemm *gemm = NULL;
    const enum ep_status status =
        ep_kernels_gemm_create(&key, ep_kernels_cold_bytes(one->session, one->grid->cold_caches), most_tokens(one->grid),
                               one->session->options.seed, &gemm);
    *object = gemm;
    return status;
}

static void gemm_destroy(void *object)
{
    ep_kernels_gemm_destroy(object);
}

static enum ep_status gemm_prepare(struct ep_kernels_case *one)
{
    enum ep_status status = ep_kernels_slot_fill(one, gemm_create, gemm_destroy);
    if (status == EP_OK) {
        status = ep_kernels_gemm_run(one->slot->object, one->tokens);
    }
    return status == EP_OK ? ep_kernels_gemm_check(one->slot->object, one->tokens) : status;
}

static enum ep_status gemm_run(struct ep_kernels_case *one)
{
    return ep_kernels_gemm_run(one->slot->object, one->tokens);
}

static enum ep_status fill_gemm(const struct ep_kernels_case *one, int64_t k, int64_t n,
                                int64_t groups, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_record_set_text(&record->model, "%s", one->shape->model));
    EP_TRY(ep_record_set_text(&record->gemm.backend, "%s", one->backend->name));
    EP_TRY(ep_record_set_text(&record->gemm.dtype, "%s", ep_dtype_name(one->dtype)));
    record->gemm.m = one->tokens;
    record->gemm.n = n;
    record->gemm.k = k;
    record->gemm.groups = groups;
    record->gemm.weights_cold = 1;
    record->gemm.ranks_active = one->ranks_active;
    record->gemm.flops = one->flops;
    record->gemm.bytes = one->bytes;
out:
    return status;
}

static enum ep_status gemm_fill(const struct ep_kernels_case *one, struct ep_record *record)
{
    const enum ep_status status =
        fill_gemm(one, ep_kernels_case_k(one), ep_kernels_case_n(one), 1, record);
    return status == EP_OK ? ep_record_set_text(&record->kernel, "gemm") : status;
}

const struct ep_kernels_kind ep_kernels_gemm_kind = {gemm_prepare, gemm_run, gemm_fill};

/* --- expert FFN ------------------------------------------------------------------------------ */

struct ffn_object {
    struct ep_ffn *ffn;
    int64_t num_experts;
    void **w13, **w2;  /* [num_experts] until packed; a back end may use them in place */
    int64_t *num_rows; /* [num_experts] */
    void *x;
    float *y;
    /* backward only, else NULL */
    void *dy;
    float *dx;
    float **dw13, **dw2; /* [num_experts] */
};

static void ffn_destroy(void *object)
{
    struct ffn_object *o = object;
    ep_ffn_destroy(o->ffn);
    for (int64_t e = 0; e < o->num_experts; e++) {
        free(o->w13 != NULL ? o->w13[e] : NULL);
        free(o->w2 != NULL ? o->w2[e] : NULL);
        free(o->dw13 != NULL ? o->dw13[e] : NULL);
        free(o->dw2 != NULL ? o->dw2[e] : NULL);
    }
    free(o->dy);
    free(o->dx);
    free(o->dw13);
    free(o->dw2);
    free(o->w13);
    free(o->w2);
    free(o->num_rows);
    free(o->x);
    free(o->y);
    free(o);
}

static void *make_matrix(const struct ep_kernels_case *one, int64_t expert, int64_t num)
{
    void *matrix = ep_gemm_alloc(num * ep_dtype_element_bytes(one->dtype));
    if (matrix != NULL) {
        ep_kernels_fill(one->dtype, one->session->options.seed, expert, num, matrix);
    }
    return matrix;
}

static struct ep_ffn_shape ffn_shape(const struct ep_kernels_case *one)
{
    return (struct ep_ffn_shape){.kind = one->shape->gated ? EP_FFN_SWIGLU : EP_FFN_RELU,
                                 .num_groups = one->num_experts,
                                 .hidden = one->shape->hidden,
                                 .ffn = one->shape->ffn,
                                 .dtype = one->dtype};
}

static enum ep_status ffn_create(struct ep_kernels_case *one, void **object)
{
    enum ep_status status = EP_OK;
    const struct ep_ffn_shape shape = ffn_shape(one);
    const int64_t rows = one->num_experts * most_tokens(one->grid);
    struct ffn_object *o = calloc(1, sizeof *o);
    bool made = o != NULL;
    if (made) {
        const size_t num = (size_t)one->num_experts;
        o->w13 = calloc(num, sizeof *o->w13);
        o->w2 = calloc(num, sizeof *o->w2);
        o->num_rows = calloc(num, sizeof *o->num_rows);
        o->x = make_matrix(one, -1, rows * shape.hidden);
        o->y = ep_gemm_alloc(rows * shape.hidden * (int64_t)sizeof(float));
        made = o->w13 != NULL && o->w2 != NULL && o->num_rows != NULL && o->x != NULL &&
               o->y != NULL;
    }
    for (int64_t e = 0; made && e < one->num_experts; e++) {
        o->num_experts = e + 1;
        o->w13[e] = make_matrix(one, 2 * e, shape.hidden * ep_ffn_inner_columns(&shape));
        o->w2[e] = make_matrix(one, 2 * e + 1, shape.hidden * shape.ffn);
        made = o->w13[e] != NULL && o->w2[e] != NULL;
    }
    if (!made) {
        status = ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " experts of %s",
                              one->num_experts, one->shape->model);
        goto out;
    }
    EP_TRY(ep_ffn_create(one->backend, &shape, (const void *const *)o->w13,
                         (const void *const *)o->w2, rows, &o->ffn));
    *object = o;
    o = NULL;
out:
    if (o != NULL) {
        ffn_destroy(o);
    }
    return status;
}

static enum ep_status ffn_run(struct ep_kernels_case *one)
{
    const struct ffn_object *o = one->slot->object;
    return ep_ffn_run(o->ffn, o->num_rows, o->x, o->y);
}

static enum ep_status ffn_prepare(struct ep_kernels_case *one)
{
    const enum ep_status status = ep_kernels_slot_fill(one, ffn_create, ffn_destroy);
    if (status != EP_OK) {
        return status;
    }
    const struct ffn_object *o = one->slot->object;
    for (int64_t e = 0; e < o->num_experts; e++) {
        o->num_rows[e] = one->tokens;
    }
    /* the last row of the last expert: whatever went wrong before it moves it */
    const struct ep_ffn_shape shape = ffn_shape(one);
    const enum ep_status ran = ffn_run(one);
    return ran != EP_OK ? ran
                        : ep_kernels_ffn_check(&shape, one->session->options.seed,
                                               o->num_experts - 1,
                                               o->num_experts * one->tokens - 1, o->y);
}

static enum ep_status ffn_fill(const struct ep_kernels_case *one, struct ep_record *record)
{
    const struct ep_ffn_shape shape = ffn_shape(one);
    const enum ep_status status =
        fill_gemm(one, shape.hidden, ep_ffn_inner_columns(&shape), one->num_experts, record);
    return status == EP_OK ? ep_record_set_text(&record->kernel, "ffn-%s",
                                                ep_ffn_kind_name(shape.kind))
                           : status;
}

const struct ep_kernels_kind ep_kernels_ffn_kind = {ffn_prepare, ffn_run, ffn_fill};

/* --- its backward ---------------------------------------------------------------------------- */

/* A gradient for every expert, as training holds them: written from cold. */
static bool make_gradients(const struct ep_kernels_case *one, struct ffn_object *o)
{
    const struct ep_ffn_shape shape = ffn_shape(one);
    const int64_t rows = one->num_experts * most_tokens(one->grid);
    const int64_t element = (int64_t)sizeof(float);
    o->dy = make_matrix(one, EP_KERNELS_DY, rows * shape.hidden);
    o->dx = ep_gemm_alloc(rows * shape.hidden * element);
    o->dw13 = calloc((size_t)one->num_experts, sizeof *o->dw13);
    o->dw2 = calloc((size_t)one->num_experts, sizeof *o->dw2);
    bool made = o->dy != NULL && o->dx != NULL && o->dw13 != NULL && o->dw2 != NULL;
    for (int64_t e = 0; made && e < one->num_experts; e++) {
        o->dw13[e] = ep_gemm_alloc(shape.hidden * ep_ffn_inner_columns(&shape) * element);
        o->dw2[e] = ep_gemm_alloc(shape.hidden * shape.ffn * element);
        made = o->dw13[e] != NULL && o->dw2[e] != NULL;
    }
    return made;
}

static enum ep_status ffn_backward_create(struct ep_kernels_case *one, void **object)
{
    enum ep_status status = EP_OK;
    struct ffn_object *o = NULL;
    void *made = NULL;
    EP_TRY(ffn_create(one, &made));
    o = made;
    if (!make_gradients(one, o)) {
        status = ep_error_set(EP_ENOMEM, "no memory for the gradients of %" PRId64 " experts of %s",
                              one->num_experts, one->shape->model);
        goto out;
    }
    EP_TRY(ep_ffn_prepare_backward(o->ffn, (const void *const *)o->w13, (const void *const *)o->w2,
                                   false));
    *object = o;
    o = NULL;
out:
    if (o != NULL) {
        ffn_destroy(o);
    }
    return status;
}

static enum ep_status ffn_backward_run(struct ep_kernels_case *one)
{
    const struct ffn_object *o = one->slot->object;
    return ep_ffn_backward(o->ffn, o->num_rows, o->x, o->dy, o->dx, o->dw13, o->dw2);
}

static enum ep_status ffn_backward_prepare(struct ep_kernels_case *one)
{
    enum ep_status status = EP_OK;
    const struct ep_ffn_shape shape = ffn_shape(one);
    EP_TRY(ep_kernels_slot_fill(one, ffn_backward_create, ffn_destroy));
    const struct ffn_object *o = one->slot->object;
    const int64_t last = o->num_experts - 1;
    for (int64_t e = 0; e < o->num_experts; e++) {
        o->num_rows[e] = one->tokens;
    }
    EP_TRY(ffn_run(one)); /* keeps z, which all backwards take */
    EP_TRY(ffn_backward_run(one));
    EP_TRY(ep_kernels_ffn_check_backward(&shape, one->session->options.seed, last,
                                         last * one->tokens, one->tokens, o->dx, o->dw13[last],
                                         o->dw2[last]));
out:
    return status;
}

static enum ep_status ffn_backward_fill(const struct ep_kernels_case *one,
                                        struct ep_record *record)
{
    const enum ep_status status = ffn_fill(one, record);
    return status == EP_OK
               ? ep_record_set_text(&record->kernel, "ffn-%s-backward",
                                    ep_ffn_kind_name(ffn_shape(one).kind))
               : status;
}

const struct ep_kernels_kind ep_kernels_ffn_backward_kind = {ffn_backward_prepare, ffn_backward_run,
                                                             ffn_backward_fill};

/* --- permute and unpermute ------------------------------------------------------------------- */

struct permute_object {
    struct ep_permutation permutation;
    void *tokens;
    void *permuted;
    float *weights;
};

static void permute_destroy(void *object)
{
    struct permute_object *o = object;
    ep_permute_fini(&o->permutation);
    free(o->tokens);
    free(o->permuted);
    free(o->weights);
    free(o);
}

/* Top-k different experts of each token, all equally likely (Floyd's sampling). */
static void draw_experts(const struct ep_kernels_case *one, int32_t *topk_idx)
{
    const struct ep_kernels_shape *shape = one->shape;
    for (int64_t t = 0; t < one->tokens; t++) {
        struct ep_random random;
        int32_t *chosen = topk_idx + t * shape->top_k;
        ep_random_init(&random, one->session->options.seed, EP_RANDOM_ROUTING, (uint64_t)t);
        for (int64_t j = 0; j < shape->top_k; j++) {
            const int64_t last = shape->num_experts - shape->top_k + j;
            int32_t pick = (int32_t)ep_random_below(&random, (uint32_t)last + 1);
            for (int64_t i = 0; i < j; i++) {
                pick = chosen[i] == pick ? (int32_t)last : pick;
            }
            chosen[j] = pick;
        }
    }
}

static enum ep_status permute_create(struct ep_kernels_case *one, void **object)
{
    enum ep_status status = EP_OK;
    const struct ep_kernels_shape *shape = one->shape;
    const int64_t slots = one->tokens * shape->top_k;
    const int64_t row_bytes = shape->hidden * ep_dtype_element_bytes(one->dtype);
    struct permute_object *o = calloc(1, sizeof *o);
    int32_t *topk_idx = calloc((size_t)slots, sizeof *topk_idx);
    if (o != NULL) {
        o->tokens = make_matrix(one, -1, one->tokens * shape->hidden);
        o->permuted = ep_gemm_alloc(slots * row_bytes);
        o->weights = calloc((size_t)slots, sizeof *o->weights);
    }
    if (o == NULL || topk_idx == NULL || o->tokens == NULL || o->permuted == NULL ||
        o->weights == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to permute %" PRId64 " tokens", one->tokens);
        goto out;
    }
    for (int64_t i = 0; i < slots; i++) {
        o->weights[i] = 1.0f / (float)shape->top_k;
    }
    draw_experts(one, topk_idx);
    EP_TRY(ep_permute_init(topk_idx, one->tokens, shape->top_k, shape->num_experts,
                           &o->permutation));
    *object = o;
    o = NULL;
out:
    free(topk_idx);
    if (o != NULL) {
        permute_destroy(o);
    }
    return status;
}

static enum ep_status permute_run(struct ep_kernels_case *one)
{
    struct permute_object *o = one->slot->object;
    if (one->is_unpermute) {
        return ep_permute_sum_rows(&o->permutation, o->permuted, one->dtype, one->shape->hidden,
                                   o->weights, o->tokens);
    }
    ep_permute_rows(&o->permutation, o->tokens,
                    one->shape->hidden * ep_dtype_element_bytes(one->dtype), o->permuted);
    return EP_OK;
}

static enum ep_status permute_prepare(struct ep_kernels_case *one)
{
    const enum ep_status status = ep_kernels_slot_fill(one, permute_create, permute_destroy);
    return status == EP_OK ? permute_run(one) : status;
}

static enum ep_status permute_fill(const struct ep_kernels_case *one, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_record_set_text(&record->kernel, one->is_unpermute ? "unpermute" : "permute"));
    EP_TRY(ep_record_set_text(&record->model, "%s", one->shape->model));
    EP_TRY(ep_record_set_text(&record->dtype, "%s", ep_dtype_name(one->dtype)));
    record->tokens = one->tokens;
    record->hidden = one->shape->hidden;
    record->top_k = one->shape->top_k;
    record->experts = one->shape->num_experts;
out:
    return status;
}

const struct ep_kernels_kind ep_kernels_permute_kind = {permute_prepare, permute_run, permute_fill};

/* --- arithmetic peaks ------------------------------------------------------------------------ */

int64_t ep_kernels_peak_rounds(const struct ep_peak_loop *loop)
{
    return (int64_t)(4e8 / loop->flops_per_round) + 1;
}

static enum ep_status peak_run(struct ep_kernels_case *one)
{
    static volatile float kept; /* so that the loop is not dropped */
    kept = one->loop->run(ep_kernels_peak_rounds(one->loop));
    (void)kept;
    return EP_OK;
}

static enum ep_status peak_fill(const struct ep_kernels_case *one, struct ep_record *record)
{
    const enum ep_status status = ep_record_set_text(&record->kernel, "peak");
    return status == EP_OK
               ? ep_record_set_text(&record->dtype, "%s", ep_dtype_name(one->loop->dtype))
               : status;
}

const struct ep_kernels_kind ep_kernels_peak_kind = {peak_run, peak_run, peak_fill};

/* --- memory streams -------------------------------------------------------------------------- */

struct stream_object {
    void *to, *from;
};

static void stream_destroy(void *object)
{
    struct stream_object *o = object;
    free(o->to);
    free(o->from);
    free(o);
}

static enum ep_status stream_create(struct ep_kernels_case *one, void **object)
{
    struct stream_object *o = calloc(1, sizeof *o);
    if (o != NULL) {
        o->to = ep_gemm_alloc(one->size_bytes);
        o->from = ep_gemm_alloc(one->size_bytes);
    }
    if (o == NULL || o->to == NULL || o->from == NULL) {
        if (o != NULL) {
            stream_destroy(o);
        }
        return ep_error_set(EP_ENOMEM, "no memory for two buffers of %" PRId64 " bytes",
                            one->size_bytes);
    }
    memset(o->from, 1, (size_t)one->size_bytes); /* real pages, not the zero page */
    *object = o;
    return EP_OK;
}

static enum ep_status stream_run(struct ep_kernels_case *one)
{
    static volatile uint64_t kept;
    const struct stream_object *o = one->slot->object;
    kept = one->stream->run(o->to, o->from, one->size_bytes);
    (void)kept;
    return EP_OK;
}

static enum ep_status stream_prepare(struct ep_kernels_case *one)
{
    const enum ep_status status = ep_kernels_slot_fill(one, stream_create, stream_destroy);
    return status == EP_OK ? stream_run(one) : status;
}

static enum ep_status stream_fill(const struct ep_kernels_case *one, struct ep_record *record)
{
    record->working_set_bytes = one->size_bytes * (one->stream->is_copy ? 2 : 1);
    return ep_record_set_text(&record->kernel, "%s",
                              one->stream->is_read ? "read" : one->stream->name);
}

const struct ep_kernels_kind ep_kernels_stream_kind = {stream_prepare, stream_run, stream_fill};

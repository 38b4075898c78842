/* SPDX-License-Identifier: Apache-2.0 */
/* Weights from one pool of numbers: a matrix is a stretch of it that begins where its expert says. */
#include "bench/layer_bank.h"

#include "bench/kernels_gemm.h"
#include "kernels/gemm_backends.h"
#include "kernels/placement.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The pool repeats after a prime number of elements, so that no row of a matrix repeats another; matrices
 * begin STRIDE apart. */
enum { PERIOD = 1048573, STRIDE = 193, ROUTER = EP_MAX_EXPERTS + 8 };

/* One packed set. Matrices of its own only where the back end reads them in place. */
struct entry {
    struct ep_layer_set set; /* set.experts is the entry's own */
    int64_t max_rows;
    struct ep_ffn *ffn;
    void **matrices; /* [2 num_groups] */
    float **gradients; /* [2 num_groups], where the set has backward */
    int64_t last_use;
};

struct ep_layer_bank {
    uint64_t seed;
    int64_t ranks_per_node;
    enum ep_dtype dtype; /* of the pool */
    int64_t scale_of;    /* hidden size that the pool's numbers are scaled for */
    char *pool;
    int64_t num_pooled;
    struct entry entries[EP_LAYER_BANK_KEPT];
    int64_t num_uses;
    struct ep_gemm_packed router;
    void *router_matrix;
};

enum ep_status ep_layer_bank_create(uint64_t seed, int64_t ranks_per_node,
                                    struct ep_layer_bank **bank)
{
    struct ep_layer_bank *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for weights");
    }
    made->seed = seed;
    made->ranks_per_node = ranks_per_node > 0 ? ranks_per_node : 1;
    *bank = made;
    return EP_OK;
}

static void clear_entry(struct entry *e)
{
    ep_ffn_destroy(e->ffn);
    for (int64_t i = 0; e->matrices != NULL && i < 2 * e->set.shape.num_groups; i++) {
        free(e->matrices[i]);
    }
    for (int64_t i = 0; e->gradients != NULL && i < 2 * e->set.shape.num_groups; i++) {
        free(e->gradients[i]);
    }
    free(e->matrices);
    free(e->gradients);
    free((void *)e->set.experts);
    *e = (struct entry){0};
}

static void clear_router(struct ep_layer_bank *bank)
{
    ep_gemm_release(&bank->router);
    free(bank->router_matrix);
    bank->router = (struct ep_gemm_packed){0};
    bank->router_matrix = NULL;
}

void ep_layer_bank_destroy(struct ep_layer_bank *bank)
{
    if (bank != NULL) {
        for (int i = 0; i < EP_LAYER_BANK_KEPT; i++) {
            clear_entry(&bank->entries[i]);
        }
        clear_router(bank);
        free(bank->pool);
        free(bank);
    }
}

/* --- the pool --------------------------------------------------------------------------------- */

/* Products of rows in [-1, 1) with `hidden` such weights stay near 1: a power of two keeps them exact. */
static float scale_for(int64_t hidden)
{
    return ldexpf(1, -(int)lround(log2((double)hidden) / 2));
}

static void scale(enum ep_dtype dtype, float factor, int64_t num, void *values)
{
    for (int64_t i = 0; i < num; i++) {
        if (dtype == EP_BF16) {
            uint16_t *value = (uint16_t *)values + i;
            *value = ep_bf16_from_f32(ep_bf16_to_f32(*value) * factor);
        } else {
            ((float *)values)[i] *= factor;
        }
    }
}

static enum ep_status fill_pool(struct ep_layer_bank *bank, enum ep_dtype dtype, int64_t hidden,
                                int64_t num)
{
    if (bank->pool != NULL && bank->dtype == dtype && bank->scale_of == hidden &&
        bank->num_pooled >= num) {
        return EP_OK;
    }
    const int64_t element = ep_dtype_element_bytes(dtype);
    const int64_t size = (num > PERIOD ? num : PERIOD) * element;
    free(bank->pool);
    bank->pool = ep_gemm_alloc(size);
    if (bank->pool == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a matrix of %" PRId64 " weights", num);
    }
    ep_kernels_fill(dtype, bank->seed, 0, PERIOD, bank->pool);
    scale(dtype, scale_for(hidden), PERIOD, bank->pool);
    for (int64_t at = PERIOD * element; at < size; at += PERIOD * element) {
        const int64_t left = size - at;
        memcpy(bank->pool + at, bank->pool,
               (size_t)(left < PERIOD * element ? left : PERIOD * element));
    }
    bank->dtype = dtype;
    bank->scale_of = hidden;
    bank->num_pooled = num;
    return EP_OK;
}

static int64_t num_weights(const struct ep_ffn_shape *shape, int which)
{
    return shape->hidden * (which == 0 ? ep_ffn_inner_columns(shape) : shape->ffn);
}

enum ep_status ep_layer_bank_matrix(struct ep_layer_bank *bank, const struct ep_ffn_shape *shape,
                                    int64_t expert, int which, const void **matrix)
{
    const int64_t first = (2 * expert + which) % (PERIOD / STRIDE) * STRIDE;
    const enum ep_status status =
        fill_pool(bank, shape->dtype, shape->hidden, PERIOD + num_weights(shape, 0));
    if (status == EP_OK) {
        *matrix = bank->pool + first * ep_dtype_element_bytes(shape->dtype);
    }
    return status;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* What the system says that can be had without swapping, bytes; -1 where it does not say. */
static int64_t available_bytes(void)
{
    long long kib = -1;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %lld kB", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib < 0 ? -1 : (int64_t)kib * 1024;
}

static enum ep_status check_memory(const struct ep_layer_bank *bank, int64_t need_bytes)
{
    const int64_t has_bytes = available_bytes();
    if (has_bytes >= 0 && need_bytes > has_bytes / 10 * 9 / bank->ranks_per_node) {
        return ep_error_set(EP_ENOMEM, "weights and inner rows of a rank take %.2f GB, its share of the "
                            "%.2f GB that are free is less: fewer --experts, --ffn or --tokens",
                            (double)need_bytes / 1e9, (double)has_bytes / 1e9);
    }
    return EP_OK;
}

/* --- sets ------------------------------------------------------------------------------------- */

static bool is_same(const struct ep_layer_set *a, const struct ep_layer_set *b)
{
    return a->backend == b->backend && a->shape.kind == b->shape.kind &&
           a->shape.num_groups == b->shape.num_groups && a->shape.hidden == b->shape.hidden &&
           a->shape.ffn == b->shape.ffn && a->shape.dtype == b->shape.dtype &&
           a->slice == b->slice && a->num_slices == b->num_slices && a->backward == b->backward &&
           memcmp(a->experts, b->experts, (size_t)a->shape.num_groups * sizeof *a->experts) == 0;
}

/* Rows [0, num_rows) of `num` columns from `first` on of a matrix with `columns`. */
static void copy_columns(const char *from, int64_t num_rows, int64_t columns, int64_t first,
                         int64_t num, int64_t element, int64_t to_columns, char *to)
{
    for (int64_t row = 0; row < num_rows; row++) {
        memcpy(to + row * to_columns * element, from + (row * columns + first) * element,
               (size_t)(num * element));
    }
}

/* A slice's own copy of one matrix: inner columns [first, first + part->ffn). */
static void cut_matrix(const struct ep_ffn_shape *whole, const struct ep_ffn_shape *part,
                       int64_t first, int which, const char *from, char *to)
{
    const int64_t element = ep_dtype_element_bytes(whole->dtype);
    const int64_t columns = ep_ffn_inner_columns(whole);
    const int64_t to_columns = ep_ffn_inner_columns(part);
    if (which == 1) { /* rows of the down matrix */
        memcpy(to, from + first * whole->hidden * element,
               (size_t)(part->ffn * whole->hidden * element));
        return;
    }
    copy_columns(from, whole->hidden, columns, first, part->ffn, element, to_columns, to);
    if (to_columns > part->ffn) { /* gate was first, up follows */
        copy_columns(from, whole->hidden, columns, whole->ffn + first, part->ffn, element, to_columns,
                     to + part->ffn * element);
    }
}

/* The matrices of an entry's experts: stretches of the pool, or copies (kept in e->matrices). */
static enum ep_status find_matrices(struct ep_layer_bank *bank, struct entry *e,
                                    const struct ep_ffn_shape *part, bool copies,
                                    const void **matrices)
{
    enum ep_status status = EP_OK;
    const struct ep_layer_set *set = &e->set;
    const int64_t groups = set->shape.num_groups;
    const int64_t first = ep_layer_slice_start(set->shape.ffn, set->slice, set->num_slices);
    if (copies) {
        e->matrices = calloc(2 * (size_t)groups, sizeof *e->matrices);
    }
    for (int64_t i = 0; i < 2 * groups; i++) {
        const int which = i >= groups;
        const void *whole = NULL;
        EP_TRY(ep_layer_bank_matrix(bank, &set->shape, set->experts[i % groups], which, &whole));
        matrices[i] = whole;
        if (!copies) {
            continue;
        }
        const int64_t size = num_weights(part, which) * ep_dtype_element_bytes(part->dtype);
        char *own = e->matrices != NULL ? ep_gemm_alloc(size) : NULL;
        if (own == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for the weights of %" PRId64 " experts",
                                groups);
        }
        e->matrices[i] = own;
        cut_matrix(&set->shape, part, first, which, whole, own);
        matrices[i] = own;
    }
out:
    return status;
}

static enum ep_status add_gradients(struct entry *e, const struct ep_ffn_shape *part)
{
    const int64_t groups = part->num_groups;
    e->gradients = calloc(2 * (size_t)groups, sizeof *e->gradients);
    for (int64_t i = 0; e->gradients != NULL && i < 2 * groups; i++) {
        e->gradients[i] = ep_gemm_alloc(num_weights(part, i >= groups) * (int64_t)sizeof(float));
        if (e->gradients[i] == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for the gradients of %" PRId64 " experts",
                                groups);
        }
    }
    return e->gradients != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for gradients");
}

static enum ep_status fill_entry(struct ep_layer_bank *bank, const struct ep_layer_set *set,
                                 int64_t max_rows, struct entry *e)
{
    enum ep_status status = EP_OK;
    bool borrows = false;
    const int64_t groups = set->shape.num_groups;
    struct ep_ffn_shape part = set->shape;
    part.ffn = ep_layer_slice_start(set->shape.ffn, set->slice + 1, set->num_slices) -
               ep_layer_slice_start(set->shape.ffn, set->slice, set->num_slices);
    const int64_t element = ep_dtype_element_bytes(part.dtype);
    int32_t *experts = malloc((size_t)groups * sizeof *experts);
    const void **matrices = calloc(2 * (size_t)groups, sizeof *matrices);
    e->set = *set;
    e->set.experts = experts;
    e->max_rows = max_rows;
    if (experts == NULL || matrices == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " experts", groups);
        goto out;
    }
    memcpy(experts, set->experts, (size_t)groups * sizeof *experts);
    /* each expert then needs its own memory: in the pool they overlap, and would share cache lines */
    EP_TRY(ep_gemm_find_borrowing(set->backend, set->shape.dtype, &borrows));
    /* What backward packs reads the matrices until the end; the pool may be made anew. */
    const int64_t copies = borrows || set->num_slices > 1 || set->backward;
    const int64_t matrix_weights = num_weights(&part, 0) + num_weights(&part, 1);
    const int64_t inner_bytes = ep_ffn_inner_columns(&part) * 4 + part.ffn * element;
    const int64_t back = set->backward ? 1 : 0; /* matrices transposed, gradients in fp32 */
    EP_TRY(check_memory(bank, groups * matrix_weights * ((1 + copies + back) * element + back * 4) +
                                  max_rows * inner_bytes * (1 + 2 * back)));
    EP_TRY(find_matrices(bank, e, &part, copies != 0, matrices));
    EP_TRY(ep_ffn_create(set->backend, &part, matrices, matrices + groups, max_rows, &e->ffn));
    if (set->backward) {
        EP_TRY(ep_ffn_prepare_backward(e->ffn, matrices, matrices + groups, false));
        EP_TRY(add_gradients(e, &part));
    }
    for (int64_t i = 0; copies != 0 && !borrows && !set->backward && i < 2 * groups; i++) {
        free(e->matrices[i]);
        e->matrices[i] = NULL;
    }
out:
    free(matrices);
    return status;
}

enum ep_status ep_layer_bank_ffn(struct ep_layer_bank *bank, const struct ep_layer_set *set,
                                 int64_t max_rows, struct ep_ffn **ffn)
{
    enum ep_status status = EP_OK;
    struct entry *chosen = &bank->entries[0];
    for (int i = 0; i < EP_LAYER_BANK_KEPT; i++) {
        struct entry *e = &bank->entries[i];
        if (e->ffn != NULL && is_same(&e->set, set)) {
            chosen = e;
            break;
        }
        chosen = e->last_use < chosen->last_use ? e : chosen;
    }
    const bool has = chosen->ffn != NULL && is_same(&chosen->set, set);
    if (!has || chosen->max_rows < max_rows) {
        clear_entry(chosen);
        EP_TRY(fill_entry(bank, set, max_rows, chosen));
    }
    chosen->last_use = ++bank->num_uses;
    *ffn = chosen->ffn;
    chosen = NULL;
out:
    if (chosen != NULL) {
        clear_entry(chosen);
    }
    return status;
}

void ep_layer_bank_gradients(const struct ep_layer_bank *bank, const struct ep_ffn *ffn,
                             float *const **dw13, float *const **dw2)
{
    const struct entry *e = bank->entries;
    while (e->ffn != ffn) {
        e++;
    }
    *dw13 = e->gradients;
    *dw2 = e->gradients + e->set.shape.num_groups;
}

enum ep_status ep_layer_bank_router(struct ep_layer_bank *bank,
                                    const struct ep_gemm_backend *backend,
                                    const struct ep_gemm_shape *shape,
                                    const struct ep_gemm_packed **router)
{
    enum ep_status status = EP_OK;
    const struct ep_gemm_shape *has = &bank->router.shape;
    if (bank->router.backend != backend || has->k != shape->k || has->n != shape->n ||
        has->dtype != shape->dtype) {
        const struct ep_ffn_shape as_ffn = {.kind = EP_FFN_RELU, .num_groups = 1,
                                            .hidden = shape->k, .ffn = shape->n,
                                            .dtype = shape->dtype};
        const size_t size =
            (size_t)(shape->k * shape->n * ep_dtype_element_bytes(shape->dtype));
        const void *pooled = NULL;
        clear_router(bank);
        EP_TRY(ep_layer_bank_matrix(bank, &as_ffn, ROUTER, 0, &pooled));
        bank->router_matrix = ep_gemm_alloc((int64_t)size);
        if (bank->router_matrix == NULL) {
            status = ep_error_set(EP_ENOMEM, "no memory for a router");
            goto out;
        }
        memcpy(bank->router_matrix, pooled, size);
        const void *weights[1] = {bank->router_matrix};
        EP_TRY(ep_gemm_pack(backend, shape, weights, &bank->router));
    }
    *router = &bank->router;
out:
    return status;
}

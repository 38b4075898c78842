/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM back end `onednn`: matmul primitives on weights in the library's own layout (2.x and 3.x). */
#include "kernels/gemm_backends.h"

#include <dnnl.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* oneDNN's CPU runtime is OpenMP or its own; weak, so that either links. */
extern void omp_set_num_threads(int num_threads) __attribute__((weak));

/* The layout is asked for at this many rows, and kept for all others. */
enum { LAYOUT_ROWS = 64 };

/* What 2.x and 3.x name differently: memory descriptors as structs or as handles, and operation
 * descriptors that are gone. Everything below this part is common. */
#if DNNL_VERSION_MAJOR >= 3
#define DESC(desc) (desc)

static dnnl_status_t desc_init(dnnl_memory_desc_t *desc, int64_t rows, int64_t columns,
                               dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    const dnnl_dims_t dims = {rows, columns};
    return dnnl_memory_desc_create_with_tag(desc, 2, dims, type, tag);
}

static void desc_fini(dnnl_memory_desc_t *desc)
{
    if (*desc != NULL) {
        dnnl_memory_desc_destroy(*desc);
        *desc = NULL;
    }
}

static dnnl_status_t desc_copy(dnnl_memory_desc_t *desc, const_dnnl_primitive_desc_t from)
{
    return dnnl_memory_desc_clone(
        desc, dnnl_primitive_desc_query_md(from, dnnl_query_weights_md, 0));
}

static dnnl_status_t matmul_init(dnnl_primitive_desc_t *matmul, dnnl_engine_t engine,
                                 dnnl_memory_desc_t *x, dnnl_memory_desc_t *w,
                                 dnnl_memory_desc_t *y)
{
    return dnnl_matmul_primitive_desc_create(matmul, engine, *x, *w, NULL, *y, NULL);
}
#else
#define DESC(desc) (&(desc))

static dnnl_status_t desc_init(dnnl_memory_desc_t *desc, int64_t rows, int64_t columns,
                               dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    const dnnl_dims_t dims = {rows, columns};
    return dnnl_memory_desc_init_by_tag(desc, 2, dims, type, tag);
}

static void desc_fini(dnnl_memory_desc_t *desc)
{
    (void)desc;
}

static dnnl_status_t desc_copy(dnnl_memory_desc_t *desc, const_dnnl_primitive_desc_t from)
{
    *desc = *dnnl_primitive_desc_query_md(from, dnnl_query_weights_md, 0);
    return dnnl_success;
}

static dnnl_status_t matmul_init(dnnl_primitive_desc_t *matmul, dnnl_engine_t engine,
                                 dnnl_memory_desc_t *x, dnnl_memory_desc_t *w,
                                 dnnl_memory_desc_t *y)
{
    dnnl_matmul_desc_t desc;
    const dnnl_status_t status = dnnl_matmul_desc_init(&desc, x, w, NULL, y);
    return status != dnnl_success ? status
                                  : dnnl_primitive_desc_create(matmul, &desc, NULL, engine, NULL);
}
#endif

/* A primitive for one number of rows, with its memory objects; data handles are set per call. */
struct cached {
    int64_t num_rows;
    bool is_gradient; /* y = x^T w, w the rows of dz */
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y;
    dnnl_memory_t w; /* of a gradient; else NULL */
};

struct onednn_state {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_memory_desc_t layout; /* of one matrix */
    bool has_layout;
    char *matrices;         /* packed, one after another, `stride_bytes` apart */
    int64_t stride_bytes;
    dnnl_memory_t *weights; /* [num_groups] */
    struct cached *cache;   /* [num_cached] */
    int64_t num_cached;
};

#define DNNL_TRY(call)                                                                   \
    do {                                                                                 \
        const dnnl_status_t dnnl_code = (call);                                          \
        if (dnnl_code != dnnl_success) {                                                 \
            status = ep_error_set(dnnl_code == dnnl_out_of_memory ? EP_ENOMEM : EP_EENV, \
                                  "oneDNN refused (status %d): %s", (int)dnnl_code,      \
                                  #call);                                                \
            goto out;                                                                    \
        }                                                                                \
    } while (0)

static dnnl_data_type_t data_type(enum ep_dtype dtype)
{
    return dtype == EP_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* Primitive descriptor for m rows; layout NULL lets the library choose the weights' layout. */
static dnnl_status_t describe(dnnl_engine_t engine, const struct ep_gemm_shape *shape, int64_t m,
                              dnnl_memory_desc_t *layout, dnnl_primitive_desc_t *matmul)
{
    const dnnl_data_type_t type = data_type(shape->dtype);
    dnnl_memory_desc_t x, w, y;
    memset(&x, 0, sizeof x);
    memset(&w, 0, sizeof w);
    memset(&y, 0, sizeof y);
    dnnl_status_t code = desc_init(&x, m, shape->k, type, dnnl_ab);
    if (code == dnnl_success) {
        code = desc_init(&y, m, shape->n, dnnl_f32, dnnl_ab);
    }
    if (code == dnnl_success && layout == NULL) {
        code = desc_init(&w, shape->k, shape->n, type, dnnl_format_tag_any);
    }
    if (code == dnnl_success) {
        code = matmul_init(matmul, engine, &x, layout != NULL ? layout : &w, &y);
    }
    desc_fini(&x);
    desc_fini(&w);
    desc_fini(&y);
    return code;
}

static bool onednn_available(enum ep_dtype dtype, char *reason, size_t length)
{
    const dnnl_version_t *version = dnnl_version();
    const struct ep_gemm_shape shape = {.num_groups = 1, .k = 64, .n = 64, .dtype = dtype};
    dnnl_engine_t engine = NULL;
    dnnl_primitive_desc_t matmul = NULL;
    const char *implementation = "";
    dnnl_status_t code = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (code == dnnl_success) {
        code = describe(engine, &shape, LAYOUT_ROWS, NULL, &matmul);
    }
    if (code == dnnl_success) {
        code = dnnl_primitive_desc_query(matmul, dnnl_query_impl_info_str, 0, &implementation);
    }
    if (code == dnnl_success) {
        snprintf(reason, length, "oneDNN %d.%d.%d, %s", version->major, version->minor,
                 version->patch, implementation);
    } else {
        snprintf(reason, length, "oneDNN %d.%d.%d has no %s matmul for this CPU (status %d)",
                 version->major, version->minor, version->patch, ep_dtype_name(dtype),
                 (int)code);
    }
    if (matmul != NULL) {
        dnnl_primitive_desc_destroy(matmul);
    }
    if (engine != NULL) {
        dnnl_engine_destroy(engine);
    }
    return code == dnnl_success;
}

static void cached_fini(struct cached *entry)
{
    if (entry->primitive != NULL) {
        dnnl_primitive_destroy(entry->primitive);
    }
    if (entry->x != NULL) {
        dnnl_memory_destroy(entry->x);
    }
    if (entry->y != NULL) {
        dnnl_memory_destroy(entry->y);
    }
    if (entry->w != NULL) {
        dnnl_memory_destroy(entry->w);
    }
}

static void destroy_state(struct onednn_state *state, int64_t num_groups)
{
    if (state == NULL) {
        return;
    }
    for (int64_t i = 0; i < state->num_cached; i++) {
        cached_fini(&state->cache[i]);
    }
    free(state->cache);
    for (int64_t g = 0; state->weights != NULL && g < num_groups; g++) {
        if (state->weights[g] != NULL) {
            dnnl_memory_destroy(state->weights[g]);
        }
    }
    free(state->weights);
    free(state->matrices);
    if (state->has_layout) {
        desc_fini(&state->layout);
    }
    if (state->stream != NULL) {
        dnnl_stream_destroy(state->stream);
    }
    if (state->engine != NULL) {
        dnnl_engine_destroy(state->engine);
    }
    free(state);
}

static void onednn_release(struct ep_gemm_packed *packed)
{
    destroy_state(packed->state, packed->shape.num_groups);
}

/* Reorder one row-major matrix into the layout. */
static enum ep_status reorder(struct onednn_state *state, const struct ep_gemm_packed *packed,
                              const void *matrix, dnnl_memory_t to)
{
    const struct ep_gemm_shape *shape = &packed->shape;
    enum ep_status status = EP_OK;
    dnnl_memory_desc_t plain;
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    memset(&plain, 0, sizeof plain);
    DNNL_TRY(desc_init(&plain, shape->k, shape->n, data_type(shape->dtype),
                       packed->transposed ? dnnl_ba : dnnl_ab));
    /* only read */
    DNNL_TRY(dnnl_memory_create(&from, DESC(plain), state->engine, (void *)(uintptr_t)matrix));
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&desc, DESC(plain), state->engine,
                                                DESC(state->layout), state->engine, NULL));
    DNNL_TRY(dnnl_primitive_create(&primitive, desc));
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    DNNL_TRY(dnnl_primitive_execute(primitive, state->stream, 2, args));
    DNNL_TRY(dnnl_stream_wait(state->stream));
out:
    if (primitive != NULL) {
        dnnl_primitive_destroy(primitive);
    }
    if (desc != NULL) {
        dnnl_primitive_desc_destroy(desc);
    }
    if (from != NULL) {
        dnnl_memory_destroy(from);
    }
    desc_fini(&plain);
    return status;
}

static void set_one_thread(void)
{
    if (omp_set_num_threads != NULL) {
        omp_set_num_threads(1);
    }
}

static enum ep_status choose_layout(struct onednn_state *state, const struct ep_gemm_shape *shape)
{
    enum ep_status status = EP_OK;
    dnnl_primitive_desc_t matmul = NULL;
    DNNL_TRY(describe(state->engine, shape, LAYOUT_ROWS, NULL, &matmul));
    DNNL_TRY(desc_copy(&state->layout, matmul));
    state->has_layout = true;
    /* whole lines: each matrix starts aligned */
    state->stride_bytes = ((int64_t)dnnl_memory_desc_get_size(DESC(state->layout)) + 63) / 64 * 64;
out:
    if (matmul != NULL) {
        dnnl_primitive_desc_destroy(matmul);
    }
    return status;
}

static enum ep_status onednn_pack(const void *const *weights, struct ep_gemm_packed *packed)
{
    const struct ep_gemm_shape *shape = &packed->shape;
    enum ep_status status = EP_OK;
    struct onednn_state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for GEMM back end onednn");
    }
    set_one_thread();
    DNNL_TRY(dnnl_engine_create(&state->engine, dnnl_cpu, 0));
    DNNL_TRY(dnnl_stream_create(&state->stream, state->engine, dnnl_stream_default_flags));
    EP_TRY(choose_layout(state, shape));
    state->weights = calloc((size_t)shape->num_groups, sizeof(dnnl_memory_t));
    state->matrices = ep_gemm_alloc(shape->num_groups * state->stride_bytes);
    if (state->weights == NULL || state->matrices == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " packed expert matrices",
                              shape->num_groups);
        goto out;
    }
    for (int64_t g = 0; g < shape->num_groups; g++) {
        DNNL_TRY(dnnl_memory_create(&state->weights[g], DESC(state->layout), state->engine,
                                    state->matrices + g * state->stride_bytes));
        EP_TRY(reorder(state, packed, weights[g], state->weights[g]));
    }
    packed->state = state;
    packed->weight_bytes = state->stride_bytes;
    return EP_OK;
out:
    destroy_state(state, shape->num_groups);
    return status;
}

static enum ep_status create_cached(const struct onednn_state *state,
                                    const struct ep_gemm_shape *shape, int64_t m, bool is_gradient,
                                    struct cached *made)
{
    enum ep_status status = EP_OK;
    const dnnl_data_type_t type = data_type(shape->dtype);
    struct cached entry = {.num_rows = m, .is_gradient = is_gradient};
    dnnl_primitive_desc_t matmul = NULL;
    dnnl_memory_desc_t x, y, w;
    dnnl_memory_desc_t layout = state->layout;
    memset(&x, 0, sizeof x);
    memset(&y, 0, sizeof y);
    memset(&w, 0, sizeof w);
    if (is_gradient) {
        DNNL_TRY(desc_init(&x, shape->k, m, type, dnnl_ba));
        DNNL_TRY(desc_init(&w, m, shape->n, type, dnnl_ab));
        DNNL_TRY(desc_init(&y, shape->k, shape->n, dnnl_f32, dnnl_ab));
        DNNL_TRY(matmul_init(&matmul, state->engine, &x, &w, &y));
        DNNL_TRY(dnnl_memory_create(&entry.w, DESC(w), state->engine, DNNL_MEMORY_NONE));
    } else {
        DNNL_TRY(describe(state->engine, shape, m, &layout, &matmul));
        DNNL_TRY(desc_init(&x, m, shape->k, type, dnnl_ab));
        DNNL_TRY(desc_init(&y, m, shape->n, dnnl_f32, dnnl_ab));
    }
    DNNL_TRY(dnnl_primitive_create(&entry.primitive, matmul));
    DNNL_TRY(dnnl_memory_create(&entry.x, DESC(x), state->engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&entry.y, DESC(y), state->engine, DNNL_MEMORY_NONE));
    *made = entry;
out:
    if (status != EP_OK) {
        cached_fini(&entry);
    }
    if (matmul != NULL) {
        dnnl_primitive_desc_destroy(matmul);
    }
    desc_fini(&x);
    desc_fini(&y);
    desc_fini(&w);
    return status;
}

static enum ep_status find_cached(struct onednn_state *state, const struct ep_gemm_shape *shape,
                                  int64_t m, bool is_gradient, const struct cached **entry)
{
    for (int64_t i = 0; i < state->num_cached; i++) {
        if (state->cache[i].num_rows == m && state->cache[i].is_gradient == is_gradient) {
            *entry = &state->cache[i];
            return EP_OK;
        }
    }
    struct cached *grown =
        realloc(state->cache, (size_t)(state->num_cached + 1) * sizeof *state->cache);
    if (grown == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for one more oneDNN primitive");
    }
    state->cache = grown;
    const enum ep_status status =
        create_cached(state, shape, m, is_gradient, &grown[state->num_cached]);
    if (status == EP_OK) {
        *entry = &grown[state->num_cached++];
    }
    return status;
}

static enum ep_status execute(const struct onednn_state *state, const struct cached *entry,
                              const void *x, dnnl_memory_t weights, float *y)
{
    enum ep_status status = EP_OK;
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, entry->x}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, entry->y}};
    DNNL_TRY(dnnl_memory_set_data_handle(entry->x, (void *)(uintptr_t)x)); /* only read */
    DNNL_TRY(dnnl_memory_set_data_handle(entry->y, y));
    DNNL_TRY(dnnl_primitive_execute(entry->primitive, state->stream, 3, args));
    DNNL_TRY(dnnl_stream_wait(state->stream));
out:
    return status;
}

static enum ep_status onednn_run(const struct ep_gemm_packed *packed, int64_t group,
                                 int64_t num_rows, const void *x, float *y)
{
    struct onednn_state *state = packed->state;
    enum ep_status status = EP_OK;
    const struct cached *entry = NULL;
    set_one_thread();
    EP_TRY(find_cached(state, &packed->shape, num_rows, false, &entry));
    EP_TRY(execute(state, entry, x, state->weights[group], y));
out:
    return status;
}

static enum ep_status onednn_gradient(const struct ep_gemm_packed *packed, int64_t num_rows,
                                      const void *x, const void *dz, float *dw)
{
    struct onednn_state *state = packed->state;
    enum ep_status status = EP_OK;
    const struct cached *entry = NULL;
    set_one_thread();
    EP_TRY(find_cached(state, &packed->shape, num_rows, true, &entry));
    DNNL_TRY(dnnl_memory_set_data_handle(entry->w, (void *)(uintptr_t)dz)); /* only read */
    EP_TRY(execute(state, entry, x, entry->w, dw));
out:
    return status;
}

const struct ep_gemm_backend ep_gemm_onednn = {
    .name = "onednn",
    .summary = "oneDNN matmul on weights packed once in its own layout",
    .available = onednn_available,
    .pack = onednn_pack,
    .run = onednn_run,
    .gradient = onednn_gradient,
    .release = onednn_release,
};

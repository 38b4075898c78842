/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM back end `cblas`: sgemm of the CBLAS found at build time; bf16 is widened when packing. */
#include "kernels/dtype.h"
#include "kernels/gemm_backends.h"

#include <cblas.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Thread counts are not in the CBLAS standard: OpenBLAS and BLIS have their own calls. Weak, so that
 * any CBLAS links; one without either is set by its own environment variable. */
extern void openblas_set_num_threads(int num_threads) __attribute__((weak));
extern char *openblas_get_config(void) __attribute__((weak));
extern void bli_thread_set_num_threads(int64_t num_threads) __attribute__((weak));

struct cblas_state {
    float *widened;          /* all matrices in fp32, where they came as bf16 */
    float *x;                /* workspace for widened rows */
    int64_t x_capacity;      /* elements of x */
    const float *matrices[]; /* [num_groups] */
};

static void set_one_thread(void)
{
    if (openblas_set_num_threads != NULL) {
        openblas_set_num_threads(1);
    }
    if (bli_thread_set_num_threads != NULL) {
        bli_thread_set_num_threads(1);
    }
}

static bool cblas_available(enum ep_dtype dtype, char *reason, size_t length)
{
    const char *library = openblas_get_config != NULL          ? openblas_get_config()
                          : bli_thread_set_num_threads != NULL ? "BLIS"
                                                               : "CBLAS";
    snprintf(reason, length, "%s; %s", library,
             dtype == EP_BF16 ? "sgemm on weights widened to fp32 when packed"
                                   : "sgemm on row-major weights");
    return true;
}

static void cblas_release(struct ep_gemm_packed *packed)
{
    struct cblas_state *state = packed->state;
    if (state != NULL) {
        free(state->widened);
        free(state->x);
        free(state);
    }
}

static void widen(const uint16_t *from, int64_t num, float *to)
{
    for (int64_t i = 0; i < num; i++) {
        to[i] = ep_bf16_to_f32(from[i]);
    }
}

static enum ep_status cblas_pack(const void *const *weights, struct ep_gemm_packed *packed)
{
    const struct ep_gemm_shape *shape = &packed->shape;
    const int64_t num_weights = ep_gemm_num_weights(shape);
    struct cblas_state *state =
        calloc(1, sizeof *state + (size_t)shape->num_groups * sizeof state->matrices[0]);
    if (state != NULL && shape->dtype == EP_BF16) {
        state->widened = ep_gemm_alloc(shape->num_groups * num_weights * (int64_t)sizeof(float));
    }
    if (state == NULL || (shape->dtype == EP_BF16 && state->widened == NULL)) {
        free(state);
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " widened expert matrices",
                            shape->num_groups);
    }
    for (int64_t g = 0; g < shape->num_groups; g++) {
        if (shape->dtype == EP_BF16) {
            widen(weights[g], num_weights, state->widened + g * num_weights);
            state->matrices[g] = state->widened + g * num_weights;
        } else {
            state->matrices[g] = weights[g];
        }
    }
    set_one_thread();
    packed->state = state;
    packed->borrows_weights = shape->dtype == EP_FP32;
    packed->weight_bytes = num_weights * (int64_t)sizeof(float);
    return EP_OK;
}

static enum ep_status reserve_rows(struct cblas_state *state, int64_t num)
{
    if (num > state->x_capacity) {
        float *x = realloc(state->x, (size_t)num * sizeof *x);
        if (x == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " widened elements", num);
        }
        state->x = x;
        state->x_capacity = num;
    }
    return EP_OK;
}

/* Rows as sgemm takes them: where they are, or widened at `place` of the workspace. */
static const float *as_fp32(const struct cblas_state *state, enum ep_dtype dtype, const void *rows,
                            int64_t num, int64_t place)
{
    if (dtype != EP_BF16) {
        return rows;
    }
    widen(rows, num, state->x + place);
    return state->x + place;
}

static enum ep_status cblas_run(const struct ep_gemm_packed *packed, int64_t group, int64_t num_rows,
                                const void *x, float *y)
{
    struct cblas_state *state = packed->state;
    const struct ep_gemm_shape *shape = &packed->shape;
    const int64_t k = shape->k, n = shape->n;
    const enum ep_status status =
        shape->dtype == EP_BF16 ? reserve_rows(state, num_rows * k) : EP_OK;
    if (status == EP_OK) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, packed->transposed ? CblasTrans : CblasNoTrans,
                    (int)num_rows, (int)n, (int)k, 1.0f,
                    as_fp32(state, shape->dtype, x, num_rows * k, 0), (int)k,
                    state->matrices[group], (int)(packed->transposed ? k : n), 0.0f, y, (int)n);
    }
    return status;
}

static enum ep_status cblas_gradient(const struct ep_gemm_packed *packed, int64_t num_rows,
                                     const void *x, const void *dz, float *dw)
{
    struct cblas_state *state = packed->state;
    const enum ep_dtype dtype = packed->shape.dtype;
    const int64_t k = packed->shape.k, n = packed->shape.n;
    const enum ep_status status =
        dtype == EP_BF16 ? reserve_rows(state, num_rows * (k + n)) : EP_OK;
    if (status == EP_OK) {
        const float *a = as_fp32(state, dtype, x, num_rows * k, 0);
        const float *b = as_fp32(state, dtype, dz, num_rows * n, num_rows * k);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)k, (int)n, (int)num_rows, 1.0f, a,
                    (int)k, b, (int)n, 0.0f, dw, (int)n);
    }
    return status;
}

const struct ep_gemm_backend ep_gemm_cblas = {
    .name = "cblas",
    .summary = "cblas_sgemm on row-major weights",
    .available = cblas_available,
    .pack = cblas_pack,
    .run = cblas_run,
    .gradient = cblas_gradient,
    .release = cblas_release,
};

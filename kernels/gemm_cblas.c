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

static enum ep_status cblas_run(const struct ep_gemm_packed *packed, const int64_t *num_rows,
                                const void *x, float *y)
{
    struct cblas_state *state = packed->state;
    const int64_t k = packed->shape.k, n = packed->shape.n;
    int64_t row = 0;
    for (int64_t g = 0; g < packed->shape.num_groups; g++) {
        const int64_t m = num_rows[g];
        if (m == 0) {
            continue;
        }
        const float *rows = (const float *)x + row * k;
        if (packed->shape.dtype == EP_BF16) {
            const enum ep_status status = reserve_rows(state, m * k);
            if (status != EP_OK) {
                return status;
            }
            widen((const uint16_t *)x + row * k, m * k, state->x);
            rows = state->x;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, rows,
                    (int)k, state->matrices[g], (int)n, 0.0f, y + row * n, (int)n);
        row += m;
    }
    return EP_OK;
}

const struct ep_gemm_backend ep_gemm_cblas = {
    .name = "cblas",
    .summary = "cblas_sgemm on row-major weights",
    .available = cblas_available,
    .pack = cblas_pack,
    .run = cblas_run,
    .release = cblas_release,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM back end `ref`: the definition itself, summed in double; the oracle of all others. */
#include "kernels/dtype.h"
#include "kernels/gemm_backends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ref_state {
    double *sums;          /* [n] */
    const void *matrices[]; /* [num_groups], the caller's */
};

static bool ref_available(enum ep_dtype dtype, char *reason, size_t length)
{
    (void)dtype;
    snprintf(reason, length, "plain C, sums in double");
    return true;
}

static void ref_release(struct ep_gemm_packed *packed)
{
    struct ref_state *state = packed->state;
    if (state != NULL) {
        free(state->sums);
        free(state);
    }
}

static enum ep_status ref_pack(const void *const *weights, struct ep_gemm_packed *packed)
{
    const struct ep_gemm_shape *shape = &packed->shape;
    struct ref_state *state =
        calloc(1, sizeof *state + (size_t)shape->num_groups * sizeof state->matrices[0]);
    double *sums = malloc((size_t)shape->n * sizeof *sums);
    if (state == NULL || sums == NULL) {
        free(state);
        free(sums);
        return ep_error_set(EP_ENOMEM, "no memory for GEMM back end ref");
    }
    state->sums = sums;
    for (int64_t g = 0; g < shape->num_groups; g++) {
        state->matrices[g] = weights[g];
    }
    packed->state = state;
    packed->borrows_weights = true;
    packed->weight_bytes = ep_gemm_num_weights(shape) * ep_dtype_element_bytes(shape->dtype);
    return EP_OK;
}

static double load(enum ep_dtype dtype, const void *values, int64_t i)
{
    return dtype == EP_BF16 ? (double)ep_bf16_to_f32(((const uint16_t *)values)[i])
                                 : (double)((const float *)values)[i];
}

/* Add factor * row[0 .. n - 1], elements `stride` apart. */
static void add_row(struct ref_state *state, enum ep_dtype dtype, double factor, const void *matrix,
                    int64_t first, int64_t stride, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        state->sums[j] += factor * load(dtype, matrix, first + j * stride);
    }
}

static enum ep_status ref_run(const struct ep_gemm_packed *packed, int64_t group, int64_t num_rows,
                              const void *x, float *y)
{
    struct ref_state *state = packed->state;
    const int64_t k = packed->shape.k, n = packed->shape.n;
    const bool transposed = packed->transposed;
    const enum ep_dtype dtype = packed->shape.dtype;
    for (int64_t row = 0; row < num_rows; row++) {
        memset(state->sums, 0, (size_t)n * sizeof *state->sums);
        for (int64_t i = 0; i < k; i++) {
            add_row(state, dtype, load(dtype, x, row * k + i), state->matrices[group],
                    transposed ? i : i * n, transposed ? k : 1, n);
        }
        for (int64_t j = 0; j < n; j++) {
            y[row * n + j] = (float)state->sums[j];
        }
    }
    return EP_OK;
}

static enum ep_status ref_gradient(const struct ep_gemm_packed *packed, int64_t num_rows,
                                   const void *x, const void *dz, float *dw)
{
    struct ref_state *state = packed->state;
    const int64_t k = packed->shape.k, n = packed->shape.n;
    const enum ep_dtype dtype = packed->shape.dtype;
    for (int64_t i = 0; i < k; i++) {
        memset(state->sums, 0, (size_t)n * sizeof *state->sums);
        for (int64_t row = 0; row < num_rows; row++) {
            add_row(state, dtype, load(dtype, x, row * k + i), dz, row * n, 1, n);
        }
        for (int64_t j = 0; j < n; j++) {
            dw[i * n + j] = (float)state->sums[j];
        }
    }
    return EP_OK;
}

const struct ep_gemm_backend ep_gemm_ref = {
    .name = "ref",
    .summary = "triple loop, double sums: the oracle",
    .available = ref_available,
    .pack = ref_pack,
    .run = ref_run,
    .gradient = ref_gradient,
    .release = ref_release,
};

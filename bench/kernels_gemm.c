/* SPDX-License-Identifier: Apache-2.0 */
/* Expert matrices for timing, made of a counter-based pattern. */
#include "bench/kernels_gemm.h"

#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_EXPERTS = 4096, NUM_CHECKED = 64, NUM_FFN_CHECKED = 16 };

/* The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): quick enough for gigabytes. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Eight random bits with sign are exact in bf16 and in fp32. */
static float value_of(uint64_t stream, int64_t i)
{
    const uint64_t bits = mix(stream + (uint64_t)i * 0x9e3779b97f4a7c15u);
    return (float)(int8_t)(bits >> 56) * 0x1p-7f;
}

static uint64_t stream_of(uint64_t seed, int64_t expert)
{
    return mix(seed) + mix((uint64_t)expert + 2) * 3;
}

float ep_kernels_value(enum ep_dtype dtype, uint64_t seed, int64_t expert, int64_t i)
{
    (void)dtype;
    return value_of(stream_of(seed, expert), i);
}

void ep_kernels_fill(enum ep_dtype dtype, uint64_t seed, int64_t expert, int64_t num, void *values)
{
    const uint64_t stream = stream_of(seed, expert);
    if (dtype == EP_BF16) {
        for (int64_t i = 0; i < num; i++) {
            ((uint16_t *)values)[i] = ep_bf16_from_f32(value_of(stream, i));
        }
    } else {
        for (int64_t i = 0; i < num; i++) {
            ((float *)values)[i] = value_of(stream, i);
        }
    }
}

static enum ep_status no_memory(const struct ep_kernels_gemm_key *key, int64_t num)
{
    return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " expert matrices of %" PRId64
                        " x %" PRId64 " %s", num, key->k, key->n, ep_dtype_name(key->dtype));
}

static void free_matrices(struct ep_kernels_gemm *gemm)
{
    for (int64_t e = 0; gemm->matrices != NULL && e < gemm->num_experts; e++) {
        free(gemm->matrices[e]);
    }
    free(gemm->matrices);
    gemm->matrices = NULL;
}

static enum ep_status pack(struct ep_kernels_gemm *gemm)
{
    enum ep_status status = EP_OK;
    const struct ep_kernels_gemm_key *key = &gemm->key;
    const int64_t num = key->k * key->n;
    const struct ep_gemm_shape shape = {gemm->num_experts, key->k, key->n, key->dtype};
    gemm->matrices = calloc((size_t)gemm->num_experts, sizeof *gemm->matrices);
    for (int64_t e = 0; gemm->matrices != NULL && e < gemm->num_experts; e++) {
        gemm->matrices[e] = ep_gemm_alloc(num * ep_dtype_element_bytes(key->dtype));
        if (gemm->matrices[e] == NULL) {
            return no_memory(key, gemm->num_experts);
        }
        ep_kernels_fill(key->dtype, gemm->seed, e, num, gemm->matrices[e]);
    }
    if (gemm->matrices == NULL) {
        return no_memory(key, gemm->num_experts);
    }
    EP_TRY(ep_gemm_pack(key->backend, &shape, (const void *const *)gemm->matrices, &gemm->packed));
    if (!gemm->packed.borrows_weights) {
        free_matrices(gemm);
    }
out:
    return status;
}

enum ep_status ep_kernels_gemm_create(const struct ep_kernels_gemm_key *key, int64_t cold_bytes,
                                      int64_t max_rows, uint64_t seed,
                                      struct ep_kernels_gemm **gemm)
{
    enum ep_status status = EP_OK;
    const int64_t matrix_bytes = key->k * key->n * ep_dtype_element_bytes(key->dtype);
    struct ep_kernels_gemm *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return no_memory(key, 1);
    }
    made->key = *key;
    made->seed = seed;
    made->max_rows = max_rows;
    made->num_experts = cold_bytes / matrix_bytes + 1;
    if (made->num_experts > MAX_EXPERTS) {
        made->num_experts = MAX_EXPERTS;
    }
    made->num_rows = calloc((size_t)made->num_experts, sizeof *made->num_rows);
    made->x = ep_gemm_alloc(max_rows * key->k * ep_dtype_element_bytes(key->dtype));
    made->y = ep_gemm_alloc(max_rows * key->n * (int64_t)sizeof(float));
    if (made->num_rows == NULL || made->x == NULL || made->y == NULL) {
        status = no_memory(key, made->num_experts);
        goto out;
    }
    ep_kernels_fill(key->dtype, seed, -1, max_rows * key->k, made->x);
    EP_TRY(pack(made));
    *gemm = made;
    made = NULL;
out:
    ep_kernels_gemm_destroy(made);
    return status;
}

void ep_kernels_gemm_destroy(struct ep_kernels_gemm *gemm)
{
    if (gemm != NULL) {
        ep_gemm_release(&gemm->packed);
        free_matrices(gemm);
        free(gemm->num_rows);
        free(gemm->x);
        free(gemm->y);
        free(gemm);
    }
}

enum ep_status ep_kernels_gemm_run(struct ep_kernels_gemm *gemm, int64_t rows)
{
    const int64_t expert = gemm->next_expert;
    gemm->num_rows[expert] = rows;
    const enum ep_status status = ep_gemm_run(&gemm->packed, gemm->num_rows, gemm->x, gemm->y);
    gemm->num_rows[expert] = 0;
    gemm->next_expert = expert + 1 < gemm->num_experts ? expert + 1 : 0;
    return status;
}

enum ep_status ep_kernels_gemm_check(const struct ep_kernels_gemm *gemm, int64_t rows)
{
    const struct ep_kernels_gemm_key *key = &gemm->key;
    const int64_t expert = (gemm->next_expert + gemm->num_experts - 1) % gemm->num_experts;
    for (int64_t c = 0; c < NUM_CHECKED && rows > 0; c++) {
        const uint64_t place = mix((uint64_t)c + 77) % (uint64_t)(rows * key->n);
        const int64_t row = (int64_t)place / key->n, column = (int64_t)place % key->n;
        double sum = 0.0, abs_sum = 0.0;
        for (int64_t i = 0; i < key->k; i++) {
            const double x = ep_kernels_value(key->dtype, gemm->seed, -1, row * key->k + i);
            const double w =
                ep_kernels_value(key->dtype, gemm->seed, expert, i * key->n + column);
            sum += x * w;
            abs_sum += fabs(x * w);
        }
        const double got = gemm->y[row * key->n + column];
        const double bound = ep_gemm_tolerance(key->dtype, key->k, abs_sum);
        if (!(fabs(got - sum) <= bound)) {
            return ep_error_set(EP_ECHECK, "GEMM %s %s k %" PRId64 " n %" PRId64 ": row %" PRId64
                                " column %" PRId64 " is %.9g, expected %.9g within %.2g",
                                key->backend->name, ep_dtype_name(key->dtype), key->k, key->n, row,
                                column, got, sum, bound);
        }
    }
    return EP_OK;
}

/* One inner element in double and the bound of its error. */
struct inner {
    double value, error;
};

/* The GEMMs' error goes through the activation (|silu'| and |gelu'| <= 1.13, |relu'| <= 1); the result
 * is rounded once, to bf16 (2^-8) or as the few operations of an activation in fp32 do. */
static struct inner activate(const struct ep_ffn_shape *shape, const double sums[2],
                             const double abs_sums[2])
{
    const double dgate = ep_gemm_tolerance(shape->dtype, shape->hidden, abs_sums[0]);
    const double dup = ep_gemm_tolerance(shape->dtype, shape->hidden, abs_sums[1]);
    const double gate = sums[0], up = sums[1];
    struct inner h = {0};
    if (shape->kind == EP_FFN_SWIGLU) {
        h.value = gate / (1 + exp(-gate)) * up;
        h.error = 1.13 * dgate * (fabs(up) + dup) + fabs(gate) * dup;
    } else {
        h.value = shape->kind == EP_FFN_RELU ? fmax(up, 0) : up * 0.5 * erfc(-up / sqrt(2));
        h.error = 1.13 * dup;
    }
    h.error += (fabs(h.value) + h.error) * (shape->dtype == EP_BF16 ? 0x1p-8 : 0x1p-21) +
               0x1p-22 * fabs(up);
    return h;
}

enum ep_status ep_kernels_ffn_check(const struct ep_ffn_shape *shape, uint64_t seed, int64_t expert,
                                    int64_t row, const float *y)
{
    const int64_t columns = ep_ffn_inner_columns(shape);
    const uint64_t x_stream = stream_of(seed, -1);
    const uint64_t w13_stream = stream_of(seed, 2 * expert);
    const uint64_t w2_stream = stream_of(seed, 2 * expert + 1);
    double sum[NUM_FFN_CHECKED] = {0}, moved[NUM_FFN_CHECKED] = {0}, spread[NUM_FFN_CHECKED] = {0};
    for (int64_t i = 0; i < shape->ffn; i++) {
        const int64_t at[2] = {i, columns - shape->ffn + i}; /* gate, up; one and the same if ungated */
        double sums[2] = {0}, abs_sums[2] = {0};
        for (int64_t c = 0; c < shape->hidden; c++) {
            const double x = value_of(x_stream, row * shape->hidden + c);
            for (int m = 0; m < 2; m++) {
                const double term = x * value_of(w13_stream, c * columns + at[m]);
                sums[m] += term;
                abs_sums[m] += fabs(term);
            }
        }
        const struct inner h = activate(shape, sums, abs_sums);
        for (int64_t j = 0; j < NUM_FFN_CHECKED; j++) {
            const int64_t column = j * (shape->hidden - 1) / (NUM_FFN_CHECKED - 1);
            const double w = value_of(w2_stream, i * shape->hidden + column);
            sum[j] += h.value * w;
            moved[j] += h.error * fabs(w);
            spread[j] += fabs(h.value * w);
        }
    }
    for (int64_t j = 0; j < NUM_FFN_CHECKED; j++) {
        const int64_t column = j * (shape->hidden - 1) / (NUM_FFN_CHECKED - 1);
        const double got = y[row * shape->hidden + column];
        const double bound =
            moved[j] + ep_gemm_tolerance(shape->dtype, shape->ffn, spread[j] + moved[j]);
        if (!(fabs(got - sum[j]) <= bound)) {
            return ep_error_set(EP_ECHECK, "FFN %s %s, expert %" PRId64 ": row %" PRId64 " column %"
                                PRId64 " is %.9g, expected %.9g within %.2g",
                                ep_ffn_kind_name(shape->kind), ep_dtype_name(shape->dtype), expert,
                                row, column, got, sum[j], bound);
        }
    }
    return EP_OK;
}

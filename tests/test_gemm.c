/* SPDX-License-Identifier: Apache-2.0 */
/* Every GEMM back end and the expert FFN against the reference, at odd shapes. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/dtype.h"
#include "kernels/ffn.h"
#include "kernels/gemm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GROUPS = 4 };

static int64_t total(const int64_t *num_rows, int64_t num_groups)
{
    int64_t sum = 0;
    for (int64_t g = 0; g < num_groups; g++) {
        sum += num_rows[g];
    }
    return sum;
}

/* Values in (-1, 1), already rounded to the dtype. Freed by the caller. */
static void *make_values(enum ep_dtype dtype, int64_t num, uint64_t stream)
{
    void *values = malloc((size_t)(num > 0 ? num : 1) * (size_t)ep_dtype_element_bytes(dtype));
    struct ep_random random;
    ep_random_init(&random, 7, EP_RANDOM_TEST, stream);
    assert_non_null(values);
    for (int64_t i = 0; i < num; i++) {
        const float value = (float)(2.0 * ep_random_f64(&random) - 1.0);
        if (dtype == EP_BF16) {
            ((uint16_t *)values)[i] = ep_bf16_from_f32(value);
        } else {
            ((float *)values)[i] = value;
        }
    }
    return values;
}

static double value_of(enum ep_dtype dtype, const void *values, int64_t i)
{
    return dtype == EP_BF16 ? (double)ep_bf16_to_f32(((const uint16_t *)values)[i])
                                 : (double)((const float *)values)[i];
}

/* sum over k of |x| |w| for row `row` and column j of matrix w. */
static double abs_sum(const struct ep_gemm_shape *shape, const void *x, int64_t row, const void *w,
                      int64_t j)
{
    double sum = 0.0;
    for (int64_t i = 0; i < shape->k; i++) {
        sum += fabs(value_of(shape->dtype, x, row * shape->k + i) *
                    value_of(shape->dtype, w, i * shape->n + j));
    }
    return sum;
}

/* x^T dz of the rows of one group, dz taken from the values of y's shape. */
static void check_gradient(const struct ep_gemm_packed *packed, const struct ep_gemm_packed *oracle,
                           int64_t rows, const void *x)
{
    const struct ep_gemm_shape *shape = &packed->shape;
    const size_t num = (size_t)(shape->k * shape->n) + 1;
    void *dz = make_values(shape->dtype, rows * shape->n, 98);
    float *dw = aligned_alloc(64, (num * sizeof *dw + 63) / 64 * 64);
    float *expected = malloc(num * sizeof *dw);
    for (size_t i = 0; i < num; i++) {
        dw[i] = expected[i] = NAN;
    }
    CHECK_OK(ep_gemm_gradient(oracle, rows, x, dz, expected));
    CHECK_OK(ep_gemm_gradient(packed, rows, x, dz, dw));
    CHECK_OK(ep_gemm_gradient(packed, rows, x, dz, dw)); /* must not add */
    assert_true(isnan(dw[num - 1]));
    for (int64_t i = 0; i < shape->k; i++) {
        for (int64_t j = 0; j < shape->n; j++) {
            double sum = 0.0;
            for (int64_t r = 0; r < rows; r++) {
                sum += fabs(value_of(shape->dtype, x, r * shape->k + i) *
                            value_of(shape->dtype, dz, r * shape->n + j));
            }
            const double error = fabs((double)dw[i * shape->n + j] -
                                      (double)expected[i * shape->n + j]);
            const double bound = ep_gemm_tolerance(shape->dtype, rows, sum);
            if (!(error <= bound)) {
                fail_msg("gradient %s %s k %d n %d of %d rows, [%d][%d]: off by %g, bound %g",
                         packed->backend->name, ep_dtype_name(shape->dtype), (int)shape->k,
                         (int)shape->n, (int)rows, (int)i, (int)j, error, bound);
            }
        }
    }
    free(dz);
    free(dw);
    free(expected);
}

/* [k][n] from [n][k], so that both forms hold the same matrix. */
static void *make_transposed(const struct ep_gemm_shape *shape, const void *matrix)
{
    const size_t element = (size_t)ep_dtype_element_bytes(shape->dtype);
    char *made = malloc((size_t)(shape->k * shape->n) * element);
    for (int64_t i = 0; i < shape->k; i++) {
        for (int64_t j = 0; j < shape->n; j++) {
            memcpy(made + (size_t)(j * shape->k + i) * element,
                   (const char *)matrix + (size_t)(i * shape->n + j) * element, element);
        }
    }
    return made;
}

static void check_against_ref(const struct ep_gemm_backend *backend, bool transposed,
                              const struct ep_gemm_shape *shape, const int64_t *num_rows)
{
    const int64_t rows = total(num_rows, shape->num_groups);
    const void *weights[MAX_GROUPS], *plain[MAX_GROUPS];
    void *owned[2 * MAX_GROUPS];
    for (int64_t g = 0; g < shape->num_groups; g++) {
        plain[g] = owned[g] = make_values(shape->dtype, shape->k * shape->n, (uint64_t)g);
        owned[MAX_GROUPS + g] = make_transposed(shape, plain[g]);
        weights[g] = transposed ? owned[MAX_GROUPS + g] : plain[g];
    }
    void *x = make_values(shape->dtype, rows * shape->k, 99);
    const size_t num_y = (size_t)(rows * shape->n) + 1;
    float *y = malloc(num_y * sizeof *y), *expected = malloc(num_y * sizeof *y);
    const struct ep_gemm_backend *ref = NULL;
    struct ep_gemm_packed packed = {0}, oracle = {0};
    CHECK_OK(ep_gemm_find("ref", shape->dtype, &ref));
    CHECK_OK(transposed ? ep_gemm_pack_transposed(backend, shape, weights, &packed)
                        : ep_gemm_pack(backend, shape, weights, &packed));
    CHECK_OK(ep_gemm_pack(ref, shape, plain, &oracle));
    for (size_t i = 0; i < num_y; i++) {
        y[i] = expected[i] = NAN; /* every element must be written, and none behind the last */
    }
    CHECK_OK(ep_gemm_run(&oracle, num_rows, x, expected));
    for (int repeat = 0; repeat < 2; repeat++) { /* the second run must not add to the first */
        CHECK_OK(ep_gemm_run(&packed, num_rows, x, y));
    }
    assert_true(isnan(y[num_y - 1]));
    int64_t row = 0;
    for (int64_t g = 0; g < shape->num_groups; g++) {
        for (int64_t end = row + num_rows[g]; row < end; row++) {
            for (int64_t j = 0; j < shape->n; j++) {
                const double bound = ep_gemm_tolerance(shape->dtype, shape->k,
                                                       abs_sum(shape, x, row, plain[g], j));
                const double error = fabs((double)y[row * shape->n + j] -
                                          (double)expected[row * shape->n + j]);
                if (!(error <= bound)) {
                    fail_msg("%s %s k %d n %d row %d column %d: off by %g, bound %g", backend->name,
                             ep_dtype_name(shape->dtype), (int)shape->k, (int)shape->n,
                             (int)row, (int)j, error, bound);
                }
            }
        }
    }
    if (!transposed) { /* the same work in both */
        check_gradient(&packed, &oracle, rows < 65 ? rows : 65, x);
    }
    ep_gemm_release(&packed);
    ep_gemm_release(&oracle);
    for (int64_t g = 0; g < shape->num_groups; g++) {
        free(owned[g]);
        free(owned[MAX_GROUPS + g]);
    }
    free(x);
    free(y);
    free(expected);
}

/* 384 x 768 in fp32 is past 1 MiB and on lines of 64 bytes: native stores it past the caches; 300 rows of
 * fp32 and 600 of bf16 are more than one pass, which adds. */
static void large_gradients_agree_with_ref(void **state)
{
    (void)state;
    static const int64_t rows[] = {1, 5, 300, 600};
    for (int d = EP_FP32; d <= EP_BF16; d++) {
        const struct ep_gemm_shape shape = {.num_groups = 1, .k = 384, .n = 768, .dtype = d};
        const struct ep_gemm_backend *ref = NULL;
        struct ep_gemm_packed packed = {0}, oracle = {0};
        void *w = make_values(d, shape.k * shape.n, 1);
        const void *weights[] = {w};
        CHECK_OK(ep_gemm_find("ref", d, &ref));
        CHECK_OK(ep_gemm_pack(ep_gemm_default(d), &shape, weights, &packed));
        CHECK_OK(ep_gemm_pack(ref, &shape, weights, &oracle));
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            void *x = make_values(d, rows[r] * shape.k, 2);
            check_gradient(&packed, &oracle, rows[r], x);
            free(x);
        }
        ep_gemm_release(&packed);
        ep_gemm_release(&oracle);
        free(w);
    }
}

/* k and n of 1, odd, around the vector widths and register blocks, and beyond one cache block. */
static const int64_t sizes_kn[][2] = {{1, 1},   {1, 17},  {3, 1},    {2, 16},   {5, 31},
                                      {64, 48}, {63, 65}, {129, 97}, {300, 33}, {2050, 70}};
static const int64_t rows_of_groups[][MAX_GROUPS] = {
    {1, 0, 3, 2}, {0, 0, 0, 0}, {0, 7, 0, 1}, {8, 9, 16, 5}, {31, 33, 0, 64}, {0, 0, 0, 300}};

static void every_backend_agrees_with_ref(void **state)
{
    (void)state;
    int num_checked = 0;
    for (int d = 0; d < EP_NUM_DTYPES; d++) {
        for (int b = 0; ep_gemm_backends[b] != NULL; b++) {
            char reason[256] = "";
            const bool available = ep_gemm_is_available(ep_gemm_backends[b], d, reason, sizeof reason);
            assert_true(reason[0] != '\0'); /* it says how, or why not */
            printf("%s %s: %s (%s)\n", ep_gemm_backends[b]->name, ep_dtype_name(d),
                   available ? "checked" : "not available", reason);
            for (size_t s = 0; available && s < sizeof sizes_kn / sizeof *sizes_kn; s++) {
                for (size_t r = 0; r < sizeof rows_of_groups / sizeof *rows_of_groups; r++) {
                    const struct ep_gemm_shape shape = {.num_groups = MAX_GROUPS,
                                                        .k = sizes_kn[s][0],
                                                        .n = sizes_kn[s][1],
                                                        .dtype = d};
                    check_against_ref(ep_gemm_backends[b], false, &shape, rows_of_groups[r]);
                    if (r == 3) { /* transposed, only packing differs */
                        check_against_ref(ep_gemm_backends[b], true, &shape, rows_of_groups[r]);
                    }
                    num_checked++;
                }
            }
        }
    }
    assert_true(num_checked > 0);
}

/* x = [1 2 3], W0 = [1 4; 2 5; 3 6], W1 = -W0: y = 1+4+9, 4+10+18, and their negatives. */
static void ref_gives_the_product_worked_by_hand(void **state)
{
    (void)state;
    const float w0[] = {1, 4, 2, 5, 3, 6}, w1[] = {-1, -4, -2, -5, -3, -6};
    const uint16_t h0[] = {0x3f80, 0x4080, 0x4000, 0x40a0, 0x4040, 0x40c0};
    const uint16_t h1[] = {0xbf80, 0xc080, 0xc000, 0xc0a0, 0xc040, 0xc0c0};
    const float x[] = {1, 2, 3, 1, 2, 3};
    const uint16_t hx[] = {0x3f80, 0x4000, 0x4040, 0x3f80, 0x4000, 0x4040};
    const int64_t num_rows[] = {1, 1};
    for (int d = 0; d < EP_NUM_DTYPES; d++) {
        const bool half = d == EP_BF16;
        const struct ep_gemm_shape shape = {.num_groups = 2, .k = 3, .n = 2, .dtype = d};
        const void *weights[] = {half ? (const void *)h0 : w0, half ? (const void *)h1 : w1};
        for (int b = 0; ep_gemm_backends[b] != NULL; b++) {
            char reason[256];
            struct ep_gemm_packed packed = {0};
            float y[4] = {0};
            if (!ep_gemm_is_available(ep_gemm_backends[b], d, reason, sizeof reason)) {
                continue;
            }
            CHECK_OK(ep_gemm_pack(ep_gemm_backends[b], &shape, weights, &packed));
            CHECK_OK(ep_gemm_run(&packed, num_rows, half ? (const void *)hx : x, y));
            assert_true(y[0] == 14.0f && y[1] == 32.0f && y[2] == -14.0f && y[3] == -32.0f);
            ep_gemm_release(&packed);
        }
    }
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    /* 1 + 2^-8 lies half way between 1 (even) and 1 + 2^-7; 1 + 3*2^-8 between odd and even */
    assert_int_equal(ep_bf16_from_f32(1.00390625f), 0x3f80);
    assert_int_equal(ep_bf16_from_f32(1.01171875f), 0x3f82);
    assert_int_equal(ep_bf16_from_f32(1.00390637f), 0x3f81);
    assert_int_equal(ep_bf16_from_f32(-INFINITY), 0xff80);
    assert_true(isnan(ep_bf16_to_f32(ep_bf16_from_f32(NAN))));
    assert_true(ep_bf16_to_f32(0x4049) == 3.140625f);
}

static void wrong_shapes_and_names_are_refused(void **state)
{
    (void)state;
    const struct ep_gemm_backend *backend = NULL;
    struct ep_gemm_packed packed = {0};
    const struct ep_gemm_shape shape = {.num_groups = 1, .k = 0, .n = 4, .dtype = EP_FP32};
    const struct ep_gemm_shape large = {
        .num_groups = 1, .k = (int64_t)1 << 31, .n = 4, .dtype = EP_FP32};
    CHECK_FAILS(ep_gemm_find("onedn", EP_FP32, &backend), EP_EINVAL, "did you mean 'onednn'");
    CHECK_OK(ep_gemm_find("ref", EP_FP32, &backend));
    CHECK_FAILS(ep_gemm_pack(backend, &shape, NULL, &packed), EP_EINVAL, "k 0");
    CHECK_FAILS(ep_gemm_pack(backend, &large, NULL, &packed), EP_EINVAL, "2^31 - 1");
    const struct ep_gemm_shape fp8 = {.num_groups = 1, .k = 4, .n = 4, .dtype = EP_FP8};
    CHECK_FAILS(ep_gemm_pack(backend, &fp8, NULL, &packed), EP_EINVAL, "only fp32 and bf16");
    CHECK_FAILS(ep_gemm_find("ref", EP_FP8, &backend), EP_EENV, "moved, not multiplied");
    CHECK_OK(ep_gemm_find("default", EP_BF16, &backend));
    assert_true(backend == ep_gemm_default(EP_BF16));
}

/* 5 rows on 2 of 3 experts, k 4, n 6: flops 2*5*4*6 = 240; bytes in bf16: 2 matrices of 48, rows in
 * 5*4*2 = 40, rows out 5*6*4 = 120: 256. SwiGLU of hidden 4, ffn 6: 3 matrices of 24 elements,
 * 2*5*72 = 720 flops; bytes: 2 experts * 144 + 5 * 4 * (2 + 4) = 408. */
static void flops_and_bytes_as_worked_by_hand(void **state)
{
    (void)state;
    const struct ep_gemm_shape shape = {.num_groups = 3, .k = 4, .n = 6, .dtype = EP_BF16};
    const struct ep_ffn_shape ffn = {
        .kind = EP_FFN_SWIGLU, .num_groups = 3, .hidden = 4, .ffn = 6, .dtype = EP_BF16};
    assert_true(ep_gemm_flops(&shape, 5) == 240.0);
    assert_true(ep_gemm_bytes(&shape, 2, 5) == 256.0);
    assert_true(ep_ffn_flops(&ffn, 5) == 720.0);
    assert_true(ep_ffn_bytes(&ffn, 2, 5) == 408.0);
}

/* silu(1) = 1/(1+e^-1) = 0.7310586; gelu(1) = (1 + erf(0.7071068))/2 = 0.8413447 (the normal
 * distribution at 1); gelu(-1) = -0.1586553. */
static void activations_at_known_points(void **state)
{
    (void)state;
    CHECK_NEAR(ep_ffn_activate(EP_FFN_SWIGLU, 1.0f, 2.0f), 1.4621172, 1e-6);
    CHECK_NEAR(ep_ffn_activate(EP_FFN_SWIGLU, -200.0f, 2.0f), 0.0, 0.0);
    CHECK_NEAR(ep_ffn_activate(EP_FFN_RELU, 5.0f, -2.0f), 0.0, 0.0);
    CHECK_NEAR(ep_ffn_activate(EP_FFN_RELU, -5.0f, 2.0f), 2.0, 0.0);
    CHECK_NEAR(ep_ffn_activate(EP_FFN_GELU, 0.0f, 1.0f), 0.8413447, 1e-6);
    CHECK_NEAR(ep_ffn_activate(EP_FFN_GELU, 0.0f, -1.0f), -0.1586553, 1e-6);
}

/* The FFN in double: what the roundings of fp32 and bf16 are measured against.
 * error bound of y[j] = sum_i |w2[i][j]| dh_i + GEMM bound, where dh_i is the error of the inner
 * element: that of its GEMMs through the activation (|silu'|, |gelu'| <= 1.13, |relu'| <= 1) and the
 * rounding of the activation: 2^-8 |h| to bf16, a few u to fp32. */
static void check_ffn_row(const struct ep_ffn_shape *shape, const void *x, int64_t row,
                          const void *w13, const void *w2, const float *y)
{
    const int64_t columns = ep_ffn_inner_columns(shape), hidden = shape->hidden, ffn = shape->ffn;
    const enum ep_dtype dtype = shape->dtype;
    const struct ep_gemm_shape first = {1, hidden, columns, dtype};
    double h[64], dh[64];
    assert_true(ffn <= 64);
    for (int64_t i = 0; i < ffn; i++) {
        const int64_t up_at = shape->kind == EP_FFN_SWIGLU ? ffn + i : i;
        double gate = 0.0, up = 0.0;
        for (int64_t c = 0; c < hidden; c++) {
            const double factor = value_of(dtype, x, row * hidden + c);
            gate += factor * value_of(dtype, w13, c * columns + i);
            up += factor * value_of(dtype, w13, c * columns + up_at);
        }
        const double dgate = ep_gemm_tolerance(dtype, hidden, abs_sum(&first, x, row, w13, i));
        const double dup = ep_gemm_tolerance(dtype, hidden, abs_sum(&first, x, row, w13, up_at));
        switch (shape->kind) {
        case EP_FFN_SWIGLU:
            h[i] = gate / (1.0 + exp(-gate)) * up;
            dh[i] = 1.13 * dgate * (fabs(up) + dup) + fabs(gate) * dup;
            break;
        case EP_FFN_RELU:
            h[i] = up > 0.0 ? up : 0.0;
            dh[i] = dup;
            break;
        default:
            h[i] = up * 0.5 * erfc(-up / sqrt(2.0));
            dh[i] = 1.13 * dup;
        }
        dh[i] += (fabs(h[i]) + dh[i]) * (dtype == EP_BF16 ? 0x1p-8 : 8 * 0x1p-24) +
                 4 * 0x1p-24 * fabs(up);
    }
    for (int64_t j = 0; j < hidden; j++) {
        double sum = 0.0, spread = 0.0, moved = 0.0;
        for (int64_t i = 0; i < ffn; i++) {
            const double weight = value_of(dtype, w2, i * hidden + j);
            sum += h[i] * weight;
            spread += fabs(h[i] * weight);
            moved += dh[i] * fabs(weight);
        }
        const double bound = moved + ep_gemm_tolerance(dtype, ffn, spread + moved);
        if (!(fabs((double)y[row * hidden + j] - sum) <= bound)) {
            fail_msg("%s %s row %d column %d: %g, expected %g within %g",
                     ep_ffn_kind_name(shape->kind), ep_dtype_name(dtype), (int)row, (int)j,
                     (double)y[row * hidden + j], sum, bound);
        }
    }
}

static void check_ffn(const struct ep_gemm_backend *backend, const struct ep_ffn_shape *shape)
{
    const int64_t num_rows[] = {4, 0, 9};
    const int64_t columns = ep_ffn_inner_columns(shape);
    void *w13[3], *w2[3];
    for (uint64_t g = 0; g < 3; g++) {
        w13[g] = make_values(shape->dtype, shape->hidden * columns, 10 + g);
        w2[g] = make_values(shape->dtype, shape->ffn * shape->hidden, 20 + g);
    }
    void *x = make_values(shape->dtype, 13 * shape->hidden, 30);
    float *y = calloc(13 * (size_t)shape->hidden, sizeof *y);
    struct ep_ffn *ffn = NULL;
    CHECK_OK(ep_ffn_create(backend, shape, (const void *const *)w13, (const void *const *)w2, 13,
                           &ffn));
    CHECK_OK(ep_ffn_run(ffn, num_rows, x, y));
    for (int64_t row = 0; row < 13; row++) {
        const int64_t g = row < 4 ? 0 : 2;
        check_ffn_row(shape, x, row, w13[g], w2[g], y);
    }
    const int64_t too_many[] = {14, 0, 0};
    CHECK_FAILS(ep_ffn_run(ffn, too_many, x, y), EP_EINVAL, "14 rows");
    ep_ffn_destroy(ffn);
    for (int g = 0; g < 3; g++) {
        free(w13[g]);
        free(w2[g]);
    }
    free(x);
    free(y);
}

static void every_ffn_agrees_with_the_definition(void **state)
{
    (void)state;
    for (int b = 0; ep_gemm_backends[b] != NULL; b++) {
        for (int d = 0; d < EP_NUM_DTYPES; d++) {
            char reason[256];
            if (!ep_gemm_is_available(ep_gemm_backends[b], d, reason, sizeof reason)) {
                continue;
            }
            for (int kind = 0; kind < EP_FFN_NUM_KINDS; kind++) {
                const struct ep_ffn_shape shape = {
                    .kind = kind, .num_groups = 3, .hidden = 37, .ffn = 51, .dtype = d};
                check_ffn(ep_gemm_backends[b], &shape);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(ref_gives_the_product_worked_by_hand),
        cmocka_unit_test(every_backend_agrees_with_ref),
        cmocka_unit_test(large_gradients_agree_with_ref),
        cmocka_unit_test(wrong_shapes_and_names_are_refused),
        cmocka_unit_test(flops_and_bytes_as_worked_by_hand),
        cmocka_unit_test(activations_at_known_points),
        cmocka_unit_test(every_ffn_agrees_with_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

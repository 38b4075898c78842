/* SPDX-License-Identifier: Apache-2.0 */
/* The backward of the expert FFN against sums in double and against finite differences; slices. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/dtype.h"
#include "kernels/ffn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS = 3, HIDDEN = 21, FFN = 34, ROWS = 19 };

static const int64_t num_rows[GROUPS] = {4, 0, 15};

static double load(enum ep_dtype dtype, const void *values, int64_t i)
{
    return dtype == EP_BF16 ? (double)ep_bf16_to_f32(((const uint16_t *)values)[i])
                            : (double)((const float *)values)[i];
}

static void store(enum ep_dtype dtype, float value, int64_t i, void *values)
{
    if (dtype == EP_BF16) {
        ((uint16_t *)values)[i] = ep_bf16_from_f32(value);
    } else {
        ((float *)values)[i] = value;
    }
}

/* Values in (-1, 1) times `scale`, rounded to the dtype. Freed by the caller. */
static void *make_values(enum ep_dtype dtype, int64_t num, uint64_t stream, double scale)
{
    void *values = malloc((size_t)(num * ep_dtype_element_bytes(dtype)));
    struct ep_random random;
    ep_random_init(&random, 11, EP_RANDOM_TEST, stream);
    for (int64_t i = 0; i < num; i++) {
        store(dtype, (float)((2.0 * ep_random_f64(&random) - 1.0) * scale), i, values);
    }
    return values;
}

/* One FFN with its rows, gradients in and gradients out. */
struct fixture {
    struct ep_ffn_shape shape;
    void *w13[GROUPS], *w2[GROUPS];
    void *x, *dy;
    float *y, *dx, *dw13[GROUPS], *dw2[GROUPS];
    struct ep_ffn *ffn;
};

static void setup(struct fixture *f, const struct ep_gemm_backend *backend, enum ep_ffn_kind kind,
                  enum ep_dtype dtype, bool recompute)
{
    f->shape = (struct ep_ffn_shape){kind, GROUPS, HIDDEN, FFN, dtype};
    const int64_t columns = ep_ffn_inner_columns(&f->shape);
    for (int g = 0; g < GROUPS; g++) {
        f->w13[g] = make_values(dtype, HIDDEN * columns, 10 + (uint64_t)g, 0.5);
        f->w2[g] = make_values(dtype, FFN * HIDDEN, 20 + (uint64_t)g, 0.5);
        f->dw13[g] = malloc((size_t)(HIDDEN * columns) * sizeof(float));
        f->dw2[g] = malloc((size_t)(FFN * HIDDEN) * sizeof(float));
        memset(f->dw13[g], 0xff, (size_t)(HIDDEN * columns) * sizeof(float)); /* NaN */
        memset(f->dw2[g], 0xff, (size_t)(FFN * HIDDEN) * sizeof(float));
    }
    f->x = make_values(dtype, ROWS * HIDDEN, 30, 1.0);
    f->dy = make_values(dtype, ROWS * HIDDEN, 31, 1.0);
    f->y = malloc(ROWS * HIDDEN * sizeof *f->y);
    f->dx = malloc(ROWS * HIDDEN * sizeof *f->dx);
    CHECK_OK(ep_ffn_create(backend, &f->shape, (const void *const *)f->w13,
                           (const void *const *)f->w2, ROWS, &f->ffn));
    CHECK_OK(ep_ffn_prepare_backward(f->ffn, (const void *const *)f->w13,
                                     (const void *const *)f->w2, recompute));
}

static void teardown(struct fixture *f)
{
    ep_ffn_destroy(f->ffn);
    for (int g = 0; g < GROUPS; g++) {
        free(f->w13[g]);
        free(f->w2[g]);
        free(f->dw13[g]);
        free(f->dw2[g]);
    }
    free(f->x);
    free(f->dy);
    free(f->y);
    free(f->dx);
}

/* f and its derivative by (gate, up), in double, from the definitions. */
static double activate(enum ep_ffn_kind kind, double gate, double up)
{
    return kind == EP_FFN_SWIGLU ? gate / (1.0 + exp(-gate)) * up
           : kind == EP_FFN_RELU ? fmax(up, 0.0)
                                 : up * 0.5 * erfc(-up / sqrt(2.0));
}

static void derive(enum ep_ffn_kind kind, double gate, double up, double by[2])
{
    const double s = 1.0 / (1.0 + exp(-gate));
    by[0] = kind == EP_FFN_SWIGLU ? up * (s + gate * s * (1.0 - s)) : 0.0;
    by[1] = kind == EP_FFN_SWIGLU ? gate * s
            : kind == EP_FFN_RELU ? (up > 0.0 ? 1.0 : 0.0)
                                  : 0.5 * erfc(-up / sqrt(2.0)) +
                                        up * exp(-0.5 * up * up) / sqrt(2.0 * acos(-1.0));
}

/* What one row adds, in double. */
struct oracle {
    double dx[ROWS * HIDDEN], dw13[GROUPS][HIDDEN * 2 * FFN], dw2[GROUPS][FFN * HIDDEN];
};

static void add_row(const struct fixture *f, int g, int64_t row, struct oracle *o)
{
    const enum ep_dtype dtype = f->shape.dtype;
    const int64_t columns = ep_ffn_inner_columns(&f->shape);
    const bool gated = f->shape.kind == EP_FFN_SWIGLU;
    for (int64_t i = 0; i < FFN; i++) {
        const int64_t at[2] = {i, gated ? FFN + i : i};
        double z[2] = {0}, by[2], dh = 0.0;
        for (int64_t c = 0; c < HIDDEN; c++) {
            for (int m = 0; m < 2; m++) {
                z[m] += load(dtype, f->x, row * HIDDEN + c) *
                        load(dtype, f->w13[g], c * columns + at[m]);
            }
            dh += load(dtype, f->dy, row * HIDDEN + c) * load(dtype, f->w2[g], i * HIDDEN + c);
        }
        derive(f->shape.kind, z[0], z[1], by);
        for (int64_t c = 0; c < HIDDEN; c++) {
            for (int m = gated ? 0 : 1; m < 2; m++) {
                o->dx[row * HIDDEN + c] += dh * by[m] * load(dtype, f->w13[g], c * columns + at[m]);
                o->dw13[g][c * columns + at[m]] += dh * by[m] * load(dtype, f->x, row * HIDDEN + c);
            }
            o->dw2[g][i * HIDDEN + c] +=
                activate(f->shape.kind, z[0], z[1]) * load(dtype, f->dy, row * HIDDEN + c);
        }
    }
}

/* Each output is a sum of at most 34 x 2 terms below 2 in size, so its error is near 70 x 2 x the error of a
 * term: 2^-8 where bf16 rounds dz and h (in fp32: that of a GEMM of 34, 34 x 2^-24), halved since
 * roundings do not all agree. A wrong factor or index is off by ten times that. */
static void check_near(const char *what, enum ep_dtype dtype, int64_t num, const float *got,
                       const double *expected)
{
    const double bound = 70.0 * (dtype == EP_BF16 ? 0x1p-9 : 34 * 0x1p-24);
    for (int64_t i = 0; i < num; i++) {
        if (!(fabs((double)got[i] - expected[i]) <= bound)) {
            fail_msg("%s %s [%d]: %g, expected %g within %g", what, ep_dtype_name(dtype), (int)i,
                     (double)got[i], expected[i], bound);
        }
    }
}

static void check_backward(const struct ep_gemm_backend *backend, enum ep_ffn_kind kind,
                           enum ep_dtype dtype, bool recompute)
{
    struct fixture f;
    struct oracle *o = calloc(1, sizeof *o);
    setup(&f, backend, kind, dtype, recompute);
    const int64_t columns = ep_ffn_inner_columns(&f.shape);
    if (!recompute) {
        CHECK_OK(ep_ffn_run(f.ffn, num_rows, f.x, f.y));
    }
    for (int repeat = 0; repeat < 2; repeat++) {
        CHECK_OK(ep_ffn_backward(f.ffn, num_rows, f.x, f.dy, f.dx, f.dw13, f.dw2));
    }
    for (int64_t g = 0, row = 0; g < GROUPS; g++) {
        for (const int64_t end = row + num_rows[g]; row < end; row++) {
            add_row(&f, (int)g, row, o);
        }
    }
    check_near("dx", dtype, ROWS * HIDDEN, f.dx, o->dx);
    for (int g = 0; g < GROUPS; g++) { /* expert 1 has no rows: zeros */
        check_near("dw13", dtype, HIDDEN * columns, f.dw13[g], o->dw13[g]);
        check_near("dw2", dtype, FFN * HIDDEN, f.dw2[g], o->dw2[g]);
        assert_true(g != 1 || (f.dw13[g][0] == 0.0f && f.dw2[g][FFN * HIDDEN - 1] == 0.0f));
    }
    teardown(&f);
    free(o);
}

static void every_backward_agrees_with_sums_in_double(void **state)
{
    (void)state;
    for (int b = 0; ep_gemm_backends[b] != NULL; b++) {
        for (int d = 0; d < EP_NUM_DTYPES; d++) {
            char reason[256];
            if (!ep_gemm_is_available(ep_gemm_backends[b], d, reason, sizeof reason)) {
                continue;
            }
            for (int kind = 0; kind < EP_FFN_NUM_KINDS; kind++) {
                check_backward(ep_gemm_backends[b], kind, d, false);
                check_backward(ep_gemm_backends[b], kind, d, true);
            }
        }
    }
}

/* Loss = sum over elements of y dy, in double from fp32 y. */
static double loss(struct fixture *f)
{
    double sum = 0.0;
    CHECK_OK(ep_ffn_run(f->ffn, num_rows, f->x, f->y));
    for (int64_t i = 0; i < ROWS * HIDDEN; i++) {
        sum += (double)f->y[i] * load(f->shape.dtype, f->dy, i);
    }
    return sum;
}

/* (loss(v + e) - loss(v - e)) / 2e of one element, which the FFN borrows (`ref` does). */
static double slope(struct fixture *f, void *values, int64_t i)
{
    const double e = 0x1p-7;
    float *v = (float *)values + i;
    const float was = *v;
    *v = was + (float)e;
    const double above = loss(f);
    *v = was - (float)e;
    const double below = loss(f);
    *v = was;
    return (above - below) / (2.0 * e);
}

/* Errors of a central difference: e^2 / 6 times a third derivative (of order 10 here: sums over 21 hidden
 * columns or 15 rows) and the fp32 rounding of y, 400 x 10 x 2^-24 / 2e: below 0.02 together. ReLU is
 * left out: a step over its corner has no bound. */
static void gradients_agree_with_finite_differences(void **state)
{
    (void)state;
    const enum ep_ffn_kind kinds[] = {EP_FFN_SWIGLU, EP_FFN_GELU};
    const struct ep_gemm_backend *ref = NULL;
    CHECK_OK(ep_gemm_find("ref", EP_FP32, &ref));
    for (int k = 0; k < 2; k++) {
        struct fixture f;
        setup(&f, ref, kinds[k], EP_FP32, false);
        const int64_t columns = ep_ffn_inner_columns(&f.shape);
        CHECK_OK(ep_ffn_run(f.ffn, num_rows, f.x, f.y));
        CHECK_OK(ep_ffn_backward(f.ffn, num_rows, f.x, f.dy, f.dx, f.dw13, f.dw2));
        for (int64_t i = 0; i < ROWS * HIDDEN; i += 37) {
            CHECK_NEAR(f.dx[i], slope(&f, f.x, i), 0.02);
        }
        for (int64_t i = 0; i < HIDDEN * columns; i += 101) {
            CHECK_NEAR(f.dw13[2][i], slope(&f, f.w13[2], i), 0.02);
        }
        for (int64_t i = 0; i < FFN * HIDDEN; i += 61) {
            CHECK_NEAR(f.dw2[0][i], slope(&f, f.w2[0], i), 0.02);
        }
        teardown(&f);
    }
}

static void backward_refuses_what_it_cannot_do(void **state)
{
    (void)state;
    const int64_t others[GROUPS] = {5, 0, 14};
    struct fixture f;
    setup(&f, ep_gemm_default(EP_FP32), EP_FFN_RELU, EP_FP32, false);
    CHECK_OK(ep_ffn_run(f.ffn, num_rows, f.x, f.y));
    CHECK_FAILS(ep_ffn_backward(f.ffn, others, f.x, f.dy, f.dx, NULL, NULL), EP_EINVAL,
                "5 rows of expert 0, whose last forward had 4");
    CHECK_OK(ep_ffn_backward(f.ffn, num_rows, f.x, f.dy, f.dx, NULL, NULL)); /* dx alone */
    CHECK_FAILS(ep_ffn_prepare_backward(f.ffn, (const void *const *)f.w13,
                                        (const void *const *)f.w2, true),
                EP_EINVAL, "twice");
    struct ep_ffn *forward = NULL;
    CHECK_OK(ep_ffn_create(ep_gemm_default(EP_FP32), &f.shape, (const void *const *)f.w13,
                           (const void *const *)f.w2, ROWS, &forward));
    CHECK_FAILS(ep_ffn_backward(forward, num_rows, f.x, f.dy, f.dx, NULL, NULL), EP_EINVAL,
                "not prepared");
    ep_ffn_destroy(forward);
    teardown(&f);
}

/* 5 rows through hidden 4, ffn 6, SwiGLU: 2 * 5 * 72 = 720 forward, 1440 backward, and the first GEMM of
 * 4 x 12 again: 480. Bytes on 2 experts of 72 weights: 2 * 72 * (2 + 4) = 864, rows 5 * 4 * (2 + 2 + 4) = 160;
 * again 2 * 48 * 2 = 192. */
static void backward_flops_and_bytes_as_worked_by_hand(void **state)
{
    (void)state;
    const struct ep_ffn_shape shape = {EP_FFN_SWIGLU, 3, 4, 6, EP_BF16};
    assert_true(ep_ffn_backward_flops(&shape, 5, false) == 1440.0);
    assert_true(ep_ffn_backward_flops(&shape, 5, true) == 1920.0);
    assert_true(ep_ffn_backward_bytes(&shape, 2, 5, false) == 1024.0);
    assert_true(ep_ffn_backward_bytes(&shape, 2, 5, true) == 1216.0);
}

/* Inner columns [first, first + ffn) of every matrix of the fixture, as an FFN of its own. */
static void add_slice(struct fixture *f, int64_t first, int64_t ffn, float *y_sum, float *dx_sum)
{
    const bool gated = f->shape.kind == EP_FFN_SWIGLU;
    const int64_t columns = ep_ffn_inner_columns(&f->shape), parts = gated ? 2 : 1;
    struct ep_ffn_shape shape = f->shape;
    struct ep_ffn *slice = NULL;
    float *w13[GROUPS], *w2[GROUPS];
    shape.ffn = ffn;
    for (int g = 0; g < GROUPS; g++) {
        w13[g] = malloc((size_t)(HIDDEN * parts * ffn) * sizeof *w13[g]);
        w2[g] = (float *)f->w2[g] + first * HIDDEN;
        for (int64_t c = 0; c < HIDDEN; c++) {
            for (int64_t p = 0; p < parts; p++) {
                memcpy(w13[g] + (c * parts + p) * ffn,
                       (float *)f->w13[g] + c * columns + p * FFN + first,
                       (size_t)ffn * sizeof *w13[g]);
            }
        }
    }
    CHECK_OK(ep_ffn_create(ep_gemm_default(EP_FP32), &shape, (const void *const *)w13,
                           (const void *const *)w2, ROWS, &slice));
    CHECK_OK(ep_ffn_prepare_backward(slice, (const void *const *)w13, (const void *const *)w2,
                                     false));
    CHECK_OK(ep_ffn_run(slice, num_rows, f->x, f->y));
    CHECK_OK(ep_ffn_backward(slice, num_rows, f->x, f->dy, f->dx, NULL, NULL));
    for (int64_t i = 0; i < ROWS * HIDDEN; i++) {
        y_sum[i] += f->y[i];
        dx_sum[i] += f->dx[i];
    }
    ep_ffn_destroy(slice);
    for (int g = 0; g < GROUPS; g++) {
        free(w13[g]);
    }
}

/* Tensor parallelism inside an expert: y and dx of its slices sum to the whole's, for any cut. Within the
 * rounding of sums of 34 terms below 2 (y) and 68 (dx). */
static void slices_of_an_expert_sum_to_the_whole(void **state)
{
    (void)state;
    static const int64_t cuts[][4] = {{0, 17, 34, 34}, {0, 11, 22, 34}, {0, 1, 33, 34}};
    for (int kind = 0; kind < EP_FFN_NUM_KINDS; kind++) {
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            struct fixture f;
            float y[ROWS * HIDDEN], dx[ROWS * HIDDEN];
            float y_sum[ROWS * HIDDEN] = {0}, dx_sum[ROWS * HIDDEN] = {0};
            setup(&f, ep_gemm_default(EP_FP32), kind, EP_FP32, false);
            CHECK_OK(ep_ffn_run(f.ffn, num_rows, f.x, f.y));
            CHECK_OK(ep_ffn_backward(f.ffn, num_rows, f.x, f.dy, f.dx, NULL, NULL));
            memcpy(y, f.y, sizeof y);
            memcpy(dx, f.dx, sizeof dx);
            for (int s = 0; s < 3 && cuts[c][s] < FFN; s++) {
                add_slice(&f, cuts[c][s], cuts[c][s + 1] - cuts[c][s], y_sum, dx_sum);
            }
            for (int64_t i = 0; i < ROWS * HIDDEN; i++) {
                CHECK_NEAR(y_sum[i], y[i], 70 * 34 * 0x1p-24);
                CHECK_NEAR(dx_sum[i], dx[i], 70 * 68 * 0x1p-24);
            }
            teardown(&f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_backward_agrees_with_sums_in_double),
        cmocka_unit_test(gradients_agree_with_finite_differences),
        cmocka_unit_test(backward_refuses_what_it_cannot_do),
        cmocka_unit_test(backward_flops_and_bytes_as_worked_by_hand),
        cmocka_unit_test(slices_of_an_expert_sum_to_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

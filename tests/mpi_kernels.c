/* SPDX-License-Identifier: Apache-2.0 */
/* The check of timed FFNs: it passes what is right and finds what is not, in every kind and type. */
#include "tests/check.h"

#include "bench/kernels_gemm.h"
#include "kernels/gemm_backends.h"

#include <stdlib.h>

enum { EXPERTS = 3, ROWS = 2, HIDDEN = 96, FFN = 160 };

static void check_kind(enum ep_ffn_kind kind, enum ep_dtype dtype)
{
    const struct ep_ffn_shape shape = {kind, EXPERTS, HIDDEN, FFN, dtype};
    const int64_t columns = ep_ffn_inner_columns(&shape);
    const int64_t element = ep_dtype_element_bytes(dtype);
    const uint64_t seed = 5;
    void *w13[EXPERTS], *w2[EXPERTS];
    int64_t num_rows[EXPERTS] = {ROWS, ROWS, ROWS};
    void *x = ep_gemm_alloc(EXPERTS * ROWS * HIDDEN * element);
    float *y = ep_gemm_alloc(EXPERTS * ROWS * HIDDEN * (int64_t)sizeof *y);
    const struct ep_gemm_backend *backend = NULL;
    struct ep_ffn *ffn = NULL;
    CHECK_OK(ep_gemm_find("default", dtype, &backend));
    ep_kernels_fill(dtype, seed, -1, EXPERTS * ROWS * HIDDEN, x);
    for (int64_t e = 0; e < EXPERTS; e++) {
        w13[e] = ep_gemm_alloc(HIDDEN * columns * element);
        w2[e] = ep_gemm_alloc(FFN * HIDDEN * element);
        ep_kernels_fill(dtype, seed, 2 * e, HIDDEN * columns, w13[e]);
        ep_kernels_fill(dtype, seed, 2 * e + 1, FFN * HIDDEN, w2[e]);
    }
    CHECK_OK(ep_ffn_create(backend, &shape, (const void *const *)w13, (const void *const *)w2,
                           EXPERTS * ROWS, &ffn));
    CHECK_OK(ep_ffn_run(ffn, num_rows, x, y));
    for (int64_t row = 0; row < EXPERTS * ROWS; row++) {
        CHECK_OK(ep_kernels_ffn_check(&shape, seed, row / ROWS, row, y));
    }
    /* another expert's result, a row next to it, and one element that is off */
    CHECK_FAILS(ep_kernels_ffn_check(&shape, seed, 1, EXPERTS * ROWS - 1, y), EP_ECHECK, "expert 1");
    memmove(y + HIDDEN, y, HIDDEN * sizeof *y);
    CHECK_FAILS(ep_kernels_ffn_check(&shape, seed, 0, 1, y), EP_ECHECK, "row 1");
    y[HIDDEN - 1] = y[HIDDEN - 1] * 2 + 100;
    CHECK_FAILS(ep_kernels_ffn_check(&shape, seed, 0, 0, y), EP_ECHECK, "column 95");
    ep_ffn_destroy(ffn);
    for (int64_t e = 0; e < EXPERTS; e++) {
        free(w13[e]);
        free(w2[e]);
    }
    free(x);
    free(y);
}

static void test_ffn_check(void **state)
{
    (void)state;
    for (int kind = 0; kind < EP_FFN_NUM_KINDS; kind++) {
        check_kind((enum ep_ffn_kind)kind, EP_FP32);
        check_kind((enum ep_ffn_kind)kind, EP_BF16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ffn_check)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

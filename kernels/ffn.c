/* SPDX-License-Identifier: Apache-2.0 */
/* The expert feed-forward network through a GEMM back end. */
#include "kernels/ffn.h"

#include "kernels/dtype.h"
#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct ep_ffn {
    struct ep_ffn_shape shape;
    int64_t max_rows;
    struct ep_gemm_packed w13;
    struct ep_gemm_packed w2;
    float *inner;    /* [max_rows][inner columns], out of the first GEMM */
    void *activated; /* [max_rows][ffn] of the dtype, into the second */
};

static const char *const kind_names[EP_FFN_NUM_KINDS] = {
    [EP_FFN_SWIGLU] = "swiglu",
    [EP_FFN_RELU] = "relu",
    [EP_FFN_GELU] = "gelu",
};

const char *ep_ffn_kind_name(enum ep_ffn_kind kind)
{
    return kind_names[kind];
}

int64_t ep_ffn_inner_columns(const struct ep_ffn_shape *shape)
{
    return shape->kind == EP_FFN_SWIGLU ? 2 * shape->ffn : shape->ffn;
}

static struct ep_gemm_shape first_gemm(const struct ep_ffn_shape *shape)
{
    return (struct ep_gemm_shape){.num_groups = shape->num_groups,
                                  .k = shape->hidden,
                                  .n = ep_ffn_inner_columns(shape),
                                  .dtype = shape->dtype};
}

static struct ep_gemm_shape second_gemm(const struct ep_ffn_shape *shape)
{
    return (struct ep_gemm_shape){.num_groups = shape->num_groups,
                                  .k = shape->ffn,
                                  .n = shape->hidden,
                                  .dtype = shape->dtype};
}

static enum ep_status check_shape(const struct ep_ffn_shape *shape, int64_t max_rows)
{
    if (shape->ffn < 1 || shape->ffn > INT32_MAX / 2 || shape->hidden < 1 || max_rows < 0 ||
        max_rows > INT64_MAX / 16 / ep_ffn_inner_columns(shape)) {
        return ep_error_set(EP_EINVAL,
                            "expert FFN of hidden %" PRId64 ", ffn %" PRId64 ", %" PRId64
                            " rows: hidden and ffn must be 1 to 2^30, rows not negative",
                            shape->hidden, shape->ffn, max_rows);
    }
    return EP_OK;
}

enum ep_status ep_ffn_create(const struct ep_gemm_backend *backend,
                             const struct ep_ffn_shape *shape, const void *const *w13,
                             const void *const *w2, int64_t max_rows, struct ep_ffn **ffn)
{
    enum ep_status status = EP_OK;
    struct ep_ffn *made = NULL;
    EP_TRY(check_shape(shape, max_rows));
    made = calloc(1, sizeof *made);
    if (made == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for an expert FFN");
        goto out;
    }
    made->shape = *shape;
    made->max_rows = max_rows;
    const struct ep_gemm_shape first = first_gemm(shape), second = second_gemm(shape);
    made->inner = ep_gemm_alloc(max_rows * first.n * (int64_t)sizeof(float));
    made->activated = ep_gemm_alloc(max_rows * second.k * ep_dtype_element_bytes(shape->dtype));
    if (made->inner == NULL || made->activated == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the inner rows of %" PRId64 " tokens",
                              max_rows);
        goto out;
    }
    EP_TRY(ep_gemm_pack(backend, &first, w13, &made->w13));
    EP_TRY(ep_gemm_pack(backend, &second, w2, &made->w2));
    *ffn = made;
    made = NULL;
out:
    ep_ffn_destroy(made);
    return status;
}

void ep_ffn_destroy(struct ep_ffn *ffn)
{
    if (ffn != NULL) {
        ep_gemm_release(&ffn->w13);
        ep_gemm_release(&ffn->w2);
        free(ffn->inner);
        free(ffn->activated);
        free(ffn);
    }
}

float ep_ffn_activate(enum ep_ffn_kind kind, float gate, float up)
{
    switch (kind) {
    case EP_FFN_SWIGLU:
        return gate / (1.0f + expf(-gate)) * up;
    case EP_FFN_RELU:
        return up > 0.0f ? up : 0.0f;
    default:
        return 0.5f * up * (1.0f + erff(up * 0.70710678118654752f));
    }
}

/* One row; `to` is of the FFN's dtype. */
static void activate_row(const struct ep_ffn_shape *shape, const float *inner, void *to)
{
    const float *up = shape->kind == EP_FFN_SWIGLU ? inner + shape->ffn : inner;
    for (int64_t i = 0; i < shape->ffn; i++) {
        const float value = ep_ffn_activate(shape->kind, inner[i], up[i]);
        if (shape->dtype == EP_BF16) {
            ((uint16_t *)to)[i] = ep_bf16_from_f32(value);
        } else {
            ((float *)to)[i] = value;
        }
    }
}

enum ep_status ep_ffn_run(struct ep_ffn *ffn, const int64_t *num_rows, const void *x, float *y)
{
    const struct ep_ffn_shape *shape = &ffn->shape;
    const int64_t columns = ep_ffn_inner_columns(shape);
    const int64_t row_bytes = shape->ffn * ep_dtype_element_bytes(shape->dtype);
    int64_t rows = 0;
    for (int64_t g = 0; g < shape->num_groups; g++) {
        rows += num_rows[g];
    }
    if (rows > ffn->max_rows) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " rows for an expert FFN made for %" PRId64,
                            rows, ffn->max_rows);
    }
    const enum ep_status status = ep_gemm_run(&ffn->w13, num_rows, x, ffn->inner);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < rows; i++) {
        activate_row(shape, ffn->inner + i * columns, (char *)ffn->activated + i * row_bytes);
    }
    return ep_gemm_run(&ffn->w2, num_rows, ffn->activated, y);
}

double ep_ffn_flops(const struct ep_ffn_shape *shape, int64_t num_rows)
{
    const struct ep_gemm_shape first = first_gemm(shape), second = second_gemm(shape);
    return ep_gemm_flops(&first, num_rows) + ep_gemm_flops(&second, num_rows);
}

double ep_ffn_bytes(const struct ep_ffn_shape *shape, int64_t num_active, int64_t num_rows)
{
    const double element = (double)ep_dtype_element_bytes(shape->dtype);
    const double matrices =
        (double)(ep_ffn_inner_columns(shape) + shape->ffn) * (double)shape->hidden * element;
    return (double)num_active * matrices +
           (double)num_rows * (double)shape->hidden * (element + sizeof(float));
}

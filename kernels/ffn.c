/* SPDX-License-Identifier: Apache-2.0 */
/* The expert feed-forward network through a GEMM back end. */
#include "kernels/ffn.h"

#include "kernels/dtype.h"
#include "kernels/ffn_activation.h"
#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct ep_ffn {
    struct ep_ffn_shape shape;
    int64_t max_rows;
    struct ep_gemm_packed w13;
    struct ep_gemm_packed w2;
    float *inner;    /* [max_rows][inner columns], out of the first GEMM */
    void *activated; /* [max_rows][ffn] of the dtype, into the second; one expert's at a time */
    /* for the backward; all NULL without one */
    bool keeps_inner;   /* inner rows stay for it, each at its place */
    int64_t *kept_rows; /* [num_groups] of the last run, where they stay */
    struct ep_gemm_packed w13_transposed;
    struct ep_gemm_packed w2_transposed;
    float *dh; /* [max_rows][ffn], by the activated rows; one expert's at a time */
    void *dz;  /* [max_rows][inner columns] of the dtype, by the inner rows */
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

static void fini_backward(struct ep_ffn *ffn)
{
    ep_gemm_release(&ffn->w13_transposed);
    ep_gemm_release(&ffn->w2_transposed);
    free(ffn->kept_rows);
    free(ffn->dh);
    free(ffn->dz);
    ffn->kept_rows = NULL;
    ffn->dh = NULL;
    ffn->dz = NULL;
}

void ep_ffn_destroy(struct ep_ffn *ffn)
{
    if (ffn != NULL) {
        fini_backward(ffn);
        ep_gemm_release(&ffn->w13);
        ep_gemm_release(&ffn->w2);
        free(ffn->inner);
        free(ffn->activated);
        free(ffn);
    }
}

const struct ep_gemm_packed *ep_ffn_gemm(const struct ep_ffn *ffn, int which)
{
    return which == 0 ? &ffn->w13 : &ffn->w2;
}

static enum ep_status check_rows(const struct ep_ffn *ffn, const int64_t *num_rows)
{
    int64_t rows = 0;
    for (int64_t g = 0; g < ffn->shape.num_groups; g++) {
        rows += num_rows[g];
    }
    if (rows > ffn->max_rows) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " rows for an expert FFN made for %" PRId64, rows,
                            ffn->max_rows);
    }
    return EP_OK;
}

/* Inner rows of the expert whose first row is `row`: kept for the backward, or soon overwritten. */
static float *inner_rows(const struct ep_ffn *ffn, int64_t row)
{
    return ffn->keeps_inner ? ffn->inner + row * ffn->w13.shape.n : ffn->inner;
}

enum ep_status ep_ffn_run(struct ep_ffn *ffn, const int64_t *num_rows, const void *x, float *y)
{
    enum ep_status status = EP_OK;
    const struct ep_ffn_shape *shape = &ffn->shape;
    const int64_t row_bytes = shape->hidden * ep_dtype_element_bytes(shape->dtype);
    int64_t row = 0;
    EP_TRY(check_rows(ffn, num_rows));
    for (int64_t g = 0; g < shape->num_groups; g++) {
        float *inner = inner_rows(ffn, row);
        const char *rows = (const char *)x + row * row_bytes;
        EP_TRY(ep_gemm_run_group(&ffn->w13, g, num_rows[g], rows, inner));
        ep_ffn_activate_rows(shape, num_rows[g], inner, ffn->activated);
        EP_TRY(ep_gemm_run_group(&ffn->w2, g, num_rows[g], ffn->activated,
                                 y + row * shape->hidden));
        row += num_rows[g];
    }
    if (ffn->keeps_inner) {
        memcpy(ffn->kept_rows, num_rows, (size_t)shape->num_groups * sizeof *num_rows);
    }
out:
    return status;
}

static struct ep_gemm_shape transposed(struct ep_gemm_shape shape)
{
    const int64_t k = shape.k;
    shape.k = shape.n;
    shape.n = k;
    return shape;
}

enum ep_status ep_ffn_prepare_backward(struct ep_ffn *ffn, const void *const *w13,
                                       const void *const *w2, bool recompute)
{
    enum ep_status status = EP_OK;
    const struct ep_gemm_shape first = transposed(ffn->w13.shape);
    const struct ep_gemm_shape second = transposed(ffn->w2.shape);
    const int64_t element = ep_dtype_element_bytes(ffn->shape.dtype);
    if (ffn->kept_rows != NULL) {
        return ep_error_set(EP_EINVAL, "the backward of an expert FFN is prepared twice");
    }
    ffn->kept_rows = calloc((size_t)ffn->shape.num_groups, sizeof *ffn->kept_rows);
    ffn->dh = ep_gemm_alloc(ffn->max_rows * second.n * (int64_t)sizeof(float));
    ffn->dz = ep_gemm_alloc(ffn->max_rows * first.k * element);
    if (ffn->kept_rows == NULL || ffn->dh == NULL || ffn->dz == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the gradients of %" PRId64 " tokens",
                              ffn->max_rows);
        goto out;
    }
    EP_TRY(ep_gemm_pack_transposed(ffn->w13.backend, &first, w13, &ffn->w13_transposed));
    EP_TRY(ep_gemm_pack_transposed(ffn->w2.backend, &second, w2, &ffn->w2_transposed));
    ffn->keeps_inner = !recompute;
out:
    if (status != EP_OK) {
        fini_backward(ffn);
    }
    return status;
}

static enum ep_status check_backward(const struct ep_ffn *ffn, const int64_t *num_rows)
{
    if (ffn->kept_rows == NULL) {
        return ep_error_set(EP_EINVAL, "the backward of an expert FFN is not prepared");
    }
    for (int64_t g = 0; ffn->keeps_inner && g < ffn->shape.num_groups; g++) {
        if (num_rows[g] != ffn->kept_rows[g]) {
            return ep_error_set(EP_EINVAL,
                                "backward of %" PRId64 " rows of expert %" PRId64
                                ", whose last forward had %" PRId64,
                                num_rows[g], g, ffn->kept_rows[g]);
        }
    }
    return check_rows(ffn, num_rows);
}

/* The rows of expert g, where x, dy and dx point to the first of them. */
static enum ep_status run_backward(struct ep_ffn *ffn, int64_t g, int64_t num_rows, float *inner,
                                   const void *x, const void *dy, float *dx, float *dw13,
                                   float *dw2)
{
    enum ep_status status = EP_OK;
    if (!ffn->keeps_inner) {
        EP_TRY(ep_gemm_run_group(&ffn->w13, g, num_rows, x, inner));
    }
    EP_TRY(ep_gemm_run_group(&ffn->w2_transposed, g, num_rows, dy, ffn->dh));
    ep_ffn_differentiate_rows(&ffn->shape, num_rows, inner, ffn->dh, ffn->activated, ffn->dz);
    EP_TRY(ep_gemm_run_group(&ffn->w13_transposed, g, num_rows, ffn->dz, dx));
    if (dw13 != NULL) {
        EP_TRY(ep_gemm_gradient(&ffn->w13, num_rows, x, ffn->dz, dw13));
    }
    if (dw2 != NULL) {
        EP_TRY(ep_gemm_gradient(&ffn->w2, num_rows, ffn->activated, dy, dw2));
    }
out:
    return status;
}

enum ep_status ep_ffn_backward(struct ep_ffn *ffn, const int64_t *num_rows, const void *x,
                               const void *dy, float *dx, float *const *dw13, float *const *dw2)
{
    enum ep_status status = EP_OK;
    const struct ep_ffn_shape *shape = &ffn->shape;
    const int64_t row_bytes = shape->hidden * ep_dtype_element_bytes(shape->dtype);
    int64_t row = 0;
    EP_TRY(check_backward(ffn, num_rows));
    for (int64_t g = 0; g < shape->num_groups; g++) {
        EP_TRY(run_backward(ffn, g, num_rows[g], inner_rows(ffn, row),
                            (const char *)x + row * row_bytes, (const char *)dy + row * row_bytes,
                            dx + row * shape->hidden, dw13 != NULL ? dw13[g] : NULL,
                            dw2 != NULL ? dw2[g] : NULL));
        row += num_rows[g];
    }
out:
    return status;
}

double ep_ffn_flops(const struct ep_ffn_shape *shape, int64_t num_rows)
{
    const struct ep_gemm_shape first = first_gemm(shape), second = second_gemm(shape);
    return ep_gemm_flops(&first, num_rows) + ep_gemm_flops(&second, num_rows);
}

double ep_ffn_backward_flops(const struct ep_ffn_shape *shape, int64_t num_rows, bool recompute)
{
    const struct ep_gemm_shape first = first_gemm(shape);
    return 2.0 * ep_ffn_flops(shape, num_rows) +
           (recompute ? ep_gemm_flops(&first, num_rows) : 0.0);
}

double ep_ffn_bytes(const struct ep_ffn_shape *shape, int64_t num_active, int64_t num_rows)
{
    const double element = (double)ep_dtype_element_bytes(shape->dtype);
    const double matrices =
        (double)(ep_ffn_inner_columns(shape) + shape->ffn) * (double)shape->hidden * element;
    return (double)num_active * matrices +
           (double)num_rows * (double)shape->hidden * (element + sizeof(float));
}

double ep_ffn_backward_bytes(const struct ep_ffn_shape *shape, int64_t num_active, int64_t num_rows,
                             bool recompute)
{
    const double element = (double)ep_dtype_element_bytes(shape->dtype);
    const double first = (double)ep_ffn_inner_columns(shape) * (double)shape->hidden;
    const double both = first + (double)shape->ffn * (double)shape->hidden;
    const double matrices =
        (both + (recompute ? first : 0.0)) * element + both * (double)sizeof(float);
    return (double)num_active * matrices +
           (double)num_rows * (double)shape->hidden * (2.0 * element + sizeof(float));
}

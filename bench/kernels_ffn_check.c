/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of expert FFNs against sums in double of the patterns that their inputs are of. */
#include "bench/kernels_gemm.h"

#include <inttypes.h>
#include <math.h>

enum { NUM_CHECKED = 16 };

/* A value and the bound of its error. */
struct bounded {
    double value, error;
};

struct place {
    const struct ep_ffn_shape *shape;
    uint64_t seed;
    int64_t expert;
};

static double w13_of(const struct place *p, int64_t row, int64_t column)
{
    return ep_kernels_value(p->shape->dtype, p->seed, 2 * p->expert,
                            row * ep_ffn_inner_columns(p->shape) + column);
}

static double w2_of(const struct place *p, int64_t row, int64_t column)
{
    return ep_kernels_value(p->shape->dtype, p->seed, 2 * p->expert + 1,
                            row * p->shape->hidden + column);
}

static double row_of(const struct place *p, int64_t pattern, int64_t row, int64_t column)
{
    return ep_kernels_value(p->shape->dtype, p->seed, pattern, row * p->shape->hidden + column);
}

/* Inner element i of one row: h, and dz by gate and up. */
struct inner {
    struct bounded h, dz[2];
};

static void round_once(enum ep_dtype dtype, struct bounded *v)
{
    v->error += (fabs(v->value) + v->error) * (dtype == EP_BF16 ? 0x1p-8 : 0x1p-20) + 0x1p-126;
}

/* Errors of the GEMMs go through products and derivatives: |silu'|, |gelu'| <= 1.13, |silu''| <= 0.5,
 * |gelu''| <= 0.8; ReLU' jumps where the sign of z is not certain. */
static struct inner differentiate(const struct ep_ffn_shape *shape, struct bounded gate,
                                  struct bounded up, struct bounded dh)
{
    struct inner inner = {0};
    const double u = up.value, size = fabs(dh.value) + dh.error;
    if (shape->kind == EP_FFN_SWIGLU) {
        const double g = gate.value, s = 1 / (1 + exp(-g)), by_gate = s * (1 + g * (1 - s));
        const double u_size = fabs(u) + up.error, silu_error = 1.13 * gate.error;
        inner.h.value = g * s * u;
        inner.h.error = silu_error * u_size + fabs(g * s) * up.error;
        inner.dz[0].value = dh.value * u * by_gate;
        inner.dz[0].error = 1.13 * (dh.error * u_size + size * up.error) +
                            0.5 * size * u_size * gate.error;
        inner.dz[1].value = dh.value * g * s;
        inner.dz[1].error = dh.error * fabs(g * s) + size * silu_error;
    } else if (shape->kind == EP_FFN_RELU) {
        inner.h = (struct bounded){fmax(u, 0), up.error};
        inner.dz[1].value = u > 0 ? dh.value : 0;
        inner.dz[1].error = dh.error + (fabs(u) <= up.error ? size : 0);
    } else {
        const double phi = 0.5 * erfc(-u / sqrt(2)), density = exp(-0.5 * u * u) / sqrt(2 * M_PI);
        inner.h = (struct bounded){u * phi, 1.13 * up.error};
        inner.dz[1].value = dh.value * (phi + u * density);
        inner.dz[1].error = 1.13 * dh.error + 0.8 * size * up.error;
    }
    round_once(shape->dtype, &inner.h);
    round_once(shape->dtype, &inner.dz[0]);
    round_once(shape->dtype, &inner.dz[1]);
    return inner;
}

static struct inner inner_of(const struct place *p, int64_t row, int64_t i)
{
    const struct ep_ffn_shape *shape = p->shape;
    const int64_t up_at = ep_ffn_inner_columns(shape) - shape->ffn + i;
    struct bounded sums[3] = {{0, 0}, {0, 0}, {0, 0}}; /* gate, up, dh; errors: sums of sizes */
    for (int64_t c = 0; c < shape->hidden; c++) {
        const double x = row_of(p, -1, row, c);
        const double terms[] = {x * w13_of(p, c, i), x * w13_of(p, c, up_at),
                                row_of(p, EP_KERNELS_DY, row, c) * w2_of(p, i, c)};
        for (int t = 0; t < 3; t++) {
            sums[t].value += terms[t];
            sums[t].error += fabs(terms[t]);
        }
    }
    for (int t = 0; t < 3; t++) {
        sums[t].error = ep_gemm_tolerance(shape->dtype, shape->hidden, sums[t].error);
    }
    return differentiate(shape, sums[0], sums[1], sums[2]);
}

/* An output as it is summed up: of `terms` products. */
struct sum {
    double value, moved, spread;
};

static void add(struct sum *sum, struct bounded factor, double exact)
{
    sum->value += factor.value * exact;
    sum->moved += factor.error * fabs(exact);
    sum->spread += fabs(factor.value * exact);
}

static enum ep_status compare(const struct place *p, const char *what, int64_t row, int64_t column,
                              int64_t terms, const struct sum *sum, double got)
{
    const double bound =
        sum->moved + ep_gemm_tolerance(p->shape->dtype, terms, sum->spread + sum->moved);
    if (fabs(got - sum->value) <= bound) {
        return EP_OK;
    }
    return ep_error_set(EP_ECHECK, "FFN backward %s %s, expert %" PRId64 ": %s row %" PRId64
                        " column %" PRId64 " is %.9g, expected %.9g within %.2g",
                        ep_ffn_kind_name(p->shape->kind), ep_dtype_name(p->shape->dtype), p->expert,
                        what, row, column, got, sum->value, bound);
}

static int64_t spread_over(int64_t c, int64_t size)
{
    return c * (size - 1) / (NUM_CHECKED - 1);
}

static enum ep_status check_dx(const struct place *p, int64_t row, const float *dx)
{
    enum ep_status status = EP_OK;
    const struct ep_ffn_shape *shape = p->shape;
    const int64_t columns = ep_ffn_inner_columns(shape);
    struct sum sums[NUM_CHECKED] = {{0, 0, 0}};
    for (int64_t i = 0; i < shape->ffn; i++) {
        const struct inner inner = inner_of(p, row, i);
        for (int64_t c = 0; c < NUM_CHECKED; c++) {
            const int64_t column = spread_over(c, shape->hidden);
            if (shape->kind == EP_FFN_SWIGLU) {
                add(&sums[c], inner.dz[0], w13_of(p, column, i));
            }
            add(&sums[c], inner.dz[1], w13_of(p, column, columns - shape->ffn + i));
        }
    }
    for (int64_t c = 0; c < NUM_CHECKED; c++) {
        const int64_t column = spread_over(c, shape->hidden);
        EP_TRY(compare(p, "dx", row, column, columns, &sums[c], dx[row * shape->hidden + column]));
    }
out:
    return status;
}

/* Element c of the checked ones, of dW13 (gate and up by turns) and of dW2. */
static enum ep_status check_dw(const struct place *p, int64_t first_row, int64_t num_rows,
                               int64_t c, const float *dw13, const float *dw2)
{
    enum ep_status status = EP_OK;
    const struct ep_ffn_shape *shape = p->shape;
    const int64_t columns = ep_ffn_inner_columns(shape);
    const int64_t i = spread_over(c, shape->ffn), at = spread_over(c, shape->hidden);
    const bool gate = shape->kind == EP_FFN_SWIGLU && c % 2 == 0;
    const int64_t column = gate ? i : columns - shape->ffn + i;
    struct sum sum13 = {0}, sum2 = {0};
    for (int64_t row = first_row; row < first_row + num_rows; row++) {
        const struct inner inner = inner_of(p, row, i);
        add(&sum13, inner.dz[gate ? 0 : 1], row_of(p, -1, row, at));
        add(&sum2, inner.h, row_of(p, EP_KERNELS_DY, row, at));
    }
    EP_TRY(compare(p, "dW13", at, column, num_rows, &sum13, dw13[at * columns + column]));
    EP_TRY(compare(p, "dW2", i, at, num_rows, &sum2, dw2[i * shape->hidden + at]));
out:
    return status;
}

enum ep_status ep_kernels_ffn_check_backward(const struct ep_ffn_shape *shape, uint64_t seed,
                                             int64_t expert, int64_t first_row, int64_t num_rows,
                                             const float *dx, const float *dw13, const float *dw2)
{
    enum ep_status status = EP_OK;
    const struct place place = {shape, seed, expert};
    if (num_rows > 0) {
        EP_TRY(check_dx(&place, first_row + num_rows - 1, dx));
    }
    for (int64_t c = 0; c < NUM_CHECKED; c++) {
        EP_TRY(check_dw(&place, first_row, num_rows, c, dw13, dw2));
    }
out:
    return status;
}

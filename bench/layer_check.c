/* SPDX-License-Identifier: Apache-2.0 */
/* The plain layer: token by token, expert by expert, in double, with the bound of each element. */
#include "bench/layer_check.h"

#include "bench/layer_backward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Multiply-adds of a rank's check at most (at least one token), and its tokens at most. */
enum { MAX_TOKENS = 8 };
static const double max_work = 1e8;

/* Values with the bounds of their errors; scratch of one token. [hidden], inner: [ffn of any expert]. */
struct plain {
    double *x;                  /* the token row */
    double *dy;                 /* backward: the gradient by its result, for the expert at hand */
    double *dh, *dh_abs;        /* the gradient by the inner elements, and its sum of |terms| */
    double *inner, *inner_error;
    double *gate, *gate_abs, *up, *up_abs; /* sums of the first matrix */
    double *y, *y_error, *y_abs; /* one expert's result: its value, error, sum of |terms| */
    double *sum, *sum_error, *sum_abs; /* of the weighted results */
    double *memory;
};

static double get(enum ep_dtype dtype, const void *values, int64_t i)
{
    return dtype == EP_BF16 ? ep_bf16_to_f32(((const uint16_t *)values)[i])
                            : ((const float *)values)[i];
}

/* One rounding to a row type: bf16 2^-8, fp32 2^-24. */
static double unit(enum ep_dtype dtype)
{
    return dtype == EP_BF16 ? 0x1p-8 : 0x1p-24;
}

static enum ep_status plain_init(int64_t hidden, int64_t ffn, struct plain *p)
{
    double *at = calloc((size_t)(8 * hidden + 8 * ffn), sizeof *at);
    if (at == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to check a layer");
    }
    *p = (struct plain){.memory = at};
    double **const rows[] = {&p->x, &p->dy, &p->y, &p->y_error, &p->y_abs, &p->sum, &p->sum_error, &p->sum_abs};
    double **const inners[] = {&p->inner, &p->inner_error, &p->gate, &p->gate_abs, &p->up, &p->up_abs,
                               &p->dh, &p->dh_abs};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++, at += hidden) {
        *rows[i] = at;
    }
    for (size_t i = 0; i < sizeof inners / sizeof inners[0]; i++, at += ffn) {
        *inners[i] = at;
    }
    return EP_OK;
}

/* sums[c], abs_sums[c] over rows of x[row] matrix[row][first + c], c < num. */
static void multiply(const struct ep_ffn_shape *shape, const double *x, const void *matrix,
                     int64_t columns, int64_t first, int64_t num, double *sums, double *abs_sums)
{
    memset(sums, 0, (size_t)num * sizeof *sums);
    memset(abs_sums, 0, (size_t)num * sizeof *abs_sums);
    for (int64_t row = 0; row < shape->hidden; row++) {
        for (int64_t c = 0; c < num; c++) {
            const double term = x[row] * get(shape->dtype, matrix, row * columns + first + c);
            sums[c] += term;
            abs_sums[c] += fabs(term);
        }
    }
}

/* The inner elements and their errors: those of the GEMM go through the activation (|silu'| and |gelu'|
 * <= 1.13), whose result is rounded to the row type (fp32: what expf leaves, 2^-21). */
static void activate(const struct ep_ffn_shape *shape, struct plain *p)
{
    for (int64_t i = 0; i < shape->ffn; i++) {
        const double dgate = ep_gemm_tolerance(shape->dtype, shape->hidden, p->gate_abs[i]);
        const double dup = ep_gemm_tolerance(shape->dtype, shape->hidden, p->up_abs[i]);
        const double gate = p->gate[i];
        const double up = p->up[i];
        if (shape->kind == EP_FFN_SWIGLU) {
            p->inner[i] = gate / (1 + exp(-gate)) * up;
            p->inner_error[i] = 1.13 * dgate * (fabs(up) + dup) + fabs(gate) * dup;
        } else {
            p->inner[i] = shape->kind == EP_FFN_RELU ? fmax(up, 0) : up * 0.5 * erfc(-up / sqrt(2));
            p->inner_error[i] = 1.13 * dup;
        }
        p->inner_error[i] += (fabs(p->inner[i]) + p->inner_error[i]) *
                                 (shape->dtype == EP_BF16 ? 0x1p-8 : 0x1p-21) +
                             0x1p-22 * fabs(up);
    }
}

/* One expert on the token row: y, y_error, y_abs. */
static enum ep_status run_expert(struct ep_layer_bank *bank, const struct ep_ffn_shape *shape,
                                 int64_t expert, struct plain *p)
{
    enum ep_status status = EP_OK;
    const int64_t columns = ep_ffn_inner_columns(shape);
    const void *matrix = NULL;
    EP_TRY(ep_layer_bank_matrix(bank, shape, expert, 0, &matrix));
    if (shape->kind == EP_FFN_SWIGLU) {
        multiply(shape, p->x, matrix, columns, 0, shape->ffn, p->gate, p->gate_abs);
    }
    multiply(shape, p->x, matrix, columns, columns - shape->ffn, shape->ffn, p->up, p->up_abs);
    activate(shape, p);
    EP_TRY(ep_layer_bank_matrix(bank, shape, expert, 1, &matrix));
    memset(p->y, 0, (size_t)shape->hidden * sizeof *p->y);
    memset(p->y_error, 0, (size_t)shape->hidden * sizeof *p->y_error);
    memset(p->y_abs, 0, (size_t)shape->hidden * sizeof *p->y_abs);
    for (int64_t i = 0; i < shape->ffn; i++) {
        for (int64_t h = 0; h < shape->hidden; h++) {
            const double w = get(shape->dtype, matrix, i * shape->hidden + h);
            p->y[h] += p->inner[i] * w;
            p->y_error[h] += p->inner_error[i] * fabs(w);
            p->y_abs[h] += fabs(p->inner[i] * w);
        }
    }
    for (int64_t h = 0; h < shape->hidden; h++) {
        p->y_error[h] +=
            ep_gemm_tolerance(shape->dtype, shape->ffn, p->y_abs[h] + p->y_error[h]);
    }
out:
    return status;
}

/* Gradients at one inner element, with the bounds of their errors. */
struct slope {
    double gate, gate_error; /* dz of the gate; 0 without one */
    double up, up_error;
};

/* dz = dh f'(z) (kernels/ffn.h), rounded to the row type. |silu'| <= 1.1, |silu''| <= 0.5; |gelu'| <= 1.13,
 * |gelu''| <= 0.8; a ReLU within its error of 0 may go either way. */
static struct slope slope_at(const struct ep_ffn_shape *shape, const struct plain *p, int64_t i,
                             double dh_error)
{
    const double u = shape->dtype == EP_BF16 ? 0x1p-8 : 0x1p-20;
    const double eg = ep_gemm_tolerance(shape->dtype, shape->hidden, p->gate_abs[i]);
    const double eu = ep_gemm_tolerance(shape->dtype, shape->hidden, p->up_abs[i]);
    const double g = p->gate[i];
    const double up = p->up[i];
    const double dh = fabs(p->dh[i]);
    struct slope at = {0};
    if (shape->kind == EP_FFN_SWIGLU) {
        const double s = 1 / (1 + exp(-g));
        at.gate = p->dh[i] * up * s * (1 + g * (1 - s));
        at.gate_error = 1.1 * dh_error * (fabs(up) + eu) + 1.1 * dh * eu + 0.5 * dh * fabs(up) * eg;
        at.up = p->dh[i] * g * s;
        at.up_error = dh_error * (fabs(g * s) + 1.1 * eg) + 1.1 * dh * eg;
    } else if (shape->kind == EP_FFN_RELU) {
        at.up = up > 0 ? p->dh[i] : 0;
        at.up_error = dh_error + (fabs(up) <= eu ? dh : 0);
    } else {
        const double density = exp(-up * up / 2) / sqrt(2 * acos(-1));
        at.up = p->dh[i] * (erfc(-up / sqrt(2)) / 2 + up * density);
        at.up_error = 1.13 * dh_error + 0.8 * dh * eu;
    }
    at.gate_error += u * (fabs(at.gate) + at.gate_error + dh * fabs(up) * 0x1p-4);
    at.up_error += u * (fabs(at.up) + at.up_error + dh * fabs(g) * 0x1p-4);
    return at;
}

/* z and dh of inner elements [first, first + num) of one expert, for the rows x and dy. */
static enum ep_status fill_inner(struct ep_layer_bank *bank, const struct ep_ffn_shape *shape,
                                 int64_t expert, int64_t first, int64_t num, struct plain *p)
{
    enum ep_status status = EP_OK;
    const int64_t columns = ep_ffn_inner_columns(shape);
    const void *matrix = NULL;
    EP_TRY(ep_layer_bank_matrix(bank, shape, expert, 0, &matrix));
    if (shape->kind == EP_FFN_SWIGLU) {
        multiply(shape, p->x, matrix, columns, first, num, p->gate + first, p->gate_abs + first);
    }
    multiply(shape, p->x, matrix, columns, columns - shape->ffn + first, num, p->up + first,
             p->up_abs + first);
    EP_TRY(ep_layer_bank_matrix(bank, shape, expert, 1, &matrix));
    for (int64_t i = first; i < first + num; i++) {
        p->dh[i] = 0;
        p->dh_abs[i] = 0;
        for (int64_t h = 0; h < shape->hidden; h++) {
            const double term = p->dy[h] * get(shape->dtype, matrix, i * shape->hidden + h);
            p->dh[i] += term;
            p->dh_abs[i] += fabs(term);
        }
    }
out:
    return status;
}

/* One expert's gradient by its row: y, y_error, y_abs. dy may be off by the share dy_error. */
static enum ep_status run_slope(struct ep_layer_bank *bank, const struct ep_ffn_shape *shape,
                                int64_t expert, double dy_error, struct plain *p)
{
    enum ep_status status = EP_OK;
    const int64_t columns = ep_ffn_inner_columns(shape);
    const void *matrix = NULL;
    EP_TRY(fill_inner(bank, shape, expert, 0, shape->ffn, p));
    EP_TRY(ep_layer_bank_matrix(bank, shape, expert, 0, &matrix));
    memset(p->y, 0, (size_t)shape->hidden * sizeof *p->y);
    memset(p->y_error, 0, (size_t)shape->hidden * sizeof *p->y_error);
    memset(p->y_abs, 0, (size_t)shape->hidden * sizeof *p->y_abs);
    for (int64_t i = 0; i < shape->ffn; i++) {
        const struct slope at =
            slope_at(shape, p, i, ep_gemm_tolerance(shape->dtype, shape->hidden, p->dh_abs[i]) +
                                      dy_error * p->dh_abs[i]);
        for (int64_t h = 0; h < shape->hidden; h++) {
            const double w = get(shape->dtype, matrix, h * columns + columns - shape->ffn + i);
            const double gated = shape->kind == EP_FFN_SWIGLU
                                     ? get(shape->dtype, matrix, h * columns + i) : 0;
            p->y[h] += at.up * w + at.gate * gated;
            p->y_error[h] += at.up_error * fabs(w) + at.gate_error * fabs(gated);
            p->y_abs[h] += fabs(at.up * w) + fabs(at.gate * gated);
        }
    }
    for (int64_t h = 0; h < shape->hidden; h++) {
        p->y_error[h] += ep_gemm_tolerance(shape->dtype, columns, p->y_abs[h] + p->y_error[h]);
    }
out:
    return status;
}

/* One expert on the token, forward, or backward of its gradient times `weight`. */
static enum ep_status run_one(struct ep_layer *l, const struct ep_ffn_shape *shape, int64_t expert,
                              int64_t token, bool backward, double weight, struct plain *p)
{
    if (!backward) {
        return run_expert(l->bank, shape, expert, p);
    }
    const struct ep_exchange *exchange = &l->backward->exchange;
    const char *dy = exchange->tokens + token * exchange->row_bytes;
    for (int64_t h = 0; h < shape->hidden; h++) {
        p->dy[h] = get(shape->dtype, dy, h) * weight;
    }
    return run_slope(l->bank, shape, expert, unit(shape->dtype), p); /* dy was rounded once */
}

/* The token's whole result, or the gradient by its row: sum, sum_error. */
static enum ep_status run_token(struct ep_layer *l, int64_t token, bool backward, struct plain *p)
{
    enum ep_status status = EP_OK;
    const struct ep_comm_case *point = l->point;
    const int64_t hidden = point->hidden;
    const struct ep_routing *routing = &l->routing;
    struct ep_ffn_shape shape = {l->shape->kind, 1, hidden, l->shape->ffn, point->dtype};
    const double u = unit(point->combine_dtype);
    /* Each slice rounds a part of its own, of which no more is known than the sum of its |terms|. */
    const bool sliced = l->shape->tp > 1;
    const int roundings = ep_transport_roundings(point->transport, ep_comm_size(l->comm)) + sliced;
    memset(p->sum, 0, (size_t)hidden * sizeof *p->sum);
    memset(p->sum_error, 0, (size_t)hidden * sizeof *p->sum_error);
    memset(p->sum_abs, 0, (size_t)hidden * sizeof *p->sum_abs);
    for (int64_t s = 0; s < routing->top_k; s++) {
        const int64_t slot = token * routing->top_k + s;
        const double weight = backward ? 1 : routing->topk_weight[slot]; /* in combine's sum */
        if (routing->topk_idx[slot] < 0) {
            continue;
        }
        EP_TRY(run_one(l, &shape, routing->topk_idx[slot], token, backward,
                       routing->topk_weight[slot], p));
        for (int64_t h = 0; h < hidden; h++) {
            const double most = (sliced ? p->y_abs[h] : fabs(p->y[h])) + p->y_error[h];
            p->sum[h] += weight * p->y[h];
            p->sum_error[h] += weight * (p->y_error[h] + u * most); /* rounded to a row of combine */
            p->sum_abs[h] += weight * most;
        }
    }
    for (int64_t h = 0; h < hidden; h++) { /* as ep_pattern_check_results has it */
        p->sum_error[h] += (roundings * u + (double)(routing->top_k + l->shape->tp) * 0x1p-23) *
                           p->sum_abs[h];
    }
    if (l->shape->shared_ffn > 0) {
        shape.ffn = l->shape->shared_ffn;
        EP_TRY(run_one(l, &shape, EP_LAYER_SHARED, token, backward, 1, p));
        for (int64_t h = 0; h < hidden; h++) {
            p->sum[h] += p->y[h];
            p->sum_error[h] += p->y_error[h];
            p->sum_error[h] += 2 * u * (fabs(p->sum[h]) + p->sum_error[h]);
        }
    }
out:
    return status;
}

static enum ep_status check_token(struct ep_layer *l, int64_t token, bool backward, struct plain *p,
                                  bool *right)
{
    const int64_t hidden = l->point->hidden;
    const struct ep_exchange *exchange = backward ? &l->backward->exchange : &l->exchange;
    const char *x = l->exchange.tokens + token * l->exchange.row_bytes;
    const char *result = exchange->results + token * exchange->combine_row_bytes;
    for (int64_t h = 0; h < hidden; h++) {
        p->x[h] = get(l->point->dtype, x, h);
    }
    const enum ep_status status = run_token(l, token, backward, p);
    *right = status == EP_OK;
    for (int64_t h = 0; status == EP_OK && h < hidden; h++) {
        const double got = get(l->point->combine_dtype, result, h);
        *right = *right && fabs(got - p->sum[h]) <= p->sum_error[h]; /* false for NaN */
    }
    return status;
}

/* Gradients by weights: of one inner element of this rank's first expert with rows, summed over the rows that
 * came, every element of its row of dW2 and its columns of dW13. */
static enum ep_status check_weights(struct ep_layer *l, struct plain *p, bool *right)
{
    enum ep_status status = EP_OK;
    const struct ep_layer_backward *b = l->backward;
    const int64_t hidden = l->point->hidden;
    const struct ep_ffn_shape shape = {l->shape->kind, 1, hidden, l->shape->ffn, l->point->dtype};
    const int32_t *experts = NULL;
    int64_t local = 0;
    (void)ep_placement_local_experts(&l->setting.placement, ep_comm_rank(l->comm), &experts);
    while (l->num_rows[local] == 0) {
        local++;
    }
    /* Inner elements of this slice, and the one in their middle. */
    const int64_t start = ep_layer_slice_start(shape.ffn, l->slice, l->shape->tp);
    const int64_t part = ep_layer_slice_start(shape.ffn, l->slice + 1, l->shape->tp) - start;
    const int64_t i = part / 2;
    const bool gated = shape.kind == EP_FFN_SWIGLU;
    const int64_t columns = gated ? 2 * part : part;
    double *sums = calloc((size_t)hidden, 6 * sizeof *sums); /* dW2, gate, up: values, errors */
    EP_TRY(sums != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory to check gradients"));
    for (int64_t row = l->rows.start[local]; row < l->rows.start[local + 1]; row++) {
        for (int64_t h = 0; h < hidden; h++) {
            p->x[h] = get(shape.dtype, l->rows.rows, row * hidden + h);
            p->dy[h] = get(shape.dtype, b->rows.rows, row * hidden + h);
        }
        EP_TRY(fill_inner(l->bank, &shape, experts[local], start + i, 1, p));
        const struct slope at =
            slope_at(&shape, p, start + i,
                     ep_gemm_tolerance(shape.dtype, hidden, p->dh_abs[start + i]));
        activate(&shape, p);
        const double values[3] = {p->inner[start + i], at.gate, at.up};
        const double errors[3] = {p->inner_error[start + i], at.gate_error, at.up_error};
        for (int64_t h = 0; h < hidden; h++) {
            const double factors[3] = {p->dy[h], p->x[h], p->x[h]};
            for (int m = 0; m < 3; m++) {
                const double most = (fabs(values[m]) + errors[m]) * fabs(factors[m]);
                sums[(2 * m) * hidden + h] += values[m] * factors[m];
                sums[(2 * m + 1) * hidden + h] +=
                    errors[m] * fabs(factors[m]) +
                    ep_gemm_tolerance(shape.dtype, l->num_rows[local], most);
            }
        }
    }
    for (int64_t h = 0; h < hidden; h++) {
        const double got[3] = {b->dw2[local][i * hidden + h],
                               gated ? b->dw13[local][h * columns + i] : 0,
                               b->dw13[local][h * columns + columns - part + i]};
        for (int m = 0; m < 3; m++) {
            *right = *right &&
                     fabs(got[m] - sums[(2 * m) * hidden + h]) <= sums[(2 * m + 1) * hidden + h];
        }
    }
out:
    free(sums);
    return status;
}

static enum ep_status check_rank(struct ep_layer *l, struct ep_check *check)
{
    enum ep_status status = EP_OK;
    const int64_t num_tokens = l->routing.num_tokens;
    const int64_t shared = l->shape->shared_ffn;
    const double work = 3.0 * (double)l->point->hidden *
                        (double)(l->point->top_k * l->shape->ffn + shared);
    int64_t num = work < max_work / MAX_TOKENS ? MAX_TOKENS : (int64_t)(max_work / work);
    struct plain plain = {0};
    num = num < 1 ? 1 : num;
    num = num < num_tokens ? num : num_tokens;
    EP_TRY(plain_init(l->point->hidden, l->shape->ffn > shared ? l->shape->ffn : shared, &plain));
    for (int64_t i = 0; i < num; i++) {
        bool right = false;
        EP_TRY(check_token(l, i * num_tokens / num, false, &plain, &right));
        check->rows++;
        check->wrong += !right;
    }
    for (int64_t i = 0; l->backward != NULL && i < num; i++) {
        bool right = false;
        EP_TRY(check_token(l, i * num_tokens / num, true, &plain, &right));
        check->rows++;
        check->wrong += !right;
    }
    if (l->backward != NULL && l->experts != NULL) {
        bool right = true;
        EP_TRY(check_weights(l, &plain, &right));
        check->rows++;
        check->wrong += !right;
    }
out:
    free(plain.memory);
    return status;
}

enum ep_status ep_layer_check(struct ep_layer *l, struct ep_check *check)
{
    return ep_layer_check_run(l, ep_layer_run, l, check);
}

enum ep_status ep_layer_check_run(struct ep_layer *l, enum ep_status (*run)(void *state), void *state,
                                  struct ep_check *check)
{
    enum ep_status status = EP_OK;
    struct ep_check own = {0};
    memset(l->exchange.results, 0xff,
           (size_t)(l->routing.num_tokens * l->exchange.combine_row_bytes)); /* NaN */
    if (l->backward != NULL) {
        memset(l->backward->exchange.results, 0xff,
               (size_t)(l->routing.num_tokens * l->exchange.combine_row_bytes));
    }
    EP_TRY(run(state));
    EP_TRY(ep_comm_agree(l->all, check_rank(l, &own)));
    int64_t sums[2] = {own.rows, own.wrong};
    EP_TRY(ep_comm_sum_i64(l->all, sums, 2));
    *check = (struct ep_check){.rows = sums[0], .wrong = sums[1]};
out:
    return status;
}

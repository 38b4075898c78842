/* SPDX-License-Identifier: Apache-2.0 */
/* The design of a rung: its columns, and the rows that bind. */
#include "results/fit_design.h"

#include "base/parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = EP_RUNG_MAX_COLUMNS, MAX_KEPT = 16, MIN_PARALLEL_PAIRS = 100000 };

/* Flows are dear to follow: a row holds for coefficients whose ratios differ by less than this from those that it
 * was made at. It is the time's gradient there, so times differ by the square of it. Fits to parts of the cases are
 * for errors of some per cent, and begin beside the fit to all. */
#define KEPT_TOLERANCE 1e-3
#define KEPT_TOLERANCE_OF_PARTS 1e-2

struct kept_row {
    double coefficients[MAX_COLUMNS]; /* of the form */
    double row[MAX_COLUMNS];
};

struct ep_fit_kept {
    int64_t num; /* ever; the last MAX_KEPT are there */
    struct kept_row rows[MAX_KEPT];
};

/* Column a of x is ratio times column b of y in every row (of `num`). */
static bool is_proportional(const double *x, int stride_x, const double *y, int stride_y,
                            int64_t num, double *ratio)
{
    double factor = NAN;
    for (int64_t i = 0; i < num; i++) {
        const double a = x[i * stride_x];
        const double b = y[i * stride_y];
        if (a == 0 && b == 0) {
            continue;
        }
        if (a == 0 || b == 0) {
            return false;
        }
        factor = isnan(factor) ? a / b : factor;
        if (fabs(a - factor * b) > 1e-9 * fabs(a)) {
            return false;
        }
    }
    *ratio = factor;
    return !isnan(factor);
}

static const struct ep_rung_parameter *parameter_of(const struct ep_rung_form *form, int column)
{
    int j = 0;
    while (column >= form->first_column[j] + form->width[j]) {
        j++;
    }
    return &form->rung->parameters[j];
}

/* Chains and flows depend on all rates together: only ports that are loaded alike (ranks and the NICs of hosts with
 * one rank) are one. Times of a schedule may still be one constant. */
static bool may_join(const struct ep_rung_parameter *p, double ratio)
{
    return p->role != EP_ROLE_SCHEDULE || p->form == EP_PARAMETER_TIME || fabs(ratio - 1) <= 1e-9;
}

/* Columns that are nowhere above 0 are left out. Parameters of one form in proportion are one: at a
 * single P, l + a n. full [num_cases * form->num_columns] */
static void choose_columns(const double *full, struct ep_fit_design *design)
{
    const struct ep_rung_form *form = &design->form;
    const int width = form->num_columns;
    for (int j = 0; j < width; j++) {
        bool there = false;
        design->merged_into[j] = -1;
        design->ratio[j] = 1;
        design->column_of[j] = -1;
        for (int64_t i = 0; i < design->num_cases && !there; i++) {
            there = full[i * width + j] > 0;
        }
        for (int i = 0; i < j && there && design->merged_into[j] < 0; i++) {
            double ratio = 0;
            if (parameter_of(form, i)->form == parameter_of(form, j)->form &&
                design->column_of[i] >= 0 && design->merged_into[i] < 0 &&
                is_proportional(full + j, width, full + i, width, design->num_cases, &ratio) &&
                may_join(parameter_of(form, i), ratio)) {
                design->merged_into[j] = i;
                design->ratio[j] = ratio;
                design->column_of[j] = design->column_of[i];
            }
        }
        if (there && design->merged_into[j] < 0) {
            design->column_of[j] = design->num_columns++;
        }
    }
}

/* A column by itself: all other coefficients 0, so a port is the slowest and a chain the heaviest. */
static bool fill_alone(const struct ep_rung_form *form, const struct ep_model_case *c, double *full)
{
    double row[MAX_COLUMNS], one[MAX_COLUMNS] = {0};
    for (int j = 0; j < form->num_columns; j++) {
        one[j] = 1;
        if (!ep_rung_row(form, c, one, row)) {
            return false;
        }
        full[j] = row[j];
        one[j] = 0;
    }
    return true;
}

/* With one port at most and no schedule, rows are what they are. */
static bool is_linear(const struct ep_fit_design *design)
{
    const struct ep_rung_parameter *port = NULL;
    for (int j = 0; j < design->form.num_columns; j++) {
        const struct ep_rung_parameter *p = parameter_of(&design->form, j);
        if (design->column_of[j] < 0 || design->merged_into[j] >= 0 || p->role == EP_ROLE_SUM) {
            continue;
        }
        if (p->role == EP_ROLE_SCHEDULE || (port != NULL && port != p)) {
            return false;
        }
        port = p;
    }
    return true;
}

/* Following messages takes about as long as there are pairs of ranks. */
static int threads_for(const struct ep_fit_design *design)
{
    int64_t pairs = 0;
    for (int64_t i = 0; i < design->num_cases; i++) {
        const struct ep_model_matrix *m = design->cases[i].model.matrix;
        pairs += m != NULL ? m->num_ranks * m->num_ranks : 0;
    }
    const bool pays = design->form.rung->follow != NULL && pairs >= MIN_PARALLEL_PAIRS;
    return pays ? ep_parallel_cores() : 1;
}

struct alone {
    const struct ep_fit_design *design;
    double *full;
};

static enum ep_status fill_one_alone(void *context, int thread, int64_t i)
{
    const struct alone *a = context;
    const struct ep_fit_case *c = &a->design->cases[i];
    (void)thread;
    if (!fill_alone(&a->design->form, &c->model, a->full + i * a->design->form.num_columns)) {
        return ep_error_set(EP_EINVAL, "case '%s' has no message matrix, which %s needs", c->case_name,
                            a->design->form.rung->name);
    }
    return EP_OK;
}

enum ep_status ep_fit_design_init(const struct ep_rung_form *form, const struct ep_fit_case *cases,
                                  int64_t num_cases, struct ep_fit_design *design)
{
    enum ep_status status = EP_OK;
    const int width = form->num_columns;
    struct ep_fit_design made = {.form = *form, .cases = cases, .num_cases = num_cases};
    double *full = calloc((size_t)(num_cases * width) + 1, sizeof *full);
    made.rows = calloc((size_t)(num_cases * width) + 1, sizeof *made.rows);
    made.target_s = calloc((size_t)num_cases + 1, sizeof *made.target_s);
    if (form->rung->one_start) {
        made.kept = calloc((size_t)num_cases + 1, sizeof *made.kept);
    }
    if (full == NULL || made.rows == NULL || made.target_s == NULL ||
        (form->rung->one_start && made.kept == NULL)) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a design"));
    }
    for (int64_t i = 0; i < num_cases; i++) {
        made.target_s[i] = cases[i].time_s;
    }
    struct alone alone = {&made, full};
    const struct ep_parallel loop = {&alone, fill_one_alone, NULL};
    EP_TRY(ep_parallel_run(&loop, num_cases, threads_for(&made)));
    choose_columns(full, &made);
    made.linear = is_linear(&made);
    for (int64_t i = 0; i < num_cases; i++) {
        for (int j = 0; j < width; j++) {
            if (made.column_of[j] >= 0 && made.merged_into[j] < 0) {
                made.rows[i * made.num_columns + made.column_of[j]] = full[i * width + j];
            }
        }
    }
    *design = made;
out:
    free(full);
    if (status != EP_OK) {
        ep_fit_design_fini(&made);
    }
    return status;
}

void ep_fit_design_fini(struct ep_fit_design *design)
{
    free(design->rows);
    free(design->target_s);
    free(design->kept);
    *design = (struct ep_fit_design){0};
}

void ep_fit_design_set_start(struct ep_fit_design *design, const double *coefficients)
{
    if (design->form.rung->follow != NULL) {
        memcpy(design->start, coefficients, (size_t)design->num_columns * sizeof *design->start);
        design->has_start = true;
    }
}

void ep_fit_design_expand(const struct ep_fit_design *design, const double *coefficients,
                          double *full)
{
    for (int j = 0; j < design->form.num_columns; j++) {
        const bool own = design->column_of[j] >= 0 && design->merged_into[j] < 0;
        full[j] = own ? coefficients[design->column_of[j]] : 0;
    }
}

/* Whether rates are in the same proportions. */
static bool is_near(const struct ep_fit_design *design, const double *a, const double *b)
{
    const double tolerance = design->has_start ? KEPT_TOLERANCE_OF_PARTS : KEPT_TOLERANCE;
    double sum_a = 0, sum_b = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int j = 0; j < design->form.num_columns; j++) {
            if (parameter_of(&design->form, j)->form == EP_PARAMETER_TIME) {
                continue;
            }
            if (pass == 0) {
                sum_a += a[j];
                sum_b += b[j];
            } else if (fabs(a[j] * sum_b - b[j] * sum_a) > tolerance * b[j] * sum_a) {
                return false;
            }
        }
    }
    return true;
}

/* The form's row at its coefficients. */
static void follow_row(const struct ep_fit_design *design, int64_t i, const double *full, double *wide)
{
    struct ep_fit_kept *kept = design->kept != NULL ? &design->kept[i] : NULL;
    const size_t size = (size_t)design->form.num_columns * sizeof *wide;
    for (int64_t k = 0; kept != NULL && k < kept->num && k < MAX_KEPT; k++) {
        if (is_near(design, full, kept->rows[k].coefficients)) {
            memcpy(wide, kept->rows[k].row, size);
            return;
        }
    }
    ep_rung_row(&design->form, &design->cases[i].model, full, wide);
    if (kept != NULL) {
        struct kept_row *to = &kept->rows[kept->num++ % MAX_KEPT];
        memcpy(to->coefficients, full, size);
        memcpy(to->row, wide, size);
    }
}

struct filling {
    const struct ep_fit_design *design;
    const int64_t *cases; /* NULL = all */
    const double *full;
    double *rows;
};

static enum ep_status fill_row(void *context, int thread, int64_t at)
{
    const struct filling *f = context;
    const struct ep_fit_design *design = f->design;
    double wide[MAX_COLUMNS];
    (void)thread;
    follow_row(design, f->cases != NULL ? f->cases[at] : at, f->full, wide);
    for (int j = 0; j < design->form.num_columns; j++) {
        if (design->column_of[j] >= 0 && design->merged_into[j] < 0) {
            f->rows[at * design->num_columns + design->column_of[j]] = wide[j];
        }
    }
    return EP_OK;
}

void ep_fit_design_fill(const struct ep_fit_design *design, const int64_t *cases, int64_t num,
                        const double *coefficients, double *rows)
{
    double full[MAX_COLUMNS];
    if (design->linear) {
        EP_ASSERT(cases == NULL);
        memcpy(rows, design->rows, (size_t)(num * design->num_columns) * sizeof *rows);
        return;
    }
    ep_fit_design_expand(design, coefficients, full);
    struct filling filling = {design, cases, full, rows};
    const struct ep_parallel loop = {&filling, fill_row, NULL};
    const enum ep_status status = ep_parallel_run(&loop, num, threads_for(design));
    EP_ASSERT(status == EP_OK);
}

const struct ep_rung_parameter *ep_fit_design_parameter(const struct ep_fit_design *design, int column)
{
    return parameter_of(&design->form, column);
}

bool ep_fit_design_is_same(const struct ep_fit_design *a, const struct ep_fit_design *b)
{
    if (a->num_columns != b->num_columns || !a->linear || !b->linear) {
        return false;
    }
    bool taken[MAX_COLUMNS] = {false};
    for (int i = 0; i < a->num_columns; i++) {
        bool found = false;
        for (int j = 0; j < b->num_columns && !found; j++) {
            double ratio = 0;
            if (!taken[j] && is_proportional(a->rows + i, a->num_columns, b->rows + j,
                                             b->num_columns, a->num_cases, &ratio)) {
                taken[j] = true;
                found = true;
            }
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static double dot(const double *a, const double *b, int num)
{
    double sum = 0;
    for (int j = 0; j < num; j++) {
        sum += a[j] * b[j];
    }
    return sum;
}

enum ep_status ep_fit_design_predict(const struct ep_fit_design *design,
                                     const double *coefficients, double *times_s)
{
    enum ep_status status = EP_OK;
    const int width = design->num_columns;
    double *rows = calloc((size_t)(design->num_cases * width) + 1, sizeof *rows);
    if (rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to predict");
    }
    ep_fit_design_fill(design, NULL, design->num_cases, coefficients, rows);
    for (int64_t i = 0; i < design->num_cases && status == EP_OK; i++) {
        times_s[i] = dot(rows + i * width, coefficients, width);
        if (!isfinite(times_s[i])) {
            status = ep_error_set(EP_ENOMEM, "no memory to follow messages");
        }
    }
    free(rows);
    return status;
}

enum ep_status ep_fit_design_rows(const struct ep_fit_design *design, const double *coefficients,
                                  double **rows, int *num_columns)
{
    const int width = design->num_columns;
    double *made = calloc((size_t)(design->num_cases * width) + 1, sizeof *made);
    bool kept[MAX_COLUMNS] = {false};
    int num = 0;
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for rows");
    }
    ep_fit_design_fill(design, NULL, design->num_cases, coefficients, made);
    for (int64_t i = 0; i < design->num_cases; i++) {
        for (int j = 0; j < width; j++) {
            kept[j] = kept[j] || made[i * width + j] > 0;
        }
    }
    for (int j = 0; j < width; j++) {
        num += kept[j];
    }
    for (int64_t i = 0, to = 0; i < design->num_cases; i++) {
        for (int j = 0; j < width; j++) {
            if (kept[j]) {
                made[to++] = made[i * width + j];
            }
        }
    }
    *rows = made;
    *num_columns = num;
    return EP_OK;
}


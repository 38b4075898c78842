/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a roofline at given coefficients are linear in them, so the rungs' robust loop fits it. */
#include "results/roofline.h"

#include "base/random.h"
#include "base/stats.h"
#include "results/robust.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_FOLDS = 2, MIN_SIZES = 3, NUM_STARTS = 3 };
#define MAX_CONDITION  30.0
#define MAX_HALF_WIDTH 0.5
#define TOLERANCE      1e-6

static const char *const form_names[] = {"longer", "both"};
static const char *const column_names[] = {"start", "call", "flops", "bytes"};
static const char *const column_units[] = {"s", "s/call", "flop/s", "bytes/s"};

const char *ep_roofline_form_name(enum ep_roofline_form form)
{
    return form_names[form];
}

const char *ep_roofline_column_name(enum ep_roofline_column column)
{
    return column_names[column];
}

const char *ep_roofline_column_unit(enum ep_roofline_column column)
{
    return column_units[column];
}

/* What multiplies each coefficient, where these are such that one of flops and bytes takes longer. */
static void fill_row(enum ep_roofline_form form, const double *coefficients,
                     const struct ep_work *work, double row[EP_ROOFLINE_NUM])
{
    memset(row, 0, EP_ROOFLINE_NUM * sizeof *row);
    row[EP_ROOFLINE_START] = work->starts;
    for (int64_t i = 0; i < work->num_pieces; i++) {
        const struct ep_work_piece *p = &work->pieces[i];
        const bool flops_longer = coefficients[EP_ROOFLINE_FLOP] * p->flops >=
                                  coefficients[EP_ROOFLINE_BYTE] * p->bytes;
        row[EP_ROOFLINE_CALL] += p->count;
        row[EP_ROOFLINE_FLOP] += form == EP_ROOFLINE_BOTH || flops_longer ? p->count * p->flops : 0;
        row[EP_ROOFLINE_BYTE] += form == EP_ROOFLINE_BOTH || !flops_longer ? p->count * p->bytes : 0;
    }
}

double ep_roofline_time(enum ep_roofline_form form, const double coefficients[EP_ROOFLINE_NUM],
                        const struct ep_work *work)
{
    double row[EP_ROOFLINE_NUM], time_s = 0;
    fill_row(form, coefficients, work, row);
    for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
        time_s += row[j] * coefficients[j];
    }
    return time_s;
}

/* --- scores ---------------------------------------------------------------------------------- */

enum ep_status ep_part_score(const double *measured_s, const double *predicted_s, int64_t num,
                             struct ep_fit_scores *scores)
{
    struct ep_fit_case *cases = calloc((size_t)num + 1, sizeof *cases);
    if (cases == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for errors");
    }
    for (int64_t i = 0; i < num; i++) {
        cases[i].time_s = measured_s[i];
    }
    const enum ep_status status = ep_fit_score(cases, num, predicted_s, scores);
    free(cases);
    return status;
}

enum ep_status ep_part_half_width(const double *measured_s, const double *predicted_s, int64_t num,
                                  double level, double *half_width)
{
    double *errors = calloc((size_t)num + 1, sizeof *errors);
    int64_t known = 0;
    *half_width = NAN;
    if (errors == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for errors");
    }
    for (int64_t i = 0; i < num; i++) {
        if (predicted_s[i] > 0) {
            errors[known++] = fabs(measured_s[i] / predicted_s[i] - 1);
        }
    }
    const int64_t place = (int64_t)ceil(level * (double)(known + 1));
    if (known > 0 && place <= known) {
        ep_stats_sort(errors, known);
        *half_width = errors[place - 1];
    }
    free(errors);
    return EP_OK;
}

/* --- one fit --------------------------------------------------------------------------------- */

/* Some cases, as often as they were drawn. */
struct selection {
    enum ep_roofline_form form;
    const struct ep_part_case **cases; /* [num] */
    double *design, *target;
    bool has_calls; /* calls per start differ, so that both can be told */
    struct ep_robust_work *work;
    int64_t num;
};

static void fill_rows(void *context, const double *coefficients, double *design)
{
    const struct selection *s = context;
    for (int64_t i = 0; i < s->num; i++) {
        double *row = design + i * EP_ROOFLINE_NUM;
        fill_row(s->form, coefficients, &s->cases[i]->work, row);
        row[EP_ROOFLINE_CALL] = s->has_calls ? row[EP_ROOFLINE_CALL] : 0;
    }
}

static void selection_fini(struct selection *s)
{
    free(s->cases);
    free(s->design);
    free(s->target);
    ep_robust_work_destroy(s->work);
    *s = (struct selection){0};
}

/* Room for `room` cases of a part. */
static enum ep_status selection_init(const struct ep_part *part, int64_t room, struct selection *s)
{
    *s = (struct selection){.form = part->form};
    s->cases = calloc((size_t)room + 1, sizeof *s->cases);
    s->design = calloc((size_t)room + 1, EP_ROOFLINE_NUM * sizeof *s->design);
    s->target = calloc((size_t)room + 1, sizeof *s->target);
    if (s->cases == NULL || s->design == NULL || s->target == NULL) {
        selection_fini(s);
        return ep_error_set(EP_ENOMEM, "no memory to fit %s", part->name);
    }
    const double none[EP_ROOFLINE_NUM] = {0};
    double first = NAN;
    for (int64_t i = 0; i < part->num_cases; i++) {
        double row[EP_ROOFLINE_NUM];
        fill_row(EP_ROOFLINE_BOTH, none, &part->cases[i].work, row);
        const double calls = row[EP_ROOFLINE_CALL] / part->cases[i].work.starts;
        first = i == 0 ? calls : first;
        s->has_calls = s->has_calls || calls != first;
    }
    const enum ep_status status = ep_robust_work_create(room > 0 ? room : 1, &s->work);
    if (status != EP_OK) {
        selection_fini(s);
    }
    return status;
}

static void select_case(struct selection *s, const struct ep_part_case *c)
{
    s->target[s->num] = c->time_s;
    s->cases[s->num++] = c;
}

/* The rates of a case that would do nothing else: no machine is slower than the best of these. */
static void find_rates(const struct selection *s, double rates[EP_ROOFLINE_NUM])
{
    const double none[EP_ROOFLINE_NUM] = {0};
    memset(rates, 0, EP_ROOFLINE_NUM * sizeof *rates);
    for (int64_t i = 0; i < s->num; i++) {
        double row[EP_ROOFLINE_NUM];
        fill_row(EP_ROOFLINE_BOTH, none, &s->cases[i]->work, row);
        for (int j = EP_ROOFLINE_FLOP; j < EP_ROOFLINE_NUM; j++) {
            rates[j] = fmax(rates[j], row[j] / s->target[i]);
        }
    }
}

/* From several beginnings, as what binds where depends on them; `start` = one that is known. */
static void fit_selection(struct selection *s, const double *start, double *coefficients)
{
    static const double slower[NUM_STARTS][2] = {{1, 1}, {1, 4}, {4, 1}}; /* flops, bytes */
    const struct ep_robust_problem problem = {
        .design = s->design, .target = s->target, .num_rows = s->num,
        .num_columns = EP_ROOFLINE_NUM, .fill_rows = fill_rows, .context = s};
    double rates[EP_ROOFLINE_NUM], best = INFINITY;
    if (start != NULL) {
        ep_robust_fit(&problem, start, TOLERANCE, s->work, coefficients);
        return;
    }
    find_rates(s, rates);
    for (int k = 0; k < (s->form == EP_ROOFLINE_BOTH ? 1 : NUM_STARTS); k++) {
        double begin[EP_ROOFLINE_NUM] = {0}, found[EP_ROOFLINE_NUM];
        for (int j = EP_ROOFLINE_FLOP; j < EP_ROOFLINE_NUM; j++) {
            begin[j] = rates[j] > 0 ? slower[k][j - EP_ROOFLINE_FLOP] / rates[j] : 0;
        }
        ep_robust_fit(&problem, begin, TOLERANCE, s->work, found);
        const double loss = ep_robust_loss(&problem, s->work);
        if (loss < best) {
            best = loss;
            memcpy(coefficients, found, sizeof found);
        }
    }
}

/* --- held out, intervals, gates -------------------------------------------------------------- */

static enum ep_status hold_out(struct ep_part *part)
{
    enum ep_status status = EP_OK;
    struct selection s = {0};
    for (int64_t i = 0; i < part->num_cases; i++) {
        part->held_out_s[i] = NAN;
    }
    EP_TRY(selection_init(part, part->num_cases, &s));
    for (int64_t fold = 0; fold < part->num_folds && part->num_folds >= MIN_FOLDS; fold++) {
        double coefficients[EP_ROOFLINE_NUM];
        s.num = 0;
        for (int64_t i = 0; i < part->num_cases; i++) {
            if (part->cases[i].fold != fold) {
                select_case(&s, &part->cases[i]);
            }
        }
        if (s.num < EP_ROOFLINE_NUM) {
            continue;
        }
        fit_selection(&s, NULL, coefficients);
        for (int64_t i = 0; i < part->num_cases; i++) {
            if (part->cases[i].fold == fold) {
                part->held_out_s[i] =
                    ep_roofline_time(part->form, coefficients, &part->cases[i].work);
            }
        }
    }
out:
    selection_fini(&s);
    return status;
}

/* Which sizes there are is a design, not chance, and few of them may tell a rate at all: so relative errors
 * are drawn and put on fitted times (residual bootstrap; Efron and Tibshirani 1993, 9.4), as much larger as
 * fitting made them smaller. draws [num_bootstraps][EP_ROOFLINE_NUM]. */
static enum ep_status draw_fits(const struct ep_part *part, const struct ep_fit_options *options,
                                double *draws)
{
    enum ep_status status = EP_OK;
    struct selection s = {0};
    int num_fitted = 0;
    for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
        num_fitted += part->coefficients[j] > 0;
    }
    const double num = (double)part->num_cases;
    const double wider = sqrt(num / (num - num_fitted));
    EP_TRY(selection_init(part, part->num_cases, &s));
    for (int64_t i = 0; i < part->num_cases; i++) {
        select_case(&s, &part->cases[i]);
    }
    for (int b = 0; b < options->num_bootstraps; b++) {
        struct ep_random random;
        ep_random_init(&random, options->seed, EP_RANDOM_BOOTSTRAP, (uint64_t)b);
        for (int64_t i = 0; i < part->num_cases; i++) {
            const uint32_t from = ep_random_below(&random, (uint32_t)part->num_cases);
            const double error = part->cases[from].time_s / part->fitted_s[from] - 1;
            s.target[i] = part->fitted_s[i] * fmax(1 + wider * error, 0.05);
        }
        fit_selection(&s, part->coefficients, draws + (int64_t)b * EP_ROOFLINE_NUM);
    }
out:
    selection_fini(&s);
    return status;
}

static double parameter_of(int column, double coefficient)
{
    return column >= EP_ROOFLINE_FLOP ? 1 / coefficient : coefficient;
}

static enum ep_status find_intervals(struct ep_part *part, const struct ep_fit_options *options)
{
    enum ep_status status = EP_OK;
    const int num = options->num_bootstraps;
    if (part->num_sizes < MIN_SIZES || part->num_cases < 2 * EP_ROOFLINE_NUM || num == 0) {
        return EP_OK;
    }
    double *draws = calloc((size_t)num * EP_ROOFLINE_NUM, sizeof *draws);
    double *sorted = calloc((size_t)num, sizeof *sorted);
    if (draws == NULL || sorted == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a bootstrap"));
    }
    EP_TRY(draw_fits(part, options, draws));
    const double tail = (1 - options->level) / 2;
    for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
        for (int b = 0; b < num; b++) {
            sorted[b] = draws[b * EP_ROOFLINE_NUM + j];
        }
        ep_stats_sort(sorted, num);
        const double low = parameter_of(j, ep_stats_quantile_of_draws(sorted, num, tail));
        const double high = parameter_of(j, ep_stats_quantile_of_draws(sorted, num, 1 - tail));
        part->parameters[j].low = fmin(low, high);
        part->parameters[j].high = fmax(low, high);
    }
out:
    free(draws);
    free(sorted);
    return status;
}

static const char *why_withheld(const struct ep_part *part, int column)
{
    const struct ep_part_parameter *p = &part->parameters[column];
    if (part->num_sizes < MIN_SIZES) {
        return "fewer than 3 sizes";
    }
    if (part->coefficients[column] == 0) {
        return "fitted to 0, its lower limit: these records show no such time";
    }
    if (!(part->condition <= MAX_CONDITION)) {
        return "condition number above 30: these records cannot tell the parameters apart";
    }
    if (p->low < (1 - MAX_HALF_WIDTH) * p->value || p->high > (1 + MAX_HALF_WIDTH) * p->value) {
        return "its 95 % interval is wider than +-50 %";
    }
    return NULL;
}

static enum ep_status fill_parameters(struct ep_part *part, const struct ep_fit_options *options)
{
    enum ep_status status = EP_OK;
    struct selection s = {0};
    double *rows = calloc((size_t)part->num_cases + 1, EP_ROOFLINE_NUM * sizeof *rows);
    int num_columns = 0;
    if (rows == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for parameters"));
    }
    EP_TRY(selection_init(part, part->num_cases, &s));
    for (int64_t i = 0; i < part->num_cases; i++) {
        select_case(&s, &part->cases[i]);
    }
    fill_rows(&s, part->coefficients, s.design);
    for (int j = 0; j < EP_ROOFLINE_NUM; j++) { /* of those that count at all */
        num_columns += part->coefficients[j] > 0;
    }
    for (int64_t i = 0; i < part->num_cases; i++) {
        int at = 0;
        for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
            if (part->coefficients[j] > 0) {
                rows[i * num_columns + at++] = s.design[i * EP_ROOFLINE_NUM + j];
            }
        }
    }
    part->condition = NAN;
    if (num_columns > 0) {
        EP_TRY(ep_robust_condition(rows, part->fitted_s, part->num_cases, num_columns,
                                   &part->condition));
    }
    for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
        part->parameters[j] = (struct ep_part_parameter){
            .value = parameter_of(j, part->coefficients[j]), .low = NAN, .high = NAN};
    }
    EP_TRY(find_intervals(part, options));
    for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
        struct ep_part_parameter *p = &part->parameters[j];
        p->withheld = why_withheld(part, j);
        p->value = p->withheld != NULL ? NAN : p->value;
    }
out:
    selection_fini(&s);
    free(rows);
    return status;
}

/* --- a part ---------------------------------------------------------------------------------- */

static enum ep_status fit_form(struct ep_part *part, const double *measured_s)
{
    enum ep_status status = EP_OK;
    struct selection s = {0};
    EP_TRY(selection_init(part, part->num_cases, &s));
    for (int64_t i = 0; i < part->num_cases; i++) {
        select_case(&s, &part->cases[i]);
    }
    fit_selection(&s, NULL, part->coefficients);
    for (int64_t i = 0; i < part->num_cases; i++) {
        part->fitted_s[i] = ep_roofline_time(part->form, part->coefficients, &part->cases[i].work);
    }
    EP_TRY(hold_out(part));
    EP_TRY(ep_part_score(measured_s, part->fitted_s, part->num_cases, &part->in_sample));
    EP_TRY(ep_part_score(measured_s, part->held_out_s, part->num_cases, &part->held_out));
out:
    selection_fini(&s);
    return status;
}

/* Mean error of the held-out cases, or of all. */
static double loss_of(const struct ep_part *part)
{
    double sum = 0;
    for (int64_t i = 0; i < part->num_cases; i++) {
        const double predicted = part->held_out.num > 0 ? part->held_out_s[i] : part->fitted_s[i];
        sum += isfinite(predicted) ? fmin(fabs(predicted / part->cases[i].time_s - 1), 1) : 0;
    }
    return sum;
}

enum ep_status ep_part_fit(struct ep_part *part, const struct ep_fit_options *options)
{
    enum ep_status status = EP_OK;
    const size_t room = (size_t)part->num_cases + 1;
    double *measured_s = calloc(room, sizeof *measured_s);
    double longer = INFINITY;
    if (part->num_cases < 1) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: no cases", part->name));
    }
    part->fitted_s = calloc(room, sizeof *part->fitted_s);
    part->held_out_s = calloc(room, sizeof *part->held_out_s);
    if (measured_s == NULL || part->fitted_s == NULL || part->held_out_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory to fit %s", part->name));
    }
    for (int64_t i = 0; i < part->num_cases; i++) {
        measured_s[i] = part->cases[i].time_s;
    }
    part->form = EP_ROOFLINE_LONGER;
    EP_TRY(fit_form(part, measured_s));
    longer = loss_of(part);
    part->form = EP_ROOFLINE_BOTH;
    EP_TRY(fit_form(part, measured_s));
    if (!(loss_of(part) < longer)) {
        part->form = EP_ROOFLINE_LONGER;
        EP_TRY(fit_form(part, measured_s));
    }
    EP_TRY(ep_part_half_width(measured_s, part->held_out_s, part->num_cases, options->level,
                              &part->half_width));
    EP_TRY(fill_parameters(part, options));
out:
    free(measured_s);
    return status;
}

void ep_part_fini(struct ep_part *part)
{
    free(part->name);
    free(part->cases);
    free(part->pieces);
    free(part->fitted_s);
    free(part->held_out_s);
    *part = (struct ep_part){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Many seeds of one planted design: choices and coverage. */
#include "results/validate_planted.h"

#include "base/json.h"
#include "base/parallel.h"
#include "base/stats.h"
#include "base/table.h"
#include "base/units.h"
#include "results/validate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ep_planted_question_default(struct ep_planted_question *question)
{
    *question = (struct ep_planted_question){
        .num_seeds = 1000, .num_bootstraps = 400, .noise = 0.05, .outliers = 0.1, .num_threads = 1};
}

/* What one seed gave. */
struct outcome {
    bool right;
    bool by_size; /* bandwidths at several sizes, though there is one */
    bool covered[EP_RUNG_MAX_PARAMETERS];
    double half_width[EP_RUNG_MAX_PARAMETERS];
};

struct task {
    const struct ep_planted_design *design;
    const struct ep_planted_question *question;
    int rung;
    struct outcome *outcomes; /* [num_seeds] */
};

static enum ep_status fit_seed(const struct ep_planted_design *design, uint64_t seed, double noise,
                               double outliers, const struct ep_fit_options *options,
                               void (*look)(const struct ep_fit_group *g, void *context),
                               void *context)
{
    enum ep_status status;
    struct ep_records records = {0};
    struct ep_model_matrix *matrices = NULL;
    struct ep_fit fit = {0};
    EP_TRY(ep_planted_make_records(design, seed, noise, outliers, &records, &matrices));
    EP_TRY(ep_fit_group_records(&records, &fit));
    ep_planted_set_matrices(&records, matrices, &fit);
    EP_TRY(ep_fit_groups(&records, options, &fit));
    look(&fit.groups[0], context);
out:
    ep_fit_fini(&fit);
    ep_planted_fini(&records, matrices);
    return status;
}

/* --- one seed -------------------------------------------------------------------------------- */

struct look {
    const struct ep_planted_design *design;
    int rung;
    struct outcome *outcome;
};

static void look_at_choice(const struct ep_fit_group *g, void *context)
{
    const struct look *l = context;
    const struct ep_fit_rung *planted = &g->rungs[l->rung];
    const struct ep_rung *same = planted->same_as != NULL ? planted->same_as : planted->rung;
    l->outcome->right = g->chosen >= 0 && g->rungs[g->chosen].rung == same;
}

/* A bandwidth that the fit gave at several sizes must hold the truth at each. */
static void look_at_intervals(const struct ep_fit_group *g, void *context)
{
    const struct look *l = context;
    const struct ep_fit_rung *r = &g->rungs[l->rung];
    for (int j = 0; j < r->rung->num_parameters; j++) {
        const struct ep_rung_parameter *planted = &r->rung->parameters[j];
        const double truth = ep_rung_parameter_value(planted, l->design->coefficients[j]);
        bool found = false, covered = true;
        double width = 0;
        for (int i = 0; i < r->num_parameters; i++) {
            const struct ep_fit_parameter *p = &r->parameters[i];
            if (p->parameter == planted) {
                found = true;
                covered = covered && p->low <= truth && truth <= p->high;
                width = fmax(width, (p->high - p->low) / 2 / truth);
            }
        }
        l->outcome->covered[j] = found && covered;
        l->outcome->half_width[j] = found ? width : NAN;
    }
    l->outcome->by_size = g->num_anchors > 1;
}

static enum ep_status try_seed(void *context, int thread, int64_t i)
{
    (void)thread;
    enum ep_status status;
    const struct task *t = context;
    const struct ep_planted_question *q = t->question;
    struct look look = {t->design, t->rung, &t->outcomes[i]};
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    options.seed = (uint64_t)i + 1;
    options.num_bootstraps = 0;
    /* M6 is held against M5, too. */
    for (int r = 0; r <= t->rung; r++) {
        options.asked[r] = ep_rung_at(t->rung)->on_request;
    }
    EP_TRY(fit_seed(t->design, (uint64_t)i + 1, q->noise, q->outliers, &options, look_at_choice,
                    &look));
    options.num_bootstraps = q->num_bootstraps;
    options.only = t->rung;
    EP_TRY(fit_seed(t->design, (uint64_t)i + 1, q->noise, q->outliers, &options, look_at_intervals,
                    &look));
out:
    return status;
}

/* --- without noise --------------------------------------------------------------------------- */

static void look_at_simpler(const struct ep_fit_group *g, void *context)
{
    struct ep_planted_answer *a = context;
    for (int r = 0; ep_rung_at(r) != NULL && strcmp(ep_rung_at(r)->name, a->design->rung) != 0; r++) {
        const struct ep_fit_rung *rung = &g->rungs[r];
        if (rung->is_fitted && rung->rung->can_be_chosen && rung->same_as == NULL &&
            !(a->simpler_median <= rung->in_sample.median_ape)) {
            a->simpler = rung->rung->name;
            a->simpler_median = rung->in_sample.median_ape;
            a->simpler_p95 = rung->in_sample.p95_ape;
        }
    }
    a->num_cases = (int)g->num_cases;
}

static enum ep_status find_simpler(const struct task *t, struct ep_planted_answer *answer)
{
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    options.num_bootstraps = 0;
    for (int r = 0; r <= t->rung; r++) {
        options.asked[r] = ep_rung_at(t->rung)->on_request;
    }
    return fit_seed(t->design, 1, 0, 0, &options, look_at_simpler, answer);
}

/* --- all ------------------------------------------------------------------------------------- */

static void sum_up(const struct task *t, double *room, struct ep_planted_answer *a)
{
    const struct ep_rung *rung = ep_rung_at(t->rung);
    const int num_seeds = t->question->num_seeds;
    for (int i = 0; i < num_seeds; i++) {
        a->num_right += t->outcomes[i].right;
        a->num_by_size += t->outcomes[i].by_size;
    }
    for (int j = 0; j < rung->num_parameters; j++) {
        if (t->design->coefficients[j] == 0) {
            continue;
        }
        int64_t covered = 0, num = 0;
        for (int i = 0; i < num_seeds; i++) {
            covered += t->outcomes[i].covered[j];
            if (isfinite(t->outcomes[i].half_width[j])) {
                room[num++] = t->outcomes[i].half_width[j];
            }
        }
        ep_stats_sort(room, num);
        snprintf(a->names[a->num_parameters], sizeof a->names[0], "%s", rung->parameters[j].name);
        a->coverage[a->num_parameters] = (double)covered / num_seeds;
        a->half_width[a->num_parameters] = num > 0 ? ep_stats_median_sorted(room, num) : NAN;
        a->num_parameters++;
    }
}

enum ep_status ep_validate_planted(const struct ep_planted_design *design,
                                   const struct ep_planted_question *question,
                                   struct ep_planted_answer *answer)
{
    enum ep_status status;
    struct task task = {.design = design, .question = question};
    struct ep_planted_answer made = {.design = design, .simpler_median = NAN, .simpler_p95 = NAN};
    double *room = calloc((size_t)question->num_seeds + 1, sizeof *room);
    task.outcomes = calloc((size_t)question->num_seeds + 1, sizeof *task.outcomes);
    if (room == NULL || task.outcomes == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for %d seeds", question->num_seeds));
    }
    EP_TRY(ep_rung_find(design->rung, &task.rung));
    EP_TRY(find_simpler(&task, &made));
    const struct ep_parallel loop = {.context = &task, .body = try_seed};
    EP_TRY(ep_parallel_run(&loop, question->num_seeds, question->num_threads));
    sum_up(&task, room, &made);
    *answer = made;
out:
    free(room);
    free(task.outcomes);
    return status;
}

/* --- the command ----------------------------------------------------------------------------- */

/* Aims of this project: results/README.md, "validate". */
#define MIN_RIGHT 0.95
#define MIN_COVERAGE 0.92
#define MAX_COVERAGE 0.98
#define MIN_MISS 3.0

static bool is_asked(const char *rungs, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = rungs; at != NULL; at = strchr(at, ','), at += at != NULL) {
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0')) {
            return true;
        }
    }
    return rungs == NULL;
}

/* Where the next simpler rung is nearly as good, the simpler one is the right choice. */
static bool must_be_chosen(const struct ep_planted_answer *a, const struct ep_planted_question *q)
{
    return a->simpler == NULL || a->simpler_p95 >= MIN_MISS * q->noise;
}

static const char *judge(bool good, bool *reached)
{
    *reached = *reached && good;
    return good ? "ok" : "MISSED";
}

static enum ep_status put_answer(const struct ep_planted_answer *a,
                                 const struct ep_planted_question *q, struct ep_table *table,
                                 json_t *rows, bool *reached)
{
    enum ep_status status = EP_OK;
    const double right = (double)a->num_right / q->num_seeds;
    const bool asked = must_be_chosen(a, q);
    json_t *parameters = json_object();
    for (int j = 0; j < a->num_parameters; j++) {
        /* Of few seeds a share says little: half a seed more is allowed for. */
        const double slack = 0.5 / q->num_seeds;
        const bool covers = a->coverage[j] >= MIN_COVERAGE - slack &&
                            (a->coverage[j] <= MAX_COVERAGE + slack || q->num_seeds < 100);
        ep_table_add(table, "%s", j == 0 ? a->design->rung : "");
        if (j == 0 && a->simpler != NULL) {
            ep_table_add(table, "%s", a->simpler);
            ep_table_add(table, "%.1f", 100 * a->simpler_median);
            ep_table_add(table, "%.1f", 100 * a->simpler_p95);
        } else {
            for (int i = 0; i < 3; i++) {
                ep_table_add(table, "%s", j == 0 ? "-" : "");
            }
        }
        if (j == 0) {
            ep_table_add(table, "%.1f", 100 * right);
            ep_table_add(table, "%s", asked ? judge(right >= MIN_RIGHT, reached) : "not asked");
        } else {
            ep_table_add(table, "%s", "");
            ep_table_add(table, "%s", "");
        }
        ep_table_add(table, "%s", a->names[j]);
        ep_table_add(table, "%.1f", 100 * a->half_width[j]);
        ep_table_add(table, "%.1f", 100 * a->coverage[j]);
        ep_table_add(table, "%s", judge(covers, reached));
        EP_TRY(ep_json_set(parameters, a->names[j],
                           json_pack("{s:o,s:o}", "coverage", ep_json_real(a->coverage[j]),
                                     "half_width", ep_json_real(a->half_width[j]))));
    }
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:i,s:i,s:o,s:o,s:o,s:b,s:i,s:s?,s:o,s:o,s:O}", "validation", "planted", "rung",
        a->design->rung, "machine", a->design->text, "seeds", q->num_seeds, "cases", a->num_cases,
        "noise", ep_json_real(q->noise), "outliers", ep_json_real(q->outliers), "right",
        ep_json_real(right), "right_asked", asked, "by_size", a->num_by_size, "simpler", a->simpler,
        "simpler_median_ape", ep_json_real(a->simpler_median), "simpler_p95_ape",
        ep_json_real(a->simpler_p95), "parameters", parameters);
    if (row == NULL || json_array_append_new(rows, row) != 0) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for JSON"));
    }
out:
    json_decref(parameters);
    return status;
}

static enum ep_status run_planted(const struct ep_validate_input *in, FILE *out, json_t *rows,
                                  bool *reached)
{
    static const char *const headers[] = {"rung",   "simpler", "median %", "p95 %",   "right %", "",
                                          "parameter", "+- %", "covered %", ""};
    enum ep_status status;
    struct ep_table *table = NULL;
    struct ep_planted_question question;
    struct ep_list list = {0};
    int idx = 0;
    ep_planted_question_default(&question);
    question.num_seeds = in->num_seeds;
    question.num_threads = ep_parallel_cores();
    if (in->rungs != NULL) {
        EP_TRY(ep_list_split(in->rungs, ',', "--rungs", &list));
    }
    for (int i = 0; i < list.num; i++) {
        EP_TRY(ep_rung_find(list.items[i], &idx));
    }
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int i = 0; ep_planted_design_at(i) != NULL; i++) {
        struct ep_planted_answer answer;
        if (is_asked(in->rungs, ep_planted_design_at(i)->rung)) {
            EP_TRY(ep_validate_planted(ep_planted_design_at(i), &question, &answer));
            EP_TRY(put_answer(&answer, &question, table, rows, reached));
        }
    }
    if (out != NULL) {
        fprintf(out, "planted: %d seeds of records that follow one rung, %.0f %% noise, %.0f %% outliers; "
                "synthetic, nothing measured\n", question.num_seeds, 100 * question.noise,
                100 * question.outliers);
        EP_TRY(ep_table_print(table, out));
        fprintf(out, "simpler: the rung before it that comes nearest, and its error without noise. right: "
                "seeds in which the planted rung was chosen\n(aimed at: %.0f %%, where the simpler one "
                "misses by %g x the noise at p95). +-, covered: median half width of 95 %% intervals, and "
                "how\noften they hold what was planted (aimed at: %.0f to %.0f %%).\n\n",
                100 * MIN_RIGHT, MIN_MISS, 100 * MIN_COVERAGE, 100 * MAX_COVERAGE);
    }
out:
    ep_list_fini(&list);
    ep_table_destroy(table);
    return status;
}

const struct ep_validation ep_validation_planted = {
    .option = "planted",
    .help = "Fit synthetic records of every rung, with noise and outliers: is the rung chosen, do its "
            "intervals hold the truth?",
    .run = run_planted,
};

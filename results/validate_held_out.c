/* SPDX-License-Identifier: Apache-2.0 */
/* A fit from some runs against the records of another. */
#include "base/json.h"
#include "base/stats.h"
#include "base/table.h"
#include "results/fit.h"
#include "results/layer_fit.h"
#include "results/validate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Errors of one group's model on the new cases. */
struct judged {
    const char *name;
    const char *target;
    const char *model; /* the chosen rung, or "parts" of a layer; NULL = none was chosen */
    const struct ep_fit_group *fresh;
    struct ep_fit_scores scores;
    double half_width;
    int64_t num_inside;  /* of the prediction interval */
    int64_t num_seen;    /* cases that the fit had too */
    bool has_interval;
};

static bool was_seen(const struct ep_fit_group *g, const char *case_name)
{
    for (int64_t i = 0; i < g->num_cases; i++) {
        if (strcmp(g->cases[i].case_name, case_name) == 0) {
            return true;
        }
    }
    return false;
}

/* predicted_s [fresh->num_cases] by the model of `g`, whose intervals are +- half_width. */
static enum ep_status judge(const struct ep_fit_group *g, const struct ep_fit_group *fresh,
                            const double *predicted_s, double half_width, struct judged *j)
{
    j->fresh = fresh;
    j->half_width = half_width;
    for (int64_t i = 0; i < fresh->num_cases; i++) {
        const struct ep_fit_case *c = &fresh->cases[i];
        j->num_inside += fabs(c->time_s / predicted_s[i] - 1) <= half_width;
        j->num_seen += was_seen(g, c->case_name);
    }
    return ep_fit_score(fresh->cases, fresh->num_cases, predicted_s, &j->scores);
}

static enum ep_status judge_rung(const struct ep_fit_group *g, const struct ep_fit_group *fresh,
                                 struct judged *j)
{
    const struct ep_fit_rung *rung = ep_fit_chosen(g);
    *j = (struct judged){.name = g->name, .target = g->target, .fresh = fresh, .half_width = NAN,
                         .scores = {0, NAN, NAN, NAN}};
    double *predicted_s = calloc((size_t)fresh->num_cases + 1, sizeof *predicted_s);
    if (predicted_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for predictions");
    }
    enum ep_status status = EP_OK;
    if (rung != NULL) {
        j->model = rung->rung->name;
        for (int64_t i = 0; i < fresh->num_cases; i++) {
            predicted_s[i] = ep_rung_predict(&rung->form, &fresh->cases[i].model, rung->coefficients);
        }
        status = judge(g, fresh, predicted_s, rung->half_width, j);
    }
    free(predicted_s);
    return status;
}

static enum ep_status judge_layer(const struct ep_layer_group *g, const struct ep_layer_group *fresh,
                                  struct judged *j)
{
    *j = (struct judged){.name = g->name, .target = "layer", .model = "parts"};
    double *predicted_s = calloc((size_t)fresh->whole->num_cases + 1, sizeof *predicted_s);
    enum ep_status status = predicted_s == NULL ? ep_error_set(EP_ENOMEM, "no memory for predictions")
                                                : ep_layer_fit_predict(g, fresh, predicted_s);
    if (status == EP_OK) {
        status = judge(g->whole, fresh->whole, predicted_s, g->half_width, j);
    }
    free(predicted_s);
    return status;
}

static const struct ep_fit_group *find_group(const struct ep_fit *fit, const char *key)
{
    for (int64_t i = 0; i < fit->num_groups; i++) {
        if (strcmp(fit->groups[i].key, key) == 0) {
            return &fit->groups[i];
        }
    }
    return NULL;
}

static void put_percent(struct ep_table *table, double fraction)
{
    if (isnan(fraction)) {
        ep_table_add(table, "-");
    } else {
        ep_table_add(table, "%.1f", 100 * fraction);
    }
}

static enum ep_status put(const struct judged *j, struct ep_table *table, json_t *rows)
{
    const double covered = isfinite(j->half_width) && j->scores.num > 0
                               ? (double)j->num_inside / (double)j->scores.num
                               : NAN;
    ep_table_add(table, "%s", j->name);
    ep_table_add(table, "%s", j->model != NULL ? j->model : "none");
    ep_table_add(table, "%" PRId64, j->fresh->num_cases);
    ep_table_add(table, "%" PRId64, j->num_seen);
    put_percent(table, j->scores.median_ape);
    put_percent(table, j->scores.p95_ape);
    put_percent(table, j->scores.max_ape);
    put_percent(table, covered);
    put_percent(table, j->half_width);
    put_percent(table, j->fresh->noise_floor);
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:s,s:s?,s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:o}", "validation", "held-out", "group",
        j->name, "target", j->target, "host", j->fresh->record->host, "rung", j->model, "cases",
        (json_int_t)j->fresh->num_cases, "cases_seen", (json_int_t)j->num_seen, "median_ape",
        ep_json_real(j->scores.median_ape), "p95_ape", ep_json_real(j->scores.p95_ape), "max_ape",
        ep_json_real(j->scores.max_ape), "coverage", ep_json_real(covered),
        "prediction_half_width", ep_json_real(j->half_width), "noise_floor",
        ep_json_real(j->fresh->noise_floor));
    if (row == NULL || json_array_append_new(rows, row) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    return EP_OK;
}

static enum ep_status judge_all(const struct ep_fit *fit, const struct ep_fit *fresh,
                                const struct ep_layer_fit *layers,
                                const struct ep_layer_fit *fresh_layers, struct ep_table *table,
                                json_t *rows)
{
    enum ep_status status = EP_OK;
    int num = 0;
    for (int64_t i = 0; i < fit->num_groups; i++) {
        const struct ep_fit_group *other = find_group(fresh, fit->groups[i].key);
        struct judged judged;
        if (other != NULL) {
            EP_TRY(judge_rung(&fit->groups[i], other, &judged));
            EP_TRY(put(&judged, table, rows));
            num++;
        }
    }
    for (int64_t i = 0; i < layers->num_groups; i++) {
        for (int64_t k = 0; k < fresh_layers->num_groups; k++) {
            struct judged judged;
            if (strcmp(layers->groups[i].whole->key, fresh_layers->groups[k].whole->key) == 0) {
                EP_TRY(judge_layer(&layers->groups[i], &fresh_layers->groups[k], &judged));
                EP_TRY(put(&judged, table, rows));
                num++;
            }
        }
    }
    if (num == 0) {
        status = ep_error_set(EP_EINVAL, "--held-out: no group of its records (op, transport, algorithm, "
                              "cadence, buffers, pages, settings) is among those fitted");
    }
out:
    return status;
}

static enum ep_status run_held_out(const struct ep_validate_input *in, FILE *out, json_t *rows,
                                   bool *reached)
{
    static const char *const headers[] = {"group", "model", "cases", "seen", "median %", "p95 %",
                                          "max %", "covered %", "+- %", "noise floor %"};
    enum ep_status status;
    struct ep_records records = {0}, others = {0};
    struct ep_fit fit = {0}, fresh = {0};
    struct ep_layer_fit layers = {0}, fresh_layers = {0};
    struct ep_fit_options options;
    struct ep_table *table = NULL;
    (void)reached; /* how good a model must be is the user's to say */
    ep_fit_options_default(&options);
    options.num_bootstraps = 0;
    if (in->num_directories == 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "--held-out %s: the runs to fit are missing: epbench validate "
                            "--held-out %s DIR...", in->value, in->value));
    }
    EP_TRY(ep_records_read(in->directories, in->num_directories, &records));
    EP_TRY(ep_records_read(&in->value, 1, &others));
    EP_TRY(ep_fit_records(&records, &options, &fit));
    EP_TRY(ep_fit_group_records(&others, &fresh));
    EP_TRY(ep_layer_fit_records(&records, &options, &layers));
    EP_TRY(ep_layer_fit_records(&others, &options, &fresh_layers));
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    EP_TRY(judge_all(&fit, &fresh, &layers, &fresh_layers, table, rows));
    if (out != NULL) {
        fprintf(out, "held out: %s, predicted from %s%s\n", in->value, in->directories[0],
                in->num_directories > 1 ? " and others" : "");
        EP_TRY(ep_table_print(table, out));
        fprintf(out, "seen: cases that the fit had too, in its own runs. covered: inside the 95 %% "
                "prediction interval of half width +-. noise floor:\nof the new run.%s\n\n",
                fit.num_groups > 0 && fresh.num_groups > 0 &&
                        strcmp(fit.groups[0].record->host, fresh.groups[0].record->host) != 0
                    ? " These are two machines: errors are of both model and machine."
                    : "");
    }
out:
    ep_table_destroy(table);
    ep_fit_fini(&fit);
    ep_fit_fini(&fresh);
    ep_layer_fit_fini(&layers);
    ep_layer_fit_fini(&fresh_layers);
    ep_records_fini(&records);
    ep_records_fini(&others);
    return status;
}

const struct ep_validation ep_validation_held_out = {
    .option = "held-out",
    .value = "RUN",
    .takes_runs = true,
    .help = "Fit the runs DIR..., predict the records of RUN, which the fit has not seen",
    .run = run_held_out,
};

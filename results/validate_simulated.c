/* SPDX-License-Identifier: Apache-2.0 */
/* The fit held against simulated fat trees, whose ports and routing are known. */
#include "base/json.h"
#include "base/table.h"
#include "results/fit.h"
#include "results/validate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What this project aims at, by the algorithm. */
struct aims {
    double held_out;     /* median error on skews that the fit has not seen */
    double extrapolated; /* median error on more ranks than the fit has seen */
};
static const struct aims linear_aims = {0.03, 0.03}, pairwise_aims = {0.05, 0.10};
static const double aim_ratio = 10;    /* M0's error over the rung's, ... */
static const double m0_is_wrong = 0.4; /* ... over cases of which M0 is that far off */

/* One group of one tree. NaN where there is nothing to judge. */
struct judged {
    const char *directory;
    const struct ep_fit_group *group;
    const struct ep_fit_rung *rung; /* chosen; NULL = none */
    struct aims aims;
    double m0_ape;           /* median on held-out skews */
    double ratio;            /* of errors, where M0 is wrong */
    int64_t num_wrong;       /* cases in which it is */
    int64_t most_ranks;
    const char *from_fewer;  /* rung chosen without them */
    double extrapolated_ape; /* its median error on the most ranks */
    bool reached;
};

static double absolute_error(double predicted_s, double time_s)
{
    return fabs(predicted_s / time_s - 1);
}

/* Medians of the errors of M0 and of the rung over the cases that M0 gets wrong. */
static enum ep_status compare_with_m0(const struct ep_fit_group *g, struct judged *j)
{
    enum ep_status status = EP_OK;
    const struct ep_fit_rung *m0 = &g->rungs[0];
    struct ep_fit_scores of_m0, of_rung;
    double *masked = calloc(2 * (size_t)g->num_cases + 1, sizeof *masked);
    if (masked == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for predictions");
    }
    double *by_rung = masked + g->num_cases;
    for (int64_t i = 0; i < g->num_cases; i++) {
        const bool wrong = absolute_error(m0->held_out_s[i], g->cases[i].time_s) >= m0_is_wrong;
        masked[i] = wrong ? m0->held_out_s[i] : NAN;
        by_rung[i] = wrong ? j->rung->held_out_s[i] : NAN;
        j->num_wrong += wrong;
    }
    EP_TRY(ep_fit_score(g->cases, g->num_cases, masked, &of_m0));
    EP_TRY(ep_fit_score(g->cases, g->num_cases, by_rung, &of_rung));
    j->m0_ape = m0->held_out.median_ape;
    j->ratio = of_m0.median_ape / of_rung.median_ape;
out:
    free(masked);
    return status;
}

static const struct ep_fit_group *find_group(const struct ep_fit *fit, const char *key)
{
    for (int64_t i = 0; i < fit->num_primary; i++) {
        if (strcmp(fit->groups[i].key, key) == 0) {
            return &fit->groups[i];
        }
    }
    return NULL;
}

/* The rung that records of fewer ranks choose, on the cases of the most ranks. */
static enum ep_status extrapolate(const struct ep_fit *fewer, const struct ep_fit_group *g,
                                  struct judged *j)
{
    const struct ep_fit_group *small = find_group(fewer, g->key);
    const struct ep_fit_rung *rung = small != NULL ? ep_fit_chosen(small) : NULL;
    struct ep_fit_scores scores;
    if (rung == NULL) {
        return EP_OK;
    }
    double *predicted = calloc((size_t)g->num_cases + 1, sizeof *predicted);
    if (predicted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for predictions");
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        predicted[i] = g->cases[i].record->ranks == j->most_ranks
                           ? ep_rung_predict(&rung->form, &g->cases[i].model, rung->coefficients)
                           : NAN;
    }
    const enum ep_status status = ep_fit_score(g->cases, g->num_cases, predicted, &scores);
    free(predicted);
    if (status == EP_OK) {
        j->from_fewer = rung->rung->name;
        j->extrapolated_ape = scores.median_ape;
    }
    return status;
}

/* false too for NaN: a figure that cannot be told is not reached. */
static bool is_reached(const struct judged *j, bool extrapolates)
{
    return j->rung != NULL && j->rung->held_out.median_ape <= j->aims.held_out &&
           (j->num_wrong == 0 || j->ratio >= aim_ratio) &&
           (!extrapolates || j->extrapolated_ape <= j->aims.extrapolated);
}

static void put_percent(struct ep_table *table, double fraction)
{
    if (isnan(fraction)) {
        ep_table_add(table, "-");
    } else {
        ep_table_add(table, "%.1f", 100 * fraction);
    }
}

static void put_ratio(struct ep_table *table, double ratio)
{
    if (isnan(ratio)) {
        ep_table_add(table, "-");
    } else if (ratio >= 1000) { /* an error that is rounding alone */
        ep_table_add(table, ">1000");
    } else {
        ep_table_add(table, "%.0f", ratio);
    }
}

static enum ep_status put(const struct judged *j, struct ep_table *table, json_t *rows)
{
    const double ape = j->rung != NULL ? j->rung->held_out.median_ape : NAN;
    ep_table_add(table, "%s", j->directory);
    ep_table_add(table, "%s", j->group->name);
    ep_table_add(table, "%" PRId64, j->group->num_cases);
    ep_table_add(table, "%s", j->rung != NULL ? j->rung->rung->name : "none");
    put_percent(table, ape);
    put_percent(table, j->aims.held_out);
    put_percent(table, j->m0_ape);
    put_ratio(table, j->ratio);
    ep_table_add(table, "%s", j->from_fewer != NULL ? j->from_fewer : "-");
    put_percent(table, j->extrapolated_ape);
    put_percent(table, j->aims.extrapolated);
    ep_table_add(table, "%s", j->reached ? "reached" : "missed");
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:I,s:s?,s:o,s:f,s:o,s:o,s:I,s:f,s:I,s:s?,s:o,s:f,s:b}", "validation", "simulated", "run",
        j->directory, "group", j->group->name, "cases", (json_int_t)j->group->num_cases, "rung",
        j->rung != NULL ? j->rung->rung->name : NULL, "median_ape", ep_json_real(ape), "median_ape_asked",
        j->aims.held_out, "m0_median_ape", ep_json_real(j->m0_ape), "m0_over_rung", ep_json_real(j->ratio),
        "m0_wrong_cases", (json_int_t)j->num_wrong, "m0_over_rung_asked", aim_ratio, "most_ranks",
        (json_int_t)j->most_ranks, "rung_from_fewer_ranks", j->from_fewer, "extrapolated_median_ape",
        ep_json_real(j->extrapolated_ape), "extrapolated_median_ape_asked", j->aims.extrapolated, "reached",
        j->reached);
    if (row == NULL || json_array_append_new(rows, row) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    return EP_OK;
}

static int64_t most_ranks(const struct ep_records *records)
{
    int64_t most = 0;
    for (int64_t i = 0; i < records->num; i++) {
        most = records->items[i].ranks > most ? records->items[i].ranks : most;
    }
    return most;
}

/* fewer->items: copies that own nothing; to be freed as an array. */
static enum ep_status select_fewer(const struct ep_records *records, int64_t most,
                                   struct ep_records *fewer)
{
    fewer->items = calloc((size_t)records->num + 1, sizeof *fewer->items);
    if (fewer->items == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " records", records->num);
    }
    for (int64_t i = 0; i < records->num; i++) {
        if (records->items[i].ranks < most) {
            fewer->items[fewer->num++] = records->items[i];
        }
    }
    return EP_OK;
}

static enum ep_status check_simulated(const char *directory)
{
    struct ep_run run;
    ep_run_init(&run);
    enum ep_status status = ep_run_read(directory, &run);
    if (status == EP_OK && (run.machine == NULL || strncmp(run.machine, "SimGrid ", 8) != 0)) {
        status = ep_error_set(EP_EINVAL, "--simulated: %s was measured on %s, not simulated (scripts/simulate)",
                              directory, run.machine != NULL ? run.machine : "an unknown machine");
    }
    ep_run_fini(&run);
    return status;
}

static enum ep_status judge_run(const char *directory, struct ep_table *table, json_t *rows,
                                bool *reached)
{
    enum ep_status status = EP_OK;
    struct ep_records records = {0}, part = {0};
    struct ep_fit fit = {0}, fewer = {0};
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    options.num_bootstraps = 0;
    EP_TRY(check_simulated(directory));
    EP_TRY(ep_records_read(&directory, 1, &records));
    EP_TRY(ep_fit_records(&records, &options, &fit));
    const int64_t most = most_ranks(&records);
    EP_TRY(select_fewer(&records, most, &part));
    if (part.num > 0) {
        EP_TRY(ep_fit_records(&part, &options, &fewer));
    }
    for (int64_t i = 0; i < fit.num_primary; i++) {
        const struct ep_fit_group *g = &fit.groups[i];
        struct judged j = {.directory = directory, .group = g, .rung = ep_fit_chosen(g),
                           .m0_ape = NAN, .ratio = NAN, .most_ranks = most, .extrapolated_ape = NAN};
        j.aims = strcmp(g->record->algorithm, "linear") == 0 ? linear_aims : pairwise_aims;
        if (j.rung != NULL) {
            EP_TRY(compare_with_m0(g, &j));
            EP_TRY(extrapolate(&fewer, g, &j));
        }
        j.reached = is_reached(&j, part.num > 0);
        *reached = *reached && j.reached;
        EP_TRY(put(&j, table, rows));
    }
out:
    ep_fit_fini(&fit);
    ep_fit_fini(&fewer);
    free(part.items);
    ep_records_fini(&records);
    return status;
}

static enum ep_status run_simulated(const struct ep_validate_input *in, FILE *out, json_t *rows,
                                    bool *reached)
{
    static const char *const headers[] = {"run", "group", "cases", "rung", "median %", "asked", "M0 %",
                                          "M0/rung", "fewer: rung", "most %", "asked", "verdict"};
    enum ep_status status = EP_OK;
    struct ep_table *table = NULL;
    if (in->num_directories == 0) {
        return ep_error_set(EP_EINVAL, "--simulated: runs of scripts/simulate-figures are missing: epbench "
                            "validate --simulated DIR/up8 DIR/up4 DIR/up2");
    }
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int i = 0; i < in->num_directories; i++) {
        EP_TRY(judge_run(in->directories[i], table, rows, reached));
    }
    if (out != NULL) {
        fprintf(out, "simulated fat trees: errors of exchanges on skews that the fit has not seen\n");
        EP_TRY(ep_table_print(table, out));
        fprintf(out, "M0/rung: M0's median error over the rung's, where M0 is off by %.0f %% and more; %.0f is asked. "
                "fewer, most: the rung that\nrecords of fewer ranks choose, and its median error on the most ranks.\n\n",
                100 * m0_is_wrong, aim_ratio);
    }
out:
    ep_table_destroy(table);
    return status;
}

const struct ep_validation ep_validation_simulated = {
    .takes_runs = true,
    .option = "simulated",
    .help = "Fit the simulated runs DIR... (scripts/simulate-figures), one by one: errors on other skews and on "
            "more ranks, beside those of M0",
    .run = run_simulated,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* epbench fit: fit the ladder to the records of one or more runs, print it, write machine.json. */
#include "base/command.h"
#include "base/file.h"
#include "base/json.h"
#include "base/options.h"
#include "base/table.h"
#include "base/units.h"
#include "results/fit.h"
#include "results/fit_explain.h"
#include "results/fit_matrices.h"
#include "results/machine_file.h"
#include "results/run_dir.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_cmd_fit(int argc, char **argv);

enum { MAX_DIRECTORIES = 256 };

struct input {
    const char *directories[MAX_DIRECTORIES];
    int num_directories;
    const char *json; /* NULL = the table on stdout */
    bool quiet;       /* no table */
    bool explain;     /* sentences in place of the table */
    struct ep_fit_options options;
};

/* clang-format off */
static const struct argp_option options[] = {
    {"json", 'j', "FILE", 0, "Write what goes into machine.json to FILE too (- = stdout, instead of "
     "the table)", 0},
    {"bootstrap", 'b', "N", 0, "Bootstrap draws for intervals; 0 = none (default 400)", 0},
    {"seed", 's', "SEED", 0, "Random seed of the bootstrap (default 1)", 0},
    {"peak", 'p', "BANDWIDTH", 0, "No rank can move more than this, for example 25GB/s (default: "
     "the copy peak that the records hold, if any)", 0},
    {"rungs", 'r', "LIST", 0, "Fit these rungs too, which follow single messages and take longer: M5, "
     "M6 (they need traffic/, up to 64 ranks)", 0},
    {"explain", 'e', NULL, 0, "Say in words what was found: what binds for which skews, where plain "
     "bytes/bandwidth is wrong, what is withheld and why (instead of the table)", 0},
    {"quiet", 'q', NULL, 0, "Write machine.json without printing the table", 0},
    {0},
};
/* clang-format on */

static enum ep_status parse_rungs(const char *text, struct input *in)
{
    struct ep_list list = {0};
    enum ep_status status = ep_list_split(text, ',', "--rungs", &list);
    for (int i = 0; status == EP_OK && i < list.num; i++) {
        int idx = 0;
        status = ep_rung_find(list.items[i], &idx);
        in->options.asked[idx] = status == EP_OK;
    }
    ep_list_fini(&list);
    return status;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct input *in = state->input;
    int64_t number = 0;
    switch (key) {
    case 'j': in->json = text; return 0;
    case 'q': in->quiet = true; return 0;
    case 'e': in->explain = true; return 0;
    case 'b':
        if (ep_parse_i64(text, "--bootstrap", 0, 100000, &number) != EP_OK) {
            return EINVAL;
        }
        in->options.num_bootstraps = (int)number;
        return 0;
    case 's':
        if (ep_parse_i64(text, "--seed", 0, INT64_MAX, &number) != EP_OK) {
            return EINVAL;
        }
        in->options.seed = (uint64_t)number;
        return 0;
    case 'r': return parse_rungs(text, in) == EP_OK ? 0 : EINVAL;
    case 'p':
        return ep_parse_bandwidth(text, "--peak", &in->options.peak_bytes_per_s) == EP_OK ? 0
                                                                                         : EINVAL;
    case ARGP_KEY_ARG:
        if (in->num_directories == MAX_DIRECTORIES) {
            ep_error_set(EP_EINVAL, "more than %d directories", MAX_DIRECTORIES);
            return EINVAL;
        }
        in->directories[in->num_directories++] = text;
        return 0;
    case ARGP_KEY_END:
        if (in->num_directories == 0) {
            ep_error_set(EP_EINVAL, "a run directory is missing: epbench fit DIR...");
            return EINVAL;
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* --- the table ------------------------------------------------------------------------------- */

static void print_percent(struct ep_table *table, double fraction)
{
    if (isnan(fraction)) {
        ep_table_add(table, "-");
    } else {
        ep_table_add(table, "%.1f", 100 * fraction);
    }
}

static const char *print_value(const struct ep_fit_parameter *p, double value, char *text,
                               size_t length)
{
    return strcmp(p->unit, "bytes/s") == 0 ? ep_format_bandwidth(value, text, length)
                                           : ep_format_time(value, text, length);
}

/* "B 8.01 GB/s [7.90 GB/s, 8.12 GB/s]" for each parameter that stands; names of the others. */
static void print_parameters(const struct ep_fit_rung *r, char *text, size_t length)
{
    size_t used = 0;
    text[0] = '\0';
    for (int j = 0; j < r->num_parameters && used < length; j++) {
        const struct ep_fit_parameter *p = &r->parameters[j];
        char value[32], low[32], high[32];
        int put;
        if (p->withheld != NULL) {
            put = snprintf(text + used, length - used, "%s%s withheld", used > 0 ? "; " : "",
                           p->name);
        } else if (isnan(p->low)) {
            put = snprintf(text + used, length - used, "%s%s %s", used > 0 ? "; " : "", p->name,
                           print_value(p, p->value, value, sizeof value));
        } else {
            put = snprintf(text + used, length - used, "%s%s %s [%s, %s]", used > 0 ? "; " : "",
                           p->name, print_value(p, p->value, value, sizeof value),
                           print_value(p, p->low, low, sizeof low),
                           print_value(p, p->high, high, sizeof high));
        }
        used += put > 0 ? (size_t)put : 0;
    }
}

static void print_rung(struct ep_table *table, const struct ep_fit_rung *r)
{
    char parameters[512];
    ep_table_add(table, "%s%s", r->rung->name, r->chosen ? " *" : "");
    print_percent(table, r->held_out.median_ape);
    print_percent(table, r->held_out.p95_ape);
    print_percent(table, r->held_out.max_ape);
    print_percent(table, r->in_sample.median_ape);
    print_percent(table, r->extrapolation.median_ape);
    print_percent(table, r->coverage);
    if (r->same_as != NULL) {
        ep_table_add(table, "the same as %s on these records", r->same_as->name);
    } else {
        print_parameters(r, parameters, sizeof parameters);
        ep_table_add(table, "%s", parameters);
    }
}

/* Reasons once each, and once each which cases would tell. */
static void print_withheld(const struct ep_fit_group *g, FILE *out)
{
    const char *given[16];
    size_t num_given = 0;
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        const struct ep_fit_rung *r = &g->rungs[i];
        const char *reason, *advice;
        char names[256];
        for (int from = 0; r->same_as == NULL && ep_fit_next_withheld(r, &from, names, sizeof names,
                                                                      &reason, &advice);) {
            fprintf(out, "  %s, %s withheld: %s\n", r->rung->name, names, reason);
            bool is_new = advice != NULL && num_given < sizeof given / sizeof given[0];
            for (size_t k = 0; k < num_given && is_new; k++) {
                is_new = given[k] != advice;
            }
            if (is_new) {
                given[num_given++] = advice;
            }
        }
    }
    for (size_t k = 0; k < num_given; k++) {
        fprintf(out, "  would tell more: %s\n", given[k]);
    }
    for (int64_t i = 0; i < g->notes.num; i++) {
        fprintf(out, "  note: %s\n", g->notes.items[i].text);
    }
}

static enum ep_status print_group(const struct ep_fit_group *g, FILE *out)
{
    static const char *const headers[] = {"rung",  "median %", "p95 %",
                                          "max %",  "in-sample %", "largest %", "coverage %",
                                          "parameters"};
    struct ep_table *table = NULL;
    enum ep_status status =
        ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table);
    if (status != EP_OK) {
        return status;
    }
    fprintf(out, "%s: %s time of %" PRId64 " cases (%" PRId64 " skews, %" PRId64 " sizes)", g->name,
            g->target, g->num_cases, g->num_skews, g->num_sizes);
    if (g->num_folds > 1) {
        fprintf(out, ", errors on held-out %ss", g->fold_kind);
    }
    if (!isnan(g->noise_floor)) {
        fprintf(out, ", noise floor %.1f %%", 100 * g->noise_floor);
    }
    if (!isnan(g->launch_noise_floor)) {
        fprintf(out, ", between launches %.1f %%", 100 * g->launch_noise_floor);
    }
    fprintf(out, "\n");
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        if (g->rungs[i].is_fitted) {
            print_rung(table, &g->rungs[i]);
        }
    }
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    print_withheld(g, out);
    fprintf(out, "\n");
    return status;
}

static enum ep_status print_fit(const struct ep_fit *fit, const struct ep_parts *parts, FILE *out)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < fit->num_groups && status == EP_OK; i++) {
        status = print_group(&fit->groups[i], out);
    }
    if (fit->num_groups > 0) {
        fprintf(out, "* = chosen: the simplest rung within one standard error of the best.\n");
        for (int i = 0; i < EP_NUM_RUNGS; i++) {
            const struct ep_rung *rung = ep_rung_at(i);
            fprintf(out, "%-8s%s: %s%s\n", rung->name, rung->formula, rung->text,
                    rung->on_request ? " (--rungs)" : "");
        }
        fprintf(out, "Errors are of predictions; median, p95 and max of cases that the fit had not "
                "seen. B@SIZE: bandwidth where the\nbusiest rank moves that much; between sizes it is "
                "interpolated.\n\n");
    }
    if (status == EP_OK) {
        status = ep_parts_print(parts, out);
    }
    for (int64_t i = 0; i < fit->notes.num; i++) {
        fprintf(out, "note: %s\n", fit->notes.items[i].text);
    }
    return status;
}

static enum ep_status explain_fit(const struct ep_fit *fit, const struct ep_parts *parts, FILE *out)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < fit->num_groups && status == EP_OK; i++) {
        status = ep_fit_explain(&fit->groups[i], out);
    }
    ep_parts_explain_kernels(&parts->compute, out);
    ep_parts_explain_layers(&parts->layers, out);
    for (int64_t i = 0; i < fit->notes.num; i++) {
        fprintf(out, "note: %s\n", fit->notes.items[i].text);
    }
    return status;
}

/* --- the command ----------------------------------------------------------------------------- */

static enum ep_status write_machine(const struct input *in, const json_t *json)
{
    char *path = ep_path_join(in->directories[0], "machine.json");
    if (path == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a path");
    }
    const enum ep_status status = ep_json_save(path, json);
    free(path);
    return status;
}

static bool wants_matrices(const struct ep_fit_options *fit)
{
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        if (fit->asked[i] && ep_rung_at(i)->follow != NULL) {
            return true;
        }
    }
    return false;
}

enum ep_status ep_cmd_fit(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse, "DIR...",
        "Fit the cost model to the records of one or more runs of one machine: of exchanges each rung's "
        "parameters with intervals, its errors on skews it has not seen, and which rung to use; GEMMs and "
        "copies; whole layers from their parts. "
        "Writes machine.json into the first DIR.",
        NULL, NULL, NULL};
    enum ep_status status = EP_OK;
    struct input in = {0};
    struct ep_records records = {0};
    struct ep_fit fit = {0};
    struct ep_parts parts = {0};
    json_t *json = NULL;
    struct ep_run run;
    ep_run_init(&run);
    ep_fit_options_default(&in.options);
    EP_TRY(ep_options_parse(&argp, argc, argv, &in));
    EP_TRY(ep_run_read(in.directories[0], &run));
    EP_TRY(ep_records_read(in.directories, in.num_directories, &records));
    for (int64_t i = 0; i < records.warnings.num; i++) {
        fprintf(stderr, "epbench fit: warning: %s\n", records.warnings.items[i].text);
    }
    EP_TRY(ep_fit_group_records(&records, &fit));
    if (wants_matrices(&in.options)) {
        EP_TRY(ep_fit_load_matrices(&fit, in.directories, in.num_directories));
    }
    EP_TRY(ep_fit_groups(&records, &in.options, &fit));
    EP_TRY(ep_parts_fit(&records, &in.options, &parts));
    EP_TRY(ep_machine_file_make(&records, &run, &fit, &parts, &in.options, &json));
    /* What was found is shown even where the directory cannot be written. */
    if (!in.quiet && (in.json == NULL || strcmp(in.json, "-") != 0)) {
        EP_TRY(in.explain ? explain_fit(&fit, &parts, stdout) : print_fit(&fit, &parts, stdout));
    }
    if (in.json != NULL) {
        EP_TRY(ep_json_save(in.json, json));
    }
    EP_TRY(write_machine(&in, json));
out:
    json_decref(json);
    ep_parts_fini(&parts);
    ep_fit_fini(&fit);
    ep_records_fini(&records);
    ep_run_fini(&run);
    return status;
}

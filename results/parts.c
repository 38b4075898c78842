/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and JSON of the models of kernels and layers. */
#include "results/parts.h"

#include "base/json.h"
#include "base/table.h"
#include "base/units.h"
#include "kernels/dtype.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { TEXT_LENGTH = 48 };

enum ep_status ep_parts_fit(const struct ep_records *records, const struct ep_fit_options *options,
                            struct ep_parts *parts)
{
    *parts = (struct ep_parts){0};
    enum ep_status status = ep_compute_fit_records(records, options, &parts->compute);
    if (status == EP_OK) {
        status = ep_layer_fit_records(records, options, &parts->layers);
        if (status != EP_OK) {
            ep_compute_fit_fini(&parts->compute);
        }
    }
    return status;
}

void ep_parts_fini(struct ep_parts *parts)
{
    ep_compute_fit_fini(&parts->compute);
    ep_layer_fit_fini(&parts->layers);
}

/* --- tables ---------------------------------------------------------------------------------- */

static void put_percent(struct ep_table *table, double fraction)
{
    if (isnan(fraction)) {
        ep_table_add(table, "-");
    } else {
        ep_table_add(table, "%.1f", 100 * fraction);
    }
}

static const char *print_value(int column, double value, char text[TEXT_LENGTH])
{
    if (column == EP_ROOFLINE_FLOP) {
        snprintf(text, TEXT_LENGTH, "%.4g GF/s", value / 1e9);
        return text;
    }
    return column == EP_ROOFLINE_BYTE ? ep_format_bandwidth(value, text, TEXT_LENGTH)
                                      : ep_format_time(value, text, TEXT_LENGTH);
}

static void put_parameter(struct ep_table *table, const struct ep_part *part, int column)
{
    char value[TEXT_LENGTH], low[TEXT_LENGTH], high[TEXT_LENGTH];
    const struct ep_part_parameter *p = &part->parameters[column];
    if (part->coefficients[column] == 0) {
        ep_table_add(table, "-");
    } else if (p->withheld != NULL) {
        ep_table_add(table, "withheld");
    } else if (isnan(p->low)) {
        ep_table_add(table, "%s", print_value(column, p->value, value));
    } else {
        ep_table_add(table, "%s [%s, %s]", print_value(column, p->value, value),
                     print_value(column, p->low, low), print_value(column, p->high, high));
    }
}

/* A line per part: the parameters that are withheld, by the reason of the first. */
static void print_withheld(const struct ep_compute_fit *fit, FILE *out)
{
    for (int64_t i = 0; i < fit->num_parts; i++) {
        const struct ep_part *part = &fit->parts[i];
        const char *reason = NULL;
        for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
            const struct ep_part_parameter *p = &part->parameters[j];
            if (p->withheld != NULL && part->coefficients[j] > 0) {
                fprintf(out, reason == NULL ? "  %s: %s" : ", %.0s%s", part->name,
                        ep_roofline_column_name((enum ep_roofline_column)j));
                reason = reason == NULL ? p->withheld : reason;
            }
        }
        if (reason != NULL) {
            fprintf(out, " withheld: %s\n", reason);
        }
    }
}

static enum ep_status print_compute(const struct ep_compute_fit *fit, FILE *out)
{
    static const char *const headers[] = {"kernel", "cases", "median %", "p95 %", "in-sample %", "form",
                                          "start", "call", "flops", "bytes"};
    struct ep_table *table = NULL;
    enum ep_status status;
    if (fit->num_parts == 0) {
        return EP_OK;
    }
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int64_t i = 0; i < fit->num_parts; i++) {
        const struct ep_part *p = &fit->parts[i];
        ep_table_add(table, "%s", p->name);
        ep_table_add(table, "%" PRId64, p->num_cases);
        put_percent(table, p->held_out.median_ape);
        put_percent(table, p->held_out.p95_ape);
        put_percent(table, p->in_sample.median_ape);
        ep_table_add(table, "%s", ep_roofline_form_name(p->form));
        for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
            put_parameter(table, p, j);
        }
    }
    fprintf(out, "kernels of one rank: start + calls * call + the longer (form longer) or the sum (form "
            "both) of flops and bytes over their\nrates; - = no such time is seen; errors on held-out sizes\n");
    EP_TRY(ep_table_print(table, out));
    print_withheld(fit, out);
    fprintf(out, "\n");
out:
    ep_table_destroy(table);
    return status;
}

static const struct ep_fit_scores *part_held_out(const struct ep_layer_part *p)
{
    static const struct ep_fit_scores none = {0, NAN, NAN, NAN};
    const struct ep_fit_group *g = p->is_exchange ? &p->exchange.groups[0] : NULL;
    for (int i = 0; g != NULL && i < EP_NUM_RUNGS; i++) {
        if (g->rungs[i].held_out_s != NULL && g->rungs[i].held_out_s == p->held_out_s) {
            return &g->rungs[i].held_out;
        }
    }
    return g == NULL ? &p->part.held_out : &none;
}

static const char *part_model(const struct ep_layer_part *p)
{
    const struct ep_fit_group *g = p->is_exchange ? &p->exchange.groups[0] : NULL;
    for (int i = 0; g != NULL && i < EP_NUM_RUNGS; i++) {
        if (g->rungs[i].fitted_s != NULL && g->rungs[i].fitted_s == p->fitted_s) {
            return g->rungs[i].rung->name;
        }
    }
    return g == NULL ? ep_roofline_form_name(p->part.form) : "none";
}

static enum ep_status print_layer(const struct ep_layer_group *g, FILE *out)
{
    static const char *const headers[] = {"part", "of the time %", "model", "median %", "p95 %"};
    struct ep_table *table = NULL;
    enum ep_status status;
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int64_t i = 0; i < g->num_parts; i++) {
        const struct ep_layer_part *p = &g->parts[i];
        ep_table_add(table, "%s", p->name);
        put_percent(table, p->share);
        ep_table_add(table, "%s", part_model(p));
        put_percent(table, part_held_out(p)->median_ape);
        put_percent(table, part_held_out(p)->p95_ape);
    }
    ep_table_add(table, "whole layer");
    ep_table_add(table, "100");
    ep_table_add(table, "its parts");
    put_percent(table, g->held_out.median_ape);
    put_percent(table, g->held_out.p95_ape);
    fprintf(out, "%s: %" PRId64 " cases (%" PRId64 " skews, %" PRId64 " sizes), errors on held-out %ss",
            g->name, g->whole->num_cases, g->whole->num_skews, g->whole->num_sizes,
            g->whole->fold_kind);
    if (!isnan(g->whole->noise_floor)) {
        fprintf(out, ", noise floor %.1f %%", 100 * g->whole->noise_floor);
    }
    if (!isnan(g->half_width)) {
        fprintf(out, ", 95 %% of new cases within +-%.0f %%", 100 * g->half_width);
    }
    fprintf(out, "\n");
    EP_TRY(ep_table_print(table, out));
    fprintf(out, "\n");
out:
    ep_table_destroy(table);
    return status;
}

enum ep_status ep_parts_print(const struct ep_parts *parts, FILE *out)
{
    enum ep_status status;
    EP_TRY(print_compute(&parts->compute, out));
    for (int64_t i = 0; i < parts->layers.num_groups; i++) {
        EP_TRY(print_layer(&parts->layers.groups[i], out));
    }
    for (int64_t i = 0; i < parts->layers.notes.num; i++) {
        fprintf(out, "note: %s\n", parts->layers.notes.items[i].text);
    }
out:
    return status;
}

static void explain_kernel(const struct ep_part *p, FILE *out)
{
    char flops[TEXT_LENGTH], bytes[TEXT_LENGTH];
    const double f = p->parameters[EP_ROOFLINE_FLOP].value, b = p->parameters[EP_ROOFLINE_BYTE].value;
    if (isnan(f) || isnan(b)) {
        return;
    }
    fprintf(out, "%s: %s, and %s of weights and rows", p->name,
            print_value(EP_ROOFLINE_FLOP, f, flops), print_value(EP_ROOFLINE_BYTE, b, bytes));
    if (p->form == EP_ROOFLINE_LONGER && strcmp(p->kernel, "gemm") == 0) {
        /* 2 flop per row and weight of so many bytes */
        const double element = strcmp(p->dtype, "fp32") == 0 ? 4 : 2;
        fprintf(out, ": experts with fewer than about %.0f rows wait for their weights",
                ceil(f / b * element / 2));
    } else if (p->form == EP_ROOFLINE_BOTH) {
        fprintf(out, ", one after the other");
    }
    fprintf(out, ".\n");
}

static void explain_layer(const struct ep_layer_group *g, FILE *out)
{
    const struct ep_layer_part *most = &g->parts[0];
    for (int64_t i = 1; i < g->num_parts; i++) {
        most = g->parts[i].share > most->share ? &g->parts[i] : most;
    }
    fprintf(out, "%s: %s is %.0f %% of it", g->name, most->name, 100 * most->share);
    if (isnan(g->held_out.median_ape)) {
        fprintf(out, "; too few skews and sizes to hold a prediction against.\n");
        return;
    }
    fprintf(out, ". Put together from its parts, cases that these had not seen are predicted within %.1f %% (median), "
            "%.1f %% (95 of 100)", 100 * g->held_out.median_ape, 100 * g->held_out.p95_ape);
    if (!isnan(g->whole->noise_floor)) {
        fprintf(out, "; two visits of one case differ by %.1f %%", 100 * g->whole->noise_floor);
    }
    fprintf(out, ".\n");
}

void ep_parts_explain_kernels(const struct ep_compute_fit *fit, FILE *out)
{
    for (int64_t i = 0; i < fit->num_parts; i++) {
        explain_kernel(&fit->parts[i], out);
    }
}

void ep_parts_explain_layers(const struct ep_layer_fit *fit, FILE *out)
{
    for (int64_t i = 0; i < fit->num_groups; i++) {
        explain_layer(&fit->groups[i], out);
    }
    for (int64_t i = 0; i < fit->notes.num; i++) {
        fprintf(out, "note: %s\n", fit->notes.items[i].text);
    }
}

/* --- JSON ------------------------------------------------------------------------------------ */

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static json_t *coefficients_of(const struct ep_part *part)
{
    return json_pack("[f,f,f,f]", part->coefficients[0], part->coefficients[1],
                     part->coefficients[2], part->coefficients[3]);
}

static enum ep_status add_parameters(const struct ep_part *part, json_t *object)
{
    enum ep_status status = EP_OK;
    json_t *list = json_array();
    for (int j = 0; j < EP_ROOFLINE_NUM && status == EP_OK; j++) {
        const struct ep_part_parameter *p = &part->parameters[j];
        json_t *item = json_pack(
            "{s:s,s:s,s:o,s:o,s:o,s:o}", "name", ep_roofline_column_name((enum ep_roofline_column)j),
            "unit", ep_roofline_column_unit((enum ep_roofline_column)j), "value",
            ep_json_real(p->value), "low", ep_json_real(p->low), "high",
            ep_json_real(isfinite(p->high) ? p->high : NAN), "withheld", text_or_null(p->withheld));
        status = item != NULL && json_array_append_new(list, item) == 0
                     ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    if (status != EP_OK) {
        json_decref(list);
        return status;
    }
    return ep_json_set(object, "parameters", list);
}

static enum ep_status make_part(const struct ep_part *part, json_t **made)
{
    enum ep_status status = EP_OK;
    json_t *object = json_pack(
        "{s:s,s:o,s:o,s:o,s:I,s:I,s:s,s:o,s:o,s:o,s:o,s:o,s:o}", "part", part->name, "kernel",
        text_or_null(part->kernel), "backend", text_or_null(part->backend), "dtype",
        text_or_null(part->dtype), "ranks_active", (json_int_t)part->ranks_active, "cases",
        (json_int_t)part->num_cases, "form", ep_roofline_form_name(part->form), "coefficients",
        coefficients_of(part), "median_ape", ep_json_real(part->held_out.median_ape), "p95_ape",
        ep_json_real(part->held_out.p95_ape), "in_sample_median_ape",
        ep_json_real(part->in_sample.median_ape), "condition",
        ep_json_real(isfinite(part->condition) ? part->condition : NAN), "prediction_half_width",
        ep_json_real(part->half_width));
    if (object == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    EP_TRY(add_parameters(part, object));
    *made = json_incref(object);
out:
    json_decref(object);
    return status;
}

static enum ep_status make_layer(const struct ep_layer_group *g, json_t **made)
{
    enum ep_status status = EP_OK;
    json_t *list = json_array();
    json_t *object = json_pack(
        "{s:s,s:I,s:I,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "layer", g->name, "cases",
        (json_int_t)g->whole->num_cases, "ranks", (json_int_t)g->num_ranks, "folds",
        g->whole->fold_kind, "noise_floor", ep_json_real(g->whole->noise_floor), "median_ape",
        ep_json_real(g->held_out.median_ape), "p95_ape", ep_json_real(g->held_out.p95_ape), "max_ape",
        ep_json_real(g->held_out.max_ape), "in_sample_median_ape",
        ep_json_real(g->in_sample.median_ape), "coverage", ep_json_real(g->coverage),
        "prediction_half_width", ep_json_real(g->half_width));
    if (object == NULL || list == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for JSON"));
    }
    for (int64_t i = 0; i < g->num_parts; i++) {
        const struct ep_layer_part *p = &g->parts[i];
        const struct ep_fit_scores *scores = part_held_out(p);
        json_t *item = json_pack("{s:s,s:b,s:s,s:o,s:o,s:o}", "part", p->name, "is_exchange",
                                 (int)p->is_exchange, "model", part_model(p), "share",
                                 ep_json_real(p->share), "median_ape",
                                 ep_json_real(scores->median_ape), "p95_ape",
                                 ep_json_real(scores->p95_ape));
        if (item == NULL || json_array_append_new(list, item) != 0) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for JSON"));
        }
    }
    EP_TRY(ep_json_set(object, "parts", json_incref(list)));
    *made = json_incref(object);
out:
    json_decref(list);
    json_decref(object);
    return status;
}

/* What `predict` takes for a phase, by type. */
static enum ep_status add_use(const struct ep_compute_fit *fit, enum ep_compute_use use,
                              json_t *compute)
{
    enum ep_status status = EP_OK;
    json_t *types = json_object();
    for (int t = 0; t < EP_NUM_DTYPES && status == EP_OK; t++) {
        const char *dtype = ep_dtype_name((enum ep_dtype)t);
        const struct ep_part *part = ep_compute_fit_find(fit, use, dtype);
        if (part != NULL) {
            status = ep_json_set(
                types, dtype,
                json_pack("{s:s,s:s,s:o,s:o}", "part", part->name, "form",
                          ep_roofline_form_name(part->form), "coefficients", coefficients_of(part),
                          "prediction_half_width", ep_json_real(part->half_width)));
        }
    }
    if (status != EP_OK) {
        json_decref(types);
        return status;
    }
    return ep_json_set(compute, ep_compute_use_name(use), types);
}

enum ep_status ep_parts_to_json(const struct ep_parts *parts, json_t *compute, json_t *machine)
{
    enum ep_status status = EP_OK;
    json_t *kernels = json_array(), *layers = json_array();
    for (int64_t i = 0; i < parts->compute.num_parts; i++) {
        json_t *object = NULL;
        EP_TRY(make_part(&parts->compute.parts[i], &object));
        EP_TRY(json_array_append_new(kernels, object) == 0
                   ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for JSON"));
    }
    for (int64_t i = 0; i < parts->layers.num_groups; i++) {
        json_t *object = NULL;
        EP_TRY(make_layer(&parts->layers.groups[i], &object));
        EP_TRY(json_array_append_new(layers, object) == 0
                   ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for JSON"));
    }
    for (int use = 0; use < EP_COMPUTE_NUM_USES; use++) {
        EP_TRY(add_use(&parts->compute, (enum ep_compute_use)use, compute));
    }
    EP_TRY(ep_json_set(machine, "parts", json_incref(kernels)));
    EP_TRY(ep_json_set(machine, "layers", json_incref(layers)));
out:
    json_decref(kernels);
    json_decref(layers);
    return status;
}

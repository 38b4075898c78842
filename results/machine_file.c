/* SPDX-License-Identifier: Apache-2.0 */
/* Writing machine.json: levels from links, ports, groups and rungs of the fit. */
#include "results/machine_file.h"

#include "base/json.h"
#include "results/fit_explain.h"
#include "results/pieces.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

/* Put `item` (stolen) at the end of `array`. */
static enum ep_status append(json_t *array, json_t *item)
{
    return json_array_append_new(array, item) == 0 ? EP_OK
                                                   : ep_error_set(EP_ENOMEM, "no memory for JSON");
}

static enum ep_status add_notes(json_t *object, const struct ep_record_notes *notes)
{
    enum ep_status status = EP_OK;
    json_t *array = json_array();
    for (int64_t i = 0; i < notes->num && status == EP_OK; i++) {
        status = append(array, json_pack("{s:s,s:s}", "name", notes->items[i].name, "text",
                                         notes->items[i].text));
    }
    if (status != EP_OK) {
        json_decref(array);
        return status;
    }
    return ep_json_set(object, "notes", array);
}

/* --- levels and ports ------------------------------------------------------------------------ */

static bool is_window(const struct ep_link_point *point)
{
    return point->pattern != NULL && strcmp(point->pattern, "window") == 0;
}

/* Ping-pong of a pair alone in pieces: eager, rendezvous, single copy, caches. Fewer than 10 sizes say
 * nothing about where they change. */
static enum ep_status add_pieces(json_t *level, const struct ep_link_point *points, int64_t num)
{
    enum ep_status status = EP_OK;
    struct ep_pieces_options options;
    struct ep_pieces_choice choice;
    json_t *list = json_array();
    double *sizes = calloc(2 * (size_t)num + 1, sizeof *sizes);
    double error = NAN;
    int64_t num_sizes = 0;
    if (sizes == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for pieces"));
    }
    double *times = sizes + num;
    for (int64_t i = 0; i < num; i++) {
        const bool rises = num_sizes == 0 || (double)points[i].size_bytes > sizes[num_sizes - 1];
        if (points[i].concurrent_pairs == 1 && !is_window(&points[i]) && points[i].time_s > 0 && rises) {
            sizes[num_sizes] = (double)points[i].size_bytes;
            times[num_sizes++] = points[i].time_s;
        }
    }
    ep_pieces_options_default(&options);
    options.num_folds = 5;
    options.min_points = 3;
    options.max_pieces = 4;
    if (num_sizes >= 2 * options.num_folds) {
        const struct ep_pieces_points measured = {sizes, times, num_sizes};
        EP_TRY(ep_pieces_choose(&measured, &options, &choice));
        for (int k = 0; k < choice.pieces.num; k++) {
            const struct ep_piece *p = &choice.pieces.pieces[k];
            EP_TRY(append(list, json_pack("{s:o,s:o,s:o}", "end_bytes", ep_json_real(p->end_bytes),
                                          "latency_s", ep_json_real(p->latency_s), "bw_bytes_per_s",
                                          ep_json_real(1 / p->s_per_byte))));
        }
        error = choice.error[choice.pieces.num - 1];
    }
    EP_TRY(ep_json_set(level, "pieces", json_incref(list)));
    EP_TRY(ep_json_set(level, "pieces_error", ep_json_real(error)));
out:
    free(sizes);
    json_decref(list);
    return status;
}

/* One level: its points, and the figures that most readers want: latency of the smallest message
 * and best bandwidth of one pair alone, and of each pair when most run at once. Latency is not read
 * off windows, whose messages overlap; nor bandwidth off a ping-pong where there are windows, since
 * a link that gathers credit while idle shows more than it can keep up. */
static enum ep_status add_level(json_t *levels, const struct ep_link_point *points, int64_t num)
{
    enum ep_status status = EP_OK;
    const struct ep_link_point *small = NULL, *fast = NULL, *crowded = NULL;
    json_t *level = json_object();
    json_t *list = json_array();
    bool has_windows = false;
    for (int64_t i = 0; i < num; i++) {
        has_windows = has_windows || is_window(&points[i]);
    }
    for (int64_t i = 0; i < num; i++) {
        const struct ep_link_point *p = &points[i];
        const bool alone = p->concurrent_pairs == 1;
        const bool tells_bw = is_window(p) || !has_windows;
        if (alone && !is_window(p) && (small == NULL || p->size_bytes < small->size_bytes)) {
            small = p;
        }
        if (alone && tells_bw && (fast == NULL || p->bw_bytes_per_s > fast->bw_bytes_per_s)) {
            fast = p;
        }
        if (!alone && tells_bw && (crowded == NULL || p->concurrent_pairs > crowded->concurrent_pairs ||
                       (p->concurrent_pairs == crowded->concurrent_pairs &&
                        p->bw_bytes_per_s > crowded->bw_bytes_per_s))) {
            crowded = p;
        }
        EP_TRY(append(list, json_pack("{s:s,s:I,s:I,s:o,s:o}", "pattern", p->pattern, "size_bytes",
                                      (json_int_t)p->size_bytes, "concurrent_pairs",
                                      (json_int_t)p->concurrent_pairs, "median_s",
                                      ep_json_real(p->time_s), "bw_bytes_per_s",
                                      ep_json_real(p->bw_bytes_per_s))));
    }
    EP_TRY(ep_json_set(level, "name", json_string(points[0].level)));
    EP_TRY(ep_json_set(level, "latency_s", ep_json_real(small != NULL ? small->time_s : NAN)));
    EP_TRY(ep_json_set(level, "latency_size_bytes",
                       small != NULL ? json_integer(small->size_bytes) : json_null()));
    EP_TRY(ep_json_set(level, "bw_bytes_per_s",
                       ep_json_real(fast != NULL ? fast->bw_bytes_per_s : NAN)));
    EP_TRY(ep_json_set(level, "bw_size_bytes",
                       fast != NULL ? json_integer(fast->size_bytes) : json_null()));
    EP_TRY(ep_json_set(level, "concurrent_pairs",
                       crowded != NULL ? json_integer(crowded->concurrent_pairs) : json_null()));
    EP_TRY(ep_json_set(level, "concurrent_bw_bytes_per_s",
                       ep_json_real(crowded != NULL ? crowded->bw_bytes_per_s : NAN)));
    EP_TRY(add_pieces(level, points, num));
    EP_TRY(ep_json_set(level, "points", json_incref(list)));
    EP_TRY(append(levels, json_incref(level)));
out:
    json_decref(list);
    json_decref(level);
    return status;
}

static enum ep_status add_levels(json_t *machine, const struct ep_records *records)
{
    enum ep_status status = EP_OK;
    struct ep_link_point *points = NULL;
    int64_t num = 0;
    json_t *levels = json_array();
    EP_TRY(ep_link_points_pool(records, &points, &num));
    for (int64_t first = 0, next; first < num; first = next) {
        next = first + 1;
        while (next < num && strcmp(points[next].level, points[first].level) == 0) {
            next++;
        }
        EP_TRY(add_level(levels, points + first, next - first));
    }
    EP_TRY(ep_json_set(machine, "levels", json_incref(levels)));
out:
    json_decref(levels);
    free(points);
    return status;
}

/* Every port that a record names, once. */
static enum ep_status add_ports(json_t *machine, const struct ep_records *records)
{
    enum ep_status status = EP_OK;
    json_t *seen = json_object();
    json_t *ports = json_array();
    for (int64_t i = 0; i < records->num; i++) {
        for (int64_t p = 0; p < records->items[i].ports.num; p++) {
            const struct ep_record_port *port = &records->items[i].ports.items[p];
            char key[256];
            snprintf(key, sizeof key, "%s/%s", port->name, port->direction);
            if (json_object_get(seen, key) == NULL) {
                EP_TRY(ep_json_set(seen, key, json_true()));
                EP_TRY(append(ports, json_pack("{s:s,s:s,s:s}", "name", port->name, "kind",
                                               port->kind, "direction", port->direction)));
            }
        }
    }
    EP_TRY(ep_json_set(machine, "ports", json_incref(ports)));
out:
    json_decref(seen);
    json_decref(ports);
    return status;
}

/* --- compute ----------------------------------------------------------------------------------- */

/* What a rank reaches in expert GEMMs, by type, and how fast it reads what no cache holds; all ranks
 * at work where that was measured, since they share memory. */
static enum ep_status add_compute(json_t *machine, const struct ep_records *records)
{
    enum ep_status status = EP_OK;
    json_t *flops = json_object(), *compute = json_object();
    double read_bytes_per_s = NAN;
    int64_t most_ranks = 0, largest_set = 0;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        const double ranks = r->ranks_active > 0 ? (double)r->ranks_active : 1;
        if (r->kind != EP_RECORD_KERNELS || !(r->median_s > 0)) {
            continue;
        }
        if (strcmp(r->kernel, "gemm") == 0 && r->gemm.dtype != NULL && r->flops_per_s > 0) {
            const double before = json_number_value(json_object_get(flops, r->gemm.dtype));
            EP_TRY(ep_json_set(flops, r->gemm.dtype,
                               ep_json_real(fmax(before, r->flops_per_s / ranks))));
        }
        const bool is_larger = r->ranks_active > most_ranks ||
                               (r->ranks_active == most_ranks && r->working_set_bytes > largest_set);
        if (strcmp(r->kernel, "read") == 0 && r->moved_bytes > 0 && is_larger) {
            most_ranks = r->ranks_active;
            largest_set = r->working_set_bytes;
            read_bytes_per_s = r->moved_bytes / r->median_s / ranks;
        }
    }
    EP_TRY(ep_json_set(compute, "flops_per_s", json_incref(flops)));
    EP_TRY(ep_json_set(compute, "read_bytes_per_s", ep_json_real(read_bytes_per_s)));
    EP_TRY(ep_json_set(machine, "compute", json_incref(compute)));
out:
    json_decref(flops);
    json_decref(compute);
    return status;
}

/* --- the fit --------------------------------------------------------------------------------- */

static enum ep_status add_range(json_t *object, const struct ep_fit_group *groups,
                                int64_t num_groups)
{
    enum ep_status status = EP_OK;
    json_t *ranges = json_object();
    for (int f = 0; f < EP_NUM_FEATURES; f++) {
        double low = HUGE_VAL, high = -HUGE_VAL;
        for (int64_t g = 0; g < num_groups; g++) {
            for (int64_t i = 0; i < groups[g].num_cases; i++) {
                low = fmin(low, groups[g].cases[i].model.features.values[f]);
                high = fmax(high, groups[g].cases[i].model.features.values[f]);
            }
        }
        EP_TRY(ep_json_set(ranges, ep_model_feature_name((enum ep_model_feature)f),
                           json_pack("{s:o,s:o}", "min", ep_json_real(low), "max",
                                     ep_json_real(high))));
    }
    EP_TRY(ep_json_set(object, "valid_range", json_incref(ranges)));
out:
    json_decref(ranges);
    return status;
}

static enum ep_status add_group_names(json_t *object, const struct ep_fit_group *g)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_json_set(object, "group", json_string(g->name)));
    EP_TRY(ep_json_set(object, "op", text_or_null(g->record->op)));
    EP_TRY(ep_json_set(object, "transport", text_or_null(g->record->transport)));
    EP_TRY(ep_json_set(object, "algorithm", text_or_null(g->record->algorithm)));
out:
    return status;
}

/* What the chosen rung predicted for cases that it had not seen, and what residuals may hang on. */
static enum ep_status add_held_out(json_t *object, const struct ep_fit_group *g,
                                   const struct ep_fit_rung *chosen)
{
    enum ep_status status = EP_OK;
    json_t *all = json_array();
    for (int64_t i = 0; i < g->num_cases && chosen != NULL; i++) {
        const double predicted_s = chosen->held_out_s[i];
        if (isfinite(predicted_s)) {
            const struct ep_fit_case *c = &g->cases[i];
            const double *values = c->model.features.values;
            struct ep_fit_binding binding;
            ep_fit_find_binding(&chosen->form, chosen->coefficients, &c->model, &binding);
            EP_TRY(append(all, json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:s?}", "case",
                                         c->case_name, "measured_s", ep_json_real(c->time_s),
                                         "predicted_s", ep_json_real(predicted_s), "in_sample_s",
                                         ep_json_real(chosen->fitted_s[i]), "h_rank_bytes",
                                         ep_json_real(values[EP_FEATURE_H_RANK_BYTES]), "imbalance",
                                         ep_json_real(values[EP_FEATURE_H_RANK_BYTES] /
                                                      values[EP_FEATURE_MEAN_OUT_BYTES]), "ranks",
                                         (json_int_t)c->record->ranks, "order_idx",
                                         (json_int_t)c->record->order_idx, "binding_level",
                                         binding.level)));
        }
    }
    EP_TRY(ep_json_set(object, "held_out", json_incref(all)));
out:
    json_decref(all);
    return status;
}

static enum ep_status group_to_json(const struct ep_fit_group *g, json_t *groups)
{
    enum ep_status status = EP_OK;
    const struct ep_fit_rung *chosen = ep_fit_chosen(g);
    const char *level, *runner_up;
    int64_t num_binding = 0;
    json_t *object = json_object();
    EP_TRY(add_group_names(object, g));
    EP_TRY(ep_json_set(object, "key", json_string(g->key)));
    EP_TRY(ep_json_set(object, "target", json_string(g->target)));
    EP_TRY(ep_json_set(object, "byte_basis", text_or_null(g->record->byte_basis)));
    EP_TRY(ep_json_set(object, "cases", json_integer(g->num_cases)));
    EP_TRY(ep_json_set(object, "skews", json_integer(g->num_skews)));
    EP_TRY(ep_json_set(object, "sizes", json_integer(g->num_sizes)));
    EP_TRY(ep_json_set(object, "rank_counts", json_integer(g->num_rank_counts)));
    EP_TRY(ep_json_set(object, "held_out_by", json_string(g->fold_kind)));
    EP_TRY(ep_json_set(object, "folds", json_integer(g->num_folds)));
    EP_TRY(ep_json_set(object, "bootstrap_groups", json_integer(g->num_clusters)));
    EP_TRY(ep_json_set(object, "anchors_bytes",
                       ep_json_real_array(g->anchors, g->num_anchors > 1 ? g->num_anchors : 0)));
    EP_TRY(ep_json_set(object, "noise_floor", ep_json_real(g->noise_floor)));
    EP_TRY(ep_json_set(object, "launch_noise_floor", ep_json_real(g->launch_noise_floor)));
    EP_TRY(ep_json_set(object, "peak_bytes_per_s", ep_json_real(g->peak_bytes_per_s)));
    EP_TRY(ep_json_set(object, "peak_name", text_or_null(g->peak_name)));
    EP_TRY(ep_json_set(object, "chosen", text_or_null(chosen != NULL ? chosen->rung->name : NULL)));
    EP_TRY(ep_fit_group_binding(g, &level, &num_binding, &runner_up));
    EP_TRY(ep_json_set(object, "binding_level", text_or_null(level)));
    EP_TRY(ep_json_set(object, "binding_cases", json_integer(num_binding)));
    EP_TRY(ep_json_set(object, "runner_up_level", text_or_null(runner_up)));
    EP_TRY(add_held_out(object, g, chosen));
    EP_TRY(add_range(object, g, 1));
    EP_TRY(add_notes(object, &g->notes));
    EP_TRY(append(groups, json_incref(object)));
out:
    json_decref(object);
    return status;
}

static enum ep_status add_scores(json_t *object, const char *prefix,
                                 const struct ep_fit_scores *scores)
{
    const struct {
        const char *name;
        double value;
    } all[] = {{"median_ape", scores->median_ape},
               {"p95_ape", scores->p95_ape},
               {"max_ape", scores->max_ape}};
    enum ep_status status = EP_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && status == EP_OK; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%s", prefix, all[i].name);
        status = ep_json_set(object, key, ep_json_real(all[i].value));
    }
    return status;
}

static enum ep_status add_parameters(json_t *object, const struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    json_t *parameters = json_object();
    for (int j = 0; j < r->num_parameters; j++) {
        const struct ep_fit_parameter *p = &r->parameters[j];
        EP_TRY(ep_json_set(parameters, p->name,
                           json_pack("{s:o,s:o,s:o,s:o,s:o,s:s,s:o}", "value",
                                     ep_json_real(p->value), "low", ep_json_real(p->low), "high",
                                     ep_json_real(p->high), "withheld", text_or_null(p->withheld),
                                     "advice", text_or_null(p->advice), "unit", p->unit,
                                     "binds_in", p->binds_in >= 0 ? json_integer(p->binds_in)
                                                                  : json_null())));
    }
    EP_TRY(ep_json_set(object, "parameters", json_incref(parameters)));
out:
    json_decref(parameters);
    return status;
}

static enum ep_status rung_to_json(const struct ep_fit_group *g, const struct ep_fit_rung *r,
                                   json_t *rungs)
{
    enum ep_status status = EP_OK;
    json_t *object = json_object();
    EP_TRY(add_group_names(object, g));
    EP_TRY(ep_json_set(object, "rung", json_string(r->rung->name)));
    EP_TRY(ep_json_set(object, "formula", json_string(r->rung->formula)));
    EP_TRY(ep_json_set(object, "same_as",
                       text_or_null(r->same_as != NULL ? r->same_as->name : NULL)));
    EP_TRY(ep_json_set(object, "chosen", json_boolean(r->chosen)));
    EP_TRY(add_parameters(object, r));
    EP_TRY(ep_json_set(object, "coefficients",
                       ep_json_real_array(r->coefficients,
                                          r->is_fitted ? r->form.num_columns : 0)));
    EP_TRY(ep_json_set(object, "anchors_bytes",
                       ep_json_real_array(r->form.anchors,
                                          r->form.num_anchors > 1 ? r->form.num_anchors : 0)));
    EP_TRY(ep_json_set(object, "condition_number", ep_json_real(r->condition)));
    EP_TRY(add_scores(object, "", &r->held_out));
    EP_TRY(add_scores(object, "in_sample_", &r->in_sample));
    EP_TRY(add_scores(object, "extrapolation_", &r->extrapolation));
    EP_TRY(ep_json_set(object, "coverage", ep_json_real(r->coverage)));
    EP_TRY(ep_json_set(object, "prediction_half_width", ep_json_real(r->half_width)));
    EP_TRY(ep_json_set(object, "choice_score", ep_json_real(r->fold_score)));
    EP_TRY(ep_json_set(object, "choice_score_se", ep_json_real(r->fold_score_se)));
    EP_TRY(ep_json_set(object, "noise_floor", ep_json_real(g->noise_floor)));
    EP_TRY(append(rungs, json_incref(object)));
out:
    json_decref(object);
    return status;
}

static enum ep_status add_fit(json_t *machine, const struct ep_fit *fit)
{
    enum ep_status status = EP_OK;
    json_t *groups = json_array();
    json_t *rungs = json_array();
    for (int64_t i = 0; i < fit->num_groups; i++) {
        const struct ep_fit_group *g = &fit->groups[i];
        EP_TRY(group_to_json(g, groups));
        for (int r = 0; r < EP_NUM_RUNGS; r++) {
            EP_TRY(rung_to_json(g, &g->rungs[r], rungs));
        }
    }
    EP_TRY(ep_json_set(machine, "groups", json_incref(groups)));
    EP_TRY(ep_json_set(machine, "rungs", json_incref(rungs)));
out:
    json_decref(groups);
    json_decref(rungs);
    return status;
}

/* The runs whose records these are, once each. */
static enum ep_status add_run_ids(json_t *machine, const struct ep_records *records)
{
    enum ep_status status = EP_OK;
    json_t *ids = json_array();
    const char *last = "";
    for (int64_t i = 0; i < records->num && status == EP_OK; i++) {
        const char *id = records->items[i].run_id;
        if (strcmp(id, last) != 0) {
            status = append(ids, json_string(id));
            last = id;
        }
    }
    if (status != EP_OK) {
        json_decref(ids);
        return status;
    }
    return ep_json_set(machine, "run_ids", ids);
}

enum ep_status ep_machine_file_make(const struct ep_records *records, const struct ep_run *run,
                                    const struct ep_fit *fit, const struct ep_parts *parts,
                                    const struct ep_fit_options *options, json_t **json)
{
    enum ep_status status = EP_OK;
    json_t *machine = json_object();
    EP_TRY(ep_json_set(machine, "schema", json_integer(EP_RECORD_SCHEMA)));
    EP_TRY(ep_json_set(machine, "host", text_or_null(run->host)));
    EP_TRY(ep_json_set(machine, "machine", text_or_null(run->machine)));
    EP_TRY(add_run_ids(machine, records));
    EP_TRY(ep_json_set(machine, "bootstraps", json_integer(options->num_bootstraps)));
    EP_TRY(ep_json_set(machine, "seed", json_integer((json_int_t)options->seed)));
    EP_TRY(ep_json_set(machine, "interval_level", ep_json_real(options->level)));
    EP_TRY(add_levels(machine, records));
    EP_TRY(add_ports(machine, records));
    EP_TRY(add_compute(machine, records));
    if (parts != NULL) {
        EP_TRY(ep_parts_to_json(parts, json_object_get(machine, "compute"), machine));
    }
    /* Which NIC a rank uses is in no record yet. */
    EP_TRY(ep_json_set(machine, "rank_to_nic", json_null()));
    EP_TRY(add_range(machine, fit->groups, fit->num_groups));
    EP_TRY(add_fit(machine, fit));
    EP_TRY(add_notes(machine, &fit->notes));
    *json = json_incref(machine);
out:
    json_decref(machine);
    return status;
}

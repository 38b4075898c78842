/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and JSON of `epbench place`. */
#include "results/place_case.h"

#include "base/json.h"
#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>

/* --- tables -------------------------------------------------------------------------------- */

static void print_head(const struct ep_place_case *run, FILE *out)
{
    const struct ep_place_shape *s = &run->shape;
    fprintf(out,
            "placing  %s: %" PRId64 " experts in %" PRId64 " slots of %" PRId64 " ranks on %" PRId64
            " node%s, %" PRId64 " group%s, seed %" PRIu64 "\n",
            run->input.name, s->num_experts, s->num_slots, s->num_ranks, s->num_nodes,
            s->num_nodes == 1 ? "" : "s", s->num_groups, s->num_groups == 1 ? "" : "s",
            run->options.source.seed);
    if (run->input.has_tokens) {
        fprintf(out,
                "tokens   %" PRId64 " of top-%" PRId64 " fitted to, %" PRId64
                " held out; row %" PRId64 " bytes\n",
                run->input.fitted.num_tokens, run->input.top_k, run->input.held_out.num_tokens,
                run->row_bytes);
    }
    fprintf(out, "\n");
}

static void add_number(struct ep_table *table, const char *format, double value)
{
    char text[32];
    if (isnan(value)) {
        ep_table_add(table, "-");
    } else {
        snprintf(text, sizeof text, format, value);
        ep_table_add(table, "%s", text);
    }
}

static enum ep_status print_counts(const struct ep_place_case *run, FILE *out)
{
    static const char *const headers[] = {"layer", "policy", "rank max/mean", "node max/mean"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 4, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < run->num_results; i++) {
        const struct ep_place_result *r = &run->results[i];
        ep_table_add(table, "%" PRId64, r->layer);
        ep_table_add(table, "%s", r->policy->name);
        add_number(table, "%.4f", ep_place_max_over_mean(r->rank_load, run->shape.num_ranks));
        add_number(table, "%.4f", ep_place_max_over_mean(r->node_load, run->shape.num_nodes));
    }
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    return status;
}

static void add_part(const struct ep_place_case *run, const struct ep_place_part *part,
                     struct ep_table *table)
{
    const struct ep_place_judgement *j = &part->judgement;
    const double tokens = (double)j->num_tokens;
    char text[32];
    add_number(table, "%.4f", ep_place_max_over_mean(j->rank_load, run->shape.num_ranks));
    add_number(table, "%.4f", ep_place_max_over_mean(j->node_load, run->shape.num_nodes));
    add_number(table, "%.4f", ep_place_block_max_over_mean(j));
    ep_table_add(table, "%.3f", (double)j->rows[EP_BASIS_RANK].total / tokens);
    ep_table_add(table, "%.3f", (double)j->rows[EP_BASIS_NODE].total / tokens);
    const int64_t rows[] = {j->rows[EP_BASIS_COPIES].remote, j->rows[EP_BASIS_RANK].remote,
                            j->cross_node_rows[EP_BASIS_NODE]};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ep_table_add(table, "%s",
                     ep_format_bytes((double)rows[i] * (double)run->row_bytes, text, sizeof text));
    }
}

static enum ep_status print_parts(const struct ep_place_case *run, bool held_out, FILE *out)
{
    static const char *const headers[] = {"policy",         "rank max/mean", "node max/mean", "by blocks",
                                          "ranks/token",    "nodes/token",   "copies out",
                                          "rank-dedup out", "cross-node"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 9, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < run->num_results; i++) {
        const struct ep_place_result *r = &run->results[i];
        ep_table_add(table, "%s", r->policy->name);
        add_part(run, held_out ? &r->held_out : &r->fitted, table);
    }
    fprintf(out, held_out ? "on the tokens held out:\n" : "on the tokens fitted to:\n");
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    fprintf(out, "\n");
    return status;
}

/* "-27.1 % [-28.0, -26.2]" */
static void add_interval(struct ep_table *table, double scale, const char *unit,
                         const struct ep_place_interval *interval)
{
    if (isnan(interval->value)) {
        ep_table_add(table, "-");
    } else if (isnan(interval->low)) {
        ep_table_add(table, "%+.3f%s", scale * interval->value, unit);
    } else {
        ep_table_add(table, "%+.3f%s [%+.3f, %+.3f]", scale * interval->value, unit,
                     scale * interval->low, scale * interval->high);
    }
}

static enum ep_status print_differences(const struct ep_place_case *run, bool held_out, FILE *out)
{
    static const char *const headers[] = {"policy", "against", "rank max/mean", "rank-dedup out",
                                          "cross-node"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 5, &table);
    bool any = false;
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < run->num_results; i++) {
        const struct ep_place_result *r = &run->results[i];
        const struct ep_place_part *part = held_out ? &r->held_out : &r->fitted;
        for (int k = 0; k < part->num_against; k++) {
            const struct ep_place_difference *d = &part->against[k].difference;
            ep_table_add(table, "%s", r->policy->name);
            ep_table_add(table, "%s", part->against[k].policy);
            add_interval(table, 1, "", &d->max_over_mean);
            add_interval(table, 100, " %", &d->remote_rows);
            add_interval(table, 100, " %", &d->cross_rows);
            any = true;
        }
    }
    if (any) {
        fprintf(out, "differences there, with 95 %% intervals over blocks of tokens:\n");
        status = ep_table_print(table, out);
        fprintf(out, "\n");
    }
    ep_table_destroy(table);
    return status;
}

static void print_dynamic(const struct ep_place_case *run, bool held_out, FILE *out)
{
    char text[32];
    for (int64_t i = 0; i < run->num_results; i++) {
        const struct ep_place_result *r = &run->results[i];
        const struct ep_place_dynamic *d = held_out ? &r->held_out.dynamic : &r->fitted.dynamic;
        if (r->policy->over_time) {
            fprintf(out,
                    "dynamic: %" PRId64 " windows of %" PRId64 " tokens, %" PRId64
                    " looks, re-placed %" PRId64 " times, %" PRId64 " experts moved",
                    d->num_windows, run->options.window_tokens, d->num_looks, d->num_replaced,
                    d->experts_moved);
            if (run->expert_bytes > 0) {
                fprintf(out, ", %s",
                        ep_format_bytes((double)d->experts_moved * (double)run->expert_bytes, text,
                                        sizeof text));
            }
            fprintf(out, "\n\n");
        }
    }
}

static enum ep_status print_times(const struct ep_place_case *run, bool held_out, FILE *out)
{
    static const char *const headers[] = {"group", "rung", "policy", "predicted time",
                                          "beyond what was fitted"};
    struct ep_table *table = NULL;
    if (run->machine == NULL) {
        return EP_OK;
    }
    enum ep_status status = ep_table_create(headers, 5, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t g = 0; g < run->machine->num_groups; g++) {
        for (int64_t i = 0; i < run->num_results; i++) {
            const struct ep_place_result *r = &run->results[i];
            const struct ep_place_time *t = &(held_out ? &r->held_out : &r->fitted)->times[g];
            char text[32];
            ep_table_add(table, "%s", t->group->name);
            ep_table_add(table, "%s", t->group->rung->name);
            ep_table_add(table, "%s", r->policy->name);
            ep_table_add(table, "%s", ep_format_time(t->time_s, text, sizeof text));
            ep_table_add(table, "%s",
                         t->withheld != NULL       ? t->withheld
                         : t->extrapolates != NULL ? t->extrapolates
                                                   : "");
        }
    }
    fprintf(out, "predicted on the machine of %s:\n", run->machine->host);
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    return status;
}

enum ep_status ep_place_case_print(const struct ep_place_case *run, FILE *out)
{
    enum ep_status status;
    const bool held_out = run->input.held_out.num_tokens > 0;
    print_head(run, out);
    if (!run->input.has_tokens) {
        return print_counts(run, out);
    }
    EP_TRY(print_parts(run, false, out));
    if (held_out) {
        EP_TRY(print_parts(run, true, out));
    }
    EP_TRY(print_differences(run, held_out, out));
    print_dynamic(run, held_out, out);
    EP_TRY(print_times(run, held_out, out));
out:
    return status;
}

/* --- JSON ---------------------------------------------------------------------------------- */

static const char *const basis_keys[EP_PLACE_NUM_MATRICES] = {
    [EP_BASIS_COPIES] = "copies",
    [EP_BASIS_RANK] = "rank_dedup",
    [EP_BASIS_NODE] = "node_dedup",
    [EP_PLACE_FAN_OUT] = "node_dedup_fan_out",
};

static enum ep_status append(json_t *array, json_t *item)
{
    return json_array_append_new(array, item) == 0 ? EP_OK
                                                   : ep_error_set(EP_ENOMEM, "no memory for JSON");
}

static json_t *integer_or_null(int64_t value)
{
    return value > 0 ? json_integer(value) : json_null();
}

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static json_t *map_array(const int32_t *map, int64_t num)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < num; i++) {
        if (json_array_append_new(array, json_integer(map[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static enum ep_status set_loads(const struct ep_place_shape *shape, const double *rank_load,
                                const double *node_load, json_t *object)
{
    enum ep_status status;
    EP_TRY(ep_json_set(object, "rank_load", ep_json_real_array(rank_load, shape->num_ranks)));
    EP_TRY(ep_json_set(object, "max_over_mean",
                       ep_json_real(ep_place_max_over_mean(rank_load, shape->num_ranks))));
    EP_TRY(ep_json_set(object, "node_load", ep_json_real_array(node_load, shape->num_nodes)));
    EP_TRY(ep_json_set(object, "node_max_over_mean",
                       ep_json_real(ep_place_max_over_mean(node_load, shape->num_nodes))));
out:
    return status;
}

static enum ep_status set_bytes(const struct ep_place_judgement *j, int64_t row_bytes,
                                json_t *object)
{
    enum ep_status status;
    json_t *bytes = json_object();
    json_t *cross = json_object();
    EP_TRY(ep_json_set(object, "bytes", json_incref(bytes)));
    EP_TRY(ep_json_set(object, "cross_node_bytes", json_incref(cross)));
    for (int m = 0; m < EP_PLACE_NUM_MATRICES; m++) {
        const struct ep_traffic_totals *t = &j->rows[m];
        EP_TRY(
            ep_json_set(bytes, basis_keys[m],
                        json_pack("{s:I,s:I,s:I,s:I}", "total", (json_int_t)(t->total * row_bytes),
                                  "remote", (json_int_t)(t->remote * row_bytes), "max_out",
                                  (json_int_t)(t->max_out * row_bytes), "max_in",
                                  (json_int_t)(t->max_in * row_bytes))));
    }
    for (int basis = 0; basis < EP_NUM_BASES; basis++) {
        EP_TRY(ep_json_set(cross, basis_keys[basis],
                           json_integer(j->cross_node_rows[basis] * row_bytes)));
    }
    EP_TRY(ep_json_set(object, "ranks_per_token",
                       ep_json_real((double)j->rows[EP_BASIS_RANK].total / (double)j->num_tokens)));
    EP_TRY(ep_json_set(object, "nodes_per_token",
                       ep_json_real((double)j->rows[EP_BASIS_NODE].total / (double)j->num_tokens)));
out:
    json_decref(bytes);
    json_decref(cross);
    return status;
}

static json_t *interval_object(const struct ep_place_interval *i)
{
    return json_pack("{s:o,s:o,s:o}", "value", ep_json_real(i->value), "low", ep_json_real(i->low),
                     "high", ep_json_real(i->high));
}

static enum ep_status set_differences(const struct ep_place_part *part, json_t *object)
{
    enum ep_status status;
    json_t *array = json_array();
    EP_TRY(ep_json_set(object, "difference", json_incref(array)));
    for (int k = 0; k < part->num_against; k++) {
        const struct ep_place_difference *d = &part->against[k].difference;
        EP_TRY(
            append(array, json_pack("{s:s,s:o,s:o,s:o}", "against", part->against[k].policy,
                                    "max_over_mean", interval_object(&d->max_over_mean),
                                    "remote_bytes_fraction", interval_object(&d->remote_rows),
                                    "cross_node_bytes_fraction", interval_object(&d->cross_rows))));
    }
out:
    json_decref(array);
    return status;
}

static enum ep_status set_times(const struct ep_place_case *run, const struct ep_place_part *part,
                                json_t *object)
{
    enum ep_status status;
    json_t *array = json_array();
    EP_TRY(ep_json_set(object, "predicted", json_incref(array)));
    for (int64_t g = 0; run->machine != NULL && g < run->machine->num_groups; g++) {
        const struct ep_place_time *t = &part->times[g];
        EP_TRY(append(array, json_pack("{s:s,s:s,s:s,s:s,s:o,s:o,s:o}", "group", t->group->name,
                                       "op", t->group->op, "transport", t->group->transport, "rung",
                                       t->group->rung->name, "time_s", ep_json_real(t->time_s),
                                       "withheld", text_or_null(t->withheld), "extrapolates",
                                       text_or_null(t->extrapolates))));
    }
out:
    json_decref(array);
    return status;
}

static json_t *dynamic_object(const struct ep_place_case *run, const struct ep_place_result *result,
                              const struct ep_place_dynamic *d)
{
    if (!result->policy->over_time) {
        return json_null();
    }
    return json_pack(
        "{s:s,s:I,s:I,s:I,s:f,s:I,s:I,s:I,s:o}", "policy", run->dynamic_policy->name, "windows",
        (json_int_t)d->num_windows, "window_tokens", (json_int_t)run->options.window_tokens,
        "every", (json_int_t)run->options.every, "hysteresis", run->options.hysteresis, "looks",
        (json_int_t)d->num_looks, "replaced", (json_int_t)d->num_replaced, "experts_moved",
        (json_int_t)d->experts_moved, "migration_bytes",
        run->expert_bytes > 0 ? json_integer(d->experts_moved * run->expert_bytes) : json_null());
}

static enum ep_status set_part(const struct ep_place_case *run,
                               const struct ep_place_result *result, const char *key,
                               const struct ep_place_part *part, json_t *entry)
{
    enum ep_status status;
    const struct ep_place_judgement *j = &part->judgement;
    json_t *object = NULL;
    if (j->num_blocks == 0) {
        return ep_json_set(entry, key, json_null());
    }
    object = json_object();
    EP_TRY(ep_json_set(entry, key, json_incref(object)));
    EP_TRY(ep_json_set(object, "tokens", json_integer(j->num_tokens)));
    EP_TRY(ep_json_set(object, "blocks", json_integer(j->num_blocks)));
    EP_TRY(set_loads(&run->shape, j->rank_load, j->node_load, object));
    EP_TRY(ep_json_set(object, "block_max_over_mean",
                       ep_json_real(ep_place_block_max_over_mean(j))));
    EP_TRY(
        ep_json_set(object, "rank_received", ep_json_i64_array(j->received, run->shape.num_ranks)));
    EP_TRY(set_bytes(j, run->row_bytes, object));
    EP_TRY(set_differences(part, object));
    EP_TRY(set_times(run, part, object));
    EP_TRY(ep_json_set(object, "dynamic", dynamic_object(run, result, &part->dynamic)));
out:
    json_decref(object);
    return status;
}

static enum ep_status add_result(const struct ep_place_case *run,
                                 const struct ep_place_result *result, json_t *placements)
{
    enum ep_status status;
    json_t *entry = json_object();
    EP_TRY(ep_json_set(entry, "policy", json_string(result->policy->name)));
    EP_TRY(ep_json_set(entry, "layer", json_integer(result->layer)));
    EP_TRY(ep_json_set(entry, "physical_to_logical", map_array(result->map, run->shape.num_slots)));
    EP_TRY(set_loads(&run->shape, result->rank_load, result->node_load, entry));
    EP_TRY(set_part(run, result, "fitted", &result->fitted, entry));
    EP_TRY(set_part(run, result, "held_out", &result->held_out, entry));
    EP_TRY(append(placements, json_incref(entry)));
out:
    json_decref(entry);
    return status;
}

static enum ep_status set_case(const struct ep_place_case *run, json_t *root)
{
    enum ep_status status;
    const struct ep_place_shape *s = &run->shape;
    const struct ep_place_source *source = &run->options.source;
    EP_TRY(ep_json_set(root, "schema", json_string("epbench-place-1")));
    EP_TRY(ep_json_set(root, "counts", text_or_null(source->counts)));
    EP_TRY(ep_json_set(root, "skew", text_or_null(source->skew)));
    EP_TRY(ep_json_set(root, "assignments", text_or_null(source->assignments)));
    EP_TRY(
        ep_json_set(root, "similarity", json_string(ep_place_similarity_name(source->similarity))));
    EP_TRY(ep_json_set(root, "drawn", json_boolean(run->input.drawn)));
    EP_TRY(ep_json_set(root, "experts", json_integer(s->num_experts)));
    EP_TRY(ep_json_set(root, "top_k", integer_or_null(run->input.top_k)));
    EP_TRY(ep_json_set(root, "ranks", json_integer(s->num_ranks)));
    EP_TRY(ep_json_set(root, "nodes", json_integer(s->num_nodes)));
    EP_TRY(ep_json_set(root, "ranks_per_node", json_integer(s->num_ranks / s->num_nodes)));
    EP_TRY(ep_json_set(root, "groups", json_integer(s->num_groups)));
    EP_TRY(ep_json_set(root, "replicas", json_integer(s->num_slots)));
    EP_TRY(ep_json_set(root, "seed", json_integer((json_int_t)source->seed)));
    EP_TRY(ep_json_set(root, "slack", ep_json_real(run->options.slack)));
    EP_TRY(ep_json_set(root, "split",
                       !run->input.has_tokens
                           ? json_null()
                           : json_string(source->split == EP_PLACE_BY_FIRST ? "first" : "blocks")));
    EP_TRY(ep_json_set(root, "row_bytes",
                       run->input.has_tokens ? json_integer(run->row_bytes) : json_null()));
    EP_TRY(ep_json_set(root, "expert_bytes", integer_or_null(run->expert_bytes)));
    EP_TRY(ep_json_set(root, "machine", text_or_null(run->options.machine)));
out:
    return status;
}

enum ep_status ep_place_case_save(const struct ep_place_case *run, const char *path)
{
    enum ep_status status;
    json_t *root = json_object();
    json_t *placements = json_array();
    json_t *warnings = json_array();
    EP_TRY(set_case(run, root));
    EP_TRY(ep_json_set(root, "placements", json_incref(placements)));
    EP_TRY(ep_json_set(root, "warnings", json_incref(warnings)));
    for (int64_t i = 0; i < run->num_results; i++) {
        EP_TRY(add_result(run, &run->results[i], placements));
    }
    for (int i = 0; i < run->num_warnings; i++) {
        EP_TRY(append(warnings, json_string(run->warnings[i])));
    }
    EP_TRY(ep_json_save(path, root));
out:
    json_decref(warnings);
    json_decref(placements);
    json_decref(root);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and JSON of one case of `epbench route`. */
#include "kernels/gate_source.h"
#include "kernels/route_capacity.h"
#include "kernels/route_case.h"

#include "base/json.h"
#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <unistd.h>

/* The matrices as tables and JSON call them. */
static const struct {
    const char *title;
    const char *key;
} matrices[EP_ROUTE_NUM_MATRICES] = {
    [EP_BASIS_COPIES] = {"copies", "copies"},
    [EP_BASIS_RANK] = {"rank-dedup", "rank_dedup"},
    [EP_BASIS_NODE] = {"node-dedup", "node_dedup"},
    [EP_ROUTE_FAN_OUT] = {"node-dedup, fan-out", "node_dedup_fan_out"},
};

static const struct {
    const char *title;
    const char *key;
} loads[EP_ROUTE_NUM_LOADS] = {
    [EP_ROUTE_EXPERT] = {"expert", "expert"},
    [EP_ROUTE_RANK] = {"rank", "rank"},
    [EP_ROUTE_NODE] = {"node", "node"},
};

void ep_route_show_progress(int64_t num_done, int64_t num_ranks)
{
    if (isatty(STDERR_FILENO) != 0 && num_done < num_ranks) {
        fprintf(stderr, "\rcounted %" PRId64 " %% of %" PRId64 " ranks", 100 * num_done / num_ranks,
                num_ranks);
    } else if (isatty(STDERR_FILENO) != 0) {
        fprintf(stderr, "\r\033[K");
    }
}

/* --- tables ------------------------------------------------------------------------------- */

static const char *id_of(const struct ep_route_case *r)
{
    return r->gate != NULL ? ep_gate_source_id(r->gate) : ep_router_id(r->router);
}

static void print_head(const struct ep_route_case *r, FILE *out)
{
    fprintf(out, "routing  %s%s%s: %" PRId64 " experts, top-%" PRId64, r->source,
            r->gate != NULL ? ", router " : "", r->gate != NULL ? ep_gate_source_name(r->gate) : "",
            r->num_experts, r->top_k);
    if (!r->from_file) {
        fprintf(out, ", seed %" PRIu64 ", id %s", r->seed, id_of(r));
    }
    fprintf(out, "\nranks    %" PRId64 " on %" PRId64 " node%s, ", r->num_ranks, r->num_nodes,
            r->num_nodes == 1 ? "" : "s");
    if (r->tokens_per_rank > 0) {
        fprintf(out, "%" PRId64 " tokens each, ", r->tokens_per_rank);
    }
    fprintf(out, "%" PRId64 " tokens\nrow      %" PRId64 " bytes", r->num_tokens, r->row_bytes);
    if (r->hidden > 0) {
        fprintf(out, " (%s, hidden %" PRId64 ")", ep_dtype_name(r->dtype), r->hidden);
    }
    fprintf(out, "\n\n");
}

static enum ep_status print_matrices(const struct ep_route_case *r, FILE *out)
{
    static const char *const headers[] = {"basis",        "rows",          "remote rows", "bytes",
                                          "remote bytes", "max out bytes", "max in bytes"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 7, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        const struct ep_traffic_totals *t = &r->rows[m];
        if (m == EP_ROUTE_FAN_OUT && r->num_nodes == 1) {
            continue;
        }
        ep_table_add(table, "%s", matrices[m].title);
        ep_table_add(table, "%" PRId64, t->total);
        ep_table_add(table, "%" PRId64, t->remote);
        ep_table_add(table, "%" PRId64, t->total * r->row_bytes);
        ep_table_add(table, "%" PRId64, t->remote * r->row_bytes);
        ep_table_add(table, "%" PRId64, t->max_out * r->row_bytes);
        ep_table_add(table, "%" PRId64, t->max_in * r->row_bytes);
    }
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    return status;
}

static void print_cost(const struct ep_route_case *r, FILE *out)
{
    char text[32];
    fprintf(out,
            "\nplain cost: %" PRId64 " local and %" PRId64 " remote (token, expert) pairs, %" PRId64
            " remote bytes",
            r->plain.local_tokens, r->plain.remote_tokens, r->plain.total_remote_bytes);
    if (isnan(r->plain.comm_time_ms)) {
        fprintf(out, " (no time: no --bandwidth)\n");
    } else {
        fprintf(out, ", %.4f ms at %s\n", r->plain.comm_time_ms,
                ep_format_bandwidth(r->bw_bytes_per_s, text, sizeof text));
    }
    fprintf(out,
            "textbook volumes: %" PRId64 " bytes (tokens x row x remote fraction), %" PRId64
            " bytes (tokens x row x 2)\n\n",
            r->textbook_fraction_bytes, r->textbook_twice_bytes);
}

static enum ep_status print_imbalance(const struct ep_route_case *r, FILE *out)
{
    static const char *const headers[] = {"copies per", "max",      "mean",
                                          "max/mean",   "mean/max", "(max-mean)/mean",
                                          "CV",         "Gini",     "(max+1)/(min+1)"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 9, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int l = 0; l < EP_ROUTE_NUM_LOADS; l++) {
        const struct ep_imbalance *m = &r->imbalance[l];
        ep_table_add(table, "%s", loads[l].title);
        ep_table_add(table, "%.0f", m->max);
        ep_table_add(table, "%.1f", m->mean);
        const double ratios[] = {m->max_over_mean, m->mean_over_max, m->excess, m->cv,
                                 m->gini,          m->max_over_min};
        for (int i = 0; i < 6; i++) { /* none where nothing was received */
            ep_table_add(table, isnan(ratios[i]) ? "-" : "%.3f", ratios[i]);
        }
    }
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    if (!isnan(r->hot_ratio)) {
        const char *ranks = r->skew->hot_ranks != NULL ? r->skew->hot_ranks : "0";
        const bool plural = strpbrk(ranks, "/-") != NULL;
        fprintf(out, "rank%s %s %s %.3f times the mean of the others (asked: %g)\n",
                plural ? "s" : "", ranks, plural ? "receive" : "receives", r->hot_ratio,
                r->skew->value);
    }
    return status;
}

static enum ep_status print_fan_out(const struct ep_route_case *r, FILE *out)
{
    static const char *const headers[] = {"destinations", "tokens by ranks", "tokens by nodes"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 3, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t n = 0; n <= r->input.top_k; n++) {
        if (r->sums.rank_fan_out[n] > 0 || r->sums.node_fan_out[n] > 0) {
            ep_table_add(table, "%" PRId64, n);
            ep_table_add(table, "%" PRId64, r->sums.rank_fan_out[n]);
            ep_table_add(table, "%" PRId64, r->sums.node_fan_out[n]);
        }
    }
    fprintf(out, "\n");
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    fprintf(out, "fan-out%s: %.3f ranks and %.3f nodes per token",
            r->fan_out_sampled ? " (sampled, not recorded)" : "", r->mean_fan_out[0],
            r->mean_fan_out[1]);
    if (!isnan(r->expected_fan_out[0])) {
        fprintf(out, "; uniform routing would have %.3f and %.3f", r->expected_fan_out[0],
                r->expected_fan_out[1]);
    }
    fprintf(out, "\n");
    return status;
}

enum ep_status ep_route_case_print(const struct ep_route_case *route, FILE *out)
{
    enum ep_status status;
    print_head(route, out);
    EP_TRY(print_matrices(route, out));
    print_cost(route, out);
    EP_TRY(print_imbalance(route, out));
    EP_TRY(print_fan_out(route, out));
    EP_TRY(ep_route_capacity_print(route, out));
out:
    return status;
}

/* --- JSON --------------------------------------------------------------------------------- */

static json_t *integer_or_null(int64_t value)
{
    return value > 0 ? json_integer(value) : json_null();
}

static json_t *count_tokens(const struct ep_token_map *tokens)
{
    json_t *all = json_array();
    for (int64_t i = 0; i < tokens->num_ranks; i++) {
        if (json_array_append_new(all, json_integer(ep_token_map_count(tokens, i))) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static enum ep_status set_case(const struct ep_route_case *r, json_t *root)
{
    enum ep_status status;
    EP_TRY(ep_json_set(root, "skew", r->from_file ? json_null() : json_string(r->source)));
    EP_TRY(ep_json_set(root, "router",
                       r->gate != NULL ? json_string(ep_gate_source_name(r->gate)) : json_null()));
    EP_TRY(ep_json_set(root, "assignments", r->from_file ? json_string(r->source) : json_null()));
    EP_TRY(ep_json_set(root, "routing_id", r->from_file ? json_null() : json_string(id_of(r))));
    EP_TRY(
        ep_json_set(root, "seed", r->from_file ? json_null() : json_integer((json_int_t)r->seed)));
    EP_TRY(ep_json_set(root, "fan_out_sampled", json_boolean(r->fan_out_sampled)));
    EP_TRY(ep_json_set(root, "experts", json_integer(r->num_experts)));
    EP_TRY(ep_json_set(root, "top_k", json_integer(r->top_k)));
    EP_TRY(ep_json_set(root, "ranks", json_integer(r->num_ranks)));
    EP_TRY(ep_json_set(root, "nodes", json_integer(r->num_nodes)));
    EP_TRY(ep_json_set(root, "ranks_per_node", json_integer(r->num_ranks / r->num_nodes)));
    EP_TRY(ep_json_set(root, "tokens", integer_or_null(r->tokens_per_rank)));
    EP_TRY(ep_json_set(root, "tokens_per_rank", count_tokens(&r->tokens)));
    EP_TRY(ep_json_set(root, "tokens_total", json_integer(r->num_tokens)));
    EP_TRY(ep_json_set(root, "hidden", integer_or_null(r->hidden)));
    EP_TRY(ep_json_set(root, "dtype",
                       r->hidden > 0 ? json_string(ep_dtype_name(r->dtype)) : json_null()));
    EP_TRY(ep_json_set(root, "row_bytes", json_integer(r->row_bytes)));
out:
    return status;
}

static enum ep_status set_cost(const struct ep_route_case *r, json_t *root)
{
    enum ep_status status;
    EP_TRY(ep_json_set(root, "local_tokens", json_integer(r->plain.local_tokens)));
    EP_TRY(ep_json_set(root, "remote_tokens", json_integer(r->plain.remote_tokens)));
    EP_TRY(ep_json_set(root, "total_remote_bytes", json_integer(r->plain.total_remote_bytes)));
    EP_TRY(ep_json_set(root, "comm_time_ms", ep_json_real(r->plain.comm_time_ms)));
    EP_TRY(ep_json_set(root, "bw_bytes_per_s", ep_json_real(r->bw_bytes_per_s)));
    EP_TRY(ep_json_set(root, "textbook_fraction_bytes", json_integer(r->textbook_fraction_bytes)));
    EP_TRY(ep_json_set(root, "textbook_twice_bytes", json_integer(r->textbook_twice_bytes)));
out:
    return status;
}

/* One object per matrix, its numbers multiplied by `unit` (1 = rows). */
static enum ep_status set_matrices(const struct ep_route_case *r, const char *key, int64_t unit,
                                   json_t *root)
{
    enum ep_status status;
    json_t *all = json_object();
    EP_TRY(ep_json_set(root, key, all));
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        const struct ep_traffic_totals *t = &r->rows[m];
        json_t *one = json_object();
        EP_TRY(ep_json_set(all, matrices[m].key, one));
        EP_TRY(ep_json_set(one, "total", json_integer(t->total * unit)));
        EP_TRY(ep_json_set(one, "remote", json_integer(t->remote * unit)));
        EP_TRY(ep_json_set(one, "max_out", json_integer(t->max_out * unit)));
        EP_TRY(ep_json_set(one, "max_in", json_integer(t->max_in * unit)));
    }
out:
    return status;
}

static enum ep_status set_imbalance(const struct ep_route_case *r, json_t *root)
{
    enum ep_status status;
    json_t *all = json_object();
    EP_TRY(ep_json_set(root, "imbalance", all));
    for (int l = 0; l < EP_ROUTE_NUM_LOADS; l++) {
        const struct ep_imbalance *m = &r->imbalance[l];
        json_t *one = json_object();
        EP_TRY(ep_json_set(all, loads[l].key, one));
        EP_TRY(ep_json_set(one, "max", ep_json_real(m->max)));
        EP_TRY(ep_json_set(one, "mean", ep_json_real(m->mean)));
        EP_TRY(ep_json_set(one, "max_over_mean", ep_json_real(m->max_over_mean)));
        EP_TRY(ep_json_set(one, "mean_over_max", ep_json_real(m->mean_over_max)));
        EP_TRY(ep_json_set(one, "excess_over_mean", ep_json_real(m->excess)));
        EP_TRY(ep_json_set(one, "cv", ep_json_real(m->cv)));
        EP_TRY(ep_json_set(one, "gini", ep_json_real(m->gini)));
        EP_TRY(ep_json_set(one, "min", ep_json_real(m->min)));
        EP_TRY(ep_json_set(one, "max_plus_1_over_min_plus_1", ep_json_real(m->max_over_min)));
    }
    EP_TRY(ep_json_set(root, "hot_ratio", ep_json_real(r->hot_ratio)));
out:
    return status;
}

static enum ep_status set_fan_out(const struct ep_route_case *r, json_t *root)
{
    static const char *const keys[] = {"rank", "node"};
    const int64_t *const counts[] = {r->sums.rank_fan_out, r->sums.node_fan_out};
    enum ep_status status;
    json_t *all = json_object();
    EP_TRY(ep_json_set(root, "fan_out", all));
    for (int i = 0; i < 2; i++) {
        json_t *one = json_object();
        EP_TRY(ep_json_set(all, keys[i], one));
        EP_TRY(ep_json_set(one, "tokens", ep_json_i64_array(counts[i], r->input.top_k + 1)));
        EP_TRY(ep_json_set(one, "mean", ep_json_real(r->mean_fan_out[i])));
        EP_TRY(ep_json_set(one, "mean_if_uniform", ep_json_real(r->expected_fan_out[i])));
    }
out:
    return status;
}

static enum ep_status set_warnings(const struct ep_route_case *r, json_t *root)
{
    enum ep_status status;
    json_t *all = json_array();
    EP_TRY(ep_json_set(root, "warnings", all));
    for (int i = 0; i < r->num_warnings; i++) {
        if (json_array_append_new(all, json_string(r->warnings[i])) != 0) {
            status = ep_error_set(EP_ENOMEM, "no memory for JSON");
            goto out;
        }
    }
out:
    return status;
}

enum ep_status ep_route_case_to_json(const struct ep_route_case *route, json_t **json)
{
    enum ep_status status;
    json_t *root = json_object();
    if (root == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    EP_TRY(ep_json_set(root, "schema", json_string("epbench-route-1")));
    EP_TRY(set_case(route, root));
    EP_TRY(set_cost(route, root));
    EP_TRY(set_matrices(route, "rows", 1, root));
    EP_TRY(set_matrices(route, "bytes", route->row_bytes, root));
    EP_TRY(set_imbalance(route, root));
    EP_TRY(set_fan_out(route, root));
    EP_TRY(ep_json_set(root, "expert_copies",
                       ep_json_i64_array(route->sums.expert_copies, route->num_experts)));
    EP_TRY(ep_route_capacity_set(route, root));
    EP_TRY(set_warnings(route, root));
    *json = root;
    return EP_OK;
out:
    json_decref(root);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The mode `epbench route --compare`: options, tables and JSON. */
#include "base/json.h"
#include "base/table.h"
#include "base/units.h"
#include "kernels/route_compare.h"
#include "kernels/route_mode.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_COMPARE = 5200, KEY_LOGITS, KEY_LOSSES, KEY_ROUTERS };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Routers compared on the same logits:", 8},
    {"compare", KEY_COMPARE, "NAME,...", 0,
     "top1, top2, softmax, sigmoid-group, expert-choice, model, ...: copies, bytes, balance, "
     "dropped and capacity of each; --skew is then the popularity of the experts",
     8},
    {"logits", KEY_LOGITS, "FILE", 0,
     "with --compare: logits from .npy [tokens][experts] or CSV e0,e1,...", 8},
    {"losses", KEY_LOSSES, NULL, 0,
     "with --compare: the balancing losses of each framework, and z-loss, of each router's choices",
     8},
    {"list-routers", KEY_ROUTERS, NULL, 0, "list the routers and where they come from", 8},
    {0}};

struct input {
    struct ep_compare_options compare;
    bool lists;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct input *input = state->input;
    switch (key) {
    case KEY_COMPARE:
        input->compare.routers = arg;
        return 0;
    case KEY_LOGITS:
        input->compare.logits = arg;
        return 0;
    case KEY_LOSSES:
        input->compare.losses = true;
        return 0;
    case KEY_ROUTERS:
        input->lists = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {.options = options, .parser = parse};

static bool asked(const void *given)
{
    const struct input *input = given;
    return input->compare.routers != NULL || input->compare.logits != NULL ||
           input->compare.losses || input->lists;
}

/* --- text ------------------------------------------------------------------------------------ */

static enum ep_status print_routers(FILE *out)
{
    static const char *const headers[] = {"router", "what", "source"};
    const char *usage = NULL, *summary = NULL, *source = NULL;
    struct ep_table *table = NULL;
    enum ep_status status;
    EP_TRY(ep_table_create(headers, 3, &table));
    for (int i = 0; ep_gate_describe(i, &usage, &summary, &source); i++) {
        ep_table_add(table, "%s", usage);
        ep_table_add(table, "%s", summary);
        ep_table_add(table, "%s", source);
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

static void print_head(const struct ep_compare *c, FILE *out)
{
    char row[32], policy[320];
    fprintf(out,
            "logits   %s%s, seed %" PRIu64 "\nshape    %" PRId64 " experts, %" PRId64
            " ranks on %" PRId64 " node%s\ntokens   %" PRId64 ", at most %" PRId64
            " per rank, rows of %s\ncapacity %s\n\n",
            c->from_file ? "" : "Gumbel, popularity ", c->source, c->seed, c->num_experts,
            c->num_ranks, c->num_nodes, c->num_nodes == 1 ? "" : "s", c->num_tokens, c->tokens_per_rank,
            ep_format_bytes((double)c->row_bytes, row, sizeof row),
            ep_capacity_is_set(&c->policy) ? ep_capacity_describe(&c->policy, policy, sizeof policy)
                                           : "none");
}

static enum ep_status print_traffic(const struct ep_compare *c, FILE *out)
{
    static const char *const headers[] = {
        "router",      "k",          "copies",     "dropped",         "needed",        "capacity",
        "copies sent", "rank-dedup", "node-dedup", "expert max/mean", "rank max/mean", "kernels"};
    struct ep_table *table = NULL;
    enum ep_status status;
    EP_TRY(ep_table_create(headers, sizeof headers / sizeof *headers, &table));
    for (int64_t i = 0; i < c->num_rows; i++) {
        const struct ep_compare_row *r = &c->rows[i];
        ep_table_add(table, "%s", r->text);
        ep_table_add(table, "%" PRId64, r->config.top_k);
        ep_table_add(table, "%" PRId64, r->counts.asked);
        ep_table_add(table, "%" PRId64, r->counts.dropped);
        ep_table_add(table, "%" PRId64, r->needed_rows);
        if (ep_capacity_is_set(&c->policy)) {
            ep_table_add(table, "%" PRId64, r->capacity.rows);
        } else {
            ep_table_add(table, "-");
        }
        for (int m = 0; m < EP_NUM_BASES; m++) {
            char bytes[32];
            ep_table_add(table, "%s",
                         ep_format_bytes((double)r->rows[m].remote * (double)c->row_bytes, bytes,
                                         sizeof bytes));
        }
        const double uneven[] = {r->expert.max_over_mean, r->rank.max_over_mean};
        for (int j = 0; j < 2; j++) { /* none where every copy was dropped */
            ep_table_add(table, isnan(uneven[j]) ? "-" : "%.3f", uneven[j]);
        }
        ep_table_add(table, "%s", r->isa);
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

/* Tokens by number of experts where they differ; up to the last number that occurs. */
static void print_choices(const struct ep_compare_row *r, FILE *out)
{
    int64_t last = 0, kinds = 0;
    for (int64_t n = 0; n < r->num_choices; n++) {
        last = r->choices[n] > 0 ? n : last;
        kinds += r->choices[n] > 0;
    }
    if (kinds < 2) {
        return;
    }
    fprintf(out,
            "\n%s: %" PRId64 " tokens with no expert, %.3f experts on average\n  experts:tokens",
            r->text, ep_compare_tokens_without(r), ep_compare_mean_choices(r));
    for (int64_t n = 0; n <= last; n++) {
        if (r->choices[n] > 0) {
            fprintf(out, " %" PRId64 ":%" PRId64, n, r->choices[n]);
        }
    }
    fprintf(out, "\n");
}

static void add_loss(struct ep_table *table, const struct ep_compare_row *r, double value)
{
    ep_table_add(table, r->has_losses && !isnan(value) ? "%.4f" : "-", value);
}

/* A line per loss, a column per router. */
static enum ep_status print_losses(const struct ep_compare *c, FILE *out)
{
    enum ep_status status;
    struct ep_table *table = NULL;
    const char **headers = calloc((size_t)c->num_rows + 2, sizeof *headers);
    if (headers == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    headers[0] = "loss, weight 1";
    for (int64_t i = 0; i < c->num_rows; i++) {
        headers[i + 1] = c->rows[i].text;
    }
    headers[c->num_rows + 1] = "formula";
    EP_TRY(ep_table_create(headers, (int)c->num_rows + 2, &table));
    for (int l = 0; ep_losses[l].name != NULL; l++) {
        ep_table_add(table, "%s%s", ep_losses[l].name, ep_losses[l].recalled ? " (recalled)" : "");
        for (int64_t i = 0; i < c->num_rows; i++) {
            add_loss(table, &c->rows[i], c->rows[i].losses.values[l]);
        }
        ep_table_add(table, "%s", ep_losses[l].formula);
    }
    ep_table_add(table, "z-loss");
    for (int64_t i = 0; i < c->num_rows; i++) {
        add_loss(table, &c->rows[i], c->rows[i].losses.z_loss);
    }
    ep_table_add(table, "mean of logsumexp^2");
    fprintf(out, "\n");
    EP_TRY(ep_table_print(table, out));
    fprintf(out, "Losses: means over ranks, each rank's tokens being its batch and one sequence, "
                 "before any capacity.\n");
out:
    ep_table_destroy(table);
    free(headers);
    return status;
}

static bool has_unequal_top_k(const struct ep_compare *c)
{
    bool unequal = false;
    for (int64_t i = 1; i < c->num_rows; i++) {
        unequal = unequal || c->rows[i].config.top_k != c->rows[0].config.top_k;
    }
    return unequal;
}

static enum ep_status print_compare(const struct ep_compare *c, FILE *out)
{
    print_head(c, out);
    enum ep_status status = print_traffic(c, out);
    for (int64_t i = 0; status == EP_OK && i < c->num_rows; i++) {
        print_choices(&c->rows[i], out);
    }
    if (status == EP_OK) {
        fprintf(out,
                "\nBytes are remote ones, dispatch only. Needed: most copies of one expert from "
                "one rank; capacity: rows that an expert takes.\n");
        if (has_unequal_top_k(c)) {
            fprintf(out, "Routers of unequal k send unequal numbers of copies.\n");
        }
        status = c->with_losses ? print_losses(c, out) : EP_OK;
    }
    return status;
}

/* --- JSON ------------------------------------------------------------------------------------ */

static enum ep_status set_totals(json_t *object, const char *key, const struct ep_traffic_totals *t,
                                 int64_t factor)
{
    json_t *totals = json_object();
    enum ep_status status;
    EP_TRY(ep_json_set(totals, "total", json_integer(t->total * factor)));
    EP_TRY(ep_json_set(totals, "remote", json_integer(t->remote * factor)));
    EP_TRY(ep_json_set(totals, "max_out", json_integer(t->max_out * factor)));
    EP_TRY(ep_json_set(totals, "max_in", json_integer(t->max_in * factor)));
    EP_TRY(ep_json_set(object, key, json_incref(totals)));
out:
    json_decref(totals);
    return status;
}

static enum ep_status set_matrices(json_t *object, const char *key, const struct ep_compare_row *r,
                                   int64_t factor)
{
    static const char *const names[EP_ROUTE_NUM_MATRICES] = {"copies", "rank_dedup", "node_dedup",
                                                             "node_dedup_fan_out"};
    json_t *all = json_object();
    enum ep_status status = EP_OK;
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        EP_TRY(set_totals(all, names[m], &r->rows[m], factor));
    }
    EP_TRY(ep_json_set(object, key, json_incref(all)));
out:
    json_decref(all);
    return status;
}

static enum ep_status set_imbalance(json_t *object, const char *key, const struct ep_imbalance *i)
{
    json_t *all = json_object();
    enum ep_status status;
    EP_TRY(ep_json_set(all, "max", ep_json_real(i->max)));
    EP_TRY(ep_json_set(all, "mean", ep_json_real(i->mean)));
    EP_TRY(ep_json_set(all, "max_over_mean", ep_json_real(i->max_over_mean)));
    EP_TRY(ep_json_set(all, "cv", ep_json_real(i->cv)));
    EP_TRY(ep_json_set(all, "gini", ep_json_real(i->gini)));
    EP_TRY(ep_json_set(object, key, json_incref(all)));
out:
    json_decref(all);
    return status;
}

/* Null for a router without, and for a loss that does not apply. */
static enum ep_status set_losses(json_t *object, const struct ep_compare_row *r)
{
    enum ep_status status = EP_OK;
    if (!r->has_losses) {
        return ep_json_set(object, "losses", json_null());
    }
    json_t *losses = json_object();
    for (int l = 0; ep_losses[l].name != NULL; l++) {
        EP_TRY(ep_json_set(losses, ep_losses[l].name, ep_json_real(r->losses.values[l])));
    }
    EP_TRY(ep_json_set(losses, "z-loss", ep_json_real(r->losses.z_loss)));
    EP_TRY(ep_json_set(object, "losses", json_incref(losses)));
out:
    json_decref(losses);
    return status;
}

static enum ep_status set_router(const struct ep_compare *c, const struct ep_compare_row *r,
                                 json_t *object)
{
    enum ep_status status;
    const bool bounded = ep_capacity_is_set(&c->policy);
    EP_TRY(ep_json_set(object, "router", json_string(r->text)));
    EP_TRY(ep_json_set(object, "policy", json_string(ep_gate_name(&r->config))));
    EP_TRY(ep_json_set(object, "top_k", json_integer(r->config.top_k)));
    EP_TRY(ep_json_set(object, "isa", json_string(r->isa)));
    EP_TRY(ep_json_set(object, "copies", json_integer(r->counts.asked)));
    EP_TRY(ep_json_set(object, "dropped", json_integer(r->counts.dropped)));
    EP_TRY(ep_json_set(object, "needed_rows", json_integer(r->needed_rows)));
    EP_TRY(ep_json_set(object, "capacity_rows",
                       bounded ? json_integer(r->capacity.rows) : json_null()));
    EP_TRY(set_matrices(object, "rows", r, 1));
    EP_TRY(set_matrices(object, "bytes", r, c->row_bytes));
    EP_TRY(set_imbalance(object, "expert_imbalance", &r->expert));
    EP_TRY(set_imbalance(object, "rank_imbalance", &r->rank));
    EP_TRY(
        ep_json_set(object, "tokens_without_expert", json_integer(ep_compare_tokens_without(r))));
    EP_TRY(set_losses(object, r));
    EP_TRY(ep_json_set(object, "mean_experts_per_token", ep_json_real(ep_compare_mean_choices(r))));
    EP_TRY(ep_json_set(object, "experts_per_token", ep_json_i64_array(r->choices, r->num_choices)));
out:
    return status;
}

static enum ep_status save(const struct ep_compare *c, const char *path)
{
    enum ep_status status;
    char text[320];
    json_t *root = json_object();
    json_t *routers = json_array();
    EP_TRY(ep_json_set(root, "logits", json_string(c->source)));
    EP_TRY(ep_json_set(root, "seed", json_integer((json_int_t)c->seed)));
    EP_TRY(ep_json_set(root, "experts", json_integer(c->num_experts)));
    EP_TRY(ep_json_set(root, "ranks", json_integer(c->num_ranks)));
    EP_TRY(ep_json_set(root, "nodes", json_integer(c->num_nodes)));
    EP_TRY(ep_json_set(root, "tokens_total", json_integer(c->num_tokens)));
    EP_TRY(ep_json_set(root, "row_bytes", json_integer(c->row_bytes)));
    EP_TRY(ep_json_set(root, "capacity",
                       ep_capacity_is_set(&c->policy)
                           ? json_string(ep_capacity_describe(&c->policy, text, sizeof text))
                           : json_null()));
    for (int64_t i = 0; i < c->num_rows; i++) {
        json_t *object = json_object();
        if (json_array_append_new(routers, object) != 0) {
            status = ep_error_set(EP_ENOMEM, "no memory for JSON");
            goto out;
        }
        EP_TRY(set_router(c, &c->rows[i], object));
    }
    EP_TRY(ep_json_set(root, "routers", json_incref(routers)));
    EP_TRY(ep_json_save(path, root));
out:
    json_decref(routers);
    json_decref(root);
    return status;
}

/* --- the mode -------------------------------------------------------------------------------- */

static enum ep_status run(const struct ep_route_options *shared, const void *given)
{
    const struct input *input = given;
    enum ep_status status;
    struct ep_compare *compare = NULL;
    if (input->lists) {
        return print_routers(stdout);
    }
    if (input->compare.routers == NULL) {
        return ep_error_set(EP_EINVAL, "%s is for --compare",
                            input->compare.losses ? "--losses" : "--logits");
    }
    if (shared->capacity.router != NULL) {
        return ep_error_set(EP_EINVAL, "--router does not apply to --compare, which names routers");
    }
    EP_TRY(ep_compare_create(shared, &input->compare, &compare));
    for (int64_t i = 0; i < compare->num_rows; i++) {
        if (compare->rows[i].is_assumed) {
            fprintf(stderr, "epbench route: warning: the model's router is not known; %s assumed\n",
                    ep_gate_name(&compare->rows[i].config));
        }
    }
    if (shared->json_path != NULL) {
        EP_TRY(save(compare, shared->json_path));
    }
    if (shared->json_path == NULL || strcmp(shared->json_path, "-") != 0) {
        EP_TRY(print_compare(compare, stdout));
    }
out:
    ep_compare_destroy(compare);
    return status;
}

const struct ep_route_mode ep_route_mode_compare = {
    .name = "--compare",
    .uses = EP_ROUTE_BIT(EP_ROUTE_SKEW) | EP_ROUTE_BIT(EP_ROUTE_MODEL) |
            EP_ROUTE_BIT(EP_ROUTE_MODEL_FILE) | EP_ROUTE_BIT(EP_ROUTE_EXPERTS) |
            EP_ROUTE_BIT(EP_ROUTE_TOP_K) | EP_ROUTE_BIT(EP_ROUTE_TOKENS) |
            EP_ROUTE_BIT(EP_ROUTE_SEED) | EP_ROUTE_BIT(EP_ROUTE_RANKS) |
            EP_ROUTE_BIT(EP_ROUTE_RANKS_PER_NODE) | EP_ROUTE_BIT(EP_ROUTE_NODES) |
            EP_ROUTE_BIT(EP_ROUTE_HIDDEN) | EP_ROUTE_BIT(EP_ROUTE_DTYPE) |
            EP_ROUTE_BIT(EP_ROUTE_TOKEN_BYTES) | EP_ROUTE_BIT(EP_ROUTE_JSON) |
            EP_ROUTE_BIT(EP_ROUTE_CAPACITY),
    .argp = &argp,
    .options_size = sizeof(struct input),
    .asked = asked,
    .run = run,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench route --by-domain`: how a real model's load moves with the domain of the text. */
#include "base/file.h"
#include "base/table.h"
#include "kernels/domains.h"
#include "kernels/route_mode.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BY_DOMAIN = 1, TABLE_LIMIT_BYTES = 1 << 26, MOST_LAYERS = 4096 };

struct input {
    bool asked;
    const char *file; /* NULL = the counts built in */
};

/* What is shown: layers of models, in the order of the file. */
struct request {
    const struct ep_route_options *options;
    struct ep_counts *counts;
    struct ep_domains *layers; /* [num] */
    int64_t num;
    int64_t num_ranks; /* 0 = not given: experts only */
    int64_t num_nodes;
};

/* --- what is measured ------------------------------------------------------------------------ */

static enum ep_status load_counts(const char *path, struct ep_counts **counts)
{
    char *text = NULL;
    size_t length = 0;
    if (path == NULL) {
        return ep_counts_create(counts);
    }
    enum ep_status status = ep_file_read(path, TABLE_LIMIT_BYTES, &text, &length);
    if (status == EP_OK) {
        status = ep_counts_create_from_text(path, text, length, counts);
    }
    free(text);
    return status;
}

static enum ep_status add_layer(struct request *r, int64_t model, int64_t layer)
{
    enum ep_status status;
    struct ep_placement placement = {0};
    const int64_t num_ranks = r->num_ranks > 0 ? r->num_ranks : 1;
    struct ep_domains *larger = realloc(r->layers, (size_t)(r->num + 1) * sizeof *larger);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for loads by domain");
    }
    r->layers = larger;
    EP_TRY(ep_placement_init_contiguous(r->counts->models[model].num_experts, num_ranks,
                                        &placement));
    EP_TRY(ep_domains_measure(r->counts, model, layer, &placement, r->num_nodes,
                              &r->layers[r->num]));
    r->num++;
out:
    ep_placement_fini(&placement);
    return status;
}

static bool is_measured(const struct request *r, const struct ep_counts_cell *cell)
{
    for (int64_t i = 0; i < r->num; i++) {
        if (r->layers[i].model == &r->counts->models[cell->model] &&
            r->layers[i].layer == cell->layer) {
            return true;
        }
    }
    return false;
}

static bool is_wanted(const struct request *r, const struct ep_counts_cell *cell)
{
    const struct ep_route_options *o = r->options;
    return (o->model == NULL || strcmp(o->model, r->counts->models[cell->model].name) == 0) &&
           (o->layer < 0 || o->layer == cell->layer);
}

static enum ep_status refuse(const struct request *r)
{
    char list[300] = "";
    size_t used = 0;
    const struct ep_counts *c = r->counts;
    for (int64_t m = 0; m < c->num_models && used < sizeof list; m++) {
        const int put = snprintf(list + used, sizeof list - used, "%s%s", m > 0 ? ", " : "",
                                 c->models[m].name);
        used += put > 0 ? (size_t)put : 0;
    }
    if (r->options->layer < 0) {
        return ep_error_set(EP_EINVAL, "--by-domain: no counts of model '%s'; %s are there",
                            r->options->model, list);
    }
    return ep_error_set(EP_EINVAL, "--by-domain: no counts of layer %" PRId64 " of %s; layers of "
                        "%s are shown without --layer", r->options->layer,
                        r->options->model != NULL ? r->options->model : "any model", list);
}

static enum ep_status measure(struct request *r)
{
    enum ep_status status = EP_OK;
    const struct ep_counts *c = r->counts;
    for (int64_t i = 0; i < c->num_cells; i++) {
        if (is_wanted(r, &c->cells[i]) && !is_measured(r, &c->cells[i])) {
            if (r->num == MOST_LAYERS) {
                status = ep_error_set(EP_EINVAL, "--by-domain: more than %d layers; choose one "
                                      "with --layer", MOST_LAYERS);
                goto out;
            }
            EP_TRY(add_layer(r, c->cells[i].model, c->cells[i].layer));
        }
    }
    if (r->num == 0) {
        status = refuse(r);
    }
out:
    return status;
}

/* --- tables ---------------------------------------------------------------------------------- */

static enum ep_status print_loads(const struct request *r, const struct ep_domains *d)
{
    static const char *const headers[] = {
        "domain", "tokens", "max/mean", "CV", "Gini", "rank max/mean", "node max/mean",
        "from mean", "hottest experts (share of tokens)"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, sizeof headers / sizeof headers[0], &table);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i <= d->num_domains; i++) {
        const struct ep_domain_load *load = &d->loads[i];
        char hottest[96] = "";
        size_t used = 0;
        for (int h = 0; h < EP_DOMAINS_HOTTEST && load->hottest[h] >= 0; h++) {
            const double share = load->share[load->hottest[h]] * (double)d->model->top_k;
            const int put = snprintf(hottest + used, sizeof hottest - used, "%s%" PRId32
                                     " (%.1f %%)", h > 0 ? ", " : "", load->hottest[h],
                                     100 * share);
            used += put > 0 ? (size_t)put : 0;
        }
        ep_table_add(table, "%s", load->name);
        ep_table_add(table, isnan(load->tokens) ? "-" : "%.0f", load->tokens);
        ep_table_add(table, "%.3f", load->expert.max_over_mean);
        ep_table_add(table, "%.3f", load->expert.cv);
        ep_table_add(table, "%.3f", load->expert.gini);
        ep_table_add(table, r->num_ranks > 0 ? "%.3f" : "-", load->rank.max_over_mean);
        ep_table_add(table, r->num_ranks > 0 ? "%.3f" : "-", load->node.max_over_mean);
        ep_table_add(table, "%.3f", load->distance_to_mean);
        ep_table_add(table, "%s", hottest);
    }
    status = ep_table_print(table, stdout);
    ep_table_destroy(table);
    return status;
}

static enum ep_status print_distances(const struct ep_domains *d)
{
    const int64_t num = d->num_domains;
    struct ep_table *table = NULL;
    enum ep_status status;
    const char **headers = calloc((size_t)num + 1, sizeof *headers);
    if (headers == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    headers[0] = "total variation";
    for (int64_t i = 0; i < num; i++) {
        headers[i + 1] = d->loads[i].name;
    }
    EP_TRY(ep_table_create(headers, (int)num + 1, &table));
    for (int64_t i = 0; i < num; i++) {
        ep_table_add(table, "%s", d->loads[i].name);
        for (int64_t j = 0; j < num; j++) {
            ep_table_add(table, "%.3f", d->total_variation[i * num + j]);
        }
    }
    EP_TRY(ep_table_print(table, stdout));
out:
    ep_table_destroy(table);
    free(headers);
    return status;
}

static enum ep_status print_all(const struct request *r)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < r->num; i++) {
        const struct ep_domains *d = &r->layers[i];
        printf("%s%s, layer %" PRId64 ": %" PRId64 " experts, top-%" PRId64, i > 0 ? "\n" : "",
               d->model->name, d->layer, d->model->num_experts, d->model->top_k);
        if (r->num_ranks > 0) {
            printf(", on %" PRId64 " ranks of %" PRId64 " node%s", r->num_ranks, r->num_nodes,
                   r->num_nodes == 1 ? "" : "s");
        }
        printf("\n\n");
        EP_TRY(print_loads(r, d));
        printf("\n");
        EP_TRY(print_distances(d));
        printf("by chance alone, were copies independent: %.4f\n", d->by_chance);
    }
out:
    return status;
}

/* --- JSON ------------------------------------------------------------------------------------ */

static enum ep_status set_imbalance(const char *key, const struct ep_imbalance *m, json_t *root)
{
    enum ep_status status;
    json_t *one = json_object();
    EP_TRY(ep_json_set(root, key, one));
    EP_TRY(ep_json_set(one, "max_over_mean", ep_json_real(m->max_over_mean)));
    EP_TRY(ep_json_set(one, "mean_over_max", ep_json_real(m->mean_over_max)));
    EP_TRY(ep_json_set(one, "excess_over_mean", ep_json_real(m->excess)));
    EP_TRY(ep_json_set(one, "cv", ep_json_real(m->cv)));
    EP_TRY(ep_json_set(one, "gini", ep_json_real(m->gini)));
out:
    return status;
}

/* A new element of an array. */
static enum ep_status append_object(json_t *array, json_t **object)
{
    *object = json_object();
    return json_array_append_new(array, *object) == 0
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for JSON");
}

static enum ep_status set_load(const struct request *r, const struct ep_domains *d,
                               const struct ep_domain_load *load, json_t *loads)
{
    enum ep_status status;
    json_t *one = NULL;
    json_t *hottest = json_array();
    EP_TRY(append_object(loads, &one));
    EP_TRY(ep_json_set(one, "hottest_experts", hottest));
    EP_TRY(ep_json_set(one, "domain", json_string(load->name)));
    EP_TRY(ep_json_set(one, "tokens", ep_json_real(load->tokens)));
    EP_TRY(set_imbalance("expert", &load->expert, one));
    if (r->num_ranks > 0) {
        EP_TRY(set_imbalance("rank", &load->rank, one));
        EP_TRY(set_imbalance("node", &load->node, one));
    }
    EP_TRY(ep_json_set(one, "total_variation_to_mean", ep_json_real(load->distance_to_mean)));
    EP_TRY(ep_json_set(one, "expert_share", ep_json_real_array(load->share,
                                                               d->model->num_experts)));
    for (int h = 0; h < EP_DOMAINS_HOTTEST && load->hottest[h] >= 0; h++) {
        json_t *expert = NULL;
        const double share = load->share[load->hottest[h]];
        EP_TRY(append_object(hottest, &expert));
        EP_TRY(ep_json_set(expert, "expert", json_integer(load->hottest[h])));
        EP_TRY(ep_json_set(expert, "copy_share", ep_json_real(share)));
        EP_TRY(ep_json_set(expert, "token_share", ep_json_real(share * (double)d->model->top_k)));
    }
out:
    return status;
}

static enum ep_status set_matrix(const char *key, const double *values, int64_t num, json_t *root)
{
    enum ep_status status;
    json_t *rows = json_array();
    EP_TRY(ep_json_set(root, key, rows));
    for (int64_t i = 0; i < num; i++) {
        if (json_array_append_new(rows, ep_json_real_array(values + i * num, num)) != 0) {
            status = ep_error_set(EP_ENOMEM, "no memory for JSON");
            goto out;
        }
    }
out:
    return status;
}

static enum ep_status set_layer(const struct request *r, const struct ep_domains *d, json_t *layers)
{
    enum ep_status status;
    json_t *one = NULL;
    json_t *loads = json_array();
    EP_TRY(append_object(layers, &one));
    EP_TRY(ep_json_set(one, "domains", loads));
    EP_TRY(ep_json_set(one, "model", json_string(d->model->name)));
    EP_TRY(ep_json_set(one, "layer", json_integer(d->layer)));
    EP_TRY(ep_json_set(one, "experts", json_integer(d->model->num_experts)));
    EP_TRY(ep_json_set(one, "top_k", json_integer(d->model->top_k)));
    for (int64_t i = 0; i <= d->num_domains; i++) {
        EP_TRY(set_load(r, d, &d->loads[i], loads));
    }
    EP_TRY(set_matrix("total_variation", d->total_variation, d->num_domains, one));
    EP_TRY(set_matrix("cosine_distance", d->cosine, d->num_domains, one));
    EP_TRY(ep_json_set(one, "total_variation_by_chance", ep_json_real(d->by_chance)));
out:
    return status;
}

static enum ep_status save(const struct request *r, const char *source)
{
    enum ep_status status;
    json_t *root = json_object();
    json_t *layers = json_array();
    EP_TRY(ep_json_set(root, "layers", layers));
    EP_TRY(ep_json_set(root, "schema", json_string("epbench-route-domains-1")));
    EP_TRY(ep_json_set(root, "counts", source != NULL ? json_string(source) : json_null()));
    EP_TRY(ep_json_set(root, "ranks", r->num_ranks > 0 ? json_integer(r->num_ranks)
                                                       : json_null()));
    EP_TRY(ep_json_set(root, "nodes", r->num_ranks > 0 ? json_integer(r->num_nodes)
                                                       : json_null()));
    for (int64_t i = 0; i < r->num; i++) {
        EP_TRY(set_layer(r, &r->layers[i], layers));
    }
    EP_TRY(ep_json_save(r->options->json_path, root));
out:
    json_decref(root);
    return status;
}

/* --- the mode -------------------------------------------------------------------------------- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct input *input = state->input;
    if (key != KEY_BY_DOMAIN) {
        return ARGP_ERR_UNKNOWN;
    }
    input->asked = true;
    input->file = arg;
    return 0;
}

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "How the load moves with the domain of the text:", 12},
    {"by-domain", KEY_BY_DOMAIN, "FILE", OPTION_ARG_OPTIONAL,
     "loads of real models by domain and layer, and how far they are apart; of FILE (CSV model,"
     "top_k,domain,layer,expert,count_topk,count_top1), or of Mixtral and OLMoE as built in. Takes "
     "--model, --layer, --ranks, --nodes, --ranks-per-node, --json", 12},
    {0}};

static const struct argp argp = {.options = options, .parser = parse};

static bool asked(const void *given)
{
    return ((const struct input *)given)->asked;
}

static enum ep_status run(const struct ep_route_options *shared, const void *given)
{
    enum ep_status status;
    const struct input *input = given;
    struct request r = {.options = shared, .num_nodes = 1, .num_ranks = shared->num_ranks};
    if (r.num_ranks == 0 && (shared->num_nodes != 0 || shared->ranks_per_node != 0)) {
        return ep_error_set(EP_EINVAL, "--by-domain: --nodes and --ranks-per-node need --ranks");
    }
    if (r.num_ranks > 0) {
        EP_TRY(ep_route_options_nodes(shared, r.num_ranks, &r.num_nodes));
    }
    EP_TRY(load_counts(input->file, &r.counts));
    EP_TRY(measure(&r));
    if (shared->json_path != NULL) {
        EP_TRY(save(&r, input->file));
    }
    if (shared->json_path == NULL || strcmp(shared->json_path, "-") != 0) {
        EP_TRY(print_all(&r));
    }
out:
    for (int64_t i = 0; i < r.num; i++) {
        ep_domains_fini(&r.layers[i]);
    }
    free(r.layers);
    ep_counts_destroy(r.counts);
    return status;
}

const struct ep_route_mode ep_route_mode_domains = {
    .name = "--by-domain",
    .uses = EP_ROUTE_BIT(EP_ROUTE_MODEL) | EP_ROUTE_BIT(EP_ROUTE_LAYER) |
            EP_ROUTE_BIT(EP_ROUTE_RANKS) | EP_ROUTE_BIT(EP_ROUTE_RANKS_PER_NODE) |
            EP_ROUTE_BIT(EP_ROUTE_NODES) | EP_ROUTE_BIT(EP_ROUTE_JSON),
    .argp = &argp,
    .options_size = sizeof(struct input),
    .asked = asked,
    .run = run,
};

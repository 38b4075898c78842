/* SPDX-License-Identifier: Apache-2.0 */
/* epbench predict: the time of a model's MoE layer on a machine, measured or from the catalogue. */
#include "base/command.h"
#include "base/json.h"
#include "base/options.h"
#include "base/table.h"
#include "base/units.h"
#include "kernels/gate.h"
#include "kernels/model_options.h"
#include "kernels/place_file.h"
#include "results/predict_report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum ep_status ep_cmd_predict(int argc, char **argv);

enum { MAX_MACHINES = 16, MAX_SETS = 16, DEFAULT_TOKENS = 4096, MAX_WORLD = 1 << 20 };

enum option_key {
    KEY_MACHINE = 256, KEY_LIST, KEY_SET, KEY_EP, KEY_WORLD, KEY_RANKS_PER_NODE, KEY_NODES, KEY_TOKENS,
    KEY_SKEW, KEY_ROUTER, KEY_TRANSPORT, KEY_DTYPE, KEY_COMBINE_DTYPE, KEY_WEIGHTS, KEY_SEED, KEY_AGAINST, KEY_PLACEMENT, KEY_PLACEMENT_POLICY,
    KEY_PLACEMENT_LAYER,
    KEY_JSON
};

struct given {
    struct ep_model_options model;
    const char *machines;
    bool list;
    const char *sets[MAX_SETS];
    int num_sets;
    int64_t ep, world, ranks_per_node, nodes, tokens, seed, placement_layer;
    const char *placement, *placement_policy, *skew, *router, *transport, *dtype, *combine_dtype, *weights, *against, *json;
};

/* clang-format off */
static const struct argp_option options[] = {
    {"machine", KEY_MACHINE, "LIST", 0, "machine.json of `epbench fit`, or names of the catalogue; several are ranked", 1},
    {"list-machines", KEY_LIST, NULL, 0, "List the catalogue: rates, their kind and source", 1},
    {"set", KEY_SET, "KEY=RATE", 0, "What if: scale-up, pair, nic or memory = a bandwidth (50GB/s, 400Gb/s), flops = Tflop/s, latency = a time", 1},
    {"ep", KEY_EP, "N", 0, "Ranks of one expert-parallel group", 2},
    {"ranks", KEY_EP, "N", OPTION_ALIAS, NULL, 2},
    {"world", KEY_WORLD, "N", 0, "All ranks: world / ep groups side by side (default: one group)", 2},
    {"ranks-per-node", KEY_RANKS_PER_NODE, "N", 0, "Ranks of a node (default: the machine's)", 2},
    {"nodes", KEY_NODES, "N", 0, "Nodes of a group, instead of --ranks-per-node", 2},
    {"tokens", KEY_TOKENS, "N", 0, "Tokens per rank (default 4096)", 2},
    {"skew", KEY_SKEW, "SKEW", 0, "Popularity of experts: uniform, zipf:S, counts:FILE, ... (default uniform)", 2},
    {"router", KEY_ROUTER, "NAME", 0, "Group-limited router, or none: by the skew alone (default: the model's, where it has groups)", 2},
    {"placement", KEY_PLACEMENT, "FILE", 0, "Experts on a group's ranks as FILE says (epbench place; default: in order)", 2},
    {"placement-policy", KEY_PLACEMENT_POLICY, "NAME", 0, "of epbench place --json", 2},
    {"placement-layer", KEY_PLACEMENT_LAYER, "N", 0, "of a file with several layers", 2},
    {"transport", KEY_TRANSPORT, "NAME", 0, "alltoallv, pairwise, shm, alltoallv-dedup, hier, allgather (default alltoallv)", 2},
    {"dtype", KEY_DTYPE, "TYPE", 0, "Of dispatched rows: fp32, bf16, fp8 (default bf16)", 2},
    {"combine-dtype", KEY_COMBINE_DTYPE, "TYPE", 0, "Of combined rows (default: --dtype, bf16 when that is fp8)", 2},
    {"weights", KEY_WEIGHTS, "TYPE", 0, "Of weights (default: the model's)", 2},
    {"seed", KEY_SEED, "SEED", 0, "Random seed: which experts are popular (default 1)", 2},
    {"against", KEY_AGAINST, "MODEL", 0, "Compute per token beside another model's, such as llama-2-70b", 3},
    {"json", KEY_JSON, "FILE", 0, "Write it as JSON to FILE (- = stdout, instead of text)", 3},
    {0},
};
/* clang-format on */

static error_t parse_number(int key, const char *text, struct given *g)
{
    const struct {
        int key;
        const char *what;
        int64_t max, *value;
    } numbers[] = {
        {KEY_EP, "--ep", MAX_WORLD, &g->ep},
        {KEY_WORLD, "--world", MAX_WORLD, &g->world},
        {KEY_RANKS_PER_NODE, "--ranks-per-node", MAX_WORLD, &g->ranks_per_node},
        {KEY_NODES, "--nodes", MAX_WORLD, &g->nodes},
        {KEY_TOKENS, "--tokens", 1 << 24, &g->tokens},
        {KEY_SEED, "--seed", INT64_MAX, &g->seed},
        {KEY_PLACEMENT_LAYER, "--placement-layer", INT32_MAX, &g->placement_layer},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i].key == key) {
            return ep_parse_i64(text, numbers[i].what, key == KEY_SEED || key == KEY_PLACEMENT_LAYER ? 0 : 1, numbers[i].max,
                                numbers[i].value) == EP_OK ? 0 : EINVAL;
        }
    }
    return ARGP_ERR_UNKNOWN;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct given *g = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &g->model; return 0;
    case KEY_MACHINE: g->machines = text; return 0;
    case KEY_LIST: g->list = true; return 0;
    case KEY_SKEW: g->skew = text; return 0;
    case KEY_PLACEMENT: g->placement = text; return 0;
    case KEY_PLACEMENT_POLICY: g->placement_policy = text; return 0;
    case KEY_ROUTER: g->router = text; return 0;
    case KEY_TRANSPORT: g->transport = text; return 0;
    case KEY_DTYPE: g->dtype = text; return 0;
    case KEY_COMBINE_DTYPE: g->combine_dtype = text; return 0;
    case KEY_WEIGHTS: g->weights = text; return 0;
    case KEY_AGAINST: g->against = text; return 0;
    case KEY_JSON: g->json = text; return 0;
    case KEY_SET:
        if (g->num_sets == MAX_SETS) {
            ep_error_set(EP_EINVAL, "more than %d times --set", MAX_SETS);
            return EINVAL;
        }
        g->sets[g->num_sets++] = text;
        return 0;
    default: return parse_number(key, text, g);
    }
}

/* --- the catalogue ---------------------------------------------------------------------------- */

static void add_rate(struct ep_table *table, const struct ep_known_rate *rate, double scale, const char *unit)
{
    if (isnan(rate->value)) {
        ep_table_add(table, "-");
    } else {
        ep_table_add(table, "%.4g%s%s", rate->value / scale, unit, rate->is_checked ? "" : "?");
    }
}

static enum ep_status list_machines(const struct ep_catalogue *c, FILE *out)
{
    static const char *const headers[] = {"name",   "ranks/node", "scale-up GB/s", "pair GB/s", "NICs",
                                          "NIC GB/s", "memory GB/s", "bf16 Tflop/s", "fp8 Tflop/s", "what"};
    struct ep_table *table = NULL;
    enum ep_status status;
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int64_t i = 0; i < c->num; i++) {
        const struct ep_known_machine *m = &c->machines[i];
        ep_table_add(table, "%s", m->name);
        ep_table_add(table, "%" PRId64, m->ranks_per_node);
        add_rate(table, &m->scale_up, 1e9, "");
        add_rate(table, &m->pair, 1e9, "");
        ep_table_add(table, "%" PRId64, m->nics_per_node);
        add_rate(table, &m->nic, 1e9, "");
        add_rate(table, &m->memory, 1e9, "");
        add_rate(table, &m->flops[EP_KNOWN_BF16], 1e12, "");
        add_rate(table, &m->flops[EP_KNOWN_FP8], 1e12, "");
        ep_table_add(table, "%s", m->title);
    }
    EP_TRY(ep_table_print(table, out));
    fprintf(out, "Rates of a rank, one way; memory of hosts is the node's, which its cores share. ?: the source was not "
            "read. Each figure's kind and\nsource: topologies/catalogue/hardware.csv; of several the best kind is "
            "taken (measured, effective, ..., theoretical last).\n");
out:
    ep_table_destroy(table);
    return status;
}

static enum ep_status apply_set(const char *text, struct ep_known_machine *m)
{
    const struct {
        const char *key;
        struct ep_known_rate *rate;
    } rates[] = {{"scale-up", &m->scale_up}, {"pair", &m->pair}, {"nic", &m->nic}, {"memory", &m->memory}};
    const char *equals = strchr(text, '=');
    const size_t length = equals != NULL ? (size_t)(equals - text) : 0;
    double value = 0;
    for (size_t i = 0; i < sizeof rates / sizeof rates[0] && length > 0; i++) {
        if (strlen(rates[i].key) == length && strncmp(text, rates[i].key, length) == 0) {
            return ep_parse_bandwidth(equals + 1, "--set", &rates[i].rate->value);
        }
    }
    if (length == 5 && strncmp(text, "flops", 5) == 0) {
        const enum ep_status status = ep_parse_f64(equals + 1, "--set flops", 1e-3, 1e9, &value);
        for (int t = 0; t < EP_KNOWN_NUM_TYPES && status == EP_OK; t++) {
            m->flops[t].value = value * 1e12;
        }
        return status;
    }
    if (length == 7 && strncmp(text, "latency", 7) == 0) {
        m->step_scale_up.value = 0;
        return ep_parse_time(equals + 1, "--set", &m->step_scale_out.value);
    }
    return ep_error_set(EP_EINVAL, "--set: '%s': scale-up=, pair=, nic=, memory=, flops= or latency= was expected",
                        text);
}

/* --- the question ----------------------------------------------------------------------------- */

/* What the answers borrow from. */
struct session {
    struct ep_placement placement;
    struct ep_models *models;
    struct ep_model model;
    struct ep_skew *skew;
    struct ep_catalogue *catalogue;
    char router[64];
    const char *weight_note; /* how the published type of weights was read; NULL = plain */
    struct ep_known_machine known[MAX_MACHINES];
    struct ep_fitted_machine *fitted[MAX_MACHINES];
    struct ep_predict_answer answers[MAX_MACHINES];
    int num;
};

static enum ep_status choose_router(const struct given *g, struct session *s, const char **router)
{
    struct ep_gate_config config;
    *router = NULL;
    if (g->router != NULL) {
        *router = strcmp(g->router, "none") == 0 ? NULL : g->router;
        return EP_OK;
    }
    if (s->model.num_groups <= 1 || ep_gate_config_from_model(&s->model, &config, NULL) != EP_OK) {
        ep_error_clear();
        return EP_OK;
    }
    snprintf(s->router, sizeof s->router, "%s:%" PRId64 ":%" PRId64, ep_gate_name(&config),
             s->model.num_groups, s->model.topk_groups);
    *router = s->router;
    return EP_OK;
}

static enum ep_status make_question(const struct given *g, struct session *s, struct ep_predict_question *q)
{
    enum ep_status status;
    *q = (struct ep_predict_question){.model = &s->model,
                                      .skew = s->skew,
                                      .ep = g->ep,
                                      .world = g->world > 0 ? g->world : g->ep,
                                      .ranks_per_node = g->ranks_per_node,
                                      .tokens = g->tokens > 0 ? g->tokens : DEFAULT_TOKENS,
                                      .dtype = EP_BF16,
                                      .seed = (uint64_t)g->seed};
    if (g->ep == 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "--ep is missing: how many ranks share a layer's experts"));
    }
    if (g->nodes > 0) {
        if (g->ranks_per_node > 0 || g->ep % g->nodes != 0) {
            EP_TRY(ep_error_set(EP_EINVAL, "--nodes %" PRId64 ": %s", g->nodes, g->ranks_per_node > 0
                                ? "--ranks-per-node says it already" : "--ep is no multiple of it"));
        }
        q->ranks_per_node = g->ep / g->nodes;
    }
    EP_TRY(ep_predict_transport_find(g->transport != NULL ? g->transport : "alltoallv", &q->transport));
    if (g->dtype != NULL) {
        EP_TRY(ep_dtype_parse(g->dtype, "--dtype", &q->dtype));
    }
    q->combine_dtype = q->dtype == EP_FP8 ? EP_BF16 : q->dtype;
    if (g->combine_dtype != NULL) {
        EP_TRY(ep_dtype_parse(g->combine_dtype, "--combine-dtype", &q->combine_dtype));
    }
    q->weights = ep_weight_type_of_model(&s->model, &s->weight_note);
    if (g->weights != NULL) {
        EP_TRY(ep_weight_type_parse(g->weights, "--weights", &q->weights));
    }
    EP_TRY(choose_router(g, s, &q->router));
    if (g->placement != NULL) {
        const struct ep_place_choice choice = {.layer = g->placement_layer,
                                               .policy = g->placement_policy,
                                               .num_ranks = g->ep,
                                               .num_experts = s->model.num_experts};
        EP_TRY(ep_place_map_load(g->placement, &choice, &s->placement));
        q->placement = &s->placement;
    } else if (g->placement_policy != NULL || g->placement_layer >= 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s says which of a file: --placement FILE is missing",
                            g->placement_policy != NULL ? "--placement-policy" : "--placement-layer"));
    }
out:
    return status;
}

static bool is_file(const char *name)
{
    return strchr(name, '/') != NULL || access(name, F_OK) == 0;
}

static enum ep_status add_machine(const struct given *g, const char *name,
                                  const struct ep_predict_question *question, struct session *s)
{
    enum ep_status status;
    struct ep_predict_answer *a = &s->answers[s->num];
    a->machine = name;
    a->question = *question;
    if (is_file(name)) {
        if (g->num_sets > 0) {
            EP_TRY(ep_error_set(EP_EINVAL, "--set: %s is a fitted machine, whose rungs have no such rates; edit a "
                                "copy of it, or name one of the catalogue", name));
        }
        EP_TRY(ep_fitted_machine_read(name, &s->fitted[s->num]));
        a->question.fitted = s->fitted[s->num];
        a->title = s->fitted[s->num]->host;
    } else {
        const struct ep_known_machine *found;
        EP_TRY(ep_catalogue_find(s->catalogue, name, &found));
        s->known[s->num] = *found;
        for (int i = 0; i < g->num_sets; i++) {
            EP_TRY(apply_set(g->sets[i], &s->known[s->num]));
        }
        a->question.known = &s->known[s->num];
        a->title = found->title;
    }
    EP_TRY(ep_predict(&a->question, &a->prediction));
    s->num++;
out:
    return status;
}

/* --- answers ---------------------------------------------------------------------------------- */

static enum ep_status answer_one(const struct ep_predict_answer *a, FILE *out, json_t **json)
{
    struct ep_predict_change changes[EP_PREDICT_MAX_CHANGES];
    int num = 0;
    enum ep_status status = ep_predict_changes(a, changes, &num);
    if (status == EP_OK && out != NULL) {
        status = ep_predict_print(a, changes, num, out);
    }
    return status == EP_OK ? ep_predict_to_json(a, changes, num, json) : status;
}

static enum ep_status answer_all(const struct given *g, struct session *s)
{
    enum ep_status status = EP_OK;
    FILE *out = g->json != NULL && strcmp(g->json, "-") == 0 ? NULL : stdout;
    json_t *json = NULL, *one = NULL, *against = NULL;
    const struct ep_model *other = NULL;
    if (s->num == 1) {
        EP_TRY(answer_one(&s->answers[0], out, &json));
    } else {
        json = json_pack("{s:i,s:[]}", "schema", 1, "machines");
        if (json == NULL) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for JSON"));
        }
        if (out != NULL) {
            EP_TRY(ep_predict_print_ranking(s->answers, s->num, out));
        }
        for (int i = 0; i < s->num; i++) {
            EP_TRY(answer_one(&s->answers[i], NULL, &one));
            if (json_array_append_new(json_object_get(json, "machines"), one) != 0) {
                EP_TRY(ep_error_set(EP_ENOMEM, "no memory for JSON"));
            }
        }
    }
    if (g->against != NULL) {
        struct ep_models *zoo = NULL;
        EP_TRY(ep_models_create(&zoo));
        status = ep_models_find_any(zoo, g->against, &other);
        status = status == EP_OK ? ep_predict_against(&s->model, other, out, &against) : status;
        ep_models_destroy(zoo);
        EP_TRY(status);
        EP_TRY(ep_json_set(json, "against", json_incref(against)));
    }
    if (g->json != NULL) {
        EP_TRY(ep_json_save(g->json, json));
    }
out:
    json_decref(against);
    json_decref(json);
    return status;
}

static void session_fini(struct session *s)
{
    for (int i = 0; i < MAX_MACHINES; i++) {
        ep_fitted_machine_destroy(s->fitted[i]);
    }
    ep_catalogue_destroy(s->catalogue);
    ep_skew_destroy(s->skew);
    ep_models_destroy(s->models);
    ep_placement_fini(&s->placement);
}

enum ep_status ep_cmd_predict(int argc, char **argv)
{
    static const struct argp_child children[] = {{.argp = &ep_model_argp, .group = 4}, {0}};
    static const struct argp argp = {
        options, parse, NULL,
        "Predict the time of one MoE layer on a machine: phases, what binds, memory, and what would make it faster.",
        children, NULL, NULL};
    enum ep_status status;
    struct given g = {.model = EP_MODEL_OPTIONS_NONE, .seed = 1, .placement_layer = -1};
    struct session s = {0};
    struct ep_list names = {0};
    struct ep_predict_question question;
    EP_TRY(ep_options_parse(&argp, argc, argv, &g));
    EP_TRY(ep_catalogue_create(&s.catalogue));
    if (g.list) {
        status = list_machines(s.catalogue, stdout);
        goto out;
    }
    if (g.machines == NULL) {
        EP_TRY(ep_error_set(EP_EINVAL, "--machine is missing: a machine.json, or a name (--list-machines)"));
    }
    EP_TRY(ep_model_options_resolve(&g.model, &s.models, &s.model));
    EP_TRY(ep_model_need_experts(&s.model));
    EP_TRY(ep_skew_create(g.skew != NULL ? g.skew : "uniform", &s.skew));
    EP_TRY(make_question(&g, &s, &question));
    EP_TRY(ep_list_split(g.machines, ',', "--machine", &names));
    if (names.num > MAX_MACHINES) {
        EP_TRY(ep_error_set(EP_EINVAL, "--machine: more than %d machines", MAX_MACHINES));
    }
    for (int64_t i = 0; i < names.num; i++) {
        EP_TRY(add_machine(&g, names.items[i], &question, &s));
    }
    EP_TRY(answer_all(&g, &s));
out:
    session_fini(&s);
    ep_list_fini(&names);
    return status;
}

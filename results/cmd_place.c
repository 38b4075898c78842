/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench place`: where experts should live, by several policies, fitted and judged. No MPI. */
#include "base/command.h"
#include "base/options.h"
#include "base/units.h"
#include "results/place_case.h"

#include <errno.h>
#include <string.h>

enum ep_status ep_cmd_place(int argc, char **argv);

enum option_key {
    KEY_COUNTS = 256,
    KEY_SKEW,
    KEY_ASSIGNMENTS,
    KEY_LAYER,
    KEY_TRACE_FORMAT,
    KEY_MODEL,
    KEY_MODEL_FILE,
    KEY_EXPERTS,
    KEY_TOP_K,
    KEY_TOKENS,
    KEY_SEED,
    KEY_FIT_SHARE,
    KEY_SPLIT,
    KEY_RANKS,
    KEY_RANKS_PER_NODE,
    KEY_NODES,
    KEY_GROUPS,
    KEY_REPLICAS,
    KEY_POLICY,
    KEY_SIMILARITY,
    KEY_PROFILES,
    KEY_PROFILES_MODEL,
    KEY_PROFILES_LAYER,
    KEY_SLACK,
    KEY_WINDOW,
    KEY_EVERY,
    KEY_HYSTERESIS,
    KEY_DYNAMIC_POLICY,
    KEY_EXPERT_BYTES,
    KEY_HIDDEN,
    KEY_DTYPE,
    KEY_TOKEN_BYTES,
    KEY_MACHINE,
    KEY_BOOTSTRAP,
    KEY_SAVE,
    KEY_JSON
};

/* clang-format off */
static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What to place by (counts, a skew or assignments):", 1},
    {"counts", KEY_COUNTS, "FILE", 0, "loads: CSV without a header, a line per layer, a number per expert; or logical_count of SGLang", 1},
    {"skew", KEY_SKEW, "SKEW", 0, "tokens: trace:FILE, trace:sample, counts:FILE, or a generator as in route", 1},
    {"assignments", KEY_ASSIGNMENTS, "FILE", 0, "tokens: a trace file", 1},
    {"layer", KEY_LAYER, "N", 0, "this layer of the trace, counts or assignments", 1},
    {"trace-format", KEY_TRACE_FORMAT, "FORMAT", 0, "format of the same, as in route (default: by content)", 1},
    {"model", KEY_MODEL, "NAME", 0, "experts, top-k, hidden, groups and bytes of an expert of a model of the zoo", 1},
    {"model-file", KEY_MODEL_FILE, "FILE", 0, "models of your own, in place of the zoo", 1},
    {"experts", KEY_EXPERTS, "N", 0, "experts of the layer", 1},
    {"top-k", KEY_TOP_K, "K", 0, "experts of each token", 1},
    {"tokens", KEY_TOKENS, "N", 0, "tokens per rank of a skew (default 4096; a trace's own)", 1},
    {"seed", KEY_SEED, "N", 0, "random seed (default 1)", 1},
    {"fit-share", KEY_FIT_SHARE, "F", 0, "share of the tokens that is fitted to; the rest judges (default 0.5)", 1},
    {"by", KEY_SPLIT, "HOW", 0, "which tokens those are: first (default), or blocks of 64 in turn", 1},
    {NULL, 0, NULL, 0, "What to place on:", 2},
    {"ranks", KEY_RANKS, "P", 0, "ranks (default 8)", 2},
    {"ep", KEY_RANKS, NULL, OPTION_ALIAS, NULL, 2},
    {"ranks-per-node", KEY_RANKS_PER_NODE, "N", 0, "ranks of a node (default: all)", 2},
    {"nodes", KEY_NODES, "N", 0, "nodes (default 1)", 2},
    {"groups", KEY_GROUPS, "G", 0, "groups of consecutive experts that EPLB keeps on a node (default 1, or the model's)", 2},
    {"replicas", KEY_REPLICAS, "S", 0, "slots in all, a multiple of the ranks (default: as few as hold each expert once)", 2},
    {NULL, 0, NULL, 0, "How:", 3},
    {"policy", KEY_POLICY, "LIST", 0, "contiguous, round-robin, random, coactivation, hierarchical, eplb, eplb-global, dynamic (default: all that the input allows)", 3},
    {"similarity", KEY_SIMILARITY, "KIND", 0, "what says that experts are alike: coactivation (default: the tokens), domains or layers (profiles, which can stand alone)", 3},
    {"profiles", KEY_PROFILES, "FILE", 0, "counts by domain, or joint counts of two layers, as CSV (default: those built in)", 3},
    {"profiles-model", KEY_PROFILES_MODEL, "NAME", 0, "rows of this model of the profiles", 3},
    {"profiles-layer", KEY_PROFILES_LAYER, "N", 0, "rows of this layer of the profiles", 3},
    {"slack", KEY_SLACK, "F", 0, "coactivation and hierarchical may make the busiest rank this much busier than EPLB does (default 0)", 3},
    {"window", KEY_WINDOW, "N", 0, "dynamic: tokens of a window (default 512)", 3},
    {"every", KEY_EVERY, "N", 0, "dynamic: place anew every N windows, by these (default 2)", 3},
    {"hysteresis", KEY_HYSTERESIS, "F", 0, "dynamic: only if the busiest rank gets this much less to do (default 0.05)", 3},
    {"dynamic-policy", KEY_DYNAMIC_POLICY, "NAME", 0, "dynamic: the policy that places anew (default eplb)", 3},
    {"expert-bytes", KEY_EXPERT_BYTES, "SIZE", 0, "dynamic: weights of one expert (default: the model's, in bf16)", 3},
    {NULL, 0, NULL, 0, "Bytes and time:", 4},
    {"hidden", KEY_HIDDEN, "N", 0, "elements of a token row (default: the model's, or 7168)", 4},
    {"dtype", KEY_DTYPE, "TYPE", 0, "fp32, bf16 (default) or fp8", 4},
    {"token-bytes", KEY_TOKEN_BYTES, "SIZE", 0, "bytes of a row, in place of the two above", 4},
    {"machine", KEY_MACHINE, "FILE", 0, "predict times by this machine.json of epbench fit", 4},
    {"bootstrap", KEY_BOOTSTRAP, "N", 0, "draws for intervals; 0 = none (default 1000)", 4},
    {NULL, 0, NULL, 0, "Output:", 5},
    {"save", KEY_SAVE, "FILE", 0, "write the maps of the one policy as SGLang takes them, for route --placement", 5},
    {"json", KEY_JSON, "FILE", 0, "write JSON; - = standard output, in place of the tables", 5},
    {0}};
/* clang-format on */

static enum ep_status parse_split(const char *arg, enum ep_place_split *split)
{
    if (strcmp(arg, "first") != 0 && strcmp(arg, "blocks") != 0) {
        return ep_error_set(EP_EINVAL, "--by: '%s' is neither first nor blocks", arg);
    }
    *split = strcmp(arg, "first") == 0 ? EP_PLACE_BY_FIRST : EP_PLACE_BY_BLOCKS;
    return EP_OK;
}

static enum ep_status parse_bytes(const char *arg, const char *name, int64_t *size_bytes)
{
    const enum ep_status status = ep_parse_size(arg, name, size_bytes);
    return status != EP_OK || *size_bytes > 0
               ? status
               : ep_error_set(EP_EINVAL, "%s: 1 and more expected", name);
}

static enum ep_status parse_seed(const char *arg, uint64_t *seed)
{
    int64_t number = 0;
    const enum ep_status status = ep_parse_i64(arg, "--seed", 0, INT64_MAX, &number);
    *seed = (uint64_t)number;
    return status;
}

static enum ep_status parse_draws(const char *arg, int *num_draws)
{
    int64_t number = 0;
    const enum ep_status status = ep_parse_i64(arg, "--bootstrap", 0, 100000, &number);
    *num_draws = (int)number;
    return status;
}

static enum ep_status parse_number(int key, const char *arg, struct ep_place_options *o)
{
    switch (key) {
    case KEY_LAYER:
        return ep_parse_i64(arg, "--layer", 0, INT32_MAX, &o->source.layer);
    case KEY_EXPERTS:
        return ep_parse_i64(arg, "--experts", 1, EP_PLACE_MAX_SLOTS, &o->source.num_experts);
    case KEY_TOP_K:
        return ep_parse_i64(arg, "--top-k", 1, EP_PLACE_MAX_SLOTS, &o->source.top_k);
    case KEY_TOKENS:
        return ep_parse_i64(arg, "--tokens", 1, INT32_MAX, &o->source.tokens);
    case KEY_SEED:
        return parse_seed(arg, &o->source.seed);
    case KEY_FIT_SHARE:
        return ep_parse_f64(arg, "--fit-share", 1e-6, 1, &o->source.fit_share);
    case KEY_RANKS:
        return ep_parse_i64(arg, "--ranks", 1, EP_PLACE_MAX_RANKS, &o->source.num_ranks);
    case KEY_RANKS_PER_NODE:
        return ep_parse_i64(arg, "--ranks-per-node", 1, EP_PLACE_MAX_RANKS, &o->ranks_per_node);
    case KEY_NODES:
        return ep_parse_i64(arg, "--nodes", 1, EP_PLACE_MAX_RANKS, &o->num_nodes);
    case KEY_GROUPS:
        return ep_parse_i64(arg, "--groups", 1, EP_PLACE_MAX_SLOTS, &o->num_groups);
    case KEY_REPLICAS:
        return ep_parse_i64(arg, "--replicas", 1, EP_PLACE_MAX_SLOTS, &o->num_slots);
    case KEY_SIMILARITY:
        return ep_place_similarity_parse(arg, "--similarity", &o->source.similarity);
    case KEY_PROFILES_LAYER:
        return ep_parse_i64(arg, "--profiles-layer", 0, INT32_MAX, &o->source.profiles.layer);
    case KEY_SLACK:
        return ep_parse_f64(arg, "--slack", 0, 100, &o->slack);
    case KEY_WINDOW:
        return ep_parse_i64(arg, "--window", 1, INT32_MAX, &o->window_tokens);
    case KEY_EVERY:
        return ep_parse_i64(arg, "--every", 1, INT32_MAX, &o->every);
    case KEY_HYSTERESIS:
        return ep_parse_f64(arg, "--hysteresis", 0, 1, &o->hysteresis);
    case KEY_EXPERT_BYTES:
        return parse_bytes(arg, "--expert-bytes", &o->expert_bytes);
    case KEY_HIDDEN:
        return ep_parse_i64(arg, "--hidden", 1, INT32_MAX, &o->hidden);
    case KEY_DTYPE:
        o->dtype_given = true;
        return ep_dtype_parse(arg, "--dtype", &o->dtype);
    case KEY_TOKEN_BYTES:
        return parse_bytes(arg, "--token-bytes", &o->token_bytes);
    case KEY_SPLIT:
        return parse_split(arg, &o->source.split);
    default:
        return parse_draws(arg, &o->num_draws);
    }
}

/* Where an option whose value is taken as it is goes; NULL for all others. */
static const char **find_text(int key, struct ep_place_options *o)
{
    switch (key) {
    case KEY_COUNTS:
        return &o->source.counts;
    case KEY_SKEW:
        return &o->source.skew;
    case KEY_ASSIGNMENTS:
        return &o->source.assignments;
    case KEY_TRACE_FORMAT:
        return &o->source.trace_format;
    case KEY_MODEL:
        return &o->model;
    case KEY_MODEL_FILE:
        return &o->model_file;
    case KEY_POLICY:
        return &o->policies;
    case KEY_DYNAMIC_POLICY:
        return &o->dynamic_policy;
    case KEY_PROFILES:
        return &o->source.profiles.path;
    case KEY_PROFILES_MODEL:
        return &o->source.profiles.model;
    case KEY_MACHINE:
        return &o->machine;
    case KEY_SAVE:
        return &o->save_path;
    case KEY_JSON:
        return &o->json_path;
    default:
        return NULL;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct ep_place_options *o = state->input;
    if (key == ARGP_KEY_ARG) {
        ep_error_set(EP_EINVAL, "unexpected argument '%s'", arg);
        return EINVAL;
    }
    if (key < KEY_COUNTS || key > KEY_JSON) {
        return ARGP_ERR_UNKNOWN;
    }
    const char **text = find_text(key, o);
    if (text != NULL) {
        *text = arg;
        return 0;
    }
    return parse_number(key, arg, o) == EP_OK ? 0 : EINVAL;
}

enum ep_status ep_cmd_place(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc =
            "Place experts on ranks by several policies and compare them: balance, rows and bytes "
            "that leave ranks and nodes, predicted time; fitted to one part of the tokens and "
            "judged on the rest.",
    };
    enum ep_status status;
    struct ep_place_options given = {.source = {.layer = -1, .seed = 1, .profiles = {.layer = -1}},
                                     .window_tokens = 512,
                                     .every = 2,
                                     .hysteresis = 0.05,
                                     .dynamic_policy = ep_place_eplb.name,
                                     .dtype = EP_BF16,
                                     .num_draws = 1000};
    struct ep_place_case run = {0};
    EP_TRY(ep_options_parse(&argp, argc, argv, &given));
    EP_TRY(ep_place_case_init(&given, &run));
    for (int i = 0; i < run.num_warnings; i++) {
        fprintf(stderr, "epbench place: warning: %s\n", run.warnings[i]);
    }
    if (given.json_path != NULL) {
        EP_TRY(ep_place_case_save(&run, given.json_path));
    }
    if (given.json_path == NULL || strcmp(given.json_path, "-") != 0) {
        EP_TRY(ep_place_case_print(&run, stdout));
    }
out:
    ep_place_case_fini(&run);
    return status;
}

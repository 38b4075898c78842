/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench route`: what a routing makes ranks send, from a generator, a model or a trace. No MPI.
 */
#include "base/command.h"
#include "base/options.h"
#include "base/units.h"
#include "kernels/route_case.h"
#include "kernels/route_steps.h"

#include <errno.h>
#include <inttypes.h>

enum ep_status ep_cmd_route(int argc, char **argv);

enum option_key {
    KEY_SKEW = 256,
    KEY_MODEL,
    KEY_EXPERTS,
    KEY_TOP_K,
    KEY_RANKS,
    KEY_RANKS_PER_NODE,
    KEY_NODES,
    KEY_TOKENS,
    KEY_HIDDEN,
    KEY_DTYPE,
    KEY_SEED,
    KEY_TOKEN_BYTES,
    KEY_BANDWIDTH,
    KEY_ASSIGNMENTS,
    KEY_TOKENS_PER_RANK,
    KEY_LAYER,
    KEY_EXPERTS_TO_RANKS,
    KEY_TOKENS_TO_RANKS,
    KEY_PLACEMENT,
    KEY_PLACEMENT_POLICY,
    KEY_PLACEMENT_LAYER,
    KEY_JSON
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Where the routing comes from:", 1},
    {"skew", KEY_SKEW, "SKEW", 0,
     "uniform (default), zipf:S, hot:R[@RANK], khot:N:F, trace:FILE, trace:sample", 1},
    {"model", KEY_MODEL, "NAME", 0, "experts, top-k and hidden of a model of the zoo", 1},
    {"experts", KEY_EXPERTS, "N", 0, "experts of the layer", 1},
    {"top-k", KEY_TOP_K, "K", 0, "experts of each token", 1},
    {"tokens", KEY_TOKENS, "N", 0, "tokens per rank (default 4096)", 1},
    {"tokens-per-rank", KEY_TOKENS_PER_RANK, "N0,N1,...", 0, "tokens of each rank in turn", 1},
    {"seed", KEY_SEED, "N", 0, "random seed (default 1)", 1},
    {"assignments", KEY_ASSIGNMENTS, "FILE", 0,
     "count this trace instead: CSV token[,layer],e0,...[,w0,...]", 1},
    {"layer", KEY_LAYER, "N", 0, "rows of this layer of the assignments", 1},
    {NULL, 0, NULL, 0, "Where experts and tokens are:", 2},
    {"ranks", KEY_RANKS, "P", 0, "ranks (default 8)", 2},
    {"ep", KEY_RANKS, NULL, OPTION_ALIAS, NULL, 2},
    {"ranks-per-node", KEY_RANKS_PER_NODE, "N", 0, "ranks of a node (default: all)", 2},
    {"nodes", KEY_NODES, "N", 0, "nodes (default 1)", 2},
    {"experts-to-ranks", KEY_EXPERTS_TO_RANKS, "LIST", 0,
     "rank of each expert in turn (default: contiguous)", 2},
    {"placement", KEY_PLACEMENT, "FILE", 0,
     "experts on ranks by a file: physical_to_logical_map of SGLang, or of epbench place", 2},
    {"placement-policy", KEY_PLACEMENT_POLICY, "NAME", 0, "of epbench place --json", 2},
    {"placement-layer", KEY_PLACEMENT_LAYER, "N", 0, "of a file with several layers", 2},
    {"tokens-to-ranks", KEY_TOKENS_TO_RANKS, "FILE|block", 0,
     "rank of each assignment: CSV token,rank, or equal blocks (default)", 2},
    {NULL, 0, NULL, 0, "Bytes and time:", 3},
    {"hidden", KEY_HIDDEN, "N", 0, "elements of a token row (default: the model's, or 7168)", 3},
    {"dtype", KEY_DTYPE, "TYPE", 0, "fp32, bf16 (default) or fp8", 3},
    {"token-bytes", KEY_TOKEN_BYTES, "SIZE", 0, "bytes of a row, in place of the two above", 3},
    {"bandwidth", KEY_BANDWIDTH, "RATE", 0, "for the plain cost, with unit: 400Gb/s, 50GB/s", 3},
    {NULL, 0, NULL, 0, "Output:", 4},
    {"json", KEY_JSON, "FILE", 0, "write JSON; - = standard output, in place of the tables", 4},
    {0}};

static enum ep_status parse_shape(int key, const char *arg, struct ep_route_options *o)
{
    switch (key) {
    case KEY_EXPERTS:
        return ep_parse_i64(arg, "--experts", 1, EP_MAX_EXPERTS, &o->num_experts);
    case KEY_TOP_K:
        return ep_parse_i64(arg, "--top-k", 1, EP_MAX_EXPERTS, &o->top_k);
    case KEY_RANKS:
        return ep_parse_i64(arg, "--ranks", 1, EP_ROUTE_MAX_RANKS, &o->num_ranks);
    case KEY_RANKS_PER_NODE:
        return ep_parse_i64(arg, "--ranks-per-node", 1, EP_ROUTE_MAX_RANKS, &o->ranks_per_node);
    case KEY_NODES:
        return ep_parse_i64(arg, "--nodes", 1, EP_ROUTE_MAX_RANKS, &o->num_nodes);
    case KEY_TOKENS:
        return ep_parse_i64(arg, "--tokens", 1, INT32_MAX, &o->tokens);
    case KEY_HIDDEN:
        return ep_parse_i64(arg, "--hidden", 1, INT32_MAX, &o->hidden);
    case KEY_LAYER:
        return ep_parse_i64(arg, "--layer", 0, INT32_MAX, &o->layer);
    case KEY_PLACEMENT_LAYER:
        return ep_parse_i64(arg, "--placement-layer", 0, INT32_MAX, &o->placement_layer);
    case KEY_SEED:
        o->seed_given = true;
        return ep_parse_i64(arg, "--seed", 0, INT64_MAX, &o->seed);
    case KEY_DTYPE:
        o->dtype_given = true;
        return ep_dtype_parse(arg, "--dtype", &o->dtype);
    case KEY_BANDWIDTH:
        return ep_parse_bandwidth(arg, "--bandwidth", &o->bw_bytes_per_s);
    default:
        break;
    }
    const enum ep_status status = ep_parse_size(arg, "--token-bytes", &o->token_bytes);
    return status != EP_OK || o->token_bytes > 0
               ? status
               : ep_error_set(EP_EINVAL, "--token-bytes: 1 and more expected");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct ep_route_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->capacity;
        state->child_inputs[1] = &o->steps;
        return 0;
    case KEY_SKEW:
        o->skew = arg;
        return 0;
    case KEY_MODEL:
        o->model = arg;
        return 0;
    case KEY_ASSIGNMENTS:
        o->assignments = arg;
        return 0;
    case KEY_TOKENS_PER_RANK:
        o->tokens_per_rank = arg;
        return 0;
    case KEY_EXPERTS_TO_RANKS:
        o->experts_to_ranks = arg;
        return 0;
    case KEY_PLACEMENT:
        o->placement = arg;
        return 0;
    case KEY_PLACEMENT_POLICY:
        o->placement_policy = arg;
        return 0;
    case KEY_TOKENS_TO_RANKS:
        o->tokens_to_ranks = arg;
        return 0;
    case KEY_JSON:
        o->json_path = arg;
        return 0;
    case ARGP_KEY_ARG:
        ep_error_set(EP_EINVAL, "unexpected argument '%s'", arg);
        return EINVAL;
    default:
        break;
    }
    if (key < KEY_SKEW || key > KEY_JSON) {
        return ARGP_ERR_UNKNOWN;
    }
    return parse_shape(key, arg, o) == EP_OK ? 0 : EINVAL;
}

enum ep_status ep_cmd_route(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&ep_capacity_argp, 0, NULL, 0}, {&ep_steps_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .children = children,
        .doc = "Count what a routing makes ranks send: rows and bytes in three bases, imbalance, "
               "fan-out and the plain cost.",
    };
    enum ep_status status;
    struct ep_route_options given = {.layer = -1, .placement_layer = -1, .seed = 1, .dtype = EP_BF16};
    struct ep_route_case route = {0};
    EP_TRY(ep_options_parse(&argp, argc, argv, &given));
    if (given.steps.num_steps > 0) {
        return ep_route_steps_run(&given);
    }
    EP_TRY(ep_route_case_init(&given, &route));
    for (int i = 0; i < route.num_warnings; i++) {
        fprintf(stderr, "epbench route: warning: %s\n", route.warnings[i]);
    }
    if (given.json_path != NULL) {
        EP_TRY(ep_route_case_save(&route, given.json_path));
    }
    if (given.json_path == NULL || given.json_path[0] != '-' || given.json_path[1] != '\0') {
        EP_TRY(ep_route_case_print(&route, stdout));
    }
out:
    ep_route_case_fini(&route);
    return status;
}

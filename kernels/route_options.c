/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing the options that all modes of `epbench route` share. */
#include "kernels/route_options.h"

#include "base/units.h"
#include "kernels/models.h"
#include "kernels/placement.h"
#include "kernels/route_case.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { FIRST_KEY = 256 };

/* The key of an option is its number. */
#define KEY(option) (FIRST_KEY + (option))

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Where the routing comes from:", 1},
    {"skew", KEY(EP_ROUTE_SKEW), "SKEW", 0,
     "uniform (default), zipf:S, lognormal:S, dirichlet:A, gini:G, counts:FILE, hot:R[@RANK], "
     "khot:N:F, trace:FILE, trace:sample; +source, +masked:F behind any",
     1},
    {"popularity", KEY(EP_ROUTE_POPULARITY), "common|source", 0,
     "all source ranks prefer the same experts (default), or each its own", 1},
    {"masked", KEY(EP_ROUTE_MASKED), "F", 0, "share of slots that are unused (-1)", 1},
    {"model", KEY(EP_ROUTE_MODEL), "NAME", 0, "experts, top-k and hidden of a model of the zoo", 1},
    {"model-file", KEY(EP_ROUTE_MODEL_FILE), "FILE", 0, "the same of a model of one's own", 1},
    {"experts", KEY(EP_ROUTE_EXPERTS), "N", 0, "experts of the layer", 1},
    {"top-k", KEY(EP_ROUTE_TOP_K), "K", 0, "experts of each token", 1},
    {"tokens", KEY(EP_ROUTE_TOKENS), "N", 0, "tokens per rank (default 4096)", 1},
    {"batch", KEY(EP_ROUTE_BATCH), "B", 0, "with --seq-len: B x L tokens per rank", 1},
    {"seq-len", KEY(EP_ROUTE_SEQ_LEN), "L", 0, "tokens of a sequence of the batch", 1},
    {"tokens-per-rank", KEY(EP_ROUTE_TOKENS_PER_RANK), "N0,N1,...", 0,
     "tokens of each rank in turn", 1},
    {"seed", KEY(EP_ROUTE_SEED), "N", 0, "random seed (default 1)", 1},
    {"assignments", KEY(EP_ROUTE_ASSIGNMENTS), "FILE", 0,
     "count this trace instead, in any format of kernels/README.md, \"Traces\"", 1},
    {"layer", KEY(EP_ROUTE_LAYER), "N", 0, "this layer of the assignments, trace or counts", 1},
    {"trace-format", KEY(EP_ROUTE_TRACE_FORMAT), "NAME", 0,
     "csv, megatron, vllm-log, vllm-npy, sglang, esft[:TOP_K], counts (default: by content)", 1},
    {NULL, 0, NULL, 0, "Where experts and tokens are:", 2},
    {"ranks", KEY(EP_ROUTE_RANKS), "P", 0, "ranks (default 8)", 2},
    {"ep", KEY(EP_ROUTE_RANKS), NULL, OPTION_ALIAS, NULL, 2},
    {"ranks-per-node", KEY(EP_ROUTE_RANKS_PER_NODE), "N", 0, "ranks of a node (default: all)", 2},
    {"nodes", KEY(EP_ROUTE_NODES), "N", 0, "nodes (default 1)", 2},
    {"experts-to-ranks", KEY(EP_ROUTE_EXPERTS_TO_RANKS), "LIST", 0,
     "rank of each expert in turn (default: contiguous)", 2},
    {"expert-ranks", KEY(EP_ROUTE_EXPERT_RANKS), "LIST", 0, "only these ranks hold experts: 0-3,8",
     2},
    {"placement", KEY(EP_ROUTE_PLACEMENT), "FILE", 0,
     "experts on ranks by a file: physical_to_logical_map of SGLang, or of epbench place", 2},
    {"placement-policy", KEY(EP_ROUTE_PLACEMENT_POLICY), "NAME", 0, "of epbench place --json", 2},
    {"placement-layer", KEY(EP_ROUTE_PLACEMENT_LAYER), "N", 0, "of a file with several layers", 2},
    {"tokens-to-ranks", KEY(EP_ROUTE_TOKENS_TO_RANKS), "FILE|block", 0,
     "rank of each assignment: CSV token,rank, or equal blocks (default)", 2},
    {NULL, 0, NULL, 0, "Bytes and time:", 3},
    {"hidden", KEY(EP_ROUTE_HIDDEN), "N", 0,
     "elements of a token row (default: the model's, or 7168)", 3},
    {"dtype", KEY(EP_ROUTE_DTYPE), "TYPE", 0, "fp32, bf16 (default) or fp8", 3},
    {"token-bytes", KEY(EP_ROUTE_TOKEN_BYTES), "SIZE", 0,
     "bytes of a row, in place of the two above", 3},
    {"bandwidth", KEY(EP_ROUTE_BANDWIDTH), "RATE", 0,
     "for the plain cost, with unit: 400Gb/s, 50GB/s", 3},
    {NULL, 0, NULL, 0, "Output:", 4},
    {"min-tokens-per-expert", KEY(EP_ROUTE_MIN_TOKENS), "N", 0,
     "warn where experts get fewer than N of the tokens, and say which batch would do (default: "
     "no warning; with --steps 32)",
     4},
    {"threads", KEY(EP_ROUTE_THREADS), "N", 0,
     "threads that count (default: as many as there are cores and work for)", 4},
    {"json", KEY(EP_ROUTE_JSON), "FILE", 0,
     "write JSON; - = standard output, in place of the tables", 4},
    {0}};

static enum ep_status parse_text(enum ep_route_option option, const char *arg,
                                 struct ep_route_options *o)
{
    switch (option) {
    case EP_ROUTE_SKEW:
        o->skew = arg;
        break;
    case EP_ROUTE_MASKED:
        o->masked = arg;
        break;
    case EP_ROUTE_EXPERT_RANKS:
        o->expert_ranks = arg;
        break;
    case EP_ROUTE_MODEL:
        o->model = arg;
        break;
    case EP_ROUTE_MODEL_FILE:
        o->model_file = arg;
        break;
    case EP_ROUTE_TRACE_FORMAT:
        o->trace_format = arg;
        break;
    case EP_ROUTE_ASSIGNMENTS:
        o->assignments = arg;
        break;
    case EP_ROUTE_TOKENS_PER_RANK:
        o->tokens_per_rank = arg;
        break;
    case EP_ROUTE_EXPERTS_TO_RANKS:
        o->experts_to_ranks = arg;
        break;
    case EP_ROUTE_PLACEMENT:
        o->placement = arg;
        break;
    case EP_ROUTE_PLACEMENT_POLICY:
        o->placement_policy = arg;
        break;
    case EP_ROUTE_TOKENS_TO_RANKS:
        o->tokens_to_ranks = arg;
        break;
    case EP_ROUTE_JSON:
        o->json_path = arg;
        break;
    default:
        EP_ASSERT(!"an option without a parser");
    }
    return EP_OK;
}

static enum ep_status parse_popularity(const char *arg, struct ep_route_options *o)
{
    o->by_source = strcmp(arg, "source") == 0;
    return o->by_source || strcmp(arg, "common") == 0
               ? EP_OK
               : ep_error_set(EP_EINVAL, "--popularity: '%s', common or source expected", arg);
}

static enum ep_status parse_value(enum ep_route_option option, const char *arg,
                                  struct ep_route_options *o)
{
    enum ep_status status;
    switch (option) {
    case EP_ROUTE_EXPERTS:
        return ep_parse_i64(arg, "--experts", 1, EP_MAX_EXPERTS, &o->num_experts);
    case EP_ROUTE_TOP_K:
        return ep_parse_i64(arg, "--top-k", 1, EP_MAX_EXPERTS, &o->top_k);
    case EP_ROUTE_RANKS:
        return ep_parse_i64(arg, "--ranks", 1, EP_ROUTE_MAX_RANKS, &o->num_ranks);
    case EP_ROUTE_RANKS_PER_NODE:
        return ep_parse_i64(arg, "--ranks-per-node", 1, EP_ROUTE_MAX_RANKS, &o->ranks_per_node);
    case EP_ROUTE_NODES:
        return ep_parse_i64(arg, "--nodes", 1, EP_ROUTE_MAX_RANKS, &o->num_nodes);
    case EP_ROUTE_TOKENS:
        return ep_parse_i64(arg, "--tokens", 1, INT32_MAX, &o->tokens);
    case EP_ROUTE_BATCH:
        return ep_parse_i64(arg, "--batch", 1, INT32_MAX, &o->batch);
    case EP_ROUTE_SEQ_LEN:
        return ep_parse_i64(arg, "--seq-len", 1, INT32_MAX, &o->seq_len);
    case EP_ROUTE_THREADS:
        return ep_parse_i64(arg, "--threads", 1, EP_ROUTE_MAX_THREADS, &o->num_threads);
    case EP_ROUTE_POPULARITY:
        return parse_popularity(arg, o);
    case EP_ROUTE_HIDDEN:
        return ep_parse_i64(arg, "--hidden", 1, INT32_MAX, &o->hidden);
    case EP_ROUTE_LAYER:
        return ep_parse_i64(arg, "--layer", 0, INT32_MAX, &o->layer);
    case EP_ROUTE_PLACEMENT_LAYER:
        return ep_parse_i64(arg, "--placement-layer", 0, INT32_MAX, &o->placement_layer);
    case EP_ROUTE_SEED:
        return ep_parse_i64(arg, "--seed", 0, INT64_MAX, &o->seed);
    case EP_ROUTE_DTYPE:
        return ep_dtype_parse(arg, "--dtype", &o->dtype);
    case EP_ROUTE_BANDWIDTH:
        return ep_parse_bandwidth(arg, "--bandwidth", &o->bw_bytes_per_s);
    case EP_ROUTE_MIN_TOKENS:
        return ep_parse_i64(arg, "--min-tokens-per-expert", 1, INT32_MAX, &o->min_tokens);
    case EP_ROUTE_TOKEN_BYTES:
        status = ep_parse_size(arg, "--token-bytes", &o->token_bytes);
        return status != EP_OK || o->token_bytes > 0
                   ? status
                   : ep_error_set(EP_EINVAL, "--token-bytes: 1 and more expected");
    default:
        return parse_text(option, arg, o);
    }
}

/* From here on a batch of sequences is tokens. */
static enum ep_status apply_batch(struct ep_route_options *o)
{
    if (o->batch == 0 && o->seq_len == 0) {
        return EP_OK;
    }
    if (o->batch == 0 || o->seq_len == 0) {
        return ep_error_set(EP_EINVAL, "--batch and --seq-len are needed together");
    }
    if (o->tokens != 0) {
        return ep_error_set(EP_EINVAL, "--batch and --seq-len stand for --tokens; give one");
    }
    if (o->batch * o->seq_len > INT32_MAX) {
        return ep_error_set(
            EP_EINVAL, "--batch %" PRId64 " of --seq-len %" PRId64 " tokens: more than %d per rank",
            o->batch, o->seq_len, INT32_MAX);
    }
    o->tokens = o->batch * o->seq_len;
    o->given &= ~(EP_ROUTE_BIT(EP_ROUTE_BATCH) | EP_ROUTE_BIT(EP_ROUTE_SEQ_LEN));
    o->given |= EP_ROUTE_BIT(EP_ROUTE_TOKENS);
    return EP_OK;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ep_route_options *o = state->input;
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = &o->capacity;
        return 0;
    }
    if (key == ARGP_KEY_SUCCESS) {
        return apply_batch(o) == EP_OK ? 0 : EINVAL;
    }
    if (key < FIRST_KEY || key >= KEY(EP_ROUTE_CAPACITY)) {
        return ARGP_ERR_UNKNOWN;
    }
    const enum ep_route_option option = (enum ep_route_option)(key - FIRST_KEY);
    o->given |= EP_ROUTE_BIT(option);
    return parse_value(option, arg, o) == EP_OK ? 0 : EINVAL;
}

static const struct argp_child children[] = {{&ep_capacity_argp, 0, NULL, 0}, {0}};

const struct argp ep_route_argp = {.options = options, .parser = parse, .children = children};

/* --- what was asked for ------------------------------------------------------------------- */

const char *ep_route_option_name(enum ep_route_option option)
{
    static const char *const names[EP_ROUTE_NUM_OPTIONS] = {
        [EP_ROUTE_SKEW] = "--skew",
        [EP_ROUTE_POPULARITY] = "--popularity",
        [EP_ROUTE_MASKED] = "--masked",
        [EP_ROUTE_BATCH] = "--batch",
        [EP_ROUTE_SEQ_LEN] = "--seq-len",
        [EP_ROUTE_EXPERT_RANKS] = "--expert-ranks",
        [EP_ROUTE_THREADS] = "--threads",
        [EP_ROUTE_MODEL] = "--model",
        [EP_ROUTE_MODEL_FILE] = "--model-file",
        [EP_ROUTE_EXPERTS] = "--experts",
        [EP_ROUTE_TOP_K] = "--top-k",
        [EP_ROUTE_TOKENS] = "--tokens",
        [EP_ROUTE_TOKENS_PER_RANK] = "--tokens-per-rank",
        [EP_ROUTE_SEED] = "--seed",
        [EP_ROUTE_ASSIGNMENTS] = "--assignments",
        [EP_ROUTE_LAYER] = "--layer",
        [EP_ROUTE_TRACE_FORMAT] = "--trace-format",
        [EP_ROUTE_RANKS] = "--ranks",
        [EP_ROUTE_RANKS_PER_NODE] = "--ranks-per-node",
        [EP_ROUTE_NODES] = "--nodes",
        [EP_ROUTE_EXPERTS_TO_RANKS] = "--experts-to-ranks",
        [EP_ROUTE_PLACEMENT] = "--placement",
        [EP_ROUTE_PLACEMENT_POLICY] = "--placement-policy",
        [EP_ROUTE_PLACEMENT_LAYER] = "--placement-layer",
        [EP_ROUTE_TOKENS_TO_RANKS] = "--tokens-to-ranks",
        [EP_ROUTE_HIDDEN] = "--hidden",
        [EP_ROUTE_DTYPE] = "--dtype",
        [EP_ROUTE_TOKEN_BYTES] = "--token-bytes",
        [EP_ROUTE_BANDWIDTH] = "--bandwidth",
        [EP_ROUTE_MIN_TOKENS] = "--min-tokens-per-expert",
        [EP_ROUTE_JSON] = "--json",
        [EP_ROUTE_CAPACITY] = "--capacity",
    };
    EP_ASSERT((unsigned)option < EP_ROUTE_NUM_OPTIONS);
    return names[option];
}

/* The capacity option that was given, NULL = none. */
static const char *find_capacity(const struct ep_capacity_options *c)
{
    const struct {
        bool given;
        const char *name;
    } all[] = {{c->style != NULL, "--style"},
               {c->router != NULL, "--router"},
               {c->rule != NULL, "--capacity-rule"},
               {c->rows > 0, "--capacity"},
               {c->has_factor, "--capacity-factor"},
               {c->has_min, "--min-capacity"},
               {c->align > 0, "--capacity-align"},
               {c->eval_fraction > 0, "--capacity-eval"},
               {c->drop != NULL, "--drop"},
               {c->overflow != NULL, "--overflow"},
               {c->pad, "--pad"}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].given) {
            return all[i].name;
        }
    }
    return NULL;
}

/* " --model, --ranks". text [size] */
static const char *list_options(uint64_t uses, char *text, size_t size)
{
    text[0] = '\0';
    for (int i = 0; i < EP_ROUTE_NUM_OPTIONS; i++) {
        const size_t used = strlen(text);
        if ((uses & EP_ROUTE_BIT(i)) != 0) {
            snprintf(text + used, size - used, "%s %s", used > 0 ? "," : "",
                     ep_route_option_name((enum ep_route_option)i));
        }
    }
    return text;
}

enum ep_status ep_route_options_refuse(const struct ep_route_options *o, uint64_t uses,
                                       const char *mode)
{
    char text[512];
    for (int i = 0; i < EP_ROUTE_NUM_OPTIONS; i++) {
        const enum ep_route_option option = (enum ep_route_option)i;
        const char *name = option == EP_ROUTE_CAPACITY        ? find_capacity(&o->capacity)
                           : ep_route_option_given(o, option) ? ep_route_option_name(option)
                                                              : NULL;
        if (name != NULL && (uses & EP_ROUTE_BIT(i)) == 0) {
            return ep_error_set(EP_EINVAL, "%s does not apply to %s, which takes%s and its own; leave it out",
                                name, mode, list_options(uses, text, sizeof text));
        }
    }
    return EP_OK;
}

enum ep_status ep_route_options_apply_model(struct ep_route_options *o)
{
    enum ep_status status;
    struct ep_models *models = NULL;
    const struct ep_model *model = NULL;
    if (o->model == NULL && o->model_file == NULL) {
        return EP_OK;
    }
    EP_TRY(ep_models_open(o->model_file, o->model, &models, &model));
    EP_TRY(ep_model_need_experts(model));
    o->num_experts = o->num_experts != 0 ? o->num_experts : model->num_experts;
    o->top_k = o->top_k != 0 ? o->top_k : model->top_k;
    o->hidden = o->hidden != 0 || o->token_bytes != 0 ? o->hidden : model->hidden;
out:
    ep_models_destroy(models);
    return status;
}

enum ep_status ep_route_options_nodes(const struct ep_route_options *o, int64_t num_ranks,
                                      int64_t *num_nodes)
{
    const int64_t per_node = o->ranks_per_node;
    if (per_node != 0 && num_ranks % per_node != 0) {
        return ep_error_set(EP_EINVAL,
                            "--ranks-per-node %" PRId64 " does not divide %" PRId64 " ranks",
                            per_node, num_ranks);
    }
    if (o->num_nodes != 0 && num_ranks % o->num_nodes != 0) {
        return ep_error_set(EP_EINVAL, "--nodes %" PRId64 " does not divide %" PRId64 " ranks",
                            o->num_nodes, num_ranks);
    }
    if (per_node != 0 && o->num_nodes != 0 && per_node * o->num_nodes != num_ranks) {
        return ep_error_set(EP_EINVAL,
                            "--nodes %" PRId64 " of --ranks-per-node %" PRId64
                            " contradict %" PRId64 " ranks",
                            o->num_nodes, per_node, num_ranks);
    }
    *num_nodes = o->num_nodes != 0 ? o->num_nodes : per_node != 0 ? num_ranks / per_node : 1;
    return EP_OK;
}

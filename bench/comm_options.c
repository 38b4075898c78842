/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `epbench comm`. */
#include "bench/comm_sweep.h"

#include "base/units.h"
#include "kernels/place.h"

#include <errno.h>

enum {
    KEY_TOKENS = 2000,
    KEY_TOKENS_PER_RANK,
    KEY_HIDDEN,
    KEY_EXPERTS,
    KEY_TOP_K,
    KEY_SKEW,
    KEY_LAYER,
    KEY_TRACE_FORMAT,
    KEY_TRANSPORT,
    KEY_DTYPE,
    KEY_COMBINE_DTYPE,
    KEY_MODEL,
    KEY_MODEL_FILE,
    KEY_ALGORITHM,
    KEY_RANKS,
    KEY_RANK_ORDER,
    KEY_OP,
    KEY_PLACEMENT,
    KEY_REPLICAS,
    KEY_BUFFERS,
    KEY_COLD,
    KEY_CHECK,
    KEY_LIMITS,
    KEY_VISITS,
    KEY_WARMUP,
    KEY_ITERS,
    KEY_CASE_TIME,
    KEY_TIME,
    KEY_BARE
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is sent (LIST: comma-separated, every combination is a case):", 1},
    {"tokens", KEY_TOKENS, "LIST", 0, "tokens per rank (default 512)", 1},
    {"tokens-per-rank", KEY_TOKENS_PER_RANK, "N0,N1,...", 0, "unequal tokens, one number a rank", 1},
    {"hidden", KEY_HIDDEN, "LIST", 0, "elements of a token row (default 2048)", 1},
    {"experts", KEY_EXPERTS, "N", 0, "experts (default 64, or the model's or trace's)", 1},
    {"top-k", KEY_TOP_K, "LIST", 0, "experts per token (default 2)", 1},
    {"skew", KEY_SKEW, "LIST", 0,
     "uniform (default), zipf:S, lognormal:S, dirichlet:A, gini:G, counts:FILE, hot:R[@RANK], "
     "khot:N:F, trace:FILE, trace:sample; +source, +masked:F behind any", 1},
    {"layer", KEY_LAYER, "N", 0, "layer of traces and counts that have several", 1},
    {"trace-format", KEY_TRACE_FORMAT, "NAME", 0,
     "csv, megatron, vllm-log, vllm-npy, sglang, esft[:TOP_K], counts (default: by content)", 1},
    {"model", KEY_MODEL, "NAME", 0, "shape of a model of the zoo; other options override it", 1},
    {"model-file", KEY_MODEL_FILE, "FILE", 0, "models of your own, in place of the zoo", 1},
    {"dtype", KEY_DTYPE, "LIST", 0, "fp32, bf16, fp8: rows of dispatch (default bf16)", 1},
    {"combine-dtype", KEY_COMBINE_DTYPE, "T", 0,
     "fp32 or bf16: rows of combine (default: --dtype, bf16 where that is fp8)", 1},
    {NULL, 0, NULL, 0, "How it is sent:", 2},
    {"transport", KEY_TRANSPORT, "LIST", 0,
     "null, alltoall, alltoallv, alltoallv-dedup, pairwise, hier, hier2d, allgather, "
     "allgather-ring, allreduce, allreduce-ring, rma, shm, "
     "hier-shm (default alltoallv)", 2},
    {"algorithm", KEY_ALGORITHM, "LIST", 0,
     "of the MPI library's all-to-all: default, linear, pairwise; of shm: pull, pull-stream, push, "
     "push-stream", 2},
    {"op", KEY_OP, "LIST", 0, "dispatch, combine (default both)", 2},
    {"ranks", KEY_RANKS, "LIST", 0, "the first so many ranks (default all)", 2},
    {"ep", KEY_RANKS, "LIST", OPTION_ALIAS, NULL, 2},
    {"placement", KEY_PLACEMENT, "FILE", 0,
     "experts on ranks by a file with one map, as epbench place --save writes it (default contiguous)",
     2},
    {"replicas", KEY_REPLICAS, "N", 0,
     "N more places for experts (at least), filled by EPLB for the loads that the skew gives these tokens", 2},
    {"rank-order", KEY_RANK_ORDER, "packed|spread", 0,
     "--ranks fills node after node, or goes round the nodes (default packed)", 2},
    {NULL, 0, NULL, 0, "How it is measured:", 3},
    {"visits", KEY_VISITS, "N", 0, "visits of each case, spread over the run (default 3)", 3},
    {"case-time", KEY_CASE_TIME, "TIME", 0, "time for one visit of a case (default 1s, layer 3s)", 3},
    {"time", KEY_TIME, "TIME", 0, "time for the whole sweep; what does not fit is listed", 3},
    {"warmup", KEY_WARMUP, "N", 0, "repetitions before samples (default 3)", 3},
    {"iters", KEY_ITERS, "N", 0, "samples at most (default: as the interval needs)", 3},
    {"buffers", KEY_BUFFERS, "LIST", 0,
     "of rows: exact (default: once, for the rows of the case), static (once, for the capacity or the worst "
     "case), dynamic (for each step's rows, allocated in it)", 3},
    {"cold", KEY_COLD, NULL, 0, "empty the caches before every repetition", 3},
    {"bare", KEY_BARE, "TIME", 0,
     "also hold the exchange phase against a bare MPI_Alltoallv for that long", 3},
    {"limits", KEY_LIMITS, NULL, 0,
     "time the transports of each point in turns, beside what the machine could do at best", 3},
    {"check", KEY_CHECK, "0|1", 0, "verify every row of every case (default 1)", 3},
    {0},
};

struct ep_comm_options ep_comm_options_default(void)
{
    return (struct ep_comm_options){.num_visits = 3, .warmup = 3, .case_s = 1, .layer = -1};
}

/* The options that are kept as text, for comm_sweep.c to parse. */
static const char **text_field(struct ep_comm_options *o, int key)
{
    switch (key) {
    case KEY_TOKENS: return &o->tokens;
    case KEY_TOKENS_PER_RANK: return &o->tokens_per_rank;
    case KEY_HIDDEN: return &o->hidden;
    case KEY_EXPERTS: return &o->experts;
    case KEY_TOP_K: return &o->top_k;
    case KEY_SKEW: return &o->skew;
    case KEY_TRANSPORT: return &o->transport;
    case KEY_DTYPE: return &o->dtype;
    case KEY_COMBINE_DTYPE: return &o->combine_dtype;
    case KEY_MODEL: return &o->model;
    case KEY_MODEL_FILE: return &o->model_file;
    case KEY_ALGORITHM: return &o->algorithm;
    case KEY_RANKS: return &o->ranks;
    case KEY_RANK_ORDER: return &o->rank_order;
    case KEY_OP: return &o->ops;
    case KEY_TRACE_FORMAT: return &o->trace_format;
    case KEY_PLACEMENT: return &o->placement;
    case KEY_BUFFERS: return &o->buffers;
    default: return NULL;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ep_comm_options *o = state->input;
    const char **text = text_field(o, key);
    int64_t flag = 0;
    enum ep_status status = EP_OK;
    if (text != NULL) {
        *text = arg;
        return 0;
    }
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->capacity;
        break;
    case KEY_LAYER:
        status = ep_parse_i64(arg, "--layer", 0, INT32_MAX, &o->layer);
        break;
    case KEY_REPLICAS:
        status = ep_parse_i64(arg, "--replicas", 1, EP_PLACE_MAX_SLOTS, &o->replicas);
        break;
    case KEY_LIMITS:
        o->limits = true;
        break;
    case KEY_COLD:
        o->cold = true;
        break;
    case KEY_CHECK:
        status = ep_parse_i64(arg, "--check", 0, 1, &flag);
        o->no_check = flag == 0;
        break;
    case KEY_VISITS:
        status = ep_parse_i64(arg, "--visits", 1, 1000, &o->num_visits);
        break;
    case KEY_WARMUP:
        status = ep_parse_i64(arg, "--warmup", 1, 1000000, &o->warmup);
        break;
    case KEY_ITERS:
        status = ep_parse_i64(arg, "--iters", 1, 10000000, &o->max_samples);
        break;
    case KEY_CASE_TIME:
        status = ep_parse_time(arg, "--case-time", &o->case_s);
        break;
    case KEY_TIME:
        status = ep_parse_time(arg, "--time", &o->budget_s);
        break;
    case KEY_BARE:
        status = ep_parse_time(arg, "--bare", &o->bare_s);
        break;
    case ARGP_KEY_SUCCESS:
        if (o->tokens != NULL && o->tokens_per_rank != NULL) {
            status = ep_error_set(EP_EINVAL, "--tokens and --tokens-per-rank: give only one");
        } else if (o->placement != NULL && o->replicas > 0) {
            status = ep_error_set(EP_EINVAL, "--placement and --replicas: give only one");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return status == EP_OK ? 0 : EINVAL;
}

static const struct argp_child children[] = {{&ep_capacity_argp, 0, NULL, 0}, {0}};

const struct argp ep_comm_argp = {.options = options, .parser = parse, .children = children};

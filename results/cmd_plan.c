/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench plan`: every valid EP x TP x DP x PP of a model, with memory and bytes. No MPI. */
#include "base/command.h"
#include "base/options.h"
#include "base/units.h"
#include "kernels/capacity_options.h"
#include "kernels/model_options.h"
#include "results/plan_report.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum ep_status ep_cmd_plan(int argc, char **argv);

enum option_key {
    KEY_WORLD = 256,
    KEY_GPU_MEMORY,
    KEY_EP,
    KEY_TP,
    KEY_DP,
    KEY_PP,
    KEY_TOKENS,
    KEY_MICROBATCHES,
    KEY_DTYPE,
    KEY_COMBINE_DTYPE,
    KEY_WEIGHT_DTYPE,
    KEY_TRAINING,
    KEY_OPTIMIZER,
    KEY_SHARD_OPTIMIZER,
    KEY_RECOMPUTE,
    KEY_BUFFERS,
    KEY_BASIS,
    KEY_SKEW,
    KEY_SAMPLES,
    KEY_SEED,
    KEY_RANKS,
    KEY_MACHINE,
    KEY_BANDWIDTH,
    KEY_ALL,
    KEY_JSON
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Where it runs:", 2},
    {"world", KEY_WORLD, "N", 0, "ranks in all (required)", 2},
    {"gpu-memory", KEY_GPU_MEMORY, "SIZE", 0, "memory of a rank, with unit: 80GiB", 2},
    {"ep", KEY_EP, "LIST", 0, "only these degrees of expert parallelism", 2},
    {"tp", KEY_TP, "LIST", 0, "only these of tensor parallelism", 2},
    {"dp", KEY_DP, "LIST", 0, "only these of data parallelism", 2},
    {"pp", KEY_PP, "LIST", 0, "only these of pipeline parallelism", 2},
    {NULL, 0, NULL, 0, "What a step is:", 3},
    {"tokens", KEY_TOKENS, "N", 0,
     "tokens of a micro-batch of one DP rank, which its TP ranks share (default 4096)", 3},
    {"microbatches", KEY_MICROBATCHES, "N", 0, "micro-batches of a step (default 1)", 3},
    {"dtype", KEY_DTYPE, "TYPE", 0, "of dispatched rows: fp32, bf16 (default) or fp8", 3},
    {"combine-dtype", KEY_COMBINE_DTYPE, "TYPE", 0,
     "of returned rows: fp32 or bf16 (default: as dispatched, bf16 for fp8)", 3},
    {"weight-dtype", KEY_WEIGHT_DTYPE, "TYPE", 0,
     "fp32, bf16, fp8 or mxfp4 (default: as the model is published)", 3},
    {"training", KEY_TRAINING, NULL, 0, "count gradients, backward traffic, kept activations", 3},
    {"optimizer", KEY_OPTIMIZER, "NAME", 0, "adam or none (default); adam implies --training", 3},
    {"shard-optimizer", KEY_SHARD_OPTIMIZER, NULL, 0,
     "optimizer state spread over the ranks with the same weights", 3},
    {"recompute", KEY_RECOMPUTE, NULL, 0, "keep the input of each layer only", 3},
    {"token-buffers", KEY_BUFFERS, "KIND", 0,
     "plain (default: what is sent and received, or experts' rooms) or deepep-ll (as DeepEP's "
     "low-latency kernels)",
     3},
    {"byte-basis", KEY_BASIS, "BASIS", 0,
     "of what EP sends: copies (default) or rank-dedup (a token once per rank)", 3},
    {NULL, 0, NULL, 0, "How tokens are routed:", 4},
    {"skew", KEY_SKEW, "SKEW", 0, "as in `epbench route` (default uniform), but hot and +source", 4},
    {"samples", KEY_SAMPLES, "N", 0, "routings sampled (default 100)", 4},
    {"seed", KEY_SEED, "N", 0, "random seed (default 1)", 4},
    {NULL, 0, NULL, 0, "Experts spread, copied or cut:", 6},
    {"ranks", KEY_RANKS, "P", 0, "ranks of that table (default: the largest EP of the world)", 6},
    {"machine", KEY_MACHINE, "FILE", 0, "machine.json of `epbench fit`, for predicted times", 6},
    {"bandwidth", KEY_BANDWIDTH, "RATE", 0, "of a rank, in place of it: 400Gb/s, 50GB/s", 6},
    {NULL, 0, NULL, 0, "Output:", 7},
    {"all", KEY_ALL, NULL, 0, "all plans (default: the first 10)", 7},
    {"json", KEY_JSON, "FILE", 0, "write JSON; - = standard output, in place of the tables", 7},
    {0}};

enum { DEFAULT_TOKENS = 4096, DEFAULT_SAMPLES = 100, SHOWN_PLANS = 10 };

struct given {
    struct ep_model_options model;
    struct ep_capacity_options capacity;
    struct ep_plan_config config;
    struct degrees {
        int64_t *values; /* owned */
        int64_t num;
    } ep, tp, dp, pp;
    bool combine_given;
    bool weights_given;
    int64_t num_ranks;
    double bw_bytes_per_s;
    const char *machine_path;
    const char *json_path;
    bool all;
};

/* A size must say its unit here: 80 is no memory of a GPU. */
static enum ep_status parse_memory(const char *text, double *memory_bytes)
{
    int64_t size_bytes = 0;
    const size_t length = strlen(text);
    if (length > 0 && isdigit((unsigned char)text[length - 1])) {
        return ep_error_set(EP_EINVAL, "--gpu-memory: %s has no unit; write for example 80GiB",
                            text);
    }
    const enum ep_status status = ep_parse_size(text, "--gpu-memory", &size_bytes);
    if (status == EP_OK && size_bytes == 0) {
        return ep_error_set(EP_EINVAL, "--gpu-memory: above 0 expected");
    }
    *memory_bytes = (double)size_bytes;
    return status;
}

static enum ep_status parse_degrees(const char *text, const char *what, struct degrees *degrees)
{
    enum ep_status status;
    struct ep_list list = {0};
    int64_t *values = NULL;
    EP_TRY(ep_list_split(text, ',', what, &list));
    values = malloc((size_t)list.num * sizeof *values);
    if (values == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", what);
        goto out;
    }
    for (int64_t i = 0; i < list.num; i++) {
        EP_TRY(ep_parse_i64(list.items[i], what, 1, EP_PLAN_MAX_WORLD, &values[i]));
    }
    free(degrees->values);
    *degrees = (struct degrees){values, list.num};
    values = NULL;
out:
    free(values);
    ep_list_fini(&list);
    return status;
}

static enum ep_status parse_optimizer(const char *text, struct ep_plan_config *c)
{
    if (strcmp(text, "adam") == 0) {
        c->optimizer = EP_PLAN_ADAM;
        c->training = true;
        return EP_OK;
    }
    if (strcmp(text, "none") == 0) {
        c->optimizer = EP_PLAN_NO_OPTIMIZER;
        return EP_OK;
    }
    return ep_error_set(EP_EINVAL, "--optimizer: '%s' is neither adam nor none", text);
}

static enum ep_status parse_buffers(const char *text, enum ep_plan_buffers *buffers)
{
    if (strcmp(text, "deepep-ll") != 0 && strcmp(text, "plain") != 0) {
        return ep_error_set(EP_EINVAL, "--token-buffers: '%s' is neither plain nor deepep-ll",
                            text);
    }
    *buffers = text[0] == 'd' ? EP_PLAN_BUFFERS_DEEPEP_LL : EP_PLAN_BUFFERS_PLAIN;
    return EP_OK;
}

static enum ep_status parse_basis(const char *text, enum ep_basis *basis)
{
    const enum ep_basis known[] = {EP_BASIS_COPIES, EP_BASIS_RANK};
    for (int i = 0; i < 2; i++) {
        if (strcmp(text, ep_basis_name(known[i])) == 0) {
            *basis = known[i];
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--byte-basis: '%s' is neither copies nor rank-dedup", text);
}

static enum ep_status parse_number(int key, const char *arg, struct given *g)
{
    struct ep_plan_config *c = &g->config;
    int64_t seed = 0;
    enum ep_status status;
    switch (key) {
    case KEY_WORLD:
        return ep_parse_i64(arg, "--world", 1, EP_PLAN_MAX_WORLD, &c->world);
    case KEY_TOKENS:
        return ep_parse_i64(arg, "--tokens", 1, INT32_MAX, &c->tokens);
    case KEY_MICROBATCHES:
        return ep_parse_i64(arg, "--microbatches", 1, 1000000, &c->num_microbatches);
    case KEY_SAMPLES:
        return ep_parse_i64(arg, "--samples", 1, EP_PLAN_MAX_SAMPLES, &c->num_samples);
    case KEY_RANKS:
        return ep_parse_i64(arg, "--ranks", 1, EP_PLAN_MAX_WORLD, &g->num_ranks);
    case KEY_SEED:
        status = ep_parse_i64(arg, "--seed", 0, INT64_MAX, &seed);
        c->seed = (uint64_t)seed;
        return status;
    case KEY_BANDWIDTH:
        return ep_parse_bandwidth(arg, "--bandwidth", &g->bw_bytes_per_s);
    default:
        return parse_memory(arg, &c->gpu_memory_bytes);
    }
}

static enum ep_status parse_text(int key, const char *arg, struct given *g)
{
    switch (key) {
    case KEY_EP:
        return parse_degrees(arg, "--ep", &g->ep);
    case KEY_TP:
        return parse_degrees(arg, "--tp", &g->tp);
    case KEY_DP:
        return parse_degrees(arg, "--dp", &g->dp);
    case KEY_PP:
        return parse_degrees(arg, "--pp", &g->pp);
    case KEY_DTYPE:
        return ep_dtype_parse(arg, "--dtype", &g->config.dispatch_dtype);
    case KEY_COMBINE_DTYPE:
        g->combine_given = true;
        return ep_dtype_parse(arg, "--combine-dtype", &g->config.combine_dtype);
    case KEY_WEIGHT_DTYPE:
        g->weights_given = true;
        return ep_weight_type_parse(arg, "--weight-dtype", &g->config.weights);
    case KEY_OPTIMIZER:
        return parse_optimizer(arg, &g->config);
    case KEY_BASIS:
        return parse_basis(arg, &g->config.byte_basis);
    case KEY_BUFFERS:
        return parse_buffers(arg, &g->config.buffers);
    default:
        return parse_number(key, arg, g);
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct given *g = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &g->model;
        state->child_inputs[1] = &g->capacity;
        return 0;
    case KEY_TRAINING:
        g->config.training = true;
        return 0;
    case KEY_SHARD_OPTIMIZER:
        g->config.shard_optimizer = true;
        return 0;
    case KEY_RECOMPUTE:
        g->config.recompute = true;
        return 0;
    case KEY_SKEW:
        g->config.skew = arg;
        return 0;
    case KEY_MACHINE:
        g->machine_path = arg;
        return 0;
    case KEY_ALL:
        g->all = true;
        return 0;
    case KEY_JSON:
        g->json_path = arg;
        return 0;
    case ARGP_KEY_ARG:
        ep_error_set(EP_EINVAL, "unexpected argument '%s'", arg);
        return EINVAL;
    default:
        break;
    }
    if (key < KEY_WORLD || key > KEY_JSON) {
        return ARGP_ERR_UNKNOWN;
    }
    return parse_text(key, arg, g) == EP_OK ? 0 : EINVAL;
}

/* --- what holds together ------------------------------------------------------------------ */

static enum ep_status check_given(struct given *g)
{
    struct ep_plan_config *c = &g->config;
    if (c->world == 0) {
        return ep_error_set(EP_EINVAL, "--world is missing: the number of ranks to plan for");
    }
    if (!g->combine_given) {
        c->combine_dtype = c->dispatch_dtype == EP_FP8 ? EP_BF16 : c->dispatch_dtype;
    } else if (c->combine_dtype == EP_FP8) {
        return ep_error_set(EP_EINVAL, "--combine-dtype: sums are returned as fp32 or bf16");
    }
    if (c->shard_optimizer && c->optimizer == EP_PLAN_NO_OPTIMIZER) {
        return ep_error_set(EP_EINVAL, "--shard-optimizer needs --optimizer adam");
    }
    if (c->recompute && !c->training) {
        return ep_error_set(EP_EINVAL, "--recompute is for --training");
    }
    if (g->machine_path != NULL && !isnan(g->bw_bytes_per_s)) {
        return ep_error_set(EP_EINVAL, "--machine and --bandwidth exclude each other");
    }
    return EP_OK;
}

static enum ep_status check_degrees(const struct given *g)
{
    const struct {
        const char *name;
        const struct degrees *degrees;
    } all[] = {{"--ep", &g->ep}, {"--tp", &g->tp}, {"--dp", &g->dp}, {"--pp", &g->pp}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        for (int64_t j = 0; j < all[i].degrees->num; j++) {
            if (g->config.world % all[i].degrees->values[j] != 0) {
                return ep_error_set(EP_EINVAL,
                                    "%s: %" PRId64 " does not divide a world of %" PRId64,
                                    all[i].name, all[i].degrees->values[j], g->config.world);
            }
        }
    }
    return EP_OK;
}

/* Largest degree of expert parallelism that divides both the world and the experts. */
static int64_t find_most_ranks(int64_t world, int64_t num_experts)
{
    int64_t most = 1;
    for (int64_t d = 2; d <= world && d <= num_experts; d++) {
        most = world % d == 0 && num_experts % d == 0 ? d : most;
    }
    return most;
}

static void show_progress(int64_t done, int64_t total)
{
    if (isatty(STDERR_FILENO) && ep_options_launcher_rank() <= 0) {
        fprintf(stderr, "\rsampling routings: %" PRId64 " of %" PRId64 "%s", done, total,
                done == total ? "\n" : "");
    }
}

static enum ep_status report(const struct given *g, struct ep_plan_report *r)
{
    enum ep_status status;
    EP_TRY(ep_plan_report_finish(r));
    if (g->json_path != NULL) {
        EP_TRY(ep_plan_report_save(r, g->json_path));
    }
    if (g->json_path == NULL || strcmp(g->json_path, "-") != 0) {
        EP_TRY(ep_plan_report_print(r, g->all ? 0 : SHOWN_PLANS, stdout));
    }
out:
    return status;
}

static enum ep_status make_plans(struct given *g)
{
    enum ep_status status;
    struct ep_models *models = NULL;
    struct ep_model model;
    struct ep_fitted_machine *machine = NULL;
    struct ep_plan_set set = {0};
    struct ep_plan_config *c = &g->config;
    struct ep_capacity_policy capacity;
    const char *note = NULL;
    EP_TRY(ep_model_options_resolve(&g->model, &models, &model));
    if (g->machine_path != NULL) {
        EP_TRY(ep_fitted_machine_read(g->machine_path, &machine));
    }
    c->model = &model;
    EP_TRY(ep_model_need_experts(&model));
    EP_TRY(ep_capacity_options_policy(&g->capacity, model.top_k, c->seed, &capacity));
    c->capacity = ep_capacity_is_set(&capacity) ? &capacity : NULL;
    if (!g->weights_given) {
        c->weights = ep_weight_type_of_model(&model, &note);
    }
    c->ep = (struct ep_plan_degrees){g->ep.values, g->ep.num};
    c->tp = (struct ep_plan_degrees){g->tp.values, g->tp.num};
    c->dp = (struct ep_plan_degrees){g->dp.values, g->dp.num};
    c->pp = (struct ep_plan_degrees){g->pp.values, g->pp.num};
    EP_TRY(ep_plan_set_make(c, &set));
    struct ep_plan_report r = {
        .config = c,
        .set = &set,
        .weight_note = note,
        .machine = machine,
        .bw_bytes_per_s = g->bw_bytes_per_s,
        .num_ranks = g->num_ranks > 0 ? g->num_ranks : find_most_ranks(c->world, model.num_experts),
    };
    status = report(g, &r);
out:
    ep_plan_set_fini(&set);
    ep_fitted_machine_destroy(machine);
    ep_models_destroy(models);
    return status;
}

enum ep_status ep_cmd_plan(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {.argp = &ep_model_argp, .group = 1}, {.argp = &ep_capacity_argp, .group = 5}, {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "Every valid way to split a model over EP x TP x DP x PP, in the plain product and "
               "folded: memory per rank, bytes per step, and what does not fit.",
        .children = children,
    };
    enum ep_status status;
    struct given given = {
        .model = EP_MODEL_OPTIONS_NONE,
        .bw_bytes_per_s = (double)NAN,
        .config = {.tokens = DEFAULT_TOKENS,
                   .num_microbatches = 1,
                   .gpu_memory_bytes = (double)NAN,
                   .dispatch_dtype = EP_BF16,
                   .skew = "uniform",
                   .seed = 1,
                   .num_samples = DEFAULT_SAMPLES,
                   .progress = show_progress},
    };
    EP_TRY(ep_options_parse(&argp, argc, argv, &given));
    EP_TRY(check_given(&given));
    EP_TRY(check_degrees(&given));
    EP_TRY(make_plans(&given));
out:
    free(given.ep.values);
    free(given.tp.values);
    free(given.dp.values);
    free(given.pp.values);
    return status;
}

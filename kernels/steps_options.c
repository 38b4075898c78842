/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing the options of `epbench route --steps`. */
#include "kernels/steps_options.h"

#include "base/options.h"
#include "base/units.h"
#include "kernels/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    KEY_STEPS = 4000,
    KEY_AUX_LOSS,
    KEY_AUX_FORMULA,
    KEY_JITTER,
    KEY_BIAS_RATE,
    KEY_Z_LOSS,
    KEY_SCORE,
    KEY_CLUSTERS,
    KEY_CLUSTER_ZIPF,
    KEY_DIM,
    KEY_SEQUENCE,
    KEY_LR,
    KEY_ROUTER_LR
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Training a router and experts on clustered tokens:", 6},
    {"steps", KEY_STEPS, "N", 0,
     "train a small layer for N steps in place of counting; --experts (default 16), --top-k (1), "
     "--tokens per step (1024)",
     6},
    {"aux-loss", KEY_AUX_LOSS, "LIST", 0,
     "weights of the balancing loss (default 0,0.001,0.003,0.01,0.03,0.1,0.3,1)", 6},
    {"aux-formula", KEY_AUX_FORMULA, "LOSS", 0,
     "plain, megatron, megatron-seq (default), deepspeed-topk, switch, ...: kernels/README.md", 6},
    {"jitter", KEY_JITTER, "LIST", 0,
     "the router's input times U(1 - J, 1 + J); 0.01 is Switch's (default 0)", 6},
    {"bias-rate", KEY_BIAS_RATE, "LIST", 0,
     "bias update without a loss, per step; 0.001 is DeepSeek-V3's (default 0)", 6},
    {"z-loss", KEY_Z_LOSS, "W", 0, "weight of the z-loss (default 0)", 6},
    {"score", KEY_SCORE, "NAME", 0, "softmax (default) or sigmoid", 6},
    {"clusters", KEY_CLUSTERS, "N", 0, "clusters of tokens (default: as many as experts)", 6},
    {"cluster-zipf", KEY_CLUSTER_ZIPF, "S", 0,
     "the r-th cluster is drawn with weight r^-S (default 0)", 6},
    {"dim", KEY_DIM, "D", 0, "elements of a token (default 32)", 6},
    {"sequence", KEY_SEQUENCE, "N", 0, "consecutive tokens of one cluster (default 8)", 6},
    {"lr", KEY_LR, "R", 0, "experts' learning rate in units of outputs / D (default 1)", 6},
    {"router-lr", KEY_ROUTER_LR, "R", 0, "router's learning rate in units of 1 / D (default 2)", 6},
    {"output", 'o', "FILE", 0, "with --steps: every step's values as TSV; FILE must not exist", 6},
    {0}};

static enum ep_status parse_list(const char *text, const char *what, double max,
                                 struct ep_steps_list *list)
{
    enum ep_status status;
    struct ep_list items = {0};
    struct ep_steps_list parsed = {.num = 0};
    EP_TRY(ep_list_split(text, ',', what, &items));
    if (items.num > EP_STEPS_MAX_SWEEP) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: %" PRId64 " values, at most %d", what, items.num,
                            EP_STEPS_MAX_SWEEP));
    }
    for (; parsed.num < items.num; parsed.num++) {
        EP_TRY(ep_parse_f64(items.items[parsed.num], what, 0, max, &parsed.values[parsed.num]));
    }
    *list = parsed;
out:
    ep_list_fini(&items);
    return status;
}

static enum ep_status parse_score(const char *text, enum ep_dynamics_score *score)
{
    for (int i = 0; i < EP_DYNAMICS_NUM_SCORES; i++) {
        if (strcmp(text, ep_dynamics_score_names[i]) == 0) {
            *score = (enum ep_dynamics_score)i;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--score: '%s', softmax or sigmoid expected", text);
}

static enum ep_status parse_rate(const char *text, const char *what, double *rate)
{
    const enum ep_status status = ep_parse_f64(text, what, 0, 1e6, rate);
    return status != EP_OK || *rate > 0
               ? status
               : ep_error_set(EP_EINVAL, "%s: a number above 0 expected", what);
}

static enum ep_status parse_value(int key, const char *arg, struct ep_steps_options *o)
{
    switch (key) {
    case KEY_STEPS:
        return ep_parse_i64(arg, "--steps", 1, EP_STEPS_MAX_STEPS, &o->num_steps);
    case KEY_AUX_LOSS:
        return parse_list(arg, "--aux-loss", 1e6, &o->aux_weights);
    case KEY_AUX_FORMULA:
        return ep_loss_find(arg, "--aux-formula", &o->aux);
    case KEY_JITTER:
        return parse_list(arg, "--jitter", 1, &o->jitters);
    case KEY_BIAS_RATE:
        return parse_list(arg, "--bias-rate", 1e6, &o->bias_rates);
    case KEY_Z_LOSS:
        return ep_parse_f64(arg, "--z-loss", 0, 1e6, &o->z_weight);
    case KEY_SCORE:
        return parse_score(arg, &o->score);
    case KEY_CLUSTERS:
        return ep_parse_i64(arg, "--clusters", 1, EP_MAX_EXPERTS, &o->num_clusters);
    case KEY_CLUSTER_ZIPF:
        return ep_parse_f64(arg, "--cluster-zipf", 0, 100, &o->zipf);
    case KEY_DIM:
        return ep_parse_i64(arg, "--dim", 1, 1 << 16, &o->dim);
    case KEY_SEQUENCE:
        return ep_parse_i64(arg, "--sequence", 1, INT32_MAX, &o->sequence_tokens);
    case KEY_LR:
        return parse_rate(arg, "--lr", &o->expert_rate);
    case KEY_ROUTER_LR:
        return parse_rate(arg, "--router-lr", &o->router_rate);
    default:
        break;
    }
    o->path = arg;
    return EP_OK;
}

static const char *option_name(int key)
{
    for (const struct argp_option *o = options; o->name != NULL || o->doc != NULL; o++) {
        if (o->key == key && o->name != NULL) {
            return o->name;
        }
    }
    return NULL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct ep_steps_options *o = state->input;
    if (key == ARGP_KEY_END && o->num_steps == 0 && o->first != NULL) {
        ep_error_set(EP_EINVAL, "--%s needs --steps", o->first);
        return EINVAL;
    }
    if (key != 'o' && (key < KEY_STEPS || key > KEY_ROUTER_LR)) {
        return ARGP_ERR_UNKNOWN;
    }
    if (o->first == NULL && key != KEY_STEPS) {
        o->first = option_name(key);
    }
    return parse_value(key, arg, o) == EP_OK ? 0 : EINVAL;
}

const struct argp ep_steps_argp = {.options = options, .parser = parse_option};

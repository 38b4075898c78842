/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `epbench layer`. */
#include "bench/layer_sweep.h"

#include "base/units.h"

#include <errno.h>

enum { KEY_FFN = 2200, KEY_SHARED_FFN, KEY_BACKEND, KEY_ACTIVATION, KEY_TIMELINE, KEY_REMEDIES, KEY_TP, KEY_DP, KEY_BACKWARD, KEY_OVERLAP };

enum { MAX_FFN = 1 << 20, MAX_GROUPS = 1 << 15 };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is computed:", 1},
    {"ffn", KEY_FFN, "N", 0, "inner columns of one expert (default the model's, else 1408)", 1},
    {"shared-ffn", KEY_SHARED_FFN, "N", 0,
     "inner columns of all shared experts together (default the model's, else 0: none)", 1},
    {"activation", KEY_ACTIVATION, "NAME", 0,
     "swiglu, relu, gelu (default the model's, else swiglu)", 1},
    {"backend", KEY_BACKEND, "NAME", 0,
     "what multiplies: ref, cblas, onednn, native, ... (default as epbench kernels)", 1},
    {"tp", KEY_TP, "N", 0,
     "slice each expert's inner columns over N neighbouring ranks, their results all-reduced (default 1)", 1},
    {"dp", KEY_DP, "N", 0,
     "N copies side by side, each with tokens of its own (default 1); ranks = dp x --ep x tp", 1},
    {"backward", KEY_BACKWARD, NULL, 0,
     "backward too: both exchanges again, gradients by rows and by weights", 1},
    {"timeline", KEY_TIMELINE, "FILE", 0,
     "write a typical repetition of each case in Chrome trace format, for Perfetto", 1},
    {"overlap", KEY_OVERLAP, "chunks:N[,N...]", 0,
     "also in N chunks of tokens, whose exchanges run while experts compute: what is hidden, and what "
     "it costs", 1},
    {"remedies", KEY_REMEDIES, "LIST", OPTION_ARG_OPTIONAL,
     "what helps against a skew (default khot:1:0.9), side by side: none, drop, balance, "
     "expert-choice, replicas (default all)", 1},
    {0},
};

struct ep_layer_options ep_layer_options_default(void)
{
    struct ep_layer_options given = {.comm = ep_comm_options_default(), .shared_ffn = -1,
                                     .tp = 1, .dp = 1};
    given.comm.case_s = 3; /* a layer takes longer than its exchange */
    return given;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ep_layer_options *o = state->input;
    enum ep_status status = EP_OK;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->comm;
        break;
    case KEY_FFN:
        status = ep_parse_i64(arg, "--ffn", 1, MAX_FFN, &o->ffn);
        break;
    case KEY_SHARED_FFN:
        status = ep_parse_i64(arg, "--shared-ffn", 0, MAX_FFN, &o->shared_ffn);
        break;
    case KEY_TP:
        status = ep_parse_i64(arg, "--tp", 1, MAX_GROUPS, &o->tp);
        break;
    case KEY_DP:
        status = ep_parse_i64(arg, "--dp", 1, MAX_GROUPS, &o->dp);
        break;
    case KEY_BACKWARD:
        o->backward = true;
        break;
    case KEY_BACKEND:
        o->backend = arg;
        break;
    case KEY_ACTIVATION:
        o->activation = arg;
        break;
    case KEY_TIMELINE:
        o->timeline = arg;
        break;
    case KEY_OVERLAP:
        o->overlap = arg;
        break;
    case KEY_REMEDIES:
        o->compares = true;
        o->remedies = arg;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return status == EP_OK ? 0 : EINVAL;
}

static const struct argp_child children[] = {{&ep_comm_argp, 0, NULL, 0}, {0}};

const struct argp ep_layer_argp = {.options = options, .parser = parse, .children = children};

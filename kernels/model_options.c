/* SPDX-License-Identifier: Apache-2.0 */
/* A model from options: the zoo's or a file's, with what is given in place of it. */
#include "kernels/model_options.h"

#include "base/units.h"
#include "kernels/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>

enum option_key {
    KEY_MODEL = 0x4d00, /* apart from the keys of commands */
    KEY_MODEL_FILE,
    KEY_EXPERTS,
    KEY_TOP_K,
    KEY_HIDDEN,
    KEY_FFN,
    KEY_LAYERS,
    KEY_MOE_LAYERS,
    KEY_SHARED,
    KEY_SHARED_FFN,
    KEY_HEADS,
    KEY_GATED,
    KEY_NO_GATED,
    KEY_TOTAL_PARAMS,
    KEY_END
};

static const struct argp_option model_options[] = {
    {NULL, 0, NULL, 0, "The model:", 1},
    {"model", KEY_MODEL, "NAME", 0, "a model of the zoo (`epbench models`) or of --model-file", 1},
    {"model-file", KEY_MODEL_FILE, "FILE", 0, "models of your own: CSV or JSON, as kernels/README.md says",
     1},
    {"experts", KEY_EXPERTS, "N", 0, "routed experts of a layer", 1},
    {"top-k", KEY_TOP_K, "K", 0, "experts of each token", 1},
    {"hidden", KEY_HIDDEN, "N", 0, "elements of a token row", 1},
    {"ffn", KEY_FFN, "N", 0, "inner width of one routed expert", 1},
    {"layers", KEY_LAYERS, "N", 0, "layers", 1},
    {"moe-layers", KEY_MOE_LAYERS, "N", 0, "layers with experts (default: all)", 1},
    {"shared", KEY_SHARED, "N", 0, "shared experts of a layer (default 0)", 1},
    {"shared-ffn", KEY_SHARED_FFN, "N", 0, "inner width of one shared expert (default: --ffn)", 1},
    {"heads", KEY_HEADS, "N", 0, "attention heads", 1},
    {"gated", KEY_GATED, NULL, 0, "three matrices per expert (default)", 1},
    {"no-gated", KEY_NO_GATED, NULL, 0, "two matrices per expert", 1},
    {"total-params", KEY_TOTAL_PARAMS, "N", 0, "parameters in all, such as 671e9", 1},
    {0}};

/* Options that are whole numbers from 1 (--shared: from 0), and where they go. */
static const struct {
    int key;
    const char *what;
    int64_t min;
    int64_t max;
    size_t offset;
} counts[] = {
    {KEY_EXPERTS, "--experts", 1, EP_MAX_EXPERTS, offsetof(struct ep_model_options, num_experts)},
    {KEY_TOP_K, "--top-k", 1, EP_MAX_EXPERTS, offsetof(struct ep_model_options, top_k)},
    {KEY_HIDDEN, "--hidden", 1, INT32_MAX, offsetof(struct ep_model_options, hidden)},
    {KEY_FFN, "--ffn", 1, INT32_MAX, offsetof(struct ep_model_options, expert_ffn)},
    {KEY_LAYERS, "--layers", 1, 100000, offsetof(struct ep_model_options, num_layers)},
    {KEY_MOE_LAYERS, "--moe-layers", 1, 100000, offsetof(struct ep_model_options, num_moe_layers)},
    {KEY_SHARED, "--shared", 0, EP_MAX_EXPERTS, offsetof(struct ep_model_options, num_shared)},
    {KEY_SHARED_FFN, "--shared-ffn", 1, INT32_MAX, offsetof(struct ep_model_options, shared_ffn)},
    {KEY_HEADS, "--heads", 1, INT32_MAX, offsetof(struct ep_model_options, num_heads)},
};

static enum ep_status parse_count(int key, const char *arg, struct ep_model_options *o)
{
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (counts[i].key == key) {
            return ep_parse_i64(arg, counts[i].what, counts[i].min, counts[i].max,
                                (int64_t *)((char *)o + counts[i].offset));
        }
    }
    return ep_parse_f64(arg, "--total-params", 1, 1e18, &o->total_params);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct ep_model_options *o = state->input;
    switch (key) {
    case KEY_MODEL:
        o->name = arg;
        return 0;
    case KEY_MODEL_FILE:
        o->file = arg;
        return 0;
    case KEY_GATED:
        o->gated = 1;
        return 0;
    case KEY_NO_GATED:
        o->gated = 0;
        return 0;
    default:
        break;
    }
    if (key < KEY_MODEL || key >= KEY_END) {
        return ARGP_ERR_UNKNOWN;
    }
    return parse_count(key, arg, o) == EP_OK ? 0 : EINVAL;
}

const struct argp ep_model_argp = {.options = model_options, .parser = parse_option};

bool ep_model_options_have_shape(const struct ep_model_options *o)
{
    return o->num_experts != 0 || o->top_k != 0 || o->hidden != 0 || o->expert_ffn != 0 ||
           o->num_layers != 0 || o->num_moe_layers != 0 || o->num_shared >= 0 ||
           o->shared_ffn != 0 || o->gated >= 0;
}

/* --- of the zoo or a file ------------------------------------------------------------------ */

static enum ep_status check_dense(const struct ep_model_options *o, const struct ep_model *model)
{
    return ep_model_is_dense(model) && ep_model_options_have_shape(o)
               ? ep_error_set(EP_EINVAL, "model '%s' is dense: no shape of experts can be given",
                              model->name)
               : EP_OK;
}

/* --- of options alone ---------------------------------------------------------------------- */

static enum ep_status need_all(const struct ep_model_options *o)
{
    const struct {
        int64_t value;
        const char *name;
    } needed[] = {{o->num_experts, "--experts"},
                  {o->top_k, "--top-k"},
                  {o->hidden, "--hidden"},
                  {o->expert_ffn, "--ffn"},
                  {o->num_layers, "--layers"}};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (needed[i].value == 0) {
            return ep_error_set(EP_EINVAL,
                                "%s is missing: give --model NAME, --model-file FILE, or "
                                "--experts, --top-k, --hidden, --ffn and --layers",
                                needed[i].name);
        }
    }
    return EP_OK;
}

static struct ep_model blank_model(void)
{
    return (struct ep_model){.name = "custom",
                             .gated = true,
                             .weight_dtype = "",
                             .router = "",
                             .route_scale = (double)NAN,
                             .published_total_b = (double)NAN,
                             .published_active_b = (double)NAN,
                             .routed_expert_b = (double)NAN,
                             .active_routed_b = (double)NAN,
                             .source = "options",
                             .confidence = "given",
                             .other_claims = "",
                             .heads_source = ""};
}

/* --- what is given replaces -------------------------------------------------------------- */

static void replace(int64_t given, int64_t *value)
{
    *value = given > 0 ? given : *value;
}

static void replace_shared(const struct ep_model_options *o, struct ep_model *m)
{
    const int64_t each = o->shared_ffn != 0   ? o->shared_ffn
                         : m->num_shared != 0 ? m->shared_ffn_total / m->num_shared
                                              : m->expert_ffn;
    if (o->num_shared >= 0) {
        m->num_shared = o->num_shared;
    } else if (o->shared_ffn != 0 && m->num_shared == 0) {
        m->num_shared = 1;
    }
    if (o->num_shared >= 0 || o->shared_ffn != 0) {
        m->shared_ffn_total = m->num_shared * each;
    }
}

static void replace_shape(const struct ep_model_options *o, struct ep_model *m)
{
    const bool all_moe = m->num_moe_layers == m->num_layers;
    replace(o->num_experts, &m->num_experts);
    replace(o->top_k, &m->top_k);
    replace(o->hidden, &m->hidden);
    replace(o->expert_ffn, &m->expert_ffn);
    replace(o->num_layers, &m->num_layers);
    replace(o->num_moe_layers > 0 || !all_moe ? o->num_moe_layers : o->num_layers,
            &m->num_moe_layers);
    m->gated = o->gated >= 0 ? o->gated != 0 : m->gated;
    replace_shared(o, m);
    m->published_total_b = (double)NAN;
    m->published_active_b = (double)NAN;
    m->routed_expert_b = (double)NAN;
    m->active_routed_b = (double)NAN;
    if (o->num_experts != 0) { /* the table's groups are of its own experts */
        m->num_groups = 0;
        m->topk_groups = 0;
    }
}

enum ep_status ep_model_options_resolve(const struct ep_model_options *options,
                                        struct ep_models **models, struct ep_model *model)
{
    enum ep_status status = EP_OK;
    const bool own = options->name == NULL && options->file == NULL;
    struct ep_models *made = NULL;
    struct ep_model resolved = blank_model();
    if (own) {
        EP_TRY(need_all(options));
    } else {
        const struct ep_model *base = NULL;
        EP_TRY(ep_models_open(options->file, options->name, &made, &base));
        resolved = *base;
        EP_TRY(check_dense(options, &resolved));
    }
    if (ep_model_options_have_shape(options)) {
        replace_shape(options, &resolved);
        resolved.source = own ? "options" : "changed by options";
    }
    replace(options->num_heads, &resolved.num_heads);
    if (options->total_params > 0) {
        resolved.published_total_b = options->total_params / 1e9;
    }
    EP_TRY(ep_model_check(&resolved, "options"));
    *model = resolved;
    *models = made;
    made = NULL;
out:
    ep_models_destroy(made);
    return status;
}

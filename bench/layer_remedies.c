/* SPDX-License-Identifier: Apache-2.0 */
/* The table of remedies. */
#include "bench/layer_remedies.h"

#include <stdio.h>
#include <string.h>

/* Capacity options are for `drop`. */
static void forget_capacity(struct ep_comm_options *o)
{
    o->capacity = (struct ep_capacity_options){0};
}

static enum ep_status apply_none(struct ep_comm_options *o)
{
    forget_capacity(o);
    return EP_OK;
}

/* Megatron's ceil(T k / E x factor) with a quarter to spare, unless another rule was given. */
static enum ep_status apply_drop(struct ep_comm_options *o)
{
    if (o->capacity.rule != NULL || o->capacity.rows > 0) {
        return EP_OK;
    }
    o->capacity.has_factor = true;
    o->capacity.factor = 1.25;
    return ep_capacity_find_rule("megatron", &o->capacity.rule);
}

static enum ep_status apply_balance(struct ep_comm_options *o)
{
    forget_capacity(o);
    o->skew = "uniform";
    return EP_OK;
}

static enum ep_status apply_expert_choice(struct ep_comm_options *o)
{
    forget_capacity(o);
    o->capacity.router = "expert-choice";
    return EP_OK;
}

/* One slot more is rounded up to one more on each rank. */
static enum ep_status apply_replicas(struct ep_comm_options *o)
{
    forget_capacity(o);
    o->replicas = 1;
    return EP_OK;
}

const struct ep_layer_remedy ep_layer_remedies[] = {
    {"none", "as the skew has it", apply_none},
    {"drop", "a capacity (Megatron's, factor 1.25, where none is given), what is over it dropped", apply_drop},
    {"balance", "routing that a balancing loss has made uniform", apply_balance},
    {"expert-choice", "experts choose their tokens, as many each", apply_expert_choice},
    {"replicas", "one more place on each rank, filled by EPLB", apply_replicas},
    {.name = NULL},
};

enum ep_status ep_layer_remedy_find(const char *name, const struct ep_layer_remedy **remedy)
{
    char all[128] = "";
    for (const struct ep_layer_remedy *r = ep_layer_remedies; r->name != NULL; r++) {
        if (strcmp(r->name, name) == 0) {
            *remedy = r;
            return EP_OK;
        }
        const size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", used > 0 ? ", " : "", r->name);
    }
    return ep_error_set(EP_EINVAL, "--remedies: '%s' is none of %s", name, all);
}

enum ep_status ep_layer_remedies_check(const struct ep_comm_options *o)
{
    const struct {
        const char *name;
        bool given;
    } own[] = {
        {"--router", o->capacity.router != NULL},
        {"--style", o->capacity.style != NULL},
        {"--placement", o->placement != NULL},
        {"--replicas", o->replicas > 0},
    };
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (own[i].given) {
            return ep_error_set(EP_EINVAL, "%s: --remedies sets it, or leaves it out, itself",
                                own[i].name);
        }
    }
    return EP_OK;
}

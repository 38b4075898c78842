/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the routers: what a policy is made of, and what the kernels of an instruction set do. */
#ifndef EP_KERNELS_GATE_POLICY_H
#define EP_KERNELS_GATE_POLICY_H

#include "base/random.h"
#include "kernels/gate.h"

#include <stdbool.h>
#include <stdint.h>

/** What becomes of the logits of the chosen experts. */
enum ep_gate_score {
    EP_GATE_SOFTMAX,        /* softmax over all experts */
    EP_GATE_SOFTMAX_CHOSEN, /* softmax over the chosen ones */
    EP_GATE_SIGMOID         /* 1 / (1 + exp(-x)) */
};

/** The score of a group of experts; the best groups are kept. */
enum ep_gate_group_rule { EP_GATE_NO_GROUPS, EP_GATE_GROUP_MAX, EP_GATE_GROUP_TOP2 };

/** A router. To add one is one row here and in the table of gate.c. */
struct ep_gate_policy {
    const char *name;
    const char *usage;
    const char *summary; /* one line */
    const char *source;  /* repository or paper; "(recalled)" where it was not open */
    int64_t top_k;       /* the only one it has; 0 = any */
    int64_t usual_top_k; /* where none is given; 0 = it must be */
    enum ep_gate_score score;
    bool renormalises; /* weights of a token sum to route_scale */
    bool has_bias;     /* selection on score + bias, weights without */
    enum ep_gate_group_rule group_rule;
    int64_t num_groups, topk_groups; /* where groups are not given */
    const char *value_name;          /* its parameter; NULL = none */
    double value, min_value, max_value;

    /* Optional hooks. */
    /** Tables of the policy: gate->state. */
    enum ep_status (*prepare)(struct ep_gate *gate);
    void (*release)(struct ep_gate *gate);
    /** Change one token's logits x [num_experts] in place. noise_logits of that token, or NULL. */
    void (*perturb)(const struct ep_gate *gate, int64_t token, const float *noise_logits, float *x);
    /** After the choice: idx, weight [top_k] of one token with logits x. weight may be NULL. */
    void (*thin)(const struct ep_gate *gate, int64_t token, const float *x, int32_t *idx,
                 float *weight);
    /** Choose without logits: one token. id: its vocabulary id, -1 = not given. */
    void (*choose_blind)(const struct ep_gate *gate, int64_t token, int64_t id, int32_t *idx);
    /** Choose for a whole batch. */
    enum ep_status (*choose_batch)(struct ep_gate *gate, const struct ep_gate_batch *batch,
                                   struct ep_routing *routing);
};

/** The rows of the table in gate.c. */
extern const struct ep_gate_policy ep_gate_top1, ep_gate_top2, ep_gate_softmax,
    ep_gate_softmax_renorm, ep_gate_topk_softmax, ep_gate_softmax_group;
extern const struct ep_gate_policy ep_gate_sigmoid, ep_gate_sigmoid_bias, ep_gate_sigmoid_group;
extern const struct ep_gate_policy ep_gate_switch, ep_gate_gshard, ep_gate_noisy, ep_gate_dropout;
extern const struct ep_gate_policy ep_gate_expert_choice, ep_gate_hash, ep_gate_random;

enum {
    EP_GATE_BLOCK = 16, /* experts */
    EP_GATE_TILE = 4,   /* rows */
    EP_GATE_CHUNK = 64, /* rows of one call of the kernels */
    EP_GATE_FAST_TOP_K = 16,
    EP_GATE_FAST_GROUPS = 16
};

/** What the kernels need to know, worked out once. A row is E logits padded to whole blocks. */
struct ep_gate_plan {
    int64_t num_experts;
    int64_t padded; /* num_experts up to a multiple of EP_GATE_BLOCK */
    int64_t top_k;
    enum ep_gate_score score;
    bool renormalises;
    enum ep_gate_group_rule group_rule;
    int64_t num_groups; /* 1 = no limit */
    int64_t topk_groups;
    int64_t group_size;
    float route_scale;
    const float *bias;  /* [padded] -inf in the padding: keys are sigmoid + bias; NULL = logits */
    float key_margin;   /* two keys further apart than this are in the same order in double */
    float group_margin; /* the same of group scores */
    /* Scratch of EP_GATE_TILE rows each: */
    float *rows;            /* [tile][padded] rows that had to be padded; the padding is set */
    float *keys;            /* [tile][padded] */
    int32_t *active;        /* [tile][padded / EP_GATE_BLOCK] */
    float *candidate_key;   /* [tile][padded + EP_GATE_BLOCK] */
    int32_t *candidate_idx; /* [tile][padded + EP_GATE_BLOCK] */
};

/** The kernels of one instruction set. */
struct ep_gate_isa {
    const char *name;
    bool (*is_supported)(void);
    /** Route rows: x [num][num_experts], idx and weight [num][top_k], weight may be NULL; num <=
     *  EP_GATE_CHUNK. Returns a bit for each row that it cannot settle, whose output is undefined:
     *  a logit that is not finite, keys nearer than the margin, weights too small for fp32. */
    uint64_t (*route)(const struct ep_gate_plan *plan, const float *x, int64_t num, int32_t *idx,
                      float *weight);
};

extern const struct ep_gate_isa ep_gate_avx512, ep_gate_avx2, ep_gate_c;

struct ep_gate {
    struct ep_gate_config config;  /* bias: gate's own copy */
    const struct ep_gate_isa *isa; /* NULL = plain */
    struct ep_gate_plan plan;
    float *bias;     /* [padded], or NULL */
    float *chunk;    /* [EP_GATE_CHUNK][num_experts] perturbed logits, or NULL */
    double *keys;    /* [num_experts] scratch of the oracle */
    int64_t *groups; /* [num_groups] scratch: taken or not */
    void *state;     /* the policy's */
};

/** One token in double: idx and weight [top_k] (weight may be NULL), from logits x [num_experts].
 *  Returns EP_EINVAL where a logit is NaN or +inf, naming `token` and the expert. */
EP_MUST_CHECK enum ep_status ep_gate_choose_plain(struct ep_gate *gate, int64_t token,
                                                  const float *x, int32_t *idx, float *weight);

/** The first logit that is NaN or +inf is refused, naming token and expert. */
EP_MUST_CHECK enum ep_status ep_gate_check_logits(const struct ep_gate *gate, int64_t token,
                                                  const float *x);

#endif

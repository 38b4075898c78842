/* SPDX-License-Identifier: Apache-2.0 */
/* Hybrid parallel plans of a model: every EP x TP x DP x PP, its memory and its bytes per step. */
#ifndef EP_KERNELS_PLAN_H
#define EP_KERNELS_PLAN_H

#include "base/error.h"
#include "kernels/capacity.h"
#include "kernels/dtype.h"
#include "kernels/model_sizes.h"
#include "kernels/models.h"
#include "kernels/traffic.h"

#include <stdbool.h>
#include <stdint.h>

enum { EP_PLAN_MAX_WORLD = 1 << 17, EP_PLAN_MAX_SAMPLES = 100000 };

/** How the degrees multiply to the world. Source: kernels/README.md, "Plans". */
enum ep_plan_convention {
    EP_PLAN_PRODUCT, /* DP x TP x PP x EP = world */
    EP_PLAN_FOLDING, /* TP x DP x PP = ETP x EP x EDP x PP = world, EP divides DP */
    EP_PLAN_NUM_CONVENTIONS
};

/** What a plan must keep; one that does not is counted under the first rule that it breaks. */
enum ep_plan_rule {
    EP_PLAN_RULE_EXPERTS,    /* EP divides the experts */
    EP_PLAN_RULE_EP_IN_DP,   /* folding: EP divides DP */
    EP_PLAN_RULE_EXPERT_TP,  /* folding: expert TP is not above TP */
    EP_PLAN_RULE_LAYERS,     /* PP is not above the layers */
    EP_PLAN_RULE_HIDDEN,     /* TP divides hidden */
    EP_PLAN_RULE_HEADS,      /* TP divides the attention heads, where known */
    EP_PLAN_RULE_EXPERT_FFN, /* expert TP divides an expert's inner width */
    EP_PLAN_RULE_SHARED_FFN, /* TP divides the shared experts' */
    EP_PLAN_RULE_DENSE_FFN,  /* TP divides the dense layers', where known */
    EP_PLAN_RULE_TOKENS,     /* TP divides the tokens: its ranks share a sequence */
    EP_PLAN_NUM_RULES
};

/** What one rank sends in a step. */
enum ep_plan_collective {
    EP_PLAN_DISPATCH,     /* all-to-all of EP, forward */
    EP_PLAN_COMBINE,      /* the way back */
    EP_PLAN_EP_BACKWARD,  /* both again with gradients */
    EP_PLAN_EXPERT_TP,    /* all-gather and reduce-scatter of experts' rows over expert TP */
    EP_PLAN_TP,           /* all-gather and reduce-scatter of activations over TP */
    EP_PLAN_PP,           /* activations to the next stage, gradients to the one before */
    EP_PLAN_GRAD_EXPERTS, /* gradients of experts over expert DP */
    EP_PLAN_GRAD_REST,    /* all others over DP (times EP in the product) */
    EP_PLAN_NUM_COLLECTIVES
};

enum ep_plan_optimizer { EP_PLAN_NO_OPTIMIZER, EP_PLAN_ADAM };

/** How large the buffers of dispatch and combine are. */
enum ep_plan_buffers {
    EP_PLAN_BUFFERS_PLAIN,    /* what is sent and received, or an expert's whole room */
    EP_PLAN_BUFFERS_DEEPEP_LL /* those of DeepEP's low-latency kernels */
};

/** Degrees to search; num 0 = all. */
struct ep_plan_degrees {
    const int64_t *values; /* [num] borrowed */
    int64_t num;
};

struct ep_plan_config {
    const struct ep_model *model; /* with experts */
    int64_t world;                /* ranks, 1 to EP_PLAN_MAX_WORLD */
    int64_t tokens;           /* of a micro-batch of one DP rank, shared by its TP ranks; >= 1 */
    int64_t num_microbatches; /* per step and DP rank, >= 1 */
    double gpu_memory_bytes;  /* NaN = not given */
    enum ep_weight_type weights;
    enum ep_dtype dispatch_dtype;
    enum ep_dtype combine_dtype;      /* fp32 or bf16 */
    bool training;                    /* gradients, backward traffic, activations kept */
    enum ep_plan_optimizer optimizer; /* needs training */
    bool shard_optimizer;             /* its state over the ranks that hold the same weights */
    bool recompute;                   /* keep the input of each layer only */
    const struct ep_capacity_policy *capacity; /* per source, known beforehand; NULL = dropless */
    enum ep_plan_buffers buffers;
    enum ep_basis byte_basis; /* of EP and expert TP: EP_BASIS_COPIES or EP_BASIS_RANK */
    const char *skew;         /* as in `epbench route`, not hot */
    uint64_t seed;
    int64_t num_samples; /* routings, 1 to EP_PLAN_MAX_SAMPLES */
    struct ep_plan_degrees ep;
    struct ep_plan_degrees tp;
    struct ep_plan_degrees dp;
    struct ep_plan_degrees pp;
    /** Called now and then while routings are sampled; may be NULL. */
    void (*progress)(int64_t done, int64_t total);
};

/** Statistics over sampled routings. */
enum ep_plan_statistic { EP_PLAN_MEDIAN, EP_PLAN_P99, EP_PLAN_WORST, EP_PLAN_NUM_STATISTICS };

/** Copies that the busiest rank of an EP group receives for one layer and micro-batch. */
struct ep_plan_received {
    double copies[EP_PLAN_NUM_STATISTICS]; /* p99 is NaN below 100 samples */
    double mean; /* of all that is asked for, over ranks: what an even routing would bring */
    double copies_per_token; /* top-k, less the slots that a skew leaves unused */
    double kept_fraction;    /* of all copies; 1 where dropless */
    double ranks_per_token;  /* distinct ranks of the EP group, own included, before dropping */
};

/** Bytes on the fullest rank; of its pipeline stage `stage`. NaN = not known. */
struct ep_plan_memory {
    int64_t stage;
    double routed; /* weights */
    double shared;
    double router;
    double rest; /* NaN where the model's rest is not known; then not in totals */
    double gradients;
    double optimizer;
    double other_activations; /* training: attention, norms, shared and dense FFNs */
    double token_buffers[EP_PLAN_NUM_STATISTICS]; /* of dispatch and combine */
    double activations[EP_PLAN_NUM_STATISTICS];   /* of routed experts */
    double total[EP_PLAN_NUM_STATISTICS];
};

struct ep_plan {
    enum ep_plan_convention convention;
    int64_t ep;
    int64_t tp;
    int64_t dp;
    int64_t pp;
    int64_t expert_tp;
    int64_t expert_dp;
    int64_t data_replicas; /* ranks with other tokens: dp; product: dp x ep */
    struct ep_plan_received received;
    struct ep_plan_memory memory;
    double bytes[EP_PLAN_NUM_COLLECTIVES]; /* sent by one rank of the busiest stage in a step */
    double total_bytes;
    double bytes_per_token; /* sent by all ranks, over the tokens of a step */
    bool lower_bound;       /* the model's rest is not known: memory and gradients are more */
    int fits; /* 1 yes, 0 no, -1 not known: no memory given, or a lower bound that fits */
    char reason[200];
};

struct ep_plan_set {
    struct ep_plan *plans; /* [num] valid ones: those that fit first, then fewest bytes per token */
    int64_t num;
    int64_t considered[EP_PLAN_NUM_CONVENTIONS]; /* tuples that multiply to the world */
    int64_t rejected[EP_PLAN_NUM_CONVENTIONS][EP_PLAN_NUM_RULES];
    bool wraps; /* the trace has fewer tokens than were sampled */
};

/** Enumerate, sample, weigh and sort.
 *  Returns EP_OK, also where no plan is valid; EP_EINVAL for a dense model, a world or number of
 *  samples out of range, a skew that is bad, contradicts the model or depends on ranks, an
 *  optimizer without training, node-dedup, rank-dedup beside a capacity, and a capacity of all
 *  sources together, by need, or with rerouting; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_plan_set_make(const struct ep_plan_config *config,
                                              struct ep_plan_set *set);
void ep_plan_set_fini(struct ep_plan_set *set);

/** "product", "folding". */
const char *ep_plan_convention_name(enum ep_plan_convention convention);

/** "EP does not divide the experts": what breaking a rule means. */
const char *ep_plan_rule_text(enum ep_plan_rule rule);

/** JSON key of a collective ("ep_dispatch"), and its short title. */
const char *ep_plan_collective_key(enum ep_plan_collective collective);
const char *ep_plan_collective_title(enum ep_plan_collective collective);

/** The statistic that `fits` goes by: p99, or the worst below 100 samples. */
enum ep_plan_statistic ep_plan_deciding(const struct ep_plan_config *config);

/** Of a step's time, in which stages of equal time wait while the pipeline fills and drains:
 *  (PP - 1) / (micro-batches + PP - 1). Source: Huang et al., "GPipe", NeurIPS 2019, section 2.3. */
double ep_plan_idle_fraction(const struct ep_plan_config *config, const struct ep_plan *plan);

/** Bytes of gradients and of optimizer state per parameter. Source: kernels/README.md, "Plans". */
double ep_plan_gradient_bytes(void);
double ep_plan_optimizer_bytes(const struct ep_plan_config *config);

/* --- the steps, for tests ------------------------------------------------------------------- */

/** Valid plans without memory and bytes, and the counts of the others. */
EP_MUST_CHECK enum ep_status ep_plan_enumerate(const struct ep_plan_config *config,
                                               struct ep_plan_set *set);

/** Fill `received` of each plan. */
EP_MUST_CHECK enum ep_status ep_plan_sample_received(const struct ep_plan_config *config,
                                                     struct ep_plan_set *set);

/** Rows that an expert takes of one source rank of a plan; 0 where dropless. The policy must have
 * passed ep_plan_set_make. */
int64_t ep_plan_capacity(const struct ep_plan_config *config, const struct ep_plan *plan);

/** Memory of one stage, 0 <= stage < pp. plan->received must be filled. */
void ep_plan_weigh_stage(const struct ep_plan_config *config, const struct ep_plan *plan,
                         int64_t stage, struct ep_plan_memory *memory);

/** Bytes that a rank of one stage sends in a step: bytes [EP_PLAN_NUM_COLLECTIVES]. */
void ep_plan_count_stage_bytes(const struct ep_plan_config *config, const struct ep_plan *plan,
                               int64_t stage, double *bytes);

/** Layers of a stage: [first, end) with bounds floor(s L / PP). */
void ep_plan_stage_layers(const struct ep_plan_config *config, const struct ep_plan *plan,
                          int64_t stage, int64_t *first, int64_t *end);

/* --- experts spread, copied or cut -------------------------------------------------------- */

enum ep_plan_strategy_kind {
    EP_PLAN_EXPERTS_SPREAD,
    EP_PLAN_EXPERTS_COPIED,
    EP_PLAN_EXPERTS_CUT,
    EP_PLAN_NUM_STRATEGIES
};

/** One MoE layer's experts on num_ranks ranks with `tokens` each, the rest of the model on every
 * rank. */
struct ep_plan_strategy {
    const char *name;       /* "EP", "replicate", "TP" */
    bool possible;          /* EP: the experts can be dealt; TP: ranks divide the inner width */
    const char *impossible; /* why not */
    double expert_bytes;    /* weights of routed experts on the fullest rank, all layers */
    double weight_bytes;    /* and of all else; NaN where that is not known */
    double dispatch_bytes_per_token; /* one layer; TP: of the all-gather */
    double combine_bytes_per_token;  /* TP: of the reduce-scatter */
    double dedup_bytes_per_token;    /* EP, uniform: a row per (token, rank); NaN elsewhere */
};

/** strategies [EP_PLAN_NUM_STRATEGIES]. Bytes are those that leave a rank, averaged over tokens.
 *  Source: kernels/README.md, "Plans". */
void ep_plan_compare_strategies(const struct ep_plan_config *config, int64_t num_ranks,
                                struct ep_plan_strategy *strategies);

#endif

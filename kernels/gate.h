/* SPDX-License-Identifier: Apache-2.0 */
/* Routers on logits: which experts a token's scores choose, and with what weights. */
#ifndef EP_KERNELS_GATE_H
#define EP_KERNELS_GATE_H

#include "base/error.h"
#include "kernels/models.h"
#include "kernels/routing.h"

#include <stdbool.h>
#include <stdint.h>

struct ep_gate_policy;

/** A router and its numbers. Filled by ep_gate_config_parse or ep_gate_config_from_model, then
 * changed as wanted; ep_gate_create checks it. What each router computes: kernels/README.md,
 * "Routers". */
struct ep_gate_config {
    const struct ep_gate_policy *policy;
    int64_t num_experts; /* 1 to EP_MAX_EXPERTS */
    int64_t top_k;       /* experts of a token; expert choice: experts per token on average */
    int64_t num_groups;  /* group-limited routers: equal blocks of consecutive experts; else 1 */
    int64_t topk_groups; /* of them a token may use */
    double value;        /* the router's parameter (jitter, ...); 0 where it has none */
    double route_scale;  /* factor on all weights, > 0 */
    const float *bias;   /* [num_experts] finite, for routers with a bias; NULL = zeros; borrowed */
    const char *isa;     /* "avx512f", "avx2 and fma", "c", "plain"; NULL = the best of this CPU */
    uint64_t seed;
};

/** Fill a config from "NAME[:VALUE]" or, for group-limited routers, "NAME[:GROUPS:KEPT]".
 *  top_k  for routers that do not fix theirs (top1, gshard, ...); 0 = not given, refused unless the
 *         router has a usual one
 *  Returns EP_EINVAL for an unknown name (the nearest is named) or a bad value; what else does not
 *  fit is refused by ep_gate_create. */
EP_MUST_CHECK enum ep_status ep_gate_config_parse(const char *text, int64_t num_experts,
                                                  int64_t top_k, struct ep_gate_config *config);

/** The router of a model of the zoo, by its router text and columns. *assumed (may be NULL): the
 * text does not say which; it is then taken as topk-softmax, and the caller should warn. */
EP_MUST_CHECK enum ep_status ep_gate_config_from_model(const struct ep_model *model,
                                                       struct ep_gate_config *config,
                                                       bool *assumed);

/** "sigmoid-group": the name of a config's router. */
const char *ep_gate_name(const struct ep_gate_config *config);

/** Usage ("switch[:JITTER]"), one line of what it is, and where it comes from, of router `index` >=
 * 0; false past the last. */
bool ep_gate_describe(int index, const char **usage, const char **summary, const char **source);

/** True where scores are sigmoids; else they are a softmax. */
bool ep_gate_is_sigmoid(const struct ep_gate_config *config);

/** What the router's choice depends on, of a config. */
bool ep_gate_needs_logits(const struct ep_gate_config *config);
/** True where tokens compete, so that a batch cannot be split (expert choice). */
bool ep_gate_is_batch(const struct ep_gate_config *config);

/** Consecutive tokens; read only. */
struct ep_gate_batch {
    int64_t num_tokens;  /* >= 0 */
    int64_t first_token; /* global index of the first: the stream of its random numbers */
    const float *logits; /* [num_tokens][num_experts]; -inf = never chosen; NULL if not needed */
    const float *noise_logits; /* noisy-topk: x Wnoise, [num_tokens][num_experts]; NULL = zeros */
    const int64_t *token_ids;  /* hash: vocabulary id of each token; NULL = drawn, see README */
};

struct ep_gate;

/** Prepare a router: checks the config, copies the bias, chooses the instruction set.
 *  Returns EP_EINVAL for top_k > experts, groups that do not divide the experts, top_k beyond the
 *  experts of the kept groups, a bias that is not finite or not used, an unknown or missing isa. */
EP_MUST_CHECK enum ep_status ep_gate_create(const struct ep_gate_config *config,
                                            struct ep_gate **gate);
void ep_gate_destroy(struct ep_gate *gate);

/** Slots per token of its routing: top_k; for expert choice, where a token may have them all, the
 *  experts. */
int64_t ep_gate_num_slots(const struct ep_gate *gate);

/** Instruction set of ep_gate_route: "avx512f", "avx2 and fma", "c", or "plain" where the shape is
 *  beyond the fast kernels (top_k > 16, more than 16 groups) or the router has none. */
const char *ep_gate_isa_name(const struct ep_gate *gate);

/** Names of the instruction sets that this CPU has, best first; NULL past the last. */
const char *ep_gate_isa(int index);

/** Route a batch.
 *  routing  [>= num_tokens] of the gate's experts and slots, overwritten: experts by falling score,
 *           ties by index (expert choice: by index); -1 and weight 0 in slots that are not used;
 *           weights if it has them, fp32
 *  The choice is exactly ep_gate_route_plain's; weights are within 2^-24 (8 + E/16 + |x - max x|)
 *  of it, relatively. Any split of the tokens gives the same rows, but for batch routers.
 *  Returns EP_EINVAL, naming token and expert, for a logit that is NaN or +inf (routing is then
 *  undefined). Not thread-safe: one gate per thread. */
EP_MUST_CHECK enum ep_status ep_gate_route(struct ep_gate *gate, const struct ep_gate_batch *batch,
                                           struct ep_routing *routing);

/** The same by the definition, token by token in double: the oracle. */
EP_MUST_CHECK enum ep_status ep_gate_route_plain(struct ep_gate *gate,
                                                 const struct ep_gate_batch *batch,
                                                 struct ep_routing *routing);

#endif

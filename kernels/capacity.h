/* SPDX-License-Identifier: Apache-2.0 */
/* Expert capacity: how many rows an expert takes by each system's own formula, and what is dropped.
 */
#ifndef EP_KERNELS_CAPACITY_H
#define EP_KERNELS_CAPACITY_H

#include "base/error.h"
#include "kernels/routing.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Which copies an expert keeps when more come than it takes. */
enum ep_drop {
    EP_DROP_NONE,   /* all: dropless, the capacity is the largest count there is */
    EP_DROP_ORDER,  /* the first to come, by token, then slot */
    EP_DROP_CHOICE, /* slot 0 of all tokens by token, then slot 1 of all, and so on */
    EP_DROP_PROB,   /* those of the highest weight; equal ones by token */
    EP_DROP_RANDOM, /* a random choice, drawn from (seed, token, slot) */
    EP_NUM_DROPS
};

/** What becomes of a copy that its expert does not take. */
enum ep_overflow {
    EP_OVERFLOW_DROP,
    EP_OVERFLOW_NEXT,   /* goes to the next expert, cyclically, that has room and not this token */
    EP_OVERFLOW_EXPERT, /* goes to one fixed expert while that has room, else is dropped */
    EP_NUM_OVERFLOWS
};

/** Whose rows a capacity counts. */
enum ep_capacity_scope {
    EP_CAPACITY_PER_SOURCE, /* of each source rank, for each expert: gates that know only their rank
                             */
    EP_CAPACITY_PER_EXPERT  /* of all source ranks together; taken in order of ranks */
};

/** When a rule rounds its capacity up to a multiple (a tensor-parallel size, a tile). */
enum ep_capacity_align { EP_ALIGN_NEVER, EP_ALIGN_DROPLESS, EP_ALIGN_ALWAYS };

/** What a capacity is computed from. */
struct ep_capacity_shape {
    int64_t tokens;      /* of one source rank (its "batch" or "group"), >= 0 */
    int64_t num_experts; /* over all ranks, >= 1 */
    int64_t top_k;       /* >= 1 */
    int64_t num_ranks;   /* that the experts are spread over, >= 1 */
};

/** One system's rule: a row of the table in capacity.c. */
struct ep_capacity_rule {
    const char *name;      /* as in --capacity-rule */
    const char *formula;   /* in T, E, k, cf, P, for people */
    const char *source;    /* repository:file:function, or a paper */
    bool recalled;         /* the source is a paper quoted from memory */
    double default_factor; /* the system's own; NaN = it has none, a factor must be given */
    double least_factor;   /* smaller ones are refused */
    int64_t default_min;   /* rows, the system's own floor; 0 = none */
    int64_t only_top_k[2]; /* the range of k that the system knows; {1, 0} = any */
    bool has_eval;         /* takes an evaluation fraction */
    enum ep_capacity_align aligns; /* when it rounds up to --capacity-align */
    bool at_receiver;      /* drops after the dispatch: all rows cross */
    enum ep_drop drops[3]; /* its own drop policy at k = 1, 2, more */
    /** Rows before floor and limits, a whole number. *by_need set = the largest count in its place,
     *  with a factor < 0 no more than what is returned. */
    double (*rows)(const struct ep_capacity_shape *shape, double factor, double eval_fraction,
                   bool *by_need);
    enum ep_capacity_scope (*scope)(int64_t top_k); /* NULL = per source */
    bool (*uses_factor)(int64_t top_k, double eval_fraction); /* NULL = always */
};

/** Everything that decides what is kept. Make with ep_capacity_policy_default, then change. */
struct ep_capacity_policy {
    const struct ep_capacity_rule *rule; /* NULL = `rows` are given */
    int64_t rows;                        /* without a rule; >= 1, 0 = no capacity at all */
    double factor;                       /* NaN = the rule's own */
    int64_t min_rows;                    /* floor; -1 = the rule's own */
    int64_t align;                       /* rounded up to a multiple of it; 1 = not */
    double eval_fraction;                /* Fairseq's evaluation: (0, 1]; NaN = training */
    enum ep_drop drop;
    enum ep_overflow overflow;
    int64_t overflow_expert; /* EP_OVERFLOW_EXPERT */
    bool pad;                /* every expert's rows are padded to the capacity */
    uint64_t seed;           /* EP_DROP_RANDOM */
};

/** A capacity in rows. */
struct ep_capacity {
    int64_t rows; /* 0 = dropless and no row at all; <= INT32_MAX */
    enum ep_capacity_scope scope;
    bool by_need; /* the largest count there is: nothing is dropped */
};

/** What dropping did, summed over the sources it was called for.
 *  asked = kept + rerouted + dropped. */
struct ep_capacity_counts {
    int64_t tokens;         /* seen */
    int64_t asked;          /* copies: (token, expert) slots in use */
    int64_t kept;           /* copies that go where they were asked to */
    int64_t rerouted;       /* copies that go to another expert */
    int64_t dropped;        /* copies that go nowhere */
    int64_t tokens_dropped; /* tokens with a dropped copy */
    int64_t tokens_lost;    /* of those, tokens without any copy left */
};

/** All rules, ended by one without a name. */
extern const struct ep_capacity_rule ep_capacity_rules[];

/** Find by name; EP_EINVAL names the nearest and lists what there is. */
EP_MUST_CHECK enum ep_status ep_capacity_find_rule(const char *name,
                                                   const struct ep_capacity_rule **rule);

/** "none", "order", "choice", "prob", "random". */
const char *ep_drop_name(enum ep_drop drop);
EP_MUST_CHECK enum ep_status ep_drop_parse(const char *text, const char *what, enum ep_drop *drop);

/** "drop", "next", "expert:ID": fills overflow and overflow_expert of the policy. */
EP_MUST_CHECK enum ep_status ep_overflow_parse(const char *text, const char *what,
                                               struct ep_capacity_policy *policy);

/** The policy of a rule as its system has it at this top_k; rule NULL = no capacity, dropless. */
struct ep_capacity_policy ep_capacity_policy_default(const struct ep_capacity_rule *rule,
                                                     int64_t top_k);

/** True where the policy bounds or pads anything. */
static inline bool ep_capacity_is_set(const struct ep_capacity_policy *policy)
{
    return policy->rule != NULL || policy->rows > 0 || policy->pad;
}

/** The factor and the floor in rows that hold: given ones, else the rule's own; NaN and 0 where
 * there is neither. */
double ep_capacity_factor(const struct ep_capacity_policy *policy);
int64_t ep_capacity_floor(const struct ep_capacity_policy *policy);

/** False where the policy's rule computes its rows without a factor: gshard, fairseq at k = 2. */
bool ep_capacity_uses_factor(const struct ep_capacity_policy *policy, int64_t top_k);

/** "drop", "next", "expert:ID" of a policy, into text [size] (32 is enough); returns text. */
const char *ep_overflow_text(const struct ep_capacity_policy *policy, char *text, size_t size);

/** Does ep_capacity_compute need the largest count? Dropless policies do; so do Tutel with a factor
 *  <= 0 and Megablocks where its formula gives 0. */
bool ep_capacity_needs_counts(const struct ep_capacity_policy *policy,
                              const struct ep_capacity_shape *shape);

/** Rows that an expert takes, by the policy's rule.
 *  needed   largest number of rows that a source has for an expert (scope per expert: that all
 *           sources have), over everything; read where ep_capacity_needs_counts says so
 *  Returns EP_EINVAL for a factor that is missing, NaN, infinite or too small for the rule, a top_k
 *  that the system does not know, an overflow expert >= experts, an option that the rule has not,
 *  and more than INT32_MAX rows.
 *  Formulas and sources: kernels/README.md, "Capacity and dropping". O(1). */
EP_MUST_CHECK enum ep_status ep_capacity_compute(const struct ep_capacity_policy *policy,
                                                 const struct ep_capacity_shape *shape,
                                                 int64_t needed, struct ep_capacity *capacity);

/** The textbook capacity's buffer: factor x T/E rows, unrounded, times row_bytes; bytes.
 *  Source: kernels/README.md, "Capacity and dropping", plain. */
double ep_capacity_plain_bytes(const struct ep_capacity_shape *shape, double factor,
                               int64_t row_bytes);

/** Drop and reroute the copies of one source rank, in place.
 *  first_token  global index of the routing's first token (EP_DROP_RANDOM draws by it)
 *  room         [num_experts] rows that each expert still takes (>= 0): starts as the capacity, for
 *               each source or, with scope per expert, once; read and lowered. EP_DROP_NONE only
 *               counts, and may take room below 0
 *  routing      a dropped slot becomes expert -1, weight 0; other weights stay as they are
 *  counts       added to
 *  The result depends on (policy, room, routing, first_token) alone. Copies that an expert was
 * asked for come before rerouted ones; those are placed in order of token and slot. Returns
 * EP_EINVAL where EP_DROP_PROB finds no weights; EP_ENOMEM. O(n log n), n = copies. */
EP_MUST_CHECK enum ep_status ep_capacity_apply(const struct ep_capacity_policy *policy,
                                               int64_t first_token, int64_t *room,
                                               struct ep_routing *routing,
                                               struct ep_capacity_counts *counts);

#endif

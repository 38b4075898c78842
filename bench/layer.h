/* SPDX-License-Identifier: Apache-2.0 */
/* One Mixture-of-Experts layer on this rank: its buffers and its phases, in order. */
#ifndef EP_BENCH_LAYER_H
#define EP_BENCH_LAYER_H

#include "bench/comm_setting.h"
#include "bench/layer_bank.h"
#include "bench/layer_waits.h"
#include "kernels/ffn.h"
#include "kernels/gate.h"

#include <stdbool.h>
#include <stdint.h>

/** What a layer has besides its exchange (struct ep_comm_case); the same on all ranks. */
struct ep_layer_shape {
    const struct ep_gemm_backend *backend;
    enum ep_ffn_kind kind;
    int64_t ffn;        /* inner columns of one routed expert, >= 1 */
    int64_t shared_ffn; /* of all shared experts together; 0 = none */
    int64_t tp; /* ranks that share each expert's inner columns, >= 1 */
    int64_t dp; /* copies of the whole, side by side, each with tokens of its own, >= 1 */
    bool backward; /* gradients too: both exchanges again, dX and dW of all experts */
    const struct ep_model *model; /* whose router is timed, where the case names none; or NULL */
};

/** A phase is a step of the layer, or one of the transport's phases within it. */
struct ep_layer_phase {
    const char *step; /* "route", "dispatch", "shared", "experts", "combine", "add", "sum", "round";
                         the same again with "back-" in front */
    const char *name; /* within the step, as the transport has it; NULL = the step is one phase */
    enum ep_layer_work work;
    enum ep_status (*run)(void *state);
    void *state;
    enum ep_op op;      /* of the exchange that it is part of, unless it is among slices */
    bool moves_rows;    /* waits for those alone that send rows to this rank; else for all */
    bool among_slices;  /* an exchange of the ranks that share experts, not of a transport */
};

enum { EP_LAYER_MAX_PHASES = 32, EP_LAYER_NAME_LENGTH = 48 };

/* Rank ((d P + e) tp + t) of all is rank e of P in its transport's communicator, slice t of its experts, and
 * in copy d. */
struct ep_layer {
    struct ep_comm *all;  /* every rank that measures; borrowed, as are the next four */
    const struct ep_comm_case *point;
    const struct ep_layer_shape *shape;
    struct ep_session *session;
    struct ep_layer_bank *bank;
    struct ep_comm *comm;   /* the ranks of the exchange, of one slice of one copy */
    struct ep_comm *slices; /* the ranks that share experts; NULL where tp is 1 */
    int64_t copy, slice;    /* this rank's */
    uint64_t seed;          /* of routing and rows: of this copy */
    struct ep_comm_setting setting;
    struct ep_routing routing; /* of this rank's tokens, as sent */
    struct ep_exchange exchange;
    void *transport; /* state */
    struct ep_expert_rows rows; /* where dispatch puts them */
    /* the router */
    const struct ep_gemm_packed *router;
    struct ep_gate *gate;
    struct ep_routing gated; /* what it chose on the rows' logits; not what is sent */
    float *logits;           /* [local tokens][experts] */
    /* experts */
    struct ep_ffn *experts; /* NULL where this rank holds none, or gets no row */
    int64_t *num_rows;      /* [local experts] */
    float *outputs;         /* [rows][hidden] before they are rounded to combine's bf16; NULL for fp32 */
    struct ep_ffn *shared;  /* NULL = no shared experts */
    float *shared_outputs;  /* [local tokens][hidden] */
    int64_t shared_rows;    /* local tokens */
    float *sums;            /* [local tokens][hidden] of this slice, then of all; NULL where tp is 1 */
    struct ep_layer_backward *backward; /* bench/layer_backward.h; NULL = forward alone */
    struct ep_layer_phase phases[EP_LAYER_MAX_PHASES];
    int num_phases;
};

/** Build a layer: routing, buffers, transport, weights; token rows are filled. After it every phase has run
 *  once, in order.
 *  all    dp x P x tp ranks, with the algorithm forced; P the case's
 *  layer  untouched on failure
 *  Takes the session's arena anew: one layer at a time. Collective over all, the status is agreed.
 *  Returns EP_EINVAL where the case cannot be, EP_ENOMEM, EP_EENV. */
EP_MUST_CHECK enum ep_status ep_layer_create(struct ep_session *session, struct ep_layer_bank *bank,
                                             struct ep_comm *all, const struct ep_comm_case *point,
                                             const struct ep_layer_shape *shape,
                                             struct ep_layer **layer);
void ep_layer_destroy(struct ep_layer *layer);

/** All phases in order. A rank that fails alone ends the job with its text: the others would wait for it.
 *  Collective. */
EP_MUST_CHECK enum ep_status ep_layer_run(void *layer);

/** One phase, likewise. */
EP_MUST_CHECK enum ep_status ep_layer_run_phase(struct ep_layer *layer, int phase);

/** This rank's experts on rows as a dispatch of the layer, or of some of its tokens, left them: num_rows
 *  [local experts], at most as many rows in all as the layer has. */
enum ep_status ep_layer_run_experts(struct ep_layer *layer, const int64_t *num_rows,
                                    const struct ep_expert_rows *rows);

/** fp32 rows as rows of a type, `num` elements in all; they must not overlap. */
void ep_layer_round_rows(enum ep_dtype dtype, int64_t num, const float *from, void *to);

/** Add shared experts' rows (NULL = none) to the combined ones: into `sums` [local tokens][hidden] where
 *  slices are summed then, else into `results` itself. */
void ep_layer_add_rows(const struct ep_layer *layer, const float *shared, void *results,
                       float *sums);

/** "dispatch-exchange", "experts": into text [EP_LAYER_NAME_LENGTH]; returns text. */
const char *ep_layer_phase_name(const struct ep_layer_phase *phase, char *text);

/** This rank's lines of what struct ep_layer_clocks has: needs [num_phases][ranks of all], 1 where this rank
 *  needs that one, else 0; overwritten. */
void ep_layer_fill_needs(const struct ep_layer *layer, int64_t *needs);

/** Token row `token` (global index) as all ranks know it: row [hidden] of dtype. */
void ep_layer_fill_token(enum ep_dtype dtype, uint64_t seed, int64_t token, int64_t hidden,
                         void *row);

/** The expert index under which the bank has a layer's shared experts, or a dense FFN. */
enum { EP_LAYER_SHARED = EP_MAX_EXPERTS + 1, EP_LAYER_DENSE = EP_MAX_EXPERTS + 2 };

#endif

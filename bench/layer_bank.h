/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of layers: packed once and kept, since a case is visited again and again. */
#ifndef EP_BENCH_LAYER_BANK_H
#define EP_BENCH_LAYER_BANK_H

#include "base/error.h"
#include "kernels/ffn.h"
#include "kernels/gemm.h"

#include <stdbool.h>
#include <stdint.h>

/** Which weights: those of some experts of a layer, or some of their inner columns. */
struct ep_layer_set {
    const struct ep_gemm_backend *backend;
    struct ep_ffn_shape shape; /* num_groups experts, ffn = inner columns of one of them, unsliced */
    const int32_t *experts;    /* [num_groups] indices, which give the contents */
    int64_t slice;             /* 0 to num_slices - 1: inner columns [floor(s f/n), floor((s+1) f/n)) */
    int64_t num_slices;        /* 1 = all; at most ffn */
    bool backward;             /* with transposed matrices and room for gradients */
};

struct ep_layer_bank;

/** ranks_per_node: that pack at the same time, for the memory that a set may take. */
EP_MUST_CHECK enum ep_status ep_layer_bank_create(uint64_t seed, int64_t ranks_per_node,
                                                  struct ep_layer_bank **bank);
void ep_layer_bank_destroy(struct ep_layer_bank *bank);

/** Element i of the gate-and-up matrix (which = 0, [hidden][inner columns]) or of the down matrix
 *  (which = 1, [ffn][hidden]) of an expert, unsliced, row-major: contiguous, of the shape's dtype, exact in
 *  it. *matrix is borrowed until the next call with the bank. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_layer_bank_matrix(struct ep_layer_bank *bank,
                                                  const struct ep_ffn_shape *shape, int64_t expert,
                                                  int which, const void **matrix);

/** The FFN of a set with room for `max_rows` rows: packed where the bank has it not, or not for so many.
 *  Borrowed; at least the last EP_LAYER_BANK_KEPT that were asked for stay.
 *  Returns EP_ENOMEM, naming the need, where this node's memory does not hold the weights. */
EP_MUST_CHECK enum ep_status ep_layer_bank_ffn(struct ep_layer_bank *bank,
                                               const struct ep_layer_set *set, int64_t max_rows,
                                               struct ep_ffn **ffn);

/** Room for the gradients of an FFN that the bank has, of a set with backward: dw13 and dw2 [num_groups] as
 *  ep_ffn_backward wants them; borrowed like the FFN. */
void ep_layer_bank_gradients(const struct ep_layer_bank *bank, const struct ep_ffn *ffn,
                             float *const **dw13, float *const **dw2);

enum { EP_LAYER_BANK_KEPT = 6 };

/** A router's matrix [hidden][num_experts]; borrowed like an FFN, until the next call for another. */
EP_MUST_CHECK enum ep_status ep_layer_bank_router(struct ep_layer_bank *bank,
                                                  const struct ep_gemm_backend *backend,
                                                  const struct ep_gemm_shape *shape,
                                                  const struct ep_gemm_packed **router);

/** First inner column of slice `slice` of `num_slices`. */
static inline int64_t ep_layer_slice_start(int64_t ffn, int64_t slice, int64_t num_slices)
{
    return slice * ffn / num_slices;
}

#endif

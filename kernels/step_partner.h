/* SPDX-License-Identifier: Apache-2.0 */
/* Who exchanges with whom in each step of a pairwise exchange. */
#ifndef EP_KERNELS_STEP_PARTNER_H
#define EP_KERNELS_STEP_PARTNER_H

#include <stdint.h>

/* By shift: rank i sends to i + s and receives from i - s (Open MPI, this suite's own transport). By XOR: rank i
 * exchanges with i xor s, which needs a power of two of ranks (MPICH's and SMPI's ring there). */
enum ep_step_partner { EP_STEP_SHIFT, EP_STEP_XOR };

/** The rank that `rank` sends to in step 1 <= step < num_ranks. */
static inline int64_t ep_step_to(enum ep_step_partner steps, int64_t num_ranks, int64_t rank, int64_t step)
{
    return steps == EP_STEP_XOR ? rank ^ step : (rank + step) % num_ranks;
}

/** The rank that it receives from. */
static inline int64_t ep_step_from(enum ep_step_partner steps, int64_t num_ranks, int64_t rank, int64_t step)
{
    return steps == EP_STEP_XOR ? rank ^ step : (rank + num_ranks - step) % num_ranks;
}

#endif

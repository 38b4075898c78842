/* SPDX-License-Identifier: Apache-2.0 */
/* What gate_tile.inc asks of an instruction set: functions on a block of 16 floats. */
#ifndef EP_KERNELS_GATE_BLOCK_H
#define EP_KERNELS_GATE_BLOCK_H

#include "kernels/gate_policy.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

/* clang-format off */
/* struct block: 16 floats. Masks: bit i is lane i. Pointers need no alignment unless it is said.
 *   block_load, block_store, block_every(value), block_add, block_multiply
 *   block_max, block_min        no NaN comes here
 *   block_at_least(a, b)        mask of a >= b; block_above(a, b) of a > b
 *   block_clamp(x, low, high, &changed)
 *                               x held within [low, high], NaN gives one of them; what is not x
 *                               sets a bit of changed for good
 *   block_is_clear(changed)     no bit is set
 *   block_exp(x)                exp for x in [-87, 88]
 *   block_sigmoid(x)            1 / (1 + exp(-x)), x in [-80, 87], within 2^-24 (6 + |x|/20) of it,
 *                               relatively
 *   block_sum, block_most       over lanes
 *   block_first(a, n)           lanes from n on become 0
 *   block_store_first(p, a, n)  n lanes only, 1 <= n <= 16
 *   block_kth(a, k)             in all lanes the k-th highest lane, 1 <= k <= 16
 *   block_kth_of_8(a, k)        the same where lanes from 8 on are -inf, k <= 8
 *   block_append(keys, mask, first, to_key, to_idx)
 *                               lanes of the mask in order, idx = first + lane; returns how many;
 *                               up to 16 of each are overwritten
 *   block_pick(x, idx, n)       lane i is x[idx[i]] for i < n <= 16; later lanes are one of them;
 *                               idx [8], or [16] where n > 8, may all be read
 *   block_sort(keys, idx, num, to_key, to_idx)
 *                               num <= 16 candidates by falling key, ties in the order given;
 *                               keys [16] -inf from num on; 16 of each are overwritten. All
 *                               aligned to 64 bytes
 *   block_sum_top2(first, second, scores)
 *                               8 groups: highest and second of each lane; scores [8] = sum of
 *                               the group's two highest, -inf where there is no second */
/* clang-format on */

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2; ln 2 in two parts, n times the first
 * is exact. Polynomial: Cephes expf (Moshier, netlib.org/cephes/single/expf.c), error about 1 ulp.
 */
#define EXP_LOG2E    1.44269504088896341f
#define EXP_LN2 0.69314718056f
#define EXP_LN2_HIGH 0.693359375f
#define EXP_LN2_LOW  (-2.12194440e-4f)
#define EXP_C5       1.9875691500e-4f
#define EXP_C4       1.3981999507e-3f
#define EXP_C3       8.3334519073e-3f
#define EXP_C2       4.1665795894e-2f
#define EXP_C1       1.6666665459e-1f
#define EXP_C0       5.0000001201e-1f

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Activations of whole rows of the expert FFN, and their derivatives. */
#ifndef EP_KERNELS_FFN_ACTIVATION_H
#define EP_KERNELS_FFN_ACTIVATION_H

#include "kernels/ffn.h"

#include <stdint.h>

/** h = f(z), fp32 inside, rounded once.
 *  z  [num_rows][inner columns]; read only
 *  h  [num_rows][ffn] of the shape's dtype; overwritten */
void ep_ffn_activate_rows(const struct ep_ffn_shape *shape, int64_t num_rows, const float *z,
                          void *h);

/** h = f(z) again, and dz = dh * f'(z) (kernels/ffn.h, ep_ffn_backward).
 *  z, dh  [num_rows][inner columns], [num_rows][ffn]; read only
 *  h, dz  [num_rows][ffn], [num_rows][inner columns] of the shape's dtype; overwritten */
void ep_ffn_differentiate_rows(const struct ep_ffn_shape *shape, int64_t num_rows, const float *z,
                               const float *dh, void *h, void *dz);

#endif

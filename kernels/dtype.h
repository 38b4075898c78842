/* SPDX-License-Identifier: Apache-2.0 */
/* Types of token rows: their names, their bytes on the wire, and bf16 conversion. */
#ifndef EP_KERNELS_DTYPE_H
#define EP_KERNELS_DTYPE_H

#include "base/error.h"

#include <stdint.h>
#include <string.h>

enum ep_dtype { EP_FP32, EP_BF16, EP_FP8, EP_NUM_DTYPES };

/** "fp32", "bf16" or "fp8". */
const char *ep_dtype_name(enum ep_dtype dtype);

/** Find a type by its name; `what` names the option in the message.
 *  Returns EP_EINVAL with the names there are, and the nearest of them. */
EP_MUST_CHECK enum ep_status ep_dtype_parse(const char *text, const char *what,
                                            enum ep_dtype *dtype);

/** Bytes of one element: 4, 2, 1 (an fp8 row carries its scales besides). */
int64_t ep_dtype_element_bytes(enum ep_dtype dtype);

/** Bytes of one token row of `hidden` elements, hidden >= 0: fp32 4H, bf16 2H, fp8 H + 4
 * ceil(H/128) (one fp32 scale per 128 elements). Source: kernels/README.md, "Bytes of a row". */
int64_t ep_dtype_row_bytes(enum ep_dtype dtype, int64_t hidden);

/** bf16 is the upper half of an fp32. Exact. */
static inline float ep_bf16_to_f32(uint16_t value)
{
    const uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/** Round to nearest, ties to even; overflow gives infinity; a NaN stays a (quiet) NaN. */
static inline uint16_t ep_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* bfloat16 as uint16_t: the upper half of a float, rounded to nearest even. */
#ifndef EP_KERNELS_BF16_H
#define EP_KERNELS_BF16_H

#include <stdint.h>
#include <string.h>

/** Exact. */
static inline float ep_bf16_to_f32(uint16_t value)
{
    const uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/** Round to nearest, ties to even; NaN stays NaN (made quiet). */
static inline uint16_t ep_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((bits >> 16) | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif

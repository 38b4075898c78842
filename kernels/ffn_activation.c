/* SPDX-License-Identifier: Apache-2.0 */
/* Activations of the expert FFN and their derivatives, written so that compilers vectorise them. */
#include "kernels/ffn_activation.h"

#include "kernels/dtype.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#endif
#define INLINE static inline __attribute__((always_inline))

/* exp(x) without a branch: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2], off by 2 units in the last
 * place at most; infinite above 88.8, 1e-38 below -87. Source: Cephes, expf.c (Moshier). */
INLINE float exponential(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    x = x > 89.0f ? 89.0f : x;
    x = x < -87.3f ? -87.3f : x;
    const float shifted = x * 1.44269504088896341f + round;
    const float n = shifted - round;
    const float f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

INLINE float sigmoid(float x)
{
    return 1.0f / (1.0f + exponential(-x));
}

/* Of the normal distribution. */
INLINE float probability(float x)
{
    return 0.5f * (1.0f + erff(x * 0.70710678118654752f));
}

INLINE float density(float x)
{
    return 0.39894228040143268f * expf(-0.5f * x * x);
}

float ep_ffn_activate(enum ep_ffn_kind kind, float gate, float up)
{
    switch (kind) {
    case EP_FFN_SWIGLU:
        return gate * sigmoid(gate) * up;
    case EP_FFN_RELU:
        return up > 0.0f ? up : 0.0f;
    default:
        return up * probability(up);
    }
}

INLINE void store(enum ep_dtype dtype, float value, int64_t i, void *to)
{
    if (dtype == EP_BF16) {
        ((uint16_t *)to)[i] = ep_bf16_from_f32(value);
    } else {
        ((float *)to)[i] = value;
    }
}

/* One row; `kind` and `dtype` are constants where this is called. */
INLINE void activate(enum ep_ffn_kind kind, enum ep_dtype dtype, int64_t ffn, const float *z, void *h)
{
    const float *up = kind == EP_FFN_SWIGLU ? z + ffn : z;
    for (int64_t i = 0; i < ffn; i++) {
        const float value = kind == EP_FFN_SWIGLU ? z[i] * sigmoid(z[i]) * up[i]
                            : kind == EP_FFN_RELU ? (up[i] > 0.0f ? up[i] : 0.0f)
                                                  : up[i] * probability(up[i]);
        store(dtype, value, i, h);
    }
}

INLINE void differentiate(enum ep_ffn_kind kind, enum ep_dtype dtype, int64_t ffn, const float *z,
                          const float *dh, void *h, void *dz)
{
    for (int64_t i = 0; i < ffn; i++) {
        if (kind == EP_FFN_SWIGLU) {
            const float s = sigmoid(z[i]), silu = z[i] * s, up = z[ffn + i];
            store(dtype, silu * up, i, h);
            store(dtype, dh[i] * up * (s * (1.0f + z[i] * (1.0f - s))), i, dz);
            store(dtype, dh[i] * silu, ffn + i, dz);
        } else if (kind == EP_FFN_RELU) {
            store(dtype, z[i] > 0.0f ? z[i] : 0.0f, i, h);
            store(dtype, z[i] > 0.0f ? dh[i] : 0.0f, i, dz);
        } else {
            const float p = probability(z[i]);
            store(dtype, z[i] * p, i, h);
            store(dtype, dh[i] * (p + z[i] * density(z[i])), i, dz);
        }
    }
}

INLINE void activate_any(enum ep_ffn_kind kind, enum ep_dtype dtype, int64_t ffn, const float *z,
                         void *h)
{
    const bool half = dtype == EP_BF16;
    switch (kind) {
    case EP_FFN_SWIGLU:
        half ? activate(EP_FFN_SWIGLU, EP_BF16, ffn, z, h)
             : activate(EP_FFN_SWIGLU, EP_FP32, ffn, z, h);
        break;
    case EP_FFN_RELU:
        half ? activate(EP_FFN_RELU, EP_BF16, ffn, z, h)
             : activate(EP_FFN_RELU, EP_FP32, ffn, z, h);
        break;
    default:
        activate(EP_FFN_GELU, dtype, ffn, z, h);
    }
}

INLINE void differentiate_any(enum ep_ffn_kind kind, enum ep_dtype dtype, int64_t ffn,
                              const float *z, const float *dh, void *h, void *dz)
{
    const bool half = dtype == EP_BF16;
    switch (kind) {
    case EP_FFN_SWIGLU:
        half ? differentiate(EP_FFN_SWIGLU, EP_BF16, ffn, z, dh, h, dz)
             : differentiate(EP_FFN_SWIGLU, EP_FP32, ffn, z, dh, h, dz);
        break;
    case EP_FFN_RELU:
        half ? differentiate(EP_FFN_RELU, EP_BF16, ffn, z, dh, h, dz)
             : differentiate(EP_FFN_RELU, EP_FP32, ffn, z, dh, h, dz);
        break;
    default:
        differentiate(EP_FFN_GELU, dtype, ffn, z, dh, h, dz);
    }
}

typedef void activate_fn(enum ep_ffn_kind, enum ep_dtype, int64_t ffn, const float *z, void *h);
typedef void differentiate_fn(enum ep_ffn_kind, enum ep_dtype, int64_t ffn, const float *z,
                              const float *dh, void *h, void *dz);

#define VERSION(name, target)                                                                      \
    target static void activate_##name(enum ep_ffn_kind kind, enum ep_dtype dtype, int64_t ffn,    \
                                       const float *z, void *h)                                    \
    {                                                                                              \
        activate_any(kind, dtype, ffn, z, h);                                                      \
    }                                                                                              \
    target static void differentiate_##name(enum ep_ffn_kind kind, enum ep_dtype dtype,            \
                                            int64_t ffn, const float *z, const float *dh, void *h, \
                                            void *dz)                                              \
    {                                                                                              \
        differentiate_any(kind, dtype, ffn, z, dh, h, dz);                                         \
    }
VERSION(plain, )
#if defined(__x86_64__)
VERSION(avx2, AVX2)
VERSION(avx512, AVX512)
#endif

static void choose(activate_fn **activate_row, differentiate_fn **differentiate_row)
{
    *activate_row = activate_plain;
    *differentiate_row = differentiate_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
        *activate_row = activate_avx512;
        *differentiate_row = differentiate_avx512;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        *activate_row = activate_avx2;
        *differentiate_row = differentiate_avx2;
    }
#endif
}

void ep_ffn_activate_rows(const struct ep_ffn_shape *shape, int64_t num_rows, const float *z,
                          void *h)
{
    activate_fn *activate_row;
    differentiate_fn *differentiate_row;
    const int64_t columns = ep_ffn_inner_columns(shape);
    const int64_t row_bytes = shape->ffn * ep_dtype_element_bytes(shape->dtype);
    choose(&activate_row, &differentiate_row);
    for (int64_t r = 0; r < num_rows; r++) {
        activate_row(shape->kind, shape->dtype, shape->ffn, z + r * columns,
                     (char *)h + r * row_bytes);
    }
}

void ep_ffn_differentiate_rows(const struct ep_ffn_shape *shape, int64_t num_rows, const float *z,
                               const float *dh, void *h, void *dz)
{
    activate_fn *activate_row;
    differentiate_fn *differentiate_row;
    const int64_t columns = ep_ffn_inner_columns(shape);
    const int64_t element = ep_dtype_element_bytes(shape->dtype);
    choose(&activate_row, &differentiate_row);
    for (int64_t r = 0; r < num_rows; r++) {
        differentiate_row(shape->kind, shape->dtype, shape->ffn, z + r * columns,
                          dh + r * shape->ffn, (char *)h + r * shape->ffn * element,
                          (char *)dz + r * columns * element);
    }
}

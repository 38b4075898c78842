/* SPDX-License-Identifier: Apache-2.0 */
/* The table of GEMM back ends, and what does not depend on the back end. */
#include "kernels/gemm.h"

#include "base/options.h"
#include "kernels/gemm_backends.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const struct ep_gemm_backend *const ep_gemm_backends[] = {
    &ep_gemm_ref,
    &ep_gemm_cblas,
    &ep_gemm_onednn,
    &ep_gemm_native,
    &ep_gemm_native2,
    &ep_gemm_native3,
    NULL,
};

bool ep_gemm_is_available(const struct ep_gemm_backend *backend, enum ep_dtype dtype, char *reason,
                          size_t length)
{
    if (dtype != EP_FP32 && dtype != EP_BF16) {
        snprintf(reason, length, "%s rows are moved, not multiplied", ep_dtype_name(dtype));
        return false;
    }
    return backend->available(dtype, reason, length);
}

/* AMX multiplies bf16 many times faster than any vector unit, and oneDNN uses it. CPUID leaf 7,
 * EDX bit 22; whether the system lets programs use it is oneDNN's to find out. */
static bool has_amx_bf16(void)
{
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> 22 & 1) != 0;
#else
    return false;
#endif
}

const struct ep_gemm_backend *ep_gemm_default(enum ep_dtype dtype)
{
    const bool has_tiles = dtype == EP_BF16 && has_amx_bf16();
    const struct ep_gemm_backend *const preferred[] = {
        has_tiles ? &ep_gemm_onednn : &ep_gemm_native, &ep_gemm_onednn, &ep_gemm_cblas};
    for (size_t i = 0; i < sizeof preferred / sizeof *preferred; i++) {
        char reason[256];
        if (ep_gemm_is_available(preferred[i], dtype, reason, sizeof reason)) {
            return preferred[i];
        }
    }
    return &ep_gemm_ref;
}

enum ep_status ep_gemm_find(const char *name, enum ep_dtype dtype,
                            const struct ep_gemm_backend **backend)
{
    if (strcmp(name, "default") == 0) {
        *backend = ep_gemm_default(dtype);
        return EP_OK;
    }
    const char *names[16] = {NULL};
    int num = 0;
    for (; ep_gemm_backends[num] != NULL; num++) {
        names[num] = ep_gemm_backends[num]->name;
        if (strcmp(names[num], name) == 0) {
            char reason[256];
            if (!ep_gemm_is_available(ep_gemm_backends[num], dtype, reason, sizeof reason)) {
                return ep_error_set(EP_EENV, "GEMM back end '%s' cannot do %s here: %s", name,
                                    ep_dtype_name(dtype), reason);
            }
            *backend = ep_gemm_backends[num];
            return EP_OK;
        }
    }
    const char *nearest = ep_options_nearest(name, names, num);
    return ep_error_set(EP_EINVAL, "unknown GEMM back end '%s'%s%s%s", name,
                        nearest != NULL ? "; did you mean '" : "", nearest != NULL ? nearest : "",
                        nearest != NULL ? "'?" : "");
}

static enum ep_status check_shape(const struct ep_gemm_shape *shape)
{
    if (shape->dtype != EP_FP32 && shape->dtype != EP_BF16) {
        return ep_error_set(EP_EINVAL, "GEMM of %s: only fp32 and bf16 are multiplied",
                            ep_dtype_name(shape->dtype));
    }
    /* dimensions as 31-bit numbers: what CBLAS takes */
    const int64_t limit = INT32_MAX;
    if (shape->num_groups < 1 || shape->k < 1 || shape->n < 1 || shape->num_groups > limit ||
        shape->k > limit || shape->n > limit || shape->k > INT64_MAX / 16 / shape->n) {
        return ep_error_set(EP_EINVAL,
                            "GEMM of %" PRId64 " groups, k %" PRId64 ", n %" PRId64
                            ": each must be between 1 and 2^31 - 1",
                            shape->num_groups, shape->k, shape->n);
    }
    return EP_OK;
}

static enum ep_status pack(const struct ep_gemm_backend *backend, const struct ep_gemm_shape *shape,
                           bool transposed, const void *const *weights,
                           struct ep_gemm_packed *packed)
{
    enum ep_status status = check_shape(shape);
    if (status != EP_OK) {
        return status;
    }
    struct ep_gemm_packed made = {
        .backend = backend, .shape = *shape, .transposed = transposed};
    status = backend->pack(weights, &made);
    if (status == EP_OK) {
        *packed = made;
    }
    return status;
}

enum ep_status ep_gemm_pack(const struct ep_gemm_backend *backend,
                            const struct ep_gemm_shape *shape, const void *const *weights,
                            struct ep_gemm_packed *packed)
{
    return pack(backend, shape, false, weights, packed);
}

enum ep_status ep_gemm_pack_transposed(const struct ep_gemm_backend *backend,
                                       const struct ep_gemm_shape *shape,
                                       const void *const *weights, struct ep_gemm_packed *packed)
{
    return pack(backend, shape, true, weights, packed);
}

enum ep_status ep_gemm_find_borrowing(const struct ep_gemm_backend *backend, enum ep_dtype dtype,
                                      bool *borrows)
{
    const float small[16 * 16] = {0};
    const void *weights[1] = {small};
    const struct ep_gemm_shape shape = {1, 16, 16, dtype};
    struct ep_gemm_packed packed = {0};
    const enum ep_status status = ep_gemm_pack(backend, &shape, weights, &packed);
    if (status == EP_OK) {
        *borrows = packed.borrows_weights;
    }
    ep_gemm_release(&packed);
    return status;
}

enum ep_status ep_gemm_run(const struct ep_gemm_packed *packed, const int64_t *num_rows,
                           const void *x, float *y)
{
    const int64_t row_bytes = packed->shape.k * ep_dtype_element_bytes(packed->shape.dtype);
    const char *rows = x;
    enum ep_status status = EP_OK;
    for (int64_t g = 0; g < packed->shape.num_groups && status == EP_OK; g++) {
        status = ep_gemm_run_group(packed, g, num_rows[g], rows, y);
        rows += num_rows[g] * row_bytes;
        y += num_rows[g] * packed->shape.n;
    }
    return status;
}

enum ep_status ep_gemm_run_group(const struct ep_gemm_packed *packed, int64_t group,
                                 int64_t num_rows, const void *x, float *y)
{
    return num_rows > 0 ? packed->backend->run(packed, group, num_rows, x, y) : EP_OK;
}

enum ep_status ep_gemm_gradient(const struct ep_gemm_packed *packed, int64_t num_rows,
                                const void *x, const void *dz, float *dw)
{
    if (num_rows > 0) {
        return packed->backend->gradient(packed, num_rows, x, dz, dw);
    }
    memset(dw, 0, (size_t)ep_gemm_num_weights(&packed->shape) * sizeof *dw);
    return EP_OK;
}

void ep_gemm_release(struct ep_gemm_packed *packed)
{
    if (packed != NULL && packed->backend != NULL) {
        packed->backend->release(packed);
        memset(packed, 0, sizeof *packed);
    }
}

double ep_gemm_flops(const struct ep_gemm_shape *shape, int64_t num_rows)
{
    return 2.0 * (double)num_rows * (double)shape->n * (double)shape->k;
}

double ep_gemm_bytes(const struct ep_gemm_shape *shape, int64_t num_active, int64_t num_rows)
{
    const double element = (double)ep_dtype_element_bytes(shape->dtype);
    return (double)num_active * (double)ep_gemm_num_weights(shape) * element +
           (double)num_rows * ((double)shape->k * element + (double)shape->n * sizeof(float));
}

double ep_gemm_tolerance(enum ep_dtype dtype, int64_t k, double abs_sum)
{
    const double u = 0x1p-24;
    const double sums = (double)(k + 2) * u * abs_sum;
    return dtype == EP_BF16 ? 2.0 * sums : sums;
}

void *ep_gemm_alloc(int64_t size_bytes)
{
    const int64_t huge = 2 << 20;
    const int64_t align = size_bytes >= huge ? huge : 64;
    const size_t size = (size_t)((size_bytes + align - 1) / align * align);
    void *memory = aligned_alloc((size_t)align, size > 0 ? size : (size_t)align);
    if (memory != NULL) {
        if (align == huge) {
            /* refused where huge pages are off: the memory is good all the same */
            (void)madvise(memory, size, MADV_HUGEPAGE);
        }
        memset(memory, 0, size);
    }
    return memory;
}

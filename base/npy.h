/* SPDX-License-Identifier: Apache-2.0 */
/* A strict reader of NumPy .npy arrays: little-endian, C order, plain numbers. */
#ifndef EP_BASE_NPY_H
#define EP_BASE_NPY_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum ep_npy_type { EP_NPY_F32, EP_NPY_F64, EP_NPY_I16, EP_NPY_I32, EP_NPY_I64, EP_NPY_NUM_TYPES };

enum { EP_NPY_MAX_DIMS = 8 };

/** An array, C order (last dimension fastest). Init with ep_npy_open or ep_npy_init; free with
 *  ep_npy_fini. */
struct ep_npy {
    enum ep_npy_type type;
    int64_t num_dims;              /* 0 = one number without dimensions */
    int64_t dims[EP_NPY_MAX_DIMS]; /* >= 0 */
    int64_t num_values;            /* product of dims */
    void *values;                  /* [num_values] of the type, owned, aligned for it */
};

/** Read a file of at most `limit_bytes` ("-" = standard input); `npy` is overwritten.
 *  Returns EP_EINVAL, naming the file and what was expected, unless it is npy format 1, 2 or 3 of
 *  <f4, <f8, <i2, <i4 or <i8 in C order with exactly the bytes that its shape asks for.
 *  Source: numpy/lib/format.py, "Format Version 1.0" and after. */
EP_MUST_CHECK enum ep_status ep_npy_open(const char *path, int64_t limit_bytes, struct ep_npy *npy);

/** The same from `length` bytes in memory, called `name` in messages; they are copied. */
EP_MUST_CHECK enum ep_status ep_npy_init(const char *name, const void *bytes, size_t length,
                                         struct ep_npy *npy);
void ep_npy_fini(struct ep_npy *npy);

/** "<f4" ...; and the bytes of one value. */
const char *ep_npy_type_name(enum ep_npy_type type);
int64_t ep_npy_type_bytes(enum ep_npy_type type);

/** Value `i` as a whole number: exact for the integer types, which it is for (else it asserts). */
int64_t ep_npy_get_i64(const struct ep_npy *npy, int64_t i);

/** Value `i` as a double: exact but for integers beyond 2^53. */
double ep_npy_get_f64(const struct ep_npy *npy, int64_t i);

#endif

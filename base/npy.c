/* SPDX-License-Identifier: Apache-2.0 */
/* Reading .npy: a fixed head, a Python dictionary of three keys, and the values. */
#include "base/npy.h"

#include "base/file.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int64_t bytes;
} types[EP_NPY_NUM_TYPES] = {
    [EP_NPY_F32] = {"<f4", 4}, [EP_NPY_F64] = {"<f8", 8}, [EP_NPY_I16] = {"<i2", 2},
    [EP_NPY_I32] = {"<i4", 4}, [EP_NPY_I64] = {"<i8", 8},
};

const char *ep_npy_type_name(enum ep_npy_type type)
{
    return types[type].name;
}

int64_t ep_npy_type_bytes(enum ep_npy_type type)
{
    return types[type].bytes;
}

/* --- the dictionary -------------------------------------------------------------------------- */

/* The text of the header between `next` and `end`. */
struct cursor {
    const char *name;
    const char *next;
    const char *end;
};

static enum ep_status refuse(const struct cursor *at, const char *expected)
{
    return ep_error_set(EP_EINVAL, "%s: npy header: %s expected", at->name, expected);
}

static void skip_space(struct cursor *at)
{
    while (at->next < at->end && (*at->next == ' ' || *at->next == '\n')) {
        at->next++;
    }
}

/* Take `token` if it comes next. */
static bool take(struct cursor *at, const char *token)
{
    skip_space(at);
    const size_t length = strlen(token);
    if ((size_t)(at->end - at->next) < length || memcmp(at->next, token, length) != 0) {
        return false;
    }
    at->next += length;
    return true;
}

static enum ep_status read_descr(struct cursor *at, struct ep_npy *npy)
{
    const char *quote = take(at, "'") ? "'" : take(at, "\"") ? "\"" : NULL;
    if (quote == NULL) {
        return refuse(at, "a type such as '<f4'");
    }
    for (int t = 0; t < EP_NPY_NUM_TYPES; t++) {
        if (take(at, types[t].name)) {
            npy->type = (enum ep_npy_type)t;
            return take(at, quote) ? EP_OK : refuse(at, "the end of the type");
        }
    }
    const char *last = at->next;
    while (last < at->end && *last != *quote && last - at->next < 12) {
        last++;
    }
    return ep_error_set(EP_EINVAL, "%s: npy type '%.*s'; <f4, <f8, <i2, <i4 or <i8 expected",
                        at->name, (int)(last - at->next), at->next);
}

static enum ep_status read_order(struct cursor *at)
{
    if (take(at, "True")) {
        return ep_error_set(EP_EINVAL, "%s: npy array in Fortran order; C order expected",
                            at->name);
    }
    return take(at, "False") ? EP_OK : refuse(at, "fortran_order True or False");
}

/* One dimension; what the array would hold must stay countable in bytes. */
static enum ep_status read_dim(struct cursor *at, struct ep_npy *npy)
{
    int64_t dim = 0;
    skip_space(at);
    const char *first = at->next;
    while (at->next < at->end && *at->next >= '0' && *at->next <= '9') {
        if (dim > (INT64_MAX - 9) / 10) {
            return refuse(at, "a smaller dimension");
        }
        dim = 10 * dim + (*at->next++ - '0');
    }
    if (at->next == first) {
        return refuse(at, "a shape such as (8, 64)");
    }
    if (npy->num_dims == EP_NPY_MAX_DIMS) {
        return refuse(at, "at most 8 dimensions");
    }
    npy->dims[npy->num_dims++] = dim;
    return EP_OK;
}

static enum ep_status read_shape(struct cursor *at, struct ep_npy *npy)
{
    bool comma = false;
    if (!take(at, "(")) {
        return refuse(at, "a shape such as (8, 64)");
    }
    while (!take(at, ")")) {
        if (npy->num_dims > 0 && !comma) {
            return refuse(at, "',' between dimensions");
        }
        const enum ep_status status = read_dim(at, npy);
        if (status != EP_OK) {
            return status;
        }
        comma = take(at, ",");
    }
    return npy->num_dims == 1 && !comma ? refuse(at, "(N,) for one dimension") : EP_OK;
}

enum { HAS_DESCR = 1, HAS_ORDER = 2, HAS_SHAPE = 4, HAS_ALL = 7 };

static enum ep_status read_header(struct cursor *at, struct ep_npy *npy)
{
    int seen = 0;
    if (!take(at, "{")) {
        return refuse(at, "'{'");
    }
    while (!take(at, "}")) {
        const int key = take(at, "'descr'")           ? HAS_DESCR
                        : take(at, "'fortran_order'") ? HAS_ORDER
                        : take(at, "'shape'")         ? HAS_SHAPE
                                                      : 0;
        if (key == 0 || (seen & key) != 0 || !take(at, ":")) {
            return refuse(at, "'descr', 'fortran_order' and 'shape', once each,");
        }
        seen |= key;
        const enum ep_status status = key == HAS_DESCR   ? read_descr(at, npy)
                                      : key == HAS_ORDER ? read_order(at)
                                                         : read_shape(at, npy);
        if (status != EP_OK) {
            return status;
        }
        if (!take(at, ",") && (at->next == at->end || *at->next != '}')) {
            return refuse(at, "',' or '}'");
        }
    }
    skip_space(at);
    if (seen != HAS_ALL) {
        return refuse(at, "'descr', 'fortran_order' and 'shape', once each,");
    }
    return at->next == at->end ? EP_OK : refuse(at, "nothing after '}'");
}

/* --- the file -------------------------------------------------------------------------------- */

/* Bytes before the values: magic, version, length of the header, header. */
static enum ep_status find_header(const char *name, const unsigned char *bytes, size_t length,
                                  struct cursor *at)
{
    enum { VERSION_1_HEAD = 10, VERSION_2_HEAD = 12 };
    if (length < VERSION_1_HEAD || memcmp(bytes, "\x93NUMPY", 6) != 0) {
        return ep_error_set(EP_EINVAL, "%s: is not a .npy file (no \\x93NUMPY at its start)", name);
    }
    if (bytes[6] < 1 || bytes[6] > 3 || bytes[7] != 0) {
        return ep_error_set(EP_EINVAL, "%s: npy format %d.%d; 1.0, 2.0 or 3.0 expected", name,
                            bytes[6], bytes[7]);
    }
    size_t head = VERSION_1_HEAD;
    size_t size = bytes[8] | (size_t)bytes[9] << 8;
    if (bytes[6] > 1) {
        head = VERSION_2_HEAD;
        size = length < head ? length : size | (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    }
    if (length < head || length - head < size) {
        return ep_error_set(EP_EINVAL, "%s: ends within its npy header", name);
    }
    *at = (struct cursor){name, (const char *)bytes + head, (const char *)bytes + head + size};
    return EP_OK;
}

/* num_values, refused where the bytes would not fit an int64. */
static enum ep_status count_values(const char *name, struct ep_npy *npy)
{
    npy->num_values = 1;
    for (int64_t d = 0; d < npy->num_dims; d++) {
        if (npy->dims[d] > 0 && npy->num_values > INT64_MAX / 8 / npy->dims[d]) {
            return ep_error_set(EP_EINVAL, "%s: npy shape has too many values to be counted", name);
        }
        npy->num_values *= npy->dims[d];
    }
    return EP_OK;
}

enum ep_status ep_npy_init(const char *name, const void *bytes, size_t length, struct ep_npy *npy)
{
    enum ep_status status;
    struct ep_npy made = {0};
    struct cursor at = {0};
    EP_TRY(find_header(name, bytes, length, &at));
    const char *const values = at.end;
    EP_TRY(read_header(&at, &made));
    EP_TRY(count_values(name, &made));
    const int64_t have = (const char *)bytes + length - values;
    const int64_t need = made.num_values * types[made.type].bytes;
    if (have != need) {
        status = ep_error_set(EP_EINVAL,
                              "%s: %" PRId64 " bytes of values; its shape and type need %" PRId64,
                              name, have, need);
        goto out;
    }
    made.values = malloc((size_t)need + 1);
    if (made.values == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " bytes", name, need);
        goto out;
    }
    memcpy(made.values, values, (size_t)need);
    *npy = made;
out:
    return status;
}

enum ep_status ep_npy_open(const char *path, int64_t limit_bytes, struct ep_npy *npy)
{
    char *text = NULL;
    size_t length = 0;
    enum ep_status status = ep_file_read(path, limit_bytes, &text, &length);
    if (status == EP_OK) {
        status = ep_npy_init(path, text, length, npy);
        free(text);
    }
    return status;
}

void ep_npy_fini(struct ep_npy *npy)
{
    free(npy->values);
    *npy = (struct ep_npy){0};
}

int64_t ep_npy_get_i64(const struct ep_npy *npy, int64_t i)
{
    EP_ASSERT(i >= 0 && i < npy->num_values && npy->type >= EP_NPY_I16);
    switch (npy->type) {
    case EP_NPY_I16:
        return ((const int16_t *)npy->values)[i];
    case EP_NPY_I32:
        return ((const int32_t *)npy->values)[i];
    default:
        return ((const int64_t *)npy->values)[i];
    }
}

double ep_npy_get_f64(const struct ep_npy *npy, int64_t i)
{
    EP_ASSERT(i >= 0 && i < npy->num_values);
    switch (npy->type) {
    case EP_NPY_F32:
        return (double)((const float *)npy->values)[i];
    case EP_NPY_F64:
        return ((const double *)npy->values)[i];
    default:
        return (double)ep_npy_get_i64(npy, i);
    }
}

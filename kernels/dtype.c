/* SPDX-License-Identifier: Apache-2.0 */
/* The table of row types. */
#include "kernels/dtype.h"

#include "base/options.h"

#include <string.h>

struct dtype_row {
    const char *name;
    int64_t element_bytes;
    int64_t scale_group; /* elements that share one fp32 scale; 0 = no scales */
};

static const struct dtype_row dtypes[EP_NUM_DTYPES] = {
    [EP_FP32] = {.name = "fp32", .element_bytes = 4},
    [EP_BF16] = {.name = "bf16", .element_bytes = 2},
    [EP_FP8] = {.name = "fp8", .element_bytes = 1, .scale_group = 128},
};

const char *ep_dtype_name(enum ep_dtype dtype)
{
    EP_ASSERT((unsigned)dtype < EP_NUM_DTYPES);
    return dtypes[dtype].name;
}

enum ep_status ep_dtype_parse(const char *text, const char *what, enum ep_dtype *dtype)
{
    const char *names[EP_NUM_DTYPES];
    for (int i = 0; i < EP_NUM_DTYPES; i++) {
        names[i] = dtypes[i].name;
        if (strcmp(names[i], text) == 0) {
            *dtype = (enum ep_dtype)i;
            return EP_OK;
        }
    }
    const char *nearest = ep_options_nearest(text, names, EP_NUM_DTYPES);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "%s: unknown type '%s'; did you mean %s?", what, text,
                              nearest)
               : ep_error_set(EP_EINVAL, "%s: unknown type '%s'; fp32, bf16 or fp8 expected", what,
                              text);
}

int64_t ep_dtype_element_bytes(enum ep_dtype dtype)
{
    EP_ASSERT((unsigned)dtype < EP_NUM_DTYPES);
    return dtypes[dtype].element_bytes;
}

int64_t ep_dtype_row_bytes(enum ep_dtype dtype, int64_t hidden)
{
    EP_ASSERT((unsigned)dtype < EP_NUM_DTYPES && hidden >= 0);
    const struct dtype_row *row = &dtypes[dtype];
    const int64_t groups =
        row->scale_group > 0 ? (hidden + row->scale_group - 1) / row->scale_group : 0;
    return row->element_bytes * hidden + 4 * groups;
}

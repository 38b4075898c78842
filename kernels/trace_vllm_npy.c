/* SPDX-License-Identifier: Apache-2.0 */
/* vLLM's routed_experts as .npy: [tokens][layers][top-k], or [tokens][top-k] of one layer.
 * Source: vllm-project/vllm pull request 28284. */
#include "kernels/trace_format.h"

#include "base/npy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static enum ep_status check_array(const char *name, const struct ep_npy *npy)
{
    const bool whole =
        npy->type == EP_NPY_I16 || npy->type == EP_NPY_I32 || npy->type == EP_NPY_I64;
    if (!whole) {
        return ep_error_set(EP_EINVAL, "%s: npy type %s; <i2, <i4 or <i8 expert indices expected",
                            name, ep_npy_type_name(npy->type));
    }
    if (npy->num_dims != 2 && npy->num_dims != 3) {
        return ep_error_set(EP_EINVAL,
                            "%s: npy array of %" PRId64
                            " dimensions; [tokens][layers][top-k] or [tokens][top-k] expected",
                            name, npy->num_dims);
    }
    for (int64_t d = 1; d < npy->num_dims; d++) {
        if (npy->dims[d] < 1 || npy->dims[d] > 65536) {
            return ep_error_set(EP_EINVAL,
                                "%s: npy dimension %" PRId64 " is %" PRId64 "; 1 to 65536 expected",
                                name, d, npy->dims[d]);
        }
    }
    return EP_OK;
}

static enum ep_status add_tokens(const struct ep_npy *npy, int64_t layer, int64_t *experts,
                                 struct ep_trace_builder *builder)
{
    const int64_t layers = npy->num_dims == 3 ? npy->dims[1] : 1;
    const int64_t top_k = npy->dims[npy->num_dims - 1];
    for (int64_t t = 0; t < npy->dims[0]; t++) {
        for (int64_t i = 0; i < top_k; i++) {
            experts[i] = ep_npy_get_i64(npy, (t * layers + layer) * top_k + i);
        }
        const struct ep_trace_row row = {.part = t, .token_id = -1, .experts = experts,
                                         .top_k = top_k};
        const enum ep_status status = ep_trace_builder_add(builder, &row);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status read(struct ep_trace_source *source, struct ep_trace_builder *builder)
{
    enum ep_status status;
    struct ep_npy npy = {0};
    int64_t *experts = NULL;
    EP_TRY(ep_npy_init(source->name, source->text, source->length, &npy));
    free(source->text); /* copied: a large array must not lie there twice */
    source->text = NULL;
    EP_TRY(check_array(source->name, &npy));
    experts = calloc((size_t)npy.dims[npy.num_dims - 1], sizeof *experts);
    if (experts == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", source->name);
        goto out;
    }
    int64_t chosen = npy.num_dims == 3 ? -1 : 0;
    for (int64_t layer = 0; npy.num_dims == 3 && layer < npy.dims[1]; layer++) {
        bool wanted = false;
        EP_TRY(ep_trace_builder_see(builder, layer, &wanted));
        chosen = wanted ? layer : chosen;
    }
    if (npy.num_dims == 2) {
        bool wanted = false;
        EP_TRY(ep_trace_builder_see(builder, -1, &wanted));
    }
    if (chosen >= 0) {
        EP_TRY(add_tokens(&npy, chosen, experts, builder));
    }
out:
    free(experts);
    ep_npy_fini(&npy);
    return status;
}

static bool recognise(const char *text, size_t length)
{
    return length >= 6 && memcmp(text, "\x93NUMPY", 6) == 0;
}

const struct ep_trace_format ep_trace_vllm_npy = {
    .name = "vllm-npy",
    .summary = "routed_experts of vLLM, .npy of whole numbers [tokens][layers][top-k]",
    .recognise = recognise,
    .read = read,
    .is_binary = true,
};

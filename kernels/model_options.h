/* SPDX-License-Identifier: Apache-2.0 */
/* Options by which users name a model or give their own: an argp child of several commands. */
#ifndef EP_KERNELS_MODEL_OPTIONS_H
#define EP_KERNELS_MODEL_OPTIONS_H

#include "base/error.h"
#include "kernels/models.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

/** As given; 0 or NULL = not given. Texts are borrowed. Start from EP_MODEL_OPTIONS_NONE. */
struct ep_model_options {
    const char *name; /* --model */
    const char *file; /* --model-file */
    int64_t num_experts;
    int64_t top_k;
    int64_t hidden;
    int64_t expert_ffn;
    int64_t num_layers;
    int64_t num_moe_layers;
    int64_t num_shared; /* -1 = not given */
    int64_t shared_ffn; /* of one shared expert */
    int64_t num_heads;
    int gated;           /* -1 = not given */
    double total_params; /* 0 = not given */
};

#define EP_MODEL_OPTIONS_NONE ((struct ep_model_options){.num_shared = -1, .gated = -1})

/** --model, --model-file, --experts, --top-k, --hidden, --ffn, --layers, --moe-layers, --shared,
 *  --shared-ffn, --gated, --no-gated, --heads, --total-params. Its input is a struct
 * ep_model_options. */
extern const struct argp ep_model_argp;

/** True where some shape is given besides the name and the file. */
bool ep_model_options_have_shape(const struct ep_model_options *options);

/** The model meant: of the zoo or the file (which may hold one alone without --model), its values
 * replaced by those given; or a model of options alone, which needs experts, top-k, hidden, ffn and
 * layers, is gated and has MoE in each layer unless said. A model whose shape was changed has no
 * published totals unless --total-params gives one. models  keeps the texts; to be destroyed after
 * `model` Returns EP_EINVAL for an unknown name, a bad file, options that are missing or contradict
 * each other. */
EP_MUST_CHECK enum ep_status ep_model_options_resolve(const struct ep_model_options *options,
                                                      struct ep_models **models,
                                                      struct ep_model *model);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Models beside the ladder: kernels, and the whole layer; printed and written to machine.json. */
#ifndef EP_RESULTS_PARTS_H
#define EP_RESULTS_PARTS_H

#include "results/compute_fit.h"
#include "results/layer_fit.h"

#include <jansson.h>
#include <stdio.h>

struct ep_parts {
    struct ep_compute_fit compute;
    struct ep_layer_fit layers;
};

/** Fit what kernels and layer records there are; none leaves it empty. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_parts_fit(const struct ep_records *records,
                                          const struct ep_fit_options *options,
                                          struct ep_parts *parts);
void ep_parts_fini(struct ep_parts *parts);

/** Tables of both, with notes; nothing where there is nothing. */
EP_MUST_CHECK enum ep_status ep_parts_print(const struct ep_parts *parts, FILE *out);

/** The same in a sentence or two each: kernels whose rates both stand, layers with their notes. */
void ep_parts_explain_kernels(const struct ep_compute_fit *fit, FILE *out);
void ep_parts_explain_layers(const struct ep_layer_fit *fit, FILE *out);

/** Keys "parts" and "layers" of machine.json, and a key per use (ep_compute_use_name) of its `compute`. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_parts_to_json(const struct ep_parts *parts, json_t *compute,
                                              json_t *machine);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens per expert of real models, by domain and layer, that are built into the program. */
#ifndef EP_KERNELS_COUNTS_H
#define EP_KERNELS_COUNTS_H

#include "base/error.h"
#include "kernels/trace.h"

#include <stdbool.h>
#include <stdint.h>

/** One layer of a model on one domain of text. */
struct ep_counts_cell {
    int64_t model;   /* index of ep_counts.models */
    int64_t domain;  /* index of ep_counts.domains */
    int64_t layer;
    double *tokens;  /* [num_experts of the model] tokens that chose the expert */
};

struct ep_counts_model {
    char *name; /* as in the model zoo */
    int64_t num_experts;
    int64_t top_k;
};

/** All of them. Made by ep_counts_create, freed with ep_counts_destroy. */
struct ep_counts {
    struct ep_counts_model *models; /* [num_models] */
    int64_t num_models;
    char **domains; /* [num_domains] */
    int64_t num_domains;
    struct ep_counts_cell *cells; /* [num_cells] in the order of the file */
    int64_t num_cells;
};

/** The table built in (kernels/data/routing_counts_olmoe_mixtral.csv). */
EP_MUST_CHECK enum ep_status ep_counts_create(struct ep_counts **counts);

/** The same from text, called `name` in messages: CSV model,top_k,domain,layer,expert,count_topk,
 *  count_top1; experts of a (model, domain, layer) consecutive from 0. EP_EINVAL with file:line. */
EP_MUST_CHECK enum ep_status ep_counts_create_from_text(const char *name, const char *text,
                                                        size_t length, struct ep_counts **counts);
void ep_counts_destroy(struct ep_counts *counts);

/** Does the text open with the name of a model that is built in: MODEL/...? */
bool ep_counts_is_built_in(const char *text);

/** "MODEL/DOMAIN[/LAYER]" as a trace of counts; DOMAIN "all" = the sum over domains.
 *  options  its layer counts where the text has none, its num_experts must be the model's or 0
 *  Returns EP_EINVAL, listing what there is, for an unknown model, domain or layer. */
EP_MUST_CHECK enum ep_status ep_counts_load_built_in(const char *text,
                                                     const struct ep_trace_options *options,
                                                     struct ep_trace **trace);

/** Tokens drawn from a trace of counts (num_tokens 0), by ep_count_sampler: sum / top_k of them,
 *  rounded. Their weights are NULL. Returns EP_EINVAL where that is more than 1 GiB, or the counts
 *  are those of no such routing. */
EP_MUST_CHECK enum ep_status ep_counts_draw_trace(const struct ep_trace *counts, int64_t top_k,
                                                  uint64_t seed, struct ep_trace **trace);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Models as tables and JSON: the list, one model in detail, and what its weights take per rank. */
#ifndef EP_KERNELS_MODEL_REPORT_H
#define EP_KERNELS_MODEL_REPORT_H

#include "base/error.h"
#include "kernels/model_sizes.h"
#include "kernels/models.h"

#include <jansson.h>
#include <stdio.h>

/** One line per model; num_ranks 0 = without what each rank holds. */
EP_MUST_CHECK enum ep_status ep_model_report_print_list(const struct ep_model *const *models,
                                                        int64_t num, int64_t num_ranks, FILE *out);

/** All that is known about one. Returns EP_EINVAL where the experts cannot be dealt to the ranks.
 */
EP_MUST_CHECK enum ep_status ep_model_report_print(const struct ep_model *model, int64_t num_ranks,
                                                   FILE *out);

/** The columns of the zoo as keys, `rumoured`, and `derived`: kernels/README.md, "Models". New
 *  reference. */
EP_MUST_CHECK enum ep_status ep_model_report_json(const struct ep_model *model, int64_t num_ranks,
                                                  json_t **json);

#endif

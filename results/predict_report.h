/* SPDX-License-Identifier: Apache-2.0 */
/* Predictions as tables and JSON, what would make them faster, and machines side by side. */
#ifndef EP_RESULTS_PREDICT_REPORT_H
#define EP_RESULTS_PREDICT_REPORT_H

#include "results/predict.h"

#include <stdio.h>

struct json_t;

/** One machine's answer. Texts are borrowed. */
struct ep_predict_answer {
    const char *machine; /* name or file */
    const char *title;
    struct ep_predict_question question;
    struct ep_prediction prediction;
};

enum { EP_PREDICT_MAX_CHANGES = 12 };

/** What if one thing were different. */
struct ep_predict_change {
    char text[96];
    double time_s;
    double speedup; /* time before / time after */
};

/** Try changes: each rate doubled, other transports, half as many ranks, an even load. Returns how many
 *  were possible in *num; EP_ENOMEM. changes [EP_PREDICT_MAX_CHANGES], fastest first. */
EP_MUST_CHECK enum ep_status ep_predict_changes(const struct ep_predict_answer *answer,
                                                struct ep_predict_change *changes, int *num);

EP_MUST_CHECK enum ep_status ep_predict_print(const struct ep_predict_answer *answer,
                                              const struct ep_predict_change *changes,
                                              int num_changes, FILE *out);

/** New object. Keys: results/README.md, "predict". Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_predict_to_json(const struct ep_predict_answer *answer,
                                                const struct ep_predict_change *changes,
                                                int num_changes, struct json_t **json);

/** Machines side by side, fastest first: answers [num] are sorted. */
EP_MUST_CHECK enum ep_status ep_predict_print_ranking(struct ep_predict_answer *answers, int num,
                                                      FILE *out);

/** Compute per token of `model` beside a dense (or other) model's, and what is claimed of it. */
EP_MUST_CHECK enum ep_status ep_predict_against(const struct ep_model *model,
                                                const struct ep_model *other, FILE *out,
                                                struct json_t **json);

#endif

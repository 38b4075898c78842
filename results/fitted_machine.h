/* SPDX-License-Identifier: Apache-2.0 */
/* Reading machine.json back: the chosen rung of each group, and the time it predicts. */
#ifndef EP_RESULTS_FITTED_MACHINE_H
#define EP_RESULTS_FITTED_MACHINE_H

#include "base/error.h"
#include "kernels/dtype.h"
#include "results/compute_fit.h"
#include "results/model.h"

#include <stdbool.h>
#include <stdint.h>

/** A group of cases for which a rung was chosen. Texts are borrowed from the machine. */
struct ep_fitted_group {
    const char *name;
    const char *op; /* dispatch, combine */
    const char *transport;
    const char *byte_basis; /* copies, rank-dedup, node-dedup */
    const char *target;     /* exchange, whole */
    const struct ep_rung *rung;
    struct ep_rung_form form; /* of the rung, with the sizes between which bandwidths change */
    double coefficients[EP_RUNG_MAX_COLUMNS];
    double half_width; /* of a 95 % prediction interval, relative; NaN = not known */
    double min[EP_NUM_FEATURES]; /* of the cases fitted to */
    double max[EP_NUM_FEATURES];
};

/** A part that was fitted: of experts' GEMMs, permute or unpermute, of one type. */
struct ep_fitted_part {
    const char *name; /* NULL = the file knows none; borrowed from the machine */
    enum ep_roofline_form form;
    double coefficients[EP_ROOFLINE_NUM];
    double half_width; /* as a group's */
};

/** Read by ep_fitted_machine_read, freed with ep_fitted_machine_destroy. */
struct ep_fitted_machine {
    struct json_t *json;
    const char *host;
    int64_t num_groups; /* those without a chosen rung are left out */
    struct ep_fitted_group *groups;
    double flops_per_s[EP_NUM_DTYPES]; /* of a rank's expert GEMMs; NaN = not measured */
    double read_bytes_per_s;           /* of a rank, all at work; NaN = not measured */
    struct ep_fitted_part parts[EP_COMPUTE_NUM_USES][EP_NUM_DTYPES];
};

/** Read machine.json as `epbench fit` writes it. Returns EP_EINVAL, naming file and key, where it
 * is none, is of another schema, or holds a rung that this program does not know. */
EP_MUST_CHECK enum ep_status ep_fitted_machine_read(const char *path,
                                                    struct ep_fitted_machine **machine);
void ep_fitted_machine_destroy(struct ep_fitted_machine *machine);

/** Time in s; NaN for a rung that follows single messages, of which a machine file knows none. */
double ep_fitted_group_predict(const struct ep_fitted_group *group,
                               const struct ep_model_features *features);

/** Whether the group's time depends on a feature: predictions that do not know it must be withheld. */
bool ep_fitted_group_uses(const struct ep_fitted_group *group, enum ep_model_feature feature);

/** The first feature of a case that lies outside what the group was fitted to, as a JSON key; NULL
 * = none does. */
const char *ep_fitted_group_extrapolates(const struct ep_fitted_group *group,
                                         const struct ep_model_features *features);

#endif

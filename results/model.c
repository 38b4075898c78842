/* SPDX-License-Identifier: Apache-2.0 */
/* Features of a case and the table of rungs. */
#include "results/model.h"

#include <math.h>
#include <string.h>

static const char *const feature_names[EP_NUM_FEATURES] = {
    [EP_FEATURE_RANKS] = "ranks",
    [EP_FEATURE_REMOTE_BYTES] = "remote_bytes",
    [EP_FEATURE_MEAN_OUT_BYTES] = "mean_out_bytes",
    [EP_FEATURE_H_RANK_BYTES] = "h_rank_bytes",
    [EP_FEATURE_MESSAGES] = "messages_max",
};

const char *ep_model_feature_name(enum ep_model_feature feature)
{
    return feature_names[feature];
}

enum ep_status ep_model_features_of_record(const struct ep_record *record, struct ep_model_features *features)
{
    const double ranks = (double)record->ranks;
    const double values[EP_NUM_FEATURES] = {
        [EP_FEATURE_RANKS] = ranks,
        [EP_FEATURE_REMOTE_BYTES] = record->mean_out_bytes * ranks,
        [EP_FEATURE_MEAN_OUT_BYTES] = record->mean_out_bytes,
        [EP_FEATURE_H_RANK_BYTES] = (double)record->h_rank_bytes,
        [EP_FEATURE_MESSAGES] = (double)record->messages_max,
    };
    for (int f = 0; f < EP_NUM_FEATURES; f++) {
        if (!(values[f] >= 0)) {
            return ep_error_set(EP_EINVAL, "case '%s': '%s' is absent", record->case_name,
                                feature_names[f]);
        }
    }
    memcpy(features->values, values, sizeof values);
    return EP_OK;
}

/* Formulas: results/README.md, "The ladder". */
static void fill_m0(const struct ep_model_features *f, double *row)
{
    row[0] = f->values[EP_FEATURE_MEAN_OUT_BYTES];
}

static void fill_m0_link(const struct ep_model_features *f, double *row)
{
    row[0] = f->values[EP_FEATURE_REMOTE_BYTES];
}

static void fill_m1(const struct ep_model_features *f, double *row)
{
    row[0] = f->values[EP_FEATURE_RANKS] - 1;
    row[1] = f->values[EP_FEATURE_MEAN_OUT_BYTES];
}

static void fill_m2(const struct ep_model_features *f, double *row)
{
    row[0] = 1;
    row[1] = f->values[EP_FEATURE_MESSAGES];
    row[2] = f->values[EP_FEATURE_H_RANK_BYTES];
}

#define BANDWIDTH {"B", "bytes/s", EP_PARAMETER_BANDWIDTH}
static const struct ep_rung rungs[] = {
    {
        .name = "M0",
        .formula = "remote / (P B)",
        .num_parameters = 1,
        .parameters = {BANDWIDTH},
        .can_be_chosen = true,
        .fill_row = fill_m0,
    },
    {
        .name = "M0-link",
        .formula = "remote / B",
        .num_parameters = 1,
        .parameters = {BANDWIDTH},
        .bandwidth_is_total = true,
        .fill_row = fill_m0_link,
    },
    {
        .name = "M1",
        .formula = "(P-1) a + remote / (P B)",
        .num_parameters = 2,
        .parameters = {{"a", "s/message", EP_PARAMETER_TIME}, BANDWIDTH},
        .can_be_chosen = true,
        .fill_row = fill_m1,
    },
    {
        .name = "M2",
        .formula = "l + a n + H_rank / B",
        .num_parameters = 3,
        .parameters = {{"l", "s", EP_PARAMETER_TIME},
                       {"a", "s/message", EP_PARAMETER_TIME},
                       BANDWIDTH},
        .can_be_chosen = true,
        .fill_row = fill_m2,
    },
};
_Static_assert(sizeof rungs / sizeof rungs[0] == EP_NUM_RUNGS, "EP_NUM_RUNGS counts the table");

const struct ep_rung *ep_rung_at(int idx)
{
    EP_ASSERT(idx >= 0 && idx < EP_NUM_RUNGS);
    return &rungs[idx];
}

enum ep_status ep_rung_find(const char *name, int *idx)
{
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        if (strcmp(rungs[i].name, name) == 0) {
            *idx = i;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "'%s' is no rung: M0, M0-link, M1 or M2 was expected", name);
}

double ep_rung_predict(const struct ep_rung *rung, const struct ep_model_features *features,
                       const double *coefficients)
{
    double row[EP_RUNG_MAX_PARAMETERS];
    double time_s = 0;
    rung->fill_row(features, row);
    for (int j = 0; j < rung->num_parameters; j++) {
        time_s += coefficients[j] * row[j];
    }
    return time_s;
}

double ep_rung_parameter_value(const struct ep_rung_parameter *parameter, double coefficient)
{
    return parameter->form == EP_PARAMETER_TIME ? coefficient : 1 / coefficient;
}

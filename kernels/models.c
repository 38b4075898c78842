/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the built-in model zoo by a table of its columns. */
#include "kernels/models.h"

#include "base/csv.h"
#include "base/embedded.h"
#include "base/options.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char zoo_path[] = "kernels/data/model_zoo.csv";

enum column_kind { TEXT, COUNT, COUNT_OR_ZERO, REAL_OR_NAN };

/* The columns of the file, and where each goes. `gated` is read apart: it is a flag. */
static const struct {
    const char *name;
    enum column_kind kind;
    size_t offset;
} columns[] = {
    {"name", TEXT, offsetof(struct ep_model, name)},
    {"hidden", COUNT, offsetof(struct ep_model, hidden)},
    {"expert_ffn", COUNT, offsetof(struct ep_model, expert_ffn)},
    {"n_routed", COUNT, offsetof(struct ep_model, num_experts)},
    {"top_k", COUNT, offsetof(struct ep_model, top_k)},
    {"n_shared", COUNT_OR_ZERO, offsetof(struct ep_model, num_shared)},
    {"shared_ffn_total", COUNT_OR_ZERO, offsetof(struct ep_model, shared_ffn_total)},
    {"n_layers", COUNT, offsetof(struct ep_model, num_layers)},
    {"n_moe_layers", COUNT, offsetof(struct ep_model, num_moe_layers)},
    {"weight_dtype", TEXT, offsetof(struct ep_model, weight_dtype)},
    {"router", TEXT, offsetof(struct ep_model, router)},
    {"n_group", COUNT_OR_ZERO, offsetof(struct ep_model, num_groups)},
    {"topk_group", COUNT_OR_ZERO, offsetof(struct ep_model, topk_groups)},
    {"route_scale", REAL_OR_NAN, offsetof(struct ep_model, route_scale)},
    {"published_total_B", REAL_OR_NAN, offsetof(struct ep_model, published_total_b)},
    {"published_active_B", REAL_OR_NAN, offsetof(struct ep_model, published_active_b)},
    {"routed_expert_params_B", REAL_OR_NAN, offsetof(struct ep_model, routed_expert_b)},
    {"active_routed_params_per_token_B", REAL_OR_NAN, offsetof(struct ep_model, active_routed_b)},
    {"source", TEXT, offsetof(struct ep_model, source)},
    {"confidence", TEXT, offsetof(struct ep_model, confidence)},
    {"other_claims", TEXT, offsetof(struct ep_model, other_claims)},
};

static enum ep_status read_field(const struct ep_csv *csv, int64_t column, enum column_kind kind,
                                 void *to)
{
    const bool empty = csv->fields[column][0] == '\0';
    switch (kind) {
    case TEXT:
        *(const char **)to = csv->fields[column];
        return EP_OK;
    case COUNT:
        return ep_csv_get_i64(csv, column, 1, INT32_MAX, to);
    case COUNT_OR_ZERO:
        *(int64_t *)to = 0;
        return empty ? EP_OK : ep_csv_get_i64(csv, column, 0, INT32_MAX, to);
    case REAL_OR_NAN:
        *(double *)to = (double)NAN;
        return empty ? EP_OK : ep_csv_get_f64(csv, column, 0, 1e9, to);
    }
    return ep_error_set(EP_EINVAL, "%s: unknown kind of column", csv->name);
}

static enum ep_status read_model(const struct ep_csv *csv, struct ep_model *model)
{
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        const int64_t column = ep_csv_find_column(csv, columns[i].name);
        if (column < 0) {
            return ep_error_set(EP_EINVAL, "%s:1: column '%s' is missing", csv->name,
                                columns[i].name);
        }
        const enum ep_status status =
            read_field(csv, column, columns[i].kind, (char *)model + columns[i].offset);
        if (status != EP_OK) {
            return status;
        }
    }
    const int64_t column = ep_csv_find_column(csv, "gated");
    int64_t gated = 0;
    if (column < 0) {
        return ep_error_set(EP_EINVAL, "%s:1: column 'gated' is missing", csv->name);
    }
    const enum ep_status status = ep_csv_get_i64(csv, column, 0, 1, &gated);
    model->gated = gated != 0;
    return status;
}

static enum ep_status read_models(struct ep_models *models)
{
    enum ep_status status;
    int64_t capacity = 0;
    int more = 0;
    EP_TRY(ep_csv_read_header(models->csv));
    EP_TRY(ep_csv_next(models->csv, &more));
    while (more) {
        if (models->num == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 32;
            struct ep_model *larger =
                realloc(models->models, (size_t)capacity * sizeof *larger);
            if (larger == NULL) {
                return ep_error_set(EP_ENOMEM, "no memory for the model zoo");
            }
            models->models = larger;
        }
        struct ep_model *model = &models->models[models->num];
        EP_TRY(read_model(models->csv, model));
        if (model->top_k > model->num_experts) {
            return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": top_k is above n_routed",
                                models->csv->name, models->csv->line);
        }
        models->num++;
        EP_TRY(ep_csv_next(models->csv, &more));
    }
out:
    return status;
}

enum ep_status ep_models_create(struct ep_models **models)
{
    enum ep_status status;
    struct ep_models *made = NULL;
    const struct ep_embedded *file = ep_embedded_find(zoo_path);
    if (file == NULL) {
        return ep_error_set(EP_EENV, "this build has no model zoo (%s)", zoo_path);
    }
    made = calloc(1, sizeof *made);
    if (made == NULL || (made->csv = calloc(1, sizeof *made->csv)) == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the model zoo");
        goto out;
    }
    EP_TRY(ep_csv_init(zoo_path, (const char *)file->data, file->size_bytes, made->csv));
    EP_TRY(read_models(made));
    *models = made;
    return EP_OK;
out:
    ep_models_destroy(made);
    return status;
}

void ep_models_destroy(struct ep_models *models)
{
    if (models == NULL) {
        return;
    }
    if (models->csv != NULL) {
        ep_csv_fini(models->csv);
    }
    free(models->csv);
    free(models->models);
    free(models);
}

enum ep_status ep_models_find(const struct ep_models *models, const char *name,
                              const struct ep_model **model)
{
    const char **names = calloc((size_t)models->num + 1, sizeof *names);
    if (names == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to look up a model");
    }
    const char *nearest = NULL;
    const struct ep_model *found = NULL;
    for (int64_t i = 0; i < models->num; i++) {
        names[i] = models->models[i].name;
        found = strcmp(names[i], name) == 0 ? &models->models[i] : found;
    }
    nearest = ep_options_nearest(name, names, (int)models->num);
    free(names);
    if (found != NULL) {
        *model = found;
        return EP_OK;
    }
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "unknown model '%s'; did you mean '%s'?", name, nearest)
               : ep_error_set(EP_EINVAL, "unknown model '%s'; the models are in %s", name,
                              zoo_path);
}

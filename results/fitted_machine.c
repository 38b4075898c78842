/* SPDX-License-Identifier: Apache-2.0 */
/* machine.json as others use it: groups joined to their chosen rung. */
#include "results/fitted_machine.h"

#include "base/json.h"
#include "results/record.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT_BYTES ((int64_t)256 << 20)

static enum ep_status get_array(const json_t *object, const char *key, const char *where,
                                const json_t **array)
{
    const json_t *found = json_object_get(object, key);
    if (!json_is_array(found)) {
        return ep_error_set(EP_EINVAL, "%s: '%s' must be a list", where, key);
    }
    *array = found;
    return EP_OK;
}

static bool has_text(const json_t *object, const char *key, const char *text)
{
    const char *found = json_string_value(json_object_get(object, key));
    return found != NULL && strcmp(found, text) == 0;
}

/* The rung's entry of a group in the list of all; NULL where there is none. */
static const json_t *find_rung(const json_t *rungs, const char *group, const char *rung)
{
    for (size_t i = 0; i < json_array_size(rungs); i++) {
        const json_t *entry = json_array_get(rungs, i);
        if (has_text(entry, "group", group) && has_text(entry, "rung", rung)) {
            return entry;
        }
    }
    return NULL;
}

static enum ep_status read_coefficients(const json_t *entry, const char *where,
                                        struct ep_fitted_group *group)
{
    const json_t *array = NULL;
    double sum = 0;
    const enum ep_status status = get_array(entry, "coefficients", where, &array);
    if (status != EP_OK) {
        return status;
    }
    if ((int)json_array_size(array) != group->form.num_columns) {
        return ep_error_set(EP_EINVAL, "%s: 'coefficients' of %s must be %d numbers", where,
                            group->rung->name, group->form.num_columns);
    }
    for (int j = 0; j < group->form.num_columns; j++) {
        const json_t *value = json_array_get(array, (size_t)j);
        /* Times in s and s/byte: beyond a second per byte, or 1e-30, nothing is a machine. */
        const double number = json_is_number(value) ? json_number_value(value) : -1;
        if (!(number >= 0 && number < 1e6) || (number > 0 && number < 1e-30)) {
            return ep_error_set(EP_EINVAL, "%s: coefficient %d of %s must be 0, or a number from "
                                "1e-30 to 1e6", where, j, group->rung->name);
        }
        group->coefficients[j] = json_number_value(value);
        sum += group->coefficients[j];
    }
    if (sum == 0) {
        return ep_error_set(EP_EINVAL, "%s: 'coefficients' of %s are all 0: no time", where,
                            group->rung->name);
    }
    return EP_OK;
}

/* Relative; absent where too few cases were held out. */
static enum ep_status read_half_width(const json_t *object, const char *where, double *half_width)
{
    const enum ep_status status =
        ep_json_get_f64_or_nan(object, "prediction_half_width", where, half_width);
    if (status == EP_OK && !isnan(*half_width) && !(*half_width >= 0 && *half_width <= 1e3)) {
        return ep_error_set(EP_EINVAL, "%s: prediction_half_width %g; a share of the time, 0.1 for "
                            "+-10 %%, was expected", where, *half_width);
    }
    return status;
}

/* Sizes between which bandwidths change, ascending; none in files that know one bandwidth. */
static enum ep_status read_anchors(const json_t *entry, const char *where,
                                   struct ep_fitted_group *group)
{
    double anchors[EP_RUNG_MAX_ANCHORS];
    const json_t *array = json_object_get(entry, "anchors_bytes");
    const size_t num = json_array_size(array);
    if (num > EP_RUNG_MAX_ANCHORS || (array != NULL && !json_is_array(array))) {
        return ep_error_set(EP_EINVAL, "%s: 'anchors_bytes' must be up to %d sizes", where,
                            EP_RUNG_MAX_ANCHORS);
    }
    for (size_t k = 0; k < num; k++) {
        anchors[k] = json_number_value(json_array_get(array, k));
        if (!(anchors[k] > (k > 0 ? anchors[k - 1] : 0) && anchors[k] < 1e18)) {
            return ep_error_set(EP_EINVAL, "%s: 'anchors_bytes' must be sizes above 0, ascending",
                                where);
        }
    }
    ep_rung_form_init(group->rung, anchors, (int)num, &group->form);
    return EP_OK;
}

static enum ep_status read_range(const json_t *object, const char *where,
                                 struct ep_fitted_group *group)
{
    enum ep_status status = EP_OK;
    const json_t *ranges = json_object_get(object, "valid_range");
    for (int f = 0; f < EP_NUM_FEATURES && status == EP_OK; f++) {
        const char *name = ep_model_feature_name((enum ep_model_feature)f);
        const json_t *range = json_object_get(ranges, name);
        group->min[f] = 0;
        group->max[f] = HUGE_VAL;
        if (range == NULL && json_is_object(ranges)) {
            continue; /* a feature that this file's program did not know */
        }
        char place[640];
        snprintf(place, sizeof place, "%s: valid_range of '%s'", where, name);
        status = ep_json_get_f64(range, "min", place, 0, HUGE_VAL, &group->min[f]);
        if (status == EP_OK) {
            status = ep_json_get_f64(range, "max", place, group->min[f], HUGE_VAL, &group->max[f]);
        }
    }
    return status;
}

/* One group with a chosen rung. */
static enum ep_status read_group(const json_t *object, const json_t *rungs, const char *where,
                                 const char *rung, struct ep_fitted_group *group)
{
    enum ep_status status;
    int idx = 0;
    EP_TRY(ep_json_get_string(object, "group", where, &group->name));
    EP_TRY(ep_json_get_string(object, "op", where, &group->op));
    EP_TRY(ep_json_get_string(object, "transport", where, &group->transport));
    EP_TRY(ep_json_get_string(object, "byte_basis", where, &group->byte_basis));
    EP_TRY(ep_json_get_string(object, "target", where, &group->target));
    EP_TRY(ep_rung_find(rung, &idx));
    group->rung = ep_rung_at(idx);
    const json_t *entry = find_rung(rungs, group->name, rung);
    if (entry == NULL) {
        status = ep_error_set(EP_EINVAL, "%s: rung %s of group '%s' is not in 'rungs'", where, rung,
                              group->name);
        goto out;
    }
    EP_TRY(read_anchors(entry, where, group));
    EP_TRY(read_coefficients(entry, where, group));
    EP_TRY(read_half_width(entry, where, &group->half_width));
    EP_TRY(read_range(object, where, group));
out:
    return status;
}

/* One of compute's parts of a type; absent ones keep the name NULL. */
static enum ep_status read_part(const json_t *object, const char *where, enum ep_compute_use use,
                                struct ep_fitted_part *part)
{
    enum ep_status status = EP_OK;
    const char *form = NULL;
    const json_t *array = NULL;
    EP_TRY(ep_json_get_string(object, "form", where, &form));
    EP_TRY(get_array(object, "coefficients", where, &array));
    for (int f = 0; f < EP_ROOFLINE_NUM_FORMS; f++) {
        if (strcmp(form, ep_roofline_form_name((enum ep_roofline_form)f)) == 0) {
            part->form = (enum ep_roofline_form)f;
            form = NULL;
            break;
        }
    }
    if (form != NULL) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: form '%s'; longer or both was expected", where, form));
    }
    for (size_t j = 0; j < EP_ROOFLINE_NUM; j++) {
        const json_t *value = json_array_get(array, j);
        part->coefficients[j] = json_is_number(value) ? json_number_value(value) : -1;
        if (!(part->coefficients[j] >= 0 && part->coefficients[j] < 1e6) ||
            json_array_size(array) != EP_ROOFLINE_NUM) {
            EP_TRY(ep_error_set(EP_EINVAL, "%s: 'coefficients' must be %d numbers from 0 to 1e6", where,
                                EP_ROOFLINE_NUM));
        }
    }
    if (part->coefficients[use == EP_COMPUTE_EXPERTS ? EP_ROOFLINE_FLOP : EP_ROOFLINE_BYTE] == 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: coefficient %d is 0: no rate", where,
                            use == EP_COMPUTE_EXPERTS ? EP_ROOFLINE_FLOP : EP_ROOFLINE_BYTE));
    }
    EP_TRY(read_half_width(object, where, &part->half_width));
    EP_TRY(ep_json_get_string(object, "part", where, &part->name));
out:
    return status;
}

static enum ep_status read_parts(const json_t *compute, const char *path,
                                 struct ep_fitted_machine *machine)
{
    enum ep_status status = EP_OK;
    for (int use = 0; use < EP_COMPUTE_NUM_USES; use++) {
        const char *key = ep_compute_use_name((enum ep_compute_use)use);
        const json_t *types = json_object_get(compute, key);
        for (int t = 0; t < EP_NUM_DTYPES; t++) {
            const char *dtype = ep_dtype_name((enum ep_dtype)t);
            const json_t *object = json_object_get(types, dtype);
            char where[512];
            snprintf(where, sizeof where, "%s: compute.%s.%s", path, key, dtype);
            if (object != NULL) {
                EP_TRY(read_part(object, where, (enum ep_compute_use)use, &machine->parts[use][t]));
            }
        }
    }
out:
    return status;
}

/* Of files without kernels records, and older ones, nothing is known. */
static enum ep_status read_compute(const char *path, struct ep_fitted_machine *machine)
{
    enum ep_status status = EP_OK;
    const json_t *compute = json_object_get(machine->json, "compute");
    const json_t *flops = json_object_get(compute, "flops_per_s");
    char where[512];
    snprintf(where, sizeof where, "%s: compute", path);
    machine->read_bytes_per_s = (double)NAN;
    for (int t = 0; t < EP_NUM_DTYPES; t++) {
        machine->flops_per_s[t] = (double)NAN;
    }
    if (compute == NULL) {
        return EP_OK;
    }
    EP_TRY(ep_json_get_f64_or_nan(compute, "read_bytes_per_s", where, &machine->read_bytes_per_s));
    for (int t = 0; t < EP_NUM_DTYPES; t++) {
        EP_TRY(ep_json_get_f64_or_nan(flops, ep_dtype_name((enum ep_dtype)t), where,
                                      &machine->flops_per_s[t]));
        const double rates[] = {machine->flops_per_s[t], machine->read_bytes_per_s};
        for (int i = 0; i < 2; i++) {
            if (!isnan(rates[i]) && !(rates[i] > 0 && rates[i] < 1e18)) {
                EP_TRY(ep_error_set(EP_EINVAL, "%s: %g per second is no rate", where, rates[i]));
            }
        }
    }
    EP_TRY(read_parts(compute, path, machine));
out:
    return status;
}

static enum ep_status read_groups(const char *path, struct ep_fitted_machine *machine)
{
    enum ep_status status;
    const json_t *groups = NULL;
    const json_t *rungs = NULL;
    int64_t schema = 0;
    EP_TRY(ep_json_get_i64(machine->json, "schema", path, 0, INT32_MAX, &schema));
    if (schema != EP_RECORD_SCHEMA) {
        status = ep_error_set(EP_EINVAL, "%s: schema %" PRId64 "; %d expected", path, schema,
                              EP_RECORD_SCHEMA);
        goto out;
    }
    EP_TRY(ep_json_get_string(machine->json, "host", path, &machine->host));
    EP_TRY(get_array(machine->json, "groups", path, &groups));
    EP_TRY(get_array(machine->json, "rungs", path, &rungs));
    machine->groups = calloc(json_array_size(groups) + 1, sizeof *machine->groups);
    if (machine->groups == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", path);
        goto out;
    }
    for (size_t i = 0; i < json_array_size(groups); i++) {
        const json_t *object = json_array_get(groups, i);
        const char *rung = json_string_value(json_object_get(object, "chosen"));
        char where[512];
        snprintf(where, sizeof where, "%s: groups[%zu]", path, i);
        if (rung != NULL) {
            EP_TRY(read_group(object, rungs, where, rung, &machine->groups[machine->num_groups]));
            machine->num_groups++;
        }
    }
out:
    return status;
}

enum ep_status ep_fitted_machine_read(const char *path, struct ep_fitted_machine **machine)
{
    enum ep_status status;
    struct ep_fitted_machine *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", path);
    }
    EP_TRY(ep_json_load(path, FILE_LIMIT_BYTES, &made->json));
    EP_TRY(read_groups(path, made));
    EP_TRY(read_compute(path, made));
    *machine = made;
    made = NULL;
out:
    ep_fitted_machine_destroy(made);
    return status;
}

void ep_fitted_machine_destroy(struct ep_fitted_machine *machine)
{
    if (machine == NULL) {
        return;
    }
    json_decref(machine->json);
    free(machine->groups);
    free(machine);
}

double ep_fitted_group_predict(const struct ep_fitted_group *group,
                               const struct ep_model_features *features)
{
    const struct ep_model_case one = {.features = *features};
    return ep_rung_predict(&group->form, &one, group->coefficients);
}

bool ep_fitted_group_uses(const struct ep_fitted_group *group, enum ep_model_feature feature)
{
    for (int j = 0; j < group->rung->num_parameters; j++) {
        for (int k = 0; k < group->form.width[j]; k++) {
            if (group->rung->parameters[j].term == (int)feature &&
                group->coefficients[group->form.first_column[j] + k] > 0) {
                return true;
            }
        }
    }
    return false;
}

const char *ep_fitted_group_extrapolates(const struct ep_fitted_group *group,
                                         const struct ep_model_features *features)
{
    for (int f = 0; f < EP_NUM_FEATURES; f++) {
        /* What every record has is looked at always; ports and copies where they count. */
        const bool counts = f < EP_FEATURE_MEMORY_BYTES ||
                            ep_fitted_group_uses(group, (enum ep_model_feature)f);
        if (!counts) {
            continue;
        }
        if (features->values[f] < group->min[f] || features->values[f] > group->max[f]) {
            return ep_model_feature_name((enum ep_model_feature)f);
        }
    }
    return NULL;
}

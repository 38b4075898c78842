/* SPDX-License-Identifier: Apache-2.0 */
/* Import of nccl-tests' JSON (-J FILE). Keys: results/README.md, "Import". */
#include "results/import_nccl.h"

#include "base/json.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "version" of the files that are known; the keys read here are the same in all. */
enum { MAX_VERSION = 3 };

static enum ep_status get_array(const json_t *object, const char *key, const char *where,
                                const json_t **array)
{
    *array = json_object_get(object, key);
    return json_is_array(*array)
               ? EP_OK
               : ep_error_set(EP_EINVAL, "%s: '%s' must be a list (is the file cut?)", where, key);
}

/* Program and options; the file's own, so that nothing is guessed. */
static enum ep_status read_args(const json_t *json, const char *name, struct ep_nccl_run *run)
{
    enum ep_status status = EP_OK;
    const json_t *args = NULL;
    EP_TRY(get_array(json, "args", name, &args));
    const char *program = json_string_value(json_array_get(args, 0));
    if (run->op == EP_NCCL_NONE) {
        EP_TRY(ep_nccl_find_op(name, program != NULL ? program : "", &run->op));
    }
    for (size_t i = 1; i < json_array_size(args); i++) {
        const char *word = json_string_value(json_array_get(args, i));
        const char *next = json_string_value(json_array_get(args, i + 1));
        if (word != NULL && (strcmp(word, "-a") == 0 || strcmp(word, "--average") == 0)) {
            run->slowest = next != NULL && strcmp(next, "3") == 0;
        }
        run->slowest =
            run->slowest ||
            (word != NULL && (strcmp(word, "-a3") == 0 || strcmp(word, "--average=3") == 0));
    }
out:
    return status;
}

/* What the environment says of alltoallv's messages; options of ours go before. */
static enum ep_status read_environment(const json_t *json, const char *name,
                                       struct ep_nccl_run *run)
{
    static const char spread[] = "NCCL_TESTS_ALLTOALLV_SPREAD=";
    static const char scale[] = "NCCL_TESTS_ALLTOALLV_MATRIX_SCALE=";
    enum ep_status status = EP_OK;
    const json_t *env = NULL;
    double of_run = 1; /* what nccl-tests takes where nothing is set */
    EP_TRY(get_array(json, "env", name, &env));
    for (size_t i = 0; i < json_array_size(env); i++) {
        const char *word = json_string_value(json_array_get(env, i));
        if (word != NULL && strncmp(word, spread, strlen(spread)) == 0) {
            EP_TRY(
                ep_parse_f64(word + strlen(spread), "NCCL_TESTS_ALLTOALLV_SPREAD", 0, 1, &of_run));
        } else if (word != NULL && strncmp(word, scale, strlen(scale)) == 0) {
            EP_TRY(ep_parse_f64(word + strlen(scale), "NCCL_TESTS_ALLTOALLV_MATRIX_SCALE", 0, 1e9,
                                &run->scale));
        }
    }
    run->spread = isnan(run->spread) ? of_run : run->spread;
out:
    return status;
}

static enum ep_status read_devices(const json_t *json, const char *name, struct ep_nccl_run *run)
{
    enum ep_status status = EP_OK;
    const json_t *devices = NULL;
    const json_t *config = json_object_get(json, "config");
    if (!json_is_object(config)) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: 'config' must be an object", name));
    }
    const char *blocking = json_string_value(json_object_get(config, "blocking_collectives"));
    run->blocking = blocking != NULL && strcmp(blocking, "true") == 0;
    EP_TRY(get_array(config, "devices", name, &devices));
    for (size_t i = 0; i < json_array_size(devices); i++) {
        const json_t *device = json_array_get(devices, i);
        const char *host = NULL;
        char where[256];
        int64_t rank = 0, group = 0;
        snprintf(where, sizeof where, "%.200s: devices[%zu]", name, i);
        EP_TRY(ep_json_get_i64(device, "rank", where, 0, EP_IMPORT_MAX_RANKS - 1, &rank));
        if (json_object_get(device, "group") != NULL) {
            EP_TRY(ep_json_get_i64(device, "group", where, 0, INT32_MAX, &group));
        }
        EP_TRY(ep_json_get_string(device, "hostname", where, &host));
        EP_TRY(ep_nccl_add_device(run, where, rank, group, host));
    }
    EP_TRY(ep_nccl_place(run, name));
out:
    return status;
}

/* Single times of --per-iter, each of the slowest process; those before are left out as there. */
static enum ep_status read_times(const json_t *result, const char *where, double **times,
                                 int64_t *num)
{
    enum ep_status status = EP_OK;
    const json_t *report = json_object_get(result, "out_of_place_per_iter");
    const json_t *list = NULL;
    int64_t skipped = 0;
    double *made = NULL;
    if (report == NULL || json_is_null(report)) {
        return EP_OK;
    }
    EP_TRY(get_array(report, "times_us", where, &list));
    const int64_t all = (int64_t)json_array_size(list);
    if (json_object_get(report, "skipped_iterations") != NULL) {
        EP_TRY(ep_json_get_i64(report, "skipped_iterations", where, 0, all - 1, &skipped));
    }
    made = calloc((size_t)all + 1, sizeof *made);
    if (made == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " times", where, all));
    }
    for (int64_t i = skipped; i < all; i++) {
        const json_t *time = json_array_get(list, (size_t)i);
        if (!json_is_number(time)) {
            EP_TRY(ep_error_set(EP_EINVAL, "%s: 'times_us' must be numbers", where));
        }
        made[i - skipped] = json_number_value(time);
    }
    if (all > skipped) {
        *times = made;
        *num = all - skipped;
        made = NULL;
    }
out:
    free(made);
    return status;
}

static enum ep_status read_wrong(const json_t *body, const char *where, int64_t *wrong)
{
    const json_t *value = json_object_get(body, "nwrong");
    *wrong = -1;
    if (json_is_null(value)) {
        return EP_OK;
    }
    double number = 0;
    const enum ep_status status = ep_json_get_f64(body, "nwrong", where, 0, 9e18, &number);
    *wrong = (int64_t)ceil(number);
    return status;
}

static enum ep_status read_result(const json_t *result, const char *where,
                                  const struct ep_import_options *options, struct ep_nccl_run *run,
                                  struct ep_import *import)
{
    enum ep_status status = EP_OK;
    struct ep_nccl_row row = {.where = where};
    double *times = NULL;
    const json_t *body = json_object_get(result, "out_of_place");
    EP_TRY(ep_json_get_i64(result, "size", where, 0, INT64_C(1) << 50, &row.size_bytes));
    EP_TRY(ep_json_get_i64(result, "count", where, 0, INT64_C(1) << 50, &row.count));
    EP_TRY(ep_json_get_string(result, "type", where, &row.type));
    if (!json_is_object(body)) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: 'out_of_place' must be an object", where));
    }
    if (json_object_get(body, "cpu_time") != NULL) {
        EP_TRY(ep_error_set(EP_EINVAL,
                            "%s: times of the processor (-C 1); those of the transfer were "
                            "expected",
                            where));
    }
    EP_TRY(ep_json_get_f64(body, "time", where, 0, 1e12, &row.time_us));
    EP_TRY(ep_json_get_f64(body, "alg_bw", where, 0, 1e9, &row.algbw));
    EP_TRY(read_wrong(body, where, &row.wrong));
    EP_TRY(read_times(result, where, &times, &row.num_times));
    row.times_us = times;
    EP_TRY(ep_nccl_add_row(run, &row, options, import));
out:
    free(times);
    return status;
}

enum ep_status ep_nccl_read_json(const char *name, const char *text, size_t length,
                                 const struct ep_import_options *options, struct ep_nccl_run *run,
                                 struct ep_import *import)
{
    enum ep_status status = EP_OK;
    json_t *json = NULL;
    const json_t *results = NULL;
    int64_t version = 0;
    EP_TRY(ep_json_parse(name, 1, text, length, &json));
    EP_TRY(ep_json_get_i64(json, "version", name, 1, MAX_VERSION, &version));
    EP_TRY(read_args(json, name, run));
    EP_TRY(read_environment(json, name, run));
    EP_TRY(read_devices(json, name, run));
    EP_TRY(get_array(json, "results", name, &results));
    for (size_t i = 0; i < json_array_size(results); i++) {
        char place[40], where[EP_IMPORT_TEXT];
        snprintf(place, sizeof place, ": results[%zu]", i);
        ep_import_set_where(name, place, where);
        EP_TRY(read_result(json_array_get(results, i), where, options, run, import));
    }
out:
    json_decref(json);
    return status;
}

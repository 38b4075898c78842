/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the records of runs, and the traffic matrices kept beside them. */
#include "results/run_dir.h"

#include "base/file.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORDS_LIMIT_BYTES (INT64_C(4) << 30)
#define TRAFFIC_LIMIT_BYTES (INT64_C(16) << 20)

/* --- records --------------------------------------------------------------------------------- */

static enum ep_status add_record(struct ep_records *records, const struct ep_record *record)
{
    if ((records->num & (records->num - 1)) == 0) {
        const size_t room = records->num == 0 ? 1 : (size_t)records->num * 2;
        struct ep_record *larger = realloc(records->items, room * sizeof *larger);
        if (larger == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for %zu records", room);
        }
        records->items = larger;
    }
    records->items[records->num++] = *record;
    return EP_OK;
}

static enum ep_status read_lines(const char *path, const char *text, size_t length,
                                 struct ep_records *records)
{
    int64_t line = 1;
    for (const char *next = text, *end = text + length; next < end; line++) {
        const char *newline = memchr(next, '\n', (size_t)(end - next));
        const size_t line_length = (size_t)((newline != NULL ? newline : end) - next);
        struct ep_record record;
        enum ep_status status = ep_record_from_line(path, line, next, line_length, &record);
        if (status == EP_EINVAL && newline == NULL) {
            ep_error_clear();
            return ep_record_add_note(&records->warnings, "truncated-record",
                                      "%s:%" PRId64 ": the last line is cut short (%zu bytes) and "
                                      "was left out", path, line, line_length);
        }
        if (status != EP_OK) {
            return status;
        }
        status = add_record(records, &record);
        if (status != EP_OK) {
            ep_record_fini(&record);
            return status;
        }
        next += line_length + 1;
    }
    return EP_OK;
}

static enum ep_status read_directory(const char *directory, struct ep_records *records)
{
    char *text = NULL;
    size_t length = 0;
    char *path = ep_path_join(directory, "records.jsonl");
    if (path == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a path");
    }
    enum ep_status status = ep_file_read(path, RECORDS_LIMIT_BYTES, &text, &length);
    if (status == EP_OK) {
        status = read_lines(path, text, length, records);
    }
    free(text);
    free(path);
    return status;
}

static int compare_ids(const void *a, const void *b)
{
    const struct ep_record *const *left = a;
    const struct ep_record *const *right = b;
    return strcmp((*left)->record_id, (*right)->record_id);
}

static enum ep_status refuse_doubled_ids(const struct ep_records *records)
{
    const struct ep_record **sorted = calloc((size_t)records->num + 1, sizeof *sorted);
    if (sorted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " records", records->num);
    }
    for (int64_t i = 0; i < records->num; i++) {
        sorted[i] = &records->items[i];
    }
    qsort(sorted, (size_t)records->num, sizeof *sorted, compare_ids);
    enum ep_status status = EP_OK;
    for (int64_t i = 1; i < records->num && status == EP_OK; i++) {
        if (compare_ids(&sorted[i - 1], &sorted[i]) == 0) {
            status = ep_error_set(EP_EINVAL,
                                  "record_id '%s' occurs twice (cases '%s' and '%s'): was a run "
                                  "named twice, or a file copied into another?",
                                  sorted[i]->record_id, sorted[i - 1]->case_name,
                                  sorted[i]->case_name);
        }
    }
    free(sorted);
    return status;
}

enum ep_status ep_records_read(const char *const *directories, int num_directories,
                               struct ep_records *records)
{
    enum ep_status status = EP_OK;
    struct ep_records read = {0};
    for (int i = 0; i < num_directories; i++) {
        EP_TRY(read_directory(directories[i], &read));
    }
    EP_TRY(refuse_doubled_ids(&read));
    *records = read;
out:
    if (status != EP_OK) {
        ep_records_fini(&read);
    }
    return status;
}

void ep_records_fini(struct ep_records *records)
{
    for (int64_t i = 0; i < records->num; i++) {
        ep_record_fini(&records->items[i]);
    }
    for (int64_t i = 0; i < records->warnings.num; i++) {
        free(records->warnings.items[i].name);
        free(records->warnings.items[i].text);
    }
    free(records->items);
    free(records->warnings.items);
    *records = (struct ep_records){0};
}

/* --- traffic --------------------------------------------------------------------------------- */

static const char *const basis_keys[EP_RECORD_NUM_BASES] = {
    [EP_RECORD_COPIES] = "copies",
    [EP_RECORD_RANK_DEDUP] = "rank_dedup",
    [EP_RECORD_NODE_DEDUP] = "node_dedup",
};

static enum ep_status traffic_path(const char *directory, const char *routing_id, char **path)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,.@";
    if (routing_id[0] == '\0' || routing_id[0] == '.' ||
        strspn(routing_id, plain) != strlen(routing_id)) {
        return ep_error_set(EP_EINVAL, "routing_id '%s' cannot be a file name", routing_id);
    }
    *path = ep_format_new("%s/traffic/%s.json", directory, routing_id);
    return *path != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a path");
}

static json_t *matrix_to_json(const int64_t *rows, int64_t num_ranks)
{
    if (rows == NULL) {
        return json_null();
    }
    json_t *matrix = json_array();
    for (int64_t i = 0; i < num_ranks; i++) {
        if (json_array_append_new(matrix, ep_json_i64_array(rows + i * num_ranks, num_ranks)) != 0) {
            json_decref(matrix);
            return NULL;
        }
    }
    return matrix;
}

enum ep_status ep_run_dir_write_traffic(const char *directory, const char *routing_id,
                                        int64_t num_ranks,
                                        const int64_t *const rows[EP_RECORD_NUM_BASES])
{
    enum ep_status status = EP_OK;
    char *path = NULL;
    char *folder = NULL;
    char *text = NULL;
    json_t *json = NULL;
    if (num_ranks < 1 || num_ranks > EP_RUN_TRAFFIC_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "traffic of %" PRId64 " ranks: kept for 1 to %d", num_ranks,
                            EP_RUN_TRAFFIC_MAX_RANKS);
    }
    EP_TRY(traffic_path(directory, routing_id, &path));
    if (access(path, F_OK) == 0) {
        goto out;
    }
    folder = ep_path_join(directory, "traffic");
    json = json_object();
    if (folder == NULL || json == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a traffic file"));
    }
    EP_TRY(ep_dir_ensure(folder));
    EP_TRY(ep_json_set(json, "schema", json_integer(EP_RECORD_SCHEMA)));
    EP_TRY(ep_json_set(json, "routing_id", json_string(routing_id)));
    EP_TRY(ep_json_set(json, "num_ranks", json_integer(num_ranks)));
    for (int b = 0; b < EP_RECORD_NUM_BASES; b++) {
        EP_TRY(ep_json_set(json, basis_keys[b], matrix_to_json(rows[b], num_ranks)));
    }
    text = json_dumps(json, JSON_COMPACT);
    EP_TRY(text != NULL ? ep_file_write(path, text, strlen(text))
                        : ep_error_set(EP_ENOMEM, "no memory for a traffic file"));
out:
    free(text);
    json_decref(json);
    free(folder);
    free(path);
    return status;
}

static enum ep_status matrix_from_json(const json_t *matrix, const char *path, const char *key,
                                       int64_t num_ranks, int64_t **rows)
{
    if (matrix == NULL || json_is_null(matrix)) {
        return EP_OK;
    }
    int64_t *read = calloc((size_t)(num_ranks * num_ranks), sizeof *read);
    if (read == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", path);
    }
    bool good = json_array_size(matrix) == (size_t)num_ranks;
    for (int64_t i = 0; i < num_ranks && good; i++) {
        const json_t *line = json_array_get(matrix, (size_t)i);
        good = json_array_size(line) == (size_t)num_ranks;
        for (int64_t j = 0; j < num_ranks && good; j++) {
            const json_t *cell = json_array_get(line, (size_t)j);
            read[i * num_ranks + j] = json_integer_value(cell);
            good = json_is_integer(cell) && read[i * num_ranks + j] >= 0;
        }
    }
    if (!good) {
        free(read);
        return ep_error_set(EP_EINVAL,
                            "%s: '%s' must be %" PRId64 " lists of as many whole numbers >= 0",
                            path, key, num_ranks);
    }
    *rows = read;
    return EP_OK;
}

enum ep_status ep_run_dir_read_traffic(const char *directory, const char *routing_id,
                                       struct ep_run_traffic *traffic)
{
    enum ep_status status = EP_OK;
    char *path = NULL;
    json_t *json = NULL;
    int64_t schema = 0;
    struct ep_run_traffic read = {0};
    EP_TRY(traffic_path(directory, routing_id, &path));
    EP_TRY(ep_json_load(path, TRAFFIC_LIMIT_BYTES, &json));
    EP_TRY(ep_json_get_i64(json, "schema", path, EP_RECORD_SCHEMA, EP_RECORD_SCHEMA, &schema));
    EP_TRY(ep_json_get_i64(json, "num_ranks", path, 1, EP_RUN_TRAFFIC_MAX_RANKS, &read.num_ranks));
    for (int b = 0; b < EP_RECORD_NUM_BASES; b++) {
        EP_TRY(matrix_from_json(json_object_get(json, basis_keys[b]), path, basis_keys[b],
                                read.num_ranks, &read.rows[b]));
    }
    *traffic = read;
out:
    if (status != EP_OK) {
        ep_run_traffic_fini(&read);
    }
    json_decref(json);
    free(path);
    return status;
}

void ep_run_traffic_fini(struct ep_run_traffic *traffic)
{
    for (int b = 0; b < EP_RECORD_NUM_BASES; b++) {
        free(traffic->rows[b]);
    }
    *traffic = (struct ep_run_traffic){0};
}

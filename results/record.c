/* SPDX-License-Identifier: Apache-2.0 */
/* Records: filling, identity, and one line of JSON each way. */
#include "results/record.h"

#include "base/json.h"
#include "base/stats.h"
#include "results/columns.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[EP_RECORD_NUM_KINDS] = {
    [EP_RECORD_COMM] = "comm",
    [EP_RECORD_LINKS] = "links",
    [EP_RECORD_KERNELS] = "kernels",
    [EP_RECORD_LAYER] = "layer",
};

static const char *const basis_names[EP_RECORD_NUM_BASES] = {
    [EP_RECORD_COPIES] = "copies",
    [EP_RECORD_RANK_DEDUP] = "rank-dedup",
    [EP_RECORD_NODE_DEDUP] = "node-dedup",
};

const char *ep_record_kind_name(enum ep_record_kind kind)
{
    return kind_names[kind];
}

const char *ep_record_basis_name(enum ep_record_basis basis)
{
    return basis_names[basis];
}

enum ep_status ep_record_basis_find(const char *name, enum ep_record_basis *basis)
{
    for (int i = 0; i < EP_RECORD_NUM_BASES; i++) {
        if (strcmp(basis_names[i], name) == 0) {
            *basis = (enum ep_record_basis)i;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "'%s' is no byte basis: copies, rank-dedup or node-dedup", name);
}

void ep_record_init(struct ep_record *record, enum ep_record_kind kind)
{
    record->kind = kind;
    ep_columns_init(ep_record_columns(), record);
}

void ep_record_fini(struct ep_record *record)
{
    ep_columns_fini(ep_record_columns(), record);
}

static enum ep_status set_text(char **field, const char *format, va_list args)
{
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0) {
        return ep_error_set(EP_ENOMEM, "no memory for a text of a record");
    }
    free(*field);
    *field = text;
    return EP_OK;
}

enum ep_status ep_record_set_text(char **field, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const enum ep_status status = set_text(field, format, args);
    va_end(args);
    return status;
}

static enum ep_status set_numbers(void **items, int64_t *num, const void *values, int64_t count)
{
    void *copy = malloc((size_t)(count > 0 ? count : 1) * sizeof(double));
    if (copy == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " numbers of a record", count);
    }
    if (count > 0) {
        memcpy(copy, values, (size_t)count * sizeof(double));
    }
    *items = copy;
    *num = count;
    return EP_OK;
}

_Static_assert(sizeof(double) == sizeof(int64_t), "lists of numbers share their code");

enum ep_status ep_record_set_f64s(struct ep_f64s *field, const double *values, int64_t num)
{
    void *items = NULL;
    int64_t count = 0;
    const enum ep_status status = set_numbers(&items, &count, values, num);
    if (status == EP_OK) {
        free(field->items);
        *field = (struct ep_f64s){.items = items, .num = count};
    }
    return status;
}

enum ep_status ep_record_set_i64s(struct ep_i64s *field, const int64_t *values, int64_t num)
{
    void *items = NULL;
    int64_t count = 0;
    const enum ep_status status = set_numbers(&items, &count, values, num);
    if (status == EP_OK) {
        free(field->items);
        *field = (struct ep_i64s){.items = items, .num = count};
    }
    return status;
}

static const struct ep_column *find_column(const char *name)
{
    const struct ep_column *c = ep_record_columns();
    while (c->name != NULL && strcmp(c->name, name) != 0) {
        c++;
    }
    EP_ASSERT(c->name != NULL);
    return c;
}

/* Append to a list of the record through its column, so that room grows in one place. */
static enum ep_status add_item(struct ep_record *record, const char *column, void **item)
{
    return ep_columns_add_item(find_column(column), record, item);
}

enum ep_status ep_record_add_note(struct ep_record_notes *notes, const char *name,
                                  const char *format, ...)
{
    /* Notes are a list of several records' fields: its column, at offset 0 of the list itself. */
    struct ep_column list = *find_column("warnings");
    list.offset = 0;
    void *item = NULL;
    enum ep_status status = ep_columns_add_item(&list, notes, &item);
    if (status != EP_OK) {
        return status;
    }
    struct ep_record_note *note = item;
    va_list args;
    va_start(args, format);
    status = set_text(&note->text, format, args);
    va_end(args);
    return status == EP_OK ? ep_record_set_text(&note->name, "%s", name) : status;
}

enum ep_status ep_record_add_phase(struct ep_record *record, const char *name,
                                   struct ep_record_phase **item)
{
    void *added = NULL;
    enum ep_status status = add_item(record, "phases", &added);
    if (status == EP_OK) {
        *item = added;
        status = ep_record_set_text(&(*item)->name, "%s", name);
    }
    return status;
}

enum ep_status ep_record_add_overlap(struct ep_record *record, struct ep_record_overlap **item)
{
    void *added = NULL;
    const enum ep_status status = add_item(record, "overlap", &added);
    if (status == EP_OK) {
        *item = added;
    }
    return status;
}

enum ep_status ep_record_add_level(struct ep_record *record, const char *name,
                                   struct ep_record_level **item)
{
    void *added = NULL;
    enum ep_status status = add_item(record, "levels", &added);
    if (status == EP_OK) {
        *item = added;
        status = ep_record_set_text(&(*item)->name, "%s", name);
    }
    return status;
}

enum ep_status ep_record_add_port(struct ep_record *record, const char *name, const char *kind,
                                  const char *direction, int64_t size_bytes)
{
    enum ep_status status = EP_OK;
    void *added = NULL;
    EP_TRY(add_item(record, "ports", &added));
    struct ep_record_port *port = added;
    port->bytes = size_bytes;
    EP_TRY(ep_record_set_text(&port->name, "%s", name));
    EP_TRY(ep_record_set_text(&port->kind, "%s", kind));
    EP_TRY(ep_record_set_text(&port->direction, "%s", direction));
out:
    return status;
}

enum ep_status ep_record_add_message_bin(struct ep_record *record, int64_t level,
                                         int64_t log2_size, int64_t count, int64_t size_bytes)
{
    void *added = NULL;
    const enum ep_status status = add_item(record, "message_hist", &added);
    if (status == EP_OK) {
        *(struct ep_record_message_bin *)added = (struct ep_record_message_bin){
            .level = level, .log2_size = log2_size, .count = count, .bytes = size_bytes};
    }
    return status;
}

const struct ep_record_phase *ep_record_find_phase(const struct ep_record *record,
                                                   const char *name)
{
    for (int64_t i = 0; i < record->phases.num; i++) {
        if (strcmp(record->phases.items[i].name, name) == 0) {
            return &record->phases.items[i];
        }
    }
    return NULL;
}

const struct ep_record_bytes *ep_record_own_bytes(const struct ep_record *record)
{
    for (int i = 0; i < EP_RECORD_NUM_BASES && record->byte_basis != NULL; i++) {
        if (strcmp(basis_names[i], record->byte_basis) == 0) {
            return &record->bytes[i];
        }
    }
    return NULL;
}

enum ep_status ep_record_summarize(struct ep_record *record)
{
    if (record->samples_s.num < 1) {
        return ep_error_set(EP_EINVAL, "case '%s': no samples to summarise",
                            record->case_name != NULL ? record->case_name : "");
    }
    struct ep_summary summary;
    const enum ep_status status =
        ep_stats_summarize(record->samples_s.items, record->samples_s.num, &summary);
    if (status == EP_OK) {
        record->n = summary.num;
        record->median_s = summary.median;
        record->low_s = summary.low;
        record->high_s = summary.high;
        record->min_s = summary.min;
        record->p95_s = summary.p95;
        record->p99_s = summary.p99;
        record->mad_s = summary.mad;
        record->lag1 = summary.lag1;
    }
    return status;
}

/* FNV-1a, 64 bit: Fowler, Noll and Vo. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t length)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ byte[i]) * 1099511628211u;
    }
    return hash;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    /* with its NUL, so that "a","bc" and "ab","c" differ */
    return text != NULL ? hash_bytes(hash, text, strlen(text) + 1) : hash_bytes(hash, "", 1);
}

enum ep_status ep_record_make_id(struct ep_record *record)
{
    uint64_t hash = 14695981039346656037u;
    hash = hash_text(hash, record->run_id);
    hash = hash_text(hash, kind_names[record->kind]);
    hash = hash_text(hash, record->case_name);
    hash = hash_bytes(hash, &record->launch_idx, sizeof record->launch_idx);
    hash = hash_bytes(hash, &record->order_idx, sizeof record->order_idx);
    hash = hash_bytes(hash, &record->visit_idx, sizeof record->visit_idx);
    hash = hash_bytes(hash, &record->start_utc_s, sizeof record->start_utc_s);
    char id[14] = "r";
    for (int i = 1; i < 13; i++) {
        id[i] = "0123456789abcdefghijklmnopqrstuv"[hash & 31];
        hash >>= 5;
    }
    return ep_record_set_text(&record->record_id, "%s", id);
}

static enum ep_status check_counts(const struct ep_record *record, const char *where)
{
    if (record->n != record->samples_s.num) {
        return ep_error_set(EP_EINVAL,
                            "%s: 'n' is %" PRId64 " but 'samples_s' has %" PRId64 " numbers",
                            where, record->n, record->samples_s.num);
    }
    if (record->pair.num != 0 && record->pair.num != 2) {
        return ep_error_set(EP_EINVAL, "%s: 'pair' must have 2 ranks", where);
    }
    return EP_OK;
}

enum ep_status ep_record_to_line(const struct ep_record *record, char **line)
{
    enum ep_status status = EP_OK;
    char where[256];
    snprintf(where, sizeof where, "record of case '%.200s'",
             record->case_name != NULL ? record->case_name : "");
    json_t *json = json_object();
    EP_TRY(ep_json_set(json, "schema", json_integer(EP_RECORD_SCHEMA)));
    EP_TRY(ep_json_set(json, "kind", json_string(kind_names[record->kind])));
    EP_TRY(ep_columns_to_json(ep_record_columns(), (int)record->kind, record, where, json));
    EP_TRY(check_counts(record, where));
    /* 15 digits: every decimal of that length survives, and times print as they were read. */
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "%s: no memory to write it", where));
    }
    *line = text;
out:
    json_decref(json);
    return status;
}

static enum ep_status read_kind(const json_t *json, const char *where, enum ep_record_kind *kind)
{
    const char *name = NULL;
    const enum ep_status status = ep_json_get_string(json, "kind", where, &name);
    if (status != EP_OK) {
        return status;
    }
    for (int i = 0; i < EP_RECORD_NUM_KINDS; i++) {
        if (strcmp(kind_names[i], name) == 0) {
            *kind = (enum ep_record_kind)i;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "%s: 'kind' is '%s'; comm, links, kernels or layer was expected",
                        where, name);
}

enum ep_status ep_record_from_line(const char *name, int64_t line, const char *text, size_t length,
                                   struct ep_record *record)
{
    static const char *const others[] = {"schema", "kind"};
    enum ep_status status = EP_OK;
    char where[256];
    snprintf(where, sizeof where, "%.200s:%" PRId64, name, line);
    json_t *json = NULL;
    struct ep_record read;
    ep_record_init(&read, EP_RECORD_COMM);
    EP_TRY(ep_json_parse(name, line, text, length, &json));
    int64_t schema = 0;
    EP_TRY(ep_json_get_i64(json, "schema", where, 0, INT64_MAX, &schema));
    if (schema != EP_RECORD_SCHEMA) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: schema %" PRId64 "; this program reads schema %d",
                            where, schema, EP_RECORD_SCHEMA));
    }
    EP_TRY(read_kind(json, where, &read.kind));
    EP_TRY(ep_columns_from_json(ep_record_columns(), (int)read.kind, json, where, others, 2, &read));
    EP_TRY(check_counts(&read, where));
    *record = read;
out:
    json_decref(json);
    if (status != EP_OK) {
        ep_record_fini(&read);
    }
    return status;
}

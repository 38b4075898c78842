/* SPDX-License-Identifier: Apache-2.0 */
/* From a record back to the options that made it. */
#include "bench/repeat.h"

#include "base/file.h"
#include "base/units.h"
#include "bench/comm_sweep.h"
#include "kernels/place.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUM_TEXTS = 5 };

struct ep_repeat {
    struct ep_records records;
    const struct ep_record *record;
    char *texts[NUM_TEXTS]; /* numbers of the record as option values */
    char *tokens_per_rank;
    struct ep_comm_sweep *sweep;
};

/* "10,20,0" of a list. */
static char *join_numbers(const struct ep_i64s *numbers)
{
    char *text = strdup("");
    for (int64_t i = 0; i < numbers->num && text != NULL; i++) {
        char *longer = ep_format_new("%s%s%" PRId64, text, i > 0 ? "," : "", numbers->items[i]);
        free(text);
        text = longer;
    }
    return text;
}

/* Given rows; records of older versions have them in the name of the case alone. */
static int64_t capacity_of(const struct ep_record *record)
{
    const char *mark = strstr(record->case_name, record->skew);
    long long capacity = 0;
    if (mark != NULL && sscanf(mark + strlen(record->skew), "/c%lld/", &capacity) == 1) {
        return capacity;
    }
    return 0;
}

static enum ep_status set_capacity(const struct ep_record *record, struct ep_capacity_options *o)
{
    enum ep_status status = EP_OK;
    const char *rule = record->capacity_rule;
    o->router = record->router;
    const bool named = rule != NULL && strcmp(rule, "rows") != 0 && strcmp(rule, "largest") != 0;
    if (rule == NULL) {
        o->rows = capacity_of(record);
        return EP_OK;
    }
    o->rows = strcmp(rule, "rows") == 0 ? record->capacity : 0;
    if (named) {
        EP_TRY(ep_capacity_find_rule(rule, &o->rule));
        o->has_factor = !isnan(record->capacity_factor);
        o->factor = record->capacity_factor;
        o->has_min = record->min_capacity >= 0;
        o->min_rows = record->min_capacity;
        o->align = record->capacity_align > 1 ? record->capacity_align : 0;
        o->eval_fraction = isnan(record->capacity_eval) ? 0 : record->capacity_eval;
    }
    if (o->rule != NULL || o->rows > 0) {
        o->drop = record->drop;
        o->overflow = record->overflow;
    }
    o->pad = record->pad == 1;
out:
    return status;
}

static enum ep_status make_sweep(struct ep_repeat *r)
{
    enum ep_status status = EP_OK;
    const struct ep_record *record = r->record;
    const int64_t numbers[NUM_TEXTS] = {record->tokens, record->hidden, record->experts,
                                        record->top_k, record->ranks};
    for (int i = 0; i < NUM_TEXTS; i++) {
        r->texts[i] = ep_format_new("%" PRId64, numbers[i]);
        if (r->texts[i] == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory to repeat a record");
        }
    }
    struct ep_comm_options options = ep_comm_options_default();
    options.hidden = r->texts[1];
    options.experts = r->texts[2];
    options.top_k = r->texts[3];
    options.ranks = r->texts[4];
    if (record->tokens_per_rank.num > 0) {
        r->tokens_per_rank = join_numbers(&record->tokens_per_rank);
        options.tokens_per_rank = r->tokens_per_rank;
    } else {
        options.tokens = r->texts[0];
    }
    options.skew = record->skew;
    options.transport = record->transport;
    options.dtype = record->dtype;
    options.combine_dtype = record->combine_dtype;
    options.algorithm = record->algorithm;
    options.rank_order = record->rank_order;
    options.ops = record->op;
    if (record->placement != NULL && strncmp(record->placement, "eplb+", 5) == 0) {
        EP_TRY(ep_parse_i64(record->placement + 5, "--repeat: replicas", 1, EP_PLACE_MAX_SLOTS,
                            &options.replicas));
    } else if (record->placement != NULL && strcmp(record->placement, "contiguous") != 0) {
        options.placement = record->placement;
    }
    EP_TRY(set_capacity(record, &options.capacity));
    options.buffers = record->buffer_policy; /* NULL: of before there were others */
    options.cold = record->buffers != NULL && strcmp(record->buffers, "cold") == 0;
    status = ep_comm_sweep_create(&options, &r->sweep);
out:
    return status;
}

/* The last launch but one that --launch-idx can name, and as many threads as --threads takes. */
enum { MAX_LAUNCH_IDX = 999, MAX_THREADS = 1024 };

static enum ep_status set_session(const struct ep_repeat *r, struct ep_session_options *options)
{
    const struct ep_record *record = r->record;
    options->seed = (uint64_t)record->seed;
    options->threads = record->threads > 0 ? record->threads : 1; /* -1: not recorded */
    if (options->threads > MAX_THREADS) {
        return ep_error_set(EP_EINVAL, "--repeat: record %s has %" PRId64 " threads, at most %d are "
                            "possible", record->record_id, options->threads, MAX_THREADS);
    }
    options->cadence =
        strcmp(record->cadence, "stream") == 0 ? EP_CADENCE_STREAM : EP_CADENCE_BARRIER;
    options->shares = ep_comm_sweep_shares(r->sweep);
    options->launch_idx = 0;
    for (int64_t i = 0; i < r->records.num; i++) {
        const int64_t launch_idx = r->records.items[i].launch_idx;
        if (launch_idx > MAX_LAUNCH_IDX) {
            return ep_error_set(EP_EINVAL, "--repeat: record %s is of launch %" PRId64 ", at most %d "
                                "was expected", r->records.items[i].record_id, launch_idx,
                                MAX_LAUNCH_IDX);
        }
        options->launch_idx =
            launch_idx >= options->launch_idx ? launch_idx + 1 : options->launch_idx;
    }
    if (options->num_ranks == 0) {
        options->num_ranks = record->ranks;
    }
    return record->pages != NULL ? ep_pages_parse(record->pages, &options->pages) : EP_OK;
}

enum ep_status ep_repeat_create(const char *directory, const char *record_id,
                                struct ep_session_options *options, struct ep_repeat **repeat)
{
    enum ep_status status = EP_OK;
    struct ep_repeat *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to repeat a record");
    }
    EP_TRY(ep_records_read(&directory, 1, &r->records));
    for (int64_t i = 0; i < r->records.num; i++) {
        if (strcmp(r->records.items[i].record_id, record_id) == 0) {
            r->record = &r->records.items[i];
        }
    }
    if (r->record == NULL) {
        status = ep_error_set(EP_EINVAL, "--repeat: %s has no record %s", directory, record_id);
        goto out;
    }
    if (r->record->kind != EP_RECORD_COMM) {
        status = ep_error_set(EP_EINVAL, "--repeat: %s is a %s record; points of comm can be repeated, "
                              "for others run `epbench %s --append %s`", record_id,
                              ep_record_kind_name(r->record->kind),
                              ep_record_kind_name(r->record->kind), directory);
        goto out;
    }
    EP_TRY(make_sweep(r));
    EP_TRY(set_session(r, options));
    *repeat = r;
    r = NULL;
out:
    ep_repeat_destroy(r);
    return status;
}

void ep_repeat_destroy(struct ep_repeat *repeat)
{
    if (repeat == NULL) {
        return;
    }
    ep_comm_sweep_destroy(repeat->sweep);
    for (int i = 0; i < NUM_TEXTS; i++) {
        free(repeat->texts[i]);
    }
    free(repeat->tokens_per_rank);
    ep_records_fini(&repeat->records);
    free(repeat);
}

enum ep_status ep_repeat_run(struct ep_repeat *repeat, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    char median[32];
    char low[32];
    char high[32];
    const struct ep_record *record = repeat->record;
    if (ep_comm_is_root(session->world)) {
        printf("then: %s, median %s (%s to %s), %" PRId64 " samples\nnow:\n", record->case_name,
               ep_format_time(record->median_s, median, sizeof median),
               ep_format_time(record->low_s, low, sizeof low),
               ep_format_time(record->high_s, high, sizeof high), record->n);
    }
    EP_TRY(ep_comm_sweep_run(repeat->sweep, session));
out:
    return status;
}

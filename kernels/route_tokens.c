/* SPDX-License-Identifier: Apache-2.0 */
/* Join of tokens and ranks: both sides sorted by token, walked once. */
#include "kernels/route_tokens.h"

#include "base/csv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    int64_t token;
    int64_t line;  /* in its file */
    int64_t place; /* index in the trace, or the rank */
};

static int compare(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    if (x->token != y->token) {
        return x->token < y->token ? -1 : 1;
    }
    return (x->line > y->line) - (x->line < y->line);
}

static enum ep_status sort_entries(const char *name, struct entry *entries, int64_t num)
{
    qsort(entries, (size_t)num, sizeof *entries, compare);
    for (int64_t i = 1; i < num; i++) {
        if (entries[i].token == entries[i - 1].token) {
            return ep_error_set(
                EP_EINVAL, "%s:%" PRId64 ": token %" PRId64 " comes twice, first on line %" PRId64,
                name, entries[i].line, entries[i].token, entries[i - 1].line);
        }
    }
    return EP_OK;
}

static enum ep_status check_header(const struct ep_csv *csv)
{
    return csv->num_columns == 2 && strcmp(csv->header[0], "token") == 0 &&
                   strcmp(csv->header[1], "rank") == 0
               ? EP_OK
               : ep_error_set(EP_EINVAL, "%s:1: header is not token,rank", csv->name);
}

/* All rows; more than the trace has tokens are too many already. */
static enum ep_status read_entries(struct ep_csv *csv, int64_t rank_limit, int64_t limit,
                                   struct entry *entries, int64_t *num)
{
    enum ep_status status;
    int more = 0;
    *num = 0;
    EP_TRY(ep_csv_read_header(csv));
    EP_TRY(check_header(csv));
    EP_TRY(ep_csv_next(csv, &more));
    while (more) {
        if (*num == limit) {
            status = ep_error_set(
                EP_EINVAL, "%s:%" PRId64 ": more tokens than the %" PRId64 " of the assignments",
                csv->name, csv->line, limit);
            goto out;
        }
        struct entry *entry = &entries[*num];
        entry->line = csv->line;
        EP_TRY(ep_csv_get_i64(csv, 0, 0, INT64_MAX, &entry->token));
        EP_TRY(ep_csv_get_i64(csv, 1, 0, rank_limit - 1, &entry->place));
        (*num)++;
        EP_TRY(ep_csv_next(csv, &more));
    }
out:
    return status;
}

/* Both sides sorted, tokens distinct. */
static enum ep_status join(const char *name, const struct entry *given, int64_t num_given,
                           const struct ep_trace *trace, const struct entry *wanted,
                           int32_t *token_ranks)
{
    for (int64_t i = 0; i < trace->num_tokens; i++) {
        if (i >= num_given || given[i].token > wanted[i].token) {
            return ep_error_set(EP_EINVAL, "%s: token %" PRId64 " (%s:%" PRId64 ") has no rank",
                                name, wanted[i].token, trace->name, wanted[i].line);
        }
        if (given[i].token < wanted[i].token) {
            return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": token %" PRId64 " is not in %s", name,
                                given[i].line, given[i].token, trace->name);
        }
        token_ranks[wanted[i].place] = (int32_t)given[i].place;
    }
    return EP_OK;
}

enum ep_status ep_route_tokens_load(const char *path, const struct ep_trace *trace,
                                    int64_t rank_limit, int32_t **token_ranks)
{
    enum ep_status status;
    const int64_t num = trace->num_tokens;
    int64_t num_given = 0;
    struct ep_csv csv = {0};
    struct entry *given = calloc((size_t)num, sizeof *given);
    struct entry *wanted = calloc((size_t)num, sizeof *wanted);
    int32_t *ranks = calloc((size_t)num, sizeof *ranks);
    if (given == NULL || wanted == NULL || ranks == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " tokens", path, num);
        goto out;
    }
    for (int64_t t = 0; t < num; t++) {
        wanted[t] = (struct entry){trace->token_id[t], trace->line[t], t};
    }
    EP_TRY(ep_csv_open(path, EP_TRACE_LIMIT_BYTES, &csv));
    EP_TRY(read_entries(&csv, rank_limit, num, given, &num_given));
    EP_TRY(sort_entries(trace->name, wanted, num));
    EP_TRY(sort_entries(path, given, num_given));
    EP_TRY(join(path, given, num_given, trace, wanted, ranks));
    *token_ranks = ranks;
    ranks = NULL;
out:
    ep_csv_fini(&csv);
    free(given);
    free(wanted);
    free(ranks);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Which visits a run has: what a resumed run need not measure, and the numbers of new ones. */
#include "bench/session_visits.h"

#include "base/file.h"

#include <inttypes.h>
#include <math.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

/* A visit that the run has. The key is what makes it one: case, number and launch. */
struct known_visit {
    char *key;
    double median_s;
};

static int compare_visits(const void *a, const void *b)
{
    return strcmp(((const struct known_visit *)a)->key, ((const struct known_visit *)b)->key);
}

static void free_visit(void *visit)
{
    free(((struct known_visit *)visit)->key);
    free(visit);
}

static char *visit_key(const char *case_name, int64_t visit_idx, int64_t launch_idx)
{
    return ep_format_new("%s visit %" PRId64 " launch %" PRId64, case_name, visit_idx, launch_idx);
}

/* *found is NULL where the run has no such visit. */
static enum ep_status find_visit(const struct ep_session *s, const char *case_name,
                                 int64_t visit_idx, int64_t launch_idx,
                                 const struct known_visit **found)
{
    struct known_visit wanted = {.key = visit_key(case_name, visit_idx, launch_idx)};
    if (wanted.key == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a list of visits");
    }
    const struct known_visit *const *node = tfind(&wanted, &s->visits, compare_visits);
    *found = node != NULL ? *node : NULL;
    free(wanted.key);
    return EP_OK;
}

static enum ep_status add_visit(struct ep_session *s, const struct ep_record *record)
{
    struct known_visit *visit = calloc(1, sizeof *visit);
    if (visit != NULL) {
        visit->key = visit_key(record->case_name, record->visit_idx, record->launch_idx);
        visit->median_s = record->median_s;
    }
    if (visit == NULL || visit->key == NULL) {
        free(visit);
        return ep_error_set(EP_ENOMEM, "no memory for a list of visits");
    }
    struct known_visit *const *node = tsearch(visit, &s->visits, compare_visits);
    if (node == NULL) {
        free_visit(visit);
        return ep_error_set(EP_ENOMEM, "no memory for a list of visits");
    }
    if (*node != visit) { /* runs of older versions have some twice */
        free_visit(visit);
    }
    return EP_OK;
}

enum ep_status ep_session_read_visits(struct ep_session *s)
{
    enum ep_status status = EP_OK;
    struct ep_records records = {0};
    EP_TRY(ep_records_read(&s->options.append, 1, &records));
    for (int64_t i = 0; i < records.num; i++) {
        const struct ep_record *record = &records.items[i];
        EP_TRY(add_visit(s, record));
        s->done_kinds |= s->options.resume ? 1U << record->kind : 0;
        if (record->order_idx >= s->order_idx) {
            s->order_idx = record->order_idx + 1;
        }
    }
    if (s->options.resume && s->run.num_ranks != ep_comm_size(s->world)) {
        status = ep_error_set(EP_EINVAL, "%s was measured on %" PRId64 " ranks, these are %d: use -n %"
                              PRId64, s->options.append, s->run.num_ranks, ep_comm_size(s->world),
                              s->run.num_ranks);
    }
out:
    ep_records_fini(&records);
    return status;
}

enum ep_status ep_session_is_done(struct ep_session *s, const char *case_name, int64_t visit_idx,
                                  bool *done, double *median_s)
{
    enum ep_status status = EP_OK;
    const struct known_visit *found = NULL;
    double told[2] = {0, -INFINITY}; /* is it there, its median */
    if (ep_comm_is_root(s->world) && s->options.resume) {
        status = find_visit(s, case_name, visit_idx, s->options.launch_idx, &found);
        if (found != NULL) {
            told[0] = 1;
            told[1] = found->median_s;
        }
    }
    EP_TRY(ep_comm_agree(s->world, status));
    EP_TRY(ep_comm_max_f64(s->world, told, 2));
    *done = told[0] > 0;
    if (*done && median_s != NULL) {
        *median_s = told[1];
    }
out:
    return status;
}

void ep_session_forget_visits(struct ep_session *s)
{
    tdestroy(s->visits, free_visit);
    s->visits = NULL;
}

enum ep_status ep_session_number_visit(struct ep_session *s, struct ep_record *record)
{
    const struct known_visit *found = NULL;
    for (;; record->visit_idx++) {
        const enum ep_status status = find_visit(s, record->case_name, record->visit_idx,
                                                 record->launch_idx, &found);
        if (status != EP_OK || found == NULL) {
            return status == EP_OK ? add_visit(s, record) : status;
        }
    }
}

void ep_session_count_visits(struct ep_session *s, int64_t done, int64_t asked)
{
    s->visits_done += done;
    s->visits_asked += asked;
}

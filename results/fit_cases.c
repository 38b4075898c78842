/* SPDX-License-Identifier: Apache-2.0 */
/* From records to groups of cases: what is pooled, what is held out together. */
#include "results/fit.h"

#include "base/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With fewer groups than this to hold out or draw from, skews give way to sizes, and intervals and
 * the choice of a rung are not made. */
enum { ENOUGH_GROUPS = 5 };

static const char *or_dash(const char *text)
{
    return text != NULL ? text : "-";
}

/* A record in the order of groups, cases and visits. */
struct entry {
    const struct ep_record *record;
    char *key;
};

static enum ep_status make_key(const struct ep_record *r, char **key)
{
    size_t length = 0;
    FILE *out = open_memstream(key, &length);
    if (out == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a group's key");
    }
    fprintf(out, "%s %s %s", r->op, r->transport, r->algorithm);
    fprintf(out, " cadence=%s buffers=%s pages=%s threads=%" PRId64 " rank-order=%s nodes=%s",
            or_dash(r->cadence), or_dash(r->buffers), or_dash(r->pages), r->threads,
            or_dash(r->rank_order), r->nodes > 1 ? "many" : "one");
    if (r->buffer_policy != NULL && strcmp(r->buffer_policy, "exact") != 0) {
        fprintf(out, " rows=%s", r->buffer_policy);
    }
    for (int64_t i = 0; i < r->mpi_params.num; i++) {
        fprintf(out, " %s=%s", r->mpi_params.items[i].name, r->mpi_params.items[i].text);
    }
    return fclose(out) == 0 ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a group's key");
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *left = a;
    const struct entry *right = b;
    int order = strcmp(left->key, right->key);
    order = order != 0 ? order : strcmp(left->record->case_name, right->record->case_name);
    order = order != 0 ? order : strcmp(left->record->run_id, right->record->run_id);
    if (order == 0) {
        order = (left->record->launch_idx > right->record->launch_idx) -
                (left->record->launch_idx < right->record->launch_idx);
    }
    if (order == 0) {
        order = (left->record->visit_idx > right->record->visit_idx) -
                (left->record->visit_idx < right->record->visit_idx);
    }
    return order != 0 ? order : strcmp(left->record->record_id, right->record->record_id);
}

static enum ep_status collect_entries(const struct ep_records *records, struct ep_fit *fit,
                                      struct entry **entries, int64_t *num_entries)
{
    struct entry *all = calloc((size_t)records->num + 1, sizeof *all);
    int64_t num = 0;
    int64_t num_failed = 0, num_others = 0;
    enum ep_status status = all != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory to fit");
    for (int64_t i = 0; i < records->num && status == EP_OK; i++) {
        const struct ep_record *r = &records->items[i];
        num_others += r->kind != EP_RECORD_COMM;
        if (r->kind != EP_RECORD_COMM || strcmp(r->transport, "null") == 0 ||
            strncmp(r->transport, "bound-", 6) == 0) { /* nothing moves between ranks */
            continue;
        }
        if (r->verified == 0) {
            num_failed++;
            continue;
        }
        all[num].record = r;
        status = make_key(r, &all[num].key);
        num++;
    }
    *entries = all;
    *num_entries = num;
    if (status == EP_OK && num_failed > 0) {
        status = ep_record_add_note(&fit->notes, "failed-check",
                                    "%" PRId64 " records whose check failed are left out",
                                    num_failed);
    }
    if (status != EP_OK || num > 0) {
        return status;
    }
    /* Links make the levels of machine.json, kernels and layers its parts. */
    return num_others > 0
               ? ep_record_add_note(&fit->notes, "no-comm", "no comm records: no rung is fitted")
               : ep_error_set(EP_EINVAL, "no comm records to fit (of %" PRId64 " records%s)",
                              records->num, num_failed > 0 ? ", some with a failed check" : "");
}

/* --- one case -------------------------------------------------------------------------------- */

static double visit_time(const struct ep_record *r, bool split)
{
    return split ? ep_record_find_phase(r, "exchange")->median_s : r->median_s;
}

static double median_of(double *values, int64_t num)
{
    ep_stats_sort(values, num);
    return ep_stats_median_sorted(values, num);
}

static enum ep_status check_same_case(const struct ep_record *a, const struct ep_record *b)
{
    struct ep_model_features left, right;
    enum ep_status status = ep_model_features_of_record(a, &left);
    if (status == EP_OK) {
        status = ep_model_features_of_record(b, &right);
    }
    if (status != EP_OK) {
        return status;
    }
    for (int f = 0; f < EP_NUM_FEATURES; f++) {
        if (left.values[f] != right.values[f]) {
            return ep_error_set(EP_EINVAL, "case '%s': records %s and %s differ in %s (%g, %g)",
                                a->case_name, a->record_id, b->record_id,
                                ep_model_feature_name((enum ep_model_feature)f), left.values[f],
                                right.values[f]);
        }
    }
    if (strcmp(a->skew, b->skew) != 0 || a->tokens != b->tokens || a->row_bytes != b->row_bytes) {
        return ep_error_set(EP_EINVAL,
                            "case '%s': records %s and %s differ in skew, tokens or row bytes",
                            a->case_name, a->record_id, b->record_id);
    }
    return EP_OK;
}

/* The visits of a case, already adjacent. times [num] is room. */
static enum ep_status fill_case(const struct entry *visits, int64_t num, bool split, double *times,
                                struct ep_fit_case *made)
{
    const struct ep_record *r = visits[0].record;
    enum ep_status status = ep_model_features_of_record(r, &made->model.features);
    for (int64_t i = 0; i < num && status == EP_OK; i++) {
        times[i] = visit_time(visits[i].record, split);
        status = check_same_case(r, visits[i].record);
        if (status == EP_OK && !(times[i] > 0)) {
            status = ep_error_set(EP_EINVAL, "record %s of case '%s': its time is %g s, above 0 was "
                                  "expected", visits[i].record->record_id, r->case_name, times[i]);
        }
    }
    if (status != EP_OK) {
        return status;
    }
    if (split) { /* an exchange copies nothing; the whole does */
        made->model.features.values[EP_FEATURE_COPIED_BYTES] = 0;
    }
    made->case_name = r->case_name;
    made->record = r;
    made->skew = r->skew;
    made->size_class = llround(log2((double)r->tokens * (double)r->row_bytes + 1));
    made->num_visits = num;
    made->time_s = median_of(times, num);
    return EP_OK;
}

/* --- noise ----------------------------------------------------------------------------------- */

/* Sums of |ln(m1/m2)| over neighbours. */
struct noise {
    double sum;
    int64_t num;
};

static void add_noise(struct noise *noise, double a, double b)
{
    noise->sum += fabs(log(a / b));
    noise->num++;
}

static double mean_noise(const struct noise *noise)
{
    return noise->num > 0 ? noise->sum / (double)noise->num : NAN;
}

/* Visits of one launch against their next, and launches' medians against their next.
 * times [num] is room. */
static void add_case_noise(const struct entry *visits, int64_t num, bool split, double *times,
                           struct noise *of_visits, struct noise *of_launches)
{
    double previous = NAN;
    for (int64_t first = 0, next; first < num; first = next) {
        next = first;
        while (next < num &&
               visits[next].record->launch_idx == visits[first].record->launch_idx &&
               strcmp(visits[next].record->run_id, visits[first].record->run_id) == 0) {
            times[next - first] = visit_time(visits[next].record, split);
            if (next > first) {
                add_noise(of_visits, times[next - first - 1], times[next - first]);
            }
            next++;
        }
        const double median = median_of(times, next - first);
        if (first > 0) {
            add_noise(of_launches, previous, median);
        }
        previous = median;
    }
}

/* --- folds and clusters ---------------------------------------------------------------------- */

static int64_t index_of_text(const char **seen, int64_t *num, const char *text)
{
    for (int64_t i = 0; i < *num; i++) {
        if (strcmp(seen[i], text) == 0) {
            return i;
        }
    }
    seen[*num] = text;
    return (*num)++;
}

static int64_t index_of_i64(int64_t *seen, int64_t *num, int64_t value)
{
    for (int64_t i = 0; i < *num; i++) {
        if (seen[i] == value) {
            return i;
        }
    }
    seen[*num] = value;
    return (*num)++;
}

/* Which factor is held out: skews where there are enough, else the richer of skews and sizes. */
static const char *choose_fold_kind(const struct ep_fit_group *g)
{
    if (g->num_skews >= ENOUGH_GROUPS || (g->num_skews >= g->num_sizes && g->num_skews > 1)) {
        return "skew";
    }
    return g->num_sizes > 1 ? "size" : "none";
}

static enum ep_status note_folds(struct ep_fit_group *g)
{
    if (strcmp(g->fold_kind, "none") == 0) {
        return ep_record_add_note(&g->notes, "no-folds",
                                  "one skew and one size: nothing can be held out, so no error "
                                  "on new cases is known and no rung is chosen");
    }
    if (strcmp(g->fold_kind, "size") == 0) {
        return ep_record_add_note(&g->notes, "folds-are-sizes",
                                  "%" PRId64 " skews are too few to hold out (%d needed): whole "
                                  "sizes are held out instead, %" PRId64 " of them", g->num_skews,
                                  ENOUGH_GROUPS, g->num_sizes);
    }
    if (g->num_skews < ENOUGH_GROUPS) {
        return ep_record_add_note(&g->notes, "few-folds", "only %" PRId64 " skews to hold out",
                                  g->num_skews);
    }
    return EP_OK;
}

static enum ep_status assign_folds(struct ep_fit_group *g)
{
    enum ep_status status = EP_OK;
    const size_t room = (size_t)g->num_cases + 1;
    const char **skews = calloc(room, sizeof *skews);
    int64_t *sizes = calloc(room, sizeof *sizes);
    int64_t *pairs = calloc(room, sizeof *pairs);
    int64_t *ranks = calloc(room, sizeof *ranks);
    if (skews == NULL || sizes == NULL || pairs == NULL || ranks == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for folds"));
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        struct ep_fit_case *c = &g->cases[i];
        const int64_t skew = index_of_text(skews, &g->num_skews, c->skew);
        const int64_t size = index_of_i64(sizes, &g->num_sizes, c->size_class);
        c->skew_idx = skew;
        c->cluster = index_of_i64(pairs, &g->num_clusters, skew * 64 + size);
        index_of_i64(ranks, &g->num_rank_counts, (int64_t)c->model.features.values[EP_FEATURE_RANKS]);
        c->fold = skew;
    }
    g->fold_kind = choose_fold_kind(g);
    for (int64_t i = 0; i < g->num_cases && strcmp(g->fold_kind, "skew") != 0; i++) {
        int64_t num = g->num_sizes;
        g->cases[i].fold = index_of_i64(sizes, &num, g->cases[i].size_class);
    }
    g->num_folds = strcmp(g->fold_kind, "skew") == 0   ? g->num_skews
                   : strcmp(g->fold_kind, "size") == 0 ? g->num_sizes
                                                       : 0;
    status = note_folds(g);
out:
    free(skews);
    free(sizes);
    free(pairs);
    free(ranks);
    return status;
}

/* --- groups ---------------------------------------------------------------------------------- */

static bool all_split(const struct entry *entries, int64_t num)
{
    for (int64_t i = 0; i < num; i++) {
        const struct ep_record_phase *phase = ep_record_find_phase(entries[i].record, "exchange");
        if (phase == NULL || !(phase->median_s > 0)) {
            return false;
        }
    }
    return true;
}

static enum ep_status fill_group(const struct entry *entries, int64_t num, bool split,
                                 struct ep_fit_group *g)
{
    enum ep_status status = EP_OK;
    EP_ASSERT(num >= 1);
    struct noise of_visits = {0}, of_launches = {0};
    double *times = calloc((size_t)num, sizeof *times);
    g->chosen = -1;
    g->record = entries[0].record;
    g->target = split ? "exchange" : "whole";
    g->cases = calloc((size_t)num, sizeof *g->cases);
    if (times == NULL || g->cases == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " records", num));
    }
    EP_TRY(ep_record_set_text(&g->key, "%s", entries[0].key));
    EP_TRY(ep_record_set_text(&g->name, "%s %s %s", g->record->op, g->record->transport,
                              g->record->algorithm));
    for (int64_t first = 0, next; first < num; first = next) {
        next = first + 1;
        while (next < num && strcmp(entries[next].record->case_name,
                                    entries[first].record->case_name) == 0) {
            next++;
        }
        struct ep_fit_case *made = &g->cases[g->num_cases];
        EP_TRY(fill_case(entries + first, next - first, split, times, made));
        g->num_cases++;
        add_case_noise(entries + first, next - first, split, times, &of_visits, &of_launches);
    }
    g->noise_floor = mean_noise(&of_visits);
    g->launch_noise_floor = mean_noise(&of_launches);
    EP_TRY(assign_folds(g));
out:
    free(times);
    return status;
}

/* Groups with one name but other settings are told apart by their whole key. */
static enum ep_status name_apart(struct ep_fit_group *groups, int64_t num)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 1; i < num && status == EP_OK; i++) {
        struct ep_fit_group *a = &groups[i - 1];
        struct ep_fit_group *b = &groups[i];
        if (strcmp(a->record->op, b->record->op) == 0 &&
            strcmp(a->record->transport, b->record->transport) == 0 &&
            strcmp(a->record->algorithm, b->record->algorithm) == 0) {
            status = ep_record_set_text(&a->name, "%s", a->key);
            if (status == EP_OK) {
                status = ep_record_set_text(&b->name, "%s", b->key);
            }
        }
    }
    return status;
}

/* Entries of one key, from `first` on, end before. */
static int64_t end_of_group(const struct entry *entries, int64_t num, int64_t first)
{
    int64_t next = first + 1;
    while (next < num && strcmp(entries[next].key, entries[first].key) == 0) {
        next++;
    }
    return next;
}

/* A group of each key: of the exchange where all of it split that off. */
static enum ep_status fill_first(const struct entry *entries, int64_t num, struct ep_fit *fit)
{
    enum ep_status status = EP_OK;
    for (int64_t first = 0, next; first < num; first = next) {
        next = end_of_group(entries, num, first);
        EP_TRY(fill_group(entries + first, next - first, all_split(entries + first, next - first),
                          &fit->groups[fit->num_groups++]));
    }
    EP_TRY(name_apart(fit->groups, fit->num_groups));
    fit->num_primary = fit->num_groups;
out:
    return status;
}

/* Where the exchange was split off, the whole once more: for rungs with a copy term. */
static enum ep_status fill_wholes(const struct entry *entries, int64_t num, struct ep_fit *fit)
{
    enum ep_status status = EP_OK;
    int64_t idx = 0;
    for (int64_t first = 0, next; first < num; first = next, idx++) {
        next = end_of_group(entries, num, first);
        if (strcmp(fit->groups[idx].target, "exchange") != 0) {
            continue;
        }
        struct ep_fit_group *g = &fit->groups[fit->num_groups++];
        EP_TRY(fill_group(entries + first, next - first, false, g));
        EP_TRY(ep_record_set_text(&g->name, "%s, whole", fit->groups[idx].name));
        EP_TRY(ep_record_set_text(&g->key, "%s, whole", fit->groups[idx].key));
    }
out:
    return status;
}

static enum ep_status refuse_mixed_hosts(const struct entry *entries, int64_t num)
{
    for (int64_t i = 1; i < num; i++) {
        if (strcmp(entries[i].record->host, entries[0].record->host) != 0) {
            return ep_error_set(EP_EINVAL,
                                "records of host '%s' and host '%s' cannot be fitted together; "
                                "name the runs of one machine", entries[0].record->host,
                                entries[i].record->host);
        }
    }
    return EP_OK;
}

enum ep_status ep_fit_group_records(const struct ep_records *records, struct ep_fit *fit)
{
    enum ep_status status = EP_OK;
    struct entry *entries = NULL;
    int64_t num = 0;
    *fit = (struct ep_fit){0};
    EP_TRY(collect_entries(records, fit, &entries, &num));
    EP_TRY(refuse_mixed_hosts(entries, num));
    qsort(entries, (size_t)num, sizeof *entries, compare_entries);
    fit->groups = calloc(2 * (size_t)num + 1, sizeof *fit->groups);
    if (fit->groups == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for groups"));
    }
    EP_TRY(fill_first(entries, num, fit));
    EP_TRY(fill_wholes(entries, num, fit));
out:
    for (int64_t i = 0; i < num; i++) {
        free(entries[i].key);
    }
    free(entries);
    if (status != EP_OK) {
        ep_fit_fini(fit);
    }
    return status;
}

const struct ep_fit_group *ep_fit_find_group(const struct ep_fit *fit,
                                             const struct ep_record *record)
{
    char *key = NULL;
    if (record->kind != EP_RECORD_COMM || make_key(record, &key) != EP_OK) {
        return NULL;
    }
    const struct ep_fit_group *found = NULL;
    for (int64_t i = 0; i < fit->num_groups && found == NULL; i++) {
        found = strcmp(fit->groups[i].key, key) == 0 ? &fit->groups[i] : NULL;
    }
    free(key);
    return found;
}

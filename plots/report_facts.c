/* SPDX-License-Identifier: Apache-2.0 */
/* Counting, and the levels that bind. */
#include "plots/report_facts.h"

#include "base/json.h"
#include "base/stats.h"
#include "results/machine_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum ep_status no_memory(void)
{
    return ep_error_set(EP_ENOMEM, "no memory for the report's numbers");
}

/* --- records, checks, harness ---------------------------------------------------------------- */

static int compare_cases(const void *a, const void *b)
{
    const struct ep_record *left = *(const struct ep_record *const *)a;
    const struct ep_record *right = *(const struct ep_record *const *)b;
    return left->kind != right->kind ? (int)left->kind - (int)right->kind
                                     : strcmp(left->case_name, right->case_name);
}

static void count_case(struct ep_report_count *count, int64_t visits)
{
    count->min_visits = count->num_cases == 0 || visits < count->min_visits ? visits
                                                                           : count->min_visits;
    count->max_visits = visits > count->max_visits ? visits : count->max_visits;
    count->num_cases++;
    count->num_records += visits;
}

static enum ep_status count_cases(const struct ep_records *records, struct ep_report_facts *facts)
{
    const struct ep_record **sorted = calloc((size_t)records->num + 1, sizeof *sorted);
    if (sorted == NULL) {
        return no_memory();
    }
    for (int64_t i = 0; i < records->num; i++) {
        sorted[i] = &records->items[i];
    }
    qsort(sorted, (size_t)records->num, sizeof *sorted, compare_cases);
    for (int64_t first = 0, next; first < records->num; first = next) {
        next = first + 1;
        while (next < records->num && compare_cases(&sorted[first], &sorted[next]) == 0) {
            next++;
        }
        count_case(&facts->counts[sorted[first]->kind], next - first);
    }
    free(sorted);
    return EP_OK;
}

static void count_records(const struct ep_records *records, struct ep_report_facts *facts)
{
    facts->num_records = records->num;
    facts->null_s = NAN;
    facts->null_share = NAN;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        struct ep_report_count *count = &facts->counts[r->kind];
        count->num_launches = r->launch_idx + 1 > count->num_launches ? r->launch_idx + 1
                                                                      : count->num_launches;
        facts->num_checked += r->verified != EP_RECORD_ABSENT;
        facts->num_failed += r->verified == 0;
        facts->num_warned += r->warnings.num > 0;
        if (!isnan(r->null_s) && r->median_s > 0) {
            const double share = r->null_s / r->median_s;
            facts->null_s = fmax(facts->null_s, r->null_s);
            if (isnan(facts->null_share) || share > facts->null_share) {
                facts->null_share = share;
                facts->null_record = r;
            }
        }
    }
}

static int64_t count_withheld(const struct ep_fit *fit)
{
    int64_t num = 0;
    for (int64_t g = 0; g < fit->num_primary; g++) {
        const struct ep_fit_rung *rung = ep_fit_chosen(&fit->groups[g]);
        for (int j = 0; rung != NULL && j < rung->num_parameters; j++) {
            num += rung->parameters[j].withheld != NULL;
        }
    }
    return num;
}

/* --- doubts ---------------------------------------------------------------------------------- */

static struct ep_report_doubt *find_doubt(struct ep_report_facts *facts, const char *name)
{
    for (int64_t i = 0; i < facts->num_doubts; i++) {
        if (strcmp(facts->doubts[i].name, name) == 0) {
            return &facts->doubts[i];
        }
    }
    return NULL;
}

/* The doubt of a note's name, appended where it is new; NULL without memory. */
static struct ep_report_doubt *add_doubt(struct ep_report_facts *facts,
                                         const struct ep_record_note *note)
{
    struct ep_report_doubt *doubt = find_doubt(facts, note->name);
    if (doubt == NULL) {
        struct ep_report_doubt *more = realloc(
            facts->doubts, ((size_t)facts->num_doubts + 1) * sizeof *facts->doubts);
        if (more == NULL) {
            return NULL;
        }
        facts->doubts = more;
        doubt = &facts->doubts[facts->num_doubts++];
        *doubt = (struct ep_report_doubt){.name = note->name, .example = note->text};
    }
    doubt->total++;
    return doubt;
}

/* Doubts about whole runs first, then by how many records have them. */
static int compare_doubts(const void *a, const void *b)
{
    const struct ep_report_doubt *left = a, *right = b;
    if ((left->num_runs > 0) != (right->num_runs > 0)) {
        return left->num_runs > 0 ? -1 : 1;
    }
    if (left->total != right->total) {
        return left->total > right->total ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static enum ep_status count_doubts(const struct ep_run *runs, int num_runs,
                                   const struct ep_records *records, struct ep_report_facts *facts)
{
    for (int i = 0; i < num_runs; i++) {
        for (int64_t w = 0; w < runs[i].warnings.num; w++) {
            struct ep_report_doubt *doubt = add_doubt(facts, &runs[i].warnings.items[w]);
            if (doubt == NULL) {
                return no_memory();
            }
            doubt->num_runs++;
        }
    }
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        for (int64_t w = 0; w < r->warnings.num; w++) {
            struct ep_report_doubt *doubt = add_doubt(facts, &r->warnings.items[w]);
            if (doubt == NULL) {
                return no_memory();
            }
            doubt->num_records[r->kind]++;
        }
    }
    if (facts->num_doubts > 0) {
        qsort(facts->doubts, (size_t)facts->num_doubts, sizeof *facts->doubts, compare_doubts);
    }
    return EP_OK;
}

/* --- levels ---------------------------------------------------------------------------------- */

/* The name as the records hold it, which lives longer than the JSON. */
static const char *borrow_level_name(const struct ep_records *records, const char *name)
{
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (r->kind == EP_RECORD_LINKS && strcmp(r->level, name) == 0) {
            return r->level;
        }
    }
    return NULL;
}

static double number_or_nan(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static int64_t integer_or_absent(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : EP_RECORD_ABSENT;
}

/* machine.json's own summary of each level, so that the two never differ. */
static enum ep_status find_levels(const struct ep_run *run, const struct ep_records *records,
                                  const struct ep_fit *fit, struct ep_report_facts *facts)
{
    enum ep_status status = EP_OK;
    json_t *machine = NULL;
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    facts->slowest_level = -1;
    EP_TRY(ep_machine_file_make(records, run, fit, NULL, &options, &machine));
    const json_t *levels = json_object_get(machine, "levels");
    const size_t num = json_array_size(levels);
    facts->levels = calloc(num + 1, sizeof *facts->levels);
    if (facts->levels == NULL) {
        EP_TRY(no_memory());
    }
    for (size_t i = 0; i < num; i++) {
        const json_t *level = json_array_get(levels, i);
        struct ep_report_level *l = &facts->levels[facts->num_levels++];
        *l = (struct ep_report_level){
            .name = borrow_level_name(records, json_string_value(json_object_get(level, "name"))),
            .latency_s = number_or_nan(level, "latency_s"),
            .latency_size_bytes = integer_or_absent(level, "latency_size_bytes"),
            .bw_bytes_per_s = number_or_nan(level, "bw_bytes_per_s"),
            .bw_size_bytes = integer_or_absent(level, "bw_size_bytes"),
            .concurrent_pairs = integer_or_absent(level, "concurrent_pairs"),
            .concurrent_bw_bytes_per_s = number_or_nan(level, "concurrent_bw_bytes_per_s"),
            .load_share = NAN,
        };
        if (!isnan(l->bw_bytes_per_s) &&
            (facts->slowest_level < 0 ||
             l->bw_bytes_per_s < facts->levels[facts->slowest_level].bw_bytes_per_s)) {
            facts->slowest_level = (int64_t)i;
        }
    }
out:
    json_decref(machine);
    return status;
}

/* Seconds that a level's busiest rank needs for its bytes. */
static double load_of(const struct ep_report_level *level, const struct ep_record *record)
{
    const double bw = !isnan(level->concurrent_bw_bytes_per_s) ? level->concurrent_bw_bytes_per_s
                                                               : level->bw_bytes_per_s;
    double bytes = 0;
    for (int64_t i = 0; i < record->levels.num; i++) {
        const struct ep_record_level *l = &record->levels.items[i];
        if (strcmp(l->name, level->name) == 0) {
            bytes = fmax((double)l->max_in, (double)l->max_out);
        }
    }
    return bytes > 0 ? bytes / bw : 0;
}

/* Whether every level that carried bytes in this record was measured. */
static bool is_known(const struct ep_report_facts *facts, const struct ep_record *record)
{
    bool any = false;
    for (int64_t i = 0; i < record->levels.num; i++) {
        const struct ep_record_level *l = &record->levels.items[i];
        bool found = l->total <= 0;
        for (int64_t j = 0; j < facts->num_levels && !found; j++) {
            found = strcmp(facts->levels[j].name, l->name) == 0 &&
                    !isnan(facts->levels[j].bw_bytes_per_s);
        }
        if (!found) {
            return false;
        }
        any = any || l->total > 0;
    }
    return any;
}

static enum ep_status find_binding(const struct ep_records *records, struct ep_report_facts *facts)
{
    facts->binding_level = -1;
    facts->runner_up_level = -1;
    int64_t num_known = 0;
    double *shares = calloc((size_t)(facts->num_levels * records->num) + 1, sizeof *shares);
    if (shares == NULL) {
        return no_memory();
    }
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (r->kind != EP_RECORD_COMM || !is_known(facts, r)) {
            continue;
        }
        int64_t most = 0;
        for (int64_t l = 1; l < facts->num_levels; l++) {
            most = load_of(&facts->levels[l], r) > load_of(&facts->levels[most], r) ? l : most;
        }
        const double top = load_of(&facts->levels[most], r);
        if (!(top > 0)) {
            continue;
        }
        facts->levels[most].num_binding++;
        for (int64_t l = 0; l < facts->num_levels; l++) {
            shares[l * records->num + num_known] = load_of(&facts->levels[l], r) / top;
        }
        num_known++;
    }
    for (int64_t l = 0; l < facts->num_levels && num_known > 0; l++) {
        ep_stats_sort(shares + l * records->num, num_known);
        facts->levels[l].load_share = ep_stats_median_sorted(shares + l * records->num, num_known);
        if (facts->levels[l].num_binding > 0 &&
            (facts->binding_level < 0 ||
             facts->levels[l].num_binding > facts->levels[facts->binding_level].num_binding)) {
            facts->binding_level = l;
        }
    }
    for (int64_t l = 0; l < facts->num_levels && num_known > 0; l++) {
        if (l != facts->binding_level && facts->levels[l].load_share > 0 &&
            (facts->runner_up_level < 0 ||
             facts->levels[l].load_share > facts->levels[facts->runner_up_level].load_share)) {
            facts->runner_up_level = l;
        }
    }
    free(shares);
    return EP_OK;
}

/* --- phases ---------------------------------------------------------------------------------- */

static bool is_of_split(const struct ep_record *record, const struct ep_report_split *split)
{
    return record->kind == EP_RECORD_COMM && record->phases.num > 0 && record->op != NULL &&
           record->transport != NULL && strcmp(record->op, split->op) == 0 &&
           strcmp(record->transport, split->transport) == 0;
}

/* The share of one phase in all records of a split, median. room [records->num]. */
static double share_of(const struct ep_records *records, const struct ep_report_split *split,
                       const char *phase, double *room)
{
    int64_t num = 0;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        double sum_s = 0, own_s = 0;
        for (int64_t p = 0; p < r->phases.num; p++) {
            sum_s += r->phases.items[p].median_s;
            own_s += strcmp(r->phases.items[p].name, phase) == 0 ? r->phases.items[p].median_s : 0;
        }
        if (is_of_split(r, split) && sum_s > 0) {
            room[num++] = own_s / sum_s;
        }
    }
    if (num == 0) {
        return NAN;
    }
    ep_stats_sort(room, num);
    return ep_stats_median_sorted(room, num);
}

static void fill_split(const struct ep_records *records, struct ep_report_split *split,
                       const struct ep_record *record, double *room)
{
    for (int64_t p = 0; p < record->phases.num && p < EP_REPORT_MAX_PHASES; p++) {
        const char *name = record->phases.items[p].name;
        const double share = share_of(records, split, name, room);
        int at = split->num_phases++;
        for (; at > 0 && split->shares[at - 1] < share; at--) {
            split->phases[at] = split->phases[at - 1];
            split->shares[at] = split->shares[at - 1];
        }
        split->phases[at] = name;
        split->shares[at] = share;
    }
}

static enum ep_status find_splits(const struct ep_records *records, struct ep_report_facts *facts)
{
    enum ep_status status = EP_OK;
    double *room = calloc((size_t)records->num + 1, sizeof *room);
    if (room == NULL) {
        return no_memory();
    }
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (r->kind != EP_RECORD_COMM || r->phases.num == 0 || r->op == NULL ||
            r->transport == NULL) {
            continue;
        }
        int64_t s = 0;
        while (s < facts->num_splits && !is_of_split(r, &facts->splits[s])) {
            s++;
        }
        if (s == facts->num_splits) {
            struct ep_report_split *more = realloc(facts->splits, ((size_t)s + 1) * sizeof *more);
            if (more == NULL) {
                EP_TRY(no_memory());
            }
            facts->splits = more;
            facts->splits[s] = (struct ep_report_split){.op = r->op, .transport = r->transport};
            fill_split(records, &facts->splits[s], r, room);
            facts->num_splits++;
        }
        facts->splits[s].num_cases++;
    }
out:
    free(room);
    return status;
}

enum ep_status ep_report_facts_init(const struct ep_run *runs, int num_runs,
                                    const struct ep_records *records, const struct ep_fit *fit,
                                    struct ep_report_facts *facts)
{
    enum ep_status status = EP_OK;
    *facts = (struct ep_report_facts){.num_withheld = count_withheld(fit)};
    count_records(records, facts);
    EP_TRY(count_cases(records, facts));
    EP_TRY(count_doubts(runs, num_runs, records, facts));
    EP_TRY(find_levels(&runs[0], records, fit, facts));
    EP_TRY(find_binding(records, facts));
    EP_TRY(find_splits(records, facts));
out:
    if (status != EP_OK) {
        ep_report_facts_fini(facts);
    }
    return status;
}

void ep_report_facts_fini(struct ep_report_facts *facts)
{
    free(facts->doubts);
    free(facts->levels);
    free(facts->splits);
    *facts = (struct ep_report_facts){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of `links`, their shuffled visits, their records, and what they say of each level. */
#include "bench/links_sweep.h"

#include "base/file.h"
#include "base/random.h"
#include "base/stats.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ep_links_options ep_links_options_default(void)
{
    return (struct ep_links_options){
        .begin_bytes = 8,
        .end_bytes = (int64_t)4 << 20,
        .factor = 4,
        .visits = 3,
        .pairs_per_level = 3,
        .case_time_s = 0.03,
    };
}

struct ep_links_options ep_links_options_quick(void)
{
    struct ep_links_options options = ep_links_options_default();
    options.factor = 32;
    options.visits = 2;
    options.pairs_per_level = 1;
    options.case_time_s = 0.015;
    return options;
}

enum ep_status ep_links_options_check(const struct ep_links_options *options,
                                      int64_t memory_bytes)
{
    if (options->begin_bytes > options->end_bytes || !(options->factor > 1)) {
        return ep_error_set(EP_EINVAL,
                            "sizes from %" PRId64 " to %" PRId64 " bytes by factors of %g make no "
                            "sweep",
                            options->begin_bytes, options->end_bytes, options->factor);
    }
    /* a window is never less than the two messages of a ping-pong */
    const int64_t needed = options->end_bytes * ep_links_window(options->end_bytes);
    if (needed > memory_bytes) {
        return ep_error_set(EP_EINVAL,
                            "messages of %" PRId64 " bytes need %" PRId64
                            " bytes of buffers, but --memory is %" PRId64,
                            options->end_bytes, needed, memory_bytes);
    }
    return EP_OK;
}

/* A set of pairs that work together. */
struct group {
    int64_t level;
    bool all_at_once;
    int64_t (*pairs)[2]; /* owned */
    int64_t num_pairs;
};

struct one_case {
    int64_t group;
    enum ep_links_pattern pattern;
    int64_t size_bytes;
    bool too_slow;     /* a repetition takes too long: not measured */
    double *medians_s; /* [visits], NaN until visited */
};

/* A repetition that takes so many case times, and larger ones than it, are left out: a visit takes at
 * least 7 of them, and slow links reach their bandwidth with smaller messages. */
static const double longest_cases = 20;
/* Above this a repetition's time grows with its bytes: larger ones are predicted from it. */
static const double surely_bytes_s = 0.005;
/* A time so many times what smaller sizes make one expect is taken again, so often in all. */
enum { SURPRISE = 3, TRIALS = 4 };

struct sweep {
    struct ep_session *session;
    const struct ep_links_options *options;
    struct group *groups;
    int64_t num_groups;
    int64_t *sizes;
    int64_t num_sizes;
    struct one_case *cases;
    int64_t num_cases;
    int64_t num_slow; /* cases that are too slow */
};

static void free_sweep(struct sweep *s)
{
    for (int64_t i = 0; i < s->num_groups && s->groups != NULL; i++) {
        free(s->groups[i].pairs);
    }
    for (int64_t i = 0; i < s->num_cases && s->cases != NULL; i++) {
        free(s->cases[i].medians_s);
    }
    free(s->groups);
    free(s->sizes);
    free(s->cases);
}

static enum ep_status list_sizes(struct sweep *s)
{
    const struct ep_links_options *o = s->options;
    for (int pass = 0; pass < 2; pass++) {
        int64_t num = 0;
        for (double size = (double)o->begin_bytes; size < (double)o->end_bytes;
             size = fmax(floor(size * o->factor), size + 1)) {
            if (pass == 1) {
                s->sizes[num] = (int64_t)size;
            }
            num++;
        }
        if (pass == 0) {
            s->sizes = calloc((size_t)num + 1, sizeof *s->sizes);
            if (s->sizes == NULL) {
                return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " sizes", num);
            }
        } else {
            s->sizes[num] = o->end_bytes;
            s->num_sizes = num + 1;
        }
    }
    return EP_OK;
}

/* The sampled pairs of a level one by one, then as many as fit at once. */
static enum ep_status list_groups_of(struct sweep *s, int64_t level)
{
    const struct ep_topo *topo = s->session->topo;
    const int64_t most = s->options->pairs_per_level;
    const int64_t room = most > topo->num_ranks ? most : topo->num_ranks;
    int64_t(*found)[2] = calloc((size_t)room, sizeof *found);
    int64_t num = 0;
    enum ep_status status = EP_OK;
    if (found == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for pairs");
    }
    ep_topo_sample_pairs(topo, level, most, found, &num);
    for (int64_t p = 0; p < num; p++) {
        struct group *g = &s->groups[s->num_groups];
        *g = (struct group){.level = level, .num_pairs = 1, .pairs = calloc(1, sizeof *g->pairs)};
        if (g->pairs == NULL) {
            status = ep_error_set(EP_ENOMEM, "no memory for pairs");
            goto out;
        }
        memcpy(g->pairs[0], found[p], sizeof found[p]);
        s->num_groups++;
    }
    EP_TRY(ep_topo_match_pairs(topo, level, found, &num));
    if (num > 1) {
        s->groups[s->num_groups++] =
            (struct group){.level = level, .all_at_once = true, .pairs = found, .num_pairs = num};
        found = NULL;
    }
out:
    free(found);
    return status;
}

static enum ep_status list_cases(struct sweep *s)
{
    const struct ep_topo *topo = s->session->topo;
    enum ep_status status = EP_OK;
    const int64_t room = topo->num_levels * (s->options->pairs_per_level + 1);
    s->groups = calloc((size_t)room, sizeof *s->groups);
    if (s->groups == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " groups of pairs", room);
    }
    EP_TRY(list_sizes(s));
    for (int64_t level = 1; level < topo->num_levels; level++) {
        if (topo->levels[level].num_pairs > 0) {
            EP_TRY(list_groups_of(s, level));
        }
    }
    const int64_t num = s->num_groups * s->num_sizes * EP_LINKS_NUM_PATTERNS;
    s->cases = calloc((size_t)num + 1, sizeof *s->cases);
    if (s->cases == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " cases", num);
    }
    for (s->num_cases = 0; s->num_cases < num; s->num_cases++) {
        struct one_case *c = &s->cases[s->num_cases];
        const int64_t rest = s->num_cases / EP_LINKS_NUM_PATTERNS;
        c->pattern = (enum ep_links_pattern)(s->num_cases % EP_LINKS_NUM_PATTERNS);
        c->size_bytes = s->sizes[rest % s->num_sizes];
        c->group = rest / s->num_sizes;
        c->medians_s = calloc((size_t)s->options->visits, sizeof *c->medians_s);
        if (c->medians_s == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " cases", num);
        }
        for (int64_t v = 0; v < s->options->visits; v++) {
            c->medians_s[v] = NAN;
        }
    }
out:
    return status;
}

/* --- one visit ------------------------------------------------------------------------------- */

static char *new_case_name(const struct sweep *s, const struct one_case *c)
{
    const struct group *g = &s->groups[c->group];
    const char *level = s->session->topo->levels[g->level].name;
    const char *pattern = ep_links_pattern_name(c->pattern);
    if (g->all_at_once) {
        return ep_format_new("links/%s/%s/all=%" PRId64 "/%" PRId64 "B", level, pattern,
                             g->num_pairs, c->size_bytes);
    }
    return ep_format_new("links/%s/%s/pair=%" PRId64 "-%" PRId64 "/%" PRId64 "B", level, pattern,
                         g->pairs[0][0], g->pairs[0][1], c->size_bytes);
}

static enum ep_status describe(const struct sweep *s, const struct one_case *c, int64_t visit,
                               const struct ep_links_check *check, struct ep_record *r)
{
    enum ep_status status = EP_OK;
    const struct group *g = &s->groups[c->group];
    const char *level = s->session->topo->levels[g->level].name;
    const char *pattern = ep_links_pattern_name(c->pattern);
    r->case_name = new_case_name(s, c);
    if (r->case_name == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the name of a case");
    }
    EP_TRY(ep_record_set_text(&r->level, "%s", level));
    EP_TRY(ep_record_set_text(&r->pattern, "%s", pattern));
    EP_TRY(ep_record_set_text(&r->cadence, "stream"));
    EP_TRY(ep_record_set_text(&r->buffers, "warm"));
    EP_TRY(ep_record_set_i64s(&r->pair, g->pairs[0], 2));
    r->visit_idx = visit;
    r->size_bytes = c->size_bytes;
    r->concurrent_pairs = g->num_pairs;
    r->check = (struct ep_record_check){.rows = check->messages, .wrong = check->wrong};
    r->verified = check->wrong == 0;
out:
    return status;
}

static struct ep_links_case work_of(const struct sweep *s, const struct one_case *c)
{
    const struct group *g = &s->groups[c->group];
    return (struct ep_links_case){
        .pattern = c->pattern,
        .size_bytes = c->size_bytes,
        .pairs = (const int64_t(*)[2])g->pairs,
        .num_pairs = g->num_pairs,
        .seed = s->session->options.seed,
    };
}

static int64_t messages_of(const struct one_case *c)
{
    /* a repetition carries 2 messages one after the other, or a window of them */
    return c->pattern == EP_LINKS_PINGPONG ? 2 : ep_links_window(c->size_bytes);
}

static struct one_case *case_of(const struct sweep *s, int64_t group, int64_t size_idx, int pattern)
{
    return &s->cases[(group * s->num_sizes + size_idx) * EP_LINKS_NUM_PATTERNS + pattern];
}

static int64_t drop_from(struct sweep *s, int64_t group, int64_t size_idx, int pattern)
{
    for (int64_t i = size_idx; i < s->num_sizes; i++) {
        case_of(s, group, i, pattern)->too_slow = true;
    }
    return s->num_sizes - size_idx;
}

/* The fastest of a few: a rank that the system stops for a moment is no slow link. One time where it is not above
 * enough_s. */
static enum ep_status time_case(struct sweep *s, const struct ep_links_case *work, double enough_s,
                                double *time_s)
{
    enum ep_status status = EP_OK;
    *time_s = HUGE_VAL;
    for (int i = 0; i < TRIALS && *time_s > enough_s; i++) {
        double once_s = 0;
        EP_TRY(ep_links_time_once(s->session->world, s->session->arena, work, &once_s));
        *time_s = fmin(*time_s, once_s);
    }
out:
    return status;
}

/* Sizes of one group and pattern, growing until a repetition takes too long. Times are agreed, so all
 * ranks leave out the same. */
static enum ep_status find_slow_of(struct sweep *s, int64_t group, int pattern, int64_t *num_dropped)
{
    enum ep_status status = EP_OK;
    const double limit_s = longest_cases * s->options->case_time_s;
    double last_s = 0;
    double last_bytes = 1;
    for (int64_t i = 0; i < s->num_sizes; i++) {
        const struct one_case *c = case_of(s, group, i, pattern);
        const struct ep_links_case work = work_of(s, c);
        const double bytes = (double)(c->size_bytes * messages_of(c));
        const double expected_s = last_s * bytes / last_bytes;
        double time_s = expected_s;
        if (last_s < surely_bytes_s || expected_s < 2 * limit_s) {
            EP_TRY(time_case(s, &work, fmax(SURPRISE * expected_s, limit_s), &time_s));
        }
        if (time_s > limit_s && i > 0) { /* the smallest is always measured */
            *num_dropped += drop_from(s, group, i, pattern);
            char *name = new_case_name(s, c);
            char time[32], limit[32];
            ep_session_skip(s->session, "slow-link", "%s and larger: a repetition takes %s, more "
                            "than %g times --case-time (%s)", name != NULL ? name : "?",
                            ep_format_time(time_s, time, sizeof time), longest_cases,
                            ep_format_time(limit_s, limit, sizeof limit));
            free(name);
            break;
        }
        last_s = time_s;
        last_bytes = bytes;
    }
out:
    return status;
}

static enum ep_status find_slow(struct sweep *s)
{
    enum ep_status status = EP_OK;
    for (int64_t g = 0; g < s->num_groups; g++) {
        for (int pattern = 0; pattern < EP_LINKS_NUM_PATTERNS; pattern++) {
            bool interrupted = false;
            EP_TRY(ep_session_interrupted(s->session, &interrupted));
            if (!interrupted) {
                EP_TRY(find_slow_of(s, g, pattern, &s->num_slow));
            }
        }
    }
out:
    return status;
}

static enum ep_status visit_case(struct sweep *s, struct one_case *c, int64_t visit)
{
    enum ep_status status = EP_OK;
    struct ep_session *session = s->session;
    const struct ep_links_case work = work_of(s, c);
    struct ep_harness_result result = {0};
    struct ep_links_check check = {0};
    struct ep_record record;
    int64_t repetitions = 1;
    ep_record_init(&record, EP_RECORD_LINKS);
    EP_TRY(ep_comm_agree(session->world, ep_session_begin_record(session, session->world, &record)));
    struct ep_os_counters counters = {0};
    EP_TRY(ep_links_measure(session->world, session->arena, &work, s->options->case_time_s,
                            &result, &repetitions, &counters, &check));
    const int64_t messages = repetitions * messages_of(c);
    record.null_s = session->null_s / (double)messages;
    EP_TRY(ep_session_set_samples(session, session->world, &result, &counters, &record));
    c->medians_s[visit] = result.summary.median;
    if (ep_comm_is_root(session->world)) {
        record.bw_bytes_per_s = (double)c->size_bytes / result.summary.median;
        status = describe(s, c, visit, &check, &record);
    }
    EP_TRY(ep_comm_agree(session->world, status));
    EP_TRY(ep_session_add_record(session,
                                 ep_comm_is_root(session->world) ? &record : NULL));
out:
    ep_record_fini(&record);
    ep_harness_result_fini(&result);
    return status;
}

static void show_progress(const struct sweep *s, int64_t done, double start_s)
{
    if (!s->options->progress || !ep_comm_is_root(s->session->world)) {
        return;
    }
    const int64_t all = (s->num_cases - s->num_slow) * s->options->visits;
    const double spent_s = ep_comm_now_s() - start_s;
    const double left_s = done > 0 ? spent_s / (double)done * (double)(all - done) : 0;
    fprintf(stderr, "\rlinks: %" PRId64 " of %" PRId64 " visits, %.0f s left   ", done, all,
            left_s);
    if (done == all) {
        fputc('\n', stderr);
    }
}

/* A signal, or the budget used up on the slowest rank's clock: the same answer on every rank. */
static enum ep_status must_stop(const struct sweep *s, double start_s, bool *stop,
                                const char **why)
{
    enum ep_status status = EP_OK;
    double spent_s = ep_comm_now_s() - start_s;
    EP_TRY(ep_session_interrupted(s->session, stop));
    EP_TRY(ep_comm_max_f64(s->session->world, &spent_s, 1));
    *why = *stop ? "interrupted" : "over the time for them";
    *stop = *stop || (s->options->budget_s > 0 && spent_s > s->options->budget_s);
out:
    return status;
}

/* What a resumed run has of a visit is not measured again. */
static enum ep_status take_done_visit(struct sweep *s, struct one_case *c, int64_t visit,
                                      bool *done)
{
    enum ep_status status = EP_OK;
    char *name = new_case_name(s, c);
    status = name == NULL ? ep_error_set(EP_ENOMEM, "no memory to resume") : EP_OK;
    EP_TRY(ep_comm_agree(s->session->world, status));
    EP_TRY(ep_session_is_done(s->session, name, visit, done, &c->medians_s[visit]));
out:
    free(name);
    return status;
}

static enum ep_status visit_all(struct sweep *s)
{
    enum ep_status status = EP_OK;
    bool stopped = false;
    const int64_t all = (s->num_cases - s->num_slow) * s->options->visits;
    int64_t *order = calloc((size_t)s->num_cases + 1, sizeof *order);
    status = order == NULL ? ep_error_set(EP_ENOMEM, "no memory for the order of cases") : EP_OK;
    EP_TRY(ep_comm_agree(s->session->world, status));
    const double start_s = ep_comm_now_s();
    int64_t done = 0;
    for (int64_t visit = 0; visit < s->options->visits && !stopped; visit++) {
        struct ep_random random;
        ep_random_init(&random, s->session->options.seed, EP_RANDOM_ORDER, (uint64_t)visit);
        for (int64_t i = 0; i < s->num_cases; i++) {
            order[i] = i;
        }
        ep_random_shuffle_i64(&random, order, s->num_cases);
        for (int64_t i = 0; i < s->num_cases && !stopped; i++) {
            struct one_case *c = &s->cases[order[i]];
            const char *why = NULL;
            bool done_before = false;
            if (c->too_slow) {
                continue;
            }
            if (s->session->options.resume) {
                EP_TRY(take_done_visit(s, c, visit, &done_before));
            }
            if (!done_before) {
                EP_TRY(must_stop(s, start_s, &stopped, &why));
            }
            if (stopped) {
                ep_session_skip(s->session, "links", "%" PRId64 " of %" PRId64
                                " visits of links are left out: %s", all - done, all, why);
            } else {
                EP_TRY(done_before ? EP_OK : visit_case(s, c, visit));
                show_progress(s, ++done, start_s);
            }
        }
    }
    ep_session_count_visits(s->session, done, all);
out:
    free(order);
    return status;
}

/* --- what the visits say --------------------------------------------------------------------- */

/* Median of the values that are there; NaN where none is. Sorts. */
static double median_of(double *values, int64_t num)
{
    int64_t there = 0;
    for (int64_t i = 0; i < num; i++) {
        if (!isnan(values[i])) {
            values[there++] = values[i];
        }
    }
    if (there == 0) {
        return NAN;
    }
    ep_stats_sort(values, there);
    return ep_stats_median_sorted(values, there);
}

/* All cases of a level with one pattern and size, pairs one by one or all at once. */
static void summarize_point(const struct sweep *s, double *scratch, struct ep_links_point *p)
{
    int64_t num = 0;
    p->low_pair_bytes_per_s = NAN;
    p->high_pair_bytes_per_s = NAN;
    for (int64_t i = 0; i < s->num_cases; i++) {
        const struct one_case *c = &s->cases[i];
        const struct group *g = &s->groups[c->group];
        if (g->level != p->level || g->all_at_once != p->all_at_once ||
            c->pattern != p->pattern || c->size_bytes != p->size_bytes) {
            continue;
        }
        double visits[1000];
        memcpy(visits, c->medians_s, (size_t)s->options->visits * sizeof visits[0]);
        const double time_s = median_of(visits, s->options->visits);
        const double bw = (double)c->size_bytes / time_s;
        p->concurrent_pairs = g->num_pairs;
        scratch[num++] = time_s;
        if (!p->all_at_once) {
            p->low_pair_bytes_per_s = fmin(p->low_pair_bytes_per_s, bw);
            p->high_pair_bytes_per_s = fmax(p->high_pair_bytes_per_s, bw);
        }
    }
    p->num_pairs = p->all_at_once ? p->concurrent_pairs : num;
    p->time_s = median_of(scratch, num);
    p->bw_bytes_per_s = (double)p->size_bytes / p->time_s;
}

/* Latency is the ping-pong's and bandwidth the windows': a link that gathers credit while idle (a
 * token bucket, say) lets a ping-pong run faster than it can go on. fmax takes the number where the
 * other is NaN. */
static void fold_point(const struct sweep *s, const struct ep_links_point *p,
                       struct ep_links_level *level)
{
    const bool is_smallest = p->size_bytes == s->sizes[0];
    if (p->pattern == EP_LINKS_PINGPONG && is_smallest) {
        *(p->all_at_once ? &level->all_latency_s : &level->latency_s) = p->time_s;
    }
    if (p->all_at_once) {
        level->concurrent_pairs = p->concurrent_pairs;
    }
    if (p->pattern != EP_LINKS_WINDOW || isnan(p->bw_bytes_per_s)) {
        return;
    }
    if (p->all_at_once) {
        level->all_bw_bytes_per_s = fmax(level->all_bw_bytes_per_s, p->bw_bytes_per_s);
        level->all_large_bw_bytes_per_s = p->bw_bytes_per_s;
        return;
    }
    level->large_bw_bytes_per_s = p->bw_bytes_per_s;
    const double best = fmax(level->bw_bytes_per_s, p->bw_bytes_per_s);
    level->bw_size_bytes = best == p->bw_bytes_per_s ? p->size_bytes : level->bw_size_bytes;
    level->bw_bytes_per_s = best;
}

static bool has_group(const struct sweep *s, int64_t level, bool all_at_once)
{
    for (int64_t g = 0; g < s->num_groups; g++) {
        if (s->groups[g].level == level && s->groups[g].all_at_once == all_at_once) {
            return true;
        }
    }
    return false;
}

static void summarize_level(const struct sweep *s, int64_t level, double *scratch,
                            struct ep_links_summary *summary)
{
    struct ep_links_level *l = &summary->levels[summary->num_levels++];
    *l = (struct ep_links_level){.level = level,
                                 .latency_s = NAN,
                                 .bw_bytes_per_s = NAN,
                                 .large_bw_bytes_per_s = NAN,
                                 .all_large_bw_bytes_per_s = NAN,
                                 .all_bw_bytes_per_s = NAN,
                                 .all_latency_s = NAN};
    for (int all = 0; all < 2; all++) {
        for (int pattern = 0; pattern < EP_LINKS_NUM_PATTERNS && has_group(s, level, all);
             pattern++) {
            for (int64_t size = 0; size < s->num_sizes; size++) {
                struct ep_links_point *p = &summary->points[summary->num_points++];
                *p = (struct ep_links_point){.level = level,
                                             .all_at_once = all,
                                             .pattern = (enum ep_links_pattern)pattern,
                                             .size_bytes = s->sizes[size]};
                summarize_point(s, scratch, p);
                fold_point(s, p, l);
            }
        }
    }
    ep_topo_set_measured(s->session->topo, level, l->latency_s, l->bw_bytes_per_s);
}

static enum ep_status summarize(const struct sweep *s, struct ep_links_summary *summary)
{
    const struct ep_topo *topo = s->session->topo;
    double *scratch = calloc((size_t)s->num_cases + 1, sizeof *scratch);
    const int64_t room = topo->num_levels * 2 * EP_LINKS_NUM_PATTERNS * s->num_sizes;
    summary->points = calloc((size_t)room, sizeof *summary->points);
    summary->levels = calloc((size_t)topo->num_levels, sizeof *summary->levels);
    if (scratch == NULL || summary->points == NULL || summary->levels == NULL) {
        free(scratch);
        return ep_error_set(EP_ENOMEM, "no memory for a summary");
    }
    for (int64_t level = 1; level < topo->num_levels; level++) {
        if (has_group(s, level, false)) {
            summarize_level(s, level, scratch, summary);
        }
    }
    free(scratch);
    return EP_OK;
}

static enum ep_status write_topology(struct ep_session *session)
{
    enum ep_status status = EP_OK;
    char *xml = NULL;
    char *path = NULL;
    size_t length = 0;
    if (!session->writes || !ep_comm_is_root(session->world)) {
        return EP_OK;
    }
    EP_TRY(ep_topo_annotated_xml(session->topo, &xml, &length));
    path = ep_path_join(session->dir.path, "topology.xml");
    status = path == NULL ? ep_error_set(EP_ENOMEM, "no memory for a path")
                          : ep_file_write(path, xml, length);
out:
    free(path);
    free(xml);
    return status;
}

enum ep_status ep_links_sweep(struct ep_session *session, const struct ep_links_options *options,
                              struct ep_links_summary *summary)
{
    struct sweep s = {.session = session, .options = options};
    enum ep_status status = EP_OK;
    EP_ASSERT(options->visits >= 1 && options->visits <= 1000);
    EP_TRY(ep_links_options_check(options, session->options.memory_bytes));
    EP_TRY(ep_comm_agree(session->world, list_cases(&s)));
    if (s.num_cases > 0) {
        EP_TRY(ep_session_measure_null(session));
        EP_TRY(find_slow(&s));
        EP_TRY(visit_all(&s));
    }
    EP_TRY(ep_comm_agree(session->world, summarize(&s, summary)));
    EP_TRY(ep_comm_agree(session->world, write_topology(session)));
out:
    free_sweep(&s);
    return status;
}

void ep_links_summary_fini(struct ep_links_summary *summary)
{
    free(summary->points);
    free(summary->levels);
    *summary = (struct ep_links_summary){0};
}

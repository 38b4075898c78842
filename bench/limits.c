/* SPDX-License-Identifier: Apache-2.0 */
/* A point's transports and bounds in turns. */
#include "bench/limits.h"

#include "base/random.h"
#include "bench/comm_record.h"
#include "bench/comm_visit.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONTENDERS = 24, MIN_ROUNDS = 6, MAX_ROUNDS = 40, MAX_BURST = 8 };
static const double burst_s = 0.02; /* about so long is one turn, but for what is slower */
static const double turns_share = 0.8; /* of the time; phases take the rest */

struct contender {
    struct ep_comm_case point;
    const struct ep_comm_case *asked; /* of the sweep; NULL = a bound */
    struct ep_comm_visit visit;
    bool is_live;
    int64_t burst;            /* timed repetitions of a turn */
    double *own_s, *most_s;   /* [MAX_ROUNDS * MAX_BURST] of this rank, of the slowest */
    double round_s[MAX_ROUNDS];
    struct ep_os_counters before, during; /* over all turns of an operation */
};

struct limits {
    struct ep_session *session;
    struct ep_comm *comm;
    struct contender *items[MAX_CONTENDERS];
    int64_t num, num_rounds;
    enum ep_op op; /* that is measured now */
};

/* --- building --------------------------------------------------------------------------------- */

static enum ep_status add_contender(struct limits *l, const struct ep_comm_case *like,
                                    const struct ep_transport *bound)
{
    enum ep_status status = EP_OK;
    const size_t num = (size_t)MAX_ROUNDS * MAX_BURST;
    struct contender *c = calloc(1, sizeof *c);
    if (l->num == MAX_CONTENDERS) {
        free(c);
        return ep_error_set(EP_EINVAL, "--limits: at most %d transports", MAX_CONTENDERS);
    }
    double *times = calloc(2 * num, sizeof *times);
    status = c != NULL && times != NULL ? EP_OK
                                        : ep_error_set(EP_ENOMEM, "no memory for a transport");
    status = ep_comm_agree(l->comm, status);
    if (status != EP_OK) {
        free(c);
        free(times);
        return status;
    }
    c->own_s = times;
    c->most_s = times + num;
    c->point = *like;
    c->asked = bound == NULL ? like : NULL;
    if (bound != NULL) {
        c->point.transport = bound;
        c->point.algorithm = "default";
        for (int op = 0; op < EP_NUM_OPS; op++) {
            c->point.ops[op] = like->ops[op] && op == (int)ep_limits_bound_op(bound);
        }
    }
    l->items[l->num++] = c;
    status = ep_comm_visit_init(l->session, l->comm, &c->point, &c->visit);
    c->is_live = status == EP_OK;
    if (status == EP_ENOMEM || status == EP_EENV) {
        ep_session_skip(l->session, status == EP_ENOMEM ? "no-memory" : "unavailable",
                        "%s, %s, top-k %" PRId64 ", %" PRId64 " tokens: %s",
                        c->point.transport->name, c->point.skew->text, c->point.top_k,
                        c->point.tokens, ep_error_text());
        ep_error_clear();
        status = EP_OK;
    }
    return status;
}

static void fini(struct limits *l)
{
    for (int64_t i = 0; i < l->num; i++) {
        ep_comm_visit_fini(&l->items[i]->visit);
        free(l->items[i]->own_s);
        free(l->items[i]);
    }
}

static bool takes_part(const struct limits *l, const struct contender *c)
{
    return c->is_live && c->point.ops[l->op];
}

/* --- turns ------------------------------------------------------------------------------------ */

static enum ep_status time_once(struct limits *l, struct contender *c, double *time_s)
{
    enum ep_status status = EP_OK;
    const struct ep_harness_env env = ep_comm_harness_env(l->comm);
    EP_TRY(env.sync(env.ctx));
    const double start_s = env.now_s(env.ctx);
    EP_TRY(ep_comm_visit_run(&c->visit));
    *time_s = env.now_s(env.ctx) - start_s;
out:
    return status;
}

static enum ep_status take_turn(struct limits *l, struct contender *c, double *times_s)
{
    enum ep_status status = EP_OK;
    double warm_up_s = 0;
    c->visit.op = l->op;
    EP_TRY(time_once(l, c, &warm_up_s));
    for (int64_t i = 0; i < c->burst; i++) {
        EP_TRY(time_once(l, c, &times_s[i]));
    }
out:
    return status;
}

/* How many repetitions each turn has, and how many rounds fit: the same on all ranks. */
static enum ep_status plan_rounds(struct limits *l, double time_s)
{
    enum ep_status status = EP_OK;
    double round_s = 0;
    for (int64_t i = 0; i < l->num; i++) {
        struct contender *c = l->items[i];
        if (!takes_part(l, c)) {
            continue;
        }
        c->burst = 1;
        EP_TRY(take_turn(l, c, c->own_s));
        double once_s = c->own_s[0];
        EP_TRY(ep_comm_max_f64(l->comm, &once_s, 1));
        const double fit = burst_s / fmax(once_s, 1e-9);
        c->burst = fit < 2 ? 2 : fit > MAX_BURST ? MAX_BURST : (int64_t)fit;
        round_s += once_s * (double)(c->burst + 1);
    }
    const double fit = time_s / fmax(round_s, 1e-9);
    l->num_rounds = fit < MIN_ROUNDS ? MIN_ROUNDS : fit > MAX_ROUNDS ? MAX_ROUNDS : (int64_t)fit;
out:
    return status;
}

static double median_of(const double *values, int64_t num)
{
    double sorted[MAX_BURST];
    memcpy(sorted, values, (size_t)num * sizeof *sorted);
    ep_stats_sort(sorted, num);
    return ep_stats_median_sorted(sorted, num);
}

static enum ep_status measure_rounds(struct limits *l, int64_t visit_idx)
{
    enum ep_status status = EP_OK;
    int64_t order[MAX_CONTENDERS];
    for (int64_t i = 0; i < l->num; i++) {
        order[i] = i;
        l->items[i]->before = ep_os_counters_read();
    }
    for (int64_t n = 0; n < l->num_rounds; n++) {
        struct ep_random random;
        ep_random_init(&random, l->session->options.seed, EP_RANDOM_ORDER,
                       (uint64_t)(n + 1000 * (visit_idx + 1)));
        ep_random_shuffle_i64(&random, order, l->num);
        for (int64_t i = 0; i < l->num; i++) {
            struct contender *c = l->items[order[i]];
            if (takes_part(l, c)) {
                EP_TRY(take_turn(l, c, c->own_s + n * c->burst));
            }
        }
    }
    for (int64_t i = 0; i < l->num; i++) {
        struct contender *c = l->items[i];
        const int64_t num = l->num_rounds * c->burst;
        c->during = ep_os_counters_since(&c->before);
        if (takes_part(l, c)) {
            memcpy(c->most_s, c->own_s, (size_t)num * sizeof *c->most_s);
            EP_TRY(ep_comm_max_f64(l->comm, c->most_s, num));
            for (int64_t n = 0; n < l->num_rounds; n++) {
                c->round_s[n] = median_of(c->most_s + n * c->burst, c->burst);
            }
        }
    }
out:
    return status;
}

/* --- results ---------------------------------------------------------------------------------- */

static bool is_base(const struct contender *c)
{
    return c->asked != NULL && strcmp(c->point.transport->name, "alltoallv") == 0;
}

/* The fastest of those that `counts` says, round by round; NaN where there is none. */
static void find_fastest(const struct limits *l, bool (*counts)(const struct contender *c),
                         double *round_s)
{
    for (int64_t n = 0; n < l->num_rounds; n++) {
        round_s[n] = NAN;
        for (int64_t i = 0; i < l->num; i++) {
            const struct contender *c = l->items[i];
            if (takes_part(l, c) && counts(c)) {
                round_s[n] = fmin(round_s[n], c->round_s[n]); /* passes over NaN */
            }
        }
    }
}

static bool is_over_mpi(const struct contender *c)
{
    return c->asked != NULL && !c->point.transport->shares && c->point.transport->view != NULL;
}

static bool is_bound(const struct contender *c)
{
    return c->asked == NULL;
}

static double median_round(const struct limits *l, const struct contender *c)
{
    double sorted[MAX_ROUNDS];
    memcpy(sorted, c->round_s, (size_t)l->num_rounds * sizeof *sorted);
    ep_stats_sort(sorted, l->num_rounds);
    return ep_stats_median_sorted(sorted, l->num_rounds);
}

/* The fastest bound by its median: what a record names. NULL where there is none. */
static const struct contender *best_bound(const struct limits *l)
{
    const struct contender *best = NULL;
    for (int64_t i = 0; i < l->num; i++) {
        const struct contender *c = l->items[i];
        if (is_bound(c) && takes_part(l, c) &&
            (best == NULL || median_round(l, c) < median_round(l, best))) {
            best = c;
        }
    }
    return best;
}

/* Rows that the busiest rank gets, own ones included. */
static int64_t received_bytes(const struct contender *c)
{
    const struct ep_traffic *t = &c->visit.setting.traffic;
    int64_t most = 0;
    for (int64_t j = 0; j < t->num_ranks; j++) {
        int64_t rows = 0;
        for (int64_t i = 0; i < t->num_ranks; i++) {
            rows += t->copies[i * t->num_ranks + j];
        }
        most = rows > most ? rows : most;
    }
    return most * c->visit.exchange.row_bytes;
}

static enum ep_status add_entry(const struct limits *l, const struct contender *c,
                                struct ep_limits_table *table)
{
    double base_s[MAX_ROUNDS], mpi_s[MAX_ROUNDS], bound_s[MAX_ROUNDS];
    char point[160], name[64];
    const struct ep_comm_case *p = &c->point;
    find_fastest(l, is_base, base_s);
    find_fastest(l, is_over_mpi, mpi_s);
    find_fastest(l, is_bound, bound_s);
    snprintf(point, sizeof point, "%.60s, top-k %" PRId64 ", hidden %" PRId64 ", %s, %" PRId64
             " tokens", p->skew->text, p->top_k, p->hidden, ep_dtype_name(p->dtype), p->tokens);
    snprintf(name, sizeof name, "%s%s%s", p->transport->name,
             strcmp(p->algorithm, "default") == 0 ? "" : "/",
             strcmp(p->algorithm, "default") == 0 ? "" : p->algorithm);
    const struct ep_limits_entry entry = {
        .point = point,
        .transport = name,
        .shares = c->asked != NULL && p->transport->shares,
        .is_base = is_base(c),
        .op = l->op,
        .received_bytes = received_bytes(c),
        .median_s = median_round(l, c),
        .own_s = c->round_s,
        .base_s = base_s,
        .mpi_s = mpi_s,
        .bound_s = bound_s,
        .num_rounds = l->num_rounds,
    };
    return ep_limits_table_add(table, &entry);
}

static enum ep_status fill_result(const struct limits *l, const struct contender *c,
                                  struct ep_harness_result *whole)
{
    const int64_t num = l->num_rounds * c->burst;
    double *sorted = malloc((size_t)num * sizeof *sorted);
    if (sorted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for samples");
    }
    memcpy(sorted, c->own_s, (size_t)num * sizeof *sorted);
    ep_stats_sort(sorted, num);
    *whole = (struct ep_harness_result){
        .num = num,
        .samples_s = c->most_s, /* borrowed, as is the next */
        .local_s = c->own_s,
        .local_median_s = ep_stats_median_sorted(sorted, num),
        .repetitions = 1,
        .stop = EP_STOP_BUDGET,
    };
    free(sorted);
    return ep_stats_summarize(whole->samples_s, num, &whole->summary);
}

static enum ep_status record_one(struct limits *l, struct contender *c,
                                 const struct ep_comm_effort *effort, double time_s,
                                 int64_t visit_idx, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    struct ep_harness_result whole = {0};
    const struct contender *bound = best_bound(l);
    EP_TRY(ep_comm_agree(l->comm, ep_session_begin_record(l->session, l->comm, record)));
    EP_TRY(ep_comm_agree(l->comm, fill_result(l, c, &whole)));
    c->visit.op = l->op;
    EP_TRY(ep_comm_visit_finish(l->session, &c->visit, effort, time_s, &whole, &c->during, visit_idx,
                                record));
    if (bound != NULL && !is_bound(c) && record->nodes <= 1) {
        record->bound_s = median_round(l, bound);
        status = ep_record_set_text(&record->bound_name, "%s", bound->point.transport->name);
    }
    EP_TRY(ep_comm_agree(l->comm, status));
out:
    return status;
}

static int64_t count_live(const struct limits *l)
{
    int64_t num = 0;
    for (int64_t i = 0; i < l->num; i++) {
        num += l->items[i]->is_live && l->items[i]->asked != NULL;
    }
    return num;
}

/* All that the measuring ranks do for one operation; records [num contenders]. */
static enum ep_status measure_op(struct limits *l, const struct ep_comm_effort *effort, double time_s,
                                 int64_t visit_idx, struct ep_record *records,
                                 struct ep_limits_table *table)
{
    enum ep_status status = EP_OK;
    EP_TRY(plan_rounds(l, turns_share * time_s));
    EP_TRY(measure_rounds(l, visit_idx));
    for (int64_t i = 0; i < l->num; i++) {
        struct contender *c = l->items[i];
        if (takes_part(l, c)) {
            EP_TRY(record_one(l, c, effort, (1 - turns_share) * time_s / (double)l->num, visit_idx,
                              &records[i]));
            status = ep_comm_is_root(l->comm) ? add_entry(l, c, table) : EP_OK;
            EP_TRY(ep_comm_agree(l->comm, status));
        }
    }
out:
    return status;
}

static enum ep_status build(struct limits *l, const struct ep_comm_case *cases,
                            const int64_t *case_idx, int64_t num_idx)
{
    enum ep_status status = EP_OK;
    ep_arena_reset(l->session->arena);
    for (int64_t i = 0; i < num_idx; i++) {
        EP_TRY(add_contender(l, &cases[case_idx[i]], NULL));
    }
    if (ep_comm_num_nodes(l->comm) == 1) {
        for (int b = 0; ep_limits_bounds[b] != NULL; b++) {
            if (cases[case_idx[0]].ops[ep_limits_bound_op(ep_limits_bounds[b])]) {
                EP_TRY(add_contender(l, &cases[case_idx[0]], ep_limits_bounds[b]));
            }
        }
    }
    if (count_live(l) < 2 && num_idx > 1) {
        status = ep_error_set(EP_ENOMEM, "--limits: no room for two transports at a time");
    }
out:
    return status;
}

enum ep_status ep_limits_visit(struct ep_session *session, struct ep_comm *part,
                               const struct ep_comm_case *cases, const int64_t *case_idx,
                               int64_t num_idx, const struct ep_comm_effort *effort,
                               int64_t visit_idx, struct ep_limits_table *table)
{
    enum ep_status status = EP_OK;
    struct limits l = {.session = session, .comm = part};
    struct ep_record records[MAX_CONTENDERS];
    const struct ep_comm_case *first = &cases[case_idx[0]];
    const int num_ops = first->ops[EP_OP_DISPATCH] + first->ops[EP_OP_COMBINE];
    if (part != NULL) {
        status = build(&l, cases, case_idx, num_idx);
    }
    EP_TRY(ep_comm_agree(session->world, status));
    int64_t num = l.num; /* the same on all, but on those that stand aside */
    EP_TRY(ep_comm_max_i64(session->world, &num, 1));
    for (int op = 0; op < EP_NUM_OPS; op++) {
        if (!first->ops[op]) {
            continue;
        }
        l.op = (enum ep_op)op;
        for (int64_t i = 0; i < num; i++) {
            ep_record_init(&records[i], EP_RECORD_COMM);
        }
        if (part != NULL) {
            status = measure_op(&l, effort, effort->visit_s * (double)num_idx / num_ops, visit_idx,
                                records, table);
        }
        status = ep_comm_agree(session->world, status);
        for (int64_t i = 0; i < num; i++) {
            int64_t was_measured = part != NULL && takes_part(&l, l.items[i]);
            if (status == EP_OK) {
                status = ep_comm_max_i64(session->world, &was_measured, 1);
            }
            if (status == EP_OK && was_measured) {
                status = ep_session_add_record(session, &records[i]);
            }
        }
        for (int64_t i = 0; i < num; i++) {
            ep_record_fini(&records[i]);
        }
        EP_TRY(status);
    }
out:
    fini(&l);
    return status;
}

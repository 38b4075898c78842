/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which cases are visited, and on which ranks. */
#include "bench/comm_visits.h"

#include "base/random.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PARTS = 192 };

/* Communicators by (ranks, algorithm), made when first asked for. */
struct parts {
    struct {
        int64_t num_ranks;
        const char *algorithm;
        struct ep_comm *comm; /* NULL on ranks that stand aside */
    } items[MAX_PARTS];
    int64_t num;
};

static enum ep_status find_part(struct parts *parts, struct ep_session *session,
                                const struct ep_comm_case *point, int64_t num_ranks,
                                struct ep_comm **part)
{
    enum ep_status status = EP_OK;
    struct ep_comm *some = NULL;
    const char *algorithm = /* of MPI */
        ep_transport_has_way(point->transport, point->algorithm) ? "default" : point->algorithm;
    for (int64_t i = 0; i < parts->num; i++) {
        if (parts->items[i].num_ranks == num_ranks &&
            strcmp(parts->items[i].algorithm, algorithm) == 0) {
            *part = parts->items[i].comm;
            return EP_OK;
        }
    }
    EP_ASSERT(parts->num < MAX_PARTS);
    struct ep_comm *forced = NULL;
    status = ep_comm_create_part(session->world, (int)num_ranks, point->spread, &some);
    if (some != NULL) {
        status = ep_comm_create_forced(some, algorithm, &forced);
    }
    EP_TRY(ep_comm_agree(session->world, status));
    parts->items[parts->num].num_ranks = num_ranks;
    parts->items[parts->num].algorithm = algorithm;
    parts->items[parts->num].comm = forced;
    parts->num++;
    *part = forced;
out:
    ep_comm_destroy(some);
    return status;
}

/* Time left, the same on all ranks; HUGE_VAL without a budget. */
static enum ep_status time_left(const struct ep_comm_visits *v, struct ep_session *session,
                                double start_s, double *left_s)
{
    double spent_s = ep_comm_now_s() - start_s;
    const enum ep_status status = ep_comm_max_f64(session->world, &spent_s, 1);
    *left_s = v->budget_s > 0 ? v->budget_s - spent_s : HUGE_VAL;
    return status;
}

static enum ep_status visit_one(const struct ep_comm_visits *v, struct ep_session *session,
                                struct parts *parts, int64_t idx, int64_t visit, double visit_s)
{
    enum ep_status status = EP_OK;
    struct ep_comm *part = NULL;
    const struct ep_comm_case *point = &v->cases[idx];
    struct ep_comm_effort effort = v->effort;
    effort.visit_s = visit_s;
    EP_TRY(ep_session_probe_distance(session));
    EP_TRY(find_part(parts, session, point, point->num_ranks * v->groups, &part));
    status = v->visit(v->ctx, session, part, idx, &effort, visit);
    if (status == EP_ENOMEM || status == EP_EENV) { /* too large, or a transport that cannot run here */
        ep_session_skip(session, status == EP_ENOMEM ? "no-memory" : "unavailable",
                        "%s, %s, top-k %" PRId64 ", %" PRId64 " tokens: %s",
                        point->transport->name, point->skew->text, point->top_k, point->tokens,
                        ep_error_text());
        ep_error_clear();
        status = EP_OK;
    }
out:
    return status;
}

static void show_progress(const struct ep_comm_visits *v, struct ep_session *session, int64_t done,
                          int64_t total, double start_s)
{
    if (!ep_comm_is_root(session->world) || !isatty(STDERR_FILENO)) {
        return;
    }
    const double left_s = (ep_comm_now_s() - start_s) / (double)done * (double)(total - done);
    fprintf(stderr, "\r%s: %" PRId64 " of %" PRId64 " visits, %.0f s left   %s", v->name, done,
            total, left_s, done == total ? "\n" : "");
}

/* One round over all cases. *done of all `total` visits are behind. */
static enum ep_status visit_round(const struct ep_comm_visits *v, struct ep_session *session,
                                  struct parts *parts, const int64_t *order, int64_t visit,
                                  double start_s, int64_t *done, bool *interrupted)
{
    enum ep_status status = EP_OK;
    const int64_t total = v->num_cases * v->num_visits;
    for (int64_t i = 0; i < v->num_cases && !*interrupted; i++) {
        double left_s = 0;
        bool done_before = false;
        EP_TRY(v->is_done(v->ctx, session, order[i], visit, &done_before));
        if (done_before) {
            ++*done;
            continue;
        }
        EP_TRY(time_left(v, session, start_s, &left_s));
        EP_TRY(ep_session_interrupted(session, interrupted));
        if (*interrupted) {
            ep_session_skip(session, "interrupted", "%" PRId64 " of %" PRId64 " visits of "
                            "%s are left out", total - *done, total, v->name);
        } else if (left_s <= 0) {
            const struct ep_comm_case *point = &v->cases[order[i]];
            ep_session_skip(session, "over-budget",
                            "visit %" PRId64 " of %s, %s, top-k %" PRId64 ", %" PRId64 " tokens",
                            visit + 1, point->transport->name, point->skew->text, point->top_k,
                            point->tokens);
        } else {
            /* Setting up and checking take about as long as measuring: plan for half. */
            const double share_s = left_s / (double)(total - *done) / 2;
            const double visit_s = share_s < v->case_s ? share_s : v->case_s;
            EP_TRY(visit_one(v, session, parts, order[i], visit, visit_s));
            show_progress(v, session, ++*done, total, start_s);
        }
    }
out:
    return status;
}

enum ep_status ep_comm_visits_run(const struct ep_comm_visits *v, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    struct parts parts = {.num = 0};
    const double start_s = ep_comm_now_s();
    int64_t done = 0;
    bool interrupted = false;
    int64_t *order = calloc((size_t)v->num_cases + 1, sizeof *order);
    status = order == NULL ? ep_error_set(EP_ENOMEM, "no memory for the order of cases") : EP_OK;
    EP_TRY(ep_comm_agree(session->world, status));
    for (int64_t visit = 0; visit < v->num_visits && !interrupted; visit++) {
        struct ep_random random;
        ep_random_init(&random, session->options.seed, EP_RANDOM_ORDER,
                       (uint64_t)(visit + 1000 * session->options.launch_idx));
        for (int64_t i = 0; i < v->num_cases; i++) {
            order[i] = i;
        }
        ep_random_shuffle_i64(&random, order, v->num_cases);
        EP_TRY(visit_round(v, session, &parts, order, visit, start_s, &done, &interrupted));
    }
    ep_session_count_visits(session, done, v->num_cases * v->num_visits);
out:
    for (int64_t i = 0; i < parts.num; i++) {
        ep_comm_destroy(parts.items[i].comm);
    }
    free(order);
    return status;
}

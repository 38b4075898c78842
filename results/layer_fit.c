/* SPDX-License-Identifier: Apache-2.0 */
/* Phases of layer records become cases of parts; exchanges go through the ladder as comm records do. */
#include "results/layer_fit.h"

#include "base/file.h"
#include "base/stats.h"
#include "kernels/dtype.h"
#include "kernels/ffn.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double ep_layer_compose(const bool *is_exchange, const double *part_s, int64_t num_parts,
                        int64_t num_ranks)
{
    double *rank_s = calloc((size_t)num_ranks, sizeof *rank_s);
    double latest = 0;
    if (rank_s == NULL) {
        return NAN;
    }
    for (int64_t p = 0; p <= num_parts; p++) {
        latest = 0;
        for (int64_t r = 0; r < num_ranks; r++) {
            latest = isnan(rank_s[r]) ? NAN : fmax(latest, rank_s[r]);
            if (isnan(latest)) {
                free(rank_s);
                return NAN;
            }
        }
        for (int64_t r = 0; r < num_ranks && p < num_parts; r++) {
            rank_s[r] = is_exchange[p] ? latest + part_s[p * num_ranks]
                                       : rank_s[r] + part_s[p * num_ranks + r];
        }
    }
    free(rank_s);
    return latest;
}

/* --- records as the ladder takes them -------------------------------------------------------- */

static bool is_layer(const struct ep_record *r)
{
    return r->kind == EP_RECORD_LAYER && r->ranks > 1 && r->verified != 0 && r->transport != NULL &&
           strcmp(r->transport, "null") != 0;
}

static bool is_usable(const struct ep_record *r)
{
    return is_layer(r) && r->rank_experts.num == r->ranks && r->phases.num > 0;
}

/* A copy that shares the record's texts, of one op with a time, as a comm record that is one piece. */
static struct ep_record as_comm(const struct ep_record *r, char *op, double time_s)
{
    struct ep_record copy = *r;
    copy.kind = EP_RECORD_COMM;
    copy.op = op;
    copy.median_s = time_s;
    copy.phases = (struct ep_record_phases){0};
    return copy;
}

/* What must be equal within a group, beside what the ladder's groups hold equal. */
static char *kind_of_layer(const struct ep_record *r)
{
    return ep_format_new("layer %s %s %s %s-%s P%" PRId64 " tp%" PRId64 " dp%" PRId64 "%s%s", r->op,
                         r->backend, r->activation, r->dtype, r->combine_dtype, r->ranks, r->tp,
                         r->dp, r->remedy != NULL ? " remedy=" : "",
                         r->remedy != NULL ? r->remedy : "");
}

static enum ep_status make_wholes(const struct ep_records *records, struct ep_layer_fit *fit)
{
    enum ep_status status = EP_OK;
    int64_t num_old = 0;
    const size_t room = (size_t)records->num + 1;
    fit->synthetic.items = calloc(room, sizeof *fit->synthetic.items);
    fit->texts = calloc(room, sizeof *fit->texts);
    if (fit->synthetic.items == NULL || fit->texts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for layers");
    }
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        num_old += is_layer(r) && !is_usable(r);
        if (!is_usable(r)) {
            continue;
        }
        char *kind = kind_of_layer(r);
        if (kind == NULL) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for layers"));
        }
        fit->texts[fit->num_texts++] = kind;
        fit->synthetic.items[fit->synthetic.num++] = as_comm(r, kind, r->median_s);
    }
    if (num_old > 0) {
        EP_TRY(ep_record_add_note(&fit->notes, "old-layers",
                                  "%" PRId64 " layer records do not name the rows of each expert "
                                  "(an older epbench): not modelled", num_old));
    }
    if (fit->synthetic.num > 0) {
        EP_TRY(ep_fit_group_records(&fit->synthetic, &fit->wholes));
    }
out:
    return status;
}

/* --- the visits of a group, by case ---------------------------------------------------------- */

/* visits [num_cases][most] of the group's records, in its order of cases; NULL behind the last. */
struct visits {
    const struct ep_record **records;
    int64_t most;
};

static enum ep_status list_visits(const struct ep_records *all, const struct ep_fit_group *g,
                                  const char *kind, struct visits *v)
{
    v->most = 1;
    for (int64_t c = 0; c < g->num_cases; c++) {
        v->most = g->cases[c].num_visits > v->most ? g->cases[c].num_visits : v->most;
    }
    v->records = calloc((size_t)(g->num_cases * v->most) + 1, sizeof *v->records);
    if (v->records == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for visits");
    }
    for (int64_t c = 0; c < g->num_cases; c++) {
        int64_t num = 0;
        for (int64_t i = 0; i < all->num && num < v->most; i++) {
            const struct ep_record *r = &all->items[i];
            char *own = is_usable(r) && strcmp(r->case_name, g->cases[c].case_name) == 0
                            ? kind_of_layer(r) : NULL;
            if (own != NULL && strcmp(own, kind) == 0) {
                v->records[c * v->most + num++] = r;
            }
            free(own);
        }
    }
    return EP_OK;
}

/* Whether all visits have the phases of the first. */
static bool have_same_phases(const struct visits *v, int64_t num_cases)
{
    const struct ep_record *first = v->records[0];
    for (int64_t i = 0; i < num_cases * v->most; i++) {
        const struct ep_record *r = v->records[i];
        if (r != NULL && r->phases.num != first->phases.num) {
            return false;
        }
        for (int64_t p = 0; r != NULL && p < r->phases.num; p++) {
            const struct ep_record_phase *a = &r->phases.items[p], *b = &first->phases.items[p];
            if (strcmp(a->name, b->name) != 0 || a->rank_median_s.num != r->ranks ||
                (a->rank_wait_s.num > 0) != (b->rank_wait_s.num > 0)) {
                return false;
            }
        }
    }
    return true;
}

/* --- what a rank does in a phase ------------------------------------------------------------- */

enum { MAX_PIECES = 4096 };

static struct ep_ffn_shape shape_of(const struct ep_record *r, int64_t ffn)
{
    struct ep_ffn_shape shape = {.num_groups = 1, .hidden = r->hidden, .ffn = ffn};
    for (int k = 0; k < EP_FFN_NUM_KINDS; k++) {
        if (strcmp(ep_ffn_kind_name((enum ep_ffn_kind)k), r->activation) == 0) {
            shape.kind = (enum ep_ffn_kind)k;
        }
    }
    if (ep_dtype_parse(r->dtype, "dtype", &shape.dtype) != EP_OK) {
        ep_error_clear();
        shape.dtype = EP_BF16;
    }
    return shape;
}

static int64_t rank_tokens(const struct ep_record *r, int64_t rank)
{
    const int64_t size = r->ranks / (r->tp * r->dp);
    const int64_t at = rank / r->tp % size;
    return at < r->tokens_per_rank.num ? r->tokens_per_rank.items[at] : r->tokens;
}

static const int64_t *rank_expert_rows(const struct ep_record *r, int64_t rank)
{
    const int64_t *rows = r->expert_rows.items;
    for (int64_t i = 0; i < rank; i++) {
        rows += r->rank_experts.items[i];
    }
    return rows;
}

static struct ep_work_piece ffn_piece(const struct ep_ffn_shape *shape, int64_t num_rows, bool back)
{
    return back ? (struct ep_work_piece){1, ep_ffn_backward_flops(shape, num_rows, false),
                                         ep_ffn_backward_bytes(shape, 1, num_rows, false)}
                : (struct ep_work_piece){1, ep_ffn_flops(shape, num_rows),
                                         ep_ffn_bytes(shape, 1, num_rows)};
}

/* Whether rows (or their gradients) are where experts are, before phase `phase`. */
static bool are_at_experts(const struct ep_record *r, int64_t phase)
{
    bool at_experts = false;
    for (int64_t p = 0; p < phase; p++) {
        const char *name = r->phases.items[p].name;
        const bool is_dispatch = strstr(name, "dispatch-") != NULL;
        const bool is_combine = strstr(name, "combine-") != NULL;
        if (r->phases.items[p].rank_wait_s.num > 0 && strstr(name, "counts") == NULL &&
            (is_dispatch || is_combine)) {
            at_experts = is_dispatch;
        }
    }
    return at_experts;
}

/* Pieces of phase `phase` on a rank; returns how many, at most room. Rows that are copied are those of tokens
 * or those of experts, wherever they are then; read once and written once. */
static int64_t list_pieces(const struct ep_record *r, int64_t phase, int64_t rank, int64_t room,
                           struct ep_work_piece *pieces)
{
    const char *name = r->phases.items[phase].name;
    const bool back = strncmp(name, "back-", 5) == 0;
    const char *step = back ? name + 5 : name;
    const int64_t tokens = rank_tokens(r, rank);
    const int64_t *rows = rank_expert_rows(r, rank);
    int64_t num = 0, arrived = 0;
    for (int64_t e = 0; e < r->rank_experts.items[rank]; e++) {
        arrived += rows[e];
    }
    if (strcmp(step, "route") == 0) {
        const double logits = (double)tokens * (double)r->experts;
        pieces[0] = (struct ep_work_piece){1, 2 * logits * (double)r->hidden, 4 * logits};
        return 1;
    }
    if (strcmp(step, "shared") == 0) {
        const struct ep_ffn_shape shape = shape_of(r, r->shared_ffn / r->tp);
        pieces[0] = ffn_piece(&shape, tokens, back);
        return 1;
    }
    if (strcmp(step, "experts") == 0) {
        const struct ep_ffn_shape shape = shape_of(r, r->ffn / r->tp);
        for (int64_t e = 0; e < r->rank_experts.items[rank] && num < room; e++) {
            if (rows[e] > 0) {
                pieces[num++] = ffn_piece(&shape, rows[e], back);
            }
        }
        return num;
    }
    const bool is_copies = strncmp(step, "dispatch", 8) == 0 || strncmp(step, "combine", 7) == 0;
    const int64_t num_rows =
        are_at_experts(r, phase) ? arrived : tokens * (is_copies ? r->top_k : 1);
    pieces[0] = (struct ep_work_piece){1, 0, 2 * (double)(num_rows * r->row_bytes)};
    return num_rows > 0 ? 1 : 0;
}

/* --- parts ----------------------------------------------------------------------------------- */

/* Median over a case's visits of a rank's time in a phase; without what it waited. */
static double visits_time(const struct ep_record *const *visits, int64_t most, int64_t phase,
                          int64_t rank, double *room)
{
    int64_t num = 0;
    for (int64_t v = 0; v < most && visits[v] != NULL; v++) {
        const struct ep_record_phase *p = &visits[v]->phases.items[phase];
        const double waited = p->rank_wait_s.num > 0 ? p->rank_wait_s.items[rank] : 0;
        room[num++] = p->rank_median_s.items[rank] - waited;
    }
    ep_stats_sort(room, num);
    return ep_stats_median_sorted(room, num);
}

static enum ep_status fit_alone(const struct ep_layer_group *g, const struct visits *v,
                                int64_t phase, const struct ep_fit_options *options,
                                struct ep_layer_part *made)
{
    enum ep_status status = EP_OK;
    struct ep_part *part = &made->part;
    const struct ep_fit_group *whole = g->whole;
    const int64_t num = whole->num_cases * g->num_ranks;
    int64_t most_pieces = 1, used = 0;
    double *room = calloc((size_t)v->most, sizeof *room);
    for (int64_t c = 0; c < whole->num_cases; c++) {
        for (int64_t r = 0; r < g->num_ranks; r++) {
            const int64_t held = v->records[c * v->most]->rank_experts.items[r];
            most_pieces = held > most_pieces ? held : most_pieces;
        }
    }
    most_pieces = most_pieces < MAX_PIECES ? most_pieces : MAX_PIECES;
    part->ranks_active = g->num_ranks;
    part->name = ep_format_new("%s", made->name);
    part->cases = calloc((size_t)num + 1, sizeof *part->cases);
    part->pieces = calloc((size_t)(num * most_pieces) + 1, sizeof *part->pieces);
    if (room == NULL || part->name == NULL || part->cases == NULL || part->pieces == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for phases"));
    }
    part->num_cases = num;
    part->num_folds = whole->num_folds;
    part->num_sizes = whole->num_sizes;
    for (int64_t i = 0; i < num; i++) {
        const int64_t c = i / g->num_ranks, rank = i % g->num_ranks;
        const struct ep_record *const *visits = v->records + c * v->most;
        struct ep_work_piece *pieces = part->pieces + used;
        const int64_t num_pieces = list_pieces(visits[0], phase, rank, most_pieces, pieces);
        used += num_pieces;
        part->cases[i] = (struct ep_part_case){
            .name = whole->cases[c].case_name, .work = {1, pieces, num_pieces},
            .time_s = fmax(visits_time(visits, v->most, phase, rank, room), 1e-9),
            .fold = whole->cases[c].fold};
    }
    EP_TRY(ep_part_fit(part, options));
    made->fitted_s = part->fitted_s;
    made->held_out_s = part->held_out_s;
out:
    free(room);
    return status;
}

/* The rung that is chosen, else the one with the least held-out error, else in sample. */
static const struct ep_fit_rung *best_rung(const struct ep_fit_group *g)
{
    const struct ep_fit_rung *best = ep_fit_chosen(g);
    double least = best != NULL ? 0 : INFINITY;
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        const struct ep_fit_rung *r = &g->rungs[i];
        const double score = isfinite(r->fold_score) ? r->fold_score : r->in_sample.median_ape;
        if (r->is_fitted && score < least) {
            least = score;
            best = r;
        }
    }
    return best;
}

/* As comm records whose whole time is the phase's, without waits, of the slowest rank. */
static enum ep_status fit_exchange(const struct ep_layer_group *g, const struct visits *v,
                                   int64_t phase, const struct ep_fit_options *options,
                                   struct ep_layer_part *made)
{
    enum ep_status status = EP_OK;
    struct ep_records synthetic = {0};
    const int64_t room = g->whole->num_cases * v->most;
    synthetic.items = calloc((size_t)room + 1, sizeof *synthetic.items);
    if (synthetic.items == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for phases"));
    }
    for (int64_t i = 0; i < room; i++) {
        const struct ep_record *r = v->records[i];
        double time_s = 1e-9;
        for (int64_t rank = 0; r != NULL && rank < g->num_ranks; rank++) {
            const struct ep_record_phase *p = &r->phases.items[phase];
            time_s = fmax(time_s, p->rank_median_s.items[rank] - p->rank_wait_s.items[rank]);
        }
        if (r != NULL) {
            synthetic.items[synthetic.num++] = as_comm(r, made->name, time_s);
        }
    }
    EP_TRY(ep_fit_group_records(&synthetic, &made->exchange));
    EP_ASSERT(made->exchange.num_groups == 1 &&
              made->exchange.groups[0].num_cases == g->whole->num_cases);
    made->exchange.groups[0].peak_bytes_per_s = NAN;
    EP_TRY(ep_fit_group_rungs(&made->exchange.groups[0], options));
    const struct ep_fit_rung *rung = best_rung(&made->exchange.groups[0]);
    made->fitted_s = rung != NULL ? rung->fitted_s : NULL;
    made->held_out_s = rung != NULL ? rung->held_out_s : NULL;
    /* Names and texts are the records' own; nothing of the copies is used from here on. */
    for (int64_t c = 0; c < g->whole->num_cases; c++) {
        made->exchange.groups[0].cases[c].record = g->whole->cases[c].record;
    }
    made->exchange.groups[0].record = g->whole->record;
out:
    free(synthetic.items);
    return status;
}

/* --- the whole ------------------------------------------------------------------------------- */

static enum ep_status compose_cases(struct ep_layer_group *g)
{
    const int64_t num_cases = g->whole->num_cases, ranks = g->num_ranks;
    bool *is_exchange = calloc((size_t)g->num_parts + 1, sizeof *is_exchange);
    double *part_s = calloc((size_t)(g->num_parts * ranks) + 1, sizeof *part_s);
    for (int64_t c = 0; is_exchange != NULL && part_s != NULL && c < 2 * num_cases; c++) {
        const bool held_out = c >= num_cases;
        const int64_t at = held_out ? c - num_cases : c;
        for (int64_t p = 0; p < g->num_parts; p++) {
            const struct ep_layer_part *part = &g->parts[p];
            const double *from = held_out ? part->held_out_s : part->fitted_s;
            is_exchange[p] = part->is_exchange;
            for (int64_t r = 0; r < ranks; r++) {
                part_s[p * ranks + r] = from == NULL          ? NAN
                                        : part->is_exchange ? from[at]
                                                            : from[at * ranks + r];
            }
        }
        (held_out ? g->held_out_s : g->fitted_s)[at] =
            ep_layer_compose(is_exchange, part_s, g->num_parts, ranks);
        for (int64_t p = 0; p < g->num_parts && !held_out; p++) {
            double most = 0;
            for (int64_t r = 0; r < ranks; r++) {
                most = fmax(most, part_s[p * ranks + r]);
            }
            g->parts[p].share += most / g->fitted_s[at] / (double)num_cases;
        }
    }
    const bool done = is_exchange != NULL && part_s != NULL;
    free(is_exchange);
    free(part_s);
    return done ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for layers");
}

/* Of intervals made from the errors of the other folds, the share that holds the measured time. */
static enum ep_status find_coverage(const struct ep_layer_group *g, const double *measured_s,
                                    double level, double *coverage)
{
    enum ep_status status = EP_OK;
    const struct ep_fit_group *whole = g->whole;
    int64_t inside = 0, known = 0;
    double *others_s = calloc((size_t)whole->num_cases + 1, sizeof *others_s);
    *coverage = NAN;
    if (others_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for intervals");
    }
    for (int64_t fold = 0; fold < whole->num_folds; fold++) {
        double half_width = NAN;
        for (int64_t c = 0; c < whole->num_cases; c++) {
            others_s[c] = whole->cases[c].fold != fold ? g->held_out_s[c] : NAN;
        }
        EP_TRY(ep_part_half_width(measured_s, others_s, whole->num_cases, level, &half_width));
        for (int64_t c = 0; c < whole->num_cases && isfinite(half_width); c++) {
            if (whole->cases[c].fold == fold && isfinite(g->held_out_s[c])) {
                known++;
                inside += fabs(measured_s[c] / g->held_out_s[c] - 1) <= half_width;
            }
        }
    }
    *coverage = known > 0 ? (double)inside / (double)known : NAN;
out:
    free(others_s);
    return status;
}

static enum ep_status score_whole(const struct ep_fit_options *options, struct ep_layer_group *g)
{
    enum ep_status status = EP_OK;
    const int64_t num = g->whole->num_cases;
    double *measured_s = calloc((size_t)num + 1, sizeof *measured_s);
    g->fitted_s = calloc((size_t)num + 1, sizeof *g->fitted_s);
    g->held_out_s = calloc((size_t)num + 1, sizeof *g->held_out_s);
    if (measured_s == NULL || g->fitted_s == NULL || g->held_out_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for layers"));
    }
    for (int64_t c = 0; c < num; c++) {
        measured_s[c] = g->whole->cases[c].time_s;
    }
    EP_TRY(compose_cases(g));
    EP_TRY(ep_part_score(measured_s, g->fitted_s, num, &g->in_sample));
    EP_TRY(ep_part_score(measured_s, g->held_out_s, num, &g->held_out));
    EP_TRY(ep_part_half_width(measured_s, g->held_out_s, num, options->level, &g->half_width));
    EP_TRY(find_coverage(g, measured_s, options->level, &g->coverage));
out:
    free(measured_s);
    return status;
}

/* A part's time on a case (and rank) of another group. */
static double part_time(const struct ep_layer_part *part, const struct ep_layer_part *fresh, int64_t at)
{
    const struct ep_fit_rung *rung = part->is_exchange ? best_rung(&part->exchange.groups[0]) : NULL;
    if (!part->is_exchange) {
        return ep_roofline_time(part->part.form, part->part.coefficients, &fresh->part.cases[at].work);
    }
    return rung == NULL ? NAN
                        : ep_rung_predict(&rung->form, &fresh->exchange.groups[0].cases[at].model,
                                          rung->coefficients);
}

enum ep_status ep_layer_fit_predict(const struct ep_layer_group *group,
                                    const struct ep_layer_group *fresh, double *predicted_s)
{
    enum ep_status status = EP_OK;
    const int64_t ranks = group->num_ranks, num_parts = group->num_parts;
    bool *is_exchange = calloc((size_t)num_parts + 1, sizeof *is_exchange);
    double *part_s = calloc((size_t)(num_parts * ranks) + 1, sizeof *part_s);
    if (is_exchange == NULL || part_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for layers"));
    }
    bool same = fresh->num_ranks == ranks && fresh->num_parts == num_parts;
    for (int64_t p = 0; p < num_parts && same; p++) {
        is_exchange[p] = group->parts[p].is_exchange;
        same = strcmp(group->parts[p].name, fresh->parts[p].name) == 0 &&
               fresh->parts[p].is_exchange == is_exchange[p];
    }
    if (!same) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: the two runs have other phases", group->name));
    }
    for (int64_t c = 0; c < fresh->whole->num_cases; c++) {
        for (int64_t p = 0; p < num_parts; p++) {
            for (int64_t r = 0; r < ranks; r++) {
                part_s[p * ranks + r] = part_time(&group->parts[p], &fresh->parts[p],
                                                  is_exchange[p] ? c : c * ranks + r);
            }
        }
        predicted_s[c] = ep_layer_compose(is_exchange, part_s, num_parts, ranks);
    }
out:
    free(is_exchange);
    free(part_s);
    return status;
}

static enum ep_status fit_group(const struct ep_records *records,
                                const struct ep_fit_options *options, struct ep_fit_group *whole,
                                struct ep_layer_fit *fit)
{
    enum ep_status status = EP_OK;
    struct visits v = {0};
    struct ep_layer_group *g = &fit->groups[fit->num_groups];
    g->whole = whole;
    g->num_ranks = whole->record->ranks;
    EP_TRY(list_visits(records, whole, whole->record->op, &v));
    if (!have_same_phases(&v, whole->num_cases)) {
        EP_TRY(ep_record_add_note(&fit->notes, "other-phases",
                                  "%s: its records have different phases: not modelled",
                                  whole->name));
        goto out;
    }
    fit->num_groups++;
    const struct ep_record *first = v.records[0];
    g->name = ep_format_new("%s", whole->name);
    g->parts = calloc((size_t)first->phases.num, sizeof *g->parts);
    if (g->name == NULL || g->parts == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for layers"));
    }
    for (int64_t p = 0; p < first->phases.num; p++) {
        struct ep_layer_part *part = &g->parts[g->num_parts];
        part->name = ep_format_new("%s", first->phases.items[p].name);
        part->is_exchange = first->phases.items[p].rank_wait_s.num > 0;
        if (part->name == NULL) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for layers"));
        }
        g->num_parts++;
        EP_TRY(part->is_exchange ? fit_exchange(g, &v, p, options, part)
                                 : fit_alone(g, &v, p, options, part));
    }
    EP_TRY(score_whole(options, g));
out:
    free(v.records);
    return status;
}

enum ep_status ep_layer_fit_records(const struct ep_records *records,
                                    const struct ep_fit_options *options, struct ep_layer_fit *fit)
{
    enum ep_status status = EP_OK;
    struct ep_fit_options without = *options; /* only times are needed of parts */
    without.num_bootstraps = 0;
    *fit = (struct ep_layer_fit){0};
    EP_TRY(make_wholes(records, fit));
    fit->groups = calloc((size_t)fit->wholes.num_groups + 1, sizeof *fit->groups);
    if (fit->groups == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for layers"));
    }
    for (int64_t i = 0; i < fit->wholes.num_groups; i++) {
        EP_TRY(fit_group(records, &without, &fit->wholes.groups[i], fit));
    }
out:
    if (status != EP_OK) {
        ep_layer_fit_fini(fit);
    }
    return status;
}

void ep_layer_fit_fini(struct ep_layer_fit *fit)
{
    for (int64_t i = 0; i < fit->num_groups; i++) {
        struct ep_layer_group *g = &fit->groups[i];
        for (int64_t p = 0; p < g->num_parts; p++) {
            ep_part_fini(&g->parts[p].part);
            ep_fit_fini(&g->parts[p].exchange);
            free(g->parts[p].name);
        }
        free(g->parts);
        free(g->name);
        free(g->fitted_s);
        free(g->held_out_s);
    }
    for (int64_t i = 0; i < fit->num_texts; i++) {
        free(fit->texts[i]);
    }
    for (int64_t i = 0; i < fit->notes.num; i++) {
        free(fit->notes.items[i].name);
        free(fit->notes.items[i].text);
    }
    ep_fit_fini(&fit->wholes);
    free(fit->groups);
    free(fit->texts);
    free(fit->synthetic.items);
    free(fit->notes.items);
    *fit = (struct ep_layer_fit){0};
}

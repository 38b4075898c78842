/* SPDX-License-Identifier: Apache-2.0 */
/* Optimal segmentation of times over sizes, and the number of pieces. */
#include "results/pieces.h"

#include "base/random.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum { MAX_POINTS = 20000 };

void ep_pieces_options_default(struct ep_pieces_options *options)
{
    *options = (struct ep_pieces_options){
        .max_pieces = 8, .min_points = 5, .num_folds = 10, .seed = 1};
}

/* --- one line -------------------------------------------------------------------------------- */

/* Sums over points from the first of a piece, weight w = 1 / time^2; u = size - first size, so that
 * nothing cancels where sizes are large and close. */
struct sums {
    double w, wu, wuu, wy, wuy;
    int64_t num;
};

static void add_point(struct sums *s, double u, double time_s)
{
    const double w = 1 / (time_s * time_s);
    s->w += w;
    s->wu += w * u;
    s->wuu += w * u * u;
    s->wy += w * time_s;
    s->wuy += w * u * time_s;
    s->num++;
}

/* Sum of squared relative errors of time = level + slope u; sum of w time^2 is the number of points. */
static double loss_of(const struct sums *s, double level, double slope)
{
    const double loss = (double)s->num - 2 * (level * s->wy + slope * s->wuy) +
                        level * level * s->w + 2 * level * slope * s->wu + slope * slope * s->wuu;
    return fmax(loss, 0);
}

/* The best line with slope >= 0 and latency = level - slope first >= 0. The problem is convex in two
 * unknowns: where the free optimum is outside, the answer is the better of the two edges. */
static double fit_line(const struct sums *s, double first, double *latency, double *slope)
{
    const double determinant = s->w * s->wuu - s->wu * s->wu;
    if (determinant > 1e-12 * s->w * s->wuu) {
        const double b = (s->w * s->wuy - s->wu * s->wy) / determinant;
        const double level = (s->wy - b * s->wu) / s->w;
        if (b >= 0 && level - b * first >= 0) {
            *slope = b;
            *latency = level - b * first;
            return loss_of(s, level, b);
        }
    }
    const double flat = s->wy / s->w;
    const double flat_loss = loss_of(s, flat, 0);
    /* Through the origin: time = slope size. */
    const double wxx = s->wuu + 2 * first * s->wu + first * first * s->w;
    const double wxy = s->wuy + first * s->wy;
    const double steep = wxx > 0 ? wxy / wxx : 0;
    const double steep_loss = loss_of(s, steep * first, steep);
    const bool is_flat = flat_loss <= steep_loss;
    *slope = is_flat ? 0 : steep;
    *latency = is_flat ? flat : 0;
    return is_flat ? flat_loss : steep_loss;
}

/* --- all cuts --------------------------------------------------------------------------------- */

/* Best cuts for every number of pieces up to a limit. */
struct cuts {
    int max_pieces;
    int64_t num;   /* points */
    double *loss;  /* [max_pieces + 1][num + 1] least loss of the first i points in k pieces */
    int64_t *from; /* [max_pieces + 1][num + 1] where its last piece starts */
};

static void fini_cuts(struct cuts *c)
{
    free(c->loss);
    free(c->from);
}

/* May a piece start at point i (> 0)? */
static bool is_boundary(const struct ep_pieces_points *p, const struct ep_pieces_options *o,
                        int64_t i)
{
    if (o->limits == NULL) {
        return true;
    }
    for (int l = 0; l < o->num_limits; l++) {
        if (p->size_bytes[i - 1] <= o->limits[l] && o->limits[l] < p->size_bytes[i]) {
            return true;
        }
    }
    return false;
}

static enum ep_status find_cuts(const struct ep_pieces_points *p,
                                const struct ep_pieces_options *o, int max_pieces, struct cuts *c)
{
    const int64_t width = p->num + 1;
    const size_t cells = (size_t)(max_pieces + 1) * (size_t)width;
    *c = (struct cuts){.max_pieces = max_pieces,
                       .num = p->num,
                       .loss = malloc(cells * sizeof *c->loss),
                       .from = calloc(cells, sizeof *c->from)};
    if (c->loss == NULL || c->from == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to cut %" PRId64 " sizes into pieces", p->num);
    }
    for (size_t i = 0; i < cells; i++) {
        c->loss[i] = INFINITY;
    }
    c->loss[0] = 0;
    /* Starts in rising order: when a piece starts at i, all best cuts that end at i are known. */
    for (int64_t i = 0; i < p->num; i++) {
        if (i > 0 && !is_boundary(p, o, i)) {
            continue;
        }
        struct sums s = {0};
        for (int64_t end = i + 1; end <= p->num; end++) {
            double latency, slope;
            add_point(&s, p->size_bytes[end - 1] - p->size_bytes[i], p->time_s[end - 1]);
            if (end - i < o->min_points) {
                continue;
            }
            const double loss = fit_line(&s, p->size_bytes[i], &latency, &slope);
            for (int k = 1; k <= max_pieces; k++) {
                const double total = c->loss[(k - 1) * width + i] + loss;
                if (total < c->loss[k * width + end]) {
                    c->loss[k * width + end] = total;
                    c->from[k * width + end] = i;
                }
            }
        }
    }
    return EP_OK;
}

static double end_of(const struct ep_pieces_options *o, double last, double next)
{
    for (int l = 0; l < o->num_limits; l++) {
        if (last <= o->limits[l] && o->limits[l] < next) {
            return o->limits[l];
        }
    }
    return last > 0 ? sqrt(last * next) : next / 2;
}

/* The pieces of the best cut into `num_pieces`, or into the most that there can be. */
static void read_cuts(const struct ep_pieces_points *p, const struct ep_pieces_options *o,
                      const struct cuts *c, int num_pieces, struct ep_pieces *pieces)
{
    const int64_t width = c->num + 1;
    int k = num_pieces;
    while (k > 1 && !isfinite(c->loss[k * width + c->num])) {
        k--;
    }
    *pieces = (struct ep_pieces){
        .num = k, .relative_rms = sqrt(c->loss[k * width + c->num] / (double)c->num)};
    int64_t end = c->num;
    for (; k > 0; k--) {
        const int64_t first = c->from[k * width + end];
        struct ep_piece *piece = &pieces->pieces[k - 1];
        struct sums s = {0};
        for (int64_t i = first; i < end; i++) {
            add_point(&s, p->size_bytes[i] - p->size_bytes[first], p->time_s[i]);
        }
        fit_line(&s, p->size_bytes[first], &piece->latency_s, &piece->s_per_byte);
        piece->num_points = end - first;
        piece->first_bytes = p->size_bytes[first];
        piece->last_bytes = p->size_bytes[end - 1];
        piece->end_bytes = end == c->num
                               ? INFINITY
                               : end_of(o, p->size_bytes[end - 1], p->size_bytes[end]);
        end = first;
    }
}

static enum ep_status check_points(const struct ep_pieces_points *p)
{
    if (p->num < 1 || p->num > MAX_POINTS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " sizes: expected 1 to %d", p->num,
                            (int)MAX_POINTS);
    }
    for (int64_t i = 0; i < p->num; i++) {
        if (!(p->time_s[i] > 0) || !isfinite(p->time_s[i])) {
            return ep_error_set(EP_EINVAL, "time %g s of %g bytes: expected more than 0, finite",
                                p->time_s[i], p->size_bytes[i]);
        }
        if (!(p->size_bytes[i] >= 0) || !isfinite(p->size_bytes[i]) ||
            (i > 0 && p->size_bytes[i] <= p->size_bytes[i - 1])) {
            return ep_error_set(EP_EINVAL, "size %g bytes: expected sizes that rise from 0 on",
                                p->size_bytes[i]);
        }
    }
    return EP_OK;
}

static enum ep_status check_input(const struct ep_pieces_points *p,
                                  const struct ep_pieces_options *o, int num_pieces)
{
    if (num_pieces < 1 || num_pieces > EP_PIECES_MAX) {
        return ep_error_set(EP_EINVAL, "%d pieces: expected 1 to %d", num_pieces,
                            (int)EP_PIECES_MAX);
    }
    if (o->min_points < 2 || p->num < o->min_points) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " sizes, at least %" PRId64 " in a piece: "
                            "expected at least 2, and as many sizes", p->num, o->min_points);
    }
    for (int l = 1; l < o->num_limits; l++) {
        if (!(o->limits[l] > o->limits[l - 1])) {
            return ep_error_set(EP_EINVAL, "limit %g bytes: expected limits that rise",
                                o->limits[l]);
        }
    }
    return check_points(p);
}

enum ep_status ep_pieces_fit(const struct ep_pieces_points *points,
                             const struct ep_pieces_options *options, int num_pieces,
                             struct ep_pieces *pieces)
{
    enum ep_status status;
    struct cuts cuts = {0};
    EP_TRY(check_input(points, options, num_pieces));
    EP_TRY(find_cuts(points, options, num_pieces, &cuts));
    read_cuts(points, options, &cuts, num_pieces, pieces);
out:
    fini_cuts(&cuts);
    return status;
}

double ep_pieces_predict(const struct ep_pieces *pieces, double size_bytes)
{
    int i = 0;
    while (size_bytes > pieces->pieces[i].end_bytes) {
        i++;
    }
    return pieces->pieces[i].latency_s + pieces->pieces[i].s_per_byte * size_bytes;
}

/* --- how many -------------------------------------------------------------------------------- */

/* A copy of points without one fold. */
struct training {
    double *size_bytes, *time_s;
    struct ep_pieces_points points;
};

static void fini_training(struct training *t)
{
    free(t->size_bytes);
    free(t->time_s);
}

static enum ep_status leave_out(const struct ep_pieces_points *p, const int *fold, int left_out,
                                struct training *t)
{
    int64_t num = 0;
    t->size_bytes = malloc((size_t)p->num * sizeof *t->size_bytes);
    t->time_s = malloc((size_t)p->num * sizeof *t->time_s);
    if (t->size_bytes == NULL || t->time_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a fold");
    }
    for (int64_t i = 0; i < p->num; i++) {
        if (fold[i] != left_out) {
            t->size_bytes[num] = p->size_bytes[i];
            t->time_s[num++] = p->time_s[i];
        }
    }
    t->points = (struct ep_pieces_points){t->size_bytes, t->time_s, num};
    return EP_OK;
}

/* Each point's fold: shuffled, as equal as can be. */
static enum ep_status draw_folds(int64_t num, int num_folds, uint64_t seed, int *fold)
{
    int64_t *order = malloc((size_t)num * sizeof *order);
    struct ep_random random;
    if (order == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for folds");
    }
    for (int64_t i = 0; i < num; i++) {
        order[i] = i;
    }
    ep_random_init(&random, seed, EP_RANDOM_ORDER, (uint64_t)num);
    ep_random_shuffle_i64(&random, order, num);
    for (int64_t i = 0; i < num; i++) {
        fold[order[i]] = (int)(i % num_folds);
    }
    free(order);
    return EP_OK;
}

/* Mean |time - predicted| / time over one fold. */
static double error_of(const struct ep_pieces_points *p, const int *fold, int which,
                       const struct ep_pieces *pieces, int64_t *num)
{
    double sum = 0;
    *num = 0;
    for (int64_t i = 0; i < p->num; i++) {
        if (fold[i] == which) {
            sum += fabs(1 - ep_pieces_predict(pieces, p->size_bytes[i]) / p->time_s[i]);
            ++*num;
        }
    }
    return sum / (double)*num;
}

/* Errors and standard errors of 1 to max_pieces pieces. Every fold's cuts serve all numbers. */
static enum ep_status cross_validate(const struct ep_pieces_points *p,
                                     const struct ep_pieces_options *o, const int *fold,
                                     struct ep_pieces_choice *choice)
{
    enum ep_status status = EP_OK;
    struct training t = {0};
    struct cuts cuts = {0};
    double sum[EP_PIECES_MAX] = {0}, squares[EP_PIECES_MAX] = {0};
    const int folds = o->num_folds;
    for (int f = 0; f < folds; f++) {
        EP_TRY(leave_out(p, fold, f, &t));
        EP_TRY(find_cuts(&t.points, o, o->max_pieces, &cuts));
        for (int k = 0; k < o->max_pieces; k++) {
            struct ep_pieces pieces;
            int64_t num;
            read_cuts(&t.points, o, &cuts, k + 1, &pieces);
            const double error = error_of(p, fold, f, &pieces, &num);
            sum[k] += error;
            squares[k] += error * error;
        }
        fini_training(&t);
        fini_cuts(&cuts);
        t = (struct training){0};
        cuts = (struct cuts){0};
    }
    choice->max_pieces = o->max_pieces;
    for (int k = 0; k < o->max_pieces; k++) {
        const double mean = sum[k] / folds;
        const double variance = fmax(squares[k] / folds - mean * mean, 0) * folds / (folds - 1);
        choice->error[k] = mean;
        choice->standard_error[k] = sqrt(variance / folds);
    }
out:
    fini_training(&t);
    fini_cuts(&cuts);
    return status;
}

static int choose_num(const struct ep_pieces_choice *c)
{
    int best = 0;
    for (int k = 1; k < c->max_pieces; k++) {
        best = c->error[k] < c->error[best] ? k : best;
    }
    for (int k = 0; k < best; k++) {
        if (c->error[k] <= c->error[best] + c->standard_error[best]) {
            return k + 1;
        }
    }
    return best + 1;
}

/* Choose within `p` and fit with the choice; choice->held_out_error is left. */
static enum ep_status choose(const struct ep_pieces_points *p, const struct ep_pieces_options *o,
                             struct ep_pieces_choice *choice)
{
    enum ep_status status;
    int *fold = calloc((size_t)p->num, sizeof *fold);
    if (fold == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for folds");
    }
    EP_TRY(draw_folds(p->num, o->num_folds, o->seed, fold));
    EP_TRY(cross_validate(p, o, fold, choice));
    EP_TRY(ep_pieces_fit(p, o, choose_num(choice), &choice->pieces));
out:
    free(fold);
    return status;
}

static bool can_choose(const struct ep_pieces_points *p, const struct ep_pieces_options *o)
{
    const int64_t kept = p->num - (p->num + o->num_folds - 1) / o->num_folds;
    return p->num >= 2 * (int64_t)o->num_folds && kept >= o->min_points;
}

/* Every fold predicted by a choice made without it. */
static enum ep_status hold_out(const struct ep_pieces_points *p,
                               const struct ep_pieces_options *o, double *error)
{
    enum ep_status status;
    struct training t = {0};
    double sum = 0;
    int *fold = calloc((size_t)p->num, sizeof *fold);
    if (fold == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for folds");
    }
    EP_TRY(draw_folds(p->num, o->num_folds, o->seed + 1, fold));
    for (int f = 0; f < o->num_folds; f++) {
        struct ep_pieces_choice inner;
        int64_t num;
        EP_TRY(leave_out(p, fold, f, &t));
        if (!can_choose(&t.points, o)) {
            sum = NAN;
            break;
        }
        EP_TRY(choose(&t.points, o, &inner));
        const double mean = error_of(p, fold, f, &inner.pieces, &num);
        sum += mean * (double)num;
        fini_training(&t);
        t = (struct training){0};
    }
    *error = sum / (double)p->num;
out:
    fini_training(&t);
    free(fold);
    return status;
}

enum ep_status ep_pieces_choose(const struct ep_pieces_points *points,
                                const struct ep_pieces_options *options,
                                struct ep_pieces_choice *choice)
{
    enum ep_status status;
    struct ep_pieces_choice made;
    EP_TRY(check_input(points, options, options->max_pieces));
    if (options->num_folds < 2 || !can_choose(points, options)) {
        EP_TRY(ep_error_set(EP_EINVAL, "%" PRId64 " sizes in %d folds, at least %" PRId64
                            " in a piece: too few to choose the number of pieces",
                            points->num, options->num_folds, options->min_points));
    }
    EP_TRY(choose(points, options, &made));
    EP_TRY(hold_out(points, options, &made.held_out_error));
    *choice = made;
out:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Anchors by forward search and cross-validation. */
#include "results/fit_anchors.h"

#include "results/fit_rung.h"
#include "results/fit_score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CANDIDATES = 64, MIN_SIZES = 4 };

/* Caches and protocols change a bandwidth by far more: by less it is noise that was fitted. */
#define MIN_GAIN 1.25

struct search {
    struct ep_fit_group *g;
    const struct ep_rung *rung;
    bool *all; /* [num_cases] */
    double candidates[MAX_CANDIDATES];
    int num_candidates;
};

static int compare_f64(const void *a, const void *b)
{
    const double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Sizes of the cases, each rounded to a half power of two. */
static void list_candidates(struct search *s)
{
    for (int64_t i = 0; i < s->g->num_cases; i++) {
        const double bytes = s->g->cases[i].model.features.values[EP_FEATURE_H_RANK_BYTES];
        const double size = exp2(round(2 * log2(bytes)) / 2);
        bool seen = !(bytes > 0);
        for (int k = 0; k < s->num_candidates && !seen; k++) {
            seen = s->candidates[k] == size;
        }
        if (!seen && s->num_candidates < MAX_CANDIDATES) {
            s->candidates[s->num_candidates++] = size;
        }
    }
    qsort(s->candidates, (size_t)s->num_candidates, sizeof *s->candidates, compare_f64);
}

static enum ep_status find_loss(const struct search *s, const double *anchors, int num_anchors,
                                double *loss)
{
    enum ep_status status;
    struct ep_rung_form form;
    struct ep_fit_design design;
    double coefficients[EP_RUNG_MAX_COLUMNS];
    ep_rung_form_init(s->rung, anchors, num_anchors, &form);
    status = ep_fit_design_init(&form, s->g->cases, s->g->num_cases, &design);
    if (status == EP_OK) {
        status = ep_fit_subset(&design, s->all, coefficients, loss);
        ep_fit_design_fini(&design);
    }
    return status;
}

/* Mean over folds of the held-out errors, and its standard error. */
static enum ep_status find_score(const struct search *s, const double *anchors, int num_anchors,
                                 double *score, double *error)
{
    enum ep_status status;
    struct ep_fit_rung tried = {.rung = s->rung};
    struct ep_fit_design design = {0};
    tried.held_out_s = calloc((size_t)s->g->num_cases + 1, sizeof *tried.held_out_s);
    if (tried.held_out_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for folds");
    }
    ep_rung_form_init(s->rung, anchors, num_anchors, &tried.form);
    EP_TRY(ep_fit_design_init(&tried.form, s->g->cases, s->g->num_cases, &design));
    EP_TRY(ep_fit_score_folds(s->g, &design, 0.95, &tried));
    *score = tried.fold_score;
    *error = tried.fold_score_se;
out:
    ep_fit_design_fini(&design);
    free(tried.held_out_s);
    return status;
}

/* One more anchor, where it lowers the loss most. anchors [num_anchors + 1], kept ascending. */
static enum ep_status add_anchor(const struct search *s, double *anchors, int num_anchors)
{
    enum ep_status status = EP_OK;
    double best[EP_RUNG_MAX_ANCHORS], least = HUGE_VAL;
    for (int k = 0; k < s->num_candidates; k++) {
        double tried[EP_RUNG_MAX_ANCHORS], loss = 0;
        bool there = false;
        for (int a = 0; a < num_anchors; a++) {
            there = there || anchors[a] == s->candidates[k];
        }
        if (there) {
            continue;
        }
        memcpy(tried, anchors, (size_t)num_anchors * sizeof *tried);
        tried[num_anchors] = s->candidates[k];
        qsort(tried, (size_t)num_anchors + 1, sizeof *tried, compare_f64);
        EP_TRY(find_loss(s, tried, num_anchors + 1, &loss));
        if (loss < least) {
            least = loss;
            memcpy(best, tried, sizeof best);
        }
    }
    memcpy(anchors, best, ((size_t)num_anchors + 1) * sizeof *anchors);
out:
    return status;
}

/* The best two. */
static enum ep_status choose_pair(const struct search *s, double *anchors)
{
    enum ep_status status = EP_OK;
    double least = HUGE_VAL;
    for (int a = 0; a < s->num_candidates; a++) {
        for (int b = a + 1; b < s->num_candidates; b++) {
            const double tried[] = {s->candidates[a], s->candidates[b]};
            double loss = 0;
            EP_TRY(find_loss(s, tried, 2, &loss));
            if (loss < least) {
                least = loss;
                memcpy(anchors, tried, sizeof tried);
            }
        }
    }
out:
    return status;
}

static enum ep_status search_all(struct search *s)
{
    enum ep_status status = EP_OK;
    double anchors[EP_RUNG_MAX_ANCHORS + 1][EP_RUNG_MAX_ANCHORS] = {{0}};
    double score[EP_RUNG_MAX_ANCHORS + 1], error[EP_RUNG_MAX_ANCHORS + 1];
    int most = 1, best = 1;
    for (int num = 1; num <= EP_RUNG_MAX_ANCHORS; num++) {
        if (num > 1 && (s->num_candidates < 2 * num || s->g->num_sizes < MIN_SIZES)) {
            break;
        }
        if (num == 2) {
            EP_TRY(choose_pair(s, anchors[num]));
        } else if (num > 2) {
            memcpy(anchors[num], anchors[num - 1], sizeof anchors[num]);
            EP_TRY(add_anchor(s, anchors[num], num - 1));
        }
        EP_TRY(find_score(s, anchors[num], num, &score[num], &error[num]));
        most = num;
        best = score[num] < score[best] ? num : best;
    }
    const double within = score[best] + (isfinite(error[best]) ? error[best] : 0);
    const double limit = fmax(within, MIN_GAIN * score[best]);
    for (int num = 1; num <= most; num++) {
        if (score[num] <= limit) {
            s->g->num_anchors = num;
            memcpy(s->g->anchors, anchors[num], sizeof s->g->anchors);
            break;
        }
    }
out:
    return status;
}

enum ep_status ep_fit_choose_anchors(struct ep_fit_group *g)
{
    enum ep_status status = EP_OK;
    int m2 = 0;
    struct search s = {.g = g};
    g->num_anchors = 1;
    if (g->num_folds < 2 || g->num_cases < 2 * EP_RUNG_MAX_COLUMNS) {
        return EP_OK;
    }
    EP_TRY(ep_rung_find("M2", &m2));
    s.rung = ep_rung_at(m2);
    s.all = calloc((size_t)g->num_cases, sizeof *s.all);
    if (s.all == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for anchors"));
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        s.all[i] = true;
    }
    list_candidates(&s);
    EP_TRY(search_all(&s));
out:
    free(s.all);
    return status;
}

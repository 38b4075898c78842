/* SPDX-License-Identifier: Apache-2.0 */
/* Loads by domain and their distances. */
#include "kernels/domains.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static const double pi = 3.14159265358979323846;

/* --- loads ----------------------------------------------------------------------------------- */

static enum ep_status copy_cell(const struct ep_counts *counts, const struct ep_counts_cell *cell,
                                int64_t num_experts, struct ep_domain_load *load)
{
    double sum = 0;
    for (int64_t e = 0; e < num_experts; e++) {
        sum += cell->tokens[e];
    }
    if (sum <= 0) {
        return ep_error_set(EP_EINVAL, "%s, layer %" PRId64 ": all counts are 0",
                            counts->domains[cell->domain], cell->layer);
    }
    load->name = counts->domains[cell->domain];
    load->tokens = sum / (double)counts->models[cell->model].top_k;
    load->share = malloc((size_t)num_experts * sizeof *load->share);
    if (load->share == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for loads by domain");
    }
    for (int64_t e = 0; e < num_experts; e++) {
        load->share[e] = cell->tokens[e] / sum;
    }
    return EP_OK;
}

/* The mean of all domains, each weighed the same, behind them. */
static enum ep_status add_mean(struct ep_domains *d)
{
    const int64_t num_experts = d->model->num_experts;
    struct ep_domain_load *mean = &d->loads[d->num_domains];
    mean->name = "mean";
    mean->tokens = (double)NAN;
    mean->share = calloc((size_t)num_experts, sizeof *mean->share);
    if (mean->share == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for loads by domain");
    }
    for (int64_t i = 0; i < d->num_domains; i++) {
        for (int64_t e = 0; e < num_experts; e++) {
            mean->share[e] += d->loads[i].share[e] / (double)d->num_domains;
        }
    }
    return EP_OK;
}

static void find_hottest(int64_t num_experts, struct ep_domain_load *load)
{
    for (int64_t i = 0; i < EP_DOMAINS_HOTTEST; i++) {
        load->hottest[i] = -1;
        for (int32_t e = 0; e < num_experts; e++) {
            bool taken = false;
            for (int64_t j = 0; j < i; j++) {
                taken = taken || load->hottest[j] == e;
            }
            const int32_t best = load->hottest[i];
            if (!taken && (best < 0 || load->share[e] > load->share[best])) {
                load->hottest[i] = e;
            }
        }
    }
}

/* loads: scratch [experts + ranks + nodes]. */
static enum ep_status measure_load(const struct ep_placement *placement, int64_t num_nodes,
                                   int64_t *loads, struct ep_domain_load *load)
{
    enum ep_status status;
    int64_t *experts = loads;
    int64_t *ranks = experts + placement->num_experts;
    int64_t *nodes = ranks + placement->num_ranks;
    for (int64_t i = 0; i < placement->num_ranks + num_nodes; i++) {
        ranks[i] = 0;
    }
    for (int64_t e = 0; e < placement->num_experts; e++) {
        const int32_t *slots = placement->slot_start + e;
        experts[e] = llround(load->share[e] * 0x1p40);
        for (int32_t s = slots[0]; s < slots[1]; s++) {
            const int64_t part = experts[e] / (slots[1] - slots[0]);
            ranks[placement->slot_rank[s]] += part;
            nodes[placement->slot_rank[s] * num_nodes / placement->num_ranks] += part;
        }
    }
    EP_TRY(ep_imbalance_measure(experts, placement->num_experts, &load->expert));
    EP_TRY(ep_imbalance_measure(ranks, placement->num_ranks, &load->rank));
    EP_TRY(ep_imbalance_measure(nodes, num_nodes, &load->node));
    find_hottest(placement->num_experts, load);
out:
    return status;
}

/* --- distances ------------------------------------------------------------------------------- */

static double total_variation(const double *p, const double *q, int64_t num)
{
    double sum = 0;
    for (int64_t e = 0; e < num; e++) {
        sum += fabs(p[e] - q[e]);
    }
    return sum / 2;
}

static double cosine_distance(const double *p, const double *q, int64_t num)
{
    double product = 0;
    double p_square = 0;
    double q_square = 0;
    for (int64_t e = 0; e < num; e++) {
        product += p[e] * q[e];
        p_square += p[e] * p[e];
        q_square += q[e] * q[e];
    }
    return fmax(0, 1 - product / sqrt(p_square * q_square));
}

static enum ep_status fill_distances(struct ep_domains *d)
{
    const int64_t num = d->num_domains;
    const int64_t num_experts = d->model->num_experts;
    const double *mean = d->loads[num].share;
    double tokens = 0;
    double deviations = 0;
    d->total_variation = calloc((size_t)(num * num), sizeof *d->total_variation);
    d->cosine = calloc((size_t)(num * num), sizeof *d->cosine);
    if (d->total_variation == NULL || d->cosine == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for distances of domains");
    }
    for (int64_t i = 0; i < num; i++) {
        const double *p = d->loads[i].share;
        for (int64_t j = 0; j < num; j++) {
            const double *q = d->loads[j].share;
            d->total_variation[i * num + j] = total_variation(p, q, num_experts);
            d->cosine[i * num + j] = i == j ? 0 : cosine_distance(p, q, num_experts);
        }
        d->loads[i].distance_to_mean = total_variation(p, mean, num_experts);
        tokens += d->loads[i].tokens / (double)num;
    }
    for (int64_t e = 0; e < num_experts; e++) {
        deviations += sqrt(mean[e] * (1 - mean[e]));
    }
    const double copies = tokens * (double)d->model->top_k;
    d->by_chance = deviations / 2 * sqrt(2 / copies) * sqrt(2 / pi);
    return EP_OK;
}

/* --- a layer --------------------------------------------------------------------------------- */

static int64_t count_domains(const struct ep_counts *counts, int64_t model, int64_t layer)
{
    int64_t num = 0;
    for (int64_t i = 0; i < counts->num_cells; i++) {
        num += counts->cells[i].model == model && counts->cells[i].layer == layer;
    }
    return num;
}

enum ep_status ep_domains_measure(const struct ep_counts *counts, int64_t model, int64_t layer,
                                  const struct ep_placement *placement, int64_t num_nodes,
                                  struct ep_domains *domains)
{
    enum ep_status status;
    struct ep_domains d = {.model = &counts->models[model], .layer = layer};
    int64_t *scratch = NULL;
    EP_ASSERT(placement->num_experts == d.model->num_experts);
    d.num_domains = count_domains(counts, model, layer);
    if (d.num_domains == 0) {
        return ep_error_set(EP_EINVAL, "%s has no layer %" PRId64, d.model->name, layer);
    }
    d.loads = calloc((size_t)d.num_domains + 1, sizeof *d.loads);
    scratch = malloc((size_t)(placement->num_experts + placement->num_ranks + num_nodes) *
                     sizeof *scratch);
    if (d.loads == NULL || scratch == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for loads by domain");
        goto out;
    }
    int64_t next = 0;
    for (int64_t i = 0; i < counts->num_cells; i++) {
        const struct ep_counts_cell *cell = &counts->cells[i];
        if (cell->model == model && cell->layer == layer) {
            EP_TRY(copy_cell(counts, cell, d.model->num_experts, &d.loads[next++]));
        }
    }
    EP_TRY(add_mean(&d));
    for (int64_t i = 0; i <= d.num_domains; i++) {
        EP_TRY(measure_load(placement, num_nodes, scratch, &d.loads[i]));
    }
    EP_TRY(fill_distances(&d));
    *domains = d;
    d = (struct ep_domains){0};
out:
    free(scratch);
    ep_domains_fini(&d);
    return status;
}

void ep_domains_fini(struct ep_domains *domains)
{
    for (int64_t i = 0; domains->loads != NULL && i <= domains->num_domains; i++) {
        free(domains->loads[i].share);
    }
    free(domains->loads);
    free(domains->total_variation);
    free(domains->cosine);
    *domains = (struct ep_domains){0};
}

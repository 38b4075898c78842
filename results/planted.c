/* SPDX-License-Identifier: Apache-2.0 */
/* Planted laws: designs, message matrices, times with noise. */
#include "results/planted.h"

#include "base/random.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUM_SIZES = 6, ROW_BYTES = 1024, LEAST_ROWS = 64 };

/* Rates such that each term, and each port, rules in some sizes and skews and not in others. */
static const struct ep_planted_design designs[] = {
    {"M0", {4, 8, 16, 0}, 16, 0, {1 / 8e9}, "one host, 8 GB/s"},
    {"M1", {4, 8, 16, 0}, 16, 0, {20e-6, 1 / 8e9}, "one host, 20 us a message, 8 GB/s"},
    {"M2", {4, 8, 16, 0}, 16, 0, {30e-6, 10e-6, 1 / 8e9},
     "one host, 30 us, 10 us a message, 8 GB/s of the busiest rank"},
    {"M3", {8, 16, 32, 0}, 4, 0, {30e-6, 10e-6, 1 / 8e9, 1 / 9e9, 0},
     "hosts of 4 ranks that share a NIC of 9 GB/s, 8 GB/s of a rank"},
    {"M4", {8, 16, 32, 0}, 2, 2, {30e-6, 10e-6, 1 / 8e9, 0, 1 / 10e9, 1 / 14e9, 0},
     "hosts of 2 ranks, 8 GB/s of a rank, NICs of 10 GB/s, 2 hosts a switch, uplinks of 14 GB/s"},
    {"M5s", {4, 8, 16, 0}, 16, 0, {30e-6, 10e-6, 1 / 8e9, 1 / 6e9, 0},
     "one host, 8 GB/s of the busiest rank and 6 GB/s of steps"},
    {"M5", {4, 8, 12, 0}, 4, 0, {20e-6, 1 / 2e9, 30e-6, 1 / 1e9},
     "pairwise on hosts of 4 ranks, 20 us and 2 GB/s inside, 30 us and 1 GB/s between"},
    {"M6", {8, 12, 0, 0}, 4, 0, {30e-6, 10e-6, 1 / 8e9, 1 / 10e9},
     "all messages at once on hosts of 4 ranks, 8 GB/s of a rank, NICs of 10 GB/s"},
};

const struct ep_planted_design *ep_planted_design_at(int idx)
{
    return idx < (int)(sizeof designs / sizeof designs[0]) ? &designs[idx] : NULL;
}

/* --- patterns -------------------------------------------------------------------------------- */

struct layout {
    int64_t ranks;
    int64_t ranks_per_node;
};

static double zipf(const struct layout *l, int64_t i, int64_t j, double exponent)
{
    (void)i;
    return pow((double)(j % l->ranks + 1), -exponent);
}

static double even(const struct layout *l, int64_t i, int64_t j)
{
    (void)l;
    (void)i;
    (void)j;
    return 1;
}

static double mild(const struct layout *l, int64_t i, int64_t j)
{
    return zipf(l, i, j, 0.6);
}

static double steep(const struct layout *l, int64_t i, int64_t j)
{
    return zipf(l, i, j, 1.2);
}

static double hot_first(const struct layout *l, int64_t i, int64_t j)
{
    (void)l;
    (void)i;
    return j == 0 ? 6 : 1;
}

static double hot_last(const struct layout *l, int64_t i, int64_t j)
{
    (void)i;
    return j == l->ranks - 1 ? 3 : 1;
}

static double hot_node(const struct layout *l, int64_t i, int64_t j)
{
    (void)i;
    return j / l->ranks_per_node == 0 ? 5 : 1;
}

static double hot_spread(const struct layout *l, int64_t i, int64_t j)
{
    (void)i;
    return j % l->ranks_per_node == 0 ? 5 : 1;
}

/* Each source has favourites of its own: sums are even, single messages are not. */
static double by_source(const struct layout *l, int64_t i, int64_t j)
{
    return pow((double)((j * 5 + i * 3) % l->ranks + 1), -1.5);
}

/* Most goes to the next rank: one step carries it all. */
static double neighbour(const struct layout *l, int64_t i, int64_t j)
{
    return j == (i + 1) % l->ranks ? 10 : 1;
}

/* Few large messages here and there, in other steps for each source. */
static double scattered(const struct layout *l, int64_t i, int64_t j)
{
    return pow((double)((i * i * 31 + j * 17 + i * j * 7) % l->ranks + 1), -2);
}

static const struct pattern {
    const char *name;
    double (*weight)(const struct layout *l, int64_t i, int64_t j);
} patterns[] = {
    {"even", even},           {"mild", mild},         {"steep", steep},
    {"hot-first", hot_first}, {"hot-last", hot_last}, {"hot-node", hot_node},
    {"hot-spread", hot_spread}, {"by-source", by_source}, {"neighbour", neighbour},
    {"scattered", scattered},
};
enum { NUM_PATTERNS = sizeof patterns / sizeof patterns[0] };

/* --- one record ------------------------------------------------------------------------------ */

static enum ep_status make_matrix(const struct layout *l, const struct pattern *pattern, int64_t rows,
                                  struct ep_model_matrix *m, int64_t *self_bytes)
{
    const int64_t num = l->ranks;
    *m = (struct ep_model_matrix){
        .num_ranks = num,
        .num_nodes = (num + l->ranks_per_node - 1) / l->ranks_per_node,
        .bytes = calloc((size_t)(num * num), sizeof *m->bytes),
        .rank_node = calloc((size_t)num, sizeof *m->rank_node),
    };
    if (m->bytes == NULL || m->rank_node == NULL) {
        ep_model_matrix_fini(m);
        return ep_error_set(EP_ENOMEM, "no memory for a planted matrix");
    }
    for (int64_t i = 0; i < num; i++) {
        double sum = 0;
        m->rank_node[i] = (int32_t)(i / l->ranks_per_node);
        for (int64_t j = 0; j < num; j++) {
            sum += pattern->weight(l, i, j);
        }
        for (int64_t j = 0; j < num; j++) {
            const double bytes =
                ROW_BYTES * round((double)rows * pattern->weight(l, i, j) / sum);
            m->bytes[i * num + j] = i == j ? 0 : bytes;
            *self_bytes += i == j ? (int64_t)bytes : 0;
        }
    }
    return EP_OK;
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Bytes out of and into groups of ranks: ranks, nodes, or the nodes of a switch. */
static void sum_groups(const struct ep_model_matrix *m, int64_t ranks_per_group, int64_t group,
                       int64_t *out, int64_t *in)
{
    *out = *in = 0;
    for (int64_t i = 0; i < m->num_ranks; i++) {
        for (int64_t j = 0; j < m->num_ranks; j++) {
            const bool from = i / ranks_per_group == group, to = j / ranks_per_group == group;
            *out += from && !to ? (int64_t)m->bytes[i * m->num_ranks + j] : 0;
            *in += to && !from ? (int64_t)m->bytes[i * m->num_ranks + j] : 0;
        }
    }
}

static enum ep_status add_ports(const struct ep_model_matrix *m, const char *kind,
                                int64_t ranks_per_group, struct ep_record *r)
{
    enum ep_status status = EP_OK;
    for (int64_t g = 0; g * ranks_per_group < m->num_ranks; g++) {
        int64_t out, in;
        char name[48];
        sum_groups(m, ranks_per_group, g, &out, &in);
        snprintf(name, sizeof name, "%s%" PRId64, kind, g);
        EP_TRY(ep_record_add_port(r, name, kind, "out", out));
        EP_TRY(ep_record_add_port(r, name, kind, "in", in));
    }
out:
    return status;
}

static enum ep_status fill_bytes(const struct ep_planted_design *d, const struct ep_model_matrix *m,
                                 int64_t self_bytes, struct ep_record *r)
{
    enum ep_status status = EP_OK;
    const int64_t num = m->num_ranks;
    int64_t remote = 0, max_out = 0, max_in = 0;
    for (int64_t i = 0; i < num; i++) {
        int64_t out, in;
        sum_groups(m, 1, i, &out, &in);
        remote += out;
        max_out = max_i64(max_out, out);
        max_in = max_i64(max_in, in);
    }
    r->bytes[EP_RECORD_COPIES] = (struct ep_record_bytes){
        .total = remote + self_bytes, .remote = remote, .max_out = max_out, .max_in = max_in};
    r->mean_out_bytes = (double)remote / (double)num;
    r->h_rank_bytes = max_i64(max_out, max_in);
    r->messages_max = num - 1;
    r->step_sum_bytes = 0;
    for (int64_t s = 1; s < num; s++) {
        int64_t most = 0;
        for (int64_t i = 0; i < num; i++) {
            most = max_i64(most, (int64_t)m->bytes[i * num + (i + s) % num]);
        }
        r->step_sum_bytes += most;
    }
    if (m->num_nodes > 1) {
        EP_TRY(add_ports(m, "nic", d->ranks_per_node, r));
    }
    if (d->nodes_per_switch > 0) {
        EP_TRY(add_ports(m, "uplink", d->ranks_per_node * d->nodes_per_switch, r));
    }
out:
    return status;
}

static double gauss(struct ep_random *random)
{
    /* Box and Muller */
    const double u = 1 - ep_random_f64(random);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * ep_random_f64(random));
}

static enum ep_status fill_record(const struct ep_planted_design *d, const struct layout *l,
                                  const struct pattern *pattern, int64_t rows,
                                  struct ep_model_matrix *m, struct ep_record *r)
{
    enum ep_status status = EP_OK;
    int64_t self_bytes = 0;
    EP_TRY(make_matrix(l, pattern, rows, m, &self_bytes));
    EP_TRY(fill_bytes(d, m, self_bytes, r));
    r->ranks = l->ranks;
    r->nodes = m->num_nodes;
    r->ranks_per_node = l->ranks_per_node < l->ranks ? l->ranks_per_node : l->ranks;
    r->threads = 1;
    r->launch_idx = 0;
    r->visit_idx = 0;
    r->tokens = rows;
    r->row_bytes = ROW_BYTES;
    r->verified = 1;
    EP_TRY(ep_record_set_text(&r->case_name, "%s/P%" PRId64 "/t%" PRId64, pattern->name, l->ranks,
                              rows));
    EP_TRY(ep_record_set_text(&r->record_id, "%s", r->case_name));
    EP_TRY(ep_record_set_text(&r->run_id, "planted"));
    EP_TRY(ep_record_set_text(&r->host, "planted"));
    EP_TRY(ep_record_set_text(&r->op, "dispatch"));
    EP_TRY(ep_record_set_text(&r->transport, "planted"));
    EP_TRY(ep_record_set_text(&r->algorithm, "%s", d->rung));
    EP_TRY(ep_record_set_text(&r->skew, "%s", pattern->name));
    EP_TRY(ep_record_set_text(&r->byte_basis, "copies"));
out:
    return status;
}

static enum ep_status find_time(const struct ep_planted_design *d, const struct ep_model_matrix *m,
                                struct ep_random *random, double noise, double outliers,
                                struct ep_record *r)
{
    enum ep_status status;
    struct ep_model_case c = {.matrix = m};
    struct ep_rung_form form;
    int idx = 0;
    EP_TRY(ep_rung_find(d->rung, &idx));
    EP_TRY(ep_model_features_of_record(r, &c.features));
    ep_rung_form_init(ep_rung_at(idx), NULL, 0, &form);
    r->median_s = ep_rung_predict(&form, &c, d->coefficients) * exp(noise * gauss(random));
    /* Both are drawn always, so that a change of one does not move the others. */
    const bool is_outlier = ep_random_f64(random) < outliers;
    const double factor = 2 + 3 * ep_random_f64(random);
    r->median_s *= is_outlier ? factor : 1;
out:
    return status;
}

/* --- all ------------------------------------------------------------------------------------- */

enum ep_status ep_planted_make_records(const struct ep_planted_design *design, uint64_t seed,
                                       double noise, double outliers, struct ep_records *records,
                                       struct ep_model_matrix **matrices)
{
    enum ep_status status = EP_OK;
    const size_t most = (size_t)NUM_PATTERNS * NUM_SIZES * 3;
    struct ep_records made = {.items = calloc(most, sizeof *made.items)};
    struct ep_model_matrix *m = calloc(most, sizeof *m);
    struct ep_random random;
    ep_random_init(&random, seed, EP_RANDOM_PLANTED, 0);
    if (made.items == NULL || m == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for planted records"));
    }
    for (const int64_t *ranks = design->ranks; *ranks != 0; ranks++) {
        const struct layout layout = {*ranks, design->ranks_per_node};
        for (int p = 0; p < NUM_PATTERNS; p++) {
            for (int s = 0; s < NUM_SIZES; s++) {
                struct ep_record *r = &made.items[made.num];
                ep_record_init(r, EP_RECORD_COMM);
                made.num++;
                EP_TRY(fill_record(design, &layout, &patterns[p], (int64_t)LEAST_ROWS << (2 * s),
                                   &m[made.num - 1], r));
                EP_TRY(find_time(design, &m[made.num - 1], &random, noise, outliers, r));
            }
        }
    }
    *records = made;
    *matrices = m;
out:
    if (status != EP_OK) {
        ep_planted_fini(&made, m);
    }
    return status;
}

void ep_planted_fini(struct ep_records *records, struct ep_model_matrix *matrices)
{
    for (int64_t i = 0; matrices != NULL && i < records->num; i++) {
        ep_model_matrix_fini(&matrices[i]);
    }
    free(matrices);
    ep_records_fini(records);
}

void ep_planted_set_matrices(const struct ep_records *records, struct ep_model_matrix *matrices,
                             struct ep_fit *fit)
{
    for (int64_t g = 0; g < fit->num_groups; g++) {
        for (int64_t i = 0; i < fit->groups[g].num_cases; i++) {
            struct ep_fit_case *c = &fit->groups[g].cases[i];
            c->model.matrix = &matrices[c->record - records->items];
        }
    }
}

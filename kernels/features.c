/* SPDX-License-Identifier: Apache-2.0 */
/* Features of a message matrix: sums over ranks, NICs, nodes, steps and levels. */
#include "kernels/features.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Bytes out of and into each member of a group of ranks (a rank, a NIC, a node). */
struct flow {
    int64_t out;
    int64_t in;
};

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t highest(const int32_t *map, int64_t num)
{
    int64_t max = 0;
    for (int64_t i = 0; i < num; i++) {
        EP_ASSERT(map[i] >= 0);
        max = larger(max, map[i]);
    }
    return max;
}

static int64_t node_of(const struct ep_features_config *c, int64_t rank)
{
    return c->rank_node != NULL ? c->rank_node[rank] : 0;
}

static enum ep_status check_sizes(const int64_t *rows, const struct ep_features_config *c)
{
    const int64_t limit = ((int64_t)1 << 62) / larger(c->row_bytes, 1);
    int64_t total = 0;
    for (int64_t i = 0; i < c->num_ranks * c->num_ranks; i++) {
        EP_ASSERT(rows[i] >= 0);
        if (rows[i] > limit - total) {
            return ep_error_set(EP_EINVAL,
                                "rows of %" PRId64 " bytes would exceed 2^62 bytes over all ranks",
                                c->row_bytes);
        }
        total += rows[i];
    }
    return EP_OK;
}

/* max over groups of max(out, in), of what passes between different nodes. */
static enum ep_status find_h(const int64_t *rows, const struct ep_features_config *c,
                             const int32_t *group, int64_t *h_bytes)
{
    struct flow *flows = calloc((size_t)highest(group, c->num_ranks) + 1, sizeof *flows);
    if (flows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for features");
    }
    for (int64_t i = 0; i < c->num_ranks; i++) {
        for (int64_t j = 0; j < c->num_ranks; j++) {
            if (node_of(c, i) != node_of(c, j)) {
                const int64_t bytes = c->row_bytes * rows[i * c->num_ranks + j];
                flows[group[i]].out += bytes;
                flows[group[j]].in += bytes;
            }
        }
    }
    int64_t h = 0;
    for (int64_t i = 0; i < c->num_ranks; i++) {
        h = larger(h, larger(flows[group[i]].out, flows[group[i]].in));
    }
    free(flows);
    *h_bytes = h;
    return EP_OK;
}

static void sum_ranks(const int64_t *rows, const struct ep_features_config *c,
                      struct ep_features *f)
{
    const int64_t n = c->num_ranks;
    for (int64_t i = 0; i < n; i++) {
        int64_t out = 0;
        int64_t in = 0;
        int64_t messages = 0;
        for (int64_t j = 0; j < n; j++) {
            if (j != i) {
                out += c->row_bytes * rows[i * n + j];
                in += c->row_bytes * rows[j * n + i];
                messages += rows[i * n + j] > 0 && c->row_bytes > 0;
            }
        }
        const int64_t self = c->row_bytes * rows[i * n + i];
        f->total_bytes += out + self;
        f->remote_bytes += out;
        f->max_out_bytes = larger(f->max_out_bytes, out);
        f->max_in_bytes = larger(f->max_in_bytes, in);
        f->self_bytes_max = larger(f->self_bytes_max, self);
        f->messages_nonzero_max = larger(f->messages_nonzero_max, messages);
        if (larger(out, in) > f->h_rank_bytes) {
            f->h_rank_bytes = larger(out, in);
            f->busiest_rank = i;
        }
    }
    f->mean_out_bytes = (double)f->remote_bytes / (double)n;
    f->messages_max = n - 1;
}

static int64_t sum_steps(const int64_t *rows, const struct ep_features_config *c)
{
    const int64_t n = c->num_ranks;
    int64_t sum = 0;
    for (int64_t s = 1; s < n; s++) {
        int64_t most = 0;
        for (int64_t i = 0; i < n; i++) {
            most = larger(most, rows[i * n + ep_step_to(c->steps, n, i, s)]);
        }
        sum += c->row_bytes * most;
    }
    return sum;
}

/* Over nodes, of what passes between them. */
static enum ep_status sum_node_steps(const int64_t *rows, const struct ep_features_config *c, int64_t *sum)
{
    const int64_t n = c->num_ranks;
    const int64_t num_nodes = highest(c->rank_node, n) + 1;
    struct flow *flows = calloc((size_t)num_nodes, sizeof *flows);
    if (flows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for features");
    }
    *sum = 0;
    for (int64_t s = 1; s < n; s++) {
        int64_t most = 0;
        memset(flows, 0, (size_t)num_nodes * sizeof *flows);
        for (int64_t i = 0; i < n; i++) {
            const int64_t to = ep_step_to(c->steps, n, i, s);
            if (c->rank_node[i] != c->rank_node[to]) {
                struct flow *from_node = &flows[c->rank_node[i]], *to_node = &flows[c->rank_node[to]];
                from_node->out += c->row_bytes * rows[i * n + to];
                to_node->in += c->row_bytes * rows[i * n + to];
                most = larger(most, larger(from_node->out, to_node->in));
            }
        }
        *sum += most;
    }
    free(flows);
    return EP_OK;
}

/* Rung M5 in bytes, at no latency: rank i sends to its partner (i + s, or i xor s) in step s once both are through
 * with the step before, and is through itself once its receive is: e_i(s) = max(f_i(s-1), f_{i+s}(s-1)) +
 * D[i][i+s], f_i(s) = max(e_i(s), e_{i-s}(s)). Source: results/README.md, "The model". */
static enum ep_status find_schedule(const int64_t *rows, const struct ep_features_config *c,
                                    int64_t *schedule_bytes)
{
    const int64_t n = c->num_ranks;
    int64_t *f = calloc(2 * (size_t)n, sizeof *f);
    if (f == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a schedule");
    }
    int64_t *e = f + n;
    for (int64_t s = 1; s < n; s++) {
        for (int64_t i = 0; i < n; i++) {
            const int64_t to = ep_step_to(c->steps, n, i, s);
            e[i] = larger(f[i], f[to]) + c->row_bytes * rows[i * n + to];
        }
        for (int64_t i = 0; i < n; i++) {
            f[i] = larger(e[i], e[ep_step_from(c->steps, n, i, s)]);
        }
    }
    *schedule_bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        *schedule_bytes = larger(*schedule_bytes, f[i]);
    }
    free(f);
    return EP_OK;
}

static void add_message(struct ep_message_bin *hist, int64_t bytes)
{
    const int bit = 63 - __builtin_clzll((unsigned long long)bytes);
    struct ep_message_bin *bin = &hist[bit < EP_MESSAGE_BINS ? bit : EP_MESSAGE_BINS - 1];
    bin->count++;
    bin->bytes += bytes;
}

/* One rank's messages in and out at each level. */
static void sum_levels(const int64_t *rows, const struct ep_features_config *c, int64_t i,
                       struct flow *flows, int64_t *messages, struct ep_features *f)
{
    const int64_t n = c->num_ranks;
    memset(flows, 0, (size_t)c->num_levels * sizeof *flows);
    memset(messages, 0, (size_t)c->num_levels * sizeof *messages);
    for (int64_t j = 0; j < n; j++) {
        const int64_t out = c->row_bytes * rows[i * n + j];
        const int64_t in = c->row_bytes * rows[j * n + i];
        if (j == i || (out == 0 && in == 0)) {
            continue;
        }
        const int64_t level = c->level(c->context, i, j);
        EP_ASSERT(level >= 0 && level < c->num_levels);
        flows[level].out += out;
        flows[level].in += in;
        messages[level] += out > 0;
        if (i == f->busiest_rank && out > 0) {
            add_message(f->levels[level].hist, out);
        }
    }
    for (int64_t l = 0; l < c->num_levels; l++) {
        struct ep_level_features *level = &f->levels[l];
        level->total_bytes += flows[l].out;
        level->max_out_bytes = larger(level->max_out_bytes, flows[l].out);
        level->max_in_bytes = larger(level->max_in_bytes, flows[l].in);
        level->messages_max = larger(level->messages_max, messages[l]);
    }
}

static enum ep_status fill_levels(const int64_t *rows, const struct ep_features_config *c,
                                  struct ep_features *f)
{
    const size_t num = (size_t)c->num_levels;
    f->num_levels = c->num_levels;
    f->levels = calloc(num, sizeof *f->levels);
    struct flow *flows = calloc(num, sizeof *flows);
    int64_t *messages = calloc(num, sizeof *messages);
    enum ep_status status = EP_OK;
    if (f->levels == NULL || flows == NULL || messages == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for features");
    } else {
        for (int64_t i = 0; i < c->num_ranks; i++) {
            sum_levels(rows, c, i, flows, messages, f);
        }
    }
    free(flows);
    free(messages);
    return status;
}

enum ep_status ep_features_init(const int64_t *rows, const struct ep_features_config *config,
                                struct ep_features *features)
{
    enum ep_status status;
    struct ep_features f = {.h_nic_bytes = -1};
    EP_ASSERT(config->num_ranks >= 1 && config->row_bytes >= 0);
    EP_TRY(check_sizes(rows, config));
    sum_ranks(rows, config, &f);
    f.step_sum_bytes = f.step_port_bytes = sum_steps(rows, config);
    if (config->rank_node != NULL && highest(config->rank_node, config->num_ranks) > 0) {
        EP_TRY(sum_node_steps(rows, config, &f.step_port_bytes));
    }
    EP_TRY(find_schedule(rows, config, &f.schedule_bytes));
    if (config->rank_node != NULL) {
        EP_TRY(find_h(rows, config, config->rank_node, &f.h_node_bytes));
    }
    if (config->rank_nic != NULL) {
        EP_TRY(find_h(rows, config, config->rank_nic, &f.h_nic_bytes));
    }
    for (int64_t j = 0; j < config->num_ranks; j++) {
        const int64_t bytes = config->row_bytes * rows[f.busiest_rank * config->num_ranks + j];
        if (j != f.busiest_rank && bytes > 0) {
            add_message(f.hist, bytes);
        }
    }
    if (config->num_levels > 0) {
        EP_TRY(fill_levels(rows, config, &f));
    }
    *features = f;
    return EP_OK;
out:
    ep_features_fini(&f);
    return status;
}

void ep_features_fini(struct ep_features *features)
{
    free(features->levels);
    *features = (struct ep_features){0};
}

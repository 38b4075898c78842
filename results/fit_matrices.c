/* SPDX-License-Identifier: Apache-2.0 */
/* From traffic/ to matrices of bytes. */
#include "results/fit_matrices.h"

#include "base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Traffic of the routings read so far. */
struct cache {
    const char *routing_id; /* borrowed of a record */
    bool found;
    struct ep_run_traffic traffic;
};

static enum ep_status read_traffic(const char *const *directories, int num_directories,
                                   struct cache *entry)
{
    for (int i = 0; i < num_directories && !entry->found; i++) {
        char *name = ep_format_new("%s/traffic/%s.json", directories[i], entry->routing_id);
        if (name == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for a path");
        }
        const bool there = access(name, R_OK) == 0;
        free(name);
        if (there) {
            const enum ep_status status =
                ep_run_dir_read_traffic(directories[i], entry->routing_id, &entry->traffic);
            if (status != EP_OK) {
                return status;
            }
            entry->found = true;
        }
    }
    return EP_OK;
}

/* Nodes one after the other (packed), or in turn (spread). */
static int32_t node_of(const struct ep_record *r, int64_t rank)
{
    if (r->nodes <= 1) {
        return 0;
    }
    const bool spread = r->rank_order != NULL && strcmp(r->rank_order, "spread") == 0;
    return (int32_t)(spread ? rank % r->nodes : rank / r->ranks_per_node);
}

/* Which lane of which uplink messages take. Records without them, or cut short, have none. */
static enum ep_status fill_lanes(const struct ep_record *r, struct ep_model_matrix *m)
{
    const int64_t num_nodes = m->num_nodes;
    if (r->switch_lanes.num == 0 || r->node_switch.num != num_nodes || r->node_position.num != num_nodes) {
        return EP_OK;
    }
    m->first_lane = calloc((size_t)num_nodes, sizeof *m->first_lane);
    m->lanes = calloc((size_t)num_nodes, sizeof *m->lanes);
    m->node_position = calloc((size_t)num_nodes, sizeof *m->node_position);
    if (m->first_lane == NULL || m->lanes == NULL || m->node_position == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for uplinks");
    }
    for (int64_t n = 0; n < num_nodes; n++) {
        m->first_lane[n] = -1;
        m->node_position[n] = (int32_t)r->node_position.items[n];
    }
    for (int64_t i = 0; i < r->switch_lanes.num; i++) {
        const int64_t lanes = r->switch_lanes.items[i];
        for (int64_t n = 0; n < num_nodes; n++) {
            if (r->node_switch.items[n] == i) {
                m->first_lane[n] = (int32_t)m->num_lanes;
                m->lanes[n] = (int32_t)lanes;
            }
        }
        m->num_lanes += lanes;
    }
    return EP_OK;
}

static enum ep_status check_lanes(const struct ep_record *r)
{
    for (int64_t i = 0; i < r->switch_lanes.num; i++) {
        if (r->switch_lanes.items[i] < 1 || r->switch_lanes.items[i] > INT16_MAX) {
            return ep_error_set(EP_EINVAL, "case '%s': switch_lanes: %" PRId64 " links of a switch, 1 to %d were "
                                "expected", r->case_name, r->switch_lanes.items[i], INT16_MAX);
        }
    }
    for (int64_t i = 0; i < r->node_position.num; i++) {
        if (r->node_position.items[i] > INT32_MAX) {
            return ep_error_set(EP_EINVAL, "case '%s': node_position: %" PRId64 " is no place of a node",
                                r->case_name, r->node_position.items[i]);
        }
    }
    return EP_OK;
}

static bool meets_by_xor(const struct ep_record *r)
{
    return r->exchange_steps != NULL && strcmp(r->exchange_steps, "xor") == 0 &&
           (r->ranks & (r->ranks - 1)) == 0;
}

static enum ep_status make_matrix(const struct ep_record *r, const int64_t *rows,
                                  struct ep_model_matrix *m)
{
    enum ep_status status = EP_OK;
    const int64_t num = r->ranks;
    const bool transpose = strcmp(r->op, "combine") == 0;
    *m = (struct ep_model_matrix){
        .num_ranks = num,
        .num_nodes = r->nodes,
        .bytes = calloc((size_t)(num * num), sizeof *m->bytes),
        .rank_node = calloc((size_t)num, sizeof *m->rank_node),
        .self_bytes = calloc((size_t)num, sizeof *m->self_bytes),
        .steps = meets_by_xor(r) ? EP_STEP_XOR : EP_STEP_SHIFT,
    };
    if (m->bytes == NULL || m->rank_node == NULL || m->self_bytes == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a message matrix"));
    }
    for (int64_t i = 0; i < num; i++) {
        m->rank_node[i] = node_of(r, i);
        for (int64_t j = 0; j < num; j++) {
            const int64_t at = transpose ? j * num + i : i * num + j;
            m->bytes[i * num + j] = i == j ? 0 : (double)rows[at] * (double)r->row_bytes;
        }
        m->self_bytes[i] = (double)rows[i * num + i] * (double)r->row_bytes;
    }
    EP_TRY(check_lanes(r));
    EP_TRY(fill_lanes(r, m));
    EP_TRY(ep_model_matrix_list_steps(m, &m->step_list));
out:
    if (status != EP_OK) {
        ep_model_matrix_fini(m);
    }
    return status;
}

/* The largest of what groups of ranks send or receive; group [P], or NULL: each rank alone. */
static double busiest(const struct ep_model_matrix *m, const int32_t *group)
{
    double most = 0;
    for (int64_t g = 0; g < m->num_ranks; g++) {
        double out = 0, in = 0;
        for (int64_t i = 0; i < m->num_ranks; i++) {
            for (int64_t j = 0; j < m->num_ranks; j++) {
                const int64_t from = group != NULL ? group[i] : i;
                const int64_t to = group != NULL ? group[j] : j;
                const double bytes = from != to ? m->bytes[i * m->num_ranks + j] : 0;
                out += from == g ? bytes : 0;
                in += to == g ? bytes : 0;
            }
        }
        most = fmax(most, fmax(out, in));
    }
    return most;
}

/* Whether this is what the record says was sent. */
static bool is_of_record(const struct ep_model_matrix *m, const struct ep_record *r)
{
    double sum = 0;
    for (int64_t i = 0; i < m->num_ranks * m->num_ranks; i++) {
        sum += m->bytes[i];
    }
    return fabs(sum - r->mean_out_bytes * (double)r->ranks) <= 1e-6 * sum + 0.5 &&
           busiest(m, NULL) == (double)r->h_rank_bytes &&
           (r->nodes <= 1 || r->h_node_bytes < 0 ||
            busiest(m, m->rank_node) == (double)r->h_node_bytes);
}

static enum ep_status fill_case(const struct cache *entry, struct ep_fit_case *c,
                                struct ep_model_matrix *room)
{
    enum ep_record_basis basis;
    struct ep_model_matrix made;
    enum ep_status status = ep_record_basis_find(c->record->byte_basis, &basis);
    if (status != EP_OK || !entry->found || basis == EP_RECORD_NODE_DEDUP ||
        entry->traffic.num_ranks != c->record->ranks || entry->traffic.rows[basis] == NULL) {
        return status;
    }
    status = make_matrix(c->record, entry->traffic.rows[basis], &made);
    if (status != EP_OK) {
        return status;
    }
    if (is_of_record(&made, c->record)) {
        *room = made;
        c->model.matrix = room;
    } else {
        ep_model_matrix_fini(&made);
    }
    return EP_OK;
}

static struct cache *find_entry(struct cache *cache, int64_t *num, const char *routing_id)
{
    for (int64_t i = 0; i < *num; i++) {
        if (strcmp(cache[i].routing_id, routing_id) == 0) {
            return &cache[i];
        }
    }
    cache[*num] = (struct cache){.routing_id = routing_id};
    return &cache[(*num)++];
}

enum ep_status ep_fit_load_matrices(struct ep_fit *fit, const char *const *directories,
                                    int num_directories)
{
    enum ep_status status = EP_OK;
    int64_t num_cases = 0, num_entries = 0;
    for (int64_t g = 0; g < fit->num_groups; g++) {
        num_cases += fit->groups[g].num_cases;
    }
    struct cache *cache = calloc((size_t)num_cases + 1, sizeof *cache);
    fit->matrices = calloc((size_t)num_cases + 1, sizeof *fit->matrices);
    if (cache == NULL || fit->matrices == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for message matrices"));
    }
    for (int64_t g = 0; g < fit->num_groups; g++) {
        for (int64_t i = 0; i < fit->groups[g].num_cases; i++) {
            struct ep_fit_case *c = &fit->groups[g].cases[i];
            const int64_t before = num_entries;
            if (c->record->routing_id == NULL || c->record->byte_basis == NULL) {
                continue;
            }
            struct cache *entry = find_entry(cache, &num_entries, c->record->routing_id);
            if (num_entries > before) {
                EP_TRY(read_traffic(directories, num_directories, entry));
            }
            EP_TRY(fill_case(entry, c, &fit->matrices[fit->num_matrices]));
            fit->num_matrices += c->model.matrix != NULL;
        }
    }
out:
    for (int64_t i = 0; i < num_entries; i++) {
        if (cache[i].found) {
            ep_run_traffic_fini(&cache[i].traffic);
        }
    }
    free(cache);
    return status;
}

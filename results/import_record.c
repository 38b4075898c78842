/* SPDX-License-Identifier: Apache-2.0 */
/* From an imported result to a record: bytes of its matrix, its time, what is known of the machine.
 */
#include "results/import.h"

#include "kernels/features.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char default_host[] = "imported";
static const char default_level[] = "imported";
/* Levels of an exchange as `epbench topo` calls them: inside hosts, and between them. */
static const char *const level_names[] = {"host", "fabric"};

/* --- ranks and nodes ------------------------------------------------------------------------- */

struct place {
    int64_t num_ranks;
    int64_t num_nodes;
    int64_t per_node; /* -1 = not known: taken as one node */
    bool spread;
};

static enum ep_status place_point(const struct ep_import_point *p,
                                  const struct ep_import_options *options, struct place *place)
{
    int64_t num_ranks = p->num_ranks;
    if (p->kind == EP_IMPORT_EXCHANGE && options->num_ranks > 0 && num_ranks > 0 &&
        num_ranks != options->num_ranks) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " ranks; %" PRId64 " were expected (--ranks)",
                            p->where, num_ranks, options->num_ranks);
    }
    num_ranks = num_ranks > 0 ? num_ranks : options->num_ranks;
    if (num_ranks < 1) {
        return ep_error_set(EP_EINVAL, "%s: the text of %s does not tell how many ranks: --ranks N",
                            p->where, p->tool);
    }
    if (p->kind == EP_IMPORT_EXCHANGE && num_ranks > EP_IMPORT_MAX_RANKS) {
        return ep_error_set(EP_EINVAL,
                            "%s: %" PRId64 " ranks; an all-to-all of up to %d can be "
                            "imported",
                            p->where, num_ranks, EP_IMPORT_MAX_RANKS);
    }
    const int64_t per_node = p->ranks_per_node > 0 ? p->ranks_per_node : options->ranks_per_node;
    if (p->ranks_per_node > 0 && options->ranks_per_node > 0 &&
        p->ranks_per_node != options->ranks_per_node) {
        return ep_error_set(EP_EINVAL,
                            "%s: %" PRId64 " ranks a node; %" PRId64 " were expected "
                            "(--ranks-per-node)",
                            p->where, p->ranks_per_node, options->ranks_per_node);
    }
    const int64_t filled = per_node > num_ranks ? num_ranks : per_node;
    if (p->kind == EP_IMPORT_EXCHANGE && filled > 0 && num_ranks % filled != 0) {
        return ep_error_set(EP_EINVAL,
                            "%s: %" PRId64 " ranks are no whole number of nodes of %" PRId64
                            " (--ranks-per-node)",
                            p->where, num_ranks, per_node);
    }
    *place = (struct place){
        .num_ranks = num_ranks,
        .num_nodes = filled > 0 ? (num_ranks + filled - 1) / filled : 1,
        .per_node = filled,
        .spread = p->spread,
    };
    return EP_OK;
}

static int32_t node_of(const struct place *place, int64_t rank)
{
    if (place->num_nodes <= 1) {
        return 0;
    }
    return (int32_t)(place->spread ? rank % place->num_nodes : rank / place->per_node);
}

/* --- bytes ----------------------------------------------------------------------------------- */

/* Rows of one byte from each rank to each. */
static enum ep_status make_rows(const struct ep_import *import, const struct ep_import_point *p,
                                int64_t num_ranks, int64_t **rows)
{
    const size_t pairs = (size_t)(num_ranks * num_ranks);
    if (p->matrix >= 0 && import->matrices[p->matrix].num_ranks != num_ranks) {
        return ep_error_set(EP_EINVAL, "%s: a matrix of %" PRId64 " ranks, but %" PRId64 " ranks",
                            p->where, import->matrices[p->matrix].num_ranks, num_ranks);
    }
    int64_t *made = malloc(pairs * sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the messages of %" PRId64 " ranks",
                            num_ranks);
    }
    for (size_t i = 0; i < pairs; i++) {
        made[i] = p->matrix >= 0 ? import->matrices[p->matrix].bytes[i] : p->size_bytes;
    }
    *rows = made;
    return EP_OK;
}

struct level_context {
    const int32_t *rank_node;
};

static int64_t level_of(void *context, int64_t i, int64_t j)
{
    const struct level_context *c = context;
    return c->rank_node[i] != c->rank_node[j];
}

static enum ep_status fill_levels(const struct ep_features *features, struct ep_record *r)
{
    enum ep_status status = EP_OK;
    for (int64_t l = 0; l < features->num_levels; l++) {
        const struct ep_level_features *level = &features->levels[l];
        struct ep_record_level *item = NULL;
        if (level->total_bytes == 0) {
            continue;
        }
        EP_TRY(ep_record_add_level(r, level_names[l], &item));
        item->total = level->total_bytes;
        item->max_in = level->max_in_bytes;
        item->max_out = level->max_out_bytes;
        item->messages = level->messages_max;
        for (int bin = 0; bin < EP_MESSAGE_BINS; bin++) {
            if (level->hist[bin].count > 0) {
                EP_TRY(ep_record_add_message_bin(r, r->levels.num - 1, bin, level->hist[bin].count,
                                                 level->hist[bin].bytes));
            }
        }
    }
out:
    return status;
}

/* What ranks send and receive, own rows included. */
static enum ep_status fill_tokens(const int64_t *rows, int64_t num, struct ep_record *r,
                                  int64_t *logical_max)
{
    int64_t *sums = calloc(2 * (size_t)num, sizeof *sums);
    int64_t *received = sums != NULL ? sums + num : NULL;
    int64_t most_out = 0, most_in = 0, least_out = INT64_MAX, total = 0;
    if (sums == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the tokens of %" PRId64 " ranks", num);
    }
    for (int64_t i = 0; i < num; i++) { /* line by line: columns lie far apart */
        int64_t out = 0;
        for (int64_t j = 0; j < num; j++) {
            out += rows[i * num + j];
            received[j] += rows[i * num + j];
        }
        sums[i] = out;
        most_out = out > most_out ? out : most_out;
        least_out = out < least_out ? out : least_out;
        total += out;
    }
    for (int64_t j = 0; j < num; j++) {
        most_in = received[j] > most_in ? received[j] : most_in;
    }
    r->tokens = most_out;
    r->skew_achieved = total > 0 ? (double)most_in * (double)num / (double)total : NAN;
    *logical_max = most_out > most_in ? most_out : most_in;
    const enum ep_status status =
        least_out < most_out ? ep_record_set_i64s(&r->tokens_per_rank, sums, num) : EP_OK;
    free(sums);
    return status;
}

static void copy_features(const struct ep_features *f, struct ep_record *r)
{
    r->bytes[EP_RECORD_COPIES] = (struct ep_record_bytes){.total = f->total_bytes,
                                                          .remote = f->remote_bytes,
                                                          .max_out = f->max_out_bytes,
                                                          .max_in = f->max_in_bytes};
    r->mean_out_bytes = f->mean_out_bytes;
    r->h_rank_bytes = f->h_rank_bytes;
    r->h_nic_bytes = f->h_nic_bytes;
    r->h_node_bytes = f->h_node_bytes;
    r->self_bytes_max = f->self_bytes_max;
    r->step_sum_bytes = f->step_sum_bytes;
    r->step_port_bytes = f->step_port_bytes;
    r->schedule_bytes = f->schedule_bytes;
    r->messages_max = f->messages_max;
    r->messages_nonzero_max = f->messages_nonzero_max;
}

static enum ep_status fill_bytes(const int64_t *rows, const struct place *place,
                                 struct ep_record *r)
{
    enum ep_status status = EP_OK;
    struct ep_features features = {0};
    int64_t logical_max = 0;
    int32_t *rank_node = calloc((size_t)place->num_ranks, sizeof *rank_node);
    if (rank_node == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the nodes of ranks");
    }
    for (int64_t i = 0; i < place->num_ranks; i++) {
        rank_node[i] = node_of(place, i);
    }
    struct level_context context = {rank_node};
    const struct ep_features_config config = {
        .num_ranks = place->num_ranks,
        .row_bytes = 1,
        .rank_node = rank_node,
        .num_levels = place->per_node > 0 ? 2 : 0,
        .level = level_of,
        .context = &context,
    };
    EP_TRY(ep_features_init(rows, &config, &features)); /* sees to it that sums fit */
    copy_features(&features, r);
    EP_TRY(fill_levels(&features, r));
    EP_TRY(fill_tokens(rows, place->num_ranks, r, &logical_max));
    r->bw_bytes_per_s = (double)r->h_rank_bytes / r->median_s;
    r->bw_logical_bytes_per_s = (double)logical_max / r->median_s;
    EP_TRY(ep_record_set_text(&r->bw_time, "whole"));
out:
    ep_features_fini(&features);
    free(rank_node);
    return status;
}

/* FNV-1a, 64 bit: Fowler, Noll and Vo. */
static uint64_t hash_rows(const int64_t *rows, int64_t num_ranks)
{
    uint64_t hash = 14695981039346656037u;
    const unsigned char *byte = (const unsigned char *)rows;
    for (size_t i = 0; i < (size_t)(num_ranks * num_ranks) * sizeof *rows; i++) {
        hash = (hash ^ byte[i]) * 1099511628211u;
    }
    return hash;
}

/* --- records --------------------------------------------------------------------------------- */

static enum ep_status fill_common(const struct ep_import_point *p,
                                  const struct ep_import_options *options,
                                  const struct place *place, int64_t order_idx, double now_utc_s,
                                  struct ep_record *r)
{
    enum ep_status status = EP_OK;
    EP_TRY(
        ep_record_set_text(&r->host, "%s", options->host != NULL ? options->host : default_host));
    r->launch_idx = p->file_idx;
    r->order_idx = order_idx;
    r->visit_idx = 0;
    r->start_utc_s = now_utc_s;
    r->ranks = place->num_ranks;
    r->nodes = place->num_nodes;
    r->ranks_per_node = place->per_node > 0 ? place->per_node : EP_RECORD_ABSENT;
    EP_TRY(ep_record_set_text(&r->rank_order, place->spread ? "spread" : "packed"));
    if (p->cadence != NULL) {
        EP_TRY(ep_record_set_text(&r->cadence, "%s", p->cadence));
    }
    EP_TRY(ep_record_set_f64s(&r->samples_s, p->samples_s.items, p->samples_s.num));
    EP_TRY(ep_record_summarize(r));
    EP_TRY(ep_record_add_note(&r->mpi_params, "tool", "%s", p->tool));
    if (p->mean != NULL) {
        EP_TRY(ep_record_add_note(&r->warnings, "mean-only",
                                  "%s: one sample, the mean over %s: its spread is not known",
                                  p->where, p->mean));
    }
    r->verified = p->verified;
    r->check.wrong = p->wrong;
out:
    return status;
}

static enum ep_status fill_link(const struct ep_import_point *p,
                                const struct ep_import_options *options, struct ep_record *r)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_record_set_text(&r->level, "%s",
                              options->level != NULL ? options->level : default_level));
    EP_TRY(ep_record_set_text(&r->pattern, "%s", p->how));
    r->size_bytes = p->size_bytes;
    r->concurrent_pairs = p->concurrent_pairs;
    r->bw_bytes_per_s = p->bw_bytes_per_s;
    EP_TRY(ep_record_set_text(&r->case_name, "links/%s/%s/pairs=%" PRId64 "/%" PRId64 "B/%s",
                              r->level, p->how, p->concurrent_pairs, p->size_bytes, p->tool));
out:
    return status;
}

/* A row is a byte, an expert a rank, and what a rank sends to a rank are the tokens of its expert.
 */
static enum ep_status fill_exchange(const struct ep_import *import, const struct ep_import_point *p,
                                    const struct place *place, struct ep_record *r, int64_t **rows)
{
    enum ep_status status = EP_OK;
    EP_TRY(make_rows(import, p, place->num_ranks, rows));
    r->seed = 0;
    r->hidden = 1;
    r->row_bytes = 1;
    r->top_k = 1;
    r->experts = place->num_ranks;
    EP_TRY(ep_record_set_text(&r->transport, "%s", p->how));
    EP_TRY(ep_record_set_text(&r->algorithm, "library"));
    EP_TRY(ep_record_set_text(&r->op, "dispatch"));
    EP_TRY(ep_record_set_text(&r->dtype, "byte"));
    EP_TRY(ep_record_set_text(&r->byte_basis, "copies"));
    EP_TRY(ep_record_set_text(&r->skew, "%s",
                              p->matrix >= 0 ? import->matrices[p->matrix].skew : "uniform"));
    EP_TRY(p->matrix >= 0
               ? ep_record_set_text(&r->routing_id, "import-%016" PRIx64,
                                    hash_rows(*rows, place->num_ranks))
               : ep_record_set_text(&r->routing_id, "import-uniform-%" PRId64 "x%" PRId64,
                                    place->num_ranks, p->size_bytes));
    EP_TRY(fill_bytes(*rows, place, r));
    EP_TRY(ep_record_set_text(
        &r->case_name, "comm/dispatch/%s/ranks=%" PRId64 "/nodes=%" PRId64 "/%" PRId64 "B/%s/%s",
        p->how, r->ranks, r->nodes, r->tokens, r->skew, p->tool));
    if (place->num_ranks > EP_RUN_TRAFFIC_MAX_RANKS) {
        free(*rows);
        *rows = NULL;
    }
out:
    return status;
}

/* Of records by case and order. */
static int compare_cases(const void *a, const void *b)
{
    const struct ep_record *left = *(struct ep_record *const *)a;
    const struct ep_record *right = *(struct ep_record *const *)b;
    const int order = strcmp(left->case_name, right->case_name);
    return order != 0 ? order
                      : (left->order_idx > right->order_idx) - (left->order_idx < right->order_idx);
}

static enum ep_status number_visits(struct ep_record *records, int64_t num)
{
    struct ep_record **sorted = calloc((size_t)num + 1, sizeof *sorted);
    if (sorted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " records", num);
    }
    for (int64_t i = 0; i < num; i++) {
        sorted[i] = &records[i];
    }
    qsort(sorted, (size_t)num, sizeof *sorted, compare_cases);
    for (int64_t i = 1; i < num; i++) {
        if (strcmp(sorted[i]->case_name, sorted[i - 1]->case_name) == 0) {
            sorted[i]->visit_idx = sorted[i - 1]->visit_idx + 1;
        }
    }
    free(sorted);
    return EP_OK;
}

/* --- run.json -------------------------------------------------------------------------------- */

struct doubts {
    bool nodes;
    bool level;
};

static enum ep_status fill_run(const struct ep_import *import,
                               const struct ep_import_options *options, const struct doubts *doubts,
                               double now_utc_s, struct ep_run *run)
{
    enum ep_status status = EP_OK;
    EP_TRY(
        ep_record_set_text(&run->host, "%s", options->host != NULL ? options->host : default_host));
    if (options->machine != NULL) {
        EP_TRY(ep_record_set_text(&run->machine, "%s", options->machine));
    }
    run->start_utc_s = now_utc_s;
    if (doubts->nodes) {
        EP_TRY(ep_record_add_note(&run->warnings, "nodes-unknown",
                                  "how ranks sit on nodes is not told and taken as one node "
                                  "(--ranks-per-node)"));
    }
    if (doubts->level) {
        EP_TRY(ep_record_add_note(&run->warnings, "level-unknown",
                                  "the level of the links is not told and called '%s' (--level)",
                                  default_level));
    }
    if (import->num_empty > 0) {
        EP_TRY(ep_record_add_note(&run->warnings, "empty-messages",
                                  "%" PRId64
                                  " results that move no bytes between ranks are left out",
                                  import->num_empty));
    }
    for (int64_t i = 0; i < import->notes.num; i++) {
        EP_TRY(ep_record_add_note(&run->warnings, import->notes.items[i].name, "%s",
                                  import->notes.items[i].text));
    }
out:
    return status;
}

enum ep_status ep_import_make_records(struct ep_import *import,
                                      const struct ep_import_options *options, double now_utc_s,
                                      struct ep_run *run, struct ep_record *records, int64_t **rows)
{
    enum ep_status status = EP_OK;
    struct doubts doubts = {0};
    int64_t num_cells = 0;
    for (int64_t i = 0; i < import->num_points; i++) {
        const struct ep_import_point *p = &import->points[i];
        struct place place;
        EP_TRY(place_point(p, options, &place));
        records[i].kind = p->kind == EP_IMPORT_LINK ? EP_RECORD_LINKS : EP_RECORD_COMM;
        EP_TRY(fill_common(p, options, &place, i, now_utc_s, &records[i]));
        if (p->kind == EP_IMPORT_LINK) {
            doubts.level = options->level == NULL;
            EP_TRY(fill_link(p, options, &records[i]));
        } else {
            doubts.nodes = doubts.nodes || place.per_node < 0;
            EP_TRY(fill_exchange(import, p, &place, &records[i], &rows[i]));
            num_cells += rows[i] != NULL ? place.num_ranks * place.num_ranks : 0;
            if (num_cells > EP_IMPORT_MAX_CELLS) {
                EP_TRY(ep_error_set(EP_EINVAL,
                                    "%s: messages of more than %d pairs of ranks in all; import "
                                    "fewer results at once",
                                    p->where, EP_IMPORT_MAX_CELLS));
            }
        }
        if (place.num_ranks > run->num_ranks) {
            run->num_ranks = place.num_ranks;
            run->num_nodes = place.num_nodes;
            run->ranks_per_node = place.per_node;
        }
    }
    EP_TRY(number_visits(records, import->num_points));
    EP_TRY(fill_run(import, options, &doubts, now_utc_s, run));
out:
    return status;
}

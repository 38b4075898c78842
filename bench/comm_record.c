/* SPDX-License-Identifier: Apache-2.0 */
/* Filling comm records. */
#include "bench/comm_record.h"

#include "bench/comm_ports.h"
#include "bench/simulated.h"

#include "base/file.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum ep_status sum_counts(struct ep_comm *comm, struct ep_capacity_counts *c)
{
    int64_t sums[] = {c->tokens,  c->asked,          c->kept,       c->rerouted,
                      c->dropped, c->tokens_dropped, c->tokens_lost};
    const enum ep_status status = ep_comm_sum_i64(comm, sums, 7);
    if (status == EP_OK) {
        *c = (struct ep_capacity_counts){sums[0], sums[1], sums[2], sums[3],
                                         sums[4], sums[5], sums[6]};
    }
    return status;
}

enum ep_status ep_comm_record_count(struct ep_comm_setting *s, const struct ep_routing *routing,
                                    const void *state)
{
    enum ep_status status = EP_OK;
    const int num_ranks = ep_comm_size(s->comm);
    const int rank = ep_comm_rank(s->comm);
    const int64_t pairs = (int64_t)num_ranks * num_ranks;
    const struct ep_transport *transport = s->point->transport;
    int64_t *expected = calloc((size_t)pairs, sizeof *expected);
    int32_t *nodes = calloc((size_t)num_ranks, sizeof *nodes);
    s->sent = calloc((size_t)pairs, sizeof *s->sent);
    s->world_rank = calloc((size_t)num_ranks, sizeof *s->world_rank);
    if (expected == NULL || nodes == NULL || s->sent == NULL || s->world_rank == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the traffic of %d ranks", num_ranks);
    }
    for (int r = 0; status == EP_OK && r < num_ranks; r++) {
        nodes[r] = ep_comm_node_of(s->comm, r);
    }
    if (status == EP_OK) {
        status = ep_traffic_init(&s->placement, nodes, ep_comm_num_nodes(s->comm),
                                 routing->top_k, &s->traffic);
    }
    if (status == EP_OK) {
        status = ep_traffic_add(&s->traffic, rank, routing->topk_idx, routing->num_tokens);
    }
    EP_TRY(ep_comm_agree(s->comm, status));
    const int64_t world_rank = ep_comm_world_rank(s->comm);
    EP_TRY(ep_comm_allgather_i64(s->comm, &world_rank, 1, s->world_rank));
    /* Every rank has counted its own tokens: the sum is the whole. */
    EP_TRY(sum_counts(s->comm, &s->counts));
    EP_TRY(ep_comm_sum_i64(s->comm, s->traffic.copies, pairs));
    EP_TRY(ep_comm_sum_i64(s->comm, s->traffic.ranks, pairs));
    EP_TRY(ep_comm_sum_i64(s->comm, s->traffic.nodes,
                           num_ranks * (int64_t)ep_comm_num_nodes(s->comm)));
    if (transport->sent_rows != NULL) {
        struct ep_transport_extras extras;
        transport->sent_rows(state, s->sent + (int64_t)rank * num_ranks);
        transport->extras(state, &extras);
        EP_TRY(ep_comm_sum_i64(s->comm, s->sent, pairs));
        int64_t sums[2] = {extras.metadata_bytes, extras.padding_bytes};
        EP_TRY(ep_comm_sum_i64(s->comm, sums, 2));
        s->metadata_bytes = sums[0];
        s->padding_bytes = sums[1];
        ep_traffic_fill_rows(&s->traffic, transport->basis, expected);
        const bool exact = memcmp(expected, s->sent, (size_t)pairs * sizeof *expected) == 0;
        if (!exact && !transport->pads) {
            status = ep_error_set(EP_ECHECK, "%s sends other rows than the %s basis counts",
                                  transport->name, ep_basis_name(transport->basis));
            goto out;
        }
    }
out:
    free(expected);
    free(nodes);
    return status;
}

struct level_context {
    const struct ep_topo *topo;
    const int64_t *world_rank;
};

static int64_t level_of(void *context, int64_t i, int64_t j)
{
    const struct level_context *c = context;
    return ep_topo_level_of(c->topo, c->world_rank[i], c->world_rank[j]);
}

/* Rows through the busiest rank in its larger direction, own ones included. */
static int64_t logical_rows_max(const int64_t *rows, int64_t num_ranks)
{
    int64_t most = 0;
    for (int64_t i = 0; i < num_ranks; i++) {
        int64_t out = 0;
        int64_t in = 0;
        for (int64_t j = 0; j < num_ranks; j++) {
            out += rows[i * num_ranks + j];
            in += rows[j * num_ranks + i];
        }
        most = out > most ? out : most;
        most = in > most ? in : most;
    }
    return most;
}

static double achieved_skew(const struct ep_traffic *traffic)
{
    const int64_t num = traffic->num_ranks;
    int64_t most = 0;
    int64_t sum = 0;
    for (int64_t j = 0; j < num; j++) {
        int64_t received = 0;
        for (int64_t i = 0; i < num; i++) {
            received += traffic->copies[i * num + j];
        }
        most = received > most ? received : most;
        sum += received;
    }
    return sum > 0 ? (double)most * (double)num / (double)sum : NAN;
}

static enum ep_status fill_bytes(const struct ep_comm_setting *s, enum ep_op op, int64_t row_bytes,
                                 int64_t *rows, int64_t *scratch, struct ep_record *record)
{
    const int64_t num_ranks = s->traffic.num_ranks;
    for (int basis = 0; basis < EP_NUM_BASES; basis++) {
        struct ep_traffic_totals totals;
        ep_traffic_fill_rows(&s->traffic, (enum ep_basis)basis, rows);
        if (op == EP_OP_COMBINE) {
            ep_traffic_transpose(rows, num_ranks, scratch);
        }
        ep_traffic_sum(op == EP_OP_COMBINE ? scratch : rows, num_ranks, &totals);
        record->bytes[basis] = (struct ep_record_bytes){
            .total = totals.total * row_bytes,
            .remote = totals.remote * row_bytes,
            .max_out = totals.max_out * row_bytes,
            .max_in = totals.max_in * row_bytes,
        };
    }
    return EP_OK;
}

static enum ep_status fill_levels(const struct ep_topo *topo, const struct ep_features *features,
                                  struct ep_record *record)
{
    enum ep_status status = EP_OK;
    for (int64_t l = 0; l < features->num_levels; l++) {
        const struct ep_level_features *level = &features->levels[l];
        if (level->total_bytes == 0 && level->messages_max == 0) {
            continue;
        }
        struct ep_record_level *item = NULL;
        EP_TRY(ep_record_add_level(record, topo->levels[l].name, &item));
        item->total = level->total_bytes;
        item->max_in = level->max_in_bytes;
        item->max_out = level->max_out_bytes;
        item->messages = level->messages_max;
        for (int bin = 0; bin < EP_MESSAGE_BINS; bin++) {
            if (level->hist[bin].count > 0) {
                EP_TRY(ep_record_add_message_bin(record, record->levels.num - 1, bin,
                                                 level->hist[bin].count, level->hist[bin].bytes));
            }
        }
    }
out:
    return status;
}

static int64_t combine_passes(const struct ep_comm_setting *s)
{
    return s->point->transport->combine_passes > 0 ? s->point->transport->combine_passes : 1;
}

/* Of the exchange, or of the pairwise one that it is held against. */
static enum ep_step_partner steps_of(const struct ep_comm_setting *s)
{
    const bool is_forced = s->point->transport->by_alltoall && strcmp(s->point->algorithm, "pairwise") == 0;
    return ep_simulated() && is_forced && ep_simulated_pairs_by_xor(s->traffic.num_ranks) ? EP_STEP_XOR
                                                                                         : EP_STEP_SHIFT;
}

static enum ep_status fill_features(struct ep_session *session, const struct ep_comm_setting *s,
                                    enum ep_op op, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const int64_t num_ranks = s->traffic.num_ranks;
    const size_t pairs = (size_t)(num_ranks * num_ranks);
    const bool has_nics = ep_comm_ports_known(session, s);
    struct ep_features features = {0};
    int64_t *rows = calloc(2 * pairs, sizeof *rows);
    if (rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the features of %lld ranks",
                            (long long)num_ranks);
    }
    EP_TRY(fill_bytes(s, op, record->row_bytes, rows, rows + pairs, record));
    if (op == EP_OP_COMBINE) {
        ep_traffic_transpose(s->sent, num_ranks, rows);
        for (size_t i = 0; i < pairs; i++) {
            rows[i] *= combine_passes(s);
        }
    } else {
        memcpy(rows, s->sent, pairs * sizeof *rows);
    }
    struct level_context context = {session->topo, s->world_rank};
    const struct ep_features_config config = {
        .num_ranks = num_ranks,
        .row_bytes = record->row_bytes,
        .rank_node = s->traffic.rank_node,
        .rank_nic = has_nics ? s->traffic.rank_node : NULL,
        .steps = steps_of(s),
        .num_levels = session->topo->num_levels,
        .level = level_of,
        .context = &context,
    };
    EP_TRY(ep_features_init(rows, &config, &features));
    record->mean_out_bytes = features.mean_out_bytes;
    record->h_rank_bytes = features.h_rank_bytes;
    record->h_nic_bytes = features.h_nic_bytes;
    record->h_node_bytes = features.h_node_bytes;
    record->self_bytes_max = features.self_bytes_max;
    EP_TRY(ep_record_set_text(&record->exchange_steps, config.steps == EP_STEP_XOR ? "xor" : "shift"));
    record->step_sum_bytes = features.step_sum_bytes;
    record->step_port_bytes = features.step_port_bytes;
    record->schedule_bytes = features.schedule_bytes;
    record->messages_max = features.messages_max;
    record->messages_nonzero_max = features.messages_nonzero_max;
    if (has_nics) {
        EP_TRY(ep_comm_ports_fill(session, s, rows, config.steps, record));
    }
    EP_TRY(fill_levels(session->topo, &features, record));
    const struct ep_record_phase *exchange = ep_record_find_phase(record, "exchange");
    const double time_s = exchange != NULL ? exchange->median_s : record->median_s;
    /* Logical: rows that carry a token, so without padding. Which way they go changes no maximum. */
    ep_traffic_fill_rows(&s->traffic, s->point->transport->basis, rows);
    const double logical = (double)(logical_rows_max(rows, num_ranks) * record->row_bytes);
    /* On one node the stage over the network has no rows, so its time is none of a transfer. */
    const bool moves = s->point->transport->basis != EP_BASIS_NODE || features.h_rank_bytes > 0;
    if (s->point->transport->sent_rows != NULL && moves && time_s > 0) {
        record->bw_bytes_per_s = (double)features.h_rank_bytes / time_s;
        record->bw_logical_bytes_per_s = logical / time_s;
        EP_TRY(ep_record_set_text(&record->bw_time, exchange != NULL ? "exchange" : "whole"));
    }
out:
    ep_features_fini(&features);
    free(rows);
    return status;
}

/* One phase of the record; medians [num_ranks]. */
static enum ep_status add_phase(const char *name, const struct ep_harness_result *result,
                                const double *medians, int num_ranks, int64_t copied_bytes,
                                struct ep_record *record)
{
    enum ep_status status = EP_OK;
    struct ep_record_phase *item = NULL;
    EP_TRY(ep_record_add_phase(record, name, &item));
    item->median_s = result->summary.median;
    item->low_s = result->summary.low;
    item->high_s = result->summary.high;
    item->copied_bytes_max = copied_bytes;
    EP_TRY(ep_record_set_f64s(&item->rank_median_s, medians, num_ranks));
out:
    return status;
}

static enum ep_status fill_phases(const struct ep_comm_setting *s, enum ep_op op, const void *state,
                                  const struct ep_harness_phases *phases,
                                  struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const int num_ranks = ep_comm_size(s->comm);
    double *medians = calloc((size_t)num_ranks, sizeof *medians);
    status = medians == NULL ? ep_error_set(EP_ENOMEM, "no memory for phases") : EP_OK;
    EP_TRY(ep_comm_agree(s->comm, status));
    for (int i = 0; i < phases->num_phases; i++) {
        const struct ep_transport_phase *phase = &s->point->transport->ops[op].phases[i];
        const struct ep_harness_result *result = &phases->phases[i];
        int64_t copied = phase->copied_bytes != NULL ? phase->copied_bytes(state) : 0;
        EP_TRY(ep_comm_max_i64(s->comm, &copied, 1));
        EP_TRY(ep_comm_allgather_f64(s->comm, &result->local_median_s, 1, medians));
        status = add_phase(phase->name, result, medians, num_ranks, copied, record);
        EP_TRY(ep_comm_agree(s->comm, status));
    }
out:
    free(medians);
    return status;
}

/* "c0" without a capacity, "c32" of a given one, else all that its policy depends on. */
static char *capacity_name(const struct ep_capacity_policy *p, int64_t top_k)
{
    char overflow[32];
    if (p->rule == NULL && p->drop == EP_DROP_NONE && !p->pad) {
        return ep_format_new("c%" PRId64, p->rows);
    }
    return ep_format_new("c-%s:%" PRId64 ":f%g:m%" PRId64 ":a%" PRId64 ":e%g:%s:%s%s",
                         p->rule != NULL ? p->rule->name : "rows", p->rows,
                         ep_capacity_uses_factor(p, top_k) ? ep_capacity_factor(p) : NAN,
                         ep_capacity_floor(p), p->align, p->eval_fraction, ep_drop_name(p->drop),
                         ep_overflow_text(p, overflow, sizeof overflow), p->pad ? ":pad" : "");
}

char *ep_comm_case_name(const struct ep_session *session, const struct ep_comm_case *point,
                        enum ep_op op, const char *routing_id)
{
    int64_t tokens = point->tokens;
    for (int64_t r = 0; point->tokens_per_rank != NULL && r < point->num_ranks; r++) {
        tokens = point->tokens_per_rank[r] > tokens ? point->tokens_per_rank[r] : tokens;
    }
    char *capacity = capacity_name(&point->capacity, point->top_k);
    if (capacity == NULL) {
        return NULL;
    }
    char *name = ep_format_new(
        "comm/%s/%s/%s/%s-%s/P%" PRId64 "-%s/t%" PRId64 "/h%" PRId64 "/e%" PRId64 "/k%" PRId64
        "%s%s/%s/%s/thr%" PRId64 "/%s/%s%s%s/%s/%s",
        ep_op_name(op), point->transport->name, point->algorithm, ep_dtype_name(point->dtype),
        ep_dtype_name(point->combine_dtype), point->num_ranks, point->spread ? "spread" : "packed",
        tokens, point->hidden, point->experts, point->top_k, point->router != NULL ? "-" : "",
        point->router != NULL ? point->router : "", point->skew->text, capacity,
        session->options.threads,
        session->options.cadence == EP_CADENCE_STREAM ? "stream" : "barrier",
        point->cold ? "cold" : "warm", point->buffers != EP_BUFFERS_EXACT ? "-" : "",
        point->buffers != EP_BUFFERS_EXACT ? ep_buffers_name(point->buffers) : "", ep_pages_name(session->options.pages), routing_id);
    free(capacity);
    return name;
}

/* What experts took, where anything bounds or pads it. */
static enum ep_status fill_capacity(const struct ep_comm_setting *s, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    char overflow[32];
    const struct ep_capacity_policy *p = &s->point->capacity;
    const struct ep_capacity *capacity = ep_dropping_capacity(s->dropping);
    if (s->point->router != NULL) {
        EP_TRY(ep_record_set_text(&record->router, "%s", s->point->router));
    }
    if (s->point->style != NULL) {
        EP_TRY(ep_record_set_text(&record->style, "%s", s->point->style));
    }
    if (!ep_capacity_is_set(p)) {
        return EP_OK;
    }
    const bool per_source = capacity->scope == EP_CAPACITY_PER_SOURCE;
    EP_TRY(ep_record_set_text(&record->capacity_rule, "%s", p->rule != NULL ? p->rule->name
                                                            : p->rows > 0   ? "rows"
                                                                            : "largest"));
    EP_TRY(ep_record_set_text(&record->capacity_per, per_source ? "source" : "expert"));
    EP_TRY(ep_record_set_text(&record->drop, "%s", ep_drop_name(p->drop)));
    EP_TRY(ep_record_set_text(&record->overflow, "%s",
                              ep_overflow_text(p, overflow, sizeof overflow)));
    record->capacity = capacity->rows;
    record->pad = p->pad;
    if (p->rule != NULL) {
        if (ep_capacity_uses_factor(p, s->point->top_k)) {
            record->capacity_factor = ep_capacity_factor(p);
        }
        record->capacity_eval = p->eval_fraction;
        record->capacity_align = p->align;
        record->min_capacity = ep_capacity_floor(p);
    }
    record->asked = s->counts.asked;
    record->kept = s->counts.kept;
    record->rerouted = s->counts.rerouted;
    record->dropped = s->counts.dropped;
    record->tokens_dropped = s->counts.tokens_dropped;
    record->tokens_lost = s->counts.tokens_lost;
    record->padded = ep_dropping_padded_rows(s->dropping, s->counts.kept + s->counts.rerouted);
out:
    return status;
}

static int64_t padding_rows(const struct ep_comm_setting *s, enum ep_op op)
{
    const int64_t num_ranks = s->traffic.num_ranks;
    int64_t remote = 0;
    for (int64_t i = 0; i < num_ranks * num_ranks; i++) {
        remote += i % (num_ranks + 1) == 0 ? 0 : s->sent[i];
    }
    const int64_t once = s->padding_bytes / ep_dtype_row_bytes(s->point->dtype, s->point->hidden);
    return op == EP_OP_DISPATCH ? once : once + (combine_passes(s) - 1) * remote;
}

static enum ep_status fill_names(const struct ep_session *session, const struct ep_comm_setting *s,
                                 enum ep_op op, const void *state, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const struct ep_comm_case *point = s->point;
    record->tokens = s->map.max_tokens;
    if (point->tokens_per_rank != NULL) {
        EP_TRY(ep_record_set_i64s(&record->tokens_per_rank, point->tokens_per_rank,
                                  point->num_ranks));
    }
    record->hidden = point->hidden;
    record->experts = point->experts;
    record->top_k = point->top_k;
    const enum ep_dtype dtype = op == EP_OP_COMBINE ? point->combine_dtype : point->dtype;
    record->row_bytes = ep_dtype_row_bytes(dtype, point->hidden);
    record->skew_achieved = achieved_skew(&s->traffic);
    record->metadata_bytes = op == EP_OP_DISPATCH ? s->metadata_bytes : 0;
    record->padding_bytes = padding_rows(s, op) * record->row_bytes;
    EP_TRY(ep_record_set_text(&record->transport, "%s", point->transport->name));
    EP_TRY(ep_record_set_text(&record->algorithm, "%s", point->algorithm));
    EP_TRY(ep_record_set_text(&record->op, "%s", ep_op_name(op)));
    EP_TRY(ep_record_set_text(&record->dtype, "%s", ep_dtype_name(point->dtype)));
    EP_TRY(ep_record_set_text(&record->combine_dtype, "%s", ep_dtype_name(point->combine_dtype)));
    EP_TRY(ep_record_set_text(&record->skew, "%s", point->skew->text));
    EP_TRY(point->replicas > 0
               ? ep_record_set_text(&record->placement, "eplb+%" PRId64, point->replicas)
               : ep_record_set_text(&record->placement, "%s",
                                    point->placement != NULL ? point->placement : "contiguous"));
    EP_TRY(ep_record_set_text(&record->routing_id, "%s", ep_dropping_id(s->dropping)));
    EP_TRY(fill_capacity(s, record));
    EP_TRY(ep_record_set_text(&record->byte_basis, "%s", ep_basis_name(point->transport->basis)));
    EP_TRY(ep_record_set_text(&record->buffers, point->cold ? "cold" : "warm"));
    EP_TRY(ep_record_set_text(&record->rank_order, point->spread ? "spread" : "packed"));
    if (point->model != NULL) {
        EP_TRY(ep_record_set_text(&record->model, "%s", point->model));
    }
    for (const char *const *setting = ep_comm_mpi_settings(); *setting != NULL; setting++) {
        const char *equals = strchr(*setting, '=');
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(equals - *setting), *setting);
        EP_TRY(ep_record_add_note(&record->mpi_params, name, "%s", equals + 1));
    }
    if (point->transport->way != NULL && op == EP_OP_DISPATCH) {
        EP_TRY(ep_record_add_note(&record->mpi_params, "shm_way", "%s",
                                  point->transport->way(state)));
    }
    free(record->case_name);
    record->case_name = ep_comm_case_name(session, point, op, record->routing_id);
    if (record->case_name == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the name of a case");
    }
out:
    return status;
}

/* Of what the system grants half and less. */
static enum ep_status warn_of_small_pages(const struct ep_session *session, struct ep_record *record)
{
    const int64_t used = ep_arena_used_bytes(session->arena);
    if (session->options.pages != EP_PAGES_THP || record->huge_page_bytes < 0 ||
        record->huge_page_bytes > used / 2) {
        return EP_OK;
    }
    char got[32];
    char want[32];
    return ep_record_add_note(&record->warnings, "small-pages", "%s of %s of buffers lie in huge pages: "
                              "the system grants no more%s",
                              ep_format_bytes((double)record->huge_page_bytes, got, sizeof got),
                              ep_format_bytes((double)used, want, sizeof want),
                              session->share != NULL ? " for shared memory (MADV_COLLAPSE of Linux 6.1 "
                                                       "and later, or shmem_enabled)" : "");
}

enum ep_status ep_comm_record_fill(struct ep_session *session,
                                   const struct ep_comm_setting *setting, enum ep_op op,
                                   const void *state, const struct ep_harness_phases *phases,
                                   struct ep_record *record)
{
    enum ep_status status = EP_OK;
    int64_t huge = ep_simulated() ? -1 : ep_arena_huge_bytes(session->arena);
    huge = -huge;
    EP_TRY(ep_comm_max_i64(setting->comm, &huge, 1));
    record->huge_page_bytes = -huge;
    EP_TRY(fill_phases(setting, op, state, phases, record));
    if (ep_comm_is_root(setting->comm)) {
        status = warn_of_small_pages(session, record);
    }
    if (ep_comm_is_root(setting->comm) && status == EP_OK) {
        status = fill_names(session, setting, op, state, record);
        if (status == EP_OK) {
            status = fill_features(session, setting, op, record);
        }
    }
    EP_TRY(ep_comm_agree(setting->comm, status));
out:
    return status;
}

enum ep_status ep_comm_record_write_traffic(const struct ep_comm_setting *s, const char *directory)
{
    if (s->traffic.num_ranks > EP_RUN_TRAFFIC_MAX_RANKS || s->traffic.num_ranks == 0) {
        return EP_OK;
    }
    const size_t pairs = (size_t)(s->traffic.num_ranks * s->traffic.num_ranks);
    int64_t *rows = calloc(EP_NUM_BASES * pairs, sizeof *rows);
    if (rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to write traffic");
    }
    const int64_t *bases[EP_NUM_BASES];
    for (int basis = 0; basis < EP_NUM_BASES; basis++) {
        ep_traffic_fill_rows(&s->traffic, (enum ep_basis)basis, rows + (size_t)basis * pairs);
        bases[basis] = rows + (size_t)basis * pairs;
    }
    const enum ep_status status = ep_run_dir_write_traffic(
        directory, ep_dropping_id(s->dropping), s->traffic.num_ranks, bases);
    free(rows);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The table of routers: cold logits, reads and routers interleaved. */
#include "bench/kernels_gate.h"

#include "base/json.h"
#include "base/stats.h"
#include "base/table.h"
#include "bench/kernels_peaks.h"
#include "kernels/gate.h"
#include "kernels/gemm_backends.h"
#include "kernels/logits.h"
#include "kernels/models.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 4096, SAMPLES = 31, MAX_ROWS = 16, CHECKED = 64, FILL_EXPERTS = 256 };

/* The first is the figure; it comes in every instruction set, the others in the best. */
static const char *const models[] = {"deepseek-v3", "deepseek-v2",  "kimi-k2",    "qwen3-30b-a3b",
                                     "olmoe-1b-7b", "mixtral-8x7b", "gshard-600b"};

struct gate_row {
    const char *model;
    struct ep_gate_config config;
    struct ep_gate *gate;
    struct ep_routing routing;
    int64_t batch_bytes;
    bool is_asked; /* to stay below EP_KERNELS_GATE_ASKED */
    struct ep_os_counters counters;
    double read_s[SAMPLES], gate_s[SAMPLES];           /* this rank's */
    double slow_read_s[SAMPLES], slow_gate_s[SAMPLES]; /* the slowest rank's */
    double read_median_s, gate_median_s;
    double ratio, low, high; /* low and high NaN where there are too few samples */
};

struct gate_table {
    struct ep_session *session;
    struct ep_models *models;
    struct ep_kernels_peaks *peaks;
    char *ring;
    int64_t ring_bytes;
    int64_t next_byte;
    int num_rows;
    struct gate_row rows[MAX_ROWS];
};

/* --- what is timed ---------------------------------------------------------------------------- */

static enum ep_status add_row(struct gate_table *t, const struct ep_model *model, const char *isa,
                              bool is_asked)
{
    enum ep_status status;
    struct gate_row *row = &t->rows[t->num_rows];
    EP_ASSERT(t->num_rows < MAX_ROWS);
    *row = (struct gate_row){.model = model->name, .is_asked = is_asked};
    EP_TRY(ep_gate_config_from_model(model, &row->config, NULL));
    row->config.isa = isa;
    row->config.seed = t->session->options.seed;
    t->num_rows++;
    EP_TRY(ep_gate_create(&row->config, &row->gate));
    EP_TRY(ep_routing_init(TOKENS, model->num_experts, ep_gate_num_slots(row->gate), true,
                           &row->routing));
    row->batch_bytes = TOKENS * model->num_experts * (int64_t)sizeof(float);
out:
    return status;
}

/* Rows, and a ring full of logits: drawn for 4,096 tokens, then repeated; a repeated value is as
 * cold. */
static enum ep_status make_table(struct gate_table *t, int64_t cold_caches)
{
    enum ep_status status;
    struct ep_logits *logits = NULL;
    const int64_t drawn_bytes = TOKENS * FILL_EXPERTS * (int64_t)sizeof(float);
    EP_TRY(ep_models_create(&t->models));
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        const struct ep_model *model = NULL;
        EP_TRY(ep_models_find(t->models, models[m], &model));
        /* the last one is the plain function */
        for (int i = 0; i == 0 || (m == 0 && ep_gate_isa(i + 1) != NULL); i++) {
            EP_TRY(add_row(t, model, ep_gate_isa(i), m == 0 && i == 0));
        }
    }
    int64_t largest = 0;
    for (int r = 0; r < t->num_rows; r++) {
        largest = t->rows[r].batch_bytes > largest ? t->rows[r].batch_bytes : largest;
    }
    const int64_t wanted = ep_kernels_cold_bytes(t->session, cold_caches) + 2 * largest;
    t->ring_bytes = (wanted + drawn_bytes - 1) / drawn_bytes * drawn_bytes;
    t->ring = ep_gemm_alloc(t->ring_bytes);
    if (t->ring == NULL) {
        status =
            ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " bytes of logits", t->ring_bytes);
        goto out;
    }
    EP_TRY(ep_logits_create("uniform", FILL_EXPERTS, t->session->options.seed, &logits));
    ep_logits_fill(logits, 0, TOKENS, (float *)(void *)t->ring);
    for (int64_t at = drawn_bytes; at < t->ring_bytes; at += drawn_bytes) {
        memcpy(t->ring + at, t->ring, (size_t)drawn_bytes);
    }
out:
    ep_logits_destroy(logits);
    return status;
}

static void free_table(struct gate_table *t)
{
    for (int r = 0; r < t->num_rows; r++) {
        ep_gate_destroy(t->rows[r].gate);
        ep_routing_fini(&t->rows[r].routing);
    }
    ep_kernels_peaks_destroy(t->peaks);
    ep_models_destroy(t->models);
    free(t->ring);
    free(t);
}

/* The next batch of the ring, which was used longest ago. */
static const char *next_batch(struct gate_table *t, int64_t bytes)
{
    const int64_t at = t->next_byte + bytes <= t->ring_bytes ? t->next_byte : 0;
    t->next_byte = at + bytes;
    return t->ring + at;
}

static volatile uint64_t kept_word; /* so that no read is dropped */

static enum ep_status sample_row(struct gate_table *t, struct gate_row *row, int s)
{
    enum ep_status status;
    struct ep_comm *world = t->session->world;
    const char *read = next_batch(t, row->batch_bytes);
    const struct ep_gate_batch batch = {
        .num_tokens = TOKENS,
        .logits = (const float *)(const void *)next_batch(t, row->batch_bytes)};
    EP_TRY(ep_comm_barrier(world));
    double start_s = ep_comm_now_s();
    kept_word = t->peaks->read->run(NULL, read, row->batch_bytes);
    row->read_s[s] = ep_comm_now_s() - start_s;
    EP_TRY(ep_comm_barrier(world));
    start_s = ep_comm_now_s();
    const enum ep_status routed = ep_gate_route(row->gate, &batch, &row->routing);
    row->gate_s[s] = ep_comm_now_s() - start_s;
    status = ep_comm_agree(world, routed);
out:
    return status;
}

/* The choice of the first tokens is the plain function's. */
static enum ep_status check_row(const struct gate_table *t, struct gate_row *row)
{
    enum ep_status status;
    struct ep_routing plain = {0};
    const struct ep_gate_batch batch = {.num_tokens = CHECKED,
                                        .logits = (const float *)(const void *)t->ring};
    const int64_t num = CHECKED * row->routing.top_k;
    EP_TRY(ep_routing_init(CHECKED, row->routing.num_experts, row->routing.top_k, true, &plain));
    EP_TRY(ep_gate_route(row->gate, &batch, &row->routing));
    EP_TRY(ep_gate_route_plain(row->gate, &batch, &plain));
    for (int64_t i = 0; i < num; i++) {
        if (plain.topk_idx[i] != row->routing.topk_idx[i]) {
            status =
                ep_error_set(EP_ECHECK,
                             "router %s of %s (%s): token %" PRId64 " goes to expert %d, %d "
                             "expected",
                             ep_gate_name(&row->config), row->model, ep_gate_isa_name(row->gate),
                             i / plain.top_k, row->routing.topk_idx[i], plain.topk_idx[i]);
            goto out;
        }
    }
out:
    ep_routing_fini(&plain);
    return status;
}

static double median_of(const double *values)
{
    double sorted[SAMPLES];
    memcpy(sorted, values, sizeof sorted);
    ep_stats_sort(sorted, SAMPLES);
    return ep_stats_median_sorted(sorted, SAMPLES);
}

static enum ep_status evaluate(struct ep_session *session, struct gate_row *row)
{
    enum ep_status status;
    double ratios[SAMPLES];
    memcpy(row->slow_read_s, row->read_s, sizeof row->read_s);
    memcpy(row->slow_gate_s, row->gate_s, sizeof row->gate_s);
    EP_TRY(ep_comm_max_f64(session->world, row->slow_read_s, SAMPLES));
    EP_TRY(ep_comm_max_f64(session->world, row->slow_gate_s, SAMPLES));
    for (int s = 0; s < SAMPLES; s++) {
        ratios[s] = row->slow_gate_s[s] / row->slow_read_s[s];
    }
    ep_stats_sort(ratios, SAMPLES);
    row->ratio = ep_stats_median_sorted(ratios, SAMPLES);
    row->low = row->high = NAN;
    (void)ep_stats_median_interval_sorted(ratios, SAMPLES, 0.95, &row->low, &row->high);
    row->read_median_s = median_of(row->slow_read_s);
    row->gate_median_s = median_of(row->slow_gate_s);
out:
    return status;
}

static enum ep_status measure(struct gate_table *t)
{
    enum ep_status status = EP_OK;
    for (int r = 0; r < t->num_rows; r++) {
        EP_TRY(ep_comm_agree(t->session->world, check_row(t, &t->rows[r])));
    }
    const struct ep_os_counters before = ep_os_counters_read();
    for (int s = 0; s < SAMPLES; s++) {
        for (int i = 0; i < t->num_rows; i++) {
            EP_TRY(sample_row(t, &t->rows[(i + s) % t->num_rows], s));
        }
    }
    for (int r = 0; r < t->num_rows; r++) {
        t->rows[r].counters = ep_os_counters_since(&before); /* of all rows: they are interleaved */
        EP_TRY(evaluate(t->session, &t->rows[r]));
    }
out:
    return status;
}

/* --- what is kept and shown --------------------------------------------------------------------
 */

static enum ep_status fill_record(const struct gate_table *t, const struct gate_row *row,
                                  struct ep_record *record)
{
    enum ep_status status;
    const int ranks = ep_comm_size(t->session->world);
    EP_TRY(ep_record_set_text(&record->case_name, "kernels/gate/%s/%s/%s/tokens:%d/ranks:%d",
                              ep_gate_name(&row->config), row->model, ep_gate_isa_name(row->gate),
                              (int)TOKENS, ranks));
    EP_TRY(ep_record_set_text(&record->kernel, "gate"));
    EP_TRY(ep_record_set_text(&record->model, "%s", row->model));
    EP_TRY(ep_record_set_text(&record->dtype, "fp32"));
    EP_TRY(ep_record_set_text(&record->buffers, "cold"));
    EP_TRY(ep_record_set_text(&record->pages, "thp"));
    EP_TRY(ep_record_set_text(&record->bound_name, "read bandwidth"));
    record->bound_s = row->read_median_s;
    record->tokens = TOKENS;
    record->experts = row->config.num_experts;
    record->top_k = row->config.top_k;
    record->ranks_active = ranks;
    record->visit_idx = 0; /* or what follows, see ep_session_add_record */
    record->moved_bytes = (double)ranks * (double)row->batch_bytes;
    record->bw_bytes_per_s = record->moved_bytes / row->gate_median_s;
out:
    return status;
}

static enum ep_status add_record(struct gate_table *t, struct gate_row *row)
{
    enum ep_status status;
    struct ep_comm *world = t->session->world;
    struct ep_record record;
    struct ep_harness_result result = {.num = SAMPLES,
                                       .samples_s = row->slow_gate_s,
                                       .local_s = row->gate_s,
                                       .local_median_s = median_of(row->gate_s),
                                       .warmup_s = NAN,
                                       .stop = EP_STOP_SAMPLES};
    ep_record_init(&record, EP_RECORD_KERNELS);
    EP_TRY(ep_comm_agree(world, ep_stats_summarize(row->slow_gate_s, SAMPLES, &result.summary)));
    EP_TRY(ep_comm_agree(world, ep_session_begin_record(t->session, world, &record)));
    EP_TRY(ep_session_set_samples(t->session, world, &result, &row->counters, &record));
    EP_TRY(ep_comm_agree(world, fill_record(t, row, &record)));
    EP_TRY(ep_session_add_record(t->session, &record));
out:
    ep_record_fini(&record);
    return status;
}

static enum ep_status print_table(const struct gate_table *t, FILE *out)
{
    static const char *const headers[] = {"model",   "router", "experts", "top-k",
                                          "kernels", "read",   "router",  "ns/token",
                                          "ratio",   "95 %",   "asked"};
    enum ep_status status;
    struct ep_table *table = NULL;
    EP_TRY(ep_table_create(headers, sizeof headers / sizeof *headers, &table));
    for (int r = 0; r < t->num_rows; r++) {
        const struct gate_row *row = &t->rows[r];
        ep_table_add(table, "%s", row->model);
        ep_table_add(table, "%s", ep_gate_name(&row->config));
        ep_table_add(table, "%" PRId64, row->config.num_experts);
        ep_table_add(table, "%" PRId64, row->config.top_k);
        ep_table_add(table, "%s", ep_gate_isa_name(row->gate));
        ep_table_add(table, "%.0f us", row->read_median_s * 1e6);
        ep_table_add(table, "%.0f us", row->gate_median_s * 1e6);
        ep_table_add(table, "%.0f", row->gate_median_s * 1e9 / TOKENS);
        ep_table_add(table, "%.2f", row->ratio);
        ep_table_add(table, "%.2f to %.2f", row->low, row->high);
        if (!row->is_asked) {
            ep_table_add(table, "-");
        } else {
            ep_table_add(table, "%.0f%s", EP_KERNELS_GATE_ASKED,
                         row->ratio > EP_KERNELS_GATE_ASKED ? " (short)" : "");
        }
    }
    fprintf(
        out,
        "Routers on %d tokens of cold fp32 logits, %d rank%s at once, one thread each; read: the "
        "same bytes of other\nlogits by the fastest loop (%s). Medians of %d interleaved "
        "repetitions; ratio: router / read, median within\na repetition.\n\n",
        (int)TOKENS, ep_comm_size(t->session->world),
        ep_comm_size(t->session->world) == 1 ? "" : "s", t->peaks->read->name, (int)SAMPLES);
    EP_TRY(ep_table_print(table, out));
    fflush(out);
out:
    ep_table_destroy(table);
    return status;
}

static enum ep_status append_json(const struct gate_row *row, json_t *json)
{
    enum ep_status status;
    json_t *object = json_object();
    EP_TRY(ep_json_set(object, "model", json_string(row->model)));
    EP_TRY(ep_json_set(object, "router", json_string(ep_gate_name(&row->config))));
    EP_TRY(ep_json_set(object, "isa", json_string(ep_gate_isa_name(row->gate))));
    EP_TRY(ep_json_set(object, "tokens", json_integer(TOKENS)));
    EP_TRY(ep_json_set(object, "experts", json_integer(row->config.num_experts)));
    EP_TRY(ep_json_set(object, "top_k", json_integer(row->config.top_k)));
    EP_TRY(ep_json_set(object, "read_median_s", ep_json_real(row->read_median_s)));
    EP_TRY(ep_json_set(object, "router_median_s", ep_json_real(row->gate_median_s)));
    EP_TRY(ep_json_set(object, "ratio", ep_json_real(row->ratio)));
    EP_TRY(ep_json_set(object, "ratio_low", ep_json_real(row->low)));
    EP_TRY(ep_json_set(object, "ratio_high", ep_json_real(row->high)));
    EP_TRY(ep_json_set(object, "asked",
                       row->is_asked ? json_real(EP_KERNELS_GATE_ASKED) : json_null()));
    if (json_array_append(json, object) != 0) {
        status = ep_error_set(EP_ENOMEM, "no memory for rows");
    }
out:
    json_decref(object);
    return status;
}

enum ep_status ep_kernels_gate_run(struct ep_session *session, int64_t cold_caches, FILE *out,
                                   json_t *json, int64_t *num_short)
{
    enum ep_status status;
    struct gate_table *t = calloc(1, sizeof *t);
    status = t == NULL ? ep_error_set(EP_ENOMEM, "no memory for a table of routers") : EP_OK;
    *num_short = 0;
    EP_TRY(ep_comm_agree(session->world, status));
    t->session = session;
    EP_TRY(ep_comm_agree(session->world, make_table(t, cold_caches)));
    EP_TRY(ep_kernels_peaks_create(session, cold_caches, &t->peaks));
    EP_TRY(measure(t));
    for (int r = 0; r < t->num_rows; r++) {
        const struct gate_row *row = &t->rows[r];
        *num_short += row->is_asked && row->ratio > EP_KERNELS_GATE_ASKED;
        EP_TRY(add_record(t, &t->rows[r]));
    }
    if (ep_comm_is_root(session->world)) {
        status = print_table(t, out);
        for (int r = 0; status == EP_OK && json != NULL && r < t->num_rows; r++) {
            status = append_json(&t->rows[r], json);
        }
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    if (t != NULL) {
        free_table(t);
    }
    return status;
}

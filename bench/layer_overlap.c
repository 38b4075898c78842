/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks of a layer: each a dispatch and a combine of its own over the layer's experts. */
#include "bench/layer_overlap.h"

#include "base/stats.h"
#include "bench/layer_check.h"
#include "bench/overlap_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_REPETITIONS = 6, MAX_REPETITIONS = 60 };

/* Tokens of this rank that go together: views of the layer's routing and rows. */
struct chunk {
    struct ep_routing routing;
    struct ep_exchange exchange;
    void *transport;
    struct ep_expert_rows rows;
    int64_t *num_rows; /* [local experts] */
};

/* What one repetition is measured for. Those up to OVERLAPPED are of the slowest rank, the others means. */
enum value { WHOLE, STEPS, OVERLAPPED, EXCHANGE, COMPUTE, COMPUTE_OVERLAPPED, FLIGHT, NUM_VALUES };

struct overlap {
    struct ep_layer *layer;
    struct chunk *chunks;
    int num_chunks;
    struct ep_overlap_event *events;
    int64_t num_events;
    bool overlapped;  /* as it is run now: else every exchange ends where it starts */
    double *time_s;   /* [num_events] of the last run; START holds the exchange where nothing overlaps */
    double flight_s;  /* of the last run: some exchange was under way */
    double *values;   /* [repetitions][NUM_VALUES] */
    double *event_s;  /* [num_events][repetitions] without overlap, this rank's */
};

/* --- one run ---------------------------------------------------------------------------------- */

static enum ep_status run_phase(const struct overlap *o, const char *step)
{
    struct ep_layer *l = o->layer;
    for (int p = 0; p < l->num_phases; p++) {
        if (strcmp(l->phases[p].step, step) == 0) {
            return l->phases[p].run(l->phases[p].state);
        }
    }
    return EP_OK;
}

static enum ep_status run_event(struct overlap *o, const struct ep_overlap_event *e)
{
    const struct ep_transport *transport = o->layer->point->transport;
    struct chunk *chunk = &o->chunks[e->chunk];
    enum ep_status status = EP_OK;
    switch (e->act) {
    case EP_OVERLAP_ROUTE:
        return run_phase(o, "route");
    case EP_OVERLAP_SHARED:
        return run_phase(o, "shared");
    case EP_OVERLAP_ADD:
        return run_phase(o, "add");
    case EP_OVERLAP_EXPERTS:
        return ep_layer_run_experts(o->layer, chunk->num_rows, &chunk->rows);
    case EP_OVERLAP_COUNTS:
    case EP_OVERLAP_COPY:
        return transport->ops[e->op].phases[e->phase].run(chunk->transport);
    case EP_OVERLAP_START:
        status = transport->start(chunk->transport, (enum ep_op)e->op);
        break;
    case EP_OVERLAP_FINISH:
        return o->overlapped ? transport->finish(chunk->transport, (enum ep_op)e->op) : EP_OK;
    }
    return status == EP_OK && !o->overlapped
               ? transport->finish(chunk->transport, (enum ep_op)e->op)
               : status;
}

/* All events in order, each timed. A rank that fails alone ends the job: the others would wait for it. */
static enum ep_status run_events(void *state)
{
    struct overlap *o = state;
    int num_flying = 0;
    double since_s = 0;
    double then_s = ep_comm_now_s();
    o->flight_s = 0;
    for (int64_t i = 0; i < o->num_events; i++) {
        const struct ep_overlap_event *e = &o->events[i];
        const enum ep_status status = run_event(o, e);
        if (status != EP_OK) {
            ep_comm_abort(o->layer->all, status, ep_error_text());
            return status;
        }
        const double now_s = ep_comm_now_s();
        o->time_s[i] = now_s - then_s;
        if (e->act == EP_OVERLAP_START && num_flying++ == 0) {
            since_s = then_s;
        } else if (e->act == EP_OVERLAP_FINISH && --num_flying == 0) {
            o->flight_s += now_s - since_s;
        }
        then_s = now_s;
    }
    return EP_OK;
}

static double sum_of(const struct overlap *o, bool exchanges)
{
    double sum_s = 0;
    for (int64_t i = 0; i < o->num_events; i++) {
        const enum ep_overlap_act act = o->events[i].act;
        const bool computes =
            act == EP_OVERLAP_ROUTE || act == EP_OVERLAP_SHARED || act == EP_OVERLAP_EXPERTS;
        sum_s += (exchanges ? act == EP_OVERLAP_START : computes) ? o->time_s[i] : 0;
    }
    return sum_s;
}

static enum ep_status time_run(struct overlap *o, enum ep_status (*run)(void *state), void *state,
                               double *time_s)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_comm_barrier(o->layer->all));
    const double start_s = ep_comm_now_s();
    EP_TRY(run(state));
    *time_s = ep_comm_now_s() - start_s;
out:
    return status;
}

/* Repetition -1 warms up. */
static enum ep_status repeat(struct overlap *o, int64_t num)
{
    enum ep_status status = EP_OK;
    for (int64_t n = -1; n < num; n++) {
        double *values = o->values + (n < 0 ? 0 : n) * NUM_VALUES;
        EP_TRY(time_run(o, ep_layer_run, o->layer, &values[WHOLE]));
        o->overlapped = false;
        EP_TRY(time_run(o, run_events, o, &values[STEPS]));
        values[EXCHANGE] = sum_of(o, true);
        values[COMPUTE] = sum_of(o, false);
        for (int64_t i = 0; i < o->num_events; i++) {
            o->event_s[i * num + (n < 0 ? 0 : n)] = o->time_s[i];
        }
        o->overlapped = true;
        EP_TRY(time_run(o, run_events, o, &values[OVERLAPPED]));
        values[COMPUTE_OVERLAPPED] = sum_of(o, false);
        values[FLIGHT] = o->flight_s;
    }
out:
    return status;
}

/* --- building --------------------------------------------------------------------------------- */

static int find_phase(const struct ep_transport *transport, enum ep_op op, const char *name)
{
    int p = 0;
    while (strcmp(transport->ops[op].phases[p].name, name) != 0) {
        p++;
        EP_ASSERT(p < transport->ops[op].num_phases);
    }
    return p;
}

/* Tokens [first, end) of this rank. Not collective. */
static enum ep_status view_chunk(const struct overlap *o, int idx, struct chunk *chunk)
{
    const struct ep_layer *l = o->layer;
    const int64_t first = idx * l->routing.num_tokens / o->num_chunks;
    const int64_t end = (idx + 1) * l->routing.num_tokens / o->num_chunks;
    const int64_t top_k = l->routing.top_k;
    chunk->routing = l->routing; /* borrowed: not freed */
    chunk->routing.num_tokens = end - first;
    chunk->routing.topk_idx += first * top_k;
    chunk->routing.topk_weight += first * top_k;
    chunk->exchange = l->exchange;
    chunk->exchange.routing = &chunk->routing;
    chunk->exchange.tokens += first * l->exchange.row_bytes;
    chunk->exchange.results += first * l->exchange.combine_row_bytes;
    chunk->num_rows = calloc((size_t)l->rows.num_experts + 1, sizeof *chunk->num_rows);
    return chunk->num_rows != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for chunks");
}

static enum ep_status make_chunk(struct overlap *o, int idx)
{
    enum ep_status status = EP_OK;
    const struct ep_transport *transport = o->layer->point->transport;
    struct chunk *chunk = &o->chunks[idx];
    EP_TRY(ep_comm_agree(o->layer->all, view_chunk(o, idx, chunk)));
    EP_TRY(ep_comm_agree(o->layer->all, transport->create(&chunk->exchange, &chunk->transport)));
    status = ep_transport_run(transport, EP_OP_DISPATCH, chunk->transport);
    EP_TRY(ep_comm_agree(o->layer->all, status));
    transport->view(chunk->transport, &chunk->rows);
    for (int64_t e = 0; e < chunk->rows.num_experts; e++) {
        chunk->num_rows[e] = chunk->rows.start[e + 1] - chunk->rows.start[e];
    }
out:
    return status;
}

static enum ep_status allocate(struct overlap *o)
{
    const size_t most = (size_t)o->num_chunks * EP_OVERLAP_EVENTS_PER_CHUNK + EP_OVERLAP_EXTRA_EVENTS;
    const size_t num = MAX_REPETITIONS;
    o->chunks = calloc((size_t)o->num_chunks, sizeof *o->chunks);
    o->events = calloc(most, sizeof *o->events);
    o->time_s = calloc(most, sizeof *o->time_s);
    o->event_s = calloc(most * num, sizeof *o->event_s);
    o->values = calloc(3 * num * NUM_VALUES, sizeof *o->values); /* own, the most, the sum */
    return o->chunks != NULL && o->events != NULL && o->time_s != NULL && o->event_s != NULL &&
                   o->values != NULL
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for %d chunks", o->num_chunks);
}

static enum ep_status build(struct overlap *o)
{
    enum ep_status status = EP_OK;
    struct ep_layer *l = o->layer;
    const struct ep_transport *t = l->point->transport;
    const struct ep_overlap_phases phases = {
        .counts = find_phase(t, EP_OP_DISPATCH, "counts"),
        .pack = find_phase(t, EP_OP_DISPATCH, "pack"),
        .unpack = find_phase(t, EP_OP_DISPATCH, "unpack"),
        .combine_pack = find_phase(t, EP_OP_COMBINE, "pack"),
        .combine_unpack = find_phase(t, EP_OP_COMBINE, "unpack"),
    };
    EP_TRY(ep_comm_agree(l->all, allocate(o)));
    o->num_events = ep_overlap_list(o->num_chunks, l->shared != NULL, &phases, o->events);
    for (int c = 0; c < o->num_chunks; c++) {
        EP_TRY(make_chunk(o, c));
    }
out:
    return status;
}

static void fini(struct overlap *o)
{
    for (int c = 0; o->chunks != NULL && c < o->num_chunks; c++) {
        if (o->chunks[c].transport != NULL) {
            o->layer->point->transport->destroy(o->chunks[c].transport);
        }
        free(o->chunks[c].num_rows);
    }
    free(o->chunks);
    free(o->events);
    free(o->time_s);
    free(o->event_s);
    free(o->values);
}

/* --- what it comes to ------------------------------------------------------------------------- */

static double median_of(double *values, int64_t num)
{
    ep_stats_sort(values, num);
    return ep_stats_median_sorted(values, num);
}

/* This rank's shortest time in this order, from the medians of its events; and their sum. */
static void find_bound(struct overlap *o, int64_t num, double *bound_s, double *sum_s)
{
    *sum_s = 0;
    for (int64_t i = 0; i < o->num_events; i++) {
        o->time_s[i] = median_of(o->event_s + i * num, num);
        *sum_s += o->time_s[i];
    }
    *bound_s = ep_overlap_bound_s(o->events, o->num_events, o->time_s);
}

/* Median and interval over repetitions of (a - b) / c; b or c may be none (< 0). */
static enum ep_status summarize(const double *most, const double *mean, int64_t num, int a, int b,
                                int c, struct ep_summary *summary)
{
    double ratios[MAX_REPETITIONS] = {0};
    for (int64_t n = 0; n < num; n++) {
        const double of = (a <= OVERLAPPED ? most : mean)[n * NUM_VALUES + a];
        const double less = b < 0 ? 0 : most[n * NUM_VALUES + b];
        const double over = c < 0 ? 1 : (c <= OVERLAPPED ? most : mean)[n * NUM_VALUES + c];
        ratios[n] = over > 0 ? (of - less) / over : 0;
    }
    return ep_stats_summarize(ratios, num, summary);
}

static enum ep_status fill_result(const struct overlap *o, int64_t num, const double *most,
                                  const double *mean, const double bounds[2],
                                  struct ep_record_overlap *result)
{
    enum ep_status status = EP_OK;
    struct ep_summary whole, steps, overlapped, exchange, speedup, hidden, compute, flight;
    EP_TRY(summarize(most, mean, num, OVERLAPPED, -1, -1, &overlapped));
    EP_TRY(summarize(most, mean, num, WHOLE, -1, OVERLAPPED, &speedup));
    EP_TRY(summarize(most, mean, num, STEPS, OVERLAPPED, EXCHANGE, &hidden));
    EP_TRY(summarize(most, mean, num, COMPUTE_OVERLAPPED, -1, COMPUTE, &compute));
    EP_TRY(summarize(most, mean, num, FLIGHT, -1, EXCHANGE, &flight));
    EP_TRY(summarize(most, mean, num, WHOLE, -1, -1, &whole));
    EP_TRY(summarize(most, mean, num, STEPS, -1, -1, &steps));
    EP_TRY(summarize(most, mean, num, EXCHANGE, -1, -1, &exchange));
    *result = (struct ep_record_overlap){
        .chunks = o->num_chunks,
        .n = num,
        .whole_s = whole.median,
        .steps_s = steps.median,
        .median_s = overlapped.median,
        .low_s = overlapped.low,
        .high_s = overlapped.high,
        .exchange_s = exchange.median,
        .bound_s = bounds[0],
        .speedup = speedup.median,
        .speedup_low = speedup.low,
        .speedup_high = speedup.high,
        .hidden = hidden.median,
        .hidden_low = hidden.low,
        .hidden_high = hidden.high,
        .hidden_bound = exchange.median > 0 ? (bounds[1] - bounds[0]) / exchange.median : NAN,
        .compute_slowdown = compute.median,
        .exchange_slowdown = flight.median,
    };
out:
    return status;
}

static enum ep_status reduce(struct overlap *o, int64_t num, struct ep_record_overlap *result)
{
    enum ep_status status = EP_OK;
    struct ep_comm *comm = o->layer->all;
    const int64_t num_values = num * NUM_VALUES;
    double *most = o->values + MAX_REPETITIONS * NUM_VALUES;
    double *mean = most + MAX_REPETITIONS * NUM_VALUES;
    double bounds[2]; /* of the slowest rank: at best, and one after the other */
    find_bound(o, num, &bounds[0], &bounds[1]);
    memcpy(most, o->values, (size_t)num_values * sizeof *most);
    memcpy(mean, o->values, (size_t)num_values * sizeof *mean);
    EP_TRY(ep_comm_max_f64(comm, bounds, 2));
    EP_TRY(ep_comm_max_f64(comm, most, num_values));
    EP_TRY(ep_comm_sum_f64(comm, mean, num_values));
    for (int64_t i = 0; i < num_values; i++) {
        mean[i] /= ep_comm_size(comm);
    }
    status = fill_result(o, num, most, mean, bounds, result);
    EP_TRY(ep_comm_agree(comm, status));
out:
    return status;
}

/* As many as fit, after one of each kind; the same on all ranks. */
static enum ep_status choose_repetitions(struct overlap *o, double time_s, int64_t *num)
{
    enum ep_status status = EP_OK;
    EP_TRY(repeat(o, 1));
    double once_s = o->values[WHOLE] + o->values[STEPS] + o->values[OVERLAPPED];
    EP_TRY(ep_comm_max_f64(o->layer->all, &once_s, 1));
    const double fit = time_s / fmax(once_s, 1e-9);
    *num = fit < MIN_REPETITIONS ? MIN_REPETITIONS : fit < MAX_REPETITIONS ? (int64_t)fit
                                                                           : MAX_REPETITIONS;
out:
    return status;
}

enum ep_status ep_layer_overlap_measure(struct ep_layer *layer, int num_chunks, double time_s,
                                        struct ep_check *check, struct ep_record_overlap *result)
{
    enum ep_status status = EP_OK;
    int64_t num = 0;
    const int64_t used_bytes = ep_arena_used_bytes(layer->session->arena);
    struct overlap o = {.layer = layer, .num_chunks = num_chunks};
    EP_ASSERT(num_chunks >= 1 && num_chunks <= EP_OVERLAP_MAX_CHUNKS);
    EP_ASSERT(num_chunks <= layer->setting.map.max_tokens);
    EP_TRY(build(&o));
    EP_TRY(choose_repetitions(&o, time_s, &num));
    EP_TRY(repeat(&o, num));
    EP_TRY(reduce(&o, num, result));
    if (check != NULL) {
        EP_TRY(ep_layer_check_run(layer, run_events, &o, check)); /* overlapped, as the last repetition */
    }
out:
    fini(&o);
    ep_arena_release(layer->session->arena, used_bytes);
    return status;
}

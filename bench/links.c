/* SPDX-License-Identifier: Apache-2.0 */
/* Point-to-point messages between pairs of ranks, timed and verified. */
#include "bench/links.h"

#include "bench/comm_mpi.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TAG_THERE = 200, TAG_BACK, TAG_ACKNOWLEDGE };

/* A sample is to last this long, so that the unevenness of its start (a few us) is below 1 %. */
static const double sample_s = 300e-6;
enum { MAX_REPETITIONS = 100000, TRIAL_REPETITIONS = 3 };
/* A repetition as long as so many samples needs no calibration, and is warm after the trial. */
enum { SLOW_SAMPLES = 30 };

const char *ep_links_pattern_name(enum ep_links_pattern pattern)
{
    static const char *const names[EP_LINKS_NUM_PATTERNS] = {
        [EP_LINKS_PINGPONG] = "pingpong", [EP_LINKS_WINDOW] = "window"};
    EP_ASSERT((unsigned)pattern < EP_LINKS_NUM_PATTERNS);
    return names[pattern];
}

int64_t ep_links_window(int64_t size_bytes)
{
    const int64_t fits = ((int64_t)16 << 20) / size_bytes;
    return fits > EP_LINKS_MAX_WINDOW ? EP_LINKS_MAX_WINDOW : fits < 2 ? 2 : fits;
}

/* One rank's part of a case. */
struct end {
    const struct ep_comm *comm;
    MPI_Comm handle;
    int partner;  /* -1: in no pair */
    bool is_first; /* sends first */
    int size;     /* bytes of a message */
    int window;   /* messages of a repetition, one way */
    char *out;    /* [window][size] */
    char *in;     /* [window][size] */
    MPI_Request requests[EP_LINKS_MAX_WINDOW];
    struct ep_os_counters before; /* when samples began */
};

/* The partner waits for a message that will not come: nothing but ending the job is left. */
static void must(const struct end *e, int code, const char *call)
{
    const enum ep_status status = ep_comm_check(code, call);
    if (status != EP_OK) {
        ep_comm_abort(e->comm, status, ep_error_text());
    }
}

static enum ep_status ping_pong(void *ctx)
{
    struct end *e = ctx;
    if (e->partner < 0) {
        return EP_OK;
    }
    if (e->is_first) {
        must(e, MPI_Send(e->out, e->size, MPI_BYTE, e->partner, TAG_THERE, e->handle), "MPI_Send");
        must(e, MPI_Recv(e->in, e->size, MPI_BYTE, e->partner, TAG_BACK, e->handle,
                         MPI_STATUS_IGNORE), "MPI_Recv");
    } else {
        must(e, MPI_Recv(e->in, e->size, MPI_BYTE, e->partner, TAG_THERE, e->handle,
                         MPI_STATUS_IGNORE), "MPI_Recv");
        must(e, MPI_Send(e->out, e->size, MPI_BYTE, e->partner, TAG_BACK, e->handle), "MPI_Send");
    }
    return EP_OK;
}

static enum ep_status send_window(void *ctx)
{
    struct end *e = ctx;
    if (e->partner < 0) {
        return EP_OK;
    }
    for (int w = 0; w < e->window; w++) {
        const size_t offset = (size_t)w * (size_t)e->size;
        if (e->is_first) {
            must(e, MPI_Isend(e->out + offset, e->size, MPI_BYTE, e->partner, TAG_THERE,
                              e->handle, &e->requests[w]), "MPI_Isend");
        } else {
            must(e, MPI_Irecv(e->in + offset, e->size, MPI_BYTE, e->partner, TAG_THERE,
                              e->handle, &e->requests[w]), "MPI_Irecv");
        }
    }
    must(e, MPI_Waitall(e->window, e->requests, MPI_STATUSES_IGNORE), "MPI_Waitall");
    if (e->is_first) {
        must(e, MPI_Recv(NULL, 0, MPI_BYTE, e->partner, TAG_ACKNOWLEDGE, e->handle,
                         MPI_STATUS_IGNORE), "MPI_Recv");
    } else {
        must(e, MPI_Send(NULL, 0, MPI_BYTE, e->partner, TAG_ACKNOWLEDGE, e->handle), "MPI_Send");
    }
    return EP_OK;
}

static const struct {
    enum ep_status (*run)(void *ctx);
    bool both_ways;
} patterns[EP_LINKS_NUM_PATTERNS] = {
    [EP_LINKS_PINGPONG] = {ping_pong, true},
    [EP_LINKS_WINDOW] = {send_window, false},
};

/* Contents: 64-bit words that depend on seed, sender, message and position.
 * Source: splitmix64, Steele et al., doi 10.1145/2660193.2660195. */
static uint64_t word_of(uint64_t seed, int sender, int64_t idx)
{
    uint64_t z = seed + ((uint64_t)sender << 40) + (uint64_t)idx * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void fill(char *buffer, int64_t size_bytes, uint64_t seed, int sender)
{
    for (int64_t at = 0; at < size_bytes; at += 8) {
        const uint64_t word = word_of(seed, sender, at / 8);
        const int64_t left = size_bytes - at;
        memcpy(buffer + at, &word, (size_t)(left < 8 ? left : 8));
    }
}

static bool message_is_right(const char *message, int64_t offset, int64_t size_bytes,
                             uint64_t seed, int sender)
{
    for (int64_t i = 0; i < size_bytes;) {
        /* words lie at multiples of 8 of the whole buffer, not of the message */
        const int64_t at = offset + i;
        const uint64_t word = word_of(seed, sender, at / 8);
        const int64_t from = at % 8;
        const int64_t num = 8 - from < size_bytes - i ? 8 - from : size_bytes - i;
        if (memcmp(message + i, (const char *)&word + from, (size_t)num) != 0) {
            return false;
        }
        i += num;
    }
    return true;
}

/* What must not be there before a message arrives: the complement of what is to come. */
static void clear_expected(char *buffer, int64_t size_bytes, uint64_t seed, int sender)
{
    fill(buffer, size_bytes, seed, sender);
    for (int64_t i = 0; i < size_bytes; i++) {
        buffer[i] = (char)~buffer[i];
    }
}

static enum ep_status prepare(struct ep_comm *comm, struct ep_arena *arena,
                              const struct ep_links_case *work, struct end *e)
{
    enum ep_status status = EP_OK;
    void *out = NULL;
    void *in = NULL;
    const int rank = ep_comm_rank(comm);
    *e = (struct end){.comm = comm, .handle = ep_comm_handle(comm), .partner = -1};
    for (int64_t p = 0; p < work->num_pairs; p++) {
        const int64_t a = work->pairs[p][0];
        const int64_t b = work->pairs[p][1];
        if (a == rank || b == rank) {
            EP_ASSERT(e->partner < 0 && a != b);
            e->is_first = a == rank;
            e->partner = (int)(e->is_first ? b : a);
        }
    }
    EP_ASSERT(work->size_bytes >= 1 && work->size_bytes <= EP_LINKS_MAX_BYTES);
    e->size = (int)work->size_bytes;
    e->window = work->pattern == EP_LINKS_WINDOW ? (int)ep_links_window(work->size_bytes) : 1;
    const int64_t total = work->size_bytes * e->window;
    const bool sends = e->partner >= 0 && (e->is_first || patterns[work->pattern].both_ways);
    const bool receives = e->partner >= 0 && (!e->is_first || patterns[work->pattern].both_ways);
    ep_arena_reset(arena);
    if (sends) {
        EP_TRY(ep_arena_alloc(arena, total, "messages to be sent", &out));
        fill(out, total, work->seed, rank);
    }
    if (receives) {
        EP_TRY(ep_arena_alloc(arena, total, "messages to be received", &in));
        clear_expected(in, total, work->seed, e->partner);
    }
    e->out = out;
    e->in = in;
out:
    return ep_comm_agree(comm, status);
}

static enum ep_status verify(struct ep_comm *comm, const struct end *e, uint64_t seed,
                             struct ep_links_check *check)
{
    int64_t counts[2] = {0, 0};
    for (int w = 0; w < e->window && e->in != NULL; w++) {
        const int64_t offset = (int64_t)w * e->size;
        counts[0]++;
        counts[1] += !message_is_right(e->in + offset, offset, e->size, seed, e->partner);
    }
    const enum ep_status status = ep_comm_sum_i64(comm, counts, 2);
    *check = (struct ep_links_check){.messages = counts[0], .wrong = counts[1]};
    return status;
}

/* Before each sample: what was received before must not pass for what is to come. */
static enum ep_status spoil(void *ctx)
{
    struct end *e = ctx;
    for (int w = 0; w < e->window && e->in != NULL; w++) {
        char *message = e->in + (size_t)w * (size_t)e->size;
        message[0] = (char)~message[0];
        if (e->size > 1) {
            message[e->size - 1] = (char)~message[e->size - 1];
        }
    }
    return EP_OK;
}

static void begin_samples(void *ctx)
{
    struct end *e = ctx;
    e->before = ep_os_counters_read();
}

static void scale(double *values, int64_t num, double factor)
{
    for (int64_t i = 0; i < num; i++) {
        values[i] *= factor;
    }
}

/* From seconds per repetition to seconds per message, one way. */
static enum ep_status scale_result(struct ep_harness_result *result, double factor)
{
    scale(result->samples_s, result->num, factor);
    scale(result->local_s, result->num, factor);
    result->local_median_s *= factor;
    return ep_stats_summarize(result->samples_s, result->num, &result->summary);
}

/* One sample of so many repetitions, after `warmup` others; seconds per repetition. */
static enum ep_status try_out(const struct ep_harness_env *env, const struct ep_harness_work *run,
                              int64_t warmup, int64_t repetitions, double *time_s)
{
    enum ep_status status = EP_OK;
    struct ep_harness_result trial = {0};
    struct ep_harness_plan plan = ep_harness_plan_default(1);
    plan.cadence = EP_CADENCE_STREAM;
    plan.stream_repetitions = repetitions;
    plan.warmup_repetitions = warmup;
    plan.min_samples = 1;
    plan.max_samples = 1;
    EP_TRY(ep_harness_measure(env, run, &plan, &trial));
    *time_s = trial.summary.median;
out:
    ep_harness_result_fini(&trial);
    return status;
}

/* *first_s: of a repetition, the second of all. */
static enum ep_status calibrate(const struct ep_harness_env *env,
                                const struct ep_harness_work *run, double *first_s,
                                int64_t *repetitions)
{
    enum ep_status status = EP_OK;
    double time_s = 0;
    EP_TRY(try_out(env, run, 1, 1, &time_s));
    *first_s = time_s;
    if (time_s < SLOW_SAMPLES * sample_s) {
        EP_TRY(try_out(env, run, ep_harness_plan_default(1).warmup_repetitions, TRIAL_REPETITIONS,
                       &time_s));
    }
    const double wanted = sample_s / fmax(time_s, 1e-9);
    *repetitions = wanted < 1 ? 1 : wanted > MAX_REPETITIONS ? MAX_REPETITIONS : (int64_t)wanted;
out:
    return status;
}

enum ep_status ep_links_time_once(struct ep_comm *comm, struct ep_arena *arena,
                                  const struct ep_links_case *work, double *time_s)
{
    enum ep_status status = EP_OK;
    struct end e;
    const struct ep_harness_env env = ep_comm_harness_env(comm);
    const struct ep_harness_work run = {.run = patterns[work->pattern].run, .ctx = &e};
    EP_TRY(prepare(comm, arena, work, &e));
    EP_TRY(try_out(&env, &run, 1, 1, time_s));
out:
    return status;
}

enum ep_status ep_links_measure(struct ep_comm *comm, struct ep_arena *arena,
                                const struct ep_links_case *work, double budget_s,
                                struct ep_harness_result *result, int64_t *repetitions,
                                struct ep_os_counters *counters, struct ep_links_check *check)
{
    enum ep_status status = EP_OK;
    struct end e;
    const struct ep_harness_env env = ep_comm_harness_env(comm);
    const struct ep_harness_work run = {
        .run = patterns[work->pattern].run, .prepare = spoil, .begin = begin_samples,
        .ctx = &e};
    struct ep_harness_plan plan = ep_harness_plan_default(budget_s);
    double first_s = 0;
    EP_TRY(prepare(comm, arena, work, &e));
    EP_TRY(calibrate(&env, &run, &first_s, repetitions));
    plan.cadence = EP_CADENCE_STREAM;
    plan.stream_repetitions = *repetitions;
    if (first_s >= SLOW_SAMPLES * sample_s) {
        plan.warmup_repetitions = 1;
    }
    EP_TRY(ep_harness_measure(&env, &run, &plan, result));
    *counters = ep_os_counters_since(&e.before);
    const double messages = patterns[work->pattern].both_ways ? 2 : e.window;
    EP_TRY(ep_comm_agree(comm, scale_result(result, 1.0 / messages)));
    EP_TRY(verify(comm, &e, work->seed, check));
out:
    return status;
}

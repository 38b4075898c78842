/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic records with known parameters. Never measured. */
#include "tests/planted.h"

#include "base/random.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 1024, ROW_BYTES = 2 * HIDDEN, MAX_RANKS = 64 };

static const char *const default_skews[] = {"uniform", "zipf:0.6", "zipf:1.0", "hot:2",
                                            "hot:3",   "zipf:1.4", NULL};
static const int64_t default_tokens[] = {128, 1024, 8192, 0};
static const int64_t default_top_ks[] = {2, 4, 0};
static const char *const default_transports[] = {"alltoallv", "alltoallv-dedup", NULL};

void ep_planted_default(struct ep_planted *planted)
{
    *planted = (struct ep_planted){
        .seed = 1,
        .ranks = 4,
        .law = EP_PLANTED_M2,
        .latency_s = 20e-6,
        .message_s = 1e-6,
        .bw_bytes_per_s = 8e9,
        .copy_bytes_per_s = 12e9,
        .noise = 0.05,
        .sample_noise = 0.03,
        .num_visits = 2,
        .num_samples = 20,
        .split = true,
        .others = false,
        .skews = default_skews,
        .tokens = default_tokens,
        .top_ks = default_top_ks,
        .transports = default_transports,
    };
}

static double gauss(struct ep_random *random)
{
    /* Box and Muller */
    const double u = 1 - ep_random_f64(random);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * ep_random_f64(random));
}

/* The share of copies that each rank receives, the same from every sender. */
static void skew_shares(const char *skew, int64_t ranks, double *shares)
{
    double sum = 0;
    for (int64_t j = 0; j < ranks; j++) {
        shares[j] = 1;
        if (strncmp(skew, "zipf:", 5) == 0) {
            shares[j] = pow((double)(j + 1), -atof(skew + 5));
        } else if (strncmp(skew, "hot:", 4) == 0 && j == 0) {
            shares[j] = atof(skew + 4);
        }
        sum += shares[j];
    }
    for (int64_t j = 0; j < ranks; j++) {
        shares[j] /= sum;
    }
}

/* One case's rows, R[i][j], and what a record says of them. */
struct traffic {
    int64_t ranks;
    int64_t rows[EP_RECORD_NUM_BASES][MAX_RANKS * MAX_RANKS];
};

static void make_traffic(const double *shares, int64_t ranks, int64_t tokens, int64_t top_k,
                         bool transpose, struct traffic *traffic)
{
    traffic->ranks = ranks;
    for (int64_t i = 0; i < ranks; i++) {
        for (int64_t j = 0; j < ranks; j++) {
            const double share = shares[transpose ? i : j];
            const int64_t at = i * ranks + j;
            const double distinct = 1 - pow(1 - share, (double)top_k);
            traffic->rows[EP_RECORD_COPIES][at] = llround((double)(tokens * top_k) * share);
            traffic->rows[EP_RECORD_RANK_DEDUP][at] = llround((double)tokens * distinct);
            traffic->rows[EP_RECORD_NODE_DEDUP][at] = i == j ? tokens : 0;
        }
    }
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static struct ep_record_bytes count_bytes(const struct traffic *t, const int64_t *rows)
{
    struct ep_record_bytes bytes = {0};
    for (int64_t i = 0; i < t->ranks; i++) {
        int64_t out = 0, in = 0;
        for (int64_t j = 0; j < t->ranks; j++) {
            bytes.total += ROW_BYTES * rows[i * t->ranks + j];
            out += i != j ? ROW_BYTES * rows[i * t->ranks + j] : 0;
            in += i != j ? ROW_BYTES * rows[j * t->ranks + i] : 0;
        }
        bytes.remote += out;
        bytes.max_out = max_i64(bytes.max_out, out);
        bytes.max_in = max_i64(bytes.max_in, in);
    }
    return bytes;
}

static enum ep_status fill_features(struct ep_record *r, const struct traffic *t,
                                    enum ep_record_basis basis)
{
    enum ep_status status = EP_OK;
    for (int b = 0; b < EP_RECORD_NUM_BASES; b++) {
        r->bytes[b] = count_bytes(t, t->rows[b]);
    }
    const struct ep_record_bytes *own = &r->bytes[basis];
    const int64_t *rows = t->rows[basis];
    r->mean_out_bytes = (double)own->remote / (double)t->ranks;
    r->h_rank_bytes = max_i64(own->max_out, own->max_in);
    r->messages_max = t->ranks - 1;
    r->messages_nonzero_max = t->ranks - 1;
    r->self_bytes_max = 0;
    r->step_sum_bytes = 0;
    r->padding_bytes = 0;
    r->metadata_bytes = 8 * t->ranks * t->ranks;
    for (int64_t s = 0; s < t->ranks; s++) {
        int64_t largest = 0;
        for (int64_t i = 0; i < t->ranks; i++) {
            largest = max_i64(largest, rows[i * t->ranks + (i + s) % t->ranks]);
        }
        if (s == 0) {
            r->self_bytes_max = ROW_BYTES * largest;
        } else {
            r->step_sum_bytes += ROW_BYTES * largest;
        }
    }
    struct ep_record_level *level = NULL;
    EP_TRY(ep_record_add_level(r, "numa", &level));
    level->total = own->remote;
    level->max_in = own->max_in;
    level->max_out = own->max_out;
    level->messages = t->ranks * (t->ranks - 1);
    EP_TRY(ep_record_add_port(r, "memory0", "memory", "shared", 2 * own->total));
    EP_TRY(ep_record_add_message_bin(r, 0, (int64_t)floor(log2((double)r->h_rank_bytes + 1)),
                                     t->ranks - 1, r->h_rank_bytes));
out:
    return status;
}

static double exchange_time(const struct ep_planted *p, const struct ep_record *r)
{
    const double num_ranks = (double)p->ranks;
    switch (p->law) {
    case EP_PLANTED_M0: return r->mean_out_bytes / p->bw_bytes_per_s;
    case EP_PLANTED_M1:
        return (num_ranks - 1) * p->message_s + r->mean_out_bytes / p->bw_bytes_per_s;
    case EP_PLANTED_M2:
        return p->latency_s + p->message_s * (double)r->messages_max +
               (double)r->h_rank_bytes / p->bw_bytes_per_s;
    }
    return NAN;
}

static enum ep_status add_phase(struct ep_record *r, const char *name, double time_s,
                                int64_t copied_bytes)
{
    struct ep_record_phase *phase = NULL;
    const enum ep_status status = ep_record_add_phase(r, name, &phase);
    if (status == EP_OK) {
        phase->median_s = time_s;
        phase->low_s = 0.99 * time_s;
        phase->high_s = 1.01 * time_s;
        phase->copied_bytes_max = copied_bytes;
    }
    return status;
}

/* Samples around a median, and everything that follows from them. */
static enum ep_status fill_samples(const struct ep_planted *p, struct ep_random *random,
                                   double median_s, struct ep_record *r)
{
    double *samples = calloc((size_t)p->num_samples, sizeof *samples);
    if (samples == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for samples");
    }
    for (int i = 0; i < p->num_samples; i++) {
        samples[i] = median_s * exp(p->sample_noise * gauss(random));
    }
    enum ep_status status = ep_record_set_f64s(&r->samples_s, samples, p->num_samples);
    free(samples);
    return status == EP_OK ? ep_record_summarize(r) : status;
}

static enum ep_status fill_common(const struct ep_planted *p, int64_t order, int visit,
                                  struct ep_record *r)
{
    enum ep_status status = EP_OK;
    r->launch_idx = 0;
    r->order_idx = order;
    r->visit_idx = visit;
    r->start_utc_s = 1700000000 + (double)order;
    r->ranks = p->ranks;
    r->nodes = 1;
    r->ranks_per_node = p->ranks;
    r->seed = (int64_t)p->seed;
    r->threads = 1;
    r->warmup_s = 0.001;
    r->null_s = 2e-7;
    r->steal_s = 0;
    r->context_switches = 0;
    r->page_faults = 0;
    EP_TRY(ep_record_set_text(&r->run_id, "planted-%" PRIu64, p->seed));
    EP_TRY(ep_record_set_text(&r->host, "planted"));
    EP_TRY(ep_record_set_text(&r->rank_order, "packed"));
    EP_TRY(ep_record_set_text(&r->cadence, "barrier"));
    EP_TRY(ep_record_set_text(&r->buffers, "warm"));
    EP_TRY(ep_record_set_text(&r->pages, "thp"));
    EP_TRY(ep_record_set_text(&r->stop_reason, "fixed"));
out:
    return status;
}

/* The factors of one case. */
struct factors {
    const char *transport;
    const char *op;
    const char *skew;
    int64_t tokens;
    int64_t top_k;
};

static enum ep_status fill_names(const struct ep_planted *p, const struct factors *f,
                                 struct ep_record *r)
{
    enum ep_status status = EP_OK;
    const bool dedup = strcmp(f->transport, "alltoallv-dedup") == 0;
    r->tokens = f->tokens;
    r->hidden = HIDDEN;
    r->experts = 4 * p->ranks;
    r->top_k = f->top_k;
    r->row_bytes = ROW_BYTES;
    EP_TRY(ep_record_set_text(&r->case_name, "comm/%s/%s/pairwise/bf16/t%" PRId64
                              "/h%d/e%" PRId64 "/k%" PRId64 "/%s/s%" PRIu64 "/p%" PRId64, f->op,
                              f->transport, f->tokens, HIDDEN, r->experts, f->top_k, f->skew,
                              p->seed, p->ranks));
    EP_TRY(ep_record_set_text(&r->transport, "%s", f->transport));
    EP_TRY(ep_record_set_text(&r->algorithm, "pairwise"));
    EP_TRY(ep_record_set_text(&r->op, "%s", f->op));
    EP_TRY(ep_record_set_text(&r->dtype, "bf16"));
    EP_TRY(ep_record_set_text(&r->combine_dtype, "bf16"));
    EP_TRY(ep_record_set_text(&r->skew, "%s", f->skew));
    EP_TRY(ep_record_set_text(&r->placement, "block"));
    EP_TRY(ep_record_set_text(&r->routing_id, "%s-t%" PRId64 "-k%" PRId64, f->skew, f->tokens,
                              f->top_k));
    for (char *c = r->routing_id; *c != '\0'; c++) {
        *c = *c == ':' ? '-' : *c;
    }
    EP_TRY(ep_record_set_text(&r->byte_basis, "%s", dedup ? "rank-dedup" : "copies"));
out:
    return status;
}

static enum ep_status fill_times(const struct ep_planted *p, struct ep_random *random,
                                 struct ep_record *r)
{
    enum ep_status status = EP_OK;
    const struct ep_record_bytes *own = ep_record_own_bytes(r);
    double exchange_s = exchange_time(p, r) * exp(p->noise * gauss(random));
    if (ep_random_f64(random) < p->outliers) {
        exchange_s *= 2 + 3 * ep_random_f64(random);
    }
    const int64_t packed = 2 * own->total / p->ranks;
    const int64_t unpacked = 2 * (own->max_in + r->self_bytes_max);
    const double pack_s = (double)packed / p->copy_bytes_per_s;
    const double unpack_s = (double)unpacked / p->copy_bytes_per_s;
    const double counts_s = 5e-6;
    const double whole_s = pack_s + counts_s + exchange_s + unpack_s;
    if (p->split) {
        EP_TRY(add_phase(r, "pack", pack_s, packed));
        EP_TRY(add_phase(r, "counts", counts_s, 0));
        EP_TRY(add_phase(r, "exchange", exchange_s, 0));
        EP_TRY(add_phase(r, "unpack", unpack_s, unpacked));
    }
    EP_TRY(fill_samples(p, random, p->split ? whole_s : exchange_s, r));
    EP_TRY(ep_record_set_text(&r->bw_time, p->split ? "exchange" : "whole"));
    r->bw_bytes_per_s = (double)r->h_rank_bytes / exchange_s;
    r->bw_logical_bytes_per_s = (double)own->total / (double)p->ranks / exchange_s;
    r->check = (struct ep_record_check){.rows = own->total / ROW_BYTES};
    r->verified = 1;
out:
    return status;
}

static enum ep_status append(struct ep_records *records, struct ep_record *record)
{
    enum ep_status status = ep_record_make_id(record);
    struct ep_record *larger =
        realloc(records->items, (size_t)(records->num + 1) * sizeof *larger);
    if (larger == NULL || status != EP_OK) {
        records->items = larger != NULL ? larger : records->items;
        ep_record_fini(record);
        return ep_error_set(EP_ENOMEM, "no memory for records");
    }
    records->items = larger;
    records->items[records->num++] = *record;
    return EP_OK;
}

static enum ep_status add_case(const struct ep_planted *p, const struct factors *f,
                               struct ep_random *random, struct traffic *traffic,
                               struct ep_records *records)
{
    double shares[MAX_RANKS];
    double largest = 0;
    skew_shares(f->skew, p->ranks, shares);
    for (int64_t j = 0; j < p->ranks; j++) {
        largest = fmax(largest, shares[j]);
    }
    make_traffic(shares, p->ranks, f->tokens, f->top_k, strcmp(f->op, "combine") == 0, traffic);
    const bool dedup = strcmp(f->transport, "alltoallv-dedup") == 0;
    for (int visit = 0; visit < p->num_visits; visit++) {
        enum ep_status status = EP_OK;
        struct ep_record r;
        ep_record_init(&r, EP_RECORD_COMM);
        EP_TRY(fill_common(p, records->num, visit, &r));
        EP_TRY(fill_names(p, f, &r));
        EP_TRY(fill_features(&r, traffic, dedup ? EP_RECORD_RANK_DEDUP : EP_RECORD_COPIES));
        r.skew_achieved = largest * (double)p->ranks;
        EP_TRY(fill_times(p, random, &r));
        EP_TRY(append(records, &r));
        continue;
    out:
        ep_record_fini(&r);
        return status;
    }
    return EP_OK;
}

static enum ep_status add_links(const struct ep_planted *p, struct ep_random *random,
                                struct ep_records *records)
{
    for (int64_t size = 8; size <= 16 << 20; size *= 4) {
        for (int64_t pairs = 1; pairs <= p->ranks / 2; pairs *= 2) {
            enum ep_status status = EP_OK;
            struct ep_record r;
            ep_record_init(&r, EP_RECORD_LINKS);
            EP_TRY(fill_common(p, records->num, 0, &r));
            EP_TRY(ep_record_set_text(&r.case_name, "links/numa/pingpong/%" PRId64 "B/%" PRId64
                                      "pairs", size, pairs));
            EP_TRY(ep_record_set_text(&r.level, "numa"));
            EP_TRY(ep_record_set_text(&r.pattern, "pingpong"));
            EP_TRY(ep_record_set_i64s(&r.pair, (int64_t[]){0, 1}, 2));
            r.size_bytes = size;
            r.concurrent_pairs = pairs;
            const double time_s = 5e-7 + (double)size / (p->bw_bytes_per_s / (double)pairs);
            EP_TRY(fill_samples(p, random, time_s, &r));
            r.bw_bytes_per_s = (double)size / r.median_s;
            EP_TRY(append(records, &r));
            continue;
        out:
            ep_record_fini(&r);
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status add_gemm(const struct ep_planted *p, struct ep_random *random,
                               const char *backend, double flops_per_s, int64_t m,
                               struct ep_records *records)
{
    enum ep_status status = EP_OK;
    const int64_t n = 2048, k = 1024;
    struct ep_record r;
    ep_record_init(&r, EP_RECORD_KERNELS);
    EP_TRY(fill_common(p, records->num, 0, &r));
    EP_TRY(ep_record_set_text(&r.case_name, "kernels/gemm/%s/bf16/m%" PRId64 "/n%" PRId64
                              "/k%" PRId64, backend, m, n, k));
    EP_TRY(ep_record_set_text(&r.kernel, "gemm"));
    EP_TRY(ep_record_set_text(&r.dtype, "bf16"));
    EP_TRY(ep_record_set_text(&r.gemm.backend, "%s", backend));
    EP_TRY(ep_record_set_text(&r.gemm.dtype, "bf16"));
    r.gemm.m = m;
    r.gemm.n = n;
    r.gemm.k = k;
    r.gemm.groups = 1;
    r.gemm.weights_cold = 1;
    r.gemm.ranks_active = 1;
    r.gemm.flops = 2.0 * (double)(m * n * k);
    r.gemm.bytes = 2.0 * (double)(m * k + k * n + m * n);
    r.ranks_active = 1;
    r.moved_bytes = r.gemm.bytes;
    const double bound_s = fmax(r.gemm.flops / 2.5e11, r.gemm.bytes / 25e9);
    r.bound_s = bound_s;
    EP_TRY(ep_record_set_text(&r.bound_name, "%s",
                              bound_s > r.gemm.flops / 2.5e11 ? "read bandwidth" : "peak flops"));
    EP_TRY(fill_samples(p, random, fmax(bound_s * 1.1, r.gemm.flops / flops_per_s), &r));
    r.flops_per_s = r.gemm.flops / r.median_s;
    r.bw_bytes_per_s = r.gemm.bytes / r.median_s;
    return append(records, &r);
out:
    ep_record_fini(&r);
    return status;
}

/* Peaks and bandwidths by working set, as the roofline needs them. */
static enum ep_status add_peak(const struct ep_planted *p, struct ep_random *random,
                               const char *kernel, int64_t working_set, double per_s,
                               struct ep_records *records)
{
    enum ep_status status = EP_OK;
    struct ep_record r;
    ep_record_init(&r, EP_RECORD_KERNELS);
    EP_TRY(fill_common(p, records->num, 0, &r));
    EP_TRY(ep_record_set_text(&r.case_name, "kernels/%s/%" PRId64 "B", kernel, working_set));
    EP_TRY(ep_record_set_text(&r.kernel, "%s", kernel));
    EP_TRY(ep_record_set_text(&r.dtype, "bf16"));
    r.ranks_active = 1;
    const double work = 1e9;
    EP_TRY(fill_samples(p, random, work / per_s, &r));
    if (working_set > 0) {
        r.working_set_bytes = working_set;
        r.moved_bytes = work;
        r.bw_bytes_per_s = work / r.median_s;
    } else {
        r.flops_per_s = work / r.median_s;
    }
    return append(records, &r);
out:
    ep_record_fini(&r);
    return status;
}

static enum ep_status add_others(const struct ep_planted *p, struct ep_random *random,
                                 struct ep_records *records)
{
    enum ep_status status = EP_OK;
    EP_TRY(add_links(p, random, records));
    for (int64_t m = 1; m <= 1024; m *= 4) {
        EP_TRY(add_gemm(p, random, "onednn", 2.3e11, m, records));
        EP_TRY(add_gemm(p, random, "cblas", 1.0e11, m, records));
    }
    for (int64_t set = 1 << 15; set <= 1 << 28; set *= 4) {
        EP_TRY(add_peak(p, random, "read", set, set < 1 << 20 ? 9e10 : 2.5e10, records));
        EP_TRY(add_peak(p, random, "copy", set, set < 1 << 20 ? 6e10 : 2.4e10, records));
    }
    EP_TRY(add_peak(p, random, "fma", 0, 2.5e11, records));
out:
    return status;
}

enum ep_status ep_planted_make(const struct ep_planted *p, struct ep_records *records)
{
    static const char *const ops[] = {"dispatch", "combine", NULL};
    enum ep_status status = EP_OK;
    struct ep_records made = {0};
    struct ep_random random;
    ep_random_init(&random, p->seed, EP_RANDOM_TEST, 0);
    struct traffic *traffic = malloc(sizeof *traffic);
    if (traffic == NULL || p->ranks > MAX_RANKS) {
        free(traffic);
        return ep_error_set(EP_ENOMEM, "no memory for traffic, or more than %d ranks", MAX_RANKS);
    }
    for (const char *const *transport = p->transports; *transport != NULL; transport++) {
        for (const char *const *op = ops; *op != NULL; op++) {
            for (const char *const *skew = p->skews; *skew != NULL; skew++) {
                for (const int64_t *k = p->top_ks; *k != 0; k++) {
                    for (const int64_t *tokens = p->tokens; *tokens != 0; tokens++) {
                        const struct factors f = {*transport, *op, *skew, *tokens, *k};
                        EP_TRY(add_case(p, &f, &random, traffic, &made));
                    }
                }
            }
        }
    }
    if (p->others) {
        EP_TRY(add_others(p, &random, &made));
    }
    *records = made;
out:
    free(traffic);
    if (status != EP_OK) {
        ep_records_fini(&made);
    }
    return status;
}

enum ep_status ep_planted_write(const struct ep_planted *p, const char *path)
{
    enum ep_status status = EP_OK;
    struct ep_records records = {0};
    struct ep_run_dir dir = {.records_fd = -1};
    struct ep_run run;
    ep_run_init(&run);
    run.start_utc_s = 1700000000;
    run.num_ranks = p->ranks;
    run.num_nodes = 1;
    run.ranks_per_node = p->ranks;
    run.seed = (int64_t)p->seed;
    char *argv[] = {"make_planted_run"};
    EP_TRY(ep_run_add_command(&run, 1, argv, run.start_utc_s));
    EP_TRY(ep_record_set_text(&run.run_id, "planted-%" PRIu64, p->seed));
    EP_TRY(ep_record_set_text(&run.host, "planted"));
    EP_TRY(ep_record_set_text(&run.machine, "no machine: synthetic records of tests/planted.c"));
    EP_TRY(ep_record_set_text(&run.profile, "quick"));
    EP_TRY(ep_record_add_note(&run.warnings, "synthetic", "these records were computed, not "
                              "measured"));
    for (int64_t r = 0; r < p->ranks; r++) {
        EP_TRY(ep_run_add_rank(&run, r, "planted", 0, ""));
    }
    EP_TRY(ep_planted_make(p, &records));
    EP_TRY(ep_run_dir_create(path, &run, &dir));
    for (int64_t i = 0; i < records.num; i++) {
        EP_TRY(ep_run_dir_add_record(&dir, &records.items[i]));
    }
out:
    ep_run_dir_fini(&dir);
    ep_records_fini(&records);
    ep_run_fini(&run);
    return status;
}

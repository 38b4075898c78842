/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns from a 64-bit mixer of (token, position); rows are told apart by a hash where they err. */
#include "bench/pattern.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t token_seed(int64_t token)
{
    return mix((uint64_t)token * UINT64_C(0x9e3779b97f4a7c15) + 1);
}

static void fill_row(int64_t token, int64_t row_bytes, char *row)
{
    const uint64_t seed = token_seed(token);
    int64_t i = 0;
    for (; i + 8 <= row_bytes; i += 8) {
        const uint64_t word = mix(seed + (uint64_t)i);
        memcpy(row + i, &word, 8);
    }
    if (i < row_bytes) {
        const uint64_t word = mix(seed + (uint64_t)i);
        memcpy(row + i, &word, (size_t)(row_bytes - i));
    }
}

void ep_pattern_fill_tokens(int64_t first_token, int64_t num_tokens, int64_t row_bytes, char *rows)
{
    for (int64_t t = 0; t < num_tokens; t++) {
        fill_row(first_token + t, row_bytes, rows + t * row_bytes);
    }
}

/* Visit the copies that reach `rank` from `source`, in token order: count them per local expert, or
 * (next != NULL) note their tokens. */
static enum ep_status visit_source(const struct ep_dropping *dropping,
                                   const struct ep_placement *placement,
                                   const struct ep_token_map *map, int64_t rank,
                                   int64_t source, int64_t *count, int64_t *next, int64_t *tokens)
{
    struct ep_routing routing;
    const enum ep_status status =
        ep_dropping_generate(dropping, source, false, &routing, NULL);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < routing.num_tokens * routing.top_k; i++) {
        const int32_t expert = routing.topk_idx[i];
        if (expert < 0 || ep_placement_rank(placement, expert, source) != rank) {
            continue;
        }
        const int32_t local = ep_placement_local_idx(placement, expert, source);
        if (next == NULL) {
            count[local]++;
        } else {
            tokens[next[local]++] = map->start[source] + i / routing.top_k;
        }
    }
    ep_routing_fini(&routing);
    return EP_OK;
}

enum ep_status ep_pattern_expect_rows(const struct ep_dropping *dropping,
                                      const struct ep_placement *placement,
                                      const struct ep_token_map *map, int64_t rank,
                                      int64_t **tokens, int64_t **start, int64_t *num_rows)
{
    enum ep_status status = EP_OK;
    const int32_t *experts = NULL;
    const int64_t num_local = ep_placement_local_experts(placement, rank, &experts);
    int64_t *starts = calloc((size_t)num_local + 1, sizeof *starts);
    int64_t *next = calloc((size_t)num_local + 1, sizeof *next);
    int64_t *list = NULL;
    if (starts == NULL || next == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to check rank %" PRId64, rank);
        goto out;
    }
    for (int64_t source = 0; source < map->num_ranks; source++) {
        EP_TRY(visit_source(dropping, placement, map, rank, source, starts + 1, NULL, NULL));
    }
    for (int64_t e = 0; e < num_local; e++) {
        starts[e + 1] += starts[e];
        next[e] = starts[e];
    }
    list = calloc((size_t)starts[num_local] + 1, sizeof *list);
    if (list == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to check rank %" PRId64, rank);
        goto out;
    }
    for (int64_t source = 0; source < map->num_ranks; source++) {
        EP_TRY(visit_source(dropping, placement, map, rank, source, NULL, next, list));
    }
    *num_rows = starts[num_local];
    *tokens = list;
    *start = starts;
    list = NULL;
    starts = NULL;
out:
    free(list);
    free(next);
    free(starts);
    return status;
}

static int compare_hashes(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t hash_row(const char *row, int64_t row_bytes)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int64_t i = 0; i < row_bytes; i++) {
        hash = (hash ^ (unsigned char)row[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* One expert's rows are not as expected: match found against expected ones as multisets. */
static enum ep_status classify(const char *rows, int64_t num_found, int64_t row_bytes,
                               const int64_t *tokens, int64_t num_expected,
                               struct ep_check *check)
{
    uint64_t *hashes = malloc((size_t)(num_found + num_expected + 1) * sizeof *hashes);
    char *row = malloc((size_t)row_bytes);
    if (hashes == NULL || row == NULL) {
        free(hashes);
        free(row);
        return ep_error_set(EP_ENOMEM, "no memory to classify wrong rows");
    }
    uint64_t *expected = hashes;
    uint64_t *found = hashes + num_expected;
    for (int64_t i = 0; i < num_expected; i++) {
        fill_row(tokens[i], row_bytes, row);
        expected[i] = hash_row(row, row_bytes);
    }
    for (int64_t i = 0; i < num_found; i++) {
        found[i] = hash_row(rows + i * row_bytes, row_bytes);
    }
    int64_t misplaced = 0;
    for (int64_t i = 0; i < num_found && i < num_expected; i++) {
        misplaced += found[i] != expected[i];
    }
    qsort(expected, (size_t)num_expected, sizeof *expected, compare_hashes);
    qsort(found, (size_t)num_found, sizeof *found, compare_hashes);
    const struct ep_check before = *check;
    int64_t e = 0;
    int64_t f = 0;
    while (e < num_expected || f < num_found) {
        if (f == num_found || (e < num_expected && expected[e] < found[f])) {
            check->missing++;
            e++;
        } else if (e == num_expected || found[f] < expected[e]) {
            const int again = (f > 0 && found[f - 1] == found[f]);
            check->doubled += again;
            check->wrong += !again;
            f++;
        } else {
            e++;
            f++;
        }
    }
    if (check->missing == before.missing && check->doubled == before.doubled &&
        check->wrong == before.wrong) {
        check->wrong += misplaced; /* all there, in another order */
    }
    free(hashes);
    free(row);
    return EP_OK;
}

enum ep_status ep_pattern_check_rows(const struct ep_expert_rows *found, int64_t row_bytes,
                                     const int64_t *tokens, const int64_t *start,
                                     struct ep_check *check)
{
    enum ep_status status = EP_OK;
    char *row = malloc((size_t)row_bytes);
    if (row == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to check rows");
    }
    for (int64_t e = 0; e < found->num_experts; e++) {
        const int64_t num_found = found->start[e + 1] - found->start[e];
        const int64_t num_expected = start[e + 1] - start[e];
        const char *rows = found->rows + found->start[e] * row_bytes;
        int same = num_found == num_expected;
        for (int64_t i = 0; same && i < num_expected; i++) {
            fill_row(tokens[start[e] + i], row_bytes, row);
            same = memcmp(rows + i * row_bytes, row, (size_t)row_bytes) == 0;
        }
        check->rows += num_expected;
        if (!same) {
            EP_TRY(classify(rows, num_found, row_bytes, tokens + start[e], num_expected, check));
        }
    }
out:
    free(row);
    return status;
}

static float output_value(uint64_t seed, int64_t h)
{
    const uint64_t bits = mix(seed + (uint64_t)h) >> 40;
    return (float)((int64_t)(bits % 257) - 128) / 128.0F;
}

static uint64_t output_seed(int64_t token, int64_t expert)
{
    return mix(token_seed(token) + (uint64_t)expert * UINT64_C(0xd1342543de82ef95));
}

void ep_pattern_fill_outputs(const struct ep_expert_rows *rows, const int64_t *tokens,
                             const int32_t *experts, enum ep_dtype dtype, int64_t hidden)
{
    const int64_t row_bytes = ep_dtype_row_bytes(dtype, hidden);
    for (int64_t e = 0; e < rows->num_experts; e++) {
        for (int64_t i = rows->start[e]; i < rows->start[e + 1]; i++) {
            const uint64_t seed = output_seed(tokens[i], experts[e]);
            char *row = rows->outputs + i * row_bytes;
            for (int64_t h = 0; h < hidden; h++) {
                const float value = output_value(seed, h);
                if (dtype == EP_FP32) {
                    memcpy(row + 4 * h, &value, 4);
                } else {
                    const uint16_t half = ep_bf16_from_f32(value);
                    memcpy(row + 2 * h, &half, 2);
                }
            }
        }
    }
}

static double result_value(const char *row, enum ep_dtype dtype, int64_t h)
{
    if (dtype == EP_FP32) {
        float value;
        memcpy(&value, row + 4 * h, 4);
        return (double)value;
    }
    uint16_t half;
    memcpy(&half, row + 2 * h, 2);
    return (double)ep_bf16_to_f32(half);
}

/* Terms of one token: seeds of its experts' rows, and weights. */
struct terms {
    uint64_t seeds[EP_TRANSPORT_MAX_TOP_K];
    double weights[EP_TRANSPORT_MAX_TOP_K];
    int64_t num;
};

static bool result_is_right(const char *row, enum ep_dtype dtype, int64_t hidden,
                            const struct terms *terms, double factor)
{
    for (int64_t h = 0; h < hidden; h++) {
        double sum = 0;
        double magnitude = 0;
        for (int64_t j = 0; j < terms->num; j++) {
            const double term = terms->weights[j] * (double)output_value(terms->seeds[j], h);
            sum += term;
            magnitude += fabs(term);
        }
        if (!(fabs(result_value(row, dtype, h) - sum) <= factor * magnitude)) {
            return false;
        }
    }
    return true;
}

void ep_pattern_check_results(const struct ep_routing *routing, int64_t first_token,
                              enum ep_dtype dtype, int64_t hidden, int roundings,
                              const char *results, struct ep_check *check)
{
    const int64_t row_bytes = ep_dtype_row_bytes(dtype, hidden);
    const double unit = dtype == EP_FP32 ? 0x1p-24 : 0x1p-8;
    const double factor = roundings * unit + (double)(routing->top_k + 1) * 0x1p-23;
    struct terms terms;
    for (int64_t t = 0; t < routing->num_tokens; t++) {
        terms.num = 0;
        for (int64_t j = t * routing->top_k; j < (t + 1) * routing->top_k; j++) {
            if (routing->topk_idx[j] >= 0) {
                terms.seeds[terms.num] = output_seed(first_token + t, routing->topk_idx[j]);
                terms.weights[terms.num++] = (double)routing->topk_weight[j];
            }
        }
        check->rows++;
        check->wrong += !result_is_right(results + t * row_bytes, dtype, hidden, &terms, factor);
    }
}

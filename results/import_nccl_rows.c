/* SPDX-License-Identifier: Apache-2.0 */
/* Results of nccl-tests: devices, sizes that must fit together, patterns of alltoallv. */
#include "results/import_nccl.h"

#include "base/file.h"
#include "results/import_lines.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* nccl-tests rounds each message of alltoall(v) down to this. */
enum { ALIGNMENT_BYTES = 16 };
#define MATRIX_LIMIT_BYTES (INT64_C(256) << 20)

static const struct {
    const char *name;
    enum ep_nccl_op op;
    const char *how;
} ops[] = {
    {"alltoall", EP_NCCL_ALLTOALL, "nccl-alltoall"},
    {"alltoallv", EP_NCCL_ALLTOALLV, "nccl-alltoallv"},
    {"sendrecv", EP_NCCL_SENDRECV, "ring"},
};

static const struct {
    const char *name;
    int64_t size_bytes;
} types[] = {
    {"int8", 1},   {"uint8", 1},  {"int32", 4},    {"uint32", 4},   {"int64", 8},
    {"uint64", 8}, {"half", 2},   {"float", 4},    {"double", 8},   {"bfloat16", 2},
    {"f8e4m3", 1}, {"f8e5m2", 1}, {"fp8_e4m3", 1}, {"fp8_e5m2", 1},
};

void ep_nccl_run_fini(struct ep_nccl_run *run)
{
    free(run->hosts);
    free(run->rank_host);
    run->hosts = NULL;
    run->rank_host = NULL;
}

enum ep_status ep_nccl_find_op(const char *where, const char *program, enum ep_nccl_op *op)
{
    const char *slash = strrchr(program, '/');
    const char *name = slash != NULL ? slash + 1 : program;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        const size_t length = strlen(ops[i].name);
        if (strncmp(name, ops[i].name, length) == 0 &&
            (name[length] == '\0' || strncmp(name + length, "_perf", 5) == 0)) {
            *op = ops[i].op;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL,
                        "%s: '%.60s' is none of the tests that can be imported: alltoall, "
                        "alltoallv or sendrecv",
                        where, name);
}

/* --- devices --------------------------------------------------------------------------------- */

static enum ep_status find_host(struct ep_nccl_run *run, const char *host, int32_t *idx)
{
    for (int64_t i = 0; i < run->num_hosts; i++) {
        if (strcmp(run->hosts[i], host) == 0) {
            *idx = (int32_t)i;
            return EP_OK;
        }
    }
    void *larger = realloc(run->hosts, (size_t)(run->num_hosts + 1) * sizeof *run->hosts);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for hosts");
    }
    run->hosts = larger;
    snprintf(run->hosts[run->num_hosts], EP_NCCL_HOST, "%s", host);
    *idx = (int32_t)run->num_hosts++;
    return EP_OK;
}

enum ep_status ep_nccl_add_device(struct ep_nccl_run *run, const char *where, int64_t rank,
                                  int64_t group, const char *host)
{
    if (group != 0) {
        return ep_error_set(EP_EINVAL,
                            "%s: group %" PRId64 "; one group of ranks was expected "
                            "(without NCCL_TESTS_SPLIT)",
                            where, group);
    }
    if (rank != run->num_ranks || rank >= EP_IMPORT_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "%s: rank %" PRId64 "; rank %" PRId64 " was expected next",
                            where, rank, run->num_ranks);
    }
    if (strlen(host) >= EP_NCCL_HOST) {
        return ep_error_set(EP_EINVAL, "%s: a host's name of up to %d characters was expected",
                            where, EP_NCCL_HOST - 1);
    }
    int32_t *larger = realloc(run->rank_host, (size_t)(rank + 1) * sizeof *larger);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the hosts of ranks");
    }
    run->rank_host = larger;
    run->num_ranks++;
    return find_host(run, host, &run->rank_host[rank]);
}

enum ep_status ep_nccl_place(struct ep_nccl_run *run, const char *where)
{
    run->ranks_per_node = -1;
    if (run->num_ranks == 0) {
        return EP_OK;
    }
    bool packed = run->num_ranks % run->num_hosts == 0;
    bool spread = packed;
    const int64_t per_node = run->num_ranks / run->num_hosts;
    for (int64_t r = 0; r < run->num_ranks; r++) {
        packed = packed && run->rank_host[r] == r / per_node;
        spread = spread && run->rank_host[r] == r % run->num_hosts;
    }
    if (!packed && !spread) {
        return ep_error_set(EP_EINVAL,
                            "%s: %" PRId64 " ranks on %" PRId64 " hosts; as many on each, one "
                            "host after the other or in turn, were expected",
                            where, run->num_ranks, run->num_hosts);
    }
    run->ranks_per_node = per_node;
    run->is_spread = !packed;
    return EP_OK;
}

/* --- messages -------------------------------------------------------------------------------- */

/* src/alltoallv.cu, AlltoAllvGetPeerBytesDistanceWeighted: the same sums in the same order. */
static int64_t distance_bytes(int64_t distance, int64_t num_ranks, int64_t total_bytes,
                              double spread)
{
    if (num_ranks == 1) {
        return total_bytes / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
    }
    const int64_t sum = num_ranks * (num_ranks - 1) / 2;
    const double uniform = (double)total_bytes / (double)num_ranks;
    const double by_distance = (double)distance * (double)total_bytes / (double)sum;
    const double bytes = (1.0 - spread) * uniform + spread * by_distance;
    return (int64_t)bytes / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
}

static enum ep_status add_distances(const struct ep_nccl_run *run, const struct ep_nccl_row *row,
                                    int64_t type_bytes, struct ep_import *import, int64_t *idx)
{
    const int64_t num = run->num_ranks;
    if (isnan(run->spread)) {
        return ep_error_set(EP_EINVAL,
                            "%s: messages of alltoallv's generated pattern: --spread S, as "
                            "NCCL_TESTS_ALLTOALLV_SPREAD was (1 where it was not set)",
                            row->where);
    }
    const enum ep_status status = ep_import_add_matrix(import, num, idx);
    if (status != EP_OK) {
        return status;
    }
    struct ep_import_matrix *m = &import->matrices[*idx];
    for (int64_t i = 0; i < num; i++) {
        for (int64_t j = 0; j < num; j++) {
            m->bytes[i * num + j] = distance_bytes((j - i + num) % num, num,
                                                   row->count * num * type_bytes, run->spread);
        }
    }
    if (run->spread == 0) {
        snprintf(m->skew, sizeof m->skew, "uniform");
    } else {
        snprintf(m->skew, sizeof m->skew, "distance:%g", run->spread);
    }
    return EP_OK;
}

/* The file's first rows and columns: it may be of more ranks. */
static enum ep_status add_file(struct ep_nccl_run *run, const struct ep_nccl_row *row,
                               const struct ep_import_options *options, struct ep_import *import,
                               int64_t *idx)
{
    enum ep_status status = EP_OK;
    char *text = NULL;
    size_t length = 0;
    if (options->matrix == NULL) {
        return ep_error_set(EP_EINVAL,
                            "%s: count 0: messages of a matrix file: --matrix FILE, as "
                            "NCCL_TESTS_ALLTOALLV_MATRIX_FILE was",
                            row->where);
    }
    if (run->matrix == 0) {
        int64_t whole = 0;
        EP_TRY(ep_file_read(options->matrix, MATRIX_LIMIT_BYTES, &text, &length));
        EP_TRY(ep_nccl_read_matrix(options->matrix, text, length, run->scale, import, &whole));
        run->matrix = whole + 1;
    }
    const int64_t whole = run->matrix - 1;
    const int64_t num = run->num_ranks;
    const int64_t width = import->matrices[whole].num_ranks;
    if (width < num) {
        EP_TRY(ep_error_set(EP_EINVAL,
                            "%s: a matrix of %" PRId64 " ranks; at least the %" PRId64
                            " of %s were expected",
                            options->matrix, width, num, row->where));
    }
    if (width == num) {
        *idx = whole;
        goto out;
    }
    EP_TRY(ep_import_add_matrix(import, num, idx));
    struct ep_import_matrix *m = &import->matrices[*idx];
    memcpy(m->skew, import->matrices[whole].skew, sizeof m->skew);
    for (int64_t i = 0; i < num; i++) {
        memcpy(m->bytes + i * num, import->matrices[whole].bytes + i * width,
               (size_t)num * sizeof *m->bytes);
    }
out:
    free(text);
    return status;
}

/* The size that nccl-tests prints: the most that a rank sends or receives, own bytes included. */
static int64_t printed_size(const struct ep_import_matrix *m)
{
    int64_t most = 0;
    for (int64_t i = 0; i < m->num_ranks; i++) {
        int64_t out = 0, in = 0;
        for (int64_t j = 0; j < m->num_ranks; j++) {
            out += m->bytes[i * m->num_ranks + j];
            in += m->bytes[j * m->num_ranks + i];
        }
        most = out > most ? out : most;
        most = in > most ? in : most;
    }
    return most;
}

/* --- a line of results ----------------------------------------------------------------------- */

static enum ep_status find_type(const struct ep_nccl_row *row, int64_t *size_bytes)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, row->type) == 0) {
            *size_bytes = types[i].size_bytes;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "%s: '%.20s' is no type of nccl-tests that is known", row->where,
                        row->type);
}

static enum ep_status check_bandwidth(const struct ep_nccl_row *row)
{
    const double gb_per_s = (double)row->size_bytes / (row->time_us * 1e3);
    if (row->time_us > 0 && fabs(row->algbw - gb_per_s) > 0.02 * gb_per_s + 0.011) {
        return ep_error_set(EP_EINVAL, "%s: algbw %g GB/s; %.2f of size / time was expected",
                            row->where, row->algbw, gb_per_s);
    }
    return EP_OK;
}

/* Bytes of one message, or a matrix of them. */
static enum ep_status find_messages(struct ep_nccl_run *run, const struct ep_nccl_row *row,
                                    const struct ep_import_options *options,
                                    struct ep_import *import, int64_t *message_bytes,
                                    int64_t *matrix)
{
    enum ep_status status = EP_OK;
    int64_t type_bytes = 0, size_bytes = 0;
    const int64_t num = run->num_ranks;
    EP_TRY(find_type(row, &type_bytes));
    if (row->count > (INT64_C(1) << 55) / type_bytes / num) {
        EP_TRY(
            ep_error_set(EP_EINVAL, "%s: count %" PRId64 " is too large", row->where, row->count));
    }
    *matrix = -1;
    *message_bytes = row->count * type_bytes;
    size_bytes = run->op == EP_NCCL_SENDRECV ? *message_bytes : *message_bytes * num;
    if (run->op == EP_NCCL_ALLTOALLV && row->size_bytes > 0) {
        EP_TRY(row->count > 0 ? add_distances(run, row, type_bytes, import, matrix)
                              : add_file(run, row, options, import, matrix));
        size_bytes = printed_size(&import->matrices[*matrix]);
        *message_bytes = size_bytes;
    }
    if (size_bytes != row->size_bytes) {
        EP_TRY(ep_error_set(EP_EINVAL,
                            "%s: size %" PRId64 "; %" PRId64 " was expected of count, type "
                            "and %" PRId64 " ranks",
                            row->where, row->size_bytes, size_bytes, num));
    }
out:
    return status;
}

static void fill_point(const struct ep_nccl_run *run, const struct ep_nccl_row *row,
                       struct ep_import_point *p)
{
    const bool is_link = run->op == EP_NCCL_SENDRECV;
    p->kind = is_link ? EP_IMPORT_LINK : EP_IMPORT_EXCHANGE;
    p->cadence = run->blocking ? "barrier" : "stream";
    p->num_ranks = run->num_ranks;
    p->ranks_per_node = run->ranks_per_node;
    p->spread = run->is_spread;
    p->mean = row->times_us != NULL ? NULL : run->slowest ? "repetitions" : "repetitions and ranks";
    p->wrong = row->wrong;
    p->verified = row->wrong < 0 ? -1 : row->wrong == 0;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (ops[i].op == run->op) {
            p->how = ops[i].how;
            snprintf(p->tool, sizeof p->tool, "nccl-tests %s%s%s", ops[i].name,
                     run->version[0] != '\0' ? " " : "", run->version);
        }
    }
    if (is_link) {
        p->concurrent_pairs = run->num_ranks;
        p->bw_bytes_per_s = (double)p->size_bytes / (row->time_us * 1e-6);
    }
}

static enum ep_status set_samples(const struct ep_nccl_row *row, struct ep_import_point *p)
{
    enum ep_status status = EP_OK;
    double *times_s = calloc((size_t)row->num_times + 1, sizeof *times_s);
    if (times_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " times", row->num_times);
    }
    for (int64_t i = 0; i < row->num_times; i++) {
        times_s[i] = row->times_us[i] * 1e-6;
        if (!(times_s[i] > 0 && times_s[i] <= 1e6)) {
            EP_TRY(ep_error_set(EP_EINVAL, "%s: a time of %g us; above 0 was expected", row->where,
                                row->times_us[i]));
        }
    }
    EP_TRY(ep_record_set_f64s(&p->samples_s, times_s, row->num_times));
out:
    free(times_s);
    return status;
}

enum ep_status ep_nccl_add_row(struct ep_nccl_run *run, const struct ep_nccl_row *row,
                               const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    int64_t message_bytes = 0, matrix = -1;
    struct ep_import_point *p = NULL;
    if (run->op == EP_NCCL_NONE) {
        return ep_error_set(EP_EINVAL,
                            "%s: the text does not name its test: --op alltoall, alltoallv "
                            "or sendrecv",
                            row->where);
    }
    run->num_ranks = run->num_ranks > 0 ? run->num_ranks : options->num_ranks;
    if (run->num_ranks < 1 || run->num_ranks > EP_IMPORT_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "%s: the text lists no devices: --ranks N, up to %d",
                            row->where, EP_IMPORT_MAX_RANKS);
    }
    EP_TRY(check_bandwidth(row));
    EP_TRY(find_messages(run, row, options, import, &message_bytes, &matrix));
    EP_TRY(ep_import_add_point(import, row->where, message_bytes, row->time_us * 1e-6, &p));
    if (p != NULL) {
        p->matrix = matrix;
        fill_point(run, row, p);
        if (row->times_us != NULL) {
            EP_TRY(set_samples(row, p));
        }
    }
out:
    return status;
}

/* --- the matrix file ------------------------------------------------------------------------- */

/* FNV-1a, 64 bit: Fowler, Noll and Vo. */
static uint64_t add_hash(uint64_t hash, const char *word)
{
    for (; *word != '\0'; word++) {
        hash = (hash ^ (unsigned char)*word) * 1099511628211u;
    }
    return (hash ^ ' ') * 1099511628211u;
}

/* Numbers of a line are as many as there are columns; wide matrices have long lines. */
static enum ep_status read_matrix_line(struct ep_import_lines *l, double scale, int64_t limit,
                                       int64_t *cells, int64_t *num, uint64_t *hash)
{
    char *state = NULL;
    *num = 0;
    for (char *word = strtok_r(l->text, " \t", &state); word != NULL;
         word = strtok_r(NULL, " \t", &state)) {
        double value = 0;
        enum ep_status status = EP_OK;
        l->words[0] = word;
        l->num_words = 1;
        if (*num == limit) {
            return ep_import_lines_fail(l,
                                        "more than %" PRId64
                                        " numbers; a square matrix of up to %d "
                                        "ranks was expected",
                                        limit, EP_IMPORT_MAX_RANKS);
        }
        status = ep_import_lines_get_f64(l, 0, "bytes", 0, 0x1p50, &value);
        if (status != EP_OK) {
            return status;
        }
        *hash = add_hash(*hash, word);
        if (!(value * scale <= 0x1p50)) {
            return ep_import_lines_fail(l, "%g bytes times %g are too many", value, scale);
        }
        if (cells != NULL) {
            cells[*num] = (int64_t)(value * scale) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
        }
        (*num)++;
    }
    return EP_OK;
}

/* The first line says how many columns there are; read twice, as the lines are cut in reading. */
static enum ep_status count_columns(const char *name, const char *text, size_t length,
                                    int64_t *columns)
{
    struct ep_import_lines l = {0};
    uint64_t unused = 0;
    int64_t num = 0;
    enum ep_status status = ep_import_lines_init(name, text, length, &l);
    while (status == EP_OK && num == 0 && ep_import_lines_next(&l)) {
        status = read_matrix_line(&l, 1, EP_IMPORT_MAX_RANKS, NULL, &num, &unused);
    }
    if (status == EP_OK && num == 0) {
        status = ep_error_set(EP_EINVAL, "%s: no number in it; a square matrix was expected", name);
    }
    ep_import_lines_fini(&l);
    *columns = num;
    return status;
}

enum ep_status ep_nccl_read_matrix(const char *name, const char *text, size_t length, double scale,
                                   struct ep_import *import, int64_t *idx)
{
    enum ep_status status = EP_OK;
    struct ep_import_lines l = {0};
    uint64_t hash = 14695981039346656037u;
    int64_t columns = 0, made = 0, row = 0, num = 0;
    EP_TRY(count_columns(name, text, length, &columns));
    EP_TRY(ep_import_add_matrix(import, columns, &made));
    EP_TRY(ep_import_lines_init(name, text, length, &l));
    while (ep_import_lines_next(&l)) {
        if (l.text[0] == '\0') {
            continue;
        }
        if (row == columns) {
            EP_TRY(ep_import_lines_fail(&l, "a line more than the %" PRId64 " of a square matrix",
                                        columns));
        }
        EP_TRY(read_matrix_line(&l, scale, columns, import->matrices[made].bytes + row * columns,
                                &num, &hash));
        if (num != columns) {
            EP_TRY(ep_import_lines_fail(&l, "%" PRId64 " numbers; %" PRId64 " were expected", num,
                                        columns));
        }
        row++;
    }
    if (row != columns) {
        EP_TRY(ep_import_lines_fail(&l, "%" PRId64 " lines of numbers; %" PRId64 " were expected",
                                    row, columns));
    }
    snprintf(import->matrices[made].skew, sizeof import->matrices[made].skew, "matrix:%08" PRIx32,
             (uint32_t)(hash ^ (hash >> 32)));
    *idx = made;
out:
    ep_import_lines_fini(&l);
    return status;
}

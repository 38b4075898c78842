/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of kernels records, one case per size and shape. */
#include "results/compute_fit.h"

#include "base/file.h"
#include "base/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_permute(const struct ep_record *r)
{
    return strcmp(r->kernel, "permute") == 0 || strcmp(r->kernel, "unpermute") == 0;
}

static bool is_gemm(const struct ep_record *r)
{
    return (strcmp(r->kernel, "gemm") == 0 || strncmp(r->kernel, "ffn-", 4) == 0) &&
           r->gemm.backend != NULL && r->gemm.dtype != NULL && r->gemm.groups > 0 &&
           r->gemm.flops > 0 && r->gemm.bytes > 0;
}

static bool is_usable(const struct ep_record *r)
{
    return r->kind == EP_RECORD_KERNELS && r->kernel != NULL && r->median_s > 0 &&
           r->ranks_active > 0 && r->verified != 0 &&
           (is_gemm(r) || (is_permute(r) && r->dtype != NULL && r->moved_bytes > 0));
}

static const char *dtype_of(const struct ep_record *r)
{
    return is_permute(r) ? r->dtype : r->gemm.dtype;
}

static const char *backend_of(const struct ep_record *r)
{
    return is_permute(r) ? "" : r->gemm.backend;
}

static int64_t size_of(const struct ep_record *r)
{
    return is_permute(r) ? llround(r->moved_bytes / (double)r->ranks_active) : r->gemm.m;
}

/* Groups, then cases. */
static int compare_groups(const struct ep_record *a, const struct ep_record *b)
{
    int order = strcmp(a->kernel, b->kernel);
    order = order != 0 ? order : strcmp(backend_of(a), backend_of(b));
    order = order != 0 ? order : strcmp(dtype_of(a), dtype_of(b));
    return order != 0 ? order
                      : (a->ranks_active > b->ranks_active) - (a->ranks_active < b->ranks_active);
}

static int compare_records(const void *left, const void *right)
{
    const struct ep_record *a = *(const struct ep_record *const *)left;
    const struct ep_record *b = *(const struct ep_record *const *)right;
    const int order = compare_groups(a, b);
    return order != 0 ? order : strcmp(a->case_name, b->case_name);
}

static struct ep_work_piece piece_of(const struct ep_record *r)
{
    if (is_permute(r)) {
        return (struct ep_work_piece){1, 0, r->moved_bytes / (double)r->ranks_active};
    }
    const double groups = (double)r->gemm.groups;
    return (struct ep_work_piece){groups, r->gemm.flops / groups, r->gemm.bytes / groups};
}

static int64_t index_of(int64_t *seen, int64_t *num, int64_t value)
{
    for (int64_t i = 0; i < *num; i++) {
        if (seen[i] == value) {
            return i;
        }
    }
    seen[*num] = value;
    return (*num)++;
}

/* One part of records that are a group, cases side by side. */
static enum ep_status fill_part(const struct ep_record **records, int64_t num, struct ep_part *part)
{
    const struct ep_record *r = records[0];
    const bool plural = r->ranks_active > 1;
    *part = (struct ep_part){.kernel = r->kernel, .dtype = dtype_of(r),
                             .backend = is_permute(r) ? NULL : r->gemm.backend,
                             .ranks_active = r->ranks_active};
    part->name = ep_format_new("%s %s%s%s, %" PRId64 " rank%s", r->kernel,
                               is_permute(r) ? "" : r->gemm.backend, is_permute(r) ? "" : " ",
                               dtype_of(r), r->ranks_active, plural ? "s" : "");
    part->cases = calloc((size_t)num, sizeof *part->cases);
    part->pieces = calloc((size_t)num, sizeof *part->pieces);
    int64_t *sizes = calloc((size_t)num, sizeof *sizes);
    double *times = calloc((size_t)num, sizeof *times);
    if (part->name == NULL || part->cases == NULL || part->pieces == NULL || sizes == NULL ||
        times == NULL) {
        free(sizes);
        free(times);
        return ep_error_set(EP_ENOMEM, "no memory for kernels");
    }
    for (int64_t first = 0, next; first < num; first = next) {
        for (next = first; next < num &&
                           strcmp(records[next]->case_name, records[first]->case_name) == 0; next++) {
            times[next - first] = records[next]->median_s;
        }
        const int64_t at = part->num_cases++;
        ep_stats_sort(times, next - first);
        part->pieces[at] = piece_of(records[first]);
        part->cases[at] = (struct ep_part_case){
            .name = records[first]->case_name,
            .work = {1, &part->pieces[at], 1},
            .time_s = ep_stats_median_sorted(times, next - first),
            .fold = index_of(sizes, &part->num_sizes, size_of(records[first]))};
    }
    part->num_folds = part->num_sizes;
    free(sizes);
    free(times);
    return EP_OK;
}

enum ep_status ep_compute_fit_records(const struct ep_records *records,
                                      const struct ep_fit_options *options,
                                      struct ep_compute_fit *fit)
{
    enum ep_status status = EP_OK;
    int64_t num = 0;
    const size_t room = (size_t)records->num + 1;
    const struct ep_record **used = calloc(room, sizeof *used);
    *fit = (struct ep_compute_fit){.parts = calloc(room, sizeof *fit->parts)};
    if (used == NULL || fit->parts == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for kernels"));
    }
    for (int64_t i = 0; i < records->num; i++) {
        if (is_usable(&records->items[i])) {
            used[num++] = &records->items[i];
        }
    }
    qsort(used, (size_t)num, sizeof *used, compare_records);
    for (int64_t first = 0, next; first < num; first = next) {
        for (next = first + 1; next < num && compare_groups(used[first], used[next]) == 0; next++) {
        }
        struct ep_part *part = &fit->parts[fit->num_parts++];
        EP_TRY(fill_part(used + first, next - first, part));
        EP_TRY(ep_part_fit(part, options));
    }
out:
    free(used);
    if (status != EP_OK) {
        ep_compute_fit_fini(fit);
    }
    return status;
}

void ep_compute_fit_fini(struct ep_compute_fit *fit)
{
    for (int64_t i = 0; i < fit->num_parts; i++) {
        ep_part_fini(&fit->parts[i]);
    }
    free(fit->parts);
    *fit = (struct ep_compute_fit){0};
}

static const char *const use_names[] = {"experts", "permute", "unpermute"};

const char *ep_compute_use_name(enum ep_compute_use use)
{
    return use_names[use];
}

const struct ep_part *ep_compute_fit_find(const struct ep_compute_fit *fit, enum ep_compute_use use,
                                          const char *dtype)
{
    const struct ep_part *best = NULL;
    const int column = use == EP_COMPUTE_EXPERTS ? EP_ROOFLINE_FLOP : EP_ROOFLINE_BYTE;
    for (int64_t i = 0; i < fit->num_parts; i++) {
        const struct ep_part *p = &fit->parts[i];
        const double rate = p->parameters[column].value;
        const bool is_it = use == EP_COMPUTE_EXPERTS ? strcmp(p->kernel, "gemm") == 0
                                                     : strcmp(p->kernel, use_names[use]) == 0;
        if (!is_it || strcmp(p->dtype, dtype) != 0 || isnan(rate)) {
            continue;
        }
        if (best == NULL || p->ranks_active > best->ranks_active ||
            (p->ranks_active == best->ranks_active && rate > best->parameters[column].value)) {
            best = p;
        }
    }
    return best;
}

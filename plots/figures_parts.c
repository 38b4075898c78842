/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of the parts: expert GEMMs under their roofline, and links. */
#include "base/stats.h"
#include "plots/figure_data.h"
#include "results/machine_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SERIES = 12, MAX_ROOFS = 4, LABEL = 128, MAX_SIZES = 256 };

static void grow(double range[2], double value)
{
    range[0] = fmin(range[0], value);
    range[1] = fmax(range[1], value);
}

/* --- GEMM rate -------------------------------------------------------------------------------- */

static bool is_gemm(const struct ep_record *r)
{
    return r->kind == EP_RECORD_KERNELS && r->kernel != NULL && strcmp(r->kernel, "gemm") == 0 &&
           r->gemm.backend != NULL && r->gemm.dtype != NULL && r->gemm.flops > 0 && r->gemm.m > 0 &&
           r->median_s > 0;
}

static bool is_same_shape(const struct ep_record *a, const struct ep_record *b)
{
    return a->gemm.n == b->gemm.n && a->gemm.k == b->gemm.k && a->gemm.groups == b->gemm.groups &&
           a->gemm.ranks_active == b->gemm.ranks_active &&
           a->gemm.weights_cold == b->gemm.weights_cold;
}

/* Different m of one shape, ascending. */
static int find_sizes(const struct ep_records *records, const struct ep_record *shape,
                      int64_t sizes[MAX_SIZES])
{
    int num = 0;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (!is_gemm(r) || !is_same_shape(r, shape)) {
            continue;
        }
        int j = 0;
        while (j < num && sizes[j] < r->gemm.m) {
            j++;
        }
        if ((j == num || sizes[j] != r->gemm.m) && num < MAX_SIZES) {
            memmove(&sizes[j + 1], &sizes[j], (size_t)(num - j) * sizeof sizes[0]);
            sizes[j] = r->gemm.m;
            num++;
        }
    }
    return num;
}

/* The shape with most sizes; of these the one on most ranks, then the largest. */
static const struct ep_record *find_shape(const struct ep_records *records)
{
    const struct ep_record *best = NULL;
    int best_num = 0;
    int64_t sizes[MAX_SIZES + 1];
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (!is_gemm(r) || (best != NULL && is_same_shape(r, best))) {
            continue;
        }
        const int num = find_sizes(records, r, sizes);
        const bool larger = best == NULL || r->gemm.ranks_active > best->gemm.ranks_active ||
                            (r->gemm.ranks_active == best->gemm.ranks_active &&
                             r->gemm.n * r->gemm.k > best->gemm.n * best->gemm.k);
        if (num > best_num || (num == best_num && larger)) {
            best = r;
            best_num = num;
        }
    }
    return best;
}

/* Pooled visits of one GEMM: NaN where there is none. */
struct gemm_point {
    double flops;
    double bytes;
    double median_s, low_s, high_s;
    double bound_s; /* median over visits */
};

/* Of all back ends where `backend` is NULL. */
static enum ep_status pool_gemm(const struct ep_records *records, const struct ep_record *shape,
                                const char *backend, const char *dtype, int64_t m,
                                struct gemm_point *point)
{
    double *values = malloc(2 * (size_t)(records->num + 1) * sizeof *values);
    if (values == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for GEMM records");
    }
    double *bounds = values + records->num + 1;
    int64_t num = 0, num_bounds = 0;
    *point = (struct gemm_point){NAN, NAN, NAN, NAN, NAN, NAN};
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (!is_gemm(r) || !is_same_shape(r, shape) || r->gemm.m != m ||
            strcmp(r->gemm.dtype, dtype) != 0 ||
            (backend != NULL && strcmp(r->gemm.backend, backend) != 0)) {
            continue;
        }
        values[num++] = r->median_s;
        point->flops = r->gemm.flops;
        point->bytes = r->gemm.bytes;
        point->low_s = isnan(point->low_s) || r->low_s < point->low_s ? r->low_s : point->low_s;
        point->high_s = isnan(point->high_s) || r->high_s > point->high_s ? r->high_s
                                                                          : point->high_s;
        if (r->bound_s > 0) {
            bounds[num_bounds++] = r->bound_s;
        }
    }
    ep_stats_sort(values, num);
    ep_stats_sort(bounds, num_bounds);
    point->median_s = num > 0 ? ep_stats_median_sorted(values, num) : NAN;
    point->bound_s = num_bounds > 0 ? ep_stats_median_sorted(bounds, num_bounds) : NAN;
    free(values);
    return EP_OK;
}

static void put_gemm_row(struct ep_sheet *sheet, int series, int roof, const char *backend,
                         const char *dtype, double m, const struct gemm_point *point)
{
    ep_sheet_put_number(sheet, series);
    ep_sheet_put_number(sheet, roof);
    ep_sheet_put_text(sheet, backend);
    ep_sheet_put_text(sheet, dtype);
    ep_sheet_put_number(sheet, m);
    ep_sheet_put_number(sheet, roof > 0 ? NAN : point->flops / point->median_s);
    ep_sheet_put_number(sheet, roof > 0 ? NAN : point->flops / point->high_s);
    ep_sheet_put_number(sheet, roof > 0 ? NAN : point->flops / point->low_s);
    ep_sheet_put_number(sheet, roof > 0 ? point->flops / point->bound_s : NAN);
    ep_sheet_end_row(sheet);
}

struct gemm_series {
    const char *backend;
    const char *dtype;
};

/* Pairs of back end and dtype, and dtypes, in order of appearance. */
static void find_series(const struct ep_records *records, const struct ep_record *shape,
                        struct gemm_series series[MAX_SERIES], int *num_series,
                        const char *dtypes[MAX_ROOFS], int *num_dtypes)
{
    *num_series = *num_dtypes = 0;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (!is_gemm(r) || !is_same_shape(r, shape)) {
            continue;
        }
        int j = 0, d = 0;
        while (j < *num_series && (strcmp(series[j].backend, r->gemm.backend) != 0 ||
                                   strcmp(series[j].dtype, r->gemm.dtype) != 0)) {
            j++;
        }
        while (d < *num_dtypes && strcmp(dtypes[d], r->gemm.dtype) != 0) {
            d++;
        }
        if (j == *num_series && j < MAX_SERIES) {
            series[(*num_series)++] = (struct gemm_series){r->gemm.backend, r->gemm.dtype};
        }
        if (d == *num_dtypes && d < MAX_ROOFS) {
            dtypes[(*num_dtypes)++] = r->gemm.dtype;
        }
    }
}

/* --- the roofline: time of a call >= max(flops / peak, bytes / read) ---------------------------- */

struct roof {
    double peak_flops_per_s;
    double read_bytes_per_s; /* either NaN = not known */
    bool from_records;       /* of the GEMMs: taken beside them, in the same repetitions */
};

/* Peak and read bandwidth as measured apart, with as many ranks at work: the fastest loop of the
 * dtype; the fastest read of the largest working set, since weights come from memory. */
static struct roof find_measured_roof(const struct ep_records *records,
                                      const struct ep_record *shape, const char *dtype)
{
    struct roof roof = {NAN, NAN, false};
    int64_t largest = 0;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (r->kind != EP_RECORD_KERNELS || r->kernel == NULL ||
            r->ranks_active != shape->gemm.ranks_active) {
            continue;
        }
        const bool is_peak = strcmp(r->kernel, "peak") == 0 || strcmp(r->kernel, "fma") == 0 ||
                             strcmp(r->kernel, "dot") == 0;
        if (is_peak && r->dtype != NULL && strcmp(r->dtype, dtype) == 0 && r->flops_per_s > 0) {
            roof.peak_flops_per_s = fmax(roof.peak_flops_per_s, r->flops_per_s);
        }
        if (strcmp(r->kernel, "read") == 0 && r->bw_bytes_per_s > 0 &&
            r->working_set_bytes >= largest) {
            roof.read_bytes_per_s = r->working_set_bytes > largest
                                        ? r->bw_bytes_per_s
                                        : fmax(roof.read_bytes_per_s, r->bw_bytes_per_s);
            largest = r->working_set_bytes;
        }
    }
    return roof;
}

/* What the GEMM records say of their bound, by its name; else what was measured apart. */
static enum ep_status find_roof(const struct ep_records *records, const struct ep_record *shape,
                                const char *dtype, struct roof *roof)
{
    double *peaks = malloc(2 * (size_t)(records->num + 1) * sizeof *peaks);
    if (peaks == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a roofline");
    }
    double *reads = peaks + records->num + 1;
    int64_t num_peaks = 0, num_reads = 0;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (!is_gemm(r) || !is_same_shape(r, shape) || strcmp(r->gemm.dtype, dtype) != 0 ||
            !(r->bound_s > 0)) {
            continue;
        }
        if (r->bound_name != NULL && strncmp(r->bound_name, "read", 4) == 0) {
            reads[num_reads++] = r->gemm.bytes / r->bound_s;
        } else {
            peaks[num_peaks++] = r->gemm.flops / r->bound_s;
        }
    }
    ep_stats_sort(peaks, num_peaks);
    ep_stats_sort(reads, num_reads);
    if (num_peaks + num_reads > 0) {
        *roof = (struct roof){num_peaks > 0 ? ep_stats_median_sorted(peaks, num_peaks) : NAN,
                              num_reads > 0 ? ep_stats_median_sorted(reads, num_reads) : NAN, true};
    } else {
        *roof = find_measured_roof(records, shape, dtype);
    }
    free(peaks);
    return EP_OK;
}

/* Where reading and computing take as long: bytes(m) = fixed + m * per_row, through two sizes;
 * flops(m) = m * f. peak (fixed + m per_row) = read f m. NaN where that is nowhere. */
static double find_knee(const struct roof *roof, const struct gemm_point *small, int64_t small_m,
                        const struct gemm_point *large, int64_t large_m)
{
    const double per_row = (large->bytes - small->bytes) / (double)(large_m - small_m);
    const double fixed = small->bytes - per_row * (double)small_m;
    const double slope = roof->read_bytes_per_s * small->flops / (double)small_m -
                         roof->peak_flops_per_s * per_row;
    const double knee = roof->peak_flops_per_s * fixed / slope;
    return slope > 0 && knee > (double)small_m && knee < (double)large_m ? knee : NAN;
}

/* The points of one dtype's roofline: at the sizes measured, and where it bends. */
static enum ep_status put_roof(const struct ep_records *records, const struct ep_record *shape,
                               const char *dtype, const int64_t *sizes, int num_sizes, int number,
                               struct ep_sheet *sheet, double range[2], bool *any)
{
    enum ep_status status = EP_OK;
    struct roof roof = {NAN, NAN, false};
    struct gemm_point last = {NAN, NAN, NAN, NAN, NAN, NAN};
    int64_t last_m = 0;
    *any = false;
    EP_TRY(find_roof(records, shape, dtype, &roof));
    for (int i = 0; i < num_sizes; i++) {
        struct gemm_point point;
        EP_TRY(pool_gemm(records, shape, NULL, dtype, sizes[i], &point));
        if (!roof.from_records) { /* fmax() would pass over a NaN: both are needed */
            point.bound_s = point.flops / roof.peak_flops_per_s + point.bytes / roof.read_bytes_per_s;
            point.bound_s = isfinite(point.bound_s)
                                ? fmax(point.flops / roof.peak_flops_per_s,
                                       point.bytes / roof.read_bytes_per_s)
                                : NAN;
        }
        if (!isfinite(point.bound_s)) {
            continue;
        }
        const double knee = *any ? find_knee(&roof, &last, last_m, &point, sizes[i]) : NAN;
        if (isfinite(knee)) {
            const struct gemm_point bend = {.flops = roof.peak_flops_per_s, .bound_s = 1};
            put_gemm_row(sheet, 0, number, "roofline", dtype, knee, &bend);
        }
        grow(range, point.flops / point.bound_s);
        put_gemm_row(sheet, 0, number, "roofline", dtype, (double)sizes[i], &point);
        last = point;
        last_m = sizes[i];
        *any = true;
    }
out:
    return status;
}

/* All rooflines; labels of those that have points. */
static enum ep_status put_roofs(const struct ep_records *records, const struct ep_record *shape,
                                const char *const *dtypes, int num_dtypes, const int64_t *sizes,
                                int num_sizes, struct ep_sheet *sheet, char labels[][LABEL],
                                int *num_roofs, double range[2])
{
    enum ep_status status = EP_OK;
    *num_roofs = 0;
    for (int d = 0; d < num_dtypes; d++) {
        bool any = false;
        EP_TRY(put_roof(records, shape, dtypes[d], sizes, num_sizes, *num_roofs + 1, sheet, range,
                        &any));
        if (any) {
            snprintf(labels[(*num_roofs)++], LABEL, "roofline %s, from measured peaks", dtypes[d]);
        }
    }
out:
    return status;
}

enum ep_status ep_figure_gemm_rate(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    enum ep_status status = EP_OK;
    const struct ep_record *shape = find_shape(in->records);
    int64_t sizes[MAX_SIZES + 1];
    struct gemm_series series[MAX_SERIES];
    const char *dtypes[MAX_ROOFS], *items[MAX_SERIES], *roof_items[MAX_ROOFS];
    char labels[MAX_SERIES][LABEL], roofs[MAX_ROOFS][LABEL];
    int num = 0, num_dtypes = 0, num_roofs = 0;
    if (shape == NULL) {
        return ep_sheet_refuse(sheet, "no expert GEMM was measured (epbench kernels)");
    }
    const int num_sizes = find_sizes(in->records, shape, sizes);
    double range[2] = {INFINITY, 0};
    find_series(in->records, shape, series, &num, dtypes, &num_dtypes);
    ep_sheet_put_header(sheet, "series roof backend dtype tokens_per_expert flops_per_s "
                               "low_flops_per_s high_flops_per_s roofline_flops_per_s");
    for (int j = 0; j < num; j++) {
        for (int i = 0; i < num_sizes; i++) {
            struct gemm_point point;
            EP_TRY(pool_gemm(in->records, shape, series[j].backend, series[j].dtype, sizes[i],
                             &point));
            if (isfinite(point.median_s)) {
                grow(range, point.flops / fmax(point.high_s, point.median_s));
                grow(range, point.flops / fmin(point.low_s, point.median_s));
                put_gemm_row(sheet, j + 1, 0, series[j].backend, series[j].dtype,
                             (double)sizes[i], &point);
            }
        }
        snprintf(labels[j], LABEL, "%s %s", series[j].backend, series[j].dtype);
        items[j] = labels[j];
    }
    EP_TRY(put_roofs(in->records, shape, dtypes, num_dtypes, sizes, num_sizes, sheet, roofs,
                     &num_roofs, range));
    for (int i = 0; i < num_roofs; i++) {
        roof_items[i] = roofs[i];
    }
    ep_figure_define_header(
        in, sheet, "Expert GEMM rate against tokens per expert", shape->ranks, shape->nodes,
        "Measured medians of one rank, %" PRId64 " rank%s at work at once; %s%sm x %" PRId64
        " times %" PRId64 " x %" PRId64 ", weights %s.%s",
        shape->gemm.ranks_active, shape->gemm.ranks_active == 1 ? "" : "s",
        shape->model != NULL ? shape->model : "", shape->model != NULL ? ", " : "", shape->gemm.k,
        shape->gemm.k, shape->gemm.n, shape->gemm.weights_cold == 1 ? "from memory" : "in cache",
        num_roofs == 0 ? " No roofline: its peak or read bandwidth was not measured." : "");
    ep_sheet_define_list(sheet, "ep_series", items, num);
    ep_sheet_define_number(sheet, "ep_num_roofs", num_roofs);
    ep_sheet_define_number(sheet, "ep_y_min", range[0] / 1e9 / 1.4);
    ep_sheet_define_number(sheet, "ep_y_max", range[1] / 1e9 * 1.4);
    ep_sheet_define_list(sheet, "ep_roof", num_roofs > 0 ? roof_items : items,
                         num_roofs > 0 ? num_roofs : 1);
    ep_sheet_define(sheet, "ep_x_label", "tokens per expert (rows of the GEMM)");
    ep_sheet_define(sheet, "ep_y_label", "Gflop/s of a rank");
out:
    return status;
}

/* --- links ------------------------------------------------------------------------------------ */

static bool is_same_line(const struct ep_link_point *a, const struct ep_link_point *b)
{
    return strcmp(a->level, b->level) == 0 && strcmp(a->pattern, b->pattern) == 0 &&
           a->concurrent_pairs == b->concurrent_pairs;
}

enum ep_status ep_figure_links(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    struct ep_link_point *points = NULL;
    int64_t num_points = 0;
    char labels[MAX_SERIES][LABEL];
    const char *items[MAX_SERIES];
    double range[2] = {INFINITY, 0}, bw[2] = {INFINITY, 0}, time_s[2] = {INFINITY, 0};
    int num = 0;
    const enum ep_status status = ep_link_points_pool(in->records, &points, &num_points);
    if (status != EP_OK) {
        return status;
    }
    ep_sheet_put_header(sheet, "series level pattern concurrent_pairs size_bytes time_s "
                               "bw_bytes_per_s");
    for (int64_t i = 0; i < num_points; i++) {
        const struct ep_link_point *p = &points[i];
        if (i == 0 || !is_same_line(p, p - 1)) {
            if (num == MAX_SERIES) {
                break;
            }
            snprintf(labels[num], LABEL, "%.40s, %.40s, %" PRId64 " pair%s at once", p->level,
                     p->pattern[0] != '\0' ? p->pattern : "pattern not named", p->concurrent_pairs,
                     p->concurrent_pairs == 1 ? "" : "s");
            items[num] = labels[num];
            num++;
        }
        if (p->size_bytes <= 0) {
            continue; /* a logarithm has no place for it */
        }
        ep_sheet_put_number(sheet, num);
        ep_sheet_put_text(sheet, p->level);
        ep_sheet_put_text(sheet, p->pattern);
        ep_sheet_put_number(sheet, (double)p->concurrent_pairs);
        ep_sheet_put_number(sheet, (double)p->size_bytes);
        ep_sheet_put_number(sheet, p->time_s);
        ep_sheet_put_number(sheet, p->bw_bytes_per_s);
        ep_sheet_end_row(sheet);
        grow(range, (double)p->size_bytes);
        grow(bw, p->bw_bytes_per_s);
        grow(time_s, p->time_s);
    }
    free(points);
    if (num == 0 || range[1] <= 0) {
        return ep_sheet_refuse(sheet, "no links were measured (epbench links)");
    }
    ep_figure_define_header(in, sheet, "Links: bandwidth and time against size",
                            in->run->num_ranks > 0 ? in->run->num_ranks : 1,
                            in->run->num_nodes > 0 ? in->run->num_nodes : 1,
                            "Measured medians per level of the topology; bytes sent one way, time of "
                            "a message one way (window: many in flight, time over their number).");
    ep_sheet_define_list(sheet, "ep_series", items, num);
    ep_sheet_define_number(sheet, "ep_x_step", ep_figure_tick_step(range[0], range[1]));
    ep_sheet_define_number(sheet, "ep_x_min", range[0] / 1.5);
    ep_sheet_define_number(sheet, "ep_x_max", range[1] * 1.5);
    ep_sheet_define_number(sheet, "ep_bw_min", bw[0] / 1e9 / 1.5);
    ep_sheet_define_number(sheet, "ep_bw_max", bw[1] / 1e9 * 1.5);
    ep_sheet_define_number(sheet, "ep_us_min", time_s[0] * 1e6 / 1.5);
    ep_sheet_define_number(sheet, "ep_us_max", time_s[1] * 1e6 * 1.5);
    return EP_OK;
}

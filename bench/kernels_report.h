/* SPDX-License-Identifier: Apache-2.0 */
/* One row of the GEMM comparison, what is asked of it, and how it is printed. */
#ifndef EP_BENCH_KERNELS_REPORT_H
#define EP_BENCH_KERNELS_REPORT_H

#include "base/error.h"
#include "bench/kernels_gemm.h"
#include "bench/kernels_peaks.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { EP_KERNELS_ROW_BACKENDS = 8 };

/** A ratio of times: its median over repetitions and that median's 95 % interval; infinite where there
 *  are too few samples for one. */
struct ep_kernels_share {
    double median;
    double low;
    double high;
};

/** Median of up to EP_KERNELS_MAX_SAMPLES values. */
double ep_kernels_median_of(const double *values, int num);

/** Median of values[i] / others[i], both of one repetition, so that drift cancels; 95 % interval. */
struct ep_kernels_share ep_kernels_share_of(const double *values, const double *others, int num);

/** Medians per rank, of the slowest rank in each repetition; shares are medians of the ratios within
 *  one repetition, of the default back end. */
struct ep_kernels_row {
    const char *model;
    const char *matrix; /* "w13", "w2" */
    enum ep_dtype dtype;
    int64_t tokens; /* rows of X */
    int64_t k, n;
    double flops;            /* of one call */
    double bytes;            /* that it must move at least */
    double weight_bytes;     /* of the matrix alone */
    double peak_flops_per_s; /* measured, this dtype */
    double read_bytes_per_s; /* measured, all ranks reading */
    double bound_s;          /* roofline: the longer of flops / peak and bytes / read bandwidth */
    double weights_s;        /* to read the matrix once */
    int num_backends;
    int default_idx;
    const char *backends[EP_KERNELS_ROW_BACKENDS];
    double median_s[EP_KERNELS_ROW_BACKENDS];
    struct ep_kernels_share of_peak;     /* of the measured peak */
    struct ep_kernels_share of_roofline; /* bound_s / time */
    struct ep_kernels_share of_read;     /* weights_s / time */
    struct ep_kernels_share of_best;     /* time of the best other back end / time, at most 1 */
    int num_samples;
    int64_t num_switches; /* involuntary context switches while sampling, all ranks */
    double peak_of_best;  /* this row's median peak over the best sample of that peak so far */
};

/** What is asked of the default back end at so many tokens (kernels/README.md, "GEMM"): at 64 and more
 *  0.9 of the peak; at 8 to 32 (to 63) 0.7 of the roofline; at 1 to 4 (to 7) 0.75 of the read
 *  bandwidth; always 0.95 of the best back end. `share` and `asked` are of the first of these. */
struct ep_kernels_rule {
    const char *name; /* "peak", "roofline", "read" */
    struct ep_kernels_share share;
    double asked;
};
struct ep_kernels_rule ep_kernels_row_rule(const struct ep_kernels_row *row);
bool ep_kernels_row_is_short(const struct ep_kernels_row *row);

/** Does an interval still hold the share that is asked, so that more samples may turn the verdict? */
bool ep_kernels_row_is_open(const struct ep_kernels_row *row);

/** Which loops the peaks are from, and what the columns mean. */
void ep_kernels_print_legend(const struct ep_kernels_peaks *peaks, int num_ranks, FILE *out);

/** Column heads of a block whose back ends are those of `sets`; one line per row. */
void ep_kernels_row_print_head(struct ep_kernels_gemm *const *sets, int num_sets, FILE *out);
void ep_kernels_row_print(const struct ep_kernels_row *row, FILE *out);

/** Did something take the cores while the row was sampled? Registers alone know no other reason to be
 *  5 % below their best. */
bool ep_kernels_row_is_disturbed(const struct ep_kernels_row *row);

/** Append the row as an object. */
EP_MUST_CHECK enum ep_status ep_kernels_row_to_json(const struct ep_kernels_row *row,
                                                    json_t *array);

#endif

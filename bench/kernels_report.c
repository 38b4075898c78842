/* SPDX-License-Identifier: Apache-2.0 */
/* Printing the GEMM comparison. */
#include "bench/kernels_report.h"

#include "base/json.h"
#include "base/stats.h"
#include "bench/kernels_table.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const double asked_of_best = 0.95;

/* By the least number of tokens, most first. */
static const struct {
    int64_t tokens;
    const char *name;
    double asked;
} rules[] = {{64, "peak", 0.9}, {8, "roofline", 0.7}, {1, "read", 0.75}};

double ep_kernels_median_of(const double *values, int num)
{
    double sorted[EP_KERNELS_MAX_SAMPLES] = {0};
    memcpy(sorted, values, (size_t)num * sizeof *sorted);
    ep_stats_sort(sorted, num);
    return ep_stats_median_sorted(sorted, num);
}

struct ep_kernels_share ep_kernels_share_of(const double *values, const double *others, int num)
{
    double ratios[EP_KERNELS_MAX_SAMPLES] = {0};
    struct ep_kernels_share share = {.low = -INFINITY, .high = INFINITY};
    for (int i = 0; i < num; i++) {
        ratios[i] = values[i] / others[i];
    }
    ep_stats_sort(ratios, num);
    share.median = ep_stats_median_sorted(ratios, num);
    (void)ep_stats_median_interval_sorted(ratios, num, 0.95, &share.low, &share.high);
    return share;
}

struct ep_kernels_rule ep_kernels_row_rule(const struct ep_kernels_row *row)
{
    size_t i = 0;
    while (i + 1 < sizeof rules / sizeof *rules && row->tokens < rules[i].tokens) {
        i++;
    }
    const struct ep_kernels_share shares[] = {row->of_peak, row->of_roofline, row->of_read};
    return (struct ep_kernels_rule){rules[i].name, shares[i], rules[i].asked};
}

bool ep_kernels_row_is_short(const struct ep_kernels_row *row)
{
    const struct ep_kernels_rule rule = ep_kernels_row_rule(row);
    return !(rule.share.median >= rule.asked) || !(row->of_best.median >= asked_of_best);
}

static bool holds(const struct ep_kernels_share *share, double value)
{
    return share->low < value && value < share->high;
}

bool ep_kernels_row_is_open(const struct ep_kernels_row *row)
{
    const struct ep_kernels_rule rule = ep_kernels_row_rule(row);
    return holds(&rule.share, rule.asked) || holds(&row->of_best, asked_of_best);
}

bool ep_kernels_row_is_disturbed(const struct ep_kernels_row *row)
{
    return row->peak_of_best < 0.95;
}

void ep_kernels_print_legend(const struct ep_kernels_peaks *peaks, int num_ranks, FILE *out)
{
    fprintf(out,
            "Expert GEMMs, one matrix per call, weights cold, %d rank%s at once, one thread each; "
            "figures are per rank.\n"
            "peak: measured on registers (fp32 %s, bf16 %s); read: measured (%s); roof: the lower "
            "of peak and\nflops / (bytes / read); weights: time to read the matrix once at that "
            "bandwidth. GF/s per back end, medians\nof interleaved repetitions. ask: the share "
            "asked of the default back end (marked *): of peak from 64 tokens\non, of the roof "
            "from 8, of the read bandwidth below; best: share of the fastest back end (0.95 "
            "asked).\n",
            num_ranks, num_ranks == 1 ? "" : "s", peaks->loops[EP_FP32]->name,
            peaks->loops[EP_BF16]->name, peaks->read->name);
}

void ep_kernels_row_print_head(struct ep_kernels_gemm *const *sets, int num_sets, FILE *out)
{
    const struct ep_gemm_backend *own = ep_gemm_default(sets[0]->key.dtype);
    fprintf(out, "\n%-14s %-3s %-4s %6s %7s %6s %7s %10s", "model", "mat", "type", "tokens", "peak",
            "read", "roof", "weights");
    for (int b = 0; b < num_sets; b++) {
        char name[32];
        snprintf(name, sizeof name, "%s%s", sets[b]->key.backend->name,
                 sets[b]->key.backend == own ? "*" : "");
        fprintf(out, " %8s", name);
    }
    fprintf(out, "  %-16s %5s\n%-14s %-3s %-4s %6s %7s %6s %7s %10s", "ask", "best", "", "", "",
            "", "GF/s", "GB/s", "GF/s", "us");
    for (int b = 0; b < num_sets; b++) {
        fprintf(out, " %8s", "GF/s");
    }
    fprintf(out, "\n");
}

void ep_kernels_row_print(const struct ep_kernels_row *row, FILE *out)
{
    const struct ep_kernels_rule rule = ep_kernels_row_rule(row);
    fprintf(out, "%-14s %-3s %-4s %6" PRId64 " %7.1f %6.1f %7.1f %10.1f", row->model, row->matrix,
            ep_dtype_name(row->dtype), row->tokens, row->peak_flops_per_s / 1e9,
            row->read_bytes_per_s / 1e9, row->flops / row->bound_s / 1e9, row->weights_s * 1e6);
    for (int b = 0; b < row->num_backends; b++) {
        fprintf(out, " %8.1f", row->flops / row->median_s[b] / 1e9);
    }
    fprintf(out, "  %4.2f of %-8s %5.2f %s%s\n", rule.share.median, rule.name,
            row->of_best.median,
            !ep_kernels_row_is_short(row)  ? "ok"
            : ep_kernels_row_is_open(row) ? "SHORT (interval holds the figure)"
                                          : "SHORT",
            ep_kernels_row_is_disturbed(row) ? ", disturbed: the cores were shared" : "");
    fflush(out);
}

enum ep_status ep_kernels_row_to_json(const struct ep_kernels_row *row, json_t *array)
{
    enum ep_status status = EP_OK;
    const struct ep_kernels_rule rule = ep_kernels_row_rule(row);
    json_t *object = json_object(), *rates = json_object();
    if (object == NULL || rates == NULL || json_array_append_new(array, object) != 0) {
        json_decref(rates);
        return ep_error_set(EP_ENOMEM, "no memory for a row of results");
    }
    for (int b = 0; b < row->num_backends; b++) {
        status = ep_json_set(rates, row->backends[b], ep_json_real(row->flops / row->median_s[b]));
        if (status != EP_OK) {
            json_decref(rates);
            return status;
        }
    }
    EP_TRY(ep_json_set(object, "flops_per_s", rates));
    EP_TRY(ep_json_set(object, "model", json_string(row->model)));
    EP_TRY(ep_json_set(object, "matrix", json_string(row->matrix)));
    EP_TRY(ep_json_set(object, "dtype", json_string(ep_dtype_name(row->dtype))));
    EP_TRY(ep_json_set(object, "m", json_integer(row->tokens)));
    EP_TRY(ep_json_set(object, "n", json_integer(row->n)));
    EP_TRY(ep_json_set(object, "k", json_integer(row->k)));
    EP_TRY(ep_json_set(object, "samples", json_integer(row->num_samples)));
    EP_TRY(ep_json_set(object, "peak_flops_per_s", ep_json_real(row->peak_flops_per_s)));
    EP_TRY(ep_json_set(object, "read_bytes_per_s", ep_json_real(row->read_bytes_per_s)));
    EP_TRY(ep_json_set(object, "roofline_flops_per_s", ep_json_real(row->flops / row->bound_s)));
    EP_TRY(ep_json_set(object, "weights_once_s", ep_json_real(row->weights_s)));
    EP_TRY(ep_json_set(object, "default", json_string(row->backends[row->default_idx])));
    EP_TRY(ep_json_set(object, "asked_of", json_string(rule.name)));
    EP_TRY(ep_json_set(object, "asked", ep_json_real(rule.asked)));
    EP_TRY(ep_json_set(object, "reached", ep_json_real(rule.share.median)));
    EP_TRY(ep_json_set(object, "reached_low", ep_json_real(rule.share.low)));
    EP_TRY(ep_json_set(object, "reached_high", ep_json_real(rule.share.high)));
    EP_TRY(ep_json_set(object, "share_of_best", ep_json_real(row->of_best.median)));
    EP_TRY(ep_json_set(object, "context_switches", json_integer(row->num_switches)));
    EP_TRY(ep_json_set(object, "short", json_boolean(ep_kernels_row_is_short(row))));
out:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Plug-in entropies of counts. */
#include "kernels/information.h"

#include <math.h>

/* A sum of n log2 n over counts, with the counts that are not 0. */
struct sums {
    double n;
    double n_log_n;
    double occupied;
};

static void add(struct sums *sums, int64_t count)
{
    if (count > 0) {
        sums->n += (double)count;
        sums->n_log_n += (double)count * log2((double)count);
        sums->occupied++;
    }
}

/* H = log2 N - (sum n log2 n) / N */
static double entropy(const struct sums *sums)
{
    return sums->n > 0 ? fmax(log2(sums->n) - sums->n_log_n / sums->n, 0) : (double)NAN;
}

double ep_information_entropy(const int64_t *counts, int64_t num)
{
    struct sums sums = {0};
    for (int64_t i = 0; i < num; i++) {
        add(&sums, counts[i]);
    }
    return entropy(&sums);
}

struct ep_mutual_information ep_information_mutual(const int64_t *joint, int64_t num_rows,
                                                   int64_t num_columns)
{
    struct sums both = {0};
    struct sums rows = {0};
    struct sums columns = {0};
    for (int64_t r = 0; r < num_rows; r++) {
        int64_t sum = 0;
        for (int64_t c = 0; c < num_columns; c++) {
            sum += joint[r * num_columns + c];
            add(&both, joint[r * num_columns + c]);
        }
        add(&rows, sum);
    }
    for (int64_t c = 0; c < num_columns; c++) {
        int64_t sum = 0;
        for (int64_t r = 0; r < num_rows; r++) {
            sum += joint[r * num_columns + c];
        }
        add(&columns, sum);
    }
    const double cells = both.occupied - rows.occupied - columns.occupied + 1;
    return (struct ep_mutual_information){
        .bits =
            both.n > 0 ? fmax(entropy(&rows) + entropy(&columns) - entropy(&both), 0) : (double)NAN,
        .bias_bits = both.n > 0 ? cells / (2 * both.n * log(2)) : (double)NAN,
    };
}

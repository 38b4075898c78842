/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of numbers that own their items, as records keep them. */
#ifndef EP_RESULTS_LISTS_H
#define EP_RESULTS_LISTS_H

#include <stdint.h>

struct ep_f64s {
    double *items;
    int64_t num;
};

struct ep_i64s {
    int64_t *items;
    int64_t num;
};

#endif

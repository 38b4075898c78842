/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic records with known parameters, for tests of fits, figures and reports. Never measured. */
#ifndef EP_TESTS_PLANTED_H
#define EP_TESTS_PLANTED_H

#include "base/error.h"
#include "results/run_dir.h"

#include <stdbool.h>
#include <stdint.h>

enum ep_planted_law { EP_PLANTED_M0, EP_PLANTED_M1, EP_PLANTED_M2 };

/** What is planted. Begin with ep_planted_default() and change what a test is about. */
struct ep_planted {
    uint64_t seed;
    int64_t ranks; /* on one node */
    /* exchange time: M0 remote/(P B); M1 (P-1) a + remote/(P B); M2 l + a n + H_rank/B */
    enum ep_planted_law law;
    double latency_s;      /* l */
    double message_s;      /* a */
    double bw_bytes_per_s; /* B */
    double copy_bytes_per_s; /* pack and unpack */
    double noise;          /* relative standard deviation of a visit's median, log-normal */
    double sample_noise;   /* and of the samples inside a visit */
    double outliers;       /* fraction of visits that take 2 to 5 times as long */
    int num_visits;
    int num_samples; /* per visit */
    bool split;      /* with phases */
    bool others;     /* with links and kernels records */
    const char *const *skews;      /* ends with NULL; uniform, zipf:S and hot:R are understood */
    const int64_t *tokens;         /* end with 0, as the next two */
    const int64_t *top_ks;
    const char *const *transports; /* alltoallv (copies), alltoallv-dedup (rank-dedup) */
};

/** 4 ranks, M2 with 20 us, 1 us and 8 GB/s, 6 skews x 2 top-k x 3 sizes x 2 transports x dispatch and
 *  combine, 2 visits of 20 samples, noise 5 %, no outliers. */
void ep_planted_default(struct ep_planted *planted);

/** The comm (and other) records, in memory. `records` is overwritten. */
EP_MUST_CHECK enum ep_status ep_planted_make(const struct ep_planted *planted,
                                             struct ep_records *records);

/** The same as a run directory, which must not exist; its host is "planted". */
EP_MUST_CHECK enum ep_status ep_planted_write(const struct ep_planted *planted, const char *path);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between pairs of ranks: ping-pong and windows, one pair or many at once. */
#ifndef EP_BENCH_LINKS_H
#define EP_BENCH_LINKS_H

#include "bench/arena.h"
#include "bench/comm.h"
#include "bench/harness.h"
#include "bench/os_counters.h"

#include <stdint.h>

enum ep_links_pattern {
    EP_LINKS_PINGPONG, /* there and back; the time is half of the round trip */
    EP_LINKS_WINDOW,   /* several messages one way, one acknowledgement; the time is per message */
    EP_LINKS_NUM_PATTERNS
};

/** "pingpong", "window". */
const char *ep_links_pattern_name(enum ep_links_pattern pattern);

/** One case: which pairs are at work, and with what messages. The same on all ranks. */
struct ep_links_case {
    enum ep_links_pattern pattern;
    int64_t size_bytes;        /* of a message, 1 to 2^30 */
    const int64_t (*pairs)[2]; /* [num_pairs] ranks; no rank twice; borrowed */
    int64_t num_pairs;         /* all at work at the same time, >= 1 */
    uint64_t seed;             /* of the contents */
};

enum { EP_LINKS_MAX_WINDOW = 16, EP_LINKS_MAX_BYTES = 1 << 30 };

/** Messages that a window of this size holds: 16, or as many as make 16 MiB, at least 2. */
int64_t ep_links_window(int64_t size_bytes);

/** What verification found, over all ranks: the last repetition's messages, as timed. */
struct ep_links_check {
    int64_t messages; /* that had to arrive */
    int64_t wrong;    /* with any byte wrong */
};

/** Seconds of one repetition (both ways of a ping-pong, a whole window and its acknowledgement) after one
 *  before it, maximum over ranks: to see whether a case is worth measuring. Nothing is verified.
 *  Collective and errors as ep_links_measure. */
EP_MUST_CHECK enum ep_status ep_links_time_once(struct ep_comm *comm, struct ep_arena *arena,
                                                const struct ep_links_case *work, double *time_s);

/** Measure one case: calibrate how many repetitions make a sample (so that the clock and the start
 *  do not matter), sample, verify every byte of the last messages that arrived.
 *  budget_s     time for the samples
 *  result       samples are seconds per message, one way (maximum over ranks); fini by the caller
 *  repetitions  in each sample
 *  counters     this rank's, over the samples; calibration and warm-up are not in them
 *  Collective over `comm`; ranks in no pair take part in the synchronisation only. A failure of MPI
 *  between two ranks ends the job (the others could not know). Returns EP_ENOMEM where the arena
 *  is too small; the status is agreed. */
EP_MUST_CHECK enum ep_status ep_links_measure(struct ep_comm *comm, struct ep_arena *arena,
                                              const struct ep_links_case *work, double budget_s,
                                              struct ep_harness_result *result,
                                              int64_t *repetitions, struct ep_os_counters *counters,
                                              struct ep_links_check *check);

#endif

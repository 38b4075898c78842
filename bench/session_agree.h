/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of one job must do the same: their builds and command lines are compared before anything is
 * measured, since ranks that disagree would wait for each other for ever. */
#ifndef EP_BENCH_SESSION_AGREE_H
#define EP_BENCH_SESSION_AGREE_H

#include "bench/comm.h"

/** Compare the version and the command line (argv[0] is the command's name) of all ranks with rank 0's.
 *  Returns EP_EINVAL on all ranks where one differs: the message names the first such rank, its word and
 *  rank 0's. Collective. */
EP_MUST_CHECK enum ep_status ep_session_agree_start(struct ep_comm *world, int argc, char **argv);

/** The first difference of two command lines, words ended by '\n', as "--tokens 8" and "--tokens 16":
 *  what stands there in each, with the option before it; "nothing" where one has ended.
 *  Returns false where they are the same; else writes both, cut where they do not fit. */
bool ep_session_find_difference(const char *a, const char *b, char *in_a, size_t a_bytes, char *in_b,
                                size_t b_bytes);

#endif

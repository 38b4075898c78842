/* SPDX-License-Identifier: Apache-2.0 */
/* The door to SimGrid: in a program built by `make simulated`, ranks run in simulated time on a platform that does
 * not exist. Elsewhere ep_simulated() is false, and nothing else here may be called. */
#ifndef EP_BENCH_SIMULATED_H
#define EP_BENCH_SIMULATED_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Do ranks of this program run in simulated time? Known when it is built. */
bool ep_simulated(void);

/** This rank, before MPI starts too; the host of the platform that it is on. Owned by the simulator. */
int ep_simulated_rank(void);
const char *ep_simulated_host(void);

/** Simulated seconds, the same on all ranks; they pass only while messages do. The least step that the
 *  simulator tells apart. */
double ep_simulated_now_s(void);
double ep_simulated_step_s(void);

/** Have this rank sleep until then. */
void ep_simulated_wait_until(double time_s);

/** The simulator's version and platform file: "SimGrid 3.32, platform tree.xml". */
void ep_simulated_describe(char *text, size_t length);

/** What the simulator was started with (--cfg=NAME:VALUE of smpirun), "NAME=VALUE" without its own bookkeeping;
 *  NULL-terminated, owned by the module. */
const char *const *ep_simulated_settings(void);

/** Does the algorithm that "pairwise" stands for exchange with rank xor step, not with rank +- step? */
bool ep_simulated_pairs_by_xor(int64_t num_ranks);

/** Was it started with the collective algorithms that "linear" (1) or "pairwise" (2) stand for? They hold for
 *  all communicators of a program. 0, the simulator's own choice, is always true. */
bool ep_simulated_is_forced(int algorithm);

#endif

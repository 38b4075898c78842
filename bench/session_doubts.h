/* SPDX-License-Identifier: Apache-2.0 */
/* Doubts about a run or a record: named warnings with advice. */
#ifndef EP_BENCH_SESSION_DOUBTS_H
#define EP_BENCH_SESSION_DOUBTS_H

#include "bench/session.h"

/** Warn of what makes all numbers of this run doubtful: oversubscribed cores, unbound ranks, load,
 *  CPU quota, a coarse clock, a build without optimisation. Collective over the world. */
EP_MUST_CHECK enum ep_status ep_session_find_doubts(struct ep_session *session);

/** Facts of the operating system that a reader needs: kernel, governor, huge pages. Rank 0. */
EP_MUST_CHECK enum ep_status ep_session_add_facts(struct ep_run *run);

#endif

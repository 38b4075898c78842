/* SPDX-License-Identifier: Apache-2.0 */
/* One point of a run again: `epbench run --repeat RECORD_ID --append DIR`. */
#ifndef EP_BENCH_REPEAT_H
#define EP_BENCH_REPEAT_H

#include "bench/session.h"

struct ep_repeat;

/** Find a record and make a sweep of its one case. Session options that are factors of the case (seed,
 *  pages, cadence, threads) are set from the record; the launch index is one more than any in the run.
 *  Reads the run before MPI starts, on every rank.
 *  Returns EP_EINVAL where there is no such record, or it is not a comm record. */
EP_MUST_CHECK enum ep_status ep_repeat_create(const char *directory, const char *record_id,
                                              struct ep_session_options *options,
                                              struct ep_repeat **repeat);
void ep_repeat_destroy(struct ep_repeat *repeat);

/** Measure the case (3 visits), append the records, and print then and now. Collective.
 *  Returns EP_EINVAL where the session has fewer ranks than the record. */
EP_MUST_CHECK enum ep_status ep_repeat_run(struct ep_repeat *repeat, struct ep_session *session);

#endif

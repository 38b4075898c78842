/* SPDX-License-Identifier: Apache-2.0 */
/* Which visits a run has; inside session*.c. */
#ifndef EP_BENCH_SESSION_VISITS_H
#define EP_BENCH_SESSION_VISITS_H

#include "bench/session.h"

/** Rank 0: read what the run to be appended to has: visits, kinds (where it is resumed), the place in
 *  the order. EP_EINVAL where it is resumed on another number of ranks; what ep_records_read() returns. */
EP_MUST_CHECK enum ep_status ep_session_read_visits(struct ep_session *session);

/** Rank 0: give a record the first number from its visit_idx on that the run lacks, and remember it.
 *  EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_session_number_visit(struct ep_session *session,
                                                     struct ep_record *record);

void ep_session_forget_visits(struct ep_session *session);

#endif

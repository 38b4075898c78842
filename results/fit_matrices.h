/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes that each rank sends to each, from traffic/, for rungs that follow single messages. */
#ifndef EP_RESULTS_FIT_MATRICES_H
#define EP_RESULTS_FIT_MATRICES_H

#include "results/fit.h"

/** Fill the matrix of every case that has one: rows of the traffic/ file of its routing in its
 *  byte basis, transposed for combine, times its row bytes, on nodes as its rank order places them.
 *  A case stays without where no directory has the file (more than 64 ranks), where rows go in two
 *  stages (node-dedup), or where the matrix is not what was sent (padding): its sums must be the
 *  record's. `fit` owns the matrices.
 *  Returns EP_EINVAL for a traffic/ file that is damaged; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_load_matrices(struct ep_fit *fit,
                                                  const char *const *directories,
                                                  int num_directories);

#endif

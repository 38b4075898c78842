/* SPDX-License-Identifier: Apache-2.0 */
/* Option parsing on argp: exact names only, and a typo is answered with the option meant. */
#ifndef EP_BASE_OPTIONS_H
#define EP_BASE_OPTIONS_H

#include "base/error.h"

#include <argp.h>

/** Parse argv with `argp` (its children included). Abbreviated or unknown long options, missing
 *  values and anything the parser functions refuse (return EINVAL after ep_error_set) come back as
 *  EP_EINVAL with one message. --help prints and exits 0.
 *  Parser functions: ARGP_KEY_ARG is theirs to accept or refuse; a command without
 *  positional arguments returns ARGP_ERR_UNKNOWN for it. */
EP_MUST_CHECK enum ep_status ep_options_parse(const struct argp *argp, int argc, char **argv,
                                              void *input);

/** Are all words of a command line UTF-8? They end up in JSON, which holds nothing else. EP_EINVAL names
 *  the option, the place of the first bad byte in its value, and the byte.
 *  Source of what is well-formed: The Unicode Standard, table 3-7 (no overlong forms, no surrogates). */
EP_MUST_CHECK enum ep_status ep_options_check_text(int argc, char *const *argv);

/** Of `num` names, the one nearest to `text` by edit distance, if near enough to be a typo; else
 *  NULL. For "did you mean" of commands, skews, transports. */
const char *ep_options_nearest(const char *text, const char *const *names, int num);

/** Rank given by the launcher's environment (OMPI_COMM_WORLD_RANK, PMIX_RANK, PMI_RANK), or -1
 *  when not started by one. Usable before MPI_Init, to keep all ranks but 0 quiet. */
int ep_options_launcher_rank(void);

/** Have the call above return this rank (>= 0), for a launcher whose ranks share one environment. */
void ep_options_set_launcher_rank(int rank);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators, agreement, gathers and reductions; MPI itself stays behind comm.c. */
#ifndef EP_BENCH_COMM_H
#define EP_BENCH_COMM_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A set of ranks: a duplicated communicator whose errors return as statuses. Every call below
 *  that takes one is collective over it unless its text says otherwise. */
struct ep_comm;

/** Initialise MPI (thread funneled) and duplicate MPI_COMM_WORLD. Once per process. */
EP_MUST_CHECK enum ep_status ep_comm_init(struct ep_comm **world);

/** True from ep_comm_init on, after ep_comm_finalize too. Local. */
bool ep_comm_is_started(void);

/** Destroy the world's communicator (NULL is fine) and finalize MPI where it was begun. */
void ep_comm_finalize(struct ep_comm *world);

/** Local look-ups. A node is what MPI_COMM_TYPE_SHARED puts together. */
int ep_comm_rank(const struct ep_comm *comm);
int ep_comm_size(const struct ep_comm *comm);
int ep_comm_num_nodes(const struct ep_comm *comm);
int ep_comm_node_of(const struct ep_comm *comm, int rank);
int ep_comm_world_rank(const struct ep_comm *comm); /* of this process, in MPI_COMM_WORLD */
bool ep_comm_is_root(const struct ep_comm *comm); /* rank 0 */

/** Ranks per node where all nodes have as many, else 0. Local. */
int ep_comm_ranks_per_node(const struct ep_comm *comm);

/** The first `num_ranks` ranks as a communicator of their own; *part is NULL on the others.
 *  spread: rank order alternates over the nodes instead of filling one after the other. */
EP_MUST_CHECK enum ep_status ep_comm_create_part(struct ep_comm *comm, int num_ranks, bool spread,
                                                 struct ep_comm **part);

/** The library's number of "default", "linear" or "pairwise"; EP_EINVAL for another name. Local. */
EP_MUST_CHECK enum ep_status ep_comm_find_algorithm(const char *name, int *id);

/** A duplicate that uses one algorithm in MPI_Alltoallv (or MPI_Alltoall): "linear", "pairwise", or
 *  "default" (the library's choice). EP_EENV where this library cannot be told. */
EP_MUST_CHECK enum ep_status ep_comm_create_forced(struct ep_comm *comm, const char *algorithm,
                                                   struct ep_comm **forced);

/** The ranks of the same `color`, ordered by `key`; forced to the same algorithm as `comm`. */
EP_MUST_CHECK enum ep_status ep_comm_create_split(struct ep_comm *comm, int color, int key,
                                                  struct ep_comm **part);

/** A duplicate in which each `ranks_per_node` consecutive ranks count as a node, wherever they run: for
 *  hierarchical transports on one host. The last node may have fewer. */
EP_MUST_CHECK enum ep_status ep_comm_create_grouped(struct ep_comm *comm, int ranks_per_node,
                                                    struct ep_comm **grouped);
void ep_comm_destroy(struct ep_comm *comm);

/** Agree on a local status before the next collective: every rank returns the worst one, and has the
 *  text of the lowest rank that failed (rank in front where it is not rank 0). */
EP_MUST_CHECK enum ep_status ep_comm_agree(struct ep_comm *comm, enum ep_status local);

/** End the whole job at once: prints rank and text on stderr. Not collective; does not return. */
_Noreturn void ep_comm_abort(const struct ep_comm *comm, enum ep_status status, const char *text);

EP_MUST_CHECK enum ep_status ep_comm_barrier(struct ep_comm *comm);

/** A barrier in which ranks sleep until the last has come, so that it has the machine for itself. */
EP_MUST_CHECK enum ep_status ep_comm_wait_idle(struct ep_comm *comm);

/** Element-wise over all ranks, result everywhere, in place; values [num]. */
EP_MUST_CHECK enum ep_status ep_comm_max_f64(struct ep_comm *comm, double *values, int64_t num);
EP_MUST_CHECK enum ep_status ep_comm_sum_f64(struct ep_comm *comm, double *values, int64_t num);
EP_MUST_CHECK enum ep_status ep_comm_sum_f32(struct ep_comm *comm, float *values, int64_t num);
EP_MUST_CHECK enum ep_status ep_comm_max_i64(struct ep_comm *comm, int64_t *values, int64_t num);
EP_MUST_CHECK enum ep_status ep_comm_sum_i64(struct ep_comm *comm, int64_t *values, int64_t num);

/** values [num] of every rank, on every rank: all [size][num]. */
EP_MUST_CHECK enum ep_status ep_comm_allgather_f64(struct ep_comm *comm, const double *values,
                                                   int64_t num, double *all);
EP_MUST_CHECK enum ep_status ep_comm_allgather_i64(struct ep_comm *comm, const int64_t *values,
                                                   int64_t num, int64_t *all);

/** The clocks of this rank and of rank 0, from ping-pongs: the fastest of 32 round trips says how they
 *  stand, to half of its time. On one node the clock is common: 0 and 0.
 *  offset_s  to be added to this rank's times to have rank 0's
 *  error_s   the most that it can be off */
EP_MUST_CHECK enum ep_status ep_comm_compare_clocks(struct ep_comm *comm, double *offset_s,
                                                    double *error_s);

/** A text of every rank, on every rank. texts: new array [size] of new strings; free with
 *  ep_comm_free_texts. Each text is at most 64 MiB. */
EP_MUST_CHECK enum ep_status ep_comm_allgather_text(struct ep_comm *comm, const char *text,
                                                    char ***texts);
void ep_comm_free_texts(char **texts, int num);

/** Rank `root`'s text on every rank; *text is replaced by a new string on the others. */
EP_MUST_CHECK enum ep_status ep_comm_bcast_text(struct ep_comm *comm, int root, char **text);

/** Blocking byte messages between two ranks (links, tests). Not collective. */
EP_MUST_CHECK enum ep_status ep_comm_send(struct ep_comm *comm, int to, const void *data,
                                          int64_t size_bytes);
EP_MUST_CHECK enum ep_status ep_comm_recv(struct ep_comm *comm, int from, void *data,
                                          int64_t size_bytes);

/** MPI library version text (one line), and its settings that matter here as "name=value" texts
 *  (btl, eager limits, single copy, collective algorithms); NULL-terminated, owned by the module. */
const char *ep_comm_mpi_version(void);
const char *const *ep_comm_mpi_settings(void);

/** CLOCK_MONOTONIC in seconds, and its measured resolution (smallest step seen); in a simulation its clock.
 *  Local. */
double ep_comm_now_s(void);
double ep_comm_clock_resolution_s(void);

/** Harness hooks on a communicator (ctx = struct ep_comm *). */
struct ep_harness_env;
struct ep_harness_env ep_comm_harness_env(struct ep_comm *comm);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What every measuring command shares: MPI, the topology, the run directory, warnings, records. */
#ifndef EP_BENCH_SESSION_H
#define EP_BENCH_SESSION_H

#include "base/error.h"
#include "bench/arena.h"
#include "bench/comm_share.h"
#include "bench/comm.h"
#include "bench/harness.h"
#include "bench/os_counters.h"
#include "bench/uplinks.h"
#include "results/record.h"
#include "results/run_dir.h"
#include "topologies/topo.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

/** Options that all measuring commands take; parsed by ep_session_argp as an argp child with the
 *  struct as its input. */
struct ep_session_options {
    const char *output;    /* -o DIR, must not exist; NULL: see keep */
    const char *append;    /* --append DIR, an existing run */
    bool keep;             /* set by the command: without -o, write to the default directory */
    bool resume;           /* set by the command: append is a run to be finished */
    const char *profile;   /* set by the command `run`; NULL else */
    const char *comm_ranks;      /* its --ranks and --rank-order, for run.json; NULL = not given */
    const char *comm_rank_order;
    int64_t needed_ranks;  /* set by the command: --ranks asks for so many; 0 = any number will do */
    int64_t num_ranks;     /* -n, for the launcher; 0 = not given */
    const char *launcher;  /* --launcher, read before MPI starts; here so that argp knows it */
    uint64_t seed;         /* --seed, default 1 */
    enum ep_pages pages;   /* --pages, default 4k */
    int64_t memory_bytes;  /* --memory: buffers of one rank at most */
    bool shares;           /* set by the command: buffers in shared memory, where that can be */
    bool unchecked;        /* set by the command: nobody looks at payloads, so a simulation folds their memory */
    enum ep_cadence cadence; /* --cadence, default barrier */
    int64_t threads;       /* --threads per rank, default 1 */
    const char *link_rate; /* --link-rate; NULL = not given */
    double link_bytes_per_s; /* of it, or of EPBENCH_LINK_RATE; 0 = not known */
    const char *uplinks_text;  /* --uplinks; NULL = not given */
    struct ep_uplinks uplinks; /* of it, or of EPBENCH_UPLINKS; num 0 = not known */
    int64_t launch_idx;    /* --launch-idx, set by --launches; -1 = not given (0 once open) */
    int64_t num_launches;  /* --launches, default 1 */
};

extern const struct argp ep_session_argp;

/** Defaults of the options above. */
struct ep_session_options ep_session_options_default(void);

/** One started program: ends with ep_session_close. */
struct ep_session {
    struct ep_session_options options;
    struct ep_comm *world;
    struct ep_topo *topo;       /* of all ranks of the world, on every rank */
    char host[64];              /* of rank 0 */
    bool writes;                /* records are kept in a directory */
    struct ep_run run;          /* rank 0 */
    struct ep_run_dir dir;      /* rank 0, if it writes */
    struct ep_share *share;     /* that the arena lies in; NULL = private memory */
    struct ep_arena *arena;     /* this rank's message buffers */
    double null_s;              /* a null operation's cost, barrier cadence; NaN until measured */
    double null_cadence_s;      /* the same per repetition in the session's own cadence */
    double clock_step_s;        /* smallest step of the clock */
    double barrier_low_s;       /* fastest and slowest probe so far; 0 = none */
    double barrier_high_s;
    void *visits;               /* what the run has, in it before and by this session; rank 0 */
    unsigned done_kinds;        /* bit k: the resumed run has records of kind k */
    int64_t order_idx;          /* of the next record */
    int64_t num_failed_checks;  /* records whose check failed */
    int num_lost_notes;         /* warnings that found no memory */
    bool interrupted;           /* a signal came: no other record is begun */
    int64_t visits_asked;       /* of the stages that were begun */
    int64_t visits_done;
    int64_t stages_left;        /* of `run`, not begun since a signal came */
};

/** Where no launcher started this process, start mpirun in its place (bench/launch.h): options have been
 *  parsed by then, so that a bad one is told once, without mpirun. Else start MPI, gather each host's topology once, find what makes numbers doubtful, open or create the
 *  run directory, and reserve the arena. Collective over the world; the status is agreed.
 *  argv is what goes into run.json. */
EP_MUST_CHECK enum ep_status ep_session_open(int argc, char **argv,
                                             const struct ep_session_options *options,
                                             struct ep_session **session);

/** Write run.json again with all warnings. Returns EP_ECHECK where a check failed, and where a signal
 *  left visits out. NULL is fine (EP_OK). */
EP_MUST_CHECK enum ep_status ep_session_close(struct ep_session *session);

enum { EP_SESSION_STREAM_REPETITIONS = 10 }; /* a block of the stream cadence */

/** Measure the null operation's cost, by barrier and in the session's cadence (once; later calls
 *  return at once). Collective. */
EP_MUST_CHECK enum ep_status ep_session_measure_null(struct ep_session *session);

/** Time a barrier of the world (median of 200), and warn once where probes of this run are a factor 1.5
 *  apart: then the ranks' distance changes under the run, as when a hypervisor moves virtual CPUs
 *  between cores that share a cache and cores that do not. Collective. */
EP_MUST_CHECK enum ep_status ep_session_probe_distance(struct ep_session *session);

/** Rank 0: note a doubt about the whole run, once per name, on stderr and in run.json. A note that finds
 *  no memory is printed only, and ep_session_close() says so. */
void ep_session_warn(struct ep_session *session, const char *name, const char *format, ...)
    EP_PRINTF(3, 4);

/** Rank 0: note what was left out and why, likewise. */
void ep_session_skip(struct ep_session *session, const char *name, const char *format, ...)
    EP_PRINTF(3, 4);

/** Fill the keys that every record has (host, launch, order, start, ranks, nodes, seed, cadence,
 *  pages, threads, null_s). `comm` is the ranks that measure. Any rank; not collective. */
EP_MUST_CHECK enum ep_status ep_session_begin_record(struct ep_session *session,
                                                     const struct ep_comm *comm,
                                                     struct ep_record *record);

/** Put a visit's samples, per-rank medians, operating system counters (this rank's, summed here) and
 *  the warnings that follow from them into a record. Collective over `comm`, the status is agreed; the
 *  record matters on rank 0 only. */
EP_MUST_CHECK enum ep_status ep_session_set_samples(struct ep_session *session,
                                                    struct ep_comm *comm,
                                                    const struct ep_harness_result *result,
                                                    const struct ep_os_counters *counters,
                                                    struct ep_record *record);

/** Append a record to the run (rank 0 of the world, if it writes) and count failed checks. Where the run
 *  has this visit of the case in this launch already, the record becomes the next visit that it lacks.
 *  Collective over the world, the status is agreed; other ranks pass NULL. */
EP_MUST_CHECK enum ep_status ep_session_add_record(struct ep_session *session,
                                                   struct ep_record *record);

/** Does the resumed run have this visit of this case, in this launch? Never where no run is resumed.
 *  median_s  of its record; NULL = not wanted; untouched where the visit is not there
 *  Collective. */
EP_MUST_CHECK enum ep_status ep_session_is_done(struct ep_session *session, const char *case_name,
                                                int64_t visit_idx, bool *done, double *median_s);

/** Did SIGINT or SIGTERM reach any rank? To be asked before a record is begun, while there is one left
 *  to begin: the record in flight is finished, no other begun, and the exit status is 1. Collective. */
EP_MUST_CHECK enum ep_status ep_session_interrupted(struct ep_session *session, bool *interrupted);

/** A stage of `asked` visits ended with `done` of them measured: for the message after a signal. */
void ep_session_count_visits(struct ep_session *session, int64_t done, int64_t asked);

/** Seconds since 1970. */
double ep_session_utc_s(void);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A run on disk: its directory, run.json, records.jsonl and traffic matrices. */
#ifndef EP_RESULTS_RUN_DIR_H
#define EP_RESULTS_RUN_DIR_H

#include "base/error.h"
#include "results/record.h"

#include <stdint.h>

/* A command that wrote into the run; `run` and each `--append` add one. */
struct ep_run_command {
    char *command_line; /* as typed, quoted for a shell */
    double start_utc_s; /* seconds since 1970 */
};

struct ep_run_commands {
    struct ep_run_command *items;
    int64_t num;
};

/* Where one rank ran. */
struct ep_run_rank {
    int64_t rank;
    char *host;
    int64_t node; /* 0.. */
    char *cpus;   /* binding as a list of PUs "0-3"; "" or absent = unbound */
};

struct ep_run_ranks {
    struct ep_run_rank *items;
    int64_t num;
};

/** run.json. Begin with ep_run_init() (all absent), end with ep_run_fini(). Owns its texts, which
 *  are filled with ep_record_set_text() and ep_record_add_note(). */
struct ep_run {
    char *run_id;
    double start_utc_s;
    char *version;
    char *compiler;
    char *flags;
    char *mpi_version;
    struct ep_record_notes mpi_settings; /* {name, text} */
    char *host;    /* of rank 0 */
    char *machine; /* one line: CPU model, cores, memory */
    struct ep_record_notes machine_facts; /* {name, text}: kernel, caches, NICs, governor, quota */
    char *profile; /* quick, standard, full; absent for single commands */
    char *comm_ranks;      /* as --ranks of `run` had it: "2,4"; absent = all ranks */
    char *comm_rank_order; /* as --rank-order had it; absent = packed */
    char *comm_tokens; /* of slow links: tokens of the profile's sweeps, "2,16,64"; absent = its own */
    int64_t num_ranks;
    int64_t num_nodes;
    int64_t ranks_per_node;
    int64_t seed;
    struct ep_run_ranks ranks;
    struct ep_run_commands commands;
    struct ep_record_notes warnings;
    struct ep_record_notes skipped; /* what a profile left out, and why */
};

void ep_run_init(struct ep_run *run);
void ep_run_fini(struct ep_run *run);

/** Append a command line with its start time. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_run_add_command(struct ep_run *run, int argc, char **argv,
                                                double start_utc_s);

/** Append a rank. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_run_add_rank(struct ep_run *run, int64_t rank, const char *host,
                                             int64_t node, const char *cpus);

/** Read DIR/run.json strictly. `run` is initialised here; fini it after EP_OK. */
EP_MUST_CHECK enum ep_status ep_run_read(const char *directory, struct ep_run *run);

/** A run directory open for appending records. */
struct ep_run_dir {
    char *path;
    char *run_id;
    int records_fd;
    int64_t dropped_bytes; /* of a truncated last line that ep_run_dir_append() cut off */
};

/** Where a run goes without -o: results/runs/HOST-UTC in epbench's source tree (the current
 *  directory holds bench/epbench.c), ./epbench-HOST-UTC elsewhere. To be freed; NULL = no memory. */
char *ep_run_default_path(const char *host, double start_utc_s);

/** Create a run directory (NULL path: the default one) with an empty records.jsonl and write `run`
 *  to run.json. Where run->run_id is absent it is set: HOST-UTC-xxxx.
 *  Returns EP_EINVAL where the path exists already (nothing is written over); EP_EIO. Where it fails a
 *  directory that it made is gone again. */
EP_MUST_CHECK enum ep_status ep_run_dir_create(const char *path, struct ep_run *run,
                                               struct ep_run_dir *dir);

/** Open an existing run to add records. A last line that a crash cut short is removed; a whole one
 *  without line end gets it. Returns EP_EINVAL unless run.json and records.jsonl are there. */
EP_MUST_CHECK enum ep_status ep_run_dir_append(const char *path, struct ep_run_dir *dir);

/** Close and free; a zeroed or closed one is fine. */
void ep_run_dir_fini(struct ep_run_dir *dir);

/** Write run.json again (temporary name, then rename): after warnings or commands were added. */
EP_MUST_CHECK enum ep_status ep_run_dir_write_run(const struct ep_run_dir *dir,
                                                  const struct ep_run *run);

/** Append one record as one line, in one write, and fdatasync it, so that a crash loses at most
 *  the record in flight. On a failed write the file is cut back to its last whole line.
 *  Absent run_id and record_id are filled in. Returns what ep_record_to_line() returns; EP_EIO. */
EP_MUST_CHECK enum ep_status ep_run_dir_add_record(struct ep_run_dir *dir,
                                                   struct ep_record *record);

/** The same of several records, in one write and one fdatasync: all or none. */
EP_MUST_CHECK enum ep_status ep_run_dir_add_records(struct ep_run_dir *dir,
                                                    struct ep_record *records, int64_t num);

/** Records of one or more runs, in file order. */
struct ep_records {
    struct ep_record *items;
    int64_t num;
    struct ep_record_notes warnings; /* e.g. a truncated last line that was left out */
};

/** Read DIR/records.jsonl of each directory. Bad lines are EP_EINVAL with file:line, but for a last
 *  line without line end that does not parse: it is left out with a warning. Record ids that occur
 *  twice are refused, naming both places. At most 4 GiB a file. `records` is overwritten. */
EP_MUST_CHECK enum ep_status ep_records_read(const char *const *directories, int num_directories,
                                             struct ep_records *records);
void ep_records_fini(struct ep_records *records);

/* Rows that each rank sends to each, up to this many ranks, are kept with the run. */
enum { EP_RUN_TRAFFIC_MAX_RANKS = 64 };

/** Write DIR/traffic/<routing_id>.json, once per routing (an existing one is left as it is).
 *  rows  per basis [num_ranks * num_ranks] int64, row-major, rows[i * num_ranks + j] from i to j,
 *        diagonal kept; NULL where a basis was not counted; read only
 *  Returns EP_EINVAL for more than EP_RUN_TRAFFIC_MAX_RANKS ranks or an id that is no file name. */
EP_MUST_CHECK enum ep_status ep_run_dir_write_traffic(
    const char *directory, const char *routing_id, int64_t num_ranks,
    const int64_t *const rows[EP_RECORD_NUM_BASES]);

/** Row counts of one routing; rows[basis] is NULL where it was not kept. */
struct ep_run_traffic {
    int64_t num_ranks;
    int64_t *rows[EP_RECORD_NUM_BASES]; /* [num_ranks * num_ranks], owned */
};

/** Read what ep_run_dir_write_traffic() wrote. `traffic` is overwritten; fini it after EP_OK. */
EP_MUST_CHECK enum ep_status ep_run_dir_read_traffic(const char *directory, const char *routing_id,
                                                     struct ep_run_traffic *traffic);
void ep_run_traffic_fini(struct ep_run_traffic *traffic);

#endif

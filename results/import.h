/* SPDX-License-Identifier: Apache-2.0 */
/* Import: what other benchmarks printed becomes a run directory of ours. One reader per format. */
#ifndef EP_RESULTS_IMPORT_H
#define EP_RESULTS_IMPORT_H

#include "base/error.h"
#include "results/lists.h"
#include "results/record.h"
#include "results/run_dir.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    EP_IMPORT_MAX_RANKS = 4096,    /* of an all-to-all: its matrix is counted out */
    EP_IMPORT_MAX_POINTS = 100000, /* lines of results in one import */
    EP_IMPORT_MAX_CELLS = 1 << 27, /* numbers in all matrices of one import: 1 GiB */
    EP_IMPORT_TEXT = 96            /* room of a short text, its end included */
};

/* What the texts do not tell. Absent: -1, NaN, NULL. */
struct ep_import_options {
    int64_t num_ranks;
    int64_t ranks_per_node;
    const char *host;
    const char *machine;
    const char *level;   /* of links */
    const char *op;      /* nccl: the test that an old text does not name; csv: what was timed */
    const char *size_of; /* ucc: message, rank */
    const char *matrix;  /* nccl alltoallv: path of its matrix file */
    double scale;        /* nccl alltoallv: of the matrix */
    double spread;       /* nccl alltoallv: of its generated pattern, 0 to 1 */
    const char *map;     /* csv: "time_us=COLUMN,size_bytes=COLUMN,..." */
};

void ep_import_options_init(struct ep_import_options *options);

/* Bytes that each rank sends to each, own ones included. */
struct ep_import_matrix {
    int64_t num_ranks;
    int64_t *bytes;            /* [num_ranks][num_ranks] from, to */
    char skew[EP_IMPORT_TEXT]; /* of the record */
};

enum ep_import_kind { EP_IMPORT_LINK, EP_IMPORT_EXCHANGE };

/* One result of a tool in our units. */
struct ep_import_point {
    enum ep_import_kind kind;
    char where[EP_IMPORT_TEXT]; /* FILE:LINE, the last part of a long one */
    char tool[EP_IMPORT_TEXT];  /* "osu_alltoall 7.5" */
    const char *how;            /* transport of an exchange, pattern of a link; a constant */
    const char *cadence;        /* barrier, stream; a constant, NULL = not known */
    int64_t num_ranks;          /* -1 = the text does not tell */
    int64_t ranks_per_node;     /* likewise */
    bool spread;                /* ranks go round the nodes in turn */
    int64_t size_bytes;         /* of one message; -1 where `matrix` counts */
    int64_t matrix;             /* index into matrices; -1 = equal messages, own one included */
    int64_t file_idx;           /* 0.. */
    struct ep_f64s samples_s;   /* owned */
    const char *mean;           /* what each sample is the mean of; NULL = single times */
    double bw_bytes_per_s;      /* links: of one pair and direction */
    int64_t concurrent_pairs;   /* links */
    int64_t wrong;              /* elements; -1 = not checked, or not counted */
    int64_t verified;           /* 1, 0; -1 = not checked */
};

/** What was read so far. Begin with {0}; free with ep_import_fini. */
struct ep_import {
    struct ep_import_point *points;
    int64_t num_points;
    struct ep_import_matrix *matrices;
    int64_t num_matrices;
    int64_t num_files;
    int64_t num_empty;            /* lines that move nothing between ranks, left out */
    struct ep_record_notes notes; /* warnings for run.json */
};

void ep_import_fini(struct ep_import *import);

/** An importer: a format of texts. */
struct ep_importer {
    const char *name;
    const char *summary; /* one line for --help */
    /** Read a whole text, NUL-terminated after `length` bytes, called `name` in messages, and add
     *  its points. Returns EP_EINVAL with name:line and what was expected. */
    enum ep_status (*read)(const char *name, const char *text, size_t length,
                           const struct ep_import_options *options, struct ep_import *import);
};

/** Importer 0 <= idx, NULL behind the last one. */
const struct ep_importer *ep_importer_at(int idx);

/** By name; EP_EINVAL lists the names. */
EP_MUST_CHECK enum ep_status ep_importer_find(const char *name, const struct ep_importer **found);

/** Read one text: add the points, all of file `num_files`, which then counts it. A text without any
 *  result is refused. */
EP_MUST_CHECK enum ep_status ep_import_text(const struct ep_importer *importer, const char *name,
                                            const char *text, size_t length,
                                            const struct ep_import_options *options,
                                            struct ep_import *import);

/** `name` and `place` in it (":12") as one text; of a long name its end, so that what tells files
 * apart stays. */
void ep_import_set_where(const char *name, const char *place, char where[EP_IMPORT_TEXT]);

/** A new point, absent but for `where`, `file_idx` and one sample; *point until the next call.
 *  time_s > 0, at most 1e6. Lines of 0 bytes are not added: *point = NULL, and they are counted. */
EP_MUST_CHECK enum ep_status ep_import_add_point(struct ep_import *import, const char *where,
                                                 int64_t size_bytes, double time_s,
                                                 struct ep_import_point **point);

/** A new matrix of zeros; *idx names it. 1 <= num_ranks <= EP_IMPORT_MAX_RANKS. */
EP_MUST_CHECK enum ep_status ep_import_add_matrix(struct ep_import *import, int64_t num_ranks,
                                                  int64_t *idx);

/** Records of all points, in their order, without run_id and record_id, and where
 *  host, machine, ranks and nodes of `run` come from. Repeated cases are visits of one.
 *  rows [num_points] (owned by the caller, each to be freed): matrices for traffic/, NULL for links
 *  and beyond EP_RUN_TRAFFIC_MAX_RANKS. Returns EP_EINVAL, naming the line, where ranks are not
 *  known or do not fit. */
EP_MUST_CHECK enum ep_status ep_import_make_records(struct ep_import *import,
                                                    const struct ep_import_options *options,
                                                    double now_utc_s, struct ep_run *run,
                                                    struct ep_record *records, int64_t **rows);

/** The same as a new run directory (NULL: the default one), which must not exist. Nothing stays
 * where it fails. *num_failed: records whose check failed. `path_made`, to be freed, where it went.
 */
EP_MUST_CHECK enum ep_status ep_import_write(struct ep_import *import,
                                             const struct ep_import_options *options,
                                             const char *path, double now_utc_s, struct ep_run *run,
                                             int64_t *num_failed, char **path_made);

/* The readers; each names its sources in results/README.md, "Import". */
#define EP_IMPORT_READER(id)                                                                       \
    EP_MUST_CHECK enum ep_status ep_import_read_##id(                                              \
        const char *name, const char *text, size_t length,                                         \
        const struct ep_import_options *options, struct ep_import *import)
EP_IMPORT_READER(osu);
EP_IMPORT_READER(imb);
EP_IMPORT_READER(nccl);
EP_IMPORT_READER(ucc);
EP_IMPORT_READER(csv);

#endif

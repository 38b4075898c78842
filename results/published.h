/* SPDX-License-Identifier: Apache-2.0 */
/* Published times of dispatch and combine, their bytes, and a model of two levels fitted to them. */
#ifndef EP_RESULTS_PUBLISHED_H
#define EP_RESULTS_PUBLISHED_H

#include "base/error.h"

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

/** What a printed bandwidth counts. A trailing "?" in the table: inferred, not said by its authors. */
enum ep_published_basis {
    EP_PUBLISHED_UNSTATED,   /* bandwidth of bytes that nobody names */
    EP_PUBLISHED_RANK_DEDUP, /* unique (token, rank), own rank included */
    EP_PUBLISHED_NODE_DEDUP, /* unique (token, node), own node included */
    EP_PUBLISHED_TIME,       /* no bandwidth, a time: what moves is a row per (token, expert) */
    EP_PUBLISHED_DENSE       /* a time: every expert's block is padded to all tokens of a rank */
};

enum { EP_PUBLISHED_TEXT = 64 };

/** Terms of the model, and what can bind. */
enum ep_published_level {
    EP_PUBLISHED_FIXED,  /* a fixed time, where tokens per rank vary within the fit */
    EP_PUBLISHED_NVLINK, /* bytes over NVLink, per rank, its own left out */
    EP_PUBLISHED_RDMA,   /* bytes over the network, per rank, its own node's left out */
    EP_PUBLISHED_NUM_LEVELS,
    EP_PUBLISHED_EITHER = EP_PUBLISHED_NUM_LEVELS /* all rows of a fit have the same ratio of both */
};

/** A row of the table. */
struct ep_published_row {
    char set[EP_PUBLISHED_TEXT];
    char fit_group[EP_PUBLISHED_TEXT]; /* rows of a set that share constants: one machine, one way */
    char gpu[EP_PUBLISHED_TEXT];
    char op[EP_PUBLISHED_TEXT];
    char byte_basis_text[EP_PUBLISHED_TEXT]; /* as in the table */
    enum ep_published_basis basis;
    int64_t ranks, nodes;
    int64_t num_tokens; /* per rank */
    int64_t hidden, top_k;
    int64_t num_experts; /* 0 = not stated */
    int64_t topk_groups; /* nodes a token may use; 0 = no limit */
    int64_t row_bytes;
    double bw_bytes_per_s; /* as printed; NaN where a time was */
    double latency_s;      /* as printed; NaN where a bandwidth was */
    double line_bytes_per_s; /* of the link that the bandwidth is of, one way; NaN = not known */
    int64_t line;          /* of the file */
    /* Derived: */
    double nodes_per_token, ranks_per_token; /* expected, own included */
    double logical_bytes;                    /* that the printed bandwidth counts; of one rank */
    double remote_bytes; /* of them those that leave the own rank or node; NaN where a time was */
    double level_bytes[EP_PUBLISHED_NUM_LEVELS]; /* of one rank, one direction; [FIXED] unused */
    double published_s;   /* NaN = withheld */
    double predicted_s;   /* NaN = withheld */
    double left_out_s; /* predicted by the rows of its fit with other numbers of ranks; NaN = none,
                          or they do not show what it needs */
    enum ep_published_level binding; /* the largest term, where predicted */
    char withheld[3 * EP_PUBLISHED_TEXT]; /* why; empty where predicted */
    int fit; /* index into fits; -1 = none */
};

/** What one fit found: t = fixed + max(NVLink bytes / B, RDMA bytes / B). */
struct ep_published_fit {
    const char *set, *fit_group; /* of its first row */
    int64_t num_rows;
    int num_constants;
    bool is_either; /* rows cannot tell NVLink from RDMA: taken as RDMA */
    int64_t num_bound[EP_PUBLISHED_NUM_LEVELS]; /* rows that this level binds; [FIXED]: has it */
    double seconds_per_byte[EP_PUBLISHED_NUM_LEVELS]; /* [FIXED]: seconds; 0 = binds nowhere */
    double mean_error, max_error; /* absolute, of the rows predicted; in-sample */
    double mean_left_out_error;   /* of the rows that have one; NaN = none */
};

struct ep_published {
    struct ep_published_row *rows; /* [num] */
    int64_t num;
    struct ep_published_fit *fits; /* [num_fits], one per set and fit_group */
    int num_fits;
};

/** Read a table (columns as results/published/ep_bench.csv, which README.md there explains), derive
 *  bytes and published times, and fit each group of rows to itself. `name` for messages.
 *  Returns EP_EINVAL, naming line and column, for what is no such table. */
EP_MUST_CHECK enum ep_status ep_published_read(const char *name, const char *text, size_t length,
                                               struct ep_published *published);

/** The same of the table that is built in. */
EP_MUST_CHECK enum ep_status ep_published_load(struct ep_published *published);
void ep_published_fini(struct ep_published *published);

/** Fit constants >= 0 to some rows by relative error of time: the best over all ways to split the
 *  rows into those bound by NVLink and those bound by RDMA.
 *  rows  [num >= 1] with published_s and level_bytes
 *  fit   overwritten; set, fit_group and the errors are left empty */
void ep_published_fit_rows(const struct ep_published_row *const *rows, int64_t num,
                           struct ep_published_fit *fit);

/** Time of a row by a fit; *binding (may be NULL): its largest term. */
double ep_published_predict(const struct ep_published_fit *fit, const struct ep_published_row *row,
                            enum ep_published_level *binding);

/** "latency", "nvlink", "rdma", "nvlink or rdma". */
const char *ep_published_level_name(enum ep_published_level level);

/** Dispatch + combine of one layer in "Insights into DeepSeek-V3" (arXiv 2505.09343, section 4.3):
 *  every copy of every token crosses the link, no de-duplication, no fixed time: seconds.
 *  element_bytes  of dispatch and combine together: 1 (fp8) + 2 (bf16) */
double ep_published_copies_time(int64_t num_tokens, int64_t copies_per_token, int64_t hidden,
                                int64_t element_bytes, double bw_bytes_per_s);

#endif

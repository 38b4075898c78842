/* SPDX-License-Identifier: Apache-2.0 */
/* One record: a visit of a case, with all its samples and what a fit needs. */
#ifndef EP_RESULTS_RECORD_H
#define EP_RESULTS_RECORD_H

#include "base/error.h"
#include "results/lists.h"

#include <stddef.h>
#include <stdint.h>

/* The version of records, run.json, machine.json and traffic files that this program writes and
 * reads; another one is refused by its number. */
enum { EP_RECORD_SCHEMA = 1 };

enum ep_record_kind {
    EP_RECORD_COMM,
    EP_RECORD_LINKS,
    EP_RECORD_KERNELS,
    EP_RECORD_LAYER,
    EP_RECORD_NUM_KINDS
};

/* The bases in which bytes are counted: bench/README.md, "Bytes". */
enum ep_record_basis {
    EP_RECORD_COPIES,     /* one row per (token, expert) */
    EP_RECORD_RANK_DEDUP, /* one row per (token, destination rank) */
    EP_RECORD_NODE_DEDUP, /* one row per (token, destination node) */
    EP_RECORD_NUM_BASES
};

/* "Not measured" or "does not apply": doubles are NaN, whole numbers and flags -1, texts NULL,
 * lists empty. All are written as null and read back as absent; absent is never 0. */
enum { EP_RECORD_ABSENT = -1 };

/* A named text: an MPI setting {name, value}, or a warning {name, text}. */
struct ep_record_note {
    char *name;
    char *text;
};

struct ep_record_notes {
    struct ep_record_note *items;
    int64_t num;
};

struct ep_record_phase {
    char *name; /* pack, counts, exchange, unpack; layer: also gemm, ... */
    double median_s;
    double low_s;
    double high_s;
    struct ep_f64s rank_median_s; /* [ranks] s */
    int64_t copied_bytes_max;     /* bytes read plus written by the busiest rank */
    struct ep_f64s rank_wait_s;   /* layer: [ranks] s of rank_median_s that ranks wait for others */
};

struct ep_record_phases {
    struct ep_record_phase *items;
    int64_t num;
};

/* A layer in chunks (layer --overlap): medians over repetitions, in each of which all were run. */
struct ep_record_overlap {
    int64_t chunks;
    int64_t n;       /* repetitions */
    double whole_s;  /* the layer unchunked */
    double steps_s;  /* in chunks, one thing after the other */
    double median_s; /* in chunks, overlapped */
    double low_s;
    double high_s;
    double exchange_s; /* of steps_s: exchanges, mean over ranks */
    double bound_s;    /* overlapped at no cost, in this order */
    double speedup;    /* whole over overlapped */
    double speedup_low;
    double speedup_high;
    double hidden; /* of the exchanges: (steps - overlapped) / exchanges; below 0: overlapping costs more */
    double hidden_low;
    double hidden_high;
    double hidden_bound;      /* the same of bound_s */
    double compute_slowdown;  /* GEMMs overlapped over alone */
    double exchange_slowdown; /* exchanges from start to seen through, over alone */
};

struct ep_record_overlaps {
    struct ep_record_overlap *items;
    int64_t num;
};

/* Verification: rows over all ranks. */
struct ep_record_check {
    int64_t rows; /* that had to arrive */
    int64_t wrong;
    int64_t missing;
    int64_t doubled;
};

/* Bytes of one direction in one basis; self traffic is in total only. */
struct ep_record_bytes {
    int64_t total;   /* all rows, self included */
    int64_t remote;  /* sender != receiver */
    int64_t max_out; /* remote bytes of the rank that sends most */
    int64_t max_in;  /* remote bytes of the rank that receives most */
};

/* Messages of one level by size: bin b holds sizes in [2^b, 2^(b+1)); zero bytes: bin 0. */
struct ep_record_message_bin {
    int64_t level; /* index into levels */
    int64_t log2_size;
    int64_t count; /* of the busiest rank */
    int64_t bytes; /* of the busiest rank */
};

struct ep_record_message_hist {
    struct ep_record_message_bin *items;
    int64_t num;
};

/* Bytes that pairs of ranks of one level exchange. */
struct ep_record_level {
    char *name; /* as `epbench topo` names the level */
    int64_t total;
    int64_t max_in;
    int64_t max_out;
    int64_t messages;
};

struct ep_record_levels {
    struct ep_record_level *items;
    int64_t num;
};

/* Physical bytes through one shared resource. */
struct ep_record_port {
    char *name;
    char *kind;      /* nic, uplink, memory, gpu */
    char *direction; /* in, out, shared */
    int64_t bytes;
};

struct ep_record_ports {
    struct ep_record_port *items;
    int64_t num;
};

/* One expert GEMM: C[m][n] = A[m][k] B[k][n], `groups` of them per sample. */
struct ep_record_gemm {
    char *backend;
    char *dtype;
    int64_t m;
    int64_t n;
    int64_t k;
    int64_t groups;
    int64_t weights_cold; /* flag: 1 = weights come from memory each time */
    int64_t ranks_active; /* ranks that compute at the same time */
    double flops;         /* per sample, all groups */
    double bytes;         /* that one sample must read and write at least */
};

/** A record. Begin with ep_record_init(), which makes everything absent; end with
 *  ep_record_fini(). All texts and lists are owned by the record. Every field is a key of the
 *  same name in JSON, but for case_name ("case"); results/README.md documents each. */
struct ep_record {
    enum ep_record_kind kind;

    /* --- every kind --- */
    char *record_id; /* unique and short; ep_record_make_id() */
    char *run_id;
    char *case_name; /* all factors in one text, the same for every visit; never launch or order */
    char *host;
    int64_t launch_idx; /* 0.. */
    int64_t order_idx;  /* 0.., place in the order of measuring */
    double start_utc_s; /* seconds since 1970 */
    int64_t ranks;
    int64_t nodes;
    int64_t ranks_per_node;
    char *rank_order; /* packed, spread */
    int64_t seed;
    char *cadence; /* barrier, stream */
    char *buffers; /* cold, warm */
    char *pages;   /* 4k, thp */
    int64_t huge_page_bytes; /* of the arena that really lie in huge pages; least over ranks */
    int64_t threads;         /* per rank */
    int64_t n;               /* samples */
    double warmup_s;
    double median_s;
    double low_s; /* 95 % interval of the median */
    double high_s;
    double min_s;
    double p95_s;
    double p99_s; /* only where n >= 100 */
    double mad_s;
    double lag1;       /* -1 to 1 */
    char *stop_reason; /* interval, budget, max_samples, fixed */
    int64_t visit_idx; /* 0.. */
    struct ep_f64s samples_s;     /* [n], in the order taken: max over ranks of each repetition */
    struct ep_f64s rank_median_s; /* [ranks] */
    double bound_s;               /* the least time the machine's peaks allow */
    char *bound_name;
    double null_s; /* the harness itself, by the null transport */
    double steal_s;
    int64_t context_switches;
    int64_t page_faults;
    struct ep_record_notes warnings;

    /* --- comm (and layer) --- */
    char *transport;
    char *algorithm; /* as forced or known of the MPI library */
    struct ep_record_notes mpi_params;
    char *op; /* dispatch, combine */
    char *model;
    int64_t tokens; /* per rank; the largest where unequal */
    struct ep_i64s tokens_per_rank; /* [ranks], where unequal */
    int64_t hidden;
    int64_t experts;
    int64_t top_k;
    char *dtype;
    char *combine_dtype;
    int64_t row_bytes; /* of this op's rows */
    char *skew;        /* as asked */
    double skew_achieved; /* received copies: max over mean of ranks */
    char *placement;
    char *routing_id;    /* of what is sent */
    char *router;        /* on logits of the skew's popularity; absent = the skew chose */
    char *style;         /* that was asked for: kernels/style.h */
    char *capacity_rule; /* kernels/capacity.h; rows = given, largest = padded to the largest count */
    double capacity_factor;
    double capacity_eval; /* fraction, Fairseq's evaluation */
    int64_t capacity_align;
    int64_t min_capacity; /* rows, the floor */
    int64_t capacity;     /* rows that an expert takes */
    char *capacity_per;   /* source: of each source rank; expert: of all together */
    char *drop;           /* none, order, choice, prob, random */
    char *overflow;       /* drop, next, expert:ID */
    int64_t pad;          /* flag: experts' rows are padded to the capacity */
    int64_t asked;        /* copies; kept + rerouted + dropped */
    int64_t kept;
    int64_t rerouted;
    int64_t dropped;
    int64_t tokens_dropped; /* tokens with a dropped copy */
    int64_t tokens_lost;    /* tokens without any copy left */
    int64_t padded;         /* rows of padded slots without a token, own rank's included */
    char *buffer_policy;        /* of buffers of rows: exact, static, dynamic */
    char *buffer_sized_by;      /* counts, capacity, worst case */
    int64_t buffer_peak_bytes;  /* that they take on the rank where that is most */
    int64_t buffer_used_bytes;  /* that the case's rows need of it, likewise */
    int64_t buffer_waste_bytes; /* largest over ranks of the difference */
    double buffer_alloc_s;      /* once (static) or in each step (dynamic): slowest rank's median */
    struct ep_record_phases phases;
    struct ep_record_check check;
    int64_t verified; /* flag: 1 = checked and right */
    double bw_bytes_per_s;         /* physical */
    double bw_logical_bytes_per_s; /* all rows, self included */
    char *bw_time;                 /* exchange, whole: the time under both bandwidths */
    char *byte_basis;              /* copies, rank-dedup, node-dedup: the transport's own */
    int64_t padding_bytes;
    int64_t metadata_bytes;
    struct ep_record_bytes bytes[EP_RECORD_NUM_BASES];
    /* These are of the bytes that move, padding rows included, metadata not. */
    double mean_out_bytes;        /* remote bytes / ranks */
    int64_t h_rank_bytes;         /* max over ranks of max(out, in) */
    int64_t h_nic_bytes;          /* busiest NIC */
    int64_t h_node_bytes;         /* busiest node, without what stays inside */
    int64_t self_bytes_max;       /* largest over ranks of bytes that stay on the rank */
    char *exchange_steps;         /* shift (rank i to i + s in step s) or xor (i with i xor s) */
    int64_t step_sum_bytes;       /* sum over steps s of the step's largest message */
    int64_t step_port_bytes;      /* the same over NICs and uplinks of several nodes: the most that one carries */
    int64_t schedule_bytes;       /* longest chain of the pairwise schedule */
    int64_t messages_max;         /* messages posted by the busiest rank, zero counts included */
    int64_t messages_nonzero_max; /* without zero counts */
    int64_t messages_uplink_max;  /* of one rank to other switches, zero counts included */
    struct ep_record_message_hist message_hist;
    struct ep_record_levels levels;
    struct ep_record_ports ports;
    struct ep_i64s switch_lanes;  /* [switches] links side by side of each uplink; empty = not known */
    struct ep_i64s node_switch;   /* [nodes] its switch; one beyond switch_lanes has no uplink */
    struct ep_i64s node_position; /* [nodes] lane = this modulo the switch's lanes, of messages to the node */

    /* --- layer --- */
    int64_t ffn;        /* inner columns of one routed expert */
    int64_t shared_ffn; /* of all shared experts together */
    int64_t tp;         /* ranks that share each expert's inner columns */
    int64_t dp;         /* copies side by side; ranks = tp x dp x ranks of one exchange */
    char *activation;   /* kernels/ffn.h: swiglu, ... */
    char *backend;      /* of the GEMMs */
    char *remedy;       /* against the skew, where several are compared: none, drop, ... */
    struct ep_i64s rank_experts;  /* [ranks] experts that each holds, copies too */
    struct ep_i64s expert_rows;   /* [their sum] rows that each gets, rank by rank */
    struct ep_f64s compute_s;     /* [ranks] medians: experts and shared experts */
    struct ep_f64s wait_matrix_s; /* [ranks][ranks]: rank i (line) waited for rank j, exchanges summed */
    double straggler;             /* compute: slowest rank over mean */
    double utilisation;           /* compute: mean over slowest */
    double move_over_compute;     /* exchanges without waits, pack and unpack; means over ranks */
    double wait_over_compute;
    double tokens_per_s;        /* of all ranks */
    double single_tokens_per_s; /* of one rank that has all experts, measured beside */
    double efficiency;          /* tokens_per_s / (ranks x single_tokens_per_s) */
    double dense_s;             /* a dense FFN of equal active parameters on the same tokens */
    double clock_error_s;       /* how far the clocks of hosts can be apart after correction */
    struct ep_record_overlaps overlap; /* one item per number of chunks */

    /* --- links (dtype-free messages between ranks) --- */
    char *level; /* the level of the pair, as `epbench topo` names it */
    struct ep_i64s pair; /* [2] ranks; the first pair where many run at once */
    char *port;          /* the port that was loaded, where one was */
    char *pattern;       /* pingpong, stream, ... */
    int64_t size_bytes;
    int64_t concurrent_pairs;

    /* --- kernels --- */
    char *kernel; /* gemm, permute, unpermute, gate, copy, read, write, fma, dot, ... */
    int64_t ranks_active; /* that work at the same time; the figures below are of all of them */
    int64_t working_set_bytes; /* of one rank */
    double moved_bytes; /* read plus written per sample, all active ranks */
    double flops_per_s;
    double pairs_per_s; /* (token, expert) pairs routed or counted */
    struct ep_record_gemm gemm;
};

/** Make every field of a record absent. */
void ep_record_init(struct ep_record *record, enum ep_record_kind kind);

/** Free what a record owns and make it absent again. */
void ep_record_fini(struct ep_record *record);

/** "comm", "links", "kernels", "layer"; "copies", "rank-dedup", "node-dedup". */
const char *ep_record_kind_name(enum ep_record_kind kind);
const char *ep_record_basis_name(enum ep_record_basis basis);

/** The basis of a name; EP_EINVAL lists the names. */
EP_MUST_CHECK enum ep_status ep_record_basis_find(const char *name, enum ep_record_basis *basis);

/** printf into a text field; what it held is freed. Fields may be named by their address:
 *  ep_record_set_text(&record.case_name, "comm/%s", op). Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_record_set_text(char **field, const char *format, ...)
    EP_PRINTF(2, 3);

/** Copy `num` values into a list field; what it held is freed. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_record_set_f64s(struct ep_f64s *field, const double *values,
                                                int64_t num);
EP_MUST_CHECK enum ep_status ep_record_set_i64s(struct ep_i64s *field, const int64_t *values,
                                                int64_t num);

/** Append {name, text} (copied). Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_record_add_note(struct ep_record_notes *notes, const char *name,
                                                const char *format, ...) EP_PRINTF(3, 4);

/** Append an item with everything absent; *item is valid until the next append to that list.
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_record_add_phase(struct ep_record *record, const char *name,
                                                 struct ep_record_phase **item);
EP_MUST_CHECK enum ep_status ep_record_add_overlap(struct ep_record *record,
                                                   struct ep_record_overlap **item);
EP_MUST_CHECK enum ep_status ep_record_add_level(struct ep_record *record, const char *name,
                                                 struct ep_record_level **item);
EP_MUST_CHECK enum ep_status ep_record_add_port(struct ep_record *record, const char *name,
                                                const char *kind, const char *direction,
                                                int64_t size_bytes);
EP_MUST_CHECK enum ep_status ep_record_add_message_bin(struct ep_record *record, int64_t level,
                                                       int64_t log2_size, int64_t count,
                                                       int64_t size_bytes);

/** The phase of that name, or NULL. */
const struct ep_record_phase *ep_record_find_phase(const struct ep_record *record,
                                                   const char *name);

/** The bytes in the transport's own basis, or NULL where byte_basis is absent or unknown. */
const struct ep_record_bytes *ep_record_own_bytes(const struct ep_record *record);

/** Fill n, median_s, low_s, high_s, min_s, p95_s, p99_s, mad_s and lag1 from samples_s.
 *  Returns EP_EINVAL without samples; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_record_summarize(struct ep_record *record);

/** Set record_id: 'r' and 12 characters of [0-9a-v] hashed (FNV-1a, 64 bit, of which 60 are kept)
 *  from run_id, kind, case, launch, order, visit and start time, so it differs between any two
 *  visits and is short enough for `epbench run --repeat`. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_record_make_id(struct ep_record *record);

/** One line of JSON without line end, to be freed by the caller. Every key of the kind is there,
 *  absent ones as null. Returns EP_EINVAL where a required key is absent, a number is infinite,
 *  negative where it must not be, or n is not the number of samples; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_record_to_line(const struct ep_record *record, char **line);

/** Parse one line of `length` bytes; `name` and `line` (1-based) go into messages.
 *  Strict: another schema, an unknown or doubled key, a wrong type, a missing required key and a
 *  negative time are EP_EINVAL, and the message names the place and the key. `record` is
 *  initialised here; fini it after EP_OK. */
EP_MUST_CHECK enum ep_status ep_record_from_line(const char *name, int64_t line, const char *text,
                                                 size_t length, struct ep_record *record);

#endif

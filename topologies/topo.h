/* SPDX-License-Identifier: Apache-2.0 */
/* Where ranks sit and what joins them: hosts, ranks, and the level of each pair in O(1). */
#ifndef EP_TOPOLOGIES_TOPO_H
#define EP_TOPOLOGIES_TOPO_H

#include "base/error.h"
#include "topologies/machine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EP_TOPO_MAX_HOSTS = 65536,
    EP_TOPO_MAX_RANKS = 1 << 22,
    EP_TOPO_MAX_LEVELS = 250,
    EP_TOPO_SELF = 0 /* index of the level of a rank with itself */
};

/** A class of rank pairs, over all hosts. Level 0 is "self". */
struct ep_topo_level {
    char name[96];         /* unique and the same on every machine of a kind: "L3", "host d=21" */
    enum ep_scope scope;
    char common[32];       /* type of the deepest common object: "L3", "package"; "" beyond a host */
    char subtype[32];
    bool same_numa;        /* same home NUMA node */
    bool oversubscribed;   /* the two ranks share a hardware thread or a core */
    bool floating;         /* an end is not bound to one core: not a class, nothing to fit */
    double slit;           /* 10 = local, 0 = not told */
    int64_t span_pus;      /* hardware threads under the common object; 0 beyond a host */
    int64_t num_pairs;     /* pairs of ranks i < k on this level; may be 0 */
    double reported_bytes_per_s; /* one way, as the source claims; NaN where it claims nothing */
    double measured_latency_s;   /* NaN until ep_topo_set_measured */
    double measured_bytes_per_s; /* NaN until ep_topo_set_measured */
};

struct ep_topo_host {
    char name[64];
    char *xml; /* owned; NUL-terminated; NULL for the copies that --nodes makes */
    size_t xml_length;
    const struct ep_machine *machine; /* shared by hosts of one signature; owned by the topo */
    int64_t machine_idx;
    int64_t num_ranks;
};

struct ep_topo_rank {
    int64_t host;
    int64_t core;    /* index into the machine's cores; -1: floating over several */
    int64_t pu;      /* index into the machine's pus; -1: floats inside its core, or over several */
    int64_t numa;    /* home NUMA node; -1: floating, or none */
    int64_t package; /* -1: floating, or none */
};

struct ep_topo {
    int64_t num_hosts;
    int64_t num_ranks;
    int64_t num_levels;
    int64_t num_machines;
    struct ep_topo_host *hosts;
    struct ep_topo_rank *ranks;
    struct ep_topo_level *levels;   /* nearest first */
    struct ep_machine **machines;   /* [num_machines], one per signature */
    uint8_t **class_level;          /* [num_machines][num_classes]: level of a class */
    uint8_t level_pu, level_core, level_floating, level_fabric;
    uint8_t *host_level;            /* [num_hosts][num_hosts]; NULL: all pairs of hosts alike */
    int64_t num_floating;           /* ranks that are not bound to one core */
    int64_t num_oversubscribed;     /* ranks beyond the hardware threads that they have */
};

/** One host's XML, as its first rank exported it. */
struct ep_topo_xml {
    const char *text;
    size_t length;
    const char *what; /* for messages and as name where the XML has none; NULL: "host N" */
};

/** One rank's place. */
struct ep_topo_binding {
    int64_t host;       /* index into the XMLs */
    const char *cpuset; /* what it is bound to, "0-3,8"; NULL: unbound (floating) */
};

/** Build from gathered XML and bindings (bench/comm.c: each host's XML from its first rank).
 *  xmls, bindings   read only; copied
 *  num_hosts >= 1; num_ranks >= 0
 *  Returns EP_EINVAL for bad XML (see ep_machine_create), a host out of range or a bad cpuset;
 *  EP_ENOMEM. Free with ep_topo_destroy. O(hosts + ranks + cores^2 per kind of host). */
EP_MUST_CHECK enum ep_status ep_topo_create(const struct ep_topo_xml *xmls, int64_t num_hosts,
                                            const struct ep_topo_binding *bindings,
                                            int64_t num_ranks, struct ep_topo **topo);

/** How ranks are laid out where nobody bound them: packed fills host after host and core after
 *  core; spread goes round the hosts, and on each round its packages. */
enum ep_rank_order { EP_RANK_ORDER_PACKED, EP_RANK_ORDER_SPREAD };

/** "packed" or "spread"; EP_EINVAL names the option and both words. */
EP_MUST_CHECK enum ep_status ep_rank_order_parse(const char *text, const char *what,
                                                 enum ep_rank_order *order);
const char *ep_rank_order_name(enum ep_rank_order order);

/** Build for ranks that do not run: one core each.
 *  num_hosts       hosts in all; XML h mod num_xmls describes host h
 *  ranks_per_host  > 0; beyond the cores of a host ranks share them (num_oversubscribed tells)
 *  num_ranks       at most num_hosts * ranks_per_host
 *  Returns as ep_topo_create. */
EP_MUST_CHECK enum ep_status ep_topo_create_placed(const struct ep_topo_xml *xmls,
                                                   int64_t num_xmls, int64_t num_hosts,
                                                   int64_t num_ranks, int64_t ranks_per_host,
                                                   enum ep_rank_order order,
                                                   struct ep_topo **topo);
void ep_topo_destroy(struct ep_topo *topo);

/** Level of the pair of ranks i and k (symmetric; EP_TOPO_SELF for i == k). O(1). */
int64_t ep_topo_level_of(const struct ep_topo *topo, int64_t i, int64_t k);

/** Is the level listed: has it pairs, or could these hosts have some? */
bool ep_topo_level_is_shown(const struct ep_topo_level *level);

/** Index of a level by name, or -1. */
int64_t ep_topo_find_level(const struct ep_topo *topo, const char *name);

/** Up to max_pairs pairs (i < k) of a level, spread evenly over all of them in (i, k) order, so
 *  that they sit on different cores and hosts.
 *  pairs  [max_pairs][2], overwritten; *num_found = how many
 *  O(ranks^2), but stops as soon as it can. */
void ep_topo_sample_pairs(const struct ep_topo *topo, int64_t level, int64_t max_pairs,
                          int64_t (*pairs)[2], int64_t *num_found);

/** Pairs of a level in which no rank occurs twice, as many as a greedy pass finds.
 *  pairs  [num_ranks / 2][2], overwritten
 *  Returns EP_OK; EP_ENOMEM. O(ranks^2). */
EP_MUST_CHECK enum ep_status ep_topo_match_pairs(const struct ep_topo *topo, int64_t level,
                                                 int64_t (*pairs)[2], int64_t *num_found);

/** Keep a level's measured values, for ep_topo_annotated_xml. */
void ep_topo_set_measured(struct ep_topo *topo, int64_t level, double latency_s,
                          double bw_bytes_per_s);

/** Host 0's XML with the measured value of each level written into it (what a run keeps as
 *  topology.xml). New string, to be freed. */
EP_MUST_CHECK enum ep_status ep_topo_annotated_xml(const struct ep_topo *topo, char **xml,
                                                   size_t *length);

/** Sizes of the caches that one core of host `host` has; 0 where it has none or they are unknown.
 *  Of caches of several sizes, the smallest. l3_cores: cores that share one last-level cache. */
struct ep_topo_caches {
    int64_t l1d_bytes;
    int64_t l2_bytes;
    int64_t l3_bytes;
    int64_t l3_cores;
};
void ep_topo_get_caches(const struct ep_topo *topo, int64_t host, struct ep_topo_caches *caches);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The catalogue of known hardware: machines made of rates that public sources give. */
#ifndef EP_TOPOLOGIES_CATALOGUE_H
#define EP_TOPOLOGIES_CATALOGUE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/** One figure and where it comes from. Texts are borrowed from the catalogue. */
struct ep_known_rate {
    double value;         /* SI; NaN = no source gives it */
    const char *kind;     /* measured, effective, reported, model-constant, derived, theoretical */
    const char *source;
    const char *note;
    bool is_checked;      /* the source was read; else it is from memory */
};

enum ep_known_type { EP_KNOWN_FP32, EP_KNOWN_BF16, EP_KNOWN_FP8, EP_KNOWN_NUM_TYPES };

/** "fp32", "bf16", "fp8". */
const char *ep_known_type_name(enum ep_known_type type);

/** One machine. Rates are of one rank and one way unless said; ranks are GPUs or cores. */
struct ep_known_machine {
    const char *name;       /* "h800-nvl8-ib400" */
    const char *title;
    bool is_gpu;            /* else ranks are cores, which share the node's memory */
    int64_t ranks_per_node; /* of one scale-up domain, or of one host */
    int64_t nics_per_node;
    struct ep_known_rate scale_up;  /* bytes/s of a rank to all of its domain; NaN on hosts */
    struct ep_known_rate pair;      /* bytes/s to any one of them, where less; NaN = the same */
    struct ep_known_rate nic;       /* bytes/s of one NIC */
    struct ep_known_rate memory;    /* bytes/s: of a GPU; of the whole node on hosts */
    struct ep_known_rate memory_size; /* bytes of a GPU; NaN on hosts */
    struct ep_known_rate flops[EP_KNOWN_NUM_TYPES]; /* flop/s of a rank */
    struct ep_known_rate step_scale_up;  /* s, latency of one step; NaN on hosts */
    struct ep_known_rate step_scale_out; /* s */
};

struct ep_catalogue {
    int64_t num;
    struct ep_known_machine *machines; /* [num] in the order of the file */
    struct ep_csv *hardware;           /* these keep the texts */
    struct ep_csv *list;
    char **texts;
    int64_t num_texts;
};

/** Read the built-in catalogue (topologies/catalogue/: machines.csv names rows of hardware.csv). Of rows
 *  that give one figure the best kind is taken, in the order above. Returns EP_EINVAL, naming file and
 *  line, for a table that is broken or a rate outside 1 B/s to 1e16. */
EP_MUST_CHECK enum ep_status ep_catalogue_create(struct ep_catalogue **catalogue);
void ep_catalogue_destroy(struct ep_catalogue *catalogue);

/** The machine of that name, borrowed. Returns EP_EINVAL; the message names the nearest. */
EP_MUST_CHECK enum ep_status ep_catalogue_find(const struct ep_catalogue *catalogue, const char *name,
                                               const struct ep_known_machine **machine);

#endif

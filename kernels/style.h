/* SPDX-License-Identifier: Apache-2.0 */
/* Styles: router, capacity, dropping and transport set together, as one system has them. */
#ifndef EP_KERNELS_STYLE_H
#define EP_KERNELS_STYLE_H

#include "base/error.h"

#include <stdbool.h>

/** One system: a row of the table in style.c. Texts are for people unless noted. */
struct ep_style {
    const char *name;        /* as in --style */
    const char *system;      /* what it is after */
    const char *router;      /* top-1 router, by its name in kernels/gate.h's table */
    const char *router_more; /* of larger top-k */
    const char *rule;        /* of capacity.h's table; NULL = none, dropless */
    bool rule_by_factor;     /* dropless unless a capacity factor is given */
    bool pad;                /* its buffers are padded to the capacity */
    const char *transport;   /* by name; this program may lack it */
    const char *nearest;     /* stands for it then; NULL = it is always there */
    const char *beyond;      /* what the system has that nothing here stands for */
    const char *source;      /* repository or paper */
};

/** All styles, ended by one without a name. */
extern const struct ep_style ep_styles[];

/** Find by name; EP_EINVAL names the nearest and lists what there is. */
EP_MUST_CHECK enum ep_status ep_style_find(const char *name, const struct ep_style **style);

#endif

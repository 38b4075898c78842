/* SPDX-License-Identifier: Apache-2.0 */
/* What `epbench route` is made of: modes, and sections of the default report. Each is one file and
 * one row of a table in route_modes.c. */
#ifndef EP_KERNELS_ROUTE_MODE_H
#define EP_KERNELS_ROUTE_MODE_H

#include "base/error.h"
#include "base/json.h"
#include "kernels/route_case.h"
#include "kernels/route_options.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** Something that `route` does in place of counting one routing. Its options are parsed by a child
 * parser into options_size bytes, zeroed before and released after by the command. */
struct ep_route_mode {
    const char *name; /* the option that asks for it: "--compare" */
    uint64_t uses;    /* EP_ROUTE_BIT of the shared options that it uses; others are refused */
    const struct argp *argp; /* its input is its own options */
    size_t options_size;     /* >= 1 */
    /** True where this mode was asked for; at most one may be. */
    bool (*asked)(const void *options);
    /** Do it: tables on stdout, or JSON to shared->json_path ("-" = stdout). The model is not
     *  applied yet (ep_route_options_apply_model on a copy). */
    enum ep_status (*run)(const struct ep_route_options *shared, const void *options);
};

/** Something more that the default report says. Its options are kept as those of a mode. */
struct ep_route_section {
    const char *name; /* for messages */
    const struct argp *argp;
    size_t options_size; /* >= 1 */
    /** Compute what print and set show, once the case has been counted. *made stays NULL where
     *  nothing was asked for; print and set are not called then. */
    enum ep_status (*make)(const void *options, const struct ep_route_case *route, void **made);
    /** Text below the tables; NULL = none. */
    enum ep_status (*print)(const void *made, const struct ep_route_case *route, FILE *out);
    /** Keys of the JSON object; NULL = none. */
    enum ep_status (*set)(const void *made, const struct ep_route_case *route, json_t *root);
    /** Free what make made; NULL = nothing to free. */
    void (*destroy)(void *made);
};

/** The rows of the tables. */
extern const struct ep_route_mode ep_route_mode_steps;
extern const struct ep_route_mode ep_route_mode_compare;
extern const struct ep_route_mode ep_route_mode_domains;
extern const struct ep_route_section ep_route_section_matrix;

/** Row `index` of the tables, in the order of --help and of the report; NULL past the last. */
const struct ep_route_mode *ep_route_mode_get(int index);
const struct ep_route_section *ep_route_section_get(int index);

/** Rows of each table, at most. */
enum { EP_ROUTE_MAX_PARTS = 16 };

#endif

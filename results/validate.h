/* SPDX-License-Identifier: Apache-2.0 */
/* Validations: each holds predictions against something known and says how far off they are. */
#ifndef EP_RESULTS_VALIDATE_H
#define EP_RESULTS_VALIDATE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json_t;

enum { EP_VALIDATE_MAX_DIRECTORIES = 64 };

/** What the command line asked for. Texts are borrowed. */
struct ep_validate_input {
    const char *value;  /* of the validation's own option; NULL where it takes none */
    const char *directories[EP_VALIDATE_MAX_DIRECTORIES]; /* runs to fit */
    int num_directories;
    const char *rungs;  /* --rungs: of --planted; NULL = all */
    int num_seeds;      /* --seeds: of --planted */
    uint64_t seed;
};

/** One validation: an option of `epbench validate`, and a row of the table in cmd_validate.c. */
struct ep_validation {
    const char *option; /* "planted": --planted */
    const char *value;  /* name of the option's value in --help; NULL = it takes none */
    const char *help;
    bool takes_runs; /* DIR... are its own */
    /** Run it: a table to `out` (NULL = none), one object per row appended to `rows` (an array), each
     *  with `validation`. *reached is set to false where a figure aimed at is missed, else left. */
    enum ep_status (*run)(const struct ep_validate_input *in, FILE *out, struct json_t *rows,
                          bool *reached);
};

extern const struct ep_validation ep_validation_planted;
extern const struct ep_validation ep_validation_held_out;
extern const struct ep_validation ep_validation_ping_pong;
extern const struct ep_validation ep_validation_pieces;
extern const struct ep_validation ep_validation_published;
extern const struct ep_validation ep_validation_simulated;

#endif

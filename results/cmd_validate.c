/* SPDX-License-Identifier: Apache-2.0 */
/* epbench validate: predictions against what is known: planted laws, other runs, published tables. */
#include "base/command.h"
#include "base/json.h"
#include "base/options.h"
#include "base/units.h"
#include "results/validate.h"

#include <errno.h>
#include <string.h>

enum ep_status ep_cmd_validate(int argc, char **argv);

static const struct ep_validation *const validations[] = {
    &ep_validation_planted,
    &ep_validation_held_out,
    &ep_validation_published,
    &ep_validation_ping_pong,
    &ep_validation_pieces,
    &ep_validation_simulated,
};
enum { NUM_VALIDATIONS = sizeof validations / sizeof validations[0], FIRST_KEY = 1024 };

struct input {
    struct ep_validate_input of_all;
    const char *values[NUM_VALIDATIONS];
    bool asked[NUM_VALIDATIONS];
    const char *json; /* NULL = tables on stdout alone */
};

enum option_key { KEY_JSON = 256, KEY_SEEDS, KEY_SEED, KEY_RUNGS };

/* The validations' own options follow these. */
/* clang-format off */
static const struct argp_option shared_options[] = {
    {"rungs", KEY_RUNGS, "LIST", 0, "Of --planted: these rungs alone", 0},
    {"seeds", KEY_SEEDS, "N", 0, "Of --planted: how many (default 1000)", 0},
    {"seed", KEY_SEED, "SEED", 0, "Random seed (default 1)", 0},
    {"json", KEY_JSON, "FILE", 0, "Write every row as JSON to FILE (- = stdout, instead of tables)", 0},
};
/* clang-format on */

enum { NUM_SHARED = sizeof shared_options / sizeof shared_options[0] };

/* all [NUM_SHARED + NUM_VALIDATIONS + 1], zeros at the end */
static void list_options(struct argp_option *all)
{
    memcpy(all, shared_options, sizeof shared_options);
    for (int i = 0; i < NUM_VALIDATIONS; i++) {
        all[NUM_SHARED + i] = (struct argp_option){.name = validations[i]->option,
                                                   .key = FIRST_KEY + i,
                                                   .arg = validations[i]->value,
                                                   .doc = validations[i]->help};
    }
}

static enum ep_status check(const struct input *in)
{
    int num = 0, num_with_runs = 0;
    for (int i = 0; i < NUM_VALIDATIONS; i++) {
        num += in->asked[i];
        num_with_runs += in->asked[i] && validations[i]->takes_runs;
    }
    if (num == 0) {
        return ep_error_set(EP_EINVAL, "nothing to validate: --%s, ... (epbench validate --help)",
                            validations[0]->option);
    }
    if (in->of_all.num_directories > 0 && num_with_runs == 0) {
        return ep_error_set(EP_EINVAL, "'%s': none of the validations asked for takes runs",
                            in->of_all.directories[0]);
    }
    return EP_OK;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct input *in = state->input;
    int64_t number = 0;
    if (key >= FIRST_KEY && key < FIRST_KEY + NUM_VALIDATIONS) {
        in->asked[key - FIRST_KEY] = true;
        in->values[key - FIRST_KEY] = text;
        return 0;
    }
    switch (key) {
    case KEY_JSON: in->json = text; return 0;
    case KEY_RUNGS: in->of_all.rungs = text; return 0;
    case KEY_SEEDS:
        if (ep_parse_i64(text, "--seeds", 1, 1000000, &number) != EP_OK) {
            return EINVAL;
        }
        in->of_all.num_seeds = (int)number;
        return 0;
    case KEY_SEED:
        if (ep_parse_i64(text, "--seed", 0, INT64_MAX, &number) != EP_OK) {
            return EINVAL;
        }
        in->of_all.seed = (uint64_t)number;
        return 0;
    case ARGP_KEY_ARG:
        if (in->of_all.num_directories == EP_VALIDATE_MAX_DIRECTORIES) {
            ep_error_set(EP_EINVAL, "more than %d directories", EP_VALIDATE_MAX_DIRECTORIES);
            return EINVAL;
        }
        in->of_all.directories[in->of_all.num_directories++] = text;
        return 0;
    case ARGP_KEY_END: return check(in) == EP_OK ? 0 : EINVAL;
    default: return ARGP_ERR_UNKNOWN;
    }
}

enum ep_status ep_cmd_validate(int argc, char **argv)
{
    struct argp_option options[NUM_SHARED + NUM_VALIDATIONS + 1] = {{0}};
    const struct argp argp = {
        options, parse, "[DIR...]",
        "Hold predictions against what is known and say how far off they are. A figure that this "
        "project aims at is printed beside what was reached, and a missed one makes the exit status 1.",
        NULL, NULL, NULL};
    enum ep_status status = EP_OK;
    struct input in = {.of_all = {.num_seeds = 1000, .seed = 1}};
    bool reached = true;
    json_t *rows = json_array();
    list_options(options);
    EP_TRY(ep_options_parse(&argp, argc, argv, &in));
    const bool tables = in.json == NULL || strcmp(in.json, "-") != 0;
    for (int i = 0; i < NUM_VALIDATIONS; i++) {
        if (in.asked[i]) {
            in.of_all.value = in.values[i];
            EP_TRY(validations[i]->run(&in.of_all, tables ? stdout : NULL, rows, &reached));
        }
    }
    if (in.json != NULL) {
        EP_TRY(ep_json_save(in.json, rows));
    }
    if (!reached) {
        status = ep_error_set(EP_ECHECK, "a figure aimed at is missed");
    }
out:
    json_decref(rows);
    return status;
}

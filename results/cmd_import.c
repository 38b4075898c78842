/* SPDX-License-Identifier: Apache-2.0 */
/* epbench import: results of other benchmarks as a run directory, for fit, plot and report. */
#include "base/command.h"
#include "base/file.h"
#include "base/options.h"
#include "base/units.h"
#include "results/import.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum ep_status ep_cmd_import(int argc, char **argv);

enum { MAX_FILES = 1024 };
#define FILE_LIMIT_BYTES (INT64_C(64) << 20)

struct input {
    const char *format;
    const char *files[MAX_FILES];
    int num_files;
    const char *output; /* NULL = the default directory */
    struct ep_import_options options;
};

/* clang-format off */
static const struct argp_option options[] = {
    {"output", 'o', "DIR", 0, "Run directory to make; must not exist (default: as `epbench run`)", 0},
    {"ranks", 'n', "N", 0, "Ranks of all-to-alls and of osu_multi_lat, where the text does not tell", 0},
    {"ranks-per-node", 'r', "N", 0, "Ranks on each node, one node after the other (default: as the text "
     "tells; else one node, with a warning)", 0},
    {"host", 'H', "NAME", 0, "Host that records name; runs of different hosts are not fitted together "
     "(default imported)", 0},
    {"machine", 'm', "TEXT", 0, "What was measured, in a line, for run.json and the report", 0},
    {"level", 'l', "NAME", 0, "Level of the pairs of links: host, fabric or what `epbench topo` names "
     "(default imported)", 0},
    {"op", 'O', "TEST", 0, "nccl: alltoall, alltoallv or sendrecv, where an old text does not name it; csv: "
     "alltoall, alltoallv (of equal messages), pingpong or window", 0},
    {"map", 'c', "LIST", 0, "csv: KEY=COLUMN,...; one of time_s, time_ms, time_us (a call; of links a "
     "message, one way), one of size_bytes (a message) and rank_bytes (all that a rank sends, to itself "
     "too); ranks, ranks_per_node", 0},
    {"size-of", 'z', "WHAT", 0, "ucc: the size is of a message (before UCC 1.5) or of all that a rank sends "
     "(default: by the line 'Total time')", 0},
    {"matrix", 'M', "FILE", 0, "nccl alltoallv: NCCL_TESTS_ALLTOALLV_MATRIX_FILE of the run", 0},
    {"scale", 's', "X", 0, "nccl alltoallv: NCCL_TESTS_ALLTOALLV_MATRIX_SCALE of the run (default 1)", 0},
    {"spread", 'S', "X", 0, "nccl alltoallv: NCCL_TESTS_ALLTOALLV_SPREAD of the run, 0 to 1", 0},
    {0},
};
/* clang-format on */

static error_t add_argument(struct input *in, const char *text)
{
    if (in->format == NULL) {
        in->format = text;
        return 0;
    }
    if (in->num_files == MAX_FILES) {
        ep_error_set(EP_EINVAL, "more than %d files", MAX_FILES);
        return EINVAL;
    }
    in->files[in->num_files++] = text;
    return 0;
}

static error_t check_end(const struct input *in)
{
    if (in->format == NULL || in->num_files == 0) {
        ep_error_set(EP_EINVAL, "%s is missing: epbench import FORMAT FILE... -o DIR",
                     in->format == NULL ? "a format" : "a file");
        return EINVAL;
    }
    return 0;
}

static error_t failed(enum ep_status status)
{
    return status == EP_OK ? 0 : EINVAL;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct input *in = state->input;
    struct ep_import_options *o = &in->options;
    switch (key) {
    case 'o': in->output = text; return 0;
    case 'H': o->host = text; return 0;
    case 'm': o->machine = text; return 0;
    case 'l': o->level = text; return 0;
    case 'O': o->op = text; return 0;
    case 'M': o->matrix = text; return 0;
    case 'c': o->map = text; return 0;
    case 'z': o->size_of = text; return 0;
    case 'n': return failed(ep_parse_i64(text, "--ranks", 1, 1 << 20, &o->num_ranks));
    case 'r': return failed(ep_parse_i64(text, "--ranks-per-node", 1, 1 << 20, &o->ranks_per_node));
    case 's': return failed(ep_parse_f64(text, "--scale", 0, 1e9, &o->scale));
    case 'S': return failed(ep_parse_f64(text, "--spread", 0, 1, &o->spread));
    case ARGP_KEY_ARG: return add_argument(in, text);
    case ARGP_KEY_END: return check_end(in);
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Formats and what they hold, from the table. */
static char *new_documentation(void)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) {
        return NULL;
    }
    fprintf(out, "Make a run directory of results that other benchmarks printed, for fit, plot and "
                 "report: point-to-point results become links records, all-to-alls comm records."
                 "\vFORMAT is one of\n");
    for (int i = 0; ep_importer_at(i) != NULL; i++) {
        fprintf(out, "  %-6s %s\n", ep_importer_at(i)->name, ep_importer_at(i)->summary);
    }
    return fclose(out) == 0 ? text : NULL;
}

static enum ep_status read_files(const struct input *in, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    const struct ep_importer *importer = NULL;
    EP_TRY(ep_importer_find(in->format, &importer));
    for (int i = 0; i < in->num_files; i++) {
        char *text = NULL;
        size_t length = 0;
        EP_TRY(ep_file_read(in->files[i], FILE_LIMIT_BYTES, &text, &length));
        status = ep_import_text(importer, in->files[i], text, length, &in->options, import);
        free(text);
        if (status != EP_OK) {
            goto out;
        }
    }
out:
    return status;
}

static double utc_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

enum ep_status ep_cmd_import(int argc, char **argv)
{
    enum ep_status status = EP_OK;
    struct input in = {0};
    struct ep_import import = {0};
    int64_t num_failed = 0;
    char *made = NULL;
    struct ep_run run;
    const double now_utc_s = utc_s();
    char *documentation = new_documentation();
    const struct argp argp = {options, parse, "FORMAT FILE...", documentation, NULL, NULL, NULL};
    ep_run_init(&run);
    ep_import_options_init(&in.options);
    EP_TRY(ep_options_parse(&argp, argc, argv, &in));
    EP_TRY(read_files(&in, &import));
    EP_TRY(ep_run_add_command(&run, argc, argv, now_utc_s));
    EP_TRY(ep_import_write(&import, &in.options, in.output, now_utc_s, &run, &num_failed, &made));
    for (int64_t i = 0; i < run.warnings.num; i++) {
        fprintf(stderr, "epbench import: warning: %s\n", run.warnings.items[i].text);
    }
    printf("%s: %" PRId64 " records of %" PRId64 " file%s\n", made, import.num_points,
           import.num_files, import.num_files == 1 ? "" : "s");
    if (num_failed > 0) {
        EP_TRY(ep_error_set(EP_ECHECK, "%" PRId64 " records failed the check of the tool that measured "
                            "them", num_failed));
    }
out:
    free(made);
    free(documentation);
    ep_import_fini(&import);
    ep_run_fini(&run);
    return status;
}

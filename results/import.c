/* SPDX-License-Identifier: Apache-2.0 */
/* Import: the table of readers, the list of what they read, and the run directory made of it. */
#include "results/import.h"

#include "base/file.h"
#include "results/import_lines.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* No message takes longer, and no machine moves more in or out of a rank. */
#define MOST_TIME_S      1e6
#define MOST_BYTES_PER_S 1e15

static const struct ep_importer importers[] = {
    {"osu",
     "OSU micro-benchmarks: osu_latency, osu_bw, osu_bibw, osu_multi_lat, osu_alltoall, "
     "osu_alltoallv and their non-blocking forms",
     ep_import_read_osu},
    {"imb",
     "Intel MPI Benchmarks: PingPong, PingPing, Sendrecv, Alltoall, Alltoallv and their "
     "non-blocking forms",
     ep_import_read_imb},
    {"nccl", "nccl-tests: alltoall_perf, alltoallv_perf, sendrecv_perf, text or JSON",
     ep_import_read_nccl},
    {"ucc", "UCC's ucc_perftest: alltoall, alltoallv of equal messages", ep_import_read_ucc},
    {"csv", "any CSV with a header, by --map and --op", ep_import_read_csv},
};

const struct ep_importer *ep_importer_at(int idx)
{
    const int num = (int)(sizeof importers / sizeof importers[0]);
    return idx >= 0 && idx < num ? &importers[idx] : NULL;
}

enum ep_status ep_importer_find(const char *name, const struct ep_importer **found)
{
    char names[128] = "";
    for (int i = 0; ep_importer_at(i) != NULL; i++) {
        const struct ep_importer *importer = ep_importer_at(i);
        if (strcmp(importer->name, name) == 0) {
            *found = importer;
            return EP_OK;
        }
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", importer->name);
    }
    return ep_error_set(EP_EINVAL, "'%s' is no format to import: %s", name, names);
}

void ep_import_options_init(struct ep_import_options *options)
{
    *options = (struct ep_import_options){
        .num_ranks = -1, .ranks_per_node = -1, .scale = 1, .spread = NAN};
}

void ep_import_fini(struct ep_import *import)
{
    for (int64_t i = 0; i < import->num_points; i++) {
        free(import->points[i].samples_s.items);
    }
    for (int64_t i = 0; i < import->num_matrices; i++) {
        free(import->matrices[i].bytes);
    }
    for (int64_t i = 0; i < import->notes.num; i++) {
        free(import->notes.items[i].name);
        free(import->notes.items[i].text);
    }
    free(import->points);
    free(import->matrices);
    free(import->notes.items);
    *import = (struct ep_import){0};
}

/* Room for one more of `num` items of `size` bytes; doubles. */
static enum ep_status make_room(void **items, int64_t num, size_t size)
{
    if ((num & (num - 1)) != 0) {
        return EP_OK;
    }
    void *larger = realloc(*items, (num == 0 ? 1 : 2 * (size_t)num) * size);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " imported results", num);
    }
    *items = larger;
    return EP_OK;
}

void ep_import_set_where(const char *name, const char *place, char where[EP_IMPORT_TEXT])
{
    const size_t most = EP_IMPORT_TEXT - 1 - strlen(place);
    const size_t length = strlen(name);
    const char *tail = length > most ? name + (length - most) : name;
    while ((*tail & 0xc0) == 0x80) { /* not within a character of UTF-8 */
        tail++;
    }
    snprintf(where, EP_IMPORT_TEXT, "%s%s", tail, place);
}

enum ep_status ep_import_add_point(struct ep_import *import, const char *where, int64_t size_bytes,
                                   double time_s, struct ep_import_point **point)
{
    enum ep_status status = EP_OK;
    *point = NULL;
    if (size_bytes == 0) {
        import->num_empty++;
        return EP_OK;
    }
    if (!(time_s > 0 && time_s <= MOST_TIME_S)) {
        return ep_error_set(EP_EINVAL, "%s: a time of %g s; above 0 and up to %g s was expected",
                            where, time_s, MOST_TIME_S);
    }
    if ((double)size_bytes > MOST_BYTES_PER_S * time_s) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " bytes in %g s is no possible bandwidth",
                            where, size_bytes, time_s);
    }
    if (import->num_points == EP_IMPORT_MAX_POINTS) {
        return ep_error_set(EP_EINVAL, "%s: more than %d results", where, EP_IMPORT_MAX_POINTS);
    }
    void *items = import->points;
    EP_TRY(make_room(&items, import->num_points, sizeof *import->points));
    import->points = items;
    struct ep_import_point *made = &import->points[import->num_points];
    *made = (struct ep_import_point){
        .num_ranks = -1,
        .ranks_per_node = -1,
        .size_bytes = size_bytes,
        .matrix = -1,
        .file_idx = import->num_files,
        .bw_bytes_per_s = NAN,
        .concurrent_pairs = 1,
        .wrong = -1,
        .verified = -1,
    };
    snprintf(made->where, sizeof made->where, "%s", where);
    EP_TRY(ep_record_set_f64s(&made->samples_s, &time_s, 1));
    import->num_points++;
    *point = made;
out:
    return status;
}

enum ep_status ep_import_add_matrix(struct ep_import *import, int64_t num_ranks, int64_t *idx)
{
    EP_ASSERT(num_ranks >= 1 && num_ranks <= EP_IMPORT_MAX_RANKS);
    int64_t num_cells = num_ranks * num_ranks;
    for (int64_t i = 0; i < import->num_matrices; i++) {
        num_cells += import->matrices[i].num_ranks * import->matrices[i].num_ranks;
    }
    if (num_cells > EP_IMPORT_MAX_CELLS) {
        return ep_error_set(EP_EINVAL,
                            "matrices of more than %d numbers in all; import fewer results at "
                            "once",
                            EP_IMPORT_MAX_CELLS);
    }
    void *items = import->matrices;
    const enum ep_status status = make_room(&items, import->num_matrices, sizeof *import->matrices);
    if (status != EP_OK) {
        return status;
    }
    import->matrices = items;
    struct ep_import_matrix *made = &import->matrices[import->num_matrices];
    *made = (struct ep_import_matrix){
        .num_ranks = num_ranks,
        .bytes = calloc((size_t)(num_ranks * num_ranks), sizeof *made->bytes)};
    if (made->bytes == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a matrix of %" PRId64 " ranks", num_ranks);
    }
    *idx = import->num_matrices++;
    return EP_OK;
}

enum ep_status ep_import_text(const struct ep_importer *importer, const char *name,
                              const char *text, size_t length,
                              const struct ep_import_options *options, struct ep_import *import)
{
    const int64_t before = import->num_points;
    const enum ep_status status = importer->read(name, text, length, options, import);
    if (status == EP_OK && import->num_points == before) {
        return ep_error_set(EP_EINVAL, "%s: no result in it; output of %s was expected", name,
                            importer->summary);
    }
    import->num_files++;
    return status;
}

/* --- the run directory ----------------------------------------------------------------------- */

/* What could not be finished goes away; only what was made here. */
static void remove_run(const struct ep_run_dir *dir, const struct ep_record *records, int64_t num)
{
    char *path = NULL;
    for (int64_t i = 0; i < num; i++) {
        if (records[i].routing_id != NULL &&
            (path = ep_format_new("%s/traffic/%s.json", dir->path, records[i].routing_id)) !=
                NULL) {
            unlink(path);
            free(path);
        }
    }
    static const char *const names[] = {"traffic", "records.jsonl", "run.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if ((path = ep_path_join(dir->path, names[i])) != NULL) {
            if (unlink(path) != 0) {
                rmdir(path);
            }
            free(path);
        }
    }
    rmdir(dir->path);
}

/* A record that cannot be written is found before anything is on disk. */
static enum ep_status check_record(struct ep_record *record, const char *run_id)
{
    char *line = NULL;
    enum ep_status status = ep_record_set_text(&record->run_id, "%s", run_id);
    if (status == EP_OK) {
        status = ep_record_make_id(record);
    }
    if (status == EP_OK) {
        status = ep_record_to_line(record, &line);
    }
    free(line);
    return status;
}

static enum ep_status fill_directory(struct ep_run_dir *dir, struct ep_record *records, int64_t num,
                                     int64_t *const *rows)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_run_dir_add_records(dir, records, num));
    for (int64_t i = 0; i < num; i++) {
        if (rows[i] != NULL) {
            const int64_t *const matrices[EP_RECORD_NUM_BASES] = {[EP_RECORD_COPIES] = rows[i]};
            EP_TRY(ep_run_dir_write_traffic(dir->path, records[i].routing_id, records[i].ranks,
                                            matrices));
        }
    }
out:
    return status;
}

enum ep_status ep_import_write(struct ep_import *import, const struct ep_import_options *options,
                               const char *path, double now_utc_s, struct ep_run *run,
                               int64_t *num_failed, char **path_made)
{
    enum ep_status status = EP_OK;
    const int64_t num = import->num_points;
    struct ep_run_dir dir = {.records_fd = -1};
    struct ep_record *records = calloc((size_t)num + 1, sizeof *records);
    int64_t **rows = calloc((size_t)num + 1, sizeof *rows);
    bool is_made = false;
    int64_t failed = 0;
    for (int64_t i = 0; records != NULL && i < num; i++) {
        ep_record_init(&records[i], EP_RECORD_COMM);
    }
    if (records == NULL || rows == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " records", num));
    }
    EP_TRY(ep_import_make_records(import, options, now_utc_s, run, records, rows));
    for (int64_t i = 0; i < num; i++) {
        EP_TRY(check_record(&records[i], "import"));
        failed += records[i].verified == 0;
    }
    for (int64_t i = 0; i < num; i++) { /* with the run's own id */
        free(records[i].run_id);
        free(records[i].record_id);
        records[i].run_id = NULL;
        records[i].record_id = NULL;
    }
    EP_TRY(ep_run_dir_create(path, run, &dir));
    is_made = true;
    EP_TRY(fill_directory(&dir, records, num, rows));
    *path_made = strdup(dir.path);
    if (*path_made == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a path"));
    }
    *num_failed = failed;
out:
    if (status != EP_OK && is_made) {
        remove_run(&dir, records, num);
    }
    ep_run_dir_fini(&dir);
    for (int64_t i = 0; i < num; i++) {
        if (records != NULL) {
            ep_record_fini(&records[i]);
        }
        if (rows != NULL) {
            free(rows[i]);
        }
    }
    free(records);
    free(rows);
    return status;
}

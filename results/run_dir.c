/* SPDX-License-Identifier: Apache-2.0 */
/* Run directories: creating, appending records so that a crash loses at most one, run.json. */
#include "results/run_dir.h"

#include "base/file.h"
#include "base/json.h"
#include "results/columns.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RUN_LIMIT_BYTES (INT64_C(64) << 20)
#define RECORDS_LIMIT_BYTES (INT64_C(4) << 30)

/* clang-format off */
static const struct ep_column note_columns[] = {
    {"name", EP_COLUMN_TEXT, 0, 1, .offset = offsetof(struct ep_record_note, name)},
    {"text", EP_COLUMN_TEXT, 0, 1, .offset = offsetof(struct ep_record_note, text)},
    {.name = NULL},
};

static const struct ep_column command_columns[] = {
    {"command_line", EP_COLUMN_TEXT, 0, 1, .offset = offsetof(struct ep_run_command, command_line)},
    {"start_utc_s", EP_COLUMN_F64, 0, 1, .offset = offsetof(struct ep_run_command, start_utc_s)},
    {.name = NULL},
};

static const struct ep_column rank_columns[] = {
    {"rank", EP_COLUMN_I64, 0, 1, .offset = offsetof(struct ep_run_rank, rank)},
    {"host", EP_COLUMN_TEXT, 0, 1, .offset = offsetof(struct ep_run_rank, host)},
    {"node", EP_COLUMN_I64, 0, 0, .offset = offsetof(struct ep_run_rank, node)},
    {"cpus", EP_COLUMN_TEXT, 0, 0, .offset = offsetof(struct ep_run_rank, cpus)},
    {.name = NULL},
};

#define F(field) .offset = offsetof(struct ep_run, field)
#define NOTES(field) F(field), .columns = note_columns, .item_size = sizeof(struct ep_record_note)
static const struct ep_column run_columns[] = {
    {"run_id", EP_COLUMN_TEXT, 0, 1, F(run_id)},
    {"start_utc_s", EP_COLUMN_F64, 0, 0, F(start_utc_s)},
    {"version", EP_COLUMN_TEXT, 0, 0, F(version)},
    {"compiler", EP_COLUMN_TEXT, 0, 0, F(compiler)},
    {"flags", EP_COLUMN_TEXT, 0, 0, F(flags)},
    {"mpi_version", EP_COLUMN_TEXT, 0, 0, F(mpi_version)},
    {"mpi_settings", EP_COLUMN_LIST, 0, 0, NOTES(mpi_settings)},
    {"host", EP_COLUMN_TEXT, 0, 1, F(host)},
    {"machine", EP_COLUMN_TEXT, 0, 0, F(machine)},
    {"machine_facts", EP_COLUMN_LIST, 0, 0, NOTES(machine_facts)},
    {"profile", EP_COLUMN_TEXT, 0, 0, F(profile)},
    {"comm_ranks", EP_COLUMN_TEXT, 0, 0, F(comm_ranks)},
    {"comm_rank_order", EP_COLUMN_TEXT, 0, 0, F(comm_rank_order)},
    {"comm_tokens", EP_COLUMN_TEXT, 0, 0, F(comm_tokens)},
    {"num_ranks", EP_COLUMN_I64, 0, 0, F(num_ranks)},
    {"num_nodes", EP_COLUMN_I64, 0, 0, F(num_nodes)},
    {"ranks_per_node", EP_COLUMN_I64, 0, 0, F(ranks_per_node)},
    {"seed", EP_COLUMN_I64, 0, 0, F(seed)},
    {"ranks", EP_COLUMN_LIST, 0, 0, F(ranks), .columns = rank_columns,
     .item_size = sizeof(struct ep_run_rank)},
    {"commands", EP_COLUMN_LIST, 0, 0, F(commands), .columns = command_columns,
     .item_size = sizeof(struct ep_run_command)},
    {"warnings", EP_COLUMN_LIST, 0, 0, NOTES(warnings)},
    {"skipped", EP_COLUMN_LIST, 0, 0, NOTES(skipped)},
    {.name = NULL},
};
/* clang-format on */

void ep_run_init(struct ep_run *run)
{
    ep_columns_init(run_columns, run);
}

void ep_run_fini(struct ep_run *run)
{
    ep_columns_fini(run_columns, run);
}

static enum ep_status add_item(struct ep_run *run, const char *name, void **item)
{
    const struct ep_column *c = run_columns;
    while (c->name != NULL && strcmp(c->name, name) != 0) {
        c++;
    }
    EP_ASSERT(c->name != NULL);
    return ep_columns_add_item(c, run, item);
}

/* One word as a shell would need it typed. */
static void print_quoted(FILE *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";
    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word != '\0'; word++) {
        fputs(*word == '\'' ? "'\\''" : (char[2]){*word, '\0'}, out);
    }
    fputc('\'', out);
}

enum ep_status ep_run_add_command(struct ep_run *run, int argc, char **argv, double start_utc_s)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the command line");
    }
    for (int i = 0; i < argc; i++) {
        fputs(i > 0 ? " " : "", out);
        /* argv[0] of a command is "epbench NAME": two words already */
        if (i == 0) {
            fputs(argv[i], out);
        } else {
            print_quoted(out, argv[i]);
        }
    }
    void *item = NULL;
    enum ep_status status = fclose(out) == 0 ? add_item(run, "commands", &item)
                                             : ep_error_set(EP_ENOMEM, "no memory");
    if (status != EP_OK) {
        free(text);
        return status;
    }
    *(struct ep_run_command *)item =
        (struct ep_run_command){.command_line = text, .start_utc_s = start_utc_s};
    return EP_OK;
}

enum ep_status ep_run_add_rank(struct ep_run *run, int64_t rank, const char *host, int64_t node,
                               const char *cpus)
{
    void *item = NULL;
    enum ep_status status = add_item(run, "ranks", &item);
    if (status != EP_OK) {
        return status;
    }
    struct ep_run_rank *added = item;
    added->rank = rank;
    added->node = node;
    status = ep_record_set_text(&added->host, "%s", host);
    return status == EP_OK && cpus != NULL ? ep_record_set_text(&added->cpus, "%s", cpus) : status;
}

enum ep_status ep_run_read(const char *directory, struct ep_run *run)
{
    static const char *const others[] = {"schema"};
    enum ep_status status = EP_OK;
    json_t *json = NULL;
    int64_t schema = 0;
    struct ep_run read;
    ep_run_init(&read);
    char *path = ep_path_join(directory, "run.json");
    if (path == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a path");
    }
    EP_TRY(ep_json_load(path, RUN_LIMIT_BYTES, &json));
    EP_TRY(ep_json_get_i64(json, "schema", path, 0, INT64_MAX, &schema));
    if (schema != EP_RECORD_SCHEMA) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: schema %" PRId64 "; this program reads schema %d", path,
                            schema, EP_RECORD_SCHEMA));
    }
    EP_TRY(ep_columns_from_json(run_columns, 0, json, path, others, 1, &read));
    *run = read;
out:
    if (status != EP_OK) {
        ep_run_fini(&read);
    }
    json_decref(json);
    free(path);
    return status;
}

static void format_utc(double start_utc_s, char *text, size_t length)
{
    const time_t seconds = (time_t)start_utc_s;
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(text, length, "%Y%m%dT%H%M%SZ", &parts);
}

char *ep_run_default_path(const char *host, double start_utc_s)
{
    char utc[32];
    format_utc(start_utc_s, utc, sizeof utc);
    const bool in_source_tree = access("bench/epbench.c", F_OK) == 0;
    return ep_format_new(in_source_tree ? "results/runs/%s-%s" : "./epbench-%s-%s", host, utc);
}

static enum ep_status set_run_id(struct ep_run *run)
{
    char utc[32];
    format_utc(run->start_utc_s, utc, sizeof utc);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* Two runs that start in one second on one host still differ. */
    const unsigned salt = ((unsigned)now.tv_nsec ^ (unsigned)getpid() * 2654435761u) & 0xffffffu;
    return ep_record_set_text(&run->run_id, "%s-%s-%06x", run->host, utc, salt);
}

/* A directory that could not be filled goes away again. */
static void remove_new(const char *directory)
{
    char *run = ep_path_join(directory, "run.json");
    if (run != NULL) {
        unlink(run);
        free(run);
    }
    rmdir(directory);
}

enum ep_status ep_run_dir_create(const char *path, struct ep_run *run, struct ep_run_dir *dir)
{
    enum ep_status status = EP_OK;
    bool is_new = false;
    char *records = NULL;
    struct ep_run_dir made = {.records_fd = -1};
    if (run->host == NULL || !(run->start_utc_s > 0)) {
        return ep_error_set(EP_EINVAL, "a run needs a host and a start time");
    }
    made.path = path != NULL ? strdup(path) : ep_run_default_path(run->host, run->start_utc_s);
    if (made.path == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a path");
    }
    if (run->run_id == NULL) {
        EP_TRY(set_run_id(run));
    }
    EP_TRY(ep_dir_create_new(made.path));
    is_new = true;
    EP_TRY(ep_record_set_text(&made.run_id, "%s", run->run_id));
    EP_TRY(ep_run_dir_write_run(&made, run));
    records = ep_path_join(made.path, "records.jsonl");
    made.records_fd =
        records != NULL ? open(records, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    if (made.records_fd < 0) {
        EP_TRY(ep_error_set(EP_EIO, "%s/records.jsonl: cannot be created: %s", made.path,
                            strerror(errno)));
    }
    *dir = made;
out:
    free(records);
    if (status != EP_OK && is_new) {
        remove_new(made.path);
    }
    if (status != EP_OK) {
        ep_run_dir_fini(&made);
    }
    return status;
}

static enum ep_status io_error(const struct ep_run_dir *dir, const char *what)
{
    return ep_error_set(EP_EIO, "%s/records.jsonl: cannot be %s: %s", dir->path, what,
                        strerror(errno));
}

/* After a crash: cut an unfinished last line off, or end a whole one. */
static enum ep_status mend_last_line(struct ep_run_dir *dir, const char *text, size_t length)
{
    size_t whole = length;
    while (whole > 0 && text[whole - 1] != '\n') {
        whole--;
    }
    if (whole == length) {
        return EP_OK;
    }
    struct ep_record last;
    if (ep_record_from_line(dir->path, 1, text + whole, length - whole, &last) == EP_OK) {
        ep_record_fini(&last);
        return write(dir->records_fd, "\n", 1) == 1 ? EP_OK : io_error(dir, "written");
    }
    ep_error_clear();
    dir->dropped_bytes = (int64_t)(length - whole);
    return ftruncate(dir->records_fd, (off_t)whole) == 0 ? EP_OK : io_error(dir, "cut back");
}

enum ep_status ep_run_dir_append(const char *path, struct ep_run_dir *dir)
{
    enum ep_status status = EP_OK;
    char *text = NULL;
    size_t length = 0;
    struct ep_run run;
    struct ep_run_dir opened = {.records_fd = -1};
    ep_run_init(&run);
    char *records = ep_path_join(path, "records.jsonl");
    opened.path = strdup(path);
    if (records == NULL || opened.path == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a path"));
    }
    EP_TRY(ep_run_read(path, &run));
    EP_TRY(ep_record_set_text(&opened.run_id, "%s", run.run_id));
    EP_TRY(ep_file_read(records, RECORDS_LIMIT_BYTES, &text, &length));
    opened.records_fd = open(records, O_RDWR | O_APPEND | O_CLOEXEC);
    if (opened.records_fd < 0) {
        EP_TRY(io_error(&opened, "opened for writing"));
    }
    EP_TRY(mend_last_line(&opened, text, length));
    *dir = opened;
out:
    if (status != EP_OK) {
        ep_run_dir_fini(&opened);
    }
    ep_run_fini(&run);
    free(text);
    free(records);
    return status;
}

void ep_run_dir_fini(struct ep_run_dir *dir)
{
    if (dir->path != NULL && dir->records_fd >= 0) {
        close(dir->records_fd);
    }
    free(dir->path);
    free(dir->run_id);
    *dir = (struct ep_run_dir){.records_fd = -1};
}

enum ep_status ep_run_dir_write_run(const struct ep_run_dir *dir, const struct ep_run *run)
{
    enum ep_status status = EP_OK;
    json_t *json = json_object();
    char *path = ep_path_join(dir->path, "run.json");
    EP_TRY(ep_json_set(json, "schema", json_integer(EP_RECORD_SCHEMA)));
    EP_TRY(ep_columns_to_json(run_columns, 0, run, "run.json", json));
    if (path == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a path"));
    }
    EP_TRY(ep_json_save(path, json));
out:
    free(path);
    json_decref(json);
    return status;
}

static enum ep_status write_lines(struct ep_run_dir *dir, const char *lines, size_t length)
{
    const off_t end = lseek(dir->records_fd, 0, SEEK_END);
    size_t written = 0;
    while (end >= 0 && written < length) {
        const ssize_t put = write(dir->records_fd, lines + written, length - written);
        if (put < 0 && errno != EINTR) {
            const enum ep_status status = io_error(dir, "written");
            /* Of lines without room none stays; where even that fails, readers leave it out. */
            const int cut = ftruncate(dir->records_fd, end);
            (void)cut;
            return status;
        }
        written += put > 0 ? (size_t)put : 0;
    }
    if (end < 0 || fdatasync(dir->records_fd) != 0) {
        return io_error(dir, "written");
    }
    return EP_OK;
}

static enum ep_status put_line(const struct ep_run_dir *dir, struct ep_record *record, FILE *out)
{
    enum ep_status status = EP_OK;
    char *line = NULL;
    if (record->run_id == NULL) {
        EP_TRY(ep_record_set_text(&record->run_id, "%s", dir->run_id));
    }
    if (record->record_id == NULL) {
        EP_TRY(ep_record_make_id(record));
    }
    EP_TRY(ep_record_to_line(record, &line));
    fprintf(out, "%s\n", line);
out:
    free(line);
    return status;
}

enum ep_status ep_run_dir_add_records(struct ep_run_dir *dir, struct ep_record *records,
                                      int64_t num)
{
    enum ep_status status = EP_OK;
    char *lines = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&lines, &length);
    for (int64_t i = 0; out != NULL && status == EP_OK && i < num; i++) {
        status = put_line(dir, &records[i], out);
    }
    if (out == NULL || fclose(out) != 0) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " records", num));
    }
    EP_TRY(status);
    EP_TRY(write_lines(dir, lines, length));
out:
    free(lines);
    return status;
}

enum ep_status ep_run_dir_add_record(struct ep_run_dir *dir, struct ep_record *record)
{
    return ep_run_dir_add_records(dir, record, 1);
}

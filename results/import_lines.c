/* SPDX-License-Identifier: Apache-2.0 */
/* Lines, words and numbers of texts that other programs printed. */
#include "results/import_lines.h"

#include "base/text.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char blanks[] = " \t\r\v\f";

enum ep_status ep_import_lines_init(const char *name, const char *text, size_t length,
                                    struct ep_import_lines *lines)
{
    enum ep_status status = ep_text_check(name, text, length);
    if (status != EP_OK) {
        return status;
    }
    char *copy = malloc(length + 1);
    if (copy == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory to read it", name);
    }
    memcpy(copy, text, length);
    copy[length] = '\0';
    *lines =
        (struct ep_import_lines){.name = name, .copy = copy, .next = copy, .end = copy + length};
    if (length == 0 || copy[length - 1] == '\n') {
        return EP_OK;
    }
    while (ep_import_lines_next(lines)) { /* to name the last line */
    }
    status = ep_import_lines_fail(lines,
                                  "the text ends within this line; a line end was expected, so it "
                                  "may be cut");
    ep_import_lines_fini(lines);
    return status;
}

void ep_import_lines_fini(struct ep_import_lines *lines)
{
    free(lines->copy);
    *lines = (struct ep_import_lines){0};
}

bool ep_import_lines_next(struct ep_import_lines *lines)
{
    if (lines->next >= lines->end) {
        return false;
    }
    char *text = lines->next;
    char *stop = memchr(text, '\n', (size_t)(lines->end - text));
    lines->next = stop != NULL ? stop + 1 : lines->end;
    stop = stop != NULL ? stop : lines->end;
    while (stop > text && strchr(blanks, stop[-1]) != NULL) {
        stop--;
    }
    *stop = '\0';
    lines->text = text + strspn(text, blanks);
    lines->line++;
    lines->num_words = 0;
    char place[24];
    snprintf(place, sizeof place, ":%" PRId64, lines->line);
    ep_import_set_where(lines->name, place, lines->where);
    return true;
}

enum ep_status ep_import_lines_split(struct ep_import_lines *lines)
{
    char *state = NULL;
    lines->num_words = 0;
    for (char *word = strtok_r(lines->text, blanks, &state); word != NULL;
         word = strtok_r(NULL, blanks, &state)) {
        if (lines->num_words == EP_IMPORT_MAX_WORDS) {
            return ep_import_lines_fail(lines, "more than %d words", EP_IMPORT_MAX_WORDS);
        }
        lines->words[lines->num_words++] = word;
    }
    return EP_OK;
}

enum ep_status ep_import_lines_fail(const struct ep_import_lines *lines, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": %s", lines->name, lines->line, text);
}

/* The word, or a complaint that it is not there or not of this locale. */
static enum ep_status find_word(const struct ep_import_lines *lines, int idx, const char *what,
                                const char **word)
{
    if (idx < 0 || idx >= lines->num_words) {
        return ep_import_lines_fail(lines, "the line ends before the column '%s'", what);
    }
    *word = lines->words[idx];
    if (strchr(*word, ',') != NULL) {
        return ep_import_lines_fail(lines,
                                    "%s is '%.40s'; a number with a decimal point and without "
                                    "commas was expected (another locale?)",
                                    what, *word);
    }
    return EP_OK;
}

enum ep_status ep_import_lines_get_f64(const struct ep_import_lines *lines, int idx,
                                       const char *what, double min, double max, double *value)
{
    const char *word = NULL;
    char where[256];
    snprintf(where, sizeof where, "%.150s:%" PRId64 ": %.60s", lines->name, lines->line, what);
    const enum ep_status status = find_word(lines, idx, what, &word);
    return status == EP_OK ? ep_parse_f64(word, where, min, max, value) : status;
}

enum ep_status ep_import_lines_get_i64(const struct ep_import_lines *lines, int idx,
                                       const char *what, int64_t min, int64_t max, int64_t *value)
{
    const char *word = NULL;
    char where[256];
    snprintf(where, sizeof where, "%.150s:%" PRId64 ": %.60s", lines->name, lines->line, what);
    const enum ep_status status = find_word(lines, idx, what, &word);
    return status == EP_OK ? ep_parse_i64(word, where, min, max, value) : status;
}

bool ep_import_begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* TSV cells and single-quoted gnuplot texts. */
#include "plots/sheet.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINES = 8, MAX_TEXT = 4096 };

enum ep_status ep_sheet_init(struct ep_sheet *sheet)
{
    *sheet = (struct ep_sheet){0};
    sheet->tsv_stream = open_memstream(&sheet->tsv, &sheet->tsv_length);
    sheet->texts_stream = open_memstream(&sheet->texts, &sheet->texts_length);
    if (sheet->tsv_stream == NULL || sheet->texts_stream == NULL) {
        ep_sheet_fini(sheet);
        return ep_error_set(EP_ENOMEM, "no memory for a figure's data");
    }
    return EP_OK;
}

static int close_stream(FILE **stream)
{
    FILE *closing = *stream;
    *stream = NULL;
    if (closing == NULL) {
        return 0;
    }
    const int failed = ferror(closing);
    return fclose(closing) != 0 || failed;
}

enum ep_status ep_sheet_close(struct ep_sheet *sheet)
{
    const int lost_tsv = close_stream(&sheet->tsv_stream);
    const int lost_texts = close_stream(&sheet->texts_stream);
    return lost_tsv || lost_texts ? ep_error_set(EP_ENOMEM, "no memory for a figure's data") : EP_OK;
}

void ep_sheet_fini(struct ep_sheet *sheet)
{
    (void)close_stream(&sheet->tsv_stream);
    (void)close_stream(&sheet->texts_stream);
    free(sheet->tsv);
    free(sheet->texts);
    *sheet = (struct ep_sheet){0};
}

enum ep_status ep_sheet_refuse(struct ep_sheet *sheet, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(sheet->reason, sizeof sheet->reason, format, args);
    va_end(args);
    return EP_OK;
}

/* Bytes of the character at `text` if it may stand in XML as it is; 0 for a control character and for
 * what a cut left of a character. */
static size_t printable_length(const char *text, size_t length)
{
    const unsigned char *c = (const unsigned char *)text;
    const size_t want = c[0] < 0x80 ? 1 : c[0] < 0xc0 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    if (want > length || c[0] < 0x20 || c[0] == 0x7f) {
        return 0;
    }
    for (size_t i = 1; i < want; i++) {
        if ((c[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return want == 3 && c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe ? 0 : want;
}

/* `text` with a blank for each byte that may not stand, and double quotes or quotes changed. */
static void put_clean(FILE *stream, const char *text, size_t length, char changed, const char *to)
{
    for (size_t i = 0; i < length;) {
        /* gnuplot leaves '>' as it is, and XML forbids "]]>" in text */
        const bool ends_cdata = i >= 2 && memcmp(text + i - 2, "]]>", 3) == 0;
        const size_t num = ends_cdata ? 0 : printable_length(text + i, length - i);
        if (num == 0) {
            fputc(' ', stream);
        } else if (text[i] == changed) {
            fputs(to, stream);
        } else {
            fwrite(text + i, 1, num, stream);
        }
        i += num > 0 ? num : 1;
    }
}

/* --- data ------------------------------------------------------------------------------------ */

static void begin_cell(struct ep_sheet *sheet)
{
    if (sheet->in_row) {
        fputc('\t', sheet->tsv_stream);
    }
    sheet->in_row = true;
}

void ep_sheet_put_header(struct ep_sheet *sheet, const char *names)
{
    for (const char *p = names; *p != '\0'; p++) {
        fputc(*p == ' ' ? '\t' : *p, sheet->tsv_stream);
    }
    fputc('\n', sheet->tsv_stream);
}

void ep_sheet_put_text(struct ep_sheet *sheet, const char *text)
{
    begin_cell(sheet);
    if (text != NULL) {
        put_clean(sheet->tsv_stream, text, strlen(text), '"', "'");
    }
}

void ep_sheet_put_number(struct ep_sheet *sheet, double value)
{
    begin_cell(sheet);
    if (isfinite(value)) {
        fprintf(sheet->tsv_stream, "%.9g", value);
    }
}

void ep_sheet_end_row(struct ep_sheet *sheet)
{
    fputc('\n', sheet->tsv_stream);
    sheet->in_row = false;
}

/* --- texts ----------------------------------------------------------------------------------- */

/* In single quotes gnuplot takes everything as it is but for the quote, which is doubled. */
static void put_quoted(FILE *stream, const char *text, size_t length)
{
    fputc('\'', stream);
    put_clean(stream, text, length, '\'', "''");
    fputs("'\n", stream);
}

void ep_sheet_define(struct ep_sheet *sheet, const char *name, const char *format, ...)
{
    char text[MAX_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(sheet->texts_stream, "%s = ", name);
    put_quoted(sheet->texts_stream, text, strlen(text));
}

void ep_sheet_define_number(struct ep_sheet *sheet, const char *name, double value)
{
    EP_ASSERT(isfinite(value));
    fprintf(sheet->texts_stream, "%s = %.9g\n", name, value);
}

static void define_array(struct ep_sheet *sheet, const char *name, int num)
{
    EP_ASSERT(num >= 1);
    fprintf(sheet->texts_stream, "array %s[%d]\n", name, num);
}

static void define_item(struct ep_sheet *sheet, const char *name, int idx, const char *text,
                        size_t length)
{
    fprintf(sheet->texts_stream, "%s[%d] = ", name, idx + 1);
    put_quoted(sheet->texts_stream, text, length);
}

void ep_sheet_define_list(struct ep_sheet *sheet, const char *name, const char *const *items,
                          int num)
{
    define_array(sheet, name, num);
    for (int i = 0; i < num; i++) {
        define_item(sheet, name, i, items[i], strlen(items[i]));
    }
}

/* Bytes of the next line of at most `width` characters; *skip bytes then lead to the next one. */
static size_t line_length(const char *text, int width, size_t *skip)
{
    size_t last_blank = 0, i = 0;
    int num = 0;
    for (; text[i] != '\0' && text[i] != '\n'; i++) {
        if (((unsigned char)text[i] & 0xc0) == 0x80) {
            continue; /* inside a UTF-8 character */
        }
        if (num == width) {
            *skip = last_blank > 0 ? last_blank + 1 : i;
            return last_blank > 0 ? last_blank : i;
        }
        num++;
        last_blank = text[i] == ' ' ? i : last_blank;
    }
    *skip = i + (text[i] == '\n');
    return i;
}

void ep_sheet_define_lines(struct ep_sheet *sheet, const char *name, int width, const char *format,
                           ...)
{
    char text[MAX_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *lines[MAX_LINES];
    size_t lengths[MAX_LINES], skip = 0;
    int num = 0;
    const char *p = text;
    while (*p != '\0' && num < MAX_LINES) {
        lines[num] = p;
        lengths[num++] = line_length(p, width, &skip);
        p += skip;
    }
    if (num == 0) {
        lines[num] = "";
        lengths[num++] = 0;
    }
    define_array(sheet, name, num);
    for (int i = 0; i < num; i++) {
        const bool cut = i == MAX_LINES - 1 && *p != '\0';
        define_item(sheet, name, i, cut ? "..." : lines[i], cut ? 3 : lengths[i]);
    }
}

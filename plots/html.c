/* SPDX-License-Identifier: Apache-2.0 */
/* Escaping, tables, and inline SVG. */
#include "plots/html.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum ep_status ep_html_init(struct ep_html *html)
{
    *html = (struct ep_html){.next_cell = -1};
    html->stream = open_memstream(&html->text, &html->length);
    return html->stream != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a page");
}

enum ep_status ep_html_finish(struct ep_html *html, char **text, size_t *length)
{
    const bool closed = fclose(html->stream) == 0;
    html->stream = NULL;
    if (!closed || html->failed || html->text == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a page");
    }
    *text = html->text;
    *length = html->length;
    html->text = NULL;
    return EP_OK;
}

void ep_html_fini(struct ep_html *html)
{
    if (html->stream != NULL) {
        fclose(html->stream);
    }
    free(html->text);
    *html = (struct ep_html){0};
}

void ep_html_raw(struct ep_html *html, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    html->failed = vfprintf(html->stream, format, args) < 0 || html->failed;
    va_end(args);
}

/* --- text ------------------------------------------------------------------------------------ */

/* Length of the UTF-8 sequence at `s`, 0 where it is none (overlong, surrogate, cut short). */
static size_t utf8_length(const unsigned char *s)
{
    const unsigned char c = s[0];
    const size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : (c & 0xf0) == 0xe0 ? 3
                          : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0; /* the NUL that ends the text too */
        }
    }
    if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] >= 0xa0) || (c == 0xf0 && s[1] < 0x90) ||
        (c == 0xf4 && s[1] >= 0x90)) {
        return 0;
    }
    return length;
}

static void put_escaped(struct ep_html *html, const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    const unsigned char *s = (const unsigned char *)text;
    while (*s != '\0') {
        const size_t length = utf8_length(s);
        switch (*s) {
        case '<': fputs("&lt;", html->stream); break;
        case '>': fputs("&gt;", html->stream); break;
        case '&': fputs("&amp;", html->stream); break;
        case '"': fputs("&quot;", html->stream); break;
        case '\'': fputs("&#39;", html->stream); break;
        default:
            if (length == 0 || *s == 0x7f || (*s < 0x20 && *s != '\t' && *s != '\n')) {
                fputs(replacement, html->stream);
            } else {
                fwrite(s, 1, length, html->stream);
            }
        }
        s += length > 0 ? length : 1;
    }
    html->failed = html->failed || ferror(html->stream) != 0;
}

static void put_formatted(struct ep_html *html, const char *format, va_list args)
{
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0) {
        html->failed = true;
        return;
    }
    put_escaped(html, text);
    free(text);
}

void ep_html_put(struct ep_html *html, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_formatted(html, format, args);
    va_end(args);
}

void ep_html_element(struct ep_html *html, const char *tag, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    ep_html_raw(html, "<%s>", tag);
    put_formatted(html, format, args);
    ep_html_raw(html, "</%.*s>\n", (int)strcspn(tag, " "), tag);
    va_end(args);
}

/* --- tables ---------------------------------------------------------------------------------- */

void ep_html_table_open(struct ep_html *html, const char *caption,
                        const struct ep_html_column *columns)
{
    html->columns = columns;
    html->num_columns = 0;
    html->next_cell = -1;
    html->num_tables++;
    ep_html_raw(html, "<p class=\"caption\" id=\"table-%d\">", html->num_tables);
    ep_html_put(html, "%s", caption);
    ep_html_raw(html, "</p>\n<div class=\"scroll\" role=\"region\" tabindex=\"0\" "
                "aria-labelledby=\"table-%d\">\n<table aria-labelledby=\"table-%d\">\n",
                html->num_tables, html->num_tables);
    ep_html_raw(html, "<thead><tr>");
    for (const struct ep_html_column *c = columns; c->name != NULL; c++) {
        ep_html_raw(html, "<th scope=\"col\"%s>", c->is_number ? " class=\"number\"" : "");
        ep_html_put(html, "%s", c->name);
        ep_html_raw(html, "</th>");
        html->num_columns++;
    }
    ep_html_raw(html, "</tr></thead>\n<tbody>\n");
}

static void close_row(struct ep_html *html)
{
    if (html->next_cell >= 0) {
        EP_ASSERT(html->next_cell == html->num_columns);
        ep_html_raw(html, "</tr>\n");
    }
    html->next_cell = -1;
}

void ep_html_row(struct ep_html *html)
{
    close_row(html);
    ep_html_raw(html, "<tr>");
    html->next_cell = 0;
}

void ep_html_cell(struct ep_html *html, const char *format, ...)
{
    va_list args;
    EP_ASSERT(html->next_cell >= 0 && html->next_cell < html->num_columns);
    const bool is_number = html->columns[html->next_cell].is_number;
    const bool is_head = html->next_cell == 0;
    ep_html_raw(html, "<%s%s>", is_head ? "th scope=\"row\"" : "td",
                is_number ? " class=\"number\"" : "");
    va_start(args, format);
    put_formatted(html, format, args);
    va_end(args);
    ep_html_raw(html, "</%s>", is_head ? "th" : "td");
    html->next_cell++;
}

void ep_html_table_close(struct ep_html *html)
{
    close_row(html);
    ep_html_raw(html, "</tbody>\n</table>\n</div>\n");
    html->columns = NULL;
}

/* --- SVG ------------------------------------------------------------------------------------- */

/* Why this SVG must not go into a page, or NULL. */
static const char *find_fault(const char *svg)
{
    static const struct {
        const char *text;
        const char *fault;
    } banned[] = {
        {"<script", "holds a script"},         {"javascript:", "holds a script"},
        {"<foreignObject", "holds foreign content"}, {"<iframe", "holds foreign content"},
        {"<image", "holds an image"},          {"@import", "holds an import"},
        {"<!ENTITY", "holds an entity"},       {" onload", "holds an event handler"},
        {" onclick", "holds an event handler"}, {" onmouse", "holds an event handler"},
        {"<style", "holds a style sheet, which would reach the whole page"},
    };
    const char *end = strstr(svg, "</svg>");
    if (strstr(svg, "<svg") == NULL || end == NULL || strspn(end + 6, " \r\n\t") != strlen(end + 6)) {
        return "is not a whole one";
    }
    for (size_t i = 0; i < sizeof banned / sizeof banned[0]; i++) {
        if (strcasestr(svg, banned[i].text) != NULL) {
            return banned[i].fault;
        }
    }
    for (const char *p = svg; (p = strcasestr(p, "href")) != NULL; p += 4) {
        const char *value = p + 4 + strspn(p + 4, " =");
        if ((*value == '"' || *value == '\'') && value[1] != '#') {
            return "refers to another file";
        }
    }
    for (const char *p = svg; (p = strcasestr(p, "url(")) != NULL; p += 4) {
        if (p[4] != '#') {
            return "refers to another file";
        }
    }
    return NULL;
}

/* Length of what refers to an id at `p` inside a tag (the id follows), or 0. */
static size_t id_lead(const char *p)
{
    static const char *const leads[] = {" id=\"", " id='", "href=\"#", "href='#", "url(#"};
    for (size_t i = 0; i < sizeof leads / sizeof leads[0]; i++) {
        if (strncmp(p, leads[i], strlen(leads[i])) == 0) {
            return strlen(leads[i]);
        }
    }
    return 0;
}

/* Past <title>...</title> or <desc>...</desc> that begins at `p`; NULL where none does. */
static const char *skip_description(const char *p)
{
    static const char *const tags[][2] = {{"<title>", "</title>"}, {"<desc>", "</desc>"}};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        const char *end = strncmp(p, tags[i][0], strlen(tags[i][0])) == 0 ? strstr(p, tags[i][1])
                                                                          : NULL;
        if (end != NULL) {
            return end + strlen(tags[i][1]);
        }
    }
    return NULL;
}

enum ep_status ep_html_put_svg(struct ep_html *html, const char *svg, const char *prefix,
                               const char *label)
{
    const char *fault = find_fault(svg);
    if (fault != NULL) {
        return ep_error_set(EP_EINVAL, "the SVG of %s %s", prefix, fault);
    }
    ep_html_raw(html, "<svg role=\"img\" aria-label=\"");
    ep_html_put(html, "%s", label);
    ep_html_raw(html, "\"");
    bool in_tag = true;
    const char *p = strstr(svg, "<svg") + 4;
    while (*p != '\0') {
        const char *next = skip_description(p);
        const size_t lead = in_tag ? id_lead(p) : 0;
        if (next != NULL) {
            p = next;
        } else if (lead > 0) {
            ep_html_raw(html, "%.*s%s-", (int)lead, p, prefix);
            p += lead;
        } else {
            in_tag = *p == '<' || (in_tag && *p != '>');
            fputc(*p++, html->stream);
        }
    }
    html->failed = html->failed || ferror(html->stream) != 0;
    return EP_OK;
}

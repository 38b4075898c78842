/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines compared over ranks. */
#include "bench/session_agree.h"

#include "bench/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A word, with the option before it where it may be that one's value. */
static void show(const char *line, const char *word, char *text, size_t text_bytes)
{
    const int length = (int)strcspn(word, "\n");
    const char *before = word > line ? word - 1 : word; /* the end of the word before, then its start */
    while (before > line && before[-1] != '\n') {
        before--;
    }
    if (length == 0) {
        snprintf(text, text_bytes, "nothing");
    } else if (before[0] == '-' && word[0] != '-' && memchr(before, '=', (size_t)(word - before)) == NULL) {
        snprintf(text, text_bytes, "%.*s %.*s", (int)(word - before) - 1, before, length, word);
    } else {
        snprintf(text, text_bytes, "%.*s", length, word);
    }
}

bool ep_session_find_difference(const char *a, const char *b, char *in_a, size_t a_bytes, char *in_b,
                                size_t b_bytes)
{
    if (strcmp(a, b) == 0) {
        return false;
    }
    size_t at = 0; /* first character of the word that differs */
    for (size_t i = 0; a[i] == b[i]; i++) {
        at = a[i] == '\n' ? i + 1 : at;
    }
    show(a, a + at, in_a, a_bytes);
    show(b, b + at, in_b, b_bytes);
    return true;
}

/* "version\ncommand\nword\n...". */
static char *join(int argc, char **argv)
{
    size_t size = strlen(ep_version()) + 2;
    for (int i = 0; i < argc; i++) {
        size += strlen(argv[i]) + 1;
    }
    char *text = malloc(size);
    char *end = text;
    if (text != NULL) {
        end += sprintf(end, "%s\n", ep_version());
        for (int i = 0; i < argc; i++) {
            end += sprintf(end, "%s\n", argv[i]);
        }
    }
    return text;
}

enum ep_status ep_session_agree_start(struct ep_comm *world, int argc, char **argv)
{
    enum ep_status status = EP_OK;
    char **all = NULL;
    char *own = join(argc, argv);
    if (own == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the command line");
    }
    EP_TRY(ep_comm_agree(world, status));
    EP_TRY(ep_comm_allgather_text(world, own, &all));
    for (int r = 1; r < ep_comm_size(world); r++) {
        char here[128];
        char there[128];
        if (ep_session_find_difference(all[0], all[r], here, sizeof here, there, sizeof there)) {
            status = ep_error_set(EP_EINVAL, "rank %d was started with '%s' where rank 0 has '%s': all "
                                  "ranks need one build and one command line", r, there, here);
            break;
        }
    }
out:
    ep_comm_free_texts(all, ep_comm_size(world));
    free(own);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A strict front to argp. */
#include "base/options.h"

#include "base/text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 256, MAX_NAME = 63 };

struct collected {
    const struct argp_option *options[MAX_OPTIONS];
    int num;
};

static void collect(const struct argp *argp, struct collected *all)
{
    /* An alias inherits the argument of the option before it. */
    for (const struct argp_option *o = argp->options;
         o != NULL && (o->name != NULL || o->key != 0 || o->doc != NULL || o->group != 0); o++) {
        if (o->name != NULL) {
            EP_ASSERT(all->num < MAX_OPTIONS);
            all->options[all->num++] = o;
        }
    }
    for (const struct argp_child *c = argp->children; c != NULL && c->argp != NULL; c++) {
        collect(c->argp, all);
    }
}

static int minimum(int a, int b)
{
    return a < b ? a : b;
}

/* Levenshtein distance of two short names. */
static int edit_distance(const char *a, const char *b)
{
    int row[MAX_NAME + 2];
    const int length = (int)strnlen(b, MAX_NAME);
    for (int j = 0; j <= length; j++) {
        row[j] = j;
    }
    for (int i = 0; i < MAX_NAME && a[i] != '\0'; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 0; j < length; j++) {
            const int replaced = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = minimum(replaced, minimum(row[j], row[j + 1]) + 1);
        }
    }
    return row[length];
}

const char *ep_options_nearest(const char *text, const char *const *names, int num)
{
    const char *best = NULL;
    int best_distance = 1 + (int)strlen(text) / 3;
    for (int i = 0; i < num; i++) {
        const bool extends = strlen(text) >= 2 && strncmp(names[i], text, strlen(text)) == 0;
        const int distance = extends ? 0 : edit_distance(text, names[i]);
        if (distance <= best_distance && (best == NULL || distance < best_distance)) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}

static enum ep_status check_long_option(const struct collected *all, const char *arg,
                                        const char *next, bool *takes_next)
{
    static const char *const built_in[] = {"help", "usage"};
    const size_t length = strcspn(arg, "=");
    char name[MAX_NAME + 1];
    snprintf(name, sizeof name, "%.*s", (int)length, arg);
    *takes_next = false;
    for (int i = 0; i < 2; i++) {
        if (strcmp(name, built_in[i]) == 0) {
            return arg[length] == '\0'
                       ? EP_OK
                       : ep_error_set(EP_EINVAL, "option --%s takes no value", name);
        }
    }
    const char *names[MAX_OPTIONS];
    const struct argp_option *found = NULL;
    for (int i = 0; i < all->num; i++) {
        names[i] = all->options[i]->name;
        if (strlen(names[i]) == length && strncmp(names[i], arg, length) == 0) {
            found = all->options[i];
            while ((found->flags & OPTION_ALIAS) != 0) {
                found--;
            }
        }
    }
    if (found == NULL) {
        const char *nearest = ep_options_nearest(name, names, all->num);
        return nearest != NULL
                   ? ep_error_set(EP_EINVAL, "unknown option --%s; did you mean --%s?", name,
                                  nearest)
                   : ep_error_set(EP_EINVAL, "unknown option --%s", name);
    }
    if (found->arg == NULL && arg[length] == '=') {
        return ep_error_set(EP_EINVAL, "option --%s takes no value", name);
    }
    if (found->arg != NULL && arg[length] != '=' && (found->flags & OPTION_ARG_OPTIONAL) == 0) {
        if (next == NULL) {
            return ep_error_set(EP_EINVAL, "option --%s needs a value: --%s %s", name, name,
                                found->arg);
        }
        *takes_next = true;
    }
    return EP_OK;
}

/* The short options "-xyz": the first that takes a value has the rest, or the next word. */
static enum ep_status check_short_options(const struct collected *all, const char *group,
                                          const char *next, bool *takes_next, bool *asks_help)
{
    *takes_next = false;
    for (const char *p = group; *p != '\0'; p++) {
        const struct argp_option *found = NULL;
        for (int i = 0; i < all->num && found == NULL; i++) {
            found = all->options[i]->key == *p ? all->options[i] : NULL;
        }
        if (found == NULL && *p == '?') {
            *asks_help = true;
            return EP_OK;
        }
        if (found == NULL) {
            return ep_error_set(EP_EINVAL, "unknown option -%c", *p);
        }
        if (found->arg != NULL && (found->flags & OPTION_ARG_OPTIONAL) == 0) {
            if (p[1] == '\0' && next == NULL) {
                return ep_error_set(EP_EINVAL, "option -%c needs a value: -%c %s", *p, *p,
                                    found->arg);
            }
            *takes_next = p[1] == '\0';
            return EP_OK;
        }
    }
    return EP_OK;
}

/* argp itself stays silent under ARGP_NO_ERRS, even when asked for help. */
_Noreturn static void print_help(const struct argp *argp, char *name, bool usage_only)
{
    if (ep_options_launcher_rank() <= 0) {
        argp_help(argp, stdout, usage_only ? ARGP_HELP_USAGE : ARGP_HELP_STD_HELP, name);
    }
    exit(fflush(stdout) == 0 ? 0 : 3);
}

enum ep_status ep_options_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    struct collected all = {.num = 0};
    collect(argp, &all);
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        bool takes_next = false;
        bool asks_help = strcmp(argv[i], "--help") == 0;
        const bool asks_usage = strcmp(argv[i], "--usage") == 0;
        enum ep_status status = EP_OK;
        if (strncmp(argv[i], "--", 2) == 0) {
            status = check_long_option(&all, argv[i] + 2, argv[i + 1], &takes_next);
        } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
            status = check_short_options(&all, argv[i] + 1, argv[i + 1], &takes_next, &asks_help);
        }
        if (status != EP_OK) {
            return status;
        }
        if (asks_help || asks_usage) {
            print_help(argp, argv[0], asks_usage);
        }
        i += takes_next;
    }
    int rest = argc; /* argp moves what it takes to the front */
    const error_t failed = argp_parse(argp, argc, argv, ARGP_NO_ERRS, &rest, input);
    if (failed == ENOMEM) {
        return ep_error_set(EP_ENOMEM, "no memory to parse options");
    }
    if (failed != 0) {
        return ep_error_set(EP_EINVAL, "an argument is not understood; see %s --help", argv[0]);
    }
    if (rest < argc) {
        return ep_error_set(EP_EINVAL, "'%s' is not understood: an option was expected; see %s "
                            "--help", argv[rest], argv[0]);
    }
    return EP_OK;
}

enum ep_status ep_options_check_text(int argc, char *const *argv)
{
    for (int i = 1; i < argc; i++) {
        const char *bad = ep_text_find_bad_byte(argv[i], strlen(argv[i]));
        if (bad == NULL) {
            continue;
        }
        /* "--name=value", "-ovalue", or the value of the option before it */
        const char *option = i > 1 && argv[i][0] != '-' && argv[i - 1][0] == '-' ? argv[i - 1] : NULL;
        const char *value = argv[i];
        if (argv[i][0] == '-' && argv[i][1] != '-') {
            option = argv[i];
            value = argv[i] + 2;
        } else if (argv[i][0] == '-' && strchr(argv[i], '=') != NULL) {
            option = argv[i];
            value = strchr(argv[i], '=') + 1;
        }
        if (option == NULL || bad < value) {
            return ep_error_set(EP_EINVAL, "argument %d: byte %d (0x%02x) is not UTF-8 text", i,
                                (int)(bad - argv[i]) + 1, (unsigned char)*bad);
        }
        const int length = option[1] != '-' ? 2 : (int)strcspn(option, "=");
        return ep_error_set(EP_EINVAL, "%.*s: byte %d of its value (0x%02x) is not UTF-8 text", length,
                            option, (int)(bad - value) + 1, (unsigned char)*bad);
    }
    return EP_OK;
}

static int told_rank = -1;

void ep_options_set_launcher_rank(int rank)
{
    told_rank = rank;
}

int ep_options_launcher_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    if (told_rank >= 0) {
        return told_rank;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        if (text != NULL) {
            return atoi(text);
        }
    }
    return -1;
}

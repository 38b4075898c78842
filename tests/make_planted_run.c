/* SPDX-License-Identifier: Apache-2.0 */
/* make_planted_run DIR [key=value...]: a run directory of synthetic records, for tests by shell. */
#include "tests/planted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct number {
    const char *key;
    size_t offset;
} numbers[] = {
    {"latency_s", offsetof(struct ep_planted, latency_s)},
    {"message_s", offsetof(struct ep_planted, message_s)},
    {"bw", offsetof(struct ep_planted, bw_bytes_per_s)},
    {"noise", offsetof(struct ep_planted, noise)},
    {"sample_noise", offsetof(struct ep_planted, sample_noise)},
    {"outliers", offsetof(struct ep_planted, outliers)},
};

/* key=value; returns 0 where it is understood. */
static int set_value(struct ep_planted *planted, const char *text)
{
    static const int64_t one_size[] = {1024, 0};
    static const char *const one_skew[] = {"uniform", NULL};
    const char *equals = strchr(text, '=');
    const size_t length = equals != NULL ? (size_t)(equals - text) : 0;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && equals != NULL; i++) {
        if (strlen(numbers[i].key) == length && strncmp(text, numbers[i].key, length) == 0) {
            *(double *)((char *)planted + numbers[i].offset) = atof(equals + 1);
            return 0;
        }
    }
    if (strncmp(text, "seed=", 5) == 0) {
        planted->seed = strtoull(text + 5, NULL, 10);
    } else if (strncmp(text, "ranks=", 6) == 0) {
        planted->ranks = atoi(text + 6);
    } else if (strncmp(text, "law=M", 5) == 0 && text[5] >= '0' && text[5] <= '2') {
        planted->law = (enum ep_planted_law)(text[5] - '0');
    } else if (strncmp(text, "visits=", 7) == 0) {
        planted->num_visits = atoi(text + 7);
    } else if (strncmp(text, "samples=", 8) == 0) {
        planted->num_samples = atoi(text + 8);
    } else if (strcmp(text, "sizes=1") == 0) {
        planted->tokens = one_size;
    } else if (strcmp(text, "skews=1") == 0) {
        planted->skews = one_skew;
    } else if (strcmp(text, "split=0") == 0) {
        planted->split = false;
    } else if (strcmp(text, "others=0") == 0) {
        planted->others = false;
    } else {
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct ep_planted planted;
    ep_planted_default(&planted);
    planted.others = true;
    if (argc < 2) {
        fprintf(stderr, "usage: make_planted_run DIR [key=value...]\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        if (set_value(&planted, argv[i]) != 0) {
            fprintf(stderr, "make_planted_run: '%s' is not understood\n", argv[i]);
            return 2;
        }
    }
    const enum ep_status status = ep_planted_write(&planted, argv[1]);
    if (status != EP_OK) {
        fprintf(stderr, "make_planted_run: %s\n", ep_error_text());
    }
    return ep_status_exit_code(status);
}

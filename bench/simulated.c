/* SPDX-License-Identifier: Apache-2.0 */
/* SimGrid's SMPI: all ranks are coroutines of one process, each with globals of its own (dlopen). */
#include "bench/simulated.h"

#ifdef EP_SIMULATED

#include <simgrid/actor.h>
#include <simgrid/engine.h>
#include <simgrid/host.h>
#include <simgrid/version.h>
#include <smpi/smpi.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SETTINGS = 24 };

/* All ranks are in the simulator's process: its command line is theirs. */
static struct {
    bool is_read;
    char platform[128];
    char text[MAX_SETTINGS][128];
    const char *settings[MAX_SETTINGS + 1];
} line;

static void add_word(const char *word)
{
    /* how smpirun itself goes about it, which changes no time */
    static const char *const left_out[] = {"smpi/privatization", "smpi/tmpdir", "smpi/np", "smpi/hostfile",
                                           "smpi/replay", "smpi/keep-temps", "log"};
    static int num;
    const char *dot = strrchr(word, '.');
    if (dot != NULL && strcmp(dot, ".xml") == 0 && line.platform[0] == '\0') {
        const char *slash = strrchr(word, '/');
        snprintf(line.platform, sizeof line.platform, "%.120s", slash != NULL ? slash + 1 : word);
    }
    if (strncmp(word, "--cfg=", 6) != 0 || num == MAX_SETTINGS) {
        return;
    }
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++) {
        if (strncmp(word + 6, left_out[i], strlen(left_out[i])) == 0) {
            return;
        }
    }
    snprintf(line.text[num], sizeof line.text[num], "%.120s", word + 6);
    char *colon = strchr(line.text[num], ':');
    if (colon != NULL) {
        *colon = '=';
        line.settings[num] = line.text[num];
        num++;
    }
}

static void read_line(void)
{
    if (line.is_read) {
        return;
    }
    line.is_read = true;
    FILE *file = fopen("/proc/self/cmdline", "re");
    char word[4096];
    size_t length = 0;
    for (int c = 0; file != NULL && (c = getc(file)) != EOF;) {
        word[length] = (char)c;
        length += length + 1 < sizeof word;
        if (c == '\0') {
            add_word(word);
            length = 0;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

bool ep_simulated(void)
{
    return true;
}

int ep_simulated_rank(void)
{
    const char *rank = sg_actor_get_property_value(sg_actor_self(), "rank");
    return rank != NULL ? atoi(rank) : 0;
}

const char *ep_simulated_host(void)
{
    return sg_host_self_get_name();
}

double ep_simulated_now_s(void)
{
    return simgrid_get_clock();
}

double ep_simulated_step_s(void)
{
    return 1e-9; /* SMPI's precision/timing */
}

void ep_simulated_wait_until(double time_s)
{
    const double left_s = time_s - ep_simulated_now_s();
    if (left_s > 0) {
        sg_actor_sleep_for(left_s);
    }
}

void ep_simulated_describe(char *text, size_t length)
{
    read_line();
    snprintf(text, length, "SimGrid %d.%d, platform %s", SIMGRID_VERSION_MAJOR, SIMGRID_VERSION_MINOR,
             line.platform[0] != '\0' ? line.platform : "unknown");
}

const char *const *ep_simulated_settings(void)
{
    read_line();
    return line.settings;
}

static bool has_setting(const char *setting)
{
    for (int i = 0; line.settings[i] != NULL; i++) {
        if (strcmp(line.settings[i], setting) == 0) {
            return true;
        }
    }
    return false;
}

/* SMPI's "ring" is Open MPI's pairwise (to rank + s, from rank - s), but for powers of two, where it is XOR. */
bool ep_simulated_pairs_by_xor(int64_t num_ranks)
{
    return (num_ranks & (num_ranks - 1)) == 0;
}

bool ep_simulated_is_forced(int algorithm)
{
    read_line();
    return algorithm == 0 ||
           (algorithm == 1 && has_setting("smpi/alltoallv=ompi_basic_linear") &&
            has_setting("smpi/alltoall=basic_linear")) ||
           (algorithm == 2 && has_setting("smpi/alltoallv=ring") && has_setting("smpi/alltoall=ring"));
}

#else

bool ep_simulated(void)
{
    return false;
}

int ep_simulated_rank(void)
{
    return -1;
}

const char *ep_simulated_host(void)
{
    return NULL;
}

double ep_simulated_now_s(void)
{
    EP_ASSERT(false);
    return 0;
}

double ep_simulated_step_s(void)
{
    EP_ASSERT(false);
    return 0;
}

void ep_simulated_wait_until(double time_s)
{
    (void)time_s;
    EP_ASSERT(false);
}

void ep_simulated_describe(char *text, size_t length)
{
    (void)text;
    (void)length;
    EP_ASSERT(false);
}

const char *const *ep_simulated_settings(void)
{
    return NULL;
}

bool ep_simulated_pairs_by_xor(int64_t num_ranks)
{
    (void)num_ranks;
    return false;
}

bool ep_simulated_is_forced(int algorithm)
{
    (void)algorithm;
    return false;
}

#endif

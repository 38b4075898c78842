/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that take the next item until none is left. */
#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct shared {
    const struct ep_parallel *loop;
    int64_t num_items;
    atomic_int_least64_t next;
    atomic_int_least64_t num_done;
    pthread_mutex_t lock; /* of what follows */
    enum ep_status status;
    char text[1024]; /* of the first failure: errors are kept by thread */
};

struct worker {
    struct shared *shared;
    int thread;
    pthread_t handle;
};

int ep_parallel_cores(void)
{
    cpu_set_t set;
    const int num = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return num > 0 ? num : 1;
}

static void keep_failure(struct shared *shared, enum ep_status status)
{
    pthread_mutex_lock(&shared->lock);
    if (shared->status == EP_OK) {
        shared->status = status;
        snprintf(shared->text, sizeof shared->text, "%s", ep_error_text());
    }
    pthread_mutex_unlock(&shared->lock);
    atomic_store(&shared->next, shared->num_items);
}

/* Once for each hundredth that is done. */
static void tell(const struct shared *shared, int64_t num_done, int64_t *told)
{
    const int64_t hundredths = 100 * num_done / shared->num_items;
    if (shared->loop->progress != NULL && hundredths > *told && num_done < shared->num_items) {
        shared->loop->progress(shared->loop->context, num_done, shared->num_items);
        *told = hundredths;
    }
}

static void *work(void *argument)
{
    const struct worker *worker = argument;
    struct shared *shared = worker->shared;
    const struct ep_parallel *loop = shared->loop;
    int64_t told = 0;
    for (;;) {
        const int64_t item = atomic_fetch_add(&shared->next, 1);
        if (item >= shared->num_items) {
            return NULL;
        }
        const enum ep_status status = loop->body(loop->context, worker->thread, item);
        if (status != EP_OK) {
            keep_failure(shared, status);
            return NULL;
        }
        const int64_t num_done = atomic_fetch_add(&shared->num_done, 1) + 1;
        if (worker->thread == 0) {
            tell(shared, num_done, &told);
        }
    }
}

enum ep_status ep_parallel_run(const struct ep_parallel *loop, int64_t num_items, int num_threads)
{
    EP_ASSERT(num_threads >= 1 && num_items >= 0);
    const int num = num_threads < num_items ? num_threads : num_items > 0 ? (int)num_items : 1;
    struct shared shared = {.loop = loop, .num_items = num_items, .status = EP_OK};
    struct worker *workers = calloc((size_t)num, sizeof *workers);
    if (workers == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %d threads", num);
    }
    pthread_mutex_init(&shared.lock, NULL);
    int started = 1;
    for (int i = 0; i < num; i++) {
        workers[i] = (struct worker){.shared = &shared, .thread = i};
    }
    while (started < num &&
           pthread_create(&workers[started].handle, NULL, work, &workers[started]) == 0) {
        started++;
    }
    work(&workers[0]);
    for (int i = 1; i < started; i++) {
        pthread_join(workers[i].handle, NULL);
    }
    pthread_mutex_destroy(&shared.lock);
    free(workers);
    if (loop->progress != NULL) { /* the last word, after a failure too */
        loop->progress(loop->context, num_items, num_items);
    }
    return shared.status == EP_OK ? EP_OK : ep_error_set(shared.status, "%s", shared.text);
}

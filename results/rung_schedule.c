/* SPDX-License-Identifier: Apache-2.0 */
/* The longest chain of a pairwise exchange. */
#include "results/rung_schedule.h"

#include <stdlib.h>
#include <string.h>

enum { NUM_TERMS = 4 };

/* When a rank is through, and what lay on the chain until then. */
struct chain {
    double end_s;
    double row[NUM_TERMS];
};

static const struct chain *later(const struct chain *a, const struct chain *b)
{
    return b->end_s > a->end_s ? b : a;
}

bool ep_rung_follow_steps(const struct ep_model_case *c, const double *coefficients, double *row)
{
    const struct ep_model_matrix *m = c->matrix;
    if (m == NULL) {
        return false;
    }
    const int64_t num = m->num_ranks;
    struct chain *through = calloc(2 * (size_t)num, sizeof *through);
    if (through == NULL) {
        return false;
    }
    struct chain *sent = through + num;
    for (int64_t s = 1; s < num; s++) {
        for (int64_t i = 0; i < num; i++) {
            const int64_t to = (i + s) % num;
            const int at = m->rank_node[i] == m->rank_node[to] ? 0 : 2;
            const double bytes = m->bytes[i * num + to];
            sent[i] = *later(&through[i], &through[to]);
            sent[i].end_s += coefficients[at] + coefficients[at + 1] * bytes;
            sent[i].row[at] += 1;
            sent[i].row[at + 1] += bytes;
        }
        for (int64_t i = 0; i < num; i++) {
            through[i] = *later(&sent[i], &sent[(i + num - s) % num]);
        }
    }
    const struct chain *last = &through[0];
    for (int64_t i = 1; i < num; i++) {
        last = later(last, &through[i]);
    }
    memcpy(row, last->row, sizeof last->row);
    free(through);
    return true;
}

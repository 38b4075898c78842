/* SPDX-License-Identifier: Apache-2.0 */
/* GShard's top-2: the second expert is kept by chance, the more so the higher its weight. */
#include "kernels/gate_policy.h"

#include <math.h>

/* g2 = p2 / (p1 + p2) = 1 / (1 + exp(x1 - x2)); kept where a uniform number is below 2 g2. In
 * double, so that all instruction sets draw alike. The first weight stays as normalised over both.
 */
static void keep_second(const struct ep_gate *gate, int64_t token, const float *x, int32_t *idx,
                        float *weight)
{
    struct ep_random random;
    if (idx[1] < 0) {
        return;
    }
    ep_random_init(&random, gate->config.seed, EP_RANDOM_GATE, (uint64_t)token);
    const double second = 1 / (1 + exp((double)x[idx[0]] - (double)x[idx[1]]));
    if (ep_random_f64(&random) < 2 * second) {
        return;
    }
    idx[1] = -1;
    if (weight != NULL) {
        weight[1] = 0;
    }
}

const struct ep_gate_policy ep_gate_gshard = {
    .name = "gshard",
    .usage = "gshard",
    .summary = "top2, the second kept with chance 2 g2, g2 its weight",
    .source = "GShard, arXiv 2006.16668, algorithm 1 (recalled); Fairseq moe, top2gate.py",
    .top_k = 2,
    .score = EP_GATE_SOFTMAX,
    .renormalises = true,
    .thin = keep_second,
};

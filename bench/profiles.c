/* SPDX-License-Identifier: Apache-2.0 */
/* The table of profiles. */
#include "bench/profiles.h"

#include <string.h>

/* One hot rank first, one last: a schedule that begins at rank 0 treats them unlike. On several nodes two more
 * are added: ep_suite_skews_of_nodes. */
#define SKEWS "uniform,zipf:0.6,zipf:1.0,hot:2@last,hot:4,trace:sample"
/* One rank alone can have all of these. Six, so that whole skews can be held out. */
#define LAYER_SKEWS "uniform,zipf:0.6,zipf:1.0,zipf:1.4,khot:1:0.5,khot:1:0.9"

static const struct ep_profile profiles[] = {
    {
        .name = "smoke",
        .summary = "20 seconds: does everything run here? Its numbers are worth nothing",
        .links_s = 1,
        .kernels_s = 1,
        .bare_s = 0.5,
        .comm = {{.tokens = "8,64,256", .hidden = "256", .experts = "64", .top_k = "2",
                  .skew = SKEWS, .transport = "alltoallv,alltoallv-dedup", .num_visits = 2,
                  .warmup = 2, .case_s = 0.05, .budget_s = 120, .quiet = true}},
        .layer = {.comm = {.tokens = "8", .hidden = "256", .experts = "16", .top_k = "2",
                           .skew = "uniform", .num_visits = 2, .warmup = 2, .case_s = 0.05,
                           .budget_s = 20},
                  .ffn = 128},
    },
    {
        .name = "quick",
        .summary = "two minutes: six skews, two top-k, three sizes, two transports",
        .links_s = 8,
        .kernels_s = 12,
        .bare_s = 12,
        .comm = {{.tokens = "64,512,2048", .hidden = "2048", .experts = "64", .top_k = "2,4",
                  .skew = SKEWS, .transport = "alltoallv,alltoallv-dedup", .num_visits = 2,
                  .warmup = 3, .case_s = 1, .budget_s = 64, .quiet = true}},
        .layer = {.comm = {.tokens = "64", .hidden = "1024", .experts = "16", .top_k = "2",
                           .skew = "uniform,khot:1:0.9", .num_visits = 2, .warmup = 3, .case_s = 0.8,
                           .budget_s = 6},
                  .ffn = 512},
    },
    {
        .name = "standard",
        .summary = "15 minutes: decode sizes, more sizes and transports, the expert GEMM grid",
        .links_s = 40,
        .kernels_s = 360,
        .bare_s = 40,
        .comm = {{.tokens = "256,1024,4096", .hidden = "2048", .experts = "64", .top_k = "2,4,8",
                  .skew = SKEWS ",zipf:1.4,hot:2",
                  .transport = "alltoall,alltoallv,alltoallv-dedup", .num_visits = 3, .warmup = 3,
                  .case_s = 1, .budget_s = 300, .quiet = true},
                 {.tokens = "1,4,16,64,128", .hidden = "2048", .experts = "64", .top_k = "2,8",
                  .skew = SKEWS, .transport = "alltoallv,alltoallv-dedup", .num_visits = 3,
                  .warmup = 10, .case_s = 0.5, .budget_s = 120, .quiet = true}},
        .layer = {.comm = {.tokens = "16,64,256,1024", .hidden = "2048", .experts = "16", .top_k = "2",
                           .skew = LAYER_SKEWS, .num_visits = 2, .warmup = 3, .case_s = 1.5,
                           .budget_s = 90},
                  .ffn = 1408},
    },
    {
        .name = "full",
        .summary = "two hours: as standard, with fp32 and fp8, more skews and sizes, more visits",
        .links_s = 300,
        .kernels_s = 1200,
        .bare_s = 60,
        .comm = {{.tokens = "128,256,512,1024,2048,4096", .hidden = "2048,7168", .experts = "64",
                  .top_k = "2,4,8", .dtype = "bf16,fp8",
                  .skew = SKEWS ",zipf:0.3,zipf:1.4,hot:2,khot:2:0.5",
                  .transport = "alltoall,alltoallv,alltoallv-dedup", .num_visits = 4, .warmup = 3,
                  .case_s = 2, .budget_s = 4200, .quiet = true},
                 {.tokens = "1,2,4,8,16,32,64,128", .hidden = "2048,7168", .experts = "64",
                  .top_k = "2,8", .skew = SKEWS, .transport = "alltoall,alltoallv,alltoallv-dedup",
                  .num_visits = 4, .warmup = 10, .case_s = 1, .budget_s = 1200, .quiet = true}},
        .layer = {.comm = {.tokens = "1,16,64,256,1024,4096", .hidden = "2048", .experts = "64",
                           .top_k = "2,8", .skew = LAYER_SKEWS ",trace:sample",
                           .transport = "alltoallv,alltoallv-dedup", .num_visits = 3, .warmup = 3,
                           .case_s = 2.4, .budget_s = 1200},
                  .ffn = 1408, .shared_ffn = 2816},
    },
};

enum ep_status ep_profile_find(const char *name, const struct ep_profile **profile)
{
    for (size_t i = 0; i < sizeof profiles / sizeof profiles[0]; i++) {
        if (strcmp(profiles[i].name, name) == 0) {
            *profile = &profiles[i];
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--profile: '%s' is not smoke, quick, standard or full", name);
}

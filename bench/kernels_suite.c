/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels stage of the suite. */
#include "bench/kernels_suite.h"

#include "base/table.h"
#include "bench/kernels_case.h"
#include "bench/kernels_cases.h"
#include "bench/kernels_table.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* What a case counts, in units of which tables show 0.1 to some hundreds. */
static const char *rate_unit(const struct ep_kernels_case *one, double *amount)
{
    if (one->flops > 0.0) {
        *amount = one->flops / 1e9;
        return "GF/s";
    }
    if (one->items > 0.0) {
        *amount = one->items / 1e6;
        return "Mpairs/s";
    }
    *amount = one->bytes / 1e9;
    return "GB/s";
}

/* Cases come in pairs: on one rank, then on all. */
static enum ep_status print_basics(const struct ep_kernels_cases *cases, int num_ranks, FILE *out)
{
    static const char *const headers[] = {"loop", "unit", "one rank", "all ranks, each"};
    enum ep_status status = EP_OK;
    struct ep_table *table = NULL;
    int64_t num = 0;
    const struct ep_kernels_case *const *items = ep_kernels_cases_items(cases, &num);
    EP_TRY(ep_table_create(headers, num_ranks > 1 ? 4 : 3, &table));
    for (int64_t i = 0; i < num; i++) {
        const struct ep_kernels_case *one = items[i];
        double amount = 0.0;
        const char *unit = rate_unit(one, &amount);
        if (one->ranks_active == 1) {
            const char *end = strstr(one->name, "/ranks:");
            ep_table_add(table, "%.*s", (int)(end - one->name), one->name);
            ep_table_add(table, "%s", unit);
        }
        if (isnan(one->median_s)) { /* a signal came before it */
            ep_table_add(table, "-");
        } else {
            ep_table_add(table, "%.1f", amount / one->median_s);
        }
    }
    EP_TRY(ep_table_print(table, out));
    fflush(out);
out:
    ep_table_destroy(table);
    return status;
}

static enum ep_status run_basics(struct ep_session *session, const struct ep_kernels_grid *like,
                                 bool is_quick, FILE *out)
{
    enum ep_status status = EP_OK;
    struct ep_kernels_cases *cases = NULL;
    struct ep_kernels_grid grid = *like;
    grid.num_shapes = 0;
    EP_TRY(ep_kernels_cases_create(session, &grid, NULL, &cases));
    EP_TRY(ep_kernels_cases_measure(cases, is_quick ? 5 : 15));
    if (ep_comm_is_root(session->world)) {
        status = print_basics(cases, ep_comm_size(session->world), out);
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    ep_kernels_cases_destroy(cases);
    return status;
}

enum ep_status ep_kernels_suite_run(struct ep_session *session, bool is_quick, double budget_s,
                                    FILE *out, int64_t *num_short)
{
    static const int64_t few_tokens[] = {1, 16, 128};
    static const char *const models[] = {"mixtral-8x7b", "deepseek-v3"};
    enum ep_status status = EP_OK;
    struct ep_kernels_shape shapes[2];
    struct ep_kernels_grid grid = ep_kernels_grid_default();
    double spent_s = ep_comm_now_s();
    grid.shapes = shapes;
    if (is_quick) {
        grid.tokens = few_tokens;
        grid.num_tokens = sizeof few_tokens / sizeof *few_tokens;
        grid.num_shapes = 1;
        grid.row_budget_s = 0.2;
        grid.cold_caches = 2;
        EP_TRY(ep_kernels_shape_of_model(NULL, "qwen3-30b-a3b", &shapes[0]));
    } else {
        grid.num_shapes = 2;
        EP_TRY(ep_kernels_shape_of_model(NULL, models[0], &shapes[0]));
        EP_TRY(ep_kernels_shape_of_model(NULL, models[1], &shapes[1]));
    }
    EP_TRY(run_basics(session, &grid, is_quick, out));
    spent_s = ep_comm_now_s() - spent_s;
    EP_TRY(ep_comm_max_f64(session->world, &spent_s, 1));
    grid.budget_s = budget_s - spent_s > 1.0 ? budget_s - spent_s : 1.0;
    if (ep_comm_is_root(session->world)) {
        fprintf(out, "\n");
    }
    EP_TRY(ep_kernels_table_run(session, &grid, out, NULL, num_short));
    if (ep_comm_is_root(session->world)) {
        fprintf(out, "\n%" PRId64 " rows short of what is asked of the default back end\n",
                *num_short);
    }
out:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The table of doubts, for runs and for records. */
#include "bench/session_doubts.h"

#include "base/file.h"
#include "bench/simulated.h"
#include "topologies/restrictions.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

static double load_average(void)
{
    double load = NAN;
    return getloadavg(&load, 1) == 1 ? load : NAN;
}

enum ep_status ep_session_find_doubts(struct ep_session *s)
{
    enum ep_status status = EP_OK;
    struct ep_restrictions limits;
    if (ep_simulated()) { /* of this machine nothing matters */
        ep_session_warn(s, "simulated", "times are those of SimGrid's model, in which messages share links fairly "
                        "and nothing else takes time: they test code, routing of bytes and the choice of a "
                        "rung, and say nothing of a machine");
        return EP_OK;
    }
    EP_TRY(ep_comm_agree(s->world, ep_restrictions_discover(&limits)));
    const double load = load_average();
    if (s->topo->num_oversubscribed > 0) {
        ep_session_warn(s, "oversubscribed", "%lld ranks share hardware threads with "
                        "others: times include waiting for a turn; use fewer ranks (-n)",
                        (long long)s->topo->num_oversubscribed);
    }
    if (s->topo->num_floating > 0) {
        ep_session_warn(s, "unbound-ranks", "%lld ranks are not bound to one core: they may "
                        "move, and have no level below the host; bind them (mpirun "
                        "--bind-to core)", (long long)s->topo->num_floating);
    }
    if (!isnan(limits.quota_cpus) && limits.quota_cpus < (double)limits.allowed_pus) {
        ep_session_warn(s, "cpu-quota", "%s grants %.2f CPUs of %lld: ranks are stopped when "
                        "it is used up", limits.quota_source, limits.quota_cpus,
                        (long long)limits.allowed_pus);
    }
    if (load > 0.5 + ep_comm_size(s->world)) {
        ep_session_warn(s, "load", "load average %.1f with %d ranks: something else is "
                        "running", load, ep_comm_size(s->world));
    }
    if (s->clock_step_s > 1e-7) {
        ep_session_warn(s, "coarse-clock", "the clock moves in steps of %.0f ns: short "
                        "times are not to be trusted", s->clock_step_s * 1e9);
    }
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__)
    ep_session_warn(s, "debug-build", "built without optimisation or with a sanitizer: no "
                    "number of this run says anything");
#endif
out:
    return status;
}

static enum ep_status add_file(struct ep_run *run, const char *name, const char *path)
{
    char *text = NULL;
    size_t length = 0;
    enum ep_status status = EP_OK;
    if (ep_file_read(path, 4096, &text, &length) == EP_OK) {
        text[strcspn(text, "\n")] = '\0';
        status = ep_record_add_note(&run->machine_facts, name, "%s", text);
    } else {
        ep_error_clear(); /* not every system has it */
    }
    free(text);
    return status;
}

enum ep_status ep_session_add_facts(struct ep_run *run)
{
    enum ep_status status = EP_OK;
    struct utsname name;
    if (uname(&name) == 0) {
        EP_TRY(ep_record_add_note(&run->machine_facts, "kernel", "%s %s %s", name.sysname,
                                  name.release, name.machine));
    }
    EP_TRY(add_file(run, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
    EP_TRY(add_file(run, "huge pages", "/sys/kernel/mm/transparent_hugepage/enabled"));
    EP_TRY(add_file(run, "numa balancing", "/proc/sys/kernel/numa_balancing"));
    EP_TRY(ep_record_add_note(&run->machine_facts, "load average", "%.2f", load_average()));
out:
    return status;
}

/* What makes a record doubtful, as it follows from its own figures. Rank 0. */
static enum ep_status add_warnings(const struct ep_session *s,
                                   const struct ep_harness_result *result,
                                   struct ep_record *record)
{
    enum ep_status status = EP_OK;
    if (ep_simulated()) { /* one sample says all */
        return EP_OK;
    }
    const double half_width = (record->high_s - record->low_s) / 2 / record->median_s;
    if (isnan(half_width)) {
        EP_TRY(ep_record_add_note(&record->warnings, "no-interval", "%lld samples are too few for an "
                                  "interval of the median (6 are needed)", (long long)result->num));
    } else if (half_width > 0.02) {
        EP_TRY(ep_record_add_note(&record->warnings, "wide-interval", "95 %% interval of the median "
                                  "is +-%.1f %%; give it more time (--case-time)",
                                  100 * half_width));
    }
    if (record->lag1 >= 0.2) {
        EP_TRY(ep_record_add_note(&record->warnings, "autocorrelated", "lag-1 autocorrelation %.2f: "
                                  "the interval is too narrow; trust the spread of visits",
                                  record->lag1));
    }
    if (record->null_s > 0.01 * record->median_s) {
        EP_TRY(ep_record_add_note(&record->warnings, "harness-cost", "the harness itself costs %.3g "
                                  "us, %.1f %% of the median", record->null_s * 1e6,
                                  100 * record->null_s / record->median_s));
    }
    if (record->page_faults > result->num / 10 + 1) {
        EP_TRY(ep_record_add_note(&record->warnings, "page-faults", "%lld page faults in %lld samples",
                                  (long long)record->page_faults, (long long)result->num));
    }
    if (record->context_switches > result->num / 10 + 1) {
        EP_TRY(ep_record_add_note(&record->warnings, "context-switches", "%lld involuntary context "
                                  "switches in %lld samples", (long long)record->context_switches,
                                  (long long)result->num));
    }
    if (record->steal_s > 0) {
        EP_TRY(ep_record_add_note(&record->warnings, "steal", "the hypervisor took %.2f s of CPU "
                                  "time while samples were taken", record->steal_s));
    }
    const double blocks = result->repetitions > 1 ? (double)result->repetitions : 1;
    if (record->median_s * blocks < 20 * s->clock_step_s) {
        EP_TRY(ep_record_add_note(&record->warnings, "clock", "the median is below 20 steps of the "
                                  "clock (%.0f ns)", s->clock_step_s * 1e9));
    }
out:
    return status;
}

static enum ep_status fill_samples(const struct ep_session *s,
                                   const struct ep_harness_result *result, const double *medians,
                                   int64_t num_ranks, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_record_set_f64s(&record->samples_s, result->samples_s, result->num));
    EP_TRY(ep_record_summarize(record));
    EP_TRY(ep_record_set_f64s(&record->rank_median_s, medians, num_ranks));
    EP_TRY(ep_record_set_text(&record->stop_reason, "%s", ep_harness_stop_name(result->stop)));
    EP_TRY(add_warnings(s, result, record));
out:
    return status;
}

enum ep_status ep_session_set_samples(struct ep_session *s, struct ep_comm *comm,
                                      const struct ep_harness_result *result,
                                      const struct ep_os_counters *counters,
                                      struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const int size = ep_comm_size(comm);
    double *medians = calloc((size_t)size, sizeof *medians);
    status = medians == NULL ? ep_error_set(EP_ENOMEM, "no memory for %d ranks", size) : EP_OK;
    EP_TRY(ep_comm_agree(comm, status));
    EP_TRY(ep_comm_allgather_f64(comm, &result->local_median_s, 1, medians));
    int64_t events[2] = {counters->context_switches, counters->page_faults};
    EP_TRY(ep_comm_sum_i64(comm, events, 2));
    double worst[2] = {counters->steal_s, result->warmup_s};
    EP_TRY(ep_comm_max_f64(comm, worst, 2));
    record->warmup_s = worst[1];
    record->steal_s = worst[0];
    record->context_switches = ep_simulated() ? -1 : events[0];
    record->page_faults = ep_simulated() ? -1 : events[1];
    if (ep_comm_is_root(comm)) {
        status = fill_samples(s, result, medians, size, record);
    }
    EP_TRY(ep_comm_agree(comm, status));
out:
    free(medians);
    return status;
}

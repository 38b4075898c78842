/* SPDX-License-Identifier: Apache-2.0 */
/* The table of skews, their parsing, and the shape of a case. */
#include "kernels/skew.h"

#include "base/file.h"
#include "base/options.h"
#include "base/units.h"
#include "kernels/skew_policy.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ep_skew_policy *const policies[] = {
    &ep_skew_uniform, &ep_skew_zipf, &ep_skew_lognormal, &ep_skew_dirichlet, &ep_skew_gini,
    &ep_skew_counts,  &ep_skew_hot,  &ep_skew_khot,      &ep_skew_trace,
};

enum { NUM_POLICIES = sizeof policies / sizeof policies[0] };

static enum ep_status find_policy(const char *text, const struct ep_skew_policy **policy)
{
    const char *names[NUM_POLICIES];
    const size_t length = strcspn(text, ":");
    for (int i = 0; i < NUM_POLICIES; i++) {
        names[i] = policies[i]->name;
        if (strlen(names[i]) == length && strncmp(names[i], text, length) == 0) {
            *policy = policies[i];
            return EP_OK;
        }
    }
    char *name = strndup(text, length);
    const char *nearest = name != NULL ? ep_options_nearest(name, names, NUM_POLICIES) : NULL;
    free(name);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "unknown skew '%s'; did you mean '%s'?", text, nearest)
               : ep_error_set(EP_EINVAL, "unknown skew '%s'; %s expected", text, ep_skew_usages());
}

/* A skew without what it must have behind its colon. */
static enum ep_status check_parameter(const char *text, const struct ep_skew_policy *policy)
{
    return policy->example == NULL
               ? EP_OK
               : ep_error_set(EP_EINVAL, "skew '%s': its parameter is missing; write %s, for example %s",
                              text, policy->usage, policy->example);
}

/* --- modifiers ---------------------------------------------------------------------------- */

static enum ep_status parse_modifier(const char *text, const char *whole, struct ep_skew *skew)
{
    static const char masked[] = "masked:";
    char what[96];
    if (strcmp(text, "source") == 0) {
        skew->by_source = true;
        return EP_OK;
    }
    if (strncmp(text, masked, sizeof masked - 1) != 0) {
        return ep_error_set(EP_EINVAL, "skew '%s': '+%s', +source or +masked:F expected", whole,
                            text);
    }
    snprintf(what, sizeof what, "skew '%.40s': masked share F", whole);
    const enum ep_status status = ep_parse_f64(text + sizeof masked - 1, what, 0, 1, &skew->masked);
    return status != EP_OK || skew->masked < 1
               ? status
               : ep_error_set(EP_EINVAL, "%s: below 1 expected, or nothing is sent", what);
}

/* Cut modifiers off the end of skew->text: a '+' behind which a letter comes ("1e+5" has none). In
 * a file's name only what is a modifier counts. */
static enum ep_status cut_modifiers(const char *whole, struct ep_skew *skew)
{
    char *text = skew->text;
    const bool of_file = strncmp(text, "trace:", 6) == 0 || strncmp(text, "counts:", 7) == 0;
    for (char *plus; (plus = strrchr(text, '+')) != NULL && isalpha((unsigned char)plus[1]);) {
        if (of_file && strcmp(plus, "+source") != 0 && strncmp(plus, "+masked:", 8) != 0) {
            break;
        }
        const enum ep_status status = parse_modifier(plus + 1, whole, skew);
        if (status != EP_OK) {
            return status;
        }
        *plus = '\0';
    }
    return EP_OK;
}

/* Parsing may have added to the text: modifiers stay its end. */
static enum ep_status add_modifiers(const char *modifiers, struct ep_skew *skew)
{
    char *text = ep_format_new("%s%s", skew->text, modifiers);
    if (text == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a skew");
    }
    free(skew->text);
    skew->text = text;
    return EP_OK;
}

char *ep_skew_compose(const char *skew, bool by_source, const char *masked)
{
    return ep_format_new("%s%s%s%s", skew, by_source ? "+source" : "",
                         masked != NULL ? "+masked:" : "", masked != NULL ? masked : "");
}

enum ep_status ep_skew_create(const char *text, struct ep_skew **skew)
{
    return ep_skew_create_with(text, NULL, skew);
}

enum ep_status ep_skew_create_with(const char *text, const struct ep_trace_options *trace_options,
                                   struct ep_skew **skew)
{
    enum ep_status status;
    struct ep_skew *created = calloc(1, sizeof *created);
    if (created == NULL || (created->text = strdup(text)) == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a skew");
        goto out;
    }
    EP_TRY(cut_modifiers(text, created));
    const char *modifiers = text + strlen(created->text);
    EP_TRY(find_policy(created->text, &created->policy));
    const char *colon = strchr(created->text, ':');
    if (colon == NULL || colon[1] == '\0') {
        EP_TRY(check_parameter(text, created->policy));
    }
    created->trace_options = trace_options;
    EP_TRY(created->policy->parse(colon != NULL ? colon + 1 : "", created));
    created->trace_options = NULL;
    EP_TRY(add_modifiers(modifiers, created));
    if (created->by_source && created->policy->fixed) {
        status = ep_error_set(EP_EINVAL,
                              "skew '%s': +source permutes experts, but %s says which they are",
                              text, created->policy->name);
        goto out;
    }
    *skew = created;
    created = NULL;
out:
    ep_skew_destroy(created);
    return status;
}

void ep_skew_destroy(struct ep_skew *skew)
{
    if (skew == NULL) {
        return;
    }
    ep_trace_destroy(skew->trace);
    free(skew->hot_ranks);
    free(skew->text);
    free(skew);
}

static enum ep_status resolve_experts(const struct ep_skew *skew, int64_t given, bool in_sweep,
                                      int64_t *num_experts)
{
    if (skew->num_experts == 0 && given == 0) {
        return ep_error_set(EP_EINVAL, "--experts is needed for skew %s (or --model, which has them)",
                            skew->text);
    }
    if (skew->num_experts == 0) {
        *num_experts = given;
        return EP_OK;
    }
    const bool fits = given == 0 || given == skew->num_experts ||
                      (skew->more_experts && given > skew->num_experts);
    if (!fits && !in_sweep) {
        return ep_error_set(EP_EINVAL,
                            "--experts %" PRId64 " contradicts %s, which has %s%" PRId64
                            " experts; leave the option out",
                            given, skew->text, skew->more_experts ? "at least " : "",
                            skew->num_experts);
    }
    *num_experts = given != 0 && fits && !in_sweep ? given : skew->num_experts;
    return EP_OK;
}

enum ep_status ep_skew_resolve_shape(const struct ep_skew *skew, int64_t num_experts, int64_t top_k,
                                     bool in_sweep, int64_t *case_experts, int64_t *case_top_k)
{
    int64_t experts = 0;
    const enum ep_status status = resolve_experts(skew, num_experts, in_sweep, &experts);
    if (status != EP_OK) {
        return status;
    }
    if (skew->top_k == 0 && top_k == 0) {
        return ep_error_set(EP_EINVAL, "--top-k is needed for skew %s (or --model, which has one)",
                            skew->text);
    }
    if (skew->top_k != 0 && top_k != 0 && top_k != skew->top_k && !in_sweep) {
        return ep_error_set(EP_EINVAL,
                            "--top-k %" PRId64 " contradicts %s, which has top-%" PRId64
                            "; leave the option out",
                            top_k, skew->text, skew->top_k);
    }
    const int64_t k = skew->top_k != 0 ? skew->top_k : top_k;
    if (k > experts) {
        return ep_error_set(EP_EINVAL,
                            "top-%" PRId64 " of %" PRId64 " experts: top-k may be 1 to %" PRId64, k,
                            experts, experts);
    }
    *case_experts = experts;
    *case_top_k = k;
    return EP_OK;
}

bool ep_skew_describe(int index, const char **usage, const char **summary)
{
    if (index >= NUM_POLICIES) {
        return false;
    }
    *usage = policies[index]->usage;
    *summary = policies[index]->summary;
    return true;
}

const char *ep_skew_usages(void)
{
    return "uniform, zipf:S, lognormal:S, dirichlet:A, gini:G, counts:FILE, hot:R[@RANKS], "
           "khot:N:F, "
           "trace:FILE or trace:sample";
}

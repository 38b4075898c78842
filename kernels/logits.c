/* SPDX-License-Identifier: Apache-2.0 */
/* Gumbel logits of a popularity, and logit files. */
#include "kernels/logits.h"

#include "base/csv.h"
#include "base/npy.h"
#include "base/random.h"
#include "kernels/placement.h"
#include "kernels/skew_popularity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t limit_bytes = (int64_t)4 << 30;

struct ep_logits {
    int64_t num_experts;
    int64_t num_tokens; /* of a file */
    uint64_t seed;
    double *shares; /* [num_experts] sum 1; NULL for a file */
    double *means;  /* [num_experts] ln(share x experts) */
    float *values;  /* [num_tokens][num_experts] of a file; NULL where drawn */
};

/* --- popularities ---------------------------------------------------------------------------- */

/* What the skew says of the experts, as it would for routing. */
static enum ep_status fill_shares(const char *text, struct ep_logits *l)
{
    enum ep_status status;
    struct ep_skew *skew = NULL;
    EP_TRY(ep_skew_create(text, &skew));
    if (!ep_popularity_is_of(skew)) {
        status = ep_error_set(EP_EINVAL,
                              "no logits have skew '%s'; one popularity of experts expected: "
                              "uniform, zipf:S, lognormal:S, dirichlet:A, gini:G or counts:FILE",
                              text);
        goto out;
    }
    if (skew->num_experts != 0 && skew->num_experts != l->num_experts) {
        status = ep_error_set(EP_EINVAL, "skew %s is of %" PRId64 " experts; %" PRId64 " expected",
                              text, skew->num_experts, l->num_experts);
        goto out;
    }
    EP_TRY(ep_popularity_fill_shares(skew, l->num_experts, l->seed, l->shares));
out:
    ep_skew_destroy(skew);
    return status;
}

/* Logits of what the skew `text` says of the experts, or of given shares. */
static enum ep_status create(const char *text, const double *shares, int64_t num_experts,
                             uint64_t seed, struct ep_logits **logits)
{
    enum ep_status status = EP_OK;
    struct ep_logits *made = calloc(1, sizeof *made);
    EP_ASSERT(num_experts >= 1 && num_experts <= EP_MAX_EXPERTS);
    if (made != NULL) {
        *made = (struct ep_logits){.num_experts = num_experts, .seed = seed};
        made->shares = calloc((size_t)num_experts, sizeof *made->shares);
        made->means = calloc((size_t)num_experts, sizeof *made->means);
    }
    if (made == NULL || made->shares == NULL || made->means == NULL) {
        status =
            ep_error_set(EP_ENOMEM, "no memory for logits of %" PRId64 " experts", num_experts);
        goto out;
    }
    if (shares != NULL) {
        memcpy(made->shares, shares, (size_t)num_experts * sizeof *shares);
    } else {
        EP_TRY(fill_shares(text, made));
    }
    for (int64_t e = 0; e < num_experts; e++) { /* -inf where it is never chosen */
        made->means[e] = log(made->shares[e] * (double)num_experts);
    }
    *logits = made;
    made = NULL;
out:
    ep_logits_destroy(made);
    return status;
}

enum ep_status ep_logits_create(const char *text, int64_t num_experts, uint64_t seed,
                                struct ep_logits **logits)
{
    return create(text, NULL, num_experts, seed, logits);
}

enum ep_status ep_logits_create_of(const double *shares, int64_t num_experts, uint64_t seed,
                                   struct ep_logits **logits)
{
    return create(NULL, shares, num_experts, seed, logits);
}

/* --- files ----------------------------------------------------------------------------------- */

static enum ep_status check_value(const char *name, int64_t token, int64_t expert, double value)
{
    return (float)value < INFINITY ? EP_OK
                                   : ep_error_set(EP_EINVAL,
                                                  "%s: token %" PRId64 ", expert %" PRId64
                                                  ": %g; a number within fp32 or -inf expected",
                                                  name, token, expert, value);
}

static enum ep_status check_experts(const char *name, int64_t has, int64_t wanted)
{
    if (has < 1 || has > EP_MAX_EXPERTS) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " experts; 1 to %d expected", name, has,
                            EP_MAX_EXPERTS);
    }
    return wanted == 0 || wanted == has
               ? EP_OK
               : ep_error_set(EP_EINVAL, "%s: %" PRId64 " experts; %" PRId64 " expected", name, has,
                              wanted);
}

static enum ep_status read_npy(const char *path, int64_t num_experts, struct ep_logits *l)
{
    enum ep_status status;
    struct ep_npy npy = {0};
    EP_TRY(ep_npy_open(path, limit_bytes, &npy));
    if (npy.num_dims != 2 || npy.type > EP_NPY_F64) {
        status = ep_error_set(EP_EINVAL,
                              "%s: %" PRId64 " dimensions of %s; [tokens][experts] of <f4 or <f8 "
                              "expected",
                              path, npy.num_dims, ep_npy_type_name(npy.type));
        goto out;
    }
    EP_TRY(check_experts(path, npy.dims[1], num_experts));
    l->num_tokens = npy.dims[0];
    l->num_experts = npy.dims[1];
    l->values = malloc((size_t)npy.num_values * sizeof *l->values + 1);
    if (l->values == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory for its logits", path);
        goto out;
    }
    for (int64_t i = 0; i < npy.num_values; i++) {
        const double value = ep_npy_get_f64(&npy, i);
        EP_TRY(check_value(path, i / l->num_experts, i % l->num_experts, value));
        l->values[i] = (float)value;
    }
out:
    ep_npy_fini(&npy);
    return status;
}

static enum ep_status check_header(const struct ep_csv *csv)
{
    for (int64_t e = 0; e < csv->num_columns; e++) {
        char name[32];
        snprintf(name, sizeof name, "e%" PRId64, e);
        if (strcmp(csv->header[e], name) != 0) {
            return ep_error_set(EP_EINVAL, "%s:1: column '%s'; %s expected (e0,e1,...)", csv->name,
                                csv->header[e], name);
        }
    }
    return EP_OK;
}

static enum ep_status read_row(const struct ep_csv *csv, float *row)
{
    for (int64_t e = 0; e < csv->num_columns; e++) {
        double value = -INFINITY;
        if (strcmp(csv->fields[e], "-inf") != 0) {
            const enum ep_status status = ep_csv_get_f64(csv, e, -3e38, 3e38, &value);
            if (status != EP_OK) {
                return status;
            }
        }
        row[e] = (float)value;
    }
    return EP_OK;
}

static enum ep_status read_csv(const char *path, int64_t num_experts, struct ep_logits *l)
{
    enum ep_status status;
    struct ep_csv csv = {0};
    int64_t capacity = 0;
    int more = 0;
    EP_TRY(ep_csv_open(path, limit_bytes, &csv));
    EP_TRY(ep_csv_read_header(&csv));
    EP_TRY(check_header(&csv));
    EP_TRY(check_experts(path, csv.num_columns, num_experts));
    l->num_experts = csv.num_columns;
    EP_TRY(ep_csv_next(&csv, &more));
    while (more) {
        if (l->num_tokens == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 256;
            float *larger =
                realloc(l->values, (size_t)(capacity * l->num_experts) * sizeof *larger);
            if (larger == NULL) {
                status = ep_error_set(EP_ENOMEM, "%s: no memory for its logits", path);
                goto out;
            }
            l->values = larger;
        }
        EP_TRY(read_row(&csv, l->values + l->num_tokens * l->num_experts));
        l->num_tokens++;
        EP_TRY(ep_csv_next(&csv, &more));
    }
out:
    ep_csv_fini(&csv);
    return status;
}

enum ep_status ep_logits_load(const char *path, int64_t num_experts, struct ep_logits **logits)
{
    enum ep_status status;
    const size_t length = strlen(path);
    const bool is_npy = length >= 4 && strcmp(path + length - 4, ".npy") == 0;
    struct ep_logits *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", path);
    }
    EP_TRY(is_npy ? read_npy(path, num_experts, made) : read_csv(path, num_experts, made));
    if (made->num_tokens == 0) {
        status = ep_error_set(EP_EINVAL, "%s: has no token", path);
        goto out;
    }
    *logits = made;
    made = NULL;
out:
    ep_logits_destroy(made);
    return status;
}

void ep_logits_destroy(struct ep_logits *logits)
{
    if (logits != NULL) {
        free(logits->shares);
        free(logits->means);
        free(logits->values);
        free(logits);
    }
}

int64_t ep_logits_num_experts(const struct ep_logits *logits)
{
    return logits->num_experts;
}

int64_t ep_logits_num_tokens(const struct ep_logits *logits)
{
    return logits->num_tokens;
}

double ep_logits_share(const struct ep_logits *logits, int64_t expert)
{
    EP_ASSERT(expert >= 0 && expert < logits->num_experts);
    return logits->shares != NULL ? logits->shares[expert] : (double)NAN;
}

void ep_logits_fill(const struct ep_logits *logits, int64_t first_token, int64_t num_tokens,
                    float *x)
{
    const int64_t num = logits->num_experts;
    if (logits->values != NULL) {
        EP_ASSERT(first_token + num_tokens <= logits->num_tokens);
        memcpy(x, logits->values + first_token * num, (size_t)(num_tokens * num) * sizeof *x);
        return;
    }
    for (int64_t t = 0; t < num_tokens; t++) {
        struct ep_random random;
        ep_random_init(&random, logits->seed, EP_RANDOM_LOGITS, (uint64_t)(first_token + t));
        for (int64_t e = 0; e < num; e++) { /* u in (0, 1), in steps of 2^-32 from 2^-33 on */
            const double u = ((double)ep_random_u32(&random) + 0.5) * 0x1p-32;
            x[t * num + e] = (float)(logits->means[e] - log(-log(u)));
        }
    }
}

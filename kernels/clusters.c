/* SPDX-License-Identifier: Apache-2.0 */
/* Gaussian clusters and the maps that their targets come from. */
#include "kernels/clusters.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Streams of EP_RANDOM_CLUSTERS: what for in the upper byte, which one below. */
enum { COMMON = 1, CENTRE, MAP, SEQUENCE, TOKEN };

struct ep_clusters {
    struct ep_clusters_config config;
    float *common;      /* [dim], its share applied */
    float *centres;     /* [num_clusters][dim], likewise */
    float *maps;        /* [num_clusters][dim][num_outputs] */
    double *cumulative; /* [num_clusters] chance of this cluster or one before */
};

static double own_share(const struct ep_clusters_config *config)
{
    return fmax(1 - config->common - config->centre, 0);
}

static void draw(const struct ep_clusters *clusters, uint64_t what, int64_t index, double variance,
                 float *values, int64_t num)
{
    struct ep_random random;
    ep_random_init(&random, clusters->config.seed, EP_RANDOM_CLUSTERS,
                   what << 56 | (uint64_t)index);
    ep_random_normals(&random, (float)sqrt(variance), values, num);
}

/* Scale the map of a cluster so that its targets have mean square 1: that of its mean token, and
 * the sum of squares of the map times the variance within the cluster. `mean` is scratch
 * [num_outputs]. */
static void scale_map(struct ep_clusters *c, int64_t cluster, float *mean)
{
    const int64_t num = c->config.num_outputs;
    float *map = &c->maps[cluster * c->config.dim * num];
    double squares = 0;
    memset(mean, 0, (size_t)num * sizeof *mean);
    for (int64_t i = 0; i < c->config.dim; i++) {
        const float x = c->common[i] + c->centres[cluster * c->config.dim + i];
        for (int64_t o = 0; o < num; o++) {
            const float w = map[i * num + o];
            mean[o] += x * w;
            squares += own_share(&c->config) * (double)w * (double)w;
        }
    }
    for (int64_t o = 0; o < num; o++) {
        squares += (double)mean[o] * (double)mean[o];
    }
    const float scale = (float)sqrt((double)num / squares);
    for (int64_t i = 0; i < c->config.dim * num; i++) {
        map[i] *= scale;
    }
}

enum ep_status ep_clusters_create(const struct ep_clusters_config *config,
                                  struct ep_clusters **clusters)
{
    const int64_t num = config->num_clusters;
    const int64_t map = config->dim * config->num_outputs;
    EP_ASSERT(num >= 1 && map >= 1 && config->sequence_tokens >= 1);
    EP_ASSERT(config->common >= 0 && config->centre >= 0 && config->common + config->centre <= 1);
    struct ep_clusters *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for clusters");
    }
    c->config = *config;
    c->common = malloc((size_t)config->dim * sizeof *c->common);
    c->centres = malloc((size_t)(num * config->dim) * sizeof *c->centres);
    c->maps = malloc((size_t)(num * map) * sizeof *c->maps);
    c->cumulative = malloc((size_t)num * sizeof *c->cumulative);
    float *mean = malloc((size_t)config->num_outputs * sizeof *mean);
    if (c->common == NULL || c->centres == NULL || c->maps == NULL || c->cumulative == NULL ||
        mean == NULL) {
        free(mean);
        ep_clusters_destroy(c);
        return ep_error_set(EP_ENOMEM, "no memory for clusters");
    }
    draw(c, COMMON, 0, config->common, c->common, config->dim);
    double sum = 0;
    for (int64_t i = 0; i < num; i++) {
        draw(c, CENTRE, i, config->centre, &c->centres[i * config->dim], config->dim);
        draw(c, MAP, i, 1, &c->maps[i * map], map);
        scale_map(c, i, mean);
        sum += pow((double)(i + 1), -config->zipf);
        c->cumulative[i] = sum;
    }
    for (int64_t i = 0; i < num; i++) {
        c->cumulative[i] /= sum;
    }
    free(mean);
    *clusters = c;
    return EP_OK;
}

void ep_clusters_destroy(struct ep_clusters *clusters)
{
    if (clusters != NULL) {
        free(clusters->common);
        free(clusters->centres);
        free(clusters->maps);
        free(clusters->cumulative);
        free(clusters);
    }
}

static int32_t draw_cluster(const struct ep_clusters *clusters, int64_t sequence)
{
    struct ep_random random;
    ep_random_init(&random, clusters->config.seed, EP_RANDOM_CLUSTERS,
                   (uint64_t)SEQUENCE << 56 | (uint64_t)sequence);
    const double u = ep_random_f64(&random);
    int32_t label = 0;
    while (label < clusters->config.num_clusters - 1 && u >= clusters->cumulative[label]) {
        label++;
    }
    return label;
}

void ep_clusters_map(const float *x, int64_t dim, const float *w, int64_t num, float *out)
{
    memset(out, 0, (size_t)num * sizeof *out);
    for (int64_t i = 0; i < dim; i++) {
        for (int64_t m = 0; m < num; m++) {
            out[m] += x[i] * w[i * num + m];
        }
    }
}

void ep_clusters_fill(const struct ep_clusters *clusters, int64_t first_token, int64_t num_tokens,
                      float *x, float *targets, int32_t *labels)
{
    const struct ep_clusters_config *c = &clusters->config;
    for (int64_t t = 0; t < num_tokens; t++) {
        const int64_t token = first_token + t;
        if (t == 0 || token % c->sequence_tokens == 0) {
            labels[t] = draw_cluster(clusters, token / c->sequence_tokens);
        } else {
            labels[t] = labels[t - 1];
        }
        float *row = &x[t * c->dim];
        const float *centre = &clusters->centres[labels[t] * c->dim];
        draw(clusters, TOKEN, token, own_share(c), row, c->dim);
        for (int64_t i = 0; i < c->dim; i++) {
            row[i] += clusters->common[i] + centre[i];
        }
        ep_clusters_map(row, c->dim, &clusters->maps[labels[t] * c->dim * c->num_outputs],
                        c->num_outputs, &targets[t * c->num_outputs]);
    }
}

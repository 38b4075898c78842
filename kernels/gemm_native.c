/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM back end `native`: weights packed as the stream that few rows need, blocks for many rows. */
#include "kernels/gemm_native.h"

#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Blocking (kernels/README.md, "GEMM"): of k, so that two panels of w and a tile of x share L2 (in
 * steps of 4 bytes a row); of rows, so that w is read from memory once for so many. A stream that is
 * read once is fetched AHEAD_BYTES early. A gradient takes fewer steps at once: all columns of dz are
 * packed for so many. */
enum { BLOCK_STEPS = 1024, BLOCK_ROWS = 256, AHEAD_BYTES = 8192, GRADIENT_STEPS = 256 };

/* A gradient of STREAM_BYTES and more goes past the caches: a store through them would read it first. */
enum { STREAM_BYTES = 1 << 20 };

struct native_state {
    const struct ep_native_isa *isa;
    int64_t steps;        /* of k: k, or pairs of k */
    int64_t num_panels;   /* of n */
    int64_t matrix_bytes; /* packed */
    char *matrices;       /* [num_groups]: [blocks of k][panels][steps][columns] words */
    uint32_t *x;          /* [row blocks][steps][rows] of one block */
    uint32_t *dz;         /* packed as a matrix, for a gradient */
    int64_t dz_steps;     /* that fit into it */
};

/* The `skip`-th best instruction set that this CPU has; NULL where there are not so many. */
static const struct ep_native_isa *nth_isa(enum ep_dtype dtype, int skip)
{
    const struct ep_native_isa *const *families[] = {ep_native_avx512(dtype), ep_native_avx2(dtype)};
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        for (const struct ep_native_isa *const *isa = families[f]; *isa != NULL; isa++) {
            if ((*isa)->is_supported() && skip-- == 0) {
                return *isa;
            }
        }
    }
    return NULL;
}

static bool is_available(enum ep_dtype dtype, int skip, char *reason, size_t length)
{
    const struct ep_native_isa *isa = nth_isa(dtype, skip);
    const char *otherwise =
        skip == 0 ? "needs an x86-64 CPU with AVX2 and FMA" : "no such narrower instruction set";
    snprintf(reason, length, "%s", isa != NULL ? isa->name : otherwise);
    return isa != NULL;
}

static void native_release(struct ep_gemm_packed *packed)
{
    struct native_state *state = packed->state;
    if (state != NULL) {
        free(state->matrices);
        free(state->x);
        free(state->dz);
        free(state);
    }
}

static int64_t minimum(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* One step of one panel: `num` columns from `column` on, then zeros up to the panel's width. bf16
 * rows 2 step and 2 step + 1 become pairs; beyond an odd k the upper half is zero. */
static void pack_step(const struct ep_gemm_shape *shape, const void *matrix, int64_t step,
                      int64_t column, int64_t num, int64_t columns, uint32_t *to)
{
    if (shape->dtype == EP_FP32) {
        memcpy(to, (const uint32_t *)matrix + step * shape->n + column, (size_t)num * sizeof *to);
    } else {
        const uint16_t *low = (const uint16_t *)matrix + 2 * step * shape->n + column;
        const uint16_t *high = 2 * step + 1 < shape->k ? low + shape->n : NULL;
        for (int64_t j = 0; j < num; j++) {
            to[j] = low[j] | (high != NULL ? (uint32_t)high[j] << 16 : 0);
        }
    }
    memset(to + num, 0, (size_t)(columns - num) * sizeof *to);
}

/* All panels of steps [first, first + steps), read row by row. */
static void pack_panels(const struct native_state *state, const struct ep_gemm_shape *shape,
                        const void *matrix, int64_t first, int64_t steps, uint32_t *to)
{
    const int64_t columns = state->isa->columns;
    for (int64_t step = 0; step < steps; step++) {
        for (int64_t p = 0; p < state->num_panels; p++) {
            pack_step(shape, matrix, first + step, p * columns,
                      minimum(columns, shape->n - p * columns), columns,
                      to + (p * steps + step) * columns);
        }
    }
}

/* The same of a matrix that is given as [n][k]: a column of the panel is a row there. */
static void pack_transposed(const struct native_state *state, const struct ep_gemm_shape *shape,
                            const void *matrix, int64_t first, int64_t steps, uint32_t *to)
{
    const int64_t columns = state->isa->columns;
    memset(to, 0, (size_t)(steps * state->num_panels * columns) * sizeof *to);
    for (int64_t j = 0; j < shape->n; j++) {
        uint32_t *column = to + j / columns * steps * columns + j % columns;
        for (int64_t s = 0; s < steps; s++) {
            const int64_t i = first + s;
            if (shape->dtype == EP_FP32) {
                column[s * columns] = ((const uint32_t *)matrix)[j * shape->k + i];
            } else {
                const uint16_t *low = (const uint16_t *)matrix + j * shape->k + 2 * i;
                column[s * columns] = low[0] | (2 * i + 1 < shape->k ? (uint32_t)low[1] << 16 : 0);
            }
        }
    }
}

static void pack_matrix(const struct native_state *state, const struct ep_gemm_packed *packed,
                        const void *matrix, uint32_t *to)
{
    const struct ep_gemm_shape *shape = &packed->shape;
    for (int64_t first = 0; first < state->steps; first += BLOCK_STEPS) {
        const int64_t steps = minimum(BLOCK_STEPS, state->steps - first);
        if (packed->transposed) {
            pack_transposed(state, shape, matrix, first, steps, to);
        } else {
            pack_panels(state, shape, matrix, first, steps, to);
        }
        to += steps * state->num_panels * state->isa->columns;
    }
}

static enum ep_status pack(int skip, const void *const *weights, struct ep_gemm_packed *packed)
{
    const struct ep_gemm_shape *shape = &packed->shape;
    struct native_state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for GEMM back end native");
    }
    state->isa = nth_isa(shape->dtype, skip);
    EP_ASSERT(state->isa != NULL);
    const int64_t columns = state->isa->columns;
    state->steps = shape->dtype == EP_FP32 ? shape->k : (shape->k + 1) / 2;
    state->num_panels = (shape->n + columns - 1) / columns;
    state->matrix_bytes = state->steps * state->num_panels * columns * (int64_t)sizeof(uint32_t);
    state->matrices = ep_gemm_alloc(shape->num_groups * state->matrix_bytes);
    state->x = ep_gemm_alloc(BLOCK_ROWS * BLOCK_STEPS * (int64_t)sizeof(uint32_t));
    if (state->matrices == NULL || state->x == NULL) {
        free(state->matrices);
        free(state->x);
        free(state);
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " packed expert matrices",
                            shape->num_groups);
    }
    for (int64_t g = 0; g < shape->num_groups; g++) {
        pack_matrix(state, packed, weights[g],
                    (uint32_t *)(void *)(state->matrices + g * state->matrix_bytes));
    }
    packed->state = state;
    packed->weight_bytes = state->matrix_bytes;
    return EP_OK;
}

/* Rows [row, row + m) of x, steps [first, first + steps) as [steps][m] words. */
static void pack_rows(const struct ep_gemm_shape *shape, const void *x, int64_t row, int64_t m,
                      int64_t first, int64_t steps, uint32_t *to)
{
    if (shape->dtype == EP_FP32) {
        const uint32_t *from = (const uint32_t *)x + row * shape->k + first;
        for (int64_t s = 0; s < steps; s++) {
            for (int64_t r = 0; r < m; r++) {
                *to++ = from[r * shape->k + s];
            }
        }
        return;
    }
    const uint16_t *from = (const uint16_t *)x + row * shape->k + 2 * first;
    const int64_t pairs = minimum(steps, (shape->k - 2 * first) / 2);
    for (int64_t s = 0; s < pairs; s++) {
        for (int64_t r = 0; r < m; r++) {
            memcpy(to++, from + r * shape->k + 2 * s, sizeof *to);
        }
    }
    for (int64_t r = 0; pairs < steps && r < m; r++) { /* an odd k ends in half a pair */
        *to++ = from[r * shape->k + 2 * pairs];
    }
}

/* How a block of rows is cut: `num` tiles whose heights differ by one at most. */
struct cut {
    int64_t num;
    int64_t height; /* of the first `num_high` tiles; one less after them */
    int64_t num_high;
};

static struct cut cut_rows(int64_t rows, int64_t limit)
{
    const int64_t num = (rows + limit - 1) / limit;
    const int64_t height = (rows + num - 1) / num;
    return (struct cut){num, height, rows - num * (height - 1)};
}

/* One panel at the right edge, where Y has fewer columns than the panel. */
static void run_edge(const struct native_state *state, const struct ep_native_tile *tile, int64_t m,
                     int64_t columns)
{
    float block[EP_NATIVE_MAX_ROWS * EP_NATIVE_MAX_COLUMNS] = {0};
    struct ep_native_tile inner = *tile;
    inner.c[0] = block;
    inner.c_stride = state->isa->columns;
    inner.accumulate = false;
    inner.stream = false;
    state->isa->one[m](&inner);
    for (int64_t r = 0; r < m; r++) {
        for (int64_t j = 0; j < columns; j++) {
            float *c = tile->c[0] + r * tile->c_stride + j;
            *c = block[r * inner.c_stride + j] + (tile->accumulate ? *c : 0.0f);
        }
    }
}

/* Where tile t of `num` begins to fetch, from the start of its panel. The only tile of a panel fetches
 * a little ahead of itself. Of several, the first two fetch half of the next panel each (one alone would
 * wait for memory, more would be too slow to matter); the others ask for what is there. */
static int64_t prefetch_offset(int64_t num, int64_t t, int64_t panel_bytes)
{
    if (num == 1) {
        return AHEAD_BYTES;
    }
    return t < 2 ? panel_bytes + t * panel_bytes / 2 : 0;
}

/* All panels of one block of k for one block of rows, x packed. */
static void run_block(const struct native_state *state, const struct ep_gemm_shape *shape,
                      const char *w, int64_t steps, const struct cut *cut, bool accumulate,
                      bool stream, float *y)
{
    const struct ep_native_isa *isa = state->isa;
    const int64_t panel_bytes = steps * isa->columns * (int64_t)sizeof(uint32_t);
    const int64_t num_whole = shape->n / isa->columns;
    const int64_t half = num_whole / 2;
    int64_t p = 0;
    struct ep_native_tile tile = {
        .steps = steps, .c_stride = shape->n, .accumulate = accumulate, .stream = stream};
    tile.prefetch_bytes = panel_bytes / steps / (cut->num == 1 ? 1 : 2);
    if (cut->num == 1 && cut->height <= isa->max_rows_two) {
        for (; p < half; p++) {
            tile.x = state->x;
            tile.w[0] = w + p * panel_bytes;
            tile.w[1] = w + (half + p) * panel_bytes;
            tile.c[0] = y + p * isa->columns;
            tile.c[1] = y + (half + p) * isa->columns;
            isa->two[cut->height](&tile);
        }
        p = 2 * half;
    }
    for (; p < state->num_panels; p++) {
        int64_t row = 0;
        tile.w[0] = w + p * panel_bytes;
        for (int64_t t = 0; t < cut->num; t++) {
            const int64_t m = cut->height - (t >= cut->num_high);
            tile.x = state->x + row * steps;
            tile.c[0] = y + row * shape->n + p * isa->columns;
            tile.prefetch = tile.w[0] + prefetch_offset(cut->num, t, panel_bytes);
            if (p < num_whole) {
                isa->one[m](&tile);
            } else {
                run_edge(state, &tile, m, shape->n - p * isa->columns);
            }
            row += m;
        }
    }
}

static enum ep_status native_run(const struct ep_gemm_packed *packed, int64_t group,
                                 int64_t num_rows, const void *x, float *y)
{
    const struct native_state *state = packed->state;
    const struct ep_gemm_shape *shape = &packed->shape;
    const struct cut blocks = cut_rows(num_rows, BLOCK_ROWS);
    int64_t row = 0;
    for (int64_t b = 0; b < blocks.num; b++) {
        const int64_t rows = blocks.height - (b >= blocks.num_high);
        const struct cut tiles = cut_rows(rows, state->isa->max_rows);
        const char *w = state->matrices + group * state->matrix_bytes;
        for (int64_t first = 0; first < state->steps; first += BLOCK_STEPS) {
            const int64_t steps = minimum(BLOCK_STEPS, state->steps - first);
            int64_t done = 0;
            for (int64_t t = 0; t < tiles.num; t++) {
                const int64_t m = tiles.height - (t >= tiles.num_high);
                pack_rows(shape, x, row + done, m, first, steps, state->x + done * steps);
                done += m;
            }
            run_block(state, shape, w, steps, &tiles, first > 0, false, y + row * shape->n);
            w += steps * state->num_panels * state->isa->columns * (int64_t)sizeof(uint32_t);
        }
        row += rows;
    }
    return EP_OK;
}

/* Columns [first, first + m) of rows [row, row + num_rows) of x [..][k] as [steps][m] words: x^T. */
static void pack_columns(const struct ep_gemm_shape *shape, const void *x, int64_t row,
                         int64_t num_rows, int64_t first, int64_t m, uint32_t *to)
{
    const int64_t pair = shape->dtype == EP_FP32 ? 1 : 2;
    for (int64_t end = row + num_rows; row < end; row += pair, to += m) {
        if (shape->dtype == EP_FP32) {
            memcpy(to, (const uint32_t *)x + row * shape->k + first, (size_t)m * sizeof *to);
            continue;
        }
        const uint16_t *low = (const uint16_t *)x + row * shape->k + first;
        for (int64_t r = 0; r < m; r++) {
            to[r] = low[r] | (row + 1 < end ? (uint32_t)low[shape->k + r] << 16 : 0);
        }
    }
}

static enum ep_status reserve_steps(struct native_state *state, int64_t steps)
{
    if (steps > state->dz_steps) {
        free(state->dz);
        state->dz_steps = 0;
        state->dz = ep_gemm_alloc(steps * state->num_panels * state->isa->columns *
                                  (int64_t)sizeof *state->dz);
        if (state->dz == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for a packed gradient");
        }
        state->dz_steps = steps;
    }
    return EP_OK;
}

/* dw = x^T dz: rows of x^T times dz, which is packed like weights of k = num_rows. */
static enum ep_status native_gradient(const struct ep_gemm_packed *packed, int64_t num_rows,
                                      const void *x, const void *dz, float *dw)
{
    struct native_state *state = packed->state;
    const struct ep_gemm_shape *shape = &packed->shape;
    const struct ep_gemm_shape as_weights = {1, num_rows, shape->n, shape->dtype};
    const int64_t pair = shape->dtype == EP_FP32 ? 1 : 2;
    const int64_t all_steps = (num_rows + pair - 1) / pair;
    const struct cut blocks = cut_rows(shape->k, BLOCK_ROWS);
    const bool stream = all_steps <= GRADIENT_STEPS && shape->n % 16 == 0 &&
                        (uintptr_t)dw % 64 == 0 &&
                        ep_gemm_num_weights(shape) * (int64_t)sizeof *dw >= STREAM_BYTES;
    const enum ep_status status = reserve_steps(state, minimum(GRADIENT_STEPS, all_steps));
    for (int64_t first = 0; first < all_steps && status == EP_OK; first += GRADIENT_STEPS) {
        const int64_t steps = minimum(GRADIENT_STEPS, all_steps - first);
        const int64_t rows = minimum(steps * pair, num_rows - first * pair);
        int64_t column = 0; /* of x */
        pack_panels(state, &as_weights, dz, first, steps, state->dz);
        for (int64_t b = 0; b < blocks.num; b++) {
            const int64_t start = column;
            const int64_t height = blocks.height - (b >= blocks.num_high);
            const struct cut tiles = cut_rows(height, state->isa->max_rows);
            for (int64_t t = 0; t < tiles.num; t++) {
                const int64_t m = tiles.height - (t >= tiles.num_high);
                pack_columns(shape, x, first * pair, rows, column, m,
                             state->x + (column - start) * steps);
                column += m;
            }
            run_block(state, shape, (const char *)state->dz, steps, &tiles, first > 0, stream,
                      dw + start * shape->n);
        }
    }
    if (stream) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* streamed stores are ordered by nothing less */
    }
    return status;
}

/* The table has no room for a parameter, so each instruction set has its hooks. */
#define BACKEND(id, skip)                                                                          \
    static bool id##_available(enum ep_dtype dtype, char *reason, size_t length)              \
    {                                                                                              \
        return is_available(dtype, skip, reason, length);                                          \
    }                                                                                              \
    static enum ep_status id##_pack(const void *const *weights, struct ep_gemm_packed *packed)     \
    {                                                                                              \
        return pack(skip, weights, packed);                                                        \
    }
BACKEND(best, 0)
BACKEND(second, 1)
BACKEND(third, 2)

const struct ep_gemm_backend ep_gemm_native = {
    .name = "native",
    .summary = "own register kernels on weights packed as one or two streams",
    .available = best_available,
    .pack = best_pack,
    .run = native_run,
    .gradient = native_gradient,
    .release = native_release,
};

const struct ep_gemm_backend ep_gemm_native2 = {
    .name = "native2",
    .summary = "as native, with the CPU's second best instruction set",
    .available = second_available,
    .pack = second_pack,
    .run = native_run,
    .gradient = native_gradient,
    .release = native_release,
};

const struct ep_gemm_backend ep_gemm_native3 = {
    .name = "native3",
    .summary = "as native, with the third",
    .available = third_available,
    .pack = third_pack,
    .run = native_run,
    .gradient = native_gradient,
    .release = native_release,
};

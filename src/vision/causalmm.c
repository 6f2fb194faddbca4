/* Counterfactual weights: four entries of each head's edited map per patch. */
#include "vision/causalmm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "core/status.h"

/* Where a row or column of the grid lies between two of the map. */
struct between {
    int low, high;
    float t; /* share of `high` */
};

/* torch.nn.functional.interpolate, align_corners = false, in f32 as there. */
static struct between source_of(int i, int n, int grid) {
    const float scale = (float)n / (float)grid, at = fmaxf(scale * ((float)i + 0.5f) - 0.5f, 0.0f);
    const int low = (int)at < n - 1 ? (int)at : n - 1;
    return (struct between){low, low < n - 1 ? low + 1 : low, fminf(at - (float)low, 1.0f)};
}

struct edit {
    enum causalmm_mode mode;
    const float *map;
    int n_head, n, head;
    double highest; /* reversed: of this head */
    struct rng rng;
    uint8_t *taken; /* shuffle: [n * n], entries of this head that went somewhere */
};

static double entry(const struct edit *e, size_t row, size_t column) {
    return (double)e->map[(row * (size_t)e->n_head + (size_t)e->head) * (size_t)e->n + column];
}

static void begin_head(struct edit *e, int head) {
    const size_t n = (size_t)e->n;
    e->head = head;
    if (e->mode == CAUSALMM_REVERSED) {
        e->highest = entry(e, 0, 0);
        for (size_t i = 1; i < n * n; i++) {
            const double value = entry(e, i / n, i % n);
            e->highest = value > e->highest ? value : e->highest;
        }
    } else if (e->mode == CAUSALMM_SHUFFLE) {
        memset(e->taken, 0, n * n);
    }
}

/* The edited map at one place; to be asked once for each. */
static double edited(struct edit *e, int row, int column) {
    const size_t n = (size_t)e->n;
    if (e->mode == CAUSALMM_REVERSED) {
        return e->highest - entry(e, (size_t)row, (size_t)column);
    }
    if (e->mode == CAUSALMM_RANDOM) {
        return 2 * rng_unit(&e->rng);
    }
    size_t from;
    do {
        from = (size_t)rng_below(&e->rng, n * n);
    } while (e->taken[from]);
    e->taken[from] = 1;
    return entry(e, from / n, from % n);
}

/* The edited map between its rows y and columns x. At the end of a map of few rows both may be the same. */
static double interpolated(struct edit *e, struct between y, struct between x) {
    double corner[2][2];
    for (int r = 0; r < 2; r++) {
        for (int c = 0; c < 2; c++) {
            const bool same_row = r && y.low == y.high, same_column = c && x.low == x.high;
            corner[r][c] = same_row      ? corner[0][c]
                           : same_column ? corner[r][0]
                                         : edited(e, r ? y.high : y.low, c ? x.high : x.low);
        }
    }
    const double ty = (double)y.t, tx = (double)x.t;
    return (1 - ty) * ((1 - tx) * corner[0][0] + tx * corner[0][1]) +
           ty * ((1 - tx) * corner[1][0] + tx * corner[1][1]);
}

bool causalmm_reads_map(enum causalmm_mode mode) {
    return mode == CAUSALMM_SHUFFLE || mode == CAUSALMM_REVERSED;
}

candid_status causalmm_weights(enum causalmm_mode mode, const float *map, int n_head, int n, int grid, uint64_t seed,
                               uint64_t stream, float *out, candid_error *error) {
    /* patches whose four entries overlapped would take some of them twice */
    if (n_head < 1 || grid < 1 || n < 2 * grid || n > INT16_MAX || (!map && causalmm_reads_map(mode))) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "counterfactual attention: cannot make weights of a %d×%d grid from %d maps of %d tokens%s", grid,
                    grid, n_head, n, map ? "" : " that are not there");
    }
    const size_t n_patches = (size_t)grid * (size_t)grid;
    if (mode == CAUSALMM_UNIFORM) {
        for (size_t i = 0; i < n_patches; i++) {
            out[i] = 1.0f / (float)n;
        }
        return CANDID_OK;
    }
    struct edit e = {.mode = mode, .map = map, .n_head = n_head, .n = n};
    rng_seed_stream(&e.rng, seed, stream);
    double *sums = calloc(n_patches, sizeof *sums);
    e.taken = mode == CAUSALMM_SHUFFLE ? malloc((size_t)n * (size_t)n) : NULL;
    if (!sums || (mode == CAUSALMM_SHUFFLE && !e.taken)) {
        free(sums);
        free(e.taken);
        return fail_memory(error, "counterfactual attention", n_patches * sizeof *sums + (size_t)n * (size_t)n);
    }
    for (int head = 0; head < n_head; head++) {
        begin_head(&e, head);
        for (size_t i = 0; i < n_patches; i++) {
            const int y = (int)(i / (size_t)grid), x = (int)(i % (size_t)grid);
            sums[i] += interpolated(&e, source_of(y, n, grid), source_of(x, n, grid));
        }
    }
    for (size_t i = 0; i < n_patches; i++) {
        out[i] = (float)(sums[i] / n_head);
    }
    free(sums);
    free(e.taken);
    return CANDID_OK;
}

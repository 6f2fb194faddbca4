/*
 * Somebody else's runtime for the tests: a LLaMA decoder in plain loops that lets candid's methods in through
 * candid/plugin.h, and shares no code with candid's own forward pass. It runs lanes (rows of sequences, each with its
 * own cache) in one pass, in the ways hosts have: padded left or right, or packed into one row dimension. Include after
 * cmocka.h.
 */
#ifndef CANDID_TESTS_NAIVE_HOST_H
#define CANDID_TESTS_NAIVE_HOST_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "candid/plugin.h"
#include "model/quant.h"
#include "model/weights.h"
#include "ok.h"

#define HOST_EVERY_ABILITY 0x1ffffu

static inline void *host_memory(size_t count, size_t size) {
    void *p = calloc(count + 1, size);
    assert_non_null(p);
    return p;
}

static inline float *host_floats(size_t n) {
    return host_memory(n, sizeof(float));
}

/* ---- weights ----------------------------------------------------------------------------------- */

enum { HOST_Q, HOST_K, HOST_V, HOST_O, HOST_GATE, HOST_UP, HOST_DOWN, HOST_MATRICES };

struct naive_host {
    const struct llama_weights *w;
    float *(*layers)[HOST_MATRICES]; /* [n_layer] */
    float *embeddings, *output;
};

static inline float *host_matrix(const struct matrix *m) {
    float *out = host_floats((size_t)m->n_out * (size_t)m->n_in);
    quant_dequantize(m->type, m->data, out, (int64_t)m->n_out * m->n_in);
    return out;
}

static inline void naive_host_open(struct naive_host *h, const struct llama_weights *w) {
    *h = (struct naive_host){.w = w, .layers = host_memory((size_t)w->n_layer, sizeof *h->layers)};
    for (int l = 0; l < w->n_layer; l++) {
        const struct llama_layer *from = &w->layers[l];
        const struct matrix *all[HOST_MATRICES] = {&from->attn_q,   &from->attn_k, &from->attn_v,  &from->attn_out,
                                                   &from->ffn_gate, &from->ffn_up, &from->ffn_down};
        for (int i = 0; i < HOST_MATRICES; i++) {
            h->layers[l][i] = host_matrix(all[i]);
        }
    }
    h->embeddings = host_matrix(&w->token_embd);
    h->output = host_matrix(&w->output);
}

static inline void naive_host_close(struct naive_host *h) {
    for (int l = 0; l < h->w->n_layer; l++) {
        for (int i = 0; i < HOST_MATRICES; i++) {
            free(h->layers[l][i]);
        }
    }
    free(h->layers);
    free(h->embeddings);
    free(h->output);
}

static inline candid_host naive_host_describe(const struct naive_host *h, const char *model, int n_vision_blocks) {
    candid_host host = candid_host_default();
    host.host = "the tests' host";
    host.model = model;
    host.abilities = HOST_EVERY_ABILITY;
    host.n_layer = h->w->n_layer;
    host.n_head = h->w->n_head;
    host.n_head_kv = h->w->n_head_kv;
    host.head_dim = h->w->head_dim;
    host.n_embd = h->w->n_embd;
    host.n_vocab = h->w->n_vocab;
    host.n_vision_blocks = n_vision_blocks;
    return host;
}

/* ---- caches and lanes -------------------------------------------------------------------------- */

/* What has been run of a sequence. */
struct host_cache {
    float *k, *v; /* (n_layer, capacity, n_head_kv * head_dim) */
    int n, capacity;
    int position; /* of the next token */
};

static inline struct host_cache host_cache_make(const struct naive_host *h, int capacity) {
    const size_t size = (size_t)h->w->n_layer * (size_t)capacity * (size_t)(h->w->n_head_kv * h->w->head_dim);
    return (struct host_cache){.k = host_floats(size), .v = host_floats(size), .capacity = capacity};
}

static inline struct host_cache host_cache_copy(const struct naive_host *h, const struct host_cache *from) {
    const size_t size = (size_t)h->w->n_layer * (size_t)from->capacity * (size_t)(h->w->n_head_kv * h->w->head_dim);
    struct host_cache to = host_cache_make(h, from->capacity);
    memcpy(to.k, from->k, size * sizeof *to.k);
    memcpy(to.v, from->v, size * sizeof *to.v);
    to.n = from->n;
    to.position = from->position;
    return to;
}

static inline void host_cache_free(struct host_cache *c) {
    free(c->k);
    free(c->v);
    *c = (struct host_cache){0};
}

struct host_row {
    const float *embedding; /* [n_embd] */
    int position;
};

/* New rows of a sequence. */
struct host_lane {
    struct host_cache *cache;
    candid_sequence *sequence; /* NULL: not shown to candid */
    candid_role role;
    const struct host_row *rows;
    int n_rows;
    float *logits; /* [n_vocab] of the last row, written */
};

/* How lanes lie in the tensors. */
enum host_layout {
    HOST_LEFT,   /* a batch element each, rows and keys at the end, the rest masked: transformers */
    HOST_RIGHT,  /* … at the beginning, and nothing masked when scores are shown */
    HOST_PACKED, /* one batch element, rows behind each other, keys anywhere among the columns: llama.cpp */
    HOST_LAYOUTS
};

/* One pass on its way. */
struct host_run {
    const struct naive_host *h;
    struct host_lane *lanes;
    int n_lanes;
    enum host_layout layout;
    candid_pass *pass;           /* NULL: no lane is shown */
    int n_batch, n_rows, n_keys; /* of the tensors */
    candid_segment *segments;    /* [n_lanes] places of the lanes, shown or not */
    int32_t *columns;            /* HOST_PACKED: shuffled */
    int n_early;
    bool early_embeddings, early_normed;
    uint8_t *early_layers; /* [n_layer + 1] */
    float *early_states;   /* (n_batch, n_rows, n_early, n_embd) */
};

static inline candid_view host_view(float *data, int n_dims, const int64_t *shape) {
    candid_view view = {.struct_size = sizeof view, .data = data, .n_dims = n_dims};
    int64_t stride = 1;
    for (int i = n_dims - 1; i >= 0; i--) {
        view.shape[i] = shape[i];
        view.strides[i] = stride;
        stride *= shape[i];
    }
    return view;
}

static inline void host_show(struct host_run *r, candid_site site, int layer, float *data, int width) {
    if (r->pass) {
        const candid_view view = host_view(data, 3, (int64_t[]){r->n_batch, r->n_rows, width});
        OK(candid_pass_at(r->pass, site, layer, &view, error));
    }
}

static inline void host_show_attention(struct host_run *r, candid_site site, int layer, float *data) {
    if (r->pass) {
        const candid_view view = host_view(data, 4, (int64_t[]){r->n_batch, r->h->w->n_head, r->n_rows, r->n_keys});
        OK(candid_pass_at(r->pass, site, layer, &view, error));
    }
}

/* Where row `row` of a lane lies in tensors (n_batch, n_rows, …). */
static inline size_t host_at(const struct host_run *r, int lane, int row) {
    const candid_segment *s = &r->segments[lane];
    return (size_t)s->batch * (size_t)r->n_rows + (size_t)(s->first_row + row);
}

static inline size_t host_column(const candid_segment *s, int key) {
    return (size_t)(s->key_columns ? s->key_columns[key] : s->key_offset + key);
}

static inline void host_place(struct host_run *r) {
    const int n = r->n_lanes;
    r->segments = host_memory((size_t)n, sizeof *r->segments);
    int all_rows = 0, all_keys = 0;
    for (int i = 0; i < n; i++) {
        const int n_rows = r->lanes[i].n_rows, n_keys = r->lanes[i].cache->n + n_rows;
        assert_true(n_keys <= r->lanes[i].cache->capacity);
        all_rows += n_rows;
        all_keys += n_keys;
        r->n_rows = n_rows > r->n_rows ? n_rows : r->n_rows;
        r->n_keys = n_keys > r->n_keys ? n_keys : r->n_keys;
        r->segments[i] = (candid_segment){.struct_size = sizeof *r->segments,
                                          .sequence = r->lanes[i].sequence,
                                          .role = r->lanes[i].role,
                                          .batch = i,
                                          .n_rows = n_rows,
                                          .first_index = r->lanes[i].cache->n,
                                          .n_keys = n_keys};
    }
    r->n_batch = n;
    if (r->layout == HOST_PACKED) { /* with a few rows and columns that are nobody's */
        r->n_batch = 1;
        r->n_rows = all_rows + 2;
        r->n_keys = all_keys + 3;
        r->columns = host_memory((size_t)r->n_keys, sizeof *r->columns);
        for (int i = 0; i < r->n_keys; i++) {
            const int j = (int)((unsigned)i * 2654435761u % (unsigned)(i + 1));
            r->columns[i] = r->columns[j];
            r->columns[j] = i;
        }
    } else {
        r->n_rows += 1; /* the longest lane is padded, too */
        r->n_keys += 2;
    }
    for (int i = 0, row = 1, key = 0; i < n; i++) {
        candid_segment *s = &r->segments[i];
        if (r->layout == HOST_LEFT) {
            s->first_row = r->n_rows - s->n_rows;
            s->key_offset = r->n_keys - s->n_keys;
        } else if (r->layout == HOST_PACKED) {
            s->batch = 0;
            s->first_row = row;
            s->key_columns = r->columns + key;
        }
        row += s->n_rows;
        key += s->n_keys;
    }
}

/* The lanes that candid is told of. */
static inline void host_begin(struct host_run *r) {
    candid_segment *shown = host_memory((size_t)r->n_lanes, sizeof *shown);
    size_t n = 0;
    r->early_layers = host_memory((size_t)r->h->w->n_layer + 1, 1);
    for (int i = 0; i < r->n_lanes; i++) {
        if (!r->lanes[i].sequence) {
            continue;
        }
        shown[n++] = r->segments[i];
        candid_run run = {.struct_size = sizeof run};
        OK(candid_sequence_run(r->lanes[i].sequence, &run, error));
        if (r->lanes[i].role == CANDID_ROLE_MAIN && run.n_early > 0) {
            r->n_early = run.n_early;
            r->early_embeddings = run.early_embeddings;
            r->early_normed = run.early_normed;
            candid_sequence_wants(r->lanes[i].sequence, CANDID_ROLE_MAIN, CANDID_SITE_LOGITS,
                                  CANDID_ROWS_PROMPT | CANDID_ROWS_GENERATED, r->early_layers);
        }
    }
    if (n == 0) {
        r->pass = NULL;
    } else {
        OK(candid_pass_begin(r->pass, shown, n, error));
    }
    free(shown);
}

/* ---- arithmetic -------------------------------------------------------------------------------- */

/* Eight sums, so that the compiler may compute them side by side. */
static inline float host_dot(const float *a, const float *b, int n) {
    float sums[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++) {
            sums[j] += a[i + j] * b[i + j];
        }
    }
    float sum = 0;
    for (; i < n; i++) {
        sum += a[i] * b[i];
    }
    for (int j = 0; j < 8; j++) {
        sum += sums[j];
    }
    return sum;
}

static inline void host_product(float *out, const float *matrix, const float *x, int n_out, int n_in) {
    for (int o = 0; o < n_out; o++) {
        out[o] = host_dot(matrix + (size_t)o * (size_t)n_in, x, n_in);
    }
}

static inline void host_norm(float *out, const float *x, const float *weight, int n, float eps) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    for (int i = 0; i < n; i++) {
        out[i] = (float)((double)x[i] / sqrt(sum / n + (double)eps) * (double)weight[i]);
    }
}

static inline void host_rotate(float *head, const struct rope_params *p, int position) {
    for (int i = 0; i < p->n_dims / 2; i++) {
        float *a = &head[p->adjacent_pairs ? 2 * i : i], *b = &head[p->adjacent_pairs ? 2 * i + 1 : i + p->n_dims / 2];
        const double frequency =
            pow((double)p->base, -2.0 * i / p->n_dims) / (p->factors ? (double)p->factors[i] : 1.0);
        const double angle = position * (double)p->position_scale * frequency, x = (double)*a, y = (double)*b;
        *a = (float)(x * cos(angle) - y * sin(angle));
        *b = (float)(x * sin(angle) + y * cos(angle));
    }
}

/* ---- forward ----------------------------------------------------------------------------------- */

/* A state of an earlier layer (-1: the embeddings), for the logits that candid asks for. */
static inline void host_keep_early(struct host_run *r, int layer, const float *x) {
    const int n_embd = r->h->w->n_embd;
    if (r->n_early == 0 || !(layer < 0 ? r->early_embeddings : r->early_layers[layer])) {
        return;
    }
    int place = layer >= 0 && r->early_embeddings;
    for (int l = 0; l < layer; l++) {
        place += r->early_layers[l];
    }
    assert_true(place < r->n_early);
    for (int i = 0; i < r->n_batch * r->n_rows; i++) {
        memcpy(r->early_states + ((size_t)i * (size_t)r->n_early + (size_t)place) * (size_t)n_embd,
               x + (size_t)i * (size_t)n_embd, (size_t)n_embd * sizeof *x);
    }
}

/* Which keys a row sees. */
static inline candid_reach host_reach(const struct host_run *r, int lane, int row) {
    const struct host_lane *of = &r->lanes[lane];
    const int index = of->cache->n + row;
    candid_reach reach = {.struct_size = sizeof reach, .n_keys = index + 1};
    if (of->sequence && of->role != CANDID_ROLE_TEXT_ONLY) {
        OK(candid_sequence_reach(of->sequence, of->role, index, &reach, error));
    }
    return reach;
}

static inline bool host_sees(const candid_reach *reach, int key) {
    return key < reach->n_keys || (key >= reach->also_begin && key < reach->also_end);
}

/* a: (n_batch, n_head, n_rows, n_keys); the row of a head. */
static inline float *host_attention_row(const struct host_run *r, float *a, int lane, int row, int head) {
    const candid_segment *s = &r->segments[lane];
    return a + (((size_t)s->batch * (size_t)r->h->w->n_head + (size_t)head) * (size_t)r->n_rows +
                (size_t)(s->first_row + row)) *
                   (size_t)r->n_keys;
}

/* Scores of one row and head. */
static inline void host_score_row(struct host_run *r, int layer, int lane, int row, int head, const float *q,
                                  float *scores) {
    const struct llama_weights *w = r->h->w;
    const struct host_cache *c = r->lanes[lane].cache;
    const candid_segment *s = &r->segments[lane];
    const candid_reach reach = host_reach(r, lane, row);
    const size_t n_kv = (size_t)(w->n_head_kv * w->head_dim);
    const int at = head / (w->n_head / w->n_head_kv) * w->head_dim;
    float *to = host_attention_row(r, scores, lane, row, head);
    for (int key = 0; key < s->n_keys; key++) {
        const float *k = c->k + ((size_t)layer * (size_t)c->capacity + (size_t)key) * n_kv + at;
        const bool shown = r->layout == HOST_RIGHT || host_sees(&reach, key);
        to[host_column(s, key)] =
            shown ? host_dot(q + head * w->head_dim, k, w->head_dim) / sqrtf((float)w->head_dim) : -INFINITY;
    }
}

static inline void host_softmax_row(struct host_run *r, int lane, int row, int head, float *scores, float *probs) {
    const candid_segment *s = &r->segments[lane];
    const candid_reach reach = host_reach(r, lane, row);
    const float *from = host_attention_row(r, scores, lane, row, head);
    float *to = host_attention_row(r, probs, lane, row, head), highest = -INFINITY;
    double sum = 0;
    for (int key = 0; key < s->n_keys; key++) {
        highest = host_sees(&reach, key) ? fmaxf(highest, from[host_column(s, key)]) : highest;
    }
    for (int key = 0; key < s->n_keys; key++) {
        const size_t column = host_column(s, key);
        to[column] = host_sees(&reach, key) ? expf(from[column] - highest) : 0.0f;
        sum += (double)to[column];
    }
    for (int key = 0; key < s->n_keys; key++) {
        to[host_column(s, key)] = (float)((double)to[host_column(s, key)] / sum);
    }
}

/* heads (n_batch, n_rows, n_head * head_dim) of one layer */
static inline void host_attend(struct host_run *r, int layer, const float *x, float *heads) {
    const struct llama_weights *w = r->h->w;
    const int hd = w->head_dim, n_q = w->n_head * hd;
    const size_t n_kv = (size_t)(w->n_head_kv * hd), n_embd = (size_t)w->n_embd;
    const size_t n_a = (size_t)(r->n_batch * w->n_head * r->n_rows) * (size_t)r->n_keys;
    float *normed = host_floats(n_embd), *q = host_floats((size_t)(r->n_batch * r->n_rows * n_q)),
          *a = host_floats(n_a), *probs = host_floats(n_a);
    for (size_t i = 0; i < n_a; i++) {
        a[i] = -INFINITY; /* what belongs to no lane */
    }
    for (int i = 0; i < r->n_lanes; i++) {
        struct host_cache *c = r->lanes[i].cache;
        for (int row = 0; row < r->lanes[i].n_rows; row++) {
            const size_t slot = ((size_t)layer * (size_t)c->capacity + (size_t)(c->n + row)) * n_kv;
            float *own = q + host_at(r, i, row) * (size_t)n_q;
            host_norm(normed, x + host_at(r, i, row) * n_embd, w->layers[layer].attn_norm, w->n_embd, w->rms_eps);
            host_product(own, r->h->layers[layer][HOST_Q], normed, n_q, w->n_embd);
            host_product(c->k + slot, r->h->layers[layer][HOST_K], normed, (int)n_kv, w->n_embd);
            host_product(c->v + slot, r->h->layers[layer][HOST_V], normed, (int)n_kv, w->n_embd);
            for (int h = 0; h < w->n_head; h++) {
                host_rotate(own + h * hd, &w->rope, r->lanes[i].rows[row].position);
            }
            for (int h = 0; h < w->n_head_kv; h++) {
                host_rotate(c->k + slot + h * hd, &w->rope, r->lanes[i].rows[row].position);
            }
        }
    }
    for (int i = 0; i < r->n_lanes; i++) {
        for (int j = 0; j < r->lanes[i].n_rows * w->n_head; j++) {
            const int row = j / w->n_head;
            host_score_row(r, layer, i, row, j % w->n_head, q + host_at(r, i, row) * (size_t)n_q, a);
        }
    }
    host_show_attention(r, CANDID_SITE_ATTENTION_SCORES, layer, a);
    for (int i = 0; i < r->n_lanes; i++) {
        for (int j = 0; j < r->lanes[i].n_rows * w->n_head; j++) {
            host_softmax_row(r, i, j / w->n_head, j % w->n_head, a, probs);
        }
    }
    host_show_attention(r, CANDID_SITE_ATTENTION_PROBS, layer, probs);
    for (int i = 0; i < r->n_lanes; i++) {
        const struct host_cache *c = r->lanes[i].cache;
        for (int row = 0; row < r->lanes[i].n_rows; row++) {
            for (int h = 0; h < w->n_head; h++) {
                float *out = heads + host_at(r, i, row) * (size_t)n_q + h * hd;
                const float *p = host_attention_row(r, probs, i, row, h);
                memset(out, 0, (size_t)hd * sizeof *out);
                for (int key = 0; key < r->segments[i].n_keys; key++) {
                    const float *v = c->v + ((size_t)layer * (size_t)c->capacity + (size_t)key) * n_kv +
                                     h / (w->n_head / w->n_head_kv) * hd;
                    for (int e = 0; e < hd; e++) {
                        out[e] += p[host_column(&r->segments[i], key)] * v[e];
                    }
                }
            }
        }
    }
    free(normed), free(q), free(a), free(probs);
}

/* One layer in place; heads and mlp are work memory. */
static inline void host_layer(struct host_run *r, int l, float *x, float *heads, float *mlp) {
    const struct llama_weights *w = r->h->w;
    const size_t n_embd = (size_t)w->n_embd, n_q = (size_t)(w->n_head * w->head_dim);
    float *normed = host_floats(n_embd), *gate = host_floats((size_t)w->n_ff), *up = host_floats((size_t)w->n_ff);
    host_show(r, CANDID_SITE_BLOCK_INPUT, l, x, w->n_embd);
    host_attend(r, l, x, heads);
    host_show(r, CANDID_SITE_HEAD_OUTPUT, l, heads, (int)n_q);
    for (int i = 0; i < r->n_lanes; i++) {
        for (int row = 0; row < r->lanes[i].n_rows; row++) {
            const size_t at = host_at(r, i, row);
            host_product(normed, r->h->layers[l][HOST_O], heads + at * n_q, w->n_embd, (int)n_q);
            for (size_t d = 0; d < n_embd; d++) {
                x[at * n_embd + d] += normed[d];
            }
            host_norm(normed, x + at * n_embd, w->layers[l].ffn_norm, w->n_embd, w->rms_eps);
            host_product(gate, r->h->layers[l][HOST_GATE], normed, w->n_ff, w->n_embd);
            host_product(up, r->h->layers[l][HOST_UP], normed, w->n_ff, w->n_embd);
            for (int f = 0; f < w->n_ff; f++) {
                gate[f] = gate[f] / (1 + expf(-gate[f])) * up[f];
            }
            host_product(mlp + at * n_embd, r->h->layers[l][HOST_DOWN], gate, w->n_embd, w->n_ff);
        }
    }
    host_show(r, CANDID_SITE_MLP_OUTPUT, l, mlp, w->n_embd);
    for (int i = 0; i < r->n_lanes; i++) {
        for (int row = 0; row < r->lanes[i].n_rows; row++) {
            for (size_t d = 0; d < n_embd; d++) {
                x[host_at(r, i, row) * n_embd + d] += mlp[host_at(r, i, row) * n_embd + d];
            }
        }
    }
    host_show(r, CANDID_SITE_BLOCK_OUTPUT, l, x, w->n_embd);
    host_keep_early(r, l, x);
    free(normed), free(gate), free(up);
}

/* Final norm, logits, and those of earlier states; with HOST_LEFT of the last row only, as a host has that asks for the
 * next token. */
static inline void host_head(struct host_run *r, const float *x) {
    const struct llama_weights *w = r->h->w;
    const size_t n_embd = (size_t)w->n_embd, n_vocab = (size_t)w->n_vocab, n_early = (size_t)r->n_early;
    const int all = r->n_rows, n_rows = r->layout == HOST_LEFT ? 1 : all;
    const size_t rows = (size_t)(r->n_batch * n_rows);
    float *logits = host_floats(rows * n_vocab), *normed = host_floats(rows * n_embd), *state = host_floats(n_embd);
    float *early = host_floats(rows * n_early * n_vocab);
    for (size_t i = 0; i < rows; i++) {
        const size_t from = n_rows == 1 ? (i + 1) * (size_t)all - 1 : i;
        host_norm(normed + i * n_embd, x + from * n_embd, w->output_norm, w->n_embd, w->rms_eps);
    }
    r->n_rows = n_rows;
    host_show(r, CANDID_SITE_FINAL_NORM, w->n_layer, normed, w->n_embd);
    for (size_t i = 0; i < rows; i++) {
        const size_t from = n_rows == 1 ? (i + 1) * (size_t)all - 1 : i;
        host_product(logits + i * n_vocab, r->h->output, normed + i * n_embd, w->n_vocab, w->n_embd);
        for (size_t e = 0; e < n_early; e++) {
            memcpy(state, r->early_states + (from * n_early + e) * n_embd, n_embd * sizeof *state);
            if (r->early_normed) {
                host_norm(state, state, w->output_norm, w->n_embd, w->rms_eps);
            }
            host_product(early + (i * n_early + e) * n_vocab, r->h->output, state, w->n_vocab, w->n_embd);
        }
    }
    if (r->pass) {
        const candid_view shown = host_view(logits, 3, (int64_t[]){r->n_batch, n_rows, w->n_vocab});
        const candid_view before = host_view(early, 4, (int64_t[]){r->n_batch, n_rows, r->n_early, w->n_vocab});
        OK(candid_pass_logits(r->pass, &shown, n_early > 0 ? &before : NULL, error));
    }
    r->n_rows = all;
    for (int i = 0; i < r->n_lanes; i++) {
        const size_t at = n_rows == 1 ? (size_t)r->segments[i].batch : host_at(r, i, r->lanes[i].n_rows - 1);
        memcpy(r->lanes[i].logits, logits + at * n_vocab, n_vocab * sizeof *logits);
    }
    free(logits), free(normed), free(state), free(early);
}

/* Runs the lanes through the model and appends them to their caches. */
static inline void host_forward(const struct naive_host *h, candid_pass *pass, enum host_layout layout,
                                struct host_lane *lanes, int n_lanes) {
    const struct llama_weights *w = h->w;
    struct host_run r = {.h = h, .lanes = lanes, .n_lanes = n_lanes, .layout = layout, .pass = pass};
    host_place(&r);
    host_begin(&r);
    const size_t rows = (size_t)(r.n_batch * r.n_rows), n_embd = (size_t)w->n_embd;
    float *x = host_floats(rows * n_embd), *heads = host_floats(rows * (size_t)(w->n_head * w->head_dim));
    float *mlp = host_floats(rows * n_embd);
    r.early_states = host_floats(rows * (size_t)r.n_early * n_embd);
    for (int i = 0; i < n_lanes; i++) {
        for (int row = 0; row < lanes[i].n_rows; row++) {
            memcpy(x + host_at(&r, i, row) * n_embd, lanes[i].rows[row].embedding, n_embd * sizeof *x);
        }
    }
    host_keep_early(&r, -1, x);
    for (int l = 0; l < w->n_layer; l++) {
        host_layer(&r, l, x, heads, mlp);
    }
    host_head(&r, x);
    if (r.pass) {
        OK(candid_pass_end(r.pass, error));
    }
    for (int i = 0; i < n_lanes; i++) {
        lanes[i].cache->n += lanes[i].n_rows;
        lanes[i].cache->position = lanes[i].rows[lanes[i].n_rows - 1].position + 1;
    }
    free(x), free(heads), free(mlp);
    free(r.segments), free(r.columns), free(r.early_layers), free(r.early_states);
}

#endif

/*
 * LLaMA decoder: RMSNorm, rotary grouped-query attention over a paged KV cache, SwiGLU. llama_forward() is the model's
 * equations in order, with the sites of lm/site.h by name.
 */
#include "lm/llama.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "lm/plan_run.h"

struct llama {
    const struct llama_weights *w;
    struct backend *b;
    int max_rows, pass_rows;

    /* device buffers, rows = max_rows */
    float *x;         /* (rows, n_embd) residual stream */
    float *normed;    /* (rows, n_embd) */
    float *q;         /* (rows, n_head*head_dim) */
    float *k, *v;     /* (rows, n_head_kv*head_dim) */
    float *heads;     /* (rows, n_head*head_dim) head outputs before the output projection */
    float *projected; /* (rows, n_embd) output of a projection, added to x */
    float *gate, *up; /* (rows, n_ff) */
    float *rope;      /* (rows, rope.n_dims/2, 2) */
    float *logits;    /* (logit_rows, n_vocab) of final states, then of earlier ones; grown on demand */
    int logit_rows;
    float *mixed; /* (mixed_rows, n_embd) a plan's mix of earlier layers; made on demand */
    int mixed_rows;
    float *states; /* (state_rows, n_embd) final states, then the earlier ones plans contrast with; made on demand */
    int state_rows;
    float *saved; /* (rows, n_embd) the residual stream while an observer is shown something else; made on demand */

    /* of this batch */
    int n_wanted; /* rows whose logits are wanted */
    bool mixing;  /* one of them has a mix of earlier layers */
    int n_early;  /* earlier states that they contrast with */
    bool step;    /* no row goes on from the row before */

    /* host */
    int32_t *ids, *positions;    /* [rows] */
    struct attention_row *views; /* [rows] */
    struct plan_run run;         /* the plans of the batch's rows; run.rows [rows] */
    float *observed;             /* host copy for observers, grown on demand */
    float *early;                /* (n_early, n_vocab) logits of earlier states, grown on demand */
    size_t observed_count, early_count;
};

static candid_status device_floats(struct llama *m, size_t rows, size_t columns, float **out, candid_error *error) {
    void *memory = NULL;
    TRY(m->b->ops->alloc(m->b, rows * columns * sizeof(float), &memory, error));
    *out = memory;
    return CANDID_OK;
}

/* Buffers for max_rows rows. */
static candid_status make_buffers(struct llama *m, candid_error *error) {
    const struct llama_weights *w = m->w;
    size_t rows = (size_t)m->max_rows, n_embd = (size_t)w->n_embd, n_ff = (size_t)w->n_ff;
    size_t n_q = (size_t)w->n_head * (size_t)w->head_dim, n_kv = (size_t)w->n_head_kv * (size_t)w->head_dim;
    TRY(device_floats(m, rows, n_embd, &m->x, error));
    TRY(device_floats(m, rows, n_embd, &m->normed, error));
    TRY(device_floats(m, rows, n_q, &m->q, error));
    TRY(device_floats(m, rows, n_kv, &m->k, error));
    TRY(device_floats(m, rows, n_kv, &m->v, error));
    TRY(device_floats(m, rows, n_q, &m->heads, error));
    TRY(device_floats(m, rows, n_embd, &m->projected, error));
    TRY(device_floats(m, rows, n_ff, &m->gate, error));
    TRY(device_floats(m, rows, n_ff, &m->up, error));
    TRY(device_floats(m, rows, (size_t)w->rope.n_dims, &m->rope, error));
    m->ids = calloc(rows, sizeof *m->ids);
    m->positions = calloc(rows, sizeof *m->positions);
    m->views = calloc(rows, sizeof *m->views);
    m->run.rows = calloc(rows, sizeof *m->run.rows);
    if (!m->ids || !m->positions || !m->views || !m->run.rows) {
        return fail_memory(error, "the decoder's row tables", rows * (sizeof *m->views + sizeof *m->run.rows));
    }
    return CANDID_OK;
}

candid_status llama_create(const struct llama_weights *w, struct backend *backend, int max_rows, struct llama **out,
                           candid_error *error) {
    struct llama *m = calloc(1, sizeof *m);
    if (!m) {
        return fail_memory(error, "the decoder", sizeof *m);
    }
    m->w = w;
    m->b = backend;
    m->max_rows = m->pass_rows = max_rows;
    m->run.b = backend;
    const candid_status status = make_buffers(m, error);
    if (status != CANDID_OK) {
        llama_free(m);
        return status;
    }
    *out = m;
    return CANDID_OK;
}

static void release_buffers(struct llama *m) {
    float *device[] = {m->x,    m->normed, m->q,    m->k,      m->v,     m->heads,  m->projected,
                       m->gate, m->up,     m->rope, m->logits, m->mixed, m->states, m->saved};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        m->b->ops->release(m->b, device[i]);
    }
    free(m->ids);
    free(m->positions);
    free(m->views);
    plan_run_free(&m->run);
    free(m->observed);
    free(m->early);
}

void llama_free(struct llama *m) {
    if (m) {
        release_buffers(m);
        free(m);
    }
}

candid_status llama_reserve(struct llama *m, int n_rows, candid_error *error) {
    if (n_rows <= m->max_rows) {
        return CANDID_OK;
    }
    struct llama *larger = NULL;
    TRY(llama_create(m->w, m->b, n_rows, &larger, error));
    larger->pass_rows = m->pass_rows;
    release_buffers(m);
    *m = *larger;
    free(larger);
    return CANDID_OK;
}

int llama_max_rows(const struct llama *m) {
    return m->max_rows;
}

int llama_pass_rows(const struct llama *m) {
    return m->pass_rows;
}

static size_t matrix_bytes(const struct matrix *w) {
    return (size_t)w->n_out * quant_row_bytes(w->type, w->n_in);
}

size_t llama_weight_bytes(const struct llama_weights *w) {
    size_t bytes = matrix_bytes(&w->output);
    for (int l = 0; l < w->n_layer; l++) {
        const struct llama_layer *layer = &w->layers[l];
        const struct matrix *all[] = {&layer->attn_q,   &layer->attn_k, &layer->attn_v,  &layer->attn_out,
                                      &layer->ffn_gate, &layer->ffn_up, &layer->ffn_down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            bytes += matrix_bytes(all[i]);
        }
    }
    return bytes;
}

/* ---- sites ------------------------------------------------------------------------------------- */

static candid_status host_room(float **buffer, size_t *capacity, size_t count, candid_error *error) {
    if (count > *capacity) {
        float *grown = realloc(*buffer, count * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "activations shown or compared", count * sizeof *grown);
        }
        *buffer = grown;
        *capacity = count;
    }
    return CANDID_OK;
}

static candid_status observed_room(struct llama *m, size_t count, candid_error *error) {
    return host_room(&m->observed, &m->observed_count, count, error);
}

/* Shows device rows to the observer, if it asked for this site. */
static candid_status at_site(struct llama *m, const struct observer *o, enum site site, int layer, const float *device,
                             int n_rows, int n_cols, candid_error *error) {
    if (!observes(o, site) || n_rows == 0) {
        return CANDID_OK;
    }
    size_t count = (size_t)n_rows * (size_t)n_cols;
    TRY(observed_room(m, count, error));
    m->b->ops->download(m->b, m->observed, device, count * sizeof(float));
    o->see(o->user_data, site, layer, m->observed, n_rows, n_cols);
    return CANDID_OK;
}

/* ---- forward ----------------------------------------------------------------------------------- */

/* Checks the rows and gives each its slot in its sequence. */
static candid_status place_rows(struct llama *m, const struct forward_row *rows, int n_rows, candid_error *error) {
    if (n_rows < 1 || n_rows > m->max_rows) {
        return fail(error, CANDID_ERROR_ARGUMENT, "forward: expected 1 to %d rows, found %d", m->max_rows, n_rows);
    }
    for (int i = 0; i < n_rows; i++) {
        if (!rows[i].embedding && (rows[i].token < 0 || rows[i].token >= m->w->n_vocab)) {
            return fail(error, CANDID_ERROR_ARGUMENT, "forward: row %d: expected a token id below %d, found %d", i,
                        m->w->n_vocab, rows[i].token);
        }
    }
    for (int i = 0; i < n_rows; i++) {
        const int index = kv_next_slot(rows[i].seq);
        const bool alternative = rows[i].sees > 0 && rows[i].also_begin == index && rows[i].also_end == index + 1;
        m->views[i] = (struct attention_row){
            .index = index,
            .n_keys = rows[i].sees > 0 ? rows[i].sees : index + 1,
            .also_begin = rows[i].also_begin,
            .also_end = rows[i].also_end,
            .number = alternative ? rows[i].sees : index, /* random numbers as if it were the only one */
        };
        m->positions[i] = rows[i].position;
        m->ids[i] = rows[i].token;
    }
    for (int i = 0; i < n_rows; i++) {
        TRY(kv_reserve(rows[i].seq, rows[i].seq->pending, error));
    }
    for (int i = 0; i < n_rows; i++) {
        const struct attention_row *view = &m->views[i];
        const int there = rows[i].seq->length + rows[i].seq->pending;
        const int last = view->also_end > view->n_keys ? view->also_end : view->n_keys;
        if (last > there) {
            return fail(error, CANDID_ERROR_ARGUMENT, "forward: row %d sees %d keys, but its sequence has %d", i, last,
                        there);
        }
        m->views[i].blocks = rows[i].seq->blocks;
    }
    return CANDID_OK;
}

/* Which plan acts on which row. */
static void place_plans(struct llama *m, const struct forward_row *rows, int n_rows) {
    m->run.n_rows = n_rows;
    m->run.active = false;
    m->run.counting = true;
    for (int i = 0; i < n_rows; i++) {
        const struct plan *plan = rows[i].plan;
        const int index = m->views[i].index;
        m->run.active = m->run.active || plan;
        m->run.rows[i] = (struct plan_row){
            .plan = rows[i].plan,
            .role = rows[i].role,
            .sets = plan && rows[i].role != ROLE_TEXT_ONLY ? plan_row_sets(plan, index) : 0,
            .index = index,
            .wanted = rows[i].want_logits,
        };
    }
}

/* x = token embeddings, or the visual tokens given in their place. */
static void embed_rows(struct llama *m, const struct forward_row *rows, int n_rows) {
    size_t n_embd = (size_t)m->w->n_embd;
    for (int i = 0, end; i < n_rows; i = end) {
        end = i + 1;
        float *x = m->x + (size_t)i * n_embd;
        if (rows[i].embedding) {
            while (end < n_rows && rows[end].embedding == rows[end - 1].embedding + n_embd) {
                end++;
            }
            m->b->ops->copy(m->b, x, rows[i].embedding, (size_t)(end - i) * n_embd * sizeof(float));
        } else {
            while (end < n_rows && !rows[end].embedding) {
                end++;
            }
            m->b->ops->embed(m->b, x, &m->w->token_embd, m->ids + i, end - i);
        }
    }
}

/* Moves the rows whose logits are wanted to the front of a buffer; returns their number. */
static int keep_wanted(struct llama *m, const struct forward_row *rows, int n_rows, float *buffer, int n_cols) {
    int kept = 0;
    for (int i = 0; i < n_rows; i++) {
        if (rows[i].want_logits) {
            if (kept != i) {
                m->b->ops->copy(m->b, buffer + (size_t)kept * (size_t)n_cols, buffer + (size_t)i * (size_t)n_cols,
                                (size_t)n_cols * sizeof(float));
            }
            kept++;
        }
    }
    return kept;
}

/* The same for what is known of the rows. */
static void keep_wanted_plans(struct llama *m, const struct forward_row *rows, int n_rows) {
    int kept = 0;
    for (int i = 0; i < n_rows; i++) {
        if (rows[i].want_logits) {
            m->run.rows[kept++] = m->run.rows[i];
        }
    }
    m->run.n_rows = kept;
}

/* Attention of one layer: m->heads = softmax(q Kᵀ / sqrt(head_dim)) V, with k and v appended to the cache. */
static candid_status attend(struct llama *m, const struct forward_row *rows, int n_rows, int layer,
                            const struct observer *o, candid_error *error) {
    const struct llama_weights *w = m->w;
    const struct backend_ops *op = m->b->ops;
    struct kv_attention a = {
        .shape = kv_cache_shape(rows[0].seq->cache),
        .layer = layer,
        .n_head = w->n_head,
        .rows = m->views,
        .n_rows = n_rows,
        .scale = 1.0f / sqrtf((float)w->head_dim),
    };
    bool scores = observes(o, SITE_ATTENTION_SCORES), probs = observes(o, SITE_ATTENTION_PROBS);
    size_t count = 0;
    if (scores || probs) {
        for (int i = 0; i < n_rows; i++) {
            a.max_keys = m->views[i].n_keys > a.max_keys ? m->views[i].n_keys : a.max_keys;
            a.max_keys = m->views[i].also_end > a.max_keys ? m->views[i].also_end : a.max_keys;
        }
        count = (size_t)n_rows * (size_t)w->n_head * (size_t)a.max_keys;
        TRY(observed_room(m, 2 * count, error));
        memset(m->observed, 0, 2 * count * sizeof(float));
        a.scores_out = scores ? m->observed : NULL;
        a.probs_out = probs ? m->observed + count : NULL;
    }
    op->kv_store(m->b, &a, m->k, m->v);
    TRY(plan_at_attention(&m->run, layer, &a, m->views, m->q, error));
    TRY(op->kv_attend(m->b, &a, m->q, m->heads, error));
    plan_after_attention(&m->run, &a);
    if (scores) {
        o->see(o->user_data, SITE_ATTENTION_SCORES, layer, a.scores_out, n_rows * w->n_head, a.max_keys);
    }
    if (probs) {
        o->see(o->user_data, SITE_ATTENTION_PROBS, layer, a.probs_out, n_rows * w->n_head, a.max_keys);
    }
    return CANDID_OK;
}

/* The rest of a layer after its attention, for n_rows rows of m->x and m->heads. */
static candid_status finish_layer(struct llama *m, int l, int n_rows, candid_error *error) {
    const struct llama_weights *w = m->w;
    const struct llama_layer *layer = &w->layers[l];
    struct backend *b = m->b;
    const struct backend_ops *op = b->ops;
    const int n_embd = w->n_embd;

    /* x += Wo heads */
    struct linear_job out = {&layer->attn_out, NULL, m->projected, m->step};
    TRY(op->linear(b, m->heads, n_rows, w->n_head * w->head_dim, &out, 1, error));
    op->add(b, m->x, m->projected, (size_t)n_rows * (size_t)n_embd);

    /* x += Wdown (silu(Wgate h) * Wup h),  h = RMSNorm(x) */
    op->rms_norm(b, m->normed, m->x, layer->ffn_norm, n_rows, n_embd, w->rms_eps);
    struct linear_job gate_up[] = {{&layer->ffn_gate, NULL, m->gate, m->step}, {&layer->ffn_up, NULL, m->up, m->step}};
    TRY(op->linear(b, m->normed, n_rows, n_embd, gate_up, 2, error));
    op->silu_mul(b, m->gate, m->up, (size_t)n_rows * (size_t)w->n_ff);
    struct linear_job down = {&layer->ffn_down, NULL, m->projected, m->step};
    TRY(op->linear(b, m->gate, n_rows, w->n_ff, &down, 1, error));
    TRY(plan_at_mlp(&m->run, l, m->x, m->projected, n_embd, error)); /* site: hidden */
    op->add(b, m->x, m->projected, (size_t)n_rows * (size_t)n_embd);
    return plan_at_output(&m->run, l, m->x, n_embd, error); /* site: hidden */
}

/* m->logits = Whead RMSNorm(x). final: with what plans mix in, and beside those of earlier states, all in one product.
 */
static candid_status apply_head(struct llama *m, int n_rows, bool final, candid_error *error) {
    const struct llama_weights *w = m->w;
    const struct backend_ops *op = m->b->ops;
    const size_t n_embd = (size_t)w->n_embd;
    const float *states = m->normed;
    op->rms_norm(m->b, m->normed, m->x, w->output_norm, n_rows, w->n_embd, w->rms_eps);
    for (int i = 0; final && m->mixing && i < n_rows; i++) {
        plan_mix_final(&m->run, i, m->normed + (size_t)i * n_embd, m->mixed + (size_t)i * n_embd, w->n_embd);
    }
    if (final && m->n_early > 0) {
        op->copy(m->b, m->states, m->normed, (size_t)n_rows * n_embd * sizeof(float));
        states = m->states;
        n_rows += m->n_early;
    }
    struct linear_job head = {&w->output, NULL, m->logits, m->step};
    return op->linear(m->b, states, n_rows, w->n_embd, &head, 1, error);
}

/* Makes room for n_rows rows in a device buffer; what it held is lost. */
static candid_status device_room(struct llama *m, float **buffer, int *rows, int n_rows, int n_cols,
                                 candid_error *error) {
    if (n_rows > *rows) {
        m->b->ops->release(m->b, *buffer);
        *buffer = NULL;
        *rows = 0;
        TRY(device_floats(m, (size_t)n_rows, (size_t)n_cols, buffer, error));
        *rows = n_rows;
    }
    return CANDID_OK;
}

/* Room for the logits of the batch, and for what plans take of earlier layers. */
static candid_status start_head(struct llama *m, candid_error *error) {
    const int n_embd = m->w->n_embd, n_vocab = m->w->n_vocab;
    m->mixing = m->n_wanted > 0 && plan_mixes(&m->run);
    m->n_early = plan_early_states(&m->run);
    TRY(device_room(m, &m->logits, &m->logit_rows, m->n_wanted + m->n_early, n_vocab, error));
    if (m->mixing) {
        TRY(device_room(m, &m->mixed, &m->mixed_rows, m->n_wanted, n_embd, error));
        m->b->ops->zero(m->b, m->mixed, (size_t)m->n_wanted * (size_t)n_embd * sizeof(float));
    }
    if (m->n_early > 0) {
        TRY(device_room(m, &m->states, &m->state_rows, m->n_wanted + m->n_early, n_embd, error));
        TRY(host_room(&m->early, &m->early_count, (size_t)m->n_early * (size_t)n_vocab, error));
    }
    return CANDID_OK;
}

/* site: early_logits, what plans take of the output of layer l (-1: the embeddings) for rows whose logits are wanted */
static void keep_layer(struct llama *m, int l) {
    const struct llama_weights *w = m->w;
    if (m->mixing && l >= 0) {
        plan_mix_layer(&m->run, l, m->x, m->mixed, w->n_embd);
    }
    if (m->n_early > 0) {
        plan_keep_early(&m->run, l, m->x, m->states + (size_t)m->n_wanted * (size_t)w->n_embd, w->n_embd,
                        &(struct early_norm){w->output_norm, w->rms_eps});
    }
}

/* The final logits to host memory, changed by those of earlier states where plans contrast. */
static void take_logits(struct llama *m, float *logits) {
    const size_t n_vocab = (size_t)m->w->n_vocab, n = (size_t)m->n_wanted;
    m->b->ops->download(m->b, logits, m->logits, n * n_vocab * sizeof(float));
    if (m->n_early > 0) {
        m->b->ops->download(m->b, m->early, m->logits + n * n_vocab, (size_t)m->n_early * n_vocab * sizeof(float));
        plan_contrast(&m->run, logits, m->early, m->w->n_vocab);
    }
}

/* Keeps the residual stream aside, so that an observer can be shown what is not part of the computation. */
static candid_status save_stream(struct llama *m, int n_rows, candid_error *error) {
    const size_t n_embd = (size_t)m->w->n_embd;
    if (!m->saved) {
        TRY(device_floats(m, (size_t)m->max_rows, n_embd, &m->saved, error));
    }
    m->b->ops->copy(m->b, m->saved, m->x, (size_t)n_rows * n_embd * sizeof(float));
    return CANDID_OK;
}

static void restore_stream(struct llama *m, int n_rows) {
    m->b->ops->copy(m->b, m->x, m->saved, (size_t)n_rows * (size_t)m->w->n_embd * sizeof(float));
}

/* site: early_logits, the head on layer l's output */
static candid_status show_early_logits(struct llama *m, const struct forward_row *rows, int n_rows, int l,
                                       const struct observer *o, candid_error *error) {
    TRY(save_stream(m, n_rows, error));
    const int kept = keep_wanted(m, rows, n_rows, m->x, m->w->n_embd);
    if (kept > 0) {
        TRY(apply_head(m, kept, false, error));
        TRY(at_site(m, o, SITE_EARLY_LOGITS, l, m->logits, kept, m->w->n_vocab, error));
    }
    restore_stream(m, n_rows);
    return CANDID_OK;
}

static candid_status run_layers(struct llama *m, const struct forward_row *rows, int n_rows, const struct observer *o,
                                float *logits, candid_error *error) {
    const struct llama_weights *w = m->w;
    struct backend *b = m->b;
    const struct backend_ops *op = b->ops;
    const int n_embd = w->n_embd, n_q = w->n_head * w->head_dim;

    /* site: positions */
    op->rope_table(b, m->rope, m->positions, n_rows, &w->rope);
    if (observes(o, SITE_POSITIONS)) {
        TRY(observed_room(m, (size_t)n_rows, error));
        for (int i = 0; i < n_rows; i++) {
            m->observed[i] = (float)m->positions[i];
        }
        o->see(o->user_data, SITE_POSITIONS, -1, m->observed, n_rows, 1);
    }

    embed_rows(m, rows, n_rows);
    TRY(at_site(m, o, SITE_HIDDEN, -1, m->x, n_rows, n_embd, error));
    keep_layer(m, -1);

    for (int l = 0; l < w->n_layer; l++) {
        const struct llama_layer *layer = &w->layers[l];
        if (observer_cancels(o)) {
            return fail(error, CANDID_ERROR_CANCELLED, "cancelled in decoder layer %d", l);
        }

        /* h = RMSNorm(x);  q, k, v = Wq h, Wk h, Wv h;  q, k rotated */
        TRY(plan_at_input(&m->run, l, m->x, n_embd, error)); /* site: hidden */
        op->rms_norm(b, m->normed, m->x, layer->attn_norm, n_rows, n_embd, w->rms_eps);
        struct linear_job qkv[] = {{&layer->attn_q, NULL, m->q, m->step},
                                   {&layer->attn_k, NULL, m->k, m->step},
                                   {&layer->attn_v, NULL, m->v, m->step}};
        TRY(op->linear(b, m->normed, n_rows, n_embd, qkv, 3, error));
        op->rope(b, m->q, m->rope, n_rows, w->n_head, w->head_dim, &w->rope);
        op->rope(b, m->k, m->rope, n_rows, w->n_head_kv, w->head_dim, &w->rope);

        /* sites: attention.scores, attention.probs */
        TRY(attend(m, rows, n_rows, l, o, error));
        TRY(plan_at_heads(&m->run, l, m->heads, w->n_head, w->head_dim, error));
        TRY(at_site(m, o, SITE_HEAD_OUTPUT, l, m->heads, n_rows, n_q, error));

        if (l < w->n_layer - 1) {
            TRY(finish_layer(m, l, n_rows, error));
            TRY(at_site(m, o, SITE_HIDDEN, l, m->x, n_rows, n_embd, error));
            keep_layer(m, l);
            if (observes(o, SITE_EARLY_LOGITS)) {
                TRY(show_early_logits(m, rows, n_rows, l, o, error));
            }
            continue;
        }
        /* Past the last attention only the rows whose logits are wanted matter. An observer of the others is shown a
         * pass of its own, so that looking changes nothing. */
        if (observes(o, SITE_HIDDEN)) {
            TRY(save_stream(m, n_rows, error));
            m->run.counting = false;
            TRY(finish_layer(m, l, n_rows, error));
            m->run.counting = true;
            TRY(at_site(m, o, SITE_HIDDEN, l, m->x, n_rows, n_embd, error));
            restore_stream(m, n_rows);
        }
        keep_wanted(m, rows, n_rows, m->x, n_embd);
        keep_wanted_plans(m, rows, n_rows);
        n_rows = keep_wanted(m, rows, n_rows, m->heads, n_q);
        if (n_rows == 0) {
            return CANDID_OK;
        }
        TRY(finish_layer(m, l, n_rows, error));
    }

    /* site: early_logits;  logits = Whead RMSNorm(x), a plan may mix earlier layers in, or contrast with theirs */
    keep_layer(m, w->n_layer - 1);
    TRY(apply_head(m, n_rows, true, error));
    TRY(at_site(m, o, SITE_EARLY_LOGITS, w->n_layer - 1, m->logits, n_rows, w->n_vocab, error));
    take_logits(m, logits);
    if (observes(o, SITE_LOGITS)) {
        o->see(o->user_data, SITE_LOGITS, -1, logits, n_rows, w->n_vocab);
    }
    return CANDID_OK;
}

candid_status llama_forward(struct llama *m, const struct forward_row *rows, int n_rows,
                            const struct observer *observer, float *logits, candid_error *error) {
    m->n_wanted = 0;
    m->step = true;
    for (int i = 1; i < n_rows; i++) { /* alternatives at one place are told apart by what they see */
        m->step = m->step && (rows[i].seq != rows[i - 1].seq || rows[i].sees > 0);
    }
    for (int i = 0; i < n_rows; i++) {
        m->n_wanted += rows[i].want_logits;
    }
    candid_status status = place_rows(m, rows, n_rows, error);
    if (status == CANDID_OK) {
        place_plans(m, rows, n_rows);
        status = start_head(m, error);
    }
    if (status == CANDID_OK) {
        status = run_layers(m, rows, n_rows, observer, logits, error);
    }
    for (int i = 0; i < n_rows; i++) {
        if (status == CANDID_OK) {
            kv_commit(rows[i].seq);
        } else {
            kv_abandon(rows[i].seq);
        }
    }
    return status;
}

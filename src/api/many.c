/* candid_generate_many: requests in families that share their images and the beginning of their prompts. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "api/request.h"
#include "api/second_look.h"
#include "core/clock.h"
#include "core/status.h"
#include "decode/prefix.h"

/* Requests first .. first + n - 1 ask about the same images. */
struct family {
    size_t first;
    int n;
    float *visual_tokens;                  /* device: owned, NULL where the context's are enough */
    struct kv_seq *prefix;                 /* what the prompts have in common, or NULL */
    struct kv_seq *branches[MAX_BRANCHES]; /* the same of their branches */
    int64_t n_read;                        /* tokens of all those */
    double prefill_ms;
};

struct many {
    candid_context *c;
    const candid_request *asked;
    size_t n;
    const candid_generate_params *params;
    struct observer observer;
    struct request *requests; /* [n], the first n_prepared are */
    size_t n_prepared;
    struct family *families; /* [n_families] */
    size_t n_families;
    struct kv_cache *cache;
    struct kv_seq **seqs;    /* [n] */
    struct generation *gs;   /* [n] */
    struct generated *outs;  /* [n] */
    struct result **results; /* [n] */
    candid_sharing sharing;
};

/* An error of one request says which. */
static candid_status of_request(const struct many *m, size_t i, candid_status status, candid_error *error) {
    if (status != CANDID_OK && error && m->n > 1) {
        const candid_error inner = *error;
        return fail(error, status, "request %zu: %.460s", i, inner.message);
    }
    return status;
}

/* ---- before anything is computed ----------------------------------------------------------------- */

static candid_status check_request(const candid_request *r, candid_error *error) {
    if (!r->prompt || (r->n_images > 0 && !r->images)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s is NULL", r->prompt ? "images" : "prompt");
    }
    for (size_t i = 0; i < r->n_images; i++) {
        if (!r->images[i]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "image %zu is NULL", i);
        }
    }
    return CANDID_OK;
}

static bool same_images(const candid_request *a, const candid_request *b) {
    return a->n_images == b->n_images && a->n_images > 0 &&
           memcmp(a->images, b->images, a->n_images * sizeof *a->images) == 0;
}

static candid_status prepare_one(struct many *m, size_t i, int64_t *cache_tokens, int *max_new, candid_error *error) {
    const candid_request *asked = &m->asked[i];
    struct request *r = &m->requests[i];
    TRY(request_prepare(m->c, asked->images, asked->n_images, asked->prompt, m->params, r, error));
    m->n_prepared = i + 1;
    TRY(request_fit(m->c, r, m->params->max_new_tokens, max_new, error));
    TRY(generate_check(&r->decoding, m->c->model->tokenizer, m->c->model->llama.n_vocab, error));
    const int64_t tokens = request_cache_tokens(r, *max_new);
    /* a block begun by what is shared, and one by what follows */
    *cache_tokens += tokens > 0 ? 2 * tokens : 2 * request_length(r) + *max_new + 3 * KV_BLOCK;
    return CANDID_OK;
}

static candid_status make_room(struct many *m, candid_error *error) {
    m->requests = calloc(m->n, sizeof *m->requests);
    m->families = calloc(m->n, sizeof *m->families);
    m->seqs = calloc(m->n, sizeof *m->seqs);
    m->gs = calloc(m->n, sizeof *m->gs);
    m->outs = calloc(m->n, sizeof *m->outs);
    m->results = calloc(m->n, sizeof *m->results);
    return m->requests && m->families && m->seqs && m->gs && m->outs && m->results
               ? CANDID_OK
               : fail_memory(error, "the requests", m->n * sizeof *m->requests);
}

static candid_status prepare(struct many *m, candid_error *error) {
    int64_t cache_tokens = 0;
    TRY(make_room(m, error));
    for (size_t i = 0; i < m->n; i++) {
        TRY(of_request(m, i, prepare_one(m, i, &cache_tokens, &m->gs[i].max_new_tokens, error), error));
        if (i > 0 && same_images(&m->asked[i - 1], &m->asked[i])) {
            m->families[m->n_families - 1].n++;
        } else {
            m->families[m->n_families++] = (struct family){.first = i, .n = 1};
        }
    }
    if (cache_tokens > INT_MAX) {
        return fail(error, CANDID_ERROR_CONTEXT, "all requests together would hold %lld tokens: ask fewer at a time",
                    (long long)cache_tokens);
    }
    return kv_cache_create(m->c->backend, kv_cache_shape(m->c->kv), (int)cache_tokens, &m->cache, error);
}

/* ---- images -------------------------------------------------------------------------------------- */

/* The context keeps the visual tokens of one family; of several each keeps its own. */
static candid_status keep_tokens(struct many *m, struct family *f, candid_error *error) {
    struct request *first = &m->requests[f->first];
    size_t n = 0;
    for (size_t k = 0; k < first->n_images; k++) {
        n += (size_t)first->spans[k].n_tokens;
    }
    if (m->n_families == 1 || n == 0) {
        return CANDID_OK;
    }
    const size_t bytes = n * (size_t)m->c->model->llama.n_embd * sizeof(float);
    void *memory;
    TRY(m->c->backend->ops->alloc(m->c->backend, bytes, &memory, error));
    f->visual_tokens = memory;
    m->c->backend->ops->copy(m->c->backend, memory, m->c->visual_tokens, bytes);
    for (int i = 0; i < f->n; i++) {
        struct request *r = &first[i];
        for (int b = 0; b < r->list.n; b++) {
            if (r->branches[b].visual_tokens == m->c->visual_tokens) {
                r->branches[b].visual_tokens = f->visual_tokens;
            }
        }
        r->visual_tokens = f->visual_tokens;
    }
    return CANDID_OK;
}

static candid_status encode(struct many *m, struct family *f, candid_error *error) {
    const candid_image *const *images = m->asked[f->first].images;
    struct request *first = &m->requests[f->first];
    TRY(of_request(m, f->first, request_encode(m->c, images, first, m->params->config, &m->observer, error), error));
    for (int i = 1; i < f->n; i++) {
        TRY(of_request(m, f->first + (size_t)i,
                       request_encode_again(m->c, images, &first[i], first, m->params->config, &m->observer, error),
                       error));
    }
    m->sharing.n_encoded += (int64_t)first->n_images;
    return keep_tokens(m, f, error);
}

/* ---- what prompts have in common ----------------------------------------------------------------- */

static void prepare_generation(struct many *m, size_t i) {
    const int max_new = m->gs[i].max_new_tokens;
    struct generation g = request_generation(m->c, &m->requests[i], m->seqs[i]);
    g.seed = m->params->seed;
    g.max_new_tokens = max_new;
    g.stop = m->params->stop;
    g.n_stop = m->params->n_stop;
    g.observer = &m->observer;
    m->gs[i] = g;
}

/* Rows that each prompt keeps for itself: on the fast path a pass of few is computed by other kernels, which round
 * differently; side by side there are enough of them. */
static int least_own(const struct generation *g) {
    return generates_side_by_side(&g->decoding) ? 1 : LLAMA_FEW_ROWS + 1;
}

/* *seq: the sequence of what n prompts have in common, more than `more_than` positions, or NULL. */
static candid_status read_common(const struct many *m, const struct generation *gs, int n, int more_than,
                                 struct kv_seq **seq, struct family *f, candid_error *error) {
    const int shared = prefix_shared_by_all(gs, n, least_own(gs));
    if (shared <= more_than) {
        return CANDID_OK;
    }
    TRY(kv_seq_create(m->cache, seq, error));
    f->n_read += shared;
    return prefix_read(gs, n, shared, *seq, error);
}

static candid_status read_common_branch(struct many *m, struct family *f, int b, candid_error *error) {
    struct generation *gs = &m->gs[f->first];
    struct generation *read = calloc((size_t)f->n, sizeof *read);
    if (!read) {
        return fail_memory(error, "a branch", (size_t)f->n * sizeof *read);
    }
    for (int i = 0; i < f->n; i++) {
        read[i] = branch_reading(&gs[i], &gs[i].branches[b]);
    }
    const int with_own = prefix_shared(gs, read, LLAMA_FEW_ROWS + 1);
    const candid_status status = read_common(m, read, f->n, with_own, &f->branches[b], f, error);
    for (int i = 0; i < f->n; i++) {
        gs[i].branches[b].prefix = f->branches[b];
    }
    free(read);
    return status;
}

/* Branches that all requests of a family have, in the same order: a question may leave some out (LQCD), then none are
 * shared. */
static int common_branches(const struct many *m, const struct family *f) {
    const struct request *first = &m->requests[f->first];
    for (int i = 1; i < f->n; i++) {
        if (first[i].list.n != first->list.n) {
            return 0;
        }
    }
    return first->list.n;
}

/* Says why prompts of a family do not share all they could. */
static void explain(struct many *m, const struct family *f, int shared) {
    const struct request *r = &m->requests[f->first];
    const char *method = prefix_blocker(r->plan, shared);
    if (m->sharing.why_not[0] || !method) {
        return;
    }
    snprintf(m->sharing.why_not, sizeof m->sharing.why_not,
             "%s makes what is read of an image depend on the question: prompts were read anew for each", method);
}

static candid_status share(struct many *m, struct family *f, candid_error *error) {
    const double start = clock_ms();
    for (int i = 0; i < f->n; i++) {
        prepare_generation(m, f->first + (size_t)i);
    }
    if (f->n > 1) {
        TRY(read_common(m, &m->gs[f->first], f->n, 0, &f->prefix, f, error));
        explain(m, f, f->prefix ? f->prefix->length : 0);
        for (int b = 0; b < common_branches(m, f); b++) {
            TRY(read_common_branch(m, f, b, error));
        }
    }
    for (size_t i = f->first; i < f->first + (size_t)f->n; i++) {
        TRY(f->prefix ? kv_fork(f->prefix, &m->seqs[i], error) : kv_seq_create(m->cache, &m->seqs[i], error));
        m->gs[i].seq = m->seqs[i];
    }
    f->prefill_ms = clock_ms() - start;
    return CANDID_OK;
}

/* ---- results ------------------------------------------------------------------------------------- */

/* Tokens of the prompts and their branches, and how many of them were read for the family. */
static void count_tokens(struct many *m, const struct family *f) {
    m->sharing.n_prefilled += f->n_read;
    for (size_t i = f->first; i < f->first + (size_t)f->n; i++) {
        const struct request *r = &m->requests[i];
        m->sharing.n_prompt += request_length(r);
        m->sharing.n_prefilled += request_length(r) - (f->prefix ? f->prefix->length : 0);
        m->sharing.n_images += (int64_t)r->n_images;
        for (int b = 0; b < r->list.n; b++) {
            m->sharing.n_prompt += r->inputs[b].n_prompt;
            m->sharing.n_prefilled += r->inputs[b].n_prompt - r->inputs[b].n_shared;
        }
    }
}

static candid_status publish(struct many *m, const struct family *f, candid_error *error) {
    double load = 0, encode = 0;
    for (int i = 0; i < f->n; i++) {
        load += m->requests[f->first + (size_t)i].load_ms;
        encode += m->requests[f->first + (size_t)i].encode_ms;
    }
    for (size_t i = f->first; i < f->first + (size_t)f->n; i++) {
        struct request *r = &m->requests[i];
        m->results[i] = calloc(1, sizeof **m->results);
        if (!m->results[i]) {
            return fail_memory(error, "a result", sizeof **m->results);
        }
        r->load_ms = load / f->n;
        r->encode_ms = encode / f->n;
        m->outs[i].stats.prefill_ms += f->prefill_ms / f->n;
        m->results[i]->out = m->outs[i];
        m->outs[i] = (struct generated){0};
        TRY(request_publish(r, m->results[i], error));
        m->sharing.prefill_ms += m->results[i]->out.stats.prefill_ms;
        m->sharing.decode_ms += m->results[i]->out.stats.decode_ms;
    }
    m->sharing.load_ms += load;
    m->sharing.encode_ms += encode;
    return CANDID_OK;
}

static candid_status run(struct many *m, candid_error *error) {
    TRY(prepare(m, error));
    for (size_t f = 0; f < m->n_families; f++) {
        TRY(encode(m, &m->families[f], error));
        TRY(share(m, &m->families[f], error));
    }
    TRY(generate_many(m->gs, (int)m->n, m->outs, error));
    for (size_t f = 0; f < m->n_families; f++) {
        count_tokens(m, &m->families[f]);
        TRY(publish(m, &m->families[f], error));
    }
    return CANDID_OK;
}

static void release(struct many *m) {
    for (size_t i = 0; i < m->n && m->seqs; i++) {
        kv_seq_free(m->seqs[i]);
    }
    for (size_t i = 0; i < m->n_families; i++) {
        struct family *f = &m->families[i];
        kv_seq_free(f->prefix);
        for (int b = 0; b < MAX_BRANCHES; b++) {
            kv_seq_free(f->branches[b]);
        }
        m->c->backend->ops->release(m->c->backend, f->visual_tokens);
    }
    kv_cache_free(m->cache);
    for (size_t i = 0; i < m->n_prepared; i++) {
        request_free(&m->requests[i]);
    }
    for (size_t i = 0; i < m->n && m->outs; i++) {
        generated_free(&m->outs[i]);
    }
    for (size_t i = 0; i < m->n && m->results; i++) {
        candid_result_free(m->results[i] ? &m->results[i]->public : NULL);
    }
    free(m->requests);
    free(m->families);
    free(m->seqs);
    free(m->gs);
    free(m->outs);
    free(m->results);
}

/* ---- public -------------------------------------------------------------------------------------- */

/* One after the other, as methods that look twice must. */
static candid_status one_by_one(struct many *m, const struct look_options *options, const candid_result **out,
                                candid_error *error) {
    snprintf(m->sharing.why_not, sizeof m->sharing.why_not, "%s looks at the image again for every question",
             options->method->name);
    for (size_t i = 0; i < m->n; i++) {
        const candid_request *r = &m->asked[i];
        const candid_status status =
            candid_generate(m->c, r->images, r->n_images, r->prompt, m->params, &out[i], error);
        if (status != CANDID_OK) {
            for (size_t k = 0; k < i; k++) {
                candid_result_free(out[k]);
            }
            return of_request(m, i, status, error);
        }
        const candid_stats *s = &out[i]->stats;
        m->sharing.n_prompt += s->n_prompt;
        m->sharing.n_prefilled += s->n_prompt;
        m->sharing.n_images += (int64_t)r->n_images;
        m->sharing.n_encoded += (int64_t)r->n_images;
        m->sharing.load_ms += s->load_ms;
        m->sharing.encode_ms += s->encode_ms;
        m->sharing.prefill_ms += s->prefill_ms;
        m->sharing.decode_ms += s->decode_ms;
    }
    return CANDID_OK;
}

candid_status candid_generate_many(candid_context *c, const candid_request *requests, size_t n,
                                   const candid_generate_params *given, candid_sharing *sharing,
                                   const candid_result **out, candid_error *error) {
    if (!c || !out || (n > 0 && !requests)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_generate_many: %s is NULL",
                    !c     ? "context"
                    : !out ? "out"
                           : "requests");
    }
    candid_generate_params params = candid_generate_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(request_check_params(&params, error));
    params.on_text = NULL;
    struct many m = {.c = c,
                     .asked = requests,
                     .n = n,
                     .params = &params,
                     .observer = {.cancelled = params.should_cancel, .user_data = params.should_cancel_user_data},
                     .sharing = {.struct_size = sizeof(candid_sharing)}};
    if (sharing) { /* results must not be lost to a wrong struct_size at the end */
        TRY(params_write(sharing, &m.sharing, sizeof m.sharing, "candid_sharing", error));
    }
    if (n > INT_MAX / 2) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_generate_many: %zu requests are too many", n);
    }
    for (size_t i = 0; i < n; i++) {
        TRY(of_request(&m, i, check_request(&requests[i], error), error));
    }
    struct look_options options;
    TRY(look_options_from(params.config, &options, error));
    candid_status status = CANDID_OK;
    if (options.kind != LOOK_ONCE) {
        status = one_by_one(&m, &options, out, error);
    } else if (n > 0) {
        status = run(&m, error);
        for (size_t i = 0; status == CANDID_OK && i < n; i++) {
            out[i] = &m.results[i]->public;
            m.results[i] = NULL;
        }
        release(&m);
    }
    if (status == CANDID_OK && sharing) {
        return params_write(sharing, &m.sharing, sizeof m.sharing, "candid_sharing", error);
    }
    return status;
}

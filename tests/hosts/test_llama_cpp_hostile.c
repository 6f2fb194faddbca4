/* What hosts do that nobody foresaw: every test ends in the right numbers or in a sentence. LM and MMPROJ are the demo
 * model as llama.cpp reads it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "candid_llama_cpp.h"

#define QUESTION "Please help me describe the image in detail."
#define STEPS    12

static struct llama_model *model;
static candid_model *vision;
static candid_context *encoder;
static candid_image *image;
static int n_vocab;

/* A host with one context. */
struct host {
    candid_config *config;
    struct llama_context_params params;
    struct llama_context *ctx;
    candid_llama *candid;
    candid_context *encoder; /* NULL: the one for all */
    candid_error error;
};

#define OK(call) assert_int_equal((call), CANDID_OK)
#define FAILS(call, expected, words)                                                                                   \
    do {                                                                                                               \
        assert_int_equal((call), (expected));                                                                          \
        if (!strstr(h.error.message, words)) {                                                                         \
            fail_msg("expected a sentence with \"%s\", found: %s", words, h.error.message);                            \
        }                                                                                                              \
    } while (0)

static struct llama_context_params small_params(void) {
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = 1024;
    p.n_batch = p.n_ubatch = 128;
    p.n_seq_max = 2;
    p.n_threads = p.n_threads_batch = 1;
    p.type_k = p.type_v = GGML_TYPE_F32;
    return p;
}

/* Everything but llama_init_from_model(). methods: JSON. */
static struct host prepared(const char *methods) {
    struct host h = {.params = small_params()};
    OK(candid_config_parse(methods, strlen(methods), NULL, &h.config, &h.error));
    return h;
}

static void open_host(struct host *h) {
    const candid_llama_options options = {.struct_size = sizeof options, .n_vision_blocks = 4};
    if (candid_llama_attach(model, &h->params, h->config, &options, &h->candid, &h->error) != CANDID_OK) {
        fail_msg("%s", h->error.message);
    }
    h->ctx = llama_init_from_model(model, h->params);
    if (candid_llama_start(h->candid, h->ctx, &h->error) != CANDID_OK) {
        fail_msg("%s", h->error.message);
    }
}

static struct host opened(const char *methods) {
    struct host h = prepared(methods);
    open_host(&h);
    return h;
}

static void close_host(struct host *h) {
    llama_free(h->ctx);
    candid_llama_free(h->candid);
    candid_config_free(h->config);
}

static candid_llama_part text_part(const char *text, bool first, llama_token *room) {
    const int n = llama_tokenize(llama_model_get_vocab(model), text, (int32_t)strlen(text), room, 64, first, true);
    return (candid_llama_part){.struct_size = sizeof(candid_llama_part), .tokens = room, .n_tokens = n};
}

/* Asks and runs the prompt. */
static candid_status prompt(struct host *h) {
    llama_token room[2][64];
    const candid_llama_part parts[] = {text_part("USER: ", true, room[0]),
                                       {.struct_size = sizeof *parts},
                                       text_part("\n" QUESTION " ASSISTANT:", false, room[1])};
    const candid_image *const images[] = {image};
    candid_status status = candid_llama_ask(h->candid, QUESTION, 1, &h->error);
    if (status == CANDID_OK) {
        status = candid_llama_encode(h->candid, h->encoder ? h->encoder : encoder, images, 1, NULL, &h->error);
    }
    return status == CANDID_OK ? candid_llama_prompt(h->candid, -1, parts, 3, NULL, 0, &h->error) : status;
}

/* Logits of STEPS tokens, which are the likeliest ones or those given; after the prompt. */
struct answer {
    llama_token tokens[STEPS];
    float *logits; /* (STEPS, n_vocab) */
};

static llama_token best(const float *logits) {
    int at = 0;
    for (int i = 1; i < n_vocab; i++) {
        at = logits[i] > logits[at] ? i : at;
    }
    return at;
}

static void take(const struct host *h, struct answer *a, int step) {
    memcpy(a->logits + (size_t)step * (size_t)n_vocab, llama_get_logits_ith(h->ctx, -1),
           (size_t)n_vocab * sizeof(float));
    a->tokens[step] = best(a->logits + (size_t)step * (size_t)n_vocab);
}

static struct answer make_answer(void) {
    struct answer a = {.logits = malloc((size_t)STEPS * (size_t)n_vocab * sizeof(float))};
    assert_non_null(a.logits);
    return a;
}

static struct answer run(struct host *h) {
    struct answer a = make_answer();
    const candid_status status = prompt(h);
    if (status != CANDID_OK) {
        fail_msg("%s", h->error.message);
    }
    for (int i = 0; i < STEPS; i++) {
        take(h, &a, i);
        if (i + 1 < STEPS && candid_llama_step(h->candid, a.tokens[i], &h->error) != CANDID_OK) {
            fail_msg("%s", h->error.message);
        }
    }
    return a;
}

/* Largest difference relative to the largest logit. */
static double distance(const float *a, const float *b, size_t n) {
    double most = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)a[i]));
    }
    return most / largest;
}

static void assert_same(const struct answer *a, const struct answer *b) {
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_true(distance(a->logits, b->logits, (size_t)STEPS * (size_t)n_vocab) < 1e-5);
}

static struct answer answer_of(const char *methods) {
    struct host h = opened(methods);
    const struct answer a = run(&h);
    close_host(&h);
    return a;
}

static void put(struct llama_batch *b, llama_token token, llama_pos pos, llama_seq_id id, bool logits) {
    const int i = b->n_tokens++;
    b->token[i] = token;
    b->pos[i] = pos;
    b->n_seq_id[i] = 1;
    b->seq_id[i][0] = id;
    b->logits[i] = logits;
}

/* ---- the host's own callback ------------------------------------------------------------------- */

struct watcher {
    int asked, shown;
    bool stop; /* answers false */
};

static bool watch(struct ggml_tensor *t, bool ask, void *user) {
    struct watcher *w = user;
    if (ask) {
        w->asked++;
        return strcmp(t->name, "l_out-2") == 0;
    }
    w->shown++;
    return !w->stop;
}

static void test_own_callback(void **state) {
    (void)state;
    const struct answer expected = answer_of("{\"pai\": {\"gamma\": 1}, \"vhr\": true}");
    struct watcher w = {0};
    struct host h = prepared("{\"pai\": {\"gamma\": 1}, \"vhr\": true}");
    h.params.cb_eval = watch;
    h.params.cb_eval_user_data = &w;
    open_host(&h);
    assert_true(w.shown >= 1); /* candid_llama_start's token */
    w.shown = 0;
    const struct answer a = run(&h);
    assert_same(&expected, &a);
    assert_int_equal(w.shown, STEPS + 1); /* prompt, its companion, and all tokens but the last */
    w.stop = true;
    FAILS(candid_llama_step(h.candid, a.tokens[STEPS - 1], &h.error), CANDID_ERROR_ARGUMENT, "was not shown");
    w.stop = false;
    const struct answer again = run(&h);
    assert_same(&expected, &again);
    free(again.logits);
    free(a.logits);
    free(expected.logits);
    close_host(&h);
}

/* ---- attaching --------------------------------------------------------------------------------- */

static void test_attach_twice(void **state) {
    (void)state;
    struct host h = prepared("{\"vhr\": true}");
    candid_llama *second = NULL;
    OK(candid_llama_attach(model, &h.params, h.config, NULL, &h.candid, &h.error));
    FAILS(candid_llama_attach(model, &h.params, h.config, NULL, &second, &h.error), CANDID_ERROR_ARGUMENT,
          "attached already");
    h.ctx = llama_init_from_model(model, h.params);
    OK(candid_llama_start(h.candid, h.ctx, &h.error));
    FAILS(candid_llama_start(h.candid, h.ctx, &h.error), CANDID_ERROR_ARGUMENT, "context already");
    close_host(&h);
}

static void test_other_params(void **state) {
    (void)state;
    struct host h = prepared("{\"vhr\": true}");
    struct llama_context_params own = h.params;
    OK(candid_llama_attach(model, &h.params, h.config, NULL, &h.candid, &h.error));
    own.n_seq_max = h.params.n_seq_max;
    h.ctx = llama_init_from_model(model, own); /* without the callback */
    FAILS(candid_llama_ask(h.candid, QUESTION, 1, &h.error), CANDID_ERROR_ARGUMENT, "candid_llama_start");
    FAILS(candid_llama_start(h.candid, h.ctx, &h.error), CANDID_ERROR_UNSUPPORTED, "did not show its graph");
    FAILS(candid_llama_start(h.candid, NULL, &h.error), CANDID_ERROR_ARGUMENT, "NULL");
    close_host(&h);
}

static void test_detach(void **state) {
    (void)state;
    struct host h = opened("{\"pai\": {\"gamma\": 1}}"), plain = opened("{}");
    const struct answer expected = run(&h), bare = run(&plain);
    assert_true(distance(bare.logits, expected.logits, (size_t)n_vocab) > 1e-3); /* PAI does something */
    OK(prompt(&h));
    for (int i = 0; i < 3; i++) {
        OK(candid_llama_step(h.candid, expected.tokens[i], &h.error));
    }
    candid_llama_detach(h.candid);
    FAILS(candid_llama_step(h.candid, 5, &h.error), CANDID_ERROR_ARGUMENT, "candid_llama_prompt() comes first");
    llama_token token = expected.tokens[3];
    assert_int_equal(llama_decode(h.ctx, llama_batch_get_one(&token, 1)), 0);
    assert_true(isfinite(llama_get_logits_ith(h.ctx, -1)[0]));
    llama_memory_seq_rm(llama_get_memory(h.ctx), 0, -1, -1); /* the host's again */
    const struct answer again = run(&h);
    assert_same(&expected, &again);
    free(expected.logits);
    free(bare.logits);
    free(again.logits);
    close_host(&h);
    close_host(&plain);
}

/* ---- contexts that do not suit ----------------------------------------------------------------- */

static void test_small_ubatch(void **state) {
    (void)state;
    const char *const torn[] = {"{\"vhr\": true}", "{\"mma\": true}", "{\"cca\": true}"};
    for (int i = 0; i < 3; i++) {
        struct host h = prepared(torn[i]);
        h.params.n_batch = h.params.n_ubatch = 40;
        open_host(&h);
        FAILS(prompt(&h), CANDID_ERROR_ARGUMENT, "n_ubatch");
        close_host(&h);
    }
    const struct answer expected = answer_of("{\"pai\": {\"gamma\": 1}}");
    struct host h = prepared("{\"pai\": {\"gamma\": 1}}");
    h.params.n_batch = h.params.n_ubatch = 40;
    open_host(&h);
    const struct answer a = run(&h);
    assert_same(&expected, &a);
    free(a.logits);
    free(expected.logits);
    close_host(&h);
}

static void test_flash_attention(void **state) {
    (void)state;
    struct host h = prepared("{\"pai\": true}");
    h.params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    FAILS(candid_llama_attach(model, &h.params, h.config, NULL, &h.candid, &h.error), CANDID_ERROR_UNSUPPORTED,
          "flash attention");
    h.params = small_params();
    h.params.type_v = GGML_TYPE_Q8_0;
    FAILS(candid_llama_attach(model, &h.params, h.config, NULL, &h.candid, &h.error), CANDID_ERROR_UNSUPPORTED,
          "quantised V cache");
    close_host(&h);

    const char *const fine[] = {"{\"vhr\": true}", "{\"mma\": true}"};
    for (int i = 0; i < 2; i++) {
        const struct answer expected = answer_of(fine[i]);
        h = prepared(fine[i]);
        h.params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED; /* keys and values are f16 in it */
        open_host(&h);
        const struct answer a = run(&h);
        assert_true(distance(expected.logits, a.logits, (size_t)n_vocab) < 2e-3);
        free(a.logits);
        free(expected.logits);
        close_host(&h);
    }
    h = prepared("{}");
    h.params.embeddings = true;
    FAILS(candid_llama_attach(model, &h.params, h.config, NULL, &h.candid, &h.error), CANDID_ERROR_UNSUPPORTED,
          "embeddings");
    close_host(&h);
}

static void test_small_context(void **state) {
    (void)state;
    struct host h = prepared("{\"pai\": true}");
    h.params.n_ctx = 256;
    open_host(&h);
    candid_status status = prompt(&h);
    for (int i = 0; i < 400 && status == CANDID_OK; i++) {
        status = candid_llama_step(h.candid, 300, &h.error);
    }
    FAILS(status, CANDID_ERROR_CONTEXT, "n_ctx");
    const struct answer a = run(&h); /* and goes on with another question */
    free(a.logits);
    close_host(&h);
}

static void test_unsupported_methods(void **state) {
    (void)state;
    struct host h = prepared("{\"vcd\": true}");
    FAILS(candid_llama_attach(model, &h.params, h.config, NULL, &h.candid, &h.error), CANDID_ERROR_UNSUPPORTED,
          "pixels");
    char *text = NULL;
    OK(candid_llama_capabilities(model, &h.params, NULL, NULL, &text, &h.error));
    assert_non_null(strstr(text, "\"vhr\":{"));
    candid_string_free(text);
    close_host(&h);
}

/* ---- batches and memory ------------------------------------------------------------------------ */

/* The host's own sequence 1 in the same batches. */
static void test_two_sequences(void **state) {
    (void)state;
    struct host h = opened("{\"pai\": {\"gamma\": 1}, \"vhr\": true}"), plain = prepared("{}");
    plain.params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED; /* as the other's */
    open_host(&plain);
    const struct answer expected = run(&h);
    struct llama_batch batch = llama_batch_init(8, 0, 1);
    OK(prompt(&h));
    llama_pos pos = llama_memory_seq_pos_max(llama_get_memory(h.ctx), 0);
    for (int i = 0; i + 1 < STEPS; i++) {
        const llama_token other = 300 + i;
        batch.n_tokens = 0;
        put(&batch, other, i, 1, true);
        put(&batch, expected.tokens[i], ++pos, 0, true);
        OK(candid_llama_decode(h.candid, batch, &h.error));
        const float *logits = llama_get_logits_ith(h.ctx, 1);
        assert_true(distance(expected.logits + (size_t)(i + 1) * (size_t)n_vocab, logits, (size_t)n_vocab) < 1e-5);
        batch.n_tokens = 0;
        put(&batch, other, i, 0, true);
        OK(candid_llama_decode(plain.candid, batch, &plain.error)); /* follows nothing: llama_decode */
        assert_true(distance(llama_get_logits_ith(plain.ctx, 0), llama_get_logits_ith(h.ctx, 0), (size_t)n_vocab) <
                    1e-5);
    }
    batch.n_tokens = 0; /* a row of both */
    put(&batch, 300, pos + 1, 0, true);
    batch.n_seq_id[0] = 1;
    put(&batch, 300, pos + 2, 0, true);
    FAILS(candid_llama_decode(h.candid, batch, &h.error), CANDID_ERROR_UNSUPPORTED, "one row of each");
    llama_seq_id both[] = {0, 1}, *const own = batch.seq_id[0];
    batch.n_tokens = 1;
    batch.n_seq_id[0] = 2;
    batch.seq_id[0] = both;
    FAILS(candid_llama_decode(h.candid, batch, &h.error), CANDID_ERROR_UNSUPPORTED, "several sequences");
    batch.seq_id[0] = own;
    llama_batch_free(batch);
    free(expected.logits);
    close_host(&h);
    close_host(&plain);
}

/* Tokens are taken back, another sequence takes their cells, and they come again. */
static void test_scattered_cells(void **state) {
    (void)state;
    struct host h = opened("{\"pai\": {\"gamma\": 1}, \"vhr\": true}");
    const struct answer expected = run(&h);
    struct answer a = make_answer();
    struct llama_batch batch = llama_batch_init(8, 0, 1);
    OK(prompt(&h));
    take(&h, &a, 0);
    for (int i = 0; i + 1 < STEPS; i++) {
        OK(candid_llama_step(h.candid, 400 + i, &h.error)); /* wrong ones */
        OK(candid_llama_step(h.candid, 401 + i, &h.error));
        OK(candid_llama_rollback(h.candid, i, &h.error));
        batch.n_tokens = 0;
        put(&batch, 300 + i, i, 1, true);
        assert_int_equal(llama_decode(h.ctx, batch), 0);
        OK(candid_llama_step(h.candid, expected.tokens[i], &h.error));
        take(&h, &a, i + 1);
    }
    assert_same(&expected, &a);
    OK(candid_llama_rollback(h.candid, 3, &h.error)); /* or by the host itself */
    const llama_pos end = llama_memory_seq_pos_max(llama_get_memory(h.ctx), 0);
    OK(candid_llama_step(h.candid, 400, &h.error));
    llama_memory_seq_rm(llama_get_memory(h.ctx), 0, end + 1, -1);
    batch.n_tokens = 0;
    put(&batch, expected.tokens[3], end + 1, 0, true);
    OK(candid_llama_decode(h.candid, batch, &h.error));
    assert_true(distance(expected.logits + (size_t)4 * (size_t)n_vocab, llama_get_logits_ith(h.ctx, -1),
                         (size_t)n_vocab) < 1e-5);
    llama_batch_free(batch);
    free(expected.logits);
    free(a.logits);
    close_host(&h);
}

static void test_memory_behind_the_back(void **state) {
    (void)state;
    struct host h = opened("{\"pai\": {\"gamma\": 1}}");
    const llama_memory_t memory = llama_get_memory(h.ctx);
    const struct answer expected = run(&h);
    llama_token token = 300;
    assert_int_equal(llama_decode(h.ctx, llama_batch_get_one(&token, 1)), 0);
    FAILS(candid_llama_step(h.candid, 300, &h.error), CANDID_ERROR_ARGUMENT, "candid_llama_decode()");

    OK(prompt(&h));
    llama_memory_clear(memory, false);
    FAILS(candid_llama_step(h.candid, 300, &h.error), CANDID_ERROR_ARGUMENT, "positions up to -1");

    OK(prompt(&h)); /* saved and restored: the same positions in other cells */
    struct llama_batch batch = llama_batch_init(1, 0, 1);
    const size_t size = llama_state_seq_get_size(h.ctx, 0);
    uint8_t *saved = malloc(size);
    assert_int_equal(llama_state_seq_get_data(h.ctx, saved, size, 0), size);
    llama_memory_seq_rm(memory, 0, -1, -1);
    put(&batch, 300, 0, 1, false);
    assert_int_equal(llama_decode(h.ctx, batch), 0);
    assert_int_equal(llama_state_seq_set_data(h.ctx, saved, size, 0), size);
    candid_status status = CANDID_OK;
    for (int i = 0; i < 2 && status == CANDID_OK; i++) {
        status = candid_llama_step(h.candid, expected.tokens[i], &h.error);
    }
    FAILS(status, CANDID_ERROR_ARGUMENT, "state restored");
    free(saved);
    llama_batch_free(batch);

    const struct answer again = run(&h);
    assert_same(&expected, &again);
    free(again.logits);
    free(expected.logits);
    close_host(&h);
}

/* ---- the wrong order --------------------------------------------------------------------------- */

static void test_wrong_calls(void **state) {
    (void)state;
    struct host h = opened("{\"vhr\": true}");
    float *logits = calloc((size_t)n_vocab, sizeof *logits);
    llama_token id = n_vocab;
    const candid_llama_part bad[] = {
        {.struct_size = sizeof *bad, .tokens = &id, .n_tokens = 1},
        {.struct_size = sizeof *bad, .n_tokens = 1},
        {.struct_size = sizeof *bad, .embd = logits, .n_tokens = 1, .grid_h = 3, .grid_w = 3},
    };
    FAILS(candid_llama_step(h.candid, 5, &h.error), CANDID_ERROR_ARGUMENT, "comes first");
    FAILS(candid_llama_contrast(h.candid, logits, &h.error), CANDID_ERROR_ARGUMENT, "candid_llama_ask");
    FAILS(candid_llama_prompt(h.candid, -1, bad, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "candid_llama_ask");
    OK(candid_llama_ask(h.candid, QUESTION, 1, &h.error));
    FAILS(candid_llama_step(h.candid, 5, &h.error), CANDID_ERROR_ARGUMENT, "comes first");
    FAILS(candid_llama_prompt(h.candid, 7, bad, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "no such branch");
    FAILS(candid_llama_prompt(h.candid, -1, bad, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "expected 0 to");
    FAILS(candid_llama_prompt(h.candid, -1, bad + 1, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT,
          "candid_llama_encode() was not");
    FAILS(candid_llama_prompt(h.candid, -1, bad + 2, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "3 x 3");
    id = 5;
    FAILS(candid_llama_prompt(h.candid, -1, bad, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "images");
    OK(prompt(&h));
    FAILS(candid_llama_prompt(h.candid, 0, bad, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "no such branch");
    FAILS(candid_llama_prompt(h.candid, -1, bad, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "");
    FAILS(candid_llama_rollback(h.candid, -1, &h.error), CANDID_ERROR_ARGUMENT, "n_generated");
    candid_llama_free(NULL);
    candid_llama_detach(NULL);
    assert_null(candid_llama_sampler(NULL));
    FAILS(candid_llama_attach(NULL, NULL, NULL, NULL, NULL, &h.error), CANDID_ERROR_ARGUMENT, "NULL");
    free(logits);
    close_host(&h);
    h = opened("{\"pai\": true}");
    OK(prompt(&h));
    FAILS(candid_llama_prompt(h.candid, 0, bad, 1, NULL, 0, &h.error), CANDID_ERROR_ARGUMENT, "before the main");
    close_host(&h);
}

static void test_sampler(void **state) {
    (void)state;
    struct host h = opened("{\"pai\": true}");
    OK(prompt(&h));
    float *expected = malloc((size_t)n_vocab * sizeof *expected);
    memcpy(expected, llama_get_logits_ith(h.ctx, -1), (size_t)n_vocab * sizeof *expected);
    OK(candid_llama_contrast(h.candid, expected, &h.error));
    struct llama_sampler *chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, candid_llama_sampler(h.candid));
    llama_sampler_chain_add(chain, llama_sampler_init_greedy());
    struct llama_sampler *copy = llama_sampler_clone(chain);
    assert_int_equal(llama_sampler_sample(chain, h.ctx, -1), best(expected));
    assert_int_equal(llama_sampler_sample(copy, h.ctx, -1), best(expected));
    OK(candid_llama_step(h.candid, best(expected), &h.error));

    struct llama_sampler *wrong = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(wrong, llama_sampler_init_top_k(5));
    llama_sampler_chain_add(wrong, candid_llama_sampler(h.candid));
    llama_sampler_chain_add(wrong, llama_sampler_init_greedy());
    const llama_token token = llama_sampler_sample(wrong, h.ctx, -1);
    FAILS(candid_llama_step(h.candid, token, &h.error), CANDID_ERROR_ARGUMENT, "first in the chain");
    OK(candid_llama_step(h.candid, token, &h.error)); /* said once */
    llama_sampler_free(wrong);
    llama_sampler_free(copy);
    llama_sampler_free(chain);
    free(expected);
    close_host(&h);
}

/* ---- threads ----------------------------------------------------------------------------------- */

struct thread {
    struct host host;
    struct answer expected;
    bool same;
};

static void *answer_often(void *user) {
    struct thread *t = user;
    t->same = true;
    for (int k = 0; k < 5; k++) {
        struct answer a = make_answer();
        candid_status status = prompt(&t->host);
        for (int i = 0; i < STEPS && status == CANDID_OK; i++) {
            take(&t->host, &a, i);
            status = i + 1 < STEPS ? candid_llama_step(t->host.candid, a.tokens[i], &t->host.error) : CANDID_OK;
        }
        t->same = t->same && status == CANDID_OK &&
                  distance(t->expected.logits, a.logits, (size_t)STEPS * (size_t)n_vocab) < 1e-5;
        free(a.logits);
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    const char *const methods[] = {"{\"pai\": {\"gamma\": 1}, \"vhr\": true}", "{\"mma\": true, \"vista\": true}"};
    struct thread threads[2];
    pthread_t ids[2];
    for (int i = 0; i < 2; i++) {
        threads[i].expected = answer_of(methods[i]);
        threads[i].host = opened(methods[i]);
        OK(candid_context_create(vision, NULL, &threads[i].host.encoder, &threads[i].host.error));
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&ids[i], NULL, answer_often, &threads[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(ids[i], NULL);
        assert_true(threads[i].same);
        free(threads[i].expected.logits);
        candid_context_free(threads[i].host.encoder);
        close_host(&threads[i].host);
    }
}

/* ------------------------------------------------------------------------------------------------ */

static void quiet(enum ggml_log_level level, const char *text, void *user_data) {
    (void)level;
    (void)text;
    (void)user_data;
}

static int set_up(void **state) {
    (void)state;
    candid_error error;
    candid_model_params params = candid_model_params_default();
    params.mmproj_path = MMPROJ;
    params.precision = CANDID_PRECISION_EXACT;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    model = llama_model_load_from_file(LM, llama_model_default_params());
    if (!model || candid_model_open(LM, &params, &vision, &error) != CANDID_OK ||
        candid_context_create(vision, NULL, &encoder, &error) != CANDID_OK ||
        candid_image_load(IMAGE, &image, &error) != CANDID_OK) {
        return -1;
    }
    n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    candid_image_free(image);
    candid_context_free(encoder);
    candid_model_free(vision);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_callback),  cmocka_unit_test(test_attach_twice),
        cmocka_unit_test(test_other_params),  cmocka_unit_test(test_detach),
        cmocka_unit_test(test_small_ubatch),  cmocka_unit_test(test_flash_attention),
        cmocka_unit_test(test_small_context), cmocka_unit_test(test_unsupported_methods),
        cmocka_unit_test(test_two_sequences), cmocka_unit_test(test_scattered_cells),
        cmocka_unit_test(test_wrong_calls),   cmocka_unit_test(test_memory_behind_the_back),
        cmocka_unit_test(test_sampler),       cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

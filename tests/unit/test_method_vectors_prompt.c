/*
 * What methods make of a prompt, against the published test vectors: CCA's positions and masks, and VHR's prompt
 * without the image. A tiny decoder runs the prompt; an observer sees where each row really stands, what it is, and
 * which keys it gives attention to.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/plan_lab.h"
#include "../support/vectors.h"
#include "../support/weight_file.h"
#include "decode/prefill.h"

/* ---- a decoder for prompts of text, image, text ---- */

struct decoder {
    struct file file;
    struct llama_weights weights;
    struct backend *backend;
    struct kv_cache *kv;
    struct llama *llama;
    struct kv_seq *seq;
    struct tokenizer *tokenizer;
};

static void decoder_open(struct decoder *d, const struct tested_backend *t, int n_layer, int max_rows) {
    struct tiny_model_options o = tiny_model_options_default();
    o.vision = false;
    o.n_layer = n_layer;
    o.n_ctx = 1024;
    *d = (struct decoder){.file = make_file("tiny", &o, NULL, NULL), .backend = tested_backend_open(t)};
    assert_int_equal(llama_weights_load(d->file.gguf, &d->weights, NULL), CANDID_OK);
    const struct kv_shape shape = {n_layer, d->weights.n_head_kv, d->weights.head_dim, true};
    assert_int_equal(kv_cache_create(d->backend, &shape, 1024, &d->kv, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(d->kv, &d->seq, NULL), CANDID_OK);
    assert_int_equal(llama_create(&d->weights, d->backend, max_rows, &d->llama, NULL), CANDID_OK);
    assert_int_equal(tokenizer_create(d->file.gguf, &d->tokenizer, NULL), CANDID_OK);
}

static void decoder_close(struct decoder *d) {
    tokenizer_free(d->tokenizer);
    llama_free(d->llama);
    kv_seq_free(d->seq);
    kv_cache_free(d->kv);
    backend_destroy(d->backend);
    llama_weights_free(&d->weights);
    drop(&d->file);
}

/* A prompt with an image of h×w tokens (h 0: none) from position `begin` on, n positions in all. */
struct asked {
    int begin, h, w, n;
    struct candid_config *config;
    struct prompt prompt;
    struct prompt_chunk chunks[3];
    struct image_span span;
    float *tokens, *device; /* (h*w, n_embd) visual tokens */
    struct layout layout;
    struct plan *plan;
};

static void ask(struct asked *a, struct decoder *d, const char *json) {
    const struct model_facts facts = {.name = "",
                                      .n_layer = d->weights.n_layer,
                                      .n_head = d->weights.n_head,
                                      .n_head_kv = d->weights.n_head_kv,
                                      .head_dim = d->weights.head_dim,
                                      .n_embd = d->weights.n_embd,
                                      .n_vocab = d->weights.n_vocab};
    const int n_image = a->h * a->w, before = n_image ? a->begin : a->n, after = a->n - before - n_image;
    const size_t n_values = (size_t)n_image * (size_t)d->weights.n_embd;
    uint64_t random = 5;
    if (before > 0) {
        a->chunks[a->prompt.n_chunks++] = (struct prompt_chunk){-1, 0, (size_t)before};
    }
    if (n_image > 0) {
        a->chunks[a->prompt.n_chunks++] = (struct prompt_chunk){.image = 0};
    }
    if (after > 0) {
        a->chunks[a->prompt.n_chunks++] = (struct prompt_chunk){-1, (size_t)before, (size_t)after};
    }
    a->prompt.chunks = a->chunks;
    for (int i = 0; i < before + after; i++) {
        assert_int_equal(token_list_push(&a->prompt.tokens, 3 + i * 37 % 500, NULL), CANDID_OK);
    }
    a->config = lab_config(json);
    struct method_needs needs;
    assert_int_equal(interventions_needs(a->config, &facts, &needs, NULL), CANDID_OK);
    a->span = (struct image_span){n_image, a->h, a->w, needs.order};
    a->tokens = malloc((n_values + 1) * sizeof *a->tokens);
    assert_non_null(a->tokens);
    for (size_t i = 0; i < n_values; i++) {
        a->tokens[i] = tiny_normal(&random) / 8.0f;
    }
    a->device = device_copy(d->backend, a->tokens, n_values + 1);
    assert_int_equal(layout_from_prompt(&a->prompt, &a->span, &a->layout, NULL), CANDID_OK);
    assert_int_equal(layout_length(&a->layout), a->n);
    assert_int_equal(interventions_compile(a->config, &facts, &a->layout, NULL, 0, 0, NULL, &a->plan, NULL), CANDID_OK);
}

static void asked_free(struct asked *a, struct decoder *d) {
    d->backend->ops->release(d->backend, a->device);
    config_free(a->config);
    token_list_free(&a->prompt.tokens);
    free(a->tokens);
    layout_free(&a->layout);
    plan_free(a->plan);
}

/* What the observer saw of one pass. */
struct seen {
    int n_rows, n_wanted, n_keys, n_head;
    int position[1024];
    float *embeddings; /* (n_rows, n_embd) */
    float *probs;      /* (n_rows, n_head, n_keys) of layer 0 */
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct seen *s = user_data;
    const size_t bytes = (size_t)n_rows * (size_t)n_cols * sizeof *data;
    if (site == SITE_POSITIONS) {
        assert_true(n_rows <= 1024);
        s->n_rows = n_rows;
        for (int i = 0; i < n_rows; i++) {
            s->position[i] = (int)data[i];
        }
    } else if (site == SITE_LOGITS) {
        s->n_wanted = n_rows;
    } else if ((site == SITE_HIDDEN && layer == -1) || (site == SITE_ATTENTION_PROBS && layer == 0)) {
        float **to = site == SITE_HIDDEN ? &s->embeddings : &s->probs;
        free(*to);
        *to = malloc(bytes);
        assert_non_null(*to);
        memcpy(*to, data, bytes);
        if (site == SITE_ATTENTION_PROBS) {
            s->n_keys = n_cols;
            s->n_head = n_rows / s->n_rows;
        }
    }
}

static void seen_free(struct seen *s) {
    free(s->embeddings);
    free(s->probs);
}

#define EVERY_SITE (1u << SITE_POSITIONS | 1u << SITE_HIDDEN | 1u << SITE_ATTENTION_PROBS | 1u << SITE_LOGITS)

static struct generation generation_of(struct decoder *d, const struct asked *a, const struct observer *observer) {
    return (struct generation){.llama = d->llama,
                               .weights = &d->weights,
                               .tokenizer = d->tokenizer,
                               .seq = d->seq,
                               .prompt = &a->prompt,
                               .images = &a->span,
                               .visual_tokens = a->device,
                               .backend = d->backend,
                               .plan = a->plan,
                               .observer = observer};
}

/* Runs the prompt; returns the position of the next token. */
static int run_prompt(struct decoder *d, const struct asked *a, struct seen *s) {
    const struct observer observer = {.mask = EVERY_SITE, .see = see, .user_data = s};
    const struct generation g = generation_of(d, a, &observer);
    float *logits = malloc(3 * (size_t)d->weights.n_vocab * sizeof *logits);
    int next = -1;
    candid_error error = {CANDID_OK, ""};
    if (prefill(&g, logits, &next, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    free(logits);
    return next;
}

/* raster[i] = the place in raster order of the token stored at i, by what the rows hold. */
static void find_raster(const struct asked *a, const struct seen *s, int n_embd, int *raster) {
    const size_t bytes = (size_t)n_embd * sizeof(float);
    bool taken[1024] = {false};
    for (int i = 0; i < a->n; i++) {
        raster[i] = i;
        if (i >= a->begin && i < a->begin + a->h * a->w) {
            int cell = 0;
            while (cell < a->h * a->w && memcmp(s->embeddings + i * n_embd, a->tokens + cell * n_embd, bytes) != 0) {
                cell++;
            }
            assert_true(cell < a->h * a->w);
            raster[i] = a->begin + cell;
        }
        assert_false(taken[raster[i]]);
        taken[raster[i]] = true;
    }
}

/* ---- CCA ---- */

struct rings {
    struct asked asked;
    struct seen seen;
    int position[1024]; /* by raster index */
    uint8_t *allowed;   /* (n, n) by raster index */
    int next;
};

static void rings_run(struct rings *r, const struct tested_backend *t, const cJSON *input) {
    struct decoder d;
    const bool image = integer(input, "image_start") >= 0;
    r->asked = (struct asked){.begin = image ? integer(input, "image_start") : 0,
                              .h = image ? integer(input, "H") : 0,
                              .w = image ? integer(input, "W") : 0,
                              .n = integer(input, "n")};
    const int n = r->asked.n;
    decoder_open(&d, t, 1, n);
    ask(&r->asked, &d, "{\"cca\": true}");
    r->next = run_prompt(&d, &r->asked, &r->seen);
    assert_int_equal(r->seen.n_rows, n);
    assert_int_equal(r->seen.n_wanted, 1);
    int raster[1024];
    find_raster(&r->asked, &r->seen, d.weights.n_embd, raster);
    r->allowed = calloc((size_t)n * (size_t)n, 1);
    assert_non_null(r->allowed);
    for (int i = 0; i < n; i++) {
        r->position[raster[i]] = r->seen.position[i];
        for (int k = 0; k < n; k++) {
            bool any = false, all = true;
            for (int h = 0; h < r->seen.n_head; h++) {
                const bool sees =
                    k < r->seen.n_keys && r->seen.probs[(i * r->seen.n_head + h) * r->seen.n_keys + k] > 0;
                any = any || sees;
                all = all && sees;
            }
            assert_int_equal(any, all);
            r->allowed[raster[i] * n + raster[k]] = all;
        }
    }
    asked_free(&r->asked, &d);
    decoder_close(&d);
}

static void rings_free(struct rings *r) {
    seen_free(&r->seen);
    free(r->allowed);
}

static int ring_of(const struct asked *a, int index) {
    const int y = (index - a->begin) / a->w, x = (index - a->begin) % a->w;
    const int down = y < a->h - 1 - y ? y : a->h - 1 - y, across = x < a->w - 1 - x ? x : a->w - 1 - x;
    return down < across ? down : across;
}

/* The specification's rules, for all rows and keys. */
static void check_rules(const struct rings *r) {
    const struct asked *a = &r->asked;
    const int n_image = a->h * a->w, n_rings = ((a->h < a->w ? a->h : a->w) + 1) / 2;
    for (int q = 0; q < a->n; q++) {
        const bool q_image = q >= a->begin && q < a->begin + n_image;
        const int expected = q_image ? a->begin + ring_of(a, q) : q < a->begin + n_image ? q : q - n_image + n_rings;
        assert_int_equal(r->position[q], expected);
        for (int k = 0; k < a->n; k++) {
            const bool both = q_image && k >= a->begin && k < a->begin + n_image;
            assert_int_equal(r->allowed[q * a->n + k], both ? ring_of(a, k) <= ring_of(a, q) : k <= q);
        }
    }
    assert_int_equal(r->next, a->n - n_image + n_rings);
}

static void check_listed(const struct rings *r, const cJSON *expect) {
    const int n = r->asked.n;
    for (const cJSON *e = expect->child; e; e = e->next) {
        int count = 0, total = 0, in_image = 0, sum = 0, highest = 0;
        double *values = cJSON_IsArray(e) ? flatten(e, &count) : NULL;
        for (int i = 0; i < n * n; i++) {
            const int end = r->asked.begin + r->asked.h * r->asked.w;
            total += r->allowed[i];
            in_image +=
                r->allowed[i] && i / n >= r->asked.begin && i / n < end && i % n >= r->asked.begin && i % n < end;
        }
        for (int i = 0; i < n; i++) {
            sum += r->position[i];
            highest = r->position[i] > highest ? r->position[i] : highest;
        }
        if (strcmp(e->string, "rings") == 0) {
            for (int i = 0; i < count; i++) {
                assert_int_equal(grid_ring(i / r->asked.w, i % r->asked.w, r->asked.h, r->asked.w), (int)values[i]);
            }
        } else if (strcmp(e->string, "position_ids") == 0) {
            assert_int_equal(count, n);
            for (int i = 0; i < n; i++) {
                assert_int_equal(r->position[i], (int)values[i]);
            }
        } else if (strcmp(e->string, "allowed") == 0) {
            assert_int_equal(count, n * n);
            for (int i = 0; i < n * n; i++) {
                assert_int_equal(r->allowed[i], (int)values[i]);
            }
        } else if (strcmp(e->string, "allowed_count_per_query") == 0) {
            for (int i = 0; i < n * n; i++) {
                values[i / n] -= r->allowed[i];
            }
            for (int i = 0; i < n; i++) {
                assert_true(values[i] == 0);
            }
        } else if (strcmp(e->string, "allowed_keys") == 0) {
            for (const cJSON *row = e->child; row; row = row->next) {
                const int q = atoi(row->string);
                int left = 0;
                for (int k = 0; k < n; k++) {
                    left += r->allowed[q * n + k];
                }
                for (const cJSON *key = row->child; key; key = key->next, left--) {
                    assert_int_equal(r->allowed[q * n + key->valueint], 1);
                }
                assert_int_equal(left, 0);
            }
        } else if (strcmp(e->string, "ring_sizes") == 0) {
            for (int i = 0; i < count; i++) {
                const int outside = i > 0 ? grid_ring_end(i - 1, r->asked.h, r->asked.w) : 0;
                assert_int_equal(grid_ring_end(i, r->asked.h, r->asked.w) - outside, (int)values[i]);
            }
            assert_int_equal(count, grid_rings(r->asked.h, r->asked.w));
        } else if (strcmp(e->string, "position_of_sequence_index") == 0) {
            for (const cJSON *one = e->child; one; one = one->next) {
                assert_int_equal(r->position[atoi(one->string)], one->valueint);
            }
        } else if (strcmp(e->string, "sum_of_position_ids") == 0) {
            assert_int_equal(sum, e->valueint);
        } else if (strcmp(e->string, "allowed_total") == 0) {
            assert_int_equal(total, e->valueint);
        } else if (strcmp(e->string, "allowed_in_image_block") == 0) {
            assert_int_equal(in_image, e->valueint);
        } else if (strcmp(e->string, "first_text_after") == 0) {
            assert_int_equal(r->position[r->asked.begin + r->asked.h * r->asked.w], e->valueint);
        } else if (strcmp(e->string, "max_position") == 0) {
            assert_int_equal(highest, e->valueint);
        } else {
            fail_msg("nothing compares %s", e->string);
        }
        free(values);
    }
}

static void cca_positions_and_masks(void **state) {
    (void)state;
    static const char *const ids[] = {"cca_4x4", "cca_2x2", "cca_24x24_llava15", "cca_rect_extension", "cca_text_only"};
    for (size_t i = 0; i < N_TESTED_BACKENDS; i++) {
        for (size_t k = 0; k < sizeof ids / sizeof *ids && tested_backends[i].observes; k++) {
            const cJSON *v = vector_named("cca", ids[k]);
            struct rings r = {0};
            rings_run(&r, &tested_backends[i], member(v, "input"));
            check_listed(&r, member(v, "expect"));
            check_rules(&r);
            rings_free(&r);
        }
    }
}

/* The positions that generate() gives to tokens after a prompt of n_prompt positions; `see` keeps the last row. */
static void check_decode(const struct tested_backend *t, const cJSON *input, int n_prompt, int past, int expected) {
    struct decoder d;
    struct seen seen = {0};
    struct asked a = {.begin = 35, .h = 24, .w = 24, .n = n_prompt};
    assert_int_equal(integer(input, "K"), a.h * a.w);
    assert_int_equal(integer(input, "rings"), grid_rings(a.h, a.w));
    decoder_open(&d, t, 1, n_prompt);
    ask(&a, &d, "{\"cca\": true}");
    const struct observer observer = {.mask = EVERY_SITE, .see = see, .user_data = &seen};
    struct generation g = generation_of(&d, &a, &observer);
    struct token_list forced = {0};
    for (int i = 0; i < past - n_prompt + 2; i++) { /* the prompt's answer, then one that meets `past` entries */
        assert_int_equal(token_list_push(&forced, 40 + i, NULL), CANDID_OK);
    }
    struct generated out = {0};
    g.forced = &forced;
    g.max_new_tokens = (int)forced.count;
    g.decoding = (struct decoding){.beams = 1, .answers = 1, .top_p = 1, .repetition_penalty = 1};
    assert_int_equal(generate(&g, &out, NULL), CANDID_OK);
    assert_int_equal(d.seq->length, past + 1);
    assert_int_equal(seen.n_rows, 1);
    assert_int_equal(seen.position[0], expected);
    assert_int_equal(seen.n_keys, past + 1); /* no mask but the end of the sequence */
    for (int i = 0; i < seen.n_head * seen.n_keys; i++) {
        assert_true(seen.probs[i] > 0);
    }
    generated_free(&out);
    token_list_free(&forced);
    seen_free(&seen);
    asked_free(&a, &d);
    decoder_close(&d);
}

static void cca_decode_positions(void **state) {
    (void)state;
    const cJSON *v = vector_named("cca", "cca_decode_positions"), *input = member(v, "input");
    const cJSON *position = member(member(v, "expect"), "position")->child;
    for (const cJSON *past = member(input, "cases_past_len")->child; past;
         past = past->next, position = position->next) {
        for (size_t i = 0; i < N_TESTED_BACKENDS; i++) {
            const int n_prompt = past->valueint == 611 ? 611 : 631;
            if (tested_backends[i].observes) {
                check_decode(&tested_backends[i], input, n_prompt, past->valueint, position->valueint);
            }
        }
    }
}

/* ---- VHR ---- */

static void vhr_text_only_sequence(void **state) {
    (void)state;
    const cJSON *v = vector_named("vhr", "vhr_text_only_sequence"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect"), *kept = member(expect, "kept_indices");
    const int n_kept = cJSON_GetArraySize(kept), n = integer(input, "n_prompt");
    static const char *const configs[] = {"{\"vhr\": {\"layers\": \"all\"}}",
                                          "{\"vhr\": {\"layers\": \"all\"}, \"cca\": true}"};
    for (size_t i = 0; i < N_TESTED_BACKENDS * 2; i++) {
        struct decoder d;
        struct seen s = {0};
        struct asked a = {.begin = integer(input, "image_start"), .h = 2, .w = 2, .n = n};
        assert_int_equal(a.begin + a.h * a.w, integer(input, "image_end_exclusive"));
        decoder_open(&d, &tested_backends[i / 2], 2, 4);
        const size_t row = (size_t)d.weights.n_embd;
        ask(&a, &d, configs[i % 2]);
        run_prompt(&d, &a, &s);
        assert_int_equal(s.n_rows, n + n_kept); /* the prompt, then its companion */
        assert_int_equal(s.n_wanted, 2);
        assert_int_equal(d.seq->length, n);
        for (int k = 0; k < n_kept; k++) {
            const size_t index = (size_t)cJSON_GetArrayItem(kept, k)->valueint;
            assert_memory_equal(s.embeddings + (size_t)(n + k) * row, s.embeddings + index * row, row * sizeof(float));
            assert_int_equal(s.position[n + k], cJSON_GetArrayItem(member(expect, "positions"), k)->valueint);
        }
        /* ordinary causal attention among themselves, and the rows that are compared are the last of each */
        for (int k = 0; k < n_kept && s.probs; k++) {
            for (int key = 0; key < s.n_keys; key++) {
                assert_int_equal(s.probs[(n + k) * s.n_head * s.n_keys + key] > 0, key <= k);
            }
        }
        assert_int_equal(integer(expect, "query_index_with_image"), n - 1);
        assert_int_equal(integer(expect, "query_index_text_only"), n_kept - 1);
        const struct plan_step *scale = lab_step(a.plan, PLAN_SCALE_HEADS);
        assert_true(scale->rows_done == 2 * n && scale->prompt_rows == 2 * n); /* both layers, all rows, no companion */
        seen_free(&s);
        asked_free(&a, &d);
        decoder_close(&d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cca_positions_and_masks),
        cmocka_unit_test(cca_decode_positions),
        cmocka_unit_test(vhr_text_only_sequence),
    };
    return cmocka_run_group_tests(tests, vectors_open, vectors_close);
}

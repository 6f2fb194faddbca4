/*
 * How much the JPEG decoder moves pixels and logits: decodes each JPEG with the library of this build and compares with
 * the pixels another decoder made of it (NAME.jpg.ppm), then asks the demo model about both.
 *
 *   jpeg_difference MODEL a.jpg b.jpg …
 *
 * Not built with the project; tests/golden/measure_jpeg.sh builds and runs it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "lm/prompt.h"
#include "vision/decode.h"

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        candid_error e_ = {CANDID_OK, ""}, *error = &e_;                                                               \
        if ((call) != CANDID_OK) {                                                                                     \
            fprintf(stderr, "%s\n", e_.message);                                                                       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Logits of the first token of the caption; (n_vocab), free by the caller. */
static float *first_logits(const candid_model *m, struct backend *b, const candid_image *image) {
    struct visual *visual = NULL;
    struct visual_plan plan;
    struct kv_cache *kv = NULL;
    struct kv_seq *seq = NULL;
    struct llama *llama = NULL;
    struct prompt prompt;
    char *text = NULL;
    double load = 0, encode = 0;
    CHECK(visual_create(&m->clip, m->llama.n_embd, b, &visual, error));
    CHECK(visual_plan_make(&m->clip, CANDID_PREPROCESS_PAD, image->width, image->height, &plan, error));
    float *tokens = malloc((size_t)plan.span.n_tokens * (size_t)m->llama.n_embd * sizeof *tokens);
    CHECK(visual_encode(visual, image, &plan, tokens, NULL, &load, &encode, error));
    CHECK(prompt_render(m->conversation, "Please help me describe the image in detail.", 1, &text, error));
    CHECK(prompt_tokenize(m->tokenizer, text, &prompt, error));
    const int n = (int)prompt_length(&prompt, &plan.span);
    const struct kv_shape shape = {m->llama.n_layer, m->llama.n_head_kv, m->llama.head_dim, true};
    CHECK(kv_cache_create(b, &shape, n + 32, &kv, error));
    CHECK(kv_seq_create(kv, &seq, error));
    CHECK(llama_create(&m->llama, b, n, &llama, error));
    struct forward_row *rows = calloc((size_t)n, sizeof *rows);
    float *logits = malloc((size_t)m->llama.n_vocab * sizeof *logits);
    for (size_t c = 0, at = 0; c < prompt.n_chunks; c++) {
        const struct prompt_chunk *chunk = &prompt.chunks[c];
        const size_t count = chunk->image >= 0 ? (size_t)plan.span.n_tokens : chunk->count;
        for (size_t i = 0; i < count; i++, at++) {
            rows[at] = (struct forward_row){.seq = seq, .position = (int)at, .want_logits = (int)at == n - 1};
            if (chunk->image >= 0) {
                rows[at].embedding = tokens + i * (size_t)m->llama.n_embd;
            } else {
                rows[at].token = prompt.tokens.ids[chunk->begin + i];
            }
        }
    }
    CHECK(llama_forward(llama, rows, n, NULL, logits, error));
    free(rows);
    free(tokens);
    free(text);
    prompt_free(&prompt);
    llama_free(llama);
    kv_seq_free(seq);
    kv_cache_free(kv);
    visual_free(visual);
    return logits;
}

int main(int argc, char **argv) {
    candid_model_params params = candid_model_params_default();
    params.precision = CANDID_PRECISION_EXACT;
    candid_model *m = NULL;
    struct backend *b = NULL;
    CHECK(candid_model_open(argv[1], &params, &m, error));
    CHECK(backend_cpu_create(CANDID_PRECISION_EXACT, 2, NULL, &b, error));
    printf("this build: %s\n", jpeg_decoder_name());
    double mean = 0, worst_logits = 0, sum_logits = 0;
    int largest = 0, equal = 0;
    for (int i = 2; i < argc; i++) {
        char path[1024];
        candid_image *ours = NULL, *other = NULL;
        snprintf(path, sizeof path, "%s.ppm", argv[i]);
        CHECK(candid_image_load(argv[i], &ours, error));
        CHECK(candid_image_load(path, &other, error));
        const size_t n = 3 * (size_t)ours->width * (size_t)ours->height;
        double sum = 0, difference = 0, norm = 0;
        int most = 0;
        for (size_t k = 0; k < n; k++) {
            const int d = abs(ours->rgb[k] - other->rgb[k]);
            sum += d;
            most = d > most ? d : most;
        }
        float *x = first_logits(m, b, ours), *y = first_logits(m, b, other);
        for (int k = 0; k < m->llama.n_vocab; k++) {
            difference += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
            norm += (double)y[k] * y[k];
        }
        const double relative = sqrt(difference / norm);
        printf("%s %d×%d: pixels at most %d, mean %.4f; logits %.1e\n", argv[i], ours->width, ours->height, most,
               sum / (double)n, relative);
        mean += sum / (double)n / (argc - 2);
        sum_logits += relative / (argc - 2);
        worst_logits = relative > worst_logits ? relative : worst_logits;
        largest = most > largest ? most : largest;
        equal += most == 0;
        free(x);
        free(y);
        candid_image_free(ours);
        candid_image_free(other);
    }
    printf("%d of %d equal; pixels at most %d, mean %.4f; logits at most %.1e, mean %.1e\n", equal, argc - 2, largest,
           mean, worst_logits, sum_logits);
    backend_destroy(b);
    candid_model_free(m);
    return 0;
}

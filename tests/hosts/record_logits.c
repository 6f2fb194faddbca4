/*
 * What candid's own runtime computes, for comparison with a host that cannot live in one program with its internals:
 *
 *   record_logits LM.gguf MMPROJ.gguf OUT CONFIG|- QUESTION TOKENS f32|f16 IMAGE...
 *
 * OUT gets, per image, numbers as int32 and values as f32, little-endian: branches, n_vocab, steps; for the prompt and
 * those of the branches the number of chunks and of each its image (or -1), number of tokens, tokens; the answer's
 * tokens; (steps, n_vocab) logits it was chosen from. Exact path, greedy.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "core/status.h"
#include "decode/strategies.h"

/* What candid chose from: (n, n_vocab). The linker sends count_logits() here. */
static struct {
    float *logits;
    size_t n, n_vocab;
} seen;

void __real_count_logits(const struct generation *g, const float *logits, int n, struct generated *out);
void __wrap_count_logits(const struct generation *g, const float *logits, int n, struct generated *out);

void __wrap_count_logits(const struct generation *g, const float *logits, int n, struct generated *out) {
    const size_t width = (size_t)g->weights->n_vocab;
    seen.logits = realloc(seen.logits, (seen.n + (size_t)n) * width * sizeof *seen.logits);
    memcpy(seen.logits + seen.n * width, logits, (size_t)n * width * sizeof *logits);
    seen.n += (size_t)n;
    seen.n_vocab = width;
    __real_count_logits(g, logits, n, out);
}

static void put(FILE *file, int32_t value) {
    fwrite(&value, sizeof value, 1, file);
}

static void put_prompt(FILE *file, const struct prompt *prompt) {
    put(file, (int32_t)prompt->n_chunks);
    for (size_t i = 0; i < prompt->n_chunks; i++) {
        const struct prompt_chunk *chunk = &prompt->chunks[i];
        put(file, chunk->image);
        put(file, (int32_t)chunk->count);
        fwrite(prompt->tokens.ids + chunk->begin, sizeof(int32_t), chunk->count, file);
    }
}

static candid_status record(candid_context *context, const candid_image *image, const char *question,
                            const candid_generate_params *params, FILE *file, candid_error *error) {
    const candid_result *answer = NULL;
    struct request request;
    seen.n = 0;
    TRY(request_prepare(context, &image, 1, question, params, &request, error));
    const candid_status status = candid_generate(context, &image, 1, question, params, &answer, error);
    if (status == CANDID_OK) {
        put(file, request.list.n);
        put(file, (int32_t)seen.n_vocab);
        put(file, (int32_t)seen.n);
        put_prompt(file, &request.prompt);
        for (int b = 0; b < request.list.n; b++) {
            put_prompt(file, &request.branches[b].prompt);
        }
        fwrite(answer->tokens, sizeof(int32_t), answer->n_tokens, file);
        fwrite(seen.logits, sizeof(float), seen.n * seen.n_vocab, file);
        printf("%s\n", answer->interventions);
    }
    request_free(&request);
    candid_result_free(answer);
    return status;
}

int main(int argc, char **argv) {
    if (argc < 9) {
        fprintf(stderr, "usage: %s LM MMPROJ OUT CONFIG|- QUESTION TOKENS f32|f16 IMAGE...\n", argv[0]);
        return 2;
    }
    candid_error error = {.message = "cannot write"};
    candid_model *model = NULL;
    candid_context *context = NULL;
    candid_config *config = NULL;
    candid_model_params model_params = candid_model_params_default();
    candid_context_params context_params = candid_context_params_default();
    candid_generate_params params = candid_generate_params_default();
    model_params.mmproj_path = argv[2];
    model_params.precision = CANDID_PRECISION_EXACT;
    context_params.kv_type = strcmp(argv[7], "f16") == 0 ? CANDID_KV_F16 : CANDID_KV_F32;
    params.max_new_tokens = atoi(argv[6]);
    FILE *file = fopen(argv[3], "wb");
    candid_status status = file ? CANDID_OK : CANDID_ERROR_IO;
    if (status == CANDID_OK && strcmp(argv[4], "-") != 0) {
        status = candid_config_load(argv[4], &config, &error);
        params.config = config;
    }
    if (status == CANDID_OK) {
        status = candid_model_open(argv[1], &model_params, &model, &error);
    }
    if (status == CANDID_OK) {
        status = candid_context_create(model, &context_params, &context, &error);
    }
    for (int i = 8; i < argc && status == CANDID_OK; i++) {
        candid_image *image = NULL;
        status = candid_image_load(argv[i], &image, &error);
        status = status == CANDID_OK ? record(context, image, argv[5], &params, file, &error) : status;
        candid_image_free(image);
    }
    if (status != CANDID_OK) {
        fprintf(stderr, "%s: %s\n", candid_status_name(status), error.message);
    }
    if (file && fclose(file) != 0) {
        status = CANDID_ERROR_IO;
    }
    candid_context_free(context);
    candid_model_free(model);
    candid_config_free(config);
    free(seen.logits);
    return status == CANDID_OK ? 0 : 1;
}

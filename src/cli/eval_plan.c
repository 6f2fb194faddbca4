/* candid eval --plan: what a run would take. */
#include <stdlib.h>

#include "api/handles.h"
#include "cli/eval.h"
#include "eval/run/plan.h"
#include "interventions/config.h"
#include "lm/prompt.h"

/* What prompts become without running anything: a tokenizer is enough. */
struct plan_model {
    struct gguf *file; /* a vocabulary by itself */
    struct tokenizer *tokenizer;
    struct eval_tokens tokens;
    const char *source;
};

#define LLAVA_IMAGE_TOKENS 576

static int open_tokens(struct evaluation *e, struct plan_model *m) {
    const struct run_options *r = &e->o->run;
    candid_error error;
    *m = (struct plan_model){.tokens = {.conversation = "vicuna_v1", .image_tokens = LLAVA_IMAGE_TOKENS},
                             .source = "tokens estimated for LLaVA-1.5; --model FILE counts them"};
    candid_model_params params = candid_model_params_default();
    params.mmproj_path = r->mmproj;
    params.device = "cpu"; /* it only counts tokens */
    if (r->model && candid_model_open(r->model, &params, &e->opened, &error) == CANDID_OK) {
        m->tokens.tokenizer = e->opened->tokenizer;
        m->tokens.conversation = e->opened->conversation ? e->opened->conversation : m->tokens.conversation;
        m->tokens.image_tokens = e->opened->has_vision ? model_image_tokens(e->opened) : LLAVA_IMAGE_TOKENS;
        m->source = r->model;
    } else if (r->model) {
        if (gguf_open(r->model, &m->file, &error) != CANDID_OK ||
            tokenizer_create(m->file, &m->tokenizer, &error) != CANDID_OK) {
            complain("%s", error.message);
            return EXIT_MODEL;
        }
        m->tokens.tokenizer = m->tokenizer;
        m->source = r->model;
    }
    m->tokens.conversation = r->conversation ? r->conversation : m->tokens.conversation;
    m->tokens.image_tokens = e->o->image_tokens > 0 ? e->o->image_tokens : m->tokens.image_tokens;
    return EXIT_OK;
}

/* The active method that must read the prompt anew for each question, or NULL. */
static const char *blocker(const candid_config *config) {
    struct settings s;
    for (const struct method *const *m = methods; *m; m++) {
        if ((*m)->per_question && config_method(config, *m, &s)) {
            return (*m)->name;
        }
    }
    return NULL;
}

static int plan_one(struct evaluation *e, const struct eval_config *config, const struct eval_tokens *tokens) {
    const struct eval_prompt prompt = eval_prompt(e);
    const char *method = blocker(config->config);
    struct eval_plan p;
    candid_error error;
    if (eval_plan_make(&e->items, &e->units, &prompt, tokens, method, &p, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    printf("%s\n", config->name);
    printf("                        one at a time       candid\n");
    printf("  images encoded     %15zu %12zu   %.1f times fewer\n", p.questions, p.images,
           p.images > 0 ? (double)p.questions / (double)p.images : 0);
    printf("  questions asked    %15zu %12zu\n", p.questions, p.distinct);
    printf("  prompt tokens read %15lld %12lld   %.1f times fewer\n", (long long)p.prefill_alone, (long long)p.prefill,
           p.prefill > 0 ? (double)p.prefill_alone / (double)p.prefill : 0);
    printf("  longest prompt     %15lld\n", (long long)p.longest_prompt);
    if (method) {
        printf("  %s reads every prompt whole: only images and repeated questions are shared\n", method);
    }
    putchar('\n');
    return EXIT_OK;
}

/* What the model reads for the first question, on one line: line breaks as \n. */
static int print_first_prompt(const struct evaluation *e, const struct eval_tokens *tokens) {
    const struct eval_prompt prompt = eval_prompt(e);
    char *request = NULL, *text = NULL;
    candid_error error;
    candid_status status = eval_prompt_of(&prompt, &e->items.items[0], &request, &error);
    if (status == CANDID_OK) {
        status = prompt_render(tokens->conversation, request, 1, &text, &error);
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
    } else {
        fputs("first prompt: ", stdout);
        for (const char *at = text; *at; at++) {
            if (*at == '\n') {
                fputs("\\n", stdout);
            } else {
                putchar((unsigned char)*at < ' ' || *at == 0x7F ? '?' : *at);
            }
        }
        putchar('\n');
    }
    free(request);
    free(text);
    return status == CANDID_OK ? EXIT_OK : EXIT_ITEM;
}

int eval_plan(struct evaluation *e) {
    struct plan_model m;
    int code = open_tokens(e, &m);
    for (size_t i = 0; code == EXIT_OK && i < e->n_configs; i++) {
        code = plan_one(e, &e->configs[i], &m.tokens);
    }
    if (code == EXIT_OK && e->items.n > 0) {
        code = print_first_prompt(e, &m.tokens);
    }
    if (code == EXIT_OK) {
        printf("%d visual tokens per image; %s\n", m.tokens.image_tokens, m.source);
    }
    tokenizer_free(m.tokenizer);
    gguf_close(m.file);
    return code;
}

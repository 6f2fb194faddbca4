/* Conversation templates and the splitting of prompts at their images. */
#include "lm/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

#define PROMPT "{prompt}"
#define IMAGE  "<image>"

/* Far more than any context window holds; bounds the work for a nonsensical count. */
#define MAX_IMAGES 65536

static const struct {
    const char *name, *text;
} templates[] = {
    {"vicuna_v1", "A chat between a curious user and an artificial intelligence assistant. "
                  "The assistant gives helpful, detailed, and polite answers to the user's questions. "
                  "USER: " PROMPT " ASSISTANT:"},
    {"llava_v1", "A chat between a curious human and an artificial intelligence assistant. "
                 "The assistant gives helpful, detailed, and polite answers to the human's questions. "
                 "USER: " PROMPT " ASSISTANT:"},
    {"llava_hf", "USER: " PROMPT " ASSISTANT:"},
    {"mistral_instruct", "[INST] " PROMPT " [/INST]"},
    {"plain", PROMPT},
};

static const char *const template_names[] = {"vicuna_v1", "llava_v1", "llava_hf", "mistral_instruct", "plain", NULL};

const char *prompt_template_named(const char *name) {
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        if (strcmp(templates[i].name, name) == 0) {
            return templates[i].text;
        }
    }
    return NULL;
}

const char *const *prompt_template_names(void) {
    return template_names;
}

/* ---- rendering ---- */

struct buffer {
    char *data;
    size_t size, capacity;
};

static candid_status append(struct buffer *b, const char *text, size_t size, candid_error *error) {
    if (size >= SIZE_MAX / 4 || b->size >= SIZE_MAX / 4) {
        return fail_memory(error, "a prompt", SIZE_MAX);
    }
    if (b->size + size >= b->capacity) { /* one byte stays free for the NUL */
        const size_t capacity = 2 * (b->size + size) + 64;
        char *grown = realloc(b->data, capacity);
        if (!grown) {
            return fail_memory(error, "a prompt", capacity);
        }
        b->data = grown;
        b->capacity = capacity;
    }
    memcpy(b->data + b->size, text, size);
    b->size += size;
    b->data[b->size] = '\0';
    return CANDID_OK;
}

static size_t count_images(const char *text) {
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, IMAGE)) != NULL; at += strlen(IMAGE)) {
        n++;
    }
    return n;
}

/* Appends template text [text, text + size), each "<image>" (with a newline directly after it) `times` times. */
static candid_status append_template(struct buffer *b, const char *text, size_t size, size_t times,
                                     candid_error *error) {
    const char *end = text + size;
    while (text < end) {
        const char *place = memmem(text, (size_t)(end - text), IMAGE, strlen(IMAGE));
        if (!place) {
            return append(b, text, (size_t)(end - text), error);
        }
        TRY(append(b, text, (size_t)(place - text), error));
        text = place + strlen(IMAGE);
        text += text < end && *text == '\n';
        for (size_t i = 0; i < times; i++) {
            TRY(append(b, place, (size_t)(text - place), error));
        }
    }
    return CANDID_OK;
}

static candid_status render(struct buffer *b, const char *text, const char *request, size_t n_images,
                            candid_error *error) {
    const size_t in_template = count_images(text), in_request = count_images(request);
    size_t times = 1;
    if (in_request > 0 || n_images == 0) {
        times = 0;
    } else if (in_template == 1) {
        times = n_images;
    }
    const size_t placed = in_request > 0 ? in_request : in_template > 0 ? times * in_template : n_images;
    if (placed != n_images) {
        return fail(error, CANDID_ERROR_ARGUMENT, "the %s has places (\"" IMAGE "\") for %zu images, %zu are given",
                    in_request > 0 ? "request" : "conversation template", placed, n_images);
    }
    const char *hole = strstr(text, PROMPT);
    TRY(append_template(b, text, (size_t)(hole - text), times, error));
    for (size_t i = 0; in_template == 0 && in_request == 0 && i < n_images; i++) {
        TRY(append(b, IMAGE "\n", strlen(IMAGE "\n"), error));
    }
    TRY(append(b, request, strlen(request), error));
    const char *rest = hole + strlen(PROMPT);
    return append_template(b, rest, strlen(rest), times, error);
}

/* The start of a conversation text for a message: on one line, cut between characters. */
static const char *excerpt(const char *text, char out[72]) {
    size_t n = strlen(text);
    if (n > 60) {
        for (n = 60; n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80;) {
            n--;
        }
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (uint8_t)text[i] < ' ' ? ' ' : text[i];
    }
    strcpy(out + n, text[n] == '\0' ? "" : "…");
    return out;
}

candid_status prompt_render(const char *conversation, const char *request, size_t n_images, char **text,
                            candid_error *error) {
    const char *named = prompt_template_named(conversation ? conversation : "vicuna_v1");
    const char *used = named ? named : conversation;
    const char *hole = strstr(used, PROMPT);
    char shown[72];
    if (!hole) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "conversation \"%s\" is neither a template's name (vicuna_v1, llava_v1, llava_hf, "
                    "mistral_instruct, plain) nor a text with "
                    "\"" PROMPT "\" in it",
                    excerpt(used, shown));
    }
    if (strstr(hole + strlen(PROMPT), PROMPT)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "conversation \"%s\" has \"" PROMPT "\" more than once",
                    excerpt(used, shown));
    }
    if (n_images > MAX_IMAGES) {
        return fail(error, CANDID_ERROR_ARGUMENT, "a prompt can have %d images at most, %zu are given", MAX_IMAGES,
                    n_images);
    }
    struct buffer b = {0};
    candid_status status = render(&b, used, request, n_images, error);
    /* Taking a place out, or putting the request in, may have joined pieces to a new one. */
    if (status == CANDID_OK && count_images(b.data) != n_images) {
        status = fail(error, CANDID_ERROR_ARGUMENT,
                      "conversation \"%s\" with this request has places (\"" IMAGE "\") for %zu images, %zu are given",
                      excerpt(used, shown), count_images(b.data), n_images);
    }
    if (status != CANDID_OK) {
        free(b.data);
        return status;
    }
    *text = b.data;
    return CANDID_OK;
}

/* ---- tokenising ---- */

static candid_status tokenize_chunks(const struct tokenizer *t, const char *text, struct prompt *out,
                                     candid_error *error) {
    int image = 0;
    for (bool more = true; more;) {
        const char *place = strstr(text, IMAGE);
        const size_t size = place ? (size_t)(place - text) : strlen(text);
        const size_t begin = out->tokens.count;
        if (image == 0 && tokenizer_add_bos(t)) {
            TRY(token_list_push(&out->tokens, tokenizer_bos(t), error));
        }
        const bool add_space = image == 0 || !tokenizer_prefix_first(t);
        TRY(tokenizer_encode(t, text, size, true, add_space, &out->tokens, error));
        if (out->tokens.count > begin) {
            out->chunks[out->n_chunks++] = (struct prompt_chunk){-1, begin, out->tokens.count - begin};
        }
        more = place != NULL;
        if (more) {
            out->chunks[out->n_chunks++] = (struct prompt_chunk){image++, out->tokens.count, 0};
            text = place + strlen(IMAGE);
        }
    }
    return CANDID_OK;
}

candid_status prompt_tokenize(const struct tokenizer *t, const char *text, struct prompt *out, candid_error *error) {
    *out = (struct prompt){0};
    const size_t n_images = count_images(text);
    if (n_images > MAX_IMAGES) {
        return fail(error, CANDID_ERROR_ARGUMENT, "a prompt can have %d images at most, this one has %zu", MAX_IMAGES,
                    n_images);
    }
    const size_t bytes = (2 * n_images + 1) * sizeof *out->chunks; /* images and the texts around them */
    out->chunks = malloc(bytes);
    if (!out->chunks) {
        return fail_memory(error, "a prompt", bytes);
    }
    const candid_status status = tokenize_chunks(t, text, out, error);
    if (status != CANDID_OK) {
        prompt_free(out);
    }
    return status;
}

candid_status prompt_without_images(const struct prompt *p, struct prompt *out, candid_error *error) {
    *out = (struct prompt){0};
    out->chunks = calloc(p->n_chunks + 1, sizeof *out->chunks);
    if (!out->chunks) {
        return fail_memory(error, "a prompt", (p->n_chunks + 1) * sizeof *out->chunks);
    }
    for (size_t i = 0; i < p->n_chunks; i++) {
        const struct prompt_chunk *from = &p->chunks[i];
        if (from->image >= 0) {
            continue;
        }
        out->chunks[out->n_chunks++] = (struct prompt_chunk){-1, out->tokens.count, from->count};
        for (size_t t = 0; t < from->count; t++) {
            const candid_status status = token_list_push(&out->tokens, p->tokens.ids[from->begin + t], error);
            if (status != CANDID_OK) {
                prompt_free(out);
                return status;
            }
        }
    }
    return CANDID_OK;
}

candid_status prompt_replace_system(const char *conversation, const char *system, char **out, candid_error *error) {
    const char *named = prompt_template_named(conversation ? conversation : "vicuna_v1");
    const char *text = named ? named : conversation;
    const char *hole = strstr(text, PROMPT), *role = strstr(text, "USER:");
    const char *rest = role && (!hole || role < hole) ? role : text;
    const size_t size = strlen(system) + strlen(rest) + 2;
    *out = malloc(size);
    if (!*out) {
        return fail_memory(error, "a prompt", size);
    }
    strcpy(*out, system);
    strcat(*out, " ");
    strcat(*out, rest);
    return CANDID_OK;
}

void prompt_free(struct prompt *p) {
    if (p) {
        token_list_free(&p->tokens);
        free(p->chunks);
        *p = (struct prompt){0};
    }
}

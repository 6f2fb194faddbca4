#include "eval/chair/objects.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

static const char *const mode_names[N_CHAIR_MODES] = {"nltk38", "nltk39", "pattern", "approximate"};

const char *chair_mode_name(enum chair_mode mode) {
    return mode_names[mode];
}

bool chair_mode_find(const char *name, enum chair_mode *out) {
    for (int i = 0; i < N_CHAIR_MODES; i++) {
        if (strcmp(name, mode_names[i]) == 0) {
            *out = (enum chair_mode)i;
            return true;
        }
    }
    return false;
}

struct merged_word {
    uint16_t id;
    uint32_t first_token, n_tokens;
};

static candid_status reserve(struct chair_language *language, struct chair_objects *out, candid_error *error) {
    const size_t n = language->words.n;
    if (n > language->capacity) {
        uint8_t *classes = realloc(language->classes, 2 * n);
        language->classes = classes ? classes : language->classes;
        struct merged_word *merged = realloc(language->merged, 2 * n * sizeof *merged);
        language->merged = merged ? merged : language->merged;
        if (!classes || !merged) {
            return fail_memory(error, "the words of a caption", 2 * n * sizeof *merged);
        }
        language->capacity = 2 * n;
    }
    if (n > out->capacity) {
        struct chair_mention *grown = realloc(out->mentions, 2 * n * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "the objects of a caption", 2 * n * sizeof *grown);
        }
        out->mentions = grown;
        out->capacity = 2 * n;
    }
    return CANDID_OK;
}

static uint16_t word_id(const struct chair_language *language, size_t token) {
    const char *word = word_at(&language->words, token);
    return language->mode == CHAIR_PATTERN
               ? vocabulary_singular(language->vocabulary, word)
               : vocabulary_lemma(language->vocabulary, word, (enum word_class)language->classes[token]);
}

/* Words, two at a time where they are a name; returns their number. */
static size_t merge(struct chair_language *language) {
    const size_t n = language->words.n;
    size_t n_merged = 0;
    uint16_t next = n > 0 ? word_id(language, 0) : 0;
    for (size_t i = 0; i < n;) {
        const uint16_t id = next;
        next = i + 1 < n ? word_id(language, i + 1) : 0;
        const uint16_t pair = vocabulary_pair(language->vocabulary, id, next);
        language->merged[n_merged++] = (struct merged_word){pair ? pair : id, (uint32_t)i, pair ? 2 : 1};
        i += pair ? 2 : 1;
        if (pair) {
            next = i < n ? word_id(language, i) : 0;
        }
    }
    return n_merged;
}

static bool has_word(const struct chair_language *language, size_t n, uint16_t id) {
    for (size_t i = 0; i < n && id > 0; i++) {
        if (language->merged[i].id == id) {
            return true;
        }
    }
    return false;
}

candid_status chair_find_objects(struct chair_language *language, const char *caption, struct chair_objects *out,
                                 candid_error *error) {
    language->tokenizer.rules = language->mode == CHAIR_NLTK39 ? TOKENIZER_NLTK39 : TOKENIZER_NLTK38;
    TRY(tokenize(&language->tokenizer, caption, &language->words, error));
    TRY(reserve(language, out, error));
    const bool tagged = language->mode == CHAIR_NLTK38 || language->mode == CHAIR_NLTK39;
    if (tagged && !language->tagger) {
        return fail(error, CANDID_ERROR_ARGUMENT, "mode %s needs a part-of-speech tagger",
                    chair_mode_name(language->mode));
    }
    if (tagged) {
        TRY(language->tagger->classify(language->tagger->context, &language->words, language->classes, error));
    } else if (language->words.n > 0) {
        memset(language->classes, WORD_NOUN, language->words.n);
    }
    const size_t n = merge(language);
    const struct vocabulary *v = language->vocabulary;
    /* The seat of a toilet is no chair. */
    const uint16_t seat = has_word(language, n, vocabulary_word(v, "toilet")) ? vocabulary_word(v, "seat") : 0;
    out->n = 0;
    out->length = n;
    uint32_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const struct merged_word *word = &language->merged[i];
        if (seat > 0 && word->id == seat) {
            continue;
        }
        const int object = vocabulary_class(v, word->id);
        if (object >= 0) {
            out->mentions[out->n++] = (struct chair_mention){object, word->first_token, word->n_tokens,
                                                             language->merged[kept].first_token, kept};
        }
        kept++;
    }
    return CANDID_OK;
}

void chair_objects_free(struct chair_objects *objects) {
    free(objects->mentions);
    *objects = (struct chair_objects){0};
}

void chair_language_free(struct chair_language *language) {
    word_tokenizer_free(&language->tokenizer);
    words_free(&language->words);
    free(language->classes);
    free(language->merged);
    language->classes = NULL;
    language->merged = NULL;
    language->capacity = 0;
}

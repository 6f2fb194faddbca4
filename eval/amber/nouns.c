/* The nouns of descriptions: NLTK's tokens and tags as CHAIR has them, in the case of the text, lemmatised for AMBER.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/status.h"
#include "eval/amber/amber.h"
#include "eval/chair/tagger.h"

struct finder {
    const struct amber_data *data;
    struct tagger *tagger; /* NULL: every word is taken for a noun */
};

/*
 * Where the token stands in the text from *at on, in the case it has there; *at moves behind it. Quotation marks that
 * the tokenizer rewrote are not found: the token itself, and *at stays.
 */
static const char *in_text(const char **at, const char *token, size_t size) {
    const char *space = *at;
    while (*space && strchr(" \t\r\n", *space)) {
        space++;
    }
    if (strncasecmp(space, token, size) != 0) {
        const char *found = strcasestr(*at, token);
        space = found && found - *at < 64 ? found : NULL;
    }
    *at = space ? space + size : *at;
    return space ? space : token;
}

static candid_status add_nouns(const struct finder *f, const char *text, const struct words *words, const uint8_t *tags,
                               struct amber_words *out, candid_error *error) {
    const char *at = text;
    for (size_t i = 0; i < words->n; i++) {
        char token[AMBER_LEMMA], buffer[AMBER_LEMMA];
        const char *word = word_at(words, i);
        const size_t size = strlen(word);
        const char *cased = in_text(&at, word, size);
        if (size >= sizeof token || (f->tagger && strncmp(f->tagger->tags[tags[i]], "NN", 2) != 0)) {
            continue; /* no word of the vocabulary is so long */
        }
        memcpy(token, cased, size);
        token[size] = '\0';
        const char *lemma = amber_lemma(f->data, token, buffer);
        TRY(amber_words_add(out, lemma, strlen(lemma), error));
    }
    return CANDID_OK;
}

static candid_status find_nouns(const void *context, const char *text, struct amber_words *out, candid_error *error) {
    const struct finder *f = context;
    struct word_tokenizer tokenizer = {.rules = TOKENIZER_NLTK38, .punkt = f->tagger ? &f->tagger->punkt : NULL};
    struct words words = {0};
    uint8_t *tags = NULL;
    candid_status status = tokenize(&tokenizer, text, &words, error);
    if (status == CANDID_OK) {
        tags = calloc(words.n + 1, sizeof *tags);
        status = tags ? CANDID_OK : fail_memory(error, "tags", words.n);
    }
    if (status == CANDID_OK && f->tagger) {
        status = tagger_tag(f->tagger, &words, tags, error);
    }
    if (status == CANDID_OK) {
        status = add_nouns(f, text, &words, tags, out, error);
    }
    free(tags);
    words_free(&words);
    word_tokenizer_free(&tokenizer);
    return status;
}

candid_status amber_nouns_open(const struct amber_data *data, const char *tagger, struct amber_nouns *out,
                               candid_error *error) {
    struct finder *f = calloc(1, sizeof *f);
    if (!f) {
        return fail_memory(error, "a tagger", sizeof *f);
    }
    f->data = data;
    const candid_status status = tagger ? tagger_open(tagger, &f->tagger, error) : CANDID_OK;
    if (status != CANDID_OK) {
        free(f);
        return status;
    }
    *out = (struct amber_nouns){find_nouns, f,
                                tagger ? "imported, on lower-case text" : "none: every word is a noun (approximate)"};
    return CANDID_OK;
}

void amber_nouns_close(struct amber_nouns *nouns) {
    struct finder *f = (struct finder *)(uintptr_t)nouns->context;
    if (f) {
        tagger_free(f->tagger);
        free(f);
    }
    *nouns = (struct amber_nouns){0};
}

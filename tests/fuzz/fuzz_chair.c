/*
 * libFuzzer target: what CHAIR reads. The first byte chooses: 'p' NLTK's tagger as a pickle, 'k' Punkt's pickle, 'w',
 * 'd', 'c' the tagger's JSON files, 'a', 'l', 'o' Punkt's text files, 't' candid's tagger file, 'u' the cache of the
 * truth (both without their checksum, which is added), 'j' any JSON as a stream, anything else a caption.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32.h"
#include "eval/chair/chair.h"
#include "eval/chair/tagger_import.h"
#include "eval/common/json_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) {
        abort();
    }
}

/* What was imported is a tagger file or a clear error, and tags words. */
static void use_parts(struct tagger_parts *parts, candid_status status) {
    char *text = NULL;
    size_t size = 0;
    struct tagger *tagger = NULL;
    if (status == CANDID_OK) {
        require(tagger_write(parts, "fuzz", &text, &size, NULL) == CANDID_OK);
    }
    if (text && tagger_parse(text, size, "fuzz", &tagger, NULL) == CANDID_OK) {
        struct word_tokenizer t = {.punkt = &tagger->punkt};
        struct words words = {0};
        uint8_t tags[64];
        require(tokenize(&t, "a man's dog. 5. the well-known 1990 x.", &words, NULL) == CANDID_OK && words.n < 64);
        require(tagger_tag(tagger, &words, tags, NULL) == CANDID_OK);
        word_tokenizer_free(&t);
        words_free(&words);
    }
    tagger_free(tagger);
    free(text);
    tagger_parts_free(parts);
}

/* The text with its checksum as a last line; malloc'd. */
static char *with_checksum(const char *text, size_t size, size_t *total) {
    char *copy = malloc(size + 16);
    require(copy != NULL);
    memcpy(copy, text, size);
    *total = size + (size_t)snprintf(copy + size, 16, "crc32 %08x\n", crc32_update(0, text, size));
    return copy;
}

static void read_caption(const char *text, size_t size) {
    static struct vocabulary *vocabulary;
    if (!vocabulary) {
        require(vocabulary_open(NULL, &vocabulary, NULL) == CANDID_OK);
    }
    char *caption = strndup(text, size);
    for (int mode = CHAIR_PATTERN; mode <= CHAIR_APPROXIMATE; mode++) {
        struct chair_language language = {.mode = (enum chair_mode)mode, .vocabulary = vocabulary};
        struct chair_objects objects = {0};
        require(chair_find_objects(&language, caption, &objects, NULL) == CANDID_OK);
        for (size_t i = 0; i < objects.n; i++) {
            require(objects.mentions[i].first_token + objects.mentions[i].n_tokens <= language.words.n);
        }
        language.tokenizer.rules = TOKENIZER_NLTK39;
        require(tokenize(&language.tokenizer, caption, &language.words, NULL) == CANDID_OK);
        chair_objects_free(&objects);
        chair_language_free(&language);
    }
    free(caption);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const uint8_t kind = *data;
    /* of its own size, so that reads beyond the end are seen */
    char *text = malloc(size > 1 ? size - 1 : 1);
    require(text != NULL);
    memcpy(text, data + 1, size - 1);
    size--;
    candid_error error = {CANDID_OK, ""};
    struct tagger_parts parts = {0};
    struct json_stream s;
    json_stream_memory(text, size, "input", &s);
    char *checked;
    size_t n;
    switch (kind) {
    case 'p': use_parts(&parts, tagger_add_pickle(&parts, (uint8_t *)text, size, "input", &error)); break;
    case 'k': use_parts(&parts, tagger_add_punkt_pickle(&parts, (uint8_t *)text, size, "input", &error)); break;
    case 'w': use_parts(&parts, tagger_add_json(&parts, "weights", &s, &error)); break;
    case 'd': use_parts(&parts, tagger_add_json(&parts, "tagdict", &s, &error)); break;
    case 'c': use_parts(&parts, tagger_add_json(&parts, "classes", &s, &error)); break;
    case 'a': use_parts(&parts, tagger_add_punkt_text(&parts, "abbrev_types.txt", text, size, "input", &error)); break;
    case 'l': use_parts(&parts, tagger_add_punkt_text(&parts, "collocations.tab", text, size, "input", &error)); break;
    case 'o': use_parts(&parts, tagger_add_punkt_text(&parts, "ortho_context.tab", text, size, "input", &error)); break;
    case 't': {
        struct tagger *tagger;
        checked = with_checksum(text, size, &n);
        tagger_parse(checked, n, "input", &tagger, &error);
        tagger_free(tagger);
        free(checked);
        break;
    }
    case 'u': {
        struct chair_truth *truth;
        checked = with_checksum(text, size, &n);
        chair_truth_parse(checked, n, "input", &truth, &error);
        chair_truth_free(truth);
        free(checked);
        break;
    }
    case 'j':
        if (json_skip(&s, &error) == CANDID_OK) {
            json_end(&s, &error);
        }
        break;
    default: read_caption(text, size);
    }
    require(error.status == CANDID_OK || strstr(error.message, "input") || error.status == CANDID_ERROR_MEMORY);
    json_stream_close(&s);
    free(text);
    return 0;
}

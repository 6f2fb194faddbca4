/* Words of an answer. */
#include "decode/words.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/status.h"

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
}

size_t words_split(const char *text, size_t size, const size_t *token_end, size_t n_tokens, struct word *words) {
    size_t n = 0, token = 0;
    for (size_t at = 0; at < size;) {
        size_t end = at;
        while (end < size && !is_space(text[end])) {
            end++;
        }
        size_t first = at, last = end;
        while (first < last && !is_letter(text[first])) {
            first++;
        }
        while (last > first && !is_letter(text[last - 1])) {
            last--;
        }
        if (first < last) {
            while (token < n_tokens && token_end[token] <= first) {
                token++;
            }
            size_t last_token = token;
            while (last_token + 1 < n_tokens && token_end[last_token] < last) {
                last_token++;
            }
            words[n++] = (struct word){first, last, token, last_token - token + 1};
        }
        at = end + 1;
    }
    return n;
}

bool word_equals(const char *a, size_t a_size, const char *b, size_t b_size) {
    return a_size == b_size && strncasecmp(a, b, a_size) == 0;
}

bool word_is_content(const char *word, size_t size) {
    /* clang-format off */
    static const char *const other[] = {
        /* articles, pronouns, determiners */
        "a", "an", "the", "this", "that", "these", "those", "it", "its", "he", "she", "they", "them", "their", "his",
        "her", "him", "we", "our", "you", "your", "i", "my", "me", "there", "here", "which", "who", "whose", "what",
        "where", "when", "how", "why", "some", "any", "no", "each", "every", "all", "both", "either", "another",
        "other", "others", "several", "many", "much", "few", "more", "most", "less", "one", "two", "three", "four",
        "five", "six", "seven", "eight", "nine", "ten", "something", "someone", "various", "multiple", "couple",
        /* prepositions, conjunctions, adverbs */
        "of", "in", "on", "at", "by", "to", "from", "with", "without", "for", "into", "onto", "over", "under",
        "above", "below", "behind", "beside", "besides", "between", "among", "near", "around", "across", "along",
        "through", "up", "down", "out", "off", "against", "towards", "toward", "within", "inside", "outside", "next",
        "and", "or", "but", "nor", "so", "as", "if", "than", "then", "while", "because", "although", "though", "also",
        "not", "very", "too", "just", "only", "even", "still", "likely", "possibly", "perhaps", "together", "overall",
        "additionally", "furthermore", "nearby", "well", "such", "closer", "further", "yes",
        /* verbs */
        "is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "having", "do", "does", "did", "can",
        "could", "may", "might", "will", "would", "should", "must", "seem", "seems", "appear", "appears", "appearing",
        "show", "shows", "showing", "shown", "depict", "depicts", "feature", "features", "featuring", "include",
        "includes", "including", "contain", "contains", "see", "seen", "visible", "located", "placed", "positioned",
        "situated", "sit", "sits", "sitting", "stand", "stands", "standing", "lying", "laying", "resting", "hanging",
        "holding", "wearing", "walking", "running", "looking", "playing", "riding", "eating", "using", "making",
        "adding", "creating", "giving", "taking", "filled", "surrounded", "covered", "suggesting", "indicating",
        "capturing", "captures", "surrounding",
        /* words about the picture and places in it */
        "image", "picture", "photo", "scene", "view", "background", "foreground", "left", "right", "top", "bottom",
        "middle", "center", "centre", "side", "corner", "front", "back", "edge", "part", "area",
    };
    /* clang-format on */
    size_t letters = 0;
    for (size_t i = 0; i < size; i++) {
        letters += is_letter(word[i]) && !(word[i] >= '0' && word[i] <= '9');
    }
    if (letters < 2) {
        return false;
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        if (word_equals(word, size, other[i], strlen(other[i]))) {
            return false;
        }
    }
    return true;
}

/* Length of the UTF-8 character at s of at most n bytes, 0 if there is none. */
static size_t character(const unsigned char *s, size_t n) {
    const size_t length = s[0] < 0x80                   ? 1
                          : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                          : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                          : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                                        : 0;
    if (length == 0 || length > n) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    const bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    const bool outside = (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF4 && s[1] > 0x8F);
    return overlong || outside ? 0 : length;
}

/* Bytes keep their places, so that tokens keep theirs. */
static void make_valid(char *text, size_t size) {
    for (size_t i = 0; i < size;) {
        const size_t length = character((unsigned char *)text + i, size - i);
        if (length == 0 || text[i] == '\0') {
            text[i++] = '?';
        } else {
            i += length;
        }
    }
}

void answer_words_free(struct answer_words *a) {
    free(a->text);
    free(a->token_end);
    free(a->words);
    *a = (struct answer_words){0};
}

candid_status answer_words_make(const struct tokenizer *t, const int32_t *ids, size_t n, struct answer_words *out,
                                candid_error *error) {
    struct answer_words a = {.n_tokens = n};
    for (size_t i = 0; i < n; i++) {
        a.size += tokenizer_piece(t, ids[i], false, NULL, 0);
    }
    a.text = malloc(a.size + 1);
    a.token_end = calloc(n + 1, sizeof *a.token_end);
    a.words = calloc(a.size / 2 + 1, sizeof *a.words);
    if (!a.text || !a.token_end || !a.words) {
        const size_t bytes = a.size;
        answer_words_free(&a);
        return fail_memory(error, "the words of an answer", bytes);
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at += tokenizer_piece(t, ids[i], false, a.text + at, a.size - at);
        a.token_end[i] = at;
    }
    a.text[a.size] = '\0';
    make_valid(a.text, a.size);
    a.n_words = words_split(a.text, a.size, a.token_end, n, a.words);
    *out = a;
    return CANDID_OK;
}

#include "eval/chair/tagger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"

enum word_class tag_class(const char *tag) {
    return tag[0] == 'J' ? WORD_ADJECTIVE : tag[0] == 'V' ? WORD_VERB : tag[0] == 'R' ? WORD_ADVERB : WORD_NOUN;
}

char *tagger_default_path(void) {
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    const bool own = data && data[0] == '/';
    if (!own && (!home || !home[0])) {
        return NULL;
    }
    char *path = NULL;
    const int n = own ? asprintf(&path, "%s/candid/nltk-tagger", data)
                      : asprintf(&path, "%s/.local/share/candid/nltk-tagger", home);
    return n < 0 ? NULL : path;
}

void tagger_free(struct tagger *tagger) {
    if (!tagger) {
        return;
    }
    free(tagger->text);
    free(tagger->first);
    free(tagger->weights);
    string_table_free(&tagger->words);
    string_table_free(&tagger->features);
    string_table_free(&tagger->punkt.abbreviations);
    string_table_free(&tagger->punkt.collocations);
    string_table_free(&tagger->punkt.starters);
    free(tagger);
}

/* ---- features ---- */

/* A piece of text; the words of one side of the window. */
struct piece {
    const char *s;
    size_t n;
};

static struct piece piece_of(const char *text) {
    return (struct piece){text, strlen(text)};
}

/* The first character, and the last three. */
static struct piece first_character(struct piece word) {
    size_t n = word.n > 0;
    while (n < word.n && ((uint8_t)word.s[n] & 0xc0) == 0x80) {
        n++;
    }
    return (struct piece){word.s, n};
}

static struct piece suffix(struct piece word) {
    size_t start = word.n;
    for (int i = 0; i < 3 && start > 0; i++) {
        do {
            start--;
        } while (start > 0 && ((uint8_t)word.s[start] & 0xc0) == 0x80);
    }
    return (struct piece){word.s + start, word.n - start};
}

static uint32_t character_at(const char **s) {
    const uint8_t *b = (const uint8_t *)*s;
    const int n = b[0] < 0x80 ? 1 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    uint32_t c = n == 1 ? b[0] : b[0] & (0xffu >> (n + 1));
    for (int i = 1; i < n; i++) {
        c = c << 6 | (b[i] & 0x3f);
    }
    *s += n;
    return c;
}

/* The word as its neighbours see it. Tokens are valid UTF-8 in lower case already. */
static struct piece normalized(const char *word) {
    if (word[0] != '-' && strchr(word, '-')) {
        return piece_of("!HYPHEN");
    }
    const char *at = word;
    if (!unicode_is_digit(character_at(&at))) {
        return piece_of(word);
    }
    size_t n = 1;
    while (*at && unicode_is_digit(character_at(&at))) {
        n++;
    }
    return piece_of(*at == '\0' && n == 4 ? "!YEAR" : "!DIGITS");
}

#define FEATURE_BYTES 512 /* longer ones are in no table */

struct scorer {
    const struct tagger *tagger;
    double scores[MAX_TAGS];
};

/* Adds the weights of the feature "name first second". */
static void add_feature(struct scorer *s, const char *name, struct piece first, struct piece second) {
    char key[FEATURE_BYTES];
    size_t n = strlen(name);
    if (n + first.n + second.n + 2 > sizeof key) {
        return;
    }
    memcpy(key, name, n);
    if (first.s) {
        key[n++] = ' ';
        memcpy(key + n, first.s, first.n);
        n += first.n;
    }
    if (second.s) {
        key[n++] = ' ';
        memcpy(key + n, second.s, second.n);
        n += second.n;
    }
    const struct tagger *t = s->tagger;
    const uint32_t feature = string_table_find(&t->features, key, n);
    if (feature == STRING_TABLE_NONE) {
        return;
    }
    for (uint32_t i = t->first[feature]; i < t->first[feature + 1]; i++) {
        s->scores[t->weights[i].tag] += t->weights[i].weight;
    }
}

/* The words around the one in question, normalised, and the tags before it. */
struct window {
    struct piece before2, before, word, after, after2;
    struct piece tag, tag2;
};

/* Highest score, the alphabetically last of equals. The order of the sums is NLTK's: some words are decided by it. */
static uint8_t predict(const struct tagger *tagger, const char *word, const struct window *w) {
    static const struct piece none = {0};
    struct scorer s = {.tagger = tagger};
    const struct piece itself = piece_of(word);
    add_feature(&s, "bias", none, none);
    add_feature(&s, "i suffix", suffix(itself), none);
    add_feature(&s, "i pref1", first_character(itself), none);
    add_feature(&s, "i-1 tag", w->tag, none);
    add_feature(&s, "i-2 tag", w->tag2, none);
    add_feature(&s, "i tag+i-2 tag", w->tag, w->tag2);
    add_feature(&s, "i word", w->word, none);
    add_feature(&s, "i-1 tag+i word", w->tag, w->word);
    add_feature(&s, "i-1 word", w->before, none);
    add_feature(&s, "i-1 suffix", suffix(w->before), none);
    add_feature(&s, "i-2 word", w->before2, none);
    add_feature(&s, "i+1 word", w->after, none);
    add_feature(&s, "i+1 suffix", suffix(w->after), none);
    add_feature(&s, "i+2 word", w->after2, none);
    size_t best = 0;
    for (size_t i = 1; i < tagger->n_tags; i++) {
        best = s.scores[i] >= s.scores[best] ? i : best;
    }
    return (uint8_t)best;
}

candid_status tagger_tag(const struct tagger *tagger, const struct words *words, uint8_t *tags, candid_error *error) {
    (void)error;
    const size_t n = words->n;
    struct window w = {
        .before = piece_of("-START-"),
        .word = piece_of("-START2-"),
        .after = n > 0 ? normalized(word_at(words, 0)) : piece_of("-END-"),
        .after2 = n > 1 ? normalized(word_at(words, 1)) : piece_of("-END-"),
        .tag = piece_of("-START-"),
        .tag2 = piece_of("-START2-"),
    };
    for (size_t i = 0; i < n; i++) {
        w.before2 = w.before;
        w.before = w.word;
        w.word = w.after;
        w.after = w.after2;
        w.after2 = i + 2 < n ? normalized(word_at(words, i + 2)) : i + 2 == n ? piece_of("-END-") : piece_of("-END2-");
        const char *word = word_at(words, i);
        const uint32_t fixed = string_table_find(&tagger->words, word, strlen(word));
        tags[i] = fixed != STRING_TABLE_NONE ? (uint8_t)fixed : predict(tagger, word, &w);
        w.tag2 = w.tag;
        w.tag = piece_of(tagger->tags[tags[i]]);
    }
    return CANDID_OK;
}

candid_status tagger_classify(void *context, const struct words *words, uint8_t *classes, candid_error *error) {
    const struct tagger *tagger = context;
    TRY(tagger_tag(tagger, words, classes, error));
    for (size_t i = 0; i < words->n; i++) {
        classes[i] = tagger->classes[classes[i]];
    }
    return CANDID_OK;
}

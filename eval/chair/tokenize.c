#include "eval/chair/tokenize.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "eval/chair/sentences.h"

void words_clear(struct words *words) {
    words->n = words->n_bytes = 0;
}

void words_free(struct words *words) {
    free(words->bytes);
    free(words->offset);
    *words = (struct words){0};
}

candid_status words_add(struct words *words, const uint32_t *c, size_t n, candid_error *error) {
    const size_t needed = words->n_bytes + 4 * n + 1;
    if (needed > words->bytes_capacity) {
        char *grown = needed <= UINT32_MAX / 2 ? realloc(words->bytes, 2 * needed) : NULL;
        if (!grown) {
            return fail_memory(error, "the words of a text", 2 * needed);
        }
        words->bytes = grown;
        words->bytes_capacity = 2 * needed;
    }
    if (words->n == words->capacity) {
        const size_t capacity = words->capacity > 0 ? 2 * words->capacity : 256;
        uint32_t *grown = realloc(words->offset, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "the words of a text", capacity * sizeof *grown);
        }
        words->offset = grown;
        words->capacity = capacity;
    }
    words->offset[words->n++] = (uint32_t)words->n_bytes;
    for (size_t i = 0; i < n; i++) {
        words->n_bytes += utf8_put(words->bytes + words->n_bytes, c[i]);
    }
    words->bytes[words->n_bytes++] = '\0';
    return CANDID_OK;
}

/*
 * ---- the rules ----
 * Each one rewrites the whole sentence, left to right and without overlaps, because later rules look at the blanks that
 * earlier ones made.
 */

/* No rule makes more than four characters of one, but for a few at the ends. */
#define GROWTH      4
#define GROWTH_ENDS 8

static void put(struct text32 *to, uint32_t c) {
    to->c[to->n++] = c;
}

static void put_padded(struct text32 *to, const uint32_t *c, size_t n) {
    put(to, ' ');
    memcpy(to->c + to->n, c, n * sizeof *c);
    to->n += n;
    put(to, ' ');
}

static bool is_any(uint32_t c, const char *ascii) {
    return c > 0 && c < 0x80 && strchr(ascii, (int)c) != NULL;
}

/* Whether text[at] begins with an ASCII string. */
static bool begins(const struct text32 *text, size_t at, const char *ascii) {
    for (; *ascii; ascii++, at++) {
        if (at >= text->n || text->c[at] != (uint32_t)*ascii) {
            return false;
        }
    }
    return true;
}

static size_t run_of(const struct text32 *text, size_t at, uint32_t c) {
    size_t end = at;
    while (end < text->n && text->c[end] == c) {
        end++;
    }
    return end - at;
}

/* ---- matches that get a blank on both sides: their length, 0 for none ---- */

static size_t opening_quotes(const struct text32 *t, size_t i) {
    const uint32_t c = t->c[i];
    return c == 0xab || c == 0x201c || c == 0x2018 || c == 0x201e ? 1 : run_of(t, i, '`');
}

static size_t two_backticks(const struct text32 *t, size_t i) {
    return begins(t, i, "``") ? 2 : 0;
}

static size_t dots(const struct text32 *t, size_t i) {
    const size_t n = run_of(t, i, '.');
    return n >= 2 ? n : 0;
}

static size_t symbol(const struct text32 *t, size_t i) {
    return is_any(t->c[i], ";@#$%&");
}

static size_t dash(const struct text32 *t, size_t i) {
    return t->c[i] >= 0x2012 && t->c[i] <= 0x2015;
}

static size_t question_or_exclamation(const struct text32 *t, size_t i) {
    return is_any(t->c[i], "?!");
}

static size_t star(const struct text32 *t, size_t i) {
    return t->c[i] == '*';
}

static size_t bracket(const struct text32 *t, size_t i) {
    return is_any(t->c[i], "()[]{}<>");
}

static size_t two_hyphens(const struct text32 *t, size_t i) {
    return begins(t, i, "--") ? 2 : 0;
}

static bool is_closing_quote(uint32_t c) {
    return c == 0xbb || c == 0x201d || c == 0x2019;
}

static size_t closing_quote(const struct text32 *t, size_t i) {
    return is_closing_quote(t->c[i]);
}

static size_t two_apostrophes(const struct text32 *t, size_t i) {
    return begins(t, i, "''") ? 2 : 0;
}

typedef size_t (*match_function)(const struct text32 *text, size_t at);

static void pad(const struct text32 *from, struct text32 *to, match_function match) {
    for (size_t i = 0; i < from->n;) {
        const size_t n = match(from, i);
        if (n > 0) {
            put_padded(to, from->c + i, n);
        } else {
            put(to, from->c[i]);
        }
        i += n > 0 ? n : 1;
    }
}

/* ---- the other rules ---- */

static const uint32_t opened[] = {'`', '`'}, closed[] = {'\'', '\''};

/* A quote at the very beginning opens. */
static void leading_quote(const struct text32 *from, struct text32 *to) {
    size_t i = 0;
    if (from->n > 0 && from->c[0] == '"') {
        put(to, '`');
        put(to, '`');
        i = 1;
    }
    for (; i < from->n; i++) {
        put(to, from->c[i]);
    }
}

/* So does one behind a blank or an opening bracket. */
static void quotes_that_open(const struct text32 *from, struct text32 *to) {
    for (size_t i = 0; i < from->n;) {
        const size_t n = !is_any(from->c[i], " ([{<") ? 0
                         : begins(from, i + 1, "\"")  ? 1
                         : begins(from, i + 1, "''")  ? 2
                                                      : 0;
        put(to, from->c[i]);
        if (n > 0) {
            put_padded(to, opened, 2);
        }
        i += 1 + n;
    }
}

/* An apostrophe before a single letter that is no clitic stands alone. */
static void lone_letter(const struct text32 *from, struct text32 *to) {
    for (size_t i = 0; i < from->n; i++) {
        put(to, from->c[i]);
        if (from->c[i] == '\'' && i + 1 < from->n && unicode_is_word(from->c[i + 1]) &&
            !is_any(from->c[i + 1], "mtsdn") && (i + 2 == from->n || !unicode_is_word(from->c[i + 2]))) {
            put(to, ' ');
        }
    }
}

/* The last period, when only closers and then white space follow it and no period stands before it; its place, or
 * from->n. *closers_end is the end of the closers. */
static size_t final_period(const struct text32 *from, const char *closers, bool unicode_closers, size_t *closers_end) {
    size_t period = from->n;
    while (period > 0 && from->c[period - 1] != '.') {
        period--;
    }
    if (period < 2 || from->c[period - 2] == '.') {
        return from->n;
    }
    size_t end = period;
    while (end < from->n && (is_any(from->c[end], closers) || (unicode_closers && is_closing_quote(from->c[end])))) {
        end++;
    }
    *closers_end = end;
    while (end < from->n && unicode_is_space(from->c[end])) {
        end++;
    }
    return end == from->n ? period - 1 : from->n;
}

static void copy(const struct text32 *from, size_t start, size_t end, struct text32 *to) {
    for (size_t i = start; i < end; i++) {
        put(to, from->c[i]);
    }
}

static void period_and_closers(const struct text32 *from, struct text32 *to) {
    size_t closers_end = 0;
    const size_t period = final_period(from, "])}>\"' ", true, &closers_end);
    copy(from, 0, period, to);
    if (period < from->n) {
        put_padded(to, from->c + period, 1);
        copy(from, period + 1, closers_end, to);
        put(to, ' ');
    }
}

static void period_at_end(const struct text32 *from, struct text32 *to) {
    size_t closers_end = 0;
    const size_t period = final_period(from, "])}>\"'", false, &closers_end);
    copy(from, 0, period, to);
    if (period < from->n) {
        put(to, ' ');
        copy(from, period, closers_end, to);
        put(to, ' ');
    }
}

/* The character behind a colon or comma is consumed with it: of two in a row the second stays. */
static void colon_or_comma(const struct text32 *from, struct text32 *to) {
    for (size_t i = 0; i < from->n; i++) {
        if (is_any(from->c[i], ":,") && i + 1 < from->n && !unicode_is_decimal(from->c[i + 1])) {
            put_padded(to, from->c + i, 1);
            i++;
        }
        put(to, from->c[i]);
    }
}

static size_t colon_or_comma_at_end(const struct text32 *t, size_t i) {
    return is_any(t->c[i], ":,") && (i + 1 == t->n || (i + 2 == t->n && t->c[i + 1] == '\n'));
}

/* An apostrophe between another character and a blank. */
static void apostrophe_before_blank(const struct text32 *from, struct text32 *to) {
    for (size_t i = 0; i < from->n;) {
        put(to, from->c[i]);
        if (from->c[i] != '\'' && begins(from, i + 1, "' ")) {
            put_padded(to, from->c + i + 1, 1);
            i += 3;
        } else {
            i++;
        }
    }
}

static void double_quotes(const struct text32 *from, struct text32 *to) {
    for (size_t i = 0; i < from->n; i++) {
        if (from->c[i] == '"') {
            put_padded(to, closed, 2);
        } else {
            put(to, from->c[i]);
        }
    }
}

static void surround(const struct text32 *from, struct text32 *to) {
    put_padded(to, from->c, from->n);
}

static void collapse_white_space(const struct text32 *from, struct text32 *to) {
    for (size_t i = 0; i < from->n; i++) {
        const bool space = unicode_is_space(from->c[i]);
        if (!space || i == 0 || !unicode_is_space(from->c[i - 1])) {
            put(to, space ? ' ' : from->c[i]);
        }
    }
}

/* Splits the first of the endings that stands between a character and a blank off its word. */
static void split_endings(const struct text32 *from, struct text32 *to, const char *const *endings) {
    for (size_t i = 0; i < from->n;) {
        put(to, from->c[i]);
        size_t n = 0;
        for (size_t k = 0; endings[k] && n == 0 && !is_any(from->c[i], "' "); k++) {
            const size_t length = strlen(endings[k]);
            n = begins(from, i + 1, endings[k]) && begins(from, i + 1 + length, " ") ? length : 0;
        }
        if (n > 0) {
            put_padded(to, from->c + i + 1, n);
        }
        i += n > 0 ? n + 2 : 1;
    }
}

static void short_clitics(const struct text32 *from, struct text32 *to) {
    static const char *const endings[] = {"'s", "'m", "'d", "'", NULL};
    split_endings(from, to, endings);
}

static void long_clitics(const struct text32 *from, struct text32 *to) {
    static const char *const endings[] = {"'ll", "'re", "'ve", "n't", NULL};
    split_endings(from, to, endings);
}

/* A word written as one that is two; `first` is the length of the first. */
struct contraction {
    const char *word;
    size_t first;
};

/* Length of the contraction that text[at] begins with, 0 for none: whole words only, one with an apostrophe in front
 * behind a blank, "wanna" before white space. */
static size_t contraction_at(const struct text32 *t, size_t at, const char *word) {
    if (!begins(t, at, word)) {
        return 0;
    }
    const uint32_t before = at > 0 ? t->c[at - 1] : 0;
    if (word[0] == '\'' ? before != ' ' : unicode_is_word(before)) {
        return 0;
    }
    const size_t end = at + strlen(word);
    if (word[0] == 'w') {
        return end < t->n && unicode_is_space(t->c[end]) ? end - at : 0;
    }
    return end == t->n || !unicode_is_word(t->c[end]) ? end - at : 0;
}

static void split_contractions(const struct text32 *from, struct text32 *to, const struct contraction *table,
                               size_t n_table) {
    for (size_t i = 0; i < from->n;) {
        size_t n = 0, k = 0;
        while (k < n_table && (n = contraction_at(from, i, table[k].word)) == 0) {
            k++;
        }
        if (n > 0) {
            put_padded(to, from->c + i, table[k].first);
            put_padded(to, from->c + i + table[k].first, n - table[k].first);
        } else {
            put(to, from->c[i]);
        }
        i += n > 0 ? n : 1;
    }
}

static void contractions(const struct text32 *from, struct text32 *to) {
    static const struct contraction table[] = {{"cannot", 3}, {"d'ye", 1},  {"gimme", 3},  {"gonna", 3},
                                               {"gotta", 3},  {"lemme", 3}, {"more'n", 4}, {"wanna", 3}};
    split_contractions(from, to, table, sizeof table / sizeof *table);
}

static void tis(const struct text32 *from, struct text32 *to) {
    split_contractions(from, to, &(const struct contraction){"'tis", 2}, 1);
}

static void twas(const struct text32 *from, struct text32 *to) {
    split_contractions(from, to, &(const struct contraction){"'twas", 2}, 1);
}

/* In NLTK's order: quotes that open, punctuation, brackets, quotes that close, contractions. */
static const struct {
    void (*rewrite)(const struct text32 *from, struct text32 *to);
    match_function pad; /* instead of rewrite */
    const char
        *concerns; /* nothing happens without one of these, or ANY_OTHER a character beyond ASCII; NULL: always */
    bool only_from_39;
} rules[] = {
#define ANY_OTHER "\x7f"
    {.pad = opening_quotes, .concerns = "`" ANY_OTHER},
    {.rewrite = leading_quote, .concerns = "\""},
    {.pad = two_backticks, .concerns = "`\""},
    {.rewrite = quotes_that_open, .concerns = "\"'"},
    {.rewrite = lone_letter, .concerns = "'"},
    {.rewrite = period_and_closers, .concerns = "."},
    {.rewrite = colon_or_comma, .concerns = ":,"},
    {.pad = colon_or_comma_at_end, .concerns = ":,"},
    {.pad = dots, .concerns = "."},
    {.pad = symbol, .concerns = ";@#$%&"},
    {.pad = dash, .concerns = ANY_OTHER, .only_from_39 = true},
    {.rewrite = period_at_end, .concerns = "."},
    {.pad = question_or_exclamation, .concerns = "?!"},
    {.rewrite = apostrophe_before_blank, .concerns = "'"},
    {.pad = star, .concerns = "*"},
    {.pad = bracket, .concerns = "()[]{}<>"},
    {.pad = two_hyphens, .concerns = "-"},
    {.rewrite = surround},
    {.pad = closing_quote, .concerns = ANY_OTHER},
    {.pad = two_apostrophes, .concerns = "'"},
    {.rewrite = double_quotes, .concerns = "\""},
    {.rewrite = collapse_white_space, .only_from_39 = true},
    {.rewrite = short_clitics, .concerns = "'\""},
    {.rewrite = long_clitics, .concerns = "'"},
    {.rewrite = contractions},
    {.rewrite = tis, .concerns = "'"},
    {.rewrite = twas, .concerns = "'"},
};

/* Which characters a sentence has; those beyond ASCII count as the last of ASCII. */
struct characters {
    bool has[128];
};

static bool has_any(const struct characters *characters, const char *of) {
    for (; *of; of++) {
        if (characters->has[(uint8_t)*of]) {
            return true;
        }
    }
    return false;
}

/* Appends the words of t->sentence. */
static candid_status sentence_words(struct word_tokenizer *t, struct words *out, candid_error *error) {
    struct characters characters = {0};
    for (size_t i = 0; i < t->sentence.n; i++) {
        characters.has[t->sentence.c[i] < 127 ? t->sentence.c[i] : 127] = true;
    }
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if ((rules[i].only_from_39 && t->rules < TOKENIZER_NLTK39) ||
            (rules[i].concerns && !has_any(&characters, rules[i].concerns))) {
            continue;
        }
        t->spare.n = 0;
        TRY(text32_reserve(&t->spare, GROWTH * t->sentence.n + GROWTH_ENDS, error));
        if (rules[i].pad) {
            pad(&t->sentence, &t->spare, rules[i].pad);
        } else {
            rules[i].rewrite(&t->sentence, &t->spare);
        }
        const struct text32 rewritten = t->spare;
        t->spare = t->sentence;
        t->sentence = rewritten;
    }
    const uint32_t *c = t->sentence.c;
    for (size_t i = 0; i < t->sentence.n;) {
        const size_t start = i;
        while (i < t->sentence.n && !unicode_is_space(c[i])) {
            i++;
        }
        if (i > start) {
            TRY(words_add(out, c + start, i - start, error));
        }
        i += i == start;
    }
    return CANDID_OK;
}

candid_status tokenize(struct word_tokenizer *t, const char *text, struct words *out, candid_error *error) {
    words_clear(out);
    TRY(text32_decode(&t->text, text, strlen(text), error));
    TRY(text32_lower(&t->text, error));
    TRY(sentences_split(t, error));
    for (size_t i = 0; i < t->n_spans; i++) {
        const size_t n = t->spans[i].end - t->spans[i].start;
        t->sentence.n = 0;
        TRY(text32_reserve(&t->sentence, n, error));
        copy(&t->text, t->spans[i].start, t->spans[i].end, &t->sentence);
        TRY(sentence_words(t, out, error));
    }
    return CANDID_OK;
}

void word_tokenizer_free(struct word_tokenizer *t) {
    text32_free(&t->text);
    text32_free(&t->sentence);
    text32_free(&t->spare);
    free(t->spans);
    *t = (struct word_tokenizer){.rules = t->rules, .punkt = t->punkt};
}

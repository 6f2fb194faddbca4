#include "eval/chair/sentences.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

static bool is_any(uint32_t c, const char *ascii) {
    return c > 0 && c < 0x80 && strchr(ascii, (int)c) != NULL;
}

/* ---- Punkt's own tokens, of a stretch around a place where a sentence may end ---- */

static bool ends_word(uint32_t c) {
    return is_any(c, ")\";}]*:@'({[?!");
}

/* Length of hyphens, dots, or dots with white space between them that make one token; 0 for none. */
static size_t repeated(const uint32_t *c, size_t n) {
    size_t run = 0;
    while (run < n && (c[0] == '-' || c[0] == '.') && c[run] == c[0]) {
        run++;
    }
    if (run >= 2 || run == 0 || c[0] == '-') {
        return run >= 2 ? run : 0;
    }
    for (run = 1; run + 1 < n && unicode_is_space(c[run]) && c[run + 1] == '.'; run += 2) {
    }
    return run >= 5 ? run : 0;
}

static bool ends_here(const uint32_t *c, size_t n) {
    return n == 0 || unicode_is_space(c[0]) || ends_word(c[0]) || repeated(c, n > 5 ? 5 : n) > 0;
}

/* Length of the token that begins at c[0], which is no white space; n > 0. */
static size_t token_length(const uint32_t *c, size_t n) {
    const size_t run = repeated(c, n);
    if (run > 0) {
        return run;
    }
    if (is_any(c[0], "(\"`{[:;&#*@)}]-,")) {
        return 1;
    }
    size_t length = 1;
    while (!ends_here(c + length, n - length) && !(c[length] == ',' && ends_here(c + length + 1, n - length - 1))) {
        length++;
    }
    return length;
}

struct token {
    const uint32_t *c;
    size_t n;
    bool ends_sentence, number;
};

/* -?[.,]?\d[\d,.-]*\.? */
static bool is_number(const uint32_t *c, size_t n) {
    size_t i = n > 0 && c[0] == '-';
    i += i < n && is_any(c[i], ".,");
    if (i == n || !unicode_is_decimal(c[i])) {
        return false;
    }
    while (i < n && (unicode_is_decimal(c[i]) || is_any(c[i], ",.-"))) {
        i++;
    }
    return i == n;
}

#define NUMBER    "##number##"
#define KEY_BYTES 256 /* longer words are in no table */

/* Appends the token's type: numbers are all the same. */
static size_t put_type(char key[KEY_BYTES], size_t at, const struct token *token, bool without_period) {
    if (token->number) {
        memcpy(key + at, NUMBER, sizeof NUMBER - 1);
        return at + sizeof NUMBER - 1;
    }
    const size_t n = token->n - (without_period && token->n > 1 && token->c[token->n - 1] == '.');
    for (size_t i = 0; i < n && at + 4 <= KEY_BYTES; i++) {
        at += utf8_put(key + at, token->c[i]);
    }
    return at;
}

static bool known(const struct string_table *table, const char *key, size_t size) {
    return string_table_find(table, key, size) != STRING_TABLE_NONE;
}

/* Where there are no data: a few that Punkt knows too. */
static bool is_common(const char *key, size_t size) {
    static const char *const common[] = {"mr", "mrs", "ms", "dr", "st", "vs", "jr", "a.m", "p.m", "u.s"};
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) {
        if (strlen(common[i]) == size && memcmp(common[i], key, size) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_listed(const struct punkt *punkt, const struct token *word) {
    char key[KEY_BYTES];
    const size_t size = put_type(key, 0, word, false);
    return punkt && punkt->abbreviations.n > 0 ? known(&punkt->abbreviations, key, size) : is_common(key, size);
}

/* "mr." or "ex-pres.": whether the word, or what follows its last hyphen, is an abbreviation. */
static bool is_abbreviation(const struct punkt *punkt, const struct token *token) {
    if (token->n > KEY_BYTES / 4) {
        return false;
    }
    const struct token whole = {.c = token->c, .n = token->n - 1};
    struct token last = whole;
    for (size_t i = 0; i < whole.n; i++) {
        if (whole.c[i] == '-') {
            last = (struct token){.c = whole.c + i + 1, .n = whole.n - i - 1};
        }
    }
    return is_listed(punkt, &whole) || is_listed(punkt, &last);
}

/* What the token alone says: Punkt's first pass. */
static struct token token_of(const struct punkt *punkt, const uint32_t *c, size_t n) {
    struct token token = {.c = c, .n = n, .number = is_number(c, n)};
    if (n == 1) {
        token.ends_sentence = is_any(c[0], ".?!");
    } else if (c[n - 1] == '.' && c[n - 2] != '.') {
        token.ends_sentence = !is_abbreviation(punkt, &token);
    }
    return token;
}

/* Whether the next token cannot begin a sentence: punctuation, or a word that is not known to do so in lower case. */
static bool continues(const struct punkt *punkt, const struct token *next) {
    if (next->n == 1 && is_any(next->c[0], ";:,.!?")) {
        return true;
    }
    if (!unicode_is_lower(next->c[0])) {
        return false;
    }
    char key[KEY_BYTES];
    return !punkt || next->n > KEY_BYTES / 4 ||
           !known(&punkt->starters, key, put_type(key, 0, next, next->ends_sentence));
}

/* What the next token changes: the second pass, of which only these rules concern lower-case text. */
static bool ends_before(const struct punkt *punkt, const struct token *token, const struct token *next) {
    if (!token->ends_sentence || token->c[token->n - 1] != '.') {
        return token->ends_sentence;
    }
    if (punkt && punkt->collocations.n > 0 && token->n + next->n < KEY_BYTES / 4) {
        char key[KEY_BYTES];
        size_t n = put_type(key, 0, token, true);
        key[n++] = ' ';
        if (known(&punkt->collocations, key, put_type(key, n, next, next->ends_sentence))) {
            return false;
        }
    }
    const bool initial = token->n == 2 && unicode_is_word(token->c[0]) && !unicode_is_decimal(token->c[0]);
    return !((initial || token->number) && continues(punkt, next));
}

/* Whether a sentence ends between two tokens of the stretch. */
static bool has_end(const struct punkt *punkt, const uint32_t *c, size_t n) {
    struct token last = {0};
    for (size_t i = 0; i < n;) {
        size_t line_end = i;
        while (line_end < n && c[line_end] != '\n') {
            line_end++;
        }
        while (i < line_end) {
            if (unicode_is_space(c[i])) {
                i++;
                continue;
            }
            const size_t length = token_length(c + i, line_end - i);
            const struct token token = token_of(punkt, c + i, length);
            if (last.n > 0 && ends_before(punkt, &last, &token)) {
                return true;
            }
            last = token;
            i += length;
        }
        i = line_end + 1;
    }
    return false;
}

/* ---- places where a sentence may end ---- */

/* A '.', '?' or '!' with the word before it, and what follows. */
struct candidate {
    size_t word, at;  /* the word before it begins here; the sign */
    size_t after;     /* end of the white space behind it; at + 1: another sign follows directly */
    size_t after_end; /* end of the next word, or of that sign */
};

static bool is_candidate(const struct text32 *text, size_t at, struct candidate *out) {
    if (!is_any(text->c[at], ".?!") || at + 1 == text->n) {
        return false;
    }
    size_t next = at + 1;
    if (ends_word(text->c[next])) {
        *out = (struct candidate){.at = at, .after = next, .after_end = next + 1};
        return true;
    }
    while (next < text->n && unicode_is_space(text->c[next])) {
        next++;
    }
    if (next == at + 1 || next == text->n) {
        return false;
    }
    *out = (struct candidate){.at = at, .after = next};
    return true;
}

static size_t word_end(const struct text32 *text, size_t at) {
    while (at < text->n && !unicode_is_space(text->c[at])) {
        at++;
    }
    return at;
}

static candid_status add_span(struct word_tokenizer *t, size_t start, size_t end, candid_error *error) {
    if (t->n_spans == t->spans_capacity) {
        const size_t capacity = t->spans_capacity > 0 ? 2 * t->spans_capacity : 32;
        struct sentence_span *grown = realloc(t->spans, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "the sentences of a text", capacity * sizeof *grown);
        }
        t->spans = grown;
        t->spans_capacity = capacity;
    }
    t->spans[t->n_spans++] = (struct sentence_span){start, end};
    return CANDID_OK;
}

/* Ends the sentence that began at *start when the candidate is an end. */
static candid_status try_candidate(struct word_tokenizer *t, const struct candidate *found, size_t *start,
                                   candid_error *error) {
    const size_t end = found->after_end > 0 ? found->after_end : word_end(&t->text, found->after);
    if (!has_end(t->punkt, t->text.c + found->word, end - found->word)) {
        return CANDID_OK;
    }
    TRY(add_span(t, *start, found->at + 1, error));
    *start = found->after;
    return CANDID_OK;
}

/* Of several candidates in one word the last counts. */
static candid_status split(struct word_tokenizer *t, candid_error *error) {
    const struct text32 *text = &t->text;
    struct candidate last = {0}, found;
    bool any = false;
    size_t start = 0;
    for (size_t at = 0; at < text->n; at++) {
        if (!is_candidate(text, at, &found)) {
            continue;
        }
        size_t blank = at; /* the last one since the last candidate */
        while (blank > last.at && !is_any(text->c[blank], " \t\n\r\v\f")) {
            blank--;
        }
        found.word = blank > last.at ? blank + 1 : last.word;
        if (any && last.at <= found.word) {
            TRY(try_candidate(t, &last, &start, error));
        }
        last = found;
        any = true;
    }
    if (any) {
        TRY(try_candidate(t, &last, &start, error));
    }
    size_t end = text->n;
    while (end > 0 && unicode_is_space(text->c[end - 1])) {
        end--;
    }
    return add_span(t, start, end, error);
}

/* Closing quotes and brackets at the beginning of a sentence that belong to the one before: their number; *skip counts
 * the white space behind them too. */
static size_t closers(const struct text32 *text, struct sentence_span span, size_t *skip) {
    size_t n = 0;
    for (size_t i = span.start; i < span.end && is_any(text->c[i], "\"')]}"); n++) {
        size_t next = ++i;
        while (next < span.end && unicode_is_space(text->c[next])) {
            next++;
        }
        const bool hyphens = next + 1 < span.end && text->c[next] == '-' && text->c[next + 1] == '-';
        if (next > i || next == span.end || hyphens) {
            *skip = next - span.start;
            return n + 1;
        }
    }
    return 0;
}

candid_status sentences_split(struct word_tokenizer *t, candid_error *error) {
    t->n_spans = 0;
    TRY(split(t, error));
    size_t n = 0, skip = 0;
    for (size_t i = 0; i < t->n_spans; i++) {
        struct sentence_span span = t->spans[i];
        span.start += skip;
        skip = 0;
        const size_t n_closers = i + 1 < t->n_spans ? closers(&t->text, t->spans[i + 1], &skip) : 0;
        if (n_closers > 0) {
            span.end = t->spans[i + 1].start + n_closers;
        }
        if (span.start < span.end) {
            t->spans[n++] = span;
        }
    }
    t->n_spans = n;
    return CANDID_OK;
}

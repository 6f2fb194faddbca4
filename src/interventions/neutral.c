/*
 * The rules: opinions in front are dropped ("I think", "surely"), tags at the end ("right?", "isn't it?"), negations of
 * the first verb ("isn't there" becomes "is there"); what is then a statement becomes a question again.
 */
#include "interventions/neutral.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Opinions in front of a question or statement, longest first where one begins another. */
static const char *const openings[] = {
    "don't you think that ",
    "don't you think ",
    "wouldn't you agree that ",
    "wouldn't you agree ",
    "wouldn't you say that ",
    "wouldn't you say ",
    "don't you agree that ",
    "don't you agree ",
    "i am pretty sure that ",
    "i am pretty sure ",
    "i'm pretty sure that ",
    "i'm pretty sure ",
    "i am sure that ",
    "i am sure ",
    "i'm sure that ",
    "i'm sure ",
    "i think that ",
    "i think ",
    "i believe that ",
    "i believe ",
    "i guess that ",
    "i guess ",
    "i bet that ",
    "i bet ",
    "as you can see, ",
    "as we can see, ",
    "as everyone can see, ",
    "of course, ",
    "of course ",
    "surely, ",
    "surely ",
    "obviously, ",
    "obviously ",
    "clearly, ",
    "clearly ",
    "it is obvious that ",
    "it's obvious that ",
    "it is clear that ",
    "it's clear that ",
};

/* What a negated verb at the start of a question becomes. */
static const char *const verbs[][2] = {
    {"isn't", "is"},       {"aren't", "are"},       {"wasn't", "was"}, {"weren't", "were"},   {"doesn't", "does"},
    {"don't", "do"},       {"didn't", "did"},       {"can't", "can"},  {"couldn't", "could"}, {"won't", "will"},
    {"wouldn't", "would"}, {"shouldn't", "should"}, {"hasn't", "has"}, {"haven't", "have"},   {"hadn't", "had"},
};

/* Tags at the end beside "…n't it" and "… it". */
static const char *const tags[] = {
    "right",
    "correct",
    "no",
    "yes",
    "okay",
    "ok",
    "true",
    "am i right",
    "am i correct",
    "don't you think",
    "wouldn't you say",
    "wouldn't you agree",
    "don't you agree",
    "you see",
};

static const char *const pronouns[] = {"it",   "he",  "she", "they", "there", "this",
                                       "that", "you", "we",  "i",    "these", "those"};

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* Apostrophes may be typographic (U+2019): the same length of text, else the rules need every form twice. */
static void plain_apostrophes(char *text) {
    char *to = text;
    for (const char *from = text; *from;) {
        if (memcmp(from, "\xe2\x80\x99", strnlen(from, 3)) == 0 && strnlen(from, 3) == 3) {
            *to++ = '\'';
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

static bool begins(const char *text, const char *with) {
    return strncasecmp(text, with, strlen(with)) == 0;
}

/* Whether `text` of n bytes is `word`, but for case. */
static bool is_word(const char *text, size_t n, const char *word) {
    return strlen(word) == n && strncasecmp(text, word, n) == 0;
}

static bool is_pronoun(const char *text, size_t n) {
    for (size_t i = 0; i < COUNT(pronouns); i++) {
        if (is_word(text, n, pronouns[i])) {
            return true;
        }
    }
    return false;
}

static bool is_verb(const char *text, size_t n, bool *negated) {
    for (size_t i = 0; i < COUNT(verbs); i++) {
        for (int k = 0; k < 2; k++) {
            if (is_word(text, n, verbs[i][k])) {
                *negated = k == 0;
                return true;
            }
        }
    }
    return false;
}

/* Whether `text` (n bytes, no question mark) is only a tag. */
static bool is_tag(const char *text, size_t n) {
    while (n > 0 && text[0] == ' ') {
        text++;
        n--;
    }
    while (n > 0 && text[n - 1] == ' ') {
        n--;
    }
    for (size_t i = 0; i < COUNT(tags); i++) {
        if (is_word(text, n, tags[i])) {
            return true;
        }
    }
    bool negated;
    const char *space = memchr(text, ' ', n);
    return space && is_verb(text, (size_t)(space - text), &negated) &&
           is_pronoun(space + 1, n - (size_t)(space + 1 - text));
}

/* The sentence under work. */
struct sentence {
    char *text; /* NUL-terminated, without the mark at its end */
    bool statement;
    bool changed;
};

static void drop_front(struct sentence *s, size_t n) {
    memmove(s->text, s->text + n, strlen(s->text + n) + 1);
    s->changed = true;
}

static void drop_openings(struct sentence *s) {
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < COUNT(openings) && !again; i++) {
            if (begins(s->text, openings[i])) {
                drop_front(s, strlen(openings[i]));
                s->statement = true;
                again = true;
            }
        }
    }
}

static void drop_tag(struct sentence *s) {
    char *comma = strrchr(s->text, ',');
    if (comma && is_tag(comma + 1, strlen(comma + 1))) {
        *comma = '\0';
        s->statement = s->changed = true;
    }
}

/* "Isn't there" -> "Is there". Only where it begins the sentence: elsewhere a negation is what is asked about. */
static void drop_negation(struct sentence *s) {
    const size_t n = strcspn(s->text, " ");
    for (size_t i = 0; i < COUNT(verbs); i++) {
        if (is_word(s->text, n, verbs[i][0])) {
            const size_t keep = strlen(verbs[i][1]);
            const char first = s->text[0];
            memcpy(s->text, verbs[i][1], keep);
            s->text[0] = isupper((unsigned char)first) ? (char)toupper((unsigned char)s->text[0]) : s->text[0];
            memmove(s->text + keep, s->text + n, strlen(s->text + n) + 1);
            s->statement = false;
            s->changed = true;
            return;
        }
    }
}

/* The question of a statement: "there is a dog" -> "Is there a dog", else "Is it true or not that …". */
static char *question_of(const struct sentence *s) {
    char *out = malloc(strlen(s->text) + 40);
    if (!out) {
        return NULL;
    }
    const char *const subjects[] = {"there", "this", "that", "it", "these", "those", "they", "he", "she"};
    bool negated = false;
    const size_t n = strcspn(s->text, " ");
    const char *verb = s->text + n + (s->text[n] == ' ');
    const size_t n_verb = strcspn(verb, " ");
    for (size_t i = 0; i < COUNT(subjects) && *verb; i++) {
        if (is_word(s->text, n, subjects[i]) && is_verb(verb, n_verb, &negated) && !negated) {
            memcpy(out, verb, n_verb);
            out[0] = (char)toupper((unsigned char)out[0]);
            out[n_verb] = ' ';
            memcpy(out + n_verb + 1, s->text, n);
            out[n_verb + 1] = (char)tolower((unsigned char)out[n_verb + 1]);
            strcpy(out + n_verb + 1 + n, verb + n_verb);
            return out;
        }
    }
    strcpy(out, "Is it true or not that ");
    const size_t at = strlen(out);
    strcpy(out + at, s->text);
    const bool name = s->text[0] == 'I' && (s->text[1] == ' ' || s->text[1] == '\'');
    out[at] = name ? out[at] : (char)tolower((unsigned char)out[at]);
    return out;
}

static void capitalise(char *text) {
    text[0] = (char)toupper((unsigned char)text[0]);
}

/* Where the sentence that holds `end` begins: after the last mark or line break, with white space skipped. */
static size_t sentence_start(const char *text, size_t end) {
    size_t i = end;
    while (i > 0 && !strchr(".!?\n", text[i - 1])) {
        i--;
    }
    while (i < end && (isspace((unsigned char)text[i]) || strncmp(text + i, "<image>", 7) == 0)) {
        i += text[i] == '<' ? 7 : 1;
    }
    return i;
}

char *neutral_request(const char *request, bool *changed) {
    *changed = false;
    const size_t size = strlen(request);
    char *text = malloc(size + 1), *out = NULL, *question = NULL;
    struct sentence s = {.text = malloc(size + 1)};
    if (!text || !s.text) {
        goto done;
    }
    memcpy(text, request, size + 1);
    plain_apostrophes(text);
    const char *mark = strchr(text, '?');
    if (!mark) {
        goto same;
    }
    size_t end = (size_t)(mark - text), begin = sentence_start(text, end);
    size_t last = end;
    if (begin > 1 && is_tag(text + begin, end - begin)) { /* "The cup is red. Isn't it?" */
        for (last = begin - 1; last > 0 && (isspace((unsigned char)text[last]) || strchr(".!", text[last])); last--) {
        }
        last++;
        begin = sentence_start(text, last);
        s.statement = s.changed = true;
    }
    memcpy(s.text, text + begin, last - begin);
    s.text[last - begin] = '\0';
    drop_openings(&s);
    drop_tag(&s);
    drop_negation(&s);
    if (!s.changed || !s.text[0]) {
        goto same;
    }
    question = s.statement ? question_of(&s) : strdup(s.text);
    out = question ? malloc(begin + strlen(question) + strlen(text + end) + 1) : NULL;
    if (out) {
        capitalise(question);
        memcpy(out, text, begin);
        strcpy(out + begin, question);
        strcat(out, text + end);
        *changed = true;
    }
    goto done;
same:
    out = strdup(request);
done:
    free(question);
    free(s.text);
    free(text);
    return out;
}

/* How public programs read "yes" or "no" from an answer. Every rule reads the bytes in place, without a copy. */
#include <string.h>

#include "eval/common/python_text.h"
#include "eval/pope/pope.h"

/* Whether the word, after the bytes in `dropped` are taken out of it, equals `wanted`. */
static bool equals_without(const char *word, size_t size, const char *dropped, const char *wanted) {
    for (size_t i = 0; i < size; i++) {
        if (strchr(dropped, word[i])) {
            continue;
        }
        if (*wanted == '\0' || word[i] != *wanted) {
            return false;
        }
        wanted++;
    }
    return *wanted == '\0';
}

/* Whether the word without those bytes ends in `tail`. */
static bool ends_without(const char *word, size_t size, const char *dropped, const char *tail) {
    size_t left = strlen(tail);
    while (size > 0 && left > 0) {
        const char c = word[--size];
        if (strchr(dropped, c)) {
            continue;
        }
        if (c != tail[--left]) {
            return false;
        }
    }
    return left == 0;
}

static const char *word_end(const char *word, const char *end) {
    const char *blank = memchr(word, ' ', (size_t)(end - word));
    return blank ? blank : end;
}

/* POPE's evaluate.py: the first sentence without commas has the word No, not or no. */
static enum pope_verdict read_official(const char *answer, bool gold_yes) {
    const char *end = answer + strcspn(answer, ".");
    for (const char *word = answer;; word++) {
        const char *stop = word_end(word, end);
        const size_t size = (size_t)(stop - word);
        if (equals_without(word, size, ",", "No") || equals_without(word, size, ",", "not") ||
            equals_without(word, size, ",", "no")) {
            return POPE_NO;
        }
        if (stop == end) {
            return POPE_YES;
        }
        word = stop;
    }
}

/* OPERA's recorder: the text without full stops and commas has the word No, not, no or NO, or one that ends in n't. */
static enum pope_verdict read_opera(const char *answer, bool gold_yes) {
    static const char *const words[] = {"No", "not", "no", "NO"};
    const char *end = answer + strlen(answer);
    for (const char *word = answer;; word++) {
        const char *stop = word_end(word, end);
        const size_t size = (size_t)(stop - word);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            if (equals_without(word, size, ".,", words[i])) {
                return POPE_NO;
            }
        }
        if (ends_without(word, size, ".,", "n't")) {
            return POPE_NO;
        }
        if (stop == end) {
            return POPE_YES;
        }
        word = stop;
    }
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

/* VCD's eval_pope.py: is the substring there that would be right? */
static enum pope_verdict read_vcd(const char *answer, bool gold_yes) {
    bool yes = false, no = false;
    for (const char *c = answer; *c; c++) {
        yes = yes || (lower(c[0]) == 'y' && lower(c[1]) == 'e' && lower(c[2]) == 's');
        no = no || (lower(c[0]) == 'n' && lower(c[1]) == 'o');
    }
    return (gold_yes ? yes : !no) ? POPE_YES : POPE_NO;
}

/* lmms-eval's pope task: the whole answer is "yes" or "no". */
static enum pope_verdict read_lmms_eval(const char *answer, bool gold_yes) {
    size_t size = strlen(answer);
    answer = python_strip(answer, &size);
    if (size == 3 && lower(answer[0]) == 'y' && lower(answer[1]) == 'e' && lower(answer[2]) == 's') {
        return POPE_YES;
    }
    return size == 2 && lower(answer[0]) == 'n' && lower(answer[1]) == 'o' ? POPE_NO : POPE_UNKNOWN;
}

static bool digit(char c) {
    return c >= '0' && c <= '9';
}

/* What VLMEvalKit's process_punctuation makes of a byte: itself, ' ', or '\0' for nothing. */
struct punctuation {
    bool deleted[256]; /* punctuation that stands next to a blank somewhere; all of it with a comma between digits */
};

static const char punctuation_marks[] = ";/[]\"{}()=+\\_-><@`,?!";

static struct punctuation punctuation_of(const char *text) {
    struct punctuation p = {{false}};
    bool all = false;
    for (const char *c = text; *c; c++) {
        const char before = c > text ? c[-1] : '\0';
        all = all || (*c == ',' && digit(before) && digit(c[1]));
        p.deleted[(unsigned char)*c] |= before == ' ' || c[1] == ' ';
    }
    for (int i = 0; all && i < 256; i++) {
        p.deleted[i] = true;
    }
    return p;
}

/* One word of the processed text against "yes" and "no". */
struct word_match {
    size_t n;     /* bytes so far */
    bool yes, no; /* they are the beginning of */
    bool has_yes, has_no;
};

static void match_byte(struct word_match *m, char c) {
    m->yes = m->yes && m->n < 3 && c == "yes"[m->n];
    m->no = m->no && m->n < 2 && c == "no"[m->n];
    m->n++;
}

static void match_end(struct word_match *m) {
    m->has_yes |= m->yes && m->n == 3;
    m->has_no |= m->no && m->n == 2;
    m->n = 0;
    m->yes = m->no = true;
}

/* VLMEvalKit's YOrN_Extraction: one of the words yes and no is there after punctuation is taken out, the other not. */
static enum pope_verdict read_vlmevalkit(const char *answer, bool gold_yes) {
    const struct punctuation p = punctuation_of(answer);
    struct word_match m = {0, true, true, false, false};
    int n_dots = 0;
    for (const char *c = answer; *c;) {
        const size_t space = python_space(c);
        if (space > 0) {
            match_end(&m);
            c += space;
            continue;
        }
        const bool mark = strchr(punctuation_marks, *c) != NULL;
        if (mark && !p.deleted[(unsigned char)*c]) {
            match_end(&m); /* becomes a blank */
        } else if (*c == '.' && n_dots < 32 && !(c > answer && digit(c[-1]) && digit(c[1]))) {
            n_dots++; /* a flag passed as the count argument: only the first 32 are taken out */
        } else if (!mark) {
            match_byte(&m, lower(*c));
        }
        c++;
    }
    match_end(&m);
    return m.has_yes == m.has_no ? POPE_UNKNOWN : m.has_yes ? POPE_YES : POPE_NO;
}

#define OFFICIAL read_official, POPE_COUNTS_PLAIN
#define OPERA    read_opera, POPE_COUNTS_PLAIN
#define VCD      read_vcd, POPE_COUNTS_PLAIN

const struct pope_rule pope_rules[] = {
    {"official", NULL,
     "POPE's evaluate.py: no, if the first sentence has the word No, not or no; else yes (so \"NO\" and \"No!\" are "
     "yes)",
     OFFICIAL},
    {"llava", "official", NULL, OFFICIAL},
    {"cca", "official", NULL, OFFICIAL},
    {"opera", NULL,
     "OPERA's pope_eval.py: no, if the text has the word No, not, no or NO or a word that ends in n't; else yes",
     OPERA},
    {"halc", "opera", NULL, OPERA},
    {"pai", "opera", NULL, OPERA},
    {"vista", "opera", NULL, OPERA},
    {"vcd", NULL,
     "VCD's eval_pope.py: right, if the letters of the label are somewhere in the text (\"know\" has a no), else the "
     "opposite of the label",
     VCD},
    {"agla", "vcd", NULL, VCD},
    {"damro", "vcd", NULL, VCD},
    {"causalmm", "vcd", NULL, VCD},
    {"lmms-eval", NULL,
     "lmms-eval's pope task: the whole text must be yes or no (\"Yes.\" is wrong); its yes ratio is that of the labels",
     read_lmms_eval, POPE_COUNTS_LMMS_EVAL},
    {"vlmevalkit", NULL,
     "VLMEvalKit without a judge model: the word yes and not no, or the other way round; else unknown, which is wrong",
     read_vlmevalkit, POPE_COUNTS_VLMEVALKIT},
};
const size_t n_pope_rules = sizeof pope_rules / sizeof *pope_rules;

const struct pope_rule *pope_rule_find(const char *name) {
    for (size_t i = 0; i < n_pope_rules; i++) {
        if (strcmp(pope_rules[i].name, name) == 0) {
            return &pope_rules[i];
        }
    }
    return NULL;
}

const char *pope_verdict_name(enum pope_verdict verdict) {
    return verdict == POPE_YES ? "yes" : verdict == POPE_NO ? "no" : "unknown";
}

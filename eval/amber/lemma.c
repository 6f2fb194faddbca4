/*
 * NLTK's WordNetLemmatizer for nouns, as far as AMBER's vocabulary goes: of the forms that WordNet's suffix rules make
 * of a word (and the word itself), the shortest one that is a noun of WordNet, the first of equals. What is a noun is
 * known for the vocabulary, and for the few words beside it that would win over one of its words ("vases" is a form of
 * "vas" there). Lists made with WordNet 3.0 (wordnet.princeton.edu) and NLTK 3.8.1.
 */
#include <stdio.h>
#include <string.h>

#include "eval/amber/data.h"

/* Words of the vocabulary that WordNet does not have as nouns. */
static const char *const no_nouns[] = {
    "TV",        "air-conditioning", "baconic",   "bedsheet", "cann",      "cathole", "chopsticks",   "closestool",
    "cooktop",   "doghole",          "e-book",    "earing",   "earrings",  "ebook",   "electrombile", "hot",
    "kiwifruit", "paraglider",       "pissoir",   "rpoe",     "sanitizer", "scoon",   "seegull",      "showerpuff",
    "slippers",  "streetlamp",       "waterfont",
};

/* Nouns beside the vocabulary that its forms may become. */
static const char *const other_nouns[] = {
    "bars",   "boards",  "bowls",    "bridges", "buss",    "cards",   "chopstick", "clocks", "cords",
    "cows",   "deserts", "earring",  "eggs",    "glasses", "grounds", "groves",    "leaf",   "manse",
    "men",    "papers",  "peoples",  "rails",   "rings",   "roads",   "sands",     "shoes",  "slipper",
    "stairs", "strings", "sunglass", "taps",    "tigers",  "va",      "vas",       "waters", "windows",
};

/* WordNet's irregular forms, with the shortest basic form. */
static const char *const irregular[][2] = {
    {"busses", "bus"},  {"camerae", "camera"}, {"children", "child"}, {"geese", "goose"},     {"knives", "knife"},
    {"leaves", "leaf"}, {"men", "men"},        {"mice", "mouse"},     {"potatoes", "potato"}, {"tomatoes", "tomato"},
};

static const char *const suffixes[][2] = {
    {"s", ""},      {"ses", "s"},   {"ves", "f"},   {"xes", "x"}, {"zes", "z"},
    {"ches", "ch"}, {"shes", "sh"}, {"men", "man"}, {"ies", "y"},
};

enum { N_SUFFIXES = sizeof suffixes / sizeof *suffixes };

static bool is_among(const char *const list[], size_t n, const char *word) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], word) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_noun(const struct amber_data *data, const char *word) {
    return amber_word_find(data, word) >= 0 ? !is_among(no_nouns, sizeof no_nouns / sizeof *no_nouns, word)
                                            : is_among(other_nouns, sizeof other_nouns / sizeof *other_nouns, word);
}

/* The word with suffix k replaced; false when it ends otherwise. */
static bool replace_suffix(const char *word, int k, char out[AMBER_LEMMA]) {
    const size_t n = strlen(word), cut = strlen(suffixes[k][0]);
    if (n < cut || strcmp(word + n - cut, suffixes[k][0]) != 0) {
        return false;
    }
    snprintf(out, AMBER_LEMMA, "%.*s%s", (int)(n - cut), word, suffixes[k][1]);
    return true;
}

static void keep_shorter(const struct amber_data *data, const char *form, char best[AMBER_LEMMA]) {
    if (is_noun(data, form) && (best[0] == '\0' || strlen(form) < strlen(best))) {
        snprintf(best, AMBER_LEMMA, "%s", form);
    }
}

const char *amber_lemma(const struct amber_data *data, const char *word, char buffer[AMBER_LEMMA]) {
    if (strlen(word) >= AMBER_LEMMA) {
        return word;
    }
    for (size_t i = 0; i < sizeof irregular / sizeof *irregular; i++) {
        if (strcmp(irregular[i][0], word) == 0) {
            return irregular[i][1];
        }
    }
    char form[AMBER_LEMMA], again[AMBER_LEMMA];
    buffer[0] = '\0';
    keep_shorter(data, word, buffer);
    for (int k = 0; k < N_SUFFIXES; k++) {
        if (replace_suffix(word, k, form)) {
            keep_shorter(data, form, buffer);
        }
    }
    /* A second round only where the first one found nothing: "dogss". */
    const int n_again = buffer[0] == '\0' ? N_SUFFIXES * N_SUFFIXES : 0;
    for (int k = 0; k < n_again; k++) {
        if (replace_suffix(word, k / N_SUFFIXES, form) && replace_suffix(form, k % N_SUFFIXES, again)) {
            keep_shorter(data, again, buffer);
        }
    }
    return buffer[0] ? buffer : word;
}

/* Words of a verdict in an answer. */
#include "eval/report/marks.h"

#include <ctype.h>
#include <string.h>

#include "core/json.h"

/* Part of a word: letters, digits, whatever is beyond ASCII, and a hyphen between such. */
static bool in_word(char c) {
    return isalnum((unsigned char)c) || ((unsigned char)c & 0x80);
}

/* Bytes that `word` takes at `at`, 0 when it does not stand there. */
static size_t match(const char *at, const char *word) {
    const char *begin = at;
    for (; *word; word++) {
        if (*word == ' ') {
            const size_t n = strspn(at, " \t\r\n");
            if (n == 0) {
                return 0;
            }
            at += n;
        } else if (tolower((unsigned char)*at++) != tolower((unsigned char)*word)) {
            return 0;
        }
    }
    return in_word(*at) || (*at == '-' && in_word(at[1])) ? 0 : (size_t)(at - begin);
}

static bool find(const char *answer, size_t from, const char *word, struct mark *mark) {
    for (size_t i = from; answer[i] && *word; i++) {
        const bool begins =
            i == 0 || !(in_word(answer[i - 1]) || (answer[i - 1] == '-' && i > 1 && in_word(answer[i - 2])));
        const size_t n = begins ? match(answer + i, word) : 0;
        if (n > 0) {
            mark->begin = i;
            mark->end = i + n;
            return true;
        }
    }
    return false;
}

/* AMBER: the noun is one of the hallucinated. */
static bool is_listed(const cJSON *list, const char *word) {
    for (const cJSON *item = list->child; item; item = item->next) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, word) == 0) {
            return true;
        }
    }
    return false;
}

size_t marks_find(const char *answer, const cJSON *verdict, struct mark *marks, size_t capacity) {
    const cJSON *objects = json_find(verdict, "objects"), *nouns = json_find(verdict, "nouns"),
                *wrong = json_find(verdict, "hallucinated");
    const cJSON *list = cJSON_IsArray(objects) ? objects : cJSON_IsArray(nouns) && cJSON_IsArray(wrong) ? nouns : NULL;
    size_t n = 0, from = 0;
    for (const cJSON *item = list ? list->child : NULL; item && n < capacity; item = item->next) {
        const char *word = cJSON_GetStringValue(list == objects ? json_find(item, "word") : item);
        if (!word || !find(answer, from, word, &marks[n])) {
            continue;
        }
        marks[n].hallucinated =
            list == objects ? cJSON_IsTrue(json_find(item, "hallucinated")) : is_listed(wrong, word);
        from = marks[n++].end;
    }
    return n;
}

/* candid eval export: answers in the forms that other programs read. */
#include <stdlib.h>
#include <string.h>

#include "cli/eval.h"
#include "core/json.h"
#include "eval/common/json_objects.h"

static const char help_text[] =
    "Usage: candid eval export RUN.jsonl --format NAME [--split NAME] [-o FILE]\n\n"
    "Writes the answers of a run, in the order of its questions, as JSON lines in the form that another program "
    "reads:\n"
    "  pope   {\"question\", \"answer\"}: the official evaluate.py, one file per split\n"
    "  llava  {\"question_id\", \"prompt\", \"text\"}: LLaVA's eval_pope.py; VCD's, AGLA's\n"
    "  opera  {\"image_id\", \"caption\"}: chair.py\n";

enum format { POPE, LLAVA, OPERA, N_FORMATS };
static const char *const formats[N_FORMATS] = {"pope", "llava", "opera"};

static double index_of(const cJSON *line) {
    const cJSON *index = json_find(line, "index");
    return cJSON_IsNumber(index) ? index->valuedouble : 0;
}

static int by_index(const void *a, const void *b) {
    const double x = index_of(*(cJSON *const *)a), y = index_of(*(cJSON *const *)b);
    return (x > y) - (x < y);
}

/* Ids are numbers where the number is written the same: "007" is none. */
static void add_id(cJSON *to, const char *key, const char *id) {
    cJSON *number = cJSON_Parse(id ? id : "");
    char *text = cJSON_IsNumber(number) ? cJSON_PrintUnformatted(number) : NULL;
    if (text && strcmp(text, id) == 0) {
        cJSON_AddItemToObject(to, key, number);
    } else {
        cJSON_AddStringToObject(to, key, id ? id : "");
        cJSON_Delete(number);
    }
    cJSON_free(text);
}

static void add_text(cJSON *to, const char *key, const cJSON *line, const char *from) {
    const char *text = cJSON_GetStringValue(json_find(line, from));
    cJSON_AddStringToObject(to, key, text ? text : "");
}

static cJSON *converted(enum format format, const cJSON *line) {
    cJSON *out = cJSON_CreateObject();
    const char *id = cJSON_GetStringValue(json_find(line, "id"));
    switch (format) {
    case POPE:
        add_text(out, "question", line, "question");
        add_text(out, "answer", line, "answer");
        break;
    case LLAVA:
        add_id(out, "question_id", id);
        add_text(out, "prompt", line, "question");
        add_text(out, "text", line, "answer");
        break;
    default:
        add_id(out, "image_id", id);
        add_text(out, "caption", line, "answer");
        break;
    }
    return out;
}

static int export(const char *path, enum format format, const char *split, FILE *to) {
    struct json_objects lines = {0};
    candid_error error;
    if (json_objects_read(path, &lines, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    qsort(lines.items, lines.n, sizeof *lines.items, by_index);
    size_t n = 0;
    int code = EXIT_OK;
    for (size_t i = 0; code == EXIT_OK && i < lines.n; i++) {
        const char *of = cJSON_GetStringValue(json_find(lines.items[i], "split"));
        if (split && (!of || strcmp(of, split) != 0)) {
            continue;
        }
        if (!json_find(lines.items[i], "answer")) {
            complain("%s: question %.0f has no answer: the other program would take the next one for its", path,
                     index_of(lines.items[i]));
            code = EXIT_ITEM;
            break;
        }
        cJSON *out = converted(format, lines.items[i]);
        char *text = cJSON_PrintUnformatted(out);
        code = text && fprintf(to, "%s\n", text) > 0 ? EXIT_OK : EXIT_OUTPUT;
        cJSON_free(text);
        cJSON_Delete(out);
        n++;
    }
    if (code == EXIT_OK && n == 0) {
        complain("%s: holds no answers%s%s", path, split ? " of split " : "", split ? split : "");
        code = EXIT_ITEM;
    }
    json_objects_free(&lines);
    return code;
}

int eval_export(int argc, char **argv) {
    const char *path = NULL, *format = NULL, *split = NULL, *out = NULL;
    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (strcmp(argv[i], "--help") == 0) {
            fputs(help_text, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--format") == 0 && more) {
            format = argv[++i];
        } else if (strcmp(argv[i], "--split") == 0 && more) {
            split = argv[++i];
        } else if (strcmp(argv[i], "-o") == 0 && more) {
            out = argv[++i];
        } else if (!path && argv[i][0] != '-') {
            path = argv[i];
        } else {
            complain("\"%s\": see candid eval export --help", argv[i]);
            return EXIT_USAGE;
        }
    }
    int f = 0;
    while (f < N_FORMATS && !(format && strcmp(formats[f], format) == 0)) {
        f++;
    }
    if (!path || f == N_FORMATS) {
        complain("expected RUN.jsonl and --format pope, llava or opera; see candid eval export --help");
        return EXIT_USAGE;
    }
    FILE *to = out ? fopen(out, "w") : stdout;
    if (!to) {
        complain("%s: cannot write", out);
        return EXIT_OUTPUT;
    }
    const int code = export(path, (enum format)f, split, to);
    if ((out ? fclose(to) : fflush(to)) != 0) {
        complain("%s: cannot write", out ? out : "standard output");
        return EXIT_OUTPUT;
    }
    return code;
}

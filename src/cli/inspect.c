/* candid inspect: where the model looked when it said a word, as pictures and a page. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/inspect.h"
#include "core/file.h"
#include "core/status.h"
#include "interventions/look_twice.h"

#define DEFAULT_WORDS 8
#define MOST_WORDS    64

static const char help[] =
    "Usage: candid inspect IMAGE --out DIR [-q QUESTION] [--words N|all|WORD,WORD...] [options]\n\n"
    "Answers the question about the image and shows where the model looked when it began each word: pictures of the\n"
    "attention over the image, maps of heads, inspect.json with all numbers and index.html, one page with everything.\n"
    "With methods (--config, --set) the same answer is looked at twice, without and with them.\n\n"
    "  --out DIR               directory for the results; made if needed, other files in it are left alone\n"
    "  -q, --question TEXT     default \"" CAPTION_PROMPT "\"\n"
    "  --words N               the first N words of the answer that may name things (default 8)\n"
    "  --words all             every word; at most 64 in any case\n"
    "  --words WORD,WORD...    these words, wherever they occur\n";

/* What only this command knows. */
struct own_options {
    const char *out, *words;
};

/* Takes this command's options out of argv; false after a complaint. */
static bool take_own(int *argc, char **argv, struct own_options *own) {
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        const char **target = strncmp(argv[i], "--out", 5) == 0     ? &own->out
                              : strncmp(argv[i], "--words", 7) == 0 ? &own->words
                                                                    : NULL;
        const char *rest = target ? argv[i] + (target == &own->out ? 5 : 7) : "";
        if (strcmp(argv[i], "--") == 0) {
            while (i < *argc) {
                argv[kept++] = argv[i++];
            }
        } else if (!target || (*rest && *rest != '=')) {
            argv[kept++] = argv[i];
        } else if (*rest) {
            *target = rest + 1;
        } else if (i + 1 < *argc) {
            *target = argv[++i];
        } else {
            complain("%s needs a value; see candid inspect --help", argv[i]);
            return false;
        }
    }
    argv[kept] = NULL;
    *argc = kept;
    return true;
}

/* The command line as it can be typed again. Must be freed. */
static char *join_command(int argc, char **argv) {
    size_t size = 8;
    for (int i = 0; i < argc; i++) {
        size += 4 * strlen(argv[i]) + 3;
    }
    char *text = malloc(size), *at = text;
    if (!text) {
        return NULL;
    }
    at += sprintf(at, "candid");
    for (int i = 0; i < argc; i++) {
        static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:+@%";
        const bool quoted = !argv[i][0] || argv[i][strspn(argv[i], plain)];
        *at++ = ' ';
        if (quoted) {
            *at++ = '\'';
        }
        for (const char *c = argv[i]; *c; c++) {
            at += *c == '\'' ? sprintf(at, "'\\''") : sprintf(at, "%c", *c);
        }
        if (quoted) {
            *at++ = '\'';
        }
    }
    *at = '\0';
    return text;
}

/* ---- words --------------------------------------------------------------------------------------- */

/* A list of words rather than a number or "all". */
static bool is_list(const char *words) {
    return words && strcmp(words, "all") != 0 && words[strspn(words, "0123456789")];
}

static bool listed(const char *list, const char *word, size_t size) {
    for (const char *item = list, *end; *item; item = end + (*end == ',')) {
        end = strchrnul(item, ',');
        if (word_equals(item, (size_t)(end - item), word, size)) {
            return true;
        }
    }
    return false;
}

/* A content word that stands earlier in the answer. */
static bool seen_before(const struct answer_words *a, size_t k) {
    for (size_t i = 0; i < k; i++) {
        if (word_equals(a->text + a->words[i].begin, a->words[i].end - a->words[i].begin, a->text + a->words[k].begin,
                        a->words[k].end - a->words[k].begin)) {
            return true;
        }
    }
    return false;
}

static bool chosen(const struct inspection *in, const char *words, size_t k) {
    const struct word *w = &in->answer.words[k];
    const char *text = in->answer.text + w->begin;
    const size_t size = w->end - w->begin;
    if (words && strcmp(words, "all") == 0) {
        return true;
    }
    return is_list(words) ? listed(words, text, size) : word_is_content(text, size) && !seen_before(&in->answer, k);
}

/* Says which words of the list the answer does not have. */
static void warn_missing(const struct inspection *in, const char *list) {
    for (const char *item = list, *end; *item; item = end + (*end == ',')) {
        end = strchrnul(item, ',');
        bool found = end == item;
        for (size_t k = 0; k < in->answer.n_words && !found; k++) {
            const struct word *w = &in->answer.words[k];
            found = word_equals(item, (size_t)(end - item), in->answer.text + w->begin, w->end - w->begin);
        }
        if (!found) {
            fprintf(stderr, "candid: warning: the answer has no word \"%.*s\"\n", (int)(end - item), item);
        }
    }
}

/* The answer may end before its last token: at a stop text. */
static size_t answer_end(const struct inspection *in) {
    const char *text = in->answer.text + strspn(in->answer.text, " \t\r\n");
    const size_t size = strlen(in->result->text);
    const bool cut = strncmp(text, in->result->text, size) == 0;
    return cut ? (size_t)(text - in->answer.text) + size : in->answer.size;
}

static candid_status choose_words(struct inspection *in, const char *words, candid_error *error) {
    TRY(answer_words_make(in->model->tokenizer, in->result->tokens, in->result->n_tokens, &in->answer, error));
    const size_t asked = !words                              ? DEFAULT_WORDS
                         : is_list(words) || words[0] == 'a' ? MOST_WORDS
                                                             : strtoul(words, NULL, 10);
    const size_t most = asked < MOST_WORDS ? asked : MOST_WORDS, end = answer_end(in);
    in->words = calloc(most + 1, sizeof *in->words);
    if (!in->words) {
        return fail_memory(error, "words", most * sizeof *in->words);
    }
    size_t more = 0;
    for (size_t k = 0; k < in->answer.n_words && in->answer.words[k].begin < end; k++) {
        if (chosen(in, words, k)) {
            if (in->n_words < most) {
                in->words[in->n_words++] = in->answer.words[k];
            } else {
                more++;
            }
        }
    }
    if (more > 0 && most == MOST_WORDS) {
        fprintf(stderr, "candid: warning: only the first %d words are inspected, %zu more are not\n", MOST_WORDS, more);
    }
    if (is_list(words)) {
        warn_missing(in, words);
    }
    if (in->n_words == 0 && in->result->text[0]) {
        fprintf(stderr, "candid: warning: no word of the answer is inspected: \"%s\"\n", in->result->text);
    }
    return CANDID_OK;
}

/* ---- the command ----------------------------------------------------------------------------------- */

/* Makes the directory, or finds that it may be written to: it may hold an index.html of ours, but of nobody else. */
static int prepare_directory(const char *out) {
    if (mkdir(out, 0777) != 0 && errno != EEXIST) {
        complain("%s: cannot make the directory: %s", out, strerror(errno));
        return EXIT_OUTPUT;
    }
    if (!file_is_directory(out)) {
        complain("%s: expected a directory, found a file", out);
        return EXIT_OUTPUT;
    }
    char *page = NULL, *data = NULL;
    const bool ok = file_join(out, "index.html", &page, NULL) == CANDID_OK &&
                    file_join(out, "inspect.json", &data, NULL) == CANDID_OK;
    const bool foreign = ok && file_exists(page) && !file_exists(data);
    free(page);
    free(data);
    if (!ok || foreign) {
        complain("%s: %s", out, ok ? "holds an index.html that is not of candid inspect" : "out of memory");
        return EXIT_OUTPUT;
    }
    return EXIT_OK;
}

static candid_status answer(struct inspection *in, candid_error *error) {
    const struct run_options *o = in->options;
    candid_context_params params = candid_context_params_default();
    params.n_ctx = o->n_ctx;
    params.kv_type = o->kv_type;
    TRY(candid_image_load(in->path, &in->image, error));
    TRY(candid_context_create(in->model, &params, &in->context, error));
    const candid_image *images[] = {in->image};
    return candid_generate(in->context, images, 1, o->prompt, &o->generate, &in->result, error);
}

static candid_status run_all(struct inspection *in, const char *words, candid_error *error) {
    TRY(answer(in, error));
    in->model->log = (struct logger){0}; /* the runs to come would only repeat the warnings */
    TRY(choose_words(in, words, error));
    in->has_after = strcmp(in->result->interventions, "{}") != 0;
    TRY(inspect_record(in, error));
    TRY(inspect_write_json(in, error)); /* first: it marks the directory as ours */
    TRY(inspect_write_pictures(in, error));
    return inspect_write_html(in, error);
}

static void inspection_free(struct inspection *in) {
    candid_result_free(in->result);
    answer_words_free(&in->answer);
    attention_record_free(&in->before);
    attention_record_free(&in->after);
    free(in->words);
    free(in->divergence);
    free(in->sinks.layers);
    candid_image_free(in->shown);
    candid_image_free(in->image);
    candid_context_free(in->context);
    free(in->command);
}

static int inspect(struct run_options *o, const struct own_options *own, char *command) {
    struct inspection in = {.options = o, .path = o->inputs[0], .out = own->out, .command = command};
    candid_model *model = NULL;
    int code = prepare_directory(own->out);
    if (code == EXIT_OK) {
        code = open_model(o, &model);
    }
    if (code == EXIT_OK) {
        candid_error error;
        interrupt_install();
        in.model = model;
        const candid_status status = run_all(&in, own->words, &error);
        if (status == CANDID_ERROR_CANCELLED) {
            fputs("candid: interrupted\n", stderr);
            code = EXIT_INTERRUPTED;
        } else if (status != CANDID_OK) {
            complain("%s", error.message);
            const bool no_context = in.image && !in.context;
            code = no_context && status == CANDID_ERROR_ARGUMENT ? EXIT_USAGE
                   : no_context                                  ? EXIT_MODEL
                   : in.context && status == CANDID_ERROR_IO     ? EXIT_OUTPUT
                                                                 : EXIT_ITEM;
        } else {
            printf("%s\n", in.result->text);
            print_interventions(stderr, in.result->interventions);
            fprintf(stderr, "candid: %zu word%s inspected; open %s/index.html\n", in.n_words,
                    in.n_words == 1 ? "" : "s", own->out);
        }
    }
    inspection_free(&in);
    candid_model_free(model);
    return code;
}

/* Whether the command line makes sense; complains. */
static bool check(const struct run_options *o, const struct own_options *own) {
    struct look_options look;
    candid_error error;
    const bool number = own->words && !is_list(own->words) && strcmp(own->words, "all") != 0;
    if (o->n_inputs != 1) {
        complain("expected one image, found %d; see candid inspect --help", o->n_inputs);
    } else if (!own->out || !own->out[0]) {
        complain("expected --out DIR; see candid inspect --help");
    } else if (own->words && (!own->words[0] || (number && (strlen(own->words) > 6 || atoi(own->words) < 1)))) {
        complain("--words: expected a number from 1, all, or words separated by commas, found \"%s\"", own->words);
    } else if (o->json || o->jsonl || o->together) {
        complain("--json, --jsonl and --together are not for inspect; it writes inspect.json to --out DIR");
    } else if (look_options_from(o->config, &look, &error) != CANDID_OK) {
        complain("%s", error.message);
    } else if (look.kind != LOOK_ONCE) {
        complain("candid inspect watches one question about one image; %s asks again about another: switch it off",
                 look.method->name);
    } else {
        return true;
    }
    return false;
}

int command_inspect(int argc, char **argv) {
    struct own_options own = {0};
    struct run_options options;
    bool done;
    char *command = join_command(argc, argv);
    if (!command) {
        complain("out of memory");
        return EXIT_ITEM;
    }
    if (!take_own(&argc, argv, &own)) {
        free(command);
        return EXIT_USAGE;
    }
    int code = options_parse(argc, argv, help, &options, &done);
    if (!done) {
        options.prompt = options.prompt ? options.prompt : CAPTION_PROMPT;
        options.generate.should_cancel = interrupt_requested;
        if (check(&options, &own)) {
            code = inspect(&options, &own, command);
            command = NULL;
        } else {
            code = EXIT_USAGE;
        }
    }
    free(command);
    options_free(&options);
    return code;
}

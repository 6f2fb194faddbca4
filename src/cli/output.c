/* Results as JSON lines or as one JSON array. */
#include "cli/output.h"

#include <cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32.h"
#include "core/file.h"
#include "interventions/config.h"

struct output {
    const char *path;
    bool lines;
    int fd;       /* lines: open for appending */
    cJSON *array; /* not lines */
    char **held;  /* held_key of each resumed line, sorted */
    size_t n_held;
    char run[9]; /* checksum of model and settings: lines of another run are other work */
};

/* The files that options name: their content decides, too. One that cannot be read fails the run soon. */
static uint32_t add_tables(const candid_config *config, uint32_t crc) {
    char path[4096];
    for (int i = 0; config_file(config, i, path, sizeof path); i++) {
        struct mapped_file file;
        if (file_map(path, "a table", &file, NULL) == CANDID_OK) {
            crc = crc32_update(crc, file.data, file.size);
            file_unmap(&file);
        }
    }
    return crc;
}

/* Model and settings that decide what an answer is. */
static void run_id(const struct run_options *o, char id[9]) {
    const candid_generate_params *g = &o->generate;
    char text[512];
    struct stat info = {0};
    if (o->model) {
        stat(o->model, &info);
    }
    snprintf(text, sizeof text, "%lld %d %d %d %d %d %.9g %d %.9g %.9g %llu", (long long)info.st_size,
             (int)o->precision, (int)o->kv_type, o->together, (int)g->preprocess, g->max_new_tokens,
             (double)g->temperature, g->top_k, (double)g->top_p, (double)g->repetition_penalty,
             (unsigned long long)g->seed);
    uint32_t crc = crc32_update(0, text, strlen(text));
    const char *names[] = {o->model ? o->model : "", o->mmproj ? o->mmproj : "",
                           o->conversation ? o->conversation : ""};
    for (size_t i = 0; i < 3; i++) {
        crc = crc32_update(crc, names[i], strlen(names[i]) + 1);
    }
    for (size_t i = 0; i < g->n_stop; i++) {
        crc = crc32_update(crc, g->stop[i], strlen(g->stop[i]) + 1);
    }
    const uint32_t checksum = config_checksum(o->config);
    if (checksum != 0) {
        crc = crc32_update(crc, &checksum, sizeof checksum);
        crc = add_tables(o->config, crc);
    }
    snprintf(id, 9, "%08x", crc);
}

static int write_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return -1;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

static char *held_key(const char *run, const char *image, const char *prompt) {
    size_t size = strlen(run) + strlen(image) + strlen(prompt) + 3;
    char *key = malloc(size);
    if (key) {
        snprintf(key, size, "%s\n%s\n%s", run, image, prompt);
    }
    return key;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ---- resume ---- */

static char *read_whole(int fd, size_t *size) {
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return NULL;
    }
    char *text = malloc((size_t)info.st_size + 1);
    size_t done = 0;
    while (text && done < (size_t)info.st_size) {
        ssize_t n = pread(fd, text + done, (size_t)info.st_size - done, (off_t)done);
        if (n <= 0) {
            free(text);
            return NULL;
        }
        done += (size_t)n;
    }
    if (text) {
        text[done] = '\0';
        *size = done;
    }
    return text;
}

/* Remembers the line's run, image and prompt; false when it is not one of our lines. */
static bool hold_line(struct output *out, const char *line) {
    cJSON *item = cJSON_Parse(line);
    const char *image = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "image"));
    const char *prompt = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "prompt"));
    const char *run = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "run"));
    char *key = run && image && prompt ? held_key(run, image, prompt) : NULL;
    cJSON_Delete(item);
    char **grown = key ? realloc(out->held, (out->n_held + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(key);
        return false;
    }
    out->held = grown;
    out->held[out->n_held++] = key;
    return true;
}

static int resume(struct output *out) {
    size_t size = 0;
    char *text = read_whole(out->fd, &size);
    if (!text) {
        complain("%s: cannot read: %s", out->path, strerror(errno));
        return EXIT_OUTPUT;
    }
    int line_number = 1;
    char *line = text;
    for (char *end; (end = strchr(line, '\n')); line = end + 1, line_number++) {
        *end = '\0';
        if (!hold_line(out, line)) {
            complain("%s: line %d: expected a JSON object with \"run\", \"image\" and \"prompt\"; not resuming over it",
                     out->path, line_number);
            free(text);
            return EXIT_OUTPUT;
        }
    }
    const size_t torn = size - (size_t)(line - text); /* an unfinished last line: a write cut short */
    free(text);
    if (torn > 0 && ftruncate(out->fd, (off_t)(size - torn)) != 0) {
        complain("%s: cannot cut off the unfinished last line: %s", out->path, strerror(errno));
        return EXIT_OUTPUT;
    }
    if (out->n_held > 0) {
        qsort(out->held, out->n_held, sizeof *out->held, by_text);
    }
    return EXIT_OK;
}

bool output_holds(const struct output *out, const char *image, const char *prompt) {
    if (!out || out->n_held == 0) {
        return false;
    }
    char *key = held_key(out->run, image, prompt);
    bool found = key && bsearch(&key, out->held, out->n_held, sizeof *out->held, by_text);
    free(key);
    return found;
}

/* ---- life ---- */

static int open_lines(struct output *out, const struct run_options *o) {
    if (strcmp(out->path, "-") == 0) {
        out->fd = STDOUT_FILENO;
        return EXIT_OK;
    }
    out->fd = open(out->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    struct stat info;
    if (out->fd < 0 || fstat(out->fd, &info) != 0) {
        complain("%s: cannot open for writing: %s", out->path, strerror(errno));
        return EXIT_OUTPUT;
    }
    if (o->resume) {
        return resume(out);
    }
    if (info.st_size > 0) {
        complain("%s: already holds results: continue with --resume, or remove it first", out->path);
        return EXIT_OUTPUT;
    }
    return EXIT_OK;
}

static void output_free(struct output *out) {
    if (out->fd > STDERR_FILENO) {
        close(out->fd);
    }
    for (size_t i = 0; i < out->n_held; i++) {
        free(out->held[i]);
    }
    free(out->held);
    cJSON_Delete(out->array);
    free(out);
}

int output_open(const struct run_options *o, struct output **result) {
    *result = NULL;
    if (!o->json && !o->jsonl) {
        return EXIT_OK;
    }
    struct output *out = calloc(1, sizeof *out);
    if (!out) {
        complain("out of memory");
        return EXIT_OUTPUT;
    }
    out->fd = -1;
    out->lines = o->jsonl != NULL;
    out->path = out->lines ? o->jsonl : o->json;
    run_id(o, out->run);
    int code = EXIT_OK;
    if (out->lines) {
        code = open_lines(out, o);
    } else {
        out->array = cJSON_CreateArray();
        /* Found out now rather than after an hour of work. */
        if (strcmp(out->path, "-") != 0) {
            int fd = open(out->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
            if (fd < 0) {
                complain("%s: cannot open for writing: %s", out->path, strerror(errno));
                code = EXIT_OUTPUT;
            } else {
                close(fd);
            }
        }
    }
    if (code != EXIT_OK) {
        output_free(out);
        return code;
    }
    *result = out;
    return EXIT_OK;
}

static const char *finish_name(candid_finish finish) {
    static const char *const names[] = {"eos", "stop", "length", "cancelled"};
    return names[finish];
}

static cJSON *to_json(const struct output *out, const struct run_options *o, const char *image, const char *prompt,
                      const candid_result *r) {
    char fingerprint[9];
    snprintf(fingerprint, sizeof fingerprint, "%08x", r->stats.fingerprint);
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "image", image);
    cJSON_AddStringToObject(item, "prompt", prompt);
    cJSON_AddStringToObject(item, "text", r->text);
    cJSON_AddStringToObject(item, "model", o->model ? o->model : "(embedded demo model)");
    cJSON_AddStringToObject(item, "run", out->run);
    cJSON_AddStringToObject(item, "finish", finish_name(r->finish));
    cJSON_AddNumberToObject(item, "prompt_tokens", r->stats.n_prompt);
    cJSON_AddNumberToObject(item, "new_tokens", r->stats.n_generated);
    cJSON_AddNumberToObject(item, "encode_ms", r->stats.encode_ms);
    cJSON_AddNumberToObject(item, "prefill_ms", r->stats.prefill_ms);
    cJSON_AddNumberToObject(item, "decode_ms", r->stats.decode_ms);
    cJSON_AddStringToObject(item, "fingerprint", fingerprint);
    if (r->n_answers > 1) {
        cJSON *list = cJSON_AddArrayToObject(item, "answers");
        for (size_t i = 0; i < r->n_answers; i++) {
            cJSON *answer = cJSON_CreateObject();
            cJSON_AddStringToObject(answer, "text", r->answers[i].text);
            cJSON_AddStringToObject(answer, "finish", finish_name(r->answers[i].finish));
            cJSON_AddNumberToObject(answer, "score", (double)r->answers[i].score);
            cJSON_AddItemToArray(list, answer);
        }
    }
    if (o->config) {
        cJSON_AddItemToObject(item, "config", config_resolved(o->config));
        cJSON_AddRawToObject(item, "interventions", r->interventions);
    }
    return item;
}

int output_add(struct output *out, const struct run_options *o, const char *image, const char *prompt,
               const candid_result *result) {
    if (!out) {
        return EXIT_OK;
    }
    cJSON *item = to_json(out, o, image, prompt, result);
    if (!out->lines) {
        cJSON_AddItemToArray(out->array, item);
        return EXIT_OK;
    }
    /* One write per line: a killed process leaves whole lines, or one torn last line that --resume cuts off. */
    char *line = cJSON_PrintUnformatted(item);
    cJSON_Delete(item);
    size_t length = line ? strlen(line) : 0;
    if (line) {
        line[length] = '\n'; /* over the terminator */
    }
    int code = line && write_all(out->fd, line, length + 1) == 0 ? EXIT_OK : EXIT_OUTPUT;
    cJSON_free(line);
    if (code != EXIT_OK) {
        complain("%s: cannot write: %s", out->path, strerror(errno));
    }
    return code;
}

/* Writes the array under a temporary name first, so that a failure leaves the old file. */
static int write_array(const struct output *out) {
    char *text = cJSON_Print(out->array);
    if (!text) {
        complain("out of memory");
        return EXIT_OUTPUT;
    }
    int code = EXIT_OUTPUT;
    if (strcmp(out->path, "-") == 0) {
        code = puts(text) >= 0 ? EXIT_OK : EXIT_OUTPUT;
    } else {
        size_t size = strlen(out->path) + 8;
        char *temporary = malloc(size);
        if (temporary) {
            snprintf(temporary, size, "%s.part", out->path);
            int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
            bool written = fd >= 0 && write_all(fd, text, strlen(text)) == 0 && write_all(fd, "\n", 1) == 0;
            written = (fd < 0 || close(fd) == 0) && written;
            code = written && rename(temporary, out->path) == 0 ? EXIT_OK : EXIT_OUTPUT;
            if (code != EXIT_OK && fd >= 0) {
                unlink(temporary);
            }
            free(temporary);
        }
    }
    cJSON_free(text);
    if (code != EXIT_OK) {
        complain("%s: cannot write: %s", out->path, strerror(errno));
    }
    return code;
}

int output_close(struct output *out) {
    if (!out) {
        return EXIT_OK;
    }
    /* A run without any result must not replace the results of an earlier one. */
    bool nothing = out->lines || cJSON_GetArraySize(out->array) == 0;
    int code = nothing ? EXIT_OK : write_array(out);
    output_free(out);
    return code;
}

/* Append-only result files. */
#include "eval/run/results.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/status.h"

/* ---- work ---------------------------------------------------------------------------------------- */

void work_add(struct eval_work *sum, const struct eval_work *w) {
    sum->images += w->images;
    sum->encoded += w->encoded;
    sum->prompt_tokens += w->prompt_tokens;
    sum->prefilled_tokens += w->prefilled_tokens;
    sum->generated_tokens += w->generated_tokens;
    sum->seconds += w->seconds;
    sum->encode_s += w->encode_s;
    sum->prefill_s += w->prefill_s;
    sum->decode_s += w->decode_s;
}

cJSON *work_json(const struct eval_work *w) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "images", (double)w->images);
    cJSON_AddNumberToObject(out, "encoded", (double)w->encoded);
    cJSON_AddNumberToObject(out, "prompt_tokens", (double)w->prompt_tokens);
    cJSON_AddNumberToObject(out, "prefilled_tokens", (double)w->prefilled_tokens);
    cJSON_AddNumberToObject(out, "generated_tokens", (double)w->generated_tokens);
    cJSON_AddNumberToObject(out, "seconds", w->seconds);
    cJSON_AddNumberToObject(out, "encode_s", w->encode_s);
    cJSON_AddNumberToObject(out, "prefill_s", w->prefill_s);
    cJSON_AddNumberToObject(out, "decode_s", w->decode_s);
    return out;
}

static double number(const cJSON *object, const char *key) {
    const cJSON *item = json_find(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static struct eval_work work_of(const cJSON *w) {
    return (struct eval_work){.images = (int64_t)number(w, "images"),
                              .encoded = (int64_t)number(w, "encoded"),
                              .prompt_tokens = (int64_t)number(w, "prompt_tokens"),
                              .prefilled_tokens = (int64_t)number(w, "prefilled_tokens"),
                              .generated_tokens = (int64_t)number(w, "generated_tokens"),
                              .seconds = number(w, "seconds"),
                              .encode_s = number(w, "encode_s"),
                              .prefill_s = number(w, "prefill_s"),
                              .decode_s = number(w, "decode_s")};
}

/* ---- reading ------------------------------------------------------------------------------------- */

candid_status held_make(struct eval_held *held, size_t n, candid_error *error) {
    *held = (struct eval_held){.n = n,
                               .held = calloc(n + 1, sizeof *held->held),
                               .error = calloc(n + 1, sizeof *held->error),
                               .fingerprint = calloc(n + 1, sizeof *held->fingerprint)};
    if (!held->held || !held->error || !held->fingerprint) {
        held_free(held);
        return fail_memory(error, "the results", n * sizeof *held->error);
    }
    return CANDID_OK;
}

void held_free(struct eval_held *held) {
    for (size_t i = 0; held->error && i < held->n; i++) {
        free(held->error[i]);
    }
    free(held->held);
    free(held->error);
    free(held->fingerprint);
    *held = (struct eval_held){0};
}

static const char *text_of(const cJSON *line, const char *key) {
    return cJSON_GetStringValue(json_find(line, key));
}

static bool same_text(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* What is wrong with a line, or NULL. */
static const char *check_line(const cJSON *line, const char *run, const struct eval_items *items,
                              const struct eval_held *held, size_t *index) {
    int64_t i;
    const char *of = text_of(line, "run");
    if (!of || !json_is_int(json_find(line, "index"), 0, INT64_MAX, &i)) {
        return "expected a JSON object with \"run\" and \"index\"";
    }
    if (run && strcmp(of, run) != 0) {
        return "it belongs to a run with another model, configuration, settings or questions";
    }
    *index = (size_t)i;
    if (*index >= items->n || !same_text(text_of(line, "image"), items->items[*index].image) ||
        !same_text(text_of(line, "question"), items->items[*index].question)) {
        return "it answers another question than the one with its index";
    }
    if (held->held[*index]) {
        return "its question has an answer on an earlier line";
    }
    if (!text_of(line, "answer") && !text_of(line, "error")) {
        return "expected \"answer\" or \"error\"";
    }
    return NULL;
}

static candid_status take_line(const cJSON *line, size_t index, struct eval_items *items, struct eval_held *held,
                               candid_error *error) {
    const char *answer = text_of(line, "answer"), *problem = text_of(line, "error"), *print;
    struct eval_item *item = &items->items[index];
    item->answer = items_text(items, answer);
    held->error[index] = problem ? strdup(problem) : NULL;
    if ((answer && !item->answer) || (problem && !held->error[index])) {
        return fail_memory(error, "the results", strlen(answer ? answer : problem));
    }
    print = text_of(line, "fingerprint");
    held->fingerprint[index] = print ? (uint32_t)strtoul(print, NULL, 16) : 0;
    held->held[index] = true;
    held->n_held++;
    held->n_failed += problem != NULL;
    const struct eval_work work = work_of(json_find(line, "work"));
    work_add(&held->work, &work);
    return CANDID_OK;
}

candid_status results_read(const char *path, const char *run, struct eval_items *items, struct eval_held *held,
                           size_t *torn, candid_error *error) {
    struct mapped_file file;
    char label[200];
    TRY(file_map(path, "a file of results", &file, error));
    candid_status status = CANDID_OK;
    size_t at = 0;
    for (int n = 1; status == CANDID_OK && at < file.size; n++) {
        const char *text = (const char *)file.data + at;
        const char *end = memchr(text, '\n', file.size - at);
        if (!end) {
            break;
        }
        cJSON *line = cJSON_ParseWithLength(text, (size_t)(end - text));
        size_t index = 0;
        const char *wrong = line ? check_line(line, run, items, held, &index) : "it is not JSON";
        status = wrong ? fail(error, CANDID_ERROR_FORMAT, "%s:%d: %s", file_label(path, label, sizeof label), n, wrong)
                       : take_line(line, index, items, held, error);
        cJSON_Delete(line);
        at = (size_t)(end + 1 - (const char *)file.data);
    }
    const size_t rest = file.size - at;
    file_unmap(&file);
    TRY(status);
    if (torn) {
        *torn = rest;
    } else if (rest > 0) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: its last line is unfinished: the run did not end",
                    file_label(path, label, sizeof label));
    }
    return CANDID_OK;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static candid_status fail_write(const char *path, candid_error *error) {
    const int code = errno;
    char label[200];
    return fail(error, CANDID_ERROR_IO, "%s: cannot write: %s", file_label(path, label, sizeof label), strerror(code));
}

candid_status results_open(const char *path, const char *run, bool resume, struct eval_items *items,
                           struct eval_held *held, struct results_file *out, candid_error *error) {
    struct stat info;
    char label[200];
    *out = (struct results_file){.path = path, .fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)};
    if (out->fd < 0 || fstat(out->fd, &info) != 0) {
        return fail_write(path, error);
    }
    candid_status status = CANDID_OK;
    if (flock(out->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        status =
            fail(error, CANDID_ERROR_IO, "%s: another run is writing to it", file_label(path, label, sizeof label));
    } else if (info.st_size > 0 && !resume) {
        status = fail(error, CANDID_ERROR_IO, "%s: already holds results: continue with --resume, or remove it first",
                      file_label(path, label, sizeof label));
    } else if (info.st_size > 0) {
        size_t torn = 0;
        status = results_read(path, run, items, held, &torn, error);
        if (status == CANDID_OK && torn > 0 && ftruncate(out->fd, info.st_size - (off_t)torn) != 0) {
            status = fail_write(path, error);
        }
    }
    if (status != CANDID_OK) {
        close(out->fd);
        out->fd = -1;
    }
    return status;
}

/* Writes all of it; false with errno. */
static bool write_all(int fd, const char *text, size_t size) {
    while (size > 0) {
        const ssize_t n = write(fd, text, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        text += n;
        size -= (size_t)n;
    }
    return true;
}

candid_status results_append(const struct results_file *file, const char *text, size_t size, candid_error *error) {
    const off_t before = lseek(file->fd, 0, SEEK_END);
    if (before < 0 || !write_all(file->fd, text, size)) {
        const candid_status status = fail_write(file->path, error);
        if (before >= 0 && ftruncate(file->fd, before) != 0) {
            return status; /* resuming cuts a torn line off, too */
        }
        return status;
    }
    return CANDID_OK;
}

candid_status results_close(struct results_file *file, candid_error *error) {
    const int fd = file->fd;
    file->fd = -1;
    return fd < 0 || close(fd) == 0 ? CANDID_OK : fail_write(file->path, error);
}

candid_status file_write_whole(const char *path, const char *text, candid_error *error) {
    char temporary[4096];
    if (snprintf(temporary, sizeof temporary, "%s.part", path) >= (int)sizeof temporary) {
        return fail(error, CANDID_ERROR_ARGUMENT, "a file name of more than %zu bytes", sizeof temporary);
    }
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = fd >= 0 && write_all(fd, text, strlen(text));
    good = (fd < 0 || close(fd) == 0) && good;
    if (good && rename(temporary, path) == 0) {
        return CANDID_OK;
    }
    const candid_status status = fail_write(path, error);
    unlink(temporary);
    return status;
}

/* The loop over images. */
#include "eval/run/runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/status.h"

/* A prompt that is to be answered. */
struct ask {
    const struct eval_unit *unit;
    size_t number;               /* of the prompt in its unit */
    size_t image;                /* in the batch */
    char *prompt;                /* owned */
    const candid_result *result; /* owned, or NULL */
    char *problem;               /* why there is none, owned */
};

struct batch {
    struct ask *asks; /* [n] */
    size_t n, capacity;
    candid_image **images; /* [n_images]; NULL: it could not be read */
    size_t n_images, image_capacity;
    struct eval_work work;
};

static void batch_clear(struct batch *b) {
    for (size_t i = 0; i < b->n; i++) {
        free(b->asks[i].prompt);
        free(b->asks[i].problem);
        candid_result_free(b->asks[i].result);
    }
    for (size_t i = 0; i < b->n_images; i++) {
        candid_image_free(b->images[i]);
    }
    b->n = b->n_images = 0;
    b->work = (struct eval_work){0};
}

/* ---- what is asked ------------------------------------------------------------------------------- */

/* Whether some item with prompt `number` of the unit has no result yet; *item: the first with it. */
static bool is_open(const struct eval_job *job, const struct eval_unit *u, size_t number, size_t *item) {
    bool open = false, first = true;
    for (size_t i = 0; i < u->n_items; i++) {
        if (u->asked[i] == number) {
            *item = first ? u->items[i] : *item;
            first = false;
            open = open || !job->held->held[u->items[i]];
        }
    }
    return open;
}

static candid_status add_ask(struct batch *b, struct ask ask, candid_error *error) {
    if (b->n == b->capacity) {
        const size_t capacity = b->capacity > 0 ? 2 * b->capacity : 64;
        struct ask *grown = realloc(b->asks, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "a batch", capacity * sizeof *grown);
        }
        b->asks = grown;
        b->capacity = capacity;
    }
    b->asks[b->n++] = ask;
    return CANDID_OK;
}

static candid_status load_image(const struct eval_job *job, const char *name, struct batch *b, candid_error *problem,
                                candid_error *error) {
    if (b->n_images == b->image_capacity) {
        const size_t capacity = b->image_capacity > 0 ? 2 * b->image_capacity : 16;
        candid_image **grown = realloc(b->images, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "a batch", capacity * sizeof *grown);
        }
        b->images = grown;
        b->image_capacity = capacity;
    }
    char *path;
    TRY(file_join(job->images, name, &path, error));
    *problem = (candid_error){CANDID_OK, ""};
    candid_image *image = NULL;
    if (candid_image_load(path, &image, problem) != CANDID_OK) {
        image = NULL;
    }
    free(path);
    b->images[b->n_images++] = image;
    return CANDID_OK;
}

/* Adds what is open of a unit. */
static candid_status add_unit(const struct eval_job *job, const struct eval_unit *u, struct batch *b,
                              candid_error *error) {
    candid_error problem;
    const size_t before = b->n;
    for (size_t k = 0; k < u->n_asked; k++) {
        size_t item = 0;
        if (!is_open(job, u, k, &item)) {
            continue;
        }
        if (b->n == before) {
            TRY(load_image(job, u->image, b, &problem, error));
        }
        struct ask ask = {.unit = u, .number = k, .image = b->n_images - 1};
        TRY(eval_prompt_of(&job->prompt, &job->items->items[item], &ask.prompt, error));
        ask.problem = b->images[ask.image] ? NULL : strdup(problem.message);
        TRY(add_ask(b, ask, error));
    }
    return CANDID_OK;
}

/* ---- answering ----------------------------------------------------------------------------------- */

static bool has_answers(const struct eval_job *job, const struct batch *b) {
    bool any = job->held->n_held > job->held->n_failed;
    for (size_t i = 0; !any && i < b->n; i++) {
        any = b->asks[i].result;
    }
    return any;
}

/* Whether more requests would fail alike: of a prompt by itself only its length is to blame, unless others went well.
 */
static bool is_final(const struct eval_job *job, const struct batch *b, candid_status status) {
    return status == CANDID_ERROR_CANCELLED || status == CANDID_ERROR_MEMORY || status == CANDID_ERROR_INTERNAL ||
           (status != CANDID_ERROR_CONTEXT && !has_answers(job, b));
}

/* Tokens of the prompts of all items, one at a time: a question that several splits ask counts for each. Of branches
 * only the sum is known. */
static int64_t tokens_alone(const struct ask *const *asks, size_t n, int64_t n_prompt) {
    double once = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        size_t times = 0;
        for (size_t k = 0; k < asks[i]->unit->n_items; k++) {
            times += asks[i]->unit->asked[k] == asks[i]->number;
        }
        once += asks[i]->result->stats.n_prompt;
        all += (double)times * asks[i]->result->stats.n_prompt;
    }
    return once > 0 ? (int64_t)((double)n_prompt * all / once + 0.5) : 0;
}

static candid_status answer_some(struct eval_job *job, struct batch *b, struct ask *const *asks, size_t n,
                                 candid_error *error) {
    candid_request *requests = calloc(n, sizeof *requests);
    const candid_result **results = calloc(n, sizeof *results);
    candid_sharing sharing = {.struct_size = sizeof sharing};
    candid_status status = requests && results ? CANDID_OK : fail_memory(error, "a batch", n * sizeof *requests);
    for (size_t i = 0; status == CANDID_OK && i < n; i++) {
        requests[i] = (candid_request){(const candid_image *const *)&b->images[asks[i]->image], 1, asks[i]->prompt};
    }
    if (status == CANDID_OK) {
        status = candid_generate_many(job->context, requests, n, job->params, &sharing, results, error);
    }
    for (size_t i = 0; status == CANDID_OK && i < n; i++) {
        asks[i]->result = results[i];
        b->work.generated_tokens += results[i]->stats.n_generated;
    }
    free(requests);
    free(results);
    TRY(status);
    b->work.encoded += sharing.n_encoded;
    b->work.prompt_tokens += tokens_alone((const struct ask *const *)asks, n, sharing.n_prompt);
    b->work.prefilled_tokens += sharing.n_prefilled;
    b->work.encode_s += sharing.encode_ms / 1e3;
    b->work.prefill_s += sharing.prefill_ms / 1e3;
    b->work.decode_s += sharing.decode_ms / 1e3;
    if (sharing.why_not[0]) {
        memcpy(job->why_not, sharing.why_not, sizeof job->why_not);
    }
    return CANDID_OK;
}

/* All that can be answered of n prompts: where they fail together, each half by itself. */
static candid_status answer_all(struct eval_job *job, struct batch *b, struct ask *const *asks, size_t n,
                                candid_error *error) {
    if (n == 0) {
        return CANDID_OK;
    }
    candid_error problem;
    const candid_status status = answer_some(job, b, asks, n, &problem);
    if (status == CANDID_OK) {
        return CANDID_OK;
    }
    if (n > 1 && status != CANDID_ERROR_CANCELLED) {
        TRY(answer_all(job, b, asks, n / 2, error));
        return answer_all(job, b, asks + n / 2, n - n / 2, error);
    }
    if (is_final(job, b, status)) {
        const bool unread = status == CANDID_ERROR_IO; /* a table; as a status it would blame the results' file */
        return fail(error, unread ? CANDID_ERROR_ARGUMENT : status, "%s", problem.message);
    }
    asks[0]->problem = strdup(problem.message);
    return asks[0]->problem ? CANDID_OK : fail_memory(error, "a message", sizeof problem.message);
}

static candid_status answer(struct eval_job *job, struct batch *b, candid_error *error) {
    struct ask **asks = malloc((b->n + 1) * sizeof *asks);
    if (!asks) {
        return fail_memory(error, "a batch", b->n * sizeof *asks);
    }
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        if (!b->asks[i].problem) {
            asks[n++] = &b->asks[i];
        }
    }
    candid_status status = CANDID_OK;
    for (size_t i = 0, some; status == CANDID_OK && i < n; i += some) {
        some = job->one_by_one ? 1 : n;
        status = answer_all(job, b, asks + i, some, error);
    }
    free(asks);
    return status;
}

/* ---- recording ----------------------------------------------------------------------------------- */

static const char *finish_name(candid_finish finish) {
    static const char *const names[] = {"eos", "stop", "length", "cancelled"};
    return names[finish];
}

static cJSON *result_line(const struct eval_job *job, const struct ask *ask, size_t index) {
    const struct eval_item *item = &job->items->items[index];
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "run", job->run);
    cJSON_AddNumberToObject(line, "index", (double)index);
    const struct {
        const char *key, *value;
    } texts[] = {{"id", item->id},       {"split", item->split}, {"image", item->image}, {"question", item->question},
                 {"label", item->label}, {"error", ask->problem}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].value) {
            cJSON_AddStringToObject(line, texts[i].key, texts[i].value);
        }
    }
    if (ask->result) {
        const candid_result *r = ask->result;
        char fingerprint[9];
        snprintf(fingerprint, sizeof fingerprint, "%08x", r->stats.fingerprint);
        cJSON_AddStringToObject(line, "answer", r->text);
        cJSON_AddNumberToObject(line, "tokens", (double)r->n_tokens);
        cJSON_AddStringToObject(line, "finish", finish_name(r->finish));
        cJSON_AddStringToObject(line, "fingerprint", fingerprint);
        cJSON *list = r->n_answers > 1 ? cJSON_AddArrayToObject(line, "answers") : NULL;
        for (size_t i = 0; list && i < r->n_answers; i++) {
            cJSON *one = cJSON_CreateObject();
            cJSON_AddStringToObject(one, "text", r->answers[i].text);
            cJSON_AddNumberToObject(one, "score", (double)r->answers[i].score);
            cJSON_AddItemToArray(list, one);
        }
    }
    return line;
}

struct text {
    char *bytes;
    size_t size, capacity;
};

static candid_status add_line(struct text *t, const cJSON *line, candid_error *error) {
    char *printed = cJSON_PrintUnformatted(line);
    const size_t size = printed ? strlen(printed) : 0;
    if (printed && t->size + size + 1 > t->capacity) {
        const size_t capacity = 2 * (t->size + size + 1);
        char *grown = realloc(t->bytes, capacity);
        if (grown) {
            t->bytes = grown;
            t->capacity = capacity;
        }
    }
    if (!printed || t->size + size + 1 > t->capacity) {
        cJSON_free(printed);
        return fail_memory(error, "the results", t->size + size);
    }
    memcpy(t->bytes + t->size, printed, size);
    t->size += size;
    t->bytes[t->size++] = '\n';
    cJSON_free(printed);
    return CANDID_OK;
}

/* The lines of every item that a prompt stands for. */
static candid_status add_lines(struct eval_job *job, const struct batch *b, struct text *text, candid_error *error) {
    for (size_t k = 0; k < b->n; k++) {
        const struct ask *ask = &b->asks[k];
        for (size_t i = 0; i < ask->unit->n_items; i++) {
            const size_t index = ask->unit->items[i];
            if (ask->unit->asked[i] != ask->number || job->held->held[index]) {
                continue;
            }
            cJSON *line = result_line(job, ask, index);
            if (text->size == 0) {
                cJSON_AddItemToObject(line, "work", work_json(&b->work));
            }
            const candid_status status = add_line(text, line, error);
            cJSON_Delete(line);
            TRY(status);
        }
    }
    return CANDID_OK;
}

/* What the file holds now is known here, too. */
static candid_status hold(struct eval_job *job, const struct batch *b, candid_error *error) {
    for (size_t k = 0; k < b->n; k++) {
        const struct ask *ask = &b->asks[k];
        for (size_t i = 0; i < ask->unit->n_items; i++) {
            const size_t index = ask->unit->items[i];
            if (ask->unit->asked[i] != ask->number || job->held->held[index]) {
                continue;
            }
            job->held->held[index] = true;
            job->held->n_held++;
            job->held->n_failed += !ask->result;
            job->held->fingerprint[index] = ask->result ? ask->result->stats.fingerprint : 0;
            job->held->error[index] = ask->result ? NULL : strdup(ask->problem);
            job->items->items[index].answer = items_text(job->items, ask->result ? ask->result->text : NULL);
            if (ask->result ? !job->items->items[index].answer : !job->held->error[index]) {
                return fail_memory(error, "the results", 1);
            }
        }
    }
    work_add(&job->held->work, &b->work);
    return CANDID_OK;
}

/* Whether a prompt's problem was told with the prompt before: an image that cannot be read fails all of its questions.
 */
static bool is_told(const struct batch *b, size_t i) {
    const struct ask *before = i > 0 ? &b->asks[i - 1] : NULL;
    return before && before->problem && before->image == b->asks[i].image &&
           strcmp(before->problem, b->asks[i].problem) == 0;
}

static candid_status record(struct eval_job *job, const struct batch *b, candid_error *error) {
    struct text text = {0};
    candid_status status = add_lines(job, b, &text, error);
    if (status == CANDID_OK && text.size > 0) {
        status = results_append(job->file, text.bytes, text.size, error);
    }
    free(text.bytes);
    TRY(status);
    TRY(hold(job, b, error));
    for (size_t i = 0; i < b->n; i++) {
        const struct ask *ask = &b->asks[i];
        if (ask->problem && job->strict) {
            return fail(error, CANDID_ERROR_FORMAT, "%.480s", ask->problem);
        }
        if (ask->problem && !is_told(b, i)) {
            job->failed(job->user_data, ask->unit->image, ask->problem);
        }
    }
    return CANDID_OK;
}

/* A search that was cancelled gives the best so far, which is not the answer. */
static bool was_cancelled(const struct batch *b) {
    for (size_t i = 0; i < b->n; i++) {
        if (b->asks[i].result && b->asks[i].result->finish == CANDID_FINISH_CANCELLED) {
            return true;
        }
    }
    return false;
}

/* Units from `first` on until the batch is full; returns how many by *n. */
static candid_status run_batch(struct eval_job *job, size_t first, struct batch *b, size_t *n, candid_error *error) {
    const double start = clock_ms();
    *n = 0;
    while (first + *n < job->units->n && (*n == 0 || b->n < job->batch)) {
        TRY(add_unit(job, &job->units->units[first + *n], b, error));
        ++*n;
        if (b->n == 0) {
            return CANDID_OK; /* all held: it is told by itself */
        }
    }
    TRY(answer(job, b, error));
    if (was_cancelled(b)) {
        return fail(error, CANDID_ERROR_CANCELLED, "cancelled");
    }
    b->work.images = (int64_t)b->n_images;
    b->work.seconds = (clock_ms() - start) / 1e3;
    return record(job, b, error);
}

candid_status eval_run(struct eval_job *job, candid_error *error) {
    struct batch b = {0};
    candid_status status = CANDID_OK;
    for (size_t i = 0, n; status == CANDID_OK && i < job->units->n; i += n) {
        status = run_batch(job, i, &b, &n, error);
        if (status == CANDID_OK) {
            job->progress(job->user_data, n, b.n == 0);
        }
        batch_clear(&b);
    }
    free(b.asks);
    free(b.images);
    return status;
}

/* One run after the other. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/eval.h"
#include "cli/progress.h"
#include "core/json.h"

/* What the runner tells: user_data is the bar. */
static void progressed(void *user_data, size_t n_units, bool skipped) {
    for (size_t i = 0; i < n_units; i++) {
        progress_step(user_data, skipped);
    }
}

static void failed(void *user_data, const char *image, const char *message) {
    progress_clear(user_data);
    complain("%s%s%s", strstr(message, image) ? "" : image, strstr(message, image) ? "" : ": ", message);
}

static void now_text(char out[32]) {
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static int exit_of(candid_status status) {
    return status == CANDID_ERROR_CANCELLED ? EXIT_INTERRUPTED : status == CANDID_ERROR_IO ? EXIT_OUTPUT : EXIT_ITEM;
}

/* Runs what an earlier call left; *why_not as in struct eval_job. */
static int run_open(struct evaluation *e, const struct eval_config *config, const char *run, const char *path,
                    struct eval_held *held, char why_not[200]) {
    const struct eval_options *o = e->o;
    struct results_file file;
    struct progress bar = {0};
    candid_error error;
    if (results_open(path, run, o->resume, &e->items, held, &file, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_OUTPUT;
    }
    candid_generate_params params = o->run.generate;
    params.config = config->config;
    params.should_cancel = interrupt_requested;
    struct eval_job job = {.context = e->context,
                           .params = &params,
                           .items = &e->items,
                           .units = &e->units,
                           .prompt = eval_prompt(e),
                           .images = o->images,
                           .run = run,
                           .batch = (size_t)(o->batch > 0 ? o->batch : e->bench->batch),
                           .one_by_one = o->one_by_one,
                           .strict = o->strict,
                           .file = &file,
                           .held = held,
                           .progress = progressed,
                           .failed = failed,
                           .user_data = &bar};
    fprintf(stderr, "candid: %s %s: %zu images\n", e->bench->name, config->name, e->units.n);
    progress_start(&bar, e->units.n);
    candid_status status = eval_run(&job, &error);
    progress_end(&bar);
    const candid_status closed = results_close(&file, status == CANDID_OK ? &error : NULL);
    status = status == CANDID_OK ? closed : status;
    memcpy(why_not, job.why_not, sizeof job.why_not);
    if (status == CANDID_ERROR_CANCELLED) {
        fputs("candid: interrupted; go on with --resume\n", stderr);
    } else if (status != CANDID_OK) {
        complain("%s", error.message);
    }
    return status != CANDID_OK ? exit_of(status) : held->n_failed > 0 ? EXIT_ITEM : EXIT_OK;
}

/* *fatal: the following configurations are not run. */
static int run_one(struct evaluation *e, const struct eval_config *config, bool *fatal) {
    struct eval_held held = {0};
    candid_error error;
    char run[9], started[32], why_not[200] = "";
    for (size_t i = 0; i < e->items.n; i++) {
        e->items.items[i].answer = NULL;
    }
    char *path = eval_file(e->o->out, config->name, e->o->shard, e->o->n_shards, ".jsonl");
    if (!path || held_make(&held, e->items.n, &error) != CANDID_OK) {
        complain("out of memory");
        free(path);
        return EXIT_OUTPUT;
    }
    cJSON *about = eval_about(e, config);
    eval_run_id(e, about, run);
    now_text(started);
    const int code = run_open(e, config, run, path, &held, why_not);
    *fatal = code == EXIT_INTERRUPTED || code == EXIT_OUTPUT || (code == EXIT_ITEM && e->o->strict);
    int finished = EXIT_OK;
    if (!*fatal && (code == EXIT_OK || held.n_held > 0)) {
        finished = eval_finish(e, config, about, run, started, why_not, &held);
    }
    cJSON_Delete(about);
    free(path);
    held_free(&held);
    return code != EXIT_OK ? code : finished;
}

int eval_runs(struct evaluation *e) {
    int worst = EXIT_OK;
    bool fatal = false;
    interrupt_install();
    for (size_t i = 0; i < e->n_configs && !fatal; i++) {
        const int code = run_one(e, &e->configs[i], &fatal);
        worst = code > worst ? code : worst;
    }
    return worst;
}

/* ---- what is shown ------------------------------------------------------------------------------- */

static double number(const cJSON *object, const char *key) {
    const cJSON *item = json_find(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

void eval_print(const cJSON *summary) {
    const cJSON *counts = json_find(summary, "counts"), *time = json_find(summary, "time");
    const cJSON *scores = json_find(summary, "scores");
    const char *bench = cJSON_GetStringValue(json_find(summary, "benchmark"));
    const char *why_not = cJSON_GetStringValue(json_find(summary, "prompts_not_shared"));
    const double prompt = number(counts, "prompt_tokens"), read = number(counts, "prefilled_tokens");
    printf("%s %s\n", bench, cJSON_GetStringValue(json_find(summary, "name")));
    printf("  %.0f of %.0f questions answered, %.0f failed; %.0f images encoded; %.0f of %.0f prompt tokens read "
           "(%.1f %%); %.2f questions/s, %.1f tokens/s\n",
           number(counts, "answered"), number(counts, "questions"), number(counts, "failed"),
           number(counts, "images_encoded"), read, prompt, prompt > 0 ? 100 * read / prompt : 0,
           number(time, "questions_per_s"), number(time, "tokens_per_s"));
    if (why_not) {
        printf("  %s\n", why_not);
    }
    const struct benchmark *known = benchmark_find(bench);
    if (scores && known && known->print) {
        known->print(scores);
    }
    putchar('\n');
    fflush(stdout);
}

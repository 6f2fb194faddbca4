/* What a run is and what came of it: settings, run id, scores, summary. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "candid_commit.h"
#include "cli/eval.h"
#include "cli/score.h"
#include "core/crc32.h"
#include "core/file.h"
#include "core/json.h"
#include "eval/common/json_exact.h"
#include "eval/common/sha256.h"
#include "interventions/config.h"
#include "vision/decode.h"

char *eval_file(const char *folder, const char *name, int shard, int n_shards, const char *ending) {
    char part[64] = "";
    if (n_shards > 1) {
        snprintf(part, sizeof part, ".shard-%d-of-%d", shard, n_shards);
    }
    const size_t size = strlen(folder) + strlen(name) + strlen(part) + strlen(ending) + 2;
    char *path = malloc(size);
    if (path) {
        snprintf(path, size, "%s/%s%s%s", folder, name, part, ending);
    }
    return path;
}

/* ---- what decides the answers -------------------------------------------------------------------- */

static void add_text(cJSON *to, const char *key, const char *text) {
    if (text) {
        cJSON_AddStringToObject(to, key, text);
    } else {
        cJSON_AddNullToObject(to, key);
    }
}

static size_t batch_of(const struct evaluation *e) {
    return (size_t)(e->o->batch > 0 ? e->o->batch : e->bench->batch);
}

static cJSON *settings_json(const struct evaluation *e) {
    static const char *const preprocess[] = {"auto", "pad", "crop", "anyres"}, *const kv[] = {"default", "f16", "f32"};
    const struct run_options *r = &e->o->run;
    const candid_generate_params *g = &r->generate;
    cJSON *s = cJSON_CreateObject();
    cJSON_AddStringToObject(s, "precision", r->precision == CANDID_PRECISION_EXACT ? "exact" : "fast");
    cJSON_AddStringToObject(s, "kv", kv[r->kv_type]);
    cJSON_AddStringToObject(s, "preprocess", preprocess[g->preprocess]);
    cJSON_AddStringToObject(s, "jpeg_decoder", jpeg_decoder_name());
    add_text(s, "conversation", r->conversation);
    add_text(s, "prompt", eval_prompt(e).prompt);
    add_text(s, "cut", e->o->cut);
    cJSON_AddStringToObject(s, "suffix", e->o->suffix);
    cJSON_AddNumberToObject(s, "ctx", r->n_ctx);
    cJSON_AddNumberToObject(s, "max_new_tokens", g->max_new_tokens);
    cJSON_AddNumberToObject(s, "temperature", (double)g->temperature);
    cJSON_AddNumberToObject(s, "top_k", g->top_k);
    cJSON_AddNumberToObject(s, "top_p", (double)g->top_p);
    cJSON_AddNumberToObject(s, "repetition_penalty", (double)g->repetition_penalty);
    cJSON_AddNumberToObject(s, "seed", (double)g->seed);
    cJSON *stop = cJSON_AddArrayToObject(s, "stop");
    for (size_t i = 0; i < g->n_stop; i++) {
        cJSON_AddItemToArray(stop, cJSON_CreateString(g->stop[i]));
    }
    cJSON_AddNumberToObject(s, "batch", (double)batch_of(e));
    cJSON_AddBoolToObject(s, "one_by_one", e->o->one_by_one);
    return s;
}

static cJSON *data_json(const struct evaluation *e) {
    cJSON *data = cJSON_CreateObject(), *sources = cJSON_CreateArray();
    cJSON_AddStringToObject(data, "images", e->o->images);
    for (size_t i = 0; i < e->items.n_sources; i++) {
        const struct eval_source *from = &e->items.sources[i];
        cJSON *source = cJSON_CreateObject();
        cJSON_AddStringToObject(source, "path", from->path);
        cJSON_AddStringToObject(source, "sha256", from->sha256);
        cJSON_AddNumberToObject(source, "lines", (double)from->n_lines);
        add_text(source, "known_as", from->known_as);
        cJSON_AddItemToArray(sources, source);
    }
    cJSON_AddItemToObject(data, "sources", sources);
    return data;
}

/* The files that options name: their content decides, too. One that cannot be read fails the run soon. */
static cJSON *config_files_json(const candid_config *config) {
    cJSON *files = cJSON_CreateArray();
    char path[4096], sha256[65];
    for (int i = 0; config_file(config, i, path, sizeof path); i++) {
        cJSON *file = cJSON_CreateObject();
        cJSON_AddStringToObject(file, "path", path);
        add_text(file, "sha256", sha256_file(path, sha256, NULL) == CANDID_OK ? sha256 : NULL);
        cJSON_AddItemToArray(files, file);
    }
    return files;
}

/* Their checksums, wherever they lie. */
static uint32_t add_config_files(const cJSON *files, uint32_t crc) {
    for (const cJSON *file = files ? files->child : NULL; file; file = file->next) {
        const char *sha256 = cJSON_GetStringValue(json_find(file, "sha256"));
        crc = crc32_update(crc, sha256 ? sha256 : "", sha256 ? strlen(sha256) : 0);
    }
    return crc;
}

cJSON *eval_about(const struct evaluation *e, const struct eval_config *config) {
    cJSON *about = cJSON_CreateObject();
    cJSON *resolved = config->config ? config_resolved(config->config) : cJSON_CreateObject();
    cJSON_AddStringToObject(about, "name", config->name);
    cJSON_AddStringToObject(about, "benchmark", e->bench->name);
    cJSON_AddItemReferenceToObject(about, "model", e->model);
    cJSON_AddItemToObject(about, "config", resolved);
    add_text(about, "config_file", config->path);
    cJSON_AddItemToObject(about, "config_files", config_files_json(config->config));
    cJSON_AddItemToObject(about, "settings", settings_json(e));
    cJSON_AddItemToObject(about, "data", data_json(e));
    return about;
}

/* The questions, whatever files they came from. */
static uint32_t items_checksum(const struct eval_items *items) {
    uint32_t crc = 0;
    for (size_t i = 0; i < items->n; i++) {
        const struct eval_item *item = &items->items[i];
        const char *texts[] = {item->id, item->image, item->split, item->question, item->label};
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            crc = crc32_update(crc, texts[k] ? texts[k] : "", texts[k] ? strlen(texts[k]) + 1 : 1);
        }
    }
    return crc;
}

void eval_run_id(const struct evaluation *e, const cJSON *about, char id[9]) {
    const cJSON *model = json_find(about, "model");
    const cJSON *parts[] = {json_find(about, "config"), json_find(about, "settings"), json_find(model, "sha256"),
                            json_find(model, "mmproj_sha256")};
    uint32_t crc = items_checksum(&e->items);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *text = parts[i] ? cJSON_PrintUnformatted(parts[i]) : NULL;
        crc = crc32_update(crc, text ? text : "", text ? strlen(text) + 1 : 1);
        cJSON_free(text);
    }
    crc = add_config_files(json_find(about, "config_files"), crc);
    crc = crc32_update(crc, e->bench->name, strlen(e->bench->name));
    snprintf(id, 9, "%08x", crc);
}

/* ---- scores -------------------------------------------------------------------------------------- */

static int write_verdicts(const char *path, const struct eval_scores *scores) {
    FILE *file = fopen(path, "w");
    const bool ok = file && score_print_verdicts(file, scores);
    if ((file && fclose(file) != 0) || !ok) {
        complain("%s: cannot write", path);
        return EXIT_OUTPUT;
    }
    return EXIT_OK;
}

static uint32_t fingerprint_of(const struct eval_held *held) {
    uint32_t crc = 0;
    for (size_t i = 0; i < held->n; i++) {
        crc = crc32_update(crc, &held->fingerprint[i], sizeof held->fingerprint[i]);
    }
    return crc;
}

static void add_counts(const struct evaluation *e, const struct eval_held *held, cJSON *summary) {
    const struct eval_work *w = &held->work;
    size_t questions = 0, distinct = 0;
    for (size_t i = 0; i < e->units.n; i++) {
        questions += e->units.units[i].n_items;
        distinct += e->units.units[i].n_asked;
    }
    cJSON *counts = cJSON_AddObjectToObject(summary, "counts");
    cJSON_AddNumberToObject(counts, "questions", (double)questions);
    cJSON_AddNumberToObject(counts, "answered", (double)(held->n_held - held->n_failed));
    cJSON_AddNumberToObject(counts, "failed", (double)held->n_failed);
    cJSON_AddNumberToObject(counts, "distinct", (double)distinct);
    cJSON_AddNumberToObject(counts, "images", (double)e->units.n);
    cJSON_AddNumberToObject(counts, "images_encoded", (double)w->encoded);
    cJSON_AddNumberToObject(counts, "prompt_tokens", (double)w->prompt_tokens);
    cJSON_AddNumberToObject(counts, "prefilled_tokens", (double)w->prefilled_tokens);
    cJSON_AddNumberToObject(counts, "reused_tokens", (double)(w->prompt_tokens - w->prefilled_tokens));
    cJSON_AddNumberToObject(counts, "generated_tokens", (double)w->generated_tokens);
}

static void add_time(const struct eval_held *held, const char *started, cJSON *summary) {
    const struct eval_work *w = &held->work;
    cJSON *time = cJSON_AddObjectToObject(summary, "time");
    cJSON_AddStringToObject(time, "started", started);
    cJSON_AddNumberToObject(time, "seconds", w->seconds);
    cJSON_AddNumberToObject(time, "encode_s", w->encode_s);
    cJSON_AddNumberToObject(time, "prefill_s", w->prefill_s);
    cJSON_AddNumberToObject(time, "decode_s", w->decode_s);
    cJSON_AddNumberToObject(time, "questions_per_s", w->seconds > 0 ? (double)held->n_held / w->seconds : 0);
    cJSON_AddNumberToObject(time, "tokens_per_s", w->seconds > 0 ? (double)w->generated_tokens / w->seconds : 0);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The summary without scores. */
static cJSON *summary_json(const struct evaluation *e, const cJSON *about, const char *run, const char *items_file,
                           const char *started, const char *why_not, const struct eval_held *held) {
    const struct eval_options *o = e->o;
    cJSON *s = cJSON_CreateObject(), *binary = cJSON_CreateObject();
    cJSON_AddNumberToObject(s, "candid_run", 1);
    for (const cJSON *part = about->child; part; part = part->next) {
        cJSON_AddItemToObject(s, part->string, cJSON_Duplicate(part, true));
    }
    cJSON_AddStringToObject(s, "run", run);
    cJSON_AddStringToObject(s, "items", base_name(items_file));
    cJSON_AddStringToObject(binary, "version", candid_version());
    cJSON_AddStringToObject(binary, "commit", CANDID_COMMIT);
    cJSON_AddItemToObject(s, "binary", binary);
    cJSON_AddItemToObject(s, "arguments", cJSON_Duplicate(o->arguments, true));
    cJSON_AddNumberToObject(s, "threads", o->run.n_threads);
    add_text(s, "prompts_not_shared", why_not && why_not[0] ? why_not : NULL);
    add_counts(e, held, s);
    add_time(held, started, s);
    char fingerprint[9];
    snprintf(fingerprint, sizeof fingerprint, "%08x", fingerprint_of(held));
    cJSON_AddStringToObject(s, "fingerprint", fingerprint);
    if (o->n_shards > 1) {
        cJSON *shard = cJSON_AddObjectToObject(s, "shard");
        cJSON_AddNumberToObject(shard, "index", o->shard);
        cJSON_AddNumberToObject(shard, "of", o->n_shards);
        cJSON_AddNumberToObject(shard, "questions", (double)e->items.n);
    }
    return s;
}

/* Scores of a complete run go into its summary. */
static int add_scores(struct evaluation *e, const char *scored_file, cJSON *summary) {
    struct eval_scores scores = {0};
    candid_error error;
    if (e->bench->score(e, &scores, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    const int code = write_verdicts(scored_file, &scores);
    cJSON_AddStringToObject(summary, "scored", base_name(scored_file));
    cJSON_AddItemToObject(summary, "scores", scores.summary);
    scores.summary = NULL;
    scores_free(&scores);
    return code;
}

int eval_finish(struct evaluation *e, const struct eval_config *config, const cJSON *about, const char *run,
                const char *started, const char *why_not, const struct eval_held *held) {
    const struct eval_options *o = e->o;
    char *items_file = eval_file(o->out, config->name, o->shard, o->n_shards, ".jsonl");
    char *scored_file = eval_file(o->out, config->name, o->shard, o->n_shards, ".scored.jsonl");
    char *summary_file = eval_file(o->out, config->name, o->shard, o->n_shards, ".json");
    cJSON *summary = NULL;
    int code = items_file && scored_file && summary_file ? EXIT_OK : EXIT_OUTPUT;
    if (code == EXIT_OK) {
        summary = summary_json(e, about, run, items_file, started, why_not, held);
        const bool complete = o->n_shards == 1 && held->n_held == e->items.n;
        cJSON_AddBoolToObject(summary, "complete", complete);
        if (complete && e->bench->score && held->n_failed < held->n_held) {
            code = add_scores(e, scored_file, summary);
        }
    }
    char *text = summary ? json_print_exact(summary, true) : NULL;
    candid_error error;
    if (text && file_write_whole(summary_file, text, &error) != CANDID_OK) {
        complain("%s", error.message);
        code = EXIT_OUTPUT;
    }
    if (text) {
        eval_print(summary);
    }
    cJSON_free(text);
    cJSON_Delete(summary);
    free(items_file);
    free(scored_file);
    free(summary_file);
    return code;
}

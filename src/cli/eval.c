/* candid eval: from a command line to runs. */
#include "cli/eval.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "cli/demo_model.h"
#include "core/file.h"
#include "core/status.h"
#include "eval/common/sha256.h"

/* ---- configurations ------------------------------------------------------------------------------ */

static bool assign_all(const struct eval_options *o, candid_config *config) {
    candid_error error;
    for (size_t i = 0; i < o->assignments.n; i++) {
        if (candid_config_set(config, o->assignments.values[i], &error) != CANDID_OK) {
            complain("%s", error.message);
            return false;
        }
    }
    return true;
}

/* Names are file names of results; NAME.scored and NAME.shard-1-of-2 would be those of another run. */
static bool is_name(const char *name) {
    const size_t n = strlen(name);
    return name[0] && name[0] != '.' && n < sizeof((struct eval_config *)0)->name && !strchr(name, '/') &&
           !strstr(name, ".shard-") && !(n >= 7 && strcmp(name + n - 7, ".scored") == 0);
}

static bool add_config(struct evaluation *e, const char *name, const char *path, candid_config *config) {
    struct eval_config *c = &e->configs[e->n_configs++];
    *c = (struct eval_config){.path = path, .config = config};
    if (!is_name(name)) {
        complain("\"%s\" cannot name a run: expected up to %zu characters without \"/\" and \".shard-\", not "
                 "ending in \".scored\"",
                 name, sizeof c->name - 1);
        return false;
    }
    snprintf(c->name, sizeof c->name, "%s", name);
    for (size_t i = 0; i + 1 < e->n_configs; i++) {
        if (strcmp(e->configs[i].name, name) == 0) {
            complain("two runs would be called \"%s\": rename a file, or give --no-baseline", name);
            return false;
        }
    }
    return true;
}

/* "configs/vhr.json" gives "vhr". */
static void name_of_file(const char *path, char name[96]) {
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, *dot = strrchr(base, '.');
    snprintf(name, 96, "%.*s", (int)(dot && dot > base ? dot - base : (ptrdiff_t)strlen(base)), base);
}

static bool add_file(struct evaluation *e, const char *path) {
    candid_config *config = NULL;
    candid_error error;
    char name[96];
    if (candid_config_load(path, &config, &error) != CANDID_OK) {
        complain("%s", error.message);
        return false;
    }
    name_of_file(path, name);
    const bool only = e->o->configs.n == 1 && e->o->name;
    return add_config(e, only ? e->o->name : name, path, config) && assign_all(e->o, config);
}

static bool add_text(struct evaluation *e, const char *name, const char *text, bool assign) {
    candid_config *config = NULL;
    candid_error error;
    if (candid_config_parse(text, strlen(text), name, &config, &error) != CANDID_OK) {
        complain("%s", error.message);
        return false;
    }
    return add_config(e, name, NULL, config) && (!assign || assign_all(e->o, config));
}

static bool add_also(struct evaluation *e) {
    static const struct {
        const char *name, *text;
    } known[] = {{"beam-5", "{\"decode\": {\"strategy\": \"beam\", \"beams\": 5}}"},
                 {"sample-t1", "{\"decode\": {\"strategy\": \"sample\", \"temperature\": 1}}"}};
    for (const char *at = e->o->also; at && *at;) {
        const size_t n = strcspn(at, ",");
        size_t k = 0;
        while (k < 2 && (strlen(known[k].name) != n || strncmp(at, known[k].name, n) != 0)) {
            k++;
        }
        if (k == 2) {
            complain("--also: expected beam-5 or sample-t1, found \"%.*s\"", (int)n, at);
            return false;
        }
        if (!add_text(e, known[k].name, known[k].text, false)) {
            return false;
        }
        at += n + (at[n] == ',');
    }
    return true;
}

static bool make_configs(struct evaluation *e) {
    const struct eval_options *o = e->o;
    e->configs = calloc(o->configs.n + 4, sizeof *e->configs);
    if (!e->configs) {
        complain("out of memory");
        return false;
    }
    const bool alone = o->configs.n == 0 && o->assignments.n == 0;
    if (o->name && (o->configs.n > 1 || (alone && !o->no_baseline))) {
        complain("--name needs exactly one configuration");
        return false;
    }
    const char *baseline = o->run.generate.temperature > 0 ? "sampled" : "greedy";
    if (!o->no_baseline || alone) {
        if (!add_config(e, alone && o->name ? o->name : baseline, NULL, NULL)) {
            return false;
        }
    }
    if (!add_also(e)) {
        return false;
    }
    if (o->configs.n == 0 && o->assignments.n > 0 && !add_text(e, o->name ? o->name : "set", "{}", true)) {
        return false;
    }
    for (size_t i = 0; i < o->configs.n; i++) {
        if (!add_file(e, o->configs.values[i])) {
            return false;
        }
    }
    return true;
}

/* ---- questions ----------------------------------------------------------------------------------- */

/* Keeps the items of the first N images. */
static candid_status limit_items(struct eval_items *items, size_t limit, candid_error *error) {
    struct eval_units all;
    candid_status status = units_make(items, 1, 1, &all, error);
    if (status != CANDID_OK) {
        return status;
    }
    bool *keep = calloc(items->n + 1, sizeof *keep);
    status = keep ? CANDID_OK : fail_memory(error, "the questions", items->n * sizeof *keep);
    for (size_t i = 0; keep && i < all.n && i < limit; i++) {
        for (size_t k = 0; k < all.units[i].n_items; k++) {
            keep[all.units[i].items[k]] = true;
        }
    }
    size_t n = 0;
    for (size_t i = 0; keep && i < items->n; i++) {
        if (keep[i]) {
            items->items[n++] = items->items[i];
        }
    }
    items->n = keep ? n : items->n;
    units_free(&all);
    free(keep);
    return status;
}

candid_status evaluation_items(struct evaluation *e, struct eval_items *items, candid_error *error) {
    candid_status status = e->bench->read(e, items, error);
    if (status == CANDID_OK && e->o->limit > 0) {
        status = limit_items(items, (size_t)e->o->limit, error);
    }
    for (size_t i = 0; i < items->n; i++) {
        items->items[i].answer = NULL; /* of a file that brings some */
    }
    return status;
}

static candid_status read_questions(struct evaluation *e, candid_error *error) {
    const struct eval_options *o = e->o;
    candid_status status = evaluation_items(e, &e->items, error);
    if (status == CANDID_OK) {
        status = units_make(&e->items, (size_t)o->shard, (size_t)o->n_shards, &e->units, error);
    }
    if (status == CANDID_OK && o->one_by_one) {
        units_repeat(&e->units);
    }
    if (status == CANDID_OK && e->bench->check && !o->plan) {
        status = e->bench->check(e, error);
    }
    return status;
}

/* The folder is there and holds what is asked about: a wrong one would fail every question. */
static bool check_images(const struct evaluation *e) {
    if (!file_is_directory(e->o->images)) {
        complain("%s: expected a folder of images", e->o->images);
        return false;
    }
    for (size_t i = 0; i < e->units.n; i++) {
        char *path = NULL;
        const bool there =
            file_join(e->o->images, e->units.units[i].image, &path, NULL) == CANDID_OK && file_exists(path);
        free(path);
        if (there) {
            return true;
        }
    }
    if (e->units.n > 0) {
        complain("%s: holds none of the %zu images asked about, such as %s", e->o->images, e->units.n,
                 e->units.units[0].image);
        return false;
    }
    return true;
}

struct eval_prompt eval_prompt(const struct evaluation *e) {
    const char *prompt = e->o->run.prompt ? e->o->run.prompt : e->bench->prompt;
    return (struct eval_prompt){.prompt = prompt, .suffix = e->o->suffix, .cut = e->o->cut};
}

int evaluation_prepare(struct eval_options *o, struct evaluation *out) {
    *out = (struct evaluation){.o = o, .bench = benchmark_find(o->benchmark)};
    if (!out->bench) {
        complain("unknown benchmark \"%s\"; see candid eval --help", o->benchmark);
        return EXIT_USAGE;
    }
    if (!make_configs(out)) {
        return EXIT_USAGE;
    }
    candid_error error;
    const candid_status status = read_questions(out, &error);
    if (status != CANDID_OK) {
        complain("%s", error.message);
        return status == CANDID_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_ITEM;
    }
    return EXIT_OK;
}

void evaluation_free(struct evaluation *e) {
    candid_context_free(e->context);
    candid_model_free(e->opened);
    for (size_t i = 0; i < e->n_configs; i++) {
        candid_config_free(e->configs[i].config);
    }
    free(e->configs);
    cJSON_Delete(e->model);
    chair_session_close(&e->chair);
    amber_nouns_close(&e->nouns);
    amber_data_free(e->amber);
    units_free(&e->units);
    items_free(&e->items);
}

/* ---- model --------------------------------------------------------------------------------------- */

/* Of a file; of a folder that of the checksums of its files, sorted by name. */
static candid_status checksum(const char *path, char hex[65], candid_error *error) {
    struct dirent **entries;
    const int n = file_is_directory(path) ? scandir(path, &entries, NULL, alphasort) : -1;
    if (n < 0) {
        return sha256_file(path, hex, error);
    }
    struct sha256 all;
    sha256_begin(&all);
    candid_status status = CANDID_OK;
    for (int i = 0; i < n; i++) {
        char *file = NULL, one[65];
        if (status == CANDID_OK && entries[i]->d_name[0] != '.') {
            status = file_join(path, entries[i]->d_name, &file, error);
        }
        if (file && !file_is_directory(file)) {
            status = sha256_file(file, one, error);
            sha256_add(&all, entries[i]->d_name, strlen(entries[i]->d_name) + 1);
            sha256_add(&all, one, status == CANDID_OK ? 64 : 0);
        }
        free(file);
        free(entries[i]);
    }
    free(entries);
    sha256_end(&all, hex);
    return status;
}

static int add_checksum(cJSON *model, const char *key, const char *path) {
    char hex[65];
    candid_error error;
    if (checksum(path, hex, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_MODEL;
    }
    cJSON_AddStringToObject(model, key, hex);
    return EXIT_OK;
}

static int describe_model(struct evaluation *e) {
    const struct run_options *r = &e->o->run;
    candid_model_info info = {.struct_size = sizeof info};
    candid_error error;
    if (candid_model_get_info(e->opened, &info, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_MODEL;
    }
    cJSON *m = e->model = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "name", info.name);
    cJSON_AddStringToObject(m, "path", r->model ? r->model : "(embedded demo model)");
    cJSON_AddStringToObject(m, "backend", info.backend);
    int code = EXIT_OK;
    if (r->model) {
        code = add_checksum(m, "sha256", r->model);
    } else {
        char hex[65];
        sha256_hex(demo_model_begin, demo_model_size(), hex);
        cJSON_AddStringToObject(m, "sha256", hex);
    }
    if (code == EXIT_OK && r->mmproj) {
        cJSON_AddStringToObject(m, "mmproj", r->mmproj);
        code = add_checksum(m, "mmproj_sha256", r->mmproj);
    }
    return code;
}

int evaluation_open(struct evaluation *e) {
    const struct run_options *r = &e->o->run;
    if (!check_images(e)) {
        return EXIT_USAGE;
    }
    int code = open_model(r, &e->opened);
    if (code == EXIT_OK) {
        code = describe_model(e);
    }
    if (code != EXIT_OK) {
        return code;
    }
    candid_context_params params = candid_context_params_default();
    params.n_ctx = r->n_ctx;
    params.kv_type = r->kv_type;
    candid_error error;
    if (candid_context_create(e->opened, &params, &e->context, &error) != CANDID_OK) {
        complain("%s", error.message);
        return error.status == CANDID_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_MODEL;
    }
    return EXIT_OK;
}

/* ---- command ------------------------------------------------------------------------------------- */

static int run(struct eval_options *o) {
    struct evaluation e;
    int code = evaluation_prepare(o, &e);
    if (code == EXIT_OK && o->plan) {
        code = eval_plan(&e);
    } else if (code == EXIT_OK && !make_folder(o->out)) {
        code = EXIT_OUTPUT;
    } else if (code == EXIT_OK) {
        code = evaluation_open(&e);
        code = code == EXIT_OK ? eval_runs(&e) : code;
    }
    evaluation_free(&e);
    return code;
}

int command_eval(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } others[] = {{"merge", eval_merge}, {"export", eval_export}, {"--reproduce", eval_reproduce}};
    for (size_t i = 0; argc > 1 && i < sizeof others / sizeof *others; i++) {
        if (strcmp(argv[1], others[i].name) == 0) {
            return others[i].run(argc - 1, argv + 1);
        }
    }
    struct eval_options o;
    bool done;
    int code = eval_options_parse(argc, argv, &o, &done);
    if (code == EXIT_OK && !done) {
        code = run(&o);
    }
    eval_options_free(&o);
    return code;
}

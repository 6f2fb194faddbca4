/* Helpers of the commands: model opening, input lists, interrupts, the speed line. */
#include <cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/demo_model.h"

static void print_log(void *user_data, candid_log_level level, const char *message) {
    const bool *verbose = user_data;
    if (*verbose || level == CANDID_LOG_WARN) {
        fprintf(stderr, "candid: %s%s\n", level == CANDID_LOG_WARN ? "warning: " : "", message);
    }
}

int open_model(const struct run_options *o, candid_model **out) {
    candid_model_params params = candid_model_params_default();
    params.mmproj_path = o->mmproj;
    params.device = o->device;
    params.precision = o->precision;
    params.n_threads = o->n_threads;
    params.log = print_log;
    params.log_user_data = (void *)(uintptr_t)&o->verbose;
    candid_error error;
    candid_status status;
    if (o->model) {
        status = candid_model_open(o->model, &params, out, &error);
    } else {
        fputs(
            "candid: using the embedded demo model, a toy that knows emoji scenes only; give --model for a real one\n",
            stderr);
        status = candid_model_open_memory(demo_model_begin, demo_model_size(), &params, out, &error);
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_MODEL;
    }
    return EXIT_OK;
}

/* ---- folders ---- */

bool make_folder(const char *path) {
    char *part = strdup(path);
    for (char *at = part ? part + 1 : NULL; at && *part && *at; at++) {
        if (*at == '/') {
            *at = '\0';
            mkdir(part, 0777); /* the last one tells whether all are there */
            *at = '/';
        }
    }
    free(part);
    struct stat info;
    if (mkdir(path, 0777) == 0 || (stat(path, &info) == 0 && S_ISDIR(info.st_mode))) {
        return true;
    }
    complain("%s: cannot make the folder: %s", path, strerror(errno));
    return false;
}

/* ---- inputs ---- */

bool has_image_extension(const char *name) {
    static const char *const extensions[] = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof extensions / sizeof *extensions; i++) {
        if (strcasecmp(dot, extensions[i]) == 0) {
            return true;
        }
    }
    return false;
}

struct path_list {
    char **paths;
    size_t count, capacity;
};

static bool path_push(struct path_list *list, const char *directory, const char *name) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        char **grown = realloc(list->paths, capacity * sizeof *grown);
        if (!grown) {
            return false;
        }
        list->paths = grown;
        list->capacity = capacity;
    }
    size_t length = strlen(name) + (directory ? strlen(directory) + 1 : 0) + 1;
    char *path = malloc(length);
    if (!path) {
        return false;
    }
    if (directory) {
        const char *slash = directory[strlen(directory) - 1] == '/' ? "" : "/";
        snprintf(path, length, "%s%s%s", directory, slash, name);
    } else {
        snprintf(path, length, "%s", name);
    }
    list->paths[list->count++] = path;
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int collect_directory(const char *directory, struct path_list *list) {
    DIR *dir = opendir(directory);
    if (!dir) {
        complain("%s: cannot read directory: %s", directory, strerror(errno));
        return EXIT_USAGE;
    }
    size_t first = list->count;
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        if (entry->d_name[0] != '.' && has_image_extension(entry->d_name)) {
            ok = path_push(list, directory, entry->d_name);
        }
    }
    closedir(dir);
    if (!ok) {
        complain("out of memory");
        return EXIT_ITEM;
    }
    if (list->count == first) {
        complain("%s: expected a directory with images, found none", directory);
        return EXIT_USAGE;
    }
    qsort(list->paths + first, list->count - first, sizeof *list->paths, by_name);
    return EXIT_OK;
}

int paths_collect(char **inputs, int n_inputs, char ***paths, size_t *n_paths) {
    struct path_list list = {0};
    int code = EXIT_OK;
    for (int i = 0; i < n_inputs && code == EXIT_OK; i++) {
        struct stat info;
        if (inputs[i][0] && stat(inputs[i], &info) == 0 && S_ISDIR(info.st_mode)) {
            code = collect_directory(inputs[i], &list);
        } else if (!path_push(&list, NULL, inputs[i])) {
            complain("out of memory");
            code = EXIT_ITEM;
        }
    }
    if (code != EXIT_OK) {
        paths_free(list.paths, list.count);
        return code;
    }
    *paths = list.paths;
    *n_paths = list.count;
    return EXIT_OK;
}

void paths_free(char **paths, size_t n_paths) {
    for (size_t i = 0; i < n_paths; i++) {
        free(paths[i]);
    }
    free(paths);
}

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    interrupted = 1;
    signal(signal_number, SIG_DFL);
}

void interrupt_install(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupt_requested(void *unused) {
    return interrupted;
}

/* ---- speed ---- */

void print_speed(FILE *to, const candid_stats *s) {
    const int steps = s->n_generated - 1; /* the first token comes from the prefill */
    const double prefill = s->prefill_ms > 0 ? s->n_prompt / s->prefill_ms * 1e3 : 0;
    const double decode = steps > 0 && s->decode_ms > 0 ? steps / s->decode_ms * 1e3 : 0;
    const double bandwidth = s->decode_ms > 0 ? s->decode_bytes / s->decode_ms * 1e-6 : 0;
    fprintf(to,
            "image encode %.1f ms | prefill %d tokens, %.1f tok/s | decode %d tokens, %.1f tok/s, %.2f GB/s | "
            "fingerprint %08x\n",
            s->encode_ms, s->n_prompt, prefill, s->n_generated, decode, bandwidth, s->fingerprint);
}

/* "layers [2,3]", "heads_scaled 12": numbers as they are, long lists by their length. */
static void print_value(FILE *to, const cJSON *item) {
    if (cJSON_IsNumber(item)) {
        fprintf(to, "%.4g", item->valuedouble);
    } else if (cJSON_IsArray(item) && cJSON_GetArraySize(item) > 8) {
        fprintf(to, "(%d)", cJSON_GetArraySize(item));
    } else {
        char *text = cJSON_PrintUnformatted(item);
        fputs(text ? text : "", to);
        cJSON_free(text);
    }
}

void print_interventions(FILE *to, const char *interventions) {
    cJSON *all = cJSON_Parse(interventions);
    for (const cJSON *one = all ? all->child : NULL; one; one = one->next) {
        const char *why = cJSON_GetStringValue(cJSON_GetObjectItem(one, "why"));
        fprintf(to, "%s: ", one->string);
        if (!cJSON_IsTrue(cJSON_GetObjectItem(one, "active"))) {
            fprintf(to, "did nothing: %s", why ? why : "");
        }
        bool first = true;
        for (const cJSON *item = one->child; item; item = item->next) {
            if (strcmp(item->string, "active") == 0 || strcmp(item->string, "why") == 0 || why) {
                continue;
            }
            fprintf(to, "%s%s ", first ? "" : ", ", item->string);
            print_value(to, item);
            first = false;
        }
        fputc('\n', to);
    }
    cJSON_Delete(all);
}

/* What differs between runs besides the method. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "eval/report/align.h"

candid_status align_warn(struct report_group *g, candid_error *error, const char *format, ...) {
    char **grown = realloc(g->warnings, (g->n_warnings + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "a warning", (g->n_warnings + 1) * sizeof *grown);
    }
    g->warnings = grown;
    va_list args;
    va_start(args, format);
    const int n = vasprintf(&grown[g->n_warnings], format, args);
    va_end(args);
    if (n < 0) {
        return fail_memory(error, "a warning", 0);
    }
    g->n_warnings++;
    return CANDID_OK;
}

/* A value of a summary for a sentence: "none" when it is not there, strings cut to what tells them apart. */
static void print_value(const cJSON *item, char buffer[72]) {
    if (cJSON_IsString(item)) {
        text_print(buffer, 72, item->valuestring, strlen(item->valuestring));
    } else if (cJSON_IsNumber(item)) {
        snprintf(buffer, 72, "%.12g", item->valuedouble);
    } else {
        snprintf(buffer, 72, "%s", !item ? "none" : cJSON_IsBool(item) ? (cJSON_IsTrue(item) ? "yes" : "no") : "…");
    }
}

/* "greedy: pad; vhr, vcd: crop": the runs by value. Returns false when all agree. */
static bool describe_difference(const struct report_group *g, const char *path, char *out, size_t size) {
    const bool of_scores = strncmp(path, "scores.", 7) == 0; /* scores alone know nothing else */
    bool differs = false, *told = calloc(g->n_runs, sizeof *told);
    for (size_t r = 0; told && r < g->n_runs; r++) {
        told[r] = !of_scores && !g->runs[r]->has_answers;
    }
    size_t used = 0;
    for (size_t r = 0; told && r < g->n_runs; r++) {
        const cJSON *value = report_summary(g->runs[r], path);
        if (told[r]) {
            continue;
        }
        for (size_t other = r; other < g->n_runs; other++) {
            if (told[other]) {
                continue;
            }
            const cJSON *same = report_summary(g->runs[other], path);
            if ((!value && !same) || (value && same && cJSON_Compare(value, same, true))) {
                struct printable name;
                const int n = snprintf(out + used, size - used, "%s%s", other == r ? (used > 0 ? "; " : "") : ", ",
                                       printable_string(&name, g->runs[other]->name));
                used = n > 0 && (size_t)n < size - used ? used + (size_t)n : size - 1;
                told[other] = true;
            } else {
                differs = true;
            }
        }
        char text[72];
        print_value(value, text);
        const int n = snprintf(out + used, size - used, ": %s", text);
        used = n > 0 && (size_t)n < size - used ? used + (size_t)n : size - 1;
    }
    free(told);
    return differs;
}

static const cJSON *sources_of(const struct report_run *run) {
    const cJSON *sources = report_summary(run, "data.sources");
    return sources ? sources : report_summary(run, "sources");
}

/* Whether the question files are the same, by checksum. */
static bool sources_differ(const struct report_group *g) {
    const cJSON *first = sources_of(g->runs[0]);
    for (size_t r = 1; r < g->n_runs; r++) {
        const cJSON *a = first ? first->child : NULL, *list = sources_of(g->runs[r]);
        const cJSON *b = list ? list->child : NULL;
        for (; a && b; a = a->next, b = b->next) {
            const char *x = cJSON_GetStringValue(json_find(a, "sha256")),
                       *y = cJSON_GetStringValue(json_find(b, "sha256"));
            if (strcmp(x ? x : "", y ? y : "") != 0) {
                return true;
            }
        }
        if (a || b) {
            return true;
        }
    }
    return false;
}

static candid_status check_settings(struct report_group *g, candid_error *error) {
    static const struct {
        const char *path, *what;
    } same[] = {
        {"binary.version", "version of candid"},
        {"binary.commit", "commit of the program"},
        {"binary.backend", "backend"},
        {"model.sha256", "model"},
        {"model.mmproj_sha256", "image encoder"},
        {"settings.precision", "precision"},
        {"settings.kv", "type of the KV cache"},
        {"settings.preprocess", "image preprocessing"},
        {"settings.jpeg_decoder", "JPEG decoder"},
        {"settings.conversation", "conversation template"},
        {"settings.prompt", "prompt"},
        {"settings.cut", "text left out of the questions"},
        {"settings.suffix", "suffix of the questions"},
        {"settings.max_new_tokens", "limit of new tokens"},
        {"settings.temperature", "temperature"},
        {"settings.seed", "seed"},
        {"scores.rule", "rule of scoring"},
        {"scores.mode", "mode of scoring"},
        {"scores.tagger", "tagger"},
        {"scores.truth", "truth"},
    };
    char text[600];
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (describe_difference(g, same[i].path, text, sizeof text)) {
            TRY(align_warn(g, error, "The runs differ in more than the method. The %s is not the same: %s.",
                           same[i].what, text));
        }
    }
    if (!report_summary(g->runs[0], "model.sha256") && describe_difference(g, "model.name", text, sizeof text)) {
        TRY(align_warn(g, error, "The runs differ in more than the method. The model is not the same: %s.", text));
    }
    if (sources_differ(g)) {
        TRY(align_warn(g, error, "The runs differ in more than the method. Their question files are not the same."));
    }
    if (describe_difference(g, "threads", text, sizeof text) ||
        describe_difference(g, "settings.batch", text, sizeof text)) {
        TRY(align_warn(g, error, "Threads or batch size are not the same (%s): speeds do not compare.", text));
    }
    return CANDID_OK;
}

static candid_status check_labels(struct report_group *g, candid_error *error) {
    size_t differ = 0;
    for (size_t i = 0; i < g->n_items; i++) {
        const char *label = NULL;
        for (size_t r = 0; r < g->n_runs; r++) {
            const char *other = g->runs[r]->has_answers ? report_item(g, r, i)->label : NULL;
            label = label ? label : other;
            if (label && other && strcmp(label, other) != 0) {
                differ++;
                break;
            }
        }
    }
    return differ == 0 ? CANDID_OK
                       : align_warn(g, error, "The runs disagree on the right answer to %zu question%s.", differ,
                                    differ > 1 ? "s" : "");
}

candid_status align_check(struct report_group *g, candid_error *error) {
    for (size_t r = 0; r < g->n_runs; r++) {
        const struct report_run *run = g->runs[r];
        size_t failed = 0, unjudged = 0;
        for (size_t i = 0; i < run->questions.n; i++) {
            failed += run->questions.items[i].answer == NULL;
            unjudged += run->questions.items[i].answer && !run->verdicts[i] && report_summary(run, "scored");
        }
        if (!run->complete) {
            TRY(align_warn(g, error, "%s is not complete: %zu questions of %.0f were answered.", run->name,
                           run->questions.n - failed, report_summary_number(run, "counts.questions")));
        }
        if (failed > 0) {
            TRY(align_warn(g, error, "%s failed at %zu question%s, which do not count.", run->name, failed,
                           failed > 1 ? "s" : ""));
        }
        if (unjudged > 0) {
            TRY(align_warn(g, error, "%s has %zu answer%s without a verdict, which do not count.", run->name, unjudged,
                           unjudged > 1 ? "s" : ""));
        }
        if (!run->has_answers) {
            TRY(align_warn(g, error,
                           "%s has scores without answers: no intervals, no tests, and how it was run is not known.",
                           run->name));
        }
    }
    if (g->baseline == SIZE_MAX && g->n_runs > 1) {
        TRY(align_warn(g, error, "There is no baseline among the runs: no differences are given."));
    }
    if (g->n_runs > 1) {
        TRY(check_settings(g, error));
    }
    return check_labels(g, error);
}

/*
 * The answers as JSON for the page's script:
 *
 *   {"images":{NAME:"data:…",…},"missing":N,"groups":[{"benchmark","title","yesno":bool,"runs":[NAME…],
 *    "colours":[N…],"baseline":N|-1,"splits":[…],"items":[{"i":NAME,"s":SPLIT,"q":QUESTION,"l":LABEL,"t":[TRUTH…],
 *    "a":[[BAD,VERDICT,"text",{"w":WORD,"h":1},…]…]}]}]}
 *
 * An answer is a list: 1 when it is wrong or hallucinates, what yes/no it was taken for, then its text in pieces, the
 * mentions of objects among them as objects.
 */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "eval/report/marks.h"
#include "eval/report/page.h"
#include "eval/report/rules.h"
#include "eval/report/write.h"

#define MOST_MARKS 512

static void write_answer(FILE *f, const char *answer, const cJSON *verdict) {
    struct mark marks[MOST_MARKS];
    const size_t n = marks_find(answer, verdict, marks, MOST_MARKS);
    const char *said = cJSON_GetStringValue(json_find(verdict, "verdict"));
    fprintf(f, "[%d,", report_is_bad(verdict));
    write_json(f, said ? said : "");
    size_t at = 0;
    for (size_t k = 0; k < n; k++) {
        fputs(",\"", f);
        write_json_part(f, answer + at, marks[k].begin - at);
        fputs("\",{\"w\":\"", f);
        write_json_part(f, answer + marks[k].begin, marks[k].end - marks[k].begin);
        fprintf(f, "\",\"h\":%d}", marks[k].hallucinated);
        at = marks[k].end;
    }
    fputc(',', f);
    write_json(f, answer + at);
    fputc(']', f);
}

/* True objects that the verdict knows of. */
static void write_truth(FILE *f, const cJSON *verdict) {
    const cJSON *truth = json_find(verdict, "truth");
    bool first = true;
    fputs(",\"t\":[", f);
    for (const cJSON *item = cJSON_IsArray(truth) ? truth->child : NULL; item; item = item->next) {
        if (cJSON_IsString(item)) {
            fputs(first ? "" : ",", f);
            write_json(f, item->valuestring);
            first = false;
        }
    }
    fputs("]", f);
}

static void write_field(FILE *f, const char *key, const char *value) {
    if (value) {
        fprintf(f, ",\"%s\":", key);
        write_json(f, value);
    }
}

static size_t first_with_answers(const struct report_group *g) {
    size_t r = 0;
    while (r < g->n_runs && !g->runs[r]->has_answers) {
        r++;
    }
    return r;
}

static void write_group(FILE *f, const struct report *report, const struct report_group *g) {
    const size_t first = first_with_answers(g);
    size_t baseline = SIZE_MAX, shown = 0;
    fputs("{\"benchmark\":", f);
    write_json(f, g->benchmark);
    fputs(",\"title\":", f);
    write_json(f, g->rules->title ? g->rules->title : g->benchmark);
    fprintf(f, ",\"yesno\":%s,\"runs\":[", g->rules->yes_no ? "true" : "false");
    for (size_t r = first; r < g->n_runs; r++) {
        if (g->runs[r]->has_answers) {
            fputs(shown > 0 ? "," : "", f);
            write_json(f, g->runs[r]->name);
            baseline = r == g->baseline ? shown : baseline;
            shown++;
        }
    }
    fputs("],\"colours\":[", f);
    for (size_t r = first; r < g->n_runs; r++) {
        if (g->runs[r]->has_answers) {
            fprintf(f, "%s%d", r == first ? "" : ",", page_colour(report, g, r));
        }
    }
    fprintf(f, "],\"baseline\":%d,\"splits\":[", baseline == SIZE_MAX ? -1 : (int)baseline);
    for (size_t s = 0; s < g->n_splits; s++) {
        fputs(s > 0 ? "," : "", f);
        write_json(f, g->splits[s]);
    }
    fputs("],\"items\":[", f);
    for (size_t i = 0; i < g->n_items; i++) {
        const struct eval_item *item = report_item(g, first, i);
        fputs(i > 0 ? ",\n{\"i\":" : "\n{\"i\":", f);
        write_json(f, item->image);
        write_field(f, "s", item->split);
        write_field(f, "q", item->question);
        write_field(f, "l", item->label);
        write_truth(f, report_verdict(g, first, i));
        fputs(",\"a\":[", f);
        for (size_t r = first; r < g->n_runs; r++) {
            if (g->runs[r]->has_answers) {
                fputs(r > first ? "," : "", f);
                write_answer(f, report_item(g, r, i)->answer, report_verdict(g, r, i));
            }
        }
        fputs("]}", f);
    }
    fputs("]}", f);
}

/* ---- images -------------------------------------------------------------------------------------- */

struct image_list {
    const char **name;              /* [n] in order of appearance, each once */
    const struct report_group **of; /* [n] the group it appeared in first */
    size_t n;
};

static bool is_listed(const struct image_list *list, const char *name) {
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->name[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static candid_status list_images(const struct report *report, struct image_list *out, candid_error *error) {
    size_t room = 1;
    for (size_t k = 0; k < report->n_groups; k++) {
        room += report->groups[k].n_units;
    }
    out->name = malloc(room * sizeof *out->name);
    out->of = malloc(room * sizeof *out->of);
    bool *done = malloc(room);
    if (!out->name || !out->of || !done) {
        free(done);
        return fail_memory(error, "the images", room * sizeof *out->name);
    }
    for (size_t k = 0; k < report->n_groups; k++) {
        const struct report_group *g = &report->groups[k];
        memset(done, 0, room);
        for (size_t i = 0; i < g->n_items; i++) {
            const char *image = report_item(g, first_with_answers(g), i)->image;
            if (!done[g->unit[i]] && !is_listed(out, image)) {
                out->name[out->n] = image;
                out->of[out->n++] = g;
            }
            done[g->unit[i]] = true;
        }
    }
    free(done);
    return CANDID_OK;
}

static candid_status write_images(FILE *f, const struct report *report, const struct image_list *list,
                                  candid_error *error) {
    size_t embedded = 0, missing = 0;
    fputs("{\"images\":{", f);
    for (size_t i = 0; i < list->n && !report->options.no_images; i++) {
        const char *folder = page_images_folder(report, list->of[i]);
        bool written = false;
        if (embedded < report->options.images_limit) {
            /* the value comes first, because only then it is known whether there is one */
            char *text = NULL;
            size_t size = 0;
            FILE *memory = open_memstream(&text, &size);
            if (!memory) {
                return fail_memory(error, "an image", 0);
            }
            const candid_status status = page_image(memory, folder, list->name[i], &written, error);
            fclose(memory);
            if (written) {
                fputs(embedded > 0 ? ",\n" : "\n", f);
                write_json(f, list->name[i]);
                fputs(":\"", f);
                fwrite(text, 1, size, f);
                fputc('"', f);
            }
            free(text);
            TRY(status);
            embedded += written;
            missing += !written;
        }
    }
    fprintf(f, "},\"distinct\":%zu,\"embedded\":%zu,\"missing\":%zu,", list->n, embedded, missing);
    return CANDID_OK;
}

candid_status page_answers(FILE *f, const struct report *report, candid_error *error) {
    struct image_list list = {0};
    candid_status status = list_images(report, &list, error);
    fputs("<script type=\"application/json\" id=\"data\">", f);
    if (status == CANDID_OK) {
        status = write_images(f, report, &list, error);
    }
    fputs("\"groups\":[", f);
    bool first = true;
    for (size_t k = 0; k < report->n_groups && status == CANDID_OK; k++) {
        if (report->groups[k].n_items > 0) {
            fputs(first ? "" : ",\n", f);
            write_group(f, report, &report->groups[k]);
            first = false;
        }
    }
    fputs("]}</script>\n", f);
    free(list.name);
    free(list.of);
    return status;
}

/* candid score chair. */
#include <string.h>

#include "cli/chair.h"
#include "cli/score.h"

static const char help_text[] =
    "Usage: candid score chair CAPTIONS... --truth INSTANCES.json... [--reference CAPTIONS.json...] [options]\n"
    "\n"
    "CHAIR: which of the objects that captions mention are not in the image. Captions as JSON lines or a JSON list,\n"
    "with \"caption\", \"answer\" or \"text\", and \"image_id\", \"id\", \"question_id\" or a file name \"image\".\n"
    "\n"
    "  --truth FILE...      instance annotations as COCO writes them. instances_val2014.json holds all of an image of\n"
    "                       val2014; the public scripts ask for that of train2014 too, which changes no number\n"
    "  --reference FILE...  reference captions as COCO writes them, such as captions_val2014.json; without them the\n"
    "                       truth is the instances alone, which is another metric\n"
    "  --truth-cache FILE   the truth as written by candid chair cache; refused when it does not fit the other "
    "options\n"
    "  --mode MODE          how words become objects: nltk38 (what most publications report: NLTK <= 3.8.1), nltk39\n"
    "                       (NLTK 3.9 to 3.10.0), pattern (the original), approximate (nltk38 without a tagger; not "
    "the\n"
    "                       published metric). Default: nltk38 where a tagger was imported, else approximate\n"
    "  --truth-mode MODE    the same for the reference captions (default: as --mode)\n"
    "  --tagger FILE        written by candid chair import-tagger (default: where that writes)\n"
    "  --synonyms FILE      classes of your own, a row \"name, synonym, synonym\" each\n"
    "  --unknown-images empty\n"
    "                       an image that no annotation file lists has no objects, as in the public scripts; else it\n"
    "                       is an error\n"
    "\n";

static void print_value(const char *name, const cJSON *summary, const char *key, double factor) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(summary, key);
    if (cJSON_IsNumber(value)) {
        printf("%-10s %6.1f\n", name, value->valuedouble * factor);
    } else {
        printf("%-10s undefined\n", name);
    }
}

static double number_of(const cJSON *summary, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(summary, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static const char *text_of(const cJSON *summary, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(summary, key)->valuestring;
}

void score_chair_print(const cJSON *summary) {
    const cJSON *source;
    cJSON_ArrayForEach(source, cJSON_GetObjectItemCaseSensitive(summary, "truth_sources")) {
        printf("truth: %s, %.0f %s, sha256 %.12s…\n", text_of(source, "path"), number_of(source, "annotations"),
               text_of(source, "kind"), text_of(source, "sha256"));
    }
    printf("mode %s, tagger: %s, truth by %s, %s classes\n", text_of(summary, "mode"), text_of(summary, "tagger"),
           text_of(summary, "truth"), text_of(summary, "vocabulary"));
    if (number_of(summary, "unknown_images") > 0) {
        printf("%.0f captions of unknown images, taken for empty ones\n", number_of(summary, "unknown_images"));
    }
    printf("%.0f captions, %.0f mentions, %.0f of them hallucinated\n\n", number_of(summary, "captions"),
           number_of(summary, "mentions"), number_of(summary, "hallucinated"));
    print_value("CHAIR_s", summary, "chair_s", 100);
    print_value("CHAIR_i", summary, "chair_i", 100);
    print_value("recall", summary, "recall", 100);
    print_value("precision", summary, "precision", 100);
    print_value("F1", summary, "f1", 100);
    print_value("length", summary, "length", 1);
}

struct chair_arguments {
    struct score_files captions, instances, references;
    const char *unknown_images;
    struct chair_request request;
    struct score_output output;
};

static int score(const struct chair_arguments *a, struct chair_session *session, struct eval_items *items) {
    candid_error error;
    candid_status status = CANDID_OK;
    for (int i = 0; i < a->captions.n && status == CANDID_OK; i++) {
        status = chair_read_captions(a->captions.paths[i], items, &error);
    }
    struct eval_scores scores = {0};
    if (status == CANDID_OK) {
        const struct chair_options options = {
            .language = &session->language, .truth = session->truth, .unknown_images_empty = a->unknown_images != NULL};
        status = chair_score(items, &options, &scores, &error);
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    size_t n_failed = 0;
    for (size_t i = 0; i < items->n; i++) {
        n_failed += !items->items[i].answer;
    }
    if (n_failed > 0) {
        complain("%zu of %zu images have no caption and do not count", n_failed, items->n);
    }
    score_print_sources(items);
    score_chair_print(scores.summary);
    const int code = score_write(&a->output, "chair", items, &scores);
    scores_free(&scores);
    return code != EXIT_OK ? code : n_failed > 0 ? EXIT_ITEM : EXIT_OK;
}

int score_chair(int argc, char **argv) {
    struct chair_arguments a = {0};
    struct chair_request *r = &a.request;
    const struct score_option options[] = {{.name = "--truth", .files = &a.instances},
                                           {.name = "--reference", .files = &a.references},
                                           {.name = "--truth-cache", .value = &r->truth_cache},
                                           {.name = "--mode", .value = &r->mode},
                                           {.name = "--truth-mode", .value = &r->truth_mode},
                                           {.name = "--tagger", .value = &r->tagger},
                                           {.name = "--synonyms", .value = &r->synonyms},
                                           {.name = "--unknown-images", .value = &a.unknown_images},
                                           {0}};
    bool done;
    int code = score_parse(argc, argv, help_text, options, &a.captions, &a.output, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (a.unknown_images && strcmp(a.unknown_images, "empty") != 0) {
        complain("--unknown-images \"%s\": the only choice is empty", a.unknown_images);
        return EXIT_USAGE;
    }
    if (a.instances.n + a.references.n == 0 && !r->truth_cache) {
        complain("what is in the images? Give --truth FILE... or --truth-cache FILE; see candid score chair --help");
        return EXIT_USAGE;
    }
    r->files = (struct truth_files){(const char *const *)a.instances.paths, (size_t)a.instances.n,
                                    (const char *const *)a.references.paths, (size_t)a.references.n};
    struct chair_session session = {0};
    struct eval_items items = {0};
    code = chair_session_open(r, &session);
    if (code == EXIT_OK) {
        code = score(&a, &session, &items);
    }
    items_free(&items);
    chair_session_close(&session);
    return code;
}

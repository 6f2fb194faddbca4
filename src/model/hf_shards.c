/* The weight files of a Hugging Face directory. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "model/hf_internal.h"

static candid_status add_file(struct hf_shards *s, const char *directory, const char *name, candid_error *error) {
    struct safetensors **files = realloc(s->files, (s->n_files + 1) * sizeof *files);
    if (!files) {
        return fail_memory(error, "the list of weight files", (s->n_files + 1) * sizeof *files);
    }
    s->files = files;
    char *path = NULL;
    TRY(file_join(directory, name, &path, error));
    const candid_status status = safetensors_open(path, &s->files[s->n_files], error);
    free(path);
    TRY(status);
    s->total_size += safetensors_file_size(s->files[s->n_files++]);
    return CANDID_OK;
}

/* Shard names come from a file: nothing outside of the directory may be opened. */
static bool plain_name(const char *name) {
    return name[0] != '\0' && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Opens each file that weight_map names, once. */
static candid_status open_mapped(struct hf_shards *s, const char *directory, const struct json *index, const cJSON *map,
                                 candid_error *error) {
    const size_t n = (size_t)cJSON_GetArraySize(map);
    const char **names = malloc((n + 1) * sizeof *names);
    if (!names) {
        return fail_memory(error, "the names of weight files", n * sizeof *names);
    }
    candid_status status = CANDID_OK;
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        if (!cJSON_IsString(item) || !plain_name(item->valuestring)) {
            char found[JSON_FOUND];
            struct printable key;
            status = fail(error, CANDID_ERROR_FORMAT,
                          "%s: key weight_map.%s: expected the name of a file in the directory, found %s", index->label,
                          printable_string(&key, item->string), json_found(item, found));
            break;
        }
        names[count++] = item->valuestring;
    }
    qsort(names, count, sizeof *names, compare_strings);
    for (size_t i = 0; i < count && status == CANDID_OK; i++) {
        if (i == 0 || strcmp(names[i - 1], names[i]) != 0) {
            status = add_file(s, directory, names[i], error);
        }
    }
    free(names);
    return status;
}

/* Each tensor of the index is there: a shard that was replaced or belongs to another model lacks some. */
static candid_status check_index(const struct hf_shards *s, const struct json *index, const cJSON *map,
                                 candid_error *error) {
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        const struct safetensors *file = NULL;
        if (!hf_shards_find(s, item->string, &file)) {
            struct printable name, shard;
            return fail(error, CANDID_ERROR_FORMAT, "%s: tensor %s: expected it in %s, found none of this name",
                        index->label, printable_string(&name, item->string),
                        printable_string(&shard, item->valuestring));
        }
    }
    return CANDID_OK;
}

/* metadata.total_size, where the index has it: bytes of all tensors. Nobody else checks it and some are wrong, hence a
 * warning. */
static void check_total(const struct hf_shards *s, const struct json *index, const struct logger *log) {
    int64_t expected = 0, found = 0;
    for (size_t f = 0; f < s->n_files; f++) {
        for (size_t i = 0; i < safetensors_count(s->files[f]); i++) {
            found += (int64_t)safetensors_at(s->files[f], i)->size;
        }
    }
    const cJSON *total = json_find(json_find(index->root, "metadata"), "total_size");
    if (json_is_int(total, 0, INT64_MAX, &expected) && expected != found) {
        log_write(
            log, CANDID_LOG_WARN,
            "%s: metadata.total_size is %lld, but the tensors of the files have %lld bytes: is a shard of another "
            "model?",
            index->label, (long long)expected, (long long)found);
    }
}

static candid_status open_index(const char *path, const char *directory, struct hf_shards *s, const struct logger *log,
                                candid_error *error) {
    struct json index;
    TRY(json_read(path, HF_MAX_JSON, &index, error));
    const cJSON *map = NULL;
    candid_status status = json_get_object(&index, index.root, "", "weight_map", &map, error);
    if (status == CANDID_OK && (!map || !map->child)) {
        status = fail(error, CANDID_ERROR_FORMAT, "%s: key weight_map: expected the files of the tensors, found none",
                      index.label);
    }
    if (status == CANDID_OK) {
        status = open_mapped(s, directory, &index, map, error);
    }
    if (status == CANDID_OK) {
        status = check_index(s, &index, map, error);
    }
    if (status == CANDID_OK) {
        check_total(s, &index, log);
    }
    json_free(&index);
    return status;
}

static candid_status no_weights(const char *directory, candid_error *error) {
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin"};
    char label[208];
    file_label(directory, label, sizeof label);
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        char *path = NULL;
        TRY(file_join(directory, pickles[i], &path, error));
        const bool there = file_exists(path);
        free(path);
        if (there) {
            return fail(
                error, CANDID_ERROR_UNSUPPORTED,
                "%s: expected safetensors weights, found only %s: such pickle files can run code and are not read; "
                "save the model again with save_pretrained(safe_serialization=True)",
                label, pickles[i]);
        }
    }
    return fail(error, CANDID_ERROR_IO,
                "%s: expected model.safetensors or model.safetensors.index.json in the directory, found neither",
                label);
}

candid_status hf_shards_open(const char *directory, struct hf_shards *out, const struct logger *log,
                             candid_error *error) {
    char *single = NULL, *index = NULL;
    candid_status status = file_join(directory, "model.safetensors", &single, error);
    if (status == CANDID_OK) {
        status = file_join(directory, "model.safetensors.index.json", &index, error);
    }
    if (status == CANDID_OK) {
        /* both there: the single file, as transformers does */
        status = file_exists(single)  ? add_file(out, directory, "model.safetensors", error)
                 : file_exists(index) ? open_index(index, directory, out, log, error)
                                      : no_weights(directory, error);
    }
    free(single);
    free(index);
    if (status != CANDID_OK) {
        hf_shards_close(out);
    }
    return status;
}

void hf_shards_close(struct hf_shards *s) {
    for (size_t i = 0; i < s->n_files; i++) {
        safetensors_close(s->files[i]);
    }
    free(s->files);
    *s = (struct hf_shards){0};
}

const struct safetensors_tensor *hf_shards_find(const struct hf_shards *s, const char *name,
                                                const struct safetensors **file) {
    for (size_t i = 0; i < s->n_files; i++) {
        const struct safetensors_tensor *t = safetensors_find(s->files[i], name);
        if (t) {
            if (file) {
                *file = s->files[i];
            }
            return t;
        }
    }
    return NULL;
}

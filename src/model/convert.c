/* GGUF files from models in memory: types, permutation, and the file itself. */
#include "model/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/file.h"
#include "core/status.h"
#include "model/gguf_keys.h"

#define ALIGNMENT  32
#define CHUNK_ROWS 256 /* converted together, in parallel */

static const struct {
    const char *name;
    uint32_t type; /* of most matrices */
    uint32_t more; /* of the matrices that deserve more */
    int file_type; /* general.file_type */
} types[] = {
    [CONVERT_F32] = {"f32", TYPE_F32, TYPE_F32, 0},          [CONVERT_F16] = {"f16", TYPE_F16, TYPE_F16, 1},
    [CONVERT_BF16] = {"bf16", TYPE_BF16, TYPE_BF16, 32},     [CONVERT_Q8_0] = {"q8_0", TYPE_Q8_0, TYPE_Q8_0, 7},
    [CONVERT_Q4_0] = {"q4_0", TYPE_Q4_0, TYPE_Q6_K, 2},      [CONVERT_Q4_K_M] = {"q4_k_m", TYPE_Q4_K, TYPE_Q6_K, 15},
    [CONVERT_Q5_K_M] = {"q5_k_m", TYPE_Q5_K, TYPE_Q6_K, 17}, [CONVERT_Q6_K] = {"q6_k", TYPE_Q6_K, TYPE_Q6_K, 18},
};

bool convert_type_named(const char *name, enum convert_type *out) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcasecmp(types[i].name, name) == 0) {
            *out = (enum convert_type)i;
            return true;
        }
    }
    return false;
}

static bool is_vision(const char *name) {
    return strncmp(name, "v.", 2) == 0 || strncmp(name, "mm.", 3) == 0 || strcmp(name, "model.image_newline") == 0;
}

static bool in_part(const char *name, enum convert_part part) {
    return part == CONVERT_BOTH || is_vision(name) == (part == CONVERT_VISION);
}

bool convert_has(const struct gguf *model, enum convert_part part) {
    for (size_t i = 0; i < gguf_tensor_count(model); i++) {
        if (in_part(gguf_tensor_at(model, i)->name, part)) {
            return true;
        }
    }
    return false;
}

/* ---- types ---- */

/* Layer of "blk.N.…", or -1. */
static int layer_of(const char *name) {
    return strncmp(name, "blk.", 4) == 0 ? atoi(name + 4) : -1;
}

static bool ends_with(const char *name, const char *end) {
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* llama.cpp's use_more_bits: the first and last eighth of the layers, and every third between. */
static bool wants_more(const char *name, int n_layer, enum convert_type type) {
    if (strcmp(name, "output.weight") == 0) {
        return true;
    }
    if (type == CONVERT_Q4_0 || (!ends_with(name, ".attn_v.weight") && !ends_with(name, ".ffn_down.weight"))) {
        return false;
    }
    const int i = layer_of(name), eighth = n_layer / 8;
    return i >= 0 && (i < eighth || i >= 7 * n_layer / 8 || (i - eighth) % 3 == 2);
}

static uint32_t target_type(const struct tensor *t, enum convert_type type, int n_layer) {
    if (is_vision(t->name)) { /* quantisation leaves the image encoder alone: it is small, and what it loses is sight */
        const bool matrix = t->n_dims >= 2 && ends_with(t->name, ".weight") && !strstr(t->name, "position_embd");
        return !matrix ? TYPE_F32 : type <= CONVERT_BF16 ? types[type].type : t->type;
    }
    if (t->n_dims < 2) {
        return TYPE_F32;
    }
    uint32_t wanted = wants_more(t->name, n_layer, type) ? types[type].more : types[type].type;
    if (t->ne[0] % quant_block_values(wanted) != 0) {
        wanted = t->ne[0] % QK == 0 && quant_block_values(wanted) == QKK ? TYPE_Q8_0 : TYPE_F16;
    }
    return wanted;
}

/* ---- one file ---- */

struct output {
    const struct gguf *model;
    const char *path;
    FILE *file;
    uint64_t done, total; /* values */
    int n_head, n_head_kv;
    bool halves;
    const struct convert_progress *progress;
    candid_error *error;
};

static candid_status put(const struct output *o, const void *bytes, size_t size) {
    if (size > 0 && fwrite(bytes, 1, size, o->file) != size) {
        return fail(o->error, CANDID_ERROR_IO, "%s: cannot be written: %s", o->path, strerror(errno));
    }
    return CANDID_OK;
}

static candid_status put_padding(const struct output *o, uint64_t size) {
    static const uint8_t zeros[ALIGNMENT];
    return put(o, zeros, (size_t)(-size & (ALIGNMENT - 1)));
}

/* The row of the source that becomes row r: GGUF's row 2i of a head is Hugging Face's row i, 2i + 1 is i + dim/2. */
static int64_t source_row(int64_t r, int64_t head_dim) {
    if (head_dim == 0) {
        return r;
    }
    const int64_t head = r / head_dim, in = r % head_dim;
    return head * head_dim + in / 2 + (in % 2) * (head_dim / 2);
}

/* Heads whose rows are to be permuted, or 0. */
static int permuted_heads(const struct output *o, const char *name) {
    return !o->halves || layer_of(name) < 0    ? 0
           : ends_with(name, ".attn_q.weight") ? o->n_head
           : ends_with(name, ".attn_k.weight") ? o->n_head_kv
                                               : 0;
}

/* Converts rows [first, first + n) to `to`; `wide`: n * ne[0] floats of room. */
static void convert_rows(const struct tensor *t, uint32_t type, int64_t head_dim, int64_t first, int64_t n, float *wide,
                         uint8_t *to) {
    const size_t from_bytes = quant_row_bytes(t->type, t->ne[0]), to_bytes = quant_row_bytes(type, t->ne[0]);
#pragma omp parallel for schedule(dynamic, 8)
    for (int64_t r = 0; r < n; r++) {
        const uint8_t *from = (const uint8_t *)t->data + (size_t)source_row(first + r, head_dim) * from_bytes;
        if (type == t->type) {
            memcpy(to + (size_t)r * to_bytes, from, to_bytes);
        } else {
            quant_dequantize(t->type, from, wide + r * t->ne[0], t->ne[0]);
            quant_quantize(type, wide + r * t->ne[0], to + (size_t)r * to_bytes, t->ne[0]);
        }
    }
}

static candid_status write_tensor(struct output *o, const struct tensor *t, uint32_t type) {
    const int64_t rows = t->ne[1] * t->ne[2] * t->ne[3], chunk = rows < CHUNK_ROWS ? rows : CHUNK_ROWS;
    const int heads = permuted_heads(o, t->name);
    const int64_t head_dim = heads > 0 ? rows / heads : 0;
    if (heads > 0 && (rows % heads != 0 || head_dim % 2 != 0)) {
        return fail(o->error, CANDID_ERROR_FORMAT,
                    "%s: tensor %s: expected an even number of rows for each of %d heads, found "
                    "%" PRId64 " rows",
                    gguf_path(o->model), t->origin ? t->origin : t->name, heads, rows);
    }
    const size_t row_bytes = quant_row_bytes(type, t->ne[0]);
    float *wide = malloc((size_t)(chunk * t->ne[0]) * sizeof *wide);
    uint8_t *to = malloc((size_t)chunk * row_bytes);
    candid_status status =
        wide && to ? CANDID_OK : fail_memory(o->error, "rows of a tensor", (size_t)chunk * (row_bytes + 4));
    for (int64_t first = 0; first < rows && status == CANDID_OK; first += chunk) {
        const int64_t n = rows - first < chunk ? rows - first : chunk;
        convert_rows(t, type, head_dim, first, n, wide, to);
        status = put(o, to, (size_t)n * row_bytes);
        o->done += (uint64_t)(n * t->ne[0]);
        if (status == CANDID_OK && o->progress && o->progress->report &&
            !o->progress->report(o->progress->user_data, o->done, o->total)) {
            status = fail(o->error, CANDID_ERROR_CANCELLED, "%s: cancelled, nothing was kept", o->path);
        }
    }
    free(wide);
    free(to);
    return status == CANDID_OK ? put_padding(o, (uint64_t)rows * row_bytes) : status;
}

/* Name, dimensions, type and offset of a tensor. */
static candid_status write_info(struct output *o, const struct tensor *t, uint32_t type, uint64_t offset) {
    const uint64_t length = strlen(t->name);
    const uint32_t n_dims = (uint32_t)t->n_dims;
    TRY(put(o, &length, sizeof length));
    TRY(put(o, t->name, length));
    TRY(put(o, &n_dims, sizeof n_dims));
    TRY(put(o, t->ne, n_dims * sizeof *t->ne));
    TRY(put(o, &type, sizeof type));
    return put(o, &offset, sizeof offset);
}

/* ---- keys ---- */

static candid_status choose_keys(const struct gguf *model, enum convert_part part, enum convert_type type,
                                 uint64_t n_tensors, struct mapped_file *header, candid_error *error) {
    struct gguf_keys keys = {0};
    if (part == CONVERT_VISION) { /* the keys of one file have to begin with the architecture for some readers */
        gguf_set_string(&keys, "general.architecture", "clip");
    }
    for (size_t i = 0; i < gguf_key_count(model); i++) {
        const char *key = gguf_key_at(model, i);
        const bool vision = strncmp(key, "clip.", 5) == 0, general = strncmp(key, "general.", 8) == 0;
        const bool own = strcmp(key, "candid.rope_halves") == 0 || strcmp(key, "general.alignment") == 0 ||
                         (part == CONVERT_VISION && strcmp(key, "general.architecture") == 0);
        if (!own && (general || part == CONVERT_BOTH || vision == (part == CONVERT_VISION))) {
            gguf_set_copy(&keys, model, i);
        }
    }
    gguf_set_u32(&keys, "general.file_type", (uint32_t)types[type].file_type);
    gguf_set_u32(&keys, "general.quantization_version", 2);
    return gguf_keys_finish(&keys, n_tensors, header, error);
}

static candid_status head_count(const struct gguf *model, const char *key, int *out, candid_error *error) {
    int64_t n = *out;
    TRY(gguf_get_i64(model, key, 1, 1 << 16, &n, error));
    *out = (int)n;
    return CANDID_OK;
}

static candid_status write_all(struct output *o, enum convert_part part, enum convert_type type) {
    const struct gguf *model = o->model;
    uint64_t n_tensors = 0, offset = 0;
    int64_t n_layer = 0;
    TRY(gguf_get_i64(model, "llama.block_count", 1, 1 << 14, &n_layer, o->error));
    for (size_t i = 0; i < gguf_tensor_count(model); i++) {
        const struct tensor *t = gguf_tensor_at(model, i);
        n_tensors += in_part(t->name, part);
        o->total += in_part(t->name, part) ? (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]) : 0;
    }
    struct mapped_file header = {0};
    TRY(choose_keys(model, part, type, n_tensors, &header, o->error));
    uint64_t size = header.size;
    candid_status status = put(o, header.data, header.size);
    free((void *)(uintptr_t)header.data);
    TRY(status);
    for (size_t i = 0; i < gguf_tensor_count(model); i++) {
        const struct tensor *t = gguf_tensor_at(model, i);
        if (in_part(t->name, part)) {
            const uint32_t to = target_type(t, type, (int)n_layer);
            TRY(write_info(o, t, to, offset));
            size += 8 + strlen(t->name) + 4 + 8 * (uint64_t)t->n_dims + 4 + 8;
            const uint64_t bytes = quant_row_bytes(to, t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
            offset += (bytes + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
        }
    }
    TRY(put_padding(o, size));
    for (size_t i = 0; i < gguf_tensor_count(model); i++) {
        const struct tensor *t = gguf_tensor_at(model, i);
        if (in_part(t->name, part)) {
            TRY(write_tensor(o, t, target_type(t, type, (int)n_layer)));
        }
    }
    if (fflush(o->file) != 0 || fsync(fileno(o->file)) != 0) {
        return fail(o->error, CANDID_ERROR_IO, "%s: cannot be written: %s", o->path, strerror(errno));
    }
    return CANDID_OK;
}

candid_status convert_write(const struct gguf *model, enum convert_part part, enum convert_type type, const char *path,
                            const struct convert_progress *progress, candid_error *error) {
    struct output o = {.model = model, .path = path, .progress = progress, .error = error, .n_head = 1};
    TRY(gguf_get_bool(model, "candid.rope_halves", &o.halves, error));
    TRY(head_count(model, "llama.attention.head_count", &o.n_head, error));
    o.n_head_kv = o.n_head;
    TRY(head_count(model, "llama.attention.head_count_kv", &o.n_head_kv, error));
    char *partial = malloc(strlen(path) + sizeof ".partial");
    if (!partial) {
        return fail_memory(error, "a path", strlen(path));
    }
    strcpy(partial, path);
    strcat(partial, ".partial");
    candid_status status = CANDID_OK;
    o.file = fopen(partial, "wbe");
    if (!o.file) {
        status = fail(error, CANDID_ERROR_IO, "%s: cannot be written: %s", partial, strerror(errno));
    } else {
        status = write_all(&o, part, type);
        const bool closed = fclose(o.file) == 0;
        if (status == CANDID_OK && (!closed || rename(partial, path) != 0)) {
            status = fail(error, CANDID_ERROR_IO, "%s: cannot be written: %s", path, strerror(errno));
        }
        if (status != CANDID_OK) {
            unlink(partial);
        }
    }
    free(partial);
    return status;
}
